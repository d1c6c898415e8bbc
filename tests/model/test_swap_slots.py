"""Slots of swap areas: the specification's sharp cases, and the core against its twin."""

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcore.sys import swap_calls as core
from mmpy import Machine
from tests.reference.swap import Swap

FACTOR = int(os.environ.get("MM_EXAMPLES", "1"))
TAKEN, BAD, HOLD = 2, 16, 64
LISTS = ("free", "nonfull", "frag", "full")


class Pair:
    """The same calls to the core and to the twin. Slots that are out: (area, offset) -> what holds them."""

    def __init__(self, cpus=1):
        self.machine = Machine("64M", cpus=cpus)
        self.state = self.machine.state
        self.twin = Swap(cpus)
        self.pages = list(self.machine.alloc_pages_many(2000))
        self.pages = [int(p) for p in self.pages]
        self.slots = []

    def swapon(self, pages, prio=None, rotational=False):
        number = core.swapon(self.state, pages, -1 if prio is None else prio, rotational, True, f"/dev/ram{pages}")
        assert number == self.twin.swapon(pages, prio, rotational)
        return number

    def stocked(self, slot):
        return any((a.number, o) == slot for b in (*self.twin.back, *self.twin.give) for a, o in b)

    def swapoff(self, number):
        for offset, s in enumerate(self.twin.areas[number].slots):
            if s.taken and s.users == 0 and s.page is None and not self.stocked((number, offset)):
                self.op("put", (number, offset))
        if not self.twin.swapoff(number):
            return
        self.slots = [s for s in self.slots if s[0] != number]
        assert core.swapoff(self.state, number) == 0

    def alloc(self, n=1, cpu=0):
        got = []
        for _ in range(n):
            slot = core.alloc_slot(self.state, self.pages[0], cpu)
            assert slot == self.twin.alloc(cpu)
            if slot is None:
                break
            got.append(slot)
        self.slots += got
        return got

    def op(self, name, slot, cpu=0, n=1):
        core.slot_op(self.state, name, *slot, n, cpu)
        getattr(self.twin, {"free": "unuse"}.get(name, name))(*slot, *((n,) if name == "zap" else ()), *(() if name == "dup" else (cpu,)))

    def cache(self, slot):
        flags = self.state.all_pages["flags"]
        pfn = next(p for p in self.pages if not flags[p] & (1 << 9))
        flags[pfn] &= ~np.uint32(1 << 4)
        core.slot_op(self.state, "cache", *slot, pfn)
        self.twin.areas[slot[0]].slots[slot[1]].page = pfn

    def compare(self):
        areas, slots = self.state.get("swap_areas"), self.state.get("swap_slots")
        assert int(self.state.vm_globals["nr_swap_pages"][0]) == self.twin.free
        assert int(self.state.globals["total_swap_pages"][0]) == self.twin.total
        assert [n for n, a in enumerate(areas, 1) if a["flags"] & 1] == sorted(self.twin.areas)
        here = sorted((a for a in areas if a["flags"] & 16), key=lambda a: int(a["order"]))
        assert [int(a["id"]) for a in here] == [int(areas[a.number - 1]["id"]) for a in self.twin.avail]
        for number, t in self.twin.areas.items():
            a = areas[number - 1]
            row = slots[int(a["first_slot"]) : int(a["first_slot"]) + t.size]
            assert (int(a["prio"]), int(a["inuse"]), int(a["lowest_bit"]), int(a["highest_bit"])) == (t.prio, t.inuse, t.lowest, t.highest)
            assert [(bool(s["flags"] & TAKEN), bool(s["flags"] & HOLD), int(s["count"])) for s in row] == [
                (s.taken, s.hold, s.users) for s in t.slots
            ]
            cached = np.where((row["cache"] & np.uint64(3)) == 0, row["cache"] >> np.uint64(2), np.uint64(0))
            assert cached.tolist() == [0 if s.page is None else s.page + 1 for s in t.slots]
            if not t.rotational:
                clusters = self.state.get("swap_clusters")[int(a["first_cluster"]) : int(a["first_cluster"]) + int(a["nr_clusters"])]
                for name in LISTS:
                    found, x = [], int(a[f"{name}_head"])
                    while x:
                        found.append(x - 1)
                        x = int(clusters[x - 1]["next"])
                    assert found == [c.index for c in getattr(t, name)], name
        for cpu, row in enumerate(self.state.cpus):
            give = row["swap_slots"][int(row["swap_cur"]) : int(row["swap_nr"])].tolist()
            back = row["swap_ret"][: int(row["swap_ret_nr"])].tolist()
            for mine, theirs in ((give, self.twin.give[cpu]), (back, self.twin.back[cpu])):
                assert mine == [int(areas[a.number - 1]["first_slot"]) + offset for a, offset in theirs]


