"""alloc_pages: the fast path, the slow path as far as it goes without reclaim, and every way to give pages back.

Models: __alloc_pages, get_page_from_freelist, rmqueue, alloc_flags_nofragment, gfp_to_alloc_flags, __gfp_pfmemalloc_flags,
alloc_pages_bulk, __free_pages, free_unref_page, __free_pages_ok, split_page, alloc_pages_exact, wakeup_kswapd (mm/page_alloc.c,
mm/vmscan.c, v6.12). Simplifies: no contents, so __GFP_ZERO only marks the request. Omits: cpusets and nodemasks, dirty-limit
spreading (__GFP_WRITE), direct reclaim, compaction and the OOM killer (a request that needs them fails with -ENOMEM at
slow_path_reclaim, the place made for them).

Tail pages of a block carry nothing: the block is found from its head, which holds the order.
"""
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memset

import numpy as np

cimport numpy as cnp
from cpython.long cimport PyLong_AsLongLongAndOverflow, PyLong_Check
from mmcore.base.errors cimport (
    E_BAD_PAGE, E_CPU, E_GFP, E_NODE, E_NOMEM, E_NOT_ALLOCATED, E_ORDER, E_RANGE, E_RESERVED, E_TAIL, E_WRONG_ORDER, check,
)
from mmcore.base.flags cimport (
    PG_CHECK_AT_FREE, PG_ORDER_MASK, PG_ORDER_SHIFT, PG_TYPE_MASK, PG_head, PG_hwpoison, PG_pcp, PG_pfmemalloc,
)
from mmcore.base.gfp cimport *
from mmcore.base.records cimport (
    MAX_PAGE_ORDER, MIGRATE_HIGHATOMIC, MIGRATE_ISOLATE, MIGRATE_MOVABLE, MIGRATE_PCPTYPES, MIGRATE_UNMOVABLE, NO_ZID, Node,
    NR_FREE_PAGES, NUMA_FOREIGN, NUMA_HIT, NUMA_LOCAL, NUMA_MISS, NUMA_OTHER, Page, Pageblock, PageMeta, PCP_BATCH_SCALE_MAX, Pcp,
    PCPF_PREV_FREE_HIGH_ORDER, WMARK_HIGH, ZONE_BELOW_HIGH, ZONE_BOOSTED_WATERMARK, ZONE_RECLAIM_ACTIVE,
)
from mmcore.base.state cimport State, state_lock, state_unlock
from mmcore.base.trace cimport EV_RMQUEUE, trace_event
from mmcore.base.vmstat cimport zone_page_state_snapshot
from mmcore.phys.buddy cimport FPI_NONE, FPI_TO_TAIL, free_large_page, free_one_page, pageblock_mt, prefetch, rmqueue_smallest, zone_of
from mmcore.phys.migratetype cimport RMQUEUE_NORMAL, reserve_highatomic_pageblock, rmqueue_any
from mmcore.phys.pcp cimport free_to_pcp, pcp_allowed_order, rmqueue_pcplist
from mmcore.phys.watermark cimport set_pgdat_percpu_threshold, __zone_watermark_ok, zone_watermark_fast

cnp.import_array()

cdef enum:
    LOOK_AHEAD = 24
    MAX_RECLAIM_RETRIES = 16
    # anything that takes a page out of the plain case when it is freed
    SPECIAL_AT_FREE = PG_CHECK_AT_FREE | PG_hwpoison | (PG_ORDER_MASK << PG_ORDER_SHIFT)


# ---------------------------------------------------------------- taking a page from a zone

cdef inline void zone_statistics(Mm* mm, AllocContext* ac, Zone* z, uint64_t nr) noexcept nogil:
    cdef Zone* preferred = &mm.zones[ac.preferred]
    if not mm.g.numa:
        return
    if z.node == preferred.node:
        z.numa_event[NUMA_HIT] += nr
    else:
        z.numa_event[NUMA_MISS] += nr
        preferred.numa_event[NUMA_FOREIGN] += nr
    if z.node == mm.cpu_node[ac.cpu]:
        z.numa_event[NUMA_LOCAL] += nr
    else:
        z.numa_event[NUMA_OTHER] += nr


cdef inline void prep_new_page(Mm* mm, uint32_t pfn, unsigned order, unsigned gfp, unsigned alloc_flags) noexcept nogil:
    cdef Page* p = &mm.pages[pfn]
    cdef uint32_t flags = order << PG_ORDER_SHIFT
    if order and gfp & GFP_COMP_BIT:
        flags |= PG_head
    if alloc_flags & ALLOC_NO_WATERMARKS:
        flags |= PG_pfmemalloc
    p.next = 0
    p.prev = 0
    p.flags = flags
    mm.meta[pfn].refcount = 1


cdef int64_t rmqueue_buddy(Mm* mm, Zone* z, Pcp* pcp, unsigned order, unsigned mt, unsigned alloc_flags) noexcept nogil:
    cdef int64_t pfn = -1
    cdef int mode = RMQUEUE_NORMAL
    if alloc_flags & ALLOC_HIGHATOMIC:
        pfn = rmqueue_smallest(mm, z, pcp, order, MIGRATE_HIGHATOMIC)
    if pfn < 0:
        pfn = rmqueue_any(mm, z, pcp, order, mt, alloc_flags, &mode)
        if pfn >= 0:
            return pfn
        if alloc_flags & (ALLOC_OOM | ALLOC_NON_BLOCK):
            pfn = rmqueue_smallest(mm, z, pcp, order, MIGRATE_HIGHATOMIC)
    if pfn >= 0:
        trace_event(mm, EV_RMQUEUE, <uint32_t>pfn, order, mt)
    return pfn


