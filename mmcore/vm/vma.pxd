# Virtual memory areas: their flags, the ordered map of an address space, the search for gaps. See vma.pyx.

from libc.stdint cimport int64_t, uint32_t, uint64_t
from mmcore.base.records cimport Mm, mm_assert
from mmcore.base.vm_records cimport AddressSpace, PoolInfo, Vma

# include/linux/mm.h
cdef enum:
    VM_READ = 0x1
    VM_WRITE = 0x2
    VM_EXEC = 0x4
    VM_SHARED = 0x8
    VM_MAYREAD = 0x10
    VM_MAYWRITE = 0x20
    VM_MAYEXEC = 0x40
    VM_MAYSHARE = 0x80
    VM_GROWSDOWN = 0x100
    VM_PFNMAP = 0x400
    VM_LOCKED = 0x2000
    VM_IO = 0x4000
    VM_SEQ_READ = 0x8000
    VM_RAND_READ = 0x10000
    VM_DONTCOPY = 0x20000
    VM_DONTEXPAND = 0x40000
    VM_LOCKONFAULT = 0x80000
    VM_ACCOUNT = 0x100000
    VM_NORESERVE = 0x200000
    VM_HUGETLB = 0x400000
    VM_WIPEONFORK = 0x2000000
    VM_DONTDUMP = 0x4000000
    VM_SOFTDIRTY = 0x8000000
    VM_MIXEDMAP = 0x10000000
    VM_HUGEPAGE = 0x20000000
    VM_NOHUGEPAGE = 0x40000000
    VM_ACCESS_FLAGS = 0x7
    VM_LOCKED_MASK = 0x82000
    VM_SPECIAL = 0x10044400         # IO, DONTEXPAND, PFNMAP, MIXEDMAP: never merged, never locked

cdef enum:
    PAGE_SHIFT = 12
    PAGE_BYTES = 4096
    MAX_PATH = 256                  # longer paths through a tree are damage

cdef extern from *:
    """
    #define VM_DROPPABLE (1ull << 40)
    #define PAGE_UP(x) (((uint64_t)(x) + 4095) & ~4095ull)
    #define PAGE_DOWN(x) ((uint64_t)(x) & ~4095ull)
    """
    uint64_t VM_DROPPABLE
    uint64_t PAGE_UP(uint64_t x) noexcept nogil
    uint64_t PAGE_DOWN(uint64_t x) noexcept nogil

# What is wrong with an address space's VMAs (check_vmas); 0: nothing.
cdef enum VmaFault:
    VMA_OK = 0
    VMA_BAD_LINK = 1
    VMA_BAD_RANGE = 2
    VMA_BAD_ORDER = 3
    VMA_BAD_BACKLINK = 4
    VMA_BAD_TREE = 5
    VMA_BAD_PRIORITY = 6
    VMA_BAD_GAP = 7
    VMA_BAD_COUNT = 8
    VMA_BAD_OWNER = 9
    VMA_BAD_TOTALS = 10
    VMA_BAD_CACHE = 11
    VMA_BAD_CHAIN = 12
    VMA_BAD_FILE = 13
    VMA_NR_FAULTS = 14

cdef inline PoolInfo* pool_of(Mm* mm, int number) noexcept nogil:
    return &mm.vm.pools[number]

cdef inline Vma* vma_at(Mm* mm, uint32_t x) noexcept nogil:
    mm_assert(x != 0)
    return &mm.vm.vmas[x - 1]

cdef inline AddressSpace* as_at(Mm* mm, uint32_t x) noexcept nogil:
    mm_assert(x != 0)
    return &mm.vm.mms[x - 1]

cdef inline uint64_t vma_pages(const Vma* v) noexcept nogil:
    return (v.end - v.start) >> PAGE_SHIFT

# Private memory without a file: neither a file's nor one of the kernel's special mappings (vdso).
cdef inline bint vma_is_anonymous(const Vma* v) noexcept nogil:
    return v.file == 0 and not v.flags & (VM_PFNMAP | VM_IO | VM_DONTEXPAND)

cdef inline bint vma_is_accessible(const Vma* v) noexcept nogil:
    return v.flags & VM_ACCESS_FLAGS != 0

# Start of a VMA with the guard gap that a stack keeps free below itself.
cdef inline uint64_t vm_start_gap(Mm* mm, const Vma* v) noexcept nogil:
    cdef uint64_t gap
    if not v.flags & VM_GROWSDOWN:
        return v.start
    gap = <uint64_t>mm.vm.g.stack_guard_gap << PAGE_SHIFT
    return v.start - gap if v.start > gap else 0

# All of these name VMAs and address spaces by index + 1; 0 is none.
# A zeroed VMA record that belongs to no tree yet, or 0; and its return (the record is cleared here).
cdef uint32_t vma_alloc(Mm* mm) noexcept nogil
cdef void vma_free(Mm* mm, uint32_t x) noexcept nogil
# Puts a VMA whose start and end are set into the map behind `prev` (0: first); takes it out.
cdef void vma_link(Mm* mm, uint32_t as_, uint32_t x, uint32_t prev) noexcept nogil
cdef void vma_unlink(Mm* mm, uint32_t x) noexcept nogil
# New bounds; the order of VMAs must stay as it is (shrink one before its neighbour grows).
cdef void vma_set_range(Mm* mm, uint32_t x, uint64_t start, uint64_t end, uint64_t pgoff) noexcept nogil

# First VMA with end > address. The VMA found is kept in the address space's cache.
cdef uint32_t find_vma(Mm* mm, uint32_t as_, uint64_t address) noexcept nogil
# The same, and the last VMA below it in prev[0].
cdef uint32_t find_vma_prev(Mm* mm, uint32_t as_, uint64_t address, uint32_t* prev) noexcept nogil
# The first VMA that shares an address with [start, end).
cdef uint32_t find_vma_intersection(Mm* mm, uint32_t as_, uint64_t start, uint64_t end) noexcept nogil
cdef uint32_t vma_last(Mm* mm, uint32_t as_) noexcept nogil

# Where `length` bytes fit between low and high: start of the highest (lowest) place, or all ones.
cdef uint64_t unmapped_area_topdown(Mm* mm, uint32_t as_, uint64_t low, uint64_t high, uint64_t length) noexcept nogil
cdef uint64_t unmapped_area_bottomup(Mm* mm, uint32_t as_, uint64_t low, uint64_t high, uint64_t length) noexcept nogil

# total_vm and the class that these flags belong to change by `pages`.
cdef void vm_stat_account(AddressSpace* a, uint64_t flags, int64_t pages) noexcept nogil
# Recount of order, links, gaps, counts and totals: a VmaFault.
cdef int check_vmas(Mm* mm, uint32_t as_) noexcept nogil
