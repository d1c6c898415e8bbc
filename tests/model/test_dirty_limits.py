"""Dirty limits and pauses against their twin, and the worked cases of the specification."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcore.reclaim import dirty_limits as core
from mmpy import Machine
from tests.reference import dirty_limits as twin

PAGES = st.integers(0, 2**30)


@pytest.fixture(scope="module")
def fresh():
    return Machine("1G")


def test_worked_example():
    """Free 50000, reserve 8000, file LRU 200000."""
    dirtyable = 50000 - 8000 + 200000 + 1
    assert dirtyable == 242001
    assert core.limits_for(dirtyable) == (48388, 24164, 36276)


@settings(max_examples=300, deadline=None)
@given(PAGES, st.integers(0, 100), st.integers(0, 100), st.sampled_from([0, 0, 8192, 2**30]), st.sampled_from([0, 0, 1, 5000, 2**33]))
def test_limits(dirtyable, ratio, background, bytes_, background_bytes):
    assert core.limits_for(
        dirtyable, ratio=ratio, background_ratio=background, bytes_=bytes_, background_bytes=background_bytes
    ) == twin.limits(dirtyable, ratio, background, bytes_, background_bytes)


@settings(max_examples=500, deadline=None)
@given(st.integers(1, 2**30), st.data())
def test_position_ratio(thresh, data):
    freerun = data.draw(st.one_of(st.integers(thresh // 2, thresh * 3 // 4), st.integers(0, thresh)))
    limit = data.draw(st.integers(thresh, thresh * 2))
    dirty, wb_dirty = data.draw(st.integers(0, 2 * limit)), data.draw(st.integers(0, 2 * limit))
    bw = data.draw(st.integers(1, 2**24))
    assert core.ratio_at(thresh, freerun, limit, dirty, wb_dirty, bw) == twin.position_ratio(thresh, freerun, limit, dirty, wb_dirty, bw)


def test_position_ratio_is_one_at_the_setpoint_and_falls():
    thresh, _, freerun = core.limits_for(242001)
    setpoint = (freerun + thresh) // 2
    assert core.ratio_at(thresh, freerun, thresh, thresh, thresh, 25600) == 0
    row = [core.ratio_at(thresh, freerun, thresh, d, setpoint, 25600) for d in range(freerun, thresh + 1, 500)]
    assert row == sorted(row, reverse=True)
    assert core.ratio_at(thresh, freerun, thresh, setpoint, setpoint, 25600) == pytest.approx(1024, abs=3)
    assert core.ratio_at(thresh, freerun, thresh, freerun, setpoint, 25600) == pytest.approx(2048, abs=6)


@settings(max_examples=300, deadline=None)
@given(PAGES, PAGES)
def test_poll_interval(dirty, thresh):
    assert core.poll_interval(dirty, thresh) == twin.poll_interval(dirty, thresh)


@settings(max_examples=500, deadline=None)
@given(PAGES, st.integers(1, 2**24), st.integers(0, 2**24), st.integers(1, 2**24))
def test_pauses(wb_dirty, avg_bw, task_rate, rate):
    got = core.pauses(wb_dirty, avg_bw, task_rate, rate)
    assert got == twin.pauses(wb_dirty, avg_bw, task_rate, rate)
    longest, shortest, pages = got
    assert 1 <= longest <= 50
    assert shortest >= 0
    assert pages >= 0


def test_machine_prints_its_limits(fresh):
    found = core.limits(fresh.state)
    assert (found["thresh"], found["bg"]) == fresh.dirty_limits
    assert fresh.vmstat["nr_dirty_threshold"] == found["thresh"]
    assert fresh.vmstat["nr_dirty_background_threshold"] == found["bg"]
    assert (found["thresh"], found["bg"], found["freerun"]) == twin.limits(found["dirtyable"])
    assert found["dirtyable"] == fresh.vmstat["nr_free_pages"] - fresh.totalreserve_pages + 1


def test_sysctls(fresh):
    m = fresh.fork()
    m.sysctl["vm.dirty_bytes"] = 1 << 20
    assert (m.sysctl["vm.dirty_bytes"], m.sysctl["vm.dirty_ratio"]) == (1 << 20, 0)
    assert m.dirty_limits == (256, 128)
    m.sysctl["vm.dirty_background_bytes"] = 4096 * 10
    assert m.dirty_limits == (256, 10)
    m.sysctl["vm.dirty_ratio"] = 40
    assert (m.sysctl["vm.dirty_bytes"], m.sysctl["vm.dirty_background_bytes"]) == (0, 40960)
    wrong = {"vm.dirty_bytes": 8191, "vm.dirty_ratio": 101, "vm.dirty_background_bytes": 0, "vm.dirty_expire_centisecs": -1}
    for name, value in wrong.items():
        with pytest.raises(ValueError):
            m.sysctl[name] = value


def test_arguments():
    for bad in ((0, 0, 1, 0, 0, 1), (10, 11, 10, 0, 0, 1), (10, 5, 9, 0, 0, 1), (10, 5, 10, -1, 0, 1), (10, 5, 10, 0, 0, 0)):
        with pytest.raises(ValueError):
            core.ratio_at(*bad)
    with pytest.raises(ValueError):
        core.limits_for(-1)
    with pytest.raises(TypeError):
        core.limits_for(1.0)
