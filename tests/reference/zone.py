"""One zone: its size, reserves, free lists in their order, and its page set on each CPU.

Models: struct zone, struct free_area, struct per_cpu_pages (include/linux/mmzone.h). Simplifies: lists are
ordered dictionaries; the head is the first key. Omits: everything reclaim and compaction keep in a zone.
"""

from collections import OrderedDict

from .constants import FREE_HIGH_BATCH, MIGRATE_TYPES, NR_PAGE_ORDERS, NR_PCP_LISTS


class PerCpuPages:
    """The lists of one zone on one CPU and what tunes them. Counts are in pages."""

    def __init__(self):
        self.count = 0
        self.high = self.high_min = self.high_max = 0
        self.batch = 1
        self.flags = 0
        self.alloc_factor = 0
        self.free_count = 0
        self.free_factor = 0  # kernel 6.1 only
        self.expire = 0
        self.lists = [OrderedDict() for _ in range(NR_PCP_LISTS)]  # pfn -> None, head first

    def set_sizes(self, batch: int, high_min: int, high_max: int, cache_slice_pages: int) -> None:
        """New sizes; `high` itself follows at the next refill or free."""
        self.batch, self.high_min, self.high_max = batch, high_min, high_max
        if cache_slice_pages > 3 * batch:
            self.flags |= FREE_HIGH_BATCH
        else:
            self.flags &= ~FREE_HIGH_BATCH


class Zone:
    """A zone of one node. Exists also when it is empty."""

    def __init__(self, machine, node: int, zid: int, name: str, start_pfn: int, spanned: int, present: int):
        self.machine = machine
        self.node, self.zid, self.name = node, zid, name
        self.start_pfn, self.spanned, self.present = start_pfn, spanned, present
        self.managed = 0
        self.wmark = [0, 0, 0, 0]
        self.boost = 0
        self.lowmem_reserve = [0] * machine.nr_zone_types
        self.nr_reserved_highatomic = 0
        self.nr_free_highatomic = 0
        self.flags = 0
        self.nr_free_pages = 0  # global value; the rest stands in diff
        self.diff = [0] * machine.nr_cpus
        self.stat_threshold = 0
        self.drift_mark = 0
        self.noted_boost = 0  # by kswapd, when its run began
        self.claims = self.steals = 0
        self.free = [[OrderedDict() for _ in range(MIGRATE_TYPES)] for _ in range(NR_PAGE_ORDERS)]
        self.head_order = {}  # head pfn of each free block -> its order
        self.pcp = [PerCpuPages() for _ in range(machine.nr_cpus)] if present else []

    @property
    def key(self) -> tuple:
        """(node, zone index)."""
        return self.node, self.zid

    @property
    def end_pfn(self) -> int:
        """First page frame behind the span."""
        return self.start_pfn + self.spanned

    def spans(self, first: int, last: int) -> bool:
        """Whether both page frames lie in the span, holes included."""
        return self.start_pfn <= first and last < self.end_pfn

    # free lists

    def add_block(self, pfn: int, order: int, mt: int, *, tail: bool) -> None:
        """Put a free block at the head or tail of its list."""
        blocks = self.free[order][mt]
        blocks[pfn] = None
        if not tail:
            blocks.move_to_end(pfn, last=False)
        self.head_order[pfn] = order

    def del_block(self, pfn: int, order: int, mt: int) -> None:
        """Take a free block off its list."""
        del self.free[order][mt][pfn]
        del self.head_order[pfn]

    def first_block(self, order: int, mt: int) -> int | None:
        """Head of a free list."""
        return next(iter(self.free[order][mt]), None)

    def is_free_block(self, pfn: int, order: int) -> bool:
        """Whether a free block of exactly this order starts at pfn in this zone."""
        return self.head_order.get(pfn) == order

    def nr_free(self, order: int) -> int:
        """Free blocks of an order, of all types."""
        return sum(map(len, self.free[order]))

    def __repr__(self):
        span = f"[{self.start_pfn:#x}, {self.end_pfn:#x})"
        return f"<Zone {self.node}:{self.name} {span} free {self.nr_free_pages}>"
