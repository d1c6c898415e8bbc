"""Loops over the core without the GIL, and the yardsticks beside them.

Compiled by bench/build.py against the installed mmcore, as a user's own Cython code would be. A loop takes a State and a count and
returns what the row needs to check; timing is the caller's. Yardsticks work on the same record type (Page) as the core.
"""
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

import numpy as np

cimport numpy as cnp
from mmcore.alloc.page_alloc cimport alloc_pages_run
from mmcore.alloc.page_free cimport free_pages_run
from mmcore.base.flags cimport PG_ORDER_SHIFT, PG_pcp
from mmcore.base.lists cimport list_add, list_add_tail, list_init
from mmcore.base.records cimport Mm, Page, Pcp, Zone
from mmcore.base.state cimport State, state_lock, state_unlock
from mmcore.phys.buddy cimport ctz, free_one_page
from mmcore.phys.migratetype cimport RMQUEUE_NORMAL, rmqueue_any, rmqueue_bulk
from mmcore.vm.pgtable cimport walk_many

cnp.import_array()

cdef enum:
    MAX_BURST = 1024
    TOP = 10


# ---------------------------------------------------------------- the core

def pair_bursts(State s not None, int64_t bursts, int64_t burst, unsigned gfp, unsigned order=0, unsigned cpu=0):
    """`bursts` times: allocate `burst` blocks (at most 1024) and free them, in the order in which they came. Returns blocks handled."""
    cdef uint32_t out[MAX_BURST]
    cdef int64_t _i, got = 0, done = 0, total = 0
    cdef int rc = 0
    if not 0 < burst <= MAX_BURST:
        raise ValueError(f"burst is {burst}; it must lie in 1..{MAX_BURST}")
    state_lock(s)
    with nogil:
        for _i in range(bursts):
            got = alloc_pages_run(&s.c, out, burst, gfp, order, cpu, -1, 0)
            if got != burst:
                break
            rc = free_pages_run(&s.c, out, burst, order, cpu, &done)
            if rc:
                break
            total += got
    state_unlock(s)
    if got != burst or rc:
        raise RuntimeError(f"one burst: {got} blocks of {burst}, free said {rc}")
    return total


def fill(State s not None, cnp.ndarray out not None, unsigned gfp, unsigned order=0, unsigned cpu=0):
    """Allocate len(out) blocks (uint32) in one run; returns how many there were."""
    cdef int64_t got, n = cnp.PyArray_SIZE(out)
    cdef uint32_t* p = <uint32_t*>cnp.PyArray_DATA(out)
    state_lock(s)
    with nogil:
        got = alloc_pages_run(&s.c, p, n, gfp, order, cpu, -1, 0)
    state_unlock(s)
    return got


def free_all(State s not None, cnp.ndarray pfns not None, unsigned order=0, unsigned cpu=0):
    """Free the blocks named (uint32), in order, in one run."""
    cdef int64_t n = cnp.PyArray_SIZE(pfns), done = 0
    cdef const uint32_t* p = <const uint32_t*>cnp.PyArray_DATA(pfns)
    cdef int rc
    state_lock(s)
    with nogil:
        rc = free_pages_run(&s.c, p, n, order, cpu, &done)
    state_unlock(s)
    if rc:
        raise RuntimeError(f"block {done} of {n}: free said {rc}")


def refill_bulk(State s not None, unsigned zi, unsigned order, unsigned mt, unsigned each, int64_t times):
    """`times` refills of CPU 0's list by rmqueue_bulk, `each` blocks; returns blocks got."""
    cdef Zone* z = &s.c.zones[zi]
    cdef Pcp* pcp = &s.c.pcps[zi * s.c.g.nr_cpus]
    cdef uint32_t head = pcp.list_head + 3 * order + mt, got
    cdef int64_t _i, total = 0
    state_lock(s)
    with nogil:
        for _i in range(times):
            got = rmqueue_bulk(&s.c, z, pcp, order, mt, each, head, 0)
            pcp.count += <int>(got << order)
            total += got
    state_unlock(s)
    return total


def refill_single(State s not None, unsigned zi, unsigned order, unsigned mt, unsigned each, int64_t times):
    """The same refills, a block at a time by rmqueue_any."""
    cdef Mm* mm = &s.c
    cdef Zone* z = &mm.zones[zi]
    cdef Pcp* pcp = &mm.pcps[zi * mm.g.nr_cpus]
    cdef uint32_t head = pcp.list_head + 3 * order + mt, got
    cdef int64_t _i, pfn, total = 0
    cdef int mode
    state_lock(s)
    with nogil:
        for _i in range(times):
            mode = RMQUEUE_NORMAL
            got = 0
            while got < each:
                pfn = rmqueue_any(mm, z, pcp, order, mt, 0, &mode)
                if pfn < 0:
                    break
                mm.pages[pfn].flags = PG_pcp | (order << PG_ORDER_SHIFT)
                list_add_tail(mm.link, head, <uint32_t>pfn + 1)
                got += 1
            pcp.count += <int>(got << order)
            total += got
    state_unlock(s)
    return total


