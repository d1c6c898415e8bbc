"""The VMAs of an address space: an ordered map with the search for gaps.

Models: struct vm_area_struct, find_vma, find_vma_prev, find_vma_intersection, vm_unmapped_area, vm_stat_account (mm/mmap.c, mm/vma.c,
v6.12). Simplifies: the ordered map is a treap whose nodes know the largest gap below them, not a maple tree (what it finds is the same).
Omits: per-VMA locks, gaps above VMAs that grow upwards.

A node's gap is the free space between its predecessor's end and its own start. The treap's priorities follow from the record's number
and a counter of the address space, so that a run can be repeated bit for bit.
"""
from libc.string cimport memset

from mmcore.base.pool cimport pool_give, pool_take
from mmcore.base.vm_records cimport POOL_VMAS


cdef uint32_t vma_alloc(Mm* mm) noexcept nogil:
    return pool_take(pool_of(mm, POOL_VMAS), mm.vm.vmas, sizeof(Vma))


cdef void vma_free(Mm* mm, uint32_t x) noexcept nogil:
    memset(vma_at(mm, x), 0, sizeof(Vma))
    pool_give(pool_of(mm, POOL_VMAS), mm.vm.vmas, sizeof(Vma), x)


# ---------------------------------------------------------------- the treap

cdef inline uint64_t gap_of(Mm* mm, const Vma* v) noexcept nogil:
    return v.start - (vma_at(mm, v.prev).end if v.prev else 0)


cdef inline uint64_t largest_gap(Mm* mm, const Vma* v) noexcept nogil:
    cdef uint64_t gap = gap_of(mm, v)
    if v.left and vma_at(mm, v.left).max_gap > gap:
        gap = vma_at(mm, v.left).max_gap
    if v.right and vma_at(mm, v.right).max_gap > gap:
        gap = vma_at(mm, v.right).max_gap
    return gap


cdef void refresh(Mm* mm, uint32_t x) noexcept nogil:
    # A gap changed at x: every node above whose largest gap follows from it.
    cdef uint64_t gap
    while x:
        gap = largest_gap(mm, vma_at(mm, x))
        if gap == vma_at(mm, x).max_gap:
            return
        vma_at(mm, x).max_gap = gap
        x = vma_at(mm, x).up


cdef inline uint32_t priority_of(uint32_t x, uint32_t seq) noexcept nogil:
    cdef uint64_t h = (<uint64_t>seq << 32 | x) * <uint64_t>0x9e3779b97f4a7c15
    h = (h ^ h >> 29) * <uint64_t>0xbf58476d1ce4e5b9
    return <uint32_t>(h >> 32)


cdef inline void replace_child(Mm* mm, AddressSpace* a, uint32_t up, uint32_t old, uint32_t new) noexcept nogil:
    if not up:
        a.vma_root = new
    elif vma_at(mm, up).left == old:
        vma_at(mm, up).left = new
    else:
        vma_at(mm, up).right = new
    if new:
        vma_at(mm, new).up = up


cdef void rotate_up(Mm* mm, AddressSpace* a, uint32_t x) noexcept nogil:
    # x takes its parent's place; the parent's largest gap is counted anew, x's is left to the caller.
    cdef Vma* v = vma_at(mm, x)
    cdef uint32_t p = v.up
    cdef Vma* q = vma_at(mm, p)
    replace_child(mm, a, q.up, p, x)
    if q.left == x:
        q.left = v.right
        if v.right:
            vma_at(mm, v.right).up = p
        v.right = p
    else:
        q.right = v.left
        if v.left:
            vma_at(mm, v.left).up = p
        v.left = p
    q.up = x
    q.max_gap = largest_gap(mm, q)


