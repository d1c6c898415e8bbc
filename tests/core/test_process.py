"""Process: system calls, accesses, handles that outlive what they name. On a tree without the core's entries, over stand-ins."""

import errno
import itertools
import pickle

import numpy as np
import pytest

from mmpy import (
    AccessResult,
    BusError,
    Fault,
    FileObject,
    Machine,
    Madv,
    Map,
    Mcl,
    MmapError,
    Mremap,
    OutOfMemory,
    Process,
    ProcessError,
    Prot,
    SegmentationFault,
    Vm,
)
from mmpy import accesses as accesses_module
from mmpy.syscalls import outcome, parse_bytes
from tests.core import fake_calls

FAKE = fake_calls.install()
PAGE = 4096


@pytest.fixture
def machine():
    return Machine("64M", cpus=2, sysctl={"kernel.mm.transparent_hugepage.enabled": "never"})


def pages_of(addr, n):
    return range(addr, addr + n * PAGE, PAGE)


def same(machine, before):
    """Whether nothing has changed but which VMA each address space found last."""
    before = before.fork()
    before.state.get("mms")["vma_cache"] = machine.state.get("mms")["vma_cache"]
    return machine == before


# ---------------------------------------------------------------- system calls


def test_lengths_are_texts_or_ints(machine):
    p = machine.spawn()
    for length, pages in (("1M", 256), (1 << 20, 256), (5000, 2), (np.int64(4096), 1), ("0x2000", 2)):
        before = p.total_vm
        addr = p.mmap(length)
        assert type(addr) is int
        assert addr % PAGE == 0
        assert p.total_vm - before == pages
    assert parse_bytes("64M") == 64 << 20


def test_mmap_munmap_mprotect_change_the_rows(machine):
    p = machine.spawn()
    addr = p.mmap("64K")
    (vma,) = p.vmas
    assert (vma.start, vma.end, vma.prot_text, vma.size, vma.nr_pages) == (addr, addr + 65536, "rw-p", 65536, 16)
    assert vma.prot == Prot.READ | Prot.WRITE
    assert Vm.MAYWRITE in vma.flags
    assert vma.anonymous
    assert not vma.name
    p.mprotect(addr + PAGE, PAGE, Prot.READ)
    assert [v.prot_text for v in p.vmas] == ["rw-p", "r--p", "rw-p"]
    assert p.vmas.find(addr + PAGE + 5).prot_text == "r--p"
    assert p.vmas.find(addr - 1) is None
    assert p.map_count == 3
    p.munmap(addr + PAGE, 2 * PAGE)
    assert sum(v.nr_pages for v in p.vmas) == p.total_vm == 14
    assert "VmaView" in repr(p.vmas)
    assert "<table>" in p.vmas._repr_html_()
    assert "rw-p" in p.vmas[0]._repr_html_()


