# What becomes of each page that reclaim has isolated (shrink_folio_list). See shrink_folios.pyx.

from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from mmcore.base.records cimport Mm
from mmcore.reclaim.scan_control cimport ReclaimStat, ScanControl

# Pages freed of the n isolated folios; those that stay are left at the front of `pfns`, in their order, their number in nr_kept.
cdef int64_t shrink_folio_list(Mm* mm, uint32_t* pfns, int64_t n, uint32_t node, ScanControl* sc, ReclaimStat* stat, bint ignore_references,
                               int64_t* nr_kept) noexcept nogil
