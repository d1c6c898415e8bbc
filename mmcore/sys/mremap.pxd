# mremap: see mremap.pyx. Results: an address or a negative errno.

from libc.stdint cimport int64_t, uint32_t, uint64_t
from mmcore.base.records cimport Mm

cdef enum:
    MREMAP_MAYMOVE = 1
    MREMAP_FIXED = 2
    MREMAP_DONTUNMAP = 4

cdef int64_t do_mremap(Mm* mm, uint32_t as_, uint64_t addr, uint64_t old_len, uint64_t new_len, uint64_t flags, uint64_t new_addr,
                       unsigned cpu) noexcept nogil
