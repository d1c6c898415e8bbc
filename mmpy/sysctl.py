"""Sysctls under their kernel names; a write recomputes what the kernel recomputes.

Models: the vm.* files of the page allocator (mm/page_alloc.c) and /sys/kernel/mm/transparent_hugepage/enabled. Simplifies: the other
vm.* files of the reference keep what is written to them, within their ranges, until the room that reads them exists.
Omits: write-only triggers (vm.drop_caches, vm.compact_memory).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, MutableMapping
from typing import TYPE_CHECKING

from mmcore.base.state import State
from mmcore.phys import watermark

if TYPE_CHECKING:
    from mmpy.machine import Machine

THP = "kernel.mm.transparent_hugepage.enabled"
_THP_NAMES = ("never", "madvise", "always")
_FIELDS = {
    "vm.min_free_kbytes": "min_free_kbytes",
    "vm.watermark_scale_factor": "watermark_scale_factor",
    "vm.watermark_boost_factor": "watermark_boost_factor",
    "vm.percpu_pagelist_high_fraction": "percpu_pagelist_high_fraction",
    "vm.min_unmapped_ratio": "min_unmapped_ratio",
    "vm.min_slab_ratio": "min_slab_ratio",
    "vm.zone_reclaim_mode": "zone_reclaim_mode",
}
# name: (default, lowest, highest) of what is stored for later rooms
STORED = {
    "vm.admin_reserve_kbytes": (8192, 0, 2**63 - 1),
    "vm.compact_unevictable_allowed": (1, 0, 1),
    "vm.compaction_proactiveness": (20, 0, 100),
    "vm.dirty_background_ratio": (10, 0, 100),
    "vm.dirty_expire_centisecs": (3000, 0, 2**31 - 1),
    "vm.dirty_ratio": (20, 0, 100),
    "vm.dirty_writeback_centisecs": (500, 0, 2**31 - 1),
    "vm.extfrag_threshold": (500, 0, 1000),
    "vm.laptop_mode": (0, 0, 2**31 - 1),
    "vm.max_map_count": (65530, 0, 2**31 - 1),
    "vm.numa_stat": (1, 0, 1),
    "vm.oom_dump_tasks": (1, 0, 2**31 - 1),
    "vm.oom_kill_allocating_task": (0, 0, 2**31 - 1),
    "vm.overcommit_kbytes": (0, 0, 2**63 - 1),
    "vm.overcommit_memory": (0, 0, 2),
    "vm.overcommit_ratio": (50, 0, 2**31 - 1),
    "vm.page-cluster": (3, 0, 31),
    "vm.panic_on_oom": (0, 0, 2),
    "vm.stat_interval": (1, 0, 2**31 - 1),
    "vm.swappiness": (60, 0, 200),
    "vm.vfs_cache_pressure": (100, 0, 2**31 - 1),
}


class SysctlView(MutableMapping[str, object]):
    """machine.sysctl["vm.min_free_kbytes"] = 65536. Numbers, a tuple for vm.lowmem_reserve_ratio, a word for transparent huge pages."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    @property
    def _state(self) -> State:
        return self._machine.state

    def __iter__(self) -> Iterator[str]:
        yield from sorted([*_FIELDS, "vm.lowmem_reserve_ratio", THP, *STORED])

    def __len__(self) -> int:
        return len(_FIELDS) + 2 + len(STORED)

    def __getitem__(self, name: str) -> object:
        g = self._state.globals[0]
        if name in _FIELDS:
            return int(g[_FIELDS[name]])
        if name == "vm.lowmem_reserve_ratio":
            return tuple(int(x) for x in g["lowmem_reserve_ratio"][: len(self._machine.zone_names)])
        if name == THP:
            return _THP_NAMES[int(g["thp_enabled"])]
        if name in STORED:
            return self._machine.stored_sysctl.get(name, STORED[name][0])
        raise KeyError(f"no sysctl {name!r}; there are {', '.join(self)}")

    def __setitem__(self, name: str, value: object) -> None:
        if name == THP:
            if value not in _THP_NAMES:
                raise ValueError(f"{name} cannot be {value!r}; it must be one of {', '.join(_THP_NAMES)}")
            watermark.sysctl_write(self._state, name, [_THP_NAMES.index(str(value))])
        elif name in _FIELDS or name == "vm.lowmem_reserve_ratio":
            watermark.sysctl_write(self._state, name, _numbers(name, value))
        elif name in STORED:
            numbers = _numbers(name, value)
            _, lowest, highest = STORED[name]
            if len(numbers) != 1 or not lowest <= numbers[0] <= highest:
                raise ValueError(f"{name} cannot be {value!r}; it must lie in {lowest}..{highest}")
            self._machine.stored_sysctl[name] = numbers[0]
        else:
            raise KeyError(f"no sysctl {name!r}; there are {', '.join(self)}")

    def __delitem__(self, name: str) -> None:
        raise TypeError("a sysctl cannot be removed")

    def __repr__(self) -> str:
        return f"SysctlView({dict(self)})"


def _numbers(name: str, value: object) -> list[int]:
    """An int, a text of numbers as /proc/sys takes it, or a sequence of ints."""
    if isinstance(value, str):
        parts: Iterable[object] = value.split()
    elif isinstance(value, (list, tuple)):
        parts = value
    else:
        parts = [value]
    out = []
    for part in parts:
        try:
            number = int(part) if isinstance(part, str) else part.__index__()  # type: ignore[attr-defined]
        except (ValueError, AttributeError, TypeError):
            raise ValueError(f"{name} takes whole numbers, not {value!r}") from None
        if isinstance(part, bool):
            raise ValueError(f"{name} takes whole numbers, not {value!r}")
        if not -(2**63) <= number < 2**63:
            raise ValueError(f"{name} cannot be {number}; it must fit into 64 bits")
        out.append(number)
    return out
