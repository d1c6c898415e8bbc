"""Recount of virtual memory from scratch.

Models: nothing; it is the judge of what faults, unmapping, fork and the LRU keep incrementally: every table is reached exactly once from
its root, every entry lies in a VMA, every page has exactly the mappings that it knows of and finds them back, large folios also page by
page (small mappings, PMDs, pages mapped at all, whether in part), every counter is the sum that it claims to be. Links are tested
before they are followed. Cost: in proportion to tables in use, and 8 bytes a page frame.
"""
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

import numpy as np

cimport numpy as cnp
from mmcore.base.errors import ValidationError
from mmcore.sys.swap_check import check_swap
from mmcore.base.flags cimport OWNER_HUGETLB, OWNER_MASK, OWNER_TABLE, PG_lru, PG_owned
from mmcore.base.records cimport Mm, meta_at, page_at
from mmcore.base.stat_items cimport (
    NS_NR_ANON_TRANSPARENT_HUGEPAGES, NS_NR_INACTIVE_ANON, NS_NR_PAGE_TABLE_PAGES, ZS_NR_ZONE_INACTIVE_ANON,
)
from mmcore.base.state cimport State, state_lock, state_unlock
from mmcore.base.vm_records cimport (
    AddressSpace, FILE_SHMEM, LRU_BATCH, MM_ANONPAGES, MM_FILEPAGES, MM_SHMEMPAGES, MM_SWAPENTS, NR_LRU_LISTS, POOL_FILES,
    POOL_LRUVECS, POOL_MMS, POOL_SWAP_SLOTS, POOL_TABLES,
    TableInfo,
    Vma,
)
from mmcore.phys.buddy cimport zone_of
from mmcore.reclaim.lru cimport LRU_UNEVICTABLE, folio_lru_list
from mmcore.sys.hugetlb cimport (
    HPAGE_PAGES, HTLB_FIRST, HTLB_FREE, HTLB_RESERVED, HTLB_SPENT, HTLB_SURPLUS, HTLB_TOTAL, hugetlb_owner,
)
from mmcore.sys.memcg_check import memcg_check
from mmcore.sys.thp cimport folio_head
from mmcore.vm.pgtable cimport PTE_PSE, PTE_SPECIAL, entry_index, pte_frame, pte_is_table, pte_mapped, table_at
from mmcore.vm.radix cimport radix_next, slot_is_swap, slot_swap
from mmcore.vm.rmap cimport (
    NS_NR_ANON_PAGES, NS_NR_MAPPED, PG_ORDER_MASK, PG_ORDER_SHIFT, PG_allocated, PG_anon, PG_meta, PG_swapbacked, page_index, page_is_anon,
    page_is_file, rmap_private,
)
from mmcore.vm.vma cimport VM_HUGETLB, check_vmas, find_vma

cnp.import_array()

cdef enum:
    OK = 0
    BAD_SLOT = 1
    BAD_TABLE = 2
    BAD_USED = 3
    BAD_PAGE = 4
    NO_VMA = 5
    BAD_RMAP = 6
    BAD_COUNT = 7
    BAD_RIGHTS = 8
    BAD_HUGE = 9
    BAD_SMALL = 10
    BAD_ENTIRE = 11
    BAD_TOTAL = 12
    BAD_MAPPED = 13
    BAD_PARTIAL = 14
    BAD_COLD = 15
    BAD_SWAP = 16
    MAX_ORDERS = 11
    DEFERRED_QUEUED = 1         # in private_ of a large folio's second page (sys/thp)
    DEFERRED_PARTIAL = 2

_TEXT = {
    BAD_SLOT: "an entry names a table that does not exist or hangs elsewhere too",
    BAD_TABLE: "a table's record does not say where it hangs",
    BAD_USED: "a table's count of entries in use is wrong",
    BAD_PAGE: "an entry maps a page that is not allocated for it",
    NO_VMA: "an entry lies in no VMA",
    BAD_RMAP: "a page does not find this entry back",
    BAD_COUNT: "a page's mapcount is not its number of mappings",
    BAD_RIGHTS: "an entry may be written where its mapping may not",
    BAD_HUGE: "a huge entry does not map a whole folio",
    BAD_SMALL: "a large folio's count of this page's small mappings is wrong",
    BAD_ENTIRE: "a large folio's count of PMDs that map it entirely is wrong",
    BAD_TOTAL: "a large folio's mapcount is not its number of mappings",
    BAD_MAPPED: "a large folio's count of pages mapped is wrong",
    BAD_PARTIAL: "a large folio is mapped in part and not queued so, or the other way round",
    BAD_SWAP: "an entry names a slot that is not in use",
    BAD_COLD: "a large folio that at most one PMD maps has counts, or one with counts is not marked so",
}

