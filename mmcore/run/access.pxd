# Streams of memory accesses of one address space: the compact form of CONTRACTS.md. See access.pyx.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from mmcore.base.records cimport Mm

cdef struct AccessCounts:
    int64_t result[8]       # by mmcore.sys.fault.Fault
    uint8_t read_bit        # set in the code of a fault during which pages came from a device; 0: not told

# Accesses vpns[0:n] in order; writes: a byte an access, or NULL with `all_write`; codes: receives a Fault a access, or NULL.
# Stops behind an access that found no memory (OOM); returns how many were made.
cdef int64_t run_accesses(Mm* mm, uint32_t as_, const uint64_t* vpns, const uint8_t* writes, bint all_write, int64_t n, unsigned cpu,
                          uint8_t* codes, AccessCounts* counts) noexcept nogil
