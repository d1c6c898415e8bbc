"""Refault distance: whether a page that comes back would have stayed with a little more room.

Models: workingset_eviction, workingset_refault, workingset_test_recent (mm/workingset.c, v6.12), for ages of 36 bits and bucket_order 0,
which all machines below 2^36 pages have. Simplifies: nine bits name the node. Omits: MGLRU's own shadows.
"""
from mmcore.base.flags cimport PG_active, PG_swapbacked, PG_workingset
from mmcore.base.records cimport page_at
from mmcore.base.stat_items cimport (
    NS_NR_ACTIVE_ANON, NS_NR_ACTIVE_FILE, NS_NR_INACTIVE_ANON, NS_NR_INACTIVE_FILE, NS_WORKINGSET_ACTIVATE_ANON, NS_WORKINGSET_REFAULT_ANON,
    NS_WORKINGSET_RESTORE_ANON,
)
from mmcore.base.vm_records cimport Lruvec, POOL_MEMCGS
from mmcore.phys.buddy cimport zone_of
from mmcore.reclaim.lru cimport age_nonresident, folio_nr_pages, lru_note_cost
from mmcore.reclaim.memcg cimport folio_lruvec, lruvec_page_state, memcg_flush_stats_ratelimited, memcg_lruvec, mod_lruvec_state
from mmcore.reclaim.swap cimport memcg_nr_swap_pages

cdef enum:
    AGE_SHIFT = 28
    MEMCG_SHIFT = 12
    NODE_SHIFT = 3


cdef uint64_t workingset_eviction(Mm* mm, uint32_t pfn, uint32_t target) noexcept nogil:
    cdef uint32_t node = mm.zones[zone_of(mm, pfn) - 1].node
    cdef Lruvec* lv = memcg_lruvec(mm, target, node)
    cdef uint64_t age = lv.nonresident_age
    age_nonresident(mm, lv, <uint64_t>folio_nr_pages(page_at(mm, pfn).flags))
    return (age << AGE_SHIFT | <uint64_t>target << MEMCG_SHIFT | <uint64_t>(node & 511) << NODE_SHIFT | 1
            | (4 if page_at(mm, pfn).flags & PG_workingset else 0))


cdef bint recent(Mm* mm, uint64_t shadow, bint file) noexcept nogil:
    cdef uint32_t id_ = <uint32_t>(shadow >> MEMCG_SHIFT & 0xffff), node = <uint32_t>(shadow >> NODE_SHIFT & 511)
    cdef uint64_t distance
    cdef int64_t size
    cdef Lruvec* lv
    if id_ >= mm.vm.pools[<int>POOL_MEMCGS].used or mm.vm.memcgs[id_].flags == 0:
        return False
    memcg_flush_stats_ratelimited(mm)
    lv = memcg_lruvec(mm, id_, node)
    distance = (lv.nonresident_age - (shadow >> AGE_SHIFT)) & ((<uint64_t>1 << 36) - 1)
    size = lruvec_page_state(mm, lv, NS_NR_ACTIVE_FILE)
    if not file:
        size += lruvec_page_state(mm, lv, NS_NR_INACTIVE_FILE)
    if memcg_nr_swap_pages(mm, id_) > 0:
        size += lruvec_page_state(mm, lv, NS_NR_ACTIVE_ANON)
        if file:
            size += lruvec_page_state(mm, lv, NS_NR_INACTIVE_ANON)
    return distance <= <uint64_t>size


cdef void workingset_refault(Mm* mm, uint32_t pfn, uint64_t shadow, unsigned cpu) noexcept nogil:
    cdef bint file = not page_at(mm, pfn).flags & PG_swapbacked
    cdef Lruvec* lv = folio_lruvec(mm, pfn)
    cdef int64_t n = folio_nr_pages(page_at(mm, pfn).flags)
    mod_lruvec_state(mm, lv, NS_WORKINGSET_REFAULT_ANON + file, n)
    if not recent(mm, shadow, file):
        return
    page_at(mm, pfn).flags |= PG_active
    age_nonresident(mm, lv, <uint64_t>n)
    mod_lruvec_state(mm, lv, NS_WORKINGSET_ACTIVATE_ANON + file, n)
    if shadow & 4:
        page_at(mm, pfn).flags |= PG_workingset
        lru_note_cost(mm, lv, file, <uint64_t>n, 0)
        mod_lruvec_state(mm, lv, NS_WORKINGSET_RESTORE_ANON + file, n)
