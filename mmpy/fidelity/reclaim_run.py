"""A recorded reclaim run on a machine of ours: the machine, its group and program, and the accesses.

The program of the recordings: it is attached to a group with memory.max, maps its file or anonymous memory (or opens the file, to read
it), writes the anonymous pages once if they are to be there before, and then makes its accesses, one page each. After every `flush`-th
access it flushes its TLB, which drains the CPU's batches; at each checkpoint the group's memory.stat is read, which folds statistics.
At the end it reads memory.stat, then the system's files and the list of generations, whose buffers its group is charged for (what is
over the limit then is reclaimed), then memory.events, and last which pages are resident.

Models: the program, its group, swap on memory or a disk, devices by their kind. Simplifies: nothing else runs on the machine; what was
resident before is anonymous memory of another program. Omits: machines with several CPUs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from mmcore.base.trace import Tracer
from mmcore.base.vmscan_trace import watched
from mmcore.run.access import READ_BIT
from mmcore.sys import memcg_calls
from mmpy.fidelity.reclaim_case import (
    ACC_MAJOR,
    ACC_MINOR,
    ACC_READ,
    MISS,
    PAGE_ACTIVE,
    PAGE_DIRTY,
    PAGE_MAPPED,
    PAGE_REFERENCED,
    PAGE_RESIDENT,
    PAGE_SWAPPED,
    STAT_EVENTS,
    STAT_SIZES,
    VM_SIZES,
    Evictions,
    Parameters,
    Run,
    RunResult,
)
from mmpy.fidelity.reclaim_search import Unknowns, search
from mmpy.fidelity.reclaim_trace import evictions
from mmpy.flags import Pg
from mmpy.vmflags import Fault, Madv, Map
from mmpy.workloads import Accesses

if TYPE_CHECKING:
    from mmpy.files import FileObject
    from mmpy.machine import Machine
    from mmpy.memcg import Memcg
    from mmpy.process import Process

__all__ = ["RunResult", "Unknowns", "run_case", "simulate"]

PAGE, SECTOR = 4096, 512
SWAP_BYTES = 512 << 20
_NOTHING_ELSE = Unknowns()
NO_BITS = 0x80  # an access that was never made
_CHECKPOINT_VMSTAT = ("nr_free_pages", "pgscan_kswapd", "pgscan_direct", "pgsteal_kswapd", "pgsteal_direct")
_BITS = np.full(256, NO_BITS, np.uint8)
_BITS[Fault.HIT], _BITS[Fault.MINOR], _BITS[Fault.MAJOR] = 0, ACC_MINOR, ACC_MAJOR | ACC_READ
_BITS[Fault.MINOR | READ_BIT], _BITS[Fault.MAJOR | READ_BIT] = ACC_MINOR | ACC_READ, ACC_MAJOR | ACC_READ
LAST_READS = 4
"""Kernel pages for which the group is charged while the program reads further files between the last memory.stat and memory.events."""


class NotThereYet(ValueError):
    """A part of the simulator that a case needs does not exist yet."""


def simulate(run: Run, accesses: Accesses, on_chunk: Callable[[int, int], object] | None = None) -> RunResult:
    """Our run of a recorded case: the search over what the recording leaves open, on machines that are copies of one."""
    machine = boot(run.parameters, run.start)
    return search(run, lambda unknowns: run_case(run, accesses, unknowns, machine), on_chunk)


def run_case(run: Run, accesses: Accesses, unknowns: Unknowns = _NOTHING_ELSE, machine: Machine | None = None) -> RunResult:
    """One run of a recorded case. `machine`, from boot(), stays as it is."""
    p = run.parameters
    guest = Guest(machine.fork() if machine is not None else boot(p, run.start), p, unknowns, Tracer() if run.evictions else None)
    guest.prefill()
    before, acc, points = guest.counters(), np.full(p.n, NO_BITS, np.uint8), []
    folds = unknowns.folds(p.n)
    stops = sorted({int(ck["t"]) for ck in run.checkpoints} | {p.n} | folds)
    wanted, at = {int(ck["t"]) for ck in run.checkpoints}, 0
    for stop in stops:
        if not at <= stop <= p.n:
            continue
        acc[at:stop] = guest.access(accesses.pages[at:stop], accesses.writes[at:stop], at)
        at = stop
        if stop in folds:
            guest.fold()
        if stop in wanted:
            guest.read_stat()
            points.append(_point(stop, before, guest.counters(everything=False)))
    counters = guest.counters()
    counters |= guest.last_reads()
    counters = _delta(before, counters)
    pages = guest.pages()
    counters["misses"] = int(np.count_nonzero(acc & MISS))
    counters["resident_end"] = int(np.count_nonzero(pages & PAGE_RESIDENT))
    return RunResult(acc, counters, pages, tuple(points), guest.evictions())


def _point(t: int, before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    # Checkpoints have names of their own for sizes.
    out = _delta(before, after)
    out |= {"cur_" + name.removeprefix("end_"): value for name, value in out.items() if name.startswith("end_")}
    out |= {"vm_" + name: out["vmend_" + name] for name in VM_SIZES if "vmend_" + name in out}
    return {"t": t, **out}


def _delta(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    sizes = ("end_", "vmend_", "mem_", "swap_")
    return {name: value if name.startswith(sizes) else value - before.get(name, 0) for name, value in after.items()}


def boot(p: Parameters, start: Mapping[str, int]) -> Machine:
    """The machine of a run: memory, one CPU that forgets nothing between flushes, swap; without a group what was resident before."""
    from mmpy.machine import Machine

    machine = Machine(p.ram, cpus=1, thp="never", lru="classic", tlb="unbounded")
    for cost in ("access", "minor_fault", "zero_page", "fd_access"):
        machine.costs[cost] = 0  # when statistics are folded is searched for: no time passes by itself
    g = machine.state.vm_globals
    g["swappiness"], g["page_cluster"] = p.swappiness, 0
    g["fault_around_bytes"], g["ra_pages"] = p.fault_around, p.readahead_kb * 1024 // PAGE + 1
    if p.swap_device:
        _swapon(machine, p)
    if not p.limit_pages:
        _others(machine, start)
    return machine


def _swapon(machine: Machine, p: Parameters) -> None:
    if not hasattr(machine, "swapon") and p.limit_pages and not p.anon_pages:
        # No page of the run can go to swap: all that counts is that there is some.
        machine.state.vm_globals["nr_swap_pages"] = SWAP_BYTES // PAGE
        return
    machine.swapon(SWAP_BYTES, rotational=p.swap_device != "ram", synchronous=p.swap_device == "ram")


def _others(machine: Machine, start: Mapping[str, int]) -> None:
    # What else there was, so that as many pages are free as were: anonymous pages of another program, and the kernel's.
    if not (free := start.get("vm_nr_free_pages", 0)):
        return
    anon = start.get("vm_nr_inactive_anon", 0) + start.get("vm_nr_active_anon", 0)
    other = machine.spawn("other")
    if anon:
        address = other.mmap(anon * PAGE)
        other.touch(range(address, address + anon * PAGE, PAGE), write=True)
    surplus = sum(zone.nr_free_pages for zone in machine.zones) - free
    if surplus > 0:
        machine.alloc_pages_many(surplus)


def _need(owner: Any, name: str) -> Any:
    found = getattr(owner, name, None)
    if found is None:
        raise NotThereYet(f"reclaim cases need {type(owner).__name__}.{name}, which this version does not have yet")
    return found


@dataclass
class Guest:
    """The program of the recordings on a machine of ours."""

    machine: Machine
    parameters: Parameters
    unknowns: Unknowns
    process: Process
    file: FileObject | None
    group: Memcg | None
    anon_vpn: int
    file_vpn: int

    tracer: Tracer | None

    def __init__(self, machine: Machine, p: Parameters, unknowns: Unknowns, tracer: Tracer | None = None) -> None:
        self.machine, self.parameters, self.unknowns, self.tracer = machine, p, unknowns, tracer
        self.process, self.file, self.group, self.anon_vpn, self.file_vpn = machine.spawn("acc"), None, None, 0, 0
        if p.limit_pages:
            self.group = machine.memcg("run", max=p.limit_pages * PAGE)
            self.group.attach(self.process)
            if unknowns.k0:
                memcg_calls.charge_kernel(machine.state, self.group.id, unknowns.k0)
        anon = p.anon_pages
        if anon:
            flags = (Map.SHARED if p.mode == "shmem" else Map.PRIVATE) | Map.ANONYMOUS
            self.anon_vpn = self.process.mmap(anon * PAGE, flags=flags) // PAGE
        if p.pages > anon:
            self.file = machine.open("/data", (p.pages - anon) * PAGE)
            if p.mode != "pread":
                self.file_vpn = self.process.mmap((p.pages - anon) * PAGE, flags=Map.SHARED, file=self.file) // PAGE
        for start, pages in self._mappings():
            if p.madv_random:
                self.process.madvise(start * PAGE, pages * PAGE, Madv.RANDOM)
        if p.mlock:
            start, pages = self._mappings()[0]
            self.process.mlock(start * PAGE, min(p.mlock, pages) * PAGE)
        self._fill_batch(unknowns.fill)

    def _fill_batch(self, pages: int) -> None:
        # Pages of another program wait in the CPU's add batch, as many as the search says.
        self.machine._one_op(engine_op="LRU_ADD_DRAIN")
        if pages:
            other = self.machine.spawn("other")
            address = other.mmap(pages * PAGE)
            other.touch(range(address, address + pages * PAGE, PAGE), write=True)

    def _mappings(self) -> list[tuple[int, int]]:
        p = self.parameters
        both = ((self.anon_vpn, p.anon_pages), (self.file_vpn, p.pages - p.anon_pages))
        return [(start, pages) for start, pages in both if start and pages]

    def prefill(self) -> None:
        """Write all anonymous pages once, in order, where the recorded program did."""
        if self.parameters.prefill and self.parameters.anon_pages:
            pages = np.arange(self.parameters.anon_pages, dtype=np.uint64) + np.uint64(self.anon_vpn)
            self._touch(pages, True, 0, 0)
            self.read_stat()

    def access(self, pages: np.ndarray, writes: np.ndarray, first: int) -> np.ndarray:
        """Make accesses; `first` is the number of the first one. Their bits."""
        p = self.parameters
        if p.mode == "pread":
            return self._read(pages, writes)
        anon = np.uint64(p.anon_pages)
        vpns = np.where(pages < anon, pages + np.uint64(self.anon_vpn), pages - anon + np.uint64(self.file_vpn))
        return self._touch(vpns, writes, p.flush, first)

    def _touch(self, vpns: np.ndarray, writes: np.ndarray | bool, flush: int, first: int) -> np.ndarray:
        from mmcore.run.access import access

        codes = np.full(len(vpns), Fault.OOM, np.uint8)
        told = {"flush": flush, "first": first} if flush else {}
        self._watched(lambda: access(self.machine.state, self.process.mm, vpns, writes, 0, codes, reads=True, **told))
        return _BITS[codes]

    def _read(self, pages: np.ndarray, writes: np.ndarray) -> np.ndarray:
        # Rows of reads in one call each; a write is a call of its own.
        out, at = np.full(len(pages), NO_BITS, np.uint8), 0
        for end in [*np.flatnonzero(writes).tolist(), len(pages)]:
            if at < end:
                self._watched(partial(self._read_row, pages[at:end], out[at:end]))
            if end < len(pages):
                self._watched(partial(self._write_page, int(pages[end]), out[end : end + 1]))
            at = end + 1
        return out

    def _read_row(self, pages: np.ndarray, out: np.ndarray) -> None:
        from mmcore.run import access

        assert self.file is not None
        codes = np.full(len(pages), Fault.OOM, np.uint8)
        read_pages = _need(access, "read_pages")
        read_pages(self.machine.state, self.process.mm, self.file.handle, np.ascontiguousarray(pages), 0, codes, reads=True)
        came = codes & READ_BIT != 0
        codes &= np.uint8(~READ_BIT & 0xFF)
        out[codes == 0], out[(codes == 1) | came & (codes == 0)] = 0, ACC_READ

    def _write_page(self, page: int, out: np.ndarray) -> None:
        from mmcore.sys import file_calls

        assert self.file is not None
        file_calls.write(self.machine.state, self.file.handle, page * PAGE, PAGE)
        out[0] = 0

    def _watched(self, call: Callable[[], object]) -> None:
        if self.tracer is None:
            call()
        else:
            watched(self.machine.state, self.tracer, call)

    def read_stat(self) -> None:
        """The program reads its group's memory.stat."""
        if self.group is not None:
            self.group.stat()

    def fold(self) -> None:
        """The periodic fold of statistics falls here."""
        memcg_calls.flush(self.machine.state, 0, True)

    def last_reads(self) -> dict[str, int]:
        """The program reads what else it reads at the end; memory.events comes last."""
        if self.group is None:
            return {}
        if memcg_calls.charge_kernel(self.machine.state, self.group.id, LAST_READS) > 0:
            memcg_calls.charge_kernel(self.machine.state, self.group.id, -LAST_READS)
        return {f"events_{name}": value for name, value in self.group.events.items()}

    def counters(self, everything: bool = True) -> dict[str, int]:
        """What is counted, under the recording's names; of the machine's counters only those of checkpoints unless `everything`."""
        out = {"majflt": self.process.majflt, "minflt": self.process.minflt}
        if self.group is not None:
            stat = self.group.stat()
            out |= {f"ms_{name}": stat[name] for name in STAT_EVENTS if name in stat}
            out |= {f"end_{name}": stat[name] // PAGE for name in STAT_SIZES if name in stat}
            out |= {f"events_{name}": value for name, value in self.group.events.items()}
            out |= {"mem_current_end": self.group.current, "mem_peak": self.group.peak, "swap_current_end": self.group.swap_current}
        vmstat = self.machine.vmstat
        # Sectors that the program's task is charged for: what was read, and what was dirtied of files; it is the only one that does.
        out["inblock"] = int(vmstat["pgpgin"]) * 2
        out["oublock"] = int(vmstat["nr_dirtied"]) * (PAGE // SECTOR)
        for name in vmstat if everything else _CHECKPOINT_VMSTAT:
            out[f"vm_{name}"] = out[f"vmend_{name}"] = int(vmstat[name])
        return out

    def pages(self) -> np.ndarray:
        """Bits of each page of the run."""
        p = self.parameters
        out = np.zeros(p.pages, np.uint8)
        if self.file is not None:
            from mmcore.sys import file_calls

            indices = file_calls.cached(self.machine.state, self.file.handle)[0]
            out[p.anon_pages + indices.astype(np.int64)] |= PAGE_RESIDENT
        for start, pages in self._mappings():
            first = 0 if start == self.anon_vpn else p.anon_pages
            self._mapped(out[first : first + pages], start, pages)
        return out

    def _mapped(self, out: np.ndarray, start: int, pages: int) -> None:
        from mmpy.proc.pid import PM_PFN_MASK, PM_PRESENT, PM_SWAP

        entries = self.process.pagemap(start * PAGE, pages)
        present = entries & np.uint64(PM_PRESENT) != 0
        out[present] |= PAGE_RESIDENT | PAGE_MAPPED
        out[entries & np.uint64(PM_SWAP) != 0] |= PAGE_SWAPPED
        flags = self.machine.pages["flags"][(entries[present] & np.uint64(PM_PFN_MASK)).astype(np.int64)]
        for bit, flag in _PAGE_FLAGS.items():
            out[np.flatnonzero(present)[flags & flag != 0]] |= bit

    def evictions(self) -> Evictions | None:
        """What the tracer saw; None if nothing was traced."""
        return None if self.tracer is None else evictions(self.tracer.take())


_PAGE_FLAGS = {PAGE_REFERENCED: int(Pg.REFERENCED), PAGE_ACTIVE: int(Pg.ACTIVE), PAGE_DIRTY: int(Pg.DIRTY)}
