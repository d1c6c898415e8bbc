"""vmalloc, vmalloc_huge, vrealloc, vmap, ioremap.

Models: __vmalloc_node_range, __get_vm_area_node, __vmalloc_area_node, vm_area_alloc_pages, vfree, vmap, vunmap, ioremap's areas,
vrealloc (mm/vmalloc.c, v6.12). Simplifies: no contents, no pending signals; a descriptor array of up to a page is only counted, as
kmalloc is not modelled yet; page tables of the range are pages of the machine without entries (a walk goes by the page lists). Omits: vm_map_ram's blocks,
areas without a guard page, module and executable ranges, VM_MAP_PUT_PAGES.

The page list of an area is a radix tree of VmPages records. A page of vmalloc carries PG_owned with OWNER_VMALLOC, and its area's
number in `private_`.
"""
import numpy as np

cimport numpy as cnp
from mmcore.alloc.page_alloc cimport AllocContext, alloc_bulk, alloc_pages_node, prepare_alloc
from mmcore.alloc.page_free cimport free_pages_order, split_allocated
from mmcore.base.args cimport as_gfp, as_int, not_ours, pfn_array
from mmcore.base.errors cimport E_BUSY, E_GFP, E_INVAL, E_NOENT, E_NOMEM
from mmcore.base.flags cimport OWNER_MASK, OWNER_VMALLOC, PG_owned
from mmcore.base.gfp cimport (
    GFP_COMP_BIT, GFP_DIRECT_RECLAIM_BIT, GFP_DMA32_BIT, GFP_DMA_BIT, GFP_FS_BIT, GFP_HIGHMEM_BIT, GFP_HIGH_BIT, GFP_IO_BIT,
    GFP_KSWAPD_RECLAIM_BIT, GFP_MEMALLOC_BIT, GFP_NOFAIL_BIT, GFP_NOMEMALLOC_BIT, GFP_NORETRY_BIT, GFP_NOWARN_BIT, GFP_RETRY_MAYFAIL_BIT,
    GFP_ZERO_BIT,
)
from mmcore.base.pool cimport pool_give, pool_room, pool_take
from mmcore.base.records cimport page_at
from mmcore.base.state cimport State, state_lock, state_unlock
from mmcore.base.vm_records cimport POOL_VM_AREAS, POOL_VM_PAGES, VmArea, VmPages
from mmcore.sys.tables cimport table_new
from mmcore.sys.vmap_area cimport (
    VA_BUSY, VA_FREE, VA_LAZY, VA_POOLED, VG_KMALLOC_BYTES, VG_LAST_CALLER, VG_LAZY_PAGES, VG_NODES, VG_NR_FAILED, VG_NR_FLUSHES,
    VG_NR_FORCED, VG_NR_PAGES, VG_NR_PURGES, VG_FLUSH_END, VG_FLUSH_START, VG_PMD_ROOT, VG_PMD_TABLES, VG_PTE_ROOT, VG_PTE_TABLES, VG_READY,
    alloc_vmap_area, area_at, area_pages, cover_table, covered_until, drain_vmap_areas, find_vmap_area, free_vmap_area, lazy_max_pages, purge_vmap_areas,
    shrink_vmap_nodes, vmap_bounds, vmap_init,
)

cnp.import_array()

cdef enum:
    PAGE = 4096
    PMD_SHIFT = 21
    PMD_ORDER = 9
    BULK = 100
    KMALLOC_MAX_ARRAY = 4096
    RADIX_SHIFT = 6
    PAGING_2LEVEL = 2
    PAGING_PAE = 3
    # the bits that a nested request takes over (GFP_RECLAIM_MASK)
    NESTED_MASK = (GFP_DIRECT_RECLAIM_BIT | GFP_KSWAPD_RECLAIM_BIT | GFP_HIGH_BIT | GFP_IO_BIT | GFP_FS_BIT | GFP_NOWARN_BIT
                   | GFP_RETRY_MAYFAIL_BIT | GFP_NOFAIL_BIT | GFP_NORETRY_BIT | GFP_MEMALLOC_BIT | GFP_NOMEMALLOC_BIT)


