"""Reader of the recorded allocator events (`events.csv`): bytes in, fixed records out, in one pass without the GIL.

Models: the columns t_us, pid, ctx, event, pfn, order, migratetype, gfp_id, extra of a recording. Simplifies: of `extra` only what a
replay needs is taken apart, the rest stays text. Omits: line breaks inside quoted fields.

Input arrives in pieces of any size; a line longer than MAX_LINE, more rows than the limit, or a field that is not what its event
needs raises TraceFormatError naming the line. Memory grows with the rows read and nothing else.
"""
from cpython.buffer cimport PyBuffer_FillInfo
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memchr, memcmp, memcpy

import numpy as np

cimport numpy as cnp
from mmpy.traces._text cimport context_of, decimal, hexadecimal, small_value, value_of

from mmpy.traces.errors import TraceFormatError

cdef extern from "string.h" nogil:
    void* memrchr(const void* s, int c, size_t n)

cnp.import_array()

cdef EventRow _row
cdef EventRow[::1] _row_view = <EventRow[:1]>&_row
EVENT_DTYPE = np.asarray(_row_view).dtype
cdef ExtraRow _extra
cdef ExtraRow[::1] _extra_view = <ExtraRow[:1]>&_extra
EXTRA_DTYPE = np.asarray(_extra_view).dtype

HEADER = b"t_us,pid,ctx,event,pfn,order,migratetype,gfp_id,extra"
EVENT_NAMES = {
    EVENT_ALLOC: "alloc", EVENT_FREE: "free", EVENT_FREE_BATCHED: "free_batched", EVENT_RMQUEUE: "rmqueue",
    EVENT_PCP_DRAIN: "pcp_drain", EVENT_EXTFRAG: "extfrag", EVENT_BULK: "bulk", EVENT_BULKRET: "bulkret", EVENT_MARK: "mark",
    EVENT_KSWAPD_WAKE: "mm_vmscan_kswapd_wake", EVENT_KSWAPD_SLEEP: "mm_vmscan_kswapd_sleep",
    EVENT_RECLAIM_BEGIN: "mm_vmscan_direct_reclaim_begin", EVENT_RECLAIM_END: "mm_vmscan_direct_reclaim_end",
    EVENT_KCOMPACTD_WAKE: "mm_compaction_kcompactd_wake",
}
NONE_PFN = <uint32_t>NO_PFN
NONE_GFP = <uint16_t>NO_GFP
NONE_BYTE = <uint8_t>NO_BYTE
DEPTH_MASK = <int>CTX_DEPTH
SOFTIRQ = <int>CTX_SOFTIRQ
HARDIRQ = <int>CTX_HARDIRQ
REFILL = <int>CTX_REFILL
IRQS_OFF = <int>CTX_IRQS_OFF
FIRST_OTHER = <int>EVENT_OTHER

cdef enum:
    MAX_LINE = 65536
    MAX_BULK = 1 << 20
    # what is wrong with a line
    BAD_TIME = 1
    BAD_PID = 2
    BAD_CTX = 3
    BAD_NAME = 4
    BAD_PFN = 5
    BAD_ORDER = 6
    BAD_TYPE = 7
    BAD_GFP = 8
    BAD_FIELDS = 9
    BAD_EXTRA = 10
    BAD_QUOTE = 11
    NEED_PFN = 12
    NEED_ORDER = 13
    NEED_TYPE = 14
    NEED_GFP = 15
    BAD_LENGTH = 16
    NO_MEMORY = 17
    TOO_MANY = 18
    NEED_ROOM = 19              # not an error: Python must make room
    NEW_NAME = 20               # not an error: Python must register the name first

_PROBLEMS = {
    BAD_TIME: "t_us is no number of microseconds", BAD_PID: "pid is no number below 2^32",
    BAD_CTX: "ctx is longer than 8 characters", BAD_NAME: "event is no name",
    BAD_PFN: "pfn is no hexadecimal number below 2^32 - 1", BAD_ORDER: "order is not within 0..10",
    BAD_TYPE: "migratetype is not within 0..15", BAD_GFP: "gfp_id is not within 0..65534",
    BAD_FIELDS: "a row has nine fields", BAD_EXTRA: "extra lacks a value that the event needs or holds one that is no number",
    BAD_QUOTE: "a quoted field does not end", NEED_PFN: "the event needs a pfn", NEED_ORDER: "the event needs an order",
    NEED_TYPE: "the event needs a migratetype", NEED_GFP: "the event needs a gfp_id",
    BAD_LENGTH: f"longer than {MAX_LINE} bytes",
}

