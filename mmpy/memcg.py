"""Memory control groups: a cgroup's limits, what it uses, and its memory.stat.

Models: the memory controller's files of cgroup v2 (memory.current, .peak, .max, .high, .low, .min, .swap.*, .events, .stat, .reclaim) and
mkdir, rmdir, cgroup.procs of cgroupfs. Simplifies: sizes are bytes here as there, kept in whole pages; a group is known by its path: one
that is made again under the same path is meant by old handles too. Omits: other controllers, memory.numa_stat, memory.pressure, zswap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, SupportsIndex

import numpy as np

from mmcore.base.vmstat_names import EVENT_ITEMS, NODE_STAT_ITEMS
from mmpy.config import as_int
from mmpy.errors import CgroupError
from mmpy.syscalls import PAGE_SIZE, parse_bytes
from mmpy.vmviews import text_of

if TYPE_CHECKING:
    from mmpy.machine import Machine
    from mmpy.process import Process

ONLINE = 1
ENOENT, EAGAIN, EBUSY, EEXIST, ENOSPC = 2, 11, 16, 17, 28
MAX_PAGES = ((1 << 63) - 1) // PAGE_SIZE
_LIMITS = ("max", "high", "low", "min", "swap_max")
_EVENTS = ("low", "high", "max", "oom", "oom_kill")

# memory.stat: name, counter of the node (None: the group's own), bytes a unit.
_BYTES = (
    ("anon", "nr_anon_pages", 4096), ("file", "nr_file_pages", 4096), ("kernel", None, 4096), ("kernel_stack", "nr_kernel_stack", 1024),
    ("pagetables", "nr_page_table_pages", 4096), ("sec_pagetables", "nr_sec_page_table_pages", 4096), ("percpu", None, 0),
    ("sock", None, 0), ("vmalloc", None, 0),
    ("shmem", "nr_shmem", 4096), ("zswap", None, 0), ("zswapped", None, 0), ("file_mapped", "nr_mapped", 4096),
    ("file_dirty", "nr_dirty", 4096), ("file_writeback", "nr_writeback", 4096), ("swapcached", "nr_swapcached", 4096),
    ("anon_thp", "nr_anon_transparent_hugepages", 4096), ("file_thp", "nr_file_hugepages", 4096), ("shmem_thp", "nr_shmem_hugepages", 4096),
    ("inactive_anon", "nr_inactive_anon", 4096), ("active_anon", "nr_active_anon", 4096), ("inactive_file", "nr_inactive_file", 4096),
    ("active_file", "nr_active_file", 4096), ("unevictable", "nr_unevictable", 4096), ("slab_reclaimable", "nr_slab_reclaimable", 1),
    ("slab_unreclaimable", "nr_slab_unreclaimable", 1),
)  # fmt: skip
_COUNTS = (
    "workingset_refault_anon", "workingset_refault_file", "workingset_activate_anon", "workingset_activate_file", "workingset_restore_anon",
    "workingset_restore_file", "workingset_nodereclaim", "pgdemote_kswapd", "pgdemote_direct", "pgdemote_khugepaged", "pgpromote_success",
)  # fmt: skip
_VM_EVENTS = (
    "pgscan_kswapd", "pgscan_direct", "pgscan_khugepaged", "pgsteal_kswapd", "pgsteal_direct", "pgsteal_khugepaged", "pgfault",
    "pgmajfault",
    "pgrefill", "pgactivate", "pgdeactivate", "pglazyfree", "pglazyfreed", "swpin_zero", "swpout_zero", "zswpin", "zswpout", "zswpwb",
    "thp_fault_alloc", "thp_collapse_alloc", "thp_swpout", "thp_swpout_fallback", "numa_pages_migrated", "numa_pte_updates",
    "numa_hint_faults",
)  # fmt: skip
_NODE_AT = {name: i for i, name in enumerate(NODE_STAT_ITEMS)}
_EVENT_AT = {name: i for i, name in enumerate(EVENT_ITEMS)}


def limit_pages(value: str | SupportsIndex | None, name: str, *, none: int = MAX_PAGES) -> int:
    """Pages of a limit: a size ("32M"), bytes, "max" or None for no limit (`none`). ValueError names what it cannot be."""
    if value is None or (isinstance(value, str) and value.strip() == "max"):
        return none
    return min(parse_bytes(value, name) // PAGE_SIZE, MAX_PAGES)


class Memcg:
    """A memory control group: machine.memcg("name", max="32M"). Its limits are attributes in bytes; None stands for no limit.

    >>> g = machine.memcg("jobs", max="32M")
    >>> g.attach(machine.spawn())
    >>> g.high = "24M"
    """

    __slots__ = ("_name", "id", "machine")

    def __init__(self, machine: Machine, group: int) -> None:
        self.machine, self.id = machine, group
        self._name = int(machine.state.get("memcgs")[group]["name"])

    # ------------------------------------------------------------ what it is

    @property
    def alive(self) -> bool:
        """Whether it exists in the machine's present state (a removed group does not, even while pages are charged to it)."""
        rows = self.machine.state.get("memcgs")
        return self.id < len(rows) and int(rows[self.id]["flags"]) == ONLINE and int(rows[self.id]["name"]) == self._name

    def _row(self) -> np.void:
        if not self.alive:
            raise CgroupError(ENOENT, f"group {self.id}", "it was removed, or the machine is in a state in which it does not exist")
        row: np.void = self.machine.state.get("memcgs")[self.id]
        return row

    @property
    def path(self) -> str:
        """Where it stands: "/" is the root, "/jobs/batch" a group in a group."""
        return text_of(self.machine.state, self._name) or "/"

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    @property
    def parent(self) -> Memcg | None:
        """The group above; None for the root."""
        above = int(self._row()["parent"])
        return Memcg(self.machine, above - 1) if above else None

    @property
    def children(self) -> list[Memcg]:
        """The groups in it, oldest first."""
        rows, x, found = self.machine.state.get("memcgs"), int(self._row()["first_child"]), []
        while x:
            if int(rows[x - 1]["flags"]) == ONLINE:
                found.append(Memcg(self.machine, x - 1))
            x = int(rows[x - 1]["next_sibling"])
        return found

    @property
    def processes(self) -> list[Process]:
        """The processes in it (not in the groups below), by pid."""
        self._row()
        mms = self.machine.state.get("mms")
        return [p for p in self.machine.processes if int(mms[p.mm - 1]["memcg"]) == self.id]

    # ------------------------------------------------------------ limits

    def _limit(self, field: str) -> int | None:
        pages = int(self._row()[field])
        return None if pages >= MAX_PAGES else pages * PAGE_SIZE

    def _set(self, limit: str, value: str | SupportsIndex | None) -> None:
        from mmcore.sys import memcg_calls

        self._row()
        if self.id == 0:
            raise ValueError(f"memory.{limit} of the root: the root group has no limits")
        pages = limit_pages(value, limit, none=0 if value is None and limit in ("low", "min") else MAX_PAGES)
        memcg_calls.write(self.machine.state, self.id, limit, pages)

    @property
    def max(self) -> int | None:
        """memory.max: what it may use at most. Setting it lower reclaims what is above it."""
        return self._limit("max")

    @max.setter
    def max(self, value: str | SupportsIndex | None) -> None:
        self._set("max", value)

    @property
    def high(self) -> int | None:
        """memory.high: beyond it, its processes reclaim and are slowed down."""
        return self._limit("high")

    @high.setter
    def high(self, value: str | SupportsIndex | None) -> None:
        self._set("high", value)

    @property
    def low(self) -> int | None:
        """memory.low: up to it, reclaim leaves it alone as long as there is anything else."""
        return self._limit("low")

    @low.setter
    def low(self, value: str | SupportsIndex | None) -> None:
        self._set("low", value)

    @property
    def min(self) -> int | None:
        """memory.min: up to it, reclaim never takes anything."""
        return self._limit("min_")

    @min.setter
    def min(self, value: str | SupportsIndex | None) -> None:
        self._set("min", value)

    @property
    def swap_max(self) -> int | None:
        """memory.swap.max: swap that it may use at most."""
        return self._limit("swap_max")

    @swap_max.setter
    def swap_max(self, value: str | SupportsIndex | None) -> None:
        self._set("swap_max", value)

    # ------------------------------------------------------------ what it uses

    @property
    def current(self) -> int:
        """memory.current: bytes charged, with what CPUs hold in stock for it."""
        return int(self._row()["usage"]) * PAGE_SIZE

    @property
    def peak(self) -> int:
        """memory.peak: the most that `current` ever was."""
        return int(self._row()["peak"]) * PAGE_SIZE

    @property
    def swap_current(self) -> int:
        return int(self._row()["swap_usage"]) * PAGE_SIZE

    @property
    def swap_peak(self) -> int:
        return int(self._row()["swap_peak"]) * PAGE_SIZE

    @property
    def events(self) -> dict[str, int]:
        """memory.events: how often it, or a group in it, met its limits."""
        return self._events("events")

    @property
    def events_local(self) -> dict[str, int]:
        """memory.events.local: the same without the groups in it."""
        return self._events("events_local")

    def _events(self, field: str) -> dict[str, int]:
        values = self._row()[field]
        return {name: int(values[i]) for i, name in enumerate(_EVENTS)} | {"oom_group_kill": 0}

    @property
    def swap_events(self) -> dict[str, int]:
        """memory.swap.events."""
        values = self._row()["events"]
        return {name: int(values[i]) for i, name in ((5, "high"), (6, "max"), (7, "fail"))}

    def stat(self) -> dict[str, int]:
        """memory.stat, in the kernel's order: bytes for amounts, counts for events, of the group and those in it.

        Reading folds what CPUs have not yet reported, as in the kernel only if more than 64 changes a CPU wait: a read can lag behind.
        """
        from mmcore.sys import memcg_calls

        self._row()
        state = self.machine.state
        memcg_calls.flush(state, self.id)
        row, nodes = state.get("memcgs")[self.id], self.machine.nr_nodes
        items = state.get("lruvecs")[self.id * nodes : (self.id + 1) * nodes]["folded"].sum(axis=0)
        events = row["vm_folded"]
        out = {name: int(items[_NODE_AT[item]]) * unit if item else 0 for name, item, unit in _BYTES}
        out["kernel"] = int(row["kmem_folded"]) * PAGE_SIZE
        if self.id == 0:  # nodes count slab in pages
            for name in ("slab_reclaimable", "slab_unreclaimable"):
                out[name] *= PAGE_SIZE
        out = {name: max(value, 0) for name, value in out.items()}
        out["slab"] = out["slab_reclaimable"] + out["slab_unreclaimable"]
        out |= {name: max(int(items[_NODE_AT[name]]), 0) for name in _COUNTS}
        counted = {name: int(events[_EVENT_AT[name]]) for name in _VM_EVENTS}
        for what in ("pgscan", "pgsteal"):
            out[what] = sum(counted[f"{what}_{who}"] for who in ("kswapd", "direct", "khugepaged"))
        return out | counted

    def memory_stat(self) -> str:
        """The text of memory.stat."""
        return "".join(f"{name} {value}\n" for name, value in self.stat().items())

    # ------------------------------------------------------------ what one does with it

    def attach(self, process: Process) -> None:
        """Move a process into the group; what it has been charged for stays with the group that paid."""
        from mmcore.sys import memcg_calls
        from mmpy.process import Process

        self._row()
        if not isinstance(process, Process):
            raise TypeError(f"attach() takes a Process (machine.spawn()), not {type(process).__name__}")
        if process.machine is not self.machine:
            raise ValueError(f"{process!r} belongs to another machine")
        process._row()
        memcg_calls.attach(self.machine.state, process.mm, self.id)

    def reclaim(self, size: str | SupportsIndex, *, swappiness: int | None = None) -> int:
        """Write a size to memory.reclaim: bytes that were freed. CgroupError (EAGAIN) if fewer could be; what was freed stays freed."""
        from mmcore.sys import memcg_calls

        self._row()
        nbytes, weight = parse_bytes(size, "size"), -1
        if swappiness is not None:
            weight = as_int(swappiness, "swappiness")
            if not 0 <= weight <= 200:
                raise ValueError(f"swappiness is {weight}; it must lie in 0..200")
        pages = min(nbytes // PAGE_SIZE, MAX_PAGES)
        rc = memcg_calls.reclaim(self.machine.state, self.id, pages, weight)
        if rc < 0:
            raise CgroupError(-rc, f"memory.reclaim of {self.path!r}: {pages} pages", f"fewer could be freed; it uses {self.current} bytes")
        return rc * PAGE_SIZE

    def remove(self) -> None:
        """rmdir. CgroupError (EBUSY) while processes or groups are in it; pages charged to it stay so until they are freed."""
        from mmcore.sys import memcg_calls

        row = self._row()
        if self.id == 0:
            raise ValueError("the root group cannot be removed")
        tasks, groups = int(row["nr_tasks"]), len(self.children)
        rc = memcg_calls.remove(self.machine.state, self.id)
        if rc < 0:
            raise CgroupError(-rc, f"rmdir({self.path!r})", f"{tasks} processes and {groups} groups are in it")

    def memcg(
        self,
        name: str,
        *,
        max: str | SupportsIndex | None = None,
        high: str | SupportsIndex | None = None,
        low: str | SupportsIndex | None = None,
        min: str | SupportsIndex | None = None,
        swap_max: str | SupportsIndex | None = None,
    ) -> Memcg:
        """A new group in this one."""
        return create(self.machine, name, self, max=max, high=high, low=low, min=min, swap_max=swap_max)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Memcg):
            return NotImplemented
        return self.machine is other.machine and (self.id, self._name) == (other.id, other._name)

    def __hash__(self) -> int:
        return hash((id(self.machine), self.id, self._name))

    def __repr__(self) -> str:
        if not self.alive:
            return f"Memcg({self.path!r}, removed)"
        limits = {"max": self.max, "high": self.high, "low": self.low or None, "min": self.min or None, "swap_max": self.swap_max}
        said = "".join(f", {name} {value}" for name, value in limits.items() if value is not None)
        return f"Memcg({self.path!r}: {self.current} bytes{said})"


