# Tracepoints of reclaim and the page cache (include/trace/events/{vmscan,filemap,pagemap}.h), rows of the same buffer as those of kmem:.
# Off unless a Tracer watches (mmcore.base.vmscan_trace.watched, or a run with one). See vmscan_trace.pyx for what a row holds.

from libc.stdint cimport int64_t, uint32_t
from mmcore.base.records cimport Mm

cdef enum:
    EV_PAGE_ADD = 16            # mm_filemap_add_to_page_cache
    EV_PAGE_DEL = 17            # mm_filemap_delete_from_page_cache
    EV_ACTIVATE = 18            # mm_lru_activate
    EV_MEMCG_BEGIN = 19         # mm_vmscan_memcg_reclaim_begin
    EV_MEMCG_END = 20           # mm_vmscan_memcg_reclaim_end
    EV_ISOLATE = 21             # mm_vmscan_lru_isolate
    EV_SHRINK_INACTIVE = 22     # mm_vmscan_lru_shrink_inactive
    EV_SHRINK_ACTIVE = 23       # mm_vmscan_lru_shrink_active

cdef void vmscan_row(Mm* mm, unsigned event, uint32_t value, uint32_t index, unsigned a, unsigned b, unsigned c, unsigned d,
                     unsigned e) noexcept nogil

# A page comes into the page cache at `index` of its file, or leaves it.
cdef inline void trace_page_add(Mm* mm, uint32_t pfn, uint32_t index) noexcept nogil:
    if mm.trace.enabled:
        vmscan_row(mm, EV_PAGE_ADD, pfn, index, 0, 0, 0, 0, 0)

cdef inline void trace_page_del(Mm* mm, uint32_t pfn, uint32_t index) noexcept nogil:
    if mm.trace.enabled:
        vmscan_row(mm, EV_PAGE_DEL, pfn, index, 0, 0, 0, 0, 0)

# A batch moves a page to the active list (where PGACTIVATE is counted in folio_activate's batch).
cdef inline void trace_activate(Mm* mm, uint32_t pfn) noexcept nogil:
    if mm.trace.enabled:
        vmscan_row(mm, EV_ACTIVATE, pfn, 0, 0, 0, 0, 0, 0)

cdef inline void trace_memcg_begin(Mm* mm) noexcept nogil:
    if mm.trace.enabled:
        vmscan_row(mm, EV_MEMCG_BEGIN, 0, 0, 0, 0, 0, 0, 0)

cdef inline void trace_memcg_end(Mm* mm, int64_t nr_reclaimed) noexcept nogil:
    if mm.trace.enabled:
        vmscan_row(mm, EV_MEMCG_END, <uint32_t>nr_reclaimed, 0, 0, 0, 0, 0, 0)

# isolate_lru_folios(): lru as LRU_*; folios counted in pages, at most 32 in one call, so that each fits a byte.
cdef inline void trace_isolate(Mm* mm, unsigned lru, int64_t requested, int64_t scanned, int64_t skipped, int64_t taken) noexcept nogil:
    if mm.trace.enabled:
        vmscan_row(mm, EV_ISOLATE, <uint32_t>requested, 0, lru, <unsigned>scanned, <unsigned>skipped, <unsigned>taken, 0)

cdef inline void trace_shrink_inactive(Mm* mm, int64_t scanned, int64_t reclaimed, int64_t dirty, int64_t writeback, int64_t activate_anon,
                                       int64_t activate_file, int64_t ref_keep, int64_t unmap_fail, int priority) noexcept nogil:
    if mm.trace.enabled:
        vmscan_row(mm, EV_SHRINK_INACTIVE, <uint32_t>(scanned | reclaimed << 8 | dirty << 16 | writeback << 24), 0, <unsigned>activate_anon,
                   <unsigned>activate_file, <unsigned>ref_keep, <unsigned>unmap_fail, <unsigned>priority)

cdef inline void trace_shrink_active(Mm* mm, int64_t taken, int64_t active, int64_t deactivated, int64_t referenced,
                                     int priority) noexcept nogil:
    if mm.trace.enabled:
        vmscan_row(mm, EV_SHRINK_ACTIVE, <uint32_t>taken, 0, <unsigned>active, <unsigned>deactivated, <unsigned>referenced, 0,
                   <unsigned>priority)
