"""alloc_pages: the fast path and the slow path.

Models: __alloc_pages, get_page_from_freelist, rmqueue, alloc_flags_nofragment, gfp_to_alloc_flags, __gfp_pfmemalloc_flags,
alloc_pages_bulk, alloc_pages_exact, direct reclaim and its retries (mm/page_alloc.c, v6.12). Simplifies: no contents, so __GFP_ZERO only
marks the request; __GFP_NOFAIL without the right to reclaim is refused (the kernel warns and tries). Omits: cpusets and nodemasks,
dirty-limit spreading (__GFP_WRITE), throttle_direct_reclaim, compaction and the OOM killer: a request that needs them fails with -ENOMEM.
A machine whose reclaim is off (a recorded allocator trace drives it) fails where the kernel would reclaim.
"""
from libc.stdint cimport uint64_t
from libc.string cimport memset

cimport numpy as cnp
from mmcore.base.args cimport as_gfp, as_int, not_ours, pfn_array
from mmcore.base.errors cimport E_CPU, E_GFP, E_NODE, E_NOMEM, E_ORDER, check
from mmcore.base.flags cimport PG_ORDER_SHIFT, PG_allocated, PG_head, PG_pfmemalloc
from mmcore.base.gfp cimport *
from mmcore.base.records cimport page_at
from mmcore.base.records cimport (
    MAX_PAGE_ORDER, MIGRATE_HIGHATOMIC, MIGRATE_UNMOVABLE, NO_ZID, NR_FREE_PAGES, NUMA_FOREIGN, NUMA_HIT, NUMA_LOCAL, NUMA_MISS,
    NUMA_OTHER, PAGE_ALLOC_COSTLY_ORDER, Page, Pcp, WMARK_HIGH, WMARK_LOW, WMARK_MIN, ZONE_BELOW_HIGH, ZONE_BOOSTED_WATERMARK,
)
from mmcore.base.stat_items cimport (
    ZS_NR_ZONE_ACTIVE_ANON, ZS_NR_ZONE_ACTIVE_FILE, ZS_NR_ZONE_INACTIVE_ANON, ZS_NR_ZONE_INACTIVE_FILE,
)
from mmcore.base.state cimport State, state_enter, state_leave, state_lock, state_unlock
from mmcore.base.trace cimport EV_RMQUEUE, trace_event
from mmcore.base.vmstat cimport zone_page_state_snapshot
from mmcore.phys.buddy cimport FPI_TO_TAIL, free_one_page, pageblock_mt, rmqueue_smallest, zone_of
from mmcore.phys.migratetype cimport RMQUEUE_NORMAL, reserve_highatomic_pageblock, rmqueue_any
from mmcore.phys.pcp cimport pcp_allowed_order, rmqueue_pcplist
from mmcore.phys.pcp cimport drain_all_pages
from mmcore.phys.watermark cimport __zone_watermark_ok, zone_watermark_fast
from mmcore.reclaim.shrink_lists cimport can_reclaim_anon
from mmcore.reclaim.vmscan cimport MAX_RECLAIM_RETRIES, try_to_free_pages
from mmcore.alloc.kswapd cimport wakeup_kswapd
from mmcore.alloc.page_free cimport split_allocated

cnp.import_array()


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
    cdef Page* p = page_at(mm, pfn)
    cdef uint32_t flags = PG_allocated | (order << PG_ORDER_SHIFT)
    if order and gfp & GFP_COMP_BIT:
        flags |= PG_head
    if alloc_flags & ALLOC_NO_WATERMARKS:
        flags |= PG_pfmemalloc
    p.next = 0
    p.prev = 0
    p.flags = flags


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


cdef int64_t zone_reclaimable_pages(Mm* mm, Zone* z) noexcept nogil:
    cdef int64_t n = z.vm_stat[ZS_NR_ZONE_INACTIVE_FILE] + z.vm_stat[ZS_NR_ZONE_ACTIVE_FILE]
    if can_reclaim_anon(mm, 0):
        n += z.vm_stat[ZS_NR_ZONE_INACTIVE_ANON] + z.vm_stat[ZS_NR_ZONE_ACTIVE_ANON]
    # so that a zone with enough free pages is not skipped
    return n if n else z.vm_stat[NR_FREE_PAGES]


cdef bint should_reclaim_retry(Mm* mm, AllocContext* ac, unsigned order, unsigned alloc_flags, bint progress, int* no_progress) noexcept nogil:
    # Were everything reclaimable free, would some zone do?
    cdef int i = 0
    cdef uint32_t zi
    cdef Zone* z
    if progress and order <= PAGE_ALLOC_COSTLY_ORDER:
        no_progress[0] = 0
    else:
        no_progress[0] += 1
    if no_progress[0] > MAX_RECLAIM_RETRIES:
        return False
    while ac.zonelist[i]:
        zi = ac.zonelist[i] - 1
        z = &mm.zones[zi]
        i += 1
        if z.zid <= ac.hidx and __zone_watermark_ok(
                z, order, z.wmark[WMARK_MIN] + z.watermark_boost, ac.hidx, alloc_flags,
                zone_reclaimable_pages(mm, z) + zone_page_state_snapshot(mm, zi, NR_FREE_PAGES)):
            return True
    return False


