"""The kernel's own mappings of a machine: linear map, vmalloc, vmap, kmap.

Models: __pa, __va, virt_to_page and relatives; vmalloc, vfree, vmap, vmallocinfo (mm/vmalloc.c); kmap, kunmap, kmap_local_page
(mm/highmem.c), v6.12. Simplifies: a kmap that would sleep for a slot is refused; kmap_local stacks belong to CPUs, not to tasks.
Omits: kmap of an address that a kmap_local finds mapped, TLB flushes of single kmap_local slots.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mmcore.alloc import page_free
from mmcore.phys.vm_defaults import PAGING
from mmcore.sys import vmalloc as core
from mmcore.vm.layout import KMAP_LOCAL_SLOTS, KMAP_SLOTS, PAGE_SIZE, KernelLayout
from mmpy.errors import GfpError, PageAllocFailure
from mmpy.flags import GFP_KERNEL, gfp_text

if TYPE_CHECKING:
    from mmcore.base.state import State
    from mmpy.machine import Machine

_EINVAL, _ENOENT, _ENOMEM, _EBUSY, _EGFP = -22, -2, -12, -16, -1006
_POOL_KMAPS, _POOL_KMAP_LOCALS = 10, 11
_PAGING_NAMES = {paging.number: name for name, paging in PAGING.items()}
_LOWMEM_ZONES = ("DMA", "Normal")


# ---------------------------------------------------------------- layout and linear map

def lowmem_end(machine: Machine) -> int:
    """Page frame at which the direct map ends: all memory on 64-bit machines, lowmem on 32-bit ones."""
    if machine.arch != "i386":
        return len(machine.state.pages)
    spans = {z.name: z.start_pfn + z.spanned for z in machine.zones if z.spanned}
    if "HighMem" in spans:
        return max(end for name, end in spans.items() if name in _LOWMEM_ZONES)
    return min(max(spans.values()), KernelLayout(paging_name(machine.state), 1 << 24).lowmem_pages)


def paging_name(state: State) -> str:
    """Name of the machine's page-table shape: "4level", "pae" and so on (mmcore.phys.vm_defaults.PAGING)."""
    return _PAGING_NAMES[int(state.vm_globals["paging"][0])]


def kernel_layout(machine: Machine) -> KernelLayout:
    """The areas of the machine's kernel."""
    paging, pages = paging_name(machine.state), len(machine.state.pages)
    return KernelLayout(paging, pages, lowmem_pages=lowmem_end(machine)) if machine.arch == "i386" else KernelLayout(paging, pages)


class LinearMap:
    """The direct map of a machine's memory. Every conversion takes an int, or an array (and returns one of uint64).

    ValueError names an address or page frame that lies outside, such as a vmalloc address or a page frame of HighMem.
    """

    def __init__(self, machine: Machine) -> None:
        self.layout = kernel_layout(machine)

    @property
    def start(self) -> int:
        return self.layout.direct.start

    @property
    def end(self) -> int:
        """First address behind what is mapped."""
        return self.layout.page_offset + self.layout.lowmem_pages * PAGE_SIZE

    def pa(self, va: Any) -> Any:
        """Physical address behind a kernel address (__pa)."""
        return self.layout.pa(va)

    def va(self, pa: Any) -> Any:
        """Kernel address of a physical address (__va)."""
        return self.layout.va(pa)

    def pfn(self, va: Any) -> Any:
        """Page frame that a kernel address lies in."""
        return self.layout.pfn_of(va)

    def virt_to_page(self, va: Any) -> Any:
        """Address of the descriptor (struct page) of the page that a kernel address lies in; 64-bit machines only."""
        return self.layout.virt_to_page(va)

    def pfn_to_page(self, pfn: Any) -> Any:
        """Address of a page frame's descriptor; 64-bit machines only."""
        return self.layout.pfn_to_page(pfn)

    def page_to_pfn(self, page: Any) -> Any:
        """Page frame of a descriptor's address; 64-bit machines only."""
        return self.layout.page_to_pfn(page)

    def page_address(self, pfn: Any) -> Any:
        """Kernel address of a page frame."""
        return self.layout.page_address(pfn)

    def __repr__(self) -> str:
        return f"LinearMap({self.layout.paging}, {self.start:#x}..{self.end - 1:#x})"


# ---------------------------------------------------------------- vmalloc

@dataclass(frozen=True, slots=True, eq=False)
class VmallocArea:
    """An area of vmalloc or vmap: address, size (bytes, whole pages, no guard), nr_pages."""

    machine: Machine
    address: int
    size: int
    nr_pages: int

    def pfns(self) -> np.ndarray:
        """Page frames behind it, in order: array of uint32."""
        return core.pfns(self.machine.state, self.address)

    def free(self, *, cpu: int = 0) -> None:
        """vfree(): give it back."""
        vfree(self.machine, self.address, cpu=cpu)

    def __repr__(self) -> str:
        return f"VmallocArea({self.address:#x}, {self.size} bytes, {self.nr_pages} pages)"


