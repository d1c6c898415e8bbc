# The TLBs of a machine: what each CPU remembers of page tables, and the flushes that make it forget. See tlb.pyx.
#
# An address space is a number `mm` (1 and above; CONTRACTS: index + 1); 0 is the kernel, whose translations are global: they hit
# whatever address space is loaded. A caller names kernel addresses with mm 0. A page is vpn = address >> 12, canonical.

cimport numpy as cnp
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

# TlbConfig.kind
cdef enum:
    TLB_OFF = 0
    TLB_SETS = 1                # sets and ways
    TLB_UNBOUNDED = 2           # every translation since the last flush

# What a lookup finds.
cdef enum:
    TLB_MISS = 0
    TLB_L1 = 1
    TLB_L2 = 2
    TLB_CLEAN = 3               # cached, but a write must walk: the entry is not writable, or not known to be dirty

cdef enum:
    TLB_MAX_PARTS = 8
    TLB_MAX_WALK_LEVELS = 4     # upper levels of a 5-level table
    TLB_MAX_ASIDS = 6           # TLB_NR_DYN_ASIDS
    TLB_SLOTS = 8
    TLB_GLOBAL = 7              # slot of the global entries

cdef struct TlbPart:            # one structure of every CPU
    uint32_t level              # 1 or 2
    uint32_t sizes              # bit 0: 4 KiB pages, 1: 2 MiB, 2: 1 GiB
    uint32_t sets
    uint32_t ways
    uint32_t first              # its first entry among those of its CPU
    uint32_t pieces             # keeps a page of 1 GiB as the 2 MiB piece that was touched

cdef struct TlbConfig:
    uint32_t kind
    uint32_t nr_cpus
    uint32_t nr_parts
    uint32_t entries            # of one CPU
    uint32_t nr_asids           # 1: no PCID, every switch flushes
    uint32_t walk_entries       # of the walk cache of each upper level; 0: none
    uint32_t pt_levels
    uint32_t pt_bits
    uint32_t flush_ceiling      # tlb_single_page_flush_ceiling
    uint32_t nr_mms             # address spaces are 1..nr_mms - 1
    uint32_t min_log            # size of the table of TLB_UNBOUNDED: 2^log blocks
    uint32_t max_log

cdef struct TlbCpu:             # struct tlb_state
    uint64_t clock              # of the LRU stamps
    uint64_t flushes            # of any kind: while it stays the same, entries do not go but by replacement
    uint64_t missed             # vpn << 3 | slot of a lookup that found nothing, until the next fill; all ones: none
    uint64_t gen[8]             # by slot: entries of an older generation are gone
    uint64_t walk_gen[8]        # the same of the walk caches
    uint64_t slot_gen[8]        # the address space's flush generation that the slot has seen (tlb_context.tlb_gen)
    uint32_t slot_mm[8]         # who owns the slot; 0: nobody
    uint32_t loaded_mm          # 0: init_mm
    uint32_t slot               # of loaded_mm
    uint32_t next_asid
    uint32_t lazy               # runs a kernel thread on a borrowed address space
    uint32_t sizes              # page sizes ever filled since all was flushed, a bit each
    uint32_t pieces             # so for pieces of 1 GiB pages

cdef struct TlbStats:
    uint64_t l1_hits
    uint64_t l2_hits
    uint64_t misses[3]          # fills of what was not cached, by page size
    uint64_t rewalks            # lookups that found TLB_CLEAN
    uint64_t walk_steps         # memory accesses of page walks
    uint64_t walk_cache_hits
    uint64_t nr_tlb_local_flush_one
    uint64_t nr_tlb_local_flush_all
    uint64_t nr_tlb_remote_flush
    uint64_t nr_tlb_remote_flush_received
    uint64_t switches
    uint64_t switch_flushes

cdef struct TlbBlock:           # TLB_UNBOUNDED: what a CPU remembers of 64 neighbouring pages of one size
    uint64_t page               # page number / 64 << 2 | size
    uint64_t space              # generation << 16 | cpu << 3 | slot; 0: no block here
    uint64_t present
    uint64_t writes             # entries through which a write needs no walk

cdef struct TlbTable:
    uint32_t log                # the blocks stand at [2^log, 2^(log + 1))
    uint32_t pad
    uint64_t used
    uint64_t rebuilds
    uint64_t overflows          # times that all was forgotten because max_log did not suffice

cdef struct Tlb:                # raw addresses, and nothing that has to be saved
    TlbConfig* g
    TlbPart* parts
    TlbCpu* cpus
    TlbStats* stats
    uint64_t* mm_gen            # by mm: how often it was flushed (mm_context_t.tlb_gen)
    uint64_t* keys              # cpu * entries + entry
    uint64_t* stamps            # clock << 3 | flags
    uint64_t* full_at           # by the first entry of a set: `flushes` when all its ways were last seen to be taken
    uint64_t* walk_keys         # ((cpu * TLB_MAX_WALK_LEVELS) + level - 1) * walk_entries + entry
    uint64_t* walk_stamps
    uint64_t* walk_full_at
    TlbTable* table
    TlbBlock* blocks

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

cdef class TlbModel:
    cdef readonly cnp.ndarray config
    cdef readonly cnp.ndarray parts
    cdef readonly cnp.ndarray cpus
    cdef readonly cnp.ndarray cpu_stats
    cdef readonly cnp.ndarray mm_gen
    cdef readonly cnp.ndarray keys
    cdef readonly cnp.ndarray stamps
    cdef readonly cnp.ndarray full_at
    cdef readonly cnp.ndarray walk_keys
    cdef readonly cnp.ndarray walk_stamps
    cdef readonly cnp.ndarray walk_full_at
    cdef readonly cnp.ndarray table
    cdef readonly cnp.ndarray blocks
    cdef Tlb c
    cdef int lock
    cdef int make(self, object config, object parts) except -1
    cdef int bind(self) except -1
    cdef void enter(self) noexcept
    cdef void leave(self) noexcept
    cdef unsigned cpu_of(self, object cpu) except? 0xffffffff
    cdef uint32_t mm_of(self, object mm, uint32_t least) except? 0xffffffff
    cdef unsigned shift_of_page(self, object page_shift) except? 0xffffffff
