"""Transparent huge pages: what a PMD maps, and folios that are mapped in parts.

Models: do_huge_pmd_anonymous_page, do_huge_pmd_wp_page, __split_huge_pmd_locked, zap_huge_pmd, copy_huge_pmd, the huge zero page
(mm/huge_memory.c), alloc_anon_folio (mm/memory.c), folio_add/remove_rmap of large anonymous folios (mm/rmap.c), v6.12. Simplifies: one
deferred-split queue for the machine. Omits: huge pages of files and shmem, splitting and collapsing folios (sys/khugepaged).

A large folio that one PMD maps alone names that entry (private_) and has no cold record. In every other case private_ is its anon_vma and:
  meta[head].mapcount      all mappings: small ones and PMDs            meta[head].index   index of its first page
  meta[head + i].mapcount  small mappings of page i > 0                 meta[head + 1].index_lo   small mappings of the first page
  meta[head + 2].index_lo  PMDs that map it as a whole                  meta[head + 3].index_lo   pages mapped at all
PG_anon_exclusive is kept page by page. While it is queued for splitting, the second page's links are the queue's.
"""
from libc.string cimport memset

from mmcore.alloc.page_alloc cimport alloc_pages_node
from mmcore.alloc.page_free cimport free_pages_order
from mmcore.base.errors cimport E_NOMEM
from mmcore.base.flags cimport OWNER_ZERO, PG_lru, PG_mlocked, PG_owned, PG_swapcache
from mmcore.base.gfp cimport GFP_DIRECT_RECLAIM_BIT, GFP_KSWAPD_RECLAIM_BIT, GFP_NORETRY_BIT
from mmcore.base.records cimport Page, PageMeta, meta_at, page_at
from mmcore.base.stat_items cimport (
    NS_NR_ANON_TRANSPARENT_HUGEPAGES, VE_THP_DEFERRED_SPLIT_PAGE, VE_THP_FAULT_ALLOC, VE_THP_FAULT_FALLBACK, VE_THP_SPLIT_PMD,
    VE_THP_ZERO_PAGE_ALLOC, VE_THP_ZERO_PAGE_ALLOC_FAILED,
)
from mmcore.base.vm_records cimport AddressSpace, MM_ANONPAGES
from mmcore.phys.lruvec_stat cimport lruvec_stat_mod
from mmcore.reclaim.lru cimport lru_add, lru_add_drain
from mmcore.reclaim.mlock cimport mlock_new_folio, munlock_folio
from mmcore.sys.charge cimport alloc_charged
from mmcore.sys.fault_codes cimport MINOR, OOM
from mmcore.sys.flush cimport flush_range
from mmcore.sys.gather cimport gather_page
from mmcore.sys.tables cimport deposit_table, table_free, table_new, withdraw_table
from mmcore.vm.anon_vma cimport anon_vma_prepare
from mmcore.vm.pgtable cimport (
    PTE_ACCESSED, PTE_DIRTY, PTE_PSE, PTE_RW, PTE_SPECIAL, entry_index, link_table, mm_at, pte_frame, set_entry, table_at, walk_level,
)
from mmcore.vm.prot cimport mkdirty, page_prot
from mmcore.vm.rmap cimport (
    ANON_FLAGS, NS_NR_ANON_PAGES, PG_ORDER_MASK, PG_ORDER_SHIFT, PG_allocated, PG_anon_exclusive, PG_meta, set_page_index,
)
from mmcore.vm.vma cimport (
    VM_GROWSDOWN, VM_HUGEPAGE, VM_HUGETLB, VM_LOCKED, VM_NOHUGEPAGE, VM_RAND_READ, VM_SEQ_READ, VM_SHARED, VM_SPECIAL, VM_WRITE, find_vma,
)

cdef enum:
    PMD_ORDER = 9
    PMD_PAGES = 512
    GFP_HIGHUSER_MOVABLE = 0x100cca
    GFP_TRANSHUGE_LIGHT = 0x1c20ca      # HIGHUSER_MOVABLE | COMP | NOMEMALLOC | NOWARN, without reclaim
    GFP_ZERO = 0x100
    QUEUED = 1                          # in private_ of a queued folio's second page
    PARTIAL = 2
    MTHP_ALLOC = 0
    MTHP_FALLBACK = 1
    MTHP_DEFERRED = 2
    MTHP_NR_ANON = 3


