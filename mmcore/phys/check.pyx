"""Recount of a machine's physical memory from scratch.

Models: nothing; it is the judge of what boot, buddy, migratetype, pcp and page_alloc keep incrementally. Every link is tested before it
is followed, so that a damaged snapshot is refused and not walked into. Cost: proportional to memory that was touched, plus one byte a
page frame.
"""
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memset

import numpy as np

cimport numpy as cnp
from mmcore.base.flags cimport PG_ORDER_MASK, PG_ORDER_SHIFT, PG_allocated, PG_buddy, PG_head, PG_hwpoison, PG_meta, PG_pcp
from mmcore.base.records cimport page_at, meta_at
from mmcore.base.records cimport (
    HEADS_PER_ZONE, MAX_PAGE_ORDER, MIGRATE_ISOLATE, MIGRATE_MOVABLE, MIGRATE_PCPTYPES, MIGRATE_TYPES, Mm, NO_ZID, NR_FREE_PAGES,
    NR_PAGE_ORDERS, NR_PCP_LISTS, PageMeta, Pcp, Zone,
)
from mmcore.base.state cimport State, state_lock, state_unlock
from mmcore.phys.buddy cimport free_list_head, pageblock_mt, zone_of
from mmcore.base.errors import ValidationError

cnp.import_array()

cdef enum:
    OK = 0
    BAD_LINK = 1
    BAD_FLAGS = 2
    BAD_ALIGN = 3
    BAD_ZONE = 4
    BAD_TYPE = 5
    OVERLAP = 6
    BAD_BACKLINK = 7
    UNMERGED = 8
    NOT_CLOSED = 9
    STRAY = 10
    BAD_META = 11

_TEXT = {
    BAD_LINK: "a link leads outside the machine",
    BAD_FLAGS: "flags are not those of a block on this list",
    BAD_ALIGN: "block is not aligned to its order",
    BAD_ZONE: "block does not lie in the list's zone",
    BAD_TYPE: "the pageblock's migratetype is not that of the list",
    OVERLAP: "page frames are counted twice",
    BAD_BACKLINK: "links forth and back disagree",
    UNMERGED: "two free buddies stand side by side unmerged",
    NOT_CLOSED: "list is longer than the machine",
    BAD_META: "the mark of a cold record and the record disagree",
    STRAY: "a page on no list and not allocated is not clean",
}


cdef inline bint meta_clear(Mm* mm, uint32_t pfn) noexcept nogil:
    cdef PageMeta* m = meta_at(mm, pfn)
    return m.mapcount == 0 and m.index_lo == 0 and m.index_hi == 0 and m.extra_refs == 0


cdef struct Walk:
    uint64_t blocks
    uint64_t pages
    uint32_t where
    int bad


cdef bint claim_pages(uint8_t* seen, uint32_t pfn, uint32_t n) noexcept nogil:
    cdef uint32_t i
    for i in range(n):
        if seen[pfn + i]:
            return False
    memset(seen + pfn, 1, n)
    return True


cdef void walk_list(Mm* mm, Zone* z, uint32_t zi, uint32_t head, uint32_t want, unsigned order, int mt, uint8_t* seen, Walk* w) noexcept nogil:
    # Follows one list, testing every step; mt < 0: a per-CPU list, whose blocks may be of any type.
    cdef uint32_t x, prev = head, pfn, total = mm.g.nr_pages, r, n = <uint32_t>1 << order
    cdef uint64_t steps = 0
    w.blocks = w.pages = 0
    w.bad = OK
    w.where = head
    x = mm.link[head].next
    while x != head:
        w.where = x - 1
        if steps > total:
            w.bad = NOT_CLOSED
            return
        steps += 1
        if x == z.lazy_head and mt == MIGRATE_MOVABLE and order == MAX_PAGE_ORDER and z.lazy_left:
            if mm.link[x].prev != prev:
                w.bad = BAD_BACKLINK
                return
            pfn = z.lazy_pfn
            for r in range(z.lazy_range, z.lazy_range_end):
                while pfn < mm.lazy[r].end:
                    if not claim_pages(seen, pfn, n):
                        w.where = pfn
                        w.bad = OVERLAP
                        return
                    w.blocks += 1
                    pfn += n
                if r + 1 < z.lazy_range_end:
                    pfn = mm.lazy[r + 1].start
            prev = x
            x = mm.link[x].next
            continue
        if x == 0 or x > total:
            w.bad = BAD_LINK
            return
        pfn = x - 1
        if mm.link[x].prev != prev:
            w.bad = BAD_BACKLINK
        elif page_at(mm, pfn).flags != want:
            w.bad = BAD_FLAGS
        elif pfn & (n - 1) or pfn + n > total:
            w.bad = BAD_ALIGN
        elif zone_of(mm, pfn) != zi + 1 or zone_of(mm, pfn + n - 1) != zi + 1:
            w.bad = BAD_ZONE
        elif mt >= 0 and pageblock_mt(mm, pfn) != <unsigned>mt:
            w.bad = BAD_TYPE
        elif not meta_clear(mm, pfn) or page_at(mm, pfn).private_:
            w.bad = BAD_FLAGS
        elif not claim_pages(seen, pfn, n):
            w.bad = OVERLAP
        elif mt >= 0 and order < MAX_PAGE_ORDER and page_at(mm, pfn ^ n).flags == want and zone_of(mm, pfn ^ n) == zi + 1 and (
                order < 9 or pageblock_mt(mm, pfn ^ n) == <unsigned>mt or (mt < MIGRATE_PCPTYPES and pageblock_mt(mm, pfn ^ n) < MIGRATE_PCPTYPES)):
            w.bad = UNMERGED
        if w.bad:
            return
        w.blocks += 1
        prev = x
        x = mm.link[x].next
    if mm.link[head].prev != prev:
        w.bad = BAD_BACKLINK
    w.pages = w.blocks << order


