"""kswapd of each node: waking it, and its life between naps.

Models: wakeup_kswapd, kswapd, kswapd_try_to_sleep (mm/vmscan.c, v6.12). Simplifies: a balancing run is one step, made where the task that
woke it next yields its CPU (one CPU does nothing else meanwhile); who replays a recorded trace says itself when kswapd ran
(kswapd_begin, kswapd_end). Omits: kcompactd.
"""
from mmcore.base.stat_items cimport VE_KSWAPD_HIGH_WMARK_HIT_QUICKLY, VE_KSWAPD_LOW_WMARK_HIT_QUICKLY
from mmcore.base.records cimport NODE_DIRTY, NODE_WRITEBACK, Node, ZONE_RECLAIM_ACTIVE
from mmcore.base.vm_records cimport LRUVEC_CGROUP_CONGESTED, LRUVEC_NODE_CONGESTED
from mmcore.phys.watermark cimport set_pgdat_percpu_threshold
from mmcore.reclaim.vmscan cimport MAX_RECLAIM_RETRIES, balance_pgdat, pgdat_balanced

cdef enum:
    NAP_NS = 100000000              # HZ / 10


cdef bint boosted(Mm* mm, uint32_t nid, unsigned hidx) noexcept nogil:
    cdef uint32_t zi
    for zi in range(nid * mm.g.nr_zone_types, nid * mm.g.nr_zone_types + hidx + 1):
        if mm.zones[zi].managed and mm.zones[zi].watermark_boost:
            return True
    return False


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
    if node.kswapd_failures >= MAX_RECLAIM_RETRIES or (pgdat_balanced(mm, z.node, order, hidx) and not boosted(mm, z.node, hidx)):
        return
    node.kswapd_wanted = 1
    mm.vm.g.kswapd_wanted = 1
    node.nr_kswapd_wakeups += 1


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


cdef bint prepare_sleep(Mm* mm, uint32_t nid, unsigned order, unsigned hidx) noexcept nogil:
    # prepare_kswapd_sleep()
    cdef Node* node = &mm.nodes[nid]
    if node.kswapd_failures < MAX_RECLAIM_RETRIES and not pgdat_balanced(mm, nid, order, hidx):
        return False
    mm.vm.lruvecs[nid].flags &= ~<uint32_t>(LRUVEC_CGROUP_CONGESTED | LRUVEC_NODE_CONGESTED)
    node.flags &= ~<uint32_t>(NODE_DIRTY | NODE_WRITEBACK)
    return True


cdef void kswapd_run(Mm* mm, uint32_t nid, unsigned cpu) noexcept nogil:
    # It was woken: balances until it may nap again.
    cdef Node* node = &mm.nodes[nid]
    cdef unsigned order = <unsigned>node.kswapd_order, hidx = <unsigned>node.kswapd_highest_zoneidx, did
    if mm.g.now_ns < node.kswapd_nap_until_ns:
        mm.vm.g.events[VE_KSWAPD_LOW_WMARK_HIT_QUICKLY] += 1
    while True:
        node.kswapd_wanted = 0
        node.kswapd_order = 0
        node.kswapd_highest_zoneidx = 0
        set_pgdat_percpu_threshold(mm, nid, True)
        node.kswapd_running = 1
        did = balance_pgdat(mm, nid, order, hidx, cpu)
        node.kswapd_running = 0
        set_pgdat_percpu_threshold(mm, nid, False)
        if prepare_sleep(mm, nid, did, hidx):
            break
        mm.vm.g.events[VE_KSWAPD_HIGH_WMARK_HIT_QUICKLY] += 1
        order = did
    node.kswapd_nap_until_ns = mm.g.now_ns + NAP_NS


cdef void run_kswapds(Mm* mm, unsigned cpu) noexcept nogil:
    cdef uint32_t nid
    for nid in range(mm.g.nr_nodes):
        if mm.nodes[nid].kswapd_wanted:
            kswapd_run(mm, nid, cpu)
    mm.vm.g.kswapd_wanted = 0
