"""Per-CPU page lists: refill sizes, limits on free, drains, and how `high` and `batch` tune themselves.

Models: nr_pcp_alloc, nr_pcp_high, nr_pcp_free, free_unref_page_commit, free_pcppages_bulk, decay_pcp_high, drain_all_pages
(mm/page_alloc.c) and the pageset part of refresh_cpu_vm_stats (mm/vmstat.c), v6.12. For kernel 6.1 the
sizes (fixed high) and its free_factor. Simplifies: 6.1's drains use 6.12's order of lists. Omits: lock contention (a free that cannot
get the lock goes to the buddy in the kernel), CPU hotplug after boot.
"""
from mmcore.base.records cimport block_at, page_at
from mmcore.base.records cimport NR_PCP_LISTS, PCP_BATCH_SCALE_MAX, PCPF_FREE_HIGH_BATCH, WMARK_HIGH
from mmcore.base.trace cimport EV_PCP_DRAIN, trace_event
from mmcore.base.vmstat cimport fold_cpu_zone
from mmcore.base.flags cimport PG_buddy
from mmcore.phys.buddy cimport free_one_page, pageblock_mt, prefetch
from mmcore.phys.migratetype cimport rmqueue_bulk
from mmcore.phys.watermark cimport zone_watermark_ok


cdef enum:
    DRAIN_AHEAD = 32
    LOOK_ORDERS = 6
    HINT_AHEAD = 40


cdef inline int32_t clamp32(int32_t x, int32_t lo, int32_t hi) noexcept nogil:
    # high_min may exceed high_max (a large min_free_kbytes raises the low watermark above an eighth of the zone); the kernel's macro
    # looks at the upper bound first then
    return hi if x >= hi else lo if x <= lo else x


cdef int32_t nr_pcp_alloc(Zone* z, Pcp* pcp, unsigned order, bint v61) noexcept nogil:
    # Blocks that a refill takes; raises `high` and the doubling factor as a side effect.
    cdef int32_t high, want, limit
    if v61:
        want = pcp.batch
        if want > 1:
            want = want >> order if want >> order > 2 else 2
        return want
    high = pcp.high = clamp32(pcp.high, pcp.high_min, pcp.high_max)
    if high < pcp.batch:
        return 1
    want = pcp.batch if order else pcp.batch << pcp.alloc_factor
    if pcp.high_min != pcp.high_max and not z.flags & ZONE_BELOW_HIGH:
        high = pcp.high = high + want if high + want < pcp.high_max else pcp.high_max
    if order == 0:
        limit = high - pcp.count - pcp.batch
        if limit < pcp.batch:
            limit = pcp.batch
        if want <= limit and pcp.alloc_factor < PCP_BATCH_SCALE_MAX:
            pcp.alloc_factor += 1
        if want > limit:
            want = limit
    if want > 1:
        want = want >> order if want >> order > 2 else 2
    return want


cdef uint32_t pcp_refill(Mm* mm, Zone* z, Pcp* pcp, unsigned order, unsigned mt, unsigned alloc_flags, uint32_t head) noexcept nogil:
    cdef uint32_t n = <uint32_t>nr_pcp_alloc(z, pcp, order, mm.g.kernel == 1)
    n = rmqueue_bulk(mm, z, pcp, order, mt, n, head, alloc_flags)
    pcp.count += <int32_t>(n << order)
    return mm.link[head].next if n else 0


