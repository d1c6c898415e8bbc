# What a page knows about its mappings (include/linux/rmap.h), order-0 pages. Walks: rmap.pyx.
#
# Anonymous page with one mapping that was never shared: private_ = entry_index + 1 of its page-table entry, cold record zero.
# Anonymous page that was shared by fork: private_ = anon_vma, meta.mapcount and meta.index count and locate its mappings.
# File page: private_ = file, meta.mapcount and meta.index likewise; the page cache holds the page.

from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t
from mmcore.base.flags cimport (
    PG_ORDER_MASK, PG_ORDER_SHIFT, PG_allocated, PG_anon, PG_anon_exclusive, PG_file, PG_meta, PG_swapbacked, PG_swapcache,
    PG_uptodate,
)
from mmcore.base.records cimport Mm, Page, PageMeta, meta_at, page_at
from mmcore.base.stat_items cimport NS_NR_ANON_PAGES, NS_NR_MAPPED
from mmcore.phys.lruvec_stat cimport lruvec_stat_mod

cdef inline bint page_is_anon(uint32_t flags) noexcept nogil:
    return flags & (PG_anon | PG_file) == PG_anon

cdef inline bint page_is_file(uint32_t flags) noexcept nogil:
    return flags & (PG_anon | PG_file) == PG_file

# What private_ says of a page's mappings (see above): of a page in the swap cache the slot keeps it, for private_ names the slot then.
cdef inline uint32_t rmap_private(Mm* mm, uint32_t pfn) noexcept nogil:
    cdef Page* p = page_at(mm, pfn)
    return mm.vm.swap_slots[p.private_ - 1].rmap if p.flags & PG_swapcache else p.private_

cdef inline void set_rmap_private(Mm* mm, uint32_t pfn, uint32_t x) noexcept nogil:
    cdef Page* p = page_at(mm, pfn)
    if p.flags & PG_swapcache:
        mm.vm.swap_slots[p.private_ - 1].rmap = x
    else:
        p.private_ = x

cdef inline uint64_t page_index(PageMeta* m) noexcept nogil:
    return (<uint64_t>m.index_hi << 32) | m.index_lo

cdef inline void set_page_index(PageMeta* m, uint64_t index) noexcept nogil:
    m.index_lo = <uint32_t>index
    m.index_hi = <uint16_t>(index >> 32)

# PG_meta is set exactly when the cold record is not all zero.
cdef inline void sync_meta(Mm* mm, uint32_t pfn) noexcept nogil:
    cdef PageMeta* m = meta_at(mm, pfn)
    if m.mapcount or m.index_lo or m.index_hi or m.extra_refs:
        page_at(mm, pfn).flags |= PG_meta
    else:
        page_at(mm, pfn).flags &= ~<uint32_t>PG_meta

# Flags of a new anonymous page, on top of PG_allocated and its order.
cdef enum:
    ANON_FLAGS = PG_anon | PG_anon_exclusive | PG_swapbacked | PG_uptodate

# A new page, or one that no one else maps any longer: it belongs to this entry alone.
cdef inline void anon_rmap_exclusive(Mm* mm, uint32_t pfn, uint32_t entry) noexcept nogil:
    cdef PageMeta* m
    cdef Page* p = page_at(mm, pfn)
    set_rmap_private(mm, pfn, entry + 1)
    # one that is anonymous already stays on its list: after MADV_FREE only reclaim makes it swap-backed again
    p.flags |= <uint32_t>PG_anon_exclusive if p.flags & PG_anon else <uint32_t>ANON_FLAGS
    if p.flags & PG_meta:
        m = meta_at(mm, pfn)
        m.mapcount = 0
        m.index_lo = 0
        m.index_hi = 0
        sync_meta(mm, pfn)

# A further mapping of a page that `anon_vma` (index + 1) covers at `index`.
cdef inline void anon_rmap_share(Mm* mm, uint32_t pfn, uint32_t anon_vma, uint64_t index) noexcept nogil:
    cdef PageMeta* m = meta_at(mm, pfn)
    cdef Page* p = page_at(mm, pfn)
    p.flags &= ~<uint32_t>PG_anon_exclusive
    if m.mapcount == 0:
        set_rmap_private(mm, pfn, anon_vma)
        set_page_index(m, index)
        m.mapcount = 1
        p.flags |= PG_meta
    m.mapcount += 1

# The first mapping of a page that none has, and that others share by its swap entry: `anon_vma` covers it at `index`.
cdef inline void anon_rmap_first(Mm* mm, uint32_t pfn, uint32_t anon_vma, uint64_t index) noexcept nogil:
    cdef PageMeta* m = meta_at(mm, pfn)
    set_rmap_private(mm, pfn, anon_vma)
    set_page_index(m, index)
    m.mapcount = 1
    page_at(mm, pfn).flags = (page_at(mm, pfn).flags & ~<uint32_t>PG_anon_exclusive) | PG_anon | PG_meta

# One mapping goes; whether it was the last. The caller counts RSS and, for the last one, NS_NR_ANON_PAGES.
cdef inline bint anon_rmap_remove(Mm* mm, uint32_t pfn) noexcept nogil:
    cdef PageMeta* m
    if not page_at(mm, pfn).flags & PG_meta:
        return True
    m = meta_at(mm, pfn)
    if m.mapcount > 1:
        m.mapcount -= 1
        return False
    return True

cdef inline uint32_t anon_mapcount(Mm* mm, uint32_t pfn) noexcept nogil:
    cdef uint32_t n = meta_at(mm, pfn).mapcount
    return n if n else <uint32_t>(rmap_private(mm, pfn) != 0)

cdef inline void file_rmap_add(Mm* mm, uint32_t pfn) noexcept nogil:
    cdef PageMeta* m = meta_at(mm, pfn)
    if m.mapcount == 0:
        lruvec_stat_mod(mm, pfn, NS_NR_MAPPED, 1)
        page_at(mm, pfn).flags |= PG_meta
    m.mapcount += 1

cdef inline void file_rmap_remove(Mm* mm, uint32_t pfn) noexcept nogil:
    cdef PageMeta* m = meta_at(mm, pfn)
    m.mapcount -= 1
    if m.mapcount == 0:
        lruvec_stat_mod(mm, pfn, NS_NR_MAPPED, -1)
        sync_meta(mm, pfn)
