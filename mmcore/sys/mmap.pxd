# mmap and munmap: see mmap.pyx. Addresses and lengths in bytes; results: an address or 0, or a negative errno.

from libc.stdint cimport int64_t, uint32_t, uint64_t
from mmcore.base.records cimport Mm
from mmcore.sys.stack cimport expand_stack

cdef enum:
    PROT_READ = 1
    PROT_WRITE = 2
    PROT_EXEC = 4
    PROT_SEM = 8
    MAP_SHARED = 0x1
    MAP_PRIVATE = 0x2
    MAP_SHARED_VALIDATE = 0x3
    MAP_DROPPABLE = 0x8
    MAP_TYPE = 0xf
    MAP_FIXED = 0x10
    MAP_ANONYMOUS = 0x20
    MAP_32BIT = 0x40
    MAP_GROWSDOWN = 0x100
    MAP_LOCKED = 0x2000
    MAP_NORESERVE = 0x4000
    MAP_POPULATE = 0x8000
    MAP_NONBLOCK = 0x10000
    MAP_STACK = 0x20000
    MAP_HUGETLB = 0x40000
    MAP_FIXED_NOREPLACE = 0x100000

# Where a mapping of `length` bytes would go (get_unmapped_area): its address or a negative errno. `private_anon`: may be aligned to 2 MiB.
cdef int64_t get_unmapped_area(Mm* mm, uint32_t as_, bint private_anon, uint64_t addr, uint64_t length, uint64_t flags) noexcept nogil
# The caller faults `populate[0]` bytes in afterwards, as after do_brk().
cdef int64_t do_mmap(Mm* mm, uint32_t as_, uint64_t addr, uint64_t length, uint64_t prot, uint64_t flags, uint32_t file, uint64_t offset,
                     unsigned cpu, uint64_t* populate) noexcept nogil
cdef int do_munmap(Mm* mm, uint32_t as_, uint64_t start, uint64_t length, unsigned cpu) noexcept nogil
# [start, end) is aligned and inside the address space.
cdef int unmap_aligned(Mm* mm, uint32_t as_, uint64_t start, uint64_t end, unsigned cpu) noexcept nogil
# Everything goes (exit, exec).
cdef void unmap_all(Mm* mm, uint32_t as_, unsigned cpu) noexcept nogil
# User addresses that are used without being asked for (DEFAULT_MAP_WINDOW).
cdef uint64_t map_window(Mm* mm, uint32_t as_) noexcept nogil
