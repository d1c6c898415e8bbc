# The hash table of an unbounded TLB: what a CPU remembers of 64 neighbouring pages of one size. See tlb_blocks.pyx.

from libc.stdint cimport uint64_t
from mmcore.vm.tlb_records cimport MAX_CPUS, Tlb, TlbBlock, TlbCpu

cdef inline uint64_t space_of(TlbCpu* c, unsigned cpu, unsigned slot) noexcept nogil:
    return c.gen[slot] << 16 | <uint64_t>cpu << 3 | slot

cdef inline uint64_t hash_of(uint64_t page, uint64_t space, unsigned log) noexcept nogil:
    return (page * <uint64_t>0x9E3779B97F4A7C15 + space * <uint64_t>0xD6E8FEB86659FD93) >> (64 - log)

cdef inline TlbBlock* find_block(Tlb* t, uint64_t page, uint64_t space) noexcept nogil:
    # The block, or the empty place where it would stand (space 0): a table is never more than half full.
    cdef unsigned log = t.table.log
    cdef TlbBlock* blocks = t.blocks + (<uint64_t>1 << log)
    cdef uint64_t mask = (<uint64_t>1 << log) - 1, i = hash_of(page, space, log)
    while blocks[i].space and (blocks[i].page != page or blocks[i].space != space):
        i = (i + 1) & mask
    return &blocks[i]

cdef inline bint block_alive(Tlb* t, TlbBlock* b) noexcept nogil:
    return b.space != 0 and b.present != 0 and t.cpus[b.space >> 3 & (MAX_CPUS - 1)].gen[b.space & 7] == b.space >> 16

# Makes room: the table forgets flushed blocks and gets the size that suits the rest.
cdef void rebuild(Tlb* t) noexcept nogil
