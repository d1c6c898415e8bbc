"""mmap and munmap.

Models: do_mmap, mmap_region, get_unmapped_area, thp_get_unmapped_area, arch_get_unmapped_area_topdown, do_vmi_munmap (mm/mmap.c, mm/vma.c,
arch/x86/kernel/sys_x86_64.c, v6.12). Simplifies: files may be read, written and executed, and are placed without regard to 2 MiB; errors
are found before anything is unmapped, except that records run out. Omits: shared hugetlb mappings, memory sealing, protection keys, the legacy layout.
"""
from mmcore.base.errors cimport E_BADF, E_EXIST, E_INVAL, E_NOMEM, E_AGAIN, E_OPNOTSUPP, E_OVERFLOW, E_PERM
from mmcore.base.pool cimport pool_room
from mmcore.base.vm_records cimport (
    AddressSpace, FILE_NORESERVE, FILE_SHMEM, FILE_UNLINKED, MM_ANONPAGES, MM_FILEPAGES, MM_SHMEMPAGES, POOL_FILES, POOL_VMAS, Vma,
)
from mmcore.sys.commit cimport MMF_CAP_SYS_RAWIO, can_do_mlock, may_expand_vm, mlock_future_ok, vm_enough_memory, vm_unacct_memory
from mmcore.sys.filemap cimport file_alloc, file_put
from mmcore.sys.flush cimport FlushRange, flush_note, flush_noted
from mmcore.sys.hugetlb cimport HPAGE_BYTES, hugetlb_close, hugetlb_reserve, hugetlb_unreserve
from mmcore.sys.tables cimport free_tables
from mmcore.sys.vma_ops cimport NewRange, file_at, map_range, remove_vma, split_vma_always
from mmcore.sys.zap cimport zap_range
from mmcore.vm.vma cimport *

cdef enum:
    PMD_SIZE = 1 << 21
    PAGING_5LEVEL = 1
    PAGING_2LEVEL = 2
    PAGING_PAE = 3
    MAP_HUGE_SHIFT = 26
    MAP_HUGE_MASK = 0x3f
    HPAGE_SHIFT = 21

cdef extern from *:
    """
    #define NOWHERE (~0ull)
    #define WINDOW_5LEVEL ((1ull << 47) - 4096)
    #define FILE_BYTES_MAX 0x7fffffffffffffffull
    """
    uint64_t NOWHERE
    uint64_t WINDOW_5LEVEL
    uint64_t FILE_BYTES_MAX


# ---------------------------------------------------------------- placement

cdef uint64_t map_window(Mm* mm, uint32_t as_) noexcept nogil:
    return WINDOW_5LEVEL if mm.vm.g.paging == PAGING_5LEVEL else as_at(mm, as_).task_size


cdef inline bint is_free(Mm* mm, uint32_t as_, uint64_t addr, uint64_t length) noexcept nogil:
    cdef uint32_t x = find_vma(mm, as_, addr)
    return not x or addr + length <= vm_start_gap(mm, vma_at(mm, x))


