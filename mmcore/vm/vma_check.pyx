"""Recount of VMAs, anon_vmas, files' mappings and committed memory from scratch.

Models: nothing; it is the judge of what mmap, munmap, fork and the rest keep incrementally. Every link is tested before it is followed.
Cost: proportional to the records that were ever used.
"""
from libc.stdint cimport int64_t, uint32_t, uint64_t

import numpy as np

cimport numpy as cnp
from mmcore.base.errors import ValidationError
from mmcore.base.records cimport Mm
from mmcore.base.state cimport State, state_lock, state_unlock
from mmcore.base.vm_records cimport (
    File, FILE_NORESERVE, FILE_SHMEM, POOL_ANON_VMAS, POOL_AVCS, POOL_FILES, POOL_MMS, POOL_VMAS,
)
from mmcore.vm.anon_vma cimport check_anon_vmas, check_chain
from mmcore.vm.vma cimport *

cnp.import_array()

_TEXT = {
    VMA_BAD_LINK: "a link leads outside the pool or in a circle",
    VMA_BAD_RANGE: "a VMA is empty, unaligned or above the address space",
    VMA_BAD_ORDER: "two VMAs overlap or stand in the wrong order",
    VMA_BAD_BACKLINK: "links forth and back disagree",
    VMA_BAD_TREE: "the tree does not hold the VMAs in their order",
    VMA_BAD_PRIORITY: "a node's priority is above its parent's",
    VMA_BAD_GAP: "the largest gap of a subtree is wrong",
    VMA_BAD_COUNT: "map_count is not the number of VMAs",
    VMA_BAD_OWNER: "a VMA belongs to another address space",
    VMA_BAD_TOTALS: "total_vm, data_vm, exec_vm, stack_vm or locked_vm is not the sum of the VMAs",
    VMA_BAD_CACHE: "the cached VMA is not one of the address space",
    VMA_BAD_CHAIN: "the chain of anon_vmas is damaged",
    VMA_BAD_FILE: "a file's list of VMAs is damaged",
}


cdef int check_mm(Mm* mm, uint32_t as_, uint32_t* vmas, uint64_t* accounted) noexcept nogil:
    cdef int rc = check_vmas(mm, as_)
    cdef uint32_t x = as_at(mm, as_).vma_first
    if rc:
        return rc
    while x:
        if not check_chain(mm, x):
            return VMA_BAD_CHAIN
        if vma_at(mm, x).file > pool_of(mm, POOL_FILES).used:
            return VMA_BAD_LINK
        vmas[0] += 1
        if vma_at(mm, x).flags & VM_ACCOUNT:
            accounted[0] += vma_pages(vma_at(mm, x))
        x = vma_at(mm, x).next
    return VMA_OK


cdef bint check_file(Mm* mm, uint32_t file, uint32_t* mapped) noexcept nogil:
    cdef const File* f = &mm.vm.files[file - 1]
    cdef uint32_t x = f.vma_first, prev = 0, n = 0, used = pool_of(mm, POOL_VMAS).used
    while x:
        n += 1
        if x > used or n > used or vma_at(mm, x).file != file or vma_at(mm, x).file_prev != prev or not vma_at(mm, x).mm:
            return False
        prev = x
        x = vma_at(mm, x).file_next
    mapped[0] += n
    return n == f.nr_mapped_vmas


def validate_vmas(State state not None):
    """Raise ValidationError if VMAs, their trees, anon_vmas, files' lists or committed memory disagree with a recount; else return None."""
    cdef Mm* mm = &state.c
    cdef uint32_t x, vmas = 0, mms = 0, file_vmas = 0, mapped = 0
    cdef uint64_t accounted = 0, by_page = 0
    cdef int rc
    cdef cnp.ndarray scratch
    state_lock(state)
    try:
        for x in range(1, pool_of(mm, POOL_MMS).used + 1):
            if not as_at(mm, x).pid:
                continue
            mms += 1
            rc = check_mm(mm, x, &vmas, &accounted)
            if rc:
                raise ValidationError(f"address space {x} (pid {as_at(mm, x).pid}): {_TEXT[rc]}")
        if mms != pool_of(mm, POOL_MMS).live or vmas != pool_of(mm, POOL_VMAS).live:
            raise ValidationError(f"{pool_of(mm, POOL_MMS).live} address spaces and {pool_of(mm, POOL_VMAS).live} VMAs are taken from "
                                  f"their pools, {mms} and {vmas} are in use")
        scratch = np.zeros(3 * pool_of(mm, POOL_ANON_VMAS).used + 1, np.uint32)
        if not check_anon_vmas(mm, <uint32_t*>cnp.PyArray_DATA(scratch)):
            raise ValidationError(f"anon_vmas: counts, references or lists disagree ({pool_of(mm, POOL_ANON_VMAS).live} anon_vmas, "
                                  f"{pool_of(mm, POOL_AVCS).live} links)")
        for x in range(1, pool_of(mm, POOL_FILES).used + 1):
            if not check_file(mm, x, &mapped):
                raise ValidationError(f"file {x}: {_TEXT[VMA_BAD_FILE]}")
            if mm.vm.files[x - 1].flags & FILE_SHMEM:
                if mm.vm.files[x - 1].flags & FILE_NORESERVE:
                    by_page += mm.vm.files[x - 1].nr_pages
                else:
                    accounted += PAGE_UP(mm.vm.files[x - 1].size) >> PAGE_SHIFT
        for x in range(1, pool_of(mm, POOL_VMAS).used + 1):
            file_vmas += vma_at(mm, x).mm != 0 and vma_at(mm, x).file != 0
        if file_vmas != mapped:
            raise ValidationError(f"{file_vmas} VMAs map files, {mapped} stand on the files' lists")
        if mm.vm.g.committed not in (<int64_t>accounted, <int64_t>(accounted + by_page)):
            raise ValidationError(f"{mm.vm.g.committed} pages are committed, the VMAs and files say {accounted}")
    finally:
        state_unlock(state)
