"""Memory maps: which page frames are RAM, and on which node.

Models: the map that the platform hands over (arch/x86/kernel/e820.c, setup.c, mm/numa.c, init_32.c), as QEMU's pc and q35 machines lay it
out, as a boot log prints it, as /proc/iomem shows it; ranges in page frames, trimmed to whole pages, page frame 0 left out.
Simplifies: an explicit map is taken as it is, without vendor quirks. Omits: memory hotplug, persistent memory, EFI memory types.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

PAGE_SHIFT = 12
PAGE_SIZE = 1 << PAGE_SHIFT
PAGES_PER_SECTION = 32768
"""A section of the sparse memory model: 128 MiB"""
LOW_MEMORY_END = 256
"""pfn of 1 MiB: x86 never gives the memory below to the allocator"""
DMA_END = 4096
FOUR_GIB = 1 << 20
MAX_RANGES = 4096
MAX_NUMNODES = 1024
MAX_PFN = 1 << 31
"""First pfn that is too high for this simulator (8 TiB): links between pages are 32-bit, with room for list heads"""
I386_LOWMEM_END = 225278
"""Where HighMem begins with Debian's PAE kernel: what 128 MiB of vmalloc space and the fixed mappings leave of the last GiB"""
ARCH_MAX_PFN = {"x86_64": MAX_PFN, "i386": 1 << 24}
"""The same by architecture; i386 with PAE has 36 address bits"""
ACPI_TAIL_PAGES = 38
"""Pages that the firmware keeps at the top of the low part. The recordings of Debian's kernels show 38 on pc and on q35
(their low part ends at 0x...fda000); other builds of QEMU and SeaBIOS keep 32 on pc and 33 on q35."""
ISA_RAM_END = 0x9F
"""pfn behind the last whole page of conventional memory; the extended BIOS data area begins in the next"""

# patterns as texts: re compiles each at its first use, which importing does not pay for
_SIZE = r"(0[xX][0-9a-fA-F]+|\d+(?:\.\d+)?)\s*([KMGTP]?)(?:I?B)?"
_EARLY = r"node\s+(\d+): \[mem 0x([0-9a-fA-F]+)-0x([0-9a-fA-F]+)\]"
_E820 = r"BIOS-e820: \[mem 0x([0-9a-fA-F]+)-0x([0-9a-fA-F]+)\] (usable|reserved|\S.*)"
_E820_UPDATE = r"e820: (?:update|remove) \[mem 0x([0-9a-fA-F]+)-0x([0-9a-fA-F]+)\] usable"
_IOMEM_RAM = r"^\s*([0-9a-fA-F]+)-([0-9a-fA-F]+) : System RAM\s*$"

Span = tuple[int, int]
"""(first pfn, end pfn), the end exclusive"""


def parse_size(size: str | int, name: str = "memory") -> int:
    """Pages of a size: "4G", "512M", "1.5GiB" (powers of 1024; no suffix: bytes) or an int of bytes.

    TypeError for anything else; ValueError if it is negative, no whole number of pages, or beyond 8 TiB. `name` is for the message.
    """
    if isinstance(size, str):
        match = re.fullmatch(_SIZE, size.strip(), re.IGNORECASE)
        if match is None:
            raise ValueError(f"{name} is {size!r}; a size is a number of bytes, or one with K, M, G, T or P, such as '4G'")
        number, unit = match[1], 1 << 10 * " KMGTP".index(match[2].upper() or " ")
        if number[:2] in ("0x", "0X"):
            value = int(number, 16) * unit
        else:
            whole, _, fraction = number.partition(".")
            if len(number) > 40:
                raise ValueError(f"{name} is a number of {len(number)} digits; the limit is {MAX_PFN * PAGE_SIZE} bytes (8T)")
            parts, rest = divmod(int(whole + fraction) * unit, 10 ** len(fraction))
            if rest:
                raise ValueError(f"{name} is {size!r}, which is no whole number of bytes")
            value = parts
    else:
        value = as_int(size, name)
    if value < 0:
        raise ValueError(f"{name} is {size!r}; it must not be negative")
    if value % PAGE_SIZE:
        raise ValueError(f"{name} is {size!r}, {value} bytes; it must be a multiple of the page size, {PAGE_SIZE}")
    if value > MAX_PFN * PAGE_SIZE:
        raise ValueError(f"{name} is {size!r}, {value} bytes; the limit is {MAX_PFN * PAGE_SIZE} (8T)")
    return value // PAGE_SIZE


