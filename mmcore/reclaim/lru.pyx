"""LRU lists: five for each lruvec (a group on a node), with the batches that each CPU fills before it takes the lists' lock.

Models: folio_add_lru, folio_mark_accessed, folio_activate, lru_add_drain_cpu and the six batches of 31, lruvec_add_folio, lruvec_del_folio,
lru_note_cost, workingset_age_nonresident (mm/swap.c, include/linux/mm_inline.h, mm/workingset.c, v6.12). Simplifies: node and zone
counters are exact, without per-CPU rests; a page that is freed (not reclaimed) while a batch holds it leaves that batch at once, where
the kernel keeps it until the batch drains. Omits: MGLRU's lists.
"""
from mmcore.base.lists cimport list_add, list_add_tail, list_del
from mmcore.base.flags cimport PG_anon, PG_dirty, PG_locked, PG_meta, PG_reclaim, PG_referenced, PG_swapcache, PG_writeback
from mmcore.base.records cimport Page, meta_at
from mmcore.base.stat_items cimport NS_NR_ACTIVE_FILE, VE_PGACTIVATE, VE_PGDEACTIVATE, VE_PGLAZYFREE, VE_PGROTATED
from mmcore.base.vmscan_trace cimport trace_activate
from mmcore.phys.buddy cimport zone_of
from mmcore.reclaim.memcg cimport count_memcg_events, lruvec_page_state

ctypedef void (*Move)(Mm* mm, uint32_t x) noexcept nogil


cdef void move_batch(Mm* mm, const uint32_t* links, int64_t n) noexcept nogil:
    # lru_add() for each page in turn; neighbours in a batch mostly share zone and list, so counters move once for a row of them.
    cdef int64_t i, run = 0
    cdef uint32_t x, zi, last_zi = 0
    cdef unsigned lru, last_lru = 0
    cdef Page* p
    cdef Lruvec* lv
    cdef Lruvec* last_lv = NULL
    for i in range(n):
        x = links[i]
        if x == 0:
            continue
        p = &mm.link[x]
        zi = zone_of(mm, x - 1)
        lru = folio_lru_list(p.flags)
        lv = lruvec_in(mm, x - 1, zi)
        if zi != last_zi or lru != last_lru or lv != last_lv:
            if run:
                lru_count(mm, last_lv, last_zi, last_lru, run)
            run = 0
            last_zi = zi
            last_lru = lru
            last_lv = lv
        p.flags |= PG_lru
        run += folio_nr_pages(p.flags)
        if lru != LRU_UNEVICTABLE:
            list_add(mm.link, lv.head + lru, x)
    if run:
        lru_count(mm, last_lv, last_zi, last_lru, run)


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


cdef void lru_noise(Mm* mm, uint32_t nr, unsigned cpu) noexcept nogil:
    # Empty places: they fill the batch, and nothing comes of them.
    cdef Cpu* c = &mm.vm.cpus[cpu]
    cdef uint32_t _k
    for _k in range(nr):
        c.lru_add[c.lru_add_nr] = 0
        c.lru_add_nr += 1
        if c.lru_add_nr == LRU_BATCH:
            move_batch(mm, c.lru_add, LRU_BATCH)
            c.lru_add_nr = 0


# ---------------------------------------------------------------- batches of pages that stand on a list

cdef void requeue(Mm* mm, uint32_t x, uint32_t clear, uint32_t set_, bint tail) noexcept nogil:
    # Off its list, with other flags, onto the list that it belongs to then.
    cdef Page* p = &mm.link[x]
    cdef uint32_t zi = zone_of(mm, x - 1)
    cdef int64_t n = folio_nr_pages(p.flags)
    cdef Lruvec* lv = lruvec_in(mm, x - 1, zi)
    list_del(mm.link, x)
    lru_count(mm, lv, zi, folio_lru_list(p.flags), -n)
    p.flags = (p.flags & ~clear) | set_
    lru_count(mm, lv, zi, folio_lru_list(p.flags), n)
    if tail:
        list_add_tail(mm.link, lv.head + folio_lru_list(p.flags), x)
    else:
        list_add(mm.link, lv.head + folio_lru_list(p.flags), x)