cdef uint32_t folio_head(Mm* mm, uint32_t pfn) noexcept nogil:
    cdef unsigned k
    cdef uint32_t head, flags
    for k in range(11):
        head = pfn & ~((<uint32_t>1 << k) - 1)
        flags = page_at(mm, head).flags
        if flags & PG_allocated and pfn - head < <uint32_t>1 << (flags >> PG_ORDER_SHIFT & PG_ORDER_MASK):
            return head
    return pfn


cdef inline unsigned folio_order(Mm* mm, uint32_t head) noexcept nogil:
    return page_at(mm, head).flags >> PG_ORDER_SHIFT & PG_ORDER_MASK


# ---------------------------------------------------------------- counts of a large folio

cdef inline uint32_t* small_count(Mm* mm, uint32_t head, uint32_t pfn) noexcept nogil:
    return &meta_at(mm, head + 1).index_lo if pfn == head else &meta_at(mm, pfn).mapcount


cdef inline uint32_t* entire_count(Mm* mm, uint32_t head) noexcept nogil:
    return &meta_at(mm, head + 2).index_lo


cdef inline uint32_t* pages_mapped(Mm* mm, uint32_t head) noexcept nogil:
    return &meta_at(mm, head + 3).index_lo


cdef bint folio_likely_shared(Mm* mm, uint32_t head) noexcept nogil:
    cdef PageMeta* m = meta_at(mm, head)
    if m.mapcount <= 1:
        return False
    if folio_order(mm, head) == 0 or entire_count(mm, head)[0] or m.mapcount > <uint32_t>1 << folio_order(mm, head):
        return True
    return small_count(mm, head, head)[0] > 1


cdef void count_anon(Mm* mm, uint32_t head, int nr) noexcept nogil:
    cdef uint64_t* n = &mm.vm.g.mthp[folio_order(mm, head) * 4 + MTHP_NR_ANON]
    n[0] = <uint64_t>(<int64_t>n[0] + nr)


cdef void count_out(Mm* mm, uint32_t head, uint32_t anon_vma, uint64_t index) noexcept nogil:
    # A folio that one PMD mapped alone gets its counts.
    cdef PageMeta* m = meta_at(mm, head)
    if m.mapcount:
        return
    page_at(mm, head).private_ = anon_vma
    page_at(mm, head).flags |= PG_meta
    m.mapcount = 1
    set_page_index(m, index)
    entire_count(mm, head)[0] = 1
    pages_mapped(mm, head)[0] = <uint32_t>1 << folio_order(mm, head)


cdef void queue_deferred(Mm* mm, uint32_t head, bint partial) noexcept nogil:
    cdef uint32_t x = head + 2
    cdef Page* p = &mm.link[x]
    if folio_order(mm, head) < 2:
        return
    if partial and not p.private_ & PARTIAL:
        p.private_ |= PARTIAL
        if folio_order(mm, head) == PMD_ORDER:
            mm.vm.g.events[VE_THP_DEFERRED_SPLIT_PAGE] += 1
        mm.vm.g.mthp[folio_order(mm, head) * 4 + MTHP_DEFERRED] += 1
    if p.private_ & QUEUED:
        return
    p.private_ |= QUEUED
    p.prev = mm.vm.g.deferred_tail
    p.next = 0
    if p.prev:
        mm.link[p.prev].next = x
    else:
        mm.vm.g.deferred_head = x
    mm.vm.g.deferred_tail = x
    mm.vm.g.deferred_nr += 1


