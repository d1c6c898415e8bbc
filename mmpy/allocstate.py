"""AllocState: the allocator's whole state as a plain dict, the form that machines, twins and recordings have in common.

Models: the lists and counters of struct zone and struct per_cpu_pages. Simplifies: nothing. Omits: page contents and owners.

The form (lists head first, empty ones absent; watermarks without boost) is that of mmpy.traces.state, which reads it from a recording:
{"zones": {(node, zid): {name, start_pfn, spanned, present, managed, wmark, boost, nr_reserved_highatomic, nr_free_highatomic,
lowmem_reserve, nr_free_pages, flags, free: {(order, mt): pfns}, nr_free, pcp: {cpu: {count, high, high_min, high_max, batch, flags,
alloc_factor, expire, free_count, diff, lists: {index: pfns}}}}}, "blocks": {pageblock index: migratetype}}
"""

from __future__ import annotations

from typing import Any

from mmcore.base.state import State
from mmcore.phys import boot, check, watermark

AllocState = dict[str, Any]
PCP_FIELDS = ("count", "high", "high_min", "high_max", "batch", "flags", "alloc_factor", "expire", "free_count")
MIGRATE_MOVABLE = 1
# what a dict of another form makes the reading of it raise
MISFITS = (ValueError, AssertionError, LookupError, TypeError, AttributeError, OverflowError)


def dump(state: State, zone_names: tuple[str, ...]) -> AllocState:
    """The allocator's state of a machine, recounted from its lists."""
    ncpus = int(state.globals["nr_cpus"][0])
    types = len(zone_names)
    blocks: dict[int, int] = {}
    zones: dict[tuple[int, int], dict[str, Any]] = {}
    for zi, row in enumerate(state.zones):
        free: dict[tuple[int, int], list[int]] = {}
        pcp: dict[int, dict[str, Any]] = {}
        if row["present"]:
            free = {
                (order, mt): pfns.tolist()
                for order in range(11)
                for mt in range(5)
                if row["order_mask"][mt] >> order & 1 and len(pfns := boot.free_list(state, zi, order, mt))
            }
            for cpu in range(ncpus):
                p = state.pcps[zi * ncpus + cpu]
                lists = {i: pfns.tolist() for i in range(14) if len(pfns := boot.pcp_list(state, zi, cpu, i))}
                pcp[cpu] = {**{f: int(p[f]) for f in PCP_FIELDS}, "diff": int(p["vm_diff"][0]), "lists": lists}
            start, end = int(row["start_pfn"]), int(row["start_pfn"] + row["spanned"])
            first = start >> 9
            for i, mt in enumerate((state.pageblocks["mt"][first : (end + 511) >> 9] ^ MIGRATE_MOVABLE).tolist()):
                blocks[first + i] = mt
        zones[int(row["node"]), int(row["zid"])] = {
            "name": zone_names[int(row["zid"])],
            "start_pfn": int(row["start_pfn"]),
            "spanned": int(row["spanned"]),
            "present": int(row["present"]),
            "managed": int(row["managed"]),
            "wmark": tuple(int(x) for x in row["wmark"]),
            "boost": int(row["watermark_boost"]),
            "nr_reserved_highatomic": int(row["nr_reserved_highatomic"]),
            "nr_free_highatomic": int(row["nr_free_highatomic"]),
            "lowmem_reserve": tuple(int(x) for x in row["lowmem_reserve"][:types]),
            "nr_free_pages": int(row["vm_stat"][0]),
            "flags": int(row["flags"]),
            "free": free,
            "nr_free": tuple(int(x) for x in row["nr_free"]),
            "pcp": pcp,
        }
    return {"zones": zones, "blocks": blocks}


def load_checked(state: State, alloc: AllocState) -> None:
    """load(), and a recount; ValueError says what does not fit (`state` is of no use then)."""
    try:
        load(state, alloc)
        check.validate(state)
    except MISFITS as error:
        raise ValueError(f"this state does not fit the machine ({type(error).__name__}): {error}") from error