cdef int64_t scan_pages(Mm* mm, uint8_t* seen, uint64_t* allocated, uint64_t* heads, uint32_t* where) noexcept nogil:
    # Every record that is not all zero is an allocated block, a list member counted before, or wrong.
    cdef uint32_t pfn = 0, n, total = mm.g.nr_pages, i
    cdef unsigned order
    cdef uint64_t* words = <uint64_t*>mm.pages
    cdef uint32_t flags
    allocated[0] = heads[0] = 0
    while pfn < total:
        if words[2 * <size_t>pfn] == 0 and words[2 * <size_t>pfn + 1] == 0 and meta_clear(mm, pfn):
            pfn += 1
            continue
        where[0] = pfn
        flags = page_at(mm, pfn).flags
        if flags & (PG_buddy | PG_pcp):
            if not seen[pfn]:
                return STRAY
            heads[0] += 1
            pfn += 1
            continue
        if not flags & PG_allocated:
            if flags == PG_hwpoison and words[2 * <size_t>pfn] == 0 and not seen[pfn]:
                pfn += 1
                continue
            return STRAY
        if meta_clear(mm, pfn) == (flags & PG_meta != 0):
            return BAD_META
        order = flags >> PG_ORDER_SHIFT & PG_ORDER_MASK
        n = <uint32_t>1 << order
        if order > MAX_PAGE_ORDER or pfn & (n - 1) or pfn + n > total:
            return BAD_ALIGN
        if zone_of(mm, pfn) == 0:
            return BAD_ZONE
        if not claim_pages(seen, pfn, n):
            return OVERLAP
        for i in range(1, n):
            if not flags & PG_head and (words[2 * <size_t>(pfn + i)] or words[2 * <size_t>(pfn + i) + 1] or not meta_clear(mm, pfn + i)):
                where[0] = pfn + i
                return STRAY
        allocated[0] += n
        pfn += n
    return OK


def _fail(str what, *where):
    raise ValidationError(f"{what} ({', '.join(str(w) for w in where)})" if where else what)


def _fail_walk(int bad, uint32_t where, str name):
    raise ValidationError(f"{name}: {_TEXT[bad]} at pfn {where:#x}")


