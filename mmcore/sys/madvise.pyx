"""madvise: what advice does to VMAs, and which range of pages it reaches.

Models: do_madvise, madvise_walk_vmas, madvise_vma_behavior, madvise_populate (mm/madvise.c, v6.12). Simplifies: nothing known. Omits:
KSM (MERGEABLE), poisoning, guard regions.
"""
from libc.stdint cimport int64_t

from mmcore.base.errors cimport E_ACCES, E_AGAIN, E_INVAL, E_NOMEM
from mmcore.base.vm_records cimport Vma
from mmcore.sys.advise_pages cimport (
    cold_range, collapse_range, madvise_free_range, pageout_range, remove_range, willneed_range,
)
from mmcore.sys.fault cimport populate_range
from mmcore.sys.hugetlb cimport HPAGE_BYTES
from mmcore.sys.thp cimport khugepaged_enter
from mmcore.sys.vma_ops cimport vma_modify
from mmcore.sys.flush cimport FlushRange, flush_note, flush_noted
from mmcore.sys.zap cimport zap_range
from mmcore.vm.vma cimport *


cdef bint known(int advice) noexcept nogil:
    return (MADV_NORMAL <= advice <= MADV_DONTNEED or MADV_FREE <= advice <= MADV_DOFORK or advice == MADV_HUGEPAGE
            or MADV_NOHUGEPAGE <= advice <= MADV_COLLAPSE)


cdef int64_t advised_flags(const Vma* v, int advice) noexcept nogil:
    # The VMA's flags under this advice, or a negative errno.
    cdef uint64_t flags = v.flags
    if advice == MADV_NORMAL:
        flags &= ~<uint64_t>(VM_RAND_READ | VM_SEQ_READ)
    elif advice == MADV_SEQUENTIAL:
        flags = flags & ~<uint64_t>VM_RAND_READ | VM_SEQ_READ
    elif advice == MADV_RANDOM:
        flags = flags & ~<uint64_t>VM_SEQ_READ | VM_RAND_READ
    elif advice == MADV_DONTFORK:
        flags |= VM_DONTCOPY
    elif advice == MADV_DOFORK:
        if flags & VM_IO:
            return -E_INVAL
        flags &= ~<uint64_t>VM_DONTCOPY
    elif advice == MADV_WIPEONFORK:
        if v.file or flags & (VM_SHARED | VM_HUGETLB):
            return -E_INVAL
        flags |= VM_WIPEONFORK
    elif advice == MADV_KEEPONFORK:
        if flags & VM_DROPPABLE:
            return -E_INVAL
        flags &= ~<uint64_t>VM_WIPEONFORK
    elif advice == MADV_DONTDUMP:
        flags |= VM_DONTDUMP
    elif advice == MADV_DODUMP:
        if flags & VM_DROPPABLE or flags & VM_SPECIAL and not flags & VM_HUGETLB:
            return -E_INVAL
        flags &= ~<uint64_t>VM_DONTDUMP
    elif advice == MADV_HUGEPAGE:
        flags = flags & ~<uint64_t>VM_NOHUGEPAGE | VM_HUGEPAGE
    else:
        flags = flags & ~<uint64_t>VM_HUGEPAGE | VM_NOHUGEPAGE
    return <int64_t>flags


