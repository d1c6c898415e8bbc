"""The engine: runs a stream of operations on a State, in bounded chunks, without the GIL.

Models: the order in which a recorded kernel did things. Simplifies: one stream, operations run to their end one after another.
Omits: operations that wait (they come with reclaim and swap).

A failed operation is data: its rc is a negative code. A chunk ends at the budget, behind a checkpoint, or with the stream; what ran is
the same for every chunk size.
"""
import numpy as np

cimport numpy as cnp
from mmcore.base.errors cimport E_CPU, E_INVAL, E_NODE, E_NOENT, E_RANGE
from mmcore.base.flags cimport PG_ORDER_SHIFT, PG_allocated, PG_lru
from mmcore.base.gfp cimport TASK_MEMALLOC, TASK_OOM_VICTIM
from mmcore.base.records cimport page_at
from mmcore.base.state cimport State, state_lock, state_unlock
from mmcore.base.trace cimport Tracer
from mmcore.alloc.kswapd cimport kswapd_begin, kswapd_end
from mmcore.alloc.page_alloc cimport alloc_bulk, alloc_pages_node
from mmcore.alloc.page_free cimport free_pages_order, isolate_piece, split_allocated
from mmcore.base.vm_records cimport POOL_MMS
from mmcore.sys.khugepaged cimport khugepaged_do_scan
from mmcore.phys.pcp cimport drain_all_pages, vmstat_tick
from mmcore.phys.watermark cimport sysctl_check, sysctl_store
from mmcore.reclaim.memcg cimport memcg_fold_due
from mmcore.run.events cimport run_events
from mmcore.run.ops cimport *
from mmcore.run.vm_ops cimport run_vm_op
from mmcore.run.ops import OP_DTYPE

cnp.import_array()

cdef enum:
    STAT_INTERVAL_NS = 1000000000


cdef void mark_lru(Mm* mm, uint32_t pfn, unsigned order) noexcept nogil:
    # Only the head: the blocks of a pageblock are walked from head to head.
    page_at(mm, pfn).flags |= PG_lru


cdef int64_t op_free(Mm* mm, Stream* s, const OpRecord* o, int64_t at) noexcept nogil:
    cdef uint64_t pfn
    cdef unsigned order = <unsigned>o.b
    cdef const OpRecord* made
    cdef int64_t got
    cdef int rc
    if o.b > 10:
        return -E_INVAL
    if o.flags & OPF_PFN:
        pfn = o.a
    else:
        if <int64_t>o.ref >= at:
            return -E_NOENT
        # rc and value were in the caller's hands between chunks: nothing of them is trusted
        made = &s.ops[o.ref]
        got = s.rc[o.ref]
        if got < 0:
            return -E_NOENT
        pfn = s.value[o.ref]
        if made.op == ALLOC:
            if made.a > 10 or o.a >= <uint64_t>1 << made.a:
                return -E_RANGE
            pfn += o.a
        elif made.op == ALLOC_BULK:
            if o.a >= <uint64_t>got or pfn >= <uint64_t>s.pages_used or o.a >= <uint64_t>s.pages_used - pfn:
                return -E_NOENT
            pfn = s.pages_out[pfn + o.a]
        else:
            return -E_NOENT
    s.value[at] = pfn
    if pfn >= mm.g.nr_pages:
        return -E_RANGE
    if not page_at(mm, <uint32_t>pfn).flags & PG_allocated or page_at(mm, <uint32_t>pfn).flags >> PG_ORDER_SHIFT != order:
        rc = isolate_piece(mm, <uint32_t>pfn, order, o.flags & OPF_PFN)
        if rc:
            return rc
    page_at(mm, pfn).flags &= ~<uint32_t>PG_lru
    return free_pages_order(mm, <uint32_t>pfn, order, o.cpu)


cdef void khugepaged_due(Mm* mm) noexcept nogil:
    # The daemon wakes when its sleep is over, once for each.
    cdef int64_t sleep = mm.vm.g.khugepaged_scan_sleep_ms * 1000000
    if sleep < 1000000:
        sleep = 1000000
    while mm.vm.g.khugepaged_next_ns and mm.vm.g.khugepaged_next_ns <= mm.g.now_ns:
        if mm.vm.pools[POOL_MMS].live == 0:
            mm.vm.g.khugepaged_next_ns = mm.g.now_ns + sleep
            return
        khugepaged_do_scan(mm, 0)
        mm.vm.g.khugepaged_next_ns += sleep