cdef void free_to_pcp_limits(Mm* mm, Zone* z, Pcp* pcp, unsigned order, unsigned pindex) noexcept nogil:
    # What follows the insertion of a freed block: tune the marks, compare with the limit, drain.
    cdef int32_t batch = pcp.batch, high, limit, n
    cdef bint free_high = False
    if mm.g.kernel == 1:
        free_to_pcp_limits_61(mm, z, pcp, order, pindex)
        return
    if order and order <= PAGE_ALLOC_COSTLY_ORDER:
        free_high = (pcp.free_count >= batch and pcp.flags & PCPF_PREV_FREE_HIGH_ORDER
                     and (not pcp.flags & PCPF_FREE_HIGH_BATCH or pcp.count >= batch))
        pcp.flags |= PCPF_PREV_FREE_HIGH_ORDER
    else:
        pcp.flags &= <unsigned char>~PCPF_PREV_FREE_HIGH_ORDER
    if pcp.free_count < batch << PCP_BATCH_SCALE_MAX:
        pcp.free_count += 1 << order
    high = pcp.high = clamp32(pcp.high, pcp.high_min, pcp.high_max)
    limit = high
    if high == 0:
        limit = 0
    elif free_high:
        pcp.high = max(high - (batch << PCP_BATCH_SCALE_MAX), pcp.high_min)
        limit = 0
    elif z.flags & ZONE_RECLAIM_ACTIVE:
        pcp.high = max(high - max(pcp.free_count, batch), pcp.high_min)
        limit = min(batch << 2, pcp.high)
    elif pcp.high_min == pcp.high_max:
        pass
    elif z.flags & ZONE_BELOW_HIGH:
        pcp.high = max(high - max(pcp.free_count, batch), pcp.high_min)
        limit = max(pcp.count, pcp.high_min)
    elif pcp.count >= high and high < pcp.free_count + batch:
        pcp.high = clamp32(pcp.free_count + batch, pcp.high_min, pcp.high_max)
    if pcp.count < limit:
        return
    if free_high:
        n = min(pcp.count, batch << PCP_BATCH_SCALE_MAX)
    elif limit < batch:
        n = 1
    else:
        n = clamp32(pcp.free_count, batch, limit - batch)
    free_pcppages_bulk(mm, z, pcp, pcp, n, pindex)
    if z.flags & ZONE_BELOW_HIGH and zone_watermark_ok(
            mm, z, 0, z.wmark[WMARK_HIGH] + z.watermark_boost, mm.g.zid_movable, 0):
        z.flags &= ~<uint32_t>ZONE_BELOW_HIGH


cdef void free_to_pcp_limits_61(Mm* mm, Zone* z, Pcp* pcp, unsigned order, unsigned pindex) noexcept nogil:
    cdef int32_t batch = pcp.batch, high = pcp.high, most, n
    cdef bint free_high = pcp.free_factor and order and order <= PAGE_ALLOC_COSTLY_ORDER
    if high == 0 or free_high:
        high = 0
    elif z.flags & ZONE_RECLAIM_ACTIVE:
        high = min(batch << 2, high)
    if pcp.count < high:
        return
    if free_high:
        n = pcp.count
    elif high < batch:
        n = 1
    else:
        most = high - batch
        n = batch << pcp.free_factor
        if n < most and pcp.free_factor < 24:
            pcp.free_factor += 1
        n = min(max(n, batch), most)
    free_pcppages_bulk(mm, z, pcp, pcp, n, pindex)


cdef inline void prefetch_merges(Mm* mm, const uint32_t* pfns, int m) noexcept nogil:
    # What merging these single pages will touch, an order at a time so that the misses of all of them overlap: the buddy's record, its
    # neighbours on the list it will leave, and the record that decides between head and tail where merging ends.
    cdef uint32_t left[DRAIN_AHEAD]
    cdef uint32_t pfn, order
    cdef Page* p
    cdef int i, n = m, more
    for i in range(m):
        left[i] = pfns[i]
        prefetch(block_at(mm, pfns[i] >> PAGEBLOCK_ORDER))
    for order in range(LOOK_ORDERS):
        more = 0
        for i in range(n):
            pfn = left[i]
            p = page_at(mm, pfn ^ (<uint32_t>1 << order))
            prefetch(page_at(mm, (pfn & ~(<uint32_t>1 << order)) ^ (<uint32_t>2 << order)))
            if p.flags == (PG_buddy | (order << PG_ORDER_SHIFT)):
                prefetch(&mm.link[p.next])
                prefetch(&mm.link[p.prev])
                left[more] = pfn & ~(<uint32_t>1 << order)
                more += 1
        n = more
        if n == 0:
            break


