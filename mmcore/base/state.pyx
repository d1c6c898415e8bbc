"""State: the arrays of one simulated machine.

Models: mem_map, pg_data_t, struct zone and the per-CPU pagesets as arrays of records. Simplifies: one lock for all. Omits: hotplug
(arrays never grow). What comes and goes (address spaces, page tables, files) lives in pools, POOLS: mmcore.base.pool. What only some
machines have (TLBs) is attached: State.attach().

Memory that no one wrote to is zero and costs nothing: building, copying and comparing take time in proportion to what was touched.
"""
from libc.stdint cimport uint8_t, uint16_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

import numpy as np
from mmcore.base.records import (
    GLOBALS_DTYPE, LAZY_DTYPE, META_DTYPE, NODE_DTYPE, PAGE_DTYPE, PAGEBLOCK_DTYPE, PCP_DTYPE, PRESENT_DTYPE, ZONE_DTYPE,
)
from mmcore.base.pool import reserve
from mmcore.base.vm_records import (
    ANON_VMA_DTYPE, AVC_DTYPE, CPU_DTYPE, DEVICE_DTYPE, EVENT_DTYPE, FILE_DTYPE, KMAP_DTYPE, KMAP_LOCAL_DTYPE, LRUVEC_DTYPE, MEMCG_DTYPE,
    MM_DTYPE, POOL_DTYPE, SWAP_AREA_DTYPE, SWAP_CLUSTER_DTYPE, SWAP_SLOT_DTYPE, TABLE_INFO_DTYPE,
    VM_AREA_DTYPE, VM_GLOBALS_DTYPE, VM_PAGES_DTYPE, VMA_DTYPE, VMAP_NODE_DTYPE, XNODE_DTYPE,
)
from mmcore.base.vm_records cimport (
    AddressSpace, AnonVma, Avc, Cpu, Device, Event, File, LRU_HEADS_PER_NODE, Lruvec, MAX_SWAPFILES, Memcg, NR_POOLS, POOL_ANON_VMAS, POOL_AVCS, POOL_DEVICES,
    POOL_EVENTS, POOL_FILES, POOL_KMAP_LOCALS, POOL_KMAPS, POOL_LRUVECS, POOL_MEMCGS, POOL_MMS, POOL_SWAP_AREAS, POOL_SWAP_CLUSTERS,
    POOL_SWAP_SLOTS, POOL_TABLES, POOL_VM_AREAS, POOL_VM_PAGES, POOL_VMAP_NODES, POOL_VMAS, POOL_XNODES, PoolInfo, PT_MAX_LEVELS, SwapArea,
    SwapCluster, SwapSlot, TableInfo, VmapNode, VmArea, VmGlobals, Vma, VmPages, XNode,
)
from mmcore.base.records cimport (
    Globals, HEADS_PER_ZONE, LazyRange, MAX_NR_ZONES, Node, NR_PCP_LISTS, Page, Pageblock, PageMeta, Pcp, PresentRange, Zone,
)

cnp.import_array()

ARRAYS = (
    "all_pages", "meta", "pageblocks", "zones", "pcps", "nodes", "globals", "lazy", "present", "zonelists", "cpu_node", "distances",
    "pools", "cpus", "memcg_of", "vm_globals",
)
# Pools by their number (PoolId); `table_info` goes with `tables`. What of each is in use stands in the array `pools`.
POOLS = {
    "tables": POOL_TABLES, "table_info": POOL_TABLES, "vmas": POOL_VMAS, "anon_vmas": POOL_ANON_VMAS, "avcs": POOL_AVCS, "mms": POOL_MMS,
    "files": POOL_FILES, "xnodes": POOL_XNODES, "vm_areas": POOL_VM_AREAS, "vm_pages": POOL_VM_PAGES, "vmap_nodes": POOL_VMAP_NODES,
    "kmaps": POOL_KMAPS, "kmap_locals": POOL_KMAP_LOCALS, "memcgs": POOL_MEMCGS, "lruvecs": POOL_LRUVECS, "swap_areas": POOL_SWAP_AREAS,
    "swap_slots": POOL_SWAP_SLOTS, "swap_clusters": POOL_SWAP_CLUSTERS, "events": POOL_EVENTS, "devices": POOL_DEVICES,
}

