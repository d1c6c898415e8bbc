"""Memory accesses: what a processor does with a page table, and a fault where that does not suffice.

Models: a walk of the hardware that sets accessed and dirty bits, and the fault it raises otherwise. Simplifies: one access is one page;
without TLBs every access walks. Omits: instruction fetches as such (they read), alignment.

A hit sets its bits and is done. Walks look ahead a group of accesses, so that their misses overlap; after a fault the rest of the group is
walked again, for tables may have changed.

With TLBs, only a miss walks, and so does a write through an entry that is not writable or not known to be dirty: an access that hits
sets no bits.
"""
import numpy as np

cimport numpy as cnp
from mmcore.alloc.kswapd cimport kswapd_check
from mmcore.base.args cimport as_int
from mmcore.base.costs cimport COST_ACCESS, COST_FD_ACCESS, COST_MINOR_FAULT, COST_ZERO_PAGE, cost_of
from mmcore.base.stat_items cimport VE_PGPGIN
from mmcore.base.state cimport State, state_lock, state_unlock
from mmcore.run.events cimport pass_time
from mmcore.sys.charge cimport handle_over_high
from mmcore.sys.fault cimport fault_row, handle_fault
from mmcore.base.vm_records cimport POOL_FILES
from mmcore.reclaim.lru cimport lru_add_drain
from mmcore.sys.filemap cimport filemap_read
from mmcore.sys.fault_codes cimport HIT, MAJOR, MINOR, OOM
from mmcore.vm.pgtable cimport PTE_ACCESSED, PTE_DIRTY, PTE_PRESENT, PTE_RW, WALK_GROUP, mm_alive, mm_at, walk_entry, walk_group
from mmcore.vm.tlb cimport TLB_L1, TLB_L2, Tlb, tlb_fill, tlb_flush_local, tlb_lookup, tlb_prefetch, tlb_walk

cnp.import_array()

cdef enum:
    AHEAD = 16
    READ_FLAG = 0x10


cdef inline void faulted(Mm* mm, int64_t n, unsigned cpu) noexcept nogil:
    # What follows n faults: the CPU was busy with them, and a kswapd that was woken gets it.
    pass_time(mm, n * (cost_of(mm, COST_MINOR_FAULT) + cost_of(mm, COST_ZERO_PAGE)))
    kswapd_check(mm, cpu)
    if mm.vm.cpus[cpu].over_high:
        handle_over_high(mm, cpu)


cdef int64_t row_length(const uint64_t* vpns, const uint8_t* writes, bint all_write, int64_t n) noexcept nogil:
    # How many accesses from the first on are writes to neighbouring pages, one behind the other.
    cdef int64_t k = 1
    while k < n and k < 512 and vpns[k] == vpns[0] + <uint64_t>k and (all_write or (writes != NULL and writes[k])):
        k += 1
    return k


cdef inline bint walk_and_fill(Mm* mm, Tlb* t, uint32_t as_, uint32_t root, uint64_t vpn, bint write, unsigned cpu, uint64_t** entry,
                               unsigned* level) noexcept nogil:
    # A walk that sets the bits and caches what it finds; False, and nothing done, if it ends in a fault.
    cdef uint64_t* e = walk_entry(mm, root, vpn, level)
    cdef uint64_t v = e[0], bits = PTE_PRESENT | PTE_RW if write else PTE_PRESENT
    entry[0] = e
    if v & bits != bits:
        return False
    bits = PTE_ACCESSED | PTE_DIRTY if write else PTE_ACCESSED
    if v & bits != bits:
        e[0] = v = v | bits
    tlb_fill(t, cpu, as_, vpn, 12 + level[0] * mm.vm.bits, v & PTE_RW != 0, v & PTE_DIRTY != 0)
    return True


