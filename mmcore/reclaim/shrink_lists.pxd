# Passes over the lists of one lruvec, and how much of each is to be looked at (get_scan_count, shrink_lruvec). See shrink_lists.pyx.

from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from mmcore.base.records cimport Mm
from mmcore.base.vm_records cimport Lruvec
from mmcore.reclaim.scan_control cimport ScanControl

# inactive_is_low(), on the statistics as folded last; of pages counted otherwise.
cdef bint inactive_is_low(Mm* mm, Lruvec* lv, bint file) noexcept nogil
cdef bint low_of(int64_t inactive, int64_t active) noexcept nogil
cdef void get_scan_count(Mm* mm, Lruvec* lv, ScanControl* sc, int64_t* nr) noexcept nogil
cdef void shrink_active_list(Mm* mm, int64_t n, Lruvec* lv, ScanControl* sc, unsigned lru) noexcept nogil
cdef int64_t shrink_inactive_list(Mm* mm, int64_t n, Lruvec* lv, ScanControl* sc, unsigned lru) noexcept nogil
cdef void shrink_lruvec(Mm* mm, Lruvec* lv, ScanControl* sc) noexcept nogil
# Whether anonymous pages have somewhere to go (can_reclaim_anon_pages); target: id + 1 or 0.
cdef bint can_reclaim_anon(Mm* mm, uint32_t target) noexcept nogil
