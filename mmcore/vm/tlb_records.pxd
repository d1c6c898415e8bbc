# The records of the TLBs (struct tlb_state and what the hardware keeps). Their meaning: tlb.pyx, which works on them.

from libc.stdint cimport uint32_t, uint64_t

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

# An entry is one word, page number << 19 | size << 17 | generation << 3 | slot, with a stamp clock << 3 | flags beside it.
cdef enum:
    GEN_MASK = (1 << 14) - 1
    KEY_SHIFT = 17
    E_WRITABLE = 1
    E_DIRTY = 2
    E_PIECE = 4             # of a larger page
    E_FLAGS = 7
    STAMP_SHIFT = 3
    MAX_CPUS = 1 << 13      # what TlbBlock.space has room for
    MAX_ENTRIES = 1 << 24   # of all CPUs
    MAX_LOG = 26
    AHEAD = 16              # accesses that are fetched before they are looked up

# generations are never 0 in the bits kept, an empty entry is
cdef inline bint alive(const uint64_t* gen, uint64_t key) noexcept nogil:
    return key >> 3 & GEN_MASK == gen[key & 7] & GEN_MASK
