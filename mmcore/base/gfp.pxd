# GFP flag bits (include/linux/gfp_types.h, v6.12 without KASAN_HW_TAGS and LOCKDEP) and internal allocation flags (mm/internal.h).

cdef enum:
    GFP_DMA_BIT = 0x1
    GFP_HIGHMEM_BIT = 0x2
    GFP_DMA32_BIT = 0x4
    GFP_MOVABLE_BIT = 0x8
    GFP_RECLAIMABLE_BIT = 0x10
    GFP_HIGH_BIT = 0x20
    GFP_IO_BIT = 0x40
    GFP_FS_BIT = 0x80
    GFP_ZERO_BIT = 0x100
    GFP_DIRECT_RECLAIM_BIT = 0x400
    GFP_KSWAPD_RECLAIM_BIT = 0x800
    GFP_WRITE_BIT = 0x1000
    GFP_NOWARN_BIT = 0x2000
    GFP_RETRY_MAYFAIL_BIT = 0x4000
    GFP_NOFAIL_BIT = 0x8000
    GFP_NORETRY_BIT = 0x10000
    GFP_MEMALLOC_BIT = 0x20000
    GFP_COMP_BIT = 0x40000
    GFP_NOMEMALLOC_BIT = 0x80000
    GFP_HARDWALL_BIT = 0x100000
    GFP_THISNODE_BIT = 0x200000
    GFP_ACCOUNT_BIT = 0x400000
    GFP_ZEROTAGS_BIT = 0x800000
    GFP_NO_OBJ_EXT_BIT = 0x1000000
    GFP_ALL_BITS = 0x1fffdff

cdef enum:
    ALLOC_WMARK_MIN = 0
    ALLOC_WMARK_LOW = 1
    ALLOC_WMARK_HIGH = 2
    ALLOC_WMARK_MASK = 3
    ALLOC_NO_WATERMARKS = 4
    ALLOC_OOM = 8
    ALLOC_NON_BLOCK = 0x10
    ALLOC_MIN_RESERVE = 0x20
    ALLOC_CPUSET = 0x40
    ALLOC_CMA = 0x80
    ALLOC_NOFRAGMENT = 0x100
    ALLOC_HIGHATOMIC = 0x200
    ALLOC_KSWAPD = 0x800
    ALLOC_RESERVES = 0x238      # NON_BLOCK | MIN_RESERVE | HIGHATOMIC | OOM

# What the task that asks is (task_struct flags and context), beside its GFP mask.
cdef enum:
    TASK_MEMALLOC = 1           # PF_MEMALLOC: may use the reserves, never reclaims
    TASK_NOIO = 2               # PF_MEMALLOC_NOIO scope
    TASK_NOFS = 4               # PF_MEMALLOC_NOFS scope
    TASK_PIN = 8                # PF_MEMALLOC_PIN scope
    TASK_OOM_VICTIM = 16        # TIF_MEMDIE: half of the min watermark
    TASK_INTERRUPT = 32         # hard or soft interrupt context
    TASK_RT = 64                # real-time or deadline scheduling class
    TASK_ALL = 127

cdef inline unsigned gfp_migratetype(unsigned gfp) noexcept nogil:
    return (gfp >> 3) & 3

cdef inline unsigned current_gfp_context(unsigned gfp, unsigned task) noexcept nogil:
    if task & TASK_NOIO:
        gfp &= ~<unsigned>(GFP_IO_BIT | GFP_FS_BIT)
    elif task & TASK_NOFS:
        gfp &= ~<unsigned>GFP_FS_BIT
    if task & TASK_PIN:
        gfp &= ~<unsigned>GFP_MOVABLE_BIT
    return gfp
