# The records of virtual memory: address spaces, VMAs, page tables, anon_vmas, and what a CPU batches. They live in pools that grow
# (mmcore.base.pool); all rules of records.pxd hold. The first field of a pooled record is its link on the pool's free list.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    NR_LRU_LISTS = 5
    LRU_HEADS_PER_NODE = 64         # list heads kept for each lruvec (five of the classic LRU; MGLRU's come later)
    MAX_LRU_ZONES = 5
    NR_LRUVEC_ITEMS = 47            # = NR_VM_NODE_STAT_ITEMS: per-lruvec statistics stand at the same positions (NS_*)
    NR_MEMCG_EVENTS = 102           # = NR_VM_EVENTS: a group's events stand at the same positions (VE_*)
    SWAP_SLOTS_CACHE = 64
    MAX_SWAPFILES = 32
    LRU_BATCH = 31                  # PAGEVEC_SIZE
    PT_MAX_LEVELS = 5
    MM_FILEPAGES = 0
    MM_ANONPAGES = 1
    MM_SWAPENTS = 2
    MM_SHMEMPAGES = 3
    NR_MM_COUNTERS = 4

# Pools, by number (the order in which a snapshot holds them).
cdef enum:
    POOL_TABLES = 0
    POOL_VMAS = 1
    POOL_ANON_VMAS = 2
    POOL_AVCS = 3
    POOL_MMS = 4
    POOL_FILES = 5
    POOL_XNODES = 6
    POOL_VM_AREAS = 7
    POOL_VM_PAGES = 8
    POOL_VMAP_NODES = 9
    POOL_KMAPS = 10
    POOL_KMAP_LOCALS = 11
    POOL_MEMCGS = 12                # record 1 (id 0) is the root group; it is always there
    POOL_LRUVECS = 13               # one for each group and node: [id * nr_nodes + node]
    POOL_SWAP_AREAS = 14
    POOL_SWAP_SLOTS = 15            # ranges of neighbouring records, one for each area
    POOL_SWAP_CLUSTERS = 16
    POOL_EVENTS = 17
    POOL_DEVICES = 18
    NR_POOLS = 19

cdef struct PoolInfo:
    uint32_t used                   # records handed out at least once; those above are zero
    uint32_t free_head              # index + 1 of a record that was given back
    uint32_t live
    uint32_t capacity

cdef struct TableInfo:              # struct ptdesc: one page-table page; its entries stand in `tables` under the same index (slot)
    uint32_t link                   # free list; while deposited: the next deposited table of the mm
    uint32_t pfn
    uint64_t base                   # first virtual page number it translates
    uint32_t mm                     # index + 1
    uint32_t parent                 # slot + 1 of the table that points here; 0 for a root and for a deposited table
    uint16_t level                  # 0: PTE table
    uint16_t nr_used                # entries that are not zero
    uint32_t pad

cdef struct Vma:                    # struct vm_area_struct
    uint32_t link
    uint32_t mm                     # all links: index + 1
    uint64_t start                  # bytes, [start, end)
    uint64_t end
    uint64_t pgoff                  # pages; anonymous private: start / 4096 at creation
    uint64_t flags                  # VM_*
    uint64_t max_gap                # the largest gap in front of a VMA of this subtree (itself included), bytes
    uint32_t left                   # tree of the mm, ordered by start
    uint32_t right
    uint32_t up
    uint32_t prev                   # neighbours by address
    uint32_t next
    uint32_t priority               # of the treap
    uint32_t file
    uint32_t anon_vma
    uint32_t avc_first              # chain: anon_vmas this VMA belongs to, newest first
    uint32_t file_next              # other VMAs that map the same file
    uint32_t file_prev
    uint32_t name
    uint64_t ra_prev                # swap read-ahead state (last page, window, hits)
    uint32_t ra_win
    uint32_t ra_hits

