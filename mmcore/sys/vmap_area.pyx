"""The address space of vmalloc.

Models: alloc_vmap_area, free_vmap_area_noflush, the free structure with its lowest match, vmap nodes with their pools, lazy freeing,
__purge_vmap_area_lazy, the vmap-node shrinker (mm/vmalloc.c, v6.12; on both kernels). Simplifies: the drain worker runs at the end of
the call that schedules it; nodes shard the lists of freed areas only, busy areas stand in one tree; an alignment above a page takes the
lowest range that holds length + align - 1 bytes, else the lowest one that can hold the request aligned (the kernel may also meet such a
range on its way down its tree). Omits: what boot maps there before (per-CPU areas, kernel stacks), per-CPU vm_map_ram blocks.

All ranges stand in treaps over VmArea: one of free ranges with the longest one below each node, one of busy areas, one of lazily freed
areas for each node. Priorities follow from the address, so equal machines have equal trees.
"""
from mmcore.base.errors cimport E_NOMEM
from mmcore.base.pool cimport pool_give, pool_room, pool_take
from mmcore.base.records cimport NO_ZID, Zone
from mmcore.base.vm_records cimport POOL_VM_AREAS, POOL_VMAP_NODES, VmapNode
from mmcore.sys.flush cimport flush_kernel_range

cdef enum:
    MAX_VA_SIZE_PAGES = 256
    MAX_VMAP_NODES = 128
    ZONE_SHIFT = 16             # vmap_zone_size: 64 KiB
    PAGE = 4096
    PAGING_4LEVEL = 0           # positions of mmcore.phys.vm_defaults.PAGING
    PAGING_5LEVEL = 1
    PAGING_2LEVEL = 2
    PAGING_PAE = 3
    PAGING_ARM64_48 = 4


# ---------------------------------------------------------------- treaps

cdef inline void fix_size(Mm* mm, uint32_t x) noexcept nogil:
    cdef VmArea* a = area_at(mm, x)
    a.max_size = a.end - a.start
    if a.left and area_at(mm, a.left).max_size > a.max_size:
        a.max_size = area_at(mm, a.left).max_size
    if a.right and area_at(mm, a.right).max_size > a.max_size:
        a.max_size = area_at(mm, a.right).max_size


cdef inline void fix_upwards(Mm* mm, uint32_t x) noexcept nogil:
    while x:
        fix_size(mm, x)
        x = area_at(mm, x).up


cdef inline void replace_child(Mm* mm, uint32_t up, uint32_t old, uint32_t new) noexcept nogil:
    if up:
        if area_at(mm, up).left == old:
            area_at(mm, up).left = new
        else:
            area_at(mm, up).right = new
    if new:
        area_at(mm, new).up = up


cdef void rotate_up(Mm* mm, uint32_t x) noexcept nogil:
    # x takes its parent's place
    cdef VmArea* a = area_at(mm, x)
    cdef uint32_t p = a.up
    cdef VmArea* b = area_at(mm, p)
    replace_child(mm, b.up, p, x)
    if b.left == x:
        b.left = a.right
        if a.right:
            area_at(mm, a.right).up = p
        a.right = p
    else:
        b.right = a.left
        if a.left:
            area_at(mm, a.left).up = p
        a.left = p
    b.up = x
    fix_size(mm, p)
    fix_size(mm, x)


cdef uint32_t tree_insert(Mm* mm, uint32_t root, uint32_t x) noexcept nogil:
    cdef VmArea* a = area_at(mm, x)
    cdef uint32_t at = root, up = 0
    a.left = a.right = 0
    a.priority = <uint32_t>(((a.start >> 12) * <uint64_t>0x9E3779B97F4A7C15) >> 32)
    while at:
        up = at
        at = area_at(mm, at).left if a.start < area_at(mm, at).start else area_at(mm, at).right
    a.up = up
    if up and a.start < area_at(mm, up).start:
        area_at(mm, up).left = x
    elif up:
        area_at(mm, up).right = x
    fix_upwards(mm, x)
    while a.up and area_at(mm, a.up).priority < a.priority:
        rotate_up(mm, x)
    return root if a.up else x


cdef uint32_t tree_remove(Mm* mm, uint32_t root, uint32_t x) noexcept nogil:
    cdef VmArea* a = area_at(mm, x)
    cdef uint32_t child, up
    while a.left and a.right:
        child = a.left if area_at(mm, a.left).priority > area_at(mm, a.right).priority else a.right
        rotate_up(mm, child)
        if root == x:
            root = child
    child = a.left if a.left else a.right
    up = a.up
    replace_child(mm, up, x, child)
    fix_upwards(mm, up)
    a.left = a.right = a.up = 0
    a.max_size = 0
    return child if root == x else root


