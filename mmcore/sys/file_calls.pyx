"""Files as Python asks for them: arguments are checked, the lock is taken, and the recount of all page caches.

Models: nothing of its own; see mmcore.sys.filemap and mmcore.sys.readahead for what the calls do.
"""
import numpy as np

cimport numpy as cnp
from libc.stdint cimport int64_t, uint32_t, uint64_t
from mmcore.base.args cimport as_int
from mmcore.base.clock cimport check_events
from mmcore.base.errors cimport E_NOMEM
from mmcore.base.flags cimport PG_allocated, PG_dirty, PG_file, PG_meta, PG_swapbacked, PG_uptodate, PG_writeback
from mmcore.base.records cimport Mm, Page, PageMeta, meta_at, page_at
from mmcore.base.stat_items cimport NS_NR_DIRTY, NS_NR_FILE_PAGES, NS_NR_SHMEM, NS_NR_SWAPCACHED, NS_NR_WRITEBACK
from mmcore.base.state cimport State, state_enter, state_leave, state_lock, state_unlock
from mmcore.base.vm_records cimport FILE_NORESERVE, FILE_RAM, FILE_SHMEM, FILE_UNLINKED, POOL_FILES, POOL_XNODES, File
from mmcore.phys.buddy cimport zone_of
from mmcore.reclaim.writeback cimport check_writeback, dirty_file_of
from mmcore.reclaim.page_cache cimport file_notifies, file_pages, mapping_at
from mmcore.sys.filemap cimport (
    MAP_PAGES_MAX, MapPage, fault_around_range, file_alloc, file_fadvise, file_fsync, file_put, filemap_drop_range,
    filemap_fault, filemap_map_pages, filemap_read, filemap_write,
)
from mmcore.sys.truncate cimport file_punch, file_set_size
from mmcore.vm.radix cimport radix_check, radix_mark, radix_next, radix_nodes, slot_is_page, slot_pfn
from mmcore.vm.rmap cimport page_index

cnp.import_array()

cdef enum:
    SHORT_READ = 1 << 16


cdef inline uint32_t as_file(State s, object value) except 0:
    cdef uint32_t x = <uint32_t>as_int(value, "file", 1, 0x7fffffff)
    cdef File* f
    if x <= s.c.vm.pools[POOL_FILES].used:
        f = mapping_at(&s.c, x)
        if f.id and (f.nr_opens or not f.flags & FILE_UNLINKED):
            return x
    raise ValueError(f"file is {value}: no such file (it was unlinked, or never was)")


cdef inline unsigned as_cpu(State s, object value) except? 0xffffffff:
    return <unsigned>as_int(value, "cpu", 0, s.c.g.nr_cpus - 1)


cdef enum:
    MAX_SIZE = 0x1000000000000000   # bytes of the largest file
    MAX_LENGTH = 0x7ffffffffffff000


def create_file(State state not None, name, size, flags=0):
    """A file of `size` bytes, held open once: its handle, or -ENOMEM. flags: 1 tmpfs, 2 without a backing device."""
    cdef uint64_t n = <uint64_t>as_int(size, "size", 0, MAX_SIZE)
    cdef uint32_t f = <uint32_t>as_int(flags, "flags", 0, FILE_SHMEM | FILE_RAM), x, number = 0
    if not isinstance(name, str):
        raise TypeError(f"name must be a string, not {type(name).__name__}")
    if f & FILE_SHMEM:
        f |= FILE_NORESERVE
    state_lock(state)
    try:
        if name:
            if name not in state.names:
                state.names.append(name)
            number = state.names.index(name) + 1
        x = file_alloc(&state.c, n, f, number)
        if x:
            mapping_at(&state.c, x).nr_opens = 1
    finally:
        state_unlock(state)
    return x if x else -E_NOMEM


def unlink(State state not None, file, cpu=0):
    """The file loses its name and the one who holds it open; it goes at once, or with its last mapping."""
    cdef unsigned c = as_cpu(state, cpu)
    cdef uint32_t x
    cdef File* f
    state_lock(state)
    try:
        x = as_file(state, file)
        f = mapping_at(&state.c, x)
        f.flags |= FILE_UNLINKED
        f.nr_opens -= 1 if f.nr_opens else 0
        with nogil:
            file_put(&state.c, x, c)
    finally:
        state_unlock(state)


def file_size(State state not None, file):
    """Its size in bytes."""
    return mapping_at(&state.c, as_file(state, file)).size


