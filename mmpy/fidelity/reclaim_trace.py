"""Rows of a tracer as what a case of evict/ records: pages that came, went and were activated, and vmscan's batches.

Models: nothing. Simplifies: one file; pages of other programs that are activated are left out. Omits: times.
"""

from __future__ import annotations

import numpy as np

from mmcore.base.vmscan_trace import EVENTS
from mmpy.fidelity.reclaim_case import Evictions

_NAMES = {EVENTS["PAGE_ADD"]: "add", EVENTS["PAGE_DEL"]: "del", EVENTS["ACTIVATE"]: "activate"}
_LRUS = ("inactive_anon", "active_anon", "inactive_file", "active_file", "unevictable")
_BYTES = ("order", "mt", "fb_order", "fb_mt", "claimed")


def evictions(rows: np.ndarray) -> Evictions:
    """The events of reclaim among a tracer's rows."""
    rows = rows[rows["event"] >= min(EVENTS.values())]
    where: dict[int, int] = {}
    pages: list[tuple[str, int]] = []
    batches: list[tuple[str | int, ...]] = []
    columns = [rows[name].tolist() for name in ("event", "pfn", "op", *_BYTES)]
    for event, value, index, a, b, c, d, e in zip(*columns, strict=True):
        if event in _NAMES:
            page = where.get(value, -1) if event == EVENTS["ACTIVATE"] else index
            if event == EVENTS["PAGE_ADD"]:
                where[value] = index
            if page >= 0:
                pages.append((_NAMES[event], page))
        elif event == EVENTS["MEMCG_BEGIN"]:
            batches.append(("memcg_reclaim_begin",))
        elif event == EVENTS["MEMCG_END"]:
            batches.append(("memcg_reclaim_end", value))
        elif event == EVENTS["ISOLATE"]:
            batches.append(("lru_isolate", _LRUS[a], value, b, c, d))
        elif event == EVENTS["SHRINK_INACTIVE"]:
            batches.append(("lru_shrink_inactive", *(value >> shift & 255 for shift in (0, 8, 16, 24)), a, b, c, d, e))
        elif event == EVENTS["SHRINK_ACTIVE"]:
            batches.append(("lru_shrink_active", value, a, b, c, e))
    return Evictions(tuple(pages), tuple(batches))
