# Address spaces that come and go with their task: see process.pyx. By index + 1.

from libc.stdint cimport int64_t, uint32_t, uint64_t
from mmcore.base.records cimport Mm

# Numbers of mmcore.phys.vm_defaults.PAGING
cdef enum PagingMode:
    PAGING_4LEVEL = 0
    PAGING_5LEVEL = 1
    PAGING_2LEVEL = 2
    PAGING_PAE = 3
    PAGING_ARM64_48 = 4
    PAGING_ARM64_39 = 5

# Indices + 1 into the names of the State that an executed image needs.
cdef struct ExecNames:
    uint32_t task
    uint32_t vdso
    uint32_t vvar

# An empty address space with a pid and default limits, or a negative errno.
cdef int64_t mm_create(Mm* mm, uint32_t name, bint privileged, unsigned cpu) noexcept nogil
# The child of a fork, or a negative errno.
cdef int64_t mm_fork(Mm* mm, uint32_t as_, unsigned cpu) noexcept nogil
# The image of a program in an empty address space: 0 or -E_NOMEM (then nothing is mapped).
cdef int mm_load_image(Mm* mm, uint32_t as_, const ExecNames* names, unsigned cpu) noexcept nogil
# A fresh image instead of what was mapped: 0 or -E_NOMEM (then nothing is mapped).
cdef int mm_exec(Mm* mm, uint32_t as_, const ExecNames* names, unsigned cpu) noexcept nogil
# Everything is unmapped and the record is free.
cdef void mm_exit(Mm* mm, uint32_t as_, unsigned cpu) noexcept nogil
