# Zone counters with per-CPU differentials (mm/vmstat.c): a global value that watermark checks read, and a signed rest per CPU that is
# folded into it when it exceeds the zone's threshold.

from libc.stdint cimport int64_t, uint32_t
from mmcore.base.records cimport Mm, Zone, Pcp, NR_FREE_PAGES

cdef inline void mod_zone_page_state(Zone* z, Pcp* pcp, unsigned item, int64_t delta) noexcept nogil:
    cdef int64_t x = pcp.vm_diff[item] + delta
    if x > z.stat_threshold or x < -<int64_t>z.stat_threshold:
        z.vm_stat[item] += x
        x = 0
    pcp.vm_diff[item] = <int>x

cdef inline void sub_free_pages_repeat(Zone* z, Pcp* pcp, int64_t unit, int64_t times) noexcept nogil:
    # `times` blocks of `unit` pages leave NR_FREE_PAGES one after another: the same folds as single steps give, in closed form.
    cdef int64_t x = pcp.vm_diff[NR_FREE_PAGES], thr = z.stat_threshold, steps
    while times > 0:
        # a threshold that kswapd lowered can leave a rest above it: the next step folds that, if it still exceeds the threshold
        steps = (x + thr) // unit + 1 if -thr <= x <= thr + unit else 1
        if steps > times:
            x -= times * unit
            break
        x -= steps * unit
        times -= steps
        z.vm_stat[NR_FREE_PAGES] += x
        x = 0
    pcp.vm_diff[NR_FREE_PAGES] = <int>x

cdef int64_t zone_page_state_snapshot(Mm* mm, uint32_t zi, unsigned item) noexcept nogil
cdef void fold_cpu_zone(Mm* mm, uint32_t zi, unsigned cpu, bint* changed) noexcept nogil
