"""The core behind the twin's interface: the machine and the processes of tests/model/vm_backends.py, over mmcore's records and calls.

What the sharp tests ask for and the core has no name for is derived: pages copied are those that the allocator hands out, a process's
tables and leaves are read from the records, `fail_huge` is brought about by using up every free block of 2 MiB.
"""

from collections import Counter

import numpy as np

from mmcore.base import vmstat_names
from mmcore.run.access import access
from mmcore.sys import calls, file_calls, hugepages, recount
from mmcore.vm import pgtable
from mmpy.machine import Machine
from tests.model import vm_dump
from tests.model.vm_core import PAGE, CoreMachine, CoreProcess

OUTCOME = ("minor", "major", "hit", "segv", "segv", "sigbus", "oom")
MODES = {"never": 0, "inherit": 1, "madvise": 2, "always": 3}
THP = {"never": 0, "madvise": 1, "always": 2}
KINDS = {"file": 0, "shmem": 1, "ram": 2}


class Events:
    """vm_event_state by name, since the machine was made."""

    def __init__(self, state):
        self.state, self.base = state, state.vm_globals[0]["events"].copy()

    def __getitem__(self, name: str) -> int:
        i = vmstat_names.EVENT_ITEMS.index(name)
        return int(self.state.vm_globals[0]["events"][i]) - int(self.base[i])


class Hugetlb:
    """The pool of huge pages."""

    def __init__(self, state):
        self.state = state

    def __getattr__(self, name: str) -> int:
        if name not in ("total", "free", "reserved", "surplus"):
            raise AttributeError(name)
        return int(self.state.vm_globals[0]["hugetlb"][("total", "free", "reserved", "surplus").index(name)])

    @property
    def overcommit(self) -> int:
        return int(self.state.vm_globals[0]["hugetlb"][4])

    @overcommit.setter
    def overcommit(self, count: int) -> None:
        hugepages.set_overcommit(self.state, count)

    def resize(self, count: int) -> None:
        hugepages.set_nr_hugepages(self.state, count)