# ---------------------------------------------------------------- page lists

cdef inline uint32_t new_pages(Mm* mm) noexcept nogil:
    return pool_take(mm.vm.pools + <int>POOL_VM_PAGES, mm.vm.vm_pages, sizeof(VmPages))


cdef inline unsigned top_shift(uint64_t n) noexcept nogil:
    # shift of the top level of a list of n pages
    cdef unsigned shift = 0
    while (n - 1) >> (shift + RADIX_SHIFT):
        shift += RADIX_SHIFT
    return shift


cdef uint32_t* page_slot(Mm* mm, VmArea* a, uint64_t i, bint make) noexcept nogil:
    # The slot of page i of an area; NULL where there is none (make: where no record is left).
    cdef unsigned shift = top_shift(area_pages(a))
    cdef uint32_t x = a.pages
    cdef uint32_t* slot
    if not x:
        if not make:
            return NULL
        x = a.pages = new_pages(mm)
        if not x:
            return NULL
    while True:
        slot = &mm.vm.vm_pages[x - 1].slots[i >> shift & 63]
        if not shift:
            return slot
        if not slot[0]:
            if not make:
                return NULL
            slot[0] = new_pages(mm)
            if not slot[0]:
                return NULL
        x = slot[0]
        shift -= RADIX_SHIFT


cdef void drop_pages(Mm* mm, uint32_t x, unsigned shift) noexcept nogil:
    cdef uint32_t* slots = mm.vm.vm_pages[x - 1].slots
    cdef int i
    for i in range(64):
        if slots[i] and shift:
            drop_pages(mm, slots[i], shift - RADIX_SHIFT)
        slots[i] = 0
    pool_give(mm.vm.pools + <int>POOL_VM_PAGES, mm.vm.vm_pages, sizeof(VmPages), x)


cdef void drop_page_list(Mm* mm, uint32_t x) noexcept nogil:
    cdef VmArea* a = area_at(mm, x)
    if a.pages:
        drop_pages(mm, a.pages, top_shift(area_pages(a)))
        a.pages = 0


cdef bint add_page(Mm* mm, uint32_t x, uint32_t pfn, bint own) noexcept nogil:
    cdef VmArea* a = area_at(mm, x)
    cdef uint32_t* slot = page_slot(mm, a, a.nr_pages, True)
    if slot == NULL:
        return False
    slot[0] = pfn + 1
    a.nr_pages += 1
    if own:
        page_at(mm, pfn).flags = (page_at(mm, pfn).flags & ~<uint32_t>OWNER_MASK) | PG_owned | OWNER_VMALLOC
        page_at(mm, pfn).private_ = x
    return True


cdef void free_area_pages(Mm* mm, uint32_t x, unsigned cpu) noexcept nogil:
    cdef VmArea* a = area_at(mm, x)
    cdef uint32_t i, pfn
    cdef uint32_t* slot
    for i in range(a.nr_pages):
        slot = page_slot(mm, a, i, False)
        if slot == NULL or not slot[0]:
            continue
        pfn = slot[0] - 1
        page_at(mm, pfn).flags &= ~<uint32_t>(PG_owned | OWNER_MASK)
        page_at(mm, pfn).private_ = 0
        free_pages_order(mm, pfn, 0, cpu)


cdef int64_t vmalloc_to_pfn(Mm* mm, uint64_t address) noexcept nogil:
    cdef uint32_t x = find_vmap_area(mm, address)
    cdef VmArea* a
    cdef uint64_t i
    cdef uint32_t* slot
    if not x:
        return -1
    a = area_at(mm, x)
    i = (address - a.start) >> 12
    if i >= area_pages(a):
        return -1
    if a.flags & VM_IOREMAP:
        return <int64_t>((a.phys >> 12) + i)
    slot = page_slot(mm, a, i, False)
    return <int64_t>slot[0] - 1 if slot != NULL else -1


# ---------------------------------------------------------------- page tables of the range

