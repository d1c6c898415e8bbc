"""Reclaim with the classic LRU: from what asks for it down to the lists.

Models: shrink_node, prepare_scan_control, shrink_node_memcgs with its shared position, do_try_to_free_pages and its retries,
try_to_free_mem_cgroup_pages, balance_pgdat, pgdat_balanced (mm/vmscan.c, v6.12). Simplifies: a run is one step: what it would wait for
(throttling) is left to the caller as a time in the node's throttle_until_ns. Omits: slab shrinkers (their place is after each
lruvec), compaction, vmpressure notifications, node_reclaim, demotion.
"""
from libc.string cimport memset

from mmcore.base.records cimport NODE_DIRTY, NODE_WRITEBACK, NR_FREE_PAGES, Node, WMARK_HIGH, WMARK_MIN, Zone, ZONE_RECLAIM_ACTIVE
from mmcore.base.gfp cimport GFP_FS_BIT, GFP_IO_BIT
from mmcore.base.stat_items cimport (
    NS_NR_ACTIVE_FILE, NS_NR_INACTIVE_ANON, NS_NR_INACTIVE_FILE, NS_WORKINGSET_ACTIVATE_ANON, NS_WORKINGSET_ACTIVATE_FILE, VE_PAGEOUTRUN,
)
from mmcore.base.vm_records cimport LRUVEC_CGROUP_CONGESTED, LRUVEC_NODE_CONGESTED, Lruvec, MEMCG_EV_LOW
from mmcore.base.vmstat cimport zone_page_state_snapshot
from mmcore.base.vmscan_trace cimport trace_memcg_begin, trace_memcg_end
from mmcore.phys.watermark cimport __zone_watermark_ok
from mmcore.reclaim.lru cimport LRU_ACTIVE_ANON
from mmcore.reclaim.memcg cimport (
    lruvec_page_state, memcg_below_low, memcg_below_min, memcg_event, memcg_flush_stats_ratelimited, memcg_lruvec, memcg_next, memcg_protection,
)
from mmcore.reclaim.scan_control cimport DEACTIVATE_ANON, DEACTIVATE_FILE, DEF_PRIORITY, SWAP_CLUSTER_MAX, ScanControl
from mmcore.reclaim.shrink_lists cimport can_reclaim_anon, inactive_is_low, shrink_active_list, shrink_lruvec

cdef enum:
    GFP_KERNEL = 0xcc0
    ANY_ZONE = 4


# ---------------------------------------------------------------- one pass over a node

cdef void prepare_scan_control(Mm* mm, uint32_t node, ScanControl* sc) noexcept nogil:
    cdef Lruvec* lv = memcg_lruvec(mm, sc.target - 1 if sc.target else 0, node)
    cdef Zone* z
    cdef uint32_t zi
    cdef int64_t total_high = 0, free_pages = 0, file, anon
    memcg_flush_stats_ratelimited(mm)
    sc.anon_cost = lv.anon_cost
    sc.file_cost = lv.file_cost
    if sc.force_deactivate:
        sc.may_deactivate = DEACTIVATE_ANON | DEACTIVATE_FILE
    else:
        sc.may_deactivate &= ~(DEACTIVATE_ANON | DEACTIVATE_FILE)
        if lruvec_page_state(mm, lv, NS_WORKINGSET_ACTIVATE_ANON) != lv.refaults[0] or inactive_is_low(mm, lv, False):
            sc.may_deactivate |= DEACTIVATE_ANON
        if lruvec_page_state(mm, lv, NS_WORKINGSET_ACTIVATE_FILE) != lv.refaults[1] or inactive_is_low(mm, lv, True):
            sc.may_deactivate |= DEACTIVATE_FILE
    file = lruvec_page_state(mm, lv, NS_NR_INACTIVE_FILE)
    sc.cache_trim_mode = file >> sc.priority and not sc.may_deactivate & DEACTIVATE_FILE and not sc.no_cache_trim_mode
    sc.file_is_tiny = False
    if sc.target == 0:
        for zi in range(node * mm.g.nr_zone_types, (node + 1) * mm.g.nr_zone_types):
            z = &mm.zones[zi]
            free_pages += z.vm_stat[NR_FREE_PAGES]
            if z.managed:
                total_high += z.wmark[WMARK_HIGH] + z.watermark_boost
        file = mm.nodes[node].vm_stat[NS_NR_ACTIVE_FILE] + mm.nodes[node].vm_stat[NS_NR_INACTIVE_FILE]
        anon = mm.nodes[node].vm_stat[NS_NR_INACTIVE_ANON]
        sc.file_is_tiny = file + free_pages <= total_high and not sc.may_deactivate & DEACTIVATE_ANON and anon >> sc.priority != 0


