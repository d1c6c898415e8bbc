"""Operations of address spaces in a stream.

Models: the system calls of memory and single accesses, as a recorded program makes them. Simplifies: a failed call is its negative errno.
Omits: waiting for I/O.
"""
from libc.stdint cimport uint8_t, uint32_t

from mmcore.base.errors cimport E_FAULT, E_INVAL, E_IO, E_NOENT, E_NOMEM
from mmcore.base.vm_records cimport POOL_FILES
from mmcore.reclaim.lru cimport lru_add_drain
from mmcore.run.access cimport AccessCounts, run_accesses
from mmcore.run.ops cimport *
from mmcore.sys.brk cimport do_brk
from mmcore.sys.fault_codes cimport HIT, MAJOR, MINOR, OOM, SIGBUS
from mmcore.sys.madvise cimport do_madvise
from mmcore.sys.mlock cimport do_mlock, do_munlock
from mmcore.sys.mmap cimport do_mmap, do_munmap
from mmcore.sys.mprotect cimport do_mprotect
from mmcore.sys.mremap cimport do_mremap
from mmcore.sys.populate cimport mm_populate
from mmcore.sys.process cimport mm_create, mm_exit, mm_fork
from mmcore.vm.pgtable cimport mm_alive
from mmcore.vm.tlb cimport Tlb, tlb_enter_lazy, tlb_flush_local, tlb_switch_mm

cdef enum:
    CHUNK = 512


cdef int64_t op_mmap(Mm* mm, const OpRecord* o, uint32_t as_, uint64_t address, uint64_t* value) noexcept nogil:
    cdef uint64_t populate = 0
    cdef int64_t rc
    if o.task and (o.task > mm.vm.pools[POOL_FILES].used or not mm.vm.files[o.task - 1].id):
        return -E_NOENT
    rc = do_mmap(mm, as_, address, o.b, o.c & 0xff, o.c >> 8 & 0xffffff, o.task, (o.c >> 32) << 12, o.cpu, &populate)
    if rc < 0:
        return rc
    value[0] = <uint64_t>rc
    if populate:
        mm_populate(mm, as_, <uint64_t>rc, populate, True, o.cpu)
    return 0


cdef int64_t op_access(Mm* mm, const OpRecord* o, uint32_t as_, uint64_t address, uint64_t* value) noexcept nogil:
    cdef AccessCounts counts
    cdef uint64_t vpn = address >> 12
    cdef uint8_t code = 0
    counts.result[:] = [0, 0, 0, 0, 0, 0, 0, 0]
    counts.read_bit = 0
    run_accesses(mm, as_, &vpn, NULL, o.flags & OPF_WRITE != 0, 1, o.cpu, &code, &counts)
    value[0] = code
    if code <= HIT:
        return 0
    return -E_NOMEM if code == OOM else -E_IO if code == SIGBUS else -E_FAULT


cdef int64_t op_access_range(Mm* mm, const OpRecord* o, uint32_t as_, uint64_t address, uint64_t* value) noexcept nogil:
    cdef AccessCounts counts
    cdef uint64_t vpns[CHUNK]
    cdef uint64_t at = address >> 12, left = o.b
    cdef int64_t n, done, total = 0
    cdef int k
    if o.b > 1 << 24:           # one op is not interrupted
        return -E_INVAL
    counts.result[:] = [0, 0, 0, 0, 0, 0, 0, 0]
    counts.read_bit = 0
    while left:
        n = CHUNK if left > CHUNK else <int64_t>left
        for k in range(<int>n):
            vpns[k] = at + <uint64_t>k
        done = run_accesses(mm, as_, vpns, NULL, o.flags & OPF_WRITE != 0, n, o.cpu, NULL, &counts)
        total += done
        at += <uint64_t>n
        left -= <uint64_t>n
        if counts.result[OOM]:
            break
    value[0] = <uint64_t>(counts.result[MINOR] + counts.result[MAJOR])
    return total


cdef int64_t run_vm_op(Mm* mm, const OpRecord* o, uint64_t handle, uint64_t address, uint64_t* value) noexcept nogil:
    cdef uint32_t as_ = <uint32_t>handle
    cdef int64_t rc
    if o.op == LRU_ADD_DRAIN:
        lru_add_drain(mm, o.cpu)
        return 0
    if o.op == TLB_FLUSH:
        lru_add_drain(mm, o.cpu)
        if mm.vm.tlb != NULL:
            tlb_flush_local(<Tlb*>mm.vm.tlb, o.cpu)
        return 0
    if o.op == CONTEXT_SWITCH and handle == 0:
        if mm.vm.tlb != NULL:
            tlb_enter_lazy(<Tlb*>mm.vm.tlb, o.cpu)
        return 0
    if o.op == SPAWN:
        rc = mm_create(mm, 0, False, o.cpu)
    elif not mm_alive(mm, handle):
        return -E_NOENT
    elif o.op == CONTEXT_SWITCH:
        if mm.vm.tlb != NULL:
            tlb_switch_mm(<Tlb*>mm.vm.tlb, o.cpu, as_)
        return 0
    elif o.op == FORK:
        rc = mm_fork(mm, as_, o.cpu)
    elif o.op == EXIT:
        mm_exit(mm, as_, o.cpu)
        return 0
    elif o.op == MMAP:
        return op_mmap(mm, o, as_, address, value)
    elif o.op == MUNMAP:
        return do_munmap(mm, as_, address, o.b, o.cpu)
    elif o.op == MPROTECT:
        return do_mprotect(mm, as_, address, o.b, o.c, o.cpu)
    elif o.op == MREMAP:
        rc = do_mremap(mm, as_, address, o.b, o.c, o.task, 0, o.cpu)
    elif o.op == BRK:
        rc = do_brk(mm, as_, address, o.cpu)
    elif o.op == MADVISE:
        return do_madvise(mm, as_, address, o.b, <int>(o.c & 0xffff), o.cpu)
    elif o.op == MLOCK:
        return do_mlock(mm, as_, address, o.b, o.c & 1, o.cpu)
    elif o.op == MUNLOCK:
        return do_munlock(mm, as_, address, o.b, o.cpu)
    elif o.op == ACCESS:
        return op_access(mm, o, as_, address, value)
    elif o.op == ACCESS_RANGE:
        return op_access_range(mm, o, as_, address, value)
    else:
        return -E_INVAL
    if rc < 0:
        return rc
    value[0] = <uint64_t>rc
    return 0
