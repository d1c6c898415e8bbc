"""Charging to memory control groups: the loop around a full group, memory.high, and writes to a group's files.

Models: try_charge_memcg, mem_cgroup_charge, obj_cgroup_charge, mem_cgroup_handle_over_high, memory_max_write, memory_high_write,
memory_reclaim (mm/memcontrol.c, v6.12). Simplifies: a pause for memory.high is time that passes for the whole machine; a group out of
memory fails the charge where the kernel would kill one of its tasks and try again. Omits: asynchronous reclaim for interrupts
(high_work), reparenting of a removed group's kernel objects.
"""
from libc.stdint cimport uint16_t, uint64_t

from mmcore.alloc.page_alloc cimport alloc_pages_node
from mmcore.alloc.page_free cimport free_pages_order
from mmcore.base.errors cimport E_AGAIN, E_INVAL, E_NOENT, E_NOMEM
from mmcore.base.gfp cimport GFP_DIRECT_RECLAIM_BIT, GFP_FS_BIT, GFP_HIGH_BIT, GFP_IO_BIT, GFP_KSWAPD_RECLAIM_BIT, GFP_NOFAIL_BIT
from mmcore.base.gfp cimport GFP_NORETRY_BIT, GFP_RETRY_MAYFAIL_BIT
from mmcore.base.vm_records cimport (
    Cpu, MEMCG_DYING, MEMCG_EV_HIGH, MEMCG_EV_MAX, MEMCG_EV_OOM, MEMCG_EV_SWAP_HIGH, MEMCG_ONLINE, Memcg, PAGE_COUNTER_MAX, POOL_MEMCGS,
)
from mmcore.reclaim.lru cimport lru_add_drain
from mmcore.reclaim.memcg cimport (
    MEMCG_CHARGE_BATCH, drain_all_stock, memcg_at, memcg_charge_statistics, memcg_event, memcg_margin, memcg_parent, memcg_try_charge_batch,
    memcg_uncharge, mod_memcg_kmem, obj_account, obj_consume, obj_refill, page_counter_charge,
)
from mmcore.reclaim.scan_control cimport SWAP_CLUSTER_MAX
from mmcore.reclaim.vmscan cimport MAX_RECLAIM_RETRIES, MEMCG_RECLAIM_MAY_SWAP, MEMCG_RECLAIM_PROACTIVE, try_to_free_mem_cgroup_pages
from mmcore.vm.vma cimport as_at

cdef enum:
    GFP_KERNEL = GFP_DIRECT_RECLAIM_BIT | GFP_KSWAPD_RECLAIM_BIT | GFP_IO_BIT | GFP_FS_BIT
    COSTLY_PAGES = 8                # 1 << PAGE_ALLOC_COSTLY_ORDER
    HZ = 250
    TICK_NS = 4000000
    MAX_HIGH_DELAY = 2 * HZ         # ticks


cdef int try_charge(Mm* mm, uint32_t id_, int64_t n, unsigned gfp, unsigned cpu) noexcept nogil:
    cdef int64_t batch = n if n > MEMCG_CHARGE_BATCH else MEMCG_CHARGE_BATCH, freed
    cdef uint32_t full, x
    cdef int retries = MAX_RECLAIM_RETRIES
    cdef bint drained = False, raised = False
    cdef Memcg* c
    cdef Cpu* p = &mm.vm.cpus[cpu]
    if id_ == 0:
        return 0
    while True:
        # after the first failure `batch` is n: what is charged next is what is needed
        full = memcg_try_charge_batch(mm, id_, n, &batch, cpu)
        if full == 0:
            break
        if not gfp & GFP_DIRECT_RECLAIM_BIT:
            return refused(mm, id_, full - 1, n, gfp, raised)
        memcg_event(mm, full - 1, MEMCG_EV_MAX)
        raised = True
        freed = try_to_free_mem_cgroup_pages(mm, full - 1, n, gfp, MEMCG_RECLAIM_MAY_SWAP, -1, cpu)
        if memcg_margin(mm, full - 1) >= n:
            continue
        if not drained:
            drain_all_stock(mm, full - 1)
            drained = True
            continue
        if gfp & GFP_NORETRY_BIT:
            return refused(mm, id_, full - 1, n, gfp, raised)
        # a little progress is enough for a small request: someone else may have taken what was freed
        if freed and n <= COSTLY_PAGES:
            continue
        if retries:
            retries -= 1
            continue
        if not gfp & GFP_RETRY_MAYFAIL_BIT and n <= COSTLY_PAGES:
            memcg_event(mm, full - 1, MEMCG_EV_OOM)
        return refused(mm, id_, full - 1, n, gfp, raised)
    if batch == 0:      # from the stock: the limits were looked at when that was filled
        return 0
    x = id_
    while x:
        c = memcg_at(mm, x)
        if c.usage > c.high or c.swap_usage > c.swap_high:
            p.over_high += <uint32_t>batch
            break
        x = memcg_parent(c)
    if p.over_high > MEMCG_CHARGE_BATCH and gfp & GFP_DIRECT_RECLAIM_BIT:
        over_high(mm, gfp, cpu)
    return 0


