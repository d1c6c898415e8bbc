"""GFP masks: bits, legality, the zone and type they ask for, and what they become.

Models: gfp_zone, gfp_migratetype, current_gfp_context, gfp_to_alloc_flags, __gfp_pfmemalloc_flags
(include/linux/gfp_types.h, gfp.h, mm/page_alloc.c, v6.12). Simplifies: an illegal mask is refused (the
kernel's debug build stops). Omits: cpusets, the memory cgroup charge.
"""

from .constants import (
    ALLOC_CPUSET,
    ALLOC_HIGHATOMIC,
    ALLOC_KSWAPD,
    ALLOC_MIN_RESERVE,
    ALLOC_NO_WATERMARKS,
    ALLOC_NON_BLOCK,
    ALLOC_OOM,
    TASK_INTERRUPT,
    TASK_MEMALLOC,
    TASK_NOFS,
    TASK_NOIO,
    TASK_OOM_VICTIM,
    TASK_PIN,
    TASK_RT,
    ZONE_NAMES,
)

DMA, HIGHMEM, DMA32, MOVABLE = 0x1, 0x2, 0x4, 0x8
RECLAIMABLE = 0x10
HIGH = 0x20
IO, FS = 0x40, 0x80
ZERO = 0x100
DIRECT_RECLAIM, KSWAPD_RECLAIM = 0x400, 0x800
WRITE = 0x1000
NOWARN = 0x2000
RETRY_MAYFAIL, NOFAIL, NORETRY = 0x4000, 0x8000, 0x10000
MEMALLOC = 0x20000
COMP = 0x40000
NOMEMALLOC = 0x80000
HARDWALL = 0x100000
THISNODE = 0x200000
ACCOUNT = 0x400000
ALL_BITS = 0x1FFFDFF

RECLAIM = DIRECT_RECLAIM | KSWAPD_RECLAIM
GFP_ATOMIC = HIGH | KSWAPD_RECLAIM
GFP_NOWAIT = KSWAPD_RECLAIM | NOWARN
GFP_NOIO = RECLAIM
GFP_NOFS = RECLAIM | IO
GFP_KERNEL = RECLAIM | IO | FS
GFP_USER = GFP_KERNEL | HARDWALL
GFP_HIGHUSER = GFP_USER | HIGHMEM
GFP_HIGHUSER_MOVABLE = GFP_HIGHUSER | MOVABLE
GFP_TRANSHUGE_LIGHT = (GFP_HIGHUSER_MOVABLE | COMP | NOMEMALLOC | NOWARN) & ~RECLAIM
GFP_TRANSHUGE = GFP_TRANSHUGE_LIGHT | DIRECT_RECLAIM

ILLEGAL_ZONE_BITS = {3, 5, 6, 7, 11, 13, 14, 15}


def gfp_is_legal(gfp: int) -> bool:
    """No unknown bit, at most one zone modifier, not both mobility types."""
    if gfp < 0 or gfp & ~ALL_BITS:
        return False
    return gfp & 15 not in ILLEGAL_ZONE_BITS and gfp & (MOVABLE | RECLAIMABLE) != MOVABLE | RECLAIMABLE


def gfp_zone(gfp: int, arch: str) -> int:
    """Index of the highest zone that a legal mask allows."""
    names = ZONE_NAMES[arch]
    low4 = gfp & 15
    if low4 == HIGHMEM | MOVABLE:
        return names.index("Movable")
    if low4 & DMA:
        return names.index("DMA")
    if low4 & DMA32 and "DMA32" in names:
        return names.index("DMA32")
    if low4 & HIGHMEM and "HighMem" in names:
        return names.index("HighMem")
    return names.index("Normal")


def gfp_migratetype(gfp: int) -> int:
    """Migratetype that a legal mask asks for."""
    return gfp >> 3 & 3


def current_gfp_context(gfp: int, task: int) -> int:
    """The mask within the scopes of the task."""
    if task & TASK_NOIO:
        gfp &= ~(IO | FS)
    elif task & TASK_NOFS:
        gfp &= ~FS
    if task & TASK_PIN:
        gfp &= ~MOVABLE
    return gfp


def slowpath_alloc_flags(gfp: int, order: int, task: int) -> int:
    """Flags of the slow path, WMARK_MIN among them (it is 0)."""
    flags = ALLOC_CPUSET
    if gfp & HIGH:
        flags |= ALLOC_MIN_RESERVE
    if gfp & KSWAPD_RECLAIM:
        flags |= ALLOC_KSWAPD
    if not gfp & DIRECT_RECLAIM:
        if not gfp & NOMEMALLOC:
            flags |= ALLOC_NON_BLOCK
            if order > 0 and flags & ALLOC_MIN_RESERVE:
                flags |= ALLOC_HIGHATOMIC
        if flags & ALLOC_MIN_RESERVE:
            flags &= ~ALLOC_CPUSET
    elif task & TASK_RT and not task & TASK_INTERRUPT:
        flags |= ALLOC_MIN_RESERVE
    return flags


def reserve_right(gfp: int, task: int) -> int:
    """Which reserve the request may use: 0, ALLOC_NO_WATERMARKS or ALLOC_OOM."""
    if gfp & NOMEMALLOC:
        return 0
    if gfp & MEMALLOC:
        return ALLOC_NO_WATERMARKS
    if task & TASK_INTERRUPT:
        return 0
    if task & TASK_MEMALLOC:
        return ALLOC_NO_WATERMARKS
    if task & TASK_OOM_VICTIM:
        return ALLOC_OOM
    return 0
