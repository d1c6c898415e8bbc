"""hugetlb on the core: the pool, reservations, faults, and what mappings of huge pages refuse."""

import errno

import pytest

from mmcore.sys import hugepages
from mmcore.sys.recount import validate
from mmpy.errors import BusError, MmapError
from mmpy.machine import Machine
from mmpy.vmflags import Fault, Madv, Map, Mremap, Prot

MIB = 1 << 20
HUGE = 2 * MIB
PAGE = 4096
FLAGS = Map.PRIVATE | Map.ANONYMOUS | Map.HUGETLB


def machine(nr=0, overcommit=0):
    return Machine("128M", sysctl={"vm.nr_hugepages": nr, "vm.nr_overcommit_hugepages": overcommit})


def pool(m):
    """(total, free, reserved, surplus), after a recount."""
    validate(m.state)
    return m.hugetlb_pool


def refused(number, call, *args, **kw):
    with pytest.raises(MmapError) as caught:
        call(*args, **kw)
    assert caught.value.errno == number


def test_the_sequence_of_a_real_kernel():
    m = machine(4)
    p = m.spawn()
    first = p.mmap(3 * HUGE, flags=FLAGS)
    assert first % HUGE == 0
    assert pool(m) == (4, 4, 3, 0)
    assert p.write(first) is Fault.MINOR
    assert p.write(first + HUGE - 1) is Fault.HIT
    assert pool(m) == (4, 3, 2, 0)
    assert p.rss_pages == 0
    assert p.minflt == 1
    refused(errno.ENOMEM, p.mmap, 2 * HUGE, flags=FLAGS)
    assert pool(m) == (4, 3, 2, 0)
    m.sysctl["vm.nr_overcommit_hugepages"] = 1
    second = p.mmap(2 * HUGE, flags=FLAGS)
    assert pool(m) == (5, 4, 4, 1)
    p.munmap(second, 2 * HUGE)
    assert pool(m) == (4, 3, 2, 0)
    m.sysctl["vm.nr_hugepages"] = 0
    assert pool(m) == (3, 2, 2, 3)
    p.munmap(first, 3 * HUGE)
    assert pool(m) == (0, 0, 0, 0)


def test_without_a_reservation():
    m = machine(1)
    p = m.spawn()
    reserved = p.mmap(HUGE, flags=FLAGS)
    loose = p.mmap(HUGE, flags=FLAGS | Map.NORESERVE)
    with pytest.raises(BusError):
        p.write(loose)
    assert p.write(reserved) is Fault.MINOR
    p.munmap(reserved, HUGE)
    assert [p.read(loose), p.write(loose), p.write(loose)] == [Fault.MINOR, Fault.MINOR, Fault.HIT]
    assert pool(m) == (1, 0, 0, 0)
    p.exit()
    assert pool(m) == (1, 1, 0, 0)


def test_fork_hands_on_neither_pages_nor_reservations():
    m = machine(3)
    p = m.spawn()
    address = p.mmap(2 * HUGE, flags=FLAGS)
    p.write(address)
    child = p.fork()
    assert pool(m) == (3, 2, 1, 0)
    assert child.write(address) is Fault.MINOR
    assert pool(m) == (3, 1, 1, 0)
    with pytest.raises(BusError):
        child.write(address + HUGE)  # the last free page is the parent's
    child.exit()
    assert pool(m) == (3, 2, 1, 0)
    assert p.write(address + HUGE) is Fault.MINOR
    p.exit()
    assert pool(m) == (3, 3, 0, 0)


def test_parts_of_a_mapping_give_back_their_own_reservations():
    m = machine(6)
    p = m.spawn()
    address = p.mmap(6 * HUGE, flags=FLAGS)
    for block in (0, 1, 4):
        p.write(address + block * HUGE)
    assert pool(m) == (6, 3, 3, 0)
    p.munmap(address + HUGE, 2 * HUGE)  # one used, one not
    assert pool(m) == (6, 4, 2, 0)
    assert len(p.vmas) == 2
    p.madvise(address + 3 * HUGE, 2 * HUGE + PAGE, Madv.DONTNEED)  # the page goes, the reservation is restored
    assert pool(m) == (6, 5, 3, 0)
    p.munmap(address, HUGE)
    assert pool(m) == (6, 6, 3, 0)
    p.exit()
    assert pool(m) == (6, 6, 0, 0)


def test_a_surplus_page_takes_its_reservation_along():
    m = machine(1, 4)
    p = m.spawn()
    address = p.mmap(3 * HUGE, flags=FLAGS)
    assert pool(m) == (3, 3, 3, 2)
    p.touch(range(address, address + 3 * HUGE, HUGE), True)
    p.madvise(address, 2 * HUGE, Madv.DONTNEED)
    assert pool(m) == (1, 0, 0, 0)  # two surplus pages are gone
    p.mprotect(address, HUGE, Prot.READ)
    p.mprotect(address, HUGE, Prot.READ | Prot.WRITE)
    assert p.write(address) is Fault.MINOR  # a new surplus page, as without a reservation
    assert pool(m) == (2, 0, 0, 1)
    m.sysctl["vm.nr_overcommit_hugepages"] = 0
    with pytest.raises(BusError):
        p.write(address + HUGE)
    p.munmap(address + HUGE, HUGE)
    assert pool(m) == (2, 0, 0, 1)
    assert "Private_Hugetlb:    2048 kB" in p.smaps()
    p.exit()
    assert pool(m) == (1, 1, 0, 0)
    assert p not in m.processes


