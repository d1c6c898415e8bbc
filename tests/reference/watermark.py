"""Watermarks and reserves: when they are computed, their arithmetic, and the tests against them.

Models: calculate_min_free_kbytes, set_recommended_min_free_kbytes, __setup_per_zone_wmarks,
setup_per_zone_lowmem_reserve, calculate_totalreserve_pages, __zone_watermark_ok, zone_watermark_fast, the
sysctl handlers (mm/page_alloc.c, mm/khugepaged.c, v6.12). Simplifies: no hotplug. Omits: the node_reclaim
ratios.
"""

from math import isqrt

from . import pcp_sizes, stat
from .constants import (
    ALLOC_HIGHATOMIC,
    ALLOC_MIN_RESERVE,
    ALLOC_NON_BLOCK,
    ALLOC_OOM,
    ALLOC_RESERVES,
    ALLOC_WMARK_MASK,
    EINVAL,
    HIGH,
    HIGHATOMIC,
    MIN,
    NR_PAGE_ORDERS,
    PAGEBLOCK_PAGES,
    PCP_TYPES,
)

SMALL_RAM_PAGES = 131072  # machines below 512 MiB do without transparent huge pages


# tests


def zone_watermark_ok(zone, order: int, mark: int, hidx: int, alloc_flags: int, free=None) -> bool:
    """Whether a request leaves the zone above `mark` (boost included) and has a block to take.

    free: free pages to reckon with, by default what the global counter says.
    """
    free = stat.free_pages_seen(zone) if free is None else free
    free -= (1 << order) - 1
    if not alloc_flags & ALLOC_RESERVES:
        free -= zone.nr_free_highatomic
    if alloc_flags & ALLOC_MIN_RESERVE:
        mark -= mark // 2
        if alloc_flags & ALLOC_NON_BLOCK:
            mark -= mark // 4
    if alloc_flags & ALLOC_OOM:
        mark -= mark // 2
    if free <= mark + zone.lowmem_reserve[hidx]:
        return False
    if order == 0:
        return True
    types = list(range(PCP_TYPES))
    if alloc_flags & (ALLOC_HIGHATOMIC | ALLOC_OOM):
        types.append(HIGHATOMIC)
    return any(zone.free[o][mt] for o in range(order, NR_PAGE_ORDERS) for mt in types)


def zone_watermark_fast(zone, order: int, mark: int, hidx: int, alloc_flags: int) -> bool:
    """The walk's test: order 0 has a short cut, and MIN_RESERVE a second chance below the boost."""
    free = stat.free_pages_seen(zone)
    if order == 0:
        held = 0 if alloc_flags & ALLOC_RESERVES else zone.nr_free_highatomic
        if free - min(free, held) > mark + zone.lowmem_reserve[hidx]:
            return True
    if zone_watermark_ok(zone, order, mark, hidx, alloc_flags):
        return True
    at_min = alloc_flags & ALLOC_WMARK_MASK == MIN
    if order == 0 and alloc_flags & ALLOC_MIN_RESERVE and zone.boost and at_min:
        return zone_watermark_ok(zone, order, zone.wmark[MIN], hidx, alloc_flags)
    return False


def zone_balanced(zone, order: int, hidx: int) -> bool:
    """kswapd's own test of a zone at the high watermark; exact below the drift mark."""
    free = stat.free_pages_seen(zone)
    if zone.drift_mark and free < zone.drift_mark:
        free = stat.free_pages_exact(zone)
    return zone_watermark_ok(zone, order, zone.wmark[HIGH] + zone.boost, hidx, 0, free)


# setup


def free_buffer_pages(machine) -> int:
    """Pages above the high watermarks in the zones that kernel allocations can use."""
    usable = [z for z in machine.populated_zones() if z.zid <= machine.zid("Normal")]
    return sum(max(0, z.managed - z.wmark[HIGH] - z.boost) for z in usable)


def calculate_min_free_kbytes(machine) -> None:
    """The default: the square root of 16 times the low memory in KiB, unless the user asked for more."""
    kib = isqrt(free_buffer_pages(machine) * 4 * 16)
    if kib > machine.user_min_free_kbytes:
        machine.sysctl["vm.min_free_kbytes"] = min(max(kib, 128), 262144)