def load(state: State, alloc: AllocState) -> None:
    """Make a machine's free lists, per-CPU lists, block types and zone figures those of `alloc`.

    Zones are matched by (node, zone type); their start and span must agree with the machine's. Pages that are on no list count as in
    use since before our time: they can be freed by name in an op stream, and no one else owns them. ValueError says what does not fit;
    the state is then only partly loaded (callers load into a machine they have not handed out yet).
    """
    ncpus = int(state.globals["nr_cpus"][0])
    types = int(state.globals["nr_zone_types"][0])
    boot.clear_lists(state)
    for index, mt in alloc["blocks"].items():
        if not 0 <= index < len(state.pageblocks) or not 0 <= mt <= 4:
            raise ValueError(f"pageblock {index} with migratetype {mt}: the machine has {len(state.pageblocks)} blocks and types 0..4")
        state.pageblocks["mt"][index] = mt ^ MIGRATE_MOVABLE
    for (node, zid), zone in alloc["zones"].items():
        zi = node * types + zid
        if not 0 <= zid < types or not 0 <= zi < len(state.zones):
            raise ValueError(f"the machine has no zone type {zid} on node {node}")
        row = state.zones[zi]
        if not zone["present"]:
            continue
        if (row["start_pfn"], row["spanned"]) != (zone["start_pfn"], zone["spanned"]):
            raise ValueError(
                f"zone {zone['name']} of node {node} starts at {zone['start_pfn']:#x} and spans {zone['spanned']} pages in the state, "
                f"{int(row['start_pfn']):#x} and {int(row['spanned'])} here"
            )
        for field in ("present", "managed", "nr_reserved_highatomic", "nr_free_highatomic", "flags"):
            row[field] = zone[field]
        row["wmark"] = zone["wmark"]
        row["watermark_boost"] = zone["boost"]
        row["lowmem_reserve"][:types] = zone["lowmem_reserve"]
        row["vm_stat"][0] = zone["nr_free_pages"]
        for (order, mt), pfns in zone["free"].items():
            boot.load_free_list(state, zi, order, mt, pfns)
        for cpu, pcp in zone["pcp"].items():
            if not 0 <= cpu < ncpus:
                raise ValueError(f"zone {zone['name']} has per-CPU lists of CPU {cpu}; the machine has {ncpus} CPUs")
            p = state.pcps[zi * ncpus + cpu]
            for index, pfns in pcp["lists"].items():
                boot.load_pcp_list(state, zi, cpu, index, pfns)
            if int(p["count"]) != pcp["count"]:
                raise ValueError(
                    f"per-CPU lists of CPU {cpu} in zone {zone['name']} hold {int(p['count'])} pages, their count says {pcp['count']}"
                )
            for field in PCP_FIELDS:
                p[field] = pcp[field]
            p["vm_diff"][0] = pcp["diff"]
        listed = sum(int(n) << order for order, n in enumerate(row["nr_free"]))
        listed += int(state.pcps["count"][zi * ncpus : (zi + 1) * ncpus].sum())
        row["nr_before"] = max(int(row["managed"]) - listed, 0)
    state.globals["totalram_pages"] = int(state.zones["managed"].sum())
    watermark.refresh_thresholds(state)


