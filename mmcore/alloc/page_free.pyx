"""Giving pages back.

Models: __free_pages, free_unref_page, __free_pages_ok, free_pages_prepare, split_page (mm/page_alloc.c, v6.12).
Simplifies: a page in a bad state is refused with a reason instead of reported and leaked. Omits: batched folio freeing as such
(free_unref_folios; an op stream places each page where the batch puts it on its list).

Tail pages of a block carry nothing: the block is found from its head, which holds the order.
"""
from libc.stdint cimport uint8_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

cimport numpy as cnp
from mmcore.base.args cimport as_int, not_ours, pfn_array
from mmcore.base.errors cimport (
    E_BAD_PAGE, E_NOT_ALLOCATED, E_ORDER, E_RANGE, E_RESERVED, E_TAIL, E_WRONG_ORDER, check,
)
from mmcore.base.flags cimport (
    PG_CHECK_AT_FREE, PG_HEAD_MASK, PG_ORDER_MASK, PG_ORDER_SHIFT, PG_TYPE_MASK, PG_allocated, PG_head, PG_hwpoison, PG_meta, PG_named, PG_pcp,
)
from mmcore.base.records cimport page_at, meta_at, block_at
from mmcore.base.records cimport (
    MAX_PAGE_ORDER, MIGRATE_ISOLATE, MIGRATE_MOVABLE, MIGRATE_PCPTYPES, Page, Pageblock, PageMeta, PCP_BATCH_SCALE_MAX, Pcp,
    PCPF_PREV_FREE_HIGH_ORDER, Zone, ZONE_BELOW_HIGH, ZONE_RECLAIM_ACTIVE,
)
from mmcore.base.state cimport State, state_enter, state_leave, state_lock, state_unlock
from mmcore.phys.buddy cimport FPI_NONE, free_large_page, pageblock_mt, prefetch, zone_of
from mmcore.phys.pcp cimport free_to_pcp, pcp_allowed_order
from mmcore.reclaim.memcg cimport uncharge_page, uncharge_pages

cnp.import_array()

cdef enum:
    LOOK_AHEAD = 24
    NR_LOGS = 4
    LOG_SIZE = 1 << 18
    LOG_FROM = 1 << 17          # shorter runs have nothing to gain from a log
    # anything that takes a page out of the plain case when it is freed
    SPECIAL_AT_FREE = PG_CHECK_AT_FREE | PG_hwpoison | PG_allocated | PG_meta | (PG_ORDER_MASK << PG_ORDER_SHIFT)


cdef int find_block(Mm* mm, uint32_t pfn, uint32_t* head, unsigned* order) noexcept nogil:
    # The block that holds pfn: 1 allocated, 2 free or on a per-CPU list, 0 neither (hole or reserved). Its head and order.
    cdef unsigned k, o
    cdef uint32_t h, flags
    for k in range(MAX_PAGE_ORDER + 1):
        h = pfn & ~((<uint32_t>1 << k) - 1)
        flags = page_at(mm, h).flags
        o = flags >> PG_ORDER_SHIFT & PG_ORDER_MASK
        if flags & PG_HEAD_MASK:
            if pfn - h < <uint32_t>1 << o:
                head[0] = h
                order[0] = o
                return 2 if flags & PG_TYPE_MASK else 1
    return 3 if in_untouched(mm, pfn) else 0


cdef bint in_untouched(Mm* mm, uint32_t pfn) noexcept nogil:
    cdef uint32_t zi = zone_of(mm, pfn), r
    cdef Zone* z
    if zi == 0:
        return False
    z = &mm.zones[zi - 1]
    if not z.lazy_left or pfn < z.lazy_pfn:
        return False
    for r in range(z.lazy_range, z.lazy_range_end):
        if mm.lazy[r].start <= pfn < mm.lazy[r].end:
            return True
    return False


cdef int why_not_freeable(Mm* mm, uint32_t pfn) noexcept nogil:
    cdef uint32_t head
    cdef unsigned order
    cdef int kind = find_block(mm, pfn, &head, &order)
    if kind == 1:
        return -E_TAIL
    return -E_NOT_ALLOCATED if kind else -E_RESERVED


cdef inline int check_free(Mm* mm, uint32_t pfn, unsigned order) noexcept nogil:
    cdef uint32_t flags
    if pfn >= mm.g.nr_pages:
        return -E_RANGE
    if order > MAX_PAGE_ORDER:
        return -E_ORDER
    flags = page_at(mm, pfn).flags
    if not flags & PG_allocated:
        return why_not_freeable(mm, pfn)
    if flags >> PG_ORDER_SHIFT != order:
        return -E_WRONG_ORDER
    if flags & PG_meta and meta_at(mm, pfn).extra_refs:
        return 0    # only a reference goes
    if flags & (PG_CHECK_AT_FREE | PG_meta):
        return -E_BAD_PAGE
    return 0


