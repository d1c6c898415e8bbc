# Pools: records that come and go, in memory that never moves. See pool.pyx.

from libc.stdint cimport uint32_t
from mmcore.base.vm_records cimport PoolInfo

# A record of the pool, all zero: index + 1, or 0 when the pool is full. `item` is the size of a record whose first field is its link.
cdef inline uint32_t pool_take(PoolInfo* p, void* base, size_t item) noexcept nogil:
    cdef uint32_t x = p.free_head
    cdef uint32_t* link
    if x:
        link = <uint32_t*>(<char*>base + <size_t>(x - 1) * item)
        p.free_head = link[0]
        link[0] = 0
    else:
        if p.used == p.capacity:
            return 0
        p.used += 1
        x = p.used
    p.live += 1
    return x

# Gives record x back; the caller has zeroed it.
cdef inline void pool_give(PoolInfo* p, void* base, size_t item, uint32_t x) noexcept nogil:
    (<uint32_t*>(<char*>base + <size_t>(x - 1) * item))[0] = p.free_head
    p.free_head = x
    p.live -= 1

# How many more records the pool can hand out.
cdef inline uint32_t pool_room(PoolInfo* p) noexcept nogil:
    return p.capacity - p.live
