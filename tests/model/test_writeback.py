"""Dirty pages, the flusher, fsync and drop_caches on a machine with a disk."""

import pytest

from mmcore.base import clock
from mmcore.run import events, flusher
from mmcore.sys import file_calls
from mmpy import Machine

SECOND = 10**9


@pytest.fixture(scope="module")
def fresh():
    return Machine("256M")


def disk(m, **figures):
    return m.add_device("nvme", files=True, depth=1, latency_ns=100_000, bandwidth=409_600_000, **figures)


def write(m, file, first, pages):
    assert file_calls.write(m.state, file.handle, first * 4096, pages * 4096) == pages


def states(m):
    return tuple(m.vmstat[n] for n in ("nr_dirty", "nr_writeback", "nr_dirtied", "nr_written", "nr_zone_write_pending"))


def test_a_file_is_written_when_it_is_old(fresh):
    """Dirtied at 0, the flusher looks every 5 s: at 30 s it is older than 30 s at none before 30."""
    m = fresh.fork()
    d = disk(m)
    f = m.open("/data", "4M")
    write(m, f, 0, 100)
    assert states(m) == (100, 0, 100, 0, 100)
    assert clock.pending(m.state) == [(5 * SECOND, "flusher", 0, 0)]
    m.validate()
    events.run_until(m.state, 29 * SECOND)
    assert states(m) == (100, 0, 100, 0, 100)
    assert d.stat["nr_writes"] == 0
    events.run_until(m.state, 30 * SECOND + 100_000)
    assert states(m) == (0, 100, 100, 0, 100)
    assert (d.stat["nr_writes"], d.stat["write_merges"], d.nr_inflight) == (1, 99, 100)
    m.validate()
    events.run_until(m.state, 30 * SECOND + 100_000 + 50 * 10_000)
    assert states(m) == (0, 50, 100, 50, 50)
    events.run_until(m.state, 40 * SECOND)
    assert states(m) == (0, 0, 100, 100, 0)
    assert (m.vmstat["pgpgout"], d.nr_inflight) == (400, 0)
    assert clock.pending(m.state) == []
    m.validate()


def test_writing_again_counts_once(fresh):
    m = fresh.fork()
    disk(m)
    f = m.open("/data", "4M")
    write(m, f, 0, 10)
    write(m, f, 5, 10)
    assert states(m) == (15, 0, 15, 0, 15)
    m.validate()


def test_background_writeback(fresh):
    """Above the background threshold the flusher writes at its next turn until no more is dirty than that."""
    m = fresh.fork()
    disk(m)
    m.sysctl["vm.dirty_background_bytes"] = 2000 * 4096
    m.sysctl["vm.dirty_bytes"] = 8000 * 4096
    f = m.open("/data", "40M")
    write(m, f, 0, 5000)
    events.run_until(m.state, 5 * SECOND)
    dirty, writeback, *_ = states(m)
    assert dirty <= 2000
    assert dirty + writeback == 5000
    # in turns of 1024 pages
    assert writeback == 3072
    m.validate()


def test_reclaim_wakes_the_flusher(fresh):
    m = fresh.fork()
    disk(m)
    a, b = m.open("/a", "4M"), m.open("/b", "4M")
    write(m, a, 0, 10)
    write(m, b, 0, 10)
    flusher.wake(m.state)
    assert clock.next_time(m.state) == 1
    events.run_until(m.state, 1)
    assert states(m)[:2] == (0, 20)
    m.validate()


def test_a_synchronous_device(fresh):
    m = fresh.fork()
    m.add_device("ram", files=True)
    f = m.open("/data", "4M")
    write(m, f, 0, 100)
    flusher.wake(m.state)
    events.run_until(m.state, 10)
    assert states(m) == (0, 0, 100, 100, 0)
    m.validate()


def test_the_queue_of_the_device_is_bounded(fresh):
    m = fresh.fork()
    d = disk(m, queue_kib=64)
    f = m.open("/data", "4M")
    write(m, f, 0, 500)
    flusher.wake(m.state)
    events.run_until(m.state, 10)
    assert d.nr_inflight == 16
    m.validate()
    events.run_until(m.state, SECOND)
    assert states(m) == (0, 0, 500, 500, 0)


def test_fsync_and_truncation_under_writeback(fresh):
    m = fresh.fork()
    disk(m)
    f = m.open("/data", "4M")
    write(m, f, 0, 100)
    assert file_calls.fsync(m.state, f.handle) == 100
    assert states(m) == (0, 100, 100, 0, 100)
    write(m, f, 0, 30)
    assert states(m) == (30, 100, 130, 0, 130)
    m.validate()
    f.unlink()
    m.validate()
    events.run_until(m.state, 60 * SECOND)
    assert states(m)[:2] == (0, 0)
    assert m.vmstat["nr_zone_write_pending"] == 0
    m.validate()


def test_drop_caches(fresh):
    m = fresh.fork()
    disk(m)
    f = m.open("/data", "4M")
    file_calls.read(m.state, f.handle, 0, 400 * 4096)
    write(m, f, 0, 10)
    cached = f.nr_cached
    assert m.drop_caches(1) == cached - 10
    assert f.nr_cached == 10
    assert m.vmstat["drop_pagecache"] == 1
    m.validate()
    file_calls.fsync(m.state, f.handle)
    assert m.drop_caches(1) == 0
    events.run_until(m.state, SECOND)
    m.sysctl["vm.drop_caches"] = 3
    assert f.nr_cached == 0
    assert (m.vmstat["drop_pagecache"], m.vmstat["drop_slab"]) == (3, 1)
    m.validate()
    for bad in (0, 4, "x", -1):
        with pytest.raises(ValueError):
            m.sysctl["vm.drop_caches"] = bad
    assert "vm.drop_caches" not in m.sysctl


def test_the_same_again(fresh):
    """Same inputs, same bytes; and a machine that was copied in the middle goes on as the first."""
    runs = []
    for split in (False, True):
        m = fresh.fork()
        disk(m)
        files = [m.open(f"/f{i}", "8M") for i in range(3)]
        for i in range(9):
            write(m, files[i % 3], i * 37, 150)
            events.run_until(m.state, (i + 1) * 7 * SECOND + i)
            if split:
                m = m.fork()
                files = [type(f)(m, f.handle) for f in files]
        runs.append(m)
    assert runs[0] == runs[1]
    assert runs[0].state.same_bytes(runs[1].state)
    runs[0].validate()
