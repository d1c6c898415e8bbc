"""Recount of swap: areas, slots, lists of clusters, stocks of CPUs, the swap cache, charges.

Models: nothing; it is the judge of reclaim/swap. Cost: in proportion to the slots of the areas and to the page frames.
"""

from __future__ import annotations

import numpy as np

from mmcore.base.errors import ValidationError
from mmcore.base.state import State

SWP_USED, SWP_WRITEOK, SWP_SOLIDSTATE, SWP_AVAIL = 1, 2, 4, 16
SLOT_TAKEN, SLOT_BAD, SLOT_HAS_CACHE = 2, 16, 64
PG_SWAPCACHE = 1 << 9
NS_NR_SWAPCACHED = 41
CLUSTER = 512
LISTS = ("free", "nonfull", "frag", "full")


def _fail(text: str) -> None:
    raise ValidationError(text)


def check_swap(state: State, entries: np.ndarray | None = None) -> None:
    """ValidationError names the first thing that is wrong. entries: page-table entries that name each slot (by slot number)."""
    areas, slots = state.get("swap_areas"), state.get("swap_slots")
    g, pages = state.vm_globals[0], state.all_pages[: int(state.globals["nr_pages"][0])]
    used = np.zeros(len(slots), bool)
    free = total = 0
    orders = []
    for number, a in enumerate(areas, 1):
        if not a["flags"] & SWP_USED:
            if a.tobytes().strip(b"\0"):
                _fail(f"swap area {number} is not in use, but its record is not empty")
            continue
        first, size = int(a["first_slot"]), int(a["max"])
        if first + size > len(slots) or used[first : first + size].any():
            _fail(f"swap area {number}: its slots {first} to {first + size - 1} are another's or lie outside the pool of {len(slots)}")
        used[first : first + size] = True
        _check_area(state, number, a, slots[first : first + size])
        if a["flags"] & SWP_WRITEOK:
            total += int(a["pages"])
            free += int(a["pages"]) - int(a["inuse"])
        if a["flags"] & SWP_AVAIL:
            orders.append(int(a["order"]))
    if sorted(orders) != list(range(1, len(orders) + 1)):
        _fail(f"swap areas with room stand in the order {orders}")
    if int(g["nr_swap_pages"]) != free:
        _fail(f"nr_swap_pages is {int(g['nr_swap_pages'])}, counted {free}")
    if int(state.globals["total_swap_pages"][0]) != total:
        _fail(f"total_swap_pages is {int(state.globals['total_swap_pages'][0])}, counted {total}")
    if slots[~used]["flags"].any():
        _fail(f"slot {int(np.flatnonzero(~used & (slots['flags'] != 0))[0])} is in use, but no area has it")
    _check_users(state, slots, entries)
    _check_cache(state, slots, pages)
    _check_charges(state, slots)


def _check_area(state: State, number: int, a: np.void, slots: np.ndarray) -> None:
    taken = (slots["flags"] & (SLOT_TAKEN | SLOT_BAD)) != 0
    if slots["flags"][0] != SLOT_BAD or (slots["flags"][1:] & SLOT_BAD).any():
        _fail(f"swap area {number}: the header's slot, and no other, is bad")
    if int(taken[1:].sum()) != int(a["inuse"]) or int(a["pages"]) != len(slots) - 1:
        _fail(f"swap area {number}: {int(a['inuse'])} of {int(a['pages'])} slots are in use, counted {int(taken[1:].sum())}")
    free = np.flatnonzero(~taken)
    if len(free) and not int(a["lowest_bit"]) <= free[0] <= free[-1] <= int(a["highest_bit"]):
        _fail(f"swap area {number}: free slots {free[0]} to {free[-1]} lie outside {int(a['lowest_bit'])} to {int(a['highest_bit'])}")
    if bool(a["flags"] & SWP_AVAIL) != bool(len(free) and a["flags"] & SWP_WRITEOK):
        _fail(f"swap area {number} has {len(free)} free slots, and is {'' if a['flags'] & SWP_AVAIL else 'not '}said to have room")
    if not a["flags"] & SWP_SOLIDSTATE:
        return
    nr = int(a["nr_clusters"])
    clusters = state.get("swap_clusters")[int(a["first_cluster"]) : int(a["first_cluster"]) + nr]
    padded = np.ones(nr * CLUSTER, bool)
    padded[: len(slots)] = taken
    count = padded.reshape(nr, CLUSTER).sum(axis=1)
    if (count != clusters["count"]).any():
        k = int(np.flatnonzero(count != clusters["count"])[0])
        _fail(f"swap area {number}, cluster {k}: {int(clusters['count'][k])} slots are in use, counted {count[k]}")
    seen = 0
    for kind, name in enumerate(LISTS, 1):
        x, before, length = int(a[f"{name}_head"]), 0, 0
        while x:
            c = clusters[x - 1] if x <= nr else None
            if c is None or c["prev"] != before or c["flags"] != kind or length > nr:
                _fail(f"swap area {number}: its list of {name} clusters is damaged at cluster {x - 1}")
                return
            if (kind == 1) != (c["count"] == 0) or (kind == 4) != (c["count"] == CLUSTER):
                _fail(f"swap area {number}: cluster {x - 1} with {int(c['count'])} slots in use stands on the list {name}")
            before, x, length = x, int(c["next"]), length + 1
        if int(a[f"{name}_tail"]) != before or (name == "frag" and length != int(a["frag_nr"])):
            _fail(f"swap area {number}: the tail or length of its list of {name} clusters is wrong")
        seen += length
    if seen != nr:
        _fail(f"swap area {number}: {seen} of {nr} clusters stand on lists")


