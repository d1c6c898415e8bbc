"""Transparent huge pages: allowed sizes, the fault, writes to read-only ones, splits.

Models: thp_vma_allowable_orders, do_huge_pmd_anonymous_page, do_huge_pmd_wp_page, __split_huge_pmd, split_folio, change_huge_pmd
(mm/huge_memory.c, v6.12). Simplifies: memory never lacks, but for `machine.fail_huge`. Omits: khugepaged, the split queue's shrinker,
huge pages of files.
"""

from . import anon_vma, rmap
from .constants import HPAGE, PAGE, VM_GROWSDOWN, VM_HUGEPAGE, VM_NOHUGEPAGE, VM_RAND_READ, VM_SEQ_READ, VM_WRITE, align_down
from .page import Folio, Page, Pmd, Pte

PMD_ORDER = 9


def allowed(vma, order: int) -> bool:
    """Whether sysfs and the VMA's flags want anonymous folios of this order."""
    machine = vma.mm.machine
    building = VM_RAND_READ | VM_SEQ_READ
    if not vma.is_anonymous or vma.flags & VM_NOHUGEPAGE or (vma.flags & VM_GROWSDOWN and vma.flags & building == building):
        return False
    mode = machine.mthp.get(4 << order, "inherit" if order == PMD_ORDER else "never")
    if mode == "inherit":
        mode = machine.thp
    return mode == "always" or (mode == "madvise" and bool(vma.flags & VM_HUGEPAGE))


def fits(vma, vpn: int, order: int) -> bool:
    first = align_down(vpn, 1 << order)
    return vma.start <= first * PAGE and (first + (1 << order)) * PAGE <= vma.end


def new_folio(vma, order: int, first_vpn: int) -> Folio:
    folio = Folio("anon", order, vma.index_of(first_vpn))
    for page in folio.pages:
        page.anon_vma = vma.anon_vma
        page.exclusive = True
    return folio


def fault(vma, vpn: int, write: bool) -> bool:
    """A fault where no PMD entry is. False: go on with a small page."""
    mm, base = vma.mm, align_down(vpn, HPAGE)
    machine = mm.machine
    if not allowed(vma, PMD_ORDER) or not fits(vma, vpn, PMD_ORDER):
        return False
    anon_vma.prepare(vma)
    writable = bool(vma.flags & VM_WRITE)
    if not write and machine.sysctl.get("use_zero_page", 1):
        if not machine.huge_zero:
            if machine.fail_huge:
                machine.count("thp_zero_page_alloc_failed")
                machine.count("thp_fault_fallback")
                return False
            machine.huge_zero = True
            machine.count("thp_zero_page_alloc")
        rmap.add_pmd(mm, vma, base, Pmd(None))
        return True
    if machine.fail_huge:
        machine.count("thp_fault_fallback")
        machine.count_mthp(PMD_ORDER, "anon_fault_fallback")
        return False
    machine.count("thp_fault_alloc")
    machine.count_mthp(PMD_ORDER, "anon_fault_alloc")
    rmap.add_pmd(mm, vma, base, Pmd(new_folio(vma, PMD_ORDER, base), writable, dirty=True))
    return True


def write_protected(vma, vpn: int) -> bool:
    """Write to a read-only huge leaf: taken over, or else split (False) and left to the PTE level."""
    base = align_down(vpn, HPAGE)
    pmd = vma.mm.pmds[base]
    if pmd.folio:
        first = pmd.folio.pages[0]
        if not first.exclusive and pmd.folio.mapcount == 1:
            for page in pmd.folio.pages:
                page.exclusive = True
                page.anon_vma = vma.anon_vma
        if first.exclusive:
            pmd.writable = bool(vma.flags & VM_WRITE)
            pmd.dirty = pmd.young = True
            return True
    split_pmd(vma, base)
    return False


def split_pmd(vma, base: int) -> None:
    """512 PTEs instead of a huge leaf, in the table deposited for it."""
    mm = vma.mm
    machine = mm.machine
    pmd = mm.pmds[base]
    machine.count("thp_split_pmd")
    mm.tables.deposited.discard(base)
    mm.tables.alloc(base, 0)
    # the new mappings come first: the folio is never seen as partly unmapped
    for i in range(HPAGE):
        page = pmd.folio.pages[i] if pmd.folio else None
        pte = Pte(page, pmd.writable, pmd.dirty, pmd.young, pmd.protnone)
        rmap.add_pte(mm, vma, base + i, pte)
    rmap.remove_pmd(mm, vma, base)


def split_pmd_at(vma, address: int) -> None:
    """A border comes to be at `address`: a huge leaf across it is split."""
    base = align_down(address // PAGE, HPAGE)
    if address % (HPAGE * PAGE) and base in vma.mm.pmds and vma.mm.pmds[base].kind != "hugetlb":
        split_pmd(vma, base)


def split_folio(folio: Folio) -> None:
    """The folio falls into small pages; those without a mapping are gone."""
    for mm, base in list(folio.pmds):
        split_pmd(mm.vmas.lookup(base * PAGE), base)
    machine = next(mm.machine for page in folio.pages for mm, _ in page.ptes)
    if folio.order == PMD_ORDER:
        machine.count("thp_split_page")
    machine.count_mthp(folio.order, "split")
    for page in folio.pages:
        page.folio = None


def shared_folio(page: Page) -> bool:
    """The estimate "mapped shared" of a large folio; exact for a small one."""
    folio = page.folio
    if folio is None:
        return page.mapcount > 1
    total = folio.mapcount
    if total > len(folio.pages) or (folio.pmds and total > 1):
        return True
    return folio.pages[0].mapcount > 1


def fault_order(vma, vpn: int) -> int:
    """Order of the folio for an anonymous write fault at PTE level: the largest enabled one with room."""
    mm = vma.mm
    for order in range(PMD_ORDER - 1, 1, -1):
        first = align_down(vpn, 1 << order)
        if allowed(vma, order) and fits(vma, vpn, order) and not any(v in mm.ptes for v in range(first, first + (1 << order))):
            if not mm.machine.fail_huge:
                return order
            mm.machine.count_mthp(order, "anon_fault_fallback")
    return 0
