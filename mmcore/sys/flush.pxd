# TLB flushes of system calls and faults: when, and over which range. See flush.pyx. Nothing happens on a machine without TLBs.

from libc.stdint cimport uint32_t, uint64_t
from mmcore.base.records cimport Mm
from mmcore.vm.pgtable cimport entry_index, table_of_entry, vpn_of_entry

cdef struct FlushRange:     # what struct mmu_gather knows of a flush to come
    uint64_t start          # bytes; start >= end: nothing
    uint64_t end
    uint64_t first          # where the call began: what is flushed when only tables go
    uint32_t stride         # shift of the smallest entry
    uint32_t pages          # that will be gathered
    uint32_t tables         # page tables in use before

# Of [start, end), bytes, of an address space; freed_tables: idle CPUs are told too. The CPU need not run this address space.
cdef void flush_range(Mm* mm, uint32_t as_, uint64_t start, uint64_t end, unsigned stride, bint freed_tables, unsigned cpu) noexcept nogil
# The rest is done by a task of the address space, which its CPU has loaded therefore.
cdef void flush_mm(Mm* mm, uint32_t as_, unsigned cpu) noexcept nogil
cdef void flush_page(Mm* mm, uint32_t as_, uint64_t vpn, unsigned cpu) noexcept nogil
cdef void flush_kernel_range(Mm* mm, uint64_t start, uint64_t end, unsigned cpu) noexcept nogil
# All is unmapped, and the number of the address space may come again.
cdef void flush_exit(Mm* mm, uint32_t as_, unsigned cpu) noexcept nogil
# Notes what is mapped in [start, end) before it is unmapped or made old; then the flush.
cdef void flush_note(Mm* mm, uint32_t as_, uint64_t start, uint64_t end, FlushRange* f) noexcept nogil
cdef void flush_noted(Mm* mm, uint32_t as_, FlushRange* f, unsigned cpu) noexcept nogil
# The same from a CPU that may run another address space (truncation, reclaim).
cdef void flush_noted_remote(Mm* mm, uint32_t as_, FlushRange* f, unsigned cpu) noexcept nogil
# Notes one entry for vpn that changes; only rights that go matter.
cdef void note_change(FlushRange* f, uint64_t vpn, unsigned shift, uint64_t old, uint64_t value) noexcept nogil

cdef inline void flush_begin(FlushRange* f) noexcept nogil:
    f.start = ~<uint64_t>0
    f.end = f.pages = f.tables = 0
    f.stride = 63

# The page of one small entry.
cdef inline void flush_entry(Mm* mm, const uint64_t* pte, unsigned cpu) noexcept nogil:
    cdef uint32_t index
    if mm.vm.tlb != NULL:
        index = entry_index(mm, pte)
        flush_page(mm, table_of_entry(mm, index).mm, vpn_of_entry(mm, index), cpu)
