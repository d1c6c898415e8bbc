"""Requests and frees one at a time: what is refused, which zone serves, what references, splits and bulk forms do."""

import pytest

from tests.model.shapes import FOUR_GIB, filled, small_shapes
from tests.model.states import free_lists, pages_free
from tests.reference import gfp
from tests.reference.constants import TASK_MEMALLOC, TASK_PIN

EINVAL, ENOMEM, ERANGE = -22, -12, -34
NOT_ALLOCATED, RESERVED, WRONG_ORDER, TAIL, BAD_PAGE = -1001, -1002, -1003, -1004, -1005


def booted(backend, name: str):
    return backend.boot(small_shapes()[name])


def zone_of(machine, pfn: int) -> tuple:
    zones = machine.allocator_state()["zones"]
    return next(key for key, z in zones.items() if z["start_pfn"] <= pfn < z["start_pfn"] + z["spanned"])


def exhaust(machine, mask: int, order: int, wanted) -> list[int]:
    """Allocate until a page comes that is not wanted; that one goes back."""
    pages = []
    while (pfn := machine.alloc_pages(mask, order)) >= 0 and wanted(pfn):
        pages.append(pfn)
    if pfn >= 0:
        assert machine.free_pages(pfn, order) == 0
    return pages


# refusals


@pytest.mark.parametrize("low4", [3, 5, 6, 7, 11, 13, 14, 15])
def test_zone_modifiers_exclude_each_other(backend, low4):
    assert booted(backend, "one_zone").alloc_pages(gfp.GFP_KERNEL | low4) == EINVAL


@pytest.mark.parametrize(
    "request_", [(gfp.MOVABLE | gfp.RECLAIMABLE, 0), (0x200, 0), (1 << 25, 0), (gfp.GFP_KERNEL, 11), (gfp.GFP_KERNEL, 0, 1), (0, 0, 0, 1)]
)
def test_bad_requests_change_nothing(backend, request_):
    machine = booted(backend, "one_zone")
    before = machine.allocator_state(), machine.counters()
    assert machine.alloc_pages(*request_) == EINVAL
    assert (machine.allocator_state(), machine.counters()) == before


def test_bad_frees_change_nothing(backend):
    machine = booted(backend, "one_zone")
    block = machine.alloc_pages(gfp.GFP_KERNEL, 3)
    given_back = machine.alloc_pages(gfp.GFP_KERNEL, 4)
    assert machine.free_pages(given_back, 4) == 0
    before = machine.allocator_state(), machine.counters()
    top = max(z["start_pfn"] + z["spanned"] for z in before[0]["zones"].values())
    refused = [
        ((block, 11), EINVAL),
        ((block, 3, 1), EINVAL),
        ((top, 0), ERANGE),
        ((0, 0), RESERVED),  # no memory
        ((0xA0, 0), RESERVED),  # hole below 1 MiB
        ((0x1001, 0), RESERVED),  # reserved at boot
        ((given_back, 4), NOT_ALLOCATED),
        ((given_back + 1, 0), NOT_ALLOCATED),
        ((block + 1, 0), TAIL),
        ((block + 4, 2), TAIL),
        ((block, 2), WRONG_ORDER),
        ((block, 4), WRONG_ORDER),
    ]
    for arguments, code in refused:
        assert machine.free_pages(*arguments) == code, arguments
    assert (machine.allocator_state(), machine.counters()) == before
    assert machine.free_pages(block, 3) == 0
    assert machine.free_pages(block, 3) == NOT_ALLOCATED  # it stands on a per-CPU list now


def test_a_page_on_the_lru_cannot_be_freed(backend):
    machine = booted(backend, "one_zone")
    pfn = machine.alloc_pages(gfp.GFP_HIGHUSER_MOVABLE)
    machine.mark_lru(pfn, 1, True)
    assert machine.free_pages(pfn) == BAD_PAGE
    machine.mark_lru(pfn, 1, False)
    assert machine.free_pages(pfn) == 0


# references, splits, exact sizes


