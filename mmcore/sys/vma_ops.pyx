"""VMAs made, merged, split and removed.

Models: vma_merge_new_range, vma_merge_existing_range, vma_expand, __split_vma, vma_modify, remove_vma, dup_anon_vma (mm/vma.c, v6.12).
Simplifies: files have no close hooks, so that each VMA may disappear in a merge. Omits: memory policies and userfaultfd contexts (equal
everywhere here).

Two neighbours may be one VMA if addresses and page offsets continue, file, name and flags (but for SOFTDIRTY) are the same, none of them is
special, and their anon_vmas agree: the same one or none, or one of them has none and the other's chain has a single link.
"""
from mmcore.base.errors cimport E_INVAL, E_NOMEM
from mmcore.base.vm_records cimport Vma
from mmcore.sys.filemap cimport file_put
from mmcore.sys.thp cimport khugepaged_enter, split_huge_at
from mmcore.vm.anon_vma cimport anon_vma_clone, chain_is_singular, unlink_anon_vmas
from mmcore.vm.vma cimport (
    PAGE_SHIFT, VM_HUGETLB, VM_SOFTDIRTY, VM_SPECIAL, as_at, vma_alloc, vma_at, vma_free, vma_link, vma_pages, vma_set_range,
    vma_unlink,
)

cdef enum:
    PMD_MASK = 0x1fffff


# ---------------------------------------------------------------- the VMAs of a file

cdef void file_add_vma(Mm* mm, uint32_t vma) noexcept nogil:
    cdef Vma* v = vma_at(mm, vma)
    cdef File* f = file_at(mm, v.file)
    v.file_prev = 0
    v.file_next = f.vma_first
    if f.vma_first:
        vma_at(mm, f.vma_first).file_prev = vma
    f.vma_first = vma
    f.nr_mapped_vmas += 1


cdef void file_drop_vma(Mm* mm, uint32_t vma, unsigned cpu) noexcept nogil:
    cdef Vma* v = vma_at(mm, vma)
    cdef uint32_t file = v.file
    cdef File* f = file_at(mm, file)
    if v.file_prev:
        vma_at(mm, v.file_prev).file_next = v.file_next
    else:
        f.vma_first = v.file_next
    if v.file_next:
        vma_at(mm, v.file_next).file_prev = v.file_prev
    v.file = v.file_next = v.file_prev = 0
    f.nr_mapped_vmas -= 1
    file_put(mm, file, cpu)


cdef void remove_vma(Mm* mm, uint32_t vma, unsigned cpu) noexcept nogil:
    unlink_anon_vmas(mm, vma)
    vma_unlink(mm, vma)
    if vma_at(mm, vma).file:
        file_drop_vma(mm, vma, cpu)
    vma_free(mm, vma)


# ---------------------------------------------------------------- which may merge

cdef inline bint anon_vmas_agree(Mm* mm, uint32_t one, uint32_t other, uint32_t neighbour) noexcept nogil:
    if (not one or not other) and (not neighbour or chain_is_singular(mm, vma_at(mm, neighbour))):
        return True
    return one == other


cdef inline bint alike(const Vma* v, const NewRange* r) noexcept nogil:
    return (v.flags ^ r.flags) & ~<uint64_t>VM_SOFTDIRTY == 0 and v.file == r.file and v.name == r.name


cdef bint can_merge_left(Mm* mm, uint32_t prev, const NewRange* r) noexcept nogil:
    cdef const Vma* p
    if not prev:
        return False
    p = vma_at(mm, prev)
    return (p.end == r.start and alike(p, r) and p.pgoff + vma_pages(p) == r.pgoff
            and anon_vmas_agree(mm, r.anon_vma, p.anon_vma, prev))


cdef bint can_merge_right(Mm* mm, uint32_t next_, const NewRange* r, uint32_t left) noexcept nogil:
    # `left`: the VMA below that merges as well, or 0; then the two must suit each other, too
    cdef const Vma* n
    if not next_:
        return False
    n = vma_at(mm, next_)
    if not (n.start == r.end and alike(n, r) and n.pgoff == r.pgoff + ((r.end - r.start) >> PAGE_SHIFT)
            and anon_vmas_agree(mm, r.anon_vma, n.anon_vma, next_)):
        return False
    return not left or anon_vmas_agree(mm, vma_at(mm, left).anon_vma, n.anon_vma, 0)


cdef int dup_anon_vma(Mm* mm, uint32_t dst, uint32_t src) noexcept nogil:
    # The VMA that grows over faulted memory must be found from that memory's pages.
    if not vma_at(mm, src).anon_vma or vma_at(mm, dst).anon_vma:
        return 0
    vma_at(mm, dst).anon_vma = vma_at(mm, src).anon_vma
    if anon_vma_clone(mm, dst, src) < 0:
        vma_at(mm, dst).anon_vma = 0
        return -E_NOMEM
    return 0


cdef uint32_t merge_new_range(Mm* mm, uint32_t as_, uint32_t prev, uint32_t next_, const NewRange* r, unsigned cpu) noexcept nogil:
    cdef uint32_t left = 0, right = 0
    cdef Vma* v
    cdef uint64_t end = r.end
    if r.flags & VM_SPECIAL:
        return 0
    if can_merge_left(mm, prev, r):
        left = prev
    if not r.just_expand and can_merge_right(mm, next_, r, left):
        right = next_
    if left:
        v = vma_at(mm, left)
        if right:
            if dup_anon_vma(mm, left, right) < 0:
                return 0
            end = vma_at(mm, right).end
            remove_vma(mm, right, cpu)
        vma_set_range(mm, left, v.start, end, v.pgoff)
        khugepaged_enter(mm, as_, v)
        return left
    if right:
        v = vma_at(mm, right)
        vma_set_range(mm, right, r.start, v.end, r.pgoff)
        khugepaged_enter(mm, as_, v)
    return right


