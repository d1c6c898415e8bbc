"""What a machine is made from besides a description of itself: a memory map, an allocator's state, a file.

Models: nothing by itself; mmcore.phys.zones does. Simplifies: CPUs that are only counted are all on the first node with memory.
Omits: /proc texts (mmpy.proc.infer).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmcore.base.state import State
from mmcore.phys import boot
from mmcore.phys.memmap import MemoryMap, as_int
from mmcore.phys.zones import BootPlan, plan_zones
from mmpy import allocstate
from mmpy.allocstate import present_from_state
from mmpy.config import KERNELS, MAX_CPUS, THP
from mmpy.sysctl import STORED


def plan_of_memory_map(memory: MemoryMap, cpus: int | Sequence[int], kernel: str, thp: str, **options: Any) -> BootPlan:
    """The plan of a machine with exactly this memory; the rest as plan_zones() has it."""
    number = cpus if isinstance(cpus, int) else len(cpus)
    if not 1 <= number <= MAX_CPUS["x86_64"]:
        raise ValueError(f"cpus is {cpus!r}; it must be 1..8192, or the node (0..1023) of each CPU")
    home = min(r.nid for r in memory.ranges)
    cpu_node = [home] * number if isinstance(cpus, int) else [as_int(n, "node of a CPU") for n in cpus]
    if any(not 0 <= n < 1024 for n in cpu_node):
        raise ValueError(f"cpus is {cpus!r}; it must be 1..8192, or the node (0..1023) of each CPU")
    if kernel not in KERNELS or thp not in THP:
        raise ValueError(f"kernel is {kernel!r} and thp {thp!r}; they must be one of {KERNELS} and {THP}")
    return plan_zones(
        memory, kernel=kernel, cpu_node=cpu_node, **options,
    )


def plan_of_state(
    alloc: allocstate.AllocState, memory: MemoryMap | None, cpus: Sequence[int] | None, arch: str | None,
    distances: Sequence[Sequence[int]] | None,
) -> BootPlan:  # fmt: skip
    """The plan of a machine that can be in this state, with nothing free yet."""
    try:
        names = {z["name"] for z in alloc["zones"].values()}
        arch = arch or ("i386" if "HighMem" in names else "x86_64")
        if memory is None:
            memory = MemoryMap(present_from_state(alloc), arch)
        nr_cpus = max((c + 1 for z in alloc["zones"].values() for c in z["pcp"]), default=1)
        if not 1 <= nr_cpus <= MAX_CPUS["x86_64"]:
            raise ValueError(f"it has per-CPU lists of CPU {nr_cpus - 1}; the limit is CPU {MAX_CPUS['x86_64'] - 1}")
        lowmem_end = next((z["start_pfn"] for z in alloc["zones"].values() if z["name"] == "HighMem" and z["present"]), None)
        movable = {node: z["start_pfn"] for (node, _), z in alloc["zones"].items() if z["name"] == "Movable" and z["present"]}
        return plan_zones(
            memory, cpu_node=list(cpus) if cpus is not None else [0] * nr_cpus, distances=distances, lowmem_end=lowmem_end,
            movable_pfn=movable or None, managed={(node, z["name"]): 0 for (node, _), z in alloc["zones"].items()},
        )  # fmt: skip
    except allocstate.MISFITS as error:
        raise ValueError(f"no machine can be in this state ({type(error).__name__}): {error}") from error


def checked_config(state: State, config: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, int]:
    """The sysctls that a saved machine had stored; ValueError if its configuration does not fit its state."""
    stored = {str(k): as_int(v, str(k)) for k, v in extra.get("stored_sysctl", {}).items()}
    for name, value in stored.items():
        if not STORED[name][1] <= value <= STORED[name][2]:
            raise ValueError(f"sysctl {name} is {value}; it must lie in {STORED[name][1]}..{STORED[name][2]}")
    if config["arch"] not in boot.ZONE_NAMES or len(boot.ZONE_NAMES[config["arch"]]) != int(state.globals["nr_zone_types"][0]):
        raise ValueError(f"architecture {config['arch']!r} does not fit the zones")
    if config["kernel"] not in KERNELS or KERNELS.index(config["kernel"]) != int(state.globals["kernel"][0]):
        raise ValueError(f"kernel {config['kernel']!r} is unknown, or not the one whose rules the state follows")
    return stored