cdef int new_tables(Mm* mm, unsigned root, unsigned count, unsigned shift, uint64_t start, uint64_t end, unsigned cpu) noexcept nogil:
    # Tables of 2^shift bytes each for the part of [start, end) that has none.
    cdef uint64_t at = start, next_
    while at < end:
        next_ = covered_until(mm, root, at)
        if not next_:
            if not pool_room(mm.vm.pools + <int>POOL_VM_AREAS) or not table_new(mm, 0, cpu):
                return -E_NOMEM
            cover_table(mm, root, shift, at)
            mm.vm.g.vmalloc[count] += 1
            next_ = ((at >> shift) + 1) << shift
        at = next_
    return 0


cdef int kernel_tables_for(Mm* mm, uint64_t start, uint64_t end, bint huge, unsigned cpu) noexcept nogil:
    # Levels above the PMD tables (with PAE, these too) are there from boot on. What was made stays, also when the rest fails.
    cdef uint32_t paging = mm.vm.g.paging
    cdef uint64_t at = start, next_
    cdef int rc = 0
    while at < end and not rc:
        next_ = ((at >> 30) + 1) << 30
        if next_ > end:
            next_ = end
        if paging != PAGING_2LEVEL and paging != PAGING_PAE:
            rc = new_tables(mm, VG_PMD_ROOT, VG_PMD_TABLES, 30, at, next_, cpu)
        if not huge and not rc:
            rc = new_tables(mm, VG_PTE_ROOT, VG_PTE_TABLES, 12 + mm.vm.bits, at, next_, cpu)
        at = next_
    return rc


# ---------------------------------------------------------------- areas with their pages

cdef uint32_t get_vm_area(Mm* mm, uint64_t size, uint64_t align, uint32_t flags, unsigned cpu, uint32_t caller) noexcept nogil:
    # __get_vm_area_node(): `size` is whole pages; a guard page follows them.
    cdef uint32_t x = alloc_vmap_area(mm, size + PAGE, align, cpu)
    if x:
        area_at(mm, x).flags = flags
        area_at(mm, x).requested = size
        area_at(mm, x).caller = caller
    return x


cdef bint alloc_area_pages(Mm* mm, uint32_t x, unsigned gfp, unsigned order, unsigned cpu, int nid) noexcept nogil:
    # vm_area_alloc_pages(): bulk requests of 100 while they are served in full, single ones for the rest.
    cdef VmArea* a = area_at(mm, x)
    cdef uint64_t want = area_pages(a)
    cdef uint32_t[BULK] found
    cdef int64_t ask, got, pfn
    cdef uint32_t i
    cdef bint room = True
    while not order and a.nr_pages < want:
        ask = BULK if want - a.nr_pages > BULK else <int64_t>(want - a.nr_pages)
        got = alloc_bulk(mm, found, ask, gfp, cpu, nid, 0)
        for i in range(<uint32_t>(got if got > 0 else 0)):
            if not add_page(mm, x, found[i], True):
                free_pages_order(mm, found[i], 0, cpu)
                room = False
        if got != ask or not room:
            break
    while a.nr_pages < want and room:
        pfn = alloc_pages_node(mm, gfp, order, cpu, nid, 0)
        if pfn < 0:
            break
        if order:
            split_allocated(mm, <uint32_t>pfn, order)
        for i in range(<uint32_t>1 << order):
            if not add_page(mm, x, <uint32_t>pfn + i, True):
                free_pages_order(mm, <uint32_t>pfn + i, 0, cpu)
                room = False
    return a.nr_pages == want