# The most groups that a machine can be built for: 16 bits name one.
MAX_MEMCGS = 65534

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


_BARE = object()    # says that the arrays follow


def aligned_zeros(shape, dtype):
    """np.zeros() whose memory begins at a cache line: then four page records share one, and a block's first buddies with them."""
    dtype = np.dtype(dtype)
    nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    raw = np.zeros(nbytes + CACHE_LINE, np.uint8)
    at = -raw.ctypes.data % CACHE_LINE
    return raw[at:at + nbytes].view(dtype).reshape(shape)


def heads_of(nr_zones, nr_cpus, nr_nodes, max_memcgs):
    """List heads behind mem_map: free lists of the zones, per-CPU lists, LRU lists of the nodes, then of the groups."""
    return nr_zones * HEADS_PER_ZONE + nr_zones * nr_cpus * NR_PCP_LISTS + (1 + max_memcgs) * nr_nodes * LRU_HEADS_PER_NODE


def pool_dtype(str name, int bits):
    """dtype of a record of the pool `name`; `bits` are the index bits of a page table."""
    return np.dtype((np.uint64, (1 << bits,))) if name == "tables" else {
        "table_info": TABLE_INFO_DTYPE, "vmas": VMA_DTYPE, "anon_vmas": ANON_VMA_DTYPE, "avcs": AVC_DTYPE, "mms": MM_DTYPE,
        "files": FILE_DTYPE, "xnodes": XNODE_DTYPE, "vm_areas": VM_AREA_DTYPE, "vm_pages": VM_PAGES_DTYPE, "vmap_nodes": VMAP_NODE_DTYPE,
        "kmaps": KMAP_DTYPE, "kmap_locals": KMAP_LOCAL_DTYPE, "memcgs": MEMCG_DTYPE, "lruvecs": LRUVEC_DTYPE, "swap_areas": SWAP_AREA_DTYPE,
        "swap_slots": SWAP_SLOT_DTYPE, "swap_clusters": SWAP_CLUSTER_DTYPE, "events": EVENT_DTYPE, "devices": DEVICE_DTYPE,
    }[name]


def pool_capacity(str name, Py_ssize_t nr_pages, Py_ssize_t max_memcgs=MAX_MEMCGS, Py_ssize_t nr_nodes=1):
    """The most records that a machine of `nr_pages` page frames, nodes, and groups besides the root keeps in a pool."""
    cdef Py_ssize_t some = min(max(nr_pages * 4, 1 << 16), 1 << 22)
    return {
        "tables": min(nr_pages, 1 << 23), "table_info": min(nr_pages, 1 << 23), "vmas": some, "anon_vmas": some, "avcs": some * 2,
        "mms": 1 << 16, "files": min(max(nr_pages, 1 << 12), 1 << 20), "xnodes": min(max(nr_pages, 1 << 12), 1 << 24),
        "vm_areas": min(max(nr_pages, 1 << 16), 1 << 20), "vm_pages": min(max(nr_pages, 1 << 12), 1 << 22), "vmap_nodes": 128, "kmaps": 1,
        "kmap_locals": 1 << 13, "memcgs": max_memcgs + 1, "lruvecs": (max_memcgs + 1) * nr_nodes, "swap_areas": MAX_SWAPFILES,
        "swap_slots": min(max(nr_pages * 8, 1 << 22), 1 << 31),
        "swap_clusters": 1 << 22, "events": 1 << 20, "devices": 64,
    }[name]