cdef struct AnonVma:                # struct anon_vma
    uint32_t link
    uint32_t root
    uint32_t parent
    uint32_t refcount               # anon_vmas whose root or parent this is, itself included
    uint32_t num_children
    uint32_t num_active_vmas
    uint32_t avc_first              # VMAs that may map its pages
    uint32_t avc_last

cdef struct Avc:                    # struct anon_vma_chain
    uint32_t link
    uint32_t vma
    uint32_t anon_vma
    uint32_t same_vma_next
    uint32_t same_vma_prev
    uint32_t same_anon_next
    uint32_t same_anon_prev
    uint32_t pad

cdef struct AddressSpace:           # struct mm_struct, and what belongs to its one task
    uint32_t link
    uint32_t pid                    # 0: this record is free
    uint32_t root                   # slot + 1 of the top page table
    uint32_t vma_root
    uint32_t vma_first
    uint32_t vma_cache              # the VMA found last
    uint32_t map_count
    uint32_t parent_pid
    uint32_t deposit                # slot + 1 of the first deposited table
    uint32_t nr_deposited
    uint32_t cpu                    # CPU that runs its task when nothing else is said
    uint32_t flags                  # MMF_*
    uint64_t def_flags              # VM_LOCKED, VM_LOCKONFAULT of mlockall(MCL_FUTURE)
    int64_t rss[4]                  # pages: file, anon, swap entries, shmem
    uint64_t pgtables_bytes         # all tables but the top one
    uint64_t total_vm               # pages
    uint64_t data_vm
    uint64_t exec_vm
    uint64_t stack_vm
    uint64_t locked_vm
    uint64_t task_size              # bytes, as all addresses
    uint64_t mmap_base
    uint64_t start_brk
    uint64_t brk
    uint64_t start_stack
    uint64_t hiwater_rss            # pages
    uint64_t hiwater_vm
    uint64_t rlimit_as              # bytes, all ones: unlimited
    uint64_t rlimit_data
    uint64_t rlimit_stack
    uint64_t rlimit_memlock
    uint64_t minflt
    uint64_t majflt
    uint64_t nr_access              # accesses made by runs and touch()
    uint32_t khugepaged_slot
    uint32_t memcg
    uint32_t cpumask[8]             # CPUs that may hold translations of it (the first 256)
    uint64_t tlb_gen
    uint32_t vma_seq                # VMAs ever linked: priorities of the treap
    uint32_t name                   # of the task: index + 1 into the names of the State

cdef struct File:                   # struct inode with its address_space, as far as mapping needs it
    uint32_t link
    uint32_t id                     # 0: free
    uint64_t size                   # bytes
    uint64_t nr_pages               # in the page cache
    uint32_t radix                  # index + 1 of the top node of its page index
    uint32_t radix_height
    uint32_t vma_first
    uint32_t flags                  # FILE_*
    uint32_t nr_opens
    uint32_t name                   # into the names of the State
    uint64_t ra_start               # read-ahead state of the one open file description
    uint32_t ra_size
    uint32_t ra_async
    int64_t ra_prev
    uint32_t ra_mmap_miss
    uint32_t nr_mapped_vmas
    uint64_t nr_dirty               # pages
    uint64_t nr_writeback
    uint64_t writeback_index        # where the flusher stopped
    int64_t dirtied_when_ns
    uint32_t wb_next                # the flusher's list that it is on, oldest first: index + 1
    uint32_t wb_prev
    uint32_t wb_list                # WB_*
    uint32_t wb_pad

cdef enum:
    FILE_SHMEM = 1                  # tmpfs or shared anonymous memory: swap-backed, no dirty tracking
    FILE_RAM = 2                    # ramfs-like: no backing device
    FILE_UNLINKED = 4               # no name: goes with its last mapping
    FILE_RA_RANDOM = 16             # fadvise: no read-ahead beyond the request / windows of twice the size
    FILE_RA_SEQUENTIAL = 32
    FILE_NORESERVE = 8              # shared anonymous memory whose size was not charged to committed memory

