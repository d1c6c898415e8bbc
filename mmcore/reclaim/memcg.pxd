# Memory control groups (mm/memcontrol.c, v6.12): who is charged for a page, and the statistics of a group. See memcg.pyx.
# A group's id is its index in the pool; 0 is the root, which is never charged. Limits are pages.

from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t
from mmcore.base.records cimport Mm, page_at
from mmcore.base.flags cimport PG_ORDER_MASK, PG_ORDER_SHIFT
from mmcore.base.vm_records cimport Cpu, Lruvec, Memcg, PoolInfo, VmGlobals
from mmcore.phys.buddy cimport zone_of
from mmcore.phys.lruvec_stat cimport lruvec_stat_mod, memcg_rstat_updated

cdef enum:
    MEMCG_CHARGE_BATCH = 64

cdef inline Memcg* memcg_at(Mm* mm, uint32_t id_) noexcept nogil:
    return &mm.vm.memcgs[id_]

# Id of the group above one (not of the root).
cdef inline uint32_t memcg_parent(Memcg* c) noexcept nogil:
    return c.parent - 1

# The group that is charged for a page; 0: none, or a machine without groups.
cdef inline uint32_t page_memcg(Mm* mm, uint32_t pfn) noexcept nogil:
    return mm.vm.memcg_of[pfn] if mm.vm.g.nr_memcgs else 0

cdef inline Lruvec* memcg_lruvec(Mm* mm, uint32_t id_, uint32_t node) noexcept nogil:
    return &mm.vm.lruvecs[id_ * mm.g.nr_nodes + node]

cdef inline Lruvec* folio_lruvec(Mm* mm, uint32_t pfn) noexcept nogil:
    return memcg_lruvec(mm, page_memcg(mm, pfn), mm.zones[zone_of(mm, pfn) - 1].node)

# The same where the lruvec is known (mod_lruvec_state).
cdef inline void mod_lruvec_state(Mm* mm, Lruvec* lv, unsigned item, int64_t n) noexcept nogil:
    mm.nodes[lv.node].vm_stat[item] += n
    if lv.memcg:
        lv.stat[item] += n
        memcg_rstat_updated(mm, lv.memcg, n)

# count_memcg_events(): of a group other than the root (a machine's own events are counted by the caller).
cdef inline void count_memcg_events(Mm* mm, uint32_t id_, unsigned item, uint64_t n) noexcept nogil:
    if id_:
        mm.vm.memcgs[id_].vm_events[item] += n
        memcg_rstat_updated(mm, id_, <int64_t>n)

# lruvec_page_state(): own and descendants', as of the last fold (exact where the machine has no lag).
cdef int64_t lruvec_page_state(Mm* mm, Lruvec* lv, unsigned item) noexcept nogil

# cgroup_rstat_flush of the whole tree; what reading memory.stat does (folds only when enough changed); what reclaim does (only if the
# last fold is more than twice the period old); and the fold every 2 s: due at memcg_fold_due_ns, called by run/ when time passes.
cdef void memcg_fold(Mm* mm) noexcept nogil
cdef bint memcg_needs_flush(Mm* mm, uint32_t id_) noexcept nogil
cdef void memcg_flush_stats(Mm* mm, uint32_t id_) noexcept nogil
cdef void memcg_flush_stats_ratelimited(Mm* mm) noexcept nogil
cdef void memcg_fold_due(Mm* mm) noexcept nogil