cdef int refused(Mm* mm, uint32_t id_, uint32_t full, int64_t n, unsigned gfp, bint raised) noexcept nogil:
    # What must not fail goes beyond the limit.
    if not gfp & (GFP_NOFAIL_BIT | GFP_HIGH_BIT):
        return -E_NOMEM
    if not raised:
        memcg_event(mm, full, MEMCG_EV_MAX)
    page_counter_charge(mm, id_, n)
    return 0


cdef int charge_folio(Mm* mm, uint32_t pfn, unsigned order, uint32_t id_, unsigned gfp, unsigned cpu) noexcept nogil:
    cdef int rc
    if id_ == 0:
        return 0
    rc = try_charge(mm, id_, <int64_t>1 << order, gfp, cpu)
    if rc == 0:
        mm.vm.memcg_of[pfn] = <uint16_t>id_
        memcg_charge_statistics(mm, id_)
    return rc


cdef int64_t alloc_charged(Mm* mm, unsigned gfp, unsigned order, uint32_t id_, unsigned cpu) noexcept nogil:
    cdef int64_t pfn = alloc_pages_node(mm, gfp, order, cpu, -1, 0)
    if id_ and pfn >= 0 and charge_folio(mm, <uint32_t>pfn, order, id_, gfp, cpu) < 0:
        free_pages_order(mm, <uint32_t>pfn, order, cpu)
        return -E_NOMEM
    return pfn


cdef int charge_kernel_page(Mm* mm, uint32_t pfn, uint32_t id_, unsigned gfp, unsigned cpu) noexcept nogil:
    cdef int rc
    if id_ == 0:
        return 0
    rc = try_charge(mm, id_, 1, gfp, cpu)
    if rc == 0:
        mod_memcg_kmem(mm, id_, 1)
        mm.vm.memcg_of[pfn] = <uint16_t>id_
    return rc


cdef int64_t charge_outside(Mm* mm, uint32_t id_, int64_t n, unsigned gfp, unsigned cpu) noexcept nogil:
    cdef Memcg* c = memcg_at(mm, id_)
    cdef int64_t done = 0
    if id_ == 0:
        return 0
    if n < 0:
        if -n > c.nr_outside:
            n = -c.nr_outside
        c.nr_outside += n
        mod_memcg_kmem(mm, id_, n)
        memcg_uncharge(mm, id_, -n)
        return n
    while done < n:
        if try_charge(mm, id_, 1, gfp, cpu) < 0:
            return done if done else -E_NOMEM
        mod_memcg_kmem(mm, id_, 1)
        c.nr_outside += 1
        done += 1
    return done


