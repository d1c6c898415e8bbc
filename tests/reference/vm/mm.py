"""An address space: its VMAs, leaves, tables and figures.

Models: struct mm_struct, vm_stat_account, may_expand_vm, mlock_future_ok (mm/vma.c, mm/mmap.c, v6.12), mmap_base without randomisation.
Simplifies: leaves in two dicts, by virtual page number. Omits: locks, high-water marks.
"""

from .constants import (
    HPAGE,
    MAP_WINDOW,
    PAGE,
    UNLIMITED,
    VM_EXEC,
    VM_GROWSDOWN,
    VM_LOCKED,
    VM_SHARED,
    VM_WRITE,
    align_down,
    page_align,
)
from .page import Page, Pmd, Pte
from .tables import Tables
from .vma import Vma, VmaList

MIB = 1 << 20
RLIMITS = {"as": UNLIMITED, "data": UNLIMITED, "stack": 8 * MIB, "memlock": 8 * MIB}


def is_exec(flags: int) -> bool:
    return flags & (VM_EXEC | VM_WRITE | VM_GROWSDOWN) == VM_EXEC


def is_stack(flags: int) -> bool:
    return bool(flags & VM_GROWSDOWN)


def is_data(flags: int) -> bool:
    return flags & (VM_WRITE | VM_SHARED | VM_GROWSDOWN) == VM_WRITE


class AddressSpace:
    """struct mm_struct; sizes in pages, addresses in bytes."""

    def __init__(self, machine, pid: int, *, privileged: bool = False, rlimits: dict | None = None):
        self.machine, self.pid, self.privileged = machine, pid, privileged
        self.rlimits = RLIMITS | (rlimits or {})
        self.task_size = (1 << (47 if machine.levels == 4 else 56)) - PAGE
        gap = self.rlimits["stack"] + machine.stack_guard_gap * PAGE
        gap = min(max(gap, 128 * MIB), MAP_WINDOW // 6 * 5)
        self.mmap_base = page_align(MAP_WINDOW - gap)
        self.vmas = VmaList()
        self.map_count = 0
        self.ptes: dict[int, Pte] = {}
        self.pmds: dict[int, Pmd] = {}  # by the first vpn
        self.tables = Tables(machine.levels)
        self.rss = {"file": 0, "anon": 0, "swap": 0, "shmem": 0}
        self.total_vm = self.data_vm = self.exec_vm = self.stack_vm = self.locked_vm = 0
        self.def_flags = 0
        self.start_brk = self.brk = 0
        self.minflt = self.majflt = 0

    def __repr__(self):
        return f"<mm of {self.pid}>"

    def insert(self, vma: Vma) -> None:
        self.vmas.add(vma)
        self.map_count += 1
        if vma.file:
            vma.file.vmas.append(vma)

    def account(self, flags: int, pages: int) -> None:
        self.total_vm += pages
        if is_exec(flags):
            self.exec_vm += pages
        elif is_stack(flags):
            self.stack_vm += pages
        elif is_data(flags):
            self.data_vm += pages

    def may_expand(self, flags: int, pages: int) -> bool:
        if self.total_vm + pages > self.rlimits["as"] // PAGE:
            return False
        return not is_data(flags) or self.data_vm + pages <= self.rlimits["data"] // PAGE

    def may_lock(self, flags: int, size: int) -> bool:
        """Whether `size` more bytes with these flags stay within RLIMIT_MEMLOCK."""
        if not flags & VM_LOCKED or self.privileged:
            return True
        return size // PAGE + self.locked_vm <= self.rlimits["memlock"] // PAGE

    @property
    def can_lock(self) -> bool:
        return self.privileged or self.rlimits["memlock"] > 0

    def leaf(self, vpn: int) -> Pte | Pmd | None:
        return self.pmds.get(align_down(vpn, HPAGE)) or self.ptes.get(vpn)

    def page_at(self, vpn: int) -> Page | None:
        """The page that a leaf shows at `vpn`; None for nothing and for the zero pages."""
        pmd = self.pmds.get(align_down(vpn, HPAGE))
        if pmd:
            return pmd.folio.pages[vpn % HPAGE] if pmd.folio else None
        pte = self.ptes.get(vpn)
        return pte.page if pte else None
