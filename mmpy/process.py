"""Process: a simulated program's address space, and the system calls and accesses that it makes.

Models: mmap(2) and its siblings, fork, exec, exit, and what /proc/PID tells. Simplifies: a process is one thread with its own address
space; calls take no time. Omits: signals (an access that would raise one is data in touch(), an exception in read() and write()).
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, SupportsIndex

import numpy as np

from mmcore.base.state import State
from mmpy.accesses import MAX_ADDRESS, AccessResult, Addresses, vpns_of, writes_of
from mmpy.config import as_int
from mmpy.errors import BusError, OutOfMemory, ProcessError, SegmentationFault
from mmpy.files import FileObject
from mmpy.syscalls import PAGE_SIZE, address_of, flag_bits, flag_text, outcome, parse_bytes
from mmpy.vmflags import Fault, Madv, Map, Mcl, Mremap, Prot, Rss
from mmpy.vmviews import VmaList, text_of, vma_views

if TYPE_CHECKING:
    from mmpy.machine import Machine
    from mmpy.memcg import Memcg

RLIM_INFINITY = (1 << 64) - 1


class Process:
    """A program on a machine: machine.spawn(). It holds the address space by its pid; after exit() every call raises ProcessError.

    The object is a handle: two handles of one pid are equal, and a machine that is restored to a state in which the pid lives has it again.

    >>> p = machine.spawn()
    >>> addr = p.mmap("64M")
    >>> p.touch(range(addr, addr + (64 << 20), 4096), write=True)
    """

    __slots__ = ("machine", "mm", "pid")

    def __init__(self, machine: Machine, mm: int) -> None:
        self.machine, self.mm = machine, mm
        self.pid = int(machine.state.get("mms")[mm - 1]["pid"])

    # ------------------------------------------------------------ whether it lives

    @property
    def alive(self) -> bool:
        """Whether it exists in the machine's present state."""
        mms = self.machine.state.get("mms")
        return bool(self.pid) and 1 <= self.mm <= len(mms) and int(mms[self.mm - 1]["pid"]) == self.pid

    @property
    def _state(self) -> State:
        self._row()
        return self.machine.state

    def _row(self) -> np.void:
        mms = self.machine.state.get("mms")
        if not self.pid or self.mm > len(mms) or int(mms[self.mm - 1]["pid"]) != self.pid:
            raise ProcessError(f"process {self.pid} is dead: it has exited, or the machine is in a state in which it does not exist")
        row: np.void = mms[self.mm - 1]
        return row

    def _int(self, field: str) -> int:
        return int(self._row()[field])

    @property
    def name(self) -> str:
        """The program's name (comm), 15 characters at most."""
        return text_of(self.machine.state, self._int("name")) or "a.out"

    @property
    def cpu(self) -> int:
        """The CPU that it runs on when nothing else is said."""
        return self._int("cpu")

    @cpu.setter
    def cpu(self, cpu: int) -> None:
        self._row()["cpu"] = self._cpu(cpu)

    @property
    def ppid(self) -> int:
        return self._int("parent_pid")

    def _cpu(self, cpu: int | None) -> int:
        if cpu is None:
            return self._int("cpu")
        number = as_int(cpu, "cpu")
        if not 0 <= number < self.machine.nr_cpus:
            raise ValueError(f"cpu is {number}; the machine has {self.machine.nr_cpus}")
        return number

    # ------------------------------------------------------------ system calls

    def mmap(
        self,
        length: str | SupportsIndex,
        *,
        addr: int = 0,
        prot: Prot | int = Prot.READ | Prot.WRITE,
        flags: Map | int | None = None,
        file: FileObject | None = None,
        offset: str | SupportsIndex = 0,
        cpu: int | None = None,
    ) -> int:
        """Map `length` bytes ("64M" or an int, rounded up to pages); the address. Without flags: private, anonymous if no file is given.

        MmapError says the errno: ENOMEM, EINVAL, EEXIST, EACCES, EAGAIN, with the values in its text.
        """
        state = self._state
        if flags is None:
            flags = Map.PRIVATE if file is not None else Map.PRIVATE | Map.ANONYMOUS
        if file is not None:
            if not isinstance(file, FileObject):
                raise TypeError(f"file must be a FileObject (machine.open()), not {type(file).__name__}")
            if file.machine is not self.machine:
                raise ValueError(f"{file!r} belongs to another machine")
            file._row()
        from mmcore.sys import calls

        nbytes, bits, rights = parse_bytes(length), flag_bits(flags, "flags"), flag_bits(prot, "prot")
        start, at = address_of(addr, "addr"), parse_bytes(offset, "offset")
        call = f"mmap(length={nbytes:#x}, addr={start:#x}, prot={flag_text(Prot(rights))}, flags={flag_text(Map(bits))}, offset={at:#x})"
        rc = calls.mmap(state, self.mm, start, nbytes, rights, bits, file.handle if file is not None else 0, at, self._cpu(cpu))
        return outcome(rc, call)

    def munmap(self, addr: int, length: str | SupportsIndex, *, cpu: int | None = None) -> None:
        """Unmap a range; holes in it do not matter."""
        from mmcore.sys import calls

        start, nbytes = address_of(addr), parse_bytes(length)
        outcome(calls.munmap(self._state, self.mm, start, nbytes, self._cpu(cpu)), f"munmap({start:#x}, {nbytes:#x})")

    def mprotect(self, addr: int, length: str | SupportsIndex, prot: Prot | int, *, cpu: int | None = None) -> None:
        """Change the rights of a mapped range."""
        from mmcore.sys import calls

        start, nbytes, rights = address_of(addr), parse_bytes(length), flag_bits(prot, "prot")
        rc = calls.mprotect(self._state, self.mm, start, nbytes, rights, self._cpu(cpu))
        outcome(rc, f"mprotect({start:#x}, {nbytes:#x}, {flag_text(Prot(rights))})")

    def mremap(
        self, addr: int, old_length: str | SupportsIndex, new_length: str | SupportsIndex, *, flags: Mremap | int = 0, new_addr: int = 0,
        cpu: int | None = None,
    ) -> int:  # fmt: skip
        """Shrink, grow or (Mremap.MAYMOVE) move a mapping; its address."""
        from mmcore.sys import calls

        start, old, new = address_of(addr), parse_bytes(old_length, "old_length"), parse_bytes(new_length, "new_length")
        bits, target = flag_bits(flags, "flags"), address_of(new_addr, "new_addr")
        rc = calls.mremap(self._state, self.mm, start, old, new, bits, target, self._cpu(cpu))
        return outcome(rc, f"mremap({start:#x}, {old:#x}, {new:#x}, flags={flag_text(Mremap(bits))}, new_addr={target:#x})")

    def brk(self, addr: int = 0, *, cpu: int | None = None) -> int:
        """Move the end of the heap; the break as it is then: the old one if it cannot be moved there (as the system call answers)."""
        from mmcore.sys import calls

        target = address_of(addr)
        return outcome(calls.brk(self._state, self.mm, target, self._cpu(cpu)), f"brk({target:#x})")

    def madvise(self, addr: int, length: str | SupportsIndex, advice: Madv | int, *, cpu: int | None = None) -> None:
        """Say how a range will be used (Madv.DONTNEED, FREE, HUGEPAGE, COLD, POPULATE_WRITE ...)."""
        from mmcore.sys import calls

        start, nbytes, number = address_of(addr), parse_bytes(length), flag_bits(advice, "advice")
        known = next((m.name for m in Madv if m == number), str(number))
        rc = calls.madvise(self._state, self.mm, start, nbytes, number, self._cpu(cpu))
        outcome(rc, f"madvise({start:#x}, {nbytes:#x}, {known})")

    def mlock(self, addr: int, length: str | SupportsIndex, *, onfault: bool = False, cpu: int | None = None) -> None:
        """Keep a range in memory; it is faulted in at once, with onfault as it is touched."""
        from mmcore.sys import calls

        start, nbytes = address_of(addr), parse_bytes(length)
        rc = calls.mlock(self._state, self.mm, start, nbytes, bool(onfault), self._cpu(cpu))
        outcome(rc, f"mlock({start:#x}, {nbytes:#x}, onfault={bool(onfault)})")

    def munlock(self, addr: int, length: str | SupportsIndex, *, cpu: int | None = None) -> None:
        """Let a range be reclaimed again."""
        from mmcore.sys import calls

        start, nbytes = address_of(addr), parse_bytes(length)
        outcome(calls.munlock(self._state, self.mm, start, nbytes, self._cpu(cpu)), f"munlock({start:#x}, {nbytes:#x})")

    def mlockall(self, flags: Mcl | int = Mcl.CURRENT, *, cpu: int | None = None) -> None:
        """Keep everything mapped now (Mcl.CURRENT) or later (Mcl.FUTURE) in memory."""
        from mmcore.sys import calls

        bits = flag_bits(flags, "flags")
        outcome(calls.mlockall(self._state, self.mm, bits, self._cpu(cpu)), f"mlockall({flag_text(Mcl(bits))})")

    def munlockall(self, *, cpu: int | None = None) -> None:
        """Undo every mlock."""
        from mmcore.sys import calls

        outcome(calls.munlockall(self._state, self.mm, self._cpu(cpu)), "munlockall()")

    def fork(self, *, cpu: int | None = None) -> Process:
        """A child with a copy of this address space, page by page on demand (COW)."""
        from mmcore.sys import calls

        return Process(self.machine, outcome(calls.fork(self._state, self.mm, self._cpu(cpu)), f"fork() of process {self.pid}"))

    def exec(self, name: str | None = None, *, cpu: int | None = None) -> None:
        """Start over with a fresh image (execve): text, data, heap, stack, vdso. The pid stays."""
        from mmcore.sys import calls

        text = None if name is None else check_name(name)
        outcome(calls.exec_(self._state, self.mm, self._cpu(cpu), text), f"exec() of process {self.pid}")

    def exit(self, *, cpu: int | None = None) -> None:
        """End: everything is unmapped and its memory given back."""
        from mmcore.sys import calls

        calls.exit_(self._state, self.mm, self._cpu(cpu))

    def prlimit(self, resource: str, limit: str | SupportsIndex | None = None) -> int | None:
        """A limit in bytes, None for none: "as", "data", "stack" or "memlock", after it was set to `limit` ("64M", an int, "unlimited")."""
        from mmcore.sys import calls

        value = RLIM_INFINITY if limit == "unlimited" else None if limit is None else parse_bytes(limit, "limit")
        found = int(calls.prlimit(self._state, self.mm, resource, value))
        return None if found == RLIM_INFINITY else found

    def __enter__(self) -> Process:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.alive:
            self.exit()

    # ------------------------------------------------------------ accesses

    def touch(self, addresses: Addresses, write: bool | np.ndarray | Sequence[bool] = False, *, cpu: int | None = None) -> AccessResult:
        """Access addresses (a range, or integers in an array) in order, reading or writing each (write: one bool, or one for each).

        What would be a signal is data here: see AccessResult.codes. An access that finds no memory is the last one: the result is shorter
        then. TypeError or ValueError for what is no address, before any access. Ctrl-C takes effect between pieces of 2**17 accesses.
        """
        from mmcore.run.access import access

        state, number = self._state, self._cpu(cpu)
        total, pieces = vpns_of(addresses)
        writes = writes_of(write, total)
        codes, counts, at = np.empty(total, np.uint8), np.zeros(8, np.int64), 0
        for vpns in pieces:
            end = at + len(vpns)
            part = writes[at:end] if isinstance(writes, np.ndarray) else writes
            done, found = access(state, self.mm, vpns, part, number, codes[at:end])
            at += done
            counts += found
            if at < end:
                break
        return AccessResult(codes[:at], counts)

    def read(self, addr: int, *, cpu: int | None = None) -> Fault:
        """Read one address: Fault.HIT, MINOR or MAJOR. SegmentationFault, BusError, OutOfMemory as the access fails."""
        return self._one(addr, False, cpu)

    def write(self, addr: int, *, cpu: int | None = None) -> Fault:
        """Write one address: Fault.HIT, MINOR or MAJOR. SegmentationFault, BusError, OutOfMemory as the access fails."""
        return self._one(addr, True, cpu)

    def _one(self, addr: int, write: bool, cpu: int | None) -> Fault:
        what = f"{'write to' if write else 'read of'} {address_of(addr):#x} by process {self.pid}"
        if addr >= MAX_ADDRESS:  # no user address: the access itself is at fault
            self._row()
            raise SegmentationFault(f"{what}: not an address of the user's half (SEGV_MAPERR)")
        code = Fault(int(self.touch(addr, write, cpu=cpu).codes[0]))
        if code is Fault.SEGV_MAPERR:
            raise SegmentationFault(f"{what}: nothing is mapped there (SEGV_MAPERR)")
        if code is Fault.SEGV_ACCERR:
            vma = self.vmas.find(addr)
            raise SegmentationFault(f"{what}: the mapping's rights are {vma.prot_text if vma else '---'} (SEGV_ACCERR)")
        if code is Fault.SIGBUS:
            raise BusError(f"{what}: behind the end of the file (SIGBUS)")
        if code is Fault.OOM:
            raise OutOfMemory(f"{what}: no memory for the page or its tables")
        return code

    # ------------------------------------------------------------ what it looks like

    @property
    def vmas(self) -> VmaList:
        """The VMAs, in ascending order: copies of what they are now."""
        self._row()
        return vma_views(self.machine, self.mm)

    def walk(self, addresses: Addresses) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Translate addresses through the page tables, without faults: (pfns, levels, entries).

        pfns: int64, -1 where nothing is mapped; levels: uint8, where the walk ended (0: PTE, 1: PMD ...); entries: uint64, x86-64 bits.
        """
        from mmcore.vm import pgtable

        state = self._state
        _, pieces = vpns_of(addresses)
        found = [pgtable.walk(state, self.mm, vpns << np.uint64(12)) for vpns in pieces]
        dtypes = (np.int64, np.uint8, np.uint64)
        if not found:
            return np.empty(0, np.int64), np.empty(0, np.uint8), np.empty(0, np.uint64)
        a, b, c = (np.concatenate([part[i] for part in found]).astype(dtype, copy=False) for i, dtype in enumerate(dtypes))
        return a, b, c

    def pagemap(self, addr: int, nr_pages: int) -> np.ndarray:
        """What /proc/PID/pagemap holds for nr_pages pages from address `addr` on: array of uint64 (see mmpy.proc.pid)."""
        from mmcore.vm import pgtable

        start, n = address_of(addr), as_int(nr_pages, "nr_pages")
        if not 0 <= n <= MAX_ADDRESS // PAGE_SIZE or start + n * PAGE_SIZE > MAX_ADDRESS:
            raise ValueError(f"nr_pages is {n} from {start:#x} on; that leaves the address space")
        return np.asarray(pgtable.pagemap(self._state, self.mm, start // PAGE_SIZE, n))

    @property
    def rss(self) -> dict[str, int]:
        """Pages by class: file, anon, swap (entries), shmem."""
        values = self._row()["rss"]
        return {cls.name.lower(): max(int(values[cls]), 0) for cls in Rss}

    @property
    def rss_pages(self) -> int:
        """Resident pages: file, anonymous and shared memory."""
        return sum(n for name, n in self.rss.items() if name != "swap")

    @property
    def total_vm(self) -> int:
        """Pages mapped, resident or not."""
        return self._int("total_vm")

    @property
    def data_vm(self) -> int:
        return self._int("data_vm")

    @property
    def stack_vm(self) -> int:
        return self._int("stack_vm")

    @property
    def exec_vm(self) -> int:
        return self._int("exec_vm")

    @property
    def locked_vm(self) -> int:
        """Pages that mlock keeps."""
        return self._int("locked_vm")

    @property
    def map_count(self) -> int:
        """VMAs."""
        return self._int("map_count")

    @property
    def page_table_bytes(self) -> int:
        """Bytes of page tables, the top one not counted (VmPTE)."""
        return self._int("pgtables_bytes")

    @property
    def minflt(self) -> int:
        return self._int("minflt")

    @property
    def majflt(self) -> int:
        return self._int("majflt")

    # ------------------------------------------------------------ /proc/PID

    def maps(self) -> str:
        """The text of /proc/PID/maps."""
        from mmpy.proc import pid

        return pid.write_maps(self)

    def smaps(self) -> str:
        """The text of /proc/PID/smaps."""
        from mmpy.proc import pid

        return pid.write_smaps(self)

    def smaps_rollup(self) -> str:
        """The text of /proc/PID/smaps_rollup."""
        from mmpy.proc import pid

        return pid.write_smaps_rollup(self)

    def status(self) -> str:
        """The text of /proc/PID/status."""
        from mmpy.proc import pid

        return pid.write_status(self)

    def statm(self) -> str:
        """The text of /proc/PID/statm."""
        from mmpy.proc import pid

        return pid.write_statm(self)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Process):
            return NotImplemented
        return self.machine is other.machine and (self.pid, self.mm) == (other.pid, other.mm)

    def __hash__(self) -> int:
        return hash((id(self.machine), self.pid))

    def __repr__(self) -> str:
        if not self.alive:
            return f"Process({self.pid}, dead)"
        kib = PAGE_SIZE // 1024
        size = f"{self.map_count} VMAs, {self.total_vm * kib} kB mapped, {self.rss_pages * kib} kB resident"
        return f"Process({self.pid}, {self.name!r}: {size})"

    def _repr_html_(self) -> str:
        if not self.alive:
            return f"<p>process {self.pid}: dead</p>"
        figures = {"VMAs": self.map_count, "mapped (pages)": self.total_vm, "page tables (bytes)": self.page_table_bytes}
        figures |= {f"resident, {name} (pages)": n for name, n in self.rss.items()}
        figures |= {"minor faults": self.minflt, "major faults": self.majflt}
        rows = "".join(f"<tr><th>{name}</th><td>{n}</td></tr>" for name, n in figures.items())
        return f"<table><caption>process {self.pid}</caption>{rows}</table>"


# ---------------------------------------------------------------- the machine's part


def check_name(name: str) -> str:
    """A program's name, cut to 15 characters as the kernel does (TASK_COMM_LEN)."""
    if not isinstance(name, str):
        raise TypeError(f"name must be a str, not {type(name).__name__}")
    if not name or any(ord(c) < 32 for c in name):
        raise ValueError(f"a program cannot be called {name!r}")
    return name[:15]