cdef inline void free_unref(Mm* mm, uint32_t pfn, unsigned order, unsigned cpu) noexcept nogil:
    # The block has lost its last reference and passed the checks.
    cdef Page* p = page_at(mm, pfn)
    cdef uint32_t zi = zone_of(mm, pfn) - 1
    cdef Zone* z = &mm.zones[zi]
    cdef Pcp* pcp = &mm.pcps[zi * mm.g.nr_cpus + cpu]
    cdef unsigned mt
    if mm.vm.g.nr_memcgs and mm.vm.memcg_of[pfn]:
        uncharge_page(mm, pfn, order)
    p.private_ = 0
    if p.flags & PG_hwpoison and order == 0:
        p.flags = PG_hwpoison
        return
    p.next = 0
    p.prev = 0
    p.flags = 0
    mt = pageblock_mt(mm, pfn)
    if pcp_allowed_order(mm, order) and mt != MIGRATE_ISOLATE:
        free_to_pcp(mm, z, pcp, pfn, order, mt)
    else:
        mm.g.pgfree += <uint64_t>1 << order
        free_large_page(mm, z, pcp, pfn, order, FPI_NONE)


cdef inline void drop_ref(Mm* mm, uint32_t pfn) noexcept nogil:
    cdef PageMeta* m = meta_at(mm, pfn)
    m.extra_refs -= 1
    if m.extra_refs == 0 and m.mapcount == 0:
        page_at(mm, pfn).flags &= ~<uint32_t>PG_meta


cdef int free_pages_order(Mm* mm, uint32_t pfn, unsigned order, unsigned cpu) noexcept nogil:
    cdef int rc = check_free(mm, pfn, order)
    if rc:
        return rc
    if not page_at(mm, pfn).flags & PG_meta:
        free_unref(mm, pfn, order, cpu)
        return 0
    drop_ref(mm, pfn)
    if order and not page_at(mm, pfn).flags & PG_head:
        # someone holds a speculative reference to the first page: everything behind it goes now
        page_at(mm, pfn).flags &= ~(<uint32_t>PG_ORDER_MASK << PG_ORDER_SHIFT)
        while order:
            order -= 1
            free_unref(mm, pfn + (<uint32_t>1 << order), order, cpu)
    return 0


cdef inline void look_ahead(Mm* mm, const uint32_t* pfns, int64_t i, int64_t n) noexcept nogil:
    if i + LOOK_AHEAD < n and pfns[i + LOOK_AHEAD] < mm.g.nr_pages:
        prefetch(page_at(mm, pfns[i + LOOK_AHEAD]))
        prefetch(block_at(mm, pfns[i + LOOK_AHEAD] >> 9))


cdef struct PushLog:            # pages put onto the list of one zone in this call, in order: what its drains will meet again
    uint32_t* ring
    uint64_t pushed
    uint32_t zone               # zone index + 1, 0: unused


cdef inline PushLog* log_of(PushLog* logs, uint32_t zone) noexcept nogil:
    cdef int k
    for k in range(NR_LOGS):
        if logs[k].zone == zone:
            return &logs[k]
        if logs[k].zone == 0:
            logs[k].zone = zone
            logs[k].pushed = 0
            logs[k].ring = <uint32_t*>calloc(LOG_SIZE, sizeof(uint32_t))
            return &logs[k]
    return NULL


