"""The allocator's state of an inferred machine: free blocks, per-CPU lists, pageblock types.

Models: the numbers of buddyinfo and pagetypeinfo become lists of page frames (mmpy.proc.infer_layout). Simplifies:
per-CPU lists hold single pages; types that we do not have (CMA, the Reserve of old kernels) become the nearest.
Omits: who uses the pages that are not free.
"""

from collections.abc import Mapping, Sequence
from itertools import islice, product
from typing import Any

from mmcore.base.vmstat_names import ZONE_TYPES
from mmpy.proc.buddyinfo import BuddyRow
from mmpy.proc.errors import ProcInferenceError
from mmpy.proc.infer_layout import (
    BLOCK_ORDER,
    BLOCK_PAGES,
    HIGHATOMIC,
    ISOLATE,
    MAX_ORDER,
    MIGRATE_TYPES,
    MOVABLE,
    RECLAIMABLE,
    UNMOVABLE,
    Layout,
    Span,
    lay_free_blocks,
    top_blocks,
    used_pages,
)
from mmpy.proc.infer_zones import LOW_MIB, InferredZone, MemoryRange
from mmpy.proc.pagetypeinfo import COUNT_LIMIT, PageTypeInfo
from mmpy.proc.zoneinfo import PcpInfo

SECTION_PAGES = 32768
# CMA lends its pages to movable allocations. Old kernels put what the min watermark holds back anyway into pageblocks of
# type Reserve; as HighAtomic it would be held back twice.
TYPE_OF = {
    "Unmovable": UNMOVABLE,
    "Movable": MOVABLE,
    "Reclaimable": RECLAIMABLE,
    "HighAtomic": HIGHATOMIC,
    "Reserve": MOVABLE,
    "CMA": MOVABLE,
    "Isolate": ISOLATE,
}
_PCPF_FREE_HIGH_BATCH = 2

Counts = dict[tuple[int, int], int]


def free_state(
    zones: Sequence[InferredZone],
    memory: Sequence[MemoryRange],
    arch: str,
    kernel: str,
    node_cpus: Sequence[Sequence[int]],
    buddy: Sequence[BuddyRow] | None,
    page_types: PageTypeInfo | None,
    notes: list[str],
) -> dict[str, Any]:
    """AllocState of the machine, with block types for every pageblock that a zone's span touches."""
    _explain_sources(buddy, page_types, notes)
    by_order = {(row.node, row.name): row.nr_free for row in buddy or ()}
    known = {(zone.text_node, zone.text_name) for zone in zones if zone.present}
    for key in sorted((set(by_order) | set(page_types.free if page_types else ())) - known):
        notes.append(f"Zone {key[1]} of node {key[0]} has free blocks listed, but zoneinfo has no memory for it: left out.")
    types: dict[int, int] = {}
    free: dict[tuple[int, int], dict[tuple[int, int], list[int]]] = {}
    for zone in sorted((z for z in zones if z.present), key=lambda z: (z.start_pfn, z.node)):
        spans = [(r.start_pfn, r.end_pfn) for r in memory if (r.node, r.zid) == (zone.node, zone.zid)]
        counts, wanted = _counts(zone, by_order, page_types, notes)
        if counts is None:
            blocks = top_blocks(spans, zone.free_pages)
            lay_free_blocks(spans, {}, types, None)
            free[zone.node, zone.zid] = {(order, MOVABLE): pfns for order, pfns in blocks.items()}
            notes.append(f"{zone.title}: only its number of free pages is known; they are laid out as after boot, at its top.")
        else:
            for (order, _), count in counts.items():
                if count << order > zone.end_pfn - zone.start_pfn:
                    raise ProcInferenceError(
                        f"{zone.title}: {count} free blocks of order {order} are listed; it spans {zone.end_pfn - zone.start_pfn} pages"
                    )
            if wanted is not None:
                wanted = _without_holes(zone, spans, arch, wanted, notes)
            free[zone.node, zone.zid] = _lay(zone, spans, counts, types, wanted, arch, notes)
    _type_holes(zones, types)
    rows = {}
    for zone in zones:
        spans = [(r.start_pfn, r.end_pfn) for r in memory if (r.node, r.zid) == (zone.node, zone.zid)]
        rows[zone.node, zone.zid] = _zone_row(
            zone, free.get((zone.node, zone.zid), {}), spans, types, arch, kernel, node_cpus, notes
        )
    return {"zones": rows, "blocks": types}


