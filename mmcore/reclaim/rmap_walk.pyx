"""From a page to the entries that map it.

Models: rmap_walk_anon, rmap_walk_file, folio_referenced, try_to_unmap (mm/rmap.c, v6.12): VMAs without recency (MADV_RANDOM, MADV_SEQUENTIAL)
and those of other groups do not count as users; a locked VMA ends the search; TLB flushes are batched. Simplifies: clearing the accessed
bit leaves TLBs alone, as x86 does. Omits: unmapping of large folios (they are split first), migration entries, MMU notifiers.
"""
from mmcore.base.flags cimport (
    PG_anon_exclusive, PG_dirty, PG_ORDER_MASK, PG_ORDER_SHIFT, PG_swapbacked,
)
from mmcore.base.stat_items cimport NS_NR_ANON_PAGES, NS_NR_MAPPED
from mmcore.base.vm_records cimport AddressSpace, MM_ANONPAGES, MM_FILEPAGES, MM_SHMEMPAGES, MM_SWAPENTS
from mmcore.reclaim.memcg cimport lruvec_stat_mod, memcg_is_descendant
from mmcore.reclaim.mlock cimport mlock_folio
from mmcore.reclaim.swap cimport swap_dup, swap_pte
from mmcore.reclaim.writeback cimport folio_mark_dirty
from mmcore.vm.anon_vma cimport anon_vma_at, avc_at
from mmcore.vm.pgtable cimport (
    PTE_ACCESSED, PTE_DIRTY, PTE_PSE, mm_at, pte_frame, pte_mapped, set_entry, table_of_entry, vpn_of_entry, walk_entry,
)
from mmcore.vm.rmap cimport meta_at, page_index, set_rmap_private, sync_meta
from mmcore.vm.tlb cimport Tlb, tlb_batch_add
from mmcore.vm.vma cimport VM_LOCKED, VM_RAND_READ, VM_SEQ_READ, find_vma


cdef void mappings_of(Mm* mm, uint32_t head, Mapping* w) noexcept nogil:
    cdef uint32_t flags = page_at(mm, head).flags, private_ = rmap_private(mm, head)
    cdef bint counted = flags & PG_meta and meta_at(mm, head).mapcount != 0
    w.head = head
    w.nr = <uint32_t>1 << (flags >> PG_ORDER_SHIFT & PG_ORDER_MASK)
    w.index = page_index(meta_at(mm, head))
    w.next_avc = w.next_vma = w.exclusive = w.vma = w.sub = 0
    if page_is_file(flags):
        if counted:
            w.next_vma = mm.vm.files[private_ - 1].vma_first
    elif counted:
        w.next_avc = anon_vma_at(mm, private_).avc_first
    else:
        w.exclusive = private_


cdef bint maps_here(Mm* mm, Mapping* w) noexcept nogil:
    # From page `sub` of the folio on: does VMA `vma` map one?
    cdef Vma* v = &mm.vm.vmas[w.vma - 1]
    cdef uint64_t index
    cdef unsigned level
    while w.sub < w.nr:
        index = w.index + w.sub
        w.sub += 1
        if index < v.pgoff or index - v.pgoff >= (v.end - v.start) >> 12:
            continue
        w.vpn = (v.start >> 12) + (index - v.pgoff)
        w.pte = walk_entry(mm, mm_at(mm, v.mm).root - 1, w.vpn, &level)
        w.level = level
        if level and not w.pte[0] & PTE_PSE:
            continue
        if level:
            if pte_frame(w.pte[0]) == w.head:
                w.sub = w.nr
                return True
        elif pte_mapped(w.pte[0]) and pte_frame(w.pte[0]) == w.head + w.sub - 1:
            return True
    return False


cdef bint next_mapping(Mm* mm, Mapping* w) noexcept nogil:
    cdef uint32_t as_
    if w.exclusive:
        w.pte = mm.vm.tables + (w.exclusive - 1)
        as_ = table_of_entry(mm, w.exclusive - 1).mm
        w.vpn = vpn_of_entry(mm, w.exclusive - 1)
        w.level = table_of_entry(mm, w.exclusive - 1).level
        w.vma = find_vma(mm, as_, w.vpn << 12)
        w.exclusive = 0
        return True
    while True:
        if w.vma and w.sub < w.nr and maps_here(mm, w):
            return True
        w.sub = 0
        if w.next_avc:
            w.vma = avc_at(mm, w.next_avc).vma
            w.next_avc = avc_at(mm, w.next_avc).same_anon_next
        elif w.next_vma:
            w.vma = w.next_vma
            w.next_vma = mm.vm.vmas[w.vma - 1].file_next
        else:
            return False


