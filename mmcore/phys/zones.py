"""Zones and nodes of a machine, and the plan that the core boots from.

Models: free_area_init, calculate_node_totalpages, find_zone_movable_pfns_for_nodes (mm/mm_init.c); find_low_pfn_range
(arch/x86/mm/init_32.c); the mobility test of build_all_zonelists (mm/page_alloc.c). All of it is arithmetic on ranges: its cost does
not grow with memory. Simplifies: 32-bit machines are PAE. Omits: kernelcore=mirror, hotplug, ZONE_DEVICE's pages.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from mmcore.phys.memblock import ZoneRange, boot_reservations, check_ranges, free_by_count, free_by_ranges
from mmcore.phys.memmap import DMA_END, FOUR_GIB, I386_LOWMEM_END, MAX_NUMNODES, MemoryMap, Span, as_int, clip, merge, parse_size, subtract
from mmcore.phys.zonelists import Zonelists, build_zonelists, check_distances

ZONE_NAMES = {"x86_64": ("DMA", "DMA32", "Normal", "Movable", "Device"), "i386": ("DMA", "Normal", "HighMem", "Movable")}
ZONE_MOVABLE = 3
MIN_LOWMEM_PAGES = 16384
MAX_ORDER_PAGES = 1024
MOBILITY_MIN_PAGES = 512 * 5
"""Below this many pages in all zones, grouping by mobility is turned off: a pageblock for each of the five migratetypes"""

ZoneKey = tuple[int, int | str]
"""(node, zone index in its node, or zone name)"""
Ranges = tuple[ZoneRange, ...]


@dataclass(frozen=True, slots=True)
class ZoneGeometry:
    """Where one zone of one node lies, in page frames. A zone that spans nothing has start_pfn 0; `spanned` includes holes."""

    node: int
    zid: int
    name: str
    start_pfn: int
    spanned: int
    present: int

    @property
    def end_pfn(self) -> int:
        return self.start_pfn + self.spanned

    @property
    def populated(self) -> bool:
        return self.present > 0


@dataclass(frozen=True, slots=True)
class NodeGeometry:
    """One node: its extent in page frames (0 without memory), its CPUs, its distances to all nodes."""

    nid: int
    start_pfn: int
    spanned: int
    present: int
    cpus: tuple[int, ...]
    distances: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class BootPlan:
    """All that the core needs to boot a machine. Zones are node-major, every type, also empty ones; zone indices count in that order."""

    arch: str
    memmap: MemoryMap
    nodes: tuple[NodeGeometry, ...]
    zones: tuple[ZoneGeometry, ...]
    cpu_node: tuple[int, ...]
    present_ranges: Ranges
    """RAM, ascending by pfn"""
    free_ranges: Ranges
    """what boot hands to the allocator (T1), ascending by pfn"""
    late_ranges: Ranges
    """what it hands over after the watermarks are set (T3), in the kernel's order"""
    zonelists: Zonelists
    """per node: indices of populated zones over all nodes (FALLBACK), and on the node only (NOFALLBACK)"""
    node_orders: tuple[tuple[int, ...], ...]
    """per node: the nodes with memory in the order of its FALLBACK list"""
    mobility_disabled: bool
    parts: tuple[tuple[str, int], ...] = field(default=())
    """what keeps memory at boot and how many pages, if the plan was made from the default model"""

    @property
    def max_pfn(self) -> int:
        """First page frame behind all RAM."""
        return self.memmap.max_pfn

    @property
    def nr_zone_types(self) -> int:
        return len(ZONE_NAMES[self.arch])

    @property
    def populated(self) -> tuple[bool, ...]:
        """By zone index: whether the zone has RAM."""
        return tuple(zone.populated for zone in self.zones)

    @property
    def present_pages(self) -> int:
        return sum(zone.present for zone in self.zones)

    @property
    def managed_boot(self) -> tuple[int, ...]:
        """By zone index: pages that boot frees before the watermarks are set (T1)."""
        return self._count(self.free_ranges)

    @property
    def freed_late(self) -> tuple[int, ...]:
        """By zone index: pages that boot frees afterwards (T3)."""
        return self._count(self.late_ranges)

    @property
    def managed(self) -> tuple[int, ...]:
        """By zone index: managed pages when boot is over."""
        return tuple(a + b for a, b in zip(self.managed_boot, self.freed_late, strict=True))

    @property
    def totalram(self) -> int:
        """Managed pages of the machine when boot is over."""
        return sum(self.managed)

    @property
    def reserved_ranges(self) -> Ranges:
        """RAM that boot never frees, ascending by pfn."""
        freed = merge((start, end) for _, start, end in self.free_ranges + self.late_ranges)
        return tuple((zi, a, b) for zi, start, end in self.present_ranges for a, b in subtract([(start, end)], clip(freed, start, end)))

    def _count(self, ranges: Ranges) -> tuple[int, ...]:
        counts = [0] * len(self.zones)
        for zi, start, end in ranges:
            counts[zi] += end - start
        return tuple(counts)


