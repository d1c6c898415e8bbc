"""The system calls of memory, as Python calls them.

Models: the entries of mm/ in the system call table. Simplifies: the handle of an address space or a file is its record's number + 1 (0
stands for none); a result below zero is -errno, which is data. Misuse (a handle that is not in use, a CPU that does not exist, a
number that does not fit) raises TypeError or ValueError, and nothing changes. Omits: signals.
"""
from libc.stdint cimport int64_t, uint32_t, uint64_t

from mmcore.base.args cimport as_int
from mmcore.base.errors cimport E_NOMEM
from mmcore.base.state cimport State, state_lock, state_unlock
from mmcore.base.vm_records cimport AddressSpace, FILE_UNLINKED, POOL_FILES, POOL_MMS
from mmcore.sys.brk cimport do_brk
from mmcore.sys.commit cimport commit_limit
from mmcore.sys.madvise cimport do_madvise
from mmcore.sys.mlock cimport do_mlock, do_mlockall, do_munlock, do_munlockall
from mmcore.sys.mmap cimport do_mmap, do_munmap
from mmcore.sys.mprotect cimport do_mprotect
from mmcore.sys.mremap cimport do_mremap
from mmcore.sys.populate cimport mm_populate
from mmcore.sys.process cimport ExecNames, mm_create, mm_exec, mm_exit, mm_fork, mm_load_image
from mmcore.sys.vma_ops cimport file_at
from mmcore.vm.vma cimport as_at, pool_of

RLIMITS = ("as", "data", "stack", "memlock")


# ---------------------------------------------------------------- arguments

cdef uint64_t as_word(object value, str name) except? 0x5ca1ab1e:
    # A number of 64 bits.
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be an integer, not {type(value).__name__}")
    value = value.__index__()
    if not 0 <= value < 1 << 64:
        raise ValueError(f"{name} is {value}; it must lie in 0..2**64 - 1")
    return <uint64_t>value


cdef uint32_t as_handle(State s, object value) except 0:
    cdef uint32_t x = <uint32_t>as_int(value, "mm", 1, 0xffffffff)
    if x > pool_of(&s.c, POOL_MMS).used or not as_at(&s.c, x).pid:
        raise ValueError(f"mm is {value}: no such address space (its process has ended, or never was)")
    return x


cdef uint32_t as_file(State s, object value, bint none) except? 0xffffffff:
    cdef uint32_t x = <uint32_t>as_int(value, "file", 0, 0xfffffffe)
    if x == 0 and none:
        return 0
    if x == 0 or x > pool_of(&s.c, POOL_FILES).used or not file_at(&s.c, x).id:
        raise ValueError(f"file is {value}: no such file")
    if file_at(&s.c, x).flags & FILE_UNLINKED and not file_at(&s.c, x).nr_opens:
        raise ValueError(f"file is {value}: it has no name any more, and nobody holds it open")
    return x


cdef inline unsigned as_cpu(State s, object value) except? 0xffffffff:
    return <unsigned>as_int(value, "cpu", 0, s.c.g.nr_cpus - 1)


cdef uint32_t intern(State s, object name) except? 0xffffffff:
    # Its place in the names of the State + 1; 0: no name.
    if not isinstance(name, str):
        raise TypeError(f"name must be a string, not {type(name).__name__}")
    if not name:
        return 0
    try:
        return s.names.index(name) + 1
    except ValueError:
        s.names.append(name)
        return len(s.names)


cdef int exec_names(State s, uint32_t task, ExecNames* names) except -1:
    names.task = task
    names.vdso = intern(s, "[vdso]")
    names.vvar = intern(s, "[vvar]")
    return 0


# ---------------------------------------------------------------- processes

def spawn(State state not None, name="", cpu=0, exec_image=False, privileged=False):
    """A new process with an empty address space, or with an executed image: its handle, or -ENOMEM. `privileged`: as root's."""
    cdef unsigned c = as_cpu(state, cpu)
    cdef bint image = bool(exec_image), root = bool(privileged)
    cdef ExecNames names
    cdef int64_t rc
    state_lock(state)
    try:
        exec_names(state, intern(state, name), &names)
        with nogil:
            rc = mm_create(&state.c, names.task, root, c)
            if rc > 0 and image and mm_load_image(&state.c, <uint32_t>rc, &names, c) < 0:
                mm_exit(&state.c, <uint32_t>rc, c)
                rc = -E_NOMEM
        return rc
    finally:
        state_unlock(state)


