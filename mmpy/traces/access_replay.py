"""A trace of accesses, made by a simulated process: its pages mapped, then accessed in order.

Models: nothing itself; the accesses fault as the machine has it. Simplifies: what the program mapped is not in such a trace, so that every
page it accessed is private anonymous memory from the start, readable and writable; one thread. Omits: its system calls, its files.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from mmpy.accesses import MAX_ADDRESS
from mmpy.errors import MmapError
from mmpy.process import Process
from mmpy.traces.access import GAP, regions
from mmpy.vmflags import Fault, Map

CHUNK = 1 << 18
"""Accesses between two chances for Ctrl-C and a progress bar."""
MAX_REGIONS = 60_000
"""A process has 65,530 mappings at most (vm.max_map_count)."""


@dataclass
class Outcome:
    """What many accesses came to: how many were made, and of each kind of result how many."""

    done: int = 0
    counts: np.ndarray = field(default_factory=lambda: np.zeros(8, np.int64))

    def as_dict(self) -> dict[str, int]:
        """The counts by name."""
        n = {fault: int(self.counts[fault]) for fault in Fault}
        return {
            "accesses": self.done, "hits": n[Fault.HIT], "minor": n[Fault.MINOR], "major": n[Fault.MAJOR],
            "segv": n[Fault.SEGV_MAPERR] + n[Fault.SEGV_ACCERR], "sigbus": n[Fault.SIGBUS], "oom": n[Fault.OOM],
        }  # fmt: skip

    @property
    def out_of_memory(self) -> bool:
        """Whether the last access found no memory."""
        return bool(self.counts[Fault.OOM])


def map_pages(process: Process, vpns: np.ndarray, gap: int = GAP) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Map ranges of pages that hold all of `vpns`: those that were mapped, and those that the machine refused (accesses there fail).

    Where that makes more mappings than a process may have, larger gaps are mapped along with what is around them.
    """
    wanted = regions(vpns, gap)
    while len(wanted) > MAX_REGIONS:
        gap = 2 * gap + 1
        wanted = regions(vpns, gap)
    mapped, refused = [], []
    flags = Map.PRIVATE | Map.ANONYMOUS | Map.FIXED | Map.NORESERVE
    for start, end in wanted:
        if end << 12 > MAX_ADDRESS:
            refused.append((start, end))
            continue
        try:
            process.mmap((end - start) << 12, addr=start << 12, flags=flags)
        except MmapError:
            refused.append((start, end))
        else:
            mapped.append((start, end))
    return mapped, refused


def make_accesses(
    process: Process, vpns: np.ndarray, writes: np.ndarray, outcome: Outcome, on_chunk: Callable[[int], object] | None = None
) -> bool:
    """Access pages in order and add to `outcome`; False if memory ran out. on_chunk(accesses made) is called after each chunk."""
    from mmcore.run.access import access

    state, cpu = process.machine.state, process.cpu
    for at in range(0, len(vpns), CHUNK):
        part = np.ascontiguousarray(vpns[at : at + CHUNK])
        done, counts = access(state, process.mm, part, np.ascontiguousarray(writes[at : at + CHUNK]), cpu)
        outcome.done += done
        outcome.counts += counts
        if on_chunk is not None:
            on_chunk(outcome.done)
        if done < len(part) or counts[Fault.OOM]:
            return False
    return True
