# Swap areas, their slots, and the swap cache (mm/swapfile.c, mm/swap_slots.c, mm/swap_state.c, v6.12). See swap.pyx.
# A `slot` is a slot number + 1, 0 is none; slot numbers count through the pool of slots, an area holds [first_slot, first_slot + max).

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from mmcore.base.flags cimport PG_swapcache
from mmcore.base.records cimport Mm, page_at
from mmcore.base.vm_records cimport (
    SLOT_BAD, SLOT_HAS_CACHE, SLOT_TAKEN, SWP_AVAIL, SWP_FILE, SWP_RECLAIM_WORK, SWP_SOLIDSTATE, SWP_SYNCHRONOUS, SWP_USED, SWP_WRITEOK,
    SwapArea, SwapSlot,
)

cdef enum:
    SWAPFILE_CLUSTER = 512
    SWAP_BATCH = 64
    MAX_SWAP_AREAS = 23             # what MAX_SWAPFILES leaves beside the special entries

cdef extern from *:
    """
    #define SWP_EXCLUSIVE_BIT 8ULL
    """
    const uint64_t SWP_EXCLUSIVE "SWP_EXCLUSIVE_BIT"

cdef inline SwapSlot* swap_slot_at(Mm* mm, uint32_t slot) noexcept nogil:
    return &mm.vm.swap_slots[slot - 1]

# A swap entry of a page table, and the slot that one names.
cdef inline uint64_t swap_pte(uint32_t slot, bint exclusive) noexcept nogil:
    return (<uint64_t>slot << 12) | (SWP_EXCLUSIVE if exclusive else 0)

cdef inline uint32_t swap_pte_slot(uint64_t e) noexcept nogil:
    return <uint32_t>(e >> 12)

# Of a PG_swapcache page: its slot. Of a slot: the page that stands in the swap cache for it, as page frame + 1, 0 none.
cdef inline uint32_t page_swap_slot(Mm* mm, uint32_t pfn) noexcept nogil:
    return page_at(mm, pfn).private_

cdef inline uint32_t swap_cached_page(Mm* mm, uint32_t slot) noexcept nogil:
    cdef uint64_t x = mm.vm.swap_slots[slot - 1].cache
    return 0 if x & 3 else <uint32_t>(x >> 2)

# One more user.
cdef inline void swap_dup(Mm* mm, uint32_t slot) noexcept nogil:
    mm.vm.swap_slots[slot - 1].count += 1

cdef inline int64_t nr_swap_pages(Mm* mm) noexcept nogil:
    return mm.vm.g.nr_swap_pages

cdef inline bint vm_swap_full(Mm* mm) noexcept nogil:
    return mm.vm.g.nr_swap_pages * 2 < mm.g.total_swap_pages

# The area (index + 1) that a slot number lies in; 0: none.
cdef uint32_t swap_area_of(Mm* mm, uint32_t number) noexcept nogil
# A slot for a page, charged to its group: from the CPU's stock, else from an area. 0: none.
cdef uint32_t folio_alloc_swap(Mm* mm, uint32_t pfn, unsigned cpu) noexcept nogil
# Up to n slots (numbers) of the areas, in the order of their priorities.
cdef int get_swap_pages(Mm* mm, int n, uint32_t* numbers, unsigned cpu) noexcept nogil
# Into the swap cache and out of it, leaving a shadow or 0. The caller gives up the cache's hold on the slot by swap_cache_put_slot().
cdef void swap_cache_add(Mm* mm, uint32_t pfn, uint32_t slot) noexcept nogil
cdef void swap_cache_del(Mm* mm, uint32_t pfn, uint64_t shadow) noexcept nogil
cdef void swap_cache_put_slot(Mm* mm, uint32_t slot, unsigned cpu) noexcept nogil
# folio_free_swap(): out of the swap cache if no entry names the slot any more; the page is dirty then.
cdef bint folio_free_swap(Mm* mm, uint32_t pfn, unsigned cpu) noexcept nogil
# The page has lost its last mapping (free_swap_cache): whether it goes. If not, other entries still name its slot.
cdef bint leave_swap_cache(Mm* mm, uint32_t pfn, unsigned cpu) noexcept nogil
# One user less.
cdef void swap_free(Mm* mm, uint32_t slot, unsigned cpu) noexcept nogil
# free_swap_and_cache_nr(): entries that name n slots side by side are gone. Pages of the swap cache that no one maps go with them.
cdef void free_swap_and_cache(Mm* mm, uint32_t slot, uint32_t n, unsigned cpu) noexcept nogil
# mem_cgroup_swap_full(): slots are so scarce that pages in memory should not keep theirs.
cdef bint swap_full(Mm* mm, uint32_t pfn) noexcept nogil
cdef int64_t memcg_nr_swap_pages(Mm* mm, uint32_t id_) noexcept nogil
cdef bint swap_synchronous(Mm* mm, uint32_t slot) noexcept nogil
# swap_writepage(): 0 written (or nothing to write), 1 under write-back, negative: refused.
cdef int swap_writepage(Mm* mm, uint32_t pfn, unsigned cpu) noexcept nogil
# A page that lost the reference of the swap cache: freed if it was the last one. Whether it was.
cdef bint put_swap_page(Mm* mm, uint32_t pfn, unsigned cpu) noexcept nogil
# Areas come (index + 1, or -E_NOMEM, -E_PERM) and go; swapoff has brought everything back before that.
cdef int64_t swap_area_add(Mm* mm, uint32_t pages, int32_t prio, uint32_t flags, uint32_t name) noexcept nogil
cdef void swap_area_disable(Mm* mm, uint32_t area) noexcept nogil
cdef void swap_area_enable(Mm* mm, uint32_t area) noexcept nogil
cdef void swap_area_remove(Mm* mm, uint32_t area) noexcept nogil
# What all CPUs keep in stock, and what they have not given back yet, returns to the areas.
cdef void drain_swap_slots(Mm* mm) noexcept nogil
