# Page protections from VMA flags (vm_get_page_prot, vma_set_page_prot): x86 entries without a frame.

from libc.stdint cimport uint64_t
from mmcore.vm.pgtable cimport PTE_ACCESSED, PTE_DIRTY, PTE_NX, PTE_PRESENT, PTE_PROTNONE, PTE_RW, PTE_SOFT_DIRTY, PTE_USER

cdef enum:
    PROT_VM_READ = 1
    PROT_VM_WRITE = 2
    PROT_VM_EXEC = 4
    PROT_VM_SHARED = 8

# `notify`: a shared mapping whose file wants to hear of the first write to each page.
cdef inline uint64_t page_prot(uint64_t vm_flags, bint notify) noexcept nogil:
    cdef uint64_t e = PTE_ACCESSED
    if not vm_flags & (PROT_VM_READ | PROT_VM_WRITE | PROT_VM_EXEC):
        return e | PTE_PROTNONE
    e |= PTE_PRESENT | PTE_USER
    if not vm_flags & PROT_VM_EXEC:
        e |= PTE_NX
    if vm_flags & PROT_VM_WRITE and vm_flags & PROT_VM_SHARED and not notify:
        e |= PTE_RW
    return e

# A software-set dirty bit.
cdef inline uint64_t mkdirty(uint64_t e) noexcept nogil:
    return e | PTE_DIRTY | PTE_SOFT_DIRTY