def differences(a: AllocState, b: AllocState, *, ignore_flags: int = 0) -> list[str]:
    """What differs between two states, a line each: "zone 0/DMA32 free order 3 type 1: 5 blocks and 4, first at 2: 0x40 and 0x48"."""
    out: list[str] = []
    for key in sorted(a["zones"].keys() | b["zones"].keys()):
        x, y = a["zones"].get(key), b["zones"].get(key)
        if x is None or y is None:
            if (x or y)["present"]:
                out.append(f"zone {key[0]}/{(x or y)['name']} exists on one side only")
            continue
        name = f"zone {key[0]}/{x['name']}"
        for field in x.keys() & y.keys() - {"free", "pcp", "name"}:
            vx, vy = x[field], y[field]
            if field == "flags":
                vx, vy = vx & ~ignore_flags, vy & ~ignore_flags
            if vx != vy and x["present"]:
                out.append(f"{name} {field}: {vx} and {vy}")
        for order, mt in sorted(x["free"].keys() | y["free"].keys()):
            out += _list_difference(f"{name} free order {order} type {mt}", x["free"].get((order, mt), []), y["free"].get((order, mt), []))
        for cpu in sorted(x["pcp"].keys() | y["pcp"].keys()):
            px, py = x["pcp"].get(cpu), y["pcp"].get(cpu)
            if px is None or py is None:
                out.append(f"{name} cpu {cpu}: per-CPU lists on one side only")
                continue
            for field in px.keys() & py.keys() - {"lists"}:
                if px[field] != py[field]:
                    out.append(f"{name} cpu {cpu} {field}: {px[field]} and {py[field]}")
            for i in sorted(px["lists"].keys() | py["lists"].keys()):
                out += _list_difference(f"{name} cpu {cpu} pcp list {i}", px["lists"].get(i, []), py["lists"].get(i, []))
    if a["blocks"] != b["blocks"]:
        diff = [i for i in sorted(a["blocks"].keys() | b["blocks"].keys()) if a["blocks"].get(i) != b["blocks"].get(i)]
        i = diff[0]
        out.append(f"{len(diff)} pageblock types, first block {i}: {a['blocks'].get(i)} and {b['blocks'].get(i)}")
    return out


def _list_difference(name: str, x: list[int], y: list[int]) -> list[str]:
    if x == y:
        return []
    at = next((i for i, (p, q) in enumerate(zip(x, y, strict=False)) if p != q), min(len(x), len(y)))
    show = [f"{v[at]:#x}" if at < len(v) else "the end" for v in (x, y)]
    return [f"{name}: {len(x)} blocks and {len(y)}, first difference at {at}: {show[0]} and {show[1]}"]




def present_from_state(alloc: AllocState) -> list[tuple[int, int, int]]:
    """Ranges (first pfn, end pfn, node) of memory that a state's zones can have: where a zone spans more than is present, the hole is put
    into the largest stretch in which nothing is listed, below 1 MiB first on x86."""
    out: list[tuple[int, int, int]] = []
    for (node, _), zone in sorted(alloc["zones"].items()):
        if not zone["present"]:
            continue
        start, end = zone["start_pfn"], zone["start_pfn"] + zone["spanned"]
        hole = zone["spanned"] - zone["present"]
        if not hole:
            out.append((start, end, node))
            continue
        listed = [(p, p + (1 << order)) for (order, _), pfns in zone["free"].items() for p in pfns]
        for pcp in zone["pcp"].values():
            for index, pfns in pcp["lists"].items():
                size = 1 << (index // 3 if index < 12 else 9)
                listed += [(p, p + size) for p in pfns]
        at = _hole_start(start, end, hole, sorted(listed))
        out += [(a, b, node) for a, b in ((start, at), (at + hole, end)) if a < b]
    return out


def _hole_start(start: int, end: int, hole: int, listed: list[tuple[int, int]]) -> int:
    isa_hole = 0x100 - hole
    if start < isa_hole and hole < 0x100 <= end and all(b <= isa_hole or a >= 0x100 for a, b in listed):
        return isa_hole
    gaps, at = [], start
    for a, b in [*listed, (end, end)]:
        if a - at >= hole:
            gaps.append((a - at, at, a))
        at = max(at, b)
    if not gaps:
        raise ValueError(f"a zone from {start:#x} to {end:#x} lacks {hole} pages, but no stretch of that length is free of listed blocks")
    _, low, high = max(gaps)
    return high - hole if high == end or low != start else low
