"""Sizes of the per-CPU lists: batch, high_min, high_max.

Models: zone_batchsize, zone_highsize, zone_set_pageset_high_and_batch (mm/page_alloc.c, v6.12); for 6.1 one fixed `high`.
Simplifies: all CPUs of a node are online from the start. Omits: percpu_pagelist_high_fraction below 8 (refused where it is written).
"""
from libc.stdint cimport int32_t, int64_t, uint32_t
from mmcore.base.records cimport Mm, Pcp, PCPF_FREE_HIGH_BATCH, WMARK_LOW, Zone


cdef int32_t zone_batchsize(Zone* z) noexcept nogil:
    cdef int64_t b = <int64_t>(z.managed // 1024)
    cdef int64_t p = 1
    if b > 256:
        b = 256
    b //= 4
    if b < 1:
        b = 1
    b += b // 2
    while p * 2 <= b:
        p *= 2
    return <int32_t>(p - 1) if p > 1 else 1


cdef int32_t zone_highsize(Mm* mm, Zone* z, int32_t batch, int64_t total) noexcept nogil:
    cdef int64_t cpus = mm.nodes[z.node].nr_cpus
    if cpus == 0:
        cpus = mm.g.nr_cpus
    total //= cpus
    if total < batch << 2:
        total = batch << 2
    return <int32_t>total if total < 0x7fffffff else 0x7fffffff


cdef void pcp_update_sizes(Mm* mm, uint32_t zi) noexcept nogil:
    # zone_set_pageset_high_and_batch(): after every setup of the watermarks, and when the high fraction changes.
    cdef Zone* z = &mm.zones[zi]
    cdef int32_t batch = zone_batchsize(z), high_min, high_max
    cdef int64_t fraction = mm.g.percpu_pagelist_high_fraction
    cdef uint32_t cpu
    cdef Pcp* pcp
    if fraction:
        high_min = zone_highsize(mm, z, batch, <int64_t>z.managed // fraction)
        high_max = high_min
    else:
        high_min = zone_highsize(mm, z, batch, z.wmark[WMARK_LOW] + z.watermark_boost)
        high_max = zone_highsize(mm, z, batch, <int64_t>z.managed // 8)
    for cpu in range(mm.g.nr_cpus):
        pcp = &mm.pcps[zi * mm.g.nr_cpus + cpu]
        pcp.batch = batch
        if mm.g.kernel == 1:
            pcp.high = high_min
            pcp.high_min = high_min
            pcp.high_max = high_min
            continue
        pcp.high_min = high_min
        pcp.high_max = high_max
        if mm.g.cache_slice_pages > 3 * batch:
            pcp.flags |= PCPF_FREE_HIGH_BATCH
        else:
            pcp.flags &= <unsigned char>~PCPF_FREE_HIGH_BATCH
