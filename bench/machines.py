"""The machines that the rows run on, and memory that is warm before anything is timed."""

from __future__ import annotations

from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np

from mmcore.base.state import State
from mmpy import Machine

PAGE_BYTES = 4096
STATE_BYTES_PER_PAGE = 25
"""Bytes of all arrays a page frame, rounded up."""
MOVABLE = 1


def machine(nr_pages: int, cpus: int = 1) -> Machine:
    """A PC with one node and this many page frames."""
    return Machine(nr_pages * PAGE_BYTES, cpus=cpus)


def warm(state: State) -> State:
    """Write to every page of host memory that the state's arrays take, without changing them: a first touch costs up to 9 us."""
    for array in state.arrays().values():
        warm_array(array)
    return state


def warm_array(array: np.ndarray) -> np.ndarray:
    """Touch an array."""
    array.reshape(-1).view(np.uint8)[::PAGE_BYTES] |= 0
    return array


def biggest_zone(state: State) -> int:
    """Index of the zone with most memory."""
    return int(np.argmax(state.zones["managed"]))


@cache
def only_max_order_plan(nr_pages: int = 1 << 17) -> Any:
    """Plan of a machine with a single Normal zone that holds nothing but blocks of the highest order after boot."""
    start, end = 1 << 20, (1 << 20) + nr_pages
    zones = []
    for zid, name in enumerate(("DMA", "DMA32", "Normal", "Movable", "Device")):
        at, size = (start, nr_pages) if name == "Normal" else (0, 0)
        zones.append(SimpleNamespace(node=0, zid=zid, name=name, start_pfn=at, spanned=size, present=size))
    return SimpleNamespace(
        arch="x86_64",
        zones=zones,
        nodes=[SimpleNamespace(start_pfn=start, spanned=nr_pages, present=nr_pages, distances=[10])],
        cpu_node=[0],
        max_pfn=end,
        zonelists=[([2], [2])],
        present_ranges=[(2, start, end)],
        free_ranges=[(2, start, end)],
        late_ranges=[],
        mobility_disabled=False,
    )
