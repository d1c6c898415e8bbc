"""Unmapping.

Models: unmap_page_range, zap_pte_range, zap_huge_pmd as munmap, exit, MADV_DONTNEED and truncation use them (mm/memory.c, v6.12): the dirty and young
bits of file pages are passed on, RSS falls, pages go into a gather that is flushed when it is full and at the end. Simplifies: the TLB
is flushed by whoever calls (sys/flush). Omits: userfaultfd, device memory.
"""
from libc.stdint cimport int64_t

from mmcore.base.flags cimport OWNER_HUGETLB, OWNER_MASK, PG_anon, PG_file, PG_mlocked, PG_owned
from mmcore.base.records cimport PAGEBLOCK_ORDER, Page, block_at, page_at
from mmcore.base.vm_records cimport AddressSpace, MM_ANONPAGES, MM_FILEPAGES, MM_SHMEMPAGES, MM_SWAPENTS
from mmcore.phys.buddy cimport prefetch, zone_of
from mmcore.phys.lruvec_stat cimport lruvec_stat_mod
from mmcore.reclaim.lru cimport folio_mark_accessed, lru_add_drain
from mmcore.reclaim.writeback cimport folio_mark_dirty
from mmcore.reclaim.mlock cimport munlock_folio
from mmcore.reclaim.swap cimport free_swap_and_cache, swap_pte_slot
from mmcore.sys.gather cimport gather_flush, gather_init, gather_page
from mmcore.sys.hugetlb cimport hugetlb_zap
from mmcore.sys.thp cimport folio_head, large_partial, large_rmap_remove, split_huge_pmd, zap_huge
from mmcore.vm.pgtable cimport (
    PTE_ACCESSED, PTE_DIRTY, PTE_PSE, PTE_SPECIAL, mm_at, pte_frame, pte_is_table, pte_mapped, table_at, walk_level,
)
from mmcore.vm.vma cimport VM_LOCKED, VM_RAND_READ, VM_SEQ_READ, find_vma
from mmcore.vm.rmap cimport (
    NS_NR_ANON_PAGES, PG_ORDER_MASK, PG_ORDER_SHIFT, PG_allocated, PG_meta, PG_swapbacked, anon_rmap_remove, file_rmap_remove,
    page_is_file,
)

cdef enum:
    AHEAD = 16
    ORDER_BITS = PG_ORDER_MASK << PG_ORDER_SHIFT
    PLAIN = PG_allocated | PG_anon                      # one anonymous page, one mapping, nothing else about it
    NOT_PLAIN = PLAIN | PG_file | PG_meta | PG_mlocked  # and no order


cdef struct LargeRow:               # neighbouring entries that map neighbouring pages of one large folio
    uint32_t head                   # its head + 1; 0: no row
    uint32_t next                   # the page that would go on with it
    bint lost                       # some page of it has no mapping left


cdef void end_row(Mm* mm, LargeRow* row) noexcept nogil:
    # Whether the folio is mapped in part now is asked once for the row.
    if row.head and row.lost:
        large_partial(mm, row.head - 1)
    row.head = 0
    row.lost = False


cdef bint maps_locked(Mm* mm, uint32_t slot, uint32_t i) noexcept nogil:
    # Whether this entry's mapping is locked, so that the page counts it.
    cdef uint64_t address = (mm.vm.table_info[slot].base + i) << 12
    cdef uint32_t vma = find_vma(mm, mm.vm.table_info[slot].mm, address)
    return vma != 0 and mm.vm.vmas[vma - 1].start <= address and mm.vm.vmas[vma - 1].flags & VM_LOCKED != 0


cdef bint has_recency(Mm* mm, uint32_t slot, uint32_t i) noexcept nogil:
    # vma_has_recency(): its accesses say that a page is worth keeping.
    cdef uint32_t vma = find_vma(mm, mm.vm.table_info[slot].mm, (mm.vm.table_info[slot].base + i) << 12)
    return vma == 0 or not mm.vm.vmas[vma - 1].flags & (VM_SEQ_READ | VM_RAND_READ)


cdef void zap_large_part(Mm* mm, AddressSpace* m, uint32_t slot, uint32_t i, uint32_t pfn, LargeRow* row, Gather* g) noexcept nogil:
    cdef uint32_t head = folio_head(mm, pfn)
    if row.head != head + 1 or row.next != pfn:
        end_row(mm, row)
        if page_at(mm, head).flags & PG_mlocked and maps_locked(mm, slot, i):
            munlock_folio(mm, head, g.cpu)          # part of it is enough, and once for the row
    row.head = head + 1
    row.next = pfn + 1
    m.rss[MM_ANONPAGES] -= 1
    if large_rmap_remove(mm, head, pfn, &row.lost):
        row.head = 0
        row.lost = False
        gather_page(mm, g, head)


