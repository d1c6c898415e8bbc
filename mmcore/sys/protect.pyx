"""mprotect's half of page tables.

Models: change_pte_range, change_huge_pmd, can_change_pte_writable (mm/mprotect.c, v6.12): an entry becomes writable directly only if it
is private and the page is exclusive, or shared and already dirty. Omits: NUMA hinting,
userfaultfd, swap entries' rights.
"""
from mmcore.base.flags cimport PG_anon_exclusive
from mmcore.base.records cimport page_at
from mmcore.base.vm_records cimport Vma
from mmcore.reclaim.page_cache cimport file_notifies
from mmcore.sys.flush cimport FlushRange, flush_begin, flush_noted, note_change
from mmcore.sys.hugetlb cimport HTLB_SPENT
from mmcore.sys.thp cimport folio_head, split_huge_pmd
from mmcore.vm.pgtable cimport (
    PTE_ACCESSED, PTE_DIRTY, PTE_FRAME_MASK, PTE_PRESENT, PTE_PSE, PTE_RW, PTE_SOFT_DIRTY, PTE_SPECIAL, mm_at, pte_frame,
    pte_is_table, pte_mapped, table_at, walk_level,
)
from mmcore.vm.prot cimport page_prot
from mmcore.vm.rmap cimport page_is_anon
from mmcore.vm.vma cimport VM_SHARED, VM_WRITE

# What of an entry does not follow from the mapping's rights (_PAGE_CHG_MASK).
cdef inline uint64_t modify(uint64_t e, uint64_t prot) noexcept nogil:
    return (e & (PTE_FRAME_MASK | PTE_SPECIAL | PTE_ACCESSED | PTE_DIRTY | PTE_SOFT_DIRTY | PTE_PSE)) | (prot & ~PTE_ACCESSED)


cdef inline bint may_write(Mm* mm, Vma* v, uint64_t e) noexcept nogil:
    if not v.flags & VM_WRITE or not e & PTE_PRESENT:
        return False
    if v.flags & VM_SHARED:
        return (e & PTE_DIRTY) != 0
    if e & PTE_SPECIAL:
        return False
    return page_is_anon(page_at(mm, folio_head(mm, <uint32_t>pte_frame(e))).flags) and page_at(mm, <uint32_t>pte_frame(e)).flags & PG_anon_exclusive != 0


cdef void change_noted(Mm* mm, Vma* v, uint64_t* e, uint64_t vpn, uint64_t stop, uint64_t prot, FlushRange* f) noexcept nogil:
    # The entries of one table on a machine with TLBs.
    cdef uint64_t value
    while vpn < stop:
        if pte_mapped(e[0]):
            value = modify(e[0], prot)
            if may_write(mm, v, value):
                value |= PTE_RW
            note_change(f, vpn, 12, e[0], value)
            e[0] = value
        e += 1
        vpn += 1


cdef void change_protection(Mm* mm, uint32_t as_, uint32_t vma, uint64_t start, uint64_t end, unsigned cpu) noexcept nogil:
    cdef Vma* v = &mm.vm.vmas[vma - 1]
    cdef uint32_t root = mm_at(mm, as_).root - 1
    cdef uint64_t vpn = start >> 12, stop = end >> 12, next_, value
    cdef uint64_t prot = page_prot(v.flags, v.file != 0 and file_notifies(mm, v.file))
    cdef uint64_t* e
    cdef FlushRange f
    cdef bint tlb = mm.vm.tlb != NULL
    flush_begin(&f)
    while vpn < stop:
        next_ = (vpn | mm.vm.mask) + 1
        if next_ > stop:
            next_ = stop
        e = walk_level(mm, root, vpn, 1)
        if e == NULL or e[0] == 0 or e[0] == HTLB_SPENT:
            vpn = next_
            continue
        if e[0] & PTE_PSE:
            if next_ - vpn == mm.vm.mask + 1:
                value = modify(e[0], prot)
                if may_write(mm, v, value):
                    value |= PTE_RW
                if tlb:
                    note_change(&f, vpn, 12 + mm.vm.bits, e[0], value)
                e[0] = value
                vpn = next_
                continue
            split_huge_pmd(mm, as_, e, vpn, cpu)
            if not pte_is_table(e[0]):
                vpn = next_
                continue
        e = table_at(mm, <uint32_t>pte_frame(e[0])) + (vpn & mm.vm.mask)
        if tlb:
            change_noted(mm, v, e, vpn, next_, prot, &f)
            vpn = next_
            continue
        while vpn < next_:
            if pte_mapped(e[0]):
                value = modify(e[0], prot)
                if may_write(mm, v, value):
                    value |= PTE_RW
                e[0] = value
            e += 1
            vpn += 1
    flush_noted(mm, as_, &f, cpu)
