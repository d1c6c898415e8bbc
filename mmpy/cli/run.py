"""`mmpy run`: a recorded trace of memory accesses, or an experiment file, run on a simulated machine."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from mmcore.phys import check
from mmpy.cli.boot import counts_or_sizes
from mmpy.cli.output import console, print_json, progress, put, table, usage_errors
from mmpy.errors import ValidationError
from mmpy.experiment import Experiment, Result, figures, run_experiment
from mmpy.machine import Machine
from mmpy.sysctl import THP
from mmpy.traces import files
from mmpy.traces.access import FORMATS, GAP, access_sample_path, read_access_trace
from mmpy.traces.access_replay import Outcome, make_accesses, map_pages

INTERRUPTED = 130
OUT_OF_MEMORY = 1
SIZE = "1G"
# Results of accesses, in the order in which they are told.
RESULTS = {
    "accesses": "accesses made",
    "hits": "found their page mapped",
    "minor": "minor faults",
    "major": "major faults",
    "segv": "SIGSEGV",
    "sigbus": "SIGBUS",
    "oom": "no memory left",
}


@click.command()
@click.argument("trace", metavar="[TRACE|FILE.toml]", required=False, type=click.Path(path_type=Path))
@click.option("--memory", metavar="SIZE", help=f"Size of the machine (default {SIZE}).")
@click.option("--thp", type=click.Choice(["always", "madvise", "never"]), help="Huge pages (default always; below 512 MiB: never).")
@click.option("--cpus", metavar="N|LIST", help="CPUs of the machine; the accesses are made on CPU 0.")
@click.option("--format", "form", type=click.Choice(FORMATS), help="What the trace is (default auto: by its first lines).")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Stop after so many accesses.")
@click.option("--instructions", is_flag=True, help="Of a lackey trace, run the instruction fetches too, as reads.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_context
def run(ctx: click.Context, trace: Path | None, as_json: bool, **given: Any) -> None:
    """Run a trace of memory accesses on a machine just booted, and print what its memory manager did.

    TRACE is what Valgrind's lackey writes (--trace-mem=yes), a list of addresses (text, CSV, npy), or one of these as .gz or .zst; without
    it, the small real one that comes with the package. The pages that it accesses are mapped first, as private anonymous memory.

    FILE.toml is an experiment: machine, workload or trace, and what to sample.
    """
    options = {name: value for name, value in given.items() if value not in (None, False)}
    if trace is not None and trace.suffix == ".toml":
        if options:
            named = ", ".join("--format" if name == "form" else f"--{name}" for name in options)
            raise click.UsageError(f"{trace} says itself what is run: {named} cannot be given too")
        run_file(trace, as_json)
    else:
        ctx.exit(run_trace(access_sample_path() if trace is None else trace, options, as_json))


# ---------------------------------------------------------------- traces


def run_trace(path: Path, options: dict[str, Any], as_json: bool) -> int:
    """Run a trace; the command's exit status."""
    with usage_errors():
        shape: dict[str, Any] = {name: options[name] for name in ("memory", "thp") if name in options}
        if "cpus" in options:
            shape["cpus"] = counts_or_sizes(options["cpus"])
        machine = Machine(**{"memory": SIZE, **shape})
    reading = {name: options[name] for name in ("limit", "instructions") if name in options}
    with usage_errors(OSError, ImportError), progress(f"reading {path.name}", files.size_hint(path) or None) as show:
        trace = read_access_trace(path, format=options.get("form", "auto"), on_bytes=show, **reading)
        if not len(trace):
            left = ", ".join(f"{n} {what}" for what, n in trace.skipped.items()) or "nothing"
            raise ValueError(f"{path}: no accesses in it; left out: {left}")
    process = machine.spawn(path.name.partition(".")[0] or "trace")
    before = dict(machine.vmstat)
    outcome, complete, interrupted, began = Outcome(), False, False, time.process_time()
    try:
        with progress(f"running {path.name}", len(trace)) as show:
            mapped, refused = map_pages(process, trace.vpns)
            complete = make_accesses(process, trace.vpns, trace.writes, outcome, show)
    except KeyboardInterrupt:
        interrupted = True
    seconds = time.process_time() - began
    problem = None
    if interrupted:
        problem = trouble(machine)
        rest = "the machine is valid" if problem is None else f"the machine is NOT valid: {problem}"
        click.echo(f"mmpy: interrupted after {outcome.done} of {len(trace)} accesses; {rest}", err=True)
        if as_json:
            head = {"trace": path.name, "interrupted": True, "done": outcome.done, "accesses": len(trace)}
            print_json(head | {"valid": problem is None, "problem": problem})
        return INTERRUPTED
    after = dict(machine.vmstat)
    moved = {name: after[name] - n for name, n in before.items() if after[name] != n}
    document = {
        "trace": path.name,
        "accesses": len(trace),
        "writes": int(trace.writes.sum()),
        "pages": trace.nr_pages,
        "skipped": trace.skipped,
        "machine": {"memory_pages": machine.totalram_pages, "cpus": machine.nr_cpus, "thp": machine.sysctl[THP]},
        "mapped": {"ranges": len(mapped), "pages": sum(b - a for a, b in mapped), "gap": GAP, "refused": len(refused)},
        "interrupted": False,
        "complete": complete,
        "result": {
            **outcome.as_dict(),
            "faults_per_million": round(1e6 * (outcome.as_dict()["minor"] + outcome.as_dict()["major"]) / max(outcome.done, 1), 3),
        },
        "process": figures(process),
        "pages_allocated": sum(n for name, n in moved.items() if name.startswith("pgalloc_")),
        "vmstat": moved,
    }
    if as_json:
        print_json(document)
    else:
        print_run(console(), document)
    if seconds > 0:
        click.echo(f"{outcome.done / seconds:.3g} accesses a second of CPU time, reading not included", err=True)
    if not complete:
        click.echo(f"mmpy: out of memory at access {outcome.done} of {len(trace)}", err=True)
        return OUT_OF_MEMORY
    return 0


