"""Events that are due: completions of I/O and the flusher.

Models: interrupts and timers. Simplifies: what an event does takes no CPU time of its own. Omits: events of actors that this module does
not know; the caller gets them.
"""
from mmcore.base.args cimport as_int
from mmcore.base.clock cimport EV_FLUSHER, EV_IO_DONE, EV_NONE, last_time_ns, next_event_time, take_event
from mmcore.base.state cimport State, state_lock, state_unlock
from mmcore.reclaim.memcg cimport memcg_fold_due
from mmcore.reclaim.writeback cimport end_page_io
from mmcore.run.flusher cimport flusher_is_due, flusher_step


cdef bint run_event(Mm* mm, int64_t until_ns, Event* out) noexcept nogil:
    if not take_event(mm, until_ns, out):
        return False
    if out.time_ns > mm.g.now_ns:
        mm.g.now_ns = out.time_ns
    if out.kind == EV_IO_DONE:
        end_page_io(mm, out)
        out.kind = EV_NONE
    elif out.kind == EV_FLUSHER:
        # also one that is no longer waited for: then nothing is due
        flusher_step(mm, 0)
        out.kind = EV_NONE
    return True


cdef void run_events(Mm* mm, int64_t until_ns) noexcept nogil:
    cdef Event e
    while run_event(mm, until_ns, &e):
        pass
    if until_ns > mm.g.now_ns:
        mm.g.now_ns = until_ns
    # a wake-up that found the queue full
    if flusher_is_due(mm):
        flusher_step(mm, 0)


cdef void pass_time(Mm* mm, int64_t ns) noexcept nogil:
    cdef int64_t until = mm.g.now_ns + ns, due
    if ns <= 0:
        return
    due = next_event_time(mm)
    if due >= 0 and due <= until:
        run_events(mm, until)
    else:
        mm.g.now_ns = until
    memcg_fold_due(mm)


def run_until(State state not None, until_ns):
    """Let time pass up to until_ns with everything that is due by then; the time afterwards."""
    cdef int64_t t = as_int(until_ns, "until_ns", 0, last_time_ns())
    state_lock(state)
    with nogil:
        run_events(&state.c, t)
    state_unlock(state)
    return state.c.g.now_ns