def read(State state not None, file, offset, length, cpu=0):
    """read(): (pages copied from, pages that had to be read first); pages is -ENOMEM when there was no memory for the first one."""
    cdef uint64_t at = <uint64_t>as_int(offset, "offset", 0, MAX_LENGTH), n = <uint64_t>as_int(length, "length", 0, MAX_LENGTH)
    cdef unsigned c = as_cpu(state, cpu)
    cdef uint32_t x
    cdef int64_t got, misses
    if n <= SHORT_READ:
        state_enter(state)
        try:
            x = as_file(state, file)
            got = filemap_read(&state.c, x, at, n, c, &misses)
        finally:
            state_leave(state)
        return got, misses
    state_lock(state)
    try:
        x = as_file(state, file)
        with nogil:
            got = filemap_read(&state.c, x, at, n, c, &misses)
    finally:
        state_unlock(state)
    return got, misses


def write(State state not None, file, offset, length, cpu=0):
    """write(): pages written; fewer when memory ran out; -ENOMEM when none was, -EFBIG beyond the largest file. The file grows."""
    cdef uint64_t at = <uint64_t>as_int(offset, "offset", 0, MAX_LENGTH), n = <uint64_t>as_int(length, "length", 0, MAX_LENGTH)
    cdef unsigned c = as_cpu(state, cpu)
    cdef uint32_t x
    cdef int64_t got
    state_lock(state)
    try:
        x = as_file(state, file)
        with nogil:
            got = filemap_write(&state.c, x, at, n, c)
    finally:
        state_unlock(state)
    return got


def fault(State state not None, file, index, vm_flags=0, cpu=0):
    """The page a fault on `index` finds, as a process's fault would: (0 minor, 1 major or -errno, page frame or -1). Nothing is mapped."""
    cdef uint64_t i = <uint64_t>as_int(index, "index", 0, MAX_LENGTH), v = <uint64_t>as_int(vm_flags, "vm_flags", 0, MAX_LENGTH)
    cdef unsigned c = as_cpu(state, cpu)
    cdef uint32_t x, pfn = 0
    cdef int rc
    state_lock(state)
    try:
        x = as_file(state, file)
        with nogil:
            rc = filemap_fault(&state.c, x, i, v, 0, <uint64_t>-1, c, &pfn)
    finally:
        state_unlock(state)
    return rc, (pfn if rc >= 0 else -1)


def map_pages(State state not None, file, first, end):
    """What fault-around would map of pages [first, end): arrays of indices (uint64) and page frames (uint32)."""
    cdef uint64_t a = <uint64_t>as_int(first, "first", 0, MAX_LENGTH), b = <uint64_t>as_int(end, "end", 0, MAX_LENGTH)
    cdef MapPage found[MAP_PAGES_MAX]
    cdef int64_t n, k
    cdef uint32_t x
    state_lock(state)
    try:
        x = as_file(state, file)
        n = filemap_map_pages(&state.c, x, a, b, 0, found)
    finally:
        state_unlock(state)
    return np.array([found[k].index for k in range(n)], np.uint64), np.array([found[k].pfn for k in range(n)], np.uint32)


def around(i, v, pages, n, entries=512):
    """fault_around_range(): the first and last page-table entry of the window."""
    cdef uint64_t lo, hi
    if n < 1 or n & (n - 1) or not 0 <= i < entries or not 0 <= v < pages:
        raise ValueError(f"entry {i} of {entries}, page {v} of {pages}, window {n}: the window must be a power of two, the others in range")
    fault_around_range(i, v, pages, n, entries, &lo, &hi)
    return lo, hi


def cached(State state not None, file):
    """Indices of the cached pages, ascending, and those of them that carry the read-ahead mark (both uint64)."""
    cdef uint64_t at = 0
    cdef uint64_t* slot
    cdef uint32_t x
    cdef Py_ssize_t n = 0, m = 0
    cdef uint64_t[::1] a, b
    state_lock(state)
    try:
        x = as_file(state, file)
        indices = np.zeros(mapping_at(&state.c, x).nr_pages, np.uint64)
        marked = np.zeros(mapping_at(&state.c, x).nr_pages, np.uint64)
        a, b = indices, marked
        while n < a.shape[0]:
            slot = radix_next(&state.c, mapping_at(&state.c, x), &at, <uint64_t>-1)
            if slot == NULL:
                break
            if slot_is_page(slot[0]):
                a[n] = at
                n += 1
                if slot[0] & radix_mark():
                    b[m] = at
                    m += 1
            at += 1
    finally:
        state_unlock(state)
    return indices[:n], marked[:m].copy()