def trouble(machine: Machine) -> str | None:
    """What is wrong with a machine's state, None if nothing is."""
    try:
        check.validate(machine.state)
    except ValidationError as e:
        return str(e)
    return None


def print_run(out: Console, d: dict[str, Any]) -> None:
    """What was run and what came of it."""
    machine, mapped, result, process = d["machine"], d["mapped"], d["result"], d["process"]
    left = "".join(f", {n} {what} left out" for what, n in d["skipped"].items())
    out.print(f"{d['trace']}: {d['accesses']} accesses to {d['pages']} pages, {d['writes']} of them writes{left}", markup=False)
    out.print(
        f"on a machine of {machine['memory_pages'] * 4 / 1024:.1f} MiB, {machine['cpus']} CPU{'s' * (machine['cpus'] > 1)}, transparent "
        f"huge pages {machine['thp']}; {mapped['pages']} pages mapped in {mapped['ranges']} ranges"
        + (f", {mapped['refused']} ranges refused" if mapped["refused"] else "")
        + "\n"
    )
    print_counts(out, result, [["faults per million accesses", result["faults_per_million"]]])
    lines = [
        ["resident pages", process["rss_pages"]],
        ["resident kB", process["rss_pages"] * 4],
        ["page tables kB", process["page_table_bytes"] // 1024],
        ["pages allocated", d["pages_allocated"]],
    ]
    out.print()
    put(out, table(["memory", ""], lines))
    print_moved(out, d["vmstat"])


def print_counts(out: Console, result: dict[str, int], more: list[list[Any]] | None = None) -> None:
    """Results of accesses; those that never happened are left out, the usual ones excepted."""
    always = ("accesses", "hits", "minor", "major", "segv")
    lines = [[what, result[name]] for name, what in RESULTS.items() if name in always or result[name]]
    put(out, table(["accesses", ""], lines + [[name, f"{value:.6g}"] for name, value in more or []]))


def print_moved(out: Console, moved: dict[str, int]) -> None:
    """Counters of /proc/vmstat that changed."""
    out.print()
    put(out, table(["/proc/vmstat", "change"], ([name, f"{n:+d}"] for name, n in moved.items())))


# ---------------------------------------------------------------- experiments


def run_file(path: Path, as_json: bool) -> None:
    """Run an experiment file and print its result."""
    with usage_errors(OSError, ImportError):
        exp = Experiment.load(path)
        with progress(f"running {path.name}", None) as show:
            result = run_experiment(exp, show)
    if as_json:
        print_json(result.as_dict())
    else:
        print_experiment(console(), path, exp, result)
    if not result.complete:
        click.echo(f"mmpy: out of memory at access {result.totals['accesses']}", err=True)
        click.get_current_context().exit(OUT_OF_MEMORY)


def print_experiment(out: Console, path: Path, exp: Experiment, result: Result) -> None:
    """Samples (a few of them), totals and where the rest went."""
    out.print(f"{path.name}: experiment {result.provenance['experiment_sha256'][:16]}", markup=False)
    if result.provenance["trace_sha256"]:
        out.print(f"trace {result.provenance['trace_sha256'][:16]}")
    out.print()
    print_counts(out, result.totals)
    lines = [["resident pages", result.totals["rss_pages"]], ["page tables kB", result.totals["page_table_bytes"] // 1024]]
    out.print()
    put(out, table(["memory", ""], lines))
    n = len(result.samples["access"])
    shown = sorted({round(i * (n - 1) / 9) for i in range(10)}) if n > 12 else range(n)
    out.print()
    out.print(f"Samples ({len(shown)} of {n})")
    rows = ([int(values[i]) for values in result.samples.values()] for i in shown)
    put(out, table(list(result.samples), rows, left=0))
    print_moved(out, result.vmstat)
    if exp.output_path is not None:
        out.print(f"\nwritten to {exp.output_path}", markup=False)
