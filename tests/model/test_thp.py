"""Transparent huge pages on the core: faults, collapsing, splitting, khugepaged. Every step is recounted from scratch."""

import errno

import numpy as np
import pytest

from mmcore.sys import hugepages
from mmcore.sys.recount import validate
from mmpy.errors import MmapError
from mmpy.machine import Machine
from mmpy.vmflags import Fault, Madv, Map, Prot

HUGE, PAGE = 2 << 20, 4096
BASE = 0x10000000
FIXED = Map.PRIVATE | Map.ANONYMOUS | Map.FIXED


def machine(thp="always", memory="128M", **kw):
    m = Machine(memory, **kw)
    m.thp["enabled"] = thp  # after boot, for a machine of less than 512 MiB starts with "never"
    return m


def events(m, *names):
    """Counters by name, after a recount."""
    validate(m.state)
    return tuple(int(m.vmstat["thp_" + name]) for name in names)


def free(m):
    """Free pages, those on the per-CPU lists included."""
    m.drain_all_pages()
    m.vmstat_tick()
    return sum(zone.nr_free_pages for zone in m.zones)


def small(p, blocks=1, step=1, addr=BASE):
    """Memory of small pages, every step-th of them written, that may become huge later."""
    p.mmap(blocks * HUGE, addr=addr, flags=FIXED)
    p.madvise(addr, blocks * HUGE, Madv.NOHUGEPAGE)
    p.touch(range(addr, addr + blocks * HUGE, PAGE * step), True)
    p.madvise(addr, blocks * HUGE, Madv.HUGEPAGE)
    return addr


def test_collapse_of_a_sparse_block():
    m = machine("madvise")
    p = m.spawn()
    at = small(p, step=4)
    p.read(at + PAGE)  # the zero page is as good as none
    before, tables = free(m), p.page_table_bytes
    assert p.rss["anon"] == 128
    p.madvise(at, HUGE, Madv.COLLAPSE)
    assert events(m, "collapse_alloc", "fault_alloc", "deferred_split_page") == (1, 0, 0)
    assert (p.rss["anon"], p.page_table_bytes) == (512, tables)
    assert before - free(m) == 512 - 128
    assert p.touch(range(at, at + HUGE, PAGE), True).hits == 512
    assert "AnonHugePages:      2048 kB" in p.smaps()
    assert "AnonHugePages:      2048 kB" in m.proc.meminfo()
    p.madvise(at, HUGE, Madv.COLLAPSE)  # it is one already
    assert events(m, "collapse_alloc") == (1,)
    p.exit()
    assert events(m, "split_pmd") == (0,)
    assert m.thp["hugepages-2048kB/stats/nr_anon"] == 0


def test_what_collapse_refuses():
    m = machine("never")
    p = m.spawn()

    def refused(addr, length, number=errno.EINVAL):
        with pytest.raises(MmapError) as caught:
            p.madvise(addr, length, Madv.COLLAPSE)
        assert caught.value.errno == number
        validate(m.state)

    p.mmap(2 * HUGE, addr=BASE, flags=FIXED)
    refused(BASE, HUGE)  # never faulted
    p.write(BASE)
    refused(BASE + PAGE, 8 * PAGE)  # inside a block
    p.madvise(BASE + PAGE, HUGE - PAGE, Madv.COLLAPSE)  # no block at all
    assert events(m, "collapse_alloc") == (0,)
    refused(BASE + HUGE, HUGE)  # an empty block
    p.madvise(BASE, HUGE, Madv.COLLAPSE)  # no setting matters
    p.mprotect(BASE, 2 * HUGE, Prot.READ)
    p.mmap(HUGE, addr=BASE + 4 * HUGE, flags=FIXED)
    p.write(BASE + 4 * HUGE)
    p.mprotect(BASE + 4 * HUGE, HUGE, Prot.READ)
    child = p.fork()
    refused(BASE + 4 * HUGE, HUGE)  # no entry may be written
    child.exit()
    p.mmap(HUGE, addr=BASE + 8 * HUGE, flags=FIXED)
    p.write(BASE + 8 * HUGE)
    p.madvise(BASE + 8 * HUGE, HUGE, Madv.NOHUGEPAGE)
    refused(BASE + 8 * HUGE, HUGE)
    assert hugepages.collapse(m.state, p.mm, BASE + 8 * HUGE) == "vma_check"