cdef void shrink_node_memcgs(Mm* mm, uint32_t node, ScanControl* sc) noexcept nogil:
    cdef uint32_t target = sc.target - 1 if sc.target else 0, at
    cdef Lruvec* root = memcg_lruvec(mm, target, node)
    cdef bint partial = not (sc.kswapd or sc.memcg_full_walk)
    at = memcg_next(mm, target, root.iter if partial else 0)
    if at == 0:
        at = memcg_next(mm, target, 0)
    while at:
        if partial:
            root.iter = at
        memcg_protection(mm, target, at - 1)
        if not memcg_below_min(mm, target, at - 1):
            if memcg_below_low(mm, target, at - 1) and not sc.memcg_low_reclaim:
                sc.memcg_low_skipped = True
            else:
                if memcg_below_low(mm, target, at - 1):
                    memcg_event(mm, at - 1, MEMCG_EV_LOW)
                shrink_lruvec(mm, memcg_lruvec(mm, at - 1, node), sc)
                if partial and sc.nr_reclaimed >= sc.nr_to_reclaim:
                    return
        at = memcg_next(mm, target, at)
    if partial:
        root.iter = 0


cdef bint should_continue(Mm* mm, uint32_t node, int64_t reclaimed, ScanControl* sc) noexcept nogil:
    # should_continue_reclaim(): only for orders that compaction would serve.
    cdef uint32_t zi
    cdef Zone* z
    cdef int64_t inactive
    if not (sc.order > 3 or (sc.order and sc.priority < DEF_PRIORITY - 2)) or reclaimed == 0:
        return False
    for zi in range(node * mm.g.nr_zone_types, node * mm.g.nr_zone_types + sc.reclaim_idx + 1):
        z = &mm.zones[zi]
        if z.managed and __zone_watermark_ok(z, sc.order, z.wmark[WMARK_MIN] + z.watermark_boost, sc.reclaim_idx, 0, z.vm_stat[NR_FREE_PAGES]):
            return False
    inactive = mm.nodes[node].vm_stat[NS_NR_INACTIVE_FILE]
    if can_reclaim_anon(mm, 0):
        inactive += mm.nodes[node].vm_stat[NS_NR_INACTIVE_ANON]
    return inactive > <int64_t>2 << sc.order