cdef void vma_link(Mm* mm, uint32_t as_, uint32_t x, uint32_t prev) noexcept nogil:
    cdef AddressSpace* a = as_at(mm, as_)
    cdef Vma* v = vma_at(mm, x)
    v.mm = as_
    v.prev = prev
    v.next = vma_at(mm, prev).next if prev else a.vma_first
    v.left = v.right = v.up = 0
    v.priority = priority_of(x, a.vma_seq)
    a.vma_seq += 1
    a.map_count += 1
    if prev:
        vma_at(mm, prev).next = x
    else:
        a.vma_first = x
    if v.next:
        vma_at(mm, v.next).prev = x
    # of two neighbours one has no child on the side where the other one is
    if prev and not vma_at(mm, prev).right:
        vma_at(mm, prev).right = x
        v.up = prev
    elif v.next:
        vma_at(mm, v.next).left = x
        v.up = v.next
    else:
        a.vma_root = x
    v.max_gap = gap_of(mm, v)
    while v.up and vma_at(mm, v.up).priority < v.priority:
        rotate_up(mm, a, x)
    v.max_gap = largest_gap(mm, v)
    refresh(mm, v.up)
    refresh(mm, v.next)


cdef void vma_unlink(Mm* mm, uint32_t x) noexcept nogil:
    cdef Vma* v = vma_at(mm, x)
    cdef AddressSpace* a = as_at(mm, v.mm)
    cdef uint32_t up, child
    if v.prev:
        vma_at(mm, v.prev).next = v.next
    else:
        a.vma_first = v.next
    if v.next:
        vma_at(mm, v.next).prev = v.prev
    while v.left and v.right:
        child = v.left if vma_at(mm, v.left).priority > vma_at(mm, v.right).priority else v.right
        rotate_up(mm, a, child)
        vma_at(mm, child).max_gap = largest_gap(mm, vma_at(mm, child))
    up = v.up
    replace_child(mm, a, up, x, v.left if v.left else v.right)
    while up:                               # all of them: rotated ones were counted while x was still below them
        vma_at(mm, up).max_gap = largest_gap(mm, vma_at(mm, up))
        up = vma_at(mm, up).up
    refresh(mm, v.next)
    if a.vma_cache == x:
        a.vma_cache = 0
    a.map_count -= 1
    v.mm = v.prev = v.next = v.left = v.right = v.up = 0


cdef void vma_set_range(Mm* mm, uint32_t x, uint64_t start, uint64_t end, uint64_t pgoff) noexcept nogil:
    cdef Vma* v = vma_at(mm, x)
    v.start = start
    v.end = end
    v.pgoff = pgoff
    if v.mm:
        refresh(mm, x)
        refresh(mm, v.next)


# ---------------------------------------------------------------- finding

cdef uint32_t find_vma(Mm* mm, uint32_t as_, uint64_t address) noexcept nogil:
    cdef AddressSpace* a = as_at(mm, as_)
    cdef uint32_t x = a.vma_cache, found = 0
    cdef Vma* v
    if x:
        v = vma_at(mm, x)
        if v.start <= address < v.end:
            return x
    x = a.vma_root
    while x:
        v = vma_at(mm, x)
        if v.end > address:
            found = x
            if v.start <= address:
                break
            x = v.left
        else:
            x = v.right
    if found:
        a.vma_cache = found
    return found


cdef uint32_t vma_last(Mm* mm, uint32_t as_) noexcept nogil:
    cdef uint32_t x = as_at(mm, as_).vma_root
    while x and vma_at(mm, x).right:
        x = vma_at(mm, x).right
    return x


cdef uint32_t find_vma_prev(Mm* mm, uint32_t as_, uint64_t address, uint32_t* prev) noexcept nogil:
    cdef uint32_t x = find_vma(mm, as_, address)
    prev[0] = vma_at(mm, x).prev if x else vma_last(mm, as_)
    return x


cdef uint32_t find_vma_intersection(Mm* mm, uint32_t as_, uint64_t start, uint64_t end) noexcept nogil:
    cdef uint32_t x = find_vma(mm, as_, start)
    return x if x and vma_at(mm, x).start < end else 0


# ---------------------------------------------------------------- gaps

