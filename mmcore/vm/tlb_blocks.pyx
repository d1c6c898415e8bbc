"""The hash table of an unbounded TLB: growing and shrinking. Finding a block is inline, in tlb_blocks.pxd.

Models: nothing that exists; it is how TLB_UNBOUNDED keeps every translation since the last flush. Simplifies: a table that outgrows
the memory set aside forgets everything, and counts that (overflows). Omits: removing single blocks, which go when it is rebuilt.
"""
from libc.stdint cimport uint64_t
from libc.string cimport memset
from mmcore.vm.tlb_records cimport TLB_SLOTS, Tlb, TlbBlock


cdef void move_blocks(Tlb* t, TlbBlock* old, uint64_t n) noexcept nogil:
    cdef uint64_t i
    for i in range(n):
        if block_alive(t, &old[i]):
            find_block(t, old[i].page, old[i].space)[0] = old[i]
            t.table.used += 1


cdef void rebuild(Tlb* t) noexcept nogil:
    # Flushed blocks go, and the table gets the size that suits the rest: a quarter full or less. Tables of all sizes stand side by
    # side; what lies outside the one in use is zero.
    cdef unsigned old = t.table.log, log = t.g.min_log, cpu, slot
    cdef uint64_t n = <uint64_t>1 << old, i, live = 0
    cdef TlbBlock* blocks = t.blocks + n
    t.table.rebuilds += 1
    for i in range(n):
        live += block_alive(t, &blocks[i])
    while log < t.g.max_log and live * 4 > <uint64_t>1 << log:
        log += 1
    if live * 8 > <uint64_t>3 << log:
        t.table.overflows += 1
        for cpu in range(t.g.nr_cpus):
            for slot in range(<unsigned>TLB_SLOTS):
                t.cpus[cpu].gen[slot] += 1
        live = 0
    t.table.used = 0
    t.table.log = log
    if live == 0:
        memset(blocks, 0, n * sizeof(TlbBlock))
    elif log != old:
        move_blocks(t, blocks, n)
        memset(blocks, 0, n * sizeof(TlbBlock))
    else:
        # by way of the place of the smaller tables
        live = 0
        for i in range(n):
            if block_alive(t, &blocks[i]):
                t.blocks[live] = blocks[i]
                live += 1
        memset(blocks, 0, n * sizeof(TlbBlock))
        move_blocks(t, t.blocks, live)
        memset(t.blocks, 0, live * sizeof(TlbBlock))
