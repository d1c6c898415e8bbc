"""Building a machine's physical memory: zones, list heads, the first free blocks, the watermarks of boot.

Models: free_area_init, memblock_free_all, __free_pages_core, build_all_zonelists, init_per_zone_wmark_min and the THP initialisation
in their order (mm/mm_init.c, mm/memblock.c, mm/page_alloc.c, mm/khugepaged.c). Blocks of order 10 that boot frees are not written out:
they wait as ranges behind a sentinel (LazyRange) until something takes them. Simplifies: deferred initialisation of struct pages
frees in ascending order; late-freed memory goes to the buddy as blocks. Omits: hotplug.
"""
from libc.stdint cimport uint32_t

import numpy as np

cimport numpy as cnp
from mmcore.base.flags cimport PG_ORDER_SHIFT, PG_pcp
from mmcore.base.lists cimport list_add_tail, list_init
from mmcore.base.records cimport page_at, block_at
from mmcore.base.records cimport (
    HEADS_PER_ZONE, MAX_PAGE_ORDER, MIGRATE_MOVABLE, MIGRATE_TYPES, MIGRATE_UNMOVABLE, Mm, NR_FREE_PAGES, NR_PAGE_ORDERS, NR_PCP_LISTS, Pcp, Zone,
)
from mmcore.base.state cimport State, state_lock, state_unlock
from mmcore.phys.buddy cimport FPI_TO_TAIL, add_to_free_list, ctz, free_list_head, free_one_page, materialize_zone, pageblock_mt, zone_of
from mmcore.phys.watermark cimport boot_watermarks, thp_watermarks
from mmcore.base.vm_records cimport LRU_HEADS_PER_NODE, MEMCG_ONLINE, NR_LRU_LISTS, PAGE_COUNTER_MAX
from mmcore.phys.vm_defaults import ARCH_PAGING, DEFAULT_PAGING, PAGING, set_vm_defaults

cnp.import_array()

ZONE_NAMES = {"x86_64": ("DMA", "DMA32", "Normal", "Movable", "Device"), "i386": ("DMA", "Normal", "HighMem", "Movable")}
LOWMEM_RATIO = {"x86_64": (256, 256, 32, 0, 0), "i386": (256, 32, 0, 0, 0)}
NO_ZONE = 255


def gfp_zone_table(arch):
    """Highest zone by the low four bits of a GFP mask (gfp_zone()); NO_ZONE where the combination is illegal. 16 numbers."""
    names = ZONE_NAMES[arch]
    normal, dma, movable = names.index("Normal"), names.index("DMA"), names.index("Movable")
    dma32 = names.index("DMA32") if "DMA32" in names else normal
    high = names.index("HighMem") if "HighMem" in names else normal
    table = [NO_ZONE] * 16
    table[0] = table[8] = normal
    table[1] = table[9] = dma
    table[2] = high
    table[4] = table[12] = dma32
    table[10] = movable
    return table


cdef void init_heads(Mm* mm, uint32_t first_head) noexcept nogil:
    cdef uint32_t zi, cpu, k, head
    cdef Zone* z
    cdef Pcp* pcp
    for zi in range(mm.g.nr_zones):
        z = &mm.zones[zi]
        head = first_head + zi * HEADS_PER_ZONE + 1
        z.free_head = head
        if z.present:
            for k in range(NR_PAGE_ORDERS * MIGRATE_TYPES):
                list_init(mm.link, head + k)
        for cpu in range(mm.g.nr_cpus):
            pcp = &mm.pcps[zi * mm.g.nr_cpus + cpu]
            head = first_head + mm.g.nr_zones * HEADS_PER_ZONE + (zi * mm.g.nr_cpus + cpu) * NR_PCP_LISTS + 1
            pcp.list_head = head
            if z.present:
                for k in range(NR_PCP_LISTS):
                    list_init(mm.link, head + k)
    head = first_head + mm.g.nr_zones * HEADS_PER_ZONE + mm.g.nr_zones * mm.g.nr_cpus * NR_PCP_LISTS + 1
    for zi in range(mm.g.nr_nodes):
        mm.vm.lruvecs[zi].head = head + zi * LRU_HEADS_PER_NODE
        mm.vm.lruvecs[zi].node = zi
        for k in range(NR_LRU_LISTS):
            list_init(mm.link, mm.vm.lruvecs[zi].head + k)
    mm.vm.g.memcg_heads = head + mm.g.nr_nodes * LRU_HEADS_PER_NODE
    mm.vm.memcgs[0].flags = MEMCG_ONLINE
    mm.vm.memcgs[0].max = mm.vm.memcgs[0].high = mm.vm.memcgs[0].swap_max = mm.vm.memcgs[0].swap_high = PAGE_COUNTER_MAX


