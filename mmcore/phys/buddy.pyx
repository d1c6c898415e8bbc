"""Buddy allocator: split, merge and the order in which blocks stand on the free lists.

Models: __free_one_page, buddy_merge_likely, expand, __rmqueue_smallest, account_freepages (mm/page_alloc.c, v6.12). A refill carves
many pages out of one block at once; the result is what taking them one by one leaves (tests prove it). Blocks of the highest
order that no one has touched since boot stand in their list as one sentinel record with ranges behind it.
Simplifies: no zone lock. Omits: CMA lists, page reporting, guard pages, capture by compaction (it comes with compaction).
"""
from mmcore.base.flags cimport PG_pcp
from mmcore.base.lists cimport list_del
from mmcore.base.records cimport block_at, page_at
from mmcore.base.trace cimport EV_RMQUEUE, trace_event
from mmcore.base.vmstat cimport sub_free_pages_repeat


cdef uint32_t search_zone(Mm* mm, uint32_t pfn) noexcept nogil:
    cdef uint32_t lo = 0, hi = mm.g.nr_present, mid
    while lo < hi:
        mid = (lo + hi) >> 1
        if mm.present[mid].end <= pfn:
            lo = mid + 1
        else:
            hi = mid
    if lo < mm.g.nr_present and mm.present[lo].start <= pfn:
        return mm.present[lo].zone + 1
    return 0


cdef uint32_t link_zone(Mm* mm, uint32_t pfn) noexcept nogil:
    # What the page's own zone link says: a hole's page belongs to the zone of the memory behind it.
    cdef uint32_t at = 0
    while at < mm.g.nr_present and mm.present[at].end <= pfn:
        at += 1
    return mm.present[at].zone + 1 if at < mm.g.nr_present else 0


cdef inline bint same_zone(Mm* mm, uint32_t a, uint32_t b) noexcept nogil:
    cdef uint32_t za = block_at(mm, a >> PAGEBLOCK_ORDER).zone, zb = block_at(mm, b >> PAGEBLOCK_ORDER).zone
    if za and zb:
        return za == zb
    return (za if za else link_zone(mm, a)) == (zb if zb else link_zone(mm, b))


cdef inline bint page_is_buddy(Mm* mm, uint32_t pfn, uint32_t buddy, unsigned order) noexcept nogil:
    return page_at(mm, buddy).flags == (PG_buddy | (order << PG_ORDER_SHIFT)) and same_zone(mm, pfn, buddy)


cdef void set_block_range(Mm* mm, uint32_t pfn, unsigned order, unsigned mt) noexcept nogil:
    cdef uint32_t b = pfn >> PAGEBLOCK_ORDER, end = b + (1 << (order - PAGEBLOCK_ORDER) if order > PAGEBLOCK_ORDER else 1)
    while b < end:
        block_at(mm, b).mt = <unsigned char>(mt ^ MIGRATE_MOVABLE)
        b += 1


cdef void free_one_page(Mm* mm, Zone* z, Pcp* pcp, uint32_t pfn, unsigned order, unsigned mt, unsigned fpi) noexcept nogil:
    cdef uint32_t buddy
    cdef unsigned bmt
    # Up to the pageblock's size a buddy lies in the same pageblock, so in the same zone and on a list of the same type.
    cdef bint pure = block_at(mm, pfn >> PAGEBLOCK_ORDER).zone != 0
    account_freepages(z, pcp, <int64_t>1 << order, mt)
    while pure and order < PAGEBLOCK_ORDER:
        buddy = pfn ^ (<uint32_t>1 << order)
        if page_at(mm, buddy).flags != (PG_buddy | (order << PG_ORDER_SHIFT)):
            break
        del_from_free_list(mm, z, buddy, order, mt)
        pfn &= ~(<uint32_t>1 << order)
        order += 1
    while order < MAX_PAGE_ORDER and (order >= PAGEBLOCK_ORDER or not pure):
        buddy = pfn ^ (<uint32_t>1 << order)
        if not page_is_buddy(mm, pfn, buddy, order):
            break
        bmt = mt
        if order >= PAGEBLOCK_ORDER:
            bmt = pageblock_mt(mm, buddy)
            if bmt != mt and (mt >= MIGRATE_PCPTYPES or bmt >= MIGRATE_PCPTYPES):
                break
        del_from_free_list(mm, z, buddy, order, bmt)
        if bmt != mt:
            set_block_range(mm, buddy, order, mt)
        pfn &= ~(<uint32_t>1 << order)
        order += 1
    cdef bint tail = fpi & FPI_TO_TAIL
    if not tail and order < MAX_PAGE_ORDER - 1:
        # the zone that counts is that of the parent block's first page, which may be another at an odd zone start
        buddy = (pfn & ~(<uint32_t>1 << order)) ^ (<uint32_t>2 << order)
        if pure and order + 1 < PAGEBLOCK_ORDER:
            tail = page_at(mm, buddy).flags == (PG_buddy | ((order + 1) << PG_ORDER_SHIFT))
        else:
            tail = page_is_buddy(mm, pfn & ~(<uint32_t>1 << order), buddy, order + 1)
    add_to_free_list(mm, z, pfn, order, mt, tail)


