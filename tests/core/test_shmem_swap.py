"""Shared memory and tmpfs under pressure: pages go to swap, come back, and go with their file; nothing is left over."""

import random

import numpy as np
import pytest

from mmcore.sys import file_calls, swap_calls
from mmpy import Machine, MmapError
from mmpy.vmflags import Madv, Map

PAGE, MIB = 4096, 1 << 20
SHARED = Map.SHARED | Map.ANONYMOUS


def judge(m):
    m.validate()
    assert file_calls.validate_files(m.state) == []


@pytest.fixture(params=[(False, False), (False, True), (True, False)], ids=["disk", "ram", "rotational"])
def m(request):
    rotational, synchronous = request.param
    machine = Machine("64M", max_cgroups=4)
    machine.reclaim = True
    machine.swapon("16M", rotational=rotational, synchronous=synchronous)
    return machine


def pages(base, first, end):
    return base + np.arange(first, end, dtype=np.uint64) * np.uint64(PAGE)


def users(m):
    return int(m.swaps[0].users.sum())


def test_shared_memory_goes_and_comes_back(m):
    g = m.memcg("g", max="4M")
    p = m.spawn(memcg=g)
    a = p.mmap(8 * MIB, flags=SHARED)
    p.touch(pages(a, 0, 2048), write=True)
    judge(m)
    assert g.current <= 4 * MIB
    assert users(m) >= 1024
    assert m.vmstat["nr_shmem"] + users(m) == 2048
    before = p.majflt, m.vmstat["pgmajfault"]
    p.touch(pages(a, 0, 2048))
    judge(m)
    assert p.majflt > before[0]
    assert m.vmstat["pgmajfault"] - before[1] == p.majflt - before[0]
    assert m.vmstat["workingset_refault_anon"] > 0
    assert m.vmstat["nr_shmem"] + users(m) == 2048
    p.munmap(a, 8 * MIB)
    judge(m)
    assert users(m) == 0
    assert m.vmstat["nr_shmem"] == m.vmstat["nr_swapcached"] == 0


def test_exit_with_pages_in_swap_leaves_nothing(m):
    g = m.memcg("g", max="4M")
    with m.spawn(memcg=g) as p:
        a = p.mmap(8 * MIB, flags=SHARED)
        p.touch(pages(a, 0, 2048), write=True)
        assert users(m) > 0
    judge(m)
    assert users(m) == 0
    swap_calls.drain(m.state)       # slots that a CPU has not given back yet are charged still
    assert g.swap_current == 0
    g.remove()
    judge(m)


def test_parent_and_child_see_the_same_pages(m):
    g = m.memcg("g", max="4M")
    p = m.spawn(memcg=g)
    a = p.mmap(6 * MIB, flags=SHARED)
    p.touch(pages(a, 0, 1536), write=True)
    c = p.fork()
    c.touch(pages(a, 0, 1536))
    judge(m)
    assert m.vmstat["nr_shmem"] + users(m) == 1536
    p.exit()
    judge(m)
    c.touch(pages(a, 0, 1536), write=True)
    judge(m)
    c.exit()
    judge(m)
    assert users(m) == 0


def test_clean_pages_of_holes_leave_no_trace(m):
    g = m.memcg("g", max="4M")
    p = m.spawn(memcg=g)
    a = p.mmap(8 * MIB, flags=SHARED)
    for at in range(0, 2048, 64):
        p.touch(pages(a, at, at + 64))
        judge(m)
    assert users(m) == 0
    p.touch(pages(a, 0, 2048))
    assert p.majflt == 0
    judge(m)


def test_truncation_frees_the_slots(m):
    f = m.open("/tmp/f", 8 * MIB, kind="shmem")
    g = m.memcg("g", max="4M")
    p = m.spawn(memcg=g)
    a = p.mmap(8 * MIB, flags=Map.SHARED, file=f)
    p.touch(pages(a, 0, 2048), write=True)
    p.munmap(a, 8 * MIB)
    judge(m)
    left = users(m)
    assert left > 0
    assert file_calls.truncate(m.state, f.handle, 2 * MIB) == 0
    judge(m)
    assert f.nr_cached + users(m) == 512
    assert file_calls.drop_cache(m.state, f.handle) >= 0
    judge(m)
    assert file_calls.truncate(m.state, f.handle, 0) == 0
    judge(m)
    assert users(m) == f.nr_cached == 0
    f.unlink()
    judge(m)