cdef void remove_area(Mm* mm, uint32_t x, unsigned cpu) noexcept nogil:
    # vfree(): the addresses first, then pages from the first on, then the descriptor array.
    cdef VmArea kept = area_at(mm, x)[0]
    cdef uint32_t array = kept.array
    cdef uint32_t y
    if kept.flags & VM_ALLOC:
        free_area_pages(mm, x, cpu)
        mm.vm.g.vmalloc[VG_NR_PAGES] -= kept.nr_pages
    drop_page_list(mm, x)
    free_vmap_area(mm, x)
    if array:
        y = array
        area_at(mm, y).flags &= ~<uint32_t>VM_ARRAY
        remove_area(mm, y, cpu)
    elif kept.flags & VM_ALLOC:
        mm.vm.g.vmalloc[VG_KMALLOC_BYTES] -= ((kept.end - kept.start) // PAGE - 1) * 8


cdef uint32_t area_with_pages(Mm* mm, uint64_t size, uint64_t align, unsigned gfp, unsigned order, unsigned cpu, int nid,
                              uint32_t caller) noexcept nogil:
    # Address space, descriptor array, pages, page tables: in this order. 0 when one of them is not to be had; all is given back then.
    cdef uint32_t x, y = 0
    cdef uint64_t array
    cdef unsigned zone = 0 if gfp & (GFP_DMA_BIT | GFP_DMA32_BIT) else GFP_HIGHMEM_BIT
    cdef VmArea* a
    x = get_vm_area(mm, size, align, VM_ALLOC | (VM_ALLOW_HUGE_VMAP if order else 0), cpu, caller)
    if not x:
        return 0
    a = area_at(mm, x)
    array = (size >> 12) * 8
    if array > KMALLOC_MAX_ARRAY:
        y = area_with_pages(mm, (array + PAGE - 1) & ~<uint64_t>(PAGE - 1), PAGE, (gfp & NESTED_MASK) | GFP_ZERO_BIT, 0, cpu, nid, caller)
        if not y:
            # free_vm_area(): nothing was counted for it yet
            free_vmap_area(mm, x)
            return 0
        area_at(mm, y).flags |= VM_ARRAY
        area_at(mm, y).requested = array
    else:
        mm.vm.g.vmalloc[VG_KMALLOC_BYTES] += array
    a.array = y
    a.page_order = order
    alloc_area_pages(mm, x, ((gfp & ~<unsigned>GFP_NOFAIL_BIT) if order else gfp) | zone | GFP_NOWARN_BIT, order, cpu, nid)
    mm.vm.g.vmalloc[VG_NR_PAGES] += a.nr_pages
    if a.nr_pages != size >> 12 or kernel_tables_for(mm, a.start, a.end - PAGE, order != 0, cpu):
        remove_area(mm, x, cpu)
        return 0
    return x


cdef int gfp_of_vmalloc(Mm* mm, unsigned gfp, unsigned cpu, int nid) noexcept nogil:
    # Requests that vmalloc does not support are refused before anything changes.
    cdef AllocContext ac
    cdef int rc
    if not gfp & GFP_DIRECT_RECLAIM_BIT or gfp & (GFP_NORETRY_BIT | GFP_RETRY_MAYFAIL_BIT | GFP_COMP_BIT):
        return -E_GFP
    rc = prepare_alloc(mm, &ac, gfp | (0 if gfp & (GFP_DMA_BIT | GFP_DMA32_BIT) else GFP_HIGHMEM_BIT), 0, cpu, nid, 0)
    return 0 if rc == -E_NOMEM else rc


cdef uint64_t vmalloc_node_range(Mm* mm, uint64_t size, unsigned gfp, unsigned cpu, int nid, bint huge, uint32_t caller, int* err) noexcept nogil:
    cdef uint64_t per_node = size, whole = (size + PAGE - 1) & ~<uint64_t>(PAGE - 1), large
    cdef uint32_t x = 0
    err[0] = gfp_of_vmalloc(mm, gfp, cpu, nid)
    if not size:
        err[0] = -E_INVAL
    elif not err[0] and size >> 12 > <uint64_t>mm.g.totalram_pages:
        err[0] = -E_NOMEM
        mm.vm.g.vmalloc[VG_NR_FAILED] += 1
    if not err[0]:
        err[0] = vmap_init(mm)
    if err[0]:
        return 0
    if huge and mm.vm.g.paging != PAGING_2LEVEL and mm.vm.g.paging != PAGING_PAE:
        if nid < 0:
            per_node = size // mm.g.nr_nodes
        if per_node >= <uint64_t>1 << PMD_SHIFT:
            large = (size + (<uint64_t>1 << PMD_SHIFT) - 1) >> PMD_SHIFT << PMD_SHIFT
            x = area_with_pages(mm, large, <uint64_t>1 << PMD_SHIFT, gfp, PMD_ORDER, cpu, nid, caller)
    if not x:
        x = area_with_pages(mm, whole, PAGE, gfp, 0, cpu, nid, caller)
    if x:
        area_at(mm, x).requested = size
    else:
        err[0] = -E_NOMEM
        mm.vm.g.vmalloc[VG_NR_FAILED] += 1
    drain_vmap_areas(mm)
    return area_at(mm, x).start if x else 0


cdef int area_named(Mm* mm, uint64_t address, uint32_t* x) noexcept nogil:
    # The area that starts at the address, or why there is none to be freed.
    if not mm.vm.g.vmalloc[VG_READY]:
        return -E_NOENT
    x[0] = find_vmap_area(mm, address)
    if not x[0]:
        return -E_NOENT
    if area_at(mm, x[0]).start != address:
        return -E_INVAL
    return -E_BUSY if area_at(mm, x[0]).flags & VM_ARRAY else 0


cdef int vfree_addr(Mm* mm, uint64_t address, unsigned cpu) noexcept nogil:
    cdef uint32_t x
    cdef int rc = area_named(mm, address, &x)
    if rc:
        return rc
    remove_area(mm, x, cpu)
    drain_vmap_areas(mm)
    return 0


cdef uint64_t vmap_pages(Mm* mm, const uint32_t* pfns, uint64_t n, unsigned cpu, uint32_t caller, int* err) noexcept nogil:
    cdef uint32_t x
    cdef uint64_t i
    err[0] = vmap_init(mm) if n <= <uint64_t>mm.g.totalram_pages else -E_NOMEM
    if err[0]:
        return 0
    x = get_vm_area(mm, n << 12, PAGE, VM_MAP, cpu, caller)
    if x:
        for i in range(n):
            if not add_page(mm, x, pfns[i], False):
                break
        if area_at(mm, x).nr_pages != n or kernel_tables_for(mm, area_at(mm, x).start, area_at(mm, x).end - PAGE, False, cpu):
            remove_area(mm, x, cpu)
            x = 0
    if not x:
        err[0] = -E_NOMEM
    drain_vmap_areas(mm)
    return area_at(mm, x).start if x else 0


cdef uint64_t ioremap_range(Mm* mm, uint64_t phys, uint64_t size, unsigned cpu, uint32_t caller, int* err) noexcept nogil:
    # Alignment: the size's power of two, from a page up to what the largest leaf maps.
    cdef unsigned shift = 12, limit = 30
    cdef uint32_t x
    cdef uint64_t offset = phys & (PAGE - 1)
    err[0] = vmap_init(mm)
    if err[0]:
        return 0
    if mm.vm.g.paging == PAGING_PAE:
        limit = 21
    elif mm.vm.g.paging == PAGING_2LEVEL:
        limit = 22
    size = (size + offset + PAGE - 1) & ~<uint64_t>(PAGE - 1)
    while shift < limit and <uint64_t>1 << shift < size:
        shift += 1
    x = get_vm_area(mm, size, <uint64_t>1 << shift, VM_IOREMAP, cpu, caller)
    if x:
        area_at(mm, x).phys = phys - offset
        if kernel_tables_for(mm, area_at(mm, x).start, area_at(mm, x).end - PAGE, False, cpu):
            remove_area(mm, x, cpu)
            x = 0
    if not x:
        err[0] = -E_NOMEM
    drain_vmap_areas(mm)
    return area_at(mm, x).start + offset if x else 0


# ---------------------------------------------------------------- the Python side

AREA_DTYPE = np.dtype([("start", np.uint64), ("end", np.uint64), ("requested", np.uint64), ("phys", np.uint64), ("state", np.uint32),
                       ("flags", np.uint32), ("nr_pages", np.uint32), ("node", np.int32), ("caller", np.int32), ("page_order", np.uint32),
                       ("array", np.uint64)])
STATES = {"free": VA_FREE, "busy": VA_BUSY, "lazy": VA_LAZY, "pooled": VA_POOLED}
FLAGS = {"ioremap": VM_IOREMAP, "vmalloc": VM_ALLOC, "vmap": VM_MAP, "user": VM_USERMAP, "array": VM_ARRAY}
MAX_BYTES = (1 << 63) - 1


cdef uint32_t intern_caller(State s, caller) except? 0xffffffff:
    # Names are few; the last one asked for is found at once.
    cdef uint64_t last = s.c.vm.g.vmalloc[VG_LAST_CALLER]
    if not isinstance(caller, str):
        raise TypeError(f"caller must be a text, not {type(caller).__name__}")
    if not caller:
        return 0
    if 0 < last <= len(s.names) and s.names[last - 1] == caller:
        return <uint32_t>last
    if caller not in s.names:
        s.names.append(caller)
    last = s.names.index(caller) + 1
    s.c.vm.g.vmalloc[VG_LAST_CALLER] = last
    return <uint32_t>last


cdef uint64_t as_address(object value) except? 0xffffffffffffffff:
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"address must be an integer, not {type(value).__name__}")
    value = value.__index__()
    if not 0 <= value < 1 << 64:
        raise ValueError(f"address is {value:#x}; it must lie in 0..0xffffffffffffffff")
    return <uint64_t>value


