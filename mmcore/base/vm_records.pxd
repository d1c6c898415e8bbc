# The records of virtual memory: address spaces, VMAs, page tables, anon_vmas, and what a CPU batches. They live in pools that grow
# (mmcore.base.pool); all rules of records.pxd hold. The first field of a pooled record is its link on the pool's free list.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    NR_LRU_LISTS = 5
    LRU_HEADS_PER_NODE = 64         # list heads kept for each node's root lruvec (five of the classic LRU; MGLRU's come later)
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
    NR_POOLS = 12

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

cdef enum:
    FILE_SHMEM = 1                  # tmpfs or shared anonymous memory: swap-backed, no dirty tracking
    FILE_RAM = 2                    # ramfs-like: no backing device
    FILE_UNLINKED = 4               # no name: goes with its last mapping
    FILE_RA_RANDOM = 16             # fadvise: no read-ahead beyond the request / windows of twice the size
    FILE_RA_SEQUENTIAL = 32
    FILE_NORESERVE = 8              # shared anonymous memory whose size was not charged to committed memory

cdef struct XNode:                  # struct xa_node of a page index
    uint32_t link
    uint32_t count                  # slots that are not 0
    uint32_t up
    uint16_t offset                 # in its parent
    uint16_t shift
    uint64_t slots[64]              # inner: index + 1; leaf: page frame + 1 (later also shadow entries), flags in the upper bits

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
    uint32_t pad

cdef struct Lruvec:                 # struct lruvec of a node (and, later, a memcg)
    uint32_t head                   # link value of the head of list 0
    uint32_t node
    int64_t nr[5]                   # pages

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
    VmGlobals* g
    uint32_t bits                   # pt_bits, pt_levels and 2^bits - 1
    uint32_t levels
    uint32_t mask
    uint32_t pad
    void* tlb                       # struct Tlb of mmcore.vm.tlb; NULL: this machine has no TLBs
