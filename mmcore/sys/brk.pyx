"""brk.

Models: sys_brk, do_brk_flags, check_brk_limits (mm/mmap.c, v6.12). Simplifies: the data limit counts the heap alone where the kernel adds
the image's data. Omits: nothing known.
"""
from mmcore.base.errors cimport E_NOMEM
from mmcore.base.vm_records cimport AddressSpace
from mmcore.sys.commit cimport may_expand_vm, mlock_future_ok, vm_enough_memory, vm_unacct_memory
from mmcore.sys.mmap cimport MAP_FIXED, get_unmapped_area, unmap_aligned
from mmcore.sys.populate cimport mm_populate
from mmcore.sys.vma_ops cimport NewRange, map_range
from mmcore.vm.vma cimport *


cdef uint32_t new_heap(Mm* mm, uint32_t as_, uint32_t prev, const NewRange* r) noexcept nogil:
    # The first piece of the heap never joins what lies below start_brk.
    cdef uint32_t x = vma_alloc(mm)
    if x:
        vma_at(mm, x).start = r.start
        vma_at(mm, x).end = r.end
        vma_at(mm, x).flags = r.flags
        vma_at(mm, x).pgoff = r.pgoff
        vma_at(mm, x).ra_hits = 4
        vma_link(mm, as_, x, prev)
    return x


cdef int brk_range(Mm* mm, uint32_t as_, uint64_t start, uint64_t end, unsigned cpu) noexcept nogil:
    # Maps [start, end): the heap's VMA grows, or there is a new one, which looks at no other neighbour.
    cdef AddressSpace* a = as_at(mm, as_)
    cdef uint64_t pages = (end - start) >> PAGE_SHIFT
    cdef uint32_t next_, prev, x
    cdef NewRange r
    r.start = start
    r.end = end
    r.flags = VM_READ | VM_WRITE | VM_MAYREAD | VM_MAYWRITE | VM_MAYEXEC | VM_ACCOUNT | VM_SOFTDIRTY | a.def_flags
    r.pgoff = start >> PAGE_SHIFT
    r.file = r.anon_vma = r.name = 0
    r.just_expand = True
    if not may_expand_vm(a, r.flags, pages) or <int64_t>a.map_count > mm.vm.g.max_map_count:
        return -E_NOMEM
    if vm_enough_memory(mm, as_, pages) < 0:
        return -E_NOMEM
    next_ = find_vma_prev(mm, as_, start, &prev)
    if prev and vma_at(mm, prev).end <= a.start_brk:
        x = new_heap(mm, as_, prev, &r)
    else:
        x = map_range(mm, as_, prev, next_, &r, cpu)
    if not x:
        vm_unacct_memory(mm, pages)
        return -E_NOMEM
    a.total_vm += pages
    a.data_vm += pages
    if r.flags & VM_LOCKED:
        a.locked_vm += pages
    vma_at(mm, x).flags |= VM_SOFTDIRTY
    return 0


cdef int64_t do_brk(Mm* mm, uint32_t as_, uint64_t brk, unsigned cpu) noexcept nogil:
    cdef AddressSpace* a = as_at(mm, as_)
    cdef uint64_t old = PAGE_UP(a.brk), new = PAGE_UP(brk), before = a.brk
    cdef uint32_t x
    if brk < a.start_brk or brk >= a.task_size or brk - a.start_brk > a.rlimit_data:
        return <int64_t>a.brk
    if old == new:
        a.brk = brk
        return <int64_t>brk
    if brk <= a.brk:
        x = find_vma_intersection(mm, as_, new, old)
        if not x:
            return <int64_t>a.brk
        a.brk = brk
        if unmap_aligned(mm, as_, new, old, cpu) < 0:
            a.brk = before
        return <int64_t>a.brk
    if get_unmapped_area(mm, as_, False, old, new - old, MAP_FIXED) < 0 or not mlock_future_ok(a, a.def_flags, new - old):
        return <int64_t>a.brk
    x = find_vma(mm, as_, old)
    if x and new + PAGE_BYTES > vm_start_gap(mm, vma_at(mm, x)):
        return <int64_t>a.brk
    if brk_range(mm, as_, old, new, cpu) < 0:
        return <int64_t>a.brk
    a.brk = brk
    if a.def_flags & VM_LOCKED:
        mm_populate(mm, as_, old, new - old, True, cpu)
    return <int64_t>brk
