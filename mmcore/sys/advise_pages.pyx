"""Advice about pages that are there.

Models: madvise_free_pte_range, madvise_cold_or_pageout_pte_range, madvise_collapse, mlock_pte_range (mm/madvise.c, mm/khugepaged.c,
mm/mlock.c, v6.12), large folios included: advice to part of one splits it unless it is likely shared, mlock takes only those that lie
wholly in the range, munlock takes all. Simplifies: a folio that is locked elsewhere is not split. Omits: MADV_PAGEOUT's reclaim (it makes
pages old and inactive; reclaim takes them when it comes), large folios of files.
"""
from mmcore.base.errors cimport E_AGAIN, E_INVAL, E_NOMEM
from mmcore.base.flags cimport PG_ORDER_MASK, PG_ORDER_SHIFT, PG_allocated, PG_swapcache, PG_unevictable
from mmcore.base.records cimport meta_at, page_at
from mmcore.base.vm_records cimport FILE_SHMEM, MM_SWAPENTS, Vma
from mmcore.reclaim.lru cimport lru_deactivate, lru_lazyfree
from mmcore.reclaim.mlock cimport mlock_folio, munlock_folio
from mmcore.reclaim.swap cimport free_swap_and_cache, swap_pte_slot
from mmcore.sys.readahead cimport file_willneed
from mmcore.sys.flush cimport FlushRange, flush_note, flush_noted
from mmcore.sys.khugepaged cimport (
    SCAN_ALLOC_FAIL, SCAN_PAGE_ANON, SCAN_PAGE_STATE, SCAN_PMD_MAPPED, SCAN_SUCCEED, collapse_block, split_folio,
)
from mmcore.sys.swap cimport shmem_willneed, swapin_range
from mmcore.sys.thp cimport folio_head, folio_likely_shared, vma_allows_huge
from mmcore.sys.truncate cimport file_punch
from mmcore.vm.pgtable cimport (
    PTE_ACCESSED, PTE_DIRTY, PTE_PSE, PTE_SPECIAL, mm_at, pte_frame, pte_is_table, pte_mapped, set_entry, table_at, walk_level,
)
from mmcore.vm.rmap cimport anon_mapcount, page_is_anon, page_is_file
from mmcore.vm.vma cimport VM_LOCKED

ctypedef enum Advice:
    FREE
    COLD
    MLOCK
    MUNLOCK


cdef inline bint mapped_once(Mm* mm, uint32_t head) noexcept nogil:
    cdef uint32_t flags = page_at(mm, head).flags
    return (meta_at(mm, head).mapcount if page_is_file(flags) else anon_mapcount(mm, head)) == 1


cdef uint64_t advise_folio(Mm* mm, uint64_t e, uint32_t head, Advice what, unsigned cpu) noexcept nogil:
    # The page behind one entry (a whole folio): the entry's new value.
    cdef uint32_t flags = page_at(mm, head).flags
    if what == MLOCK:
        mlock_folio(mm, head, cpu)
    elif what == MUNLOCK:
        munlock_folio(mm, head, cpu)
    elif what == FREE:
        if page_is_anon(flags) and mapped_once(mm, head) and not flags & PG_swapcache:
            lru_lazyfree(mm, head, cpu)
            return e & ~(PTE_DIRTY | PTE_ACCESSED)
    elif mapped_once(mm, head):
        lru_deactivate(mm, head, cpu)
        return e & ~PTE_ACCESSED
    return e


cdef inline bint split_for(Mm* mm, uint32_t head, unsigned cpu) noexcept nogil:
    # Advice reaches a part of a large folio: whether it is small pages now.
    return not folio_likely_shared(mm, head) and not page_at(mm, head).flags & PG_unevictable and split_folio(mm, head, cpu) == 0


cdef uint64_t advise_large(Mm* mm, uint64_t* e, uint64_t room, uint32_t pfn, Advice what, unsigned cpu) noexcept nogil:
    # Small entries that map neighbouring pages of one large folio, at most `room` in this table: how many they are; 0: it was split, look
    # at them again.
    cdef uint32_t head = folio_head(mm, pfn), n = <uint32_t>1 << (page_at(mm, head).flags >> PG_ORDER_SHIFT & PG_ORDER_MASK)
    cdef uint64_t k = 0, i
    if not page_is_anon(page_at(mm, head).flags):
        return 1
    while k < room and pfn + k < head + n and pte_mapped(e[k]) and not e[k] & PTE_SPECIAL and pte_frame(e[k]) == pfn + k:
        k += 1
    if what == MUNLOCK:
        munlock_folio(mm, head, cpu)
    elif k < n:
        return 0 if what != MLOCK and split_for(mm, head, cpu) else k
    elif what == MLOCK:
        mlock_folio(mm, head, cpu)
    elif meta_at(mm, head).mapcount == n and not page_at(mm, head).flags & PG_swapcache:
        for i in range(k):
            e[i] &= ~PTE_ACCESSED if what == COLD else ~(PTE_DIRTY | PTE_ACCESSED)
        if what == COLD:
            lru_deactivate(mm, head, cpu)
        else:
            lru_lazyfree(mm, head, cpu)
    return k


