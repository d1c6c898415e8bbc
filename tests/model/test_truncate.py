"""Truncation and holes of files that are mapped: mappings, private copies, counters, SIGBUS, the TLB."""

import pytest

from mmcore.sys import file_calls
from mmpy import BusError, Machine
from mmpy.vmflags import Madv, Map, Prot

PAGE = 4096
SHARED = Map.SHARED


@pytest.fixture
def machine():
    return Machine("64M", thp="never", cpus=2)


def mapped(m, pages=16, flags=SHARED, kind="disk", write=True, process=None):
    f = m.open("/f", pages * PAGE, kind=kind)
    p = process or m.spawn()
    at = p.mmap(pages * PAGE, file=f, flags=flags)
    p.touch(range(at, at + pages * PAGE, PAGE), write=write)
    return f, p, at


def stat(m, name):
    return int(m.vmstat[name])


def present(p, at, pages):
    return [int(e) >> 63 & 1 for e in p.pagemap(at, pages)]


def sigbus(p, at, write=False):
    with pytest.raises(BusError):
        (p.write if write else p.read)(at)


@pytest.mark.parametrize("kind", ["disk", "ram", "shmem"])
@pytest.mark.parametrize("write", [False, True])
def test_shared_pages_go(machine, kind, write):
    f, p, at = mapped(machine, kind=kind, write=write)
    machine.validate()
    which = "shmem" if kind == "shmem" else "file"
    assert p.rss[which] == 16
    assert stat(machine, "nr_mapped") == 16
    assert file_calls.truncate(machine.state, f.handle, 5 * PAGE + 100) == 0
    machine.validate()
    assert p.rss[which] == 6
    assert stat(machine, "nr_mapped") == stat(machine, "nr_file_pages") == f.nr_cached == 6
    assert present(p, at, 16) == [1] * 6 + [0] * 10
    sigbus(p, at + 6 * PAGE)
    sigbus(p, at + 15 * PAGE, True)
    assert file_calls.truncate(machine.state, f.handle, 0) == 0
    machine.validate()
    assert p.rss[which] == stat(machine, "nr_mapped") == stat(machine, "nr_file_pages") == stat(machine, "nr_dirty") == 0
    sigbus(p, at)
    assert file_calls.truncate(machine.state, f.handle, 2 * PAGE) == 0
    p.write(at + PAGE)
    sigbus(p, at + 2 * PAGE)
    machine.validate()


def test_dirty_pages_go_and_the_last_one_is_dirty(machine):
    f, p, at = mapped(machine)
    assert stat(machine, "nr_dirty") == 16
    file_calls.fsync(machine.state, f.handle)
    assert stat(machine, "nr_dirty") == 0
    p.touch(range(at + 8 * PAGE, at + 12 * PAGE, PAGE), write=True)
    file_calls.truncate(machine.state, f.handle, 10 * PAGE)
    assert stat(machine, "nr_dirty") == 2
    file_calls.truncate(machine.state, f.handle, 7 * PAGE + 1)
    assert stat(machine, "nr_dirty") == 1
    machine.validate()


def test_private_copies_go_with_the_end(machine):
    f, p, at = mapped(machine, flags=Map.PRIVATE, write=False)
    p.touch(range(at + 4 * PAGE, at + 12 * PAGE, PAGE), write=True)
    assert p.rss["anon"] == 8
    assert p.rss["file"] == 8
    assert file_calls.truncate(machine.state, f.handle, 6 * PAGE) == 0
    machine.validate()
    assert p.rss["anon"] == 2
    assert p.rss["file"] == 4
    assert stat(machine, "nr_anon_pages") == 2
    sigbus(p, at + 8 * PAGE)
    sigbus(p, at + 8 * PAGE, True)


def test_a_hole_keeps_private_copies(machine):
    f, p, at = mapped(machine, flags=Map.PRIVATE, write=False)
    p.touch(range(at + 4 * PAGE, at + 8 * PAGE, PAGE), write=True)
    q = machine.spawn(cpu=1)
    b = q.mmap(16 * PAGE, file=f, flags=SHARED)
    q.touch(range(b, b + 16 * PAGE, PAGE), write=True)
    q.madvise(b + 2 * PAGE, 10 * PAGE, Madv.REMOVE)
    machine.validate()
    assert f.nr_cached == 6
    assert f.size == 16 * PAGE
    assert q.rss["file"] == 6
    assert p.rss == {**p.rss, "anon": 4, "file": 6}
    assert present(p, at, 16) == [1, 1, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1, 1]
    q.read(b + 5 * PAGE)  # a hole is no end
    assert file_calls.punch_hole(machine.state, f.handle, 100, 2 * PAGE) == 0  # whole pages only
    assert present(p, at, 2) == [1, 0]
    machine.validate()


def test_forked_processes_and_moved_mappings(machine):
    f, p, at = mapped(machine, pages=600)
    child = p.fork()
    child.touch(range(at, at + 600 * PAGE, PAGE))
    other = machine.spawn(cpu=1)
    b = other.mmap(100 * PAGE, file=f, flags=Map.PRIVATE, offset=500 * PAGE)
    other.touch(range(b, b + 100 * PAGE, PAGE), write=True)
    grandchild = other.fork()
    machine.validate()
    child.munmap(at + 520 * PAGE, 10 * PAGE)  # two VMAs of it
    file_calls.truncate(machine.state, f.handle, 510 * PAGE, 1)
    machine.validate()
    assert p.rss["file"] == child.rss["file"] == 510
    assert other.rss["anon"] == grandchild.rss["anon"] == 10
    assert stat(machine, "nr_mapped") == 510
    file_calls.truncate(machine.state, f.handle, 0)
    machine.validate()
    assert other.rss_pages == p.rss_pages == 0
    for q in (grandchild, other, child, p):
        q.exit()
    machine.validate()


