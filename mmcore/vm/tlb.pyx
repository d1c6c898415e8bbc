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
from libc.stdint cimport uint32_t, uint64_t
from mmcore.phys.buddy cimport prefetch
from mmcore.vm.tlb_blocks cimport TlbBlock, find_block, hash_of, rebuild, space_of
from mmcore.vm.tlb_records cimport (
    E_DIRTY, E_FLAGS, E_PIECE, E_WRITABLE, GEN_MASK, KEY_SHIFT, STAMP_SHIFT, TLB_CLEAN, TLB_GLOBAL, TLB_L1, TLB_L2, TLB_MAX_WALK_LEVELS,
    TLB_MISS, TLB_OFF, TLB_SETS, TLB_SLOTS, TLB_UNBOUNDED, Tlb, TlbCpu, TlbPart, TlbStats, alive,
)

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
