"""Virtual memory: what was seen on a real kernel, by the specification. Huge pages, mlock, hugetlb."""

import pytest

from tests.model.vm_backends import SYSTEMS, twin_only
from tests.reference.vm import constants as c

BASE = 0x10000000
PAGE = 4096
MIB = 1 << 20
FIXED = c.MAP_PRIVATE | c.MAP_ANONYMOUS | c.MAP_FIXED
RW, RO = c.PROT_READ | c.PROT_WRITE, c.PROT_READ


@pytest.fixture(params=sorted(SYSTEMS))
def system(request):
    return SYSTEMS[request.param]


@pytest.fixture
def machine(system):
    """Transparent huge pages on, as in Debian."""
    machine = system.machine(thp="always")
    yield machine
    machine.check()


def small(process, pages, prot=RW):
    """Fresh anonymous memory of small pages."""
    address = process.mmap(pages * PAGE, prot=prot)
    assert process.madvise(address, pages * PAGE, c.MADV_NOHUGEPAGE) == 0
    return address


def events(machine, *names):
    return tuple(machine.events[name] for name in names)


# 13 huge pages


def test_2_huge_zero_page(machine):
    p = machine.spawn()
    address = p.mmap(2 * MIB)
    p.mmap(PAGE, addr=address + 2 * MIB, flags=FIXED | c.MAP_NORESERVE)
    p.touch(address + 2 * MIB, 1)
    before = p.page_table_bytes
    assert p.touch(address, 1) == {"minor": 1}
    assert (p.rss["anon"], p.page_table_bytes - before) == (0, PAGE)
    assert machine.events["thp_zero_page_alloc"] == 1
    assert p.touch(address + 5 * PAGE, 1, True) == {"minor": 1}
    assert events(machine, "thp_split_pmd", "thp_fault_alloc") == (1, 0)
    assert (p.rss["anon"], p.anon_huge_pages) == (1, 0)


def test_3_partial_unmap_and_dontneed(machine):
    p = machine.spawn()
    names = ("thp_split_pmd", "thp_deferred_split_page", "thp_split_page")
    address = p.mmap(2 * MIB)
    assert p.touch(address, 512, True) == {"minor": 1, "hit": 511}
    assert (p.rss["anon"], machine.events["thp_fault_alloc"]) == (512, 1)
    p.munmap(address + 7 * PAGE, PAGE)
    assert p.map_count == 2
    assert events(machine, *names) == (1, 1, 0)
    q = machine.spawn()
    other = q.mmap(2 * MIB)
    q.touch(other, 1, True)
    q.madvise(other, MIB, c.MADV_DONTNEED)
    assert events(machine, *names) == (2, 2, 0)
    assert (q.rss["anon"], q.map_count) == (256, 1)
    assert q.touch(other, 1, True) == {"minor": 1}
    assert q.rss["anon"] == 257


def test_mprotect_inside_a_huge_page(machine):
    p = machine.spawn()
    address = p.mmap(2 * MIB)
    p.touch(address, 1, True)
    p.mprotect(address + MIB, 65536, RO)
    assert events(machine, "thp_split_pmd", "thp_deferred_split_page") == (1, 0)
    assert p.touch(address + MIB, 1, True) == {"segv": 1}
    assert p.touch(address, 256, True) == {"hit": 256}


def test_fork_of_a_huge_page(machine):
    p = machine.spawn()
    address = p.mmap(2 * MIB)
    p.touch(address, 1, True)
    child = p.fork()
    assert (child.rss["anon"], child.page_table_bytes) == (512, p.page_table_bytes)
    assert child.touch(address, 1, True) == {"minor": 1}
    assert (machine.events["thp_split_pmd"], child.rss["anon"], child.anon_huge_pages) == (1, 512, 0)
    assert p.anon_huge_pages == 512
    child.exit()
    # the parent is alone again: taken over whole
    assert p.touch(address, 512, True) == {"minor": 1, "hit": 511}
    assert machine.events["thp_deferred_split_page"] == 0


