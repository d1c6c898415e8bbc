"""mprotect: VMAs and the entries under them.

Models: do_mprotect_pkey, mprotect_fixup, change_protection (mm/mprotect.c), change_huge_pmd (mm/huge_memory.c, v6.12). Simplifies: nothing
known. Omits: PROT_GROWSDOWN, protection keys, NUMA hinting.
"""

import contextlib

from . import huge, merge, populate, zap
from .constants import (
    EACCES,
    EINVAL,
    ENOMEM,
    HPAGE,
    PAGE,
    VM_ACCESS,
    VM_ACCOUNT,
    VM_HUGETLB,
    VM_LOCKED,
    VM_NORESERVE,
    VM_SHARED,
    VM_WRITE,
    Failed,
    page_align,
)


def mprotect(mm, start: int, length: int, prot: int) -> int:
    if start % PAGE or prot & ~VM_ACCESS:
        raise Failed(EINVAL)
    if length == 0:
        return 0
    end = start + page_align(length)
    while start < end:
        vma = mm.vmas.lookup(start)
        if vma is None:
            raise Failed(ENOMEM)
        flags = vma.flags & ~VM_ACCESS | prot
        if prot & ~(flags >> 4):
            raise Failed(EACCES)
        stop = min(end, vma.end)
        start = max(change(vma, start, stop, flags), stop)
    return 0


def change(vma, start: int, end: int, flags: int) -> int:
    """One VMA's part gets `flags`; returns the end of the VMA that holds it afterwards."""
    mm, pages, before = vma.mm, (end - start) // PAGE, vma.flags
    commit, charged = mm.machine.commit, 0
    if flags == before:
        return vma.end
    if flags & VM_WRITE:
        if not mm.may_expand(flags, pages) and mm.may_expand(before, pages):
            raise Failed(ENOMEM)
        if not before & (VM_ACCOUNT | VM_WRITE | VM_HUGETLB | VM_SHARED | VM_NORESERVE):
            commit.charge(mm, pages)
            charged = pages
            flags |= VM_ACCOUNT
    elif before & VM_ACCOUNT and vma.is_anonymous and not vma.anon_vma:
        flags &= ~VM_ACCOUNT
    try:
        vma = merge.modify_flags(vma, start, end, flags)
    except Failed:
        commit.uncharge(charged)
        raise
    change_protection(vma, start, end)
    if before & VM_ACCOUNT and not flags & VM_ACCOUNT:
        commit.uncharge(pages)
    if before & (VM_WRITE | VM_SHARED | VM_LOCKED) == VM_LOCKED and flags & VM_WRITE:
        with contextlib.suppress(Failed):
            populate.populate_vma(vma, start, end)
    mm.account(before, -pages)
    mm.account(flags, pages)
    return vma.end


def change_protection(vma, start: int, end: int) -> None:
    mm = vma.mm
    for base in zap.huge_bases(mm, start, end):
        pmd = mm.pmds[base]
        if not (start <= base * PAGE and (base + HPAGE) * PAGE <= end):
            huge.split_pmd(vma, base)
        elif pmd.kind == "hugetlb":
            pmd.protnone = not vma.flags & VM_ACCESS
            pmd.writable = vma.shared and bool(vma.flags & VM_WRITE)
        else:
            set_rights(vma, pmd, pmd.folio.pages[0] if pmd.folio else None)
    for vpn in zap.mapped_vpns(mm, start, end):
        set_rights(vma, mm.ptes[vpn], mm.ptes[vpn].page)


def set_rights(vma, leaf, page) -> None:
    """The VMA's rights, without the right to write in private memory; then writable at once if no fault could be wanted."""
    leaf.protnone = not vma.flags & VM_ACCESS
    leaf.writable = False
    if not vma.flags & VM_WRITE:
        return
    if vma.flags & VM_SHARED:
        leaf.writable = not vma.file.tracks_dirty or leaf.dirty
    else:
        leaf.writable = bool(page and page.is_anon and page.exclusive)
