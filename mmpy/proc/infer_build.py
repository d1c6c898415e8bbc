"""The machine that an inferred description stands for: zones as they are, then the allocator's state, then counters.

Models: nothing by itself. The zones are not laid out by the boot's rules (a foreign machine's would not fit them):
starts, spans and memory are those of the dump. Simplifies: of the event counters only pgalloc_* and pgfree are
carried over. Omits: everything that /proc does not tell.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mmcore.base.vmstat_names import NODE_STAT_ITEMS, NUMA_STAT_ITEMS, ZONE_STAT_ITEMS, ZONE_TYPES
from mmpy import allocstate

if TYPE_CHECKING:
    from mmpy.machine import Machine
    from mmpy.proc.infer import InferredMachine

LOCAL_DISTANCE, REMOTE_DISTANCE = 10, 20
# Below so many pages per migratetype the kernel does not keep mobile pages apart.
_MOBILITY_LIMIT = 512 * 5
_MAX_COUNTER = (1 << 63) - 1
_THP = {"never": 0, "madvise": 1, "always": 2}
# Old kernels count these by zone, under the names that node counters have now.
_OLD_ZONE_NAMES = {
    f"nr_zone_{name}": f"nr_{name}"
    for name in ("inactive_anon", "active_anon", "inactive_file", "active_file", "unevictable")
}


@dataclass(frozen=True, slots=True)
class _Zone:
    node: int
    zid: int
    name: str
    start_pfn: int
    spanned: int
    present: int


@dataclass(frozen=True, slots=True)
class _Node:
    nid: int
    start_pfn: int
    spanned: int
    present: int
    cpus: tuple[int, ...]
    distances: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class DumpPlan:
    """What the core boots from (as mmcore.phys.zones.BootPlan), with the dump's own zones and nothing free yet."""

    arch: str
    nodes: tuple[_Node, ...]
    zones: tuple[_Zone, ...]
    cpu_node: tuple[int, ...]
    present_ranges: tuple[tuple[int, int, int], ...]
    zonelists: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]
    max_pfn: int
    mobility_disabled: bool
    free_ranges: tuple[tuple[int, int, int], ...] = ()
    late_ranges: tuple[tuple[int, int, int], ...] = ()


def make_plan(found: InferredMachine) -> DumpPlan:
    """The plan of an inferred machine."""
    types = len(ZONE_TYPES[found.arch])
    zones = tuple(_Zone(z.node, z.zid, z.name, z.start_pfn, z.spanned, z.present) for z in found.zones)
    nodes = []
    for nid in range(found.nodes):
        own = [z for z in zones if z.node == nid and z.present]
        start = min((z.start_pfn for z in own), default=0)
        end = max((z.start_pfn + z.spanned for z in own), default=0)
        distances = tuple(LOCAL_DISTANCE if n == nid else REMOTE_DISTANCE for n in range(found.nodes))
        present = sum(z.present for z in own)
        nodes.append(_Node(nid, start, end - start, present, found.node_cpus[nid], distances))
    cpu_node = {cpu: nid for nid, cpus in enumerate(found.node_cpus) for cpu in cpus}
    populated = [
        tuple(nid * types + zid for zid in reversed(range(types)) if zones[nid * types + zid].present)
        for nid in range(found.nodes)
    ]
    return DumpPlan(
        arch=found.arch,
        nodes=tuple(nodes),
        zones=zones,
        cpu_node=tuple(cpu_node[cpu] for cpu in range(len(cpu_node))),
        present_ranges=tuple((r.node * types + r.zid, r.start_pfn, r.end_pfn) for r in found.memory),
        zonelists=tuple(
            (tuple(zi for n in _fallback(nid, populated) for zi in populated[n]), populated[nid])
            for nid in range(found.nodes)
        ),
        max_pfn=max(r.end_pfn for r in found.memory),
        mobility_disabled=sum(z.managed - z.high - z.boost for z in found.zones if z.present) < _MOBILITY_LIMIT,
    )


def _fallback(local: int, populated: list[tuple[int, ...]]) -> list[int]:
    """Nodes with memory in the order in which `local` tries them, all others being equally far: upwards, then around."""
    count = len(populated)
    return [n for n in (*range(local, count), *range(local)) if populated[n]]


def build_machine(found: InferredMachine, cls: type[Machine], *, paging: str | None = None, tlb: str = "off") -> Machine:
    """A machine of class `cls` (mmpy.Machine) in the inferred state; `inferred` has the sentences."""
    plan: Any = make_plan(found)
    machine = cls.from_plan(plan, kernel=found.kernel, thp="never", paging=paging, tlb=tlb, config={"from": "proc"})
    allocstate.load_checked(machine.state, found.state)
    _load_sysctls(machine, found)
    _load_counters(machine, found)
    machine.inferred = list(found.inferred)
    return machine


def _load_sysctls(machine: Machine, found: InferredMachine) -> None:
    # Set, not written: a write would recompute the watermarks from today's managed pages.
    g = machine.state.globals
    for name in ("min_free_kbytes", "watermark_scale_factor", "percpu_pagelist_high_fraction"):
        g[name][0] = found.sysctl[f"vm.{name}"]
    ratios = found.sysctl["vm.lowmem_reserve_ratio"]
    assert isinstance(ratios, tuple)
    g["lowmem_reserve_ratio"][0, : len(ratios)] = ratios
    g["user_min_free_kbytes"][0] = found.sysctl["vm.min_free_kbytes"] if found.min_free_written else -1
    g["thp_enabled"][0] = _THP[found.thp]


def _load_counters(machine: Machine, found: InferredMachine) -> None:
    state = machine.state
    for zi, zone in enumerate(found.zones):
        if not zone.present:
            continue
        counters = {name: zone.vm_stat.get(_OLD_ZONE_NAMES.get(name, name), 0) for name in ZONE_STAT_ITEMS}
        counters |= {name: value for name, value in zone.vm_stat.items() if name in counters}
        for item, name in enumerate(ZONE_STAT_ITEMS):
            if name != "nr_free_pages":  # its value goes with the free lists
                state.zones["vm_stat"][zi, item] = min(counters[name], _MAX_COUNTER)
        for item, name in enumerate(NUMA_STAT_ITEMS):
            state.zones["numa_event"][zi, item] = zone.numa.get(name, 0)
    for nid, known in enumerate(found.node_stat):
        for item, name in enumerate(NODE_STAT_ITEMS):
            state.nodes["vm_stat"][nid, item] = min(known.get(name, 0), _MAX_COUNTER)
    state.vm_globals["foreign_counts"][0] = 1
    if found.vm_stat:
        state.globals["pgfree"][0] = found.vm_stat.get("pgfree", 0)
        for zid, name in enumerate(machine.zone_names):
            suffix = {"HighMem": "high"}.get(name, name.lower())
            zone_index = next((i for i, z in enumerate(found.zones) if z.zid == zid and z.present), zid)
            state.zones["pgalloc"][zone_index] = found.vm_stat.get(f"pgalloc_{suffix}", 0)
