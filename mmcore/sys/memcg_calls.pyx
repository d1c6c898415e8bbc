"""What Python does with memory control groups: mkdir, rmdir, writes to a group's files, moving a process.

Models: the cgroup file system as far as the memory controller goes. Simplifies: a group is named by its id. A result below zero is
-errno, which is data; misuse (an id that names no group, a page that cannot be charged) raises ValueError and changes nothing.
Omits: everything else in cgroupfs.

The functions that charge pages and objects from outside are for tests, tools and recorded runs.
"""
from libc.stdint cimport int64_t, uint32_t

from mmcore.base.args cimport as_gfp, as_int
from mmcore.base.flags cimport PG_CHECK_AT_FREE, PG_ORDER_MASK, PG_ORDER_SHIFT, PG_allocated
from mmcore.base.records cimport page_at
from mmcore.base.state cimport State, state_lock, state_unlock
from mmcore.base.vm_records cimport MEMCG_DYING, MEMCG_ONLINE, POOL_MEMCGS, POOL_MMS
from mmcore.reclaim.memcg cimport (
    drain_all_stock, drain_stock, lruvec_page_state, memcg_at, memcg_below_low, memcg_below_min, memcg_create, memcg_flush_stats, memcg_fold,
    memcg_fold_due, memcg_lruvec, memcg_next, memcg_protection, memcg_remove, page_memcg, uncharge_page,
)
from mmcore.sys.charge cimport (
    charge_folio, charge_object, charge_outside, handle_over_high, high_delay, memcg_attach, memcg_reclaim, memcg_write, uncharge_object,
)
from mmcore.vm.vma cimport as_at

LIMITS = {"max": 0, "high": 1, "low": 2, "min": 3, "swap_max": 4}
GFP_KERNEL = 0xcc0


cdef uint32_t as_group(State s, object value, bint dying) except? 0xffffffff:
    # An id of a group that is there; `dying`: also of one that was removed but still holds pages.
    cdef uint32_t x = <uint32_t>as_int(value, "group", 0, 65534), flags = 0
    if x < s.c.vm.pools[POOL_MEMCGS].used:
        flags = memcg_at(&s.c, x).flags
    if flags != MEMCG_ONLINE and not (dying and flags == MEMCG_DYING):
        raise ValueError(f"group is {value}: no such group (it was removed, or never was)")
    return x


cdef inline unsigned cpu_of(State s, object value) except? 0xffffffff:
    return <unsigned>as_int(value, "cpu", 0, s.c.g.nr_cpus - 1)


def create(State state not None, parent, name):
    """A group below `parent` (0: the root) called `name` (its whole path): its id, 0 without room, -ENOENT if the parent is none."""
    cdef uint32_t p = <uint32_t>as_int(parent, "parent", 0, 65534), text
    cdef int64_t rc
    if not isinstance(name, str):
        raise TypeError(f"name must be a string, not {type(name).__name__}")
    state_lock(state)
    try:
        text = state.names.index(name) + 1 if name in state.names else 0
        if not text:
            state.names.append(name)
            text = <uint32_t>len(state.names)
        with nogil:
            rc = memcg_create(&state.c, p, text)
        return rc
    finally:
        state_unlock(state)


def remove(State state not None, group):
    """rmdir: 0, -EBUSY (processes or groups in it), -ENOENT, -EINVAL (the root). Memory still charged to it stays so until it is freed."""
    cdef uint32_t x = <uint32_t>as_int(group, "group", 0, 65534)
    cdef int rc
    state_lock(state)
    try:
        with nogil:
            rc = memcg_remove(&state.c, x)
        return rc
    finally:
        state_unlock(state)


def write(State state not None, group, str limit not None, pages, cpu=0):
    """Sets "max", "high", "low", "min" or "swap_max" in pages; a lowered max or high reclaims what is above it. 0 or -ENOENT."""
    cdef unsigned which, c = cpu_of(state, cpu)
    cdef uint32_t x = <uint32_t>as_int(group, "group", 0, 65534)
    cdef int64_t n = as_int(pages, "pages", 0, 0x7fffffffffffffff)
    cdef int rc
    if limit not in LIMITS:
        raise ValueError(f"limit is {limit!r}; it must be one of {', '.join(LIMITS)}")
    which = LIMITS[limit]
    state_lock(state)
    try:
        with nogil:
            rc = memcg_write(&state.c, x, which, n, c)
        return rc
    finally:
        state_unlock(state)


