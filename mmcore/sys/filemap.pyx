"""Files and their page cache: read(), write(), faults.

Models: filemap_read, filemap_fault, filemap_map_pages, generic_perform_write (mm/filemap.c), truncate_inode_pages,
invalidate_mapping_pages (mm/truncate.c; of mapped pages: sys/truncate), shmem_get_folio,
shmem_undo_range (mm/shmem.c), v6.12, for filesystems
with single-page folios. A file's record lives as long as it has a name, an open or a mapping, whatever kind of file it is. Simplifies: one
open file description for each file holds the read-ahead state; the device takes requests no larger than the window (io_pages), but WILLNEED
reads its whole range; reading takes no time, so a page is uptodate and unlocked as soon as it is cached. Omits: commit charges of tmpfs pages.
"""
from libc.string cimport memset
from mmcore.alloc.page_free cimport free_pages_order
from mmcore.base.gfp cimport GFP_WRITE_BIT
from mmcore.base.errors cimport E_BUSY, E_FBIG, E_INVAL, E_IO, E_NOMEM
from mmcore.base.flags cimport PG_ORDER_MASK, PG_ORDER_SHIFT, PG_allocated, PG_dirty, PG_hwpoison, PG_meta, PG_uptodate, PG_workingset, PG_writeback
from mmcore.base.pool cimport pool_give, pool_take
from mmcore.base.records cimport Page, PageMeta, meta_at, page_at
from mmcore.base.stat_items cimport VE_PGMAJFAULT
from mmcore.base.vm_records cimport (
    FILE_NORESERVE, FILE_RAM, FILE_RA_RANDOM, FILE_RA_SEQUENTIAL, FILE_SHMEM, FILE_UNLINKED, POOL_FILES, File, XNode,
)
from mmcore.reclaim.lru cimport folio_mark_accessed, lru_del_many
from mmcore.reclaim.memcg cimport count_memcg_events
from mmcore.reclaim.page_cache cimport FILE_MAX_PAGES_SHIFT, file_pages, filemap_lookup, index_prune, mapping_at, page_leaves, page_mapped
from mmcore.reclaim.flush_file cimport write_and_wait
from mmcore.reclaim.swap cimport free_swap_and_cache
from mmcore.reclaim.writeback cimport file_leaves_writeback, folio_cancel_dirty, folio_mark_dirty, folio_wait_writeback
from mmcore.sys.commit cimport vm_unacct_memory
from mmcore.sys.readahead cimport async_ra, file_willneed, fill_range, ra_pages, sync_mmap_readahead, sync_ra
from mmcore.sys.swap cimport shmem_swapin
from mmcore.vm.radix cimport (
    RADIX_MASK, RADIX_SLOTS, radix_leaf, radix_lookup, radix_mark, radix_next, slot_is_page, slot_is_shadow, slot_is_swap, slot_pfn,
    slot_swap,
)
from mmcore.vm.rmap cimport sync_meta
from mmcore.vm.vma cimport VM_RAND_READ

cdef enum:
    GFP_PAGE_CACHE = 0x100cca       # GFP_HIGHUSER_MOVABLE
    BATCH = 128
    KEPT = PG_allocated | PG_hwpoison | (PG_ORDER_MASK << PG_ORDER_SHIFT)


# ---------------------------------------------------------------- the life of a file

cdef uint32_t file_alloc(Mm* mm, uint64_t size, uint32_t flags, uint32_t name) noexcept nogil:
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
        f.ra_prev = -1
    return x


cdef void file_put(Mm* mm, uint32_t file, unsigned cpu) noexcept nogil:
    cdef File* f = mapping_at(mm, file)
    if f.nr_opens or f.nr_mapped_vmas or not f.flags & FILE_UNLINKED:
        return
    filemap_drop_range(mm, file, 0, ~<uint64_t>0, True, cpu, NULL)
    file_leaves_writeback(mm, file)
    if f.flags & FILE_SHMEM and not f.flags & FILE_NORESERVE:
        vm_unacct_memory(mm, file_pages(f))
    memset(f, 0, sizeof(File))
    pool_give(&mm.vm.pools[POOL_FILES], mm.vm.files, sizeof(File), file)


# ---------------------------------------------------------------- pages into the cache, and out of it

cdef int64_t filemap_add(Mm* mm, uint32_t file, uint64_t index, bint write, unsigned cpu) noexcept nogil:
    cdef uint64_t value = radix_lookup(mm, mapping_at(mm, file), index)
    cdef bint major
    cdef int64_t pfn
    if slot_is_page(value):
        return slot_pfn(value)
    if slot_is_swap(value):
        pfn = shmem_swapin(mm, file, index, cpu, &major)
        if write and pfn >= 0:
            folio_mark_accessed(mm, <uint32_t>pfn, cpu)
        return pfn
    if index >> FILE_MAX_PAGES_SHIFT:
        return -E_FBIG
    if fill_range(mm, file, index, index, <uint64_t>-1, GFP_PAGE_CACHE | (GFP_WRITE_BIT if write else 0), cpu) != 1:
        return -E_NOMEM
    return slot_pfn(radix_lookup(mm, mapping_at(mm, file), index))


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
                elif not dirty and page_at(mm, pfn).flags & (PG_dirty | PG_writeback):
                    value = 0
                else:
                    if page_at(mm, pfn).flags & (PG_dirty | PG_writeback):
                        folio_wait_writeback(mm, pfn, cpu)
                        folio_cancel_dirty(mm, pfn)
                    page_leaves(mm, f, pfn)
                    pfns[n] = pfn
                    n += 1
            elif slot_is_shadow(value):
                # an invalidation leaves what reclaim left
                if dirty:
                    leaf.nr_shadows -= 1
                else:
                    value = 0
            elif slot_is_swap(value):
                if dirty:
                    free_swap_and_cache(mm, slot_swap(value), 1, cpu)
                else:
                    value = 0
            if value:
                leaf.slots[at & RADIX_MASK] = 0
                leaf.count -= 1
            at += 1
            if at & RADIX_MASK == 0 or at >= end:
                break
            if n == BATCH:
                break
        if leaf.count <= 1:
            index_prune(mm, f, leaf, cpu)
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