cdef int64_t rmqueue(Mm* mm, AllocContext* ac, uint32_t zi, unsigned order, unsigned alloc_flags) noexcept nogil:
    cdef Zone* z = &mm.zones[zi]
    cdef Pcp* pcp = &mm.pcps[zi * mm.g.nr_cpus + ac.cpu]
    cdef int64_t pfn = -1
    if pcp_allowed_order(mm, order):
        pfn = rmqueue_pcplist(mm, z, pcp, order, ac.mt, alloc_flags, True)
    if pfn < 0:
        pfn = rmqueue_buddy(mm, z, pcp, order, ac.mt, alloc_flags)
    if pfn >= 0:
        z.pgalloc += <uint64_t>1 << order
        zone_statistics(mm, ac, z, 1)
    if z.flags & ZONE_BOOSTED_WATERMARK and alloc_flags & ALLOC_KSWAPD:
        z.flags &= ~<uint32_t>ZONE_BOOSTED_WATERMARK
        wakeup_kswapd(mm, z, 0, 0, z.zid)
    return pfn


cdef inline bint zone_takes(Mm* mm, Zone* z, unsigned order, unsigned hidx, unsigned alloc_flags) noexcept nogil:
    # The two watermark tests of the list walk. A zone that fails the high mark is marked BELOW_HIGH, which ends pcp auto-tuning upward.
    # (6.1 has neither.)
    if not z.flags & ZONE_BELOW_HIGH and mm.g.kernel == 0:
        if zone_watermark_fast(z, order, z.wmark[WMARK_HIGH] + z.watermark_boost, hidx, alloc_flags):
            return True
        z.flags |= ZONE_BELOW_HIGH
    if zone_watermark_fast(z, order, z.wmark[alloc_flags & ALLOC_WMARK_MASK] + z.watermark_boost, hidx, alloc_flags):
        return True
    return (alloc_flags & ALLOC_NO_WATERMARKS) != 0


cdef int64_t get_page_from_freelist(Mm* mm, AllocContext* ac, unsigned order, unsigned alloc_flags, uint32_t* got_zone) noexcept nogil:
    cdef int i
    cdef uint32_t zi
    cdef Zone* z
    cdef int64_t pfn
    cdef unsigned local = mm.zones[ac.preferred].node
    while True:
        i = 0
        while ac.zonelist[i]:
            zi = ac.zonelist[i] - 1
            i += 1
            z = &mm.zones[zi]
            if z.zid > ac.hidx:
                continue
            if alloc_flags & ALLOC_NOFRAGMENT and mm.g.nr_nodes > 1 and zi != ac.preferred and z.node != local:
                # rather fragment the local node than leave it
                alloc_flags &= ~<unsigned>ALLOC_NOFRAGMENT
                i = 0
                continue
            if not zone_takes(mm, z, order, ac.hidx, alloc_flags):
                continue
            pfn = rmqueue(mm, ac, zi, order, alloc_flags)
            if pfn >= 0:
                prep_new_page(mm, <uint32_t>pfn, order, ac.gfp, alloc_flags)
                if alloc_flags & ALLOC_HIGHATOMIC and order:
                    reserve_highatomic_pageblock(mm, z, &mm.pcps[zi * mm.g.nr_cpus + ac.cpu], <uint32_t>pfn, order)
                got_zone[0] = zi
                return pfn
        if not alloc_flags & ALLOC_NOFRAGMENT:
            return -E_NOMEM
        alloc_flags &= ~<unsigned>ALLOC_NOFRAGMENT


# ---------------------------------------------------------------- requests

cdef int prepare_alloc(Mm* mm, AllocContext* ac, unsigned gfp, unsigned order, unsigned cpu, int nid, unsigned task) noexcept nogil:
    # Checks everything a caller can get wrong; fills the context. 0, -E_*, or -E_NOMEM when no zone can serve the mask.
    cdef int i
    cdef unsigned zid, own
    if order > MAX_PAGE_ORDER:
        return -E_ORDER
    if cpu >= mm.g.nr_cpus:
        return -E_CPU
    if nid >= <int>mm.g.nr_nodes:
        return -E_NODE
    if gfp & ~<unsigned>GFP_ALL_BITS or (gfp >> 3 & 3) == 3:
        return -E_GFP
    if gfp & GFP_NOFAIL_BIT and not gfp & GFP_DIRECT_RECLAIM_BIT:
        return -E_GFP
    zid = mm.g.gfp_zone[gfp & 15]
    if zid == NO_ZID:
        return -E_GFP
    gfp = current_gfp_context(gfp, task)
    ac.hidx = mm.g.gfp_zone[gfp & 15]
    ac.gfp = gfp
    ac.task = task
    ac.cpu = cpu
    ac.mt = MIGRATE_UNMOVABLE if mm.g.mobility_disabled else gfp_migratetype(gfp)
    if nid < 0:
        nid = mm.cpu_node[cpu]
    own = 1 if gfp & GFP_THISNODE_BIT else 0
    ac.zonelist = mm.zonelists + (<size_t>nid * 2 + own) * mm.g.zl_stride
    i = 0
    while ac.zonelist[i]:
        if mm.zones[ac.zonelist[i] - 1].zid <= ac.hidx:
            ac.preferred = ac.zonelist[i] - 1
            return 0
        i += 1
    return -E_NOMEM


cdef inline unsigned fast_path_flags(Mm* mm, AllocContext* ac) noexcept nogil:
    cdef unsigned flags = ALLOC_WMARK_LOW
    cdef Zone* z = &mm.zones[ac.preferred]
    if ac.gfp & GFP_KSWAPD_RECLAIM_BIT:
        flags |= ALLOC_KSWAPD
    # NOFRAGMENT where DMA32 exists and the preferred zone is Normal with a lower zone to fall back to
    if z.zid == mm.g.zid_normal and mm.g.zid_dma32 != NO_ZID and (mm.g.nr_nodes == 1 or (z - 1).present):
        flags |= ALLOC_NOFRAGMENT
    return flags


