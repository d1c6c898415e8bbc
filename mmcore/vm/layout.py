"""The kernel's own address space: where its areas lie, and what follows from that by arithmetic.

Models: Documentation/arch/x86/x86_64/mm.rst, arch/x86/include/asm/pgtable_64_types.h, pgtable_32_areas.h, arch/x86/mm/init_32.c,
Documentation/arch/arm64/memory.rst, virt_to_page and its relatives (v6.12). Simplifies: fixed bases (no memory randomisation); physical
addresses start at 0 on arm64; fixed mappings of 32-bit x86 are those of Debian's build, on two levels derived in the same way. Omits:
descriptors of 32-bit x86, which stand in no area of their own; user halves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

PAGE_SHIFT = 12
PAGE_SIZE = 1 << PAGE_SHIFT
MIB, GIB, TIB = 1 << 20, 1 << 30, 1 << 40
TOP = 1 << 64
STRUCT_PAGE = 64
"""Bytes of a page descriptor (struct page)"""
PHYS_BITS = 52

VMALLOC_RESERVE = 128 * MIB
VMALLOC_OFFSET = 8 * MIB
I386_PAGE_OFFSETS = (0xC0000000, 0xB0000000, 0x80000000, 0x78000000, 0x40000000)
I386_CPU_ENTRY_AREAS = 0xFF400000
"""Base of the per-CPU entry areas below the fixmap in Debian's build"""
PMD_SIZE = {"pae": 2 * MIB, "2level": 4 * MIB}
KMAP_SLOTS = {"pae": 512, "2level": 1024}
KMAP_LOCAL_SLOTS = 16
FIXADDR_TOP = 0xFFFFF000
FIX_KMAP_BEGIN = 68
"""Number of the first kmap_local slot in the fixmap (depends on the build; not observed)"""
START_KERNEL_MAP = 0xFFFFFFFF80000000
KERNEL_IMAGE_SIZE = 512 * MIB


@dataclass(frozen=True, slots=True)
class Area:
    """One area of the kernel's address space: [start, end) in bytes."""

    name: str
    start: int
    end: int

    @property
    def size(self) -> int:
        return self.end - self.start

    def __contains__(self, address: object) -> bool:
        return isinstance(address, int | np.integer) and self.start <= int(address) < self.end


def pkmap_base(paging: str) -> int:
    """First address of the persistent kmaps on 32-bit x86: below the per-CPU entry areas and the LDT remap, each rounded down to a PMD."""
    block = PMD_SIZE[paging]
    ldt = (I386_CPU_ENTRY_AREAS - PAGE_SIZE) // block * block
    return (ldt - PAGE_SIZE) // block * block


def lowmem_limit(paging: str = "pae", page_offset: int = 0xC0000000) -> int:
    """Most page frames that a 32-bit kernel maps directly: 128 MiB below the end of vmalloc is where they end."""
    if page_offset not in I386_PAGE_OFFSETS:
        raise ValueError(f"page_offset is {page_offset:#x}; it must be one of {', '.join(map(hex, I386_PAGE_OFFSETS))}")
    return (pkmap_base(paging) - 2 * PAGE_SIZE - VMALLOC_RESERVE - page_offset) >> PAGE_SHIFT