cdef uint32_t gap_below(Mm* mm, uint32_t x, uint64_t length) noexcept nogil:
    # The nearest VMA below x whose gap has `length` bytes.
    cdef const Vma* v = vma_at(mm, x)
    cdef uint32_t y = v.left
    while True:
        if y and vma_at(mm, y).max_gap >= length:
            while True:                     # the highest one in y's subtree
                v = vma_at(mm, y)
                if v.right and vma_at(mm, v.right).max_gap >= length:
                    y = v.right
                elif gap_of(mm, v) >= length:
                    return y
                else:
                    y = v.left
        y = v.up
        while y and vma_at(mm, y).left == x:
            x = y
            y = vma_at(mm, y).up
        if not y:
            return 0
        v = vma_at(mm, y)
        if gap_of(mm, v) >= length:
            return y
        x = y
        y = v.left


cdef uint32_t gap_above(Mm* mm, uint32_t x, uint64_t length) noexcept nogil:
    # The nearest VMA above x whose gap has `length` bytes.
    cdef const Vma* v = vma_at(mm, x)
    cdef uint32_t y = v.right
    while True:
        if y and vma_at(mm, y).max_gap >= length:
            while True:
                v = vma_at(mm, y)
                if v.left and vma_at(mm, v.left).max_gap >= length:
                    y = v.left
                elif gap_of(mm, v) >= length:
                    return y
                else:
                    y = v.right
        y = v.up
        while y and vma_at(mm, y).right == x:
            x = y
            y = vma_at(mm, y).up
        if not y:
            return 0
        v = vma_at(mm, y)
        if gap_of(mm, v) >= length:
            return y
        x = y
        y = v.right


cdef uint64_t unmapped_area_topdown(Mm* mm, uint32_t as_, uint64_t low, uint64_t high, uint64_t length) noexcept nogil:
    cdef uint32_t x, prev
    cdef uint64_t start, end
    if low < <uint64_t>mm.vm.g.mmap_min_addr:
        low = <uint64_t>mm.vm.g.mmap_min_addr
    if high <= low or high - low < length:
        return ~<uint64_t>0
    x = find_vma_prev(mm, as_, high - 1, &prev)
    if x and vma_at(mm, x).start < high:    # the search begins below a VMA that lies across `high`
        prev = vma_at(mm, x).prev
    while True:
        end = vm_start_gap(mm, vma_at(mm, x)) if x else high
        if end > high:
            end = high
        start = vma_at(mm, prev).end if prev else 0
        if start < low:
            start = low
        if end > start and end - start >= length:
            return end - length
        if not prev or start == low:
            return ~<uint64_t>0
        if not x:                           # the last VMA's own gap is next
            x = prev
            if gap_of(mm, vma_at(mm, x)) < length:
                x = gap_below(mm, x, length)
        else:
            x = gap_below(mm, x, length)
        if not x:
            return ~<uint64_t>0
        prev = vma_at(mm, x).prev


cdef uint64_t unmapped_area_bottomup(Mm* mm, uint32_t as_, uint64_t low, uint64_t high, uint64_t length) noexcept nogil:
    cdef uint32_t x, prev
    cdef uint64_t start, end
    if low < <uint64_t>mm.vm.g.mmap_min_addr:
        low = <uint64_t>mm.vm.g.mmap_min_addr
    if high <= low or high - low < length:
        return ~<uint64_t>0
    x = find_vma_prev(mm, as_, low, &prev)
    while True:
        end = vm_start_gap(mm, vma_at(mm, x)) if x else high
        if end > high:
            end = high
        start = vma_at(mm, prev).end if prev else 0
        if start < low:
            start = low
        if start >= high:
            return ~<uint64_t>0
        if end > start and end - start >= length:
            return start
        if not x:
            return ~<uint64_t>0
        x = gap_above(mm, x, length)
        prev = vma_at(mm, x).prev if x else vma_last(mm, as_)


# ---------------------------------------------------------------- sums

cdef void vm_stat_account(AddressSpace* a, uint64_t flags, int64_t pages) noexcept nogil:
    a.total_vm += <uint64_t>pages
    if flags & (VM_EXEC | VM_WRITE | VM_GROWSDOWN) == VM_EXEC:
        a.exec_vm += <uint64_t>pages
    elif flags & VM_GROWSDOWN:
        a.stack_vm += <uint64_t>pages
    elif flags & (VM_WRITE | VM_SHARED) == VM_WRITE:
        a.data_vm += <uint64_t>pages


