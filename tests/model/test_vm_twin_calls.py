"""Virtual memory: what was seen on a real kernel, by the specification. Calls, commit, tables."""

import pytest

from tests.model.vm_backends import SYSTEMS
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
    machine = system.machine(thp="never")
    yield machine
    machine.check()


def put(process, first, pages, prot=RW, flags=FIXED, **kw):
    """Map `pages` pages from page `first` of the test range on."""
    address = process.mmap(pages * PAGE, addr=BASE + first * PAGE, prot=prot, flags=flags, **kw)
    assert address == BASE + first * PAGE
    return address


# 4.5 mprotect, mremap, brk, stack


def test_mprotect_stops_at_a_hole(machine):
    p = machine.spawn()
    put(p, 0, 2)
    put(p, 3, 2)
    assert p.mprotect(BASE, 5 * PAGE, RO) == -c.ENOMEM
    assert [vma["flags"] & c.VM_WRITE for vma in p.dump()["vmas"]] == [0, c.VM_WRITE]


def test_mprotect_back_needs_no_fault_for_exclusive_pages(machine):
    p = machine.spawn()
    put(p, 0, 4)
    p.touch(BASE, 2, True)
    p.touch(BASE + 2 * PAGE, 1)
    p.mprotect(BASE, 4 * PAGE, c.PROT_NONE)
    assert p.touch(BASE, 1) == {"segv": 1}
    assert p.rss["anon"] == 2
    p.mprotect(BASE, 4 * PAGE, RW)
    assert p.touch(BASE, 4, True) == {"hit": 2, "minor": 2}


