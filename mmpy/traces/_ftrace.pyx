"""Reader of kmem: tracepoints in the text of ftrace (trace, trace_pipe), perf script and trace-cmd report: lines in, fixed records out.

Models: the print formats of mm_page_alloc, mm_page_free, mm_page_free_batched, mm_page_alloc_zone_locked, mm_page_pcpu_drain,
mm_page_alloc_extfrag (include/trace/events/kmem.h) and of kswapd's and direct reclaim's begin and end (vmscan.h). Simplifies: what stands
before the event's name is read from its end, so that a task's name may hold anything. Omits: other events, which are counted.

A line of one of these events that cannot be read is counted and its number kept; lines of anything else are passed over.
"""
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memchr, memcmp, memset

from mmpy.traces._scan cimport *
from mmpy.traces._text cimport context_of, decimal, small_value, value_of

from mmpy.traces.errors import TraceFormatError

cdef extern from "string.h" nogil:
    void* memmem(const void* s, size_t n, const void* what, size_t m)
    void* memrchr(const void* s, int c, size_t n)

cdef enum:
    MAX_LINE = 65536
    MAX_GFP = 4096              # different texts of flags
    GFP_SLOTS = 16384
    KEPT_LINES = 8
    LINE_OTHER = 0              # no event of ours
    LINE_EVENT = 1
    LINE_BAD = 2
    LINE_LOST = 3
    LINE_NEW_GFP = 4            # Python must register the text first
    LINE_NEED_ROOM = 5

cdef struct GfpSlot:
    uint64_t hash
    uint32_t start              # in the text of flags seen
    uint16_t length
    uint16_t id1                # id + 1; 0: empty


cdef unsigned event_of(const char* p, size_t n) noexcept nogil:
    if n == 13 and memcmp(p, b"mm_page_alloc", 13) == 0:
        return EVENT_ALLOC
    if n == 12 and memcmp(p, b"mm_page_free", 12) == 0:
        return EVENT_FREE
    if n == 20 and memcmp(p, b"mm_page_free_batched", 20) == 0:
        return EVENT_FREE_BATCHED
    if n == 19 and memcmp(p, b"mm_page_free_direct", 19) == 0:          # its name before 3.4
        return EVENT_FREE
    if n == 15 and memcmp(p, b"mm_pagevec_free", 15) == 0:
        return EVENT_FREE_BATCHED
    if n == 25 and memcmp(p, b"mm_page_alloc_zone_locked", 25) == 0:
        return EVENT_RMQUEUE
    if n == 18 and memcmp(p, b"mm_page_pcpu_drain", 18) == 0:
        return EVENT_PCP_DRAIN
    if n == 21 and memcmp(p, b"mm_page_alloc_extfrag", 21) == 0:
        return EVENT_EXTFRAG
    if n == 21 and memcmp(p, b"mm_vmscan_kswapd_wake", 21) == 0:
        return EVENT_KSWAPD_WAKE
    if n == 22 and memcmp(p, b"mm_vmscan_kswapd_sleep", 22) == 0:
        return EVENT_KSWAPD_SLEEP
    if n == 30 and memcmp(p, b"mm_vmscan_direct_reclaim_begin", 30) == 0:
        return EVENT_RECLAIM_BEGIN
    if n == 28 and memcmp(p, b"mm_vmscan_direct_reclaim_end", 28) == 0:
        return EVENT_RECLAIM_END
    return EVENT_NONE


cdef inline bint is_name(char c) noexcept nogil:
    return 97 <= c <= 122 or c == 95        # a-z _


cdef inline bint is_digit(char c) noexcept nogil:
    return 48 <= c <= 57


cdef const char* find_event(const char* p, const char* end, unsigned* event, const char** head_end) noexcept nogil:
    # Where the fields of the line's event begin, or NULL; head_end: where the part before its name ends. Before the name stands the
    # colon of the time or of "kmem:", so that a task of the same name is not taken for the event.
    cdef const char* at = p
    cdef const char* q
    cdef const char* before
    while True:
        at = <const char*>memmem(at, <size_t>(end - at), b"mm_", 3)
        if at == NULL:
            return NULL
        q = at
        while q < end and is_name(q[0]):
            q += 1
        before = at
        while before > p and (before - 1)[0] == 32:
            before -= 1
        if q < end and q[0] == 58 and before > p and (before - 1)[0] == 58:
            event[0] = event_of(at, <size_t>(q - at))
            if event[0] != EVENT_NONE:
                head_end[0] = at
                return q + 1
        at = q