# ---------------------------------------------------------------- the judge

cdef uint32_t successor(Mm* mm, uint32_t x) noexcept nogil:
    # In the order of the tree alone; all ones when the path is too long to be one.
    cdef int steps = 0
    if vma_at(mm, x).right:
        x = vma_at(mm, x).right
        while vma_at(mm, x).left and steps < MAX_PATH:
            x = vma_at(mm, x).left
            steps += 1
        return x if steps < MAX_PATH else ~<uint32_t>0
    while vma_at(mm, x).up and vma_at(mm, vma_at(mm, x).up).right == x and steps < MAX_PATH:
        x = vma_at(mm, x).up
        steps += 1
    return vma_at(mm, x).up if steps < MAX_PATH else ~<uint32_t>0


cdef int check_one(Mm* mm, uint32_t as_, uint32_t x) noexcept nogil:
    cdef const Vma* v = vma_at(mm, x)
    cdef uint32_t used = pool_of(mm, POOL_VMAS).used, child
    cdef int side
    if v.left > used or v.right > used or v.up > used or v.prev > used or v.next > used:
        return VMA_BAD_LINK
    if v.mm != as_:
        return VMA_BAD_OWNER
    if v.start >= v.end or (v.start | v.end) & (PAGE_BYTES - 1) or v.end > as_at(mm, as_).task_size:
        return VMA_BAD_RANGE
    if v.prev and vma_at(mm, v.prev).end > v.start:
        return VMA_BAD_ORDER
    if v.next and vma_at(mm, v.next).prev != x:
        return VMA_BAD_BACKLINK
    for side in range(2):
        child = v.right if side else v.left
        if child and vma_at(mm, child).up != x:
            return VMA_BAD_TREE
        if child and vma_at(mm, child).priority > v.priority:
            return VMA_BAD_PRIORITY
    if v.left and v.left == v.right:
        return VMA_BAD_TREE
    if not v.up and as_at(mm, as_).vma_root != x:
        return VMA_BAD_TREE
    if v.up and vma_at(mm, v.up).left != x and vma_at(mm, v.up).right != x:
        return VMA_BAD_TREE
    return VMA_BAD_GAP if v.max_gap != largest_gap(mm, v) else VMA_OK


cdef int check_vmas(Mm* mm, uint32_t as_) noexcept nogil:
    cdef AddressSpace* a = as_at(mm, as_)
    cdef AddressSpace sums
    cdef uint32_t used = pool_of(mm, POOL_VMAS).used, x = a.vma_first, n = 0
    cdef int rc
    memset(&sums, 0, sizeof(AddressSpace))
    if a.vma_root > used or a.vma_first > used or a.vma_cache > used:
        return VMA_BAD_LINK
    if (a.vma_root == 0) != (a.vma_first == 0) or x and (vma_at(mm, x).prev or vma_at(mm, a.vma_root).up):
        return VMA_BAD_TREE
    while x:
        n += 1
        if n > used:
            return VMA_BAD_LINK
        rc = check_one(mm, as_, x)
        if rc:
            return rc
        x = vma_at(mm, x).next
    if n != a.map_count:
        return VMA_BAD_COUNT
    x = a.vma_first
    while x:
        if successor(mm, x) != vma_at(mm, x).next:
            return VMA_BAD_TREE
        vm_stat_account(&sums, vma_at(mm, x).flags, <int64_t>vma_pages(vma_at(mm, x)))
        if vma_at(mm, x).flags & VM_LOCKED:
            sums.locked_vm += vma_pages(vma_at(mm, x))
        x = vma_at(mm, x).next
    if a.vma_cache and vma_at(mm, a.vma_cache).mm != as_:
        return VMA_BAD_CACHE
    if (sums.total_vm != a.total_vm or sums.data_vm != a.data_vm or sums.exec_vm != a.exec_vm or sums.stack_vm != a.stack_vm
            or sums.locked_vm != a.locked_vm):
        return VMA_BAD_TOTALS
    return VMA_OK
