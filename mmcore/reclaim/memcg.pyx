"""Memory control groups: counters of charged pages, stocks, protections, events and statistics of groups.

Models: page_counter, memcg_stock_pcp with its page and byte stock, drain_all_stock, mem_cgroup_margin, effective protection, memory.events,
memcg_rstat_updated, cgroup_rstat_flush as memory controllers see it, the life of a group (mm/memcontrol.c, mm/page_counter.c, v6.12; v2
hierarchy with memory_recursiveprot). What loops around a charge (reclaim, memory.high, OOM) is sys/charge.
Simplifies: updates that wait for a fold are counted once a group and not for each CPU (`nr_updates`; the same with one CPU); a remote
CPU's stock is drained at once instead of by its worker; a removed group keeps its kernel memory until that is freed (the kernel hands
it to the parent); what a CPU caches of slab statistics is kept with the group (`slab_pending`; the same with one CPU); the statistics of
the root are those of the nodes, kernel objects of groups count on the node of the CPU that allocates them.
Omits: v1 groups, sockets, zswap limits, local watermarks (memory.peak that is written to), cgroup writeback.

A fold is the kernel's flush of per-CPU changes up the tree: until then readers see the copies `folded` and `vm_folded`.
"""
from libc.string cimport memcpy, memset

from mmcore.base.errors cimport E_BUSY, E_INVAL, E_NOENT
from mmcore.base.flags cimport PG_owned
from mmcore.base.lists cimport list_init
from mmcore.base.pool cimport pool_give, pool_take
from mmcore.base.stat_items cimport NS_NR_SLAB_RECLAIMABLE, NR_VM_EVENTS, VE_PGPGIN, VE_PGPGOUT
from mmcore.base.vm_records cimport (
    LRU_HEADS_PER_NODE, MEMCG_DYING, MEMCG_EV_SWAP_FAIL, MEMCG_EV_SWAP_MAX, MEMCG_ONLINE, NR_LRUVEC_ITEMS, PAGE_COUNTER_MAX, POOL_LRUVECS,
    POOL_MEMCGS,
)

cdef enum:
    PAGE_BYTES = 4096
    PAGE_BITS = 12

cdef int64_t FLUSH_TIME_NS = 2000000000


# --- statistics ---------------------------------------------------------------------------------------------------------------------

cdef void mod_memcg_kmem(Mm* mm, uint32_t id_, int64_t n) noexcept nogil:
    # mod_memcg_state(MEMCG_KMEM)
    if id_:
        memcg_at(mm, id_).kmem += n
        memcg_rstat_updated(mm, id_, n)


cdef void memcg_charge_statistics(Mm* mm, uint32_t id_) noexcept nogil:
    count_memcg_events(mm, id_, VE_PGPGIN, 1)


cdef void fold_own(Mm* mm, uint32_t id_) noexcept nogil:
    # The folded copies of a group become its own live numbers; those of its descendants come on top.
    cdef Memcg* c = memcg_at(mm, id_)
    cdef Lruvec* lv
    cdef uint32_t node
    c.nr_updates = 0
    c.stats_updates = 0
    c.kmem_folded = c.kmem
    memcpy(c.vm_folded, c.vm_events, sizeof(c.vm_folded))
    for node in range(mm.g.nr_nodes):
        lv = memcg_lruvec(mm, id_, node)
        memcpy(lv.folded, lv.stat, sizeof(lv.folded))


cdef void fold_into(Mm* mm, uint32_t id_, uint32_t parent) noexcept nogil:
    cdef Memcg* c = memcg_at(mm, id_)
    cdef Memcg* p = memcg_at(mm, parent)
    cdef Lruvec* lv
    cdef Lruvec* plv
    cdef uint32_t node, k
    p.kmem_folded += c.kmem_folded
    for k in range(NR_VM_EVENTS):
        p.vm_folded[k] += c.vm_folded[k]
    for node in range(mm.g.nr_nodes):
        lv = memcg_lruvec(mm, id_, node)
        plv = memcg_lruvec(mm, parent, node)
        for k in range(NR_LRUVEC_ITEMS):
            plv.folded[k] += lv.folded[k]


