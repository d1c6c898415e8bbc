"""LRU lists: five for each node, with the batches that each CPU fills before it takes the lists' lock.

Models: folio_add_lru, lru_add, lru_add_drain_cpu, lruvec_add_folio, lruvec_del_folio (mm/swap.c, include/linux/mm_inline.h, v6.12).
Simplifies: node and zone counters are exact, without per-CPU rests; a page that is freed while another CPU's batch holds it leaves
that batch at once (in the kernel it stays until the batch drains). Omits: what ages and reclaims pages, memory cgroups, MGLRU's lists
(they come with reclaim).
"""
from mmcore.base.lists cimport list_add, list_del
from mmcore.base.flags cimport PG_anon, PG_referenced, PG_swapcache
from mmcore.base.records cimport Page
from mmcore.base.stat_items cimport VE_PGDEACTIVATE, VE_PGLAZYFREE
from mmcore.phys.buddy cimport zone_of


cdef void move_batch(Mm* mm, const uint32_t* links, int64_t n) noexcept nogil:
    # lru_add() for each page in turn; neighbours in a batch mostly share zone and list, so counters move once for a row of them.
    cdef int64_t i, run = 0
    cdef uint32_t x, zi, last_zi = 0
    cdef unsigned lru, last_lru = 0
    cdef Page* p
    for i in range(n):
        x = links[i]
        if x == 0:
            continue
        p = &mm.link[x]
        zi = zone_of(mm, x - 1)
        lru = folio_lru_list(p.flags)
        if zi != last_zi or lru != last_lru:
            if run:
                lru_count(mm, last_zi, last_lru, run)
            run = 0
            last_zi = zi
            last_lru = lru
        p.flags |= PG_lru
        run += <int64_t>1 << (p.flags >> PG_ORDER_SHIFT & PG_ORDER_MASK)
        if lru != LRU_UNEVICTABLE:
            list_add(mm.link, mm.vm.lruvecs[mm.zones[zi - 1].node].head + lru, x)
    if run:
        lru_count(mm, last_zi, last_lru, run)


cdef void lru_add(Mm* mm, uint32_t pfn, unsigned cpu) noexcept nogil:
    cdef Cpu* c = &mm.vm.cpus[cpu]
    c.lru_add[c.lru_add_nr] = pfn + 1
    c.lru_add_nr += 1
    if c.lru_add_nr == LRU_BATCH or page_at(mm, pfn).flags & PG_head:
        move_batch(mm, c.lru_add, c.lru_add_nr)
        c.lru_add_nr = 0


cdef void lru_add_many(Mm* mm, const uint32_t* pfns, int64_t n, unsigned cpu) noexcept nogil:
    cdef Cpu* c = &mm.vm.cpus[cpu]
    cdef int64_t i
    for i in range(n):
        c.lru_add[c.lru_add_nr] = pfns[i] + 1
        c.lru_add_nr += 1
        if c.lru_add_nr == LRU_BATCH:
            move_batch(mm, c.lru_add, LRU_BATCH)
            c.lru_add_nr = 0


cdef void requeue(Mm* mm, uint32_t x, uint32_t clear) noexcept nogil:
    # Off its list, without these flags, onto the head of the list that it belongs to then.
    cdef Page* p = &mm.link[x]
    cdef uint32_t zi = zone_of(mm, x - 1)
    cdef int64_t n = <int64_t>1 << (p.flags >> PG_ORDER_SHIFT & PG_ORDER_MASK)
    list_del(mm.link, x)
    lru_count(mm, zi, folio_lru_list(p.flags), -n)
    p.flags &= ~clear
    lru_count(mm, zi, folio_lru_list(p.flags), n)
    list_add(mm.link, mm.vm.lruvecs[mm.zones[zi - 1].node].head + folio_lru_list(p.flags), x)


cdef void drain_lazyfree(Mm* mm, Cpu* c) noexcept nogil:
    cdef uint32_t k, x
    for k in range(c.lru_lazyfree_nr):
        x = c.lru_lazyfree[k]
        if x and mm.link[x].flags & (PG_lru | PG_anon | PG_swapbacked | PG_swapcache | PG_unevictable) == PG_lru | PG_anon | PG_swapbacked:
            requeue(mm, x, PG_active | PG_referenced | PG_swapbacked)
            mm.vm.g.events[VE_PGLAZYFREE] += <unsigned long>1 << (mm.link[x].flags >> PG_ORDER_SHIFT & PG_ORDER_MASK)
    c.lru_lazyfree_nr = 0


