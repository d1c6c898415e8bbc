"""The states of a page on its way to a device, and the lists of files that have dirty pages.

Models: folio_mark_dirty, folio_account_dirtied, folio_account_cleaned, folio_clear_dirty_for_io, folio_cancel_dirty,
folio_start_writeback, folio_end_writeback, __acct_reclaim_writeback (mm/page-writeback.c, mm/filemap.c, mm/vmscan.c), __mark_inode_dirty,
the lists b_dirty, b_io and b_more_io, wb_wakeup_delayed, wakeup_flusher_threads (fs/fs-writeback.c), v6.12, for folios of one page. The
pages of tmpfs, ramfs and swap are dirty by their flag alone. Simplifies: one device writes all files, so one set of lists; lists stand
oldest first; a file is on a list exactly while it has dirty pages or is under the flusher's hand (the kernel also writes inodes
themselves). Omits: dirty inodes without dirty pages, groups' write-back, sync(2).
"""
from mmcore.base.clock cimport EV_FLUSHER, post_event
from mmcore.base.flags cimport PG_reclaim
from mmcore.base.records cimport Node
from mmcore.base.stat_items cimport (
    NS_NR_DIRTIED, NS_NR_DIRTY, NS_NR_THROTTLED_WRITTEN, NS_NR_WRITEBACK, NS_NR_WRITTEN, ZS_NR_ZONE_WRITE_PENDING,
)
from mmcore.base.vm_records cimport POOL_FILES, VmGlobals
from mmcore.phys.buddy cimport zone_of
from mmcore.phys.lruvec_stat cimport lruvec_stat_mod
from mmcore.reclaim.device cimport IO_FAILED, IO_WRITE, device_busy_ns, device_complete, page_io_tag
from mmcore.reclaim.lru cimport lru_rotate

cdef enum:
    THROTTLE_PAGES = 32             # SWAP_CLUSTER_MAX, for each reclaimer that waits


cdef inline void write_pending(Mm* mm, uint32_t pfn, int64_t n) noexcept nogil:
    mm.zones[zone_of(mm, pfn) - 1].vm_stat[ZS_NR_ZONE_WRITE_PENDING] += n


cdef inline Node* node_of(Mm* mm, uint32_t pfn) noexcept nogil:
    return &mm.nodes[mm.zones[zone_of(mm, pfn) - 1].node]


# ---------------------------------------------------------------- pages

cdef bint folio_mark_dirty(Mm* mm, uint32_t pfn, unsigned cpu) noexcept nogil:
    cdef uint32_t file = dirty_file_of(mm, pfn)
    if page_at(mm, pfn).flags & (PG_file | PG_swapcache):
        # written again: no candidate for being freed first any longer
        page_at(mm, pfn).flags &= ~<uint32_t>PG_reclaim
    if page_at(mm, pfn).flags & PG_dirty:
        return False
    page_at(mm, pfn).flags |= PG_dirty
    if file:
        lruvec_stat_mod(mm, pfn, NS_NR_DIRTY, 1)
        write_pending(mm, pfn, 1)
        node_of(mm, pfn).vm_stat[NS_NR_DIRTIED] += 1
        mm.vm.files[file - 1].nr_dirty += 1
        mm.vm.cpus[cpu].nr_dirtied += 1
        mark_file_dirty(mm, file)
    return True


cdef void account_cleaned(Mm* mm, uint32_t pfn) noexcept nogil:
    cdef uint32_t file = dirty_file_of(mm, pfn)
    if file:
        lruvec_stat_mod(mm, pfn, NS_NR_DIRTY, -1)
        write_pending(mm, pfn, -1)
        mm.vm.files[file - 1].nr_dirty -= 1


cdef bint folio_clear_dirty_for_io(Mm* mm, uint32_t pfn) noexcept nogil:
    if not page_at(mm, pfn).flags & PG_dirty:
        return False
    page_at(mm, pfn).flags &= ~<uint32_t>PG_dirty
    account_cleaned(mm, pfn)
    return True


