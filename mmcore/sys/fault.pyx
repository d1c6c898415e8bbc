"""Page faults.

Models: handle_mm_fault and below (mm/memory.c, v6.12): anonymous memory (zero page, new page, copy on write and reuse), files (fault-
around, private copies, shared writes), huge pages (sys/thp); the checks of the x86 entry (arch/x86/mm/fault.c). Simplifies: no locks and
so no retries; reading a file takes no time yet. Omits: userfaultfd, NUMA hints, KSM. Entries of swap: sys/swap.

A row of faults on fresh anonymous memory (fault_row) takes its pages from the allocator in one go: what single faults would get.
"""
from mmcore.alloc.page_alloc cimport alloc_pages_run
from mmcore.alloc.page_free cimport free_pages_order
from mmcore.base.errors cimport E_FAULT, E_IO, E_NOMEM
from mmcore.base.flags cimport PG_lru, PG_swapcache
from mmcore.base.records cimport Page, meta_at, page_at
from mmcore.base.stat_items cimport VE_PGFAULT, VE_PGREUSE
from mmcore.base.vm_records cimport AddressSpace, MM_ANONPAGES, MM_FILEPAGES, MM_SHMEMPAGES, Vma
from mmcore.phys.buddy cimport zone_of
from mmcore.phys.lruvec_stat cimport lruvec_stat_mod
from mmcore.reclaim.lru cimport lru_add, lru_add_drain, lru_add_many
from mmcore.reclaim.mlock cimport mlock_folio, mlock_new_folio, munlock_folio
from mmcore.reclaim.swap cimport folio_free_swap
from mmcore.reclaim.memcg cimport count_memcg_events
from mmcore.reclaim.writeback cimport folio_mark_dirty
from mmcore.sys.charge cimport alloc_charged
from mmcore.sys.fault_codes cimport MAJOR, MINOR, OOM, SEGV_ACCERR, SEGV_MAPERR, SIGBUS
from mmcore.reclaim.page_cache cimport file_notifies
from mmcore.sys.filemap cimport MAP_PAGES_MAX, MapPage, filemap_fault, filemap_map_pages, file_make_writable
from mmcore.sys.flush cimport flush_entry
from mmcore.sys.gather cimport Gather, gather_flush, gather_init, gather_page
from mmcore.sys.hugetlb cimport hugetlb_fault
from mmcore.sys.stack cimport expand_stack
from mmcore.sys.swap cimport SWAP_WP, do_swap_page
from mmcore.sys.tables cimport entry_alloc, table_free, table_new
from mmcore.sys.thp cimport THP_FALLBACK, folio_head, large_partial, large_rmap_remove, mthp_fault, thp_fault, thp_wp_fault
from mmcore.vm.anon_vma cimport anon_vma_prepare
from mmcore.vm.pgtable cimport (
    PTE_ACCESSED, PTE_DIRTY, PTE_PRESENT, PTE_PSE, PTE_RW, PTE_SPECIAL, entry_index, link_table, mm_at, pte_frame, pte_is_table, pte_mapped,
    set_entry, table_at, walk_level,
)
from mmcore.vm.prot cimport mkdirty, page_prot
from mmcore.vm.rmap cimport (
    ANON_FLAGS, NS_NR_ANON_PAGES, PG_ORDER_MASK, PG_ORDER_SHIFT, PG_allocated, PG_anon_exclusive, PG_swapbacked, anon_mapcount,
    anon_rmap_exclusive, anon_rmap_remove, file_rmap_add, file_rmap_remove, page_is_anon, page_is_file,
    PG_meta, sync_meta,
)
from mmcore.vm.vma cimport VM_EXEC, VM_GROWSDOWN, VM_HUGETLB, VM_LOCKED, VM_READ, VM_SHARED, VM_SPECIAL, VM_WRITE, find_vma

cdef enum:
    GFP_HIGHUSER_MOVABLE = 0x100cca
    GFP_ANON = 0x100dca             # with __GFP_ZERO
    ROW = 512
    RETRY = 100                     # the entry changed while memory was found: the access is made again


cdef inline int64_t new_anon_page(Mm* mm, AddressSpace* m, unsigned gfp, unsigned cpu) noexcept nogil:
    return alloc_charged(mm, gfp, 0, m.memcg, cpu)


