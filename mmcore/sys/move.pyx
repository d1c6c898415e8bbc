"""mremap's half of page tables.

Models: move_page_tables, move_ptes, move_normal_pmd, move_huge_pmd (mm/mremap.c, v6.12): entries move, nothing is copied and nothing
faults afterwards; a whole PTE table or huge entry moves where both ends are aligned. Simplifies: whole PUD entries are not moved at
once, which no result shows but the page-table pages in between. Omits: soft-dirty marks.
"""
from mmcore.base.records cimport page_at
from mmcore.sys.flush cimport flush_range
from mmcore.sys.tables cimport entry_alloc, table_new
from mmcore.sys.thp cimport split_huge_pmd
from mmcore.vm.pgtable cimport (
    PTE_PSE, PTE_SPECIAL, entry_index, link_table, mm_at, pte_frame, pte_is_table, pte_mapped, set_entry, table_at, walk_level,
)
from mmcore.vm.rmap cimport PG_ORDER_MASK, PG_ORDER_SHIFT, PG_allocated, PG_meta, meta_at, page_is_anon, set_rmap_private


cdef inline void entry_moved(Mm* mm, uint64_t e, uint32_t entry) noexcept nogil:
    # A page that names its one entry has to name the new one.
    cdef uint32_t pfn = <uint32_t>pte_frame(e), flags
    if not pte_mapped(e) or e & PTE_SPECIAL:
        return
    flags = page_at(mm, pfn).flags
    if page_is_anon(flags) and flags & PG_allocated and (not flags & PG_meta or meta_at(mm, pfn).mapcount == 0):
        if e & PTE_PSE or not flags & (PG_ORDER_MASK << PG_ORDER_SHIFT):
            set_rmap_private(mm, pfn, entry + 1)


cdef void move_whole(Mm* mm, uint64_t* src, uint64_t* dst, uint64_t vpn, uint32_t as_) noexcept nogil:
    cdef uint64_t e = src[0]
    set_entry(mm, src, 0)
    if e & PTE_PSE:
        set_entry(mm, dst, e)
        entry_moved(mm, e, entry_index(mm, dst))
    else:
        link_table(mm, dst, <uint32_t>pte_frame(e), vpn, as_, 0)


cdef uint64_t move_tables(Mm* mm, uint32_t as_, uint32_t old_vma, uint64_t old, uint32_t new_vma, uint64_t to, uint64_t length, unsigned cpu) noexcept nogil:
    cdef uint32_t root = mm_at(mm, as_).root - 1, slot
    cdef uint64_t at = old >> 12, stop = (old + length) >> 12, dest = to >> 12, n, block = mm.vm.mask + 1, i, e
    cdef uint64_t* src
    cdef uint64_t* dst
    cdef int rc
    cdef bint present
    while at < stop:
        n = block - (at & mm.vm.mask)
        if n > stop - at:
            n = stop - at
        src = walk_level(mm, root, at, 1)
        if src == NULL or src[0] == 0:
            at += n
            dest += n
            continue
        if n > block - (dest & mm.vm.mask):
            n = block - (dest & mm.vm.mask)
        dst = entry_alloc(mm, as_, dest, 1, cpu, &rc)
        if dst == NULL:
            break
        if n == block and dst[0] == 0:
            move_whole(mm, src, dst, dest, as_)
            flush_range(mm, as_, at << 12, (at + n) << 12, 12, True, cpu)
            at += n
            dest += n
            continue
        if src[0] & PTE_PSE:
            split_huge_pmd(mm, as_, src, at, cpu)
            if not pte_is_table(src[0]):
                at += n
                dest += n
                continue
        if not pte_is_table(dst[0]):
            slot = table_new(mm, as_, cpu)
            if slot == 0:
                break
            link_table(mm, dst, slot - 1, dest, as_, 0)
        src = table_at(mm, <uint32_t>pte_frame(src[0])) + (at & mm.vm.mask)
        dst = table_at(mm, <uint32_t>pte_frame(dst[0])) + (dest & mm.vm.mask)
        present = False
        for i in range(n):
            e = src[i]
            if e:
                present = present or pte_mapped(e)
                set_entry(mm, &src[i], 0)
                set_entry(mm, &dst[i], e)
                entry_moved(mm, e, entry_index(mm, &dst[i]))
        if present:
            flush_range(mm, as_, at << 12, (at + n) << 12, 12, True, cpu)
        at += n
        dest += n
    return (at << 12) - old