cdef uint32_t tree_first(Mm* mm, uint32_t x) noexcept nogil:
    while x and area_at(mm, x).left:
        x = area_at(mm, x).left
    return x


cdef uint32_t tree_next(Mm* mm, uint32_t x) noexcept nogil:
    cdef uint32_t up
    if area_at(mm, x).right:
        return tree_first(mm, area_at(mm, x).right)
    up = area_at(mm, x).up
    while up and area_at(mm, up).right == x:
        x = up
        up = area_at(mm, x).up
    return up


cdef uint32_t tree_at_or_below(Mm* mm, uint32_t x, uint64_t address) noexcept nogil:
    # the range with the highest start that is no higher than address
    cdef uint32_t found = 0
    while x:
        if area_at(mm, x).start <= address:
            found = x
            x = area_at(mm, x).right
        else:
            x = area_at(mm, x).left
    return found


cdef inline uint64_t align_up(uint64_t x, uint64_t align) noexcept nogil:
    return (x + align - 1) & ~(align - 1)


cdef inline bint takes(const VmArea* a, uint64_t size, uint64_t align) noexcept nogil:
    cdef uint64_t at = align_up(a.start, align)
    return at < a.end and a.end - at >= size


cdef uint32_t lowest_fit(Mm* mm, uint32_t x, uint64_t least, uint64_t size, uint64_t align) noexcept nogil:
    # The lowest range of at least `least` bytes that holds `size` at `align`.
    cdef VmArea* a
    cdef uint32_t from_ = 0
    cdef bint down = True
    if not x or area_at(mm, x).max_size < least:
        return 0
    while x:
        a = area_at(mm, x)
        if down and a.left and area_at(mm, a.left).max_size >= least:
            x = a.left
            continue
        if down or from_ == a.left:
            if a.end - a.start >= least and takes(a, size, align):
                return x
            if a.right and area_at(mm, a.right).max_size >= least:
                x = a.right
                down = True
                continue
        down = False
        from_ = x
        x = a.up
    return 0


# ---------------------------------------------------------------- records

cdef inline uint32_t new_area(Mm* mm, uint64_t start, uint64_t end, uint32_t state) noexcept nogil:
    cdef uint32_t x = pool_take(mm.vm.pools + <int>POOL_VM_AREAS, mm.vm.areas, sizeof(VmArea))
    if x:
        area_at(mm, x).start = start
        area_at(mm, x).end = end
        area_at(mm, x).state = state
    return x


cdef inline void drop_area(Mm* mm, uint32_t x) noexcept nogil:
    cdef VmArea* a = area_at(mm, x)
    a.state = a.flags = a.left = a.right = a.up = a.priority = a.next = a.prev = a.node = 0
    a.start = a.end = a.max_size = 0
    pool_give(mm.vm.pools + <int>POOL_VM_AREAS, mm.vm.areas, sizeof(VmArea), x)


cdef inline VmapNode* node_at(Mm* mm, uint32_t i) noexcept nogil:
    return &mm.vm.vmap_nodes[i]


cdef void vmap_bounds(Mm* mm, uint64_t* start, uint64_t* end) noexcept nogil:
    # The last page below VMALLOC_END is never handed out where that address is the last byte of the area.
    cdef uint32_t paging = mm.vm.g.paging, zi
    cdef uint64_t top, low = 0, high = 0, limit
    cdef Zone* z
    if paging == PAGING_4LEVEL:
        start[0] = <uint64_t>0xffffc90000000000
        end[0] = start[0] + (<uint64_t>32 << 40) - PAGE
    elif paging == PAGING_5LEVEL:
        start[0] = <uint64_t>0xffa0000000000000
        end[0] = start[0] + (<uint64_t>12800 << 40) - PAGE
    elif paging == PAGING_2LEVEL or paging == PAGING_PAE:
        # below the persistent kmaps, from 8 MiB above lowmem on
        top = (<uint64_t>0xff000000 if paging == PAGING_PAE else <uint64_t>0xfec00000) - 2 * PAGE
        limit = (top - (<uint64_t>128 << 20) - <uint64_t>0xc0000000) >> 12
        for zi in range(mm.g.nr_zones):
            z = &mm.zones[zi]
            if z.spanned:
                if z.start_pfn + z.spanned > high:
                    high = z.start_pfn + z.spanned
                if z.zid < mm.g.zid_highmem and z.start_pfn + z.spanned > low:
                    low = z.start_pfn + z.spanned
        for zi in range(mm.g.nr_zones):
            z = &mm.zones[zi]
            if z.spanned and mm.g.zid_highmem != NO_ZID and z.zid == mm.g.zid_highmem:
                break
        else:
            low = high if high < limit else limit
        start[0] = <uint64_t>0xc0000000 + (low << 12) + (<uint64_t>8 << 20)
        end[0] = top
    elif paging == PAGING_ARM64_48:
        start[0] = <uint64_t>0xffff800080000000
        end[0] = <uint64_t>0xfffffdffc0000000 - (<uint64_t>8 << 20)
    else:
        start[0] = <uint64_t>0xffffffc080000000
        end[0] = <uint64_t>0xfffffffec0000000 - (<uint64_t>8 << 20)


