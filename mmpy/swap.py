"""Swap areas of a machine: machine.swapon("1G"), machine.swaps, machine.swapoff(area).

Models: swapon(2), swapoff(2), the rows of /proc/swaps. Simplifies: a device has a size, a name and a speed, but no contents. Omits:
discard, swap files with holes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, SupportsIndex

import numpy as np

from mmcore.sys import swap_calls
from mmpy.config import as_int
from mmpy.syscalls import PAGE_SIZE, outcome, parse_bytes
from mmpy.vmviews import text_of

if TYPE_CHECKING:
    from mmpy.machine import Machine

USED, SOLIDSTATE, SYNCHRONOUS, FILE = 1, 4, 8, 64
MAX_PRIORITY = 32767
MAX_PAGES = 2**31 - 1


class SwapArea:
    """An area that pages are swapped out to: name, size and used (bytes), priority. A handle; after swapoff() its figures are gone."""

    __slots__ = ("ident", "index", "machine")

    def __init__(self, machine: Machine, index: int) -> None:
        self.machine, self.index = machine, index
        self.ident = int(machine.state.get("swap_areas")[index]["id"])

    def _row(self) -> np.void:
        if not self.alive:
            raise ValueError(f"swap area {self.index} does not exist in this state of the machine: it was switched off, or never was")
        row: np.void = self.machine.state.get("swap_areas")[self.index]
        return row

    @property
    def alive(self) -> bool:
        """Whether it is in use in the machine's present state."""
        areas = self.machine.state.get("swap_areas")
        return self.index < len(areas) and bool(areas[self.index]["flags"] & USED) and int(areas[self.index]["id"]) == self.ident

    @property
    def name(self) -> str:
        return text_of(self.machine.state, int(self._row()["name"]))

    @property
    def size(self) -> int:
        """Bytes that can be swapped out to it: without the header."""
        return int(self._row()["pages"]) * PAGE_SIZE

    @property
    def used(self) -> int:
        """Bytes in use, those that CPUs keep in stock included (as /proc/swaps counts)."""
        return int(self._row()["inuse"]) * PAGE_SIZE

    @property
    def priority(self) -> int:
        return int(self._row()["prio"])

    @property
    def rotational(self) -> bool:
        return not int(self._row()["flags"]) & SOLIDSTATE

    @property
    def synchronous(self) -> bool:
        return bool(int(self._row()["flags"]) & SYNCHRONOUS)

    @property
    def partition(self) -> bool:
        return not int(self._row()["flags"]) & FILE

    @property
    def users(self) -> np.ndarray:
        """How often each slot is in use: array of uint32 by offset."""
        row = self._row()
        first = int(row["first_slot"])
        counts: np.ndarray = self.machine.state.get("swap_slots")["count"][first : first + int(row["max"])].copy()
        return counts

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SwapArea):
            return NotImplemented
        return self.machine is other.machine and (self.index, self.ident) == (other.index, other.ident)

    def __hash__(self) -> int:
        return hash((id(self.machine), self.index, self.ident))

    def __repr__(self) -> str:
        if not self.alive:
            return f"SwapArea({self.index}, switched off)"
        return f"SwapArea({self.name!r}, size={self.size}, used={self.used}, priority={self.priority})"


def swapon(
    machine: Machine,
    size: str | SupportsIndex,
    priority: int | None,
    rotational: bool,
    synchronous: bool,
    name: str | None,
    partition: bool,
) -> SwapArea:
    """See Machine.swapon."""
    nr = parse_bytes(size, "size") // PAGE_SIZE
    if not swap_calls.LEAST_PAGES <= nr <= MAX_PAGES:
        raise ValueError(f"size is {size!r}: {nr} pages; it must lie in {swap_calls.LEAST_PAGES}..{MAX_PAGES}")
    if priority is not None and not 0 <= as_int(priority, "priority") <= MAX_PRIORITY:
        raise ValueError(f"priority is {priority}; it must lie in 0..{MAX_PRIORITY}, or be None")
    if name is None:
        name = f"/dev/ram{len(swaps(machine))}"
    elif not isinstance(name, str):
        raise TypeError(f"name must be a string, not {type(name).__name__}")
    if not name or "\n" in name or "\0" in name:
        raise ValueError(f"a swap device cannot be called {name!r}")
    rc = swap_calls.swapon(
        machine.state, nr, -1 if priority is None else priority, bool(rotational), bool(synchronous), name, bool(partition)
    )
    return SwapArea(machine, outcome(rc, f"swapon({name!r}, {nr} pages)") - 1)


def swapoff(machine: Machine, area: SwapArea, cpu: int) -> None:
    """See Machine.swapoff."""
    if not isinstance(area, SwapArea):
        raise TypeError(f"area must be a SwapArea, not {type(area).__name__}")
    if area.machine is not machine:
        raise ValueError("this swap area belongs to another machine")
    name = area.name        # gone afterwards
    outcome(swap_calls.swapoff(machine.state, area.index + 1, cpu), f"swapoff({name!r})")


def swaps(machine: Machine) -> list[SwapArea]:
    """The areas in use, in the order of /proc/swaps."""
    areas = machine.state.get("swap_areas")
    return [SwapArea(machine, k) for k in range(len(areas)) if areas[k]["flags"] & USED]
