"""Files and their page cache: lookup, read-ahead, read(), write(), faults, truncation.

Models: filemap_read, filemap_fault, filemap_map_pages, generic_perform_write (mm/filemap.c), page_cache_sync_ra, page_cache_async_ra,
force_page_cache_ra (mm/readahead.c), truncate_inode_pages, invalidate_mapping_pages (mm/truncate.c), shmem_get_folio without swap
(mm/shmem.c), v6.12, for filesystems with single-page folios. Simplifies: one open file description for each file holds the read-ahead
state; the device takes requests no larger than the window (io_pages), but WILLNEED reads its whole range; reading takes no time, so a
page is uptodate and unlocked as soon as it is cached; fsync cleans at once. Omits: folio_mark_accessed, dirty and write-back counters,
shadow entries of evicted pages, pgpgin (they come with reclaim and devices); commit charges of tmpfs pages.
"""
from libc.string cimport memset

import numpy as np

cimport numpy as cnp
from mmcore.alloc.page_alloc cimport alloc_pages_run
from mmcore.alloc.page_free cimport free_pages_order
from mmcore.base.args cimport as_int
from mmcore.base.errors cimport E_BUSY, E_FBIG, E_INVAL, E_IO, E_NOENT, E_NOMEM
from mmcore.base.flags cimport (
    PG_allocated, PG_dirty, PG_file, PG_hwpoison, PG_meta, PG_ORDER_MASK, PG_ORDER_SHIFT, PG_swapbacked, PG_uptodate, PG_workingset,
)
from mmcore.base.pool cimport pool_give, pool_take
from mmcore.base.records cimport Page, PageMeta, meta_at, page_at
from mmcore.base.stat_items cimport NS_NR_FILE_PAGES, NS_NR_SHMEM, VE_PGMAJFAULT
from mmcore.base.state cimport State, state_enter, state_leave, state_lock, state_unlock
from mmcore.base.vm_records cimport (
    FILE_NORESERVE, FILE_RA_RANDOM, FILE_RA_SEQUENTIAL, FILE_UNLINKED, POOL_FILES, POOL_XNODES, XNode,
)
from mmcore.phys.buddy cimport zone_of
from mmcore.reclaim.lru cimport lru_add_many, lru_del_many
from mmcore.vm.radix cimport (
    RADIX_MASK, RADIX_SLOTS, radix_check, radix_leaf, radix_lookup, radix_make_leaf, radix_mark, radix_next, radix_next_absent,
    radix_nodes, radix_prune, radix_run_before, slot_is_page, slot_pfn,
)
from mmcore.phys.lruvec_stat cimport lruvec_stat_mod
from mmcore.vm.rmap cimport page_index, set_page_index
from mmcore.vm.vma cimport VM_HUGEPAGE, VM_RAND_READ, VM_SEQ_READ

cnp.import_array()

cdef enum:
    GFP_PAGE_CACHE = 0x100cca       # GFP_HIGHUSER_MOVABLE
    GFP_READAHEAD = 0x112cca        # | NORETRY | NOWARN
    MMAP_LOTSAMISS = 100
    HPAGE_PMD_NR = 512
    BATCH = 128
    KEPT = PG_allocated | PG_hwpoison | (PG_ORDER_MASK << PG_ORDER_SHIFT)
    SHORT_READ = 1 << 16


# ---------------------------------------------------------------- the life of a file

cdef uint32_t file_create(Mm* mm, uint64_t size, uint32_t flags, uint32_t name) noexcept nogil:
    cdef uint32_t x = pool_take(&mm.vm.pools[POOL_FILES], mm.vm.files, sizeof(File))
    cdef File* f
    if x:
        f = mapping_at(mm, x)
        if <uint32_t>mm.vm.g.next_file == 0:
            mm.vm.g.next_file += 1
        f.id = <uint32_t>mm.vm.g.next_file
        mm.vm.g.next_file += 1
        f.size = size
        f.flags = flags
        f.name = name
        f.nr_opens = 1
        f.ra_prev = -1
    return x


cdef int file_destroy(Mm* mm, uint32_t file, unsigned cpu) noexcept nogil:
    cdef File* f = mapping_at(mm, file)
    if f.nr_mapped_vmas or f.vma_first:
        return -E_BUSY
    truncate_file(mm, file, cpu)
    memset(f, 0, sizeof(File))
    pool_give(&mm.vm.pools[POOL_FILES], mm.vm.files, sizeof(File), file)
    return 0


# ---------------------------------------------------------------- pages into the cache, and out of it

cdef inline void page_enters(Mm* mm, File* f, uint32_t file, uint64_t index, uint32_t pfn) noexcept nogil:
    # __filemap_add_folio(): what the page's record and the counters say of it.
    cdef Page* p = page_at(mm, pfn)
    p.private_ = file
    p.flags |= PG_file | PG_uptodate
    if index:
        set_page_index(meta_at(mm, pfn), index)
        p.flags |= PG_meta
    lruvec_stat_mod(mm, pfn, NS_NR_FILE_PAGES, 1)
    if f.flags & FILE_SHMEM:
        p.flags |= PG_swapbacked
        lruvec_stat_mod(mm, pfn, NS_NR_SHMEM, 1)
    f.nr_pages += 1


