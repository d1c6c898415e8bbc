"""`mmpy compare`: recorded cases of real kernels, each figure beside ours.

Status 0: every exact figure is equal. 1: one differs, or could not be had. 2: bad usage, or a set that cannot be read.
"""

from __future__ import annotations

from fnmatch import fnmatchcase

import click
from rich.console import Console

from mmpy.cli.output import console, print_json, progress, put, table, usage_errors
from mmpy.fidelity import KINDS, LRUS, Case, Row, Summary, open_set
from mmpy.fidelity import compare as compare_case
from mmpy.fidelity.inputs import table as input_table
from mmpy.fidelity.rows import differs, is_error


@click.command()
@click.argument("place", metavar="SET", required=False, type=click.Path())
@click.option("--kind", "kinds", multiple=True, type=click.Choice(KINDS), help="Only cases of this kind (may be repeated).")
@click.option("--case", "names", multiple=True, metavar="GLOB", help="Only cases of such a name (may be repeated).")
@click.option("--lru", "lrus", multiple=True, type=click.Choice(LRUS), help="Only cases that ran under this LRU.")
@click.option("--figure", "figures", multiple=True, metavar="GLOB", help="Only figures of such a name (may be repeated).")
@click.option("--inputs", is_flag=True, help="Print what is taken from a recording instead of predicted, and stop.")
@click.option("--brief", is_flag=True, help="Print figures that differ, and counts of the rest.")
@click.option("--json", "as_json", is_flag=True, help="Print all rows as one JSON list.")
@click.pass_context
def compare(
    ctx: click.Context,
    place: str | None,
    kinds: tuple[str, ...],
    names: tuple[str, ...],
    lrus: tuple[str, ...],
    figures: tuple[str, ...],
    inputs: bool,
    brief: bool,
    as_json: bool,
) -> None:
    """Hold the simulator against recordings of real kernels.

    SET is a directory of recorded cases, its index.json, or the directory of one case (or of your own machine's dump: zoneinfo, dmesg,
    and what else mmpy compare --inputs names). Every figure is printed with the kernel's value, ours and the distance; the exit status
    is 1 if a figure differs that is exact by rule.
    """
    if inputs:
        print_inputs(kinds, as_json)
        return
    if place is None:
        raise click.UsageError("Missing argument 'SET'.")
    with usage_errors():
        recorded = open_set(place)
        chosen = recorded.select(kinds, names, lrus)
    if not chosen:
        raise click.UsageError(f"none of the {len(recorded)} cases in {place} is of that kind, name and LRU")
    out = console()
    all_rows: list[Row] = []
    for i, case in enumerate(chosen):
        with progress(f"{case.name} ({i + 1} of {len(chosen)})", None) as update:
            found = compare_case(case, on_chunk=update)
        rows = [row for row in found if wanted(row, figures)]
        all_rows += rows
        if not as_json and rows:
            print_case(out, case, rows, brief)
    if not all_rows:
        raise click.UsageError(f"no figure of {len(chosen)} cases matches {', '.join(figures)}")
    total = Summary.of(all_rows)
    if as_json:
        print_json(all_rows)
    else:
        print_overview(out, all_rows)
        out.print(f"{len(chosen)} cases: {counts(total)}")
    ctx.exit(1 if any(differs(row) for row in all_rows) else 0)


def print_overview(out: Console, rows: list[Row]) -> None:
    """Runs of reclaim together: median and worst distance of each figure, and how many cases keep their bar and are equal."""
    from mmpy.fidelity.reclaim import overview, verdicts

    found = overview(rows)
    if found:
        titles = ("figure", "cases", "median", "worst", "errors", "worst in")
        put(out, table(titles, ((o.figure, o.cases, o.median, o.worst, o.errors, o.case) for o in found), last_left=True))
    names = {"verdict.equal": "equal", "verdict.bar": "within their bar"}
    for name, (good, total) in verdicts(rows).items():
        out.print(f"{good} of {total} runs {names[name]}")


def wanted(row: Row, globs: tuple[str, ...]) -> bool:
    """Whether the row's figure matches any of the globs (all do if there is none). A case that failed as a whole always shows."""
    return not globs or any(fnmatchcase(row["figure"], g) for g in globs) or (is_error(row) and row["figure"] == "case")


def counts(s: Summary) -> str:
    """A summary in words."""
    parts = [f"{s.equal} of {s.exact} exact figures equal"]
    if s.informative:
        parts.append(f"{s.informative} informative")
    if s.errors:
        parts.append(f"{s.errors} could not be compared")
    return ", ".join(parts)


def print_case(out: Console, case: Case, rows: list[Row], brief: bool) -> None:
    """The rows of one case as a table; with `brief` only those that differ."""
    shown = [row for row in rows if differs(row)] if brief else rows
    if shown:
        lines = ((r["figure"], r["kernel"], "-" if is_error(r) else r["ours"], r["distance"], remark(r)) for r in shown)
        put(out, table(("figure", "kernel", "ours", "distance", ""), lines, last_left=True))
    for row in rows:
        if row.get("explanation"):
            out.print(f"{row['figure']}: {row['explanation']}", markup=False)
    out.print(f"{case.kind} {case.name}: {counts(Summary.of(rows))}\n")


def remark(row: Row) -> str:
    """What else a row says, in words."""
    parts = []
    if is_error(row):
        parts.append(f"ERROR: {row.get('error', 'no figure')}")
    elif row["distance"] and row["exact"]:
        parts.append("DIFFERS")
    elif not row["exact"]:
        parts.append("informative")
    if row.get("first_divergence") is not None:
        parts.append(f"first at {row['first_divergence']}")
    if row.get("note"):
        parts.append(str(row["note"]))
    return "; ".join(parts)


def print_inputs(kinds: tuple[str, ...], as_json: bool) -> None:
    """The table of inputs, of all kinds of case or of some."""
    rows = [row for row in input_table() if not kinds or set(kinds) & set(row["kinds"].split())]
    if as_json:
        print_json(rows)
        return
    columns = ("kinds", "what", "source", "why")
    titles = ("cases", "taken from the recording", "where it stands", "why it is no prediction")
    put(console(), table(titles, ([row[c] for c in columns] for row in rows), left=4, wrap=True))