class SharpMachine(CoreMachine):
    """TwinMachine's attributes over a machine of the core with 1 GiB; `ram_pages` is what commit accounting sees."""

    def __init__(self, ram_pages: int = 262144, swap_pages: int = 0, thp: str = "always", levels: int = 4, sysctl: dict | None = None):
        kw = dict(sysctl or {})
        mthp, hugepages_wanted, extra = kw.pop("mthp", {}), kw.pop("nr_hugepages", 0), kw.pop("nr_overcommit_hugepages", 0)
        use_zero = kw.pop("use_zero_page", 1)
        self.machine = Machine("1G", **({"paging": "5level"} if levels == 5 else {}))
        self.state = self.machine.state
        self.state.globals[0]["totalram_pages"] = ram_pages
        self.state.globals[0]["total_swap_pages"] = swap_pages
        self.state.globals[0]["thp_enabled"] = THP[thp]
        kilobytes = ram_pages * 4
        g = self.state.vm_globals[0]
        g["user_reserve_kbytes"], g["admin_reserve_kbytes"] = min(kilobytes // 32, 131072), min(kilobytes // 32, 8192)
        g["thp_use_zero_page"] = use_zero
        for name, value in kw.items():
            g[name] = value
        for size, mode in mthp.items():
            g["thp_size"][(size // 4).bit_length() - 1] = MODES[mode]
        g["mthp_on"] = any(g["thp_size"][:9])
        if extra:
            hugepages.set_overcommit(self.state, extra)
        if hugepages_wanted:
            hugepages.set_nr_hugepages(self.state, hugepages_wanted)
        self.events, self.hugetlb = Events(self.state), Hugetlb(self.state)
        self.processes: list[SharpProcess] = []

    def spawn(self, *, exec: bool = False, privileged: bool = False, rlimits: dict | None = None) -> "SharpProcess":
        process = SharpProcess(self, calls.spawn(self.state, "a.out", 0, exec, privileged))
        for name, value in (rlimits or {}).items():
            calls.prlimit(self.state, process.handle, name, value)
        if exec:
            process.brk(process.start_brk)  # what the C library takes at once: the twin's program has none
        self.processes.append(process)
        return process

    def open(self, name: str, size: int, *, kind: str = "file", cached: bool = True, writable: bool = True) -> int:
        """A file of which every page is cached, as the twin's are unless it is told otherwise."""
        if kind == "hugetlb" or not writable:
            raise NotImplementedError(f"file kind {kind}, writable {writable}: the core has neither hugetlbfs nor files opened read-only")
        file = file_calls.create_file(self.state, name, size, KINDS[kind])
        if cached and kind != "shmem":
            for at in range(0, size, PAGE):
                file_calls.read(self.state, file, at, min(PAGE, size - at), 0)
        return file

    @property
    def commit_limit(self) -> int:
        return int(calls.commit_limit_pages(self.state))

    @property
    def cow_copies(self) -> int:
        """Pages that the allocator handed out: where no table is wanted and nothing is new, those are copies."""
        return int(self.state.zones["pgalloc"].sum())

    @property
    def fail_huge(self) -> bool:
        raise AttributeError("fail_huge can only be set")

    @fail_huge.setter
    def fail_huge(self, wanted: bool) -> None:
        """No block of 2 MiB is left free."""
        assert wanted
        for order in (10, 9):
            while True:
                try:
                    self.machine.alloc_pages(order, 0xCC0 & ~0xC00 | 0x2000)
                except MemoryError:
                    break

    @property
    def nr_mlock(self) -> int:
        return int(self.machine.vmstat["nr_mlock"])

    def charged(self, file: int) -> int:
        """None: the core does not charge tmpfs page by page (sys/filemap: omits)."""
        return 0

    def check(self) -> None:
        recount.validate(self.state)


class SharpProcess(CoreProcess):
    """TwinProcess's methods."""

    machine: SharpMachine

    def brk(self, addr: int = 0) -> int:
        return calls.brk(self.state, self.handle, addr)

    def touch(self, addr: int, pages: int = 1, write: bool = False) -> Counter:
        vpns = np.arange(addr // PAGE, addr // PAGE + pages, dtype=np.uint64)
        codes = np.zeros(pages, np.uint8)
        access(self.state, self.handle, vpns, write, 0, codes)
        return Counter(OUTCOME[code] for code in codes.tolist())

    def fork(self) -> "SharpProcess | int":
        handle = calls.fork(self.state, self.handle)
        if handle < 0:
            return handle
        child = SharpProcess(self.machine, handle)
        self.machine.processes.append(child)
        return child

    def exit(self) -> None:
        calls.exit_(self.state, self.handle)
        self.machine.processes.remove(self)

    def add_flags(self, addr: int, flags: int) -> None:
        """The VMA at `addr` gets flags that no call gives it."""
        records, at = self.state.get("vmas"), int(self.state.get("mms")[self.handle - 1]["vma_first"])
        while not int(records[at - 1]["start"]) <= addr < int(records[at - 1]["end"]):
            at = int(records[at - 1]["next"])
        records["flags"][at - 1] |= flags

    @property
    def rss(self) -> dict[str, int]:
        row = self.state.get("mms")[self.handle - 1]["rss"]
        return dict(zip(("file", "anon", "swap", "shmem"), (int(n) for n in row), strict=True))

    @property
    def page_table_bytes(self) -> int:
        return int(self.state.get("mms")[self.handle - 1]["pgtables_bytes"])

    @property
    def anon_huge_pages(self) -> int:
        found = [entry for _, entry in vm_dump.entries(self) if entry & vm_dump.PSE and not entry & vm_dump.SPECIAL]
        return 512 * len(found)

    def dump(self) -> dict:
        """What the tests read of the twin's dump()."""
        found = vm_dump.dump(self, vm_dump.sharing(self.machine.processes))
        names = ("start", "end", "flags", "pgoff", "anon_vma", "chain")
        tables = pgtable.tables_of(self.state, self.handle)
        top = int(self.state.vm_globals[0]["pt_levels"]) - 1
        return {
            **found,
            "vmas": [dict(zip(names, vma, strict=True)) for vma in found["vmas"]],
            "tables": sorted((int(t["level"]), int(t["base"])) for t in tables if int(t["level"]) < top),
        }