def test_limits_of_khugepaged():
    m = machine("madvise")
    p = m.spawn()
    at = small(p, step=2)
    m.thp["khugepaged/max_ptes_none"] = 255
    assert m.thp.scan() == 0
    assert events(m, "scan_exceed_none_pte", "collapse_alloc") == (1, 0)
    m.thp["khugepaged/max_ptes_none"] = 256
    assert m.thp.scan() == 1
    assert events(m, "scan_exceed_none_pte", "collapse_alloc") == (1, 1)
    assert p.rss["anon"] == 512
    assert m.thp["khugepaged/pages_collapsed"] == 1
    q = m.spawn()
    other = small(q)
    child = q.fork()
    q.touch(range(other, other + 255 * PAGE, PAGE), True)  # 257 shared pages are left
    assert m.thp.scan() == 0
    assert events(m, "scan_exceed_share_pte") == (1 + 1,)  # the child's turn as well
    q.touch(other + 255 * PAGE, True)
    assert m.thp.scan() == 1
    assert (q.rss["anon"], child.rss["anon"]) == (512, 512)
    p.exit()
    q.exit()
    child.exit()
    assert events(m, "scan_exceed_swap_pte") == (0,)
    assert at == other


def test_the_round_of_khugepaged():
    m = machine("always")
    m.thp["khugepaged/pages_to_scan"] = 512
    p = m.spawn()
    p.mmap(PAGE, addr=BASE + 32 * HUGE, flags=FIXED)
    p.write(BASE + 32 * HUGE)
    assert m.state.vm_globals["khugepaged_registered"][0] == 0  # too small to hold a huge page
    small(p, 3)
    child = p.fork()
    assert m.state.vm_globals["khugepaged_registered"][0] == 2
    child.exit()
    assert m.thp.scan() == 0
    p.touch(range(BASE, BASE + 3 * HUGE, PAGE), True)  # fork had taken the right to write away
    assert [m.thp.scan() for _ in range(2)] == [1, 1]
    assert m.thp["khugepaged/full_scans"] == 0
    assert m.thp.scan() == 1  # the end of one round, and the first block of the next
    assert m.thp["khugepaged/full_scans"] == 1
    assert m.thp.scan() == 0
    assert events(m, "collapse_alloc") == (3,)


def test_khugepaged_wakes_by_time():
    m = machine("always")
    p = m.spawn()
    small(p, 2)
    due = int(m.state.vm_globals["khugepaged_next_ns"][0])
    assert due == m.now_ns + 10_000_000_000
    m._one_op(engine_op="ADVANCE", a=9_999_999_999)
    assert m.thp["khugepaged/pages_collapsed"] == 0
    m._one_op(engine_op="ADVANCE", a=1)
    assert m.thp["khugepaged/pages_collapsed"] == 2
    assert m.thp["khugepaged/full_scans"] == 1
    p.exit()
    m._one_op(engine_op="ADVANCE", a=10**15)
    validate(m.state)