def buddy_take(State s not None, unsigned zi, unsigned mt):
    """One order-0 page from the buddy lists, past the per-CPU lists: its pfn, or -1."""
    cdef int mode = RMQUEUE_NORMAL
    return rmqueue_any(&s.c, &s.c.zones[zi], &s.c.pcps[zi * s.c.g.nr_cpus], 0, mt, 0, &mode)


def buddy_give(State s not None, unsigned zi, unsigned mt, uint32_t pfn):
    """The page of buddy_take() back."""
    free_one_page(&s.c, &s.c.zones[zi], &s.c.pcps[zi * s.c.g.nr_cpus], pfn, 0, mt, 0)


def buddy_pairs(State s not None, unsigned zi, unsigned mt, int64_t n):
    """n times: an order-0 page from the buddy lists and back."""
    cdef Mm* mm = &s.c
    cdef Zone* z = &mm.zones[zi]
    cdef Pcp* pcp = &mm.pcps[zi * mm.g.nr_cpus]
    cdef int64_t _i, pfn = 0
    cdef int mode
    state_lock(s)
    with nogil:
        for _i in range(n):
            mode = RMQUEUE_NORMAL
            pfn = rmqueue_any(mm, z, pcp, 0, mt, 0, &mode)
            if pfn < 0:
                break
            free_one_page(mm, z, pcp, <uint32_t>pfn, 0, mt, 0)
    state_unlock(s)
    if pfn < 0:
        raise RuntimeError("no page left")


# ---------------------------------------------------------------- yardsticks

cdef int check_list(State s, uint32_t head, int64_t burst) except -1:
    cdef uint32_t x = head
    cdef int64_t k
    if not 0 < burst <= MAX_BURST:
        raise ValueError(f"burst is {burst}; it must lie in 1..{MAX_BURST}")
    for k in range(burst):
        x = s.c.link[x].next
        if x == head or x == 0:
            raise ValueError(f"the list has {k} records, not {burst}")
    return 0


def list_bursts(State s not None, unsigned zi, unsigned pindex, int64_t bursts, int64_t burst):
    """Intrusive list: pop `burst` records from the head of CPU 0's list `pindex` and push them again, `bursts` times. Nothing but links
    is read or written: use it on a copy of a machine, whose counts stay as they were."""
    cdef uint32_t out[MAX_BURST]
    cdef Page* link = s.c.link
    cdef uint32_t head = s.c.pcps[zi * s.c.g.nr_cpus].list_head + pindex, x, n
    cdef int64_t _i, k
    check_list(s, head, burst)
    with nogil:
        for _i in range(bursts):
            for k in range(burst):
                x = link[head].next
                n = link[x].next
                link[head].next = n
                link[n].prev = head
                out[k] = x
            for k in range(burst):
                list_add(link, head, out[k])
    return bursts * burst


def stack_bursts(State s not None, unsigned zi, unsigned pindex, int64_t bursts, int64_t burst):
    """As list_bursts(), with the forward links alone: the least that an intrusive list can be. It leaves the other links stale."""
    cdef uint32_t out[MAX_BURST]
    cdef Page* link = s.c.link
    cdef uint32_t head = s.c.pcps[zi * s.c.g.nr_cpus].list_head + pindex, x
    cdef int64_t _i, k
    check_list(s, head, burst)
    with nogil:
        for _i in range(bursts):
            for k in range(burst):
                x = link[head].next
                link[head].next = link[x].next
                out[k] = x
            for k in range(burst):
                x = out[k]
                link[x].next = link[head].next
                link[head].next = x
    return bursts * burst


def chase(cnp.ndarray nodes not None, int64_t steps, uint64_t at=0):
    """Pointer chase: nodes[i] (uint64, every eighth one used: 64 bytes a node) names the next node. Returns where it ended."""
    cdef const uint64_t* p = <const uint64_t*>cnp.PyArray_DATA(nodes)
    cdef int64_t _i
    with nogil:
        for _i in range(steps):
            at = p[at * 8]
    return at


