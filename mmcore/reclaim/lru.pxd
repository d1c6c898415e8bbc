# LRU lists of a node and the per-CPU batches in front of them (mm/swap.c, include/linux/mm_inline.h). See lru.pyx.

from libc.stdint cimport int64_t, uint32_t
from mmcore.base.flags cimport PG_ORDER_MASK, PG_ORDER_SHIFT, PG_active, PG_head, PG_lru, PG_swapbacked, PG_unevictable
from mmcore.base.records cimport Mm, Zone, page_at
from mmcore.base.stat_items cimport NS_NR_INACTIVE_ANON, ZS_NR_ZONE_INACTIVE_ANON
from mmcore.base.vm_records cimport Cpu, LRU_BATCH

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

# `nr` pages of a zone (index + 1) come onto a list, or leave it.
cdef inline void lru_count(Mm* mm, uint32_t zi, unsigned lru, int64_t nr) noexcept nogil:
    cdef Zone* z = &mm.zones[zi - 1]
    z.vm_stat[ZS_NR_ZONE_INACTIVE_ANON + lru] += nr
    mm.nodes[z.node].vm_stat[NS_NR_INACTIVE_ANON + lru] += nr
    mm.vm.lruvecs[z.node].nr[lru] += nr

# folio_add_lru(): onto this CPU's batch, which moves to the lists when it is full or the folio is large.
cdef void lru_add(Mm* mm, uint32_t pfn, unsigned cpu) noexcept nogil
# The same for many single pages.
# Whether pages wait in batches that would move them between lists.
cdef bint lists_pending(Mm* mm) noexcept nogil
cdef void lru_add_many(Mm* mm, const uint32_t* pfns, int64_t n, unsigned cpu) noexcept nogil
# folio_mark_lazyfree(): an anonymous page that may be dropped; folio_deactivate(): one that is not needed soon. Both through batches.
cdef void lru_lazyfree(Mm* mm, uint32_t pfn, unsigned cpu) noexcept nogil
cdef void lru_deactivate(Mm* mm, uint32_t pfn, unsigned cpu) noexcept nogil
# lru_add_drain(): everything that this CPU has batched goes onto the lists.
cdef void lru_add_drain(Mm* mm, unsigned cpu) noexcept nogil
# Takes folios off their lists (those that are on one) before they are freed or isolated; clears PG_lru and PG_active.
cdef void lru_del_many(Mm* mm, const uint32_t* pfns, int64_t n) noexcept nogil
