"""The recordings' state files (stateK.NAME.txt) as AllocState, and back.

Models: the text format of reference/README.md. Simplifies: one CPU (the differential is what the lists hold
more than the global count). Omits: compaction's positions and skip marks.
"""

from .alloc_state import PCP_FIELDS, count_blocks
from .constants import ISOLATE, NR_PAGE_ORDERS, PAGEBLOCK_ORDER


def parse_state(text: str) -> dict:
    """AllocState of a state file."""
    zones, block_digits = {}, {}
    for line in text.splitlines():
        head, _, tail = line.partition(":")
        words = head.split()
        if not words:
            continue
        kind = words[0]
        values = dict(word.split("=", 1) for word in line.split() if "=" in word)
        if kind == "blocks":
            first = int(words[1], 16) >> PAGEBLOCK_ORDER
            block_digits.update({first + i: int(c, 16) & 7 for i, c in enumerate(tail.strip())})
            continue
        key = int(words[1]), int(words[2])
        if kind == "zone":
            zones[key] = parse_zone(words[3], values)
        elif kind == "free":
            zones[key]["free"][int(words[3]), int(words[4])] = [int(x, 16) for x in tail.split()]
        elif kind == "pcp":
            row = {field: int(values[field]) for field in PCP_FIELDS}
            zones[key]["pcp"][int(values["cpu"])] = row | {"diff": 0, "lists": {}}
        elif kind == "pcplist":
            zones[key]["pcp"][int(words[3])]["lists"][int(words[4])] = [int(x, 16) for x in tail.split()]
    blocks = {}
    for row in zones.values():
        if not row["present"]:
            row["pcp"] = {}
            continue
        first, last = row["start_pfn"], row["start_pfn"] + row["spanned"] - 1
        for block in range(first >> PAGEBLOCK_ORDER, (last >> PAGEBLOCK_ORDER) + 1):
            blocks[block] = block_digits.get(block, 0)
        row["nr_free"] = count_blocks(row["free"])
        counted = sum(len(pfns) << order for (order, mt), pfns in row["free"].items() if mt != ISOLATE)
        row["pcp"][0]["diff"] = counted - row["nr_free_pages"]
    return {"zones": zones, "blocks": blocks}


def parse_zone(name: str, values: dict) -> dict:
    numbers = {
        field: int(values[source])
        for field, source in {
            "spanned": "spanned",
            "present": "present",
            "managed": "managed",
            "boost": "boost",
            "nr_reserved_highatomic": "reserved_highatomic",
            "nr_free_highatomic": "free_highatomic",
            "nr_free_pages": "nr_free_pages",
            "flags": "flags",
        }.items()
    }
    return {
        "name": name,
        "start_pfn": int(values["start_pfn"], 16),
        **numbers,
        "wmark": tuple(int(x) for x in values["wmark"].split(",")),
        "lowmem_reserve": tuple(int(x) for x in values["lowmem_reserve"].split(",")),
        "free": {},
        "nr_free": (0,) * NR_PAGE_ORDERS,
        "pcp": {},
    }


def format_state(state: dict) -> str:
    """A state file with this AllocState."""
    lines = []
    for (node, zid), z in sorted(state["zones"].items()):
        pcp = z["pcp"].get(0, dict.fromkeys(("batch", "high_min", "high_max"), 0))
        wmark, reserve = (",".join(map(str, z[field])) for field in ("wmark", "lowmem_reserve"))
        lines.append(
            f"zone {node} {zid} {z['name']} start_pfn={z['start_pfn']:x} "
            f"spanned={z['spanned']} present={z['present']} managed={z['managed']} "
            f"wmark={wmark} boost={z['boost']} reserved_highatomic={z['nr_reserved_highatomic']} "
            f"free_highatomic={z['nr_free_highatomic']} lowmem_reserve={reserve} "
            f"nr_free_pages={z['nr_free_pages']} "
            f"batch={pcp['batch']} high_min={pcp['high_min']} high_max={pcp['high_max']} flags={z['flags']}"
        )
        for (order, mt), pfns in sorted(z["free"].items()):
            lines.append(f"free {node} {zid} {order} {mt}: " + " ".join(f"{p:x}" for p in pfns))
        lines += [f"nr_free {node} {zid} {order} {n}" for order, n in enumerate(z["nr_free"])]
        for cpu, row in sorted(z["pcp"].items()):
            fields = " ".join(f"{field}={row[field]}" for field in PCP_FIELDS)
            lines.append(f"pcp {node} {zid} cpu={cpu} {fields}")
            for index, pfns in sorted(row["lists"].items()):
                lines.append(f"pcplist {node} {zid} {cpu} {index}: " + " ".join(f"{p:x}" for p in pfns))
    blocks = state["blocks"]
    for first in sorted(n for n in blocks if n - 1 not in blocks):
        end = first
        while end in blocks:
            end += 1
        digits = "".join(f"{blocks[n]:x}" for n in range(first, end))
        lines.append(f"blocks {first << PAGEBLOCK_ORDER:x}:{digits}")
    return "\n".join(lines) + "\n"
