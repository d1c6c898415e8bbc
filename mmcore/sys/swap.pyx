"""Pages that come back from swap; swapon and swapoff.

Models: do_swap_page (mm/memory.c), read_swap_cache_async, swap_cluster_readahead, swap_vma_readahead, swap_cache_get_folio
(mm/swap_state.c), swap_read_folio (mm/page_io.c), swapon, swapoff and try_to_unuse (mm/swapfile.c), swapin_walk_pmd_entry,
force_shm_swapin_readahead (mm/madvise.c), shmem_swapin_folio and shmem_unuse (mm/shmem.c), all v6.12.
Simplifies: reading is complete at once. Omits: several pages by one fault (sizes of mTHP), KSM, zswap, poisoned pages.

PG_reclaim of a page in the swap cache that is not under write-back says, as in the kernel, that it was read ahead.
"""
from mmcore.alloc.page_alloc cimport alloc_pages_node
from mmcore.alloc.page_free cimport free_pages_order
from mmcore.base.errors cimport E_INVAL, E_NOMEM
from mmcore.base.flags cimport PG_anon, PG_lru, PG_mlocked, PG_reclaim, PG_swapbacked, PG_swapcache, PG_uptodate
from mmcore.base.records cimport Page, meta_at, page_at
from mmcore.base.stat_items cimport NS_NR_ANON_PAGES, VE_PGMAJFAULT, VE_PGPGIN, VE_PSWPIN, VE_SWAP_RA, VE_SWAP_RA_HIT, VE_SWPIN_ZERO
from mmcore.base.vm_records cimport (
    FILE_SHMEM, File, MEMCG_ONLINE, MM_ANONPAGES, MM_SWAPENTS, POOL_FILES, POOL_MMS, POOL_SWAP_AREAS, SLOT_ZERO, SWP_SOLIDSTATE,
    SWP_USED, SWP_WRITEOK, SwapArea,
    SwapSlot,
)
from mmcore.phys.lruvec_stat cimport lruvec_stat_mod
from mmcore.reclaim.lru cimport lru_add, lru_add_drain, lru_batched
from mmcore.reclaim.memcg cimport count_memcg_events, memcg_at, page_memcg
from mmcore.reclaim.mlock cimport mlock_folio
from mmcore.reclaim.page_cache cimport cache_insert, mapping_at
from mmcore.reclaim.swap cimport (
    SWP_EXCLUSIVE, folio_free_swap, put_swap_page, swap_area_add, swap_area_disable, swap_area_enable, swap_area_of, swap_area_remove,
    swap_cache_add, swap_cache_del, swap_cache_put_slot, swap_cached_page, swap_free, swap_full, swap_pte_slot, swap_slot_at, swap_synchronous,
)
from mmcore.reclaim.workingset cimport is_shadow, workingset_refault
from mmcore.reclaim.writeback cimport folio_mark_dirty, folio_wait_writeback
from mmcore.sys.charge cimport charge_folio
from mmcore.sys.commit cimport vm_enough_memory, vm_unacct_memory
from mmcore.sys.fault_codes cimport MAJOR, MINOR, OOM
from mmcore.vm.anon_vma cimport anon_vma_prepare
from mmcore.vm.pgtable cimport PTE_ACCESSED, PTE_PSE, PTE_RW, entry_index, mm_at, pte_frame, pte_is_table, pte_mapped, set_entry, table_at, walk_level
from mmcore.vm.prot cimport mkdirty, page_prot
from mmcore.vm.radix cimport radix_leaf, radix_lookup, radix_next, slot_is_swap, slot_swap
from mmcore.vm.rmap cimport anon_mapcount, anon_rmap_exclusive, anon_rmap_first, anon_rmap_share
from mmcore.vm.vma cimport VM_LOCKED, VM_SPECIAL, VM_WRITE

cdef enum:
    GFP_HIGHUSER_MOVABLE = 0x100cca
    GFP_KERNEL = 0xcc0
    RA_HITS_FIRST = 4               # hits that a read-ahead state begins with
    RA_HITS_MAX = 63
    RA_ORDER_CEILING = 5
    # swap_ra_state: previous offset, last window, hits less the first ones (so that all zero is right)
    RA_PREV = 0
    RA_WIN = 1
    RA_HITS = 2


