"""Replaying a recording on the engine, and the figures of the comparison: all equal, or with the reason why not."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest

from mmcore.base.records import TRACE_DTYPE
from mmcore.run.ops import Op
from mmpy.fidelity.rows import differs
from mmpy.fidelity.trace import Match, compare_both, compare_states, compare_trace, match_events, match_rows
from mmpy.fidelity.trace_explain import request, where
from mmpy.traces import Recording, convert, parse_state, sample_path
from mmpy.traces import replay as replay_module
from mmpy.traces.backend import EngineBackend
from mmpy.traces.replay import replay

SMALL = Path(__file__).parents[1] / "golden" / "trace_small"


@pytest.fixture(scope="module")
def sample():
    return Recording.open(sample_path())


class Broken(EngineBackend):
    """The engine with a changed stream."""

    def __init__(self, recording, change):
        super().__init__(recording)
        self.change = change

    def run(self, ops, *rest):
        ops = ops.copy()
        self.change(ops)
        return super().run(ops, *rest)


def by_figure(rows):
    return {row["figure"]: row for row in rows}


def test_sample_is_reproduced_to_the_last_list(sample):
    rows = compare_both(sample)
    assert not [row for row in rows if differs(row)]
    figures = by_figure(rows)
    counts = sample.events.counts()
    for prefix in ("free_running.", "resync."):
        assert figures[f"{prefix}alloc"]["kernel"] == figures[f"{prefix}alloc"]["ours"] == counts["alloc"]
        assert figures[f"{prefix}refill"]["ours"] == counts["rmqueue"]
        assert figures[f"{prefix}drain"]["ours"] == counts["pcp_drain"]
        assert figures[f"{prefix}bulk"]["ours"] == 144
        assert figures[f"{prefix}errors"]["ours"] == 0
        for name in ("lists", "pageblocks", "free.node0.DMA32.order3", "pcp.node0.DMA32.cpu0.pages", "pcp.node0.DMA32.cpu0.high"):
            assert figures[f"{prefix}SNAP1.{name}"]["distance"] == 0
        assert figures[f"{prefix}SNAP1.free.node0.DMA32.order3"]["kernel"] > 0
        assert figures[f"{prefix}SNAP1.node0.DMA32.nr_free_pages"]["kernel"] > 0
        assert figures[f"{prefix}events_per_cpu_second"]["exact"] is False
    assert len(figures) == len(rows)
    assert all(row["case"] == "fork_touch_cut" and row["kind"] == "trace" for row in rows)
    json.dumps(rows, allow_nan=False)


def test_the_small_recording_parts_and_says_why():
    # Its rows are invented: nothing of it can be right but its first page, and nothing may crash.
    figures = by_figure(compare_both(Recording.open(SMALL)))
    assert figures["free_running.alloc"]["kernel"] == 5
    assert 0 < figures["free_running.alloc"]["ours"] < 5
    explained = [row for row in figures.values() if "explanation" in row]
    assert len(explained) == 2
    assert all("events.csv" in row["explanation"] for row in explained)


def test_chunks_change_nothing(sample, monkeypatch):
    stream = convert(sample)
    whole = replay(sample, stream, backend=EngineBackend(sample))
    monkeypatch.setattr(replay_module, "CHUNK", 997)
    seen = []
    parts = replay(sample, stream, backend=EngineBackend(sample), on_chunk=lambda done, total: seen.append((done, total)))
    for name in ("rc", "value", "pages_out", "traced"):
        assert np.array_equal(getattr(whole, name), getattr(parts, name))
    assert whole.states == parts.states
    assert len(seen) > 20
    assert seen[-1] == (len(stream), len(stream))


def test_stop_and_limits(sample):
    stream = convert(sample)
    result = replay(sample, stream, backend=EngineBackend(sample), stop=1000)
    assert result.done == 1000
    assert not result.rc[1000:].any()
    assert result.traced["op"].max() < 1000
    match = match_events(result)[0]
    assert match.equal == match.recorded == int((stream.ops["op"][:1000] == Op.ALLOC).sum())
    for bad in (-1, len(stream) + 1):
        with pytest.raises(ValueError, match=str(bad)):
            replay(sample, stream, backend=EngineBackend(sample), stop=bad)
    with pytest.raises(RuntimeError, match="no state"):
        EngineBackend().state()


def test_interrupts_leave_a_sound_machine(sample, monkeypatch):
    from mmcore.phys import check

    monkeypatch.setattr(replay_module, "CHUNK", 5000)
    backend = EngineBackend(sample)

    def interrupt(done, total):
        if done >= 10_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replay(sample, convert(sample), backend=backend, on_chunk=interrupt)
    check.validate(backend.machine)


def test_lru_marks_survive_a_snapshot(sample):
    stream = convert(sample, resync=True)
    backend = EngineBackend(sample)
    end = stream.checkpoints()[1] + 1
    replay(sample, stream, backend=backend, stop=end)
    lru = (backend.machine.pages["flags"] & 1 << 5) != 0
    plain = EngineBackend(sample)
    plain.load(sample.snapshot(1).state)
    assert lru.sum() > 100
    assert not (plain.machine.pages["flags"] & 1 << 5).any()
    # no page that is on a list is marked
    listed = (backend.machine.pages["flags"] & 3 << 18) != 0
    assert not (lru & listed).any()


def test_without_ticks_the_drains_part_and_the_text_says_where(sample):
    def no_ticks(ops):
        ops["op"][ops["op"] == Op.VMSTAT_TICK] = Op.NOP

    rows = compare_trace(sample, backend=Broken(sample, no_ticks))
    drain = by_figure(rows)["free_running.drain"]
    assert drain["ours"] < drain["kernel"]
    assert drain["distance"] > 0
    explained = [row for row in rows if "explanation" in row]
    assert len(explained) == 1
    text = explained[0]["explanation"]
    for part in (
        "line ",
        "of events.csv",
        "per-CPU list",
        "node 0 DMA32",
        "Rule: ",
        "Before it: ",
        "high_" if "high_" in text else "batch 15",
    ):
        assert part in text
    states = [row for row in rows if ".SNAP1." in row["figure"] and differs(row)]
    assert states


def test_a_page_handed_out_wrongly_is_explained(sample):
    def other_type(ops):
        movable = np.flatnonzero((ops["op"] == Op.ALLOC) & (ops["b"] >> 3 & 1 == 1))
        ops["b"][movable[300]] = 0xCC0

    rows = compare_trace(sample, backend=Broken(sample, other_type))
    alloc = by_figure(rows)["free_running.alloc"]
    assert alloc["first_divergence"] is not None
    assert alloc["ours"] < alloc["kernel"]
    text = next(row["explanation"] for row in rows if "explanation" in row)
    assert "The kernel gave 0x" in text
    assert "which stands" in text
    assert "rmqueue_pcplist" in text


def test_missing_snapshot_is_an_error_row(sample):
    class Stops(EngineBackend):
        def run(self, ops, rc, value, start, budget, pages_out, pages_used):
            at, used = super().run(ops, rc, value, start, budget, pages_out, pages_used)
            return (len(ops) if at < len(ops) else at), used

    rows = compare_trace(sample, backend=Stops(sample))
    row = by_figure(rows)["free_running.SNAP1"]
    assert row["error"]
    assert differs(row)


# ---- matching


def rows_of(*rows):
    out = np.zeros(len(rows), TRACE_DTYPE)
    for i, (op, pfn) in enumerate(rows):
        out[i]["op"], out[i]["pfn"] = op, pfn
    return out


@pytest.mark.parametrize(
    ("recorded", "predicted", "equal", "first", "op"),
    [
        ([], [], 0, None, None),
        ([(1, 5), (1, 6), (2, 7)], [(1, 5), (1, 6), (2, 7)], 3, None, None),
        ([(1, 5), (1, 6), (2, 7)], [(1, 5), (1, 9), (2, 7)], 2, 1, 1),
        ([(1, 5), (1, 6), (2, 7)], [(1, 5), (2, 7)], 2, 1, 1),
        ([(1, 5), (2, 7)], [(1, 5), (1, 6), (2, 7)], 2, 1, 1),
        ([(1, 5), (3, 7)], [(1, 5), (2, 6), (3, 7)], 2, 1, 2),
        ([(1, 5)], [], 0, 0, 1),
        ([], [(4, 5)], 0, 0, 4),
        ([(1, 5), (1, 6)], [(1, 6), (1, 5)], 0, 0, 1),
    ],
)
def test_matching_within_each_op(recorded, predicted, equal, first, op):
    match = match_rows("x", rows_of(*recorded), rows_of(*predicted), ("pfn",))
    assert match == Match("x", len(recorded), len(predicted), equal, first, op)
    row = match.row("case", "p.")
    assert row["kernel"] == len(recorded)
    assert row["ours"] == equal
    assert (row["distance"] == 0) == (recorded == predicted)


# ---- states


def test_states_compare_list_by_list():
    state = parse_state((SMALL / "state0.start.txt").read_text())
    rows = compare_states("c", "", state, copy.deepcopy(state))
    assert not [row for row in rows if differs(row)]
    assert by_figure(rows)["lists"]["kernel"] == 1 + 3 + 3

    other = copy.deepcopy(state)
    zone = other["zones"][0, 1]
    zone["free"][7, 2].reverse()
    zone["free"][0, 0] = [0x1030]
    zone["pcp"][0]["lists"][1].pop()
    zone["pcp"][0]["high"] += 1
    zone["flags"] = 0
    other["blocks"][9] = 1
    figures = by_figure(compare_states("c", "", state, other))
    wrong = {name for name, row in figures.items() if differs(row)}
    assert wrong == {
        "lists", "pageblocks", "free.node0.DMA32.order0", "free.node0.DMA32.order7", "pcp.node0.DMA32.cpu0.pages",
        "pcp.node0.DMA32.cpu0.high", "node0.DMA32.flags",
    }  # fmt: skip
    order7 = figures["free.node0.DMA32.order7"]
    assert (order7["kernel"], order7["ours"], order7["first_divergence"]) == (2, 0, 0)
    assert "type 2 at 0: kernel 0x1480, ours 0x1580" in order7["note"]
    order0 = figures["free.node0.DMA32.order0"]
    assert (order0["kernel"], order0["ours"], order0["distance"]) == (1, 1, 1)
    assert "kernel the end, ours 0x1030" in order0["note"]
    assert figures["pageblocks"]["first_divergence"] == 9
    assert figures["lists"]["ours"] == 5


def test_states_of_other_shapes():
    state = parse_state((SMALL / "state0.start.txt").read_text())
    other = copy.deepcopy(state)
    del other["zones"][0, 1]
    other["zones"][0, 0]["pcp"] = {}
    errors = [row for row in compare_states("c", "p.", state, other) if row.get("error")]
    assert [row["figure"] for row in errors] == ["p.pcp.node0.DMA.cpu0", "p.node0.DMA32"]


def test_where_pages_stand():
    state = parse_state((SMALL / "state0.start.txt").read_text())
    assert where(state, 0x1001) == "at place 1 of per-CPU list 1 (order 0 Movable) (CPU 0) of node 0 DMA32"
    assert where(state, 0x1583) == "at place 1 of the free list of order 7 Reclaimable of node 0 DMA32 inside block 0x1580"
    assert where(state, 0x1008) == "at place 0 of per-CPU list 8 (order 2 Reclaimable) (CPU 0) of node 0 DMA32"
    assert where(state, 0x5000) == "on no list of node 0 DMA32: in use"
    assert where(state, 0x99999) == "outside of every zone"


def test_requests_in_words(sample):
    stream = convert(Recording.open(SMALL))
    words = [request(stream, i) for i in range(len(stream))]
    assert words[1] == "alloc of order 2, GFP_KERNEL"
    assert words[2] == "bulk request that got 3 pages, GFP_KERNEL"
    assert words[5] == "free of order 1"
    assert words[7] == "tick of the statistics worker"
    assert words[8] == "kswapd begins to balance"
    assert words[16] == "snapshot"