def test_modes_and_fit(system):
    machine = system.machine(thp="madvise")
    p = machine.spawn()
    address = p.mmap(2 * MIB)
    assert p.touch(address, 2, True) == {"minor": 2}
    other = p.mmap(2 * MIB)
    assert p.madvise(other, 2 * MIB, c.MADV_HUGEPAGE) == 0
    assert p.touch(other, 2, True) == {"minor": 1, "hit": 1}
    odd = p.mmap(2 * MIB + PAGE, addr=BASE + PAGE, flags=FIXED)
    p.madvise(odd, 2 * MIB + PAGE, c.MADV_HUGEPAGE)
    assert p.touch(odd, 2, True) == {"minor": 2}
    machine.fail_huge = True
    third = p.mmap(2 * MIB, addr=BASE + 64 * MIB, flags=FIXED)
    p.madvise(third, 2 * MIB, c.MADV_HUGEPAGE)
    assert p.touch(third, 1, True) == {"minor": 1}
    assert events(machine, "thp_fault_alloc", "thp_fault_fallback") == (1, 1)
    machine.check()


def test_mthp(system):
    machine = system.machine(thp="never", sysctl={"mthp": {64: "always"}})
    p = machine.spawn()
    address = p.mmap(64 * PAGE, addr=BASE, flags=FIXED)
    assert p.touch(address + 17 * PAGE, 1, True) == {"minor": 1}
    assert sorted(p.dump()["ptes"]) == [address // PAGE + i for i in range(16, 32)]
    assert p.rss["anon"] == 16
    # a page in the way: the next size down, here a small page
    p.touch(address + 35 * PAGE, 1)
    assert p.touch(address + 36 * PAGE, 2, True) == {"minor": 2}
    child = p.fork()
    assert child.touch(address + 20 * PAGE, 1, True) == {"minor": 1}
    child.exit()
    # a large folio's page is not taken over, but copied
    copies = machine.cow_copies
    p.touch(address + 16 * PAGE, 1, True)
    assert machine.cow_copies == copies + 1
    machine.check()


# 14 mlock


def test_mlock(machine):
    p = machine.spawn(rlimits={"memlock": 8 * PAGE})
    address = small(p, 16)
    assert p.mlock(address, 6 * PAGE) == 0
    assert (p.rss["anon"], p.minflt, p.locked_vm, p.map_count) == (6, 6, 6, 2)
    assert machine.events["unevictable_pgs_mlocked"] == 6
    assert p.mlock(address + 8 * PAGE, 4 * PAGE) == -c.ENOMEM
    # what is locked already does not count twice
    assert p.mlock(address, 8 * PAGE) == 0
    assert p.locked_vm == 8
    child = p.fork()
    assert child.locked_vm == 0
    assert not any(vma["flags"] & c.VM_LOCKED for vma in child.dump()["vmas"])
    child.exit()
    assert p.munlock(address, 16 * PAGE) == 0
    # the faulted part does not join the one that was never touched
    assert (p.locked_vm, p.map_count) == (0, 2)
    assert events(machine, "unevictable_pgs_mlocked", "unevictable_pgs_munlocked") == (8, 8)
    assert p.mlock(address, 4 * PAGE, onfault=True) == 0
    assert p.mmap(8 * PAGE, flags=c.MAP_PRIVATE | c.MAP_ANONYMOUS | c.MAP_LOCKED) == -c.EAGAIN
    assert p.mlock(address + 32 * PAGE, PAGE) == -c.ENOMEM


def test_mlock_of_huge_pages(machine):
    p = machine.spawn()
    address = p.mmap(4 * MIB)
    names = ("unevictable_pgs_mlocked", "unevictable_pgs_munlocked", "thp_fault_alloc", "thp_split_pmd")
    assert p.mlock(address, 4 * MIB) == 0
    assert events(machine, *names) == (1024, 0, 2, 0)
    assert machine.nr_mlock == 1024
    # a border in the middle of one: its PMD is gone, and with it the lock of the whole
    assert p.munlock(address + MIB, PAGE) == 0
    assert events(machine, *names) == (1024, 512, 2, 1)
    assert (p.locked_vm, machine.nr_mlock) == (1023, 512)
    assert p.munmap(address, 4 * MIB) == 0
    assert (p.locked_vm, machine.nr_mlock) == (0, 0)


def test_mlock_takes_large_folios_only_whole(system):
    machine = system.machine(thp="never", sysctl={"mthp": {64: "always"}})
    p = machine.spawn()
    address = p.mmap(32 * PAGE, addr=BASE, flags=FIXED)
    p.touch(address, 32, True)
    assert p.mlock(address, 24 * PAGE) == 0
    assert (p.locked_vm, machine.nr_mlock) == (24, 16)
    # what unlocks needs only a part of it
    assert p.munlock(address + 4 * PAGE, PAGE) == 0
    assert (p.locked_vm, machine.nr_mlock) == (23, 0)
    machine.check()


def test_no_huge_page_in_a_stack_under_construction(machine):
    p = machine.spawn()
    address = p.mmap(2 * MIB, addr=BASE, flags=FIXED | c.MAP_GROWSDOWN)
    p.add_flags(address, c.VM_RAND_READ | c.VM_SEQ_READ)
    assert p.touch(address, 2, True) == {"minor": 2}
    assert p.madvise(address, 2 * MIB, c.MADV_DONTNEED) == 0
    assert machine.events["thp_fault_alloc"] == 0


def test_mlock_without_rights_and_mlockall(machine):
    p = machine.spawn()
    address = small(p, 4, c.PROT_NONE)
    assert p.mlock(address, PAGE) == -c.ENOMEM
    assert p.locked_vm == 1
    assert p.munlockall() == 0
    assert p.mlockall(c.MCL_ONFAULT) == -c.EINVAL
    assert p.mlockall(c.MCL_CURRENT | c.MCL_FUTURE) == 0
    assert p.locked_vm == 4
    fresh = p.mmap(4 * PAGE)
    assert p.touch(fresh, 4, True) == {"hit": 4}
    assert p.locked_vm == 8
    assert machine.spawn(rlimits={"memlock": 0}).mlock(address, PAGE) == -c.EPERM


# 15 hugetlb


def test_hugetlb_pool(system):
    machine = system.machine(sysctl={"nr_hugepages": 4})
    pool = machine.hugetlb
    p = machine.spawn()
    flags = c.MAP_PRIVATE | c.MAP_ANONYMOUS | c.MAP_HUGETLB
    first = p.mmap(6 * MIB, flags=flags)
    assert first % (2 * MIB) == 0
    assert (pool.free, pool.reserved) == (4, 3)
    assert p.touch(first, 2, True) == {"minor": 1, "hit": 1}
    assert (pool.free, pool.reserved) == (3, 2)
    assert p.rss["anon"] == 0
    assert p.mmap(4 * MIB, flags=flags) == -c.ENOMEM
    pool.overcommit = 1
    second = p.mmap(4 * MIB, flags=flags)
    assert (pool.total, pool.surplus, pool.reserved) == (5, 1, 4)
    assert p.munmap(second, 4 * MIB) == 0
    assert pool.total == 4
    pool.resize(0)
    assert (pool.total, pool.free, pool.surplus) == (3, 2, 3)
    assert p.munmap(first + PAGE, 2 * MIB) == -c.EINVAL
    assert p.munmap(first, 6 * MIB) == 0
    assert (pool.total, pool.free, pool.reserved, pool.surplus) == (0, 0, 0, 0)
    machine.check()


def test_hugetlb_without_reservation(system):
    machine = system.machine(sysctl={"nr_hugepages": 1})
    p = machine.spawn()
    flags = c.MAP_PRIVATE | c.MAP_ANONYMOUS | c.MAP_HUGETLB
    reserved = p.mmap(2 * MIB, flags=flags)
    loose = p.mmap(2 * MIB, flags=flags | c.MAP_NORESERVE)
    assert p.touch(loose, 1, True) == {"sigbus": 1}
    assert p.touch(reserved, 1, True) == {"minor": 1}
    p.munmap(reserved, 2 * MIB)
    # private: writable only by a write
    assert p.touch(loose, 1) == {"minor": 1}
    assert p.touch(loose, 1, True) == {"minor": 1}
    p.exit()
    assert (machine.hugetlb.free, machine.hugetlb.reserved) == (1, 0)


def test_hugetlb_after_fork(system):
    twin_only(system, "the core's fork gives the child no huge pages of the pool (sys/hugetlb: omits)")
    machine = system.machine(sysctl={"nr_hugepages": 2})
    p = machine.spawn()
    address = p.mmap(2 * MIB, flags=c.MAP_PRIVATE | c.MAP_ANONYMOUS | c.MAP_HUGETLB)
    p.touch(address, 1, True)
    child = p.fork()
    assert child.touch(address, 1) == {"hit": 1}
    assert child.touch(address, 1, True) == {"minor": 1}
    assert machine.hugetlb.free == 0
    assert p.touch(address, 1, True) == {"minor": 1}
    child.exit()
    child = p.fork()
    assert child.touch(address, 1, True) == {"minor": 1}
    # no page for another copy: the owner takes it from the child
    other = p.fork()
    assert other.touch(address, 1, True) == {"sigbus": 1}
    assert p.touch(address, 1, True) == {"minor": 1}
    assert other.touch(address, 1) == {"sigbus": 1}
    other.exit()
    p.exit()
    child.exit()
    assert (machine.hugetlb.free, machine.hugetlb.reserved) == (2, 0)


def test_hugetlb_shared_file(system):
    twin_only(system, "the core has no hugetlbfs files and no shared huge mappings (sys/hugetlb: omits)")
    machine = system.machine(sysctl={"nr_hugepages": 4})
    file = machine.open("h", 8 * MIB, kind="hugetlb")
    p, q = machine.spawn(), machine.spawn()
    first = p.mmap(4 * MIB, flags=c.MAP_SHARED, file=file)
    assert machine.hugetlb.reserved == 2
    second = q.mmap(6 * MIB, flags=c.MAP_SHARED, file=file)
    assert machine.hugetlb.reserved == 3
    assert p.touch(first, 1, True) == {"minor": 1}
    assert q.touch(second, 1, True) == {"minor": 1}
    assert (machine.hugetlb.free, machine.hugetlb.reserved) == (3, 2)
    assert p.dump()["pmds"][first // PAGE][4] == q.dump()["pmds"][second // PAGE][4]
    # the file keeps its pages and its reservations
    p.exit()
    q.exit()
    assert (machine.hugetlb.free, machine.hugetlb.reserved) == (3, 2)


def test_free_and_mprotect_of_huge_pages(machine):
    p = machine.spawn()
    address = p.mmap(4 * MIB)
    p.touch(address, 1024, True)
    assert p.madvise(address, 2 * MIB, c.MADV_FREE) == 0
    assert p.dump()["pmds"][address // PAGE][1:4] == (True, False, False)
    # part of a huge page is made small to be freed
    assert p.madvise(address + 3 * MIB, MIB, c.MADV_FREE) == 0
    assert events(machine, "thp_split_pmd", "thp_split_page") == (1, 1)
    assert p.mprotect(address, 2 * MIB, RO) == 0
    assert p.touch(address, 1, True) == {"segv": 1}
    assert p.mprotect(address, 2 * MIB, RW) == 0
    assert p.touch(address, 1, True) == {"hit": 1}
    assert machine.events["thp_split_pmd"] == 1


def test_fork_fails_whole(system):
    machine = system.machine(20000, sysctl={"overcommit_memory": 2}, thp="never")
    p = machine.spawn(privileged=True)
    for prot in (RW, RW | c.PROT_EXEC):
        address = p.mmap(3000 * PAGE, prot=prot)
        p.touch(address, 3, True)
    before = p.dump()
    assert p.fork() == -c.ENOMEM
    assert (machine.committed, len(machine.processes)) == (6000, 1)
    assert p.dump()["rss"] == before["rss"]
    machine.check()
