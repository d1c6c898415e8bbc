"""How close a reclaim run has to come: families of runs, the bar of each, and when two runs are equal.

The kernel itself does not repeat every run: read() in a group it repeats exactly; where reclaim meets accessed bits, timers or a disk, two
runs of it differ, and a counter may differ by twice the recorded spread where that is more than the family's own bar.

Models: nothing. Simplifies: a run belongs to one family. Omits: why a case misses its bar.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mmpy.fidelity.reclaim_case import Parameters, Run, RunResult, accesses_differ

READ, MAPPED, SLOW, GLOBAL, NOTHING = "read", "mapped", "slow", "global", "nothing"
FAMILIES = {
    READ: "read() in a group: misses within 0.1 %, accesses 99.9 % equal",
    MAPPED: "mapped file, anonymous with swap in memory: misses 0.5 % (phases 1.5 %), pgscan and pgsteal 2 %, refaults, activations 3 %",
    SLOW: "swap on disk, dirty data, shmem, mlock: every counter of 1000 events or more within 5 %",
    GLOBAL: "no group: misses 5 % (files) or 15 % (anonymous); wakes and direct reclaim of the same order",
    NOTHING: "nothing to reclaim: nothing reclaimed",
}

REFAULTS = tuple(f"ms_workingset_{what}_{of}" for what in ("refault", "activate", "restore") for of in ("anon", "file"))
EQUAL = ("misses", "ms_pgscan", "ms_pgsteal", "ms_pgrefill", *REFAULTS)
"""Counters that are the same in equal runs, beside every events_* and the accesses themselves."""
PGACTIVATE_SLACK = 8
"""Activations that two equal runs may differ by: they are counted when a batch is flushed."""
ZERO = ("ms_pgscan", "ms_pgsteal", "ms_pgrefill", "ms_pgdeactivate", *REFAULTS, "vm_pgscan_kswapd", "vm_pgscan_direct")
MANY = 1000
SLOW_COUNTERS = ("misses", "majflt", "minflt", "ms_pgscan", "ms_pgsteal", "ms_pgrefill", "ms_pgactivate", "ms_pgdeactivate", *REFAULTS)
ORDER = 10.0
"""Counts of the same order differ by less than this factor."""


@dataclass(frozen=True)
class Check:
    """One demand of a bar: a figure, how far it is from the kernel's, and how far it may be."""

    figure: str
    distance: float | None
    allowed: float

    @property
    def holds(self) -> bool:
        """Whether the figure is there and close enough."""
        return self.distance is not None and self.distance <= self.allowed

    def __str__(self) -> str:
        return f"{self.figure} {'missing' if self.distance is None else f'{100 * self.distance:.3g} %'} of {100 * self.allowed:.3g} %"


def family(run: Run) -> str:
    """The family that a run belongs to, by what was run and whether the kernel reclaimed anything."""
    p, found = run.parameters, run.counters
    if not any(found.get(name, 0) for name in ("ms_pgscan", "vm_pgscan_kswapd", "vm_pgscan_direct")):
        return NOTHING
    if not p.limit_pages:
        return GLOBAL
    if p.mode == "shmem" or p.mlock or (p.wfrac and p.anon_pages < p.pages) or _swaps_to_disk(p):
        return SLOW
    return READ if p.mode == "pread" else MAPPED


def _swaps_to_disk(p: Parameters) -> bool:
    return p.anon_pages > 0 and p.swappiness > 0 and p.swap_device not in ("", "ram")


def is_exact(run: Run, figure: str) -> bool:
    """Whether the kernel's rules leave a counter of this run no freedom."""
    kind = family(run)
    if kind == READ:
        return figure in EQUAL or figure.startswith("events_")
    return kind == NOTHING and (figure in ZERO or figure in ("misses", "majflt"))


def equal(run: Run, ours: RunResult) -> list[str]:
    """What keeps our run from being *equal* to the recorded one, in words; nothing if it is."""
    differ = accesses_differ(run, ours)
    out = [f"{differ} accesses"] if differ else []
    for name, kernel in run.counters.items():
        slack = PGACTIVATE_SLACK if name == "ms_pgactivate" else 0 if name in EQUAL or name.startswith("events_") else None
        if slack is None:
            continue
        value = ours.counters.get(name)
        if value is None:
            out.append(f"{name} missing")
        elif abs(value - kernel) > slack:
            out.append(f"{name} {value - kernel:+d}")
    return out


def checks(run: Run, result: RunResult) -> Iterator[Check]:
    """The demands of the family's bar on this run."""
    kind, p, ours = family(run), run.parameters, result.counters

    def check(name: str, allowed: float) -> Iterator[Check]:
        if name in run.counters:
            value, kernel = ours.get(name), run.counters[name]
            yield Check(name, None if value is None else abs(value - kernel) / max(abs(kernel), 1), max(allowed, _twice(run, name)))

    if kind == READ:
        yield from check("misses", 0.001)
        yield Check("accesses", accesses_differ(run, result) / max(p.n, 1), 0.001)
    elif kind == MAPPED:
        yield from check("misses", 0.015 if p.pattern == "phase" else 0.005)
        for name in ("ms_pgscan", "ms_pgsteal"):
            yield from check(name, 0.02)
        for name in REFAULTS[:4]:
            yield from check(name, 0.03)
    elif kind == SLOW:
        for name in SLOW_COUNTERS:
            if run.counters.get(name, 0) >= MANY:
                yield from check(name, 0.05)
    elif kind == GLOBAL:
        yield from check("misses", 0.15 if p.anon_pages else 0.05)
        for name in ("vm_pageoutrun", "vm_pgscan_direct"):
            if run.counters.get(name, 0) >= 100:
                yield _same_order(name, run.counters[name], ours.get(name))
        yield from _free_pages(run, result)
    else:
        for name in ZERO:
            if name in run.counters:
                value = ours.get(name)
                yield Check(name, None if value is None else float(value), 0.0)


def _free_pages(run: Run, ours: RunResult) -> Iterator[Check]:
    # Once reclaim goes on, free memory stays between the watermarks: the range that the kernel's had there, with a tenth to spare.
    recorded = [ck["vm_nr_free_pages"] for ck in run.checkpoints[len(run.checkpoints) // 2 :] if "vm_nr_free_pages" in ck]
    if recorded:
        low, high = min(recorded), max(recorded)
        mine = [ck["vm_nr_free_pages"] for ck in ours.checkpoints[len(ours.checkpoints) // 2 :] if "vm_nr_free_pages" in ck]
        outside = [max(low - free, free - high, 0) / max(high, 1) for free in mine]
        yield Check("free pages", max(outside) if outside else None, 0.1)


def _twice(run: Run, name: str) -> float:
    return 2 * run.spread.get(name, 0.0)


def _same_order(name: str, kernel: int, ours: int | None) -> Check:
    # The distance is how many times the larger count is the smaller one.
    if ours is None:
        return Check(f"{name} (ratio)", None, ORDER)
    return Check(f"{name} (ratio)", max(kernel, ours) / max(min(kernel, ours), 1), ORDER)
