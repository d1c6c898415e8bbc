"""hugetlb: the pool of 2 MiB pages, reservations, and faults from it.

Models: hugetlb_acct_memory, gather_surplus_pages, return_unused_surplus_pages, alloc_hugetlb_folio, free_huge_folio, set_max_huge_pages,
hugetlb_no_page, hugetlb_wp (mm/hugetlb.c, v6.12). Simplifies: one size, one node; an allocation from the buddy system never fails.
Omits: subpools, memcg charges, PMD sharing, hugetlb of other sizes.
"""

from . import anon_vma
from .constants import ENOMEM, HPAGE, PAGE, VM_NORESERVE, VM_WRITE, Failed, align_down
from .page import Folio, Pmd


class Pool:
    """struct hstate."""

    def __init__(self, commit, total: int = 0, overcommit: int = 0):
        self.commit = commit
        self.total = self.free = self.reserved = self.surplus = 0
        self.overcommit = overcommit
        self.resize(total)

    def resize(self, count: int) -> None:
        """nr_hugepages is written."""
        while self.surplus and count > self.total - self.surplus:
            self.surplus -= 1
        while count > self.total - self.surplus:
            self.total += 1
            self.free += 1
        least = max(count, self.reserved + self.total - self.free)
        while least < self.total - self.surplus:
            self.total -= 1
            self.free -= 1
        while count < self.total - self.surplus:
            self.surplus += 1
        self.commit.hugetlb_pages = self.total * HPAGE

    def reserve(self, pages: int) -> None:
        needed = self.reserved + pages - self.free
        if needed > 0:
            if self.surplus + needed > self.overcommit:
                raise Failed(ENOMEM)
            self.add_surplus(needed)
        self.reserved += pages

    def add_surplus(self, pages: int) -> None:
        self.surplus += pages
        self.total += pages
        self.free += pages
        self.commit.hugetlb_pages = self.total * HPAGE

    def unreserve(self, pages: int) -> None:
        """A reservation was not used: surplus pages made for it go back."""
        self.reserved -= pages
        self.add_surplus(-min(pages, self.surplus, self.free))

    def take(self, reserved: bool) -> bool:
        if reserved:
            self.reserved -= 1
        elif self.free <= self.reserved:
            if self.surplus >= self.overcommit:
                return False
            self.add_surplus(1)
        self.free -= 1
        return True

    def give(self) -> None:
        self.free += 1
        if self.surplus:
            self.add_surplus(-1)


def index_of(vma, base: int) -> int:
    return vma.index_of(base) // HPAGE


def reserve_mapping(vma) -> None:
    """mmap: pages for the whole private mapping, or for the part of the file that has none yet."""
    if vma.flags & VM_NORESERVE:
        return
    pool = vma.mm.machine.hugetlb
    indexes = set(range(vma.pgoff // HPAGE, vma.pgoff // HPAGE + vma.pages // HPAGE))
    if vma.shared:
        indexes -= vma.file.reserved | set(vma.file.cached)
    pool.reserve(len(indexes))
    vma.resv = None if vma.shared else set()
    holder(vma).update(indexes)


def holder(vma) -> set:
    """Indexes with a reservation that is not used yet."""
    return vma.file.reserved if vma.shared else vma.resv


def has_reservation(vma, index: int) -> bool:
    return index in (holder(vma) or ())


def new_folio(vma, index: int) -> Folio | None:
    reserved = has_reservation(vma, index)
    if not vma.mm.machine.hugetlb.take(reserved):
        return None
    if reserved:
        holder(vma).discard(index)
    return Folio("hugetlb", 9, index * HPAGE)


def fault(vma, vpn: int, write: bool) -> str:
    mm, base = vma.mm, align_down(vpn, HPAGE)
    index = index_of(vma, base)
    pmd = mm.pmds.get(base)
    if pmd and (pmd.writable or not write):
        return "minor"
    if index * HPAGE >= vma.file.nr_pages:
        return "sigbus"
    writable = bool(vma.flags & VM_WRITE)
    if pmd is None:
        folio = vma.file.cached.get(index) if vma.shared else None
        if folio is None:
            if not vma.shared:
                anon_vma.prepare(vma)
            folio = new_folio(vma, index)
            if folio is None:
                return "sigbus"
            if vma.shared:
                vma.file.cached[index] = folio
        mm.pmds[base] = Pmd(folio, writable and (write or vma.shared), dirty=write)
        folio.pmds.add((mm, base))
        return "minor"
    return write_protected(vma, base, pmd)


def write_protected(vma, base: int, pmd: Pmd) -> str:
    mm = vma.mm
    if not vma.shared and len(pmd.folio.pmds) > 1:
        copy = new_folio(vma, index_of(vma, base))
        if copy:
            pmd.folio.pmds.discard((mm, base))
            copy.pmds.add((mm, base))
            pmd.folio = copy
        elif vma.resv is not None:
            # the one with the reservation wins: the others lose the page
            for other, at in list(pmd.folio.pmds - {(mm, base)}):
                del other.pmds[at]
                pmd.folio.pmds.discard((other, at))
        else:
            return "sigbus"
    pmd.writable = pmd.dirty = True
    return "minor"


def unmap(vma, start: int, end: int) -> None:
    """munmap, DONTNEED: private pages go back to the pool, those of files stay with the file."""
    mm = vma.mm
    pool = mm.machine.hugetlb
    for base in range(start // PAGE, end // PAGE, HPAGE):
        pmd = mm.pmds.pop(base, None)
        if pmd is None:
            continue
        pmd.folio.pmds.discard((mm, base))
        if not vma.shared and not pmd.folio.pmds:
            restore = vma.resv is not None and pool.surplus == 0
            pool.give()
            if restore:
                pool.reserved += 1
                holder(vma).add(index_of(vma, base))


def close(vma) -> None:
    """The VMA goes: what a private owner reserved in it and did not use is free again."""
    if vma.resv is None:
        return
    unused = holder(vma) & set(range(vma.pgoff // HPAGE, (vma.pgoff + vma.pages) // HPAGE))
    holder(vma).difference_update(unused)
    vma.mm.machine.hugetlb.unreserve(len(unused))


def release_file(pool: Pool, file) -> None:
    """The file goes, with its pages and reservations."""
    for _ in file.cached:
        pool.give()
    pool.unreserve(len(file.reserved))
    file.reserved.clear()
