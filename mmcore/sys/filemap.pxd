# Files and their page cache (mm/filemap.c, mm/readahead.c, mm/truncate.c). Files by index + 1. See filemap.pyx.

from libc.stdint cimport int64_t, uint32_t, uint64_t
from mmcore.base.records cimport Mm

cdef enum:
    MAP_PAGES_MAX = 512

cdef enum Fadvice:
    FADV_NORMAL = 0
    FADV_RANDOM = 1
    FADV_SEQUENTIAL = 2
    FADV_WILLNEED = 3
    FADV_DONTNEED = 4
    FADV_NOREUSE = 5

cdef struct MapPage:
    uint64_t index
    uint32_t pfn
    uint32_t pad

# A file's record, for all kinds of files: index + 1, with neither opens nor mappings, or 0 when there is none left. And what happens when
# one of its users (an open, a mapping, its name) is gone: with the last one its cache and the record go.
cdef uint32_t file_alloc(Mm* mm, uint64_t size, uint32_t flags, uint32_t name) noexcept nogil
cdef void file_put(Mm* mm, uint32_t file, unsigned cpu) noexcept nogil

# One page comes into the cache, which holds its one reference: its frame or -E_NOMEM; goes: 0, -E_NOENT, -E_BUSY while it is mapped.
cdef int64_t filemap_add(Mm* mm, uint32_t file, uint64_t index, bint write, unsigned cpu) noexcept nogil
cdef int filemap_remove(Mm* mm, uint32_t file, uint64_t index, unsigned cpu) noexcept nogil
# Pages of [first, end) that are not mapped go, dirty ones only with `dirty`; how many. `left`, if given: how many mapped ones stayed.
cdef int64_t filemap_drop_range(Mm* mm, uint32_t file, uint64_t first, uint64_t end, bint dirty, unsigned cpu, int64_t* left) noexcept nogil

# A fault on page `index`: 0 it was there, 1 it had to be read; -E_IO beyond the end (SIGBUS), -E_NOMEM. [first, end): bounds of the VMA.
cdef int filemap_fault(Mm* mm, uint32_t file, uint64_t index, uint64_t vm_flags, uint64_t first, uint64_t end, unsigned cpu, uint32_t* pfn) noexcept nogil
# Cached pages of [first, end) that fault-around may map.
cdef int64_t filemap_map_pages(Mm* mm, uint32_t file, uint64_t first, uint64_t end, uint64_t vm_flags, MapPage* out) noexcept nogil
# The window [lo[0], hi[0]] of page-table entries around entry i, page v of a VMA of `pages` pages, with fault_around N (a power of two).
cdef void fault_around_range(uint64_t i, uint64_t v, uint64_t pages, uint64_t n, uint64_t entries, uint64_t* lo, uint64_t* hi) noexcept nogil
# page_mkwrite: the page is about to be written through a mapping. 0 or a negative code.
cdef int file_make_writable(Mm* mm, uint32_t file, uint32_t pfn, unsigned cpu) noexcept nogil

# read(): pages copied from (0 at the end of the file), or -E_NOMEM when there was none; misses: how many had to be read, or -1 on none.
cdef int64_t filemap_read(Mm* mm, uint32_t file, uint64_t offset, uint64_t length, unsigned cpu, int64_t* misses) noexcept nogil
# write(): pages written, fewer when memory ran out; -E_NOMEM when none was, -E_FBIG beyond the largest file.
cdef int64_t filemap_write(Mm* mm, uint32_t file, uint64_t offset, uint64_t length, unsigned cpu) noexcept nogil
cdef int file_fadvise(Mm* mm, uint32_t file, uint64_t offset, uint64_t length, int advice, unsigned cpu) noexcept nogil
# Pages that were dirty; all are clean then.
cdef int64_t file_fsync(Mm* mm, uint32_t file, unsigned cpu, int64_t* wait_ns) noexcept nogil
