"""Experiments: a machine, what a process does on it, and what is measured meanwhile, in one TOML file.

[machine]   the arguments of Machine
[sysctl]    values to write after boot; "vm." may be left out
[workload]  kind "sequential", "random" or "zipf", pages, accesses, write_fraction, theta (zipf), seed; or
[trace]     path (without it, the sample that comes with the package), format, limit, instructions, gap: see mmpy.traces.access
[sample]    every (accesses), counters: names of /proc/vmstat, or of FIGURES
[output]    path: .csv or .npz (the samples) or .json (everything)
Paths are relative to the file's directory.

Models: nothing of the kernel. Simplifies: one process, on CPU 0; time is counted in accesses. Omits: groups ([[cgroup]]).
"""

from __future__ import annotations

import csv
import difflib
import hashlib
import io
import json
import math
import os
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from mmcore import __version__
from mmpy.config import MachineConfig
from mmpy.machine import Machine
from mmpy.process import Process
from mmpy.traces.access import FORMATS, GAP, AccessTrace, access_sample_path, read_access_trace
from mmpy.traces.access_replay import Outcome, make_accesses, map_pages

KINDS = ("sequential", "random", "zipf")
FIGURES = ("hits", "minor", "major", "segv", "rss_pages", "page_table_bytes")
"""What may be sampled beside the counters of /proc/vmstat: results of the accesses so far, and of the process."""
COUNTERS = (*FIGURES, "nr_free_pages", "pgfault", "pgmajfault", "nr_anon_pages", "nr_page_table_pages", "thp_fault_alloc")
SUFFIXES = (".csv", ".json", ".npz")
BLOCK = 1 << 18
"""Accesses that are drawn from the generator at once: part of what a seed means."""
MAX_PAGES = 1 << 30
MAX_ZIPF_PAGES = 1 << 24
MAX_ACCESSES = 1 << 40
MAX_SAMPLES = 1 << 20
MAX_FILE = 1 << 20

OnProgress = Callable[[int, int], object]


