"""The engine as what runs a replay: a machine that takes a recorded snapshot's state over, and runs the operations from there.

Models: nothing itself. Simplifies: which pages of a zone are holes is inferred from its span (none of them is ever on a list). Omits:
what the boot of that machine was like; watermarks and per-CPU sizes are those of the snapshot.
"""

from __future__ import annotations

import numpy as np

from mmcore.base.state import State
from mmcore.base.trace import Tracer
from mmcore.phys import boot
from mmcore.run import engine
from mmpy import allocstate
from mmpy.flags import Pg
from mmpy.machine import Machine
from mmpy.traces.events import Array
from mmpy.traces.recording import Recording
from mmpy.traces.state import AllocState

ARCH = "x86_64"
MAX_PCPS = 1 << 18


def lru_pages(machine: State) -> tuple[Array, Array]:
    """Heads (u32) and orders of the allocated blocks that count as LRU pages."""
    flags = machine.pages["flags"]
    both = int(Pg.LRU | Pg.ALLOCATED)
    heads = np.flatnonzero(flags & both == both)
    return heads.astype(np.uint32), flags[heads] >> 28


def mark_lru(machine: State, state: AllocState, heads: Array, orders: Array) -> None:
    """Make blocks allocated LRU pages of a machine that was just loaded with `state`, where all of the block is in use there."""
    listed = np.zeros(len(machine.pages) + 1, np.int64)
    for zone in state["zones"].values():
        lists = [(order, pfns) for (order, _), pfns in zone["free"].items()]
        lists += [(i // 3 if i < 12 else 9, pfns) for pcp in zone["pcp"].values() for i, pfns in pcp["lists"].items()]
        for order, pfns in lists:
            listed[pfns] += 1
            listed[np.asarray(pfns) + (1 << order)] -= 1
    # Number of listed pages before each page.
    before = np.concatenate(([0], np.cumsum(np.cumsum(listed[:-1]))))
    ends = np.minimum(heads.astype(np.int64) + (1 << orders.astype(np.int64)), len(machine.pages))
    used = before[ends] == before[heads]
    ranges = machine.present[: int(machine.globals["nr_present"][0])]
    zones = ranges["zone"][np.searchsorted(ranges["end"], heads[used], side="right")]
    np.subtract.at(machine.zones["nr_before"], zones, (1 << orders[used]).astype(np.uint32))
    machine.pages["flags"][heads[used]] = int(Pg.LRU | Pg.ALLOCATED) | orders[used] << 28


class EngineBackend:
    """Runs a recording's operations on mmcore's engine (mmpy.traces.replay.Backend). `machine` is its state, None before load()."""

    def __init__(self, recording: Recording | None = None, *, trace: bool = True) -> None:
        release = "" if recording is None else recording.kernel
        self.kernel = "6.1" if release.startswith("6.1.") else "6.12"
        self.tracer = Tracer() if trace else None
        self.machine: State | None = None

    def load(self, state: AllocState, *, keep_lru: bool = False) -> None:
        """Become a machine with this state's zones, in this state. ValueError says what does not fit.

        keep_lru: pages that counted as LRU pages until now still do, unless they are free in `state`: a snapshot does not tell.
        """
        cpus = 1 + max((cpu for zone in state["zones"].values() for cpu in zone["pcp"]), default=0)
        nodes = 1 + max(node for node, _ in state["zones"])
        if cpus * nodes * len(boot.ZONE_NAMES[ARCH]) > MAX_PCPS:
            raise ValueError(f"{nodes} nodes with {cpus} CPUs need more than {MAX_PCPS} sets of per-CPU lists")
        # Recordings are made with huge pages off.
        machine = Machine.from_state(state, arch=ARCH, kernel=self.kernel, thp="never").state
        if keep_lru and self.machine is not None:
            mark_lru(machine, state, *lru_pages(self.machine))
        self.machine = machine
        if self.tracer is not None:
            self.tracer.take()

    def _loaded(self) -> State:
        if self.machine is None:
            raise RuntimeError("no state was loaded")
        return self.machine

    def run(self, ops: Array, rc: Array, value: Array, start: int, budget: int, pages_out: Array, pages_used: int) -> tuple[int, int]:
        """Run a chunk; see mmcore.run.engine.run()."""
        _, at, used = engine.run(self._loaded(), ops, rc, value, start, budget, pages_out, pages_used, self.tracer)
        return at, used

    def take(self) -> Array:
        """Tracepoints since the last call."""
        return (Tracer() if self.tracer is None else self.tracer).take()

    def state(self) -> AllocState:
        """Lists and counters of the machine now."""
        return allocstate.dump(self._loaded(), boot.ZONE_NAMES[ARCH])
