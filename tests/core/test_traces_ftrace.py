"""Text of ftrace, perf script and trace-cmd report: every form of a line, any garbage, and back from what we write."""

import contextlib
import gzip
import io
import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmcore.run.ops import OP_DTYPE, Op
from mmpy import Machine
from mmpy.flags import GFP_KERNEL, Gfp, gfp_text
from mmpy.traces import (
    Recording,
    TraceFormatError,
    convert,
    convert_ftrace,
    parse_ftrace,
    read_ftrace,
    sample_path,
    write_ftrace,
)
from mmpy.traces.backend import EngineBackend
from mmpy.traces.events import EVENT_ALLOC, EVENT_EXTFRAG, EVENT_FREE, EVENT_FREE_BATCHED, EVENT_PCP_DRAIN, EVENT_RMQUEUE
from mmpy.traces.ftrace import flag_bits
from mmpy.traces.replay import replay

BODY = "mm_page_alloc: page=00000000c1d5e2a8 pfn=0x1f3c0 order=2 migratetype=1 gfp_flags=GFP_HIGHUSER_MOVABLE|__GFP_COMP"

# form of the line -> (text before the event, pid, cpu, microseconds, preemption depth)
HEADS = {
    "trace": ("            bash-1234    [003] d..2.  1234.567890: ", 1234, 3, 1_234_567_890, 2),
    "trace, old flags": ("            bash-1234  [003] d..2  1234.567890: ", 1234, 3, 1_234_567_890, 2),
    "trace, tgid": ("     kworker/0:1H-77      (   1200) [000] .....    12.000001: ", 77, 0, 12_000_001, 0),
    "trace, no tgid known": ("           <...>-22275   (-------) [006] ....   889.213383: ", 22275, 6, 889_213_383, 0),
    "trace_pipe, name with spaces": ("  Web Content [x]-9 [001] .N... 5.5: ", 9, 1, 5_500_000, 0),
    "trace, name with an event in it": (" mm_page_free: x-12 [001] ..... 5.000000: ", 12, 1, 5_000_000, 0),
    "trace, counter clock": ("            bash-1 [000] ..... 123456: ", 1, 0, 123456, 0),
    "perf script": ("            bash  1234 [001]  4415.246466:      kmem:", 1234, 1, 4_415_246_466, 0),
    "perf script, pid/tid": ("       perf 1234/1235 [001]  4415.246466: kmem:", 1235, 1, 4_415_246_466, 0),
    "perf script, nanoseconds": ("  bash  12 [1023]  1.000000999: kmem:", 12, 1023, 1_000_000, 0),
    "perf script, no cpu": ("            bash  1234  4415.246466:      kmem:", 1234, 0, 4_415_246_466, 0),
    "trace-cmd report": ("            bash-1234  [001]  4415.246466: ", 1234, 1, 4_415_246_466, 0),
    "trace-cmd report, flags": ("            bash-1234  [001] d..3.  4415.246466: ", 1234, 1, 4_415_246_466, 3),
}


@pytest.mark.parametrize("form", HEADS)
def test_every_form_of_a_line(form):
    head, pid, cpu, us, depth = HEADS[form]
    trace = parse_ftrace(f"# tracer: nop\n{head}{BODY}\n", strict=True)
    row = trace.events.rows[0]
    assert (row["pid"], row["cpu"], row["t_us"], row["context"] & 15) == (pid, cpu, us, depth)
    assert (row["event"], row["pfn"], row["order"], row["migratetype"]) == (EVENT_ALLOC, 0x1F3C0, 2, 1)
    assert trace.gfp_bits.tolist() == [int(Gfp.HIGHUSER_MOVABLE | Gfp.COMP)]
    assert trace.nr_cpus == cpu + 1
    assert (trace.lines, trace.other, trace.malformed) == (2, 1, 0)


HEAD = "    a-1 [000] .....  1.000000: "