# ---- growing columns

cdef bint column_grow(Column* c, size_t need) noexcept nogil:
    cdef size_t size = c.size * 2 if c.size else 1024
    cdef char* data
    while size < need:
        size *= 2
    data = <char*>realloc(c.data, size * c.item)
    if data == NULL:
        return False
    c.data = data
    c.size = size
    return True


cdef void* column_push(Column* c) noexcept nogil:
    if c.used == c.size and not column_grow(c, c.used + 1):
        return NULL
    c.used += 1
    return c.data + (c.used - 1) * c.item


cdef bint column_extend(Column* c, const char* data, size_t n) noexcept nogil:
    if c.used + n > c.size and not column_grow(c, c.used + n):
        return False
    memcpy(c.data + c.used * c.item, data, n * c.item)
    c.used += n
    return True


cdef class Block:
    """Memory taken over from a column, as a buffer."""
    cdef char* data
    cdef Py_ssize_t length

    def __getbuffer__(self, Py_buffer* view, int flags):
        PyBuffer_FillInfo(view, self, self.data, self.length, 0, flags)

    def __dealloc__(self):
        free(self.data)


cdef object column_array(Column* c, object dtype):
    # The array takes the memory over; the column starts anew.
    cdef Block block = Block.__new__(Block)
    if c.used == 0:
        return np.empty(0, dtype)
    cdef char* fit = <char*>realloc(c.data, c.used * c.item)
    block.data = fit if fit != NULL else c.data
    block.length = <Py_ssize_t>(c.used * c.item)
    c.data = NULL
    c.used = c.size = 0
    return np.frombuffer(block, dtype)


cdef class EventColumns:
    """Columns of events under construction. `expected`: rows that are probably coming.

    The rows stand in numpy's memory: it asks the system for huge pages, and most of the time of a large read would go into page faults.
    """

    def __cinit__(self, *args, expected=0, **kwargs):
        self.begin(expected)
        self.extras.item = sizeof(ExtraRow)
        self.pages.item = sizeof(uint32_t)
        self.text.item = 1

    def __dealloc__(self):
        free(self.extras.data)
        free(self.pages.data)
        free(self.text.data)

    def __len__(self):
        return self.used

    cdef int begin(self, size_t expected) except -1:
        if expected < 1024:
            expected = 1024
        elif expected > <size_t>1 << 24:
            expected = <size_t>1 << 24
        self.rows_array = np.empty(expected, EVENT_DTYPE)
        self.rows = <EventRow*>cnp.PyArray_DATA(self.rows_array)
        self.room = <size_t>cnp.PyArray_SIZE(self.rows_array)
        self.used = 0
        return 0

    cdef int grow(self) except -1:
        # Twice the room for rows.
        grown = np.empty(2 * self.room, EVENT_DTYPE)
        grown[:self.used] = self.rows_array[:self.used]
        self.rows_array = grown
        self.rows = <EventRow*>cnp.PyArray_DATA(self.rows_array)
        self.room *= 2
        return 0

    def take(self):
        """(rows, extras, pages, text): arrays of EVENT_DTYPE, EXTRA_DTYPE and u32, and bytes; the columns are empty afterwards."""
        text = self.text.data[:self.text.used] if self.text.used else b""
        self.text.used = 0
        rows = self.rows_array[:self.used]
        if self.used * 2 < self.room:
            rows = rows.copy()
        self.begin(0)
        return (rows, column_array(&self.extras, EXTRA_DTYPE),
                column_array(&self.pages, np.dtype(np.uint32)), text)


# ---- one line