def _explain_sources(
    buddy: Sequence[BuddyRow] | None, page_types: PageTypeInfo | None, notes: list[str]
) -> None:
    if buddy is None and page_types is None:
        return
    if page_types is None:
        notes.append("Without pagetypeinfo all free blocks and all pageblocks are taken as Movable.")
        return
    for name in ("CMA", "Reserve"):
        if name in page_types.types and any(blocks[name] for blocks in page_types.blocks.values()):
            notes.append(f"Pageblocks and free blocks of type {name} are simulated as Movable.")
    if unknown := [name for name in page_types.types if name not in TYPE_OF]:
        notes.append(f"Types {', '.join(unknown)} are simulated as Movable.")
    if page_types.page_block_order != BLOCK_ORDER:
        notes.append(
            f"Pageblocks of order {page_types.page_block_order} are counted in our pageblocks of order {BLOCK_ORDER}."
        )


def _counts(
    zone: InferredZone,
    by_order: Mapping[tuple[int, str], Sequence[int]],
    page_types: PageTypeInfo | None,
    notes: list[str],
) -> tuple[Counts | None, list[int] | None]:
    """Free blocks of a zone by (order, type) and its pageblocks by type; None for what no text tells."""
    key = zone.text_node, zone.text_name
    totals = by_order.get(key)
    if page_types is None or key not in page_types.free:
        if totals is None:
            return None, None
        return _fold({(order, MOVABLE): count for order, count in enumerate(totals)}), None
    counts: Counts = {}
    for name, row in page_types.free[key].items():
        mt = TYPE_OF.get(name, MOVABLE)
        for order, count in enumerate(row):
            counts[order, mt] = counts.get((order, mt), 0) + count
    for clipped, name, order in sorted(page_types.clipped):
        if clipped == key:
            others = sum(n for (o, _), n in counts.items() if o == order) - COUNT_LIMIT
            true = totals[order] - others if totals and order < len(totals) else 0
            mt = TYPE_OF.get(name, MOVABLE)
            if true > COUNT_LIMIT:
                counts[order, mt] += true - COUNT_LIMIT
            notes.append(
                f"{zone.title}: pagetypeinfo stops counting {name} blocks of order {order} at {COUNT_LIMIT}; "
                f"{counts[order, mt]} are taken" + (", by buddyinfo." if true > COUNT_LIMIT else ".")
            )
    if totals is not None:
        sums = [sum(n for (o, _), n in counts.items() if o == order) for order in range(len(totals))]
        if sums != list(totals):
            notes.append(f"{zone.title}: buddyinfo and pagetypeinfo differ (read at two moments); pagetypeinfo is followed.")
    wanted = [0] * MIGRATE_TYPES
    for name, number in page_types.blocks[key].items():
        wanted[TYPE_OF.get(name, MOVABLE)] += number << page_types.page_block_order >> BLOCK_ORDER
    return _fold(counts), wanted


def _fold(counts: Counts) -> Counts:
    """Blocks above our largest order as several of that order; no empty entries."""
    out: Counts = {}
    for (order, mt), count in counts.items():
        if count:
            key = min(order, MAX_ORDER), mt
            out[key] = out.get(key, 0) + (count << max(0, order - MAX_ORDER))
    return out


