# What one reclaim run is allowed, aims at and has found (struct scan_control, struct reclaim_stat).

from libc.stdint cimport int64_t, uint32_t

cdef enum:
    DEF_PRIORITY = 12
    SWAP_CLUSTER_MAX = 32
    DEACTIVATE_ANON = 1
    DEACTIVATE_FILE = 2

cdef struct ScanControl:
    int64_t nr_to_reclaim           # pages, all
    int64_t nr_scanned
    int64_t nr_reclaimed
    int64_t anon_cost
    int64_t file_cost
    uint32_t target                 # group, id + 1; 0: none
    unsigned gfp
    unsigned cpu
    unsigned reclaim_idx
    int order
    int priority
    int swappiness
    int may_deactivate              # DEACTIVATE_*
    bint kswapd
    bint force_deactivate
    bint skipped_deactivate
    bint may_writepage
    bint may_unmap
    bint may_swap
    bint no_cache_trim_mode
    bint cache_trim_mode_failed
    bint cache_trim_mode
    bint proactive
    bint memcg_low_reclaim
    bint memcg_low_skipped
    bint memcg_full_walk
    bint compaction_ready
    bint file_is_tiny
    int64_t nr_dirty
    int64_t nr_unqueued_dirty
    int64_t nr_congested
    int64_t nr_writeback
    int64_t nr_immediate
    int64_t nr_taken
    int64_t nr_file_taken

cdef struct ReclaimStat:
    int64_t nr_dirty
    int64_t nr_unqueued_dirty
    int64_t nr_congested
    int64_t nr_writeback
    int64_t nr_immediate
    int64_t nr_pageout
    int64_t nr_activate
    int64_t nr_ref_keep
    int64_t nr_unmap_fail
    int64_t nr_lazyfree_fail