cdef class BareBuddy:
    """Nothing but split and merge: one zone of 2**20 pages, a list per order, no types, no counters, no marks, no checks."""
    cdef cnp.ndarray records
    cdef Page* link
    cdef uint32_t heads
    cdef unsigned mask

    def __init__(self, int nr_pages=1 << 20):
        cdef uint32_t pfn
        cdef unsigned k
        if nr_pages <= 0 or nr_pages % (1 << TOP):
            raise ValueError(f"nr_pages is {nr_pages}; it must be a multiple of {1 << TOP}")
        self.records = np.zeros(nr_pages + TOP + 1, [("next", "u4"), ("prev", "u4"), ("private_", "u4"), ("flags", "u4")])
        self.link = <Page*>cnp.PyArray_DATA(self.records) - 1
        self.heads = <uint32_t>nr_pages + 1
        self.mask = 1 << TOP
        for k in range(TOP + 1):
            list_init(self.link, self.heads + k)
        for pfn in range(0, nr_pages, 1 << TOP):
            self.link[pfn + 1].flags = TOP + 1
            list_add_tail(self.link, self.heads + TOP, pfn + 1)

    def pairs(self, int64_t n):
        """n times: an order-0 page and back."""
        cdef Page* link = self.link
        cdef uint32_t heads = self.heads, x, nxt, prv, b
        cdef unsigned mask = self.mask, k
        cdef int64_t _i
        with nogil:
            for _i in range(n):
                k = ctz(mask)
                x = link[heads + k].next
                nxt = link[x].next
                link[heads + k].next = nxt
                link[nxt].prev = heads + k
                if nxt == heads + k:
                    mask &= ~(<unsigned>1 << k)
                link[x].flags = 0
                while k:
                    k -= 1
                    b = x + (<uint32_t>1 << k)
                    link[b].flags = k + 1
                    list_add(link, heads + k, b)
                    mask |= <unsigned>1 << k
                x -= 1
                while k < TOP:
                    b = (x ^ (<uint32_t>1 << k)) + 1
                    if link[b].flags != k + 1:
                        break
                    nxt = link[b].next
                    prv = link[b].prev
                    link[prv].next = nxt
                    link[nxt].prev = prv
                    link[b].flags = 0
                    if nxt == prv:
                        mask &= ~(<unsigned>1 << k)
                    x &= ~(<uint32_t>1 << k)
                    k += 1
                link[x + 1].flags = k + 1
                list_add(link, heads + k, x + 1)
                mask |= <unsigned>1 << k
        self.mask = mask

    def free_blocks(self):
        """Blocks by order, counted."""
        cdef uint32_t x
        out = []
        for k in range(TOP + 1):
            n, x = 0, self.link[self.heads + <unsigned>k].next
            while x != self.heads + <unsigned>k:
                n, x = n + 1, self.link[x].next
            out.append(n)
        return out


cdef class Empty:
    """Compiled methods that do nothing."""

    cpdef object nothing(self):
        return None

    cpdef object one(self, object x):
        return None


def empty_alloc(State s not None, gfp, order=0, cpu=0, nid=-1, unsigned task=0):
    """What mmcore.alloc.page_alloc.alloc_pages is called as, without what it does."""
    return gfp


def empty_free(State s not None, pfn, order=0, cpu=0):
    """What mmcore.alloc.page_free.free_pages is called as, without what it does."""


# ---------------------------------------------------------------- walks

def walk_bulk(State s not None, unsigned handle, cnp.ndarray vpns not None, cnp.ndarray entries not None, cnp.ndarray levels not None):
    """walk_many() over an array of page numbers (uint64); entries and levels receive what it finds."""
    cdef const uint64_t* v = <const uint64_t*>cnp.PyArray_DATA(vpns)
    cdef uint64_t* e = <uint64_t*>cnp.PyArray_DATA(entries)
    cdef uint8_t* lv = <uint8_t*>cnp.PyArray_DATA(levels)
    cdef int64_t n = cnp.PyArray_SIZE(vpns)
    with nogil:
        walk_many(&s.c, s.c.vm.mms[handle - 1].root - 1, v, n, e, lv)


def random_loads(cnp.ndarray words not None, cnp.ndarray at not None, cnp.ndarray out not None):
    """out[i] = words[at[i]], with nothing else: independent loads that the processor overlaps as it can."""
    cdef const uint64_t* w = <const uint64_t*>cnp.PyArray_DATA(words)
    cdef const uint64_t* a = <const uint64_t*>cnp.PyArray_DATA(at)
    cdef uint64_t* o = <uint64_t*>cnp.PyArray_DATA(out)
    cdef int64_t i, n = cnp.PyArray_SIZE(at)
    with nogil:
        for i in range(n):
            o[i] = w[a[i]]