cdef int check_frame(State s) except -1:
    # The parts that everything else trusts: head positions, node and zone numbers, tables.
    cdef Mm* mm = &s.c
    cdef uint32_t zi, cpu, first = <uint32_t>s.first_head, i
    cdef Zone* z
    cdef Pcp* pcp
    types = mm.g.nr_zone_types
    present_of = np.zeros(mm.g.nr_zones, np.uint64)
    last = 0
    for i in range(mm.g.nr_present):
        start, end, zone = int(mm.present[i].start), int(mm.present[i].end), int(mm.present[i].zone)
        if not last <= start < end <= mm.g.nr_pages or zone >= mm.g.nr_zones:
            _fail(f"range of memory {i} is not sorted, empty or outside the machine", hex(start), hex(end), zone)
        last = end
        present_of[zone] += end - start
        z = &mm.zones[zone]
        if start < z.start_pfn or end > z.start_pfn + z.spanned:
            _fail(f"range of memory {i} lies outside zone index {zone}", hex(start), hex(end))
    for zi in range(mm.g.nr_zones):
        z = &mm.zones[zi]
        name = f"zone index {zi}"
        if z.node != zi // types or z.zid != zi % types:
            _fail(f"{name} says node {z.node}, type {z.zid}")
        if z.start_pfn + z.spanned > mm.g.nr_pages or z.present > z.spanned or z.managed > z.present or z.present != present_of[zi]:
            _fail(f"{name}: start {z.start_pfn:#x}, spanned {z.spanned}, present {z.present}, managed {z.managed} do not fit each other")
        if z.free_head != first + zi * HEADS_PER_ZONE + 1 or z.lazy_head != z.free_head + NR_PAGE_ORDERS * MIGRATE_TYPES:
            _fail(f"{name}: list heads are not where they belong")
        if z.lazy_left:
            if z.lazy_range >= z.lazy_range_end or z.lazy_range_end > len(s.lazy):
                _fail(f"{name}: ranges of untouched blocks lie outside their table")
            left, at = 0, z.lazy_pfn
            for i in range(z.lazy_range, z.lazy_range_end):
                end = int(mm.lazy[i].end)
                if at & 1023 or end & 1023 or at >= end or end > z.start_pfn + z.spanned or at < z.start_pfn:
                    _fail(f"{name}: range of untouched blocks {at:#x}..{end:#x} is impossible")
                if zone_of(mm, <uint32_t>at) != zi + 1 or zone_of(mm, <uint32_t>end - 1) != zi + 1:
                    _fail(f"{name}: range of untouched blocks {at:#x}..{end:#x} belongs to another zone")
                left += (end - at) >> 10
                if i + 1 < z.lazy_range_end:
                    at = int(mm.lazy[i + 1].start)
            if left != z.lazy_left:
                _fail(f"{name}: {z.lazy_left} untouched blocks are claimed, {left} found")
        for cpu in range(mm.g.nr_cpus):
            pcp = &mm.pcps[zi * mm.g.nr_cpus + cpu]
            if pcp.list_head != first + mm.g.nr_zones * HEADS_PER_ZONE + (zi * mm.g.nr_cpus + cpu) * NR_PCP_LISTS + 1:
                _fail(f"{name}, CPU {cpu}: list heads are not where they belong")
            if z.present and (pcp.batch < 1 or pcp.batch > 1 << 20 or pcp.high_min < 0 or pcp.high_max < 0 or pcp.alloc_factor > 5
                              or pcp.count < 0 or pcp.free_count < 0 or pcp.free_factor > 24):
                _fail(f"{name}, CPU {cpu}: per-CPU sizes are impossible", pcp.count, pcp.batch, pcp.high_min, pcp.high_max, pcp.alloc_factor)
    blocks = s.pageblocks
    if (blocks["mt"] ^ MIGRATE_MOVABLE).max(initial=0) >= MIGRATE_TYPES or blocks["zone"].max(initial=0) > mm.g.nr_zones:
        _fail("a pageblock has an unknown migratetype or zone")
    lists = s.zonelists
    if lists.max(initial=0) > mm.g.nr_zones or lists[:, :, mm.g.zl_stride - 1].any():
        _fail("a zonelist names an unknown zone or has no end")
    if len(s.cpu_node) and s.cpu_node.max() >= mm.g.nr_nodes:
        _fail("a CPU belongs to an unknown node")
    table = s.globals["gfp_zone"][0]
    if any(x != 255 and x >= types for x in table.tolist()):
        _fail("the table of GFP zones names an unknown zone")
    if mm.g.zid_normal >= types or mm.g.zid_movable >= types or mm.g.zid_dma >= types:
        _fail("the machine lacks a zone type that every machine has")
    if not 0 <= mm.g.now_ns <= <int64_t>1 << 62:
        _fail(f"time is {mm.g.now_ns} ns")
    if mm.g.thp_enabled > 3 or mm.g.kernel > 1 or (mm.g.zid_highmem != NO_ZID and mm.g.zid_highmem >= types):
        _fail("a setting is impossible", mm.g.thp_enabled, mm.g.kernel, mm.g.zid_highmem)
    if any(not 0 <= x <= 0x7fffffff for x in s.globals["lowmem_reserve_ratio"][0].tolist()):
        _fail("a protection ratio is impossible")
    return 0


