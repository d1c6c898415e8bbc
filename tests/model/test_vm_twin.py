"""Virtual memory: what was seen on a real kernel, by the specification. Address spaces."""

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
    machine = system.machine(thp="never")
    yield machine
    machine.check()


def put(process, first, pages, prot=RW, flags=FIXED, **kw):
    """Map `pages` pages from page `first` of the test range on."""
    address = process.mmap(pages * PAGE, addr=BASE + first * PAGE, prot=prot, flags=flags, **kw)
    assert address == BASE + first * PAGE
    return address


# 4.2 placement


def test_mmap_base_and_top_down(machine):
    p = machine.spawn()
    first = p.mmap(PAGE)
    assert first + PAGE == 0x7FFFF7FFF000
    assert p.mmap(3 * PAGE, prot=RO) == first - 3 * PAGE
    assert p.munmap(first, PAGE) == 0
    assert p.mmap(PAGE, prot=c.PROT_EXEC) == first


def test_multiples_of_2m_are_aligned_others_not(machine):
    p = machine.spawn()
    top = 0x7FFFF7FFF000
    assert p.mmap(2 * MIB) == 0x7FFFF7C00000
    assert p.mmap(2 * MIB + PAGE) == 0x7FFFF7C00000 - 2 * MIB - PAGE
    # what the alignment left free above is still found
    assert p.mmap(PAGE, prot=RO) == top - PAGE
    # shared memory is not aligned
    assert machine.spawn().mmap(2 * MIB, flags=c.MAP_SHARED | c.MAP_ANONYMOUS) == top - 2 * MIB


def test_padding_that_is_aligned_already(machine):
    p = machine.spawn()
    assert p.mmap(2 * MIB - PAGE, prot=RO) == 0x7FFFF7E00000
    # room of 4 MiB ends at a multiple: the whole spare is skipped
    assert p.mmap(2 * MIB) == 0x7FFFF7C00000


def test_hint_taken_if_free(machine):
    p = machine.spawn()
    plain = c.MAP_PRIVATE | c.MAP_ANONYMOUS
    assert p.mmap(PAGE, addr=BASE + 5, flags=plain) == BASE
    assert p.mmap(PAGE, addr=BASE, flags=plain) == 0x7FFFF7FFE000
    assert p.mmap(PAGE, addr=PAGE, flags=plain) == 65536
    assert p.mmap(PAGE, addr=c.MAP_WINDOW, flags=plain) == 0x7FFFF7FFD000


def test_stack_guard_gap_below_a_growing_vma(machine):
    p = machine.spawn()
    top = 0x7FFFF7FFF000
    assert p.mmap(PAGE, addr=top - PAGE, flags=FIXED | c.MAP_GROWSDOWN) == top - PAGE
    assert p.mmap(PAGE) == top - PAGE - 256 * PAGE - PAGE


def test_bottom_up_when_the_top_is_full(machine):
    p = machine.spawn()
    top = 0x7FFFF7FFF000
    low = 0x200000000000
    assert p.mmap(top - 65536, addr=65536, prot=c.PROT_NONE, flags=FIXED) == 65536
    assert p.munmap(low, PAGE) == 0
    # below a third of the address space: only the search from the top finds it
    assert p.mmap(PAGE) == low
    assert p.mmap(PAGE) == top
    assert p.mmap(1 << 47) == -c.ENOMEM


# 4.3 mmap rules


def test_bad_arguments(machine):
    p = machine.spawn()
    assert p.mmap(0) == -c.EINVAL
    assert p.mmap(PAGE, flags=c.MAP_ANONYMOUS) == -c.EINVAL
    assert p.mmap(PAGE, addr=BASE + 1, flags=FIXED) == -c.EINVAL
    assert p.mmap(PAGE, addr=0, flags=FIXED) == -c.EPERM
    assert p.mmap(PAGE, addr=1 << 47, flags=FIXED) == -c.ENOMEM
    assert p.munmap(BASE + 1, PAGE) == -c.EINVAL
    assert p.munmap(BASE, 0) == -c.EINVAL
    assert p.munmap(BASE, PAGE) == 0
    assert p.mprotect(BASE, PAGE, RO) == -c.ENOMEM


def test_files_opened_read_only(system):
    twin_only(system, "files of the core are all open for reading and writing")
    machine = system.machine(thp="never")
    p = machine.spawn()
    file = machine.open("read only", PAGE, writable=False)
    assert p.mmap(PAGE, flags=c.MAP_SHARED, file=file) == -c.EACCES
    address = p.mmap(PAGE, prot=RO, flags=c.MAP_SHARED, file=file)
    assert p.mprotect(address, PAGE, RW) == -c.EACCES


