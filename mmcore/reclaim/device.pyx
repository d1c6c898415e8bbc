"""Block devices: requests, and how long they take.

Models: what a bio costs: submit_bio's counters (pgpgin, pgpgout), merging of neighbouring requests (blk_attempt_plug_merge and the
elevator's back merge), a queue with a number of requests served at a time, devices that complete inside submit_bio (brd, zram:
BDEV_synchronous), the rotational flag of the queue, errors at completion. Simplifies: a request takes the earliest free slot in the order
of submission, waits there for its latency, then moves over the device's one channel at its bandwidth: latencies overlap, transfers do
not. A request is merged only into the one that was submitted just before, if that was not begun before now (what a plug holds back is
submitted at one instant); its pages are complete as each part has moved. A seek takes the same time everywhere. Reads and writes wait in
one line (an elevator would let reads pass). Omits: partitions, flushes and barriers, discard, the elevators' own rules.

The figures of the presets are round and typical, not measured on the host; each can be given by name instead.
"""
from libc.string cimport memset

from mmcore.base.args cimport as_int
from mmcore.base.clock cimport EV_IO_DONE, last_time_ns, post_event
from mmcore.base.errors cimport E_IO
from mmcore.base.pool cimport pool_take
from mmcore.base.stat_items cimport VE_PGPGIN, VE_PGPGOUT
from mmcore.base.state cimport State, state_enter, state_leave
from mmcore.base.vm_records cimport (
    DEVICE_SEEKS, DEVICE_USED, POOL_DEVICES, REQ_FAILED, REQ_VALID, REQ_WRITE,
)

# name: flags, depth, latency in ns (read, write), bytes a second (read, write), KiB in a request, KiB in the queue.
PRESETS = {
    # drivers/block/brd.c: copies inside submit_bio, never waits, not rotational; 5 GB/s is what one core copies from cold memory
    "ram": (DEVICE_SYNCHRONOUS, 1, 200, 200, 5_000_000_000, 5_000_000_000, 1280, 1 << 20),
    # drivers/block/virtio_blk.c reports every disk as rotational; QEMU's queue holds 256 requests. Latency and bandwidth: an exit to the
    # host and a copy to or from a file in its cache.
    "virtio": (DEVICE_ROTATIONAL, 8, 120_000, 120_000, 1_000_000_000, 800_000_000, 1280, 256 * 1280),
    # a PCIe 3 x4 drive: data sheets give 3.5 and 3.0 GB/s, reads of flash take about 80 us, writes end in the drive's buffer after 20 us
    "nvme": (0, 8, 80_000, 20_000, 3_500_000_000, 3_000_000_000, 1280, 1023 * 128),
    # 7200 rpm: half a turn is 4.17 ms, an average seek 8.5 ms; 160 MB/s at the outside; SATA NCQ does not shorten a single seek
    "hdd": (DEVICE_ROTATIONAL | DEVICE_SEEKS, 1, 12_670_000, 12_670_000, 160_000_000, 160_000_000, 1280, 64 * 1280),
}
_FLAGS = {"synchronous": DEVICE_SYNCHRONOUS, "rotational": DEVICE_ROTATIONAL, "seeks": DEVICE_SEEKS}


# ---------------------------------------------------------------- the arithmetic

cdef int64_t serve(Device* d, int64_t now, bint write, uint64_t at, int64_t nr, int* error) noexcept nogil:
    # One request, or a piece that joins the last one: when it is complete.
    cdef int64_t ns_per_page = d.ns_per_page_write if write else d.ns_per_page_read
    cdef int64_t latency = d.write_latency_ns if write else d.read_latency_ns, start, ready
    cdef unsigned slot = 0, k
    cdef uint64_t* fail = &d.fail_writes if write else &d.fail_reads
    cdef unsigned kind = REQ_VALID | (REQ_WRITE if write else 0)
    if (at != NOWHERE and d.last_flags & (REQ_VALID | REQ_WRITE) == kind and d.last_end == at and d.last_start >= now
            and d.last_pages + <uint64_t>nr <= d.max_pages):
        # the channel serves in order, so nothing stands behind the last request
        d.last_end += <uint64_t>nr
        d.last_pages += <uint32_t>nr
        d.bus_until += nr * ns_per_page
        if d.bus_until > last_time_ns():
            d.bus_until = last_time_ns()
        d.busy_until[d.last_slot] = d.bus_until
        if write:
            d.write_merges += 1
        else:
            d.read_merges += 1
        error[0] = -E_IO if d.last_flags & REQ_FAILED else 0
        return d.bus_until
    for k in range(1, d.depth):
        if d.busy_until[k] < d.busy_until[slot]:
            slot = k
    start = d.busy_until[slot] if d.busy_until[slot] > now else now
    if d.flags & DEVICE_SEEKS and at != NOWHERE and d.last_flags & REQ_VALID and d.last_end == at:
        latency = 0
    ready = start + latency
    if ready < d.bus_until:
        ready = d.bus_until
    d.bus_until = ready + nr * ns_per_page
    if d.bus_until > last_time_ns():
        d.bus_until = last_time_ns()
    d.busy_until[slot] = d.bus_until
    error[0] = 0
    if fail[0]:
        fail[0] -= 1
        if fail[0] == 0:
            error[0] = -E_IO
            kind |= REQ_FAILED
            d.nr_failed += 1
    d.last_start = start
    d.last_end = at + <uint64_t>nr if at != NOWHERE else 0
    d.last_pages = <uint32_t>nr
    d.last_slot = <unsigned short>slot
    d.last_flags = <unsigned short>(kind if at != NOWHERE else 0)
    if write:
        d.nr_writes += 1
    else:
        d.nr_reads += 1
    return d.bus_until


