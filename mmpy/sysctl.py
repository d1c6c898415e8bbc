"""Sysctls under their kernel names; a write recomputes what the kernel recomputes.

Models: the vm.* files of the page allocator (mm/page_alloc.c) and of virtual memory (mm/util.c, mm/mmap.c), and
/sys/kernel/mm/transparent_hugepage/enabled (the rest of it: mmpy.thp). Simplifies: the other vm.* files of the reference keep what is
written to them, within their ranges, until the room that reads them exists; the boot parameter stack_guard_gap goes by
vm.stack_guard_gap. vm.drop_caches can only be written. Omits: vm.compact_memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, MutableMapping
from typing import TYPE_CHECKING

from mmcore.base.state import State
from mmcore.phys import watermark
from mmcore.sys import hugepages

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
# name: (field of vm_globals, lowest, highest)
_VM_FIELDS = {
    "vm.admin_reserve_kbytes": ("admin_reserve_kbytes", 0, 2**63 - 1),
    "vm.dirty_background_bytes": ("dirty_background_bytes", 1, 2**62),
    "vm.dirty_background_ratio": ("dirty_background_ratio", 0, 100),
    "vm.dirty_bytes": ("dirty_bytes", 8192, 2**62),
    "vm.dirty_expire_centisecs": ("dirty_expire_centisecs", 0, 2**31 - 1),
    "vm.dirty_ratio": ("dirty_ratio", 0, 100),
    "vm.dirty_writeback_centisecs": ("dirty_writeback_centisecs", 0, 2**31 - 1),
    "vm.max_map_count": ("max_map_count", 0, 2**31 - 1),
    "vm.mmap_min_addr": ("mmap_min_addr", 0, 2**47),
    "vm.overcommit_kbytes": ("overcommit_kbytes", 0, 2**53),
    "vm.overcommit_memory": ("overcommit_memory", 0, 2),
    "vm.overcommit_ratio": ("overcommit_ratio", 0, 2**31 - 1),
    "vm.page-cluster": ("page_cluster", 0, 31),
    # in pages; no file of /proc/sys but a boot parameter, stack_guard_gap=
    "vm.stack_guard_gap": ("stack_guard_gap", 0, 2**20),
    "vm.swappiness": ("swappiness", 0, 200),
    "vm.user_reserve_kbytes": ("user_reserve_kbytes", 0, 2**63 - 1),
}
# The hugetlb pool: name: position of what is read in the state's figures. A write makes or frees huge pages, as far as that is possible.
_HUGETLB = {"vm.nr_hugepages": 0, "vm.nr_overcommit_hugepages": 4}
# Pairs say the same thing in two ways: a write to one sets the other to 0 (overcommit_ratio_handler, dirty_bytes_handler, ...).
_EXCLUDES = {
    "vm.dirty_background_bytes": "dirty_background_ratio",
    "vm.dirty_background_ratio": "dirty_background_bytes",
    "vm.dirty_bytes": "dirty_ratio",
    "vm.dirty_ratio": "dirty_bytes",
    "vm.overcommit_kbytes": "overcommit_ratio",
    "vm.overcommit_ratio": "overcommit_kbytes",
}
# name: (default, lowest, highest) of what is stored for later rooms
STORED = {
    "vm.compact_unevictable_allowed": (1, 0, 1),
    "vm.compaction_proactiveness": (20, 0, 100),
    "vm.extfrag_threshold": (500, 0, 1000),
    "vm.laptop_mode": (0, 0, 2**31 - 1),
    "vm.numa_stat": (1, 0, 1),
    "vm.oom_dump_tasks": (1, 0, 2**31 - 1),
    "vm.oom_kill_allocating_task": (0, 0, 2**31 - 1),
    "vm.panic_on_oom": (0, 0, 2),
    "vm.stat_interval": (1, 0, 2**31 - 1),
    "vm.vfs_cache_pressure": (100, 0, 2**31 - 1),
}


# Can only be written; not among the names.
_DROP_CACHES = "vm.drop_caches"


class SysctlView(MutableMapping[str, object]):
    """machine.sysctl["vm.min_free_kbytes"] = 65536. Numbers, a tuple for vm.lowmem_reserve_ratio, a word for transparent huge pages."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    @property
    def _state(self) -> State:
        return self._machine.state

    def __iter__(self) -> Iterator[str]:
        yield from sorted([*_FIELDS, "vm.lowmem_reserve_ratio", THP, *_VM_FIELDS, *_HUGETLB, *STORED])

    def __len__(self) -> int:
        return len(_FIELDS) + 2 + len(_VM_FIELDS) + len(_HUGETLB) + len(STORED)

    def __getitem__(self, name: str) -> object:
        g = self._state.globals[0]
        if name in _FIELDS:
            return int(g[_FIELDS[name]])
        if name == "vm.lowmem_reserve_ratio":
            return tuple(int(x) for x in g["lowmem_reserve_ratio"][: len(self._machine.zone_names)])
        if name == THP:
            return _THP_NAMES[int(g["thp_enabled"]) % 3]  # 3: never, whatever was asked for
        if name in _VM_FIELDS:
            return int(self._state.vm_globals[_VM_FIELDS[name][0]][0])
        if name in _HUGETLB:
            return int(self._state.vm_globals["hugetlb"][0, _HUGETLB[name]])
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
        elif name in _VM_FIELDS:
            field, lowest, highest = _VM_FIELDS[name]
            numbers = _numbers(name, value)
            if len(numbers) != 1 or not lowest <= numbers[0] <= highest:
                raise ValueError(f"{name} cannot be {value!r}; it must lie in {lowest}..{highest}")
            self._state.vm_globals[field] = numbers[0]
            if name in _EXCLUDES:
                self._state.vm_globals[_EXCLUDES[name]] = 0
            if name == "vm.dirty_writeback_centisecs" and numbers[0]:
                from mmcore.run import flusher

                flusher.wake(self._state)  # dirty_writeback_centisecs_handler()
        elif name == _DROP_CACHES:
            numbers = _numbers(name, value)
            if len(numbers) != 1 or not 1 <= numbers[0] <= 3:
                raise ValueError(f"{name} cannot be {value!r}; it must be 1 (page cache), 2 (slab) or 3 (both)")
            self._machine.drop_caches(numbers[0])
        elif name in _HUGETLB:
            numbers = _numbers(name, value)
            if len(numbers) != 1 or numbers[0] < 0:
                raise ValueError(f"{name} cannot be {value!r}; it must be a number of huge pages")
            if name == "vm.nr_hugepages":
                hugepages.set_nr_hugepages(self._state, numbers[0])
            else:
                hugepages.set_overcommit(self._state, numbers[0])
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
