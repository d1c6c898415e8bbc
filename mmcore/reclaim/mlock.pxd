# Locked pages: what mlock does to a page (mm/mlock.c). See mlock.pyx.

from libc.stdint cimport uint32_t
from mmcore.base.records cimport Mm

# A page that a VM_LOCKED mapping has begun to map; a new one, which is on no list yet.
cdef void mlock_folio(Mm* mm, uint32_t head, unsigned cpu) noexcept nogil
cdef void mlock_new_folio(Mm* mm, uint32_t head, unsigned cpu) noexcept nogil
# A locked mapping of it is gone, or is no longer locked.
cdef void munlock_folio(Mm* mm, uint32_t head, unsigned cpu) noexcept nogil