cdef void advance(Mm* mm, uint64_t ns) noexcept nogil:
    # Time passes; with auto_ticks every CPU's vmstat worker runs at each whole second.
    cdef int64_t second
    cdef uint32_t cpu
    if mm.g.auto_ticks:
        second = mm.g.now_ns // STAT_INTERVAL_NS + 1
        while second * STAT_INTERVAL_NS <= mm.g.now_ns + <int64_t>ns:
            for cpu in range(mm.g.nr_cpus):
                vmstat_tick(mm, cpu)
            second += 1
    run_events(mm, mm.g.now_ns + <int64_t>ns)
    memcg_fold_due(mm)
    khugepaged_due(mm)


cdef int64_t vm_op(Mm* mm, Stream* s, const OpRecord* o, int64_t at) noexcept nogil:
    # Resolves what the op takes from earlier ones.
    cdef uint64_t handle = o.mm, address = o.a
    if o.flags & OPF_MM_REF:
        if <int64_t>o.mm >= at or s.rc[o.mm] < 0 or (s.ops[o.mm].op != SPAWN and s.ops[o.mm].op != FORK):
            return -E_NOENT
        handle = s.value[o.mm]
    if o.flags & OPF_ADDR_REF:
        if <int64_t>o.ref >= at or s.rc[o.ref] < 0 or (s.ops[o.ref].op != MMAP and s.ops[o.ref].op != MREMAP):
            return -E_NOENT
        address += s.value[o.ref]
    return run_vm_op(mm, o, handle, address, &s.value[at])


cdef int64_t run_one(Mm* mm, Stream* s, const OpRecord* o, int64_t at) noexcept nogil:
    cdef int64_t pfn
    cdef unsigned task = 0
    s.value[at] = 0
    if o.cpu >= mm.g.nr_cpus:
        return -E_CPU
    if o.op == ALLOC or o.op == ALLOC_BULK:
        if o.c > mm.g.nr_nodes:
            return -E_NODE
        if o.b >> 32:
            return -E_INVAL
        if o.flags & OPF_MEMALLOC:
            task |= TASK_MEMALLOC
        if o.flags & OPF_OOM_VICTIM:
            task |= TASK_OOM_VICTIM
    if o.op == ALLOC:
        if o.a > 10:
            return -E_INVAL
        pfn = alloc_pages_node(mm, <unsigned>o.b, <unsigned>o.a, o.cpu, <int>o.c - 1, task)
        if pfn < 0:
            return pfn
        s.value[at] = <uint64_t>pfn
        if o.flags & OPF_LRU:
            mark_lru(mm, <uint32_t>pfn, <unsigned>o.a)
        return 0
    if o.op == FREE:
        return op_free(mm, s, o, at)
    if o.op == ALLOC_BULK:
        if o.a > <uint64_t>(s.pages_size - s.pages_used):
            return -E_RANGE
        s.value[at] = <uint64_t>s.pages_used
        pfn = alloc_bulk(mm, s.pages_out + s.pages_used, <int64_t>o.a, <unsigned>o.b, o.cpu, <int>o.c - 1, task)
        if pfn > 0:
            s.pages_used += pfn
        return pfn
    if o.op == NOP or o.op == CHECKPOINT:
        return 0
    if o.op == VMSTAT_TICK:
        vmstat_tick(mm, o.cpu)
        return 0
    if o.op == KSWAPD_BEGIN or o.op == KSWAPD_END:
        if o.a >= mm.g.nr_nodes:
            return -E_NODE
        if o.op == KSWAPD_BEGIN:
            kswapd_begin(mm, <unsigned>o.a)
        else:
            kswapd_end(mm, <unsigned>o.a)
        return 0
    if o.op == SYSCTL:
        if o.a > 255 or o.c > 255 or not sysctl_check(mm, <unsigned>o.a, <unsigned>o.c, <int64_t>o.b):
            return -E_INVAL
        return sysctl_store(mm, <unsigned>o.a, <unsigned>o.c, <int64_t>o.b)
    if o.op == ADVANCE:
        if o.a >> 53 or mm.g.now_ns + <int64_t>o.a > <int64_t>1 << 62:
            return -E_RANGE
        advance(mm, o.a)
        return 0
    if o.op == DRAIN_ALL:
        drain_all_pages(mm, o.cpu)
        return 0
    if SPAWN <= o.op <= CONTEXT_SWITCH:
        return vm_op(mm, s, o, at)
    if o.op == SPLIT:
        if <int64_t>o.ref >= at or s.rc[o.ref] < 0 or s.ops[o.ref].op != ALLOC:
            return -E_NOENT
        if s.ops[o.ref].a > 10 or s.value[o.ref] >= mm.g.nr_pages:
            return -E_RANGE
        return split_allocated(mm, <uint32_t>s.value[o.ref], <unsigned>s.ops[o.ref].a)
    return -E_INVAL