# One try to charge n pages: from the CPU's stock, else max(64, n), else n. 0, or id + 1 of the group whose `max` stands in the way
# (nothing is charged then). `force`: beyond every limit (PF_MEMALLOC and the like).
cdef uint32_t memcg_try_charge(Mm* mm, uint32_t id_, int64_t n, bint force, unsigned cpu) noexcept nogil
# The same for the loop of sys/charge: `batch` is the pages to try for, and what was charged (0: the stock had them).
cdef uint32_t memcg_try_charge_batch(Mm* mm, uint32_t id_, int64_t n, int64_t* batch, unsigned cpu) noexcept nogil
cdef void page_counter_charge(Mm* mm, uint32_t id_, int64_t n) noexcept nogil       # beyond every limit
cdef void refill_stock(Mm* mm, uint32_t id_, uint32_t n, unsigned cpu) noexcept nogil
cdef void memcg_uncharge(Mm* mm, uint32_t id_, int64_t n) noexcept nogil          # page_counter_uncharge up the tree (not into a stock)
cdef void drain_stock(Mm* mm, unsigned cpu) noexcept nogil                        # what the CPU's page and byte stocks hold goes back
cdef void drain_all_stock(Mm* mm, uint32_t id_) noexcept nogil                    # of all CPUs, those of the subtree of id_
cdef int64_t memcg_margin(Mm* mm, uint32_t id_) noexcept nogil
# A page leaves: uncharged (2^order pages), memcg_of cleared. For the freeing paths.
cdef void uncharge_page(Mm* mm, uint32_t pfn, unsigned order) noexcept nogil
# A page whose flags say that it is a page table (PG_owned) leaves as kernel memory; so does any page by the second.
cdef void uncharge_kernel_page(Mm* mm, uint32_t pfn) noexcept nogil
# The same for a row of pages that are freed together (uncharge_batch): one page_counter_uncharge for each group in a row.
cdef void uncharge_pages(Mm* mm, const uint32_t* pfns, int64_t n) noexcept nogil
# Kernel objects, bytes (obj_cgroup_charge): takes from the byte stock; returns the pages that must be charged first (0 or more; the caller
# charges them with kmem and then calls obj_refill with the rest), see memcg.pyx. Uncharging fills the stock, whole pages go back.
cdef int64_t obj_consume(Mm* mm, uint32_t id_, uint32_t size, unsigned cpu) noexcept nogil
cdef void obj_refill(Mm* mm, uint32_t id_, uint32_t bytes_, bint allow_uncharge, unsigned cpu) noexcept nogil
cdef void obj_account(Mm* mm, uint32_t id_, int64_t n, unsigned cpu) noexcept nogil     # statistics of slab bytes, through a cache as the kernel's
cdef void mod_memcg_kmem(Mm* mm, uint32_t id_, int64_t n) noexcept nogil                # pages of kernel memory, statistics only
cdef void memcg_charge_statistics(Mm* mm, uint32_t id_) noexcept nogil                  # one folio was charged
# __mem_cgroup_try_charge_swap: False, with memory.events max and fail, if some swap.max stands in the way; and back.
cdef bint memcg_charge_swap(Mm* mm, uint32_t id_, int64_t n) noexcept nogil
cdef void memcg_uncharge_swap(Mm* mm, uint32_t id_, int64_t n) noexcept nogil

# mem_cgroup_calculate_protection, and the tests below it. `target` (id) has none itself.
cdef void memcg_protection(Mm* mm, uint32_t target, uint32_t id_) noexcept nogil
cdef inline bint memcg_below_min(Mm* mm, uint32_t target, uint32_t id_) noexcept nogil:
    return id_ != 0 and id_ != target and mm.vm.memcgs[id_].emin >= mm.vm.memcgs[id_].usage
cdef inline bint memcg_below_low(Mm* mm, uint32_t target, uint32_t id_) noexcept nogil:
    return id_ != 0 and id_ != target and mm.vm.memcgs[id_].elow >= mm.vm.memcgs[id_].usage
# memory.events of a group and, hierarchically, of those above it.
cdef void memcg_event(Mm* mm, uint32_t id_, unsigned event) noexcept nogil
# The next group of the pre-order walk over the subtree of `root` behind `prev` (id + 1; 0: begin): id + 1, 0 at the end.
cdef uint32_t memcg_next(Mm* mm, uint32_t root, uint32_t prev) noexcept nogil
cdef bint memcg_is_descendant(Mm* mm, uint32_t id_, uint32_t root) noexcept nogil
# Life of a group: id, or 0 when there is no room; -errno.
cdef int64_t memcg_create(Mm* mm, uint32_t parent, uint32_t name) noexcept nogil
cdef int memcg_remove(Mm* mm, uint32_t id_) noexcept nogil      # rmdir: -EBUSY with tasks or children; freed when nothing is charged to it
# A removed group goes, and those above it that waited for it, once nothing is charged to it any more (uncharging sees to it).
cdef void memcg_release(Mm* mm, uint32_t id_) noexcept nogil
