# Per-CPU page lists (struct per_cpu_pages). The common cases are inline here: taking from a list that has a page, and a free that
# stays below every limit; what is rarer is in pcp.pyx.

from libc.stdint cimport int32_t, int64_t, uint32_t
from mmcore.base.flags cimport PG_ORDER_SHIFT, PG_pcp
from mmcore.base.lists cimport list_add
from mmcore.base.records cimport page_at
from mmcore.base.records cimport (
    MIGRATE_ISOLATE, MIGRATE_MOVABLE, MIGRATE_PCPTYPES, Mm, Page, PAGEBLOCK_ORDER, PAGE_ALLOC_COSTLY_ORDER, Pcp, PCPF_PREV_FREE_HIGH_ORDER, Zone,
    ZONE_BELOW_HIGH, ZONE_RECLAIM_ACTIVE,
)

cdef inline bint pcp_allowed_order(Mm* mm, unsigned order) noexcept nogil:
    return order <= PAGE_ALLOC_COSTLY_ORDER or (order == PAGEBLOCK_ORDER and mm.g.pcp_order9)

cdef inline unsigned order_to_pindex(unsigned mt, unsigned order) noexcept nogil:
    if order == PAGEBLOCK_ORDER:
        return 12 + (mt == MIGRATE_MOVABLE)
    return MIGRATE_PCPTYPES * order + mt

# Head of the list for (order, mt), refilled when it is empty: pfn, or -1 when the buddy lists give nothing either. `halve` is false
# for bulk allocation only, which leaves free_count alone.
cdef inline int64_t rmqueue_pcplist(Mm* mm, Zone* z, Pcp* pcp, unsigned order, unsigned mt, unsigned alloc_flags, bint halve) noexcept nogil:
    cdef uint32_t head, x, n
    if halve:
        pcp.free_count >>= 1
        pcp.free_factor >>= 1
    head = pcp.list_head + order_to_pindex(mt, order)
    x = mm.link[head].next
    if x == head:
        x = pcp_refill(mm, z, pcp, order, mt, alloc_flags, head)
        if x == 0:
            return -1
    n = mm.link[x].next
    mm.link[head].next = n
    mm.link[n].prev = head
    pcp.count -= 1 << order
    return x - 1

# Contract: the block is unallocated and on no list; mt is its pageblock's type, not ISOLATE. Counts pgfree.
cdef inline void free_to_pcp(Mm* mm, Zone* z, Pcp* pcp, uint32_t pfn, unsigned order, unsigned mt) noexcept nogil:
    cdef unsigned pindex
    cdef Page* p = page_at(mm, pfn)
    if mt >= MIGRATE_PCPTYPES:
        mt = MIGRATE_MOVABLE
    pindex = order_to_pindex(mt, order)
    pcp.alloc_factor >>= 1
    mm.g.pgfree += <int64_t>1 << order
    p.flags = PG_pcp | (order << PG_ORDER_SHIFT)
    list_add(mm.link, pcp.list_head + pindex, pfn + 1)
    pcp.count += 1 << order
    if (order == 0 and pcp.count < pcp.high and not z.flags & (ZONE_RECLAIM_ACTIVE | ZONE_BELOW_HIGH)
            and pcp.high >= pcp.high_min and pcp.high <= pcp.high_max and mm.g.kernel == 0):
        # nothing to tune: only the marks that every free leaves
        pcp.flags &= <unsigned char>~PCPF_PREV_FREE_HIGH_ORDER
        if pcp.free_count < pcp.batch << 5:
            pcp.free_count += 1
        return
    free_to_pcp_limits(mm, z, pcp, order, pindex)

# Link value of the refilled list's first block, or 0.
cdef uint32_t pcp_refill(Mm* mm, Zone* z, Pcp* pcp, unsigned order, unsigned mt, unsigned alloc_flags, uint32_t head) noexcept nogil
cdef void free_to_pcp_limits(Mm* mm, Zone* z, Pcp* pcp, unsigned order, unsigned pindex) noexcept nogil
# Drains n pages of `pcp`, first from list `pindex`; `running` is the pageset of the CPU that does it and counts NR_FREE_PAGES.
cdef void free_pcppages_bulk(Mm* mm, Zone* z, Pcp* pcp, Pcp* running, int64_t n, unsigned pindex) noexcept nogil
cdef void drain_pcp(Mm* mm, uint32_t zi, unsigned cpu, unsigned running) noexcept nogil
cdef void drain_all_pages(Mm* mm, unsigned running) noexcept nogil
cdef void vmstat_tick(Mm* mm, unsigned cpu) noexcept nogil