cdef int64_t fill_leaf(Mm* mm, uint32_t file, XNode* leaf, uint64_t first, uint64_t last, uint64_t mark, unsigned gfp, unsigned cpu) noexcept nogil:
    # Pages for the slots of one leaf over [first, last] that have none: how many, -1 more when memory ran out (as -1 - n).
    cdef File* f = mapping_at(mm, file)
    cdef uint32_t pfns[RADIX_SLOTS]
    cdef uint64_t index
    cdef int64_t want = 0, got, k = 0
    for index in range(first, last + 1):
        if not slot_is_page(leaf.slots[index & RADIX_MASK]):
            want += 1
    if want == 0:
        return 0
    got = alloc_pages_run(mm, pfns, want, gfp, 0, cpu, -1, 0)
    if got < 0:
        got = 0
    for index in range(first, last + 1):
        if slot_is_page(leaf.slots[index & RADIX_MASK]):
            continue
        if k == got:
            break
        page_enters(mm, f, file, index, pfns[k])
        if leaf.slots[index & RADIX_MASK] == 0:
            leaf.count += 1
        leaf.slots[index & RADIX_MASK] = <uint64_t>pfns[k] + 1
        if index == mark:
            leaf.slots[index & RADIX_MASK] |= radix_mark()
        k += 1
    if got:
        lru_add_many(mm, pfns, got, cpu)
    elif leaf.count == 0:
        radix_prune(mm, f, leaf)
    return got if got == want else -1 - got


cdef int64_t filemap_add(Mm* mm, uint32_t file, uint64_t index, unsigned cpu) noexcept nogil:
    cdef XNode* leaf
    cdef uint64_t value = radix_lookup(mm, mapping_at(mm, file), index)
    if slot_is_page(value):
        return slot_pfn(value)
    if index >> FILE_MAX_PAGES_SHIFT:
        return -E_FBIG
    leaf = radix_make_leaf(mm, mapping_at(mm, file), index)
    if leaf == NULL or fill_leaf(mm, file, leaf, index, index, <uint64_t>-1, GFP_PAGE_CACHE, cpu) != 1:
        return -E_NOMEM
    return slot_pfn(leaf.slots[index & RADIX_MASK])


cdef int64_t filemap_lookup(Mm* mm, uint32_t file, uint64_t index) noexcept nogil:
    cdef uint64_t value = radix_lookup(mm, mapping_at(mm, file), index)
    return <int64_t>slot_pfn(value) if slot_is_page(value) else -E_NOENT


cdef inline bint page_mapped(Mm* mm, uint32_t pfn) noexcept nogil:
    return page_at(mm, pfn).flags & PG_meta and meta_at(mm, pfn).mapcount != 0


cdef inline void page_leaves(Mm* mm, File* f, uint32_t pfn) noexcept nogil:
    lruvec_stat_mod(mm, pfn, NS_NR_FILE_PAGES, -1)
    if page_at(mm, pfn).flags & PG_swapbacked:
        lruvec_stat_mod(mm, pfn, NS_NR_SHMEM, -1)
    f.nr_pages -= 1


cdef void release_pages(Mm* mm, const uint32_t* pfns, int64_t n, unsigned cpu) noexcept nogil:
    # The cache's references go. A page to which someone else refers stays allocated, no file's any longer.
    cdef int64_t k
    cdef Page* p
    cdef PageMeta* m
    cdef uint32_t refs
    lru_del_many(mm, pfns, n)
    for k in range(n):
        p = page_at(mm, pfns[k])
        if p.flags & PG_meta:
            m = meta_at(mm, pfns[k])
            refs = m.extra_refs
            memset(m, 0, sizeof(PageMeta))
            m.extra_refs = <unsigned short>refs
            p.flags = (p.flags & KEPT) | (PG_meta if refs else 0)
        else:
            p.flags &= KEPT
        p.private_ = 0
        free_pages_order(mm, pfns[k], 0, cpu)


cdef int64_t filemap_drop_range(Mm* mm, uint32_t file, uint64_t first, uint64_t end, bint dirty, unsigned cpu, int64_t* left) noexcept nogil:
    cdef File* f = mapping_at(mm, file)
    cdef XNode* leaf
    cdef uint32_t pfns[BATCH]
    cdef int64_t n = 0, total = 0
    cdef uint64_t at = first, value
    cdef uint32_t pfn
    if left != NULL:
        left[0] = 0
    while at < end and radix_next(mm, f, &at, end - 1) != NULL:
        leaf = radix_leaf(mm, f, at)
        while True:
            value = leaf.slots[at & RADIX_MASK]
            if slot_is_page(value):
                pfn = slot_pfn(value)
                if page_mapped(mm, pfn):
                    if left != NULL:
                        left[0] += 1
                    value = 0
                elif not dirty and page_at(mm, pfn).flags & PG_dirty:
                    value = 0
                else:
                    page_leaves(mm, f, pfn)
                    pfns[n] = pfn
                    n += 1
            if value:
                leaf.slots[at & RADIX_MASK] = 0
                leaf.count -= 1
            at += 1
            if at & RADIX_MASK == 0 or at >= end:
                break
            if n == BATCH:
                break
        if leaf.count <= 1:
            radix_prune(mm, f, leaf)
        if n > BATCH - RADIX_SLOTS:
            release_pages(mm, pfns, n, cpu)
            total += n
            n = 0
    if n:
        release_pages(mm, pfns, n, cpu)
    return total + n


