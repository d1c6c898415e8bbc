# run(state, ops, budget): see engine.pyx.

from libc.stdint cimport int64_t, uint32_t, uint64_t
from mmcore.base.records cimport Mm
from mmcore.run.ops cimport OpRecord

cpdef enum Stop:
    DONE = 0                # the stream is at its end
    BUDGET = 1              # as many ops as asked for were run
    AT_CHECKPOINT = 2       # a CHECKPOINT op was run

cdef struct Stream:
    const OpRecord* ops
    int64_t* rc
    uint64_t* value
    uint32_t* pages_out
    int64_t nr
    int64_t pages_size
    int64_t pages_used

# Runs ops[at:end]; returns the index behind the last one run, with `stop` set. Never fails: a bad op gets a negative rc.
cdef int64_t run_ops(Mm* mm, Stream* s, int64_t at, int64_t end, int* stop) noexcept nogil