cdef class FtraceScanner(EventColumns):
    """Takes the bytes of a text trace piece by piece; `source` is named in errors, `max_rows` bounds the rows."""
    cdef object source
    cdef readonly size_t lines      # lines seen
    cdef readonly size_t other      # of these, lines that are no event of ours
    cdef readonly size_t malformed
    cdef readonly size_t lost       # events that the tracer says it lost
    cdef readonly uint32_t nr_cpus
    cdef readonly list gfp_texts    # texts of flags by gfp_id
    cdef readonly list bad_lines    # numbers of the first lines that could not be read
    cdef size_t max_rows
    cdef bytearray carry
    cdef GfpSlot[GFP_SLOTS] gfp
    cdef Column gfp_text
    cdef const char* new_gfp
    cdef size_t new_gfp_n

    def __init__(self, source="trace", max_rows=1 << 27, *, expected=0):
        if not 0 < max_rows < 1 << 32:
            raise ValueError(f"max_rows is {max_rows}: must be within 1..2^32-1")
        self.source = source
        self.max_rows = max_rows
        self.carry = bytearray()
        self.gfp_texts = []
        self.bad_lines = []
        self.gfp_text.item = 1
        memset(self.gfp, 0, sizeof(self.gfp))

    def __dealloc__(self):
        free(self.gfp_text.data)

    def feed(self, const uint8_t[::1] data not None):
        """Read the lines that end in `data`; what follows the last line break is kept for the next call."""
        cdef const char* p
        cdef const char* end
        cdef const char* brk
        cdef bytes whole
        if data.shape[0] == 0:
            return
        p = <const char*>&data[0]
        end = p + data.shape[0]
        if len(self.carry):
            brk = <const char*>memchr(p, 10, <size_t>(end - p))
            if brk == NULL:
                self.keep(p, end)
                return
            self.carry += p[:brk + 1 - p]
            whole = bytes(self.carry)
            self.carry = bytearray()
            self.read(<const char*>whole, <const char*>whole + len(whole))
            p = brk + 1
        brk = <const char*>memrchr(p, 10, <size_t>(end - p)) if end > p else NULL
        if brk != NULL:
            self.read(p, brk + 1)
            p = brk + 1
        self.keep(p, end)

    def finish(self):
        """Read a last line without line break."""
        cdef bytes whole
        if len(self.carry):
            whole = bytes(self.carry) + b"\n"
            self.carry = bytearray()
            self.read(<const char*>whole, <const char*>whole + len(whole))

    cdef int keep(self, const char* p, const char* end) except -1:
        if <size_t>(end - p) + len(self.carry) > MAX_LINE:
            raise TraceFormatError(f"{self.source}: line {self.lines + 1}: longer than {MAX_LINE} bytes")
        self.carry += p[:end - p]
        return 0

    cdef int read(self, const char* p, const char* end) except -1:
        # [p, end) ends with a line break.
        cdef int stop
        while p < end:
            with nogil:
                stop = self.scan(&p, end)
            if stop == LINE_NEED_ROOM:
                if self.used >= self.max_rows:
                    raise TraceFormatError(f"{self.source}: line {self.lines + 1}: more than {self.max_rows} events")
                self.grow()
            elif stop == LINE_NEW_GFP:
                self.register()
            elif stop == LINE_BAD:
                self.malformed += 1
                if len(self.bad_lines) < KEPT_LINES:
                    self.bad_lines.append(self.lines)
        return 0

    cdef int register(self) except -1:
        cdef uint64_t h = text_hash(self.new_gfp, self.new_gfp_n)
        cdef size_t i = h & (GFP_SLOTS - 1)
        cdef GfpSlot* g
        if len(self.gfp_texts) >= MAX_GFP:
            raise TraceFormatError(f"{self.source}: line {self.lines + 1}: more than {MAX_GFP} different gfp_flags")
        while self.gfp[i].id1:
            i = (i + 1) & (GFP_SLOTS - 1)
        g = &self.gfp[i]
        g.hash = h
        g.start = <uint32_t>self.gfp_text.used
        g.length = <uint16_t>self.new_gfp_n
        if not column_extend(&self.gfp_text, self.new_gfp, self.new_gfp_n):
            raise MemoryError("no memory for the text of flags")
        self.gfp_texts.append(self.new_gfp[:self.new_gfp_n].decode("ascii", "replace"))
        g.id1 = <uint16_t>len(self.gfp_texts)
        return 0

    cdef int scan(self, const char** at, const char* end) noexcept nogil:
        # Lines from at[0] on. Stops behind a malformed line, or at the start of one that Python must prepare for. (Why x = x + 1: see _scan.pyx.)
        cdef const char* p = at[0]
        cdef const char* brk
        cdef int kind
        while p < end:
            at[0] = p
            if self.used == self.room or self.used >= self.max_rows:
                return LINE_NEED_ROOM
            brk = <const char*>memchr(p, 10, <size_t>(end - p))
            kind = self.line(p, brk)
            if kind == LINE_NEW_GFP:
                return LINE_NEW_GFP
            self.lines = self.lines + 1
            p = brk + 1
            if kind == LINE_EVENT:
                self.used = self.used + 1
            elif kind == LINE_BAD:
                at[0] = p
                return LINE_BAD
            elif kind == LINE_OTHER:
                self.other = self.other + 1
        at[0] = p
        return 0

    cdef int line(self, const char* p, const char* end) noexcept nogil:
        cdef const char* fields
        cdef const char* head = p
        cdef unsigned event = EVENT_NONE
        cdef EventRow* r = self.rows + self.used
        if end > p and (end - 1)[0] == 13:
            end -= 1
        if p[0] == 35:                                          # a comment
            return LINE_OTHER
        fields = find_event(p, end, &event, &head)
        if fields == NULL:
            if end - p >= 8 and memcmp(p, b"CPU", 3) == 0 and self.lost_events(p, end):
                return LINE_LOST
            return LINE_OTHER
        r.event = <uint8_t>event
        if not self.head(r, p, head):
            return LINE_BAD
        return self.fields(r, fields, end)

    cdef bint lost_events(self, const char* p, const char* end) noexcept nogil:
        # "CPU:3 [LOST 123 EVENTS]"; without a number some of unknown number were lost.
        cdef const char* q = <const char*>memmem(p, <size_t>(end - p), b"[LOST ", 6)
        cdef uint64_t n = 1
        if q == NULL:
            q = <const char*>memmem(p, <size_t>(end - p), b"EVENTS DROPPED", 14)
            if q == NULL:
                return False
        else:
            decimal(q + 6, &n)
        self.lost = self.lost + n
        return True

    cdef bint head(self, EventRow* r, const char* p, const char* q) noexcept nogil:
        # "comm-pid (tgid) [cpu] flags time: group:" read from its end q. Times are in seconds with a fraction, or a plain counter.
        cdef const char* t
        cdef const char* brk
        cdef const char* flags
        cdef uint64_t v = 0
        cdef int64_t us
        cdef unsigned _k
        while q > p and (q - 1)[0] == 32:
            q -= 1
        if q > p and (q - 1)[0] == 58 and q - p > 2 and is_name((q - 2)[0]):        # "kmem:" of perf
            q -= 1
            while q > p and is_name((q - 1)[0]):
                q -= 1
            while q > p and (q - 1)[0] == 32:
                q -= 1
        if q == p or (q - 1)[0] != 58:
            return False
        q -= 1
        t = q
        while t > p and (is_digit((t - 1)[0]) or (t - 1)[0] == 46):
            t -= 1
        if t == q or (t > p and (t - 1)[0] != 32):
            return False
        flags = decimal(t, &v)
        if flags == NULL:
            return False
        if flags[0] == 46:
            if v > <uint64_t>1 << 40:
                return False
            us = <int64_t>v * 1000000
            v = 0
            flags += 1
            for _k in range(6):
                v *= 10
                if flags < q and is_digit(flags[0]):
                    v += <uint64_t>(flags[0] - 48)
                    flags += 1
            while flags < q and is_digit(flags[0]):
                flags += 1
            us += <int64_t>v
        else:
            us = <int64_t>v
        if flags != q:
            return False
        r.t_us = us
        q = t
        while q > p and (q - 1)[0] == 32:
            q -= 1
        r.context = 0
        r.cpu = 0
        r.pid = 0
        brk = <const char*>memrchr(p, 93, <size_t>(q - p)) if q > p else NULL        # ]
        if brk != NULL:
            t = brk + 1
            while t < q and t[0] == 32:
                t += 1
            if t < q:
                if q - t > 8:
                    return False
                r.context = <uint8_t>context_of(t, <size_t>(q - t))
            q = brk
            while q > p and is_digit((q - 1)[0]):
                q -= 1
            if q == brk or q == p or (q - 1)[0] != 91 or decimal(q, &v) == NULL or v > 8191:
                return False
            r.cpu = <uint16_t>v
            if r.cpu >= self.nr_cpus:
                self.nr_cpus = <uint32_t>r.cpu + 1
            q -= 1
            while q > p and (q - 1)[0] == 32:
                q -= 1
        elif self.nr_cpus == 0:
            self.nr_cpus = 1
        if q > p and (q - 1)[0] == 41:                          # (tgid)
            while q > p and q[0] != 40:
                q -= 1
            while q > p and (q - 1)[0] == 32:
                q -= 1
        t = q
        while t > p and is_digit((t - 1)[0]):
            t -= 1
        if t < q and q - t <= 10 and (t == p or not is_name((t - 1)[0])):
            decimal(t, &v)
            r.pid = <uint32_t>v
        return True

    cdef int fields(self, EventRow* r, const char* p, const char* end) noexcept nogil:
        cdef uint32_t v = 0
        cdef ExtraRow* x
        cdef ExtraRow found
        cdef const char* q
        cdef const char* stop
        cdef unsigned event = r.event
        r.pfn = NO_PFN
        r.order = r.migratetype = NO_BYTE
        r.gfp_id = NO_GFP
        while p < end and p[0] == 32:
            p += 1
        if event >= EVENT_KSWAPD_WAKE:
            if event <= EVENT_KSWAPD_SLEEP:
                if not small_value(p, end, b"nid=", 4, &v) or v > 65535:
                    return LINE_BAD
                memset(&found, 0, sizeof(found))
                found.row = <uint32_t>self.used
                found.a = v
                x = <ExtraRow*>column_push(&self.extras)
                if x == NULL:
                    return LINE_BAD
                x[0] = found
            return LINE_EVENT
        if not small_value(p, end, b"pfn=", 4, &r.pfn):
            return LINE_BAD
        if event == EVENT_EXTFRAG:
            memset(&found, 0, sizeof(found))
            found.row = <uint32_t>self.used
            if not (small_value(p, end, b"alloc_order=", 12, &v) and v <= 10):
                return LINE_BAD
            r.order = <uint8_t>v
            if not (small_value(p, end, b"alloc_migratetype=", 18, &v) and v <= 15):
                return LINE_BAD
            r.migratetype = <uint8_t>v
            if not (small_value(p, end, b"fallback_order=", 15, &found.a) and small_value(p, end, b"fallback_migratetype=", 21, &found.b)
                    and small_value(p, end, b"change_ownership=", 17, &found.c)
                    and found.a <= 10 and found.b <= 15 and found.c <= 1):
                return LINE_BAD
            x = <ExtraRow*>column_push(&self.extras)
            if x == NULL:
                return LINE_BAD
            x[0] = found
            return LINE_EVENT
        if small_value(p, end, b"order=", 6, &v):
            if v > 10:
                return LINE_BAD
            r.order = <uint8_t>v
        elif event == EVENT_FREE_BATCHED:
            r.order = 0
        else:
            return LINE_BAD
        if event == EVENT_FREE or event == EVENT_FREE_BATCHED:
            return LINE_EVENT
        if not small_value(p, end, b"migratetype=", 12, &v) or v > 15:
            return LINE_BAD
        r.migratetype = <uint8_t>v
        if event == EVENT_RMQUEUE:
            if small_value(p, end, b"percpu_refill=", 14, &v) and v:
                r.context |= CTX_REFILL
            return LINE_EVENT
        if event == EVENT_PCP_DRAIN:
            return LINE_EVENT
        q = value_of(p, end, b"gfp_flags=", 10)
        if q == NULL:
            return LINE_BAD
        stop = q
        while stop < end and stop[0] != 32:
            stop += 1
        if stop == q or stop - q > 1024:
            return LINE_BAD
        return self.flags_of(r, q, <size_t>(stop - q))

    cdef int flags_of(self, EventRow* r, const char* p, size_t n) noexcept nogil:
        cdef uint64_t h = text_hash(p, n)
        cdef size_t i = h & (GFP_SLOTS - 1)
        cdef GfpSlot* g
        while self.gfp[i].id1:
            g = &self.gfp[i]
            if g.hash == h and g.length == n and memcmp(self.gfp_text.data + g.start, p, n) == 0:
                r.gfp_id = g.id1 - 1
                return LINE_EVENT
            i = (i + 1) & (GFP_SLOTS - 1)
        self.new_gfp = p
        self.new_gfp_n = n
        return LINE_NEW_GFP


cdef uint64_t text_hash(const char* p, size_t n) noexcept nogil:
    # FNV-1a
    cdef uint64_t h = 14695981039346656037ULL
    cdef size_t i
    for i in range(n):
        h = (h ^ <uint8_t>p[i]) * 1099511628211ULL
    return h ^ h >> 32
