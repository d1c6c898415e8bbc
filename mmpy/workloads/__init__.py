"""Access sequences by pattern: arrays of page numbers and writes, the same for the same seed on every machine.

>>> work = zipf(1 << 20, 10_000_000, seed=1, theta=0.99)
>>> process.touch(address + (work.pages << 12), write=work.writes)

These are the sequences of the recorded reclaim runs, number for number: `fingerprint` is what their index records as `seq_hash`.

Patterns: `seq` loops over the pages; `uniform`; `zipf` (ranks dealt to pages by a shuffle); `hotcold` (90 % of the accesses to the first
`hot` pages); `hotscan` (hot only, hot and a scan in turn, hot only, a third each); `phase` (one half of the pages, then the other).

Models: nothing of the kernel. Simplifies: an access is one page, read or written. Omits: think time, several streams at once.
"""

from __future__ import annotations

from mmpy.workloads.patterns import (
    PATTERNS,
    Accesses,
    fingerprint,
    hotcold,
    hotscan,
    phase,
    seq,
    sequence,
    uniform,
    zipf,
)

__all__ = ["PATTERNS", "Accesses", "fingerprint", "hotcold", "hotscan", "phase", "seq", "sequence", "uniform", "zipf"]