cdef inline void map_new_anon(Mm* mm, AddressSpace* m, Vma* v, uint64_t* pte, uint32_t pfn, uint64_t prot, unsigned cpu) noexcept nogil:
    # A fresh page behind a written entry: young, dirty, writable where the mapping is.
    cdef uint64_t e = mkdirty(prot | (<uint64_t>pfn << 12))
    if v.flags & VM_WRITE:
        e |= PTE_RW
    set_entry(mm, pte, e)
    anon_rmap_exclusive(mm, pfn, entry_index(mm, pte))
    lruvec_stat_mod(mm, pfn, NS_NR_ANON_PAGES, 1)
    m.rss[MM_ANONPAGES] += 1
    if v.flags & (VM_LOCKED | VM_SPECIAL) == VM_LOCKED:
        mlock_new_folio(mm, pfn, cpu)
    else:
        lru_add(mm, pfn, cpu)


cdef int do_anonymous_page(Mm* mm, AddressSpace* m, uint32_t as_, uint32_t vma, uint64_t* pte, uint64_t vpn, bint write, unsigned cpu) noexcept nogil:
    cdef Vma* v = &mm.vm.vmas[vma - 1]
    cdef int64_t pfn
    cdef int rc
    cdef uint64_t prot = page_prot(v.flags, False)
    if not write or v.flags & VM_SPECIAL:
        set_entry(mm, pte, prot | PTE_SPECIAL | (<uint64_t>mm.vm.g.zero_page << 12))
        return MINOR
    if anon_vma_prepare(mm, vma):
        return OOM
    rc = mthp_fault(mm, as_, v, vma, pte, vpn, cpu)
    if rc != THP_FALLBACK:
        return rc
    pfn = new_anon_page(mm, m, GFP_ANON, cpu)
    if pfn < 0:
        return OOM
    map_new_anon(mm, m, v, pte, <uint32_t>pfn, prot, cpu)
    return MINOR


# ---------------------------------------------------------------- write to a present entry

cdef void drop_anon(Mm* mm, uint32_t pfn, Gather* g) noexcept nogil:
    # One small mapping of an anonymous page goes.
    cdef uint32_t head
    cdef bint lost = False
    if not page_at(mm, pfn).flags & PG_allocated or page_at(mm, pfn).flags & (PG_ORDER_MASK << PG_ORDER_SHIFT):
        head = folio_head(mm, pfn)
        if large_rmap_remove(mm, head, pfn, &lost):
            gather_page(mm, g, head)
        elif lost:
            large_partial(mm, head)
    elif anon_rmap_remove(mm, pfn):
        lruvec_stat_mod(mm, pfn, NS_NR_ANON_PAGES, -1)
        gather_page(mm, g, pfn)


cdef void drop_old_page(Mm* mm, AddressSpace* m, const Vma* v, uint32_t pfn, uint64_t e, unsigned cpu) noexcept nogil:
    # What wp_page_copy() leaves behind: the old page loses this mapping.
    cdef Gather g
    if v.flags & VM_LOCKED:
        munlock_folio(mm, folio_head(mm, pfn), cpu)
    if page_is_file(page_at(mm, pfn).flags):
        m.rss[MM_SHMEMPAGES if page_at(mm, pfn).flags & PG_swapbacked else MM_FILEPAGES] -= 1
        if e & PTE_DIRTY:
            folio_mark_dirty(mm, pfn, cpu)
        file_rmap_remove(mm, pfn)
        return
    m.rss[MM_ANONPAGES] -= 1
    gather_init(&g, cpu)
    drop_anon(mm, pfn, &g)
    if g.nr:
        gather_flush(mm, &g)


cdef inline void hold(Mm* mm, uint32_t pfn) noexcept nogil:
    # folio_get(), folio_put() of a page whose last reference this is not
    page_at(mm, folio_head(mm, pfn)).flags |= PG_meta
    meta_at(mm, folio_head(mm, pfn)).extra_refs += 1


cdef inline void release(Mm* mm, uint32_t pfn) noexcept nogil:
    meta_at(mm, folio_head(mm, pfn)).extra_refs -= 1
    sync_meta(mm, folio_head(mm, pfn))


