"""From a dump's zones to ours: architecture, kernel, node and zone numbers, protections, memory ranges.

Models: the zone types of x86-64 and i386 (include/linux/mmzone.h). Simplifies: zones of other architectures take
the place of ours that does their work; where a zone's holes lie is assumed, as no file of /proc tells.
Omits: page sizes other than 4 KiB (refused by mmpy.proc.infer).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mmcore.base.vmstat_names import ZONE_TYPES, node_stat_names
from mmpy.proc.errors import ProcInferenceError
from mmpy.proc.zoneinfo import PcpInfo, ZoneInfo, ZoneinfoText

# A machine's page frames are numbered below this (8 TiB).
MAX_PFN = (1 << 31) - (1 << 20)
MAX_FIGURE = (1 << 31) - 1
DMA_END = 4096
LOW_MIB = 256
DMA32_END = 1 << 20
# Where i386 with PAE ends: 64 GiB.
I386_END = 1 << 24
BLOCK_PAGES = 1024

# Zone types of kernels that leave empty zones out of the file, by number of types: the first list that holds all names wins.
_TYPE_LISTS = (
    ("DMA", "DMA32", "Normal", "Movable", "Device"),
    ("DMA", "DMA32", "Normal", "Movable"),
    ("DMA", "Normal", "HighMem", "Movable"),
    ("DMA", "DMA32", "Normal", "HighMem"),
    ("DMA", "Normal", "Movable", "Device"),
    ("DMA", "Normal", "Movable"),
    ("Normal", "HighMem", "Movable"),
    ("DMA", "Normal", "HighMem"),
    ("DMA", "DMA32", "Normal"),
    ("DMA32", "Normal", "Movable"),
    ("Normal", "Movable"),
    ("DMA", "Movable"),
    ("DMA", "Normal"),
)


@dataclass(frozen=True, slots=True, order=True)
class MemoryRange:
    """Memory of one zone: page frames start_pfn to end_pfn, exclusive; `zid` is the zone type's index."""

    start_pfn: int
    end_pfn: int
    node: int
    zid: int


@dataclass(slots=True)
class InferredZone:
    """One zone of the inferred machine, sizes in pages; min to promo without boost.

    text_node, text_name: what the dump calls it. free_pages: NR_FREE_PAGES as printed. managed_at_setup: the
    (fewest, most) pages that the protections were computed from.
    """

    node: int
    zid: int
    name: str
    text_node: int
    text_name: str
    start_pfn: int = 0
    spanned: int = 0
    present: int = 0
    managed: int = 0
    managed_printed: bool = True
    managed_at_setup: tuple[int, int] = (0, 0)
    min: int = 0
    low: int = 0
    high: int = 0
    promo: int = 0
    boost: int = 0
    lowmem_reserve: tuple[int, ...] = ()
    free_pages: int = 0
    pcp: list[PcpInfo] = field(default_factory=list)
    vm_stat: dict[str, int] = field(default_factory=dict)
    numa: dict[str, int] = field(default_factory=dict)

    @property
    def end_pfn(self) -> int:
        return self.start_pfn + self.spanned

    @property
    def title(self) -> str:
        """How messages call it: by the dump's names."""
        return f"Zone {self.text_name} of node {self.text_node}"


def choose_arch(text: ZoneinfoText, notes: list[str]) -> str:
    """"x86_64" or "i386", whichever has the dump's zones."""
    names = {zone.name for zone in text.zones}
    end = max(zone.start_pfn + zone.spanned for zone in text.zones)
    if "HighMem" in names:
        arch = "i386"
    elif "DMA32" in names or any(z.numa for z in text.zones) or len(text.nodes) > 1 or end > I386_END:
        arch = "x86_64"
    else:
        arch = "i386"
    populated = [zone for zone in text.zones if zone.present]
    foreign = (
        min(zone.start_pfn for zone in populated) >= DMA_END
        or any(zone.name == "DMA" and zone.start_pfn + zone.spanned > DMA_END for zone in populated)
        or (arch == "i386" and not any(zone.name == "DMA" for zone in populated))
    )
    if foreign:
        notes.append(
            f"The zones ({', '.join(dict.fromkeys(z.name for z in populated))}) are not those of a PC: "
            f"simulated with the zone types of {arch} and pages of 4 KiB."
        )
    return arch


def choose_kernel(text: ZoneinfoText, arch: str, notes: list[str]) -> str:
    """"6.12" or "6.1", whichever prints what the dump has."""
    kernel = text.kernel
    counters = next((tuple(node.vm_stat) for node in text.nodes if node.vm_stat), ())
    if counters != node_stat_names(arch, kernel):
        if kernel == "6.12":
            other = "another kernel with promo watermarks, after 6.1"
        elif counters and any("boost" in zone.fields for zone in text.zones):
            other = "a kernel near 6.1, between 5.14 and 6.7"
        else:
            other = "a kernel before 5.14, whose per-CPU lists and counters were others"
        notes.append(f"The text is of {other}: simulated as {kernel}.")
    return kernel


