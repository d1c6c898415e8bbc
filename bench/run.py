"""Measures what the project promises, side by side with its yardsticks, and prints a table or JSON."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))  # behind what is installed: an installed mmcore is the one to measure

HELP = """\
A row is {name, ours, yardstick, yardstick_value, ratio, bar, direction, holds, unit, machine} (JSON: a list of them, with further keys
stretch, stretch_holds, ratio_range, note, load, runs, error). ratio = ours / yardstick_value; it holds when it is at most (direction max)
or at least (direction min) the bar. A row without a bar is for information.

How it is measured. Both sides run in one process, alternating (ours, yardstick, ours, yardstick, ...), --repeat times each after a run of
each that does not count; the medians are compared, and the least and greatest ratio of neighbouring runs is shown. Memory is warm: every
page of host memory that a run uses was written to before it is timed (exceptions say so: what builds or imports is measured cold, in new
processes). Single-threaded rows count CPU time of the thread, rows of threads, processes and imports wall time. Times belong to the
machine that they were taken on; only ratios travel. Yardsticks that are C loops stand in bench/client.pyx, which is compiled against the
installed core with the core's own flags (-O3, nothing for the processor at hand) and works on the same records. numpy puts large arrays
on huge pages where the system lets it; this holds for the simulator's arrays and for yardsticks that are numpy arrays, and rows say what
differs.

--quick takes smaller machines (each such row says so) and ends in ten minutes. Exit status: 0, or 1 if a row could not be measured.
"""


def number(value: float | None) -> str:
    if value is None:
        return "-"
    if value == int(value) and abs(value) < 1e6:
        return str(int(value))
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def columns(row: dict) -> list[str]:
    """A row as the table shows it."""
    sign = "<=" if row["direction"] == "max" else ">="
    low_high = row["ratio_range"]
    return [
        row["name"],
        f"{number(row['ours'])} {row['unit']}" if row["ours"] is not None else "error",
        number(row["yardstick_value"]),
        number(row["ratio"]),
        f"{number(low_high[0])}..{number(low_high[1])}" if low_high else "",
        "" if row["bar"] is None else f"{sign} {number(row['bar'])}",
        "" if row["stretch"] is None else f"{sign} {number(row['stretch'])}",
        "-" if row["holds"] is None else "stretch" if row["stretch_holds"] else "yes" if row["holds"] else "NO",
    ]


TITLES = ["row", "ours", "yardstick", "ratio", "range", "bar", "stretch", "holds"]


def print_table(rows: Sequence[dict]) -> None:
    """All rows at once, with what the yardsticks are below; through rich where it is installed and someone looks."""
    cells = [columns(row) for row in rows]
    plain = not sys.stdout.isatty()
    if not plain:
        try:
            from rich.console import Console
            from rich.table import Table
        except ImportError:
            plain = True
        else:
            table = Table(*TITLES)
            for line in cells:
                table.add_row(*line, style={"NO": "red", "stretch": "green"}.get(line[-1]))
            Console().print(table)
    if plain:
        widths = [max(map(len, column)) for column in zip(TITLES, *cells, strict=True)]
        for line in [TITLES, *cells]:
            print("  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip())
    print()
    for row in rows:
        text = row.get("error") or f"yardstick: {row['yardstick']}{'; ' if row['note'] else ''}{row['note']}"
        print(f"{row['name']}: {text}")
    if rows:
        print(f"\n{rows[0]['machine']}")


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="bench/run.py", description=__doc__, epilog=HELP, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", metavar="GLOB", default="*", help="rows whose names match (buddy.*)")
    parser.add_argument("--quick", action="store_true", help="smaller machines; ten minutes at most")
    parser.add_argument("--json", action="store_true", help="a JSON list of rows instead of the table")
    parser.add_argument("--repeat", metavar="N", type=int, help="runs of each side (default 7, with --quick 5; at least 5)")
    parser.add_argument("--list", action="store_true", help="only print the names of the rows")
    parser.add_argument("-q", "--quiet", action="store_true", help="do not say on stderr what is being measured")
    args = parser.parse_args(argv)

    from bench import harness

    repeat = args.repeat if args.repeat is not None else harness.MIN_REPEAT if args.quick else 7
    if repeat < harness.MIN_REPEAT:
        parser.error(f"--repeat is {repeat}; at least {harness.MIN_REPEAT} runs of each side make a median")
    if args.list:
        harness.load_all()
        print("\n".join(name for names, _ in harness.MEASUREMENTS for name in names))
        return 0

    def say(text: str) -> None:
        if not args.quiet:
            print(text, file=sys.stderr, flush=True)

    settings = harness.Settings(repeat=repeat, quick=args.quick, log=say)
    done = [row.as_dict() for row in harness.run(settings, args.only)]
    if not done:
        parser.error(f"no row is called {args.only!r}; --list names them")
    if args.json:
        print(json.dumps(done, indent=1))
    else:
        print_table(done)
    return 1 if any("error" in row for row in done) else 0


if __name__ == "__main__":
    sys.exit(main())
