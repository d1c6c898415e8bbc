"""What becomes of each page that reclaim has isolated.

Models: shrink_folio_list, folio_check_references, pageout, __remove_mapping and the release of what was freed in batches of 31
(mm/vmscan.c), shmem_writepage (mm/shmem.c), v6.12. Simplifies: no page is found locked.
Omits: large folios (they are kept active until they can be split here),
demotion to slower nodes, pages pinned for DMA, filesystems' private data.
"""
from libc.string cimport memset

from mmcore.base.flags cimport (
    PG_active, PG_anon, PG_dirty, PG_head, PG_hwpoison, PG_meta, PG_mlocked, PG_reclaim, PG_referenced, PG_swapbacked,
    PG_swapcache, PG_unevictable, PG_writeback,
)
from mmcore.base.gfp cimport GFP_FS_BIT, GFP_IO_BIT
from mmcore.base.records cimport NODE_DIRTY, NODE_WRITEBACK, Page, PageMeta, meta_at, page_at
from mmcore.base.stat_items cimport (
    NS_NR_VMSCAN_IMMEDIATE_RECLAIM, NS_NR_VMSCAN_WRITE, VE_PGACTIVATE, VE_PGLAZYFREED,
)
from mmcore.phys.buddy cimport pageblock_mt, zone_of
from mmcore.phys.pcp cimport free_to_pcp
from mmcore.reclaim.lru cimport folio_nr_pages, lru_batched
from mmcore.reclaim.memcg cimport count_memcg_events, lruvec_stat_mod, page_memcg, uncharge_pages
from mmcore.reclaim.page_cache cimport page_cache_evict, page_cache_to_swap
from mmcore.reclaim.rmap_walk cimport Referenced, folio_mapped, folio_referenced, try_to_unmap
from mmcore.reclaim.swap cimport (
    folio_alloc_swap, folio_free_swap, page_swap_slot, swap_cache_add, swap_cache_del, swap_cache_put_slot, swap_full, swap_writepage,
)
from mmcore.reclaim.workingset cimport workingset_eviction
from mmcore.reclaim.writeback cimport folio_clear_dirty_for_io, folio_mark_dirty
from mmcore.vm.rmap cimport page_is_file
from mmcore.vm.tlb cimport Tlb, tlb_batch_flush
from mmcore.vm.vma cimport VM_EXEC

cdef enum:
    FREE_BATCH = 31

# What folio_check_references() finds.
cdef enum:
    REFS_RECLAIM = 0
    REFS_RECLAIM_CLEAN = 1
    REFS_KEEP = 2
    REFS_ACTIVATE = 3

# What happens to the folio.
cdef enum:
    FREE = 0
    KEEP = 1
    ACTIVATE = 2


cdef inline bint is_file_lru(uint32_t flags) noexcept nogil:
    return not flags & PG_swapbacked


cdef inline void flush_tlb(Mm* mm, unsigned cpu) noexcept nogil:
    if mm.vm.tlb != NULL:
        tlb_batch_flush(<Tlb*>mm.vm.tlb, cpu, NULL)


cdef void free_batch(Mm* mm, uint32_t* pfns, int64_t n, unsigned cpu) noexcept nogil:
    # free_unref_folios(): what has lost its last reference goes to this CPU's lists, in order.
    cdef int64_t k
    cdef uint32_t zi
    cdef Page* p
    if mm.vm.g.nr_memcgs:
        uncharge_pages(mm, pfns, n)
    flush_tlb(mm, cpu)
    for k in range(n):
        p = page_at(mm, pfns[k])
        zi = zone_of(mm, pfns[k]) - 1
        if p.flags & PG_meta:
            memset(meta_at(mm, pfns[k]), 0, sizeof(PageMeta))
        p.private_ = 0
        if p.flags & PG_hwpoison:
            p.flags = PG_hwpoison
            continue
        p.flags = 0
        p.next = p.prev = 0
        free_to_pcp(mm, &mm.zones[zi], &mm.pcps[zi * mm.g.nr_cpus + cpu], pfns[k], 0, pageblock_mt(mm, pfns[k]))


