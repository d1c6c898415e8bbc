"""Swap areas, the slots in them, and the swap cache.

Models: get_swap_pages, scan_swap_map_slots (rotational devices, with its latency ration), cluster_alloc_swap_entry with the lists free,
nonfull, frag and full, swap_range_alloc, swap_range_free, __try_to_reclaim_swap, free_swap_and_cache_nr, swapcache_free_entries
(mm/swapfile.c), the slot caches of CPUs (mm/swap_slots.c), add_to_swap_cache, delete_from_swap_cache, folio_free_swap (mm/swap_state.c),
swap_writepage (mm/page_io.c), all v6.12. Simplifies: the work that frees slots of pages still cached runs at once when an area becomes
full; slots of several areas in one CPU's return stock keep their order (the kernel's sort is not stable). Omits: areas of a node of their
own, slots for large folios, discard, zswap, bad slots beyond the header, hibernation.

A slot that is taken but has neither users nor a page in the swap cache stands in some CPU's stock (or is in its way to a page).
"""
from libc.string cimport memset

from mmcore.base.errors cimport E_NOMEM, E_PERM
from mmcore.base.flags cimport PG_anon_exclusive, PG_dirty, PG_lru, PG_meta, PG_mlocked, PG_reclaim, PG_writeback
from mmcore.base.records cimport Page, PageMeta, meta_at
from mmcore.base.stat_items cimport NS_NR_FILE_PAGES, NS_NR_SWAPCACHED, NS_NR_WRITTEN, VE_PGPGOUT, VE_PSWPOUT, VE_SWPOUT_ZERO
from mmcore.base.vm_records cimport (
    Cpu, MEMCG_DYING, MEMCG_EV_SWAP_FAIL, Memcg, POOL_SWAP_AREAS, POOL_SWAP_CLUSTERS, POOL_SWAP_SLOTS, SLOT_ZERO, SwapCluster,
)
from mmcore.phys.buddy cimport pageblock_mt, zone_of
from mmcore.phys.lruvec_stat cimport lruvec_stat_mod
from mmcore.phys.pcp cimport free_to_pcp
from mmcore.reclaim.lru cimport lru_del_many
from mmcore.reclaim.memcg cimport count_memcg_events, memcg_at, memcg_charge_swap, memcg_event, memcg_uncharge_swap, page_memcg, uncharge_pages
from mmcore.vm.rmap cimport anon_mapcount, set_rmap_private, sync_meta

cdef enum:
    LATENCY_LIMIT = 256
    SWAP_CLUSTER_COLS = 32
    ACTIVATE_SLOTS = 320            # free slots for each CPU above which stocks are kept, and below which they are dissolved
    DEACTIVATE_SLOTS = 128
    # lists of clusters, in the order of their heads in SwapArea
    CL_FREE = 1
    CL_NONFULL = 2
    CL_FRAG = 3
    CL_FULL = 4


cdef inline uint32_t nr_areas(Mm* mm) noexcept nogil:
    return mm.vm.pools[<int>POOL_SWAP_AREAS].used


cdef uint32_t swap_area_of(Mm* mm, uint32_t number) noexcept nogil:
    cdef uint32_t i
    cdef SwapArea* a
    for i in range(nr_areas(mm)):
        a = &mm.vm.swap_areas[i]
        if a.flags & SWP_USED and number - a.first_slot < a.max:
            return i + 1
    return 0


cdef inline SwapSlot* map_at(Mm* mm, SwapArea* a, uint32_t offset) noexcept nogil:
    return &mm.vm.swap_slots[a.first_slot + offset]


cdef inline bint slot_busy(const SwapSlot* s) noexcept nogil:
    return s.flags & (SLOT_TAKEN | SLOT_BAD) != 0


# SWAP_HAS_CACHE alone: no entry names the slot.
cdef inline bint only_cache(const SwapSlot* s) noexcept nogil:
    return s.flags & SLOT_HAS_CACHE and s.count == 0


# ---------------------------------------------------------------- which areas have room

cdef void area_to_end(Mm* mm, SwapArea* a) noexcept nogil:
    # Behind all others in the order among equal priorities (plist_requeue, plist_add).
    cdef uint32_t i, n = 0
    cdef SwapArea* o
    for i in range(nr_areas(mm)):
        o = &mm.vm.swap_areas[i]
        if o.flags & SWP_AVAIL:
            n += 1
            if a.flags & SWP_AVAIL and o.order > a.order:
                o.order -= 1
    a.order = n if a.flags & SWP_AVAIL else n + 1
    a.flags |= SWP_AVAIL


cdef void area_leaves(Mm* mm, SwapArea* a) noexcept nogil:
    cdef uint32_t i
    cdef SwapArea* o
    if not a.flags & SWP_AVAIL:
        return
    a.flags &= ~<uint32_t>SWP_AVAIL
    for i in range(nr_areas(mm)):
        o = &mm.vm.swap_areas[i]
        if o.flags & SWP_AVAIL and o.order > a.order:
            o.order -= 1
    a.order = 0


