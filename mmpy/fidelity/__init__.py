"""Figures that real kernels printed, beside ours: recorded sets, their cases, and rows of comparison.

    for case in open_set("reference").select(kinds=["machine"]):
        for row in compare(case):
            print(row["figure"], row["kernel"], row["ours"])

A kind of case whose machinery does not exist yet gives one row that says so. Nothing here knows a single case.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from mmpy.fidelity import rows
from mmpy.fidelity.case import KINDS, LRUS, Case, RecordedSet, RecordingError, open_set
from mmpy.fidelity.rows import Row, Summary

__all__ = ["KINDS", "LRUS", "Case", "RecordedSet", "RecordingError", "Row", "Summary", "compare", "open_set"]

Progress = Callable[[int, int], object]


def compare(case: Case, *, on_chunk: Progress | None = None) -> list[Row]:
    """Every figure of one case, the kernel's and ours. Never raises for a bad case: what went wrong is a row with `error`.

    on_chunk(done, total) is called now and then during long work; what it raises (Ctrl-C too) passes through.
    """
    out: list[Row] = []
    try:
        out.extend(_COMPARATORS[case.kind](case, on_chunk))
    except (RecordingError, ValueError, OSError, ImportError, MemoryError, AssertionError, LookupError, TypeError, ArithmeticError) as e:
        # A fault of ours must not hide the other cases: it is told, and it counts as a difference.
        told = str(e) if isinstance(e, (ValueError, OSError, ImportError)) else f"{type(e).__name__}: {e}"
        out.append(rows.error(case.name, case.kind, told or type(e).__name__))
    return out


def _machine(case: Case, on_chunk: Progress | None) -> Iterator[Row]:
    from mmpy.fidelity.machine import compare_machine

    return compare_machine(case, on_chunk=on_chunk)


def _trace(case: Case, on_chunk: Progress | None) -> Iterator[Row]:
    from mmpy.fidelity.machine import compare_trace_machine
    from mmpy.fidelity.trace import compare_both
    from mmpy.traces import Recording

    recording = Recording.open(case.directory)
    yield from compare_trace_machine(case, recording)
    yield from compare_both(recording, case=case.name, on_chunk=on_chunk)


def _reclaim(case: Case, on_chunk: Progress | None) -> Iterator[Row]:
    from mmpy.fidelity.reclaim import compare_reclaim

    return compare_reclaim(case, on_chunk=on_chunk)


def _not_yet(what: str) -> Callable[[Case, Progress | None], Iterator[Row]]:
    def told(case: Case, on_chunk: Progress | None) -> Iterator[Row]:
        yield rows.error(case.name, case.kind, f"{case.kind} cases need {what}, which this version does not have yet")

    return told


_COMPARATORS: dict[str, Callable[[Case, Progress | None], Iterator[Row]]] = {
    "machine": _machine,
    "trace": _trace,
    "reclaim": _reclaim,
    "evict": _reclaim,
    "extra": _not_yet("the slab allocator, huge page faults and the OOM killer"),
}
