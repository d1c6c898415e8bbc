"""Where free blocks lie, when only their numbers are known: a simple, legal, repeatable layout.

Models: the rules that every state of the buddy allocator obeys (mm/page_alloc.c): blocks are aligned to their size,
lie in memory of one zone and in pageblocks of their type, and no two buddies are free (they would have merged).
Simplifies: within these rules addresses ascend: unmovable pageblocks first, then reclaimable, highatomic and
isolated ones, movable last; largest free blocks first. Omits: where the blocks of the real machine were.

How it works: free blocks are placed from the largest order down, each into the smallest gap that takes it. A gap
is an aligned extent without free pages; one whose buddy is a free block as a whole must not become one as well, so
it takes blocks of lower orders only.
"""

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

MAX_ORDER = 10
BLOCK_ORDER = 9
BLOCK_PAGES = 1 << BLOCK_ORDER
UNMOVABLE, MOVABLE, RECLAIMABLE, HIGHATOMIC, ISOLATE = range(5)
MIGRATE_TYPES = 5
# In which order types take their pageblocks, lowest addresses first.
_FILL_ORDER = (UNMOVABLE, RECLAIMABLE, HIGHATOMIC, ISOLATE)

Span = tuple[int, int]
FreeCounts = Mapping[tuple[int, int], int]


@dataclass(slots=True)
class Layout:
    """Free blocks of one zone: free[order, type] = first page frames, ascending.

    dropped: free pages for which there was no place; retyped: pageblocks that took another type than asked for.
    """

    free: dict[tuple[int, int], list[int]] = field(default_factory=dict)
    dropped: int = 0
    retyped: int = 0


class Gaps:
    """Extents without free pages, of one migratetype, by the largest order that still fits into them.

    Pieces of order 10 wait as whole runs, so that a large zone costs no more than a small one until it is used.
    """

    def __init__(self) -> None:
        # heaps[m]: (start, order of the extent); m is the largest order that may be placed there.
        self.heaps: list[list[tuple[int, int]]] = [[] for _ in range(MAX_ORDER + 1)]
        self.runs: list[Span] = []

    def add(self, start: int, order: int, largest: int | None = None) -> None:
        largest = order if largest is None else largest
        if largest >= 0:
            heapq.heappush(self.heaps[largest], (start, order))

    def add_run(self, start: int, end: int) -> None:
        """Whole order-10 extents from start to end, above those added before."""
        self.runs.append((start, end))

    def take(self, order: int) -> int | None:
        """First page of a gap of this order, which is split off the smallest that has room; None if none has."""
        for largest in range(order, MAX_ORDER + 1):
            if self.heaps[largest]:
                start, extent = heapq.heappop(self.heaps[largest])
                break
        else:
            popped = self.pop_largest()
            if popped is None:
                return None
            start, extent = popped, MAX_ORDER
        while extent > order:
            extent -= 1
            # The upper half; if the lower one is about to be free as a whole, this one must not be.
            self.add(start + (1 << extent), extent, extent - (extent == order))
        return start

    def pop_largest(self) -> int | None:
        """Take a whole order-10 extent out of the runs."""
        if not self.runs:
            return None
        start, end = self.runs.pop(0)
        if start + (1 << MAX_ORDER) < end:
            self.runs.insert(0, (start + (1 << MAX_ORDER), end))
        return start

    def take_run(self, count: int) -> list[int]:
        """Up to `count` whole order-10 extents, ascending."""
        out: list[int] = []
        while count and self.runs:
            start, end = self.runs[0]
            got = min(count, (end - start) >> MAX_ORDER)
            stop = start + (got << MAX_ORDER)
            out.extend(range(start, stop, 1 << MAX_ORDER))
            count -= got
            self.runs[0:1] = [(stop, end)] if stop < end else []
        return out


