# Commit accounting and the limits of an address space: see commit.pyx. Sizes in pages unless they say otherwise.

from libc.stdint cimport int64_t, uint32_t, uint64_t
from mmcore.base.records cimport Mm
from mmcore.base.vm_records cimport AddressSpace
from mmcore.vm.vma cimport PAGE_SHIFT, VM_LOCKED

# What a task may do beyond others (AddressSpace.flags).
cdef enum MmFlag:
    MMF_CAP_IPC_LOCK = 1            # no limit on locked memory
    MMF_CAP_SYS_ADMIN = 2           # may use the admin reserve of overcommit mode 2
    MMF_CAP_SYS_RAWIO = 4           # may map below vm.mmap_min_addr
    MMF_CAPS = 7

cdef int64_t commit_limit(Mm* mm) noexcept nogil
# Charges `pages` to committed memory: 0 or -E_NOMEM. as_ 0: on behalf of no task.
cdef int vm_enough_memory(Mm* mm, uint32_t as_, uint64_t pages) noexcept nogil

cdef inline void vm_unacct_memory(Mm* mm, uint64_t pages) noexcept nogil:
    mm.vm.g.committed -= <int64_t>pages

# Whether the limits of address space and data allow `pages` more with these flags (the numbers wrap: less is meant then).
cdef bint may_expand_vm(const AddressSpace* a, uint64_t flags, uint64_t pages) noexcept nogil

cdef inline bint can_do_mlock(const AddressSpace* a) noexcept nogil:
    return a.rlimit_memlock != 0 or a.flags & MMF_CAP_IPC_LOCK

# Whether `length` more bytes with these flags keep within the limit of locked memory.
cdef inline bint mlock_future_ok(const AddressSpace* a, uint64_t flags, uint64_t length) noexcept nogil:
    if not flags & VM_LOCKED or a.flags & MMF_CAP_IPC_LOCK:
        return True
    return (length >> PAGE_SHIFT) + a.locked_vm <= a.rlimit_memlock >> PAGE_SHIFT
