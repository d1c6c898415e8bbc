"""Events of a trace -> operations: the loop behind convert.py, which says what the rules are and why.

Models: when a page enters its list (free_batched rows), what drains belong to which request, whose pages are whose. Simplifies: a
request is placed at its row, though an interrupt may have come between its refill and its row.
"""
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free

import numpy as np

cimport numpy as cnp
from mmcore.base.records cimport TraceRow
from mmcore.base.trace cimport EV_EXTFRAG, EV_PCP_DRAIN, EV_RMQUEUE
from mmcore.run.ops cimport OpRecord
from mmcore.run cimport ops as op_codes
from mmpy.traces._scan cimport *

from mmcore.base.records import TRACE_DTYPE
from mmcore.run.ops import OP_DTYPE
from mmpy.traces._scan import EVENT_DTYPE, EXTRA_DTYPE

cnp.import_array()

cdef enum:
    ROLE_BATCHED = 1            # a free row whose page goes to its list only at its free_batched row
    ROLE_TICK = 2               # the first drain row of a vmstat tick
    ROLE_DRAIN_ALL = 3          # the first drain row of drain_all_pages()
    MAX_TASKS = 64              # tasks in direct reclaim at the same time that are told apart
    NO_OP = 0xffffffff

TICK = <int>ROLE_TICK

cdef struct Timer:
    int64_t t_us                # done before the first row later than this
    uint32_t kind               # op code
    uint32_t arg                # cpu or node

cdef Timer _timer
cdef Timer[::1] _timer_view = <Timer[:1]>&_timer
TIMER_DTYPE = np.asarray(_timer_view).dtype


# ---- a small set of tasks

cdef struct Tasks:
    uint32_t[64] pid
    unsigned n


cdef bint task_in(const Tasks* t, uint32_t pid) noexcept nogil:
    cdef unsigned i
    for i in range(t.n):
        if t.pid[i] == pid:
            return True
    return False


cdef void task_add(Tasks* t, uint32_t pid) noexcept nogil:
    if not task_in(t, pid) and t.n < MAX_TASKS:
        t.pid[t.n] = pid
        t.n += 1


cdef void task_drop(Tasks* t, uint32_t pid) noexcept nogil:
    cdef unsigned i
    for i in range(t.n):
        if t.pid[i] == pid:
            t.n -= 1
            t.pid[i] = t.pid[t.n]
            return


# ---- whose page a page is: a hash from the first page of a piece to the op that got it (linear probing, half empty)

cdef struct Piece:
    uint32_t pfn
    uint32_t op1                # op + 1; 0: empty slot
    uint32_t offset             # of the piece in what the op got
    uint32_t order

cdef struct Owners:
    Piece* slot
    uint32_t mask
    uint32_t used
    unsigned shift


cdef bint owners_init(Owners* h, unsigned bits) noexcept nogil:
    h.slot = <Piece*>calloc(<size_t>1 << bits, sizeof(Piece))
    h.mask = (<uint32_t>1 << bits) - 1
    h.shift = 32 - bits
    h.used = 0
    return h.slot != NULL


cdef inline uint32_t slot_of(const Owners* h, uint32_t pfn) noexcept nogil:
    return (pfn * <uint32_t>2654435769) >> h.shift


cdef inline Piece* owners_find(const Owners* h, uint32_t pfn) noexcept nogil:
    cdef uint32_t i = slot_of(h, pfn)
    while h.slot[i].op1:
        if h.slot[i].pfn == pfn:
            return &h.slot[i]
        i = (i + 1) & h.mask
    return NULL


cdef bint owners_put(Owners* h, uint32_t pfn, uint32_t op1, uint32_t offset, uint32_t order) noexcept nogil:
    cdef Owners grown
    cdef uint32_t i
    cdef Piece* p
    if h.used * 2 > h.mask:
        if h.shift < 2 or not owners_init(&grown, 33 - h.shift):
            return False
        for i in range(h.mask + 1):
            p = &h.slot[i]
            if p.op1:
                owners_put(&grown, p.pfn, p.op1, p.offset, p.order)
        free(h.slot)
        h[0] = grown
    i = slot_of(h, pfn)
    while h.slot[i].op1 and h.slot[i].pfn != pfn:
        i = (i + 1) & h.mask
    p = &h.slot[i]
    if not p.op1:
        h.used += 1
    p.pfn = pfn
    p.op1 = op1
    p.offset = offset
    p.order = order
    return True