cdef void unqueue_deferred(Mm* mm, uint32_t head) noexcept nogil:
    cdef Page* p = &mm.link[head + 2]
    if not p.private_ & QUEUED:
        p.private_ = 0
        return
    if p.prev:
        mm.link[p.prev].next = p.next
    else:
        mm.vm.g.deferred_head = p.next
    if p.next:
        mm.link[p.next].prev = p.prev
    else:
        mm.vm.g.deferred_tail = p.prev
    p.next = p.prev = p.private_ = 0
    mm.vm.g.deferred_nr -= 1


cdef void folio_gone(Mm* mm, uint32_t head) noexcept nogil:
    # The last mapping went: nothing of it may stay in the tail pages' records.
    cdef uint32_t i, n = <uint32_t>1 << folio_order(mm, head), refs = meta_at(mm, head).extra_refs
    unqueue_deferred(mm, head)
    count_anon(mm, head, -1)
    if page_at(mm, head).flags & PG_meta:
        memset(meta_at(mm, head), 0, n * sizeof(PageMeta))
        meta_at(mm, head).extra_refs = <unsigned short>refs
        if not refs:
            page_at(mm, head).flags &= ~<uint32_t>PG_meta
    for i in range(1, n):
        page_at(mm, head + i).flags = 0


cdef bint large_rmap_remove(Mm* mm, uint32_t head, uint32_t pfn, bint* lost) noexcept nogil:
    cdef uint32_t* small = small_count(mm, head, pfn)
    cdef PageMeta* m = meta_at(mm, head)
    m.mapcount -= 1
    small[0] -= 1
    if small[0] == 0 and entire_count(mm, head)[0] == 0:
        lruvec_stat_mod(mm, head, NS_NR_ANON_PAGES, -1)
        pages_mapped(mm, head)[0] -= 1
        lost[0] = True
    if m.mapcount:
        return False
    folio_gone(mm, head)
    return True


cdef void large_partial(Mm* mm, uint32_t head) noexcept nogil:
    queue_deferred(mm, head, True)


cdef void large_rmap_share(Mm* mm, uint32_t head, uint32_t pfn, uint32_t anon_vma, uint64_t index) noexcept nogil:
    page_at(mm, pfn).flags &= ~<uint32_t>PG_anon_exclusive
    meta_at(mm, head).mapcount += 1
    small_count(mm, head, pfn)[0] += 1


# ---------------------------------------------------------------- rights to huge pages

cdef inline bint temporary_stack(uint64_t vm_flags) noexcept nogil:
    # A stack that execve still builds bears both read hints, which madvise never leaves together (vma_is_temporary_stack).
    return vm_flags & VM_GROWSDOWN and vm_flags & (VM_RAND_READ | VM_SEQ_READ) == VM_RAND_READ | VM_SEQ_READ


cdef bint order_allowed(Mm* mm, uint64_t vm_flags, unsigned order) noexcept nogil:
    # thp_vma_allowable_order() for a fault in anonymous memory
    cdef unsigned mode = mm.vm.g.thp_size[order]
    if vm_flags & (VM_NOHUGEPAGE | VM_SHARED | VM_SPECIAL | VM_HUGETLB) or temporary_stack(vm_flags):
        return False
    if mode == 1:
        mode = 3 if mm.g.thp_enabled == 2 else 2 if mm.g.thp_enabled == 1 else 0
    return mode == 3 or (mode == 2 and vm_flags & VM_HUGEPAGE)


cdef inline bint block_inside(Vma* v, uint64_t vpn, uint64_t pages) noexcept nogil:
    cdef uint64_t first = vpn & ~(pages - 1)
    return first >= v.start >> 12 and first + pages <= v.end >> 12


cdef unsigned thp_gfp(Mm* mm, uint64_t vm_flags) noexcept nogil:
    # vma_thp_gfp_mask()
    cdef bint advised = (vm_flags & VM_HUGEPAGE) != 0
    cdef unsigned defrag = mm.vm.g.thp_defrag
    if defrag == 4:
        return GFP_TRANSHUGE_LIGHT | GFP_DIRECT_RECLAIM_BIT | (0 if advised else GFP_NORETRY_BIT)
    if defrag == 3:
        return GFP_TRANSHUGE_LIGHT | GFP_KSWAPD_RECLAIM_BIT
    if defrag == 2:
        return GFP_TRANSHUGE_LIGHT | (GFP_DIRECT_RECLAIM_BIT if advised else GFP_KSWAPD_RECLAIM_BIT)
    if defrag == 1:
        return GFP_TRANSHUGE_LIGHT | (GFP_DIRECT_RECLAIM_BIT if advised else 0)
    return GFP_TRANSHUGE_LIGHT


