# Pages whose last mapping is gone, collected and freed in batches behind the TLB flush (mm/mmu_gather.c). See gather.pyx.

from libc.stdint cimport uint32_t
from mmcore.base.records cimport Mm

cdef enum:
    GATHER_PAGES = 9698     # 8 on the stack, then 19 pages of 510 pointers

cdef struct Gather:
    uint32_t nr
    uint32_t cpu
    uint32_t pfns[9698]

cdef inline void gather_init(Gather* g, unsigned cpu) noexcept nogil:
    g.nr = 0
    g.cpu = cpu

# Frees all that was collected, in order.
cdef void gather_flush(Mm* mm, Gather* g) noexcept nogil

# The page's mapping is gone for good; the caller has kept all counters.
cdef inline void gather_page(Mm* mm, Gather* g, uint32_t pfn) noexcept nogil:
    g.pfns[g.nr] = pfn
    g.nr += 1
    if g.nr == GATHER_PAGES:
        gather_flush(mm, g)
