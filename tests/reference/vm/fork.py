"""fork and exit.

Models: dup_mmap, anon_vma_fork, copy_page_range, copy_huge_pmd, exit_mmap (kernel/fork.c, mm/memory.c, mm/huge_memory.c, mm/mmap.c, v6.12).
Simplifies: no pinned pages. Omits: swap entries.
"""

from . import anon_vma, mmap, rmap, zap
from .constants import PAGE, VM_ACCOUNT, VM_DONTCOPY, VM_LOCKED_MASK, VM_WIPEONFORK, Failed
from .page import Pmd, Pte
from .vma import Vma


def dup_mmap(parent, child) -> None:
    """Fill the child's empty address space. On failure nothing of it stays."""
    for name in ("total_vm", "data_vm", "exec_vm", "stack_vm", "start_brk", "brk", "mmap_base"):
        setattr(child, name, getattr(parent, name))
    try:
        for vma in parent.vmas:
            dup_vma(parent, child, vma)
    except Failed:
        exit_mmap(child)
        raise


def dup_vma(parent, child, vma: Vma) -> None:
    if vma.flags & VM_DONTCOPY:
        child.account(vma.flags, -vma.pages)
        return
    if vma.flags & VM_ACCOUNT:
        parent.machine.commit.charge(parent, vma.pages)
    copy = Vma(child, vma.start, vma.end, vma.flags & ~VM_LOCKED_MASK, vma.pgoff, vma.file)
    if not vma.flags & VM_WIPEONFORK:
        anon_vma.fork(copy, vma)
    child.insert(copy)
    if vma.anon_vma and not vma.flags & VM_WIPEONFORK:
        copy_range(vma, copy)


def copy_range(src: Vma, dst: Vma) -> None:
    """Tables and entries: private memory becomes read-only on both sides; the child's entries are old."""
    parent, child = src.mm, dst.mm
    child.tables.copy_range(parent.tables, src.start // PAGE, src.end // PAGE)
    for base in zap.huge_bases(parent, src.start, src.end):
        pmd = parent.pmds[base]
        pmd.writable = False
        copy = Pmd(pmd.folio, False, pmd.dirty, False, pmd.protnone)
        if pmd.kind == "hugetlb":
            child.pmds[base] = copy
            pmd.folio.pmds.add((child, base))
            continue
        if pmd.folio:
            for page in pmd.folio.pages:
                page.exclusive = False
        rmap.add_pmd(child, dst, base, copy)
    for vpn in zap.mapped_vpns(parent, src.start, src.end):
        pte = parent.ptes[vpn]
        pte.writable = False
        if pte.page and pte.page.is_anon:
            pte.page.exclusive = False
        rmap.add_pte(child, dst, vpn, Pte(pte.page, False, pte.dirty, False, pte.protnone))


def exit_mmap(mm) -> None:
    """Everything goes; a partly built child as well."""
    vmas = list(mm.vmas)
    mmap.remove(mm, vmas, uncharge=sum(vma.pages for vma in vmas if vma.flags & VM_ACCOUNT))
