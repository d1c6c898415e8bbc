"""/proc/zoneinfo: reading and writing.

Models: zoneinfo_show_print() (mm/vmstat.c, v6.12; v6.1 prints no promo watermark and fewer counters).
Simplifies: the reader takes all layouts since 2.6.16 (counters before or after the protections, hot and cold
per-CPU lists, files without empty zones); the writer knows 6.12 and 6.1. Omits: CMA pages (always 0).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from mmcore.base.vmstat_names import (
    HPAGE_PMD_NR,
    THP_NODE_ITEMS,
    node_stat_names,
    numa_stat_names,
    zone_stat_names,
)
from mmpy.proc.lines import MAX_CPU, MAX_NODE, Lines
from mmpy.proc.protocol import NodeLike, ZoneinfoLike, ZoneLike

# kswapd gives a node up after so many fruitless runs (MAX_RECLAIM_RETRIES).
MAX_RECLAIM_RETRIES = 16

_REQUIRED = ("min", "low", "high", "spanned", "present")


@dataclass(slots=True)
class PcpInfo:
    """A zone's lists on one CPU as printed. high_min and high_max: kernels after 6.12 only, else None."""

    cpu: int
    count: int = 0
    high: int = 0
    batch: int = 0
    high_min: int | None = None
    high_max: int | None = None
    stat_threshold: int | None = None


@dataclass(slots=True)
class ZoneInfo:
    """One zone of a zoneinfo text.

    fields: what is printed with it under the kernel's short names ("min", "spanned", ...); vm_stat: counters
    (old kernels: node counters too), numa: those of NUMA; watermarks include the boost; trailer: lines behind
    the pagesets ("start_pfn", "node_unreclaimable", ...). What a kernel does not print reads as 0, except
    that `managed` then is `present`.
    """

    node: int
    name: str
    nr_free_pages: int
    fields: dict[str, int] = field(default_factory=dict)
    lowmem_reserve: tuple[int, ...] = ()
    vm_stat: dict[str, int] = field(default_factory=dict)
    numa: dict[str, int] = field(default_factory=dict)
    pcp: list[PcpInfo] = field(default_factory=list)
    trailer: dict[str, int] = field(default_factory=dict)

    @property
    def min(self) -> int:
        return self.fields["min"]

    @property
    def low(self) -> int:
        return self.fields["low"]

    @property
    def high(self) -> int:
        return self.fields["high"]

    @property
    def promo(self) -> int:
        return self.fields.get("promo", 0)

    @property
    def boost(self) -> int:
        return self.fields.get("boost", 0)

    @property
    def spanned(self) -> int:
        return self.fields["spanned"]

    @property
    def present(self) -> int:
        return self.fields["present"]

    @property
    def managed(self) -> int:
        return self.fields.get("managed", self.present)

    @property
    def cma(self) -> int:
        return self.fields.get("cma", 0)

    @property
    def start_pfn(self) -> int:
        return self.trailer.get("start_pfn", 0)

    @property
    def stat_threshold(self) -> int:
        return next((p.stat_threshold for p in self.pcp if p.stat_threshold is not None), 0)


@dataclass(slots=True)
class NodeInfo:
    """One node of a zoneinfo text.

    vm_stat: node counters in the kernel's own units (huge pages are printed as such and counted in base
    pages); empty for kernels that count by zone (before 4.8).
    """

    nid: int
    zones: list[ZoneInfo] = field(default_factory=list)
    vm_stat: dict[str, int] = field(default_factory=dict)

    @property
    def kswapd_failures(self) -> int:
        unreclaimable = any(z.trailer.get("node_unreclaimable") for z in self.zones)
        return MAX_RECLAIM_RETRIES if unreclaimable else 0


@dataclass(slots=True)
class ZoneinfoText:
    """A parsed /proc/zoneinfo; nodes and zones in the order of the text.

    arch and kernel name the layout: the nearest of those that the writer knows.
    """

    nodes: list[NodeInfo] = field(default_factory=list)

    @property
    def zones(self) -> list[ZoneInfo]:
        return [zone for node in self.nodes for zone in node.zones]

    @property
    def arch(self) -> str:
        """"x86_64", or "i386" for a text without NUMA counters or without zone DMA32."""
        names = {zone.name for zone in self.zones}
        has_numa = any(zone.numa for zone in self.zones)
        return "x86_64" if "DMA32" in names and has_numa else "i386"

    @property
    def kernel(self) -> str:
        """"6.12" for a text with promo watermarks, else "6.1"."""
        return "6.12" if any("promo" in zone.fields for zone in self.zones) else "6.1"