def fork(State state not None, mm, cpu=0):
    """A child with a copy of the address space: its handle, or -ENOMEM."""
    cdef unsigned c = as_cpu(state, cpu)
    cdef uint32_t x
    cdef int64_t rc
    state_lock(state)
    try:
        x = as_handle(state, mm)
        with nogil:
            rc = mm_fork(&state.c, x, c)
        return rc
    finally:
        state_unlock(state)


def exec_(State state not None, mm, cpu=0, name=None):
    """Replaces what is mapped by a program's image (the task's own name unless another one is given): 0 or -ENOMEM."""
    cdef unsigned c = as_cpu(state, cpu)
    cdef uint32_t x
    cdef ExecNames names
    cdef int rc
    state_lock(state)
    try:
        x = as_handle(state, mm)
        exec_names(state, as_at(&state.c, x).name if name is None else intern(state, name), &names)
        with nogil:
            rc = mm_exec(&state.c, x, &names, c)
        return rc
    finally:
        state_unlock(state)


def exit_(State state not None, mm, cpu=0):
    """The process ends: everything is unmapped, the handle is no longer valid."""
    cdef unsigned c = as_cpu(state, cpu)
    cdef uint32_t x
    state_lock(state)
    try:
        x = as_handle(state, mm)
        with nogil:
            mm_exit(&state.c, x, c)
    finally:
        state_unlock(state)


# ---------------------------------------------------------------- mappings

def mmap(State state not None, mm, addr, length, prot, flags, file=0, offset=0, cpu=0):
    """Address of the new mapping in bytes, or -errno: EINVAL, ENOMEM, EEXIST, EBADF, EPERM, EAGAIN, EOVERFLOW, EOPNOTSUPP."""
    cdef uint64_t a = as_word(addr, "addr"), n = as_word(length, "length"), p = as_word(prot, "prot"), f = as_word(flags, "flags")
    cdef uint64_t o = as_word(offset, "offset"), populate
    cdef unsigned c = as_cpu(state, cpu)
    cdef uint32_t x, handle
    cdef int64_t rc
    state_lock(state)
    try:
        x = as_handle(state, mm)
        handle = as_file(state, file, True)
        with nogil:
            rc = do_mmap(&state.c, x, a, n, p, f, handle, o, c, &populate)
            if populate:
                mm_populate(&state.c, x, <uint64_t>rc, populate, True, c)
        return rc
    finally:
        state_unlock(state)


def munmap(State state not None, mm, addr, length, cpu=0):
    """0, -EINVAL (unaligned address, no length, or beyond the address space) or -ENOMEM (too many mappings to cut one)."""
    cdef uint64_t a = as_word(addr, "addr"), n = as_word(length, "length")
    cdef unsigned c = as_cpu(state, cpu)
    cdef uint32_t x
    cdef int rc
    state_lock(state)
    try:
        x = as_handle(state, mm)
        with nogil:
            rc = do_munmap(&state.c, x, a, n, c)
        return rc
    finally:
        state_unlock(state)


def mprotect(State state not None, mm, addr, length, prot, cpu=0):
    """0, -EINVAL, -ENOMEM (a hole, what precedes it is changed; too many mappings; committed memory) or -EACCES."""
    cdef uint64_t a = as_word(addr, "addr"), n = as_word(length, "length"), p = as_word(prot, "prot")
    cdef unsigned c = as_cpu(state, cpu)
    cdef uint32_t x
    cdef int rc
    state_lock(state)
    try:
        x = as_handle(state, mm)
        with nogil:
            rc = do_mprotect(&state.c, x, a, n, p, c)
        return rc
    finally:
        state_unlock(state)


def mremap(State state not None, mm, old, old_len, new_len, flags=0, new_addr=0, cpu=0):
    """The new address, or -EINVAL, -EFAULT (no mapping, or across its end), -ENOMEM, -EAGAIN (locked memory)."""
    cdef uint64_t a = as_word(old, "old"), n = as_word(old_len, "old_len"), m = as_word(new_len, "new_len")
    cdef uint64_t f = as_word(flags, "flags"), to = as_word(new_addr, "new_addr")
    cdef unsigned c = as_cpu(state, cpu)
    cdef uint32_t x
    cdef int64_t rc
    state_lock(state)
    try:
        x = as_handle(state, mm)
        with nogil:
            rc = do_mremap(&state.c, x, a, n, m, f, to, c)
        return rc
    finally:
        state_unlock(state)


