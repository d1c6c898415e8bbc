"""Snapshot texts: what they mean, and what is refused."""

import contextlib
import random
from pathlib import Path

import pytest

from mmpy.traces import TraceFormatError, parse_state

SMALL = Path(__file__).parents[1] / "golden" / "trace_small" / "state0.start.txt"


def test_every_field():
    state = parse_state(SMALL.read_text())
    assert set(state["zones"]) == {(0, 0), (0, 1)}
    zone = state["zones"][0, 1]
    assert zone["name"] == "DMA32"
    assert (zone["start_pfn"], zone["spanned"], zone["present"], zone["managed"]) == (0x1000, 61396, 61396, 50596)
    assert zone["wmark"] == (430, 537, 644, 751)
    assert zone["boost"] == 512
    assert zone["lowmem_reserve"] == (0, 0, 0, 0, 0)
    assert (zone["nr_free_pages"], zone["flags"], zone["nr_reserved_highatomic"], zone["nr_free_highatomic"]) == (1275, 4, 0, 0)
    assert zone["free"] == {(0, 1): [0x1021], (7, 2): [0x1480, 0x1580], (9, 2): [0x1200, 0x2600]}
    assert zone["nr_free"] == (1, 0, 0, 0, 0, 0, 0, 2, 0, 2, 0)
    pcp = zone["pcp"][0]
    # what the lists hold more than the global counter says
    assert pcp["diff"] == 1 + 2 * 128 + 2 * 512 - 1275
    assert pcp["lists"] == {1: [0x1000, 0x1001, 0x1002], 3: [0x1004], 8: [0x1008]}
    assert {k: pcp[k] for k in ("count", "high", "batch", "alloc_factor", "free_count", "flags", "expire")} == {
        "count": 9, "high": 6324, "batch": 15, "alloc_factor": 5, "free_count": 7, "flags": 2, "expire": 0,
    }  # fmt: skip
    assert state["blocks"][8] == 1
    assert state["blocks"][9] == 2
    assert state["skip"] == [9]
    assert state["compact"][0, 1]["considered"] == 1
    assert state["compact"][0, 0]["cached_migrate"] == (0, 0)


def test_blocks_outside_of_every_zone_are_left_out():
    text = SMALL.read_text()
    # zone DMA32 ends at page 0xffd4, in block 0x7f
    assert max(parse_state(text)["blocks"]) == 0x7F
    assert max(parse_state(text + "blocks 10000:1111\n")["blocks"]) == 0x7F


BAD = [
    ("", "no zone line"),
    ("nonsense\n", "no kind of line"),
    ("free 0 1 0 1: 1021\n", "no zone line before"),
    ("zone 0 0 DMA start_pfn=1\n", "spanned= is missing"),
    ("zone 0\n", "needs node"),
    ("zone 0 5 DMA start_pfn=1\n", "zone 5"),
    ("zone x 0 DMA start_pfn=1\n", "node 'x'"),
]
EDITS = [
    ("start_pfn=1000", "start_pfn=xyz", "start_pfn 'xyz'"),
    ("start_pfn=1000", "start_pfn=100000000", "out of range"),
    ("spanned=61396", "spanned=-1", "do not fit"),
    ("managed=50596", "managed=99999", "do not fit"),
    ("wmark=430,537,644,751", "wmark=430,537", "wmark has 2"),
    ("wmark=430", "wmark=1_0", "is no number"),
    ("boost=512", "boost=", "is no number"),
    ("boost=512", "boost", "not key=value"),
    ("free 0 1 0 1: 1021", "free 0 1 11 1: 1021", "order 11"),
    ("free 0 1 0 1: 1021", "free 0 1 0 5: 1021", "migratetype 5"),
    ("free 0 1 0 1: 1021", "free 0 1 0: 1021", "needs node, zone, order"),
    ("free 0 1 0 1: 1021", "free 0 1 0 1: 1021\nfree 0 1 0 1: 1022", "comes twice"),
    ("free 0 1 0 1: 1021", "free 0 1 0 1: g", "no hexadecimal pfn"),
    ("free 0 1 0 1: 1021", "free 0 1 0 1: fff", "outside of zone DMA32"),
    ("free 0 1 0 1: 1021", "free 0 1 0 1: ffd4", "outside of zone DMA32"),
    ("1480 1580", "1480 1500 1540", "not aligned"),
    ("nr_free 0 1 0 1", "nr_free 0 1 0 2", "nr_free says 2"),
    ("count=9", "count=8", "count says 8"),
    ("pcp 0 1 cpu=0", "pcp 0 1 cpu=9999", "cpu 9999"),
    ("pcplist 0 1 0 1: 1000", "pcplist 0 1 1 1: 1000", "no pcp line"),
    ("pcplist 0 1 0 1: 1000", "pcplist 0 1 0 14: 1000", "list 14"),
    ("pcplist 0 1 0 3: 1004", "pcplist 0 1 0 1: 1004", "comes twice"),
    ("blocks 1000:1a20", "blocks 1001:1a20", "not the start of a page block"),
    ("blocks 1000:1a20", "blocks 1000:1g20", "block type"),
    ("blocks 1000:1a20", "blocks 1000:1720", "block type 7"),
]


@pytest.mark.parametrize(("text", "problem"), BAD)
def test_other_texts_are_refused(text, problem):
    with pytest.raises(TraceFormatError, match=r"s\.txt") as raised:
        parse_state(text, "s.txt")
    assert problem in str(raised.value)


@pytest.mark.parametrize(("old", "new", "problem"), EDITS)
def test_damage_is_named(old, new, problem):
    text = SMALL.read_text()
    assert old in text
    with pytest.raises(TraceFormatError, match=r"s\.txt") as raised:
        parse_state(text.replace(old, new), "s.txt")
    assert problem in str(raised.value)


def test_zone_twice():
    text = SMALL.read_text()
    with pytest.raises(TraceFormatError, match="comes twice"):
        parse_state(text + text.splitlines()[0] + "\n")


def test_flipped_characters_never_crash():
    rng = random.Random(2)
    base = SMALL.read_text()
    for _ in range(1500):
        text = list(base)
        for _ in range(rng.randint(1, 3)):
            text[rng.randrange(len(text))] = rng.choice("0123456789abcdefg=: ,-\n_²")
        with contextlib.suppress(TraceFormatError):
            parse_state("".join(text))
    for cut in range(0, len(base), 7):
        with contextlib.suppress(TraceFormatError):
            parse_state(base[:cut])
