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

cdef extern from "pythread.h":
    unsigned long PyThread_get_thread_ident() noexcept nogil

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
    cdef readonly cnp.ndarray memcg_of
    cdef readonly cnp.ndarray vm_globals
    cdef readonly dict pool_arrays          # every pool's whole array by name
    cdef readonly dict extras               # what else a machine has, by name: see State.attach()
    cdef readonly list names                # of files, named mappings and callers: records hold an index
    cdef Mm c
    cdef int bind(self) except -1
    cdef unsigned long owner                # thread that holds the lock, 0 if none
    cdef int lock_slow(self) except -1
    cdef int enter_slow(self) except -1

# One lock per State. Uncontended it is one atomic exchange; a second thread gives up the GIL while it waits. RuntimeError where waiting
# would never end: a finalizer or signal handler that runs while its own thread is inside.
cdef inline int state_lock(State s) except -1:
    if not mm_try_lock(&s.c.lock):
        s.lock_slow()
    s.owner = PyThread_get_thread_ident()
    return 0

# For a short call that keeps the GIL from state_enter() to state_leave(): the GIL then is the lock, and only a run that gave it up has
# to be waited for. Without a GIL it is the lock itself.
cdef inline int state_enter(State s) except -1:
    if not mm_try_enter(&s.c.lock):
        s.enter_slow()
    return 0

cdef inline void state_leave(State s) noexcept:
    mm_leave(&s.c.lock)

cdef inline void state_unlock(State s) noexcept:
    s.owner = 0
    mm_unlock(&s.c.lock)