# ---------------------------------------------------------------- one page

cdef inline uint32_t owner_of(Mm* mm, SwapSlot* s, unsigned cpu) noexcept nogil:
    # mem_cgroup_swapin_charge_folio(): the group that the slot was charged to pays, unless it was removed.
    if s.memcg == 0 or memcg_at(mm, s.memcg).flags == MEMCG_ONLINE:
        return s.memcg
    return mm.vm.cpus[cpu].memcg


cdef uint32_t new_page(Mm* mm, uint32_t slot, unsigned cpu) noexcept nogil:
    # A page to read into, charged: page frame + 1.
    cdef int64_t pfn = alloc_pages_node(mm, GFP_HIGHUSER_MOVABLE, 0, cpu, -1, 0)
    cdef Page* p
    if pfn < 0:
        return 0
    p = page_at(mm, <uint32_t>pfn)
    p.private_ = 0
    p.flags |= PG_swapbacked | PG_uptodate
    if mm.vm.g.nr_memcgs and charge_folio(mm, <uint32_t>pfn, 0, owner_of(mm, swap_slot_at(mm, slot), cpu), GFP_KERNEL, cpu):
        p.flags &= ~<uint32_t>(PG_swapbacked | PG_uptodate)
        free_pages_order(mm, <uint32_t>pfn, 0, cpu)
        return 0
    return <uint32_t>pfn + 1


cdef void swap_read_folio(Mm* mm, uint32_t pfn, uint32_t slot) noexcept nogil:
    if swap_slot_at(mm, slot).flags & SLOT_ZERO:
        mm.vm.g.events[VE_SWPIN_ZERO] += 1
        count_memcg_events(mm, page_memcg(mm, pfn), VE_SWPIN_ZERO, 1)
        return
    mm.vm.g.events[VE_PSWPIN] += 1
    mm.vm.g.events[VE_PGPGIN] += 4


cdef inline void came_back(Mm* mm, uint32_t pfn, uint64_t shadow, unsigned cpu) noexcept nogil:
    if is_shadow(shadow):
        workingset_refault(mm, pfn, shadow, cpu)
    lru_add(mm, pfn, cpu)


cdef uint32_t read_swap_cache(Mm* mm, uint32_t slot, unsigned cpu, bint* made) noexcept nogil:
    cdef SwapSlot* s = swap_slot_at(mm, slot)
    cdef uint32_t x = swap_cached_page(mm, slot)
    cdef uint64_t shadow
    made[0] = False
    if x or s.count == 0:
        return x
    x = new_page(mm, slot, cpu)
    if x == 0:
        return 0
    shadow = s.cache
    swap_cache_add(mm, x - 1, slot)
    came_back(mm, x - 1, shadow, cpu)
    swap_read_folio(mm, x - 1, slot)
    made[0] = True
    return x


cdef uint32_t read_alone(Mm* mm, uint32_t slot, unsigned cpu) noexcept nogil:
    # The only user of a slot on a synchronous device takes its page past the swap cache.
    cdef uint32_t x = new_page(mm, slot, cpu)
    if x:
        came_back(mm, x - 1, swap_slot_at(mm, slot).cache, cpu)
        swap_read_folio(mm, x - 1, slot)
    return x


# ---------------------------------------------------------------- read-ahead

cdef bint vma_readahead(Mm* mm) noexcept nogil:
    # swap_use_vma_readahead(): no area is rotational.
    cdef uint32_t i
    if not mm.vm.g.vma_ra_enabled:
        return False
    for i in range(mm.vm.pools[<int>POOL_SWAP_AREAS].used):
        if mm.vm.swap_areas[i].flags & (SWP_USED | SWP_SOLIDSTATE) == SWP_USED:
            return False
    return True


cdef inline uint32_t hits_of(const Vma* v) noexcept nogil:
    return v.ra_hits if v.ra_prev or v.ra_win or v.ra_hits else RA_HITS_FIRST