cdef int64_t run_through_tlb(Mm* mm, Tlb* t, uint32_t as_, const uint64_t* vpns, const uint8_t* writes, bint all_write, int64_t n,
                             unsigned cpu, uint8_t* codes, AccessCounts* counts) noexcept nogil:
    # What run_accesses() does, by way of the TLBs.
    cdef uint32_t root = mm_at(mm, as_).root - 1
    cdef uint64_t limit = mm_at(mm, as_).task_size >> 12
    cdef uint64_t* e
    cdef unsigned level
    cdef int64_t i = 0, hits = 0, row, k
    cdef uint64_t reads
    cdef int found, r
    cdef bint write
    while i < n:
        if i + AHEAD < n:
            tlb_prefetch(t, cpu, as_, vpns[i + AHEAD])
        write = all_write or (writes != NULL and writes[i])
        r = HIT
        reads = mm.vm.g.events[VE_PGPGIN]
        if vpns[i] >= limit:
            r = handle_fault(mm, as_, vpns[i] << 12, write, cpu)
        else:
            found = tlb_lookup(t, cpu, as_, vpns[i], write)
            if found != TLB_L1 and found != TLB_L2 and not walk_and_fill(mm, t, as_, root, vpns[i], write, cpu, &e, &level):
                if write and e[0] == 0:
                    row = fault_row(mm, as_, vpns[i], row_length(vpns + i, writes, all_write, n - i), cpu)
                    if row:
                        # each of them missed, walked, faulted and walked again
                        for k in range(row):
                            if k:
                                tlb_lookup(t, cpu, as_, vpns[i + k], True)
                            tlb_walk(t, cpu, as_, vpns[i + k], 12)
                            walk_and_fill(mm, t, as_, root, vpns[i + k], True, cpu, &e, &level)
                            if codes != NULL:
                                codes[i + k] = MINOR
                        counts.result[MINOR] += row
                        i += row
                        faulted(mm, row, cpu)
                        continue
                tlb_walk(t, cpu, as_, vpns[i], 12 + level * mm.vm.bits)
                r = handle_fault(mm, as_, vpns[i] << 12, write, cpu)
                faulted(mm, 1, cpu)
                if r == MINOR or r == MAJOR:
                    walk_and_fill(mm, t, as_, root, vpns[i], write, cpu, &e, &level)
        if codes != NULL:
            codes[i] = <uint8_t>r
        i += 1
        if r == HIT:
            hits += 1
            continue
        if codes != NULL and mm.vm.g.events[VE_PGPGIN] != reads:
            codes[i - 1] |= counts.read_bit
        counts.result[r] += 1
        if r == OOM:
            break
    counts.result[HIT] += hits
    pass_time(mm, hits * cost_of(mm, COST_ACCESS))
    return i


cdef int64_t run_accesses(Mm* mm, uint32_t as_, const uint64_t* vpns, const uint8_t* writes, bint all_write, int64_t n, unsigned cpu,
                          uint8_t* codes, AccessCounts* counts) noexcept nogil:
    cdef uint32_t root = mm_at(mm, as_).root - 1
    cdef uint64_t* at[WALK_GROUP]
    cdef uint8_t levels[WALK_GROUP]
    cdef uint64_t* e
    cdef uint64_t v, bits, reads, nothing = 0
    cdef uint64_t limit = mm_at(mm, as_).task_size >> 12
    cdef unsigned level
    cdef int64_t i = 0, hits = 0, row
    cdef int k, m, r
    cdef bint stale, write
    if mm.vm.tlb != NULL:
        return run_through_tlb(mm, <Tlb*>mm.vm.tlb, as_, vpns, writes, all_write, n, cpu, codes, counts)
    while i < n:
        m = WALK_GROUP if n - i > WALK_GROUP else <int>(n - i)
        walk_group(mm, root, vpns + i, m, limit, &nothing, at, levels)
        stale = False
        k = 0
        while k < m:
            write = all_write or (writes != NULL and writes[i + k])
            e = at[k]
            if stale and vpns[i + k] < limit:
                e = walk_entry(mm, root, vpns[i + k], &level)
            v = e[0]
            bits = PTE_PRESENT | PTE_RW if write else PTE_PRESENT
            if v & bits == bits:
                bits = PTE_ACCESSED | PTE_DIRTY if write else PTE_ACCESSED
                if v & bits != bits:
                    e[0] = v | bits
                hits += 1
                if codes != NULL:
                    codes[i + k] = HIT
                k += 1
                continue
            if write and v == 0 and e != &nothing:
                row = row_length(vpns + i + k, writes, all_write, n - i - k)
                row = fault_row(mm, as_, vpns[i + k], row, cpu)
                if row:
                    counts.result[MINOR] += row
                    faulted(mm, row, cpu)
                    if codes != NULL:
                        for r in range(<int>row):
                            codes[i + k + r] = MINOR
                    stale = True
                    if k + row >= m:
                        # the row reached behind this group
                        i += k + row
                        break
                    k += <int>row
                    continue
            reads = mm.vm.g.events[VE_PGPGIN]
            r = handle_fault(mm, as_, vpns[i + k] << 12, write, cpu)
            faulted(mm, 1, cpu)
            stale = True
            counts.result[r] += 1
            if codes != NULL:
                codes[i + k] = <uint8_t>r
                if mm.vm.g.events[VE_PGPGIN] != reads:
                    codes[i + k] |= counts.read_bit
            k += 1
            if r == OOM:
                counts.result[HIT] += hits
                return i + k
        else:
            i += m
    counts.result[HIT] += hits
    pass_time(mm, hits * cost_of(mm, COST_ACCESS))
    return n


