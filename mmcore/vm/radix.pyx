"""The page index of a file: a tree of 64-slot nodes that is as high as its largest index needs.

Models: xas_create, xas_store, xas_delete_node, xas_shrink, xas_find of a page cache (lib/xarray.c, v6.12): nodes appear on the way to
an index, empty ones go, and a top with nothing but its first slot gives way to what stands there. Simplifies: a lone page 0 keeps one
node, which radix_nodes() does not count. Omits: multi-index entries (large folios), tags but for the one mark.
"""
from libc.string cimport memset

from mmcore.base.args cimport as_int
from mmcore.base.errors cimport E_NOMEM
from mmcore.base.pool cimport pool_give, pool_room, pool_take
from mmcore.base.state cimport State, state_lock, state_unlock
from mmcore.base.vm_records cimport POOL_XNODES


cdef inline uint32_t node_number(Mm* mm, const XNode* n) noexcept nogil:
    return <uint32_t>(n - mm.vm.xnodes) + 1


cdef uint32_t node_new(Mm* mm) noexcept nogil:
    cdef uint32_t x = pool_take(&mm.vm.pools[POOL_XNODES], mm.vm.xnodes, sizeof(XNode))
    xnode_at(mm, x).fresh = 1
    return x


cdef void node_free(Mm* mm, uint32_t x) noexcept nogil:
    memset(xnode_at(mm, x), 0, sizeof(XNode))
    pool_give(&mm.vm.pools[POOL_XNODES], mm.vm.xnodes, sizeof(XNode), x)


cdef inline bint covers(unsigned shift, uint64_t index) noexcept nogil:
    # Whether a top node of this shift reaches `index`.
    return shift >= 58 or index >> shift < RADIX_SLOTS


cdef XNode* radix_make_leaf(Mm* mm, File* f, uint64_t index) noexcept nogil:
    cdef uint32_t x, y
    cdef XNode* n
    cdef unsigned at
    # nothing may be left half done: the most that one path can need
    if pool_room(&mm.vm.pools[POOL_XNODES]) < 2 * RADIX_MAX_HEIGHT:
        n = radix_leaf(mm, f, index)
        return n
    if f.radix == 0:
        x = node_new(mm)
        n = xnode_at(mm, x)
        while not covers(n.shift, index):
            n.shift += RADIX_SHIFT
        f.radix = x
        f.radix_height = n.shift // RADIX_SHIFT + 1
    n = xnode_at(mm, f.radix)
    while not covers(n.shift, index):
        x = node_new(mm)
        n.up = x
        n.offset = 0
        xnode_at(mm, x).shift = n.shift + RADIX_SHIFT
        xnode_at(mm, x).slots[0] = f.radix
        xnode_at(mm, x).count = 1
        f.radix = x
        f.radix_height += 1
        n = xnode_at(mm, x)
    x = f.radix
    while n.shift:
        at = <unsigned>(index >> n.shift) & RADIX_MASK
        y = <uint32_t>n.slots[at]
        if y == 0:
            y = node_new(mm)
            xnode_at(mm, y).up = x
            xnode_at(mm, y).offset = <unsigned char>at
            xnode_at(mm, y).shift = n.shift - RADIX_SHIFT
            n.slots[at] = y
            n.count += 1
        x = y
        n = xnode_at(mm, x)
    return n


cdef void radix_prune(Mm* mm, File* f, XNode* leaf) noexcept nogil:
    cdef XNode* n = leaf
    cdef uint32_t x, up
    cdef unsigned offset
    while n.count == 0:
        x = node_number(mm, n)
        up = n.up
        offset = n.offset
        node_free(mm, x)
        if up == 0:
            f.radix = 0
            f.radix_height = 0
            return
        n = xnode_at(mm, up)
        n.slots[offset] = 0
        n.count -= 1
    while True:
        x = f.radix
        n = xnode_at(mm, x)
        if n.shift == 0 or n.count != 1 or n.slots[0] == 0:
            return
        f.radix = <uint32_t>n.slots[0]
        f.radix_height -= 1
        xnode_at(mm, f.radix).up = 0
        node_free(mm, x)


cdef int radix_store(Mm* mm, File* f, uint64_t index, uint64_t value) noexcept nogil:
    cdef XNode* n = radix_make_leaf(mm, f, index)
    if n == NULL:
        return -E_NOMEM
    if n.slots[index & RADIX_MASK] == 0:
        n.count += 1
    n.slots[index & RADIX_MASK] = value
    return 0


cdef uint64_t radix_erase(Mm* mm, File* f, uint64_t index) noexcept nogil:
    cdef XNode* n = radix_leaf(mm, f, index)
    cdef uint64_t old
    if n == NULL:
        return 0
    old = n.slots[index & RADIX_MASK]
    if old:
        n.slots[index & RADIX_MASK] = 0
        n.count -= 1
        if n.count <= 1:
            radix_prune(mm, f, n)
    return old


cdef uint64_t* radix_next(Mm* mm, const File* f, uint64_t* at, uint64_t last) noexcept nogil:
    cdef uint64_t index = at[0], step
    cdef XNode* n
    cdef unsigned slot
    if f.radix == 0:
        return NULL
    while index <= last:
        n = xnode_at(mm, f.radix)
        if not covers(n.shift, index):
            return NULL
        while True:
            slot = <unsigned>(index >> n.shift) & RADIX_MASK
            while slot < RADIX_SLOTS and n.slots[slot] == 0:
                # on to the first index of the next slot, if this node has one
                step = <uint64_t>1 << n.shift
                index = (index & ~(step - 1)) + step
                if index == 0 or index > last:
                    return NULL
                slot += 1
            if slot == RADIX_SLOTS:
                break
            if n.shift == 0:
                at[0] = index
                return &n.slots[slot]
            n = xnode_at(mm, <uint32_t>n.slots[slot])
    return NULL


