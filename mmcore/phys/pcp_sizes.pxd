# Sizes of the per-CPU lists, from the zone's managed pages and low watermark.

from libc.stdint cimport uint32_t
from mmcore.base.records cimport Mm

cdef void pcp_update_sizes(Mm* mm, uint32_t zi) noexcept nogil