cdef struct Judge:
    Mm* mm
    uint8_t* seen_table         # a byte a slot
    uint32_t* maps              # mappings by page frame, one for each entry that covers it
    uint32_t* huge              # by the first page frame of a folio: huge entries that map it
    int64_t* transparent        # by node: folios that huge entries map
    int64_t folios[MAX_ORDERS]  # large anonymous folios by order
    uint32_t as_
    int bad
    uint64_t where              # vpn
    int64_t tables
    int64_t rss[4]
    uint32_t* swap              # by slot number: entries that name it
    int64_t hugetlb             # huge pages of the pool that are mapped, and reservations that wait for a fault
    int64_t reserved


cdef bint anon_vma_covers(Mm* mm, uint32_t vma, uint32_t anon_vma) noexcept nogil:
    # The chains were tested by vma_check before.
    cdef uint32_t a = mm.vm.vmas[vma - 1].avc_first
    while a:
        if mm.vm.avcs[a - 1].anon_vma == anon_vma:
            return True
        a = mm.vm.avcs[a - 1].same_vma_next
    return False


cdef void judge_hugetlb(Judge* j, Vma* v, uint64_t* e, unsigned level) noexcept nogil:
    # A page of the pool, or the mark of one that went with its reservation.
    cdef Mm* mm = j.mm
    if hugetlb_owner(v):
        j.reserved -= 1
    if e[0] == HTLB_SPENT and hugetlb_owner(v):
        return
    j.hugetlb += 1
    if level != 1 or not pte_mapped(e[0]) or not e[0] & PTE_PSE or pte_frame(e[0]) >= mm.g.nr_pages:
        j.bad = BAD_PAGE
    elif page_at(mm, <uint32_t>pte_frame(e[0])).flags & (PG_owned | OWNER_MASK | PG_allocated) != PG_owned | OWNER_HUGETLB | PG_allocated:
        j.bad = BAD_PAGE
    elif e[0] & 2 and not v.flags & 2:
        j.bad = BAD_RIGHTS


cdef void judge_leaf(Judge* j, uint64_t* e, unsigned level, uint64_t vpn) noexcept nogil:
    cdef Mm* mm = j.mm
    cdef uint32_t vma = find_vma(mm, j.as_, vpn << 12), pfn, head, flags, k
    cdef Vma* v
    cdef uint64_t n = <uint64_t>1 << (level * mm.vm.bits), index
    j.where = vpn
    if vma == 0 or vpn << 12 < mm.vm.vmas[vma - 1].start or (vpn + n) << 12 > mm.vm.vmas[vma - 1].end:
        j.bad = NO_VMA
        return
    v = &mm.vm.vmas[vma - 1]
    if v.flags & VM_HUGETLB:
        judge_hugetlb(j, v, e, level)
        return
    if not pte_mapped(e[0]):
        j.rss[MM_SWAPENTS] += 1
        if e[0] & 0xff7 or e[0] >> 52 or not 0 < e[0] >> 12 <= mm.vm.pools[POOL_SWAP_SLOTS].used:
            j.bad = BAD_SWAP
        else:
            j.swap[(e[0] >> 12) - 1] += 1
        return
    if e[0] & 2 and not v.flags & 2:
        j.bad = BAD_RIGHTS
        return
    if e[0] & PTE_SPECIAL:
        return
    if pte_frame(e[0]) + n > mm.g.nr_pages:
        j.bad = BAD_PAGE
        return
    pfn = <uint32_t>pte_frame(e[0])
    head = folio_head(mm, pfn)
    flags = page_at(mm, head).flags
    if not flags & PG_allocated or not flags & PG_anon and not page_is_file(flags):
        j.bad = BAD_PAGE
        return
    if level:
        if not page_is_anon(flags) or pfn != head or n != <uint64_t>1 << (flags >> PG_ORDER_SHIFT & PG_ORDER_MASK):
            j.bad = BAD_HUGE
            return
        j.huge[pfn] += 1
    for k in range(<uint32_t>n):
        j.maps[pfn + k] += 1
    index = v.pgoff + (vpn - (v.start >> 12))
    if page_is_anon(flags):
        j.rss[MM_ANONPAGES] += <int64_t>n
        if meta_at(mm, head).mapcount == 0:
            if rmap_private(mm, head) != entry_index(mm, e) + 1:
                j.bad = BAD_RMAP
        elif page_index(meta_at(mm, head)) + (pfn - head) != index or not anon_vma_covers(mm, vma, rmap_private(mm, head)):
            j.bad = BAD_RMAP
    elif page_is_file(flags):
        j.rss[MM_SHMEMPAGES if flags & PG_swapbacked else MM_FILEPAGES] += <int64_t>n
        if page_at(mm, head).private_ != v.file or page_index(meta_at(mm, head)) + (pfn - head) != index:
            j.bad = BAD_RMAP
    else:
        j.bad = BAD_PAGE


