"""Rows about the border: what a single call from Python costs, beside calls that do nothing."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

from bench.build import client
from bench.harness import Row, Runs, Settings, alternate, row_of, rows
from bench.machines import machine, warm
from mmcore.alloc import page_alloc, page_free
from mmpy import GFP_KERNEL

UNROLL = 20


class EmptyMachine:
    """Methods with the signatures of mmpy.Machine's and empty bodies."""

    def alloc_pages(self, order: int = 0, gfp: int = GFP_KERNEL, *, node: int | None = None, cpu: int = 0) -> int:  # type: ignore[empty-body]
        pass

    def free_pages(self, pfn: int, order: int = 0, *, cpu: int = 0) -> None:
        pass


def unrolled(line: str, **names: Any) -> Callable[[int], float]:
    """A function that runs `line` UNROLL times in a loop of n turns; CPU seconds a line. So the loop itself costs next to nothing."""
    body = "\n        ".join([line] * UNROLL)
    arguments = "".join(f", {name}={name}" for name in names)
    scope = {**names, "clock": time.thread_time_ns}
    exec(
        f"def timed(n{arguments}):\n    began = clock()\n    for _ in range(n):\n        {body}\n"
        f"    return (clock() - began) * 1e-9 / n / {UNROLL}",
        scope,
    )
    return scope["timed"]  # type: ignore[return-value]


@rows(
    "call.core_pair", "call.core_pair_vs_pair", "call.core_pair_vs_cpdef", "call.machine_pair", "call.machine_pair_vs_pair",
    "call.machine_pair_vs_cpdef",
)  # fmt: skip
def single_calls(settings: Settings) -> Iterator[Row]:
    """alloc_pages() and free_pages() of one page: a call into the core, and through mmpy.Machine."""
    c = client()
    m = machine(1 << 20)
    state = warm(m.state)
    c.pair_bursts(state, 20, 512, int(GFP_KERNEL))
    gfp, turns = int(GFP_KERNEL), settings.size(5_000, tiny=2)
    core = unrolled("p = alloc(s, gfp); free(s, p)", alloc=page_alloc.alloc_pages, free=page_free.free_pages, s=state, gfp=gfp)
    core_one = unrolled("p = alloc(s, gfp)", alloc=c.empty_alloc, s=state, gfp=gfp)
    core_two = unrolled("p = alloc(s, gfp); free(s, p)", alloc=c.empty_alloc, free=c.empty_free, s=state, gfp=gfp)
    cpdef = unrolled("e.nothing()", e=c.Empty())
    whole = unrolled("p = m.alloc_pages(); m.free_pages(p)", m=m)
    whole_one = unrolled("p = m.alloc_pages()", m=EmptyMachine())
    whole_two = unrolled("p = m.alloc_pages(); m.free_pages(p)", m=EmptyMachine())

    def run(timed: Callable[[int], float]) -> Callable[[], float]:
        return lambda: statistics.median(timed(turns) for _ in range(5))

    same = "compiled function of the same signature"
    for name, ours, yardstick, text, bar, stretch in (
        ("call.core_pair", core, core_one, f"ONE call of an empty {same}", 5, 3.5),
        ("call.core_pair_vs_pair", core, core_two, f"a pair of calls of empty {same.replace('function', 'functions')}", None, None),
        ("call.core_pair_vs_cpdef", core, cpdef, "ONE call of an empty cpdef method without arguments", None, None),
        ("call.machine_pair", whole, whole_one, "ONE call of an empty Python method of the same signature", 10, None),
        ("call.machine_pair_vs_pair", whole, whole_two, "a pair of calls of empty Python methods of the same signatures", None, None),
        ("call.machine_pair_vs_cpdef", whole, cpdef, "ONE call of an empty cpdef method without arguments", None, None),
    ):
        runs: Runs = alternate(run(ours), run(yardstick), settings)
        what = "machine.alloc_pages() + machine.free_pages(pfn)" if ours is whole else "alloc_pages(state, gfp) + free_pages(state, pfn)"
        yield row_of(name, "ns/pair", runs.scaled(1e9), text, bar=bar, stretch=stretch, note=what)