cdef inline unsigned slow_path_flags(AllocContext* ac, unsigned order) noexcept nogil:
    cdef unsigned flags = ALLOC_WMARK_MIN | ALLOC_CPUSET
    if ac.gfp & GFP_HIGH_BIT:
        flags |= ALLOC_MIN_RESERVE
    if ac.gfp & GFP_KSWAPD_RECLAIM_BIT:
        flags |= ALLOC_KSWAPD
    if not ac.gfp & GFP_DIRECT_RECLAIM_BIT:
        if not ac.gfp & GFP_NOMEMALLOC_BIT:
            flags |= ALLOC_NON_BLOCK
            if order and flags & ALLOC_MIN_RESERVE:
                flags |= ALLOC_HIGHATOMIC
        if flags & ALLOC_MIN_RESERVE:
            flags &= ~<unsigned>ALLOC_CPUSET
    elif ac.task & TASK_RT and not ac.task & TASK_INTERRUPT:
        flags |= ALLOC_MIN_RESERVE
    return flags


cdef inline unsigned reserve_rights(AllocContext* ac) noexcept nogil:
    # __gfp_pfmemalloc_flags()
    if ac.gfp & GFP_NOMEMALLOC_BIT:
        return 0
    if ac.gfp & GFP_MEMALLOC_BIT:
        return ALLOC_NO_WATERMARKS
    if not ac.task & TASK_INTERRUPT:
        if ac.task & TASK_MEMALLOC:
            return ALLOC_NO_WATERMARKS
        if ac.task & TASK_OOM_VICTIM:
            return ALLOC_OOM
    return 0


cdef int64_t slow_path_reclaim(Mm* mm, AllocContext* ac, unsigned order, unsigned alloc_flags) noexcept nogil:
    # Direct reclaim, direct compaction and the OOM killer belong here; none is modelled yet.
    return -E_NOMEM


cdef int64_t alloc_pages_slowpath(Mm* mm, AllocContext* ac, unsigned order, uint32_t* got_zone) noexcept nogil:
    cdef unsigned flags = slow_path_flags(ac, order), rights
    cdef int64_t pfn
    mm.g.nr_slowpath += 1
    if flags & ALLOC_KSWAPD:
        wake_all_kswapds(mm, ac, order)
    pfn = get_page_from_freelist(mm, ac, order, flags, got_zone)
    if pfn >= 0:
        return pfn
    rights = reserve_rights(ac)
    if flags & ALLOC_KSWAPD:
        wake_all_kswapds(mm, ac, order)
    if rights:
        flags = rights | (flags & ALLOC_KSWAPD)
    pfn = get_page_from_freelist(mm, ac, order, flags, got_zone)
    if pfn >= 0:
        return pfn
    pfn = slow_path_reclaim(mm, ac, order, flags)
    if pfn >= 0 or not ac.gfp & GFP_NOFAIL_BIT:
        return pfn
    # NOFAIL: the last reserves, first as they are, then in any cpuset
    return get_page_from_freelist(mm, ac, order, ALLOC_MIN_RESERVE | ALLOC_CPUSET, got_zone)


cdef inline int64_t alloc_prepared(Mm* mm, AllocContext* ac, unsigned order, unsigned flags, uint32_t* got_zone) noexcept nogil:
    cdef int64_t pfn = get_page_from_freelist(mm, ac, order, flags, got_zone)
    if pfn < 0:
        pfn = alloc_pages_slowpath(mm, ac, order, got_zone)
        if pfn < 0:
            mm.g.nr_failed += 1
    return pfn


cdef int64_t alloc_pages_node(Mm* mm, unsigned gfp, unsigned order, unsigned cpu, int nid, unsigned task) noexcept nogil:
    cdef AllocContext ac
    cdef uint32_t zi
    cdef int rc = prepare_alloc(mm, &ac, gfp, order, cpu, nid, task)
    if rc:
        return rc
    return alloc_prepared(mm, &ac, order, fast_path_flags(mm, &ac), &zi)


cdef int64_t alloc_pages_run(Mm* mm, uint32_t* out, int64_t n, unsigned gfp, unsigned order, unsigned cpu, int nid, unsigned task) noexcept nogil:
    cdef AllocContext ac
    cdef int64_t i = 0, pfn
    cdef uint32_t zi, x, head, got
    cdef unsigned flags
    cdef Page* p
    cdef PageMeta* m
    cdef Zone* z
    cdef Pcp* pcp
    cdef int rc = prepare_alloc(mm, &ac, gfp, order, cpu, nid, task)
    if rc:
        return rc
    flags = fast_path_flags(mm, &ac)
    while i < n:
        pfn = alloc_prepared(mm, &ac, order, flags, &zi)
        if pfn < 0:
            break
        out[i] = <uint32_t>pfn
        i += 1
        # What follows holds until the list is empty: taking from it changes nothing that the walk looks at.
        z = &mm.zones[zi]
        if zi != ac.preferred or order != 0 or z.flags & ZONE_BOOSTED_WATERMARK or i == n:
            continue
        pcp = &mm.pcps[zi * mm.g.nr_cpus + cpu]
        head = pcp.list_head + ac.mt
        x = mm.link[head].next
        if x == head or not zone_takes(mm, z, 0, ac.hidx, flags):
            continue
        got = 0
        while x != head and i < n:
            out[i] = x - 1
            i += 1
            got += 1
            p = &mm.link[x]
            m = &mm.meta[x - 1]
            x = p.next
            memset(p, 0, sizeof(Page))
            m.refcount = 1
            m.mapcount = 0
        if got:
            mm.link[head].next = x
            mm.link[x].prev = head
            pcp.count -= <int>got
            pcp.free_count = pcp.free_count >> got if got < 31 else 0
            pcp.free_factor = pcp.free_factor >> got if got < 8 else 0
            z.pgalloc += got
            zone_statistics(mm, &ac, z, got)
    return i