cdef int filemap_remove(Mm* mm, uint32_t file, uint64_t index, unsigned cpu) noexcept nogil:
    cdef int64_t left, rc = filemap_lookup(mm, file, index)
    if rc < 0:
        return <int>rc
    filemap_drop_range(mm, file, index, index + 1, True, cpu, &left)
    return -E_BUSY if left else 0


cdef void truncate_file(Mm* mm, uint32_t file, unsigned cpu) noexcept nogil:
    filemap_drop_range(mm, file, 0, <uint64_t>-1, True, cpu, NULL)


cdef bint range_mapped(Mm* mm, uint32_t file, uint64_t first, uint64_t end) noexcept nogil:
    cdef uint64_t at = first
    cdef uint64_t* slot
    while at < end:
        slot = radix_next(mm, mapping_at(mm, file), &at, end - 1)
        if slot == NULL:
            return False
        if slot_is_page(slot[0]) and page_mapped(mm, slot_pfn(slot[0])):
            return True
        at += 1
    return False


cdef int file_set_size(Mm* mm, uint32_t file, uint64_t size, unsigned cpu) noexcept nogil:
    cdef File* f = mapping_at(mm, file)
    cdef uint64_t old = f.size, first
    if size >> (FILE_MAX_PAGES_SHIFT + 12):
        return -E_FBIG
    f.size = size
    first = file_pages(f)
    if size < old:
        if range_mapped(mm, file, first, <uint64_t>-1):
            f.size = old
            return -E_BUSY
        filemap_drop_range(mm, file, first, <uint64_t>-1, True, cpu, NULL)
    return 0


cdef int file_punch(Mm* mm, uint32_t file, uint64_t first, uint64_t end, unsigned cpu) noexcept nogil:
    cdef int64_t left
    filemap_drop_range(mm, file, first, end, True, cpu, &left)
    return -E_BUSY if left else 0


# ---------------------------------------------------------------- read-ahead

cdef inline uint64_t ra_pages(Mm* mm, const File* f) noexcept nogil:
    # bdi->ra_pages, or the file's own after fadvise; memory without a device has no read-ahead.
    cdef uint64_t r
    if f.flags & (FILE_SHMEM | FILE_RAM):
        return 0
    r = mm.vm.g.ra_pages - 1 if mm.vm.g.ra_pages else RA_PAGES_DEFAULT
    return 2 * r if f.flags & FILE_RA_SEQUENTIAL else r


cdef int64_t read_pages(Mm* mm, uint32_t file, uint64_t start, uint64_t n, uint64_t lookahead, unsigned cpu) noexcept nogil:
    cdef File* f = mapping_at(mm, file)
    cdef uint64_t limit = file_pages(f), at = start, last, end, mark = <uint64_t>-1
    cdef int64_t got, total = 0
    cdef XNode* leaf
    if start >= limit or n == 0:
        return 0
    if n > limit - start:
        n = limit - start
    if 0 < lookahead <= n:
        mark = start + n - lookahead
    end = start + n
    while at < end:
        last = (at | RADIX_MASK) if (at | RADIX_MASK) < end else end - 1
        leaf = radix_make_leaf(mm, f, at)
        if leaf == NULL:
            break
        got = fill_leaf(mm, file, leaf, at, last, mark, GFP_READAHEAD, cpu)
        if got < 0:
            total += -1 - got
            break
        total += got
        at = last + 1
    return total


cdef inline uint64_t init_ra_size(uint64_t req, uint64_t r) noexcept nogil:
    # get_init_ra_size()
    cdef uint64_t p = 1
    if req > r:
        return r
    while p < req:
        p <<= 1
    if p <= r // 32:
        return 4 * p
    if p <= r // 4:
        return 2 * p
    return r


cdef inline uint64_t next_ra_size(uint64_t cur, uint64_t r) noexcept nogil:
    # get_next_ra_size()
    if cur < r // 16:
        return 4 * cur
    if cur <= r // 2:
        return 2 * cur
    return r


cdef inline void submit_ra(Mm* mm, uint32_t file, uint64_t start, uint64_t size, uint64_t async_size, unsigned cpu) noexcept nogil:
    cdef File* f = mapping_at(mm, file)
    f.ra_start = start
    f.ra_size = <uint32_t>size
    f.ra_async = <uint32_t>async_size
    read_pages(mm, file, start, size, async_size, cpu)


