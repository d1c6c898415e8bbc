# Pages that come back from swap (mm/memory.c: do_swap_page, mm/swap_state.c), swapon and swapoff. See swap.pyx.

from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from mmcore.base.records cimport Mm
from mmcore.base.vm_records cimport AddressSpace, Vma

cdef enum:
    SWAP_WP = 0x100         # beside the result: the entry is there, and the write that faulted has to go on as one to a shared page

# A fault on a swap entry: MINOR, MAJOR or OOM, perhaps with SWAP_WP.
cdef int do_swap_page(Mm* mm, AddressSpace* m, uint32_t as_, uint32_t vma, uint64_t* pte, uint64_t vpn, bint write, unsigned cpu) noexcept nogil
# Brings the page of a slot into the swap cache: page frame + 1, 0 without memory (or if nobody uses the slot); made[0]: it was read now.
cdef uint32_t read_swap_cache(Mm* mm, uint32_t slot, unsigned cpu, bint* made) noexcept nogil
# The page of a slot for a tmpfs file, with its neighbours (shmem_swapin_cluster): page frame + 1; major[0]: it was read now.
cdef uint32_t swapin_cluster(Mm* mm, uint32_t slot, unsigned cpu, bint* major) noexcept nogil
# shmem_swapin_folio(): the page of a tmpfs file that swap holds comes back into the file's index, dirty: its frame or -E_NOMEM.
cdef int64_t shmem_swapin(Mm* mm, uint32_t file, uint64_t index, unsigned cpu, bint* major) noexcept nogil
# MADV_WILLNEED of pages [first, end) of a tmpfs file: those in swap are read into the swap cache.
cdef void shmem_willneed(Mm* mm, uint32_t file, uint64_t first, uint64_t end, unsigned cpu) noexcept nogil
# MADV_WILLNEED of a stretch of private memory: its swap entries' pages are read.
cdef void swapin_range(Mm* mm, uint32_t as_, uint64_t start, uint64_t end, unsigned cpu) noexcept nogil
# swapon(): index + 1, or -errno. swapoff() reads everything back: 0, -E_NOMEM (nothing is lost, the area stays), -E_INVAL.
cdef int64_t do_swapon(Mm* mm, uint32_t pages, int32_t prio, uint32_t flags, uint32_t name) noexcept nogil
cdef int do_swapoff(Mm* mm, uint32_t area, unsigned cpu) noexcept nogil