cdef void set_zone_of_blocks(Mm* mm, uint32_t start, uint32_t end, uint32_t zi) noexcept nogil:
    # Whole blocks name their zone; a block that two zones share (or whose other part is another zone's) is looked up.
    cdef uint32_t b = start >> 9, last = (end - 1) >> 9
    while b <= last:
        if block_at(mm, b).zone == 0:
            block_at(mm, b).zone = <unsigned short>(zi + 1)
        elif block_at(mm, b).zone != zi + 1:
            block_at(mm, b).zone = 0xffff
        b += 1


cdef void boot_free_range(Mm* mm, Zone* z, Pcp* pcp, uint32_t pfn, uint32_t end, bint lazy) noexcept nogil:
    # memblock_free_all(): the largest aligned chunks, ascending, each to the tail of its list
    cdef unsigned order
    cdef uint32_t n, stop
    while pfn < end:
        order = ctz(pfn) if pfn else MAX_PAGE_ORDER
        if order > MAX_PAGE_ORDER:
            order = MAX_PAGE_ORDER
        while pfn + (<uint32_t>1 << order) > end:
            order -= 1
        if order == MAX_PAGE_ORDER and lazy and pageblock_mt(mm, pfn) == MIGRATE_MOVABLE:
            stop = end & ~<uint32_t>1023
            n = (stop - pfn) >> MAX_PAGE_ORDER
            if z.lazy_left == 0:
                list_add_tail(mm.link, free_list_head(z, MAX_PAGE_ORDER, MIGRATE_MOVABLE), z.lazy_head)
                z.lazy_pfn = pfn
                z.lazy_range_end = z.lazy_range
                z.order_mask[MIGRATE_MOVABLE] |= 1 << MAX_PAGE_ORDER
            mm.lazy[z.lazy_range_end].start = pfn
            mm.lazy[z.lazy_range_end].end = stop
            z.lazy_range_end += 1
            z.lazy_left += n
            z.nr_free[MAX_PAGE_ORDER] += n
            z.vm_stat[NR_FREE_PAGES] += stop - pfn
            mm.g.pgfree += stop - pfn
            pfn = stop
            continue
        mm.g.pgfree += <uint32_t>1 << order
        free_one_page(mm, z, pcp, pfn, order, pageblock_mt(mm, pfn), FPI_TO_TAIL)
        pfn += <uint32_t>1 << order