@pytest.mark.parametrize(
    ("body", "event", "values"),
    [
        ("mm_page_alloc: page=0 pfn=1700000 order=0 migratetype=0 gfp_flags=GFP_KERNEL", EVENT_ALLOC, (1_700_000, 0, 0)),
        ("mm_page_alloc: page=(nil) pfn=0x0 order=9 migratetype=1 nr_free=3 gfp_flags=none", EVENT_ALLOC, (0, 9, 1)),
        ("mm_page_free: page=0000000082b1fe73 pfn=0x10 order=10", EVENT_FREE, (16, 10, 255)),
        ("mm_page_free_direct: page=ffffea0003db9f40 pfn=1155800 order=0", EVENT_FREE, (1155800, 0, 255)),
        ("mm_page_free_batched: page=0 pfn=0x10 order=0 cold=0", EVENT_FREE_BATCHED, (16, 0, 255)),
        ("mm_pagevec_free: page=0 pfn=16 cold=0", EVENT_FREE_BATCHED, (16, 0, 255)),
        ("mm_page_alloc_zone_locked: page=0 pfn=0x10 order=3 migratetype=2 percpu_refill=1", EVENT_RMQUEUE, (16, 3, 2)),
        ("mm_page_pcpu_drain: page=0 pfn=0x10 order=0 migratetype=1", EVENT_PCP_DRAIN, (16, 0, 1)),
        (
            "mm_page_alloc_extfrag: page=0 pfn=0x10 alloc_order=0 fallback_order=9 pageblock_order=9 alloc_migratetype=1 "
            "fallback_migratetype=2 fragmenting=0 change_ownership=1",
            EVENT_EXTFRAG,
            (16, 0, 1),
        ),
    ],
)
def test_every_event(body, event, values):
    trace = parse_ftrace(HEAD + body + "\r\n", strict=True)
    row = trace.events.rows[0]
    assert row["event"] == event
    assert (row["pfn"], row["order"], row["migratetype"]) == values
    if event == EVENT_EXTFRAG:
        assert [int(trace.events.extras[0][k]) for k in "abc"] == [9, 2, 1]


def test_vmscan_events_become_kswapd_operations():
    trace = parse_ftrace(
        HEAD
        + "mm_vmscan_kswapd_wake: nid=0 order=3\n"
        + HEAD.replace("1.0", "3.0")
        + "mm_vmscan_kswapd_sleep: nid=0\n"
        + HEAD
        + BODY
        + "\n"
    )
    assert [Op(int(o["op"])).name for o in convert_ftrace(trace).ops] == ["KSWAPD_BEGIN", "KSWAPD_END", "ALLOC"]


def test_what_is_no_event_is_passed_over():
    text = (
        "# entries-in-buffer/entries-written: 2/2   #P:1\n\n"
        "CPU:3 [LOST 123 EVENTS]\n"
        "CPU 1 [123 EVENTS DROPPED]\n"
        "    a-1 [000] .....  1.000000: kmalloc: call_site=x ptr=y bytes_req=10 gfp_flags=GFP_KERNEL\n"
        "    a-1 [000] .....  1.000000: mm_page_unknown: pfn=1\n"
        f"{HEAD}{BODY}\n"
        "        ffffffff8127 __alloc_pages_nodemask+0x123 ([kernel.kallsyms])\n"
        f"{HEAD}mm_page_free: page=0 pfn=0x99 order=0"
    )
    trace = parse_ftrace(text)
    assert len(trace.events) == 2
    assert (trace.lines, trace.other, trace.malformed, trace.lost) == (9, 5, 0, 124)
    assert "124 events were lost" in trace.summary()
    stream = convert_ftrace(trace)
    assert len(stream) == 1
    # what was allocated before the trace began is counted, not freed
    assert stream.counts["unknown_frees"] == 1
    assert len(convert_ftrace(trace, adopt=True)) == 2


@pytest.mark.parametrize(
    "line",
    [
        HEAD + "mm_page_alloc: page=0 order=0 migratetype=0 gfp_flags=none",
        HEAD + "mm_page_alloc: page=0 pfn=0x1",
        HEAD + "mm_page_alloc: page=0 pfn=0x1 order=11 migratetype=0 gfp_flags=none",
        HEAD + "mm_page_alloc: page=0 pfn=0x1 order=0 migratetype=16 gfp_flags=none",
        HEAD + "mm_page_alloc: page=0 pfn=0x1 order=0 migratetype=0",
        HEAD + "mm_page_alloc: page=0 pfn=0x1 order=0 migratetype=0 gfp_flags=",
        HEAD + "mm_page_alloc: page=0 pfn=0x1ffffffff order=0 migratetype=0 gfp_flags=none",
        HEAD + "mm_page_alloc: page=0 pfn=0x order=0 migratetype=0 gfp_flags=none",
        HEAD + "mm_page_free: page=0 pfn=1z order=0",
        HEAD + "mm_page_alloc_extfrag: page=0 pfn=0x10 alloc_order=0 fallback_order=9",
        HEAD.replace("1.000000", "x") + BODY,
        HEAD.replace("1.000000", "1.0.0") + BODY,
        HEAD.replace("1.000000", "") + BODY,
        HEAD.replace("[000]", "[99999]") + BODY,
        HEAD.replace("[000]", "[]") + BODY,
        HEAD.replace(".....", ".........") + BODY,
        HEAD + "mm_vmscan_kswapd_wake: nid=x",
    ],
)
def test_unreadable_lines_are_counted_or_refused(line):
    text = f"{HEAD}{BODY}\n{line}\n{HEAD}{BODY}\n"
    trace = parse_ftrace(text)
    assert len(trace.events) == 2
    assert (trace.malformed, trace.bad_lines) == (1, (2,))
    assert "1 lines could not be read (first: 2)" in trace.summary()
    with pytest.raises(TraceFormatError, match="trace: line 2"):
        parse_ftrace(text, strict=True)


