# What a fault, or an access, comes to.

cdef enum:
    MINOR = 0
    MAJOR = 1
    HIT = 2                 # no fault: what a run notes for an access that the tables allow
    SEGV_MAPERR = 3         # nothing is mapped there
    SEGV_ACCERR = 4         # the mapping does not allow it
    SIGBUS = 5
    OOM = 6