cdef int64_t alloc_bulk(Mm* mm, uint32_t* out, int64_t n, unsigned gfp, unsigned cpu, int nid, unsigned task) noexcept nogil:
    # alloc_pages_bulk(): order 0, one watermark test for all, refills as usual; at least one ordinary try when that gives nothing.
    cdef AllocContext ac
    cdef int64_t got = 0, pfn
    cdef int i = 0
    cdef uint32_t zi, found = 0
    cdef Zone* z = NULL
    cdef Pcp* pcp
    cdef unsigned flags = ALLOC_WMARK_LOW
    # the scopes of the task do not change the mask here, only in the ordinary try below
    cdef int rc = prepare_alloc(mm, &ac, gfp, 0, cpu, nid, 0)
    if rc:
        return rc
    if n > 1 and not gfp & GFP_ACCOUNT_BIT:
        while ac.zonelist[i]:
            zi = ac.zonelist[i] - 1
            i += 1
            z = &mm.zones[zi]
            if z.zid > ac.hidx:
                continue
            if mm.g.nr_nodes > 1 and zi != ac.preferred and z.node != mm.zones[ac.preferred].node:
                break
            if zone_watermark_fast(z, 0, z.wmark[1] + z.watermark_boost + n, mm.zones[ac.preferred].zid, flags):
                found = 1
                break
        if found:
            pcp = &mm.pcps[zi * mm.g.nr_cpus + cpu]
            while got < n:
                pfn = rmqueue_pcplist(mm, z, pcp, 0, ac.mt, flags, False)
                if pfn < 0:
                    break
                prep_new_page(mm, <uint32_t>pfn, 0, ac.gfp, 0)
                out[got] = <uint32_t>pfn
                got += 1
            if got:
                z.pgalloc += <uint64_t>got
                zone_statistics(mm, &ac, z, <uint64_t>got)
                return got
    if n < 1:
        return 0
    rc = prepare_alloc(mm, &ac, gfp, 0, cpu, nid, task)
    if rc:
        return rc
    pfn = alloc_prepared(mm, &ac, 0, fast_path_flags(mm, &ac), &zi)
    if pfn < 0:
        return 0
    out[0] = <uint32_t>pfn
    return 1


# ---------------------------------------------------------------- kswapd, as far as allocation sees it

cdef bint pgdat_balanced(Mm* mm, unsigned nid, unsigned order, unsigned hidx) noexcept nogil:
    # Some zone up to hidx passes its high mark, and no such zone is boosted. Below the drift mark the exact count decides.
    cdef uint32_t base = nid * mm.g.nr_zone_types, zi
    cdef bint passes = False
    cdef int64_t free_pages
    cdef Zone* z
    for zi in range(base, base + hidx + 1):
        z = &mm.zones[zi]
        if not z.managed:
            continue
        if z.watermark_boost:
            return False
        free_pages = z.vm_stat[NR_FREE_PAGES]
        if z.percpu_drift_mark and free_pages < z.percpu_drift_mark:
            free_pages = zone_page_state_snapshot(mm, zi, NR_FREE_PAGES)
        if __zone_watermark_ok(z, order, z.wmark[WMARK_HIGH] + z.watermark_boost, hidx, 0, free_pages if free_pages > 0 else 0):
            passes = True
    return passes


cdef void wakeup_kswapd(Mm* mm, Zone* z, unsigned gfp, unsigned order, unsigned hidx) noexcept nogil:
    # Leaves the wish in the node; whoever runs kswapd looks there.
    cdef Node* node = &mm.nodes[z.node]
    if not z.managed:
        return
    if <int>hidx > node.kswapd_highest_zoneidx:
        node.kswapd_highest_zoneidx = <short>hidx
    if <int>order > node.kswapd_order:
        node.kswapd_order = <short>order
    if node.kswapd_wanted or node.kswapd_running:
        return
    if node.kswapd_failures >= MAX_RECLAIM_RETRIES or pgdat_balanced(mm, z.node, order, hidx):
        return
    node.kswapd_wanted = 1
    node.nr_kswapd_wakeups += 1


cdef void wake_all_kswapds(Mm* mm, AllocContext* ac, unsigned order) noexcept nogil:
    cdef int i = 0
    cdef unsigned last = 0xffffffff
    cdef Zone* z
    while ac.zonelist[i]:
        z = &mm.zones[ac.zonelist[i] - 1]
        i += 1
        if z.zid > ac.hidx or not z.managed:
            continue
        if z.node != last:
            wakeup_kswapd(mm, z, ac.gfp, order, ac.hidx)
        last = z.node


cdef void kswapd_begin(Mm* mm, unsigned nid) noexcept nogil:
    # A balancing run starts: notes each zone's boost, marks the zones. A run still noted is over then.
    cdef uint32_t zi
    cdef Zone* z
    if mm.nodes[nid].kswapd_running:
        kswapd_end(mm, nid)
    mm.nodes[nid].kswapd_running = 1
    mm.nodes[nid].kswapd_wanted = 0
    mm.nodes[nid].kswapd_order = 0
    mm.nodes[nid].kswapd_highest_zoneidx = 0
    set_pgdat_percpu_threshold(mm, nid, True)
    for zi in range(nid * mm.g.nr_zone_types, (nid + 1) * mm.g.nr_zone_types):
        z = &mm.zones[zi]
        if not z.managed:
            continue
        z.kswapd_boost = z.watermark_boost
        z.flags |= ZONE_RECLAIM_ACTIVE


cdef void kswapd_end(Mm* mm, unsigned nid) noexcept nogil:
    cdef uint32_t zi
    cdef Zone* z
    if not mm.nodes[nid].kswapd_running:
        return
    mm.nodes[nid].kswapd_running = 0
    set_pgdat_percpu_threshold(mm, nid, False)
    for zi in range(nid * mm.g.nr_zone_types, (nid + 1) * mm.g.nr_zone_types):
        z = &mm.zones[zi]
        z.watermark_boost -= z.kswapd_boost if z.kswapd_boost < z.watermark_boost else z.watermark_boost
        z.kswapd_boost = 0
        z.flags &= ~<uint32_t>ZONE_RECLAIM_ACTIVE


# ---------------------------------------------------------------- freeing

cdef int find_block(Mm* mm, uint32_t pfn, uint32_t* head, unsigned* order) noexcept nogil:
    # The block that holds pfn: 1 allocated, 2 free or on a per-CPU list, 0 neither (hole or reserved). Its head and order.
    cdef unsigned k, o
    cdef uint32_t h, flags
    for k in range(MAX_PAGE_ORDER + 1):
        h = pfn & ~((<uint32_t>1 << k) - 1)
        flags = mm.pages[h].flags
        o = flags >> PG_ORDER_SHIFT & PG_ORDER_MASK
        if mm.meta[h].refcount > 0 or flags & PG_TYPE_MASK:
            if pfn - h < <uint32_t>1 << o:
                head[0] = h
                order[0] = o
                return 2 if flags & PG_TYPE_MASK else 1
    return 3 if in_untouched(mm, pfn) else 0