def free_of(machine):
    return machine.free_swap_pages


# 24.9


def test_fresh_disk_gives_three_slots_then_sixty_four():
    pair = Pair()
    pair.swapon(20000, rotational=True)
    free = free_of(pair.machine)
    assert pair.alloc() == [(1, 1)]
    assert free_of(pair.machine) == free - 3
    pair.alloc(63)
    assert free_of(pair.machine) == free - 67
    pair.compare()


def test_fresh_ssd_begins_in_the_second_row_of_clusters():
    pair = Pair()
    pair.swapon(131072)
    free = free_of(pair.machine)
    assert pair.alloc(3) == [(1, 16384), (1, 16385), (1, 16386)]
    assert free_of(pair.machine) == free - 64
    pair.alloc(61)
    assert free_of(pair.machine) == free - 64
    assert pair.alloc() == [(1, 16448)]
    assert free_of(pair.machine) == free - 128
    pair.compare()


def test_freed_slots_show_when_sixty_four_are_together():
    pair = Pair()
    pair.swapon(20000, rotational=True)
    slots = pair.alloc(130)
    free = free_of(pair.machine)
    for k, slot in enumerate(slots):
        pair.op("put", slot)
        assert free_of(pair.machine) == free + k // 64 * 64
    pair.compare()


def test_clusters_follow_column_by_column():
    pair = Pair()
    pair.swapon(70 * 512)
    first = [offset // 512 for _, offset in pair.alloc(512 * 4)[::512]]
    assert first == [32, 64, 1, 33]


def test_priorities_and_round_robin():
    pair = Pair()
    low = pair.swapon(2048)
    high = [pair.swapon(1024, 5), pair.swapon(1024, 5)]
    assert [a for a, _ in pair.alloc(64 * 4)[::64]] == [high[0], high[1], high[0], high[1]]
    pair.alloc(2046 - 256)
    assert pair.alloc()[0][0] == low
    pair.compare()
    assert [a.priority for a in pair.machine.swaps] == [-2, 5, 5]


def test_automatic_priorities_close_up():
    pair = Pair()
    for _ in range(4):
        pair.swapon(64)
    assert [a.priority for a in pair.machine.swaps] == [-2, -3, -4, -5]
    pair.swapoff(2)
    assert [a.priority for a in pair.machine.swaps] == [-2, -3, -4]
    assert pair.swapon(64) == 2
    assert [a.priority for a in pair.machine.swaps] == [-2, -5, -3, -4]
    pair.compare()


@pytest.mark.parametrize(("pages", "cpus", "stock"), [(322, 1, True), (321, 1, False), (642, 2, True), (641, 2, False)])
def test_stocks_need_more_than_320_free_slots_a_cpu(pages, cpus, stock):
    pair = Pair(cpus)
    pair.swapon(pages)
    free = free_of(pair.machine)
    pair.alloc()
    assert free_of(pair.machine) == free - (64 if stock else 1)


def test_stocks_dissolve_below_128_free_slots():
    pair = Pair()
    pair.swapon(400, rotational=False)
    free = free_of(pair.machine)
    out = 0
    while free_of(pair.machine) >= 128:
        pair.alloc()
        out += 1
    pair.alloc()
    assert free_of(pair.machine) == free - out - 1
    pair.compare()


def test_scarce_slots_are_taken_from_the_swap_cache():
    pair = Pair()
    pair.swapon(1025)
    for slot in pair.alloc(1023):
        pair.op("dup", slot)
        pair.cache(slot)
    assert free_of(pair.machine) == 1
    for slot in pair.slots[100:200]:
        pair.op("free", slot)
    # the one that is free; on the way to it a full cluster gave up what no entry names
    assert len(pair.alloc()) == 1
    assert free_of(pair.machine) == 100
    # with none free at all nothing is looked for
    pair.alloc(100)
    for slot in pair.slots[300:400]:
        pair.op("free", slot)
    assert free_of(pair.machine) == 0
    assert pair.alloc() == []
    pair.compare()


# ---------------------------------------------------------------- anything

PAGES = st.sampled_from([10, 64, 511, 512, 513, 700, 1024, 1500, 2049, 5000])
STEP = st.one_of(
    st.tuples(st.just("swapon"), PAGES, st.sampled_from([None, None, 0, 5]), st.booleans()),
    st.tuples(st.just("swapoff"), st.integers(1, 4)),
    st.tuples(st.just("alloc"), st.sampled_from([1, 3, 40, 64, 65, 300, 900]), st.integers(0, 1)),
    st.tuples(st.sampled_from(["dup", "put", "free", "cache", "zap", "drop"]), st.integers(0, 2**32 - 1), st.integers(0, 1),
              st.sampled_from([1, 5, 70, 400, 1000])),
)


def several(pair, name, seed, cpu, n):
    """n slots, some of them with their neighbours, that the step suits."""
    rng = np.random.default_rng(seed)
    out = sorted(set(pair.slots))
    if not out:
        return
    for k in (rng.integers(len(out), size=n) if seed % 3 else (np.arange(n) + seed) % len(out)):
        area, offset = slot = out[int(k)]
        s = pair.twin.areas[area].slots[offset]
        if not s.taken or (s.users == 0 and s.page is None and not s.hold):
            continue
        if pair.stocked(slot):
            continue
        if name == "dup":
            pair.op("dup", slot)
        elif name == "put" and s.hold and s.page is None:
            pair.op("put", slot, cpu)
        elif name == "free" and s.users:
            pair.op("free", slot, cpu)
        elif name == "cache" and s.hold and s.page is None:
            pair.cache(slot)
        elif name == "zap" and s.users:
            run = 1
            row = pair.twin.areas[area].slots
            while offset + run < len(row) and run < 40 and row[offset + run].users:
                run += 1
            pair.op("zap", slot, cpu, run)
        elif name == "drop" and s.users and s.hold and s.page is None:
            pair.op("put", slot, cpu)
            pair.op("free", slot, cpu)


def play(steps, cpus):
    pair = Pair(cpus)
    for name, *args in steps:
        if name == "swapon":
            if len(pair.twin.areas) < 4:
                pair.swapon(*args)
        elif name == "swapoff":
            if args[0] in pair.twin.areas:
                pair.swapoff(args[0])
        elif name == "alloc":
            pair.alloc(args[0], args[1] % cpus)
        else:
            several(pair, name, args[0], args[1] % cpus, args[2])
        pair.slots = [s for s in pair.slots if s[0] in pair.twin.areas and pair.twin.areas[s[0]].slots[s[1]].taken]
        pair.compare()


@settings(max_examples=30 * FACTOR, deadline=None)
@given(st.lists(STEP, min_size=3, max_size=25), st.integers(1, 2))
def test_core_and_twin_take_the_same_slots(steps, cpus):
    play([("swapon", 1500, None, steps[0][0] == "alloc"), *steps], cpus)


@pytest.mark.parametrize("seed", range(4))
def test_long_sequences(seed):
    rng = np.random.default_rng(seed)
    steps = [("swapon", 2049, None, bool(seed & 1)), ("swapon", 1500, 3, not seed & 2)]
    for _ in range(60):
        kind = rng.integers(8)
        cpu, n = int(rng.integers(2)), int(rng.choice([1, 5, 70, 400, 1000]))
        if kind < 3:
            steps.append(("alloc", n, cpu))
        else:
            steps.append((("dup", "put", "free", "cache", "zap")[kind - 3], int(rng.integers(2**32)), cpu, n))
    play(steps, 2)
