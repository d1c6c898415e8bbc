# Growth of a stack towards lower addresses.

from libc.stdint cimport uint32_t, uint64_t
from mmcore.base.records cimport Mm

# Extends a GROWSDOWN VMA down to the page of `address`: 0, -E_FAULT (it does not grow), -E_PERM (below vm.mmap_min_addr) or -E_NOMEM
# (another mapping within the guard gap, a limit, or committed memory).
cdef int expand_stack(Mm* mm, uint32_t as_, uint32_t vma, uint64_t address, unsigned cpu) noexcept nogil