cdef bint in_untouched(Mm* mm, uint32_t pfn) noexcept nogil:
    cdef uint32_t zi = zone_of(mm, pfn), r
    cdef Zone* z
    if zi == 0:
        return False
    z = &mm.zones[zi - 1]
    if not z.lazy_left or pfn < z.lazy_pfn:
        return False
    for r in range(z.lazy_range, z.lazy_range_end):
        if mm.lazy[r].start <= pfn < mm.lazy[r].end:
            return True
    return False


cdef int why_not_freeable(Mm* mm, uint32_t pfn) noexcept nogil:
    cdef uint32_t head
    cdef unsigned order
    cdef int kind = find_block(mm, pfn, &head, &order)
    if kind == 1:
        return -E_TAIL
    return -E_NOT_ALLOCATED if kind else -E_RESERVED


cdef inline int check_free(Mm* mm, uint32_t pfn, unsigned order) noexcept nogil:
    cdef uint32_t flags
    if pfn >= mm.g.nr_pages:
        return -E_RANGE
    if order > MAX_PAGE_ORDER:
        return -E_ORDER
    flags = mm.pages[pfn].flags
    if mm.meta[pfn].refcount <= 0:
        return why_not_freeable(mm, pfn)
    if flags >> PG_ORDER_SHIFT != order:
        return -E_WRONG_ORDER
    if mm.meta[pfn].refcount == 1 and (flags & PG_CHECK_AT_FREE or mm.meta[pfn].mapcount):
        return -E_BAD_PAGE
    return 0


cdef inline void free_unref(Mm* mm, uint32_t pfn, unsigned order, unsigned cpu) noexcept nogil:
    # The block has lost its last reference and passed the checks.
    cdef Page* p = &mm.pages[pfn]
    cdef uint32_t zi = zone_of(mm, pfn) - 1
    cdef Zone* z = &mm.zones[zi]
    cdef Pcp* pcp = &mm.pcps[zi * mm.g.nr_cpus + cpu]
    cdef unsigned mt
    mm.meta[pfn].refcount = 0
    p.private_ = 0
    if p.flags & PG_hwpoison and order == 0:
        p.flags = PG_hwpoison
        return
    p.next = 0
    p.prev = 0
    p.flags = 0
    mt = pageblock_mt(mm, pfn)
    if pcp_allowed_order(mm, order) and mt != MIGRATE_ISOLATE:
        free_to_pcp(mm, z, pcp, pfn, order, mt)
    else:
        mm.g.pgfree += <uint64_t>1 << order
        free_large_page(mm, z, pcp, pfn, order, FPI_NONE)


cdef int free_pages_order(Mm* mm, uint32_t pfn, unsigned order, unsigned cpu) noexcept nogil:
    cdef int rc = check_free(mm, pfn, order)
    if rc:
        return rc
    if mm.meta[pfn].refcount == 1:
        free_unref(mm, pfn, order, cpu)
        return 0
    mm.meta[pfn].refcount -= 1
    if order and not mm.pages[pfn].flags & PG_head:
        # someone holds a speculative reference to the first page: everything behind it goes now
        mm.pages[pfn].flags &= ~(<uint32_t>PG_ORDER_MASK << PG_ORDER_SHIFT)
        while order:
            order -= 1
            free_unref(mm, pfn + (<uint32_t>1 << order), order, cpu)
    return 0


cdef inline void look_ahead(Mm* mm, const uint32_t* pfns, int64_t i, int64_t n) noexcept nogil:
    if i + LOOK_AHEAD < n and pfns[i + LOOK_AHEAD] < mm.g.nr_pages:
        prefetch(&mm.pages[pfns[i + LOOK_AHEAD]])
        prefetch(&mm.meta[pfns[i + LOOK_AHEAD]])


cdef int64_t free_burst(Mm* mm, const uint32_t* pfns, int64_t i, int64_t n, unsigned cpu) noexcept nogil:
    # Single pages of one zone and type that stay below every limit of the per-CPU list: they only go onto it, and the marks of all of
    # them are left at once. Returns the index behind the last one freed; what is different in any way is left to the caller.
    cdef uint32_t pfn = pfns[i], zi, first, head, x, limit = mm.g.nr_pages
    cdef Zone* z
    cdef Pcp* pcp
    cdef Page* link = mm.link
    cdef Pageblock block
    cdef int64_t k, end
    cdef int room
    if pfn >= limit:
        return i
    block = mm.blocks[pfn >> 9]
    zi = block.zone
    if zi == 0 or (block.mt ^ MIGRATE_MOVABLE) >= MIGRATE_PCPTYPES:
        return i
    z = &mm.zones[zi - 1]
    pcp = &mm.pcps[(zi - 1) * mm.g.nr_cpus + cpu]
    if z.flags & (ZONE_RECLAIM_ACTIVE | ZONE_BELOW_HIGH) or pcp.high < pcp.high_min or pcp.high > pcp.high_max or mm.g.kernel:
        return i
    room = pcp.high - pcp.count - 1
    if room <= 0:
        return i
    end = n if n - i < room else i + room
    head = pcp.list_head + (block.mt ^ MIGRATE_MOVABLE)
    first = link[head].next
    k = i
    while k < end:
        pfn = pfns[k]
        look_ahead(mm, pfns, k, n)
        if pfn >= limit or mm.blocks[pfn >> 9].zone != zi or mm.blocks[pfn >> 9].mt != block.mt:
            break
        x = pfn + 1
        # order 0, nothing set that forbids freeing, one reference, no mapping
        if mm.meta[pfn].refcount != 1 or mm.meta[pfn].mapcount or link[x].flags & SPECIAL_AT_FREE:
            break
        mm.meta[pfn].refcount = 0
        link[x].next = first
        link[x].private_ = 0
        link[x].flags = PG_pcp
        link[first].prev = x
        first = x
        k += 1
    if k == i:
        return i
    link[first].prev = head
    link[head].next = first
    room = <int>(k - i)
    pcp.count += room
    pcp.alloc_factor = pcp.alloc_factor >> room if room < 8 else 0
    pcp.flags &= <uint8_t>~PCPF_PREV_FREE_HIGH_ORDER
    if pcp.free_count < pcp.batch << PCP_BATCH_SCALE_MAX:
        pcp.free_count = min(pcp.free_count + room, pcp.batch << PCP_BATCH_SCALE_MAX)
    mm.g.pgfree += <uint64_t>room
    return k