cdef int charge_object(Mm* mm, uint32_t id_, uint32_t bytes_, unsigned gfp, unsigned cpu) noexcept nogil:
    cdef int64_t pages
    cdef int rc
    if id_ == 0:
        return 0
    pages = obj_consume(mm, id_, bytes_, cpu)
    if pages:
        rc = try_charge(mm, id_, pages, gfp, cpu)
        if rc < 0:
            return rc
        mod_memcg_kmem(mm, id_, pages)
        if (pages << 12) > bytes_:
            obj_refill(mm, id_, <uint32_t>((pages << 12) - bytes_), False, cpu)
    obj_account(mm, id_, bytes_, cpu)
    return 0


cdef void uncharge_object(Mm* mm, uint32_t id_, uint32_t bytes_, unsigned cpu) noexcept nogil:
    if id_ == 0:
        return
    if memcg_at(mm, id_).flags == MEMCG_DYING:      # it may be gone afterwards
        obj_account(mm, id_, -<int64_t>bytes_, cpu)
        obj_refill(mm, id_, bytes_, True, cpu)
    else:
        obj_refill(mm, id_, bytes_, True, cpu)
        obj_account(mm, id_, -<int64_t>bytes_, cpu)


# --- memory.high --------------------------------------------------------------------------------------------------------------------

cdef uint64_t overage(int64_t usage, int64_t high) noexcept nogil:
    # By how much a level is above its limit, in parts of 2^20.
    if usage <= high:
        return 0
    if high < 1:
        high = 1
    return (<uint64_t>(usage - high) << 20) // <uint64_t>high


cdef int64_t delay_of(uint64_t o, int64_t n) noexcept nogil:
    cdef uint64_t ticks
    if o >= <uint64_t>1 << 28:      # far beyond the longest pause; its square would not fit
        return MAX_HIGH_DELAY
    ticks = (o * o * HZ) >> 34
    ticks = ticks * <uint64_t>n // MEMCG_CHARGE_BATCH
    return <int64_t>ticks if ticks < MAX_HIGH_DELAY else MAX_HIGH_DELAY


cdef int64_t high_delay(Mm* mm, uint32_t id_, int64_t n) noexcept nogil:
    cdef uint64_t o, memory = 0, swap = 0
    cdef uint32_t x = id_
    cdef Memcg* c
    cdef int64_t ticks
    while x:
        c = memcg_at(mm, x)
        o = overage(c.usage, c.high)
        if o > memory:
            memory = o
        o = overage(c.swap_usage, c.swap_high)
        if o:
            memcg_event(mm, x, MEMCG_EV_SWAP_HIGH)
        if o > swap:
            swap = o
        x = memcg_parent(c)
    ticks = delay_of(memory, n) + delay_of(swap, n)
    return ticks if ticks < MAX_HIGH_DELAY else MAX_HIGH_DELAY


cdef int64_t reclaim_high(Mm* mm, uint32_t id_, int64_t n, unsigned gfp, unsigned cpu) noexcept nogil:
    cdef int64_t freed = 0
    cdef uint32_t x = id_
    while x:
        if memcg_at(mm, x).usage > memcg_at(mm, x).high:
            memcg_event(mm, x, MEMCG_EV_HIGH)
            freed += try_to_free_mem_cgroup_pages(mm, x, n, gfp, MEMCG_RECLAIM_MAY_SWAP, -1, cpu)
        x = memcg_parent(memcg_at(mm, x))
    return freed


cdef void over_high(Mm* mm, unsigned gfp, unsigned cpu) noexcept nogil:
    cdef Cpu* p = &mm.vm.cpus[cpu]
    cdef int64_t n = p.over_high, freed, ticks
    cdef int retries = MAX_RECLAIM_RETRIES
    cdef bint again = False
    if n == 0:
        return
    p.over_high = 0
    while True:
        freed = reclaim_high(mm, p.memcg, SWAP_CLUSTER_MAX if again else n, gfp, cpu)
        ticks = high_delay(mm, p.memcg, n)
        if ticks <= HZ // 100:
            return
        if freed == 0:
            if retries == 0:
                break
            retries -= 1
        again = True
    mm.g.now_ns += ticks * TICK_NS


cdef void handle_over_high(Mm* mm, unsigned cpu) noexcept nogil:
    if mm.vm.cpus[cpu].over_high:
        over_high(mm, GFP_KERNEL, cpu)