cdef bint wp_can_reuse(Mm* mm, uint32_t pfn, unsigned cpu) noexcept nogil:
    # wp_can_reuse_anon_folio(): a small page that no one but this entry refers to.
    cdef Page* p = page_at(mm, pfn)
    if p.flags & (PG_ORDER_MASK << PG_ORDER_SHIFT) or not p.flags & PG_allocated:
        return False
    if anon_mapcount(mm, pfn) > 1 or meta_at(mm, pfn).extra_refs:
        return False
    if not p.flags & PG_lru:
        lru_add_drain(mm, cpu)
    return not p.flags & PG_swapcache or folio_free_swap(mm, pfn, cpu)


cdef int do_wp_page(Mm* mm, AddressSpace* m, uint32_t vma, uint64_t* pte, unsigned cpu) noexcept nogil:
    cdef Vma* v = &mm.vm.vmas[vma - 1]
    cdef uint64_t e = pte[0]
    cdef uint32_t old = <uint32_t>pte_frame(e)
    cdef bint zero = (e & PTE_SPECIAL) != 0
    cdef int64_t pfn
    cdef int rc
    if v.flags & VM_SHARED:
        if not zero:
            rc = file_make_writable(mm, v.file, old, cpu)
            if rc:
                return SIGBUS
        pte[0] = mkdirty(e | PTE_ACCESSED | PTE_RW)
        mm.vm.g.events[VE_PGREUSE] += 1
        return MINOR
    if not zero and page_is_anon(page_at(mm, folio_head(mm, old)).flags):
        if page_at(mm, old).flags & PG_anon_exclusive or wp_can_reuse(mm, old, cpu):
            if not page_at(mm, old).flags & PG_anon_exclusive:
                anon_rmap_exclusive(mm, old, entry_index(mm, pte))
            pte[0] = mkdirty(e | PTE_ACCESSED | PTE_RW)
            mm.vm.g.events[VE_PGREUSE] += 1
            return MINOR
    if anon_vma_prepare(mm, vma):
        return OOM
    # the old page is held meanwhile: to make room for the new one reclaim may unmap it
    if not zero:
        hold(mm, old)
    pfn = new_anon_page(mm, m, GFP_ANON if zero else GFP_HIGHUSER_MOVABLE, cpu)
    if not zero:
        release(mm, old)
    if pfn < 0:
        return OOM
    if pte[0] != e:
        free_pages_order(mm, <uint32_t>pfn, 0, cpu)
        return RETRY
    set_entry(mm, pte, 0)
    flush_entry(mm, pte, cpu)
    map_new_anon(mm, m, v, pte, <uint32_t>pfn, page_prot(v.flags, False), cpu)
    if not zero:
        drop_old_page(mm, m, v, old, e, cpu)
    return MINOR


# ---------------------------------------------------------------- files

cdef void map_file_page(Mm* mm, AddressSpace* m, Vma* v, uint64_t* pte, uint32_t pfn, bint write, unsigned cpu) noexcept nogil:
    # set_pte_range() for one page of a file.
    cdef uint64_t e = page_prot(v.flags, file_notifies(mm, v.file)) | (<uint64_t>pfn << 12)
    if write:
        e = mkdirty(e) | PTE_RW
    set_entry(mm, pte, e)
    file_rmap_add(mm, pfn)
    m.rss[MM_SHMEMPAGES if page_at(mm, pfn).flags & PG_swapbacked else MM_FILEPAGES] += 1
    if v.flags & (VM_LOCKED | VM_SPECIAL) == VM_LOCKED:
        mlock_folio(mm, pfn, cpu)