cdef int64_t serve_at_once(Device* d, int64_t now, bint write, int64_t nr, int* error) noexcept nogil:
    cdef uint64_t* fail = &d.fail_writes if write else &d.fail_reads
    error[0] = 0
    if fail[0]:
        fail[0] -= 1
        if fail[0] == 0:
            error[0] = -E_IO
            d.nr_failed += 1
    if write:
        d.nr_writes += 1
    else:
        d.nr_reads += 1
    return now


cdef int64_t device_submit(Mm* mm, uint32_t device, bint write, uint64_t at, int64_t nr_pages, int* error) noexcept nogil:
    cdef Device* d
    cdef int64_t done = mm.g.now_ns, n
    cdef int rc
    error[0] = 0
    if nr_pages <= 0:
        return done
    mm.vm.g.events[VE_PGPGOUT if write else VE_PGPGIN] += <uint64_t>nr_pages * 4
    if device == 0:
        return done
    d = device_at(mm, device)
    if write:
        d.pages_written += <uint64_t>nr_pages
    else:
        d.pages_read += <uint64_t>nr_pages
    while nr_pages:
        # longer ones are split
        n = nr_pages if nr_pages < d.max_pages else d.max_pages
        if d.flags & DEVICE_SYNCHRONOUS:
            done = serve_at_once(d, mm.g.now_ns, write, n, &rc)
        else:
            done = serve(d, mm.g.now_ns, write, at, n, &rc)
            d.nr_inflight += <uint32_t>n
        if rc:
            error[0] = rc
        if at != NOWHERE:
            at += <uint64_t>n
        nr_pages -= n
    return done


cdef int device_submit_page(Mm* mm, uint32_t device, bint write, uint64_t at, uint32_t pfn, unsigned cpu) noexcept nogil:
    cdef int error = 0
    cdef int64_t done = device_submit(mm, device, write, at, 1, &error)
    cdef uint64_t how
    if device_synchronous(mm, device):
        return error
    how = (IO_WRITE if write else 0) | (IO_FAILED if error else 0)
    if post_event(mm, done, EV_IO_DONE, pfn | <uint64_t>page_io_tag(mm, pfn) << 32, device | how << 32 | <uint64_t>cpu << 40) == 0:
        return 1
    device_complete(mm, device, 1)
    return error


cdef void device_complete(Mm* mm, uint32_t device, int64_t nr_pages) noexcept nogil:
    cdef Device* d
    if device:
        d = device_at(mm, device)
        d.nr_inflight -= <uint32_t>nr_pages if <uint64_t>nr_pages < d.nr_inflight else d.nr_inflight


cdef bint device_congested(Mm* mm, uint32_t device) noexcept nogil:
    return device != 0 and device_at(mm, device).nr_inflight >= device_at(mm, device).queue_pages


cdef uint32_t device_create(Mm* mm, const Device* figures, uint32_t name) noexcept nogil:
    cdef uint32_t x = pool_take(&mm.vm.pools[POOL_DEVICES], mm.vm.devices, sizeof(Device))
    if x:
        mm.vm.devices[x - 1] = figures[0]
        mm.vm.devices[x - 1].link = 0
        mm.vm.devices[x - 1].name = name
        mm.vm.devices[x - 1].flags |= DEVICE_USED
    return x


# ---------------------------------------------------------------- entries from Python

cdef inline uint32_t as_device(State s, object value) except 0:
    cdef uint32_t x = <uint32_t>as_int(value, "device", 1, 0x7fffffff)
    if x > s.c.vm.pools[POOL_DEVICES].used or not s.c.vm.devices[x - 1].flags & DEVICE_USED:
        raise ValueError(f"device is {value}: no such device")
    return x


