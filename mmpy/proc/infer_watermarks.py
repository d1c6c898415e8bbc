"""Which sysctls give the watermarks and protections that a dump shows, and how many pages they were computed from.

Models, backwards: __setup_per_zone_wmarks(), setup_per_zone_lowmem_reserve(), calculate_min_free_kbytes(),
set_recommended_min_free_kbytes() (mm/page_alloc.c, mm/khugepaged.c, v6.12). Simplifies: pages freed late in the
boot are looked for in one zone, or in two if the protections show two. Omits: vendor changes to the formulas;
then nothing fits, and that is said.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import isqrt

PAGE_KIB = 4
DEFAULT_SCALE_FACTOR = 10
MAX_SCALE_FACTOR = 3000
PAGEBLOCK_PAGES = 512
# Pages for each populated zone that huge pages ask for: two pageblocks, and one for each pair of the three mobile types.
THP_PAGES_PER_ZONE = 5632
# vm.lowmem_reserve_ratio by zone type
DEFAULT_RATIOS = {"x86_64": (256, 256, 32, 0, 0), "i386": (256, 32, 0, 0)}

# How far a solution is from the plainest one.
PLAIN, ONE_ZONE, TWO_ZONES, GUESS = range(4)
MAX_TRIALS = 1024

Range = tuple[int, int]


@dataclass(slots=True)
class WmarkZone:
    """What the fit needs of one zone: pages, and watermarks without boost. `kernel`: usable by the kernel itself."""

    node: int
    zid: int
    name: str
    managed: int
    populated: bool
    min: int
    low: int
    high: int
    lowmem_reserve: tuple[int, ...]

    @property
    def kernel(self) -> bool:
        return self.name not in ("HighMem", "Movable")

    @property
    def distance(self) -> int:
        """From min to low."""
        return self.low - self.min


@dataclass(slots=True)
class WmarkFit:
    """How the watermarks came about.

    exact: all printed numbers follow from min_free_kbytes, watermark_scale_factor and `late`; otherwise the two
    are estimates. late: zone index -> (fewest, most) pages that its managed count has gained since.
    origin: "thp", "thp limit", "default" or "written".
    """

    min_free_kbytes: int
    watermark_scale_factor: int
    exact: bool
    origin: str
    late: dict[int, Range] = field(default_factory=dict)


def boost_without_line(minimum: int, distance: int) -> int:
    """Boost that hides in a printed min, for kernels 5.0 to 5.13 that do not print it; 0 if none shows.

    Without boost min is 4 to 4.75 times the distance or less; a boost grows by whole pageblocks.
    """
    excess = minimum - 4 * distance
    if distance <= 0 or excess < PAGEBLOCK_PAGES:
        return 0
    return excess - excess % PAGEBLOCK_PAGES if excess % PAGEBLOCK_PAGES <= 3 else 0


def fit_watermarks(zones: Sequence[WmarkZone], late_bounds: Sequence[Range]) -> WmarkFit:
    """The most plausible sysctls behind the watermarks of `zones`.

    late_bounds: for each zone, how many of its managed pages are younger than the protections, so perhaps than
    the watermarks too: (fewest, most).
    """
    kernel = [i for i, z in enumerate(zones) if z.kernel and z.managed]
    total = sum(zones[i].min for i in kernel)
    best: tuple[tuple[int, ...], WmarkFit] | None = None
    for pages in range(total, total + max(len(kernel), 1)):
        for certainty, late in _late_pages(zones, kernel, pages, late_bounds):
            found = _explain(zones, pages, late, late_bounds, certainty)
            if found and (best is None or found[0] < best[0]):
                best = found
    if best:
        return best[1]
    factor, _ = _scale_factor(zones, [(z.managed, z.managed) for z in zones], total)
    return WmarkFit(PAGE_KIB * (total + len(kernel) // 2), factor, False, "written")


def _explain(
    zones: Sequence[WmarkZone], pages: int, late: dict[int, Range], bounds: Sequence[Range], certainty: int
) -> tuple[tuple[int, ...], WmarkFit] | None:
    """The fit for min_free_kbytes of `pages` pages, with a rank: lower is likelier."""
    spans, at_boot = [], []
    for i, zone in enumerate(zones):
        fewest, most = late.get(i, (0, bounds[i][1]) if late and not zone.kernel else (0, 0))
        spans.append((zone.managed - most, zone.managed - fewest))
        # The size of min_free_kbytes itself was chosen at boot, whenever the watermarks were set.
        fewest, most = late.get(i, bounds[i] if bounds[i][1] - bounds[i][0] <= MAX_TRIALS else (0, 0))
        at_boot.append((zone.managed - most, zone.managed - fewest))
    factor, exact = _scale_factor(zones, spans, pages)
    kib, origin, distance = _origin(zones, at_boot, pages)
    if certainty == GUESS and (origin == "written" or not exact):
        return None
    # Someone who writes a number writes a round one.
    roundness = 0 if origin != "written" else -(pages & -pages if pages else 1 << 40)
    rank = (not exact, origin == "written", certainty, distance, roundness, pages)
    return rank, WmarkFit(kib, factor, exact, origin, late)


def _late_pages(
    zones: Sequence[WmarkZone], kernel: Sequence[int], pages: int, bounds: Sequence[Range]
) -> Iterator[tuple[int, dict[int, Range]]]:
    """Late pages by zone under which the printed mins follow from `pages`, from the plainest case on."""
    lowmem = _lowmem(zones)
    if all(pages * zones[i].managed // lowmem == zones[i].min for i in kernel):
        yield PLAIN, {}
    grown = [i for i in kernel if bounds[i][0] > 0]
    by_size = sorted(kernel, key=lambda i: -zones[i].managed)
    for i in by_size:
        low, high = bounds[i]
        if set(grown) <= {i} and (found := _late_range(zones, kernel, pages, i, max(low, 1), high)):
            yield ONE_ZONE, {i: found}
    # No protection depends on the lowest zone of a node: it may have grown, too.
    free = [i for i in by_size if i not in grown and bounds[i][1] - bounds[i][0] > MAX_TRIALS]
    pairs = [tuple(grown)] if len(grown) == 2 else [(grown[0], i) for i in free] if len(grown) == 1 else []
    for first, second in pairs:
        if pair := _late_pair(zones, kernel, pages, (first, second), bounds):
            yield TWO_ZONES, pair
    # Already reading vm.lowmem_reserve_ratio makes the kernel compute the protections anew: their bounds may be too young.
    for i in by_size:
        if found := _late_range(zones, kernel, pages, i, 1, zones[i].managed // 8):
            yield GUESS, {i: found}


def _late_pair(
    zones: Sequence[WmarkZone], kernel: Sequence[int], pages: int, pair: tuple[int, int], bounds: Sequence[Range]
) -> dict[int, Range] | None:
    """As _late_range, for late pages in two zones, each within its bounds; all solutions, as one range a zone."""
    first, second = pair
    low, high = bounds[first]
    solutions: list[tuple[int, Range]] = []
    for late in range(low, min(high, low + MAX_TRIALS) + 1):
        shrunk = list(zones)
        shrunk[first] = replace(zones[first], managed=zones[first].managed - late)
        if found := _late_range(shrunk, kernel, pages, second, *bounds[second]):
            solutions.append((late, found))
    if not solutions:
        return None
    return {
        first: (solutions[0][0], solutions[-1][0]),
        second: (min(found[0] for _, found in solutions), max(found[1] for _, found in solutions)),
    }


def _lowmem(zones: Sequence[WmarkZone]) -> int:
    return max(1, sum(z.managed for z in zones if z.kernel))


def _late_range(
    zones: Sequence[WmarkZone], kernel: Sequence[int], pages: int, late_zone: int, low: int, high: int
) -> Range | None:
    """Numbers of late pages in one zone, from low to high, under which every zone's min follows from `pages`."""
    lowmem = _lowmem(zones)
    found: Range | None = (low, min(high, zones[late_zone].managed - 1))
    for i in kernel:
        own = zones[i].managed
        if i == late_zone:
            # Its share falls as late pages grow in number, that of the others rises.
            found = _narrow(found, partial(_share, pages, own, lowmem, 1), zones[i].min, -1)
        else:
            found = _narrow(found, partial(_share, pages, own, lowmem, 0), zones[i].min, 1)
        if found is None:
            return None
    return found