cdef void judge_table(Judge* j, uint32_t slot, unsigned level, uint64_t base, uint32_t parent) noexcept nogil:
    cdef Mm* mm = j.mm
    cdef TableInfo* t
    cdef uint64_t* e
    cdef uint32_t i, used = 0
    cdef uint64_t vpn
    j.where = base
    if slot >= mm.vm.pools[POOL_TABLES].used or j.seen_table[slot]:
        j.bad = BAD_SLOT
        return
    j.seen_table[slot] = 1
    j.tables += 1
    t = &mm.vm.table_info[slot]
    if t.mm != j.as_ or t.level != level or t.base != base or t.parent != parent or t.pfn >= mm.g.nr_pages:
        j.bad = BAD_TABLE
        return
    if page_at(mm, t.pfn).flags & (PG_owned | OWNER_MASK) != PG_owned | OWNER_TABLE or page_at(mm, t.pfn).private_ != slot + 1:
        j.bad = BAD_TABLE
        return
    e = table_at(mm, slot)
    for i in range(mm.vm.mask + 1):
        if e[i] == 0:
            continue
        used += 1
        vpn = base + (<uint64_t>i << (level * mm.vm.bits))
        if level and pte_is_table(e[i]):
            if pte_frame(e[i]) >= mm.vm.pools[POOL_TABLES].used:
                j.bad = BAD_SLOT
            else:
                judge_table(j, <uint32_t>pte_frame(e[i]), level - 1, vpn, slot + 1)
        else:
            judge_leaf(j, &e[i], level, vpn)
        if j.bad:
            return
    if used != t.nr_used:
        j.bad = BAD_USED


cdef int judge_folio(Judge* j, uint32_t head, uint32_t n, uint64_t* where) noexcept nogil:
    # The inner counts of a large anonymous folio: where each stands, the ledger of sys/thp says.
    cdef Mm* mm = j.mm
    cdef uint32_t k, small, known, mapped = 0, huge = j.huge[head], partial = mm.link[head + 2].private_
    cdef uint64_t total = huge
    cdef bint cold = meta_at(mm, head).mapcount == 0
    for k in range(n):
        small = j.maps[head + k] - huge
        known = meta_at(mm, head + 1).index_lo if k == 0 else meta_at(mm, head + k).mapcount
        if small != known:
            where[0] = head + k
            return BAD_SMALL
        total += small
        mapped += j.maps[head + k] != 0
    if cold:
        # one PMD at most, which private_ names
        if total != huge or huge != <uint32_t>(page_at(mm, head).private_ != 0):
            return BAD_TOTAL
        if n >= 4 and (meta_at(mm, head + 2).index_lo or meta_at(mm, head + 3).index_lo):
            return BAD_COLD
    else:
        if not page_at(mm, head).flags & PG_meta:
            return BAD_COLD
        if meta_at(mm, head).mapcount != total:
            return BAD_TOTAL
        if n >= 4 and meta_at(mm, head + 2).index_lo != huge:
            return BAD_ENTIRE
        if n >= 4 and meta_at(mm, head + 3).index_lo != mapped:
            return BAD_MAPPED
    if n >= 4 and total:
        # a folio leaves the queue when it is found to be wholly mapped; what is mapped in part stays
        if (partial & DEFERRED_PARTIAL != 0) != (mapped < n) or (partial & DEFERRED_PARTIAL and not partial & DEFERRED_QUEUED):
            return BAD_PARTIAL
    return OK