cdef int free_pages_run(Mm* mm, const uint32_t* pfns, int64_t n, unsigned order, unsigned cpu, int64_t* done) noexcept nogil:
    cdef int64_t i = 0
    cdef int rc = 0
    while i < n:
        if order == 0:
            i = free_burst(mm, pfns, i, n, cpu)
            if i == n:
                break
        look_ahead(mm, pfns, i, n)
        rc = free_pages_order(mm, pfns[i], order, cpu)
        if rc:
            break
        i += 1
    done[0] = i
    return rc


cdef int split_allocated(Mm* mm, uint32_t pfn, unsigned order) noexcept nogil:
    # split_page(): a block that is not compound becomes 2^order pages, each with the first one's reference count.
    cdef int rc = check_free(mm, pfn, order)
    cdef uint32_t i
    if rc and rc != -E_BAD_PAGE:
        return rc
    if mm.pages[pfn].flags & PG_head:
        return -E_BAD_PAGE
    mm.pages[pfn].flags &= ~(<uint32_t>PG_ORDER_MASK << PG_ORDER_SHIFT)
    for i in range(1, <uint32_t>1 << order):
        mm.pages[pfn + i].flags = mm.pages[pfn].flags
        mm.meta[pfn + i].refcount = mm.meta[pfn].refcount
    return 0


cdef int isolate_piece(Mm* mm, uint32_t pfn, unsigned order, bint adopt) noexcept nogil:
    cdef uint32_t head, piece, flags, end, at
    cdef unsigned have
    cdef int kind
    if pfn >= mm.g.nr_pages or order > MAX_PAGE_ORDER or pfn & ((<uint32_t>1 << order) - 1):
        return -E_RANGE
    if zone_of(mm, pfn) == 0:
        return -E_RESERVED
    kind = find_block(mm, pfn, &head, &have)
    if kind >= 2:
        return -E_NOT_ALLOCATED
    if kind == 1 and have >= order:
        flags = mm.pages[head].flags & ~(<uint32_t>PG_ORDER_MASK << PG_ORDER_SHIFT) & ~<uint32_t>PG_head
        while have > order:
            # halve the part that holds the piece; the other half becomes a block of its own
            have -= 1
            piece = head + (<uint32_t>1 << have)
            if pfn >= piece:
                mm.pages[head].flags = flags | (have << PG_ORDER_SHIFT)
                mm.meta[head].refcount = 1
                head = piece
            else:
                mm.pages[piece].flags = flags | (have << PG_ORDER_SHIFT)
                mm.meta[piece].refcount = 1
            mm.pages[head].flags = flags | (have << PG_ORDER_SHIFT)
            mm.meta[head].refcount = 1
        return 0
    # smaller blocks, or pages that were in use before our time: they are joined to one block of this order
    if kind == 0 and not adopt:
        return -E_RESERVED
    end = pfn + (<uint32_t>1 << order)
    at = pfn
    while at < end:
        if mm.pages[at].flags & PG_TYPE_MASK or zone_of(mm, at) != zone_of(mm, pfn):
            return -E_NOT_ALLOCATED
        if mm.meta[at].refcount > 0:
            at += <uint32_t>1 << (mm.pages[at].flags >> PG_ORDER_SHIFT & PG_ORDER_MASK)
        elif adopt:
            at += 1
        else:
            return -E_RESERVED
    for at in range(pfn, end):
        mm.pages[at].next = mm.pages[at].prev = mm.pages[at].private_ = 0
        mm.pages[at].flags = 0
        mm.meta[at].refcount = 0
        mm.meta[at].mapcount = 0
    mm.pages[pfn].flags = order << PG_ORDER_SHIFT
    mm.meta[pfn].refcount = 1
    return 0


# ---------------------------------------------------------------- the Python side

cdef inline long long as_int(object value, str name, long long lo, long long hi) except? -1:
    # Conversion that names what is wrong: bool and float are no counts.
    cdef int overflow = 0
    cdef long long x
    if not PyLong_Check(value) or value is True or value is False:
        if not hasattr(value, "__index__") or isinstance(value, (bool, np.bool_)):
            raise TypeError(f"{name} must be an integer, not {type(value).__name__}")
        value = value.__index__()
    x = PyLong_AsLongLongAndOverflow(value, &overflow)
    if overflow or x < lo or x > hi:
        raise ValueError(f"{name} is {value}; it must lie in {lo}..{hi}")
    return x


cdef object fail_alloc(State s, long long rc, unsigned gfp, unsigned order, int nid):
    free = int(s.zones["vm_stat"][:, 0].sum())
    return check(rc, f"order {order}, gfp {gfp:#x}, node {'local' if nid < 0 else nid}; {free} free pages in all zones")


cdef object fail_free(State s, long long rc, unsigned pfn, unsigned order):
    cdef uint32_t head = 0
    cdef unsigned have = 0
    text = f"pfn {pfn:#x}, order {order}; the machine has pfns below {s.c.g.nr_pages:#x}"
    if pfn < s.c.g.nr_pages and find_block(&s.c, pfn, &head, &have) in (1, 2):
        text = f"pfn {pfn:#x}, order {order}; it lies in the block {head:#x} of order {have}, flags {s.c.pages[head].flags:#x}, " \
               f"refcount {s.c.meta[head].refcount}, mapcount {s.c.meta[head].mapcount}"
    return check(rc, text)