cdef void khugepaged_enter(Mm* mm, uint32_t as_, Vma* v) noexcept nogil:
    if not mm_at(mm, as_).khugepaged_slot and vma_allows_huge(mm, v, False):
        khugepaged_register(mm, as_)


cdef void khugepaged_fork(Mm* mm, uint32_t child, uint32_t parent) noexcept nogil:
    if mm_at(mm, parent).khugepaged_slot:
        khugepaged_register(mm, child)


cdef bint vma_allows_huge(Mm* mm, const Vma* v, bint forced) noexcept nogil:
    # anonymous, faulted once, with an aligned block inside
    cdef uint64_t last = v.end & ~<uint64_t>0x1fffff
    if v.file or not v.anon_vma or v.flags & (VM_NOHUGEPAGE | VM_SHARED | VM_SPECIAL | VM_HUGETLB) or temporary_stack(v.flags):
        return False
    if last < 0x200000 or last - 0x200000 < v.start:
        return False
    return forced or order_allowed(mm, v.flags, PMD_ORDER)


cdef void khugepaged_register(Mm* mm, uint32_t as_) noexcept nogil:
    # The daemon's next wake-up is due a scan's sleep after the first address space registers.
    mm.vm.g.khugepaged_registered += 1
    mm_at(mm, as_).khugepaged_slot = <uint32_t>mm.vm.g.khugepaged_registered
    if mm.vm.g.khugepaged_next_ns == 0:
        mm.vm.g.khugepaged_next_ns = mm.g.now_ns + mm.vm.g.khugepaged_scan_sleep_ms * 1000000


# ---------------------------------------------------------------- faults

cdef int64_t huge_zero_page(Mm* mm, unsigned cpu) noexcept nogil:
    cdef int64_t pfn
    if mm.vm.g.huge_zero_page:
        return mm.vm.g.huge_zero_page - 1
    pfn = alloc_pages_node(mm, (GFP_TRANSHUGE_LIGHT | GFP_DIRECT_RECLAIM_BIT | GFP_ZERO) & ~<unsigned>8, PMD_ORDER, cpu, -1, 0)
    if pfn < 0:
        mm.vm.g.events[VE_THP_ZERO_PAGE_ALLOC_FAILED] += 1
        return pfn
    mm.vm.g.events[VE_THP_ZERO_PAGE_ALLOC] += 1
    page_at(mm, <uint32_t>pfn).flags |= PG_owned | OWNER_ZERO
    mm.vm.g.huge_zero_page = <uint32_t>pfn + 1
    return pfn


cdef inline void lru_add_new(Mm* mm, Vma* v, uint32_t head, unsigned cpu) noexcept nogil:
    # folio_add_lru_vma()
    if v.flags & (VM_LOCKED | VM_SPECIAL) == VM_LOCKED:
        mlock_new_folio(mm, head, cpu)
    else:
        lru_add(mm, head, cpu)


