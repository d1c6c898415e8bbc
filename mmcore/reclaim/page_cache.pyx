"""What a page cache holds: pages come into the index of a file and leave it, with what their records and the counters say of it.

Models: __filemap_add_folio, filemap_unaccount_folio, filemap_get_entry, page_cache_delete with a shadow (mm/filemap.c), the move of a page
from the index to the swap cache in shmem_writepage and shmem_delete_from_page_cache (mm/shmem.c), v6.12, for files with single-page
folios. The caller brings pages and gives them back to the allocator. Simplifies: index nodes come from their pool, which mmcore.vm.radix
asks by itself (sys/index_nodes charges them). Omits: the count of nodes that hold nothing but shadows.
"""
from mmcore.base.errors cimport E_NOENT
from mmcore.base.flags cimport PG_file, PG_meta, PG_swapbacked, PG_uptodate
from mmcore.base.records cimport Page, meta_at, page_at
from mmcore.base.vmscan_trace cimport trace_page_add, trace_page_del
from mmcore.base.stat_items cimport NS_NR_FILE_PAGES, NS_NR_SHMEM
from mmcore.base.vm_records cimport MEMCG_DYING, SLOT_SHMEM
from mmcore.reclaim.memcg cimport memcg_at, obj_account, obj_refill
from mmcore.reclaim.swap cimport swap_cache_add, swap_dup, swap_slot_at
from mmcore.vm.radix cimport (
    RADIX_MASK, RADIX_MAX_HEIGHT, page_slot, radix_leaf, radix_lookup, radix_mark, radix_next, radix_prune, slot_is_page, slot_is_shadow, slot_pfn,
    swap_slot_value, xnode_at,
)
from mmcore.phys.lruvec_stat cimport lruvec_stat_mod
from mmcore.vm.rmap cimport page_index, set_page_index, sync_meta

cdef enum:
    NODE_BYTES = 592            # of a radix_tree_node with the pointer to its owner, as sys/index_nodes charges it


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


cdef void uncharge_node(Mm* mm, uint32_t id_, unsigned cpu) noexcept nogil:
    if memcg_at(mm, id_).flags == MEMCG_DYING:          # it may be gone afterwards
        obj_account(mm, id_, -NODE_BYTES, cpu)
        obj_refill(mm, id_, NODE_BYTES, True, cpu)
    else:
        obj_refill(mm, id_, NODE_BYTES, True, cpu)
        obj_account(mm, id_, -NODE_BYTES, cpu)


cdef void index_prune(Mm* mm, File* f, XNode* leaf, unsigned cpu) noexcept nogil:
    # The path is noted first: of its nodes those that are empty afterwards have gone.
    cdef XNode* path[12]
    cdef uint32_t ids[12]
    cdef int n = 0, k
    cdef XNode* at = leaf
    while n < RADIX_MAX_HEIGHT:
        path[n] = at
        ids[n] = at.memcg
        n += 1
        if at.up == 0:
            break
        at = xnode_at(mm, at.up)
    radix_prune(mm, f, leaf)
    for k in range(n):
        if ids[k] and path[k].count == 0:
            uncharge_node(mm, ids[k], cpu)


cdef inline uint64_t index_of(Mm* mm, uint32_t pfn) noexcept nogil:
    return page_index(meta_at(mm, pfn)) if page_at(mm, pfn).flags & PG_meta else 0


cdef void page_cache_evict(Mm* mm, uint32_t pfn, uint64_t shadow, unsigned cpu) noexcept nogil:
    cdef uint64_t index = index_of(mm, pfn)
    cdef File* f = mapping_at(mm, page_at(mm, pfn).private_)
    cdef XNode* leaf = radix_leaf(mm, f, index)
    leaf.slots[index & RADIX_MASK] = shadow
    trace_page_del(mm, pfn, <uint32_t>index)
    page_leaves(mm, f, pfn)
    if shadow:
        leaf.nr_shadows += 1
        return
    leaf.count -= 1
    if leaf.count <= 1:
        index_prune(mm, f, leaf, cpu)


cdef void page_cache_to_swap(Mm* mm, uint32_t pfn, uint32_t slot) noexcept nogil:
    cdef Page* p = page_at(mm, pfn)
    cdef uint64_t index = index_of(mm, pfn)
    cdef File* f = mapping_at(mm, p.private_)
    radix_leaf(mm, f, index).slots[index & RADIX_MASK] = swap_slot_value(slot)
    page_leaves(mm, f, pfn)
    p.flags &= ~<uint32_t>PG_file
    p.private_ = 0
    set_page_index(meta_at(mm, pfn), 0)
    sync_meta(mm, pfn)
    swap_cache_add(mm, pfn, slot)
    swap_slot_at(mm, slot).flags |= SLOT_SHMEM
    swap_dup(mm, slot)