REFUSED = {
    "no length": (errno.EINVAL, lambda p: p.mmap(0), "mmap"),
    "absurd length": (errno.ENOMEM, lambda p: p.mmap(1 << 60), "0x1000000000000000"),
    "overcommit": (errno.ENOMEM, lambda p: p.mmap("64G"), "overcommit"),
    "there is something": (
        errno.EEXIST, lambda p: p.mmap(PAGE, addr=p.vmas[0].start, flags=Map.PRIVATE | Map.ANONYMOUS | Map.FIXED_NOREPLACE), "NOREPLACE",
    ),
    "offset of half a page": (errno.EINVAL, lambda p: p.mmap(PAGE, offset=100), "0x64"),
    "misaligned fixed": (errno.EINVAL, lambda p: p.mmap(PAGE, addr=5, flags=Map.PRIVATE | Map.ANONYMOUS | Map.FIXED), "0x5"),
    "munmap, misaligned": (errno.EINVAL, lambda p: p.munmap(5, PAGE), "munmap"),
    "mprotect of a hole": (errno.ENOMEM, lambda p: p.mprotect(0x10000, PAGE, Prot.READ), "not mapped"),
    "madvise, unknown": (errno.EINVAL, lambda p: p.madvise(p.vmas[0].start, PAGE, 77), "77"),
    "madvise, misaligned": (errno.EINVAL, lambda p: p.madvise(5, PAGE, Madv.DONTNEED), "DONTNEED"),
    "mremap of nothing": (errno.EFAULT, lambda p: p.mremap(0x10000, PAGE, 2 * PAGE), "mremap"),
    "mlockall of nothing": (errno.EINVAL, lambda p: p.mlockall(0), "mlockall"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_name_errno_and_values(machine, name):
    number, call, text = REFUSED[name]
    p = machine.spawn()
    p.mmap(PAGE)
    before = machine.fork()
    with pytest.raises(MmapError) as refusal:
        call(p)
    assert refusal.value.errno == number
    assert errno.errorcode[number] in str(refusal.value)
    assert text in str(refusal.value)
    assert isinstance(refusal.value, OSError)
    assert same(machine, before)
    again = pickle.loads(pickle.dumps(refusal.value))
    assert (str(again), again.errno) == (str(refusal.value), number)


MISUSE = {
    "length None": (TypeError, lambda p: p.mmap(None)),
    "length float": (TypeError, lambda p: p.mmap(4096.0)),
    "length bool": (TypeError, lambda p: p.mmap(True)),
    "length text": (ValueError, lambda p: p.mmap("many")),
    "length negative": (ValueError, lambda p: p.mmap(-4096)),
    "length 2**64": (ValueError, lambda p: p.mmap(1 << 64)),
    "address negative": (ValueError, lambda p: p.munmap(-1, PAGE)),
    "flags too wide": (ValueError, lambda p: p.mmap(PAGE, flags=1 << 40)),
    "prot text": (TypeError, lambda p: p.mmap(PAGE, prot="rw")),
    "no such cpu": (ValueError, lambda p: p.mmap(PAGE, cpu=99)),
    "cpu float": (TypeError, lambda p: p.mmap(PAGE, cpu=0.0)),
    "file of another kind": (TypeError, lambda p: p.mmap(PAGE, file="/etc/passwd")),
    "file of another machine": (ValueError, lambda p: p.mmap(PAGE, file=Machine("64M").open("/x", PAGE))),
    "addresses float": (TypeError, lambda p: p.touch(np.zeros(3))),
    "addresses bool": (TypeError, lambda p: p.touch(np.zeros(3, bool))),
    "addresses text": (TypeError, lambda p: p.touch("0x1000")),
    "addresses None": (TypeError, lambda p: p.touch(None)),
    "addresses objects": (TypeError, lambda p: p.touch([1, None])),
    "addresses two-dimensional": (TypeError, lambda p: p.touch(np.zeros((2, 2), np.int64))),
    "address too high": (ValueError, lambda p: p.touch([0, 1 << 57])),
    "address below 0": (ValueError, lambda p: p.touch(np.array([4096, -1]))),
    "address beyond 64 bits": (ValueError, lambda p: p.touch([1 << 70])),
    "range beyond": (ValueError, lambda p: p.touch(range(0, 1 << 60, 1 << 58))),
    "range below": (ValueError, lambda p: p.touch(range(4096, -8192, -4096))),
    "writes too few": (ValueError, lambda p: p.touch([0, 4096], [True])),
    "writes floats": (TypeError, lambda p: p.touch([0, 4096], [0.0, 1.0])),
    "write 2": (TypeError, lambda p: p.touch([0], 2)),
    "pagemap negative": (ValueError, lambda p: p.pagemap(0, -1)),
    "pagemap beyond": (ValueError, lambda p: p.pagemap(1 << 57, 1)),
    "name empty": (ValueError, lambda p: p.machine.spawn("")),
    "name a number": (TypeError, lambda p: p.machine.spawn(7)),
    "spawn on no cpu": (ValueError, lambda p: p.machine.spawn(cpu=2)),
    "file without a name": (ValueError, lambda p: p.machine.open("", PAGE)),
    "file with a line end": (ValueError, lambda p: p.machine.open("a\nb", PAGE)),
    "file of no size": (FileNotFoundError, lambda p: p.machine.open("/none")),
    "file of a strange kind": (ValueError, lambda p: p.machine.open("/x", PAGE, kind="tape")),
    "pid text": (TypeError, lambda p: p.machine.process("1")),
    "no such pid": (ProcessError, lambda p: p.machine.process(99)),
    "pid 0": (ProcessError, lambda p: p.machine.process(0)),
}


@pytest.mark.parametrize("name", MISUSE)
def test_misuse_is_refused_and_changes_nothing(machine, name):
    kind, call = MISUSE[name]
    p = machine.spawn()
    p.mmap(PAGE)
    before = machine.fork()
    with pytest.raises(kind) as refusal:
        call(p)
    assert str(refusal.value)
    assert same(machine, before)


def test_codes_of_misuse_become_the_cores_exceptions():
    assert outcome(7, "x") == 7
    with pytest.raises(ValueError, match="no such CPU"):
        outcome(-1008, "spawn()")
    with pytest.raises(MmapError, match="EAGAIN"):
        outcome(-errno.EAGAIN, "mlock(0x1000)")


# ---------------------------------------------------------------- accesses


def test_touch_counts_and_codes(machine):
    p = machine.spawn()
    addr = p.mmap(16 * PAGE)
    read = p.touch(pages_of(addr, 16))
    assert (read.minor, read.hits, len(read), read.ok) == (16, 0, 16, True)
    assert p.rss["anon"] == 0
    written = p.touch(pages_of(addr, 16), write=True)
    assert written.minor == 16
    assert p.rss == {"file": 0, "anon": 16, "swap": 0, "shmem": 0}
    again = p.touch(np.arange(addr, addr + 16 * PAGE, 64), write=np.arange(1024) % 2 == 1)
    assert again.as_dict() == {"hits": 1024, "minor": 0, "major": 0, "segv": 0, "sigbus": 0, "oom": 0}
    assert p.minflt == 32
    beside = p.touch([addr, addr + 16 * PAGE, 0, addr])
    assert beside.codes.tolist() == [Fault.HIT, Fault.SEGV_MAPERR, Fault.SEGV_MAPERR, Fault.HIT]
    assert beside.failed().tolist() == [1, 2]
    assert (beside.segv, beside.ok, beside.faults) == (2, False, 0)
    p.mprotect(addr, PAGE, Prot.READ)
    assert p.touch([addr, addr], [False, True]).codes.tolist() == [Fault.HIT, Fault.SEGV_ACCERR]


@pytest.mark.parametrize("dtype", [np.uint64, np.int64, np.uint32, np.int32])
def test_addresses_of_any_integer_type(machine, dtype):
    p = machine.spawn()
    p.mmap(16 * PAGE, addr=0x100000, flags=Map.PRIVATE | Map.ANONYMOUS | Map.FIXED)
    where = np.arange(0x100000, 0x110000, PAGE, dtype=dtype)
    assert p.touch(where[::-2], write=True).minor == 8
    assert p.touch(where).hits == 8
    assert p.touch(where.byteswap().view(where.dtype.newbyteorder())).hits == 16
    assert len(p.touch(where[:0])) == len(p.touch([])) == len(p.touch(range(0))) == 0
    assert p.touch(int(where[0])).hits == 1
    assert p.touch(where.tolist()).hits == 16
    assert p.touch(range(0x10F000, 0xFF000, -PAGE)).hits == 16


def test_highest_addresses_are_data(machine):
    p = machine.spawn()
    result = p.touch([(1 << 57) - 1, (1 << 47) - 1, 1 << 47, 1 << 48, 1 << 56])
    assert result.segv == 5
    assert len(machine.processes) == 1


def test_long_streams_go_in_pieces(machine, monkeypatch):
    p = machine.spawn()
    addr = p.mmap(64 * PAGE)
    monkeypatch.setattr(accesses_module, "CHUNK", 7)
    rng = np.random.default_rng(1)
    where = addr + rng.integers(0, 70 * PAGE, 500)
    writes = rng.random(500) < 0.5
    other = machine.fork().process(p.pid)
    one = p.touch(where, writes)
    monkeypatch.setattr(accesses_module, "CHUNK", 1 << 20)
    whole = other.touch(where, writes)
    assert one == whole
    assert one.codes.dtype == np.uint8
    assert p.machine == other.machine
    assert all(np.array_equal(a, b) for a, b in zip(p.walk(where), other.walk(where), strict=True))


def test_single_accesses_raise(machine):
    p = machine.spawn()
    addr = p.mmap(2 * PAGE)
    assert p.write(addr) is Fault.MINOR
    assert p.read(addr + 17) is Fault.HIT
    for bad in (0, addr + 2 * PAGE, 1 << 56, 1 << 60, (1 << 64) - 1):
        with pytest.raises(SegmentationFault, match=f"{bad:#x}.*MAPERR"):
            p.read(bad)
    p.mprotect(addr, PAGE, Prot.READ)
    with pytest.raises(SegmentationFault, match=r"r--p.*ACCERR"):
        p.write(addr)
    file = machine.open("/data", 5000)
    at = p.mmap(4 * PAGE, file=file, prot=Prot.READ)
    p.read(at + 8191)
    with pytest.raises(BusError, match="SIGBUS"):
        p.read(at + 8192)
    assert p.touch([at + 8192]).sigbus == 1


def test_memory_that_runs_out_is_data_in_touch_and_an_exception_in_write(machine, monkeypatch):
    p = machine.spawn()
    addr = p.mmap(PAGE)

    def full(state, mm, vpns, writes, cpu, codes):
        codes[:2] = (Fault.HIT, Fault.OOM)[-len(codes) :]
        done = min(len(codes), 2)
        return done, np.bincount(codes[:done], minlength=8)

    import mmcore.run.access

    monkeypatch.setattr(mmcore.run.access, "access", full)
    short = p.touch([addr, addr, addr])
    assert (short.oom, short.hits, len(short)) == (1, 1, 2)
    assert not short.ok
    with pytest.raises(OutOfMemory, match=f"{addr:#x}"):
        p.write(addr)


def test_access_result_reads_well():
    codes = np.array([2, 2, 0, 1, 3, 4, 5, 6], np.uint8)
    result = AccessResult(codes)
    assert result.as_dict() == {"hits": 2, "minor": 1, "major": 1, "segv": 2, "sigbus": 1, "oom": 1}
    assert repr(result) == "AccessResult(8 accesses: hits=2, minor=1, major=1, segv=2, sigbus=1, oom=1)"
    assert repr(AccessResult(codes[:2])) == "AccessResult(2 accesses: hits=2, minor=0, major=0)"
    assert "segv" in result._repr_html_()
    assert result != AccessResult(codes[:2])
    assert result != 5


# ---------------------------------------------------------------- walks and pagemap


def test_walk_and_pagemap_agree(machine):
    p = machine.spawn()
    addr = p.mmap(8 * PAGE)
    p.touch(pages_of(addr + PAGE, 3), write=True)
    pfns, levels, entries = p.walk(pages_of(addr, 8))
    assert (pfns.dtype, levels.dtype, entries.dtype) == (np.int64, np.uint8, np.uint64)
    assert (pfns >= 0).tolist() == [False, True, True, True, False, False, False, False]
    assert (entries[1:4] & np.uint64(0x43)).tolist() == [0x43] * 3
    seen = p.pagemap(addr, 8)
    assert seen.dtype == np.uint64
    assert (seen >> np.uint64(63)).tolist() == [0, 1, 1, 1, 0, 0, 0, 0]
    assert (seen[1:4] & np.uint64((1 << 55) - 1)).tolist() == pfns[1:4].tolist()
    assert len(p.walk([])[0]) == 0
    assert len(p.pagemap(addr, 0)) == 0


# ---------------------------------------------------------------- lives


def test_a_dead_process_refuses_everything(machine):
    p = machine.spawn("worker")
    addr = p.mmap("1M")
    p.touch(pages_of(addr, 10), write=True)
    p.exit()
    assert not p.alive
    assert repr(p) == f"Process({p.pid}, dead)"
    assert "dead" in p._repr_html_()
    calls = [
        p.brk, p.fork, p.exec, p.exit, p.maps, p.smaps, p.smaps_rollup, p.status, p.statm, p.munlockall, p.mlockall,
        lambda: p.mmap(PAGE), lambda: p.munmap(addr, PAGE), lambda: p.touch([addr]), lambda: p.read(addr), lambda: p.read(1 << 60),
        lambda: p.walk([addr]), lambda: p.pagemap(addr, 1), lambda: p.mprotect(addr, PAGE, 0), lambda: p.madvise(addr, PAGE, 4),
        lambda: p.mremap(addr, PAGE, PAGE), lambda: p.mlock(addr, PAGE), lambda: p.munlock(addr, PAGE), lambda: machine.process(p.pid),
        *((lambda name=name: getattr(p, name)) for name in ("vmas", "rss", "total_vm", "name", "cpu", "ppid", "minflt", "rss_pages")),
    ]  # fmt: skip
    before = machine.fork()
    for call in calls:
        with pytest.raises(ProcessError):
            call()
    assert same(machine, before)
    assert machine.processes == []


def test_exit_gives_everything_back(machine):
    allocated = machine.validate()["allocated"]
    with machine.spawn(exec=True) as p:
        addr = p.mmap("1M")
        p.touch(pages_of(addr, 256), write=True)
        assert machine.vmstat["nr_anon_pages"] >= 256
    assert not p.alive
    assert machine.validate()["allocated"] == allocated
    assert machine.vmstat["nr_anon_pages"] == 0
    assert machine.vmstat["nr_page_table_pages"] == 0
    assert machine.committed_as == 0


def test_handles_follow_snapshots(machine):
    early = machine.spawn("early")
    addr = early.mmap(PAGE)
    saved = machine.snapshot()
    late = machine.spawn("late")
    early.exit()
    assert late.alive
    machine.restore(saved)
    assert early.alive
    early.write(addr)
    assert not late.alive
    with pytest.raises(ProcessError, match="state in which it does not exist"):
        late.mmap(PAGE)
    other = machine.fork()
    assert [p.pid for p in other.processes] == [early.pid]
    assert other.process(early.pid) != early
    assert machine.process(early.pid) == early
    assert len({early, machine.process(early.pid)}) == 1
    other.process(early.pid).exit()
    assert early.alive


def test_machines_with_processes_are_saved(machine, tmp_path):
    p = machine.spawn("saved", exec=True)
    addr = p.mmap("256K")
    p.touch(pages_of(addr, 40), write=True)
    machine.save(tmp_path / "m.npz")
    again = Machine.load(tmp_path / "m.npz").process(p.pid)
    assert again.machine == machine
    assert again.maps() == p.maps()
    assert again.smaps() == p.smaps()
    assert again.touch(pages_of(addr, 64), write=True) == p.touch(pages_of(addr, 64), write=True)


def test_fork_copies_on_write(machine):
    parent = machine.spawn("shell")
    addr = parent.mmap(100 * PAGE)
    parent.touch(pages_of(addr, 100), write=True)
    child = parent.fork()
    assert isinstance(child, Process)
    assert (child.ppid, child.name) == (parent.pid, "shell")
    assert child.rss["anon"] == 100
    first = parent.walk(pages_of(addr, 100))[0]
    assert np.array_equal(first, child.walk(pages_of(addr, 100))[0])
    assert child.touch(pages_of(addr, 100), write=True).minor == 100
    assert not np.isin(child.walk(pages_of(addr, 100))[0], first).any()
    assert parent.touch(pages_of(addr, 100), write=True).minor == 100
    assert np.array_equal(parent.walk(pages_of(addr, 100))[0], first)
    assert machine.processes == [parent, child]


def test_exec_keeps_the_pid(machine):
    p = machine.spawn("shell")
    p.mmap("1M")
    pid = p.pid
    p.exec("a-very-long-program-name")
    assert (p.pid, p.alive, p.name) == (pid, True, "a-very-long-pro")
    names = [vma.name for vma in p.vmas]
    for name in ("[heap]", "[stack]", "[vdso]"):
        assert name in names, names
    assert p.brk() == p.vmas[names.index("[heap]")].end or FAKE or p.brk() > 0


def test_cpus(machine):
    p = machine.spawn(cpu=1)
    assert p.cpu == 1
    p.cpu = 0
    assert p.cpu == 0
    with pytest.raises(ValueError, match="cpu is 2"):
        p.cpu = 2


def test_limits(machine):
    p = machine.spawn()
    assert p.prlimit("memlock", "64K") == p.prlimit("memlock") == 65536
    assert p.prlimit("data", "unlimited") is None
    assert p.prlimit("as", 1 << 30) == 1 << 30
    with pytest.raises(ValueError, match="nofile"):
        p.prlimit("nofile")


def test_locked_memory_is_resident(machine):
    p = machine.spawn()
    addr = p.mmap(8 * PAGE)
    p.mlock(addr, 4 * PAGE)
    assert p.locked_vm == 4
    assert p.rss["anon"] == 4
    assert [Vm.LOCKED in vma.flags for vma in p.vmas] == [True, False]
    p.munlock(addr, 4 * PAGE)
    assert p.locked_vm == 0


def test_dontneed_drops_pages(machine):
    p = machine.spawn()
    addr = p.mmap(8 * PAGE)
    p.touch(pages_of(addr, 8), write=True)
    p.madvise(addr, 4 * PAGE, Madv.DONTNEED)
    assert p.rss["anon"] == 4
    assert p.touch(pages_of(addr, 8)).as_dict()["minor"] == 4


# ---------------------------------------------------------------- files


def test_files(machine):
    p = machine.spawn()
    file = machine.open("/data", "64K")
    assert (file.name, file.size, file.nr_cached, file.shmem) == ("/data", 65536, 0, False)
    assert machine.open("/data") == file
    assert len({machine.open("/data", 65536), file}) == 1
    with pytest.raises(ValueError, match="65536 bytes"):
        machine.open("/data", "1M")
    addr = p.mmap("64K", file=file, prot=Prot.READ, flags=Map.SHARED)
    assert p.read(addr) is Fault.MAJOR
    assert p.rss["file"] >= 1
    assert file.nr_cached >= 1
    (vma,) = p.vmas
    assert (vma.name, vma.prot_text, vma.file) == ("/data", "r--s", file.handle)
    assert "/data" in repr(file)
    ram = machine.open("/ram", PAGE, kind="ram")
    assert isinstance(ram, FileObject)
    ram.unlink()
    assert not ram.alive
    assert "gone" in repr(ram)
    with pytest.raises(ProcessError):
        p.mmap(PAGE, file=ram)
    with pytest.raises(ProcessError):
        ram.size  # noqa: B018


def test_flags_have_the_kernels_values():
    assert (Prot.EXEC, Map.FIXED_NOREPLACE, Madv.POPULATE_WRITE, Mcl.ONFAULT, Mremap.DONTUNMAP) == (4, 0x100000, 23, 4, 4)
    assert (Vm.GROWSDOWN, Vm.ACCOUNT, Vm.HUGEPAGE, Vm.NOHUGEPAGE) == (0x100, 0x100000, 0x20000000, 0x40000000)
    assert [f.value for f in Fault] == list(range(7))
    import mmap as real

    for name in ("SHARED", "PRIVATE", "ANONYMOUS", "DENYWRITE", "EXECUTABLE", "STACK", "POPULATE"):
        assert int(Map[name]) == getattr(real, f"MAP_{name}"), name
    for advice in Madv:
        known = getattr(real, f"MADV_{advice.name}", None)
        assert known is None or known == advice, advice


def test_names_belong_to_their_machine(machine):
    first, second = machine.spawn("one"), machine.spawn("two")
    assert [p.name for p in machine.processes] == ["one", "two"]
    assert [p.pid for p in (first, second)] == sorted({first.pid, second.pid})
    assert all(a != b for a, b in itertools.combinations(machine.processes, 2))
    assert "one" in repr(first)
    assert "VMAs" in first._repr_html_()