cdef enum:
    WB_NONE = 0
    WB_DIRTY = 1                    # bdi_writeback: b_dirty, b_io, b_more_io
    WB_IO = 2
    WB_MORE_IO = 3

cdef struct XNode:                  # struct xa_node of a page index
    uint32_t link
    uint32_t up
    uint16_t count                  # slots that are not 0
    uint16_t memcg                  # id of the group that it is charged to
    uint8_t offset                  # in its parent
    uint8_t shift
    uint8_t nr_shadows              # slots of a leaf that hold shadows
    uint8_t fresh                   # not yet charged to anyone
    uint64_t slots[64]              # inner: index + 1; leaf: pages, shadows and swap entries, see vm/radix

cdef struct VmArea:                 # struct vmap_area with its vm_struct: a range of the kernel's vmalloc space, free or not
    uint32_t link
    uint32_t state                  # VA_*
    uint64_t start
    uint64_t end                    # guard page included
    uint64_t max_size               # longest range of its subtree, while it stands in a tree
    uint64_t requested              # bytes asked for
    uint64_t phys                   # of an ioremap
    uint32_t left                   # tree of free, busy or lazily freed ranges, ordered by start
    uint32_t right
    uint32_t up
    uint32_t priority               # of the treap
    uint32_t next                   # list of its pool
    uint32_t prev
    uint32_t flags                  # VM_*
    uint32_t nr_pages
    uint32_t pages                  # its page list: index + 1 of the top record
    uint32_t node                   # vmap node it remembers, + 1
    uint32_t caller                 # name of who asked, + 1
    uint32_t array                  # area (index + 1) that holds its descriptor array; 0: kmalloc'ed
    uint32_t page_order             # 9: mapped by PMD leaves
    uint32_t pad

cdef struct VmPages:                # 64 slots of the page list of an area: page frame + 1, or (above the lowest level) index + 1
    uint32_t link
    uint32_t pad[3]
    uint32_t slots[64]

cdef struct VmapNode:               # struct vmap_node
    uint32_t link
    uint32_t lazy_root              # freed areas whose addresses wait for a purge
    uint32_t nr_lazy
    uint32_t pad
    uint32_t head[256]              # pool k: purged areas of exactly k + 1 pages
    uint32_t tail[256]
    uint32_t len[256]

cdef struct Kmap:                   # persistent kmap slots of a machine with HighMem
    uint32_t link
    uint32_t cursor                 # slot taken last
    uint32_t nr_flushes             # wraps that had something to unmap
    uint32_t pad
    uint32_t count[1024]            # 0 free, 1 mapped but unused, n + 1: n users
    uint32_t pfn[1024]

cdef struct KmapLocal:              # kmap_local stack of one CPU
    uint32_t link
    uint32_t depth
    uint32_t pfn[16]

cdef struct Cpu:
    uint32_t active_mm              # index + 1 of the address space loaded
    uint32_t lru_add_nr
    uint32_t lru_add[31]            # page frame + 1
    uint32_t lru_lazyfree_nr
    uint32_t lru_lazyfree[31]
    uint32_t lru_deactivate_nr
    uint32_t lru_deactivate[31]
    uint32_t mlock_nr
    uint32_t mlock[31]
    uint32_t lru_move_tail_nr
    uint32_t lru_move_tail[31]
    uint32_t lru_deactivate_file_nr
    uint32_t lru_deactivate_file[31]
    uint32_t lru_activate_nr
    uint32_t lru_activate[31]
    uint32_t memcg                  # id of the group that the running task belongs to: who is charged
    uint32_t stock_memcg            # memcg_stock: pages charged in advance, of one group
    uint32_t stock_nr
    uint32_t obj_memcg              # the byte stock of kernel objects, of one group
    uint32_t obj_bytes
    uint32_t over_high              # memcg_nr_pages_over_high of the running task
    uint32_t swap_cluster[32]       # by area: per-CPU cluster's next offset; 0: none
    uint32_t swap_cur               # swap_slots_cache: slots to hand out stand in [swap_cur, swap_nr)
    uint32_t swap_nr
    uint32_t swap_slots[64]         # slot numbers
    uint32_t swap_ret_nr            # slots given back, not yet free
    uint32_t swap_ret[64]
    uint32_t nr_dirtied             # pages that the running task dirtied since it was last asked to wait, and after how many it is
    uint32_t nr_dirtied_pause
    int64_t dirty_paused_ns         # when its last pause for dirtying ended, 0: it never had one