cdef int fault_around(Mm* mm, AddressSpace* m, uint32_t as_, Vma* v, uint32_t slot, uint64_t vpn, unsigned cpu) noexcept nogil:
    # do_fault_around(): maps what is cached near vpn, one fault for all. Whether vpn itself was.
    cdef MapPage found[MAP_PAGES_MAX]
    cdef uint64_t start = v.start >> 12, first, last, n = mm.vm.g.fault_around_bytes >> 12
    cdef uint64_t pages = (v.end >> 12) - start, i = vpn & mm.vm.mask, off = vpn - start, lo
    cdef int64_t k, got
    cdef uint64_t* e
    cdef bint hit = False
    lo = i & ~(n - 1)
    if i - (i if i < off else off) > lo:
        lo = i - (i if i < off else off)
    first = vpn - (i - lo)
    last = lo + n
    if last > mm.vm.mask + 1:
        last = mm.vm.mask + 1
    if last > i + pages - off:
        last = i + pages - off
    got = filemap_map_pages(mm, v.file, v.pgoff + (first - start), v.pgoff + (first - start) + (last - lo), v.flags, found)
    for k in range(got):
        e = table_at(mm, slot) + lo + (found[k].index - (v.pgoff + (first - start)))
        if e[0] == 0:
            map_file_page(mm, m, v, e, found[k].pfn, False, cpu)
            if e == table_at(mm, slot) + i:
                hit = True
    return hit


cdef inline uint32_t pte_table_for(Mm* mm, uint32_t as_, uint64_t* pmd, uint64_t vpn, unsigned cpu) noexcept nogil:
    # slot + 1 of the PTE table below a PMD entry, made if need be; 0 without memory.
    cdef uint32_t slot
    if pte_is_table(pmd[0]):
        return <uint32_t>pte_frame(pmd[0]) + 1
    slot = table_new(mm, as_, cpu)
    if slot:
        link_table(mm, pmd, slot - 1, vpn, as_, 0)
    return slot


cdef int do_file_fault(Mm* mm, AddressSpace* m, uint32_t as_, uint32_t vma, uint64_t* pmd, uint64_t vpn, bint write, unsigned cpu) noexcept nogil:
    cdef Vma* v = &mm.vm.vmas[vma - 1]
    cdef uint64_t index = v.pgoff + vpn - (v.start >> 12)
    cdef uint32_t slot = 0, pfn = 0
    cdef uint64_t* pte
    cdef int64_t copy = -1
    cdef int rc
    cdef bint made = not pte_is_table(pmd[0])
    if write and not v.flags & VM_SHARED:
        if anon_vma_prepare(mm, vma):
            return OOM
        copy = new_anon_page(mm, m, GFP_HIGHUSER_MOVABLE, cpu)
        if copy < 0:
            return OOM
    elif not write and mm.vm.g.fault_around_bytes >> 12 > 1:
        slot = pte_table_for(mm, as_, pmd, vpn, cpu)
        if slot == 0:
            return OOM
        if fault_around(mm, m, as_, v, slot - 1, vpn, cpu):
            return MINOR
    if slot == 0:
        slot = pte_table_for(mm, as_, pmd, vpn, cpu)
    rc = -E_NOMEM
    if slot:
        rc = filemap_fault(mm, v.file, index, v.flags, v.pgoff, v.pgoff + ((v.end - v.start) >> 12), cpu, &pfn)
        if rc >= 0 and copy < 0 and write and file_make_writable(mm, v.file, pfn, cpu):
            rc = -E_IO
    if rc < 0:
        if copy >= 0:
            free_pages_order(mm, <uint32_t>copy, 0, cpu)
        if made and slot and mm.vm.table_info[slot - 1].nr_used == 0:
            # a table that was made for this fault alone was never installed
            set_entry(mm, pmd, 0)
            table_free(mm, slot - 1, cpu)
        return OOM if rc == -E_NOMEM else SIGBUS
    pte = table_at(mm, slot - 1) + (vpn & mm.vm.mask)
    if copy >= 0:
        map_new_anon(mm, m, v, pte, <uint32_t>copy, page_prot(v.flags, False), cpu)
    else:
        map_file_page(mm, m, v, pte, pfn, write, cpu)
    return MAJOR if rc else MINOR


# ---------------------------------------------------------------- the way in

