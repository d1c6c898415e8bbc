"""The shape of a machine, checked: what Machine(...) takes and an experiment file names.

Models: the parts of a machine that decide how Linux lays its memory out. Simplifies: CPUs are numbered node by node in turn.
Omits: memory-less I/O nodes, CPU hotplug.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from mmcore.phys.memmap import PAGE, MemoryMap, default_reservations, parse_size
from mmcore.phys.zones import BootPlan, plan_zones

ARCHES = ("x86_64", "i386")
KERNELS = ("6.12", "6.1")
THP = ("always", "madvise", "never")
LRUS = ("mglru", "classic")
CHIPSETS = ("pc", "q35")
MAX_NODES = 1024
MAX_CPUS = 8192


def _one_of(name: str, value: object, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(allowed)}")


def _whole(name: str, value: object, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an integer, not {value!r}")
    if not low <= value <= high:
        raise ValueError(f"{name} is {value}; it must lie in {low}..{high}")
    return value


@dataclass(frozen=True)
class MachineConfig:
    """Parameters of a machine. TypeError or ValueError names a value that cannot be, and its limit.

    nodes: their number (equal parts) or their sizes, whose sum must be `memory`. cpus: their number (dealt to nodes with memory in turn)
    or the number on each node. reserved: None for what a boot keeps by default, or a list of page ranges (start_pfn, end_pfn).
    """

    memory: str | int = "4G"
    nodes: int | Sequence[str | int] = 1
    distances: Sequence[Sequence[int]] | None = None
    cpus: int | Sequence[int] = 1
    arch: str = "x86_64"
    kernel: str = "6.12"
    kernelcore: str | int | None = None
    movablecore: str | int | None = None
    highmem: str | int | None = None
    chipset: str = "pc"
    reserved: Sequence[tuple[int, int]] | None = None
    thp: str = "always"
    lru: str = "mglru"
    sysctl: Mapping[str, object] = field(default_factory=dict)
    seed: int = 0

    def __post_init__(self) -> None:
        _one_of("arch", self.arch, ARCHES)
        _one_of("kernel", self.kernel, KERNELS)
        _one_of("thp", self.thp, THP)
        _one_of("lru", self.lru, LRUS)
        _one_of("chipset", self.chipset, CHIPSETS)
        _whole("seed", self.seed, 0, 2**64 - 1)
        if not isinstance(self.sysctl, Mapping):
            raise TypeError(f"sysctl must be a mapping of names to values, not {self.sysctl!r}")
        self.node_pages()
        self.cpu_node()
        if self.highmem is not None and self.arch != "i386":
            raise ValueError("highmem needs arch='i386'")

    def node_pages(self) -> list[int]:
        """Pages of each node."""
        total = parse_size(self.memory) // PAGE
        if total < 4096:
            raise ValueError(f"memory is {self.memory!r}: {total} pages; the least is 16 MiB (4096 pages)")
        if self.arch == "i386" and total > 16 << 18:
            raise ValueError(f"memory is {self.memory!r}; i386 with PAE takes up to 16 GiB")
        if isinstance(self.nodes, int) and not isinstance(self.nodes, bool):
            n = _whole("nodes", self.nodes, 1, MAX_NODES)
            if self.arch == "i386" and n > 1:
                raise ValueError(f"nodes is {n}; i386 machines have one node")
            if total // n < 1024:
                raise ValueError(f"{n} nodes share {total} pages; each needs at least 1024 (4 MiB)")
            part = total // n // 256 * 256
            return [part] * (n - 1) + [total - part * (n - 1)]
        if isinstance(self.nodes, (str, bool)) or not isinstance(self.nodes, Sequence):
            raise TypeError(f"nodes must be a number or a list of sizes, not {self.nodes!r}")
        sizes = [parse_size(s) // PAGE for s in self.nodes]
        if not 1 <= len(sizes) <= MAX_NODES:
            raise ValueError(f"{len(sizes)} nodes; there can be 1..{MAX_NODES}")
        if sum(sizes) != total:
            raise ValueError(f"the nodes' sizes add up to {sum(sizes)} pages, memory is {total}")
        if any(0 < s < 1024 for s in sizes):
            raise ValueError(f"nodes of {sizes} pages; one with memory needs at least 1024 (4 MiB)")
        return sizes

    def cpu_node(self) -> list[int]:
        """Node of each CPU."""
        sizes = self.node_pages()
        if isinstance(self.cpus, int) and not isinstance(self.cpus, bool):
            n = _whole("cpus", self.cpus, 1, MAX_CPUS)
            if n * len(sizes) > 1 << 20:
                raise ValueError(f"{n} CPUs on {len(sizes)} nodes; their product may be up to {1 << 20}")
            with_memory = [i for i, s in enumerate(sizes) if s] or [0]
            return sorted(with_memory[c % len(with_memory)] for c in range(n))
        if isinstance(self.cpus, (str, bool)) or not isinstance(self.cpus, Sequence):
            raise TypeError(f"cpus must be a number or a list of numbers per node, not {self.cpus!r}")
        counts = [_whole("a node's cpus", c, 0, MAX_CPUS) for c in self.cpus]
        if len(counts) != len(sizes) or not 1 <= sum(counts) <= MAX_CPUS:
            raise ValueError(f"cpus is {counts}: it must give 0..{MAX_CPUS} CPUs for each of {len(sizes)} nodes, and one in all")
        return [nid for nid, c in enumerate(counts) for _ in range(c)]

    def lowmem_end(self) -> int | None:
        """First page frame of HighMem where `highmem` asks for a size of it."""
        if self.highmem is None:
            return None
        total = parse_size(self.memory) // PAGE
        high = parse_size(self.highmem) // PAGE
        if high >= total or total - high < 64 << 8:
            high = 0
        return min(total - high, 225278)

    def plan(self) -> BootPlan:
        """Where everything lies at boot."""
        memory = MemoryMap.qemu(self.node_pages(), chipset=self.chipset, arch=self.arch)
        if self.reserved is None:
            good, late = default_reservations(memory)
        else:
            good, late = [(int(a), int(b)) for a, b in self.reserved], []
            if any(not 0 <= a < b for a, b in good):
                raise ValueError(f"reserved is {good}; each range is (first page frame, end behind it)")
        return plan_zones(
            memory, cpu_node=self.cpu_node(), distances=self.distances, kernelcore=self.kernelcore, movablecore=self.movablecore,
            lowmem_end=self.lowmem_end(), reserved=good, late_reserved=late,
        )  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """The same as plain data (JSON)."""
        out = asdict(self)
        out["sysctl"] = {k: list(v) if isinstance(v, tuple) else v for k, v in self.sysctl.items()}
        return out

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> MachineConfig:
        unknown = data.keys() - cls.__dataclass_fields__.keys()
        if unknown:
            raise ValueError(f"unknown key {sorted(unknown)[0]!r} of a machine; known are {', '.join(cls.__dataclass_fields__)}")
        return cls(**data)