def test_a_speculative_reference_keeps_only_the_first_page(backend):
    machine = backend.load(pages_free(1024))
    pfn = machine.alloc_pages(gfp.DMA32 | gfp.MEMALLOC, 6)
    assert machine.get_page(pfn) == 0
    assert machine.free_pages(pfn, 6) == 0
    assert machine.free_pages(pfn, 6) == WRONG_ORDER
    assert machine.free_pages(pfn + 32, 5) == NOT_ALLOCATED
    machine.drain_all_pages()
    lists = free_lists(machine)
    assert [order for order in range(6) if pfn + (1 << order) in lists.get((order, 0), ())] == list(range(6))
    assert machine.free_pages(pfn) == 0
    machine.drain_all_pages()
    assert free_lists(machine) == {(10, 0): [pfn]}


def test_a_compound_block_waits_for_its_last_reference(backend):
    machine = backend.load(pages_free(1024))
    pfn = machine.alloc_pages(gfp.DMA32 | gfp.MEMALLOC | gfp.COMP, 6)
    before = free_lists(machine)
    assert machine.get_page(pfn) == 0
    assert machine.free_pages(pfn, 6) == 0
    assert free_lists(machine) == before
    assert machine.free_pages(pfn, 6) == 0
    assert free_lists(machine) == {(10, 0): [pfn]}


def test_split_page(backend):
    machine = backend.load(pages_free(1024))
    pfn = machine.alloc_pages(gfp.DMA32 | gfp.MEMALLOC, 5)
    assert machine.split_page(pfn, 4) == WRONG_ORDER
    assert machine.split_page(pfn, 5) == 0
    assert machine.free_pages(pfn, 5) == WRONG_ORDER
    assert [machine.free_pages(pfn + i) for i in range(32)] == [0] * 32
    compound = machine.alloc_pages(gfp.DMA32 | gfp.MEMALLOC | gfp.COMP, 4)
    assert machine.split_page(compound, 4) == BAD_PAGE
    assert machine.split_page(compound + 1, 0) == TAIL


def test_exact_sizes_give_the_rest_back_to_the_tails(backend):
    machine = backend.load(pages_free(2048))
    pfn = machine.alloc_pages_exact(69, gfp.DMA32 | gfp.MEMALLOC)
    lists = free_lists(machine)
    # 128 pages were taken; 59 went back one by one, merging
    assert lists[0, 0] == [pfn + 69]
    assert lists[1, 0] == [pfn + 70]
    assert lists[3, 0] == [pfn + 72]
    assert lists[4, 0] == [pfn + 80]
    assert lists[5, 0] == [pfn + 96]
    assert machine.counters()["events"] == {"pgalloc_dma32": 128, "pgfree": 59}
    for i in range(69):
        assert machine.free_pages(pfn + i) == 0
    machine.drain_all_pages()
    assert sorted(free_lists(machine)[10, 0]) == [pfn, pfn + 1024]


@pytest.mark.parametrize(("nr", "mask"), [(0, 0), (1025, 0), (4, gfp.COMP), (4, gfp.HIGHMEM)])
def test_exact_sizes_that_are_refused(backend, nr, mask):
    assert booted(backend, "one_zone").alloc_pages_exact(nr, gfp.GFP_KERNEL | mask) == EINVAL


# bulk


def test_bulk_takes_from_the_head_of_the_list(backend):
    machine, other = (backend.boot(filled(108399)) for _ in range(2))
    singles = [other.alloc_pages(gfp.GFP_KERNEL) for _ in range(100)]
    assert machine.alloc_pages_bulk(100, gfp.GFP_KERNEL) == singles
    assert machine.counters()["numa"] == {(0, 1): (100, 0, 0, 0, 100, 0)}


def test_bulk_leaves_free_count_alone(backend):
    machine = backend.boot(filled(108399))
    for pfn in [machine.alloc_pages(gfp.GFP_KERNEL) for _ in range(100)]:
        assert machine.free_pages(pfn) == 0

    def free_count() -> int:
        return machine.allocator_state()["zones"][0, 1]["pcp"][0]["free_count"]

    before = free_count()
    assert before > 2
    assert len(machine.alloc_pages_bulk(10, gfp.GFP_KERNEL)) == 10
    assert free_count() == before
    assert len(machine.alloc_pages_bulk(1, gfp.GFP_KERNEL)) == 1  # the ordinary way
    assert free_count() == before // 2