cdef int check_references(Mm* mm, uint32_t pfn, ScanControl* sc) noexcept nogil:
    cdef Referenced r
    cdef Page* p = page_at(mm, pfn)
    cdef bint second, file = is_file_lru(p.flags)
    r.nr = 0
    r.locked = False
    r.vm_flags = 0
    if folio_mapped(mm, pfn):
        folio_referenced(mm, pfn, sc.target, &r)
    second = p.flags & PG_referenced != 0
    p.flags &= ~<uint32_t>PG_referenced
    if r.locked:
        return REFS_ACTIVATE
    if r.nr:
        p.flags |= PG_referenced
        if second or r.nr > 1 or (r.vm_flags & VM_EXEC and file):
            return REFS_ACTIVATE
        return REFS_KEEP
    return REFS_RECLAIM_CLEAN if second and file else REFS_RECLAIM


cdef int anon_slot(Mm* mm, uint32_t pfn, ScanControl* sc) noexcept nogil:
    # add_to_swap(): a page that may leave memory needs a place outside.
    cdef uint32_t slot
    if not sc.gfp & GFP_IO_BIT:
        return KEEP
    slot = folio_alloc_swap(mm, pfn, sc.cpu)
    if slot == 0:
        return ACTIVATE
    swap_cache_add(mm, pfn, slot)
    page_at(mm, pfn).flags = (page_at(mm, pfn).flags | PG_dirty) & ~<uint32_t>PG_reclaim
    return FREE


cdef int pageout(Mm* mm, uint32_t pfn, uint32_t node, ScanControl* sc, ReclaimStat* stat) noexcept nogil:
    # A dirty page: only swap and tmpfs can be written from here.
    cdef Page* p = page_at(mm, pfn)
    cdef int rc
    cdef uint32_t slot
    cdef bint shmem = p.flags & (PG_swapcache | PG_swapbacked) == PG_swapbacked and page_is_file(p.flags)
    if shmem:
        # is_page_cache_freeable()
        if p.flags & PG_meta and meta_at(mm, pfn).extra_refs or lru_batched(mm, pfn):
            return KEEP
    elif not p.flags & PG_swapcache:
        return ACTIVATE
    flush_tlb(mm, sc.cpu)
    folio_clear_dirty_for_io(mm, pfn)
    p.flags |= PG_reclaim
    if shmem:
        slot = folio_alloc_swap(mm, pfn, sc.cpu) if mm.g.total_swap_pages else 0
        if slot == 0:
            folio_mark_dirty(mm, pfn, sc.cpu)
            p.flags &= ~<uint32_t>PG_reclaim
            return ACTIVATE
        page_cache_to_swap(mm, pfn, slot)
    rc = swap_writepage(mm, pfn, sc.cpu)
    if rc < 0:
        folio_mark_dirty(mm, pfn, sc.cpu)
        p.flags &= ~<uint32_t>PG_reclaim
        return ACTIVATE
    if not p.flags & PG_writeback:
        p.flags &= ~<uint32_t>PG_reclaim
    lruvec_stat_mod(mm, pfn, NS_NR_VMSCAN_WRITE, 1)
    stat.nr_pageout += 1
    return KEEP if p.flags & (PG_writeback | PG_dirty) else FREE


cdef int remove_mapping(Mm* mm, uint32_t pfn, ScanControl* sc) noexcept nogil:
    # The page has no user left but the cache it is in: out of that, a shadow in its place.
    cdef Page* p = page_at(mm, pfn)
    cdef uint32_t target = sc.target - 1 if sc.target else 0, slot
    if p.flags & PG_dirty or (p.flags & PG_meta and meta_at(mm, pfn).extra_refs) or lru_batched(mm, pfn):
        return KEEP
    if p.flags & PG_swapcache:
        slot = page_swap_slot(mm, pfn)
        swap_cache_del(mm, pfn, workingset_eviction(mm, pfn, target))
        swap_cache_put_slot(mm, slot, sc.cpu)
        return FREE
    page_cache_evict(mm, pfn, workingset_eviction(mm, pfn, target) if is_file_lru(p.flags) else 0, sc.cpu)
    return FREE


