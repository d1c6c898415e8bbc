"""The operation record as a numpy dtype.

Models: nothing of the kernel's; it is the one way into a machine. Simplifies: one record form for all operations, 40 bytes.
Omits: operations of rooms that do not exist yet.
"""
import numpy as np

cdef OpRecord _op
cdef OpRecord[::1] _view = <OpRecord[:1]>&_op

OP_DTYPE = np.asarray(_view).dtype