cdef void advise_range(Mm* mm, uint32_t as_, uint64_t start, uint64_t end, Advice what, unsigned cpu) noexcept nogil:
    cdef uint64_t vpn = start >> 12, stop = end >> 12, next_, n
    cdef uint64_t* e
    cdef uint32_t pfn, flags
    while vpn < stop:
        next_ = (vpn | mm.vm.mask) + 1
        if next_ > stop:
            next_ = stop
        e = walk_level(mm, mm_at(mm, as_).root - 1, vpn, 1)
        if e == NULL or e[0] == 0:
            vpn = next_
            continue
        if e[0] & PTE_PSE:
            if e[0] & PTE_SPECIAL:
                vpn = next_
                continue
            if next_ - vpn == mm.vm.mask + 1:
                e[0] = advise_folio(mm, e[0], <uint32_t>pte_frame(e[0]), what, cpu)
                vpn = next_
                continue
            # locks have had it split where their range ends
            if what == MLOCK or what == MUNLOCK or not split_for(mm, <uint32_t>pte_frame(e[0]), cpu):
                vpn = next_
                continue
        if not pte_is_table(e[0]):
            vpn = next_
            continue
        e = table_at(mm, <uint32_t>pte_frame(e[0])) + (vpn & mm.vm.mask)
        while vpn < next_:
            if what == FREE and e[0] and not pte_mapped(e[0]):
                # a swap entry: its page is dropped where it is
                free_swap_and_cache(mm, swap_pte_slot(e[0]), 1, cpu)
                mm_at(mm, as_).rss[MM_SWAPENTS] -= 1
                set_entry(mm, e, 0)
            if pte_mapped(e[0]) and not e[0] & PTE_SPECIAL:
                pfn = <uint32_t>pte_frame(e[0])
                flags = page_at(mm, pfn).flags
                if not flags & PG_allocated or flags & (PG_ORDER_MASK << PG_ORDER_SHIFT):
                    n = advise_large(mm, e, next_ - vpn, pfn, what, cpu)
                    e += n
                    vpn += n
                    continue
                e[0] = advise_folio(mm, e[0], pfn, what, cpu)
            e += 1
            vpn += 1


cdef int madvise_free_range(Mm* mm, uint32_t as_, uint32_t vma, uint64_t start, uint64_t end, unsigned cpu) noexcept nogil:
    cdef FlushRange f
    flush_note(mm, as_, start, end, &f)
    advise_range(mm, as_, start, end, FREE, cpu)
    flush_noted(mm, as_, &f, cpu)
    return 0


cdef int cold_range(Mm* mm, uint32_t as_, uint32_t vma, uint64_t start, uint64_t end, unsigned cpu) noexcept nogil:
    cdef FlushRange f
    flush_note(mm, as_, start, end, &f)
    advise_range(mm, as_, start, end, COLD, cpu)
    flush_noted(mm, as_, &f, cpu)
    return 0


cdef int pageout_range(Mm* mm, uint32_t as_, uint32_t vma, uint64_t start, uint64_t end, unsigned cpu) noexcept nogil:
    cdef FlushRange f
    flush_note(mm, as_, start, end, &f)
    advise_range(mm, as_, start, end, COLD, cpu)
    flush_noted(mm, as_, &f, cpu)
    return 0


cdef int willneed_range(Mm* mm, uint32_t as_, uint32_t vma, uint64_t start, uint64_t end, unsigned cpu) noexcept nogil:
    cdef Vma* v = &mm.vm.vmas[vma - 1]
    if v.anon_vma:
        swapin_range(mm, as_, start, end, cpu)
    if v.file and mm.vm.files[v.file - 1].flags & FILE_SHMEM:
        shmem_willneed(mm, v.file, v.pgoff + ((start - v.start) >> 12), v.pgoff + ((end - v.start) >> 12), cpu)
    elif v.file:
        file_willneed(mm, v.file, v.pgoff + ((start - v.start) >> 12), v.pgoff + ((end - v.start) >> 12), cpu)
    return 0


cdef int remove_range(Mm* mm, uint32_t as_, uint32_t vma, uint64_t start, uint64_t end, unsigned cpu) noexcept nogil:
    cdef Vma* v = &mm.vm.vmas[vma - 1]
    if v.file == 0:
        return -E_INVAL
    file_punch(mm, v.file, v.pgoff + ((start - v.start) >> 12), v.pgoff + ((end - v.start) >> 12), cpu)
    return 0


cdef int collapse_range(Mm* mm, uint32_t as_, uint32_t vma, uint64_t start, uint64_t end, unsigned cpu) noexcept nogil:
    # madvise_collapse(): the errno is that of the last block that failed
    cdef uint64_t at = (start + (1 << 21) - 1) & ~<uint64_t>((1 << 21) - 1), stop = end & ~<uint64_t>((1 << 21) - 1)
    cdef int rc, result = 0
    if at > stop or not vma_allows_huge(mm, &mm.vm.vmas[vma - 1], True):
        return -E_INVAL
    while at < stop:
        rc = collapse_block(mm, as_, at, True, cpu)
        at += 1 << 21
        if rc == SCAN_ALLOC_FAIL:
            return -E_NOMEM
        if rc == SCAN_PAGE_STATE:
            result = -E_AGAIN
        elif rc == SCAN_PAGE_ANON:
            return -E_INVAL
        elif rc != SCAN_SUCCEED and rc != SCAN_PMD_MAPPED:
            result = -E_INVAL
    return result


cdef void mlock_range(Mm* mm, uint32_t as_, uint32_t vma, uint64_t start, uint64_t end, unsigned cpu) noexcept nogil:
    advise_range(mm, as_, start, end, MLOCK if mm.vm.vmas[vma - 1].flags & VM_LOCKED else MUNLOCK, cpu)