_HEADER = re.compile(r"Node\s+(\d+),\s*zone\s+(\S+)")
_PAGES_FREE = re.compile(r"pages free\s+(\S+)")
_PROTECTION = re.compile(r"protection:\s*\(([^()]*)\)")
# "scanned  0 (a: 0 i: 0)" of 2.6 has a tail that repeats older counters.
_NAMED = re.compile(r"([A-Za-z][A-Za-z0-9_]*)\s+(\d+)(?:\s+\([^()]*\))?")
_KEYED = re.compile(r"([A-Za-z][A-Za-z0-9_]*):\s*(\S+)")
_CPU = re.compile(r"cpu:\s*(\d+)(?:\s+pcp:\s*(\d+))?")
_THRESHOLD = re.compile(r"vm stats threshold:\s*(\S+)")


def parse_zoneinfo(text: str) -> ZoneinfoText:
    """Read a /proc/zoneinfo of any kernel since 2.6.16.

    Raises ProcFormatError, with line number, for text that is malformed or ends inside a zone.
    """
    lines = Lines("zoneinfo", text)
    if lines.line is None:
        lines.fail("'Node N, zone NAME'")
    nodes: dict[int, NodeInfo] = {}
    while lines.line is not None:
        nid, name = _header(lines)
        node = nodes.setdefault(nid, NodeInfo(nid))
        if any(zone.name == name for zone in node.zones):
            lines.fail(f"one zone {name} of node {nid}, not two")
        lines.advance()
        node.zones.append(_zone(lines, node, name))
    return ZoneinfoText(list(nodes.values()))


def _header(lines: Lines) -> tuple[int, str]:
    match = _HEADER.fullmatch(lines.line or "")
    if match is None:
        lines.fail("'Node N, zone NAME'")
    return lines.number_of(match[1], "the node", MAX_NODE), match[2]


def _zone(lines: Lines, node: NodeInfo, name: str) -> ZoneInfo:
    if lines.line == "per-node stats":
        lines.advance()
        if node.vm_stat:
            lines.fail(f"'per-node stats' once for node {node.nid}, not twice")
        while lines.line is not None:
            if match := _NAMED.fullmatch(lines.line):
                _count(lines, node.vm_stat, match)
            elif lines.line.isdecimal():
                # 4.15 to 4.19 print one counter (nr_indirectly_reclaimable) without its name.
                lines.advance()
            else:
                break
        for item in THP_NODE_ITEMS & node.vm_stat.keys():
            node.vm_stat[item] *= HPAGE_PMD_NR
    match = _PAGES_FREE.fullmatch(lines.line or "")
    if match is None:
        lines.fail("'pages free N'")
    zone = ZoneInfo(node.nid, name, lines.number_of(match[1], "pages free"))
    lines.advance()
    _fields(lines, zone)
    for key in _REQUIRED:
        if key not in zone.fields:
            lines.fail(f"'{key} N' of zone {name}")
    if not zone.lowmem_reserve:
        lines.fail(f"'protection: (N, ...)' of zone {name}")
    if lines.line == "pagesets":
        lines.advance()
        _pagesets(lines, zone)
    elif zone.present:
        lines.fail(f"a counter or 'pagesets' of zone {name}, which has memory")
    _trailer(lines, zone)
    if zone.present and "start_pfn" not in zone.trailer:
        lines.fail(f"'start_pfn: N' of zone {name}, which has memory")
    return zone


def _fields(lines: Lines, zone: ZoneInfo) -> None:
    """Short fields, counters and protections: recent kernels print them in this order, old ones mix the last."""
    while lines.line is not None:
        if match := _PROTECTION.fullmatch(lines.line):
            if zone.lowmem_reserve:
                lines.fail("one 'protection:' a zone, not two")
            zone.lowmem_reserve = tuple(
                lines.number_of(part.strip(), "a protection") for part in match[1].split(",")
            )
            lines.advance()
        elif match := _NAMED.fullmatch(lines.line):
            # Every counter has an underscore in its name; no field has one.
            if "_" not in match[1]:
                _count(lines, zone.fields, match)
            else:
                _count(lines, zone.numa if match[1].startswith("numa_") else zone.vm_stat, match)
        else:
            return


