"""mremap.

Models: sys_mremap, mremap_to, move_vma, vma_to_resize, copy_vma, vma_merge_extend (mm/mremap.c, mm/vma.c, v6.12). Simplifies: hugetlb
mappings can shrink, but not move. Omits: memory sealing, userfaultfd.
"""
from mmcore.base.errors cimport E_AGAIN, E_FAULT, E_INVAL, E_NOMEM
from mmcore.base.pool cimport pool_room
from mmcore.base.vm_records cimport AddressSpace, POOL_VMAS, Vma
from mmcore.sys.commit cimport may_expand_vm, mlock_future_ok, vm_enough_memory, vm_unacct_memory
from mmcore.sys.hugetlb cimport HPAGE_BYTES
from mmcore.sys.mmap cimport MAP_FIXED, MAP_SHARED, do_munmap, get_unmapped_area
from mmcore.sys.move cimport move_tables
from mmcore.sys.populate cimport mm_populate
from mmcore.sys.vma_ops cimport NewRange, file_add_vma, merge_new_range
from mmcore.vm.anon_vma cimport anon_vma_clone, unlink_anon_vmas
from mmcore.vm.vma cimport *


cdef int vma_to_resize(Mm* mm, uint32_t as_, uint32_t vma, uint64_t addr, uint64_t old_len, uint64_t new_len,
                       uint64_t flags) noexcept nogil:
    # Whether the part of the VMA at addr may change its length.
    cdef const Vma* v = vma_at(mm, vma)
    cdef AddressSpace* a = as_at(mm, as_)
    cdef uint64_t pgoff
    if not old_len and not v.flags & (VM_SHARED | VM_MAYSHARE):
        return -E_INVAL
    if flags & MREMAP_DONTUNMAP and v.flags & (VM_DONTEXPAND | VM_PFNMAP):
        return -E_INVAL
    if old_len > v.end - addr:
        return -E_FAULT
    if new_len == old_len:
        return 0
    pgoff = v.pgoff + ((addr - v.start) >> PAGE_SHIFT)
    if pgoff + (new_len >> PAGE_SHIFT) < pgoff:
        return -E_INVAL
    if v.flags & (VM_DONTEXPAND | VM_PFNMAP):
        return -E_FAULT
    if not mlock_future_ok(a, v.flags, new_len - old_len):
        return -E_AGAIN
    return 0 if may_expand_vm(a, v.flags, (new_len - old_len) >> PAGE_SHIFT) else -E_NOMEM


cdef void range_of(const Vma* v, NewRange* r, uint64_t start, uint64_t end, uint64_t pgoff) noexcept nogil:
    r.start = start
    r.end = end
    r.pgoff = pgoff
    r.flags = v.flags
    r.file = v.file
    r.anon_vma = v.anon_vma
    r.name = v.name
    r.just_expand = False


cdef uint32_t copy_vma(Mm* mm, uint32_t as_, uint32_t* vma, uint64_t addr, uint64_t length, uint64_t pgoff, unsigned cpu) noexcept nogil:
    # A VMA for the moved range, merged where it may be; vma[0] follows if the source itself was merged into it. 0: no record left.
    cdef Vma* v = vma_at(mm, vma[0])
    cdef Vma* w
    cdef NewRange r
    cdef uint32_t x, prev, next_
    cdef uint64_t source = v.start
    if vma_is_anonymous(v) and not v.anon_vma:
        pgoff = addr >> PAGE_SHIFT          # never faulted: nothing depends on the offset yet
    range_of(v, &r, addr, addr + length, pgoff)
    next_ = find_vma_prev(mm, as_, addr, &prev)
    x = merge_new_range(mm, as_, prev, next_, &r, cpu)
    if x:
        if vma_at(mm, x).start <= source < vma_at(mm, x).end:
            vma[0] = x
        return x
    x = vma_alloc(mm)
    if not x:
        return 0
    w = vma_at(mm, x)
    w.start = r.start
    w.end = r.end
    w.pgoff = r.pgoff
    w.flags = r.flags
    w.file = r.file
    w.name = r.name
    w.anon_vma = v.anon_vma
    w.ra_prev = v.ra_prev
    w.ra_win = v.ra_win
    w.ra_hits = v.ra_hits
    if anon_vma_clone(mm, x, vma[0]) < 0:
        vma_free(mm, x)
        return 0
    vma_link(mm, as_, x, prev)
    if w.file:
        file_add_vma(mm, x)
    return x