cdef void range_alloc(Mm* mm, SwapArea* a, uint32_t offset) noexcept nogil:
    map_at(mm, a, offset).flags |= SLOT_TAKEN | SLOT_HAS_CACHE
    if offset == a.lowest_bit:
        a.lowest_bit += 1
    if offset == a.highest_bit:
        a.highest_bit -= 1
    a.inuse += 1
    if a.inuse == a.pages:
        a.lowest_bit = a.max
        a.highest_bit = 0
        area_leaves(mm, a)
        if a.flags & SWP_SOLIDSTATE and vm_swap_full(mm):
            a.flags |= SWP_RECLAIM_WORK


# ---------------------------------------------------------------- lists of clusters

cdef inline SwapCluster* cluster_at(Mm* mm, SwapArea* a, uint32_t index) noexcept nogil:
    return &mm.vm.swap_clusters[a.first_cluster + index]


cdef inline uint32_t* list_of(SwapArea* a, unsigned kind) noexcept nogil:
    # Its head; the tail follows.
    return &a.free_head + 2 * (kind - 1)


cdef void cluster_move(Mm* mm, SwapArea* a, uint32_t index, unsigned kind) noexcept nogil:
    # Off the list it is on, to the tail of another (list_move_tail).
    cdef SwapCluster* c = cluster_at(mm, a, index)
    cdef uint32_t* head
    if c.flags:
        head = list_of(a, c.flags)
        if c.prev:
            cluster_at(mm, a, c.prev - 1).next = c.next
        else:
            head[0] = c.next
        if c.next:
            cluster_at(mm, a, c.next - 1).prev = c.prev
        else:
            head[1] = c.prev
        a.frag_nr -= c.flags == CL_FRAG
    head = list_of(a, kind)
    c.prev = head[1]
    c.next = 0
    if c.prev:
        cluster_at(mm, a, c.prev - 1).next = index + 1
    else:
        head[0] = index + 1
    head[1] = index + 1
    c.flags = <uint8_t>kind
    a.frag_nr += kind == CL_FRAG


cdef void setup_clusters(Mm* mm, SwapArea* a) noexcept nogil:
    # The header and what lies behind the end count as taken. Free clusters stand in columns, so that CPUs begin far from each other.
    cdef uint32_t i, j, index, rows = (a.nr_clusters + SWAP_CLUSTER_COLS - 1) // SWAP_CLUSTER_COLS
    cluster_at(mm, a, 0).count = 1
    cluster_at(mm, a, a.nr_clusters - 1).count += <unsigned short>(a.nr_clusters * SWAPFILE_CLUSTER - a.max)
    for j in range(SWAP_CLUSTER_COLS):
        for i in range(rows):
            index = i * SWAP_CLUSTER_COLS + j
            if index < a.nr_clusters:
                cluster_move(mm, a, index, CL_NONFULL if cluster_at(mm, a, index).count else CL_FREE)


# ---------------------------------------------------------------- slots go back