cdef uint32_t lookup(Mm* mm, Vma* v, uint32_t slot, uint64_t vpn) noexcept nogil:
    # swap_cache_get_folio(): page frame + 1. v NULL: not on behalf of a mapping.
    cdef uint32_t x = swap_cached_page(mm, slot), hits
    cdef Page* p
    cdef bint ahead, by_vma = v != NULL and vma_readahead(mm)
    if x == 0:
        return 0
    p = page_at(mm, x - 1)
    ahead = p.flags & PG_reclaim != 0
    p.flags &= ~<uint32_t>PG_reclaim
    if by_vma:
        hits = hits_of(v) + ahead
        v.ra_prev = vpn << 12
        v.ra_hits = hits if hits < RA_HITS_MAX else RA_HITS_MAX
    if ahead:
        mm.vm.g.events[VE_SWAP_RA_HIT] += 1
        if not by_vma:
            mm.vm.g.swap_ra_state[RA_HITS] += 1
    return x


cdef uint32_t ra_pages(uint64_t before, uint64_t at, int64_t hits, uint32_t most, uint32_t last) noexcept nogil:
    # __swapin_nr_pages()
    cdef int64_t pages = hits + 2, up = 4
    if pages == 2:
        if at != before + 1 and at != before - 1:
            pages = 1
    else:
        while up < pages:
            up <<= 1
        pages = up
    if pages > most:
        pages = most
    if pages < last // 2:
        pages = last // 2
    return <uint32_t>pages


cdef void read_one_ahead(Mm* mm, uint32_t slot, bint wanted, unsigned cpu) noexcept nogil:
    cdef bint made
    cdef uint32_t x = read_swap_cache(mm, slot, cpu, &made)
    if made and not wanted:
        page_at(mm, x - 1).flags |= PG_reclaim
        mm.vm.g.events[VE_SWAP_RA] += 1


cdef uint32_t cluster_window(Mm* mm, uint32_t offset) noexcept nogil:
    # swapin_nr_pages()
    cdef int64_t* state = mm.vm.g.swap_ra_state
    cdef uint32_t most, pages
    cdef int64_t hits
    if mm.vm.g.page_cluster <= 0:
        return 1
    most = <uint32_t>1 << (mm.vm.g.page_cluster if mm.vm.g.page_cluster < 31 else 31)
    hits = state[RA_HITS] + RA_HITS_FIRST
    state[RA_HITS] = -RA_HITS_FIRST
    pages = ra_pages(<uint64_t>state[RA_PREV], offset, hits, most, <uint32_t>state[RA_WIN])
    if hits == 0:
        state[RA_PREV] = offset
    state[RA_WIN] = pages
    return pages


cdef void cluster_readahead(Mm* mm, uint32_t slot, unsigned cpu) noexcept nogil:
    # swap_cluster_readahead(): the aligned block of slots around it.
    cdef SwapArea* a = &mm.vm.swap_areas[swap_area_of(mm, slot - 1) - 1]
    cdef uint32_t offset = slot - 1 - a.first_slot, mask = cluster_window(mm, offset) - 1, at, end
    if mask == 0:
        return
    at = offset & ~mask
    end = offset | mask
    if at == 0:
        at = 1
    if end >= a.max:
        end = a.max - 1
    while at <= end:
        read_one_ahead(mm, a.first_slot + at + 1, at == offset, cpu)
        at += 1
    lru_add_drain(mm, cpu)


