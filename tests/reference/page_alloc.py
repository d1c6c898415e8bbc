"""alloc_pages and free_pages: the zonelist walk, the slow path without reclaim, bulk and exact forms.

Models: __alloc_pages, get_page_from_freelist, rmqueue, __alloc_pages_slowpath (without reclaim, compaction
and OOM), alloc_pages_bulk, alloc_pages_exact, split_page, ___free_pages (mm/page_alloc.c), wakeup_kswapd and
the ends of a kswapd run (mm/vmscan.c, v6.12). Simplifies: a free of the wrong kind is refused with a code.
Omits: cpusets, dirty spreading, node_reclaim, memory cgroups.
"""

from dataclasses import dataclass

from . import buddy, pcp
from . import gfp as gfp_flags
from .constants import (
    ALLOC_HIGHATOMIC,
    ALLOC_KSWAPD,
    ALLOC_MIN_RESERVE,
    ALLOC_NO_WATERMARKS,
    ALLOC_NOFRAGMENT,
    ALLOC_NON_BLOCK,
    ALLOC_OOM,
    ALLOC_WMARK_MASK,
    BELOW_HIGH,
    BOOSTED_WATERMARK,
    E_BAD_PAGE,
    EINVAL,
    ENOMEM,
    HIGH,
    HIGHATOMIC,
    LOW,
    MAX_PAGE_ORDER,
    UNMOVABLE,
    pcp_allowed_order,
)
from .kswapd import wakeup_kswapd
from .migratetype import NORMAL, reserve_highatomic_pageblock, rmqueue_any
from .watermark import zone_watermark_fast


@dataclass
class Request:
    """What one allocation asks for, settled once at its start."""

    gfp: int
    order: int
    mt: int
    hidx: int  # highest zone index
    zones: list  # allowed zones in the order of preference; the first is the preferred one
    cpu: int


def prepare(machine, gfp: int, order: int, cpu: int, nid: int) -> Request:
    """Request for a legal mask."""
    hidx = gfp_flags.gfp_zone(gfp, machine.arch)
    mt = UNMOVABLE if machine.mobility_disabled else gfp_flags.gfp_migratetype(gfp)
    zonelist = machine.zonelist(nid, this_node=bool(gfp & gfp_flags.THISNODE))
    return Request(gfp, order, mt, hidx, [z for z in zonelist if z.zid <= hidx], cpu)


def bad_request(machine, gfp: int, order: int, cpu: int, nid: int) -> bool:
    """Whether any argument is out of range or the mask illegal."""
    if not 0 <= order <= MAX_PAGE_ORDER or not gfp_flags.gfp_is_legal(gfp):
        return True
    return not 0 <= cpu < machine.nr_cpus or not -1 <= nid < machine.nr_nodes


def alloc_pages(machine, gfp: int, order: int, cpu: int, nid: int, task: int) -> int:
    """First page frame of a block of 2**order pages, -ENOMEM or -EINVAL."""
    if bad_request(machine, gfp, order, cpu, nid):
        return EINVAL
    gfp = gfp_flags.current_gfp_context(gfp, task)
    request = prepare(machine, gfp, order, cpu, machine.cpu_node[cpu] if nid == -1 else nid)
    alloc_flags = LOW | nofragment_flags(machine, request)
    if gfp & gfp_flags.KSWAPD_RECLAIM:
        alloc_flags |= ALLOC_KSWAPD
    pfn = get_page_from_freelist(machine, request, alloc_flags)
    if pfn is None:
        pfn = slow_path(machine, request, task)
    return ENOMEM if pfn is None else pfn


def nofragment_flags(machine, request: Request) -> int:
    """ALLOC_NOFRAGMENT if the preferred zone is Normal and DMA32 can take requests that would mix types."""
    if "DMA32" not in machine.zone_names or not request.zones:
        return 0
    preferred = request.zones[0]
    if preferred.name != "Normal":
        return 0
    alone = machine.nr_nodes == 1
    return ALLOC_NOFRAGMENT if alone or machine.zone(preferred.node, preferred.zid - 1).present else 0


