"""Per-CPU lists: refills, drains and tuning measured on a real machine (tests 9 to 12), and what no trace shows."""

import pytest

from tests.model.shapes import one_gib, small_shapes
from tests.reference.gfp import GFP_KERNEL, GFP_NOWAIT, MOVABLE

NOWAIT_MOVABLE = GFP_NOWAIT | MOVABLE
HIGH_MIN, HIGH_MAX = 13855, 29653


def pcp(machine, cpu: int = 0) -> dict:
    return machine.allocator_state()["zones"][0, 1]["pcp"][cpu]


@pytest.fixture
def machine(backend):
    """The measured machine: lists empty, `high` one batch above its minimum."""
    machine = backend.boot(one_gib())
    pfn = machine.alloc_pages(GFP_KERNEL, 1)
    assert machine.free_pages(pfn, 1) == 0
    machine.drain_all_pages()
    start = pcp(machine)
    assert (start["count"], start["high"], start["alloc_factor"]) == (0, 13918, 0)
    return machine


def allocate(machine, n: int, gfp: int, order: int = 0):
    """(page frames, {number of the allocation: blocks refilled})."""
    pages, refills, before = [], {}, machine.pcp_count(0, 1)
    for i in range(n):
        pages.append(machine.alloc_pages(gfp, order))
        after = machine.pcp_count(0, 1)
        if got := after - before + (1 << order):
            refills[i] = got >> order
        before = after
    return pages, refills


def free(machine, pages, order: int = 0) -> dict[int, int]:
    """{number of the free: pages drained}."""
    drains, before = {}, machine.pcp_count(0, 1)
    for i, pfn in enumerate(pages):
        assert machine.free_pages(pfn, order) == 0
        after = machine.pcp_count(0, 1)
        if got := before - after + (1 << order):
            drains[i] = got
        before = after
    return drains


def test_9_refills_double(machine):
    highs = []
    for batch in (63, 126, 252, 504, 1008, 2016, 2016):
        _, refills = allocate(machine, 1, NOWAIT_MOVABLE)
        assert refills == {0: batch}
        highs.append(pcp(machine)["high"])
        assert allocate(machine, batch - 1, NOWAIT_MOVABLE)[1] == {}
    assert highs == [13981, 14107, 14359, 14863, 15871, 17887, 19903]
    assert pcp(machine)["alloc_factor"] == 5


def test_10_drains_of_32_batches(machine):
    pages, refills = allocate(machine, 40000, NOWAIT_MOVABLE)
    assert list(refills.values()) == [63, 126, 252, 504, 1008] + [2016] * 19
    assert (pcp(machine)["high"], pcp(machine)["count"]) == (HIGH_MAX, 257)
    drains = free(machine, pages)
    assert drains == dict.fromkeys(range(29395, 40000, 2016), 2016)


def test_11_high_orders_are_given_back_at_once(machine):
    allocate(machine, 4000, NOWAIT_MOVABLE)
    machine.drain_all_pages()
    pages, refills = allocate(machine, 300, GFP_KERNEL, 1)
    assert set(refills.values()) == {31}
    assert pcp(machine)["count"] == 20
    high = pcp(machine)["high"]
    assert high == 19903 + 63 * len(refills)
    for first in range(0, 300, 32):
        drains = free(machine, pages[first : first + 32], 1)
        if first == 0:
            assert drains == {}
        else:
            # what the free that drains put there goes with the rest
            assert drains == {0: 86 if first == 32 else 64}
            high = max(high - 2016, HIGH_MIN)
            assert pcp(machine)["high"] == high
    assert high == HIGH_MIN


@pytest.mark.parametrize(("order", "blocks"), [(1, 31), (2, 15), (3, 7), (9, 2)])
def test_refill_size_by_order(machine, order, blocks):
    assert allocate(machine, 1, GFP_KERNEL, order)[1] == {0: blocks}
    assert allocate(machine, blocks, GFP_KERNEL, order)[1] == {blocks - 1: blocks}


def test_12_last_freed_is_next_allocated(machine):
    a, b, c = (machine.alloc_pages(GFP_KERNEL) for _ in range(3))
    for pfn in (a, b, c):
        assert machine.free_pages(pfn) == 0
    assert [machine.alloc_pages(GFP_KERNEL) for _ in range(3)] == [c, b, a]


def test_order_9_is_drained_by_the_same_limit(machine):
    pages, _ = allocate(machine, 60, NOWAIT_MOVABLE, 9)
    drains = free(machine, pages, 9)
    assert set(drains.values()) == {2048}


def test_kswapd_run_holds_lists_short(machine):
    pages, _ = allocate(machine, 1000, NOWAIT_MOVABLE)
    machine.drain_all_pages()
    machine.kswapd_begin(0)
    drains = free(machine, pages)
    # four batches, of which free_count decides how much goes
    assert min(drains) == 4 * 63 - 1
    assert pcp(machine)["high"] == HIGH_MIN
    assert pcp(machine)["count"] < 4 * 63
    machine.kswapd_end(0)
    assert machine.allocator_state()["zones"][0, 1]["flags"] == 0


def test_a_tick_lowers_high_and_drains_what_is_above(machine):
    pages, _ = allocate(machine, 20000, NOWAIT_MOVABLE)
    assert free(machine, pages) == {}
    before = pcp(machine)
    assert before["high"] == HIGH_MAX
    machine.tick(0)
    after = pcp(machine)
    assert after["high"] == max(HIGH_MIN, HIGH_MAX - HIGH_MAX // 8, before["count"] - 2016)
    assert after["count"] == min(before["count"], after["high"])


def test_drain_all_empties_every_list(backend):
    machine = backend.boot(small_shapes()["medium_nodes"])
    for cpu in range(2):
        for order in (0, 1, 3):
            assert machine.alloc_pages(GFP_KERNEL, order, cpu) >= 0
    assert sum(p["count"] for z in machine.allocator_state()["zones"].values() for p in z["pcp"].values()) > 20
    machine.drain_all_pages(1)
    state = machine.allocator_state()
    assert all(not p["count"] and not p["lists"] for z in state["zones"].values() for p in z["pcp"].values())


def test_idle_lists_of_remote_nodes_expire(backend):
    machine = backend.boot(small_shapes()["medium_nodes"])
    pfn = machine.alloc_pages(GFP_KERNEL, 0, cpu=0, nid=1)
    zone = next(key for key, z in machine.allocator_state()["zones"].items() if z["pcp"] and z["pcp"][0]["count"])
    assert zone[0] == 1
    remote = []
    for _ in range(4):
        machine.tick(0)
        state = machine.allocator_state()["zones"][zone]["pcp"][0]
        remote.append((state["expire"], state["count"] > 0))
    # the tick that folds sets 3 and already counts one down
    assert remote[:2] == [(2, True), (1, True)]
    assert remote[2][0] == 0
    assert machine.free_pages(pfn, 0, cpu=0) == 0
