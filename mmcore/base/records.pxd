# The records that several rooms share. Each numpy dtype is derived from its struct (records.pyx); a golden test pins names and offsets.
# Rules: fixed width, widest first, explicit padding, flat, no pointers; all-zero memory is a valid state; links are index + 1 (0 is none).

from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from mmcore.base.vm_records cimport VmRoom

cdef enum:
    MAX_PAGE_ORDER = 10
    NR_PAGE_ORDERS = 11
    PAGEBLOCK_ORDER = 9
    PAGEBLOCK_NR_PAGES = 512
    MIGRATE_UNMOVABLE = 0
    MIGRATE_MOVABLE = 1
    MIGRATE_RECLAIMABLE = 2
    MIGRATE_PCPTYPES = 3
    MIGRATE_HIGHATOMIC = 3
    MIGRATE_ISOLATE = 4
    MIGRATE_TYPES = 5
    NR_PCP_LISTS = 14
    PCP_BATCH_SCALE_MAX = 5
    PAGE_ALLOC_COSTLY_ORDER = 3
    NR_WMARK = 4
    WMARK_MIN = 0
    WMARK_LOW = 1
    WMARK_HIGH = 2
    WMARK_PROMO = 3
    MAX_NR_ZONES = 5
    NR_VM_ZONE_STAT_ITEMS = 12
    NR_VM_NUMA_EVENT_ITEMS = 6
    NR_VM_NODE_STAT_ITEMS = 47
    NR_FREE_PAGES = 0
    NUMA_HIT = 0
    NUMA_MISS = 1
    NUMA_FOREIGN = 2
    NUMA_INTERLEAVE_HIT = 3
    NUMA_LOCAL = 4
    NUMA_OTHER = 5
    ZONE_BOOSTED_WATERMARK = 1      # zone flag bits (enum zone_flags)
    ZONE_RECLAIM_ACTIVE = 2
    ZONE_BELOW_HIGH = 4
    PCPF_PREV_FREE_HIGH_ORDER = 1
    PCPF_FREE_HIGH_BATCH = 2
    NODE_DIRTY = 1                  # node flag bits (enum pgdat_flags): kswapd met only dirty pages, or only pages under write-back
    NODE_WRITEBACK = 2
    NODE_RECLAIM_LOCKED = 4
    NO_ZID = 255
    HEADS_PER_ZONE = 56             # 11 orders x 5 types, and the sentinel of the untouched blocks

cdef struct Page:                   # hot, 16 bytes: what allocation, freeing and LRU lists touch
    uint32_t next                   # list links: index + 1
    uint32_t prev
    uint32_t private_               # the owner's word (page->private, later the rmap)
    uint32_t flags

cdef struct PageMeta:               # cold, 12 bytes
    uint32_t mapcount               # mappings of this page (the kernel's _mapcount + 1); 0 while the one mapping stands in private_
    uint32_t index_lo               # folio->index: page of the file, or of the anon_vma, 48 bits
    uint16_t index_hi
    uint16_t extra_refs             # references beyond mappings and the first one, which every allocated block has

cdef struct Pageblock:
    uint8_t mt                      # migratetype ^ MIGRATE_MOVABLE, so that zero is MOVABLE
    uint8_t flags                   # bit 0: compaction's skip mark
    uint16_t zone                   # zone index + 1 if all of the block belongs to one zone; 0: look it up

cdef struct LazyRange:              # order-10 blocks [start, end) that no one has touched since boot
    uint32_t start
    uint32_t end

cdef struct PresentRange:           # memory of one zone that exists; sorted
    uint32_t start
    uint32_t end
    uint32_t zone
    uint32_t pad

cdef struct Zone:
    # hot: what an allocation reads and counts
    int64_t vm_stat[12]
    int64_t wmark[4]
    int64_t watermark_boost
    int64_t lowmem_reserve[5]
    int64_t nr_free_highatomic
    uint64_t pgalloc
    uint64_t numa_event[6]
    uint64_t nr_free[11]
    uint32_t free_head              # link value of the head of list (order 0, type 0); head of (o, t) = free_head + 5 * o + t
    uint32_t flags
    uint16_t order_mask[5]          # by type: bit o = list (o, type) is not empty
    uint16_t node
    uint16_t zid
    uint16_t stat_threshold
    # cold
    uint64_t start_pfn
    uint64_t spanned
    uint64_t present
    uint64_t managed
    int64_t nr_reserved_highatomic
    int64_t percpu_drift_mark
    int64_t kswapd_boost            # boost noted at the start of a kswapd run
    uint64_t nr_claims              # fallbacks that took a pageblock over / that took one block (the kernel counts neither)
    uint64_t nr_steals
    uint64_t nr_boosts
    uint64_t pgskip
    uint64_t allocstall             # by highest zone of the request
    uint32_t lazy_head              # link value of the sentinel that stands in list (10, MOVABLE) for the untouched blocks; 0: none ever
    uint32_t lazy_range             # index of the first lazy range not used up, and the end of this zone's ranges
    uint32_t lazy_range_end
    uint32_t lazy_left              # blocks left in them
    uint32_t lazy_pfn               # first untouched block
    uint32_t nr_before              # managed pages that a loaded state does not list: in use since before our time, may be freed by name

