# LRU lists of a lruvec (a group on a node) and the per-CPU batches in front of them (mm/swap.c, include/linux/mm_inline.h). See lru.pyx.

from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from mmcore.base.flags cimport PG_ORDER_MASK, PG_ORDER_SHIFT, PG_active, PG_head, PG_lru, PG_swapbacked, PG_unevictable
from mmcore.base.records cimport Mm, Zone, page_at
from mmcore.base.stat_items cimport NS_NR_INACTIVE_ANON, ZS_NR_ZONE_INACTIVE_ANON
from mmcore.base.vm_records cimport Cpu, LRU_BATCH, Lruvec
from mmcore.reclaim.memcg cimport memcg_lruvec, memcg_rstat_updated, page_memcg

cdef enum:
    LRU_INACTIVE_ANON = 0
    LRU_ACTIVE_ANON = 1
    LRU_INACTIVE_FILE = 2
    LRU_ACTIVE_FILE = 3
    LRU_UNEVICTABLE = 4

# The list that a page with these flags belongs to.
cdef inline unsigned folio_lru_list(uint32_t flags) noexcept nogil:
    if flags & PG_unevictable:
        return LRU_UNEVICTABLE
    return (0 if flags & PG_swapbacked else 2) + (1 if flags & PG_active else 0)

cdef inline int64_t folio_nr_pages(uint32_t flags) noexcept nogil:
    return <int64_t>1 << (flags >> PG_ORDER_SHIFT & PG_ORDER_MASK)

# The lruvec of a page of zone `zi` (index + 1).
cdef inline Lruvec* lruvec_in(Mm* mm, uint32_t pfn, uint32_t zi) noexcept nogil:
    return memcg_lruvec(mm, page_memcg(mm, pfn), mm.zones[zi - 1].node)

# `nr` pages of a zone (index + 1) come onto a list, or leave it (update_lru_size).
cdef inline void lru_count(Mm* mm, Lruvec* lv, uint32_t zi, unsigned lru, int64_t nr) noexcept nogil:
    cdef Zone* z = &mm.zones[zi - 1]
    z.vm_stat[ZS_NR_ZONE_INACTIVE_ANON + lru] += nr
    mm.nodes[z.node].vm_stat[NS_NR_INACTIVE_ANON + lru] += nr
    lv.nr[lru] += nr
    lv.zone_nr[z.zid * 5 + lru] += nr
    if lv.memcg:
        lv.stat[NS_NR_INACTIVE_ANON + lru] += nr
        memcg_rstat_updated(mm, lv.memcg, nr)

# Pages on a list in zones up to `zid` (lruvec_lru_size).
cdef inline int64_t lruvec_lru_size(Lruvec* lv, unsigned lru, unsigned zid) noexcept nogil:
    cdef unsigned z
    cdef int64_t n = 0
    for z in range(zid + 1):
        n += lv.zone_nr[z * 5 + lru]
    return n

# folio_add_lru(): onto this CPU's batch, which moves to the lists when it is full or the folio is large.
cdef void lru_add(Mm* mm, uint32_t pfn, unsigned cpu) noexcept nogil
# The same for many single pages.
cdef void lru_add_many(Mm* mm, const uint32_t* pfns, int64_t n, unsigned cpu) noexcept nogil
# `nr` pages of others enter this CPU's add batch, as far as its fill goes (a recorded run begins with some).
cdef void lru_noise(Mm* mm, uint32_t nr, unsigned cpu) noexcept nogil
# Whether pages wait in batches that would move them between lists.
cdef inline bint lists_pending(Mm* mm) noexcept nogil:
    return mm.vm.g.lru_pending != 0
# Whether some CPU's batch holds a page that stands on a list: its reference keeps the page.
cdef bint lru_batched(Mm* mm, uint32_t pfn) noexcept nogil
# folio_mark_accessed(): a read() of the page, or a young entry that goes.
cdef void folio_mark_accessed(Mm* mm, uint32_t pfn, unsigned cpu) noexcept nogil
# Through batches: folio_activate(); folio_mark_lazyfree(), an anonymous page that may be dropped; folio_deactivate(), one that is not
# needed soon; deactivate_file_folio(), one that could not be dropped; folio_rotate_reclaimable(), whose write-back has ended.
cdef void folio_activate(Mm* mm, uint32_t pfn, unsigned cpu) noexcept nogil
cdef void lru_lazyfree(Mm* mm, uint32_t pfn, unsigned cpu) noexcept nogil
cdef void lru_deactivate(Mm* mm, uint32_t pfn, unsigned cpu) noexcept nogil
cdef void lru_deactivate_file(Mm* mm, uint32_t pfn, unsigned cpu) noexcept nogil
cdef void lru_rotate(Mm* mm, uint32_t pfn, unsigned cpu) noexcept nogil
# lru_add_drain(): everything that this CPU has batched goes onto the lists; of all CPUs.
cdef void lru_add_drain(Mm* mm, unsigned cpu) noexcept nogil
cdef void lru_add_drain_all(Mm* mm) noexcept nogil
# Takes folios off their lists (those that are on one) before they are freed or isolated; clears PG_lru and PG_active.
cdef void lru_del_many(Mm* mm, const uint32_t* pfns, int64_t n) noexcept nogil
# Back onto the head of the list that its flags name (move_folios_to_lru for one folio that is on none).
cdef void lru_putback(Mm* mm, uint32_t pfn) noexcept nogil
# workingset_age_nonresident(): of a lruvec and those of the groups above it.
cdef void age_nonresident(Mm* mm, Lruvec* lv, uint64_t nr) noexcept nogil
# lru_note_cost(): the same way up; `file` 0 or 1, pages of I/O and pages that were scanned in vain.
cdef void lru_note_cost(Mm* mm, Lruvec* lv, bint file, uint64_t io, uint64_t rotated) noexcept nogil
