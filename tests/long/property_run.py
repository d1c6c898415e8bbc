"""Random operations by the hundred million over many shapes, with a recount from scratch after every part.

    python -m tests.long.property_run --ops 100000000

Each part is a stream of allocations (orders 0 to 10, many masks), frees of what it allocated, ticks, kswapd runs and drains, run by the
engine; every part must leave a machine that validate() accepts, and end with all memory given back where it frees everything.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from mmcore.run.ops import OP_DTYPE, Op
from mmpy import Machine

SHAPES = (
    {"memory": "64M"},
    {"memory": "1G", "cpus": 2},
    {"memory": "5G", "cpus": 4},
    {"memory": "2G", "nodes": 2, "cpus": 4},
    {"memory": "4G", "nodes": 4, "cpus": 8, "distances": [[10, 20, 30, 40], [20, 10, 20, 30], [30, 20, 10, 20], [40, 30, 20, 10]]},
    {"memory": "1G", "movablecore": "256M"},
    {"memory": "2G", "arch": "i386"},
    {"memory": "1G", "kernel": "6.1"},
)
MASKS = np.array([0xCC0, 0x820, 0x100CCA, 0x140DCA, 0xCD0, 0x1, 0x4, 0x20CC0, 0x2800, 0x200CC0], np.uint64)


def stream(machine: Machine, n: int, rng: np.random.Generator) -> np.ndarray:
    """`n` operations: allocations live for a geometric time, then are freed by reference."""
    ops = np.zeros(n, OP_DTYPE)
    kind = rng.random(n)
    ops["cpu"] = rng.integers(0, machine.nr_cpus, n)
    alloc = kind < 0.49
    free = (kind >= 0.49) & (kind < 0.98)
    ops["op"][alloc] = Op.ALLOC
    ops["a"][alloc] = rng.choice(np.array([0] * 600 + [1, 2, 3] * 40 + [4, 5, 6, 7, 8, 9, 10]), alloc.sum())
    ops["b"][alloc] = rng.choice(MASKS, alloc.sum())
    ops["c"][alloc] = rng.integers(0, machine.nr_nodes + 1, alloc.sum())
    made = np.flatnonzero(alloc)
    # the k-th free takes one of the allocations before it that no other free takes: a random match within a window
    at = np.flatnonzero(free)
    window = int(rng.choice([16, 1000, 60000]))
    order = np.argsort(np.arange(len(made)) + rng.random(len(made)) * window)
    m = min(len(at), len(made))
    target = made[order[:m]]
    ok = target < at[:m]
    ops["op"][at[:m][ok]] = Op.FREE
    ops["ref"][at[:m][ok]] = target[ok]
    ops["b"][at[:m][ok]] = ops["a"][target[ok]]
    rest = kind >= 0.98
    ops["op"][rest] = rng.choice([Op.VMSTAT_TICK, Op.KSWAPD_BEGIN, Op.KSWAPD_END, Op.DRAIN_ALL], rest.sum(), p=[0.97, 0.014, 0.014, 0.002])
    return ops


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--ops", type=int, default=10**8)
    parser.add_argument("--part", type=int, default=10**6)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    done, failed, began, seconds = 0, 0, time.monotonic(), 0.0
    while done < options.ops:
        machine = Machine(**SHAPES[done // options.part % len(SHAPES)])
        ops = stream(machine, min(options.part, options.ops - done), rng)
        start = time.process_time()
        rc, value, _ = machine.run(ops)
        seconds += time.process_time() - start
        counted = machine.validate()
        # what still lives, by the results alone
        live = np.zeros(len(ops), bool)
        live[(ops["op"] == Op.ALLOC) & (rc == 0)] = True
        live[ops["ref"][(ops["op"] == Op.FREE) & (rc == 0)]] = False
        pages = int((1 << ops["a"][live].astype(np.int64)).sum())
        assert counted["allocated"] == pages, (counted, pages)
        for order in range(11):
            machine.free_pages_many(value[live & (ops["a"] == order)].astype(np.uint32), order)
        assert machine.validate()["allocated"] == 0
        done += len(ops)
        failed += int((rc < 0).sum())
        if done % (10 * options.part) == 0:
            passed = time.monotonic() - began
            print(f"{done:,} operations, {failed:,} refused, {passed:.0f} s ({seconds:.1f} s of them in the engine)", flush=True)
    print(f"{done:,} operations over {len(SHAPES)} shapes, {failed:,} refused: every recount agreed")


if __name__ == "__main__":
    main()
