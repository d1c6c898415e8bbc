"""Recorded events -> a stream of operations for the engine, and the recorded rows by the operation they belong to.

Models: the order in which the recorded kernel did things. What is taken from the recording: requests (allocations with order, flags and
task; frees; bulk requests with what they got), ticks of the statistics worker, kswapd's wake and sleep, the OOM victim. What the rows
say about the allocator's own decisions (rmqueue, extfrag, pcp_drain, page frames) is kept aside to be compared.

Rules, each a fact of the kernel's order of doing things:

* A page freed in a batch enters its list at its `free_batched` row; the `free` row before it is no operation.
* A free names the operation that got the page and the offset in it; what no operation got is named by its page frame (OPF_PFN).
* Bulk requests are placed at their return; one that an ordinary allocation stood in for is that allocation.
* Drain rows at preemption depth 2 show a tick of the statistics worker (or drain_all_pages(), by who calls); the silent ticks between
  are computed (ticks.py).
* A wake row begins a balancing run of kswapd and ends one that still ran; a sleep row shows that it ended 100 ms before.
* MOVABLE allocations count as LRU pages (OPF_LRU). A task in direct reclaim, and kswapd, may use the reserves (OPF_MEMALLOC); a task
  that the OOM killer chose, from then on, half of min (OPF_OOM_VICTIM).
* A mark "SNAPk BEGIN" becomes a CHECKPOINT with id k. Re-synchronised streams forget at each who owns what: there the state is
  replaced by the recorded one.

Simplifies: a request is placed at its row. Omits: compaction and reclaim as such (what they free is in the rows).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from mmcore.run.ops import Op
from mmpy.traces import _convert
from mmpy.traces.errors import TraceFormatError
from mmpy.traces.events import EVENT_KSWAPD_SLEEP, EVENT_KSWAPD_WAKE, Array, Events
from mmpy.traces.recording import Recording, Snapshot
from mmpy.traces.ticks import GAP_US, kswapd_ends, silent_ticks

NO_OP = 0xFFFFFFFF
"""Operation of a recorded row that belongs to none."""


@dataclass(frozen=True)
class OpStream:
    """A stream of operations made from events.

    ops (OP_DTYPE); rows (u32): row of the events for each op; recorded (TRACE_DTYPE): the recorded rmqueue (1), pcp_drain (2) and
    extfrag (3) rows, each with the op it belongs to (or NO_OP), in order, recorded_rows (u32) their rows; counts: what was seen.
    A recorded extfrag row whose block no rmqueue row tells of has one put before it, so that event 1 lists all blocks taken.
    """

    ops: Array
    rows: Array
    recorded: Array
    recorded_rows: Array
    first_row: int = 0
    resync: bool = False
    counts: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ops)

    @property
    def nr_bulk_pages(self) -> int:
        """Pages that the bulk operations ask for: the size that `pages_out` needs."""
        return int(self.ops["a"][self.ops["op"] == Op.ALLOC_BULK].sum())

    def checkpoints(self) -> dict[int, int]:
        """Index of the CHECKPOINT op by snapshot number."""
        at = np.flatnonzero(self.ops["op"] == Op.CHECKPOINT)
        return {int(self.ops["a"][i]): int(i) for i in at}


def convert(recording: Recording, *, resync: bool = False, first: Snapshot | None = None) -> OpStream:
    """Operations of everything behind a recording's first snapshot (or `first`).

    TraceFormatError if the recording has no snapshot to start from or a row names flags that gfp.csv does not list.
    """
    if first is None:
        if not recording.snapshots:
            raise TraceFormatError(f"{recording.directory}: no snapshot: a mark 'SNAPk BEGIN' and a file stateK.NAME.txt are needed")
        first = recording.snapshots[0]
    later = [s for s in recording.snapshots if s.row > first.row]
    return convert_events(
        recording.events,
        recording.gfp_bits,
        first_row=first.row + 1,
        start_us=first.end_us,
        marks=[(s.row, s.number) for s in later],
        kills=recording.oom_kills,
        resync=resync,
        source=str(recording.directory),
    )


def convert_events(
    events: Events,
    gfp_bits: Array,
    *,
    first_row: int = 0,
    start_us: int | None = None,
    marks: list[tuple[int, int]] | None = None,
    kills: tuple[tuple[int, int], ...] = (),
    resync: bool = False,
    adopt: bool = True,
    ticks: bool = True,
    source: str = "trace",
) -> OpStream:
    """Operations of events[first_row:].

    gfp_bits: flag bits (u32) by gfp_id. start_us: silent ticks are computed from then on (None: from the first row). marks: (row, id)
    of checkpoints, sorted. kills: (time in us, pid) of OOM victims. adopt: frees of pages that no operation got become operations that
    name the page frame; else they are left out, and only counted. ticks: whether ticks and kswapd are told of at all.
    """
    rows = events.rows
    role = _convert.find_roles(rows, GAP_US)
    times = rows["t_us"]
    timers: list[tuple[int, int, int]] = []
    if ticks and len(rows):
        start = int(times[min(first_row, len(rows) - 1)]) if start_us is None else start_us
        visible = times[np.flatnonzero(role == _convert.TICK)]
        timers += [(t, int(Op.VMSTAT_TICK), 0) for t in silent_ticks(visible, start, int(times[-1]))]
        # A run's end takes effect at the first row not before it, a tick at the first row behind it.
        timers += [(t - 1, int(Op.KSWAPD_END), nid) for nid, ends in _kswapd_ends(events).items() for t in ends if t > start]
        timers.sort()
    mark_rows, mark_ids = zip(*marks, strict=True) if marks else ((), ())
    kill_times, kill_pids = zip(*kills, strict=True) if kills else ((), ())
    try:
        ops, op_rows, recorded, recorded_rows, counts = _convert.convert_rows(
            rows,
            events.extras,
            events.pages,
            role,
            gfp_bits,
            np.array(timers, _convert.TIMER_DTYPE),
            (mark_rows, mark_ids),
            (kill_pids, kill_times),
            first=first_row,
            resync=resync,
            adopt=adopt,
        )
    except IndexError as e:
        raise TraceFormatError(f"{source}: {e}") from None
    return OpStream(ops, op_rows, recorded, recorded_rows, first_row, resync, dict(counts))


def _kswapd_ends(events: Events) -> dict[int, list[int]]:
    """Times of the ends of balancing runs by node."""
    at = {}
    for code in (EVENT_KSWAPD_WAKE, EVENT_KSWAPD_SLEEP):
        rows = np.flatnonzero(events.rows["event"] == code)
        nids = np.zeros(len(rows), np.int64)
        where = np.searchsorted(events.extras["row"], rows)
        known = where < len(events.extras)
        known[known] = events.extras["row"][where[known]] == rows[known]
        nids[known] = events.extras["a"][where[known]]
        at[code] = nids, events.rows["t_us"][rows]
    wake_nids, wakes = at[EVENT_KSWAPD_WAKE]
    sleep_nids, sleeps = at[EVENT_KSWAPD_SLEEP]
    return {int(nid): kswapd_ends(wakes[wake_nids == nid], sleeps[sleep_nids == nid]) for nid in np.unique(sleep_nids)}
