"""Names of the kernel's memory counters, in the order in which /proc/vmstat and /proc/zoneinfo print them.

Models: the name table behind vmstat_text[] (mm/vmstat.c) with enum zone_stat_item, numa_stat_item,
node_stat_item, vm_event_item (v6.12, and v6.1 where its recordings differ), for the two Debian
configurations that the recordings come from: amd64 (NUMA) and 686-pae (no NUMA).
Simplifies: an item that a configuration does not build is left out by one requirement table per group.
Omits: CMA, debug (tlb, vmacache, per-VMA lock) and allocation-profiling counters, which Debian leaves off.

Index in a group's *reference* tuple (``ZONE_STAT_ITEMS`` ...) = index in the record's array, whatever the
machine; what a machine prints is a subsequence of it, given by the functions below.
"""

from functools import cache

ARCHES = ("x86_64", "i386")
KERNELS = ("6.12", "6.1")

ZONE_TYPES = {
    "x86_64": ("DMA", "DMA32", "Normal", "Movable", "Device"),
    "i386": ("DMA", "Normal", "HighMem", "Movable"),
}
# In names of events HighMem is cut to "high".
_ZONE_SUFFIX = {"HighMem": "high"}

ZONE_STAT_ITEMS = (
    "nr_free_pages", "nr_zone_inactive_anon", "nr_zone_active_anon", "nr_zone_inactive_file",
    "nr_zone_active_file", "nr_zone_unevictable", "nr_zone_write_pending", "nr_mlock", "nr_bounce",
    "nr_zspages", "nr_free_cma", "nr_unaccepted",
)  # fmt: skip

NUMA_STAT_ITEMS = (
    "numa_hit", "numa_miss", "numa_foreign", "numa_interleave", "numa_local", "numa_other",
)  # fmt: skip

NODE_STAT_ITEMS = (
    "nr_inactive_anon", "nr_active_anon", "nr_inactive_file", "nr_active_file", "nr_unevictable",
    "nr_slab_reclaimable", "nr_slab_unreclaimable", "nr_isolated_anon", "nr_isolated_file",
    "workingset_nodes", "workingset_refault_anon", "workingset_refault_file",
    "workingset_activate_anon", "workingset_activate_file", "workingset_restore_anon",
    "workingset_restore_file", "workingset_nodereclaim", "nr_anon_pages", "nr_mapped", "nr_file_pages",
    "nr_dirty", "nr_writeback", "nr_writeback_temp", "nr_shmem", "nr_shmem_hugepages",
    "nr_shmem_pmdmapped", "nr_file_hugepages", "nr_file_pmdmapped", "nr_anon_transparent_hugepages",
    "nr_vmscan_write", "nr_vmscan_immediate_reclaim", "nr_dirtied", "nr_written",
    "nr_throttled_written", "nr_kernel_misc_reclaimable", "nr_foll_pin_acquired",
    "nr_foll_pin_released", "nr_kernel_stack", "nr_page_table_pages", "nr_sec_page_table_pages",
    "nr_iommu_pages", "nr_swapcached", "pgpromote_success", "pgpromote_candidate", "pgdemote_kswapd",
    "pgdemote_direct", "pgdemote_khugepaged",
)  # fmt: skip

GLOBAL_STAT_ITEMS = (
    "nr_dirty_threshold", "nr_dirty_background_threshold", "nr_memmap_pages", "nr_memmap_boot_pages",
)  # fmt: skip

# Counted in base pages, printed in huge pages of HPAGE_PMD_NR base pages. (All else prints as it is counted:
# pages, but nr_kernel_stack in KiB.)
HPAGE_PMD_NR = 512
THP_NODE_ITEMS = frozenset(
    {
        "nr_shmem_hugepages", "nr_shmem_pmdmapped", "nr_file_hugepages", "nr_file_pmdmapped",
        "nr_anon_transparent_hugepages",
    }
)  # fmt: skip