cdef struct Pcp:                    # struct per_cpu_pages and per_cpu_zonestat of one zone on one CPU
    int32_t count
    int32_t high
    int32_t high_min
    int32_t high_max
    int32_t batch
    int32_t free_count
    uint32_t list_head              # link value of the head of list 0
    uint8_t flags
    uint8_t alloc_factor
    uint8_t expire
    uint8_t free_factor             # 6.1 only
    int32_t vm_diff[12]

cdef struct Node:
    int64_t vm_stat[47]
    uint64_t start_pfn
    uint64_t spanned
    uint64_t present
    int64_t totalreserve_pages
    int64_t min_unmapped_pages
    int64_t min_slab_pages
    uint64_t nr_kswapd_wakeups      # how often a wake-up was wanted
    int32_t kswapd_failures
    int16_t kswapd_order
    int16_t kswapd_highest_zoneidx
    uint8_t kswapd_wanted           # the field run/ reads: someone woke kswapd
    uint8_t kswapd_running
    uint8_t has_memory
    uint8_t has_cpu
    uint32_t nr_cpus
    uint32_t flags                  # NODE_*
    uint32_t nr_writeback_throttled
    int64_t nr_reclaim_start
    int64_t throttle_until_ns       # reclaimers wait until then
    int64_t kswapd_nap_until_ns     # a wake-up before then comes early

cdef struct Globals:
    int64_t now_ns
    int64_t totalram_pages
    int64_t totalreserve_pages
    int64_t min_free_kbytes
    int64_t user_min_free_kbytes
    int64_t watermark_scale_factor
    int64_t watermark_boost_factor
    int64_t percpu_pagelist_high_fraction
    int64_t lowmem_reserve_ratio[5]
    int64_t min_unmapped_ratio
    int64_t min_slab_ratio
    int64_t zone_reclaim_mode
    int64_t cache_slice_pages       # data cache of a CPU in pages, for FREE_HIGH_BATCH
    uint64_t pgfree
    uint64_t nr_slowpath
    uint64_t nr_failed
    int64_t total_swap_pages
    uint32_t nr_pages               # size of mem_map; every pfn below it may be named
    uint32_t nr_heads
    uint32_t nr_zones
    uint32_t nr_nodes
    uint32_t nr_cpus
    uint32_t nr_blocks
    uint32_t zl_stride
    uint32_t nr_present
    uint8_t nr_zone_types
    uint8_t zid_dma
    uint8_t zid_dma32
    uint8_t zid_normal
    uint8_t zid_highmem
    uint8_t zid_movable
    uint8_t mobility_disabled
    uint8_t thp_enabled             # 0 never, 1 madvise, 2 always; 3: forced to never (less than 512 MiB)
    uint8_t kernel                  # 0: 6.12, 1: 6.1
    uint8_t pcp_order9              # order-9 per-CPU lists exist
    uint8_t booted
    uint8_t auto_ticks              # time passing runs the vmstat worker of each CPU
    uint8_t numa                    # built with CONFIG_NUMA: numa counters, expiry of remote lists
    uint8_t boot_pad[3]
    uint8_t gfp_zone[16]            # zone modifier bits -> highest zone index, NO_ZID where illegal

cdef struct TraceRow:
    uint32_t op                     # index of the op in its stream
    uint32_t pfn
    uint8_t event                   # 1 rmqueue, 2 pcp_drain, 3 extfrag
    uint8_t order
    uint8_t mt
    uint8_t fb_order
    uint8_t fb_mt
    uint8_t claimed
    uint16_t pad

cdef struct TraceBuf:               # tracepoints of kmem:, off when `rows` is NULL
    TraceRow* rows
    size_t used
    size_t size
    uint64_t lost
    uint32_t op
    uint32_t enabled

# Everything a core function needs: raw addresses into the arrays of a State, valid while it lives. Borrowed for a call, never stored.
cdef struct Mm:
    Page* pages
    Page* link                      # pages - 1: link[x] is the record that link value x names
    PageMeta* meta
    Pageblock* blocks
    Zone* zones
    Pcp* pcps
    Node* nodes
    Globals* g
    LazyRange* lazy
    PresentRange* present
    uint16_t* zonelists             # [node][0 fallback, 1 own node][zl_stride]: zone index + 1, 0 ends
    uint16_t* cpu_node
    uint8_t* distances
    VmRoom vm
    TraceBuf trace
    # Where the blocks that a drain will take likely are: pfns in the order of their insertion, a ring. Only for prefetching; may be stale.
    const uint32_t* hint
    uint64_t hint_at
    uint32_t hint_mask
    int lock

# The one way to a record by its number: a debug build (MMCORE_DEBUG) tests the number, a release build does not notice.
cdef extern from "<assert.h>" nogil:
    void mm_assert "assert"(bint)

cdef inline Page* page_at(Mm* mm, uint32_t pfn) noexcept nogil:
    mm_assert(pfn >> PAGEBLOCK_ORDER < mm.g.nr_blocks)
    return &mm.pages[pfn]

cdef inline PageMeta* meta_at(Mm* mm, uint32_t pfn) noexcept nogil:
    mm_assert(pfn >> PAGEBLOCK_ORDER < mm.g.nr_blocks)
    return &mm.meta[pfn]

cdef inline Pageblock* block_at(Mm* mm, uint32_t index) noexcept nogil:
    mm_assert(index < mm.g.nr_blocks)
    return &mm.blocks[index]
