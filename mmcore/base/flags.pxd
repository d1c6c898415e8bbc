# Page flags in the 32-bit flags word of a hot page record (include/linux/page-flags.h). Names are the kernel's, positions are ours:
# the word also holds the page type of free pages, the LRU generation and tier, and the order of the block that starts at the page.

cdef enum PageFlag:
    PG_locked = 1 << 0
    PG_writeback = 1 << 1
    PG_referenced = 1 << 2
    PG_uptodate = 1 << 3
    PG_dirty = 1 << 4
    PG_lru = 1 << 5
    PG_head = 1 << 6
    PG_active = 1 << 7
    PG_workingset = 1 << 8
    PG_swapcache = 1 << 9
    PG_reserved = 1 << 10
    PG_private = 1 << 11
    PG_reclaim = 1 << 12
    PG_swapbacked = 1 << 13
    PG_unevictable = 1 << 14
    PG_mlocked = 1 << 15
    PG_hwpoison = 1 << 16
    PG_anon = 1 << 17           # mapping: anonymous memory; with PG_file: the machine's own (PG_owned), the lowest bits say whose
    PG_buddy = 1 << 18          # head of a block on a buddy list
    PG_pcp = 1 << 19            # head of a block on a per-CPU list
    PG_pfmemalloc = 1 << 20     # taken with ALLOC_NO_WATERMARKS
    PG_meta = 1 << 21           # the page's cold record is not all zero: it has further references or mappings
    PG_named = 1 << 22          # for the length of one call only: named by it already
    PG_file = 1 << 23           # mapping: a page of a file's page cache
    PG_anon_exclusive = 1 << 24  # the page belongs to one address space: a write needs no copy
    PG_allocated = 1 << 27      # head of an allocated block: it has (at least) one reference

cdef enum:
    PG_ORDER_SHIFT = 28
    PG_ORDER_MASK = 15
    # flags that no page may carry when it is freed (PAGE_FLAGS_CHECK_AT_FREE)
    PG_CHECK_AT_FREE = ((1 << 0) | (1 << 1) | (1 << 5) | (1 << 7) | (1 << 10) | (1 << 11) | (1 << 14) | (1 << 15) | (1 << 17) | (1 << 23))
    PG_owned = (1 << 17) | (1 << 23)
    # whose an owned page is, in place of the flags 0-3
    OWNER_TABLE = 1             # a page table: private_ is its slot + 1
    OWNER_VMALLOC = 2
    OWNER_HUGETLB = 3
    OWNER_ZERO = 4              # the zero pages
    OWNER_MASK = 15
    PG_TYPE_MASK = (1 << 18) | (1 << 19)
    PG_HEAD_MASK = (1 << 18) | (1 << 19) | (1 << 27)    # any head of a block, free or allocated
