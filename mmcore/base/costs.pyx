"""The cost model of time: nanoseconds of CPU time for each kind of event, which the user can replace.

Models: nothing of the kernel's code; how long it takes. Simplifies: a cost is a constant, whatever the caches hold. Omits: lock hold
times, RCU, interrupts, which are instantaneous.

Where the defaults come from (each to within a factor of two; replace them with what your machine shows):
minor_fault, zero_page, fd_access, isolate, rmap_test, unmap, tlb_flush, free_page, swap_slot, submit_bio, zswap_store, zswap_load,
walk_pte, kswapd_wake: the defaults of the specification of reclaim (section 20), typical of x86-64 servers of the years around 2020:
0.5 us for the exception, the walk, the allocation and the entry of a minor fault and 0.25 us to zero 4 KiB (16 GB/s); 0.3 us a page of
read() or write(); 0.05 us a folio taken from or put back to a list; 0.3 us for each mapping tested; 0.5 us for each entry unmapped; 1 to
4 us a batch of TLB flushes (2 is taken); 0.1 us a page freed; 0.5 us for a swap slot with its cache entry; 2 us for a bio; 5 and 3 us for
compressing and decompressing a page; 5 ns an entry of a page-table walk; 5 to 50 us until kswapd runs (20 is taken).
access (10 ns: a load that misses the first caches), tlb_ipi (1 us for each further CPU) and copy_page (0.25 us, as zeroing) are assumed.
"""
from mmcore.base.args cimport as_int
from mmcore.base.state cimport State, state_enter, state_leave

# name: (position, default in ns), in the order of positions.
COSTS = {
    "access": (COST_ACCESS, 10),
    "minor_fault": (COST_MINOR_FAULT, 500),
    "zero_page": (COST_ZERO_PAGE, 250),
    "fd_access": (COST_FD_ACCESS, 300),
    "isolate": (COST_ISOLATE, 50),
    "rmap_test": (COST_RMAP_TEST, 300),
    "unmap": (COST_UNMAP, 500),
    "tlb_flush": (COST_TLB_FLUSH, 2000),
    "tlb_ipi": (COST_TLB_IPI, 1000),
    "free_page": (COST_FREE_PAGE, 100),
    "swap_slot": (COST_SWAP_SLOT, 500),
    "submit_bio": (COST_SUBMIT_BIO, 2000),
    "zswap_store": (COST_ZSWAP_STORE, 5000),
    "zswap_load": (COST_ZSWAP_LOAD, 3000),
    "walk_pte": (COST_WALK_PTE, 5),
    "kswapd_wake": (COST_KSWAPD_WAKE, 20000),
    "copy_page": (COST_COPY_PAGE, 250),
}


def defaults():
    """Nanoseconds by name."""
    return {name: ns for name, (_, ns) in COSTS.items()}


def get_cost(State state not None, name):
    """Nanoseconds of one event. KeyError for a name that there is none of."""
    if name not in COSTS:
        raise KeyError(f"no cost {name!r}; there are {', '.join(COSTS)}")
    return state.c.vm.g.costs[<int>COSTS[name][0]]


def set_cost(State state not None, name, ns):
    """Replace one; 0 makes it free."""
    if name not in COSTS:
        raise KeyError(f"no cost {name!r}; there are {', '.join(COSTS)}")
    cdef int64_t value = as_int(ns, f"cost {name} (ns)", 0, COST_MAX)
    cdef int at = COSTS[name][0]
    state_enter(state)
    state.c.vm.g.costs[at] = value
    state_leave(state)


def set_defaults(State state not None):
    """As a machine has them after boot."""
    for name, (_, ns) in COSTS.items():
        set_cost(state, name, ns)
