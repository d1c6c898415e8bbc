"""/proc/buddyinfo: reading and writing.

Models: frag_show_print() (mm/vmstat.c). Simplifies, omits: nothing.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from mmpy.proc.lines import MAX_NODE, Lines
from mmpy.proc.protocol import ZoneListsLike

_ROW = re.compile(r"Node\s+(\d+),\s*zone\s+(\S+)\s+(.*)")


@dataclass(frozen=True, slots=True)
class BuddyRow:
    """Free blocks of one zone: ``nr_free[order]``, 11 orders unless the kernel was built otherwise."""

    node: int
    name: str
    nr_free: tuple[int, ...]


def parse_buddyinfo(text: str) -> list[BuddyRow]:
    """Read a /proc/buddyinfo: one row per populated zone, in the order of the text.

    Raises ProcFormatError for malformed text, rows of unequal length and zones that appear twice.
    """
    lines = Lines("buddyinfo", text)
    rows: list[BuddyRow] = []
    seen: set[tuple[int, str]] = set()
    first = lines.number
    while lines.line is not None or not rows:
        match = _ROW.fullmatch(lines.line or "")
        if match is None:
            lines.fail("'Node N, zone NAME' and free blocks by order")
        node, name = lines.number_of(match[1], "the node", MAX_NODE), match[2]
        counts = tuple(lines.number_of(word, "free blocks") for word in match[3].split())
        if rows and len(counts) != len(rows[0].nr_free):
            lines.fail(f"{len(rows[0].nr_free)} counts as in line {first}")
        if (node, name) in seen:
            lines.fail(f"one row for zone {name} of node {node}, not two")
        seen.add((node, name))
        rows.append(BuddyRow(node, name, counts))
        lines.advance()
    return rows


def write_buddyinfo(zones: Iterable[ZoneListsLike]) -> str:
    """The text of /proc/buddyinfo for a machine's zones (populated ones are shown)."""
    return "".join(
        f"Node {zone.node}, zone {zone.name:>8} " + "".join(f"{n:>6} " for n in zone.nr_free) + "\n"
        for zone in zones
        if zone.present
    )
