# Making, merging, splitting and removing VMAs: see vma_ops.pyx. All by index + 1, 0 is none.

from libc.stdint cimport int64_t, uint32_t, uint64_t
from mmcore.base.records cimport Mm
from mmcore.base.vm_records cimport File

# A range that is to be mapped, with what a VMA over it would hold.
cdef struct NewRange:
    uint64_t start
    uint64_t end
    uint64_t flags
    uint64_t pgoff
    uint32_t file
    uint32_t anon_vma
    uint32_t name
    bint just_expand                # only the VMA below may grow (brk)

cdef inline File* file_at(Mm* mm, uint32_t x) noexcept nogil:
    return &mm.vm.files[x - 1]

# A VMA whose file is set joins the list of that file.
cdef void file_add_vma(Mm* mm, uint32_t vma) noexcept nogil

# Joins a new range with prev and next where it may; the VMA that holds it then, or 0.
cdef uint32_t merge_new_range(Mm* mm, uint32_t as_, uint32_t prev, uint32_t next_, const NewRange* r, unsigned cpu) noexcept nogil
# merge_new_range(), or else a new VMA: 0 when there is no record left. Sums and charges are the caller's.
cdef uint32_t map_range(Mm* mm, uint32_t as_, uint32_t prev, uint32_t next_, const NewRange* r, unsigned cpu) noexcept nogil
# Cuts a VMA at `address`: the lower part becomes the new record (`below`), or the upper one: 0, -E_NOMEM, or
# -E_INVAL (hugetlb, not at a huge page's border). The second form obeys
# max_map_count.
cdef int split_vma_always(Mm* mm, uint32_t vma, uint64_t address, bint below, unsigned cpu) noexcept nogil
cdef int split_vma(Mm* mm, uint32_t vma, uint64_t address, bint below, unsigned cpu) noexcept nogil
# A VMA of exactly [start, end), or a larger one, that may take new flags and a name for that range: merges or splits; its number, or
# what split_vma() says. The caller sets the flags.
cdef int64_t vma_modify(Mm* mm, uint32_t vma, uint64_t start, uint64_t end, uint64_t flags, uint32_t name, unsigned cpu) noexcept nogil
# Takes a VMA, whose pages are gone, out of its address space. Sums and charges are the caller's.
cdef void remove_vma(Mm* mm, uint32_t vma, unsigned cpu) noexcept nogil