def set_recommended_min_free_kbytes(machine) -> None:
    """What transparent huge pages want kept free; the default again where they are off."""
    if machine.thp == "never":
        calculate_min_free_kbytes(machine)
    else:
        zones = sum(1 for z in machine.populated_zones() if z.zid <= machine.zid("Normal"))
        pages = PAGEBLOCK_PAGES * zones * (2 + PCP_TYPES * PCP_TYPES)
        pages = min(pages, free_buffer_pages(machine) // 20)
        machine.sysctl["vm.min_free_kbytes"] = max(machine.sysctl["vm.min_free_kbytes"], pages * 4)
    setup_per_zone_wmarks(machine)


def counts_as_movable(machine, zone) -> bool:
    """Zones that kernel allocations cannot use: a small min, and no part of min_free_kbytes."""
    if zone.name == "Movable" and machine.kernel == "6.1":
        return any(z.name == "HighMem" for z in machine.populated_zones())
    return zone.name in ("HighMem", "Movable")


def setup_per_zone_wmarks(machine) -> None:
    """All watermarks; boosts end; totalreserve and the sizes of the per-CPU lists follow."""
    pages_min = machine.sysctl["vm.min_free_kbytes"] // 4
    scale = machine.sysctl["vm.watermark_scale_factor"]
    lowmem = sum(z.managed for z in machine.zones if not counts_as_movable(machine, z))
    for zone in machine.zones:
        managed = zone.managed
        share = pages_min * managed // lowmem if lowmem else 0
        least = min(max(managed // 1024, 32), 128) if counts_as_movable(machine, zone) else share
        distance = max(share // 4, managed // 10000 * scale + managed % 10000 * scale // 10000)
        zone.boost = 0
        zone.wmark = [least + k * distance for k in range(4)]
    calculate_totalreserve(machine)
    for zone in machine.populated_zones():
        pcp_sizes.update_sizes(zone)


def setup_lowmem_reserve(machine) -> None:
    """Protection of each zone against requests that could have been served higher up in the same node."""
    for zone in machine.zones:
        ratio = machine.sysctl["vm.lowmem_reserve_ratio"][zone.zid]
        above = 0
        for j in range(machine.nr_zone_types):
            if j > zone.zid:
                above += machine.zone(zone.node, j).managed
            protected = j > zone.zid and ratio > 0 and zone.managed > 0
            zone.lowmem_reserve[j] = above // ratio if protected else 0
    calculate_totalreserve(machine)


def calculate_totalreserve(machine) -> None:
    """Pages that users cannot have: the high watermark and the largest protection of each zone."""
    machine.totalreserve_pages = sum(min(z.managed, max(z.lowmem_reserve[z.zid :]) + z.wmark[HIGH] + z.boost) for z in machine.zones)


def boot_watermarks(machine, thp: str) -> None:
    """The two moments of boot: without any marks yet, then when huge pages start (not on small machines)."""
    calculate_min_free_kbytes(machine)
    setup_per_zone_wmarks(machine)
    for zone in machine.populated_zones():
        stat.refresh_thresholds(zone, machine.nr_cpus)
    setup_lowmem_reserve(machine)
    if sum(z.managed for z in machine.zones) < SMALL_RAM_PAGES:
        machine.thp = "never"
    else:
        machine.thp = thp
        set_recommended_min_free_kbytes(machine)


# sysctls


def sysctl_write(machine, name: str, value) -> int:
    """Set a sysctl and recompute what the kernel recomputes: 0, or -EINVAL with nothing changed."""
    return WRITERS[name](machine, value) if name in WRITERS else EINVAL


def write_min_free_kbytes(machine, value: int) -> int:
    if not 0 <= value < 2**31:
        return EINVAL
    machine.sysctl["vm.min_free_kbytes"] = machine.user_min_free_kbytes = value
    setup_per_zone_wmarks(machine)
    return 0


def write_watermark_scale_factor(machine, value: int) -> int:
    if not 1 <= value <= 3000:
        return EINVAL
    machine.sysctl["vm.watermark_scale_factor"] = value
    setup_per_zone_wmarks(machine)
    return 0


def write_watermark_boost_factor(machine, value: int) -> int:
    if not 0 <= value < 2**31:
        return EINVAL
    machine.sysctl["vm.watermark_boost_factor"] = value
    return 0


def write_lowmem_reserve_ratio(machine, value) -> int:
    if not 1 <= len(value) <= machine.nr_zone_types:
        return EINVAL
    rest = machine.sysctl["vm.lowmem_reserve_ratio"][len(value) :]
    machine.sysctl["vm.lowmem_reserve_ratio"] = (*(max(v, 0) for v in value), *rest)
    setup_lowmem_reserve(machine)
    return 0


def write_percpu_pagelist_high_fraction(machine, value: int) -> int:
    if value != 0 and not 8 <= value < 2**31:
        return EINVAL
    machine.sysctl["vm.percpu_pagelist_high_fraction"] = value
    for zone in machine.populated_zones():
        pcp_sizes.update_sizes(zone)
    return 0


def write_thp_enabled(machine, value: str) -> int:
    if value not in ("always", "madvise", "never"):
        return EINVAL
    machine.thp = value
    set_recommended_min_free_kbytes(machine)
    return 0


WRITERS = {
    "vm.min_free_kbytes": write_min_free_kbytes,
    "vm.watermark_scale_factor": write_watermark_scale_factor,
    "vm.watermark_boost_factor": write_watermark_boost_factor,
    "vm.lowmem_reserve_ratio": write_lowmem_reserve_ratio,
    "vm.percpu_pagelist_high_fraction": write_percpu_pagelist_high_fraction,
    "kernel.mm.transparent_hugepage.enabled": write_thp_enabled,
}