cdef int vmap_init(Mm* mm) noexcept nogil:
    cdef uint64_t* g = mm.vm.g.vmalloc
    cdef uint32_t nodes = mm.g.nr_cpus, _i, x
    if g[VG_READY]:
        return 0
    # 32-bit kernels have one node
    if mm.vm.g.paging == PAGING_2LEVEL or mm.vm.g.paging == PAGING_PAE or nodes < 1:
        nodes = 1
    if nodes > MAX_VMAP_NODES:
        nodes = MAX_VMAP_NODES
    if pool_room(mm.vm.pools + <int>POOL_VMAP_NODES) < nodes or not pool_room(mm.vm.pools + <int>POOL_VM_AREAS):
        return -E_NOMEM
    vmap_bounds(mm, &g[VG_START], &g[VG_END])
    for _i in range(nodes):
        pool_take(mm.vm.pools + <int>POOL_VMAP_NODES, mm.vm.vmap_nodes, sizeof(VmapNode))
    g[VG_NODES] = nodes
    if g[VG_START] < g[VG_END]:
        x = new_area(mm, g[VG_START], g[VG_END], VA_FREE)
        g[VG_FREE_ROOT] = tree_insert(mm, 0, x)
    g[VG_READY] = 1
    return 0


# ---------------------------------------------------------------- free ranges

cdef void merge_or_add(Mm* mm, uint32_t x) noexcept nogil:
    # The range of record x becomes free; it is joined with the free ranges that it touches.
    cdef uint64_t* g = mm.vm.g.vmalloc
    cdef uint32_t root = <uint32_t>g[VG_FREE_ROOT], below, above
    cdef VmArea* a = area_at(mm, x)
    a.state = VA_FREE
    a.node = a.next = a.prev = 0
    below = tree_at_or_below(mm, root, a.start)
    above = tree_next(mm, below) if below else tree_first(mm, root)
    if above and area_at(mm, above).start != a.end:
        above = 0
    if below and area_at(mm, below).end == a.start:
        area_at(mm, below).end = area_at(mm, above).end if above else a.end
        drop_area(mm, x)
        if above:
            root = tree_remove(mm, root, above)
            drop_area(mm, above)
        fix_upwards(mm, below)
    elif above:
        area_at(mm, above).start = a.start      # keeps its place in the order
        drop_area(mm, x)
        fix_upwards(mm, above)
    else:
        root = tree_insert(mm, root, x)
    g[VG_FREE_ROOT] = root


cdef uint32_t take_free(Mm* mm, uint64_t size, uint64_t align) noexcept nogil:
    # An area cut from the lowest free range that holds it; its record stands in no tree.
    cdef uint64_t* g = mm.vm.g.vmalloc
    cdef uint32_t root = <uint32_t>g[VG_FREE_ROOT], f = 0, x
    cdef uint64_t at, end
    cdef VmArea* a
    if pool_room(mm.vm.pools + <int>POOL_VM_AREAS) < 2:
        return 0
    if align > PAGE and g[VG_END] - g[VG_START] != size:
        f = lowest_fit(mm, root, size + align - 1, size, align)
    if not f:
        f = lowest_fit(mm, root, size, size, align)
    if not f:
        return 0
    a = area_at(mm, f)
    at = align_up(a.start, align)
    end = a.end
    if a.start == at and end == at + size:
        g[VG_FREE_ROOT] = tree_remove(mm, root, f)
        return f
    x = new_area(mm, at, at + size, VA_FREE)
    if a.start == at:
        a.start = at + size
        fix_upwards(mm, f)
    else:
        a.end = at
        fix_upwards(mm, f)
        if end != at + size:
            f = new_area(mm, at + size, end, VA_FREE)
            g[VG_FREE_ROOT] = tree_insert(mm, root, f)
    return x