cdef struct Lruvec:                 # struct lruvec of a group on a node
    uint32_t head                   # link value of the head of list 0; 0: this record is free
    uint32_t node
    uint32_t memcg                  # id
    uint32_t flags                  # LRUVEC_*
    int64_t nr[5]                   # pages on the lists
    int64_t zone_nr[25]             # [zone type * 5 + list]: the exact sizes that scan counts are computed from
    int64_t anon_cost
    int64_t file_cost
    uint64_t nonresident_age
    int64_t refaults[2]             # anon, file: `folded` workingset_activate when reclaim of it last ended
    int64_t stat[47]                # NS_*: own, live; of a group only (the root's own are the node's less the groups')
    int64_t folded[47]              # own and descendants', as they were when statistics were folded last; the root's: the node's
    uint32_t iter                   # where the walk over the groups below stopped: id + 1 of the last one visited, 0: at the beginning
    uint32_t pad

cdef enum:
    LRUVEC_CGROUP_CONGESTED = 1
    LRUVEC_NODE_CONGESTED = 2

cdef struct Memcg:                  # struct mem_cgroup; links are id + 1, ids are the index in the pool
    uint32_t link
    uint32_t flags                  # MEMCG_*; 0: free
    uint32_t parent
    uint32_t first_child            # in the order in which they were made
    uint32_t last_child
    uint32_t next_sibling
    uint32_t prev_sibling
    uint32_t name                   # of the whole path, index + 1 into the names of the State
    uint32_t nr_tasks
    uint32_t nr_updates             # memcg_rstat_updated: changes not yet added to stats_updates (of all CPUs)
    int64_t stats_updates           # of the subtree, since the last fold
    int64_t usage                   # page_counter `memory`, pages; stocks included
    int64_t peak
    int64_t max                     # all ones >> 1: no limit
    int64_t high
    int64_t low
    int64_t min_
    int64_t elow                    # effective protection, as computed at the last visit
    int64_t emin
    int64_t swap_usage
    int64_t swap_peak
    int64_t swap_max
    int64_t swap_high
    int64_t kmem                    # pages
    int64_t kmem_folded             # own and descendants', as of the last fold
    int64_t slab_pending            # bytes of slab objects that a CPU's stock has not yet added to the statistics
    int64_t nr_outside              # pages of `kmem` that no page frame of ours stands for
    uint64_t events[8]              # MEMCG_EV_*: own and descendants'
    uint64_t events_local[8]
    uint64_t vm_events[102]         # VE_*: own, live
    uint64_t vm_folded[102]         # own and descendants', as of the last fold
    uint32_t oom_group
    uint32_t obj_left               # bytes that are charged, but in no CPU's byte stock (nr_charged_bytes)

cdef extern from *:
    """
    /* No limit: the most pages that a counter holds (LONG_MAX bytes). */
    #define MM_PAGE_COUNTER_MAX (0x7fffffffffffffffLL / 4096)
    """
    const int64_t PAGE_COUNTER_MAX "MM_PAGE_COUNTER_MAX"

