"""Fallback between migratetypes.

Models: __rmqueue, __rmqueue_claim, __rmqueue_steal, try_to_claim_block, boost_watermark, move_freepages_block,
reserve_/unreserve_highatomic_pageblock, rmqueue_bulk (mm/page_alloc.c, v6.12.117). Simplifies: nothing known.
Omits: CMA (off in the reference build), isolation of pageblocks (comes with compaction), __GFP_MOVABLE non-LRU pages.
"""
from mmcore.base.flags cimport PG_ORDER_MASK, PG_ORDER_SHIFT, PG_HEAD_MASK, PG_buddy, PG_lru, PG_pcp
from mmcore.base.gfp cimport ALLOC_KSWAPD, ALLOC_NOFRAGMENT
from mmcore.base.lists cimport list_add_tail
from mmcore.base.records cimport page_at
from mmcore.base.records cimport (
    MAX_PAGE_ORDER, MIGRATE_HIGHATOMIC, MIGRATE_MOVABLE, MIGRATE_PCPTYPES, MIGRATE_RECLAIMABLE, MIGRATE_UNMOVABLE, PAGEBLOCK_NR_PAGES,
    PAGEBLOCK_ORDER, WMARK_HIGH, ZONE_BOOSTED_WATERMARK,
)
from mmcore.base.trace cimport EV_EXTFRAG, EV_RMQUEUE, trace_append, trace_event
from mmcore.phys.buddy cimport (
    account_freepages, add_to_free_list, carve, del_from_free_list, expand, free_list_head, pageblock_mt, pop_free_list,
    rmqueue_smallest, set_block_range,
)


cdef inline unsigned fallback_type(unsigned mt, unsigned nth) noexcept nogil:
    # UNMOVABLE: RECLAIMABLE, MOVABLE; MOVABLE: RECLAIMABLE, UNMOVABLE; RECLAIMABLE: UNMOVABLE, MOVABLE
    if mt == MIGRATE_RECLAIMABLE:
        return MIGRATE_MOVABLE if nth else MIGRATE_UNMOVABLE
    if nth == 0:
        return MIGRATE_RECLAIMABLE
    return MIGRATE_MOVABLE if mt == MIGRATE_UNMOVABLE else MIGRATE_UNMOVABLE


cdef inline int find_fallback(Zone* z, unsigned order, unsigned mt) noexcept nogil:
    cdef unsigned nth, f
    for nth in range(2):
        f = fallback_type(mt, nth)
        if z.order_mask[f] >> order & 1:
            return <int>f
    return -1


cdef inline uint32_t peek(Mm* mm, Zone* z, unsigned order, unsigned mt) noexcept nogil:
    cdef uint32_t x = mm.link[free_list_head(z, order, mt)].next
    return z.lazy_pfn if x == z.lazy_head else x - 1


cdef bint boost_watermark(Mm* mm, Zone* z) noexcept nogil:
    cdef int64_t factor = mm.g.watermark_boost_factor, high = z.wmark[WMARK_HIGH], limit
    if factor == 0 or PAGEBLOCK_NR_PAGES * 4 > z.managed:
        return False
    limit = high // 10000 * factor + high % 10000 * factor // 10000
    if limit == 0:
        return False
    if limit < PAGEBLOCK_NR_PAGES:
        limit = PAGEBLOCK_NR_PAGES
    z.watermark_boost += PAGEBLOCK_NR_PAGES
    if z.watermark_boost > limit:
        z.watermark_boost = limit
    z.nr_boosts += 1
    return True


cdef bint block_inside_zone(Mm* mm, Zone* z, uint32_t first) noexcept nogil:
    return first >= z.start_pfn and first + PAGEBLOCK_NR_PAGES <= z.start_pfn + z.spanned


cdef void count_block(Mm* mm, uint32_t first, uint32_t* nr_free, uint32_t* nr_movable) noexcept nogil:
    # Pages of the pageblock on buddy lists, and pages in use that could be migrated (LRU).
    cdef uint32_t pfn = first, end = first + PAGEBLOCK_NR_PAGES, n, flags
    nr_free[0] = 0
    nr_movable[0] = 0
    while pfn < end:
        flags = page_at(mm, pfn).flags
        n = 1
        if flags & PG_HEAD_MASK:
            n = <uint32_t>1 << (flags >> PG_ORDER_SHIFT & PG_ORDER_MASK)
            if n > end - pfn:
                n = end - pfn
            if flags & PG_buddy:
                nr_free[0] += n
            elif flags & PG_lru:
                nr_movable[0] += n
        pfn += n