cdef uint32_t deepest(Mm* mm, uint32_t id_) noexcept nogil:
    while memcg_at(mm, id_).first_child:
        id_ = memcg_at(mm, id_).first_child - 1
    return id_


cdef void fold_subtree(Mm* mm, uint32_t root) noexcept nogil:
    # Children before their parents.
    cdef uint32_t x = memcg_next(mm, root, 0)
    while x:
        fold_own(mm, x - 1)
        x = memcg_next(mm, root, x)
    x = deepest(mm, root)
    while x != root:
        fold_into(mm, x, memcg_parent(memcg_at(mm, x)))
        x = deepest(mm, memcg_at(mm, x).next_sibling - 1) if memcg_at(mm, x).next_sibling else memcg_parent(memcg_at(mm, x))


cdef void memcg_fold(Mm* mm) noexcept nogil:
    cdef uint32_t node
    fold_subtree(mm, 0)
    for node in range(mm.g.nr_nodes):
        memcpy(mm.vm.lruvecs[node].folded, mm.nodes[node].vm_stat, sizeof(mm.vm.lruvecs[node].folded))
    memcpy(mm.vm.memcgs[0].vm_folded, mm.vm.g.events, sizeof(mm.vm.memcgs[0].vm_folded))
    mm.vm.g.memcg_folded_ns = mm.g.now_ns


cdef bint memcg_needs_flush(Mm* mm, uint32_t id_) noexcept nogil:
    return memcg_at(mm, id_).stats_updates > <int64_t>MEMCG_CHARGE_BATCH * mm.g.nr_cpus


cdef void memcg_flush_stats(Mm* mm, uint32_t id_) noexcept nogil:
    if mm.vm.g.memcg_no_lag or memcg_needs_flush(mm, id_):
        if id_ == 0:
            memcg_fold(mm)
        else:
            fold_subtree(mm, id_)


cdef void memcg_flush_stats_ratelimited(Mm* mm) noexcept nogil:
    if mm.vm.g.nr_memcgs and mm.g.now_ns > mm.vm.g.memcg_folded_ns + 2 * FLUSH_TIME_NS:
        memcg_flush_stats(mm, 0)


cdef void memcg_fold_due(Mm* mm) noexcept nogil:
    cdef VmGlobals* g = mm.vm.g
    if g.nr_memcgs == 0 or mm.g.now_ns < g.memcg_fold_due_ns:
        return
    memcg_fold(mm)
    g.memcg_fold_due_ns += (mm.g.now_ns - g.memcg_fold_due_ns) // FLUSH_TIME_NS * FLUSH_TIME_NS + FLUSH_TIME_NS


cdef int64_t lruvec_page_state(Mm* mm, Lruvec* lv, unsigned item) noexcept nogil:
    cdef uint32_t x
    cdef int64_t sum_ = 0
    if mm.vm.g.nr_memcgs == 0:
        return mm.nodes[lv.node].vm_stat[item]
    if not mm.vm.g.memcg_no_lag:
        return lv.folded[item]
    if lv.memcg == 0:
        return mm.nodes[lv.node].vm_stat[item]
    x = memcg_next(mm, lv.memcg, 0)
    while x:
        sum_ += memcg_lruvec(mm, x - 1, lv.node).stat[item]
        x = memcg_next(mm, lv.memcg, x)
    return sum_


# --- page counters and stocks -------------------------------------------------------------------------------------------------------

cdef void page_counter_charge(Mm* mm, uint32_t id_, int64_t n) noexcept nogil:
    cdef Memcg* c
    while True:
        c = memcg_at(mm, id_)
        c.usage += n
        if c.usage > c.peak:
            c.peak = c.usage
        if id_ == 0:
            return
        id_ = memcg_parent(c)


cdef uint32_t page_counter_try_charge(Mm* mm, uint32_t id_, int64_t n) noexcept nogil:
    # 0, or id + 1 of the group that is full; levels below it keep the peak that they had for a moment.
    cdef Memcg* c
    cdef uint32_t x = id_, full
    while True:
        c = memcg_at(mm, x)
        if x and c.usage + n > c.max:
            break
        c.usage += n
        if c.usage > c.peak:
            c.peak = c.usage
        if x == 0:
            return 0
        x = memcg_parent(c)
    full = x
    x = id_
    while x != full:
        c = memcg_at(mm, x)
        c.usage -= n
        x = memcg_parent(c)
    return full + 1