cdef int64_t run_ops(Mm* mm, Stream* s, int64_t at, int64_t end, int* stop) noexcept nogil:
    stop[0] = BUDGET
    while at < end:
        mm.trace.op = <uint32_t>at
        s.rc[at] = run_one(mm, s, &s.ops[at], at)
        at += 1
        if s.ops[at - 1].op == CHECKPOINT:
            stop[0] = AT_CHECKPOINT
            return at
    if at >= s.nr:
        stop[0] = DONE
    return at


cdef cnp.ndarray checked(object array, object dtype, str name, bint write):
    if not isinstance(array, np.ndarray) or array.dtype != dtype or array.ndim != 1 or not array.flags.c_contiguous:
        raise TypeError(f"{name} must be a one-dimensional contiguous array of {dtype}, not "
                        + (f"{array.ndim}-dimensional {array.dtype}" if isinstance(array, np.ndarray) else type(array).__name__))
    if write and not array.flags.writeable:
        raise ValueError(f"{name} is read-only")
    return array


def run(State state not None, ops, rc, value, start=0, budget=None, pages_out=None, pages_used=0, Tracer tracer=None):
    """Run ops[start:start + budget] on a machine.

    ops: array of OP_DTYPE; rc (int64) and value (uint64), of the same length, receive the results; pages_out (uint32) the pages of bulk
    allocations from index pages_used on. Results of earlier ops are read by later ones, so rc, value and pages_out must be kept between
    chunks. Returns (Stop, index of the next op, pages used). Misuse raises before anything runs; a failing op gets a negative rc.
    """
    cdef cnp.ndarray o = checked(ops, OP_DTYPE, "ops", False), r = checked(rc, np.dtype(np.int64), "rc", True)
    cdef cnp.ndarray v = checked(value, np.dtype(np.uint64), "value", True)
    cdef cnp.ndarray p = checked(np.empty(0, np.uint32) if pages_out is None else pages_out, np.dtype(np.uint32), "pages_out", True)
    cdef Stream s
    cdef int64_t at, end, nr = cnp.PyArray_SIZE(o)
    cdef int stop = DONE
    if len(rc) != nr or len(value) != nr:
        raise ValueError(f"rc and value have {len(rc)} and {len(value)} elements for {nr} ops")
    if nr >= 2**32:
        raise ValueError(f"{nr} ops in one stream; the limit is {2**32 - 1}")
    outputs = {"rc": r, "value": v, "pages_out": p}
    arrays = {"ops": o, **outputs, **{f"the machine's {k}": a for k, a in state.arrays().items()}}
    for name, out in outputs.items():
        for other, array in arrays.items():
            if other != name and np.may_share_memory(out, array):
                raise ValueError(f"{name} shares memory with {other}")
    if not 0 <= start <= nr:
        raise ValueError(f"start is {start}; it must lie in 0..{nr}")
    if budget is not None and budget < 0:
        raise ValueError(f"budget is {budget}; it must not be negative")
    if not 0 <= pages_used <= len(p):
        raise ValueError(f"pages_used is {pages_used}; it must lie in 0..{len(p)}")
    at = start
    end = nr if budget is None else min(nr, start + budget)
    s.ops = <const OpRecord*>cnp.PyArray_DATA(o)
    s.rc = <int64_t*>cnp.PyArray_DATA(r)
    s.value = <uint64_t*>cnp.PyArray_DATA(v)
    s.pages_out = <uint32_t*>cnp.PyArray_DATA(p)
    s.nr = nr
    s.pages_size = cnp.PyArray_SIZE(p)
    s.pages_used = pages_used
    state_lock(state)
    if tracer is not None:
        if tracer.busy:
            state_unlock(state)
            raise RuntimeError("the tracer is in use by a run on another thread")
        tracer.busy = True
        state.c.trace = tracer.buf
    with nogil:
        at = run_ops(&state.c, &s, at, end, &stop)
    if tracer is not None:
        tracer.buf = state.c.trace
        tracer.busy = False
        state.c.trace.rows = NULL
        state.c.trace.enabled = 0
    state_unlock(state)
    return Stop(stop), at, s.pages_used
