"""Memory for records that come and go: address space that is reserved once and filled as needed.

Models: nothing of the kernel's. Simplifies: a pool has a fixed greatest size (`capacity`), so that the addresses of its records never
change while a run holds them. Omits: giving host memory back when a pool shrinks.

A pool is used from its start; records above its high-water mark (PoolInfo.used) are zero and take no host memory. Records given back
are zero but for the link to the next free one.
"""
from libc.stddef cimport size_t

import numpy as np

cdef extern from "<sys/mman.h>" nogil:
    void* mmap(void* addr, size_t length, int prot, int flags, int fd, long offset)
    int munmap(void* addr, size_t length)
    int madvise(void* addr, size_t length, int advice)
    int PROT_READ, PROT_WRITE, MAP_PRIVATE, MAP_ANONYMOUS, MAP_NORESERVE, MADV_HUGEPAGE
    void* MAP_FAILED


cdef class Region:
    """`nbytes` of zero memory that takes up room only where it is written to. A buffer; freed with the last array over it."""
    cdef void* base
    cdef Py_ssize_t size
    cdef Py_ssize_t shape[1]
    cdef Py_ssize_t strides[1]

    def __cinit__(self, Py_ssize_t nbytes):
        self.base = MAP_FAILED
        if nbytes <= 0:
            raise ValueError(f"nbytes is {nbytes}; it must be positive")
        self.base = mmap(NULL, nbytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
        if self.base == MAP_FAILED:
            raise MemoryError(f"cannot reserve {nbytes} bytes of address space")
        if nbytes >= 1 << 22:
            madvise(self.base, nbytes, MADV_HUGEPAGE)
        self.size = nbytes
        self.shape[0] = nbytes
        self.strides[0] = 1

    def __dealloc__(self):
        if self.base != MAP_FAILED:
            munmap(self.base, self.size)

    def __getbuffer__(self, Py_buffer* buffer, int flags):
        buffer.buf = self.base
        buffer.obj = self
        buffer.len = self.size
        buffer.readonly = 0
        buffer.itemsize = 1
        buffer.format = b"B"
        buffer.ndim = 1
        buffer.shape = self.shape
        buffer.strides = self.strides
        buffer.suboffsets = NULL
        buffer.internal = NULL

    def __releasebuffer__(self, Py_buffer* buffer):
        pass


def reserve(Py_ssize_t capacity, dtype, Py_ssize_t least=1024):
    """An array of up to `capacity` zero records: as many as the system grants address space for, at least `least` (MemoryError)."""
    dtype = np.dtype(dtype)
    while True:
        try:
            return np.frombuffer(Region(max(capacity, 1) * dtype.itemsize), dtype)
        except MemoryError:
            if capacity <= least:
                raise
            capacity = max(capacity // 2, least)