cdef inline void count_move(Mm* mm, uint32_t x, unsigned event) noexcept nogil:
    cdef uint64_t n = <uint64_t>folio_nr_pages(mm.link[x].flags)
    mm.vm.g.events[event] += n
    count_memcg_events(mm, page_memcg(mm, x - 1), event, n)


cdef void move_activate(Mm* mm, uint32_t x) noexcept nogil:
    if mm.link[x].flags & (PG_active | PG_unevictable):
        return
    requeue(mm, x, 0, PG_active, False)
    trace_activate(mm, x - 1)
    count_move(mm, x, VE_PGACTIVATE)


cdef void move_lazyfree(Mm* mm, uint32_t x) noexcept nogil:
    if mm.link[x].flags & (PG_anon | PG_swapbacked | PG_swapcache | PG_unevictable) != PG_anon | PG_swapbacked:
        return
    requeue(mm, x, PG_active | PG_referenced | PG_swapbacked, 0, False)
    count_move(mm, x, VE_PGLAZYFREE)


cdef void move_deactivate(Mm* mm, uint32_t x) noexcept nogil:
    if mm.link[x].flags & (PG_active | PG_unevictable) != PG_active:
        return
    requeue(mm, x, PG_active | PG_referenced, 0, False)
    count_move(mm, x, VE_PGDEACTIVATE)


cdef void move_deactivate_file(Mm* mm, uint32_t x) noexcept nogil:
    cdef uint32_t flags = mm.link[x].flags
    if flags & PG_unevictable or (flags & PG_meta and meta_at(mm, x - 1).mapcount):
        return
    if flags & (PG_dirty | PG_writeback):
        requeue(mm, x, PG_active | PG_referenced, PG_reclaim, False)
    else:
        requeue(mm, x, PG_active | PG_referenced, 0, True)
        count_move(mm, x, VE_PGROTATED)
    if flags & PG_active:
        count_move(mm, x, VE_PGDEACTIVATE)


cdef void move_tail(Mm* mm, uint32_t x) noexcept nogil:
    if mm.link[x].flags & PG_unevictable:
        return
    requeue(mm, x, PG_active, 0, True)
    count_move(mm, x, VE_PGROTATED)


cdef void drain(Mm* mm, uint32_t* batch, uint32_t* nr, Move move) noexcept nogil:
    cdef uint32_t k, n = nr[0]
    nr[0] = 0
    mm.vm.g.lru_pending -= n
    for k in range(n):
        if batch[k] and mm.link[batch[k]].flags & PG_lru:
            move(mm, batch[k])


cdef void queue(Mm* mm, uint32_t* batch, uint32_t* nr, Move move, uint32_t pfn) noexcept nogil:
    batch[nr[0]] = pfn + 1
    nr[0] += 1
    mm.vm.g.lru_pending += 1
    if nr[0] == LRU_BATCH or page_at(mm, pfn).flags & PG_head:
        drain(mm, batch, nr, move)


cdef void folio_activate(Mm* mm, uint32_t pfn, unsigned cpu) noexcept nogil:
    cdef Cpu* c = &mm.vm.cpus[cpu]
    if page_at(mm, pfn).flags & (PG_lru | PG_active | PG_unevictable) == PG_lru:
        queue(mm, c.lru_activate, &c.lru_activate_nr, move_activate, pfn)


cdef void lru_lazyfree(Mm* mm, uint32_t pfn, unsigned cpu) noexcept nogil:
    cdef Cpu* c = &mm.vm.cpus[cpu]
    queue(mm, c.lru_lazyfree, &c.lru_lazyfree_nr, move_lazyfree, pfn)


cdef void lru_deactivate(Mm* mm, uint32_t pfn, unsigned cpu) noexcept nogil:
    cdef Cpu* c = &mm.vm.cpus[cpu]
    if page_at(mm, pfn).flags & (PG_lru | PG_active | PG_unevictable) == PG_lru | PG_active:
        queue(mm, c.lru_deactivate, &c.lru_deactivate_nr, move_deactivate, pfn)


