"""Counters with per-CPU differentials: exact sums and folds.

Models: zone_page_state_snapshot() and the folding part of refresh_cpu_vm_stats() (mm/vmstat.c). Simplifies: event counters are kept
as one sum (the kernel sums per-CPU values on every read). Omits: per-CPU node differentials (no room moves node counters on a hot path yet).
"""
from mmcore.base.records cimport NR_VM_ZONE_STAT_ITEMS


cdef int64_t zone_page_state_snapshot(Mm* mm, uint32_t zi, unsigned item) noexcept nogil:
    cdef int64_t x = mm.zones[zi].vm_stat[item]
    cdef uint32_t cpu
    for cpu in range(mm.g.nr_cpus):
        x += mm.pcps[zi * mm.g.nr_cpus + cpu].vm_diff[item]
    return x if x > 0 else 0


cdef void fold_cpu_zone(Mm* mm, uint32_t zi, unsigned cpu, bint* changed) noexcept nogil:
    cdef Zone* z = &mm.zones[zi]
    cdef Pcp* pcp = &mm.pcps[zi * mm.g.nr_cpus + cpu]
    cdef int i
    changed[0] = False
    for i in range(NR_VM_ZONE_STAT_ITEMS):
        if pcp.vm_diff[i]:
            z.vm_stat[i] += pcp.vm_diff[i]
            pcp.vm_diff[i] = 0
            changed[0] = True