cdef uint32_t move_freepages_block(Mm* mm, Zone* z, Pcp* pcp, uint32_t first, unsigned old, unsigned mt) noexcept nogil:
    # Moves every free block of the pageblock to the tails of the lists of type `mt`; returns the pages moved.
    cdef uint32_t pfn = first, end = first + PAGEBLOCK_NR_PAGES, moved = 0, flags
    cdef unsigned order
    while pfn < end:
        flags = page_at(mm, pfn).flags
        if flags & PG_buddy:
            order = flags >> PG_ORDER_SHIFT & PG_ORDER_MASK
            del_from_free_list(mm, z, pfn, order, old)
            add_to_free_list(mm, z, pfn, order, mt, True)
            account_freepages(z, pcp, -(<int64_t>1 << order), old)
            account_freepages(z, pcp, <int64_t>1 << order, mt)
            moved += <uint32_t>1 << order
            pfn += <uint32_t>1 << order
        elif flags & PG_HEAD_MASK:
            pfn += <uint32_t>1 << (flags >> PG_ORDER_SHIFT & PG_ORDER_MASK)
        else:
            pfn += 1
    set_block_range(mm, first, PAGEBLOCK_ORDER, mt)
    return moved


cdef int64_t claim(Mm* mm, Zone* z, Pcp* pcp, unsigned order, unsigned mt, unsigned alloc_flags) noexcept nogil:
    cdef int o = MAX_PAGE_ORDER, lowest = <int>order, f
    cdef uint32_t pfn, first, nr_free, nr_movable, alike
    cdef unsigned block_mt
    cdef int64_t taken
    if alloc_flags & ALLOC_NOFRAGMENT and lowest < PAGEBLOCK_ORDER:
        lowest = PAGEBLOCK_ORDER
    while o >= lowest:
        f = find_fallback(z, <unsigned>o, mt)
        if f < 0:
            o -= 1
            continue
        if o < PAGEBLOCK_ORDER // 2 and mt == MIGRATE_MOVABLE and not mm.g.mobility_disabled:
            return -1
        pfn = peek(mm, z, <unsigned>o, <unsigned>f)
        if o >= PAGEBLOCK_ORDER:
            pfn = pop_free_list(mm, z, <unsigned>o, <unsigned>f)
            account_freepages(z, pcp, -(<int64_t>1 << o), <unsigned>f)
            set_block_range(mm, pfn, <unsigned>o, mt)
            expand(mm, z, pfn, order, <unsigned>o, mt)
            account_freepages(z, pcp, (<int64_t>1 << o) - (<int64_t>1 << order), mt)
            z.nr_claims += 1
            if mm.trace.enabled:
                trace_append(&mm.trace, EV_EXTFRAG, pfn, order, mt, <unsigned>o, <unsigned>f, 1)
            return pfn
        if boost_watermark(mm, z) and alloc_flags & ALLOC_KSWAPD:
            z.flags |= ZONE_BOOSTED_WATERMARK
        first = pfn & ~<uint32_t>(PAGEBLOCK_NR_PAGES - 1)
        block_mt = pageblock_mt(mm, first)
        if block_inside_zone(mm, z, first) and block_mt != MIGRATE_HIGHATOMIC:
            count_block(mm, first, &nr_free, &nr_movable)
            if mt == MIGRATE_MOVABLE:
                alike = nr_movable
            elif block_mt == MIGRATE_MOVABLE:
                alike = PAGEBLOCK_NR_PAGES - nr_free - nr_movable
            else:
                alike = 0
            if nr_free + alike >= PAGEBLOCK_NR_PAGES // 2 or mm.g.mobility_disabled:
                move_freepages_block(mm, z, pcp, first, <unsigned>f, mt)
                taken = rmqueue_smallest(mm, z, pcp, order, mt)
                z.nr_claims += 1
                if mm.trace.enabled:
                    trace_append(&mm.trace, EV_EXTFRAG, <uint32_t>taken, order, mt, <unsigned>o, <unsigned>f, 1)
                return taken
        o -= 1
    return -1


cdef int64_t steal(Mm* mm, Zone* z, Pcp* pcp, unsigned order, unsigned mt) noexcept nogil:
    cdef unsigned o
    cdef int f
    cdef uint32_t pfn
    for o in range(order, MAX_PAGE_ORDER + 1):
        f = find_fallback(z, o, mt)
        if f < 0:
            continue
        pfn = pop_free_list(mm, z, o, <unsigned>f)
        expand(mm, z, pfn, order, o, <unsigned>f)
        account_freepages(z, pcp, -(<int64_t>1 << order), <unsigned>f)
        z.nr_steals += 1
        if mm.trace.enabled:
            trace_append(&mm.trace, EV_EXTFRAG, pfn, order, mt, o, <unsigned>f, 0)
        return pfn
    return -1


