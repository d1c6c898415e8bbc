"""The shape of a machine, checked: what Machine(...) takes and an experiment file's [machine] names.

Models: the parts of a machine that decide how Linux lays its memory out, as QEMU's pc and q35 have them. Simplifies: without more said,
CPUs are dealt to the nodes in turn and numbered node by node. Omits: CPU and memory hotplug, nodes with neither CPUs nor memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, fields
from itertools import accumulate
from typing import Any

from mmcore.phys.memblock import check_ranges
from mmcore.phys.memmap import ARCH_MAX_PFN, MAX_NUMNODES, as_int, format_size, parse_size
from mmcore.phys.vm_defaults import ARCH_PAGING
from mmcore.phys.zonelists import check_distances
from mmcore.phys.zones import ZONE_NAMES, BootPlan, core_pages, parse_zone_key, plan_boot

__all__ = ["ARCHES", "CHIPSETS", "KERNELS", "LRUS", "MAX_CPUS", "MAX_NODES", "THP", "TLBS", "MachineConfig", "as_int", "parse_size"]

ARCHES = ("x86_64", "i386")
KERNELS = ("6.12", "6.1")
THP = ("always", "madvise", "never")
LRUS = ("mglru", "classic")
TLBS = ("off", "zen", "skylake", "unbounded")
CHIPSETS = ("pc", "q35")
MAX_NODES = {"x86_64": MAX_NUMNODES, "i386": 1}
MAX_CPUS = {"x86_64": 8192, "i386": 32}
MAX_CGROUPS = 65534
MAX_NODES_TIMES_CPUS = 1 << 20
MIN_NODE_PAGES = 1024
"""4 MiB: x86 ignores smaller nodes"""
SPLIT_PAGES = 2048
"""8 MiB: what QEMU rounds the parts of an equal split down to; the last node takes the rest"""


@dataclass(frozen=True)
class MachineConfig:
    """Parameters of a machine, in one normal form whatever form they were given in. Equal machines have equal configurations.

    memory: a size ("4G", or bytes). nodes: their number (equal parts), or their sizes, which add up to memory; becomes a tuple of sizes.
    distances: a matrix of nodes by nodes, or None. cpus: their number, or for each node how many, or for each node which; becomes a tuple
    of CPU numbers a node. kernelcore, movablecore: a size or a percentage ("25%"). highmem (i386): a size. reserved: None, pages that
    boot keeps as (first pfn, end pfn) ranges, or as pages by zone ({"node0.Normal": 1000}). tlb: what the CPUs cache of page tables ("off":
    nothing). max_cgroups: memory control groups that may exist at a time. sysctl: values to write after boot, by name.

    TypeError or ValueError names a value that no such machine can have, and its limit.
    """

    memory: str | int = "4G"
    _: KW_ONLY
    nodes: int | Sequence[str | int] = 1
    distances: Sequence[Sequence[int]] | None = None
    cpus: int | Sequence[int] | Sequence[Sequence[int]] = 1
    arch: str = "x86_64"
    kernel: str = "6.12"
    kernelcore: str | int | None = None
    movablecore: str | int | None = None
    highmem: str | int | None = None
    chipset: str = "pc"
    reserved: Sequence[tuple[int, int]] | Mapping[str, int] | None = None
    thp: str = "always"
    paging: str | None = None
    lru: str = "mglru"
    tlb: str = "off"
    max_cgroups: int = 64
    sysctl: Mapping[str, object] = field(default_factory=dict)
    seed: int = 0

    node_pages: tuple[int, ...] = field(init=False, repr=False, compare=False)
    """pages of each node"""
    cpu_node: tuple[int, ...] = field(init=False, repr=False, compare=False)
    """node of each CPU"""

    def __post_init__(self) -> None:
        for name, allowed in (("arch", ARCHES), ("kernel", KERNELS), ("chipset", CHIPSETS), ("thp", THP), ("lru", LRUS), ("tlb", TLBS)):
            value = getattr(self, name)
            if not isinstance(value, str):
                raise TypeError(f"{name} must be one of {', '.join(map(repr, allowed))}, not {value!r}")
            if value not in allowed:
                raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(map(repr, allowed))}")
        if self.paging is not None and self.paging not in ARCH_PAGING[self.arch]:
            raise ValueError(f"paging is {self.paging!r}; {self.arch} has {', '.join(map(repr, ARCH_PAGING[self.arch]))}")
        total = parse_size(self.memory)
        if not 0 < total <= ARCH_MAX_PFN[self.arch]:
            raise ValueError(f"memory is {self.memory!r}; {self.arch} has more than 0 and at most {format_size(ARCH_MAX_PFN[self.arch])}")
        self._set("memory", format_size(total))
        self._set("node_pages", _node_pages(self.nodes, total, self.arch))
        self._set("nodes", tuple(format_size(pages) for pages in self.node_pages))
        cpus = _cpus(self.cpus, self.node_pages, self.arch)
        self._set("cpus", cpus)
        nodes = {cpu: nid for nid, own in enumerate(cpus) for cpu in own}
        self._set("cpu_node", tuple(nodes[cpu] for cpu in range(len(nodes))))
        if self.distances is not None:
            matrix = self.distances.tolist() if hasattr(self.distances, "tolist") else self.distances
            self._set("distances", check_distances(matrix, len(self.node_pages)))
        for name in ("kernelcore", "movablecore"):
            value = getattr(self, name)
            if value is not None:
                pages = core_pages(value, total, name)
                percent = isinstance(value, str) and "%" in value
                self._set(name, f"{int(value.strip()[:-1])}%" if percent else format_size(pages))
        if self.highmem is not None:
            if self.arch != "i386":
                raise ValueError(f"highmem is {self.highmem!r}; only arch='i386' has a HighMem zone")
            self._set("highmem", format_size(parse_size(self.highmem, "highmem")))
        self._set("reserved", _reserved(self.reserved, self.arch, len(self.node_pages)))
        self._set("sysctl", _sysctl(self.sysctl))
        groups, most = as_int(self.max_cgroups, "max_cgroups"), min(MAX_CGROUPS, (1 << 20) // len(self.node_pages) - 1)
        if not 0 <= groups <= most:
            raise ValueError(f"max_cgroups is {groups}; it must lie in 0..{most} on {len(self.node_pages)} node(s)")
        self._set("max_cgroups", groups)
        seed = as_int(self.seed, "seed")
        if not 0 <= seed < 1 << 64:
            raise ValueError(f"seed is {seed}; it must lie in 0..{(1 << 64) - 1}")
        self._set("seed", seed)

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    @property
    def nr_pages(self) -> int:
        """Pages of RAM that the machine is built with."""
        return sum(self.node_pages)

    @property
    def highmem_pages(self) -> int | None:
        return None if self.highmem is None else parse_size(self.highmem, "highmem")

    def plan(self) -> BootPlan:
        """Where everything lies at boot. ValueError if the machine is too small for what its boot keeps."""
        return plan_boot(self)

    def to_dict(self) -> dict[str, Any]:
        """The configuration as plain data (JSON); from_dict() turns it back."""
        return {f.name: _plain(getattr(self, f.name)) for f in fields(self) if f.init}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> MachineConfig:
        """A configuration from plain data, such as the [machine] table of an experiment file; what is missing has its default."""
        if not isinstance(data, Mapping):
            raise TypeError(f"a machine's configuration must be a mapping, not {type(data).__name__}")
        known = [f.name for f in fields(cls) if f.init]
        for key in data:
            if key not in known:
                raise ValueError(f"a machine has no {key!r}; known are {', '.join(known)}")
        return cls(**data)


def _plain(value: object) -> Any:
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return value


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _node_pages(nodes: Any, total: int, arch: str) -> tuple[int, ...]:
    limit = MAX_NODES[arch]
    if _is_list(nodes):
        sizes = tuple(parse_size(size, f"size of node {nid}") for nid, size in enumerate(nodes))
        count = len(sizes)
        if count and sum(sizes) != total:
            raise ValueError(f"the nodes' sizes {list(nodes)!r} add up to {format_size(sum(sizes))}; memory is {format_size(total)}")
    else:
        count = as_int(nodes, "nodes")
        sizes = ()
    if not 1 <= count <= limit:
        raise ValueError(f"nodes is {nodes!r}: {count} nodes; {arch} has 1..{limit}")
    if not sizes:
        # Small machines are split by the page block, to come out even.
        unit = SPLIT_PAGES if total // count >= SPLIT_PAGES else 512
        part = total // count // unit * unit
        sizes = (part,) * (count - 1) + (total - part * (count - 1),)
    for nid, pages in enumerate(sizes):
        if count > 1 and pages < MIN_NODE_PAGES and (pages or not _is_list(nodes)):
            raise ValueError(f"node {nid} has {pages} pages; one with memory needs {MIN_NODE_PAGES} (4M)")
    return sizes


def _cpus(cpus: Any, node_pages: tuple[int, ...], arch: str) -> tuple[tuple[int, ...], ...]:
    count, limit = len(node_pages), MAX_CPUS[arch]
    limit = min(limit, MAX_NODES_TIMES_CPUS // count)
    if not _is_list(cpus):
        total = as_int(cpus, "cpus")
        if not 1 <= total <= limit:
            raise ValueError(f"cpus is {total}; it must lie in 1..{limit} on {arch} with {count} node(s)")
        # In turn to the nodes that have memory; then numbered node by node.
        homes = [nid for nid, pages in enumerate(node_pages) if pages]
        shares = dict.fromkeys(range(count), 0)
        for i in range(total):
            shares[homes[i % len(homes)]] += 1
        cpus = list(shares.values())
    if len(cpus) != count:
        raise ValueError(f"cpus has {len(cpus)} entries; the machine has {count} node(s)")
    lists = [_is_list(entry) for entry in cpus]
    if any(lists):
        if not all(lists):
            raise TypeError(f"cpus is {cpus!r}; give a number for each node, or a list of CPUs for each")
        out = tuple(tuple(sorted(as_int(cpu, "a CPU's number") for cpu in entry)) for entry in cpus)
        numbers = sorted(cpu for entry in out for cpu in entry)
        if numbers != list(range(len(numbers))):
            raise ValueError(f"cpus is {cpus!r}; it must name each of CPUs 0..{max(len(numbers) - 1, 0)} once")
    else:
        counts = [as_int(n, f"CPUs of node {nid}") for nid, n in enumerate(cpus)]
        for nid, n in enumerate(counts):
            if not 0 <= n <= limit:
                raise ValueError(f"node {nid} has {n} CPUs; it must lie in 0..{limit}")
        ends = list(accumulate(counts))
        out = tuple(tuple(range(end - n, end)) for end, n in zip(ends, counts, strict=True))
    if not 1 <= sum(map(len, out)) <= limit:
        raise ValueError(f"cpus is {cpus!r}: {sum(map(len, out))} CPUs; {arch} with {count} node(s) has 1..{limit}")
    for nid, (pages, entry) in enumerate(zip(node_pages, out, strict=True)):
        if not pages and not entry:
            raise ValueError(f"node {nid} has neither memory nor CPUs")
    return out


def _reserved(reserved: Any, arch: str, nr_nodes: int) -> tuple[tuple[int, int], ...] | dict[str, int] | None:
    if reserved is None:
        return None
    if not isinstance(reserved, Mapping):
        return tuple(check_ranges(reserved, "reserved"))
    out: dict[str, int] = {}
    for key, pages in reserved.items():
        node, name = parse_zone_key(key)
        if name not in ZONE_NAMES[arch] or node >= nr_nodes:
            raise ValueError(f"reserved names zone {key!r}; {arch} has {', '.join(ZONE_NAMES[arch])} on nodes 0..{nr_nodes - 1}")
        count = as_int(pages, f"reserved pages of {key}")
        if count < 0:
            raise ValueError(f"reserved pages of {key} are {count}; they must not be negative")
        if f"node{node}.{name}" in out:
            raise ValueError(f"reserved names zone {key!r} twice")
        out[f"node{node}.{name}"] = count
    return out


def _sysctl(sysctl: Any) -> dict[str, object]:
    if not isinstance(sysctl, Mapping):
        raise TypeError(f"sysctl must map names to values, not {type(sysctl).__name__}")
    out: dict[str, object] = {}
    for name, value in sysctl.items():
        if not isinstance(name, str):
            raise TypeError(f"a sysctl's name must be a string such as 'vm.min_free_kbytes', not {name!r}")
        if _is_list(value):
            value = tuple(as_int(item, f"sysctl {name}") for item in value)
        elif not isinstance(value, str):
            value = as_int(value, f"sysctl {name}")
        out[name] = value
    return out
