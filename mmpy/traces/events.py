"""Events of a trace: what every reader (recordings, ftrace, perf, trace-cmd) returns and what the converter takes.

`rows` (EVENT_DTYPE, one an event): t_us, pid, pfn, gfp_id, cpu, event, order, migratetype, context. `extras` (EXTRA_DTYPE, sorted by
row) carries what few events have beside: see _scan.pxd. Absent values are NONE_PFN, NONE_GFP, NONE_BYTE.

Models: the fields of the kmem: tracepoints. Simplifies: times are microseconds. Omits: fields that no replay needs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mmpy.traces import _scan

Array = np.ndarray


@dataclass(frozen=True)
class Events:
    """The events of one trace, in order; `text` holds marks and what of `extra` was not taken apart, `others` names rarer events."""

    rows: Array
    extras: Array
    pages: Array
    text: bytes
    others: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    def name(self, code: int) -> str:
        """Name of an event code."""
        if code >= _scan.FIRST_OTHER:
            return self.others[code - _scan.FIRST_OTHER]
        return _scan.EVENT_NAMES[code]

    def code(self, name: str) -> int | None:
        """Code of an event name; None if no event of this trace could have it."""
        if name in self.others:
            return _scan.FIRST_OTHER + self.others.index(name)
        return next((code for code, known in _scan.EVENT_NAMES.items() if known == name), None)

    def counts(self) -> dict[str, int]:
        """Number of events by name."""
        counted = np.bincount(self.rows["event"], minlength=1)
        return {self.name(code): int(n) for code, n in enumerate(counted) if n}

    def extra_text(self, row: int) -> str:
        """Text of the row's `extra`, "" if it had none or was taken apart."""
        i = int(np.searchsorted(self.extras["row"], row))
        if i == len(self.extras) or self.extras["row"][i] != row:
            return ""
        start, length = int(self.extras["start"][i]), int(self.extras["length"][i])
        return self.text[start : start + length].decode("utf-8", "replace")

    def marks(self) -> Iterator[tuple[int, str]]:
        """(row, text) of every mark."""
        for extra in self.extras:
            row = int(extra["row"])
            if self.rows["event"][row] == EVENT_MARK:
                start, length = int(extra["start"]), int(extra["length"])
                yield row, self.text[start : start + length].decode("utf-8", "replace")


_CODES = {name: code for code, name in _scan.EVENT_NAMES.items()}
EVENT_ALLOC = _CODES["alloc"]
EVENT_FREE = _CODES["free"]
EVENT_FREE_BATCHED = _CODES["free_batched"]
EVENT_RMQUEUE = _CODES["rmqueue"]
EVENT_PCP_DRAIN = _CODES["pcp_drain"]
EVENT_EXTFRAG = _CODES["extfrag"]
EVENT_BULK = _CODES["bulk"]
EVENT_BULKRET = _CODES["bulkret"]
EVENT_MARK = _CODES["mark"]
EVENT_KSWAPD_WAKE = _CODES["mm_vmscan_kswapd_wake"]
EVENT_KSWAPD_SLEEP = _CODES["mm_vmscan_kswapd_sleep"]