cdef inline bint counts_for(Mm* mm, Vma* v, uint32_t target) noexcept nogil:
    if v.flags & (VM_SEQ_READ | VM_RAND_READ):
        return False
    return target == 0 or memcg_is_descendant(mm, mm_at(mm, v.mm).memcg, target - 1)


cdef void folio_referenced(Mm* mm, uint32_t head, uint32_t target, Referenced* out) noexcept nogil:
    cdef Mapping w
    cdef Vma* v
    cdef uint32_t last = 0
    out.nr = 0
    out.vm_flags = 0
    out.locked = False
    mappings_of(mm, head, &w)
    while next_mapping(mm, &w):
        v = &mm.vm.vmas[w.vma - 1]
        if not counts_for(mm, v, target):
            continue
        if v.flags & VM_LOCKED:
            out.locked = True
            out.vm_flags |= VM_LOCKED
            return
        if w.pte[0] & PTE_ACCESSED:
            w.pte[0] &= ~PTE_ACCESSED
            if last != w.vma:
                out.nr += 1
                out.vm_flags |= v.flags
                last = w.vma


cdef bint unmap_one(Mm* mm, uint32_t pfn, Mapping* w, unsigned cpu) noexcept nogil:
    # One entry goes; False: it has to stay.
    cdef Vma* v = &mm.vm.vmas[w.vma - 1]
    cdef AddressSpace* m = mm_at(mm, v.mm)
    cdef uint32_t flags = page_at(mm, pfn).flags
    cdef bint file = page_is_file(flags)
    if v.flags & VM_LOCKED:
        mlock_folio(mm, pfn, cpu)
        return False
    if w.pte[0] & PTE_DIRTY:
        if not file and not flags & PG_swapbacked:
            # freed lazily, but written to since: an ordinary anonymous page again
            page_at(mm, pfn).flags |= PG_swapbacked | PG_dirty
            return False
        folio_mark_dirty(mm, pfn, cpu)
    elif not file and not flags & PG_swapbacked and flags & PG_dirty:
        page_at(mm, pfn).flags |= PG_swapbacked
        return False
    if mm.vm.tlb != NULL:
        tlb_batch_add(<Tlb*>mm.vm.tlb, v.mm)
    if file:
        set_entry(mm, w.pte, 0)
        m.rss[MM_SHMEMPAGES if flags & PG_swapbacked else MM_FILEPAGES] -= 1
    elif flags & PG_swapbacked:
        swap_dup(mm, page_at(mm, pfn).private_)
        set_entry(mm, w.pte, swap_pte(page_at(mm, pfn).private_, flags & PG_anon_exclusive != 0))
        m.rss[MM_ANONPAGES] -= 1
        m.rss[MM_SWAPENTS] += 1
    else:
        set_entry(mm, w.pte, 0)
        m.rss[MM_ANONPAGES] -= 1
    if file:
        meta_at(mm, pfn).mapcount -= 1
        if meta_at(mm, pfn).mapcount == 0:
            lruvec_stat_mod(mm, pfn, NS_NR_MAPPED, -1)
            sync_meta(mm, pfn)
        return True
    page_at(mm, pfn).flags &= ~<uint32_t>PG_anon_exclusive
    if flags & PG_meta and meta_at(mm, pfn).mapcount > 1:
        meta_at(mm, pfn).mapcount -= 1
        return True
    if flags & PG_meta:
        meta_at(mm, pfn).mapcount = 0
        meta_at(mm, pfn).index_lo = 0
        meta_at(mm, pfn).index_hi = 0
        sync_meta(mm, pfn)
    set_rmap_private(mm, pfn, 0)
    lruvec_stat_mod(mm, pfn, NS_NR_ANON_PAGES, -1)
    return True


cdef bint try_to_unmap(Mm* mm, uint32_t pfn, unsigned cpu) noexcept nogil:
    cdef Mapping w
    mappings_of(mm, pfn, &w)
    while next_mapping(mm, &w):
        if not unmap_one(mm, pfn, &w, cpu):
            return False
    return not folio_mapped(mm, pfn)
