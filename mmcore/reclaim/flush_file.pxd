# Writing dirty pages of a file to its device. See flush_file.pyx.

from libc.stdint cimport int64_t, uint32_t, uint64_t
from mmcore.base.records cimport Mm

# The first dirty page of [at[0], last], its index left in at[0]: page frame + 1, 0 when there is none.
cdef uint32_t next_dirty_page(Mm* mm, uint32_t file, uint64_t* at, uint64_t last) noexcept nogil
# page_mkclean(): the entries that map the page are clean and read-only from here on; whether any was not. TLBs are noted for a batch flush.
cdef bint folio_mkclean(Mm* mm, uint32_t pfn) noexcept nogil
# One page on its way (or written, on a device that completes at once): 1, 0 when it was not dirty or is still being written.
cdef int write_page(Mm* mm, uint32_t file, uint64_t index, uint32_t pfn, unsigned cpu) noexcept nogil
# write_cache_pages() from where the last pass stopped, in ascending order, until `nr` pages are on their way, the end of the file is reached
# (done[0]: whether that happened) or the device has no room: how many.
cdef int64_t write_some_pages(Mm* mm, uint32_t file, int64_t nr, unsigned cpu, bint* done) noexcept nogil
# filemap_write_and_wait_range() over the whole file: how many pages were dirty, wait_ns[0]: how long that takes at most. All are
# clean then, and under write-back until it is done.
cdef int64_t write_and_wait(Mm* mm, uint32_t file, unsigned cpu, int64_t* wait_ns) noexcept nogil
