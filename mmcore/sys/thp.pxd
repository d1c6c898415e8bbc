# Huge pages that a PMD maps, and their parts. See thp.pyx.

from libc.stdint cimport int64_t, uint32_t, uint64_t
from mmcore.base.records cimport Mm
from mmcore.base.vm_records cimport Vma
from mmcore.sys.gather cimport Gather

cdef enum:
    THP_FALLBACK = -1       # nothing was done: go on with small pages

# Fault on an empty PMD entry `e` of an anonymous VMA: a fault result, or THP_FALLBACK.
cdef int thp_fault(Mm* mm, uint32_t as_, Vma* v, uint32_t vma, uint64_t* e, uint64_t vpn, bint write, unsigned cpu) noexcept nogil
# Write to a read-only huge PMD: a fault result, or THP_FALLBACK after it was split.
cdef int thp_wp_fault(Mm* mm, uint32_t as_, Vma* v, uint64_t* e, uint64_t vpn, unsigned cpu) noexcept nogil
# An anonymous write fault with larger folios enabled: maps 2^order pages around vpn; a fault result, or THP_FALLBACK. `pte`: the entry.
cdef int mthp_fault(Mm* mm, uint32_t as_, Vma* v, uint32_t vma, uint64_t* pte, uint64_t vpn, unsigned cpu) noexcept nogil
# The mapping goes as a whole; a folio that loses its last mapping goes into the gather.
cdef void zap_huge(Mm* mm, uint32_t as_, uint64_t* e, Gather* g) noexcept nogil
# __split_huge_pmd(): the entry is replaced by a table of small ones.
cdef void split_huge_pmd(Mm* mm, uint32_t as_, uint64_t* e, uint64_t vpn, unsigned cpu) noexcept nogil
cdef void split_huge_at(Mm* mm, uint32_t as_, uint64_t address, unsigned cpu) noexcept nogil
# fork: 0, -E_NOMEM, or 1: the parent's entry was split, copy its small pages.
cdef int copy_huge(Mm* mm, uint32_t dst_as, uint32_t src_as, Vma* src_vma, uint64_t* dst, uint64_t* src, uint64_t vpn, unsigned cpu) noexcept nogil
# One small entry that maps a part of a large folio goes: whether the folio has no mapping left. lost[0] is set when the page has none; the
# caller then says large_partial() for the folio, once for a row of neighbouring entries.
cdef bint large_rmap_remove(Mm* mm, uint32_t head, uint32_t pfn, bint* lost) noexcept nogil
cdef void large_partial(Mm* mm, uint32_t head) noexcept nogil
# A further small mapping of a part of a large folio (fork).
cdef void large_rmap_share(Mm* mm, uint32_t head, uint32_t pfn, uint32_t anon_vma, uint64_t index) noexcept nogil
# The folio has no mapping left: its tails' records are cleared, it leaves the queue of folios to be split.
cdef void folio_gone(Mm* mm, uint32_t head) noexcept nogil
cdef void queue_deferred(Mm* mm, uint32_t head, bint partial) noexcept nogil
cdef void unqueue_deferred(Mm* mm, uint32_t head) noexcept nogil
# Whether a fault in a VMA with these flags may get a folio of this order; the mask of thp_fault's request.
cdef bint order_allowed(Mm* mm, uint64_t vm_flags, unsigned order) noexcept nogil
# khugepaged_enter_vma(): the address space is scanned from now on if this VMA could hold a huge page.
cdef void khugepaged_enter(Mm* mm, uint32_t as_, Vma* v) noexcept nogil
# khugepaged_fork(): the child of an address space that is scanned is scanned, too.
cdef void khugepaged_fork(Mm* mm, uint32_t child, uint32_t parent) noexcept nogil
# Whether a VMA may hold a huge page at all (thp_vma_allowable_order outside of a fault); `forced`: no setting is asked.
cdef bint vma_allows_huge(Mm* mm, const Vma* v, bint forced) noexcept nogil
# Whether several processes map the folio, as far as a look at its counts tells (folio_likely_mapped_shared).
cdef bint folio_likely_shared(Mm* mm, uint32_t head) noexcept nogil
# A large anonymous folio comes or goes (nr_anon of its size).
cdef void count_anon(Mm* mm, uint32_t head, int nr) noexcept nogil
# Head of the folio that an anonymous or file page belongs to.
cdef uint32_t folio_head(Mm* mm, uint32_t pfn) noexcept nogil
