# Charging pages and kernel objects to memory control groups, with all that a full group sets off. See charge.pyx.
# Group 0 is the root, which is never charged: nothing happens, and the result is 0.

from libc.stdint cimport int64_t, uint32_t
from mmcore.base.records cimport Mm

cdef enum:
    MEMCG_MAX = 0               # which limit memcg_write() sets
    MEMCG_HIGH = 1
    MEMCG_LOW = 2
    MEMCG_MIN = 3
    MEMCG_SWAP_MAX = 4

# try_charge_memcg(): 0, or -E_NOMEM: the group stays full (memory.events oom counts it, unless the caller did not want that).
cdef int try_charge(Mm* mm, uint32_t id_, int64_t n, unsigned gfp, unsigned cpu) noexcept nogil
# mem_cgroup_charge(): the 2^order pages from pfn on, not on a list yet.
cdef int charge_folio(Mm* mm, uint32_t pfn, unsigned order, uint32_t id_, unsigned gfp, unsigned cpu) noexcept nogil
# A new folio, charged: its page frame or -E_NOMEM.
cdef int64_t alloc_charged(Mm* mm, unsigned gfp, unsigned order, uint32_t id_, unsigned cpu) noexcept nogil
# __memcg_kmem_charge_page(): a page table. Its NS_NR_PAGE_TABLE_PAGES is for the caller, by lruvec_stat_mod(), after this.
cdef int charge_kernel_page(Mm* mm, uint32_t pfn, uint32_t id_, unsigned gfp, unsigned cpu) noexcept nogil
# Kernel pages that no page frame here stands for (n below zero: they go). Pages charged, or -E_NOMEM if none.
cdef int64_t charge_outside(Mm* mm, uint32_t id_, int64_t n, unsigned gfp, unsigned cpu) noexcept nogil
# A reclaimable slab object: `bytes_` with its owner pointer (an index node of a page cache: 592).
cdef int charge_object(Mm* mm, uint32_t id_, uint32_t bytes_, unsigned gfp, unsigned cpu) noexcept nogil
cdef void uncharge_object(Mm* mm, uint32_t id_, uint32_t bytes_, unsigned cpu) noexcept nogil
# mem_cgroup_handle_over_high(): reclaim, then perhaps a pause, of a task whose group is above memory.high; at return to user mode.
cdef void handle_over_high(Mm* mm, unsigned cpu) noexcept nogil
# Ticks of 4 ms that a charge of n pages costs: what memory.high and memory.swap.high ask for (2 s at most).
cdef int64_t high_delay(Mm* mm, uint32_t id_, int64_t n) noexcept nogil

# Writing memory.max, high, low, min, swap.max (pages): 0, -E_NOENT, -E_INVAL. memory.reclaim: pages freed, or -E_AGAIN if less than wanted.
cdef int memcg_write(Mm* mm, uint32_t id_, unsigned which, int64_t pages, unsigned cpu) noexcept nogil
cdef int64_t memcg_reclaim(Mm* mm, uint32_t id_, int64_t pages, int swappiness, unsigned cpu) noexcept nogil
# An address space (index + 1) joins a group; its pages stay charged where they are. Leaving: group 0.
cdef int memcg_attach(Mm* mm, uint32_t as_, uint32_t id_) noexcept nogil
