"""/proc/pagetypeinfo: reading and writing.

Models: pagetypeinfo_show() (mm/vmstat.c). Simplifies: nothing. Omits: the table of mixed blocks (a debug
option, page_owner), which the reader passes over.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from mmpy.proc.lines import MAX_NODE, Lines
from mmpy.proc.protocol import ZoneListsLike

MIGRATETYPE_NAMES = ("Unmovable", "Movable", "Reclaimable", "HighAtomic", "Isolate")
PAGEBLOCK_ORDER = 9
NR_PAGE_ORDERS = 11
# The kernel stops counting a list here, and prints the number with ">" before it.
COUNT_LIMIT = 100000

ZoneKey = tuple[int, str]


@dataclass(slots=True)
class PageTypeInfo:
    """A parsed /proc/pagetypeinfo. Zones are (node, name), types go by their names in the text.

    types: the names in order; free[zone][type][order]: free blocks; blocks[zone][type]: pageblocks;
    clipped: (zone, type, order) whose true count is at least the one given.
    """

    page_block_order: int
    pages_per_block: int
    types: tuple[str, ...] = ()
    free: dict[ZoneKey, dict[str, tuple[int, ...]]] = field(default_factory=dict)
    blocks: dict[ZoneKey, dict[str, int]] = field(default_factory=dict)
    clipped: set[tuple[ZoneKey, str, int]] = field(default_factory=set)


_ORDER = re.compile(r"Page block order:\s*(\S+)")
_PAGES = re.compile(r"Pages per block:\s*(\S+)")
_FREE_HEADER = re.compile(r"Free pages count per migrate type at order((?:\s+\d+)+)")
_FREE_ROW = re.compile(r"Node\s+(\d+), zone\s+(\S+), type\s+(\S+)\s+(.*)")
_BLOCKS_HEADER = re.compile(r"Number of blocks type((?:\s+[A-Za-z]\S*)+)")
_BLOCKS_ROW = re.compile(r"Node\s+(\d+), zone\s+(\S+)\s+(\d.*)")
_MIXED_HEADER = re.compile(r"Number of mixed blocks\s+.*")


def parse_pagetypeinfo(text: str) -> PageTypeInfo:
    """Read a /proc/pagetypeinfo (any kernel since 2.6.24; one or more nodes).

    Raises ProcFormatError for malformed text and for text that ends before its last table.
    """
    lines = Lines("pagetypeinfo", text)
    info: PageTypeInfo | None = None
    while lines.line is not None or info is None:
        order = _heading(lines, _ORDER, "Page block order")
        pages = _heading(lines, _PAGES, "Pages per block")
        if info is None:
            info = PageTypeInfo(order, pages)
        elif (order, pages) != (info.page_block_order, info.pages_per_block):
            lines.fail(f"page blocks of order {info.page_block_order} as on the node before")
        known = set(info.free)
        _free_table(lines, info)
        _blocks_table(lines, info, set(info.free) - known)
    return info


def _heading(lines: Lines, pattern: re.Pattern[str], name: str) -> int:
    match = pattern.fullmatch(lines.line or "")
    if match is None:
        lines.fail(f"'{name}: N'")
    value = lines.number_of(match[1], name)
    lines.advance()
    return value


def _zone_key(lines: Lines, match: re.Match[str]) -> ZoneKey:
    return lines.number_of(match[1], "the node", MAX_NODE), match[2]


def _free_table(lines: Lines, info: PageTypeInfo) -> None:
    match = _FREE_HEADER.fullmatch(lines.line or "")
    if match is None:
        lines.fail("'Free pages count per migrate type at order 0 1 ...'")
    orders = [lines.number_of(word, "an order") for word in match[1].split()]
    if orders != list(range(len(orders))):
        lines.fail("the orders 0, 1, 2, ...")
    lines.advance()
    rows = 0
    while match := _FREE_ROW.fullmatch(lines.line or ""):
        key, name, words = _zone_key(lines, match), match[3], match[4].split()
        if len(words) != len(orders):
            lines.fail(f"{len(orders)} counts, one per order")
        table = info.free.setdefault(key, {})
        if name in table:
            lines.fail(f"one row for type {name} of zone {key[1]} of node {key[0]}, not two")
        table[name] = tuple(lines.number_of(word.removeprefix(">"), "free blocks") for word in words)
        info.clipped |= {(key, name, order) for order, word in enumerate(words) if word.startswith(">")}
        rows += 1
        lines.advance()
    if not rows:
        lines.fail("'Node N, zone NAME, type TYPE' and free blocks by order")


def _blocks_table(lines: Lines, info: PageTypeInfo, keys: set[ZoneKey]) -> None:
    match = _BLOCKS_HEADER.fullmatch(lines.line or "")
    if match is None:
        lines.fail("'Number of blocks type' and the names of the types, or one more row of free blocks")
    types = tuple(match[1].split())
    if len(set(types)) != len(types) or (info.types and types != info.types):
        lines.fail(f"the types {' '.join(info.types or dict.fromkeys(types))}")
    info.types = types
    for key in keys:
        if tuple(info.free[key]) != types:
            lines.fail(f"the types {' '.join(info.free[key])}, as in the table of zone {key[1]}")
    lines.advance()
    while match := _BLOCKS_ROW.fullmatch(lines.line or ""):
        key, words = _zone_key(lines, match), match[3].split()
        if key not in keys or key in info.blocks:
            lines.fail("a zone of the table above, each once")
        if len(words) != len(types):
            lines.fail(f"{len(types)} counts, one per type")
        numbers = [lines.number_of(word, "page blocks") for word in words]
        info.blocks[key] = dict(zip(types, numbers, strict=True))
        lines.advance()
    if keys - set(info.blocks):
        nid, name = min(keys - set(info.blocks))
        lines.fail(f"the page blocks of zone {name} of node {nid}")
    if _MIXED_HEADER.fullmatch(lines.line or ""):
        lines.advance()
        while _BLOCKS_ROW.fullmatch(lines.line or ""):
            lines.advance()


def write_pagetypeinfo(zones: Iterable[ZoneListsLike]) -> str:
    """The text of /proc/pagetypeinfo for a machine's zones, node by node (populated ones are shown)."""
    return "".join(
        _node_text(list(group))
        for _, group in groupby((zone for zone in zones if zone.present), key=lambda zone: zone.node)
    )


def _node_text(zones: Sequence[ZoneListsLike]) -> str:
    orders = range(NR_PAGE_ORDERS)
    out = [
        f"Page block order: {PAGEBLOCK_ORDER}\nPages per block:  {1 << PAGEBLOCK_ORDER}\n\n",
        f"{'Free pages count per migrate type at order':<43} ",
        *(f"{order:>6} " for order in orders),
        "\n",
    ]
    for zone in zones:
        for mt, name in enumerate(MIGRATETYPE_NAMES):
            out.append(f"Node {zone.node:>4}, zone {zone.name:>8}, type {name:>12} ")
            out += (_count(zone.free_counts(order, mt)) for order in orders)
            out.append("\n")
    out += [f"\n{'Number of blocks type':<23}", *(f"{name:>12} " for name in MIGRATETYPE_NAMES), "\n"]
    for zone in zones:
        out.append(f"Node {zone.node}, zone {zone.name:>8} ")
        out += (f"{blocks:>12} " for blocks in zone.pageblock_counts())
        out.append("\n")
    return "".join(out)


def _count(blocks: int) -> str:
    return f">{COUNT_LIMIT:>6} " if blocks >= COUNT_LIMIT else f"{blocks:>6} "
