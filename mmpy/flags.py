"""GFP flags, page flags and migratetypes under the kernel's names.

Models: include/linux/gfp_types.h and the text form of masks (%pGg), v6.12 without KASAN_HW_TAGS and LOCKDEP.
Simplifies: page flags have our bit positions. Omits: flags of features outside the reference build.
"""

from enum import IntEnum, IntFlag


class Gfp(IntFlag):
    """Bits of a GFP mask (without the __GFP_ prefix) and the kernel's combinations: Gfp.KERNEL | Gfp.NOWARN."""

    # zone modifiers
    ZONE_DMA = 0x1
    HIGHMEM = 0x2
    ZONE_DMA32 = 0x4
    MOVABLE = 0x8
    # mobility and placement
    RECLAIMABLE = 0x10
    WRITE = 0x1000
    HARDWALL = 0x100000
    THISNODE = 0x200000
    ACCOUNT = 0x400000
    NO_OBJ_EXT = 0x1000000
    # watermarks
    HIGH = 0x20
    MEMALLOC = 0x20000
    NOMEMALLOC = 0x80000
    # reclaim
    IO = 0x40
    FS = 0x80
    DIRECT_RECLAIM = 0x400
    KSWAPD_RECLAIM = 0x800
    RECLAIM = 0xC00
    RETRY_MAYFAIL = 0x4000
    NOFAIL = 0x8000
    NORETRY = 0x10000
    # action
    ZERO = 0x100
    NOWARN = 0x2000
    COMP = 0x40000
    ZEROTAGS = 0x800000
    # combinations
    ATOMIC = HIGH | KSWAPD_RECLAIM
    NOWAIT = KSWAPD_RECLAIM | NOWARN
    NOIO = RECLAIM
    NOFS = RECLAIM | IO
    KERNEL = RECLAIM | IO | FS
    KERNEL_ACCOUNT = KERNEL | ACCOUNT
    USER = KERNEL | HARDWALL
    DMA = ZONE_DMA
    DMA32 = ZONE_DMA32
    HIGHUSER = USER | HIGHMEM
    HIGHUSER_MOVABLE = HIGHUSER | MOVABLE
    TRANSHUGE_LIGHT = (HIGHUSER_MOVABLE | COMP | NOMEMALLOC | NOWARN) & ~RECLAIM
    TRANSHUGE = TRANSHUGE_LIGHT | DIRECT_RECLAIM
    PGTABLE_KERNEL = KERNEL | ZERO
    PGTABLE_USER = PGTABLE_KERNEL | ACCOUNT


GFP_ATOMIC = Gfp.ATOMIC
GFP_NOWAIT = Gfp.NOWAIT
GFP_NOIO = Gfp.NOIO
GFP_NOFS = Gfp.NOFS
GFP_KERNEL = Gfp.KERNEL
GFP_KERNEL_ACCOUNT = Gfp.KERNEL_ACCOUNT
GFP_USER = Gfp.USER
GFP_DMA = Gfp.DMA
GFP_DMA32 = Gfp.DMA32
GFP_HIGHUSER = Gfp.HIGHUSER
GFP_HIGHUSER_MOVABLE = Gfp.HIGHUSER_MOVABLE
GFP_TRANSHUGE_LIGHT = Gfp.TRANSHUGE_LIGHT
GFP_TRANSHUGE = Gfp.TRANSHUGE

# The kernel prints a mask by taking away the first of these that fits, then the next.
_TEXT: tuple[tuple[str, int], ...] = (
    *((f"GFP_{name}", int(Gfp[name])) for name in (
        "TRANSHUGE", "TRANSHUGE_LIGHT", "HIGHUSER_MOVABLE", "HIGHUSER", "USER", "KERNEL_ACCOUNT", "KERNEL", "NOFS", "ATOMIC", "NOIO",
        "NOWAIT", "DMA",
    )),
    ("__GFP_HIGHMEM", int(Gfp.HIGHMEM)),
    ("GFP_DMA32", int(Gfp.DMA32)),
    *((f"__GFP_{name}", int(Gfp[name])) for name in (
        "HIGH", "IO", "FS", "NOWARN", "RETRY_MAYFAIL", "NOFAIL", "NORETRY", "COMP", "ZERO", "NOMEMALLOC", "MEMALLOC", "HARDWALL",
        "THISNODE", "RECLAIMABLE", "MOVABLE", "ACCOUNT", "WRITE", "RECLAIM", "DIRECT_RECLAIM", "KSWAPD_RECLAIM", "ZEROTAGS",
    )),
)  # fmt: skip
_BITS = dict(_TEXT) | {f"__GFP_{f.name}": int(f) for f in Gfp if f.name} | {"__GFP_DMA": 1, "__GFP_DMA32": 4}


def gfp_text(mask: int) -> str:
    """The kernel's text for a mask (%pGg): 0x140dca -> "GFP_HIGHUSER_MOVABLE|__GFP_COMP|__GFP_ZERO"; "none" for 0."""
    left, parts = int(mask), []
    for name, bits in _TEXT:
        if left & bits == bits and bits:
            parts.append(name)
            left &= ~bits
    if left:
        parts.append(f"{left:#x}")
    return "|".join(parts) or "none"


def parse_gfp(text: str) -> int:
    """The mask that a text names: gfp_text()'s form, or a number. ValueError names a flag that is not known."""
    text = text.strip()
    if text == "none":
        return 0
    mask = 0
    for part in text.split("|"):
        part = part.strip()
        if part in _BITS:
            mask |= _BITS[part]
            continue
        try:
            mask |= int(part, 0)
        except ValueError:
            raise ValueError(f"unknown GFP flag {part!r} in {text!r}") from None
    return mask


class Migratetype(IntEnum):
    """Migratetypes of pageblocks, in the order of /proc/pagetypeinfo (no CMA in the reference build)."""

    UNMOVABLE = 0
    MOVABLE = 1
    RECLAIMABLE = 2
    HIGHATOMIC = 3
    ISOLATE = 4


MIGRATETYPE_NAMES = ("Unmovable", "Movable", "Reclaimable", "HighAtomic", "Isolate")


class Pg(IntFlag):
    """Flags in the flags word of a page record; the upper four bits are the order of the block that starts there."""

    LOCKED = 1 << 0
    WRITEBACK = 1 << 1
    REFERENCED = 1 << 2
    UPTODATE = 1 << 3
    DIRTY = 1 << 4
    LRU = 1 << 5
    HEAD = 1 << 6
    ACTIVE = 1 << 7
    WORKINGSET = 1 << 8
    SWAPCACHE = 1 << 9
    RESERVED = 1 << 10
    PRIVATE = 1 << 11
    RECLAIM = 1 << 12
    SWAPBACKED = 1 << 13
    UNEVICTABLE = 1 << 14
    MLOCKED = 1 << 15
    HWPOISON = 1 << 16
    BUDDY = 1 << 18
    PCP = 1 << 19
    PFMEMALLOC = 1 << 20
    META = 1 << 21
    ALLOCATED = 1 << 27


class Task(IntFlag):
    """What the asking task is or does: scopes and flags that change a request beside its mask."""

    MEMALLOC = 1
    NOIO = 2
    NOFS = 4
    PIN = 8
    OOM_VICTIM = 16
    INTERRUPT = 32
    RT = 64
