"""Per-CPU page lists: refills, the limit that each free meets, drains, and the decay of a tick.

Models: nr_pcp_alloc, nr_pcp_high, nr_pcp_free, free_unref_page_commit, free_pcppages_bulk, decay_pcp_high,
drain_all_pages (mm/page_alloc.c) and the tick of mm/vmstat.c, v6.12; for 6.1 the fixed `high` and
free_factor. Simplifies: 6.1 drains its lists in 6.12's order. Omits: contention for the list's lock.
"""

from . import buddy
from .constants import (
    BELOW_HIGH,
    FREE_HIGH_BATCH,
    HIGH,
    ISOLATE,
    MOVABLE,
    NR_PCP_LISTS,
    PAGE_ALLOC_COSTLY_ORDER,
    PCP_BATCH_SCALE_MAX,
    PCP_TYPES,
    PREV_FREE_HIGH_ORDER,
    RECLAIM_ACTIVE,
    ZONE_MOVABLE,
    clamp,
    pindex,
    pindex_order,
)
from .migratetype import NORMAL, rmqueue_any
from .stat import fold
from .watermark import zone_watermark_ok

# taking


def refill_size(zone, pcp, order: int) -> int:
    """How many blocks a refill takes; tunes `high` and the doubling on the way."""
    if zone.machine.kernel == "6.1":
        return max(pcp.batch >> order, 2) if pcp.batch > 1 else pcp.batch
    batch = pcp.batch
    high = pcp.high = clamp(pcp.high, pcp.high_min, pcp.high_max)
    if high < batch:
        return 1
    want = batch if order else batch << pcp.alloc_factor
    if pcp.high_min != pcp.high_max and not zone.flags & BELOW_HIGH:
        high = pcp.high = min(high + want, pcp.high_max)
    if order == 0:
        limit = max(high - pcp.count - batch, batch)
        if want <= limit and pcp.alloc_factor < PCP_BATCH_SCALE_MAX:
            pcp.alloc_factor += 1
        want = min(want, limit)
    return max(want >> order, 2) if want > 1 else want


def pcp_take(zone, cpu: int, order: int, mt: int, alloc_flags: int, *, halve: bool = True) -> int | None:
    """Head of the list for (order, mt), refilled if it is empty. Bulk allocation leaves free_count alone."""
    pcp = zone.pcp[cpu]
    if halve:
        pcp.free_count >>= 1
        pcp.free_factor >>= 1
    blocks = pcp.lists[pindex(order, mt)]
    if not blocks:
        mode = [NORMAL]
        for _ in range(refill_size(zone, pcp, order)):
            pfn = rmqueue_any(zone, cpu, order, mt, alloc_flags, mode)
            if pfn is None:
                break
            blocks[pfn] = None
            zone.machine.pcp_head[pfn] = order
            pcp.count += 1 << order
        if not blocks:
            return None
    pfn, _ = blocks.popitem(last=False)
    del zone.machine.pcp_head[pfn]
    pcp.count -= 1 << order
    return pfn


# giving back


def pcp_free(zone, cpu: int, pfn: int, order: int) -> None:
    """Put a freed block at the head of its list and drain what exceeds the limit."""
    pcp = zone.pcp[cpu]
    mt = zone.machine.block_type(pfn)
    zone.machine.events.count("pgfree", 1 << order)
    if mt == ISOLATE:
        buddy.free_block(zone, cpu, pfn, order)
        return
    index = pindex(order, mt if mt < PCP_TYPES else MOVABLE)
    pcp.alloc_factor >>= 1
    pcp.lists[index][pfn] = None
    pcp.lists[index].move_to_end(pfn, last=False)
    zone.machine.pcp_head[pfn] = order
    pcp.count += 1 << order
    if zone.machine.kernel == "6.1":
        limit, nr_drain = limit_of_free_61(zone, pcp, order)
    else:
        limit, nr_drain = limit_of_free(zone, pcp, order)
    if pcp.count >= limit:
        drain(zone, cpu, cpu, nr_drain(), index)
        mark = zone.wmark[HIGH] + zone.boost
        if zone.flags & BELOW_HIGH and zone_watermark_ok(zone, 0, mark, ZONE_MOVABLE, 0):
            zone.flags &= ~BELOW_HIGH


def limit_of_free(zone, pcp, order: int):
    """The count from which this free drains, and a function that says how many pages."""
    batch, most = pcp.batch, pcp.batch << PCP_BATCH_SCALE_MAX
    free_high = False
    if 0 < order <= PAGE_ALLOC_COSTLY_ORDER:
        room = not pcp.flags & FREE_HIGH_BATCH or pcp.count >= batch
        free_high = bool(pcp.free_count >= batch and pcp.flags & PREV_FREE_HIGH_ORDER and room)
        pcp.flags |= PREV_FREE_HIGH_ORDER
    else:
        pcp.flags &= ~PREV_FREE_HIGH_ORDER
    if pcp.free_count < most:
        pcp.free_count += 1 << order
    limit = tuned_limit(zone, pcp, free_high)

    def nr_drain() -> int:
        if free_high:
            return min(pcp.count, most)
        return 1 if limit < batch else clamp(pcp.free_count, batch, limit - batch)

    return limit, nr_drain


