"""Read-only rows of a machine: zones, nodes, per-CPU lists, pages.

Models: what /proc/zoneinfo, pagetypeinfo and a crash session show of struct zone, pg_data_t, per_cpu_pages and struct page.
Simplifies: rows read the live arrays, so they change as the machine runs. Omits: counters that no room moves yet read zero.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from mmcore.alloc import page_free
from mmcore.base import vmstat_names
from mmcore.phys import boot
from mmpy.flags import MIGRATETYPE_NAMES, Pg

if TYPE_CHECKING:
    from mmpy.machine import Machine

SECTION_PAGES = 32768


class PcpView:
    """One zone's page lists on one CPU (struct per_cpu_pages); sizes in pages."""

    __slots__ = ("_machine", "_row", "_zi", "cpu")

    def __init__(self, machine: Machine, zi: int, cpu: int) -> None:
        self._machine, self._zi, self.cpu = machine, zi, cpu
        self._row = machine.state.pcps[zi * machine.nr_cpus + cpu]

    @property
    def count(self) -> int:
        """Pages on all lists."""
        return int(self._row["count"])

    @property
    def high(self) -> int:
        """Pages at which freeing starts to drain; tuned between high_min and high_max, and clamped only when the lists are used."""
        return int(self._row["high"])

    @property
    def high_min(self) -> int:
        return int(self._row["high_min"])

    @property
    def high_max(self) -> int:
        return int(self._row["high_max"])

    @property
    def batch(self) -> int:
        """Pages of the smallest refill or drain."""
        return int(self._row["batch"])

    @property
    def alloc_factor(self) -> int:
        """Refills of order 0 take batch << alloc_factor pages."""
        return int(self._row["alloc_factor"])

    @property
    def free_count(self) -> int:
        return int(self._row["free_count"])

    @property
    def expire(self) -> int:
        return int(self._row["expire"])

    @property
    def flags(self) -> int:
        return int(self._row["flags"])

    def pages(self, index: int) -> np.ndarray:
        """Page frames on list `index` (3 * order + migratetype; 12, 13: order 9), head first: array of uint32."""
        return boot.pcp_list(self._machine.state, self._zi, self.cpu, index)

    def __repr__(self) -> str:
        return (
            f"PcpView(cpu={self.cpu}, count={self.count}, high={self.high} in {self.high_min}..{self.high_max}, "
            f"batch={self.batch}, alloc_factor={self.alloc_factor})"
        )


