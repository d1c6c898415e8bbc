"""TLBs: hits, misses and walks of every CPU, address-space ids, flushes and shootdowns.

Models: two levels of sets and ways for 4 KiB, 2 MiB and 1 GiB pages with LRU replacement, page-walk caches, and how the kernel flushes:
choose_new_asid, switch_mm_irqs_off, flush_tlb_mm_range, flush_tlb_func, flush_tlb_kernel_range, arch_tlbbatch_flush (arch/x86/mm/tlb.c,
v6.12). A write through a cached entry that is not known to be dirty walks again, as x86 does to set the dirty bit. Single invalidations
empty the walk caches of their id. Simplifies: data accesses only, replacement is exact LRU and takes flushed entries first, a walk looks
at the walk caches from the deepest level up, init_mm takes no id, IPIs arrive at once. Omits: instruction TLBs, prefetching, PTI's
second set of tables, INVLPGB, figures of virtual machines (nested walks).

Everything lives in arrays, one entry a word: page number << 19 | size << 17 | generation << 3 | slot. A slot is one of the ids that a CPU
deals out, or the global one. To flush an id is to raise its generation; the bits kept of it are renewed, with one pass over the
CPU's entries, every 16383 flushes. TLB_UNBOUNDED keeps the pages in a hash table of 64-page blocks with whole generations, which
grows as needed inside memory set aside.
"""
import numpy as np

from libc.string cimport memcmp, memset
from mmcore.base.args cimport as_int
from mmcore.base.state import aligned_zeros
from mmcore.base.state cimport State, mm_try_lock, mm_unlock, sched_yield
from mmcore.base.vm_records cimport POOL_MMS
from mmcore.phys.buddy cimport prefetch

cnp.import_array()

cdef enum:
    GEN_MASK = (1 << 14) - 1
    KEY_SHIFT = 17
    E_WRITABLE = 1
    E_DIRTY = 2
    E_PIECE = 4             # of a larger page
    E_FLAGS = 7
    STAMP_SHIFT = 3
    MAX_CPUS = 1 << 13      # what TlbBlock.space has room for
    MAX_ENTRIES = 1 << 24   # of all CPUs
    MAX_LOG = 26
    AHEAD = 16

cdef extern from *:
    """
    #define TLB_FLUSH_ALL UINT64_MAX
    #define TLB_VPN_MASK ((UINT64_C(1) << 45) - 1)  /* what 57-bit addresses leave of a canonical page number */
    """
    const uint64_t TLB_FLUSH_ALL
    const uint64_t TLB_VPN_MASK


# --------------------------------------------------------------------------------------------------- entries in sets and ways

cdef inline unsigned size_of(Tlb* t, unsigned page_shift) noexcept nogil:
    return 0 if page_shift == 12 else 1 if page_shift <= 12 + t.g.pt_bits else 2


cdef inline unsigned shift_of(Tlb* t, unsigned size) noexcept nogil:
    return size * t.g.pt_bits


cdef inline uint64_t key_of(Tlb* t, TlbCpu* c, unsigned slot, unsigned size, uint64_t page) noexcept nogil:
    return (page << 2 | size) << KEY_SHIFT | (c.gen[slot] & GEN_MASK) << 3 | slot


cdef inline bint alive(const uint64_t* gen, uint64_t key) noexcept nogil:
    # generations are never 0 in the bits kept, an empty entry is
    return key >> 3 & GEN_MASK == gen[key & 7] & GEN_MASK


cdef inline uint64_t set_of(TlbPart* part, uint64_t page) noexcept nogil:
    # index of the first way
    cdef uint64_t sets = part.sets
    return part.first + (page & (sets - 1) if sets & (sets - 1) == 0 else page % sets) * part.ways


cdef inline uint64_t* find_key(uint64_t* keys, unsigned n, uint64_t key) noexcept nogil:
    cdef unsigned i = 0
    while i + 4 <= n:
        # one branch for four
        if (keys[i] == key) | (keys[i + 1] == key) | (keys[i + 2] == key) | (keys[i + 3] == key):
            break
        i += 4
    while i < n:
        if keys[i] == key:
            return keys + i
        i += 1
    return NULL


cdef inline unsigned oldest_of(const uint64_t* stamps, unsigned n) noexcept nogil:
    cdef unsigned i, oldest = 0
    cdef uint64_t least = stamps[0], x
    for i in range(1, n):
        x = stamps[i]
        oldest = i if x < least else oldest
        least = x if x < least else least
    return oldest


cdef unsigned victim(const uint64_t* keys, const uint64_t* stamps, unsigned n, const uint64_t* gen, uint64_t flushes,
                     uint64_t* full_at) noexcept nogil:
    # The first entry that is free, or else the one not used for longest.
    cdef unsigned i
    if full_at[0] != flushes:
        for i in range(n):
            if not alive(gen, keys[i]):
                return i
        full_at[0] = flushes
    return oldest_of(stamps, n)


cdef void insert(Tlb* t, TlbCpu* c, unsigned cpu, TlbPart* part, unsigned slot, unsigned size, uint64_t page,
                 uint64_t flags) noexcept nogil:
    cdef uint64_t at = <uint64_t>cpu * t.g.entries + set_of(part, page)
    at += victim(t.keys + at, t.stamps + at, part.ways, c.gen, c.flushes, t.full_at + at)
    c.clock += 1
    t.keys[at] = key_of(t, c, slot, size, page)
    t.stamps[at] = c.clock << STAMP_SHIFT | flags


cdef int lookup_sets(Tlb* t, unsigned cpu, TlbCpu* c, unsigned slot, uint64_t vpn, bint write) noexcept nogil:
    cdef uint64_t* keys = t.keys + <uint64_t>cpu * t.g.entries
    cdef uint64_t* e
    cdef uint64_t* stamp
    cdef uint64_t page, flags
    cdef TlbPart* part
    cdef TlbPart* upper
    cdef unsigned i, k, size, sizes
    for i in range(t.g.nr_parts):
        part = &t.parts[i]
        sizes = part.sizes & c.sizes
        size = 0
        while sizes:
            if sizes & 1:
                page = vpn >> shift_of(t, size)
                e = find_key(keys + set_of(part, page), part.ways, key_of(t, c, slot, size, page))
                if e != NULL:
                    stamp = t.stamps + (e - t.keys)
                    flags = stamp[0] & E_FLAGS
                    if write and flags & (E_WRITABLE | E_DIRTY) != (E_WRITABLE | E_DIRTY):
                        return TLB_CLEAN
                    c.clock += 1
                    stamp[0] = c.clock << STAMP_SHIFT | flags
                    if part.level == 2:
                        for k in range(i):
                            upper = &t.parts[k]
                            if upper.level == 1 and upper.sizes >> size & 1:
                                insert(t, c, cpu, upper, slot, size, page, flags)
                    return <int>part.level
            size += 1
            sizes >>= 1
    return TLB_MISS


