# The one owner of a machine's arrays, and the struct of raw addresses that everyone else borrows for a call.

cimport numpy as cnp
from libc.stdint cimport uint32_t
from mmcore.base.records cimport Mm

cdef extern from *:
    """
    #include <sched.h>
    #include <string.h>
    #define mm_try_lock(p) (__atomic_exchange_n((p), 1, __ATOMIC_ACQUIRE) == 0)
    #define mm_unlock(p) __atomic_store_n((p), 0, __ATOMIC_RELEASE)
    #ifdef Py_GIL_DISABLED
    #define mm_try_enter(p) mm_try_lock(p)
    #define mm_leave(p) mm_unlock(p)
    #else
    #define mm_try_enter(p) (__atomic_load_n((p), __ATOMIC_ACQUIRE) == 0)
    #define mm_leave(p) ((void)0)
    #endif
    """
    bint mm_try_lock(int* p) noexcept nogil
    void mm_unlock(int* p) noexcept nogil
    bint mm_try_enter(int* p) noexcept nogil
    void mm_leave(int* p) noexcept nogil
    int sched_yield() noexcept nogil

cdef class State:
    cdef readonly cnp.ndarray all_pages     # hot page records, then the list heads
    cdef readonly cnp.ndarray pages         # the part that is mem_map
    cdef readonly cnp.ndarray meta
    cdef readonly cnp.ndarray pageblocks
    cdef readonly cnp.ndarray zones
    cdef readonly cnp.ndarray pcps
    cdef readonly cnp.ndarray nodes
    cdef readonly cnp.ndarray globals
    cdef readonly cnp.ndarray lazy
    cdef readonly cnp.ndarray present
    cdef readonly cnp.ndarray zonelists
    cdef readonly cnp.ndarray cpu_node
    cdef readonly cnp.ndarray distances
    cdef readonly cnp.ndarray pools         # PoolInfo of every pool
    cdef readonly cnp.ndarray cpus
    cdef readonly cnp.ndarray lruvecs
    cdef readonly cnp.ndarray vm_globals
    cdef readonly dict pool_arrays          # every pool's whole array by name
    cdef readonly list names                # of files, named mappings and callers: records hold an index
    cdef Mm c
    cdef int bind(self) except -1
    cdef void lock_slow(self) noexcept
    cdef void enter_slow(self) noexcept

# One lock per State. Uncontended it is one atomic exchange; a second thread gives up the GIL while it waits.
cdef inline void state_lock(State s) noexcept:
    if not mm_try_lock(&s.c.lock):
        s.lock_slow()

# For a short call that keeps the GIL from state_enter() to state_leave(): the GIL then is the lock, and only a run that gave it up has
# to be waited for. Without a GIL it is the lock itself.
cdef inline void state_enter(State s) noexcept:
    if not mm_try_enter(&s.c.lock):
        s.enter_slow()

cdef inline void state_leave(State s) noexcept:
    mm_leave(&s.c.lock)

cdef inline void state_unlock(State s) noexcept:
    mm_unlock(&s.c.lock)
