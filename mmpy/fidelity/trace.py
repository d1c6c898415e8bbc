"""Recorded allocator traces beside ours: every page frame, every refill, drain and fallback, every list at every snapshot.

Models: nothing itself. Simplifies: rows are compared request by request, each request's n-th with its n-th. Omits: when things happened.

Inputs (not scored): the first snapshot; requests in their order with order, flags and task, for a bulk request what it got; where a tick
of the statistics worker drained something (silent ticks are computed); wake and sleep of kswapd; the OOM victim and its time; what
reclaim and compaction freed. Everything else is predicted.

Two scores: `free_running.` from the first snapshot to the end, nothing corrected on the way; `resync.` with the recorded state put in
at each snapshot. For sequences `kernel` is the recorded length and `ours` the number of equal items; `first_divergence` is the place in
that sequence where they part. The first row that differs carries `explanation`: where in the file, which list, which page, which rule.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mmcore.run.ops import Op
from mmpy.fidelity.rows import Row, error, figure
from mmpy.fidelity.trace_explain import explain
from mmpy.traces.convert import convert
from mmpy.traces.events import Array
from mmpy.traces.recording import Recording
from mmpy.traces.replay import Backend, Replay, replay
from mmpy.traces.state import AllocState

KIND = "trace"
NOTHING = 0xFFFFFFFF
ENOMEM = 12

_PCP_FIGURES = ("count", "high", "high_min", "high_max", "batch", "flags", "alloc_factor", "free_count", "expire", "diff")
_ZONE_FIGURES = ("nr_free_pages", "boost", "flags", "nr_reserved_highatomic", "nr_free_highatomic")
_NAMES = {"diff": "differential"}


@dataclass(frozen=True)
class Match:
    """Two sequences side by side: their lengths, how many items are equal, the first place and op where they part."""

    name: str
    recorded: int
    predicted: int
    equal: int
    first: int | None = None
    op: int | None = None

    def row(self, case: str, prefix: str) -> Row:
        """The figure of this sequence."""
        out = figure(case, KIND, f"{prefix}{self.name}", self.recorded, self.equal, exact=True)
        surplus = max(0, self.predicted - self.recorded)
        out["distance"] = (self.recorded - self.equal + surplus) / max(self.recorded, 1)
        out["first_divergence"] = self.first
        return out


def compare_trace(
    recording: Recording,
    resync: bool = False,
    *,
    case: str | None = None,
    backend: Backend | None = None,
    on_chunk: Callable[[int, int], object] | None = None,
) -> list[Row]:
    """All figures of one score of a recording. `backend`: what runs the operations (default: the engine)."""
    name = recording.name if case is None else case
    prefix = "resync." if resync else "free_running."
    if backend is None:
        from mmpy.traces.backend import EngineBackend

        backend = EngineBackend(recording)
    began = time.process_time()
    stream = convert(recording, resync=resync)
    converted = time.process_time() - began
    result = replay(recording, stream, backend=backend, on_chunk=on_chunk)
    matches = match_events(result)
    rows = [match.row(name, prefix) for match in matches]
    errors = np.flatnonzero((result.rc < 0) & (result.rc != -ENOMEM))
    rows.append(figure(name, KIND, f"{prefix}errors", 0, len(errors), exact=True))
    for number, ours in result.states.items():
        rows += compare_states(name, f"{prefix}SNAP{number}.", recording.snapshot(number).state, ours)
    missing = [s.number for s in recording.snapshots[1:] if s.number not in result.states]
    rows += [error(name, KIND, "the replay did not come to this snapshot", name=f"{prefix}SNAP{number}") for number in missing]
    explain_first(rows, matches, result, backend, errors)
    seconds = recording.read_seconds + converted + result.cpu_seconds
    rows.append(figure(name, KIND, f"{prefix}events_per_cpu_second", None, round(len(recording.events) / max(seconds, 1e-9)), exact=False))
    return rows


def compare_both(recording: Recording, *, case: str | None = None, on_chunk: Callable[[int, int], object] | None = None) -> list[Row]:
    """Both scores: free-running, then re-synchronised."""
    return [row for resync in (False, True) for row in compare_trace(recording, resync, case=case, on_chunk=on_chunk)]


# ---- events


def match_events(result: Replay) -> list[Match]:
    """The sequences of one replay: alloc, bulk, refill, drain, fallback."""
    stream = result.stream
    done = stream.ops[: result.done]
    taken = stream.recorded["op"] < result.done
    out = [_match_allocs(result, done), _match_bulk(result, done)]
    for name, event, fields in (
        ("refill", 1, ("pfn", "order", "mt")),
        ("drain", 2, ("pfn", "order", "mt")),
        ("fallback", 3, ("pfn", "order", "mt", "fb_order", "fb_mt", "claimed")),
    ):
        recorded = stream.recorded[taken & (stream.recorded["event"] == event)]
        out.append(match_rows(name, recorded, result.traced[result.traced["event"] == event], fields))
    return out


def _match_allocs(result: Replay, done: Array) -> Match:
    at = np.flatnonzero(done["op"] == Op.ALLOC)
    kernel = result.recording.events.rows["pfn"][result.stream.rows[at]]
    failed = (kernel == NOTHING) | (kernel == 0)
    rc = result.rc[at]
    equal = np.where(failed, rc == -ENOMEM, (rc == 0) & (result.value[at] == kernel))
    wrong = np.flatnonzero(~equal)
    first = (int(wrong[0]), int(at[wrong[0]])) if len(wrong) else (None, None)
    return Match("alloc", len(at), len(at), len(at) - len(wrong), *first)


def _match_bulk(result: Replay, done: Array) -> Match:
    extras, pages = result.recording.events.extras, result.recording.events.pages
    recorded = predicted = equal = 0
    first: tuple[int | None, int | None] = (None, None)
    for op in np.flatnonzero(done["op"] == Op.ALLOC_BULK):
        extra = extras[np.searchsorted(extras["row"], result.stream.rows[op])]
        kernel = pages[int(extra["start"]) : int(extra["start"]) + int(extra["length"])]
        got = max(int(result.rc[op]), 0)
        # Of a large request the recording names only the first pages.
        ours = result.pages_out[int(result.value[op]) : int(result.value[op]) + min(got, len(kernel))]
        same = kernel[: len(ours)] == ours
        n = int(same.sum())
        if n < len(kernel) and first[0] is None:
            first = recorded + (int(np.argmin(same)) if not same.all() else len(ours)), int(op)
        recorded, predicted, equal = recorded + len(kernel), predicted + len(ours), equal + n
    return Match("bulk", recorded, predicted, equal, *first)


def match_rows(name: str, recorded: Array, predicted: Array, fields: Sequence[str]) -> Match:
    """Recorded and predicted rows (TRACE_DTYPE, sorted by op), compared within each op: its n-th row with its n-th row."""
    if len(recorded) == len(predicted) and np.array_equal(recorded["op"], predicted["op"]):
        same = np.ones(len(recorded), bool)
        for field in fields:
            same &= recorded[field] == predicted[field]
        wrong = np.flatnonzero(~same)
        if not len(wrong):
            return Match(name, len(recorded), len(predicted), len(recorded))
        first = int(wrong[0])
        return Match(name, len(recorded), len(predicted), len(recorded) - len(wrong), first, int(recorded["op"][first]))
    mine, theirs = _place_keys(predicted["op"]), _place_keys(recorded["op"])
    common, a, b = np.intersect1d(theirs, mine, assume_unique=True, return_indices=True)
    same = np.ones(len(common), bool)
    for field in fields:
        same &= recorded[field][a] == predicted[field][b]
    # Where they part first: a pair that differs, or a row that one side has alone.
    parted = [common[~same], np.setdiff1d(theirs, common, assume_unique=True), np.setdiff1d(mine, common, assume_unique=True)]
    key = min(int(k[0]) for k in parted if len(k))
    return Match(name, len(recorded), len(predicted), int(same.sum()), int(np.searchsorted(theirs, key)), key >> 32)


def _place_keys(ops: Array) -> Array:
    """Unique sorted keys: op in the upper half, place within the op in the lower."""
    wide = np.sort(ops.astype(np.uint64), kind="stable")
    place = np.arange(len(wide), dtype=np.uint64) - np.searchsorted(wide, wide).astype(np.uint64)
    return (wide << np.uint64(32)) | place


# ---- snapshots


def compare_states(case: str, prefix: str, kernel: AllocState, ours: AllocState) -> list[Row]:
    """Rows of one snapshot: all lists, each zone's free lists by order, its per-CPU lists and internals, counters, block types."""
    rows: list[Row] = []
    lists = equal = surplus = 0
    for (node, zid), theirs in kernel["zones"].items():
        if not theirs["present"]:
            continue
        name = f"node{node}.{theirs['name']}"
        zone = ours["zones"].get((node, zid))
        if zone is None:
            rows.append(error(case, KIND, "our machine has no such zone", name=f"{prefix}{name}"))
            continue
        for order in range(11):
            a, b = ({mt: zone["free"].get((order, mt), []) for mt in range(5)} for zone in (theirs, zone))
            rows.append(_lists_row(case, f"{prefix}free.{name}.order{order}", a, b, "type"))
            lists, equal, surplus = _count_lists(a, b, lists, equal, surplus)
        for field in _ZONE_FIGURES:
            rows.append(figure(case, KIND, f"{prefix}{name}.{field}", theirs[field], zone[field], exact=True))
        for cpu, pcp in theirs["pcp"].items():
            path = f"{prefix}pcp.{name}.cpu{cpu}"
            mine = zone["pcp"].get(cpu)
            if mine is None:
                rows.append(error(case, KIND, "our machine has no such CPU", name=path))
                continue
            rows.append(_lists_row(case, f"{path}.pages", pcp["lists"], mine["lists"], "list"))
            lists, equal, surplus = _count_lists(pcp["lists"], mine["lists"], lists, equal, surplus)
            rows += [figure(case, KIND, f"{path}.{_NAMES.get(f, f)}", pcp[f], mine[f], exact=True) for f in _PCP_FIGURES]
    total = figure(case, KIND, f"{prefix}lists", lists, equal, exact=True)
    total["distance"] = (lists - equal + surplus) / max(lists, 1)
    blocks = sorted(kernel["blocks"])
    same = [kernel["blocks"][b] == ours["blocks"].get(b) for b in blocks]
    types = figure(case, KIND, f"{prefix}pageblocks", len(blocks), sum(same), exact=True)
    types["first_divergence"] = None if all(same) else same.index(False)
    return [total, types, *rows]


