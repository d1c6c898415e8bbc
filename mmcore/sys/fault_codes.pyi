from enum import IntEnum

class Fault(IntEnum):
    MINOR = 0
    MAJOR = 1
    HIT = 2
    SEGV_MAPERR = 3
    SEGV_ACCERR = 4
    SIGBUS = 5
    OOM = 6
