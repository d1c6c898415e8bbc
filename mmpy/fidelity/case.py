"""Recorded sets and their cases: what there is to compare with, found and named.

A set is a directory whose `index.json` lists its cases (the format of the reference data), that file itself, or any directory in
which cases can be recognised by what they hold: a machine case has `boot/zoneinfo` (or a `zoneinfo` beside it), a trace case an
`events.csv` with or without compression. Nothing here knows a case by its name.

Models: nothing of the kernel. Omits: writing recordings.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

KINDS = ("machine", "trace", "reclaim", "evict", "extra")
LRUS = ("classic", "mglru")
MAX_INDEX_BYTES = 64 << 20


class RecordingError(ValueError):
    """A recording is missing, unreadable or malformed; the message names the file and what is wrong with it."""


@dataclass(frozen=True)
class Case:
    """One recorded case: `kind`, `name`, the set's `root`, and its row of the index (`entry`, {} if there was no index)."""

    kind: str
    name: str
    root: Path
    entry: dict[str, Any] = field(default_factory=dict, hash=False, compare=False, repr=False)

    @property
    def lru(self) -> str | None:
        """"classic" or "mglru" where the case was run under one of them by choice, else None."""
        value = self.entry.get("lru")
        return value if isinstance(value, str) else None

    @property
    def directory(self) -> Path:
        """The case's own directory; for kinds whose cases share one, that of the kind."""
        value = self.entry.get("dir")
        return self.root / value if isinstance(value, str) else self.root / (self.kind if self.entry else "")

    def path(self, *parts: str) -> Path:
        """A file of the case; RecordingError if it is not there."""
        path = self.directory.joinpath(*parts)
        if not path.exists():
            raise RecordingError(f"case {self.name}: {path} is missing")
        return path

    def text(self, *parts: str) -> str:
        """The text of a file of the case; RecordingError if it cannot be read."""
        return read_text(self.path(*parts))

    def optional_text(self, *parts: str) -> str | None:
        """The text of a file of the case, or None if there is no such file."""
        return read_text(path) if (path := self.directory.joinpath(*parts)).exists() else None


@dataclass(frozen=True)
class RecordedSet:
    """All cases below one place."""

    root: Path
    cases: tuple[Case, ...]

    def __len__(self) -> int:
        return len(self.cases)

    def __iter__(self) -> Iterator[Case]:
        return iter(self.cases)

    def select(
        self, kinds: Iterable[str] = (), names: Iterable[str] = (), lrus: Iterable[str] = ()
    ) -> tuple[Case, ...]:
        """The cases of any of these kinds whose name matches any of these globs and that ran under any of these LRUs.

        An empty argument lets everything pass. ValueError for a kind or an LRU that does not exist.
        """
        kinds, names, lrus = tuple(kinds), tuple(names), tuple(lrus)
        for what, given, known in (("kind", kinds, KINDS), ("LRU", lrus, LRUS)):
            for value in given:
                if value not in known:
                    raise ValueError(f"{value!r} is no {what}; there are {', '.join(known)}")
        return tuple(
            case
            for case in self.cases
            if (not kinds or case.kind in kinds)
            and (not names or any(fnmatchcase(case.name, glob) for glob in names))
            and (not lrus or case.lru in lrus)
        )


def read_text(path: Path) -> str:
    """Text of a recorded file (ASCII by nature; odd bytes of a console log are replaced). RecordingError if unreadable."""
    try:
        return path.read_bytes().decode("utf-8", errors="replace")
    except OSError as e:
        raise RecordingError(f"{path}: {e.strerror or e}") from None


def open_set(place: str | Path) -> RecordedSet:
    """Find the cases below `place`: an index.json, a directory with one, a directory of cases, or one case.

    RecordingError names what is missing or malformed; so does an empty set.
    """
    path = Path(place)
    if not path.exists():
        raise RecordingError(f"{path}: no such file or directory")
    if path.is_file():
        return _from_index(path)
    if (path / "index.json").is_file():
        return _from_index(path / "index.json")
    cases = tuple(_scan(path))
    if not cases:
        raise RecordingError(
            f"{path}: no recorded case there (looked for index.json, boot/zoneinfo, zoneinfo, events.csv[.zst|.gz])"
        )
    return RecordedSet(path, cases)


def _from_index(path: Path) -> RecordedSet:
    try:
        if (size := path.stat().st_size) > MAX_INDEX_BYTES:
            raise RecordingError(f"{path}: {size} bytes are more than an index may have ({MAX_INDEX_BYTES})")
        rows = json.loads(path.read_bytes())
    except OSError as e:
        raise RecordingError(f"{path}: {e.strerror or e}") from None
    except (ValueError, RecursionError) as e:
        raise RecordingError(f"{path}: not JSON: {e}") from None
    if not isinstance(rows, list):
        raise RecordingError(f"{path}: the index is a {type(rows).__name__}, not a list of cases")
    cases, seen = [], set()
    for i, row in enumerate(rows):
        where = f"{path}: case {i}"
        if not isinstance(row, dict):
            raise RecordingError(f"{where} is a {type(row).__name__}, not an object")
        kind, name = row.get("kind"), row.get("name")
        if not isinstance(name, str) or not name:
            raise RecordingError(f"{where}: name is {name!r}, not a text")
        if kind not in KINDS:
            raise RecordingError(f"{where} ({name}): kind is {kind!r}; there are {', '.join(KINDS)}")
        if (kind, name) in seen:
            raise RecordingError(f"{where} ({name}): listed twice")
        directory = row.get("dir", "")
        if not isinstance(directory, str) or Path(directory).is_absolute() or ".." in Path(directory).parts:
            raise RecordingError(f"{where} ({name}): dir is {directory!r}, not a path below the index")
        seen.add((kind, name))
        cases.append(Case(kind, name, path.parent, row))
    if not cases:
        raise RecordingError(f"{path}: the index lists no case")
    return RecordedSet(path.parent, tuple(cases))


def _kind_of(path: Path) -> str | None:
    if (path / "boot" / "zoneinfo").is_file() or (path / "zoneinfo").is_file():
        return "machine"
    if any((path / f"events.csv{suffix}").is_file() for suffix in ("", ".zst", ".gz")):
        return "trace"
    return None


def _scan(path: Path, depth: int = 2) -> Iterator[Case]:
    # Cases lie at the place itself, below it, or below directories of kinds (machines/, traces/): no deeper.
    kind = _kind_of(path)
    if kind is not None:
        yield Case(kind, path.resolve().name, path)
        return
    if depth:
        try:
            below = sorted(p for p in path.iterdir() if p.is_dir())
        except OSError as e:
            raise RecordingError(f"{path}: {e.strerror or e}") from None
        for p in below:
            yield from _scan(p, depth - 1)
