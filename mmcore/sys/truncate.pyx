"""Pages leave a file that may be mapped.

Models: truncate_setsize, truncate_pagecache, truncate_pagecache_range (mm/truncate.c), unmap_mapping_range (mm/memory.c), the unmapping
of shmem_fallocate (mm/shmem.c), v6.12: every VMA of the file loses its mappings of the range first, one flush of the TLB for each; a
shorter file takes private copies beyond its end along, a hole does not. The page that holds the new end stays and is dirty, as its tail was
cleared. Simplifies: VMAs are visited in the order of the file's list, not of the tree i_mmap; the page of the new end is not read in to be
cleared when it is not cached; nothing faults in between, so that one pass over the mappings is enough. Omits: write-back before a hole is
punched, pages swapped out of tmpfs.
"""
from libc.stdint cimport int64_t

from mmcore.base.errors cimport E_FBIG
from mmcore.base.vm_records cimport File, Vma
from mmcore.reclaim.page_cache cimport FILE_MAX_PAGES_SHIFT, file_notifies, file_pages, filemap_lookup, mapping_at
from mmcore.reclaim.writeback cimport folio_mark_dirty
from mmcore.sys.filemap cimport filemap_drop_range
from mmcore.sys.flush cimport FlushRange, flush_note, flush_noted_remote
from mmcore.sys.zap cimport zap_file_range, zap_range


cdef void unmap_mapping_pages(Mm* mm, uint32_t file, uint64_t first, uint64_t end, bint even_cows, unsigned cpu) noexcept nogil:
    cdef uint32_t x = mapping_at(mm, file).vma_first
    cdef const Vma* v
    cdef uint64_t start, stop
    cdef FlushRange f
    while x:
        v = &mm.vm.vmas[x - 1]
        start = first if first > v.pgoff else v.pgoff
        stop = v.pgoff + ((v.end - v.start) >> 12)
        if stop > end:
            stop = end
        if start < stop:
            start = v.start + ((start - v.pgoff) << 12)
            stop = v.start + ((stop - v.pgoff) << 12)
            flush_note(mm, v.mm, start, stop, &f)
            if even_cows:
                zap_range(mm, v.mm, x, start, stop, cpu)
            else:
                zap_file_range(mm, v.mm, start, stop, cpu)
            flush_noted_remote(mm, v.mm, &f, cpu)
        x = v.file_next


cdef int file_set_size(Mm* mm, uint32_t file, uint64_t size, unsigned cpu) noexcept nogil:
    cdef File* f = mapping_at(mm, file)
    cdef uint64_t old = f.size, first
    cdef int64_t pfn
    if size >> (FILE_MAX_PAGES_SHIFT + 12):
        return -E_FBIG
    f.size = size
    if size >= old:
        return 0
    first = file_pages(f)
    unmap_mapping_pages(mm, file, first, ~<uint64_t>0, True, cpu)
    filemap_drop_range(mm, file, first, ~<uint64_t>0, True, cpu, NULL)
    if size & 4095 and file_notifies(mm, file):
        pfn = filemap_lookup(mm, file, size >> 12)
        if pfn >= 0:
            folio_mark_dirty(mm, <uint32_t>pfn, cpu)
    return 0


cdef void file_punch(Mm* mm, uint32_t file, uint64_t first, uint64_t end, unsigned cpu) noexcept nogil:
    if first >= end:
        return
    unmap_mapping_pages(mm, file, first, end, False, cpu)
    filemap_drop_range(mm, file, first, end, True, cpu, NULL)