class KernelLayout:
    """Areas of one kernel and the conversions between page frames, physical and kernel addresses.

    Parameters: paging ("4level", "5level", "pae", "2level", "arm64-48", "arm64-39"); nr_pages, page frames that the machine has;
    lowmem_pages (32-bit only), how many of them are mapped directly, at most lowmem_limit(); page_offset, a variant of the 32-bit split.

    Conversions take an int, or an array of integers and return an array of uint64. ValueError names the first value that lies outside
    what can be converted, and the limit.
    """

    def __init__(self, paging: str, nr_pages: int, *, lowmem_pages: int | None = None, page_offset: int | None = None) -> None:
        if not 0 < nr_pages <= 1 << 40:
            raise ValueError(f"nr_pages is {nr_pages}; it must lie in 1..{1 << 40}")
        self.paging, self.nr_pages = paging, nr_pages
        self.kmap: Area | None = None
        self.vmemmap: Area | None = None
        self.kernel_text: Area | None = None
        self.lowmem_pages = nr_pages
        if paging in ("pae", "2level"):
            self._i386(lowmem_pages, 0xC0000000 if page_offset is None else page_offset)
        elif lowmem_pages is not None or page_offset is not None:
            raise ValueError(f"lowmem_pages and page_offset are for 32-bit x86; paging is {paging!r}")
        elif paging in ("4level", "5level"):
            self._x86_64()
        elif paging in ("arm64-48", "arm64-39"):
            self._arm64(48 if paging == "arm64-48" else 39)
        else:
            raise ValueError(f"paging is {paging!r}; known are 4level, 5level, pae, 2level, arm64-48, arm64-39")
        self.areas: tuple[Area, ...] = tuple(sorted(self._areas, key=lambda area: area.start))

    def _x86_64(self) -> None:
        five = self.paging == "5level"
        guard = Area("guard hole", *((0xFF00000000000000, 0xFF10000000000000) if five else (0xFFFF800000000000, 0xFFFF880000000000)))
        base = 0xFF11000000000000 if five else 0xFFFF888000000000
        direct = Area("direct map", base, base + (32 << 50 if five else 64 * TIB))
        start = 0xFFA0000000000000 if five else 0xFFFFC90000000000
        # the last byte is VMALLOC_END, so the last page is never handed out
        vmalloc = Area("vmalloc", start, start + (12800 * TIB if five else 32 * TIB))
        base = 0xFFD4000000000000 if five else 0xFFFFEA0000000000
        vmemmap = Area("vmemmap", base, base + (1 << 49 if five else TIB))
        text = Area("kernel text", START_KERNEL_MAP, START_KERNEL_MAP + KERNEL_IMAGE_SIZE)
        entry = Area("cpu entry area", 0xFFFFFE0000000000, 0xFFFFFE8000000000)
        modules = Area("modules", text.end, 0xFFFFFFFFFF000000)
        vsyscall = Area("vsyscall", 0xFFFFFFFFFF600000, 0xFFFFFFFFFF601000)
        self.page_offset, self.direct, self.vmalloc, self.vmalloc_limit = direct.start, direct, vmalloc, vmalloc.end - PAGE_SIZE
        self.vmemmap, self.kernel_text = vmemmap, text
        self.fixmap_top = vsyscall.start
        self._areas = [guard, direct, vmalloc, vmemmap, entry, text, modules, vsyscall]

    def _i386(self, lowmem_pages: int | None, page_offset: int) -> None:
        limit = lowmem_limit(self.paging, page_offset)
        self.lowmem_pages = min(self.nr_pages, limit) if lowmem_pages is None else lowmem_pages
        base = pkmap_base(self.paging)
        if not 0 < self.lowmem_pages <= (base - 2 * PAGE_SIZE - VMALLOC_OFFSET - page_offset) >> PAGE_SHIFT:
            raise ValueError(f"lowmem_pages is {self.lowmem_pages}; a kernel with {self.paging} maps at most {limit} page frames directly")
        self.page_offset = page_offset
        self.direct = Area("lowmem", page_offset, page_offset + (self.lowmem_pages << PAGE_SHIFT))
        self.vmalloc = Area("vmalloc", self.direct.end + VMALLOC_OFFSET, base - 2 * PAGE_SIZE)
        self.vmalloc_limit = self.vmalloc.end
        self.kmap = Area("kmap", base, base + KMAP_SLOTS[self.paging] * PAGE_SIZE)
        self.fixmap_top = FIXADDR_TOP
        self._areas = [self.direct, self.vmalloc, self.kmap, Area("cpu entry area and fixmap", I386_CPU_ENTRY_AREAS, FIXADDR_TOP)]

    def _arm64(self, bits: int) -> None:
        self.page_offset = TOP - (1 << bits)
        end = TOP - (1 << (bits - 1))
        self.direct = Area("linear map", self.page_offset, end)
        modules = Area("modules", end, end + 2 * GIB)
        vmemmap_end = TOP - GIB
        self.vmemmap = Area("vmemmap", vmemmap_end - ((1 << (bits - 1)) >> PAGE_SHIFT) * STRUCT_PAGE, vmemmap_end)
        self.vmalloc = Area("vmalloc", modules.end, self.vmemmap.start - 8 * MIB)
        self.vmalloc_limit = self.vmalloc.end
        self.fixmap_top = TOP - 8 * MIB
        self._areas = [self.direct, modules, self.vmalloc, self.vmemmap]

    # ------------------------------------------------------------ sizes

    @property
    def vmalloc_total_kib(self) -> int:
        """VmallocTotal of /proc/meminfo: the area, without the last byte where that is VMALLOC_END."""
        return (self.vmalloc.size - (self.vmalloc_limit != self.vmalloc.end)) // 1024

    def area_of(self, address: int) -> Area | None:
        """The area that holds an address, None between areas."""
        return next((area for area in self.areas if address in area), None)

    def kmap_address(self, slot: int) -> int:
        """Address of a persistent kmap slot (32-bit only)."""
        if self.kmap is None:
            raise ValueError(f"{self.paging} has no persistent kmaps")
        count = KMAP_SLOTS[self.paging]
        if not 0 <= slot < count:
            raise ValueError(f"slot is {slot}; it must lie in 0..{count - 1}")
        return self.kmap.start + slot * PAGE_SIZE

    def kmap_local_address(self, cpu: int, depth: int) -> int:
        """Address of entry `depth` of a CPU's kmap_local stack (32-bit only): fixmap slots, downwards."""
        if self.kmap is None:
            raise ValueError(f"{self.paging} has no kmap_local slots")
        return FIXADDR_TOP - (FIX_KMAP_BEGIN + cpu * KMAP_LOCAL_SLOTS + depth) * PAGE_SIZE

    # ------------------------------------------------------------ conversions

    def va(self, pa: Any) -> Any:
        """Kernel address of a physical address in the direct map (__va)."""
        return _convert(pa, "physical address", [(0, self.lowmem_pages << PAGE_SHIFT, self.page_offset)])

    def pa(self, va: Any) -> Any:
        """Physical address behind a direct-map or (64-bit x86) kernel-text address (__pa)."""
        spans = [(self.page_offset, self.page_offset + (self.lowmem_pages << PAGE_SHIFT), -self.page_offset)]
        if self.kernel_text is not None:
            text = self.kernel_text
            spans.append((text.start, min(text.end, text.start + (self.nr_pages << PAGE_SHIFT)), -text.start))
        return _convert(va, "kernel address", spans)

    def pfn_of(self, va: Any) -> Any:
        """Page frame behind a direct-map address."""
        return self.pa(va) >> (np.uint64(PAGE_SHIFT) if isinstance(va, np.ndarray | list | tuple) else PAGE_SHIFT)

    def pfn_to_page(self, pfn: Any) -> Any:
        """Address of the descriptor of a page frame (pfn_to_page)."""
        area = self._descriptors()
        return _convert(pfn, "page frame", [(0, self.nr_pages, area.start)], STRUCT_PAGE)

    def page_to_pfn(self, page: Any) -> Any:
        """Page frame of a descriptor's address (page_to_pfn); it must be one, not an address between two."""
        area = self._descriptors()
        offset = _convert(page, "descriptor", [(area.start, area.start + self.nr_pages * STRUCT_PAGE, -area.start)])
        rest = np.asarray(offset % np.uint64(STRUCT_PAGE) if isinstance(offset, np.ndarray) else offset % STRUCT_PAGE)
        if rest.any():
            at = int(np.atleast_1d(np.asarray(page, np.uint64))[np.flatnonzero(np.atleast_1d(rest))[0]])
            raise ValueError(f"descriptor {at:#x} lies within a descriptor; they are {STRUCT_PAGE} bytes apart from {area.start:#x} on")
        return offset // (np.uint64(STRUCT_PAGE) if isinstance(offset, np.ndarray) else STRUCT_PAGE)

    def virt_to_page(self, va: Any) -> Any:
        """Address of the descriptor of the page that a direct-map address lies in (virt_to_page)."""
        return self.pfn_to_page(self.pfn_of(va))

    def page_address(self, pfn: Any) -> Any:
        """Direct-map address of a page frame of lowmem (page_address)."""
        return _convert(pfn, "page frame", [(0, self.lowmem_pages, self.page_offset)], PAGE_SIZE)

    def _descriptors(self) -> Area:
        if self.vmemmap is None:
            raise ValueError(f"{self.paging}: descriptors of pages stand in no area of their own; use page frames")
        return self.vmemmap