cdef class State:
    """Owner of a machine's arrays. Sizes are fixed when it is built; mmcore.phys.boot fills it.

    Parameters: nr_pages (page frames that can be named; below 2**31), nr_nodes, nr_zone_types, nr_cpus, nr_lazy (ranges of untouched
    blocks), nr_present (ranges of memory).
    """

    # not __init__(): no one gets hold of a State without arrays
    def __cinit__(self, *, nr_pages=0, nr_nodes=0, nr_zone_types=0, nr_cpus=0, nr_lazy=0, nr_present=0, pt_levels=4, pt_bits=9, max_memcgs=64,
                  _bare=None):
        if _bare is _BARE:
            return
        if nr_nodes < 1 or not 1 <= nr_zone_types <= MAX_NR_ZONES or nr_cpus < 1 or nr_lazy < 0 or nr_present < 0:
            raise ValueError(f"impossible shape: {nr_nodes} nodes x {nr_zone_types} zone types, {nr_cpus} CPUs, {nr_lazy} lazy and "
                             f"{nr_present} present ranges")
        nr_zones = nr_nodes * nr_zone_types
        if not 0 <= max_memcgs <= MAX_MEMCGS or (1 + max_memcgs) * nr_nodes > 1 << 20:
            raise ValueError(f"max_memcgs is {max_memcgs}; it must lie in 0..{min(MAX_MEMCGS, (1 << 20) // nr_nodes - 1)}")
        nr_heads = heads_of(nr_zones, nr_cpus, nr_nodes, max_memcgs)
        if not 2 <= pt_levels <= PT_MAX_LEVELS or pt_bits not in (9, 10):
            raise ValueError(f"page tables of {pt_levels} levels and {pt_bits} index bits do not exist here")
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
        self.pools = aligned_zeros(NR_POOLS, POOL_DTYPE)
        self.cpus = aligned_zeros(nr_cpus, CPU_DTYPE)
        self.memcg_of = aligned_zeros(padded, np.uint16)
        self.vm_globals = aligned_zeros(1, VM_GLOBALS_DTYPE)
        self.vm_globals[0]["pt_levels"], self.vm_globals[0]["pt_bits"] = pt_levels, pt_bits
        self.vm_globals[0]["max_memcgs"] = max_memcgs
        self.pools[POOL_MEMCGS]["used"] = self.pools[POOL_MEMCGS]["live"] = 1
        self.pools[POOL_LRUVECS]["used"] = self.pools[POOL_LRUVECS]["live"] = nr_nodes
        self.names = []
        self.extras = {}
        self.make_pools(nr_pages, pt_bits, max_memcgs, nr_nodes)
        g = self.globals[0]
        g["nr_pages"], g["nr_heads"], g["nr_zones"], g["nr_nodes"] = nr_pages, nr_heads, nr_zones, nr_nodes
        g["nr_cpus"], g["nr_blocks"], g["zl_stride"], g["nr_present"] = nr_cpus, padded // 512, zl_stride, nr_present
        g["nr_zone_types"] = nr_zone_types
        self.bind()

    def make_pools(self, Py_ssize_t nr_pages, int bits, int max_memcgs, int nr_nodes):
        arrays = {name: reserve(pool_capacity(name, nr_pages, max_memcgs, nr_nodes), pool_dtype(name, bits)) for name in POOLS}
        least = min(len(arrays["tables"]), len(arrays["table_info"]))
        for name, number in POOLS.items():
            self.pools[number]["capacity"] = min(len(arrays[name]), least) if number == POOL_TABLES else len(arrays[name])
        self.pool_arrays = arrays

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
        self.c.vm.pools = <PoolInfo*>cnp.PyArray_DATA(self.pools)
        self.c.vm.cpus = <Cpu*>cnp.PyArray_DATA(self.cpus)
        self.c.vm.lruvecs = <Lruvec*>cnp.PyArray_DATA(self.pool_arrays["lruvecs"])
        self.c.vm.g = <VmGlobals*>cnp.PyArray_DATA(self.vm_globals)
        self.c.vm.tables = <uint64_t*>cnp.PyArray_DATA(self.pool_arrays["tables"])
        self.c.vm.table_info = <TableInfo*>cnp.PyArray_DATA(self.pool_arrays["table_info"])
        self.c.vm.vmas = <Vma*>cnp.PyArray_DATA(self.pool_arrays["vmas"])
        self.c.vm.anon_vmas = <AnonVma*>cnp.PyArray_DATA(self.pool_arrays["anon_vmas"])
        self.c.vm.avcs = <Avc*>cnp.PyArray_DATA(self.pool_arrays["avcs"])
        self.c.vm.mms = <AddressSpace*>cnp.PyArray_DATA(self.pool_arrays["mms"])
        self.c.vm.files = <File*>cnp.PyArray_DATA(self.pool_arrays["files"])
        self.c.vm.xnodes = <XNode*>cnp.PyArray_DATA(self.pool_arrays["xnodes"])
        self.c.vm.areas = <VmArea*>cnp.PyArray_DATA(self.pool_arrays["vm_areas"])
        self.c.vm.vm_pages = <VmPages*>cnp.PyArray_DATA(self.pool_arrays["vm_pages"])
        self.c.vm.vmap_nodes = <VmapNode*>cnp.PyArray_DATA(self.pool_arrays["vmap_nodes"])
        self.c.vm.memcgs = <Memcg*>cnp.PyArray_DATA(self.pool_arrays["memcgs"])
        self.c.vm.swap_areas = <SwapArea*>cnp.PyArray_DATA(self.pool_arrays["swap_areas"])
        self.c.vm.swap_slots = <SwapSlot*>cnp.PyArray_DATA(self.pool_arrays["swap_slots"])
        self.c.vm.swap_clusters = <SwapCluster*>cnp.PyArray_DATA(self.pool_arrays["swap_clusters"])
        self.c.vm.events = <Event*>cnp.PyArray_DATA(self.pool_arrays["events"])
        self.c.vm.devices = <Device*>cnp.PyArray_DATA(self.pool_arrays["devices"])
        self.c.vm.memcg_of = <uint16_t*>cnp.PyArray_DATA(self.memcg_of)
        self.c.vm.bits = self.c.vm.g.pt_bits
        self.c.vm.levels = self.c.vm.g.pt_levels
        self.c.vm.mask = (1 << self.c.vm.bits) - 1
        self.c.trace.rows = NULL
        self.c.trace.enabled = 0
        self.c.hint = NULL
        self.c.vm.tlb = NULL
        self.c.lock = 0
        return 0

    def attach(self, str name, extra):
        """Give the machine something that not every machine has: from here on its arrays are the machine's, under "name.array".

        `extra` has arrays(), copy(), assign(other) and nbytes, and enters its address into this State by bind_to(state).
        """
        if name in self.extras:
            raise ValueError(f"this machine has its {name!r} already")
        extra.bind_to(self)
        self.extras[name] = extra

    cdef int lock_slow(self) except -1:
        cdef int* lock = &self.c.lock
        if self.owner == PyThread_get_thread_ident():
            raise RuntimeError("this thread is inside the machine already")
        with nogil:
            while not mm_try_lock(lock):
                sched_yield()
        return 0

    cdef int enter_slow(self) except -1:
        cdef int* lock = &self.c.lock
        if self.owner == PyThread_get_thread_ident():
            raise RuntimeError("this thread is inside the machine already")
        while not mm_try_enter(lock):
            with nogil:
                sched_yield()
        return 0

    @property
    def nbytes(self):
        """Bytes of all arrays, as addressed (memory that was never touched is not resident)."""
        return sum(self.get(name).nbytes for name in (*ARRAYS, *POOLS)) + sum(extra.nbytes for extra in self.extras.values())

    def get(self, str name):
        """An array by its name, or the part of a pool that was ever used."""
        if name in POOLS:
            return self.pool_arrays[name][:self.pools["used"][POOLS[name]]]
        if "." in name:
            extra, _, name = name.partition(".")
            return self.extras[extra].arrays()[name]
        return getattr(self, name)

    @property
    def first_head(self):
        """Index of the first list head in `all_pages`."""
        return len(self.all_pages) - int(self.globals["nr_heads"][0])

    def arrays(self):
        """The arrays by name, of pools the used part (not copies)."""
        out = {name: self.get(name) for name in (*ARRAYS, *POOLS)}
        for extra, owner in self.extras.items():
            out.update((f"{extra}.{name}", array) for name, array in owner.arrays().items())
        return out

    def copy(self):
        """An independent machine in the same state; memory that is zero is not written."""
        cdef State other = State.__new__(State, _bare=_BARE)
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
            other.make_pools(int(self.globals["nr_pages"][0]), int(self.vm_globals["pt_bits"][0]), int(self.vm_globals["max_memcgs"][0]),
                             int(self.globals["nr_nodes"][0]))
            other.names = list(self.names)
            for name in POOLS:
                a, b = self.get(name), other.get(name)
                n = (<object>a).nbytes
                src = <uint8_t*>cnp.PyArray_DATA(a)
                dst = <uint8_t*>cnp.PyArray_DATA(b)
                with nogil:
                    sparse_copy(dst, src, n)
            extras = {name: extra.copy() for name, extra in self.extras.items()}
        finally:
            state_unlock(self)
        other.bind()
        other.extras = {}
        for name, extra in extras.items():
            other.attach(name, extra)
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
        elif name == "pools":
            self.pools = array
        elif name == "cpus":
            self.cpus = array
        elif name == "memcg_of":
            self.memcg_of = array
        elif name == "vm_globals":
            self.vm_globals = array
        else:
            raise KeyError(name)

    @staticmethod
    def from_arrays(dict arrays):
        """A State that owns the given arrays (no copy but of pools). Only names, dtypes and sizes are checked here: contents are for validate()."""
        cdef State s
        templates = {
            "all_pages": PAGE_DTYPE, "meta": META_DTYPE, "pageblocks": PAGEBLOCK_DTYPE, "zones": ZONE_DTYPE, "pcps": PCP_DTYPE,
            "nodes": NODE_DTYPE, "globals": GLOBALS_DTYPE, "lazy": LAZY_DTYPE, "present": PRESENT_DTYPE,
            "zonelists": np.dtype(np.uint16), "cpu_node": np.dtype(np.uint16), "distances": np.dtype(np.uint8),
            "pools": POOL_DTYPE, "cpus": CPU_DTYPE, "memcg_of": np.dtype(np.uint16), "vm_globals": VM_GLOBALS_DTYPE,
        }
        if getattr(arrays.get("vm_globals"), "shape", None) != (1,) or arrays["vm_globals"].dtype != VM_GLOBALS_DTYPE:
            raise ValueError("array 'vm_globals' is missing or not one record")
        bits, levels = int(arrays["vm_globals"]["pt_bits"][0]), int(arrays["vm_globals"]["pt_levels"][0])
        if bits not in (9, 10) or not 2 <= levels <= PT_MAX_LEVELS:
            raise ValueError(f"page tables of {levels} levels and {bits} index bits do not exist here")
        for name, dtype in (*templates.items(), *((name, pool_dtype(name, bits).base) for name in POOLS)):
            a = arrays.get(name)
            if not isinstance(a, np.ndarray) or a.dtype != dtype or not a.flags.c_contiguous:
                raise ValueError(f"array {name!r} is missing or not a contiguous array of {dtype}")
        if arrays["globals"].shape != (1,):
            raise ValueError(f"array 'globals' has shape {arrays['globals'].shape}, not (1,)")
        g = arrays["globals"][0]
        pages, zones, nodes, cpus = (int(g[k]) for k in ("nr_pages", "nr_zones", "nr_nodes", "nr_cpus"))
        padded = (pages + 1023) // 1024 * 1024
        types = int(g["nr_zone_types"])
        groups = int(arrays["vm_globals"]["max_memcgs"][0])
        if not 0 <= groups <= MAX_MEMCGS or (1 + groups) * nodes > 1 << 20:
            raise ValueError(f"impossible shape: {groups} groups on {nodes} nodes")
        heads = heads_of(zones, cpus, nodes, groups)
        want = {
            "all_pages": (padded + heads,), "meta": (padded,), "pageblocks": (padded // 512,), "zones": (zones,), "pcps": (zones * cpus,),
            "nodes": (nodes,), "zonelists": (nodes, 2, zones + 1), "cpu_node": (cpus,), "distances": (nodes, nodes),
            "pools": (NR_POOLS,), "cpus": (cpus,), "memcg_of": (padded,),
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
        for name, number in POOLS.items():
            used, shape = int(arrays["pools"]["used"][number]), (1 << bits,) if name == "tables" else ()
            if used > pool_capacity(name, pages, groups, nodes) or int(arrays["pools"]["live"][number]) > used or arrays[name].shape != (used, *shape):
                raise ValueError(f"pool {name!r} has shape {arrays[name].shape} for {used} records in use")
        s = State.__new__(State, _bare=_BARE)
        for name in templates:
            s._adopt(name, arrays[name])
        s.names = []
        s.extras = {}
        s.make_pools(pages, bits, groups, nodes)
        for name, number in POOLS.items():
            if s.pools["used"][number] > s.pools["capacity"][number]:
                raise MemoryError(f"pool {name!r} needs more address space than the system grants")
            s.get(name)[:] = arrays[name]
        s.bind()
        return s

    def assign(self, State other):
        """Take over the contents of `other`, a State of the same sizes (restore of a snapshot)."""
        for name in ARRAYS:
            a, b = getattr(self, name), getattr(other, name)
            if a.shape != b.shape or a.dtype != b.dtype:
                raise ValueError(f"array {name!r} has shape {a.shape} here and {b.shape} in the snapshot")
        if other.vm_globals["pt_bits"][0] != self.c.vm.bits or other.vm_globals["pt_levels"][0] != self.c.vm.levels:
            raise ValueError("the snapshot has page tables of another shape")
        for name, number in POOLS.items():
            if other.pools["used"][number] > self.pools["capacity"][number]:
                raise ValueError(f"pool {name!r} is too small here for the snapshot")
        if self.extras.keys() != other.extras.keys():
            raise ValueError(f"this machine has {', '.join(self.extras) or 'no extras'}, the snapshot {', '.join(other.extras) or 'none'}")
        cdef cnp.ndarray x, y
        cdef size_t n, more
        cdef uint8_t* dst
        cdef uint8_t* src
        if other is self:
            return
        # both hold still meanwhile; always in the same order, so that two threads never wait for each other
        cdef State first = self if <void*>self < <void*>other else other, second = other if <void*>self < <void*>other else self
        state_lock(first)
        try:
            state_lock(second)
        except BaseException:
            state_unlock(first)
            raise
        try:
            # first of all, for these may refuse
            for name, extra in self.extras.items():
                extra.assign(other.extras[name])
            capacity = self.pools["capacity"].copy()
            for name in POOLS:
                x, y = self.get(name), other.get(name)
                n = min((<object>x).nbytes, (<object>y).nbytes)
                more = (<object>x).nbytes - n
                dst = <uint8_t*>cnp.PyArray_DATA(x)
                src = <uint8_t*>cnp.PyArray_DATA(y)
                with nogil:
                    sparse_assign(dst, src, n)
                    sparse_clear(dst + n, more)
                if (<object>y).nbytes > n:
                    more = (<object>y).nbytes - n
                    sparse_copy(dst + n, src + n, more)
            for name in ARRAYS:
                x, y = getattr(self, name), getattr(other, name)
                n = (<object>x).nbytes
                dst = <uint8_t*>cnp.PyArray_DATA(x)
                src = <uint8_t*>cnp.PyArray_DATA(y)
                with nogil:
                    sparse_assign(dst, src, n)
            self.pools["capacity"] = capacity
            self.names[:] = other.names
        finally:
            state_unlock(second)
            state_unlock(first)

    def forget_pools(self, numbers):
        """Make pools in which nothing is alive as they were before their first use."""
        for number in numbers:
            if self.pools[number]["live"]:
                raise ValueError(f"pool {number} has {self.pools[number]['live']} records in use")
            for name, of in POOLS.items():
                if of == number:
                    self.get(name)[...] = np.zeros((), self.get(name).dtype)
            self.pools[number]["used"] = self.pools[number]["free_head"] = 0

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
        mine, others = self.arrays(), other.arrays()
        out = sorted(mine.keys() ^ others.keys())
        for name in mine.keys() & others.keys() if out else mine:
            a = mine[name]
            b = others[name]
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
        cdef cnp.ndarray a = self.get(name)
        cdef size_t n = (<object>a).nbytes, at = 0, m
        cdef uint8_t* p = <uint8_t*>cnp.PyArray_DATA(a)
        found = []
        while at < n:
            m = CHUNK if n - at > CHUNK else n - at
            if not mm_is_zero(p + at, m):
                found.append(at // CHUNK)
            at += m
        return np.array(found, np.int64)