cdef int judge_counts(Judge* j, uint64_t* where, int64_t* anon, int64_t* mapped) noexcept nogil:
    # Every allocated page with a mapping: as many as were found? Sums of mapped pages by node.
    cdef Mm* mm = j.mm
    cdef uint32_t pfn = 0, n, k, total = mm.g.nr_pages, flags, node
    cdef uint64_t maps
    cdef int rc
    while pfn < total:
        flags = page_at(mm, pfn).flags
        if not flags & PG_allocated:
            if j.maps[pfn]:
                where[0] = pfn
                return BAD_PAGE
            pfn += 1
            continue
        n = <uint32_t>1 << (flags >> PG_ORDER_SHIFT & PG_ORDER_MASK)
        where[0] = pfn
        maps = 0
        for k in range(n):
            maps += j.maps[pfn + k]
        if page_is_anon(flags) or page_is_file(flags):
            node = mm.zones[zone_of(mm, pfn) - 1].node
            if n == 1:
                if page_is_anon(flags):
                    anon[node] += maps != 0
                    if maps != (meta_at(mm, pfn).mapcount if meta_at(mm, pfn).mapcount else <uint32_t>(rmap_private(mm, pfn) != 0)):
                        return BAD_COUNT
                else:
                    mapped[node] += maps != 0
                    if maps != meta_at(mm, pfn).mapcount:
                        return BAD_COUNT
            else:
                if page_is_anon(flags):
                    rc = judge_folio(j, pfn, n, where)
                    if rc:
                        return rc
                    # those that nobody maps any longer are not counted, whoever still refers to them
                    j.folios[flags >> PG_ORDER_SHIFT & PG_ORDER_MASK] += maps != 0
                    j.transparent[node] += j.huge[pfn] != 0
                for k in range(n):
                    if page_is_anon(flags):
                        anon[node] += j.maps[pfn + k] != 0
                    else:
                        mapped[node] += j.maps[pfn + k] != 0
        elif maps:
            return BAD_PAGE
        pfn += n
    return OK


cdef int judge_lru(Mm* mm, unsigned node, unsigned lru, int64_t* zone_pages, int64_t* pages, uint32_t* where) noexcept nogil:
    # One list: links, flags, and its pages by zone.
    cdef uint32_t head = mm.vm.lruvecs[node].head + lru, x = mm.link[head].next, prev = head, zi
    cdef uint32_t flags
    cdef int64_t n
    pages[0] = 0
    while x != head:
        if x == 0 or x > mm.g.nr_pages:
            return BAD_SLOT
        where[0] = x - 1
        flags = mm.link[x].flags
        if mm.link[x].prev != prev or flags & (PG_lru | PG_allocated) != PG_lru | PG_allocated or folio_lru_list(flags) != lru or mm.vm.memcg_of[x - 1]:
            return BAD_PAGE
        zi = zone_of(mm, x - 1)
        if zi == 0 or mm.zones[zi - 1].node != node:
            return BAD_PAGE
        n = <int64_t>1 << (flags >> PG_ORDER_SHIFT & PG_ORDER_MASK)
        zone_pages[(zi - 1) * NR_LRU_LISTS + lru] += n
        pages[0] += n
        if pages[0] > mm.g.nr_pages:
            return BAD_SLOT
        prev = x
        x = mm.link[x].next
    return OK if mm.link[head].prev == prev else BAD_SLOT


cdef bint deposits_right(Mm* mm, uint32_t as_) noexcept nogil:
    cdef uint32_t x = mm.vm.mms[as_ - 1].deposit, n = 0
    while x:
        n += 1
        if x > mm.vm.pools[POOL_TABLES].used or n > mm.vm.mms[as_ - 1].nr_deposited or mm.vm.table_info[x - 1].mm != as_:
            return False
        x = mm.vm.table_info[x - 1].link
    return n == mm.vm.mms[as_ - 1].nr_deposited


cdef bint deferred_right(Mm* mm) noexcept nogil:
    # The queue of folios to be split: every member an allocated large anonymous folio that knows of it.
    cdef uint32_t x = mm.vm.g.deferred_head, prev = 0, n = 0
    while x:
        n += 1
        if x < 2 or x > mm.g.nr_pages or n > mm.vm.g.deferred_nr or mm.link[x].prev != prev or not mm.link[x].private_ & 1:
            return False
        if not page_at(mm, x - 2).flags & PG_allocated or not page_at(mm, x - 2).flags >> PG_ORDER_SHIFT & PG_ORDER_MASK:
            return False
        prev = x
        x = mm.link[x].next
    return n == mm.vm.g.deferred_nr and prev == mm.vm.g.deferred_tail


