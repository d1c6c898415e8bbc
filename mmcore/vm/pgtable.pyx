"""Page tables: walks for one address and for many, and what they tell a user.

Models: pgd/p4d/pud/pmd/pte with 2 to 5 levels (x86-64, i386 with and without PAE, arm64 with 4 KiB pages), present, writable, user,
accessed, dirty, large-page, special, PROT_NONE and no-execute bits, swap-style entries; /proc/PID/pagemap (fs/proc/task_mmu.c).
Simplifies: entries are kept in the x86-64 form for every architecture; `native_entry` gives the others'. Omits: page attributes,
protection keys, the kernel's half of the address space.

Nothing here allocates: sys/tables hands tables in and takes them back.
"""
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

import numpy as np

cimport numpy as cnp
from mmcore.base.flags cimport PG_anon, PG_file
from mmcore.base.records cimport Mm, page_at
from mmcore.base.state cimport State, state_lock, state_unlock
from mmcore.base.vm_records cimport POOL_SWAP_AREAS
from mmcore.phys.buddy cimport prefetch

cnp.import_array()

cdef enum:
    MAX_PAGES_OUT = 1 << 30
    LEAF = 8
    READ = 32
    RING = 64               # a power of two above LEAF + READ


cdef void walk_group(Mm* mm, uint32_t root, const uint64_t* vpns, int n, uint64_t limit, uint64_t* nothing, uint64_t** at,
                     uint8_t* levels) noexcept nogil:
    cdef uint64_t* tables = mm.vm.tables
    cdef uint64_t mask = mm.vm.mask, v, vpn, last = ~<uint64_t>0
    cdef unsigned bits = mm.vm.bits, top = mm.vm.levels - 1, level, shift, to_word = 12 - bits, top_shift = top * bits
    cdef int k
    cdef uint64_t* first = tables + (<uint64_t>root << bits)
    cdef uint64_t* below = NULL
    cdef uint64_t* e
    for k in range(n):
        vpn = vpns[k]
        if vpn >> top_shift != last or top == 1:
            # another part of the address space than the page before
            e = first + ((vpn >> top_shift) & mask) if vpn < limit else nothing
            v = e[0]
            if top == 1 or not pte_is_table(v):
                at[k] = e
                levels[k] = <uint8_t>top
                continue
            last = vpn >> top_shift
            below = tables + ((v & PTE_FRAME_MASK) >> to_word)
        level = top - 1
        shift = top_shift - bits
        e = below + ((vpn >> shift) & mask)
        while level > 1:
            v = e[0]
            if not pte_is_table(v):
                break
            level -= 1
            shift -= bits
            e = tables + ((v & PTE_FRAME_MASK) >> to_word) + ((vpn >> shift) & mask)
        prefetch(e)
        at[k] = e
        levels[k] = <uint8_t>level
    for k in range(n):
        e = at[k]
        v = e[0]
        if levels[k] == 1 and pte_is_table(v):
            e = tables + ((v & PTE_FRAME_MASK) >> to_word) + (vpns[k] & mask)
            prefetch(e)
            at[k] = e
            levels[k] = 0


