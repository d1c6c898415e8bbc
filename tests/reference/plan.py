"""Plain descriptions of machines: which page frames exist, whose they are, and which are free at boot.

Models: the outcome of free_area_init and build_all_zonelists (mm/mm_init.c, mm/page_alloc.c, v6.12).
Simplifies: the caller says what is RAM and what boot keeps. Omits: kernelcore/movablecore arithmetic (a
Movable zone is given by its first page frame).

The attributes of Plan are those that mmcore.phys.boot.boot() reads: one description boots the core and its
twin.
"""

from dataclasses import dataclass, field

from .constants import MIGRATE_TYPES, PAGEBLOCK_PAGES, ZONE_NAMES

I386_LOWMEM_END = 225278


@dataclass
class ZonePlan:
    """Where one zone lies. An empty zone has start_pfn 0."""

    node: int
    zid: int
    name: str
    start_pfn: int
    spanned: int
    present: int


@dataclass
class NodePlan:
    """Extent of one node and its distances to all."""

    start_pfn: int
    spanned: int
    present: int
    distances: list[int]


@dataclass
class Plan:
    """A machine. Zone indices count node by node, zone type by zone type."""

    arch: str
    zones: list[ZonePlan]
    nodes: list[NodePlan]
    cpu_node: list[int]
    max_pfn: int
    present_ranges: list[tuple[int, int, int]]  # (zone index, first pfn, end pfn), ascending
    free_ranges: list[tuple[int, int, int]]
    late_ranges: list[tuple[int, int, int]] = field(default_factory=list)
    zonelists: list[tuple[list[int], list[int]]] = field(default_factory=list)  # per node: fallback, own node
    mobility_disabled: bool = False


def zone_limits(arch: str, max_pfn: int, lowmem_end: int | None) -> list[tuple[int, int]]:
    """(first, end) pfn allowed to each zone type below Movable."""
    if arch == "i386":
        low = min(max_pfn, lowmem_end or I386_LOWMEM_END)
        ends = [min(4096, low), low, max_pfn]
    else:
        ends = [min(4096, max_pfn), min(1 << 20, max_pfn), max_pfn]
    starts = [0, *ends[:-1]]
    return list(zip(starts, ends, strict=True))


def cut(ranges, low: int, high: int):
    """The parts of (start, end) ranges within [low, high)."""
    parts = ((max(start, low), min(end, high)) for start, end in ranges)
    return [(start, end) for start, end in parts if start < end]


def without(ranges, holes):
    """Ranges minus holes."""
    for low, high in holes:
        ranges = [part for part in cut(ranges, 0, low) + cut(ranges, high, 1 << 40) if part[0] < part[1]]
    return sorted(ranges)


def fallback_order(local: int, distances, has_memory, load: list[int]) -> list[int]:
    """Nodes in the order in which an allocation for `local` tries them. Successive calls share `load`."""
    order, previous = [], local
    candidates = {n for n, memory in enumerate(has_memory) if memory}
    if local in candidates:
        order.append(local)
        candidates.remove(local)
    while candidates:
        cost = {n: (distances[local][n] + (n < local)) * 1024 + load[n] for n in candidates}
        best = min(candidates, key=lambda n: (cost[n], n))
        candidates.remove(best)
        if distances[local][best] != distances[local][previous]:
            load[best] += 1
        previous = best
        order.append(best)
    return order


def make_plan(
    ram,
    *,
    reserved=(),
    late=(),
    cpus=(0,),
    arch="x86_64",
    distances=None,
    movable_start=None,
    lowmem_end=None,
) -> Plan:
    """Plan from RAM [(first pfn, end pfn, node)], reservations and late-freed ranges [(first pfn, end pfn)].

    cpus names the node of each CPU; movable_start maps nodes to the first page frame of their Movable zone.
    """
    names = ZONE_NAMES[arch]
    ram = sorted(ram)
    max_pfn = max(end for _, end, _ in ram)
    nr_nodes = max([node for _, _, node in ram] + list(cpus)) + 1
    distances = distances or [[10 if a == b else 20 for b in range(nr_nodes)] for a in range(nr_nodes)]
    plan = Plan(arch, [], [], list(cpus), max_pfn, [], [])
    for node in range(nr_nodes):
        own = [(start, end) for start, end, nid in ram if nid == node]
        node_start = own[0][0] if own else 0
        node_end = own[-1][1] if own else 0
        present = sum(end - start for start, end in own)
        plan.nodes.append(NodePlan(node_start, node_end - node_start, present, list(distances[node])))
        movable = (movable_start or {}).get(node, 0)
        limits = zone_limits(arch, max_pfn, lowmem_end)
        if movable:
            limits = [(low, min(high, movable)) for low, high in limits]
        limits = [*limits, (movable, max_pfn if movable else 0)]
        for zid, name in enumerate(names):
            low, high = limits[zid] if zid < len(limits) else (0, 0)
            first, last = max(low, node_start), min(high, node_end)
            ranges = cut(own, low, high) if first < last else []
            index = node * len(names) + zid
            if not ranges:
                first = last = 0
            plan.zones.append(ZonePlan(node, zid, name, first, last - first, sum(end - start for start, end in ranges)))
            plan.present_ranges += [(index, start, end) for start, end in ranges]
            free = without(ranges, [*reserved, *late])
            plan.free_ranges += [(index, start, end) for start, end in free]
            late_here = [part for start, end in late for part in cut(ranges, start, end)]
            plan.late_ranges += [(index, start, end) for start, end in sorted(late_here)]
    for ranges in (plan.present_ranges, plan.free_ranges, plan.late_ranges):
        ranges.sort(key=lambda row: row[1])
    plan.zonelists = zonelists(plan, distances)
    total = sum(zone.present for zone in plan.zones)
    plan.mobility_disabled = total < PAGEBLOCK_PAGES * MIGRATE_TYPES
    return plan


def zonelists(plan: Plan, distances) -> list[tuple[list[int], list[int]]]:
    """Zone indices that an allocation for each node tries: over all nodes, and on its own only."""
    nr_types = len(plan.zones) // len(plan.nodes)

    def of_node(node: int) -> list[int]:
        down = range((node + 1) * nr_types - 1, node * nr_types - 1, -1)
        return [index for index in down if plan.zones[index].present]

    lists, load = [], [0] * len(plan.nodes)
    has_memory = [node.present > 0 for node in plan.nodes]
    for node in range(len(plan.nodes)):
        order = fallback_order(node, distances, has_memory, load)
        lists.append(([index for n in order for index in of_node(n)], of_node(node)))
    return lists