def _count_lists(
    kernel: Mapping[int, list[int]], ours: Mapping[int, list[int]], lists: int, equal: int, surplus: int
) -> tuple[int, int, int]:
    for key in kernel.keys() | ours.keys():
        a, b = kernel.get(key, []), ours.get(key, [])
        lists += bool(a)
        equal += bool(a) and a == b
        surplus += bool(b) and not a
    return lists, equal, surplus


def _lists_row(case: str, name: str, kernel: Mapping[int, list[int]], ours: Mapping[int, list[int]], what: str) -> Row:
    """One row for several lists: place by place within each, one behind the other."""
    total = equal = surplus = 0
    first, note = None, ""
    for key in sorted(kernel.keys() | ours.keys()):
        a, b = kernel.get(key, []), ours.get(key, [])
        if a == b:
            total, equal = total + len(a), equal + len(a)
            continue
        same = [x == y for x, y in zip(a, b, strict=False)]
        if first is None:
            at = same.index(False) if False in same else len(same)
            first = total + at
            heads = [f"{x[at]:#x}" if at < len(x) else "the end" for x in (a, b)]
            note = f"{what} {key} at {at}: kernel {heads[0]}, ours {heads[1]}"
        total, equal, surplus = total + len(a), equal + sum(same), surplus + max(0, len(b) - len(a))
    row = figure(case, KIND, name, total, equal, exact=True, note=note)
    row["distance"] = (total - equal + surplus) / max(total, 1)
    row["first_divergence"] = first
    return row


# ---- why


def explain_first(rows: list[Row], matches: list[Match], result: Replay, backend: Backend, errors: Array) -> None:
    """Put `explanation` on the row of the sequence that parts first: the state before that operation says why."""
    at = [(m.op, i) for i, m in enumerate(matches) if m.op is not None]
    if len(errors):
        at.append((int(errors[0]), len(matches)))
    if not at:
        return
    op, i = min(at)
    rows[i]["explanation"] = explain(result, op, backend)
