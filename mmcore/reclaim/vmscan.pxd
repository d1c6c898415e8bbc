# Reclaim with the classic LRU (mm/vmscan.c, v6.12). See vmscan.pyx, shrink_lists.pyx.

from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from mmcore.base.records cimport Mm

cdef enum:
    MEMCG_RECLAIM_MAY_SWAP = 2
    MEMCG_RECLAIM_PROACTIVE = 4
    MAX_RECLAIM_RETRIES = 16

# Pages freed on behalf of group `id_`; swappiness -1: vm.swappiness.
cdef int64_t try_to_free_mem_cgroup_pages(Mm* mm, uint32_t id_, int64_t nr_pages, unsigned gfp, unsigned options, int swappiness,
                                          unsigned cpu) noexcept nogil
# Direct reclaim for an allocation: zones of `zonelist` (zone index + 1, 0 ends) up to `hidx`. Pages freed; 1 if compaction should go first.
cdef int64_t try_to_free_pages(Mm* mm, const unsigned short* zonelist, unsigned hidx, unsigned order, unsigned gfp, unsigned cpu) noexcept nogil
# One balancing run of kswapd over a node: the order it ended with; hidx is the highest zone.
cdef unsigned balance_pgdat(Mm* mm, uint32_t node, unsigned order, unsigned hidx, unsigned cpu) noexcept nogil
cdef bint pgdat_balanced(Mm* mm, uint32_t node, unsigned order, unsigned hidx) noexcept nogil
