"""How much memory may be dirty, and how long those wait who dirty more.

Models: global_dirtyable_memory, domain_dirty_limits, node_dirty_ok, wb_position_ratio, wb_update_dirty_ratelimit,
wb_update_write_bandwidth, update_dirty_limit, wb_max_pause, wb_min_pause, dirty_poll_interval and the decisions of balance_dirty_pages
(mm/page-writeback.c, v6.12) for one write-back domain and one device that has all of its bandwidth. Simplifies: nothing else writes, so
the device's share of the threshold is the threshold; what is dirty on the device is what is dirty or under write-back on the machine
(swap-out's included); the counters are exact sums. Omits: groups' own domains, strict limits, min_ratio and max_ratio, real-time tasks'
extra quarter, laptop mode, the per-CPU count that polls tasks which together dirty much.
"""
from mmcore.base.args cimport as_int
from mmcore.base.records cimport NR_FREE_PAGES, WMARK_HIGH, Node, Zone
from mmcore.base.state cimport State, state_enter, state_leave
from mmcore.base.stat_items cimport (
    NS_NR_ACTIVE_FILE, NS_NR_DIRTIED, NS_NR_DIRTY, NS_NR_INACTIVE_FILE, NS_NR_WRITEBACK, NS_NR_WRITTEN, ZS_NR_ZONE_ACTIVE_FILE,
    ZS_NR_ZONE_INACTIVE_FILE,
)
from mmcore.base.vm_records cimport Cpu, VmGlobals

cdef enum:
    TICK_NS = 4000000
    PAGE_BYTES = 4096
    FIRST_PAUSE = 32                # 128 KiB: nr_dirtied_pause of a new task
    POLL_THRESH = 32                # DIRTY_POLL_THRESH
    EXCEEDED_PAUSE = 8              # 32 KiB: while the threshold is exceeded
    RATIO_MAX = 1 << 20             # so that products fit: a ratio of 1024, which only an absurdly slow device reaches


cdef inline int64_t ilog2(int64_t x) noexcept nogil:
    cdef int64_t n = -1
    while x > 0:
        x >>= 1
        n += 1
    return n if n > 0 else 0


cdef inline int64_t at_least(int64_t x, int64_t low) noexcept nogil:
    return x if x > low else low


cdef inline int64_t at_most(int64_t x, int64_t high) noexcept nogil:
    return x if x < high else high


# ---------------------------------------------------------------- limits

cdef int64_t node_sum(Mm* mm, unsigned item) noexcept nogil:
    cdef uint32_t n
    cdef int64_t x = 0
    for n in range(mm.g.nr_nodes):
        x += mm.nodes[n].vm_stat[item]
    return at_least(x, 0)


cdef int64_t dirtyable_memory(Mm* mm) noexcept nogil:
    # Of highmem nothing counts (vm.highmem_is_dirtyable is 0), but the reserves come off first.
    cdef int64_t free = 0, high = 0, pages
    cdef uint32_t zi
    cdef Zone* z
    for zi in range(mm.g.nr_zones):
        z = &mm.zones[zi]
        free += z.vm_stat[NR_FREE_PAGES]
        if z.zid == mm.g.zid_highmem and mm.g.zid_highmem != mm.g.zid_normal and z.present:
            high += at_least(z.vm_stat[NR_FREE_PAGES] - z.wmark[WMARK_HIGH], 0)
            high += z.vm_stat[ZS_NR_ZONE_INACTIVE_FILE] + z.vm_stat[ZS_NR_ZONE_ACTIVE_FILE]
    pages = at_least(free - mm.g.totalreserve_pages, 0) + node_sum(mm, NS_NR_INACTIVE_FILE) + node_sum(mm, NS_NR_ACTIVE_FILE)
    return pages - at_most(high, pages) + 1


cdef inline int64_t threshold(int64_t bytes_, int64_t ratio, int64_t dirtyable) noexcept nogil:
    if bytes_:
        return bytes_ // PAGE_BYTES + (1 if bytes_ % PAGE_BYTES else 0)
    return ratio * PAGE_BYTES // 100 * dirtyable // PAGE_BYTES