def test_refusals_change_nothing():
    m = machine(4)
    p = m.spawn()
    address = p.mmap(2 * HUGE - PAGE, flags=FLAGS)
    before = (pool(m), [(v.start, v.end) for v in p.vmas])
    assert p.vmas[0].end - p.vmas[0].start == 2 * HUGE
    refused(errno.EINVAL, p.munmap, address + PAGE, HUGE)
    refused(errno.EINVAL, p.munmap, address, HUGE + PAGE)
    refused(errno.EINVAL, p.mprotect, address, PAGE, Prot.READ)
    refused(errno.EINVAL, p.madvise, address + PAGE, HUGE, Madv.DONTNEED)
    for advice in (Madv.FREE, Madv.COLD, Madv.PAGEOUT, Madv.WIPEONFORK, Madv.COLLAPSE):
        refused(errno.EINVAL, p.madvise, address, HUGE, advice)
    refused(errno.EINVAL, p.madvise, address, PAGE, Madv.DONTFORK)
    refused(errno.EINVAL, p.mremap, address, 2 * HUGE, 3 * HUGE, flags=Mremap.MAYMOVE)
    refused(errno.EINVAL, p.mremap, address, HUGE, HUGE, flags=Mremap.MAYMOVE | Mremap.FIXED, new_addr=address + 64 * MIB)
    refused(errno.EINVAL, p.mmap, HUGE, flags=FLAGS | Map.HUGE_1GB)
    refused(errno.EINVAL, p.mmap, HUGE, flags=FLAGS | Map.FIXED, addr=address + PAGE)
    refused(errno.EINVAL, p.mmap, HUGE, flags=Map.SHARED | Map.ANONYMOUS | Map.HUGETLB)
    refused(errno.EINVAL, p.mmap, 0, flags=FLAGS)
    refused(errno.EINVAL, p.mmap, (1 << 64) - 1, flags=FLAGS)
    refused(errno.ENOMEM, p.mmap, 1 << 46, flags=FLAGS)
    refused(errno.EINVAL, p.mmap, PAGE, flags=Map.PRIVATE | Map.ANONYMOUS | Map.FIXED, addr=address + PAGE)
    assert (pool(m), [(v.start, v.end) for v in p.vmas]) == before
    assert p.mremap(address, 2 * HUGE, HUGE) == address
    assert pool(m) == (4, 4, 1, 0)
    assert p.mmap(HUGE, flags=FLAGS | Map.HUGE_2MB) % HUGE == 0
    p.mlock(address, HUGE)
    assert p.locked_vm == 0


def test_populate_figures_and_texts():
    m = machine()
    free, limit = m.zones[1].nr_free_pages, m.commit_limit
    m.sysctl["vm.nr_hugepages"] = 4
    assert m.sysctl["vm.nr_hugepages"] == 4
    p = m.spawn()
    committed = int(m.state.vm_globals["committed"][0])
    address = p.mmap(3 * HUGE, flags=FLAGS | Map.POPULATE)
    assert p.touch(range(address, address + 3 * HUGE, PAGE), True).hits == 3 * 512
    assert int(m.state.vm_globals["committed"][0]) == committed
    assert pool(m) == (4, 1, 0, 0)
    locked = p.mmap(HUGE, flags=FLAGS | Map.LOCKED)
    assert p.write(locked) is Fault.HIT
    assert p.locked_vm == 0
    assert "HugetlbPages:\t    8192 kB" in p.status()
    assert "Private_Hugetlb:    6144 kB" in p.smaps()
    assert "KernelPageSize:     2048 kB" in p.smaps()
    rows = {line.split(":")[0]: int(line.split()[1]) for line in m.proc.meminfo().splitlines()}
    assert [rows["HugePages_" + name] for name in ("Total", "Free", "Rsvd", "Surp")] == [4, 0, 0, 0]
    assert rows["Hugetlb"] == 4 * 2048
    assert rows["CommitLimit"] == (m.totalram_pages - 4 * 512) * 50 // 100 * 4
    assert free - m.zones[1].nr_free_pages > 4 * 512
    assert limit - m.commit_limit == 4 * 512 // 2
    events = m.state.vm_globals["events"][0]
    assert (int(events[57]), int(events[58])) == (4, 0)  # htlb_buddy_alloc_success, _fail
    reached = hugepages.set_nr_hugepages(m.state, 10**9)
    assert 4 < reached < 64
    assert int(events[58]) == 1
    p.exit()
    m.sysctl["vm.nr_hugepages"] = 0
    assert pool(m) == (0, 0, 0, 0)
