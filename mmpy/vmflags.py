"""Flags of address spaces under the kernel's names and with its values.

Models: include/uapi/asm-generic/mman-common.h, mman.h, linux/mman.h (x86 values) and VM_* of include/linux/mm.h, v6.12. Simplifies:
nothing. Omits: flags of other architectures, protection keys, userfaultfd's flags beyond their names in VmFlags.
"""

from enum import IntEnum, IntFlag


class Prot(IntFlag):
    """Rights of a mapping (PROT_*): Prot.READ | Prot.WRITE."""

    NONE = 0
    READ = 0x1
    WRITE = 0x2
    EXEC = 0x4
    GROWSDOWN = 0x01000000
    GROWSUP = 0x02000000


class Map(IntFlag):
    """Flags of mmap() (MAP_*): Map.PRIVATE | Map.ANONYMOUS."""

    SHARED = 0x01
    PRIVATE = 0x02
    SHARED_VALIDATE = 0x03
    DROPPABLE = 0x08
    FIXED = 0x10
    ANONYMOUS = 0x20
    BELOW_4G = 0x40  # MAP_32BIT
    GROWSDOWN = 0x100
    DENYWRITE = 0x800
    EXECUTABLE = 0x1000
    LOCKED = 0x2000
    NORESERVE = 0x4000
    POPULATE = 0x8000
    NONBLOCK = 0x10000
    STACK = 0x20000
    HUGETLB = 0x40000
    SYNC = 0x80000
    FIXED_NOREPLACE = 0x100000
    UNINITIALIZED = 0x4000000
    HUGE_2MB = 21 << 26
    HUGE_1GB = 30 << 26


class Mremap(IntFlag):
    """Flags of mremap() (MREMAP_*)."""

    MAYMOVE = 1
    FIXED = 2
    DONTUNMAP = 4


class Madv(IntEnum):
    """Advice of madvise() (MADV_*)."""

    NORMAL = 0
    RANDOM = 1
    SEQUENTIAL = 2
    WILLNEED = 3
    DONTNEED = 4
    FREE = 8
    REMOVE = 9
    DONTFORK = 10
    DOFORK = 11
    MERGEABLE = 12
    UNMERGEABLE = 13
    HUGEPAGE = 14
    NOHUGEPAGE = 15
    DONTDUMP = 16
    DODUMP = 17
    WIPEONFORK = 18
    KEEPONFORK = 19
    COLD = 20
    PAGEOUT = 21
    POPULATE_READ = 22
    POPULATE_WRITE = 23
    DONTNEED_LOCKED = 24
    COLLAPSE = 25
    HWPOISON = 100
    SOFT_OFFLINE = 101


class Mcl(IntFlag):
    """Flags of mlockall() (MCL_*)."""

    CURRENT = 1
    FUTURE = 2
    ONFAULT = 4


class Vm(IntFlag):
    """Flags of a VMA (VM_*), as VmaView.flags holds them."""

    READ = 1 << 0
    WRITE = 1 << 1
    EXEC = 1 << 2
    SHARED = 1 << 3
    MAYREAD = 1 << 4
    MAYWRITE = 1 << 5
    MAYEXEC = 1 << 6
    MAYSHARE = 1 << 7
    GROWSDOWN = 1 << 8
    UFFD_MISSING = 1 << 9
    PFNMAP = 1 << 10
    UFFD_WP = 1 << 12
    LOCKED = 1 << 13
    IO = 1 << 14
    SEQ_READ = 1 << 15
    RAND_READ = 1 << 16
    DONTCOPY = 1 << 17
    DONTEXPAND = 1 << 18
    LOCKONFAULT = 1 << 19
    ACCOUNT = 1 << 20
    NORESERVE = 1 << 21
    HUGETLB = 1 << 22
    SYNC = 1 << 23
    ARCH_1 = 1 << 24
    WIPEONFORK = 1 << 25
    DONTDUMP = 1 << 26
    SOFTDIRTY = 1 << 27
    MIXEDMAP = 1 << 28
    HUGEPAGE = 1 << 29
    NOHUGEPAGE = 1 << 30
    MERGEABLE = 1 << 31
    UFFD_MINOR = 1 << 38
    DROPPABLE = 1 << 40
    SEALED = 1 << 63


class Fault(IntEnum):
    """What one access came to: the codes of AccessResult.codes (order of mmcore.sys.fault.FaultResult)."""

    MINOR = 0
    MAJOR = 1
    HIT = 2
    SEGV_MAPERR = 3
    SEGV_ACCERR = 4
    SIGBUS = 5
    OOM = 6


class Rss(IntEnum):
    """Classes of resident memory, in the order in which an mm counts them (MM_*)."""

    FILE = 0
    ANON = 1
    SWAP = 2
    SHMEM = 3
