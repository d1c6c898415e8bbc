"""Accesses by the million: what they may name, and what came of them.

Models: nothing. Simplifies: an access is one address, read or written; its size does not matter. Omits: execution.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from mmpy.vmflags import Fault

CHUNK = 1 << 17
"""Accesses between two chances for Ctrl-C; their page numbers fit into a CPU's cache."""
MAX_ADDRESS = 1 << 57
"""Addresses have at most 57 bits (five levels of page tables)."""

Addresses = int | range | Sequence[int] | np.ndarray


class AccessResult:
    """What came of many accesses: how many of each kind, and `codes` (uint8, a Fault for each access in order)."""

    __slots__ = ("_counts", "codes")

    def __init__(self, codes: np.ndarray, counts: np.ndarray | None = None) -> None:
        self.codes = codes
        self._counts = np.bincount(codes, minlength=len(Fault)) if counts is None else counts

    def count(self, fault: Fault) -> int:
        """How many accesses ended so."""
        return int(self._counts[fault])

    @property
    def hits(self) -> int:
        """Accesses that found their page mapped."""
        return self.count(Fault.HIT)

    @property
    def minor(self) -> int:
        """Page faults without I/O."""
        return self.count(Fault.MINOR)

    @property
    def major(self) -> int:
        """Page faults that had to read."""
        return self.count(Fault.MAJOR)

    @property
    def segv(self) -> int:
        """Accesses to what is not mapped, or not so."""
        return self.count(Fault.SEGV_MAPERR) + self.count(Fault.SEGV_ACCERR)

    @property
    def sigbus(self) -> int:
        """Accesses behind the end of a file."""
        return self.count(Fault.SIGBUS)

    @property
    def oom(self) -> int:
        """Accesses for which there was no memory."""
        return self.count(Fault.OOM)

    @property
    def faults(self) -> int:
        """Page faults that were served: minor and major."""
        return self.minor + self.major

    @property
    def ok(self) -> bool:
        """Whether every access succeeded."""
        return self.hits + self.faults == len(self)

    def failed(self) -> np.ndarray:
        """Positions of the accesses that failed: array of int64."""
        return np.flatnonzero(self.codes >= Fault.SEGV_MAPERR)

    def as_dict(self) -> dict[str, int]:
        """The counts by name."""
        return {name: int(getattr(self, name)) for name in ("hits", "minor", "major", "segv", "sigbus", "oom")}

    def __len__(self) -> int:
        return len(self.codes)

    def __eq__(self, other: object) -> bool:
        return bool(np.array_equal(self.codes, other.codes)) if isinstance(other, AccessResult) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        parts = [f"{name}={n}" for name, n in self.as_dict().items() if n or name in ("hits", "minor", "major")]
        return f"AccessResult({len(self)} accesses: {', '.join(parts)})"

    def _repr_html_(self) -> str:
        rows = "".join(f"<tr><th>{name}</th><td>{n}</td></tr>" for name, n in self.as_dict().items())
        return f"<table><caption>{len(self)} accesses</caption>{rows}</table>"


def vpns_of(addresses: Any) -> tuple[int, Iterator[np.ndarray]]:
    """How many addresses there are, and their page numbers (uint64) in pieces. What is no address is refused before the first piece."""
    if isinstance(addresses, range):
        if len(addresses):
            _bounds(min(addresses[0], addresses[-1]), max(addresses[0], addresses[-1]))
        return len(addresses), _range_pieces(addresses)
    if not isinstance(addresses, np.ndarray):
        if isinstance(addresses, (str, bytes, float)) or addresses is None:
            raise TypeError(f"addresses must be integers (array, range, list or one int), not {type(addresses).__name__}")
        try:
            addresses = np.asarray(addresses)
        except OverflowError:
            raise ValueError("an address does not fit into 64 bits") from None
        if not addresses.size and addresses.ndim == 1:
            addresses = addresses.astype(np.uint64)
        if addresses.dtype == object:
            if any(isinstance(a, bool) or not isinstance(a, int) for a in addresses.reshape(-1).tolist()):
                raise TypeError("addresses must be integers (array, range, list or one int), not objects")
            raise ValueError("an address does not fit into 64 bits")
    if addresses.dtype.kind not in "iu":
        raise TypeError(f"addresses must be integers, not an array of {addresses.dtype}")
    if addresses.ndim > 1:
        raise TypeError(f"addresses must be a one-dimensional array, not one of shape {addresses.shape}")
    addresses = addresses.reshape(-1)
    if len(addresses):
        _bounds(int(addresses.min()) if addresses.dtype.kind == "i" else 0, int(addresses.max()))
    return len(addresses), _array_pieces(addresses)


def _bounds(lowest: int, highest: int) -> None:
    wrong = lowest if lowest < 0 else highest
    if lowest < 0 or highest >= MAX_ADDRESS:
        raise ValueError(f"address {wrong:#x} lies outside 0..2**57 - 1")


def _range_pieces(addresses: range) -> Iterator[np.ndarray]:
    for at in range(0, len(addresses), CHUNK):
        part = addresses[at : at + CHUNK]
        yield (np.arange(part.start, part.stop, part.step, dtype=np.int64) >> 12).astype(np.uint64)


def _array_pieces(addresses: np.ndarray) -> Iterator[np.ndarray]:
    for at in range(0, len(addresses), CHUNK):
        part = addresses[at : at + CHUNK].astype(np.uint64, copy=False)
        yield part >> np.uint64(12)


def writes_of(write: Any, total: int) -> bool | np.ndarray:
    """One bool for all accesses, or an array (uint8) with one for each."""
    if isinstance(write, (bool, np.bool_)):
        return bool(write)
    array = np.asarray(write)
    if array.ndim == 0 and array.dtype.kind in "iu" and int(array) in (0, 1):
        return bool(array)
    if array.size == 0 and array.ndim == 1:
        array = array.astype(bool)
    if array.dtype != np.bool_ and array.dtype != np.uint8:
        raise TypeError(f"write must be a bool, or an array of bool, not {array.dtype if array.ndim else type(write).__name__}")
    if array.shape != (total,):
        raise ValueError(f"write has shape {array.shape}; there are {total} addresses")
    return np.ascontiguousarray(array != 0).view(np.uint8)
