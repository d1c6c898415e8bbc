# Allocation and freeing of pages (mm/page_alloc.c). Results: a page frame number, or a negative code of mmcore.base.errors.

from libc.stdint cimport int64_t, uint16_t, uint32_t
from mmcore.base.records cimport Mm, Zone

cdef struct AllocContext:
    uint16_t* zonelist          # zone index + 1, 0 ends
    unsigned gfp
    unsigned task
    unsigned mt
    unsigned hidx               # highest zone type allowed
    unsigned preferred          # zone index
    unsigned cpu

# GFP and order are checked: -E_GFP, -E_ORDER, -E_NODE before anything changes.
cdef int64_t alloc_pages_node(Mm* mm, unsigned gfp, unsigned order, unsigned cpu, int nid, unsigned task) noexcept nogil
# n allocations in a row, exactly as single calls would go; returns how many succeeded before the first failure.
cdef int64_t alloc_pages_run(Mm* mm, uint32_t* out, int64_t n, unsigned gfp, unsigned order, unsigned cpu, int nid, unsigned task) noexcept nogil
cdef int64_t alloc_bulk(Mm* mm, uint32_t* out, int64_t n, unsigned gfp, unsigned cpu, int nid, unsigned task) noexcept nogil
cdef int prepare_alloc(Mm* mm, AllocContext* ac, unsigned gfp, unsigned order, unsigned cpu, int nid, unsigned task) noexcept nogil