cdef void folio_cancel_dirty(Mm* mm, uint32_t pfn) noexcept nogil:
    cdef uint32_t file = dirty_file_of(mm, pfn)
    if folio_clear_dirty_for_io(mm, pfn) and file and mm.vm.files[file - 1].nr_dirty == 0 and mm.vm.g.wb_file != file:
        file_is_clean(mm, file)


cdef void folio_start_writeback(Mm* mm, uint32_t pfn) noexcept nogil:
    cdef uint32_t file
    if page_at(mm, pfn).flags & PG_writeback:
        return
    page_at(mm, pfn).flags |= PG_writeback
    lruvec_stat_mod(mm, pfn, NS_NR_WRITEBACK, 1)
    write_pending(mm, pfn, 1)
    file = dirty_file_of(mm, pfn)
    if file:
        mm.vm.files[file - 1].nr_writeback += 1


cdef void folio_end_writeback(Mm* mm, uint32_t pfn, unsigned cpu) noexcept nogil:
    cdef Node* n = node_of(mm, pfn)
    cdef uint32_t file
    if not page_at(mm, pfn).flags & PG_writeback:
        return
    if page_at(mm, pfn).flags & PG_reclaim:
        page_at(mm, pfn).flags &= ~<uint32_t>PG_reclaim
        lru_rotate(mm, pfn, cpu)
    page_at(mm, pfn).flags &= ~<uint32_t>PG_writeback
    lruvec_stat_mod(mm, pfn, NS_NR_WRITEBACK, -1)
    write_pending(mm, pfn, -1)
    n.vm_stat[NS_NR_WRITTEN] += 1
    file = dirty_file_of(mm, pfn)
    if file:
        mm.vm.files[file - 1].nr_writeback -= 1
    if n.nr_writeback_throttled:
        n.vm_stat[NS_NR_THROTTLED_WRITTEN] += 1
        if (n.vm_stat[NS_NR_THROTTLED_WRITTEN] - n.nr_reclaim_start > <int64_t>THROTTLE_PAGES * n.nr_writeback_throttled
                and n.throttle_until_ns > mm.g.now_ns):
            n.throttle_until_ns = mm.g.now_ns


# ---------------------------------------------------------------- files

cdef void wb_move(Mm* mm, uint32_t file, unsigned to, bint front) noexcept nogil:
    cdef VmGlobals* g = mm.vm.g
    cdef File* f = &mm.vm.files[file - 1]
    if f.wb_list != WB_NONE:
        if f.wb_prev:
            mm.vm.files[f.wb_prev - 1].wb_next = f.wb_next
        else:
            g.wb_head[f.wb_list] = f.wb_next
        if f.wb_next:
            mm.vm.files[f.wb_next - 1].wb_prev = f.wb_prev
        else:
            g.wb_tail[f.wb_list] = f.wb_prev
    f.wb_list = to
    f.wb_prev = 0
    f.wb_next = 0
    if to == WB_NONE:
        return
    if front:
        f.wb_next = g.wb_head[to]
        if f.wb_next:
            mm.vm.files[f.wb_next - 1].wb_prev = file
        else:
            g.wb_tail[to] = file
        g.wb_head[to] = file
    else:
        f.wb_prev = g.wb_tail[to]
        if f.wb_prev:
            mm.vm.files[f.wb_prev - 1].wb_next = file
        else:
            g.wb_head[to] = file
        g.wb_tail[to] = file


cdef void file_is_clean(Mm* mm, uint32_t file) noexcept nogil:
    wb_move(mm, file, WB_NONE, False)
    mm.vm.files[file - 1].dirtied_when_ns = 0


cdef void mark_file_dirty(Mm* mm, uint32_t file) noexcept nogil:
    cdef File* f = &mm.vm.files[file - 1]
    cdef bint first
    if f.wb_list != WB_NONE or mm.vm.g.wb_file == file:
        return
    first = not wb_has_dirty_io(mm) and mm.vm.g.wb_work == WORK_NONE
    f.dirtied_when_ns = mm.g.now_ns
    wb_move(mm, file, WB_DIRTY, False)
    if first and mm.vm.g.dirty_writeback_centisecs > 0:
        wake_flusher_at(mm, mm.g.now_ns + mm.vm.g.dirty_writeback_centisecs * 10000000)