cdef void sync_ra(Mm* mm, uint32_t file, uint64_t index, uint64_t req, unsigned cpu) noexcept nogil:
    # page_cache_sync_ra(): page `index` of a request for `req` pages is not there.
    cdef File* f = mapping_at(mm, file)
    cdef uint64_t r = ra_pages(mm, f), size, prev = <uint64_t>f.ra_prev >> 12, count
    if r == 0:
        read_pages(mm, file, index, 1, 0, cpu)
        return
    if f.flags & FILE_RA_RANDOM:
        read_pages(mm, file, index, req if req < r else r, 0, cpu)
        return
    if index == 0 or req > r or index - prev <= 1:
        size = init_ra_size(req, r)
        submit_ra(mm, file, index, size, size - req if size > req else size >> 1, cpu)
        return
    count = radix_run_before(mm, f, index, r)
    if count <= req:
        read_pages(mm, file, index, req, 0, cpu)
        return
    if count == index:
        count *= 2
    size = count + req if count + req < r else r
    submit_ra(mm, file, index, size, 1, cpu)


cdef void async_ra(Mm* mm, uint32_t file, uint64_t index, uint64_t req, unsigned cpu) noexcept nogil:
    # page_cache_async_ra(): the marked page was reached.
    cdef File* f = mapping_at(mm, file)
    cdef uint64_t r = ra_pages(mm, f), start, size
    cdef XNode* leaf
    if r == 0:
        return
    leaf = radix_leaf(mm, f, index)
    leaf.slots[index & RADIX_MASK] &= ~radix_mark()
    if index == f.ra_start + f.ra_size - f.ra_async:
        size = next_ra_size(f.ra_size, r)
        if size < f.ra_size:
            size = f.ra_size
        submit_ra(mm, file, f.ra_start + f.ra_size, size, size, cpu)
        return
    start = radix_next_absent(mm, f, index + 1, r)
    if start - index > r:
        return
    size = next_ra_size(start - index + req, r)
    submit_ra(mm, file, start, size, size, cpu)


# ---------------------------------------------------------------- faults