def reclaim(State state not None, group, pages, swappiness=-1, cpu=0):
    """memory.reclaim: pages freed (at least `pages`), -EAGAIN if fewer could be, -ENOENT. swappiness -1: vm.swappiness."""
    cdef unsigned c = cpu_of(state, cpu)
    cdef uint32_t x = <uint32_t>as_int(group, "group", 0, 65534)
    cdef int64_t n = as_int(pages, "pages", 0, 0x7fffffffffffffff), rc
    cdef int s = <int>as_int(swappiness, "swappiness", -1, 200)
    state_lock(state)
    try:
        with nogil:
            rc = memcg_reclaim(&state.c, x, n, s, c)
        return rc
    finally:
        state_unlock(state)


def attach(State state not None, mm, group):
    """The process of address space `mm` joins a group; what it has charged stays where it is. 0 or -ENOENT."""
    cdef uint32_t a = <uint32_t>as_int(mm, "mm", 1, 0xffffffff), x = <uint32_t>as_int(group, "group", 0, 65534)
    cdef int rc
    state_lock(state)
    try:
        if a > state.c.vm.pools[POOL_MMS].used or not as_at(&state.c, a).pid:
            raise ValueError(f"mm is {mm}: no such address space (its process has ended, or never was)")
        with nogil:
            rc = memcg_attach(&state.c, a, x)
        return rc
    finally:
        state_unlock(state)


def flush(State state not None, group=0, force=False):
    """What reading memory.stat does: folds statistics if more than 64 changes a CPU wait; force=True: in any case, the whole tree."""
    cdef uint32_t x
    cdef bint always = bool(force)
    state_lock(state)
    try:
        x = as_group(state, group, True)
        with nogil:
            if always:
                memcg_fold(&state.c)
            else:
                memcg_flush_stats(&state.c, x)
    finally:
        state_unlock(state)


def fold_due(State state not None):
    """The periodic fold, if its time (every 2 s) has come."""
    state_lock(state)
    try:
        with nogil:
            memcg_fold_due(&state.c)
    finally:
        state_unlock(state)


def page_state(State state not None, group, item, node=0):
    """What reclaim reads of a group's counter (its position in the node's) on a node: as of the last fold, unless there is no lag."""
    cdef uint32_t n = <uint32_t>as_int(node, "node", 0, state.c.g.nr_nodes - 1)
    cdef unsigned k = <unsigned>as_int(item, "item", 0, 46)
    state_lock(state)
    try:
        return lruvec_page_state(&state.c, memcg_lruvec(&state.c, as_group(state, group, True), n), k)
    finally:
        state_unlock(state)


def walk(State state not None, root=0):
    """Ids of the groups of a subtree, in the order in which reclaim visits them (removed ones that hold pages too)."""
    cdef uint32_t r, x
    state_lock(state)
    try:
        r = as_group(state, root, True)
        out = []
        x = memcg_next(&state.c, r, 0)
        while x:
            out.append(x - 1)
            x = memcg_next(&state.c, r, x)
        return out
    finally:
        state_unlock(state)


def protection(State state not None, group, target=0):
    """Effective min and low in pages, and whether usage is below each, as reclaim of `target` that visits the tree in order finds it."""
    cdef uint32_t t, x, v
    state_lock(state)
    try:
        t, x = as_group(state, target, True), as_group(state, group, True)
        v = memcg_next(&state.c, t, 0)
        while v:
            memcg_protection(&state.c, t, v - 1)
            v = memcg_next(&state.c, t, v)
        if x == t:
            return 0, 0, False, False
        return (memcg_at(&state.c, x).emin, memcg_at(&state.c, x).elow,
                bool(memcg_below_min(&state.c, t, x)), bool(memcg_below_low(&state.c, t, x)))
    finally:
        state_unlock(state)


# ---------------------------------------------------------------- charging from outside