def vmalloc(State s not None, size, gfp=0xcc0, cpu=0, node=-1, caller="", huge=False):
    """vmalloc() or (huge) vmalloc_huge() of `size` bytes on a CPU: the address, or a negative errno (-22 for size 0, -12 without memory,
    -1006 for a mask that vmalloc does not support). TypeError and ValueError for values out of range."""
    cdef uint64_t n = <uint64_t>as_int(size, "size", 0, MAX_BYTES), address
    cdef unsigned g = as_gfp(gfp), c = <unsigned>as_int(cpu, "cpu", 0, s.c.g.nr_cpus - 1)
    cdef int nid = <int>as_int(node, "node", -1, s.c.g.nr_nodes - 1), err = 0
    cdef bint large = huge
    cdef uint32_t name
    if not n:
        return -E_INVAL
    state_lock(s)
    try:
        err = gfp_of_vmalloc(&s.c, g, c, nid)
        if err:
            return err
        name = intern_caller(s, caller)
        with nogil:
            address = vmalloc_node_range(&s.c, n, g, c, nid, large, name, &err)
    finally:
        state_unlock(s)
    return address if address else err


def vfree(State s not None, address, cpu=0):
    """vfree(), vunmap() or iounmap() of what starts at `address`; 0 does nothing. Returns 0 or a negative errno: -2 no area there (freed
    already?), -22 inside an area, -16 the descriptor array of another area."""
    cdef uint64_t a = as_address(address)
    cdef unsigned c = <unsigned>as_int(cpu, "cpu", 0, s.c.g.nr_cpus - 1)
    cdef uint32_t x
    cdef int rc = 0
    if not a:
        return 0
    state_lock(s)
    with nogil:
        rc = area_named(&s.c, a, &x)
        if rc == -E_INVAL and area_at(&s.c, x).flags & VM_IOREMAP and a & ~<uint64_t>(PAGE - 1) == area_at(&s.c, x).start:
            a &= ~<uint64_t>(PAGE - 1)      # iounmap() takes what ioremap() gave
        rc = vfree_addr(&s.c, a, c)
    state_unlock(s)
    return rc


