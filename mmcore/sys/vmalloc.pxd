# vmalloc, vmap, ioremap (mm/vmalloc.c). Addresses are bytes; 0 is the null of a failed call, `err` then says why.

from libc.stdint cimport int64_t, uint32_t, uint64_t
from mmcore.base.records cimport Mm

cdef enum:
    VM_IOREMAP = 0x1
    VM_ALLOC = 0x2
    VM_MAP = 0x4
    VM_USERMAP = 0x8
    VM_ALLOW_HUGE_VMAP = 0x400
    VM_ARRAY = 0x10000              # ours: holds the descriptor array of another area

# `caller` is the name's index + 1, 0 for none; nid -1 is no node named. Pages belong to vmalloc: nobody else can free them.
cdef uint64_t vmalloc_node_range(Mm* mm, uint64_t size, unsigned gfp, unsigned cpu, int nid, bint huge, uint32_t caller, int* err) noexcept nogil
# -E_INVAL: not the start of an area; -E_NOENT: no area there; -E_BUSY: the descriptor array of another area.
cdef int vfree_addr(Mm* mm, uint64_t address, unsigned cpu) noexcept nogil
# The page frame behind an address, -1 where nothing is mapped (guard pages too).
cdef int64_t vmalloc_to_pfn(Mm* mm, uint64_t address) noexcept nogil
# Page tables of kernel addresses: made when needed, never freed. 0 or -E_NOMEM.
cdef int kernel_tables_for(Mm* mm, uint64_t start, uint64_t end, bint huge, unsigned cpu) noexcept nogil