cdef enum:
    MEMCG_ONLINE = 1
    MEMCG_DYING = 2                 # removed, but pages are still charged to it
    MEMCG_EV_LOW = 0
    MEMCG_EV_HIGH = 1
    MEMCG_EV_MAX = 2
    MEMCG_EV_OOM = 3
    MEMCG_EV_OOM_KILL = 4
    MEMCG_EV_SWAP_HIGH = 5
    MEMCG_EV_SWAP_MAX = 6
    MEMCG_EV_SWAP_FAIL = 7

cdef struct SwapArea:               # struct swap_info_struct
    uint32_t link
    uint32_t flags                  # SWP_*; 0: free
    int32_t prio
    uint32_t max                    # slots, the header's included
    uint32_t pages                  # usable ones
    uint32_t inuse                  # slots taken from it (in slot caches too)
    uint32_t first_slot             # number of its slot 0 in the pool of slots (all slot numbers elsewhere count from there)
    uint32_t lowest_bit
    uint32_t highest_bit
    uint32_t cluster_next
    uint32_t cluster_nr
    uint32_t nr_clusters
    uint32_t first_cluster          # in the pool of clusters
    uint32_t free_head              # lists of clusters: index in the area + 1
    uint32_t free_tail
    uint32_t nonfull_head
    uint32_t nonfull_tail
    uint32_t frag_head
    uint32_t frag_tail
    uint32_t full_head
    uint32_t full_tail
    uint32_t device                 # index + 1
    uint32_t name                   # into the names of the State
    uint32_t order                  # its place among all areas that have room: equal priorities go round
    uint32_t frag_nr                # clusters on the list `frag`
    uint32_t id                     # which of all areas that ever were

cdef enum:
    SWP_USED = 1
    SWP_WRITEOK = 2
    SWP_SOLIDSTATE = 4              # not rotational: clusters
    SWP_SYNCHRONOUS = 8             # reads and writes complete at once: zram, brd
    SWP_AVAIL = 16                  # has room: stands on the list that slots are taken from
    SWP_RECLAIM_WORK = 32           # has become full: slots that only the swap cache holds are to be freed
    SWP_FILE = 64                   # a file, not a partition

cdef struct SwapSlot:               # one slot: swap_map, swap cache (or the shadow left there), swap_cgroup
    uint64_t cache                  # as a slot of a page index: page, shadow or 0
    uint32_t rmap                   # while `cache` is a page: what that page's private_ would hold were it not in the swap cache
    uint32_t count                  # users: page-table entries, and entries of a page index (shared memory)
    uint16_t memcg                  # id that is charged for it
    uint8_t flags                   # SLOT_*
    uint8_t pad[5]

cdef enum:
    SLOT_ZERO = 1                   # all-zero data: nothing on the device
    SLOT_TAKEN = 2                  # allocated; perhaps still in a slot cache
    SLOT_SHMEM = 4
    SLOT_ZSWAP = 8
    SLOT_BAD = 16                   # the header
    SLOT_HAS_CACHE = 64             # SWAP_HAS_CACHE: the swap cache, or whoever took the slot, holds it

cdef struct SwapCluster:
    uint32_t link
    uint32_t next                   # list of the area: index + 1
    uint32_t prev
    uint16_t count                  # slots taken
    uint8_t flags                   # which list
    uint8_t order

cdef struct Event:                  # something that is due; the queue is a heap over the pool (base/clock)
    uint32_t link
    uint32_t kind                   # EV_*
    int64_t time_ns
    uint64_t seq
    uint64_t a
    uint64_t b