def charge_page(State state not None, pfn, group, gfp=GFP_KERNEL, cpu=0):
    """Charges an allocated block to a group as a page of a program is: 0 or -ENOMEM."""
    cdef unsigned c = cpu_of(state, cpu), mask = as_gfp(gfp)
    cdef uint32_t p = <uint32_t>as_int(pfn, "pfn", 0, state.c.g.nr_pages - 1), x, flags
    cdef int rc
    state_lock(state)
    try:
        x = as_group(state, group, False)
        flags = page_at(&state.c, p).flags
        if not flags & PG_allocated or flags & PG_CHECK_AT_FREE or page_memcg(&state.c, p):
            raise ValueError(f"pfn is {pfn}: only an allocated block that nothing else uses, and that no group pays for, can be charged")
        with nogil:
            rc = charge_folio(&state.c, p, flags >> PG_ORDER_SHIFT & PG_ORDER_MASK, x, mask, c)
        return rc
    finally:
        state_unlock(state)


def uncharge(State state not None, pfn):
    """Takes the charge of charge_page() back."""
    cdef uint32_t p = <uint32_t>as_int(pfn, "pfn", 0, state.c.g.nr_pages - 1), flags
    state_lock(state)
    try:
        flags = page_at(&state.c, p).flags
        if not flags & PG_allocated or flags & PG_CHECK_AT_FREE or not page_memcg(&state.c, p):
            raise ValueError(f"pfn is {pfn}: not a block that charge_page() charged")
        with nogil:
            uncharge_page(&state.c, p, flags >> PG_ORDER_SHIFT & PG_ORDER_MASK)
    finally:
        state_unlock(state)


def charge_kernel(State state not None, group, pages, gfp=GFP_KERNEL, cpu=0):
    """Kernel memory from outside our page frames; below zero: it goes again. Pages charged, or -ENOMEM."""
    cdef unsigned c = cpu_of(state, cpu), mask = as_gfp(gfp)
    cdef int64_t n = as_int(pages, "pages", -(1 << 40), 1 << 40), rc
    cdef uint32_t x
    state_lock(state)
    try:
        x = as_group(state, group, n < 0)
        with nogil:
            rc = charge_outside(&state.c, x, n, mask, c)
        return rc
    finally:
        state_unlock(state)


def charge_bytes(State state not None, group, size, gfp=GFP_KERNEL, cpu=0):
    """A kernel object of `size` bytes (its owner pointer included): 0 or -ENOMEM."""
    cdef unsigned c = cpu_of(state, cpu), mask = as_gfp(gfp)
    cdef uint32_t n = <uint32_t>as_int(size, "size", 1, 1 << 20), x
    cdef int rc
    state_lock(state)
    try:
        x = as_group(state, group, False)
        with nogil:
            rc = charge_object(&state.c, x, n, mask, c)
        return rc
    finally:
        state_unlock(state)


def uncharge_bytes(State state not None, group, size, cpu=0):
    """The object goes. ValueError if the group has fewer bytes of objects than that."""
    cdef unsigned c = cpu_of(state, cpu)
    cdef uint32_t n = <uint32_t>as_int(size, "size", 1, 1 << 20), x, node
    cdef int64_t have
    state_lock(state)
    try:
        x = as_group(state, group, True)
        have = memcg_at(&state.c, x).slab_pending
        for node in range(state.c.g.nr_nodes):
            have += memcg_lruvec(&state.c, x, node).stat[5]
        if have < n:
            raise ValueError(f"size is {size}; group {group} has {have} bytes of objects")
        with nogil:
            uncharge_object(&state.c, x, n, c)
    finally:
        state_unlock(state)


def drain(State state not None, cpu=None):
    """Gives back what the stocks of a CPU hold, or of all."""
    cdef unsigned c = 0
    cdef bint every = cpu is None
    if not every:
        c = cpu_of(state, cpu)
    state_lock(state)
    try:
        with nogil:
            if every:
                drain_all_stock(&state.c, 0)
            else:
                drain_stock(&state.c, c)
    finally:
        state_unlock(state)


def over_high(State state not None, cpu=0):
    """What a task on `cpu` does for memory.high on its way back to user mode."""
    cdef unsigned c = cpu_of(state, cpu)
    state_lock(state)
    try:
        with nogil:
            handle_over_high(&state.c, c)
    finally:
        state_unlock(state)


def high_ticks(State state not None, group, pages):
    """Ticks (4 ms) that memory.high makes a task wait that has charged so many pages: 500 at most."""
    cdef int64_t n = as_int(pages, "pages", 0, 1 << 31)
    state_lock(state)
    try:
        return high_delay(&state.c, as_group(state, group, True), n)
    finally:
        state_unlock(state)