def get_page_from_freelist(machine, request: Request, alloc_flags: int) -> int | None:
    """Walk the zones for one that the watermarks allow and that has a block."""
    order, hidx = request.order, request.hidx
    restart = True
    while restart:
        restart = False
        no_fallback = alloc_flags & ALLOC_NOFRAGMENT
        for zone in request.zones:
            if no_fallback and machine.nr_nodes > 1 and zone.node != request.zones[0].node:
                # better mixed types near by than pure ones far away
                restart = True
                break
            if not zone_has_room(machine, zone, order, hidx, alloc_flags):
                continue
            pfn = rmqueue(machine, request, zone, alloc_flags)
            if pfn is not None:
                machine.prep_new_page(pfn, order, request.gfp, pfmemalloc=bool(alloc_flags & ALLOC_NO_WATERMARKS))
                if alloc_flags & ALLOC_HIGHATOMIC:
                    reserve_highatomic_pageblock(zone, request.cpu, pfn, order)
                return pfn
        if no_fallback:
            alloc_flags &= ~ALLOC_NOFRAGMENT
            restart = True
    return None


def zone_has_room(machine, zone, order: int, hidx: int, alloc_flags: int) -> bool:
    """The watermark tests of one step of the walk; notes when the zone has fallen below its high mark."""
    if machine.kernel != "6.1" and not zone.flags & BELOW_HIGH:
        if zone_watermark_fast(zone, order, zone.wmark[HIGH] + zone.boost, hidx, alloc_flags):
            return True
        zone.flags |= BELOW_HIGH
    mark = zone.wmark[alloc_flags & ALLOC_WMARK_MASK] + zone.boost
    return zone_watermark_fast(zone, order, mark, hidx, alloc_flags) or bool(alloc_flags & ALLOC_NO_WATERMARKS)


def rmqueue(machine, request: Request, zone, alloc_flags: int) -> int | None:
    """Take a block from a zone: per-CPU list, else buddy lists."""
    order, cpu = request.order, request.cpu
    pfn = None
    if pcp_allowed_order(order):
        pfn = pcp.pcp_take(zone, cpu, order, request.mt, alloc_flags)
    if pfn is None:
        pfn = rmqueue_buddy(machine, request, zone, alloc_flags)
    if pfn is not None:
        count_allocation(machine, request, zone, 1 << order, 1)
    if alloc_flags & ALLOC_KSWAPD and zone.flags & BOOSTED_WATERMARK:
        zone.flags &= ~BOOSTED_WATERMARK
        wakeup_kswapd(machine, zone, 0, zone.zid)
    return pfn


def rmqueue_buddy(machine, request: Request, zone, alloc_flags: int) -> int | None:
    """Take a block from the buddy lists; the highatomic reserve first or last, as the flags allow."""
    pfn = None
    if alloc_flags & ALLOC_HIGHATOMIC:
        pfn = take_highatomic(machine, request, zone)
    if pfn is None:
        pfn = rmqueue_any(zone, request.cpu, request.order, request.mt, alloc_flags, [NORMAL])
    if pfn is None and alloc_flags & (ALLOC_OOM | ALLOC_NON_BLOCK):
        pfn = take_highatomic(machine, request, zone)
    return pfn


def take_highatomic(machine, request: Request, zone) -> int | None:
    """A block from the highatomic reserve."""
    pfn = buddy.rmqueue_smallest(zone, request.cpu, request.order, HIGHATOMIC)
    if pfn is not None:
        machine.trace("rmqueue", pfn, request.order, HIGHATOMIC)
    return pfn


def count_allocation(machine, request: Request, zone, nr_pages: int, nr_calls: int) -> None:
    """Event and NUMA counters of what was taken."""
    machine.events.count(f"pgalloc_{pgalloc_suffix(zone)}", nr_pages)
    machine.events.zone_statistics(request.zones[0], zone, machine.cpu_node[request.cpu], nr_calls)


def pgalloc_suffix(zone) -> str:
    """Zone part of an event's name."""
    return "high" if zone.name == "HighMem" else zone.name.lower()


def slow_path(machine, request: Request, task: int) -> int | None:
    """Wake kswapd, then take what the min watermark and the reserves allow. Nothing is reclaimed."""
    gfp = request.gfp
    if not request.zones:
        return None
    alloc_flags = gfp_flags.slowpath_alloc_flags(gfp, request.order, task)
    wake_all_kswapds(machine, request, alloc_flags)
    pfn = get_page_from_freelist(machine, request, alloc_flags)
    if pfn is not None:
        return pfn
    wake_all_kswapds(machine, request, alloc_flags)
    right = gfp_flags.reserve_right(gfp, task)
    if right:
        alloc_flags = right | alloc_flags & ALLOC_KSWAPD
    pfn = get_page_from_freelist(machine, request, alloc_flags)
    # here direct reclaim and compaction would follow
    if pfn is None and gfp & gfp_flags.NOFAIL and gfp & gfp_flags.DIRECT_RECLAIM:
        pfn = get_page_from_freelist(machine, request, ALLOC_MIN_RESERVE)
    return pfn


