"""Allocator traces of other people's machines: text of ftrace (trace, trace_pipe), perf script and trace-cmd report, read and written.

    trace = read_ftrace("trace.txt")
    stream = convert_ftrace(trace)              # frees of pages from before the trace are left out, and counted

Models: the tracepoints kmem:mm_page_* and their text. Simplifies: page frames say whose page is freed, nothing else; such a trace has no
snapshot, so where the simulated machine puts a page is its own affair. Flags of other kernel versions that 6.12 does not have are
dropped, and named in `unknown_flags`. Omits: binary trace.dat and perf.data (report them as text), and events other than these.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import numpy as np

from mmcore.run.ops import Op
from mmpy.flags import gfp_text, parse_gfp
from mmpy.traces import files
from mmpy.traces._ftrace import FtraceScanner
from mmpy.traces.convert import OpStream, convert_events
from mmpy.traces.errors import TraceFormatError
from mmpy.traces.events import Array, Events

# Names that older kernels print, by what they became. 0: without a meaning for the allocator of 6.12.
_OLD_NAMES: Mapping[str, str] = {
    "__GFP_REPEAT": "__GFP_RETRY_MAYFAIL",
    "__GFP_WAIT": "__GFP_RECLAIM",
    "__GFP_ATOMIC": "0",
    "__GFP_COLD": "0",
    "__GFP_NOTRACK": "0",
    "__GFP_OTHER_NODE": "0",
    "__GFP_NOLOCKDEP": "0",
    "__GFP_SKIP_ZERO": "0",
    "__GFP_SKIP_KASAN": "0",
    "__GFP_SKIP_KASAN_POISON": "0",
    "__GFP_SKIP_KASAN_UNPOISON": "0",
    "GFP_TEMPORARY": "GFP_KERNEL|__GFP_RECLAIMABLE",
}


@dataclass(frozen=True)
class ForeignTrace:
    """A text trace. `events` as of a recording; gfp_bits by gfp_id; what was seen is counted.

    lines; other (lines that are no event of ours); malformed (lines of our events that could not be read; the numbers of the first
    are `bad_lines`); lost (events that the tracer says it lost); nr_cpus: highest CPU seen, plus one.
    """

    events: Events
    gfp_bits: Array
    gfp_names: tuple[str, ...]
    nr_cpus: int
    lines: int
    other: int
    malformed: int
    lost: int
    bad_lines: tuple[int, ...] = ()
    unknown_flags: tuple[str, ...] = field(default=())

    def summary(self) -> str:
        """What was read, in a sentence."""
        parts = [f"{len(self.events)} events of {self.nr_cpus} CPUs in {self.lines} lines"]
        if self.malformed:
            parts.append(f"{self.malformed} lines could not be read (first: {', '.join(map(str, self.bad_lines))})")
        if self.lost:
            parts.append(f"{self.lost} events were lost while tracing")
        if self.unknown_flags:
            parts.append(f"unknown flags: {', '.join(self.unknown_flags)}")
        return "; ".join(parts)


def read_ftrace(source: str | os.PathLike[str], *, max_rows: int = 1 << 27, strict: bool = False) -> ForeignTrace:
    """Read a text trace from a file, plain or compressed.

    TraceFormatError: not one kmem event in it, a line longer than 64 KiB, more than `max_rows` events, corrupt compressed data; with
    `strict` also a line of one of our events that cannot be read. OSError: unreadable. ImportError: .zst without zstandard.
    """
    path = Path(source)
    scanner = FtraceScanner(str(path), max_rows, expected=min(files.size_hint(path) // 100, max_rows))
    for piece in files.pieces(path):
        scanner.feed(piece)
    return _finish(scanner, str(path), strict)


def parse_ftrace(text: str | bytes, *, source: str = "trace", max_rows: int = 1 << 27, strict: bool = False) -> ForeignTrace:
    """The same from memory."""
    data = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
    scanner = FtraceScanner(source, max_rows, expected=len(data) // 100)
    scanner.feed(data)
    return _finish(scanner, source, strict)


def _finish(scanner: FtraceScanner, source: str, strict: bool) -> ForeignTrace:
    scanner.finish()
    if strict and scanner.malformed:
        raise TraceFormatError(f"{source}: line {scanner.bad_lines[0]}: a kmem event that cannot be read")
    if not len(scanner):
        told = f"{scanner.malformed} lines with unreadable ones" if scanner.malformed else "no mm_page_alloc, mm_page_free ..."
        raise TraceFormatError(f"{source}: no kmem event in its {scanner.lines} lines ({told})")
    unknown: dict[str, None] = {}
    bits = [flag_bits(text, unknown) for text in scanner.gfp_texts]
    rows, extras, pages, text = scanner.take()
    return ForeignTrace(
        Events(rows, extras, pages, text),
        np.array(bits, np.uint32),
        tuple(scanner.gfp_texts),
        scanner.nr_cpus,
        scanner.lines,
        scanner.other,
        scanner.malformed,
        scanner.lost,
        tuple(scanner.bad_lines),
        tuple(unknown),
    )


def flag_bits(text: str, unknown: dict[str, None] | None = None) -> int:
    """Bits of "GFP_KERNEL|__GFP_ZERO" or "0xdc0", as 6.12 has them. A name that it does not have gives none and is put into `unknown`."""
    bits = 0
    for part in text.strip("()").split("|"):
        name = _OLD_NAMES.get(part, part)
        try:
            value = parse_gfp(name)
        except ValueError:
            value = -1
        if not 0 <= value < 1 << 32:
            if unknown is not None:
                unknown[part[:40]] = None
            continue
        bits |= value
    return bits


def convert_ftrace(trace: ForeignTrace, *, adopt: bool = False) -> OpStream:
    """Operations of a text trace.

    Frees of pages that were allocated before the trace began are counted (counts["unknown_frees"]) and left out; with `adopt` they are
    kept as frees by page frame, for a machine on which these frames are in use. Run the stream on a machine with trace.nr_cpus CPUs.
    """
    return convert_events(trace.events, trace.gfp_bits, adopt=adopt)


# ---- writing


def write_ftrace(
    out: TextIO,
    ops: Array,
    rc: Array,
    value: Array,
    pages: Array | None = None,
    traced: Array | None = None,
    *,
    times_us: Array | None = None,
    comm: str = "mmpy",
) -> int:
    """Write what a run did as ftrace prints it; returns the number of events.

    ops, rc, value, pages: the operations and results of Machine.run(); traced: rows of a Tracer (TRACE_DTYPE), whose refills come before
    the request's own line and whose drains behind it; times_us: time of each op (default: its index). Frees that failed give no line,
    allocations that failed a line with pfn 0; pages of bulk requests a line each (a kernel shows none); ticks only their drains.
    """
    n = len(ops)
    for name, array in (("rc", rc), ("value", value), *((("times_us", times_us),) if times_us is not None else ())):
        if len(array) != n:
            raise ValueError(f"{name} has {len(array)} elements for {n} ops")
    if not comm or any(c.isspace() or not c.isprintable() for c in comm):
        raise ValueError(f"comm is {comm!r}: one word is needed")
    out.write("# tracer: nop\n#\n#           TASK-PID     CPU#  |||||  TIMESTAMP  FUNCTION\n")
    by_op = _by_op(traced, n)
    written = 0
    for i, op in enumerate(ops):
        us = i if times_us is None else int(times_us[i])
        task = f"{comm}-{int(op['task'])}"
        code, cpu, rows = int(op["op"]), int(op["cpu"]), by_op.get(i, ())
        # A tick drains at a preemption depth of 2, a free at 3: that is how a reader tells them apart.
        depth = 2 if code in (Op.VMSTAT_TICK, Op.DRAIN_ALL) else 3
        lines = [(f"d..{depth}.", text) for text in _taken(rows)]
        lines += [(".....", text) for text in _own(code, op, int(rc[i]), int(value[i]), pages)]
        lines += [(f"d..{depth}.", text) for text in _drained(rows)]
        for context, text in lines:
            out.write(f"{task:>24} [{cpu:03d}] {context} {us // 1_000_000:5d}.{us % 1_000_000:06d}: {text}\n")
        written += len(lines)
    return written


def _by_op(traced: Array | None, n: int) -> dict[int, Sequence[np.void]]:
    out: dict[int, list[np.void]] = {}
    for row in () if traced is None else traced:
        if int(row["op"]) >= n:
            raise ValueError(f"traced names op {int(row['op'])}; there are {n}")
        out.setdefault(int(row["op"]), []).append(row)
    return dict(out)


def _block(pfn: int) -> str:
    return f"page={'%016x' % (0xFFFFEA0000000000 + 64 * pfn) if pfn else '0' * 16} pfn={pfn:#x}"


def _taken(rows: Sequence[np.void]) -> Iterator[str]:
    claimed_or_stolen = {int(r["pfn"]): r for r in rows if r["event"] == 3}
    for r in rows:
        pfn, order, mt = int(r["pfn"]), int(r["order"]), int(r["mt"])
        if r["event"] != 1:
            continue
        extfrag = claimed_or_stolen.get(pfn)
        # As the kernel prints them: whole blocks and single pages taken over have an extfrag line only.
        if extfrag is None or (extfrag["claimed"] and extfrag["fb_order"] < 9):
            yield f"mm_page_alloc_zone_locked: {_block(pfn)} order={order} migratetype={mt} percpu_refill={int(order <= 3)}"
        if extfrag is not None:
            fragmenting, owner = int(extfrag["fb_order"] < 9), int(extfrag["claimed"])
            yield (
                f"mm_page_alloc_extfrag: {_block(pfn)} alloc_order={order} fallback_order={int(extfrag['fb_order'])} pageblock_order=9 "
                f"alloc_migratetype={mt} fallback_migratetype={int(extfrag['fb_mt'])} fragmenting={fragmenting} change_ownership={owner}"
            )


def _drained(rows: Sequence[np.void]) -> Iterator[str]:
    for r in rows:
        if r["event"] == 2:
            yield f"mm_page_pcpu_drain: {_block(int(r['pfn']))} order={int(r['order'])} migratetype={int(r['mt'])}"


def _own(code: int, op: np.void, rc: int, value: int, pages: Array | None) -> Iterator[str]:
    flags = f"migratetype={int(op['b']) >> 3 & 3} gfp_flags={gfp_text(int(op['b']))}"
    if code == Op.ALLOC:
        yield f"mm_page_alloc: {_block(value if rc >= 0 else 0)} order={int(op['a'])} {flags}"
    elif code == Op.ALLOC_BULK and rc > 0:
        if pages is None:
            raise ValueError("the stream has bulk allocations: their pages are needed")
        for pfn in pages[value : value + rc]:
            yield f"mm_page_alloc: {_block(int(pfn))} order=0 {flags}"
    elif code == Op.FREE and rc >= 0:
        yield f"mm_page_free: {_block(value)} order={int(op['b'])}"
    elif code == Op.KSWAPD_BEGIN:
        yield f"mm_vmscan_kswapd_wake: nid={int(op['a'])} order=0"
