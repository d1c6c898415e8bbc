"""Huge pages, as Python calls them: the hugetlb pool, khugepaged, and the splitting of folios.

Models: /proc/sys/vm/nr_hugepages and nr_overcommit_hugepages, a wake-up of khugepaged, MADV_COLLAPSE of one block, the deferred-split
shrinker, split_huge_page(). Simplifies: nothing of its own. Omits: pools by node. Misuse raises TypeError or ValueError, and nothing
changes; a refusal of the kernel's is a negative errno, or a number.
"""
from libc.stdint cimport int64_t, uint32_t, uint64_t

from mmcore.base.args cimport as_int
from mmcore.base.flags cimport PG_allocated
from mmcore.base.records cimport page_at
from mmcore.base.state cimport State, state_lock, state_unlock
from mmcore.base.vm_records cimport POOL_MMS
from mmcore.sys.hugetlb cimport (
    HPAGE_PAGES, HTLB_FREE, HTLB_OVERCOMMIT, HTLB_RESERVED, HTLB_SURPLUS, HTLB_TOTAL, hugetlb_set_nr,
)
from mmcore.sys.khugepaged cimport collapse_block, deferred_split_scan as scan_deferred, khugepaged_do_scan, split_folio
from mmcore.sys.thp cimport folio_head
from mmcore.vm.rmap cimport PG_ORDER_MASK, PG_ORDER_SHIFT, page_is_anon
from mmcore.vm.vma cimport as_at, pool_of

# What collapse() answers, by number: SCAN_* of khugepaged.pxd.
SCAN_RESULTS = (
    "succeed", "pmd_null", "pmd_mapped", "exceed_none_pte", "exceed_swap_pte", "exceed_shared_pte", "page_ro", "lack_referenced_page",
    "page_count", "alloc_huge_page_fail", "vma_check", "page_anon",
)
_NR_MAX = 2**63 - 1


cdef inline unsigned as_cpu(State s, object value) except? 0xffffffff:
    return <unsigned>as_int(value, "cpu", 0, s.c.g.nr_cpus - 1)


def set_nr_hugepages(State state not None, n, cpu=0):
    """nr_hugepages is written: pages are taken from the buddy lists or returned to them. The number reached, surplus pages included."""
    cdef int64_t want = <int64_t>as_int(n, "n", 0, _NR_MAX)
    cdef unsigned c = as_cpu(state, cpu)
    state_lock(state)
    try:
        with nogil:
            hugetlb_set_nr(&state.c, <uint64_t>want, c)
        return state.c.vm.g.hugetlb[HTLB_TOTAL]
    finally:
        state_unlock(state)


def set_overcommit(State state not None, n):
    """nr_overcommit_hugepages: how many surplus pages reservations and faults may add to the pool."""
    cdef int64_t pages = <int64_t>as_int(n, "n", 0, _NR_MAX)
    state_lock(state)
    try:
        state.c.vm.g.hugetlb[HTLB_OVERCOMMIT] = <uint64_t>pages
    finally:
        state_unlock(state)


def hugetlb(State state not None):
    """Huge pages of the pool: total, free, reserved, surplus, overcommit; small_pages that they are made of."""
    cdef uint64_t* h
    state_lock(state)
    try:
        h = state.c.vm.g.hugetlb
        return {"total": h[HTLB_TOTAL], "free": h[HTLB_FREE], "reserved": h[HTLB_RESERVED], "surplus": h[HTLB_SURPLUS],
                "overcommit": h[HTLB_OVERCOMMIT], "small_pages": h[HTLB_TOTAL] * HPAGE_PAGES}
    finally:
        state_unlock(state)


def collapse(State state not None, mm, address, cpu=0, advised=True):
    """The 2 MiB block that holds `address` becomes one huge page, if it can: a word of SCAN_RESULTS. advised: as MADV_COLLAPSE, which
    heeds no setting; otherwise as khugepaged."""
    cdef uint64_t at = <uint64_t>as_int(address, "address", 0, 2**63 - 1)
    cdef uint32_t x = <uint32_t>as_int(mm, "mm", 1, 0xffffffff)
    cdef unsigned c = as_cpu(state, cpu)
    cdef bint forced = bool(advised)
    cdef int rc
    state_lock(state)
    try:
        if x > pool_of(&state.c, POOL_MMS).used or not as_at(&state.c, x).pid:
            raise ValueError(f"mm is {mm}: no such address space (its process has ended, or never was)")
        if at >= as_at(&state.c, x).task_size:
            raise ValueError(f"address is {at:#x}: not an address of the user's half")
        with nogil:
            rc = collapse_block(&state.c, x, at, forced, c)
        return SCAN_RESULTS[rc]
    finally:
        state_unlock(state)


def khugepaged_scan(State state not None, cpu=0):
    """One wake-up of khugepaged: how many blocks it collapsed."""
    cdef unsigned c = as_cpu(state, cpu)
    cdef int64_t before
    state_lock(state)
    try:
        before = state.c.vm.g.khugepaged_pages_collapsed
        with nogil:
            khugepaged_do_scan(&state.c, c)
        return state.c.vm.g.khugepaged_pages_collapsed - before
    finally:
        state_unlock(state)


def deferred_split_scan(State state not None, nr, cpu=0):
    """The deferred-split shrinker looks at up to nr queued folios: how many it split."""
    cdef int64_t n = <int64_t>as_int(nr, "nr", 0, _NR_MAX)
    cdef unsigned c = as_cpu(state, cpu)
    cdef int64_t split
    state_lock(state)
    try:
        with nogil:
            split = scan_deferred(&state.c, n, c)
        return split
    finally:
        state_unlock(state)


def split_huge_page(State state not None, pfn, cpu=0):
    """The large anonymous folio that holds page frame pfn becomes single pages, and those without a mapping are freed: 0, or -EAGAIN
    if someone else refers to it. ValueError for a page that belongs to no such folio."""
    cdef uint32_t page = <uint32_t>as_int(pfn, "pfn", 0, state.c.g.nr_pages - 1), head, flags
    cdef unsigned c = as_cpu(state, cpu)
    cdef int rc
    state_lock(state)
    try:
        head = folio_head(&state.c, page)
        flags = page_at(&state.c, head).flags
        if not flags & PG_allocated or not page_is_anon(flags) or not flags >> PG_ORDER_SHIFT & PG_ORDER_MASK:
            raise ValueError(f"pfn is {page:#x}: no page of a large anonymous folio")
        with nogil:
            rc = split_folio(&state.c, head, c)
        return rc
    finally:
        state_unlock(state)
