# The 64-way index of a file's pages (struct xarray with struct xa_node), over XNode records. See radix.pyx.

from libc.stdint cimport uint32_t, uint64_t
from mmcore.base.records cimport Mm
from mmcore.base.vm_records cimport File, XNode

cdef enum:
    RADIX_SHIFT = 6
    RADIX_SLOTS = 64
    RADIX_MASK = 63
    RADIX_MAX_HEIGHT = 11           # 64 bits of index

# A slot of a leaf: 0, or a value whose two low bits say what it is. Only these accessors know how it is written.
cdef enum RadixBits:
    SLOT_PAGE = 0                   # page frame + 1 above the kind
    SLOT_SHADOW = 1                 # of an evicted page
    SLOT_SWAP = 2                   # of a page of shmem that is in swap
    SLOT_KIND = 3
    RADIX_MARK_BIT = 62             # PG_readahead

cdef inline uint64_t radix_mark() noexcept nogil:
    return <uint64_t>1 << RADIX_MARK_BIT

cdef inline uint64_t page_slot(uint32_t pfn) noexcept nogil:
    return (<uint64_t>pfn + 1) << 2

cdef inline bint slot_is_page(uint64_t value) noexcept nogil:
    return value != 0 and value & SLOT_KIND == SLOT_PAGE

cdef inline bint slot_is_shadow(uint64_t value) noexcept nogil:
    return value & SLOT_KIND == SLOT_SHADOW

cdef inline bint slot_is_swap(uint64_t value) noexcept nogil:
    return value & SLOT_KIND == SLOT_SWAP

# A swap slot (number + 1) as an index holds it, and back.
cdef inline uint64_t swap_slot_value(uint32_t slot) noexcept nogil:
    return <uint64_t>slot << 2 | SLOT_SWAP

cdef inline uint32_t slot_swap(uint64_t value) noexcept nogil:
    return <uint32_t>(value >> 2)

cdef inline uint32_t slot_pfn(uint64_t value) noexcept nogil:
    return <uint32_t>((value & ~radix_mark()) >> 2) - 1

cdef inline XNode* xnode_at(Mm* mm, uint32_t x) noexcept nogil:
    return &mm.vm.xnodes[x - 1]

# The leaf over `index`, NULL when there is none; and the slot in it.
cdef inline XNode* radix_leaf(Mm* mm, const File* f, uint64_t index) noexcept nogil:
    cdef uint32_t x = f.radix
    cdef unsigned shift
    cdef XNode* n
    if x == 0:
        return NULL
    n = xnode_at(mm, x)
    shift = n.shift
    if shift < 58 and index >> shift >= RADIX_SLOTS:
        return NULL
    while shift:
        x = <uint32_t>n.slots[(index >> shift) & RADIX_MASK]
        if x == 0:
            return NULL
        n = xnode_at(mm, x)
        shift -= RADIX_SHIFT
    return n

cdef inline uint64_t radix_lookup(Mm* mm, const File* f, uint64_t index) noexcept nogil:
    cdef XNode* n = radix_leaf(mm, f, index)
    return n.slots[index & RADIX_MASK] if n else 0

# The leaf over `index`, made with what leads to it when it is missing; NULL, and nothing changed, when there are no records left.
cdef XNode* radix_make_leaf(Mm* mm, File* f, uint64_t index) noexcept nogil
# A leaf that was made and stayed empty, or lost its last slot: it and what is empty above it go, and the top shrinks.
cdef void radix_prune(Mm* mm, File* f, XNode* leaf) noexcept nogil
# Stores a value that is not 0: 0 or -E_NOMEM. Erasing gives the old value.
cdef int radix_store(Mm* mm, File* f, uint64_t index, uint64_t value) noexcept nogil
cdef uint64_t radix_erase(Mm* mm, File* f, uint64_t index) noexcept nogil
# The first slot in [at[0], last] that is not 0, its index left in at[0]; NULL: none. The slot's leaf: radix_leaf().
cdef uint64_t* radix_next(Mm* mm, const File* f, uint64_t* at, uint64_t last) noexcept nogil
# The first index from `index` on, of at most `limit`, that holds no page; index + limit: all do. Those directly in front of it that do.
cdef uint64_t radix_next_absent(Mm* mm, const File* f, uint64_t index, uint64_t limit) noexcept nogil
cdef uint64_t radix_run_before(Mm* mm, const File* f, uint64_t index, uint64_t limit) noexcept nogil
# Nodes that a file's index is made of, as the kernel would hold them (a lone page 0 needs none).
cdef uint64_t radix_nodes(Mm* mm, const File* f) noexcept nogil
# 0, or what is wrong with the tree of a file (RADIX_BAD_*); entries and nodes counted.
cdef enum RadixFault:
    RADIX_BAD_LINK = 1
    RADIX_BAD_UP = 2
    RADIX_BAD_COUNT = 3
    RADIX_BAD_SHAPE = 4
cdef int radix_check(Mm* mm, const File* f, uint64_t* entries, uint64_t* nodes) noexcept nogil