cdef void program_flush(Mm* mm, unsigned cpu) noexcept nogil:
    # What a recorded program does to empty its TLB: a locked private page becomes writable, which drains this CPU's LRU batches, too.
    if mm.vm.tlb != NULL:
        tlb_flush_local(<Tlb*>mm.vm.tlb, cpu)
    lru_add_drain(mm, cpu)


cdef int64_t run_with_flushes(Mm* mm, uint32_t as_, const uint64_t* vpns, const uint8_t* writes, bint all_write, int64_t n, unsigned cpu,
                              uint8_t* codes, AccessCounts* counts, int64_t flush, int64_t first) noexcept nogil:
    # As run_accesses(), with a flush behind every access whose number, counted from `first`, is a multiple of `flush`.
    cdef int64_t i = 0, end, done
    if flush == 0:
        return run_accesses(mm, as_, vpns, writes, all_write, n, cpu, codes, counts)
    while i < n:
        end = i + (flush - (first + i) % flush) % flush + 1
        done = run_accesses(mm, as_, vpns + i, writes + i if writes != NULL else NULL, all_write, (end if end < n else n) - i, cpu,
                            codes + i if codes != NULL else NULL, counts)
        i += done
        if counts.result[OOM]:
            return i
        if i == end:
            program_flush(mm, cpu)
    return n


READ_BIT = READ_FLAG
"""What `reads` adds to the code of an access during which pages came from a device, whoever needed them."""


def read_pages(State state not None, handle, file, indices, cpu=0, codes=None, flush=0, first=0, bint reads=False):
    """One read() of 4096 bytes for each page of `indices` (uint64) of a file, by the task of address space `handle` (0: none), in order.

    codes (uint8) receives 0 for a page that was there, 1 for one that had to be read, 6 when memory ran out (the last one then); a page
    beyond the end reads nothing (7). flush, first, reads: as in access(). Returns (done, pages that had to be read).
    """
    cdef cnp.ndarray v = checked(indices, np.uint64, "indices"), c
    cdef int64_t n = cnp.PyArray_SIZE(v), i, got, misses = 0, missed = 0
    cdef uint8_t* cp = NULL
    cdef const uint64_t* vp = <const uint64_t*>cnp.PyArray_DATA(v)
    cdef unsigned on = <unsigned>as_int(cpu, "cpu", 0, state.c.g.nr_cpus - 1)
    cdef int64_t every = as_int(flush, "flush", 0, 1 << 40), at = as_int(first, "first", 0, 1 << 60)
    cdef uint64_t came
    cdef uint32_t x
    if codes is not None:
        c = checked(codes, np.uint8, "codes")
        if cnp.PyArray_SIZE(c) != n or not (<object>c).flags.writeable:
            raise ValueError(f"codes must be a writeable array of {n} elements")
        cp = <uint8_t*>cnp.PyArray_DATA(c)
    state_lock(state)
    try:
        if isinstance(handle, bool) or not isinstance(handle, int) or handle < 0 or (handle and not mm_alive(&state.c, handle)):
            raise KeyError(f"no address space {handle!r} (it has exited, or never was)")
        if isinstance(file, bool) or not isinstance(file, int) or not 1 <= file <= state.c.vm.pools[<int>POOL_FILES].used:
            raise KeyError(f"no file {file!r}")
        x = file
        if state.c.vm.files[x - 1].id == 0:
            raise KeyError(f"no file {file!r}: it was closed")
        state.c.vm.cpus[on].memcg = mm_at(&state.c, handle).memcg if handle else 0
        with nogil:
            i = 0
            while i < n:
                came = state.c.vm.g.events[VE_PGPGIN]
                got = filemap_read(&state.c, x, vp[i] << 12 if vp[i] < <uint64_t>1 << 51 else <uint64_t>1 << 63, 4096, on, &misses)
                missed += misses
                if cp != NULL:
                    cp[i] = OOM if got < 0 else 7 if got == 0 else <uint8_t>(misses != 0)
                    if reads and state.c.vm.g.events[VE_PGPGIN] != came:
                        cp[i] |= <uint8_t>READ_FLAG
                i += 1
                if got < 0:
                    break
                pass_time(&state.c, cost_of(&state.c, COST_FD_ACCESS))
                if misses:
                    kswapd_check(&state.c, on)
                    if state.c.vm.cpus[on].over_high:
                        handle_over_high(&state.c, on)
                if every and (at + i - 1) % every == 0:
                    program_flush(&state.c, on)
    finally:
        state_unlock(state)
    return i, missed


