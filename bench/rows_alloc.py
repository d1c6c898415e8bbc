"""Rows about the allocator's inner loops: the per-CPU lists, refills, the buddy lists, frees in random order, growth with the machine."""

from __future__ import annotations

import mmap
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bench.build import client
from bench.harness import Row, Runs, Settings, alternate, available_bytes, best_of_batches, cpu_seconds, row_of, rows
from bench.machines import MOVABLE, STATE_BYTES_PER_PAGE, biggest_zone, machine, only_max_order_plan, warm, warm_array
from mmcore.alloc import page_alloc, page_free
from mmcore.base.state import State
from mmcore.phys import boot
from mmpy import GFP_HIGHUSER_MOVABLE, GFP_KERNEL, Machine

BURST = 64
BATCHES = 5


def hot_machine(m: Machine) -> Machine:
    """The machine, warm, with a list of unmovable order-0 pages that is long enough for bursts."""
    client().pair_bursts(warm(m.state), 20, 512, int(GFP_KERNEL))
    return m


@rows("pair.pcp_burst64", "pair.pcp_burst64_vs_stack", "pair.python_burst64", "pair.python_bulk4096")
def pair_bursts(settings: Settings) -> Iterator[Row]:
    """Order-0 pairs through the per-CPU list."""
    c = client()
    bursts = settings.size(40_000, tiny=10)
    state = hot_machine(machine(1 << 20)).state
    other = warm(state.copy())
    zi = biggest_list(state)
    ns = 1e9 / (bursts * BURST)
    runs = alternate(
        lambda: best_of_batches(lambda: c.pair_bursts(state, bursts, BURST, int(GFP_KERNEL)), BATCHES),
        lambda: best_of_batches(lambda: c.list_bursts(other, zi, 0, bursts, BURST), BATCHES),
        settings,
    )
    bare = "intrusive doubly linked list (lists.pxd): pop 64 and push 64 of the same records, links only"
    note = "alloc_pages_run + free_pages_run of 64 pages, GFP_KERNEL, all counters and all checks of a free"
    yield row_of("pair.pcp_burst64", "ns/pair", runs.scaled(ns), bare, bar=3, stretch=2, note=note)
    stack = state.copy()
    warm(stack)
    runs = alternate(
        lambda: best_of_batches(lambda: c.pair_bursts(state, bursts, BURST, int(GFP_KERNEL)), BATCHES),
        lambda: best_of_batches(lambda: c.stack_bursts(stack, zi, 0, bursts, BURST), BATCHES),
        settings,
    )
    yield row_of(
        "pair.pcp_burst64_vs_stack", "ns/pair", runs.scaled(ns), "the same list with forward links alone: the strictest reading",
        bar=3, stretch=2, note=note,
    )  # fmt: skip
    for name, burst in (("pair.python_burst64", BURST), ("pair.python_bulk4096", 4096)):
        out = warm_array(np.zeros(burst, np.uint32))
        rounds = max(1, bursts * BURST // burst // 4)

        def through_python(rounds: int = rounds, out: np.ndarray = out) -> None:
            for _ in range(rounds):
                page_alloc.alloc_pages_many(state, out, 0xCC0)
                page_free.free_pages_many(state, out)

        def ours(work: Callable[[], None] = through_python, pairs: int = rounds * burst) -> float:
            return best_of_batches(work, BATCHES) / pairs

        runs = alternate(ours, lambda: best_of_batches(lambda: c.list_bursts(other, zi, 0, bursts, BURST), BATCHES) * ns * 1e-9, settings)
        yield row_of(
            name, "ns/pair", runs.scaled(1e9), bare,
            note=f"alloc_pages_many + free_pages_many of {burst} pages from Python; the latter checks all before it frees any",
        )  # fmt: skip


def biggest_list(state: State) -> int:
    """Index of the zone whose list of unmovable order-0 pages is longest."""
    return max(range(len(state.zones)), key=lambda zi: len(boot.pcp_list(state, zi, 0, 0)))


@rows("refill.carve", "refill.carve_2016")
def refill(settings: Settings) -> Iterator[Row]:
    """Refills from blocks of the highest order: carving, and a page at a time; both must leave the same bytes."""
    c = client()
    pages = settings.size(1 << 18, tiny=1 << 12)
    start = machine(1 << 20).state
    zi = biggest_zone(start)
    one, two = warm(start.copy()), warm(start.copy())
    for name, each in (("refill.carve", 63), ("refill.carve_2016", 2016)):
        times = pages // each

        def side(state: State, work: Any, each: int = each, times: int = times) -> float:
            state.assign(start)
            return cpu_seconds(lambda: work(state, zi, 0, MOVABLE, each, times))

        runs = alternate(lambda f=side: f(one, c.refill_bulk), lambda f=side: f(two, c.refill_single), settings)  # type: ignore[misc]
        if one.differing(two):
            raise AssertionError(f"carving leaves another state than single takes: {one.differing(two)}")
        yield row_of(
            name, "ns/page", runs.scaled(1e9 / (each * times)), "rmqueue_any and list_add_tail, a page at a time",
            bar=0.4 if each == 63 else None, stretch=0.25 if each == 63 else None,
            note=f"{times} refills of {each} pages from order-10 blocks; every byte of both machines equal afterwards",
        )  # fmt: skip


@rows("buddy.pair_vs_twin", "buddy.pair_vs_probe")
def buddy_pairs(settings: Settings) -> Iterator[Row]:
    """An order-0 page from the buddy lists and back: ten splits, ten merges."""
    c = client()
    plan = only_max_order_plan()
    state = warm(boot.boot(plan))
    twin = twin_of(plan)
    zi = 2
    assert_ten_splits(state, zi)
    pairs = settings.size(200_000, tiny=10)
    probe = c.BareBuddy()
    before = probe.free_blocks()

    def ours() -> float:
        return best_of_batches(lambda: c.buddy_pairs(state, zi, MOVABLE, pairs), BATCHES) / pairs

    slow_pairs = settings.size(2_000, tiny=10)
    runs = alternate(ours, lambda: cpu_seconds(lambda: twin_pairs(twin, zi, slow_pairs)) / slow_pairs, settings)
    yield row_of(
        "buddy.pair_vs_twin", "ns/pair", runs.scaled(1e9), "the same functions of the pure-Python twin, tests/reference",
        bar=1 / 30, stretch=1 / 60, note="rmqueue_any + free_one_page on a zone of order-10 blocks, with counters, past the per-CPU lists",
    )  # fmt: skip
    runs = alternate(ours, lambda: best_of_batches(lambda: probe.pairs(pairs), BATCHES) / pairs, settings)
    if probe.free_blocks() != before:
        raise AssertionError("the bare probe lost blocks")
    yield row_of(
        "buddy.pair_vs_probe", "ns/pair", runs.scaled(1e9), "a C loop that splits and merges on the same records, without types,"
        " counters and checks", bar=2, note="as above",
    )  # fmt: skip


def assert_ten_splits(state: State, zi: int) -> None:
    """One page out of this zone leaves one block on each list below the highest, and goes back without a trace."""
    c = client()
    blocks = state.zones["nr_free"][zi].tolist()
    pfn = c.buddy_take(state, zi, MOVABLE)
    split = [len(boot.free_list(state, zi, order, MOVABLE)) for order in range(11)]
    c.buddy_give(state, zi, MOVABLE, pfn)
    if split != [1] * 10 + [blocks[10] - 1] or state.zones["nr_free"][zi].tolist() != blocks:
        raise AssertionError(f"not ten splits and ten merges: {split}, then {state.zones['nr_free'][zi].tolist()}")


def twin_of(plan: Any) -> Any:
    """The pure-Python twin of the tests, booted from the same plan."""
    tests = Path(__file__).resolve().parents[1] / "tests"
    if not (tests / "reference").is_dir():
        raise FileNotFoundError(f"{tests / 'reference'}: this row needs the twin of the source tree")
    sys.path.insert(0, str(tests))
    try:
        from reference.machine import TwinMachine  # type: ignore[import-not-found]
    finally:
        sys.path.remove(str(tests))
    return TwinMachine.from_plan(plan)


def twin_pairs(twin: Any, zi: int, n: int) -> None:
    from reference.buddy import free_one_page
    from reference.migratetype import NORMAL, rmqueue_any

    zone = twin.zones[zi]
    for _ in range(n):
        pfn = rmqueue_any(zone, 0, 0, MOVABLE, 0, [NORMAL])
        free_one_page(zone, 0, pfn, 0, MOVABLE)


# ---------------------------------------------------------------- frees in random order

CHASE_BYTES = 1 << 30


@rows("free.random", "free.random_vs_huge", "free.random_checked", "free.random_1cpu")
def free_random(settings: Settings) -> Iterator[Row]:
    """Fill a machine, free everything in random order with all merges; beside it one dependent load after another."""
    bits = settings.size(26, 22, 14)
    while (1 << bits) * (2 * STATE_BYTES_PER_PAGE + 16) + 2.5 * CHASE_BYTES > available_bytes() and bits > 20:
        bits -= 1
    steps = settings.size(3_000_000, tiny=1000)
    size = CHASE_BYTES if not settings.tiny else 1 << 20
    small, huge = Chase(size, mmap.MADV_NOHUGEPAGE, steps), Chase(size, mmap.MADV_HUGEPAGE, steps)
    aside: list[float] = []

    def both() -> float:
        aside.append(huge.seconds())
        return small.seconds()

    cpus = 1 << max(0, bits - 20)
    note = f"2^{bits} pages" + ("" if bits == 26 else " (the bar speaks of 2^26)") + " in random order, merging, after a fill; {} CPU(s)"
    text = "pointer chase over 1 GiB in nodes of 64 bytes, pages "
    run = FreeAll(bits, cpus)
    runs = alternate(lambda: run.seconds(client().free_all), both, settings)
    yield row_of(
        "free.random", "ns/page", runs.scaled(1e9), text + "of 4 KiB", bar=0.5, stretch=0.35,
        note="free_pages_run of " + note.format(cpus) + ", one to 4 GiB: the more there are, the less each one's lists hold",
    )  # fmt: skip
    yield row_of(
        "free.random_vs_huge", "ns/page", Runs(runs.ours, aside[-len(runs.ours):]).scaled(1e9), text + "that are huge",
        note="the same runs; numpy puts the simulator's arrays on huge pages too, so this is the stricter yardstick",
    )  # fmt: skip
    runs = alternate(lambda: run.seconds(page_free.free_pages_many), small.seconds, settings)
    yield row_of(
        "free.random_checked", "ns/page", runs.scaled(1e9), text + "of 4 KiB",
        note="the same by free_pages_many from Python, which first checks that all can be freed",
    )  # fmt: skip
    run = FreeAll(bits, 1)
    runs = alternate(lambda: run.seconds(client().free_all), small.seconds, settings)
    yield row_of(
        "free.random_1cpu", "ns/page", runs.scaled(1e9), text + "of 4 KiB",
        note="free_pages_run of " + note.format(1) + ", whose list may hold an eighth of all memory",
    )  # fmt: skip


class Chase:
    """Nodes of 64 bytes in one random cycle (uint64, eight a node; the first names the next node), on pages of 4 KiB or huge ones."""

    def __init__(self, nbytes: int, advice: int, steps: int) -> None:
        memory = mmap.mmap(-1, nbytes)
        memory.madvise(advice)
        self.nodes = np.frombuffer(memory, np.uint64).reshape(-1, 8)
        self.nodes[:, 0] = 0
        order = np.random.default_rng(1).permutation(len(self.nodes))
        self.nodes[order, 0] = np.roll(order, -1)
        self.steps, self.at = steps, 0

    def seconds(self) -> float:
        """CPU seconds a step; goes on where it stopped."""

        def walk() -> None:
            self.at = client().chase(self.nodes, self.steps, self.at)

        return cpu_seconds(walk) / self.steps


class FreeAll:
    """2**bits pages of a machine that is a sixteenth larger, to be freed in random order; every run starts from the booted machine."""

    def __init__(self, bits: int, cpus: int) -> None:
        self.nr = 1 << bits
        self.booted = machine(self.nr + (self.nr >> 4) + (1 << 15), cpus).state
        self.state = warm(self.booted.copy())
        self.got, self.shuffled = (warm_array(np.zeros(self.nr, np.uint32)) for _ in range(2))
        self.order = np.random.default_rng(2).permutation(np.uint32(self.nr))

    def seconds(self, free: Callable[[State, np.ndarray], object]) -> float:
        """CPU seconds a page."""
        self.state.assign(self.booted)
        if client().fill(self.state, self.got, int(GFP_HIGHUSER_MOVABLE)) != self.nr:
            raise AssertionError(f"the machine gave fewer than {self.nr} pages")
        np.take(self.got, self.order, out=self.shuffled)
        return cpu_seconds(lambda: free(self.state, self.shuffled)) / self.nr


# ---------------------------------------------------------------- growth


def one_zone(bits: int) -> Machine:
    """All of memory in one zone: on a small PC a fill would cross zones, which is another path."""
    return Machine.from_plan(only_max_order_plan(1 << bits))


@rows("growth.hot_pair", "growth.fill")
def growth(settings: Settings) -> Iterator[Row]:
    """The largest machine beside the smallest, each of a single zone; the sizes between are shown in the note."""
    c = client()
    top = settings.size(28, 24, 17)
    low = min(20, top - 1)
    while (1 << top) * (STATE_BYTES_PER_PAGE + 5) * 1.4 > available_bytes() and top > low + 1:
        top -= 1
    said = "" if top == 28 else " (the bar speaks of 2^28)"
    bursts = settings.size(20_000, tiny=10)
    def hot(m: Machine) -> float:
        return best_of_batches(lambda: c.pair_bursts(m.state, bursts, BURST, int(GFP_KERNEL)), BATCHES) / (bursts * BURST)

    def fill_by(m: Machine, bits: int) -> Callable[[], float]:
        out = warm_array(np.zeros((1 << bits) - (1 << bits >> 3), np.uint32))

        def once() -> float:
            m.drain_all_pages()
            seconds = cpu_seconds(lambda: got.append(c.fill(m.state, out, int(GFP_HIGHUSER_MOVABLE))))
            if got.pop() != len(out):
                raise AssertionError("the machine gave too few pages")
            c.free_all(m.state, out)
            return seconds / len(out)

        got: list[int] = []
        return once

    def both() -> tuple[Runs, Runs]:
        large, small = hot_machine(one_zone(top)), hot_machine(one_zone(low))
        pairs = alternate(lambda: hot(large), lambda: hot(small), settings)
        return pairs, alternate(fill_by(large, top), fill_by(small, low), settings)

    runs, fills = both()  # their memory is given back here
    curve = {low: min(runs.yardstick) * 1e9, top: min(runs.ours) * 1e9}
    fill_curve = {low: min(fills.yardstick) * 1e9, top: min(fills.ours) * 1e9}
    for bits in range(low + 2, top, 2):
        between = hot_machine(one_zone(bits))
        curve[bits] = min(hot(between) for _ in range(3)) * 1e9
        once = fill_by(between, bits)
        fill_curve[bits] = min(once() for _ in range(3)) * 1e9
    for name, found, points, what in (
        ("growth.hot_pair", runs, curve, "bursts of 64 through the per-CPU list"),
        ("growth.fill", fills, fill_curve, "7/8 of it allocated page by page in one run, after it was filled, emptied and drained"),
    ):
        shown = ", ".join(f"2^{bits} {points[bits]:.2f}" for bits in sorted(points))
        yield row_of(
            name, "ns/page" if name == "growth.fill" else "ns/pair", found.scaled(1e9), f"the same on 2^{low} pages",
            bar=1.5, stretch=1.1, note=f"2^{top} pages{said}, all in one zone; {what}; best of each size in ns: {shown}",
        )  # fmt: skip