def tuned_limit(zone, pcp, free_high: bool) -> int:
    """Limit for the pages on a CPU's lists; lets `high` grow or shrink."""
    batch = pcp.batch
    high = pcp.high = clamp(pcp.high, pcp.high_min, pcp.high_max)
    lowered = max(high - max(pcp.free_count, batch), pcp.high_min)
    if high == 0:
        return 0
    if free_high:
        pcp.high = max(high - (batch << PCP_BATCH_SCALE_MAX), pcp.high_min)
        return 0
    if zone.flags & RECLAIM_ACTIVE:
        pcp.high = lowered
        return min(4 * batch, lowered)
    if pcp.high_min == pcp.high_max:
        return high
    if zone.flags & BELOW_HIGH:
        pcp.high = lowered
        return max(pcp.count, pcp.high_min)
    if pcp.count >= high and high < pcp.free_count + batch:
        pcp.high = clamp(pcp.free_count + batch, pcp.high_min, pcp.high_max)
    return high


def limit_of_free_61(zone, pcp, order: int):
    """The same by the rules of 6.1: a fixed `high`, and drains that double."""
    free_high = bool(pcp.free_factor and 0 < order <= PAGE_ALLOC_COSTLY_ORDER)
    limit = 0 if free_high else pcp.high
    if zone.flags & RECLAIM_ACTIVE:
        limit = min(4 * pcp.batch, limit)

    def nr_drain() -> int:
        if free_high:
            return pcp.count
        if limit < pcp.batch:
            return 1
        want = pcp.batch << pcp.free_factor
        if want < limit - pcp.batch and pcp.free_factor < 24:
            pcp.free_factor += 1
        return clamp(want, pcp.batch, limit - pcp.batch)

    return limit, nr_drain


def drain(zone, running_cpu: int, cpu: int, nr_pages: int, index: int) -> None:
    """Give nr_pages of a CPU's lists back, oldest first: list `index` until it is empty, then the next.

    Blocks are whole: a few pages more may go. The difference of NR_FREE_PAGES is the running CPU's.
    """
    pcp = zone.pcp[cpu]
    left = min(nr_pages, pcp.count)
    while left > 0:
        while not pcp.lists[index]:
            index = (index + 1) % NR_PCP_LISTS
        order = pindex_order(index)
        pfn, _ = pcp.lists[index].popitem()
        del zone.machine.pcp_head[pfn]
        left -= 1 << order
        pcp.count -= 1 << order
        mt = zone.machine.block_type(pfn)
        buddy.free_one_page(zone, running_cpu, pfn, order, mt)
        zone.machine.trace("pcp_drain", pfn, order, mt)


def drain_all_pages(machine, running_cpu: int) -> None:
    """Empty the lists of every CPU, done by one of them."""
    for cpu in range(machine.nr_cpus):
        for zone in machine.populated_zones():
            pcp = zone.pcp[cpu]
            while pcp.count:
                drain(zone, running_cpu, cpu, min(pcp.count, pcp.batch << PCP_BATCH_SCALE_MAX), 0)


def decay_pcp_high(zone, cpu: int) -> None:
    """Lower `high` towards high_min and give back what stands above it, a batch at a time."""
    pcp = zone.pcp[cpu]
    if pcp.high > pcp.high_min:
        most = pcp.batch << PCP_BATCH_SCALE_MAX
        pcp.high = max(pcp.count - most, pcp.high - (pcp.high >> 3), pcp.high_min)
    for left in range(pcp.count - pcp.high, 0, -pcp.batch):
        drain(zone, cpu, cpu, min(left, pcp.batch), 0)


def vmstat_tick(machine, cpu: int) -> None:
    """The vmstat worker of one CPU: per zone the fold, then the decay, then idle lists of remote nodes."""
    for zone in machine.populated_zones():
        pcp = zone.pcp[cpu]
        if fold(zone, cpu) and machine.numa:
            pcp.expire = 3
        if machine.kernel != "6.1":
            decay_pcp_high(zone, cpu)
        if pcp.expire == 0 or pcp.count == 0:
            continue
        if zone.node == machine.cpu_node[cpu]:
            pcp.expire = 0
            continue
        pcp.expire -= 1
        if pcp.expire == 0:
            drain(zone, cpu, cpu, min(pcp.count, pcp.batch), 0)
