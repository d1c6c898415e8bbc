# The hugetlb pool: pages of 2 MiB set aside (mm/hugetlb.c). See hugetlb.pyx.

from libc.stdint cimport int64_t, uint32_t, uint64_t
from mmcore.base.records cimport Mm
from mmcore.base.vm_records cimport Vma

# Positions in VmGlobals.hugetlb.
cdef enum:
    HTLB_TOTAL = 0
    HTLB_FREE = 1
    HTLB_RESERVED = 2
    HTLB_SURPLUS = 3
    HTLB_OVERCOMMIT = 4
    HTLB_FIRST = 5              # link value of the first free page
    HPAGE_BYTES = 1 << 21
    HPAGE_PAGES = 512

cdef extern from *:
    """
    #define HTLB_SPENT (31ull << 59)
    """
    uint64_t HTLB_SPENT             # PMD entry, not present, of a block whose reservation went with its page (a marker as swap's type 31)

# A VMA that reserved for itself what it maps (HPAGE_RESV_OWNER) says so in ra_win, which swap does not need here.
cdef inline bint hugetlb_owner(const Vma* v) noexcept nogil:
    return v.ra_win != 0


# nr_hugepages = n: as near as memory and use allow.
cdef void hugetlb_set_nr(Mm* mm, uint64_t n, unsigned cpu) noexcept nogil
# A mapping reserves `nr` huge pages: 0 or -E_NOMEM; gives them back.
cdef int hugetlb_reserve(Mm* mm, int64_t nr, unsigned cpu) noexcept nogil
cdef void hugetlb_unreserve(Mm* mm, int64_t nr, unsigned cpu) noexcept nogil
# A hugetlb VMA goes (its pages are zapped already, its tables are still there): its reservations are given back.
cdef void hugetlb_close(Mm* mm, Vma* v, unsigned cpu) noexcept nogil
# Fault in a hugetlb VMA: 0, -E_NOMEM, or -E_INVAL (no page and no reserve: SIGBUS).
cdef int hugetlb_fault(Mm* mm, uint32_t as_, uint32_t vma, uint64_t vpn, bint write, unsigned cpu) noexcept nogil
# One mapping goes: the entry is cleared and its page freed.
cdef void hugetlb_zap(Mm* mm, Vma* v, uint64_t* e, unsigned cpu) noexcept nogil