def vrealloc(State s not None, address, size, gfp=0xcc0, cpu=0, node=-1, caller=""):
    """vrealloc(): the address of an area of at least `size` bytes, the same one where the old one is large enough; 0 for size 0 (freed),
    or a negative errno; the old area is kept then."""
    cdef uint64_t a = as_address(address), n = <uint64_t>as_int(size, "size", 0, MAX_BYTES), new = 0
    cdef unsigned g = as_gfp(gfp), c = <unsigned>as_int(cpu, "cpu", 0, s.c.g.nr_cpus - 1)
    cdef int nid = <int>as_int(node, "node", -1, s.c.g.nr_nodes - 1), err = 0
    cdef uint32_t x = 0, name
    state_lock(s)
    try:
        name = intern_caller(s, caller)
        with nogil:
            if a:
                err = area_named(&s.c, a, &x)
                if not err and not area_at(&s.c, x).flags & VM_ALLOC:
                    err = -E_INVAL
            if not err and not n:
                if a:
                    err = vfree_addr(&s.c, a, c)
            elif not err and x and n <= area_pages(area_at(&s.c, x)) << 12:
                new = a
            elif not err:
                new = vmalloc_node_range(&s.c, n, g, c, nid, False, name, &err)
                if new and a:
                    vfree_addr(&s.c, a, c)
    finally:
        state_unlock(s)
    return new if new or not err else err