cdef struct Device:                 # a block device: requests wait for one of its slots, then for their turn on the one channel
    uint32_t link
    uint32_t flags                  # DEVICE_*; 0: free
    uint32_t name                   # index + 1 into the names of the State
    uint32_t depth                  # slots in use, 1..8
    int64_t read_latency_ns
    int64_t write_latency_ns
    int64_t ns_per_page_read
    int64_t ns_per_page_write
    int64_t busy_until[8]           # of each of its slots
    int64_t bus_until               # when the channel has moved all that was asked for
    uint64_t nr_reads               # requests, and pages below
    uint64_t nr_writes
    uint64_t pages_read
    uint64_t pages_written
    uint64_t read_merges
    uint64_t write_merges
    uint64_t nr_failed
    uint64_t fail_reads             # the n-th request from now fails; 0: none
    uint64_t fail_writes
    int64_t last_start              # the request that was submitted last: when it begins,
    uint64_t last_end               # the page behind it on the device, its pages, its slot and REQ_*
    uint32_t last_pages
    uint16_t last_slot
    uint16_t last_flags
    uint32_t max_pages              # the most in a request
    uint32_t nr_inflight            # pages of requests that are not complete
    uint32_t queue_pages            # the most in flight before a writer waits for room
    uint32_t pad

cdef enum:
    DEVICE_USED = 1
    DEVICE_SYNCHRONOUS = 2
    DEVICE_ROTATIONAL = 4           # as /sys/block/*/queue/rotational says
    DEVICE_SEEKS = 8                # latency is that of a seek: none where the last request ended
    DEVICE_SLOTS = 8
    REQ_VALID = 1
    REQ_WRITE = 2
    REQ_FAILED = 4