cdef void shrink_node(Mm* mm, uint32_t node, ScanControl* sc) noexcept nogil:
    cdef Lruvec* lv = memcg_lruvec(mm, sc.target - 1 if sc.target else 0, node)
    cdef Node* n = &mm.nodes[node]
    cdef int64_t reclaimed
    cdef bint reclaimable = False
    while True:
        sc.nr_dirty = sc.nr_unqueued_dirty = sc.nr_congested = sc.nr_writeback = sc.nr_immediate = 0
        sc.nr_taken = sc.nr_file_taken = 0
        reclaimed = sc.nr_reclaimed
        prepare_scan_control(mm, node, sc)
        shrink_node_memcgs(mm, node, sc)
        reclaimed = sc.nr_reclaimed - reclaimed
        if reclaimed:
            reclaimable = True
        if sc.kswapd:
            if sc.nr_writeback and sc.nr_writeback == sc.nr_taken:
                n.flags |= NODE_WRITEBACK
            if sc.nr_unqueued_dirty == sc.nr_file_taken:
                n.flags |= NODE_DIRTY
            if sc.nr_immediate:
                n.throttle_until_ns = mm.g.now_ns + 100000000
        if sc.nr_dirty and sc.nr_dirty == sc.nr_congested:
            if sc.target:
                lv.flags |= LRUVEC_CGROUP_CONGESTED
            if sc.kswapd:
                lv.flags |= LRUVEC_NODE_CONGESTED
        if not sc.kswapd and lv.flags & (LRUVEC_CGROUP_CONGESTED | LRUVEC_NODE_CONGESTED):
            n.throttle_until_ns = mm.g.now_ns + 4000000
        if not should_continue(mm, node, reclaimed, sc):
            break
    if reclaimable:
        n.kswapd_failures = 0
    elif sc.cache_trim_mode:
        sc.cache_trim_mode_failed = True


cdef void snapshot_refaults(Mm* mm, uint32_t target, uint32_t node) noexcept nogil:
    cdef Lruvec* lv = memcg_lruvec(mm, target - 1 if target else 0, node)
    lv.refaults[0] = lruvec_page_state(mm, lv, NS_WORKINGSET_ACTIVATE_ANON)
    lv.refaults[1] = lruvec_page_state(mm, lv, NS_WORKINGSET_ACTIVATE_FILE)


# ---------------------------------------------------------------- whoever needs pages now

cdef void shrink_zones(Mm* mm, const unsigned short* zonelist, ScanControl* sc) noexcept nogil:
    cdef int i = 0
    cdef uint32_t last = 0xffffffff
    cdef Zone* z
    while zonelist[i]:
        z = &mm.zones[zonelist[i] - 1]
        i += 1
        if z.zid > sc.reclaim_idx or z.node == last:
            continue
        last = z.node
        shrink_node(mm, z.node, sc)


cdef int64_t do_try_to_free_pages(Mm* mm, const unsigned short* zonelist, ScanControl* sc) noexcept nogil:
    cdef int initial = sc.priority, i
    cdef uint32_t last
    cdef Zone* z
    while True:
        if sc.target == 0:
            mm.zones[zonelist[0] - 1 - mm.zones[zonelist[0] - 1].zid + sc.reclaim_idx].allocstall += 1
        while True:
            sc.nr_scanned = 0
            shrink_zones(mm, zonelist, sc)
            if sc.nr_reclaimed >= sc.nr_to_reclaim or sc.compaction_ready:
                break
            if sc.priority < DEF_PRIORITY - 2:
                sc.may_writepage = True
            sc.priority -= 1
            if sc.priority < 0:
                break
        i = 0
        last = 0xffffffff
        while zonelist[i]:
            z = &mm.zones[zonelist[i] - 1]
            i += 1
            if z.node == last or z.zid > sc.reclaim_idx:
                continue
            last = z.node
            snapshot_refaults(mm, sc.target, z.node)
            if sc.target:
                memcg_lruvec(mm, sc.target - 1, z.node).flags &= ~<uint32_t>LRUVEC_CGROUP_CONGESTED
        if sc.nr_reclaimed:
            return sc.nr_reclaimed
        if sc.compaction_ready:
            return 1
        # fruitless: first over all groups, then deactivating by force, then in spite of protection
        if not sc.memcg_full_walk:
            sc.priority = initial
            sc.memcg_full_walk = True
        elif sc.skipped_deactivate:
            sc.priority = initial
            sc.force_deactivate = True
            sc.skipped_deactivate = False
        elif sc.memcg_low_skipped:
            sc.priority = initial
            sc.force_deactivate = False
            sc.memcg_low_reclaim = True
            sc.memcg_low_skipped = False
        else:
            return 0


