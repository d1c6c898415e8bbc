"""What a page cache holds: pages come into the index of a file and leave it, with what their records and the counters say of it.

Models: __filemap_add_folio, filemap_unaccount_folio, filemap_get_entry, page_cache_delete with a shadow (mm/filemap.c, v6.12), for files with
single-page folios. The
caller brings pages and gives them back to the allocator. Simplifies: index nodes come from their pool, which mmcore.vm.radix asks by
itself (sys/index_nodes charges them). Omits: swap entries of shmem; the count of nodes that hold nothing but shadows.
"""
from mmcore.base.errors cimport E_NOENT
from mmcore.base.flags cimport PG_file, PG_meta, PG_swapbacked, PG_uptodate
from mmcore.base.records cimport Page, meta_at, page_at
from mmcore.base.vmscan_trace cimport trace_page_add, trace_page_del
from mmcore.base.stat_items cimport NS_NR_FILE_PAGES, NS_NR_SHMEM
from mmcore.vm.radix cimport RADIX_MASK, page_slot, radix_leaf, radix_lookup, radix_mark, radix_next, slot_is_page, slot_is_shadow, slot_pfn
from mmcore.phys.lruvec_stat cimport lruvec_stat_mod
from mmcore.vm.rmap cimport page_index, set_page_index


cdef void page_enters(Mm* mm, File* f, uint32_t file, uint64_t index, uint32_t pfn) noexcept nogil:
    # __filemap_add_folio(): what the page's record and the counters say of it.
    cdef Page* p = page_at(mm, pfn)
    p.private_ = file
    p.flags |= PG_file | PG_uptodate
    if index:
        set_page_index(meta_at(mm, pfn), index)
        p.flags |= PG_meta
    lruvec_stat_mod(mm, pfn, NS_NR_FILE_PAGES, 1)
    if f.flags & FILE_SHMEM:
        p.flags |= PG_swapbacked
        lruvec_stat_mod(mm, pfn, NS_NR_SHMEM, 1)
    f.nr_pages += 1


cdef uint64_t cache_insert(Mm* mm, uint32_t file, XNode* leaf, uint64_t index, uint32_t pfn, bint mark) noexcept nogil:
    cdef uint64_t* slot = &leaf.slots[index & RADIX_MASK]
    cdef uint64_t old = slot[0]
    page_enters(mm, mapping_at(mm, file), file, index, pfn)
    if old == 0:
        leaf.count += 1
    elif slot_is_shadow(old):
        leaf.nr_shadows -= 1
    slot[0] = page_slot(pfn) | (radix_mark() if mark else 0)
    trace_page_add(mm, pfn, <uint32_t>index)
    return old


cdef void page_leaves(Mm* mm, File* f, uint32_t pfn) noexcept nogil:
    lruvec_stat_mod(mm, pfn, NS_NR_FILE_PAGES, -1)
    if page_at(mm, pfn).flags & PG_swapbacked:
        lruvec_stat_mod(mm, pfn, NS_NR_SHMEM, -1)
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


cdef void page_cache_evict(Mm* mm, uint32_t pfn, uint64_t shadow) noexcept nogil:
    cdef Page* p = page_at(mm, pfn)
    cdef uint64_t index = page_index(meta_at(mm, pfn)) if p.flags & PG_meta else 0
    cdef File* f = mapping_at(mm, p.private_)
    cdef XNode* leaf = radix_leaf(mm, f, index)
    leaf.slots[index & RADIX_MASK] = shadow
    leaf.nr_shadows += 1
    trace_page_del(mm, pfn, <uint32_t>index)
    page_leaves(mm, f, pfn)