cdef void address_readahead(Mm* mm, Vma* v, uint64_t* pte, uint64_t vpn, unsigned cpu) noexcept nogil:
    # swap_vma_readahead(): entries near this one, within the VMA and the table.
    cdef int64_t prev = <int64_t>(v.ra_prev >> 12), left, right, low = <int64_t>(vpn & ~<uint64_t>mm.vm.mask), here = <int64_t>vpn
    cdef int64_t order = mm.vm.g.page_cluster if mm.vm.g.page_cluster < RA_ORDER_CEILING else RA_ORDER_CEILING
    cdef uint32_t win
    cdef uint64_t e
    if order <= 0:
        return
    win = ra_pages(<uint64_t>prev, vpn, hits_of(v), <uint32_t>1 << order, v.ra_win)
    v.ra_prev = vpn << 12
    v.ra_win = win
    v.ra_hits = 0
    if win == 1:
        return
    left = here - <int64_t>((win - 1) // 2)
    if here == prev + 1:
        left = here
    elif prev == here + 1:
        left = here + 1 - <int64_t>win
    right = left + win
    left = max(left, <int64_t>(v.start >> 12), low)
    right = min(right, <int64_t>(v.end >> 12), low + mm.vm.mask + 1)
    while left < right:
        e = pte[left - here]
        if e and not pte_mapped(e):
            read_one_ahead(mm, swap_pte_slot(e), left == here, cpu)
        left += 1
    lru_add_drain(mm, cpu)


cdef uint32_t swapin(Mm* mm, Vma* v, uint64_t* pte, uint64_t vpn, uint32_t slot, unsigned cpu) noexcept nogil:
    # swapin_readahead(): page frame + 1, in the swap cache.
    cdef bint made
    if vma_readahead(mm):
        address_readahead(mm, v, pte, vpn, cpu)
    else:
        cluster_readahead(mm, slot, cpu)
    return read_swap_cache(mm, slot, cpu, &made)


cdef uint32_t swapin_cluster(Mm* mm, uint32_t slot, unsigned cpu, bint* major) noexcept nogil:
    cdef uint32_t x = lookup(mm, NULL, slot, 0)
    cdef bint made
    major[0] = x == 0
    if x == 0:
        cluster_readahead(mm, slot, cpu)
        x = read_swap_cache(mm, slot, cpu, &made)
    return x


# ---------------------------------------------------------------- tmpfs

cdef int64_t shmem_swapin(Mm* mm, uint32_t file, uint64_t index, unsigned cpu, bint* major) noexcept nogil:
    cdef File* f = mapping_at(mm, file)
    cdef uint32_t slot = slot_swap(radix_lookup(mm, f, index)), x = swapin_cluster(mm, slot, cpu, major)
    if x == 0:
        return -E_NOMEM
    folio_wait_writeback(mm, x - 1, cpu)
    page_at(mm, x - 1).flags &= ~<uint32_t>PG_reclaim
    # the leaf stands: it holds the entry of the slot
    swap_cache_del(mm, x - 1, 0)
    cache_insert(mm, file, radix_leaf(mm, f, index), index, x - 1, False)
    swap_cache_put_slot(mm, slot, cpu)
    folio_mark_dirty(mm, x - 1, cpu)
    swap_free(mm, slot, cpu)
    return x - 1


cdef void shmem_willneed(Mm* mm, uint32_t file, uint64_t first, uint64_t end, unsigned cpu) noexcept nogil:
    cdef uint64_t at = first
    cdef uint64_t* value
    cdef bint made
    while at < end:
        value = radix_next(mm, mapping_at(mm, file), &at, end - 1)
        if value == NULL:
            break
        if slot_is_swap(value[0]):
            read_swap_cache(mm, slot_swap(value[0]), cpu, &made)
        at += 1
    lru_add_drain(mm, cpu)


cdef bint shmem_unuse(Mm* mm, SwapArea* a, unsigned cpu) noexcept nogil:
    # Everything that tmpfs has in an area comes back; False: memory ran out.
    cdef uint32_t x
    cdef uint64_t at
    cdef uint64_t* value
    cdef File* f
    cdef bint major
    for x in range(1, mm.vm.pools[<int>POOL_FILES].used + 1):
        f = mapping_at(mm, x)
        if f.id == 0 or not f.flags & FILE_SHMEM:
            continue
        at = 0
        while a.inuse:
            value = radix_next(mm, f, &at, <uint64_t>-1)
            if value == NULL:
                break
            if slot_is_swap(value[0]) and slot_swap(value[0]) - 1 - a.first_slot < a.max and shmem_swapin(mm, x, at, cpu, &major) < 0:
                return False
            at += 1
    return True


# ---------------------------------------------------------------- the fault

cdef inline bint held(Mm* mm, uint32_t pfn) noexcept nogil:
    # Some batch, or someone outside, has a reference beside the swap cache's and those of mappings.
    return not page_at(mm, pfn).flags & PG_lru or meta_at(mm, pfn).extra_refs != 0 or lru_batched(mm, pfn)


cdef inline bint should_free_swap(Mm* mm, Vma* v, uint32_t pfn, bint write) noexcept nogil:
    if not page_at(mm, pfn).flags & PG_swapcache:
        return False
    if swap_full(mm, pfn) or v.flags & VM_LOCKED or page_at(mm, pfn).flags & PG_mlocked:
        return True
    return write and anon_mapcount(mm, pfn) == 0 and not held(mm, pfn)


cdef void map_page(Mm* mm, AddressSpace* m, Vma* v, uint64_t* pte, uint64_t vpn, uint32_t pfn, bint exclusive, uint64_t value, unsigned cpu) noexcept nogil:
    # The entry names the page instead of its slot.
    cdef uint32_t mapped = anon_mapcount(mm, pfn)
    cdef bint known = page_at(mm, pfn).flags & PG_anon != 0
    cdef uint64_t index = v.pgoff + (vpn - (v.start >> 12))
    m.rss[MM_ANONPAGES] += 1
    m.rss[MM_SWAPENTS] -= 1
    set_entry(mm, pte, value)
    if exclusive:
        anon_rmap_exclusive(mm, pfn, entry_index(mm, pte))
    elif mapped:
        anon_rmap_share(mm, pfn, v.anon_vma, index)
    else:
        # the root of the tree covers all who may share it
        anon_rmap_first(mm, pfn, mm.vm.anon_vmas[v.anon_vma - 1].root, index)
    if mapped == 0:
        lruvec_stat_mod(mm, pfn, NS_NR_ANON_PAGES, 1)
    if known and v.flags & (VM_LOCKED | VM_SPECIAL) == VM_LOCKED:
        mlock_folio(mm, pfn, cpu)


cdef int do_swap_page(Mm* mm, AddressSpace* m, uint32_t as_, uint32_t vma, uint64_t* pte, uint64_t vpn, bint write, unsigned cpu) noexcept nogil:
    cdef Vma* v = &mm.vm.vmas[vma - 1]
    cdef uint64_t e = pte[0], value
    cdef uint32_t slot = swap_pte_slot(e), x, pfn
    cdef bint alone = False, exclusive
    cdef int rc = MINOR
    if anon_vma_prepare(mm, vma):
        return OOM
    x = lookup(mm, v, slot, vpn)
    if x == 0:
        if swap_synchronous(mm, slot) and swap_slot_at(mm, slot).count == 1:
            x = read_alone(mm, slot, cpu)
            alone = True
        else:
            x = swapin(mm, v, pte, vpn, slot, cpu)
        if x == 0:
            return OOM
        rc = MAJOR
        mm.vm.g.events[VE_PGMAJFAULT] += 1
        count_memcg_events(mm, m.memcg, VE_PGMAJFAULT, 1)
    pfn = x - 1
    if not alone and write and not page_at(mm, pfn).flags & PG_lru:
        lru_add_drain(mm, cpu)
    swap_free(mm, slot, cpu)
    if not alone and should_free_swap(mm, v, pfn, write):
        folio_free_swap(mm, pfn, cpu)
    exclusive = alone or e & SWP_EXCLUSIVE != 0
    if not exclusive:
        exclusive = not page_at(mm, pfn).flags & PG_swapcache and anon_mapcount(mm, pfn) == 0 and not held(mm, pfn)
    value = page_prot(v.flags, False) | (<uint64_t>pfn << 12)
    if exclusive and v.flags & VM_WRITE:
        value |= PTE_RW
        if write:
            value = mkdirty(value)
    map_page(mm, m, v, pte, vpn, pfn, exclusive, value, cpu)
    return rc | SWAP_WP if write and not exclusive else rc


cdef void swapin_range(Mm* mm, uint32_t as_, uint64_t start, uint64_t end, unsigned cpu) noexcept nogil:
    cdef uint32_t root = mm_at(mm, as_).root - 1
    cdef uint64_t vpn = start >> 12, stop = (end + 4095) >> 12, next_
    cdef uint64_t* e
    cdef bint made
    while vpn < stop:
        next_ = (vpn | mm.vm.mask) + 1
        if next_ > stop:
            next_ = stop
        e = walk_level(mm, root, vpn, 1)
        if e == NULL or not pte_is_table(e[0]):
            vpn = next_
            continue
        e = table_at(mm, <uint32_t>pte_frame(e[0])) + (vpn & mm.vm.mask)
        while vpn < next_:
            if e[0] and not pte_mapped(e[0]):
                read_swap_cache(mm, swap_pte_slot(e[0]), cpu, &made)
            e += 1
            vpn += 1
    lru_add_drain(mm, cpu)


# ---------------------------------------------------------------- areas

cdef int64_t do_swapon(Mm* mm, uint32_t pages, int32_t prio, uint32_t flags, uint32_t name) noexcept nogil:
    return swap_area_add(mm, pages, prio, flags, name)


cdef bint unuse_pte(Mm* mm, AddressSpace* m, Vma* v, uint64_t* pte, uint64_t vpn, unsigned cpu) noexcept nogil:
    cdef uint64_t e = pte[0]
    cdef uint32_t slot = swap_pte_slot(e), x = lookup(mm, v, slot, vpn)
    if x == 0:
        x = swapin(mm, v, pte, vpn, slot, cpu)
        if x == 0:
            return False
    map_page(mm, m, v, pte, vpn, x - 1, e & SWP_EXCLUSIVE != 0, (page_prot(v.flags, False) & ~PTE_ACCESSED) | (<uint64_t>(x - 1) << 12), cpu)
    swap_free(mm, slot, cpu)
    folio_free_swap(mm, x - 1, cpu)
    return True


cdef bint unuse_vma(Mm* mm, AddressSpace* m, Vma* v, SwapArea* a, unsigned cpu) noexcept nogil:
    cdef uint64_t vpn = v.start >> 12, stop = v.end >> 12, next_
    cdef uint64_t* e
    while vpn < stop:
        next_ = (vpn | mm.vm.mask) + 1
        if next_ > stop:
            next_ = stop
        e = walk_level(mm, m.root - 1, vpn, 1)
        if e == NULL or e[0] & PTE_PSE or not pte_is_table(e[0]):
            vpn = next_
            continue
        e = table_at(mm, <uint32_t>pte_frame(e[0])) + (vpn & mm.vm.mask)
        while vpn < next_:
            if e[0] and not pte_mapped(e[0]) and swap_pte_slot(e[0]) - 1 - a.first_slot < a.max and not unuse_pte(mm, m, v, e, vpn, cpu):
                return False
            e += 1
            vpn += 1
    return True


cdef bint try_to_unuse(Mm* mm, SwapArea* a, unsigned cpu) noexcept nogil:
    cdef uint32_t as_, vma, offset, x
    cdef AddressSpace* m
    cdef bint done
    if not shmem_unuse(mm, a, cpu):
        return False
    for as_ in range(1, mm.vm.pools[<int>POOL_MMS].used + 1):
        m = mm_at(mm, as_)
        vma = m.vma_first if m.pid else 0
        while vma and a.inuse:
            if mm.vm.vmas[vma - 1].anon_vma and not unuse_vma(mm, m, &mm.vm.vmas[vma - 1], a, cpu):
                return False
            vma = mm.vm.vmas[vma - 1].next
    for offset in range(1, a.max):
        if a.inuse == 0:
            break
        x = swap_cached_page(mm, a.first_slot + offset + 1)
        if x:
            done = folio_free_swap(mm, x - 1, cpu)
            if done:
                put_swap_page(mm, x - 1, cpu)
    return a.inuse == 0


cdef int do_swapoff(Mm* mm, uint32_t area, unsigned cpu) noexcept nogil:
    cdef SwapArea* a
    cdef uint32_t pages
    if area == 0 or area > mm.vm.pools[<int>POOL_SWAP_AREAS].used or not mm.vm.swap_areas[area - 1].flags & SWP_WRITEOK:
        return -E_INVAL
    a = &mm.vm.swap_areas[area - 1]
    pages = a.pages
    if vm_enough_memory(mm, 0, pages):
        return -E_NOMEM
    vm_unacct_memory(mm, pages)
    swap_area_disable(mm, area)
    if not try_to_unuse(mm, a, cpu):
        swap_area_enable(mm, area)
        return -E_NOMEM
    swap_area_remove(mm, area)
    return 0