cdef int thp_fault(Mm* mm, uint32_t as_, Vma* v, uint32_t vma, uint64_t* e, uint64_t vpn, bint write, unsigned cpu) noexcept nogil:
    cdef AddressSpace* m = mm_at(mm, as_)
    cdef int64_t pfn
    cdef uint32_t slot
    cdef uint64_t prot
    if not order_allowed(mm, v.flags, PMD_ORDER) or not block_inside(v, vpn, PMD_PAGES):
        return THP_FALLBACK
    if anon_vma_prepare(mm, vma):
        return OOM
    khugepaged_enter(mm, as_, v)
    prot = page_prot(v.flags, False) | PTE_PSE
    if not write and mm.vm.g.thp_use_zero_page:
        slot = table_new(mm, as_, cpu)
        if slot == 0:
            return OOM
        pfn = huge_zero_page(mm, cpu)
        if pfn < 0:
            table_free(mm, slot - 1, cpu)
            mm.vm.g.events[VE_THP_FAULT_FALLBACK] += 1
            return THP_FALLBACK
        deposit_table(mm, as_, slot - 1)
        set_entry(mm, e, prot | PTE_SPECIAL | (<uint64_t>pfn << 12))
        return MINOR
    pfn = alloc_charged(mm, thp_gfp(mm, v.flags), PMD_ORDER, m.memcg, cpu)
    if pfn < 0:
        mm.vm.g.events[VE_THP_FAULT_FALLBACK] += 1
        mm.vm.g.mthp[PMD_ORDER * 4 + MTHP_FALLBACK] += 1
        return THP_FALLBACK
    slot = table_new(mm, as_, cpu)
    if slot == 0:
        free_pages_order(mm, <uint32_t>pfn, PMD_ORDER, cpu)
        return OOM
    deposit_table(mm, as_, slot - 1)
    prot = mkdirty(prot | (<uint64_t>pfn << 12))
    if v.flags & VM_WRITE:
        prot |= PTE_RW
    set_entry(mm, e, prot)
    page_at(mm, <uint32_t>pfn).flags |= ANON_FLAGS
    page_at(mm, <uint32_t>pfn).private_ = entry_index(mm, e) + 1
    lruvec_stat_mod(mm, <uint32_t>pfn, NS_NR_ANON_PAGES, PMD_PAGES)
    lruvec_stat_mod(mm, <uint32_t>pfn, NS_NR_ANON_TRANSPARENT_HUGEPAGES, PMD_PAGES)
    m.rss[MM_ANONPAGES] += PMD_PAGES
    count_anon(mm, <uint32_t>pfn, 1)
    lru_add_new(mm, v, <uint32_t>pfn, cpu)
    queue_deferred(mm, <uint32_t>pfn, False)
    mm.vm.g.events[VE_THP_FAULT_ALLOC] += 1
    mm.vm.g.mthp[PMD_ORDER * 4 + MTHP_ALLOC] += 1
    return MINOR


cdef int thp_wp_fault(Mm* mm, uint32_t as_, Vma* v, uint64_t* e, uint64_t vpn, unsigned cpu) noexcept nogil:
    cdef uint32_t pfn = <uint32_t>pte_frame(e[0])
    cdef Page* p
    if not e[0] & PTE_SPECIAL and v.flags & VM_WRITE:
        p = page_at(mm, pfn)
        if not p.flags & PG_anon_exclusive and meta_at(mm, pfn).mapcount <= 1 and not meta_at(mm, pfn).extra_refs and not p.flags & PG_swapcache:
            if not p.flags & PG_lru:
                lru_add_drain(mm, cpu)
            p.flags |= PG_anon_exclusive
        if p.flags & PG_anon_exclusive:
            e[0] = mkdirty(e[0] | PTE_ACCESSED | PTE_RW)
            return MINOR
    split_huge_pmd(mm, as_, e, vpn, cpu)
    return THP_FALLBACK


