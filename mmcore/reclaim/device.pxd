# Block devices: how long reading and writing takes. Devices by index + 1. See device.pyx.

from libc.stdint cimport int64_t, uint32_t, uint64_t
from mmcore.base.flags cimport PG_file, PG_swapcache
from mmcore.base.records cimport Mm, meta_at, page_at
from mmcore.base.vm_records cimport DEVICE_ROTATIONAL, DEVICE_SYNCHRONOUS, Device

cdef enum:
    DEVICE_DEPTH_MAX = 8
    REQUEST_PAGES_MAX = 320         # 1280 KiB: max_sectors_kb of most disks

cdef extern from *:
    """
    #define MM_NOWHERE UINT64_MAX
    """
    const uint64_t NOWHERE "MM_NOWHERE"     # a position on the device that is not known: the request is merged with none

# Flags of an EV_IO_DONE event.
cdef enum:
    IO_WRITE = 1
    IO_FAILED = 2

cdef inline Device* device_at(Mm* mm, uint32_t device) noexcept nogil:
    return &mm.vm.devices[device - 1]

cdef inline bint device_synchronous(Mm* mm, uint32_t device) noexcept nogil:
    return device == 0 or mm.vm.devices[device - 1].flags & DEVICE_SYNCHRONOUS != 0

cdef inline bint device_rotational(Mm* mm, uint32_t device) noexcept nogil:
    return device != 0 and mm.vm.devices[device - 1].flags & DEVICE_ROTATIONAL != 0

# What a synchronous device's own work takes of the CPU that submits.
cdef inline int64_t device_copy_ns(Mm* mm, uint32_t device, bint write, int64_t nr_pages) noexcept nogil:
    cdef Device* d
    if device == 0 or not mm.vm.devices[device - 1].flags & DEVICE_SYNCHRONOUS:
        return 0
    d = &mm.vm.devices[device - 1]
    return (d.write_latency_ns + d.ns_per_page_write * nr_pages) if write else (d.read_latency_ns + d.ns_per_page_read * nr_pages)

# By which a completion knows its page again: whose it was when the I/O began.
cdef inline uint32_t page_io_tag(Mm* mm, uint32_t pfn) noexcept nogil:
    cdef uint32_t x = page_at(mm, pfn).private_
    if page_at(mm, pfn).flags & (PG_file | PG_swapcache) == PG_file:
        x = x * <uint32_t>2654435761 + meta_at(mm, pfn).index_lo
    return x

# How long everything that was asked of a device takes from now on.
cdef inline int64_t device_busy_ns(Mm* mm, uint32_t device) noexcept nogil:
    return mm.vm.devices[device - 1].bus_until - mm.g.now_ns if device and mm.vm.devices[device - 1].bus_until > mm.g.now_ns else 0

# nr_pages at page `at` of the device (NOWHERE: unknown) are asked for now: when that is complete; error[0]: 0, or -E_IO, which is known at
# that time. Counts requests, pages, pgpgin and pgpgout. A synchronous device, and device 0, complete now.
cdef int64_t device_submit(Mm* mm, uint32_t device, bint write, uint64_t at, int64_t nr_pages, int* error) noexcept nogil
# The same for the I/O of one page, which ends with an EV_IO_DONE event: 1 when it is under way, 0 when it is complete already, -E_IO when it
# has failed already. With a full event queue it is complete at once.
cdef int device_submit_page(Mm* mm, uint32_t device, bint write, uint64_t at, uint32_t pfn, unsigned cpu) noexcept nogil
# What was in flight has ended (the handler of EV_IO_DONE calls it).
cdef void device_complete(Mm* mm, uint32_t device, int64_t nr_pages) noexcept nogil
# Whether another writer would have to wait for room in the queue.
cdef bint device_congested(Mm* mm, uint32_t device) noexcept nogil
# A device by the figures of a preset: index + 1, 0 when there is no record left.
cdef uint32_t device_create(Mm* mm, const Device* figures, uint32_t name) noexcept nogil