cdef int64_t hugetlb_blocks(Mm* mm) noexcept nogil:
    # Huge pages that mappings with reservations span.
    cdef uint32_t as_, x
    cdef int64_t n = 0
    for as_ in range(1, mm.vm.pools[POOL_MMS].used + 1):
        x = mm.vm.mms[as_ - 1].vma_first if mm.vm.mms[as_ - 1].pid else 0
        while x:
            if mm.vm.vmas[x - 1].flags & VM_HUGETLB and hugetlb_owner(&mm.vm.vmas[x - 1]):
                n += <int64_t>((mm.vm.vmas[x - 1].end - mm.vm.vmas[x - 1].start) >> 12) // HPAGE_PAGES
            x = mm.vm.vmas[x - 1].next
    return n


cdef bint hugetlb_right(Mm* mm) noexcept nogil:
    # The free huge pages: as many as are counted, each of them the pool's.
    cdef uint64_t x = mm.vm.g.hugetlb[HTLB_FIRST], n = 0
    while x:
        n += 1
        if x > mm.g.nr_pages or n > mm.vm.g.hugetlb[HTLB_FREE]:
            return False
        if page_at(mm, <uint32_t>x - 1).flags & (PG_owned | OWNER_MASK | PG_allocated) != PG_owned | OWNER_HUGETLB | PG_allocated:
            return False
        x = mm.link[x].next
    return n == mm.vm.g.hugetlb[HTLB_FREE]


cdef bint batch_right(Mm* mm, const uint32_t* batch, uint32_t nr) noexcept nogil:
    cdef uint32_t k
    if nr >= LRU_BATCH:
        return False
    for k in range(nr):
        if batch[k] > mm.g.nr_pages or (batch[k] and not page_at(mm, batch[k] - 1).flags & PG_allocated):
            return False
    return True


cdef int count_index_users(Mm* mm, Judge* j) except -1:
    # Entries of tmpfs files' indices that name swap slots.
    cdef uint32_t x
    cdef uint64_t at
    cdef uint64_t* value
    for x in range(1, mm.vm.pools[POOL_FILES].used + 1):
        at = 0
        while mm.vm.files[x - 1].id:
            value = radix_next(mm, &mm.vm.files[x - 1], &at, <uint64_t>-1)
            if value == NULL:
                break
            if slot_is_swap(value[0]):
                if not mm.vm.files[x - 1].flags & FILE_SHMEM or value[0] >> 2 == 0 or value[0] >> 2 > mm.vm.pools[POOL_SWAP_SLOTS].used:
                    fail(f"file {x}, page {at}: an entry {value[0]:#x} names no swap slot")
                j.swap[slot_swap(value[0]) - 1] += 1
            at += 1
    return 0


def fail(str text):
    raise ValidationError(text)


