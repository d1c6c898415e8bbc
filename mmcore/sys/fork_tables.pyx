"""fork's half of page tables.

Models: copy_page_range, copy_pte_range, copy_present_ptes (mm/memory.c, v6.12): only VMAs with an anon_vma are copied (files refault),
private pages are write-protected on both sides and lose their exclusive mark, the child's entries are old. Simplifies: pinned pages are
not told apart from referenced ones (none is copied at once). Omits: userfaultfd.
"""
from libc.stdint cimport uint64_t

from mmcore.base.errors cimport E_NOMEM
from mmcore.base.records cimport page_at
from mmcore.base.vm_records cimport AddressSpace, MM_ANONPAGES, MM_FILEPAGES, MM_SHMEMPAGES, MM_SWAPENTS, Vma
from mmcore.phys.buddy cimport prefetch
from mmcore.reclaim.swap cimport SWP_EXCLUSIVE, swap_dup, swap_pte_slot
from mmcore.sys.tables cimport entry_alloc, table_new
from mmcore.sys.thp cimport copy_huge, folio_head, large_rmap_share
from mmcore.vm.pgtable cimport (
    PTE_ACCESSED, PTE_DIRTY, PTE_PSE, PTE_RW, PTE_SPECIAL, link_table, mm_at, pte_frame, pte_is_table, pte_mapped, table_at, walk_entry, walk_level,
)
from mmcore.vm.rmap cimport (
    PG_ORDER_MASK, PG_ORDER_SHIFT, PG_allocated, PG_swapbacked, anon_rmap_share, file_rmap_add, page_is_file,
)
from mmcore.vm.vma cimport VM_HUGETLB, VM_SHARED, VM_WRITE

cdef enum:
    AHEAD = 16


cdef void copy_ptes(Mm* mm, AddressSpace* d, Vma* v, uint64_t* dst, uint64_t* src, uint64_t vpn, uint64_t n, uint32_t dst_slot) noexcept nogil:
    cdef uint64_t i, e, index
    cdef uint32_t pfn, flags, used = 0
    cdef bint cow = v.flags & (VM_SHARED | VM_WRITE) == VM_WRITE
    for i in range(n):
        e = src[i]
        if i + AHEAD < n and pte_frame(src[i + AHEAD]) < mm.g.nr_pages:
            prefetch(page_at(mm, <uint32_t>pte_frame(src[i + AHEAD])))
        if e == 0:
            continue
        used += 1
        if not pte_mapped(e):
            # the child names the slot, too, and neither alone any more
            swap_dup(mm, swap_pte_slot(e))
            d.rss[MM_SWAPENTS] += 1
            src[i] = dst[i] = e & ~SWP_EXCLUSIVE
            continue
        if not e & PTE_SPECIAL:
            pfn = <uint32_t>pte_frame(e)
            flags = page_at(mm, pfn).flags
            if page_is_file(flags):
                file_rmap_add(mm, pfn)
                d.rss[MM_SHMEMPAGES if flags & PG_swapbacked else MM_FILEPAGES] += 1
            else:
                index = v.pgoff + (vpn + i - (v.start >> 12))
                if not flags & PG_allocated or flags & (PG_ORDER_MASK << PG_ORDER_SHIFT):
                    large_rmap_share(mm, folio_head(mm, pfn), pfn, v.anon_vma, index)
                else:
                    anon_rmap_share(mm, pfn, v.anon_vma, index)
                d.rss[MM_ANONPAGES] += 1
        if cow and e & PTE_RW:
            e &= ~PTE_RW
            src[i] = e
        if v.flags & VM_SHARED:
            e &= ~PTE_DIRTY
        dst[i] = e & ~PTE_ACCESSED
    mm.vm.table_info[dst_slot].nr_used += <unsigned short>used


cdef int copy_tables(Mm* mm, uint32_t dst_as, uint32_t dst_vma, uint32_t src_as, uint32_t src_vma, unsigned cpu) noexcept nogil:
    cdef Vma* v = &mm.vm.vmas[src_vma - 1]
    cdef AddressSpace* d = mm_at(mm, dst_as)
    cdef uint32_t root = mm_at(mm, src_as).root - 1, slot
    cdef uint64_t vpn = v.start >> 12, end = v.end >> 12, next_
    cdef uint64_t* src
    cdef uint64_t* dst
    cdef unsigned level
    cdef int rc
    if v.flags & VM_HUGETLB or v.anon_vma == 0:
        return 0
    while vpn < end:
        # the child gets a table wherever the parent has one in this VMA, empty or not
        src = walk_entry(mm, root, vpn, &level)
        if level == 0:
            src = walk_level(mm, root, vpn, 1)
            level = 1
        next_ = (vpn | ((<uint64_t>1 << (level * mm.vm.bits)) - 1)) + 1
        if next_ > end:
            next_ = end
        dst = entry_alloc(mm, dst_as, vpn, level, cpu, &rc)
        if dst == NULL:
            return -E_NOMEM
        if src[0] == 0:
            vpn = next_
            continue
        if src[0] & PTE_PSE:
            rc = copy_huge(mm, dst_as, src_as, v, dst, src, vpn, cpu)
            if rc < 0:
                return rc
            if rc == 0:
                vpn = next_
                continue
        slot = table_new(mm, dst_as, cpu) if not pte_is_table(dst[0]) else <uint32_t>pte_frame(dst[0]) + 1
        if slot == 0:
            return -E_NOMEM
        if not pte_is_table(dst[0]):
            link_table(mm, dst, slot - 1, vpn, dst_as, 0)
        copy_ptes(mm, d, v, table_at(mm, slot - 1) + (vpn & mm.vm.mask), table_at(mm, <uint32_t>pte_frame(src[0])) + (vpn & mm.vm.mask),
                  vpn, next_ - vpn, slot - 1)
        vpn = next_
    return 0
