"""Merging, claiming and stealing (tests 15 to 17), and the order in which blocks stand."""

import pytest

from tests.model.shapes import filled, small_shapes
from tests.model.states import blocks_free, free_lists
from tests.reference.constants import MOVABLE, RECLAIMABLE, UNMOVABLE
from tests.reference.gfp import DMA32, GFP_KERNEL, MEMALLOC
from tests.reference.gfp import MOVABLE as GFP_MOVABLE

HIGH_WMARK = (100, 200, 2000, 2100)


def by_order(machine, mt: int) -> dict[int, list[int]]:
    return {order: pfns for (order, t), pfns in sorted(free_lists(machine).items()) if t == mt}


def test_15_head_or_tail(backend):
    machine = backend.load(blocks_free({(7, 1): [0x5480], (6, 1): [0x5600]}, {}))
    machine.tracing = True  # the pages were in use before our time
    before = {7: [0x5480], 6: [0x5600]}
    steps = [
        (2, {4: [0x5420]}),
        (0, {4: [0x5400, 0x5420]}),
        (7, {4: [0x5470, 0x5400, 0x5420]}),
        (5, {4: [0x5450, 0x5470, 0x5400, 0x5420]}),
        (3, {4: [0x5450, 0x5470, 0x5400], 5: [0x5420]}),
        (6, {4: [0x5450, 0x5400], 5: [0x5460, 0x5420]}),
        (1, {4: [0x5450], 5: [0x5460], 6: [0x5600, 0x5400]}),
        (4, {6: [0x5600], 7: [], 8: [0x5400]}),
    ]
    for chunk, expected in steps:
        assert machine.free_pages(0x5400 + 16 * chunk, 4) == 0
        expected = {order: pfns for order, pfns in (before | expected).items() if pfns}
        assert by_order(machine, MOVABLE) == expected, f"after chunk {chunk}"


def test_16_claim_of_whole_pageblocks(backend):
    machine = backend.load(blocks_free({(10, 1): [0x5400, 0x5800]}, {}, wmark=HIGH_WMARK))
    pfn = machine.alloc_pages(DMA32, 4)
    assert pfn == 0x5400
    state = machine.allocator_state()
    assert state["blocks"][0x5400 >> 9] == state["blocks"][0x5600 >> 9] == UNMOVABLE
    expected = {4: [0x5410], 5: [0x5420], 6: [0x5440], 7: [0x5480], 8: [0x5500], 9: [0x5600]}
    assert by_order(machine, UNMOVABLE) == expected
    assert by_order(machine, MOVABLE) == {10: [0x5800]}
    assert state["zones"][0, 1]["boost"] == 0
    assert machine.free_pages(pfn, 4) == 0
    assert by_order(machine, UNMOVABLE) == {10: [0x5400]}


def test_16_a_freed_block_brings_its_neighbour_over(backend):
    machine = backend.load(blocks_free({(9, 2): [0x5600]}, {0x5600 >> 9: 2}))
    machine.tracing = True
    assert machine.free_pages(0x5400, 9) == 0
    machine.drain_all_pages()
    assert free_lists(machine) == {(10, MOVABLE): [0x5400]}
    assert machine.allocator_state()["blocks"][0x5600 >> 9] == MOVABLE


def test_16_reserved_blocks_do_not_merge_with_others(backend):
    state = blocks_free({(9, 3): [0x5600]}, {0x5600 >> 9: 3})
    state["zones"][0, 1]["nr_free_highatomic"] = state["zones"][0, 1]["nr_reserved_highatomic"] = 512
    machine = backend.load(state)
    machine.tracing = True
    assert machine.free_pages(0x5400, 9) == 0
    machine.drain_all_pages()
    assert free_lists(machine) == {(9, MOVABLE): [0x5400], (9, 3): [0x5600]}


def test_17_small_blocks_are_stolen_smallest_first(backend):
    free = {(3, 0): [0x5008, 0x5208], (2, 0): [0x5404], (3, 2): [0x5608]}
    types = {0x5000 >> 9: 0, 0x5200 >> 9: 0, 0x5400 >> 9: 0, 0x5600 >> 9: 2}
    machine = backend.load(blocks_free(free, types))
    machine.tracing = True
    assert machine.alloc_pages(DMA32 | GFP_MOVABLE) == 0x5404
    assert machine.allocator_state()["zones"][0, 1]["boost"] == 0
    assert by_order(machine, UNMOVABLE) == {3: [0x5008, 0x5208], 1: [0x5406], 0: [0x5405]}
    assert [row for row in machine.take_trace() if row[0] == "extfrag"] == [("extfrag", 0x5404, 0, 1, 2, 0, 0)]
    # RECLAIMABLE comes first where both types have a block of the same order
    assert machine.alloc_pages(DMA32 | GFP_MOVABLE, 3) == 0x5608
    assert machine.counters()["fallbacks"] == {(0, 1): (0, 2)}


def pageblock_with(pfn: int, orders, mt: int) -> dict:
    """Free lists with blocks of these orders in one pageblock, none beside its buddy."""
    free, at = {}, pfn
    for order in sorted(orders, reverse=True):
        free.setdefault((order, mt), []).append(at)
        at += 2 << order
    assert at <= pfn + 512
    return free