def _check_users(state: State, slots: np.ndarray, entries: np.ndarray | None) -> None:
    taken = (slots["flags"] & SLOT_TAKEN) != 0
    paged = (slots["cache"] != 0) & (slots["cache"] & np.uint64(3) == 0)
    if (~taken & ((slots["count"] != 0) | (slots["cache"] != 0) | (slots["memcg"] != 0))).any():
        _fail("a slot that is not in use has users, a page or a group")
    if entries is not None:
        wrong = np.flatnonzero(slots["count"] != entries[: len(slots)])
        if len(wrong):
            k = int(wrong[0])
            _fail(f"swap slot {k} has {int(slots['count'][k])} users, counted {int(entries[k])}")
    stocked = np.zeros(len(slots) + 1, np.int64)
    for cpu in state.cpus:
        cur, nr, back = int(cpu["swap_cur"]), int(cpu["swap_nr"]), int(cpu["swap_ret_nr"])
        if not cur <= nr <= 64 or back > 64:
            _fail("a CPU's stock of swap slots is damaged")
        for number in (*cpu["swap_slots"][cur:nr].tolist(), *cpu["swap_ret"][:back].tolist()):
            if number >= len(slots) or not taken[number] or slots["count"][number] or paged[number]:
                _fail(f"swap slot {number} stands in a CPU's stock and is in use elsewhere, or is free")
            stocked[number] += 1
    idle = taken & (slots["count"] == 0) & ~paged
    if (stocked[:-1] != idle).any():
        k = int(np.flatnonzero(stocked[:-1] != idle)[0])
        _fail(f"swap slot {k} is taken, has no users and no page, and stands {int(stocked[k])} times in the CPUs' stocks")
    if (taken & paged & ((slots["flags"] & SLOT_HAS_CACHE) == 0)).any():
        _fail("a swap slot has a page in the swap cache and does not know it")
    if (slots["rmap"][~paged] != 0).any():
        _fail("a swap slot without a page in the swap cache keeps a mapping for it")


def _check_cache(state: State, slots: np.ndarray, pages: np.ndarray) -> None:
    numbers = np.flatnonzero((slots["cache"] != 0) & (slots["cache"] & np.uint64(3) == 0))
    pfns = (slots["cache"][numbers] >> np.uint64(2)).astype(np.int64) - 1
    if len(pfns) and (pfns.max() >= len(pages) or ((pages["flags"][pfns] & PG_SWAPCACHE) == 0).any()
                      or (pages["private_"][pfns] != numbers + 1).any()):
        _fail("a page in the swap cache does not name its slot")
    if int(((pages["flags"] & PG_SWAPCACHE) != 0).sum()) != len(pfns):
        _fail(f"{int(((pages['flags'] & PG_SWAPCACHE) != 0).sum())} pages say that they are in the swap cache, {len(pfns)} are")
    if not state.vm_globals["foreign_counts"][0] and int(state.nodes["vm_stat"][:, NS_NR_SWAPCACHED].sum()) != len(pfns):
        _fail(f"nr_swapcached is {int(state.nodes['vm_stat'][:, NS_NR_SWAPCACHED].sum())}, counted {len(pfns)}")


def _check_charges(state: State, slots: np.ndarray) -> None:
    memcgs = state.get("memcgs")
    own = np.bincount(slots["memcg"][slots["memcg"] != 0], minlength=len(memcgs)) if len(slots) else np.zeros(len(memcgs), np.int64)
    total = own.astype(np.int64)
    for x in np.flatnonzero(own):
        up = int(memcgs["parent"][x])
        while up:
            total[up - 1] += own[x]
            up = int(memcgs["parent"][up - 1])
    if (total != memcgs["swap_usage"]).any():
        k = int(np.flatnonzero(total != memcgs["swap_usage"])[0])
        _fail(f"group {k}: {int(memcgs['swap_usage'][k])} pages of swap are charged, counted {int(total[k])}")
