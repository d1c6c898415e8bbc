"""Checks of arguments that come from Python.

Models: nothing. Simplifies: nothing. Every refusal names the value and the limit, and happens before anything changes.
"""
import numpy as np

from cpython.long cimport PyLong_AsLongLongAndOverflow, PyLong_Check

cnp.import_array()


cdef long long as_int_slow(object value, str name, long long lo, long long hi) except? -1:
    # Conversion that names what is wrong: bool and float are no counts.
    cdef int overflow = 0
    cdef long long x
    if not PyLong_Check(value) or value is True or value is False:
        if not hasattr(value, "__index__") or isinstance(value, (bool, np.bool_)):
            raise TypeError(f"{name} must be an integer, not {type(value).__name__}")
        value = value.__index__()
    x = PyLong_AsLongLongAndOverflow(value, &overflow)
    if overflow or x < lo or x > hi:
        raise ValueError(f"{name} is {value}; it must lie in {lo}..{hi}")
    return x


cdef cnp.ndarray pfn_array(object pfns, bint writeable):
    if (not cnp.PyArray_Check(pfns) or cnp.PyArray_TYPE(<cnp.ndarray>pfns) != cnp.NPY_UINT32 or cnp.PyArray_NDIM(<cnp.ndarray>pfns) != 1
            or not cnp.PyArray_IS_C_CONTIGUOUS(<cnp.ndarray>pfns) or not cnp.PyArray_ISNOTSWAPPED(<cnp.ndarray>pfns)):
        raise TypeError("page frames must come in a one-dimensional contiguous array of uint32, not "
                        + (f"{pfns.ndim}-dimensional {pfns.dtype}" if isinstance(pfns, np.ndarray) else type(pfns).__name__))
    if writeable and not cnp.PyArray_ISWRITEABLE(<cnp.ndarray>pfns):
        raise ValueError("the array for the page frames is read-only")
    return pfns


cdef inline bint overlaps(cnp.ndarray a, cnp.ndarray b) noexcept:
    cdef char* pa = <char*>cnp.PyArray_DATA(a)
    cdef char* pb = <char*>cnp.PyArray_DATA(b)
    return pa < pb + cnp.PyArray_NBYTES(b) and pb < pa + cnp.PyArray_NBYTES(a)


cdef int not_ours(State s, cnp.ndarray out) except -1:
    if (overlaps(out, s.all_pages) or overlaps(out, s.meta) or overlaps(out, s.pageblocks) or overlaps(out, s.zones) or overlaps(out, s.pcps)
            or overlaps(out, s.nodes) or overlaps(out, s.globals) or overlaps(out, s.lazy) or overlaps(out, s.present)
            or overlaps(out, s.zonelists) or overlaps(out, s.cpu_node) or overlaps(out, s.distances)):
        raise ValueError("the array for the page frames is part of the machine's own arrays")
    return 0