def truncate(State state not None, file, size, cpu=0):
    """ftruncate(): a new size in bytes; pages beyond it go, with all that maps them and what private mappings made of them. 0 or -EFBIG."""
    cdef uint64_t n = <uint64_t>as_int(size, "size", 0, MAX_SIZE)
    cdef unsigned c = as_cpu(state, cpu)
    cdef uint32_t x
    cdef int rc
    state_lock(state)
    try:
        x = as_file(state, file)
        with nogil:
            rc = file_set_size(&state.c, x, n, c)
    finally:
        state_unlock(state)
    return rc


def punch_hole(State state not None, file, offset, length, cpu=0):
    """fallocate(FALLOC_FL_PUNCH_HOLE): whole pages in the range go, with the mappings of them (not private copies); the size stays. 0."""
    cdef uint64_t at = <uint64_t>as_int(offset, "offset", 0, MAX_LENGTH), n = <uint64_t>as_int(length, "length", 0, MAX_LENGTH)
    cdef unsigned c = as_cpu(state, cpu)
    cdef uint32_t x
    state_lock(state)
    try:
        x = as_file(state, file)
        with nogil:
            file_punch(&state.c, x, (at + 4095) >> 12, (at + n) >> 12, c)
    finally:
        state_unlock(state)
    return 0


def drop_cache(State state not None, file, cpu=0):
    """invalidate_mapping_pages(): clean pages that are not mapped go (those of tmpfs and ramfs have nowhere else to be); how many."""
    cdef unsigned c = as_cpu(state, cpu)
    cdef uint32_t x
    cdef int64_t n = 0
    state_lock(state)
    try:
        x = as_file(state, file)
        if file_notifies(&state.c, x):
            with nogil:
                n = filemap_drop_range(&state.c, x, 0, <uint64_t>-1, False, c, NULL)
    finally:
        state_unlock(state)
    return n


def fadvise(State state not None, file, offset, length, advice, cpu=0):
    """posix_fadvise(): 0 normal, 1 random, 2 sequential, 3 willneed, 4 dontneed, 5 noreuse. 0 or -EINVAL."""
    cdef uint64_t at = <uint64_t>as_int(offset, "offset", 0, MAX_LENGTH), n = <uint64_t>as_int(length, "length", 0, MAX_LENGTH)
    cdef int a = <int>as_int(advice, "advice", 0, 1000)
    cdef unsigned c = as_cpu(state, cpu)
    cdef uint32_t x
    cdef int rc
    state_lock(state)
    try:
        x = as_file(state, file)
        with nogil:
            rc = file_fadvise(&state.c, x, at, n, a, c)
    finally:
        state_unlock(state)
    return rc


def fsync(State state not None, file):
    """All pages of the file are clean then: how many were dirty."""
    cdef uint32_t x
    cdef int64_t n, wait_ns
    state_lock(state)
    try:
        x = as_file(state, file)
        with nogil:
            n = file_fsync(&state.c, x, 0, &wait_ns)
    finally:
        state_unlock(state)
    return n


def set_ra_pages(State state not None, pages):
    """The read-ahead window of files in pages (bdi->ra_pages, read_ahead_kb / 4); 0: none."""
    state.c.vm.g.ra_pages = <uint32_t>as_int(pages, "pages", 0, 1 << 20) + 1


# ---------------------------------------------------------------- recount

cdef str page_fault(Mm* mm, uint32_t file, uint64_t index, uint32_t pfn):
    cdef File* f = mapping_at(mm, file)
    cdef Page* p
    cdef PageMeta* m
    if pfn >= mm.g.nr_pages or zone_of(mm, pfn) == 0:
        return f"page frame {pfn} is no memory"
    p = page_at(mm, pfn)
    m = meta_at(mm, pfn)
    if not p.flags & PG_allocated or not p.flags & PG_file or not p.flags & PG_uptodate:
        return f"page frame {pfn} has flags {p.flags:#x}"
    if (p.flags & PG_swapbacked != 0) != (f.flags & FILE_SHMEM != 0):
        return f"page frame {pfn} is swap-backed or not against its file's kind"
    if p.private_ != file or page_index(m) != index:
        return f"page frame {pfn} says it is page {page_index(m)} of file {p.private_}"
    if (p.flags & PG_meta != 0) != (m.mapcount != 0 or page_index(m) != 0 or m.extra_refs != 0):
        return f"page frame {pfn} has PG_meta wrong"
    return ""


