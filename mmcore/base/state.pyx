"""State: the arrays of one simulated machine.

Models: mem_map, pg_data_t, struct zone and the per-CPU pagesets as arrays of records. Simplifies: one lock for all. Omits: hotplug
(arrays never grow).

Memory that no one wrote to is zero and costs nothing: building, copying and comparing take time in proportion to what was touched.
"""
from libc.stdint cimport uint8_t, uint16_t
from libc.string cimport memcmp, memcpy, memset

import numpy as np
from mmcore.base.records import (
    GLOBALS_DTYPE, LAZY_DTYPE, META_DTYPE, NODE_DTYPE, PAGE_DTYPE, PAGEBLOCK_DTYPE, PCP_DTYPE, PRESENT_DTYPE, ZONE_DTYPE,
)
from mmcore.base.records cimport (
    Globals, HEADS_PER_ZONE, LazyRange, MAX_NR_ZONES, Node, NR_PCP_LISTS, Page, Pageblock, PageMeta, Pcp, PresentRange, Zone,
)

cnp.import_array()

ARRAYS = ("all_pages", "meta", "pageblocks", "zones", "pcps", "nodes", "globals", "lazy", "present", "zonelists", "cpu_node", "distances")

cdef enum:
    CACHE_LINE = 64
    CHUNK = 1 << 16     # bytes compared and copied at a time when zero memory is skipped

cdef extern from *:
    """
    static int mm_is_zero(const unsigned char *p, size_t n) {
        /* one byte, then the buffer against itself shifted: memcmp reads zero memory without writing any */
        return n == 0 || (p[0] == 0 && memcmp(p, p + 1, n - 1) == 0);
    }
    """
    bint mm_is_zero(const void* p, size_t n) noexcept nogil


cdef void sparse_copy(uint8_t* dst, const uint8_t* src, size_t n) noexcept nogil:
    # dst is all zero: only what is not zero is written
    cdef size_t at = 0, m
    while at < n:
        m = CHUNK if n - at > CHUNK else n - at
        if not mm_is_zero(src + at, m):
            memcpy(dst + at, src + at, m)
        at += m


cdef void sparse_clear(uint8_t* dst, size_t n) noexcept nogil:
    cdef size_t at = 0, m
    while at < n:
        m = CHUNK if n - at > CHUNK else n - at
        if not mm_is_zero(dst + at, m):
            memset(dst + at, 0, m)
        at += m


cdef void sparse_assign(uint8_t* dst, const uint8_t* src, size_t n) noexcept nogil:
    # dst holds anything: only what differs is written
    cdef size_t at = 0, m
    while at < n:
        m = CHUNK if n - at > CHUNK else n - at
        if memcmp(dst + at, src + at, m) != 0:
            memcpy(dst + at, src + at, m)
        at += m


def aligned_zeros(shape, dtype):
    """np.zeros() whose memory begins at a cache line: then four page records share one, and a block's first buddies with them."""
    dtype = np.dtype(dtype)
    nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    raw = np.zeros(nbytes + CACHE_LINE, np.uint8)
    at = -raw.ctypes.data % CACHE_LINE
    return raw[at:at + nbytes].view(dtype).reshape(shape)


