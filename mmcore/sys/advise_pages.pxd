# What madvise and mlock do to the pages of a range. See advise_pages.pyx.

from libc.stdint cimport uint32_t, uint64_t
from mmcore.base.records cimport Mm

# All take a page-aligned range inside one VMA; 0 or a negative errno.
cdef int madvise_free_range(Mm* mm, uint32_t as_, uint32_t vma, uint64_t start, uint64_t end, unsigned cpu) noexcept nogil
cdef int cold_range(Mm* mm, uint32_t as_, uint32_t vma, uint64_t start, uint64_t end, unsigned cpu) noexcept nogil
cdef int pageout_range(Mm* mm, uint32_t as_, uint32_t vma, uint64_t start, uint64_t end, unsigned cpu) noexcept nogil
cdef int willneed_range(Mm* mm, uint32_t as_, uint32_t vma, uint64_t start, uint64_t end, unsigned cpu) noexcept nogil
# Punches a hole into the file of a shared mapping.
cdef int remove_range(Mm* mm, uint32_t as_, uint32_t vma, uint64_t start, uint64_t end, unsigned cpu) noexcept nogil
# MADV_COLLAPSE: every aligned block of 2 MiB.
cdef int collapse_range(Mm* mm, uint32_t as_, uint32_t vma, uint64_t start, uint64_t end, unsigned cpu) noexcept nogil
# The pages present become mlocked, or not any more, as the VMA's (new) flags say.
cdef void mlock_range(Mm* mm, uint32_t as_, uint32_t vma, uint64_t start, uint64_t end, unsigned cpu) noexcept nogil
