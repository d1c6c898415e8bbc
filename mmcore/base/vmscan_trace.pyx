"""Tracepoints of reclaim and of the page cache, as rows of a Tracer beside those of the allocator.

A row's fields mean, by event: PAGE_ADD, PAGE_DEL: pfn and (in `op`) the index in the file; ACTIVATE: pfn; MEMCG_END: pages reclaimed in
`pfn`; ISOLATE: requested in `pfn`, then lru, scanned, skipped, taken in the five bytes; SHRINK_INACTIVE: in the four bytes of `pfn` scanned,
reclaimed, dirty, under write-back, then activated (anon, file), kept as referenced, not unmapped, priority; SHRINK_ACTIVE: taken in `pfn`,
then active, deactivated, referenced, 0, priority.

Models: mm_filemap_*, mm_lru_activate, mm_vmscan_memcg_reclaim_*, mm_vmscan_lru_*. Simplifies: counts of one pass fit a byte (the classic
LRU takes at most 32 pages in one). Omits: which file a page belongs to, flags of a pass.
"""
from mmcore.base.state cimport State, state_lock, state_unlock
from mmcore.base.trace cimport Tracer, trace_append

EVENTS = {
    "PAGE_ADD": EV_PAGE_ADD, "PAGE_DEL": EV_PAGE_DEL, "ACTIVATE": EV_ACTIVATE, "MEMCG_BEGIN": EV_MEMCG_BEGIN, "MEMCG_END": EV_MEMCG_END,
    "ISOLATE": EV_ISOLATE, "SHRINK_INACTIVE": EV_SHRINK_INACTIVE, "SHRINK_ACTIVE": EV_SHRINK_ACTIVE,
}


cdef void vmscan_row(Mm* mm, unsigned event, uint32_t value, uint32_t index, unsigned a, unsigned b, unsigned c, unsigned d,
                     unsigned e) noexcept nogil:
    cdef size_t before = mm.trace.used
    trace_append(&mm.trace, event, value, a, b, c, d, e)
    if mm.trace.used > before and (event == EV_PAGE_ADD or event == EV_PAGE_DEL):
        mm.trace.rows[before].op = index


def watched(State state not None, Tracer tracer not None, call):
    """What call() returns; what it does to `state` leaves rows in `tracer`. RuntimeError if either is in use for another trace."""
    state_lock(state)
    try:
        if tracer.busy or state.c.trace.enabled:
            raise RuntimeError("the tracer, or the machine, is in use for another trace")
        tracer.busy = True
        state.c.trace = tracer.buf
    finally:
        state_unlock(state)
    try:
        return call()
    finally:
        state_lock(state)
        tracer.buf = state.c.trace
        tracer.busy = False
        state.c.trace.rows = NULL
        state.c.trace.enabled = 0
        state_unlock(state)
