"""Commit accounting and resource limits.

Models: __vm_enough_memory, vm_commit_limit (mm/util.c), may_expand_vm, mlock_future_ok (mm/mmap.c, v6.12). Simplifies: committed memory is
one exact number (the kernel's is exact in overcommit mode 2, and lags by per-CPU batches elsewhere). Omits: nothing known.
"""
from mmcore.base.errors cimport E_NOMEM
from mmcore.vm.vma cimport VM_GROWSDOWN, VM_SHARED, VM_WRITE, as_at


cdef int64_t commit_limit(Mm* mm) noexcept nogil:
    cdef int64_t allowed
    if mm.vm.g.overcommit_kbytes:
        allowed = mm.vm.g.overcommit_kbytes >> 2
    else:
        allowed = (mm.g.totalram_pages - mm.vm.g.hugetlb_pages) * mm.vm.g.overcommit_ratio // 100
    return allowed + mm.g.total_swap_pages


cdef int vm_enough_memory(Mm* mm, uint32_t as_, uint64_t pages) noexcept nogil:
    cdef int64_t allowed, reserve, share
    if pages >> 52:                         # more than an address space holds
        return -E_NOMEM
    mm.vm.g.committed += <int64_t>pages
    if mm.vm.g.overcommit_memory == 1:
        return 0
    if mm.vm.g.overcommit_memory == 0:
        if <int64_t>pages <= mm.g.totalram_pages + mm.g.total_swap_pages:
            return 0
    else:
        allowed = commit_limit(mm)
        if not as_ or not as_at(mm, as_).flags & MMF_CAP_SYS_ADMIN:
            allowed -= mm.vm.g.admin_reserve_kbytes >> 2
        if as_:
            reserve = mm.vm.g.user_reserve_kbytes >> 2
            share = <int64_t>(as_at(mm, as_).total_vm // 32)
            allowed -= share if share < reserve else reserve
        if mm.vm.g.committed < allowed:
            return 0
    mm.vm.g.committed -= <int64_t>pages
    return -E_NOMEM


cdef bint may_expand_vm(const AddressSpace* a, uint64_t flags, uint64_t pages) noexcept nogil:
    if a.total_vm + pages > a.rlimit_as >> PAGE_SHIFT:
        return False
    if flags & (VM_WRITE | VM_SHARED | VM_GROWSDOWN) == VM_WRITE and a.data_vm + pages > a.rlimit_data >> PAGE_SHIFT:
        return False
    return True
