# Faulting ranges in for mmap, mlock and madvise.

from libc.stdint cimport uint32_t, uint64_t
from mmcore.base.records cimport Mm

# The pages of [start, end), which lies in one VMA (__mm_populate's share of it): 0, -E_NOMEM or -E_FAULT.
cdef int populate_vma(Mm* mm, uint32_t as_, uint32_t vma, uint64_t start, uint64_t end, unsigned cpu) noexcept nogil
# Every VMA of the range; holes are passed over. With `ignore_errors` always 0.
cdef int mm_populate(Mm* mm, uint32_t as_, uint64_t start, uint64_t length, bint ignore_errors, unsigned cpu) noexcept nogil
