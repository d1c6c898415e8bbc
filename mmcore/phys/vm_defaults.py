"""What virtual memory starts with: page-table shapes, the sysctls of overcommit and faults, THP's and khugepaged's settings.

Models: the defaults of mm/util.c, mm/memory.c, mm/huge_memory.c, mm/khugepaged.c and init_user_reserve/init_admin_reserve (v6.12, Debian
configuration). Simplifies: no address-space randomisation. Omits: settings that no room reads.
"""

from __future__ import annotations

from typing import NamedTuple

from mmcore.base import costs
from mmcore.base.state import State


class Paging(NamedTuple):
    """Shape of page tables: levels, index bits a level, bytes of an entry, user address limit, whether the x86 layout of areas applies."""

    number: int
    levels: int
    bits: int
    entry_bytes: int
    task_size: int


PAGING = {
    "4level": Paging(0, 4, 9, 8, (1 << 47) - 4096),
    "5level": Paging(1, 5, 9, 8, (1 << 56) - 4096),
    "2level": Paging(2, 2, 10, 4, 0xC0000000),
    "pae": Paging(3, 3, 9, 8, 0xC0000000),
    "arm64-48": Paging(4, 4, 9, 8, 1 << 48),
    "arm64-39": Paging(5, 3, 9, 8, 1 << 39),
}
DEFAULT_PAGING = {"x86_64": "4level", "i386": "pae"}
ARCH_PAGING = {"x86_64": ("4level", "5level", "arm64-48", "arm64-39"), "i386": ("pae", "2level")}
NEVER, INHERIT = 0, 1
THP_DEFRAG = ("never", "madvise", "defer+madvise", "defer", "always")
PMD_ORDER = 9
# The zero page lies in the kernel image, among the frames that boot keeps; frame 1 stands for it.
ZERO_PAGE = 1
# What write-back takes its device to be until it has seen more of it (INIT_BW): 100 MiB/s, in pages a second.
INIT_BANDWIDTH = 25600


def set_vm_defaults(state: State, paging: str) -> None:
    """Fill vm_globals of a machine whose free memory is known."""
    g = state.vm_globals[0]
    free_kib = int(state.zones["managed"].sum()) * 4
    for name, value in {
        "paging": PAGING[paging].number, "overcommit_memory": 0, "overcommit_ratio": 50, "overcommit_kbytes": 0,
        "user_reserve_kbytes": min(free_kib // 32, 131072), "admin_reserve_kbytes": min(free_kib // 32, 8192),
        "max_map_count": 65530, "mmap_min_addr": 65536, "stack_guard_gap": 256,
        "page_cluster": 2 if free_kib < 16 * 1024 else 3, "fault_around_bytes": 65536, "next_pid": 1, "next_file": 1,
        "thp_defrag": THP_DEFRAG.index("madvise"), "thp_use_zero_page": 1, "vma_ra_enabled": 1, "zero_page": ZERO_PAGE,
        "khugepaged_pages_to_scan": 4096, "khugepaged_scan_sleep_ms": 10000, "khugepaged_alloc_sleep_ms": 60000,
        "swappiness": 60, "dirty_ratio": 20, "dirty_background_ratio": 10, "dirty_expire_centisecs": 3000, "dirty_writeback_centisecs": 500,
        "wb_bandwidth": INIT_BANDWIDTH, "wb_avg_bandwidth": INIT_BANDWIDTH, "wb_ratelimit": INIT_BANDWIDTH,
        "wb_balanced_ratelimit": INIT_BANDWIDTH,
        "khugepaged_max_ptes_none": 511, "khugepaged_max_ptes_swap": 64, "khugepaged_max_ptes_shared": 256,
    }.items():  # fmt: skip
        g[name] = value
    costs.set_defaults(state)
    g["thp_size"][:] = NEVER
    g["thp_size"][PMD_ORDER] = INHERIT