def wake_all_kswapds(machine, request: Request, alloc_flags: int) -> None:
    """Wake kswapd once for each run of zones of one node."""
    if not alloc_flags & ALLOC_KSWAPD:
        return
    last = None
    for zone in request.zones:
        if zone.managed and zone.node != last:
            wakeup_kswapd(machine, zone, request.order, request.hidx)
            last = zone.node


# bulk and exact forms


def alloc_pages_bulk(machine, gfp: int, nr: int, cpu: int, nid: int, task: int) -> list[int] | int:
    """Up to nr single pages from one zone's per-CPU list, else one page the ordinary way; or -EINVAL."""
    if nr < 0 or bad_request(machine, gfp, 0, cpu, nid):
        return EINVAL
    if nr == 0:
        return []
    request = prepare(machine, gfp, 0, cpu, machine.cpu_node[cpu] if nid == -1 else nid)
    zone = None
    if nr > 1 and not gfp & gfp_flags.ACCOUNT:
        zone = bulk_zone(machine, request, nr)
    pages = []
    while zone is not None and len(pages) < nr:
        pfn = pcp.pcp_take(zone, cpu, 0, request.mt, LOW, halve=False)
        if pfn is None:
            break
        machine.prep_new_page(pfn, 0, gfp, pfmemalloc=False)
        pages.append(pfn)
    if pages:
        count_allocation(machine, request, zone, len(pages), len(pages))
        return pages
    pfn = alloc_pages(machine, gfp, 0, cpu, nid, task)
    return [pfn] if pfn >= 0 else []


def bulk_zone(machine, request: Request, nr: int):
    """First zone of the preferred node that stays above its low mark when nr pages are gone."""
    for zone in request.zones:
        if machine.nr_nodes > 1 and zone.node != request.zones[0].node:
            return None
        mark = zone.wmark[LOW] + zone.boost + nr
        if zone_watermark_fast(zone, 0, mark, request.zones[0].zid, LOW):
            return zone
    return None


def alloc_pages_exact(machine, nr: int, gfp: int, cpu: int, nid: int, task: int) -> int:
    """nr single pages in a row: first page frame, -ENOMEM or -EINVAL. The rest of the block goes back."""
    if nr <= 0 or gfp & (gfp_flags.COMP | gfp_flags.HIGHMEM):
        return EINVAL
    order = (nr - 1).bit_length()
    pfn = alloc_pages(machine, gfp, order, cpu, nid, task)
    if pfn < 0:
        return pfn
    machine.split(pfn, order)
    zone = machine.page_zone(pfn)
    for surplus in range(pfn + nr, pfn + (1 << order)):
        machine.forget_page(surplus, 0)
        machine.events.count("pgfree")
        buddy.free_block(zone, cpu, surplus, 0, to_tail=True)
    return pfn


# freeing


def free_pages(machine, pfn: int, order: int, cpu: int) -> int:
    """Drop a reference of a block and free it if it was the last: 0 or the code of a refusal.

    A block that is not compound loses all but its first page even if a reference to that is left.
    """
    refused = machine.check_free(pfn, order, cpu)
    if refused:
        return refused
    page = machine.allocated.get(pfn)
    if page is not None and page.refcount > 1:
        page.refcount -= 1
        if not page.compound:
            page.order = 0
            for piece in reversed(range(order)):
                machine.clear_lru(pfn + (1 << piece), 1 << piece)
                free_unref_page(machine, pfn + (1 << piece), piece, cpu)
        return 0
    machine.forget_page(pfn, order)
    free_unref_page(machine, pfn, order, cpu)
    return 0


def free_unref_page(machine, pfn: int, order: int, cpu: int) -> None:
    """Free a block that no one refers to."""
    zone = machine.page_zone(pfn)
    if pcp_allowed_order(order):
        pcp.pcp_free(zone, cpu, pfn, order)
    else:
        machine.events.count("pgfree", 1 << order)
        buddy.free_block(zone, cpu, pfn, order)


def split_page(machine, pfn: int, order: int) -> int:
    """Turn a block into single pages, each with its own reference: 0 or the code of a refusal."""
    refused = machine.check_free(pfn, order, 0)
    if refused not in (0, E_BAD_PAGE):
        return refused
    if machine.allocated[pfn].compound:
        return E_BAD_PAGE
    machine.split(pfn, order)
    return 0