cdef inline unsigned as_gfp(object gfp) except? 0xffffffff:
    return <unsigned>as_int(gfp, "gfp", 0, 0x1ffffff)


def alloc_pages(State s not None, gfp, order=0, cpu=0, nid=-1, unsigned task=0):
    """Allocate 2**order contiguous pages; returns the first page frame number.

    Raises PageAllocFailure when no zone has them, GfpError for an illegal mask, ValueError for an order above 10 or an unknown CPU or node.
    """
    cdef unsigned g = as_gfp(gfp), o = <unsigned>as_int(order, "order", 0, MAX_PAGE_ORDER)
    cdef unsigned c = <unsigned>as_int(cpu, "cpu", 0, s.c.g.nr_cpus - 1)
    cdef int n = <int>as_int(nid, "node", -1, s.c.g.nr_nodes - 1)
    cdef int64_t pfn
    state_lock(s)
    pfn = alloc_pages_node(&s.c, g, o, c, n, task)
    state_unlock(s)
    if pfn < 0:
        fail_alloc(s, pfn, g, o, n)
    return pfn


def free_pages(State s not None, pfn, order=0, cpu=0):
    """Give back a block: drop one reference and free it when that was the last. Raises BadPageError (a ValueError) for a page that
    cannot be freed so; nothing changes then."""
    cdef unsigned p = <unsigned>as_int(pfn, "pfn", 0, 0xffffffff), o = <unsigned>as_int(order, "order", 0, MAX_PAGE_ORDER)
    cdef unsigned c = <unsigned>as_int(cpu, "cpu", 0, s.c.g.nr_cpus - 1)
    cdef int rc
    state_lock(s)
    rc = free_pages_order(&s.c, p, o, c)
    state_unlock(s)
    if rc < 0:
        fail_free(s, rc, p, o)


cdef cnp.ndarray pfn_array(object pfns, bint writeable):
    if (not cnp.PyArray_Check(pfns) or cnp.PyArray_TYPE(<cnp.ndarray>pfns) != cnp.NPY_UINT32 or cnp.PyArray_NDIM(<cnp.ndarray>pfns) != 1
            or not cnp.PyArray_IS_C_CONTIGUOUS(<cnp.ndarray>pfns) or not cnp.PyArray_ISNOTSWAPPED(<cnp.ndarray>pfns)):
        raise TypeError("page frames must come in a one-dimensional contiguous array of uint32, not "
                        + (f"{pfns.ndim}-dimensional {pfns.dtype}" if isinstance(pfns, np.ndarray) else type(pfns).__name__))
    if writeable and not cnp.PyArray_ISWRITEABLE(<cnp.ndarray>pfns):
        raise ValueError("the array for the page frames is read-only")
    return pfns


cdef inline bint overlaps(cnp.ndarray a, cnp.ndarray b) noexcept:
    cdef char* pa = <char*>cnp.PyArray_DATA(a)
    cdef char* pb = <char*>cnp.PyArray_DATA(b)
    return pa < pb + cnp.PyArray_NBYTES(b) and pb < pa + cnp.PyArray_NBYTES(a)


cdef int not_ours(State s, cnp.ndarray out) except -1:
    if (overlaps(out, s.all_pages) or overlaps(out, s.meta) or overlaps(out, s.pageblocks) or overlaps(out, s.zones) or overlaps(out, s.pcps)
            or overlaps(out, s.nodes) or overlaps(out, s.globals) or overlaps(out, s.lazy) or overlaps(out, s.present)
            or overlaps(out, s.zonelists) or overlaps(out, s.cpu_node) or overlaps(out, s.distances)):
        raise ValueError("the array for the page frames is part of the machine's own arrays")
    return 0


def alloc_pages_many(State s not None, out, gfp, order=0, cpu=0, nid=-1, unsigned task=0):
    """len(out) allocations in a row into `out` (uint32), as single calls would go; returns how many succeeded before the first failure."""
    cdef cnp.ndarray a = pfn_array(out, True)
    cdef unsigned g = as_gfp(gfp), o = <unsigned>as_int(order, "order", 0, MAX_PAGE_ORDER)
    cdef unsigned c = <unsigned>as_int(cpu, "cpu", 0, s.c.g.nr_cpus - 1)
    cdef int n = <int>as_int(nid, "node", -1, s.c.g.nr_nodes - 1)
    cdef int64_t got, want = cnp.PyArray_SIZE(a)
    cdef uint32_t* p = <uint32_t*>cnp.PyArray_DATA(a)
    not_ours(s, a)
    state_lock(s)
    with nogil:
        got = alloc_pages_run(&s.c, p, want, g, o, c, n, task)
    state_unlock(s)
    if got < 0 and got != -E_NOMEM:
        fail_alloc(s, got, g, o, n)
    return max(got, 0)


def alloc_pages_bulk(State s not None, out, gfp, cpu=0, nid=-1, unsigned task=0):
    """The kernel's alloc_pages_bulk(): up to len(out) order-0 pages with one watermark test; returns how many it got (may be fewer)."""
    cdef cnp.ndarray a = pfn_array(out, True)
    cdef unsigned g = as_gfp(gfp), c = <unsigned>as_int(cpu, "cpu", 0, s.c.g.nr_cpus - 1)
    cdef int n = <int>as_int(nid, "node", -1, s.c.g.nr_nodes - 1)
    cdef int64_t got, want = cnp.PyArray_SIZE(a)
    cdef uint32_t* p = <uint32_t*>cnp.PyArray_DATA(a)
    not_ours(s, a)
    state_lock(s)
    with nogil:
        got = alloc_bulk(&s.c, p, want, g, c, n, task)
    state_unlock(s)
    if got < 0 and got != -E_NOMEM:
        fail_alloc(s, got, g, 0, n)
    return max(got, 0)


