# Pages that were evicted and may come back (mm/workingset.c). See workingset.pyx.
# A shadow is what an evicted page leaves in its slot of the page index or of the swap cache: bits 0-1 are 01, bit 2 says that the page was
# on an active list once, then node (9 bits), id of the group whose reclaim evicted it (16), and that lruvec's age (36).

from libc.stdint cimport int64_t, uint32_t, uint64_t
from mmcore.base.records cimport Mm

cdef inline bint is_shadow(uint64_t value) noexcept nogil:
    return value & 3 == 1

# workingset_eviction(): the shadow of a page that reclaim on behalf of group `target` (id; 0 the whole machine) evicts.
cdef uint64_t workingset_eviction(Mm* mm, uint32_t pfn, uint32_t target) noexcept nogil
# workingset_refault(): a new page, charged already, comes to where a shadow was.
cdef void workingset_refault(Mm* mm, uint32_t pfn, uint64_t shadow, unsigned cpu) noexcept nogil
