"""Stacks grow downwards on a fault.

Models: lock_mm_and_find_vma, expand_downwards, acct_stack_growth (mm/memory.c, mm/vma.c, v6.12). Simplifies: nothing known. Omits:
stacks that grow upwards.
"""

from . import anon_vma
from .constants import PAGE, VM_ACCESS, VM_GROWSDOWN, VM_LOCKED, align_down


def find_or_grow(mm, address: int):
    """The VMA at `address`, after a stack above has been extended to it; None where nothing is."""
    vma = mm.vmas.find(address)
    if vma is None or vma.start <= address:
        return vma
    return vma if vma.flags & VM_GROWSDOWN and grow(vma, align_down(address, PAGE)) else None


def grow(vma, address: int) -> bool:
    mm = vma.mm
    if address < mm.machine.mmap_min_addr:
        return False
    prev, _ = mm.vmas.neighbours(vma)
    guarded = prev and not prev.flags & VM_GROWSDOWN and prev.flags & VM_ACCESS
    if guarded and address - prev.end < mm.machine.stack_guard_gap * PAGE:
        return False
    anon_vma.prepare(vma)
    pages = (vma.start - address) // PAGE
    if (
        pages > vma.pgoff
        or not mm.may_expand(vma.flags, pages)
        or vma.end - address > mm.rlimits["stack"]
        or not mm.may_lock(vma.flags, pages * PAGE)
        or not mm.machine.commit.enough(mm, pages)
    ):
        return False
    if vma.flags & VM_LOCKED:
        mm.locked_vm += pages
    mm.account(vma.flags, pages)
    vma.start = address
    vma.pgoff -= pages
    return True
