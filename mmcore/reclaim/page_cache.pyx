"""What a page cache holds: pages come into the index of a file and leave it, with what their records and the counters say of it.

Models: __filemap_add_folio, filemap_unaccount_folio, filemap_get_entry (mm/filemap.c, v6.12), for files with single-page folios. The
caller brings pages and gives them back to the allocator. Simplifies: index nodes come from their pool, which mmcore.vm.radix asks by
itself. Omits: storing shadow and swap entries; readers already take either for a page that is not cached.
"""
from mmcore.base.errors cimport E_NOENT
from mmcore.base.flags cimport PG_file, PG_meta, PG_swapbacked, PG_uptodate
from mmcore.base.records cimport Page, meta_at, page_at
from mmcore.base.stat_items cimport NS_NR_FILE_PAGES, NS_NR_SHMEM
from mmcore.vm.radix cimport RADIX_MASK, page_slot, radix_lookup, radix_mark, radix_next, slot_is_page, slot_pfn
from mmcore.vm.rmap cimport node_stat, set_page_index


cdef void page_enters(Mm* mm, File* f, uint32_t file, uint64_t index, uint32_t pfn) noexcept nogil:
    # __filemap_add_folio(): what the page's record and the counters say of it.
    cdef Page* p = page_at(mm, pfn)
    cdef int64_t* stat = node_stat(mm, pfn)
    p.private_ = file
    p.flags |= PG_file | PG_uptodate
    if index:
        set_page_index(meta_at(mm, pfn), index)
        p.flags |= PG_meta
    stat[NS_NR_FILE_PAGES] += 1
    if f.flags & FILE_SHMEM:
        p.flags |= PG_swapbacked
        stat[NS_NR_SHMEM] += 1
    f.nr_pages += 1


cdef void cache_insert(Mm* mm, uint32_t file, XNode* leaf, uint64_t index, uint32_t pfn, bint mark) noexcept nogil:
    cdef uint64_t* slot = &leaf.slots[index & RADIX_MASK]
    page_enters(mm, mapping_at(mm, file), file, index, pfn)
    if slot[0] == 0:
        leaf.count += 1
    slot[0] = page_slot(pfn) | (radix_mark() if mark else 0)


cdef void page_leaves(Mm* mm, File* f, uint32_t pfn) noexcept nogil:
    cdef int64_t* stat = node_stat(mm, pfn)
    stat[NS_NR_FILE_PAGES] -= 1
    if page_at(mm, pfn).flags & PG_swapbacked:
        stat[NS_NR_SHMEM] -= 1
    f.nr_pages -= 1


cdef int64_t filemap_lookup(Mm* mm, uint32_t file, uint64_t index) noexcept nogil:
    cdef uint64_t value = radix_lookup(mm, mapping_at(mm, file), index)
    return <int64_t>slot_pfn(value) if slot_is_page(value) else -E_NOENT


cdef bint range_mapped(Mm* mm, uint32_t file, uint64_t first, uint64_t end) noexcept nogil:
    cdef uint64_t at = first
    cdef uint64_t* slot
    while at < end:
        slot = radix_next(mm, mapping_at(mm, file), &at, end - 1)
        if slot == NULL:
            return False
        if slot_is_page(slot[0]) and page_mapped(mm, slot_pfn(slot[0])):
            return True
        at += 1
    return False
