"""fork, exec and exit, as far as memory goes.

Models: mm_alloc, dup_mmap, exit_mmap (kernel/fork.c, mm/mmap.c), begin_new_exec, setup_arg_pages, load_elf_binary, map_vdso (fs/exec.c,
fs/binfmt_elf.c, arch/x86/entry/vdso, v6.12). Simplifies: an address space has one task; every program has the same small image without an
interpreter, one page of arguments, and a heap as large as the first malloc() makes it; no randomisation. Omits: vfork, CLONE_VM,
core dumps.
"""
from libc.string cimport memset

from mmcore.base.errors cimport E_NOMEM
from mmcore.base.pool cimport pool_give, pool_room, pool_take
from mmcore.base.vm_records cimport AddressSpace, POOL_FILES, POOL_MMS, POOL_VMAS, Vma
from mmcore.sys.brk cimport do_brk
from mmcore.sys.charge cimport memcg_attach
from mmcore.sys.commit cimport MMF_CAPS, vm_enough_memory, vm_unacct_memory
from mmcore.sys.fault cimport populate_range
from mmcore.sys.filemap cimport file_alloc
from mmcore.sys.flush cimport flush_exit, flush_mm
from mmcore.sys.fork_tables cimport copy_tables
from mmcore.sys.mmap cimport get_unmapped_area, map_window, unmap_all
from mmcore.sys.stack cimport expand_stack
from mmcore.sys.tables cimport mm_root_free, mm_root_init
from mmcore.sys.thp cimport khugepaged_fork
from mmcore.sys.vma_ops cimport NewRange, file_add_vma, file_at, map_range
from mmcore.vm.anon_vma cimport anon_vma_fork
from mmcore.vm.vma cimport *

cdef enum:
    STACK_LIMIT = 8 << 20
    MEMLOCK_LIMIT = 8 << 20
    STACK_EXPAND = 128 << 10
    GAP_MIN = 128 << 20             # the mmap area begins at least this far below the end of user addresses
    # the image, in pages: headers, text, constants, data, zero data, heap
    NR_HEADERS = 1
    NR_TEXT = 16
    NR_RODATA = 4
    NR_DATA = 4
    NR_BSS = 4
    NR_HEAP = 33
    NR_VVAR = 4
    NR_VDSO = 2

cdef extern from *:
    """
    #define UNLIMITED (~0ull)
    #define IMAGE_32BIT 0x08048000ull
    """
    uint64_t UNLIMITED
    uint64_t IMAGE_32BIT


cdef uint64_t task_size_of(Mm* mm) noexcept nogil:
    cdef uint32_t paging = mm.vm.g.paging
    if paging == PAGING_5LEVEL:
        return (<uint64_t>1 << 56) - PAGE_BYTES
    if paging == PAGING_2LEVEL or paging == PAGING_PAE:
        return <uint64_t>0xC0000000
    if paging == PAGING_ARM64_48:
        return <uint64_t>1 << 48
    if paging == PAGING_ARM64_39:
        return <uint64_t>1 << 39
    return (<uint64_t>1 << 47) - PAGE_BYTES


cdef void set_layout(Mm* mm, uint32_t as_) noexcept nogil:
    # mmap_base: below the largest stack and its guard gap
    cdef AddressSpace* a = as_at(mm, as_)
    cdef uint64_t window, gap = a.rlimit_stack, pad = <uint64_t>mm.vm.g.stack_guard_gap << PAGE_SHIFT
    a.task_size = task_size_of(mm)
    window = map_window(mm, as_)
    if gap + pad > gap:
        gap += pad
    if gap < GAP_MIN:
        gap = GAP_MIN
    if gap > window // 6 * 5:
        gap = window // 6 * 5
    a.mmap_base = PAGE_UP(window - gap)


