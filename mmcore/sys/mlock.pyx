"""mlock, mlock2, munlock, mlockall, munlockall.

Models: do_mlock, apply_vma_lock_flags, mlock_fixup, apply_mlockall_flags (mm/mlock.c, v6.12). Simplifies: nothing known. Omits: limits of
a user across processes (System V shared memory).
"""
from libc.stdint cimport int64_t

from mmcore.base.errors cimport E_AGAIN, E_FAULT, E_INVAL, E_NOMEM, E_PERM
from mmcore.base.vm_records cimport AddressSpace, Vma
from mmcore.sys.advise_pages cimport mlock_range
from mmcore.sys.commit cimport MMF_CAP_IPC_LOCK, can_do_mlock
from mmcore.sys.populate cimport mm_populate
from mmcore.sys.vma_ops cimport vma_modify
from mmcore.vm.vma cimport *


cdef int mlock_fixup(Mm* mm, uint32_t as_, uint32_t* vma, uint64_t start, uint64_t end, uint64_t flags, unsigned cpu) noexcept nogil:
    # One VMA's share; vma[0] becomes the VMA that holds the range afterwards.
    cdef const Vma* v = vma_at(mm, vma[0])
    cdef uint64_t old = v.flags, pages = (end - start) >> PAGE_SHIFT
    cdef int64_t rc
    if flags == old or old & VM_SPECIAL or old & VM_DROPPABLE:
        return 0
    rc = vma_modify(mm, vma[0], start, end, flags, v.name, cpu)
    if rc < 0:
        return <int>rc
    vma[0] = <uint32_t>rc
    if not flags & VM_LOCKED:
        as_at(mm, as_).locked_vm -= pages
    elif not old & VM_LOCKED:
        as_at(mm, as_).locked_vm += pages
    vma_at(mm, vma[0]).flags = flags
    if (flags ^ old) & VM_LOCKED:           # ONFAULT alone changes nothing for pages that are there
        mlock_range(mm, as_, vma[0], start, end, cpu)
    return 0


cdef int apply_lock_flags(Mm* mm, uint32_t as_, uint64_t start, uint64_t length, uint64_t add, unsigned cpu) noexcept nogil:
    cdef uint64_t end = start + length, at = start, stop
    cdef uint32_t x
    cdef int rc
    if end < start:
        return -E_INVAL
    if end == start:
        return 0
    x = find_vma(mm, as_, start)
    if not x or vma_at(mm, x).start > start:
        return -E_NOMEM
    while x and vma_at(mm, x).start < end:
        if vma_at(mm, x).start > at:
            return -E_NOMEM
        stop = vma_at(mm, x).end if vma_at(mm, x).end < end else end
        rc = mlock_fixup(mm, as_, &x, at, stop, vma_at(mm, x).flags & ~<uint64_t>VM_LOCKED_MASK | add, cpu)
        if rc < 0:
            return rc
        at = vma_at(mm, x).end
        x = vma_at(mm, x).next
    return -E_NOMEM if at < end else 0


cdef uint64_t locked_pages(Mm* mm, uint32_t as_, uint64_t start, uint64_t end) noexcept nogil:
    cdef uint32_t x = find_vma(mm, as_, start)
    cdef const Vma* v
    cdef uint64_t n = 0
    while x and vma_at(mm, x).start < end:
        v = vma_at(mm, x)
        if v.flags & VM_LOCKED:
            n += ((v.end if v.end < end else end) - (v.start if v.start > start else start)) >> PAGE_SHIFT
        x = v.next
    return n


cdef int do_mlock(Mm* mm, uint32_t as_, uint64_t start, uint64_t length, bint onfault, unsigned cpu) noexcept nogil:
    cdef AddressSpace* a = as_at(mm, as_)
    cdef uint64_t limit = a.rlimit_memlock >> PAGE_SHIFT, locked
    cdef int rc
    if not can_do_mlock(a):
        return -E_PERM
    length = PAGE_UP(length + (start & (PAGE_BYTES - 1)))
    start = PAGE_DOWN(start)
    if not a.flags & MMF_CAP_IPC_LOCK:
        locked = (length >> PAGE_SHIFT) + a.locked_vm
        if locked > limit and start + length >= start:
            locked -= locked_pages(mm, as_, start, start + length)
        if locked > limit:
            return -E_NOMEM
    rc = apply_lock_flags(mm, as_, start, length, VM_LOCKED | (VM_LOCKONFAULT if onfault else 0), cpu)
    if rc < 0:
        return rc
    rc = mm_populate(mm, as_, start, length, False, cpu)
    return -E_NOMEM if rc == -E_FAULT else -E_AGAIN if rc == -E_NOMEM else rc


cdef int do_munlock(Mm* mm, uint32_t as_, uint64_t start, uint64_t length, unsigned cpu) noexcept nogil:
    length = PAGE_UP(length + (start & (PAGE_BYTES - 1)))
    return apply_lock_flags(mm, as_, PAGE_DOWN(start), length, 0, cpu)


cdef void lock_all(Mm* mm, uint32_t as_, uint64_t flags, unsigned cpu) noexcept nogil:
    cdef AddressSpace* a = as_at(mm, as_)
    cdef uint64_t add = 0
    cdef uint32_t x
    a.def_flags &= ~<uint64_t>VM_LOCKED_MASK
    if flags & MCL_FUTURE:
        a.def_flags |= VM_LOCKED | (VM_LOCKONFAULT if flags & MCL_ONFAULT else 0)
        if not flags & MCL_CURRENT:
            return
    if flags & MCL_CURRENT:
        add = VM_LOCKED | (VM_LOCKONFAULT if flags & MCL_ONFAULT else 0)
    x = a.vma_first
    while x:                                # errors are passed over
        mlock_fixup(mm, as_, &x, vma_at(mm, x).start, vma_at(mm, x).end, vma_at(mm, x).flags & ~<uint64_t>VM_LOCKED_MASK | add, cpu)
        x = vma_at(mm, x).next


cdef int do_mlockall(Mm* mm, uint32_t as_, uint64_t flags, unsigned cpu) noexcept nogil:
    cdef AddressSpace* a = as_at(mm, as_)
    if not flags or flags & ~<uint64_t>(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) or flags == MCL_ONFAULT:
        return -E_INVAL
    if not can_do_mlock(a):
        return -E_PERM
    if flags & MCL_CURRENT and a.total_vm > a.rlimit_memlock >> PAGE_SHIFT and not a.flags & MMF_CAP_IPC_LOCK:
        return -E_NOMEM
    lock_all(mm, as_, flags, cpu)
    if flags & MCL_CURRENT:
        mm_populate(mm, as_, 0, a.task_size, True, cpu)
    return 0


cdef int do_munlockall(Mm* mm, uint32_t as_, unsigned cpu) noexcept nogil:
    lock_all(mm, as_, 0, cpu)
    return 0