cdef void memcg_uncharge(Mm* mm, uint32_t id_, int64_t n) noexcept nogil:
    cdef Memcg* c
    cdef uint32_t x = id_
    if n == 0:
        return
    while True:
        c = memcg_at(mm, x)
        c.usage -= n
        if x == 0:
            break
        x = memcg_parent(c)
    memcg_release(mm, id_)


cdef void drain_page_stock(Mm* mm, Cpu* p) noexcept nogil:
    cdef uint32_t id_ = p.stock_memcg, n = p.stock_nr
    p.stock_nr = 0
    p.stock_memcg = 0
    if n:
        memcg_uncharge(mm, id_, n)


cdef void refill_stock(Mm* mm, uint32_t id_, uint32_t n, unsigned cpu) noexcept nogil:
    cdef Cpu* p = &mm.vm.cpus[cpu]
    if id_ == 0 or memcg_at(mm, id_).flags != MEMCG_ONLINE:     # a removed group would never get it back
        memcg_uncharge(mm, id_, n)
        return
    if p.stock_memcg != id_:
        drain_page_stock(mm, p)
        p.stock_memcg = id_
    p.stock_nr += n
    if p.stock_nr > MEMCG_CHARGE_BATCH:
        drain_page_stock(mm, p)


cdef bint consume_stock(Mm* mm, uint32_t id_, int64_t n, unsigned cpu) noexcept nogil:
    cdef Cpu* p = &mm.vm.cpus[cpu]
    if n <= MEMCG_CHARGE_BATCH and p.stock_memcg == id_ and p.stock_nr >= n:
        p.stock_nr -= <uint32_t>n
        return True
    return False


cdef uint32_t memcg_try_charge_batch(Mm* mm, uint32_t id_, int64_t n, int64_t* batch, unsigned cpu) noexcept nogil:
    cdef uint32_t full
    while True:
        if consume_stock(mm, id_, n, cpu):
            batch[0] = 0
            return 0
        full = page_counter_try_charge(mm, id_, batch[0])
        if full == 0:
            if batch[0] > n:
                refill_stock(mm, id_, <uint32_t>(batch[0] - n), cpu)
            return 0
        if batch[0] <= n:
            return full
        batch[0] = n


cdef uint32_t memcg_try_charge(Mm* mm, uint32_t id_, int64_t n, bint force, unsigned cpu) noexcept nogil:
    cdef int64_t batch = n if n > MEMCG_CHARGE_BATCH else MEMCG_CHARGE_BATCH
    cdef uint32_t full
    if id_ == 0 or n <= 0:
        return 0
    full = memcg_try_charge_batch(mm, id_, n, &batch, cpu)
    if full and force:
        page_counter_charge(mm, id_, n)
        return 0
    return full


cdef void flush_slab_pending(Mm* mm, uint32_t id_, uint32_t node, int64_t n) noexcept nogil:
    # memcg_state_val_in_pages(): a change in bytes counts as pages, rounded so that it is never none
    memcg_lruvec(mm, id_, node).stat[NS_NR_SLAB_RECLAIMABLE] += n
    if n > 0:
        memcg_rstat_updated(mm, id_, n >> PAGE_BITS if n >= PAGE_BYTES else 1)
    elif n < 0:
        memcg_rstat_updated(mm, id_, (-n + PAGE_BYTES - 1) >> PAGE_BITS)


cdef void drain_obj_stock(Mm* mm, unsigned cpu) noexcept nogil:
    cdef Cpu* p = &mm.vm.cpus[cpu]
    cdef uint32_t id_ = p.obj_memcg, bytes_ = p.obj_bytes, pages
    cdef Memcg* c = memcg_at(mm, id_)
    cdef int64_t pending
    if id_ == 0:
        return
    p.obj_memcg = 0
    p.obj_bytes = 0
    pending = c.slab_pending
    c.slab_pending = 0
    if pending:
        flush_slab_pending(mm, id_, mm.cpu_node[cpu], pending)
    pages = bytes_ >> PAGE_BITS
    c.obj_left += bytes_ & (PAGE_BYTES - 1)
    if c.flags == MEMCG_DYING:      # obj_cgroup_release(): whole pages of what is left over go too
        pages += c.obj_left >> PAGE_BITS
        c.obj_left &= PAGE_BYTES - 1
    if pages:
        mod_memcg_kmem(mm, id_, -<int64_t>pages)
        refill_stock(mm, id_, pages, cpu)