cdef void zap_file_page(Mm* mm, AddressSpace* m, uint32_t slot, uint32_t i, uint32_t pfn, uint64_t e, unsigned cpu) noexcept nogil:
    cdef Page* p = page_at(mm, pfn)
    if e & PTE_DIRTY:
        folio_mark_dirty(mm, pfn, cpu)
    if e & PTE_ACCESSED and has_recency(mm, slot, i):
        folio_mark_accessed(mm, pfn, cpu)
    m.rss[MM_SHMEMPAGES if p.flags & PG_swapbacked else MM_FILEPAGES] -= 1
    file_rmap_remove(mm, pfn)


cdef inline void zap_swap(Mm* mm, const uint64_t* e, uint32_t i, uint32_t end, uint64_t v, uint32_t* n, unsigned cpu) noexcept nogil:
    # Entries side by side that name slots side by side, and are alike otherwise, give them up together (swap_pte_batch): n so far.
    n[0] += 1
    if i + 1 < end and e[i + 1] == v + 4096:
        return
    free_swap_and_cache(mm, swap_pte_slot(v) - (n[0] - 1), n[0], cpu)
    n[0] = 0


cdef void zap_table(Mm* mm, AddressSpace* m, uint32_t slot, uint32_t first, uint32_t end, Gather* g) noexcept nogil:
    cdef uint64_t* e = table_at(mm, slot)
    cdef uint64_t v
    cdef uint32_t i, pfn, flags, limit = mm.g.nr_pages, used = 0, block = ~<uint32_t>0, swapped = 0
    cdef int64_t anon = 0, plain = 0
    cdef int64_t* stat = NULL
    cdef int64_t* mine
    cdef bint groups = mm.vm.g.nr_memcgs != 0
    cdef LargeRow row
    row.head = 0
    row.lost = False
    for i in range(first, end):
        v = e[i]
        if v == 0:
            if row.head:
                end_row(mm, &row)
            continue
        if i + AHEAD < end:
            pfn = <uint32_t>pte_frame(e[i + AHEAD])
            if pfn < limit:
                prefetch(page_at(mm, pfn))
        e[i] = 0
        used += 1
        if not pte_mapped(v):
            m.rss[MM_SWAPENTS] -= 1
            zap_swap(mm, e, i, end, v, &swapped, g.cpu)
            continue
        if v & PTE_SPECIAL:
            continue
        pfn = <uint32_t>pte_frame(v)
        flags = page_at(mm, pfn).flags
        if flags & (NOT_PLAIN | ORDER_BITS) == PLAIN and not groups:
            # a pageblock that names a zone lies in it: its node is looked up once for a row of its pages
            if pfn >> PAGEBLOCK_ORDER != block:
                block = pfn >> PAGEBLOCK_ORDER if block_at(mm, pfn >> PAGEBLOCK_ORDER).zone else ~<uint32_t>0
                mine = &mm.nodes[mm.zones[zone_of(mm, pfn) - 1].node].vm_stat[NS_NR_ANON_PAGES]
                if mine != stat:
                    if stat != NULL:
                        stat[0] -= anon
                    stat = mine
                    anon = 0
            plain += 1
            anon += 1
            gather_page(mm, g, pfn)
            continue
        if not page_is_file(flags) and (not flags & PG_allocated or flags & (PG_ORDER_MASK << PG_ORDER_SHIFT)):
            zap_large_part(mm, m, slot, i, pfn, &row, g)
            continue
        if flags & PG_mlocked and maps_locked(mm, slot, i):
            munlock_folio(mm, pfn, g.cpu)
        if page_is_file(flags):
            zap_file_page(mm, m, slot, i, pfn, v, g.cpu)
            continue
        m.rss[MM_ANONPAGES] -= 1
        if not flags & PG_meta or anon_rmap_remove(mm, pfn):
            if groups:
                lruvec_stat_mod(mm, pfn, NS_NR_ANON_PAGES, -1)
            else:
                mine = &mm.nodes[mm.zones[zone_of(mm, pfn) - 1].node].vm_stat[NS_NR_ANON_PAGES]
                block = ~<uint32_t>0
                if mine != stat:
                    if stat != NULL:
                        stat[0] -= anon
                    stat = mine
                    anon = 0
                anon += 1
            gather_page(mm, g, pfn)
    m.rss[MM_ANONPAGES] -= plain
    if row.head:
        end_row(mm, &row)
    if stat != NULL:
        stat[0] -= anon
    mm.vm.table_info[slot].nr_used -= <unsigned short>used


