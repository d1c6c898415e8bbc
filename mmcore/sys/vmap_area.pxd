# The address space of vmalloc: ranges that are free, in use, waiting for a purge, or kept for reuse. Names of areas are index + 1, 0 is none.

from libc.stdint cimport int64_t, uint32_t, uint64_t
from mmcore.base.records cimport Mm
from mmcore.base.vm_records cimport VmArea

cdef enum VaState:
    VA_FREE = 1
    VA_BUSY = 2
    VA_LAZY = 3                     # freed; its translations may still be cached
    VA_POOLED = 4                   # purged, kept for requests of exactly its length
    VA_TABLES = 5                   # no area: kernel addresses that have a page table

# Positions in VmGlobals.vmalloc (without a name of its own: C arrays take such numbers as indices).
cdef enum:
    VG_READY = 0
    VG_START = 1
    VG_END = 2                      # first address that is never handed out
    VG_NODES = 3
    VG_FREE_ROOT = 4
    VG_BUSY_ROOT = 5
    VG_LAZY_PAGES = 6               # vmap_lazy_nr
    VG_NR_PAGES = 7                 # nr_vmalloc_pages
    VG_KMALLOC_BYTES = 8            # descriptor arrays that the kernel would kmalloc
    VG_NR_BUSY = 9
    VG_NR_PURGES = 10
    VG_NR_FORCED = 11               # purges because no address space was left
    VG_NR_FLUSHES = 12              # flush_tlb_kernel_range calls of purges
    VG_FLUSH_START = 13             # range of the last one
    VG_FLUSH_END = 14
    VG_NR_FAILED = 15
    VG_PTE_ROOT = 16                # addresses that have a PTE table, a PMD table
    VG_PMD_ROOT = 17
    VG_PTE_TABLES = 18
    VG_PMD_TABLES = 19
    VG_LAST_CALLER = 20

cdef inline VmArea* area_at(Mm* mm, uint32_t x) noexcept nogil:
    return &mm.vm.areas[x - 1]

cdef inline uint64_t area_pages(const VmArea* a) noexcept nogil:    # without the guard page
    return ((a.end - a.start) >> 12) - 1

# Fills the range and the nodes of a machine that has used none so far: 0 or -E_NOMEM. Every entry calls it first.
cdef int vmap_init(Mm* mm) noexcept nogil
cdef void vmap_bounds(Mm* mm, uint64_t* start, uint64_t* end) noexcept nogil
# Address space of `size` bytes (guard included) at `align` for a request on `cpu`; 0 when even a forced purge finds none.
cdef uint32_t alloc_vmap_area(Mm* mm, uint64_t size, uint64_t align, unsigned cpu) noexcept nogil
# The area is unmapped and its addresses wait for a purge. It keeps none of what vmalloc stored in it.
cdef void free_vmap_area(Mm* mm, uint32_t x) noexcept nogil
cdef uint32_t find_vmap_area(Mm* mm, uint64_t address) noexcept nogil
cdef uint64_t lazy_max_pages(Mm* mm) noexcept nogil
# What the drain worker does when it runs: purges until no more than lazy_max_pages() wait.
cdef void drain_vmap_areas(Mm* mm) noexcept nogil
cdef void purge_vmap_areas(Mm* mm, bint forced) noexcept nogil
cdef void shrink_vmap_nodes(Mm* mm) noexcept nogil
# Sets of addresses that have a page table of 2^shift bytes (VG_PTE_ROOT, VG_PMD_ROOT): the end of the run that holds `at`, 0 if none
# does; and adding one table's range, for which a record must be free.
cdef uint64_t covered_until(Mm* mm, unsigned root, uint64_t at) noexcept nogil
cdef void cover_table(Mm* mm, unsigned root, unsigned shift, uint64_t at) noexcept nogil