cdef int64_t mm_create(Mm* mm, uint32_t name, bint privileged, unsigned cpu) noexcept nogil:
    cdef uint32_t x = pool_take(pool_of(mm, POOL_MMS), mm.vm.mms, sizeof(AddressSpace))
    cdef AddressSpace* a
    if not x:
        return -E_NOMEM
    a = as_at(mm, x)
    if mm_root_init(mm, x, cpu) < 0:
        memset(a, 0, sizeof(AddressSpace))
        pool_give(pool_of(mm, POOL_MMS), mm.vm.mms, sizeof(AddressSpace), x)
        return -E_NOMEM
    a.pid = mm.vm.g.next_pid
    mm.vm.g.next_pid += 1
    a.name = name
    a.cpu = cpu
    a.flags = MMF_CAPS if privileged else 0
    a.rlimit_as = a.rlimit_data = UNLIMITED
    a.rlimit_stack = STACK_LIMIT
    a.rlimit_memlock = MEMLOCK_LIMIT
    set_layout(mm, x)
    # without an image the heap begins where a program's would, two thirds up
    a.start_brk = a.brk = PAGE_DOWN(map_window(mm, x) // 3 * 2)
    return x


cdef void mm_exit(Mm* mm, uint32_t as_, unsigned cpu) noexcept nogil:
    unmap_all(mm, as_, cpu)
    flush_exit(mm, as_, cpu)
    mm_root_free(mm, as_, cpu)
    memcg_attach(mm, as_, 0)
    memset(as_at(mm, as_), 0, sizeof(AddressSpace))
    pool_give(pool_of(mm, POOL_MMS), mm.vm.mms, sizeof(AddressSpace), as_)


# ---------------------------------------------------------------- fork

cdef int fork_vma(Mm* mm, uint32_t child, uint32_t last, uint32_t parent, uint32_t vma, unsigned cpu) noexcept nogil:
    # Copies one VMA of the parent behind `last` of the child.
    cdef const Vma* v = vma_at(mm, vma)
    cdef Vma* w
    cdef uint32_t x
    cdef uint64_t charged = 0
    if v.flags & VM_ACCOUNT:
        charged = vma_pages(v)
        if vm_enough_memory(mm, parent, charged) < 0:
            return -E_NOMEM
    x = vma_alloc(mm)
    if not x:
        vm_unacct_memory(mm, charged)
        return -E_NOMEM
    w = vma_at(mm, x)
    w.start = v.start
    w.end = v.end
    w.pgoff = v.pgoff
    w.flags = v.flags & ~<uint64_t>VM_LOCKED_MASK
    w.file = v.file
    w.name = v.name
    w.ra_prev = v.ra_prev
    w.ra_win = 0 if v.flags & VM_HUGETLB else v.ra_win      # the parent alone keeps the reservations of a hugetlb mapping
    w.ra_hits = v.ra_hits
    # a wiped VMA starts without pages, so without an anon_vma
    if not v.flags & VM_WIPEONFORK and anon_vma_fork(mm, x, vma) < 0:
        vma_free(mm, x)
        vm_unacct_memory(mm, charged)
        return -E_NOMEM
    vma_link(mm, child, x, last)
    if w.file:
        file_add_vma(mm, x)
    # what a later fault would find by itself is not copied
    if not v.flags & VM_WIPEONFORK and (v.anon_vma or v.flags & (VM_PFNMAP | VM_MIXEDMAP)):
        return copy_tables(mm, child, x, parent, vma, cpu)
    return 0


cdef int64_t mm_fork(Mm* mm, uint32_t as_, unsigned cpu) noexcept nogil:
    cdef AddressSpace* a = as_at(mm, as_)
    cdef AddressSpace* c
    cdef int64_t child
    cdef uint32_t x, last = 0
    cdef int rc = 0
    child = mm_create(mm, a.name, False, cpu)
    if child < 0:
        return child
    c = as_at(mm, <uint32_t>child)
    c.parent_pid = a.pid
    c.flags = a.flags
    memcg_attach(mm, <uint32_t>child, a.memcg)
    c.rlimit_as = a.rlimit_as
    c.rlimit_data = a.rlimit_data
    c.rlimit_stack = a.rlimit_stack
    c.rlimit_memlock = a.rlimit_memlock
    c.mmap_base = a.mmap_base
    c.start_brk = a.start_brk
    c.brk = a.brk
    c.start_stack = a.start_stack
    khugepaged_fork(mm, <uint32_t>child, as_)
    x = a.vma_first
    while x:
        if not vma_at(mm, x).flags & VM_DONTCOPY:
            rc = fork_vma(mm, <uint32_t>child, last, as_, x, cpu)
            if vma_at(mm, last).next if last else c.vma_first:
                last = vma_at(mm, last).next if last else c.vma_first
                vm_stat_account(c, vma_at(mm, last).flags, <int64_t>vma_pages(vma_at(mm, last)))
            if rc < 0:
                flush_mm(mm, as_, cpu)
                mm_exit(mm, <uint32_t>child, cpu)
                return rc
        x = vma_at(mm, x).next
    c.hiwater_vm = c.total_vm
    flush_mm(mm, as_, cpu)
    return child


# ---------------------------------------------------------------- exec

cdef uint32_t add_vma(Mm* mm, uint32_t as_, uint64_t start, uint64_t pages, uint64_t flags, uint32_t file, uint64_t pgoff,
                      uint32_t name, unsigned cpu) noexcept nogil:
    # A VMA of a new image, with its charge: 0 when it cannot be had.
    cdef AddressSpace* a = as_at(mm, as_)
    cdef NewRange r
    cdef uint32_t next_, prev, x
    cdef bint charge = flags & VM_ACCOUNT != 0
    if charge and vm_enough_memory(mm, as_, pages) < 0:
        return 0
    r.start = start
    r.end = start + (pages << PAGE_SHIFT)
    r.flags = flags | VM_SOFTDIRTY
    r.file = file
    r.pgoff = pgoff
    r.name = name
    r.anon_vma = 0
    r.just_expand = False
    next_ = find_vma_prev(mm, as_, start, &prev)
    x = map_range(mm, as_, prev, next_, &r, cpu)
    if not x:
        vm_unacct_memory(mm, pages if charge else 0)
        return 0
    vm_stat_account(a, flags, <int64_t>pages)
    return x


cdef uint32_t image_file(Mm* mm, uint32_t name) noexcept nogil:
    # The file that bears the task's name; made when there is none.
    cdef uint32_t x
    cdef uint64_t size = (NR_HEADERS + NR_TEXT + NR_RODATA + NR_DATA) * PAGE_BYTES
    for x in range(1, pool_of(mm, POOL_FILES).used + 1):
        if file_at(mm, x).id and file_at(mm, x).name == name and not file_at(mm, x).flags and file_at(mm, x).size == size:
            return x
    return file_alloc(mm, size, 0, name)


cdef int map_stack(Mm* mm, uint32_t as_, unsigned cpu) noexcept nogil:
    # One page with the arguments at the top, then 128 KiB more.
    cdef AddressSpace* a = as_at(mm, as_)
    cdef uint64_t top = PAGE_DOWN(map_window(mm, as_)), room = a.rlimit_stack & ~<uint64_t>(PAGE_BYTES - 1), more = STACK_EXPAND
    cdef uint32_t x = add_vma(mm, as_, top - PAGE_BYTES, 1, VM_READ | VM_WRITE | VM_MAYREAD | VM_MAYWRITE | VM_MAYEXEC | VM_GROWSDOWN
                              | VM_ACCOUNT, 0, (top - PAGE_BYTES) >> PAGE_SHIFT, 0, cpu)
    if not x or populate_range(mm, as_, top - PAGE_BYTES, top, True, cpu) < 0:
        return -E_NOMEM
    a.start_stack = top - 16
    if PAGE_BYTES + more > room:
        more = room - PAGE_BYTES if room > PAGE_BYTES else 0
    return expand_stack(mm, as_, x, top - PAGE_BYTES - more, cpu)


cdef int map_vdso(Mm* mm, uint32_t as_, const ExecNames* names, unsigned cpu) noexcept nogil:
    cdef int64_t at = get_unmapped_area(mm, as_, False, 0, (NR_VVAR + NR_VDSO) << PAGE_SHIFT, 0)
    cdef uint64_t code
    if at < 0:
        return -E_NOMEM
    code = <uint64_t>at + (NR_VVAR << PAGE_SHIFT)
    if not add_vma(mm, as_, code, NR_VDSO, VM_READ | VM_EXEC | VM_MAYREAD | VM_MAYWRITE | VM_MAYEXEC | VM_DONTEXPAND, 0, 0,
                   names.vdso, cpu):
        return -E_NOMEM
    if not add_vma(mm, as_, <uint64_t>at, NR_VVAR, VM_READ | VM_MAYREAD | VM_IO | VM_DONTDUMP | VM_PFNMAP | VM_DONTEXPAND, 0, 0,
                   names.vvar, cpu):
        return -E_NOMEM
    return 0


cdef int map_image(Mm* mm, uint32_t as_, const ExecNames* names, unsigned cpu) noexcept nogil:
    cdef AddressSpace* a = as_at(mm, as_)
    cdef uint64_t at = PAGE_DOWN(map_window(mm, as_) // 3 * 2), may = VM_MAYREAD | VM_MAYWRITE | VM_MAYEXEC
    cdef uint32_t file = image_file(mm, names.task)
    cdef uint64_t sizes[4]
    cdef uint64_t rights[4]
    cdef uint64_t pgoff = 0
    cdef int i
    if not file:
        return -E_NOMEM
    if mm.vm.g.paging == PAGING_2LEVEL or mm.vm.g.paging == PAGING_PAE:
        at = IMAGE_32BIT
    sizes[0], sizes[1], sizes[2], sizes[3] = NR_HEADERS, NR_TEXT, NR_RODATA, NR_DATA
    rights[0], rights[1], rights[2], rights[3] = VM_READ, VM_READ | VM_EXEC, VM_READ, VM_READ | VM_WRITE | VM_ACCOUNT
    for i in range(4):
        if not add_vma(mm, as_, at, sizes[i], rights[i] | may, file, pgoff, 0, cpu):
            return -E_NOMEM
        at += sizes[i] << PAGE_SHIFT
        pgoff += sizes[i]
    if not add_vma(mm, as_, at, NR_BSS, VM_READ | VM_WRITE | VM_ACCOUNT | may, 0, at >> PAGE_SHIFT, 0, cpu):
        return -E_NOMEM
    at += NR_BSS << PAGE_SHIFT
    a.start_brk = a.brk = at
    return 0 if <uint64_t>do_brk(mm, as_, at + (NR_HEAP << PAGE_SHIFT), cpu) != at else -E_NOMEM


cdef int mm_load_image(Mm* mm, uint32_t as_, const ExecNames* names, unsigned cpu) noexcept nogil:
    as_at(mm, as_).name = names.task
    if map_stack(mm, as_, cpu) < 0 or map_image(mm, as_, names, cpu) < 0 or map_vdso(mm, as_, names, cpu) < 0:
        unmap_all(mm, as_, cpu)
        flush_exit(mm, as_, cpu)
        return -E_NOMEM
    return 0


cdef int mm_exec(Mm* mm, uint32_t as_, const ExecNames* names, unsigned cpu) noexcept nogil:
    cdef AddressSpace* a = as_at(mm, as_)
    cdef uint32_t old = a.root, new
    # the new top table is there before the old one goes
    if pool_room(pool_of(mm, POOL_VMAS)) < 16 or mm_root_init(mm, as_, cpu) < 0:
        a.root = old
        return -E_NOMEM
    new = a.root
    a.root = old
    unmap_all(mm, as_, cpu)
    flush_exit(mm, as_, cpu)
    mm_root_free(mm, as_, cpu)
    a.root = new
    a.def_flags = 0
    a.hiwater_rss = a.hiwater_vm = 0
    a.cpu = cpu
    set_layout(mm, as_)
    return mm_load_image(mm, as_, names, cpu)