cdef void free_pcppages_bulk(Mm* mm, Zone* z, Pcp* pcp, Pcp* running, int64_t n, unsigned pindex) noexcept nogil:
    # From the tail of list `pindex` until n pages are gone or it is empty, then the next list, and so on.
    cdef uint32_t head, x, pfn
    cdef uint32_t ahead[DRAIN_AHEAD]
    cdef unsigned order, mt
    cdef int i, m
    if n > pcp.count:
        n = pcp.count
    while n > 0:
        head = pcp.list_head + pindex
        x = mm.link[head].prev
        if x == head:
            pindex = pindex + 1 if pindex + 1 < NR_PCP_LISTS else 0
            continue
        order = pindex // 3 if pindex < 12 else PAGEBLOCK_ORDER
        # Look at the next blocks together, so that the records merging will touch are on their way.
        m = 0
        while m < DRAIN_AHEAD and x != head and <int64_t>m << order < n:
            ahead[m] = x - 1
            if mm.hint != NULL:
                prefetch(page_at(mm, mm.hint[(mm.hint_at + HINT_AHEAD) & mm.hint_mask]))
                mm.hint_at += 1
            x = mm.link[x].prev
            m += 1
        if order == 0 and m > 1:
            prefetch_merges(mm, ahead, m)
        mm.link[head].prev = x
        mm.link[x].next = head
        pcp.count -= m << order
        n -= <int64_t>m << order
        for i in range(m):
            pfn = ahead[i]
            mt = pageblock_mt(mm, pfn)
            page_at(mm, pfn).next = 0
            page_at(mm, pfn).prev = 0
            page_at(mm, pfn).flags = 0
            trace_event(mm, EV_PCP_DRAIN, pfn, order, mt)
            free_one_page(mm, z, running, pfn, order, mt, 0)


cdef void drain_pcp(Mm* mm, uint32_t zi, unsigned cpu, unsigned running) noexcept nogil:
    # The CPU that drains keeps the accounts, whoever's list it is.
    cdef Pcp* pcp = &mm.pcps[zi * mm.g.nr_cpus + cpu]
    cdef Pcp* mine = &mm.pcps[zi * mm.g.nr_cpus + running]
    cdef int64_t step
    while pcp.count:
        step = pcp.batch << PCP_BATCH_SCALE_MAX
        free_pcppages_bulk(mm, &mm.zones[zi], pcp, mine, min(step, <int64_t>pcp.count), 0)


cdef void drain_all_pages(Mm* mm, unsigned running) noexcept nogil:
    cdef uint32_t zi, cpu
    for cpu in range(mm.g.nr_cpus):
        for zi in range(mm.g.nr_zones):
            if mm.zones[zi].present:
                drain_pcp(mm, zi, cpu, running)


cdef void decay_pcp_high(Mm* mm, Zone* z, Pcp* pcp) noexcept nogil:
    cdef int32_t left
    if pcp.high > pcp.high_min:
        pcp.high = max(pcp.count - (pcp.batch << PCP_BATCH_SCALE_MAX), max(pcp.high - (pcp.high >> 3), pcp.high_min))
    left = pcp.count - pcp.high
    while left > 0:
        free_pcppages_bulk(mm, z, pcp, pcp, min(left, pcp.batch), 0)
        left -= pcp.batch


cdef void vmstat_tick(Mm* mm, unsigned cpu) noexcept nogil:
    # One run of the vmstat worker on one CPU: fold first, then decay, so that what the decay frees stays in the differential.
    cdef uint32_t zi
    cdef Zone* z
    cdef Pcp* pcp
    cdef bint changed
    for zi in range(mm.g.nr_zones):
        z = &mm.zones[zi]
        if not z.present:
            continue
        pcp = &mm.pcps[zi * mm.g.nr_cpus + cpu]
        fold_cpu_zone(mm, zi, cpu, &changed)
        if changed and mm.g.numa:
            pcp.expire = 3
        if mm.g.kernel == 0:
            decay_pcp_high(mm, z, pcp)
        if pcp.expire == 0 or pcp.count == 0:
            continue
        if z.node == mm.cpu_node[cpu]:
            pcp.expire = 0
            continue
        pcp.expire -= 1
        if pcp.expire == 0:
            free_pcppages_bulk(mm, z, pcp, pcp, min(pcp.count, pcp.batch), 0)