cdef void owners_del(Owners* h, Piece* gone) noexcept nogil:
    # Closes the gap: what stands behind it and would not be found any more moves up.
    cdef uint32_t hole = <uint32_t>(gone - h.slot), i = hole, home
    h.used -= 1
    while True:
        i = (i + 1) & h.mask
        if not h.slot[i].op1:
            break
        home = slot_of(h, h.slot[i].pfn)
        if ((i - home) & h.mask) >= ((i - hole) & h.mask):
            h.slot[hole] = h.slot[i]
            hole = i
    h.slot[hole].op1 = 0


cdef int owners_take(Owners* h, uint32_t pfn, uint32_t order, uint32_t* op, uint32_t* offset) noexcept nogil:
    # The piece [pfn, pfn + 2^order) goes: 1 and its op and offset if one is known to own it, 0 if not, -1 without memory.
    cdef uint32_t k, head, half
    cdef Piece* p
    cdef Piece found
    if pfn & ((<uint32_t>1 << order) - 1):
        return 0
    for k in range(order, 11):
        head = pfn & ~((<uint32_t>1 << k) - 1)
        if k > order and head == pfn:
            continue                            # the exact look-up below covers every size that starts here
        p = owners_find(h, head)
        if p != NULL and p.order >= k and p.order >= order:
            break
        p = NULL
    else:
        p = NULL
    if p == NULL:
        return 0
    found = p[0]
    op[0] = found.op1 - 1
    offset[0] = found.offset + (pfn - found.pfn)
    owners_del(h, p)
    k = found.order
    while k > order:                            # what is left of the piece, halved as the buddy allocator does
        k -= 1
        half = <uint32_t>1 << k
        if pfn & half:
            head = found.pfn
            found.pfn += half
            found.offset += half
            if not owners_put(h, head, found.op1, found.offset - half, k):
                return -1
        elif not owners_put(h, found.pfn + half, found.op1, found.offset + half, k):
            return -1
    return 1


# ---- roles of rows

def find_roles(rows not None, int64_t tick_gap_us):
    """One byte a row: which free rows wait for their free_batched row, which drain rows begin a vmstat tick or a drain of all lists.

    A tick's drains have a preemption depth of 2 (one less than those of a free); what follows within `tick_gap_us` belongs to it. The
    same depth has drain_all_pages(), called by a task that came back from direct reclaim without a page, or by kcompactd.
    """
    cdef cnp.ndarray array = np.ascontiguousarray(rows, EVENT_DTYPE)
    cdef const EventRow* r = <const EventRow*>cnp.PyArray_DATA(array)
    cdef int64_t n = cnp.PyArray_SIZE(array)
    cdef cnp.ndarray out = np.zeros(n, np.uint8)
    cdef uint8_t* role = <uint8_t*>cnp.PyArray_DATA(out)
    cdef bint ok
    with nogil:
        ok = roles(r, n, tick_gap_us, role)
    if not ok:
        raise MemoryError("no memory for the pages of a batch")
    return out


cdef bint roles(const EventRow* rows, int64_t n, int64_t gap, uint8_t* role) noexcept nogil:
    cdef Owners waiting
    cdef Tasks retrying, kcompactd
    cdef Piece* p
    cdef const EventRow* r
    cdef int64_t i, last = 0
    cdef bint ok = True, seen = False
    cdef unsigned open_drain = 0
    if not owners_init(&waiting, 10):
        return False
    i = n
    while i > 0 and ok:                         # backwards: the last free row before a free_batched row of its page
        i -= 1
        r = &rows[i]
        if r.event == EVENT_FREE_BATCHED:
            ok = owners_put(&waiting, r.pfn, 1, 0, 0)
        elif r.event == EVENT_FREE and waiting.used:
            p = owners_find(&waiting, r.pfn)
            if p != NULL:
                owners_del(&waiting, p)
                role[i] = ROLE_BATCHED
    free(waiting.slot)
    retrying.n = kcompactd.n = 0
    for i in range(n):
        r = &rows[i]
        if r.event == EVENT_PCP_DRAIN:
            if r.context & CTX_DEPTH == 2:
                if (retrying.n and task_in(&retrying, r.pid)) or (kcompactd.n and task_in(&kcompactd, r.pid)):
                    if open_drain != ROLE_DRAIN_ALL:
                        role[i] = open_drain = ROLE_DRAIN_ALL
                else:
                    if not seen or r.t_us - last > gap:
                        role[i] = ROLE_TICK
                    seen = True
                    last = r.t_us
                    open_drain = 0
            continue
        open_drain = 0
        if r.event == EVENT_RECLAIM_END:
            task_add(&retrying, r.pid)
        elif r.event == EVENT_KCOMPACTD_WAKE:
            task_add(&kcompactd, r.pid)
        elif retrying.n and (r.event == EVENT_ALLOC or r.event == EVENT_RECLAIM_BEGIN):
            task_drop(&retrying, r.pid)
    return ok


