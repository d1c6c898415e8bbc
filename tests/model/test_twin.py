"""What only the twin shows yet: giving the highatomic reserve back, zonelists, its own forms of state."""

import pytest

from tests.model.backends import Twin
from tests.model.driver import Session, draw_ops
from tests.model.shapes import small_shapes
from tests.model.states import pages_free
from tests.reference import differences, format_state, make_plan, parse_state
from tests.reference.constants import MOVABLE, UNMOVABLE
from tests.reference.gfp import DMA32, GFP_KERNEL
from tests.reference.gfp import MOVABLE as GFP_MOVABLE


def test_the_last_reserved_block_is_given_back_only_by_force():
    machine = Twin.load(pages_free(1024, highatomic=2))
    assert machine.unreserve_highatomic(GFP_KERNEL | GFP_MOVABLE) == 512
    row = machine.allocator_state()["zones"][0, 1]
    assert (row["nr_reserved_highatomic"], row["nr_free_highatomic"]) == (512, 512)
    assert len(row["free"][9, MOVABLE]) == 1
    assert machine.unreserve_highatomic(GFP_KERNEL) == 0
    assert machine.unreserve_highatomic(GFP_KERNEL, force=True) == 512
    row = machine.allocator_state()["zones"][0, 1]
    assert (row["nr_reserved_highatomic"], row["nr_free_highatomic"]) == (0, 0)
    assert len(row["free"][9, UNMOVABLE]) == 1


def test_a_reserve_in_use_stays():
    machine = Twin.load(pages_free(0x300, highatomic=1, wmark=(1, 2, 3, 4)))
    while machine.alloc_pages(DMA32 | 0x20, 5) >= 0:
        pass
    assert machine.allocator_state()["zones"][0, 1]["nr_free_highatomic"] == 0
    assert machine.unreserve_highatomic(GFP_KERNEL, force=True) == 0


def test_fallback_order_of_four_nodes():
    d = [[10, 20, 20, 40], [20, 10, 40, 20], [20, 40, 10, 20], [40, 20, 20, 10]]
    ram = [(0x1000 * (n + 1), 0x1000 * (n + 2), n) for n in range(4)]
    plan = make_plan(ram, cpus=(0, 1), distances=d)
    order = [[plan.zones[i].node for i in fallback] for fallback, _ in plan.zonelists]
    assert order == [[0, 1, 2, 3], [1, 3, 0, 2], [2, 3, 0, 1], [3, 2, 1, 0]]


@pytest.mark.parametrize("name", ["one_zone", "three_zones", "movable"])
def test_a_loaded_state_goes_on_like_the_machine_it_came_from(name):
    shape = small_shapes()[name]
    machine = Twin.boot(shape)
    session = Session(machine, 5)
    for op in draw_ops(shape, 5, 300):
        session.do(op)
    state = machine.allocator_state()
    assert not differences(parse_state(format_state(state)), state)
    twin = Twin.load(state)
    assert not differences(twin.allocator_state(), state)
    machine.kswapd_end(0)
    for other in (machine, twin):
        # what a state does not hold
        other.lru, other.sysctl, other.user_min_free_kbytes = set(), dict(machine.sysctl), -1
        for a, b in zip(other.zones, machine.zones, strict=True):
            a.stat_threshold, a.drift_mark, a.flags, a.boost = b.stat_threshold, b.drift_mark, b.flags, b.boost
        for zone in other.managed_zones(0):
            zone.flags &= ~2
    sessions = [Session(other, 5) for other in (machine, twin)]
    for op in draw_ops(shape, 6, 300, traced=True):
        assert sessions[0].do(op) == sessions[1].do(op), op
    assert not differences(machine.allocator_state(), twin.allocator_state())
