"""AllocState: the allocator's state as plain data, to and from a TwinMachine, and how two of them differ.

Models: what the recordings' snapshots hold. Simplifies: nothing. Omits: pages in use.
"""

from .constants import MOVABLE, NR_PAGE_ORDERS, PAGEBLOCK_ORDER, ZONE_MOVABLE, ZONE_NAMES
from .stat import normal_threshold
from .zone import Zone

PCP_FIELDS = (
    "count", "high", "high_min", "high_max", "batch", "flags", "alloc_factor", "expire", "free_count",
)  # fmt: skip
SIZE_FIELDS = ("start_pfn", "spanned", "present")
LIVE_FIELDS = ("managed", "boost", "nr_reserved_highatomic", "nr_free_highatomic", "nr_free_pages", "flags")
ZONE_FIELDS = SIZE_FIELDS + LIVE_FIELDS


def dump_state(machine) -> dict:
    """AllocState of a twin."""
    return {"zones": {z.key: dump_zone(z) for z in machine.zones}, "blocks": dump_blocks(machine)}


def dump_zone(zone) -> dict:
    lists = {(order, mt): list(blocks) for order, of_order in enumerate(zone.free) for mt, blocks in enumerate(of_order) if blocks}
    return {
        "name": zone.name,
        **{field: getattr(zone, field) for field in ZONE_FIELDS},
        "wmark": tuple(zone.wmark),
        "lowmem_reserve": tuple(zone.lowmem_reserve),
        "free": lists,
        "nr_free": tuple(zone.nr_free(order) for order in range(NR_PAGE_ORDERS)),
        "pcp": {cpu: dump_pcp(zone, cpu) for cpu in range(len(zone.pcp))},
    }


def dump_pcp(zone, cpu: int) -> dict:
    pcp = zone.pcp[cpu]
    return {
        **{field: getattr(pcp, field) for field in PCP_FIELDS},
        "diff": zone.diff[cpu],
        "lists": {index: list(blocks) for index, blocks in enumerate(pcp.lists) if blocks},
    }


def dump_blocks(machine) -> dict[int, int]:
    blocks = {}
    for zone in machine.populated_zones():
        for block in range(zone.start_pfn >> PAGEBLOCK_ORDER, (zone.end_pfn - 1 >> PAGEBLOCK_ORDER) + 1):
            blocks[block] = machine.block_type(block << PAGEBLOCK_ORDER)
    return blocks


def load_state(cls, state: dict, arch: str, cpu_node):
    """A twin in the given state. Spans stand for memory; thresholds are those of the managed sizes."""
    keys = sorted(state["zones"])
    nr_nodes = keys[-1][0] + 1
    if cpu_node is None:
        cpu_node = [0] * max(len(row["pcp"]) for row in state["zones"].values())
    machine = cls(arch, "6.12", cpu_node, nr_nodes)
    machine.known = None
    for node in range(nr_nodes):
        for zid, name in enumerate(ZONE_NAMES[arch]):
            row = state["zones"].get((node, zid))
            load_zone(machine, node, zid, name, row)
    populated = machine.populated_zones()
    machine.max_pfn = max(z.end_pfn for z in populated)
    machine.set_present((z.start_pfn, z.end_pfn, z) for z in populated)
    for node in range(nr_nodes):
        own = [z for z in reversed(populated) if z.node == node]
        others = [z for n in range(nr_nodes) if n != node for z in reversed(populated) if z.node == n]
        machine.zonelists.append((own + others, own))
    machine.block_types = dict(state["blocks"])
    return machine


def load_zone(machine, node: int, zid: int, name: str, row: dict | None) -> None:
    size = [row[field] for field in SIZE_FIELDS] if row else (0, 0, 0)
    zone = Zone(machine, node, zid, name, *size)
    machine.zones.append(zone)
    if row is None:
        return
    for field in LIVE_FIELDS:
        setattr(zone, field, row[field])
    zone.wmark, zone.lowmem_reserve = list(row["wmark"]), list(row["lowmem_reserve"])
    zone.stat_threshold = normal_threshold(zone.managed, machine.nr_cpus)
    for (order, mt), pfns in row["free"].items():
        for pfn in pfns:
            zone.add_block(pfn, order, mt, tail=True)
    for cpu, saved in row["pcp"].items():
        pcp = zone.pcp[cpu]
        for field in PCP_FIELDS:
            setattr(pcp, field, saved[field])
        zone.diff[cpu] = saved["diff"]
        for index, pfns in saved["lists"].items():
            order = index // 3 if index < 12 else PAGEBLOCK_ORDER
            for pfn in pfns:
                pcp.lists[index][pfn] = None
                machine.pcp_head[pfn] = order