cdef int check_free_run(Mm* mm, const uint32_t* pfns, int64_t n, unsigned order, int64_t* bad) noexcept nogil:
    # Every block freeable, none named twice? Marks heads on the way and takes the marks off again.
    cdef int64_t i, j
    cdef int rc = 0
    cdef uint32_t limit = mm.g.nr_pages
    for i in range(n):
        look_ahead(mm, pfns, i, n)
        if pfns[i] < limit and mm.meta[pfns[i]].refcount == -1:
            rc = -E_NOT_ALLOCATED   # named twice
            break
        rc = check_free(mm, pfns[i], order)
        if rc == 0 and mm.meta[pfns[i]].refcount == 1:
            mm.meta[pfns[i]].refcount = -1
        elif rc == 0:
            rc = -E_BAD_PAGE        # held by others: freed one by one only
        if rc:
            break
    else:
        i = n
    for j in range(i):
        mm.meta[pfns[j]].refcount = 1
    bad[0] = i
    return rc


def free_pages_many(State s not None, pfns, order=0, cpu=0, *, bint atomic=True):
    """Free every block named in `pfns` (uint32), in order, as single calls would.

    With atomic (the default) all are checked first: BadPageError leaves the machine unchanged. Without, blocks are freed up to the
    first bad one and the exception says how many were.
    """
    cdef cnp.ndarray a = pfn_array(pfns, False)
    cdef unsigned o = <unsigned>as_int(order, "order", 0, MAX_PAGE_ORDER), c = <unsigned>as_int(cpu, "cpu", 0, s.c.g.nr_cpus - 1)
    cdef int64_t n = cnp.PyArray_SIZE(a), done = 0
    cdef const uint32_t* p = <const uint32_t*>cnp.PyArray_DATA(a)
    cdef int rc = 0
    not_ours(s, a)
    state_lock(s)
    with nogil:
        if atomic:
            rc = check_free_run(&s.c, p, n, o, &done)
        if rc == 0:
            rc = free_pages_run(&s.c, p, n, o, c, &done)
    state_unlock(s)
    if rc < 0:
        try:
            fail_free(s, rc, p[done], o)
        except ValueError as error:
            raise type(error)(f"element {done}: {error}") from None


def split_page(State s not None, pfn, order):
    """Turn an allocated, non-compound block of `order` into 2**order single pages, to be freed one by one."""
    cdef unsigned p = <unsigned>as_int(pfn, "pfn", 0, 0xffffffff), o = <unsigned>as_int(order, "order", 0, MAX_PAGE_ORDER)
    cdef int rc
    state_lock(s)
    rc = split_allocated(&s.c, p, o)
    state_unlock(s)
    if rc < 0:
        fail_free(s, rc, p, o)


def alloc_pages_exact(State s not None, nr_pages, gfp, cpu=0, nid=-1, unsigned task=0):
    """Exactly nr_pages contiguous pages, each of order 0: a block of the next power of two whose surplus goes back to the buddy lists'
    tails. Returns the first page frame. __GFP_COMP and __GFP_HIGHMEM are refused (GfpError)."""
    cdef unsigned g = as_gfp(gfp), c = <unsigned>as_int(cpu, "cpu", 0, s.c.g.nr_cpus - 1), order = 0
    cdef uint32_t want = <uint32_t>as_int(nr_pages, "nr_pages", 1, 1 << MAX_PAGE_ORDER), p, zi
    cdef int n = <int>as_int(nid, "node", -1, s.c.g.nr_nodes - 1)
    cdef int64_t pfn
    if g & (GFP_COMP_BIT | GFP_HIGHMEM_BIT):
        check(-E_GFP, f"alloc_pages_exact takes neither __GFP_COMP nor __GFP_HIGHMEM (gfp {g:#x})")
    while <uint32_t>1 << order < want:
        order += 1
    state_lock(s)
    pfn = alloc_pages_node(&s.c, g, order, c, n, task)
    if pfn >= 0:
        split_allocated(&s.c, <uint32_t>pfn, order)
        for p in range(<uint32_t>pfn + want, <uint32_t>pfn + (<uint32_t>1 << order)):
            s.c.meta[p].refcount = 0
            s.c.pages[p].flags = 0
            s.c.g.pgfree += 1
            zi = zone_of(&s.c, p) - 1
            free_one_page(&s.c, &s.c.zones[zi], &s.c.pcps[zi * s.c.g.nr_cpus + c], p, 0, pageblock_mt(&s.c, p), FPI_TO_TAIL)
    state_unlock(s)
    if pfn < 0:
        fail_alloc(s, pfn, g, order, n)
    return pfn


def get_page(State s not None, pfn):
    """Take a further (speculative) reference to an allocated block."""
    cdef unsigned p = <unsigned>as_int(pfn, "pfn", 0, 0xffffffff)
    if p >= s.c.g.nr_pages or s.c.meta[p].refcount <= 0:
        fail_free(s, -E_NOT_ALLOCATED if p < s.c.g.nr_pages else -E_RANGE, p, 0)
    if s.c.meta[p].refcount == 2**31 - 1:
        raise ValueError(f"pfn {p:#x} has 2**31 - 1 references already")
    s.c.meta[p].refcount += 1


def put_page(State s not None, pfn, cpu=0):
    """Drop a reference; the last one frees the block."""
    cdef unsigned p = <unsigned>as_int(pfn, "pfn", 0, 0xffffffff)
    if p >= s.c.g.nr_pages:
        fail_free(s, -E_RANGE, p, 0)
    free_pages(s, p, s.c.pages[p].flags >> PG_ORDER_SHIFT if s.c.meta[p].refcount > 0 else 0, cpu)


def block_of(State s not None, pfn):
    """What a page frame belongs to: (kind, head, order) with kind "allocated", "free", "reserved" (a hole, or never given to the allocator)."""
    cdef unsigned p = <unsigned>as_int(pfn, "pfn", 0, s.c.g.nr_pages - 1), order = 0
    cdef uint32_t head = p
    cdef int kind = find_block(&s.c, p, &head, &order)
    if kind == 3:
        return "free", p & ~1023, MAX_PAGE_ORDER
    return ("reserved", "allocated", "free")[kind], head, order


def zone_index(State s not None, pfn):
    """Index of the zone a page frame belongs to; -1 for a hole between zones."""
    return <int>zone_of(&s.c, <uint32_t>as_int(pfn, "pfn", 0, s.c.g.nr_pages - 1)) - 1