cdef uint64_t radix_next_absent(Mm* mm, const File* f, uint64_t index, uint64_t limit) noexcept nogil:
    cdef uint64_t i
    cdef XNode* n = NULL
    for i in range(limit):
        if n == NULL or (index + i) & RADIX_MASK == 0:
            n = radix_leaf(mm, f, index + i)
            if n == NULL:
                return index + i
        if not slot_is_page(n.slots[(index + i) & RADIX_MASK]):
            return index + i
    return index + limit


cdef uint64_t radix_run_before(Mm* mm, const File* f, uint64_t index, uint64_t limit) noexcept nogil:
    cdef uint64_t i = 0
    cdef XNode* n = NULL
    while i < limit and i < index:
        if n == NULL or (index - i - 1) & RADIX_MASK == RADIX_MASK:
            n = radix_leaf(mm, f, index - i - 1)
            if n == NULL:
                return i
        if not slot_is_page(n.slots[(index - i - 1) & RADIX_MASK]):
            return i
        i += 1
    return i


cdef uint64_t count_nodes(Mm* mm, uint32_t x) noexcept nogil:
    cdef XNode* n = xnode_at(mm, x)
    cdef uint64_t total = 1
    cdef unsigned i
    if n.shift:
        for i in range(RADIX_SLOTS):
            if n.slots[i]:
                total += count_nodes(mm, <uint32_t>n.slots[i])
    return total


cdef uint64_t radix_nodes(Mm* mm, const File* f) noexcept nogil:
    cdef XNode* top
    if f.radix == 0:
        return 0
    top = xnode_at(mm, f.radix)
    if top.shift == 0 and top.count == 1 and top.slots[0]:
        return 0
    return count_nodes(mm, f.radix)


cdef int check_node(Mm* mm, uint32_t x, uint32_t up, unsigned offset, unsigned shift, uint64_t* entries, uint64_t* nodes) noexcept nogil:
    cdef XNode* n
    cdef unsigned i, used = 0
    cdef int rc
    if x == 0 or x > mm.vm.pools[POOL_XNODES].used:
        return RADIX_BAD_LINK
    n = xnode_at(mm, x)
    if n.shift != shift:
        return RADIX_BAD_SHAPE
    if n.up != up or n.offset != offset or n.link:
        return RADIX_BAD_UP
    nodes[0] += 1
    for i in range(RADIX_SLOTS):
        if n.slots[i] == 0:
            continue
        used += 1
        if shift:
            if n.slots[i] >> 32:
                return RADIX_BAD_LINK
            rc = check_node(mm, <uint32_t>n.slots[i], x, i, shift - RADIX_SHIFT, entries, nodes)
            if rc:
                return rc
        else:
            entries[0] += 1
    if used != n.count or used == 0:
        return RADIX_BAD_COUNT
    if up == 0 and shift and used == 1 and n.slots[0]:
        return RADIX_BAD_SHAPE
    return 0


cdef int radix_check(Mm* mm, const File* f, uint64_t* entries, uint64_t* nodes) noexcept nogil:
    entries[0] = nodes[0] = 0
    if f.radix == 0:
        return RADIX_BAD_SHAPE if f.radix_height else 0
    if f.radix_height == 0 or f.radix_height > RADIX_MAX_HEIGHT:
        return RADIX_BAD_SHAPE
    return check_node(mm, f.radix, 0, 0, RADIX_SHIFT * (f.radix_height - 1), entries, nodes)


# ---------------------------------------------------------------- for tests: an index of its own, on the nodes of a machine

cdef class Index:
    """An index that belongs to no file, for tests of the tree by itself. It borrows nodes of `state`; clear() gives them back."""
    cdef State state
    cdef File f

    def __init__(self, State state not None):
        self.state = state
        memset(&self.f, 0, sizeof(File))

    def store(self, index, value):
        cdef uint64_t i = int(index), v = as_int(value, "value", 1, 0x7fffffffffffffff)
        state_lock(self.state)
        rc = radix_store(&self.state.c, &self.f, i, v)
        state_unlock(self.state)
        return rc

    def erase(self, index):
        cdef uint64_t i = int(index)
        state_lock(self.state)
        old = radix_erase(&self.state.c, &self.f, i)
        state_unlock(self.state)
        return old

    def lookup(self, index):
        cdef uint64_t i = int(index)
        return radix_lookup(&self.state.c, &self.f, i)

    def next(self, index, last):
        """Index of the first entry in [index, last], or None."""
        cdef uint64_t i = int(index), end = int(last)
        return i if radix_next(&self.state.c, &self.f, &i, end) else None

    def next_absent(self, index, limit):
        cdef uint64_t i = int(index), n = int(limit)
        return radix_next_absent(&self.state.c, &self.f, i, n)

    def run_before(self, index, limit):
        cdef uint64_t i = int(index), n = int(limit)
        return radix_run_before(&self.state.c, &self.f, i, n)

    def entries(self):
        cdef uint64_t i = 0
        cdef uint64_t* slot
        found = []
        while True:
            slot = radix_next(&self.state.c, &self.f, &i, <uint64_t>-1)
            if slot == NULL:
                break
            found.append((i, slot[0]))
            if i == <uint64_t>-1:
                break
            i += 1
        return found

    def check(self):
        """(fault, entries, nodes, height)."""
        cdef uint64_t entries, nodes
        rc = radix_check(&self.state.c, &self.f, &entries, &nodes)
        return rc, entries, nodes, self.f.radix_height

    @property
    def nr_nodes(self):
        return radix_nodes(&self.state.c, &self.f)

    def clear(self):
        for index, _ in self.entries():
            self.erase(index)
