"""Recount of vmalloc: the judge of what vmap_area and vmalloc keep incrementally.

Models: nothing. Every link is tested before it is followed. Cost: proportional to the records ever used and the pages mapped.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np

from mmcore.base.errors import ValidationError
from mmcore.base.state import State
from mmcore.sys import vmalloc

FREE, BUSY, LAZY, POOLED, TABLES = 1, 2, 3, 4, 5
READY, START, END, NODES, FREE_ROOT, BUSY_ROOT, LAZY_PAGES, NR_PAGES, KMALLOC_BYTES, NR_BUSY = range(10)
NR_FAILED, LAST_CALLER = 15, 20
PTE_ROOT, PMD_ROOT, PTE_TABLES, PMD_TABLES = 16, 17, 18, 19
VM_IOREMAP, VM_ALLOC, VM_MAP, VM_ARRAY = (vmalloc.FLAGS[name] for name in ("ioremap", "vmalloc", "vmap", "array"))
OWNED, OWNER_MASK, OWNER_VMALLOC = (1 << 17) | (1 << 23), 15, 2
ALLOCATED, ORDER_SHIFT = 1 << 27, 28
MAX_POOLED_PAGES = 256


def _fail(text: str) -> None:
    raise ValidationError(f"vmalloc: {text}")


def _need(right: object, text: str) -> None:
    if not right:
        _fail(text)


class _Records:
    """The areas as lists: one conversion, then plain integers."""

    def __init__(self, state: State) -> None:
        areas = state.get("vm_areas")
        self.n = len(areas)
        for name in ("state", "start", "end", "max_size", "left", "right", "up", "priority", "next", "prev", "node", "array", "flags"):
            setattr(self, name, areas[name].tolist())
        self.seen = [False] * self.n

    state: list[int]
    start: list[int]
    end: list[int]
    max_size: list[int]
    left: list[int]
    right: list[int]
    up: list[int]
    priority: list[int]
    next: list[int]
    prev: list[int]
    node: list[int]
    array: list[int]
    flags: list[int]

    def claim(self, link: int, kind: int, where: str) -> int:
        _need(0 < link <= self.n, f"{where} leads to record {link} of {self.n}")
        i = link - 1
        _need(not self.seen[i], f"{where} leads to record {i} a second time")
        _need(self.state[i] == kind, f"{where} holds record {i} in state {self.state[i]}, not {kind}")
        whole = not (self.start[i] | self.end[i]) & 4095
        _need(self.start[i] < self.end[i] and whole, f"{where} holds an impossible range {self.start[i]:#x}")
        self.seen[i] = True
        return i

    def tree(self, root: int, kind: int, where: str) -> Iterator[int]:
        """Records of a tree in order; links, priorities, order and longest ranges are tested."""
        order: list[int] = []
        stack: list[tuple[int, int, bool]] = [(root, 0, False)] if root else []
        while stack:
            link, up, left_done = stack.pop()
            if left_done:
                order.append(link - 1)
                continue
            i = self.claim(link, kind, where)
            _need(self.up[i] == up, f"{where}: record {i} has another parent")
            _need(not up or self.priority[up - 1] >= self.priority[i], f"{where}: record {i} stands too low")
            if self.right[i]:
                stack.append((self.right[i], link, False))
            stack.append((link, up, True))
            if self.left[i]:
                stack.append((self.left[i], link, False))
        longest: dict[int, int] = {}
        for i in order:
            longest[i] = self.end[i] - self.start[i]
        for before, after in pairwise(order):
            _need(self.end[before] <= self.start[after], f"{where}: {self.start[before]:#x} and {self.start[after]:#x} overlap")
        for i in order:
            below = [self.max_size[link - 1] for link in (self.left[i], self.right[i]) if link]
            _need(self.max_size[i] == max([longest[i], *below]), f"{where}: the longest range below {self.start[i]:#x} is wrong")
        return iter(order)


def _page_list(state: State, area: Any, n: int, used: np.ndarray) -> np.ndarray:
    """Page frames of an area, from its records; each record is marked in `used`."""
    shift = 0
    while (n - 1) >> (shift + 6):
        shift += 6
    pool = state.get("vm_pages")
    name = f"the page list of {int(area['start']):#x}"
    level = np.array([int(area["pages"])], np.int64)
    while True:
        _need(((level > 0) & (level <= len(pool))).all(), f"{name} leads outside its pool")
        fresh = not used[level - 1].any()
        used[level - 1] = True
        _need(fresh and (len(level) == 1 or len(np.unique(level)) == len(level)), f"records of {name} are shared")
        slots = pool["slots"][level - 1].reshape(-1).astype(np.int64)
        want = -(-int(area["nr_pages"]) >> shift)
        _need(slots[:want].all() and not slots[want:].any(), f"{name} has holes, or too many pages")
        if not shift:
            return slots[:want] - 1
        level, shift = slots[:want], shift - 6


def validate(state: State) -> dict[str, int]:
    """Recount the kernel's mappings; ValidationError names the first thing that is wrong. Returns what was counted."""
    _kmaps(state)
    g = [int(x) for x in state.vm_globals["vmalloc"][0]]
    areas = state.get("vm_areas")
    if not g[READY]:
        rest = [x for i, x in enumerate(g) if i not in (NR_FAILED, LAST_CALLER)]
        _need(not len(areas) and not any(rest), "something is in use, but nothing was ever set up")
        return {"busy": 0, "free": 0, "lazy": 0, "pooled": 0, "pages": 0}
    _need((g[START], g[END]) == vmalloc.bounds(state), "its range is not the machine's")
    nodes = state.get("vmap_nodes")
    _need(len(nodes) == g[NODES] >= 1, f"{len(nodes)} nodes exist, {g[NODES]} are in use")
    r = _Records(state)
    free = list(r.tree(g[FREE_ROOT], FREE, "the tree of free ranges"))
    busy = list(r.tree(g[BUSY_ROOT], BUSY, "the tree of areas"))
    lazy: list[int] = []
    pooled: list[int] = []
    for number, node in enumerate(nodes):
        mine = list(r.tree(int(node["lazy_root"]), LAZY, f"the lazily freed areas of node {number}"))
        _need(len(mine) == int(node["nr_lazy"]), f"node {number} has {len(mine)} lazily freed areas, not {node['nr_lazy']}")
        lazy += mine
        for k in np.flatnonzero((node["head"] > 0) | (node["tail"] > 0) | (node["len"] > 0)).tolist():
            pooled += _pool(r, node, number, k)
    pte_shift = 12 + int(state.vm_globals["pt_bits"][0])
    for root, count, shift, name in ((PTE_ROOT, PTE_TABLES, pte_shift, "PTE"), (PMD_ROOT, PMD_TABLES, 30, "PMD")):
        units = sum((r.end[i] - r.start[i]) >> shift for i in r.tree(g[root], TABLES, f"the set of {name} tables"))
        _need(units == g[count], f"{g[count]} {name} tables are counted, {units} found")
    info = state.get("table_info")
    kernel = int(np.count_nonzero((info["pfn"] != 0) & (info["mm"] == 0)))
    _need(kernel == g[PTE_TABLES] + g[PMD_TABLES], f"the kernel has {kernel} page tables, not {g[PTE_TABLES]} and {g[PMD_TABLES]}")
    _cover(r, sorted([*free, *busy, *lazy, *pooled], key=lambda i: r.start[i]), g[START], g[END])
    for before, after in pairwise(free):
        _need(r.end[before] < r.start[after], f"free ranges meet unmerged at {r.start[after]:#x}")
    live = int(state.pools["live"][7])
    _need(sum(r.seen) == live and sum(map(bool, r.state)) == live, f"{live} area records are in use, {sum(r.seen)} were found")
    waiting = sum((r.end[i] - r.start[i]) >> 12 for i in lazy)
    _need(waiting == g[LAZY_PAGES], f"{g[LAZY_PAGES]} lazily freed pages are counted, {waiting} found")
    _need(len(busy) == g[NR_BUSY], f"{g[NR_BUSY]} areas are counted, {len(busy)} found")
    pages = _pages(state, r, busy, g)
    return {"busy": len(busy), "free": len(free), "lazy": len(lazy), "pooled": len(pooled), "pages": pages}


