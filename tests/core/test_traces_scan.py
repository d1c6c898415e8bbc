"""The reader of events.csv: every column, every complaint, any cut of the input, any garbage."""

import contextlib
import itertools
import random

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mmpy.traces import _scan
from mmpy.traces._scan import EVENT_DTYPE, EXTRA_DTYPE, EventScanner
from mmpy.traces.errors import TraceFormatError

HEADER = "t_us,pid,ctx,event,pfn,order,migratetype,gfp_id,extra\n"
ROWS = (
    "10,1,.....,alloc,3bd0,0,1,7,\n"
    "11,4294967295,d..3.,rmqueue,b96c,3,2,,refill\n"
    "12,0,dNs2.,pcp_drain,fffffffe,10,0,,\n"
    "13,1,..h1.,free,0,0,,,\n"
    "14,1,...2.,free_batched,1f,,,,\n"
    "15,1,d..3.,extfrag,4600,0,1,,fallback_order=9 pageblock_order=9 fallback_migratetype=2 fragmenting=0 change_ownership=1\n"
    "16,1,.....,bulk,,,,,gfp=0x100cc0 nr=16\n"
    "17,1,.....,bulkret,,,,,ret=3 pages=b96f+B95D+1\n"
    "18,1,,mark,,,,,SNAP0 BEGIN\n"
    "19,44,.....,mm_vmscan_kswapd_wake,,0,,,nid=1 order=0\n"
    "20,44,.....,mm_strange_event,,,,,a=b c=d\n"
    "21,1,.....,alloc,,0,1,7,\n"
)