# --- files of a group ---------------------------------------------------------------------------------------------------------------

cdef bint memcg_online(Mm* mm, uint32_t id_) noexcept nogil:
    return id_ < mm.vm.pools[POOL_MEMCGS].used and memcg_at(mm, id_).flags == MEMCG_ONLINE


cdef void write_max(Mm* mm, uint32_t id_, int64_t pages, unsigned cpu) noexcept nogil:
    cdef Memcg* c = memcg_at(mm, id_)
    cdef int retries = MAX_RECLAIM_RETRIES
    cdef bint drained = False
    c.max = pages
    while c.usage > pages:
        if not drained:
            drain_all_stock(mm, id_)
            drained = True
        elif retries == 0:
            memcg_event(mm, id_, MEMCG_EV_OOM)
            return
        elif try_to_free_mem_cgroup_pages(mm, id_, c.usage - pages, GFP_KERNEL, MEMCG_RECLAIM_MAY_SWAP, -1, cpu) == 0:
            retries -= 1


cdef void write_high(Mm* mm, uint32_t id_, int64_t pages, unsigned cpu) noexcept nogil:
    cdef Memcg* c = memcg_at(mm, id_)
    cdef int retries = MAX_RECLAIM_RETRIES
    cdef bint drained = False
    c.high = pages
    while c.usage > pages:
        if not drained:
            drain_all_stock(mm, id_)
            drained = True
        elif try_to_free_mem_cgroup_pages(mm, id_, c.usage - pages, GFP_KERNEL, MEMCG_RECLAIM_MAY_SWAP, -1, cpu) == 0:
            if retries == 0:
                return
            retries -= 1


cdef int memcg_write(Mm* mm, uint32_t id_, unsigned which, int64_t pages, unsigned cpu) noexcept nogil:
    if id_ == 0 or not memcg_online(mm, id_):
        return -E_NOENT
    if pages < 0 or which > MEMCG_SWAP_MAX:
        return -E_INVAL
    if pages > PAGE_COUNTER_MAX:
        pages = PAGE_COUNTER_MAX
    if which == MEMCG_MAX:
        write_max(mm, id_, pages, cpu)
    elif which == MEMCG_HIGH:
        write_high(mm, id_, pages, cpu)
    elif which == MEMCG_LOW:
        memcg_at(mm, id_).low = pages
    elif which == MEMCG_MIN:
        memcg_at(mm, id_).min_ = pages
    else:
        memcg_at(mm, id_).swap_max = pages
    return 0


cdef int64_t memcg_reclaim(Mm* mm, uint32_t id_, int64_t pages, int swappiness, unsigned cpu) noexcept nogil:
    cdef int64_t done = 0, freed
    cdef int retries = MAX_RECLAIM_RETRIES
    cdef uint32_t k
    if not memcg_online(mm, id_):
        return -E_NOENT
    while done < pages:
        if retries == 0:        # the last try: what waits in batches could be freed too
            for k in range(mm.g.nr_cpus):
                lru_add_drain(mm, k)
        freed = try_to_free_mem_cgroup_pages(
            mm, id_, (pages - done) // 4, GFP_KERNEL, MEMCG_RECLAIM_MAY_SWAP | MEMCG_RECLAIM_PROACTIVE, swappiness, cpu)
        if freed == 0:
            if retries == 0:
                return -E_AGAIN
            retries -= 1
        done += freed
    return done


cdef int memcg_attach(Mm* mm, uint32_t as_, uint32_t id_) noexcept nogil:
    cdef uint32_t cpu, before = as_at(mm, as_).memcg
    if not memcg_online(mm, id_):
        return -E_NOENT
    if before == id_:
        return 0
    if before:
        memcg_at(mm, before).nr_tasks -= 1
    if id_:
        memcg_at(mm, id_).nr_tasks += 1
    as_at(mm, as_).memcg = id_
    for cpu in range(mm.g.nr_cpus):
        if mm.vm.cpus[cpu].active_mm == as_:
            mm.vm.cpus[cpu].memcg = id_
    return 0