cdef int64_t rmqueue_any(Mm* mm, Zone* z, Pcp* pcp, unsigned order, unsigned mt, unsigned alloc_flags, int* mode) noexcept nogil:
    cdef int64_t pfn = -1
    if mode[0] == RMQUEUE_NORMAL:
        pfn = rmqueue_smallest(mm, z, pcp, order, mt)
    if pfn < 0 and mode[0] <= RMQUEUE_CLAIM:
        pfn = claim(mm, z, pcp, order, mt, alloc_flags)
        if pfn >= 0:
            mode[0] = RMQUEUE_NORMAL
    if pfn < 0 and not alloc_flags & ALLOC_NOFRAGMENT:
        pfn = steal(mm, z, pcp, order, mt)
        if pfn >= 0:
            mode[0] = RMQUEUE_STEAL
    if pfn >= 0:
        trace_event(mm, EV_RMQUEUE, <uint32_t>pfn, order, mt)
    return pfn


cdef uint32_t rmqueue_bulk(Mm* mm, Zone* z, Pcp* pcp, unsigned order, unsigned mt, uint32_t n, uint32_t head, unsigned alloc_flags) noexcept nogil:
    cdef uint32_t got = 0, m
    cdef int64_t pfn
    cdef int mode = RMQUEUE_NORMAL
    while got < n:
        if mode == RMQUEUE_NORMAL:
            m = carve(mm, z, pcp, order, mt, n - got, head, mt)
            if m:
                got += m
                continue
        pfn = rmqueue_any(mm, z, pcp, order, mt, alloc_flags, &mode)
        if pfn < 0:
            break
        page_at(mm, pfn).flags = PG_pcp | (order << PG_ORDER_SHIFT)
        list_add_tail(mm.link, head, <uint32_t>pfn + 1)
        got += 1
    return got


cdef void reserve_highatomic_pageblock(Mm* mm, Zone* z, Pcp* pcp, uint32_t pfn, unsigned order) noexcept nogil:
    cdef int64_t limit
    cdef unsigned mt
    cdef uint32_t first
    if z.managed // 100 < PAGEBLOCK_NR_PAGES:
        return
    limit = <int64_t>((z.managed // 100 + PAGEBLOCK_NR_PAGES - 1) // PAGEBLOCK_NR_PAGES * PAGEBLOCK_NR_PAGES)
    if z.nr_reserved_highatomic >= limit:
        return
    mt = pageblock_mt(mm, pfn)
    if mt >= MIGRATE_PCPTYPES:
        return
    if order < PAGEBLOCK_ORDER:
        first = pfn & ~<uint32_t>(PAGEBLOCK_NR_PAGES - 1)
        if not block_inside_zone(mm, z, first):
            return
        move_freepages_block(mm, z, pcp, first, mt, MIGRATE_HIGHATOMIC)
        z.nr_reserved_highatomic += PAGEBLOCK_NR_PAGES
    else:
        set_block_range(mm, pfn, order, MIGRATE_HIGHATOMIC)
        z.nr_reserved_highatomic += <int64_t>1 << order


cdef int64_t unreserve_highatomic_pageblock(Mm* mm, unsigned short* zonelist, unsigned hidx, unsigned mt, bint force, unsigned cpu) noexcept nogil:
    cdef int i = 0
    cdef unsigned order, zi
    cdef Zone* z
    cdef Pcp* pcp
    cdef uint32_t pfn, first, moved
    cdef int64_t size
    while zonelist[i]:
        zi = zonelist[i] - 1
        i += 1
        z = &mm.zones[zi]
        pcp = &mm.pcps[zi * mm.g.nr_cpus + cpu]
        if z.zid > hidx or (not force and z.nr_reserved_highatomic <= PAGEBLOCK_NR_PAGES):
            continue
        for order in range(MAX_PAGE_ORDER + 1):
            if not z.order_mask[MIGRATE_HIGHATOMIC] >> order & 1:
                continue
            pfn = peek(mm, z, order, MIGRATE_HIGHATOMIC)
            size = <int64_t>1 << order
            if size < PAGEBLOCK_NR_PAGES:
                size = PAGEBLOCK_NR_PAGES
            z.nr_reserved_highatomic -= size if size < z.nr_reserved_highatomic else z.nr_reserved_highatomic
            if order < PAGEBLOCK_ORDER:
                first = pfn & ~<uint32_t>(PAGEBLOCK_NR_PAGES - 1)
                moved = move_freepages_block(mm, z, pcp, first, MIGRATE_HIGHATOMIC, mt)
            else:
                del_from_free_list(mm, z, pfn, order, MIGRATE_HIGHATOMIC)
                account_freepages(z, pcp, -(<int64_t>1 << order), MIGRATE_HIGHATOMIC)
                set_block_range(mm, pfn, order, mt)
                add_to_free_list(mm, z, pfn, order, mt, True)
                account_freepages(z, pcp, <int64_t>1 << order, mt)
                moved = <uint32_t>1 << order
            if moved:
                return moved
    return 0
