# Result codes of the core: 0 or a positive value is success, a negative one names the refusal.
# Codes up to 999 are Linux errno numbers; those from 1000 tell apart what the kernel reports as "Bad page state" or not at all.

cdef enum:
    E_PERM = 1
    E_NOENT = 2
    E_IO = 5
    E_BADF = 9
    E_AGAIN = 11
    E_NOMEM = 12
    E_ACCES = 13
    E_FAULT = 14
    E_BUSY = 16
    E_EXIST = 17
    E_INVAL = 22
    E_FBIG = 27
    E_RANGE = 34            # page frame outside every zone
    E_OVERFLOW = 75
    E_OPNOTSUPP = 95
    E_NOT_ALLOCATED = 1001  # free of a page that is free already
    E_RESERVED = 1002       # free of a hole or of a page reserved at boot
    E_WRONG_ORDER = 1003    # block was allocated with another order
    E_TAIL = 1004           # page lies inside a larger allocated block
    E_BAD_PAGE = 1005       # flags or mappings that no page may have when it is freed
    E_GFP = 1006            # illegal combination of GFP flags
    E_ORDER = 1007          # order above MAX_PAGE_ORDER
    E_CPU = 1008
    E_NODE = 1009

cpdef object check(long long rc, object what=*)