cdef int handle_pte_level(Mm* mm, AddressSpace* m, uint32_t as_, uint32_t vma, uint64_t* pmd, uint64_t vpn, bint write, unsigned cpu) noexcept nogil:
    cdef Vma* v = &mm.vm.vmas[vma - 1]
    cdef uint64_t* pte
    cdef uint32_t slot
    cdef int r
    if not pte_is_table(pmd[0]):
        if v.file:
            return do_file_fault(mm, m, as_, vma, pmd, vpn, write, cpu)
        slot = pte_table_for(mm, as_, pmd, vpn, cpu)
        if slot == 0:
            return OOM
    pte = table_at(mm, <uint32_t>pte_frame(pmd[0])) + (vpn & mm.vm.mask)
    if pte[0] == 0:
        if v.file:
            return do_file_fault(mm, m, as_, vma, pmd, vpn, write, cpu)
        return do_anonymous_page(mm, m, as_, vma, pte, vpn, write, cpu)
    if not pte_mapped(pte[0]):
        r = do_swap_page(mm, m, as_, vma, pte, vpn, write, cpu)
        if r & SWAP_WP and do_wp_page(mm, m, vma, pte, cpu) == OOM:
            return OOM
        return r & ~SWAP_WP
    if write and not pte[0] & PTE_RW:
        return do_wp_page(mm, m, vma, pte, cpu)
    pte[0] |= PTE_ACCESSED | (PTE_DIRTY if write else 0)
    return MINOR


cdef int fault_in_vma(Mm* mm, AddressSpace* m, uint32_t as_, uint32_t vma, uint64_t vpn, bint write, unsigned cpu) noexcept nogil:
    cdef Vma* v = &mm.vm.vmas[vma - 1]
    cdef uint64_t* pmd
    cdef int rc = 0, r
    if v.flags & VM_HUGETLB:
        r = hugetlb_fault(mm, as_, vma, vpn, write, cpu)
        return OOM if r == -E_NOMEM else SIGBUS if r < 0 else MINOR
    pmd = entry_alloc(mm, as_, vpn, 1, cpu, &rc)
    if pmd == NULL:
        return OOM
    if pmd[0] == 0:
        if not v.file and mm.vm.bits == 9 and not v.flags & VM_SPECIAL:
            r = thp_fault(mm, as_, v, vma, pmd, vpn, write, cpu)
            if r != THP_FALLBACK:
                return r
    elif pmd[0] & PTE_PSE:
        if write and not pmd[0] & PTE_RW:
            r = thp_wp_fault(mm, as_, v, pmd, vpn, cpu)
            if r != THP_FALLBACK:
                return r
        else:
            pmd[0] |= PTE_ACCESSED | (PTE_DIRTY if write else 0)
            return MINOR
    return handle_pte_level(mm, m, as_, vma, pmd, vpn, write, cpu)


cdef inline int access_right(uint64_t vm_flags, bint write) noexcept nogil:
    if write:
        return (vm_flags & VM_WRITE) != 0
    return (vm_flags & (VM_READ | VM_WRITE | VM_EXEC)) != 0


cdef int handle_fault(Mm* mm, uint32_t as_, uint64_t address, bint write, unsigned cpu) noexcept nogil:
    cdef AddressSpace* m = mm_at(mm, as_)
    cdef uint32_t vma
    cdef Vma* v
    cdef int r
    if address >= m.task_size:
        return SEGV_MAPERR
    vma = find_vma(mm, as_, address)
    if vma == 0:
        return SEGV_MAPERR
    v = &mm.vm.vmas[vma - 1]
    if address < v.start and (not v.flags & VM_GROWSDOWN or expand_stack(mm, as_, vma, address, cpu)):
        return SEGV_MAPERR
    if not access_right(v.flags, write):
        return SEGV_ACCERR
    mm.vm.cpus[cpu].memcg = m.memcg
    r = fault_in_vma(mm, m, as_, vma, address >> 12, write, cpu)
    while r == RETRY:
        r = fault_in_vma(mm, m, as_, vma, address >> 12, write, cpu)
    mm.vm.g.events[VE_PGFAULT] += 1
    count_memcg_events(mm, m.memcg, VE_PGFAULT, 1)
    # a fault that failed counts for the machine, not for the task
    if r == MAJOR:
        m.majflt += 1
    elif r == MINOR:
        m.minflt += 1
    return r


# ---------------------------------------------------------------- many at once

