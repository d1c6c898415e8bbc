"""The patterns themselves, vectorised: ten million accesses take about a second.

Each pattern is defined by what it draws from its stream of random numbers, in which order; the arrays hold exactly what drawing one number
at a time would give. Weights of zipf ranks are those of the C library's pow(), wherever numpy's could round to another integer.

Models: the sequences of the recorded reclaim runs. Simplifies: pages are counted from 0. Omits: patterns that react to what they cost.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from mmpy.config import as_int
from mmpy.workloads._kernels import fnv, ranks, shuffle
from mmpy.workloads.random import Array, Stream, below

MAX_PAGES = 1 << 31
"""Page numbers have 31 bits, so that page and write fit into one word of the fingerprint."""
MAX_ACCESSES = 1 << 32
SEED_BITS = 64
PATTERNS = ("seq", "uniform", "zipf", "hotcold", "hotscan", "phase")

_SHUFFLE, _WRITES = 0x5045524D, 0x57524954
_CHUNK = 1 << 16  # numbers made at a time: they stay in the CPU's cache
_GUIDES = 1 << 20  # entries of the guide at most


class Accesses(NamedTuple):
    """A sequence of accesses: `pages` (uint64) and `writes` (bool), one of each for every access."""

    pages: Array
    writes: Array


def seq(pages: int, n: int, *, write: int | bool = False, seed: int = 1) -> Accesses:
    """Pages 0, 1, 2 ... in a loop."""
    return sequence("seq", pages, n, seed=seed, write=write)


def uniform(pages: int, n: int, *, seed: int = 1, write: int | bool = False) -> Accesses:
    """Any page, each as likely."""
    return sequence("uniform", pages, n, seed=seed, write=write)


def zipf(pages: int, n: int, *, seed: int = 1, theta: float = 0.99, write: int | bool = False) -> Accesses:
    """The page of rank k is k ** -theta as likely as that of rank 1; ranks are dealt to pages at random."""
    return sequence("zipf", pages, n, seed=seed, theta=theta, write=write)


def hotcold(pages: int, n: int, *, seed: int = 1, hot: int | None = None, write: int | bool = False) -> Accesses:
    """90 % of the accesses go to the first `hot` pages (a tenth of them, unless given), uniformly; the others to the rest."""
    return sequence("hotcold", pages, n, seed=seed, hot=hot, write=write)


def hotscan(pages: int, n: int, *, seed: int = 1, hot: int | None = None, write: int | bool = False) -> Accesses:
    """A third of the accesses to hot pages; a third to hot pages and a scan of the rest in turn; a third to hot pages."""
    return sequence("hotscan", pages, n, seed=seed, hot=hot, write=write)


def phase(pages: int, n: int, *, seed: int = 1, write: int | bool = False) -> Accesses:
    """The first half of the accesses go to the lower half of the pages, the others to the upper half, uniformly."""
    return sequence("phase", pages, n, seed=seed, write=write)


def sequence(
    pattern: str, pages: int, n: int, *, seed: int = 1, theta: float = 0.99, hot: int | None = None, write: int | bool = False
) -> Accesses:
    """`n` accesses to `pages` pages by the pattern of that name.

    write: True (every access), False (none), or how many of 256 accesses write, by chance. ValueError names what is out of range.
    """
    if pattern not in PATTERNS:
        raise ValueError(f"{pattern!r} is no pattern; there are {', '.join(PATTERNS)}")
    pages = _within("pages", pages, 1, MAX_PAGES)
    n = _within("n", n, 0, MAX_ACCESSES)
    seed = _within("seed", seed, 0, (1 << SEED_BITS) - 1)
    few = pages // 10 if hot is None else _within("hot", hot, 0, pages)
    if pattern in ("hotcold", "hotscan") and few >= pages:
        raise ValueError(f"hot is {few}; it must be less than the number of pages, {pages}")
    writes = _writes(seed, n, write)
    out = np.empty(n, np.uint64)
    if pattern == "zipf":
        _fill_zipf(out, pages, seed, _theta(theta))
    else:
        _FILL[pattern](out, pages, Stream(seed), few)
    return Accesses(out, writes)


def fingerprint(accesses: Accesses) -> str:
    """The 64-bit hash (FNV-1a over 32-bit words page | write << 31) by which recorded sequences are known, 16 hex digits."""
    pages, writes = accesses
    if len(pages) != len(writes):
        raise ValueError(f"there are {len(pages)} pages and {len(writes)} writes")
    words = np.ascontiguousarray(pages, np.uint64)
    return f"{fnv(words, np.ascontiguousarray(writes, np.bool_).view(np.uint8)):016x}"


def _within(what: str, value: Any, lowest: int, highest: int) -> int:
    number = as_int(value, what)
    if not lowest <= number <= highest:
        raise ValueError(f"{what} is {number}; it must be in {lowest}..{highest}")
    return number


def _theta(theta: Any) -> float:
    if isinstance(theta, bool) or not isinstance(theta, (int, float, np.integer, np.floating)):
        raise TypeError(f"theta must be a number, not {type(theta).__name__}")
    if not 0.0 <= float(theta) <= 16.0:
        raise ValueError(f"theta is {theta}; it must be in 0..16")
    return float(theta)


def _writes(seed: int, n: int, write: int | bool) -> Array:
    share = 256 * write if isinstance(write, (bool, np.bool_)) else _within("write", write, 0, 256)
    if share in (0, 256):
        return np.full(n, bool(share))
    out, stream = np.empty(n, bool), Stream(seed ^ _WRITES)
    for at, end in _chunks(0, n):
        np.less(stream.take(end - at) >> np.uint64(56), np.uint64(share), out=out[at:end])
    return out


def _chunks(start: int, stop: int) -> Any:
    return ((at, min(at + _CHUNK, stop)) for at in range(start, stop, _CHUNK))


def _uniform(out: Array, start: int, stop: int, stream: Stream, limit: int, base: int = 0) -> None:
    for at, end in _chunks(start, stop):
        np.add(below(stream.take(end - at), limit), np.uint64(base), out=out[at:end])


def _fill_seq(out: Array, pages: int, stream: Stream, hot: int) -> None:
    for at, end in _chunks(0, len(out)):
        out[at:end] = np.arange(at, end, dtype=np.uint64) % np.uint64(pages)


def _fill_uniform(out: Array, pages: int, stream: Stream, hot: int) -> None:
    _uniform(out, 0, len(out), stream, pages)


def _fill_hotcold(out: Array, pages: int, stream: Stream, hot: int) -> None:
    # Two numbers an access: the first says which set, the second which page of it.
    for at, end in _chunks(0, len(out)):
        drawn = stream.take(2 * (end - at))
        which = drawn[1::2]
        out[at:end] = np.where(below(drawn[::2], 10) != 0, below(which, hot), below(which, pages - hot) + np.uint64(hot))


def _fill_hotscan(out: Array, pages: int, stream: Stream, hot: int) -> None:
    third = len(out) // 3
    _uniform(out, 0, third, stream, hot)
    middle = out[third : 2 * third]
    scanned = np.arange(len(middle) // 2, dtype=np.uint64)
    # The scan draws no number: the hot accesses between its steps take the next ones in turn.
    middle[1::2] = scanned % np.uint64(pages - hot) + np.uint64(hot)
    drawn = np.empty(len(middle) - len(scanned), np.uint64)
    _uniform(drawn, 0, len(drawn), stream, hot)
    middle[::2] = drawn
    _uniform(out, 2 * third, len(out), stream, hot)


def _fill_phase(out: Array, pages: int, stream: Stream, hot: int) -> None:
    half, lower = len(out) // 2, pages // 2
    _uniform(out, 0, half, stream, lower)
    _uniform(out, half, len(out), stream, lower, lower)


_FILL: dict[str, Callable[[Array, int, Stream, int], None]] = {
    "seq": _fill_seq,
    "uniform": _fill_uniform,
    "hotcold": _fill_hotcold,
    "hotscan": _fill_hotscan,
    "phase": _fill_phase,
}


def _fill_zipf(out: Array, pages: int, seed: int, theta: float) -> None:
    cumulative = np.cumsum(zipf_weights(pages, theta), dtype=np.uint64)
    total, places, stream = int(cumulative[-1]), shuffled(pages, seed), Stream(seed)
    # Where the search for a number begins and ends follows from its upper bits.
    shift = max(total.bit_length() - min(pages.bit_length() + 1, _GUIDES.bit_length()), 0)
    starts = np.arange((total >> shift) + 2, dtype=np.uint64) << np.uint64(shift)
    guide = np.searchsorted(cumulative, starts, side="right").astype(np.uint32)
    rank = np.empty(min(_CHUNK, len(out)), np.uint32)
    for at, end in _chunks(0, len(out)):
        # The first rank whose cumulative weight exceeds the number drawn.
        ranks(cumulative, guide, shift, below(stream.take(end - at), total), rank)
        out[at:end] = places[rank[: end - at]]


def zipf_weights(pages: int, theta: float) -> Array:
    """Weights of the ranks 1..pages: floor(2**32 * rank ** -theta), uint64."""
    out = np.empty(pages, np.uint64)
    for at, end in _chunks(0, pages):
        value = np.arange(at + 1, end + 1, dtype=np.float64)
        value = 4294967296.0 * value**-theta
        out[at:end] = value.astype(np.uint64)
        # numpy's power may be off by a few units in the last place: that matters only this close to an integer.
        for i in np.flatnonzero(np.abs(value - np.rint(value)) <= value * 2.0**-48).tolist():
            out[at + i] = int(4294967296.0 * math.pow(float(at + i + 1), -theta))
    return out


def shuffled(pages: int, seed: int) -> Array:
    """0..pages-1 in the order of a Fisher-Yates shuffle with its own stream, uint32."""
    stream, places = Stream(seed ^ _SHUFFLE), np.arange(pages, dtype=np.uint32)
    for first, last in _chunks(0, pages - 1):
        limits = np.arange(pages - first, pages - last, -1, dtype=np.uint32)
        shuffle(places, below(stream.take(len(limits)), limits), pages - 1 - first)
    return places