cdef void drain_stock(Mm* mm, unsigned cpu) noexcept nogil:
    drain_obj_stock(mm, cpu)
    drain_page_stock(mm, &mm.vm.cpus[cpu])


cdef void drain_all_stock(Mm* mm, uint32_t id_) noexcept nogil:
    cdef uint32_t cpu
    cdef Cpu* p
    for cpu in range(mm.g.nr_cpus):
        p = &mm.vm.cpus[cpu]
        if (p.stock_memcg and p.stock_nr and memcg_is_descendant(mm, p.stock_memcg, id_)) or (
                p.obj_memcg and memcg_is_descendant(mm, p.obj_memcg, id_)):
            drain_stock(mm, cpu)


cdef int64_t memcg_margin(Mm* mm, uint32_t id_) noexcept nogil:
    cdef Memcg* c = memcg_at(mm, id_)
    return c.max - c.usage if c.usage < c.max else 0


# --- pages and objects --------------------------------------------------------------------------------------------------------------

cdef void uncharge_page(Mm* mm, uint32_t pfn, unsigned order) noexcept nogil:
    cdef uint32_t id_ = page_memcg(mm, pfn)
    cdef int64_t n = <int64_t>1 << order
    if id_ == 0:
        return
    mm.vm.memcg_of[pfn] = 0
    if page_at(mm, pfn).flags & PG_owned == PG_owned:
        mod_memcg_kmem(mm, id_, -n)
    else:
        count_memcg_events(mm, id_, VE_PGPGOUT, 1)
    memcg_uncharge(mm, id_, n)


cdef void uncharge_kernel_page(Mm* mm, uint32_t pfn) noexcept nogil:
    cdef uint32_t id_ = page_memcg(mm, pfn)
    if id_ == 0:
        return
    mm.vm.memcg_of[pfn] = 0
    mod_memcg_kmem(mm, id_, -1)
    memcg_uncharge(mm, id_, 1)


cdef void uncharge_batch(Mm* mm, uint32_t id_, int64_t memory, int64_t kmem, int64_t folios) noexcept nogil:
    if kmem:
        mod_memcg_kmem(mm, id_, -kmem)
    if folios:
        count_memcg_events(mm, id_, VE_PGPGOUT, <uint64_t>folios)
    memcg_uncharge(mm, id_, memory)


cdef void uncharge_pages(Mm* mm, const uint32_t* pfns, int64_t n) noexcept nogil:
    cdef int64_t i, memory = 0, kmem = 0, folios = 0, pages
    cdef uint32_t id_, last = 0, flags
    if mm.vm.g.nr_memcgs == 0:
        return
    for i in range(n):
        id_ = mm.vm.memcg_of[pfns[i]]
        if id_ == 0:
            continue
        mm.vm.memcg_of[pfns[i]] = 0
        if id_ != last:
            if last:
                uncharge_batch(mm, last, memory, kmem, folios)
            memory = kmem = folios = 0
            last = id_
        flags = page_at(mm, pfns[i]).flags
        pages = <int64_t>1 << (flags >> PG_ORDER_SHIFT & PG_ORDER_MASK)
        memory += pages
        if flags & PG_owned == PG_owned:
            kmem += pages
        else:
            folios += 1
    if last:
        uncharge_batch(mm, last, memory, kmem, folios)


cdef int64_t obj_consume(Mm* mm, uint32_t id_, uint32_t size, unsigned cpu) noexcept nogil:
    cdef Cpu* p = &mm.vm.cpus[cpu]
    if id_ == 0:
        return 0
    if p.obj_memcg == id_ and p.obj_bytes >= size:
        p.obj_bytes -= size
        return 0
    return (size + PAGE_BYTES - 1) >> PAGE_BITS