cdef struct VmGlobals:
    uint64_t events[128]            # vm_event_state: base/stat_items.pxd names the positions
    int64_t committed               # vm_committed_as, pages
    int64_t overcommit_memory       # vm.* sysctls
    int64_t overcommit_ratio
    int64_t overcommit_kbytes
    int64_t user_reserve_kbytes
    int64_t admin_reserve_kbytes
    int64_t max_map_count
    int64_t mmap_min_addr
    int64_t stack_guard_gap         # pages
    int64_t page_cluster
    int64_t fault_around_bytes
    int64_t hugetlb_pages           # pages of 4 KiB in hugetlb pools
    uint64_t thp_fault_gfp
    uint64_t next_file
    uint32_t next_pid
    uint32_t pt_levels
    uint32_t pt_bits                # index bits of each level: 9, or 10 on two-level i386
    uint32_t paging                 # mmcore.vm.pgtable.Paging
    uint8_t thp_defrag              # 0 never, 1 madvise, 2 defer+madvise, 3 defer, 4 always
    uint8_t thp_use_zero_page
    uint8_t thp_size[16]            # by order: 0 never, 1 inherit, 2 madvise, 3 always
    uint8_t vma_ra_enabled
    uint8_t mthp_on                 # some size below the PMD's is not "never"
    uint8_t pad[4]
    uint32_t zero_page              # page frame of the shared zero page
    uint32_t huge_zero_page         # page frame + 1 of the huge zero page, 0: not made yet
    uint32_t deferred_head          # queue of folios that could be split: link values of their second pages, see sys/thp
    uint32_t deferred_tail
    uint32_t deferred_nr
    uint32_t foreign_counts         # 1: counters began with those of programs that we do not know (a machine built from a dump)
    uint64_t mthp[64]               # by order, four each: anon_fault_alloc, anon_fault_fallback, split_deferred, nr_anon
    int64_t khugepaged_pages_to_scan
    int64_t khugepaged_scan_sleep_ms
    int64_t khugepaged_alloc_sleep_ms
    int64_t khugepaged_max_ptes_none
    int64_t khugepaged_max_ptes_swap
    int64_t khugepaged_max_ptes_shared
    int64_t khugepaged_full_scans
    int64_t khugepaged_pages_collapsed
    uint32_t khugepaged_mm          # cursor
    uint32_t ra_pages               # read-ahead window of files (bdi->ra_pages) + 1; 0: the default, 32
    uint64_t khugepaged_address     # bytes
    int64_t khugepaged_next_ns      # when its next wake-up is due; 0: it has nothing registered
    int64_t khugepaged_registered   # address spaces that ever registered
    uint32_t nr_memcgs              # groups besides the root
    uint32_t memcg_heads            # link value of the first list head of the groups' lruvecs
    uint32_t max_memcgs
    uint8_t memcg_no_lag            # statistics are always exact
    uint8_t memcg_recursiveprot_off
    uint8_t reclaim_on              # allocation reclaims, kswapd runs
    uint8_t kswapd_wanted           # that of some node
    int64_t memcg_folded_ns         # when statistics were folded last, and when they will be next
    int64_t memcg_fold_due_ns
    int64_t nr_swap_pages           # free slots, as si_swapinfo sees them
    int64_t swappiness              # vm.*
    int64_t dirty_ratio
    int64_t dirty_background_ratio
    int64_t dirty_bytes
    int64_t dirty_background_bytes
    int64_t dirty_expire_centisecs
    int64_t dirty_writeback_centisecs
    int64_t swap_ra_state[3]        # cluster read-ahead: previous offset, last window, hits less 4
    int64_t nr_swapons              # areas that ever were
    uint64_t next_event             # sequence number
    uint32_t wb_head[4]             # files on the flusher's lists (WB_*), index + 1
    uint32_t wb_tail[4]
    uint32_t wb_file                # the one it is at, and the pages left of its turn
    uint32_t wb_work                # what the flusher is doing: WORK_*
    int64_t wb_turn
    int64_t wb_left                 # pages left of the work
    int64_t wb_dirtied_before_ns
    int64_t wb_last_old_flush_ns
    int64_t wb_due_ns               # when the flusher wakes, 0: it sleeps
    int64_t wb_start_all            # pages: reclaim wants everything that is dirty now written
    int64_t wb_bandwidth            # pages a second: written now, and smoothed
    int64_t wb_avg_bandwidth
    int64_t wb_ratelimit            # dirty_ratelimit, balanced_dirty_ratelimit: pages a second a task
    int64_t wb_balanced_ratelimit
    int64_t wb_stamp_ns             # when these were brought up to date, nr_dirtied and nr_written then
    int64_t wb_dirtied_stamp
    int64_t wb_written_stamp
    int64_t dirty_limit             # dirty_throttle limit: falls slowly
    int64_t dirty_limit_stamp_ns
    int64_t costs[32]               # ns, COST_* of base/costs
    uint32_t file_device            # index + 1 of the device that files are read from; 0: it takes no time
    uint32_t lru_pending            # entries in the CPUs' batches of pages that stand on a list already
    uint8_t swap_slot_cache_active  # CPUs keep slots in stock
    uint8_t swap_zero_data          # what is swapped out is all zero (a choice of whoever runs the machine: pages have no contents)
    uint8_t swap_pad[6]
    uint64_t vmalloc[32]            # sys/vmalloc's own figures
    uint64_t hugetlb[32]            # sys/hugetlb's

cdef struct VmRoom:                 # raw addresses; part of Mm
    PoolInfo* pools
    uint64_t* tables                # slot << pt_bits: entries in the x86-64 form
    TableInfo* table_info
    Vma* vmas
    AnonVma* anon_vmas
    Avc* avcs
    AddressSpace* mms
    File* files
    XNode* xnodes
    VmArea* areas
    VmPages* vm_pages
    VmapNode* vmap_nodes
    Cpu* cpus
    Lruvec* lruvecs
    Memcg* memcgs
    SwapArea* swap_areas
    SwapSlot* swap_slots
    SwapCluster* swap_clusters
    Event* events
    Device* devices
    uint16_t* memcg_of              # by page frame: id of the group that is charged for it
    VmGlobals* g
    uint32_t bits                   # pt_bits, pt_levels and 2^bits - 1
    uint32_t levels
    uint32_t mask
    uint32_t pad
    void* tlb                       # struct Tlb of mmcore.vm.tlb; NULL: this machine has no TLBs
