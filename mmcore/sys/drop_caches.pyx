"""vm.drop_caches: clean pages of files go, whatever their age.

Models: drop_caches_sysctl_handler, drop_pagecache_sb, invalidate_mapping_pages (fs/drop_caches.c, mm/truncate.c, v6.12): all CPUs' batches
are drained first; a page that is mapped, dirty, under write-back or held by someone stays, and goes to the tail of the inactive list
when it stands on the active one (deactivate_file_folio). Simplifies: files in the order of their records. Omits: inodes and dentries,
which no room models, so 2 counts the event and frees nothing.
"""
from libc.stdint cimport int64_t, uint32_t, uint64_t
from mmcore.base.args cimport as_int
from mmcore.base.flags cimport PG_dirty, PG_meta, PG_writeback
from mmcore.base.records cimport Mm, meta_at, page_at
from mmcore.base.stat_items cimport VE_DROP_PAGECACHE, VE_DROP_SLAB
from mmcore.base.state cimport State, state_lock, state_unlock
from mmcore.base.vm_records cimport FILE_RAM, FILE_SHMEM, File, POOL_FILES
from mmcore.reclaim.lru cimport lru_add_drain_all, lru_deactivate_file
from mmcore.sys.filemap cimport filemap_drop_range
from mmcore.vm.radix cimport radix_next, slot_is_page, slot_pfn


cdef int64_t drop_pagecache(Mm* mm, unsigned cpu) noexcept nogil:
    cdef uint32_t x, pfn
    cdef uint64_t at
    cdef uint64_t* slot
    cdef int64_t n = 0
    cdef File* f
    lru_add_drain_all(mm)
    for x in range(1, mm.vm.pools[POOL_FILES].used + 1):
        f = &mm.vm.files[x - 1]
        if f.id == 0 or f.nr_pages == 0 or f.flags & (FILE_SHMEM | FILE_RAM):
            continue
        n += filemap_drop_range(mm, x, 0, <uint64_t>1 << 52, False, cpu, NULL)
        # what could not be dropped, will not be needed soon
        at = 0
        while f.nr_pages:
            slot = radix_next(mm, f, &at, <uint64_t>-1)
            if slot == NULL:
                break
            if slot_is_page(slot[0]):
                pfn = slot_pfn(slot[0])
                if page_at(mm, pfn).flags & (PG_dirty | PG_writeback) or (page_at(mm, pfn).flags & PG_meta and meta_at(mm, pfn).mapcount):
                    lru_deactivate_file(mm, pfn, cpu)
            at += 1
    mm.vm.g.events[VE_DROP_PAGECACHE] += 1
    return n


def drop_caches(State state not None, what, cpu=0):
    """1: page cache, 2: slab, 3: both. Pages that were freed."""
    cdef int which = <int>as_int(what, "what", 1, 3)
    cdef unsigned c = <unsigned>as_int(cpu, "cpu", 0, state.c.g.nr_cpus - 1)
    cdef int64_t n = 0
    state_lock(state)
    with nogil:
        if which & 1:
            n = drop_pagecache(&state.c, c)
        if which & 2:
            state.c.vm.g.events[VE_DROP_SLAB] += 1
    state_unlock(state)
    return n
