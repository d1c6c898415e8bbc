# What each event of a run takes of the CPU's time, in ns: VmGlobals.costs, by COST_*. See costs.pyx.

from libc.stdint cimport int64_t
from mmcore.base.records cimport Mm

cdef enum:
    COST_ACCESS = 0
    COST_MINOR_FAULT = 1
    COST_ZERO_PAGE = 2
    COST_FD_ACCESS = 3
    COST_ISOLATE = 4
    COST_RMAP_TEST = 5
    COST_UNMAP = 6
    COST_TLB_FLUSH = 7
    COST_TLB_IPI = 8
    COST_FREE_PAGE = 9
    COST_SWAP_SLOT = 10
    COST_SUBMIT_BIO = 11
    COST_ZSWAP_STORE = 12
    COST_ZSWAP_LOAD = 13
    COST_WALK_PTE = 14
    COST_KSWAPD_WAKE = 15
    COST_COPY_PAGE = 16
    NR_COSTS = 17
    COST_MAX = 1000000000           # the most that one may be: a second

cdef inline int64_t cost_of(Mm* mm, unsigned item) noexcept nogil:
    return mm.vm.g.costs[item]

# `n` of them, or nothing where the user set it to 0.
cdef inline int64_t cost_of_many(Mm* mm, unsigned item, int64_t n) noexcept nogil:
    return mm.vm.g.costs[item] * n
