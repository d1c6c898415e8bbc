"""Free blocks by number become blocks at addresses, legally, whatever the numbers."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmpy.proc.infer_layout import lay_free_blocks, top_blocks, used_pages
from tests.core.proc_cases import check_lists

MOVABLE, UNMOVABLE, RECLAIMABLE, HIGHATOMIC = 1, 0, 2, 3


def judge(memory, free, types, managed=None):
    """check_lists() on one zone of these spans."""
    present = sum(end - start for start, end in memory)
    row = {
        "name": "Normal", "present": present, "managed": managed or present, "spanned": memory[-1][1] - memory[0][0],
        "free": free, "pcp": {},
        "nr_free": tuple(sum(len(p) for (o, _), p in free.items() if o == order) for order in range(11)),
        "nr_free_pages": sum(len(p) << o for (o, mt), p in free.items() if mt != 4),
    }  # fmt: skip
    ranges = [SimpleNamespace(node=0, zid=2, start_pfn=start, end_pfn=end) for start, end in memory]
    check_lists(SimpleNamespace(state={"zones": {(0, 2): row}, "blocks": types}, memory=ranges, arch="x86_64"))


@st.composite
def spans(draw):
    """One to three ascending ranges of page frames with holes between them, of up to some 20 MiB."""
    out, at = [], draw(st.integers(1, 3000))
    for _ in range(draw(st.integers(1, 3))):
        length = draw(st.integers(1, 5000))
        out.append((at, at + length))
        at += length + draw(st.integers(1, 3000))
    return out


COUNTS = st.dictionaries(st.tuples(st.integers(0, 10), st.integers(0, 4)), st.integers(1, 12), max_size=30)


@given(memory=spans(), counts=COUNTS, wanted=st.none() | st.lists(st.integers(0, 12), min_size=5, max_size=5))
def test_any_numbers_give_a_legal_layout(memory, counts, wanted):
    types: dict[int, int] = {}
    layout = lay_free_blocks(memory, counts, types, wanted)
    judge(memory, layout.free, types)
    placed = {key: len(pfns) for key, pfns in layout.free.items()}
    assert all(placed.get(key, 0) <= count for key, count in counts.items())
    asked = sum(count << order for (order, _), count in counts.items())
    assert sum(count << order for (order, _), count in placed.items()) + layout.dropped == asked


@given(memory=spans(), data=st.data())
def test_every_legal_state_of_one_type_can_be_laid_out(memory, data):
    """What was free somewhere in this memory finds a place again: blocks drawn from it at random, buddies never both."""
    present = sum(end - start for start, end in memory)
    blocks = {pfn: order for order, pfns in top_blocks(memory, present).items() for pfn in pfns}
    for _ in range(data.draw(st.integers(0, 40))):
        pfn = data.draw(st.sampled_from(sorted(blocks)))
        order = blocks.pop(pfn)
        if order and data.draw(st.booleans()):
            # Its first page stays in use, the rest is freed in pieces.
            blocks |= {pfn + (1 << o): o for o in range(order)}
        if not blocks:
            break
    blocks = {p: o for p, o in blocks.items() if o == 10 or blocks.get(p ^ (1 << o)) != o}
    counts: dict[tuple[int, int], int] = {}
    for order in blocks.values():
        counts[order, MOVABLE] = counts.get((order, MOVABLE), 0) + 1
    types: dict[int, int] = {}
    layout = lay_free_blocks(memory, counts, types, None)
    judge(memory, layout.free, types)
    # Pieces of order 10 are preferred as such; nothing else may get lost.
    assert layout.dropped == 0


def test_addresses_ascend_and_the_smallest_gap_is_used():
    types: dict[int, int] = {}
    layout = lay_free_blocks([(4096, 8192)], {(10, MOVABLE): 2, (9, MOVABLE): 1, (3, MOVABLE): 1}, types, None)
    assert layout.free == {(10, 1): [4096, 5120], (9, 1): [6144], (3, 1): [6144 + 512]}
    assert set(types.values()) == {MOVABLE}


def test_pageblocks_have_the_types_asked_for():
    types: dict[int, int] = {}
    counts = {(9, UNMOVABLE): 1, (10, MOVABLE): 2, (0, RECLAIMABLE): 3, (5, HIGHATOMIC): 1}
    layout = lay_free_blocks([(4096, 4096 + 8 * 512)], counts, types, (2, 4, 1, 1, 0))
    assert sorted(types.values()) == [0, 0, 1, 1, 1, 1, 2, 3]
    assert (layout.dropped, layout.retyped) == (0, 0)
    judge([(4096, 4096 + 8 * 512)], layout.free, types)


def test_a_type_without_room_takes_unused_pageblocks_of_another():
    types: dict[int, int] = {}
    layout = lay_free_blocks([(4096, 8192)], {(9, RECLAIMABLE): 2, (10, MOVABLE): 1}, types, (0, 8, 0, 0, 0))
    assert (layout.dropped, layout.retyped) == (0, 4)
    judge([(4096, 8192)], layout.free, types)


def test_buddies_of_two_types_are_never_both_free():
    # Two pageblocks in one aligned pair, a free block of order 9 for each: they would have merged.
    types: dict[int, int] = {}
    layout = lay_free_blocks([(4096, 5120)], {(9, UNMOVABLE): 1, (9, MOVABLE): 1}, types, (1, 1, 0, 0, 0))
    assert layout.dropped == 512
    judge([(4096, 5120)], layout.free, types)


def test_more_than_there_is_room_for_is_left_out_and_counted():
    types: dict[int, int] = {}
    layout = lay_free_blocks([(4096, 6144)], {(10, MOVABLE): 3}, types, None)
    assert (len(layout.free[10, MOVABLE]), layout.dropped) == (2, 1024)


@given(memory=spans(), data=st.data())
def test_top_blocks_are_the_last_pages_in_the_largest_blocks(memory, data):
    present = sum(end - start for start, end in memory)
    pages = data.draw(st.integers(0, present))
    blocks = top_blocks(memory, pages)
    free = {(order, MOVABLE): pfns for order, pfns in blocks.items()}
    types = dict.fromkeys(range(memory[-1][1] // 512 + 1), MOVABLE)
    judge(memory, free, types)
    assert sum(len(pfns) << order for order, pfns in blocks.items()) == pages
    used = list(used_pages(memory, free))
    assert sum(end - start for start, end in used) == present - pages
    if pages and used:
        assert used[-1][1] <= min(min(pfns) for pfns in blocks.values())


@pytest.mark.parametrize("memory", [[(4096, 4096 + 512)], [(1, 2)], [(1023, 1025)]])
def test_tiny_zones(memory):
    types: dict[int, int] = {}
    layout = lay_free_blocks(memory, {(0, MOVABLE): 1, (9, MOVABLE): 1}, types, (1, 1, 1, 1, 1))
    judge(memory, layout.free, types)