def validate(State s not None):
    """Recount everything; ValidationError names the first thing that is wrong.

    Returns a dict of what was counted: pages free, on per-CPU lists, allocated, and in use since before our time (reserved at boot, or
    named by no record), by zone index.
    """
    cdef Mm* mm = &s.c
    cdef cnp.ndarray seen_array
    cdef uint8_t* seen
    cdef Walk w
    cdef uint32_t zi, cpu, where = 0
    cdef unsigned order, mt, i
    cdef Zone* z
    cdef Pcp* pcp
    cdef int64_t free_pages, drift, rc
    cdef uint64_t allocated, heads, listed = 0
    seen_array = np.zeros((mm.g.nr_pages + 2047) // 1024 * 1024, np.uint8)
    seen = <uint8_t*>cnp.PyArray_DATA(seen_array)
    state_lock(s)
    try:
        check_frame(s)
        per_zone = []
        for zi in range(mm.g.nr_zones):
            z = &mm.zones[zi]
            if not z.present:
                if z.order_mask[0] or z.order_mask[1] or z.order_mask[2] or z.order_mask[3] or z.order_mask[4]:
                    _fail(f"zone index {zi} is empty and has free lists")
                per_zone.append((0, 0))
                continue
            free_pages = 0
            high_atomic = 0
            for order in range(NR_PAGE_ORDERS):
                blocks = 0
                for mt in range(MIGRATE_TYPES):
                    name = f"zone index {zi}, free list of order {order}, type {mt}"
                    walk_list(mm, z, zi, free_list_head(z, order, mt), PG_buddy | (order << PG_ORDER_SHIFT), order, <int>mt, seen, &w)
                    if w.bad:
                        _fail_walk(w.bad, w.where, name)
                    if bool(w.blocks) != bool(z.order_mask[mt] >> order & 1):
                        _fail(f"{name}: {w.blocks} blocks, but its bit in the mask says {z.order_mask[mt] >> order & 1}")
                    blocks += w.blocks
                    if mt != MIGRATE_ISOLATE:
                        free_pages += <int64_t>w.pages
                    if mt == 3:
                        high_atomic += w.pages
                if blocks != z.nr_free[order]:
                    _fail(f"zone index {zi}, order {order}: nr_free is {z.nr_free[order]}, {blocks} blocks are on the lists")
                listed += <uint64_t>blocks
            listed -= z.lazy_left
            if high_atomic != z.nr_free_highatomic:
                _fail(f"zone index {zi}: nr_free_highatomic is {z.nr_free_highatomic}, {high_atomic} pages are on the lists")
            drift = z.vm_stat[NR_FREE_PAGES]
            on_pcp = 0
            for cpu in range(mm.g.nr_cpus):
                pcp = &mm.pcps[zi * mm.g.nr_cpus + cpu]
                drift += pcp.vm_diff[NR_FREE_PAGES]
                count = 0
                for i in range(NR_PCP_LISTS):
                    order = i // 3 if i < 12 else 9
                    walk_list(mm, z, zi, pcp.list_head + i, PG_pcp | (order << PG_ORDER_SHIFT), order, -1, seen, &w)
                    if w.bad:
                        _fail_walk(w.bad, w.where, f"zone index {zi}, per-CPU list {i} of CPU {cpu}")
                    count += w.pages
                    listed += w.blocks
                if count != pcp.count:
                    _fail(f"zone index {zi}, CPU {cpu}: count is {pcp.count}, {count} pages are on the per-CPU lists")
                on_pcp += count
            if drift != free_pages:
                _fail(f"zone index {zi}: NR_FREE_PAGES with its differentials is {drift}, {free_pages} pages are on the lists")
            if free_pages + on_pcp > z.managed:
                _fail(f"zone index {zi}: {free_pages + on_pcp} pages are free, {z.managed} are managed")
            per_zone.append((free_pages, on_pcp))
        rc = scan_pages(mm, seen, &allocated, &heads, &where)
        if rc:
            _fail_walk(<int>rc, where, "mem_map")
        if heads != listed:
            _fail(f"{heads} pages are marked as heads of free blocks, {listed} are on lists")
        free_total = sum(p[0] for p in per_zone)
        pcp_total = sum(p[1] for p in per_zone)
        managed = int(s.zones["managed"].sum())
        before = int(s.zones["nr_before"].sum(dtype=np.uint64))
        if free_total + pcp_total + allocated + before > managed:
            _fail(f"{free_total} free + {pcp_total} on per-CPU lists + {allocated} allocated + {before} pages from before our time exceed "
                  f"{managed} managed ones")
    finally:
        state_unlock(s)
    return {"free": free_total, "pcp": pcp_total, "allocated": int(allocated), "other": managed - free_total - pcp_total - int(allocated),
            "zones": per_zone}