def _pool(r: _Records, node: Any, number: int, k: int) -> list[int]:
    where, found, link, before = f"pool {k} of node {number}", [], int(node["head"][k]), 0
    while link:
        i = r.claim(link, POOLED, where)
        _need(r.prev[i] == before, f"{where}: links forth and back disagree")
        _need((r.end[i] - r.start[i]) >> 12 == k + 1, f"{where} holds an area of another length")
        _need(r.node[i] == number + 1, f"{where} holds an area of another node")
        found.append(i)
        before, link = link, r.next[i]
    _need(before == int(node["tail"][k]) and len(found) == int(node["len"][k]), f"{where}: its end or its length is wrong")
    return found


def _cover(r: _Records, order: list[int], start: int, end: int) -> None:
    at = start
    for i in order:
        _need(r.start[i] == at, f"{at:#x}..{r.start[i]:#x} belongs to nothing, or to two ranges")
        at = r.end[i]
    _need(at == max(end, start), f"ranges end at {at:#x}, the area at {end:#x}")


def _kmaps(state: State) -> None:
    limit = len(state.pages)
    for record in state.get("kmaps"):
        count, frames = record["count"], record["pfn"]
        used = frames[count > 0]
        _need(not frames[count == 0].any(), "a free kmap slot names a page frame")
        _need((used < limit).all() and len(np.unique(used)) == len(used), "kmap slots name a page frame twice, or one outside the machine")
        _need(int(record["cursor"]) < len(count), "kmap's cursor lies outside its slots")
    for cpu, stack in enumerate(state.get("kmap_locals")):
        depth = int(stack["depth"])
        right = depth <= len(stack["pfn"]) and (stack["pfn"][:depth] < limit).all() and not stack["pfn"][depth:].any()
        _need(right, f"the kmap_local stack of CPU {cpu} is damaged")


