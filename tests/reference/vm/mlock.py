"""mlock, munlock, mlockall, munlockall.

Models: do_mlock, apply_vma_lock_flags, mlock_fixup, apply_mlockall_flags (mm/mlock.c, v6.12). Simplifies: pages become unevictable at once.
Omits: SHM_LOCK.
"""

import contextlib

from . import merge, populate, rmap, zap
from .constants import (
    EAGAIN,
    EFAULT,
    EINVAL,
    ENOMEM,
    EPERM,
    HPAGE,
    MCL_CURRENT,
    MCL_FUTURE,
    MCL_ONFAULT,
    PAGE,
    VM_HUGETLB,
    VM_LOCKED,
    VM_LOCKED_MASK,
    VM_LOCKONFAULT,
    VM_SPECIAL,
    Failed,
    align_down,
    page_align,
)


def mlock(mm, start: int, length: int, *, onfault: bool = False) -> int:
    if not mm.can_lock:
        raise Failed(EPERM)
    length = page_align(length + start % PAGE)
    start = align_down(start, PAGE)
    end, limit = start + length, mm.rlimits["memlock"] // PAGE
    wanted = length // PAGE + mm.locked_vm
    if wanted > limit and not mm.privileged:
        wanted -= sum(len(vma.vpns(start, end)) for vma in mm.vmas.intersecting(start, end) if vma.flags & VM_LOCKED)
        if wanted > limit:
            raise Failed(ENOMEM)
    apply(mm, start, end, VM_LOCKED | (VM_LOCKONFAULT if onfault else 0))
    try:
        populate.populate(mm, start, end, ignore_errors=False)
    except Failed as failure:
        raise Failed({EFAULT: ENOMEM, ENOMEM: EAGAIN}.get(failure.errno, failure.errno)) from None
    return 0


def munlock(mm, start: int, length: int) -> int:
    length = page_align(length + start % PAGE)
    start = align_down(start, PAGE)
    apply(mm, start, start + length, 0)
    return 0


def mlockall(mm, flags: int) -> int:
    if not flags or flags & ~(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) or flags == MCL_ONFAULT:
        raise Failed(EINVAL)
    if not mm.can_lock:
        raise Failed(EPERM)
    if flags & MCL_CURRENT and not mm.privileged and mm.total_vm > mm.rlimits["memlock"] // PAGE:
        raise Failed(ENOMEM)
    apply_all(mm, flags)
    if flags & MCL_CURRENT:
        populate.populate(mm, 0, mm.task_size, ignore_errors=True)
    return 0


def munlockall(mm) -> int:
    apply_all(mm, 0)
    return 0


def apply_all(mm, flags: int) -> None:
    lock = VM_LOCKED | (VM_LOCKONFAULT if flags & MCL_ONFAULT else 0)
    mm.def_flags = lock if flags & MCL_FUTURE else 0
    if flags & MCL_FUTURE and not flags & MCL_CURRENT:
        return
    for vma in mm.vmas:
        if vma in mm.vmas.list:
            with contextlib.suppress(Failed):
                fixup(vma, vma.start, vma.end, vma.flags & ~VM_LOCKED_MASK | (lock if flags & MCL_CURRENT else 0))


def apply(mm, start: int, end: int, lock: int) -> None:
    while start < end:
        vma = mm.vmas.lookup(start)
        if vma is None:
            raise Failed(ENOMEM)
        stop = min(end, vma.end)
        start = max(stop, fixup(vma, start, stop, vma.flags & ~VM_LOCKED_MASK | lock))


def fixup(vma, start: int, end: int, flags: int) -> int:
    """One VMA's part is locked or unlocked; returns the end of the VMA that holds it afterwards."""
    before, mm = vma.flags, vma.mm
    if flags == before or before & (VM_SPECIAL | VM_HUGETLB):
        return end
    vma = merge.modify_flags(vma, start, end, flags)
    now, was = bool(flags & VM_LOCKED), bool(before & VM_LOCKED)
    mm.locked_vm += (end - start) // PAGE * (now - was)
    if now != was:
        for page in folios_inside(mm, start, end, now):
            (rmap.mlock if now else rmap.munlock)(mm.machine, page)
    return vma.end


def folios_inside(mm, start: int, end: int, lock: bool):
    """A page of each folio mapped in the range, once for a row of its entries. Of large ones only those wholly in it are locked."""
    for base in zap.huge_bases(mm, start, end):
        if mm.pmds[base].folio and start <= base * PAGE and (base + HPAGE) * PAGE <= end:
            yield mm.pmds[base].folio.pages[0]
    for run in list(rmap.runs(mm, zap.mapped_vpns(mm, start, end))):
        page = mm.ptes[run[0]].page
        if page and (not page.large or not lock or len(run) == len(page.folio.pages)):
            yield page