cdef class State:
    """Owner of a machine's arrays. Sizes are fixed when it is built; mmcore.phys.boot fills it.

    Parameters: nr_pages (page frames that can be named; below 2**31), nr_nodes, nr_zone_types, nr_cpus, nr_lazy (ranges of untouched
    blocks), nr_present (ranges of memory).
    """

    def __init__(self, *, nr_pages, nr_nodes, nr_zone_types, nr_cpus, nr_lazy, nr_present):
        nr_zones = nr_nodes * nr_zone_types
        nr_heads = nr_zones * HEADS_PER_ZONE + nr_zones * nr_cpus * NR_PCP_LISTS
        if not 0 < nr_pages < 2**31:
            raise ValueError(f"nr_pages is {nr_pages}; it must lie in 1..{2**31 - 1}")
        if nr_zones * nr_cpus > 2**22 or nr_zones > 60000:
            raise ValueError(f"{nr_zones} zones on {nr_cpus} CPUs are too many (limit: 4194304 pagesets)")
        padded = (nr_pages + 1023) // 1024 * 1024
        self.all_pages = aligned_zeros(padded + nr_heads, PAGE_DTYPE)
        self.meta = aligned_zeros(padded, META_DTYPE)
        self.pageblocks = aligned_zeros(padded // 512, PAGEBLOCK_DTYPE)
        self.zones = aligned_zeros(nr_zones, ZONE_DTYPE)
        self.pcps = aligned_zeros(nr_zones * nr_cpus, PCP_DTYPE)
        self.nodes = aligned_zeros(nr_nodes, NODE_DTYPE)
        self.globals = aligned_zeros(1, GLOBALS_DTYPE)
        self.lazy = aligned_zeros(nr_lazy + 1, LAZY_DTYPE)
        self.present = aligned_zeros(nr_present + 1, PRESENT_DTYPE)
        zl_stride = nr_zones + 1
        self.zonelists = aligned_zeros((nr_nodes, 2, zl_stride), np.uint16)
        self.cpu_node = aligned_zeros(nr_cpus, np.uint16)
        self.distances = aligned_zeros((nr_nodes, nr_nodes), np.uint8)
        g = self.globals[0]
        g["nr_pages"], g["nr_heads"], g["nr_zones"], g["nr_nodes"] = nr_pages, nr_heads, nr_zones, nr_nodes
        g["nr_cpus"], g["nr_blocks"], g["zl_stride"], g["nr_present"] = nr_cpus, padded // 512, zl_stride, nr_present
        g["nr_zone_types"] = nr_zone_types
        self.bind()

    cdef int bind(self) except -1:
        # The only place that takes addresses.
        self.pages = self.all_pages[:int(self.globals["nr_pages"][0])]
        self.c.pages = <Page*>cnp.PyArray_DATA(self.all_pages)
        self.c.link = self.c.pages - 1
        self.c.meta = <PageMeta*>cnp.PyArray_DATA(self.meta)
        self.c.blocks = <Pageblock*>cnp.PyArray_DATA(self.pageblocks)
        self.c.zones = <Zone*>cnp.PyArray_DATA(self.zones)
        self.c.pcps = <Pcp*>cnp.PyArray_DATA(self.pcps)
        self.c.nodes = <Node*>cnp.PyArray_DATA(self.nodes)
        self.c.g = <Globals*>cnp.PyArray_DATA(self.globals)
        self.c.lazy = <LazyRange*>cnp.PyArray_DATA(self.lazy)
        self.c.present = <PresentRange*>cnp.PyArray_DATA(self.present)
        self.c.zonelists = <uint16_t*>cnp.PyArray_DATA(self.zonelists)
        self.c.cpu_node = <uint16_t*>cnp.PyArray_DATA(self.cpu_node)
        self.c.distances = <uint8_t*>cnp.PyArray_DATA(self.distances)
        self.c.trace.rows = NULL
        self.c.trace.enabled = 0
        self.c.hint = NULL
        self.c.lock = 0
        return 0

    cdef void lock_slow(self) noexcept:
        cdef int* lock = &self.c.lock
        with nogil:
            while not mm_try_lock(lock):
                sched_yield()

    cdef void enter_slow(self) noexcept:
        cdef int* lock = &self.c.lock
        while not mm_try_enter(lock):
            with nogil:
                sched_yield()

    @property
    def nbytes(self):
        """Bytes of all arrays, as addressed (memory that was never touched is not resident)."""
        return sum(getattr(self, name).nbytes for name in ARRAYS)

    @property
    def first_head(self):
        """Index of the first list head in `all_pages`."""
        return len(self.all_pages) - int(self.globals["nr_heads"][0])

    def arrays(self):
        """The arrays by name (not copies)."""
        return {name: getattr(self, name) for name in ARRAYS}

    def copy(self):
        """An independent machine in the same state; memory that is zero is not written."""
        cdef State other = State.__new__(State)
        cdef cnp.ndarray a, b
        cdef size_t n
        cdef uint8_t* dst
        cdef uint8_t* src
        state_lock(self)
        try:
            for name in ARRAYS:
                a = getattr(self, name)
                b = aligned_zeros((<object>a).shape, a.dtype)
                n = (<object>a).nbytes
                src = <uint8_t*>cnp.PyArray_DATA(a)
                dst = <uint8_t*>cnp.PyArray_DATA(b)
                with nogil:
                    sparse_copy(dst, src, n)
                other._adopt(name, b)
        finally:
            state_unlock(self)
        other.bind()
        return other

    def _adopt(self, str name, cnp.ndarray array):
        if name == "all_pages":
            self.all_pages = array
        elif name == "meta":
            self.meta = array
        elif name == "pageblocks":
            self.pageblocks = array
        elif name == "zones":
            self.zones = array
        elif name == "pcps":
            self.pcps = array
        elif name == "nodes":
            self.nodes = array
        elif name == "globals":
            self.globals = array
        elif name == "lazy":
            self.lazy = array
        elif name == "present":
            self.present = array
        elif name == "zonelists":
            self.zonelists = array
        elif name == "cpu_node":
            self.cpu_node = array
        elif name == "distances":
            self.distances = array
        else:
            raise KeyError(name)

    @staticmethod
    def from_arrays(dict arrays):
        """A State that owns the given arrays (no copy). Only names, dtypes and sizes are checked here: contents are for validate()."""
        cdef State s
        templates = {
            "all_pages": PAGE_DTYPE, "meta": META_DTYPE, "pageblocks": PAGEBLOCK_DTYPE, "zones": ZONE_DTYPE, "pcps": PCP_DTYPE,
            "nodes": NODE_DTYPE, "globals": GLOBALS_DTYPE, "lazy": LAZY_DTYPE, "present": PRESENT_DTYPE,
            "zonelists": np.dtype(np.uint16), "cpu_node": np.dtype(np.uint16), "distances": np.dtype(np.uint8),
        }
        for name, dtype in templates.items():
            a = arrays.get(name)
            if not isinstance(a, np.ndarray) or a.dtype != dtype or not a.flags.c_contiguous:
                raise ValueError(f"array {name!r} is missing or not a contiguous array of {dtype}")
        if arrays["globals"].shape != (1,):
            raise ValueError(f"array 'globals' has shape {arrays['globals'].shape}, not (1,)")
        g = arrays["globals"][0]
        pages, zones, nodes, cpus = (int(g[k]) for k in ("nr_pages", "nr_zones", "nr_nodes", "nr_cpus"))
        padded = (pages + 1023) // 1024 * 1024
        types = int(g["nr_zone_types"])
        heads = zones * HEADS_PER_ZONE + zones * cpus * NR_PCP_LISTS
        want = {
            "all_pages": (padded + heads,), "meta": (padded,), "pageblocks": (padded // 512,), "zones": (zones,), "pcps": (zones * cpus,),
            "nodes": (nodes,), "zonelists": (nodes, 2, zones + 1), "cpu_node": (cpus,), "distances": (nodes, nodes),
        }
        if not 0 < pages < 2**31 or nodes < 1 or cpus < 1 or zones != nodes * types or not 1 <= types <= MAX_NR_ZONES:
            raise ValueError(f"impossible shape: {pages} pages, {nodes} nodes x {types} zone types, {zones} zones, {cpus} CPUs")
        if int(g["nr_heads"]) != heads or int(g["zl_stride"]) != zones + 1 or int(g["nr_blocks"]) != padded // 512:
            raise ValueError("sizes kept in 'globals' disagree with each other")
        if int(g["nr_present"]) + 1 != len(arrays["present"]) or len(arrays["lazy"]) < 1:
            raise ValueError("array 'present' or 'lazy' has a wrong length")
        for name, shape in want.items():
            if arrays[name].shape != shape:
                raise ValueError(f"array {name!r} has shape {arrays[name].shape}, not {shape}")
        s = State.__new__(State)
        for name in templates:
            s._adopt(name, arrays[name])
        s.bind()
        return s

    def assign(self, State other):
        """Take over the contents of `other`, a State of the same sizes (restore of a snapshot)."""
        for name in ARRAYS:
            a, b = getattr(self, name), getattr(other, name)
            if a.shape != b.shape or a.dtype != b.dtype:
                raise ValueError(f"array {name!r} has shape {a.shape} here and {b.shape} in the snapshot")
        cdef cnp.ndarray x, y
        cdef size_t n
        cdef uint8_t* dst
        cdef uint8_t* src
        state_lock(self)
        try:
            for name in ARRAYS:
                x, y = getattr(self, name), getattr(other, name)
                n = (<object>x).nbytes
                dst = <uint8_t*>cnp.PyArray_DATA(x)
                src = <uint8_t*>cnp.PyArray_DATA(y)
                with nogil:
                    sparse_assign(dst, src, n)
        finally:
            state_unlock(self)

    def clear_pages(self):
        """Make every page record, and every list head, zero again; memory that is zero is not written."""
        state_lock(self)
        sparse_clear(<uint8_t*>self.c.pages, (<object>self.all_pages).nbytes)
        sparse_clear(<uint8_t*>self.c.meta, (<object>self.meta).nbytes)
        state_unlock(self)

    def same_bytes(self, State other):
        """Whether all arrays are equal, byte by byte (names of those that differ: `differing`)."""
        return not self.differing(other)

    def differing(self, State other):
        """Names of the arrays that differ in size or content."""
        cdef cnp.ndarray a, b
        cdef size_t n
        cdef int rc
        out = []
        for name in ARRAYS:
            a = getattr(self, name)
            b = getattr(other, name)
            if (<object>a).shape != (<object>b).shape or a.dtype != b.dtype:
                out.append(name)
                continue
            n = (<object>a).nbytes
            rc = memcmp(cnp.PyArray_DATA(a), cnp.PyArray_DATA(b), n)
            if rc != 0:
                out.append(name)
        return out

    def nonzero_chunks(self, str name):
        """Indices of the 64 KiB chunks of an array that are not all zero: array of int64 (a saved machine holds only these)."""
        cdef cnp.ndarray a = getattr(self, name)
        cdef size_t n = (<object>a).nbytes, at = 0, m
        cdef uint8_t* p = <uint8_t*>cnp.PyArray_DATA(a)
        found = []
        while at < n:
            m = CHUNK if n - at > CHUNK else n - at
            if not mm_is_zero(p + at, m):
                found.append(at // CHUNK)
            at += m
        return np.array(found, np.int64)