def _convert(value: Any, name: str, spans: list[tuple[int, int, int]], scale: int = 1) -> Any:
    # value * scale + offset of the span [low, high) that holds it, modulo 2^64
    if isinstance(value, np.ndarray | list | tuple):
        values = np.asarray(value)
        if values.dtype.kind not in "ui" and values.size:
            raise TypeError(f"{name}: an array of integers is needed, not of {values.dtype}")
        if values.dtype.kind == "i" and values.size and values.min() < 0:
            raise ValueError(f"{name} {int(values.min())} is negative")
        values = values.astype(np.uint64)
        out = np.zeros_like(values)
        left = np.ones(values.shape, bool)
        for low, high, offset in spans:
            inside = (values >= np.uint64(low)) & (values <= np.uint64(high - 1))
            out[inside] = values[inside] * np.uint64(scale) + np.uint64(offset % TOP)
            left &= ~inside
        if left.any():
            _outside(int(values[left].flat[0]), name, spans)
        return out
    if isinstance(value, bool | np.bool_) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be an integer, not {type(value).__name__}")
    number = int(value.__index__())
    for low, high, offset in spans:
        if low <= number < high:
            return (number * scale + offset) % TOP
    return _outside(number, name, spans)


def _outside(number: int, name: str, spans: list[tuple[int, int, int]]) -> None:
    raise ValueError(f"{name} {number:#x} lies outside {' and '.join(f'{low:#x}..{high - 1:#x}' for low, high, _ in spans)}")