def test_deferred_split_gives_memory_back():
    m = machine()
    p = m.spawn()
    p.mmap(HUGE, addr=BASE, flags=FIXED)
    p.write(BASE)
    p.munmap(BASE + PAGE, 255 * PAGE)
    assert events(m, "split_pmd", "deferred_split_page", "split_page") == (1, 1, 0)
    before = free(m)
    assert m.thp.nr_deferred == 1
    assert m.thp.shrink_deferred(0) == 0
    assert m.thp.shrink_deferred(10) == 1
    assert events(m, "split_page", "split_page_failed") == (1, 0)
    assert free(m) - before == 255
    assert (p.rss["anon"], m.thp.nr_deferred) == (257, 0)
    assert p.touch(range(BASE + 256 * PAGE, BASE + HUGE, PAGE), True).hits == 256
    p.exit()
    # a wholly mapped one is looked at, and left alone from then on
    q = m.spawn()
    q.mmap(HUGE, addr=BASE, flags=FIXED)
    q.write(BASE)
    assert m.thp.nr_deferred == 1
    assert m.thp.shrink_deferred(10) == 0
    assert m.thp.nr_deferred == 0
    q.madvise(BASE, HUGE // 2, Madv.DONTNEED)
    assert m.thp.shrink_deferred(10) == 1
    assert events(m, "split_page") == (2,)
    q.exit()
    validate(m.state)


@pytest.mark.parametrize("by_pages", [False, True])
def test_split_of_a_shared_folio(by_pages):
    m = machine()
    p = m.spawn()
    p.mmap(HUGE, addr=BASE, flags=FIXED)
    p.write(BASE)
    pfn = int(p.walk([BASE])[0][0])
    child = p.fork()
    if by_pages:
        child.write(BASE + 9 * PAGE)
        p.munmap(BASE + 100 * PAGE, 10 * PAGE)
        child.munmap(BASE + 105 * PAGE, 10 * PAGE)
    before = free(m)
    assert hugepages.split_huge_page(m.state, pfn + 77) == 0
    assert events(m, "split_page", "split_pmd") == (1, 2)
    assert free(m) - before == (5 if by_pages else 0)
    assert p.touch(range(BASE, BASE + 100 * PAGE, PAGE), True).minor == 100
    validate(m.state)
    child.exit()
    validate(m.state)
    p.exit()
    assert events(m, "split_page_failed") == (0,)


def test_mthp_sizes():
    m = machine("never")
    m.thp["hugepages-64kB/enabled"] = "always"
    p = m.spawn()
    p.mmap(64 * PAGE, addr=BASE, flags=FIXED)
    assert p.write(BASE + 17 * PAGE) is Fault.MINOR
    assert (p.rss["anon"], p.minflt) == (16, 1)
    assert p.touch(range(BASE + 16 * PAGE, BASE + 32 * PAGE, PAGE), True).hits == 16
    m.thp["hugepages-16kB/enabled"] = "always"
    p.read(BASE + 35 * PAGE)
    p.write(BASE + 40 * PAGE)  # only the smaller block is empty
    assert p.rss["anon"] == 20
    stats = [
        m.thp[f"hugepages-{kib}kB/stats/{name}"] for kib in (16, 64) for name in ("anon_fault_alloc", "anon_fault_fallback", "nr_anon")
    ]
    assert stats == [1, 0, 1, 1, 0, 1]
    validate(m.state)
    p.munmap(BASE + 16 * PAGE, PAGE)
    assert m.thp["hugepages-64kB/stats/split_deferred"] == 1
    assert events(m, "deferred_split_page") == (0,)
    before = free(m)
    assert m.thp.shrink_deferred(9) == 1
    assert free(m) - before == 1
    assert events(m, "split_page") == (0,)
    assert m.thp["hugepages-64kB/stats/nr_anon"] == 0
    p.munmap(BASE, 64 * PAGE)
    assert m.thp["hugepages-16kB/stats/nr_anon"] == 0
    validate(m.state)


def test_collapse_over_larger_folios():
    m = machine("madvise")
    m.thp["hugepages-64kB/enabled"] = "always"
    p = m.spawn()
    p.mmap(HUGE, addr=BASE, flags=FIXED)
    p.touch(range(BASE, BASE + HUGE, 32 * PAGE), True)
    assert p.rss["anon"] == 256
    p.madvise(BASE, HUGE, Madv.HUGEPAGE)
    m.thp["khugepaged/max_ptes_shared"] = 0
    assert m.thp.scan() == 1
    assert events(m, "scan_exceed_share_pte", "collapse_alloc") == (0, 1)
    assert (p.rss["anon"], m.thp["hugepages-64kB/stats/nr_anon"]) == (512, 0)


def test_one_huge_zero_page():
    m = machine()
    p, q = m.spawn(), m.spawn()
    for each in (p, q):
        each.mmap(2 * HUGE, addr=BASE, flags=FIXED)
        assert each.read(BASE) is Fault.MINOR
        assert each.read(BASE + HUGE) is Fault.MINOR
        assert each.rss_pages == 0
    assert events(m, "zero_page_alloc", "zero_page_alloc_failed", "split_pmd") == (1, 0, 0)
    p.write(BASE)
    assert events(m, "split_pmd", "fault_alloc") == (1, 0)
    assert p.rss["anon"] == 1
    m.thp["use_zero_page"] = 0
    q.mmap(HUGE, addr=BASE + 8 * HUGE, flags=FIXED)
    q.read(BASE + 8 * HUGE)
    assert events(m, "fault_alloc") == (1,)


@pytest.mark.parametrize("mode", ["always", "defer", "defer+madvise", "madvise", "never"])
def test_no_mode_of_defrag_finds_what_is_not_there(mode):
    m = machine(memory="64M")
    m.thp["defrag"] = mode
    held = m.alloc_pages_many(9000, 0)
    m.free_pages_many(held[::2].copy(), 0)  # half is free, in single pages
    p = m.spawn()
    p.mmap(16 * HUGE, addr=BASE, flags=FIXED)
    p.madvise(BASE, 8 * HUGE, Madv.HUGEPAGE)
    got = p.touch(range(BASE, BASE + 16 * HUGE, HUGE), True)
    assert got.minor == 16
    made, failed = events(m, "fault_alloc", "fault_fallback")
    assert failed
    assert made + failed == 16
    assert m.thp["hugepages-2048kB/stats/anon_fault_fallback"] == failed
    assert p.rss["anon"] == made * 512 + failed
    with pytest.raises(MmapError) as caught:
        p.madvise(BASE + 15 * HUGE, HUGE, Madv.COLLAPSE)
    assert caught.value.errno == errno.ENOMEM
    assert events(m, "collapse_alloc_failed") == (1,)


def test_mlock_of_what_is_collapsed():
    m = machine("madvise")
    p = m.spawn(privileged=True)
    at = small(p)
    p.mlock(at, HUGE)
    p.madvise(at, HUGE, Madv.COLLAPSE)
    validate(m.state)
    assert m.vmstat["nr_mlock"] == 512
    p.munmap(at, HUGE)
    validate(m.state)
    assert m.vmstat["nr_mlock"] == 0


def test_random_steps():
    rng = np.random.default_rng(7)
    m = machine("always", memory="96M", sysctl={"vm.nr_hugepages": 3, "vm.nr_overcommit_hugepages": 3})
    m.thp["hugepages-64kB/enabled"] = "always"
    alive = [m.spawn()]
    advice = [Madv.DONTNEED, Madv.FREE, Madv.HUGEPAGE, Madv.NOHUGEPAGE, Madv.COLLAPSE, Madv.COLD]
    for _ in range(400):
        p = alive[int(rng.integers(len(alive)))]
        at = BASE + int(rng.integers(4 * 512)) * PAGE
        length = min(int(rng.integers(1, 700)) * PAGE, BASE + 4 * HUGE - at)
        try:
            match int(rng.integers(12)):
                case 0 | 1:
                    p.mmap(length, addr=at, flags=FIXED)
                case 2:
                    p.munmap(at, length)
                case 3 | 4:
                    p.touch(range(at, at + length, PAGE), bool(rng.integers(2)))
                case 5 | 6:
                    p.madvise(at, length, advice[int(rng.integers(len(advice)))])
                case 7:
                    p.mprotect(at, length, Prot(int(rng.integers(4))))
                case 8:
                    p.mmap(HUGE, addr=at & -HUGE, flags=FIXED | Map.HUGETLB | int(rng.integers(2)) * Map.NORESERVE)
                case 9:
                    m.thp.scan()
                case 10:
                    m.thp.shrink_deferred(int(rng.integers(4)))
                case _ if len(alive) < 4:
                    alive.append(p.fork())
                case _:
                    alive.remove(p)
                    p.exit()
        except MmapError:
            pass
        validate(m.state)
        if not alive:
            alive = [m.spawn()]
    for p in alive:
        p.exit()
    validate(m.state)
    assert m.hugetlb_pool == (3, 3, 0, 0)
    assert m.thp.nr_deferred == 0
    assert all(m.thp[f"hugepages-{4 << order}kB/stats/nr_anon"] == 0 for order in range(2, 10))
