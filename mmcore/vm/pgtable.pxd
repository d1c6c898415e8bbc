# Page tables (include/linux/pgtable.h): entries, walks, and the edits that need no memory. See pgtable.pyx.
# A table is a slot of the pool `tables`: 1 << bits entries of 8 bytes in the x86-64 form, whatever the architecture. An entry that
# points to a table holds its slot in the frame field. vpn: virtual page number, address >> 12.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from mmcore.base.records cimport Mm
from mmcore.base.vm_records cimport AddressSpace, TableInfo

cdef extern from *:
    """
    #define PTE_PRESENT 1ULL
    #define PTE_RW 2ULL
    #define PTE_USER 4ULL
    #define PTE_ACCESSED 32ULL
    #define PTE_DIRTY 64ULL
    #define PTE_PSE 128ULL
    #define PTE_PROTNONE 256ULL
    #define PTE_SPECIAL 512ULL
    #define PTE_SOFT_DIRTY 2048ULL
    #define PTE_NX (1ULL << 63)
    #define PTE_FRAME_MASK ((1ULL << 52) - 4096)
    #define PTE_TABLE_BITS 0x67ULL
    """
    const uint64_t PTE_PRESENT, PTE_RW, PTE_USER, PTE_ACCESSED, PTE_DIRTY, PTE_PSE, PTE_PROTNONE, PTE_SPECIAL, PTE_SOFT_DIRTY, PTE_NX
    const uint64_t PTE_FRAME_MASK, PTE_TABLE_BITS

cdef inline uint64_t pte_frame(uint64_t e) noexcept nogil:
    return (e & PTE_FRAME_MASK) >> 12

# A mapped page: present, or PROT_NONE.
cdef inline bint pte_mapped(uint64_t e) noexcept nogil:
    return (e & (PTE_PRESENT | PTE_PROTNONE)) != 0

cdef inline bint pte_is_table(uint64_t e) noexcept nogil:
    return (e & (PTE_PRESENT | PTE_PSE)) == PTE_PRESENT

cdef inline uint64_t* table_at(Mm* mm, uint32_t slot) noexcept nogil:
    return mm.vm.tables + (<uint64_t>slot << mm.vm.bits)

# The entry that decides about vpn, and its level: a leaf (level 0, or above it a huge or empty entry). The root exists always.
cdef inline uint64_t* walk_entry(Mm* mm, uint32_t root, uint64_t vpn, unsigned* level) noexcept nogil:
    cdef unsigned k = mm.vm.levels - 1, bits = mm.vm.bits
    cdef uint64_t* e = mm.vm.tables + (<uint64_t>root << bits) + ((vpn >> (k * bits)) & mm.vm.mask)
    while k and pte_is_table(e[0]):
        k -= 1
        e = mm.vm.tables + (pte_frame(e[0]) << bits) + ((vpn >> (k * bits)) & mm.vm.mask)
    level[0] = k
    return e

# As walk_entry, but stops at `want` (the entry at that level, of whatever kind) if the tables above it exist; NULL if they do not.
cdef inline uint64_t* walk_level(Mm* mm, uint32_t root, uint64_t vpn, unsigned want) noexcept nogil:
    cdef unsigned k = mm.vm.levels - 1, bits = mm.vm.bits
    cdef uint64_t* e = mm.vm.tables + (<uint64_t>root << bits) + ((vpn >> (k * bits)) & mm.vm.mask)
    while k > want:
        if not pte_is_table(e[0]):
            return NULL
        k -= 1
        e = mm.vm.tables + (pte_frame(e[0]) << bits) + ((vpn >> (k * bits)) & mm.vm.mask)
    return e

# Position of an entry in the pool: what a page with one mapping keeps as private_ - 1; and back.
cdef inline uint32_t entry_index(Mm* mm, const uint64_t* e) noexcept nogil:
    return <uint32_t>(e - mm.vm.tables)

cdef inline TableInfo* table_of_entry(Mm* mm, uint32_t index) noexcept nogil:
    return &mm.vm.table_info[index >> mm.vm.bits]

cdef inline uint64_t vpn_of_entry(Mm* mm, uint32_t index) noexcept nogil:
    cdef TableInfo* t = &mm.vm.table_info[index >> mm.vm.bits]
    return t.base + (<uint64_t>(index & mm.vm.mask) << (t.level * mm.vm.bits))

# Writes an entry and keeps the table's count of those in use.
cdef inline void set_entry(Mm* mm, uint64_t* e, uint64_t value) noexcept nogil:
    cdef TableInfo* t = &mm.vm.table_info[(e - mm.vm.tables) >> mm.vm.bits]
    t.nr_used += <unsigned short>((value != 0) - (e[0] != 0))
    e[0] = value

# Hangs a zeroed table into the entry `e` of another one.
cdef inline void link_table(Mm* mm, uint64_t* e, uint32_t slot, uint64_t vpn, uint32_t as_, unsigned level) noexcept nogil:
    cdef TableInfo* t = &mm.vm.table_info[slot]
    cdef uint32_t above = <uint32_t>((e - mm.vm.tables) >> mm.vm.bits)
    t.base = vpn & ~((<uint64_t>1 << ((level + 1) * mm.vm.bits)) - 1)
    t.mm = as_
    t.level = <unsigned short>level
    t.parent = above + 1
    set_entry(mm, e, (<uint64_t>slot << 12) | PTE_TABLE_BITS)

cdef inline AddressSpace* mm_at(Mm* mm, uint32_t as_) noexcept nogil:
    return &mm.vm.mms[as_ - 1]

# Pages that a leaf at this level maps, as a shift.
cdef inline unsigned level_shift(Mm* mm, unsigned level) noexcept nogil:
    return level * mm.vm.bits

# Whether `handle` names an address space that is alive.
cdef inline bint mm_alive(Mm* mm, uint64_t handle) noexcept nogil:
    return 1 <= handle <= mm.vm.pools[4].used and mm.vm.mms[handle - 1].pid != 0

cdef enum:
    WALK_GROUP = 32

# The deciding entries of up to WALK_GROUP pages below `limit` (others: &nothing, and the top level), level by level so that the misses
# of all of them overlap; the leaf entries are on their way to the cache when it returns.
cdef void walk_group(Mm* mm, uint32_t root, const uint64_t* vpns, int n, uint64_t limit, uint64_t* nothing, uint64_t** at,
                     uint8_t* levels) noexcept nogil
# For n pages: leaf entry (0: none), its level (the level of the empty entry otherwise). Looks ahead.
cdef void walk_many(Mm* mm, uint32_t root, const uint64_t* vpns, int64_t n, uint64_t* entries, uint8_t* levels) noexcept nogil
