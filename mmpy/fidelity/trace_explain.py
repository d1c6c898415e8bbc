"""Why a replay parted from the recording: the operation, what the kernel did and what we did, and the state that decided it.

The machine is run again up to the operation, so that lists and counters are those the rule saw. The text names the list, the page and
the kernel function whose rule is at stake. Models: nothing. Simplifies: one divergence is explained, the first.
"""

from __future__ import annotations

import numpy as np

from mmcore.run.ops import Op
from mmpy.flags import MIGRATETYPE_NAMES, gfp_text
from mmpy.traces.convert import OpStream
from mmpy.traces.events import Array
from mmpy.traces.replay import Backend, Replay, replay
from mmpy.traces.state import AllocState

_SHOWN = 4


def explain(result: Replay, op: int, backend: Backend) -> str:
    """A few sentences on operation `op` of a replay. The backend is left at that operation."""
    stream = result.stream
    # Compared rows are kept; the machine goes back to just before the operation.
    replay(result.recording, stream, backend=backend, stop=op)
    state = backend.state()
    row = int(stream.rows[op])
    event = result.recording.events.rows[row]
    parts = [f"line {row + 2} of events.csv (t={int(event['t_us']) / 1e6:.6f} s, pid {int(event['pid'])}): {request(stream, op)}."]
    parts += _outcome(result, op, state)
    for kind, name in ((1, "blocks taken"), (3, "fallbacks"), (2, "blocks drained")):
        parts += _rows(result, op, kind, name, state)
    parts.append(internals(state))
    return " ".join(parts)


def request(stream: OpStream, op: int) -> str:
    """What an operation asks for, in words."""
    o = stream.ops[op]
    code, a, b = int(o["op"]), int(o["a"]), int(o["b"])
    if code == Op.ALLOC:
        return f"alloc of order {a}, {gfp_text(b)}"
    if code == Op.ALLOC_BULK:
        return f"bulk request that got {a} pages, {gfp_text(b)}"
    if code == Op.FREE:
        return f"free of order {b}"
    return {
        int(Op.VMSTAT_TICK): "tick of the statistics worker",
        int(Op.KSWAPD_BEGIN): "kswapd begins to balance",
        int(Op.KSWAPD_END): "kswapd ends balancing",
        int(Op.CHECKPOINT): "snapshot",
        int(Op.DRAIN_ALL): "drain of all per-CPU lists",
    }.get(code, f"operation {code}")


