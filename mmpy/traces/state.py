"""Text of an allocator snapshot (`stateK.NAME.txt` of a recording) -> AllocState, the plain dict that machines, twins and recordings share.

    {"zones": {(node, zid): {"name", "start_pfn", "spanned", "present", "managed", "wmark": (min, low, high, promo), "boost",
                             "nr_reserved_highatomic", "nr_free_highatomic", "lowmem_reserve": tuple, "nr_free_pages", "flags",
                             "free": {(order, migratetype): [pfn, ...]}, "nr_free": tuple of 11,
                             "pcp": {cpu: {"count", "high", "high_min", "high_max", "batch", "flags", "alloc_factor", "expire",
                                           "free_count", "diff", "lists": {index: [pfn, ...]}}}}},
     "blocks": {pageblock index: migratetype}}        and, from a recording, "skip" (block indices) and "compact" (by zone)

Lists stand head first; empty ones are absent. Watermarks are without boost. `diff`, the per-CPU differential of NR_FREE_PAGES, is not
in the text: it is what the free lists hold more than the global counter says.

Models: the free lists, per-CPU lists and page-block types as they stand in the kernel's memory (struct zone, struct per_cpu_pages).
Simplifies: with several CPUs the differential, of which only the sum can be known, is given to the first one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

from mmpy.traces.errors import TraceFormatError

AllocState = dict[str, Any]

NR_ORDERS = 11
NR_TYPES = 5
NR_PCP_LISTS = 14
BLOCK_PAGES = 512
MAX_PFN = 1 << 32
MAX_NODES = 1024
MAX_CPUS = 8192
ISOLATE = 4

_HEX_WORDS = re.compile(r"[0-9a-fA-F ]*")

_ZONE_INTS = {
    "spanned": "spanned",
    "present": "present",
    "managed": "managed",
    "boost": "boost",
    "reserved_highatomic": "nr_reserved_highatomic",
    "free_highatomic": "nr_free_highatomic",
    "nr_free_pages": "nr_free_pages",
    "flags": "flags",
}
_PCP_INTS = ("count", "high", "high_min", "high_max", "batch", "flags", "alloc_factor", "expire", "free_count")


class _Reader:
    """One pass over the lines; `fail` names where."""

    def __init__(self, source: str) -> None:
        self.source, self.line = source, 0
        self.zones: dict[tuple[int, int], dict[str, Any]] = {}
        self.nr_free: dict[tuple[int, int], dict[int, int]] = {}
        self.blocks: dict[int, int] = {}
        self.skip: list[int] = []
        self.compact: dict[tuple[int, int], dict[str, Any]] = {}

    def fail(self, problem: str) -> NoReturn:
        raise TraceFormatError(f"{self.source}: line {self.line}: {problem}")

    def number(self, text: str, base: int = 10, limit: int = 1 << 62, what: str = "number") -> int:
        # int() alone would also take "+1", "1_0" and white space.
        digits = text[1:] if base == 10 and text[:1] == "-" else text
        if not digits.isalnum() or not digits.isascii() or len(digits) > 20:
            self.fail(f"{what} {text[:40]!r} is no number")
        try:
            value = int(text, base)
        except ValueError:
            self.fail(f"{what} {text[:40]!r} is no number")
        if not -limit < value < limit:
            self.fail(f"{what} {text[:40]} is out of range")
        return value

    def index(self, text: str, limit: int, what: str) -> int:
        value = self.number(text, 10, what=what)
        if not 0 <= value < limit:
            self.fail(f"{what} {value} is not within 0..{limit - 1}")
        return value

    def pairs(self, words: Iterable[str]) -> dict[str, str]:
        out = {}
        for word in words:
            key, equals, value = word.partition("=")
            if not equals:
                self.fail(f"{word[:40]!r} is not key=value")
            out[key] = value
        return out

    def need(self, kv: dict[str, str], key: str) -> str:
        if key not in kv:
            self.fail(f"{key}= is missing")
        return kv[key]

    def numbers(self, text: str, what: str) -> tuple[int, ...]:
        return tuple(self.number(part, what=what) for part in text.split(","))

    def zone_of(self, node: str, zid: str) -> tuple[tuple[int, int], dict[str, Any]]:
        key = self.index(node, MAX_NODES, "node"), self.index(zid, NR_TYPES, "zone")
        zone = self.zones.get(key)
        if zone is None:
            self.fail(f"node {node} zone {zid} has no zone line before")
        return key, zone

    def pfns(self, zone: dict[str, Any], text: str, order: int) -> list[int]:
        start, end = zone["start_pfn"], zone["start_pfn"] + zone["spanned"]
        if _HEX_WORDS.fullmatch(text) is None:
            self.fail("the list holds something that is no hexadecimal pfn")
        out = [int(word, 16) for word in text.split()]
        if out and (min(out) < start or max(out) > end - (1 << order)):
            pfn = next(p for p in out if not start <= p <= end - (1 << order))
            self.fail(f"pfn {pfn:x} (order {order}) is outside of zone {zone['name']} [{start:#x}, {end:#x})")
        if order and any(pfn & ((1 << order) - 1) for pfn in out):
            pfn = next(p for p in out if p & ((1 << order) - 1))
            self.fail(f"pfn {pfn:x} is not aligned to order {order}")
        return out

    # one method a kind of line

    def zone(self, words: list[str], rest: str) -> None:
        if len(words) < 4:
            self.fail("a zone line needs node, zone and name")
        key = self.index(words[1], MAX_NODES, "node"), self.index(words[2], NR_TYPES, "zone")
        if key in self.zones:
            self.fail(f"node {key[0]} zone {key[1]} comes twice")
        kv = self.pairs(words[4:])
        zone: dict[str, Any] = {"name": words[3], "start_pfn": self.number(self.need(kv, "start_pfn"), 16, MAX_PFN, "start_pfn")}
        for name, ours in _ZONE_INTS.items():
            zone[ours] = self.number(self.need(kv, name), what=name)
        if not 0 <= zone["managed"] <= zone["present"] <= zone["spanned"] <= MAX_PFN - zone["start_pfn"]:
            self.fail(f"managed {zone['managed']}, present {zone['present']}, spanned {zone['spanned']} do not fit each other")
        for name in ("wmark", "lowmem_reserve"):
            zone[name] = self.numbers(self.need(kv, name), name)
        if len(zone["wmark"]) not in (3, 4):
            self.fail(f"wmark has {len(zone['wmark'])} numbers, not 4")
        zone |= {"free": {}, "nr_free": (0,) * NR_ORDERS, "pcp": {}}
        self.zones[key] = zone
        self.nr_free[key] = {}
        self.compact[key] = {
            name.removeprefix("compact_"): values if len(values) > 1 else values[0]
            for name, text in kv.items()
            if name.startswith("compact_")
            for values in [self.numbers(text, name)]
        }

    def free(self, words: list[str], rest: str) -> None:
        if len(words) != 5:
            self.fail("a free line needs node, zone, order and migratetype")
        _, zone = self.zone_of(words[1], words[2])
        key = self.index(words[3], NR_ORDERS, "order"), self.index(words[4], NR_TYPES, "migratetype")
        if key in zone["free"]:
            self.fail(f"free list {key} of zone {zone['name']} comes twice")
        if found := self.pfns(zone, rest, key[0]):
            zone["free"][key] = found

    def count(self, words: list[str], rest: str) -> None:
        if len(words) != 5:
            self.fail("a nr_free line needs node, zone, order and a count")
        key, _ = self.zone_of(words[1], words[2])
        self.nr_free[key][self.index(words[3], NR_ORDERS, "order")] = self.number(words[4], what="nr_free")

    def pcp(self, words: list[str], rest: str) -> None:
        if len(words) < 4:
            self.fail("a pcp line needs node, zone and cpu=")
        _, zone = self.zone_of(words[1], words[2])
        kv = self.pairs(words[3:])
        cpu = self.index(self.need(kv, "cpu"), MAX_CPUS, "cpu")
        if cpu in zone["pcp"]:
            self.fail(f"cpu {cpu} of zone {zone['name']} comes twice")
        zone["pcp"][cpu] = {name: self.number(self.need(kv, name), what=name) for name in _PCP_INTS}
        zone["pcp"][cpu] |= {"diff": 0, "lists": {}}

    def pcplist(self, words: list[str], rest: str) -> None:
        if len(words) != 5:
            self.fail("a pcplist line needs node, zone, cpu and list index")
        _, zone = self.zone_of(words[1], words[2])
        pcp = zone["pcp"].get(self.index(words[3], MAX_CPUS, "cpu"))
        if pcp is None:
            self.fail(f"cpu {words[3]} of zone {zone['name']} has no pcp line before")
        index = self.index(words[4], NR_PCP_LISTS, "list")
        if index in pcp["lists"]:
            self.fail(f"per-CPU list {index} of zone {zone['name']} comes twice")
        if found := self.pfns(zone, rest, index // 3 if index < 12 else 9):
            pcp["lists"][index] = found

    def block_types(self, words: list[str], rest: str) -> None:
        if len(words) != 2:
            self.fail("a blocks line needs the first pfn")
        first = self.number(words[1], 16, MAX_PFN, "pfn")
        if first % BLOCK_PAGES:
            self.fail(f"pfn {words[1]} is not the start of a page block")
        for i, digit in enumerate(rest.strip()):
            value = self.number(digit, 16, 16, "block type")
            if value & 7 >= NR_TYPES:
                self.fail(f"block type {value & 7} is not within 0..{NR_TYPES - 1}")
            self.blocks[first // BLOCK_PAGES + i] = value & 7
            if value & 8:
                self.skip.append(first // BLOCK_PAGES + i)

    # what ties the lines together

    def finish(self) -> AllocState:
        if not self.zones:
            raise TraceFormatError(f"{self.source}: no zone line: this is no allocator snapshot")
        inside: set[int] = set()
        for key, zone in self.zones.items():
            counts = [sum(len(zone["free"].get((o, t), ())) for t in range(NR_TYPES)) for o in range(NR_ORDERS)]
            for order, said in self.nr_free[key].items():
                if said != counts[order]:
                    raise TraceFormatError(
                        f"{self.source}: zone {zone['name']}: nr_free says {said} blocks of order {order}, the lists hold {counts[order]}"
                    )
            zone["nr_free"] = tuple(counts)
            for cpu, pcp in zone["pcp"].items():
                held = sum(len(pfns) << (i // 3 if i < 12 else 9) for i, pfns in pcp["lists"].items())
                if held != pcp["count"]:
                    raise TraceFormatError(
                        f"{self.source}: zone {zone['name']} cpu {cpu}: count says {pcp['count']} pages, the lists hold {held}"
                    )
            if zone["pcp"]:
                free = sum(len(pfns) << o for (o, t), pfns in zone["free"].items() if t != ISOLATE)
                zone["pcp"][min(zone["pcp"])]["diff"] = free - zone["nr_free_pages"]
            if zone["spanned"]:
                first, end = zone["start_pfn"] // BLOCK_PAGES, -(-(zone["start_pfn"] + zone["spanned"]) // BLOCK_PAGES)
                inside.update(b for b in self.blocks if first <= b < end)
        return {
            "zones": self.zones,
            "blocks": {b: t for b, t in sorted(self.blocks.items()) if b in inside},
            "skip": sorted(b for b in self.skip if b in inside),
            "compact": self.compact,
        }


def parse_state(text: str, source: str = "state") -> AllocState:
    """AllocState of one snapshot text. TraceFormatError names `source`, the line and the value that is wrong."""
    reader = _Reader(source)
    kinds: dict[str, Callable[[list[str], str], None]] = {
        "zone": reader.zone,
        "free": reader.free,
        "nr_free": reader.count,
        "pcp": reader.pcp,
        "pcplist": reader.pcplist,
        "blocks": reader.block_types,
    }
    for reader.line, line in enumerate(text.splitlines(), 1):
        head, _, rest = line.partition(":")
        words = head.split()
        if not words:
            continue
        read = kinds.get(words[0])
        if read is None:
            reader.fail(f"{words[0][:40]!r} is no kind of line; there are {', '.join(kinds)}")
        read(words, rest)
    return reader.finish()