cdef int64_t move_vma(Mm* mm, uint32_t as_, uint32_t vma, uint64_t old, uint64_t old_len, uint64_t new_len, uint64_t new_, uint64_t flags,
                      bint* locked, unsigned cpu) noexcept nogil:
    cdef Vma* v = vma_at(mm, vma)
    cdef AddressSpace* a = as_at(mm, as_)
    cdef uint64_t vm_flags = v.flags, charge, moved, hiwater = a.hiwater_vm
    cdef uint32_t copy, prev, next_
    cdef int64_t result = <int64_t>new_
    cdef bint account_start = False, account_end = False
    if <int64_t>a.map_count >= mm.vm.g.max_map_count - 3 or pool_room(pool_of(mm, POOL_VMAS)) < 4:
        return -E_NOMEM
    charge = (new_len if flags & MREMAP_DONTUNMAP else new_len - old_len) >> PAGE_SHIFT
    if vm_flags & VM_ACCOUNT and vm_enough_memory(mm, as_, charge) < 0:
        return -E_NOMEM
    copy = copy_vma(mm, as_, &vma, new_, new_len, v.pgoff + ((old - v.start) >> PAGE_SHIFT), cpu)
    if not copy:
        if vm_flags & VM_ACCOUNT:
            vm_unacct_memory(mm, charge)
        return -E_NOMEM
    moved = move_tables(mm, as_, vma, old, copy, new_, old_len, cpu)
    if moved < old_len:
        # what was moved goes back, and the new range is unmapped instead of the old one
        move_tables(mm, as_, copy, new_, vma, old, moved, cpu)
        vma = copy
        flags &= ~<uint64_t>MREMAP_DONTUNMAP
        old_len = new_len
        old = new_
        result = -E_NOMEM
        if vm_flags & VM_ACCOUNT:
            vm_unacct_memory(mm, charge)
    v = vma_at(mm, vma)
    if vm_flags & VM_ACCOUNT and not flags & MREMAP_DONTUNMAP:
        # the charge goes along: unmapping the old range must not give it back
        v.flags &= ~<uint64_t>VM_ACCOUNT
        account_start = v.start < old
        account_end = v.end > old + old_len
    vm_stat_account(a, vm_flags, <int64_t>(new_len >> PAGE_SHIFT))
    if flags & MREMAP_DONTUNMAP:
        if vm_flags & VM_LOCKED:            # the lock goes along
            a.locked_vm += new_len >> PAGE_SHIFT
            if copy != vma:
                a.locked_vm -= vma_pages(v)
                v.flags &= ~<uint64_t>VM_LOCKED_MASK
        if copy != vma and v.start == old and v.end == old + old_len:
            unlink_anon_vmas(mm, vma)
        return result
    if do_munmap(mm, as_, old, old_len, cpu) < 0:
        if vm_flags & VM_ACCOUNT:
            mm.vm.g.committed += <int64_t>(old_len >> PAGE_SHIFT)
        account_start = account_end = False
    if vm_flags & VM_LOCKED:
        a.locked_vm += new_len >> PAGE_SHIFT
        locked[0] = True
    a.hiwater_vm = hiwater                  # for a moment both ranges were counted
    next_ = find_vma_prev(mm, as_, old, &prev)
    if account_start and prev:
        vma_at(mm, prev).flags |= VM_ACCOUNT
    if account_end and next_:
        vma_at(mm, next_).flags |= VM_ACCOUNT
    return result


cdef int64_t mremap_to(Mm* mm, uint32_t as_, uint64_t addr, uint64_t old_len, uint64_t new_addr, uint64_t new_len, uint64_t flags,
                       bint* locked, unsigned cpu) noexcept nogil:
    cdef AddressSpace* a = as_at(mm, as_)
    cdef uint64_t size = a.task_size
    cdef uint32_t x
    cdef int64_t rc
    if new_addr & (PAGE_BYTES - 1) or new_len > size or new_addr > size - new_len:
        return -E_INVAL
    if addr + old_len > new_addr and new_addr + new_len > addr:
        return -E_INVAL
    if <int64_t>a.map_count + 2 >= mm.vm.g.max_map_count - 3:
        return -E_NOMEM
    if flags & MREMAP_FIXED:
        rc = do_munmap(mm, as_, new_addr, new_len, cpu)
        if rc < 0:
            return rc
    if old_len > new_len:
        rc = do_munmap(mm, as_, addr + new_len, old_len - new_len, cpu)
        if rc < 0:
            return rc
        old_len = new_len
    x = find_vma_intersection(mm, as_, addr, addr + 1)
    if not x:
        return -E_FAULT
    rc = vma_to_resize(mm, as_, x, addr, old_len, new_len, flags)
    if rc < 0:
        return rc
    if flags & MREMAP_DONTUNMAP and not may_expand_vm(a, vma_at(mm, x).flags, old_len >> PAGE_SHIFT):
        return -E_NOMEM
    rc = get_unmapped_area(mm, as_, not vma_at(mm, x).file and not vma_at(mm, x).flags & VM_MAYSHARE, new_addr, new_len,
                           MAP_FIXED if flags & MREMAP_FIXED else 0)
    if rc < 0:
        return rc
    return move_vma(mm, as_, x, addr, old_len, new_len, <uint64_t>rc, flags, locked, cpu)


