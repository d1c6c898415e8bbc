"""Rows about virtual memory: faults and unmapping beside the kernel that runs this, walks beside random loads, bytes of tables."""

from __future__ import annotations

import mmap
import time
from collections.abc import Iterator
from functools import partial

import numpy as np

from bench.build import client
from bench.harness import Row, Runs, Settings, alternate, best_of_batches, cpu_seconds, fixed, row_of, rows
from bench.machines import PAGE_BYTES, warm_array
from mmcore.run.access import access
from mmpy import Machine
from mmpy.process import Process
from mmpy.vmflags import Madv

MADV_NOHUGEPAGE = 15
MADV_POPULATE_WRITE = 23


def kernel_populate(nr_pages: int) -> tuple[float, float]:
    """CPU seconds that the kernel at hand takes to populate fresh anonymous memory by MADV_POPULATE_WRITE, and to unmap it."""
    area = mmap.mmap(-1, nr_pages * PAGE_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    area.madvise(MADV_NOHUGEPAGE)
    filled = cpu_seconds(lambda: area.madvise(MADV_POPULATE_WRITE))
    return filled, cpu_seconds(area.close)


def kernel_touch(nr_pages: int) -> float:
    """CPU seconds of one write to each page of fresh anonymous memory, by numpy."""
    area = mmap.mmap(-1, nr_pages * PAGE_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    area.madvise(MADV_NOHUGEPAGE)
    view = np.frombuffer(area, np.uint8)[::PAGE_BYTES]
    began = time.thread_time_ns()
    view[:] = 1
    spent = (time.thread_time_ns() - began) * 1e-9
    del view
    area.close()
    return spent


def mapped_process(nr_pages: int) -> tuple[Machine, Process, int]:
    """A machine with a process that maps `nr_pages` pages of anonymous memory, none present yet; twice as much memory as that."""
    machine = Machine(max(nr_pages * 2, 1 << 18) * PAGE_BYTES, thp="never")
    process = machine.spawn("bench")
    return machine, process, process.mmap(nr_pages * PAGE_BYTES)


def fill(process: Process, address: int, nr_pages: int) -> None:
    process.madvise(address, nr_pages * PAGE_BYTES, Madv.POPULATE_WRITE)


@rows("vm.fault_in", "vm.unmap", "vm.touch")
def faults(settings: Settings) -> Iterator[Row]:
    """Fresh anonymous memory of one process: all structures kept (tables, rmap, LRU batches and lists, counters)."""
    n = settings.size(1 << 20, 1 << 18, 1 << 12)
    _machine, process, address = mapped_process(n)
    fill(process, address, n)
    process.munmap(address, n * PAGE_BYTES)
    ours: dict[str, float] = {}
    theirs: dict[str, float] = {}

    def our_side() -> float:
        at = process.mmap(n * PAGE_BYTES)
        ours["fault"] = cpu_seconds(lambda: fill(process, at, n))
        ours["unmap"] = cpu_seconds(lambda: process.munmap(at, n * PAGE_BYTES))
        return ours["fault"]

    def their_side() -> float:
        theirs["fault"], theirs["unmap"] = kernel_populate(n)
        return theirs["fault"]

    unmaps: tuple[list[float], list[float]] = ([], [])

    def ours_noted() -> float:
        fault = our_side()
        unmaps[0].append(ours["unmap"])
        return fault

    def theirs_noted() -> float:
        fault = their_side()
        unmaps[1].append(theirs["unmap"])
        return fault

    runs = alternate(ours_noted, theirs_noted, settings)
    note = f"{n} pages of 4 KiB, one process, warm arrays"
    yield row_of("vm.fault_in", "ns/page", runs.scaled(1e9 / n), "this kernel's MADV_POPULATE_WRITE of as many pages in this process",
                 bar=1 / 20, stretch=1 / 60, note=f"madvise(POPULATE_WRITE): {note}")  # fmt: skip
    kept = Runs(unmaps[0][-settings.repeat :], unmaps[1][-settings.repeat :])
    yield row_of("vm.unmap", "ns/page", kept.scaled(1e9 / n), "this kernel's munmap of the same pages",
                 bar=1 / 10, stretch=1 / 30, note=f"munmap: {note}")  # fmt: skip

    def our_touch() -> float:
        at = process.mmap(n * PAGE_BYTES)
        addresses = np.arange(at, at + n * PAGE_BYTES, PAGE_BYTES, dtype=np.uint64)
        spent = cpu_seconds(lambda: process.touch(addresses, write=True))
        process.munmap(at, n * PAGE_BYTES)
        return spent

    runs = alternate(our_touch, lambda: kernel_touch(n), settings)
    yield row_of("vm.touch", "ns/page", runs.scaled(1e9 / n), "this kernel's page faults: one write to each page by numpy",
                 note=f"touch(addresses, write=True) through Python: {note}")  # fmt: skip


def zipf(nr_pages: int, n: int, theta: float = 0.99, seed: int = 1) -> np.ndarray:
    """n page indices, ranks drawn by Zipf's law and scattered over the pages; array of uint64."""
    rng = np.random.default_rng(seed)
    steps = np.cumsum(np.arange(1, nr_pages + 1, dtype=np.float64) ** -theta)
    ranks = np.searchsorted(steps, rng.random(n) * steps[-1])
    return rng.permutation(nr_pages).astype(np.uint64)[np.minimum(ranks, nr_pages - 1)]


class Mapped:
    """A process with resident memory, a walk of it from C, and the yardstick: as many loads over as many bytes as its entries take."""

    def __init__(self, nr_pages: int, steps: int) -> None:
        self.nr_pages = nr_pages
        self.machine, self.process, address = mapped_process(nr_pages)
        fill(self.process, address, nr_pages)
        self.base = np.uint64(address >> 12)
        self.words = warm_array(np.ones(nr_pages, np.uint64))
        self.entries, self.levels = warm_array(np.empty(steps, np.uint64)), warm_array(np.empty(steps, np.uint8))
        self.core = client()

    def walk(self, at: np.ndarray) -> float:
        """CPU seconds of walks to the pages `at` of the mapping."""
        vpns = at + self.base
        return best_of_batches(lambda: self.core.walk_bulk(self.machine.state, self.process.mm, vpns, self.entries, self.levels), 3)

    def loads(self, at: np.ndarray) -> float:
        return best_of_batches(lambda: self.core.random_loads(self.words, at, self.entries), 3)

    def access(self, at: np.ndarray) -> float:
        """CPU seconds of as many reads by run.access; all of them hit."""
        vpns = at + self.base
        return best_of_batches(lambda: access(self.machine.state, self.process.mm, vpns, None), 3)


@rows("vm.walk", "vm.table_bytes", "vm.mapped_bytes")
def walk_large(settings: Settings) -> Iterator[Row]:
    """Bulk walks at random beside as many independent random loads."""
    n, steps = settings.size(1 << 26, 1 << 23, 1 << 14), settings.size(1 << 22, 1 << 20, 1 << 12)
    mapped = Mapped(n, steps)
    picks = np.random.default_rng(1).integers(0, n, steps, dtype=np.uint64)
    size = f"2^{n.bit_length() - 1} mapped pages" + ("" if n == 1 << 26 else " (the bar speaks of 2^26)")
    runs = alternate(lambda: mapped.walk(picks), lambda: mapped.loads(picks), settings)
    yield row_of("vm.walk", "ns/walk", runs.scaled(1e9 / steps), "independent random loads of 8 bytes over as many bytes",
                 bar=1.5, stretch=1.1, note=f"{steps} walks of {size}")  # fmt: skip
    tables, state = mapped.process.page_table_bytes, mapped.machine.state
    hot, cold = state.pages.itemsize, state.meta.itemsize
    yield fixed("vm.table_bytes", "bytes", tables / n, "1 byte", bar=8.1, stretch=4.1, note=f"page tables / pages, {size} in a row")
    yield fixed("vm.mapped_bytes", "bytes", tables / n + hot + cold, "1 byte", bar=40, stretch=24,
                note=f"page record ({hot} bytes hot, {cold} cold; faults touch the hot ones alone) and tables of {size}")  # fmt: skip


@rows("vm.walk_2^20", "vm.walk_zipf_2^20", "vm.walk_2^24", "vm.walk_zipf_2^24", "vm.access_hit")
def walk_curves(settings: Settings) -> Iterator[Row]:
    """The same at two sizes, at random and by Zipf's law; accesses that hit beside the bulk walk."""
    steps = settings.size(1 << 22, 1 << 20, 1 << 12)
    for name, n in (("2^20", settings.size(1 << 20, tiny=1 << 12)), ("2^24", settings.size(1 << 24, 1 << 22, 1 << 13))):
        mapped = Mapped(n, steps)
        streams = {"": np.random.default_rng(1).integers(0, n, steps, dtype=np.uint64), "zipf_": zipf(n, steps)}
        for kind, at in streams.items():
            runs = alternate(partial(mapped.walk, at), partial(mapped.loads, at), settings)
            yield row_of(f"vm.walk_{kind}{name}", "ns/walk", runs.scaled(1e9 / steps), "as many loads of 8 bytes at the same indices",
                         note=f"{steps} walks of 2^{n.bit_length() - 1} mapped pages{', zipf 0.99' if kind else ''}")  # fmt: skip
        if name == "2^24":
            at = streams["zipf_"]
            runs = alternate(partial(mapped.access, at), partial(mapped.walk, at), settings)
            yield row_of("vm.access_hit", "ns/access", runs.scaled(1e9 / steps), "the bulk walk of the same pages", bar=3, stretch=1.5,
                         note=f"run.access of resident pages, zipf 0.99, 2^{n.bit_length() - 1} pages, reading")  # fmt: skip


@rows("vm.tlb_cost", "vm.tlb_cost_zen")
def tlb_cost(settings: Settings) -> Iterator[Row]:
    """Accesses to resident pages through TLBs beside the same accesses without any."""
    n, steps = settings.size(1 << 20, 1 << 18, 1 << 12), settings.size(1 << 22, 1 << 20, 1 << 12)
    stream = zipf(n, steps)
    sides = {}
    for kind in ("off", "unbounded", "zen"):
        machine = Machine(max(n * 2, 1 << 18) * PAGE_BYTES, thp="never", tlb=kind)
        process = machine.spawn("bench")
        address = process.mmap(n * PAGE_BYTES)
        fill(process, address, n)
        sides[kind] = (machine.state, process.mm, stream + np.uint64(address >> 12))

    def side(kind: str) -> float:
        state, mm, vpns = sides[kind]
        return best_of_batches(lambda: access(state, mm, vpns, None), 3)

    for kind in ("unbounded", "zen"):
        runs = alternate(lambda kind=kind: side(kind), lambda: side("off"), settings)
        name = "vm.tlb_cost" if kind == "unbounded" else f"vm.tlb_cost_{kind}"
        yield row_of(name, "ns/access", runs.scaled(1e9 / steps), "the same accesses on a machine without TLBs",
                     note=f"tlb={kind!r}, zipf 0.99, 2^{n.bit_length() - 1} resident pages, reading")  # fmt: skip