cdef void file_leaves_writeback(Mm* mm, uint32_t file) noexcept nogil:
    file_is_clean(mm, file)
    mm.vm.files[file - 1].writeback_index = 0
    if mm.vm.g.wb_file == file:
        mm.vm.g.wb_file = 0
        mm.vm.g.wb_turn = 0


# ---------------------------------------------------------------- the end of I/O

cdef void end_page_io(Mm* mm, const Event* e) noexcept nogil:
    cdef uint32_t pfn = <uint32_t>e.a, device = <uint32_t>e.b
    cdef unsigned how = <unsigned>(e.b >> 32) & 0xff, cpu = <unsigned>(e.b >> 40)
    device_complete(mm, device, 1)
    if pfn >= mm.g.nr_pages or cpu >= mm.g.nr_cpus or not how & IO_WRITE or not page_at(mm, pfn).flags & PG_writeback:
        return
    if page_io_tag(mm, pfn) != e.a >> 32:
        # the page was taken out of its file meanwhile, and is another one's
        return
    if how & IO_FAILED and page_at(mm, pfn).flags & PG_swapcache:
        # end_swap_bio_write(): what could not be written stays in memory; of a file it is lost
        folio_mark_dirty(mm, pfn, cpu)
        page_at(mm, pfn).flags &= ~<uint32_t>PG_reclaim
    folio_end_writeback(mm, pfn, cpu)


cdef int64_t folio_wait_writeback(Mm* mm, uint32_t pfn, unsigned cpu) noexcept nogil:
    cdef uint32_t device
    if not page_at(mm, pfn).flags & PG_writeback:
        return 0
    # its owner is taking it away: no use in putting it first
    page_at(mm, pfn).flags &= ~<uint32_t>PG_reclaim
    device = mm.vm.g.file_device if dirty_file_of(mm, pfn) else 0
    folio_end_writeback(mm, pfn, cpu)
    return device_busy_ns(mm, device)


# ---------------------------------------------------------------- waking the flusher

cdef void wake_flusher_at(Mm* mm, int64_t time_ns) noexcept nogil:
    cdef VmGlobals* g = mm.vm.g
    if time_ns < 1:
        time_ns = 1
    if g.wb_due_ns and g.wb_due_ns <= time_ns:
        return
    g.wb_due_ns = time_ns
    # an event of a later time finds that it is not the one that is waited for; with a full queue run/ still looks at wb_due_ns
    post_event(mm, time_ns, EV_FLUSHER, 0, 0)


cdef void start_background_writeback(Mm* mm) noexcept nogil:
    if wb_has_dirty_io(mm) or mm.vm.g.wb_file:
        wake_flusher_at(mm, mm.g.now_ns)


cdef void wakeup_flusher_threads(Mm* mm) noexcept nogil:
    if wb_has_dirty_io(mm) or mm.vm.g.wb_file:
        mm.vm.g.wb_start_all = 1
        wake_flusher_at(mm, mm.g.now_ns)


cdef int check_writeback(Mm* mm) noexcept nogil:
    cdef VmGlobals* g = mm.vm.g
    cdef uint32_t used = mm.vm.pools[POOL_FILES].used, list_, x, prev, k, listed = 0, on = 0
    for list_ in range(4):
        prev = 0
        x = g.wb_head[list_]
        if list_ == WB_NONE and (x or g.wb_tail[list_]):
            return -1
        while x:
            if x > used or mm.vm.files[x - 1].wb_list != list_ or mm.vm.files[x - 1].wb_prev != prev or listed == used:
                return -1
            listed += 1
            prev = x
            x = mm.vm.files[x - 1].wb_next
        if g.wb_tail[list_] != prev:
            return -1
    for k in range(used):
        if mm.vm.files[k].id == 0:
            continue
        if mm.vm.files[k].wb_list != WB_NONE:
            on += 1
        elif mm.vm.files[k].nr_dirty and g.wb_file != k + 1:
            return -1
    if on != listed or g.wb_file > used or g.wb_work > WORK_BACKGROUND:
        return -1
    return 0
