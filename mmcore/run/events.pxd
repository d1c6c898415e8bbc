# Events that are due, and those who act on them. See events.pyx.

from libc.stdint cimport int64_t
from mmcore.base.records cimport Mm
from mmcore.base.vm_records cimport Event

# Takes the next event that is due at until_ns or earlier and does what it stands for, at its time (now_ns moves on to it). False when there is
# none. What this room knows no actor for is left in out[0] with its kind, for the caller (EV_NONE: it was dealt with).
cdef bint run_event(Mm* mm, int64_t until_ns, Event* out) noexcept nogil
# A CPU was busy for so long: time moves on, and what is due by then happens.
cdef void pass_time(Mm* mm, int64_t ns) noexcept nogil
# Everything that is due by then; now_ns is until_ns afterwards (it never goes back).
cdef void run_events(Mm* mm, int64_t until_ns) noexcept nogil
