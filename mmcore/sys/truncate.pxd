# Pages leave a file, mapped or not (mm/truncate.c; unmap_mapping_range of mm/memory.c). See truncate.pyx.

from libc.stdint cimport uint32_t, uint64_t
from mmcore.base.records cimport Mm

# A new size: what lies beyond it goes, with all that maps it and private copies of it. 0, or -E_FBIG (nothing changes).
cdef int file_set_size(Mm* mm, uint32_t file, uint64_t size, unsigned cpu) noexcept nogil
# madvise(MADV_REMOVE), fallocate(PUNCH_HOLE): pages of [first, end) go, whatever is in them, with all that maps them; private copies stay.
cdef void file_punch(Mm* mm, uint32_t file, uint64_t first, uint64_t end, unsigned cpu) noexcept nogil
