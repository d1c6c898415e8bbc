"""Sizes of the per-CPU lists: batch, high_min, high_max.

Models: zone_batchsize, zone_highsize, zone_set_pageset_high_and_batch (mm/page_alloc.c, v6.12); for 6.1 one
fixed `high`. Simplifies: all CPUs are online from the start. Omits: nothing known.
"""

from .constants import LOW


def zone_batchsize(managed: int) -> int:
    """Pages moved at a time between the lists of a CPU and the buddy lists: a power of two less one."""
    b = max(1, min(managed // 1024, 256) // 4)
    return max(1, (1 << (b + b // 2).bit_length() - 1) - 1)


def zone_highsize(total: int, batch: int, node_cpus: int, all_cpus: int) -> int:
    """One CPU's part of `total` pages, four batches at least."""
    return max(total // (node_cpus or all_cpus), 4 * batch)


def update_sizes(zone) -> None:
    """Recompute batch, high_min and high_max of a zone's page sets."""
    machine = zone.machine
    cpus = machine.cpu_node.count(zone.node)
    batch = zone_batchsize(zone.managed)
    fraction = machine.sysctl["vm.percpu_pagelist_high_fraction"]
    low = zone.wmark[LOW] + zone.boost
    high_min = zone_highsize(zone.managed // fraction if fraction else low, batch, cpus, machine.nr_cpus)
    high_max = high_min if fraction else zone_highsize(zone.managed // 8, batch, cpus, machine.nr_cpus)
    for pcp in zone.pcp:
        if machine.kernel == "6.1":
            pcp.batch, pcp.high, pcp.high_min, pcp.high_max = batch, high_min, high_min, high_min
        else:
            pcp.set_sizes(batch, high_min, high_max, machine.cache_slice_pages)