class ZoneView:
    """One zone of one node (struct zone); sizes in pages, watermarks as in force (boost included)."""

    __slots__ = ("_machine", "_row", "index", "name", "node", "zid")

    def __init__(self, machine: Machine, index: int) -> None:
        self._machine, self.index = machine, index
        self._row = machine.state.zones[index]
        self.node, self.zid = int(self._row["node"]), int(self._row["zid"])
        self.name = machine.zone_names[self.zid]

    def _int(self, field: str) -> int:
        return int(self._row[field])

    @property
    def start_pfn(self) -> int:
        return self._int("start_pfn")

    @property
    def spanned(self) -> int:
        """Page frames from the first to the last, holes included."""
        return self._int("spanned")

    @property
    def present(self) -> int:
        return self._int("present")

    @property
    def managed(self) -> int:
        """Pages that the allocator was given."""
        return self._int("managed")

    @property
    def cma(self) -> int:
        return 0

    @property
    def populated(self) -> bool:
        return self.present > 0

    @property
    def boost(self) -> int:
        return self._int("watermark_boost")

    def _wmark(self, i: int) -> int:
        return int(self._row["wmark"][i]) + self.boost

    @property
    def min(self) -> int:
        return self._wmark(0)

    @property
    def low(self) -> int:
        return self._wmark(1)

    @property
    def high(self) -> int:
        return self._wmark(2)

    @property
    def promo(self) -> int:
        return self._wmark(3)

    @property
    def lowmem_reserve(self) -> tuple[int, ...]:
        """Protection against requests that could use each higher zone type."""
        return tuple(int(x) for x in self._row["lowmem_reserve"][: len(self._machine.zone_names)])

    @property
    def nr_free(self) -> tuple[int, ...]:
        """Free blocks by order, of all types."""
        return tuple(int(x) for x in self._row["nr_free"])

    @property
    def nr_free_pages(self) -> int:
        """NR_FREE_PAGES as watermark checks read it: without the CPUs' differentials."""
        return max(int(self._row["vm_stat"][0]), 0)

    @property
    def nr_reserved_highatomic(self) -> int:
        return self._int("nr_reserved_highatomic")

    @property
    def nr_free_highatomic(self) -> int:
        return self._int("nr_free_highatomic")

    @property
    def flags(self) -> int:
        """1: watermarks boosted, 2: kswapd balances, 4: below the high mark."""
        return self._int("flags")

    @property
    def stat_threshold(self) -> int:
        return self._int("stat_threshold")

    @property
    def nr_claims(self) -> int:
        """Fallbacks that took a pageblock over (the kernel keeps no count)."""
        return self._int("nr_claims")

    @property
    def nr_steals(self) -> int:
        """Fallbacks that took a single block of another type."""
        return self._int("nr_steals")

    @property
    def vm_stat(self) -> dict[str, int]:
        """Zone counters by their kernel names."""
        row = self._row["vm_stat"]
        index = {n: i for i, n in enumerate(vmstat_names.ZONE_STAT_ITEMS)}
        names = vmstat_names.zone_stat_names(self._machine.arch, self._machine.kernel)
        return {n: max(int(row[index[n]]), 0) for n in names}

    @property
    def numa(self) -> dict[str, int]:
        """NUMA counters by their kernel names (none on i386)."""
        names = vmstat_names.numa_stat_names(self._machine.arch, self._machine.kernel)
        return {n: int(x) for n, x in zip(names, self._row["numa_event"], strict=False)}

    @property
    def pcp(self) -> list[PcpView]:
        """The zone's page lists, one per CPU."""
        return [PcpView(self._machine, self.index, cpu) for cpu in range(self._machine.nr_cpus)]

    def free_blocks(self, order: int, migratetype: int) -> np.ndarray:
        """First page frames of the free blocks of one order and type, in list order: array of uint32."""
        return boot.free_list(self._machine.state, self.index, order, migratetype)

    def free_counts(self, order: int, migratetype: int) -> int:
        """How many free blocks there are of one order and type."""
        return len(self.free_blocks(order, migratetype))

    def pageblock_counts(self) -> tuple[int, ...]:
        """Pageblocks by migratetype, counted as /proc/pagetypeinfo does: in steps of 512 pages from start_pfn, blocks in sections that
        have no memory left out."""
        if not self.populated:
            return (0,) * 5
        state = self._machine.state
        pfns = np.arange(self.start_pfn, self.start_pfn + self.spanned, 512, dtype=np.int64)
        ranges = state.present[: int(state.globals["nr_present"][0])]
        starts, ends, zones = (ranges[f].astype(np.int64) for f in ("start", "end", "zone"))
        if self._machine.arch == "x86_64":  # sparse memory: sections of 128 MiB without memory have no struct pages
            online: set[int] = set()
            for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
                online.update(range(start // SECTION_PAGES, (end - 1) // SECTION_PAGES + 1))
            pfns = pfns[np.isin(pfns // SECTION_PAGES, np.fromiter(online, np.int64))]
        at = np.minimum(np.searchsorted(ends, pfns, side="right"), len(ends) - 1)
        elsewhere = (starts[at] <= pfns) & (pfns < ends[at]) & (zones[at] != self.index)
        types = state.pageblocks["mt"][pfns[~elsewhere] >> 9] ^ 1
        return tuple(np.bincount(types, minlength=5)[:5].tolist())

    def __repr__(self) -> str:
        return (
            f"ZoneView(node {self.node}, {self.name}: start_pfn={self.start_pfn:#x}, spanned={self.spanned}, present={self.present}, "
            f"managed={self.managed}, free={self.nr_free_pages}, min={self.min}, low={self.low}, high={self.high})"
        )

    def _repr_html_(self) -> str:
        rows = ("managed", "nr_free_pages", "min", "low", "high", "boost")
        cells = "".join(f"<tr><th>{r}</th><td>{getattr(self, r)}</td></tr>" for r in rows)
        orders = "".join(f"<td>{n}</td>" for n in self.nr_free)
        return (
            f"<table><caption>node {self.node}, zone {self.name}</caption>{cells}</table>"
            f"<table><tr><th>order</th>{''.join(f'<th>{o}</th>' for o in range(11))}</tr><tr><th>free</th>{orders}</tr></table>"
        )


class NodeView:
    """One NUMA node (pg_data_t)."""

    __slots__ = ("_machine", "_row", "nid")

    def __init__(self, machine: Machine, nid: int) -> None:
        self._machine, self.nid = machine, nid
        self._row = machine.state.nodes[nid]

    @property
    def start_pfn(self) -> int:
        return int(self._row["start_pfn"])

    @property
    def spanned(self) -> int:
        return int(self._row["spanned"])

    @property
    def present(self) -> int:
        return int(self._row["present"])

    @property
    def zones(self) -> list[ZoneView]:
        n = len(self._machine.zone_names)
        return self._machine.zones[self.nid * n : (self.nid + 1) * n]

    @property
    def cpus(self) -> list[int]:
        return np.flatnonzero(self._machine.state.cpu_node == self.nid).tolist()

    @property
    def distances(self) -> tuple[int, ...]:
        return tuple(int(x) for x in self._machine.state.distances[self.nid])

    @property
    def fallback(self) -> list[int]:
        """Nodes in the order in which an allocation here tries them."""
        types = len(self._machine.zone_names)
        seen: dict[int, None] = {}
        for entry in self._machine.state.zonelists[self.nid, 0].tolist():
            if entry:
                seen.setdefault((entry - 1) // types)
        return list(seen)

    @property
    def zonelist(self) -> list[ZoneView]:
        """Zones in the order in which an allocation here tries them (the highest one allowed by its mask comes first)."""
        return [self._machine.zones[z - 1] for z in self._machine.state.zonelists[self.nid, 0].tolist() if z]

    @property
    def vm_stat(self) -> dict[str, int]:
        """Node counters by their kernel names."""
        row = self._row["vm_stat"]
        index = {n: i for i, n in enumerate(vmstat_names.NODE_STAT_ITEMS)}
        names = vmstat_names.node_stat_names(self._machine.arch, self._machine.kernel)
        return {n: max(int(row[index[n]]), 0) for n in names}

    @property
    def totalreserve_pages(self) -> int:
        return int(self._row["totalreserve_pages"])

    @property
    def kswapd_wanted(self) -> bool:
        """Whether an allocation asked for kswapd (no one runs it by itself yet)."""
        return bool(self._row["kswapd_wanted"])

    @property
    def kswapd_running(self) -> bool:
        return bool(self._row["kswapd_running"])

    @property
    def kswapd_order(self) -> int:
        return int(self._row["kswapd_order"])

    @property
    def kswapd_failures(self) -> int:
        return int(self._row["kswapd_failures"])

    def __repr__(self) -> str:
        names = ", ".join(z.name for z in self.zones if z.populated)
        return f"NodeView({self.nid}: present={self.present}, zones {names or 'none'}, cpus {self.cpus}, fallback {self.fallback})"


class PageView:
    """What one page frame is now: a copy, taken when it was made."""

    __slots__ = ("flags", "head", "kind", "mapcount", "migratetype", "node", "order", "pfn", "refcount", "zone")

    def __init__(self, machine: Machine, pfn: int) -> None:
        state = machine.state
        self.pfn = int(pfn)
        self.kind, self.head, self.order = page_free.block_of(state, pfn)
        self.refcount = 1 + int(state.meta["extra_refs"][self.head]) if self.kind == "allocated" else 0
        self.mapcount = int(state.meta["mapcount"][pfn])
        self.flags = Pg(int(state.pages["flags"][self.head]) & 0x0FFFFFFF if self.kind != "reserved" else 0)
        zi = page_free.zone_index(state, pfn)
        self.zone = machine.zones[zi].name if zi >= 0 else None
        self.node = machine.zones[zi].node if zi >= 0 else None
        self.migratetype = MIGRATETYPE_NAMES[int(state.pageblocks["mt"][pfn >> 9]) ^ 1]

    def __repr__(self) -> str:
        where = f"node {self.node}, {self.zone}" if self.zone else "no zone"
        part = "" if self.kind == "reserved" else f", block {self.head:#x} of order {self.order}, refcount {self.refcount}, {self.flags!r}"
        return f"PageView({self.pfn:#x}: {self.kind}, {where}, pageblock {self.migratetype}{part})"


class VmstatView(Mapping[str, int]):
    """/proc/vmstat as a mapping: machine.vmstat["pgalloc_normal"]."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._names = vmstat_names.vmstat_names(machine.arch, machine.kernel)
        self._known = frozenset(self._names)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, name: str) -> int:
        if name not in self._known:
            raise KeyError(f"no counter {name!r} in /proc/vmstat of kernel {self._machine.kernel} on {self._machine.arch}")
        return self._value(name)

    def _value(self, name: str) -> int:
        state, m = self._machine.state, self._machine
        zones = state.zones
        if name in vmstat_names.ZONE_STAT_ITEMS:
            return max(int(zones["vm_stat"][:, vmstat_names.ZONE_STAT_ITEMS.index(name)].sum()), 0)
        if name in vmstat_names.NUMA_STAT_ITEMS:
            return int(zones["numa_event"][:, vmstat_names.NUMA_STAT_ITEMS.index(name)].sum())
        # 6.1 counts pgdemote_* as events, 6.12 by node
        if name in vmstat_names.node_stat_names(m.arch, m.kernel):
            total = max(int(state.nodes["vm_stat"][:, vmstat_names.NODE_STAT_ITEMS.index(name)].sum()), 0)
            return total // vmstat_names.HPAGE_PMD_NR if name in vmstat_names.THP_NODE_ITEMS else total
        if name == "nr_dirty_threshold":
            return m.dirty_limits[0]
        if name == "nr_dirty_background_threshold":
            return m.dirty_limits[1]
        if name == "nr_memmap_boot_pages":
            return m.nr_memmap_boot_pages
        if name == "pgfree":
            return int(state.globals["pgfree"][0])
        event, _, suffix = name.rpartition("_")
        field = {"pgalloc": "pgalloc", "allocstall": "allocstall", "pgskip": "pgskip"}.get(event)
        if field:
            zid = [{"HighMem": "high"}.get(z, z.lower()) for z in m.zone_names].index(suffix)
            return int(zones[field][zones["zid"] == zid].sum())
        if name in vmstat_names.EVENT_ITEMS:
            return int(state.vm_globals["events"][0][vmstat_names.EVENT_ITEMS.index(name)])
        return 0  # nr_memmap_pages: the memory map of hot-added memory

    def __repr__(self) -> str:
        moved = {n: v for n in self._names if (v := self._value(n))}
        return f"VmstatView({len(self._names)} counters, not zero: {moved})"