cdef void range_free(Mm* mm, SwapArea* a, uint32_t offset, uint32_t n) noexcept nogil:
    # swap_entry_range_free(): n slots of one cluster, none of which anyone holds.
    cdef uint32_t i
    cdef SwapSlot* s
    cdef SwapCluster* c
    cdef bint was_full = a.highest_bit == 0
    for i in range(n):
        s = map_at(mm, a, offset + i)
        memcg_uncharge_swap(mm, s.memcg, 1)
        memset(s, 0, sizeof(SwapSlot))
    if a.flags & SWP_SOLIDSTATE:
        c = cluster_at(mm, a, offset // SWAPFILE_CLUSTER)
        c.count -= <unsigned short>n
        if c.count == 0:
            cluster_move(mm, a, offset // SWAPFILE_CLUSTER, CL_FREE)
            c.order = 0
        elif c.flags != CL_NONFULL:
            cluster_move(mm, a, offset // SWAPFILE_CLUSTER, CL_NONFULL)
    if offset < a.lowest_bit:
        a.lowest_bit = offset
    if offset + n - 1 > a.highest_bit:
        a.highest_bit = offset + n - 1
        if was_full and a.flags & SWP_WRITEOK:
            area_to_end(mm, a)
    a.inuse -= n
    mm.vm.g.nr_swap_pages += n


cdef inline void free_number(Mm* mm, uint32_t number) noexcept nogil:
    cdef SwapArea* a = &mm.vm.swap_areas[swap_area_of(mm, number) - 1]
    range_free(mm, a, number - a.first_slot, 1)


cdef void free_numbers(Mm* mm, uint32_t* numbers, uint32_t n) noexcept nogil:
    # swapcache_free_entries(): one area after the other.
    cdef uint32_t i, k, a
    if nr_areas(mm) == 1:
        for i in range(n):
            free_number(mm, numbers[i])
        return
    for a in range(nr_areas(mm)):
        for k in range(n):
            if swap_area_of(mm, numbers[k]) == a + 1:
                free_number(mm, numbers[k])


cdef inline bint slot_cache_on(Mm* mm) noexcept nogil:
    # swap_slot_cache_enabled (there is an area that can be written to) and active.
    cdef uint32_t i
    if not mm.vm.g.swap_slot_cache_active:
        return False
    for i in range(nr_areas(mm)):
        if mm.vm.swap_areas[i].flags & SWP_WRITEOK:
            return True
    return False


cdef void free_slot(Mm* mm, uint32_t slot, unsigned cpu) noexcept nogil:
    # free_swap_slot(): into this CPU's stock of slots to give back, which empties when it is full.
    cdef Cpu* c = &mm.vm.cpus[cpu]
    mm.vm.swap_slots[slot - 1].flags |= SLOT_HAS_CACHE
    if not slot_cache_on(mm):
        free_number(mm, slot - 1)
        return
    if c.swap_ret_nr == SWAP_BATCH:
        free_numbers(mm, c.swap_ret, c.swap_ret_nr)
        c.swap_ret_nr = 0
    c.swap_ret[c.swap_ret_nr] = slot - 1
    c.swap_ret_nr += 1


cdef void drain_swap_slots(Mm* mm) noexcept nogil:
    cdef uint32_t cpu
    cdef Cpu* c
    for cpu in range(mm.g.nr_cpus):
        c = &mm.vm.cpus[cpu]
        free_numbers(mm, c.swap_slots + c.swap_cur, c.swap_nr - c.swap_cur)
        c.swap_cur = c.swap_nr = 0
    for cpu in range(mm.g.nr_cpus):
        c = &mm.vm.cpus[cpu]
        free_numbers(mm, c.swap_ret, c.swap_ret_nr)
        c.swap_ret_nr = 0


# ---------------------------------------------------------------- the swap cache

cdef void swap_cache_add(Mm* mm, uint32_t pfn, uint32_t slot) noexcept nogil:
    cdef SwapSlot* s = swap_slot_at(mm, slot)
    cdef Page* p = page_at(mm, pfn)
    s.cache = <uint64_t>(pfn + 1) << 2
    s.rmap = p.private_
    s.flags |= SLOT_HAS_CACHE
    p.private_ = slot
    p.flags |= PG_swapcache
    # as page cache it counts for the node alone, not for the group
    mm.nodes[mm.zones[zone_of(mm, pfn) - 1].node].vm_stat[NS_NR_FILE_PAGES] += 1
    lruvec_stat_mod(mm, pfn, NS_NR_SWAPCACHED, 1)


cdef void swap_cache_del(Mm* mm, uint32_t pfn, uint64_t shadow) noexcept nogil:
    cdef Page* p = page_at(mm, pfn)
    cdef SwapSlot* s = swap_slot_at(mm, p.private_)
    p.private_ = s.rmap
    p.flags &= ~<uint32_t>PG_swapcache
    s.rmap = 0
    s.cache = shadow
    mm.nodes[mm.zones[zone_of(mm, pfn) - 1].node].vm_stat[NS_NR_FILE_PAGES] -= 1
    lruvec_stat_mod(mm, pfn, NS_NR_SWAPCACHED, -1)


cdef void swap_cache_put_slot(Mm* mm, uint32_t slot, unsigned cpu) noexcept nogil:
    cdef SwapSlot* s = swap_slot_at(mm, slot)
    s.flags &= ~<uint8_t>SLOT_HAS_CACHE
    if s.count == 0:
        free_slot(mm, slot, cpu)


cdef bint folio_free_swap(Mm* mm, uint32_t pfn, unsigned cpu) noexcept nogil:
    cdef Page* p = page_at(mm, pfn)
    cdef uint32_t slot = p.private_
    if p.flags & (PG_swapcache | PG_writeback) != PG_swapcache or swap_slot_at(mm, slot).count:
        return False
    swap_cache_del(mm, pfn, 0)
    swap_cache_put_slot(mm, slot, cpu)
    p.flags |= PG_dirty
    return True


cdef bint leave_swap_cache(Mm* mm, uint32_t pfn, unsigned cpu) noexcept nogil:
    cdef Page* p = page_at(mm, pfn)
    if folio_free_swap(mm, pfn, cpu):
        return True
    set_rmap_private(mm, pfn, 0)
    meta_at(mm, pfn).mapcount = 0
    meta_at(mm, pfn).index_lo = 0
    meta_at(mm, pfn).index_hi = 0
    sync_meta(mm, pfn)
    p.flags &= ~<uint32_t>PG_anon_exclusive
    return False


cdef bint in_add_batch(Mm* mm, uint32_t pfn) noexcept nogil:
    cdef uint32_t cpu, k
    for cpu in range(mm.g.nr_cpus):
        for k in range(mm.vm.cpus[cpu].lru_add_nr):
            if mm.vm.cpus[cpu].lru_add[k] == pfn + 1:
                return True
    return False


cdef bint put_swap_page(Mm* mm, uint32_t pfn, unsigned cpu) noexcept nogil:
    # Pages that neither a list nor a batch holds are in the hands of someone who puts them back.
    cdef Page* p = page_at(mm, pfn)
    cdef uint32_t zi = zone_of(mm, pfn) - 1
    if p.flags & (PG_swapcache | PG_writeback | PG_mlocked) or anon_mapcount(mm, pfn):
        return False
    if p.flags & PG_meta and meta_at(mm, pfn).extra_refs:
        return False
    if not p.flags & PG_lru and not in_add_batch(mm, pfn):
        return False
    lru_del_many(mm, &pfn, 1)
    if mm.vm.g.nr_memcgs:
        uncharge_pages(mm, &pfn, 1)
    if p.flags & PG_meta:
        memset(meta_at(mm, pfn), 0, sizeof(PageMeta))
    p.private_ = 0
    p.flags = 0
    p.next = p.prev = 0
    free_to_pcp(mm, &mm.zones[zi], &mm.pcps[zi * mm.g.nr_cpus + cpu], pfn, 0, pageblock_mt(mm, pfn))
    return True


cdef bint reclaim_slot(Mm* mm, SwapArea* a, uint32_t offset, unsigned cpu) noexcept nogil:
    # __try_to_reclaim_swap(TTRS_ANYWAY | TTRS_DIRECT): the page in the swap cache gives up a slot that no entry names.
    cdef SwapSlot* s = map_at(mm, a, offset)
    cdef uint32_t pfn = swap_cached_page(mm, a.first_slot + offset + 1)
    if pfn == 0 or s.count or page_at(mm, pfn - 1).flags & PG_writeback:
        return False
    swap_cache_del(mm, pfn - 1, 0)
    page_at(mm, pfn - 1).flags |= PG_dirty
    range_free(mm, a, offset, 1)
    put_swap_page(mm, pfn - 1, cpu)
    return True


# ---------------------------------------------------------------- slots are taken: areas that are not rotational

cdef uint32_t scan_cluster(Mm* mm, SwapArea* a, uint32_t offset, uint32_t* found, unsigned cpu) noexcept nogil:
    # alloc_swap_scan_cluster(): the first slot from `offset` to the end of its cluster; where to go on, 0: nowhere.
    cdef uint32_t index = offset // SWAPFILE_CLUSTER, end = (index + 1) * SWAPFILE_CLUSTER
    cdef SwapCluster* c = cluster_at(mm, a, index)
    if end > a.max:
        end = a.max
    if c.count >= SWAPFILE_CLUSTER:
        return 0
    while offset < end:
        if slot_busy(map_at(mm, a, offset)):
            if not (vm_swap_full(mm) and only_cache(map_at(mm, a, offset)) and reclaim_slot(mm, a, offset, cpu)):
                offset += 1
                continue
        if c.flags == CL_FREE:
            cluster_move(mm, a, index, CL_NONFULL)
        range_alloc(mm, a, offset)
        c.count += 1
        found[0] = offset
        if c.count == SWAPFILE_CLUSTER:
            cluster_move(mm, a, index, CL_FULL)
            return 0
        offset += 1
        break
    return offset if offset < end else 0


cdef void reclaim_full_clusters(Mm* mm, SwapArea* a, bint force, unsigned cpu) noexcept nogil:
    # swap_reclaim_full_clusters(): slots that only the swap cache holds, of one full cluster, or of all there are.
    cdef int64_t to_scan = a.inuse // SWAPFILE_CLUSTER if force else 1
    cdef uint32_t index, offset, end
    while a.full_head:
        index = a.full_head - 1
        cluster_move(mm, a, index, CL_FULL)
        offset = index * SWAPFILE_CLUSTER
        end = offset + SWAPFILE_CLUSTER if offset + SWAPFILE_CLUSTER < a.max else a.max
        to_scan -= 1
        while offset < end:
            if only_cache(map_at(mm, a, offset)):
                reclaim_slot(mm, a, offset, cpu)
            offset += 1
        if to_scan <= 0:
            break


cdef uint32_t cluster_alloc(Mm* mm, SwapArea* a, uint32_t area, unsigned cpu) noexcept nogil:
    # cluster_alloc_swap_entry(): offset, 0 if there is none.
    cdef uint32_t* next_ = &mm.vm.cpus[cpu].swap_cluster[area - 1]
    cdef uint32_t found = 0, offset = next_[0], frags = 0, index
    if offset:
        offset = scan_cluster(mm, a, offset, &found, cpu)
    if not found and a.free_head:
        offset = scan_cluster(mm, a, (a.free_head - 1) * SWAPFILE_CLUSTER, &found, cpu)
    elif not found:
        if vm_swap_full(mm):
            reclaim_full_clusters(mm, a, False, cpu)
        while not found and a.nonfull_head:
            index = a.nonfull_head - 1
            cluster_move(mm, a, index, CL_FRAG)
            offset = scan_cluster(mm, a, index * SWAPFILE_CLUSTER, &found, cpu)
            frags += 1
        while not found and frags < a.frag_nr:
            index = a.frag_head - 1
            cluster_move(mm, a, index, CL_FRAG)
            offset = scan_cluster(mm, a, index * SWAPFILE_CLUSTER, &found, cpu)
            frags += 1
    next_[0] = offset
    return found


# ---------------------------------------------------------------- and rotational ones

cdef struct Scan:
    uint32_t offset
    uint32_t base
    int ration                      # steps until the scan takes a breath
    bint many


cdef inline bint tick(Scan* s) noexcept nogil:
    # One step; whether the ration is used up (it begins anew then, unless the caller stops).
    s.ration -= 1
    return s.ration < 0


cdef void find_empty_run(Mm* mm, SwapArea* a, Scan* s) noexcept nogil:
    # The first 512 free slots in a row, from the lowest free one on.
    cdef uint32_t offset = a.lowest_bit, last
    s.base = offset
    last = offset + SWAPFILE_CLUSTER - 1
    while last <= a.highest_bit:
        if slot_busy(map_at(mm, a, offset)):
            last = offset + SWAPFILE_CLUSTER
        elif offset == last:
            s.offset = offset - (SWAPFILE_CLUSTER - 1)
            a.cluster_next = s.offset
            return
        if tick(s):
            s.ration = LATENCY_LIMIT
        offset += 1
    s.offset = s.base


cdef bint usable(Mm* mm, SwapArea* a, uint32_t offset) noexcept nogil:
    # swap_offset_available_and_locked(): free, or to be had from the swap cache.
    cdef SwapSlot* s = map_at(mm, a, offset)
    return not slot_busy(s) or (vm_swap_full(mm) and only_cache(s))


cdef bint scan_on(Mm* mm, SwapArea* a, Scan* s) noexcept nogil:
    # The place is taken: onwards to the end, then from the beginning.
    s.offset += 1
    while s.offset <= a.highest_bit:
        if tick(s):
            s.ration = LATENCY_LIMIT
            s.many = True
        if usable(mm, a, s.offset):
            return True
        s.offset += 1
    s.offset = a.lowest_bit
    while s.offset < s.base:
        if tick(s):
            s.ration = LATENCY_LIMIT
            s.many = True
        if usable(mm, a, s.offset):
            return True
        s.offset += 1
    return False


cdef bint next_free(Mm* mm, SwapArea* a, Scan* s) noexcept nogil:
    # After a slot was taken: is there another one near?
    cdef uint32_t limit
    if a.cluster_nr:
        s.offset += 1
        if not slot_busy(map_at(mm, a, s.offset)):
            a.cluster_nr -= 1
            return True
    if s.many:
        return False
    limit = s.base if s.offset < s.base else a.highest_bit
    while s.offset <= limit:
        s.ration -= 1
        if s.ration <= 0:
            return False
        if not slot_busy(map_at(mm, a, s.offset)):
            return True
        s.offset += 1
    return False


cdef int scan_map(Mm* mm, SwapArea* a, int n, uint32_t* numbers, unsigned cpu) noexcept nogil:
    # scan_swap_map_slots() without clusters.
    cdef Scan s
    cdef SwapSlot* slot
    cdef int got = 0
    s.base = s.offset = a.cluster_next
    s.ration = LATENCY_LIMIT
    s.many = False
    if a.cluster_nr:
        a.cluster_nr -= 1
    else:
        if a.pages - a.inuse >= SWAPFILE_CLUSTER:
            find_empty_run(mm, a, &s)
        a.cluster_nr = SWAPFILE_CLUSTER - 1
    while a.highest_bit:
        if s.offset > a.highest_bit:
            s.base = s.offset = a.lowest_bit
        slot = map_at(mm, a, s.offset)
        if vm_swap_full(mm) and only_cache(slot):
            if reclaim_slot(mm, a, s.offset, cpu):
                continue
            if not scan_on(mm, a, &s):
                return got
            continue
        if slot_busy(slot):
            if got:
                break
            if not scan_on(mm, a, &s):
                return got
            continue
        range_alloc(mm, a, s.offset)
        numbers[got] = a.first_slot + s.offset
        got += 1
        if got == n or s.offset >= a.highest_bit or tick(&s) or not next_free(mm, a, &s):
            break
    else:
        return got
    a.cluster_next = s.offset + 1
    return got


# ---------------------------------------------------------------- all areas

cdef int alloc_from(Mm* mm, uint32_t area, int n, uint32_t* numbers, unsigned cpu) noexcept nogil:
    cdef SwapArea* a = &mm.vm.swap_areas[area - 1]
    cdef int got = 0
    cdef uint32_t offset
    if not a.flags & SWP_SOLIDSTATE:
        return scan_map(mm, a, n, numbers, cpu)
    while got < n:
        offset = cluster_alloc(mm, a, area, cpu)
        if offset == 0:
            break
        numbers[got] = a.first_slot + offset
        got += 1
    return got


cdef uint32_t next_area(Mm* mm, uint32_t tried) noexcept nogil:
    # index + 1 of the first area with room that was not tried yet: priority, then order.
    cdef uint32_t i, best = 0
    cdef SwapArea* a
    cdef SwapArea* b = NULL
    for i in range(nr_areas(mm)):
        a = &mm.vm.swap_areas[i]
        if not a.flags & SWP_AVAIL or tried >> i & 1:
            continue
        if b == NULL or a.prio > b.prio or (a.prio == b.prio and a.order < b.order):
            best = i + 1
            b = a
    return best


cdef int get_swap_pages(Mm* mm, int n, uint32_t* numbers, unsigned cpu) noexcept nogil:
    cdef uint32_t area, tried = 0
    cdef int got = 0
    cdef SwapArea* a
    if mm.vm.g.nr_swap_pages <= 0:
        return 0
    if n > SWAP_BATCH:
        n = SWAP_BATCH
    if n > mm.vm.g.nr_swap_pages:
        n = <int>mm.vm.g.nr_swap_pages
    mm.vm.g.nr_swap_pages -= n
    while got == 0:
        area = next_area(mm, tried)
        if area == 0:
            break
        tried |= <uint32_t>1 << (area - 1)
        a = &mm.vm.swap_areas[area - 1]
        area_to_end(mm, a)
        got = alloc_from(mm, area, n, numbers, cpu)
    mm.vm.g.nr_swap_pages += n - got
    for area in range(1, nr_areas(mm) + 1):
        a = &mm.vm.swap_areas[area - 1]
        if a.flags & SWP_RECLAIM_WORK:
            a.flags &= ~<uint32_t>SWP_RECLAIM_WORK
            reclaim_full_clusters(mm, a, True, cpu)
    return got


cdef bint check_cache_active(Mm* mm) noexcept nogil:
    # Stocks need plenty of free slots to begin, and go when few are left.
    if not mm.vm.g.swap_slot_cache_active:
        if mm.vm.g.nr_swap_pages > <int64_t>mm.g.nr_cpus * ACTIVATE_SLOTS:
            mm.vm.g.swap_slot_cache_active = 1
    elif mm.vm.g.nr_swap_pages < <int64_t>mm.g.nr_cpus * DEACTIVATE_SLOTS:
        mm.vm.g.swap_slot_cache_active = 0
        drain_swap_slots(mm)
    return slot_cache_on(mm)


cdef uint32_t folio_alloc_swap(Mm* mm, uint32_t pfn, unsigned cpu) noexcept nogil:
    cdef Cpu* c = &mm.vm.cpus[cpu]
    cdef uint32_t number = 0, id_ = page_memcg(mm, pfn)
    cdef int got = 0
    if check_cache_active(mm):
        if c.swap_cur == c.swap_nr:
            c.swap_cur = 0
            c.swap_nr = <uint32_t>get_swap_pages(mm, SWAP_BATCH, c.swap_slots, cpu)
        if c.swap_cur < c.swap_nr:
            number = c.swap_slots[c.swap_cur]
            c.swap_cur += 1
            got = 1
    if not got:
        got = get_swap_pages(mm, 1, &number, cpu)
    if not got:
        if id_:
            memcg_event(mm, id_, MEMCG_EV_SWAP_FAIL)
        return 0
    # a removed group's slots are charged to the nearest one above that is still there
    while id_ and memcg_at(mm, id_).flags == MEMCG_DYING:
        id_ = memcg_at(mm, id_).parent - 1
    if id_ and not memcg_charge_swap(mm, id_, 1):
        swap_cache_put_slot(mm, number + 1, cpu)
        return 0
    mm.vm.swap_slots[number].memcg = <unsigned short>id_
    return number + 1


# ---------------------------------------------------------------- users

cdef void swap_free(Mm* mm, uint32_t slot, unsigned cpu) noexcept nogil:
    cdef SwapSlot* s = swap_slot_at(mm, slot)
    s.count -= 1
    if s.count == 0 and not s.flags & SLOT_HAS_CACHE:
        free_slot(mm, slot, cpu)


cdef bint last_users(Mm* mm, uint32_t slot, uint32_t n) noexcept nogil:
    # swap_is_last_map(): one user each, and alike as to the swap cache.
    cdef uint32_t i
    cdef uint8_t cached = swap_slot_at(mm, slot).flags & SLOT_HAS_CACHE
    for i in range(n):
        if swap_slot_at(mm, slot + i).count != 1 or swap_slot_at(mm, slot + i).flags & SLOT_HAS_CACHE != cached:
            return False
    return True


cdef bint put_users(Mm* mm, uint32_t slot, uint32_t n, unsigned cpu) noexcept nogil:
    # __swap_entries_free(): whether the swap cache alone holds one of them now.
    cdef SwapArea* a = &mm.vm.swap_areas[swap_area_of(mm, slot - 1) - 1]
    cdef uint32_t offset = slot - 1 - a.first_slot, i
    cdef bint cached = False
    if n > 1 and n <= SWAPFILE_CLUSTER - offset % SWAPFILE_CLUSTER and last_users(mm, slot, n):
        cached = swap_slot_at(mm, slot).flags & SLOT_HAS_CACHE != 0
        for i in range(n):
            swap_slot_at(mm, slot + i).count = 0
        if not cached:
            range_free(mm, a, offset, n)
        return cached
    for i in range(n):
        swap_free(mm, slot + i, cpu)
        cached |= only_cache(swap_slot_at(mm, slot + i))
    return cached


cdef void free_swap_and_cache(Mm* mm, uint32_t slot, uint32_t n, unsigned cpu) noexcept nogil:
    cdef uint32_t i, pfn
    if not put_users(mm, slot, n, cpu):
        return
    for i in range(n):
        pfn = swap_cached_page(mm, slot + i)
        if pfn == 0 or not only_cache(swap_slot_at(mm, slot + i)):
            continue
        if anon_mapcount(mm, pfn - 1) and not swap_full(mm, pfn - 1):
            continue
        if folio_free_swap(mm, pfn - 1, cpu):
            put_swap_page(mm, pfn - 1, cpu)


cdef bint swap_full(Mm* mm, uint32_t pfn) noexcept nogil:
    cdef uint32_t id_ = page_memcg(mm, pfn)
    cdef Memcg* c
    if vm_swap_full(mm):
        return True
    while id_:
        c = memcg_at(mm, id_)
        if c.swap_usage * 2 >= c.swap_high or c.swap_usage * 2 >= c.swap_max:
            return True
        id_ = c.parent - 1
    return False


cdef int64_t memcg_nr_swap_pages(Mm* mm, uint32_t id_) noexcept nogil:
    # What a group can still swap out (mem_cgroup_get_nr_swap_pages).
    cdef int64_t n = mm.vm.g.nr_swap_pages
    cdef Memcg* c
    while id_:
        c = memcg_at(mm, id_)
        if c.swap_max - c.swap_usage < n:
            n = c.swap_max - c.swap_usage
        id_ = c.parent - 1
    return n


# ---------------------------------------------------------------- writing

cdef bint swap_synchronous(Mm* mm, uint32_t slot) noexcept nogil:
    cdef uint32_t a = swap_area_of(mm, slot - 1)
    return a != 0 and mm.vm.swap_areas[a - 1].flags & SWP_SYNCHRONOUS != 0


cdef int swap_writepage(Mm* mm, uint32_t pfn, unsigned cpu) noexcept nogil:
    cdef SwapSlot* s
    if folio_free_swap(mm, pfn, cpu):
        return 0
    s = swap_slot_at(mm, page_at(mm, pfn).private_)
    if mm.vm.g.swap_zero_data:
        s.flags |= SLOT_ZERO
        mm.vm.g.events[VE_SWPOUT_ZERO] += 1
        count_memcg_events(mm, page_memcg(mm, pfn), VE_SWPOUT_ZERO, 1)
        return 0
    s.flags &= ~<uint8_t>SLOT_ZERO
    mm.vm.g.events[VE_PSWPOUT] += 1
    mm.vm.g.events[VE_PGPGOUT] += 4
    mm.nodes[mm.zones[zone_of(mm, pfn) - 1].node].vm_stat[NS_NR_WRITTEN] += 1
    page_at(mm, pfn).flags &= ~<uint32_t>PG_reclaim
    return 0


# ---------------------------------------------------------------- areas come and go

cdef int64_t find_room(Mm* mm, bint slots, uint32_t n, uint32_t capacity) noexcept nogil:
    # The first stretch of n records of a pool that no area has: after each of them, and at the beginning.
    cdef int64_t at, best = -1, lo, hi
    cdef uint32_t i, k
    cdef bint fits
    for k in range(nr_areas(mm) + 1):
        at = 0
        if k:
            if not mm.vm.swap_areas[k - 1].flags & SWP_USED:
                continue
            at = mm.vm.swap_areas[k - 1].first_slot + <int64_t>mm.vm.swap_areas[k - 1].max if slots else \
                mm.vm.swap_areas[k - 1].first_cluster + <int64_t>mm.vm.swap_areas[k - 1].nr_clusters
        fits = at + n <= capacity
        for i in range(nr_areas(mm)):
            if mm.vm.swap_areas[i].flags & SWP_USED:
                lo = mm.vm.swap_areas[i].first_slot if slots else mm.vm.swap_areas[i].first_cluster
                hi = lo + (mm.vm.swap_areas[i].max if slots else mm.vm.swap_areas[i].nr_clusters)
                fits = fits and (at + n <= lo or at >= hi)
        if fits and (best < 0 or at < best):
            best = at
    return best


cdef void count_pools(Mm* mm) noexcept nogil:
    cdef uint32_t i, areas = 0, slots = 0, clusters = 0, live = 0, live_slots = 0, live_clusters = 0
    cdef SwapArea* a
    for i in range(nr_areas(mm)):
        a = &mm.vm.swap_areas[i]
        if a.flags & SWP_USED:
            areas = i + 1
            live += 1
            live_slots += a.max
            live_clusters += a.nr_clusters
            slots = a.first_slot + a.max if a.first_slot + a.max > slots else slots
            clusters = a.first_cluster + a.nr_clusters if a.first_cluster + a.nr_clusters > clusters else clusters
    mm.vm.pools[<int>POOL_SWAP_AREAS].used = areas
    mm.vm.pools[<int>POOL_SWAP_AREAS].live = live
    mm.vm.pools[<int>POOL_SWAP_SLOTS].used = slots
    mm.vm.pools[<int>POOL_SWAP_SLOTS].live = live_slots
    mm.vm.pools[<int>POOL_SWAP_CLUSTERS].used = clusters
    mm.vm.pools[<int>POOL_SWAP_CLUSTERS].live = live_clusters


cdef void swap_area_enable(Mm* mm, uint32_t area) noexcept nogil:
    # enable_swap_info(): its slots count (those in use after a swapoff that failed make up for having counted as free), and are handed out.
    cdef SwapArea* a = &mm.vm.swap_areas[area - 1]
    a.flags |= SWP_WRITEOK
    mm.vm.g.nr_swap_pages += a.pages
    mm.g.total_swap_pages += a.pages
    if a.highest_bit:
        area_to_end(mm, a)


cdef int64_t swap_area_add(Mm* mm, uint32_t pages, int32_t prio, uint32_t flags, uint32_t name) noexcept nogil:
    # `pages` with the header. A priority below 0 is chosen: below all areas that got theirs in this way.
    cdef uint32_t i, k, n_clusters = (pages + SWAPFILE_CLUSTER - 1) // SWAPFILE_CLUSTER if flags & SWP_SOLIDSTATE else 0
    cdef int64_t slots, clusters = 0
    cdef SwapArea* a
    i = 0
    while i < nr_areas(mm) and mm.vm.swap_areas[i].flags & SWP_USED:
        i += 1
    if i >= MAX_SWAP_AREAS:
        return -E_PERM
    slots = find_room(mm, True, pages, mm.vm.pools[<int>POOL_SWAP_SLOTS].capacity)
    if n_clusters:
        clusters = find_room(mm, False, n_clusters, mm.vm.pools[<int>POOL_SWAP_CLUSTERS].capacity)
    if slots < 0 or clusters < 0:
        return -E_NOMEM
    if prio < 0:
        prio = -2
        for k in range(nr_areas(mm)):
            if mm.vm.swap_areas[k].flags & SWP_USED and mm.vm.swap_areas[k].prio <= prio:
                prio = mm.vm.swap_areas[k].prio - 1
    a = &mm.vm.swap_areas[i]
    memset(a, 0, sizeof(SwapArea))
    a.flags = SWP_USED | (flags & (SWP_SOLIDSTATE | SWP_SYNCHRONOUS | SWP_FILE))
    a.prio = prio
    a.max = pages
    a.pages = pages - 1
    a.first_slot = <uint32_t>slots
    a.lowest_bit = a.cluster_next = 1
    a.highest_bit = pages - 1
    a.first_cluster = <uint32_t>clusters
    a.nr_clusters = n_clusters
    a.name = name
    mm.vm.g.nr_swapons += 1
    a.id = <uint32_t>mm.vm.g.nr_swapons
    if i == nr_areas(mm):
        mm.vm.pools[<int>POOL_SWAP_AREAS].used = i + 1
    count_pools(mm)
    mm.vm.swap_slots[a.first_slot].flags = SLOT_BAD
    if n_clusters:
        setup_clusters(mm, a)
    swap_area_enable(mm, i + 1)
    return i + 1


cdef void swap_area_disable(Mm* mm, uint32_t area) noexcept nogil:
    # The first half of swapoff: nothing is taken from it any more, and stocks return. Each of its slots that is freed counts as free once
    # more, which makes up for those in use now.
    cdef SwapArea* a = &mm.vm.swap_areas[area - 1]
    a.flags &= ~<uint32_t>SWP_WRITEOK
    area_leaves(mm, a)
    mm.vm.g.nr_swap_pages -= a.pages
    mm.g.total_swap_pages -= a.pages
    drain_swap_slots(mm)


cdef void swap_area_remove(Mm* mm, uint32_t area) noexcept nogil:
    # No slot of it is in use any more.
    cdef SwapArea* a = &mm.vm.swap_areas[area - 1]
    cdef uint32_t i
    for i in range(nr_areas(mm)):
        if mm.vm.swap_areas[i].flags & SWP_USED and mm.vm.swap_areas[i].prio < a.prio and a.prio < 0:
            mm.vm.swap_areas[i].prio += 1
    for i in range(mm.g.nr_cpus):
        mm.vm.cpus[i].swap_cluster[area - 1] = 0
    memset(map_at(mm, a, 0), 0, <size_t>a.max * sizeof(SwapSlot))
    memset(cluster_at(mm, a, 0), 0, <size_t>a.nr_clusters * sizeof(SwapCluster))
    memset(a, 0, sizeof(SwapArea))
    count_pools(mm)
