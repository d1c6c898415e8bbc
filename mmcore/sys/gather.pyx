"""Freeing pages that were unmapped.

Models: mmu_gather, free_pages_and_swap_cache, folios_put_refs (mm/mmu_gather.c, mm/swap.c, v6.12): pages go in the order in which they
were unmapped, off their LRU lists and to the per-CPU lists, at most 9698 behind one TLB flush. Simplifies: no time passes between the
flush and the freeing. Omits: page-table pages (sys/tables frees them afterwards, as the kernel's RCU does).
"""
from libc.stdint cimport int64_t
from libc.string cimport memset

from mmcore.alloc.page_free cimport free_pages_order, free_pages_run
from mmcore.base.flags cimport PG_ORDER_MASK, PG_ORDER_SHIFT, PG_allocated, PG_head, PG_hwpoison, PG_lru, PG_meta, PG_mlocked, PG_swapcache
from mmcore.base.records cimport Page, PageMeta, meta_at, page_at
from mmcore.phys.buddy cimport zone_of
from mmcore.reclaim.lru cimport LRU_INACTIVE_ANON, Lruvec, lists_pending, lru_count, lru_del_many, lruvec_in
from mmcore.reclaim.mlock cimport munlock_folio
from mmcore.reclaim.swap cimport leave_swap_cache
from mmcore.vm.rmap cimport ANON_FLAGS

cdef enum:
    CHUNK = 512
    PLAIN = PG_allocated | PG_lru | ANON_FLAGS
    KEPT = PG_allocated | PG_head | PG_hwpoison | (PG_ORDER_MASK << PG_ORDER_SHIFT)


cdef inline void forget_mapping(Mm* mm, uint32_t pfn) noexcept nogil:
    # What is left is a plain allocated block; references that someone else holds stay, one of them in place of the mapping's.
    cdef Page* p = page_at(mm, pfn)
    cdef PageMeta* m
    cdef uint32_t refs
    if p.flags & PG_meta:
        m = meta_at(mm, pfn)
        refs = m.extra_refs
        memset(m, 0, sizeof(PageMeta))
        m.extra_refs = <unsigned short>refs
        p.flags = (p.flags & KEPT) | (PG_meta if refs else 0)
    else:
        p.flags &= KEPT
    p.private_ = 0


cdef uint32_t strip_plain(Mm* mm, const uint32_t* pfns, uint32_t n) noexcept nogil:
    # Single anonymous pages of one zone's inactive list with nothing special about them: off the list and bare in one pass. Pages that
    # were added one behind the other stand side by side on the list and leave it as one piece. Returns how many from the first on.
    cdef uint32_t i = 0, x, first, last, zi = zone_of(mm, pfns[0])
    cdef Lruvec* lv = lruvec_in(mm, pfns[0], zi)
    cdef bint groups = mm.vm.g.nr_memcgs != 0
    while i < n:
        x = pfns[i] + 1
        if mm.link[x].flags != PLAIN or zone_of(mm, x - 1) != zi or (groups and lruvec_in(mm, x - 1, zi) != lv):
            break
        first = last = x
        mm.link[x].flags = PG_allocated
        mm.link[x].private_ = 0
        i += 1
        while i < n:
            x = pfns[i] + 1
            if mm.link[last].prev != x or mm.link[x].flags != PLAIN or zone_of(mm, x - 1) != zi:
                break
            mm.link[x].flags = PG_allocated
            mm.link[x].private_ = 0
            last = x
            i += 1
        mm.link[mm.link[first].next].prev = mm.link[last].prev
        mm.link[mm.link[last].prev].next = mm.link[first].next
    if i:
        lru_count(mm, lv, zi, LRU_INACTIVE_ANON, -<int64_t>i)
    return i


cdef void gather_flush(Mm* mm, Gather* g) noexcept nogil:
    cdef uint32_t at = 0, first = 0, end
    cdef int64_t done
    cdef bint plain = not lists_pending(mm)
    while at < g.nr:
        end = at + CHUNK if g.nr - at > CHUNK else g.nr
        first = at
        while at < end:
            if plain:
                at += strip_plain(mm, g.pfns + at, end - at)
                if at == end:
                    break
            if page_at(mm, g.pfns[at]).flags & PG_mlocked:
                munlock_folio(mm, g.pfns[at], g.cpu)
            if page_at(mm, g.pfns[at]).flags & PG_swapcache and not leave_swap_cache(mm, g.pfns[at], g.cpu):
                # others will find it in the swap cache
                if at > first:
                    free_pages_run(mm, g.pfns + first, at - first, 0, g.cpu, &done)
                at += 1
                first = at
                continue
            lru_del_many(mm, g.pfns + at, 1)
            forget_mapping(mm, g.pfns[at])
            if page_at(mm, g.pfns[at]).flags != PG_allocated:
                # a large block, or one that someone else refers to
                if at > first:
                    free_pages_run(mm, g.pfns + first, at - first, 0, g.cpu, &done)
                free_pages_order(mm, g.pfns[at], page_at(mm, g.pfns[at]).flags >> PG_ORDER_SHIFT & PG_ORDER_MASK, g.cpu)
                first = at + 1
            at += 1
        if first < end:
            free_pages_run(mm, g.pfns + first, end - first, 0, g.cpu, &done)
    g.nr = 0
