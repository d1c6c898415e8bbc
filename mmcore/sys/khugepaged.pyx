"""khugepaged, and the splitting of folios.

Models: khugepaged_do_scan, hpage_collapse_scan_pmd, collapse_huge_page (mm/khugepaged.c), split_huge_page, deferred_split_scan
(mm/huge_memory.c), v6.12. Simplifies: address spaces are visited in the order in which they registered; a scan takes no time; the
node of the new page is the scanning CPU's. Omits: collapse of files and shmem, swapped pages (they come with swap), the underused
shrinker (contents are not kept, so no page is known to be zero).
"""
from libc.string cimport memset

from mmcore.base.errors cimport E_AGAIN
from mmcore.base.flags cimport PG_head, PG_lru, PG_referenced, PG_unevictable
from mmcore.base.lists cimport list_add
from mmcore.base.records cimport PageMeta, meta_at, page_at
from mmcore.base.stat_items cimport (
    NS_NR_ANON_TRANSPARENT_HUGEPAGES, VE_THP_COLLAPSE_ALLOC, VE_THP_COLLAPSE_ALLOC_FAILED, VE_THP_SCAN_EXCEED_NONE_PTE,
    VE_THP_SCAN_EXCEED_SHARE_PTE, VE_THP_SCAN_EXCEED_SWAP_PTE, VE_THP_SPLIT_PAGE, VE_THP_SPLIT_PAGE_FAILED,
)
from mmcore.base.vm_records cimport AddressSpace, MM_ANONPAGES, POOL_MMS, Vma
from mmcore.phys.lruvec_stat cimport lruvec_stat_mod
from mmcore.reclaim.lru cimport lru_add, lru_add_drain
from mmcore.reclaim.mlock cimport mlock_new_folio, munlock_folio
from mmcore.sys.charge cimport alloc_charged
from mmcore.sys.flush cimport flush_range
from mmcore.sys.gather cimport Gather, gather_flush, gather_init, gather_page
from mmcore.sys.tables cimport deposit_table
from mmcore.sys.thp cimport (
    count_anon, folio_head, folio_likely_shared, large_partial, large_rmap_remove, queue_deferred, split_huge_pmd, unqueue_deferred,
    vma_allows_huge,
)
from mmcore.vm.pgtable cimport (
    PTE_ACCESSED, PTE_PSE, PTE_RW, PTE_SPECIAL, entry_index, mm_at, pte_frame, pte_is_table, pte_mapped, set_entry, table_at, walk_level,
)
from mmcore.vm.prot cimport mkdirty, page_prot
from mmcore.vm.rmap cimport (
    ANON_FLAGS, NS_NR_ANON_PAGES, PG_ORDER_MASK, PG_ORDER_SHIFT, PG_anon_exclusive, PG_meta, anon_rmap_remove,
    page_index, page_is_anon, set_page_index,
)
from mmcore.vm.vma cimport VM_LOCKED, VM_WRITE, find_vma

cdef enum:
    PMD_ORDER = 9
    PMD_PAGES = 512
    GFP_TRANSHUGE = 0x1c24ca            # GFP_TRANSHUGE_LIGHT | __GFP_DIRECT_RECLAIM


cdef int scan_table(Mm* mm, uint64_t* t, bint advised, int* none) noexcept nogil:
    # hpage_collapse_scan_pmd(): may these entries become one?
    cdef int i, swap = 0, shared = 0
    cdef bint writable = False, referenced = False
    cdef uint64_t e
    cdef uint32_t pfn, head, flags
    none[0] = 0
    for i in range(PMD_PAGES):
        e = t[i]
        if e == 0 or e & PTE_SPECIAL:
            none[0] += 1
            if not advised and none[0] > mm.vm.g.khugepaged_max_ptes_none:
                mm.vm.g.events[VE_THP_SCAN_EXCEED_NONE_PTE] += 1
                return SCAN_EXCEED_NONE
            continue
        if not pte_mapped(e):
            swap += 1
            if not advised and swap > mm.vm.g.khugepaged_max_ptes_swap:
                mm.vm.g.events[VE_THP_SCAN_EXCEED_SWAP_PTE] += 1
                return SCAN_EXCEED_SWAP
            continue
        writable = writable or e & PTE_RW
        pfn = <uint32_t>pte_frame(e)
        head = folio_head(mm, pfn)
        flags = page_at(mm, head).flags
        if not page_is_anon(flags):
            return SCAN_PAGE_ANON
        if folio_likely_shared(mm, head):
            shared += 1
            if not advised and shared > mm.vm.g.khugepaged_max_ptes_shared:
                mm.vm.g.events[VE_THP_SCAN_EXCEED_SHARE_PTE] += 1
                return SCAN_EXCEED_SHARED
        if not flags & PG_lru or meta_at(mm, head).extra_refs:
            return SCAN_PAGE_STATE
        referenced = referenced or e & PTE_ACCESSED or flags & PG_referenced
    if not writable:
        return SCAN_PAGE_RO
    if not advised and not referenced:
        return SCAN_LACK_REFERENCED
    return SCAN_PAGE_ANON if swap else SCAN_SUCCEED