def map_zones(text: ZoneinfoText, arch: str, notes: list[str]) -> list[InferredZone]:
    """All zones of our architecture on all nodes, filled from the dump's; geometry and names only.

    Raises ProcInferenceError for a zone that has no counterpart, or whose numbers contradict each other.
    """
    node_of = {nid: i for i, nid in enumerate(sorted(node.nid for node in text.nodes))}
    if any(nid != i for nid, i in node_of.items()):
        notes.append(f"Nodes {', '.join(map(str, node_of))} are numbered from 0 on here.")
    name_of = _zone_names(text, arch, notes)
    types = ZONE_TYPES[arch]
    zones = {
        (node, zid): InferredZone(node, zid, name, nid, name, lowmem_reserve=(0,) * len(types))
        for nid, node in node_of.items()
        for zid, name in enumerate(types)
    }
    for info in text.nodes:
        for source in info.zones:
            if source.name not in name_of:
                continue  # empty, and of a type that we do not have
            zone = zones[node_of[info.nid], types.index(name_of[source.name])]
            if zone.present:
                continue
            _fill(zone, source, notes)
        _protections(info.zones, node_of[info.nid], name_of, zones, types, notes)
    if not any(zone.present for zone in zones.values()):
        raise ProcInferenceError("zoneinfo: no zone has any memory")
    return list(zones.values())


def _zone_names(text: ZoneinfoText, arch: str, notes: list[str]) -> dict[str, str]:
    """Our zone type for each of the dump's, by name; empty zones without a counterpart are left out."""
    types = ZONE_TYPES[arch]
    populated = [zone for zone in text.zones if zone.present]
    used = dict.fromkeys(zone.name for zone in populated)
    names = {zone.name: zone.name for zone in text.zones if zone.name in types}
    # The kernel takes ordinary pages from Normal, so a sole zone should be that; a zone DMA beyond 16 MiB should be of the
    # type that begins there.
    substitutes = ("Normal", "DMA32" if arch == "x86_64" else "HighMem", "Movable")
    free = [name for name in substitutes if name not in used]
    for name in used:
        if name == "DMA" and any(z.name == name and z.start_pfn + z.spanned > DMA_END for z in populated):
            ours = "Normal" if len(used) == 1 else "DMA32" if "DMA32" in free else name
        elif name in types:
            continue
        elif free:
            ours = free[0]
        else:
            raise ProcInferenceError(f"zoneinfo: zone {name} has no counterpart among {', '.join(types)}")
        if ours != name:
            free.remove(ours)
            names = {theirs: mine for theirs, mine in names.items() if mine != ours} | {name: ours}
            notes.append(f"Zone {name} is simulated as {ours}.")
    return names


def _fill(zone: InferredZone, source: ZoneInfo, notes: list[str]) -> None:
    zone.text_name = source.name
    zone.min, zone.low, zone.high = source.min, source.low, source.high
    zone.promo = source.promo
    if not source.min <= source.low <= source.high:
        raise ProcInferenceError(
            f"zoneinfo: {zone.title}: min {source.min}, low {source.low}, high {source.high} do not ascend"
        )
    zone.boost = source.boost
    if zone.boost > source.min:
        raise ProcInferenceError(f"zoneinfo: {zone.title}: a boost of {zone.boost} is more than min, {source.min}")
    figures = [source.high, source.promo, *source.lowmem_reserve, *(n for p in source.pcp for n in (p.high, p.batch))]
    if max(figures) > MAX_FIGURE:
        raise ProcInferenceError(f"zoneinfo: {zone.title}: a watermark or limit is {max(figures)}; at most {MAX_FIGURE} can be")
    if not source.present:
        return
    zone.start_pfn, zone.spanned = source.start_pfn, source.spanned
    zone.present, zone.managed = source.present, source.managed
    zone.free_pages = source.nr_free_pages
    zone.pcp = [PcpInfo(p.cpu, p.count, p.high, p.batch, p.high_min, p.high_max, p.stat_threshold) for p in source.pcp]
    zone.vm_stat, zone.numa = dict(source.vm_stat), dict(source.numa)
    if zone.end_pfn > MAX_PFN:
        raise ProcInferenceError(f"zoneinfo: {zone.title} ends at page frame {zone.end_pfn}, the limit is {MAX_PFN}")
    if zone.present > zone.spanned:
        raise ProcInferenceError(f"zoneinfo: {zone.title}: {zone.present} present pages in a span of {zone.spanned}")
    needed = zone.free_pages + sum(p.count for p in zone.pcp)
    if needed > zone.spanned:
        raise ProcInferenceError(f"zoneinfo: {zone.title}: {needed} free pages in a span of {zone.spanned}")
    if "managed" not in source.fields:
        # Before 3.8 "present" was what the allocator got, less the pages of the memory map and the like.
        zone.present = zone.managed = max(zone.present, needed)
        zone.managed_printed = False
        notes.append(f"{zone.title}: this kernel prints no managed pages; {zone.managed} are taken from its present ones.")
    elif zone.managed > zone.present:
        raise ProcInferenceError(f"zoneinfo: {zone.title}: {zone.managed} managed pages of {zone.present} present")
    elif needed > zone.managed:
        if needed > zone.present:
            raise ProcInferenceError(f"zoneinfo: {zone.title}: {needed} free pages of {zone.present} present")
        notes.append(f"{zone.title}: {needed} pages are free, so managed is that and not {zone.managed}.")
        zone.managed = needed


