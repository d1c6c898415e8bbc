"""What a recording of reclaim leaves open, chosen by one search that is the same for every case.

Unknown when a run begins: how many kernel pages its group was already charged for (`k0`), how many pages of other programs wait in the
CPU's add batch (`fill`), and when the periodic fold of statistics falls into the run (`fold`: before which access the first time, 0: not
at all; `period`: after how many accesses again, 0: once). The search varies one of them at a time and keeps what comes closest to the recording, judged by the figures that make two runs equal; where
the kernel repeats itself, by its pages and evictions, too. It stops at a run that cannot be told from the recorded one or, where the kernel
itself does not repeat, at one within its bar. What it chose is printed with the case.

Models: nothing. Simplifies: folds come at even distances in accesses, not in time. Omits: unknowns of machines without groups, where kswapd's timing decides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from mmpy.fidelity import reclaim_bars as bars
from mmpy.fidelity.reclaim_case import MISS, PAGE_RESIDENT, Run, RunResult, accesses_differ

MAX_K0 = 8
MAX_FILL = 30
FOLDS = 12
"""Places for the fold that are tried: evenly over the stretch before the first difference."""


class Unknowns(NamedTuple):
    """What a recording does not tell."""

    k0: int = 0
    fill: int = 0
    fold: int = 0
    period: int = 0

    def folds(self, n: int) -> set[int]:
        """The accesses of a run of `n` before which statistics are folded."""
        if not self.fold:
            return set()
        return set(range(self.fold, n + 1, self.period)) if self.period else {self.fold}


def first_difference(run: Run, ours: RunResult) -> int | None:
    """The first access that missed in one run and not in the other."""
    differ = (run.acc & MISS != 0) != (ours.acc & MISS != 0)
    return int(np.argmax(differ)) if differ.any() else None


def mismatch(run: Run, ours: RunResult) -> int:
    """How far a run of ours is from the recorded one: accesses that differ, and what counters differ by.

    Where the kernel repeats itself exactly, also the pages that differ at the end and the first eviction that is another.
    """
    names = [*bars.EQUAL, "ms_pgactivate", *(name for name in run.counters if name.startswith("events_"))]
    apart = accesses_differ(run, ours)
    apart += sum(abs(ours.counters.get(name, 0) - run.counters[name]) for name in names if name in run.counters)
    if bars.family(run) == bars.READ:
        if ours.pages is not None:
            apart += int(np.count_nonzero((run.pages ^ ours.pages) & PAGE_RESIDENT))
        if run.evictions is not None and ours.evictions is not None:
            pairs = zip(run.evictions.pages, ours.evictions.pages, strict=False)
            same = next((i for i, (a, b) in enumerate(pairs) if a != b), len(ours.evictions.pages))
            apart += len(run.evictions.pages) - min(same, len(run.evictions.pages))
    return apart


def suffices(run: Run, ours: RunResult) -> bool:
    """Whether no other choice need be tried: nothing differs or, where the kernel does not repeat itself, the bar is kept."""
    if bars.family(run) == bars.READ:
        return mismatch(run, ours) == 0
    return all(check.holds for check in bars.checks(run, ours))


def _rank(run: Run, ours: RunResult) -> tuple[bool, int, int]:
    # Where the kernel repeats itself, what is right shows in how long two runs go together: behind that, everything differs by chance.
    at = first_difference(run, ours) if bars.family(run) == bars.READ else None
    together = run.parameters.n if at is None else at
    return bool(bars.equal(run, ours)), -together, mismatch(run, ours)


def search(run: Run, attempt: Callable[[Unknowns], RunResult], on_chunk: Callable[[int, int], object] | None = None) -> RunResult:
    """The run of ours that comes closest to the recorded one; `chosen` tells the unknowns and how many were tried."""
    tried: dict[Unknowns, tuple[tuple[bool, bool, int, int], RunResult]] = {}
    most = MAX_K0 + 1 + MAX_FILL + 2 + 2 * FOLDS

    def best_of(candidates: Iterable[Unknowns]) -> bool:
        """Try candidates; True as soon as one suffices."""
        for unknowns in candidates:
            if unknowns in tried:
                continue
            ours = attempt(unknowns)
            tried[unknowns] = ((not suffices(run, ours), *_rank(run, ours)), ours)
            if on_chunk is not None:
                on_chunk(min(len(tried), most - 1), most)
            if suffices(run, ours):
                return True
        return False

    def best() -> Unknowns:
        return min(tried, key=lambda u: (tried[u][0], u))

    def stages() -> Iterable[Iterable[Unknowns]]:
        yield [Unknowns()]
        if not run.parameters.limit_pages or bars.family(run) == bars.NOTHING:
            return
        yield [Unknowns(k0) for k0 in range(MAX_K0 + 1)]
        yield [best()._replace(fill=fill) for fill in range(MAX_FILL + 1)]
        yield [best()._replace(k0=k0) for k0 in (best().k0 - 1, best().k0 + 1) if 0 <= k0 <= MAX_K0]
        at = first_difference(run, tried[best()][1])
        # What the fold changes shows at a later reclaim: it lies before the first access that differs.
        reach = run.parameters.n if at is None else at
        yield [best()._replace(fold=fold) for fold in sorted({reach * i // FOLDS for i in range(1, FOLDS + 1)} - {0})]
        # The next one lies before the first access that differs then, and the others as far apart.
        fold, at = best().fold, first_difference(run, tried[best()][1])
        if fold:
            reach = (run.parameters.n if at is None else at) - fold
            yield [best()._replace(period=period) for period in sorted({reach * i // FOLDS for i in range(1, FOLDS + 1)}) if period > 0]

    for stage in stages():
        if best_of(stage):
            break
    chosen = best()
    return replace(tried[chosen][1], chosen={**chosen._asdict(), "tried": len(tried)})