cdef int collapse_block(Mm* mm, uint32_t as_, uint64_t address, bint advised, unsigned cpu) noexcept nogil:
    cdef AddressSpace* m = mm_at(mm, as_)
    cdef uint64_t vpn = address >> 12 & ~<uint64_t>(PMD_PAGES - 1), e
    cdef uint32_t vma = find_vma(mm, as_, vpn << 12), slot, pfn, head, new_
    cdef Vma* v
    cdef uint64_t* pmd
    cdef uint64_t* t
    cdef int none, rc, i
    cdef int64_t got
    cdef Gather g
    cdef bint lost
    if vma == 0:
        return SCAN_VMA
    v = &mm.vm.vmas[vma - 1]
    if v.start > vpn << 12 or v.end < (vpn + PMD_PAGES) << 12 or not vma_allows_huge(mm, v, advised):
        return SCAN_VMA
    pmd = walk_level(mm, m.root - 1, vpn, 1)
    if pmd == NULL or pmd[0] == 0:
        return SCAN_PMD_NULL
    if not pte_is_table(pmd[0]):
        return SCAN_PMD_MAPPED
    lru_add_drain(mm, cpu)
    slot = <uint32_t>pte_frame(pmd[0])
    t = table_at(mm, slot)
    rc = scan_table(mm, t, advised, &none)
    if rc != SCAN_SUCCEED:
        return rc
    got = alloc_charged(mm, GFP_TRANSHUGE, PMD_ORDER, m.memcg, cpu)
    if got < 0:
        mm.vm.g.events[VE_THP_COLLAPSE_ALLOC_FAILED] += 1
        return SCAN_ALLOC_FAIL
    mm.vm.g.events[VE_THP_COLLAPSE_ALLOC] += 1
    new_ = <uint32_t>got
    gather_init(&g, cpu)
    for i in range(PMD_PAGES):
        e = t[i]
        if e == 0:
            continue
        set_entry(mm, &t[i], 0)
        if e & PTE_SPECIAL:
            continue
        pfn = <uint32_t>pte_frame(e)
        head = folio_head(mm, pfn)
        if v.flags & VM_LOCKED:
            munlock_folio(mm, head, cpu)
        if head != pfn or page_at(mm, head).flags & (PG_ORDER_MASK << PG_ORDER_SHIFT):
            lost = False
            if large_rmap_remove(mm, head, pfn, &lost):
                gather_page(mm, &g, head)
            elif lost:
                large_partial(mm, head)
        elif anon_rmap_remove(mm, pfn):
            lruvec_stat_mod(mm, pfn, NS_NR_ANON_PAGES, -1)
            gather_page(mm, &g, pfn)
    set_entry(mm, pmd, 0)
    flush_range(mm, as_, vpn << 12, (vpn + PMD_PAGES) << 12, 12, True, cpu)
    mm.vm.table_info[slot].parent = 0
    mm.vm.table_info[slot].base = 0
    deposit_table(mm, as_, slot)
    e = mkdirty(page_prot(v.flags, False) | PTE_PSE | (<uint64_t>new_ << 12))
    if v.flags & VM_WRITE:
        e |= PTE_RW
    set_entry(mm, pmd, e)
    page_at(mm, new_).flags |= ANON_FLAGS
    page_at(mm, new_).private_ = entry_index(mm, pmd) + 1
    lruvec_stat_mod(mm, new_, NS_NR_ANON_PAGES, PMD_PAGES)
    lruvec_stat_mod(mm, new_, NS_NR_ANON_TRANSPARENT_HUGEPAGES, PMD_PAGES)
    m.rss[MM_ANONPAGES] += none
    count_anon(mm, new_, 1)
    if v.flags & VM_LOCKED:
        mlock_new_folio(mm, new_, cpu)
    else:
        lru_add(mm, new_, cpu)
    queue_deferred(mm, new_, False)
    mm.vm.g.khugepaged_pages_collapsed += 1
    gather_flush(mm, &g)
    return SCAN_SUCCEED


# ---------------------------------------------------------------- the daemon

