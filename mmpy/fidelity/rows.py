"""Rows: one figure that a kernel printed, beside ours.

A row is a plain dict, so that it prints as JSON as it is:

    {"case", "kind", "figure", "kernel", "ours", "distance", "spread", "exact"}  and, where they say something,
    "first_divergence" (index in a sequence where the two part, None if they never do), "error" (why there is no `ours`), "note".

`figure` is a dotted path. `distance` is |ours - kernel| / max(|kernel|, 1) for numbers, 0 or 1 for anything else, None in an error
row. `spread` is the recording's own run-to-run spread as a fraction, None where the recording has one run. `exact` says that the
rule behind the figure leaves no freedom: then any distance above 0 is a fault of ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]

KEYS = ("case", "kind", "figure", "kernel", "ours", "distance", "spread", "exact")


def distance(kernel: object, ours: object) -> float:
    """How far `ours` is from `kernel`: relative for numbers, 0.0 or 1.0 (equal or not) for the rest."""
    numbers = (int, float)
    if isinstance(kernel, numbers) and isinstance(ours, numbers) and not isinstance(kernel, bool):
        return abs(ours - kernel) / max(abs(kernel), 1)
    return 0.0 if kernel == ours else 1.0


def figure(
    case: str, kind: str, name: str, kernel: Any, ours: Any, *, exact: bool, spread: float | None = None, note: str = ""
) -> Row:
    """The row of one figure. Numpy scalars become plain ones."""
    kernel, ours = _plain(kernel), _plain(ours)
    row: Row = {
        "case": case,
        "kind": kind,
        "figure": name,
        "kernel": kernel,
        "ours": ours,
        "distance": distance(kernel, ours),
        "spread": spread,
        "exact": exact,
    }
    if note:
        row["note"] = note
    return row


def sequence(
    case: str, kind: str, name: str, kernel: Sequence[Any], ours: Sequence[Any], *, exact: bool, note: str = ""
) -> Row:
    """The row of two sequences: `kernel` is the recorded length, `ours` how many items are equal, place by place.

    `first_divergence` is the index of the first place that differs (the shorter length if one is a prefix of the other).
    A sequence of ours that goes on where the kernel's ended counts each surplus item as one that differs.
    """
    common = min(len(kernel), len(ours))
    equal, first = 0, None
    for i in range(common):
        if kernel[i] == ours[i]:
            equal += 1
        elif first is None:
            first = i
    if first is None and len(kernel) != len(ours):
        first = common
    surplus = max(0, len(ours) - len(kernel))
    row = figure(case, kind, name, len(kernel), equal, exact=exact, note=note)
    if surplus:
        row["distance"] = (len(kernel) - equal + surplus) / max(len(kernel), 1)
    row["first_divergence"] = first
    return row


def error(case: str, kind: str, message: str, *, name: str = "case", kernel: Any = None) -> Row:
    """The row of something that could not be compared. It counts as a difference."""
    return {
        "case": case,
        "kind": kind,
        "figure": name,
        "kernel": kernel,
        "ours": None,
        "distance": None,
        "spread": None,
        "exact": True,
        "error": message,
    }


def is_error(row: Mapping[str, Any]) -> bool:
    """Whether the row says why a figure is missing."""
    return row.get("error") is not None or row.get("ours") is None


def differs(row: Mapping[str, Any]) -> bool:
    """Whether an exact figure differs, or there is none at all: what makes `mmpy compare` fail."""
    return is_error(row) or bool(row["exact"] and row["distance"])


@dataclass(frozen=True)
class Summary:
    """Counts over rows: `exact` of them exact by rule, `equal` of those equal; `informative` the rest; `errors` without ours."""

    rows: int = 0
    exact: int = 0
    equal: int = 0
    informative: int = 0
    errors: int = 0

    @classmethod
    def of(cls, rows: Iterable[Mapping[str, Any]]) -> Summary:
        """Count `rows`."""
        total = exact = equal = informative = errors = 0
        for row in rows:
            total += 1
            if is_error(row):
                errors += 1
            elif row["exact"]:
                exact += 1
                equal += not row["distance"]
            else:
                informative += 1
        return cls(total, exact, equal, informative, errors)

    @property
    def ok(self) -> bool:
        """No error, and no exact figure that differs."""
        return self.errors == 0 and self.exact == self.equal


def _plain(value: Any) -> Any:
    # A numpy scalar is not JSON; its item() is.
    item = getattr(value, "item", None)
    if item is not None and getattr(value, "ndim", 1) == 0:
        return item()
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    return value