cdef void limits_of(VmGlobals* g, int64_t dirtyable, DirtyLimits* out) noexcept nogil:
    out.dirtyable = dirtyable
    out.thresh = threshold(g.dirty_bytes, g.dirty_ratio, dirtyable)
    out.bg = threshold(g.dirty_background_bytes, g.dirty_background_ratio, dirtyable)
    if out.bg >= out.thresh:
        out.bg = out.thresh // 2
    out.freerun = (out.thresh + out.bg) // 2


cdef void global_dirty_limits(Mm* mm, DirtyLimits* out) noexcept nogil:
    limits_of(mm.vm.g, dirtyable_memory(mm), out)
    out.dirty = node_sum(mm, NS_NR_DIRTY)
    out.writeback = node_sum(mm, NS_NR_WRITEBACK)


cdef bint over_background_thresh(Mm* mm) noexcept nogil:
    cdef DirtyLimits d
    global_dirty_limits(mm, &d)
    return d.dirty > d.bg


cdef bint node_dirty_ok(Mm* mm, uint32_t node) noexcept nogil:
    cdef Node* n = &mm.nodes[node]
    cdef int64_t free = 0, memory
    cdef uint32_t zi
    for zi in range(mm.g.nr_zones):
        if mm.zones[zi].node == node:
            free += mm.zones[zi].vm_stat[NR_FREE_PAGES]
    memory = at_least(free - n.totalreserve_pages, 0) + n.vm_stat[NS_NR_INACTIVE_FILE] + n.vm_stat[NS_NR_ACTIVE_FILE]
    if mm.vm.g.dirty_bytes:
        memory = threshold(mm.vm.g.dirty_bytes, 0, 0) * memory // at_least(dirtyable_memory(mm), 1)
    else:
        memory = mm.vm.g.dirty_ratio * memory // 100
    return n.vm_stat[NS_NR_DIRTY] + n.vm_stat[NS_NR_WRITEBACK] <= memory


# ---------------------------------------------------------------- rates

cdef int64_t pos_ratio_polynom(int64_t setpoint, int64_t dirty, int64_t limit) noexcept nogil:
    # 1 + ((setpoint - dirty) / (limit - setpoint))^3, in 0..2; rounding towards zero, then downwards, as the kernel's
    cdef int64_t x = ((setpoint - dirty) << RATELIMIT_SHIFT) // ((limit - setpoint) | 1), y
    x = at_most(at_least(x, -4096), 4096)       # beyond these the result stands anyway
    y = x * x >> RATELIMIT_SHIFT
    y = (y * x >> RATELIMIT_SHIFT) + (1 << RATELIMIT_SHIFT)
    return at_most(at_least(y, 0), 2 << RATELIMIT_SHIFT)


