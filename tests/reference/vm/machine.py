"""The twin machine and its processes: what tests call.

Models: the whole of this package behind the names of the Process API. Simplifies: methods return a negative errno instead of raising;
a spawned program is one small image. Omits: randomisation, vdso.
"""

from collections import Counter

from . import commit as commit_module
from . import fault, fork, hugetlb, madvise, mlock, mmap, mprotect, mremap
from .constants import (
    HPAGE,
    MAP_ANONYMOUS,
    MAP_FIXED,
    MAP_PRIVATE,
    PAGE,
    PROT_EXEC,
    PROT_READ,
    PROT_WRITE,
    VM_GROWSDOWN,
    VM_MAY,
    VM_READ,
    VM_WRITE,
    Failed,
)
from .dump import check_machine, dump_process
from .mm import AddressSpace
from .page import File

STACK_TOP = (1 << 47) - PAGE
IMAGE = 0x555555554000


class TwinMachine:
    """RAM as a number, the sysctls, the commit counter, the hugetlb pool, the processes."""

    def __init__(self, ram_pages: int, swap_pages: int = 0, thp: str = "always", levels: int = 4, sysctl: dict | None = None):
        self.sysctl = dict(sysctl or {})
        self.levels, self.thp = levels, thp
        self.mthp: dict[int, str] = self.sysctl.get("mthp", {})  # kB: always, inherit, madvise, never
        self.max_map_count = self.sysctl.get("max_map_count", 65530)
        self.mmap_min_addr = self.sysctl.get("mmap_min_addr", 65536)
        self.stack_guard_gap = self.sysctl.get("stack_guard_gap", 256)
        window = max(self.sysctl.get("fault_around_bytes", 65536) // PAGE, 1)
        self.fault_around_pages = 1 << window.bit_length() - 1
        self.commit = commit_module.Commit(ram_pages, swap_pages, self.sysctl)
        self.hugetlb = hugetlb.Pool(self.commit, self.sysctl.get("nr_hugepages", 0), self.sysctl.get("nr_overcommit_hugepages", 0))
        self.events: Counter = Counter()
        self.mthp_events: Counter = Counter()  # (order, name)
        self.cow_copies = 0
        self.nr_mlock = 0
        self.huge_zero = False
        self.fail_huge = False  # the next large allocations find no memory
        self.processes: list[TwinProcess] = []
        self.opened: list[File] = []
        self.next_pid = 1

    def count(self, event: str, number: int = 1) -> None:
        self.events[event] += number

    def count_mthp(self, order: int, name: str) -> None:
        self.mthp_events[order, name] += 1

    def spawn(self, *, exec: bool = False, privileged: bool = False, rlimits: dict | None = None) -> "TwinProcess":
        process = TwinProcess(self, AddressSpace(self, self.take_pid(), privileged=privileged, rlimits=rlimits))
        if exec:
            process.load_image()
        self.processes.append(process)
        return process

    def take_pid(self) -> int:
        self.next_pid += 1
        return self.next_pid - 1

    def open(self, name: str, size: int, *, kind: str = "file", cached: bool = True, writable: bool = True) -> File:
        """A file of `size` bytes. kind: file, ram, shmem, hugetlb."""
        file = File(name, size, kind, writable=writable, noreserve=kind == "shmem")
        if cached and kind in ("file", "ram"):
            file.present = set(range(file.nr_pages))
        self.opened.append(file)
        return file

    def charged(self, file: File) -> int:
        """Pages of commit charge that go with the file."""
        return file.charged

    @property
    def committed(self) -> int:
        return self.commit.committed

    @property
    def commit_limit(self) -> int:
        return self.commit.limit

    def check(self) -> None:
        check_machine(self)


def errno_of(call, *args, **kwargs):
    """The result, or the negative errno."""
    try:
        return call(*args, **kwargs)
    except Failed as failure:
        return -failure.errno


class TwinProcess:
    """The methods of mmpy.process.Process, errors as negative numbers."""

    def __init__(self, machine: TwinMachine, mm: AddressSpace):
        self.machine, self.mm, self.alive = machine, mm, True

    @property
    def pid(self) -> int:
        return self.mm.pid

    def load_image(self) -> None:
        """As after execve of a small program with one page of arguments, nothing of the image touched."""
        image = self.machine.open("a.out", 5 * PAGE)
        for page, prot in enumerate((PROT_READ, PROT_READ | PROT_EXEC, PROT_READ, PROT_READ | PROT_WRITE)):
            self.mmap(PAGE, addr=IMAGE + page * PAGE, prot=prot, flags=MAP_PRIVATE | MAP_FIXED, file=image, offset=page * PAGE)
        self.mm.start_brk = self.mm.brk = IMAGE + 4 * PAGE
        flags = VM_READ | VM_WRITE | VM_MAY | VM_GROWSDOWN
        mmap.map_region(self.mm, STACK_TOP - 33 * PAGE, STACK_TOP, flags, (STACK_TOP - 33 * PAGE) // PAGE, None)
        self.access((STACK_TOP - 1) // PAGE, True)

    def mmap(self, length, *, addr=0, prot=PROT_READ | PROT_WRITE, flags=MAP_PRIVATE | MAP_ANONYMOUS, file=None, offset=0) -> int:
        return errno_of(mmap.mmap, self.mm, addr, length, prot, flags, file, offset)

    def munmap(self, addr: int, length: int) -> int:
        return errno_of(mmap.munmap, self.mm, addr, length)

    def mprotect(self, addr: int, length: int, prot: int) -> int:
        return errno_of(mprotect.mprotect, self.mm, addr, length, prot)

    def mremap(self, addr: int, old: int, new: int, flags: int = 0, new_addr: int = 0) -> int:
        return errno_of(mremap.mremap, self.mm, addr, old, new, flags, new_addr)

    def brk(self, addr: int = 0) -> int:
        return errno_of(mmap.brk, self.mm, addr)

    def madvise(self, addr: int, length: int, advice: int) -> int:
        return errno_of(madvise.madvise, self.mm, addr, length, advice)

    def mlock(self, addr: int, length: int, onfault: bool = False) -> int:
        return errno_of(mlock.mlock, self.mm, addr, length, onfault=onfault)

    def munlock(self, addr: int, length: int) -> int:
        return errno_of(mlock.munlock, self.mm, addr, length)

    def mlockall(self, flags: int) -> int:
        return errno_of(mlock.mlockall, self.mm, flags)

    def munlockall(self) -> int:
        return errno_of(mlock.munlockall, self.mm)

    def access(self, vpn: int, write: bool = False) -> str:
        """hit, minor, major, segv or sigbus."""
        return fault.access(self.mm, vpn, write)

    def touch(self, addr: int, pages: int = 1, write: bool = False) -> Counter:
        """The outcomes of touching `pages` pages from `addr` on, one after the other."""
        return Counter(self.access(addr // PAGE + i, write) for i in range(pages))

    def fork(self) -> "TwinProcess | int":
        child = AddressSpace(self.machine, self.machine.next_pid, privileged=self.mm.privileged, rlimits=self.mm.rlimits)
        failed = errno_of(fork.dup_mmap, self.mm, child)
        if failed:
            return failed
        self.machine.take_pid()
        process = TwinProcess(self.machine, child)
        self.machine.processes.append(process)
        return process

    def exit(self) -> None:
        fork.exit_mmap(self.mm)
        self.machine.processes.remove(self)
        self.alive = False

    def add_flags(self, addr: int, flags: int) -> None:
        """The VMA at `addr` gets flags that no call gives it."""
        self.mm.vmas.lookup(addr).flags |= flags

    def __getattr__(self, name: str):
        """total_vm, data_vm, exec_vm, stack_vm, locked_vm, map_count, minflt, majflt, rss, mmap_base, task_size: of the address space."""
        if name.startswith("_") or name == "mm":
            raise AttributeError(name)
        return getattr(self.mm, name)

    @property
    def page_table_bytes(self) -> int:
        return self.mm.tables.bytes

    @property
    def anon_huge_pages(self) -> int:
        """Pages in PMD-mapped anonymous memory (AnonHugePages)."""
        return HPAGE * sum(pmd.kind == "huge_anon" for pmd in self.mm.pmds.values())

    def spans(self) -> list[tuple[int, int]]:
        return [(vma.start, vma.end) for vma in self.mm.vmas]

    def dump(self) -> dict:
        return dump_process(self)
