"""Nodes of a file's page index, with the kernel memory that they are charged as.

Models: xas_create under __filemap_add_folio with its accounted radix_tree_node objects: 584 bytes (the constructor needs 8 of them) and the
pointer to their owner (lib/xarray.c, mm/filemap.c, v6.12). Simplifies: a lone page 0 has its node at once; nodes are no slab objects of
pages yet. Omits: the shrinker of nodes that hold nothing but shadows.
"""
from libc.stdint cimport uint16_t

from mmcore.base.vm_records cimport POOL_XNODES
from mmcore.reclaim.page_cache cimport index_prune
from mmcore.sys.charge cimport charge_object
from mmcore.vm.radix cimport radix_make_leaf, xnode_at

cdef enum:
    NODE_BYTES = 592


cdef XNode* index_leaf(Mm* mm, File* f, uint64_t index, unsigned gfp, unsigned cpu) noexcept nogil:
    cdef uint32_t before = mm.vm.pools[<int>POOL_XNODES].live, id_, x
    cdef XNode* leaf = radix_make_leaf(mm, f, index)
    cdef XNode* n = leaf
    if leaf == NULL or mm.vm.pools[<int>POOL_XNODES].live == before:
        return leaf
    id_ = mm.vm.cpus[cpu].memcg
    # new nodes lie on the path to the leaf; a lower one is made after those above it, but what counts is their number
    while True:
        if n.fresh:
            n.fresh = 0
            if id_:
                if charge_object(mm, id_, NODE_BYTES, gfp, cpu):
                    if leaf.count == 0:
                        index_prune(mm, f, leaf, cpu)
                    return NULL
                n.memcg = <uint16_t>id_
        x = n.up
        if x == 0:
            return leaf
        n = xnode_at(mm, x)