cdef int mthp_fault(Mm* mm, uint32_t as_, Vma* v, uint32_t vma, uint64_t* pte, uint64_t vpn, unsigned cpu) noexcept nogil:
    # The largest allowed size whose block lies in the VMA and is empty; smaller ones when memory for it lacks.
    cdef AddressSpace* m = mm_at(mm, as_)
    cdef unsigned order = PMD_ORDER - 1
    cdef uint64_t n, i, prot
    cdef uint64_t* first
    cdef int64_t pfn
    cdef uint32_t head
    if not mm.vm.g.mthp_on:
        return THP_FALLBACK
    while order >= 2:
        n = <uint64_t>1 << order
        if order_allowed(mm, v.flags, order) and block_inside(v, vpn, n):
            first = pte - (vpn & (n - 1))
            i = 0
            while i < n and first[i] == 0:
                i += 1
            if i == n:
                pfn = alloc_charged(mm, thp_gfp(mm, v.flags), order, m.memcg, cpu)
                if pfn >= 0:
                    break
                mm.vm.g.mthp[order * 4 + MTHP_FALLBACK] += 1
        order -= 1
    else:
        return THP_FALLBACK
    head = <uint32_t>pfn
    prot = mkdirty(page_prot(v.flags, False)) | PTE_RW
    page_at(mm, head).flags |= ANON_FLAGS | PG_meta
    page_at(mm, head).private_ = v.anon_vma
    meta_at(mm, head).mapcount = <uint32_t>n
    set_page_index(meta_at(mm, head), v.pgoff + ((vpn & ~(n - 1)) - (v.start >> 12)))
    meta_at(mm, head + 3).index_lo = <uint32_t>n
    for i in range(n):
        set_entry(mm, &first[i], prot | (<uint64_t>(head + <uint32_t>i) << 12))
        small_count(mm, head, head + <uint32_t>i)[0] = 1
        if i:
            page_at(mm, head + <uint32_t>i).flags = PG_anon_exclusive
    lruvec_stat_mod(mm, head, NS_NR_ANON_PAGES, <int64_t>n)
    m.rss[MM_ANONPAGES] += <int64_t>n
    count_anon(mm, head, 1)
    lru_add_new(mm, v, head, cpu)
    mm.vm.g.mthp[order * 4 + MTHP_ALLOC] += 1
    return MINOR


# ---------------------------------------------------------------- edits of huge entries

cdef void munlock_huge(Mm* mm, uint32_t as_, uint64_t vpn, uint32_t head, unsigned cpu) noexcept nogil:
    # munlock_vma_folio(): a PMD that maps the folio goes; if its VMA is locked, the folio is unlocked.
    cdef uint32_t vma
    if page_at(mm, head).flags & PG_mlocked:
        vma = find_vma(mm, as_, vpn << 12)
        if vma and mm.vm.vmas[vma - 1].start >> 12 <= vpn and mm.vm.vmas[vma - 1].flags & VM_LOCKED:
            munlock_folio(mm, head, cpu)


cdef void zap_huge(Mm* mm, uint32_t as_, uint64_t* e, Gather* g) noexcept nogil:
    cdef uint64_t v = e[0]
    cdef uint32_t head = <uint32_t>pte_frame(v), left, at = entry_index(mm, e)
    cdef PageMeta* m
    set_entry(mm, e, 0)
    table_free(mm, withdraw_table(mm, as_) - 1, g.cpu)
    if v & PTE_SPECIAL:
        return
    mm_at(mm, as_).rss[MM_ANONPAGES] -= PMD_PAGES
    munlock_huge(mm, as_, mm.vm.table_info[at >> mm.vm.bits].base + (<uint64_t>(at & mm.vm.mask) << mm.vm.bits), head, g.cpu)
    m = meta_at(mm, head)
    if m.mapcount == 0:
        lruvec_stat_mod(mm, head, NS_NR_ANON_PAGES, -PMD_PAGES)
        lruvec_stat_mod(mm, head, NS_NR_ANON_TRANSPARENT_HUGEPAGES, -PMD_PAGES)
        folio_gone(mm, head)
        gather_page(mm, g, head)
        return
    m.mapcount -= 1
    entire_count(mm, head)[0] -= 1
    if entire_count(mm, head)[0] == 0:
        lruvec_stat_mod(mm, head, NS_NR_ANON_TRANSPARENT_HUGEPAGES, -PMD_PAGES)
        left = small_mapped(mm, head)
        lruvec_stat_mod(mm, head, NS_NR_ANON_PAGES, <int64_t>left - <int64_t>pages_mapped(mm, head)[0])
        if left and left < pages_mapped(mm, head)[0]:
            queue_deferred(mm, head, True)
        pages_mapped(mm, head)[0] = left
    if m.mapcount == 0:
        folio_gone(mm, head)
        gather_page(mm, g, head)