class Shape(Protocol):
    """What plan_boot() reads of a machine's configuration (mmpy.config.MachineConfig)."""

    @property
    def arch(self) -> str: ...
    @property
    def kernel(self) -> str: ...
    @property
    def chipset(self) -> str: ...
    @property
    def node_pages(self) -> tuple[int, ...]: ...
    @property
    def cpu_node(self) -> tuple[int, ...]: ...
    @property
    def distances(self) -> Sequence[Sequence[int]] | None: ...
    @property
    def kernelcore(self) -> str | int | None: ...
    @property
    def movablecore(self) -> str | int | None: ...
    @property
    def highmem_pages(self) -> int | None: ...
    @property
    def reserved(self) -> Sequence[Span] | Mapping[str, int] | None: ...


def plan_boot(config: Shape) -> BootPlan:
    """The plan of a machine given by size and shape: a QEMU machine's memory map, booted by a Debian kernel."""
    memmap = MemoryMap.qemu(config.node_pages, chipset=config.chipset, arch=config.arch)
    return plan_zones(
        memmap,
        kernel=config.kernel,
        cpu_node=config.cpu_node,
        nr_nodes=len(config.node_pages),
        distances=config.distances,
        kernelcore=config.kernelcore,
        movablecore=config.movablecore,
        highmem_pages=config.highmem_pages,
        reserved=config.reserved,
    )


