"""A replay notices when a rule is changed: the twin in the engine's place, right and with one rule broken at a time.

On the recording that ships with the package; claims and steals need a reference recording (MMPY_REFERENCE), like tests/fidelity.
"""

import os
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from mmcore.base.records import TRACE_DTYPE
from mmcore.run.ops import Op, OpFlag
from mmpy.fidelity.trace import compare_trace, match_events
from mmpy.traces import Recording, convert, sample_path
from mmpy.traces.replay import replay
from tests.reference import TwinMachine, buddy, constants, migratetype, pcp

REFERENCE = Path(os.environ.get("MMPY_REFERENCE", Path(__file__).parents[3] / "shared" / "reference"))
FRAG = REFERENCE / "traces" / "frag_256M"
EVENTS = {"rmqueue": 1, "pcp_drain": 2, "extfrag": 3}


class TwinBackend:
    """The slow allocator as what runs a replay; `change(machine)` may break it after each load."""

    def __init__(self, change=None):
        self.change = change
        self.rows = []
        self.machine = None

    def load(self, state, *, keep_lru=False):
        marks = self.machine.lru if keep_lru and self.machine else set()
        self.machine = TwinMachine.from_state(state)
        self.machine.lru |= marks
        self.machine.tracing = True
        if self.change:
            self.change(self.machine)

    def run(self, ops, rc, value, start, budget, pages_out, pages_used):
        for at in range(start, min(start + budget, len(ops))):
            code, flags, ref, a, b = (int(ops[at][k]) for k in ("op", "flags", "ref", "a", "b"))
            if code == Op.ALLOC:
                task = constants.TASK_OOM_VICTIM * bool(flags & OpFlag.OPF_OOM_VICTIM) | constants.TASK_MEMALLOC * bool(
                    flags & OpFlag.OPF_MEMALLOC
                )
                pfn = self.machine.alloc_pages(b, a, task=task)
                rc[at], value[at] = min(pfn, 0), max(pfn, 0)
                if pfn >= 0:
                    self.machine.mark_lru(pfn, 1 << a, bool(flags & OpFlag.OPF_LRU))
            elif code == Op.FREE:
                if flags & OpFlag.OPF_PFN:
                    pfn = a
                elif rc[ref] < 0:
                    rc[at] = -2
                    continue
                else:
                    pfn = int(value[ref]) + a if ops[ref]["op"] == Op.ALLOC else int(pages_out[int(value[ref]) + a])
                self.machine.mark_lru(pfn, 1 << b, False)
                rc[at], value[at] = self.machine.free_pages(pfn, b), pfn
            elif code == Op.ALLOC_BULK:
                got = self.machine.alloc_pages_bulk(a, b)
                rc[at], value[at] = len(got), pages_used
                pages_out[pages_used : pages_used + len(got)] = got
                pages_used += len(got)
            elif code == Op.VMSTAT_TICK:
                self.machine.tick(0)
            elif code == Op.DRAIN_ALL:
                self.machine.drain_all_pages(0)
            elif code == Op.KSWAPD_BEGIN:
                self.machine.kswapd_begin(a)
            elif code == Op.KSWAPD_END:
                self.machine.kswapd_end(a)
            for event, pfn, order, mt, *fallback in self.machine.take_trace():
                self.rows.append((at, pfn, EVENTS[event], order, mt, *(fallback or (0, 0, 0)), 0))
            if code == Op.CHECKPOINT:
                return at + 1, pages_used
        return min(start + budget, len(ops)), pages_used

    def take(self):
        out = np.array(self.rows, TRACE_DTYPE)
        self.rows = []
        return out

    def state(self):
        return self.machine.allocator_state()


def shares(recording, backend, stop=None):
    """Equal share of each sequence, extra rows of ours counted against us."""
    result = replay(recording, convert(recording), backend=backend, stop=stop)
    return {m.name: m.equal / max(m.recorded, m.predicted, 1) for m in match_events(result)}, result


@pytest.fixture(scope="module")
def sample():
    return Recording.open(sample_path())


@pytest.fixture(scope="module")
def frag():
    if not FRAG.is_dir():
        pytest.skip("no recordings here (MMPY_REFERENCE)")
    pytest.importorskip("zstandard")
    return Recording.open(FRAG)


def test_twin_replays_the_sample(sample):
    rows = compare_trace(sample, backend=TwinBackend())
    wrong = [row for row in rows if row["exact"] and row["distance"]]
    assert not wrong
    assert sum(row["kernel"] for row in rows[:4]) > 17_000


def swap_ends(machine):
    """Pages are taken from the tails of per-CPU lists and drained from their heads."""

    class Swapped(OrderedDict):
        def popitem(self, last=True):
            return super().popitem(last=not last)

    for zone in machine.zones:
        for lists in zone.pcp:
            lists.lists[:] = [Swapped(blocks) for blocks in lists.lists]


def no_doubling(monkeypatch):
    size = pcp.refill_size

    def refill_size(zone, lists, order):
        lists.alloc_factor = 0
        return size(zone, lists, order)

    monkeypatch.setattr(pcp, "refill_size", refill_size)


def larger_drains(monkeypatch):
    limit_of = pcp.limit_of_free

    def limit_of_free(zone, lists, order):
        limit, nr = limit_of(zone, lists, order)
        return limit, lambda: nr() + 1

    monkeypatch.setattr(pcp, "limit_of_free", limit_of_free)


def no_tail_rule(monkeypatch):
    monkeypatch.setattr(buddy, "merge_is_likely", lambda zone, pfn, order: False)


def no_decay(monkeypatch):
    monkeypatch.setattr(pcp, "decay_pcp_high", lambda zone, cpu: None)


def drains_begin_at_list_0(monkeypatch):
    drain = pcp.drain
    monkeypatch.setattr(pcp, "drain", lambda zone, running, cpu, nr, index: drain(zone, running, cpu, nr, 0))


@pytest.mark.parametrize(
    ("break_rule", "sequence"),
    [(no_doubling, "refill"), (larger_drains, "drain"), (no_tail_rule, "refill"), (no_decay, "drain"), (drains_begin_at_list_0, "drain")],
)
def test_broken_rules_are_noticed(sample, monkeypatch, break_rule, sequence):
    break_rule(monkeypatch)
    share, _ = shares(sample, TwinBackend())
    assert share[sequence] < 0.95
    assert share["alloc"] < 1 or share[sequence] < 0.9


def test_swapped_ends_are_noticed(sample):
    share, result = shares(sample, TwinBackend(swap_ends), stop=8000)
    assert share["alloc"] < 0.2
    assert result.done == 8000


def lower_threshold(monkeypatch):
    """Pageblocks are claimed with any free page in them."""
    claim = migratetype.claim_part

    def claim_part(zone, *rest):
        zone.machine.mobility_disabled = True
        try:
            return claim(zone, *rest)
        finally:
            zone.machine.mobility_disabled = False

    monkeypatch.setattr(migratetype, "claim_part", claim_part)


@pytest.mark.parametrize("break_rule", [None, lower_threshold])
def test_claim_threshold(frag, monkeypatch, break_rule):
    if break_rule:
        break_rule(monkeypatch)
    share, _ = shares(frag, TwinBackend(), stop=30_000)
    if break_rule:
        assert share["fallback"] < 0.9
    else:
        assert set(share.values()) == {1.0} | ({0.0} if share["bulk"] == 0 else set())