def test_10_max_map_count(system):
    machine = system.machine(sysctl={"max_map_count": 200})
    p = machine.spawn()
    count = 0
    while p.mmap(PAGE, addr=BASE + count * PAGE, prot=RO if count % 2 else RW, flags=FIXED) > 0:
        count += 1
    assert p.map_count == count == 201
    assert p.mmap(PAGE) == -c.ENOMEM
    # a split needs room below the limit, the unmapping of whole VMAs does not
    assert p.munmap(BASE, 3 * PAGE) == 0
    q = p.mmap(4 * PAGE, addr=BASE - 8 * PAGE, flags=FIXED)
    assert p.map_count == 199
    assert p.mprotect(q + PAGE, PAGE, RO) == -c.ENOMEM
    assert p.map_count == 200
    assert p.madvise(q + 2 * PAGE, PAGE, c.MADV_RANDOM) == -c.EAGAIN
    assert p.munmap(q + 2 * PAGE, PAGE) == -c.ENOMEM
    machine.check()


def test_fixed_replaces_and_noreplace_refuses(machine):
    p = machine.spawn()
    put(p, 0, 6)
    assert p.touch(BASE, 6, True) == {"minor": 6}
    put(p, 2, 2, RO)
    assert p.map_count == 3
    assert p.rss["anon"] == 4
    assert p.mmap(PAGE, addr=BASE, flags=FIXED | c.MAP_FIXED_NOREPLACE) == -c.EEXIST
    assert p.mmap(PAGE, addr=BASE + 6 * PAGE, flags=FIXED | c.MAP_FIXED_NOREPLACE) == BASE + 6 * PAGE


def test_limits(system):
    machine = system.machine(thp="never")
    p = machine.spawn(rlimits={"as": 10 * PAGE, "data": 4 * PAGE})
    assert p.mmap(5 * PAGE) == -c.ENOMEM
    address = p.mmap(4 * PAGE)
    assert address > 0
    assert p.mmap(PAGE) == -c.ENOMEM
    read_only = p.mmap(5 * PAGE, prot=RO)
    assert read_only > 0
    assert p.mprotect(read_only, PAGE, RW) == -c.ENOMEM
    assert p.mmap(PAGE, prot=RO) > 0
    assert p.mmap(PAGE, prot=RO) == -c.ENOMEM
    # at the limit of the address space the data limit is not asked any more
    assert p.mprotect(read_only, PAGE, RW) == 0
    # replacing counts what goes away
    assert p.mmap(4 * PAGE, addr=address, prot=RO, flags=FIXED) == address
    assert (p.total_vm, p.data_vm) == (10, 1)


# 4.4 merging


def test_9a_fresh_hole_joins_only_the_left(machine):
    p = machine.spawn()
    for first in (0, 8):
        put(p, first, 4)
        p.touch(BASE + first * PAGE, 4, True)
    put(p, 4, 4)
    assert p.spans() == [(BASE, BASE + 8 * PAGE), (BASE + 8 * PAGE, BASE + 12 * PAGE)]


def test_9b_pieces_of_one_vma_join(machine):
    p = machine.spawn()
    put(p, 0, 12)
    p.touch(BASE, 12, True)
    assert p.munmap(BASE + 4 * PAGE, 4 * PAGE) == 0
    put(p, 4, 4)
    assert p.spans() == [(BASE, BASE + 12 * PAGE)]


def test_9c_faulted_does_not_join_unfaulted(machine):
    p = machine.spawn()
    put(p, 2, 2)
    p.touch(BASE + 2 * PAGE, 2, True)
    assert p.mprotect(BASE + 2 * PAGE, 2 * PAGE, RO) == 0
    put(p, 0, 2)
    assert p.mprotect(BASE + 2 * PAGE, 2 * PAGE, RW) == 0
    assert p.map_count == 2
    # the other way round
    q = machine.spawn()
    put(q, 2, 2)
    q.touch(BASE + 2 * PAGE, 2, True)
    put(q, 0, 2, RO)
    assert q.mprotect(BASE, 2 * PAGE, RW) == 0
    assert q.spans() == [(BASE, BASE + 4 * PAGE)]


def test_9d_child_does_not_join_what_it_inherited(machine):
    p = machine.spawn()
    put(p, 0, 12)
    p.touch(BASE, 12, True)
    p.munmap(BASE + 4 * PAGE, 4 * PAGE)
    child = p.fork()
    put(child, 4, 4)
    assert child.map_count == 3
    assert [vma["chain"] for vma in child.dump()["vmas"]] == [2, 0, 2]
    put(p, 4, 4)
    assert p.map_count == 1


def test_neighbours_anon_vma_is_reused(machine):
    p = machine.spawn()
    put(p, 0, 4)
    p.mprotect(BASE, 2 * PAGE, RW | c.PROT_EXEC)
    assert p.map_count == 2
    p.touch(BASE, 4, True)
    p.mprotect(BASE, 2 * PAGE, RW)
    assert p.map_count == 1