def _protections(
    sources: Sequence[ZoneInfo],
    node: int,
    name_of: dict[str, str],
    zones: dict[tuple[int, int], InferredZone],
    types: tuple[str, ...],
    notes: list[str],
) -> None:
    """Rows of protections, from the dump's zone types to ours. A type the dump lacks is as protected as the one below."""
    width = len(sources[0].lowmem_reserve)
    printed = tuple(zone.name for zone in sources)
    known = [printed] if len(printed) == width else [t for t in _TYPE_LISTS if len(t) == width and {*printed} <= {*t}]
    for source in sources:
        if source.name not in name_of or not source.present:
            continue
        zone = zones[node, types.index(name_of[source.name])]
        if not known or len(source.lowmem_reserve) != width:
            notes.append(f"{zone.title}: which zones its {width} protections are for is not known; taken as 0.")
            continue
        by_type = {
            types.index(name_of.get(name, name)): pages
            for name, pages in zip(known[0], source.lowmem_reserve, strict=True)
            if name_of.get(name, name) in types
        }
        row, last = [], 0
        for zid in range(len(types)):
            last = by_type.get(zid, last) if zid > zone.zid else 0
            row.append(last)
        zone.lowmem_reserve = tuple(row)


def grow_present(zones: Sequence[InferredZone], blocks: Mapping[tuple[int, str], int], notes: list[str]) -> None:
    """Where a kernel's "present" leaves out the memory map, the pageblocks tell better how much memory there is.

    blocks: pages in the pageblocks of each zone, by the dump's (node, name).
    """
    for zone in zones:
        pages = min(blocks.get((zone.text_node, zone.text_name), 0), zone.spanned)
        if not zone.managed_printed and zone.start_pfn >= LOW_MIB and pages > zone.present:
            notes.append(f"{zone.title}: its pageblocks hold {pages} pages, which are taken as present, not {zone.present}.")
            zone.present = pages


def memory_ranges(zones: Sequence[InferredZone], arch: str, notes: list[str]) -> list[MemoryRange]:
    """Where each zone's present pages lie. Holes are put where they most often are, and a sentence says so."""
    out: list[MemoryRange] = []
    starts = {(zone.node, zone.start_pfn) for zone in zones if zone.present}
    for zone in sorted((z for z in zones if z.present), key=lambda z: (z.start_pfn, z.node)):
        room = _outside(zone.start_pfn, zone.end_pfn, out)
        pages = sum(end - start for start, end in room)
        if pages < zone.present:
            raise ProcInferenceError(
                f"zoneinfo: {zone.title}: its {zone.present} pages do not fit beside the zones that overlap it"
            )
        holes = pages - zone.present
        if holes and len(room) == 1:
            room, where = _place_hole(*room[0], holes, (zone.node, zone.end_pfn) in starts, arch)
        elif holes:
            room, where = _cut_top(room, holes), "at its top"
        if holes:
            notes.append(f"{zone.title}: {holes} pages of its span are no memory; the hole is assumed {where}.")
        out += [MemoryRange(start, end, zone.node, zone.zid) for start, end in room]
    return sorted(out)


def _outside(start: int, end: int, taken: Sequence[MemoryRange]) -> list[tuple[int, int]]:
    room = []
    for other in sorted(taken):
        if other.end_pfn <= start or other.start_pfn >= end:
            continue
        if other.start_pfn > start:
            room.append((start, other.start_pfn))
        start = max(start, other.end_pfn)
    if start < end:
        room.append((start, end))
    return room


def _cut_top(room: list[tuple[int, int]], pages: int) -> list[tuple[int, int]]:
    """Without the last `pages` pages."""
    room = list(room)
    while pages:
        start, end = room.pop()
        if end - start > pages:
            room.append((start, end - pages))
            break
        pages -= end - start
    return room


def _place_hole(
    start: int, end: int, holes: int, next_zone_follows: bool, arch: str
) -> tuple[list[tuple[int, int]], str]:
    # start, end: where the zone's pages can be, which is less than its span where another zone overlaps it
    present = end - start - holes
    if start + holes < LOW_MIB < end:
        return [(start, LOW_MIB - holes), (LOW_MIB, end)], "below 1 MiB"
    if start + holes < DMA32_END < end:
        return [(start, DMA32_END - holes), (DMA32_END, end)], "below 4 GiB"
    if next_zone_follows or (arch == "x86_64" and end in (DMA_END, DMA32_END)):
        return [(start, end - holes)], "at its top"
    # The span would end with the memory: so the last aligned block is memory, and the hole lies below it.
    top = (end - 1) // BLOCK_PAGES * BLOCK_PAGES
    if top <= start or end - top >= present:
        top = end - 1
    if present == 1:
        return [(start, start + 1)], "above its only page"
    return [(start, top - holes), (top, end)], "below its last block"
