# Read-ahead windows of files (mm/readahead.c). Files by index + 1. See readahead.pyx.

from libc.stdint cimport int64_t, uint32_t, uint64_t
from mmcore.base.records cimport Mm
from mmcore.base.vm_records cimport File

cdef enum:
    RA_PAGES_DEFAULT = 32           # VM_READAHEAD_PAGES

# Pages for the slots [first, last] of one leaf that have none, that at `mark` marked: how many, or -1 - n when memory ran out after n. They
# are charged to the group of the CPU's task. __GFP_WRITE: they are to be written, what shadows say of them does not matter.
cdef int64_t fill_range(Mm* mm, uint32_t file, uint64_t first, uint64_t last, uint64_t mark, unsigned gfp, unsigned cpu) noexcept nogil
# The only place where a file is read: up to n pages from `start` on, none beyond the last page of the file, those cached already
# skipped; the page at start + n - lookahead, if it is read, carries the mark. How many were read.
cdef int64_t read_pages(Mm* mm, uint32_t file, uint64_t start, uint64_t n, uint64_t lookahead, unsigned cpu) noexcept nogil

# The window of a file in pages, 0: it has none.
cdef uint64_t ra_pages(Mm* mm, const File* f) noexcept nogil
# Page `index` of a request for `req` pages is not cached; its mark was reached; a fault missed it.
cdef void sync_ra(Mm* mm, uint32_t file, uint64_t index, uint64_t req, unsigned cpu) noexcept nogil
cdef void async_ra(Mm* mm, uint32_t file, uint64_t index, uint64_t req, unsigned cpu) noexcept nogil
cdef void sync_mmap_readahead(Mm* mm, uint32_t file, uint64_t index, uint64_t vm_flags, unsigned cpu) noexcept nogil
cdef void file_willneed(Mm* mm, uint32_t file, uint64_t first, uint64_t end, unsigned cpu) noexcept nogil