cdef int64_t free_burst(Mm* mm, const uint32_t* pfns, int64_t i, int64_t n, unsigned cpu, PushLog* logs) noexcept nogil:
    # Single pages of one zone and type that stay below every limit of the per-CPU list: they only go onto it, and the marks of all of
    # them are left at once. Returns the index behind the last one freed; what is different in any way is left to the caller.
    cdef uint32_t pfn = pfns[i], zi, first, head, x, limit = mm.g.nr_pages
    cdef Zone* z
    cdef Pcp* pcp
    cdef Page* link = mm.link
    cdef Pageblock block
    cdef int64_t k, end
    cdef PushLog* log
    cdef int room
    if pfn >= limit:
        return i
    block = block_at(mm, pfn >> 9)[0]
    zi = block.zone
    if zi == 0 or (block.mt ^ MIGRATE_MOVABLE) >= MIGRATE_PCPTYPES:
        return i
    z = &mm.zones[zi - 1]
    pcp = &mm.pcps[(zi - 1) * mm.g.nr_cpus + cpu]
    if z.flags & (ZONE_RECLAIM_ACTIVE | ZONE_BELOW_HIGH) or pcp.high < pcp.high_min or pcp.high > pcp.high_max or mm.g.kernel:
        return i
    room = pcp.high - pcp.count - 1
    if room <= 0:
        return i
    end = n if n - i < room else i + room
    head = pcp.list_head + (block.mt ^ MIGRATE_MOVABLE)
    first = link[head].next
    log = log_of(logs, zi) if logs != NULL else NULL
    k = i
    while k < end:
        pfn = pfns[k]
        look_ahead(mm, pfns, k, n)
        if pfn >= limit or block_at(mm, pfn >> 9).zone != zi or block_at(mm, pfn >> 9).mt != block.mt:
            break
        x = pfn + 1
        # allocated, order 0, nothing set that forbids freeing, one reference, no mapping
        if link[x].flags & SPECIAL_AT_FREE != PG_allocated:
            break
        link[x].next = first
        link[x].private_ = 0
        link[x].flags = PG_pcp
        link[first].prev = x
        first = x
        k += 1
    if k == i:
        return i
    if log != NULL and log.ring != NULL:
        for end in range(i, k):
            log.ring[log.pushed & (LOG_SIZE - 1)] = pfns[end]
            log.pushed += 1
    if mm.vm.g.nr_memcgs:
        uncharge_pages(mm, pfns + i, k - i)
    link[first].prev = head
    link[head].next = first
    room = <int>(k - i)
    pcp.count += room
    pcp.alloc_factor = pcp.alloc_factor >> room if room < 8 else 0
    pcp.flags &= <uint8_t>~PCPF_PREV_FREE_HIGH_ORDER
    if pcp.free_count < pcp.batch << PCP_BATCH_SCALE_MAX:
        pcp.free_count = min(pcp.free_count + room, pcp.batch << PCP_BATCH_SCALE_MAX)
    mm.g.pgfree += <uint64_t>room
    return k


cdef void hint_drain(Mm* mm, uint32_t pfn, unsigned cpu, PushLog* logs) noexcept nogil:
    # Tells the drain that freeing pfn may cause where the oldest pages of its list are.
    cdef uint32_t zi = zone_of(mm, pfn)
    cdef PushLog* log
    cdef Pcp* pcp
    if zi == 0:
        return
    log = log_of(logs, zi)
    pcp = &mm.pcps[(zi - 1) * mm.g.nr_cpus + cpu]
    if log == NULL or log.ring == NULL:
        return
    log.ring[log.pushed & (LOG_SIZE - 1)] = pfn
    log.pushed += 1
    if <uint64_t>pcp.count < log.pushed and pcp.count < LOG_SIZE:
        mm.hint = log.ring
        mm.hint_at = log.pushed - 1 - <uint64_t>pcp.count
        mm.hint_mask = LOG_SIZE - 1


cdef int free_pages_run(Mm* mm, const uint32_t* pfns, int64_t n, unsigned order, unsigned cpu, int64_t* done) noexcept nogil:
    cdef int64_t i = 0
    cdef int rc = 0, k
    cdef PushLog[NR_LOGS] logs
    cdef bint logged = n >= LOG_FROM and order == 0
    memset(&logs, 0, sizeof(logs))
    while i < n:
        if order == 0:
            i = free_burst(mm, pfns, i, n, cpu, logs if logged else NULL)
            if i == n:
                break
        look_ahead(mm, pfns, i, n)
        if logged and pfns[i] < mm.g.nr_pages:
            hint_drain(mm, pfns[i], cpu, logs)      # counts this page as pushed
        rc = free_pages_order(mm, pfns[i], order, cpu)
        mm.hint = NULL
        if rc:
            break
        i += 1
    for k in range(NR_LOGS):
        free(logs[k].ring)
    done[0] = i
    return rc


cdef int split_allocated(Mm* mm, uint32_t pfn, unsigned order) noexcept nogil:
    # split_page(): a block that is not compound becomes 2^order pages, each with the first one's reference count.
    cdef int rc = check_free(mm, pfn, order)
    cdef uint32_t i
    cdef int extra
    if rc and rc != -E_BAD_PAGE:
        return rc
    if page_at(mm, pfn).flags & PG_head:
        return -E_BAD_PAGE
    page_at(mm, pfn).flags &= ~(<uint32_t>PG_ORDER_MASK << PG_ORDER_SHIFT)
    extra = meta_at(mm, pfn).extra_refs if page_at(mm, pfn).flags & PG_meta else 0
    for i in range(1, <uint32_t>1 << order):
        page_at(mm, pfn + i).flags = (page_at(mm, pfn).flags & ~<uint32_t>PG_meta) | (PG_meta if extra else 0)
        if extra:
            meta_at(mm, pfn + i).extra_refs = extra
    return 0


