# Copying page tables at fork (mm/memory.c: copy_page_range). See fork_tables.pyx.

from libc.stdint cimport uint32_t
from mmcore.base.records cimport Mm

# The mappings of one VMA of the parent appear in the child's copy of it; both sides of private memory become read-only. 0 or -E_NOMEM.
cdef int copy_tables(Mm* mm, uint32_t dst_as, uint32_t dst_vma, uint32_t src_as, uint32_t src_vma, unsigned cpu) noexcept nogil