cdef uint32_t map_range(Mm* mm, uint32_t as_, uint32_t prev, uint32_t next_, const NewRange* r, unsigned cpu) noexcept nogil:
    cdef uint32_t x = merge_new_range(mm, as_, prev, next_, r, cpu)
    cdef Vma* v
    if x:
        return x
    x = vma_alloc(mm)
    if not x:
        return 0
    v = vma_at(mm, x)
    v.start = r.start
    v.end = r.end
    v.pgoff = r.pgoff
    v.flags = r.flags
    v.name = r.name
    v.file = r.file
    v.ra_hits = 4
    vma_link(mm, as_, x, prev)
    if v.file:
        file_add_vma(mm, x)
    khugepaged_enter(mm, as_, v)
    return x


# ---------------------------------------------------------------- changing what exists

cdef inline void cut_huge(Mm* mm, uint32_t as_, uint64_t address, unsigned cpu) noexcept nogil:
    if address & PMD_MASK:
        split_huge_at(mm, as_, address, cpu)


cdef int split_vma_always(Mm* mm, uint32_t vma, uint64_t address, bint below, unsigned cpu) noexcept nogil:
    cdef Vma* v = vma_at(mm, vma)
    cdef uint32_t x
    cdef Vma* w
    cdef uint64_t pgoff = v.pgoff + ((address - v.start) >> PAGE_SHIFT), end = v.end
    if v.flags & VM_HUGETLB and address & PMD_MASK:
        return -E_INVAL                     # hugetlb_vm_op_split()
    x = vma_alloc(mm)
    if not x:
        return -E_NOMEM
    w = vma_at(mm, x)
    w.flags = v.flags
    w.file = v.file
    w.name = v.name
    w.anon_vma = v.anon_vma
    w.ra_prev = v.ra_prev
    w.ra_win = v.ra_win
    w.ra_hits = v.ra_hits
    if anon_vma_clone(mm, x, vma) < 0:
        vma_free(mm, x)
        return -E_NOMEM
    cut_huge(mm, v.mm, address, cpu)
    if below:
        w.start = v.start
        w.end = address
        w.pgoff = v.pgoff
        vma_set_range(mm, vma, address, v.end, pgoff)
        vma_link(mm, v.mm, x, v.prev)
    else:
        w.start = address
        w.end = end
        w.pgoff = pgoff
        vma_set_range(mm, vma, v.start, address, v.pgoff)
        vma_link(mm, v.mm, x, vma)
    if w.file:
        file_add_vma(mm, x)
    return 0


cdef int split_vma(Mm* mm, uint32_t vma, uint64_t address, bint below, unsigned cpu) noexcept nogil:
    if <int64_t>as_at(mm, vma_at(mm, vma).mm).map_count >= mm.vm.g.max_map_count:
        return -E_NOMEM
    return split_vma_always(mm, vma, address, below, cpu)


cdef uint32_t merge_existing(Mm* mm, uint32_t vma, const NewRange* r, unsigned cpu) noexcept nogil:
    # r lies inside the VMA and touches at least one of its ends; joins it with the neighbours it is like now.
    cdef Vma* v = vma_at(mm, vma)
    cdef bint at_start = r.start == v.start, at_end = r.end == v.end
    cdef uint32_t left = 0, right = 0, as_ = v.mm
    cdef uint64_t end = r.end, pgoff
    if r.flags & VM_SPECIAL or not at_start and not at_end:
        return 0
    if at_start and can_merge_left(mm, v.prev, r):
        left = v.prev
    if at_end and can_merge_right(mm, v.next, r, left):
        right = v.next
    if left:
        if dup_anon_vma(mm, left, right if right and vma_at(mm, right).anon_vma else vma) < 0:
            return 0
        if right:
            end = vma_at(mm, right).end
            remove_vma(mm, right, cpu)
        if at_end:
            remove_vma(mm, vma, cpu)
        else:
            cut_huge(mm, as_, end, cpu)
            vma_set_range(mm, vma, end, v.end, v.pgoff + ((end - v.start) >> PAGE_SHIFT))
        vma_set_range(mm, left, vma_at(mm, left).start, end, vma_at(mm, left).pgoff)
        return left
    if right:
        if dup_anon_vma(mm, right, vma) < 0:
            return 0
        pgoff = vma_at(mm, right).pgoff - ((r.end - r.start) >> PAGE_SHIFT)
        if at_start:
            remove_vma(mm, vma, cpu)
        else:
            cut_huge(mm, as_, r.start, cpu)
            vma_set_range(mm, vma, v.start, r.start, v.pgoff)
        vma_set_range(mm, right, r.start, vma_at(mm, right).end, pgoff)
    return right


cdef int64_t vma_modify(Mm* mm, uint32_t vma, uint64_t start, uint64_t end, uint64_t flags, uint32_t name, unsigned cpu) noexcept nogil:
    cdef Vma* v = vma_at(mm, vma)
    cdef NewRange r
    cdef uint32_t merged
    cdef int cut
    r.start = start
    r.end = end
    r.flags = flags
    r.pgoff = v.pgoff + ((start - v.start) >> PAGE_SHIFT)
    r.file = v.file
    r.anon_vma = v.anon_vma
    r.name = name
    r.just_expand = False
    merged = merge_existing(mm, vma, &r, cpu)
    if merged:
        return merged
    cut = split_vma(mm, vma, start, True, cpu) if v.start < start else 0
    if cut == 0 and v.end > end:
        cut = split_vma(mm, vma, end, False, cpu)
    if cut < 0:
        return cut
    return vma