cdef void count_states(Mm* mm, uint32_t pfn, uint64_t* dirty, uint64_t* writeback, int64_t[:, ::1] states) noexcept nogil:
    cdef uint32_t node = mm.zones[zone_of(mm, pfn) - 1].node
    if page_at(mm, pfn).flags & PG_dirty:
        dirty[0] += 1
        states[node, 0] += 1
    if page_at(mm, pfn).flags & PG_writeback:
        writeback[0] += 1
        states[node, 1] += 1


def validate_files(State state not None):
    """Recounts all files and their page caches: a list of what is wrong (empty: nothing)."""
    cdef Mm* mm = &state.c
    cdef uint32_t x, pfn
    cdef uint64_t entries, nodes, at, pages, all_nodes = 0
    cdef uint64_t* slot
    cdef File* f
    cdef int rc
    cdef uint64_t dirty = 0, writeback = 0
    cdef int64_t[:, ::1] states
    problems = []
    states = np.zeros((mm.g.nr_nodes, 2), np.int64)
    file_count = np.zeros(mm.g.nr_nodes, np.int64)
    shmem_count = np.zeros(mm.g.nr_nodes, np.int64)
    state_lock(state)
    try:
        for x in range(1, mm.vm.pools[POOL_FILES].used + 1):
            f = mapping_at(mm, x)
            if f.id == 0:
                if f.radix or f.nr_pages:
                    problems.append(f"file {x} is free, yet has pages")
                continue
            rc = radix_check(mm, f, &entries, &nodes)
            if rc:
                problems.append(f"file {x}: its index is damaged (fault {rc})")
                continue
            all_nodes += nodes
            if radix_nodes(mm, f) not in (nodes, nodes - 1):
                problems.append(f"file {x}: {nodes} index nodes")
            at = pages = 0
            dirty = writeback = 0
            while True:
                slot = radix_next(mm, f, &at, <uint64_t>-1)
                if slot == NULL:
                    break
                if slot_is_page(slot[0]):
                    pages += 1
                    pfn = slot_pfn(slot[0])
                    if dirty_file_of(mm, pfn):
                        count_states(mm, pfn, &dirty, &writeback, states)
                    wrong = page_fault(mm, x, at, pfn)
                    if wrong:
                        problems.append(f"file {x}, page {at}: {wrong}")
                    else:
                        file_count[mm.zones[zone_of(mm, pfn) - 1].node] += 1
                        shmem_count[mm.zones[zone_of(mm, pfn) - 1].node] += 1 if f.flags & FILE_SHMEM else 0
                    if at >= file_pages(f):
                        problems.append(f"file {x}, page {at}: beyond the end ({f.size} bytes)")
                at += 1
            if dirty != f.nr_dirty or writeback != f.nr_writeback:
                problems.append(f"file {x}: {f.nr_dirty} pages dirty and {f.nr_writeback} under write-back, there are {dirty} and {writeback}")
            if pages != f.nr_pages:
                problems.append(f"file {x}: nr_pages is {f.nr_pages}, {pages} are cached")
        if all_nodes != mm.vm.pools[POOL_XNODES].live:
            problems.append(f"{mm.vm.pools[POOL_XNODES].live} index nodes are taken, {all_nodes} belong to files")
        for x in range(0 if mm.vm.g.foreign_counts else mm.g.nr_nodes):
            # the swap cache counts as page cache (sys/swap_check recounts it)
            if mm.nodes[x].vm_stat[NS_NR_FILE_PAGES] - mm.nodes[x].vm_stat[NS_NR_SWAPCACHED] != file_count[x]:
                problems.append(f"node {x}: nr_file_pages is {mm.nodes[x].vm_stat[NS_NR_FILE_PAGES]}, {file_count[x]} are cached")
            if mm.nodes[x].vm_stat[NS_NR_SHMEM] != shmem_count[x]:
                problems.append(f"node {x}: nr_shmem is {mm.nodes[x].vm_stat[NS_NR_SHMEM]}, {shmem_count[x]} are cached")
            # pages of swap may be under write-back too
            if mm.nodes[x].vm_stat[NS_NR_DIRTY] != states[x, 0] or mm.nodes[x].vm_stat[NS_NR_WRITEBACK] < states[x, 1]:
                problems.append(f"node {x}: nr_dirty is {mm.nodes[x].vm_stat[NS_NR_DIRTY]} and nr_writeback {mm.nodes[x].vm_stat[NS_NR_WRITEBACK]}, "
                                f"there are {states[x, 0]} and {states[x, 1]} pages of files")
        if check_writeback(mm):
            problems.append("the flusher's lists of files are damaged")
        if check_events(mm):
            problems.append("the event queue is damaged")
    finally:
        state_unlock(state)
    return problems