# ---- the loop

cdef struct Bulk:
    uint32_t pid
    uint32_t gfp
    bint single                 # an allocation of one page stood in

cdef struct Input:
    const EventRow* rows
    const ExtraRow* extras
    const uint32_t* pages
    const uint8_t* role
    const uint32_t* gfp
    const Timer* timers
    const uint32_t* mark_row
    const uint32_t* mark_id
    const uint32_t* victim
    const int64_t* victim_t
    int64_t nr_rows
    int64_t nr_extras
    int64_t nr_pages
    int64_t nr_gfp
    int64_t nr_timers
    int64_t nr_marks
    int64_t nr_victims

cdef struct Counts:
    uint64_t unknown_frees      # frees of pages that no op of the stream got
    uint64_t type_differs       # allocations whose migratetype is not that of their flags
    uint64_t bulk_single        # bulk requests that an ordinary allocation stood in for
    uint64_t bulk_nothing       # bulk requests that got no page
    uint64_t unattributed       # rmqueue and extfrag rows that no request followed

cdef class Converter:
    """The op stream under construction, in arrays that have room for all of it. (Why x = x + 1: see _scan.pyx.)"""
    cdef OpRecord* ops
    cdef uint32_t* op_row
    cdef TraceRow* recorded
    cdef uint32_t* recorded_row
    cdef size_t nr_ops
    cdef size_t nr_recorded
    cdef Owners owners
    cdef Counts counts
    cdef int64_t bad_row

    def __cinit__(self):
        if not owners_init(&self.owners, 12):
            raise MemoryError

    def __dealloc__(self):
        free(self.owners.slot)

    cdef inline OpRecord* emit(self, unsigned op, int64_t row) noexcept nogil:
        cdef OpRecord* o = self.ops + self.nr_ops
        self.op_row[self.nr_ops] = <uint32_t>row
        self.nr_ops = self.nr_ops + 1
        o.op = <uint8_t>op
        o.flags = 0
        o.cpu = 0
        o.task = o.mm = o.ref = 0
        o.a = o.b = o.c = 0
        return o

    cdef inline TraceRow* record(self, unsigned event, const EventRow* r, int64_t row, uint32_t op) noexcept nogil:
        cdef TraceRow* t = self.recorded + self.nr_recorded
        self.recorded_row[self.nr_recorded] = <uint32_t>row
        self.nr_recorded = self.nr_recorded + 1
        t.op = op
        t.pfn = r.pfn
        t.event = <uint8_t>event
        t.order = r.order
        t.mt = r.migratetype
        t.fb_order = t.fb_mt = t.claimed = 0
        t.pad = 0
        return t

    cdef void timer(self, const Timer* t, int64_t row) noexcept nogil:
        cdef OpRecord* o = self.emit(t.kind, row)
        if t.kind == op_codes.Op.VMSTAT_TICK:
            o.cpu = <uint16_t>t.arg
        else:
            o.a = t.arg

    cdef int free_row(self, const EventRow* r, int64_t row, bint adopt) noexcept nogil:
        cdef uint32_t order = r.order if r.order != NO_BYTE else 0, ref = 0, offset = 0
        cdef OpRecord* o
        cdef int known = owners_take(&self.owners, r.pfn, order, &ref, &offset)
        if known < 0:
            return -1
        if not known:
            self.counts.unknown_frees = self.counts.unknown_frees + 1
            if not adopt:
                return 0
        o = self.emit(op_codes.Op.FREE, row)
        o.cpu = r.cpu
        o.task = r.pid
        o.b = order
        if known:
            o.ref = ref
            o.a = offset
        else:
            o.flags = op_codes.OpFlag.OPF_PFN
            o.a = r.pfn
        return 0

    cdef int bulk_row(self, const Input* s, const ExtraRow* x, const EventRow* r, int64_t row, uint32_t gfp) noexcept nogil:
        cdef OpRecord* o
        cdef uint32_t i, op
        if x.a == 0:
            self.counts.bulk_nothing = self.counts.bulk_nothing + 1
            return 0
        o = self.emit(op_codes.Op.ALLOC_BULK, row)
        op = <uint32_t>self.nr_ops - 1
        o.cpu = r.cpu
        o.task = r.pid
        o.a = x.a
        o.b = gfp
        for i in range(x.length):
            if not owners_put(&self.owners, s.pages[x.start + i], op + 1, i, 0):
                return -1
        return 0

    cdef int loop(self, const Input* s, int64_t first, bint resync, bint adopt) noexcept nogil:
        # 0; -1: no memory; 1: a gfp_id without a row in the table; 2: a page number that is no page frame
        cdef int64_t i, k = 0, mark = 0, x = 0
        cdef const EventRow* r
        cdef OpRecord* o
        cdef TraceRow* t
        cdef TraceRow* last_taken = NULL
        cdef Bulk[64] bulks
        cdef unsigned nr_bulks = 0, b
        cdef uint32_t op
        cdef unsigned flags
        cdef size_t q, pending = 0
        cdef Tasks reclaiming, kswapd
        reclaiming.n = kswapd.n = 0
        while x < s.nr_extras and s.extras[x].row < first:
            x += 1
        while mark < s.nr_marks and s.mark_row[mark] < first:
            mark += 1
        for i in range(first, s.nr_rows):
            r = &s.rows[i]
            self.bad_row = i
            while x < s.nr_extras and s.extras[x].row < i:
                x += 1
            if r.event == EVENT_RMQUEUE:
                self.record(EV_RMQUEUE, r, i, NO_OP)
                continue
            if r.event == EVENT_EXTFRAG:
                # It stands for a taken block, unless the row before it already said so.
                last_taken = self.last_pending(pending)
                if last_taken == NULL or last_taken.pfn != r.pfn or last_taken.order != r.order:
                    self.record(EV_RMQUEUE, r, i, NO_OP)
                t = self.record(EV_EXTFRAG, r, i, NO_OP)
                if x < s.nr_extras and s.extras[x].row == i:
                    t.fb_order = <uint8_t>s.extras[x].a
                    t.fb_mt = <uint8_t>s.extras[x].b
                    t.claimed = <uint8_t>s.extras[x].c
                continue
            if r.event == EVENT_PCP_DRAIN:
                if s.role[i] >= ROLE_TICK:
                    while k < s.nr_timers and s.timers[k].t_us < r.t_us:
                        self.timer(&s.timers[k], i)
                        k += 1
                    o = self.emit(op_codes.Op.VMSTAT_TICK if s.role[i] == ROLE_TICK else op_codes.Op.DRAIN_ALL, i)
                    o.cpu = r.cpu
                    o.task = r.pid
                self.record(EV_PCP_DRAIN, r, i, <uint32_t>self.nr_ops - 1 if self.nr_ops else <uint32_t>NO_OP)
                continue
            while k < s.nr_timers and s.timers[k].t_us < r.t_us:
                self.timer(&s.timers[k], i)
                k += 1
            if r.event == EVENT_FREE_BATCHED or r.event == EVENT_FREE:
                if s.role[i] != ROLE_BATCHED and self.free_row(r, i, adopt):
                    return -1
            elif r.event == EVENT_ALLOC:
                if r.gfp_id >= s.nr_gfp:
                    return 1
                o = self.emit(op_codes.Op.ALLOC, i)
                op = <uint32_t>self.nr_ops - 1
                o.cpu = r.cpu
                o.task = r.pid
                o.a = r.order
                o.b = s.gfp[r.gfp_id]
                flags = op_codes.OpFlag.OPF_LRU if r.migratetype == 1 else 0
                if r.migratetype != (o.b >> 3 & 3):
                    self.counts.type_differs = self.counts.type_differs + 1
                if not r.context & CTX_HARDIRQ:
                    if (reclaiming.n and task_in(&reclaiming, r.pid)) or (kswapd.n and task_in(&kswapd, r.pid)):
                        flags |= op_codes.OpFlag.OPF_MEMALLOC
                    if s.nr_victims and not r.context & CTX_SOFTIRQ and is_victim(s, r):
                        flags |= op_codes.OpFlag.OPF_OOM_VICTIM
                o.flags = <uint8_t>flags
                pending = self.attribute(pending, op)
                if r.pfn != NO_PFN and r.pfn != 0 and not owners_put(&self.owners, r.pfn, op + 1, 0, r.order):
                    return -1
                for b in range(nr_bulks):
                    if bulks[b].pid == r.pid and not r.context & (CTX_HARDIRQ | CTX_SOFTIRQ):
                        bulks[b].single = True
            elif r.event == EVENT_MARK:
                if mark < s.nr_marks and s.mark_row[mark] == i:
                    o = self.emit(op_codes.Op.CHECKPOINT, i)
                    o.a = s.mark_id[mark]
                    mark += 1
                    if resync:
                        free(self.owners.slot)
                        if not owners_init(&self.owners, 12):
                            return -1
            elif r.event == EVENT_BULK:
                if x < s.nr_extras and s.extras[x].row == i:
                    b = 0
                    while b < nr_bulks and bulks[b].pid != r.pid:
                        b += 1
                    if b < 64:
                        bulks[b].pid = r.pid
                        bulks[b].gfp = s.extras[x].a
                        bulks[b].single = False
                        if b == nr_bulks:
                            nr_bulks += 1
            elif r.event == EVENT_BULKRET:
                b = 0
                while b < nr_bulks and bulks[b].pid != r.pid:
                    b += 1
                if b < nr_bulks and x < s.nr_extras and s.extras[x].row == i:
                    if bulks[b].single:
                        self.counts.bulk_single = self.counts.bulk_single + 1
                    else:
                        if self.bulk_row(s, &s.extras[x], r, i, bulks[b].gfp):
                            return -1
                        if s.extras[x].a:
                            pending = self.attribute(pending, <uint32_t>self.nr_ops - 1)
                    nr_bulks -= 1
                    bulks[b] = bulks[nr_bulks]
            elif r.event == EVENT_KSWAPD_WAKE:
                task_add(&kswapd, r.pid)
                o = self.emit(op_codes.Op.KSWAPD_BEGIN, i)
                o.task = r.pid
                if x < s.nr_extras and s.extras[x].row == i:
                    o.a = s.extras[x].a
            elif r.event == EVENT_RECLAIM_BEGIN:
                task_add(&reclaiming, r.pid)
            elif r.event == EVENT_RECLAIM_END:
                task_drop(&reclaiming, r.pid)
        for q in range(self.nr_recorded):
            if (self.recorded + q).op == NO_OP:
                self.counts.unattributed = self.counts.unattributed + 1
        return 0

    cdef TraceRow* last_pending(self, size_t pending) noexcept nogil:
        cdef size_t q = self.nr_recorded
        cdef TraceRow* t
        while q > pending:
            q -= 1
            t = self.recorded + q
            if t.event == EV_RMQUEUE:
                return t
        return NULL

    cdef size_t attribute(self, size_t pending, uint32_t op) noexcept nogil:
        # The blocks taken since the last request were taken for this one. Returns where the next search begins.
        cdef TraceRow* t
        while pending < self.nr_recorded:
            t = self.recorded + pending
            if t.op == NO_OP and t.event != EV_PCP_DRAIN:
                t.op = op
            pending += 1
        return pending


