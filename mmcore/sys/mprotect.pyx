"""mprotect.

Models: do_mprotect_pkey, mprotect_fixup (mm/mprotect.c, v6.12). Simplifies: nothing known. Omits: protection keys, memory sealing.
"""
from libc.stdint cimport int64_t

from mmcore.base.errors cimport E_ACCES, E_INVAL, E_NOMEM
from mmcore.base.vm_records cimport AddressSpace, Vma
from mmcore.sys.commit cimport may_expand_vm, vm_enough_memory, vm_unacct_memory
from mmcore.sys.mmap cimport PROT_EXEC, PROT_READ, PROT_SEM, PROT_WRITE
from mmcore.sys.populate cimport populate_vma
from mmcore.sys.protect cimport change_protection
from mmcore.sys.vma_ops cimport vma_modify
from mmcore.vm.vma cimport *

cdef enum:
    PROT_GROWSDOWN = 0x01000000
    PROT_GROWSUP = 0x02000000


cdef int mprotect_fixup(Mm* mm, uint32_t as_, uint32_t* vma, uint64_t start, uint64_t end, uint64_t flags, unsigned cpu) noexcept nogil:
    # One VMA's share; vma[0] becomes the VMA that holds the range afterwards.
    cdef Vma* v = vma_at(mm, vma[0])
    cdef AddressSpace* a = as_at(mm, as_)
    cdef uint64_t old = v.flags, pages = (end - start) >> PAGE_SHIFT, charged = 0
    cdef int64_t rc
    if flags == old:
        return 0
    if flags & VM_WRITE:
        # private memory that becomes writable is charged; the charge stays when it becomes read-only, unless it was never touched
        if not may_expand_vm(a, flags, pages) and may_expand_vm(a, old, pages):
            return -E_NOMEM
        if not old & (VM_ACCOUNT | VM_WRITE | VM_HUGETLB | VM_SHARED | VM_NORESERVE):
            if vm_enough_memory(mm, as_, pages) < 0:
                return -E_NOMEM
            charged = pages
            flags |= VM_ACCOUNT
    elif old & VM_ACCOUNT and vma_is_anonymous(v) and not v.anon_vma:
        flags &= ~<uint64_t>VM_ACCOUNT
    rc = vma_modify(mm, vma[0], start, end, flags, v.name, cpu)
    if rc < 0:
        vm_unacct_memory(mm, charged)
        return <int>rc
    vma[0] = <uint32_t>rc
    vma_at(mm, vma[0]).flags = flags
    change_protection(mm, as_, vma[0], start, end, cpu)
    if old & VM_ACCOUNT and not flags & VM_ACCOUNT:
        vm_unacct_memory(mm, pages)
    if old & (VM_WRITE | VM_SHARED | VM_LOCKED) == VM_LOCKED and flags & VM_WRITE:
        populate_vma(mm, as_, vma[0], start, end, cpu)
    vm_stat_account(a, old, -<int64_t>pages)
    vm_stat_account(a, flags, <int64_t>pages)
    return 0


cdef int do_mprotect(Mm* mm, uint32_t as_, uint64_t start, uint64_t length, uint64_t prot, unsigned cpu) noexcept nogil:
    cdef uint64_t grows = prot & (PROT_GROWSDOWN | PROT_GROWSUP), end, at, stop, flags
    cdef uint32_t x
    cdef int rc
    prot &= ~<uint64_t>(PROT_GROWSDOWN | PROT_GROWSUP)
    if grows == (PROT_GROWSDOWN | PROT_GROWSUP) or start & (PAGE_BYTES - 1):
        return -E_INVAL
    if not length:
        return 0
    end = start + PAGE_UP(length)
    if end <= start or PAGE_UP(length) < length:
        return -E_NOMEM
    if prot & ~<uint64_t>(PROT_READ | PROT_WRITE | PROT_EXEC | PROT_SEM):
        return -E_INVAL
    x = find_vma_intersection(mm, as_, start, end)
    if not x:
        return -E_NOMEM
    if grows & PROT_GROWSDOWN:
        start = vma_at(mm, x).start
        if not vma_at(mm, x).flags & VM_GROWSDOWN:
            return -E_INVAL
    elif vma_at(mm, x).start > start:
        return -E_NOMEM
    elif grows & PROT_GROWSUP:
        return -E_INVAL                     # no VMA here grows upwards
    at = start
    while x and vma_at(mm, x).start < end:
        if vma_at(mm, x).start > at:
            return -E_NOMEM
        flags = vma_at(mm, x).flags & ~<uint64_t>VM_ACCESS_FLAGS | prot & VM_ACCESS_FLAGS
        if flags & ~(flags >> 4) & VM_ACCESS_FLAGS:
            return -E_ACCES
        stop = vma_at(mm, x).end if vma_at(mm, x).end < end else end
        rc = mprotect_fixup(mm, as_, &x, at, stop, flags, cpu)
        if rc < 0:
            return rc
        at = vma_at(mm, x).end              # beyond `end` after a merge with what follows
        x = vma_at(mm, x).next
    return -E_NOMEM if at < end else 0