cdef void zap_level(Mm* mm, uint32_t as_, AddressSpace* m, uint32_t slot, unsigned level, uint64_t at, uint64_t end, Gather* g) noexcept nogil:
    # Entries of one table for vpns [at, end).
    cdef unsigned shift = level * mm.vm.bits
    cdef uint64_t size = <uint64_t>1 << shift, next_
    cdef uint64_t* e = table_at(mm, slot) + ((at >> shift) & mm.vm.mask)
    if level == 0:
        zap_table(mm, m, slot, <uint32_t>(at & mm.vm.mask), <uint32_t>(((end - 1) & mm.vm.mask) + 1), g)
        return
    while at < end:
        next_ = (at & ~(size - 1)) + size
        if next_ > end:
            next_ = end
        if e[0] & PTE_PSE and page_at(mm, <uint32_t>pte_frame(e[0])).flags & (PG_owned | OWNER_MASK) == PG_owned | OWNER_HUGETLB:
            hugetlb_zap(mm, &mm.vm.vmas[find_vma(mm, as_, at << 12) - 1], e, g.cpu)
        elif e[0] & PTE_PSE and next_ - at == size:
            zap_huge(mm, as_, e, g)
        elif e[0]:
            if e[0] & PTE_PSE:
                split_huge_pmd(mm, as_, e, at, g.cpu)
            if pte_is_table(e[0]):
                zap_level(mm, as_, m, <uint32_t>pte_frame(e[0]), level - 1, at, next_, g)
        at = next_
        e += 1


cdef void zap_pages(Mm* mm, uint32_t as_, uint64_t start, uint64_t end, Gather* g) noexcept nogil:
    cdef AddressSpace* m = mm_at(mm, as_)
    if start < end:
        zap_level(mm, as_, m, m.root - 1, mm.vm.levels - 1, start >> 12, (end + 4095) >> 12, g)


cdef void zap_range(Mm* mm, uint32_t as_, uint32_t vma, uint64_t start, uint64_t end, unsigned cpu) noexcept nogil:
    cdef Gather g
    gather_init(&g, cpu)
    lru_add_drain(mm, cpu)
    zap_pages(mm, as_, start, end, &g)
    gather_flush(mm, &g)


cdef void zap_files_of_table(Mm* mm, AddressSpace* m, uint32_t slot, uint32_t first, uint32_t end, unsigned cpu) noexcept nogil:
    cdef uint64_t* e = table_at(mm, slot)
    cdef uint64_t v
    cdef uint32_t i, pfn
    for i in range(first, end):
        v = e[i]
        if not pte_mapped(v) or v & PTE_SPECIAL:
            continue
        pfn = <uint32_t>pte_frame(v)
        if not page_is_file(page_at(mm, pfn).flags):
            continue
        e[i] = 0
        mm.vm.table_info[slot].nr_used -= 1
        if page_at(mm, pfn).flags & PG_mlocked and maps_locked(mm, slot, i):
            munlock_folio(mm, pfn, cpu)
        zap_file_page(mm, m, slot, i, pfn, v, cpu)


cdef void zap_file_range(Mm* mm, uint32_t as_, uint64_t start, uint64_t end, unsigned cpu) noexcept nogil:
    cdef AddressSpace* m = mm_at(mm, as_)
    cdef uint64_t vpn = start >> 12, stop = (end + 4095) >> 12, next_
    cdef uint64_t* e
    lru_add_drain(mm, cpu)
    while vpn < stop:
        next_ = (vpn | mm.vm.mask) + 1
        e = walk_level(mm, m.root - 1, vpn, 1)
        if e == NULL and mm.vm.levels > 2:
            # no table of this level: on to the next one
            vpn = (vpn | ((<uint64_t>1 << (2 * mm.vm.bits)) - 1)) + 1
            continue
        if next_ > stop:
            next_ = stop
        if e != NULL and e[0] and pte_is_table(e[0]):
            zap_files_of_table(mm, m, <uint32_t>pte_frame(e[0]), <uint32_t>(vpn & mm.vm.mask), <uint32_t>(((next_ - 1) & mm.vm.mask) + 1), cpu)
        vpn = next_