cdef int64_t try_to_free_mem_cgroup_pages(Mm* mm, uint32_t id_, int64_t nr_pages, unsigned gfp, unsigned options, int swappiness,
                                          unsigned cpu) noexcept nogil:
    cdef ScanControl sc
    cdef int64_t freed
    memset(&sc, 0, sizeof(sc))
    sc.nr_to_reclaim = nr_pages if nr_pages > SWAP_CLUSTER_MAX else SWAP_CLUSTER_MAX
    sc.swappiness = swappiness
    sc.gfp = (gfp & (GFP_KERNEL | GFP_IO_BIT | GFP_FS_BIT)) | GFP_KERNEL & 0xc00
    sc.reclaim_idx = mm.g.nr_zone_types - 1
    sc.target = id_ + 1
    sc.priority = DEF_PRIORITY
    sc.may_writepage = sc.may_unmap = True
    sc.may_swap = options & MEMCG_RECLAIM_MAY_SWAP != 0
    sc.proactive = options & MEMCG_RECLAIM_PROACTIVE != 0
    sc.cpu = cpu
    trace_memcg_begin(mm)
    freed = do_try_to_free_pages(mm, mm.zonelists + <size_t>mm.cpu_node[cpu] * 2 * mm.g.zl_stride, &sc)
    trace_memcg_end(mm, freed)
    return freed


cdef int64_t try_to_free_pages(Mm* mm, const unsigned short* zonelist, unsigned hidx, unsigned order, unsigned gfp, unsigned cpu) noexcept nogil:
    cdef ScanControl sc
    memset(&sc, 0, sizeof(sc))
    sc.nr_to_reclaim = SWAP_CLUSTER_MAX
    sc.swappiness = -1
    sc.gfp = gfp
    sc.reclaim_idx = hidx
    sc.order = <int>order
    sc.priority = DEF_PRIORITY
    sc.may_writepage = sc.may_unmap = sc.may_swap = True
    sc.cpu = cpu
    return do_try_to_free_pages(mm, zonelist, &sc)


# ---------------------------------------------------------------- kswapd

cdef bint pgdat_balanced(Mm* mm, uint32_t node, unsigned order, unsigned hidx) noexcept nogil:
    # Some zone up to hidx passes its high mark. Below the drift mark the exact count decides. True for a node without memory.
    cdef uint32_t base = node * mm.g.nr_zone_types, zi
    cdef bint any_ = False
    cdef int64_t free_pages
    cdef Zone* z
    for zi in range(base, base + hidx + 1):
        z = &mm.zones[zi]
        if not z.managed:
            continue
        any_ = True
        free_pages = z.vm_stat[NR_FREE_PAGES]
        if z.percpu_drift_mark and free_pages < z.percpu_drift_mark:
            free_pages = zone_page_state_snapshot(mm, zi, NR_FREE_PAGES)
        if __zone_watermark_ok(z, order, z.wmark[WMARK_HIGH] + z.watermark_boost, hidx, 0, free_pages if free_pages > 0 else 0):
            return True
    return not any_


cdef void age_anon(Mm* mm, uint32_t node, ScanControl* sc) noexcept nogil:
    # kswapd_age_node(): new anonymous pages get time on the inactive list before they are needed.
    cdef uint32_t at
    if mm.g.total_swap_pages <= 0 or not inactive_is_low(mm, memcg_lruvec(mm, 0, node), False):
        return
    at = memcg_next(mm, 0, 0)
    while at:
        shrink_active_list(mm, SWAP_CLUSTER_MAX, memcg_lruvec(mm, at - 1, node), sc, LRU_ACTIVE_ANON)
        at = memcg_next(mm, 0, at)


cdef int64_t boost_of(Mm* mm, uint32_t node, unsigned hidx) noexcept nogil:
    cdef uint32_t zi
    cdef int64_t n = 0
    for zi in range(node * mm.g.nr_zone_types, node * mm.g.nr_zone_types + hidx + 1):
        if mm.zones[zi].managed:
            n += mm.zones[zi].watermark_boost
    return n


