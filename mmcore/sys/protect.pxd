# Rewriting entries to new rights (mm/mprotect.c: change_pte_range). See protect.pyx.

from libc.stdint cimport uint32_t, uint64_t
from mmcore.base.records cimport Mm

# Entries of [start, end) in a VMA get the rights of its flags.
cdef void change_protection(Mm* mm, uint32_t as_, uint32_t vma, uint64_t start, uint64_t end, unsigned cpu) noexcept nogil