cdef uint64_t area_bottomup(Mm* mm, uint32_t as_, uint64_t addr, uint64_t length, uint64_t flags) noexcept nogil:
    cdef uint64_t window = map_window(mm, as_), begin = PAGE_UP(window // 3), end = window
    if flags & MAP_32BIT:
        begin = 0x40000000
        end = 0x80000000
    elif addr > window:
        end = as_at(mm, as_).task_size
    if length > end:
        return NOWHERE
    if addr:
        addr = PAGE_UP(addr)
        if end - length >= addr and is_free(mm, as_, addr, length):
            return addr
    return unmapped_area_bottomup(mm, as_, begin, end, length)


cdef uint64_t area_topdown(Mm* mm, uint32_t as_, uint64_t addr, uint64_t length, uint64_t flags) noexcept nogil:
    cdef uint64_t window = map_window(mm, as_), size = as_at(mm, as_).task_size, hint = addr, high = as_at(mm, as_).mmap_base, found
    if length > size:
        return NOWHERE
    if not flags & MAP_32BIT:
        if addr:
            addr = PAGE_DOWN(addr)
            # a hint must not lie across the border of the usual addresses
            if size - length >= addr and (addr > window) == (addr + length > window) and is_free(mm, as_, addr, length):
                return addr
        if addr > window:
            high += size - window
        found = unmapped_area_topdown(mm, as_, PAGE_BYTES, high, length)
        if found != NOWHERE:
            return found
    return area_bottomup(mm, as_, hint, length, flags)


cdef uint64_t area_hugetlb(Mm* mm, uint32_t as_, uint64_t addr, uint64_t length, uint64_t flags) noexcept nogil:
    # hugetlb_get_unmapped_area(): like area_topdown(), but on whole huge pages
    cdef uint64_t window = map_window(mm, as_), size = as_at(mm, as_).task_size, high = as_at(mm, as_).mmap_base, found
    cdef uint64_t slack = HPAGE_BYTES - PAGE_BYTES
    if addr:
        addr = (addr + HPAGE_BYTES - 1) & ~<uint64_t>(HPAGE_BYTES - 1)
        if addr and size - length >= addr and (addr > window) == (addr + length > window) and is_free(mm, as_, addr, length):
            return addr
    if addr > window:
        high += size - window
    found = unmapped_area_topdown(mm, as_, PAGE_BYTES, high, length + slack)
    if found != NOWHERE:
        return (found + slack) & ~<uint64_t>(HPAGE_BYTES - 1)
    found = unmapped_area_bottomup(mm, as_, PAGE_UP(window // 3), window, length + slack)
    return NOWHERE if found == NOWHERE else (found + slack) & ~<uint64_t>(HPAGE_BYTES - 1)


cdef int64_t get_unmapped_area(Mm* mm, uint32_t as_, bint private_anon, uint64_t addr, uint64_t length, uint64_t flags) noexcept nogil:
    cdef AddressSpace* a = as_at(mm, as_)
    cdef uint64_t found = NOWHERE
    if length > a.task_size:
        return -E_NOMEM
    if mm.vm.g.paging == PAGING_2LEVEL or mm.vm.g.paging == PAGING_PAE:
        flags &= ~<uint64_t>MAP_32BIT
        private_anon = False
    if flags & MAP_FIXED:
        found = addr
    elif flags & MAP_HUGETLB:
        found = area_hugetlb(mm, as_, addr, length, flags)
    else:
        if private_anon and not addr and length and not length & (PMD_SIZE - 1):
            found = area_topdown(mm, as_, 0, length + PMD_SIZE, flags)
            if found != NOWHERE:            # the higher one of two aligned places
                found += PMD_SIZE - (found & (PMD_SIZE - 1))
        if found == NOWHERE:
            found = area_topdown(mm, as_, addr, length, flags)
    if found == NOWHERE or found > a.task_size - length:
        return -E_NOMEM
    if found & (PAGE_BYTES - 1):
        return -E_INVAL
    if found < <uint64_t>mm.vm.g.mmap_min_addr and not a.flags & MMF_CAP_SYS_RAWIO:
        return -E_PERM
    return <int64_t>found


# ---------------------------------------------------------------- munmap

cdef void note_hiwater(AddressSpace* a) noexcept nogil:
    cdef int64_t rss = a.rss[<int>MM_FILEPAGES] + a.rss[<int>MM_ANONPAGES] + a.rss[<int>MM_SHMEMPAGES]
    if a.hiwater_vm < a.total_vm:
        a.hiwater_vm = a.total_vm
    if rss > 0 and a.hiwater_rss < <uint64_t>rss:
        a.hiwater_rss = <uint64_t>rss


cdef void close_hugetlb(Mm* mm, uint32_t first, uint64_t end, unsigned cpu) noexcept nogil:
    cdef uint32_t x = first
    while x and vma_at(mm, x).end <= end:
        if vma_at(mm, x).flags & VM_HUGETLB:
            hugetlb_close(mm, vma_at(mm, x), cpu)
        x = vma_at(mm, x).next


cdef void unmap_vmas(Mm* mm, uint32_t as_, uint32_t first, uint64_t end, unsigned cpu) noexcept nogil:
    # The VMAs from `first` on that end by `end`: pages, then tables, then the VMAs themselves.
    cdef AddressSpace* a = as_at(mm, as_)
    cdef Vma* v = vma_at(mm, first)
    cdef uint32_t x = first, prev = v.prev, next_, last = first
    cdef uint64_t start = v.start, accounted = 0
    cdef bint hugetlb = False
    note_hiwater(a)
    while x and vma_at(mm, x).end <= end:
        v = vma_at(mm, x)
        zap_range(mm, as_, x, v.start, v.end, cpu)
        hugetlb = hugetlb or v.flags & VM_HUGETLB
        last = x
        x = v.next
    if hugetlb:
        close_hugetlb(mm, first, end, cpu)
    free_tables(mm, as_, start, vma_at(mm, last).end, vma_at(mm, prev).end if prev else 0, vma_at(mm, x).start if x else 0, cpu)
    x = first
    while x and vma_at(mm, x).end <= end:
        v = vma_at(mm, x)
        next_ = v.next
        if v.flags & VM_ACCOUNT:
            accounted += vma_pages(v)
        if v.flags & VM_LOCKED:
            a.locked_vm -= vma_pages(v)
        vm_stat_account(a, v.flags, -<int64_t>vma_pages(v))
        remove_vma(mm, x, cpu)
        x = next_
    vm_unacct_memory(mm, accounted)


cdef void unmap_all(Mm* mm, uint32_t as_, unsigned cpu) noexcept nogil:
    if as_at(mm, as_).vma_first:
        unmap_vmas(mm, as_, as_at(mm, as_).vma_first, NOWHERE, cpu)


cdef int unmap_aligned(Mm* mm, uint32_t as_, uint64_t start, uint64_t end, unsigned cpu) noexcept nogil:
    cdef uint32_t x = find_vma_intersection(mm, as_, start, end)
    cdef int rc
    cdef FlushRange f
    if not x:
        return 0
    if vma_at(mm, x).start < start:
        # a hole makes two VMAs of one; a cut at one end does not raise their number
        if vma_at(mm, x).end > end and <int64_t>as_at(mm, as_).map_count >= mm.vm.g.max_map_count:
            return -E_NOMEM
        rc = split_vma_always(mm, x, start, True, cpu)
        if rc < 0:
            return rc
    x = find_vma(mm, as_, end)
    if x and vma_at(mm, x).start < end:
        rc = split_vma_always(mm, x, end, True, cpu)
        if rc < 0:
            return rc
    flush_note(mm, as_, start, end, &f)
    unmap_vmas(mm, as_, find_vma(mm, as_, start), end, cpu)
    flush_noted(mm, as_, &f, cpu)
    return 0


cdef int do_munmap(Mm* mm, uint32_t as_, uint64_t start, uint64_t length, unsigned cpu) noexcept nogil:
    cdef uint64_t size = as_at(mm, as_).task_size
    if start & (PAGE_BYTES - 1) or start > size or length > size - start:
        return -E_INVAL
    length = PAGE_UP(length)
    if not length:
        return -E_INVAL
    return unmap_aligned(mm, as_, start, start + length, cpu)


# ---------------------------------------------------------------- mmap

cdef void count_range(Mm* mm, uint32_t as_, uint64_t start, uint64_t end, uint64_t* pages, uint64_t* accounted) noexcept nogil:
    # Pages of [start, end) that are mapped now, and those of them that are charged to committed memory.
    cdef uint32_t x = find_vma(mm, as_, start)
    cdef const Vma* v
    cdef uint64_t n
    pages[0] = 0
    accounted[0] = 0
    while x and vma_at(mm, x).start < end:
        v = vma_at(mm, x)
        n = ((v.end if v.end < end else end) - (v.start if v.start > start else start)) >> PAGE_SHIFT
        pages[0] += n
        if v.flags & VM_ACCOUNT:
            accounted[0] += n
        x = v.next


cdef int64_t mmap_region(Mm* mm, uint32_t as_, uint64_t addr, uint64_t length, uint64_t vm_flags, uint32_t file, uint64_t pgoff,
                         unsigned cpu) noexcept nogil:
    cdef AddressSpace* a = as_at(mm, as_)
    cdef uint64_t pages = length >> PAGE_SHIFT, mapped, accounted, end = addr + length
    cdef bint charge = vm_flags & (VM_NORESERVE | VM_SHARED | VM_WRITE | VM_HUGETLB) == VM_WRITE
    cdef int64_t reserve = <int64_t>(length // HPAGE_BYTES) if vm_flags & (VM_HUGETLB | VM_NORESERVE) == VM_HUGETLB else 0
    cdef bint shmem = not file and vm_flags & VM_SHARED
    cdef bint charge_file = shmem and not vm_flags & VM_NORESERVE
    cdef uint32_t x, prev
    cdef NewRange r
    cdef int rc
    count_range(mm, as_, addr, end, &mapped, &accounted)
    if pool_room(pool_of(mm, POOL_VMAS)) < 3 or shmem and not pool_room(pool_of(mm, POOL_FILES)):
        return -E_NOMEM
    x = find_vma(mm, as_, addr)
    if x and vma_at(mm, x).start < addr and vma_at(mm, x).end > end and <int64_t>a.map_count >= mm.vm.g.max_map_count:
        return -E_NOMEM
    if not may_expand_vm(a, vm_flags, pages - mapped):
        return -E_NOMEM
    if charge:
        # what is mapped there now hands its charge on
        if pages > accounted and vm_enough_memory(mm, as_, pages - accounted) < 0:
            return -E_NOMEM
        vm_flags |= VM_ACCOUNT
    elif charge_file and vm_enough_memory(mm, as_, pages) < 0:
        return -E_NOMEM
    if reserve and hugetlb_reserve(mm, reserve, cpu) < 0:
        return -E_NOMEM
    if mapped:
        rc = unmap_aligned(mm, as_, addr, end, cpu)
        if rc < 0:
            if reserve:
                hugetlb_unreserve(mm, reserve, cpu)
            vm_unacct_memory(mm, pages - accounted if charge else pages if charge_file else 0)
            return rc
        if charge:
            mm.vm.g.committed += <int64_t>accounted
    if shmem:
        file = file_alloc(mm, length, FILE_SHMEM | FILE_UNLINKED | (0 if charge_file else FILE_NORESERVE), 0)
    r.start = addr
    r.end = end
    r.flags = vm_flags | VM_SOFTDIRTY
    r.pgoff = pgoff
    r.file = file
    r.anon_vma = 0
    r.name = 0
    r.just_expand = False
    x = find_vma_prev(mm, as_, addr, &prev)
    x = map_range(mm, as_, prev, x, &r, cpu)
    if not x:
        if shmem:
            file_put(mm, file, cpu)
        if reserve:
            hugetlb_unreserve(mm, reserve, cpu)
        vm_unacct_memory(mm, pages if charge else 0)
        return -E_NOMEM
    if reserve:
        vma_at(mm, x).ra_win = 1            # hugetlb_owner()
    vm_stat_account(a, vm_flags, <int64_t>pages)
    if vm_flags & VM_LOCKED:
        a.locked_vm += pages
    vma_at(mm, x).flags |= VM_SOFTDIRTY
    return <int64_t>addr


cdef int64_t file_flags(Mm* mm, uint32_t file, uint64_t length, uint64_t pgoff, uint64_t flags, uint64_t vm_flags) noexcept nogil:
    # VM_* that a file's mapping adds, or a negative errno.
    cdef uint64_t kind = flags & MAP_TYPE
    if not file_at(mm, file).id:
        return -E_BADF
    if length > FILE_BYTES_MAX or pgoff > (FILE_BYTES_MAX - length) >> PAGE_SHIFT:
        return -E_OVERFLOW
    if kind != MAP_SHARED and kind != MAP_SHARED_VALIDATE and kind != MAP_PRIVATE:
        return -E_INVAL
    if kind == MAP_SHARED_VALIDATE and flags & ~<uint64_t>0x1fffff:
        return -E_OPNOTSUPP
    if vm_flags & VM_GROWSDOWN:
        return -E_INVAL
    return 0 if kind == MAP_PRIVATE else VM_SHARED | VM_MAYSHARE


cdef bint hugetlb_request_ok(Mm* mm, uint64_t flags) noexcept nogil:
    # MAP_HUGETLB, private, of the one size there is (encoded, or the default)
    cdef uint64_t log = flags >> MAP_HUGE_SHIFT & MAP_HUGE_MASK
    return (log == 0 or log == HPAGE_SHIFT) and flags & MAP_TYPE == MAP_PRIVATE and mm.vm.bits == 9


cdef int64_t do_mmap(Mm* mm, uint32_t as_, uint64_t addr, uint64_t length, uint64_t prot, uint64_t flags, uint32_t file, uint64_t offset,
                     unsigned cpu, uint64_t* populate) noexcept nogil:
    cdef AddressSpace* a = as_at(mm, as_)
    cdef uint64_t vm_flags, pgoff = offset >> PAGE_SHIFT, kind = flags & MAP_TYPE
    cdef int64_t rc
    populate[0] = 0
    if offset & (PAGE_BYTES - 1):
        return -E_INVAL
    if flags & MAP_ANONYMOUS:
        file = 0
        if flags & MAP_HUGETLB:
            if not hugetlb_request_ok(mm, flags):
                return -E_INVAL
            length = (length + HPAGE_BYTES - 1) & ~<uint64_t>(HPAGE_BYTES - 1)
    elif not file:
        return -E_BADF
    elif flags & MAP_HUGETLB:
        return -E_INVAL                     # no file here is hugetlbfs's
    if not length:
        return -E_INVAL
    if flags & MAP_FIXED_NOREPLACE:
        flags |= MAP_FIXED
    if not flags & MAP_FIXED:
        addr = PAGE_DOWN(addr)
        if addr and addr < <uint64_t>mm.vm.g.mmap_min_addr:
            addr = PAGE_UP(mm.vm.g.mmap_min_addr)
    length = PAGE_UP(length)
    if not length:
        return -E_NOMEM
    if pgoff + (length >> PAGE_SHIFT) < pgoff:
        return -E_OVERFLOW
    if <int64_t>a.map_count > mm.vm.g.max_map_count:
        return -E_NOMEM
    vm_flags = prot & VM_ACCESS_FLAGS | VM_MAYREAD | VM_MAYWRITE | VM_MAYEXEC | a.def_flags
    if flags & MAP_GROWSDOWN:
        vm_flags |= VM_GROWSDOWN
    if flags & MAP_LOCKED:
        vm_flags |= VM_LOCKED
    if flags & MAP_STACK:
        vm_flags |= VM_NOHUGEPAGE
    if flags & MAP_HUGETLB and flags & MAP_FIXED and addr & (HPAGE_BYTES - 1):
        return -E_INVAL
    rc = get_unmapped_area(mm, as_, not file and not flags & MAP_SHARED, addr, length, flags)
    if rc < 0:
        return rc
    addr = <uint64_t>rc
    if flags & MAP_FIXED_NOREPLACE and find_vma_intersection(mm, as_, addr, addr + length):
        return -E_EXIST
    if flags & MAP_LOCKED and not can_do_mlock(a):
        return -E_PERM
    if not mlock_future_ok(a, vm_flags, length):
        return -E_AGAIN
    if file:
        rc = file_flags(mm, file, length, pgoff, flags, vm_flags)
        if rc < 0:
            return rc
        vm_flags |= <uint64_t>rc
    elif flags & MAP_HUGETLB:
        if vm_flags & VM_GROWSDOWN:
            return -E_INVAL
        pgoff = 0
        # its pages are never locked, as they are never reclaimed
        populate[0] = length if vm_flags & VM_LOCKED else 0
        vm_flags = vm_flags & ~<uint64_t>VM_LOCKED_MASK | VM_HUGETLB | VM_DONTEXPAND
    elif kind == MAP_SHARED:
        if vm_flags & VM_GROWSDOWN:
            return -E_INVAL
        pgoff = 0
        vm_flags |= VM_SHARED | VM_MAYSHARE
    elif kind == MAP_PRIVATE or kind == MAP_DROPPABLE:
        if kind == MAP_DROPPABLE:
            if flags & MAP_LOCKED or vm_flags & VM_GROWSDOWN:
                return -E_INVAL
            vm_flags = vm_flags & ~<uint64_t>VM_LOCKED_MASK | VM_DROPPABLE | VM_NORESERVE | VM_WIPEONFORK | VM_DONTDUMP
        pgoff = addr >> PAGE_SHIFT
    else:
        return -E_INVAL
    if flags & MAP_NORESERVE and (mm.vm.g.overcommit_memory != 2 or flags & MAP_HUGETLB):
        vm_flags |= VM_NORESERVE
    rc = mmap_region(mm, as_, addr, length, vm_flags, file, pgoff, cpu)
    if rc >= 0 and (vm_flags & VM_LOCKED or flags & (MAP_POPULATE | MAP_NONBLOCK) == MAP_POPULATE):
        populate[0] = length
    if rc < 0:
        populate[0] = 0
    return rc
