"""The core does, operation by operation, what its twin does: same results, same lists, same counters.

MMPY_MODEL_OPS multiplies the length of the runs (default 1: some thousand operations over all shapes).
"""

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.model.backends import Twin
from tests.model.driver import Session, draw_ops
from tests.model.shapes import Shape, small_shapes
from tests.reference import differences, gfp

pytest.importorskip("mmcore.alloc.page_alloc", reason="the core is not built")
CoreAdapter = pytest.importorskip("tests.model.core_adapter").CoreAdapter

FACTOR = int(os.environ.get("MMPY_MODEL_OPS", "1"))
NR_OPS = 700 * FACTOR
STATE_EVERY = 60
SHAPES = sorted(small_shapes())


class Pair:
    """Both machines of one shape."""

    def __init__(self, shape: Shape, *, tracing: bool = False):
        types = len(shape.plan.zones) // len(shape.plan.nodes)
        self.core, self.twin = (Session(kind.boot(shape), types) for kind in (CoreAdapter, Twin))
        self.core.machine.tracing = self.twin.machine.tracing = tracing
        self.tracing = tracing
        self.history: list[tuple] = []

    def do(self, op: tuple) -> None:
        """Do an operation on both and compare what comes back and every counter."""
        self.history.append(op)
        core, twin = self.core.do(op), self.twin.do(op)
        assert core == twin, self.where(f"results {brief(core, twin)}")
        if self.tracing:
            core, twin = (by_kind(side.machine.take_trace()) for side in (self.core, self.twin))
            for kind in sorted(core.keys() | twin.keys()):
                assert core.get(kind) == twin.get(kind), self.where(f"{kind} rows {brief(core.get(kind, []), twin.get(kind, []))}")

    def compare(self) -> None:
        """Compare counters and whole states, and let each side recount itself."""
        core, twin = self.core.machine.counters(), self.twin.machine.counters()
        for name in twin:
            assert core[name] == twin[name], self.where(f"{name}: core {core[name]}\ntwin {twin[name]}")
        states = (side.machine.allocator_state() for side in (self.core, self.twin))
        unequal = differences(*states)
        assert not unequal, self.where("states (core / twin)\n" + "\n".join(unequal[:12]))
        self.core.machine.validate()
        self.twin.machine.validate()

    def where(self, text: str) -> str:
        """What went wrong, with the last operations."""
        last = "\n".join(f"  {len(self.history) - i - 1}: {op}" for i, op in enumerate(reversed(self.history[-4:])))
        return f"{text}\nafter operations (last first)\n{last}"


def by_kind(rows) -> dict[str, list]:
    """Tracepoints by kind: their order across kinds is not compared."""
    kinds: dict[str, list] = {}
    for kind, *fields in rows:
        kinds.setdefault(kind, []).append(tuple(fields))
    return kinds


def brief(core, twin) -> str:
    """Two results; of long lists where they part."""
    if not (isinstance(core, list) and isinstance(twin, list)):
        return f"core {core}, twin {twin}"
    shorter = min(len(core), len(twin))
    at = next((i for i in range(shorter) if core[i] != twin[i]), shorter)
    return f"of length {len(core)} / {len(twin)}, from item {at} on: core {core[at : at + 4]}, twin {twin[at : at + 4]}"


def run(pair: Pair, ops, every: int = STATE_EVERY) -> None:
    pair.compare()
    for i, op in enumerate(ops):
        pair.do(op)
        if i % every == every - 1:
            pair.compare()
    pair.compare()


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", SHAPES)
def test_random_operations(name, seed):
    shape = small_shapes()[name]
    run(Pair(shape), draw_ops(shape, seed, NR_OPS))


@pytest.mark.parametrize("name", SHAPES)
def test_tracepoints_of_random_operations(name):
    shape = small_shapes()[name]
    run(Pair(shape, tracing=True), draw_ops(shape, 1000, NR_OPS // 4, traced=True))


def test_a_rest_above_a_lowered_threshold_is_folded_by_the_next_step():
    """kswapd's run had raised the threshold; a refill of many pages counts as many single steps."""
    shape = small_shapes()["medium_nodes"]
    pair = Pair(shape)
    zone = pair.twin.machine.zone(0, 1)
    # as on machines where the drift could hide a watermark
    zone.drift_mark = pair.core.machine.state.zones["percpu_drift_mark"][1] = 1
    normal = zone.stat_threshold
    ops = [
        ("sysctl", "vm.watermark_scale_factor", 3000),
        ("kswapd_begin", 0),
        ("run", 12, gfp.GFP_KERNEL, 4, 0, 0, 0),
        ("tick", 0),
        ("free_many", 4, 3, 0),
        ("kswapd_end", 0),
    ]
    run(pair, ops, every=1)
    assert zone.diff[0] > zone.stat_threshold == normal
    run(pair, [("run", 40, gfp.GFP_KERNEL, 0, 0, 0, 0)])
    assert abs(zone.diff[0]) <= normal


@pytest.mark.parametrize("thp", ["never", "madvise"])
def test_boot_without_huge_pages(thp):
    shape = small_shapes()["three_zones"]
    run(Pair(Shape(shape.plan, thp=thp)), draw_ops(shape, 7, 40))


@settings(max_examples=20 * FACTOR)
@given(name=st.sampled_from(SHAPES), data=st.data())
def test_short_sequences(name, data):
    """Hypothesis shrinks what fails to a few operations."""
    shape = small_shapes()[name]
    seed = data.draw(st.integers(0, 2**32))
    ops = data.draw(st.lists(st.sampled_from(draw_ops(shape, seed, 60)), min_size=1, max_size=30))
    run(Pair(shape), ops, every=10)