def test_files_without_events_are_refused(tmp_path):
    for text in ("", "\n", "hello\n", "mm_page_free: \n", "\x00" * 1000):
        with pytest.raises(TraceFormatError, match="no kmem event"):
            parse_ftrace(text)
    with pytest.raises(TraceFormatError, match="longer than 65536"):
        parse_ftrace("x" * 100_000)
    with pytest.raises(TraceFormatError, match="more than 2 events"):
        parse_ftrace(f"{HEAD}{BODY}\n" * 3, max_rows=2)
    with pytest.raises(ValueError, match="max_rows is 0"):
        parse_ftrace(f"{HEAD}{BODY}\n", max_rows=0)
    with pytest.raises(FileNotFoundError):
        read_ftrace(tmp_path / "nothing")
    many = "".join(f"{HEAD}mm_page_alloc: page=0 pfn=0x1 order=0 migratetype=0 gfp_flags={i:#x}\n" for i in range(4097))
    with pytest.raises(TraceFormatError, match="line 4097: more than 4096 different gfp_flags"):
        parse_ftrace(many)


def test_compressed_files(tmp_path):
    path = tmp_path / "trace.txt.gz"
    path.write_bytes(gzip.compress(f"{HEAD}{BODY}\n".encode() * 5000))
    assert len(read_ftrace(path).events) == 5000
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(TraceFormatError, match="truncated"):
        read_ftrace(path)


def test_flags_of_all_times():
    unknown: dict[str, None] = {}
    assert flag_bits("none", unknown) == 0
    assert flag_bits("0xdc0", unknown) == 0xDC0
    assert flag_bits("GFP_KERNEL|__GFP_ZERO|0x4000000", unknown) == 0xDC0 | 0x4000000
    assert flag_bits("(GFP_KERNEL)", unknown) == 0xCC0
    assert flag_bits("__GFP_REPEAT|__GFP_COLD|__GFP_ATOMIC", unknown) == 0x4000
    assert flag_bits("GFP_TEMPORARY", unknown) == 0xCC0 | 0x10
    assert not unknown
    assert flag_bits("GFP_KERNEL|__GFP_FANCY|-5|99999999999999999999", unknown) == 0xCC0
    assert list(unknown) == ["__GFP_FANCY", "-5", "99999999999999999999"]
    trace = parse_ftrace(HEAD + BODY + "|__GFP_FANCY\n")
    assert trace.unknown_flags == ("__GFP_FANCY",)
    assert "__GFP_FANCY" in trace.summary()


@given(st.integers(0, 0x1FFFFFF))
def test_masks_survive_their_text(mask):
    assert flag_bits(gfp_text(mask)) == mask


# ---- written and read again


def requests(stream):
    """Allocations and frees as (code, size, flags) with the place of the allocation that a free names, bulk pages one by one."""
    out, place = [], {}
    for i, o in enumerate(stream.ops):
        code = int(o["op"])
        if code == Op.ALLOC:
            place[i, 0] = len(out)
            out.append(("alloc", int(o["a"]), int(o["b"])))
        elif code == Op.ALLOC_BULK:
            for k in range(int(o["a"])):
                place[i, k] = len(out)
                out.append(("alloc", 0, int(o["b"])))
        elif code == Op.FREE and not o["flags"] & 128:
            ref, offset = int(o["ref"]), int(o["a"])
            bulk = stream.ops[ref]["op"] == Op.ALLOC_BULK
            out.append(("free", int(o["b"]), (place[ref, offset], 0) if bulk else (place[ref, 0], offset)))
        elif code == Op.FREE:
            out.append(("free", int(o["b"]), int(o["a"])))
    return out


