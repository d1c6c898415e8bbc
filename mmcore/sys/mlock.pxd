# Locked memory: 0 or a negative errno.

from libc.stdint cimport uint32_t, uint64_t
from mmcore.base.records cimport Mm

cdef enum:
    MCL_CURRENT = 1
    MCL_FUTURE = 2
    MCL_ONFAULT = 4

cdef int do_mlock(Mm* mm, uint32_t as_, uint64_t start, uint64_t length, bint onfault, unsigned cpu) noexcept nogil
cdef int do_munlock(Mm* mm, uint32_t as_, uint64_t start, uint64_t length, unsigned cpu) noexcept nogil
cdef int do_mlockall(Mm* mm, uint32_t as_, uint64_t flags, unsigned cpu) noexcept nogil
cdef int do_munlockall(Mm* mm, uint32_t as_, unsigned cpu) noexcept nogil