def vmalloc(
    machine: Machine, size: int | str, *, huge: bool = False, node: int | None = None, gfp: int = GFP_KERNEL, cpu: int = 0, caller: str = ""
) -> VmallocArea:
    """vmalloc() of `size` bytes (or "64M"), with `huge` vmalloc_huge(), on behalf of a CPU; `caller` is shown in vmallocinfo().

    ValueError for size 0, GfpError for a mask that vmalloc does not support, PageAllocFailure (a MemoryError) without memory or addresses.
    """
    nbytes = _bytes(size)
    address = core.vmalloc(machine.state, nbytes, gfp, cpu, -1 if node is None else node, caller, huge)
    return _area(machine, address, nbytes, gfp)


def vrealloc(
    machine: Machine, address: int | VmallocArea, size: int | str, *, gfp: int = GFP_KERNEL, cpu: int = 0, caller: str = ""
) -> VmallocArea | None:
    """vrealloc(): the same area where it is large enough, else a new one, the old one freed; None for size 0 (freed).

    Errors as vmalloc() and vfree() raise them; the old area is kept then.
    """
    nbytes, at = _bytes(size), _address(address)
    found = core.vrealloc(machine.state, at, nbytes, gfp, cpu, -1, caller)
    if found in (_EINVAL, _ENOENT, _EBUSY):
        _refuse_free(machine, at, found)
    return _area(machine, found, nbytes, gfp) if nbytes else None


def vfree(machine: Machine, address: int | VmallocArea, *, cpu: int = 0) -> None:
    """vfree(), or vunmap() of what vmap() gave: `address` is where it starts; 0 does nothing. ValueError names what is there instead."""
    at = _address(address)
    rc = core.vfree(machine.state, at, cpu)
    if rc:
        _refuse_free(machine, at, rc)


def vmap(machine: Machine, pfns: Any, *, cpu: int = 0, caller: str = "") -> VmallocArea:
    """vmap(): map page frames in a row; they stay their owner's."""
    frames = np.ascontiguousarray(pfns)
    if frames.size and frames.dtype.kind not in "ui":
        raise TypeError(f"pfns must be integers, not {frames.dtype}")
    limit = len(machine.state.pages)
    if frames.size and (int(frames.min()) < 0 or int(frames.max()) >= limit):
        bad = int(frames.min()) if int(frames.min()) < 0 else int(frames.max())
        raise ValueError(f"page frame {bad:#x} is none of the machine's, which lie below {limit:#x}")
    frames = frames.astype(np.uint32).reshape(-1)
    return _area(machine, core.vmap(machine.state, frames, cpu, caller), len(frames) * PAGE_SIZE, 0)


def _bytes(size: int | str) -> int:
    from mmcore.phys.memmap import parse_size

    return parse_size(size, "size") * PAGE_SIZE if isinstance(size, str) else size


def _address(address: int | VmallocArea) -> int:
    return address.address if isinstance(address, VmallocArea) else address


def _area(machine: Machine, address: int, size: int, gfp: int) -> VmallocArea:
    if address == _EINVAL:
        raise ValueError(f"size is {size}; it must be at least 1 byte")
    if address == _EGFP:
        raise GfpError(f"vmalloc does not support gfp {gfp_text(gfp)}: it must be able to sleep, without NORETRY, RETRY_MAYFAIL and COMP")
    if address == _ENOMEM:
        free = int(machine.state.zones["vm_stat"][:, 0].sum()) * PAGE_SIZE
        raise PageAllocFailure(f"vmalloc: {size} bytes are not to be had; {free} of {machine.totalram_pages * PAGE_SIZE} bytes are free")
    if address < 0:
        raise ValueError(f"vmalloc of {size} bytes, gfp {gfp_text(gfp)} is refused (code {address})")
    area = core.find(machine.state, address)
    end = int(area["end"])
    return VmallocArea(machine, address, end - address - PAGE_SIZE, int(area["nr_pages"]))


def _refuse_free(machine: Machine, address: int, rc: int) -> None:
    if rc == _EBUSY:
        raise ValueError(f"{address:#x} is the descriptor array of another area and goes with it")
    for area in core.areas(machine.state, True).tolist():
        start, end, state = area[0], area[1], area[4]
        if start <= address < end:
            where = f"the area {start:#x}..{end - 1:#x}"
            if state == core.STATES["busy"]:
                inside = "starts" if address == start else "lies inside"
                raise ValueError(f"{address:#x} {inside} {where}; what vmalloc or vmap returned is needed: {start:#x}")
            if state in (core.STATES["lazy"], core.STATES["pooled"]):
                raise ValueError(f"{address:#x} is not in use: {where} was freed already")
    start, end = core.bounds(machine.state)
    raise ValueError(f"no area of vmalloc starts at {address:#x}; they lie in {start:#x}..{end - 1:#x}")