def plan_zones(
    memory: MemoryMap,
    *,
    kernel: str = "6.12",
    cpu_node: Sequence[int] = (0,),
    nr_nodes: int | None = None,
    distances: Sequence[Sequence[int]] | None = None,
    kernelcore: str | int | None = None,
    movablecore: str | int | None = None,
    highmem_pages: int | None = None,
    lowmem_end: int | None = None,
    movable_pfn: Mapping[int, int] | None = None,
    reserved: Sequence[Span] | Mapping[str, int] | None = None,
    late_reserved: Sequence[Span] = (),
    managed: Mapping[ZoneKey, int] | None = None,
    late: Mapping[ZoneKey, int] | None = None,
) -> BootPlan:
    """The plan of a machine with this memory.

    cpu_node: node of each CPU. nr_nodes: at least so many nodes, the last without memory. distances: matrix, default 10 and 20.
    kernelcore, movablecore: as on the kernel's command line; or movable_pfn, where Movable begins, by node. i386 only: highmem_pages, the
    kernel's highmem=, and lowmem_end, the pfn up to which the kernel can map memory, a constant of its build.

    What boot keeps is told in one of these ways:
    - nothing given: the default model (mmcore.phys.memblock);
    - reserved as pfn ranges, kept for good, and late_reserved, freed after the watermarks are set, in this order;
    - reserved as pages by zone ("node0.Normal"; "Normal" is node 0's);
    - managed, the pages that each zone has when boot is over, by (node, zone index or name), and late, how many of them are freed after
      the watermarks are set.
    Pages below 1 MiB are kept unless managed leaves no others. Zones that a mapping does not name keep nothing else. Where only numbers
    are given, a zone's top is kept and what lies beneath is freed late, so that the counts are exactly these.

    ValueError names the value that does not fit, TypeError one of the wrong kind.
    """
    if kernel not in ("6.12", "6.1"):
        raise ValueError(f"kernel is {kernel!r}; known are '6.12' and '6.1'")
    lowmem = None
    if memory.arch == "i386":
        lowmem, max_pfn = lowmem_range(memory.max_pfn, highmem_pages, I386_LOWMEM_END if lowmem_end is None else lowmem_end)
        memory = memory.truncate(max_pfn)
    elif highmem_pages is not None or lowmem_end is not None:
        raise ValueError(f"highmem is for arch 'i386'; {memory.arch} has no HighMem zone")
    count = max(memory.nr_nodes, nr_nodes or 1, *(node + 1 for node in cpu_node), len(distances) if isinstance(distances, Sequence) else 1)
    if not cpu_node or min(cpu_node) < 0 or count > MAX_NUMNODES:
        raise ValueError(f"a machine needs a CPU, and nodes 0..{MAX_NUMNODES - 1}: cpu_node is {tuple(cpu_node)[:16]!r}, {count} nodes")
    matrix = check_distances(distances, count)
    if movable_pfn is None:
        movable_pfn = find_zone_movable_pfns(memory, zone_limits(memory, lowmem), kernelcore, movablecore)
    zones, present = zone_ranges(memory, count, lowmem, movable_pfn)
    parts: tuple[tuple[str, int], ...] = ()
    if managed is not None or late is not None or isinstance(reserved, Mapping):
        if (managed is not None and reserved) or late_reserved:
            raise ValueError("managed and late count what boot frees; with them, reserved and late_reserved must be empty")
        free, freed_late = _boot_counts(zones, present, reserved if isinstance(reserved, Mapping) else {}, managed, late or {})
    elif reserved is None and not late_reserved:
        model = boot_reservations(memory, kernel=kernel, cpu_node=cpu_node, lowmem_end=lowmem)
        parts = model.parts
        free, freed_late = free_by_ranges(present, model.reserved, model.late)
    else:
        free, freed_late = free_by_ranges(present, check_ranges(reserved or (), "reserved"), check_ranges(late_reserved, "late_reserved"))
    if managed is None and not free:
        raise ValueError(f"boot would keep all {memory.nr_pages} pages of memory; at least one must be free")
    lists, orders = build_zonelists([zone.populated for zone in zones], matrix)
    return BootPlan(
        arch=memory.arch,
        memmap=memory,
        nodes=_nodes(memory, cpu_node, matrix),
        zones=zones,
        cpu_node=tuple(cpu_node),
        present_ranges=_ascending(present),
        free_ranges=_ascending(free),
        late_ranges=tuple(freed_late),
        zonelists=lists,
        node_orders=orders,
        mobility_disabled=sum(zone.present for zone in zones) < MOBILITY_MIN_PAGES,
        parts=parts,
    )


def _ascending(ranges: Sequence[ZoneRange]) -> Ranges:
    return tuple(sorted(ranges, key=lambda r: r[1]))


def _nodes(memory: MemoryMap, cpu_node: Sequence[int], matrix: tuple[tuple[int, ...], ...]) -> tuple[NodeGeometry, ...]:
    own = memory.by_node()
    cpus: list[list[int]] = [[] for _ in matrix]
    for cpu, nid in enumerate(cpu_node):
        cpus[nid].append(cpu)
    out = []
    for nid in range(len(matrix)):
        ranges = own.get(nid, [])
        start, end = (ranges[0][0], ranges[-1][1]) if ranges else (0, 0)
        out.append(NodeGeometry(nid, start, end - start, sum(b - a for a, b in ranges), tuple(cpus[nid]), matrix[nid]))
    return tuple(out)


