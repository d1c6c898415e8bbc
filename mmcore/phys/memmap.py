"""Memory maps: which page frames are memory, on which node, and which of them a boot keeps for itself.

Models: the e820 map after the platform's trimming (arch/x86/kernel/e820.c) as QEMU's pc and q35 machines give it, and what
memblock holds when the allocator starts (kernel image, memory map, hash tables, bounce buffers). Simplifies: what a boot reserves is a
fit to recorded boots of Debian's kernel (managed pages within 1 %), not a replay of it. Omits: hotplug, persistent memory.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

PAGE = 4096
MAX_PFN = 1 << 31
SECTION_PAGES = 32768
LOW_END = 0x9F  # RAM below 640 KiB, without the page of the extended BIOS data
ISA_END = 0x100
GIB = 1 << 18  # in pages
ACPI_PAGES = {"pc": 38, "q35": 38}
"""Pages at the top of the low part that hold ACPI tables: what the recorded boots show (older firmware: 32 and 33)."""
LOW_PART = {"pc": (3584 << 8, 3 * GIB), "q35": (2816 << 8, 2 * GIB)}
"""(RAM from which the low part is cut, size of the low part then), in pages."""
_SUFFIX = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40, "p": 50}
_SIZE = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*([kmgtp]?)(?:i?b)?\s*$", re.IGNORECASE)
_NODE_RANGE = re.compile(r"node\s+(\d+): \[mem 0x([0-9a-fA-F]+)-0x([0-9a-fA-F]+)\]")
_IOMEM = re.compile(r"^([0-9a-fA-F]+)-([0-9a-fA-F]+) : System RAM\s*$", re.MULTILINE)


def parse_size(size: str | int) -> int:
    """Bytes of a size: a number, or text like "4G", "512 MiB". ValueError or TypeError names what cannot be read."""
    if isinstance(size, bool) or not isinstance(size, (str, int)):
        raise TypeError(f"a size is a number of bytes or a text like '4G', not {size!r}")
    if isinstance(size, int):
        value = size
    else:
        match = _SIZE.match(size)
        if not match:
            raise ValueError(f"cannot read the size {size!r}; write a number with K, M, G or T behind it")
        number, suffix = match.group(1), match.group(2).lower()
        value = int(float(number) * (1 << _SUFFIX[suffix])) if "." in number else int(number) << _SUFFIX[suffix]
    if not 0 <= value < MAX_PFN * PAGE:
        raise ValueError(f"size {size!r} is {value} bytes; it must lie in 0..{MAX_PFN * PAGE - 1}")
    return value


@dataclass(frozen=True, order=True)
class MemoryRange:
    """Page frames [start_pfn, end_pfn) that are memory, of node nid."""

    start_pfn: int
    end_pfn: int
    nid: int = 0


@dataclass(frozen=True)
class MemoryMap:
    """All memory of a machine: sorted ranges that do not overlap, neighbours of one node joined. ValueError names a range that cannot be."""

    ranges: tuple[MemoryRange, ...]
    arch: str = "x86_64"

    def __init__(self, ranges: Iterable[MemoryRange | tuple[int, int] | tuple[int, int, int]], arch: str = "x86_64") -> None:
        if arch not in ("x86_64", "i386"):
            raise ValueError(f"arch is {arch!r}; it must be 'x86_64' or 'i386'")
        rows = sorted(r if isinstance(r, MemoryRange) else MemoryRange(*r) for r in ranges)
        joined: list[MemoryRange] = []
        for r in rows:
            for value, name in ((r.start_pfn, "start_pfn"), (r.end_pfn, "end_pfn"), (r.nid, "nid")):
                if isinstance(value, bool) or not isinstance(value, int):
                    raise TypeError(f"{name} of a memory range must be an integer, not {value!r}")
            if not 1 <= r.start_pfn < r.end_pfn <= MAX_PFN - 1024:
                raise ValueError(f"memory range {r.start_pfn:#x}..{r.end_pfn:#x}: page frames lie in 1..{MAX_PFN - 1024:#x}, the end behind the start")
            if not 0 <= r.nid < 1024:
                raise ValueError(f"node {r.nid} of a memory range: nodes lie in 0..1023")
            if joined and r.start_pfn < joined[-1].end_pfn:
                raise ValueError(f"memory ranges {joined[-1]} and {r} overlap")
            if joined and r.start_pfn == joined[-1].end_pfn and r.nid == joined[-1].nid:
                joined[-1] = MemoryRange(joined[-1].start_pfn, r.end_pfn, r.nid)
            else:
                joined.append(r)
        if not joined:
            raise ValueError("a memory map needs at least one range")
        if len(joined) > 4096:
            raise ValueError(f"{len(joined)} memory ranges; the limit is 4096")
        if arch == "i386" and joined[-1].end_pfn > 1 << 24:
            raise ValueError(f"i386 with PAE reaches page frame {1 << 24:#x}, not {joined[-1].end_pfn:#x}")
        object.__setattr__(self, "ranges", tuple(joined))
        object.__setattr__(self, "arch", arch)

    @property
    def nr_pages(self) -> int:
        return sum(r.end_pfn - r.start_pfn for r in self.ranges)

    @classmethod
    def qemu(cls, node_pages: Sequence[int], *, chipset: str = "pc", arch: str = "x86_64") -> MemoryMap:
        """The map of a QEMU machine whose nodes have these pages; nodes lie over the low and the high part in their order."""
        if chipset not in LOW_PART:
            raise ValueError(f"chipset is {chipset!r}; it must be 'pc' or 'q35'")
        total = sum(node_pages)
        if total < 4096:
            raise ValueError(f"{total} pages of memory; the least is 4096 (16 MiB)")
        threshold, cut = LOW_PART[chipset]
        low = cut if total >= threshold else total
        parts = [(1, LOW_END), (ISA_END, low - ACPI_PAGES[chipset])]
        if total > low:
            parts.append((4 * GIB, 4 * GIB + total - low))
        ranges, at = [], 0
        for nid, n in enumerate(node_pages):
            for a, b in ((at, min(at + n, low)), (4 * GIB + max(at, low) - low, 4 * GIB + at + n - low)):
                ranges += [(max(a, x), min(b, y), nid) for x, y in parts if max(a, x) < min(b, y)]
            at += n
        return cls(ranges, arch)

    @classmethod
    def from_dmesg(cls, text: str, arch: str = "x86_64") -> MemoryMap:
        """The map that a boot log prints under "Early memory node ranges"."""
        found = [(int(a, 16) // PAGE, (int(b, 16) + 1) // PAGE, int(nid)) for nid, a, b in _NODE_RANGE.findall(text)]
        if not found:
            raise ValueError("the boot log has no line 'node N: [mem 0x...-0x...]'")
        return cls(found, arch)

    @classmethod
    def from_iomem(cls, text: str, arch: str = "x86_64") -> MemoryMap:
        """The "System RAM" of /proc/iomem (root's: others see zeros), as the allocator gets it: without page 0, on node 0."""
        found = []
        for a, b in _IOMEM.findall(text):
            start, end = -(-int(a, 16) // PAGE), (int(b, 16) + 1) // PAGE
            start = max(start, 1)
            if start < end:
                found.append((start, end, 0))
        if not found:
            raise ValueError("no line 'XXXX-XXXX : System RAM' with addresses")
        return cls(found, arch)


KERNEL_START = 0x1000
KERNEL_PAGES = 9555
KERNEL_LATE = 1716
INITRD_PAGES = 301
SWIOTLB_PAGES = 16384
TABLES_BASE = 150
TABLES_PER_GIB = 384


def default_reservations(memory: MemoryMap) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """What a boot keeps of a sized machine: (for good, until after the watermarks are set), as lists of page ranges.

    Everything below 1 MiB; the kernel image at 16 MiB; the memory map (512 pages a section, on its own node) and hash tables at the
    top of each node's memory below HighMem; bounce buffers at the top of the low part where there is memory above 4 GiB. On machines
    too small for that the parts shrink in proportion.
    """
    good: list[tuple[int, int]] = [(1, ISA_END)]
    late: list[tuple[int, int]] = []
    total = memory.nr_pages
    scale = min(1.0, total / (2.5 * KERNEL_PAGES))
    kernel, freed = int(KERNEL_PAGES * scale), int(KERNEL_LATE * scale)
    taken = [(r.start_pfn, r.end_pfn, r.nid) for r in memory.ranges if r.end_pfn > ISA_END]
    limit = 225278 if memory.arch == "i386" else MAX_PFN
    taken = [(a, min(b, limit), n) for a, b, n in taken if a < limit]
    boot_node = taken[0][2]
    start = KERNEL_START if taken[0][1] > KERNEL_START + 2 * kernel else taken[0][0]
    good.append((start, start + kernel))
    late.append((start + kernel, start + kernel + freed))
    low_end = max(b for a, b, _ in taken if a < 4 * GIB)
    if any(b > 4 * GIB for _, b, _ in taken):
        good.append((low_end - INITRD_PAGES - SWIOTLB_PAGES, low_end - INITRD_PAGES))
    initrd = int(INITRD_PAGES * scale)
    late.append((low_end - initrd, low_end))
    for nid in sorted({r.nid for r in memory.ranges}):
        sections: set[int] = set()
        for r in memory.ranges:
            if r.nid == nid:
                sections.update(range(r.start_pfn // SECTION_PAGES, (r.end_pfn - 1) // SECTION_PAGES + 1))
        pages = sum(r.end_pfn - r.start_pfn for r in memory.ranges if r.nid == nid)
        want = min(len(sections) * 512, pages // 64 + 1) if memory.arch == "x86_64" else pages // 128
        if nid == boot_node:
            want += int((TABLES_BASE + TABLES_PER_GIB * total // GIB) * scale)
        # from the top, around what is taken already
        for a, b, n in reversed(taken):
            if n != nid or not want:
                continue
            for x, y in _holes(a, b, good + late):
                m = min(want, y - x)
                good.append((y - m, y))
                want -= m
                if not want:
                    break
    return good, late


def _holes(start: int, end: int, cuts: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """What [start, end) has outside the cuts, from the top down."""
    out = [(start, end)]
    for lo, hi in cuts:
        out = [p for a, b in out for p in ((a, min(b, lo)), (max(a, hi), b)) if p[0] < p[1]]
    return sorted(set(out), reverse=True)
