"""Faulting in a range: MAP_POPULATE, mlock, MADV_POPULATE_READ/WRITE.

Models: __mm_populate, populate_vma_page_range, faultin_page_range (mm/gup.c, v6.12). Simplifies: nothing known. Omits: signals.
"""

from . import fault
from .constants import EFAULT, EINVAL, ENOMEM, PAGE, VM_ACCESS, VM_LOCKONFAULT, VM_READ, VM_SHARED, VM_WRITE, Failed


def fault_in(vma, start: int, end: int, write: bool) -> None:
    """Fault every page that is not there, or not writable where a write is asked for."""
    mm = vma.mm
    for vpn in range(start // PAGE, end // PAGE):
        leaf = mm.leaf(vpn)
        satisfied = leaf and not leaf.protnone and (leaf.writable or not write)
        if not satisfied and fault.handle(vma, vpn, write) == "sigbus":
            raise Failed(EFAULT)


def populate_vma(vma, start: int, end: int) -> None:
    """Private writable memory by writes, so that no copy is due later; the rest by reads."""
    if vma.flags & VM_LOCKONFAULT:
        return
    if not vma.flags & VM_ACCESS:
        raise Failed(EFAULT)
    fault_in(vma, start, end, vma.flags & (VM_WRITE | VM_SHARED) == VM_WRITE)


def populate(mm, start: int, end: int, *, ignore_errors: bool) -> None:
    for vma in mm.vmas.intersecting(start, end):
        try:
            populate_vma(vma, max(start, vma.start), min(end, vma.end))
        except Failed:
            if not ignore_errors:
                raise


def madvise_populate(mm, start: int, end: int, write: bool) -> None:
    while start < end:
        vma = mm.vmas.lookup(start)
        if vma is None:
            raise Failed(ENOMEM)
        if not vma.flags & (VM_WRITE if write else VM_READ):
            raise Failed(EINVAL)
        fault_in(vma, start, min(end, vma.end), write)
        start = vma.end
