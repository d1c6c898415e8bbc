# Statistics that a page's group shares with its node (__lruvec_stat_mod_folio, mm/memcontrol.c). Here because every room that maps, unmaps or
# frees pages counts them; what is made of them is in reclaim/memcg.

from libc.stdint cimport int64_t, uint32_t, uint64_t
from mmcore.base.records cimport Mm
from mmcore.base.vm_records cimport Lruvec, Memcg
from mmcore.phys.buddy cimport zone_of

cdef enum:
    MEMCG_UPDATE_BATCH = 64         # MEMCG_CHARGE_BATCH

# memcg_rstat_updated(): a change of `n` in the statistics of a group (not the root). Readers of memory.stat ask how much changed.
cdef inline void memcg_rstat_updated(Mm* mm, uint32_t id_, int64_t n) noexcept nogil:
    cdef Memcg* g
    cdef int64_t threshold = <int64_t>MEMCG_UPDATE_BATCH * mm.g.nr_cpus
    if n < 0:
        n = -n
    while n:
        g = &mm.vm.memcgs[id_]
        g.nr_updates += <uint32_t>n
        if g.nr_updates >= MEMCG_UPDATE_BATCH:
            if g.stats_updates <= threshold:        # one that is due already need not count on
                g.stats_updates += g.nr_updates
            g.nr_updates = 0
        if id_ == 0:
            return
        id_ = g.parent - 1

# A node counter (NS_*), and that of the group that the page is charged to.
cdef inline void lruvec_stat_mod(Mm* mm, uint32_t pfn, unsigned item, int64_t n) noexcept nogil:
    cdef uint32_t node = mm.zones[zone_of(mm, pfn) - 1].node, id_
    mm.nodes[node].vm_stat[item] += n
    if mm.vm.g.nr_memcgs:
        id_ = mm.vm.memcg_of[pfn]
        if id_:
            mm.vm.lruvecs[id_ * mm.g.nr_nodes + node].stat[item] += n
            memcg_rstat_updated(mm, id_, n)
