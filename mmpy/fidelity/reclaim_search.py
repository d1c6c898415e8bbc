"""What a recording of reclaim leaves open, chosen by one search that is the same for every case.

Unknown when a run begins: how many kernel pages its group was already charged for (`k0`), how many pages of other programs wait in the
CPU's add batch (`fill`), and when the periodic fold of statistics falls into the run (`fold`: before which access the first time, 0: not
at all; `period`: after how many accesses again, 0: once). The search varies one of them at a time and keeps what comes closest to the
recording, judged by the figures that make two runs equal; where the kernel repeats itself, by its pages and evictions, too, and then once
more by how far two runs go together from the start. It stops at a run that cannot be told from the recorded one or, where the kernel
itself does not repeat, at one within its bar. What it chose is printed with the case.

Models: nothing. Simplifies: folds come at even distances in accesses, not in time. Omits: unknowns of machines without groups, where
kswapd's timing decides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
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


def together(run: Run, ours: RunResult) -> int:
    """How many accesses two runs go together from the start: behind that, where one reclaim was another, all differs by chance."""
    at = first_difference(run, ours)
    return run.parameters.n if at is None else at


def search(run: Run, attempt: Callable[[Unknowns], RunResult], on_chunk: Callable[[int, int], object] | None = None) -> RunResult:
    """The run of ours that comes closest to the recorded one; `chosen` tells the unknowns and how many were tried."""
    tried: dict[Unknowns, RunResult] = {}
    by_total: dict[Unknowns, tuple[bool, bool, int]] = {}
    by_start: dict[Unknowns, tuple[int]] = {}
    most = 2 * (MAX_K0 + 1 + MAX_FILL + 2 + 2 * FOLDS)

    def best_of(candidates: Iterable[Unknowns]) -> bool:
        """Try candidates; True as soon as one suffices."""
        for unknowns in candidates:
            if unknowns in tried:
                continue
            ours = tried[unknowns] = attempt(unknowns)
            enough, apart = suffices(run, ours), mismatch(run, ours)
            by_total[unknowns] = not enough, bool(bars.equal(run, ours)), apart
            by_start[unknowns] = (-together(run, ours),)
            if on_chunk is not None:
                on_chunk(min(len(tried), most - 1), most)
            if enough:
                return True
        return False

    def closest(found: Mapping[Unknowns, tuple[int, ...]]) -> Unknowns:
        return min(found, key=lambda u: (found[u], u))

    def folds(best: Callable[[], Unknowns]) -> Iterable[Iterable[Unknowns]]:
        # What a fold changes shows at a later reclaim: the first one lies before the first access that differs.
        reach = together(run, tried[best()])
        yield [best()._replace(fold=fold, period=0) for fold in _steps(reach)]
        # The next one lies before the first access that differs then, and the others as far apart.
        if best().fold:
            reach = together(run, tried[best()]) - best().fold
            yield [best()._replace(period=period) for period in _steps(reach)]

    def in_total() -> Iterable[Iterable[Unknowns]]:
        def best() -> Unknowns:
            return closest(by_total)

        yield [Unknowns(k0) for k0 in range(MAX_K0 + 1)]
        yield [best()._replace(fill=fill) for fill in range(MAX_FILL + 1)]
        yield [best()._replace(k0=k0) for k0 in (best().k0 - 1, best().k0 + 1) if 0 <= k0 <= MAX_K0]
        yield from folds(best)

    def from_the_start() -> Iterable[Iterable[Unknowns]]:
        def best() -> Unknowns:
            return closest(by_start)

        # Of unknowns that go equally far the smallest are kept: later folds decide how far a choice of k0 and fill can be seen.
        yield from folds(lambda: min((u for u in by_start if u.k0 == u.fill == 0), key=lambda u: (by_start[u], u)))
        yield [best()._replace(fill=fill) for fill in range(MAX_FILL + 1)]
        yield [best()._replace(k0=k0) for k0 in range(MAX_K0 + 1)]

    def run_stages() -> bool:
        if best_of([Unknowns()]) or not run.parameters.limit_pages or bars.family(run) == bars.NOTHING:
            return True
        # Where the kernel repeats itself, a long run's total is not the whole of the matter: how far it goes along is a guide, too.
        guides = [in_total, from_the_start] if bars.family(run) == bars.READ else [in_total]
        return any(best_of(stage) for guide in guides for stage in guide())

    run_stages()
    chosen = closest(by_total)
    return replace(tried[chosen], chosen={**chosen._asdict(), "tried": len(tried)})


def _steps(reach: int) -> list[int]:
    return sorted({reach * i // FOLDS for i in range(1, FOLDS + 1)} - {0}) if reach > 0 else []
