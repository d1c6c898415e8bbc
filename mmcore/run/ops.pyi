from enum import IntEnum, IntFlag

import numpy as np

OP_DTYPE: np.dtype

class Op(IntEnum):
    NOP = 0
    ALLOC = 1
    FREE = 2
    ALLOC_BULK = 3
    VMSTAT_TICK = 4
    KSWAPD_BEGIN = 5
    KSWAPD_END = 6
    SYSCTL = 7
    ADVANCE = 8
    CHECKPOINT = 9
    DRAIN_ALL = 10
    SPLIT = 11

class OpFlag(IntFlag):
    OPF_LRU = 1
    OPF_OOM_VICTIM = 2
    OPF_MEMALLOC = 4
    OPF_PFN = 128