cdef void free_large_page(Mm* mm, Zone* z, Pcp* pcp, uint32_t pfn, unsigned order, unsigned fpi) noexcept nogil:
    cdef uint32_t end
    if order <= PAGEBLOCK_ORDER:
        free_one_page(mm, z, pcp, pfn, order, pageblock_mt(mm, pfn), fpi)
        return
    end = pfn + (<uint32_t>1 << order)
    while pfn < end:
        free_one_page(mm, z, pcp, pfn, PAGEBLOCK_ORDER, pageblock_mt(mm, pfn), fpi)
        pfn += PAGEBLOCK_NR_PAGES


cdef void expand(Mm* mm, Zone* z, uint32_t pfn, unsigned low, unsigned high, unsigned mt) noexcept nogil:
    # Contract: the lists of this type from `low` up to below `high` are empty, as they are whenever a larger block has to be split.
    cdef uint32_t head = free_list_head(z, low, mt), x
    cdef Page* p
    z.order_mask[mt] |= <uint16_t>((1 << high) - (1 << low))
    while low < high:
        x = pfn + (<uint32_t>1 << low) + 1
        p = &mm.link[x]
        p.next = head
        p.prev = head
        p.flags = PG_buddy | (low << PG_ORDER_SHIFT)
        mm.link[head].next = x
        mm.link[head].prev = x
        z.nr_free[low] += 1
        head += MIGRATE_TYPES
        low += 1


cdef uint32_t next_lazy(Mm* mm, Zone* z) noexcept nogil:
    # Takes the first untouched block out of the ranges; the sentinel leaves its list with the last one.
    cdef uint32_t pfn = z.lazy_pfn
    z.lazy_left -= 1
    if z.lazy_left == 0:
        list_del(mm.link, z.lazy_head)
        z.lazy_pfn = 0
        z.lazy_range = z.lazy_range_end
        return pfn
    z.lazy_pfn += <uint32_t>1 << MAX_PAGE_ORDER
    if z.lazy_pfn == mm.lazy[z.lazy_range].end:
        z.lazy_range += 1
        z.lazy_pfn = mm.lazy[z.lazy_range].start
    return pfn


cdef uint32_t pop_free_list(Mm* mm, Zone* z, unsigned order, unsigned mt) noexcept nogil:
    cdef uint32_t head = free_list_head(z, order, mt), x = mm.link[head].next, pfn
    if x == z.lazy_head:
        pfn = next_lazy(mm, z)
        z.nr_free[order] -= 1
        if mm.link[head].next == head:
            z.order_mask[mt] &= <uint16_t>~(1 << order)
        return pfn
    del_from_free_list(mm, z, x - 1, order, mt)
    return x - 1


cdef void materialize_zone(Mm* mm, Zone* z) noexcept nogil:
    # Writes the untouched blocks out as ordinary list members at the sentinel's place: the same list, without its short form.
    cdef uint32_t at, pfn, prev
    while z.lazy_left:
        at = z.lazy_head
        prev = mm.link[at].prev
        pfn = next_lazy(mm, z)
        page_at(mm, pfn).flags = PG_buddy | (<uint32_t>MAX_PAGE_ORDER << PG_ORDER_SHIFT)
        list_add(mm.link, prev, pfn + 1)
        if z.lazy_left:
            # the sentinel stands behind the block just written
            list_del(mm.link, at)
            list_add(mm.link, pfn + 1, at)


cdef int64_t rmqueue_smallest(Mm* mm, Zone* z, Pcp* pcp, unsigned order, unsigned mt) noexcept nogil:
    cdef unsigned mask = z.order_mask[mt] >> order, high
    cdef uint32_t pfn
    if not mask:
        return -1
    high = order + ctz(mask)
    pfn = pop_free_list(mm, z, high, mt)
    expand(mm, z, pfn, order, high, mt)
    account_freepages(z, pcp, -(<int64_t>1 << order), mt)
    return pfn


cdef uint32_t carve(Mm* mm, Zone* z, Pcp* pcp, unsigned order, unsigned mt, uint32_t n, uint32_t head, unsigned list_mt) noexcept nogil:
    cdef unsigned mask = z.order_mask[mt] >> order, high, k
    cdef uint32_t pfn, end, block_end, step = <uint32_t>1 << order, m, x, prev
    cdef uint32_t flags = PG_pcp | (order << PG_ORDER_SHIFT)
    cdef Page* link = mm.link
    if not mask:
        return 0
    high = order + ctz(mask)
    pfn = pop_free_list(mm, z, high, mt)
    m = <uint32_t>1 << (high - order)
    if n < m:
        m = n
    block_end = pfn + (<uint32_t>1 << high)
    end = pfn + (m << order)
    # What single splits would leave: the aligned rest, each piece alone on its (so far empty) list.
    x = end
    while x < block_end:
        k = ctz(x)
        add_to_free_list(mm, z, x, k, mt, False)
        x += <uint32_t>1 << k
    sub_free_pages_repeat(z, pcp, step, m)
    if mm.trace.enabled:
        x = pfn
        while x < end:
            trace_event(mm, EV_RMQUEUE, x, order, list_mt)
            x += step
    # Chain the run and hang it in at the tail.
    prev = link[head].prev
    link[prev].next = pfn + 1
    x = pfn + 1
    while True:
        link[x].flags = flags
        link[x].prev = prev
        prev = x
        x += step
        if x > end:
            break
        link[prev].next = x
    link[prev].next = head
    link[head].prev = prev
    return m
