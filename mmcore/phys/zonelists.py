"""Zonelists: in which order an allocation for a node tries nodes and zones.

Models: find_next_best_node, build_zonelists, build_zonelists_in_node_order (mm/page_alloc.c). Simplifies: CPUs are not yet known to
nodes when the lists are built, as at boot, so the penalty for nodes with CPUs is none. Omits: rebuilding after hotplug.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mmcore.phys.memmap import MAX_NUMNODES, as_int

LOCAL_DISTANCE, REMOTE_DISTANCE, MAX_DISTANCE = 10, 20, 254

Zonelists = tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]
"""Per node: zone indices over all nodes (FALLBACK), and on the node only (NOFALLBACK)"""


def check_distances(distances: Sequence[Sequence[int]] | None, nr_nodes: int) -> tuple[tuple[int, ...], ...]:
    """The matrix as tuples: nr_nodes rows of nr_nodes, 10 on the diagonal, 11 to 254 elsewhere. None: 10 and 20."""
    if distances is None:
        row = [REMOTE_DISTANCE] * nr_nodes
        return tuple((*row[:i], LOCAL_DISTANCE, *row[i + 1 :]) for i in range(nr_nodes))
    if isinstance(distances, str | Mapping) or not isinstance(distances, Sequence):
        raise TypeError(f"distances must be {nr_nodes} rows of {nr_nodes} numbers, not {type(distances).__name__}")
    if len(distances) != nr_nodes:
        raise ValueError(f"distances has {len(distances)} rows; the machine has {nr_nodes} nodes")
    matrix = []
    for i, given in enumerate(distances):
        if isinstance(given, str | Mapping) or not isinstance(given, Sequence):
            raise TypeError(f"row {i} of distances must be {nr_nodes} numbers, not {type(given).__name__}")
        if len(given) != nr_nodes:
            raise ValueError(f"row {i} of distances has {len(given)} numbers; the machine has {nr_nodes} nodes")
        row = [as_int(value, f"distance from node {i} to {j}") for j, value in enumerate(given)]
        for j, value in enumerate(row):
            if i == j and value != LOCAL_DISTANCE:
                raise ValueError(f"distance from node {i} to itself is {value}; it must be {LOCAL_DISTANCE}")
            if i != j and not LOCAL_DISTANCE < value <= MAX_DISTANCE:
                raise ValueError(f"distance from node {i} to {j} is {value}; it must lie in {LOCAL_DISTANCE + 1}..{MAX_DISTANCE}")
        matrix.append(tuple(row))
    return tuple(matrix)


def fallback_node_orders(distances: Sequence[Sequence[int]], has_memory: Sequence[bool]) -> tuple[tuple[int, ...], ...]:
    """For each node, the nodes with memory in the order in which its allocations try them.

    Nearest first; among equals those above the node, then those that fewer nodes chose first so far (the load is shared by all nodes).
    """
    load = [0] * len(has_memory)
    orders = []
    for local in range(len(has_memory)):
        near = distances[local]
        others = [n for n, memory in enumerate(has_memory) if memory and n != local]
        # Only chosen nodes change their load, so one sort stands for choosing the best again and again.
        others.sort(key=lambda n: ((near[n] + (n < local)) * MAX_NUMNODES + load[n], n))
        previous = local
        for n in others:
            if near[n] != near[previous]:
                load[n] += 1
            previous = n
        orders.append(((local,) if has_memory[local] else ()) + tuple(others))
    return tuple(orders)


def build_zonelists(populated: Sequence[bool], distances: Sequence[Sequence[int]]) -> tuple[Zonelists, tuple[tuple[int, ...], ...]]:
    """The zonelists of each node, and the order of nodes in its FALLBACK list.

    populated: by zone index (node-major, the same number of zones each). Within a node the highest zone comes first.
    """
    nr_nodes = len(distances)
    types = len(populated) // nr_nodes
    own = [tuple(zi for zi in reversed(range(n * types, (n + 1) * types)) if populated[zi]) for n in range(nr_nodes)]
    orders = fallback_node_orders(distances, [bool(zones) for zones in own])
    return tuple((tuple(zi for n in order for zi in own[n]), own[local]) for local, order in enumerate(orders)), orders
