"""The flusher: one worker that writes dirty pages of files to their device.

Models: wb_workfn, wb_do_writeback, wb_check_start_all, wb_check_old_data_flush, wb_check_background_flush, wb_writeback,
writeback_sb_inodes, writeback_chunk_size, queue_io, requeue_inode (fs/fs-writeback.c, v6.12): everything when reclaim asks, files dirty
for longer than vm.dirty_expire_centisecs every vm.dirty_writeback_centisecs, and in the background while more is dirty than the
threshold; oldest file first, a turn of at least 1024 pages each. Simplifies: one worker for all files; what it does itself takes no time,
it only waits for room in the device's queue (a kernel's writer sleeps for a request there). Omits: sync, laptop mode, groups.
"""
from libc.stdint cimport int64_t, uint32_t

from mmcore.base.args cimport as_int
from mmcore.base.stat_items cimport NS_NR_DIRTY
from mmcore.base.state cimport State, state_lock, state_unlock
from mmcore.base.vm_records cimport Device, File, VmGlobals, WB_DIRTY, WB_IO, WB_MORE_IO, WB_NONE
from mmcore.reclaim.dirty_limits cimport DirtyLimits, global_dirty_limits, over_background_thresh, wb_estimate_start, wb_update_bandwidth
from mmcore.reclaim.device cimport device_at, device_congested
from mmcore.reclaim.flush_file cimport write_some_pages
from mmcore.reclaim.writeback cimport (
    WORK_ALL, WORK_BACKGROUND, WORK_NONE, WORK_PERIODIC, file_is_clean, wake_flusher_at, wakeup_flusher_threads, wb_has_dirty_io, wb_move,
)

cdef enum:
    TICK_NS = 4000000
    MIN_TURN = 1024                 # MIN_WRITEBACK_PAGES: 4 MiB
    SCOPE = 8                       # DIRTY_SCOPE

cdef extern from *:
    """
    #define MM_ALL_PAGES INT64_MAX
    """
    const int64_t ALL_PAGES "MM_ALL_PAGES"


cdef int64_t nr_dirty(Mm* mm) noexcept nogil:
    cdef uint32_t n
    cdef int64_t x = 0
    for n in range(mm.g.nr_nodes):
        x += mm.nodes[n].vm_stat[NS_NR_DIRTY]
    return x if x > 0 else 0


cdef void begin(Mm* mm, unsigned work, int64_t pages, int64_t before) noexcept nogil:
    mm.vm.g.wb_work = work
    mm.vm.g.wb_left = pages
    mm.vm.g.wb_dirtied_before_ns = before


cdef void choose_work(Mm* mm, bint* background) noexcept nogil:
    # The kinds in their order; background work at most once each time the flusher wakes.
    cdef VmGlobals* g = mm.vm.g
    cdef int64_t interval = g.dirty_writeback_centisecs * 10000000, pages
    if g.wb_start_all:
        begin(mm, WORK_ALL, nr_dirty(mm), mm.g.now_ns)
        return
    if interval > 0 and mm.g.now_ns >= g.wb_last_old_flush_ns + interval:
        g.wb_last_old_flush_ns = mm.g.now_ns
        pages = nr_dirty(mm)
        if pages:
            begin(mm, WORK_PERIODIC, pages, mm.g.now_ns - g.dirty_expire_centisecs * 10000000)
            return
    if not background[0] and over_background_thresh(mm):
        background[0] = True
        begin(mm, WORK_BACKGROUND, ALL_PAGES, mm.g.now_ns)


cdef void queue_io(Mm* mm) noexcept nogil:
    # Those whose turn was over come first, then what is old enough, oldest first.
    cdef VmGlobals* g = mm.vm.g
    while g.wb_head[WB_MORE_IO]:
        wb_move(mm, g.wb_head[WB_MORE_IO], WB_IO, False)
    while g.wb_head[WB_DIRTY] and mm.vm.files[g.wb_head[WB_DIRTY] - 1].dirtied_when_ns <= g.wb_dirtied_before_ns:
        wb_move(mm, g.wb_head[WB_DIRTY], WB_IO, False)


