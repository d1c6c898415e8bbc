"""Virtual memory: what was seen on a real kernel, by the specification. Faults and pages."""

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


# 7 anonymous memory


def test_1_zero_page_then_write(machine):
    p = machine.spawn()
    address = small(p, 16)
    assert p.touch(address, 16) == {"minor": 16}
    assert p.rss["anon"] == 0
    assert p.touch(address, 16, True) == {"minor": 16}
    assert p.rss["anon"] == 16
    fresh = small(p, 16)
    assert p.touch(fresh, 16, True) == {"minor": 16}
    assert p.touch(fresh, 16, True) == {"hit": 16}
    assert machine.events["pgfault"] == 48


def test_no_right_no_fault(machine):
    p = machine.spawn()
    address = small(p, 2, RO)
    assert p.touch(address, 1, True) == {"segv": 1}
    assert p.touch(address + 2 * PAGE, 1) == {"segv": 1}
    assert p.touch(1 << 47, 1) == {"segv": 1}
    assert machine.events["pgfault"] == 0
    assert p.touch(address, 1) == {"minor": 1}


# 8 writes to present entries


def test_4_fork_sequences(machine):
    p = machine.spawn()
    address = small(p, 100)
    p.touch(address, 100, True)

    def write(process):
        before = machine.cow_copies, machine.events["pgreuse"]
        assert process.touch(address, 100, True) == {"minor": 100}
        return machine.cow_copies - before[0], machine.events["pgreuse"] - before[1]

    child = p.fork()
    assert write(child) == (100, 0)
    assert write(p) == (0, 100)
    child.exit()
    child = p.fork()
    assert write(p) == (100, 0)
    child.exit()
    child = p.fork()
    child.exit()
    assert write(p) == (0, 100)
    child = p.fork()
    faults = machine.events["pgfault"]
    assert child.touch(address, 100) == {"hit": 100}
    assert machine.events["pgfault"] == faults


def test_fork_shares_and_copies_part(machine):
    p = machine.spawn()
    address = small(p, 2)
    p.touch(address, 2, True)
    child = p.fork()
    vpn = address // PAGE
    assert p.dump()["ptes"][vpn] == ("anon", False, True, True, (p.pid, vpn))
    assert child.dump()["ptes"][vpn] == ("anon", False, True, False, (p.pid, vpn))
    child.touch(address, 1, True)
    assert child.dump()["ptes"][vpn] == ("anon", True, True, True, (child.pid, vpn))
    assert child.dump()["ptes"][vpn + 1][4] == (p.pid, vpn + 1)


def test_child_inherits_nothing_of_files_and_shared_memory(machine):
    p = machine.spawn()
    file = machine.open("f", 64 * PAGE)
    mapped = p.mmap(16 * PAGE, flags=c.MAP_PRIVATE, file=file)
    shared = p.mmap(4 * PAGE, flags=c.MAP_SHARED | c.MAP_ANONYMOUS)
    p.touch(mapped, 16)
    p.touch(shared, 4, True)
    child = p.fork()
    assert child.rss == {"file": 0, "anon": 0, "swap": 0, "shmem": 0}
    assert child.page_table_bytes == 0
    assert child.touch(shared, 4) == {"minor": 1, "hit": 3}
    # with one private page the VMA's file entries are copied too
    p.touch(mapped, 1, True)
    second = p.fork()
    assert (second.rss["file"], second.rss["anon"]) == (15, 1)


# 9 files


def test_5_fault_around(machine):
    p = machine.spawn()
    file = machine.open("f", 512 * PAGE)
    start = (1 << 30) + 185 * PAGE
    assert p.mmap(20 * PAGE, addr=start, prot=RO, flags=c.MAP_PRIVATE | c.MAP_FIXED, file=file) == start
    assert p.touch(start + 6 * PAGE, 1) == {"minor": 1}
    assert sorted(p.dump()["ptes"]) == [start // PAGE + i for i in range(16)]
    assert p.rss["file"] == 16
    fresh = (1 << 31) + 185 * PAGE
    p.mmap(40 * PAGE, addr=fresh, flags=c.MAP_PRIVATE | c.MAP_FIXED, file=file)
    assert p.touch(fresh + 20 * PAGE, 1, True) == {"minor": 1}
    assert [(vpn, entry[0]) for vpn, entry in p.dump()["ptes"].items() if vpn >= fresh // PAGE] == [(fresh // PAGE + 20, "anon")]


def test_beyond_the_end_of_a_file(machine):
    p = machine.spawn()
    file = machine.open("f", 2 * PAGE + 100)
    address = p.mmap(4 * PAGE, flags=c.MAP_PRIVATE, file=file)
    assert p.touch(address + 2 * PAGE, 1) == {"minor": 1}
    assert p.touch(address + 3 * PAGE, 1) == {"sigbus": 1}
    assert p.touch(address + 3 * PAGE, 1, True) == {"sigbus": 1}
    assert (machine.events["pgfault"], p.minflt) == (3, 1)


def test_shared_file_write_faults(machine):
    p = machine.spawn()
    file = machine.open("f", 4 * PAGE)
    address = p.mmap(4 * PAGE, flags=c.MAP_SHARED, file=file)
    assert p.touch(address, 4) == {"minor": 1, "hit": 3}
    assert p.touch(address, 4, True) == {"minor": 4}
    assert p.touch(address, 4, True) == {"hit": 4}
    q = machine.spawn()
    address = q.mmap(4 * PAGE, flags=c.MAP_SHARED, file=file)
    assert q.touch(address, 4, True) == {"minor": 4}
    tmpfs = machine.open("t", 4 * PAGE, kind="shmem")
    address = q.mmap(4 * PAGE, flags=c.MAP_SHARED, file=tmpfs)
    assert q.touch(address, 1) == {"minor": 1}
    assert q.touch(address, 1, True) == {"hit": 1}
    assert (q.rss["file"], q.rss["shmem"]) == (4, 1)


def test_copies_of_file_pages_are_anonymous(machine):
    p = machine.spawn()
    address = p.mmap(4 * PAGE, flags=c.MAP_PRIVATE, file=machine.open("f", 4 * PAGE))
    p.touch(address, 4)
    assert p.touch(address, 2, True) == {"minor": 2}
    assert (p.rss["file"], p.rss["anon"]) == (2, 2)