cdef int advise_vma(Mm* mm, uint32_t as_, uint32_t* vma, uint64_t start, uint64_t end, int advice, unsigned cpu) noexcept nogil:
    # One VMA's share; vma[0] becomes the VMA that holds the range afterwards.
    cdef const Vma* v = vma_at(mm, vma[0])
    cdef uint64_t flags
    cdef int64_t rc
    cdef FlushRange f
    if advice == MADV_DONTNEED or advice == MADV_DONTNEED_LOCKED or advice == MADV_FREE:
        if v.flags & VM_HUGETLB:
            if advice == MADV_FREE or start & (HPAGE_BYTES - 1):
                return -E_INVAL
            end &= ~<uint64_t>(HPAGE_BYTES - 1)
            if start < end:
                zap_range(mm, as_, vma[0], start, end, cpu)
            return 0
        if v.flags & VM_PFNMAP or advice != MADV_DONTNEED_LOCKED and v.flags & VM_LOCKED:
            return -E_INVAL
        if advice == MADV_FREE:
            return madvise_free_range(mm, as_, vma[0], start, end, cpu) if vma_is_anonymous(v) else -E_INVAL
        flush_note(mm, as_, start, end, &f)
        zap_range(mm, as_, vma[0], start, end, cpu)
        flush_noted(mm, as_, &f, cpu)
        return 0
    if advice == MADV_COLD or advice == MADV_PAGEOUT:
        if v.flags & (VM_LOCKED | VM_PFNMAP | VM_HUGETLB):
            return -E_INVAL
        if advice == MADV_COLD:
            return cold_range(mm, as_, vma[0], start, end, cpu)
        return pageout_range(mm, as_, vma[0], start, end, cpu)
    if advice == MADV_WILLNEED:
        return willneed_range(mm, as_, vma[0], start, end, cpu)
    if advice == MADV_REMOVE:
        if v.flags & VM_LOCKED or not v.file and not v.flags & VM_HUGETLB:
            return -E_INVAL
        if v.flags & (VM_SHARED | VM_MAYWRITE) != VM_SHARED | VM_MAYWRITE:
            return -E_ACCES
        return remove_range(mm, as_, vma[0], start, end, cpu)
    if advice == MADV_COLLAPSE:
        return collapse_range(mm, as_, vma[0], start, end, cpu)
    rc = advised_flags(v, advice)
    if rc < 0:
        return <int>rc
    if <uint64_t>rc == v.flags:
        return 0
    flags = <uint64_t>rc
    rc = vma_modify(mm, vma[0], start, end, flags, v.name, cpu)
    if rc < 0:
        return -E_AGAIN if rc == -E_NOMEM else <int>rc
    vma[0] = <uint32_t>rc
    vma_at(mm, vma[0]).flags = flags
    if advice == MADV_HUGEPAGE:
        khugepaged_enter(mm, as_, vma_at(mm, vma[0]))
    return 0


cdef int populate(Mm* mm, uint32_t as_, uint64_t start, uint64_t end, bint write, unsigned cpu) noexcept nogil:
    cdef uint32_t x
    cdef const Vma* v
    cdef uint64_t stop
    cdef int64_t rc
    while start < end:
        x = find_vma_intersection(mm, as_, start, start + 1)
        if not x:
            return -E_NOMEM
        v = vma_at(mm, x)
        if v.flags & (VM_IO | VM_PFNMAP) or not v.flags & (VM_WRITE if write else VM_READ):
            return -E_INVAL
        stop = v.end if v.end < end else end
        rc = populate_range(mm, as_, start, stop, write, cpu)
        if rc < 0:
            return <int>rc
        start = stop
    return 0


cdef int do_madvise(Mm* mm, uint32_t as_, uint64_t start, uint64_t length, int advice, unsigned cpu) noexcept nogil:
    cdef uint64_t end = start + PAGE_UP(length), stop
    cdef uint32_t x
    cdef int rc, result = 0
    if not known(advice) or start & (PAGE_BYTES - 1) or length and not PAGE_UP(length) or end < start:
        return -E_INVAL
    if end == start:
        return 0
    if advice == MADV_POPULATE_READ or advice == MADV_POPULATE_WRITE:
        return populate(mm, as_, start, end, advice == MADV_POPULATE_WRITE, cpu)
    x = find_vma(mm, as_, start)
    while True:
        if not x:
            return -E_NOMEM
        if start < vma_at(mm, x).start:     # a hole: the rest is done all the same
            result = -E_NOMEM
            start = vma_at(mm, x).start
            if start >= end:
                return result
        stop = vma_at(mm, x).end if vma_at(mm, x).end < end else end
        rc = advise_vma(mm, as_, &x, start, stop, advice, cpu)
        if rc < 0:
            return rc
        start = vma_at(mm, x).end
        if start >= end:
            return result
        x = vma_at(mm, x).next
