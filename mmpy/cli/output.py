"""What the commands share: consoles, tables, JSON, and bad input turned into usage errors.

Models: nothing of the kernel.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

PIPE_WIDTH = 132


def console(*, stderr: bool = False) -> Console:
    """A console on stdout (or stderr); into a pipe or a file it prints plain text of a fixed, generous width."""
    out = Console(stderr=stderr, highlight=False, soft_wrap=False)
    return out if out.is_terminal else Console(stderr=stderr, highlight=False, width=PIPE_WIDTH, no_color=True)


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    left: int = 1,
    last_left: bool = False,
    wrap: bool = False,
) -> Table:
    """A table whose first `left` columns (and with `last_left` the last) are words and the rest numbers; words wrap if `wrap` is set."""
    out = Table(box=None, pad_edge=False, header_style="bold")
    for i, column in enumerate(columns):
        last = last_left and i == len(columns) - 1
        words = i < left or last
        out.add_column(column, justify="left" if words else "right", no_wrap=not (wrap or last), overflow="fold")
    for row in rows:
        out.add_row(*(cell(value) for value in row))
    return out


def put(out: Console, what: Table) -> None:
    """Print a table, its lines without blanks at their ends."""
    with out.capture() as printed:
        out.print(what)
    for line in printed.get().splitlines():
        click.echo(line.rstrip())


def cell(value: object) -> str:
    """How a value stands in a table."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, (list, tuple)):
        return " ".join(cell(v) for v in value)
    return escape(str(value))


def print_json(document: Any) -> None:
    """One JSON document on stdout, keys in the order they were made. No NaN: everything that reads JSON can read it."""
    click.echo(json.dumps(document, indent=1, allow_nan=False, default=_plain))


def _plain(value: Any) -> Any:
    # numpy scalars and arrays
    for name in ("tolist", "item"):
        if hasattr(value, name):
            return getattr(value, name)()
    raise TypeError(f"{type(value).__name__} is not JSON")


@contextlib.contextmanager
def usage_errors(*kinds: type[Exception]) -> Iterator[None]:
    """Bad input of the user's (ValueError, TypeError, OverflowError and `kinds`) leaves as a usage error: one line, status 2."""
    bad: tuple[type[Exception], ...] = (ValueError, TypeError, OverflowError, *kinds)
    try:
        yield
    except bad as e:
        raise click.UsageError(str(e) or type(e).__name__) from e


@contextlib.contextmanager
def progress(label: str, total: int | None, *, shown: bool = True) -> Iterator[Any]:
    """A progress bar on stderr while the body runs, yielded as a function (done, total=None); silent where stderr is no terminal."""
    where = console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=where,
        transient=True,
        disable=not shown or not where.is_terminal,
    )
    with bar:
        task = bar.add_task(label, total=total)
        yield lambda done, total=None: bar.update(task, completed=done, **({} if total is None else {"total": total}))