cdef uint32_t small_mapped(Mm* mm, uint32_t head) noexcept nogil:
    # Pages of a folio that small entries map.
    cdef uint32_t i, n = 0
    for i in range(PMD_PAGES):
        n += small_count(mm, head, head + i)[0] != 0
    return n


cdef void split_huge_pmd(Mm* mm, uint32_t as_, uint64_t* e, uint64_t vpn, unsigned cpu) noexcept nogil:
    cdef uint64_t v = e[0], small
    cdef uint32_t slot = withdraw_table(mm, as_) - 1, head = <uint32_t>pte_frame(v), i
    cdef uint64_t* t = table_at(mm, slot)
    cdef bint exclusive
    cdef uint64_t at = vpn & ~<uint64_t>(PMD_PAGES - 1)
    cdef Vma* v_of
    mm.vm.g.events[VE_THP_SPLIT_PMD] += 1
    if v & PTE_SPECIAL:
        small = (v & ~(PTE_PSE | PTE_DIRTY | PTE_RW | (<uint64_t>head << 12))) | (<uint64_t>mm.vm.g.zero_page << 12)
        for i in range(PMD_PAGES):
            t[i] = small
    else:
        if meta_at(mm, head).mapcount == 0:
            v_of = &mm.vm.vmas[find_vma(mm, as_, at << 12) - 1]
            count_out(mm, head, v_of.anon_vma, v_of.pgoff + (at - (v_of.start >> 12)))
        exclusive = (page_at(mm, head).flags & PG_anon_exclusive) != 0
        small = v & ~PTE_PSE
        for i in range(PMD_PAGES):
            t[i] = small + (<uint64_t>i << 12)
            small_count(mm, head, head + i)[0] += 1
            if i:
                page_at(mm, head + i).flags = PG_anon_exclusive if exclusive else 0
        meta_at(mm, head).mapcount += PMD_PAGES - 1
        entire_count(mm, head)[0] -= 1
        if entire_count(mm, head)[0] == 0:
            lruvec_stat_mod(mm, head, NS_NR_ANON_TRANSPARENT_HUGEPAGES, -PMD_PAGES)
        munlock_huge(mm, as_, at, head, cpu)
    mm.vm.table_info[slot].nr_used = PMD_PAGES
    set_entry(mm, e, 0)
    link_table(mm, e, slot, at, as_, 0)
    flush_range(mm, as_, at << 12, (at + PMD_PAGES) << 12, 12, True, cpu)


cdef void split_huge_at(Mm* mm, uint32_t as_, uint64_t address, unsigned cpu) noexcept nogil:
    cdef uint64_t* e
    if address >> 12 & (PMD_PAGES - 1) == 0 or mm_at(mm, as_).root == 0:
        return
    e = walk_level(mm, mm_at(mm, as_).root - 1, address >> 12, 1)
    if e != NULL and e[0] & PTE_PSE:
        split_huge_pmd(mm, as_, e, address >> 12, cpu)


cdef int copy_huge(Mm* mm, uint32_t dst_as, uint32_t src_as, Vma* src_vma, uint64_t* dst, uint64_t* src, uint64_t vpn, unsigned cpu) noexcept nogil:
    cdef uint64_t v = src[0]
    cdef uint32_t head = <uint32_t>pte_frame(v), slot = table_new(mm, dst_as, cpu)
    cdef uint64_t at = vpn & ~<uint64_t>(PMD_PAGES - 1)
    if slot == 0:
        return -E_NOMEM
    deposit_table(mm, dst_as, slot - 1)
    if not v & PTE_SPECIAL:
        if meta_at(mm, head).mapcount == 0:
            count_out(mm, head, src_vma.anon_vma, src_vma.pgoff + (at - (src_vma.start >> 12)))
        meta_at(mm, head).mapcount += 1
        entire_count(mm, head)[0] += 1
        page_at(mm, head).flags &= ~<uint32_t>PG_anon_exclusive
        mm_at(mm, dst_as).rss[MM_ANONPAGES] += PMD_PAGES
        v &= ~PTE_RW
        src[0] = v
    set_entry(mm, dst, v & ~PTE_ACCESSED)
    return 0
