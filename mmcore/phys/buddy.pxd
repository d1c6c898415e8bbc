# Buddy lists of a zone (mm/page_alloc.c: __free_one_page, expand, __rmqueue_smallest).
# A free block's head has flags == PG_buddy | order << 28 and stands on list (order, type of its pageblock); all else in it is zero.

from libc.stdint cimport int64_t, uint16_t, uint32_t
from mmcore.base.records cimport page_at, block_at
from mmcore.base.records cimport (
    Mm, Page, Pcp, Zone, Pageblock, HEADS_PER_ZONE, MAX_PAGE_ORDER, MIGRATE_HIGHATOMIC, MIGRATE_ISOLATE, MIGRATE_MOVABLE, MIGRATE_PCPTYPES,
    MIGRATE_TYPES, NR_FREE_PAGES, PAGEBLOCK_NR_PAGES, PAGEBLOCK_ORDER,
)
from mmcore.base.flags cimport PG_ORDER_SHIFT, PG_buddy
from mmcore.base.lists cimport list_add, list_add_tail
from mmcore.base.vmstat cimport mod_zone_page_state

cdef enum:
    FPI_NONE = 0
    FPI_TO_TAIL = 1

cdef extern from *:
    """
    /* The empty asm keeps gcc from deleting a function whose only effect is a prefetch: it takes that for none. */
    #define mm_prefetch(p) do { __builtin_prefetch(p); __asm__ volatile (""); } while (0)
    """
    unsigned ctz "__builtin_ctz"(unsigned) nogil
    void prefetch "mm_prefetch"(const void*) nogil

cdef inline unsigned pageblock_mt(Mm* mm, uint32_t pfn) noexcept nogil:
    return block_at(mm, pfn >> PAGEBLOCK_ORDER).mt ^ MIGRATE_MOVABLE

cdef uint32_t search_zone(Mm* mm, uint32_t pfn) noexcept nogil

# Zone index + 1 of a page frame; 0 if it belongs to none.
cdef inline uint32_t zone_of(Mm* mm, uint32_t pfn) noexcept nogil:
    cdef uint32_t z = block_at(mm, pfn >> PAGEBLOCK_ORDER).zone
    return z if z else search_zone(mm, pfn)

cdef inline uint32_t free_list_head(Zone* z, unsigned order, unsigned mt) noexcept nogil:
    return z.free_head + MIGRATE_TYPES * order + mt

cdef inline void account_freepages(Zone* z, Pcp* pcp, int64_t nr, unsigned mt) noexcept nogil:
    if mt == MIGRATE_ISOLATE:
        return
    mod_zone_page_state(z, pcp, NR_FREE_PAGES, nr)
    if mt == MIGRATE_HIGHATOMIC:
        z.nr_free_highatomic += nr

cdef inline void add_to_free_list(Mm* mm, Zone* z, uint32_t pfn, unsigned order, unsigned mt, bint tail) noexcept nogil:
    page_at(mm, pfn).flags = PG_buddy | (order << PG_ORDER_SHIFT)
    z.nr_free[order] += 1
    z.order_mask[mt] |= <uint16_t>(1 << order)
    if tail:
        list_add_tail(mm.link, free_list_head(z, order, mt), pfn + 1)
    else:
        list_add(mm.link, free_list_head(z, order, mt), pfn + 1)

cdef inline void del_from_free_list(Mm* mm, Zone* z, uint32_t pfn, unsigned order, unsigned mt) noexcept nogil:
    cdef Page* p = page_at(mm, pfn)
    cdef uint32_t n = p.next, v = p.prev
    mm.link[n].prev = v
    mm.link[v].next = n
    if n == v and n == free_list_head(z, order, mt):
        z.order_mask[mt] &= <uint16_t>~(1 << order)
    p.next = 0
    p.prev = 0
    p.flags = 0
    z.nr_free[order] -= 1

# Contract: the pages are in no list and unallocated; accounts them and merges as far as the rules allow. Never fails.
cdef void free_one_page(Mm* mm, Zone* z, Pcp* pcp, uint32_t pfn, unsigned order, unsigned mt, unsigned fpi) noexcept nogil
# As above for any order: blocks above order 9 are freed pageblock by pageblock, each with its own type.
cdef void free_large_page(Mm* mm, Zone* z, Pcp* pcp, uint32_t pfn, unsigned order, unsigned fpi) noexcept nogil
cdef void expand(Mm* mm, Zone* z, uint32_t pfn, unsigned low, unsigned high, unsigned mt) noexcept nogil
# Removes the head block of list (order, mt) and returns its pfn: materialises an untouched block when it stands at the head.
cdef uint32_t pop_free_list(Mm* mm, Zone* z, unsigned order, unsigned mt) noexcept nogil
# pfn, or -1 when no list of this type has a block of the order or above.
cdef int64_t rmqueue_smallest(Mm* mm, Zone* z, Pcp* pcp, unsigned order, unsigned mt) noexcept nogil
# Takes up to n blocks from the smallest sufficient block of this type and appends them to the per-CPU list `head`, as n single
# takes would; returns how many (0: no block).
cdef uint32_t carve(Mm* mm, Zone* z, Pcp* pcp, unsigned order, unsigned mt, uint32_t n, uint32_t head, unsigned list_mt) noexcept nogil
cdef void materialize_zone(Mm* mm, Zone* z) noexcept nogil
cdef void set_block_range(Mm* mm, uint32_t pfn, unsigned order, unsigned mt) noexcept nogil