def validate_vm(State s not None):
    """Recount address spaces, page tables, mappings and LRU lists. ValidationError names the first thing that is wrong; returns counts."""
    cdef Mm* mm = &s.c
    cdef Judge j
    cdef cnp.ndarray seen, maps, huge, transparent, anon, mapped, zone_pages, swapped
    cdef uint32_t as_, where32 = 0, k, nid, zi, x
    cdef int rc
    cdef uint64_t where = 0
    cdef int64_t pages = 0, tables = 0, deposited = 0
    cdef AddressSpace* m
    cdef int64_t* ap
    cdef int64_t* mp
    cdef int64_t* zp
    state_lock(s)
    try:
        seen = np.zeros(max(int(s.pools["used"][POOL_TABLES]), 1), np.uint8)
        maps = np.zeros(mm.g.nr_pages + 1024, np.uint32)
        huge, transparent = np.zeros(mm.g.nr_pages + 1024, np.uint32), np.zeros(mm.g.nr_nodes, np.int64)
        anon, mapped = np.zeros(mm.g.nr_nodes, np.int64), np.zeros(mm.g.nr_nodes, np.int64)
        zone_pages = np.zeros(mm.g.nr_zones * NR_LRU_LISTS, np.int64)
        swapped = np.zeros(mm.vm.pools[POOL_SWAP_SLOTS].used + 1, np.uint32)
        j.swap = <uint32_t*>cnp.PyArray_DATA(swapped)
        ap, mp, zp = <int64_t*>cnp.PyArray_DATA(anon), <int64_t*>cnp.PyArray_DATA(mapped), <int64_t*>cnp.PyArray_DATA(zone_pages)
        j.mm = mm
        j.seen_table = <uint8_t*>cnp.PyArray_DATA(seen)
        j.maps = <uint32_t*>cnp.PyArray_DATA(maps)
        j.huge = <uint32_t*>cnp.PyArray_DATA(huge)
        j.transparent = <int64_t*>cnp.PyArray_DATA(transparent)
        for k in range(<unsigned>MAX_ORDERS):
            j.folios[k] = 0
        alive = 0
        j.hugetlb = 0
        j.reserved = hugetlb_blocks(mm)
        for as_ in range(1, mm.vm.pools[POOL_MMS].used + 1):
            m = &mm.vm.mms[as_ - 1]
            if m.pid == 0:
                continue
            alive += 1
            if check_vmas(mm, as_):
                fail(f"address space {as_} (pid {m.pid}): its VMAs are in disorder")
            if not deposits_right(mm, as_):
                fail(f"address space {as_} (pid {m.pid}): its list of {m.nr_deposited} deposited tables is damaged")
            j.as_ = as_
            j.bad = OK
            j.tables = 0
            for k in range(4):
                j.rss[k] = 0
            if m.root == 0:
                fail(f"address space {as_} (pid {m.pid}) has no page table")
            k = m.vma_cache
            with nogil:
                judge_table(&j, m.root - 1, mm.vm.levels - 1, 0, 0)
            m.vma_cache = k         # judging changes nothing
            if j.bad:
                fail(f"address space {as_} (pid {m.pid}), page {j.where:#x}: {_TEXT[j.bad]}")
            for k in range(4):
                if j.rss[k] != m.rss[k]:
                    fail(f"address space {as_} (pid {m.pid}): RSS of class {k} is {m.rss[k]}, counted {j.rss[k]}")
            if m.pgtables_bytes != <uint64_t>(j.tables - 1 + m.nr_deposited) * 4096:
                fail(f"address space {as_} (pid {m.pid}): {m.pgtables_bytes} bytes of tables, counted {j.tables - 1} and {m.nr_deposited} deposited")
            tables += j.tables
            deposited += m.nr_deposited
        if alive != mm.vm.pools[POOL_MMS].live:
            fail(f"{mm.vm.pools[POOL_MMS].live} address spaces are in use, {alive} alive")
        kernel = int((s.get("table_info")["mm"][s.get("table_info")["pfn"] != 0] == 0).sum()) if len(s.get("table_info")) else 0
        if tables + deposited + kernel != mm.vm.pools[POOL_TABLES].live:
            fail(f"{mm.vm.pools[POOL_TABLES].live} page tables are in use; {tables} hang in trees, {deposited} are deposited, {kernel} are the kernel's")
        with nogil:
            rc = judge_counts(&j, &where, ap, mp)
        if rc:
            fail(f"page frame {where:#x}: {_TEXT[rc]}")
        for k in range(2, <unsigned>MAX_ORDERS - 1):
            if mm.vm.g.mthp[k * 4 + 3] != <uint64_t>j.folios[k]:
                fail(f"{<int64_t>mm.vm.g.mthp[k * 4 + 3]} large folios of order {k} are counted (nr_anon), found {j.folios[k]}")
        known = not mm.vm.g.foreign_counts
        for nid in range(mm.g.nr_nodes):
            row = s.nodes[nid]["vm_stat"]
            for name, index, found in (
                    ("nr_anon_pages", NS_NR_ANON_PAGES, anon[nid]), ("nr_mapped", NS_NR_MAPPED, mapped[nid]),
                    ("nr_anon_transparent_hugepages", NS_NR_ANON_TRANSPARENT_HUGEPAGES, transparent[nid] * HPAGE_PAGES)):
                if known and row[index] != found:
                    fail(f"node {nid}: {name} is {row[index]}, counted {found}")
            for k in range(NR_LRU_LISTS):
                with nogil:
                    rc = judge_lru(mm, nid, k, zp, &pages, &where32)
                if rc:
                    fail(f"node {nid}, LRU list {k}, page frame {where32:#x}: {_TEXT[rc]}")
                if k != LRU_UNEVICTABLE and pages != mm.vm.lruvecs[nid].nr[k]:
                    fail(f"node {nid}, LRU list {k}: {mm.vm.lruvecs[nid].nr[k]} pages, counted {pages}")
                pages = 0
                for x in range(nid, mm.vm.pools[POOL_LRUVECS].used, mm.g.nr_nodes):
                    pages += mm.vm.lruvecs[x].nr[k]     # of the root and of every group
                if known and pages != row[NS_NR_INACTIVE_ANON + k]:
                    fail(f"node {nid}, LRU list {k}: {pages} pages, node counter {row[NS_NR_INACTIVE_ANON + k]}")
        memcg_check(s)
        for zi in range(mm.g.nr_zones):
            for k in range(LRU_UNEVICTABLE):
                for x in range(mm.zones[zi].node + mm.g.nr_nodes, mm.vm.pools[POOL_LRUVECS].used, mm.g.nr_nodes):
                    zp[zi * NR_LRU_LISTS + k] += mm.vm.lruvecs[x].zone_nr[mm.zones[zi].zid * NR_LRU_LISTS + k]
                if known and mm.zones[zi].vm_stat[ZS_NR_ZONE_INACTIVE_ANON + k] != zp[zi * NR_LRU_LISTS + k]:
                    fail(f"zone {zi}, LRU list {k}: counter {mm.zones[zi].vm_stat[ZS_NR_ZONE_INACTIVE_ANON + k]}, counted {zp[zi * NR_LRU_LISTS + k]}")
        total = int(s.nodes["vm_stat"][:, NS_NR_PAGE_TABLE_PAGES].sum())
        if known and total != mm.vm.pools[POOL_TABLES].live:
            fail(f"nr_page_table_pages is {total}, {mm.vm.pools[POOL_TABLES].live} tables exist")
        for k in range(mm.g.nr_cpus):
            if not (batch_right(mm, mm.vm.cpus[k].lru_add, mm.vm.cpus[k].lru_add_nr)
                    and batch_right(mm, mm.vm.cpus[k].lru_lazyfree, mm.vm.cpus[k].lru_lazyfree_nr)
                    and batch_right(mm, mm.vm.cpus[k].lru_deactivate, mm.vm.cpus[k].lru_deactivate_nr)):
                fail(f"CPU {k}: a batch of LRU pages is damaged")
        count_index_users(mm, &j)
        check_swap(s, swapped)
        if not deferred_right(mm):
            fail(f"the queue of {mm.vm.g.deferred_nr} folios to be split is damaged")
        for text, index, found in (("in use", HTLB_TOTAL, j.hugetlb + <int64_t>mm.vm.g.hugetlb[HTLB_FREE]), ("reserved", HTLB_RESERVED, j.reserved)):
            if <int64_t>mm.vm.g.hugetlb[<int>index] != found:
                fail(f"hugetlb: {mm.vm.g.hugetlb[<int>index]} pages are {text}, counted {found}")
        if mm.vm.g.hugetlb[HTLB_SURPLUS] > mm.vm.g.hugetlb[HTLB_TOTAL] or mm.vm.g.hugetlb[HTLB_RESERVED] > mm.vm.g.hugetlb[HTLB_FREE]:
            fail("hugetlb: more surplus pages than pages, or more reservations than free pages")
        if mm.vm.g.hugetlb_pages != <int64_t>mm.vm.g.hugetlb[HTLB_TOTAL] * HPAGE_PAGES:
            fail(f"hugetlb: {mm.vm.g.hugetlb_pages} small pages are in the pool of {mm.vm.g.hugetlb[HTLB_TOTAL]}")
        if not hugetlb_right(mm):
            fail(f"the list of {mm.vm.g.hugetlb[HTLB_FREE]} free huge pages is damaged")
        if mm.vm.g.huge_zero_page > mm.g.nr_pages or mm.vm.g.zero_page >= mm.g.nr_pages:
            fail("a zero page lies outside the machine")
        return {"address_spaces": alive, "tables": tables, "deposited_tables": deposited, "kernel_tables": kernel,
                "anon_pages": int(anon.sum()), "mapped_pages": int(mapped.sum())}
    finally:
        state_unlock(s)