cdef uint32_t next_registered(Mm* mm, uint32_t first) noexcept nogil:
    # The address space with the lowest registration from `first` on; index + 1, 0: none.
    cdef uint32_t i, best = 0, slot = 0xffffffff
    for i in range(mm.vm.pools[POOL_MMS].used):
        if mm.vm.mms[i].pid and mm.vm.mms[i].khugepaged_slot and first <= mm.vm.mms[i].khugepaged_slot < slot:
            slot = mm.vm.mms[i].khugepaged_slot
            best = i + 1
    return best


cdef int64_t scan_space(Mm* mm, uint32_t as_, int64_t budget, bint* finished, int* rc, unsigned cpu) noexcept nogil:
    # khugepaged_scan_mm_slot(): from khugepaged_address on; what it counts as scanned. A collapse, tried or done, ends the turn.
    cdef int64_t progress = 1
    cdef uint64_t* address = &mm.vm.g.khugepaged_address
    cdef uint32_t vma = find_vma(mm, as_, address[0])
    cdef Vma* v
    cdef uint64_t first, end
    finished[0] = False
    rc[0] = SCAN_VMA
    while vma:
        v = &mm.vm.vmas[vma - 1]
        vma = v.next
        first = (v.start + (1 << 21) - 1) & ~<uint64_t>((1 << 21) - 1)
        end = v.end & ~<uint64_t>((1 << 21) - 1)
        if not vma_allows_huge(mm, v, False) or address[0] > end:
            progress += 1
            continue
        if address[0] < first:
            address[0] = first
        while address[0] < end:
            rc[0] = collapse_block(mm, as_, address[0], False, cpu)
            address[0] += 1 << 21
            progress += PMD_PAGES
            if rc[0] == SCAN_SUCCEED or rc[0] == SCAN_ALLOC_FAIL or progress >= budget:
                return progress
    finished[0] = True
    return progress


cdef void khugepaged_do_scan(Mm* mm, unsigned cpu) noexcept nogil:
    # The cursor (khugepaged_mm) is a registration: that of an address space which has exited makes way for the next one.
    cdef int64_t progress = 0, pages = mm.vm.g.khugepaged_pages_to_scan
    cdef uint32_t as_
    cdef int starts = 0, failed = 0, rc
    cdef bint finished
    while progress < pages:
        starts += mm.vm.g.khugepaged_mm == 0
        if starts == 2:
            break               # everything was seen
        as_ = next_registered(mm, mm.vm.g.khugepaged_mm)
        if as_ and mm.vm.mms[as_ - 1].khugepaged_slot == mm.vm.g.khugepaged_mm:
            progress += scan_space(mm, as_, pages - progress, &finished, &rc, cpu)
            if rc == SCAN_ALLOC_FAIL:
                failed += 1
                if failed == 2:
                    break
            if not finished:
                continue
            as_ = next_registered(mm, mm.vm.g.khugepaged_mm + 1)
        elif as_ == 0 and mm.vm.g.khugepaged_mm == 0:
            break               # no one has registered
        mm.vm.g.khugepaged_address = 0
        mm.vm.g.khugepaged_mm = mm.vm.mms[as_ - 1].khugepaged_slot if as_ else 0
        if as_ == 0:
            mm.vm.g.khugepaged_full_scans += 1


# ---------------------------------------------------------------- splitting

cdef void split_pmds(Mm* mm, uint32_t head, unsigned cpu) noexcept nogil:
    # Every PMD that maps the folio becomes a table.
    cdef uint32_t a, as_
    cdef uint64_t index, vpn, at
    cdef Vma* v
    cdef uint64_t* e
    if meta_at(mm, head).mapcount == 0:
        a = page_at(mm, head).private_ - 1
        at = mm.vm.table_info[a >> mm.vm.bits].base + (<uint64_t>(a & mm.vm.mask) << mm.vm.bits)
        split_huge_pmd(mm, mm.vm.table_info[a >> mm.vm.bits].mm, mm.vm.tables + a, at, cpu)
        return
    index = page_index(meta_at(mm, head))
    a = mm.vm.anon_vmas[page_at(mm, head).private_ - 1].avc_first
    while a:
        v = &mm.vm.vmas[mm.vm.avcs[a - 1].vma - 1]
        as_ = v.mm
        if index + PMD_PAGES > v.pgoff and index < v.pgoff + ((v.end - v.start) >> 12):
            vpn = (v.start >> 12) + index - v.pgoff
            e = walk_level(mm, mm_at(mm, as_).root - 1, vpn, 1)
            if e != NULL and e[0] & PTE_PSE and pte_frame(e[0]) == head:
                split_huge_pmd(mm, as_, e, vpn, cpu)
        a = mm.vm.avcs[a - 1].same_anon_next