def access(State state not None, handle, vpns, writes=None, cpu=0, codes=None, flush=0, first=0, bint reads=False):
    """Access pages `vpns` (uint64 array of page numbers, address >> 12) of address space `handle`, in order, on behalf of `cpu`.

    flush: the program empties the CPU's TLB, and with it the LRU batches, behind every access whose number, counted from `first`, is a
    multiple of it (0: never). reads: codes of accesses during which pages came from a device carry READ_BIT, too: a minor fault that
    meets the mark of read-ahead reads.

    writes: None or False (all read), True (all write), or a uint8/bool array; codes: an array of uint8 that receives a
    mmcore.sys.fault.Fault for each. Returns (done, counts): how many were made (fewer only when memory ran out: the last one then
    has the code OOM) and an int64 array of results by Fault. An access outside every mapping is a result, not an error.
    """
    cdef cnp.ndarray v = checked(vpns, np.uint64, "vpns"), w, c
    cdef int64_t n = cnp.PyArray_SIZE(v), done
    cdef const uint8_t* wp = NULL
    cdef uint8_t* cp = NULL
    cdef bint all_write = False
    cdef unsigned on = <unsigned>as_int(cpu, "cpu", 0, state.c.g.nr_cpus - 1)
    cdef int64_t every = as_int(flush, "flush", 0, 1 << 40), at = as_int(first, "first", 0, 1 << 60)
    cdef AccessCounts counts
    cdef uint32_t as_
    cdef const uint64_t* vp = <const uint64_t*>cnp.PyArray_DATA(v)
    if writes is None or isinstance(writes, (bool, np.bool_)):
        all_write = bool(writes)
    else:
        w = checked(writes.view(np.uint8) if getattr(writes, "dtype", None) == np.bool_ else writes, np.uint8, "writes")
        if cnp.PyArray_SIZE(w) != n:
            raise ValueError(f"writes has {cnp.PyArray_SIZE(w)} elements for {n} accesses")
        wp = <const uint8_t*>cnp.PyArray_DATA(w)
    if codes is not None:
        c = checked(codes, np.uint8, "codes")
        if cnp.PyArray_SIZE(c) != n or not (<object>c).flags.writeable:
            raise ValueError(f"codes must be a writeable array of {n} elements")
        cp = <uint8_t*>cnp.PyArray_DATA(c)
        for name, other in (("vpns", vpns), ("writes", writes), *(("the machine's " + k, a) for k, a in state.arrays().items())):
            if isinstance(other, np.ndarray) and np.may_share_memory(codes, other):
                raise ValueError(f"codes shares memory with {name}")
    for r in range(8):
        counts.result[r] = 0
    counts.read_bit = READ_FLAG if reads else 0
    state_lock(state)
    try:
        if isinstance(handle, bool) or not isinstance(handle, int) or handle < 0 or not mm_alive(&state.c, handle):
            raise KeyError(f"no address space {handle!r} (it has exited, or never was)")
        as_ = handle
        with nogil:
            done = run_with_flushes(&state.c, as_, vp, wp, all_write, n, on, cp, &counts, every, at)
    finally:
        state_unlock(state)
    out = np.empty(8, np.int64)
    for r in range(8):
        out[r] = counts.result[r]
    return done, out


cdef cnp.ndarray checked(object array, object dtype, str name):
    if not isinstance(array, np.ndarray) or array.dtype != dtype or array.ndim != 1 or not array.flags.c_contiguous:
        raise TypeError(f"{name} must be a one-dimensional contiguous array of {np.dtype(dtype)}, not "
                        + (f"{array.ndim}-dimensional {array.dtype}" if isinstance(array, np.ndarray) else type(array).__name__))
    return array
