"""When the per-CPU statistics worker ran, as far as a trace shows it.

Models: the deferrable timer of vmstat_update (mm/vmstat.c) on the timer wheel (kernel/time/timer.c): the worker re-arms itself for the
next whole second of jiffies; a timer 64 to 511 jiffies away fires at the next multiple of 8 jiffies after it, so 8, 6, 4, 2 jiffies
late in turn at HZ = 250. Simplifies: one CPU, HZ = 250, one tick a second. Omits: a worker that is late because the CPU was busy.

A tick that gives pages back shows itself by its drain rows. One that does not still folds counters and lowers `high`: its time is
computed from the ticks that can be seen.
"""

from __future__ import annotations

import numpy as np

from mmpy.traces.errors import TraceFormatError
from mmpy.traces.events import Array

GAP_US = 100_000
"""Drain rows of one tick lie closer together than this; ticks lie further apart."""

_JIFFY_US = 4000
_SECOND = 1_000_000
_MAX_SECONDS = 2_000_000


def silent_ticks(visible_us: Array, start_us: int, end_us: int) -> list[int]:
    """Times (us) within (start_us, end_us) of the ticks that drained nothing, given the times of those that did.

    The phase (which of the four latenesses a given second has) is the one under which the visible ticks deviate least from the
    arithmetic. Without a visible tick nothing is known: [].
    """
    if not len(visible_us):
        return []
    seen = [int(t) for t in visible_us]
    # Seconds are counted from the first visible tick: whatever the offset between clock and jiffies, no rounding falls on an edge.
    origin = round(seen[0] / _SECOND)
    seconds = [origin + round((t - seen[0]) / _SECOND) for t in seen]

    def due(second: int, phase: int) -> int:
        return _JIFFY_US * (second * 250 + 8 - 2 * ((second + phase) % 4))

    fits = []
    for phase in range(4):
        late = [t - due(n, phase) for t, n in zip(seen, seconds, strict=True)]
        fits.append((max(late) - min(late), phase, sum(late) // len(late)))
    _, phase, offset = min(fits)
    first = origin + (start_us - seen[0]) // _SECOND - 1
    last = origin + (end_us - seen[0]) // _SECOND + 2
    if last - first > _MAX_SECONDS:
        raise TraceFormatError(f"the trace spans {last - first} seconds; the limit is {_MAX_SECONDS}")
    shown = set(seconds)
    times = (due(n, phase) + offset for n in range(first, last + 1) if n not in shown)
    return [t for t in times if start_us < t < end_us]


def kswapd_ends(wake_us: Array, sleep_us: Array) -> list[int]:
    """Times (us) at which balancing runs of one node's kswapd ended, from its wake and sleep rows.

    kswapd naps 25 jiffies before it sleeps, so the run ended 100 ms before; but not before the wake row that began it.
    """
    wakes = np.sort(np.asarray(wake_us, np.int64))
    out = []
    for t in sorted(int(t) for t in sleep_us):
        before = int(np.searchsorted(wakes, t, side="right"))
        end = t - GAP_US
        out.append(max(end, int(wakes[before - 1]) + 1) if before else end)
    return out