def format_size(pages: int) -> str:
    """The shortest text that parse_size() turns back into `pages`: "4G", "1536M", "4193760K", "0"."""
    kib = pages * (PAGE_SIZE >> 10)
    for unit in "KMGT":
        if kib % 1024 or not kib or unit == "T":
            return f"{kib}{unit}" if kib else "0"
        kib //= 1024
    raise AssertionError("not reached")


def as_int(value: object, name: str) -> int:
    """`value` as an int, if it is one by nature (numpy's too, no bool); TypeError names it otherwise."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be an integer, not {type(value).__name__} ({value!r})")
    return int(value.__index__())


def subtract(ranges: Iterable[Span], holes: Sequence[Span]) -> list[Span]:
    """What `holes` leave of `ranges`. Both ascending and without overlaps, and so is the result."""
    out = []
    first = 0
    for start, end in ranges:
        while first < len(holes) and holes[first][1] <= start:
            first += 1
        i = first
        while i < len(holes) and holes[i][0] < end:
            if start < holes[i][0]:
                out.append((start, holes[i][0]))
            start = max(start, holes[i][1])
            i += 1
        if start < end:
            out.append((start, end))
    return out


def clip(ranges: Iterable[Span], low: int, high: int) -> list[Span]:
    """The parts of `ranges` within [low, high)."""
    return [(max(start, low), min(end, high)) for start, end in ranges if start < high and end > low]


def merge(ranges: Iterable[Span]) -> list[Span]:
    """The union of ranges, ascending, without overlaps or touching neighbours."""
    out: list[Span] = []
    for start, end in sorted(ranges):
        if out and start <= out[-1][1]:
            out[-1] = (out[-1][0], max(end, out[-1][1]))
        elif start < end:
            out.append((start, end))
    return out


@dataclass(frozen=True, order=True, slots=True)
class MemoryRange:
    """RAM of one node: page frames start_pfn to end_pfn, the end exclusive."""

    start_pfn: int
    end_pfn: int
    nid: int = 0

    @property
    def nr_pages(self) -> int:
        return self.end_pfn - self.start_pfn


@dataclass(frozen=True, slots=True, init=False)
class MemoryMap:
    """All RAM of a machine: ranges ascending, without overlaps, touching ranges of one node merged.

    Takes ranges in any order, as MemoryRange or (start_pfn, end_pfn[, nid]). Page frame 0 is left out, as x86 does. ValueError names a
    range that is empty, overlaps another, lies beyond the limit of the architecture ("x86_64": 8 TiB, "i386": 64 GiB) or is on an
    impossible node; TypeError a value of the wrong kind.
    """

    ranges: tuple[MemoryRange, ...]
    arch: str

    def __init__(self, ranges: Iterable[MemoryRange | tuple[int, int] | tuple[int, int, int]], arch: str = "x86_64") -> None:
        if arch not in ARCH_MAX_PFN:
            raise ValueError(f"arch is {arch!r}; known are {', '.join(map(repr, ARCH_MAX_PFN))}")
        if isinstance(ranges, str | bytes | Mapping) or not isinstance(ranges, Iterable):
            raise TypeError(f"ranges of RAM must be a sequence of (start_pfn, end_pfn, nid), not {type(ranges).__name__}")
        given = sorted(_checked(r, arch) for r in ranges)
        if not given:
            raise ValueError("a memory map needs at least one range of RAM")
        merged: list[MemoryRange] = []
        for r in given:
            last = merged[-1] if merged else None
            if last and r.start_pfn < last.end_pfn:
                raise ValueError(f"ranges of RAM overlap: {_text(last)} and {_text(r)}")
            if last and r.start_pfn == last.end_pfn and r.nid == last.nid:
                merged[-1] = MemoryRange(last.start_pfn, r.end_pfn, r.nid)
            else:
                merged.append(r)
        if len(merged) > MAX_RANGES:
            raise ValueError(f"{len(merged)} separate ranges of RAM; the limit is {MAX_RANGES}")
        object.__setattr__(self, "ranges", tuple(merged))
        object.__setattr__(self, "arch", arch)

    def __iter__(self) -> Iterator[MemoryRange]:
        return iter(self.ranges)

    def __len__(self) -> int:
        return len(self.ranges)

    def __contains__(self, pfn: int) -> bool:
        i = bisect_right(self.ranges, pfn, key=lambda r: r.start_pfn) - 1
        return i >= 0 and pfn < self.ranges[i].end_pfn

    @property
    def nr_pages(self) -> int:
        """Pages of RAM."""
        return sum(r.nr_pages for r in self.ranges)

    @property
    def min_pfn(self) -> int:
        """Lowest page frame of RAM."""
        return self.ranges[0].start_pfn

    @property
    def max_pfn(self) -> int:
        """First page frame behind all RAM."""
        return self.ranges[-1].end_pfn

    @property
    def nr_nodes(self) -> int:
        """Highest node that has RAM, plus one."""
        return 1 + max(r.nid for r in self.ranges)

    def node_ranges(self, nid: int) -> list[Span]:
        """RAM of one node as (start_pfn, end_pfn), ascending."""
        return [(r.start_pfn, r.end_pfn) for r in self.ranges if r.nid == nid]

    def by_node(self) -> dict[int, list[Span]]:
        """node_ranges() of every node that has RAM, nodes ascending."""
        out: dict[int, list[Span]] = {nid: [] for nid in sorted({r.nid for r in self.ranges})}
        for r in self.ranges:
            out[r.nid].append((r.start_pfn, r.end_pfn))
        return out

    def spans(self) -> list[Span]:
        """All RAM as (start_pfn, end_pfn), ascending; ranges of different nodes stay apart."""
        return [(r.start_pfn, r.end_pfn) for r in self.ranges]

    def truncate(self, max_pfn: int) -> MemoryMap:
        """The map without what lies at or above max_pfn."""
        if self.max_pfn <= max_pfn:
            return self
        kept = [(r.start_pfn, min(r.end_pfn, max_pfn), r.nid) for r in self.ranges if r.start_pfn < max_pfn]
        return MemoryMap(kept, self.arch)

    # ------------------------------------------------------------ where a map comes from

    @classmethod
    def qemu(cls, node_pages: Sequence[int], *, chipset: str = "pc", arch: str = "x86_64", acpi_tail: int = ACPI_TAIL_PAGES) -> MemoryMap:
        """The map of a QEMU machine whose nodes have these pages of RAM: chipset "pc" or "q35".

        The part below 4 GiB is at most 3.5 GiB less one page (pc) or 2.75 GiB less one page (q35); a machine with more puts all but
        3 GiB (2 GiB) at 4 GiB. Nodes are laid over both parts in their order; one may have no pages.
        acpi_tail pages at the top of the low part belong to the firmware.
        """
        if chipset not in ("pc", "q35"):
            raise ValueError(f"chipset is {chipset!r}; known are 'pc' and 'q35'")
        nodes = [as_int(pages, f"pages of node {nid}") for nid, pages in enumerate(node_pages)]
        nr_pages = sum(nodes)
        if len(nodes) > MAX_NUMNODES:
            raise ValueError(f"{len(nodes)} nodes; the limit is {MAX_NUMNODES}")
        if not 0 <= acpi_tail < nr_pages - LOW_MEMORY_END:
            raise ValueError(
                f"memory is {nr_pages} pages; it needs more than {LOW_MEMORY_END + acpi_tail}: the first MiB and {acpi_tail} of firmware"
            )
        most, split = {"pc": (0xE0000, 0xC0000), "q35": (0xB0000, 0x80000)}[chipset]
        low = nr_pages if nr_pages < most else split
        usable = [(1, ISA_RAM_END), (LOW_MEMORY_END, low - acpi_tail)]
        if low < nr_pages:
            usable.append((FOUR_GIB, FOUR_GIB + nr_pages - low))
        ranges = []
        at = 0
        for nid, size in enumerate(nodes):
            if size < 0:
                raise ValueError(f"node {nid} has {size} pages; a size must not be negative")
            # A node is a stretch of RAM counted without the hole below 4 GiB.
            for first, end, shift in ((at, min(at + size, low), 0), (max(at, low), at + size, FOUR_GIB - low)):
                if first < end:
                    ranges += [(s, e, nid) for s, e in clip(usable, first + shift, end + shift)]
            at += size
        return cls(ranges, arch)

    @classmethod
    def from_dmesg(cls, text: str, arch: str | None = None) -> MemoryMap:
        """The map that a boot log prints: its "Early memory node ranges", or else its e820 table (all on node 0).

        arch None: "i386" if the log prints HighMem or LOWMEM, else "x86_64". ValueError if the log has neither table, or a bad line.
        """
        if arch is None:
            arch = "i386" if "LOWMEM available" in text or re.search(r"^\S*.*\bHighMem\s+\[mem", text, re.MULTILINE) else "x86_64"
        _, found, rest = text.partition("Early memory node ranges")
        ranges: list[tuple[int, int, int]] = []
        for line in rest.splitlines()[1:]:
            match = re.search(_EARLY, line)
            if match is None:
                break
            ranges += _whole_pages(int(match[2], 16), int(match[3], 16), line, int(match[1]))
        if not found:
            spans = _e820(text)
            ranges = [(start, end, 0) for start, end in spans]
        if not ranges:
            raise ValueError("the boot log tells of no RAM: it has neither 'Early memory node ranges' nor lines of 'BIOS-e820: ... usable'")
        return cls(ranges, arch)

    @classmethod
    def from_iomem(cls, text: str, arch: str = "x86_64") -> MemoryMap:
        """The map of /proc/iomem's "System RAM" lines, all on node 0.

        ValueError if there are none, or if the addresses are zero, as they are for readers without privilege.
        """
        ranges: list[tuple[int, int, int]] = []
        seen = 0
        for line in text.splitlines():
            match = re.match(_IOMEM_RAM, line)
            if match:
                seen += 1
                if int(match[2], 16):
                    ranges += _whole_pages(int(match[1], 16), int(match[2], 16), line)
        if seen and not ranges:
            raise ValueError("iomem shows its addresses as zero: it must be read with privilege (CAP_SYS_ADMIN)")
        if not ranges:
            raise ValueError("iomem has no line of 'System RAM'")
        return cls(ranges, arch)

    # ------------------------------------------------------------ plain data

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; from_dict() turns it back."""
        return {"arch": self.arch, "ranges": [[r.start_pfn, r.end_pfn, r.nid] for r in self.ranges]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> MemoryMap:
        """The map of to_dict(); ValueError or TypeError for data that is none."""
        if not isinstance(data, Mapping) or set(data) != {"arch", "ranges"}:
            raise ValueError("a memory map is stored as {'arch': ..., 'ranges': [[start_pfn, end_pfn, nid], ...]}")
        return cls(data["ranges"], data["arch"])


def _checked(value: Any, arch: str) -> MemoryRange:
    if isinstance(value, MemoryRange):
        value = (value.start_pfn, value.end_pfn, value.nid)
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) not in (2, 3):
        raise TypeError(f"a range of RAM is (start_pfn, end_pfn) or (start_pfn, end_pfn, nid), not {value!r}")
    start, end = as_int(value[0], "start_pfn"), as_int(value[1], "end_pfn")
    nid = as_int(value[2], "nid") if len(value) == 3 else 0
    limit = ARCH_MAX_PFN[arch]
    if not 0 <= start < end:
        raise ValueError(f"range of RAM {start:#x}-{end:#x}: it must begin at 0 or above and end behind its start")
    if end > limit:
        raise ValueError(f"range of RAM {start:#x}-{end:#x} ends above page frame {limit:#x}, the limit of {arch}")
    nodes = MAX_NUMNODES if arch == "x86_64" else 1
    if not 0 <= nid < nodes:
        raise ValueError(f"range of RAM {start:#x}-{end:#x} is on node {nid}; {arch} has nodes 0..{nodes - 1}")
    if end == 1:
        raise ValueError("range of RAM 0x0-0x1: page frame 0 is never RAM for the allocator")
    return MemoryRange(max(start, 1), end, nid)