def spawn(machine: Machine, name: str, cpu: int, exec_image: bool, privileged: bool, memcg: Memcg | None = None) -> Process:
    """A process with a fresh address space."""
    from mmcore.sys import calls

    text, number = check_name(name), as_int(cpu, "cpu")
    if not 0 <= number < machine.nr_cpus:
        raise ValueError(f"cpu is {number}; the machine has {machine.nr_cpus}")
    if memcg is not None:
        from mmpy.memcg import Memcg as Group

        if not isinstance(memcg, Group) or memcg.machine is not machine:
            raise ValueError(f"memcg is {memcg!r}; it must be a group of this machine (machine.memcg())")
        memcg._row()
    mm = outcome(calls.spawn(machine.state, text, number, bool(exec_image) and memcg is None, bool(privileged)), f"spawn({text!r})")
    process = Process(machine, mm)
    if memcg is not None:
        memcg.attach(process)
        if exec_image:
            rc = calls.exec_(machine.state, mm, number)
            if rc < 0:
                process.exit()
            outcome(rc, f"spawn({text!r})")
    return process


def processes(machine: Machine) -> list[Process]:
    """Everything that lives, by pid."""
    mms = machine.state.get("mms")
    return sorted((Process(machine, mm) for mm in (np.flatnonzero(mms["pid"]) + 1).tolist()), key=lambda p: p.pid)


def process(machine: Machine, pid: int) -> Process:
    """The process with this pid. ProcessError if there is none."""
    number = as_int(pid, "pid")
    for mm in (np.flatnonzero(machine.state.get("mms")["pid"] == number) + 1).tolist() if number > 0 else []:
        return Process(machine, mm)
    raise ProcessError(f"there is no process {number}")