def _without_holes(
    zone: InferredZone, spans: Sequence[Span], arch: str, wanted: list[int], notes: list[str]
) -> list[int]:
    """Pageblocks by type that hold memory: those of holes, which the kernel counts as Unmovable, taken off."""
    own = {block for start, end in spans for block in range(start >> BLOCK_ORDER, (end - 1 >> BLOCK_ORDER) + 1)}
    counted = {pfn >> BLOCK_ORDER for pfn in range(zone.start_pfn, zone.end_pfn, BLOCK_PAGES)}
    online = {pfn // SECTION_PAGES for start, end in spans for pfn in (*range(start, end, SECTION_PAGES), end - 1)}
    in_sections = {block for block in counted if (block << BLOCK_ORDER) // SECTION_PAGES in online}
    total = sum(wanted)
    for blocks in (own & counted, in_sections, counted):
        if len(blocks) == total:
            wanted[UNMOVABLE] = max(0, wanted[UNMOVABLE] - len(blocks - own))
            return wanted
    notes.append(
        f"{zone.title}: pagetypeinfo counts {total} pageblocks of order {BLOCK_ORDER}, its memory here touches "
        f"{len(own)}: Movable ones make up the difference."
    )
    return wanted


def _lay(
    zone: InferredZone,
    spans: Sequence[Span],
    counts: Counts,
    types: dict[int, int],
    wanted: list[int] | None,
    arch: str,
    notes: list[str],
) -> dict[tuple[int, int], list[int]]:
    trials: list[tuple[Layout, dict[int, int]]] = []
    above = [(max(start, LOW_MIB), end) for start, end in spans if end > LOW_MIB]
    low = sum(end - start for start, end in spans) - sum(end - start for start, end in above)
    # A PC keeps the memory below 1 MiB to itself, if it keeps so much.
    candidates = [above, spans] if low and arch == "x86_64" and zone.present - zone.managed >= low else [spans]
    for usable, edges in product(candidates, (MOVABLE, UNMOVABLE, RECLAIMABLE) if wanted else (MOVABLE,)):
        trial_types = dict(types)
        _reserve_low(spans, usable, trial_types, wanted)
        trials.append((lay_free_blocks(usable, counts, trial_types, wanted, edges), trial_types))
        if not trials[-1][0].dropped and not trials[-1][0].retyped:
            break
    layout, chosen = min(trials, key=lambda trial: (trial[0].dropped, trial[0].retyped))
    types.update(chosen)
    if layout.retyped:
        notes.append(
            f"{zone.title}: {layout.retyped} pageblocks changed their type, as the free blocks of some type did not fit into its own."
        )
    if layout.dropped:
        notes.append(f"{zone.title}: {layout.dropped} free pages found no legal place and are taken as in use.")
    return layout.free


def _reserve_low(
    spans: Sequence[Span], usable: Sequence[Span], types: dict[int, int], wanted: Sequence[int] | None
) -> None:
    """Type the pageblocks of memory that takes no free blocks, if there are such: block 0 is Unmovable on a PC."""
    first = min((start for start, _ in usable), default=0) >> BLOCK_ORDER
    for start, end in spans:
        for block in range(start >> BLOCK_ORDER, min((end - 1 >> BLOCK_ORDER) + 1, first)):
            types.setdefault(block, UNMOVABLE if wanted is not None else MOVABLE)


def _type_holes(zones: Sequence[InferredZone], types: dict[int, int]) -> None:
    # The kernel types a pageblock as it passes its first page of memory; those of holes keep type 0.
    for zone in zones:
        if zone.present:
            for block in range(zone.start_pfn >> BLOCK_ORDER, (zone.end_pfn - 1 >> BLOCK_ORDER) + 1):
                types.setdefault(block, UNMOVABLE)


def _zone_row(
    zone: InferredZone,
    free: dict[tuple[int, int], list[int]],
    spans: Sequence[Span],
    types: Mapping[int, int],
    arch: str,
    kernel: str,
    node_cpus: Sequence[Sequence[int]],
    notes: list[str],
) -> dict[str, Any]:
    pages = {mt: sum(len(pfns) << order for (order, t), pfns in free.items() if t == mt) for mt in range(MIGRATE_TYPES)}
    nr_free_pages = sum(pages.values()) - pages[ISOLATE]
    if zone.present and nr_free_pages != zone.free_pages:
        notes.append(
            f"{zone.title}: its free blocks are {nr_free_pages} pages, zoneinfo says {zone.free_pages}: the blocks are followed."
        )
    pcp = _pcp_rows(zone, free, spans, types, kernel, node_cpus, notes) if zone.present else {}
    listed = sum(pages.values()) + sum(row["count"] for row in pcp.values())
    if listed > zone.managed:
        notes.append(f"{zone.title}: {listed} pages are free or on per-CPU lists, so managed is that and not {zone.managed}.")
        zone.managed = listed
    reserved = sum(1 for start, end in spans for block in _blocks(start, end) if types[block] == HIGHATOMIC)
    return {
        "name": zone.name,
        "start_pfn": zone.start_pfn,
        "spanned": zone.spanned,
        "present": zone.present,
        "managed": zone.managed,
        "wmark": (zone.min, zone.low, zone.high, zone.promo),
        "boost": zone.boost,
        "nr_reserved_highatomic": reserved * BLOCK_PAGES,
        "nr_free_highatomic": pages[HIGHATOMIC],
        "lowmem_reserve": zone.lowmem_reserve[: len(ZONE_TYPES[arch])],
        "nr_free_pages": nr_free_pages,
        "flags": 0,
        "free": free,
        "nr_free": tuple(
            sum(len(pfns) for (o, _), pfns in free.items() if o == order) for order in range(MAX_ORDER + 1)
        ),
        "pcp": pcp,
    }


def _blocks(start: int, end: int) -> range:
    return range(start >> BLOCK_ORDER, (end - 1 >> BLOCK_ORDER) + 1)


def _pcp_rows(
    zone: InferredZone,
    free: Mapping[tuple[int, int], Sequence[int]],
    spans: Sequence[Span],
    types: Mapping[int, int],
    kernel: str,
    node_cpus: Sequence[Sequence[int]],
    notes: list[str],
) -> dict[int, dict[str, Any]]:
    """Per-CPU lists: as many single pages as the dump counts, from the lowest ones that are not free."""
    cpus = sum(len(own) for own in node_cpus)
    local = len(node_cpus[zone.node]) or cpus
    printed = {pcp.cpu: pcp for pcp in zone.pcp}
    wanted = sum(pcp.count for pcp in zone.pcp)
    pages = _pcp_pages(free, spans, types, wanted)
    if len(pages) < wanted:
        notes.append(f"{zone.title}: its per-CPU lists are said to hold {wanted} pages; {len(pages)} could be found for them.")
    taken = iter(pages)
    rows = {}
    for cpu in range(cpus):
        pcp = printed.get(cpu) or PcpInfo(cpu, batch=1)
        mine = list(islice(taken, pcp.count))
        lists: dict[int, list[int]] = {}
        for pfn in mine:
            lists.setdefault(types[pfn >> BLOCK_ORDER], []).append(pfn)
        batch = max(1, pcp.batch)
        if kernel == "6.12":
            high_min = pcp.high_min if pcp.high_min is not None else max((zone.low + zone.boost) // local, 4 * batch)
            high_max = pcp.high_max if pcp.high_max is not None else max(zone.managed // 8 // local, 4 * batch)
        else:
            high_min = high_max = pcp.high
        rows[cpu] = {
            "count": len(mine),
            "high": pcp.high,
            "high_min": high_min,
            "high_max": max(high_min, high_max),
            "batch": batch,
            "flags": _PCPF_FREE_HIGH_BATCH if kernel == "6.12" else 0,
            "alloc_factor": 0,
            "expire": 0,
            "free_count": 0,
            "diff": 0,
            "lists": lists,
        }
    return rows


def _pcp_pages(
    free: Mapping[tuple[int, int], Sequence[int]], spans: Sequence[Span], types: Mapping[int, int], wanted: int
) -> list[int]:
    """Page frames for per-CPU lists: from Movable pageblocks first, then from the other two types that have such lists."""
    out: list[int] = []
    for mt in (MOVABLE, RECLAIMABLE, UNMOVABLE):
        for start, end in used_pages(spans, free):
            if len(out) >= wanted:
                return out
            for block in _blocks(start, end):
                if types[block] == mt:
                    first, last = max(start, block << BLOCK_ORDER), min(end, (block + 1) << BLOCK_ORDER)
                    out.extend(range(first, min(last, first + wanted - len(out))))
    return out
