"""Runs a stream of operations made from a recording on a machine that starts from the recording's snapshot.

Free-running streams run from the first snapshot to the end on one machine; re-synchronised ones get the recorded state at every
snapshot. The machine is reached through a small interface (Backend), so that a twin can be put in the engine's place.

Models: nothing of the kernel's. Simplifies: nothing. Omits: nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from mmcore.base.records import TRACE_DTYPE
from mmcore.run.ops import Op
from mmpy.traces.convert import OpStream, convert
from mmpy.traces.events import Array
from mmpy.traces.recording import Recording, Snapshot
from mmpy.traces.state import AllocState

CHUNK = 100_000
"""Operations between two moments at which Ctrl-C and a progress callback get a turn."""


MAX_BULK_PAGES = 1 << 28


class Backend(Protocol):
    """What runs operations: the engine (mmpy.traces.backend) or a twin."""

    def load(self, state: AllocState, *, keep_lru: bool = False) -> None:
        """Become a machine in this state; keep_lru: pages that counted as LRU pages until now still do where they are in use."""

    def run(self, ops: Array, rc: Array, value: Array, start: int, budget: int, pages_out: Array, pages_used: int) -> tuple[int, int]:
        """Run at most `budget` ops from `start`, stop behind a CHECKPOINT; (index of the next op, pages used)."""

    def take(self) -> Array:
        """The tracepoints (TRACE_DTYPE) since the last call."""

    def state(self) -> AllocState:
        """The allocator's state now."""


@dataclass
class Replay:
    """What a replay left behind: results by op (rc i64, value u64), pages of bulk ops, tracepoints, our state at each snapshot."""

    recording: Recording
    stream: OpStream
    rc: Array
    value: Array
    pages_out: Array
    traced: Array
    done: int = 0
    states: dict[int, AllocState] = field(default_factory=dict)
    cpu_seconds: float = 0.0


def replay(
    recording: Recording,
    stream: OpStream | None = None,
    *,
    backend: Backend,
    resync: bool = False,
    stop: int | None = None,
    first: Snapshot | None = None,
    on_chunk: Callable[[int, int], object] | None = None,
) -> Replay:
    """Run `stream` (made by convert() if not given) from its first snapshot to its end, or to op `stop`.

    on_chunk(done, total) is called between chunks. `cpu_seconds` counts the simulation alone, not the dumps of our state at snapshots.
    """
    if stream is None:
        stream = convert(recording, resync=resync, first=first)
    end = len(stream) if stop is None else stop
    if not 0 <= end <= len(stream):
        raise ValueError(f"stop is {stop}; it must lie in 0..{len(stream)}")
    n = len(stream)
    if stream.nr_bulk_pages > MAX_BULK_PAGES:
        raise ValueError(f"bulk requests of the stream got {stream.nr_bulk_pages} pages; the limit is {MAX_BULK_PAGES}")
    out = Replay(
        recording,
        stream,
        np.zeros(n, np.int64),
        np.zeros(n, np.uint64),
        np.zeros(stream.nr_bulk_pages, np.uint32),
        np.empty(0, TRACE_DTYPE),
    )
    start = first or recording.snapshots[0]
    backend.load(start.state)
    traced, at, used = [], 0, 0
    while at < end:
        began = time.process_time()
        at, used = backend.run(stream.ops, out.rc, out.value, at, min(CHUNK, end - at), out.pages_out, used)
        out.cpu_seconds += time.process_time() - began
        traced.append(backend.take())
        if stream.ops["op"][at - 1] == Op.CHECKPOINT:
            number = int(stream.ops["a"][at - 1])
            out.states[number] = backend.state()
            if stream.resync:
                backend.load(recording.snapshot(number).state, keep_lru=True)
        out.done = at
        if on_chunk is not None:
            on_chunk(at, end)
    out.traced = np.concatenate(traced) if traced else out.traced
    return out
