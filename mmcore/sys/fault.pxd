# Page faults (mm/memory.c: handle_mm_fault). See fault.pyx.

from libc.stdint cimport int64_t, uint32_t, uint64_t
from mmcore.base.records cimport Mm

# The whole way: finds the VMA, grows a stack, checks rights, counts.
cdef int handle_fault(Mm* mm, uint32_t as_, uint64_t address, bint write, unsigned cpu) noexcept nogil
# A row of nr write faults on pages vpn, vpn + 1, ... that one page table holds, as single faults would go; how many of them were minor
# faults on fresh anonymous memory. 0: take the first one by itself.
cdef int64_t fault_row(Mm* mm, uint32_t as_, uint64_t vpn, int64_t nr, unsigned cpu) noexcept nogil
# Every page of [start, end) is faulted in (mlock, MAP_POPULATE, MADV_POPULATE_*): 0, or -E_NOMEM, -E_FAULT.
cdef int64_t populate_range(Mm* mm, uint32_t as_, uint64_t start, uint64_t end, bint write, unsigned cpu) noexcept nogil