cdef void lru_deactivate_file(Mm* mm, uint32_t pfn, unsigned cpu) noexcept nogil:
    cdef Cpu* c = &mm.vm.cpus[cpu]
    if page_at(mm, pfn).flags & (PG_lru | PG_unevictable) == PG_lru:
        queue(mm, c.lru_deactivate_file, &c.lru_deactivate_file_nr, move_deactivate_file, pfn)


cdef void lru_rotate(Mm* mm, uint32_t pfn, unsigned cpu) noexcept nogil:
    cdef Cpu* c = &mm.vm.cpus[cpu]
    if page_at(mm, pfn).flags & (PG_lru | PG_locked | PG_dirty | PG_unevictable) == PG_lru:
        queue(mm, c.lru_move_tail, &c.lru_move_tail_nr, move_tail, pfn)


cdef bint in_add_batch(Mm* mm, uint32_t pfn, unsigned cpu) noexcept nogil:
    cdef Cpu* c = &mm.vm.cpus[cpu]
    cdef int32_t k = <int32_t>c.lru_add_nr - 1
    while k >= 0:
        if c.lru_add[k] == pfn + 1:
            return True
        k -= 1
    return False


cdef void folio_mark_accessed(Mm* mm, uint32_t pfn, unsigned cpu) noexcept nogil:
    cdef Page* p = page_at(mm, pfn)
    if not p.flags & PG_referenced:
        p.flags |= PG_referenced
        return
    if p.flags & (PG_unevictable | PG_active):
        return
    if p.flags & PG_lru:
        folio_activate(mm, pfn, cpu)
    elif in_add_batch(mm, pfn, cpu):
        p.flags |= PG_active
    p.flags &= ~<uint32_t>PG_referenced
    age_nonresident(mm, lruvec_in(mm, pfn, zone_of(mm, pfn)), <uint64_t>folio_nr_pages(p.flags))


cdef void lru_add_drain(Mm* mm, unsigned cpu) noexcept nogil:
    cdef Cpu* c = &mm.vm.cpus[cpu]
    if c.lru_add_nr:
        move_batch(mm, c.lru_add, c.lru_add_nr)
        c.lru_add_nr = 0
    if mm.vm.g.lru_pending == 0:
        return
    if c.lru_move_tail_nr:
        drain(mm, c.lru_move_tail, &c.lru_move_tail_nr, move_tail)
    if c.lru_deactivate_file_nr:
        drain(mm, c.lru_deactivate_file, &c.lru_deactivate_file_nr, move_deactivate_file)
    if c.lru_deactivate_nr:
        drain(mm, c.lru_deactivate, &c.lru_deactivate_nr, move_deactivate)
    if c.lru_lazyfree_nr:
        drain(mm, c.lru_lazyfree, &c.lru_lazyfree_nr, move_lazyfree)
    if c.lru_activate_nr:
        drain(mm, c.lru_activate, &c.lru_activate_nr, move_activate)


cdef void lru_add_drain_all(Mm* mm) noexcept nogil:
    cdef uint32_t cpu
    for cpu in range(mm.g.nr_cpus):
        lru_add_drain(mm, cpu)


# ---------------------------------------------------------------- pages that go

cdef void leave_batches(Mm* mm, uint32_t pfn) noexcept nogil:
    cdef uint32_t cpu, k
    cdef Cpu* c
    for cpu in range(mm.g.nr_cpus):
        c = &mm.vm.cpus[cpu]
        for k in range(c.lru_add_nr):
            if c.lru_add[k] == pfn + 1:
                c.lru_add[k] = 0


cdef bint find_in(uint32_t* batch, uint32_t nr, uint32_t x, bint forget) noexcept nogil:
    cdef uint32_t k
    cdef bint found = False
    for k in range(nr):
        if batch[k] == x:
            found = True
            if forget:
                batch[k] = 0
    return found