def _text(r: MemoryRange) -> str:
    return f"{r.start_pfn:#x}-{r.end_pfn:#x} (node {r.nid})"


def _whole_pages(first: int, last: int, line: str, nid: int = 0) -> list[tuple[int, int, int]]:
    # Addresses of the first and last byte; what is not a whole page is no RAM, nor is page frame 0.
    if last < first:
        raise ValueError(f"a range of RAM ends before it begins: {line.strip()!r}")
    start, end = max(1, -(-first >> PAGE_SHIFT)), (last + 1) >> PAGE_SHIFT
    return [(start, end, nid)] if start < end else []


def _e820(text: str) -> list[Span]:
    usable, taken = [], []
    for match in re.finditer(_E820, text):
        first, last = int(match[1], 16), int(match[2], 16)
        if last < first:
            raise ValueError(f"a range of RAM ends before it begins: {match[0]!r}")
        if match[3] == "usable":
            usable.append((-(-first >> PAGE_SHIFT), (last + 1) >> PAGE_SHIFT))
    for match in re.finditer(_E820_UPDATE, text):
        taken.append((int(match[1], 16) >> PAGE_SHIFT, -(-(int(match[2], 16) + 1) >> PAGE_SHIFT)))
    # The ISA hole stays out even where firmware calls it usable.
    taken += [(0, 1), (0xA0, LOW_MEMORY_END)]
    return subtract(merge(usable), merge(taken))
