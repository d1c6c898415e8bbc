"""Recorded reclaim runs beside ours: every counter, every access, every page at the end, and where they were recorded every eviction.

Rows of a case: the counters by their recorded names; `acc.miss` and `acc.minor`, access by access; `state.resident` and what the flags of
mapped pages say, page by page; `checkpoint.*`, a counter at each point on the way; for cases of evict/ `evict.*`, the orders of adds,
deletions and activations and vmscan's batches; `verdict.equal` (see reclaim_bars.equal) and `verdict.bar` (the bar of the run's family).
For sequences `kernel` is the recorded length, `ours` the number of equal items. What counts the whole machine (`vm_*`, `vmend_*`) is told,
not scored, wherever there is a group.

Models: nothing itself. Simplifies: one search, the same for all cases, chooses what a recording leaves open; `chosen.*` rows say what it
chose. Omits: generations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from mmpy.fidelity import reclaim_bars as bars
from mmpy.fidelity.case import Case, RecordingError
from mmpy.fidelity.reclaim_case import (
    ACC_MINOR,
    MISS,
    PAGE_ACTIVE,
    PAGE_DIRTY,
    PAGE_MAPPED,
    PAGE_REFERENCED,
    PAGE_RESIDENT,
    PAGE_SWAPPED,
    Run,
    RunResult,
    check_sequence,
    open_run,
)
from mmpy.fidelity.rows import Row, error, figure, is_error
from mmpy.workloads import Accesses

VERDICTS = ("verdict.equal", "verdict.bar")
_SCORED = ("misses", "majflt", "minflt", "resident_end", "ms_", "events_", "end_", "inblock", "oublock", "mem_", "swap_")
_CHECKPOINTS = (
    "majflt", "inblock", "ms_pgscan", "ms_pgsteal", "ms_pgrefill", "ms_pgactivate", *bars.REFAULTS, "vm_pgscan_kswapd", "vm_pgscan_direct",
    "vm_nr_free_pages", "cur_inactive_anon", "cur_active_anon", "cur_inactive_file", "cur_active_file", "cur_kernel",
)  # fmt: skip
_PAGE_BITS = {
    "resident": PAGE_RESIDENT, "mapped": PAGE_MAPPED, "referenced": PAGE_REFERENCED, "active": PAGE_ACTIVE, "dirty": PAGE_DIRTY,
    "swapped": PAGE_SWAPPED,
}  # fmt: skip

Simulate = Callable[[Run, Accesses, Callable[[int, int], object] | None], RunResult]


def compare_reclaim(
    case: Case, *, on_chunk: Callable[[int, int], object] | None = None, simulator: Simulate | None = None
) -> Iterator[Row]:
    """All rows of a case of kind reclaim or evict. `simulator(run, accesses, on_chunk)` replaces the search and the machine below it."""
    if case.lru == "mglru":
        yield error(case.name, case.kind, "runs under the multi-generational LRU need it, which this version does not have yet")
        return
    run = open_run(case)
    recorded = case.entry.get("seq_hash", "")
    accesses = check_sequence(run.parameters, recorded if isinstance(recorded, str) else "", case.name)
    yield from compare_runs(run, (simulator or _simulate)(run, accesses, on_chunk))


def _simulate(run: Run, accesses: Accesses, on_chunk: Callable[[int, int], object] | None) -> RunResult:
    # Machines are needed only here: what was recorded can be read without them.
    from mmpy.fidelity.reclaim_run import simulate

    return simulate(run, accesses, on_chunk)


def compare_runs(run: Run, ours: RunResult) -> Iterator[Row]:
    """All rows of a recorded run and one of ours."""
    if len(ours.acc) != len(run.acc):
        raise RecordingError(f"case {run.name}: {len(ours.acc)} accesses were simulated, {len(run.acc)} are recorded")
    rows = [*_accesses(run, ours), *_counters(run, ours), *_pages(run, ours), *_checkpoints(run, ours), *_evictions(run, ours)]
    yield from _verdicts(run, ours)
    yield from rows
    for name, value in ours.chosen.items():
        yield {**figure(run.name, run.kind, f"chosen.{name}", None, value, exact=False, note="an input, searched"), "distance": None}


def _verdicts(run: Run, ours: RunResult) -> Iterator[Row]:
    kind, apart = bars.family(run), bars.equal(run, ours)
    yield figure(run.name, run.kind, "verdict.equal", True, not apart, exact=False, note=", ".join(apart) or "equal")
    demands = list(bars.checks(run, ours))
    failed = [c for c in demands if not c.holds]
    told = ", ".join(map(str, failed or demands))
    yield figure(run.name, run.kind, "verdict.bar", True, not failed, exact=True, note=f"{kind}: {told}")


def _counters(run: Run, ours: RunResult) -> Iterator[Row]:
    for name, kernel in run.counters.items():
        spread = run.spread.get(name)
        value = ours.counters.get(name)
        if value is not None:
            note = "" if name.startswith(_SCORED) or not run.parameters.limit_pages else "of the whole machine"
            yield figure(run.name, run.kind, name, kernel, value, exact=bars.is_exact(run, name), spread=spread, note=note)
        elif name.startswith(_SCORED) or not run.parameters.limit_pages:
            yield error(run.name, run.kind, "the simulator has no such counter", name=name, kernel=kernel)


def _bits(run: Run, name: str, kernel: np.ndarray, ours: np.ndarray, *, exact: bool, spread: float | None = None) -> Row:
    """The row of two equally long arrays of bits."""
    same = kernel == ours
    row = figure(run.name, run.kind, name, len(same), int(np.count_nonzero(same)), exact=exact, spread=spread)
    row["first_divergence"] = None if same.all() else int(np.argmin(same))
    return row


def _accesses(run: Run, ours: RunResult) -> Iterator[Row]:
    repeats = bars.family(run) in (bars.READ, bars.NOTHING)
    spread = run.spread.get("per_access_miss_differs")
    yield _bits(run, "acc.miss", run.acc & MISS != 0, ours.acc & MISS != 0, exact=repeats, spread=spread)
    yield _bits(run, "acc.minor", run.acc & ACC_MINOR != 0, ours.acc & ACC_MINOR != 0, exact=False)


def _pages(run: Run, ours: RunResult) -> Iterator[Row]:
    if ours.pages is None:
        yield error(run.name, run.kind, "the simulator tells no residency", name="state.resident", kernel=len(run.pages))
        return
    for name, bit in _PAGE_BITS.items():
        exact = name == "resident" and bars.family(run) in (bars.READ, bars.NOTHING)
        spread = run.spread.get("resident_set_differs") if name == "resident" else None
        yield _bits(run, f"state.{name}", run.pages & bit != 0, ours.pages & bit != 0, exact=exact, spread=spread)


def _checkpoints(run: Run, ours: RunResult) -> Iterator[Row]:
    found = {int(ck["t"]): ck for ck in ours.checkpoints}
    for name in _CHECKPOINTS:
        points = [ck for ck in run.checkpoints if name in ck]
        if not points or not any(name in ck for ck in found.values()):
            continue
        same = [found.get(int(ck["t"]), {}).get(name) == ck[name] for ck in points]
        row = figure(run.name, run.kind, f"checkpoint.{name}", len(same), sum(same), exact=False)
        at = same.index(False) if False in same else None
        row["first_divergence"] = at
        if at is not None:
            t = int(points[at]["t"])
            row["note"] = f"after {t} accesses: kernel {points[at][name]}, ours {found.get(t, {}).get(name)}"
        yield row


def _evictions(run: Run, ours: RunResult) -> Iterator[Row]:
    recorded = run.evictions
    if recorded is None:
        return
    exact = bars.family(run) == bars.READ
    orders = {what: [page for event, page in recorded.pages if event == what] for what in ("add", "del", "activate")}
    if ours.evictions is None:
        for name, order in (*orders.items(), ("batches", recorded.batches)):
            yield error(run.name, run.kind, "the simulator recorded no evictions", name=f"evict.{name}", kernel=len(order))
        return
    for what, order in orders.items():
        mine = [page for event, page in ours.evictions.pages if event == what]
        yield _sequence(run, f"evict.{what}", order, mine, exact)
    yield _sequence(run, "evict.batches", recorded.batches, ours.evictions.batches, exact)


def _sequence(run: Run, name: str, kernel: Sequence[Any], ours: Sequence[Any], exact: bool) -> Row:
    same = [a == b for a, b in zip(kernel, ours, strict=False)]
    row = figure(run.name, run.kind, name, len(kernel), sum(same), exact=exact)
    row["distance"] = (max(len(kernel), len(ours)) - sum(same)) / max(len(kernel), 1)
    at = same.index(False) if False in same else len(same) if len(kernel) != len(ours) else None
    row["first_divergence"] = at
    if at is not None:
        row["note"] = f"kernel {kernel[at] if at < len(kernel) else 'ends'}, ours {ours[at] if at < len(ours) else 'ends'}"
    return row


# ---- over all cases


@dataclass(frozen=True)
class Over:
    """One figure over all cases that have it: how many, the median distance, the worst, and whose that is."""

    figure: str
    cases: int
    median: float
    worst: float
    case: str
    errors: int


def overview(rows: Iterable[Mapping[str, Any]]) -> list[Over]:
    """Median and worst distance of each scored figure over cases of reclaim and evict; figures in the order in which they came."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        name = str(row["figure"])
        if row["kind"] in ("reclaim", "evict") and name.startswith((*_SCORED, "acc.", "state.resident", "evict.")):
            found.setdefault(name, []).append(row)
    out = []
    for name, several in found.items():
        distances = [(float(r["distance"]), str(r["case"])) for r in several if not is_error(r) and r["distance"] is not None]
        if distances:
            worst, case = max(distances, key=lambda d: d[0])
            out.append(Over(name, len(distances), median(d for d, _ in distances), worst, case, len(several) - len(distances)))
    return out


def verdicts(rows: Iterable[Mapping[str, Any]]) -> dict[str, tuple[int, int]]:
    """How many cases are within their bar, how many equal, and how many there are: {"verdict.bar": (good, all), ...}."""
    out: dict[str, tuple[int, int]] = {}
    for row in rows:
        if row["figure"] in VERDICTS:
            good, total = out.get(row["figure"], (0, 0))
            out[row["figure"]] = good + bool(row["ours"]), total + 1
    return out