# ---------------------------------------------------------------- pools of exact lengths

cdef inline uint32_t pool_of(uint64_t size) noexcept nogil:
    # its index; MAX_VA_SIZE_PAGES: too long for any
    return <uint32_t>((size >> 12) - 1) if (size >> 12) - 1 < MAX_VA_SIZE_PAGES else MAX_VA_SIZE_PAGES


cdef void pool_unlink(Mm* mm, VmapNode* n, uint32_t k, uint32_t x) noexcept nogil:
    cdef VmArea* a = area_at(mm, x)
    if a.prev:
        area_at(mm, a.prev).next = a.next
    else:
        n.head[k] = a.next
    if a.next:
        area_at(mm, a.next).prev = a.prev
    else:
        n.tail[k] = a.prev
    a.next = a.prev = 0
    n.len[k] -= 1


cdef void pool_push(Mm* mm, VmapNode* n, uint32_t k, uint32_t x, bint at_tail) noexcept nogil:
    cdef VmArea* a = area_at(mm, x)
    if at_tail:
        a.prev = n.tail[k]
        a.next = 0
        if a.prev:
            area_at(mm, a.prev).next = x
        else:
            n.head[k] = x
        n.tail[k] = x
    else:
        a.next = n.head[k]
        a.prev = 0
        if a.next:
            area_at(mm, a.next).prev = x
        else:
            n.tail[k] = x
        n.head[k] = x
    n.len[k] += 1


cdef uint32_t take_pooled(Mm* mm, VmapNode* n, uint64_t size, uint64_t align) noexcept nogil:
    cdef uint32_t k = pool_of(size), x
    if k == MAX_VA_SIZE_PAGES or not n.head[k]:
        return 0
    x = n.head[k]
    pool_unlink(mm, n, k, x)
    if area_at(mm, x).start & (align - 1):
        pool_push(mm, n, k, x, True)
        return 0
    return x


cdef void decay_pools(Mm* mm, VmapNode* n, bint full) noexcept nogil:
    # A quarter of each pool goes back, from its head on; one of fewer than four entries is emptied.
    cdef uint32_t k, x, left
    for k in range(MAX_VA_SIZE_PAGES):
        left = n.len[k] if full or n.len[k] < 4 else n.len[k] >> 2
        while left:
            x = n.head[k]
            pool_unlink(mm, n, k, x)
            merge_or_add(mm, x)
            left -= 1


cdef void shrink_vmap_nodes(Mm* mm) noexcept nogil:
    cdef uint32_t i
    for i in range(<uint32_t>mm.vm.g.vmalloc[VG_NODES]):
        decay_pools(mm, node_at(mm, i), True)


# ---------------------------------------------------------------- areas

cdef uint32_t find_vmap_area(Mm* mm, uint64_t address) noexcept nogil:
    # the busy area that holds the address (guard page included)
    cdef uint32_t x = tree_at_or_below(mm, <uint32_t>mm.vm.g.vmalloc[VG_BUSY_ROOT], address)
    return x if x and address < area_at(mm, x).end else 0


cdef uint32_t alloc_vmap_area(Mm* mm, uint64_t size, uint64_t align, unsigned cpu) noexcept nogil:
    cdef uint64_t* g = mm.vm.g.vmalloc
    cdef uint32_t node = cpu % <uint32_t>g[VG_NODES]
    cdef uint32_t x = take_pooled(mm, node_at(mm, node), size, align)
    if not x:
        x = take_free(mm, size, align)
    if not x:
        purge_vmap_areas(mm, True)
        g[VG_NR_FORCED] += 1
        x = take_free(mm, size, align)
        if not x:
            return 0
    area_at(mm, x).state = VA_BUSY
    area_at(mm, x).node = node + 1
    g[VG_BUSY_ROOT] = tree_insert(mm, <uint32_t>g[VG_BUSY_ROOT], x)
    g[VG_NR_BUSY] += 1
    return x


cdef void free_vmap_area(Mm* mm, uint32_t x) noexcept nogil:
    cdef uint64_t* g = mm.vm.g.vmalloc
    cdef VmArea* a = area_at(mm, x)
    cdef VmapNode* n = node_at(mm, a.node - 1 if a.node else <uint32_t>((a.start >> ZONE_SHIFT) % g[VG_NODES]))
    g[VG_BUSY_ROOT] = tree_remove(mm, <uint32_t>g[VG_BUSY_ROOT], x)
    g[VG_NR_BUSY] -= 1
    a.state = VA_LAZY
    a.flags = a.nr_pages = a.pages = a.caller = a.array = a.page_order = 0
    a.requested = a.phys = 0
    n.lazy_root = tree_insert(mm, n.lazy_root, x)
    n.nr_lazy += 1
    g[VG_LAZY_PAGES] += (a.end - a.start) >> 12


