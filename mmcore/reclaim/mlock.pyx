"""The unevictable state of locked pages.

Models: mlock_folio, mlock_new_folio, munlock_folio and what __mlock_folio, __munlock_folio do behind their batches (mm/mlock.c, v6.12):
nr_mlock, the unevictable list, the count of locking mappings, unevictable_pgs_*. Simplifies: the per-CPU batches of 31 take effect at
once. Omits: pages stranded on an evictable list by a race.

A page of the unevictable "list" stands on no list; its link `prev` counts the locked mappings (as the kernel's mlock_count does).
"""
from libc.stdint cimport int64_t

from mmcore.base.flags cimport PG_ORDER_MASK, PG_ORDER_SHIFT, PG_active, PG_lru, PG_mlocked, PG_unevictable
from mmcore.base.lists cimport list_add, list_del
from mmcore.base.records cimport Page, page_at
from mmcore.base.stat_items cimport (
    VE_UNEVICTABLE_PGS_CULLED, VE_UNEVICTABLE_PGS_MLOCKED, VE_UNEVICTABLE_PGS_MUNLOCKED, VE_UNEVICTABLE_PGS_RESCUED, ZS_NR_MLOCK,
)
from mmcore.phys.buddy cimport zone_of
from mmcore.reclaim.lru cimport LRU_UNEVICTABLE, folio_lru_list, lru_add_drain, lru_count, lruvec_in


cdef inline int64_t nr_pages(Mm* mm, uint32_t head) noexcept nogil:
    return <int64_t>1 << (page_at(mm, head).flags >> PG_ORDER_SHIFT & PG_ORDER_MASK)


cdef inline void set_mlocked(Mm* mm, uint32_t head) noexcept nogil:
    page_at(mm, head).flags |= PG_mlocked
    mm.zones[zone_of(mm, head) - 1].vm_stat[ZS_NR_MLOCK] += nr_pages(mm, head)
    mm.vm.g.events[VE_UNEVICTABLE_PGS_MLOCKED] += <unsigned long>nr_pages(mm, head)


cdef void mlock_folio(Mm* mm, uint32_t head, unsigned cpu) noexcept nogil:
    cdef Page* p = page_at(mm, head)
    cdef uint32_t zi = zone_of(mm, head)
    if p.flags & PG_unevictable:
        p.prev += 1
        return
    if not p.flags & PG_mlocked:
        set_mlocked(mm, head)
    if not p.flags & PG_lru:
        lru_add_drain(mm, cpu)
    if not p.flags & PG_lru:
        return
    list_del(mm.link, head + 1)
    lru_count(mm, lruvec_in(mm, head, zi), zi, folio_lru_list(p.flags), -nr_pages(mm, head))
    p.flags = (p.flags & ~<uint32_t>PG_active) | PG_unevictable
    p.prev = 1
    lru_count(mm, lruvec_in(mm, head, zi), zi, LRU_UNEVICTABLE, nr_pages(mm, head))
    mm.vm.g.events[VE_UNEVICTABLE_PGS_CULLED] += <unsigned long>nr_pages(mm, head)


cdef void mlock_new_folio(Mm* mm, uint32_t head, unsigned cpu) noexcept nogil:
    cdef Page* p = page_at(mm, head)
    set_mlocked(mm, head)
    p.flags |= PG_unevictable | PG_lru
    p.next = 0
    p.prev = 1
    lru_count(mm, lruvec_in(mm, head, zone_of(mm, head)), zone_of(mm, head), LRU_UNEVICTABLE, nr_pages(mm, head))
    mm.vm.g.events[VE_UNEVICTABLE_PGS_CULLED] += <unsigned long>nr_pages(mm, head)


cdef void munlock_folio(Mm* mm, uint32_t head, unsigned cpu) noexcept nogil:
    cdef Page* p = page_at(mm, head)
    cdef uint32_t zi = zone_of(mm, head)
    cdef int64_t n = nr_pages(mm, head)
    if not p.flags & PG_mlocked:
        return
    if p.flags & PG_unevictable:
        if p.prev > 1:
            p.prev -= 1
            return
        p.prev = 0
    p.flags &= ~<uint32_t>PG_mlocked
    mm.zones[zi - 1].vm_stat[ZS_NR_MLOCK] -= n
    mm.vm.g.events[VE_UNEVICTABLE_PGS_MUNLOCKED] += <unsigned long>n
    if p.flags & PG_unevictable:
        lru_count(mm, lruvec_in(mm, head, zi), zi, LRU_UNEVICTABLE, -n)
        p.flags &= ~<uint32_t>PG_unevictable
        lru_count(mm, lruvec_in(mm, head, zi), zi, folio_lru_list(p.flags), n)
        list_add(mm.link, lruvec_in(mm, head, zi).head + folio_lru_list(p.flags), head + 1)
        mm.vm.g.events[VE_UNEVICTABLE_PGS_RESCUED] += <unsigned long>n
