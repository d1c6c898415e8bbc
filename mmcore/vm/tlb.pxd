# The TLBs of a machine: what each CPU remembers of page tables, and the flushes that make it forget. See tlb.pyx.
#
# An address space is a number `mm` (1 and above; CONTRACTS: index + 1); 0 is the kernel, whose translations are global: they hit
# whatever address space is loaded. A caller names kernel addresses with mm 0. A page is vpn = address >> 12, canonical.

from libc.stdint cimport uint32_t, uint64_t
from mmcore.vm.tlb_records cimport TLB_CLEAN, TLB_L1, TLB_L2, TLB_MISS, Tlb

# TLB_MISS, TLB_L1, TLB_L2 or TLB_CLEAN. A CPU that has another address space loaded switches first.
cdef int tlb_lookup(Tlb* t, unsigned cpu, uint32_t mm, uint64_t vpn, bint write) noexcept nogil
# Fetches what a lookup of a 4 KiB page will read, some accesses ahead (matters for TLB_UNBOUNDED only).
cdef void tlb_prefetch(Tlb* t, unsigned cpu, uint32_t mm, uint64_t vpn) noexcept nogil
# The walk that follows a miss or TLB_CLEAN, and the entry that it brings; returns the memory accesses that it cost. page_shift: 12, or that
# of a huge page; dirty: the page-table entry's dirty bit after the access.
cdef unsigned tlb_fill(Tlb* t, unsigned cpu, uint32_t mm, uint64_t vpn, unsigned page_shift, bint writable, bint dirty) noexcept nogil
# A walk alone (one that ends in a fault): charges it and returns its memory accesses.
cdef unsigned tlb_walk(Tlb* t, unsigned cpu, uint32_t mm, uint64_t vpn, unsigned page_shift) noexcept nogil

# Loads an address space (switch_mm_irqs_off); whether that flushed. 0: init_mm. Ends lazy mode.
cdef bint tlb_switch_mm(Tlb* t, unsigned cpu, uint32_t mm) noexcept nogil
# A kernel thread or the idle task runs: the address space stays loaded (enter_lazy_tlb).
cdef void tlb_enter_lazy(Tlb* t, unsigned cpu) noexcept nogil
# An address space is no more, its number may come again.
cdef void tlb_drop_mm(Tlb* t, uint32_t mm) noexcept nogil

# flush_tlb_mm_range: [start, end) in bytes; end ~0: everything. cpumask: bits of the CPUs that may hold translations of mm, 32 to a word;
# NULL: those that have it loaded, which is the same set. Returns the IPIs sent.
cdef unsigned tlb_shootdown(Tlb* t, unsigned cpu, const uint32_t* cpumask, uint32_t mm, uint64_t start, uint64_t end, unsigned stride_shift,
                            bint freed_tables) noexcept nogil
cdef unsigned tlb_flush_range(Tlb* t, unsigned cpu, uint32_t mm, uint64_t start, uint64_t end, unsigned stride_shift,
                              bint freed_tables) noexcept nogil
cdef unsigned tlb_flush_mm(Tlb* t, unsigned cpu, uint32_t mm) noexcept nogil
# Reclaim: note each address space that something was unmapped from, then flush once (arch_tlbbatch_add_pending, arch_tlbbatch_flush).
# cpumask NULL: every CPU whose loaded address space was noted.
cdef void tlb_batch_add(Tlb* t, uint32_t mm) noexcept nogil
cdef unsigned tlb_batch_flush(Tlb* t, unsigned cpu, const uint32_t* cpumask) noexcept nogil
# Global translations, on every CPU (flush_tlb_kernel_range, flush_tlb_all).
cdef void tlb_flush_kernel_range(Tlb* t, unsigned cpu, uint64_t start, uint64_t end) noexcept nogil
cdef void tlb_flush_all(Tlb* t, unsigned cpu) noexcept nogil
# One CPU forgets everything, global translations too.
cdef void tlb_flush_local(Tlb* t, unsigned cpu) noexcept nogil
