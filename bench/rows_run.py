"""Rows about whole runs: a recorded trace replayed, two machines on two threads."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import mmpy
from bench.harness import Row, Runs, Settings, alternate, row_of, rows
from bench.machines import machine, warm
from mmcore.base.state import State
from mmcore.run import engine
from mmcore.run.ops import OP_DTYPE, Op
from mmpy import GFP_KERNEL

PACKAGED = "fork_touch_cut"
RECORDED = "fork_touch_256M"


def recordings() -> dict[str, Path]:
    """Directories of the traces at hand by row name."""
    found = {"replay.packaged": Path(mmpy.__file__).parent / "data" / PACKAGED}
    roots = [Path(__file__).resolve().parents[2] / "shared" / "reference", Path.cwd().parent / "shared" / "reference"]
    for root in roots:
        if (root / "traces" / RECORDED).is_dir():
            found["replay.fork_touch_256M"] = root / "traces" / RECORDED
            break
    return {name: path for name, path in found.items() if path.is_dir()}


@rows("replay.fork_touch_256M", "replay.packaged")
def replay_rows(settings: Settings) -> Iterator[Row]:
    """A recorded trace from its files to its last event: read, converted, replayed. Events are the rows behind its first snapshot."""
    from mmpy.traces.backend import EngineBackend
    from mmpy.traces.convert import convert
    from mmpy.traces.recording import Recording
    from mmpy.traces.replay import replay

    for name, path in recordings().items():
        rates, parts = [], []
        for turn in range(settings.repeat + 1):
            began = time.process_time()
            recording = Recording.open(path)
            opened = time.process_time()
            stream = convert(recording)
            converted = time.process_time()
            result = replay(recording, stream, backend=EngineBackend(recording))
            ended = time.process_time()
            if result.done != len(stream):
                raise AssertionError(f"{path}: the replay stopped at op {result.done} of {len(stream)}")
            events = len(recording.events.rows) - stream.first_row
            if turn or settings.tiny:
                rates.append(events / (ended - began))
                parts.append((opened - began, converted - opened, ended - converted))
        reading, converting, running = (sorted(part)[len(part) // 2] for part in zip(*parts, strict=True))
        runs = Runs(rates, [1e6] * len(rates))
        yield row_of(
            name, "events/s", runs, "1,000,000 events a CPU-second", bar=1, direction="min", stretch=5,
            note=f"{events} events of {path.name}, {len(stream)} operations; CPU seconds: reading {reading:.3f}, "
            f"converting {converting:.3f}, replaying with tracepoints and all snapshots {running:.3f} "
            f"(the engine alone {result.cpu_seconds:.3f})",
        )  # fmt: skip


def pair_stream(nr_ops: int, burst: int = 64) -> np.ndarray:
    """Bursts of order-0 allocations, each freed again: array of OP_DTYPE."""
    ops = np.zeros(nr_ops // (2 * burst) * 2 * burst, OP_DTYPE)
    shape = ops.reshape(-1, 2, burst)
    shape["op"][:, 0], shape["op"][:, 1] = int(Op.ALLOC), int(Op.FREE)
    shape["b"][:, 0] = int(GFP_KERNEL)
    shape["ref"][:, 1] = np.arange(len(ops), dtype=np.uint32).reshape(shape.shape)[:, 0]
    return ops


@rows("threads.two_machines")
def two_machines(settings: Settings) -> Iterator[Row]:
    """The same stream on one machine, and on two machines by two threads: throughput by wall time."""
    if (os.cpu_count() or 1) < 2:
        raise RuntimeError("two threads need two CPUs")
    ops = pair_stream(settings.size(1 << 20, tiny=1 << 10))
    turns = settings.size(8, tiny=1)
    sides = []
    for _ in range(2):
        state = warm(machine(1 << 18).state)
        sides.append((state, np.ones(len(ops), np.int64), np.ones(len(ops), np.uint64)))

    def work(state: State, rc: np.ndarray, value: np.ndarray, gate: threading.Barrier) -> None:
        gate.wait()
        for _ in range(turns):
            engine.run(state, ops, rc, value)
        gate.wait()

    def throughput(n: int) -> float:
        gate = threading.Barrier(n + 1)
        threads = [threading.Thread(target=work, args=(*side, gate)) for side in sides[:n]]
        for thread in threads:
            thread.start()
        gate.wait()
        began = time.perf_counter()
        gate.wait()
        spent = time.perf_counter() - began
        for thread in threads:
            thread.join()
        return n * turns * len(ops) / spent

    runs = alternate(lambda: throughput(2), lambda: throughput(1), settings)
    if any((rc < 0).any() for _, rc, _ in sides):
        raise AssertionError("an operation of the stream failed")
    yield row_of(
        "threads.two_machines", "ops/s", runs, "the same stream on one machine by one thread", bar=1.8, direction="min", stretch=1.9,
        note=f"engine.run of {len(ops)} operations, {turns} times; wall time, so anything else that runs on this machine counts against it",
    )  # fmt: skip