_EVENTS_HEAD = ("pgpgin", "pgpgout", "pswpin", "pswpout")
ZONED_EVENTS = ("pgalloc", "allocstall", "pgskip")
_EVENTS_TAIL = (
    "pgfree", "pgactivate", "pgdeactivate", "pglazyfree", "pgfault", "pgmajfault", "pglazyfreed",
    "pgrefill", "pgreuse", "pgsteal_kswapd", "pgsteal_direct", "pgsteal_khugepaged", "pgdemote_kswapd",
    "pgdemote_direct", "pgscan_kswapd", "pgscan_direct", "pgscan_khugepaged", "pgscan_direct_throttle",
    "pgscan_anon", "pgscan_file", "pgsteal_anon", "pgsteal_file", "zone_reclaim_success",
    "zone_reclaim_failed", "pginodesteal", "slabs_scanned", "kswapd_inodesteal",
    "kswapd_low_wmark_hit_quickly", "kswapd_high_wmark_hit_quickly", "pageoutrun", "pgrotated",
    "drop_pagecache", "drop_slab", "oom_kill", "numa_pte_updates", "numa_huge_pte_updates",
    "numa_hint_faults", "numa_hint_faults_local", "numa_pages_migrated", "pgmigrate_success",
    "pgmigrate_fail", "thp_migration_success", "thp_migration_fail", "thp_migration_split",
    "compact_migrate_scanned", "compact_free_scanned", "compact_isolated", "compact_stall",
    "compact_fail", "compact_success", "compact_daemon_wake", "compact_daemon_migrate_scanned",
    "compact_daemon_free_scanned", "htlb_buddy_alloc_success", "htlb_buddy_alloc_fail",
    "unevictable_pgs_culled", "unevictable_pgs_scanned", "unevictable_pgs_rescued",
    "unevictable_pgs_mlocked", "unevictable_pgs_munlocked", "unevictable_pgs_cleared",
    "unevictable_pgs_stranded", "thp_fault_alloc", "thp_fault_fallback", "thp_fault_fallback_charge",
    "thp_collapse_alloc", "thp_collapse_alloc_failed", "thp_file_alloc", "thp_file_fallback",
    "thp_file_fallback_charge", "thp_file_mapped", "thp_split_page", "thp_split_page_failed",
    "thp_deferred_split_page", "thp_underused_split_page", "thp_split_pmd",
    "thp_scan_exceed_none_pte", "thp_scan_exceed_swap_pte", "thp_scan_exceed_share_pte",
    "thp_split_pud", "thp_zero_page_alloc", "thp_zero_page_alloc_failed", "thp_swpout",
    "thp_swpout_fallback", "balloon_inflate", "balloon_deflate", "balloon_migrate", "swap_ra",
    "swap_ra_hit", "swpin_zero", "swpout_zero", "ksm_swpin_copy", "cow_ksm", "zswpin", "zswpout",
    "zswpwb", "direct_map_level2_splits", "direct_map_level3_splits",
)  # fmt: skip

# Every event that is counted in one place for the whole machine, by its position in VmGlobals.events.
EVENT_ITEMS = _EVENTS_HEAD + _EVENTS_TAIL

# The last line of /proc/vmstat, kept for tools that parse it; always 0.
CONSTANT_LINE = "nr_unstable"

