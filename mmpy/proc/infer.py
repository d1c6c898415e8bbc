"""A machine from the /proc files of a real one: what they say, what follows from it, and what had to be assumed.

Models: nothing by itself; the parts are in infer_zones (zones, memory), infer_watermarks (sysctls) and infer_layout
(free blocks). Simplifies: the files of one dump are taken as one moment, though they were read one after another.
Omits: what no file of /proc tells (which pages are in use by whom, NUMA distances, where holes lie); assumptions
are listed as sentences.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mmcore.base.vmstat_names import ZONE_TYPES
from mmpy.proc.buddyinfo import parse_buddyinfo
from mmpy.proc.errors import ProcInferenceError
from mmpy.proc.infer_build import build_machine
from mmpy.proc.infer_free import free_state
from mmpy.proc.infer_watermarks import (
    DEFAULT_RATIOS,
    THP_PAGES_PER_ZONE,
    WmarkFit,
    WmarkZone,
    boost_without_line,
    fit_ratios,
    fit_watermarks,
    protected_ranges,
)
from mmpy.proc.infer_zones import (
    InferredZone,
    MemoryRange,
    choose_arch,
    choose_kernel,
    grow_present,
    map_zones,
    memory_ranges,
)
from mmpy.proc.meminfo import parse_meminfo
from mmpy.proc.pagetypeinfo import PageTypeInfo, parse_pagetypeinfo
from mmpy.proc.vmstat import parse_vmstat
from mmpy.proc.zoneinfo import ZoneinfoText, parse_zoneinfo

if TYPE_CHECKING:
    from mmpy.machine import Machine

PAGE_KIB = 4
# Machines with less memory do without transparent huge pages.
_THP_LEAST_PAGES = 131072
_KNOWN_BLOCK_ORDERS = (7, 8, 9, 10)
# percpu_pagelist_high_fraction below this is refused by the kernel.
_MIN_HIGH_FRACTION = 8
# A range of pages wider than this says nothing.
_WORTH_TELLING = 1024


@dataclass(slots=True)
class InferredMachine:
    """What Machine.from_proc needs. Page frames and sizes in pages of 4 KiB.

    nodes: number of nodes; node_cpus: CPUs of each node; memory: where each zone's memory lies; zones: all zone
    types of all nodes, node by node; sysctl: values by name that explain the dump; state: the allocator's
    state in the form that mmpy.allocstate describes; thp: "always" or "never", as far as min_free_kbytes tells;
    min_free_written: whether someone seems to have written min_free_kbytes; node_stat: node counters by node; vm_stat:
    /proc/vmstat's counters, if that text was given; inferred: sentences on everything inferred, assumed or left out.
    """

    arch: str
    kernel: str
    nodes: int
    node_cpus: tuple[tuple[int, ...], ...]
    memory: list[MemoryRange]
    zones: list[InferredZone]
    sysctl: dict[str, int | tuple[int, ...]]
    state: dict[str, Any]
    thp: str = "always"
    min_free_written: bool = False
    node_stat: list[dict[str, int]] = field(default_factory=list)
    vm_stat: dict[str, int] = field(default_factory=dict)
    inferred: list[str] = field(default_factory=list)

    @property
    def cpus(self) -> int:
        """Number of CPUs."""
        return sum(len(cpus) for cpus in self.node_cpus)

    def build(self, cls: type[Machine], *, paging: str | None = None, tlb: str = "off") -> Machine:
        """A machine of class `cls` (mmpy.Machine) in this state."""
        return build_machine(self, cls, paging=paging, tlb=tlb)


def infer_machine(
    zoneinfo: str,
    buddyinfo: str | None = None,
    pagetypeinfo: str | None = None,
    vmstat: str | None = None,
    meminfo: str | None = None,
) -> InferredMachine:
    """The machine that texts of /proc describe; only zoneinfo is necessary.

    Raises ProcFormatError for a text that cannot be read, and ProcInferenceError for one that describes no
    machine that can be simulated (another page size, contradictory numbers, no memory).
    """
    notes: list[str] = []
    text = parse_zoneinfo(zoneinfo)
    buddy = None if buddyinfo is None else parse_buddyinfo(buddyinfo)
    page_types = None if pagetypeinfo is None else parse_pagetypeinfo(pagetypeinfo)
    counters = {} if vmstat is None else parse_vmstat(vmstat)
    if not any(zone.present for zone in text.zones):
        raise ProcInferenceError("zoneinfo: no zone has any memory")
    _check_page_size(text, page_types, {} if meminfo is None else parse_meminfo(meminfo), notes)
    arch = choose_arch(text, notes)
    kernel = choose_kernel(text, arch, notes)
    zones = map_zones(text, arch, notes)
    if page_types:
        shift = page_types.page_block_order
        grow_present(zones, {key: sum(row.values()) << shift for key, row in page_types.blocks.items()}, notes)
    nodes = max(zone.node for zone in zones) + 1
    memory = memory_ranges(zones, arch, notes)
    node_cpus = _cpus(zones, nodes, notes)
    has_boost = any("boost" in zone.fields for zone in text.zones)
    sysctl, origin = _sysctls(zones, arch, has_boost=has_boost, notes=notes)
    # The kernels that print boosts, and only they, derive `high` from the low watermark or from this fraction.
    sysctl["vm.percpu_pagelist_high_fraction"] = _high_fraction(zones, node_cpus, kernel, notes) if has_boost else 0
    if not has_boost:
        notes.append("The per-CPU lists' high and batch follow an older rule: kept until a sysctl recomputes them.")
    small = sum(zone.managed for zone in zones) < _THP_LEAST_PAGES
    without_thp = origin == "default" and _below_thp(zones, sysctl)
    if not small and without_thp:
        notes.append("Transparent huge pages are taken to be off: they would have raised vm.min_free_kbytes.")
    state = free_state(zones, memory, arch, kernel, node_cpus, buddy, page_types, notes)
    return InferredMachine(
        arch,
        kernel,
        nodes,
        node_cpus,
        memory,
        zones,
        sysctl,
        state,
        thp="never" if small or without_thp else "always",
        min_free_written=origin == "written",
        node_stat=[dict(node.vm_stat) for node in sorted(text.nodes, key=lambda node: node.nid)],
        vm_stat=counters,
        inferred=notes,
    )


def _check_page_size(
    text: ZoneinfoText, page_types: PageTypeInfo | None, meminfo: dict[str, int], notes: list[str]
) -> None:
    """Refuse dumps of machines with pages other than 4 KiB, as far as they can be told."""
    if page_types and page_types.page_block_order not in _KNOWN_BLOCK_ORDERS:
        order = page_types.page_block_order
        raise ProcInferenceError(
            f"pagetypeinfo: page blocks of order {order} belong to pages larger than 4 KiB; only 4 KiB pages can be simulated"
        )
    managed, total = sum(zone.managed for zone in text.zones), meminfo.get("MemTotal", 0)
    if not managed or not total:
        return
    kib = total / managed
    if kib > 1.5 * PAGE_KIB:
        size = 1 << round(kib).bit_length() - 1
        raise ProcInferenceError(
            f"meminfo: {total} kB in {managed} managed pages: pages of about {size} KiB; only 4 KiB pages can be simulated"
        )
    if kib < 0.9 * PAGE_KIB and all("managed" in zone.fields for zone in text.zones):
        notes.append(
            f"MemTotal is {total} kB, the zones manage {managed * PAGE_KIB} kB (a container's view?): the zones are followed."
        )


def _cpus(zones: Sequence[InferredZone], nodes: int, notes: list[str]) -> tuple[tuple[int, ...], ...]:
    """CPUs by node. Their lists are renumbered from 0 on."""
    seen = sorted({pcp.cpu for zone in zones for pcp in zone.pcp}) or [0]
    if seen != list(range(len(seen))):
        notes.append(f"CPUs {', '.join(map(str, seen))} are numbered from 0 on here.")
        number = {cpu: i for i, cpu in enumerate(seen)}
        for zone in zones:
            for pcp in zone.pcp:
                pcp.cpu = number[pcp.cpu]
    if nodes == 1:
        return (tuple(range(len(seen))),)
    share, rest = divmod(len(seen), nodes)
    out, at = [], 0
    for node in range(nodes):
        count = share + (node < rest)
        out.append(tuple(range(at, at + count)))
        at += count
    notes.append(
        f"Which of the {len(seen)} CPUs belong to which of the {nodes} nodes is not printed: "
        f"assumed {' | '.join(','.join(map(str, cpus)) or 'none' for cpus in out)}; distances are assumed 10 and 20."
    )
    return tuple(out)


def _sysctls(
    zones: Sequence[InferredZone], arch: str, *, has_boost: bool, notes: list[str]
) -> tuple[dict[str, int | tuple[int, ...]], str]:
    """Sysctls behind protections and watermarks, and the origin of min_free_kbytes ("" if nothing explains it).

    Sets the zones' watermarks (without boost) and managed_at_setup.
    """
    names, defaults = ZONE_TYPES[arch], DEFAULT_RATIOS[arch]
    for zone in zones:
        if not has_boost and zone.name not in ("HighMem", "Movable"):
            zone.boost = boost_without_line(zone.min, zone.low - zone.min)
            if zone.boost:
                notes.append(f"{zone.title}: min {zone.min} seems to include a boost of {zone.boost} pages.")
        zone.min, zone.low, zone.high = zone.min - zone.boost, zone.low - zone.boost, zone.high - zone.boost
        zone.promo = zone.promo - zone.boost if zone.promo else zone.high + (zone.high - zone.low)
    rows = [
        WmarkZone(z.node, z.zid, z.name, z.managed, z.present > 0, z.min, z.low, z.high, z.lowmem_reserve)
        for z in zones
    ]
    found = fit_ratios(rows, names, defaults)
    ratios = tuple(default if ratio is None else ratio for ratio, default in zip(found, defaults, strict=True))
    if ratios != defaults:
        notes.append(f"The protections follow from vm.lowmem_reserve_ratio {' '.join(map(str, ratios))}.")
    late = _managed_at_setup(zones, protected_ranges(rows, ratios), notes)
    fit = fit_watermarks(rows, late)
    _explain(zones, fit, notes)
    return {
        "vm.min_free_kbytes": fit.min_free_kbytes,
        "vm.watermark_scale_factor": fit.watermark_scale_factor,
        "vm.lowmem_reserve_ratio": ratios,
    }, fit.origin if fit.exact else ""


def _below_thp(zones: Sequence[InferredZone], sysctl: dict[str, int | tuple[int, ...]]) -> bool:
    """Whether min_free_kbytes is less than what huge pages ask for."""
    kernel = sum(1 for zone in zones if zone.present and zone.name not in ("HighMem", "Movable"))
    kib = sysctl["vm.min_free_kbytes"]
    assert isinstance(kib, int)
    return kib < kernel * THP_PAGES_PER_ZONE * PAGE_KIB


def _managed_at_setup(
    zones: Sequence[InferredZone], ranges: Sequence[tuple[int, int]], notes: list[str]
) -> list[tuple[int, int]]:
    """How many pages each zone may have got since its neighbours' protections were computed: (fewest, most)."""
    late: list[tuple[int, int]] = []
    for zone, (low, high) in zip(zones, ranges, strict=True):
        if low > high or low > zone.managed:
            if zone.managed:
                notes.append(
                    f"{zone.title}: the protections were computed from {low} pages or more, its managed pages "
                    f"are {zone.managed} now: memory was taken away, or the kernel reckons otherwise."
                )
            low, high = 0, zone.managed
        else:
            high = min(high, zone.managed)
        known = high - low < zone.managed
        zone.managed_at_setup = (low, high) if known else (0, zone.managed)
        late.append((zone.managed - high, zone.managed - low if known else zone.managed // 4))
        if known and high < zone.managed:
            notes.append(
                f"{zone.title}: of its {zone.managed} managed pages {zone.managed - high} to {zone.managed - low} were freed "
                "after the protections were computed (late in the boot)."
            )
    return late


def _explain(zones: Sequence[InferredZone], fit: WmarkFit, notes: list[str]) -> None:
    kib = fit.min_free_kbytes
    origins = {
        "thp": "the size that huge pages ask for",
        "thp limit": "the size that huge pages ask for, limited to a twentieth of memory",
        "default": f"the default ({kib - kib % PAGE_KIB} to {kib - kib % PAGE_KIB + 3} give the same)",
        "written": f"which someone wrote ({kib} to {kib + 3} give the same)",
    }
    if not fit.exact:
        notes.append(
            f"No vm.min_free_kbytes gives these watermarks by the formula of 6.12 (other kernel, hotplug?): about {kib}; "
            "the watermarks are taken as printed."
        )
    else:
        notes.append(f"The watermarks follow from vm.min_free_kbytes {kib}, {origins[fit.origin]}.")
    for index, (low, high) in fit.late.items():
        zone = zones[index]
        some = f"{low} to {high}" if high - low <= _WORTH_TELLING else "some"
        notes.append(f"{zone.title}: {some} of its managed pages came after its watermarks were set.")
        setup = zone.managed - high, zone.managed - low
        narrowed = max(setup[0], zone.managed_at_setup[0]), min(setup[1], zone.managed_at_setup[1])
        if narrowed[0] <= narrowed[1]:
            zone.managed_at_setup = narrowed
    if fit.watermark_scale_factor != 10:
        notes.append(f"The distances between the watermarks ask for vm.watermark_scale_factor {fit.watermark_scale_factor}.")


def _high_fraction(
    zones: Sequence[InferredZone], node_cpus: Sequence[Sequence[int]], kernel: str, notes: list[str]
) -> int:
    """vm.percpu_pagelist_high_fraction, where the printed `high` of all zones shows one; else 0."""
    if kernel == "6.12":
        return 0  # there `high` moves as the machine runs
    total = sum(len(cpus) for cpus in node_cpus)
    rows: list[tuple[int, int, int, int]] = []
    for zone in zones:
        if zone.managed and zone.pcp:
            cpus = len(node_cpus[zone.node]) or total
            rows.append((zone.pcp[0].high, 4 * zone.pcp[0].batch, zone.managed // cpus, (zone.low + zone.boost) // cpus))
    if not rows or all(high == max(share, least) for high, least, _, share in rows):
        return 0
    largest = max(rows, key=lambda row: row[2])
    if largest[0]:
        guess = largest[2] // largest[0]
        for fraction in range(max(_MIN_HIGH_FRACTION, guess - 1), guess + 2):
            if all(high == max(managed // fraction, least) for high, least, managed, _ in rows):
                notes.append(f"The per-CPU lists' high follows from vm.percpu_pagelist_high_fraction {fraction}.")
                return fraction
    notes.append("The per-CPU lists' high and batch follow another kernel's rule: kept until a sysctl recomputes them.")
    return 0
