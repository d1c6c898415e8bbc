"""swapon, swapoff and what is known of areas, as Python calls them; slots by hand for tests and tools.

Models: swapon(2), swapoff(2). Simplifies: an area has no signature to read: its size, name and kind of device are given. A result below
zero is -errno, which is data; misuse raises TypeError or ValueError and changes nothing.

alloc_slot and its siblings do to slots what pages and page-table entries do. Slots that are taken so belong to nothing: the judge
(sys/swap_check) complains of them.
"""
from libc.stdint cimport int32_t, int64_t, uint32_t

from mmcore.base.args cimport as_int
from mmcore.base.flags cimport PG_allocated
from mmcore.base.records cimport page_at
from mmcore.base.state cimport State, state_lock, state_unlock
from mmcore.base.vm_records cimport POOL_SWAP_AREAS, POOL_SWAP_SLOTS, SLOT_HAS_CACHE, SLOT_TAKEN
from mmcore.reclaim.swap cimport (
    SWP_FILE, SWP_SOLIDSTATE, SWP_SYNCHRONOUS, SWP_USED, drain_swap_slots, folio_alloc_swap, free_swap_and_cache, swap_area_of,
    swap_cache_add, swap_cache_put_slot,
    swap_cached_page, swap_dup, swap_free, swap_slot_at,
)
from mmcore.sys.swap cimport do_swapoff, do_swapon

MAX_PRIORITY = 32767
LEAST_PAGES = 10        # what mkswap makes at least, header included


cdef inline unsigned cpu_of(State s, object value) except? 0xffffffff:
    return <unsigned>as_int(value, "cpu", 0, s.c.g.nr_cpus - 1)


cdef uint32_t as_area(State s, object value) except 0:
    cdef uint32_t x = <uint32_t>as_int(value, "area", 1, 0xffffffff)
    if x > s.c.vm.pools[POOL_SWAP_AREAS].used or not s.c.vm.swap_areas[x - 1].flags & SWP_USED:
        raise ValueError(f"area is {value}: no such swap area (it was switched off, or never was)")
    return x


def swapon(State state not None, pages, priority=-1, rotational=False, synchronous=False, name="", partition=True):
    """Swap on a device of `pages` pages (the first holds the header): the area's number + 1, or -ENOMEM, -EPERM when there are 23.

    priority -1: below all others that had none given.
    """
    cdef uint32_t n = <uint32_t>as_int(pages, "pages", LEAST_PAGES, 0x7fffffff), text, flags = 0
    cdef int32_t prio = <int32_t>as_int(priority, "priority", -1, MAX_PRIORITY)
    cdef int64_t rc
    if not isinstance(name, str):
        raise TypeError(f"name must be a string, not {type(name).__name__}")
    if not rotational:
        flags |= SWP_SOLIDSTATE
    if synchronous:
        flags |= SWP_SYNCHRONOUS
    if not partition:
        flags |= SWP_FILE
    state_lock(state)
    try:
        text = state.names.index(name) + 1 if name in state.names else 0
        if not text:
            state.names.append(name)
            text = <uint32_t>len(state.names)
        with nogil:
            rc = do_swapon(&state.c, n, prio, flags, text)
        return rc
    finally:
        state_unlock(state)


def swapoff(State state not None, area, cpu=0):
    """Everything comes back from an area, and it goes: 0; -ENOMEM (what could not come back stays, and so does the area), -EINVAL."""
    cdef unsigned c = cpu_of(state, cpu)
    cdef uint32_t x
    cdef int rc
    state_lock(state)
    try:
        x = as_area(state, area)
        with nogil:
            rc = do_swapoff(&state.c, x, c)
        return rc
    finally:
        state_unlock(state)


def drain(State state not None):
    """Slots that CPUs keep in stock, or have not given back yet, return to their areas."""
    state_lock(state)
    with nogil:
        drain_swap_slots(&state.c)
    state_unlock(state)


# ---------------------------------------------------------------- slots by hand

cdef uint32_t as_slot(State s, object area, object offset) except 0:
    cdef uint32_t x = as_area(s, area), k = <uint32_t>as_int(offset, "offset", 1, s.c.vm.swap_areas[x - 1].max - 1)
    k += s.c.vm.swap_areas[x - 1].first_slot + 1
    if not s.c.vm.swap_slots[k - 1].flags & SLOT_TAKEN:
        raise ValueError(f"offset is {offset}: this slot of area {x} is not in use")
    return k


def alloc_slot(State state not None, pfn, cpu=0):
    """folio_alloc_swap() for a page frame: (area number + 1, offset), or None. The slot is as add_to_swap() gets it: held, without users."""
    cdef unsigned c = cpu_of(state, cpu)
    cdef uint32_t p = <uint32_t>as_int(pfn, "pfn", 0, state.c.g.nr_pages - 1), slot, area
    state_lock(state)
    try:
        with nogil:
            slot = folio_alloc_swap(&state.c, p, c)
        if slot == 0:
            return None
        area = swap_area_of(&state.c, slot - 1)
        return area, slot - 1 - state.c.vm.swap_areas[area - 1].first_slot
    finally:
        state_unlock(state)


def slot_op(State state not None, str op not None, area, offset, nr=1, cpu=0):
    """ "dup": one more user; "free": one less; "put": the swap cache's hold on it ends; "cache": page frame nr,
    which is nobody's, stands in the swap cache for it; "zap": entries that name nr slots side by side go."""
    cdef unsigned c = cpu_of(state, cpu)
    cdef uint32_t slot, n, i
    state_lock(state)
    try:
        slot = as_slot(state, area, offset)
        n = <uint32_t>as_int(nr, "nr", 1, 512) if op != "cache" else 1
        if op == "dup":
            if state.c.vm.swap_slots[slot - 1].count == 0xffffffff:
                raise ValueError(f"offset is {offset}: this slot has the most users that are counted")
            swap_dup(&state.c, slot)
        elif op == "free":
            if swap_slot_at(&state.c, slot).count == 0:
                raise ValueError(f"offset is {offset}: this slot has no users")
            swap_free(&state.c, slot, c)
        elif op == "put":
            if not swap_slot_at(&state.c, slot).flags & SLOT_HAS_CACHE or swap_cached_page(&state.c, slot):
                raise ValueError(f"offset is {offset}: the swap cache does not hold this slot, or has a page for it")
            swap_cache_put_slot(&state.c, slot, c)
        elif op == "cache":
            n = <uint32_t>as_int(nr, "nr", 0, state.c.g.nr_pages - 1)
            if page_at(&state.c, n).flags != PG_allocated:
                raise ValueError(f"page frame {n} is not a single allocated page of nobody's")
            if not swap_slot_at(&state.c, slot).flags & SLOT_HAS_CACHE or swap_cached_page(&state.c, slot):
                raise ValueError(f"offset is {offset}: the swap cache does not hold this slot, or has a page for it")
            page_at(&state.c, n).private_ = 0
            swap_cache_add(&state.c, n, slot)
        elif op == "zap":
            for i in range(n):
                if slot - 1 + i >= state.c.vm.pools[POOL_SWAP_SLOTS].used or swap_slot_at(&state.c, slot + i).count == 0:
                    raise ValueError(f"offset is {offset}: slot {offset + i} has no users")
            free_swap_and_cache(&state.c, slot, n, c)
        else:
            raise ValueError(f"op is {op!r}; it must be dup, free, put, cache or zap")
    finally:
        state_unlock(state)