cdef void sync_mmap_readahead(Mm* mm, uint32_t file, uint64_t index, uint64_t vm_flags, unsigned cpu) noexcept nogil:
    cdef File* f = mapping_at(mm, file)
    cdef uint64_t r = ra_pages(mm, f)
    if vm_flags & VM_HUGEPAGE:
        f.ra_size = HPAGE_PMD_NR if vm_flags & VM_RAND_READ else 2 * HPAGE_PMD_NR
        f.ra_async = HPAGE_PMD_NR
        read_pages(mm, file, index & ~<uint64_t>(HPAGE_PMD_NR - 1), f.ra_size, f.ra_async, cpu)
        return
    if vm_flags & VM_RAND_READ or r == 0:
        return
    if vm_flags & VM_SEQ_READ:
        sync_ra(mm, file, index, r, cpu)
        return
    if f.ra_mmap_miss < 10 * MMAP_LOTSAMISS:
        f.ra_mmap_miss += 1
    if f.ra_mmap_miss > MMAP_LOTSAMISS:
        return
    submit_ra(mm, file, index - r // 2 if index > r // 2 else 0, r, r // 4, cpu)


cdef int filemap_fault(Mm* mm, uint32_t file, uint64_t index, uint64_t vm_flags, uint64_t first, uint64_t end, unsigned cpu, uint32_t* pfn) noexcept nogil:
    cdef File* f = mapping_at(mm, file)
    cdef uint64_t value, r
    cdef int64_t got
    cdef int major = 0
    if index >= file_pages(f):
        return -E_IO
    value = radix_lookup(mm, f, index)
    if slot_is_page(value):
        r = ra_pages(mm, f)
        if r and not vm_flags & VM_RAND_READ:
            if f.ra_mmap_miss:
                f.ra_mmap_miss -= 1
            if value & radix_mark():
                async_ra(mm, file, index, r, cpu)
        pfn[0] = slot_pfn(value)
        return 0
    if not f.flags & FILE_SHMEM:
        mm.vm.g.events[VE_PGMAJFAULT] += 1
        major = 1
        sync_mmap_readahead(mm, file, index, vm_flags, cpu)
    got = filemap_add(mm, file, index, cpu)
    if got < 0:
        return -E_NOMEM if got == -E_NOMEM else -E_IO
    pfn[0] = <uint32_t>got
    return major


cdef void fault_around_range(uint64_t i, uint64_t v, uint64_t pages, uint64_t n, uint64_t entries, uint64_t* lo, uint64_t* hi) noexcept nogil:
    cdef uint64_t start = i & ~(n - 1), end
    if start < i - (i if i < v else v):
        start = i - (i if i < v else v)
    end = start + n
    if end > entries:
        end = entries
    if end > i + pages - v:
        end = i + pages - v
    lo[0] = start
    hi[0] = end - 1


cdef int64_t filemap_map_pages(Mm* mm, uint32_t file, uint64_t first, uint64_t end, uint64_t vm_flags, MapPage* out) noexcept nogil:
    cdef File* f = mapping_at(mm, file)
    cdef int64_t n = 0
    cdef uint32_t seen = 0
    cdef uint64_t at = first, limit = file_pages(f), value
    cdef XNode* leaf = NULL
    if end > limit:
        end = limit
    if end > first and end - first > MAP_PAGES_MAX:
        end = first + MAP_PAGES_MAX
    while at < end:
        if leaf == NULL or at & RADIX_MASK == 0:
            leaf = radix_leaf(mm, f, at)
            if leaf == NULL:
                at = (at | RADIX_MASK) + 1
                continue
        value = leaf.slots[at & RADIX_MASK]
        if slot_is_page(value) and not value & radix_mark() and page_at(mm, slot_pfn(value)).flags & PG_uptodate:
            out[n].index = at
            out[n].pfn = slot_pfn(value)
            out[n].pad = 0
            n += 1
            if not page_at(mm, slot_pfn(value)).flags & PG_workingset:
                seen += 1
        at += 1
    f.ra_mmap_miss -= seen if seen < f.ra_mmap_miss else f.ra_mmap_miss
    return n


cdef int file_make_writable(Mm* mm, uint32_t file, uint32_t pfn) noexcept nogil:
    page_at(mm, pfn).flags |= PG_dirty
    return 0


cdef void file_willneed(Mm* mm, uint32_t file, uint64_t first, uint64_t end, unsigned cpu) noexcept nogil:
    # force_page_cache_ra(): no window moves, no page is marked. Memory-backed files have nothing to read.
    if first < end and not mapping_at(mm, file).flags & (FILE_SHMEM | FILE_RAM):
        read_pages(mm, file, first, end - first, 0, cpu)


# ---------------------------------------------------------------- read(), write() and advice

cdef int64_t filemap_read(Mm* mm, uint32_t file, uint64_t offset, uint64_t length, unsigned cpu, int64_t* misses) noexcept nogil:
    cdef File* f = mapping_at(mm, file)
    cdef uint64_t index = offset >> 12, end, last_index, stop, value
    cdef int64_t missed = 0, rc = 0
    cdef XNode* leaf = NULL
    misses[0] = 0
    if offset >= f.size or length == 0:
        return 0
    if length > (<uint64_t>1 << 63) - offset:
        length = (<uint64_t>1 << 63) - offset
    last_index = (offset + length + 4095) >> 12         # of the request, which may lie beyond the end of the file
    end = offset + length if offset + length < f.size else f.size
    stop = (end + 4095) >> 12
    while index < stop:
        if leaf == NULL or index & RADIX_MASK == 0:
            leaf = radix_leaf(mm, f, index)
        value = leaf.slots[index & RADIX_MASK] if leaf else 0
        if slot_is_page(value):
            if value & radix_mark():
                async_ra(mm, file, index, last_index - index, cpu)
            index += 1
            continue
        missed += 1
        if f.flags & FILE_SHMEM:
            # a hole: zeros are copied, nothing is cached
            index += 1
            continue
        sync_ra(mm, file, index, last_index - index, cpu)
        if not slot_is_page(radix_lookup(mm, f, index)):
            rc = filemap_add(mm, file, index, cpu)
            if rc < 0:
                break
        # what was read just now may itself carry a mark
        leaf = radix_leaf(mm, f, index)
        if leaf.slots[index & RADIX_MASK] & radix_mark():
            async_ra(mm, file, index, last_index - index, cpu)
        index += 1
    misses[0] = missed
    if index < stop:
        # memory ran out: what came before was copied
        if index == offset >> 12:
            return rc
        f.ra_prev = <int64_t>(index << 12)
    else:
        f.ra_prev = <int64_t>end
    return <int64_t>(index - (offset >> 12))


cdef int64_t filemap_write(Mm* mm, uint32_t file, uint64_t offset, uint64_t length, unsigned cpu) noexcept nogil:
    cdef File* f = mapping_at(mm, file)
    cdef uint64_t limit = <uint64_t>1 << (FILE_MAX_PAGES_SHIFT + 12), end, index, stop, pos
    cdef int64_t pfn
    if length == 0:
        return 0
    if offset >= limit or length > limit - offset:
        return -E_FBIG
    end = offset + length
    index = offset >> 12
    stop = (end + 4095) >> 12
    while index < stop:
        pfn = filemap_add(mm, file, index, cpu)
        if pfn < 0:
            break
        page_at(mm, <uint32_t>pfn).flags |= PG_dirty
        index += 1
        pos = index << 12
        if pos > end:
            pos = end
        if pos > f.size:
            f.size = pos
    if index == offset >> 12:
        return -E_NOMEM
    return <int64_t>(index - (offset >> 12))


cdef int file_fadvise(Mm* mm, uint32_t file, uint64_t offset, uint64_t length, int advice, unsigned cpu) noexcept nogil:
    cdef File* f = mapping_at(mm, file)
    cdef uint64_t end, first, last
    # a length of 0 means: to the end
    end = offset + length if length and offset + length > offset else <uint64_t>-1
    if advice == FADV_NORMAL:
        f.flags &= ~<uint32_t>(FILE_RA_RANDOM | FILE_RA_SEQUENTIAL)
    elif advice == FADV_RANDOM:
        f.flags |= FILE_RA_RANDOM
    elif advice == FADV_SEQUENTIAL:
        f.flags = (f.flags & ~<uint32_t>FILE_RA_RANDOM) | FILE_RA_SEQUENTIAL
    elif advice == FADV_WILLNEED:
        file_willneed(mm, file, offset >> 12, ((end - 1) >> 12) + 1, cpu)
    elif advice == FADV_DONTNEED:
        if f.flags & (FILE_SHMEM | FILE_RAM):
            return 0
        # whole pages only; the last one of the file counts as whole
        first = (offset >> 12) + (1 if offset & 4095 else 0)
        last = file_pages(f) if end >= f.size else end >> 12
        if first < last:
            filemap_drop_range(mm, file, first, last, False, cpu, NULL)
    elif advice != FADV_NOREUSE:
        return -E_INVAL
    return 0


cdef int64_t file_fsync(Mm* mm, uint32_t file) noexcept nogil:
    cdef uint64_t at = 0
    cdef uint64_t* slot
    cdef int64_t n = 0
    cdef Page* p
    if mapping_at(mm, file).flags & (FILE_SHMEM | FILE_RAM):
        return 0
    while True:
        slot = radix_next(mm, mapping_at(mm, file), &at, <uint64_t>-1)
        if slot == NULL:
            return n
        if slot_is_page(slot[0]):
            p = page_at(mm, slot_pfn(slot[0]))
            if p.flags & PG_dirty:
                p.flags &= ~<uint32_t>PG_dirty
                n += 1
        at += 1


# ---------------------------------------------------------------- entries from Python

cdef inline uint32_t as_file(State s, object value) except 0:
    cdef uint32_t x = <uint32_t>as_int(value, "file", 1, 0x7fffffff)
    cdef File* f
    if x <= s.c.vm.pools[POOL_FILES].used:
        f = mapping_at(&s.c, x)
        if f.id and (f.nr_opens or not f.flags & FILE_UNLINKED):
            return x
    raise ValueError(f"file is {value}: no such file (it was unlinked, or never was)")


cdef inline unsigned as_cpu(State s, object value) except? 0xffffffff:
    return <unsigned>as_int(value, "cpu", 0, s.c.g.nr_cpus - 1)


cdef enum:
    MAX_SIZE = 0x1000000000000000   # bytes of the largest file
    MAX_LENGTH = 0x7ffffffffffff000


def create_file(State state not None, name, size, flags=0):
    """A file of `size` bytes, held open once: its handle, or -ENOMEM. flags: 1 tmpfs, 2 without a backing device."""
    cdef uint64_t n = <uint64_t>as_int(size, "size", 0, MAX_SIZE)
    cdef uint32_t f = <uint32_t>as_int(flags, "flags", 0, FILE_SHMEM | FILE_RAM), x, number = 0
    if not isinstance(name, str):
        raise TypeError(f"name must be a string, not {type(name).__name__}")
    if f & FILE_SHMEM:
        f |= FILE_NORESERVE
    state_lock(state)
    try:
        if name:
            if name not in state.names:
                state.names.append(name)
            number = state.names.index(name) + 1
        x = file_create(&state.c, n, f, number)
    finally:
        state_unlock(state)
    return x if x else -E_NOMEM


def unlink(State state not None, file, cpu=0):
    """The file loses its name and the one who holds it open; it goes at once, or with its last mapping."""
    cdef unsigned c = as_cpu(state, cpu)
    cdef uint32_t x
    cdef File* f
    state_lock(state)
    try:
        x = as_file(state, file)
        f = mapping_at(&state.c, x)
        f.flags |= FILE_UNLINKED
        f.nr_opens -= 1 if f.nr_opens else 0
        if f.nr_opens == 0 and f.nr_mapped_vmas == 0:
            with nogil:
                file_destroy(&state.c, x, c)
    finally:
        state_unlock(state)


def file_size(State state not None, file):
    """Its size in bytes."""
    return mapping_at(&state.c, as_file(state, file)).size


def read(State state not None, file, offset, length, cpu=0):
    """read(): (pages copied from, pages that had to be read first); pages is -ENOMEM when there was no memory for the first one."""
    cdef uint64_t at = <uint64_t>as_int(offset, "offset", 0, MAX_LENGTH), n = <uint64_t>as_int(length, "length", 0, MAX_LENGTH)
    cdef unsigned c = as_cpu(state, cpu)
    cdef uint32_t x
    cdef int64_t got, misses
    if n <= SHORT_READ:
        state_enter(state)
        try:
            x = as_file(state, file)
            got = filemap_read(&state.c, x, at, n, c, &misses)
        finally:
            state_leave(state)
        return got, misses
    state_lock(state)
    try:
        x = as_file(state, file)
        with nogil:
            got = filemap_read(&state.c, x, at, n, c, &misses)
    finally:
        state_unlock(state)
    return got, misses


def write(State state not None, file, offset, length, cpu=0):
    """write(): pages written; fewer when memory ran out; -ENOMEM when none was, -EFBIG beyond the largest file. The file grows."""
    cdef uint64_t at = <uint64_t>as_int(offset, "offset", 0, MAX_LENGTH), n = <uint64_t>as_int(length, "length", 0, MAX_LENGTH)
    cdef unsigned c = as_cpu(state, cpu)
    cdef uint32_t x
    cdef int64_t got
    state_lock(state)
    try:
        x = as_file(state, file)
        with nogil:
            got = filemap_write(&state.c, x, at, n, c)
    finally:
        state_unlock(state)
    return got


def fault(State state not None, file, index, vm_flags=0, cpu=0):
    """The page a fault on `index` finds, as a process's fault would: (0 minor, 1 major or -errno, page frame or -1). Nothing is mapped."""
    cdef uint64_t i = <uint64_t>as_int(index, "index", 0, MAX_LENGTH), v = <uint64_t>as_int(vm_flags, "vm_flags", 0, MAX_LENGTH)
    cdef unsigned c = as_cpu(state, cpu)
    cdef uint32_t x, pfn = 0
    cdef int rc
    state_lock(state)
    try:
        x = as_file(state, file)
        with nogil:
            rc = filemap_fault(&state.c, x, i, v, 0, <uint64_t>-1, c, &pfn)
    finally:
        state_unlock(state)
    return rc, (pfn if rc >= 0 else -1)


def map_pages(State state not None, file, first, end):
    """What fault-around would map of pages [first, end): arrays of indices (uint64) and page frames (uint32)."""
    cdef uint64_t a = <uint64_t>as_int(first, "first", 0, MAX_LENGTH), b = <uint64_t>as_int(end, "end", 0, MAX_LENGTH)
    cdef MapPage found[MAP_PAGES_MAX]
    cdef int64_t n, k
    cdef uint32_t x
    state_lock(state)
    try:
        x = as_file(state, file)
        n = filemap_map_pages(&state.c, x, a, b, 0, found)
    finally:
        state_unlock(state)
    return np.array([found[k].index for k in range(n)], np.uint64), np.array([found[k].pfn for k in range(n)], np.uint32)


def around(i, v, pages, n, entries=512):
    """fault_around_range(): the first and last page-table entry of the window."""
    cdef uint64_t lo, hi
    if n < 1 or n & (n - 1) or not 0 <= i < entries or not 0 <= v < pages:
        raise ValueError(f"entry {i} of {entries}, page {v} of {pages}, window {n}: the window must be a power of two, the others in range")
    fault_around_range(i, v, pages, n, entries, &lo, &hi)
    return lo, hi


def cached(State state not None, file):
    """Indices of the cached pages, ascending, and those of them that carry the read-ahead mark (both uint64)."""
    cdef uint64_t at = 0
    cdef uint64_t* slot
    cdef uint32_t x
    cdef Py_ssize_t n = 0, m = 0
    cdef uint64_t[::1] a, b
    state_lock(state)
    try:
        x = as_file(state, file)
        indices = np.zeros(mapping_at(&state.c, x).nr_pages, np.uint64)
        marked = np.zeros(mapping_at(&state.c, x).nr_pages, np.uint64)
        a, b = indices, marked
        while n < a.shape[0]:
            slot = radix_next(&state.c, mapping_at(&state.c, x), &at, <uint64_t>-1)
            if slot == NULL:
                break
            if slot_is_page(slot[0]):
                a[n] = at
                n += 1
                if slot[0] & radix_mark():
                    b[m] = at
                    m += 1
            at += 1
    finally:
        state_unlock(state)
    return indices[:n], marked[:m].copy()


def truncate(State state not None, file, size, cpu=0):
    """A new size in bytes; pages beyond it go. 0, or -EBUSY when some of them are mapped (nothing changes)."""
    cdef uint64_t n = <uint64_t>as_int(size, "size", 0, MAX_SIZE)
    cdef unsigned c = as_cpu(state, cpu)
    cdef uint32_t x
    cdef int rc
    state_lock(state)
    try:
        x = as_file(state, file)
        with nogil:
            rc = file_set_size(&state.c, x, n, c)
    finally:
        state_unlock(state)
    return rc


def drop_cache(State state not None, file, cpu=0):
    """invalidate_mapping_pages(): clean pages that are not mapped go (those of tmpfs and ramfs have nowhere else to be); how many."""
    cdef unsigned c = as_cpu(state, cpu)
    cdef uint32_t x
    cdef int64_t n = 0
    state_lock(state)
    try:
        x = as_file(state, file)
        if file_notifies(&state.c, x):
            with nogil:
                n = filemap_drop_range(&state.c, x, 0, <uint64_t>-1, False, c, NULL)
    finally:
        state_unlock(state)
    return n


def fadvise(State state not None, file, offset, length, advice, cpu=0):
    """posix_fadvise(): 0 normal, 1 random, 2 sequential, 3 willneed, 4 dontneed, 5 noreuse. 0 or -EINVAL."""
    cdef uint64_t at = <uint64_t>as_int(offset, "offset", 0, MAX_LENGTH), n = <uint64_t>as_int(length, "length", 0, MAX_LENGTH)
    cdef int a = <int>as_int(advice, "advice", 0, 1000)
    cdef unsigned c = as_cpu(state, cpu)
    cdef uint32_t x
    cdef int rc
    state_lock(state)
    try:
        x = as_file(state, file)
        with nogil:
            rc = file_fadvise(&state.c, x, at, n, a, c)
    finally:
        state_unlock(state)
    return rc


def fsync(State state not None, file):
    """All pages of the file are clean then: how many were dirty."""
    cdef uint32_t x
    cdef int64_t n
    state_lock(state)
    try:
        x = as_file(state, file)
        with nogil:
            n = file_fsync(&state.c, x)
    finally:
        state_unlock(state)
    return n


def set_ra_pages(State state not None, pages):
    """The read-ahead window of files in pages (bdi->ra_pages, read_ahead_kb / 4); 0: none."""
    state.c.vm.g.ra_pages = <uint32_t>as_int(pages, "pages", 0, 1 << 20) + 1


# ---------------------------------------------------------------- recount

cdef str page_fault(Mm* mm, uint32_t file, uint64_t index, uint32_t pfn):
    cdef File* f = mapping_at(mm, file)
    cdef Page* p
    cdef PageMeta* m
    if pfn >= mm.g.nr_pages or zone_of(mm, pfn) == 0:
        return f"page frame {pfn} is no memory"
    p = page_at(mm, pfn)
    m = meta_at(mm, pfn)
    if not p.flags & PG_allocated or not p.flags & PG_file or not p.flags & PG_uptodate:
        return f"page frame {pfn} has flags {p.flags:#x}"
    if (p.flags & PG_swapbacked != 0) != (f.flags & FILE_SHMEM != 0):
        return f"page frame {pfn} is swap-backed or not against its file's kind"
    if p.private_ != file or page_index(m) != index:
        return f"page frame {pfn} says it is page {page_index(m)} of file {p.private_}"
    if (p.flags & PG_meta != 0) != (m.mapcount != 0 or page_index(m) != 0 or m.extra_refs != 0):
        return f"page frame {pfn} has PG_meta wrong"
    return ""


def validate_files(State state not None):
    """Recounts all files and their page caches: a list of what is wrong (empty: nothing)."""
    cdef Mm* mm = &state.c
    cdef uint32_t x, pfn
    cdef uint64_t entries, nodes, at, pages, all_nodes = 0
    cdef uint64_t* slot
    cdef File* f
    cdef int rc
    problems = []
    file_count = np.zeros(mm.g.nr_nodes, np.int64)
    shmem_count = np.zeros(mm.g.nr_nodes, np.int64)
    state_lock(state)
    try:
        for x in range(1, mm.vm.pools[POOL_FILES].used + 1):
            f = mapping_at(mm, x)
            if f.id == 0:
                if f.radix or f.nr_pages:
                    problems.append(f"file {x} is free, yet has pages")
                continue
            rc = radix_check(mm, f, &entries, &nodes)
            if rc:
                problems.append(f"file {x}: its index is damaged (fault {rc})")
                continue
            all_nodes += nodes
            if radix_nodes(mm, f) not in (nodes, nodes - 1):
                problems.append(f"file {x}: {nodes} index nodes")
            at = pages = 0
            while True:
                slot = radix_next(mm, f, &at, <uint64_t>-1)
                if slot == NULL:
                    break
                if slot_is_page(slot[0]):
                    pages += 1
                    pfn = slot_pfn(slot[0])
                    wrong = page_fault(mm, x, at, pfn)
                    if wrong:
                        problems.append(f"file {x}, page {at}: {wrong}")
                    else:
                        file_count[mm.zones[zone_of(mm, pfn) - 1].node] += 1
                        shmem_count[mm.zones[zone_of(mm, pfn) - 1].node] += 1 if f.flags & FILE_SHMEM else 0
                    if at >= file_pages(f):
                        problems.append(f"file {x}, page {at}: beyond the end ({f.size} bytes)")
                at += 1
            if pages != f.nr_pages:
                problems.append(f"file {x}: nr_pages is {f.nr_pages}, {pages} are cached")
        if all_nodes != mm.vm.pools[POOL_XNODES].live:
            problems.append(f"{mm.vm.pools[POOL_XNODES].live} index nodes are taken, {all_nodes} belong to files")
        for x in range(0 if mm.vm.g.foreign_counts else mm.g.nr_nodes):
            if mm.nodes[x].vm_stat[NS_NR_FILE_PAGES] != file_count[x]:
                problems.append(f"node {x}: nr_file_pages is {mm.nodes[x].vm_stat[NS_NR_FILE_PAGES]}, {file_count[x]} are cached")
            if mm.nodes[x].vm_stat[NS_NR_SHMEM] != shmem_count[x]:
                problems.append(f"node {x}: nr_shmem is {mm.nodes[x].vm_stat[NS_NR_SHMEM]}, {shmem_count[x]} are cached")
    finally:
        state_unlock(state)
    return problems