def vmap(State s not None, pfns, cpu=0, caller=""):
    """vmap(): map page frames (uint32) in a row; the address or -12. The pages stay their owner's."""
    cdef cnp.ndarray a = pfn_array(pfns, False)
    cdef unsigned c = <unsigned>as_int(cpu, "cpu", 0, s.c.g.nr_cpus - 1)
    cdef uint64_t n = <uint64_t>cnp.PyArray_SIZE(a), address
    cdef const uint32_t* p = <const uint32_t*>cnp.PyArray_DATA(a)
    cdef uint32_t name
    cdef int err = 0
    not_ours(s, a)
    if not n:
        raise ValueError("vmap of no page frames; there must be at least one")
    if a.max() >= s.c.g.nr_pages:
        i = int(np.argmax(a))
        raise ValueError(f"page frame {i} of the list is {int(a[i]):#x}; the machine has page frames below {s.c.g.nr_pages:#x}")
    state_lock(s)
    try:
        name = intern_caller(s, caller)
        with nogil:
            address = vmap_pages(&s.c, p, n, c, name, &err)
    finally:
        state_unlock(s)
    return address if address else err


def ioremap(State s not None, phys, size, cpu=0, caller=""):
    """An area that maps device memory at a physical address: the address or -12."""
    cdef uint64_t at = <uint64_t>as_int(phys, "phys", 0, (1 << 52) - 1)
    cdef uint64_t n = <uint64_t>as_int(size, "size", 1, (1 << 52) - <long long>at), address
    cdef unsigned c = <unsigned>as_int(cpu, "cpu", 0, s.c.g.nr_cpus - 1)
    cdef uint32_t name
    cdef int err = 0
    state_lock(s)
    try:
        name = intern_caller(s, caller)
        with nogil:
            address = ioremap_range(&s.c, at, n, c, name, &err)
    finally:
        state_unlock(s)
    return address if address else err


def purge(State s not None, forced=False):
    """A purge, as flushing of aliases makes it (forced: as a request that finds no address space does)."""
    cdef bint full = forced
    state_lock(s)
    if s.c.vm.g.vmalloc[VG_READY]:
        with nogil:
            purge_vmap_areas(&s.c, full)
    state_unlock(s)


def shrink(State s not None):
    """The vmap-node shrinker: every pool goes back to the free ranges."""
    state_lock(s)
    if s.c.vm.g.vmalloc[VG_READY]:
        with nogil:
            shrink_vmap_nodes(&s.c)
    state_unlock(s)


def bounds(State s not None):
    """(first, end) of the addresses that vmalloc hands out."""
    cdef uint64_t start, end
    vmap_bounds(&s.c, &start, &end)
    return start, end


def lazy_pages(State s not None):
    """Pages of address space, guard pages too, that wait for a purge; one is made when they exceed lazy_max(state)."""
    return s.c.vm.g.vmalloc[VG_LAZY_PAGES]


