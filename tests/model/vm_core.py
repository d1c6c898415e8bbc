"""The core's system calls with the methods of the twin's processes: results are addresses, 0, or negative errno."""

import numpy as np

from mmcore.sys import calls, file_calls
from mmcore.vm.vma_check import validate_vmas
from mmpy.machine import Machine
from tests.reference.vm import constants as c

SOFTDIRTY = c.VM_SOFTDIRTY
PAGE = 4096
TOTALS = ("total_vm", "data_vm", "exec_vm", "stack_vm", "locked_vm", "map_count")


class CoreMachine:
    """A machine of the core; `ram_pages` is what commit accounting sees."""

    def __init__(self, ram_pages: int = 262144, swap_pages: int = 0, sysctl: dict | None = None, memory: str = "64M"):
        self.machine = Machine(memory)
        self.state = self.machine.state
        self.state.globals[0]["totalram_pages"] = ram_pages
        self.state.globals[0]["total_swap_pages"] = swap_pages
        for name, value in (sysctl or {}).items():
            self.state.vm_globals[0][name] = value

    def spawn(self, *, exec: bool = False, privileged: bool = False, rlimits: dict | None = None) -> "CoreProcess":
        process = CoreProcess(self, calls.spawn(self.state, "a.out", 0, exec, privileged))
        for name, value in (rlimits or {}).items():
            calls.prlimit(self.state, process.handle, name, value)
        return process

    def open(self, name: str, size: int, kind: str = "file") -> int:
        return file_calls.create_file(self.state, name, size, {"file": 0, "shmem": 1, "ram": 2}[kind])

    @property
    def committed(self) -> int:
        return int(self.state.vm_globals[0]["committed"])

    def live(self) -> dict[str, int]:
        return dict(zip(("tables", "vmas", "anon_vmas", "avcs", "mms", "files"), self.state.pools["live"].tolist(), strict=False))

    def check(self) -> None:
        validate_vmas(self.state)


class CoreProcess:
    """One address space."""

    def __init__(self, machine: CoreMachine, handle: int):
        assert handle > 0, handle
        self.machine, self.state, self.handle = machine, machine.state, handle

    def __getattr__(self, name: str):
        if name.startswith("_"):
            raise AttributeError(name)
        return int(self.state.get("mms")[self.handle - 1][name])

    def mmap(self, length, *, addr=0, prot=3, flags=c.MAP_PRIVATE | c.MAP_ANONYMOUS, file=0, offset=0) -> int:
        return calls.mmap(self.state, self.handle, addr, length, prot, flags, file or 0, offset)

    def munmap(self, addr, length):
        return calls.munmap(self.state, self.handle, addr, length)

    def mprotect(self, addr, length, prot):
        return calls.mprotect(self.state, self.handle, addr, length, prot)

    def mremap(self, addr, old, new, flags=0, new_addr=0):
        return calls.mremap(self.state, self.handle, addr, old, new, flags, new_addr)

    def brk_to(self, addr=0):
        return calls.brk(self.state, self.handle, addr)

    def madvise(self, addr, length, advice):
        return calls.madvise(self.state, self.handle, addr, length, advice)

    def mlock(self, addr, length, onfault=False):
        return calls.mlock(self.state, self.handle, addr, length, onfault)

    def munlock(self, addr, length):
        return calls.munlock(self.state, self.handle, addr, length)

    def mlockall(self, flags):
        return calls.mlockall(self.state, self.handle, flags)

    def munlockall(self):
        return calls.munlockall(self.state, self.handle)

    def write(self, addr):
        """One page is written, as MADV_POPULATE_WRITE does it."""
        return self.madvise(addr, PAGE, c.MADV_POPULATE_WRITE)

    def fork(self) -> "CoreProcess":
        return CoreProcess(self.machine, calls.fork(self.state, self.handle))

    def exit(self) -> None:
        calls.exit_(self.state, self.handle)

    def vmas(self) -> list[np.void]:
        records, out = self.state.get("vmas"), []
        at = int(self.state.get("mms")[self.handle - 1]["vma_first"])
        while at:
            out.append(records[at - 1])
            at = int(records[at - 1]["next"])
        return out

    def chain(self, vma) -> int:
        avcs, n, at = self.state.get("avcs"), 0, int(vma["avc_first"])
        while at:
            n, at = n + 1, int(avcs[at - 1]["same_vma_next"])
        return n

    def maps(self) -> list[tuple]:
        """(start, end, flags, pgoff, whether a file, whether an anon_vma, length of the chain) of every VMA."""
        return [
            (int(v["start"]), int(v["end"]), int(v["flags"]) & ~SOFTDIRTY, int(v["pgoff"]), v["file"] > 0, v["anon_vma"] > 0, self.chain(v))
            for v in self.vmas()
        ]

    def spans(self) -> list[tuple[int, int]]:
        return [(start, end) for start, end, *_ in self.maps()]

    def totals(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in TOTALS}
