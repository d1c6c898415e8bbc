"""Events to operations: where each lands, whose page is whose, when ticks ran."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcore.run.ops import OP_DTYPE, Op, OpFlag
from mmpy.traces import Recording, TraceFormatError, convert, convert_events, sample_path
from mmpy.traces._scan import EventScanner
from mmpy.traces.convert import NO_OP
from mmpy.traces.events import Events
from mmpy.traces.ticks import kswapd_ends, silent_ticks

SMALL = Path(__file__).parents[1] / "golden" / "trace_small"
HEADER = "t_us,pid,ctx,event,pfn,order,migratetype,gfp_id,extra\n"
GFP = np.array([0x140CCA, 0xCC0], np.uint32)


def events_of(*lines):
    scanner = EventScanner()
    scanner.feed((HEADER + "".join(line + "\n" for line in lines)).encode())
    scanner.finish()
    names = scanner.other_names
    return Events(*scanner.take(), names)


def stream_of(*lines, **options):
    return convert_events(events_of(*lines), GFP, **options)


def alloc(pfn, order=0, mt=1, gfp=0, t=1, pid=1, ctx="....."):
    return f"{t},{pid},{ctx},alloc,{pfn:x},{order},{mt},{gfp},"


def free(pfn, order=0, t=1, event="free"):
    return f"{t},1,.....,{event},{pfn:x},{order},,,"


def told(stream):
    """Ops as (name, ref or None, a, b)."""
    return [
        (Op(int(o["op"])).name, None if o["flags"] & OpFlag.OPF_PFN or o["op"] != Op.FREE else int(o["ref"]), int(o["a"]), int(o["b"]))
        for o in stream.ops
    ]


def test_small_recording_op_by_op():
    recording = Recording.open(SMALL)
    stream = convert(recording)
    line = [int(row) + 2 for row in stream.rows]
    assert list(zip(line, told(stream), strict=True)) == [
        (6, ("ALLOC", None, 0, 0x140CCA)),
        (7, ("ALLOC", None, 2, 0xCC0)),
        (9, ("ALLOC_BULK", None, 3, 0xCC0)),
        (12, ("FREE", 0, 0, 0)),
        (14, ("FREE", 2, 1, 0)),
        (15, ("FREE", 1, 2, 1)),
        (16, ("FREE", None, 0x1F00, 0)),
        (17, ("VMSTAT_TICK", None, 0, 0)),  # a silent one, near 1.009 s
        (17, ("KSWAPD_BEGIN", None, 0, 0)),
        (18, ("VMSTAT_TICK", None, 0, 0)),
        (20, ("KSWAPD_END", None, 0, 0)),  # 100 ms before the sleep row
        (24, ("ALLOC", None, 0, 0x140CCA)),
        (26, ("ALLOC", None, 0, 0xCC0)),
        (28, ("ALLOC", None, 0, 0x140CCA)),
        (29, ("VMSTAT_TICK", None, 0, 0)),
        (30, ("VMSTAT_TICK", None, 0, 0)),
        (30, ("CHECKPOINT", None, 1, 0)),
        (32, ("FREE", 1, 0, 1)),
    ]
    flags = {int(row) + 2: int(f) for row, f in zip(stream.rows, stream.ops["flags"], strict=True)}
    assert flags[6] == OpFlag.OPF_LRU
    assert flags[7] == 0
    assert flags[16] == OpFlag.OPF_PFN
    assert flags[24] == OpFlag.OPF_LRU | OpFlag.OPF_OOM_VICTIM
    assert flags[26] == OpFlag.OPF_MEMALLOC | OpFlag.OPF_OOM_VICTIM
    assert flags[28] == OpFlag.OPF_LRU | OpFlag.OPF_OOM_VICTIM
    assert stream.ops["task"][0] == 10
    assert stream.nr_bulk_pages == 3
    assert stream.checkpoints() == {1: 16}
    recorded = [
        (int(row) + 2, int(r["op"]), int(r["event"]), int(r["pfn"])) for row, r in zip(stream.recorded_rows, stream.recorded, strict=True)
    ]
    assert recorded == [
        (4, 0, 1, 0x1000), (5, 0, 1, 0x1001),
        (13, 3, 2, 0x1000),
        (18, 9, 2, 0x1001), (19, 9, 2, 0x1002),
        (21, 11, 1, 0x1200), (21, 11, 3, 0x1200),  # a whole block taken over has no rmqueue row
        (22, 11, 1, 0x1480), (23, 11, 3, 0x1480),
    ]  # fmt: skip
    assert tuple(stream.recorded[6])[:8] == (11, 0x1200, 3, 0, 1, 9, 2, 1)
    assert stream.counts["unknown_frees"] == 1


def test_resynchronised_streams_forget_owners_at_snapshots():
    stream = convert(Recording.open(SMALL), resync=True)
    assert told(stream)[-1] == ("FREE", None, 0x1004, 1)
    assert stream.resync


def test_start_from_a_later_snapshot():
    recording = Recording.open(SMALL)
    stream = convert(recording, first=recording.snapshot(1))
    assert told(stream) == [("FREE", None, 0x1004, 1)]


def test_pieces_of_a_block():
    stream = stream_of(alloc(0x40, order=3), free(0x42), free(0x44, order=2), free(0x40, order=1), free(0x43), free(0x43))
    assert told(stream)[1:] == [("FREE", 0, 2, 0), ("FREE", 0, 4, 2), ("FREE", 0, 0, 1), ("FREE", 0, 3, 0), ("FREE", None, 0x43, 0)]


def test_a_page_allocated_again_has_a_new_owner():
    stream = stream_of(alloc(0x40, order=1), free(0x41), alloc(0x41), free(0x41), free(0x40))
    assert told(stream)[1:] == [("FREE", 0, 1, 0), ("ALLOC", None, 0, 0x140CCA), ("FREE", 2, 0, 0), ("FREE", 0, 0, 0)]


def test_frees_larger_than_the_block_or_not_aligned_are_unknown():
    stream = stream_of(alloc(0x40, order=1), free(0x40, order=2), free(0x41, order=1))
    assert stream.counts["unknown_frees"] == 2
    assert stream_of(alloc(0x40), free(0x99), adopt=False).counts["unknown_frees"] == 1
    assert len(stream_of(alloc(0x40), free(0x99), adopt=False)) == 1


@settings(max_examples=60)
@given(st.data())
def test_ownership_agrees_with_a_page_table(data):
    """Random allocations and frees of pieces: every free names the op and offset that a table page by page names."""
    table: dict[int, tuple[int, int]] = {}
    blocks: list[tuple[int, int]] = []
    lines, expected = [], []
    next_pfn = 1024
    for op in range(data.draw(st.integers(1, 60))):
        if blocks and data.draw(st.booleans()):
            pfn, order = blocks.pop(data.draw(st.integers(0, len(blocks) - 1)))
            piece = data.draw(st.integers(0, order))
            while order > piece:
                order -= 1
                keep = pfn if data.draw(st.booleans()) else pfn + (1 << order)
                blocks.append((keep, order))
                pfn = pfn + (1 << order) if keep == pfn else pfn
            lines.append(free(pfn, order))
            expected.append(("FREE", *table[pfn], order))
            for p in range(pfn, pfn + (1 << order)):
                del table[p]
        else:
            order = data.draw(st.integers(0, 10))
            pfn = next_pfn
            next_pfn += 1024 * data.draw(st.integers(1, 5))
            lines.append(alloc(pfn, order))
            expected.append(("ALLOC", None, order, 0x140CCA))
            blocks.append((pfn, order))
            table |= {pfn + i: (op, i) for i in range(1 << order)}
    assert told(stream_of(*lines)) == expected


def test_many_owners_grow_the_table():
    pfns = [i * 8191 % 1_000_003 for i in range(1, 30_000)]
    lines = [alloc(p) for p in pfns] + [free(p) for p in reversed(pfns)]
    stream = stream_of(*lines)
    n = len(pfns)
    assert stream.counts["unknown_frees"] == 0
    assert stream.ops["ref"][n:].tolist() == list(range(n - 1, -1, -1))


def test_batches():
    # freed twice with an allocation between: each free_batched row belongs to the free row before it
    stream = stream_of(
        alloc(1),
        free(1, t=2),
        free(1, t=3, event="free_batched"),
        alloc(1, t=4),
        free(1, t=5),
        alloc(2, t=6),
        free(1, t=7, event="free_batched"),
    )
    assert [int(r) for r in stream.rows] == [0, 2, 3, 5, 6]
    # without a free row before it a free_batched row is one all the same
    assert told(stream_of(free(9, event="free_batched"))) == [("FREE", None, 9, 0)]


def test_bulk_with_a_stand_in():
    bulk, ret = "1,5,.....,bulk,,,,,gfp=0xcc0 nr=4", "2,5,.....,bulkret,,,,,ret=1 pages=40"
    stream = stream_of(bulk, alloc(0x40, pid=5), ret, free(0x40))
    assert [t[0] for t in told(stream)] == ["ALLOC", "FREE"]
    assert stream.counts["bulk_single"] == 1
    # an interrupt's allocation, or another task's, is no stand-in
    for other in (alloc(0x50, pid=5, ctx="..s1."), alloc(0x50, pid=6)):
        stream = stream_of(bulk, other, ret, free(0x40))
        assert told(stream) == [("ALLOC", None, 0, 0x140CCA), ("ALLOC_BULK", None, 1, 0xCC0), ("FREE", 1, 0, 0)]
    stream = stream_of(bulk, "2,5,.....,bulkret,,,,,ret=0 pages=")
    assert len(stream) == 0
    assert stream.counts["bulk_nothing"] == 1
    # a return without an entry (the trace began between the two) is passed over
    assert len(stream_of(ret)) == 0


def test_rows_before_a_bulk_return_are_its_own():
    stream = stream_of(
        "1,5,.....,bulk,,,,,gfp=0xcc0 nr=4",
        "1,5,d..4.,rmqueue,40,0,0,,refill",
        "2,5,.....,bulkret,,,,,ret=2 pages=40+41",
        "3,5,d..4.,rmqueue,50,0,0,,",
    )
    assert stream.recorded["op"].tolist() == [0, NO_OP]
    assert stream.counts["unattributed"] == 1


def test_drain_of_all_lists_is_no_tick():
    drain = "{t},{pid},d..2.,pcp_drain,{pfn:x},0,1,,"
    stream = stream_of(
        "1,7,.....,mm_vmscan_direct_reclaim_begin,,0,,0,",
        "2,7,.....,mm_vmscan_direct_reclaim_end,,,,,nr_reclaimed=3",
        drain.format(t=3, pid=7, pfn=1), drain.format(t=4, pid=7, pfn=2),
        alloc(1, t=5, pid=7),
        drain.format(t=6, pid=7, pfn=3),
        drain.format(t=100_006, pid=7, pfn=4), drain.format(t=200_007, pid=9, pfn=5),
    )  # fmt: skip
    assert [t[0] for t in told(stream)] == ["DRAIN_ALL", "ALLOC", "VMSTAT_TICK", "VMSTAT_TICK"]
    assert stream.recorded["op"].tolist() == [0, 0, 2, 2, 3]


def test_failed_allocations_and_interrupts():
    victims = ((5, 1),)
    stream = stream_of(
        "9,1,.....,alloc,,0,1,0,", "9,1,..h1.,alloc,5,0,1,0,", "5,1,.....,alloc,6,0,1,0,", "9,2,.....,alloc,7,0,0,0,", kills=victims
    )
    assert stream.ops["flags"].tolist() == [3, 1, 1, 0]
    assert stream.counts["type_differs"] == 1
    assert len(stream) == 4


def test_bad_flags_and_missing_snapshots(tmp_path):
    with pytest.raises(TraceFormatError, match=r"trace: row 1: gfp_id 2 is not in the table of 2 flags"):
        stream_of(alloc(1), alloc(2, gfp=2))
    for name in ("events.csv", "gfp.csv"):
        (tmp_path / name).write_text((SMALL / name).read_text())
    with pytest.raises(TraceFormatError, match="no snapshot"):
        convert(Recording.open(tmp_path))
    with pytest.raises(ValueError, match="first is 9"):
        stream_of(alloc(1), first_row=9)
    with pytest.raises(TraceFormatError, match="spans"):
        stream_of("1,1,d..2.,pcp_drain,1,0,1,,", "999999999999999999,1,.....,free,1,0,,,")


def test_empty_traces():
    stream = stream_of()
    assert (len(stream), len(stream.recorded), stream.nr_bulk_pages, stream.checkpoints()) == (0, 0, 0, {})
    assert stream.ops.dtype == OP_DTYPE


def test_every_event_of_the_sample_is_used():
    recording = Recording.open(sample_path())
    stream = convert(recording)
    counts = recording.events.counts()
    names = np.bincount(stream.ops["op"], minlength=12)
    assert names[Op.ALLOC] == counts["alloc"]
    assert names[Op.FREE] == counts["free"]
    assert names[Op.ALLOC_BULK] == counts["bulk"]
    kinds = np.bincount(stream.recorded["event"], minlength=4)
    assert kinds[1] == counts["rmqueue"]
    assert kinds[2] == counts["pcp_drain"]
    assert (stream.recorded["op"] != NO_OP).all()
    assert (np.diff(stream.rows.astype(np.int64)) >= 0).all()
    frees = stream.ops[(stream.ops["op"] == Op.FREE) & (stream.ops["flags"] == 0)]
    assert len(frees) > 5_000
    assert np.isin(stream.ops["op"][frees["ref"]], [Op.ALLOC, Op.ALLOC_BULK]).all()


# ---- ticks


def test_silent_ticks_follow_the_timer_wheel():
    # seconds of jiffies, 32, 24, 16, 8 ms late in turn, plus an offset of the clock
    due = [int(1e6) * n + 4000 * (8 - 2 * (n % 4)) + 123_456 for n in range(5, 17)]
    seen = np.array([due[i] for i in (0, 3, 7)])
    assert silent_ticks(seen, due[0], due[-1] + 1) == [due[i] for i in range(12) if i not in (0, 3, 7)]
    assert silent_ticks(seen[:0], 0, 10**9) == []
    assert silent_ticks(seen, due[3], due[4]) == []
    assert silent_ticks(seen, due[3], due[4] + 1) == [due[4]]


@given(st.integers(0, 999_999), st.integers(0, 3), st.sets(st.integers(0, 30), min_size=4))
def test_silent_ticks_for_every_offset_of_the_clock(offset, phase, visible):
    due = [int(1e6) * n + 4000 * (8 - 2 * ((n + phase) % 4)) + offset for n in range(31)]
    seen = np.array([due[i] for i in sorted(visible)])
    got = silent_ticks(seen, due[0] - 500_000, due[-1] + 500_000)
    wanted = [t for i, t in enumerate(due) if i not in visible]
    # Only all four latenesses together tell the phase; else the unseen ones may be taken for their neighbours.
    tolerance = 0 if {i % 4 for i in visible} == {0, 1, 2, 3} else 32_000
    assert len(got) == len(wanted)
    assert all(abs(a - b) <= tolerance for a, b in zip(got, wanted, strict=True))


def test_kswapd_ends():
    assert kswapd_ends(np.array([100]), np.array([500_000])) == [400_000]
    # a short run cannot have ended before it began
    assert kswapd_ends(np.array([450_000]), np.array([500_000])) == [450_001]
    assert kswapd_ends(np.array([], np.int64), np.array([500_000])) == [400_000]
    assert kswapd_ends(np.array([1]), np.array([], np.int64)) == []