cdef bint next_file(Mm* mm, int64_t* progress) noexcept nogil:
    # Whose turn it is; False: the work is done.
    cdef VmGlobals* g = mm.vm.g
    cdef int64_t chunk
    if g.wb_left <= 0 or (g.wb_work != WORK_ALL and g.wb_start_all):
        return False
    if g.wb_work == WORK_BACKGROUND and not over_background_thresh(mm):
        return False
    if g.wb_head[WB_IO] == 0:
        if progress[0] == 0:
            return False
        progress[0] = 0
        queue_io(mm)
        if g.wb_head[WB_IO] == 0:
            return False
    g.wb_file = g.wb_head[WB_IO]
    wb_move(mm, g.wb_file, WB_NONE, False)
    chunk = g.wb_avg_bandwidth // 2
    if chunk > g.dirty_limit // SCOPE:
        chunk = g.dirty_limit // SCOPE
    if chunk > g.wb_left:
        chunk = g.wb_left
    g.wb_turn = (chunk + MIN_TURN) // MIN_TURN * MIN_TURN
    return True


cdef void turn_is_over(Mm* mm) noexcept nogil:
    # requeue_inode()
    cdef VmGlobals* g = mm.vm.g
    cdef uint32_t file = g.wb_file
    cdef File* f = &mm.vm.files[file - 1]
    g.wb_file = 0
    if f.nr_dirty == 0:
        file_is_clean(mm, file)
    elif g.wb_turn <= 0:
        wb_move(mm, file, WB_MORE_IO, False)
    else:
        # what is left was dirtied meanwhile, or is still being written
        f.dirtied_when_ns = mm.g.now_ns
        wb_move(mm, file, WB_DIRTY, False)
    g.wb_turn = 0


cdef int64_t room_at(Mm* mm) noexcept nogil:
    # When the device will have completed something.
    cdef Device* d = device_at(mm, mm.vm.g.file_device)
    cdef int64_t t = 0
    cdef unsigned k
    for k in range(d.depth):
        if d.busy_until[k] > mm.g.now_ns and (t == 0 or d.busy_until[k] < t):
            t = d.busy_until[k]
    return t if t else mm.g.now_ns + TICK_NS


cdef void flusher_step(Mm* mm, unsigned cpu) noexcept nogil:
    cdef VmGlobals* g = mm.vm.g
    cdef int64_t n, progress = 1
    cdef bint background = False, done
    cdef DirtyLimits d
    if g.wb_due_ns == 0 or g.wb_due_ns > mm.g.now_ns:
        return
    g.wb_due_ns = 0
    wb_estimate_start(mm)
    while True:
        if g.wb_work == WORK_NONE:
            choose_work(mm, &background)
            if g.wb_work == WORK_NONE:
                break
            progress = 1
        if g.wb_file == 0 and not next_file(mm, &progress):
            if g.wb_work == WORK_ALL:
                g.wb_start_all = 0
            g.wb_work = WORK_NONE
            g.wb_left = 0
            g.wb_dirtied_before_ns = 0
            continue
        n = write_some_pages(mm, g.wb_file, g.wb_turn, cpu, &done)
        progress += n
        g.wb_turn -= n
        if g.wb_left != ALL_PAGES:
            g.wb_left -= n
        if g.wb_turn > 0 and not done and device_congested(mm, g.file_device):
            wake_flusher_at(mm, room_at(mm))
            return
        turn_is_over(mm)
        global_dirty_limits(mm, &d)
        d.dirty += d.writeback
        wb_update_bandwidth(mm, &d, d.dirty)
    if wb_has_dirty_io(mm) and g.dirty_writeback_centisecs > 0:
        wake_flusher_at(mm, mm.g.now_ns + g.dirty_writeback_centisecs * 10000000)


# ---------------------------------------------------------------- entries from Python

def step(State state not None, cpu=0):
    """Let the flusher do what is due now; when it wants to go on, in ns (None: not of itself)."""
    cdef unsigned c = <unsigned>as_int(cpu, "cpu", 0, state.c.g.nr_cpus - 1)
    state_lock(state)
    with nogil:
        flusher_step(&state.c, c)
    state_unlock(state)
    return state.c.vm.g.wb_due_ns or None


def wake(State state not None):
    """What reclaim does when it meets nothing but dirty pages: everything that is dirty now is written (wakeup_flusher_threads)."""
    state_lock(state)
    wakeup_flusher_threads(&state.c)
    state_unlock(state)
