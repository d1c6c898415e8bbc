"""The event queue against a sorted list."""

import heapq

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcore.base import clock
from mmpy import Machine

KINDS = clock.EVENT_KINDS[1:]
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("post"), st.integers(0, 40), st.sampled_from(KINDS), st.integers(0, 5), st.integers(0, 5)),
        st.tuples(st.just("take"), st.integers(0, 50)),
    ),
    max_size=120,
)


@pytest.fixture(scope="module")
def fresh():
    return Machine("64M")


@settings(max_examples=150, deadline=None)
@given(STEPS)
def test_as_a_sorted_list(fresh, steps):
    m, twin, seq = fresh.fork(), [], 0
    for step in steps:
        if step[0] == "post":
            _, time, kind, a, b = step
            clock.post(m.state, time, kind, a, b)
            heapq.heappush(twin, (time, seq, kind, a, b))
            seq += 1
        else:
            want = None
            if twin and twin[0][0] <= step[1]:
                time, _, kind, a, b = heapq.heappop(twin)
                want = (time, kind, a, b)
            assert clock.take(m.state, step[1]) == want
        assert clock.next_time(m.state) == (twin[0][0] if twin else None)
        assert clock.sound(m.state)
    assert clock.pending(m.state) == [(t, k, a, b) for t, _, k, a, b in sorted(twin)]


def test_records_behind_the_queue_are_zero(fresh):
    m = fresh.fork()
    for i in range(50):
        clock.post(m.state, 100 - i, "task", i)
    for _ in range(30):
        clock.take(m.state, 1000)
    whole = m.state.pool_arrays["events"]
    assert len(m.state.get("events")) == 20
    assert not whole[20:64].view(np.uint8).any()
    assert m.state.pools["live"].tolist() == m.fork().state.pools["live"].tolist()


def test_machines_with_the_same_events_are_equal(fresh):
    """A heap that reached the same content on another way."""
    a, b = fresh.fork(), fresh.fork()
    for m in (a, b):
        for i, time in enumerate([5, 9, 7, 30, 20, 11]):
            clock.post(m.state, time, "task", i)
    b.state.get("events").sort(order=("time_ns", "seq"))
    assert a == b
    clock.take(a.state, 5)
    assert a != b
    clock.take(b.state, 5)
    assert a == b


def test_queue_goes_with_the_machine(fresh, tmp_path):
    m = fresh.fork()
    clock.post(m.state, 10, "kswapd", 1, 2)
    m.save(tmp_path / "machine")
    assert clock.pending(Machine.load(tmp_path / "machine").state) == [(10, "kswapd", 1, 2)]
    saved = m.snapshot()
    clock.take(m.state, 10)
    m.restore(saved)
    assert clock.pending(m.state) == [(10, "kswapd", 1, 2)]


@pytest.mark.parametrize(
    ("time", "kind", "a", "error"),
    [
        (-1, "task", 0, ValueError), (2**62 + 1, "task", 0, ValueError), (0, "none", 0, ValueError), (0, "tusk", 0, ValueError),
        (1.5, "task", 0, TypeError), (0, "task", -1, ValueError), (0, "task", 2**63, ValueError), (None, "task", 0, TypeError),
    ],
)  # fmt: skip
def test_what_no_event_can_be(fresh, time, kind, a, error):
    m = fresh.fork()
    with pytest.raises(error):
        clock.post(m.state, time, kind, a)
    assert m == fresh


def test_a_full_queue_refuses(fresh):
    m = fresh.fork()
    number = 17
    m.state.pools["capacity"][number] = 3
    for i in range(3):
        clock.post(m.state, i, "task")
    with pytest.raises(MemoryError, match="full"):
        clock.post(m.state, 0, "task")
    assert len(clock.pending(m.state)) == 3
    assert clock.sound(m.state)
