"""Machine: a simulated computer's memory, and what one does with it.

Models: the page allocator's interface (include/linux/gfp.h) over the state that mmcore keeps. Simplifies: requests name their CPU and
node instead of running on one. Omits: what later rooms bring (address spaces, page cache, reclaim).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, SupportsIndex

import numpy as np

from mmcore.base.state import POOLS, State
from mmcore.phys import boot
from mmcore.phys.memmap import MemoryMap
from mmcore.phys.zones import BootPlan
from mmpy import allocstate, snapshot
from mmpy.config import TLBS, MachineConfig
from mmpy.flags import GFP_KERNEL
from mmpy.page_requests import PageRequests
from mmpy.sysctl import SysctlView
from mmpy.tlb import TlbView, attach_tlb
from mmpy.views import NodeView, PageView, VmstatView, ZoneView

if TYPE_CHECKING:
    from mmpy import kernel_mappings as km
    from mmpy.devices import CostsView, DevicesView, DeviceView
    from mmpy.files import FileObject
    from mmpy.memcg import Memcg
    from mmpy.proc import Proc
    from mmpy.process import Process
    from mmpy.swap import SwapArea
    from mmpy.thp import ThpView

_PAGES_PER_SECTION = 32768


class Machine(PageRequests):
    """A simulated machine, as it is after boot.

    Parameters: memory, a size ("4G", or bytes); nodes, their number or sizes; distances, a matrix; cpus, their number or a list per node;
    arch "x86_64" or "i386"; kernel "6.12" or "6.1"; kernelcore, movablecore as on the kernel's command line; chipset "pc" or "q35";
    reserved, what the boot keeps (see mmpy.config); thp "always", "madvise" or "never"; paging, the shape of page tables: "4level",
    "5level", "arm64-48", "arm64-39", on i386 "pae" or "2level"; tlb, what the CPUs cache of page tables: "off", "zen", "skylake" or
    "unbounded" (all since the last flush); max_cgroups, how many control groups there may be at a time; sysctl, values to write after boot;
    seed, for workloads. ValueError names a value that no such machine can have.

    >>> m = Machine("4G")
    >>> pfn = m.alloc_pages(order=3)
    >>> m.free_pages(pfn, order=3)
    """

    state: State
    stored_sysctl: dict[str, int]

    def __init__(
        self,
        memory: str | int = "4G",
        *,
        nodes: int | Sequence[str | int] = 1,
        distances: Sequence[Sequence[int]] | None = None,
        cpus: int | Sequence[Any] = 1,
        arch: str = "x86_64",
        kernel: str = "6.12",
        kernelcore: str | int | None = None,
        movablecore: str | int | None = None,
        highmem: str | int | None = None,
        chipset: str = "pc",
        reserved: Any = None,
        thp: str = "always",
        paging: str | None = None,
        lru: str = "mglru",
        tlb: str = "off",
        max_cgroups: int = 64,
        sysctl: Mapping[str, object] | None = None,
        seed: int = 0,
    ) -> None:
        config = MachineConfig(
            memory=memory, nodes=nodes, distances=distances, cpus=cpus, arch=arch, kernel=kernel, kernelcore=kernelcore,
            movablecore=movablecore, highmem=highmem, chipset=chipset, reserved=reserved, thp=thp, paging=paging, lru=lru, tlb=tlb,
            max_cgroups=max_cgroups, sysctl=dict(sysctl or {}), seed=seed,
        )  # fmt: skip
        self._boot(config.plan(), config.to_dict(), config.kernel, config.thp, config.paging)
        self.reclaim = True
        for name, value in (sysctl or {}).items():
            self.sysctl[name] = value

    # ------------------------------------------------------------ other ways to a machine

    @classmethod
    def from_plan(
        cls, plan: BootPlan, *, kernel: str = "6.12", thp: str = "always", paging: str | None = None, tlb: str = "off",
        config: dict[str, Any] | None = None,
    ) -> Machine:  # fmt: skip
        """A machine from a plan of its physical memory (mmcore.phys.zones). It does not reclaim until `machine.reclaim` is set."""
        if tlb not in TLBS:
            raise ValueError(f"tlb is {tlb!r}; it must be one of {', '.join(map(repr, TLBS))}")
        self = cls.__new__(cls)
        self._boot(plan, {"from": "plan", **(config or {}), "tlb": tlb}, kernel, thp, paging)
        return self

    @classmethod
    def from_memory_map(
        cls,
        memory: MemoryMap,
        *,
        cpus: int | Sequence[int] = 1,
        distances: Sequence[Sequence[int]] | None = None,
        kernel: str = "6.12",
        thp: str = "always",
        kernelcore: str | int | None = None,
        movablecore: str | int | None = None,
        lowmem_end: int | None = None,
        managed: Mapping[Any, int] | None = None,
        late: Mapping[Any, int] | None = None,
        reserved: Sequence[tuple[int, int]] | Mapping[str, int] | None = None,
        paging: str | None = None,
        tlb: str = "off",
        sysctl: Mapping[str, object] | None = None,
    ) -> Machine:
        """A machine with exactly this memory.

        cpus: their number (all on the first node), or the node of each. managed: final managed pages by (node, zone name), late: how
        many of them boot frees only after the watermarks are set; without both, `reserved` page ranges, or a sized machine's default.
        """
        from mmpy.plans import plan_of_memory_map

        plan = plan_of_memory_map(
            memory, cpus, kernel, thp, distances=distances, kernelcore=kernelcore, movablecore=movablecore, lowmem_end=lowmem_end,
            managed=managed, late=late, reserved=reserved,
        )  # fmt: skip
        config = {"from": "memory map", "memory": memory.to_dict()}
        self = cls.from_plan(plan, kernel=kernel, thp=thp, paging=paging, tlb=tlb, config=config)
        self.reclaim = True
        for name, value in (sysctl or {}).items():
            self.sysctl[name] = value
        return self

    @classmethod
    def from_state(
        cls, alloc: allocstate.AllocState, *, memory: MemoryMap | None = None, cpus: Sequence[int] | None = None, arch: str | None = None,
        kernel: str = "6.12", thp: str = "always", distances: Sequence[Sequence[int]] | None = None, paging: str | None = None,
        tlb: str = "off",
    ) -> Machine:  # fmt: skip
        """A machine whose allocator is in a given state (form: mmpy.allocstate), such as a recorded snapshot. `machine.reclaim` is off: a
        recorded trace says itself when the kernel reclaimed.

        memory tells which page frames exist; without it, they are inferred from the zones' spans. cpus: the node of each CPU.
        """
        from mmpy.plans import plan_of_state

        plan = plan_of_state(alloc, memory, cpus, arch, distances)
        self = cls.from_plan(plan, kernel=kernel, thp=thp, paging=paging, tlb=tlb, config={"from": "state"})
        allocstate.load_checked(self.state, alloc)
        return self

    @classmethod
    def from_proc(
        cls,
        *,
        zoneinfo: str,
        buddyinfo: str | None = None,
        pagetypeinfo: str | None = None,
        vmstat: str | None = None,
        meminfo: str | None = None,
        paging: str | None = None,
        tlb: str = "off",
    ) -> Machine:
        """A machine as a real one's /proc texts describe it: zones, watermarks, per-CPU sizes and the number of free blocks of each order.

        `machine.inferred` says, a sentence each, what the texts do not tell and was assumed. ProcFormatError (a ValueError) for a text
        that cannot be read or tells too little.
        """
        from mmpy.proc.infer import infer_machine

        found = infer_machine(zoneinfo=zoneinfo, buddyinfo=buddyinfo, pagetypeinfo=pagetypeinfo, vmstat=vmstat, meminfo=meminfo)
        machine: Machine = found.build(cls, paging=paging, tlb=tlb)
        machine.reclaim = True
        return machine

    def _boot(self, plan: BootPlan, config: dict[str, Any], kernel: str, thp: str, paging: str | None = None) -> None:
        state = boot.boot(plan, kernel=kernel, thp=thp, paging=paging, max_memcgs=config.get("max_cgroups", 64))
        attach_tlb(state, config.get("tlb", "off"), plan.arch)
        self._adopt(state, {**config, "arch": plan.arch, "kernel": kernel}, {})

    def _adopt(self, state: State, config: dict[str, Any], stored: dict[str, int]) -> None:
        self.state = state
        self.config = config
        self.stored_sysctl = stored
        self.arch: str = config["arch"]
        self.kernel: str = config["kernel"]
        self.zone_names: tuple[str, ...] = boot.ZONE_NAMES[self.arch]
        self.nr_cpus = int(state.globals["nr_cpus"][0])
        self.nr_nodes = int(state.globals["nr_nodes"][0])
        self._task = 0
        self.inferred: list[str] = []

    # ------------------------------------------------------------ views

    @property
    def reclaim(self) -> bool:
        """Whether allocations reclaim when free memory runs low, and kswapd runs. Off, they fail with -ENOMEM where they would."""
        return bool(self.state.vm_globals["reclaim_on"][0])

    @reclaim.setter
    def reclaim(self, on: bool) -> None:
        if not isinstance(on, (bool, np.bool_)):
            raise TypeError(f"reclaim must be True or False, not {on!r}")
        self.state.vm_globals["reclaim_on"] = on

    @property
    def zones(self) -> list[ZoneView]:
        """All zones, node by node, also empty ones."""
        return [ZoneView(self, i) for i in range(len(self.state.zones))]

    @property
    def nodes(self) -> list[NodeView]:
        return [NodeView(self, i) for i in range(self.nr_nodes)]

    @property
    def pages(self) -> np.ndarray:
        """mem_map, read-only and without a copy: a record per page frame (next, prev, private_, flags)."""
        view = self.state.pages.view()
        view.flags.writeable = False
        return view

    @property
    def page_meta(self) -> np.ndarray:
        """Further references (extra_refs: beyond the one that every allocated block has) and mappings by page frame, read-only, no copy."""
        view = self.state.meta[: len(self.state.pages)]
        view.flags.writeable = False
        return view

    def page(self, pfn: int) -> PageView:
        """What one page frame is now."""
        return PageView(self, pfn)

    @property
    def vmstat(self) -> VmstatView:
        return VmstatView(self)

    @property
    def sysctl(self) -> SysctlView:
        return SysctlView(self)

    @cached_property
    def proc(self) -> Proc:
        """The machine's /proc texts: machine.proc.zoneinfo(), buddyinfo(), pagetypeinfo(), vmstat(), meminfo()."""
        from mmpy.proc import Proc

        return Proc(self)

    def _global(self, name: str) -> int:
        return int(self.state.globals[name][0])

    @property
    def totalram_pages(self) -> int:
        return self._global("totalram_pages")

    @property
    def totalreserve_pages(self) -> int:
        """Pages that user memory should not count on: protections and high watermarks."""
        return self._global("totalreserve_pages")

    @property
    def now_ns(self) -> int:
        return self._global("now_ns")

    @property
    def mobility_grouping(self) -> bool:
        return not self._global("mobility_disabled")

    @property
    def policy_zone(self) -> str:
        """Highest populated zone type up to Normal or HighMem: where memory policies apply."""
        zids = [z.zid for z in self.zones if z.populated and z.name != "Movable"]
        return self.zone_names[max(zids)]

    @property
    def nr_memmap_boot_pages(self) -> int:
        """Pages that the memory map itself takes in a real machine: 512 a section of 128 MiB."""
        ranges = self.state.present[: self._global("nr_present")]
        sections: set[int] = set()
        for r in ranges:
            sections.update(range(int(r["start"]) // _PAGES_PER_SECTION, (int(r["end"]) - 1) // _PAGES_PER_SECTION + 1))
        return 512 * len(sections)

    @property
    def dirty_limits(self) -> tuple[int, int]:
        """Pages of dirty memory at which writers are throttled, and at which writeback starts (domain_dirty_limits)."""
        from mmcore.reclaim import dirty_limits

        found = dirty_limits.limits(self.state)
        return found["thresh"], found["bg"]

    # ------------------------------------------------------------ whole states

    def allocator_state(self) -> allocstate.AllocState:
        """Every list and counter of the allocator as a plain dict (form: mmpy.allocstate)."""
        return allocstate.dump(self.state, self.zone_names)

    def load_allocator_state(self, alloc: allocstate.AllocState) -> None:
        """Replace free lists, per-CPU lists, pageblock types and zone figures; the machine is as before if `alloc` does not fit it."""
        busy = [name for name in ("mms", "files", "vm_areas") if self.state.get(name).size and self.state.pools["live"][POOLS[name]]]
        if busy:
            raise ValueError(f"a machine with {', '.join(busy)} in use cannot take over another allocator's state")
        # into a copy: whatever goes wrong, Ctrl-C too, and whatever other threads do, no one meets a half loaded machine
        state = self.state.copy()
        allocstate.load_checked(state, alloc)
        self.state.assign(state)

    def validate(self) -> dict[str, Any]:
        """Recount everything from scratch; ValidationError names the first thing that is wrong. Returns what was counted, in pages."""
        from mmcore.sys import recount

        return recount.validate(self.state)

    def snapshot(self) -> Machine:
        """A copy of the machine to come back to with restore() (the same as fork())."""
        return self.fork()

    def restore(self, saved: Machine) -> None:
        """Become what `saved` is; it must have this machine's shape."""
        if not isinstance(saved, Machine):
            raise TypeError(f"restore() takes a Machine, not {type(saved).__name__}")
        if (self.arch, self.kernel) != (saved.arch, saved.kernel):
            raise ValueError(f"this machine is {self.arch} {self.kernel}, the saved one {saved.arch} {saved.kernel}")
        self.state.assign(saved.state)
        self.config, self.stored_sysctl = dict(saved.config), dict(saved.stored_sysctl)
        self.inferred = list(saved.inferred)

    def fork(self) -> Machine:
        """An independent machine in the same state."""
        other = type(self).__new__(type(self))
        other._adopt(self.state.copy(), dict(self.config), dict(self.stored_sysctl))
        other._task, other.inferred = self._task, list(self.inferred)
        return other

    def __copy__(self) -> Machine:
        return self.fork()

    def __deepcopy__(self, memo: dict[int, Any]) -> Machine:
        return self.fork()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the machine to a file; memory that was never touched takes no space."""
        # a copy: other threads may run the machine meanwhile
        snapshot.write(path, self.state.copy(), self.config, {"stored_sysctl": self.stored_sysctl, "inferred": self.inferred})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Machine:
        """Read a machine back. SnapshotFormatError (a ValueError) for a file that is damaged or none of ours."""
        from mmpy.plans import checked_config

        state, config, extra = snapshot.read(path)
        self = cls.__new__(cls)
        try:
            stored = checked_config(state, config, extra)
            self._adopt(state, config, stored)
            self.inferred = [str(line) for line in extra.get("inferred", [])]
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise snapshot.SnapshotFormatError(f"{path}: damaged configuration ({error})") from None
        return self

    def _canonical(self) -> State:
        """This machine's state with untouched blocks written out and without hints: equal machines have equal bytes."""
        from mmpy.comparing import canonical

        return canonical(self.state)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Machine):
            return NotImplemented
        if self.stored_sysctl != other.stored_sysctl or self.arch != other.arch or self.kernel != other.kernel:
            return False
        return self.state.same_bytes(other.state) or self._canonical().same_bytes(other._canonical())

    __hash__ = None  # type: ignore[assignment]

    def diff(self, other: Machine) -> list[str]:
        """What differs between two machines, a line each; empty if they are equal. Lists first, then counters and pages."""
        from mmpy.comparing import differences

        if not isinstance(other, Machine):
            raise TypeError(f"diff() takes a Machine, not {type(other).__name__}")
        return differences(self, other)

    def __repr__(self) -> str:
        zones = ", ".join(f"{z.name}{'' if self.nr_nodes == 1 else f'@{z.node}'}" for z in self.zones if z.populated)
        free = sum(z.nr_free_pages for z in self.zones)
        return (
            f"Machine({self.totalram_pages * 4 // 1024} MiB managed, {free * 4 // 1024} MiB free, {self.nr_nodes} node(s), "
            f"{self.nr_cpus} CPU(s), {self.arch}, kernel {self.kernel}, zones {zones})"
        )

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{z.node}</td><td>{z.name}</td><td>{z.managed}</td><td>{z.nr_free_pages}</td><td>{z.min}</td><td>{z.low}</td><td>{z.high}</td></tr>"
            for z in self.zones
            if z.populated
        )
        head = "".join(f"<th>{h}</th>" for h in ("node", "zone", "managed", "free", "min", "low", "high"))
        return f"<table><caption>{self.arch}, kernel {self.kernel}, pages of 4 KiB</caption><tr>{head}</tr>{rows}</table>"

    # ------------------------------------------------------------ processes, files, huge pages

    def spawn(
        self, name: str = "a.out", *, cpu: int = 0, exec: bool = False, privileged: bool = False, memcg: Memcg | None = None
    ) -> Process:
        """A new process on `cpu` with an empty address space; exec=True: with an image, heap, stack and vdso, as after execve.

        privileged: with root's capabilities, which lift limits on locked memory, low addresses and the last of committed memory.
        memcg: the group that pays for its memory (machine.memcg()).
        """
        from mmpy import process

        return process.spawn(self, name, cpu, exec, privileged, memcg)

    @property
    def processes(self) -> list[Process]:
        """The processes that live, by pid."""
        from mmpy import process

        return process.processes(self)

    def process(self, pid: int) -> Process:
        """The process with this pid; ProcessError if there is none."""
        from mmpy import process

        return process.process(self, pid)

    def open(self, name: str, size: str | int | None = None, *, kind: str = "disk") -> FileObject:
        """The file of this name, made with `size` ("64M", or bytes) if there is none. kind: "disk", "ram" (no device) or "shmem"."""
        from mmpy.files import open_file

        return open_file(self, name, size, kind)

    def memcg(self, name: str, *, parent: Memcg | None = None, **limits: Any) -> Memcg:
        """A new memory control group, in the root or in `parent`. limits: max, high, low, min, swap_max ("32M", bytes, None: no limit)."""
        from mmpy import memcg

        return memcg.create(self, name, parent, **limits)

    @property
    def memcgs(self) -> list[Memcg]:
        """The control groups besides the root, each before those in it."""
        from mmpy import memcg

        return memcg.groups(self)

    @property
    def root_memcg(self) -> Memcg:
        """The group of all that is in no other: no limits, statistics of the whole machine."""
        from mmpy.memcg import Memcg

        return Memcg(self, 0)
    # ------------------------------------------------------------ devices and time

    def add_device(self, preset: str = "virtio", name: str | None = None, *, files: bool = False, **figures: Any) -> DeviceView:
        """A block device: "ram", "virtio", "nvme" or "hdd", by default under the next free name (vda, nvme0n1, ...).

        files: whether files are read from it and written to it from now on. Figures that replace the preset's: latency_ns,
        read_latency_ns, write_latency_ns, bandwidth, read_bandwidth, write_bandwidth (bytes a second), depth (1..8), request_kib,
        queue_kib, synchronous, rotational, seeks.
        """
        from mmpy.devices import add_device

        device = add_device(self, preset, name, figures)
        if files:
            self.file_device = device
        return device

    @property
    def devices(self) -> DevicesView:
        """Block devices by name."""
        from mmpy.devices import DevicesView

        return DevicesView(self)

    @property
    def file_device(self) -> DeviceView | None:
        """The device that files are read from and written to; None: that takes no time."""
        from mmpy.devices import DeviceView

        handle = int(self.state.vm_globals["file_device"][0])
        return DeviceView(self, handle) if handle else None

    @file_device.setter
    def file_device(self, device: DeviceView | str | None) -> None:
        from mmcore.reclaim.device import set_file_device
        from mmpy.devices import DeviceView

        if isinstance(device, str):
            device = self.devices[device]
        if device is not None and not isinstance(device, DeviceView):
            raise TypeError(f"a device, the name of one or None is wanted, not {device!r}")
        if device is not None and device.machine is not self:
            raise ValueError(f"{device!r} belongs to another machine")
        set_file_device(self.state, device.handle if device is not None else None)

    def drop_caches(self, what: int = 1, *, cpu: int = 0) -> int:
        """What writing to vm.drop_caches does: 1 drops clean pages of files that nothing maps, 2 slab objects, 3 both. Pages freed."""
        from mmcore.sys import drop_caches

        return drop_caches.drop_caches(self.state, what, cpu)

    @property
    def costs(self) -> CostsView:
        """Nanoseconds of CPU time for each kind of event: machine.costs["minor_fault"] = 500."""
        from mmpy.devices import CostsView

        return CostsView(self)

    @property
    def committed_as(self) -> int:
        """Pages promised to programs (vm_committed_as)."""
        return int(self.state.vm_globals["committed"][0])

    @property
    def commit(self) -> dict[str, int]:
        """What the commit limit is made of, beside RAM and swap: ratio, kbytes, hugetlb_pages."""
        g = self.state.vm_globals[0]
        ratio, kbytes = int(g["overcommit_ratio"]), int(g["overcommit_kbytes"])
        return {"ratio": ratio, "kbytes": kbytes, "hugetlb_pages": int(g["hugetlb_pages"])}

    @property
    def hugetlb_pool(self) -> tuple[int, int, int, int]:
        """Huge pages of the hugetlb pool: in all, free, reserved, surplus (the order of sys/hugetlb's figures)."""
        total, free, reserved, surplus = (int(n) for n in self.state.vm_globals["hugetlb"][0][:4])
        return total, free, reserved, surplus

    # ------------------------------------------------------------ swap

    def swapon(
        self, size: str | SupportsIndex, priority: int | None = None, *, rotational: bool = False, synchronous: bool = True,
        name: str | None = None, partition: bool = True,
    ) -> SwapArea:  # fmt: skip
        """Swap to a device of this size. priority 0..32767 (higher first), None: below all that have none given. rotational: as a disk,
        filled from its start and read ahead by slots; synchronous: reads and writes need no waiting (zram, a RAM disk)."""
        from mmpy import swap

        return swap.swapon(self, size, priority, rotational, synchronous, name, partition)

    def swapoff(self, area: SwapArea, *, cpu: int = 0) -> None:
        """Read everything back from an area and give it up. MmapError (ENOMEM) if memory does not suffice; the area stays then."""
        from mmpy import swap

        swap.swapoff(self, area, cpu)

    @property
    def swaps(self) -> list[SwapArea]:
        """The swap areas in use, in the order of /proc/swaps."""
        from mmpy import swap

        return swap.swaps(self)

    @property
    def total_swap_pages(self) -> int:
        return self._global("total_swap_pages")

    @property
    def swap_zero_data(self) -> bool:
        """Whether pages that are swapped out count as all zero, which takes no I/O: pages have no contents here, so one says so."""
        return bool(self.state.vm_globals["swap_zero_data"][0])

    @swap_zero_data.setter
    def swap_zero_data(self, zero: bool) -> None:
        self.state.vm_globals["swap_zero_data"][0] = bool(zero)

    @property
    def free_swap_pages(self) -> int:
        """Pages of swap that are in no one's hands (SwapFree); slots that CPUs keep in stock are not free."""
        return max(0, int(self.state.vm_globals["nr_swap_pages"][0]))

    @property
    def commit_limit(self) -> int:
        """Pages that programs may commit under vm.overcommit_memory = 2."""
        from mmpy.proc.meminfo import commit_limit

        return commit_limit(self.totalram_pages, self.total_swap_pages, **self.commit)

    # ------------------------------------------------------------ the kernel's own mappings

    @cached_property
    def linear_map(self) -> km.LinearMap:
        """The direct map and its conversions: pa, va, virt_to_page, page_to_pfn, page_address; numbers or arrays."""
        from mmpy import kernel_mappings as km

        return km.LinearMap(self)

    def vmalloc(
        self, size: str | int, *, huge: bool = False, node: int | None = None, gfp: int = GFP_KERNEL, cpu: int = 0, caller: str = ""
    ) -> km.VmallocArea:
        """`size` bytes that are contiguous in the kernel's addresses only (vmalloc); huge=True: of 2 MiB pages if it is that large."""
        from mmpy import kernel_mappings as km

        return km.vmalloc(self, size, huge=huge, node=node, gfp=gfp, cpu=cpu, caller=caller)

    def vrealloc(self, address: int, size: str | int, *, gfp: int = GFP_KERNEL, cpu: int = 0, caller: str = "") -> km.VmallocArea | None:
        """A vmalloc area with another size, in place where its pages suffice; None for size 0, which frees it."""
        from mmpy import kernel_mappings as km

        return km.vrealloc(self, address, size, gfp=gfp, cpu=cpu, caller=caller)

    def vfree(self, address: int, *, cpu: int = 0) -> None:
        """Give a vmalloc area back; its addresses are reused only after a purge."""
        from mmpy import kernel_mappings as km

        km.vfree(self, address, cpu=cpu)

    def vmap(self, pfns: np.ndarray, *, cpu: int = 0, caller: str = "") -> km.VmallocArea:
        """Map page frames, in this order, to contiguous kernel addresses."""
        from mmpy import kernel_mappings as km

        return km.vmap(self, pfns, cpu=cpu, caller=caller)

    def kmap(self, pfn: int) -> int:
        """An address for a page frame: the direct map's, or a slot of the window for high memory (i386)."""
        from mmpy import kernel_mappings as km

        return km.kmap(self, pfn)

    def kunmap(self, pfn: int) -> None:
        from mmpy import kernel_mappings as km

        km.kunmap(self, pfn)

    def kmap_local(self, pfn: int, *, cpu: int = 0) -> int:
        """A short mapping of one CPU; given back in the reverse order by kunmap_local."""
        from mmpy import kernel_mappings as km

        return km.kmap_local(self, pfn, cpu=cpu)

    def kunmap_local(self, address: int, *, cpu: int = 0) -> None:
        from mmpy import kernel_mappings as km

        km.kunmap_local(self, address, cpu=cpu)

    @property
    def tlb(self) -> TlbView:
        """What the TLBs caught, by CPU, and flush(); a machine with tlb="off" has none."""
        return TlbView(self)

    @property
    def thp(self) -> ThpView:
        """Transparent huge pages: the settings of /sys/kernel/mm/transparent_hugepage, machine.thp["defrag"] = "always"."""
        from mmpy.thp import ThpView

        return ThpView(self)


__all__ = ["Machine", "MemoryMap"]