def create(State state not None, str preset, str name, *, latency_ns=None, read_latency_ns=None, write_latency_ns=None, bandwidth=None,
           read_bandwidth=None, write_bandwidth=None, depth=None, request_kib=None, queue_kib=None, synchronous=None, rotational=None,
           seeks=None):
    """A device with a preset's figures, some of them given instead (bandwidth: bytes a second): its number. ValueError names what is wrong."""
    cdef Device d
    cdef uint32_t x
    memset(&d, 0, sizeof(Device))
    if preset not in PRESETS:
        raise ValueError(f"no device {preset!r}; there are {', '.join(PRESETS)}")
    if not name or len(name) > 255 or not name.isprintable():
        raise ValueError(f"name is {name!r}; it must be 1..255 printable characters")
    flags, slots, read_ns, write_ns, read_bw, write_bw, request, queue = PRESETS[preset]
    for what, given in (("synchronous", synchronous), ("rotational", rotational), ("seeks", seeks)):
        if given is not None:
            if not isinstance(given, bool):
                raise TypeError(f"{what} must be True or False, not {given!r}")
            flags = flags | _FLAGS[what] if given else flags & ~_FLAGS[what]
    for one, two, name_, old in ((read_latency_ns, latency_ns, "read_latency_ns", read_ns), (write_latency_ns, latency_ns, "write_latency_ns", write_ns)):
        value = as_int(one if one is not None else two if two is not None else old, name_, 0, 10**12)
        if name_ == "read_latency_ns":
            d.read_latency_ns = value
        else:
            d.write_latency_ns = value
    for one, two, name_, old in ((read_bandwidth, bandwidth, "read_bandwidth", read_bw), (write_bandwidth, bandwidth, "write_bandwidth", write_bw)):
        value = as_int(one if one is not None else two if two is not None else old, name_, 4096, 10**15)
        if name_ == "read_bandwidth":
            d.ns_per_page_read = 4096 * 1_000_000_000 // <int64_t>value
        else:
            d.ns_per_page_write = 4096 * 1_000_000_000 // <int64_t>value
    d.flags = flags
    d.depth = as_int(slots if depth is None else depth, "depth", 1, DEVICE_DEPTH_MAX)
    d.max_pages = as_int(request if request_kib is None else request_kib, "request_kib", 4, 1 << 20) // 4
    d.queue_pages = as_int(queue if queue_kib is None else queue_kib, "queue_kib", 4, 1 << 30) // 4
    for row in state.get("devices"):
        if int(row["flags"]) & DEVICE_USED and state.names[int(row["name"]) - 1] == name:
            raise ValueError(f"there is a device {name!r} already")
    if state.c.vm.pools[POOL_DEVICES].live == state.c.vm.pools[POOL_DEVICES].capacity:
        raise ValueError(f"there are {state.c.vm.pools[POOL_DEVICES].live} devices; no more fit")
    state_enter(state)
    state.names.append(name)
    x = device_create(&state.c, &d, <uint32_t>len(state.names))
    state_leave(state)
    return x


def submit(State state not None, device, write, at, nr_pages):
    """Ask for nr_pages at page `at` of the device (None: somewhere): (time of completion in ns, whether it will have failed). For tests: no
    event is posted, and nothing stays in flight."""
    cdef uint32_t x = as_device(state, device)
    cdef int64_t n = as_int(nr_pages, "nr_pages", 1, 1 << 24), done
    cdef uint64_t pos = NOWHERE if at is None else <uint64_t>as_int(at, "at", 0, 1 << 52)
    cdef bint w = bool(write)
    cdef int error
    state_enter(state)
    done = device_submit(&state.c, x, w, pos, n, &error)
    device_complete(&state.c, x, n)
    state_leave(state)
    return done, error != 0


def fail_next(State state not None, device, *, reads=None, writes=None):
    """Let the n-th read or write request from now on fail (1: the next one; 0: none)."""
    cdef uint32_t x = as_device(state, device)
    cdef int64_t r = -1 if reads is None else as_int(reads, "reads", 0, 0x7fffffffffffffff)
    cdef int64_t w = -1 if writes is None else as_int(writes, "writes", 0, 0x7fffffffffffffff)
    state_enter(state)
    if r >= 0:
        state.c.vm.devices[x - 1].fail_reads = <uint64_t>r
    if w >= 0:
        state.c.vm.devices[x - 1].fail_writes = <uint64_t>w
    state_leave(state)


def set_file_device(State state not None, device):
    """The device that files are read from and written to; None: that takes no time."""
    cdef uint32_t x = 0 if device is None else as_device(state, device)
    state_enter(state)
    state.c.vm.g.file_device = x
    state_leave(state)
