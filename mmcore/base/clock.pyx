"""The event queue of the simulated machine.

Models: what timers, completions of I/O and wake-ups are to a kernel: work due at a time. Simplifies: one queue for all CPUs; the event
that was posted first comes first among those of the same nanosecond. Omits: cancelling (who changed his mind
sees by the event's time, or by a mark in it, that it is not the one he waits for).

A binary heap over the pool `events`: PoolInfo.used and .live are the number of events queued, records behind them are zero; the pool's
free list is never used. Keys differ (seq), so the order of taking depends on nothing but the keys; a sorted array is a heap too, and is
the canonical form when machines are compared.
"""
from libc.string cimport memset

from mmcore.base.args cimport as_int
from mmcore.base.errors cimport E_INVAL, E_NOMEM, check
from mmcore.base.state cimport State, state_enter, state_leave
from mmcore.base.vm_records cimport PoolInfo

EVENT_KINDS = (
    "none", "io_done", "flusher", "kswapd", "stat_fold", "task", "throttle", "vmstat_tick", "khugepaged", "kcompactd", "reaper",
)


cdef inline void sift_up(Event* heap, uint32_t at, const Event* e) noexcept nogil:
    cdef uint32_t up
    while at:
        up = (at - 1) // 2
        if not event_before(e, &heap[up]):
            break
        heap[at] = heap[up]
        at = up
    heap[at] = e[0]


cdef inline void sift_down(Event* heap, uint32_t nr, uint32_t at, const Event* e) noexcept nogil:
    cdef uint32_t child
    while True:
        child = 2 * at + 1
        if child >= nr:
            break
        if child + 1 < nr and event_before(&heap[child + 1], &heap[child]):
            child += 1
        if not event_before(&heap[child], e):
            break
        heap[at] = heap[child]
        at = child
    heap[at] = e[0]


cdef int post_event(Mm* mm, int64_t time_ns, unsigned kind, uint64_t a, uint64_t b) noexcept nogil:
    cdef PoolInfo* p = &mm.vm.pools[POOL_EVENTS]
    cdef Event e
    if time_ns < 0 or time_ns > last_time_ns() or kind == EV_NONE or kind >= NR_EVENT_KINDS:
        return -E_INVAL
    if p.used == p.capacity:
        return -E_NOMEM
    e.link = 0
    e.kind = kind
    e.time_ns = time_ns
    e.seq = mm.vm.g.next_event
    e.a = a
    e.b = b
    mm.vm.g.next_event += 1
    p.used += 1
    p.live += 1
    sift_up(mm.vm.events, p.used - 1, &e)
    return 0


cdef bint take_event(Mm* mm, int64_t until_ns, Event* out) noexcept nogil:
    cdef PoolInfo* p = &mm.vm.pools[POOL_EVENTS]
    cdef Event last
    if p.used == 0 or mm.vm.events[0].time_ns > until_ns:
        return False
    out[0] = mm.vm.events[0]
    p.used -= 1
    p.live -= 1
    last = mm.vm.events[p.used]
    memset(&mm.vm.events[p.used], 0, sizeof(Event))
    if p.used:
        sift_down(mm.vm.events, p.used, 0, &last)
    return True


cdef int check_events(Mm* mm) noexcept nogil:
    cdef PoolInfo* p = &mm.vm.pools[POOL_EVENTS]
    cdef Event* e
    cdef uint32_t at
    if p.live != p.used or p.free_head:
        return -1
    for at in range(p.used):
        e = &mm.vm.events[at]
        if e.kind == EV_NONE or e.kind >= NR_EVENT_KINDS or e.link or not 0 <= e.time_ns <= last_time_ns() or e.seq >= mm.vm.g.next_event:
            return -1
        if at and not event_before(&mm.vm.events[(at - 1) // 2], e):
            return -1
    return 0


# ---------------------------------------------------------------- entries from Python: for tests, and for what is watched from there

def post(State state not None, time_ns, kind, a=0, b=0):
    """Queue an event: kind is a name of EVENT_KINDS. MemoryError when the queue is full."""
    cdef int64_t t = as_int(time_ns, "time_ns", 0, last_time_ns())
    cdef uint64_t x = <uint64_t>as_int(a, "a", 0, 0x7fffffffffffffff), y = <uint64_t>as_int(b, "b", 0, 0x7fffffffffffffff)
    cdef int rc
    if kind not in EVENT_KINDS[1:]:
        raise ValueError(f"kind is {kind!r}; it must be one of {', '.join(EVENT_KINDS[1:])}")
    cdef unsigned k = <unsigned>EVENT_KINDS.index(kind)
    state_enter(state)
    rc = post_event(&state.c, t, k, x, y)
    state_leave(state)
    check(rc, "the event queue is full")


def next_time(State state not None):
    """When the next event is due; None if there is none."""
    cdef int64_t t
    state_enter(state)
    t = next_event_time(&state.c)
    state_leave(state)
    return None if t == NO_EVENT else t


def take(State state not None, until_ns):
    """The first event, if it is due at until_ns or earlier, as (time, kind, a, b); None otherwise. It leaves the queue: for tests only."""
    cdef int64_t t = as_int(until_ns, "until_ns", 0, last_time_ns())
    cdef Event e
    cdef bint got
    state_enter(state)
    got = take_event(&state.c, t, &e)
    state_leave(state)
    return (e.time_ns, EVENT_KINDS[e.kind], e.a, e.b) if got else None


def pending(State state not None):
    """Everything that is queued, in its order, as (time, kind, a, b)."""
    events = state.get("events").copy()
    events.sort(order=("time_ns", "seq"))
    return [(int(e["time_ns"]), EVENT_KINDS[int(e["kind"])], int(e["a"]), int(e["b"])) for e in events]


def sound(State state not None):
    """Whether the queue of a loaded state is one."""
    cdef int rc
    state_enter(state)
    rc = check_events(&state.c)
    state_leave(state)
    return rc == 0