def scan(text, *, pieces=1, **options):
    data = text if isinstance(text, bytes) else text.encode()
    scanner = EventScanner("t.csv", **options)
    cuts = [len(data) * i // pieces for i in range(pieces + 1)]
    for a, b in itertools.pairwise(cuts):
        scanner.feed(data[a:b])
    scanner.finish()
    names = scanner.other_names
    return (*scanner.take(), names)


def test_layout_of_the_records_is_pinned():
    assert EVENT_DTYPE.itemsize == 24
    assert [(name, EVENT_DTYPE.fields[name][1]) for name in EVENT_DTYPE.names] == [
        ("t_us", 0), ("pid", 8), ("pfn", 12), ("gfp_id", 16), ("cpu", 18),
        ("event", 20), ("order", 21), ("migratetype", 22), ("context", 23),
    ]  # fmt: skip
    assert EXTRA_DTYPE.itemsize == 24
    assert EXTRA_DTYPE.names == ("row", "start", "length", "a", "b", "c")


def test_every_column():
    rows, extras, pages, text, names = scan(HEADER + ROWS)
    assert rows["t_us"].tolist() == list(range(10, 22))
    assert rows["pid"][:4].tolist() == [1, 4294967295, 0, 1]
    assert rows["pfn"][:5].tolist() == [0x3BD0, 0xB96C, 0xFFFFFFFE, 0, 0x1F]
    assert rows["pfn"][11] == _scan.NONE_PFN
    assert rows["order"][:5].tolist() == [0, 3, 10, 0, _scan.NONE_BYTE]
    assert rows["migratetype"][:4].tolist() == [1, 2, 0, _scan.NONE_BYTE]
    assert rows["gfp_id"][[0, 1]].tolist() == [7, _scan.NONE_GFP]
    assert [_scan.EVENT_NAMES.get(int(e)) for e in rows["event"][:10]] == [
        "alloc", "rmqueue", "pcp_drain", "free", "free_batched", "extfrag", "bulk", "bulkret", "mark", "mm_vmscan_kswapd_wake",
    ]  # fmt: skip
    assert rows["event"][10] == _scan.FIRST_OTHER
    assert names == ("mm_strange_event",)
    depth = (rows["context"] & _scan.DEPTH_MASK).tolist()
    assert depth[:6] == [0, 3, 2, 1, 2, 3]
    assert rows["context"][1] & _scan.IRQS_OFF
    assert rows["context"][1] & _scan.REFILL
    assert rows["context"][2] & _scan.SOFTIRQ
    assert rows["context"][3] & _scan.HARDIRQ
    by_row = {int(x["row"]): x for x in extras}
    assert [int(by_row[5][k]) for k in "abc"] == [9, 2, 1]
    assert [int(by_row[6][k]) for k in "ab"] == [0x100CC0, 16]
    assert by_row[7]["a"] == 3
    assert pages[by_row[7]["start"] : by_row[7]["start"] + by_row[7]["length"]].tolist() == [0xB96F, 0xB95D, 1]
    assert by_row[9]["a"] == 1
    texts = {row: text[int(x["start"]) : int(x["start"]) + int(x["length"])] for row, x in by_row.items()}
    assert texts[8] == b"SNAP0 BEGIN"
    assert texts[10] == b"a=b c=d"


@pytest.mark.parametrize("pieces", [2, 3, 7, 50, 400])
def test_pieces_of_any_size_mean_the_same(pieces):
    whole, cut = scan(HEADER + ROWS), scan(HEADER + ROWS, pieces=pieces)
    for a, b in zip(whole, cut, strict=True):
        assert np.array_equal(a, b)


def test_last_line_needs_no_break_and_carriage_returns_are_taken():
    assert np.array_equal(scan(HEADER + ROWS)[0], scan((HEADER + ROWS)[:-1])[0])
    assert np.array_equal(scan(HEADER + ROWS)[0], scan((HEADER + ROWS).replace("\n", "\r\n"))[0])


def test_header_alone_is_an_empty_trace():
    rows, extras, pages, text, names = scan(HEADER)
    assert (len(rows), len(extras), len(pages), text, names) == (0, 0, 0, b"", ())


def test_quotes_and_commas_in_marks():
    text = HEADER + '1,1,,mark,,,,,"say ""a, b"" now"\n2,1,,mark,,,,,\n3,1,,mark,,,,,plain, with comma\n'
    rows, extras, _, blob, _ = scan(text)
    assert len(rows) == 3
    assert blob == b'say "a, b" nowplain, with comma'
    assert extras["row"].tolist() == [0, 2]


def test_more_rows_than_expected_and_columns_start_anew():
    many = HEADER + "1,1,.....,free,10,0,,,\n" * 5000
    assert len(scan(many, expected=1)[0]) == 5000
    assert len(scan(many, expected=100_000)[0]) == 5000
    scanner = EventScanner()
    scanner.feed((HEADER + "1,1,.....,free,10,0,,,\n").encode())
    assert len(scanner.take()[0]) == 1
    scanner.feed(b"2,1,.....,free,10,0,,,\n")
    assert scanner.take()[0]["t_us"].tolist() == [2]


BAD = [
    ("x,1,.....,free,10,0,,,", "t_us"),
    ("-1,1,.....,free,10,0,,,", "t_us"),
    (",1,.....,free,10,0,,,", "t_us"),
    ("1234567890123456789,1,.....,free,10,0,,,", "t_us"),
    ("1,x,.....,free,10,0,,,", "pid"),
    ("1,4294967296,.....,free,10,0,,,", "pid"),
    ("1,1,.........,free,10,0,,,", "ctx"),
    ("1,1,.....,,10,0,,,", "event is no name"),
    ("1,1,.....,a b,10,0,,,", "event is no name"),
    (f"1,1,.....,{'n' * 65},10,0,,,", "event is no name"),
    ("1,1,.....,free,zz,0,,,", "pfn"),
    ("1,1,.....,free,ffffffff,0,,,", "pfn"),
    ("1,1,.....,free,1234567890abcdef0,0,,,", "pfn"),
    ("1,1,.....,free,10,11,,,", "order"),
    ("1,1,.....,free,10,-1,,,", "order"),
    ("1,1,.....,alloc,10,0,16,0,", "migratetype"),
    ("1,1,.....,alloc,10,0,1,65535,", "gfp_id"),
    ("1,1,.....,free,10,0", "order"),
    ("1,1,.....", "nine fields"),
    ("1,1,.....,free", "nine fields"),
    ("1", "t_us"),
    ("", "t_us"),
    ("1,1,.....,free,,0,,,", "needs a pfn"),
    ("1,1,.....,free,10,,,,", "needs an order"),
    ("1,1,.....,alloc,10,0,,0,", "needs a migratetype"),
    ("1,1,.....,alloc,10,0,1,,", "needs a gfp_id"),
    ("1,1,.....,rmqueue,10,0,,,refill", "needs a migratetype"),
    ("1,1,.....,rmqueue,10,0,1,,other", "extra"),
    ("1,1,.....,extfrag,10,0,1,,", "extra"),
    ("1,1,.....,extfrag,10,0,1,,fallback_order=11 fallback_migratetype=2 change_ownership=1", "extra"),
    ("1,1,.....,extfrag,10,0,1,,fallback_order=9 fallback_migratetype=2 change_ownership=2", "extra"),
    ("1,1,.....,extfrag,10,0,1,,fallback_order=9x fallback_migratetype=2 change_ownership=1", "extra"),
    ("1,1,.....,bulk,,,,,gfp=0x100cc0", "extra"),
    ("1,1,.....,bulk,,,,,gfp= nr=1", "extra"),
    ("1,1,.....,bulkret,,,,,pages=1+2", "extra"),
    ("1,1,.....,bulkret,,,,,ret=1 pages=1+2", "extra"),
    ("1,1,.....,bulkret,,,,,ret=2 pages=1+x", "extra"),
    ("1,1,.....,bulkret,,,,,ret=4294967294 pages=1", "extra"),
    ("1,1,.....,mm_vmscan_kswapd_wake,,0,,,nid=x", "extra"),
    ("1,1,.....,free,10,0,,,a,b", "nine fields"),
    ('1,1,.....,mark,,,,,"open', "quoted"),
    ('1,1,.....,mark,,,,,"a"b', "quoted"),
    ("1,1,.....,mark,,,,," + "x" * 70_000, "longer than 65536"),
]


@pytest.mark.parametrize(("line", "problem"), BAD)
def test_bad_lines_are_named(line, problem):
    good = "1,1,.....,free,10,0,,,\n"
    with pytest.raises(TraceFormatError, match=r"t\.csv: line 4: ") as raised:
        scan(HEADER + good * 2 + line + "\n" + good)
    assert problem in str(raised.value)
    with pytest.raises(TraceFormatError, match="line 4"):
        scan(HEADER + good * 2 + line + "\n" + good, pieces=3)
    assert issubclass(TraceFormatError, ValueError)


@pytest.mark.parametrize("text", ["", "\n", "t_us,pid\n", HEADER[1:], "\x00" * 100])
def test_other_files_are_refused(text):
    with pytest.raises(TraceFormatError, match=r"t\.csv"):
        scan(text)


def test_limits():
    good = "1,1,.....,free,10,0,,,\n"
    assert len(scan(HEADER + good * 3, max_rows=3)[0]) == 3
    with pytest.raises(TraceFormatError, match="line 5: more than 3 rows"):
        scan(HEADER + good * 4, max_rows=3)
    for bad in (0, -1, 2**32):
        with pytest.raises(ValueError, match=str(bad)):
            EventScanner(max_rows=bad)
    names = "".join(f"1,1,.....,event_{i},,,,,\n" for i in range(224))
    with pytest.raises(TraceFormatError, match="more than 223 kinds"):
        scan(HEADER + names)
    with pytest.raises(TraceFormatError, match="longer than 65536"):
        scan(HEADER + "1" * 200_000, pieces=10)
    for wrong in ("text", 5, np.zeros((2, 2), np.uint8)):
        with pytest.raises((TypeError, ValueError)):
            EventScanner().feed(wrong)
    with pytest.raises(TypeError):
        EventScanner().feed(None)


@given(st.binary(max_size=400))
@example(b"\n\n\n")
@example(b",,,,,,,,\n")
@example(b'1,1,,mark,,,,,""\n')
def test_garbage_behind_the_header(data):
    try:
        rows, *_ = scan(HEADER.encode() + data)
    except TraceFormatError as error:
        assert "line " in str(error)  # noqa: PT017
    else:
        assert len(rows) <= data.count(b"\n") + 1


@given(
    st.lists(
        st.sampled_from(["1", "ff", "alloc", "extfrag", "mark", "bulkret", "pages=", "+", '"', " ", "ret=", ",", ",,", "\n", "\r"]),
        max_size=60,
    )
)
def test_garbage_that_looks_like_a_trace(parts):
    with contextlib.suppress(TraceFormatError):
        scan(HEADER + "".join(parts))


def test_flipped_bytes_never_crash():
    rng = random.Random(1)
    base = (HEADER + ROWS * 3).encode()
    refused = 0
    for _ in range(2000):
        data = bytearray(base)
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            scan(bytes(data), pieces=rng.randint(1, 4))
        except TraceFormatError:
            refused += 1
    assert 200 < refused < 2000
