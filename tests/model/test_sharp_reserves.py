"""Which request may take the last pages (tests 13 and 14)."""

import pytest

from tests.model.states import blocks_free, free_lists, pages_free, zone
from tests.reference.constants import TASK_INTERRUPT, TASK_MEMALLOC, TASK_OOM_VICTIM, TASK_RT
from tests.reference.gfp import (
    DIRECT_RECLAIM,
    DMA32,
    GFP_ATOMIC,
    GFP_KERNEL,
    HIGH,
    KSWAPD_RECLAIM,
    MEMALLOC,
    NOFAIL,
    NOMEMALLOC,
)

ENOMEM = -12
WMARK = (11084, 13855, 16626, 19397)
NEVER, ALWAYS = 1 << 20, 0

# (mask, task, highatomic pages free, free pages from which an order-5 request succeeds)
FAIL_POINTS = [
    (0, 0, 0, 11116),
    (KSWAPD_RECLAIM, 0, 0, 11116),
    (GFP_KERNEL, 0, 0, 11116),
    (HIGH, 0, 0, 4189),
    (HIGH | NOMEMALLOC, 0, 0, 5574),
    (HIGH | DIRECT_RECLAIM, 0, 0, 5574),
    (NOMEMALLOC, 0, 2560, 13676),
    (NOMEMALLOC, TASK_MEMALLOC, 2560, 13676),
    (GFP_KERNEL, TASK_OOM_VICTIM, 0, 5574),
    (GFP_KERNEL | NOMEMALLOC, TASK_OOM_VICTIM, 0, 11116),
    (GFP_KERNEL, TASK_OOM_VICTIM | TASK_INTERRUPT, 0, 11116),
    (GFP_KERNEL, TASK_RT, 0, 5574),
    (KSWAPD_RECLAIM, TASK_RT, 0, 11116),
    (GFP_KERNEL | NOFAIL, 0, 0, 5574),
]


