# Watermarks, protections and reserves (mm/page_alloc.c, mm/khugepaged.c: set_recommended_min_free_kbytes).

from libc.stdint cimport int64_t, uint32_t
from mmcore.base.gfp cimport ALLOC_HIGHATOMIC, ALLOC_MIN_RESERVE, ALLOC_NON_BLOCK, ALLOC_OOM, ALLOC_RESERVES, ALLOC_WMARK_MASK
from mmcore.base.records cimport MIGRATE_HIGHATOMIC, Mm, NR_FREE_PAGES, Zone

# zone_watermark_ok() with the free pages given; `mark` includes the boost.
cdef inline bint __zone_watermark_ok(Zone* z, unsigned order, int64_t mark, unsigned hidx, unsigned alloc_flags, int64_t free_pages) noexcept nogil:
    cdef int64_t least = mark
    cdef unsigned have
    free_pages -= (<int64_t>1 << order) - 1
    if not alloc_flags & ALLOC_RESERVES:
        free_pages -= z.nr_free_highatomic
    else:
        if alloc_flags & ALLOC_MIN_RESERVE:
            least -= least // 2
            if alloc_flags & ALLOC_NON_BLOCK:
                least -= least // 4
        if alloc_flags & ALLOC_OOM:
            least -= least // 2
    if free_pages <= least + z.lowmem_reserve[hidx]:
        return False
    if order == 0:
        return True
    have = z.order_mask[0] | z.order_mask[1] | z.order_mask[2]
    if alloc_flags & (ALLOC_HIGHATOMIC | ALLOC_OOM):
        have |= z.order_mask[MIGRATE_HIGHATOMIC]
    return have >> order != 0

cdef inline int64_t free_pages_seen(Zone* z) noexcept nogil:
    return z.vm_stat[NR_FREE_PAGES] if z.vm_stat[NR_FREE_PAGES] > 0 else 0

cdef inline bint zone_watermark_ok(Mm* mm, Zone* z, unsigned order, int64_t mark, unsigned hidx, unsigned alloc_flags) noexcept nogil:
    return __zone_watermark_ok(z, order, mark, hidx, alloc_flags, free_pages_seen(z))

cdef inline bint zone_watermark_fast(Zone* z, unsigned order, int64_t mark, unsigned hidx, unsigned alloc_flags) noexcept nogil:
    cdef int64_t free_pages = free_pages_seen(z), usable = free_pages, held
    if order == 0:
        if not alloc_flags & ALLOC_RESERVES:
            held = z.nr_free_highatomic
            usable -= held if held < free_pages else free_pages
        if usable > mark + z.lowmem_reserve[hidx]:
            return True
    if __zone_watermark_ok(z, order, mark, hidx, alloc_flags, free_pages):
        return True
    if order == 0 and alloc_flags & ALLOC_MIN_RESERVE and z.watermark_boost and (alloc_flags & ALLOC_WMARK_MASK) == 0:
        return __zone_watermark_ok(z, order, z.wmark[0], hidx, alloc_flags, free_pages)
    return False

cdef void setup_per_zone_wmarks(Mm* mm) noexcept nogil
cdef void setup_per_zone_lowmem_reserve(Mm* mm) noexcept nogil
cdef void refresh_zone_stat_thresholds(Mm* mm) noexcept nogil
cdef void boot_watermarks(Mm* mm) noexcept nogil
cdef void thp_watermarks(Mm* mm) noexcept nogil
# Whether the kernel accepts this value (index: for a vector of numbers); sysctl_store() takes only accepted ones.
cdef bint sysctl_check(Mm* mm, unsigned which, unsigned index, int64_t value) noexcept nogil
cdef int sysctl_store(Mm* mm, unsigned which, unsigned index, int64_t value) noexcept nogil
cdef void set_pgdat_percpu_threshold(Mm* mm, unsigned nid, bint pressure) noexcept nogil

cpdef enum Sysctl:
    SYSCTL_MIN_FREE_KBYTES = 0
    SYSCTL_WATERMARK_SCALE_FACTOR = 1
    SYSCTL_WATERMARK_BOOST_FACTOR = 2
    SYSCTL_LOWMEM_RESERVE_RATIO = 3     # one number; the last index of the zone types recomputes
    SYSCTL_PERCPU_PAGELIST_HIGH_FRACTION = 4
    SYSCTL_MIN_UNMAPPED_RATIO = 5
    SYSCTL_MIN_SLAB_RATIO = 6
    SYSCTL_ZONE_RECLAIM_MODE = 7
    SYSCTL_THP_ENABLED = 8
