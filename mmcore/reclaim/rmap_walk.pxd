# From a page to the entries that map it (mm/rmap.c): who used it, and unmapping it. See rmap_walk.pyx.

from libc.stdint cimport int64_t, uint32_t, uint64_t
from mmcore.base.records cimport Mm, meta_at, page_at
from mmcore.base.vm_records cimport Vma
from mmcore.vm.rmap cimport PG_meta, page_is_file, rmap_private

cdef struct Mapping:                # one place that maps a page, as next_mapping() finds them
    uint32_t head                   # the folio, its pages, and how it is found
    uint32_t nr
    uint64_t index
    uint32_t next_avc               # index + 1 of what comes next
    uint32_t next_vma
    uint32_t sub                    # page of the folio to look at next, in `vma`
    uint32_t exclusive              # entry index + 1
    uint32_t vma                    # results: index + 1
    uint32_t level
    uint64_t vpn
    uint64_t* pte

cdef struct Referenced:
    int nr                          # VMAs through which it was used
    uint64_t vm_flags               # of these
    bint locked                     # some VMA locks it: the rest was not looked at

# Whether anything maps the folio.
cdef inline bint folio_mapped(Mm* mm, uint32_t head) noexcept nogil:
    if page_at(mm, head).flags & PG_meta and meta_at(mm, head).mapcount:
        return True
    return not page_is_file(page_at(mm, head).flags) and rmap_private(mm, head) != 0

cdef void mappings_of(Mm* mm, uint32_t head, Mapping* w) noexcept nogil
cdef bint next_mapping(Mm* mm, Mapping* w) noexcept nogil
# folio_referenced() on behalf of group `target` (id + 1; 0: the whole machine): clears the accessed bits that count.
cdef void folio_referenced(Mm* mm, uint32_t head, uint32_t target, Referenced* out) noexcept nogil
# try_to_unmap(): every entry of an order-0 folio becomes a swap entry (anonymous and swap-backed), or empty. Whether none is left. TLBs are
# noted for tlb_batch_flush.
cdef bint try_to_unmap(Mm* mm, uint32_t pfn, unsigned cpu) noexcept nogil
