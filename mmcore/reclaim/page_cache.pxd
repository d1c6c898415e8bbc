# The page cache of a file: its index and what the records of cached pages say. See page_cache.pyx.

from libc.stdint cimport int64_t, uint32_t, uint64_t
from mmcore.base.flags cimport PG_meta
from mmcore.base.records cimport Mm, meta_at, page_at
from mmcore.base.vm_records cimport FILE_RAM, FILE_SHMEM, File, XNode

cdef enum:
    FILE_MAX_PAGES_SHIFT = 48       # folio->index as page records hold it

cdef inline File* mapping_at(Mm* mm, uint32_t file) noexcept nogil:
    return &mm.vm.files[file - 1]

# i_size in pages, rounded up.
cdef inline uint64_t file_pages(const File* f) noexcept nogil:
    return (f.size >> 12) + (1 if f.size & 4095 else 0)

# Whether the file wants to hear of the first write to a page (dirty tracking): its shared mappings are write-protected first.
cdef inline bint file_notifies(Mm* mm, uint32_t file) noexcept nogil:
    return not mm.vm.files[file - 1].flags & (FILE_SHMEM | FILE_RAM)

cdef inline bint page_mapped(Mm* mm, uint32_t pfn) noexcept nogil:
    return page_at(mm, pfn).flags & PG_meta and meta_at(mm, pfn).mapcount != 0

# A page of the caller's, who holds its one reference, comes into a slot of `leaf` that has no page; what the slot held (0, a shadow).
cdef uint64_t cache_insert(Mm* mm, uint32_t file, XNode* leaf, uint64_t index, uint32_t pfn, bint mark) noexcept nogil
# The counters lose a page whose slot the caller empties.
cdef void page_leaves(Mm* mm, File* f, uint32_t pfn) noexcept nogil
# The frame of a cached page, -E_NOENT for a hole, a shadow or a swap entry. Whether a page of [first, end) is mapped.
cdef int64_t filemap_lookup(Mm* mm, uint32_t file, uint64_t index) noexcept nogil
cdef bint range_mapped(Mm* mm, uint32_t file, uint64_t first, uint64_t end) noexcept nogil
# Reclaim takes a page that no one uses out of its file's index and leaves a shadow in its place, or nothing (0). The page is the caller's then.
cdef void page_cache_evict(Mm* mm, uint32_t pfn, uint64_t shadow, unsigned cpu) noexcept nogil
# A page of shmem that no one maps moves from its file's index, which names the slot then, to the swap cache.
cdef void page_cache_to_swap(Mm* mm, uint32_t pfn, uint32_t slot) noexcept nogil
# radix_prune(): nodes that hold nothing any longer go, and are no group's any more.
cdef void index_prune(Mm* mm, File* f, XNode* leaf, unsigned cpu) noexcept nogil
