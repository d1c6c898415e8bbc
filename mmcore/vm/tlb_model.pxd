# The TLBs of a machine as a Python object. See tlb_model.pyx.

cimport numpy as cnp
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from mmcore.vm.tlb_records cimport Tlb

cdef class TlbModel:
    cdef readonly cnp.ndarray config
    cdef readonly cnp.ndarray parts
    cdef readonly cnp.ndarray cpus
    cdef readonly cnp.ndarray cpu_stats
    cdef readonly cnp.ndarray mm_gen
    cdef readonly cnp.ndarray keys
    cdef readonly cnp.ndarray stamps
    cdef readonly cnp.ndarray full_at
    cdef readonly cnp.ndarray walk_keys
    cdef readonly cnp.ndarray walk_stamps
    cdef readonly cnp.ndarray walk_full_at
    cdef readonly cnp.ndarray table
    cdef readonly cnp.ndarray blocks
    cdef Tlb c
    cdef int lock
    cdef int make(self, object config, object parts) except -1
    cdef int bind(self) except -1
    cdef void enter(self) noexcept
    cdef void leave(self) noexcept
    cdef unsigned cpu_of(self, object cpu) except? 0xffffffff
    cdef uint32_t mm_of(self, object mm, uint32_t least) except? 0xffffffff
    cdef unsigned shift_of_page(self, object page_shift) except? 0xffffffff