cdef int64_t fill_row(Mm* mm, AddressSpace* m, Vma* v, uint64_t* pte, int64_t nr, unsigned cpu) noexcept nogil:
    # Writes to nr empty entries of one table in a row; how many got their page.
    cdef uint32_t pfns[ROW]
    cdef int64_t got, i, run = 0
    cdef uint64_t prot = mkdirty(page_prot(v.flags, False)) | PTE_RW
    cdef uint32_t entry = entry_index(mm, pte) + 1
    cdef int64_t* stat = NULL
    cdef int64_t* mine
    cdef Page* p
    got = alloc_pages_run(mm, pfns, nr, GFP_ANON, 0, cpu, -1, 0)
    if got <= 0:
        return 0
    for i in range(got):
        pte[i] = prot | (<uint64_t>pfns[i] << 12)
        p = page_at(mm, pfns[i])
        p.private_ = entry + <uint32_t>i
        p.flags |= ANON_FLAGS
        mine = &mm.nodes[mm.zones[zone_of(mm, pfns[i]) - 1].node].vm_stat[NS_NR_ANON_PAGES]
        if mine != stat:
            if stat != NULL:
                stat[0] += i - run
            stat = mine
            run = i
    stat[0] += got - run
    mm.vm.table_info[(entry - 1) >> mm.vm.bits].nr_used += <unsigned short>got
    m.rss[MM_ANONPAGES] += got
    m.minflt += <uint64_t>got
    mm.vm.g.events[VE_PGFAULT] += <uint64_t>got
    lru_add_many(mm, pfns, got, cpu)
    return got


cdef inline bint plain_anon(Mm* mm, Vma* v) noexcept nogil:
    # Written pages of this VMA are single ones from the allocator.
    return v.file == 0 and v.flags & (VM_WRITE | VM_SHARED | VM_HUGETLB | VM_LOCKED | VM_SPECIAL) == VM_WRITE and not mm.vm.g.mthp_on


cdef int64_t fault_row(Mm* mm, uint32_t as_, uint64_t vpn, int64_t nr, unsigned cpu) noexcept nogil:
    cdef AddressSpace* m = mm_at(mm, as_)
    cdef uint32_t vma
    cdef Vma* v
    cdef uint64_t* pmd
    cdef uint64_t* pte
    cdef int64_t n
    if vpn << 12 >= m.task_size:
        return 0
    vma = find_vma(mm, as_, vpn << 12)
    if vma == 0:
        return 0
    v = &mm.vm.vmas[vma - 1]
    if vpn << 12 < v.start or not plain_anon(mm, v):
        return 0
    pmd = walk_level(mm, m.root - 1, vpn, 1)
    if pmd == NULL or not pte_is_table(pmd[0]):
        return 0            # tables, and perhaps a huge page, come first: one ordinary fault
    if nr > <int64_t>((v.end >> 12) - vpn):
        nr = <int64_t>((v.end >> 12) - vpn)
    if nr > <int64_t>(mm.vm.mask + 1 - (vpn & mm.vm.mask)):
        nr = <int64_t>(mm.vm.mask + 1 - (vpn & mm.vm.mask))
    if nr > ROW:
        nr = ROW
    pte = table_at(mm, <uint32_t>pte_frame(pmd[0])) + (vpn & mm.vm.mask)
    n = 0
    while n < nr and pte[n] == 0:
        n += 1
    if n == 0 or m.memcg or anon_vma_prepare(mm, vma):
        return 0            # pages of a group are charged one by one
    return fill_row(mm, m, v, pte, n, cpu)


cdef int64_t populate_range(Mm* mm, uint32_t as_, uint64_t start, uint64_t end, bint write, unsigned cpu) noexcept nogil:
    cdef AddressSpace* m = mm_at(mm, as_)
    cdef uint64_t vpn = start >> 12, stop = (end + 4095) >> 12
    cdef uint64_t* e
    cdef int64_t n
    cdef int r
    while vpn < stop:
        if write:
            n = fault_row(mm, as_, vpn, <int64_t>(stop - vpn), cpu)
            if n:
                vpn += <uint64_t>n
                continue
        e = walk_level(mm, m.root - 1, vpn, 1)
        if e != NULL and e[0] & PTE_PSE and (not write or e[0] & PTE_RW):
            vpn = (vpn | mm.vm.mask) + 1
            continue
        e = walk_level(mm, m.root - 1, vpn, 0)
        if e == NULL or not e[0] & PTE_PRESENT or (write and not e[0] & PTE_RW):
            r = handle_fault(mm, as_, vpn << 12, write, cpu)
            if r == OOM:
                return -E_NOMEM
            if r >= SEGV_MAPERR:
                return -E_FAULT
        vpn += 1
    return 0