cdef int64_t direct_reclaim(Mm* mm, AllocContext* ac, unsigned order, unsigned alloc_flags, uint32_t* got_zone, bint* progress) noexcept nogil:
    # __alloc_pages_direct_reclaim()
    cdef int64_t pfn
    progress[0] = try_to_free_pages(mm, ac.zonelist, ac.hidx, order, ac.gfp, ac.cpu) > 0
    if not progress[0]:
        return -E_NOMEM
    pfn = get_page_from_freelist(mm, ac, order, alloc_flags, got_zone)
    if pfn >= 0:
        return pfn
    # what was freed may stand on per-CPU lists
    drain_all_pages(mm, ac.cpu)
    return get_page_from_freelist(mm, ac, order, alloc_flags, got_zone)


cdef int64_t alloc_pages_slowpath(Mm* mm, AllocContext* ac, unsigned order, uint32_t* got_zone) noexcept nogil:
    cdef unsigned flags = slow_path_flags(ac, order), rights
    cdef int64_t pfn
    cdef int no_progress = 0
    cdef bint progress
    mm.g.nr_slowpath += 1
    if flags & ALLOC_KSWAPD:
        wake_all_kswapds(mm, ac, order)
    pfn = get_page_from_freelist(mm, ac, order, flags, got_zone)
    if pfn >= 0:
        return pfn
    while True:
        rights = reserve_rights(ac)
        if flags & ALLOC_KSWAPD:
            wake_all_kswapds(mm, ac, order)
        if rights:
            flags = rights | (flags & ALLOC_KSWAPD)
        pfn = get_page_from_freelist(mm, ac, order, flags, got_zone)
        if pfn >= 0:
            return pfn
        if not mm.vm.g.reclaim_on or not ac.gfp & GFP_DIRECT_RECLAIM_BIT or ac.task & TASK_MEMALLOC:
            break
        pfn = direct_reclaim(mm, ac, order, flags, got_zone, &progress)
        if pfn >= 0:
            return pfn
        if ac.gfp & GFP_NORETRY_BIT or (order > PAGE_ALLOC_COSTLY_ORDER and not ac.gfp & GFP_RETRY_MAYFAIL_BIT):
            break
        if not should_reclaim_retry(mm, ac, order, flags, progress, &no_progress):
            break
    if not ac.gfp & GFP_NOFAIL_BIT:
        return -E_NOMEM
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
            x = p.next
            memset(p, 0, sizeof(Page))
            p.flags = PG_allocated
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
            if zone_watermark_fast(z, 0, z.wmark[WMARK_LOW] + z.watermark_boost + n, mm.zones[ac.preferred].zid, flags):
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


# ---------------------------------------------------------------- the Python side

cdef object fail_alloc(State s, long long rc, unsigned gfp, unsigned order, int nid):
    free = int(s.zones["vm_stat"][:, 0].sum())
    return check(rc, f"order {order}, gfp {gfp:#x}, node {'local' if nid < 0 else nid}; {free} free pages in all zones")


def alloc_pages(State s not None, gfp, order=0, cpu=0, nid=-1, unsigned task=0):
    """Allocate 2**order contiguous pages; returns the first page frame number.

    Raises PageAllocFailure when no zone has them, GfpError for an illegal mask, ValueError for an order above 10 or an unknown CPU or node.
    """
    cdef unsigned g = as_gfp(gfp), o = <unsigned>as_int(order, "order", 0, MAX_PAGE_ORDER)
    cdef unsigned c = <unsigned>as_int(cpu, "cpu", 0, s.c.g.nr_cpus - 1)
    cdef int n = <int>as_int(nid, "node", -1, s.c.g.nr_nodes - 1)
    cdef int64_t pfn
    state_enter(s)
    pfn = alloc_pages_node(&s.c, g, o, c, n, task)
    state_leave(s)
    if pfn < 0:
        fail_alloc(s, pfn, g, o, n)
    return pfn


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
            s.c.pages[p].flags = 0
            s.c.g.pgfree += 1
            zi = zone_of(&s.c, p) - 1
            free_one_page(&s.c, &s.c.zones[zi], &s.c.pcps[zi * s.c.g.nr_cpus + c], p, 0, pageblock_mt(&s.c, p), FPI_TO_TAIL)
    state_unlock(s)
    if pfn < 0:
        fail_alloc(s, pfn, g, order, n)
    return pfn