# ---------------------------------------------------------------- faults

cdef int filemap_fault(Mm* mm, uint32_t file, uint64_t index, uint64_t vm_flags, uint64_t first, uint64_t end, unsigned cpu, uint32_t* pfn) noexcept nogil:
    cdef File* f = mapping_at(mm, file)
    cdef uint64_t value, r
    cdef int64_t got
    cdef int major = 0
    cdef bint was_read = False
    if index >= file_pages(f):
        return -E_IO
    value = radix_lookup(mm, f, index)
    if slot_is_page(value):
        r = ra_pages(mm, f)
        if r and not vm_flags & VM_RAND_READ:
            if f.ra_mmap_miss:
                f.ra_mmap_miss -= 1
            if value & radix_mark():
                # the page is held meanwhile: a full group makes room for what is read ahead
                page_at(mm, slot_pfn(value)).flags |= PG_meta
                meta_at(mm, slot_pfn(value)).extra_refs += 1
                async_ra(mm, file, index, r, cpu)
                meta_at(mm, slot_pfn(value)).extra_refs -= 1
                sync_meta(mm, slot_pfn(value))
        pfn[0] = slot_pfn(value)
        return 0
    if slot_is_swap(value):
        got = shmem_swapin(mm, file, index, cpu, &was_read)
        if was_read:
            mm.vm.g.events[VE_PGMAJFAULT] += 1
            count_memcg_events(mm, mm.vm.cpus[cpu].memcg, VE_PGMAJFAULT, 1)
        if got < 0:
            return -E_NOMEM
        pfn[0] = <uint32_t>got
        return was_read
    if not f.flags & FILE_SHMEM:
        mm.vm.g.events[VE_PGMAJFAULT] += 1
        count_memcg_events(mm, mm.vm.cpus[cpu].memcg, VE_PGMAJFAULT, 1)
        major = 1
        sync_mmap_readahead(mm, file, index, vm_flags, cpu)
    got = filemap_add(mm, file, index, False, cpu)
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


cdef int file_make_writable(Mm* mm, uint32_t file, uint32_t pfn, unsigned cpu) noexcept nogil:
    folio_mark_dirty(mm, pfn, cpu)
    return 0


# ---------------------------------------------------------------- read(), write() and advice

cdef int64_t filemap_read(Mm* mm, uint32_t file, uint64_t offset, uint64_t length, unsigned cpu, int64_t* misses) noexcept nogil:
    cdef File* f = mapping_at(mm, file)
    cdef uint64_t index = offset >> 12, end, last_index, stop, value
    # several reads inside one page count as one
    cdef int64_t missed = 0, rc = 0, last = (f.ra_prev - 1) >> 12
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
            if <int64_t>index != last:
                folio_mark_accessed(mm, slot_pfn(value), cpu)
            index += 1
            continue
        missed += 1
        if slot_is_swap(value):
            rc = filemap_add(mm, file, index, False, cpu)
            if rc < 0:
                break
            if <int64_t>index != last:
                folio_mark_accessed(mm, <uint32_t>rc, cpu)
            leaf = NULL         # making room may have moved the tree
            index += 1
            continue
        if f.flags & FILE_SHMEM:
            # a hole: zeros are copied, nothing is cached
            index += 1
            continue
        sync_ra(mm, file, index, last_index - index, cpu)
        if not slot_is_page(radix_lookup(mm, f, index)):
            rc = filemap_add(mm, file, index, False, cpu)
            if rc < 0:
                break
        # what was read just now may itself carry a mark
        leaf = radix_leaf(mm, f, index)
        value = leaf.slots[index & RADIX_MASK]
        if value & radix_mark():
            async_ra(mm, file, index, last_index - index, cpu)
        if <int64_t>index != last:
            folio_mark_accessed(mm, slot_pfn(value), cpu)
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
        pfn = filemap_add(mm, file, index, True, cpu)
        if pfn < 0:
            break
        folio_mark_dirty(mm, <uint32_t>pfn, cpu)
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


cdef int64_t file_fsync(Mm* mm, uint32_t file, unsigned cpu, int64_t* wait_ns) noexcept nogil:
    wait_ns[0] = 0
    if mapping_at(mm, file).flags & (FILE_SHMEM | FILE_RAM):
        return 0
    return write_and_wait(mm, file, cpu, wait_ns)
