"""VMAs and a process's sorted list of them: lookup and placement of new mappings.

Models: struct vm_area_struct, find_vma, vm_unmapped_area, arch_get_unmapped_area(_topdown), thp_get_unmapped_area (mm/vma.c, mm/mmap.c,
arch/x86/kernel/sys_x86_64.c, mm/huge_memory.c, v6.12). Simplifies: a Python list instead of a maple tree. Omits: 32-bit tasks, cache
colouring of Bulldozer, randomisation, THP alignment of files.
"""

from dataclasses import dataclass, field

from .constants import (
    EINVAL,
    ENOMEM,
    EPERM,
    HPAGE,
    MAP_32BIT,
    MAP_FIXED,
    MAP_SHARED,
    MAP_WINDOW,
    PAGE,
    PMD_SIZE,
    VM_GROWSDOWN,
    VM_SHARED,
    Failed,
    align_up,
    page_align,
)


@dataclass(eq=False)
class Vma:
    """[start, end) in bytes; `chain`: its anon_vmas, newest first."""

    mm: object
    start: int
    end: int
    flags: int
    pgoff: int
    file: object = None
    anon_vma: object = None
    chain: list = field(default_factory=list)
    resv: set | None = None  # hugetlb, private: indexes reserved by this mapping and not used yet; split parts share it

    @property
    def pages(self) -> int:
        return (self.end - self.start) // PAGE

    @property
    def is_anonymous(self) -> bool:
        return self.file is None

    @property
    def shared(self) -> bool:
        return bool(self.flags & VM_SHARED)

    @property
    def gap_start(self) -> int:
        """Where the room below it ends: a stack keeps its guard gap."""
        if not self.flags & VM_GROWSDOWN:
            return self.start
        return max(self.start - self.mm.machine.stack_guard_gap * PAGE, 0)

    def vpns(self, start: int, end: int) -> range:
        return range(max(start, self.start) // PAGE, min(end, self.end) // PAGE)

    def index_of(self, vpn: int) -> int:
        return self.pgoff + vpn - self.start // PAGE


class VmaList:
    """All VMAs of an address space, by address."""

    def __init__(self):
        self.list: list[Vma] = []

    def __iter__(self):
        return iter(list(self.list))

    def __len__(self):
        return len(self.list)

    def add(self, vma: Vma) -> None:
        self.list.append(vma)
        self.sort()

    def remove(self, vma: Vma) -> None:
        self.list.remove(vma)

    def sort(self) -> None:
        self.list.sort(key=lambda vma: vma.start)

    def find(self, address: int) -> Vma | None:
        """The first VMA that ends above `address`."""
        return next((vma for vma in self.list if vma.end > address), None)

    def lookup(self, address: int) -> Vma | None:
        vma = self.find(address)
        return vma if vma and vma.start <= address else None

    def intersecting(self, start: int, end: int) -> list[Vma]:
        return [vma for vma in self.list if vma.start < end and start < vma.end]

    def before(self, address: int) -> Vma | None:
        """The last VMA that begins below `address`."""
        return next((vma for vma in reversed(self.list) if vma.start < address), None)

    def neighbours(self, vma: Vma) -> tuple[Vma | None, Vma | None]:
        i = self.list.index(vma)
        return (self.list[i - 1] if i else None), (self.list[i + 1] if i + 1 < len(self.list) else None)

    def gaps(self, low: int, high: int):
        """(start, end, VMA behind) of the free room within [low, high), ascending."""
        start = low
        for vma in self.list:
            if vma.end <= low:
                continue
            if min(vma.start, high) > start:
                yield start, min(vma.start, high), vma
            start = max(start, vma.end)
            if start >= high:
                return
        if start < high:
            yield start, high, None


def highest_gap(mm, length: int, low: int, high: int) -> int | None:
    """Address of the highest room of `length` bytes, leaving the guard gap of a stack above it."""
    for start, end, behind in reversed(list(mm.vmas.gaps(max(low, mm.machine.mmap_min_addr), high))):
        if behind:
            end = min(end, behind.gap_start)
        if end - start >= length:
            return end - length
    return None


def lowest_gap(mm, length: int, align: int, low: int, high: int) -> int | None:
    """Address of the lowest room, aligned; with alignment, room for the worst case is looked for."""
    padded = length + align - PAGE
    for start, end, behind in mm.vmas.gaps(max(low, mm.machine.mmap_min_addr), high):
        if behind:
            end = min(end, behind.gap_start)
        if end - start >= padded:
            return align_up(start, align)
    return None


def highest_aligned_gap(mm, length: int, align: int, low: int, high: int) -> int | None:
    """As highest_gap, the address aligned downwards from the top of room that also has the padding."""
    address = highest_gap(mm, length + align - PAGE, low, high)
    if address is None:
        return None
    return (address + align - PAGE) // align * align


def hint_is_free(mm, address: int, length: int) -> bool:
    if address > mm.task_size - length or (address > MAP_WINDOW) != (address + length > MAP_WINDOW):
        return False
    vma = mm.vmas.find(address)
    return vma is None or address + length <= vma.gap_start


def search(mm, address: int, length: int, flags: int, align: int = PAGE) -> int:
    """arch_get_unmapped_area_topdown: the hint, else from the top, else from a third of the address space upwards."""
    if length > mm.task_size:
        raise Failed(ENOMEM)
    if flags & MAP_FIXED:
        return address
    if not flags & MAP_32BIT:
        hint = align_up(address, align)
        if hint and hint_is_free(mm, hint, length):
            return hint
        top = mm.mmap_base + (mm.task_size - MAP_WINDOW if address > MAP_WINDOW else 0)
        found = highest_gap(mm, length, PAGE, top) if align == PAGE else highest_aligned_gap(mm, length, align, PAGE, top)
        if found is not None:
            return found
    low, high = page_align(MAP_WINDOW // 3), mm.task_size if address > MAP_WINDOW else MAP_WINDOW
    if flags & MAP_32BIT:
        low, high = 0x40000000, 0x80000000
    vma = mm.vmas.find(address)
    if address and high - length >= address and (vma is None or address + length <= vma.gap_start):
        return address
    found = lowest_gap(mm, length, align, low, high)
    if found is None:
        raise Failed(ENOMEM)
    return found


def search_thp_aligned(mm, length: int) -> int | None:
    """Room with 2 MiB to spare, the address moved up to a multiple of 2 MiB (by the whole spare, were it one already)."""
    try:
        found = search(mm, 0, length + PMD_SIZE, 0)
    except Failed:
        return None
    aside = -found % PMD_SIZE
    return found + (aside or PMD_SIZE)


def get_unmapped_area(mm, address: int, length: int, flags: int, file=None) -> int:
    """Where a mapping of `length` bytes goes."""
    if length > mm.task_size:
        raise Failed(ENOMEM)
    found = None
    if file is not None and file.kind == "hugetlb":
        if flags & MAP_FIXED and address % PMD_SIZE:
            raise Failed(EINVAL)
        found = search(mm, address, length, flags, HPAGE * PAGE)
    elif file is None and not address and not flags & (MAP_SHARED | MAP_FIXED) and length % PMD_SIZE == 0:
        found = search_thp_aligned(mm, length)
    if found is None:
        found = search(mm, address, length, flags)
    if found > mm.task_size - length:
        raise Failed(ENOMEM)
    if found % PAGE:
        raise Failed(EINVAL)
    if found < mm.machine.mmap_min_addr and not mm.privileged:
        raise Failed(EPERM)
    return found