def where(state: AllocState, pfn: int) -> str:
    """Where a page stands in a state: "at place 3 of per-CPU list 1 (order 0 Movable) of node 0 DMA32"."""
    for (node, _), zone in state["zones"].items():
        if not zone["start_pfn"] <= pfn < zone["start_pfn"] + zone["spanned"]:
            continue
        place = f"of node {node} {zone['name']}"
        for cpu, pcp in zone["pcp"].items():
            for index, pfns in pcp["lists"].items():
                if (at := _position(pfns, pfn, index // 3 if index < 12 else 9)) is not None:
                    return f"at place {at} of {_pcp_list(index)} (CPU {cpu}) {place}"
        for (order, mt), pfns in zone["free"].items():
            if (at := _position(pfns, pfn, order)) is not None:
                within = "" if pfns[at] == pfn else f" inside block {pfns[at]:#x}"
                return f"at place {at} of the free list of order {order} {MIGRATETYPE_NAMES[mt]} {place}{within}"
        return f"on no list {place}: in use"
    return "outside of every zone"


def internals(state: AllocState) -> str:
    """Counters that decide sizes, zone by zone."""
    out = []
    for (node, _), zone in state["zones"].items():
        for cpu, pcp in zone["pcp"].items():
            out.append(
                f"node {node} {zone['name']} cpu {cpu}: count {pcp['count']} high {pcp['high']} [{pcp['high_min']}, {pcp['high_max']}] "
                f"batch {pcp['batch']} alloc_factor {pcp['alloc_factor']} free_count {pcp['free_count']} flags {pcp['flags']}, "
                f"nr_free_pages {zone['nr_free_pages']} + {pcp['diff']}, boost {zone['boost']}, zone flags {zone['flags']}"
            )
    return "Before it: " + "; ".join(out) + "."


def _outcome(result: Replay, op: int, state: AllocState) -> list[str]:
    o, rc, value = result.stream.ops[op], int(result.rc[op]), int(result.value[op])
    if o["op"] == Op.ALLOC:
        kernel = int(result.recording.events.rows["pfn"][result.stream.rows[op]])
        if kernel in (0, 0xFFFFFFFF):
            return [] if rc < 0 else [f"The kernel found no page, we gave {value:#x} (watermarks: __zone_watermark_ok)."]
        if rc < 0:
            return [
                f"The kernel gave {kernel:#x}, which stands {where(state, kernel)}; we found no page (rc {rc}).",
                "Rule: watermarks, and the rights that flags and task give (__zone_watermark_ok, gfp_to_alloc_flags).",
            ]
        if kernel != value:
            rule = "a request takes the head of its list (rmqueue_pcplist)" if o["a"] <= 3 else "__rmqueue takes the smallest block"
            return [
                f"The kernel gave {kernel:#x}, which stands {where(state, kernel)}; we gave {value:#x}, {where(state, value)}.",
                f"Rule: {rule}.",
            ]
    elif rc < 0:
        return [f"The operation failed with rc {rc}; page {value:#x} stands {where(state, value)}."]
    return []


def _rows(result: Replay, op: int, kind: int, name: str, state: AllocState) -> list[str]:
    stream = result.stream
    kernel = stream.recorded[(stream.recorded["op"] == op) & (stream.recorded["event"] == kind)]
    ours = result.traced[(result.traced["op"] == op) & (result.traced["event"] == kind)]
    n = min(len(kernel), len(ours))
    fields = ("pfn", "order", "mt", "fb_order", "fb_mt", "claimed")
    same = np.ones(n, bool)
    for field in fields:
        same &= kernel[field][:n] == ours[field][:n]
    if same.all() and len(kernel) == len(ours):
        return []
    at = int(np.argmin(same)) if not same.all() else n
    out = [f"{name.capitalize()}: {len(kernel)} by the kernel, {len(ours)} by us, the first that differs is number {at}:"]
    out.append(f"kernel {_blocks(kernel, at)}, ours {_blocks(ours, at)}.")
    if at < len(kernel):
        out.append(f"The kernel's block stood {where(state, int(kernel['pfn'][at]))} before the operation.")
    out.append(f"Rule: {_rule(stream, op, kind, len(kernel), len(ours), at)}.")
    return out


def _rule(stream: OpStream, op: int, kind: int, kernel: int, ours: int, at: int) -> str:
    if kind == 1:
        if at == min(kernel, ours):
            return "how many blocks a refill takes (nr_pcp_alloc), and whether there is one (__zone_watermark_ok)"
        return "which block is taken: the head of the smallest list that fits (__rmqueue_smallest, expand), else a fallback"
    if kind == 3:
        return "which block of another type is taken, and whether its pageblock is claimed (__rmqueue_claim, __rmqueue_steal)"
    if at == min(kernel, ours):
        if stream.ops["op"][op] == Op.VMSTAT_TICK:
            return "how far a tick lowers high and drains (decay_pcp_high)"
        return "when and how much a free drains (nr_pcp_high, nr_pcp_free)"
    return "from which list and end drained blocks come (free_pcppages_bulk)"


def _blocks(rows: Array, at: int) -> str:
    if at >= len(rows):
        return "none"
    shown = []
    for r in rows[at : at + _SHOWN]:
        text = f"{int(r['pfn']):#x}/{int(r['order'])} type {int(r['mt'])}"
        if r["event"] == 3:
            text += f" from order {int(r['fb_order'])} type {int(r['fb_mt'])} {'claimed' if r['claimed'] else 'stolen'}"
        shown.append(text)
    return ", ".join(shown) + (" ..." if len(rows) > at + _SHOWN else "")


def _pcp_list(index: int) -> str:
    order, mt = (index // 3, index % 3) if index < 12 else (9, index - 12)
    return f"per-CPU list {index} (order {order} {MIGRATETYPE_NAMES[mt]})"


def _position(pfns: list[int], pfn: int, order: int) -> int | None:
    head = pfn & ~((1 << order) - 1)
    return pfns.index(head) if head in pfns else None
