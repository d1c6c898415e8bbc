"""Nodes of a file's page index, with the kernel memory that they are charged as.

Models: xas_create under __filemap_add_folio with its accounted radix_tree_node objects: 584 bytes (the constructor needs 8 of them) and the
pointer to their owner (lib/xarray.c, mm/filemap.c, v6.12). Simplifies: a lone page 0 has its node at once; nodes are no slab objects of
pages yet. Omits: the shrinker of nodes that hold nothing but shadows.
"""
from libc.stdint cimport uint16_t

from mmcore.base.vm_records cimport POOL_XNODES
from mmcore.sys.charge cimport charge_object, uncharge_object
from mmcore.vm.radix cimport RADIX_MASK, RADIX_SHIFT, RADIX_SLOTS, radix_make_leaf, xnode_at

cdef enum:
    NODE_BYTES = 592


cdef int missing(Mm* mm, const File* f, uint64_t index) noexcept nogil:
    # Nodes that radix_make_leaf() would have to make.
    cdef XNode* n
    cdef unsigned shift = 0
    cdef int made = 0
    if f.radix == 0:
        while shift < 58 and index >> shift >= RADIX_SLOTS:
            shift += RADIX_SHIFT
        return <int>(shift // RADIX_SHIFT) + 1
    n = xnode_at(mm, f.radix)
    shift = n.shift
    while shift < 58 and index >> shift >= RADIX_SLOTS:
        shift += RADIX_SHIFT
        made += 1
    if made:
        return made + <int>(shift // RADIX_SHIFT)
    while n.shift:
        if n.slots[(index >> n.shift) & RADIX_MASK] == 0:
            return <int>(n.shift // RADIX_SHIFT)
        n = xnode_at(mm, <uint32_t>n.slots[(index >> n.shift) & RADIX_MASK])
    return 0


cdef XNode* index_leaf(Mm* mm, File* f, uint64_t index, unsigned gfp, unsigned cpu) noexcept nogil:
    cdef uint32_t before, id_ = mm.vm.cpus[cpu].memcg, x
    cdef int charged = 0
    cdef XNode* leaf
    cdef XNode* n
    # charged before they are made: to find room reclaim may take other nodes of this file away
    while id_ and charged < missing(mm, f, index):
        if charge_object(mm, id_, NODE_BYTES, gfp, cpu):
            while charged:
                uncharge_object(mm, id_, NODE_BYTES, cpu)
                charged -= 1
            return NULL
        charged += 1
    before = mm.vm.pools[<int>POOL_XNODES].live
    leaf = radix_make_leaf(mm, f, index)
    if leaf == NULL or mm.vm.pools[<int>POOL_XNODES].live == before:
        while charged:
            uncharge_object(mm, id_, NODE_BYTES, cpu)
            charged -= 1
        return leaf
    n = leaf
    while True:
        if n.fresh:
            n.fresh = 0
            n.memcg = <uint16_t>id_
        x = n.up
        if x == 0:
            return leaf
        n = xnode_at(mm, x)