cdef bint expandable(Mm* mm, uint32_t as_, const Vma* v, uint64_t delta) noexcept nogil:
    cdef uint64_t end = v.end + delta, size = as_at(mm, as_).task_size
    return end >= v.end and end <= size and not find_vma_intersection(mm, as_, v.end, end)


cdef int64_t grow(Mm* mm, uint32_t as_, uint32_t x, uint64_t addr, uint64_t old_len, uint64_t new_len, uint64_t flags, bint* locked,
                  unsigned cpu) noexcept nogil:
    # In place where the VMA ends here and there is room, else elsewhere if it may move.
    cdef AddressSpace* a = as_at(mm, as_)
    cdef Vma* v = vma_at(mm, x)
    cdef NewRange r
    cdef uint64_t pages = (new_len - old_len) >> PAGE_SHIFT, vm_flags = v.flags
    cdef int64_t rc = vma_to_resize(mm, as_, x, addr, old_len, new_len, flags)
    if rc < 0:
        return rc
    if old_len == v.end - addr and expandable(mm, as_, v, new_len - old_len):
        if vm_flags & VM_ACCOUNT and vm_enough_memory(mm, as_, pages) < 0:
            return -E_NOMEM
        range_of(v, &r, v.end, v.end + (new_len - old_len), v.pgoff + vma_pages(v))
        x = merge_new_range(mm, as_, x, v.next, &r, cpu)
        if not x:
            if vm_flags & VM_ACCOUNT:
                vm_unacct_memory(mm, pages)
            return -E_NOMEM
        vm_stat_account(a, vm_flags, <int64_t>pages)
        if vm_flags & VM_LOCKED:
            a.locked_vm += pages
            locked[0] = True
        return <int64_t>addr
    if not flags & MREMAP_MAYMOVE:
        return -E_NOMEM
    rc = get_unmapped_area(mm, as_, not v.file and not v.flags & VM_MAYSHARE, 0, new_len, MAP_SHARED if v.flags & VM_MAYSHARE else 0)
    if rc < 0:
        return rc
    return move_vma(mm, as_, x, addr, old_len, new_len, <uint64_t>rc, flags, locked, cpu)


cdef int64_t do_mremap(Mm* mm, uint32_t as_, uint64_t addr, uint64_t old_len, uint64_t new_len, uint64_t flags, uint64_t new_addr,
                       unsigned cpu) noexcept nogil:
    cdef uint32_t x
    cdef int64_t rc
    cdef bint locked = False
    if flags & ~<uint64_t>(MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP) or flags & (MREMAP_FIXED | MREMAP_MAYMOVE) == MREMAP_FIXED:
        return -E_INVAL
    if flags & MREMAP_DONTUNMAP and (not flags & MREMAP_MAYMOVE or old_len != new_len):
        return -E_INVAL
    if addr & (PAGE_BYTES - 1):
        return -E_INVAL
    old_len = PAGE_UP(old_len)
    new_len = PAGE_UP(new_len)
    if not new_len:
        return -E_INVAL
    x = find_vma_intersection(mm, as_, addr, addr + 1)
    if not x:
        return -E_FAULT
    if vma_at(mm, x).flags & VM_HUGETLB:
        old_len = (old_len + HPAGE_BYTES - 1) & ~<uint64_t>(HPAGE_BYTES - 1)
        new_len = (new_len + HPAGE_BYTES - 1) & ~<uint64_t>(HPAGE_BYTES - 1)
        if not new_len or addr & (HPAGE_BYTES - 1) or new_len > old_len or flags & (MREMAP_FIXED | MREMAP_DONTUNMAP):
            return -E_INVAL
    if flags & (MREMAP_FIXED | MREMAP_DONTUNMAP):
        rc = mremap_to(mm, as_, addr, old_len, new_addr, new_len, flags, &locked, cpu)
    elif old_len == new_len:
        return <int64_t>addr
    elif old_len > new_len:
        rc = do_munmap(mm, as_, addr + new_len, old_len - new_len, cpu)
        return rc if rc < 0 else <int64_t>addr
    else:
        rc = grow(mm, as_, x, addr, old_len, new_len, flags, &locked, cpu)
    if rc >= 0 and locked and new_len > old_len:
        mm_populate(mm, as_, <uint64_t>rc + old_len, new_len - old_len, True, cpu)
    return rc
