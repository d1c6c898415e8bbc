# Dirty pages and pages under write-back, and the flusher's lists of files (mm/page-writeback.c, fs/fs-writeback.c). See writeback.pyx.

from libc.stdint cimport int64_t, uint32_t, uint64_t
from mmcore.base.flags cimport PG_anon, PG_dirty, PG_file, PG_swapbacked, PG_swapcache, PG_writeback
from mmcore.base.records cimport Mm, page_at
from mmcore.base.vm_records cimport FILE_RAM, FILE_SHMEM, WB_DIRTY, WB_IO, WB_MORE_IO, WB_NONE, Event, File

# What the flusher is doing.
cdef enum:
    WORK_NONE = 0
    WORK_ALL = 1                    # reclaim asked: everything that is dirty now
    WORK_PERIODIC = 2               # files that have been dirty for longer than vm.dirty_expire_centisecs
    WORK_BACKGROUND = 3             # until no more is dirty than the background threshold

# The file whose write-back a page takes part in (index + 1); 0: none (anonymous memory, tmpfs, ramfs).
cdef inline uint32_t dirty_file_of(Mm* mm, uint32_t pfn) noexcept nogil:
    cdef uint32_t flags = page_at(mm, pfn).flags, file
    if flags & (PG_anon | PG_file) != PG_file or flags & PG_swapbacked:
        return 0
    file = page_at(mm, pfn).private_
    if file == 0 or mm.vm.files[file - 1].flags & (FILE_SHMEM | FILE_RAM):
        return 0
    return file

# folio_mark_dirty(), whatever kind of page it is. Whether it was clean.
cdef bint folio_mark_dirty(Mm* mm, uint32_t pfn, unsigned cpu) noexcept nogil
# folio_clear_dirty_for_io(): the page is about to be written; whether it was dirty. The entries that map a file's page have been made clean and
# read-only by who calls (see flush_file). The same for a page that is dropped with what is in it (folio_cancel_dirty).
cdef bint folio_clear_dirty_for_io(Mm* mm, uint32_t pfn) noexcept nogil
cdef void folio_cancel_dirty(Mm* mm, uint32_t pfn) noexcept nogil
# Around its I/O, of swap too. The end rotates a page that reclaim met meanwhile, and wakes reclaimers that waited for enough of them.
cdef void folio_start_writeback(Mm* mm, uint32_t pfn) noexcept nogil
cdef void folio_end_writeback(Mm* mm, uint32_t pfn, unsigned cpu) noexcept nogil

# The I/O of a page is complete: what run/ does with an EV_IO_DONE event (for reads it counts only that the device has done it). A page whose
# write-back someone must wait for, before it is truncated say: complete now, the ns that the wait takes at most (its event finds another page).
cdef void end_page_io(Mm* mm, const Event* e) noexcept nogil
cdef int64_t folio_wait_writeback(Mm* mm, uint32_t pfn, unsigned cpu) noexcept nogil

# __mark_inode_dirty() for a clean file; a file that has nothing dirty left, or goes, leaves the lists.
cdef void mark_file_dirty(Mm* mm, uint32_t file) noexcept nogil
cdef void file_is_clean(Mm* mm, uint32_t file) noexcept nogil
cdef void file_leaves_writeback(Mm* mm, uint32_t file) noexcept nogil
cdef void wb_move(Mm* mm, uint32_t file, unsigned to, bint front) noexcept nogil
cdef inline bint wb_has_dirty_io(Mm* mm) noexcept nogil:
    return (mm.vm.g.wb_head[WB_DIRTY] | mm.vm.g.wb_head[WB_IO] | mm.vm.g.wb_head[WB_MORE_IO]) != 0

# The flusher wakes at `time_ns` or before, at once for background work (wb_start_background_writeback), at once for everything that is dirty
# (vmscan). Its next wake-up is g.wb_due_ns (0: none), of which there also is an EV_FLUSHER event.
cdef void wake_flusher_at(Mm* mm, int64_t time_ns) noexcept nogil
cdef void start_background_writeback(Mm* mm) noexcept nogil
cdef void wakeup_flusher_threads(Mm* mm) noexcept nogil

# Recounts the lists and their files: 0, or -1.
cdef int check_writeback(Mm* mm) noexcept nogil
