"""What differs between two machines.

Models: nothing. Two machines are equal when everything that could ever matter is; hints and blocks that were never touched do not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mmcore.base.state import State
from mmcore.phys import boot
from mmpy import allocstate

if TYPE_CHECKING:
    from mmpy.machine import Machine


def canonical(state: State) -> State:
    """A state with untouched blocks written out and without hints: equal machines have equal bytes."""
    lazy = state.zones["lazy_left"].any() or len(np.flatnonzero(state.lazy["end"]))
    emptied = (state.pools["live"] == 0) & (state.pools["used"] != 0)
    cached = state.get("mms")["vma_cache"].any()
    if not lazy and not cached and not emptied.any() and len(state.get("events")) < 2:
        return state
    state = state.copy()
    # the same events may stand in a heap in several ways; sorted they are a heap too
    state.get("events").sort(order=("time_ns", "seq"))
    if lazy:
        boot.materialize(state)
    state.get("mms")["vma_cache"] = 0
    state.forget_pools(np.flatnonzero(emptied).tolist())
    return state


def differences(machine: Machine, other: Machine) -> list[str]:
    """What differs between two machines, a line each; empty if they are equal. Lists first, then counters and pages."""
    if (machine.arch, machine.kernel) != (other.arch, other.kernel):
        return [f"architecture and kernel: {machine.arch} {machine.kernel} and {other.arch} {other.kernel}"]
    out = allocstate.differences(machine.allocator_state(), other.allocator_state())
    a, b = machine.state, other.state
    if len(a.pages) != len(b.pages) or len(a.zones) != len(b.zones) or len(a.pcps) != len(b.pcps):
        return [*out, f"shape: {len(a.pages)} page frames, {len(a.zones)} zones, {machine.nr_cpus} CPUs and "
                f"{len(b.pages)}, {len(b.zones)}, {other.nr_cpus}"]  # fmt: skip
    for name in sorted(dict(machine.sysctl).keys() | dict(other.sysctl).keys()):
        if machine.sysctl[name] != other.sysctl[name]:
            out.append(f"sysctl {name}: {machine.sysctl[name]} and {other.sysctl[name]}")
    out += [f"vmstat {n}: {v} and {other.vmstat[n]}" for n, v in machine.vmstat.items() if v != other.vmstat[n]]
    if out or machine == other:
        return out
    x, y = canonical(a), canonical(b)
    for name in x.differing(y):
        p, q = x.get(name), y.get(name)
        if p.shape != q.shape:
            out.append(f"{name}: {len(p)} and {len(q)} records")
        elif p.dtype.names:
            fields = [f for f in p.dtype.names if not np.array_equal(p[f], q[f])]
            at = int(np.flatnonzero(p != q)[0])
            out.append(f"{name}: record {at} first, fields {', '.join(fields)}: {p[at]} and {q[at]}")
        else:
            out.append(f"{name} differ")
    return out