def lazy_max(State s not None):
    return lazy_max_pages(&s.c)


def figures(State s not None):
    """What vmalloc counts, by name: pages in use, purges, flushes of the kernel's TLB entries and the range of the last one, and so on."""
    cdef uint64_t* g = s.c.vm.g.vmalloc
    return {"nr_pages": g[VG_NR_PAGES], "kmalloc_bytes": g[VG_KMALLOC_BYTES], "lazy_pages": g[VG_LAZY_PAGES], "nodes": g[VG_NODES],
            "purges": g[VG_NR_PURGES], "forced_purges": g[VG_NR_FORCED], "flushes": g[VG_NR_FLUSHES], "flush_start": g[VG_FLUSH_START],
            "flush_end": g[VG_FLUSH_END], "failed": g[VG_NR_FAILED], "pte_tables": g[VG_PTE_TABLES], "pmd_tables": g[VG_PMD_TABLES]}


cdef object as_rows(State s, cnp.ndarray kept):
    # Records of AREA_DTYPE for VmArea records; called under the lock.
    out = np.zeros(len(kept), AREA_DTYPE)
    for name in ("start", "end", "requested", "phys", "state", "flags", "nr_pages", "page_order"):
        out[name] = kept[name]
    out["node"] = kept["node"].astype(np.int64) - 1
    out["caller"] = kept["caller"].astype(np.int64) - 1
    with_array = kept["array"] > 0
    out["array"][with_array] = s.get("vm_areas")["start"][kept["array"][with_array] - 1]
    return out


def areas(State s not None, all=False):
    """The areas in use by address, as an array of AREA_DTYPE; with `all` also free, lazily freed and pooled ranges (STATES names them).

    node: the vmap node that the area remembers, -1 none; caller: index into state.names, -1 none; array: address of its descriptor array.
    """
    state_lock(s)
    try:
        records = s.get("vm_areas")
        kept = records[(records["state"] >= VA_FREE) & (records["state"] <= VA_POOLED)] if all else records[records["state"] == VA_BUSY]
        return as_rows(s, kept[np.argsort(kept["start"], kind="stable")])
    finally:
        state_unlock(s)


def find(State s not None, address):
    """The area in use that holds an address (guard page included), as a record of AREA_DTYPE; None if there is none."""
    cdef uint64_t a = as_address(address)
    cdef uint32_t x = 0
    state_lock(s)
    try:
        if s.c.vm.g.vmalloc[VG_READY]:
            x = find_vmap_area(&s.c, a)
        return as_rows(s, s.get("vm_areas")[x - 1:x])[0] if x else None
    finally:
        state_unlock(s)


def pfns(State s not None, address):
    """Page frames behind the area that starts at `address`, in order: array of uint32. ValueError if no area with pages starts there."""
    cdef uint64_t a = as_address(address)
    cdef uint32_t x = 0, i
    cdef uint32_t* slot
    cdef uint32_t[::1] view
    state_lock(s)
    try:
        if area_named(&s.c, a, &x) not in (0, -E_BUSY):
            raise ValueError(f"no area starts at {a:#x}")
        out = np.zeros(area_at(&s.c, x).nr_pages, np.uint32)
        view = out
        for i in range(area_at(&s.c, x).nr_pages):
            slot = page_slot(&s.c, area_at(&s.c, x), i, False)
            view[i] = slot[0] - 1
    finally:
        state_unlock(s)
    return out


def walk(State s not None, addresses):
    """Page frame behind each address (uint64): array of int64, -1 where vmalloc maps nothing."""
    cdef const uint64_t[::1] view = np.ascontiguousarray(addresses, np.uint64).reshape(-1)
    cdef int64_t[::1] out = np.empty(len(view), np.int64)
    cdef Py_ssize_t i, n = len(view)
    state_lock(s)
    with nogil:
        for i in range(n):
            out[i] = vmalloc_to_pfn(&s.c, view[i]) if s.c.vm.g.vmalloc[VG_READY] else -1
    state_unlock(s)
    return np.asarray(out)
