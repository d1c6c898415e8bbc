# The operation record: everything that can happen to a machine is one of these, a live call as well as a line of a trace.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef struct OpRecord:
    uint8_t op
    uint8_t flags
    uint16_t cpu
    uint32_t task
    uint32_t mm
    uint32_t ref            # index of an earlier op whose result is meant
    uint64_t a
    uint64_t b
    uint64_t c

cpdef enum Op:
    NOP = 0
    ALLOC = 1               # a order, b gfp, c node + 1 (0: local)       value: pfn
    FREE = 2                # ref, a offset in its block or bulk, b order   value: pfn freed
    ALLOC_BULK = 3          # a pages wanted, b gfp, c node + 1           rc: pages got, value: offset in pages_out
    VMSTAT_TICK = 4
    KSWAPD_BEGIN = 5        # a node
    KSWAPD_END = 6
    SYSCTL = 7              # a which (mmcore.phys.watermark.Sysctl), b value, c index
    ADVANCE = 8             # a nanoseconds
    CHECKPOINT = 9          # a id; the run stops behind it
    DRAIN_ALL = 10
    SPLIT = 11              # ref: split_page() of what that op returned
    # Operations of an address space: mm is its handle, or with OPF_MM_REF the index of the op that made it; an address is a, or with
    # OPF_ADDR_REF counted from the address that op ref returned.
    SPAWN = 12              # value: handle
    EXIT = 13
    FORK = 14               # value: the child's handle
    MMAP = 15               # a address, b length, c rights | flags << 8 | offset in pages << 32, task: file   value: address
    MUNMAP = 16             # a address, b length
    MPROTECT = 17           # a address, b length, c rights
    MREMAP = 18             # a address, b length, c new length, task: flags   value: address
    BRK = 19                # a new end of the heap                         value: its end
    MADVISE = 20            # a address, b length, c advice
    MLOCK = 21              # a address, b length, c 1: on fault
    MUNLOCK = 22
    ACCESS = 23             # a address                                     rc: -EFAULT, -EIO or -ENOMEM, value: mmcore.sys.fault_codes.Fault
    ACCESS_RANGE = 24       # a address, b pages: one access to each        rc: accesses done, value: faults among them
    LRU_ADD_DRAIN = 25      # what the CPU has batched goes onto the LRU lists
    TLB_FLUSH = 26          # the program empties its CPU's TLB (and what the CPU has batched goes onto the LRU lists)
    CONTEXT_SWITCH = 27     # the CPU loads mm; 0: a kernel thread runs

cpdef enum OpFlag:
    OPF_LRU = 1             # the pages count as LRU pages until they are freed
    OPF_OOM_VICTIM = 2
    OPF_MEMALLOC = 4
    OPF_WRITE = 8           # the access is a write
    OPF_MM_REF = 16
    OPF_ADDR_REF = 32
    OPF_PFN = 128           # a is a page frame that was in use before the stream began