cdef void drain_deactivate(Mm* mm, Cpu* c) noexcept nogil:
    cdef uint32_t k, x
    for k in range(c.lru_deactivate_nr):
        x = c.lru_deactivate[k]
        if x and mm.link[x].flags & (PG_lru | PG_active | PG_unevictable) == PG_lru | PG_active:
            requeue(mm, x, PG_active | PG_referenced)
            mm.vm.g.events[VE_PGDEACTIVATE] += <unsigned long>1 << (mm.link[x].flags >> PG_ORDER_SHIFT & PG_ORDER_MASK)
    c.lru_deactivate_nr = 0


cdef void lru_lazyfree(Mm* mm, uint32_t pfn, unsigned cpu) noexcept nogil:
    cdef Cpu* c = &mm.vm.cpus[cpu]
    c.lru_lazyfree[c.lru_lazyfree_nr] = pfn + 1
    c.lru_lazyfree_nr += 1
    if c.lru_lazyfree_nr == LRU_BATCH or page_at(mm, pfn).flags & PG_head:
        drain_lazyfree(mm, c)


cdef void lru_deactivate(Mm* mm, uint32_t pfn, unsigned cpu) noexcept nogil:
    cdef Cpu* c = &mm.vm.cpus[cpu]
    if page_at(mm, pfn).flags & (PG_lru | PG_active | PG_unevictable) != PG_lru | PG_active:
        return
    c.lru_deactivate[c.lru_deactivate_nr] = pfn + 1
    c.lru_deactivate_nr += 1
    if c.lru_deactivate_nr == LRU_BATCH or page_at(mm, pfn).flags & PG_head:
        drain_deactivate(mm, c)


cdef void lru_add_drain(Mm* mm, unsigned cpu) noexcept nogil:
    cdef Cpu* c = &mm.vm.cpus[cpu]
    if c.lru_add_nr:
        move_batch(mm, c.lru_add, c.lru_add_nr)
        c.lru_add_nr = 0
    if c.lru_deactivate_nr:
        drain_deactivate(mm, c)
    if c.lru_lazyfree_nr:
        drain_lazyfree(mm, c)


cdef void leave_batches(Mm* mm, uint32_t pfn) noexcept nogil:
    cdef uint32_t cpu, k
    cdef Cpu* c
    for cpu in range(mm.g.nr_cpus):
        c = &mm.vm.cpus[cpu]
        for k in range(c.lru_add_nr):
            if c.lru_add[k] == pfn + 1:
                c.lru_add[k] = 0


cdef void forget_batched(Mm* mm, uint32_t pfn) noexcept nogil:
    # A page on a list can stand in the batches of those that change lists; rare, and only when some are not empty.
    cdef uint32_t cpu, k
    cdef Cpu* c
    for cpu in range(mm.g.nr_cpus):
        c = &mm.vm.cpus[cpu]
        for k in range(c.lru_lazyfree_nr):
            if c.lru_lazyfree[k] == pfn + 1:
                c.lru_lazyfree[k] = 0
        for k in range(c.lru_deactivate_nr):
            if c.lru_deactivate[k] == pfn + 1:
                c.lru_deactivate[k] = 0


cdef bint lists_pending(Mm* mm) noexcept nogil:
    cdef uint32_t cpu
    for cpu in range(mm.g.nr_cpus):
        if mm.vm.cpus[cpu].lru_lazyfree_nr or mm.vm.cpus[cpu].lru_deactivate_nr:
            return True
    return False


cdef void lru_del_many(Mm* mm, const uint32_t* pfns, int64_t n) noexcept nogil:
    cdef int64_t i, run = 0
    cdef uint32_t zi, last_zi = 0
    cdef unsigned lru, last_lru = 0
    cdef Page* p
    cdef bint pending = lists_pending(mm)
    for i in range(n):
        p = page_at(mm, pfns[i])
        if pending:
            forget_batched(mm, pfns[i])
        if not p.flags & PG_lru:
            leave_batches(mm, pfns[i])
            continue
        zi = zone_of(mm, pfns[i])
        lru = folio_lru_list(p.flags)
        if zi != last_zi or lru != last_lru:
            if run:
                lru_count(mm, last_zi, last_lru, -run)
            run = 0
            last_zi = zi
            last_lru = lru
        run += <int64_t>1 << (p.flags >> PG_ORDER_SHIFT & PG_ORDER_MASK)
        if lru != LRU_UNEVICTABLE:
            list_del(mm.link, pfns[i] + 1)
        p.flags &= ~<uint32_t>(PG_lru | PG_active | PG_unevictable)
    if run:
        lru_count(mm, last_zi, last_lru, -run)
