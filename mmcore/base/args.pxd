# What every call from Python checks before it reaches the core: numbers in their range, arrays of page frames that are not the machine's.

cimport numpy as cnp
from mmcore.base.state cimport State

cdef extern from *:
    """
    #if PY_VERSION_HEX >= 0x030C0000
    #define mm_is_compact(o) (PyLong_CheckExact(o) && PyUnstable_Long_IsCompact((PyLongObject *)(o)))
    #define mm_compact_value(o) ((long long)PyUnstable_Long_CompactValue((PyLongObject *)(o)))
    #else
    #define mm_is_compact(o) (PyLong_CheckExact(o) && (size_t)(Py_SIZE(o) + 1) < 3)
    #define mm_compact_value(o) ((long long)Py_SIZE(o) * (long long)((PyLongObject *)(o))->ob_digit[0])
    #endif
    """
    bint mm_is_compact(object o) noexcept
    long long mm_compact_value(object o) noexcept

cdef long long as_int_slow(object value, str name, long long lo, long long hi) except? -1
cdef cnp.ndarray pfn_array(object pfns, bint writeable)
cdef int not_ours(State s, cnp.ndarray out) except -1

# An int in lo..hi; TypeError or ValueError name the value and the limit. Small exact ints take the short way.
cdef inline long long as_int(object value, str name, long long lo, long long hi) except? -1:
    cdef long long x
    if mm_is_compact(value):
        x = mm_compact_value(value)
        if lo <= x <= hi:
            return x
    return as_int_slow(value, name, lo, hi)

cdef inline unsigned as_gfp(object gfp) except? 0xffffffff:
    return <unsigned>as_int(gfp, "gfp", 0, 0x1ffffff)
