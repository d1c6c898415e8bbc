# Taking mappings away (mm/memory.c: unmap_page_range). See zap.pyx.

from libc.stdint cimport uint32_t, uint64_t
from mmcore.base.records cimport Mm
from mmcore.sys.gather cimport Gather

# Every mapping of [start, end) in one VMA goes: pages are freed, RSS and counters kept, huge mappings that are covered in part are split.
cdef void zap_range(Mm* mm, uint32_t as_, uint32_t vma, uint64_t start, uint64_t end, unsigned cpu) noexcept nogil
# The same with the caller's gather, to be flushed by him.
cdef void zap_pages(Mm* mm, uint32_t as_, uint64_t start, uint64_t end, Gather* g) noexcept nogil
# Only mappings of file pages go: private copies and swap entries stay (unmap_mapping_range without even_cows). For VMAs of files.
cdef void zap_file_range(Mm* mm, uint32_t as_, uint64_t start, uint64_t end, unsigned cpu) noexcept nogil