cdef uint64_t* find_entry(Mm* mm, uint32_t anon_vma, uint64_t index, uint32_t pfn) noexcept nogil:
    # rmap walk: the first small entry that maps page `pfn` of an anon_vma at `index`.
    cdef uint32_t a = mm.vm.anon_vmas[anon_vma - 1].avc_first
    cdef Vma* v
    cdef uint64_t* e
    while a:
        v = &mm.vm.vmas[mm.vm.avcs[a - 1].vma - 1]
        if v.pgoff <= index < v.pgoff + ((v.end - v.start) >> 12):
            e = walk_level(mm, mm_at(mm, v.mm).root - 1, (v.start >> 12) + index - v.pgoff, 0)
            if e != NULL and pte_mapped(e[0]) and pte_frame(e[0]) == pfn:
                return e
        a = mm.vm.avcs[a - 1].same_anon_next
    return NULL


cdef int split_folio(Mm* mm, uint32_t head, unsigned cpu) noexcept nogil:
    cdef unsigned order = page_at(mm, head).flags >> PG_ORDER_SHIFT & PG_ORDER_MASK
    cdef uint32_t n = <uint32_t>1 << order, i, pfn, maps, anon_vma, flags, first_maps, lru_after
    cdef uint64_t index
    cdef uint64_t* e

    if meta_at(mm, head).extra_refs or not page_is_anon(page_at(mm, head).flags):
        mm.vm.g.events[VE_THP_SPLIT_PAGE_FAILED] += order == PMD_ORDER
        return -E_AGAIN
    lru_add_drain(mm, cpu)
    if page_at(mm, head).flags & (PG_lru | PG_unevictable) != PG_lru:
        # an unevictable one stands on no list behind which its tails could go
        mm.vm.g.events[VE_THP_SPLIT_PAGE_FAILED] += order == PMD_ORDER
        return -E_AGAIN
    if order == PMD_ORDER:
        split_pmds(mm, head, cpu)
    unqueue_deferred(mm, head)
    count_anon(mm, head, -1)
    mm.vm.g.events[VE_THP_SPLIT_PAGE] += order == PMD_ORDER
    anon_vma = page_at(mm, head).private_
    index = page_index(meta_at(mm, head))
    first_maps = meta_at(mm, head + 1).index_lo
    flags = page_at(mm, head).flags & ~<uint32_t>(PG_head | PG_meta | PG_anon_exclusive | (PG_ORDER_MASK << PG_ORDER_SHIFT))
    lru_after = head + 1
    for i in range(n):
        pfn = head + i
        maps = first_maps if i == 0 else meta_at(mm, pfn).mapcount
        memset(meta_at(mm, pfn), 0, sizeof(PageMeta))
        page_at(mm, pfn).flags = flags | (page_at(mm, pfn).flags & PG_anon_exclusive)
        if i:
            if mm.vm.g.nr_memcgs:
                mm.vm.memcg_of[pfn] = mm.vm.memcg_of[head]
            # each tail stands on the LRU list behind the one before it
            list_add(mm.link, lru_after, pfn + 1)
            lru_after = pfn + 1
        page_at(mm, pfn).private_ = 0
        if maps == 0:
            continue
        if page_at(mm, pfn).flags & PG_anon_exclusive:
            e = find_entry(mm, anon_vma, index + i, pfn)
            if e != NULL:
                page_at(mm, pfn).private_ = entry_index(mm, e) + 1
                continue
        page_at(mm, pfn).private_ = anon_vma
        page_at(mm, pfn).flags |= PG_meta
        meta_at(mm, pfn).mapcount = maps
        set_page_index(meta_at(mm, pfn), index + i)
    free_unmapped(mm, head, n, cpu)
    return 0


cdef void free_unmapped(Mm* mm, uint32_t head, uint32_t n, unsigned cpu) noexcept nogil:
    cdef Gather g
    cdef uint32_t i
    gather_init(&g, cpu)
    for i in range(n):
        if page_at(mm, head + i).private_ == 0:
            gather_page(mm, &g, head + i)
    gather_flush(mm, &g)


cdef int64_t deferred_split_scan(Mm* mm, int64_t nr, unsigned cpu) noexcept nogil:
    cdef uint32_t x = mm.vm.g.deferred_head, next_, head
    cdef int64_t split = 0
    while x and nr > 0:
        next_ = mm.link[x].next
        head = x - 2
        nr -= 1
        if mm.link[x].private_ & 2:     # mapped in part
            split += split_folio(mm, head, cpu) == 0
        else:
            unqueue_deferred(mm, head)  # wholly mapped, and not known to be underused: it is not looked at again
        x = next_
    return split
