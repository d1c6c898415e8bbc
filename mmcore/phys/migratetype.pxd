# Migratetypes: fallbacks between them, claiming and stealing, the highatomic reserve, and the refill of per-CPU lists from them.

from libc.stdint cimport int64_t, uint32_t
from mmcore.base.records cimport Mm, Pcp, Zone

cdef enum RmqueueMode:
    RMQUEUE_NORMAL = 0
    RMQUEUE_CLAIM = 1
    RMQUEUE_STEAL = 2

# One block of `order` for a request of type `mt`: its pfn, or -1. `mode` is kept over one refill (start with RMQUEUE_NORMAL).
cdef int64_t rmqueue_any(Mm* mm, Zone* z, Pcp* pcp, unsigned order, unsigned mt, unsigned alloc_flags, int* mode) noexcept nogil
# Fills the per-CPU list `head` with up to n blocks at its tail; returns how many. Same state as n times rmqueue_any.
cdef uint32_t rmqueue_bulk(Mm* mm, Zone* z, Pcp* pcp, unsigned order, unsigned mt, uint32_t n, uint32_t head, unsigned alloc_flags) noexcept nogil
cdef void reserve_highatomic_pageblock(Mm* mm, Zone* z, Pcp* pcp, uint32_t pfn, unsigned order) noexcept nogil
# Gives one reserved pageblock back to type `mt` in the zones of `zonelist` up to `hidx`; returns the pages moved.
cdef int64_t unreserve_highatomic_pageblock(Mm* mm, unsigned short* zonelist, unsigned hidx, unsigned mt, bint force, unsigned cpu) noexcept nogil