def boot(plan, *, kernel="6.12", thp="always", cache_slice_pages=1024, paging=None, max_memcgs=64):
    """Build the State of a machine from a plan of its memory (mmcore.phys.zones.plan_boot): zones, free lists and reserves as after boot.

    kernel is "6.12" or "6.1", thp "always", "madvise" or "never". Watermarks are computed at the kernel's two moments (T1 with no marks
    set yet, T2 when transparent huge pages start); memory in plan.late_ranges is freed after them and recomputes nothing.
    """
    cdef State s
    cdef uint32_t zi, first_head
    cdef Zone* z
    names = ZONE_NAMES[plan.arch]
    paging = paging or DEFAULT_PAGING[plan.arch]
    if paging not in ARCH_PAGING[plan.arch]:
        raise ValueError(f"paging is {paging!r}; {plan.arch} has {', '.join(ARCH_PAGING[plan.arch])}")
    zones, free_ranges = plan.zones, plan.free_ranges
    nr_nodes, types, cpus = len(plan.nodes), len(names), len(plan.cpu_node)
    s = State(nr_pages=plan.max_pfn, nr_nodes=nr_nodes, nr_zone_types=types, nr_cpus=cpus,
              nr_lazy=len(free_ranges), nr_present=len(plan.present_ranges),
              pt_levels=PAGING[paging].levels, pt_bits=PAGING[paging].bits, max_memcgs=max_memcgs)
    g = s.globals[0]
    for key, name in (("zid_dma", "DMA"), ("zid_dma32", "DMA32"), ("zid_normal", "Normal"), ("zid_highmem", "HighMem"), ("zid_movable", "Movable")):
        g[key] = names.index(name) if name in names else NO_ZONE
    g["gfp_zone"] = gfp_zone_table(plan.arch)
    g["kernel"] = {"6.12": 0, "6.1": 1}[kernel]
    g["pcp_order9"] = 1
    g["numa"] = plan.arch == "x86_64"
    g["lowmem_reserve_ratio"] = LOWMEM_RATIO[plan.arch]
    g["watermark_scale_factor"], g["watermark_boost_factor"] = 10, 15000
    g["min_unmapped_ratio"], g["min_slab_ratio"] = 1, 5
    g["user_min_free_kbytes"] = -1
    g["cache_slice_pages"] = cache_slice_pages
    g["mobility_disabled"] = bool(plan.mobility_disabled)
    for zi, geo in enumerate(zones):
        row = s.zones[zi]
        row["node"], row["zid"] = geo.node, geo.zid
        row["start_pfn"], row["spanned"], row["present"] = geo.start_pfn, geo.spanned, geo.present
    for i, node in enumerate(plan.nodes):
        row = s.nodes[i]
        row["start_pfn"], row["spanned"], row["present"] = node.start_pfn, node.spanned, node.present
        row["has_memory"], row["kswapd_order"] = node.present > 0, 0
        row["nr_cpus"] = sum(n == i for n in plan.cpu_node)
        row["has_cpu"] = row["nr_cpus"] > 0
        s.distances[i] = node.distances
    s.cpu_node[:] = plan.cpu_node
    for i, (fallback, own) in enumerate(plan.zonelists):
        s.zonelists[i, 0, :len(fallback)] = np.asarray(fallback, np.uint16) + 1
        s.zonelists[i, 1, :len(own)] = np.asarray(own, np.uint16) + 1
    for i, (zone, start, end) in enumerate(plan.present_ranges):
        s.present[i] = (start, end, zone, 0)
        set_zone_of_blocks(&s.c, start, end, zone)
    s.pageblocks["zone"][s.pageblocks["zone"] == 0xffff] = 0
    # A pageblock is MOVABLE from the start only if its first page is memory: the walk over memory sets it there.
    at = 0
    for start, end in [(start, end) for _, start, end in sorted(plan.present_ranges, key=lambda r: r[1])] + [(len(s.pageblocks) << 9,) * 2]:
        s.pageblocks["mt"][(at + 511) >> 9:(start + 511) >> 9] = MIGRATE_UNMOVABLE ^ MIGRATE_MOVABLE
        at = max(at, end)

    first_head = <uint32_t>s.first_head
    init_heads(&s.c, first_head)
    for zi in range(s.c.g.nr_zones):
        s.c.zones[zi].lazy_head = s.c.zones[zi].free_head + NR_PAGE_ORDERS * MIGRATE_TYPES
    at = 0
    for zi in range(s.c.g.nr_zones):
        mine = [(start, end) for zone, start, end in free_ranges if zone == zi]
        z = &s.c.zones[zi]
        z.lazy_range = z.lazy_range_end = at
        for start, end in mine:
            boot_free_range(&s.c, z, &s.c.pcps[zi * s.c.g.nr_cpus], start, end, True)
            z.managed += <unsigned>(end - start)
        at += len(mine)
        _fold_boot(&s.c, zi)
    s.c.g.totalram_pages = int(s.zones["managed"].sum())
    boot_watermarks(&s.c)
    # T2: transparent huge pages start unless the machine is too small for them
    small = s.c.g.totalram_pages < 512 * 256
    s.c.g.thp_enabled = 0 if small else {"never": 0, "madvise": 1, "always": 2}[thp]
    if not small:
        thp_watermarks(&s.c)
    for zone, start, end in plan.late_ranges:
        late_free(s, zone, start, end)
    set_vm_defaults(s, paging)
    s.c.g.booted = 1
    return s


