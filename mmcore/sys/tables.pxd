# Page-table pages: allocated from the machine and hung into the tree; freed when nothing near them is mapped (mm/memory.c). See tables.pyx.

from libc.stdint cimport int64_t, uint32_t, uint64_t
from mmcore.base.records cimport Mm

# A zeroed table of an address space (0: the kernel's): its slot + 1, or 0 without memory.
cdef uint32_t table_new(Mm* mm, uint32_t as_, unsigned cpu) noexcept nogil
# Frees a table that holds no entries and hangs nowhere.
cdef void table_free(Mm* mm, uint32_t slot, unsigned cpu) noexcept nogil
# The entry for vpn at level `want`, with every table above it made; NULL without memory (-> *rc = -E_NOMEM), or when a huge leaf
# stands above (*rc = its level).
cdef uint64_t* entry_alloc(Mm* mm, uint32_t as_, uint64_t vpn, unsigned want, unsigned cpu, int* rc) noexcept nogil
cdef int mm_root_init(Mm* mm, uint32_t as_, unsigned cpu) noexcept nogil
cdef void mm_root_free(Mm* mm, uint32_t as_, unsigned cpu) noexcept nogil
# free_pgtables() for [start, end), bytes: a table goes if its whole block lies between floor (end of the VMA before, 0: none) and
# ceiling (start of the VMA behind, 0: none).
cdef void free_tables(Mm* mm, uint32_t as_, uint64_t start, uint64_t end, uint64_t floor, uint64_t ceiling, unsigned cpu) noexcept nogil
# The table that a huge mapping keeps in reserve, a list per address space.
cdef void deposit_table(Mm* mm, uint32_t as_, uint32_t slot) noexcept nogil
cdef uint32_t withdraw_table(Mm* mm, uint32_t as_) noexcept nogil
