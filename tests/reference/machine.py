"""TwinMachine: a machine with its pages, zones and CPUs, and every operation of the allocator as a method.

Models: what the operations of page_alloc.py need around them. Simplifies: pages in use are a dictionary.
Omits: everything that is not the page allocator.

Methods return what the core returns: a page frame number, 0, or a negative code (constants.py).
"""

from bisect import bisect_right
from dataclasses import dataclass

from . import buddy, kswapd, migratetype, page_alloc, pcp, watermark
from .constants import (
    E_BAD_PAGE,
    E_NOT_ALLOCATED,
    E_RESERVED,
    E_TAIL,
    E_WRONG_ORDER,
    EINVAL,
    ERANGE,
    LOWMEM_RESERVE_RATIO,
    MAX_PAGE_ORDER,
    MOVABLE,
    PAGEBLOCK_ORDER,
    UNMOVABLE,
    ZONE_NAMES,
)
from .gfp import COMP
from .kswapd import Kswapd
from .stat import Events
from .zone import Zone


@dataclass
class Page:
    """An allocated block, by its first page."""

    order: int
    compound: bool = False
    refcount: int = 1
    pfmemalloc: bool = False


class TwinMachine:
    """The slow, obvious page allocator."""

    def __init__(self, arch: str, kernel: str, cpu_node, nr_nodes: int, cache_slice_pages: int = 1024):
        self.arch, self.kernel = arch, kernel
        self.zone_names = ZONE_NAMES[arch]
        self.nr_zone_types = len(self.zone_names)
        self.cpu_node = list(cpu_node)
        self.nr_cpus, self.nr_nodes = len(self.cpu_node), nr_nodes
        self.numa = arch == "x86_64"
        self.cache_slice_pages = cache_slice_pages
        self.mobility_disabled = False
        self.thp = "never"
        self.user_min_free_kbytes = -1
        self.totalreserve_pages = 0
        self.sysctl = {
            "vm.min_free_kbytes": 0,
            "vm.watermark_scale_factor": 10,
            "vm.watermark_boost_factor": 15000,
            "vm.lowmem_reserve_ratio": LOWMEM_RESERVE_RATIO[arch],
            "vm.percpu_pagelist_high_fraction": 0,
        }
        self.max_pfn = 0
        self.zones: list[Zone] = []
        self.zonelists = []  # per node: (fallback, own node), zones
        self.present = []  # (first pfn, end pfn, zone), ascending
        self.present_ends = []  # their ends
        self.known = []  # (first pfn, end pfn) that the allocator was ever given, ascending; None: all pages
        self.block_types = {}  # pageblock index -> migratetype, where it is not UNMOVABLE
        self.allocated: dict[int, Page] = {}
        self.pcp_head: dict[int, int] = {}  # heads of blocks on per-CPU lists -> order
        self.lru: set[int] = set()  # pages that reclaim could move
        self.kswapd = [Kswapd() for _ in range(nr_nodes)]
        self.events = Events()
        self.tracing = False
        self.trace_rows: list[tuple] = []

    # building

    @classmethod
    def from_plan(cls, plan, *, kernel="6.12", thp="always", cache_slice_pages=1024) -> "TwinMachine":
        """Boot a machine from a Plan."""
        machine = cls(plan.arch, kernel, plan.cpu_node, len(plan.nodes), cache_slice_pages)
        machine.mobility_disabled = plan.mobility_disabled
        machine.max_pfn = plan.max_pfn
        for z in plan.zones:
            name = machine.zone_names[z.zid]
            machine.zones.append(Zone(machine, z.node, z.zid, name, z.start_pfn, z.spanned, z.present))
        lists = plan.zonelists
        machine.zonelists = [tuple([machine.zones[i] for i in part] for part in pair) for pair in lists]
        machine.set_present((start, end, machine.zones[i]) for i, start, end in plan.present_ranges)
        machine.known = sorted((start, end) for _, start, end in [*plan.free_ranges, *plan.late_ranges])
        for start, end, _ in machine.present:
            # a pageblock whose first page is no RAM keeps the type it had before anyone looked at it
            for block in range(-(-start >> PAGEBLOCK_ORDER), (end - 1 >> PAGEBLOCK_ORDER) + 1):
                machine.block_types[block] = MOVABLE
        for index, start, end in plan.free_ranges:
            buddy.free_boot_range(machine.zones[index], start, end)
        watermark.boot_watermarks(machine, thp)
        for index, start, end in plan.late_ranges:
            buddy.free_boot_range(machine.zones[index], start, end)
        return machine

    @classmethod
    def from_state(cls, state: dict, *, arch="x86_64", cpu_node=None) -> "TwinMachine":
        """A machine that stands where an AllocState says; pages not free count as in use by strangers."""
        from .alloc_state import load_state

        return load_state(cls, state, arch, cpu_node)

    def allocator_state(self) -> dict:
        """The state of the allocator as plain data, for comparison."""
        from .alloc_state import dump_state

        return dump_state(self)

    def counters(self) -> dict:
        """Event counters; NUMA counters and fallbacks by (node, zone index); kswapd's fields by node."""
        return {
            "events": {k: v for k, v in sorted(self.events.counts.items()) if v},
            "numa": {k: tuple(v) for k, v in sorted(self.events.numa.items())},
            "kswapd": [(k.wanted, k.running, k.order, k.highest_zoneidx or 0, k.wakeups) for k in self.kswapd],
            "fallbacks": {z.key: (z.claims, z.steals) for z in self.zones if z.claims or z.steals},
        }

    def set_present(self, ranges) -> None:
        """Say where memory is, (first pfn, end pfn, zone) each."""
        self.present = sorted(ranges, key=lambda row: row[:2])
        self.present_ends = [end for _, end, _ in self.present]

    # looking around

    def zid(self, name: str) -> int:
        """Index of a zone type."""
        return self.zone_names.index(name)

    def zone(self, node: int, zid: int) -> Zone:
        """A zone by node and type."""
        return self.zones[node * self.nr_zone_types + zid]

    def populated_zones(self) -> list[Zone]:
        """Zones with memory, node by node."""
        return [z for z in self.zones if z.present]

    def managed_zones(self, node: int) -> list[Zone]:
        """Zones of a node that the allocator has pages of."""
        return [z for z in self.zones if z.node == node and z.managed]

    def zonelist(self, node: int, *, this_node: bool) -> list[Zone]:
        """Zones in the order in which a request for `node` tries them."""
        return self.zonelists[node][1 if this_node else 0]

    def page_zone(self, pfn: int) -> Zone:
        """Zone of a page frame; a hole belongs to the zone of the memory behind it."""
        i = bisect_right(self.present_ends, pfn)
        return self.present[min(i, len(self.present) - 1)][2]

    def block_type(self, pfn: int) -> int:
        """Migratetype of the pageblock of a page."""
        return self.block_types.get(pfn >> PAGEBLOCK_ORDER, UNMOVABLE)

    def set_block_types(self, pfn: int, order: int, mt: int) -> None:
        """Retype the pageblocks that a block covers, or the one that holds it."""
        first = pfn >> PAGEBLOCK_ORDER
        for block in range(first, first + (1 << max(0, order - PAGEBLOCK_ORDER))):
            self.block_types[block] = mt

    def trace(self, event: str, *fields) -> None:
        """Note a tracepoint, if anyone looks."""
        if self.tracing:
            self.trace_rows.append((event, *fields))

    # pages in use

    def prep_new_page(self, pfn: int, order: int, gfp: int, *, pfmemalloc: bool) -> None:
        """Note a block as allocated."""
        self.allocated[pfn] = Page(order, compound=bool(order and gfp & COMP), pfmemalloc=pfmemalloc)

    def forget_page(self, pfn: int, order: int) -> None:
        """Note a block as no longer allocated."""
        self.allocated.pop(pfn, None)
        self.clear_lru(pfn, 1 << order)

    def clear_lru(self, pfn: int, nr: int) -> None:
        """Pages that are freed leave the LRU marks."""
        if self.lru:
            self.lru.difference_update(range(pfn, pfn + nr))

    def split(self, pfn: int, order: int) -> None:
        """Every page of an allocated block becomes a block of its own."""
        self.allocated[pfn].order = 0
        for page in range(pfn + 1, pfn + (1 << order)):
            self.allocated[page] = Page(0)

    def is_covered(self, pfn: int, order_of_head) -> bool:
        """Whether pfn lies in a block; order_of_head(pfn): order of the block starting there, or None."""
        for order in range(MAX_PAGE_ORDER + 1):
            head = pfn & ~((1 << order) - 1)
            found = order_of_head(head)
            if found is not None and pfn < head + (1 << found):
                return True
        return False

    def check_free(self, pfn: int, order: int, cpu: int) -> int:
        """0 if the block may be freed so, else the code that says why not."""
        if not 0 <= order <= MAX_PAGE_ORDER or not 0 <= cpu < self.nr_cpus:
            return EINVAL
        if not 0 <= pfn < self.max_pfn:
            return ERANGE
        page = self.allocated.get(pfn)
        if page is not None:
            if page.order != order:
                return E_WRONG_ORDER
            return E_BAD_PAGE if page.refcount == 1 and pfn in self.lru else 0
        if self.known is not None and not any(start <= pfn < end for start, end in self.known):
            return E_RESERVED
        if any(self.is_covered(pfn, heads.get) for heads in (self.pcp_head, *(z.head_order for z in self.zones))):
            return E_NOT_ALLOCATED
        if self.is_covered(pfn, lambda head: self.allocated[head].order if head in self.allocated else None):
            return E_TAIL
        # from here on the page was in use before the machine was described
        return 0 if self.known is None else E_NOT_ALLOCATED

    def mark_lru(self, pfn: int, nr: int, on: bool) -> None:
        """Say that pages are on the LRU (reclaim could move them), or no longer."""
        if on:
            self.lru.update(range(pfn, pfn + nr))
        else:
            self.lru.difference_update(range(pfn, pfn + nr))

    # operations

    def alloc_pages(self, gfp: int, order: int = 0, cpu: int = 0, nid: int = -1, task: int = 0) -> int:
        """First page frame of 2**order pages, -ENOMEM or -EINVAL. nid -1: the node of the CPU."""
        return page_alloc.alloc_pages(self, gfp, order, cpu, nid, task)

    def free_pages(self, pfn: int, order: int = 0, cpu: int = 0) -> int:
        """0 or a negative code."""
        return page_alloc.free_pages(self, pfn, order, cpu)

    def alloc_pages_many(self, n: int, gfp: int, order=0, cpu=0, nid=-1, task=0) -> list[int]:
        """Up to n blocks, until the first failure."""
        pages = []
        while len(pages) < n and (pfn := self.alloc_pages(gfp, order, cpu, nid, task)) >= 0:
            pages.append(pfn)
        return pages

    def free_pages_many(self, pfns, order: int = 0, cpu: int = 0) -> int:
        """Free blocks in order, until the first refusal: 0 or its code."""
        for pfn in pfns:
            code = self.free_pages(pfn, order, cpu)
            if code:
                return code
        return 0

    def alloc_pages_bulk(self, n: int, gfp: int, cpu=0, nid=-1, task=0) -> list[int] | int:
        """Up to n single pages at once, or -EINVAL."""
        return page_alloc.alloc_pages_bulk(self, gfp, n, cpu, nid, task)

    def alloc_pages_exact(self, nr: int, gfp: int, cpu: int = 0, nid: int = -1, task: int = 0) -> int:
        """Exactly nr single pages in a row: the first page frame or a negative code."""
        return page_alloc.alloc_pages_exact(self, nr, gfp, cpu, nid, task)

    def split_page(self, pfn: int, order: int) -> int:
        """0 or a negative code."""
        return page_alloc.split_page(self, pfn, order)

    def get_page(self, pfn: int) -> int:
        """Take a reference to an allocated block: 0 or a negative code."""
        if pfn not in self.allocated:
            return E_NOT_ALLOCATED
        self.allocated[pfn].refcount += 1
        return 0

    def tick(self, cpu: int = 0) -> None:
        """The vmstat worker of one CPU runs."""
        pcp.vmstat_tick(self, cpu)

    def drain_all_pages(self, cpu: int = 0) -> None:
        """`cpu` empties the per-CPU lists of all."""
        pcp.drain_all_pages(self, cpu)

    def kswapd_begin(self, nid: int = 0) -> None:
        """A balancing run of a node's kswapd starts."""
        kswapd.kswapd_begin(self, nid)

    def kswapd_end(self, nid: int = 0) -> None:
        """It ends."""
        kswapd.kswapd_end(self, nid)

    def unreserve_highatomic(self, gfp: int, cpu: int = 0, nid: int = -1, *, force: bool = False) -> int:
        """Give back one highatomic pageblock of the zones that a request could use; pages moved."""
        request = page_alloc.prepare(self, gfp, 0, cpu, self.cpu_node[cpu] if nid == -1 else nid)
        return migratetype.unreserve_highatomic_pageblock(request.zones, cpu, request.mt, force=force)

    def sysctl_write(self, name: str, value) -> int:
        """0, or -EINVAL with nothing changed."""
        return watermark.sysctl_write(self, name, value)

    def take_trace(self) -> list[tuple]:
        """Tracepoints since the last call, in order.

        ("rmqueue" | "pcp_drain", pfn, order, type)
        ("extfrag", pfn, order, type, order and type it came from, claimed)
        """
        rows, self.trace_rows = self.trace_rows, []
        return rows
