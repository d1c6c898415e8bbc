# The operation record: everything that can happen to a machine is one of these, a live call as well as a line of a trace.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef struct OpRecord:
    uint8_t op
    uint8_t flags
    uint16_t cpu
    uint32_t task
    uint32_t mm
    uint32_t ref            # index of an earlier op whose result is meant
    uint64_t a
    uint64_t b
    uint64_t c

cpdef enum Op:
    NOP = 0
    ALLOC = 1               # a order, b gfp, c node + 1 (0: local)       value: pfn
    FREE = 2                # ref, a offset in its block or bulk, b order   value: pfn freed
    ALLOC_BULK = 3          # a pages wanted, b gfp, c node + 1           rc: pages got, value: offset in pages_out
    VMSTAT_TICK = 4
    KSWAPD_BEGIN = 5        # a node
    KSWAPD_END = 6
    SYSCTL = 7              # a which (mmcore.phys.watermark.Sysctl), b value, c index
    ADVANCE = 8             # a nanoseconds
    CHECKPOINT = 9          # a id; the run stops behind it
    DRAIN_ALL = 10
    SPLIT = 11              # ref: split_page() of what that op returned

cpdef enum OpFlag:
    OPF_LRU = 1             # the pages count as LRU pages until they are freed
    OPF_OOM_VICTIM = 2
    OPF_MEMALLOC = 4
    OPF_PFN = 128           # a is a page frame that was in use before the stream began
