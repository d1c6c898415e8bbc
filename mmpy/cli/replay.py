"""`mmpy replay`: a recorded allocator trace, run on a simulated machine; what the kernel did beside what we did."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from mmcore.phys import check
from mmpy.cli.output import console, print_json, progress, put, table, usage_errors
from mmpy.errors import ValidationError
from mmpy.fidelity.rows import Row, Summary, differs, is_error
from mmpy.fidelity.trace import compare_trace
from mmpy.traces import Recording, sample_path
from mmpy.traces.backend import EngineBackend

INTERRUPTED = 130
# What the sequences of a replay are, in the order in which they are told.
SEQUENCES = {
    "alloc": "page frames handed out",
    "bulk": "page frames of bulk requests",
    "refill": "blocks taken from the buddy lists",
    "drain": "blocks given back to the buddy lists",
    "fallback": "fallbacks to another migratetype",
}


@click.command()
@click.argument("trace", metavar="[TRACE]", required=False, type=click.Path(path_type=Path))
@click.option("--memory", metavar="SIZE", help="For a text trace: size of the machine it is run on (default 4G).")
@click.option("--resync", is_flag=True, help="Start again from the recorded state at each snapshot.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_context
def replay(ctx: click.Context, trace: Path | None, memory: str | None, resync: bool, as_json: bool) -> None:
    """Replay a recorded trace of the page allocator and compare every page frame, drain, fallback and list with the kernel's.

    TRACE is the directory of a recording (events.csv, gfp.csv, stateK.NAME.txt); without it the small one that comes with the package.
    Only requests are taken from the recording: which page each of them gets is predicted. Ctrl-C stops between two chunks.

    TRACE may also be a file with the text of ftrace, perf script or trace-cmd report (kmem:mm_page_*): its requests are then run on a
    machine just booted, and what they did to it is printed.
    """
    if trace is not None and trace.is_file():
        if resync:
            raise click.UsageError(f"--resync needs a recording with snapshots; {trace} is a file")
        from mmpy.cli.replay_text import replay_text

        ctx.exit(replay_text(trace, memory, as_json))
    if memory is not None:
        raise click.UsageError("--memory goes with a text trace: a recording names its machine itself")
    with usage_errors(OSError, ImportError):
        recording = Recording.open(sample_path() if trace is None else trace)
    backend = EngineBackend(recording)
    done = [0, 0]
    try:
        with progress(f"replaying {recording.name}", None) as show:

            def on_chunk(at: int, total: int) -> None:
                done[:] = at, total
                show(at, total)

            with usage_errors(OSError):
                rows = compare_trace(recording, resync, backend=backend, on_chunk=on_chunk)
    except KeyboardInterrupt:
        stopped(recording, backend, done, as_json)
        ctx.exit(INTERRUPTED)
    if as_json:
        print_json({**about(recording, resync, done[1]), "interrupted": False, "rows": rows, "summary": vars(Summary.of(rows))})
    else:
        print_replay(console(), recording, resync, done[1], rows)
    ctx.exit(1 if any(is_error(row) for row in rows) else 0)


def about(recording: Recording, resync: bool, operations: int) -> dict[str, Any]:
    """What is replayed, as plain data."""
    return {
        "trace": recording.name,
        "directory": str(recording.directory),
        "kernel": recording.kernel,
        "resync": resync,
        "events": recording.events.counts(),
        "operations": operations,
        "snapshots": [s.number for s in recording.snapshots],
    }


def stopped(recording: Recording, backend: EngineBackend, done: list[int], as_json: bool) -> None:
    """Tell how far an interrupted replay came, and that its machine is sound."""
    problem = None
    try:
        # None: interrupted before there was a machine.
        if backend.machine is not None:
            check.validate(backend.machine)
    except ValidationError as e:
        problem = str(e)
    if as_json:
        document = {"trace": recording.name, "interrupted": True, "done": done[0], "operations": done[1]}
        print_json(document | {"valid": problem is None, "problem": problem})
    valid = "the machine is valid" if problem is None else f"the machine is NOT valid: {problem}"
    where = f"after {done[0]} of {done[1]} operations" if done[1] else "before the first operations were done"
    click.echo(f"mmpy: interrupted {where}; {valid}", err=True)


def print_replay(out: Console, recording: Recording, resync: bool, operations: int, rows: list[Row]) -> None:
    """What happened, the kernel's figures beside ours, and where the two part first."""
    prefix = "resync." if resync else "free_running."
    named = {row["figure"].removeprefix(prefix): row for row in rows}
    mode = "state taken over at each snapshot" if resync else "free-running from the first snapshot to the end"
    kernel = f" (Linux {recording.kernel})" if recording.kernel else ""
    out.print(f"{recording.name}{kernel}: {len(recording.events)} events, {operations} operations, {mode}\n", markup=False)

    lines = []
    for name, what in SEQUENCES.items():
        if (row := named.get(name)) is not None:
            lines.append([what, row["kernel"], row["ours"], share(row), row.get("first_divergence")])
    out.print("Events")
    put(out, table(["what", "kernel's", "ours equal", "share", "first that differs"], lines))

    lines = []
    for s in recording.snapshots[1:]:
        lists = named.get(f"SNAP{s.number}.lists")
        if lists is None:
            continue
        own = [row for key, row in named.items() if key.startswith(f"SNAP{s.number}.")]
        total = Summary.of(own)
        lines.append([f"{s.number} {s.label}", lists["kernel"], lists["ours"], share(lists), f"{total.equal} of {total.exact}"])
    if lines:
        out.print()
        out.print("Snapshots")
        put(out, table(["snapshot", "lists", "equal", "share", "figures equal"], lines))

    last = max((s.number for s in recording.snapshots[1:] if f"SNAP{s.number}.lists" in named), default=None)
    if last is not None:
        found = {}
        for key, row in named.items():
            if m := re.fullmatch(rf"SNAP{last}\.(node\d+)\.(\w+)\.nr_free_pages", key):
                found[m[1], m[2]] = row
        lines = [[node, zone, row["kernel"], row["ours"]] for (node, zone), row in found.items()]
        out.print()
        out.print(f"Free pages at snapshot {last}")
        put(out, table(["node", "zone", "kernel's", "ours"], lines, left=2))

    total = Summary.of(rows)
    out.print(f"\n{total.equal} of {total.exact} figures equal" + (f", {total.errors} errors" if total.errors else ""))
    if (speed := named.get("events_per_cpu_second")) is not None:
        out.print(f"{speed['ours']} events a second of CPU time, reading included")
    for row in rows:
        if row.get("explanation"):
            out.print(f"\nFirst divergence: {row['explanation']}", markup=False)
            break
    else:
        first = next((row for row in rows if differs(row)), None)
        if first is not None:
            why = first.get("error") or f"kernel {first['kernel']}, ours {first['ours']}"
            out.print(f"\nFirst figure that differs: {first['figure']}: {why}", markup=False)


def share(row: Row) -> str:
    """Equal items as a share of the kernel's."""
    if not row["kernel"]:
        return "-" if row["ours"] == row["kernel"] else "0 %"
    return f"{100 * row['ours'] / row['kernel']:.4g} %"
