# Nodes of a file's page index, with the kernel memory that they are charged as. See index_nodes.pyx.

from libc.stdint cimport uint32_t, uint64_t
from mmcore.base.records cimport Mm
from mmcore.base.vm_records cimport File, XNode

# radix_make_leaf() for a page that comes in on behalf of the task on `cpu`: NULL without memory, or with a group that is full.
cdef XNode* index_leaf(Mm* mm, File* f, uint64_t index, unsigned gfp, unsigned cpu) noexcept nogil
