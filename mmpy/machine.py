"""Machine: a simulated computer's memory, and what one does with it.

Models: the page allocator's interface (include/linux/gfp.h) over the state that mmcore keeps. Simplifies: requests name their CPU and
node instead of running on one. Omits: what later rooms bring (address spaces, page cache, reclaim).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from mmcore.alloc import page_alloc, page_free
from mmcore.base.state import POOLS, State
from mmcore.base.trace import Tracer
from mmcore.phys import boot
from mmcore.phys.memmap import MemoryMap, as_int
from mmcore.phys.zones import BootPlan, plan_zones
from mmpy import allocstate, snapshot
from mmpy.allocstate import present_from_state
from mmpy.config import KERNELS, MAX_CPUS, THP, MachineConfig
from mmpy.flags import GFP_KERNEL, Task
from mmpy.sysctl import STORED, SysctlView
from mmpy.tlb import TlbView, attach_tlb
from mmpy.views import NodeView, PageView, VmstatView, ZoneView

if TYPE_CHECKING:
    from mmpy import kernel_mappings as km
    from mmpy.files import FileObject
    from mmpy.proc import Proc
    from mmpy.process import Process
    from mmpy.thp import ThpView

CHUNK_OPS = 1 << 18
_PAGES_PER_SECTION = 32768


class Machine:
    """A simulated machine, as it is after boot.

    Parameters: memory, a size ("4G", or bytes); nodes, their number or sizes; distances, a matrix; cpus, their number or a list per node;
    arch "x86_64" or "i386"; kernel "6.12" or "6.1"; kernelcore, movablecore as on the kernel's command line; chipset "pc" or "q35";
    reserved, what the boot keeps (see mmpy.config); thp "always", "madvise" or "never"; paging, the shape of page tables: "4level",
    "5level", "arm64-48", "arm64-39", on i386 "pae" or "2level"; tlb, what the CPUs cache of page tables: "off", "zen", "skylake" or
    "unbounded" (all since the last flush); sysctl, values to write after boot; seed, for workloads. ValueError names a value that no
    such machine can have.

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
        sysctl: Mapping[str, object] | None = None,
        seed: int = 0,
    ) -> None:
        config = MachineConfig(
            memory=memory, nodes=nodes, distances=distances, cpus=cpus, arch=arch, kernel=kernel, kernelcore=kernelcore,
            movablecore=movablecore, highmem=highmem, chipset=chipset, reserved=reserved, thp=thp, paging=paging, lru=lru, tlb=tlb,
            sysctl=dict(sysctl or {}), seed=seed,
        )  # fmt: skip
        self._boot(config.plan(), config.to_dict(), config.kernel, config.thp, config.paging)
        for name, value in (sysctl or {}).items():
            self.sysctl[name] = value

    # ------------------------------------------------------------ other ways to a machine

    @classmethod
    def from_plan(cls, plan: BootPlan, *, kernel: str = "6.12", thp: str = "always", config: dict[str, Any] | None = None) -> Machine:
        """A machine from a plan of its physical memory (mmcore.phys.zones)."""
        self = cls.__new__(cls)
        self._boot(plan, {"from": "plan", **(config or {})}, kernel, thp)
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
        sysctl: Mapping[str, object] | None = None,
    ) -> Machine:
        """A machine with exactly this memory.

        cpus: their number (all on the first node), or the node of each. managed: final managed pages by (node, zone name), late: how
        many of them boot frees only after the watermarks are set; without both, `reserved` page ranges, or a sized machine's default.
        """
        number = cpus if isinstance(cpus, int) else len(cpus)
        if not 1 <= number <= MAX_CPUS["x86_64"]:
            raise ValueError(f"cpus is {cpus!r}; it must be 1..8192, or the node (0..1023) of each CPU")
        home = min(r.nid for r in memory.ranges)
        cpu_node = [home] * number if isinstance(cpus, int) else [as_int(n, "node of a CPU") for n in cpus]
        if any(not 0 <= n < 1024 for n in cpu_node):
            raise ValueError(f"cpus is {cpus!r}; it must be 1..8192, or the node (0..1023) of each CPU")
        if kernel not in KERNELS or thp not in THP:
            raise ValueError(f"kernel is {kernel!r} and thp {thp!r}; they must be one of {KERNELS} and {THP}")
        plan = plan_zones(
            memory, kernel=kernel, cpu_node=cpu_node, distances=distances, kernelcore=kernelcore, movablecore=movablecore,
            lowmem_end=lowmem_end, managed=managed, late=late, reserved=reserved,
        )  # fmt: skip
        self = cls.from_plan(plan, kernel=kernel, thp=thp, config={"from": "memory map", "memory": memory.to_dict()})
        for name, value in (sysctl or {}).items():
            self.sysctl[name] = value
        return self

    @classmethod
    def from_state(
        cls, alloc: allocstate.AllocState, *, memory: MemoryMap | None = None, cpus: Sequence[int] | None = None, arch: str | None = None,
        kernel: str = "6.12", thp: str = "always", distances: Sequence[Sequence[int]] | None = None,
    ) -> Machine:  # fmt: skip
        """A machine whose allocator is in a given state (form: mmpy.allocstate), such as a recorded snapshot.

        memory tells which page frames exist; without it, they are inferred from the zones' spans. cpus: the node of each CPU.
        """
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
            plan = plan_zones(
                memory, cpu_node=list(cpus) if cpus is not None else [0] * nr_cpus, distances=distances, lowmem_end=lowmem_end,
                movable_pfn=movable or None, managed={(node, z["name"]): 0 for (node, _), z in alloc["zones"].items()},
            )  # fmt: skip
        except allocstate.MISFITS as error:
            raise ValueError(f"no machine can be in this state ({type(error).__name__}): {error}") from error
        self = cls.from_plan(plan, kernel=kernel, thp=thp, config={"from": "state"})
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
    ) -> Machine:
        """A machine as a real one's /proc texts describe it: zones, watermarks, per-CPU sizes and the number of free blocks of each order.

        `machine.inferred` says, a sentence each, what the texts do not tell and was assumed. ProcFormatError (a ValueError) for a text
        that cannot be read or tells too little.
        """
        from mmpy.proc.infer import infer_machine

        found = infer_machine(zoneinfo=zoneinfo, buddyinfo=buddyinfo, pagetypeinfo=pagetypeinfo, vmstat=vmstat, meminfo=meminfo)
        return found.build(cls)

    def _boot(self, plan: BootPlan, config: dict[str, Any], kernel: str, thp: str, paging: str | None = None) -> None:
        state = boot.boot(plan, kernel=kernel, thp=thp, paging=paging)
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

    # ------------------------------------------------------------ pages

    def alloc_pages(self, order: int = 0, gfp: int = GFP_KERNEL, *, node: int | None = None, cpu: int = 0) -> int:
        """Allocate 2**order contiguous pages (order 0..10) on behalf of `cpu`, from `node` on (default: the CPU's); first page frame.

        PageAllocFailure (a MemoryError) if no zone has them, GfpError for an illegal mask, ValueError for values out of range.
        """
        return page_alloc.alloc_pages(self.state, gfp, order, cpu, -1 if node is None else node, self._task)

    def free_pages(self, pfn: int, order: int = 0, *, cpu: int = 0) -> None:
        """Give back a block of 2**order pages. BadPageError names a page that cannot be freed so; nothing changes then."""
        page_free.free_pages(self.state, pfn, order, cpu)

    def alloc_pages_many(self, n: int, order: int = 0, gfp: int = GFP_KERNEL, *, node: int | None = None, cpu: int = 0) -> np.ndarray:
        """`n` allocations in a row, as `n` single calls would go; stops at the first failure.

        Returns the page frames it got: array of uint32, shorter than `n` when memory ran out.
        """
        out = np.empty(self._count(n), np.uint32)
        got = page_alloc.alloc_pages_many(self.state, out, gfp, order, cpu, -1 if node is None else node, self._task)
        return out[:got]

    def free_pages_many(self, pfns: np.ndarray, order: int = 0, *, cpu: int = 0) -> None:
        """Free every block of `pfns` (uint32) in order. All are checked first: BadPageError leaves the machine unchanged."""
        page_free.free_pages_many(self.state, pfns, order, cpu)

    def alloc_pages_bulk(self, n: int, gfp: int = GFP_KERNEL, *, node: int | None = None, cpu: int = 0) -> np.ndarray:
        """The kernel's alloc_pages_bulk: up to `n` single pages with one watermark test; array of uint32, perhaps shorter."""
        out = np.empty(self._count(n), np.uint32)
        return out[: page_alloc.alloc_pages_bulk(self.state, out, gfp, cpu, -1 if node is None else node, self._task)]

    def alloc_pages_exact(self, nr_pages: int, gfp: int = GFP_KERNEL, *, node: int | None = None, cpu: int = 0) -> np.ndarray:
        """Exactly nr_pages contiguous pages (1..1024), each to be freed by itself; array of uint32."""
        pfn = page_alloc.alloc_pages_exact(self.state, nr_pages, gfp, cpu, -1 if node is None else node, self._task)
        return np.arange(pfn, pfn + nr_pages, dtype=np.uint32)

    def get_free_pages(self, order: int = 0, gfp: int = GFP_KERNEL, *, cpu: int = 0) -> int:
        """__get_free_pages: pages with a kernel mapping (no __GFP_HIGHMEM); first page frame."""
        return self.alloc_pages(order, int(gfp) & ~0x2, cpu=cpu)

    def get_zeroed_page(self, gfp: int = GFP_KERNEL, *, cpu: int = 0) -> int:
        """get_zeroed_page: one page, marked to be zeroed."""
        return self.get_free_pages(0, int(gfp) | 0x100, cpu=cpu)

    def split_page(self, pfn: int, order: int) -> None:
        """Turn an allocated block that is not compound into single pages."""
        page_free.split_page(self.state, pfn, order)

    def get_page(self, pfn: int) -> None:
        """Take a further reference to an allocated block."""
        page_free.get_page(self.state, pfn)

    def put_page(self, pfn: int, *, cpu: int = 0) -> None:
        """Drop a reference to a block; the last one frees it."""
        page_free.put_page(self.state, pfn, cpu)

    def drain_all_pages(self) -> None:
        """Give every page on per-CPU lists back to the buddy lists (drain_all_pages)."""
        self._one_op(engine_op="DRAIN_ALL")

    def vmstat_tick(self, cpu: int = 0) -> None:
        """One run of the vmstat worker on a CPU: folds differentials, lets `high` decay, drains what is above it."""
        if not 0 <= as_int(cpu, "cpu") < self.nr_cpus:
            raise ValueError(f"cpu is {cpu}; the machine has {self.nr_cpus}")
        self._one_op(engine_op="VMSTAT_TICK", cpu=cpu)

    @contextmanager
    def task(self, flags: int | Task) -> Iterator[None]:
        """Requests inside are made by a task with these flags: `with machine.task(Task.NOFS): ...`. Scopes nest."""
        if int(flags) & ~127:
            raise ValueError(f"task flags {int(flags):#x}: only bits of mmpy.Task are known")
        before = self._task
        self._task |= int(flags)
        try:
            yield
        finally:
            self._task = before

    def _count(self, n: int) -> int:
        limit = int(self.state.globals["nr_pages"][0])
        if isinstance(n, bool) or not hasattr(n, "__index__"):
            raise TypeError(f"n must be an integer, not {type(n).__name__}")
        n = n.__index__()
        if not 0 <= n <= limit:
            raise ValueError(f"n is {n}; it must lie in 0..{limit}, the machine's page frames")
        return n

    # ------------------------------------------------------------ operations

    def run(
        self,
        ops: np.ndarray,
        *,
        on_chunk: Callable[[int, int], object] | None = None,
        chunk: int = CHUNK_OPS,
        tracer: Tracer | None = None,
        on_checkpoint: Callable[[int, np.ndarray, np.ndarray], object] | None = None,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Run a stream of operations (array of mmcore.run.ops.OP_DTYPE) to its end.

        Returns rc (int64: 0 or a count, negative for a failed op), value (uint64: page frame, or offset into pages) and pages (uint32:
        those of bulk allocations). on_chunk(done, total) is called between chunks of `chunk` ops, on_checkpoint(id, rc, value) behind each
        CHECKPOINT; Ctrl-C and exceptions take effect there and leave a valid machine.
        """
        from mmcore.run import engine
        from mmcore.run.engine import Stop
        from mmcore.run.ops import OP_DTYPE, Op

        if not isinstance(ops, np.ndarray) or ops.dtype != OP_DTYPE or ops.ndim != 1:
            raise TypeError(f"ops must be a one-dimensional array of OP_DTYPE, not {getattr(ops, 'dtype', type(ops).__name__)}")
        if chunk < 1:
            raise ValueError(f"chunk is {chunk}; it must be at least 1")
        ops = np.ascontiguousarray(ops)
        rc, value = np.zeros(len(ops), np.int64), np.zeros(len(ops), np.uint64)
        bulk = ops["a"][ops["op"] == int(Op.ALLOC_BULK)] if len(ops) else ops
        room = int(bulk.sum(dtype=np.float64)) if len(bulk) else 0
        limit = int(self.state.globals["nr_pages"][0]) * 64
        if room > limit:
            raise ValueError(f"bulk allocations of the stream ask for {room} pages; the limit is {limit}")
        pages = np.zeros(room, np.uint32)
        at, used, stop = 0, 0, Stop.BUDGET
        while stop is not Stop.DONE:
            stop, at, used = engine.run(self.state, ops, rc, value, at, chunk, pages, used, tracer)
            if stop == Stop.AT_CHECKPOINT:
                if on_checkpoint is not None:
                    on_checkpoint(int(ops["a"][at - 1]), rc, value)
                if at == len(ops):
                    stop = Stop.DONE
            if on_chunk is not None:
                on_chunk(at, len(ops))
        return rc, value, pages[:used]

    def _one_op(self, *, engine_op: str, **fields: int) -> int:
        from mmcore.run.ops import OP_DTYPE, Op

        ops = np.zeros(1, OP_DTYPE)
        ops["op"] = int(Op[engine_op])
        for name, value in fields.items():
            ops[name] = value
        return int(self.run(ops)[0][0])

    def kswapd_begin(self, node: int = 0) -> None:
        """kswapd starts to balance a node: boosts are noted, the zones' lists are held short."""
        self._node(node)
        self._one_op(engine_op="KSWAPD_BEGIN", a=node)

    def kswapd_end(self, node: int = 0) -> None:
        """kswapd's run is over: the boosts noted at its start are taken back."""
        self._node(node)
        self._one_op(engine_op="KSWAPD_END", a=node)

    def _node(self, node: int) -> None:
        if not 0 <= as_int(node, "node") < self.nr_nodes:
            raise ValueError(f"node is {node}; the machine has {self.nr_nodes}")

    # ------------------------------------------------------------ views

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
        from mmpy.proc.vmstat import dirty_thresholds, dirtyable_pages

        ratio, background = (int(self.sysctl[f"vm.dirty_{n}ratio"]) for n in ("", "background_"))  # type: ignore[call-overload]
        return dirty_thresholds(dirtyable_pages(self.zones, self.totalreserve_pages), ratio, background)

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
        state, config, extra = snapshot.read(path)
        self = cls.__new__(cls)
        try:
            stored = {str(k): as_int(v, str(k)) for k, v in extra.get("stored_sysctl", {}).items()}
            for name, value in stored.items():
                if not STORED[name][1] <= value <= STORED[name][2]:
                    raise ValueError(f"sysctl {name} is {value}; it must lie in {STORED[name][1]}..{STORED[name][2]}")
            if config["arch"] not in boot.ZONE_NAMES or len(boot.ZONE_NAMES[config["arch"]]) != int(state.globals["nr_zone_types"][0]):
                raise ValueError(f"architecture {config['arch']!r} does not fit the zones")
            if config["kernel"] not in KERNELS or KERNELS.index(config["kernel"]) != int(state.globals["kernel"][0]):
                raise ValueError(f"kernel {config['kernel']!r} is unknown, or not the one whose rules the state follows")
            self._adopt(state, config, stored)
            self.inferred = [str(line) for line in extra.get("inferred", [])]
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise snapshot.SnapshotFormatError(f"{path}: damaged configuration ({error})") from None
        return self

    def _canonical(self) -> State:
        """This machine's state with untouched blocks written out and without hints: equal machines have equal bytes."""
        lazy = self.state.zones["lazy_left"].any() or len(np.flatnonzero(self.state.lazy["end"]))
        emptied = (self.state.pools["live"] == 0) & (self.state.pools["used"] != 0)
        cached = self.state.get("mms")["vma_cache"].any()
        if not lazy and not cached and not emptied.any():
            return self.state
        state = self.state.copy()
        if lazy:
            boot.materialize(state)
        state.get("mms")["vma_cache"] = 0
        state.forget_pools(np.flatnonzero(emptied).tolist())
        return state

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Machine):
            return NotImplemented
        if self.stored_sysctl != other.stored_sysctl or self.arch != other.arch or self.kernel != other.kernel:
            return False
        return self.state.same_bytes(other.state) or self._canonical().same_bytes(other._canonical())

    __hash__ = None  # type: ignore[assignment]

    def diff(self, other: Machine) -> list[str]:
        """What differs between two machines, a line each; empty if they are equal. Lists first, then counters and pages."""
        if not isinstance(other, Machine):
            raise TypeError(f"diff() takes a Machine, not {type(other).__name__}")
        if (self.arch, self.kernel) != (other.arch, other.kernel):
            return [f"architecture and kernel: {self.arch} {self.kernel} and {other.arch} {other.kernel}"]
        out = allocstate.differences(self.allocator_state(), other.allocator_state())
        a, b = self.state, other.state
        if len(a.pages) != len(b.pages) or len(a.zones) != len(b.zones) or len(a.pcps) != len(b.pcps):
            return [*out, f"shape: {len(a.pages)} page frames, {len(a.zones)} zones, {self.nr_cpus} CPUs and "
                    f"{len(b.pages)}, {len(b.zones)}, {other.nr_cpus}"]  # fmt: skip
        for name in sorted(dict(self.sysctl).keys() | dict(other.sysctl).keys()):
            if self.sysctl[name] != other.sysctl[name]:
                out.append(f"sysctl {name}: {self.sysctl[name]} and {other.sysctl[name]}")
        out += [f"vmstat {n}: {v} and {other.vmstat[n]}" for n, v in self.vmstat.items() if v != other.vmstat[n]]
        if out or self == other:
            return out
        x, y = self._canonical(), other._canonical()
        for name in x.differing(y):
            p, q = x.get(name), y.get(name)
            if p.shape != q.shape:
                out.append(f"{name}: {len(p)} and {len(q)} records")
            elif p.dtype.names:
                fields = [f for f in p.dtype.names if not np.array_equal(p[f], q[f])]
                at = int(np.flatnonzero(p != q)[0])
                out.append(f"{name}: record {at} first, fields {', '.join(fields)}: {p[at]} and {q[at]}")
            else:
                out.append(f"{name} differ")
        return out

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

    def spawn(self, name: str = "a.out", *, cpu: int = 0, exec: bool = False, privileged: bool = False) -> Process:
        """A new process on `cpu` with an empty address space; exec=True: with an image, heap, stack and vdso, as after execve.

        privileged: with root's capabilities, which lift limits on locked memory, low addresses and the last of committed memory.
        """
        from mmpy import process

        return process.spawn(self, name, cpu, exec, privileged)

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

    @property
    def total_swap_pages(self) -> int:
        return self._global("total_swap_pages")

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
