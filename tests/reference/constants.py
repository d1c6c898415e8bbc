"""Numbers that the page allocator is made of (include/linux/mmzone.h, mm/internal.h, v6.12).

Models: orders, migratetypes, zone names and flags, allocation flags. Simplifies: nothing. Omits: CMA.
"""

MAX_PAGE_ORDER = 10
NR_PAGE_ORDERS = 11
PAGEBLOCK_ORDER = 9
PAGEBLOCK_PAGES = 512
PAGE_ALLOC_COSTLY_ORDER = 3

UNMOVABLE, MOVABLE, RECLAIMABLE, HIGHATOMIC, ISOLATE = range(5)
MIGRATE_TYPES = 5
PCP_TYPES = 3  # the types below this one have per-CPU lists, may merge, and are each other's fallbacks
FALLBACKS = {
    UNMOVABLE: (RECLAIMABLE, MOVABLE),
    MOVABLE: (RECLAIMABLE, UNMOVABLE),
    RECLAIMABLE: (UNMOVABLE, MOVABLE),
}

NR_PCP_LISTS = 14
PCP_BATCH_SCALE_MAX = 5
PREV_FREE_HIGH_ORDER, FREE_HIGH_BATCH = 1, 2  # flags of a per-CPU page set

ZONE_NAMES = {
    "x86_64": ("DMA", "DMA32", "Normal", "Movable", "Device"),
    "i386": ("DMA", "Normal", "HighMem", "Movable"),
}
LOWMEM_RESERVE_RATIO = {"x86_64": (256, 256, 32, 0, 0), "i386": (256, 32, 0, 0)}
ZONE_MOVABLE = 3  # the same index on both

BOOSTED_WATERMARK, RECLAIM_ACTIVE, BELOW_HIGH = 1, 2, 4  # flags of a zone

MIN, LOW, HIGH, PROMO = range(4)  # watermarks

NUMA_EVENTS = ("numa_hit", "numa_miss", "numa_foreign", "numa_interleave", "numa_local", "numa_other")

# Allocation flags. The lowest two bits name the watermark.
ALLOC_WMARK_MASK = 3
ALLOC_NO_WATERMARKS = 4
ALLOC_OOM = 8
ALLOC_NON_BLOCK = 0x10
ALLOC_MIN_RESERVE = 0x20
ALLOC_CPUSET = 0x40
ALLOC_NOFRAGMENT = 0x100
ALLOC_HIGHATOMIC = 0x200
ALLOC_KSWAPD = 0x800
ALLOC_RESERVES = ALLOC_OOM | ALLOC_NON_BLOCK | ALLOC_MIN_RESERVE | ALLOC_HIGHATOMIC

# What the asking task is.
TASK_MEMALLOC = 1
TASK_NOIO = 2
TASK_NOFS = 4
TASK_PIN = 8
TASK_OOM_VICTIM = 16
TASK_INTERRUPT = 32
TASK_RT = 64

# Results below zero.
ENOMEM = -12
EINVAL = -22
ERANGE = -34
E_NOT_ALLOCATED = -1001
E_RESERVED = -1002
E_WRONG_ORDER = -1003
E_TAIL = -1004
E_BAD_PAGE = -1005


def pindex(order: int, mt: int) -> int:
    """Which of the 14 per-CPU lists holds blocks of this order and type."""
    if order == PAGEBLOCK_ORDER:
        return 13 if mt == MOVABLE else 12
    return 3 * order + mt


def pindex_order(index: int) -> int:
    """Order of the blocks on per-CPU list `index`."""
    return index // 3 if index < 12 else PAGEBLOCK_ORDER


def pcp_allowed_order(order: int) -> bool:
    """Whether blocks of this order have per-CPU lists."""
    return order <= PAGE_ALLOC_COSTLY_ORDER or order == PAGEBLOCK_ORDER


def clamp(x: int, low: int, high: int) -> int:
    """x within [low, high], as the kernel's macro goes about it: that shows where low exceeds high."""
    if x >= high:
        return high
    return low if x <= low else x