cdef void walk_many(Mm* mm, uint32_t root, const uint64_t* vpns, int64_t n, uint64_t* entries, uint8_t* levels) noexcept nogil:
    # Three steps of three different pages at a time, so that memory is asked for at an even pace: the upper levels of page i, the last
    # table of the page LEAF behind it, the entry of the page READ behind that one. Each step's miss is under way when its turn comes.
    cdef uint64_t* at[RING]
    cdef uint64_t nothing = 0
    cdef uint64_t* tables = mm.vm.tables
    cdef uint64_t mask = mm.vm.mask, v, vpn, last = ~<uint64_t>0
    cdef unsigned bits = mm.vm.bits, top = mm.vm.levels - 1, level, shift, to_word = 12 - bits, top_shift = top * bits
    cdef uint64_t limit = <uint64_t>1 << (mm.vm.levels * bits)
    cdef uint64_t* first = tables + (<uint64_t>root << bits)
    cdef uint64_t* below = NULL
    cdef uint64_t* e = &nothing
    cdef int64_t i, k
    for i in range(n + LEAF + READ):
        if i < n:
            vpn = vpns[i]
            if vpn >> top_shift == last:
                v = PTE_PRESENT     # the same part of the address space as the page before: `below` is its table
            else:
                e = first + ((vpn >> top_shift) & mask) if vpn < limit else &nothing
                v = e[0]
                if top != 1 and pte_is_table(v):
                    last = vpn >> top_shift
                    below = tables + ((v & PTE_FRAME_MASK) >> to_word)
            level = top
            if top != 1 and pte_is_table(v):
                level -= 1
                shift = top_shift - bits
                e = below + ((vpn >> shift) & mask)
                while level > 1:
                    v = e[0]
                    if not pte_is_table(v):
                        break
                    level -= 1
                    shift -= bits
                    e = tables + ((v & PTE_FRAME_MASK) >> to_word) + ((vpn >> shift) & mask)
                prefetch(e)
            at[i & (RING - 1)] = e
            levels[i] = <uint8_t>level
        k = i - LEAF
        if 0 <= k < n and levels[k] == 1:
            e = at[k & (RING - 1)]
            v = e[0]
            if pte_is_table(v):
                e = tables + ((v & PTE_FRAME_MASK) >> to_word) + (vpns[k] & mask)
                prefetch(e)
                at[k & (RING - 1)] = e
                levels[k] = 0
        k -= READ
        if k >= 0:
            entries[k] = at[k & (RING - 1)][0]


cdef uint32_t root_of(State s, handle) except? 0:
    if isinstance(handle, bool) or not isinstance(handle, int) or handle < 0 or not mm_alive(&s.c, handle):
        raise KeyError(f"no address space {handle!r} (it has exited, or never was)")
    return s.c.vm.mms[<uint32_t>handle - 1].root - 1


def walk(State s not None, handle, vaddrs):
    """Translate addresses (uint64 array) through the tables of address space `handle`.

    Returns (pfns, levels, entries): page frames (int64, -1 where nothing is mapped), the level of the entry that decided (uint8: 0 PTE,
    1 PMD, ...) and that entry (uint64, x86-64 form; 0: empty). No faults are taken and no bit is set.
    """
    cdef cnp.ndarray v = np.ascontiguousarray(vaddrs, np.uint64).reshape(-1) >> np.uint64(12)
    cdef int64_t n = cnp.PyArray_SIZE(v), i
    cdef cnp.ndarray pfns = np.empty(n, np.int64), levels = np.empty(n, np.uint8), entries = np.empty(n, np.uint64)
    cdef const uint64_t* vp = <const uint64_t*>cnp.PyArray_DATA(v)
    cdef uint64_t* ep = <uint64_t*>cnp.PyArray_DATA(entries)
    cdef uint8_t* lp = <uint8_t*>cnp.PyArray_DATA(levels)
    cdef int64_t* pp = <int64_t*>cnp.PyArray_DATA(pfns)
    cdef uint32_t root
    state_lock(s)
    try:
        root = root_of(s, handle)
        with nogil:
            walk_many(&s.c, root, vp, n, ep, lp)
            for i in range(n):
                pp[i] = -1
                if pte_mapped(ep[i]):
                    pp[i] = <int64_t>(pte_frame(ep[i]) + (vp[i] & ((<uint64_t>1 << (lp[i] * s.c.vm.bits)) - 1)))
    finally:
        state_unlock(s)
    return pfns, levels, entries


