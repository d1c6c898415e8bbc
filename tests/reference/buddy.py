"""Buddy allocator: freeing with merges, splitting, and where on its list a block goes.

Models: __free_one_page, buddy_merge_likely, split_large_buddy, expand, __rmqueue_smallest (mm/page_alloc.c,
v6.12) and the freeing of boot memory (mm/memblock.c). Simplifies: nothing known. Omits: capture by
compaction, page reporting, guard pages.
"""

from .constants import MAX_PAGE_ORDER, PAGEBLOCK_ORDER, PAGEBLOCK_PAGES, PCP_TYPES
from .stat import account_freepages


def free_one_page(zone, cpu: int, pfn: int, order: int, mt: int, *, to_tail: bool = False) -> None:
    """Give a block to the lists of type `mt`, merged with its buddies as far as they are free."""
    machine = zone.machine
    account_freepages(zone, cpu, 1 << order, mt)
    while order < MAX_PAGE_ORDER:
        buddy = pfn ^ 1 << order
        if not zone.is_free_block(buddy, order):
            break
        buddy_mt = mt
        if order >= PAGEBLOCK_ORDER:
            buddy_mt = machine.block_type(buddy)
            if buddy_mt != mt and (mt >= PCP_TYPES or buddy_mt >= PCP_TYPES):
                break
        zone.del_block(buddy, order, buddy_mt)
        if buddy_mt != mt:
            machine.set_block_types(buddy, order, mt)
        pfn &= ~(1 << order)
        order += 1
    zone.add_block(pfn, order, mt, tail=to_tail or merge_is_likely(zone, pfn, order))


def merge_is_likely(zone, pfn: int, order: int) -> bool:
    """Whether the block would merge twice, were its own buddy free: it goes to the tail, to be left alone.

    At an odd border the parent block begins in another zone; its neighbour is then looked for there.
    """
    if order >= MAX_PAGE_ORDER - 1:
        return False
    parent = pfn & ~(1 << order)
    return zone.machine.page_zone(parent).is_free_block(parent ^ 2 << order, order + 1)


def free_block(zone, cpu: int, pfn: int, order: int, *, to_tail: bool = False) -> None:
    """Free a block with the types of its pageblocks; one of order 10 in two halves, since they may differ."""
    step = min(order, PAGEBLOCK_ORDER)
    for piece in range(pfn, pfn + (1 << order), 1 << step):
        free_one_page(zone, cpu, piece, step, zone.machine.block_type(piece), to_tail=to_tail)


def expand(zone, pfn: int, low: int, high: int, mt: int) -> None:
    """Hand the upper halves of a block of order `high` to the lists' heads until order `low` is left."""
    while high > low:
        high -= 1
        zone.add_block(pfn + (1 << high), high, mt, tail=False)


def take_block(zone, cpu: int, order: int, from_order: int, mt: int) -> int:
    """First block of list (from_order, mt), cut down to `order`."""
    pfn = zone.first_block(from_order, mt)
    zone.del_block(pfn, from_order, mt)
    expand(zone, pfn, order, from_order, mt)
    account_freepages(zone, cpu, -(1 << order), mt)
    return pfn


def rmqueue_smallest(zone, cpu: int, order: int, mt: int) -> int | None:
    """Block from the smallest sufficient order that has one of type `mt`."""
    for from_order in range(order, MAX_PAGE_ORDER + 1):
        if zone.free[from_order][mt]:
            return take_block(zone, cpu, order, from_order, mt)
    return None


def boot_chunks(start: int, end: int):
    """(pfn, order) of the largest aligned chunks of [start, end), ascending."""
    while start < end:
        order = min(MAX_PAGE_ORDER, (start & -start).bit_length() - 1) if start else MAX_PAGE_ORDER
        while start + (1 << order) > end:
            order -= 1
        yield start, order
        start += 1 << order


def free_boot_range(zone, start: int, end: int) -> None:
    """Hand [start, end) over from the boot allocator. No CPU keeps a difference of it."""
    for pfn, order in boot_chunks(start, end):
        free_block(zone, 0, pfn, order, to_tail=True)
        zone.nr_free_pages, zone.diff[0] = zone.nr_free_pages + zone.diff[0], 0
        zone.machine.events.count("pgfree", 1 << order)
    zone.managed += end - start


def free_pages_of_block(zone, first: int):
    """(pfn, order) of the free blocks whose head lies in the pageblock that starts at `first`, ascending."""
    pfn = first
    while pfn < first + PAGEBLOCK_PAGES:
        order = zone.head_order.get(pfn)
        if order is None:
            pfn += 1
        else:
            yield pfn, order
            pfn += 1 << order
