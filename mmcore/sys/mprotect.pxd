# mprotect: 0 or a negative errno.

from libc.stdint cimport uint32_t, uint64_t
from mmcore.base.records cimport Mm

cdef int do_mprotect(Mm* mm, uint32_t as_, uint64_t start, uint64_t length, uint64_t prot, unsigned cpu) noexcept nogil