cdef void mark_zones(Mm* mm, uint32_t node, unsigned hidx, bint active) noexcept nogil:
    cdef uint32_t zi
    for zi in range(node * mm.g.nr_zone_types, node * mm.g.nr_zone_types + hidx + 1):
        if mm.zones[zi].managed:
            if active:
                mm.zones[zi].flags |= ZONE_RECLAIM_ACTIVE
            else:
                mm.zones[zi].flags &= ~<uint32_t>ZONE_RECLAIM_ACTIVE


cdef void kswapd_shrink_node(Mm* mm, uint32_t node, unsigned hidx, ScanControl* sc) noexcept nogil:
    cdef uint32_t zi
    cdef int64_t high
    sc.nr_to_reclaim = 0
    for zi in range(node * mm.g.nr_zone_types, node * mm.g.nr_zone_types + hidx + 1):
        if mm.zones[zi].managed:
            high = mm.zones[zi].wmark[WMARK_HIGH] + mm.zones[zi].watermark_boost
            sc.nr_to_reclaim += high if high > SWAP_CLUSTER_MAX else SWAP_CLUSTER_MAX
    shrink_node(mm, node, sc)
    if sc.order and sc.nr_reclaimed >= <int64_t>2 << sc.order:
        sc.order = 0


cdef unsigned balance_pgdat(Mm* mm, uint32_t node, unsigned order, unsigned hidx, unsigned cpu) noexcept nogil:
    cdef ScanControl sc
    cdef int64_t boost = boost_of(mm, node, hidx), before, freed, scanned
    cdef bint balanced, raise_, out = False
    cdef uint32_t zi
    cdef int64_t at_entry[5]
    memset(&sc, 0, sizeof(sc))
    sc.gfp = GFP_KERNEL
    sc.order = <int>order
    sc.may_unmap = True
    sc.swappiness = -1
    sc.kswapd = True
    sc.cpu = cpu
    mm.vm.g.events[VE_PAGEOUTRUN] += 1
    for zi in range(hidx + 1):
        at_entry[zi] = mm.zones[node * mm.g.nr_zone_types + zi].watermark_boost
    mark_zones(mm, node, hidx, True)
    while True:
        sc.priority = DEF_PRIORITY
        while sc.priority >= 1:
            sc.reclaim_idx = hidx
            balanced = pgdat_balanced(mm, node, <unsigned>sc.order, hidx)
            if not balanced and boost:
                boost = 0
                sc.priority = DEF_PRIORITY
                continue
            if boost == 0 and balanced:
                out = True
                break
            raise_ = not (boost and sc.priority == DEF_PRIORITY - 2)
            sc.may_writepage = boost == 0
            sc.may_swap = boost == 0
            age_anon(mm, node, &sc)
            if sc.priority < DEF_PRIORITY - 2:
                sc.may_writepage = True
            sc.nr_scanned = 0
            before = sc.nr_reclaimed
            kswapd_shrink_node(mm, node, hidx, &sc)
            freed = sc.nr_reclaimed - before
            scanned = sc.nr_scanned if sc.nr_scanned > freed else freed
            if scanned >= sc.nr_to_reclaim:
                raise_ = False
            boost -= freed if freed < boost else boost
            if boost and freed == 0:
                break
            if raise_ or freed == 0:
                sc.priority -= 1
        if out:
            break
        if sc.nr_reclaimed == 0 and sc.priority < 1 and not sc.no_cache_trim_mode and sc.cache_trim_mode_failed:
            sc.no_cache_trim_mode = True
            continue
        if sc.nr_reclaimed == 0:
            mm.nodes[node].kswapd_failures += 1
        break
    mark_zones(mm, node, hidx, False)
    for zi in range(hidx + 1):
        before = mm.zones[node * mm.g.nr_zone_types + zi].watermark_boost
        mm.zones[node * mm.g.nr_zone_types + zi].watermark_boost -= at_entry[zi] if at_entry[zi] < before else before
    snapshot_refaults(mm, 0, node)
    return <unsigned>sc.order
