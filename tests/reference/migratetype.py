"""Keeping types apart: fallback, claimed and stolen blocks, the watermark boost, the highatomic reserve.

Models: __rmqueue, __rmqueue_claim, try_to_claim_block, __rmqueue_steal, boost_watermark,
move_freepages_block, reserve_highatomic_pageblock, unreserve_highatomic_pageblock (mm/page_alloc.c,
v6.12.117). Simplifies: movable pages are those marked as on the LRU. Omits: CMA, isolation.
"""

from . import buddy
from .constants import (
    ALLOC_KSWAPD,
    ALLOC_NOFRAGMENT,
    BOOSTED_WATERMARK,
    FALLBACKS,
    HIGH,
    HIGHATOMIC,
    MAX_PAGE_ORDER,
    MOVABLE,
    PAGEBLOCK_ORDER,
    PAGEBLOCK_PAGES,
    PCP_TYPES,
)
from .stat import account_freepages

NORMAL, CLAIM, STEAL = range(3)  # where a refill looks first for its next block


def rmqueue_any(zone, cpu: int, order: int, mt: int, alloc_flags: int, mode: list) -> int | None:
    """One block for a request of type `mt`. `mode` is [NORMAL] when a refill starts and is kept during it."""
    pfn = None
    if mode[0] == NORMAL:
        pfn = buddy.rmqueue_smallest(zone, cpu, order, mt)
    if pfn is None and mode[0] <= CLAIM:
        pfn = claim(zone, cpu, order, mt, alloc_flags)
        if pfn is not None:
            mode[0] = NORMAL
    if pfn is None and not alloc_flags & ALLOC_NOFRAGMENT:
        pfn = steal(zone, cpu, order, mt)
        if pfn is not None:
            mode[0] = STEAL
    if pfn is not None:
        zone.machine.trace("rmqueue", pfn, order, mt)
    return pfn


def first_fallback(zone, order: int, mt: int) -> int | None:
    """First other type, in the order of preference, with a free block of exactly this order."""
    return next((f for f in FALLBACKS[mt] if zone.free[order][f]), None)


def may_claim(zone, order: int, mt: int) -> bool:
    """Whether a request of this type may take over the pageblock of a free block of `order`."""
    return order >= PAGEBLOCK_ORDER // 2 or mt != MOVABLE or zone.machine.mobility_disabled


def claim(zone, cpu: int, order: int, mt: int, alloc_flags: int) -> int | None:
    """Take over a foreign pageblock, the largest free block first; a block of it, or None."""
    lowest = max(order, PAGEBLOCK_ORDER) if alloc_flags & ALLOC_NOFRAGMENT else order
    for from_order in range(MAX_PAGE_ORDER, lowest - 1, -1):
        foreign = first_fallback(zone, from_order, mt)
        if foreign is None:
            continue
        if not may_claim(zone, from_order, mt):
            return None
        if from_order >= PAGEBLOCK_ORDER:
            pfn = claim_whole(zone, cpu, order, mt, from_order, foreign)
        else:
            pfn = claim_part(zone, cpu, order, mt, from_order, foreign, alloc_flags)
        if pfn is not None:
            zone.claims += 1
            zone.machine.trace("extfrag", pfn, order, mt, from_order, foreign, 1)
            return pfn
    return None


def claim_whole(zone, cpu: int, order: int, mt: int, from_order: int, foreign: int) -> int:
    """A free block that covers its pageblocks changes type as it is."""
    pfn = zone.first_block(from_order, foreign)
    zone.del_block(pfn, from_order, foreign)
    account_freepages(zone, cpu, -(1 << from_order), foreign)
    zone.machine.set_block_types(pfn, from_order, mt)
    buddy.expand(zone, pfn, order, from_order, mt)
    account_freepages(zone, cpu, (1 << from_order) - (1 << order), mt)
    return pfn


def claim_part(zone, cpu: int, order: int, mt: int, from_order: int, foreign: int, alloc_flags: int) -> int | None:
    """The pageblock of a smaller free block changes type if at least half of it is free or alike."""
    first = zone.first_block(from_order, foreign) & ~(PAGEBLOCK_PAGES - 1)
    if zone.machine.block_type(first) == HIGHATOMIC:
        return None
    if boost_watermark(zone) and alloc_flags & ALLOC_KSWAPD:
        zone.flags |= BOOSTED_WATERMARK
    if not zone.spans(first, first + PAGEBLOCK_PAGES - 1):
        return None
    free = sum(1 << o for _, o in buddy.free_pages_of_block(zone, first))
    movable = sum(pfn in zone.machine.lru for pfn in range(first, first + PAGEBLOCK_PAGES))
    if mt == MOVABLE:
        alike = movable
    else:
        alike = PAGEBLOCK_PAGES - free - movable if foreign == MOVABLE else 0
    if free + alike < PAGEBLOCK_PAGES // 2 and not zone.machine.mobility_disabled:
        return None
    move_freepages_block(zone, cpu, first, foreign, mt)
    return buddy.rmqueue_smallest(zone, cpu, order, mt)