@dataclass(frozen=True)
class Workload:
    """Accesses made up: to `pages` pages in turn, at random, or by Zipf's law with exponent theta (which pages are hot is random)."""

    kind: str
    pages: int
    accesses: int
    write_fraction: float = 1.0
    theta: float = 0.99
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"[workload] kind is {self.kind!r}; it must be one of {', '.join(map(repr, KINDS))}")
        _whole("[workload] pages", self.pages, 1, MAX_ZIPF_PAGES if self.kind == "zipf" else MAX_PAGES)
        _whole("[workload] accesses", self.accesses, 0, MAX_ACCESSES)
        _real("[workload] write_fraction", self.write_fraction, 0, 1)
        _real("[workload] theta", self.theta, 0, 10)
        if self.seed is not None:
            _whole("[workload] seed", self.seed, 0, (1 << 64) - 1)

    def blocks(self, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(pages counted from 0, writes) in blocks; the same for the same seed (Workload.seed goes before `seed`)."""
        rng = np.random.default_rng(seed if self.seed is None else self.seed)
        if self.kind == "zipf":
            weight = np.cumsum(np.arange(1, self.pages + 1, dtype=np.float64) ** -float(self.theta))
            where = rng.permutation(self.pages).astype(np.uint64)
        for at in range(0, self.accesses, BLOCK):
            n = min(BLOCK, self.accesses - at)
            if self.kind == "sequential":
                pages = (np.arange(at, at + n, dtype=np.int64) % self.pages).astype(np.uint64)
            elif self.kind == "random":
                pages = rng.integers(0, self.pages, n, dtype=np.uint64)
            else:
                rank = np.searchsorted(weight, rng.random(n) * weight[-1], side="right")
                pages = where[np.minimum(rank, self.pages - 1)]
            yield pages, (rng.random(n) < self.write_fraction).astype(np.uint8)


@dataclass(frozen=True)
class TraceInput:
    """A recorded trace; path None: the sample that comes with the package."""

    path: str | None = None
    format: str = "auto"
    limit: int | None = None
    instructions: bool = False
    gap: int = GAP

    def __post_init__(self) -> None:
        if self.path is not None and (not isinstance(self.path, str) or not self.path):
            raise ValueError(f"[trace] path is {self.path!r}; it must be the name of a file")
        if self.format not in FORMATS:
            raise ValueError(f"[trace] format is {self.format!r}; it must be one of {', '.join(FORMATS)}")
        if self.limit is not None:
            _whole("[trace] limit", self.limit, 0, MAX_ACCESSES)
        if not isinstance(self.instructions, bool):
            raise ValueError(f"[trace] instructions is {self.instructions!r}; it must be true or false")
        _whole("[trace] gap", self.gap, 0, MAX_PAGES)


@dataclass(frozen=True)
class Sample:
    """What is sampled, and after how many accesses each; every None: about a hundred times."""

    every: int | None = None
    counters: Sequence[str] = COUNTERS

    def __post_init__(self) -> None:
        if self.every is not None:
            _whole("[sample] every", self.every, 1, MAX_ACCESSES)
        if not isinstance(self.counters, list | tuple) or not all(isinstance(name, str) for name in self.counters):
            raise ValueError(f"[sample] counters is {self.counters!r}; it must be a list of names")
        object.__setattr__(self, "counters", tuple(dict.fromkeys(self.counters)))


@dataclass(frozen=True)
class Output:
    """Where the result goes."""

    path: str

    def __post_init__(self) -> None:
        if not isinstance(self.path, str) or Path(self.path).suffix not in SUFFIXES:
            raise ValueError(f"[output] path is {self.path!r}; its name must end in one of {', '.join(SUFFIXES)}")


@dataclass(frozen=True)
class Experiment:
    """One experiment, checked. Either `workload` or `trace` is set. `directory` is where its paths begin."""

    machine: Mapping[str, Any] = field(default_factory=dict)
    sysctl: Mapping[str, Any] = field(default_factory=dict)
    workload: Workload | None = None
    trace: TraceInput | None = None
    sample: Sample = field(default_factory=Sample)
    output: Output | None = None
    directory: Path = field(default_factory=Path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Experiment:
        """Read a TOML file. ValueError names what is wrong in it; OSError: unreadable."""
        place = Path(path)
        with place.open("rb") as f:
            data = f.read(MAX_FILE + 1)
        if len(data) > MAX_FILE:
            raise ValueError(f"{place}: more than {MAX_FILE} bytes")
        try:
            return cls.from_dict(tomllib.loads(data.decode("utf-8")), directory=place.parent)
        except RecursionError:
            raise ValueError(f"{place}: nested too deeply") from None
        except (ValueError, TypeError) as e:
            raise ValueError(f"{place}: {e}") from None

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], *, directory: str | os.PathLike[str] = ".") -> Experiment:
        """An experiment from plain data, as TOML has it. ValueError names an unknown key and the nearest known, or a value."""
        if "cgroup" in data:
            raise ValueError("[[cgroup]] comes with a later stage: processes of an experiment belong to no group yet")
        tables = [f.name for f in fields(cls) if f.name != "directory"]
        _known("an experiment", data, tables, "table")
        for name in tables:
            if not isinstance(data.get(name, {}), Mapping):
                raise ValueError(f"{name} is {data[name]!r}; it must be a table: [{name}]")
        if ("workload" in data) == ("trace" in data):
            given = "has both" if "trace" in data else "has neither"
            raise ValueError(f"an experiment has either [workload] or [trace]; this one {given}")
        machine, sysctl = dict(data.get("machine", {})), dict(_flat(data.get("sysctl", {})))
        _known("[machine]", machine, [f.name for f in fields(MachineConfig) if f.init and f.name != "sysctl"])
        try:
            config = MachineConfig.from_dict(machine)
        except (ValueError, TypeError, OverflowError) as e:
            raise ValueError(f"[machine] {e}") from None
        parts: dict[str, Any] = {}
        for name, kind in (("workload", Workload), ("trace", TraceInput), ("sample", Sample), ("output", Output)):
            if name in data:
                keys = [f.name for f in fields(kind)]
                _known(f"[{name}]", data[name], keys)
                needed = {"workload": ("kind", "pages", "accesses"), "output": ("path",)}.get(name, ())
                if missing := [key for key in needed if key not in data[name]]:
                    raise ValueError(f"[{name}] has no {missing[0]}; it needs {', '.join(needed)}")
                parts[name] = kind(**data[name])
        if parts.get("workload") is not None and parts["workload"].seed is None:
            parts["workload"] = Workload(**{**asdict(parts["workload"]), "seed": config.seed})
        return cls(machine, sysctl, directory=Path(directory), **parts)

    def to_dict(self) -> dict[str, Any]:
        """The experiment as plain data with all defaults filled in: what its sha256 is of."""
        return {
            "machine": {name: v for name, v in MachineConfig.from_dict(dict(self.machine)).to_dict().items() if name != "sysctl"},
            "sysctl": {name: self.sysctl[name] for name in sorted(self.sysctl)},
            "workload": None if self.workload is None else asdict(self.workload),
            "trace": None if self.trace is None else asdict(self.trace),
            "sample": {"every": self.sample.every, "counters": list(self.sample.counters)},
        }

    @property
    def trace_path(self) -> Path | None:
        """The file of [trace]; None for a workload."""
        if self.trace is None:
            return None
        return access_sample_path() if self.trace.path is None else self.directory / self.trace.path

    @property
    def output_path(self) -> Path | None:
        """Where the result is written, if anywhere."""
        return None if self.output is None else self.directory / self.output.path


@dataclass(frozen=True, eq=False)
class Result:
    """What came of an experiment.

    samples: arrays (int64) of one length: "access", how many had been made, and each counter. totals: results of the accesses and of the
    process at the end. vmstat: counters of /proc/vmstat that moved, and by how much. provenance: the experiment, and sha256 of it and of
    its trace. Nothing in it depends on the computer or the time.
    """

    samples: dict[str, np.ndarray]
    totals: dict[str, int]
    vmstat: dict[str, int]
    complete: bool
    provenance: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "complete": self.complete,
            "totals": self.totals,
            "vmstat": self.vmstat,
            "samples": {name: values.tolist() for name, values in self.samples.items()},
            "provenance": self.provenance,
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it to a .csv, .json or .npz; the file is there whole or not at all."""
        place = Path(path)
        if place.suffix not in SUFFIXES:
            raise ValueError(f"{place}: the name must end in one of {', '.join(SUFFIXES)}")
        if place.suffix == ".csv":
            text = io.StringIO()
            writer = csv.writer(text, lineterminator="\n")
            writer.writerow(self.samples)
            writer.writerows(zip(*(values.tolist() for values in self.samples.values()), strict=True))
            data = text.getvalue().encode()
        elif place.suffix == ".json":
            data = (json.dumps(self.as_dict(), indent=1, allow_nan=False) + "\n").encode()
        else:
            buffer = io.BytesIO()
            rest = np.frombuffer(json.dumps({k: v for k, v in self.as_dict().items() if k != "samples"}).encode(), np.uint8)
            arrays: dict[str, Any] = {**self.samples, "about_json": rest}
            np.savez_compressed(buffer, **arrays)
            data = buffer.getvalue()
        beside = place.with_name(f".{place.name}.{os.getpid()}.part")
        try:
            beside.write_bytes(data)
            beside.replace(place)
        finally:
            beside.unlink(missing_ok=True)


def run_experiment(exp: Experiment, on_progress: OnProgress | None = None) -> Result:
    """Run an experiment and write its [output], if it has one. on_progress(accesses made, of how many) is called now and then.

    ValueError: a sysctl, counter or value that the machine does not have. TraceFormatError, OSError, ImportError: its trace or output.
    """
    output = exp.output_path
    if output is not None and not output.parent.is_dir():
        raise FileNotFoundError(f"[output] path is {str(output)!r}; there is no directory {str(output.parent)!r}")
    machine = _machine(exp)
    for name in exp.sample.counters:
        if name not in FIGURES and name not in machine.vmstat:
            raise ValueError(f"[sample] counters: no counter {name!r}{_nearest(name, [*FIGURES, *machine.vmstat])}")
    trace: AccessTrace | None = None
    sha256 = None
    if exp.trace is not None:
        path = exp.trace_path
        assert path is not None
        sha256 = file_sha256(path)
        trace = read_access_trace(path, format=exp.trace.format, instructions=exp.trace.instructions, limit=exp.trace.limit)
        if not len(trace):
            raise ValueError(f"{path}: no accesses in it; left out: {trace.skipped or 'nothing'}")
    total = len(trace) if trace is not None else exp.workload.accesses if exp.workload is not None else 0
    every = exp.sample.every or max(1, math.ceil(total / 100))
    if total // every > MAX_SAMPLES:
        raise ValueError(f"[sample] every is {every}; of {total} accesses that makes more than {MAX_SAMPLES} samples")
    before = dict(machine.vmstat)
    process = machine.spawn("experiment")
    outcome, sampler = Outcome(), _Sampler(exp.sample.counters, machine, process)
    sampler.take(outcome)
    complete = True
    for vpns, writes in _blocks(exp, process, trace):
        at = 0
        while at < len(vpns) and complete:
            n = min(every - outcome.done % every, len(vpns) - at)
            complete = make_accesses(process, vpns[at : at + n], writes[at : at + n], outcome)
            at += n
            if outcome.done % every == 0:
                sampler.take(outcome)
        if on_progress is not None:
            on_progress(outcome.done, total)
        if not complete:
            break
    sampler.take(outcome)
    after = dict(machine.vmstat)
    moved = {name: after[name] - n for name, n in before.items() if after[name] != n}
    said = exp.to_dict()
    canonical = json.dumps({"experiment": said, "trace_sha256": sha256}, sort_keys=True, separators=(",", ":"), default=str)
    provenance = {
        "experiment_sha256": hashlib.sha256(canonical.encode()).hexdigest(), "trace_sha256": sha256, "version": __version__,
        "experiment": json.loads(json.dumps(said, default=str)),
    }  # fmt: skip
    result = Result(sampler.arrays(), {**outcome.as_dict(), **figures(process)}, moved, complete, provenance)
    if output is not None:
        result.save(output)
    return result


def figures(process: Process) -> dict[str, int]:
    """What a process holds: resident pages, bytes of page tables, mappings."""
    return {"rss_pages": process.rss_pages, "page_table_bytes": process.page_table_bytes, "mappings": process.map_count}


def file_sha256(path: Path) -> str:
    """sha256 of a file as it lies on the disk."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def _machine(exp: Experiment) -> Machine:
    machine = Machine(**exp.machine)
    for name, value in exp.sysctl.items():
        if name not in machine.sysctl:
            raise ValueError(f"[sysctl] has no {name!r}{_nearest(name, list(machine.sysctl))}")
        try:
            machine.sysctl[name] = value
        except (ValueError, TypeError, OverflowError) as e:
            raise ValueError(f"[sysctl] {e}") from None
    return machine


def _blocks(exp: Experiment, process: Process, trace: AccessTrace | None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    if trace is not None:
        assert exp.trace is not None
        map_pages(process, trace.vpns, exp.trace.gap)
        for at in range(0, len(trace), BLOCK):
            yield trace.vpns[at : at + BLOCK], trace.writes[at : at + BLOCK]
    elif exp.workload is not None:
        from mmpy.vmflags import Map

        address = process.mmap(exp.workload.pages << 12, flags=Map.PRIVATE | Map.ANONYMOUS | Map.NORESERVE)
        for pages, writes in exp.workload.blocks(0):
            yield pages + np.uint64(address >> 12), writes


class _Sampler:
    """Takes samples; two at the same access count are one."""

    def __init__(self, counters: Sequence[str], machine: Machine, process: Process) -> None:
        self.machine, self.process = machine, process
        self.rows: dict[str, list[int]] = {"access": [], **{name: [] for name in counters}}

    def take(self, outcome: Outcome) -> None:
        if self.rows["access"][-1:] == [outcome.done]:
            return
        values = {**outcome.as_dict(), **figures(self.process)}
        for name, column in self.rows.items():
            if name == "access":
                column.append(outcome.done)
            else:
                column.append(values[name] if name in FIGURES else self.machine.vmstat[name])

    def arrays(self) -> dict[str, np.ndarray]:
        return {name: np.array(column, np.int64) for name, column in self.rows.items()}


# ---------------------------------------------------------------- checks


def _nearest(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, 1, 0.5)
    return f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(known)}"


def _known(where: str, given: Mapping[str, Any], known: Sequence[str], what: str = "key") -> None:
    for key in given:
        if key not in known:
            raise ValueError(f"{where} has no {what} {key!r}{_nearest(key, known)}")


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    # TOML makes tables of bare dotted names: vm.swappiness = 10
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            name = f"{prefix}{key}"
            yield name if "." in name else f"vm.{name}", value


def _whole(name: str, value: object, lowest: int, highest: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{name} is {value!r}; it must be a whole number")
    if not lowest <= value <= highest:
        raise ValueError(f"{name} is {value}; it must lie in {lowest}..{highest}")


def _real(name: str, value: object, lowest: float, highest: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} is {value!r}; it must be a number")
    if not lowest <= value <= highest:
        raise ValueError(f"{name} is {value}; it must lie in {lowest}..{highest}")