cdef int isolate_piece(Mm* mm, uint32_t pfn, unsigned order, bint adopt) noexcept nogil:
    cdef uint32_t head, piece, flags, end, at, adopted = 0
    cdef unsigned have
    cdef int kind
    if pfn >= mm.g.nr_pages or order > MAX_PAGE_ORDER or pfn & ((<uint32_t>1 << order) - 1):
        return -E_RANGE
    if zone_of(mm, pfn) == 0:
        return -E_RESERVED
    kind = find_block(mm, pfn, &head, &have)
    if kind >= 2:
        return -E_NOT_ALLOCATED
    if kind == 1 and have >= order:
        flags = page_at(mm, head).flags & ~(<uint32_t>PG_ORDER_MASK << PG_ORDER_SHIFT) & ~<uint32_t>(PG_head | PG_meta)
        meta_at(mm, head).extra_refs = 0
        meta_at(mm, head).mapcount = 0
        while have > order:
            # halve the part that holds the piece; the other half becomes a block of its own
            have -= 1
            piece = head + (<uint32_t>1 << have)
            if pfn >= piece:
                page_at(mm, head).flags = flags | (have << PG_ORDER_SHIFT)
                head = piece
            else:
                page_at(mm, piece).flags = flags | (have << PG_ORDER_SHIFT)
            page_at(mm, head).flags = flags | (have << PG_ORDER_SHIFT)
        return 0
    # smaller blocks, or pages that were in use before our time: they are joined to one block of this order
    if kind == 0 and not adopt:
        return -E_RESERVED
    end = pfn + (<uint32_t>1 << order)
    at = pfn
    while at < end:
        if page_at(mm, at).flags & PG_TYPE_MASK or zone_of(mm, at) != zone_of(mm, pfn):
            return -E_NOT_ALLOCATED
        if page_at(mm, at).flags & PG_allocated:
            at += <uint32_t>1 << (page_at(mm, at).flags >> PG_ORDER_SHIFT & PG_ORDER_MASK)
        elif adopt:
            at += 1
            adopted += 1
        else:
            return -E_RESERVED
    # what boot kept was never managed: no more can come back than the loaded state left unlisted
    if adopted > mm.zones[zone_of(mm, pfn) - 1].nr_before:
        return -E_RESERVED
    mm.zones[zone_of(mm, pfn) - 1].nr_before -= adopted
    for at in range(pfn, end):
        page_at(mm, at).next = page_at(mm, at).prev = page_at(mm, at).private_ = 0
        page_at(mm, at).flags = 0
        meta_at(mm, at).extra_refs = 0
        meta_at(mm, at).mapcount = 0
    page_at(mm, pfn).flags = PG_allocated | (order << PG_ORDER_SHIFT)
    return 0


# ---------------------------------------------------------------- the Python side

cdef object fail_free(State s, long long rc, unsigned pfn, unsigned order):
    cdef uint32_t head = 0
    cdef unsigned have = 0
    text = f"pfn {pfn:#x}, order {order}; the machine has pfns below {s.c.g.nr_pages:#x}"
    if pfn < s.c.g.nr_pages and find_block(&s.c, pfn, &head, &have) in (1, 2):
        text = f"pfn {pfn:#x}, order {order}; it lies in the block {head:#x} of order {have}, flags {s.c.pages[head].flags:#x}, " \
               f"refcount {1 + s.c.meta[head].extra_refs if s.c.pages[head].flags & PG_allocated else 0}, mapcount {s.c.meta[head].mapcount}"
    return check(rc, text)


def free_pages(State s not None, pfn, order=0, cpu=0):
    """Give back a block: drop one reference and free it when that was the last. Raises BadPageError (a ValueError) for a page that
    cannot be freed so; nothing changes then."""
    cdef unsigned p = <unsigned>as_int(pfn, "pfn", 0, 0xffffffff), o = <unsigned>as_int(order, "order", 0, MAX_PAGE_ORDER)
    cdef unsigned c = <unsigned>as_int(cpu, "cpu", 0, s.c.g.nr_cpus - 1)
    cdef int rc
    state_enter(s)
    rc = free_pages_order(&s.c, p, o, c)
    state_leave(s)
    if rc < 0:
        fail_free(s, rc, p, o)