cdef unsigned known_event(const char* p, size_t n) noexcept nogil:
    if n == 5 and memcmp(p, b"alloc", 5) == 0:
        return EVENT_ALLOC
    if n == 4:
        return EVENT_FREE if memcmp(p, b"free", 4) == 0 else EVENT_MARK if memcmp(p, b"mark", 4) == 0 else \
            EVENT_BULK if memcmp(p, b"bulk", 4) == 0 else EVENT_NONE
    if n == 12 and memcmp(p, b"free_batched", 12) == 0:
        return EVENT_FREE_BATCHED
    if n == 7:
        return EVENT_RMQUEUE if memcmp(p, b"rmqueue", 7) == 0 else EVENT_EXTFRAG if memcmp(p, b"extfrag", 7) == 0 else \
            EVENT_BULKRET if memcmp(p, b"bulkret", 7) == 0 else EVENT_NONE
    if n == 9 and memcmp(p, b"pcp_drain", 9) == 0:
        return EVENT_PCP_DRAIN
    if n == 21 and memcmp(p, b"mm_vmscan_kswapd_wake", 21) == 0:
        return EVENT_KSWAPD_WAKE
    if n == 22 and memcmp(p, b"mm_vmscan_kswapd_sleep", 22) == 0:
        return EVENT_KSWAPD_SLEEP
    if n == 30 and memcmp(p, b"mm_vmscan_direct_reclaim_begin", 30) == 0:
        return EVENT_RECLAIM_BEGIN
    if n == 28 and memcmp(p, b"mm_vmscan_direct_reclaim_end", 28) == 0:
        return EVENT_RECLAIM_END
    if n == 28 and memcmp(p, b"mm_compaction_kcompactd_wake", 28) == 0:
        return EVENT_KCOMPACTD_WAKE
    return EVENT_NONE