cdef uint64_t lazy_max_pages(Mm* mm) noexcept nogil:
    cdef uint32_t cpus = mm.g.nr_cpus, fls = 0
    while cpus:
        fls += 1
        cpus >>= 1
    return <uint64_t>fls * (32 * 1024 * 1024 // PAGE)


cdef void purge_node(Mm* mm, VmapNode* n, bint forced) noexcept nogil:
    # The lazily freed areas of one node, ascending: to the heads of its pools, or back to the free ranges.
    cdef uint64_t* g = mm.vm.g.vmalloc
    cdef uint32_t first = tree_first(mm, n.lazy_root), x = first, next_, k
    while x:            # the tree is given up: its order is kept in a chain
        next_ = tree_next(mm, x)
        area_at(mm, x).next = next_
        x = next_
    n.lazy_root = n.nr_lazy = 0
    x = first
    while x:
        next_ = area_at(mm, x).next
        area_at(mm, x).next = area_at(mm, x).left = area_at(mm, x).right = area_at(mm, x).up = 0
        area_at(mm, x).max_size = 0
        g[VG_LAZY_PAGES] -= (area_at(mm, x).end - area_at(mm, x).start) >> 12
        k = pool_of(area_at(mm, x).end - area_at(mm, x).start)
        if k < MAX_VA_SIZE_PAGES and area_at(mm, x).node and not forced:
            area_at(mm, x).state = VA_POOLED
            pool_push(mm, n, k, x, False)
        else:
            merge_or_add(mm, x)
        x = next_


cdef void purge_vmap_areas(Mm* mm, bint forced) noexcept nogil:
    cdef uint64_t* g = mm.vm.g.vmalloc
    cdef uint64_t start = ~<uint64_t>0, end = 0
    cdef uint32_t i, x
    cdef VmapNode* n
    g[VG_NR_PURGES] += 1
    for i in range(<uint32_t>g[VG_NODES]):
        n = node_at(mm, i)
        decay_pools(mm, n, forced)
        if not n.lazy_root:
            continue
        x = tree_first(mm, n.lazy_root)
        if area_at(mm, x).start < start:
            start = area_at(mm, x).start
        x = n.lazy_root
        while area_at(mm, x).right:
            x = area_at(mm, x).right
        if area_at(mm, x).end > end:
            end = area_at(mm, x).end
    if not end:
        return
    g[VG_NR_FLUSHES] += 1
    g[VG_FLUSH_START] = start
    g[VG_FLUSH_END] = end
    flush_kernel_range(mm, start, end, 0)
    for i in range(<uint32_t>g[VG_NODES]):
        purge_node(mm, node_at(mm, i), forced)


cdef void drain_vmap_areas(Mm* mm) noexcept nogil:
    while mm.vm.g.vmalloc[VG_LAZY_PAGES] > lazy_max_pages(mm):
        purge_vmap_areas(mm, False)


# ---------------------------------------------------------------- page tables of the range

cdef uint64_t covered_until(Mm* mm, unsigned root, uint64_t at) noexcept nogil:
    cdef uint32_t x = tree_at_or_below(mm, <uint32_t>mm.vm.g.vmalloc[root], at)
    return area_at(mm, x).end if x and at < area_at(mm, x).end else 0


cdef void cover_table(Mm* mm, unsigned root, unsigned shift, uint64_t at) noexcept nogil:
    # Joined with the run that ends here and the one that begins behind it.
    cdef uint64_t* g = mm.vm.g.vmalloc
    cdef uint64_t low = at & ~((<uint64_t>1 << shift) - 1), high = low + (<uint64_t>1 << shift)
    cdef uint32_t x = tree_at_or_below(mm, <uint32_t>g[root], low)
    if x and area_at(mm, x).end == low:
        low = area_at(mm, x).start
        g[root] = tree_remove(mm, <uint32_t>g[root], x)
        drop_area(mm, x)
    x = tree_at_or_below(mm, <uint32_t>g[root], high)
    if x and area_at(mm, x).start == high:
        high = area_at(mm, x).end
        g[root] = tree_remove(mm, <uint32_t>g[root], x)
        drop_area(mm, x)
    x = new_area(mm, low, high, VA_TABLES)
    g[root] = tree_insert(mm, <uint32_t>g[root], x)