def blank_state(managed: int, free: dict, blocks: dict[int, int], *, start=4096, wmark=(0, 0, 0, 0), batch=1) -> dict:
    """AllocState of a one-CPU machine whose only zone, DMA32, holds the given free lists.

    It spans `blocks` (pageblock -> type, MOVABLE where none is given) and at least its managed pages. free maps
    (order, type) to page frames. Per-CPU lists are empty, with high_min = high_max = 4 * batch.
    """
    last = max(*blocks, (start + managed - 1) >> PAGEBLOCK_ORDER)
    blocks = {block: blocks.get(block, MOVABLE) for block in range(start >> PAGEBLOCK_ORDER, last + 1)}
    end = (last + 1) << PAGEBLOCK_ORDER
    pages = sum(len(pfns) << order for (order, _), pfns in free.items())
    nr_free = count_blocks(free)
    pcp = dict.fromkeys(PCP_FIELDS, 0) | {
        "high_min": 4 * batch, "high_max": 4 * batch, "batch": batch, "flags": 2, "diff": 0, "lists": {},
    }  # fmt: skip
    zones = {}
    for zid, name in enumerate(ZONE_NAMES["x86_64"]):
        row = dict.fromkeys(ZONE_FIELDS, 0) | {
            "name": name,
            "wmark": (0, 0, 0, 0),
            "lowmem_reserve": (0,) * 5,
        }
        row |= {"free": {}, "nr_free": (0,) * NR_PAGE_ORDERS, "pcp": {}}
        if zid == ZONE_MOVABLE:
            row["wmark"] = (32, 32, 32, 32)
        if name == "DMA32":
            row |= {"start_pfn": start, "spanned": end - start, "present": end - start, "managed": managed}
            row |= {"wmark": tuple(wmark), "nr_free_pages": pages, "free": dict(free), "nr_free": nr_free}
            row["pcp"] = {0: pcp}
        zones[0, zid] = row
    return {"zones": zones, "blocks": blocks}


def count_blocks(free: dict) -> tuple[int, ...]:
    """Free blocks by order, from lists by (order, type)."""
    counts = [0] * NR_PAGE_ORDERS
    for (order, _), pfns in free.items():
        counts[order] += len(pfns)
    return tuple(counts)


def differences(ours: dict, theirs: dict) -> list[str]:
    """What differs between two AllocStates, most telling first; empty if they are equal."""
    rows = []
    for key in sorted(set(ours["zones"]) | set(theirs["zones"])):
        a, b = ours["zones"].get(key), theirs["zones"].get(key)
        if a is None or b is None:
            if (a or b)["present"]:  # recordings leave empty zones out
                rows.append(f"zone {key}: only one side has it")
        else:
            rows += zone_differences(f"zone {key} {a['name']}", a, b)
    blocks = set(ours["blocks"]) | set(theirs["blocks"])
    wrong = [n for n in sorted(blocks) if ours["blocks"].get(n) != theirs["blocks"].get(n)]
    if wrong:
        n = wrong[0]
        types = f"{ours['blocks'].get(n)} / {theirs['blocks'].get(n)}"
        rows.append(f"{len(wrong)} pageblocks, first {n} (pfn {n << PAGEBLOCK_ORDER:#x}): {types}")
    return rows


def zone_differences(where: str, a: dict, b: dict) -> list[str]:
    rows = []
    for field in sorted(set(a) - {"free", "pcp"}):
        if plain(a[field]) != plain(b[field]):
            rows.append(f"{where}: {field} {a[field]} / {b[field]}")
    for order, mt in sorted(set(a["free"]) | set(b["free"])):
        name = f"{where}: free list order {order} type {mt}"
        rows += list_difference(name, a["free"], b["free"], (order, mt))
    for cpu in sorted(set(a["pcp"]) | set(b["pcp"])):
        left, right = a["pcp"].get(cpu), b["pcp"].get(cpu)
        if left is None or right is None:
            rows.append(f"{where}: only one side has lists of CPU {cpu}")
            continue
        for field in (*PCP_FIELDS, "diff"):
            if int(left[field]) != int(right[field]):
                rows.append(f"{where}: cpu {cpu} {field} {left[field]} / {right[field]}")
        for index in sorted(set(left["lists"]) | set(right["lists"])):
            rows += list_difference(f"{where}: cpu {cpu} list {index}", left["lists"], right["lists"], index)
    return rows


def list_difference(where: str, a: dict, b: dict, key) -> list[str]:
    left, right = [int(x) for x in a.get(key, ())], [int(x) for x in b.get(key, ())]
    if left == right:
        return []
    shorter = min(len(left), len(right))
    at = next((i for i in range(shorter) if left[i] != right[i]), shorter)
    show = [" ".join(f"{x:#x}" for x in side[max(0, at - 1) : at + 4]) for side in (left, right)]
    lengths = f"lengths {len(left)} / {len(right)}"
    return [f"{where}: {lengths}, first difference at {at}: .. {show[0]} / .. {show[1]}"]


def plain(value):
    """Numbers and tuples without their numpy dress."""
    if isinstance(value, str):
        return value
    return tuple(int(x) for x in value) if hasattr(value, "__len__") else int(value)