def _share(pages: int, managed: int, lowmem: int, own: int, late: int) -> int:
    """A zone's part of min_free_kbytes (as pages) when `late` pages were missing, from itself if `own` is 1."""
    return pages * (managed - own * late) // (lowmem - late)


def _narrow(within: Range | None, share: Callable[[int], int], target: int, sign: int) -> Range | None:
    """The part of the range for which share is `target`; share rises (sign 1) or falls (sign -1) all along."""
    if within is None or within[0] > within[1]:
        return None
    numbers = range(within[0], within[1] + 1)
    first = bisect_left(numbers, sign * target, key=lambda late: sign * share(late))
    last = bisect_right(numbers, sign * target, key=lambda late: sign * share(late))
    return (numbers[first], numbers[last - 1]) if first < last else None


def _scale_factor(zones: Sequence[WmarkZone], managed: Sequence[Range], pages: int) -> tuple[int, bool]:
    """watermark_scale_factor, and whether all distances between the marks follow from it.

    managed: (fewest, most) pages of each zone at that time. The distance is the larger of a quarter of the zone's
    share and managed * factor / 10000. Before 4.6 there was no factor, and high was min and half the share.
    """
    lowmem = [max(1, sum(m[side] for z, m in zip(zones, managed, strict=True) if z.kernel)) for side in (0, 1)]
    low, high = 1, MAX_SCALE_FACTOR
    exact = True
    for zone, (fewest, most) in zip(zones, managed, strict=True):
        if not most:
            continue
        if zone.kernel:
            quarter = (zone.min // 4, zone.min // 4)
        else:
            quarter = (pages * fewest // lowmem[1] // 4, pages * most // lowmem[0] // 4)
        distance = zone.distance
        by_quarter = quarter[0] <= distance <= quarter[1]
        exact &= distance >= quarter[0] and abs(zone.high - zone.low - distance) <= by_quarter
        # managed * factor // 10000 <= distance
        high = min(high, -(-(distance + 1) * 10000 // max(fewest, 1)) - 1)
        if distance > quarter[1]:
            low = max(low, -(-distance * 10000 // most))
    if low > high:
        return min(max(DEFAULT_SCALE_FACTOR, low), MAX_SCALE_FACTOR), False
    if low <= DEFAULT_SCALE_FACTOR <= high:
        return DEFAULT_SCALE_FACTOR, exact
    for step in (1000, 500, 100, 50, 10, 5):
        rounded = -(-low // step) * step
        if rounded <= high:
            return rounded, exact
    return low, exact


def _origin(zones: Sequence[WmarkZone], managed: Sequence[Range], pages: int) -> tuple[int, str, int]:
    """(min_free_kbytes, where it comes from, how far that rule is off), given its pages and what zones managed at boot."""
    kernel = [(z, m) for z, m in zip(zones, managed, strict=True) if z.kernel and z.populated]
    thp = THP_PAGES_PER_ZONE * len(kernel)
    if pages == thp:
        return pages * PAGE_KIB, "thp", 0
    limits: list[int] = []
    sizes: list[int] = []
    for side in (0, 1):
        buffer = sum(m[side] for _, m in kernel)
        first = _default_kib(buffer)
        # Both later computations find the marks of the first one in force.
        left = sum(max(0, m[side] - _high_mark(m[side], first // PAGE_KIB, max(1, buffer))) for _, m in kernel)
        limits.append(left // 20)
        sizes += [first, _default_kib(left)]
    if pages < thp and limits[0] - 1 <= pages <= limits[1] + 1:
        return pages * PAGE_KIB, "thp limit", abs(2 * pages - sum(limits))
    for least, most in (sizes[0::2], sizes[1::2]):
        fitting = [kib for kib in range(least, most + 1) if kib // PAGE_KIB == pages]
        if fitting:
            return fitting[len(fitting) // 2], "default", 0
    return pages * PAGE_KIB, "written", 0


def _default_kib(buffer_pages: int) -> int:
    return min(max(isqrt(buffer_pages * PAGE_KIB * 16), 128), 262144)


def _high_mark(managed: int, pages: int, lowmem: int) -> int:
    share = pages * managed // lowmem
    return share + 2 * max(share // 4, managed * DEFAULT_SCALE_FACTOR // 10000)


def protected_ranges(zones: Sequence[WmarkZone], ratios: Sequence[int]) -> list[Range]:
    """(fewest, most) managed pages of each zone when the protections were computed, as far as their rows tell.

    reserve_i[j] is the number of pages of zones i+1 to j on the same node, divided by ratio_i.
    """
    out = [(0, 1 << 62)] * len(zones)
    by_key = {(z.node, z.zid): i for i, z in enumerate(zones)}
    for zone in zones:
        ratio = ratios[zone.zid]
        if not zone.managed or not ratio:
            continue
        below: Range = (0, 0)
        for j in range(zone.zid + 1, len(ratios)):
            index = by_key.get((zone.node, j))
            if index is None or not zones[index].managed:
                continue
            here = zone.lowmem_reserve[j] * ratio
            sums = (here, here + ratio - 1)
            low, high = out[index]
            out[index] = max(low, sums[0] - below[1]), min(high, sums[1] - below[0])
            below = sums
    return out


def fit_ratios(zones: Sequence[WmarkZone], names: Sequence[str], defaults: Sequence[int]) -> list[int | None]:
    """vm.lowmem_reserve_ratio by zone type; None where no protection tells (the default holds then)."""
    return [_fit_ratio(zones, zid, defaults[zid]) for zid in range(len(names))]


def _fit_ratio(zones: Sequence[WmarkZone], zid: int, default: int) -> int | None:
    pairs: list[tuple[int, int]] = []
    for zone in zones:
        if zone.zid == zid and zone.managed:
            above = 0
            for j in range(zid + 1, len(zone.lowmem_reserve)):
                above += sum(z.managed for z in zones if z.node == zone.node and z.zid == j)
                if above:
                    pairs.append((above, zone.lowmem_reserve[j]))
    if not pairs:
        return None

    # Protections are often older than the last managed pages: allow for an eighth.
    def fits(ratio: int, slack: bool) -> bool:
        return all(
            (pages - max(pages // 8, 4096) * slack) // ratio <= reserve <= pages // ratio
            for pages, reserve in pairs
        )

    if default and fits(default, True):
        return default
    if not any(reserve for _, reserve in pairs):
        return 0
    for slack in (False, True):
        low = max(max(1, (p - max(p // 8, 4096) * slack) // (r + 1)) for p, r in pairs)
        high = min(p // r for p, r in pairs if r)
        fitting = [ratio for ratio in _round_numbers(low, high) if fits(ratio, slack)]
        if fitting:
            return fitting[0]
    return None


def _round_numbers(low: int, high: int) -> Iterator[int]:
    """Numbers from low to high: powers of two first, then the others, not more than a few thousand."""
    yield from (1 << n for n in range(63) if low <= 1 << n <= high)
    yield from range(max(1, low), min(high, low + 4096) + 1)