# ---------------------------------------------------------------- the machine's part


def create(machine: Machine, name: str, parent: Memcg | None = None, **limits: str | SupportsIndex | None) -> Memcg:
    """A new group; nothing is made if a limit is no size. CgroupError: ENOSPC (no room), EEXIST, ENOENT (the parent is gone)."""
    from mmcore.sys import memcg_calls

    if not isinstance(name, str):
        raise TypeError(f"a group's name must be a str, not {type(name).__name__}")
    if not name or name in (".", "..") or len(name) > 255 or any(c == "/" or ord(c) < 32 for c in name):
        raise ValueError(f"a group cannot be called {name!r}")
    if parent is not None and not isinstance(parent, Memcg):
        raise TypeError(f"parent must be a Memcg (machine.memcg()), not {type(parent).__name__}")
    if parent is not None and parent.machine is not machine:
        raise ValueError(f"{parent!r} belongs to another machine")
    above = parent or Memcg(machine, 0)
    above._row()
    for limit in limits.keys() - set(_LIMITS):
        raise TypeError(f"a group has no limit {limit!r}; it has {', '.join(_LIMITS)}")
    pages = {limit: limit_pages(value, limit) for limit, value in limits.items() if value is not None}
    path = f"{above.path.rstrip('/')}/{name}"
    if any(child.path == path for child in above.children):
        raise CgroupError(EEXIST, f"mkdir({path!r})")
    rc = memcg_calls.create(machine.state, above.id, path)
    if rc <= 0:
        room, there = int(machine.state.vm_globals["max_memcgs"][0]), int(machine.state.vm_globals["nr_memcgs"][0])
        why = f"{there} groups exist (those count that were removed but hold pages); the machine has room for max_cgroups={room}"
        raise CgroupError(-rc or ENOSPC, f"mkdir({path!r})", why)
    for limit in _LIMITS:
        if limit in pages:
            memcg_calls.write(machine.state, rc, limit, pages[limit])
    return Memcg(machine, rc)


def groups(machine: Machine) -> list[Memcg]:
    """The groups besides the root, each before those in it."""
    from mmcore.sys import memcg_calls

    rows = machine.state.get("memcgs")
    return [Memcg(machine, x) for x in memcg_calls.walk(machine.state) if x and int(rows[x]["flags"]) == ONLINE]
