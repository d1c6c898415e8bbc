# What every call from Python checks before it reaches the core: numbers in their range, arrays of page frames that are not the machine's.

cimport numpy as cnp
from mmcore.base.state cimport State

cdef long long as_int(object value, str name, long long lo, long long hi) except? -1
cdef unsigned as_gfp(object gfp) except? 0xffffffff
cdef cnp.ndarray pfn_array(object pfns, bint writeable)
cdef int not_ours(State s, cnp.ndarray out) except -1