cdef bint drop_page(Tlb* t, unsigned cpu, TlbCpu* c, unsigned slot, uint64_t vpn) noexcept nogil:
    # Every entry for this very page goes; whether there was one.
    cdef uint64_t* keys = t.keys + <uint64_t>cpu * t.g.entries
    cdef uint64_t* e
    cdef uint64_t page
    cdef TlbPart* part
    cdef unsigned i, size, sizes
    cdef bint found = False
    for i in range(t.g.nr_parts):
        part = &t.parts[i]
        sizes = part.sizes & c.sizes
        size = 0
        while sizes:
            if sizes & 1:
                page = vpn >> shift_of(t, size)
                e = find_key(keys + set_of(part, page), part.ways, key_of(t, c, slot, size, page))
                if e != NULL:
                    e[0] = 0
                    c.flushes += 1
                    found = True
            size += 1
            sizes >>= 1
    return found


cdef void drop_pieces(Tlb* t, unsigned cpu, TlbCpu* c, unsigned slot, uint64_t vpn) noexcept nogil:
    # A 1 GiB page is invalidated as a whole, wherever its pieces lie.
    cdef uint64_t at = <uint64_t>cpu * t.g.entries, i
    cdef uint64_t low = key_of(t, c, slot, 1, 0), giant = vpn >> shift_of(t, 2), key
    cdef unsigned up = KEY_SHIFT + 2
    for i in range(at, at + t.g.entries):
        key = t.keys[i]
        if t.stamps[i] & E_PIECE and key & ((1 << up) - 1) == low and key >> up >> t.g.pt_bits == giant:
            t.keys[i] = 0
            c.flushes += 1


cdef void sweep(uint64_t* keys, uint64_t n, unsigned slot) noexcept nogil:
    cdef uint64_t i
    for i in range(n):
        if keys[i] & 7 == slot:
            keys[i] = 0


# ---------------------------------------------------------------------------------- every translation since the last flush

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


cdef int lookup_unbounded(Tlb* t, unsigned cpu, TlbCpu* c, unsigned slot, uint64_t vpn, bint write) noexcept nogil:
    cdef unsigned sizes = c.sizes, size = 0
    cdef uint64_t page, bit
    cdef TlbBlock* b
    while sizes:
        if sizes & 1:
            page = vpn >> shift_of(t, size)
            b = find_block(t, page >> 6 << 2 | size, space_of(c, cpu, slot))
            bit = <uint64_t>1 << (page & 63)
            if b.present & bit:
                return TLB_CLEAN if write and not b.writes & bit else TLB_L1
        size += 1
        sizes >>= 1
    return TLB_MISS


cdef bint drop_unbounded(Tlb* t, unsigned cpu, TlbCpu* c, unsigned slot, uint64_t vpn) noexcept nogil:
    cdef unsigned size
    cdef uint64_t page, bit
    cdef TlbBlock* b
    cdef bint found = False
    for size in range(3):
        if c.sizes >> size & 1:
            page = vpn >> shift_of(t, size)
            b = find_block(t, page >> 6 << 2 | size, space_of(c, cpu, slot))
            bit = <uint64_t>1 << (page & 63)
            if b.present & bit:
                b.present &= ~bit
                b.writes &= ~bit
                found = True
    return found


cdef void fill_unbounded(Tlb* t, unsigned cpu, TlbCpu* c, unsigned slot, uint64_t vpn, unsigned size, bint write_through) noexcept nogil:
    cdef uint64_t page = vpn >> shift_of(t, size), bit = <uint64_t>1 << (page & 63)
    cdef TlbBlock* b = find_block(t, page >> 6 << 2 | size, space_of(c, cpu, slot))
    if b.space == 0:
        if (t.table.used + 1) * 2 > <uint64_t>1 << t.table.log:
            rebuild(t)
            b = find_block(t, page >> 6 << 2 | size, space_of(c, cpu, slot))
        b.page = page >> 6 << 2 | size
        b.space = space_of(c, cpu, slot)
        t.table.used += 1
    b.present |= bit
    if write_through:
        b.writes |= bit


# -------------------------------------------------------------------------------------------------------- lookups and walks

cdef inline unsigned slot_for(Tlb* t, unsigned cpu, TlbCpu* c, uint32_t mm) noexcept nogil:
    if mm == 0:
        return TLB_GLOBAL
    if mm != c.loaded_mm or c.lazy:
        tlb_switch_mm(t, cpu, mm)
    return c.slot


cdef int tlb_lookup(Tlb* t, unsigned cpu, uint32_t mm, uint64_t vpn, bint write) noexcept nogil:
    cdef TlbCpu* c = &t.cpus[cpu]
    cdef TlbStats* s = &t.stats[cpu]
    cdef unsigned slot
    cdef int found
    if t.g.kind == TLB_OFF:
        return TLB_MISS
    slot = slot_for(t, cpu, c, mm)
    vpn &= TLB_VPN_MASK
    if t.g.kind == TLB_UNBOUNDED:
        found = lookup_unbounded(t, cpu, c, slot, vpn, write)
    else:
        found = lookup_sets(t, cpu, c, slot, vpn, write)
    if found == TLB_L1:
        s.l1_hits += 1
    elif found == TLB_L2:
        s.l2_hits += 1
    elif found == TLB_CLEAN:
        s.rewalks += 1
    else:
        c.missed = vpn << 3 | slot
    return found


cdef void tlb_prefetch(Tlb* t, unsigned cpu, uint32_t mm, uint64_t vpn) noexcept nogil:
    cdef TlbCpu* c = &t.cpus[cpu]
    cdef uint64_t page = (vpn & TLB_VPN_MASK) >> 6 << 2
    cdef unsigned log = t.table.log
    if t.g.kind == TLB_UNBOUNDED:
        prefetch(t.blocks + (<uint64_t>1 << log) + hash_of(page, space_of(c, cpu, c.slot if mm else TLB_GLOBAL), log))


cdef unsigned walk(Tlb* t, unsigned cpu, TlbCpu* c, unsigned slot, uint64_t vpn, unsigned size) noexcept nogil:
    # A walk cache of level k remembers entries of tables of that level (0: the last) that point to a table, by the address bits that
    # lead to them: with it, the walk begins at level k - 1.
    cdef unsigned n = t.g.walk_entries, levels = t.g.pt_levels, k, start = levels
    cdef uint64_t at, key, id = (c.walk_gen[slot] & GEN_MASK) << 3 | slot
    cdef uint64_t* e
    if n:
        for k in range(size + 1, levels):
            at = (<uint64_t>cpu * TLB_MAX_WALK_LEVELS + k - 1) * n
            e = find_key(t.walk_keys + at, n, vpn >> k * t.g.pt_bits << KEY_SHIFT | id)
            if e != NULL:
                c.clock += 1
                t.walk_stamps[e - t.walk_keys] = c.clock
                t.stats[cpu].walk_cache_hits += 1
                start = k
                break
        for k in range(size + 1, start):
            at = (<uint64_t>cpu * TLB_MAX_WALK_LEVELS + k - 1) * n
            key = vpn >> k * t.g.pt_bits << KEY_SHIFT | id
            at += victim(t.walk_keys + at, t.walk_stamps + at, n, c.walk_gen, c.flushes, t.walk_full_at + at)
            c.clock += 1
            t.walk_keys[at] = key
            t.walk_stamps[at] = c.clock
    t.stats[cpu].walk_steps += start - size
    return start - size