def brk(State state not None, mm, addr=0, cpu=0):
    """The end of the heap after the attempt to move it to `addr` (it stays where it is when that fails)."""
    cdef uint64_t a = as_word(addr, "addr")
    cdef unsigned c = as_cpu(state, cpu)
    cdef uint32_t x
    cdef int64_t rc
    state_lock(state)
    try:
        x = as_handle(state, mm)
        with nogil:
            rc = do_brk(&state.c, x, a, c)
        return rc
    finally:
        state_unlock(state)


def madvise(State state not None, mm, addr, length, advice, cpu=0):
    """0, -EINVAL, -ENOMEM (holes; the rest is done), -EACCES, -EAGAIN (no room to cut a mapping), -EFAULT (populate)."""
    cdef uint64_t a = as_word(addr, "addr"), n = as_word(length, "length")
    cdef int advice_ = <int>as_int(advice, "advice", -0x80000000, 0x7fffffff)
    cdef unsigned c = as_cpu(state, cpu)
    cdef uint32_t x
    cdef int rc
    state_lock(state)
    try:
        x = as_handle(state, mm)
        with nogil:
            rc = do_madvise(&state.c, x, a, n, advice_, c)
        return rc
    finally:
        state_unlock(state)


def mlock(State state not None, mm, addr, length, onfault=False, cpu=0):
    """0, -ENOMEM (limit, hole, or no access), -EAGAIN (pages could not be had), -EPERM (limit 0) or -EINVAL."""
    cdef uint64_t a = as_word(addr, "addr"), n = as_word(length, "length")
    cdef bint later = bool(onfault)
    cdef unsigned c = as_cpu(state, cpu)
    cdef uint32_t x
    cdef int rc
    state_lock(state)
    try:
        x = as_handle(state, mm)
        with nogil:
            rc = do_mlock(&state.c, x, a, n, later, c)
        return rc
    finally:
        state_unlock(state)


def munlock(State state not None, mm, addr, length, cpu=0):
    """0, -ENOMEM (hole, or too many mappings) or -EINVAL."""
    cdef uint64_t a = as_word(addr, "addr"), n = as_word(length, "length")
    cdef unsigned c = as_cpu(state, cpu)
    cdef uint32_t x
    cdef int rc
    state_lock(state)
    try:
        x = as_handle(state, mm)
        with nogil:
            rc = do_munlock(&state.c, x, a, n, c)
        return rc
    finally:
        state_unlock(state)


def mlockall(State state not None, mm, flags, cpu=0):
    """MCL_CURRENT 1, MCL_FUTURE 2, MCL_ONFAULT 4. 0, -EINVAL, -EPERM or -ENOMEM (limit)."""
    cdef uint64_t f = as_word(flags, "flags")
    cdef unsigned c = as_cpu(state, cpu)
    cdef uint32_t x
    cdef int rc
    state_lock(state)
    try:
        x = as_handle(state, mm)
        with nogil:
            rc = do_mlockall(&state.c, x, f, c)
        return rc
    finally:
        state_unlock(state)


def munlockall(State state not None, mm, cpu=0):
    """Always 0."""
    cdef unsigned c = as_cpu(state, cpu)
    cdef uint32_t x
    cdef int rc
    state_lock(state)
    try:
        x = as_handle(state, mm)
        with nogil:
            rc = do_munlockall(&state.c, x, c)
        return rc
    finally:
        state_unlock(state)


# ---------------------------------------------------------------- limits

def prlimit(State state not None, mm, resource, limit=None):
    """A resource limit in bytes (RLIMITS; 2**64 - 1: none), after it was set to `limit` if that is given."""
    cdef AddressSpace* a
    cdef uint64_t* at
    cdef uint64_t value = 0 if limit is None else as_word(limit, "limit")
    if resource not in RLIMITS:
        raise ValueError(f"resource is {resource!r}; it must be one of {', '.join(RLIMITS)}")
    state_lock(state)
    try:
        a = as_at(&state.c, as_handle(state, mm))
        at = (&a.rlimit_as if resource == "as" else &a.rlimit_data if resource == "data"
              else &a.rlimit_stack if resource == "stack" else &a.rlimit_memlock)
        if limit is not None:
            at[0] = value
        return at[0]
    finally:
        state_unlock(state)


def commit_limit_pages(State state not None):
    """CommitLimit of /proc/meminfo, in pages."""
    return commit_limit(&state.c)