cdef void obj_refill(Mm* mm, uint32_t id_, uint32_t bytes_, bint allow_uncharge, unsigned cpu) noexcept nogil:
    cdef Cpu* p = &mm.vm.cpus[cpu]
    cdef uint32_t pages
    if id_ == 0:
        return
    if p.obj_memcg != id_:
        drain_obj_stock(mm, cpu)
        p.obj_memcg = id_
        p.obj_bytes = memcg_at(mm, id_).obj_left
        memcg_at(mm, id_).obj_left = 0
        allow_uncharge = True
    p.obj_bytes += bytes_
    if memcg_at(mm, id_).flags == MEMCG_DYING:
        drain_obj_stock(mm, cpu)
    elif allow_uncharge and p.obj_bytes > PAGE_BYTES:
        pages = p.obj_bytes >> PAGE_BITS
        p.obj_bytes &= PAGE_BYTES - 1
        mod_memcg_kmem(mm, id_, -<int64_t>pages)
        refill_stock(mm, id_, pages, cpu)


cdef void obj_account(Mm* mm, uint32_t id_, int64_t n, unsigned cpu) noexcept nogil:
    # mod_objcg_state(): reclaimable slab bytes; the statistics hear of them when more than a page has come together.
    cdef Memcg* c = memcg_at(mm, id_)
    cdef Cpu* p = &mm.vm.cpus[cpu]
    if id_ == 0:
        return
    if p.obj_memcg != id_:
        drain_obj_stock(mm, cpu)
        p.obj_memcg = id_
        p.obj_bytes = c.obj_left
        c.obj_left = 0
    if c.slab_pending == 0:
        c.slab_pending = n
        n = 0
    else:
        c.slab_pending += n
        n = 0
        if c.slab_pending > PAGE_BYTES or c.slab_pending < -PAGE_BYTES:
            n = c.slab_pending
            c.slab_pending = 0
    if n:
        flush_slab_pending(mm, id_, mm.cpu_node[cpu], n)


# --- swap ---------------------------------------------------------------------------------------------------------------------------

cdef bint memcg_charge_swap(Mm* mm, uint32_t id_, int64_t n) noexcept nogil:
    cdef Memcg* c
    cdef uint32_t x = id_, full
    if id_ == 0:
        return True
    while True:
        c = memcg_at(mm, x)
        if x and c.swap_usage + n > c.swap_max:
            break
        c.swap_usage += n
        if c.swap_usage > c.swap_peak:
            c.swap_peak = c.swap_usage
        if x == 0:
            memcg_rstat_updated(mm, id_, n)
            return True
        x = memcg_parent(c)
    full = x
    x = id_
    while x != full:
        c = memcg_at(mm, x)
        c.swap_usage -= n
        x = memcg_parent(c)
    memcg_event(mm, full, MEMCG_EV_SWAP_MAX)
    memcg_event(mm, full, MEMCG_EV_SWAP_FAIL)
    return False


cdef void memcg_uncharge_swap(Mm* mm, uint32_t id_, int64_t n) noexcept nogil:
    cdef Memcg* c
    cdef uint32_t x = id_
    if id_ == 0:
        return
    memcg_rstat_updated(mm, id_, n)
    while True:
        c = memcg_at(mm, x)
        c.swap_usage -= n
        if x == 0:
            break
        x = memcg_parent(c)
    memcg_release(mm, id_)


# --- protection and events ----------------------------------------------------------------------------------------------------------