def test_a_simulated_run_survives_being_written(tmp_path):
    recording = Recording.open(sample_path())
    stream = convert(recording)
    result = replay(recording, stream, backend=EngineBackend(recording))
    path = tmp_path / "run.txt"
    with path.open("w") as out:
        written = write_ftrace(
            out, stream.ops, result.rc, result.value, result.pages_out, result.traced, times_us=recording.events.rows["t_us"][stream.rows]
        )
    trace = read_ftrace(path, strict=True)
    assert len(trace.events) == written
    again = convert_ftrace(trace, adopt=True)
    assert requests(again) == requests(stream)
    # its ticks show, and the rows of each request are with it
    assert (again.ops["op"] == Op.VMSTAT_TICK).sum() == (stream.ops["op"] == Op.VMSTAT_TICK).sum()
    for event in (1, 2):
        a, b = (s.recorded[s.recorded["event"] == event] for s in (again, stream))
        assert np.array_equal(a["pfn"], b["pfn"])
        assert np.array_equal(a["mt"], b["mt"])


def test_an_exported_run_replays_on_another_machine():
    ops = np.zeros(6, OP_DTYPE)
    for i, (code, ref, a, b) in enumerate(
        [(1, 0, 3, int(GFP_KERNEL)), (1, 0, 0, int(Gfp.HIGHUSER_MOVABLE)), (2, 0, 2, 1), (2, 0, 0, 1), (2, 0, 4, 2), (2, 1, 0, 0)]
    ):
        ops[i]["op"], ops[i]["ref"], ops[i]["a"], ops[i]["b"] = code, ref, a, b
    machine = Machine("1G")
    rc, value, pages = machine.run(ops)
    assert not rc.any()
    out = io.StringIO()
    assert write_ftrace(out, ops, rc, value, pages) == 6
    trace = parse_ftrace(out.getvalue(), strict=True)
    stream = convert_ftrace(trace)
    assert np.array_equal(stream.ops[["op", "ref", "a", "b"]], ops[["op", "ref", "a", "b"]])
    other = Machine("1G")
    rc, again, _ = other.run(stream.ops)
    assert not rc.any()
    assert np.array_equal(value, again)
    assert other.validate()


def test_failures_and_bad_arguments_when_writing():
    ops = np.zeros(3, OP_DTYPE)
    ops["op"] = [Op.ALLOC, Op.FREE, Op.ALLOC_BULK]
    ops["b"] = [0xCC0, 0, 0xCC0]
    out = io.StringIO()
    rc, value = np.array([-12, -2, 0]), np.zeros(3, np.uint64)
    assert write_ftrace(out, ops, rc, value) == 1
    assert "pfn=0x0 " in out.getvalue()
    rc[2] = 1
    with pytest.raises(ValueError, match="pages are needed"):
        write_ftrace(out, ops, rc, value)
    with pytest.raises(ValueError, match="rc has 2 elements for 3 ops"):
        write_ftrace(out, ops, rc[:2], value)
    with pytest.raises(ValueError, match="times_us has 1"):
        write_ftrace(out, ops, rc, value, times_us=np.zeros(1))
    for comm in ("", "two words", "a\nb"):
        with pytest.raises(ValueError, match="comm is"):
            write_ftrace(out, ops, rc, value, comm=comm)


# ---- garbage


@given(st.binary(max_size=300))
def test_garbage(data):
    with contextlib.suppress(TraceFormatError):
        parse_ftrace(data + b"\n" + f"{HEAD}{BODY}\n".encode() + data)


@given(
    st.lists(
        st.sampled_from(
            ["mm_page_free:", "mm_", " ", "[", "]", "001", "(", ")", "1.5:", ":", "pfn=0x1", "order=0", "-", "a", "\n", "kmem:"]
        ),
        max_size=40,
    )
)
def test_garbage_that_looks_like_a_trace(parts):
    trace = parse_ftrace(f"{HEAD}{BODY}\n" + "".join(parts))
    assert trace.lines >= len(trace.events) + trace.malformed


def test_flipped_bytes_and_cuts_never_crash():
    rng = random.Random(5)
    base = "".join(f"{head}{BODY}\n" for head, *_ in HEADS.values()).encode()
    seen = Counter()
    for _ in range(1500):
        data = bytearray(base)
        for _ in range(rng.randint(1, 6)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        trace = parse_ftrace(bytes(data[: rng.randrange(300, len(data))]))
        seen[bool(trace.malformed)] += 1
        convert_ftrace(trace, adopt=True)
    assert min(seen.values()) > 100