def vmalloc_total_kib(state: State) -> int:
    """VmallocTotal of /proc/meminfo."""
    start, end = core.bounds(state)
    last_page = paging_name(state) in ("4level", "5level")  # their VMALLOC_END is the last byte
    return (end - start + (PAGE_SIZE - 1 if last_page else 0)) // 1024


def vmalloc_used_kib(state: State) -> int:
    """VmallocUsed of /proc/meminfo: pages behind vmalloc areas."""
    return core.figures(state)["nr_pages"] * PAGE_SIZE // 1024


def vmallocinfo(machine: Machine) -> str:
    """The text of /proc/vmallocinfo, as a privileged reader sees it: areas by vmap node, then those that wait for a purge."""
    state = machine.state
    areas = core.areas(state, True)
    nodes = max(core.figures(state)["nodes"], 1)
    digits = 16 if machine.arch == "x86_64" else 8
    shift = 16 if nodes > 1 else 0
    busy = areas[areas["state"] == core.STATES["busy"]]
    lazy = areas[areas["state"] == core.STATES["lazy"]]
    home = (busy["start"] >> np.uint64(shift)) % np.uint64(nodes)
    lines = [_busy_line(machine, busy[i], digits) for i in np.lexsort((busy["start"], home))]
    for i in np.lexsort((lazy["start"], lazy["node"])):
        start, end = int(lazy["start"][i]), int(lazy["end"][i])
        lines.append(f"0x{start:0{digits}x}-0x{end:0{digits}x} {end - start:7d} unpurged vm_area")
    return "".join(line + "\n" for line in lines)


def _busy_line(machine: Machine, area: Any, digits: int) -> str:
    start, end, flags = int(area["start"]), int(area["end"]), int(area["flags"])
    text = f"0x{start:0{digits}x}-0x{end:0{digits}x} {end - start:7d}"
    if area["caller"] >= 0:
        text += f" {machine.state.names[int(area['caller'])]}"
    own = flags & core.FLAGS["vmalloc"]
    if own:
        text += f" pages={int(area['nr_pages'])}"
    if flags & core.FLAGS["ioremap"]:
        text += f" phys=0x{int(area['phys']):016x}"
    text += "".join(f" {name}" for name in ("ioremap", "vmalloc", "vmap", "user") if flags & core.FLAGS[name])
    if area["array"]:
        text += " vpages"
    if own and machine.arch == "x86_64":
        text += _nodes_text(machine, core.pfns(machine.state, start))
    return text


def _nodes_text(machine: Machine, pfns: np.ndarray) -> str:
    if machine.nr_nodes == 1:
        return f" N0={len(pfns)}"
    zones = np.array([page_free.zone_index(machine.state, int(pfn)) for pfn in pfns])
    counts = np.bincount(machine.state.zones["node"][zones], minlength=machine.nr_nodes)
    return "".join(f" N{node}={count}" for node, count in enumerate(counts.tolist()) if count)


# ---------------------------------------------------------------- kmap

def _pfn(machine: Machine, pfn: int) -> int:
    if isinstance(pfn, bool) or not hasattr(pfn, "__index__"):
        raise TypeError(f"pfn must be an integer, not {type(pfn).__name__}")
    pfn, limit = pfn.__index__(), len(machine.state.pages)
    if not 0 <= pfn < limit or page_free.zone_index(machine.state, pfn) < 0:
        raise ValueError(f"pfn is {pfn:#x}; it must be a page frame of the machine, below {limit:#x} and in a zone")
    return pfn


def _cpu(machine: Machine, cpu: int) -> int:
    if isinstance(cpu, bool) or not hasattr(cpu, "__index__"):
        raise TypeError(f"cpu must be an integer, not {type(cpu).__name__}")
    if not 0 <= cpu < machine.nr_cpus:
        raise ValueError(f"cpu is {cpu}; it must lie in 0..{machine.nr_cpus - 1}")
    return cpu.__index__()


def _pool(state: State, name: str, number: int, count: int) -> np.ndarray:
    # The first `count` records of a pool that never gives any back.
    row = state.pools[number]
    if row["used"] < count:
        if row["capacity"] < count:
            raise MemoryError(f"{name}: {count} records are needed, {row['capacity']} can be had")
        row["used"] = row["live"] = count
    return state.get(name)


