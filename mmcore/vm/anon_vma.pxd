# Which VMAs may map an anonymous page: see anon_vma.pyx. VMAs, anon_vmas and links by index + 1.

from libc.stdint cimport uint32_t
from mmcore.base.records cimport Mm, mm_assert
from mmcore.base.vm_records cimport AnonVma, Avc, Vma

cdef inline AnonVma* anon_vma_at(Mm* mm, uint32_t x) noexcept nogil:
    mm_assert(x != 0)
    return &mm.vm.anon_vmas[x - 1]

cdef inline Avc* avc_at(Mm* mm, uint32_t x) noexcept nogil:
    mm_assert(x != 0)
    return &mm.vm.avcs[x - 1]

# The chain of a VMA has exactly one element.
cdef inline bint chain_is_singular(Mm* mm, const Vma* v) noexcept nogil:
    return v.avc_first != 0 and mm.vm.avcs[v.avc_first - 1].same_vma_next == 0

# Gives a VMA an anon_vma before its first anonymous page, a compatible neighbour's if there is one: 0 or -E_NOMEM.
cdef int anon_vma_prepare(Mm* mm, uint32_t vma) noexcept nogil
# dst, whose anon_vma is set (split, merge) or 0 (fork), joins every anon_vma of src: 0 or -E_NOMEM (nothing is changed then).
cdef int anon_vma_clone(Mm* mm, uint32_t dst, uint32_t src) noexcept nogil
# The child's VMA `vma` of a fork, copied from `parent`: 0 or -E_NOMEM.
cdef int anon_vma_fork(Mm* mm, uint32_t vma, uint32_t parent) noexcept nogil
cdef void unlink_anon_vmas(Mm* mm, uint32_t vma) noexcept nogil
# Recount of the chains of one VMA: whether they are right.
cdef bint check_chain(Mm* mm, uint32_t vma) noexcept nogil
# Recount of all anon_vmas and chain links of a machine (counts, references, children): whether they are right.
cdef bint check_anon_vmas(Mm* mm, uint32_t* scratch) noexcept nogil
