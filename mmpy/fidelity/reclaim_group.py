"""The memory control group of a recorded run: made, charged and read as the recordings' program does.

memory.stat shows statistics as they were folded last, and reading it folds them when enough has changed: what is read here lags as the
kernel's does.

Models: memory.max, cgroup.procs, memory.stat, memory.events of one group. Simplifies: one node's lruvec a node, summed. Omits: other files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mmcore.base.vmstat_names import EVENT_ITEMS, NODE_STAT_ITEMS
from mmcore.sys import memcg_calls

if TYPE_CHECKING:
    from mmpy.machine import Machine
    from mmpy.process import Process

_EVENTS = ("low", "high", "max", "oom", "oom_kill")
_SIZES = {
    "anon": "nr_anon_pages", "file": "nr_file_pages", "shmem": "nr_shmem", "file_mapped": "nr_mapped", "file_dirty": "nr_dirty",
    "file_writeback": "nr_writeback", "swapcached": "nr_swapcached", "inactive_anon": "nr_inactive_anon", "active_anon": "nr_active_anon",
    "inactive_file": "nr_inactive_file", "active_file": "nr_active_file", "unevictable": "nr_unevictable",
    "pagetables": "nr_page_table_pages",
}  # fmt: skip
_SLAB = ("slab_reclaimable", "slab_unreclaimable")
_SUMS = {
    "pgscan": ("pgscan_kswapd", "pgscan_direct", "pgscan_khugepaged"),
    "pgsteal": ("pgsteal_kswapd", "pgsteal_direct", "pgsteal_khugepaged"),
}


class Group:
    """A group below the root with memory.max of so many pages."""

    def __init__(self, machine: Machine, name: str, max_pages: int) -> None:
        self.machine = machine
        self.id = int(memcg_calls.create(machine.state, 0, name))
        if self.id <= 0:
            raise ValueError(f"no group {name!r} could be made ({self.id})")
        memcg_calls.write(machine.state, self.id, "max", max_pages)

    def attach(self, process: Process) -> None:
        """cgroup.procs: what the process touches from now on is charged here."""
        memcg_calls.attach(self.machine.state, process.mm, self.id)

    def charge_kernel(self, pages: int) -> None:
        """Kernel pages that the group was already charged for."""
        memcg_calls.charge_kernel(self.machine.state, self.id, pages)

    def read_stat(self) -> dict[str, int]:
        """memory.stat, sizes in pages."""
        memcg_calls.flush(self.machine.state, self.id)
        row = self.machine.state.get("memcgs")[self.id]
        events = dict(zip(EVENT_ITEMS, row["vm_folded"].tolist(), strict=False))
        lruvecs = self.machine.state.get("lruvecs")
        folded = lruvecs["folded"][(lruvecs["memcg"] == self.id) & (lruvecs["head"] != 0)].sum(axis=0)
        items = dict(zip(NODE_STAT_ITEMS, folded.tolist(), strict=True))
        out = {name: events[name] for name in EVENT_ITEMS if name.startswith("pg") and name in events}
        out |= {name: sum(events.get(part, 0) for part in parts) for name, parts in _SUMS.items()}
        out |= {name: value for name, value in items.items() if name.startswith("workingset_") and name != "workingset_nodes"}
        out |= {name: items[item] for name, item in _SIZES.items()}
        out |= {name: items[f"nr_{name}"] // 4096 for name in _SLAB}
        out["kernel"] = int(row["kmem_folded"])
        return out

    def read_events(self) -> dict[str, int]:
        """memory.events."""
        counts = np.asarray(self.machine.state.get("memcgs")[self.id]["events"]).tolist()
        return {**dict(zip(_EVENTS, counts, strict=False)), "oom_group_kill": 0}
