"""Stacks that grow when they are touched.

Models: expand_downwards, acct_stack_growth (mm/mmap.c, v6.12). Simplifies: nothing known. Omits: stacks that grow upwards.
"""
from mmcore.base.errors cimport E_FAULT, E_NOMEM, E_PERM
from mmcore.base.vm_records cimport AddressSpace, Vma
from mmcore.sys.commit cimport may_expand_vm, mlock_future_ok, vm_enough_memory
from mmcore.vm.anon_vma cimport anon_vma_prepare
from mmcore.vm.vma cimport (
    PAGE_DOWN, PAGE_SHIFT, VM_ACCOUNT, VM_GROWSDOWN, VM_LOCKED, as_at, vm_stat_account, vma_at, vma_is_accessible, vma_set_range,
)


cdef int expand_stack(Mm* mm, uint32_t as_, uint32_t vma, uint64_t address, unsigned cpu) noexcept nogil:
    cdef Vma* v = vma_at(mm, vma)
    cdef AddressSpace* a = as_at(mm, as_)
    cdef const Vma* prev
    cdef uint64_t grow
    if not v.flags & VM_GROWSDOWN:
        return -E_FAULT
    address = PAGE_DOWN(address)
    if address < <uint64_t>mm.vm.g.mmap_min_addr:
        return -E_PERM
    if address >= v.start:
        return anon_vma_prepare(mm, vma)
    if v.prev:
        prev = vma_at(mm, v.prev)
        if prev.end > address:
            return -E_FAULT
        if not prev.flags & VM_GROWSDOWN and vma_is_accessible(prev) \
                and address - prev.end < <uint64_t>mm.vm.g.stack_guard_gap << PAGE_SHIFT:
            return -E_NOMEM
    if anon_vma_prepare(mm, vma) < 0:
        return -E_NOMEM
    grow = (v.start - address) >> PAGE_SHIFT
    if grow > v.pgoff or not may_expand_vm(a, v.flags, grow) or v.end - address > a.rlimit_stack:
        return -E_NOMEM
    if not mlock_future_ok(a, v.flags, grow << PAGE_SHIFT):
        return -E_NOMEM
    # the kernel commits for MAP_NORESERVE, too, and never gives that back
    if v.flags & VM_ACCOUNT and vm_enough_memory(mm, as_, grow) < 0:
        return -E_NOMEM
    if v.flags & VM_LOCKED:
        a.locked_vm += grow
    vm_stat_account(a, v.flags, <long long>grow)
    vma_set_range(mm, vma, address, v.end, v.pgoff - grow)
    return 0