def test_bulk_falls_back_to_one_page(backend):
    # above low by less than was asked for
    for free, got in ((13855 + 64 + 1, 64), (13855 + 64, 1)):
        machine = backend.load(pages_free(free, wmark=(11084, 13855, 16626, 19397), batch=63))
        assert len(machine.alloc_pages_bulk(64, gfp.DMA32)) == got
    assert machine.alloc_pages_bulk(0, gfp.DMA32) == []
    assert machine.alloc_pages_bulk(3, 0x3) == EINVAL
    assert backend.load(pages_free(100, wmark=(11084, 13855, 16626, 19397))).alloc_pages_bulk(9, gfp.DMA32) == []


def test_bulk_stays_on_the_preferred_node(backend):
    machine = booted(backend, "medium_nodes")
    exhaust(machine, gfp.GFP_KERNEL | gfp.THISNODE, 3, lambda _: True)
    pages = machine.alloc_pages_bulk(16, gfp.GFP_KERNEL)
    assert len(pages) == 1
    assert zone_of(machine, pages[0])[0] == 1


# which zone serves


def test_a_zone_is_an_upper_bound(backend):
    machine = booted(backend, "three_zones")
    zones = {
        gfp.GFP_KERNEL: 2,
        gfp.GFP_KERNEL | gfp.MOVABLE: 2,
        gfp.GFP_HIGHUSER: 2,
        gfp.GFP_HIGHUSER_MOVABLE: 2,
        gfp.GFP_KERNEL | gfp.DMA32: 1,
        gfp.GFP_KERNEL | gfp.DMA32 | gfp.MOVABLE: 1,
        gfp.GFP_KERNEL | gfp.DMA: 0,
        gfp.GFP_KERNEL | gfp.DMA | gfp.MOVABLE: 0,
    }
    for mask, zid in zones.items():
        assert zone_of(machine, machine.alloc_pages(mask))[1] == zid, hex(mask)


def test_only_movable_user_pages_reach_the_movable_zone(backend):
    machine = booted(backend, "movable")
    assert zone_of(machine, machine.alloc_pages(gfp.GFP_HIGHUSER_MOVABLE))[1] == 3
    assert zone_of(machine, machine.alloc_pages(gfp.GFP_KERNEL | gfp.MOVABLE))[1] == 1
    # a long-term pin keeps out of it
    assert zone_of(machine, machine.alloc_pages(gfp.GFP_HIGHUSER_MOVABLE, task=TASK_PIN))[1] == 1


def test_i386_zones(backend):
    machine = booted(backend, "i386")
    for mask, zid in ((gfp.GFP_KERNEL, 1), (gfp.GFP_KERNEL | gfp.DMA32, 1), (gfp.GFP_HIGHUSER, 2), (gfp.GFP_KERNEL | gfp.DMA, 0)):
        assert zone_of(machine, machine.alloc_pages(mask))[1] == zid, hex(mask)
    assert machine.counters()["numa"] == {}


def normal_in_halves(machine) -> None:
    """Leave Normal half free, with MOVABLE blocks below order 9 only."""
    blocks = exhaust(machine, gfp.GFP_HIGHUSER_MOVABLE | gfp.NOMEMALLOC, 8, lambda pfn: pfn >= FOUR_GIB)
    singles = exhaust(machine, gfp.GFP_HIGHUSER_MOVABLE, 0, lambda pfn: pfn >= FOUR_GIB)
    assert singles
    for pfn in blocks:
        if not pfn >> 8 & 1:
            assert machine.free_pages(pfn, 8) == 0
    machine.drain_all_pages()
    machine.tick(0)


