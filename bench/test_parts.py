"""The parts, timed one by one: python -m pytest bench/ --benchmark-only (needs pytest-benchmark; not part of the test run)."""

import numpy as np
import pytest

from bench.build import client as build_client
from bench.machines import MOVABLE, biggest_zone, machine, only_max_order_plan, warm
from bench.rows_run import pair_stream, recordings
from mmcore.phys import boot
from mmcore.run import engine
from mmpy import GFP_HIGHUSER_MOVABLE, GFP_KERNEL, Machine

pytest.importorskip("pytest_benchmark")


@pytest.fixture(scope="module")
def client():
    return build_client()


@pytest.fixture
def m():
    made = machine(1 << 18)
    warm(made.state)
    return made


@pytest.mark.parametrize("order", [0, 3, 9, 10])
def test_pair(benchmark, m, order):
    def pair():
        m.free_pages(m.alloc_pages(order), order)

    benchmark(pair)
    m.validate()


@pytest.mark.parametrize("n", [64, 4096])
def test_many(benchmark, m, n):
    def pairs():
        m.free_pages_many(m.alloc_pages_many(n))

    benchmark(pairs)
    m.validate()


def test_bulk(benchmark, m):
    def pairs():
        m.free_pages_many(m.alloc_pages_bulk(1024, GFP_HIGHUSER_MOVABLE))

    benchmark(pairs)
    m.validate()


@pytest.mark.parametrize("how", ["refill_bulk", "refill_single"])
def test_refill(benchmark, client, how):
    start = machine(1 << 18).state
    state = warm(start.copy())
    benchmark.pedantic(
        getattr(client, how), setup=lambda: state.assign(start), args=(state, biggest_zone(start), 0, MOVABLE, 63, 500), rounds=30
    )


def test_buddy_pair(benchmark, client):
    state = warm(boot.boot(only_max_order_plan()))
    benchmark(client.buddy_pairs, state, 2, MOVABLE, 1000)


def test_pcp_bursts(benchmark, client, m):
    client.pair_bursts(m.state, 20, 512, int(GFP_KERNEL))
    benchmark(client.pair_bursts, m.state, 100, 64, int(GFP_KERNEL))


def test_snapshot(benchmark, m):
    m.alloc_pages_many(1 << 17)
    assert benchmark(m.snapshot) == m


def test_restore(benchmark, m):
    saved = m.snapshot()
    m.alloc_pages_many(1 << 12)
    benchmark(m.restore, saved)
    assert m == saved


def test_validate(benchmark, m):
    m.alloc_pages_many(1 << 16)
    benchmark(m.validate)


@pytest.mark.parametrize("memory", ["4G", "1T"])
def test_boot(benchmark, memory):
    benchmark(Machine, memory)


def test_zoneinfo(benchmark, m):
    assert benchmark(m.proc.zoneinfo)


def test_engine(benchmark, m):
    ops = pair_stream(1 << 15)
    rc, value = np.zeros(len(ops), np.int64), np.zeros(len(ops), np.uint64)
    benchmark(engine.run, m.state, ops, rc, value)
    assert not rc.any()


def test_replay_chunk(benchmark):
    from mmpy.traces.backend import EngineBackend
    from mmpy.traces.convert import convert
    from mmpy.traces.recording import Recording
    from mmpy.traces.replay import replay

    recording = Recording.open(recordings()["replay.packaged"])
    stream = convert(recording)
    backend = EngineBackend(recording)
    done = benchmark(replay, recording, stream, backend=backend, stop=min(20_000, len(stream)))
    assert done.done


def test_read_trace(benchmark):
    from mmpy.traces.recording import Recording

    assert len(benchmark(Recording.open, recordings()["replay.packaged"]).events.rows)
