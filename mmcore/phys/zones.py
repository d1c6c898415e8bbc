"""Zones, zonelists and the plan of a boot: from a memory map to everything that the allocator starts from.

Models: free_area_init, find_zone_movable_pfns_for_nodes, find_next_best_node, build_zonelists (mm/mm_init.c, mm/page_alloc.c, v6.12) and
the lowmem limit of 32-bit x86 (arch/x86/mm/init_32.c). Simplifies: no hotplug; 32-bit machines are PAE. Omits: kernelcore=mirror.
Plain Python: it runs once a machine and works on ranges, so it costs the same for 128 MiB and 1 TiB.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mmcore.phys.memmap import MemoryMap

ZONE_NAMES = {"x86_64": ("DMA", "DMA32", "Normal", "Movable", "Device"), "i386": ("DMA", "Normal", "HighMem", "Movable")}
DMA_END = 4096
DMA32_END = 1 << 20
MAX_ORDER_PAGES = 1024
LOWMEM_END_PAE = 225278
MAX_NUMNODES = 1024
MOBILITY_LIMIT = 512 * 5
LOCAL_DISTANCE = 10
REMOTE_DISTANCE = 20


@dataclass(frozen=True)
class ZoneGeometry:
    """One zone type of one node: first pfn, pages spanned (holes included), pages present; all 0 if empty."""

    node: int
    zid: int
    name: str
    start_pfn: int
    spanned: int
    present: int


@dataclass(frozen=True)
class NodeGeometry:
    """One node: extent, pages present, distances to every node, CPUs."""

    nid: int
    start_pfn: int
    spanned: int
    present: int
    distances: tuple[int, ...]
    cpus: tuple[int, ...]


@dataclass(frozen=True)
class BootPlan:
    """What a boot needs. Ranges are (zone index, first pfn, end pfn), ascending; zone index = node * zone types + type."""

    arch: str
    nodes: tuple[NodeGeometry, ...]
    zones: tuple[ZoneGeometry, ...]
    present_ranges: tuple[tuple[int, int, int], ...]
    free_ranges: tuple[tuple[int, int, int], ...]
    late_ranges: tuple[tuple[int, int, int], ...]
    zonelists: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]
    cpu_node: tuple[int, ...]
    max_pfn: int
    mobility_disabled: bool
    movable_pfn: tuple[int, ...] = field(default=())


def _amount(text: str | int | None, total: int, what: str) -> int:
    """Pages of a kernelcore=/movablecore= value: a size in bytes (or with suffix), or a percentage of all memory."""
    if text is None:
        return 0
    from mmcore.phys.memmap import parse_size

    if isinstance(text, str) and text.strip().endswith("%"):
        digits = text.strip()[:-1]
        if not digits.isdigit() or int(digits) > 100:
            raise ValueError(f"{what} is {text!r}; a percentage lies in 0%..100%")
        return total * 100 * int(digits) // 10000
    if text == "mirror":
        raise ValueError(f"{what}=mirror is not supported")
    return parse_size(text) >> 12


def find_zone_movable_pfns(
    memory: MemoryMap, nr_nodes: int, limits: Sequence[tuple[int, int]], kernelcore: str | int | None, movablecore: str | int | None
) -> list[int]:
    """First pfn of ZONE_MOVABLE on each node, 0 where there is none. limits: (low, high) pfn of every zone type but Movable, in order."""
    ranges = memory.ranges
    total = sum(r.end_pfn - r.start_pfn for r in ranges)
    core = _amount(kernelcore, total, "kernelcore")
    movable = _amount(movablecore, total, "movablecore")
    out = [0] * nr_nodes
    if movable:
        movable = min(total, -(-movable // MAX_ORDER_PAGES) * MAX_ORDER_PAGES)
        core = max(core, total - movable)
    if not core or core >= total:
        return out
    usable = 0
    for low, high in limits:
        if high > low and any(r.start_pfn < high and r.end_pfn > low for r in ranges):
            usable = low
    nodes = sorted({r.nid for r in ranges})
    left, n = core, len(nodes)
    while True:
        per_node = left // n
        for nid in nodes:
            if left < per_node:
                per_node = left // n
            remaining = per_node
            for r in (r for r in ranges if r.nid == nid):
                start, end = max(r.start_pfn, out[nid]), r.end_pfn
                if start >= end:
                    continue
                if start < usable:
                    below = min(end, usable) - start
                    left -= min(below, left)
                    remaining -= min(below, remaining)
                    if end <= usable:
                        out[nid] = end
                        continue
                    start = usable
                size = min(end - start, remaining)
                out[nid] = start + size
                left -= min(left, size)
                remaining -= size
                if remaining == 0:
                    break
        n -= 1
        if n == 0 or left <= n:
            break
    for nid in nodes:
        end = max(r.end_pfn for r in ranges if r.nid == nid)
        out[nid] = -(-out[nid] // MAX_ORDER_PAGES) * MAX_ORDER_PAGES
        if out[nid] >= end:
            out[nid] = 0
    return out


def zone_limits(memory: MemoryMap, lowmem_end: int | None) -> list[tuple[int, int]]:
    """(first, end) pfn of every zone type but Movable and Device, as a chain over all memory."""
    lowest = min(r.start_pfn for r in memory.ranges)
    highest = max(r.end_pfn for r in memory.ranges)
    if memory.arch == "i386":
        low = min(highest, LOWMEM_END_PAE if lowmem_end is None else lowmem_end)
        ends = [min(DMA_END, low), low, highest]
    else:
        ends = [min(DMA_END, highest), min(DMA32_END, highest), highest]
    out, start = [], lowest
    for end in ends:
        end = max(end, start)
        out.append((start, end))
        start = end
    return out


def fallback_orders(has_memory: Sequence[bool], distances: Sequence[Sequence[int]]) -> list[list[int]]:
    """For every node, the nodes with memory in the order in which an allocation there tries them (find_next_best_node)."""
    n = len(has_memory)
    load = [0] * n
    out: list[list[int]] = []
    for local in range(n):
        order: list[int] = []
        previous = local
        while True:
            if not order and has_memory[local]:
                chosen = local
            else:
                left = [x for x in range(n) if has_memory[x] and x not in order]
                if not left:
                    break
                chosen = min(left, key=lambda x: ((distances[local][x] + (x < local)) * MAX_NUMNODES + load[x], x))
            if distances[local][chosen] != distances[local][previous]:
                load[chosen] += 1
            order.append(chosen)
            previous = chosen
        out.append(order)
    return out


def plan_zones(
    memory: MemoryMap,
    *,
    cpu_node: Sequence[int],
    distances: Sequence[Sequence[int]] | None = None,
    kernelcore: str | int | None = None,
    movablecore: str | int | None = None,
    lowmem_end: int | None = None,
    movable_pfn: Mapping[int, int] | None = None,
    managed: Mapping[tuple[int, str], int] | None = None,
    late: Mapping[tuple[int, str], int] | None = None,
    reserved: Sequence[tuple[int, int]] = (),
    late_reserved: Sequence[tuple[int, int]] = (),
) -> BootPlan:
    """The plan of a machine with this memory.

    reserved, late_reserved: page ranges that the boot keeps for good, or until after the watermarks are set. Instead, managed gives the
    final managed pages of zones by (node, zone name) and late how many of them are freed late: then which pages are kept is chosen from
    each zone's top downwards (below 1 MiB first). movable_pfn: where ZONE_MOVABLE begins, by node, when it is known already.
    """
    names = ZONE_NAMES[memory.arch]
    ranges = memory.ranges
    nr_nodes = max([r.nid for r in ranges] + list(cpu_node)) + 1
    if distances is not None:
        nr_nodes = max(nr_nodes, len(distances))
    matrix = _matrix(distances, nr_nodes)
    limits = zone_limits(memory, lowmem_end)
    if movable_pfn is None:
        cuts = find_zone_movable_pfns(memory, nr_nodes, limits, kernelcore, movablecore)
    else:
        cuts = [movable_pfn.get(nid, 0) for nid in range(nr_nodes)]
    zones: list[ZoneGeometry] = []
    present_ranges: list[tuple[int, int, int]] = []
    nodes: list[NodeGeometry] = []
    zid_movable = names.index("Movable")
    for nid in range(nr_nodes):
        mine = [r for r in ranges if r.nid == nid]
        first = min((r.start_pfn for r in mine), default=0)
        last = max((r.end_pfn for r in mine), default=0)
        cut = cuts[nid] or last
        node_present = 0
        for zid, name in enumerate(names):
            if zid == zid_movable:
                low, high = (cut, last) if cuts[nid] else (0, 0)
            elif zid < len(limits):
                low, high = limits[zid][0], min(limits[zid][1], cut)
            else:
                low, high = 0, 0
            low, high = max(low, first), min(high, last)
            if low >= high:
                zones.append(ZoneGeometry(nid, zid, name, 0, 0, 0))
                continue
            parts = [(max(r.start_pfn, low), min(r.end_pfn, high)) for r in mine if r.start_pfn < high and r.end_pfn > low]
            present = sum(b - a for a, b in parts)
            node_present += present
            # a span without memory still spans, as in the kernel
            zones.append(ZoneGeometry(nid, zid, name, low, high - low, present))
            present_ranges += [(len(zones) - 1, a, b) for a, b in parts]
        cpus = tuple(c for c, n in enumerate(cpu_node) if n == nid)
        nodes.append(NodeGeometry(nid, first, last - first, node_present, tuple(matrix[nid]), cpus))
    present_ranges.sort(key=lambda r: r[1])
    orders = fallback_orders([n.present > 0 for n in nodes], matrix)
    types = len(names)

    def own(nid: int) -> list[int]:
        return [nid * types + z for z in range(types - 1, -1, -1) if zones[nid * types + z].present]

    zonelists = tuple((tuple(z for n in orders[nid] for z in own(n)), tuple(own(nid))) for nid in range(nr_nodes))
    if managed is None:
        free, later = _cut(present_ranges, reserved, late_reserved)
    else:
        free, later = _choose(zones, present_ranges, managed, late or {})
    total = sum(z.present for z in zones)
    return BootPlan(
        arch=memory.arch, nodes=tuple(nodes), zones=tuple(zones), present_ranges=tuple(present_ranges), free_ranges=tuple(free),
        late_ranges=tuple(later), zonelists=zonelists, cpu_node=tuple(cpu_node), max_pfn=max(r.end_pfn for r in ranges),
        mobility_disabled=total < MOBILITY_LIMIT, movable_pfn=tuple(cuts),
    )  # fmt: skip


def _matrix(distances: Sequence[Sequence[int]] | None, n: int) -> list[list[int]]:
    if distances is None:
        return [[LOCAL_DISTANCE if i == j else REMOTE_DISTANCE for j in range(n)] for i in range(n)]
    if len(distances) != n or any(len(row) != n for row in distances):
        raise ValueError(f"distances must be a {n} x {n} matrix")
    for i, row in enumerate(distances):
        for j, d in enumerate(row):
            if not (d == LOCAL_DISTANCE if i == j else LOCAL_DISTANCE <= d <= 255):
                raise ValueError(f"distance {i} to {j} is {d}; it must be 10 on the diagonal and 10..255 elsewhere")
    return [list(row) for row in distances]


def _subtract(ranges: list[tuple[int, int, int]], cuts: Sequence[tuple[int, int]]) -> list[tuple[int, int, int]]:
    for lo, hi in cuts:
        out = []
        for z, a, b in ranges:
            if hi <= a or lo >= b:
                out.append((z, a, b))
                continue
            if a < lo:
                out.append((z, a, lo))
            if hi < b:
                out.append((z, hi, b))
        ranges = out
    return ranges


def _cut(
    present: list[tuple[int, int, int]], reserved: Sequence[tuple[int, int]], late: Sequence[tuple[int, int]]
) -> tuple[list[tuple[int, int, int]], list[tuple[int, int, int]]]:
    usable = _subtract(present, reserved)
    free = _subtract(usable, late)
    later = []
    for lo, hi in late:
        later += [(z, max(a, lo), min(b, hi)) for z, a, b in usable if a < hi and b > lo]
    return free, sorted(later, key=lambda r: r[1])


def _choose(
    zones: Sequence[ZoneGeometry],
    present: list[tuple[int, int, int]],
    managed: Mapping[tuple[int, str], int],
    late: Mapping[tuple[int, str], int],
) -> tuple[list[tuple[int, int, int]], list[tuple[int, int, int]]]:
    free: list[tuple[int, int, int]] = []
    later: list[tuple[int, int, int]] = []
    for zi, zone in enumerate(zones):
        if not zone.present:
            continue
        want = managed.get((zone.node, zone.name), zone.present)
        freed_late = late.get((zone.node, zone.name), 0)
        if not 0 <= freed_late <= want <= zone.present:
            raise ValueError(
                f"zone {zone.name} of node {zone.node}: {want} managed pages, {freed_late} of them freed late, do not fit {zone.present} present ones"
            )
        mine = [(a, b) for z, a, b in present if z == zi]
        keep = zone.present - want
        below = [(a, min(b, 256)) for a, b in mine if a < 256]
        for a, b in below:
            n = min(keep, b - a)
            keep -= n
            mine = [(max(x, a + n) if x == a else x, y) for x, y in mine]
        mine = [(a, b) for a, b in mine if a < b]
        mine = _take_top(mine, keep)[0]
        mine, taken = _take_top(mine, freed_late)
        free += [(zi, a, b) for a, b in mine]
        later += [(zi, a, b) for a, b in sorted(taken)]
    return free, later


def _take_top(ranges: list[tuple[int, int]], n: int) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    left, taken = list(ranges), []
    while n:
        a, b = left.pop()
        m = min(n, b - a)
        taken.append((b - m, b))
        if a < b - m:
            left.append((a, b - m))
        n -= m
    return left, taken
