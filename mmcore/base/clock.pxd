# The event queue: what is due, ordered by time, then by the order in which it was asked for. Every room may post, only run/ takes. See clock.pyx.

from libc.stdint cimport int64_t, uint32_t, uint64_t
from mmcore.base.records cimport Mm
from mmcore.base.vm_records cimport POOL_EVENTS, Event

cdef enum:
    NO_EVENT = -1                   # next_event_time() of an empty queue
    TICK_NS = 4000000               # a jiffy (HZ=250)

# What an event is for. a and b are the business of who posts it.
cdef enum:
    EV_NONE = 0
    EV_IO_DONE = 1                  # a: page frame | its mark << 32; b: device | IO_* << 32 | CPU that submitted << 40
    EV_FLUSHER = 2                  # the flusher's timer
    EV_KSWAPD = 3                   # a: node
    EV_STAT_FOLD = 4                # the groups' statistics are folded
    EV_TASK = 5                     # a: task that waited
    EV_THROTTLE = 6                 # a: node whose reclaimers waited
    EV_VMSTAT_TICK = 7              # a: CPU
    EV_KHUGEPAGED = 8
    EV_KCOMPACTD = 9                # a: node
    EV_REAPER = 10
    NR_EVENT_KINDS = 11

# The greatest time there is: 2^62 ns.
cdef inline int64_t last_time_ns() noexcept nogil:
    return <int64_t>1 << 62

# Timeouts end at ticks.
cdef inline int64_t round_up_tick(int64_t ns) noexcept nogil:
    return (ns + TICK_NS - 1) // TICK_NS * TICK_NS

# Whether an event stands before another.
cdef inline bint event_before(const Event* x, const Event* y) noexcept nogil:
    return x.time_ns < y.time_ns or (x.time_ns == y.time_ns and x.seq < y.seq)

cdef inline uint32_t nr_events(Mm* mm) noexcept nogil:
    return mm.vm.pools[POOL_EVENTS].used

# When the next event is due, NO_EVENT if there is none. It may lie in the past: then it is due at once.
cdef inline int64_t next_event_time(Mm* mm) noexcept nogil:
    return mm.vm.events[0].time_ns if mm.vm.pools[POOL_EVENTS].used else NO_EVENT

# 0; -E_NOMEM when the queue is full, -E_INVAL for a time that does not exist.
cdef int post_event(Mm* mm, int64_t time_ns, unsigned kind, uint64_t a, uint64_t b) noexcept nogil
# Takes the first event, if it is due at until_ns or earlier.
cdef bint take_event(Mm* mm, int64_t until_ns, Event* out) noexcept nogil
# 0, or -1 when the heap is not one (a loaded state).
cdef int check_events(Mm* mm) noexcept nogil