cdef int64_t effective_protection(int64_t usage, int64_t parent_usage, int64_t setting, int64_t parent_effective, int64_t siblings,
                                  bint recursive) noexcept nogil:
    cdef int64_t own = usage if usage < setting else setting, e
    if siblings > parent_effective:
        return <int64_t>(<uint64_t>own * <uint64_t>parent_effective // <uint64_t>siblings)
    e = own
    if recursive and parent_effective > siblings and parent_usage > siblings and usage > own:
        # what the parent has and its children do not claim goes to them by what they use beyond their own protection
        e += <int64_t>(<uint64_t>(parent_effective - siblings) * <uint64_t>(usage - own) // <uint64_t>(parent_usage - siblings))
    return e


cdef void memcg_protection(Mm* mm, uint32_t target, uint32_t id_) noexcept nogil:
    cdef Memcg* c = memcg_at(mm, id_)
    cdef Memcg* p
    cdef Memcg* s
    cdef uint32_t parent, x
    cdef int64_t low_ = 0, min_ = 0
    cdef bint recursive = not mm.vm.g.memcg_recursiveprot_off
    if id_ == target or id_ == 0 or c.usage == 0:
        return
    parent = memcg_parent(c)
    if parent == target:
        c.emin = c.min_
        c.elow = c.low
        return
    p = memcg_at(mm, parent)
    x = p.first_child
    while x:
        s = memcg_at(mm, x - 1)
        min_ += s.usage if s.usage < s.min_ else s.min_
        low_ += s.usage if s.usage < s.low else s.low
        x = s.next_sibling
    c.emin = effective_protection(c.usage, p.usage, c.min_, p.emin, min_, recursive)
    c.elow = effective_protection(c.usage, p.usage, c.low, p.elow, low_, recursive)


cdef void memcg_event(Mm* mm, uint32_t id_, unsigned event) noexcept nogil:
    cdef Memcg* c = memcg_at(mm, id_)
    c.events_local[event] += 1
    while True:
        c.events[event] += 1
        if id_ == 0:
            return
        id_ = memcg_parent(c)
        if id_ == 0:
            return
        c = memcg_at(mm, id_)


# --- tree ---------------------------------------------------------------------------------------------------------------------------

cdef uint32_t memcg_next(Mm* mm, uint32_t root, uint32_t prev) noexcept nogil:
    cdef uint32_t id_
    if prev == 0:
        return root + 1
    if memcg_at(mm, prev - 1).first_child:
        return memcg_at(mm, prev - 1).first_child
    id_ = prev - 1
    while id_ != root:
        if memcg_at(mm, id_).next_sibling:
            return memcg_at(mm, id_).next_sibling
        id_ = memcg_parent(memcg_at(mm, id_))
    return 0


cdef bint memcg_is_descendant(Mm* mm, uint32_t id_, uint32_t root) noexcept nogil:
    while id_ != root:
        if id_ == 0:
            return False
        id_ = memcg_parent(memcg_at(mm, id_))
    return True


cdef int64_t memcg_create(Mm* mm, uint32_t parent, uint32_t name) noexcept nogil:
    cdef VmGlobals* g = mm.vm.g
    cdef PoolInfo* lruvecs = &mm.vm.pools[POOL_LRUVECS]
    cdef Memcg* p
    cdef Memcg* c
    cdef Lruvec* lv
    cdef uint32_t x, id_, node, k
    if parent >= mm.vm.pools[POOL_MEMCGS].used or memcg_at(mm, parent).flags != MEMCG_ONLINE:
        return -E_NOENT
    if g.nr_memcgs >= g.max_memcgs or lruvecs.capacity < (g.max_memcgs + 1) * mm.g.nr_nodes:
        return 0
    x = pool_take(&mm.vm.pools[POOL_MEMCGS], mm.vm.memcgs, sizeof(Memcg))
    if x == 0:
        return 0
    id_ = x - 1
    c = memcg_at(mm, id_)
    p = memcg_at(mm, parent)
    c.flags = MEMCG_ONLINE
    c.name = name
    c.max = c.high = c.swap_max = c.swap_high = PAGE_COUNTER_MAX
    c.parent = parent + 1
    c.prev_sibling = p.last_child
    if p.last_child:
        memcg_at(mm, p.last_child - 1).next_sibling = x
    else:
        p.first_child = x
    p.last_child = x
    if lruvecs.used < (id_ + 1) * mm.g.nr_nodes:
        lruvecs.used = (id_ + 1) * mm.g.nr_nodes
    lruvecs.live += mm.g.nr_nodes
    for node in range(mm.g.nr_nodes):
        lv = memcg_lruvec(mm, id_, node)
        lv.head = g.memcg_heads + ((id_ - 1) * mm.g.nr_nodes + node) * LRU_HEADS_PER_NODE
        lv.node = node
        lv.memcg = id_
        for k in range(LRU_HEADS_PER_NODE):
            list_init(mm.link, lv.head + k)
    if g.nr_memcgs == 0:
        # the work that folds begins with the first group here, in the kernel at boot
        g.nr_memcgs = 1
        memcg_fold(mm)
        if mm.g.now_ns >= g.memcg_fold_due_ns:
            g.memcg_fold_due_ns = mm.g.now_ns + FLUSH_TIME_NS
    else:
        g.nr_memcgs += 1
    return id_


cdef void release(Mm* mm, uint32_t id_) noexcept nogil:
    # css_release: out of the tree. What it counted stays with its parent; nothing but the CPUs may still name it.
    cdef Memcg* c = memcg_at(mm, id_)
    cdef uint32_t parent = memcg_parent(c), node, k, cpu
    cdef Memcg* p = memcg_at(mm, parent)
    cdef Lruvec* lv
    for k in range(NR_VM_EVENTS):
        p.vm_events[k] += c.vm_events[k]
    for cpu in range(mm.g.nr_cpus):
        if mm.vm.cpus[cpu].memcg == id_:
            mm.vm.cpus[cpu].memcg = 0
        if mm.vm.cpus[cpu].stock_memcg == id_:
            mm.vm.cpus[cpu].stock_memcg = 0
        if mm.vm.cpus[cpu].obj_memcg == id_:
            mm.vm.cpus[cpu].obj_memcg = 0
    for node in range(mm.g.nr_nodes):
        lv = memcg_lruvec(mm, id_, node)
        if parent:
            for k in range(NR_LRUVEC_ITEMS):
                memcg_lruvec(mm, parent, node).stat[k] += lv.stat[k]
        for k in range(LRU_HEADS_PER_NODE):
            mm.link[lv.head + k].next = 0
            mm.link[lv.head + k].prev = 0
        memset(lv, 0, sizeof(Lruvec))
    # invalidate_reclaim_iterators(): a walk whose position goes away starts anew
    for node in range(mm.vm.pools[POOL_LRUVECS].used):
        if mm.vm.lruvecs[node].iter == id_ + 1:
            mm.vm.lruvecs[node].iter = 0
    if c.prev_sibling:
        memcg_at(mm, c.prev_sibling - 1).next_sibling = c.next_sibling
    else:
        p.first_child = c.next_sibling
    if c.next_sibling:
        memcg_at(mm, c.next_sibling - 1).prev_sibling = c.prev_sibling
    else:
        p.last_child = c.prev_sibling
    memset(c, 0, sizeof(Memcg))
    pool_give(&mm.vm.pools[POOL_MEMCGS], mm.vm.memcgs, sizeof(Memcg), id_ + 1)
    mm.vm.pools[POOL_LRUVECS].live -= mm.g.nr_nodes
    mm.vm.g.nr_memcgs -= 1


cdef void memcg_release(Mm* mm, uint32_t id_) noexcept nogil:
    cdef uint32_t parent
    cdef Memcg* c
    while id_:
        c = memcg_at(mm, id_)
        if c.flags != MEMCG_DYING or c.usage or c.swap_usage or c.first_child:
            return
        parent = memcg_parent(c)
        release(mm, id_)
        id_ = parent


cdef int memcg_remove(Mm* mm, uint32_t id_) noexcept nogil:
    cdef Memcg* c
    cdef uint32_t x
    if id_ == 0:
        return -E_INVAL
    if id_ >= mm.vm.pools[POOL_MEMCGS].used or memcg_at(mm, id_).flags != MEMCG_ONLINE:
        return -E_NOENT
    c = memcg_at(mm, id_)
    if c.nr_tasks:
        return -E_BUSY
    x = c.first_child
    while x:
        if memcg_at(mm, x - 1).flags == MEMCG_ONLINE:
            return -E_BUSY
        x = memcg_at(mm, x - 1).next_sibling
    c.min_ = 0
    c.low = 0
    c.flags = MEMCG_DYING
    drain_all_stock(mm, id_)
    if memcg_at(mm, id_).flags == MEMCG_DYING:
        memcg_release(mm, id_)
    return 0
