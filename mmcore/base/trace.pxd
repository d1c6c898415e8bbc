# Tracepoints of the page allocator (include/trace/events/kmem.h), off unless a Tracer is attached for a run.

from libc.stdint cimport uint32_t
from mmcore.base.records cimport Mm, TraceBuf, TraceRow

cdef enum:
    EV_RMQUEUE = 1
    EV_PCP_DRAIN = 2
    EV_EXTFRAG = 3

cdef void trace_append(TraceBuf* t, unsigned event, uint32_t pfn, unsigned order, unsigned mt,
                       unsigned fb_order, unsigned fb_mt, unsigned claimed) noexcept nogil

cdef inline void trace_event(Mm* mm, unsigned event, uint32_t pfn, unsigned order, unsigned mt) noexcept nogil:
    if mm.trace.enabled:
        trace_append(&mm.trace, event, pfn, order, mt, 0, 0, 0)

cdef class Tracer:
    cdef TraceBuf buf
    cdef bint busy          # a run without the GIL has the buffer
