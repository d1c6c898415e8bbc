"""Watermarks, protections, totalreserve, stat thresholds, and the sysctls that recompute them.

Models: calculate_min_free_kbytes, set_recommended_min_free_kbytes, __setup_per_zone_wmarks, setup_per_zone_lowmem_reserve,
calculate_totalreserve_pages, refresh_zone_stat_thresholds and the sysctl handlers (mm/page_alloc.c, mm/khugepaged.c, mm/vmstat.c),
v6.12; 6.1 differs in what is noted at each place. Simplifies: no memory or CPU hotplug. Omits: min_wmark for CMA.
"""
from mmcore.base.state cimport State, state_lock, state_unlock
from mmcore.base.records cimport NO_ZID, WMARK_HIGH, WMARK_LOW, WMARK_MIN, WMARK_PROMO
from mmcore.phys.pcp_sizes cimport pcp_update_sizes


cdef int64_t isqrt(int64_t n) noexcept nogil:
    cdef int64_t r = 0, bit = <int64_t>1 << 62
    while bit > n:
        bit >>= 2
    while bit:
        if n >= r + bit:
            n -= r + bit
            r = (r >> 1) + bit
        else:
            r >>= 1
        bit >>= 2
    return r


cdef int64_t nr_free_buffer_pages(Mm* mm) noexcept nogil:
    # Pages above the high watermark in zones up to Normal, over the local fallback list.
    cdef int64_t total = 0, rest
    cdef unsigned short* zl = mm.zonelists
    cdef Zone* z
    cdef int nid = 0, i = 0
    # the boot CPU's node; without memory its list still holds the others
    nid = mm.cpu_node[0]
    zl = mm.zonelists + <size_t>nid * 2 * mm.g.zl_stride
    while zl[i]:
        z = &mm.zones[zl[i] - 1]
        i += 1
        if z.zid > mm.g.zid_normal:
            continue
        rest = <int64_t>z.managed - (z.wmark[WMARK_HIGH] + z.watermark_boost)
        if rest > 0:
            total += rest
    return total


cdef void calculate_min_free_kbytes(Mm* mm) noexcept nogil:
    cdef int64_t kb = isqrt(nr_free_buffer_pages(mm) * 4 * 16)
    if kb > mm.g.user_min_free_kbytes:
        mm.g.min_free_kbytes = 128 if kb < 128 else 262144 if kb > 262144 else kb


cdef void calculate_totalreserve_pages(Mm* mm) noexcept nogil:
    cdef uint32_t zi, nid
    cdef int64_t reserve, total = 0
    cdef unsigned j
    cdef Zone* z
    for nid in range(mm.g.nr_nodes):
        mm.nodes[nid].totalreserve_pages = 0
    for zi in range(mm.g.nr_zones):
        z = &mm.zones[zi]
        reserve = 0
        for j in range(z.zid, mm.g.nr_zone_types):
            if z.lowmem_reserve[j] > reserve:
                reserve = z.lowmem_reserve[j]
        reserve += z.wmark[WMARK_HIGH] + z.watermark_boost
        if reserve > <int64_t>z.managed:
            reserve = <int64_t>z.managed
        mm.nodes[z.node].totalreserve_pages += reserve
        total += reserve
    mm.g.totalreserve_pages = total


cdef bint counts_as_high(Mm* mm, Zone* z) noexcept nogil:
    # Zones whose min watermark is a small fixed share. 6.12: HighMem and Movable; 6.1: Movable only where it is made of HighMem.
    cdef uint32_t nid
    if z.zid == mm.g.zid_highmem:
        return True
    if z.zid != mm.g.zid_movable:
        return False
    if mm.g.kernel == 0:
        return True
    if mm.g.zid_highmem == NO_ZID:
        return False
    for nid in range(mm.g.nr_nodes):
        if mm.zones[nid * mm.g.nr_zone_types + mm.g.zid_highmem].present:
            return True
    return False