cdef bint is_victim(const Input* s, const EventRow* r) noexcept nogil:
    cdef int64_t i
    for i in range(s.nr_victims):
        if s.victim[i] == r.pid and r.t_us > s.victim_t[i]:
            return True
    return False


def convert_rows(rows, extras, pages, role, gfp_bits, timers, marks, victims, *, int64_t first, bint resync, bint adopt):
    """Ops of rows[first:]. All arguments are arrays: rows EVENT_DTYPE, extras EXTRA_DTYPE, pages u32, role u8 as find_roles() gives it,
    gfp_bits u32 by gfp_id, timers TIMER_DTYPE sorted by time; marks (u32 rows, u32 ids) of checkpoints; victims (u32 pids, i64 times).

    resync: ownership of pages ends at each mark. adopt: frees of pages that no op got become ops that name the page frame, else they
    are left out. Returns (ops, row of each op, recorded rows as TRACE_DTYPE with their op, row of each, counts). IndexError names a row
    whose gfp_id the table lacks.
    """
    cdef Converter c = Converter()
    cdef Input s
    cdef int rc
    cdef cnp.ndarray a_rows = np.ascontiguousarray(rows, EVENT_DTYPE), a_extras = np.ascontiguousarray(extras, EXTRA_DTYPE)
    cdef cnp.ndarray a_pages = np.ascontiguousarray(pages, np.uint32), a_role = np.ascontiguousarray(role, np.uint8)
    cdef cnp.ndarray a_gfp = np.ascontiguousarray(gfp_bits, np.uint32), a_timers = np.ascontiguousarray(timers, TIMER_DTYPE)
    cdef cnp.ndarray a_mrow = np.ascontiguousarray(marks[0], np.uint32), a_mid = np.ascontiguousarray(marks[1], np.uint32)
    cdef cnp.ndarray a_pid = np.ascontiguousarray(victims[0], np.uint32), a_vt = np.ascontiguousarray(victims[1], np.int64)
    s.nr_rows = cnp.PyArray_SIZE(a_rows)
    if cnp.PyArray_SIZE(a_role) != s.nr_rows or len(a_mrow) != len(a_mid) or len(a_pid) != len(a_vt):
        raise ValueError("arrays that belong together differ in length")
    if not 0 <= first <= s.nr_rows:
        raise ValueError(f"first is {first}; it must lie in 0..{s.nr_rows}")
    s.rows = <const EventRow*>cnp.PyArray_DATA(a_rows)
    s.extras = <const ExtraRow*>cnp.PyArray_DATA(a_extras)
    s.pages = <const uint32_t*>cnp.PyArray_DATA(a_pages)
    s.role = <const uint8_t*>cnp.PyArray_DATA(a_role)
    s.gfp = <const uint32_t*>cnp.PyArray_DATA(a_gfp)
    s.timers = <const Timer*>cnp.PyArray_DATA(a_timers)
    s.mark_row = <const uint32_t*>cnp.PyArray_DATA(a_mrow)
    s.mark_id = <const uint32_t*>cnp.PyArray_DATA(a_mid)
    s.victim = <const uint32_t*>cnp.PyArray_DATA(a_pid)
    s.victim_t = <const int64_t*>cnp.PyArray_DATA(a_vt)
    s.nr_extras = cnp.PyArray_SIZE(a_extras)
    s.nr_pages = cnp.PyArray_SIZE(a_pages)
    s.nr_gfp = cnp.PyArray_SIZE(a_gfp)
    s.nr_timers = cnp.PyArray_SIZE(a_timers)
    s.nr_marks = cnp.PyArray_SIZE(a_mrow)
    s.nr_victims = cnp.PyArray_SIZE(a_pid)
    # Each row gives at most one op and two recorded rows; what is not written costs nothing.
    room = s.nr_rows - first
    ops, op_row = np.empty(room + s.nr_timers, OP_DTYPE), np.empty(room + s.nr_timers, np.uint32)
    recorded, recorded_row = np.empty(2 * room, TRACE_DTYPE), np.empty(2 * room, np.uint32)
    c.ops = <OpRecord*>cnp.PyArray_DATA(<cnp.ndarray>ops)
    c.op_row = <uint32_t*>cnp.PyArray_DATA(<cnp.ndarray>op_row)
    c.recorded = <TraceRow*>cnp.PyArray_DATA(<cnp.ndarray>recorded)
    c.recorded_row = <uint32_t*>cnp.PyArray_DATA(<cnp.ndarray>recorded_row)
    with nogil:
        rc = c.loop(&s, first, resync, adopt)
    if rc < 0:
        raise MemoryError("no memory for another operation")
    if rc == 1:
        raise IndexError(f"row {c.bad_row}: gfp_id {rows[c.bad_row]['gfp_id']} is not in the table of {s.nr_gfp} flags")
    return ops[:c.nr_ops], op_row[:c.nr_ops], recorded[:c.nr_recorded], recorded_row[:c.nr_recorded], c.counts