cdef int64_t copy_entries(Mm* mm, uint32_t root, uint64_t vpn, int64_t n, uint64_t* out) noexcept nogil:
    # Leaf entries of n pages from vpn on; a huge one is repeated for each page with that page's frame.
    cdef uint64_t end = vpn + <uint64_t>n, next_, e, limit = <uint64_t>1 << (mm.vm.levels * mm.vm.bits)
    cdef uint64_t* at
    cdef unsigned level
    cdef int64_t used = 0
    while vpn < end:
        if vpn >= limit:
            out[0] = 0
            out += 1
            vpn += 1
            continue
        at = walk_entry(mm, root, vpn, &level)
        next_ = (vpn | ((<uint64_t>1 << ((level if level else 1) * mm.vm.bits)) - 1)) + 1
        if next_ > end:
            next_ = end
        if level == 0:
            while vpn < next_:
                out[0] = at[0]
                used += at[0] != 0
                out += 1
                at += 1
                vpn += 1
            continue
        e = at[0]
        while vpn < next_:
            out[0] = 0
            if pte_mapped(e):
                out[0] = e + ((vpn & ((<uint64_t>1 << (level * mm.vm.bits)) - 1)) << 12)
                used += 1
            out += 1
            vpn += 1
    return used


def ptes(State s not None, handle, start_vpn, nr_pages):
    """Leaf entries (uint64, x86-64 form) of nr_pages pages from page start_vpn on; huge mappings appear once for each of their pages."""
    cdef cnp.ndarray out
    cdef uint64_t* p
    cdef uint64_t first
    cdef int64_t n
    cdef uint32_t root
    if not 0 <= start_vpn < 2**52 or not 0 <= nr_pages <= MAX_PAGES_OUT:
        raise ValueError(f"pages {start_vpn:#x} to {start_vpn + nr_pages:#x}: at most {MAX_PAGES_OUT} below {2**52:#x} at a time")
    first, n = start_vpn, nr_pages
    out = np.empty(n, np.uint64)
    p = <uint64_t*>cnp.PyArray_DATA(out)
    state_lock(s)
    try:
        root = root_of(s, handle)
        with nogil:
            copy_entries(&s.c, root, first, n, p)
    finally:
        state_unlock(s)
    return out


def pagemap(State s not None, handle, start_vpn, nr_pages):
    """What /proc/PID/pagemap holds for nr_pages pages from page start_vpn on, array of uint64: bit 63 present, 62 swapped, 61 file page
    or shared memory, 56 mapped by this address space alone, 55 soft-dirty, below them the page frame (or swap type and offset)."""
    cdef cnp.ndarray out = ptes(s, handle, start_vpn, nr_pages)
    cdef uint64_t* p = <uint64_t*>cnp.PyArray_DATA(out)
    cdef int64_t i, n = cnp.PyArray_SIZE(out)
    cdef uint64_t e, r, pfn, offset
    cdef uint32_t flags, k
    state_lock(s)
    with nogil:
        for i in range(n):
            e = p[i]
            r = 0
            if e & PTE_SOFT_DIRTY:
                r |= <uint64_t>1 << 55
            if pte_mapped(e):
                pfn = pte_frame(e)
                r |= <uint64_t>1 << 63 | pfn
                if not e & PTE_SPECIAL and pfn < s.c.g.nr_pages:
                    flags = page_at(&s.c, <uint32_t>pfn).flags
                    if flags & (PG_anon | PG_file) == PG_file:
                        r |= <uint64_t>1 << 61
                    if s.c.meta[pfn].mapcount <= 1:
                        r |= <uint64_t>1 << 56
            elif e:
                r |= <uint64_t>1 << 62
                for k in range(s.c.vm.pools[POOL_SWAP_AREAS].used):
                    offset = (e >> 12) - 1 - s.c.vm.swap_areas[k].first_slot
                    if offset < s.c.vm.swap_areas[k].max:
                        r |= k | offset << 5
            p[i] = r
    state_unlock(s)
    return out


def tables_of(State s not None, handle):
    """The page-table pages of an address space: structured array (level, base: first virtual page, pfn: its page frame, nr_used)."""
    info = s.get("table_info")
    if not mm_alive(&s.c, handle):
        raise KeyError(f"no address space {handle!r} (it has exited, or never was)")
    return info[info["mm"] == handle][["level", "base", "pfn", "nr_used"]].copy()