def test_unlink_frees_the_slots_with_the_last_mapping(m):
    f = m.open("/tmp/f", 8 * MIB, kind="shmem")
    p = m.spawn(memcg=m.memcg("g", max="4M"))
    a = p.mmap(8 * MIB, flags=Map.SHARED, file=f)
    p.touch(pages(a, 0, 2048), write=True)
    f.unlink()
    judge(m)
    assert users(m) > 0
    p.exit()
    judge(m)
    assert users(m) == 0


def test_madvise_remove_and_willneed(m):
    p = m.spawn(memcg=m.memcg("g", max="4M"))
    a = p.mmap(8 * MIB, flags=SHARED)
    p.touch(pages(a, 0, 2048), write=True)
    p.madvise(a, MIB, Madv.WILLNEED)
    judge(m)
    assert m.vmstat["nr_shmem"] + users(m) == 2048
    p.madvise(a, 4 * MIB, Madv.REMOVE)
    judge(m)
    assert m.vmstat["nr_shmem"] + users(m) == 1024


def test_read_and_write_bring_pages_back(m):
    f = m.open("/tmp/f", 8 * MIB, kind="shmem")
    p = m.spawn(memcg=m.memcg("g", max="4M"))
    a = p.mmap(8 * MIB, flags=Map.SHARED, file=f)
    p.touch(pages(a, 0, 2048), write=True)
    p.munmap(a, 8 * MIB)
    major, before = m.vmstat["pgmajfault"], m.vmstat["pswpin"]
    for at in range(0, 8 * MIB, MIB):
        done, _missed = file_calls.read(m.state, f.handle, at, MIB)
        assert done == 256
        judge(m)
    assert m.vmstat["pswpin"] - before > 0
    assert file_calls.write(m.state, f.handle, 0, 8 * MIB) == 2048
    judge(m)
    assert f.nr_cached + users(m) == 2048
    assert m.vmstat["pgmajfault"] == major
    f.unlink()
    judge(m)
    assert users(m) == 0


def test_swapoff_brings_everything_back(m):
    g = m.memcg("g", max="4M")
    p = m.spawn(memcg=g)
    a = p.mmap(6 * MIB, flags=SHARED)
    p.touch(pages(a, 0, 1536), write=True)
    assert users(m) > 0
    with pytest.raises(MmapError):
        m.swapoff(m.swaps[0])
    judge(m)
    assert m.vmstat["nr_shmem"] + users(m) == 1536
    g.max = "16M"
    m.swapoff(m.swaps[0])
    judge(m)
    assert m.swaps == []
    assert m.vmstat["nr_shmem"] == 1536


def test_swap_that_is_full_or_missing_keeps_pages():
    m = Machine("64M", max_cgroups=4)
    m.reclaim = True
    g = m.memcg("g", max="4M")
    m.swapon("1M")
    p = m.spawn(memcg=g)
    a = p.mmap(8 * MIB, flags=SHARED)
    p.touch(pages(a, 0, 2048), write=True)
    judge(m)
    assert users(m) <= 255


@pytest.mark.parametrize("seed", range(3))
def test_random_sequences(m, seed):
    r = random.Random(seed)
    g = m.memcg("g", max="4M")
    f = m.open("/tmp/f", 6 * MIB, kind="shmem")
    p = m.spawn(memcg=g)
    a, b = p.mmap(6 * MIB, flags=Map.SHARED, file=f), p.mmap(4 * MIB, flags=SHARED)
    c = p.mmap(4 * MIB)
    private = p.mmap(2 * MIB, flags=Map.PRIVATE, file=f)
    others = []
    for _ in range(60):
        what = r.randrange(9)
        base, size = r.choice([(a, 1536), (b, 1024), (c, 1024), (private, 512)])
        first = r.randrange(size)
        end = min(size, first + r.randrange(1, 400))
        if what < 5:
            q = r.choice([p, *others])
            q.touch(pages(base, first, end), write=bool(what & 1))
        elif what == 5:
            file_calls.read(m.state, f.handle, first * PAGE, (end - first) * PAGE)
        elif what == 6:
            file_calls.write(m.state, f.handle, min(first, 1400) * PAGE, 50 * PAGE)
        elif what == 7:
            p.madvise(base, (end - first) * PAGE, r.choice([Madv.DONTNEED, Madv.WILLNEED, Madv.COLD]))
        elif others:
            others.pop().exit()
        elif r.random() < 0.5:
            others.append(p.fork())
        judge(m)
    for q in (p, *others):
        q.exit()
    f.unlink()
    judge(m)
    assert users(m) == 0
    swap_calls.drain(m.state)       # slots that a CPU has not given back yet are charged still
    assert g.swap_current == 0
    assert m.vmstat["nr_shmem"] == m.vmstat["nr_swapcached"] == m.vmstat["nr_file_pages"] == 0
