"""A recorded allocator trace: a directory with events.csv, gfp.csv, stateK.NAME.txt and the usual /proc texts beside them.

Any file may stand plain, as .gz or as .zst. Events are read when the recording is opened, snapshots when they are asked for.

Models: nothing of the kernel. Simplifies: nothing. Omits: writing recordings.
"""

from __future__ import annotations

import csv
import json
import re
import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mmpy.traces import files
from mmpy.traces._scan import EventScanner
from mmpy.traces.errors import TraceFormatError
from mmpy.traces.events import Array, Events
from mmpy.traces.state import AllocState, parse_state

_STATE_FILE = re.compile(r"state(\d{1,6})\.(.+)\.txt(?:\.gz|\.zst)?")
_SNAP_MARK = re.compile(r"SNAP(\d{1,6}) (BEGIN|END)")
_OOM_KILL = re.compile(r"^\[ *(\d{1,12})\.(\d{6})\] (?:Memory cgroup out|Out) of memory: Killed process (\d{1,9})\b", re.MULTILINE)


def sample_path() -> Path:
    """Directory of the small real recording that comes with the package."""
    return Path(__file__).parents[1] / "data" / "fork_touch_cut"


@dataclass(frozen=True)
class Snapshot:
    """Snapshot `number` of a recording: the row of its BEGIN mark, when it was taken, and the texts that belong to it."""

    number: int
    label: str
    row: int
    t_us: int
    end_us: int
    path: Path

    @cached_property
    def state(self) -> AllocState:
        """The allocator's whole state (see state.py). TraceFormatError if the text is malformed."""
        return parse_state(files.read_text(self.path), str(self.path))

    def text(self, name: str) -> str | None:
        """Text of "zoneinfo", "buddyinfo" or "pagetypeinfo" read right after this snapshot; None if it was not recorded."""
        path = files.find(self.path.parent, f"{name}.{self.number}.txt")
        return None if path is None else files.read_text(path)


@dataclass(frozen=True)
class Recording:
    """One recording. `gfp_bits[gfp_id]` are the flag bits that the events name; `oom_kills` holds (time in us, pid).

    `read_seconds` is the CPU time that reading took.
    """

    directory: Path
    events: Events
    gfp_bits: Array
    gfp_names: tuple[str, ...]
    snapshots: tuple[Snapshot, ...]
    oom_kills: tuple[tuple[int, int], ...] = field(default=())
    read_seconds: float = 0.0

    @classmethod
    def open(cls, directory: str | Path, *, max_rows: int = 1 << 27) -> Recording:
        """Read a recording.

        FileNotFoundError: no such directory, or no events.csv[.gz|.zst] or gfp.csv in it. TraceFormatError: a file is malformed,
        truncated or has more than `max_rows` events. ImportError: a .zst file without zstandard installed.
        """
        began = time.process_time()
        path = Path(directory)
        found = {name: files.find(path, name) for name in ("events.csv", "gfp.csv")}
        for name, file in found.items():
            if file is None:
                raise FileNotFoundError(f"{path}: no {name} (nor {name}.gz, {name}.zst): not a recorded trace")
        assert found["events.csv"] is not None
        assert found["gfp.csv"] is not None
        events = read_events(found["events.csv"], max_rows=max_rows)
        bits, names = read_gfp(found["gfp.csv"])
        dmesg = files.find(path, "dmesg.txt")
        kills = () if dmesg is None else tuple(find_oom_kills(files.read_text(dmesg)))
        return cls(path, events, bits, names, tuple(find_snapshots(path, events)), kills, time.process_time() - began)

    @cached_property
    def entry(self) -> dict[str, Any]:
        """What an index says about this recording: kernel, ram, cpus, cmdline, ...; {} if there is none."""
        own = self.directory / "case.json"
        if own.is_file():
            loaded = _load_json(own)
            return loaded if isinstance(loaded, dict) else {}
        here = self.directory.resolve()
        for root in (here.parent, here.parent.parent):
            if (root / "index.json").is_file():
                rows = _load_json(root / "index.json")
                for row in rows if isinstance(rows, list) else ():
                    if isinstance(row, dict) and isinstance(row.get("dir"), str) and (root / row["dir"]).resolve() == here:
                        return row
        return {}

    @property
    def name(self) -> str:
        """Name of the case."""
        name = self.entry.get("name")
        return name if isinstance(name, str) else self.directory.resolve().name

    @property
    def kernel(self) -> str:
        """Release of the recorded kernel ("6.12.117+deb12-amd64"), "" if nothing says it."""
        value = self.entry.get("kernel")
        return value if isinstance(value, str) else ""

    @property
    def cmdline(self) -> str:
        """Command line of the recorded kernel, "" if nothing says it."""
        value = self.entry.get("cmdline")
        return value if isinstance(value, str) else ""

    def snapshot(self, number: int) -> Snapshot:
        """The snapshot with this number. KeyError if there is none."""
        for snapshot in self.snapshots:
            if snapshot.number == number:
                return snapshot
        raise KeyError(f"snapshot {number}: {self.name} has {[s.number for s in self.snapshots]}")


