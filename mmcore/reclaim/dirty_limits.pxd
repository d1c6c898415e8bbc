# Dirty limits and the pauses of those who dirty pages (mm/page-writeback.c). See dirty_limits.pyx.

from libc.stdint cimport int64_t, uint32_t
from mmcore.base.records cimport Mm

cdef enum:
    HZ = 250
    MAX_PAUSE = 50                  # ticks: 200 ms
    INIT_BW = 25600                 # pages a second: 100 MiB/s
    BANDWIDTH_INTERVAL_NS = 200000000
    RATELIMIT_SHIFT = 10

cdef struct DirtyLimits:            # pages
    int64_t dirtyable
    int64_t thresh
    int64_t bg
    int64_t freerun
    int64_t dirty                   # nr_dirty
    int64_t writeback

cdef struct Pause:                  # wb_min_pause and what follows from it, ticks
    int64_t max_pause
    int64_t min_pause
    int64_t nr_dirtied_pause

# global_dirtyable_memory(), domain_dirty_limits() of the whole machine.
cdef int64_t dirtyable_memory(Mm* mm) noexcept nogil
cdef void global_dirty_limits(Mm* mm, DirtyLimits* out) noexcept nogil
# Whether background write-back has work: what is dirty, without what is on its way.
cdef bint over_background_thresh(Mm* mm) noexcept nogil
# node_dirty_ok(): whether a node may take another page that will be written.
cdef bint node_dirty_ok(Mm* mm, uint32_t node) noexcept nogil

# The arithmetic alone, in fixed point (1024 = 1).
cdef int64_t pos_ratio_polynom(int64_t setpoint, int64_t dirty, int64_t limit) noexcept nogil
cdef int64_t position_ratio(int64_t thresh, int64_t freerun, int64_t limit, int64_t dirty, int64_t wb_dirty, int64_t write_bw) noexcept nogil
cdef int64_t dirty_poll_interval(int64_t dirty, int64_t thresh) noexcept nogil
cdef int64_t wb_max_pause(int64_t wb_dirty, int64_t avg_bw) noexcept nogil
cdef void wb_min_pause(int64_t max_pause, int64_t task_ratelimit, int64_t dirty_ratelimit, int64_t write_bw, Pause* out) noexcept nogil

# d.dirty counts what is on its way too. Write-back's bandwidth, the rate that tasks may dirty at, and the limit that falls slowly, if 200 ms have passed.
cdef void wb_update_bandwidth(Mm* mm, DirtyLimits* d, int64_t wb_dirty) noexcept nogil
# Write-back begins after it rested: that time is not counted.
cdef void wb_estimate_start(Mm* mm) noexcept nogil
# balance_dirty_pages_ratelimited(): what a task that has dirtied pages calls. The ns that it must wait, 0: none. wake[0]: background
# write-back is to be woken. With a rate of nothing the caller asks again after its wait.
cdef int64_t balance_dirty_pages(Mm* mm, unsigned cpu, bint* wake) noexcept nogil
