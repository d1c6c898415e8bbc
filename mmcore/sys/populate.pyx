"""Faulting ranges in.

Models: __mm_populate, populate_vma_page_range (mm/gup.c, v6.12). Simplifies: nothing known. Omits: fatal signals.
"""
from libc.stdint cimport int64_t

from mmcore.base.errors cimport E_FAULT
from mmcore.base.vm_records cimport Vma
from mmcore.sys.fault cimport populate_range
from mmcore.vm.vma cimport (
    VM_IO, VM_LOCKONFAULT, VM_PFNMAP, VM_SHARED, VM_WRITE, find_vma_intersection, vma_at, vma_is_accessible,
)


cdef int populate_vma(Mm* mm, uint32_t as_, uint32_t vma, uint64_t start, uint64_t end, unsigned cpu) noexcept nogil:
    cdef const Vma* v = vma_at(mm, vma)
    cdef int64_t rc
    if v.flags & VM_LOCKONFAULT:
        return 0
    if not vma_is_accessible(v):
        return -E_FAULT
    # private writable memory is copied at once, shared memory is not made dirty
    rc = populate_range(mm, as_, start, end, v.flags & (VM_WRITE | VM_SHARED) == VM_WRITE, cpu)
    return <int>rc if rc < 0 else 0


cdef int mm_populate(Mm* mm, uint32_t as_, uint64_t start, uint64_t length, bint ignore_errors, unsigned cpu) noexcept nogil:
    cdef uint64_t end = start + length, stop
    cdef uint32_t x
    cdef int rc
    while start < end:
        x = find_vma_intersection(mm, as_, start, end)
        if not x:
            break
        stop = vma_at(mm, x).end if vma_at(mm, x).end < end else end
        if not vma_at(mm, x).flags & (VM_IO | VM_PFNMAP):
            if start < vma_at(mm, x).start:
                start = vma_at(mm, x).start
            rc = populate_vma(mm, as_, x, start, stop, cpu)
            if rc < 0 and not ignore_errors:
                return rc
        start = stop
    return 0
