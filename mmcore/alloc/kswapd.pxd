# kswapd of each node (mm/vmscan.c). See kswapd.pyx.

from libc.stdint cimport uint32_t
from mmcore.base.records cimport Mm, Zone

# Leaves the wish in the node; whoever runs kswapd looks there.
cdef void wakeup_kswapd(Mm* mm, Zone* z, unsigned gfp, unsigned order, unsigned hidx) noexcept nogil
# A recorded balancing run begins or ends: what allocation sees of it.
cdef void kswapd_begin(Mm* mm, unsigned nid) noexcept nogil
cdef void kswapd_end(Mm* mm, unsigned nid) noexcept nogil
# Runs every kswapd that was woken, on behalf of `cpu`, until it naps.
cdef void run_kswapds(Mm* mm, unsigned cpu) noexcept nogil
cdef inline void kswapd_check(Mm* mm, unsigned cpu) noexcept nogil:
    if mm.vm.g.kswapd_wanted and mm.vm.g.reclaim_on:
        run_kswapds(mm, cpu)