def _pages(state: State, r: _Records, busy: list[int], g: list[int]) -> int:
    areas, pages = state.get("vm_areas"), state.pages
    page_flags, private = pages["flags"], pages["private_"]
    used = np.zeros(len(state.get("vm_pages")), bool)
    owner = np.zeros(len(pages), np.uint32)
    total = counted = 0
    arrays: set[int] = set()
    for i in busy:
        area, n = areas[i], ((r.end[i] - r.start[i]) >> 12) - 1
        where = f"the area at {r.start[i]:#x}"
        kind = r.flags[i] & (VM_IOREMAP | VM_ALLOC | VM_MAP)
        _need(kind in (VM_IOREMAP, VM_ALLOC, VM_MAP), f"{where} has flags {r.flags[i]:#x}")
        _need(int(area["nr_pages"]) == (0 if kind == VM_IOREMAP else n), f"{where} has {area['nr_pages']} pages, not {n}")
        _need(0 <= r.node[i] <= g[NODES], f"{where} remembers node {r.node[i] - 1}")
        _need(int(area["caller"]) <= len(state.names), f"{where} has a caller without a name")
        if kind == VM_IOREMAP:
            continue
        found = _page_list(state, area, n, used)
        _need((found < len(pages)).all(), f"{where} maps a page frame outside the machine")
        if kind == VM_MAP:
            continue
        flags = page_flags[found]
        _need(len(np.unique(found)) == len(found) and not owner[found].any(), f"{where} has a page twice, or another area's")
        right = ((flags & OWNED) == OWNED) & ((flags & OWNER_MASK) == OWNER_VMALLOC) & (flags & ALLOCATED > 0) & (flags >> ORDER_SHIFT == 0)
        _need(right.all() and (private[found] == i + 1).all(), f"{where} has pages that are not marked as its own")
        owner[found] = i + 1
        total += n
        if n * 8 > 4096:
            _need(0 < r.array[i] <= r.n and r.array[i] not in arrays, f"{where} has no descriptor array of its own")
            j = r.array[i] - 1
            _need(r.state[j] == BUSY and r.flags[j] & VM_ARRAY, f"{where}: its descriptor array is no area in use")
            arrays.add(r.array[i])
        else:
            counted += n * 8
            _need(not r.array[i], f"{where} has a descriptor array that it does not need")
    _need(sum(1 for i in busy if r.flags[i] & VM_ARRAY) == len(arrays), "an area holds the descriptor array of none")
    _need(int(used.sum()) == int(state.pools["live"][8]), "records of page lists belong to no area")
    marked = np.flatnonzero((page_flags & (OWNED | OWNER_MASK | ALLOCATED)) == OWNED | OWNER_VMALLOC | ALLOCATED)
    _need(len(marked) == total, f"{len(marked)} pages are marked as vmalloc's, {total} belong to areas")
    _need(total == g[NR_PAGES], f"{g[NR_PAGES]} pages are counted, {total} found")
    _need(counted == g[KMALLOC_BYTES], f"{g[KMALLOC_BYTES]} bytes of descriptor arrays are counted, {counted} found")
    return total