cdef class EventScanner(EventColumns):
    """Takes the bytes of an events.csv piece by piece; `source` is named in errors, `max_rows` bounds the rows, `expected` are likely."""
    cdef object source
    cdef size_t line            # lines done
    cdef size_t max_rows
    cdef bytearray carry        # the unfinished last line
    cdef list others
    cdef dict codes
    cdef char[9] ctx_seen       # the context characters of the row before: they rarely change
    cdef unsigned ctx_value

    def __init__(self, source="events.csv", max_rows=1 << 27, *, expected=0):
        if not 0 < max_rows < 1 << 32:
            raise ValueError(f"max_rows is {max_rows}: must be within 1..2^32-1")
        self.source = source
        self.max_rows = max_rows
        self.line = 0
        self.carry = bytearray()
        self.others = []
        self.codes = {}

    @property
    def other_names(self):
        """Names of the events that have no code of their own: the first is FIRST_OTHER."""
        return tuple(self.others)

    def feed(self, const uint8_t[::1] data not None):
        """Read the lines that end in `data`; what follows the last line break is kept for the next call."""
        cdef const char* p
        cdef const char* end
        cdef const char* brk
        if data.shape[0] == 0:
            return
        p = <const char*>&data[0]
        end = p + data.shape[0]
        if len(self.carry):
            brk = <const char*>memchr(p, 10, end - p)
            if brk == NULL:
                self.keep(p, end)
                return
            self.carry += p[:brk + 1 - p]
            whole = bytes(self.carry)
            self.carry = bytearray()
            self.lines(<const char*>whole, <const char*>whole + len(whole))
            p = brk + 1
        brk = <const char*>memrchr(p, 10, end - p) if end > p else NULL
        if brk != NULL:
            self.lines(p, brk + 1)
            p = brk + 1
        self.keep(p, end)

    def finish(self):
        """Read a last line without line break. TraceFormatError if there was not even a header."""
        cdef bytes whole
        if len(self.carry):
            whole = bytes(self.carry) + b"\n"
            self.carry = bytearray()
            self.lines(<const char*>whole, <const char*>whole + len(whole))
        if self.line == 0:
            raise TraceFormatError(f"{self.source}: empty, not even a header line")

    cdef int keep(self, const char* p, const char* end) except -1:
        if <size_t>(end - p) + len(self.carry) > MAX_LINE:
            raise TraceFormatError(f"{self.source}: line {self.line + 1}: longer than {MAX_LINE} bytes")
        self.carry += p[:end - p]
        return 0

    cdef int lines(self, const char* p, const char* end) except -1:
        # [p, end) ends with a line break: so every loop over a field stops inside.
        cdef int problem
        cdef const char* stop
        if self.line == 0:
            stop = <const char*>memchr(p, 10, end - p)
            head = p[:stop - p].strip()
            if head != HEADER:
                raise TraceFormatError(f"{self.source}: line 1: the header is {bytes(head[:80])!r}, not {HEADER!r}")
            self.line = 1
            p = stop + 1
        while p < end:
            with nogil:
                problem = self.scan(&p, end)
            if problem == NEW_NAME:
                self.register(p, end)
            elif problem == NEED_ROOM:
                self.grow()
            elif problem:
                self.refuse(problem, p, end)
        return 0

    cdef int register(self, const char* p, const char* end) except -1:
        # A name that has no code yet: the fourth field of the line at p.
        cdef const char* stop = <const char*>memchr(p, 10, end - p)
        name = p[:stop - p].split(b",")[3]
        if not name or len(name) > 64 or not name.decode("ascii", "replace").isidentifier():
            self.refuse(BAD_NAME, p, end)
        if EVENT_OTHER + len(self.others) >= EVENT_MAX:
            raise TraceFormatError(f"{self.source}: line {self.line + 1}: more than {EVENT_MAX - EVENT_OTHER} kinds of events")
        self.codes[name] = EVENT_OTHER + len(self.others)
        self.others.append(name.decode("ascii"))
        return 0

    cdef int refuse(self, int problem, const char* p, const char* end) except -1:
        where = f"{self.source}: line {self.line + 1}"
        if problem == NO_MEMORY:
            raise MemoryError(f"{where}: no memory for another row")
        if problem == TOO_MANY:
            raise TraceFormatError(f"{where}: more than {self.max_rows} rows")
        cdef const char* stop = <const char*>memchr(p, 10, end - p)
        text = p[:min(stop - p, 100)].decode("ascii", "backslashreplace")
        raise TraceFormatError(f"{where}: {_PROBLEMS[problem]}: {text}")

    cdef unsigned other_event(self, const char* p, size_t n) noexcept with gil:
        return self.codes.get(p[:n], EVENT_NONE)

    cdef int scan(self, const char** at, const char* end) noexcept nogil:
        # Lines from at[0] on; stops behind the last, or at the start of the one it returns a problem for. (x = x + 1, not x += 1, on
        # attributes: with nonecheck, in debug builds, Cython wants the GIL for the latter.)
        cdef const char* p = at[0]
        cdef const char* start
        cdef const char* q
        cdef uint64_t v = 0
        cdef size_t n
        cdef unsigned event
        cdef EventRow* r
        cdef int problem
        while p < end:
            start = p
            at[0] = start
            if self.used >= self.max_rows:
                return TOO_MANY
            if self.used == self.room:
                return NEED_ROOM
            r = self.rows + self.used       # counted when the row is sound
            p = decimal(p, &v)
            if p == NULL or p[0] != 44:
                return BAD_TIME
            r.t_us = <int64_t>v
            p = decimal(p + 1, &v)
            if p == NULL or p[0] != 44 or v >> 32:
                return BAD_PID
            r.pid = <uint32_t>v
            r.cpu = 0
            p += 1
            q = p
            while q[0] != 44 and q[0] != 10:
                q += 1
            n = q - p
            if q[0] != 44:
                return BAD_FIELDS
            if n > 8:
                return BAD_CTX
            if n == 5 and memcmp(p, self.ctx_seen, 5) == 0:
                r.context = <uint8_t>self.ctx_value
            else:
                r.context = <uint8_t>context_of(p, n)
                if n == 5:
                    memcpy(self.ctx_seen, p, 5)
                    self.ctx_value = r.context
            p = q + 1
            q = p
            while q[0] != 44 and q[0] != 10:
                q += 1
            if q[0] != 44:
                return BAD_FIELDS
            event = known_event(p, q - p)
            if event == EVENT_NONE:
                event = self.other_event(p, q - p)
                if event == EVENT_NONE:
                    return NEW_NAME
            r.event = <uint8_t>event
            p = q + 1
            if p[0] == 44:
                r.pfn = NO_PFN
            else:
                p = hexadecimal(p, &v)
                if p == NULL or p[0] != 44 or v >= NO_PFN:
                    return BAD_PFN
                r.pfn = <uint32_t>v
            p += 1
            if p[0] == 44:
                r.order = NO_BYTE
            else:
                p = decimal(p, &v)
                if p == NULL or p[0] != 44 or (v > 10 and event < EVENT_KSWAPD_WAKE) or v > 254:
                    return BAD_ORDER
                r.order = <uint8_t>v
            p += 1
            if p[0] == 44:
                r.migratetype = NO_BYTE
            else:
                p = decimal(p, &v)
                if p == NULL or p[0] != 44 or v > 15:
                    return BAD_TYPE
                r.migratetype = <uint8_t>v
            p += 1
            if p[0] == 44:
                r.gfp_id = NO_GFP
            else:
                p = decimal(p, &v)
                if p == NULL or p[0] != 44 or v >= NO_GFP:
                    return BAD_GFP
                r.gfp_id = <uint16_t>v
            p += 1
            problem = 0
            if p[0] == 10:
                if event >= EVENT_EXTFRAG and event <= EVENT_BULKRET:
                    return BAD_EXTRA
                q = p
            else:
                q = <const char*>memchr(p, 10, end - p)
                if q - start > MAX_LINE:
                    return BAD_LENGTH
                problem = self.extra(r, p, q)
            if not problem:
                problem = lacks(r)
            if problem:
                return problem
            self.used = self.used + 1
            self.line = self.line + 1
            p = q + 1
        at[0] = p
        return 0

    cdef int extra(self, EventRow* r, const char* p, const char* end) noexcept nogil:
        # The last field of a row, [p, end).
        cdef ExtraRow* x
        cdef ExtraRow found
        cdef uint64_t v = 0
        cdef uint32_t page
        cdef const char* q
        cdef char c
        if end > p and (end - 1)[0] == 13:
            end -= 1
        if r.event == EVENT_RMQUEUE:
            if end - p == 6 and memcmp(p, b"refill", 6) == 0:
                r.context |= CTX_REFILL
            elif end > p:
                return BAD_EXTRA
            return 0
        if end == p:
            return BAD_EXTRA if r.event >= EVENT_EXTFRAG and r.event <= EVENT_BULKRET else 0
        found.row = <uint32_t>self.used
        found.a = found.b = found.c = 0
        found.length = 0
        if r.event == EVENT_BULKRET:
            found.start = <uint32_t>self.pages.used
            if not small_value(p, end, b"ret=", 4, &found.a):
                return BAD_EXTRA
            q = value_of(p, end, b"pages=", 6)
            while q != NULL and q < end and q[0] != 32:
                q = hexadecimal(q, &v)
                if q == NULL or v >= NO_PFN or (q < end and q[0] != 43 and q[0] != 32):
                    return BAD_EXTRA
                page = <uint32_t>v
                if found.length == 65535 or not column_extend(&self.pages, <char*>&page, 1):
                    return NO_MEMORY
                found.length += 1
                if q < end and q[0] == 43:
                    q += 1
            if found.length > found.a or found.a > MAX_BULK:
                return BAD_EXTRA
        else:
            if self.text.used > <size_t>NO_PFN - MAX_LINE:
                return NO_MEMORY
            found.start = <uint32_t>self.text.used
            if r.event == EVENT_EXTFRAG:
                if not (small_value(p, end, b"fallback_order=", 15, &found.a)
                        and small_value(p, end, b"fallback_migratetype=", 21, &found.b)
                        and small_value(p, end, b"change_ownership=", 17, &found.c)
                        and found.a <= 10 and found.b <= 15 and found.c <= 1):
                    return BAD_EXTRA
            elif r.event == EVENT_BULK:
                if not (small_value(p, end, b"gfp=", 4, &found.a) and small_value(p, end, b"nr=", 3, &found.b)):
                    return BAD_EXTRA
            else:
                if r.event == EVENT_KSWAPD_WAKE or r.event == EVENT_KSWAPD_SLEEP:
                    if value_of(p, end, b"nid=", 4) != NULL and not small_value(p, end, b"nid=", 4, &found.a):
                        return BAD_EXTRA
                if p[0] == 34:                          # a quoted field: "" stands for one quote
                    p += 1
                    while p < end:
                        c = p[0]
                        if c == 34:
                            if p + 1 == end:
                                break
                            if p[1] != 34:
                                return BAD_QUOTE
                            p += 1
                        if not column_extend(&self.text, &c, 1):
                            return NO_MEMORY
                        p += 1
                    if p == end:
                        return BAD_QUOTE
                else:
                    if r.event != EVENT_MARK and memchr(p, 44, end - p) != NULL:
                        return BAD_FIELDS
                    if not column_extend(&self.text, p, end - p):
                        return NO_MEMORY
                found.length = <uint32_t>self.text.used - found.start
        x = <ExtraRow*>column_push(&self.extras)
        if x == NULL:
            return NO_MEMORY
        x[0] = found
        return 0


cdef inline int lacks(const EventRow* r) noexcept nogil:
    # An allocation that failed has no pfn; every other event about a page must name it.
    if r.event == EVENT_NONE or r.event > EVENT_EXTFRAG:
        return 0
    if r.order == NO_BYTE and r.event != EVENT_FREE_BATCHED:
        return NEED_ORDER
    if r.event == EVENT_ALLOC:
        return NEED_TYPE if r.migratetype == NO_BYTE else NEED_GFP if r.gfp_id == NO_GFP else 0
    if r.pfn == NO_PFN:
        return NEED_PFN
    if r.migratetype == NO_BYTE and r.event >= EVENT_RMQUEUE:
        return NEED_TYPE
    return 0
