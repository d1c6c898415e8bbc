from collections.abc import Iterable
from enum import IntEnum

from mmcore.base.state import State

class Sysctl(IntEnum):
    SYSCTL_MIN_FREE_KBYTES = 0
    SYSCTL_WATERMARK_SCALE_FACTOR = 1
    SYSCTL_WATERMARK_BOOST_FACTOR = 2
    SYSCTL_LOWMEM_RESERVE_RATIO = 3
    SYSCTL_PERCPU_PAGELIST_HIGH_FRACTION = 4
    SYSCTL_MIN_UNMAPPED_RATIO = 5
    SYSCTL_MIN_SLAB_RATIO = 6
    SYSCTL_ZONE_RECLAIM_MODE = 7
    SYSCTL_THP_ENABLED = 8

SYSCTLS: dict[str, int]

def refresh_thresholds(s: State) -> None: ...
def sysctl_write(s: State, name: str, values: Iterable[int]) -> None: ...