def _load_json(path: Path) -> Any:
    try:
        return json.loads(files.read_text(path))
    except (ValueError, RecursionError) as e:
        raise TraceFormatError(f"{path}: not JSON: {e}") from None


def read_events(path: Path, *, max_rows: int = 1 << 27) -> Events:
    """Events of one events.csv, plain or compressed."""
    # A line has 38 bytes on average; room for too many costs nothing, room for too few a copy.
    scanner = EventScanner(str(path), max_rows, expected=min(files.size_hint(path) // 32, max_rows))
    for piece in files.pieces(path):
        scanner.feed(piece)
    scanner.finish()
    others = scanner.other_names
    rows, extras, pages, text = scanner.take()
    return Events(rows, extras, pages, text, others)


def read_gfp(path: Path) -> tuple[Array, tuple[str, ...]]:
    """Flag bits (u32) by gfp_id, and the kernel's names for them. Ids must count from 0 without gaps."""
    bits: list[int] = []
    names: list[str] = []
    reader = csv.reader(files.read_text(path).splitlines())
    for i, row in enumerate(reader):
        where = f"{path}: line {i + 1}"
        if i == 0:
            if row[:2] != ["gfp_id", "bits"]:
                raise TraceFormatError(f"{where}: the header is {','.join(row)[:80]!r}, not 'gfp_id,bits,count,names'")
            continue
        if len(row) < 2:
            raise TraceFormatError(f"{where}: a row has at least gfp_id and bits, not {','.join(row)[:80]!r}")
        if row[0] != str(len(bits)):
            raise TraceFormatError(f"{where}: gfp_id {row[0][:40]!r} where {len(bits)} was due")
        try:
            value = int(row[1], 0)
        except ValueError:
            value = -1
        if not 0 <= value < 1 << 32:
            raise TraceFormatError(f"{where}: bits {row[1][:40]!r} are no number below 2^32")
        bits.append(value)
        names.append(row[3] if len(row) > 3 else "")
    if not bits and not names:
        raise TraceFormatError(f"{path}: no flags in it")
    return np.array(bits, np.uint32), tuple(names)


def find_oom_kills(dmesg: str) -> list[tuple[int, int]]:
    """(time in us, pid) of every OOM kill that a kernel log tells of."""
    return [(int(s) * 1_000_000 + int(us), int(pid)) for s, us, pid in _OOM_KILL.findall(dmesg)]


def find_snapshots(directory: Path, events: Events) -> list[Snapshot]:
    """Snapshots that have both a mark among the events and a state file, in order of their marks."""
    states = {int(m[1]): (m[2], path) for path in directory.iterdir() if (m := _STATE_FILE.fullmatch(path.name))}
    begun: dict[int, int] = {}
    ended: dict[int, int] = {}
    for row, text in events.marks():
        if m := _SNAP_MARK.fullmatch(text):
            (begun if m[2] == "BEGIN" else ended).setdefault(int(m[1]), row)
    out = []
    for number, row in sorted(begun.items(), key=lambda item: item[1]):
        if number in states:
            t_us, label = int(events.rows["t_us"][row]), states[number][0]
            end_us = int(events.rows["t_us"][ended.get(number, row)])
            out.append(Snapshot(number, label, row, t_us, end_us, states[number][1]))
    return out