cdef void _fold_boot(Mm* mm, uint32_t zi) noexcept nogil:
    cdef Pcp* pcp = &mm.pcps[zi * mm.g.nr_cpus]
    mm.zones[zi].vm_stat[NR_FREE_PAGES] += pcp.vm_diff[NR_FREE_PAGES]
    pcp.vm_diff[NR_FREE_PAGES] = 0


def late_free(State s, unsigned zi, unsigned start, unsigned end):
    """Hand boot memory to the allocator after the watermarks were set (initrd, init text): managed grows, no watermark follows."""
    cdef Mm* mm = &s.c
    cdef uint32_t pfn, r
    cdef unsigned order
    if zi >= mm.g.nr_zones or not start < end <= mm.g.nr_pages:
        raise ValueError(f"late pages {start:#x}..{end:#x} of zone index {zi}: the machine has {mm.g.nr_zones} zones and pfns below {mm.g.nr_pages:#x}")
    cdef Zone* z = &mm.zones[zi]
    for order in range(NR_PAGE_ORDERS):
        pfn = start >> order << order
        if page_at(mm, pfn).flags and pfn + (<uint32_t>1 << (page_at(mm, pfn).flags >> PG_ORDER_SHIFT)) > start:
            raise ValueError(f"late page {start:#x} was given to the allocator before")
    for r in range(z.lazy_range, z.lazy_range_end if z.lazy_left else z.lazy_range):
        if start < mm.lazy[r].end and end > (z.lazy_pfn if r == z.lazy_range else mm.lazy[r].start):
            raise ValueError(f"late pages {start:#x}..{end:#x}: some were given to the allocator before")
    for pfn in range(start, end):
        if zone_of(mm, pfn) != zi + 1 or page_at(mm, pfn).flags:
            raise ValueError(f"late page {pfn:#x} does not lie in zone index {zi}, or was given to the allocator before")
    boot_free_range(&s.c, z, &s.c.pcps[zi * s.c.g.nr_cpus], start, end, False)
    _fold_boot(&s.c, zi)
    z.managed += end - start
    s.c.g.totalram_pages += end - start


def free_list(State s, unsigned zi, unsigned order, unsigned mt):
    """Page frames on the free list (zone index, order, migratetype), head first: array of uint32. Untouched blocks are listed like others."""
    cdef Mm* mm = &s.c
    cdef uint32_t head, x, r, pfn, limit = mm.g.nr_pages
    cdef Zone* z
    if zi >= mm.g.nr_zones or order >= NR_PAGE_ORDERS or mt >= MIGRATE_TYPES:
        raise IndexError(f"no free list for zone index {zi}, order {order}, migratetype {mt}")
    z = &mm.zones[zi]
    out = []
    if not z.present:
        return np.empty(0, np.uint32)
    state_lock(s)
    try:
        head = free_list_head(z, order, mt)
        x = mm.link[head].next
        while x != head:
            if x == z.lazy_head:
                pfn = z.lazy_pfn
                for r in range(z.lazy_range, z.lazy_range_end):
                    out.append(np.arange(pfn, mm.lazy[r].end, 1 << MAX_PAGE_ORDER, dtype=np.uint32))
                    if r + 1 < z.lazy_range_end:
                        pfn = mm.lazy[r + 1].start
            else:
                out.append(x - 1)
            x = mm.link[x].next
            if len(out) > limit or x == 0:
                raise ValueError(f"free list of zone index {zi}, order {order}, migratetype {mt} is not closed")
    finally:
        state_unlock(s)
    if not out:
        return np.empty(0, np.uint32)
    return np.concatenate([np.atleast_1d(np.asarray(v, np.uint32)) for v in out])


