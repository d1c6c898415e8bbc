"""A growing record of tracepoints.

Models: kmem:mm_page_alloc_zone_locked (rmqueue), kmem:mm_page_pcpu_drain, kmem:mm_page_alloc_extfrag. Simplifies: rows name the op
that caused them instead of a time. Omits: mm_page_alloc and mm_page_free, which the results of the ops already tell.
"""
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy

import numpy as np
from mmcore.base.records import TRACE_DTYPE

cimport numpy as cnp

cnp.import_array()


cdef void trace_append(TraceBuf* t, unsigned event, uint32_t pfn, unsigned order, unsigned mt,
                       unsigned fb_order, unsigned fb_mt, unsigned claimed) noexcept nogil:
    cdef TraceRow* grown
    cdef size_t size
    if t.used == t.size:
        size = t.size * 2 if t.size else 4096
        grown = <TraceRow*>realloc(t.rows, size * sizeof(TraceRow))
        if grown == NULL:
            t.lost += 1
            return
        t.rows = grown
        t.size = size
    cdef TraceRow* r = &t.rows[t.used]
    t.used += 1
    r.op = t.op
    r.pfn = pfn
    r.event = <unsigned char>event
    r.order = <unsigned char>order
    r.mt = <unsigned char>mt
    r.fb_order = <unsigned char>fb_order
    r.fb_mt = <unsigned char>fb_mt
    r.claimed = <unsigned char>claimed
    r.pad = 0


cdef class Tracer:
    """Collects tracepoint rows of the runs it is passed to; `take()` empties it."""

    def __cinit__(self):
        self.buf.rows = NULL
        self.buf.used = self.buf.size = 0
        self.buf.lost = 0
        self.buf.enabled = 1

    def __dealloc__(self):
        free(self.buf.rows)

    def __len__(self):
        return self.buf.used

    @property
    def lost(self):
        """Rows that no memory could be had for."""
        return self.buf.lost

    def take(self):
        """Rows collected since the last call: array of TRACE_DTYPE, in order of happening. RuntimeError while a run fills it."""
        if self.busy:
            raise RuntimeError("the tracer is in use by a run on another thread")
        out = np.empty(self.buf.used, TRACE_DTYPE)
        if self.buf.used:
            memcpy(cnp.PyArray_DATA(<cnp.ndarray>out), self.buf.rows, self.buf.used * sizeof(TraceRow))
        self.buf.used = 0
        return out