def _count(lines: Lines, into: dict[str, int], match: re.Match[str]) -> None:
    if match[1] in into:
        lines.fail(f"{match[1]} once, not twice")
    into[match[1]] = lines.number_of(match[2], match[1])
    lines.advance()


def _pagesets(lines: Lines, zone: ZoneInfo) -> None:
    keys = {"count", "high", "batch", "high_min", "high_max"}
    while lines.line is not None and (match := _CPU.fullmatch(lines.line)):
        cpu = lines.number_of(match[1], "the cpu", MAX_CPU)
        cold = bool(zone.pcp) and zone.pcp[-1].cpu == cpu and match[2] not in (None, "0")
        if not cold and zone.pcp and zone.pcp[-1].cpu >= cpu:
            lines.fail(f"a cpu above {zone.pcp[-1].cpu}")
        lines.advance()
        values: dict[str, int] = {}
        while lines.line is not None and (match := _KEYED.fullmatch(lines.line)) and match[1] in keys:
            _count(lines, values, match)
        for key in ("count", "high", "batch"):
            if key not in values:
                lines.fail(f"'{key}: N' of cpu {cpu}")
        if cold:
            # Lists of cold pages (before 2.6.25) hold pages too; their limits say nothing further.
            zone.pcp[-1].count += values["count"]
        else:
            zone.pcp.append(PcpInfo(cpu, **values))
        if lines.line is not None and (match := _THRESHOLD.fullmatch(lines.line)):
            zone.pcp[-1].stat_threshold = lines.number_of(match[1], "the threshold")
            lines.advance()
    if not zone.pcp:
        lines.fail("'cpu: N'")


def _trailer(lines: Lines, zone: ZoneInfo) -> None:
    while lines.line is not None and (match := _KEYED.fullmatch(lines.line)):
        _count(lines, zone.trailer, match)


def write_zoneinfo(machine: ZoneinfoLike) -> str:
    """The text of /proc/zoneinfo, byte for byte as the machine's kernel lays it out.

    `machine` may be a Machine or a ZoneinfoText that came from a kernel 6.12 or 6.1 (KeyError names a counter
    that it lacks).
    """
    return "".join(line for node in machine.nodes for line in _node_lines(machine, node))


def _node_lines(machine: ZoneinfoLike, node: NodeLike) -> Iterator[str]:
    stats_due = True
    for zone in node.zones:
        yield f"Node {node.nid}, zone {zone.name:>8}\n"
        if zone.present and stats_due:
            stats_due = False
            yield "  per-node stats\n"
            counters = node.vm_stat
            for name in node_stat_names(machine.arch, machine.kernel):
                value = counters[name]
                yield f"      {name:<12} {value // HPAGE_PMD_NR if name in THP_NODE_ITEMS else value}\n"
        yield from _zone_lines(machine, node, zone)


def _zone_lines(machine: ZoneinfoLike, node: NodeLike, zone: ZoneLike) -> Iterator[str]:
    yield f"  pages free     {zone.nr_free_pages}\n"
    marks = ["boost", "min", "low", "high"] + (["promo"] if machine.kernel == "6.12" else [])
    for name in [*marks, "spanned", "present", "managed", "cma"]:
        yield f"        {name:<8} {getattr(zone, name)}\n"
    yield f"        protection: ({', '.join(str(pages) for pages in zone.lowmem_reserve)})\n"
    if not zone.present:
        return
    for counters, names in ((zone.vm_stat, zone_stat_names), (zone.numa, numa_stat_names)):
        for name in names(machine.arch, machine.kernel):
            yield f"      {name:<12} {counters[name]}\n"
    yield "  pagesets\n"
    for pcp in zone.pcp:
        yield f"    cpu: {pcp.cpu}\n"
        for name in ("count", "high", "batch"):
            yield f"              {name + ':':<7}{getattr(pcp, name)}\n"
        yield f"  vm stats threshold: {zone.stat_threshold}\n"
    yield f"  node_unreclaimable:  {int(node.kswapd_failures >= MAX_RECLAIM_RETRIES)}\n"
    yield f"  start_pfn:           {zone.start_pfn}\n"
