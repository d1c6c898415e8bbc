"""What the boot of a sized machine keeps for itself, and what of it is given back late: page frame ranges by their causes.

Models: memblock's reservations of a Debian kernel (mm/memblock.c, sparse-vmemmap.c, percpu.c, swiotlb.c, large system hashes of
mm/mm_init.c; arch/x86/mm/init.c for what is freed late): memory map, kernel image, initrd, bounce buffers, hash tables, per-CPU
areas, each laid where that boot lays it, top-down from the own node. Sizes are those that boot logs, iomem and zoneinfo of recorded
machines add up to; one default, a log buffer of 4 MiB with its descriptors (the kernel's log_buf_len=4M), is that of the boots that
the calibration table of the page allocator's specification was measured on. Simplifies: one kernel image per architecture and
version; machines too small for it get a smaller one. Omits: KASLR, crash kernels, huge pages reserved at boot, firmware services.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mmcore.phys.memmap import (
    DMA_END,
    FOUR_GIB,
    I386_LOWMEM_END,
    LOW_MEMORY_END,
    MAX_PFN,
    PAGES_PER_SECTION,
    MemoryMap,
    Span,
    as_int,
    clip,
    format_size,
    merge,
    subtract,
)

ZoneRange = tuple[int, int, int]
"""(zone index in the machine, first pfn, end pfn), the end exclusive"""

INITRD_PAGES = 301
LOG_BUF_PAGES = 4608
"""log_buf_len=4M: 1024 pages of text, 3584 of descriptors"""
SWIOTLB_PAGES = 16384
NODE_DATA_PAGES = 43
MIN_SIZED_PAGES = 8192
"""32 MiB: less than that, and the reservations must be given"""


@dataclass(frozen=True)
class KernelImage:
    """A kernel image in page frames, and what its boot takes besides.

    late: parts freed after the watermarks were set, in this order; percpu_pages: of one CPU; brk: behind the image; misc: in no log line.
    """

    start: int
    end: int
    late: tuple[tuple[str, int, int], ...]
    percpu_pages: int
    brk: int
    misc: int


# Ends of code, data and bss from iomem, sizes of the freed parts from the boot logs; the i386 image of 6.1 stands for 6.12's too.
KERNEL_IMAGES = {
    ("x86_64", "6.12"): KernelImage(
        0x1000, 0x3C00, (("decrypted", 0x3A05, 0x3C00), ("init", 0x3302, 0x372C), ("data gap", 0x2B71, 0x2C00)), 66, 7, 16
    ),
    ("x86_64", "6.1"): KernelImage(
        0x1000,
        0x4400,
        (
            ("decrypted", 0x4203, 0x4400),
            ("init", 0x3045, 0x3307),
            ("text gap", 0x1E02, 0x2000),
            ("data gap", 0x28EB, 0x2A00),
        ),
        62,
        8,
        17,
    ),
    ("i386", "6.12"): KernelImage(0x1000, 0x1F0B, (("init", 0x1DA4, 0x1E8C),), 33, 5, 16),
    ("i386", "6.1"): KernelImage(0x1000, 0x1F0B, (("init", 0x1DA4, 0x1E8C),), 33, 5, 16),
}


@dataclass(frozen=True)
class BootReservations:
    """Page frames that boot keeps: for good, and until late in the boot (in the order in which they are freed)."""

    reserved: tuple[Span, ...]
    """ascending, merged; without the late parts"""
    late: tuple[Span, ...]
    parts: tuple[tuple[str, int], ...]
    """(cause, pages), in the order in which boot takes them; the late parts are within those of the kernel image and the initrd"""


class Memblock:
    """Memory during boot: takes given ranges, or allocates top-down, on a node if that has room."""

    def __init__(self, memmap: MemoryMap, limit: int) -> None:
        self._limit = limit
        self._free = {nid: clip(spans, 0, limit) for nid, spans in memmap.by_node().items()}
        self.parts: list[tuple[str, list[Span]]] = []

    @property
    def nr_free(self) -> int:
        return sum(end - start for ranges in self._free.values() for start, end in ranges)

    def is_free(self, start: int, end: int) -> bool:
        """Whether all page frames of [start, end) are free."""
        return sum(b - a for ranges in self._free.values() for a, b in clip(ranges, start, end)) == end - start

    def reserve(self, what: str, start: int, end: int) -> None:
        """Take what is free within [start, end)."""
        taken = []
        for nid, ranges in self._free.items():
            got = clip(ranges, start, end)
            if got:
                self._free[nid] = subtract(ranges, got)
                taken += got
        self.parts.append((what, sorted(taken)))

    def alloc(self, what: str, nr_pages: int, *, nid: int | None = None, below: int | None = None, align: int = 1) -> list[Span]:
        """Take nr_pages: in one piece if possible, as high as possible below `below`, above 16 MiB and on node `nid` first.

        Returns the ranges; ValueError if there is not that much.
        """
        if nr_pages == 0:
            return []
        top = min(self._limit, self._limit if below is None else below)
        tries: list[int | None] = [None] if nid is None or nid not in self._free else [nid, None]
        for contiguous in (True, False):
            for node in tries:
                for low in (DMA_END, LOW_MEMORY_END):
                    got = self._find(nr_pages, node, low, top, align if contiguous else 1, contiguous)
                    if got:
                        for n in self._free if node is None else (node,):
                            self._free[n] = subtract(self._free[n], got)
                        self.parts.append((what, got))
                        return got
        raise ValueError(
            f"memory is too small for what boot keeps: {what} needs {nr_pages} pages, {self.nr_free} are free; give `reserved`"
        )

    def _find(self, nr_pages: int, nid: int | None, low: int, top: int, align: int, contiguous: bool) -> list[Span]:
        nodes = self._free.values() if nid is None else [self._free[nid]]
        pieces: list[Span] = []
        left = nr_pages
        for start, end in sorted((r for ranges in nodes for r in clip(ranges, low, top)), reverse=True):
            if contiguous:
                at = (end - nr_pages) // align * align
                if at >= start:
                    return [(at, at + nr_pages)]
            else:
                pieces.append((max(start, end - left), end))
                left -= pieces[-1][1] - pieces[-1][0]
                if not left:
                    return sorted(pieces)
        return []


def hash_pages(nr_pages: int, scale: int, *, arch: str = "x86_64") -> int:
    """Pages of a large system hash: one bucket per 2**scale bytes of memory, fewer above 64 GiB, a power of two of them."""
    bucket = 8 if arch == "x86_64" else 4
    entries = -(-nr_pages // 256) * 256
    adapt = 1 << 24
    while arch == "x86_64" and adapt < entries:
        scale += 1
        adapt <<= 2
    entries = max(1, entries >> (scale - 12))
    entries = 1 << (entries - 1).bit_length()
    return max(1, min(entries * bucket // 4096, nr_pages // 16))


def nr_sections(spans: Sequence[Span]) -> int:
    """Sections of 128 MiB that hold some of these ranges (ascending)."""
    count, last = 0, -1
    for start, end in spans:
        first = max(start // PAGES_PER_SECTION, last + 1)
        last = max(last, (end - 1) // PAGES_PER_SECTION)
        count += max(0, last - first + 1)
    return count


def boot_reservations(
    memmap: MemoryMap,
    *,
    kernel: str = "6.12",
    cpu_node: Sequence[int] = (0,),
    lowmem_end: int | None = None,
    initrd: int = INITRD_PAGES,
    log_buf: int = LOG_BUF_PAGES,
) -> BootReservations:
    """What a boot of this machine keeps. lowmem_end: where HighMem begins; initrd, log_buf: their pages.

    ValueError for machines below 32 MiB, and where less than an eighth of memory would be left.
    """
    image = KERNEL_IMAGES[memmap.arch, kernel]
    limit = memmap.max_pfn if lowmem_end is None else lowmem_end
    usable = sum(end - start for start, end in clip(memmap.spans(), LOW_MEMORY_END, limit))
    if usable + LOW_MEMORY_END < MIN_SIZED_PAGES - 256:
        raise ValueError(
            f"memory is {format_size(memmap.nr_pages)}; the model of what boot keeps needs {format_size(MIN_SIZED_PAGES)}: give `reserved`"
        )
    # A machine that the kernel would fill gets a smaller log buffer, then a smaller kernel.
    size, room = image.end - image.start, usable * 5 // 8
    rest = _estimate(memmap, image, cpu_node, limit)
    if size + initrd + log_buf + rest > room:
        log_buf = 0
    small = size + initrd + rest > room
    if small:
        size, initrd = min(size, usable // 8), min(initrd, usable // 64)

    block = Memblock(memmap, limit)
    block.reserve("below 1 MiB", 0, LOW_MEMORY_END)
    late = _kernel_image(block, image, size, small)
    low_top = max((end for _, end in clip(memmap.spans(), 0, min(limit, FOUR_GIB))), default=limit)
    # The boot loader puts the initrd below the top of low memory, on 64 KiB.
    late = block.alloc("initrd", initrd, below=low_top & ~15) + late
    _allocations(block, memmap, image, cpu_node, log_buf)
    if block.nr_free < usable // 8:
        raise ValueError(
            f"memory is {format_size(memmap.nr_pages)}: what boot keeps would leave {block.nr_free} of {usable} pages; give `reserved`"
        )
    taken = merge(span for _, spans in block.parts for span in spans)
    return BootReservations(
        reserved=tuple(subtract(taken, merge(late))),
        late=tuple(late),
        parts=tuple((what, sum(end - start for start, end in spans)) for what, spans in block.parts),
    )


def _kernel_image(block: Memblock, image: KernelImage, size: int, small: bool) -> list[Span]:
    # At 16 MiB where that is all free; parts that are freed late keep their place in it.
    if not small and block.is_free(image.start, image.end):
        block.reserve("kernel image", image.start, image.end)
        block.reserve("early allocations", image.end, image.end + image.brk)
        return [(start, end) for _, start, end in image.late]
    spans = block.alloc("kernel image", size)
    # A smaller kernel gives back an eighth: its init sections, at its end.
    init = size // 8
    return clip(spans, spans[-1][1] - init, spans[-1][1]) if spans[-1][1] - spans[-1][0] >= init else []


def _memmap_pages(memmap: MemoryMap) -> dict[int, int]:
    # By node. x86-64 maps whole sections, i386 all page frames in one piece, 40 bytes each.
    if memmap.arch == "x86_64":
        return {nid: 512 * nr_sections(spans) for nid, spans in memmap.by_node().items()}
    return {0: -(-40 * memmap.max_pfn // 4096)}


def _hash_total(memmap: MemoryMap, limit: int) -> int:
    # With several nodes the hash tables come from vmalloc, after boot memory.
    if len({r.nid for r in memmap}) > 1:
        return 0
    pages = sum(end - start for start, end in clip(memmap.spans(), 0, limit))
    return sum(hash_pages(pages, scale, arch=memmap.arch) for scale in (13, 14))


def _estimate(memmap: MemoryMap, image: KernelImage, cpu_node: Sequence[int], limit: int) -> int:
    maps = sum(pages + NODE_DATA_PAGES for pages in _memmap_pages(memmap).values())
    bounce = SWIOTLB_PAGES if memmap.max_pfn > FOUR_GIB else 0
    return maps + bounce + image.percpu_pages * len(cpu_node) + image.brk + image.misc + _hash_total(memmap, limit)


def _allocations(block: Memblock, memmap: MemoryMap, image: KernelImage, cpu_node: Sequence[int], log_buf: int) -> None:
    # In about the order of the boot: what comes first lies highest.
    x86_64 = memmap.arch == "x86_64"
    maps = _memmap_pages(memmap)
    if x86_64:
        for nid in maps:
            block.alloc(f"node {nid} data", NODE_DATA_PAGES, nid=nid)
    block.alloc("log buffer", log_buf)
    if memmap.max_pfn > FOUR_GIB and sum(b - a for a, b in clip(memmap.spans(), DMA_END, FOUR_GIB)) >= 2 * SWIOTLB_PAGES:
        # A slot of 24 bytes (16 on 32-bit) describes 2 KiB of bounce buffer.
        block.alloc("bounce buffers", SWIOTLB_PAGES, below=FOUR_GIB)
        block.alloc("bounce buffer slots", 196 if x86_64 else 128)
    block.alloc("other", image.misc)
    for nid, pages in maps.items():
        block.alloc(f"node {nid} memmap", pages, nid=nid, align=512 if x86_64 else 1)
    for nid, count in sorted(Counter(cpu_node).items()):
        block.alloc(f"node {nid} per-CPU areas", image.percpu_pages * count, nid=nid)
    block.alloc("hash tables", _hash_total(memmap, block._limit))


def default_reservations(memory: MemoryMap, **options: Any) -> tuple[list[Span], list[Span]]:
    """boot_reservations() as two lists of ranges: kept for good, and freed late."""
    if memory.arch == "i386":
        options.setdefault("lowmem_end", min(memory.max_pfn, I386_LOWMEM_END))
    model = boot_reservations(memory, **options)
    return list(model.reserved), list(model.late)


# ---------------------------------------------------------------- what is freed


def check_ranges(ranges: Sequence[Span], name: str) -> list[Span]:
    """Ranges of page frames as a list, in their order; ValueError for one that is empty or beyond 2**31."""
    if isinstance(ranges, str | bytes) or not isinstance(ranges, Sequence):
        raise TypeError(f"{name} must be a sequence of (first pfn, end pfn), not {type(ranges).__name__}")
    out = []
    for value in ranges:
        if isinstance(value, str | bytes) or not isinstance(value, Sequence) or len(value) != 2:
            raise TypeError(f"{name}: a range is (first pfn, end pfn), not {value!r}")
        start, end = (as_int(edge, f"{name}: a page frame number") for edge in value)
        if not 0 <= start < end <= MAX_PFN:
            raise ValueError(f"{name}: range {start:#x}-{end:#x} must begin at 0 or above, end behind its start and not above {MAX_PFN:#x}")
        out.append((start, end))
    return out


def free_by_ranges(present: Sequence[ZoneRange], reserved: Sequence[Span], late: Sequence[Span]) -> tuple[list[ZoneRange], list[ZoneRange]]:
    """What boot frees of the present ranges, given what it keeps and what it frees late: (first, late in the given order).

    A page that is both reserved and late is freed late. What lies below 1 MiB is not freed.
    """
    both = merge(late)
    if sum(end - start for start, end in late) != sum(end - start for start, end in both):
        raise ValueError(f"ranges freed late overlap: {', '.join(f'{a:#x}-{b:#x}' for a, b in sorted(late)[:16])}")
    out = merge([*reserved, *both, (0, LOW_MEMORY_END)])
    free = [(zi, a, b) for zi, start, end in present for a, b in subtract([(start, end)], clip(out, start, end))]
    back = [
        (zi, a, b)
        for span in late
        for part in subtract([span], [(0, LOW_MEMORY_END)])
        for zi, start, end in sorted(present, key=lambda r: r[1])
        for a, b in clip([part], start, end)
    ]
    return free, back


def free_by_count(
    present: Sequence[ZoneRange], managed: Sequence[int], late: Sequence[int], *, keep_low: bool = False
) -> tuple[list[ZoneRange], list[ZoneRange]]:
    """What boot frees, first and late, so that each zone has `managed` pages, `late` of them late (both by zone index).

    A zone keeps its pages below 1 MiB first, then those at its top; what lies beneath them is freed late. keep_low: the former are
    kept even where the counts would free them.
    """
    ranges: dict[int, list[Span]] = {}
    for zi, start, end in sorted(present):
        ranges.setdefault(zi, []).append((start, end))
    free: list[ZoneRange] = []
    back: list[ZoneRange] = []
    for zi, spans in ranges.items():
        total = sum(end - start for start, end in spans)
        low = sum(end - start for start, end in clip(spans, 0, LOW_MEMORY_END))
        count = min(managed[zi], total - low) if keep_low else managed[zi]
        freed_late = min(late[zi], count)
        _, spans = _take(spans, min(low, total - count))
        first, spans = _take(spans, count - freed_late)
        free += [(zi, start, end) for start, end in first]
        back += [(zi, start, end) for start, end in _take(spans, freed_late)[0]]
    return free, back


def _take(ranges: list[Span], count: int) -> tuple[list[Span], list[Span]]:
    # The lowest `count` pages of ranges, and the rest.
    taken: list[Span] = []
    for i, (start, end) in enumerate(ranges):
        if end - start > count:
            return ([*taken, (start, start + count)] if count else taken), [(start + count, end), *ranges[i + 1 :]]
        taken.append((start, end))
        count -= end - start
    return taken, []
