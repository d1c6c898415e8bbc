"""Recorded reclaim runs: parameters, counters at the end and on the way, what each access did, which pages were resident at the end.

A set's `reclaim/` has one table of runs (`runs.csv`), one of checkpoints, one of the spread between repetitions (`noise.csv`), and a
file of accesses and one of pages a run. A case of `evict/` has its parameters in the index and its counters in raw snapshots, and records
every page that came into the page cache and left it, and vmscan's own events between.

Counters keep the recording's names: `misses`, `ms_*` (memory.stat), `end_*` (sizes at the end, pages), `events_*` (memory.events), `vm_*`
and `vmend_*` (/proc/vmstat). They are deltas over the accesses; sizes are final. Nothing here knows a case by its name.

Models: nothing of the kernel. Omits: generations (lru_gen.csv), zoneinfo of the end.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from mmpy.fidelity.case import Case, RecordingError
from mmpy.traces.errors import TraceFormatError
from mmpy.traces.files import find, pieces, read_text
from mmpy.workloads import PATTERNS, Accesses, fingerprint, sequence

ACC_MAJOR, ACC_READ, ACC_MINOR, ACC_WROTE = 1, 2, 4, 8
"""Bits of an access: a major fault, a read from disk or swap, a minor fault, a write to disk."""
MISS = ACC_MAJOR | ACC_READ
PAGE_RESIDENT, PAGE_MAPPED, PAGE_REFERENCED, PAGE_ACTIVE, PAGE_DIRTY, PAGE_SWAPPED = 1, 2, 4, 8, 16, 32
"""Bits of a page at the end."""
MODES = ("file", "anon", "mixed", "shmem", "pread")

# memory.stat: events, whose deltas count, and sizes, which are bytes there and pages here.
STAT_EVENTS = (
    "pgfault", "pgmajfault", "pgscan", "pgsteal", "pgscan_direct", "pgsteal_direct", "pgscan_kswapd", "pgsteal_kswapd", "pgrefill",
    "pgactivate", "pgdeactivate", "workingset_refault_anon", "workingset_refault_file", "workingset_activate_anon",
    "workingset_activate_file", "workingset_restore_anon", "workingset_restore_file", "workingset_nodereclaim",
)  # fmt: skip
STAT_SIZES = (
    "anon", "file", "shmem", "file_mapped", "file_dirty", "file_writeback", "swapcached", "inactive_anon", "active_anon", "inactive_file",
    "active_file", "unevictable", "kernel", "pagetables", "slab_reclaimable", "slab_unreclaimable",
)  # fmt: skip
VM_SIZES = (
    "nr_free_pages", "nr_inactive_anon", "nr_active_anon", "nr_inactive_file", "nr_active_file", "nr_unevictable", "nr_mlock",
    "nr_anon_pages", "nr_file_pages", "nr_mapped", "nr_dirty", "nr_writeback", "nr_shmem", "nr_slab_reclaimable", "nr_slab_unreclaimable",
    "nr_page_table_pages", "workingset_nodes",
)  # fmt: skip
_MAX_BYTES = 256 << 20
_SIZE = re.compile(r"(\d+)([KMGT]?)\Z")


@dataclass(frozen=True)
class Parameters:
    """What a run was: everything that who made it chose."""

    ram: int
    limit_pages: int
    swappiness: int
    mode: str
    pattern: str
    theta_milli: int
    seed: int
    pages: int
    n: int
    hot: int
    wfrac: int
    prefill: bool
    mlock: int
    madv_random: bool
    flush: int
    fault_around: int
    readahead_kb: int
    file_device: str
    swap_device: str

    @property
    def anon_pages(self) -> int:
        """Pages that are not a file's: all of them in the modes anon and shmem, the lower half in mixed."""
        return {"anon": self.pages, "shmem": self.pages, "mixed": self.pages // 2}.get(self.mode, 0)

    def accesses(self) -> Accesses:
        """The sequence of accesses."""
        return sequence(
            self.pattern, self.pages, self.n, seed=self.seed, theta=self.theta_milli / 1000, hot=self.hot, write=self.wfrac
        )  # fmt: skip


@dataclass(frozen=True)
class Evictions:
    """What a case of evict/ recorded: pages as they came ("add"), went ("del") or were activated, in order, and vmscan's events."""

    pages: tuple[tuple[str, int], ...]
    batches: tuple[tuple[str | int, ...], ...]


@dataclass(frozen=True)
class Run:
    """One recorded run.

    `spread`: the run-to-run spread of a counter as a fraction, where the run was repeated; `start`: the counters before the run.
    """

    name: str
    kind: str
    parameters: Parameters
    counters: Mapping[str, int]
    acc: np.ndarray
    pages: np.ndarray
    checkpoints: tuple[Mapping[str, int], ...] = ()
    spread: Mapping[str, float] = field(default_factory=dict)
    start: Mapping[str, int] = field(default_factory=dict)
    evictions: Evictions | None = None


@dataclass(frozen=True)
class RunResult:
    """One run of ours, in the recording's terms: bits of each access and of each page, counters by their recorded names."""

    acc: np.ndarray
    counters: Mapping[str, int]
    pages: np.ndarray | None = None
    checkpoints: tuple[Mapping[str, int], ...] = ()
    evictions: Evictions | None = None
    chosen: Mapping[str, int] = field(default_factory=dict)


def accesses_differ(run: Run, ours: RunResult) -> int:
    """Accesses that missed in one run and not in the other."""
    return int(np.count_nonzero((run.acc & MISS != 0) != (ours.acc & MISS != 0)))


def open_run(case: Case) -> Run:
    """Read a case of kind reclaim or evict. RecordingError names the file and what is wrong with it."""
    try:
        run = _open_evict(case) if case.kind == "evict" else _open_reclaim(case)
    except TraceFormatError as e:
        raise RecordingError(str(e)) from None
    p = run.parameters
    if len(run.acc) != p.n:
        raise RecordingError(f"case {case.name}: {len(run.acc)} accesses are recorded, n is {p.n}")
    if len(run.pages) != p.pages:
        raise RecordingError(f"case {case.name}: {len(run.pages)} pages are recorded at the end, pages is {p.pages}")
    return run


def check_sequence(parameters: Parameters, expected: str, name: str) -> Accesses:
    """The accesses, once their fingerprint was found to be the recorded one."""
    accesses = parameters.accesses()
    if expected and (found := fingerprint(accesses)) != expected:
        raise RecordingError(f"case {name}: the sequence has the fingerprint {found}, recorded is {expected}")
    return accesses


# ---- reclaim/


def _open_reclaim(case: Case) -> Run:
    directory = case.directory
    row = _table(case, "runs.csv", "run").get(case.name)
    if row is None:
        raise RecordingError(f"case {case.name}: {directory / 'runs.csv'} has no such run")
    parameters = _parameters(row[0], case.name)
    checkpoints = [
        {"t": _int(ck["t"], "t", case.name) if ck["tag"] == "ck" else 0, **_ints(ck, case.name, ("run", "tag", "t"))}
        for ck in _table(case, "checkpoints.csv", "run").get(case.name, ())
        if ck["tag"] in ("start", "prefilled", "ck")
    ]
    return Run(
        case.name,
        case.kind,
        parameters,
        _ints(row[0], case.name, _chosen(row[0])),
        _bytes(case, f"acc/{case.name}.acc"),
        _bytes(case, f"state/{case.name}.state"),
        tuple(_relative(checkpoints)),
        _spread(case, row[0].get("case") or case.name),
        checkpoints[0] if checkpoints else {},
    )


def _chosen(row: Mapping[str, str]) -> set[str]:
    # Columns up to the fingerprint are parameters, the others counters.
    names = list(row)
    return set(names[: names.index("seq_hash") + 1]) if "seq_hash" in names else set(names)


def _relative(checkpoints: list[dict[str, int]]) -> Iterator[dict[str, int]]:
    # Checkpoints count from the start of the guest: what is compared counts from the first access on.
    base: dict[str, int] = {}
    for ck in checkpoints:
        if ck["t"] == 0:  # the start, or the end of the prefill
            base = ck
            continue
        yield {k: v if k == "t" or _is_size(k) else v - base.get(k, 0) for k, v in ck.items()}


def _is_size(name: str) -> bool:
    return name.startswith(("cur_", "mem_", "swap_")) or name.removeprefix("vm_") in VM_SIZES


@lru_cache(maxsize=8)
def _read_table(path: Path, stamp: int, key: str) -> dict[str, list[dict[str, str]]]:
    reader = csv.DictReader(io.StringIO(read_text(path, _MAX_BYTES)))
    if key not in (reader.fieldnames or ()):
        raise RecordingError(f"{path}: no column {key!r}")
    found: dict[str, list[dict[str, str]]] = {}
    for line, row in enumerate(reader, 2):
        if None in row or None in row.values():
            raise RecordingError(f"{path}: line {line} has not {len(reader.fieldnames or ())} columns")
        found.setdefault(row[key], []).append(row)
    return found


def _table(case: Case, name: str, key: str) -> dict[str, list[dict[str, str]]]:
    path = find(case.directory, name)
    if path is None:
        raise RecordingError(f"case {case.name}: {case.directory / name} is missing")
    return _read_table(path, path.stat().st_mtime_ns, key)


def _spread(case: Case, name: str) -> dict[str, float]:
    if find(case.directory, "noise.csv") is None:
        return {}
    rows = _table(case, "noise.csv", "case").get(name, ())
    return {row["counter"]: float(row["spread_percent"]) / 100 for row in rows if row["lru"] == case.lru}


def _parameters(row: Mapping[str, str], name: str) -> Parameters:
    def number(key: str, default: int = 0) -> int:
        return _int(row[key], key, name) if row.get(key) else default

    mode, pattern = row.get("mode", ""), row.get("pattern", "")
    if mode not in MODES:
        raise RecordingError(f"case {name}: mode is {mode!r}; there are {', '.join(MODES)}")
    if pattern not in PATTERNS:
        raise RecordingError(f"case {name}: pattern is {pattern!r}; there are {', '.join(PATTERNS)}")
    found = _SIZE.match(row.get("ram", ""))
    if found is None:
        raise RecordingError(f"case {name}: ram is {row.get('ram')!r}, not a size")
    return Parameters(
        ram=int(found[1]) << {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}[found[2]],
        limit_pages=number("limit_pages"),
        swappiness=number("swappiness", 60),
        mode=mode,
        pattern=pattern,
        theta_milli=number("theta_milli", 990),
        seed=number("seed"),
        pages=number("pages"),
        n=number("n"),
        hot=number("hot"),
        wfrac=number("wfrac"),
        prefill=number("prefill") != 0,
        mlock=number("mlock"),
        madv_random=number("madv_random") != 0,
        flush=number("flush"),
        fault_around=number("fault_around", 4096),
        readahead_kb=number("readahead_kb"),
        file_device=row.get("file_device", ""),
        swap_device=row.get("swap_device", ""),
    )


def _int(text: str, what: str, name: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise RecordingError(f"case {name}: {what} is {text!r}, not a number") from None


def _ints(row: Mapping[str, str], name: str, but: Any) -> dict[str, int]:
    return {key: _int(value, key, name) for key, value in row.items() if key not in but and value != ""}


def _bytes(case: Case, name: str) -> np.ndarray:
    path = find(case.directory, name)
    if path is None:
        raise RecordingError(f"case {case.name}: {case.directory / name} is missing")
    data = bytearray()
    for piece in pieces(path):
        data += piece
        if len(data) > _MAX_BYTES:
            raise RecordingError(f"{path}: more than {_MAX_BYTES} bytes")
    return np.frombuffer(bytes(data), np.uint8)


# ---- evict/


def _open_evict(case: Case) -> Run:
    text = _text(case, f"{case.name}.txt")
    head, *rest = re.split(r"^@@ ", text, flags=re.MULTILINE)
    told = dict(pair.split("=", 1) for pair in head.split() if "=" in pair)
    chosen = {str(k): str(v) for k, v in case.entry.items() if isinstance(v, (str, int))}
    row = {**chosen, **{_SHORT.get(k, k): v for k, v in told.items()}}
    parameters = _parameters({"file_device": "ram", "swap_device": "virtio", **row}, case.name)
    snapshots = [_snapshot(part, case.name) for part in rest]
    if len(snapshots) < 2:
        raise RecordingError(f"case {case.name}: {len(snapshots)} snapshots are recorded, a start and an end are needed")
    acc = _bytes(case, f"{case.name}.acc")
    before = [s for s in snapshots if s["tag"] in ("start", "prefilled")][-1:] or snapshots[:1]
    pages = _bytes(case, f"{case.name}.state")
    counters = _difference(before[0], snapshots[-1])
    counters["misses"] = int(np.count_nonzero(acc & MISS))
    counters["resident_end"] = int(np.count_nonzero(pages & PAGE_RESIDENT))
    checkpoints = tuple({"t": int(s["t"]), **_difference(before[0], s)} for s in snapshots if s["tag"] == "ck")
    return Run(case.name, case.kind, parameters, counters, acc, pages, checkpoints, {}, {}, _evictions(case))


_SHORT = {"theta": "theta_milli", "adv": "madv_random"}


def _text(case: Case, name: str) -> str:
    path = find(case.directory, name)
    if path is None:
        raise RecordingError(f"case {case.name}: {case.directory / name} is missing")
    return read_text(path, _MAX_BYTES)


def _snapshot(text: str, name: str) -> dict[str, Any]:
    head, *sections = re.split(r"^## (.+)\n", text, flags=re.MULTILINE)
    tag, *pairs = head.split()
    out: dict[str, Any] = {"tag": tag, "t": 0}
    for pair in pairs:
        key, _, value = pair.partition("=")
        out[key] = _int(value, key, name)
    for title, body in zip(sections[::2], sections[1::2], strict=False):
        if title in ("memory.stat", "vmstat", "memory.events"):
            out[title] = {k: int(v) for k, v in re.findall(r"^(\w+) (-?\d+)$", body, re.MULTILINE)}
    return out


def _difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, int]:
    out = {key: after[key] - before[key] for key in ("majflt", "minflt", "inblock", "oublock") if key in after and key in before}
    for section, prefix in (("memory.stat", "ms_"), ("vmstat", "vm_")):
        old, new = before.get(section, {}), after.get(section, {})
        names = STAT_EVENTS if prefix == "ms_" else [k for k in new if not k.startswith("nr_") or k in ("nr_dirtied", "nr_written")]
        out |= {prefix + key: new[key] - old.get(key, 0) for key in names if key in new}
    out |= {"end_" + key: v // 4096 for key, v in after.get("memory.stat", {}).items() if key in STAT_SIZES}
    out |= {"events_" + key: v - before.get("memory.events", {}).get(key, 0) for key, v in after.get("memory.events", {}).items()}
    return out


def _evictions(case: Case) -> Evictions:
    where: dict[str, int] = {}
    pages: list[tuple[str, int]] = []
    for row in csv.DictReader(io.StringIO(_text(case, f"{case.name}.pages.csv"))):
        # An activation names only the frame: the page is the one that was last put there.
        page = where.get(row["pfn"], -1) if not row["page"] else int(row["page"])
        if row["event"] == "add":
            where[row["pfn"]] = page
        if page >= 0:
            pages.append((row["event"], page))
    batches = []
    for row in csv.DictReader(io.StringIO(_text(case, f"{case.name}.batches.csv"))):
        fields = dict(pair.split("=", 1) for pair in row["fields"].split() if "=" in pair)
        if (batch := _batch(row["event"].removeprefix("mm_vmscan_"), fields)) is not None:
            batches.append(batch)
    return Evictions(tuple(pages), tuple(batches))


BATCHES = {
    "memcg_reclaim_begin": (),
    "memcg_reclaim_end": ("nr_reclaimed",),
    "lru_isolate": ("lru", "nr_requested", "nr_scanned", "nr_skipped", "nr_taken"),
    "lru_shrink_inactive": (
        "nr_scanned", "nr_reclaimed", "nr_dirty", "nr_writeback", "nr_activate_anon", "nr_activate_file", "nr_ref_keep", "nr_unmap_fail",
        "priority",
    ),
    "lru_shrink_active": ("nr_taken", "nr_active", "nr_deactivated", "nr_referenced", "priority"),
}  # fmt: skip
"""vmscan's events that are compared, and the fields of each."""


def _batch(event: str, fields: Mapping[str, str]) -> tuple[str | int, ...] | None:
    if event not in BATCHES:
        return None
    values = [fields.get(name, "0") for name in BATCHES[event]]
    return (event, *(int(v) if v.lstrip("-").isdigit() else v for v in values))
