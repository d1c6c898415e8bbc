"""`mmpy replay FILE`: the text of ftrace, perf script or trace-cmd, run on a machine of the user's choice.

Such a trace has no snapshot to start from: the machine is one just booted, its page frames are its own, and there is nothing of the
kernel's to hold them against. What is told is what the requests did to this machine.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console

from mmcore.base.trace import Tracer
from mmcore.run.ops import Op
from mmpy.cli.boot import SIZE, describe
from mmpy.cli.output import console, print_json, progress, put, table, usage_errors
from mmpy.errors import ValidationError
from mmpy.machine import Machine
from mmpy.traces import OpStream, convert_ftrace, read_ftrace

TRACED = {1: "blocks taken from the buddy lists", 2: "blocks given back to the buddy lists", 3: "fallbacks to another migratetype"}


def replay_text(path: Path, memory: str | None, as_json: bool) -> int:
    """Replay a text trace on a machine of `memory`; the command's exit status."""
    with usage_errors(OSError):
        trace = read_ftrace(path)
        stream = convert_ftrace(trace)
        if not len(stream):
            raise ValueError(f"{path}: no event of the page allocator (kmem:mm_page_*) in {trace.lines} lines")
        machine = Machine(memory or SIZE, cpus=trace.nr_cpus)
    tracer, done, interrupted = Tracer(), [0], False
    counts = dict.fromkeys(TRACED, 0)
    rc = np.empty(0, np.int64)
    with progress(f"replaying {path.name}", len(stream)) as show:

        def on_chunk(at: int, total: int) -> None:
            done[0] = at
            rows = tracer.take()
            for kind in TRACED:
                counts[kind] += int(np.count_nonzero(rows["event"] == kind))
            show(at, total)

        try:
            rc, _, _ = machine.run(stream.ops, on_chunk=on_chunk, tracer=tracer)
        except KeyboardInterrupt:
            interrupted = True
    problem = check(machine)
    if interrupted:
        rest = "the machine is valid" if problem is None else f"the machine is NOT valid: {problem}"
        click.echo(f"mmpy: interrupted after {done[0]} of {len(stream)} operations; {rest}", err=True)
    what = summary(stream, rc, counts, done[0])
    if as_json:
        head = {"trace": str(path), "read": trace.summary(), "interrupted": interrupted, "valid": problem is None, "problem": problem}
        print_json(head | what | {"machine": describe(machine)})
    elif not interrupted:
        print_text(console(), trace.summary(), what, machine)
    if interrupted:
        return 130
    return 0 if problem is None else 1


def check(machine: Machine) -> str | None:
    """What is wrong with a machine, None if nothing is."""
    try:
        machine.validate()
    except ValidationError as e:
        return str(e)
    return None


def summary(stream: OpStream, rc: np.ndarray, counts: dict[int, int], done: int) -> dict[str, Any]:
    """What a run did, as plain data."""
    ops = stream.ops[: len(rc)]
    requests = {}
    for op in (Op.ALLOC, Op.ALLOC_BULK, Op.FREE):
        of = ops["op"] == int(op)
        requests[op.name.lower()] = {"done": int(np.count_nonzero(of)), "failed": int(np.count_nonzero(rc[of] < 0))}
    return {
        "operations": len(stream),
        "done": done,
        "unknown_frees": stream.counts.get("unknown_frees", 0),
        "requests": requests,
        "events": {TRACED[kind]: n for kind, n in counts.items()},
    }


def print_text(out: Console, read: str, what: dict[str, Any], machine: Machine) -> None:
    """The same as tables."""
    out.print(read, markup=False)
    out.print(f"{what['operations']} operations; {what['unknown_frees']} frees of pages from before the trace left out\n")
    rows = [[name, n["done"], n["failed"]] for name, n in what["requests"].items()]
    put(out, table(["request", "done", "failed"], rows))
    out.print()
    put(out, table(["what the machine did", "times"], list(what["events"].items())))
    out.print("\nAfterwards (pages of 4 KiB)")
    zones = [z for z in machine.zones if z.populated]
    rows = [[z.node, z.name, z.managed, z.nr_free_pages, sum(p.count for p in z.pcp), z.min, z.low, z.high] for z in zones]
    put(out, table(["node", "zone", "managed", "free", "on CPUs' lists", "min", "low", "high"], rows, left=2))