def steal(zone, cpu: int, order: int, mt: int) -> int | None:
    """The smallest sufficient foreign block; its pageblock keeps its type."""
    for from_order in range(order, MAX_PAGE_ORDER + 1):
        foreign = first_fallback(zone, from_order, mt)
        if foreign is not None:
            pfn = buddy.take_block(zone, cpu, order, from_order, foreign)
            zone.steals += 1
            zone.machine.trace("extfrag", pfn, order, mt, from_order, foreign, 0)
            return pfn
    return None


def boost_watermark(zone) -> bool:
    """Raise the zone's watermarks by a pageblock; whether they can be raised at all."""
    factor = zone.machine.sysctl["vm.watermark_boost_factor"]
    if factor == 0 or zone.managed < 4 * PAGEBLOCK_PAGES:
        return False
    high = zone.wmark[HIGH]
    limit = high // 10000 * factor + high % 10000 * factor // 10000
    if limit == 0:
        return False
    zone.boost = min(zone.boost + PAGEBLOCK_PAGES, max(PAGEBLOCK_PAGES, limit))
    return True


def move_freepages_block(zone, cpu: int, first: int, old: int, new: int) -> int:
    """Retype a pageblock and move its free blocks to the tails of the lists of type `new`; pages moved."""
    moved = 0
    for pfn, order in list(buddy.free_pages_of_block(zone, first)):
        zone.del_block(pfn, order, old)
        zone.add_block(pfn, order, new, tail=True)
        account_freepages(zone, cpu, -(1 << order), old)
        account_freepages(zone, cpu, 1 << order, new)
        moved += 1 << order
    zone.machine.set_block_types(first, PAGEBLOCK_ORDER, new)
    return moved


def highatomic_limit(managed: int) -> int:
    """Pages the reserve may grow to before it takes no further block; 0 if the zone is too small for one."""
    hundredth = managed // 100
    if hundredth < PAGEBLOCK_PAGES:
        return 0
    return -(-hundredth // PAGEBLOCK_PAGES) * PAGEBLOCK_PAGES


def reserve_highatomic_pageblock(zone, cpu: int, pfn: int, order: int) -> None:
    """Keep the pageblock of a page just taken by an atomic request for such requests."""
    if zone.nr_reserved_highatomic >= highatomic_limit(zone.managed):
        return
    mt = zone.machine.block_type(pfn)
    if mt >= PCP_TYPES:
        return
    if order < PAGEBLOCK_ORDER:
        first = pfn & ~(PAGEBLOCK_PAGES - 1)
        if zone.spans(first, first + PAGEBLOCK_PAGES - 1):
            move_freepages_block(zone, cpu, first, mt, HIGHATOMIC)
            zone.nr_reserved_highatomic += PAGEBLOCK_PAGES
    else:
        zone.machine.set_block_types(pfn, order, HIGHATOMIC)
        zone.nr_reserved_highatomic += 1 << order


def unreserve_highatomic_pageblock(zones, cpu: int, mt: int, *, force: bool) -> int:
    """Give the first reserved free block of these zones back to type `mt`; pages moved."""
    for zone in zones:
        if not force and zone.nr_reserved_highatomic <= PAGEBLOCK_PAGES:
            continue
        for order in range(MAX_PAGE_ORDER + 1):
            pfn = zone.first_block(order, HIGHATOMIC)
            if pfn is None:
                continue
            size = max(PAGEBLOCK_PAGES, 1 << order)
            zone.nr_reserved_highatomic -= min(size, zone.nr_reserved_highatomic)
            if order < PAGEBLOCK_ORDER:
                return move_freepages_block(zone, cpu, pfn & ~(PAGEBLOCK_PAGES - 1), HIGHATOMIC, mt)
            zone.del_block(pfn, order, HIGHATOMIC)
            zone.add_block(pfn, order, mt, tail=True)
            account_freepages(zone, cpu, -(1 << order), HIGHATOMIC)
            account_freepages(zone, cpu, 1 << order, mt)
            zone.machine.set_block_types(pfn, order, mt)
            return 1 << order
    return 0
