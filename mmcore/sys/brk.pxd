# The heap: see brk.pyx.

from libc.stdint cimport int64_t, uint32_t, uint64_t
from mmcore.base.records cimport Mm

# The new break, or the old one when it cannot be moved there (0 asks for it).
cdef int64_t do_brk(Mm* mm, uint32_t as_, uint64_t brk, unsigned cpu) noexcept nogil