def kmap(machine: Machine, pfn: int) -> int:
    """kmap(): a kernel address for a page. Lowmem has one; a page of HighMem takes, or shares, one of the persistent slots.

    RuntimeError where the kernel would sleep because all slots are in use.
    """
    pfn = _pfn(machine, pfn)
    low = lowmem_end(machine)
    layout = kernel_layout(machine)
    if pfn < low:
        return int(layout.page_address(pfn))
    record = _pool(machine.state, "kmaps", _POOL_KMAPS, 1)[0]
    slots = KMAP_SLOTS[layout.paging]
    count, frames = record["count"][:slots], record["pfn"][:slots]
    mapped = np.flatnonzero((count > 0) & (frames == pfn))
    slot = int(mapped[0]) if len(mapped) else _new_slot(record, count, frames)
    if not len(mapped):
        count[slot], frames[slot] = 1, pfn
    count[slot] += 1
    return layout.kmap_address(slot)


def _new_slot(record: Any, count: np.ndarray, frames: np.ndarray) -> int:
    slots = len(count)
    if (count > 1).all():
        raise RuntimeError(f"kmap would sleep: all {slots} slots are in use")
    while True:
        record["cursor"] = (int(record["cursor"]) + 1) % slots
        if record["cursor"] == 0:
            unused = count == 1
            if unused.any():
                count[unused] = frames[unused] = 0
                record["nr_flushes"] += 1
        if count[record["cursor"]] == 0:
            return int(record["cursor"])


def kunmap(machine: Machine, pfn: int) -> None:
    """kunmap(): one user of a page's slot less; the mapping stays usable until the slots are used up. ValueError if nobody uses it."""
    pfn = _pfn(machine, pfn)
    if pfn < lowmem_end(machine):
        return
    records = machine.state.get("kmaps")
    count, frames = (records[0]["count"], records[0]["pfn"]) if len(records) else (np.zeros(0, np.uint32),) * 2
    mapped = np.flatnonzero((count > 1) & (frames == pfn))
    if not len(mapped):
        raise ValueError(f"kunmap of page frame {pfn:#x}, which nobody has mapped")
    count[mapped[0]] -= 1


def kmap_slots(machine: Machine) -> list[tuple[int, int, int, int]]:
    """Persistent slots that are mapped: (slot, address, page frame, count), count 1 for one that nobody uses."""
    records = machine.state.get("kmaps")
    if not len(records):
        return []
    layout, count, frames = kernel_layout(machine), records[0]["count"], records[0]["pfn"]
    return [(slot, layout.kmap_address(slot), int(frames[slot]), int(count[slot])) for slot in np.flatnonzero(count).tolist()]


def kmap_flushes(machine: Machine) -> int:
    """How often the slots were used up and a TLB flush followed."""
    records = machine.state.get("kmaps")
    return int(records[0]["nr_flushes"]) if len(records) else 0


def kmap_local(machine: Machine, pfn: int, *, cpu: int = 0) -> int:
    """kmap_local_page(): a kernel address on one CPU. A page of HighMem takes the next of the CPU's 16 stacked slots.

    RuntimeError when they are used up.
    """
    pfn, cpu = _pfn(machine, pfn), _cpu(machine, cpu)
    layout = kernel_layout(machine)
    if pfn < layout.lowmem_pages:
        return int(layout.page_address(pfn))
    stack = _pool(machine.state, "kmap_locals", _POOL_KMAP_LOCALS, machine.nr_cpus)[cpu]
    depth = int(stack["depth"])
    if depth == KMAP_LOCAL_SLOTS:
        raise RuntimeError(f"kmap_local: all {KMAP_LOCAL_SLOTS} slots of CPU {cpu} are in use")
    stack["pfn"][depth] = pfn
    stack["depth"] = depth + 1
    return layout.kmap_local_address(cpu, depth)


def kunmap_local(machine: Machine, address: int, *, cpu: int = 0) -> None:
    """kunmap_local(): undo the CPU's latest kmap_local. ValueError for an address that is not the latest; lowmem addresses are ignored."""
    cpu = _cpu(machine, cpu)
    if isinstance(address, bool) or not hasattr(address, "__index__"):
        raise TypeError(f"address must be an integer, not {type(address).__name__}")
    layout = kernel_layout(machine)
    at = address.__index__() & ~(PAGE_SIZE - 1)
    if layout.page_offset <= at < layout.page_offset + layout.lowmem_pages * PAGE_SIZE:
        return
    stacks = machine.state.get("kmap_locals")
    depth = int(stacks[cpu]["depth"]) if len(stacks) else 0
    latest = layout.kmap_local_address(cpu, depth - 1) if depth else None
    if at != latest:
        last = f"the latest is {latest:#x}" if latest else "there is none"
        raise ValueError(f"{at:#x} is not the latest kmap_local of CPU {cpu}: {last}")
    stacks[cpu]["depth"] = depth - 1
    stacks[cpu]["pfn"][depth - 1] = 0