# What an item needs to be built: a kernel version, an architecture, or the configuration switch "numa".
_NODE_NEEDS = {
    "nr_iommu_pages": {"6.12"},
    "pgpromote_success": {"numa"},
    "pgpromote_candidate": {"numa"},
    "pgdemote_kswapd": {"6.12"},  # 6.1 counts these two as events
    "pgdemote_direct": {"6.12"},
    "pgdemote_khugepaged": {"6.12"},
}
_ZONE_NEEDS = {"nr_unaccepted": {"6.12", "x86_64"}}
_NUMA_NEEDS = {name: {"numa"} for name in NUMA_STAT_ITEMS}
_GLOBAL_NEEDS = {"nr_memmap_pages": {"6.12"}, "nr_memmap_boot_pages": {"6.12"}}
_EVENT_NEEDS = {
    "pgsteal_khugepaged": {"6.12"},
    "pgscan_khugepaged": {"6.12"},
    "pgdemote_kswapd": {"6.1"},
    "pgdemote_direct": {"6.1"},
    "zone_reclaim_success": {"6.12", "numa"},
    "zone_reclaim_failed": {"numa"},
    "numa_pte_updates": {"numa"},
    "numa_huge_pte_updates": {"numa"},
    "numa_hint_faults": {"numa"},
    "numa_hint_faults_local": {"numa"},
    "numa_pages_migrated": {"numa"},
    "thp_underused_split_page": {"6.12"},
    "thp_split_pud": {"x86_64"},
    "swpin_zero": {"6.12"},
    "swpout_zero": {"6.12"},
    "zswpwb": {"6.12"},
}


def _built(items: tuple[str, ...], needs: dict[str, set[str]], arch: str, kernel: str) -> tuple[str, ...]:
    """The items whose needs the configuration `arch`/`kernel` meets, in order."""
    if arch not in ARCHES:
        raise ValueError(f"arch is {arch!r}: known are {', '.join(ARCHES)}")
    if kernel not in KERNELS:
        raise ValueError(f"kernel is {kernel!r}: known are {', '.join(KERNELS)}")
    has = {arch, kernel} | ({"numa"} if arch == "x86_64" else set())
    return tuple(name for name in items if needs.get(name, set()) <= has)


@cache
def zone_stat_names(arch: str = "x86_64", kernel: str = "6.12") -> tuple[str, ...]:
    """Names of the per-zone counters that the machine prints, in order."""
    return _built(ZONE_STAT_ITEMS, _ZONE_NEEDS, arch, kernel)


@cache
def numa_stat_names(arch: str = "x86_64", kernel: str = "6.12") -> tuple[str, ...]:
    """Names of the NUMA counters that the machine prints: six, or none where NUMA is not built."""
    return _built(NUMA_STAT_ITEMS, _NUMA_NEEDS, arch, kernel)


@cache
def node_stat_names(arch: str = "x86_64", kernel: str = "6.12") -> tuple[str, ...]:
    """Names of the per-node counters that the machine prints, in order."""
    return _built(NODE_STAT_ITEMS, _NODE_NEEDS, arch, kernel)


@cache
def global_stat_names(arch: str = "x86_64", kernel: str = "6.12") -> tuple[str, ...]:
    """Names of the machine-wide values between the node counters and the events."""
    return _built(GLOBAL_STAT_ITEMS, _GLOBAL_NEEDS, arch, kernel)


@cache
def vm_event_names(arch: str = "x86_64", kernel: str = "6.12") -> tuple[str, ...]:
    """Names of the event counters, those by zone type spelt out, in order."""
    tail = _built(_EVENTS_TAIL, _EVENT_NEEDS, arch, kernel)
    suffixes = [_ZONE_SUFFIX.get(zone, zone.lower()) for zone in ZONE_TYPES[arch]]
    zoned = tuple(f"{event}_{suffix}" for event in ZONED_EVENTS for suffix in suffixes)
    return _EVENTS_HEAD + zoned + tail


@cache
def vmstat_names(arch: str = "x86_64", kernel: str = "6.12") -> tuple[str, ...]:
    """All names of /proc/vmstat in order, without the constant last line (``CONSTANT_LINE``).

    Raises ValueError for an architecture or kernel that is not in ``ARCHES`` and ``KERNELS``.
    """
    groups = (zone_stat_names, numa_stat_names, node_stat_names, global_stat_names, vm_event_names)
    return tuple(name for group in groups for name in group(arch, kernel))


VM_EVENT_ITEMS = {arch: vm_event_names(arch, "6.12") for arch in ARCHES}
