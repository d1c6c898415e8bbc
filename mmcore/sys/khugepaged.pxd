# Collapsing small pages to a huge one, and splitting folios (mm/khugepaged.c, mm/huge_memory.c). See khugepaged.pyx.

from libc.stdint cimport int64_t, uint32_t, uint64_t
from mmcore.base.records cimport Mm

cdef enum:
    SCAN_SUCCEED = 0
    SCAN_PMD_NULL = 1               # no table there
    SCAN_PMD_MAPPED = 2             # huge already
    SCAN_EXCEED_NONE = 3
    SCAN_EXCEED_SWAP = 4
    SCAN_EXCEED_SHARED = 5
    SCAN_PAGE_RO = 6                # no entry may be written
    SCAN_LACK_REFERENCED = 7
    SCAN_PAGE_STATE = 8             # a page that is on no LRU list, or held by someone
    SCAN_ALLOC_FAIL = 9
    SCAN_VMA = 10                   # the block does not lie in a VMA that may have huge pages
    SCAN_PAGE_ANON = 11             # a page that is not anonymous, or swapped out

# The 2 MiB block that holds `address`; `advised`: MADV_COLLAPSE, which no setting and no limit stops.
cdef int collapse_block(Mm* mm, uint32_t as_, uint64_t address, bint advised, unsigned cpu) noexcept nogil
# One wake-up: scans khugepaged_pages_to_scan pages from where it left off.
cdef void khugepaged_do_scan(Mm* mm, unsigned cpu) noexcept nogil
# split_huge_page(): the folio becomes single pages, those that no one maps are freed. 0, or -E_AGAIN when someone else refers to it.
cdef int split_folio(Mm* mm, uint32_t head, unsigned cpu) noexcept nogil
# The deferred-split shrinker: splits up to nr queued folios that are mapped in part; how many it split.
cdef int64_t deferred_split_scan(Mm* mm, int64_t nr, unsigned cpu) noexcept nogil