def _boot_counts(
    zones: Sequence[ZoneGeometry],
    present: Sequence[ZoneRange],
    reserved: Mapping[str, int],
    managed: Mapping[ZoneKey, int] | None,
    late: Mapping[ZoneKey, int],
) -> tuple[list[ZoneRange], list[ZoneRange]]:
    # What boot frees, first and late, where only numbers of pages are known.
    if managed is None:
        kept = _by_index({parse_zone_key(key): pages for key, pages in reserved.items()}, zones, "reserved", [0] * len(zones))
        final = [zone.present - pages for zone, pages in zip(zones, kept, strict=True)]
    else:
        final = _by_index(managed, zones, "managed", [zone.present for zone in zones])
    freed = _by_index(late, zones, "late", [0] * len(zones))
    for zone, pages, late_pages in zip(zones, final, freed, strict=True):
        if late_pages > pages:
            raise ValueError(f"late of node {zone.node}, zone {zone.name} is {late_pages} pages; the zone has {pages} managed ones")
    return free_by_count(present, final, freed, keep_low=managed is None)


def parse_zone_key(key: str) -> ZoneKey:
    """(0, "Normal") for "node0.Normal"; "Normal" alone is node 0's."""
    if not isinstance(key, str):
        raise TypeError(f"a zone is named as 'node0.Normal', not {key!r}")
    match = re.fullmatch(r"(?:node(\d{1,4})\.)?([A-Za-z]\w*)", key)
    if match is None:
        raise ValueError(f"zone {key!r}: a zone is named as 'node0.Normal', or 'Normal' on node 0")
    return int(match[1] or 0), match[2]


def _by_index(counts: Mapping[ZoneKey, int], zones: Sequence[ZoneGeometry], what: str, default: Sequence[int]) -> list[int]:
    # Pages by zone index; keys name zones by (node, zone index or name).
    if not isinstance(counts, Mapping):
        raise TypeError(f"{what} must map zones to pages, not {type(counts).__name__}")
    index: dict[object, int] = {(zone.node, alias): zi for zi, zone in enumerate(zones) for alias in (zone.zid, zone.name)}
    out = list(default)
    for key, pages in counts.items():
        zi = index.get(key)
        if zi is None:
            raise ValueError(f"{what} names zone {key!r}; the machine has {', '.join(f'({z.node}, {z.name!r})' for z in zones[:20])}")
        zone = zones[zi]
        out[zi] = as_int(pages, f"{what} of node {zone.node}, zone {zone.name}")
        if not 0 <= out[zi] <= zone.present:
            raise ValueError(f"{what} of node {zone.node}, zone {zone.name} is {pages} pages; it must lie in 0..{zone.present}, its RAM")
    return out


# ---------------------------------------------------------------- zones


def lowmem_range(max_pfn: int, highmem_pages: int | None = None, maxmem_pfn: int = I386_LOWMEM_END) -> tuple[int, int]:
    """(end of lowmem, end of memory) of an i386 kernel that can map lowmem up to maxmem_pfn, given its highmem= parameter in pages.

    With less memory than that, a request that would leave less than 64 MiB of lowmem is refused. With more, a smaller request cuts memory
    off, a larger one is ignored.
    """
    if max_pfn <= maxmem_pfn:
        if highmem_pages and highmem_pages < max_pfn and max_pfn - highmem_pages >= MIN_LOWMEM_PAGES:
            return max_pfn - highmem_pages, max_pfn
        return max_pfn, max_pfn
    if highmem_pages is not None and maxmem_pfn + highmem_pages < max_pfn:
        max_pfn = maxmem_pfn + highmem_pages
    return maxmem_pfn, max_pfn


def zone_limits(memmap: MemoryMap, lowmem_end: int | None = None) -> list[Span]:
    """(first, end) pfn of each zone type below Movable, for all nodes together."""
    low = memmap.max_pfn if lowmem_end is None else lowmem_end
    ends = [min(DMA_END, low), low, memmap.max_pfn] if memmap.arch == "i386" else [min(DMA_END, low), min(FOUR_GIB, low), low]
    limits, start = [], memmap.min_pfn
    for end in ends:
        end = max(start, end)
        limits.append((start, end))
        start = end
    return limits