@pytest.mark.parametrize(("gfp", "task", "highatomic", "point"), FAIL_POINTS)
def test_13_fail_points(backend, gfp, task, highatomic, point):
    for free, enough in ((point, True), (point - 1, False)):
        state = pages_free(free - highatomic, highatomic=highatomic // 512, wmark=WMARK)
        machine = backend.load(state)
        pfn = machine.alloc_pages(gfp | DMA32, 5, task=task)
        assert (pfn >= 0) == enough, (free, pfn)
        assert enough or pfn == ENOMEM


@pytest.mark.parametrize(("gfp", "point"), [(0, 11596 + 32), (HIGH | NOMEMALLOC, 5798 + 32), (HIGH, 4349 + 32)])
def test_13_the_boost_counts_for_orders_above_0(backend, gfp, point):
    for free, enough in ((point, True), (point - 1, False)):
        state = pages_free(free, wmark=WMARK)
        zone(state)["boost"] = 512
        pfn = backend.load(state).alloc_pages(gfp | DMA32, 5)
        assert (pfn >= 0) == enough


def test_13_order_0_of_the_min_reserve_may_go_below_the_boost(backend):
    for gfp, point in ((HIGH | NOMEMALLOC, 5542 + 1), (0, 11596 + 1)):
        for free, enough in ((point, True), (point - 1, False)):
            state = pages_free(free, wmark=WMARK)
            zone(state)["boost"] = 512
            assert (backend.load(state).alloc_pages(gfp | DMA32) >= 0) == enough


def test_13_protection_is_never_reduced(backend):
    for gfp, point in ((0, 11116 + 934), (HIGH, 4189 + 934)):
        for free, enough in ((point, True), (point - 1, False)):
            state = pages_free(free, wmark=WMARK)
            zone(state)["lowmem_reserve"] = (0, 0, 934, 934, 934)
            # a request that might have used Normal finds DMA32 protected; one for DMA32 does not
            assert (backend.load(state).alloc_pages(gfp, 5) >= 0) == enough
            assert backend.load(state).alloc_pages(gfp | DMA32, 5) >= 0


@pytest.mark.parametrize(("gfp", "task"), [(MEMALLOC, 0), (GFP_KERNEL, TASK_MEMALLOC)])
def test_13_memalloc_takes_all_but_the_highatomic_pages(backend, gfp, task):
    machine = backend.load(pages_free(1000, highatomic=1, wmark=WMARK))
    taken = 0
    while machine.alloc_pages(gfp | DMA32, 3, task=task) >= 0:
        taken += 8
    assert taken == 1000
    assert list(free_lists(machine)) == [(9, 3)]


def test_an_oom_victim_may_use_highatomic_pages(backend):
    state = pages_free(0x300, highatomic=2, wmark=(64, 80, 96, 112))
    machine = backend.load(state)
    assert machine.alloc_pages(DMA32, 10) == ENOMEM
    taken = 0
    while machine.alloc_pages(DMA32, 5, task=TASK_OOM_VICTIM) >= 0:
        taken += 32
    # half of min stays: 1792 free, the last success at more than 32 + 31
    assert taken > 0x300
    assert free_lists(machine).get((9, 3)) is None


def test_14_the_limit_is_tested_before_adding(backend):
    machine = backend.load(pages_free(13 * 1024, wmark=WMARK, managed=239248))
    reserved = []
    for _ in range(4):
        assert machine.alloc_pages(GFP_ATOMIC, 10) >= 0
        reserved.append(machine.allocator_state()["zones"][0, 1]["nr_reserved_highatomic"])
    assert reserved == [1024, 2048, 3072, 3072]


@pytest.mark.parametrize("batch", [1, 63])
def test_14_order_3_stops_at_the_limit(backend, batch):
    machine = backend.load(pages_free(13 * 1024, wmark=WMARK, managed=239248, batch=batch))
    for _ in range(40 * 7):
        assert machine.alloc_pages(GFP_ATOMIC, 3) >= 0
    row = machine.allocator_state()["zones"][0, 1]
    assert row["nr_reserved_highatomic"] == 2560
    free = sum(len(pfns) << order for (order, mt), pfns in row["free"].items() if mt == 3)
    assert row["nr_free_highatomic"] == free
    assert free > 0


@pytest.mark.parametrize(("managed", "limit"), [(51199, 0), (51200, 512)])
def test_14_small_zones_never_reserve(backend, managed, limit):
    machine = backend.load(pages_free(13 * 1024, wmark=WMARK, managed=managed))
    for _ in range(5):
        assert machine.alloc_pages(GFP_ATOMIC, 3) >= 0
    assert machine.allocator_state()["zones"][0, 1]["nr_reserved_highatomic"] == limit


def test_14_atomic_requests_of_the_fast_path_reserve_nothing(backend):
    machine = backend.load(pages_free(20 * 1024, wmark=WMARK, managed=239248))
    assert machine.alloc_pages(GFP_ATOMIC, 3) >= 0
    assert machine.allocator_state()["zones"][0, 1]["nr_reserved_highatomic"] == 0


def test_pages_of_the_reserve_return_to_it(backend):
    machine = backend.load(pages_free(13 * 1024, wmark=WMARK, managed=239248))
    pfn = machine.alloc_pages(GFP_ATOMIC, 4)
    block = pfn >> 9
    assert machine.allocator_state()["blocks"][block] == 3
    assert machine.free_pages(pfn, 4) == 0
    assert any(block << 9 <= p < block + 1 << 9 for (_, mt), pfns in free_lists(machine).items() if mt == 3 for p in pfns)


def test_order_0_of_the_reserve_goes_on_the_movable_list(backend):
    machine = backend.load(blocks_free({(9, 1): [0x5200]}, {0x5000 >> 9: 3}))
    machine.tracing = True  # the page was in use before our time
    assert machine.free_pages(0x5007) == 0
    assert machine.allocator_state()["zones"][0, 1]["pcp"][0]["lists"] == {1: [0x5007]}
    machine.drain_all_pages()
    assert free_lists(machine)[0, 3] == [0x5007]
    assert machine.allocator_state()["zones"][0, 1]["nr_free_highatomic"] == 1