def test_mixing_types_comes_after_lower_zones(backend):
    machine = booted(backend, "three_zones")
    normal_in_halves(machine)
    assert all(order < 9 and mt == 1 for order, mt in machine.allocator_state()["zones"][0, 2]["free"])
    assert machine.alloc_pages(gfp.GFP_KERNEL) < FOUR_GIB
    assert machine.alloc_pages(gfp.GFP_KERNEL | gfp.MOVABLE) >= FOUR_GIB
    # when nothing is left below, Normal is fragmented after all
    exhaust(machine, gfp.GFP_KERNEL | gfp.DMA32 | gfp.MEMALLOC, 0, lambda _: True)
    assert machine.alloc_pages(gfp.GFP_KERNEL) >= FOUR_GIB
    assert (0, 2) in machine.counters()["fallbacks"]


def test_nodes_and_their_counters(backend):
    machine = booted(backend, "two_nodes")
    here, there = machine.alloc_pages(gfp.GFP_KERNEL, cpu=0), machine.alloc_pages(gfp.GFP_KERNEL, cpu=0, nid=1)
    assert (zone_of(machine, here), zone_of(machine, there)) == ((0, 1), (1, 2))
    assert machine.counters()["numa"] == {(0, 1): (1, 0, 0, 0, 1, 0), (1, 2): (1, 0, 0, 0, 0, 1)}
    exhaust(machine, gfp.GFP_KERNEL | gfp.THISNODE, 0, lambda _: True)
    assert machine.alloc_pages(gfp.GFP_KERNEL | gfp.THISNODE) == ENOMEM
    before = machine.counters()["numa"]
    pfn = machine.alloc_pages(gfp.GFP_KERNEL)
    assert zone_of(machine, pfn) == (1, 2)
    after = machine.counters()["numa"]
    assert after[1, 2] == tuple(a + b for a, b in zip(before[1, 2], (0, 1, 0, 0, 0, 1), strict=True))
    assert after[0, 1] == tuple(a + b for a, b in zip(before[0, 1], (0, 0, 1, 0, 0, 0), strict=True))


def test_below_high_is_noted_and_forgotten(backend):
    machine = backend.load(pages_free(400, wmark=(100, 200, 300, 400), batch=1))

    def below() -> bool:
        return bool(machine.allocator_state()["zones"][0, 1]["flags"] & 4)

    pages = []
    while not below():
        pages.append(machine.alloc_pages(gfp.DMA32, 4))
    # the request that found high out of reach: 400 - 16 n - 15 <= 300
    assert len(pages) == 7
    for pfn in pages:
        assert machine.free_pages(pfn, 4) == 0
    assert below()  # only a drain looks again
    for pfn in [machine.alloc_pages(gfp.DMA32) for _ in range(9)]:
        assert machine.free_pages(pfn) == 0
    assert not below()


def test_without_mobility_grouping_all_is_unmovable(backend):
    machine = booted(backend, "no_mobility")
    pfn = machine.alloc_pages(gfp.GFP_HIGHUSER_MOVABLE, 4)
    assert machine.allocator_state()["blocks"][pfn >> 9] == 0


# kswapd


def test_kswapd_is_woken_below_low_and_sleeps_until_it_ran(backend):
    machine = backend.load(pages_free(250, wmark=(100, 200, 300, 400)))
    assert machine.alloc_pages(gfp.DMA32 | gfp.KSWAPD_RECLAIM, 4) >= 0
    assert machine.counters()["kswapd"] == [(False, False, 0, 0, 0)]
    for _ in range(4):
        assert machine.alloc_pages(gfp.DMA32 | gfp.KSWAPD_RECLAIM, 4) >= 0
    assert machine.counters()["kswapd"] == [(True, False, 4, 1, 1)]
    machine.kswapd_begin(0)
    assert machine.counters()["kswapd"] == [(False, True, 0, 0, 1)]
    assert machine.alloc_pages(gfp.DMA32 | gfp.KSWAPD_RECLAIM, 3) >= 0
    machine.kswapd_end(0)
    wanted, running, *_, wakeups = machine.counters()["kswapd"][0]
    assert (wanted, running, wakeups) == (False, False, 1)


def test_requests_without_kswapd_reclaim_wake_no_one(backend):
    machine = backend.load(pages_free(150, wmark=(100, 200, 300, 400)))
    assert machine.alloc_pages(gfp.DMA32, task=TASK_MEMALLOC) >= 0
    assert machine.counters()["kswapd"] == [(False, False, 0, 0, 0)]