def zone_ranges(
    memmap: MemoryMap, nr_nodes: int, lowmem_end: int | None, movable_pfn: Mapping[int, int]
) -> tuple[tuple[ZoneGeometry, ...], list[ZoneRange]]:
    """Every zone of every node, and the RAM of each, zone by zone. movable_pfn: where Movable begins, by node; 0 or none: nowhere."""
    names = ZONE_NAMES[memmap.arch]
    limits = zone_limits(memmap, lowmem_end)
    zones: list[ZoneGeometry] = []
    present = []
    by_node = memmap.by_node()
    for nid in range(nr_nodes):
        own = by_node.get(nid, [])
        movable = movable_pfn.get(nid, 0)
        for zid, name in enumerate(names):
            first = end = 0
            if own and zid < ZONE_MOVABLE:
                first, end = (min(max(edge, limits[zid][0]), limits[zid][1]) for edge in (own[0][0], own[-1][1]))
                if movable:
                    end = max(first, min(end, movable))
            elif own and zid == ZONE_MOVABLE and movable:
                first, end = movable, own[-1][1]
            ram = clip(own, first, end) if first < end else []
            present += [(len(zones), a, b) for a, b in ram]
            zones.append(ZoneGeometry(nid, zid, name, first if first < end else 0, end - first, sum(b - a for a, b in ram)))
    return tuple(zones), present


def core_pages(value: str | int | None, total: int, name: str) -> int:
    """Pages that kernelcore= or movablecore= asks for: a size, or a percentage of `total` pages ("25%"). None: 0."""
    if value is None:
        return 0
    if isinstance(value, str) and value.strip() == "mirror":
        raise ValueError(f"{name}=mirror is not supported: it needs a map of mirrored memory")
    if isinstance(value, str) and value.strip().endswith("%"):
        match = re.fullmatch(r"\s*(\d{1,9})%\s*", value)
        if match is None or int(match[1]) > 100:
            raise ValueError(f"{name} is {value!r}; a percentage is a whole number from 0% to 100%")
        return total * 100 * int(match[1]) // 10000
    return parse_size(value, name)


def find_zone_movable_pfns(
    memmap: MemoryMap, limits: Sequence[Span], kernelcore: str | int | None = None, movablecore: str | int | None = None
) -> dict[int, int]:
    """First pfn of the Movable zone by node; nodes without one are left out.

    kernelcore is memory to be kept for the kernel, spread evenly over nodes with memory; movablecore asks for the opposite.
    """
    total = memmap.nr_pages
    kernel = core_pages(kernelcore, total, "kernelcore")
    movable = core_pages(movablecore, total, "movablecore")
    if movable:
        movable = min(total, -(-movable // MAX_ORDER_PAGES) * MAX_ORDER_PAGES)
        kernel = max(kernel, total - movable)
    if not kernel or kernel >= total:
        return {}
    # Only the highest zone gives memory to Movable; what lies below it serves the kernel anyway.
    usable_start = [low for low, high in limits if low < high][-1]
    ranges = memmap.by_node()
    cut = dict.fromkeys(ranges, 0)
    left, nodes = kernel, len(ranges)
    while True:
        share = left // nodes
        for nid, own in ranges.items():
            share = min(share, left // nodes) if left < share else share
            wanted = share
            for start, end in own:
                start = max(start, cut[nid])
                if start >= end:
                    continue
                if start < usable_start:
                    below = min(end, usable_start) - start
                    wanted, left = max(0, wanted - below), max(0, left - below)
                    if end <= usable_start:
                        cut[nid] = end
                        continue
                    start = usable_start
                taken = min(end - start, wanted)
                cut[nid] = start + taken
                left, wanted = max(0, left - taken), wanted - taken
                if not wanted:
                    break
        nodes -= 1
        if not nodes or left <= nodes:
            break
    rounded = {nid: -(-pfn // MAX_ORDER_PAGES) * MAX_ORDER_PAGES for nid, pfn in cut.items()}
    return {nid: pfn for nid, pfn in rounded.items() if 0 < pfn < ranges[nid][-1][1]}