cdef int one_folio(Mm* mm, uint32_t pfn, uint32_t node, ScanControl* sc, ReclaimStat* stat, bint ignore_references) noexcept nogil:
    cdef Page* p = page_at(mm, pfn)
    cdef int refs = REFS_RECLAIM, rc
    cdef bint dirty, file
    cdef unsigned node_flags = mm.nodes[node].flags
    sc.nr_scanned += folio_nr_pages(p.flags)
    if p.flags & PG_unevictable or p.flags & PG_mlocked:
        return ACTIVATE
    if not sc.may_unmap and folio_mapped(mm, pfn):
        return KEEP
    file = page_is_file(p.flags) and not p.flags & PG_swapbacked
    if file and p.flags & (PG_dirty | PG_writeback):
        stat.nr_dirty += 1
        if not p.flags & PG_writeback:
            stat.nr_unqueued_dirty += 1
    if file and p.flags & PG_writeback and p.flags & PG_reclaim:
        stat.nr_congested += 1
    if p.flags & PG_writeback:
        if sc.kswapd and p.flags & PG_reclaim and node_flags & NODE_WRITEBACK:
            stat.nr_immediate += 1
        else:
            p.flags |= PG_reclaim
            stat.nr_writeback += 1
        return ACTIVATE
    if not ignore_references:
        refs = check_references(mm, pfn, sc)
        if refs == REFS_ACTIVATE:
            return ACTIVATE
        if refs == REFS_KEEP:
            stat.nr_ref_keep += 1
            return KEEP
    if p.flags & PG_head:
        return ACTIVATE
    if p.flags & PG_anon and p.flags & PG_swapbacked and not p.flags & PG_swapcache:
        rc = anon_slot(mm, pfn, sc)
        if rc != FREE:
            return rc
    if folio_mapped(mm, pfn) and not try_to_unmap(mm, pfn, sc.cpu):
        stat.nr_unmap_fail += 1
        return ACTIVATE
    dirty = p.flags & PG_dirty != 0
    if dirty and p.flags & (PG_anon | PG_swapbacked) != PG_anon:
        if is_file_lru(p.flags) and not (sc.kswapd and p.flags & PG_reclaim and node_flags & NODE_DIRTY):
            lruvec_stat_mod(mm, pfn, NS_NR_VMSCAN_IMMEDIATE_RECLAIM, 1)
            p.flags |= PG_reclaim
            return ACTIVATE
        if refs == REFS_RECLAIM_CLEAN or not sc.may_writepage:
            return KEEP
        if not sc.gfp & GFP_FS_BIT and not (p.flags & PG_swapcache and sc.gfp & GFP_IO_BIT):
            return KEEP
        rc = pageout(mm, pfn, node, sc, stat)
        if rc != FREE:
            return rc
    if p.flags & (PG_anon | PG_swapbacked) == PG_anon and not page_is_file(p.flags):
        # freed lazily
        if p.flags & PG_meta and meta_at(mm, pfn).extra_refs:
            return KEEP
        mm.vm.g.events[VE_PGLAZYFREED] += 1
        count_memcg_events(mm, page_memcg(mm, pfn), VE_PGLAZYFREED, 1)
        return FREE
    return remove_mapping(mm, pfn, sc)


cdef int64_t shrink_folio_list(Mm* mm, uint32_t* pfns, int64_t n, uint32_t node, ScanControl* sc, ReclaimStat* stat, bint ignore_references,
                               int64_t* nr_kept) noexcept nogil:
    cdef uint32_t freed[31]
    cdef int64_t k, kept = 0, nr_freed = 0, total = 0, pages
    cdef Page* p
    cdef int what
    memset(stat, 0, sizeof(ReclaimStat))
    for k in range(n):
        p = page_at(mm, pfns[k])
        what = one_folio(mm, pfns[k], node, sc, stat, ignore_references)
        if what == FREE:
            freed[nr_freed] = pfns[k]
            nr_freed += 1
            total += 1
            if nr_freed == FREE_BATCH:
                free_batch(mm, freed, nr_freed, sc.cpu)
                nr_freed = 0
            continue
        if what == ACTIVATE:
            if p.flags & PG_swapcache and (p.flags & PG_mlocked or swap_full(mm, pfns[k])):
                folio_free_swap(mm, pfns[k], sc.cpu)
            if not p.flags & PG_mlocked:
                pages = folio_nr_pages(p.flags)
                p.flags |= PG_active
                stat.nr_activate += pages
                count_memcg_events(mm, page_memcg(mm, pfns[k]), VE_PGACTIVATE, <unsigned long>pages)
        pfns[kept] = pfns[k]
        kept += 1
    if nr_freed:
        free_batch(mm, freed, nr_freed, sc.cpu)
    else:
        flush_tlb(mm, sc.cpu)
    mm.vm.g.events[VE_PGACTIVATE] += <unsigned long>stat.nr_activate
    nr_kept[0] = kept
    return total
