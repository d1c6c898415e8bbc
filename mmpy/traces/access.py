"""Traces of memory accesses: Valgrind lackey, text and CSV, npy and npz, read into page numbers and reads or writes.

Formats (any of them may be .gz or .zst):
 lackey  what `valgrind --tool=lackey --trace-mem=yes` writes: "I  04001000,3", " L 1ffeffe7e0,8", " S addr,size", " M addr,size"; lines
         from "==" on are skipped and counted. A modification is a write; an access across a page's end touches both pages.
 text    an address a line, hexadecimal with 0x, else decimal; perhaps a second column that says r or w (R W L S M 0 1 read write load
         store). Columns are parted by commas, semicolons or blanks; a header names them, # begins a comment.
 hex     the same, every address hexadecimal.
 npy     addresses as integers, or records with a field address (addr, vaddr) and perhaps write (rw, is_write).
 npz     this package's own form: pages (distinct page numbers), index (one for each access), write (bits). AccessTrace.save() makes it.

Models: nothing of the kernel. Simplifies: an access is its page; instruction fetches, when wanted, are reads. Omits: time, threads.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mmpy.traces import files
from mmpy.traces.errors import TraceFormatError

FORMATS = ("auto", "lackey", "text", "hex", "npy", "npz")
BLOCK = 4 << 20
"""Bytes of text, or of records, that are taken at once."""
MAX_LINE = 1 << 16
MAX_SIZE = 1 << 16
"""Bytes that one access of a lackey trace may have."""
MAX_HEADER = 1 << 16
GAP = 64
"""Pages that may lie between two accessed ones of the same mapping, where nobody says better (256 KiB)."""
PAGE_SHIFT = np.uint64(12)

_LACKEY_LINE = re.compile(rb"(?:I  | [LSM] )[0-9a-fA-F]{1,16},\d{1,5}\r?")
_DIGIT = np.full(256, 255, np.uint8)
for _i, _c in enumerate(b"0123456789abcdef"):
    _DIGIT[_c] = _DIGIT[ord(chr(_c).upper())] = _i
_BLANK = np.zeros(256, bool)
_BLANK[list(b" \t\r,;")] = True
_READS = ("0", "r", "l", "i", "read", "load", "false", "ifetch")
_WRITES = ("1", "w", "s", "m", "write", "store", "modify", "true")
_ADDRESS_NAMES = ("address", "addr", "vaddr", "va", "virtual_address")
_WRITE_NAMES = ("write", "rw", "r/w", "is_write", "access", "op", "type", "kind")

Chunk = tuple[np.ndarray, np.ndarray]
OnBytes = Callable[[int], object]


@dataclass(frozen=True, eq=False)
class AccessTrace:
    """Accesses in order: `vpns` (uint64, address >> 12) and `writes` (uint8, 1 for a write).

    skipped: what was left out and how often ("comments", "blank", "instructions", "collapsed"); source: where it comes from.
    """

    vpns: np.ndarray
    writes: np.ndarray
    skipped: dict[str, int] = field(default_factory=dict)
    source: str = ""

    def __post_init__(self) -> None:
        for name, dtype in (("vpns", np.uint64), ("writes", np.uint8)):
            array = getattr(self, name)
            if not isinstance(array, np.ndarray) or array.dtype != dtype or array.ndim != 1:
                raise TypeError(f"{name} must be a one-dimensional array of {np.dtype(dtype)}, not {type(array).__name__}")
        if len(self.vpns) != len(self.writes):
            raise ValueError(f"{len(self.vpns)} page numbers with {len(self.writes)} writes")

    def __len__(self) -> int:
        return len(self.vpns)

    @property
    def nr_pages(self) -> int:
        """Distinct pages."""
        return len(np.unique(self.vpns))

    def save(self, path: str | Path) -> None:
        """Write it as .npz, without pickle."""
        pages, index = np.unique(self.vpns, return_inverse=True)
        small = np.uint16 if len(pages) <= 1 << 16 else np.uint32
        with Path(path).open("wb") as f:
            np.savez_compressed(f, pages=pages, index=index.astype(small), write=np.packbits(self.writes != 0))

    def __repr__(self) -> str:
        return f"AccessTrace({self.source or 'no source'}: {len(self)} accesses, {int(self.writes.sum())} of them writes)"


def access_sample_path() -> Path:
    """The small real trace that comes with the package."""
    return Path(__file__).parents[1] / "data" / "sort_pages" / "sort_pages.npz"


def read_access_trace(
    path: str | Path,
    *,
    format: str = "auto",
    instructions: bool = False,
    collapse: bool = False,
    limit: int | None = None,
    on_bytes: OnBytes | None = None,
) -> AccessTrace:
    """Read a trace.

    format: one of FORMATS; "auto" goes by the name and the first lines. instructions: keep lackey's instruction fetches. collapse: drop an
    access to the page of the one before it if that has been read, or written, as it would be (drops only what could not fault).
    limit: stop after so many accesses. on_bytes(n): called now and then with the bytes read so far, uncompressed.

    TraceFormatError names the line and its text. OSError: unreadable. ImportError: .zst without zstandard.
    """
    place = Path(path)
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 0):
        raise ValueError(f"limit is {limit!r}; it must be a number of accesses, 0 or more")
    skipped: Counter[str] = Counter()
    vpns: list[np.ndarray] = []
    writes: list[np.ndarray] = []
    total, last = 0, None
    for vpn, write in read_chunks(place, format=format, instructions=instructions, skipped=skipped, on_bytes=on_bytes):
        if collapse and len(vpn):
            keep, last = _news(vpn, write, last)
            skipped["collapsed"] += len(vpn) - int(np.count_nonzero(keep))
            vpn, write = vpn[keep], write[keep]
        if limit is not None and total + len(vpn) >= limit:
            vpns.append(vpn[: limit - total])
            writes.append(write[: limit - total])
            break
        vpns.append(vpn)
        writes.append(write)
        total += len(vpn)
    if not vpns:
        vpns, writes = [np.empty(0, np.uint64)], [np.empty(0, np.uint8)]
    return AccessTrace(np.concatenate(vpns), np.concatenate(writes), {k: n for k, n in sorted(skipped.items()) if n}, str(place))


def read_chunks(
    path: Path, *, format: str = "auto", instructions: bool = False, skipped: Counter[str] | None = None, on_bytes: OnBytes | None = None
) -> Iterator[Chunk]:
    """A trace in pieces of (vpns, writes); `skipped` is added to. Errors as of read_access_trace."""
    skipped = Counter() if skipped is None else skipped
    if format not in FORMATS:
        raise ValueError(f"format is {format!r}; it must be one of {', '.join(FORMATS)}")
    if path.is_dir():
        raise TraceFormatError(f"{path}: a directory; a trace of accesses is one file (recordings of the allocator go to `mmpy replay`)")
    source = _counted(files.pieces(path), on_bytes)
    if format == "auto":
        format, source = _sniff(path, source)
    if format == "npz":
        yield _npz(path, source)
    elif format == "npy":
        yield from _npy(path, source)
    else:
        parse: Any = _Lackey(path, instructions, skipped) if format == "lackey" else _Text(path, format == "hex", skipped)
        for block, first in _blocks(path, source):
            yield parse(block, first)


def collapse_runs(vpns: np.ndarray, writes: np.ndarray) -> Chunk:
    """Without the accesses that could not fault because the one before them was to the same page: see read_access_trace."""
    keep, _ = _news(vpns, writes, None) if len(vpns) else (np.empty(0, bool), None)
    return vpns[keep], writes[keep]


def thin(trace: AccessTrace, window: int) -> AccessTrace:
    """Of each `window` accesses the first to every page, and the first write to it: what faults, faults in the same order as before."""
    if isinstance(window, bool) or not isinstance(window, int) or window < 1:
        raise ValueError(f"window is {window!r}; it must be a number of accesses, 1 or more")
    pages, index = np.unique(trace.vpns, return_inverse=True)
    key = np.arange(len(trace)) // window * max(len(pages), 1) + index
    _, first = np.unique(key, return_index=True)
    writes = np.flatnonzero(trace.writes)
    _, first_write = np.unique(key[writes], return_index=True)
    keep = np.union1d(first, writes[first_write])
    skipped = {**trace.skipped, "thinned": len(trace) - len(keep)}
    return AccessTrace(trace.vpns[keep], trace.writes[keep], skipped, trace.source)


def regions(vpns: np.ndarray, gap: int = GAP) -> list[tuple[int, int]]:
    """Ranges of pages (first, end) that hold all of `vpns`; pages that lie more than `gap` unused ones apart are in different ranges."""
    if isinstance(gap, bool) or not isinstance(gap, int) or gap < 0:
        raise ValueError(f"gap is {gap!r}; it must be a number of pages, 0 or more")
    pages = np.unique(vpns)
    if not len(pages):
        return []
    cuts = np.flatnonzero(np.diff(pages) > np.uint64(min(gap, 1 << 62) + 1))
    starts, ends = pages[np.r_[0, cuts + 1]].tolist(), pages[np.r_[cuts, len(pages) - 1]].tolist()
    return [(start, end + 1) for start, end in zip(starts, ends, strict=True)]


def _news(vpns: np.ndarray, writes: np.ndarray, last: tuple[int, bool] | None) -> tuple[np.ndarray, tuple[int, bool]]:
    # Which accesses are the first to a page in a row of accesses to it, or the first write in the row. last: page and "was written" of
    # the row that goes on from the chunk before.
    start = np.r_[True, vpns[1:] != vpns[:-1]]
    write = writes != 0
    first = np.maximum.accumulate(np.where(start, np.arange(len(vpns)), 0))
    before = np.cumsum(write) - write
    written = before > before[first]
    keep = start | (write & ~written)
    done = bool(written[-1] or write[-1])
    if last is not None and last[0] == vpns[0]:
        row = int(np.flatnonzero(start)[1]) if np.count_nonzero(start) > 1 else len(vpns)
        keep[0] = write[0] and not last[1]
        if last[1]:
            keep[:row] = False
            done = done or row == len(vpns)
    return keep, (int(vpns[-1]), done)


# ---------------------------------------------------------------- pieces and blocks


def _counted(source: Iterator[bytes], on_bytes: OnBytes | None) -> Iterator[bytes]:
    done = told = 0
    for piece in source:
        done += len(piece)
        if on_bytes is not None and done - told >= BLOCK:
            told = done
            on_bytes(done)
        yield piece
    if on_bytes is not None:
        on_bytes(done)


def _chain(head: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    if head:
        yield head
    yield from rest


def _take(source: Iterator[bytes], size: int) -> bytes:
    """At least `size` bytes, less at the end."""
    parts, got = [], 0
    while got < size and (piece := next(source, None)) is not None:
        parts.append(piece)
        got += len(piece)
    return b"".join(parts)


def _sniff(path: Path, source: Iterator[bytes]) -> tuple[str, Iterator[bytes]]:
    head = _take(source, 4096)
    whole = _chain(head, source)
    if head.startswith(b"\x93NUMPY"):
        return "npy", whole
    if head.startswith(b"PK\x03\x04"):
        return "npz", whole
    for line in head.split(b"\n"):
        if line.startswith((b"==", b"--")) or _LACKEY_LINE.fullmatch(line):
            return "lackey", whole
        if line.strip() and not line.startswith(b"#"):
            break
    if b"\0" in head:
        raise TraceFormatError(f"{path}: binary data that begins with {head[:16]!r}: neither npy, npz nor text")
    return "text", whole


def _blocks(path: Path, source: Iterator[bytes]) -> Iterator[tuple[np.ndarray, int]]:
    """Whole lines, each with its newline, as (bytes, number of the first line)."""
    rest, number = b"", 1
    while True:
        data = _take(source, BLOCK)
        if not data:
            break
        end = data.rfind(b"\n") + 1
        if not end:
            rest += data
        else:
            block = rest + data[:end]
            rest = data[end:]
            yield np.frombuffer(block, np.uint8), number
            number += block.count(b"\n")
        if len(rest) > MAX_LINE:
            raise TraceFormatError(f"{path}: line {number}: longer than {MAX_LINE} bytes: {_shown(rest)}")
    if rest:
        yield np.frombuffer(rest + b"\n", np.uint8), number


def _shown(text: bytes) -> str:
    return repr(text[:80].decode("utf-8", "replace"))


def _line(data: np.ndarray, start: int, end: int) -> str:
    return _shown(data[start : min(end, start + 80)].tobytes())


def _numbers(data: np.ndarray, starts: np.ndarray, lengths: np.ndarray, base: int) -> tuple[np.ndarray, int | None]:
    """The numbers (uint64) in these places, and the position of the first that is none, or is 2**64 or more."""
    out = np.zeros(len(starts), np.uint64)
    bad = (lengths < 1) | (lengths > (16 if base == 16 else 19))
    for length in np.unique(lengths).tolist():
        if not 0 < length <= (16 if base == 16 else 19):
            continue
        which = np.flatnonzero(lengths == length)
        at = starts[which]
        value = np.zeros(len(which), np.uint64)
        worst = np.zeros(len(which), np.uint8)
        for i in range(length):
            digit = _DIGIT[data[at + i]]
            np.maximum(worst, digit, out=worst)
            value *= np.uint64(base)
            value += digit
        out[which] = value
        bad[which] = worst >= base
    # what has too many digits may still be small enough: leading zeros, or 20 decimal digits
    for i in np.flatnonzero(bad).tolist():
        start, length = int(starts[i]), int(lengths[i])
        text = data[start : start + max(min(length, 100), 0)].tobytes()
        digits = rb"[0-9a-fA-F]{1,100}" if base == 16 else rb"[0-9]{1,100}"
        if length > 100 or not re.fullmatch(digits, text) or int(text, base) >= 1 << 64:
            return out, i
        out[i] = int(text, base)
    return out, None


# ---------------------------------------------------------------- lackey


class _Lackey:
    def __init__(self, path: Path, instructions: bool, skipped: Counter[str]) -> None:
        self.path, self.instructions, self.skipped = path, instructions, skipped

    def __call__(self, data: np.ndarray, first: int) -> Chunk:
        ends = np.flatnonzero(data == 10)
        starts = np.r_[0, ends[:-1] + 1]
        length = ends - starts
        length -= (length > 0) & (data[ends - 1] == 13)
        one, two, three = (data[np.minimum(starts + i, len(data) - 1)] for i in range(3))
        fetch = (one == ord("I")) & (two == 32) & (three == 32)
        store = (two == ord("S")) | (two == ord("M"))
        known = fetch | ((one == 32) & (store | (two == ord("L"))) & (three == 32))
        comment = ((one == ord("=")) & (two == ord("="))) | ((one == ord("-")) & (two == ord("-")))
        comment &= length >= 2
        blank = length == 0
        known &= length >= 6
        strange = np.flatnonzero(~(known | comment | blank))
        self.skipped["comments"] += int(np.count_nonzero(comment))
        self.skipped["blank"] += int(np.count_nonzero(blank))
        if len(strange):
            self._refuse(data, int(starts[strange[0]]), int(ends[strange[0]]), first + int(strange[0]), "no access")
        if not self.instructions:
            self.skipped["instructions"] += int(np.count_nonzero(fetch))
            known &= ~fetch
        lines = np.flatnonzero(known)
        at, end = starts[lines] + 3, starts[lines] + length[lines]
        commas = np.flatnonzero(data == 44)
        comma = commas[np.minimum(np.searchsorted(commas, at), len(commas) - 1)] if len(commas) else at - 1
        comma = np.where((comma < at) | (comma > end), end, comma)
        address, wrong = _numbers(data, at, comma - at, 16)
        size, wrong_size = _numbers(data, comma + 1, np.minimum(end - comma - 1, 8), 10)
        for i, why in ((wrong, "no address of 64 bits"), (wrong_size, "no size")):
            if i is not None:
                self._refuse(data, int(starts[lines[i]]), int(ends[lines[i]]), first + int(lines[i]), why)
        odd = np.flatnonzero((size < 1) | (size > MAX_SIZE) | (address + size - np.uint64(1) < address) | (end - comma > 9))
        if len(odd):
            i = int(odd[0])
            why = f"the size must lie in 1..{MAX_SIZE}, and the access end below 2**64"
            self._refuse(data, int(starts[lines[i]]), int(ends[lines[i]]), first + int(lines[i]), why)
        vpn, last = address >> PAGE_SHIFT, (address + size - np.uint64(1)) >> PAGE_SHIFT
        write = (store & ~fetch)[lines].astype(np.uint8)
        if np.array_equal(vpn, last):
            return vpn, write
        count = (last - vpn).astype(np.int64) + 1
        which = np.repeat(np.arange(len(vpn)), count)
        offset = np.arange(len(which)) - (np.cumsum(count) - count)[which]
        return vpn[which] + offset.astype(np.uint64), write[which]

    def _refuse(self, data: np.ndarray, start: int, end: int, number: int, why: str) -> None:
        raise TraceFormatError(f"{self.path}: line {number}: {why} as Valgrind's lackey writes it: {_line(data, start, end)}")


# ---------------------------------------------------------------- text and CSV


class _Text:
    def __init__(self, path: Path, every_hex: bool, skipped: Counter[str]) -> None:
        self.path, self.every_hex, self.skipped = path, every_hex, skipped
        self.columns: int | None = None
        self.address, self.write = 0, -1

    def __call__(self, data: np.ndarray, first: int) -> Chunk:
        newline = data == 10
        ends = np.flatnonzero(newline)
        starts = np.r_[0, ends[:-1] + 1]
        inside = ~(_BLANK[data] | newline)
        begins = np.flatnonzero(inside & ~np.r_[False, inside[:-1]])
        stops = np.flatnonzero(inside & ~np.r_[inside[1:], False]) + 1
        token: Any = np.searchsorted(begins, starts)
        count = np.diff(np.r_[token, len(begins)])
        blank = count == 0
        comment = np.zeros(len(starts), bool)
        if len(begins):
            comment = ~blank & (data[begins[np.minimum(token, len(begins) - 1)]] == ord("#"))
        self.skipped["blank"] += int(np.count_nonzero(blank))
        self.skipped["comments"] += int(np.count_nonzero(comment))
        lines = np.flatnonzero(~(blank | comment))

        def fields(line: int) -> list[str]:
            places = range(int(token[line]), int(token[line]) + min(int(count[line]), 32))
            return [data[int(begins[i]) : min(int(stops[i]), int(begins[i]) + 80)].tobytes().decode("utf-8", "replace") for i in places]

        def refuse(line: int, why: str) -> TraceFormatError:
            return TraceFormatError(f"{self.path}: line {first + line}: {why}: {_line(data, int(starts[line]), int(ends[line]))}")

        if self.columns is None and len(lines):
            line = int(lines[0])
            self.columns = int(count[line])
            if self._header(fields(line)):
                self.skipped["header"] += 1
                lines = lines[1:]
            elif self.columns > 2:
                raise refuse(line, "more than an address and r or w, and no header that names the columns")
            elif self.columns == 2 and fields(line)[0].lower() in (*_READS, *_WRITES) and not self._is_kind(fields(line)[1]):
                self.address, self.write = 1, 0
            elif self.columns == 2:
                self.write = 1
        wrong = np.flatnonzero(count[lines] != self.columns) if self.columns is not None else lines[:0]
        if len(wrong):
            raise refuse(int(lines[wrong[0]]), f"{int(count[lines[wrong[0]]])} columns where the first line has {self.columns}")
        place = token[lines] + self.address
        at, end = begins[place], stops[place]
        prefixed = (end - at > 2) & (data[at] == ord("0")) & ((data[np.minimum(at + 1, len(data) - 1)] | 32) == ord("x"))
        address = np.zeros(len(lines), np.uint64)
        bad: list[int] = []
        for which, skip, base in ((prefixed, 2, 16), (~prefixed, 0, 16 if self.every_hex else 10)):
            rows = np.flatnonzero(which)
            if len(rows):
                address[rows], none = _numbers(data, at[rows] + skip, end[rows] - at[rows] - skip, base)
                bad += [] if none is None else [int(rows[none])]
        if bad:
            row = min(bad)
            text = data[int(at[row]) : int(end[row])].tobytes()
            hint = " (hexadecimal without 0x? then say format hex)" if re.fullmatch(rb"[0-9a-fA-F]{1,16}", text) else ""
            raise refuse(int(lines[row]), f"{_shown(text)} is no address of 64 bits{hint}")
        if self.write < 0:
            return address >> PAGE_SHIFT, np.zeros(len(lines), np.uint8)
        place = token[lines] + self.write
        write, none = _kinds(data, begins[place], stops[place] - begins[place])
        if none is not None:
            raise refuse(int(lines[none]), "neither a read nor a write (r, w, l, s, m, 0, 1, read, write, load, store)")
        return address >> PAGE_SHIFT, write

    @staticmethod
    def _is_kind(text: str) -> bool:
        return text.lower() in (*_READS, *_WRITES)

    def _header(self, names: list[str]) -> bool:
        """Whether these are names of columns; then they say which is which."""
        lower = [name.strip("\"'").lower() for name in names]
        found = [i for i, name in enumerate(lower) if name in _ADDRESS_NAMES]
        if not found:
            return False
        self.address = found[0]
        self.write = next((i for i, name in enumerate(lower) if name in _WRITE_NAMES), -1)
        return True


def _kinds(data: np.ndarray, at: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, int | None]:
    """Whether each of these words is a write (uint8), and the position of the first that says neither."""
    meaning = dict.fromkeys(_READS, 0) | dict.fromkeys(_WRITES, 1)
    out = np.full(len(at), 2, np.uint8)
    for length in np.unique(lengths).tolist():
        if not 0 < length <= 8:
            continue
        which = np.flatnonzero(lengths == length)
        if length == 1:
            table = np.full(256, 2, np.uint8)
            for word, value in meaning.items():
                if len(word) == 1:
                    table[[ord(word), ord(word.upper())]] = value
            out[which] = table[data[at[which]]]
        else:
            words = np.ascontiguousarray(np.stack([data[at[which] + i] for i in range(length)], axis=1))
            distinct, index = np.unique(words.view(f"S{length}").reshape(-1), return_inverse=True)
            out[which] = np.array([meaning.get(word.decode("latin-1").lower(), 2) for word in distinct.tolist()], np.uint8)[index]
    bad = np.flatnonzero(out == 2)
    return out, int(bad[0]) if len(bad) else None


# ---------------------------------------------------------------- npy and npz


def _npy(path: Path, source: Iterator[bytes]) -> Iterator[Chunk]:
    head = _take(source, MAX_HEADER)
    stream = io.BytesIO(head)
    try:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"version {version} of npy")
        shape, _, dtype = read(stream, max_header_size=10_000)
    except Exception as e:
        # ValueError as a rule; a header that is not Python makes SyntaxError, TokenError and others
        raise TraceFormatError(f"{path}: no npy header: {str(e)[:200] or type(e).__name__}") from None
    if len(shape) != 1 or dtype.hasobject or not 0 < dtype.itemsize <= 4096:
        raise TraceFormatError(f"{path}: an array of shape {shape} and type {str(dtype)[:80]}; what is read is one dimension")
    address, write = _columns(path, dtype)
    rest, done, size = head[stream.tell() :], 0, dtype.itemsize
    while done < shape[0]:
        data = rest + _take(source, max(BLOCK - len(rest), 1))
        rows = min(len(data) // size, shape[0] - done)
        if not rows:
            raise TraceFormatError(f"{path}: truncated: {done} of {shape[0]} addresses")
        part = np.frombuffer(data, dtype, rows)
        rest = data[rows * size :]
        yield _from_array(path, part if address is None else part[address], None if write is None else part[write], done)
        done += rows


def _columns(path: Path, dtype: np.dtype[Any]) -> tuple[str | None, str | None]:
    if dtype.names is None:
        if dtype.kind not in "iu":
            raise TraceFormatError(f"{path}: addresses must be integers, not {str(dtype)[:80]}")
        return None, None
    address = next((name for name in dtype.names if name.lower() in _ADDRESS_NAMES), None)
    if address is None or dtype[address].kind not in "iu" or dtype[address].shape:
        raise TraceFormatError(f"{path}: records {str(dtype)[:80]} have no integer field called {', '.join(_ADDRESS_NAMES)}")
    write = next((name for name in dtype.names if name.lower() in _WRITE_NAMES), None)
    if write is not None and (dtype[write].kind not in "biu" or dtype[write].shape):
        raise TraceFormatError(f"{path}: the field {write!r} must be a bool or an integer, not {dtype[write]}")
    return address, write


def _from_array(path: Path, address: np.ndarray, write: np.ndarray | None, at: int) -> Chunk:
    if address.dtype.kind == "i" and len(address) and int(address.min()) < 0:
        i = int(np.argmax(address < 0))
        raise TraceFormatError(f"{path}: element {at + i}: the address is {int(address[i])}, below 0")
    vpns = address.astype(np.uint64) >> PAGE_SHIFT
    return vpns, np.zeros(len(vpns), np.uint8) if write is None else (write != 0).astype(np.uint8)


def _npz(path: Path, source: Iterator[bytes]) -> Chunk:
    parts, size = [], 0
    for piece in source:
        size += len(piece)
        if size > files.MAX_TEXT:
            raise TraceFormatError(f"{path}: more than {files.MAX_TEXT} bytes of npz; use npy for a trace of that size")
        parts.append(piece)
    data = b"".join(parts)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            expected = sum(entry.file_size for entry in archive.infolist())
        if expected > 100 * len(data) + (1 << 20):
            raise ValueError(f"{len(data)} bytes that would become {expected}")
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            if missing := [name for name in ("pages", "index", "write") if name not in arrays]:
                raise ValueError(f"no array {missing[0]!r} in it: not one of AccessTrace.save()")
            pages, index, write = arrays["pages"], arrays["index"], arrays["write"]
    except Exception as e:
        # zipfile and numpy have many ways to say that a file is damaged
        raise TraceFormatError(f"{path}: no npz of accesses: {str(e)[:200] or type(e).__name__}") from None
    if any(array.ndim != 1 or array.dtype.kind != "u" for array in (pages, index, write)) or write.dtype != np.uint8:
        raise TraceFormatError(f"{path}: pages, index and write must be one-dimensional arrays of unsigned integers")
    if len(write) != (len(index) + 7) // 8 or (len(index) and int(index.max()) >= len(pages)):
        raise TraceFormatError(f"{path}: {len(index)} accesses to {len(pages)} pages with {len(write)} bytes of writes do not fit together")
    pages = pages.astype(np.uint64)
    if len(pages) and int(pages.max()) >= 1 << 52:
        raise TraceFormatError(f"{path}: page number {int(pages.max()):#x}; they have at most 52 bits")
    return pages[index], np.unpackbits(write, count=len(index))
