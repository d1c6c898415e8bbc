# The flusher: the actor that writes dirty files back (fs/fs-writeback.c). See flusher.pyx.

from mmcore.base.records cimport Mm

# Whether it wants to run at now_ns.
cdef inline bint flusher_is_due(Mm* mm) noexcept nogil:
    return mm.vm.g.wb_due_ns != 0 and mm.vm.g.wb_due_ns <= mm.g.now_ns

# What it does when it is due (an EV_FLUSHER event, or time that reaches wb_due_ns); nothing when it is not. It works until it has nothing left
# to do or the device has no room, and says in wb_due_ns when it goes on.
cdef void flusher_step(Mm* mm, unsigned cpu) noexcept nogil