cdef unsigned tlb_walk(Tlb* t, unsigned cpu, uint32_t mm, uint64_t vpn, unsigned page_shift) noexcept nogil:
    cdef TlbCpu* c = &t.cpus[cpu]
    if t.g.kind == TLB_OFF:
        return 0
    # It may end at any level, also above the largest pages; only tables that exist are cached.
    return walk(t, cpu, c, slot_for(t, cpu, c, mm), vpn & TLB_VPN_MASK, (page_shift - 12) // t.g.pt_bits)


cdef unsigned tlb_fill(Tlb* t, unsigned cpu, uint32_t mm, uint64_t vpn, unsigned page_shift, bint writable, bint dirty) noexcept nogil:
    cdef TlbCpu* c = &t.cpus[cpu]
    cdef TlbPart* part
    cdef unsigned slot, i, size = size_of(t, page_shift), steps
    cdef uint64_t flags = (E_WRITABLE if writable else 0) | (E_DIRTY if dirty else 0)
    cdef bint known
    if t.g.kind == TLB_OFF:
        return 0
    slot = slot_for(t, cpu, c, mm)
    vpn &= TLB_VPN_MASK
    steps = walk(t, cpu, c, slot, vpn, size)
    if t.g.kind == TLB_UNBOUNDED:
        known = c.missed != (vpn << 3 | slot) and drop_unbounded(t, cpu, c, slot, vpn)
        c.sizes |= 1 << size
        fill_unbounded(t, cpu, c, slot, vpn, size, writable and dirty)
    else:
        known = c.missed != (vpn << 3 | slot) and drop_page(t, cpu, c, slot, vpn)
        c.sizes |= 1 << size
        for i in range(t.g.nr_parts):
            part = &t.parts[i]
            if part.sizes >> size & 1:
                insert(t, c, cpu, part, slot, size, vpn >> shift_of(t, size), flags)
            elif size == 2 and part.pieces:
                c.sizes |= 2
                c.pieces = 1
                insert(t, c, cpu, part, slot, 1, vpn >> shift_of(t, 1), flags | E_PIECE)
    c.missed = <uint64_t>-1
    if not known:
        t.stats[cpu].misses[size] += 1
    return steps


# ------------------------------------------------------------------------------------------------ flushes that one CPU does

cdef void flush_walks(Tlb* t, unsigned cpu, TlbCpu* c, unsigned slot) noexcept nogil:
    cdef uint64_t n = <uint64_t>TLB_MAX_WALK_LEVELS * t.g.walk_entries
    c.walk_gen[slot] += 1
    c.flushes += 1
    if c.walk_gen[slot] & GEN_MASK == 0:
        sweep(t.walk_keys + cpu * n, n, slot)
        c.walk_gen[slot] += 1


cdef void flush_slot(Tlb* t, unsigned cpu, TlbCpu* c, unsigned slot) noexcept nogil:
    c.gen[slot] += 1
    if c.gen[slot] & GEN_MASK == 0:
        sweep(t.keys + <uint64_t>cpu * t.g.entries, t.g.entries, slot)
        c.gen[slot] += 1
    flush_walks(t, cpu, c, slot)


cdef void flush_pages(Tlb* t, unsigned cpu, TlbCpu* c, unsigned slot, uint64_t start, uint64_t end, unsigned stride_shift) noexcept nogil:
    # Single invalidations.
    cdef uint64_t address = start, vpn
    if start >= end:
        return
    while True:
        vpn = address >> 12 & TLB_VPN_MASK
        if t.g.kind == TLB_UNBOUNDED:
            drop_unbounded(t, cpu, c, slot, vpn)
        elif t.g.kind == TLB_SETS:
            drop_page(t, cpu, c, slot, vpn)
            if c.pieces:
                drop_pieces(t, cpu, c, slot, vpn)
        if end - address <= <uint64_t>1 << stride_shift:
            break
        address += <uint64_t>1 << stride_shift
    flush_walks(t, cpu, c, slot)


cdef void flush_everything(Tlb* t, unsigned cpu) noexcept nogil:
    # Global entries, too.
    cdef TlbCpu* c = &t.cpus[cpu]
    cdef unsigned slot
    for slot in range(<unsigned>TLB_SLOTS):
        flush_slot(t, cpu, c, slot)
    c.sizes = c.pieces = 0
    t.stats[cpu].nr_tlb_local_flush_all += 1


cdef void flush_func(Tlb* t, unsigned cpu, uint32_t mm, uint64_t start, uint64_t end, unsigned stride_shift, uint64_t new_gen,
                     bint local) noexcept nogil:
    # What a CPU does that is asked to flush; mm 0: whatever address space is loaded.
    cdef TlbCpu* c = &t.cpus[cpu]
    cdef TlbStats* s = &t.stats[cpu]
    cdef uint64_t gen, seen
    if not local:
        s.nr_tlb_remote_flush_received += 1
    if c.loaded_mm == 0 or (mm and mm != c.loaded_mm):
        return
    if c.lazy:
        # it will not need this address space soon: off it, so that it is not asked again
        tlb_switch_mm(t, cpu, 0)
        return
    gen = t.mm_gen[c.loaded_mm]
    seen = c.slot_gen[c.slot]
    if seen == gen:
        return
    if end != TLB_FLUSH_ALL and new_gen == seen + 1 and new_gen == gen:
        flush_pages(t, cpu, c, c.slot, start, end, stride_shift)
        if local:
            s.nr_tlb_local_flush_one += (end - start) >> stride_shift
    else:
        # this flush was missed or others before it
        flush_slot(t, cpu, c, c.slot)
        if local:
            s.nr_tlb_local_flush_all += 1
    c.slot_gen[c.slot] = gen


# ---------------------------------------------------------------------------------------------- address spaces and shootdowns

cdef bint tlb_switch_mm(Tlb* t, unsigned cpu, uint32_t mm) noexcept nogil:
    cdef TlbCpu* c = &t.cpus[cpu]
    cdef unsigned slot
    cdef bint flush = True
    if mm == c.loaded_mm:
        if not c.lazy or mm == 0:
            c.lazy = 0
            return False
        # back from a kernel thread: flushes may have passed this CPU by
        c.lazy = 0
        if c.slot_gen[c.slot] == t.mm_gen[mm]:
            return False
    else:
        c.lazy = 0
        c.loaded_mm = mm
        if mm == 0:
            return False
        t.stats[cpu].switches += 1
        for slot in range(t.g.nr_asids):
            if c.slot_mm[slot] == mm:
                c.slot = slot
                flush = t.g.nr_asids == 1 or c.slot_gen[slot] != t.mm_gen[mm]
                break
        else:
            c.slot = c.next_asid if c.next_asid < t.g.nr_asids else 0
            c.next_asid = c.slot + 1
            c.slot_mm[c.slot] = mm
        if not flush:
            return False
    flush_slot(t, cpu, c, c.slot)
    c.slot_gen[c.slot] = t.mm_gen[mm]
    t.stats[cpu].switch_flushes += 1
    return True


cdef void tlb_enter_lazy(Tlb* t, unsigned cpu) noexcept nogil:
    if t.cpus[cpu].loaded_mm:
        t.cpus[cpu].lazy = 1


cdef void tlb_drop_mm(Tlb* t, uint32_t mm) noexcept nogil:
    cdef TlbCpu* c
    cdef unsigned cpu, slot
    for cpu in range(t.g.nr_cpus):
        c = &t.cpus[cpu]
        if c.loaded_mm == mm:
            c.loaded_mm = c.lazy = 0
        for slot in range(t.g.nr_asids):
            if c.slot_mm[slot] == mm:
                c.slot_mm[slot] = 0
                flush_slot(t, cpu, c, slot)
    t.mm_gen[mm] += 1


cdef inline bint in_mask(Tlb* t, unsigned cpu, const uint32_t* cpumask, uint32_t mm) noexcept nogil:
    cdef TlbCpu* c = &t.cpus[cpu]
    if cpumask != NULL:
        return cpumask[cpu >> 5] >> (cpu & 31) & 1
    if mm:
        return c.loaded_mm == mm
    return c.loaded_mm != 0 and c.slot_gen[c.slot] != t.mm_gen[c.loaded_mm]


cdef unsigned flush_multi(Tlb* t, unsigned cpu, const uint32_t* cpumask, uint32_t mm, uint64_t start, uint64_t end, unsigned stride_shift,
                          uint64_t new_gen, bint freed_tables) noexcept nogil:
    cdef unsigned other, sent = 0
    cdef bint any_other = False
    for other in range(t.g.nr_cpus):
        if other != cpu and in_mask(t, other, cpumask, mm):
            any_other = True
            # idle CPUs look at the generation when they come back, unless a walk of theirs could meet a table that is gone
            if freed_tables or not t.cpus[other].lazy:
                flush_func(t, other, mm, start, end, stride_shift, new_gen, False)
                sent += 1
    if any_other:
        t.stats[cpu].nr_tlb_remote_flush += 1
    flush_func(t, cpu, mm, start, end, stride_shift, new_gen, True)
    return sent


cdef unsigned tlb_shootdown(Tlb* t, unsigned cpu, const uint32_t* cpumask, uint32_t mm, uint64_t start, uint64_t end, unsigned stride_shift,
                            bint freed_tables) noexcept nogil:
    if end == TLB_FLUSH_ALL or (end - start) >> stride_shift > t.g.flush_ceiling:
        start = 0
        end = TLB_FLUSH_ALL
    t.mm_gen[mm] += 1
    return flush_multi(t, cpu, cpumask, mm, start, end, stride_shift, t.mm_gen[mm], freed_tables)


cdef unsigned tlb_flush_range(Tlb* t, unsigned cpu, uint32_t mm, uint64_t start, uint64_t end, unsigned stride_shift,
                              bint freed_tables) noexcept nogil:
    return tlb_shootdown(t, cpu, NULL, mm, start, end, stride_shift, freed_tables)


cdef unsigned tlb_flush_mm(Tlb* t, unsigned cpu, uint32_t mm) noexcept nogil:
    return tlb_shootdown(t, cpu, NULL, mm, 0, TLB_FLUSH_ALL, 0, True)


cdef void tlb_batch_add(Tlb* t, uint32_t mm) noexcept nogil:
    t.mm_gen[mm] += 1


cdef unsigned tlb_batch_flush(Tlb* t, unsigned cpu, const uint32_t* cpumask) noexcept nogil:
    return flush_multi(t, cpu, cpumask, 0, 0, TLB_FLUSH_ALL, 0, 0, False)


cdef void tlb_flush_all(Tlb* t, unsigned cpu) noexcept nogil:
    cdef unsigned other
    t.stats[cpu].nr_tlb_remote_flush += 1
    for other in range(t.g.nr_cpus):
        flush_everything(t, other)


cdef void tlb_flush_local(Tlb* t, unsigned cpu) noexcept nogil:
    flush_everything(t, cpu)


cdef void tlb_flush_kernel_range(Tlb* t, unsigned cpu, uint64_t start, uint64_t end) noexcept nogil:
    cdef unsigned other
    for other in range(t.g.nr_cpus):
        if end == TLB_FLUSH_ALL or end - start > <uint64_t>t.g.flush_ceiling << 12:
            flush_everything(t, other)
        else:
            flush_pages(t, other, &t.cpus[other], TLB_GLOBAL, start, end, 12)
            t.stats[other].nr_tlb_local_flush_one += (end - start + 4095) >> 12


# ------------------------------------------------------------------------------------------------------------ Python's side

cdef TlbConfig _config
cdef TlbPart _part
cdef TlbCpu _cpu
cdef TlbStats _stats
cdef TlbTable _table
cdef TlbBlock _block

cdef TlbConfig[::1] _config_view = <TlbConfig[:1]>&_config
cdef TlbPart[::1] _part_view = <TlbPart[:1]>&_part
cdef TlbCpu[::1] _cpu_view = <TlbCpu[:1]>&_cpu
cdef TlbStats[::1] _stats_view = <TlbStats[:1]>&_stats
cdef TlbTable[::1] _table_view = <TlbTable[:1]>&_table
cdef TlbBlock[::1] _block_view = <TlbBlock[:1]>&_block

TLB_CONFIG_DTYPE = np.asarray(_config_view).dtype
TLB_PART_DTYPE = np.asarray(_part_view).dtype
TLB_CPU_DTYPE = np.asarray(_cpu_view).dtype
TLB_STATS_DTYPE = np.asarray(_stats_view).dtype
TLB_TABLE_DTYPE = np.asarray(_table_view).dtype
TLB_BLOCK_DTYPE = np.asarray(_block_view).dtype


def struct_sizes():
    """sizeof() of every record in bytes, by dtype name: a test holds the derived dtypes against them."""
    return {
        "TLB_CONFIG_DTYPE": sizeof(TlbConfig), "TLB_PART_DTYPE": sizeof(TlbPart), "TLB_CPU_DTYPE": sizeof(TlbCpu),
        "TLB_STATS_DTYPE": sizeof(TlbStats), "TLB_TABLE_DTYPE": sizeof(TlbTable), "TLB_BLOCK_DTYPE": sizeof(TlbBlock),
    }


KINDS = {"off": TLB_OFF, "sets": TLB_SETS, "unbounded": TLB_UNBOUNDED}
PAGES = {"4K": 1, "2M": 2, "1G": 4}

# Hardware documents (spec 16). What does not divide by the ways is left out: 2048 entries in 12 ways are 170 sets.
PRESETS = {
    "off": {"kind": "off"},
    "unbounded": {"kind": "unbounded", "walk_entries": 0},
    "zen": {
        "kind": "sets", "walk_entries": 32, "parts": [
            {"level": 1, "pages": ["4K", "2M", "1G"], "entries": 64, "ways": 64},
            {"level": 2, "pages": ["4K", "2M"], "entries": 2048, "ways": 12, "pieces": True},
        ],
    },
    "skylake": {
        "kind": "sets", "walk_entries": 32, "parts": [
            {"level": 1, "pages": ["4K"], "entries": 64, "ways": 4},
            {"level": 1, "pages": ["2M"], "entries": 32, "ways": 4},
            {"level": 1, "pages": ["1G"], "entries": 4, "ways": 4},
            {"level": 2, "pages": ["4K", "2M"], "entries": 1536, "ways": 12},
            {"level": 2, "pages": ["1G"], "entries": 16, "ways": 4},
        ],
    },
}
DEFAULTS = {
    "kind": "sets", "parts": [], "asids": TLB_MAX_ASIDS, "walk_entries": 32, "pt_levels": 4, "pt_bits": 9, "flush_ceiling": 33,
    "max_mms": 1 << 16, "capacity": 3 << 18,
}
PART_KEYS = {"level", "pages", "entries", "ways", "pieces"}
ARRAYS = (
    "config", "parts", "cpus", "stats", "mm_gen", "keys", "stamps", "full_at", "walk_keys", "walk_stamps", "walk_full_at", "table",
    "blocks",
)
MIN_LOG = 8


cdef object described(object config, dict overrides):
    # The dict of a configuration, all keys set.
    if isinstance(config, str):
        if config not in PRESETS:
            raise ValueError(f"no TLB {config!r}; there are {', '.join(PRESETS)}")
        config = PRESETS[config]
    elif not isinstance(config, dict):
        raise TypeError(f"a TLB is described by a name or a dict, not {type(config).__name__}")
    unknown = sorted({str(k) for k in (*config, *overrides)} - DEFAULTS.keys())
    if unknown:
        raise ValueError(f"a TLB has no {', '.join(unknown)}; it has {', '.join(DEFAULTS)}")
    return DEFAULTS | config | overrides


cdef object config_record(dict d, object nr_cpus):
    # The checked TlbConfig and its parts.
    record = np.zeros(1, TLB_CONFIG_DTYPE)
    g = record[0]
    if d["kind"] not in KINDS:
        raise ValueError(f"kind is {d['kind']!r}; it must be one of {', '.join(KINDS)}")
    g["kind"] = KINDS[d["kind"]]
    g["nr_cpus"] = as_int(nr_cpus, "nr_cpus", 1, MAX_CPUS)
    g["nr_asids"] = as_int(d["asids"], "asids", 1, TLB_MAX_ASIDS)
    g["walk_entries"] = as_int(d["walk_entries"], "walk_entries", 0, 1024)
    g["pt_levels"] = as_int(d["pt_levels"], "pt_levels", 2, TLB_MAX_WALK_LEVELS + 1)
    g["pt_bits"] = as_int(d["pt_bits"], "pt_bits", 9, 10)
    g["flush_ceiling"] = as_int(d["flush_ceiling"], "flush_ceiling", 0, 1 << 20)
    g["nr_mms"] = as_int(d["max_mms"], "max_mms", 1, 1 << 22) + 1
    parts = d["parts"] if d["kind"] == "sets" else []
    if d["kind"] == "sets" and not parts:
        raise ValueError("a TLB of sets and ways needs parts")
    if len(parts) > TLB_MAX_PARTS:
        raise ValueError(f"{len(parts)} parts are too many (limit: {TLB_MAX_PARTS})")
    g["nr_parts"] = len(parts)
    rows = np.zeros(len(parts), TLB_PART_DTYPE)
    first = 0
    for i, part in enumerate(sorted(parts, key=lambda part: part.get("level", 0) if isinstance(part, dict) else 0)):
        if not isinstance(part, dict) or not PART_KEYS - {"pieces"} <= part.keys() <= PART_KEYS:
            raise ValueError(f"part {part!r} must be a dict of {', '.join(sorted(PART_KEYS))}")
        p = rows[i]
        p["level"] = as_int(part["level"], "level", 1, 2)
        if not part["pages"] or set(part["pages"]) - PAGES.keys():
            raise ValueError(f"pages are {part['pages']!r}; they must be some of {', '.join(PAGES)}")
        p["sizes"] = sum(PAGES[name] for name in set(part["pages"]))
        entries = as_int(part["entries"], "entries", 1, 1 << 20)
        p["ways"] = as_int(part["ways"], "ways", 1, entries)
        p["sets"] = entries // p["ways"]
        p["first"] = first
        p["pieces"] = bool(part.get("pieces", False))
        if p["pieces"] and p["sizes"] & 6 != 2:
            raise ValueError("pieces of 1 GiB pages need a part for 2M pages that has none for 1G")
        first += int(p["sets"] * p["ways"])
    g["entries"] = first
    if first * int(g["nr_cpus"]) > MAX_ENTRIES:
        raise ValueError(f"{first} entries on {nr_cpus} CPUs are too many (limit: {MAX_ENTRIES} in all)")
    if d["kind"] == "unbounded":
        capacity = as_int(d["capacity"], "capacity", 1, 3 << (MAX_LOG - 3))
        g["min_log"] = MIN_LOG
        g["max_log"] = max(MIN_LOG, (capacity * 8 // 3 - 1).bit_length())
    return record, rows


cdef object shapes_of(object g):
    # Length and dtype of each array but `blocks`.
    nr_cpus = int(g["nr_cpus"])
    walks = nr_cpus * TLB_MAX_WALK_LEVELS * int(g["walk_entries"])
    entries = nr_cpus * int(g["entries"])
    return {
        "config": (1, TLB_CONFIG_DTYPE), "parts": (int(g["nr_parts"]), TLB_PART_DTYPE),
        "cpus": (nr_cpus, TLB_CPU_DTYPE), "stats": (nr_cpus, TLB_STATS_DTYPE),
        "mm_gen": (int(g["nr_mms"]), np.dtype(np.uint64)), "keys": (entries, np.dtype(np.uint64)), "stamps": (entries, np.dtype(np.uint64)),
        "full_at": (entries, np.dtype(np.uint64)),
        "walk_keys": (walks, np.dtype(np.uint64)), "walk_stamps": (walks, np.dtype(np.uint64)),
        "walk_full_at": (walks, np.dtype(np.uint64)), "table": (1, TLB_TABLE_DTYPE),
    }


cdef uint64_t as_u64(object value, str name) except? 0xffffffffffffffff:
    if isinstance(value, (bool, np.bool_)) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be an integer, not {type(value).__name__}")
    value = value.__index__()
    if not 0 <= value < 1 << 64:
        raise ValueError(f"{name} is {value}; it must lie in 0..{(1 << 64) - 1}")
    return value


cdef class TlbModel:
    """The TLBs of a machine with `nr_cpus` CPUs.

    config: a name of PRESETS ("zen", "skylake", "unbounded", "off") or a dict of the same form; keyword arguments override its keys:
    asids (ids that a CPU deals out; 1: no PCID), walk_entries (of the walk cache of each upper level, 0: none), pt_levels, pt_bits,
    flush_ceiling, max_mms, capacity (of an unbounded one: blocks of 64 pages), parts.

    Address spaces are numbers from 1; 0 is the kernel, whose translations are global. All state is in arrays().
    """

    def __init__(self, config="zen", nr_cpus=1, **overrides):
        record, parts = config_record(described(config, overrides), nr_cpus)
        self.make(record, parts)

    cdef int make(self, object config, object parts) except -1:
        g = config[0]
        arrays = {name: aligned_zeros(n, dtype) for name, (n, dtype) in shapes_of(g).items()}
        arrays["config"][:] = config
        arrays["parts"][:] = parts
        # a generation is never 0
        for name in ("gen", "walk_gen"):
            arrays["cpus"][name] = 1
        arrays["cpus"]["flushes"] = 1
        arrays["cpus"]["missed"] = (1 << 64) - 1
        arrays["table"]["log"] = g["min_log"]
        arrays["blocks"] = aligned_zeros(2 << int(g["max_log"]) if g["kind"] == TLB_UNBOUNDED else 0, TLB_BLOCK_DTYPE)
        self.config, self.parts, self.cpus, self.cpu_stats = arrays["config"], arrays["parts"], arrays["cpus"], arrays["stats"]
        self.mm_gen, self.keys, self.stamps = arrays["mm_gen"], arrays["keys"], arrays["stamps"]
        self.walk_keys, self.walk_stamps = arrays["walk_keys"], arrays["walk_stamps"]
        self.full_at, self.walk_full_at = arrays["full_at"], arrays["walk_full_at"]
        self.table, self.blocks = arrays["table"], arrays["blocks"]
        return self.bind()

    cdef int bind(self) except -1:
        # The only place that takes addresses.
        self.c.g = <TlbConfig*>cnp.PyArray_DATA(self.config)
        self.c.parts = <TlbPart*>cnp.PyArray_DATA(self.parts)
        self.c.cpus = <TlbCpu*>cnp.PyArray_DATA(self.cpus)
        self.c.stats = <TlbStats*>cnp.PyArray_DATA(self.cpu_stats)
        self.c.mm_gen = <uint64_t*>cnp.PyArray_DATA(self.mm_gen)
        self.c.keys = <uint64_t*>cnp.PyArray_DATA(self.keys)
        self.c.stamps = <uint64_t*>cnp.PyArray_DATA(self.stamps)
        self.c.full_at = <uint64_t*>cnp.PyArray_DATA(self.full_at)
        self.c.walk_full_at = <uint64_t*>cnp.PyArray_DATA(self.walk_full_at)
        self.c.walk_keys = <uint64_t*>cnp.PyArray_DATA(self.walk_keys)
        self.c.walk_stamps = <uint64_t*>cnp.PyArray_DATA(self.walk_stamps)
        self.c.table = <TlbTable*>cnp.PyArray_DATA(self.table)
        self.c.blocks = <TlbBlock*>cnp.PyArray_DATA(self.blocks)
        self.lock = 0
        return 0

    cdef void enter(self) noexcept:
        cdef int* lock = &self.lock
        while not mm_try_lock(lock):
            with nogil:
                sched_yield()

    cdef void leave(self) noexcept:
        mm_unlock(&self.lock)

    cdef unsigned cpu_of(self, object cpu) except? 0xffffffff:
        return <unsigned>as_int(cpu, "cpu", 0, self.c.g.nr_cpus - 1)

    cdef uint32_t mm_of(self, object mm, uint32_t least) except? 0xffffffff:
        return <uint32_t>as_int(mm, "mm", least, self.c.g.nr_mms - 1)

    cdef unsigned shift_of_page(self, object page_shift) except? 0xffffffff:
        cdef unsigned shift = <unsigned>as_int(page_shift, "page_shift", 12, 32), bits = self.c.g.pt_bits
        if (shift - 12) % bits or (shift - 12) // bits > 2 or (shift - 12) // bits >= self.c.g.pt_levels:
            some = [12 + bits * i for i in range(min(3, self.c.g.pt_levels))]
            raise ValueError(f"page_shift is {shift}; it must be one of {', '.join(map(str, some))}")
        return shift

    # one access

    def lookup(self, cpu, mm, vpn, write=False):
        """0 miss, 1 hit in L1, 2 hit in L2, 3 cached but a write must walk. Switches `cpu` to `mm` if need be."""
        cdef unsigned on = self.cpu_of(cpu)
        cdef uint32_t m = self.mm_of(mm, 0)
        cdef uint64_t page = <uint64_t>as_int(vpn, "vpn", 0, (<int64_t>1 << 52) - 1)
        cdef bint w = bool(write)
        self.enter()
        try:
            return tlb_lookup(&self.c, on, m, page, w)
        finally:
            self.leave()

    def fill(self, cpu, mm, vpn, page_shift=12, writable=True, dirty=True):
        """The walk that follows a miss, and its entry; returns the memory accesses of the walk."""
        cdef unsigned on = self.cpu_of(cpu), shift = self.shift_of_page(page_shift)
        cdef uint32_t m = self.mm_of(mm, 0)
        cdef uint64_t page = <uint64_t>as_int(vpn, "vpn", 0, (<int64_t>1 << 52) - 1)
        cdef bint w = bool(writable), d = bool(dirty)
        self.enter()
        try:
            return tlb_fill(&self.c, on, m, page, shift, w, d)
        finally:
            self.leave()

    def walk(self, cpu, mm, vpn, page_shift=12):
        """A walk that leaves no entry (it ended in a fault); returns its memory accesses."""
        cdef unsigned on = self.cpu_of(cpu), shift = self.shift_of_page(page_shift)
        cdef uint32_t m = self.mm_of(mm, 0)
        cdef uint64_t page = <uint64_t>as_int(vpn, "vpn", 0, (<int64_t>1 << 52) - 1)
        self.enter()
        try:
            return tlb_walk(&self.c, on, m, page, shift)
        finally:
            self.leave()

    def access_many(self, cpu, mm, vpns, writes=None, *, page_shift=12, dirty=True):
        """Look up pages `vpns` (uint64 array) in order, fill what misses, and return what each lookup found (uint8 array).

        writes: None (all read), or an array of uint8 or bool. dirty: the pages are dirty already; False: an entry is only known to be
        dirty when a write brought it. The GIL is not held meanwhile.
        """
        cdef unsigned on = self.cpu_of(cpu), shift = self.shift_of_page(page_shift)
        cdef uint32_t m = self.mm_of(mm, 0)
        cdef cnp.ndarray v = checked(vpns, np.uint64, "vpns"), w
        cdef int64_t n = cnp.PyArray_SIZE(v), i
        cdef const uint64_t* vp = <const uint64_t*>cnp.PyArray_DATA(v)
        cdef const uint8_t* wp = NULL
        cdef uint64_t most = 0
        cdef uint8_t* out
        cdef bint write, all_dirty = bool(dirty)
        cdef Tlb* t = &self.c
        cdef int found
        if writes is not None:
            w = checked(writes.view(np.uint8) if getattr(writes, "dtype", None) == np.bool_ else writes, np.uint8, "writes")
            if cnp.PyArray_SIZE(w) != n:
                raise ValueError(f"writes has {cnp.PyArray_SIZE(w)} elements for {n} accesses")
            wp = <const uint8_t*>cnp.PyArray_DATA(w)
        for i in range(n):
            most |= vp[i]
        if most >> 52:
            raise ValueError(f"vpns holds {max(vpns)}; page numbers must lie in 0..{(1 << 52) - 1}")
        result = np.empty(n, np.uint8)
        out = <uint8_t*>cnp.PyArray_DATA(result)
        self.enter()
        try:
            with nogil:
                for i in range(n):
                    if i + AHEAD < n:
                        tlb_prefetch(t, on, m, vp[i + AHEAD])
                    write = wp != NULL and wp[i]
                    found = tlb_lookup(t, on, m, vp[i], write)
                    out[i] = <uint8_t>found
                    if found == TLB_MISS or found == TLB_CLEAN:
                        tlb_fill(t, on, m, vp[i], shift, True, all_dirty or write)
        finally:
            self.leave()
        return result

    # address spaces and flushes

    def switch_mm(self, cpu, mm):
        """Load address space `mm` (0: none) on `cpu`; whether that flushed its id."""
        cdef unsigned on = self.cpu_of(cpu)
        cdef uint32_t m = self.mm_of(mm, 0)
        self.enter()
        try:
            return bool(tlb_switch_mm(&self.c, on, m))
        finally:
            self.leave()

    def enter_lazy(self, cpu):
        """`cpu` runs a kernel thread or idles, its address space stays loaded."""
        cdef unsigned on = self.cpu_of(cpu)
        self.enter()
        tlb_enter_lazy(&self.c, on)
        self.leave()

    def drop_mm(self, mm):
        """Address space `mm` is no more."""
        cdef uint32_t m = self.mm_of(mm, 1)
        self.enter()
        tlb_drop_mm(&self.c, m)
        self.leave()

    def flush_range(self, cpu, mm, start, end, stride_shift=12, freed_tables=False, cpus=None):
        """Flush [start, end) (bytes) of `mm` on every CPU that has it loaded, or on the CPUs named; returns the IPIs sent."""
        cdef unsigned on = self.cpu_of(cpu), shift = <unsigned>as_int(stride_shift, "stride_shift", 12, 48), sent
        cdef uint32_t m = self.mm_of(mm, 1)
        cdef uint64_t low = as_u64(start, "start"), high = as_u64(end, "end")
        cdef bint freed = bool(freed_tables)
        cdef cnp.ndarray mask = self.mask_of(cpus)
        cdef uint32_t* bits = NULL if cpus is None else <uint32_t*>cnp.PyArray_DATA(mask)
        if low > high:
            raise ValueError(f"start is {low:#x}; it must not exceed end, {high:#x}")
        self.enter()
        sent = tlb_shootdown(&self.c, on, bits, m, low, high, shift, freed)
        self.leave()
        return sent

    def flush_mm(self, cpu, mm):
        """Flush all of `mm`, page tables included; returns the IPIs sent."""
        cdef unsigned on = self.cpu_of(cpu), sent
        cdef uint32_t m = self.mm_of(mm, 1)
        self.enter()
        sent = tlb_flush_mm(&self.c, on, m)
        self.leave()
        return sent

    def batch_add(self, mm):
        """Reclaim unmapped something from `mm`."""
        cdef uint32_t m = self.mm_of(mm, 1)
        self.enter()
        tlb_batch_add(&self.c, m)
        self.leave()

    def batch_flush(self, cpu, cpus=None):
        """Flush what batch_add() noted, everywhere or on the CPUs named; returns the IPIs sent."""
        cdef unsigned on = self.cpu_of(cpu), sent
        cdef cnp.ndarray mask = self.mask_of(cpus)
        cdef uint32_t* bits = NULL if cpus is None else <uint32_t*>cnp.PyArray_DATA(mask)
        self.enter()
        sent = tlb_batch_flush(&self.c, on, bits)
        self.leave()
        return sent

    def flush_kernel_range(self, cpu, start, end):
        """Flush [start, end) of the kernel on every CPU."""
        cdef unsigned on = self.cpu_of(cpu)
        cdef uint64_t low = as_u64(start, "start"), high = as_u64(end, "end")
        if low > high:
            raise ValueError(f"start is {low:#x}; it must not exceed end, {high:#x}")
        self.enter()
        tlb_flush_kernel_range(&self.c, on, low, high)
        self.leave()

    def flush_all(self, cpu):
        """Flush everything on every CPU, global entries too."""
        cdef unsigned on = self.cpu_of(cpu)
        self.enter()
        tlb_flush_all(&self.c, on)
        self.leave()

    def mask_of(self, cpus):
        """CPUs as an array of bits, 32 to a word."""
        mask = np.zeros((int(self.c.g.nr_cpus) + 31) // 32, np.uint32)
        for cpu in cpus or ():
            on = self.cpu_of(cpu)
            mask[on >> 5] |= np.uint32(1 << (on & 31))
        return mask

    # what it holds

    def stats(self, cpu=None):
        """Counters of one CPU, or of all together: hits, misses_4k and so on, walk_steps, nr_tlb_*."""
        rows = self.cpu_stats if cpu is None else self.cpu_stats[self.cpu_of(cpu):][:1]
        out = {}
        for name in TLB_STATS_DTYPE.names:
            if name == "misses":
                out.update(zip(("misses_4k", "misses_2m", "misses_1g"), rows[name].sum(axis=0).tolist(), strict=True))
            else:
                out[name] = int(rows[name].sum())
        return out

    def entries(self, cpu):
        """What `cpu` has cached, live entries only: for each part {set: [(slot, size, page, flags)]}, least recently used first.

        flags: 1 writable, 2 dirty, 4 piece of a larger page. Of an unbounded TLB: one part, one set, ordered by number, flags 3 or 0.
        """
        cdef unsigned on = self.cpu_of(cpu)
        cdef TlbCpu* c = &self.c.cpus[on]
        cdef TlbPart* part
        cdef TlbBlock* b
        cdef uint64_t at, key, i
        self.enter()
        try:
            out = []
            if self.c.g.kind == TLB_UNBOUNDED:
                found = []
                for i in range(<uint64_t>1 << self.c.table.log, <uint64_t>2 << self.c.table.log):
                    b = &self.c.blocks[i]
                    if block_alive(&self.c, b) and (b.space >> 3 & (MAX_CPUS - 1)) == on:
                        found += [(int(b.space & 7), int(b.page & 3), int(b.page >> 2 << 6 | bit), 3 if b.writes >> bit & 1 else 0)
                                  for bit in range(64) if b.present >> bit & 1]
                return [{0: sorted(found)}]
            for p in range(self.c.g.nr_parts):
                part = &self.c.parts[p]
                sets = {}
                for s in range(part.sets):
                    found = []
                    at = <uint64_t>on * self.c.g.entries + part.first + s * <uint64_t>part.ways
                    for i in range(at, at + part.ways):
                        key = self.c.keys[i]
                        if alive(c.gen, key):
                            found.append((int(self.c.stamps[i]), (int(key & 7), int(key >> KEY_SHIFT & 3), int(key >> (KEY_SHIFT + 2)),
                                                                  int(self.c.stamps[i] & E_FLAGS))))
                    if found:
                        sets[s] = [entry for _, entry in sorted(found)]
                out.append(sets)
            return out
        finally:
            self.leave()

    def walk_entries(self, cpu):
        """The walk caches of `cpu`: for each level from 1 up [(slot, page-table index bits)], least recently used first."""
        cdef unsigned on = self.cpu_of(cpu), n = self.c.g.walk_entries
        cdef uint64_t at, i, key
        self.enter()
        try:
            out = []
            for level in range(1, self.c.g.pt_levels):
                found = []
                at = (<uint64_t>on * TLB_MAX_WALK_LEVELS + level - 1) * n
                for i in range(at, at + n):
                    key = self.c.walk_keys[i]
                    if alive(self.c.cpus[on].walk_gen, key):
                        found.append((int(self.c.walk_stamps[i]), (int(key & 7), int(key >> KEY_SHIFT))))
                out.append([entry for _, entry in sorted(found)])
            return out
        finally:
            self.leave()

    @property
    def nr_cpus(self):
        """CPUs that have TLBs here."""
        return int(self.c.g.nr_cpus)

    @property
    def nbytes(self):
        """Bytes of all arrays, as addressed."""
        return sum(a.nbytes for a in self.arrays().values()) - self.arrays()["blocks"].nbytes + self.blocks.nbytes

    # saving and copying

    def arrays(self):
        """The arrays by name (not copies); of `blocks` the part that can differ from zero."""
        return {
            "config": self.config, "parts": self.parts, "cpus": self.cpus, "stats": self.cpu_stats, "mm_gen": self.mm_gen,
            "keys": self.keys, "stamps": self.stamps, "full_at": self.full_at, "walk_keys": self.walk_keys, "walk_stamps": self.walk_stamps,
            "walk_full_at": self.walk_full_at, "table": self.table,
            "blocks": self.blocks[:2 << int(self.table["log"][0])] if len(self.blocks) else self.blocks,
        }

    @staticmethod
    def from_arrays(arrays):
        """A model with copies of what arrays() gave; ValueError on anything that it cannot have given."""
        cdef TlbModel model = TlbModel.__new__(TlbModel)
        if set(arrays) != set(ARRAYS):
            raise ValueError(f"the arrays of a TLB are {', '.join(ARRAYS)}; these are {', '.join(map(str, arrays))}")
        config = arrays["config"]
        if not isinstance(config, np.ndarray) or config.dtype != TLB_CONFIG_DTYPE or config.shape != (1,):
            raise ValueError("config must be one record of TLB_CONFIG_DTYPE")
        check_config(config[0])
        for name, (n, dtype) in shapes_of(config[0]).items():
            a = arrays[name]
            if not isinstance(a, np.ndarray) or a.dtype != dtype or a.shape != (n,):
                raise ValueError(f"{name} must be an array of {n} {dtype}")
        check_parts(config[0], arrays["parts"])
        check_contents(config[0], arrays)
        model.make(config, arrays["parts"])
        for name in shapes_of(config[0]).keys() - {"config", "parts"}:
            (model.cpu_stats if name == "stats" else getattr(model, name))[:] = arrays[name]
        if len(arrays["blocks"]):
            half = len(arrays["blocks"]) // 2
            model.blocks[half:2 * half] = arrays["blocks"][half:]
        return model

    def copy(self):
        """An independent model in the same state."""
        self.enter()
        try:
            return TlbModel.from_arrays(self.arrays())
        finally:
            self.leave()

    def assign(self, TlbModel other not None):
        """Take over the contents of `other`, which has the same configuration."""
        if not same(self.config, other.config) or not same(self.parts, other.parts):
            raise ValueError("the TLBs of the two are not alike")
        if other is self:
            return
        old = 1 << int(self.table["log"][0])
        if len(self.blocks):
            self.blocks[old:2 * old] = np.zeros((), TLB_BLOCK_DTYPE)
        theirs = other.arrays()
        for name, array in self.arrays().items():
            if name != "blocks":
                array[:] = theirs[name]
        if len(theirs["blocks"]):
            half = len(theirs["blocks"]) // 2
            self.blocks[half:2 * half] = theirs["blocks"][half:]

    def bind_to(self, State state not None):
        """Become the TLBs of a machine (State.attach)."""
        fits = {"nr_cpus": state.c.g.nr_cpus, "pt_levels": state.c.vm.levels, "pt_bits": state.c.vm.bits}
        for name, value in fits.items():
            if int(self.config[name][0]) != value:
                raise ValueError(f"the TLBs are made for {name} {self.config[name][0]}, the machine has {value}")
        if self.c.g.nr_mms <= state.c.vm.pools[<int>POOL_MMS].capacity:
            raise ValueError(f"the TLBs know {self.c.g.nr_mms - 1} address spaces, the machine has {state.c.vm.pools[<int>POOL_MMS].capacity}")
        state.c.vm.tlb = &self.c

    def same_bytes(self, TlbModel other not None):
        """Whether every array holds the same bytes."""
        mine, others = self.arrays(), other.arrays()
        return all(same(mine[name], others[name]) for name in ARRAYS)


cdef bint same(cnp.ndarray a, cnp.ndarray b):
    return cnp.PyArray_NBYTES(a) == cnp.PyArray_NBYTES(b) and memcmp(cnp.PyArray_DATA(a), cnp.PyArray_DATA(b), cnp.PyArray_NBYTES(a)) == 0


cdef cnp.ndarray checked(object array, object dtype, str name):
    if not isinstance(array, np.ndarray) or array.dtype != dtype or array.ndim != 1 or not array.flags.c_contiguous:
        raise TypeError(f"{name} must be a one-dimensional contiguous array of {np.dtype(dtype)}, not "
                        + (f"{array.ndim}-dimensional {array.dtype}" if isinstance(array, np.ndarray) else type(array).__name__))
    return array


cdef int check_config(object g) except -1:
    # A record that config_record() cannot have made would lead the core outside its arrays.
    limits = {
        "kind": (0, 2), "nr_cpus": (1, MAX_CPUS), "nr_parts": (0, TLB_MAX_PARTS), "nr_asids": (1, TLB_MAX_ASIDS), "walk_entries": (0, 1024),
        "pt_levels": (2, TLB_MAX_WALK_LEVELS + 1), "pt_bits": (9, 10), "flush_ceiling": (0, 1 << 20), "nr_mms": (2, (1 << 22) + 1),
        "min_log": (MIN_LOG, MIN_LOG) if g["kind"] == TLB_UNBOUNDED else (0, 0),
        "max_log": (MIN_LOG, MAX_LOG) if g["kind"] == TLB_UNBOUNDED else (0, 0),
    }
    for name, (low, high) in limits.items():
        as_int(g[name], name, low, high)
    return 0


cdef int check_parts(object g, object parts) except -1:
    first = 0
    for p in parts:
        for name, (low, high) in {"level": (1, 2), "sizes": (1, 7), "sets": (1, 1 << 20), "ways": (1, 1 << 20), "first": (first, first),
                                  "pieces": (0, 1)}.items():
            as_int(p[name], name, low, high)
        first += int(p["sets"]) * int(p["ways"])
    as_int(g["entries"], "entries", first, first)
    if first * int(g["nr_cpus"]) > MAX_ENTRIES:
        raise ValueError(f"{first} entries on {g['nr_cpus']} CPUs are too many (limit: {MAX_ENTRIES} in all)")
    return 0


cdef int check_contents(object g, object arrays) except -1:
    cpus, blocks, log = arrays["cpus"], arrays["blocks"], int(arrays["table"]["log"][0])
    for name, limit in (("slot", TLB_SLOTS - 1), ("next_asid", int(g["nr_asids"])), ("loaded_mm", int(g["nr_mms"]) - 1),
                        ("slot_mm", int(g["nr_mms"]) - 1), ("lazy", 1), ("sizes", 7), ("pieces", 1)):
        if cpus[name].max() > limit:
            raise ValueError(f"cpus.{name} is {cpus[name].max()}; it must lie in 0..{limit}")
    as_int(log, "table.log", int(g["min_log"]), int(g["max_log"]))
    n = 2 << log if g["kind"] == TLB_UNBOUNDED else 0
    if not isinstance(blocks, np.ndarray) or blocks.dtype != TLB_BLOCK_DTYPE or blocks.shape != (n,):
        raise ValueError(f"blocks must be an array of {n} blocks")
    if n:
        space = blocks["space"][n // 2:]
        used = int(np.count_nonzero(space))
        if used != int(arrays["table"]["used"][0]) or used * 2 > n // 2:
            raise ValueError(f"table.used is {arrays['table']['used'][0]}, {used} blocks are; at most {n // 4} may be")
        most = int((space >> np.uint64(3) & np.uint64(MAX_CPUS - 1)).max())
        if most >= int(g["nr_cpus"]):
            raise ValueError(f"a block belongs to CPU {most}; there are {g['nr_cpus']}")
    return 0
