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
    SPAWN = 12
    EXIT = 13
    FORK = 14
    MMAP = 15
    MUNMAP = 16
    MPROTECT = 17
    MREMAP = 18
    BRK = 19
    MADVISE = 20
    MLOCK = 21
    MUNLOCK = 22
    ACCESS = 23
    ACCESS_RANGE = 24
    LRU_ADD_DRAIN = 25
    TLB_FLUSH = 26
    CONTEXT_SWITCH = 27

class OpFlag(IntFlag):
    OPF_LRU = 1
    OPF_OOM_VICTIM = 2
    OPF_MEMALLOC = 4
    OPF_WRITE = 8
    OPF_MM_REF = 16
    OPF_ADDR_REF = 32
    OPF_PFN = 128