def test_locked_pages(machine):
    f, p, at = mapped(machine)
    p.mlock(at, 16 * PAGE)
    q = machine.spawn(cpu=1)
    b = q.mmap(16 * PAGE, file=f, flags=Map.PRIVATE)
    q.mlock(b, 16 * PAGE)
    machine.validate()
    file_calls.truncate(machine.state, f.handle, 4 * PAGE)
    machine.validate()
    file_calls.punch_hole(machine.state, f.handle, 0, 2 * PAGE)
    machine.validate()
    file_calls.truncate(machine.state, f.handle, 0)
    machine.validate()
    assert stat(machine, "nr_mlock") == stat(machine, "nr_unevictable") == 0


def test_huge_pages_next_to_it():
    m = Machine("64M", thp="always")
    f, p, _at = mapped(m)
    a = p.mmap("4M")
    p.touch(range(a, a + (4 << 20), PAGE), write=True)
    anon = p.rss["anon"]
    file_calls.truncate(m.state, f.handle, PAGE)
    m.validate()
    assert p.rss["anon"] == anon == 1024
    assert p.rss["file"] == 1


def test_parts_of_a_file(machine):
    """Mappings in front of, across and behind the new end; one with a page offset."""
    f = machine.open("/f", 64 * PAGE)
    p = machine.spawn()
    at = [p.mmap(16 * PAGE, file=f, flags=SHARED, offset=o * PAGE) for o in (0, 16, 24, 48)]
    for a in at:
        p.touch(range(a, a + 16 * PAGE, PAGE), write=True)
    file_calls.truncate(machine.state, f.handle, 30 * PAGE)
    assert [sum(present(p, a, 16)) for a in at] == [16, 14, 6, 0]
    machine.validate()
    # a protection that is taken away does not hide the mapping
    p.mprotect(at[0], 16 * PAGE, Prot.NONE)
    file_calls.truncate(machine.state, f.handle, 8 * PAGE)
    assert stat(machine, "nr_mapped") == f.nr_cached == 8
    machine.validate()


def test_too_large(machine):
    f, _, _ = mapped(machine)
    assert file_calls.truncate(machine.state, f.handle, 0x1000000000000000) == -27
    assert f.size == 16 * PAGE
    for offset, length in ((0, 0), (100, 200), (1 << 50, PAGE)):
        assert file_calls.punch_hole(machine.state, f.handle, offset, length) == 0
    assert f.nr_cached == 16
    with pytest.raises(ValueError, match="offset"):
        file_calls.punch_hole(machine.state, f.handle, -1, 1)


@pytest.mark.parametrize("tlb", ["zen", "skylake"])
def test_the_tlb_forgets(tlb):
    m = Machine("64M", thp="never", cpus=2, tlb=tlb)
    f, p, at = mapped(m)
    q = m.spawn(cpu=1)
    b = q.mmap(16 * PAGE, file=f, flags=SHARED)
    q.touch(range(b, b + 16 * PAGE, PAGE))
    file_calls.truncate(m.state, f.handle, 4 * PAGE, 0)
    sigbus(p, at + 5 * PAGE)
    sigbus(q, b + 5 * PAGE)
    m.validate()


def files_alive(m):
    return int(m.state.pools["live"][5]), int(m.state.pools["live"][6])


@pytest.mark.parametrize("kind", ["disk", "ram", "shmem"])
def test_a_file_goes_with_its_last_user(machine, kind):
    f, p, at = mapped(machine, kind=kind)
    child = p.fork()
    f.unlink()
    assert f.alive
    assert f.nr_cached == 16
    machine.validate()
    p.munmap(at, 8 * PAGE)
    child.exit()
    assert f.alive
    assert f.nr_cached == 16
    p.munmap(at + 8 * PAGE, 8 * PAGE)
    assert not f.alive
    assert files_alive(machine) == (0, 0)
    assert stat(machine, "nr_file_pages") == stat(machine, "nr_dirty") == 0
    machine.validate()


def test_shared_anonymous_memory_gives_its_charge_back(machine):
    before = int(machine.state.vm_globals["committed"][0])
    p = machine.spawn()
    at = p.mmap(16 * PAGE, flags=Map.SHARED | Map.ANONYMOUS)
    p.touch(range(at, at + 16 * PAGE, PAGE), write=True)
    assert int(machine.state.vm_globals["committed"][0]) == before + 16
    p.madvise(at, 8 * PAGE, Madv.REMOVE)
    machine.validate()
    assert p.rss["shmem"] == stat(machine, "nr_shmem") == 8
    p.write(at)
    p.exit()
    machine.validate()
    assert int(machine.state.vm_globals["committed"][0]) == before
    assert files_alive(machine) == (0, 0)
    assert stat(machine, "nr_shmem") == 0


def test_a_dirty_file_leaves_the_flushers_lists(machine):
    f, p, _at = mapped(machine)
    g = machine.open("/g", 4 * PAGE)
    file_calls.write(machine.state, g.handle, 0, 4 * PAGE)
    f.unlink()
    p.exit()
    machine.validate()
    h = machine.open("/h", 8 * PAGE)  # the same record
    assert h.handle == f.handle
    assert h.inode != f.inode
    file_calls.write(machine.state, h.handle, 0, 8 * PAGE)
    machine.validate()
    assert stat(machine, "nr_dirty") == 12
    g.unlink()
    with pytest.raises(ValueError, match="no such file"):
        file_calls.unlink(machine.state, g.handle)
    machine.validate()
