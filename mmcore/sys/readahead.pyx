"""Read-ahead: how much of a file is read, and when.

Models: page_cache_sync_ra, page_cache_async_ra, page_cache_ra_unbounded, force_page_cache_ra (mm/readahead.c),
do_sync_mmap_readahead (mm/filemap.c), v6.12. Simplifies: one open file description for each file holds the read-ahead state; the device
takes requests no larger than the window (io_pages), but WILLNEED reads its whole range; reading takes no time, so a page is uptodate and
unlocked as soon as it is cached; pgpgin is counted when a page is cached. Omits: large folios.
"""
from mmcore.alloc.page_alloc cimport alloc_pages_node, alloc_pages_run
from mmcore.alloc.page_free cimport free_pages_order
from mmcore.base.errors cimport E_NOMEM
from mmcore.base.gfp cimport GFP_WRITE_BIT
from mmcore.base.stat_items cimport VE_PGPGIN
from mmcore.base.vm_records cimport FILE_RA_RANDOM, FILE_RA_SEQUENTIAL, FILE_RAM, FILE_SHMEM, XNode
from mmcore.reclaim.lru cimport lru_add, lru_add_many
from mmcore.reclaim.page_cache cimport cache_insert, file_pages, index_prune, mapping_at
from mmcore.reclaim.workingset cimport workingset_refault
from mmcore.sys.charge cimport charge_folio
from mmcore.sys.index_nodes cimport index_leaf
from mmcore.vm.radix cimport (
    RADIX_MASK, RADIX_SLOTS, radix_leaf, radix_lookup, radix_mark, radix_next_absent, radix_run_before, slot_is_page, slot_is_shadow,
)
from mmcore.vm.vma cimport VM_HUGEPAGE, VM_RAND_READ, VM_SEQ_READ

cdef enum:
    GFP_READAHEAD = 0x112cca        # GFP_HIGHUSER_MOVABLE | NORETRY | NOWARN
    MMAP_LOTSAMISS = 100
    KIB_A_PAGE = 4
    HPAGE_PMD_NR = 512


cdef inline void count_reads(Mm* mm, const File* f, int64_t pages, unsigned gfp) noexcept nogil:
    # What the device gave. A page that is about to be written is not read, and files of memory have no device.
    if not f.flags & (FILE_SHMEM | FILE_RAM) and not gfp & GFP_WRITE_BIT:
        mm.vm.g.events[VE_PGPGIN] += KIB_A_PAGE * pages


cdef int64_t fill_one(Mm* mm, uint32_t file, uint64_t index, bint mark, unsigned gfp, unsigned cpu) noexcept nogil:
    # filemap_add_folio() of a new page, for a task of a group: charged, put into the index, onto the LRU. Its frame or -E_NOMEM.
    cdef uint32_t id_ = mm.vm.cpus[cpu].memcg
    cdef int64_t pfn = alloc_pages_node(mm, gfp, 0, cpu, -1, 0)
    cdef uint64_t old
    cdef XNode* leaf
    if pfn < 0:
        return -E_NOMEM
    if charge_folio(mm, <uint32_t>pfn, 0, id_, gfp, cpu) < 0:
        free_pages_order(mm, <uint32_t>pfn, 0, cpu)
        return -E_NOMEM
    leaf = index_leaf(mm, mapping_at(mm, file), index, gfp, cpu)
    if leaf == NULL:
        free_pages_order(mm, <uint32_t>pfn, 0, cpu)
        return -E_NOMEM
    old = cache_insert(mm, file, leaf, index, <uint32_t>pfn, mark)
    if slot_is_shadow(old) and not gfp & GFP_WRITE_BIT:
        workingset_refault(mm, <uint32_t>pfn, old, cpu)
    lru_add(mm, <uint32_t>pfn, cpu)
    count_reads(mm, mapping_at(mm, file), 1, gfp)
    return pfn


cdef int64_t fill_range(Mm* mm, uint32_t file, uint64_t first, uint64_t last, uint64_t mark, unsigned gfp, unsigned cpu) noexcept nogil:
    cdef File* f = mapping_at(mm, file)
    cdef uint32_t pfns[RADIX_SLOTS]
    cdef uint64_t index, old
    cdef int64_t want = 0, got, k = 0
    cdef XNode* leaf
    # reclaim takes clean pages of shmem away without a trace, and perhaps the leaf with them: no leaf is held over an allocation
    if mm.vm.cpus[cpu].memcg or f.flags & FILE_SHMEM:
        for index in range(first, last + 1):
            if not slot_is_page(radix_lookup(mm, f, index)):
                if fill_one(mm, file, index, index == mark, gfp, cpu) < 0:
                    return -1 - k
                k += 1
        return k
    leaf = index_leaf(mm, f, first, gfp, cpu)
    if leaf == NULL:
        return -1
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
        old = cache_insert(mm, file, leaf, index, pfns[k], index == mark)
        if slot_is_shadow(old) and not gfp & GFP_WRITE_BIT:
            workingset_refault(mm, pfns[k], old, cpu)
        k += 1
    if got:
        lru_add_many(mm, pfns, got, cpu)
        count_reads(mm, f, got, gfp)
    elif leaf.count == 0:
        index_prune(mm, f, leaf, cpu)
    return got if got == want else -1 - got


cdef uint64_t ra_pages(Mm* mm, const File* f) noexcept nogil:
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
    if start >= limit or n == 0:
        return 0
    if n > limit - start:
        n = limit - start
    if 0 < lookahead <= n:
        mark = start + n - lookahead
    end = start + n
    while at < end:
        last = (at | RADIX_MASK) if (at | RADIX_MASK) < end else end - 1
        got = fill_range(mm, file, at, last, mark, GFP_READAHEAD, cpu)
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


cdef void file_willneed(Mm* mm, uint32_t file, uint64_t first, uint64_t end, unsigned cpu) noexcept nogil:
    # force_page_cache_ra(): no window moves, no page is marked. Memory-backed files have nothing to read.
    if first < end and not mapping_at(mm, file).flags & (FILE_SHMEM | FILE_RAM):
        read_pages(mm, file, first, end - first, 0, cpu)
