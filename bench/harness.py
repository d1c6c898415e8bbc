"""What every row needs: alternating runs, medians, and the form in which a row is reported."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache
from typing import Any

import numpy as np

MIN_REPEAT = 5


@dataclass(frozen=True)
class Settings:
    """How much to measure. repeat: runs of each side; quick: smaller machines, done in ten minutes; tiny: only shows that the code
    runs, its figures mean nothing."""

    repeat: int = 7
    quick: bool = False
    tiny: bool = False
    log: Callable[[str], None] = lambda text: None

    def size(self, full: int, quick: int | None = None, tiny: int | None = None) -> int:
        """A size for this run; what is not given is the next larger one."""
        quick = full if quick is None else quick
        return (quick if tiny is None else tiny) if self.tiny else quick if self.quick else full


@dataclass
class Runs:
    """Values of both sides, run by run: seconds, or whatever `unit` says."""

    ours: list[float]
    yardstick: list[float]

    def scaled(self, factor: float) -> Runs:
        return Runs([x * factor for x in self.ours], [x * factor for x in self.yardstick])


@dataclass
class Row:
    """One figure beside its yardstick. ratio = ours / yardstick_value, both medians; it holds if it is at most (direction "max") or at
    least ("min") `bar`. No bar: the figure is for information."""

    name: str
    unit: str
    ours: float | None
    yardstick: str
    yardstick_value: float | None
    bar: float | None = None
    direction: str = "max"
    stretch: float | None = None
    note: str = ""
    runs: Runs | None = None
    error: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        if self.ours is None or not self.yardstick_value:
            return None
        return self.ours / self.yardstick_value

    def within(self, bar: float | None) -> bool | None:
        if bar is None or self.ratio is None:
            return None
        return self.ratio <= bar if self.direction == "max" else self.ratio >= bar

    @property
    def spread(self) -> tuple[float, float] | None:
        """Least and greatest ratio of two runs that stood side by side."""
        if self.runs is None:
            return None
        ratios = [a / b for a, b in zip(self.runs.ours, self.runs.yardstick, strict=True) if b]
        return (min(ratios), max(ratios)) if ratios else None

    def as_dict(self) -> dict[str, Any]:
        out: dict[str, Any] = {
            "name": self.name,
            "ours": self.ours,
            "yardstick": self.yardstick,
            "yardstick_value": self.yardstick_value,
            "ratio": self.ratio,
            "bar": self.bar,
            "direction": self.direction,
            "holds": False if self.error and self.bar is not None else self.within(self.bar),
            "unit": self.unit,
            "machine": machine_text(),
            "stretch": self.stretch,
            "stretch_holds": self.within(self.stretch),
            "ratio_range": self.spread,
            "note": self.note,
            "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
            **self.extra,
        }
        if self.runs is not None:
            out["runs"] = {"ours": self.runs.ours, "yardstick": self.runs.yardstick}
        if self.error is not None:
            out["error"] = self.error
        return out


def row_of(name: str, unit: str, runs: Runs, yardstick: str, **rest: Any) -> Row:
    """A row with the medians of both sides."""
    return Row(name, unit, statistics.median(runs.ours), yardstick, statistics.median(runs.yardstick), runs=runs, **rest)


def fixed(name: str, unit: str, ours: float, yardstick: str, value: float = 1.0, **rest: Any) -> Row:
    """A row for a figure that does not vary, or that stands beside a fixed number."""
    return Row(name, unit, ours, yardstick, value, **rest)


def alternate(ours: Callable[[], float], yardstick: Callable[[], float], settings: Settings) -> Runs:
    """A B A B ... after one run of each that does not count. Each side returns its own figure, so that it can prepare untimed."""
    if not settings.tiny:
        ours()
        yardstick()
    out = Runs([], [])
    for _ in range(settings.repeat):
        out.ours.append(ours())
        out.yardstick.append(yardstick())
    return out


def cpu_seconds(work: Callable[[], object]) -> float:
    """CPU time of this thread in `work`: what else runs on the machine counts only through the caches."""
    began = time.thread_time_ns()
    work()
    return (time.thread_time_ns() - began) * 1e-9


def best_of_batches(work: Callable[[], object], batches: int) -> float:
    """Median CPU seconds of a few short batches: one run of a side, robust against a disturbance within it."""
    return statistics.median(cpu_seconds(work) for _ in range(batches))


def available_bytes() -> int:
    """Memory that can be used without swapping."""
    with open("/proc/meminfo") as lines:
        for line in lines:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 0


@cache
def machine_text() -> str:
    """What this ran on."""
    from bench.build import compiler_version

    model = platform.machine()
    try:
        with open("/proc/cpuinfo") as lines:
            model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
    except OSError:
        pass
    return (
        f"{model}, {os.cpu_count()} CPUs, {os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') >> 30} GiB, "
        f"Linux {platform.release()}, Python {platform.python_version()}, numpy {np.__version__}, {compiler_version()}"
    )


# ---------------------------------------------------------------- the list of rows

Measurement = Callable[[Settings], Iterable[Row]]
MEASUREMENTS: list[tuple[tuple[str, ...], Measurement]] = []


def rows(*names: str) -> Callable[[Measurement], Measurement]:
    """Says which rows a measurement yields."""

    def note(function: Measurement) -> Measurement:
        MEASUREMENTS.append((names, function))
        return function

    return note


def load_all() -> None:
    """Import every file of rows, once."""
    from bench import rows_alloc, rows_calls, rows_memory, rows_run, rows_vm

    assert rows_memory
    assert rows_alloc
    assert rows_calls
    assert rows_run
    assert rows_vm


def run(settings: Settings, only: str = "*") -> Iterator[Row]:
    """Measure every row whose name matches; one that fails becomes a row with `error`."""
    load_all()
    for names, function in MEASUREMENTS:
        wanted = [name for name in names if fnmatchcase(name, only)]
        if not wanted:
            continue
        settings.log(f"measuring {', '.join(wanted)} ...")
        try:
            done = {row.name: row for row in function(settings)}
        except Exception as error:  # what one row meets must not cost the others
            done = {name: Row(name, "", None, "", None, bar=0.0, error=f"{type(error).__name__}: {error}") for name in names}
        for name in wanted:
            if name in done:
                yield done[name]