def lay_free_blocks(
    memory: Sequence[Span],
    counts: FreeCounts,
    types: dict[int, int],
    wanted: Sequence[int] | None,
    edges: int = MOVABLE,
) -> Layout:
    """Place free blocks in one zone.

    memory: its page frames as ascending spans; counts: free blocks by (order, type); types: migratetype by pageblock
    index, of which this function sets those of the zone that are missing (all MOVABLE without `wanted`);
    wanted: pageblocks by type, as many as are known; edges: the type that takes pageblocks at the edges of the
    memory, which may be cut short.
    """
    layout = Layout()
    gaps = [Gaps() for _ in range(MIGRATE_TYPES)]
    _assign_types(memory, types, wanted, edges, gaps)
    whole: set[int] = set()
    for order in range(MAX_ORDER, -1, -1):
        for mt in (MOVABLE, *_FILL_ORDER):
            count = counts.get((order, mt), 0)
            if count:
                placed, retyped = _place(gaps, order, mt, count, types, whole)
                layout.retyped += retyped
                layout.dropped += (count - len(placed)) << order
                if placed:
                    layout.free[order, mt] = sorted(placed)
    return layout


def _place(
    gaps: list[Gaps], order: int, mt: int, count: int, types: dict[int, int], whole: set[int]
) -> tuple[list[int], int]:
    """Up to `count` blocks of one order and type, and how many pageblocks had to change their type for them."""
    placed: list[int] = gaps[mt].take_run(count) if order == MAX_ORDER else []
    retyped = 0
    refused: list[int] = []
    while len(placed) < count:
        start = gaps[mt].take(order)
        if start is None:
            changed = _borrow(gaps, order, mt, types)
            if not changed:
                break
            retyped += changed
        elif order == BLOCK_ORDER and start ^ BLOCK_PAGES in whole:
            # The other half of an order-10 extent is free already, under another type.
            refused.append(start)
        else:
            placed.append(start)
            if order == BLOCK_ORDER:
                whole.add(start)
    for start in refused:
        gaps[mt].add(start, BLOCK_ORDER, BLOCK_ORDER - 1)
    return placed, retyped


def _borrow(gaps: list[Gaps], order: int, mt: int, types: dict[int, int]) -> int:
    """Hand `mt` an extent of whole, unused pageblocks of another type; how many, 0 if there is none."""
    for donor in (MOVABLE, UNMOVABLE, RECLAIMABLE, HIGHATOMIC):
        if donor == mt:
            continue
        heaps = gaps[donor].heaps
        found: tuple[int, int] | None = None
        # A whole pageblock whose buddy is free counts too, but takes only lower orders.
        for largest in range(max(order, BLOCK_ORDER - 1), BLOCK_ORDER + 1):
            at = next((n for n, (_, extent) in enumerate(heaps[largest]) if extent == BLOCK_ORDER), None)
            if at is not None:
                start, _ = heaps[largest].pop(at)
                heapq.heapify(heaps[largest])
                gaps[mt].add(start, BLOCK_ORDER, largest)
                found = start, 1
                break
        if found is None and (pair := gaps[donor].pop_largest()) is not None:
            gaps[mt].add(pair, MAX_ORDER)
            found = pair, 2
        if found:
            start, blocks = found
            for block in range(start >> BLOCK_ORDER, (start >> BLOCK_ORDER) + blocks):
                types[block] = mt
            return blocks
    return 0