cdef int check_free_run(Mm* mm, const uint32_t* pfns, int64_t n, unsigned order, int64_t* bad) noexcept nogil:
    # Every block freeable, none named twice? Marks heads on the way and takes the marks off again.
    cdef int64_t i, j
    cdef int rc = 0
    cdef uint32_t limit = mm.g.nr_pages
    for i in range(n):
        look_ahead(mm, pfns, i, n)
        if pfns[i] < limit and page_at(mm, pfns[i]).flags & PG_named:
            rc = -E_NOT_ALLOCATED   # named twice
            break
        rc = check_free(mm, pfns[i], order)
        if rc == 0 and not page_at(mm, pfns[i]).flags & PG_meta:
            page_at(mm, pfns[i]).flags |= PG_named
        elif rc == 0:
            rc = -E_BAD_PAGE        # held by others: freed one by one only
        if rc:
            break
    else:
        i = n
    for j in range(i):
        page_at(mm, pfns[j]).flags &= ~<uint32_t>PG_named
    bad[0] = i
    return rc


def free_pages_many(State s not None, pfns, order=0, cpu=0, *, bint atomic=True):
    """Free every block named in `pfns` (uint32), in order, as single calls would.

    With atomic (the default) all are checked first: BadPageError leaves the machine unchanged. Without, blocks are freed up to the
    first bad one and the exception says how many were.
    """
    cdef cnp.ndarray a = pfn_array(pfns, False)
    cdef unsigned o = <unsigned>as_int(order, "order", 0, MAX_PAGE_ORDER), c = <unsigned>as_int(cpu, "cpu", 0, s.c.g.nr_cpus - 1)
    cdef int64_t n = cnp.PyArray_SIZE(a), done = 0
    cdef const uint32_t* p = <const uint32_t*>cnp.PyArray_DATA(a)
    cdef int rc = 0
    not_ours(s, a)
    state_lock(s)
    with nogil:
        if atomic:
            rc = check_free_run(&s.c, p, n, o, &done)
        if rc == 0:
            rc = free_pages_run(&s.c, p, n, o, c, &done)
    state_unlock(s)
    if rc < 0:
        try:
            fail_free(s, rc, p[done], o)
        except ValueError as error:
            raise type(error)(f"element {done}: {error}") from None


def split_page(State s not None, pfn, order):
    """Turn an allocated, non-compound block of `order` into 2**order single pages, to be freed one by one."""
    cdef unsigned p = <unsigned>as_int(pfn, "pfn", 0, 0xffffffff), o = <unsigned>as_int(order, "order", 0, MAX_PAGE_ORDER)
    cdef int rc
    state_enter(s)
    rc = split_allocated(&s.c, p, o)
    state_leave(s)
    if rc < 0:
        fail_free(s, rc, p, o)


def get_page(State s not None, pfn):
    """Take a further (speculative) reference to an allocated block."""
    cdef unsigned p = <unsigned>as_int(pfn, "pfn", 0, 0xffffffff)
    cdef int rc = 0
    state_enter(s)
    if p >= s.c.g.nr_pages:
        rc = -E_RANGE
    elif not s.c.pages[p].flags & PG_allocated:
        rc = -E_NOT_ALLOCATED
    elif s.c.meta[p].extra_refs == 0xffff:
        rc = -E_BAD_PAGE
    else:
        s.c.meta[p].extra_refs += 1
        s.c.pages[p].flags |= PG_meta
    state_leave(s)
    if rc:
        fail_free(s, rc, p, 0)


def put_page(State s not None, pfn, cpu=0):
    """Drop a reference; the last one frees the block."""
    cdef unsigned p = <unsigned>as_int(pfn, "pfn", 0, 0xffffffff)
    if p >= s.c.g.nr_pages:
        fail_free(s, -E_RANGE, p, 0)
    free_pages(s, p, s.c.pages[p].flags >> PG_ORDER_SHIFT if s.c.pages[p].flags & PG_allocated else 0, cpu)


def block_of(State s not None, pfn):
    """What a page frame belongs to: (kind, head, order) with kind "allocated", "free", "reserved" (a hole, or never given to the allocator)."""
    cdef unsigned p = <unsigned>as_int(pfn, "pfn", 0, s.c.g.nr_pages - 1), order = 0
    cdef uint32_t head = p
    cdef int kind = find_block(&s.c, p, &head, &order)
    if kind == 3:
        return "free", p & ~1023, MAX_PAGE_ORDER
    return ("reserved", "allocated", "free")[kind], head, order


def zone_index(State s not None, pfn):
    """Index of the zone a page frame belongs to; -1 for a hole between zones."""
    return <int>zone_of(&s.c, <uint32_t>as_int(pfn, "pfn", 0, s.c.g.nr_pages - 1)) - 1
