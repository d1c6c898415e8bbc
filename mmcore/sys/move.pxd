# Moving mappings to another address (mm/mremap.c: move_page_tables). See move.pyx.

from libc.stdint cimport uint32_t, uint64_t
from mmcore.base.records cimport Mm

# Entries of [old, old + length) in old_vma go to the same place behind `to` in new_vma. Bytes moved: less than length without memory.
cdef uint64_t move_tables(Mm* mm, uint32_t as_, uint32_t old_vma, uint64_t old, uint32_t new_vma, uint64_t to, uint64_t length, unsigned cpu) noexcept nogil