@pytest.mark.parametrize(("orders", "tried"), [((4, 4, 4, 4, 4, 4, 2), 1), ((6, 5, 2), 2)])
def test_17_a_block_too_little_alike_is_not_claimed(backend, orders, tried):
    free = pageblock_with(0x5000, orders, UNMOVABLE)
    assert sum(1 << order for order in orders) == 100
    machine = backend.load(blocks_free(free, {0x5000 >> 9: 0}, wmark=(10, 20, 2000, 2100)))
    machine.mark_lru(0x51C0, 40, True)
    smallest = free[2, 0][0]
    assert machine.alloc_pages(DMA32 | GFP_MOVABLE) == smallest
    state = machine.allocator_state()
    assert state["zones"][0, 1]["boost"] == 512 * tried
    assert state["blocks"][0x5000 >> 9] == UNMOVABLE
    assert by_order(machine, UNMOVABLE)[1] == [smallest + 2]


@pytest.mark.parametrize(("lru", "mt"), [(156, MOVABLE), (155, UNMOVABLE)])
def test_17_a_movable_request_counts_lru_pages(backend, lru, mt):
    free = pageblock_with(0x5000, (6, 5, 2), UNMOVABLE)
    machine = backend.load(blocks_free(free, {0x5000 >> 9: 0}, wmark=(10, 20, 2000, 2100)))
    machine.mark_lru(0x5100, lru, True)
    assert machine.alloc_pages(DMA32 | GFP_MOVABLE) == free[2, 0][0]
    assert machine.allocator_state()["blocks"][0x5000 >> 9] == mt


@pytest.mark.parametrize(("lru", "claimed"), [(200, True), (256, True), (257, False)])
def test_17_an_unmovable_request_counts_the_rest_of_a_movable_block(backend, lru, claimed):
    free = pageblock_with(0x5000, (6, 5, 2), MOVABLE)
    machine = backend.load(blocks_free(free, {}, wmark=(10, 20, 2000, 2100)))
    # of the block's 512 pages 100 are free; what is neither free nor on the LRU is alike
    machine.mark_lru(0x50C8, lru, True)
    pfn = machine.alloc_pages(DMA32)
    assert pfn == free[2, 1][0]
    state = machine.allocator_state()
    assert claimed == (100 + (412 - lru) >= 256)
    assert state["blocks"][0x5000 >> 9] == (UNMOVABLE if claimed else MOVABLE)
    if claimed:
        assert by_order(machine, UNMOVABLE) == {6: free[6, 1], 5: free[5, 1], 1: [pfn + 2], 0: [pfn + 1]}
        assert state["zones"][0, 1]["boost"] == 512


def test_17_the_boost_stops_at_its_limit(backend):
    blocks = {n << 9: pageblock_with(n << 9, (4, 4), UNMOVABLE) for n in range(0x5000 >> 9, 0x6000 >> 9)}
    free = {}
    for lists in blocks.values():
        for key, pfns in lists.items():
            free.setdefault(key, []).extend(pfns)
    types = dict.fromkeys(range(0x5000 >> 9, 0x6000 >> 9), UNMOVABLE)
    machine = backend.load(blocks_free(free, types, wmark=(10, 20, 600, 700)))
    boosts = []
    for _ in range(4):
        assert machine.alloc_pages(DMA32 | GFP_MOVABLE | MEMALLOC, 4) >= 0
        boosts.append(machine.allocator_state()["zones"][0, 1]["boost"])
    # 600 * 15000 / 10000
    assert boosts == [512, 900, 900, 900]


def test_a_kswapd_run_takes_back_the_boost_it_began_with(backend):
    state = blocks_free({(4, 0): [0x5000]}, {0x5000 >> 9: 0}, wmark=(10, 20, 2000, 2100))
    state["zones"][0, 1]["boost"] = 600
    machine = backend.load(state)
    machine.kswapd_begin(0)
    assert machine.allocator_state()["zones"][0, 1]["flags"] & 2
    assert machine.alloc_pages(DMA32 | GFP_MOVABLE | MEMALLOC, 4) == 0x5000
    assert machine.allocator_state()["zones"][0, 1]["boost"] == 1112
    machine.kswapd_end(0)
    row = machine.allocator_state()["zones"][0, 1]
    assert (row["boost"], row["flags"] & 2) == (512, 0)


def test_a_boosted_zone_wakes_kswapd_at_the_next_allocation(backend):
    free = pageblock_with(0x5000, (4, 4), UNMOVABLE)
    machine = backend.load(blocks_free(free, {0x5000 >> 9: 0}, wmark=(0, 0, 2000, 2100)))
    assert machine.counters()["kswapd"][0][4] == 0
    machine.alloc_pages(DMA32 | GFP_MOVABLE | 0x800, 4)
    # the same allocation sees the flag, clears it and wakes
    wanted, _, order, hidx, wakeups = machine.counters()["kswapd"][0]
    assert (wanted, order, hidx, wakeups) == (True, 0, 1, 1)
    assert not machine.allocator_state()["zones"][0, 1]["flags"] & 1


def test_boot_lists_ascend(backend):
    state = backend.boot(small_shapes()["two_cpus"]).allocator_state()
    for zone in state["zones"].values():
        for pfns in zone["free"].values():
            assert list(pfns) == sorted(pfns)
    # page 0 is no memory: its pageblock never became MOVABLE
    assert state["blocks"][0] == UNMOVABLE
    assert set(state["blocks"].values()) == {UNMOVABLE, MOVABLE}
    assert {mt for zone in state["zones"].values() for _, mt in zone["free"]} <= {UNMOVABLE, MOVABLE}
    assert RECLAIMABLE not in state["blocks"].values()


def test_first_allocations_come_from_the_lowest_addresses(backend):
    machine = backend.boot(filled(100 * 1024))
    assert [machine.alloc_pages(GFP_KERNEL | GFP_MOVABLE) for _ in range(8)] == list(range(4096, 4104))
