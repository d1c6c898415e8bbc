# Freeing of pages (mm/page_alloc.c). Results: 0, or a negative code of mmcore.base.errors; then nothing has changed.

from libc.stdint cimport int64_t, uint32_t
from mmcore.base.records cimport Mm

# __free_pages(): drops one reference; 0, or a negative code that says why this page cannot be freed so (nothing changes then).
cdef int free_pages_order(Mm* mm, uint32_t pfn, unsigned order, unsigned cpu) noexcept nogil
cdef int free_pages_run(Mm* mm, const uint32_t* pfns, int64_t n, unsigned order, unsigned cpu, int64_t* done) noexcept nogil
cdef int split_allocated(Mm* mm, uint32_t pfn, unsigned order) noexcept nogil
# Cuts a larger allocated block so that [pfn, pfn + 2^order) becomes a block of its own; adopts a page that was in use before our time.
cdef int isolate_piece(Mm* mm, uint32_t pfn, unsigned order, bint adopt) noexcept nogil
cdef int find_block(Mm* mm, uint32_t pfn, uint32_t* head, unsigned* order) noexcept nogil