cdef int64_t position_ratio(int64_t thresh, int64_t freerun, int64_t limit, int64_t dirty, int64_t wb_dirty, int64_t write_bw) noexcept nogil:
    cdef int64_t setpoint, ratio, wb_thresh = thresh, wb_setpoint, span, end, x
    if dirty >= limit:
        return 0
    setpoint = (freerun + limit) // 2
    ratio = pos_ratio_polynom(setpoint, dirty, limit)
    # the device's own line: from its set point down to a quarter, a little beyond what it writes in 8 seconds
    wb_thresh = at_least(wb_thresh, (limit - dirty) // 8)
    x = (wb_thresh << 16) // (thresh | 1)
    wb_setpoint = setpoint * x >> 16
    span = (thresh - wb_thresh + 8 * write_bw) * x >> 16
    end = wb_setpoint + span
    if wb_dirty < end - span // 4:
        ratio = ratio * (end - wb_dirty) // ((end - wb_setpoint) | 1)
    else:
        ratio //= 4
    ratio = at_most(ratio, RATIO_MAX)
    # with little queued for it the device must not run dry
    end = wb_thresh // 2
    if wb_dirty < end:
        ratio = ratio * end // wb_dirty if wb_dirty > end // 8 else ratio * 8
    return ratio


cdef int64_t dirty_poll_interval(int64_t dirty, int64_t thresh) noexcept nogil:
    return <int64_t>1 << (ilog2(thresh - dirty) >> 1) if thresh > dirty else 1


cdef int64_t wb_max_pause(int64_t wb_dirty, int64_t avg_bw) noexcept nogil:
    # so that the device is still busy at the end of it: 32 = 2^k >= 1 + HZ / 8
    return at_most(wb_dirty // (1 + avg_bw // 32) + 1, MAX_PAUSE)


cdef void wb_min_pause(int64_t max_pause, int64_t task_ratelimit, int64_t dirty_ratelimit, int64_t write_bw, Pause* out) noexcept nogil:
    # about 10 ms, more with many tasks (2^k of them: 10 ms more for each k), 256 = 2^k >= HZ
    cdef int64_t hi = ilog2(write_bw), lo = ilog2(dirty_ratelimit), t = HZ // 100, pages
    if hi > lo:
        t += (hi - lo) * (10 * HZ) // 1024
    t = at_most(t, 1 + max_pause // 2)
    pages = dirty_ratelimit * t // 256
    if pages < POLL_THRESH:
        t = max_pause
        pages = dirty_ratelimit * t // 256
        if pages > POLL_THRESH:
            pages = POLL_THRESH
            t = HZ * POLL_THRESH // at_least(dirty_ratelimit, 1)
    if HZ * pages // (task_ratelimit + 1) > max_pause:
        t = max_pause
        pages = task_ratelimit * t // 256
    out.max_pause = max_pause
    out.nr_dirtied_pause = pages
    out.min_pause = 1 + t // 2 if pages >= POLL_THRESH else t


cdef void update_write_bandwidth(VmGlobals* g, int64_t elapsed, int64_t written) noexcept nogil:
    # A mean over 3 s (1024 ticks), and a smoother one that follows only if both point the same way.
    cdef int64_t bw = at_least(written - g.wb_written_stamp, 0) * HZ, old = g.wb_bandwidth, avg = g.wb_avg_bandwidth
    if elapsed > 1024:
        bw //= elapsed
        avg = bw
    else:
        bw = (bw + old * (1024 - elapsed)) >> 10
        if avg > old and old >= bw:
            avg -= (avg - old) >> 3
        if avg < old and old <= bw:
            avg += (old - avg) >> 3
    g.wb_avg_bandwidth = at_least(avg, 1)
    g.wb_bandwidth = bw


cdef void update_dirty_ratelimit(VmGlobals* g, DirtyLimits* d, int64_t wb_dirty, int64_t elapsed, int64_t dirtied) noexcept nogil:
    cdef int64_t limit = at_least(d.thresh, g.dirty_limit), rate, ratio, task, balanced, x, step = 0, shift
    cdef int64_t setpoint = (d.freerun + limit) // 2, now = g.wb_ratelimit
    ratio = position_ratio(d.thresh, d.freerun, limit, d.dirty, wb_dirty, g.wb_avg_bandwidth)
    rate = at_least(dirtied - g.wb_dirtied_stamp, 0) * HZ // elapsed
    task = (now * ratio >> RATELIMIT_SHIFT) + 1
    # what tasks may dirty at so that together they dirty as fast as the device writes
    balanced = at_most(task * g.wb_bandwidth // (rate | 1), g.wb_bandwidth)
    if d.dirty < setpoint:
        x = at_most(at_most(g.wb_balanced_ratelimit, balanced), task)
        if now < x:
            step = x - now
    else:
        x = at_least(at_least(g.wb_balanced_ratelimit, balanced), task)
        if now > x:
            step = now - x
    # small steps are not worth following
    shift = now // (2 * step + 1)
    step = ((step >> shift) + 7) // 8 if shift < 64 else 0
    now = now + step if now < balanced else now - step
    g.wb_ratelimit = at_least(now, 1)
    g.wb_balanced_ratelimit = balanced


cdef void wb_update_bandwidth(Mm* mm, DirtyLimits* d, int64_t wb_dirty) noexcept nogil:
    cdef VmGlobals* g = mm.vm.g
    cdef int64_t now = mm.g.now_ns, elapsed = (now - g.wb_stamp_ns) // TICK_NS, dirtied, written, thresh
    if now - g.wb_stamp_ns < BANDWIDTH_INTERVAL_NS:
        return
    dirtied = node_sum(mm, NS_NR_DIRTIED)
    written = node_sum(mm, NS_NR_WRITTEN)
    if now - g.dirty_limit_stamp_ns >= BANDWIDTH_INTERVAL_NS:
        # up at once, down by a thirty-second each time
        thresh = at_least(d.thresh, d.dirty)
        if g.dirty_limit < d.thresh:
            g.dirty_limit = d.thresh
        elif g.dirty_limit > thresh:
            g.dirty_limit -= (g.dirty_limit - thresh) >> 5
        g.dirty_limit_stamp_ns = now
    update_dirty_ratelimit(g, d, wb_dirty, elapsed, dirtied)
    update_write_bandwidth(g, elapsed, written)
    g.wb_dirtied_stamp = dirtied
    g.wb_written_stamp = written
    g.wb_stamp_ns = now


cdef void wb_estimate_start(Mm* mm) noexcept nogil:
    cdef VmGlobals* g = mm.vm.g
    if mm.g.now_ns - g.wb_stamp_ns > BANDWIDTH_INTERVAL_NS:
        g.wb_dirtied_stamp = node_sum(mm, NS_NR_DIRTIED)
        g.wb_written_stamp = node_sum(mm, NS_NR_WRITTEN)
        g.wb_stamp_ns = mm.g.now_ns


# ---------------------------------------------------------------- who dirties pages

cdef int64_t balance_dirty_pages(Mm* mm, unsigned cpu, bint* wake) noexcept nogil:
    cdef VmGlobals* g = mm.vm.g
    cdef Cpu* c = &mm.vm.cpus[cpu]
    cdef DirtyLimits d
    cdef Pause p
    cdef int64_t limit, ratio, rate, period, pause, wb_dirty, ratelimit, pages = c.nr_dirtied, now = mm.g.now_ns // TICK_NS
    wake[0] = False
    if c.nr_dirtied_pause == 0:
        c.nr_dirtied_pause = FIRST_PAUSE
    ratelimit = c.nr_dirtied_pause
    if pages < (ratelimit if ratelimit < EXCEEDED_PAUSE else EXCEEDED_PAUSE):
        return 0
    global_dirty_limits(mm, &d)
    wb_dirty = d.dirty + d.writeback
    # background write-back begins by what is dirty; all the rest goes by that and what is on its way
    wake[0] = d.dirty > d.bg
    d.dirty += d.writeback
    if pages < ratelimit and not d.dirty > d.thresh:
        wake[0] = False
        return 0
    if d.dirty <= d.freerun:
        c.dirty_paused_ns = mm.g.now_ns
        c.nr_dirtied = 0
        c.nr_dirtied_pause = <uint32_t>dirty_poll_interval(d.dirty, d.thresh)
        return 0
    wb_update_bandwidth(mm, &d, wb_dirty)
    limit = at_least(d.thresh, g.dirty_limit)
    ratio = position_ratio(d.thresh, d.freerun, limit, d.dirty, wb_dirty, g.wb_avg_bandwidth)
    rate = g.wb_ratelimit * ratio >> RATELIMIT_SHIFT
    wb_min_pause(wb_max_pause(wb_dirty, g.wb_avg_bandwidth), rate, g.wb_ratelimit, g.wb_avg_bandwidth, &p)
    if rate == 0:
        # no one dirties anything until something has been written; asked again at once after the wait
        c.dirty_paused_ns = mm.g.now_ns + p.max_pause * TICK_NS
        return p.max_pause * TICK_NS
    period = HZ * pages // rate
    pause = period
    if c.dirty_paused_ns:
        pause -= now - c.dirty_paused_ns // TICK_NS
    if pause < p.min_pause:
        # too short to be worth it: the task keeps what it thought for the next time
        if pause < -HZ:
            c.dirty_paused_ns = mm.g.now_ns
            c.nr_dirtied = 0
        elif period:
            c.dirty_paused_ns += period * TICK_NS
            c.nr_dirtied = 0
        elif c.nr_dirtied_pause <= pages:
            c.nr_dirtied_pause += <uint32_t>pages
        return 0
    if pause > p.max_pause:
        now += at_most(pause - p.max_pause, p.max_pause)
        pause = p.max_pause
    c.dirty_paused_ns = (now + pause) * TICK_NS
    c.nr_dirtied = 0
    c.nr_dirtied_pause = <uint32_t>at_least(p.nr_dirtied_pause, 1)
    return pause * TICK_NS


# ---------------------------------------------------------------- entries from Python: the arithmetic, for tests and for reading

def limits(State state not None):
    """Of the machine as it is now, in pages: {"dirtyable", "thresh", "bg", "freerun", "dirty", "writeback"}."""
    cdef DirtyLimits d
    state_enter(state)
    global_dirty_limits(&state.c, &d)
    state_leave(state)
    return {"dirtyable": d.dirtyable, "thresh": d.thresh, "bg": d.bg, "freerun": d.freerun, "dirty": d.dirty, "writeback": d.writeback}


def limits_for(dirtyable, *, ratio=20, background_ratio=10, bytes_=0, background_bytes=0):
    """(thresh, bg, freerun) of so many dirtyable pages."""
    cdef VmGlobals g
    cdef DirtyLimits d
    g.dirty_ratio = as_int(ratio, "ratio", 0, 100)
    g.dirty_background_ratio = as_int(background_ratio, "background_ratio", 0, 100)
    g.dirty_bytes = as_int(bytes_, "bytes_", 0, 1 << 62)
    g.dirty_background_bytes = as_int(background_bytes, "background_bytes", 0, 1 << 62)
    limits_of(&g, as_int(dirtyable, "dirtyable", 0, 1 << 48), &d)
    return d.thresh, d.bg, d.freerun


def ratio_at(thresh, freerun, limit, dirty, wb_dirty, write_bw):
    """pos_ratio in 1/1024: how fast tasks may dirty pages, against dirty_ratelimit."""
    cdef int64_t t = as_int(thresh, "thresh", 1, 1 << 36), f = as_int(freerun, "freerun", 0, t), hard = as_int(limit, "limit", t, 1 << 36)
    return position_ratio(t, f, hard, as_int(dirty, "dirty", 0, 1 << 36), as_int(wb_dirty, "wb_dirty", 0, 1 << 36),
                          as_int(write_bw, "write_bw", 1, 1 << 32))


def poll_interval(dirty, thresh):
    """Pages after which a task is asked again."""
    return dirty_poll_interval(as_int(dirty, "dirty", 0, 1 << 48), as_int(thresh, "thresh", 0, 1 << 48))


def pauses(wb_dirty, avg_bw, task_ratelimit, dirty_ratelimit):
    """(max_pause, min_pause, nr_dirtied_pause): ticks, ticks, pages."""
    cdef Pause p
    cdef int64_t bw = as_int(avg_bw, "avg_bw", 1, 1 << 32)
    wb_min_pause(wb_max_pause(as_int(wb_dirty, "wb_dirty", 0, 1 << 36), bw), as_int(task_ratelimit, "task_ratelimit", 0, 1 << 32),
                 as_int(dirty_ratelimit, "dirty_ratelimit", 1, 1 << 32), bw, &p)
    return p.max_pause, p.min_pause, p.nr_dirtied_pause
