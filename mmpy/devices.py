"""Block devices of a machine, and the cost model of its time.

Models: what /sys/block/NAME shows: stat (requests, merges, pages), queue/rotational, queue/max_sectors_kb. Simplifies: figures of a
device do not change. Omits: partitions, removing a device.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any

import numpy as np

from mmcore.base import costs
from mmcore.reclaim import device as core

if TYPE_CHECKING:
    from mmpy.machine import Machine

USED, SYNCHRONOUS, ROTATIONAL, SEEKS = 1, 2, 4, 8
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_PREFIX = {"ram": "ram", "virtio": "vd", "nvme": "nvme", "hdd": "sd"}


class DeviceView:
    """One block device: its figures and counters, as they are now."""

    __slots__ = ("handle", "machine")

    def __init__(self, machine: Machine, handle: int) -> None:
        self.machine, self.handle = machine, handle

    def _row(self) -> np.void:
        rows = self.machine.state.get("devices")
        if not 1 <= self.handle <= len(rows) or not int(rows[self.handle - 1]["flags"]) & USED:
            raise ValueError(f"device {self.handle} does not exist in this state of the machine")
        row: np.void = rows[self.handle - 1]
        return row

    def _number(self, field: str) -> int:
        return int(self._row()[field])

    @property
    def name(self) -> str:
        return self.machine.state.names[self._number("name") - 1]

    @property
    def synchronous(self) -> bool:
        """Whether I/O is complete when it has been asked for (brd, zram)."""
        return bool(self._number("flags") & SYNCHRONOUS)

    @property
    def rotational(self) -> bool:
        """queue/rotational."""
        return bool(self._number("flags") & ROTATIONAL)

    @property
    def depth(self) -> int:
        """Requests that it serves at a time."""
        return self._number("depth")

    @property
    def request_kib(self) -> int:
        """queue/max_sectors_kb: neighbouring pages are merged up to this."""
        return self._number("max_pages") * 4

    @property
    def read_latency_ns(self) -> int:
        return self._number("read_latency_ns")

    @property
    def write_latency_ns(self) -> int:
        return self._number("write_latency_ns")

    @property
    def ns_per_page_read(self) -> int:
        return self._number("ns_per_page_read")

    @property
    def ns_per_page_write(self) -> int:
        return self._number("ns_per_page_write")

    @property
    def busy_until_ns(self) -> int:
        """When everything that was asked for is complete."""
        return max(self._number("bus_until"), self.machine.now_ns)

    @property
    def nr_inflight(self) -> int:
        """Pages asked for and not complete."""
        return self._number("nr_inflight")

    @property
    def stat(self) -> dict[str, int]:
        """Requests and merges as in /sys/block/NAME/stat, with pages instead of sectors, and requests that failed."""
        row = self._row()
        return {
            "nr_reads": int(row["nr_reads"]), "read_merges": int(row["read_merges"]), "pages_read": int(row["pages_read"]),
            "nr_writes": int(row["nr_writes"]), "write_merges": int(row["write_merges"]), "pages_written": int(row["pages_written"]),
            "nr_failed": int(row["nr_failed"]), "nr_inflight": int(row["nr_inflight"]),
        }  # fmt: skip

    def fail_next(self, *, read: int | None = None, write: int | None = None) -> None:
        """Let the n-th read or write request from now on fail: fail_next(write=1) the next one; 0 takes it back."""
        core.fail_next(self.machine.state, self.handle, reads=read, writes=write)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, DeviceView):
            return NotImplemented
        return self.machine is other.machine and self.handle == other.handle

    def __hash__(self) -> int:
        return hash((id(self.machine), self.handle))

    def __repr__(self) -> str:
        kind = "synchronous" if self.synchronous else f"depth {self.depth}"
        return f"DeviceView({self.name!r}, {kind}{', rotational' if self.rotational else ''})"


class DevicesView(Mapping[str, DeviceView]):
    """machine.devices["vda"]."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def _handles(self) -> dict[str, int]:
        state = self._machine.state
        rows = state.get("devices")
        return {state.names[int(r["name"]) - 1]: i + 1 for i, r in enumerate(rows) if int(r["flags"]) & USED}

    def __iter__(self) -> Iterator[str]:
        return iter(self._handles())

    def __len__(self) -> int:
        return len(self._handles())

    def __getitem__(self, name: str) -> DeviceView:
        handles = self._handles()
        if name not in handles:
            raise KeyError(f"no device {name!r}; there are {', '.join(handles) or 'none'}")
        return DeviceView(self._machine, handles[name])

    def __repr__(self) -> str:
        return f"DevicesView({list(self)})"


def add_device(machine: Machine, preset: str, name: str | None, figures: dict[str, Any]) -> DeviceView:
    """See Machine.add_device()."""
    if preset not in core.PRESETS:
        raise ValueError(f"no device {preset!r}; there are {', '.join(core.PRESETS)}")
    if name is None:
        taken = set(DevicesView(machine))
        numbers = (f"{_PREFIX[preset]}{i}" if preset == "ram" else f"nvme{i}n1" if preset == "nvme" else _PREFIX[preset] + _letters(i)
                   for i in range(1 << 16))  # fmt: skip
        name = next(n for n in numbers if n not in taken)
    elif not isinstance(name, str):
        raise TypeError(f"name must be a text, not {type(name).__name__}")
    return DeviceView(machine, core.create(machine.state, preset, name, **figures))


def _letters(i: int) -> str:
    text = _LETTERS[i % 26]
    while i >= 26:
        i = i // 26 - 1
        text = _LETTERS[i % 26] + text
    return text


class CostsView(MutableMapping[str, int]):
    """machine.costs["minor_fault"] = 500: nanoseconds of CPU time for each kind of event (mmcore.base.costs names their sources)."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def __iter__(self) -> Iterator[str]:
        return iter(costs.COSTS)

    def __len__(self) -> int:
        return len(costs.COSTS)

    def __getitem__(self, name: str) -> int:
        return costs.get_cost(self._machine.state, name)

    def __setitem__(self, name: str, ns: int) -> None:
        costs.set_cost(self._machine.state, name, ns)

    def __delitem__(self, name: str) -> None:
        raise TypeError("a cost cannot be removed; 0 makes the event free")

    def __repr__(self) -> str:
        return f"CostsView({dict(self)})"