def _assign_types(
    memory: Sequence[Span],
    types: dict[int, int],
    wanted: Sequence[int] | None,
    edges: int,
    gaps: list[Gaps],
) -> None:
    """Give each pageblock of the zone its type, and its pages to that type's gaps."""
    pairs, singles = _pieces(memory, types)
    budget = [0] * MIGRATE_TYPES if wanted is None else list(wanted)
    for block in _blocks_of(memory):
        # A pageblock that reaches into the zone below has its type from there.
        if block in types:
            budget[types[block]] -= 1
    if edges != MOVABLE:
        count = max(0, min(budget[edges], len(singles)))
        types.update(dict.fromkeys(singles[:count], edges))
        budget[edges] -= count
        del singles[:count]
    at = 0  # pairs[at:] have no type yet
    for mt in _FILL_ORDER:
        in_pairs = min(max(0, budget[mt]) // 2, len(pairs) - at)
        for pair in pairs[at : at + in_pairs]:
            types[pair] = types[pair + 1] = mt
        _add_pairs(gaps[mt], pairs[at : at + in_pairs])
        at += in_pairs
        budget[mt] -= 2 * in_pairs
    for mt in _FILL_ORDER:
        # Odd pageblocks come from where no pair can be; else types share a pair.
        while budget[mt] > 0 and (singles or at < len(pairs)):
            if not singles:
                singles = [pairs[at], pairs[at] + 1]
                at += 1
            types[singles.pop(0)] = mt
            budget[mt] -= 1
    for pair in pairs[at:]:
        types[pair] = types[pair + 1] = MOVABLE
    _add_pairs(gaps[MOVABLE], pairs[at:])
    for block in singles:
        types[block] = MOVABLE
    in_runs = {block for block in pairs if types[block] == types[block + 1]}
    _add_fragments(memory, types, gaps, in_runs)


def _blocks_of(memory: Sequence[Span]) -> Iterable[int]:
    """Pageblocks that hold memory of the zone, ascending."""
    last = -1
    for start, end in memory:
        first = max(start >> BLOCK_ORDER, last + 1)
        last = max(last, (end - 1) >> BLOCK_ORDER)
        yield from range(first, last + 1)


def _pieces(memory: Sequence[Span], types: Mapping[int, int]) -> tuple[list[int], list[int]]:
    """Pageblocks without a type: first halves of whole order-10 extents, and the rest one by one."""
    pairs: list[int] = []
    for start, end in memory:
        first, last = -(-start >> MAX_ORDER), end >> MAX_ORDER
        for extent in range(first, last):
            block = extent * 2
            if block not in types and block + 1 not in types:
                pairs.append(block)
    paired = set(pairs)
    singles = [block for block in _blocks_of(memory) if block & ~1 not in paired and block not in types]
    return pairs, singles


def _add_pairs(gaps: Gaps, pairs: Sequence[int]) -> None:
    start = end = -1
    for block in pairs:
        if block << BLOCK_ORDER != end:
            if end > start:
                gaps.add_run(start, end)
            start = block << BLOCK_ORDER
        end = (block + 2) << BLOCK_ORDER
    if end > start:
        gaps.add_run(start, end)


def _add_fragments(
    memory: Sequence[Span], types: Mapping[int, int], gaps: list[Gaps], in_runs: set[int]
) -> None:
    """Pages outside the runs, as the largest aligned pieces within their pageblock."""
    for start, end in memory:
        pfn = start
        while pfn < end:
            block = pfn >> BLOCK_ORDER
            if block & ~1 in in_runs:
                pfn = (block | 1) + 1 << BLOCK_ORDER
                continue
            order = min(BLOCK_ORDER, (pfn & -pfn).bit_length() - 1 if pfn else BLOCK_ORDER)
            while pfn + (1 << order) > end:
                order -= 1
            gaps[types[block]].add(pfn, order)
            pfn += 1 << order


def top_blocks(memory: Sequence[Span], pages: int) -> dict[int, list[int]]:
    """The last `pages` pages of the memory as free blocks by order: what is free on a machine that has just booted.

    Blocks are the largest aligned ones, so none of them is another's buddy (but for the largest order).
    """
    out: dict[int, list[int]] = {}
    for start, end in reversed(memory):
        first = max(start, end - pages)
        pages -= end - first
        pfn = first
        while pfn < end:
            order = min(MAX_ORDER, (pfn & -pfn).bit_length() - 1 if pfn else MAX_ORDER)
            while pfn + (1 << order) > end:
                order -= 1
            out.setdefault(order, []).append(pfn)
            pfn += 1 << order
    return {order: sorted(pfns) for order, pfns in out.items()}


def used_pages(memory: Sequence[Span], free: Mapping[tuple[int, int], Sequence[int]]) -> Iterable[Span]:
    """Spans of pages on no free list, ascending."""
    blocks = sorted((pfn, pfn + (1 << order)) for (order, _), pfns in free.items() for pfn in pfns)
    at = 0
    for start, end in memory:
        while at < len(blocks) and blocks[at][0] < end:
            if start < blocks[at][0]:
                yield start, blocks[at][0]
            start = blocks[at][1]
            at += 1
        if start < end:
            yield start, end