cdef bint batched(Mm* mm, uint32_t pfn, bint forget) noexcept nogil:
    # A page on a list can stand in the batches of those that change lists; rare, and asked only when some are not empty.
    cdef uint32_t cpu, x = pfn + 1
    cdef Cpu* c
    cdef bint found = False
    for cpu in range(mm.g.nr_cpus):
        c = &mm.vm.cpus[cpu]
        found |= find_in(c.lru_move_tail, c.lru_move_tail_nr, x, forget)
        found |= find_in(c.lru_deactivate_file, c.lru_deactivate_file_nr, x, forget)
        found |= find_in(c.lru_deactivate, c.lru_deactivate_nr, x, forget)
        found |= find_in(c.lru_lazyfree, c.lru_lazyfree_nr, x, forget)
        found |= find_in(c.lru_activate, c.lru_activate_nr, x, forget)
    return found


cdef bint lru_batched(Mm* mm, uint32_t pfn) noexcept nogil:
    return mm.vm.g.lru_pending != 0 and batched(mm, pfn, False)


cdef void lru_del_many(Mm* mm, const uint32_t* pfns, int64_t n) noexcept nogil:
    cdef int64_t i, run = 0
    cdef uint32_t zi, last_zi = 0
    cdef unsigned lru, last_lru = 0
    cdef Page* p
    cdef Lruvec* lv
    cdef Lruvec* last_lv = NULL
    cdef bint pending = lists_pending(mm)
    for i in range(n):
        p = page_at(mm, pfns[i])
        if pending:
            batched(mm, pfns[i], True)
        if not p.flags & PG_lru:
            leave_batches(mm, pfns[i])
            continue
        zi = zone_of(mm, pfns[i])
        lru = folio_lru_list(p.flags)
        lv = lruvec_in(mm, pfns[i], zi)
        if zi != last_zi or lru != last_lru or lv != last_lv:
            if run:
                lru_count(mm, last_lv, last_zi, last_lru, -run)
            run = 0
            last_zi = zi
            last_lru = lru
            last_lv = lv
        run += folio_nr_pages(p.flags)
        if lru != LRU_UNEVICTABLE:
            list_del(mm.link, pfns[i] + 1)
        p.flags &= ~<uint32_t>(PG_lru | PG_active | PG_unevictable)
    if run:
        lru_count(mm, last_lv, last_zi, last_lru, -run)


cdef void lru_putback(Mm* mm, uint32_t pfn) noexcept nogil:
    cdef Page* p = page_at(mm, pfn)
    cdef uint32_t zi = zone_of(mm, pfn)
    cdef Lruvec* lv = lruvec_in(mm, pfn, zi)
    cdef unsigned lru = folio_lru_list(p.flags)
    cdef int64_t n = folio_nr_pages(p.flags)
    p.flags |= PG_lru
    lru_count(mm, lv, zi, lru, n)
    if lru != LRU_UNEVICTABLE:
        list_add(mm.link, lv.head + lru, pfn + 1)
    if p.flags & PG_active:
        age_nonresident(mm, lv, <uint64_t>n)


# ---------------------------------------------------------------- ages and costs

cdef inline Lruvec* parent_lruvec(Mm* mm, Lruvec* lv) noexcept nogil:
    return memcg_lruvec(mm, mm.vm.memcgs[lv.memcg].parent - 1, lv.node) if lv.memcg else NULL


cdef void age_nonresident(Mm* mm, Lruvec* lv, uint64_t nr) noexcept nogil:
    while lv != NULL:
        lv.nonresident_age += nr
        lv = parent_lruvec(mm, lv)


cdef void lru_note_cost(Mm* mm, Lruvec* lv, bint file, uint64_t io, uint64_t rotated) noexcept nogil:
    cdef int64_t cost = <int64_t>(32 * io + rotated), size
    cdef unsigned k
    if cost == 0:
        return
    while lv != NULL:
        if file:
            lv.file_cost += cost
        else:
            lv.anon_cost += cost
        size = 0
        for k in range(NS_NR_INACTIVE_ANON, NS_NR_ACTIVE_FILE + 1):
            size += lruvec_page_state(mm, lv, k)
        if lv.file_cost + lv.anon_cost > size // 4:
            lv.file_cost //= 2
            lv.anon_cost //= 2
        lv = parent_lruvec(mm, lv)
