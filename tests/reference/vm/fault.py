"""One access, and the fault it may take.

Models: do_user_addr_fault, handle_mm_fault, do_anonymous_page, do_wp_page, do_read_fault with do_fault_around, do_cow_fault,
do_shared_fault (arch/x86/mm/fault.c, mm/memory.c, v6.12). Simplifies: x86 entries are young when made; file pages come one at a time.
Omits: swap, read-ahead, userfaultfd, NUMA hints, out of memory.
"""

from . import anon_vma, huge, hugetlb, rmap, stack
from .constants import HPAGE, PAGE, VM_ACCESS, VM_MAYSHARE, VM_SHARED, VM_WRITE, align_down
from .page import Page, Pte


def access(mm, vpn: int, write: bool) -> str:
    """What a load or store to page `vpn` meets: hit, minor, major, segv or sigbus."""
    if not 0 <= vpn * PAGE < mm.task_size:
        return "segv"
    leaf = mm.leaf(vpn)
    if leaf and not leaf.protnone and (leaf.writable or not write):
        leaf.young = True
        leaf.dirty = leaf.dirty or write
        return "hit"
    vma = stack.find_or_grow(mm, vpn * PAGE)
    if vma is None or not vma.flags & (VM_WRITE if write else VM_ACCESS):
        return "segv"
    return handle(vma, vpn, write)


def handle(vma, vpn: int, write: bool) -> str:
    """handle_mm_fault and its bookkeeping. A failing fault is in pgfault, but not in the task's counts."""
    result = handle_mm_fault(vma, vpn, write)
    vma.mm.machine.count("pgfault")
    if result == "minor":
        vma.mm.minflt += 1
    elif result == "major":
        vma.mm.majflt += 1
    return result


def handle_mm_fault(vma, vpn: int, write: bool) -> str:
    mm, base = vma.mm, align_down(vpn, HPAGE)
    mm.tables.alloc(vpn, 1)
    if vma.file and vma.file.kind == "hugetlb":
        return hugetlb.fault(vma, vpn, write)
    if base not in mm.pmds and not mm.tables.has(0, vpn) and huge.fault(vma, vpn, write):
        return "minor"
    if base in mm.pmds:
        pmd = mm.pmds[base]
        if not write or pmd.writable:
            pmd.young = True
            pmd.dirty = pmd.dirty or write
            return "minor"
        if huge.write_protected(vma, vpn):
            return "minor"
    pte = mm.ptes.get(vpn)
    if pte is None:
        return anonymous(vma, vpn, write) if vma.is_anonymous else of_file(vma, vpn, write)
    if write and not pte.writable:
        return write_protected(vma, vpn, pte)
    pte.young = True
    pte.dirty = pte.dirty or write
    return "minor"


def new_anon_page(vma, vpn: int) -> Page:
    return Page("anon", vma.index_of(vpn), anon_vma=vma.anon_vma, exclusive=True)


def anonymous(vma, vpn: int, write: bool) -> str:
    mm = vma.mm
    mm.tables.alloc(vpn, 0)
    if not write:
        rmap.add_pte(mm, vma, vpn, Pte(None))
        return "minor"
    anon_vma.prepare(vma)
    writable = bool(vma.flags & VM_WRITE)
    order = huge.fault_order(vma, vpn)
    if order == 0:
        rmap.add_pte(mm, vma, vpn, Pte(new_anon_page(vma, vpn), writable, dirty=writable))
        return "minor"
    first = align_down(vpn, 1 << order)
    folio = huge.new_folio(vma, order, first)
    mm.machine.count_mthp(order, "anon_fault_alloc")
    for i, page in enumerate(folio.pages):
        rmap.add_pte(mm, vma, first + i, Pte(page, writable, dirty=writable))
    if rmap.locks(vma):
        rmap.mlock(mm.machine, folio.pages[0])
    return "minor"


def write_protected(vma, vpn: int, pte: Pte) -> str:
    """Write to a present, read-only entry."""
    mm, page = vma.mm, pte.page
    if vma.flags & (VM_SHARED | VM_MAYSHARE):
        page.dirty = True
        return reuse(vma, pte)
    if page and page.is_anon:
        if page.exclusive:
            return reuse(vma, pte)
        if not page.large and page.mapcount == 1:
            page.exclusive = True
            page.anon_vma = vma.anon_vma
            return reuse(vma, pte)
    anon_vma.prepare(vma)
    mm.machine.cow_copies += 1
    rmap.remove_ptes(mm, vma, [vpn])
    writable = bool(vma.flags & VM_WRITE)
    rmap.add_pte(mm, vma, vpn, Pte(new_anon_page(vma, vpn), writable, dirty=True))
    return "minor"


def reuse(vma, pte: Pte) -> str:
    vma.mm.machine.count("pgreuse")
    pte.writable = bool(vma.flags & VM_WRITE)
    pte.dirty = pte.young = True
    return "minor"


def of_file(vma, vpn: int, write: bool) -> str:
    """No entry yet in a file's mapping."""
    mm, file = vma.mm, vma.file
    if not write:
        fault_around(vma, vpn)
        if vpn in mm.ptes:
            return "minor"
        page, outcome = file_page(vma, vma.index_of(vpn))
        if page:
            mm.tables.alloc(vpn, 0)
            rmap.add_pte(mm, vma, vpn, Pte(page, writable_at_once(vma)))
        return outcome
    if not vma.flags & VM_SHARED:
        anon_vma.prepare(vma)
    page, outcome = file_page(vma, vma.index_of(vpn))
    if page is None:
        return outcome
    mm.tables.alloc(vpn, 0)
    if vma.flags & VM_SHARED:
        page.dirty = file.tracks_dirty or page.dirty
        rmap.add_pte(mm, vma, vpn, Pte(page, writable=True, dirty=True))
    else:
        rmap.add_pte(mm, vma, vpn, Pte(new_anon_page(vma, vpn), bool(vma.flags & VM_WRITE), dirty=True))
    return outcome


def writable_at_once(vma) -> bool:
    """Shared writable memory whose file needs no notice of the first write has writable entries from the start."""
    return vma.shared and bool(vma.flags & VM_WRITE) and not vma.file.tracks_dirty


def file_page(vma, index: int) -> tuple[Page | None, str]:
    """(page, outcome) of the page cache; tmpfs makes what it has not, others read it."""
    machine, file = vma.mm.machine, vma.file
    if index >= file.nr_pages:
        return None, "sigbus"
    if page := file.page(index):
        return page, "minor"
    if file.kind == "shmem":
        if file.noreserve and not machine.commit.enough(vma.mm, 1):
            return None, "sigbus"
        file.charged += file.noreserve
        return file.add(index), "minor"
    machine.count("pgmajfault")
    return file.add(index), "major"


def fault_around(vma, vpn: int) -> None:
    """Map the cached pages about `vpn` whose entries are empty: a window aligned in the page table, cut by the VMA and the file."""
    mm = vma.mm
    window = mm.machine.fault_around_pages
    if window <= 1:
        return
    i, offset = vpn % HPAGE, vpn - vma.start // PAGE
    first = max(align_down(i, window), i - min(i, offset))
    last = min(first + window, HPAGE, i + vma.pages - offset) - 1
    for other in range(vpn - i + first, vpn - i + last + 1):
        index = vma.index_of(other)
        if index >= vma.file.nr_pages:
            break
        page = vma.file.page(index)
        if page and other not in mm.ptes:
            mm.tables.alloc(other, 0)
            rmap.add_pte(mm, vma, other, Pte(page, writable_at_once(vma)))