cdef void setup_per_zone_wmarks(Mm* mm) noexcept nogil:
    cdef int64_t pages_min = mm.g.min_free_kbytes // 4, lowmem = 0, t, d, m, least
    cdef uint32_t zi
    cdef Zone* z
    for zi in range(mm.g.nr_zones):
        z = &mm.zones[zi]
        if not counts_as_high(mm, z):
            lowmem += <int64_t>z.managed
    for zi in range(mm.g.nr_zones):
        z = &mm.zones[zi]
        m = <int64_t>z.managed
        t = <int64_t>(<unsigned long long>pages_min * <unsigned long long>m // <unsigned long long>lowmem) if lowmem else 0
        least = t
        if counts_as_high(mm, z):
            least = m // 1024
            least = 32 if least < 32 else 128 if least > 128 else least
        d = m // 10000 * mm.g.watermark_scale_factor + m % 10000 * mm.g.watermark_scale_factor // 10000
        if t // 4 > d:
            d = t // 4
        z.watermark_boost = 0
        z.wmark[WMARK_MIN] = least
        z.wmark[WMARK_LOW] = least + d
        z.wmark[WMARK_HIGH] = least + 2 * d
        z.wmark[WMARK_PROMO] = least + 3 * d
    calculate_totalreserve_pages(mm)
    for zi in range(mm.g.nr_zones):
        if mm.zones[zi].present:
            pcp_update_sizes(mm, zi)


cdef void setup_per_zone_lowmem_reserve(Mm* mm) noexcept nogil:
    cdef uint32_t nid, base
    cdef unsigned i, j
    cdef int64_t ratio, managed
    cdef Zone* z
    for nid in range(mm.g.nr_nodes):
        base = nid * mm.g.nr_zone_types
        for i in range(mm.g.nr_zone_types):
            z = &mm.zones[base + i]
            ratio = mm.g.lowmem_reserve_ratio[i]
            managed = 0
            for j in range(i + 1):
                z.lowmem_reserve[j] = 0
            for j in range(i + 1, mm.g.nr_zone_types):
                managed += <int64_t>mm.zones[base + j].managed
                z.lowmem_reserve[j] = managed // ratio if ratio >= 1 and z.managed else 0
    calculate_totalreserve_pages(mm)


cdef int fls(unsigned long long x) noexcept nogil:
    cdef int n = 0
    while x:
        n += 1
        x >>= 1
    return n


cdef int64_t normal_threshold(Mm* mm, Zone* z) noexcept nogil:
    cdef int64_t t = 2 * fls(mm.g.nr_cpus) * (1 + fls(z.managed >> 15))
    return t if t < 125 else 125


cdef void refresh_zone_stat_thresholds(Mm* mm) noexcept nogil:
    cdef uint32_t zi
    cdef int64_t drift
    cdef Zone* z
    for zi in range(mm.g.nr_zones):
        z = &mm.zones[zi]
        if not z.present:
            continue
        z.stat_threshold = <unsigned short>normal_threshold(mm, z)
        drift = <int64_t>mm.g.nr_cpus * z.stat_threshold
        z.percpu_drift_mark = 0
        if drift > z.wmark[WMARK_LOW] - z.wmark[WMARK_MIN]:
            z.percpu_drift_mark = z.wmark[WMARK_HIGH] + z.watermark_boost + drift


cdef void set_pgdat_percpu_threshold(Mm* mm, unsigned nid, bint pressure) noexcept nogil:
    # While kswapd runs, zones whose drift could hide a watermark use smaller differentials.
    cdef uint32_t zi
    cdef int64_t t
    cdef Zone* z
    for zi in range(nid * mm.g.nr_zone_types, (nid + 1) * mm.g.nr_zone_types):
        z = &mm.zones[zi]
        if not z.percpu_drift_mark:
            continue
        if pressure:
            t = (z.wmark[WMARK_LOW] - z.wmark[WMARK_MIN]) // mm.g.nr_cpus
            t = 1 if t < 1 else 125 if t > 125 else t
        else:
            t = normal_threshold(mm, z)
        z.stat_threshold = <unsigned short>t


cdef void setup_node_ratios(Mm* mm) noexcept nogil:
    cdef uint32_t zi, nid
    for nid in range(mm.g.nr_nodes):
        mm.nodes[nid].min_unmapped_pages = 0
        mm.nodes[nid].min_slab_pages = 0
    for zi in range(mm.g.nr_zones):
        nid = mm.zones[zi].node
        mm.nodes[nid].min_unmapped_pages += <int64_t>mm.zones[zi].managed * mm.g.min_unmapped_ratio // 100
        mm.nodes[nid].min_slab_pages += <int64_t>mm.zones[zi].managed * mm.g.min_slab_ratio // 100


cdef void boot_watermarks(Mm* mm) noexcept nogil:
    # T1, init_per_zone_wmark_min()
    calculate_min_free_kbytes(mm)
    setup_per_zone_wmarks(mm)
    refresh_zone_stat_thresholds(mm)
    setup_per_zone_lowmem_reserve(mm)
    setup_node_ratios(mm)


cdef void thp_watermarks(Mm* mm) noexcept nogil:
    # T2 and every change of THP `enabled`: set_recommended_min_free_kbytes()
    cdef int64_t zones = 0, pages, limit
    cdef uint32_t zi
    if mm.g.thp_enabled == 1 or mm.g.thp_enabled == 2:
        for zi in range(mm.g.nr_zones):
            if mm.zones[zi].present and mm.zones[zi].zid <= mm.g.zid_normal:
                zones += 1
        pages = 512 * zones * 2 + 512 * zones * 9
        limit = nr_free_buffer_pages(mm) // 20
        if pages > limit:
            pages = limit
        if pages * 4 > mm.g.min_free_kbytes:
            mm.g.min_free_kbytes = pages * 4
    else:
        calculate_min_free_kbytes(mm)
    setup_per_zone_wmarks(mm)


cdef bint sysctl_check(Mm* mm, unsigned which, unsigned index, int64_t value) noexcept nogil:
    if index and which != SYSCTL_LOWMEM_RESERVE_RATIO:
        return False
    if which == SYSCTL_WATERMARK_SCALE_FACTOR:
        return 1 <= value <= 3000
    if which == SYSCTL_PERCPU_PAGELIST_HIGH_FRACTION:
        return value == 0 or 8 <= value <= 0x7fffffff
    if which == SYSCTL_MIN_UNMAPPED_RATIO or which == SYSCTL_MIN_SLAB_RATIO:
        return 0 <= value <= 100
    if which == SYSCTL_LOWMEM_RESERVE_RATIO:
        return index < mm.g.nr_zone_types and -0x80000000 <= value <= 0x7fffffff
    if which == SYSCTL_THP_ENABLED:
        return 0 <= value <= 2
    return which <= SYSCTL_THP_ENABLED and 0 <= value <= 0x7fffffff


cdef int sysctl_store(Mm* mm, unsigned which, unsigned index, int64_t value) noexcept nogil:
    # The value passed sysctl_check(); returns 0 or -EINVAL for an unknown sysctl.
    cdef uint32_t zi
    if which == SYSCTL_MIN_FREE_KBYTES:
        mm.g.min_free_kbytes = value
        mm.g.user_min_free_kbytes = value
        setup_per_zone_wmarks(mm)
    elif which == SYSCTL_WATERMARK_SCALE_FACTOR:
        mm.g.watermark_scale_factor = value
        setup_per_zone_wmarks(mm)
    elif which == SYSCTL_WATERMARK_BOOST_FACTOR:
        mm.g.watermark_boost_factor = value
    elif which == SYSCTL_LOWMEM_RESERVE_RATIO:
        mm.g.lowmem_reserve_ratio[index] = value if value >= 1 else 0
        if index + 1 == mm.g.nr_zone_types:
            setup_per_zone_lowmem_reserve(mm)
    elif which == SYSCTL_PERCPU_PAGELIST_HIGH_FRACTION:
        mm.g.percpu_pagelist_high_fraction = value
        for zi in range(mm.g.nr_zones):
            if mm.zones[zi].present:
                pcp_update_sizes(mm, zi)
    elif which == SYSCTL_MIN_UNMAPPED_RATIO:
        mm.g.min_unmapped_ratio = value
        setup_node_ratios(mm)
    elif which == SYSCTL_MIN_SLAB_RATIO:
        mm.g.min_slab_ratio = value
        setup_node_ratios(mm)
    elif which == SYSCTL_ZONE_RECLAIM_MODE:
        mm.g.zone_reclaim_mode = value
    elif which == SYSCTL_THP_ENABLED:
        mm.g.thp_enabled = <unsigned char>value
        thp_watermarks(mm)
    else:
        return -22
    return 0


SYSCTLS = {
    "vm.min_free_kbytes": SYSCTL_MIN_FREE_KBYTES,
    "vm.watermark_scale_factor": SYSCTL_WATERMARK_SCALE_FACTOR,
    "vm.watermark_boost_factor": SYSCTL_WATERMARK_BOOST_FACTOR,
    "vm.lowmem_reserve_ratio": SYSCTL_LOWMEM_RESERVE_RATIO,
    "vm.percpu_pagelist_high_fraction": SYSCTL_PERCPU_PAGELIST_HIGH_FRACTION,
    "vm.min_unmapped_ratio": SYSCTL_MIN_UNMAPPED_RATIO,
    "vm.min_slab_ratio": SYSCTL_MIN_SLAB_RATIO,
    "vm.zone_reclaim_mode": SYSCTL_ZONE_RECLAIM_MODE,
    "kernel.mm.transparent_hugepage.enabled": SYSCTL_THP_ENABLED,
}
_LIMITS = {
    SYSCTL_WATERMARK_SCALE_FACTOR: "1..3000", SYSCTL_PERCPU_PAGELIST_HIGH_FRACTION: "0 or at least 8", SYSCTL_MIN_UNMAPPED_RATIO: "0..100",
    SYSCTL_MIN_SLAB_RATIO: "0..100", SYSCTL_THP_ENABLED: "0 never, 1 madvise, 2 always",
}


def refresh_thresholds(State s not None):
    """Recompute stat thresholds and drift marks from the zones' managed pages and watermarks, as at boot (after a state was loaded)."""
    state_lock(s)
    refresh_zone_stat_thresholds(&s.c)
    calculate_totalreserve_pages(&s.c)
    state_unlock(s)


def sysctl_write(State s not None, name, values):
    """Write a sysctl of the page allocator as the kernel does: checks the range (ValueError), stores, recomputes what depends on it.

    `values` is a list of numbers: one, or one per zone type for vm.lowmem_reserve_ratio (fewer leave the rest as it is).
    """
    cdef unsigned which = SYSCTLS[name], i
    cdef int64_t value
    numbers = list(values)
    types = s.c.g.nr_zone_types
    most = types if which == SYSCTL_LOWMEM_RESERVE_RATIO else 1
    if not 1 <= len(numbers) <= most:
        raise ValueError(f"{name} takes {'1' if most == 1 else f'1..{most}'} numbers, not {len(numbers)}")
    if which == SYSCTL_LOWMEM_RESERVE_RATIO:
        numbers += [int(x) for x in s.globals["lowmem_reserve_ratio"][0][len(numbers):types]]
    for i, value in enumerate(numbers):
        if not sysctl_check(&s.c, which, i, value):
            raise ValueError(f"{name} cannot be {value}; it must be {_LIMITS.get(which, '0..2147483647')}")
    state_lock(s)
    for i, value in enumerate(numbers):
        sysctl_store(&s.c, which, i, value)
    state_unlock(s)