def test_mremap_moves_entries(machine):
    p = machine.spawn()
    put(p, 0, 4)
    put(p, 4, 1, RO)
    p.touch(BASE, 4, True)
    faults = p.minflt
    assert p.mremap(BASE, 4 * PAGE, 8 * PAGE) == -c.ENOMEM
    address = p.mremap(BASE, 4 * PAGE, 8 * PAGE, c.MREMAP_MAYMOVE)
    assert address == 0x7FFFF7FFF000 - 8 * PAGE
    assert p.touch(address, 4, True) == {"hit": 4}
    assert p.touch(BASE, 1) == {"segv": 1}
    assert p.minflt == faults
    assert p.touch(address + 4 * PAGE, 4, True) == {"minor": 4}
    assert machine.committed == 8
    vma = p.dump()["vmas"][1]
    assert (vma["start"], vma["pgoff"]) == (address, BASE // PAGE)
    assert p.mremap(address, 8 * PAGE, PAGE) == address
    assert (p.total_vm, machine.committed) == (2, 1)


def test_mremap_grows_in_place_and_merges(machine):
    p = machine.spawn()
    put(p, 0, 2)
    put(p, 4, 2)
    p.touch(BASE, 1, True)
    assert p.mremap(BASE, 2 * PAGE, 4 * PAGE) == BASE
    # the extension is faulted memory, its neighbour not
    assert p.spans() == [(BASE, BASE + 4 * PAGE), (BASE + 4 * PAGE, BASE + 6 * PAGE)]
    assert machine.committed == 6
    assert p.mremap(BASE, 100 * PAGE, 101 * PAGE) == -c.EFAULT
    assert p.mremap(BASE, 0, PAGE, c.MREMAP_MAYMOVE) == -c.EINVAL
    assert p.mremap(BASE + 50 * PAGE, PAGE, PAGE) == -c.EFAULT


def test_mremap_dup_of_shared(machine):
    p = machine.spawn()
    address = p.mmap(4 * PAGE, flags=c.MAP_SHARED | c.MAP_ANONYMOUS)
    p.touch(address, 4, True)
    twin = p.mremap(address, 0, 4 * PAGE, c.MREMAP_MAYMOVE)
    assert twin > 0
    assert p.touch(twin, 1) == {"minor": 1}
    assert (p.rss["shmem"], p.total_vm) == (8, 8)
    assert machine.committed == 4


def test_mremap_moves_tables_and_huge_pages(system):
    machine = system.machine()
    p = machine.spawn()
    base = p.mmap(4 * MIB)
    p.touch(base, 1024, True)
    before = p.page_table_bytes
    target = BASE + 512 * MIB
    assert p.mremap(base, 4 * MIB, 4 * MIB, c.MREMAP_MAYMOVE | c.MREMAP_FIXED, target) == target
    assert p.touch(target, 1024, True) == {"hit": 1024}
    assert p.page_table_bytes == before
    assert machine.events["thp_split_pmd"] == 0
    odd = target + 64 * MIB + PAGE
    assert p.mremap(target, 4 * MIB, 4 * MIB, c.MREMAP_MAYMOVE | c.MREMAP_FIXED, odd) == odd
    assert p.touch(odd, 1024, True) == {"hit": 1024}
    assert (machine.events["thp_split_pmd"], machine.events["thp_deferred_split_page"]) == (2, 0)
    machine.check()


def test_brk(machine):
    p = machine.spawn(exec=True)
    start = p.brk()
    assert p.brk(start + 3 * PAGE) == start + 3 * PAGE
    before = p.map_count
    assert p.brk(start + 5 * PAGE + 1) == start + 5 * PAGE + 1
    assert p.map_count == before
    assert p.brk(start - 1) == start + 5 * PAGE + 1
    p.mmap(PAGE, addr=start + 10 * PAGE, flags=FIXED)
    # a page must stay free before the next mapping
    assert p.brk(start + 10 * PAGE) == start + 5 * PAGE + 1
    assert p.brk(start + 9 * PAGE) == start + 9 * PAGE
    assert p.brk(start) == start
    # a heap that begins within the program's last page of data is a VMA of its own no more
    assert start not in dict(p.spans())


def test_stack_after_exec_and_13_guard_gap(machine):
    p = machine.spawn(exec=True)
    stack = p.dump()["vmas"][-1]
    start = stack["start"]
    assert stack["end"] - start == 132 * 1024
    assert p.stack_vm == 33
    assert p.mmap(PAGE, addr=start - 300 * PAGE, flags=FIXED) > 0
    assert p.touch(start - 43 * PAGE, 1, True) == {"minor": 1}
    assert p.touch(start - 44 * PAGE, 1, True) == {"segv": 1}
    assert p.stack_vm == 33 + 43


def test_stack_limit(machine):
    p = machine.spawn(exec=True)
    end = p.dump()["vmas"][-1]["end"]
    assert p.touch(end - 8 * MIB, 1, True) == {"minor": 1}
    assert p.touch(end - 8 * MIB - PAGE, 1, True) == {"segv": 1}


# 4.6 madvise


def test_dontneed_and_holes(machine):
    p = machine.spawn()
    put(p, 0, 4)
    put(p, 6, 2)
    p.touch(BASE, 4, True)
    p.touch(BASE + 6 * PAGE, 2, True)
    assert p.madvise(BASE, 8 * PAGE, c.MADV_DONTNEED) == -c.ENOMEM
    assert p.rss["anon"] == 0
    assert p.touch(BASE, 4, True) == {"minor": 4}
    assert p.madvise(BASE + 1, PAGE, c.MADV_DONTNEED) == -c.EINVAL
    p.mlock(BASE, PAGE)
    assert p.madvise(BASE, 4 * PAGE, c.MADV_DONTNEED) == -c.EINVAL


def test_free_keeps_rss_and_a_write_needs_no_fault(machine):
    p = machine.spawn()
    put(p, 0, 4)
    p.touch(BASE, 4, True)
    assert p.madvise(BASE, 4 * PAGE, c.MADV_FREE) == 0
    assert p.rss["anon"] == 4
    assert {entry[1:4] for entry in p.dump()["ptes"].values()} == {(True, False, False)}
    assert p.touch(BASE, 4, True) == {"hit": 4}
    file = machine.open("f", 4 * PAGE)
    address = p.mmap(4 * PAGE, file=file, flags=c.MAP_PRIVATE)
    assert p.madvise(address, PAGE, c.MADV_FREE) == -c.EINVAL


def test_populate(machine):
    p = machine.spawn()
    put(p, 0, 4)
    assert p.madvise(BASE, 4 * PAGE, c.MADV_POPULATE_READ) == 0
    assert (p.minflt, p.rss["anon"]) == (4, 0)
    assert p.madvise(BASE, 4 * PAGE, c.MADV_POPULATE_WRITE) == 0
    assert (p.minflt, p.rss["anon"]) == (8, 4)
    assert p.madvise(BASE, 5 * PAGE, c.MADV_POPULATE_READ) == -c.ENOMEM
    p.mprotect(BASE, 4 * PAGE, RO)
    assert p.madvise(BASE, PAGE, c.MADV_POPULATE_WRITE) == -c.EINVAL
    put(p, 8, 4, flags=FIXED | c.MAP_POPULATE)
    assert p.touch(BASE + 8 * PAGE, 4, True) == {"hit": 4}


def test_dontfork_and_wipeonfork(machine):
    p = machine.spawn()
    put(p, 0, 6)
    p.touch(BASE, 6, True)
    assert p.madvise(BASE, 2 * PAGE, c.MADV_DONTFORK) == 0
    assert p.madvise(BASE + 2 * PAGE, 2 * PAGE, c.MADV_WIPEONFORK) == 0
    child = p.fork()
    assert child.spans() == [(BASE + 2 * PAGE, BASE + 4 * PAGE), (BASE + 4 * PAGE, BASE + 6 * PAGE)]
    assert (child.total_vm, child.rss["anon"]) == (4, 2)
    assert child.touch(BASE, 1) == {"segv": 1}
    assert child.touch(BASE + 2 * PAGE, 2) == {"minor": 2}
    shared = p.mmap(PAGE, flags=c.MAP_SHARED | c.MAP_ANONYMOUS)
    assert p.madvise(shared, PAGE, c.MADV_WIPEONFORK) == -c.EINVAL


# 5 commit accounting


def test_commit_limit(system):
    assert system.machine(988500 // 4).commit_limit * 4 == 494248
    machine = system.machine(1466196 // 4, sysctl={"nr_hugepages": 3})
    assert machine.commit_limit * 4 == 730024


def test_11_mode_0(system):
    machine = system.machine(366549, swap_pages=1000, thp="never")
    p = machine.spawn()
    assert p.mmap(64 << 30) == -c.ENOMEM
    assert p.mmap((366549 + 1001) * PAGE) == -c.ENOMEM
    assert p.mmap((366549 + 1000) * PAGE) > 0


def test_11_mode_2(system):
    machine = system.machine(366549, sysctl={"overcommit_memory": 2})
    p = machine.spawn(privileged=True)
    assert p.mmap(64000 * PAGE) > 0
    largest = machine.commit_limit - machine.committed - min(p.total_vm // 32, 366549 // 32) - 1
    assert p.mmap((largest + 1) * PAGE) == -c.ENOMEM
    assert p.mmap(largest * PAGE, flags=c.MAP_PRIVATE | c.MAP_ANONYMOUS | c.MAP_NORESERVE) > 0
    assert machine.committed == 64000 + largest


def test_12_charges(machine):
    p = machine.spawn()
    half = 50 * MIB
    address = p.mmap(2 * half)
    assert machine.committed * 4 == 102400
    assert p.mprotect(address, half, RO) == 0
    assert machine.committed * 4 == 51200
    assert p.touch(address + half, 1, True) == {"minor": 1}
    assert p.mprotect(address + half, half, RO) == 0
    assert machine.committed * 4 == 51200
    p.mmap(2 * half, flags=c.MAP_PRIVATE | c.MAP_ANONYMOUS | c.MAP_NORESERVE)
    assert machine.committed * 4 == 51200
    shared = p.mmap(8 * PAGE, flags=c.MAP_SHARED | c.MAP_ANONYMOUS)
    assert machine.committed == 51200 // 4 + 8
    # shared memory keeps its charge until the last piece goes
    p.munmap(shared, 7 * PAGE)
    assert machine.committed == 51200 // 4 + 8
    child = p.fork()
    assert machine.committed == 2 * 51200 // 4 + 8
    child.exit()
    p.exit()
    assert machine.committed == 0


# 1.3 page-table pages


def test_tables_of_a_sparse_gigabyte(machine):
    p = machine.spawn()
    base = 5 << 39
    p.mmap(1 << 30, addr=base, flags=FIXED)
    for block in range(512):
        p.touch(base + block * 2 * MIB, 1, True)
    assert p.page_table_bytes == 2056 * 1024
    p.madvise(base, 1 << 30, c.MADV_DONTNEED)
    assert p.page_table_bytes == 2056 * 1024
    child = p.fork()
    assert child.page_table_bytes == 2056 * 1024
    p.munmap(base, 1 << 30)
    assert p.page_table_bytes == 0


def test_tables_stay_while_a_neighbour_is_in_their_range(machine):
    p = machine.spawn()
    base = 5 << 39
    p.mmap(4 * MIB, addr=base, flags=FIXED)
    p.mmap(PAGE, addr=base + 4 * MIB, prot=RO, flags=FIXED)
    p.touch(base, 1, True)
    p.touch(base + 3 * MIB, 1, True)
    p.munmap(base, 3 * MIB)
    assert [level for level, _ in p.dump()["tables"]] == [0, 1, 2]
    p.munmap(base + 3 * MIB, MIB)
    # the neighbour behind has no entry, but lies within the range of the upper tables
    assert [level for level, _ in p.dump()["tables"]] == [1, 2]
    p.munmap(base + 4 * MIB, PAGE)
    assert p.page_table_bytes == 0


def test_five_levels(system):
    machine = system.machine(thp="never", levels=5)
    p = machine.spawn()
    address = p.mmap(PAGE)
    assert address == 0x7FFFF7FFE000
    p.touch(address, 1, True)
    assert [level for level, _ in p.dump()["tables"]] == [0, 1, 2, 3]
    assert p.mmap(PAGE, addr=1 << 50) == 1 << 50
    high = p.mmap(PAGE, addr=1 << 50)
    assert high == 0x7FFFF7FFE000 + (1 << 56) - (1 << 47)
    machine.check()
    p.exit()
    assert p.page_table_bytes == 0