def pcp_list(State s, unsigned zi, unsigned cpu, unsigned index):
    """Page frames on per-CPU list `index` (3 * order + migratetype; 12 and 13: order 9), head first: array of uint32."""
    cdef Mm* mm = &s.c
    cdef uint32_t head, x, n = 0
    if zi >= mm.g.nr_zones or cpu >= mm.g.nr_cpus or index >= NR_PCP_LISTS:
        raise IndexError(f"no per-CPU list for zone index {zi}, CPU {cpu}, index {index}")
    out = []
    if mm.zones[zi].present:
        state_lock(s)
        try:
            head = mm.pcps[zi * mm.g.nr_cpus + cpu].list_head + index
            x = mm.link[head].next
            while x != head:
                out.append(x - 1)
                x = mm.link[x].next
                n += 1
                if n > mm.g.nr_pages or x == 0:
                    raise ValueError(f"per-CPU list {index} of zone index {zi}, CPU {cpu} is not closed")
        finally:
            state_unlock(s)
    return np.array(out, np.uint32)


def materialize(State s):
    """Write untouched blocks out as ordinary list members. Changes nothing that can be observed but the memory in use."""
    cdef uint32_t zi
    state_lock(s)
    for zi in range(s.c.g.nr_zones):
        materialize_zone(&s.c, &s.c.zones[zi])
        s.c.zones[zi].lazy_range = s.c.zones[zi].lazy_range_end = 0
    state_unlock(s)
    s.lazy[...] = 0


def clear_lists(State s):
    """Empty every free list and per-CPU list: first step of loading a recorded state. Pages count as neither free nor allocated then."""
    cdef Mm* mm = &s.c
    cdef uint32_t zi
    s.clear_pages()
    init_heads(mm, <uint32_t>s.first_head)
    for zi in range(mm.g.nr_zones):
        mm.zones[zi].lazy_left = 0
        mm.zones[zi].lazy_pfn = 0
        mm.zones[zi].lazy_range = mm.zones[zi].lazy_range_end = 0
    s.lazy[...] = 0
    s.zones["nr_free"][...] = 0
    s.zones["order_mask"][...] = 0
    s.pcps["count"][...] = 0


def load_free_list(State s, unsigned zi, unsigned order, unsigned mt, pfns):
    """Append free blocks to a list, in the order given. Counters of free pages are left to the caller."""
    cdef Mm* mm = &s.c
    cdef uint32_t pfn
    cdef Zone* z
    if zi >= mm.g.nr_zones or order >= NR_PAGE_ORDERS or mt >= MIGRATE_TYPES:
        raise ValueError(f"no free list for zone index {zi}, order {order}, migratetype {mt}")
    z = &mm.zones[zi]
    for value in pfns:
        _check_block(s, zi, value, order)
        pfn = value
        add_to_free_list(mm, z, pfn, order, mt, True)


def load_pcp_list(State s, unsigned zi, unsigned cpu, unsigned index, pfns):
    """Append blocks to a per-CPU list, in the order given, and count them."""
    cdef Mm* mm = &s.c
    cdef uint32_t pfn
    cdef Pcp* pcp
    cdef unsigned order = index // 3 if index < 12 else 9
    if zi >= mm.g.nr_zones or cpu >= mm.g.nr_cpus or index >= NR_PCP_LISTS or not mm.zones[zi].present:
        raise ValueError(f"no per-CPU list for zone index {zi}, CPU {cpu}, index {index}")
    pcp = &mm.pcps[zi * mm.g.nr_cpus + cpu]
    for value in pfns:
        _check_block(s, zi, value, order)
        pfn = value
        page_at(mm, pfn).flags = PG_pcp | (order << PG_ORDER_SHIFT)
        list_add_tail(mm.link, pcp.list_head + index, pfn + 1)
        pcp.count += 1 << order


def _check_block(State s, unsigned zi, value, unsigned order):
    cdef Mm* mm = &s.c
    if not 0 <= value < mm.g.nr_pages or value & ((1 << order) - 1):
        raise ValueError(f"block {value:#x} of order {order} is not aligned or outside {mm.g.nr_pages:#x} page frames")
    if not mm.zones[zi].present or zone_of(mm, value) != zi + 1 or zone_of(mm, value + (1 << order) - 1) != zi + 1:
        raise ValueError(f"block {value:#x} of order {order} does not lie in zone index {zi}")
    if page_at(mm, <uint32_t>value).flags:
        raise ValueError(f"block {value:#x} is listed twice")
