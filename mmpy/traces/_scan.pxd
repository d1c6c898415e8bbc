# Events of a trace as fixed records, and the growing columns that readers of every format fill.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t

cdef enum:
    EVENT_NONE = 0
    EVENT_ALLOC = 1
    EVENT_FREE = 2
    EVENT_FREE_BATCHED = 3
    EVENT_RMQUEUE = 4
    EVENT_PCP_DRAIN = 5
    EVENT_EXTFRAG = 6
    EVENT_BULK = 7
    EVENT_BULKRET = 8
    EVENT_MARK = 9
    EVENT_KSWAPD_WAKE = 10
    EVENT_KSWAPD_SLEEP = 11
    EVENT_RECLAIM_BEGIN = 12
    EVENT_RECLAIM_END = 13
    EVENT_KCOMPACTD_WAKE = 14
    EVENT_OTHER = 32            # and up: names in the order of their first row
    EVENT_MAX = 255
    CTX_DEPTH = 15              # context: preemption depth
    CTX_SOFTIRQ = 16
    CTX_HARDIRQ = 32
    CTX_REFILL = 64             # rmqueue rows: the block goes to a per-CPU list
    CTX_IRQS_OFF = 128
    NO_PFN = 0xffffffff
    NO_GFP = 0xffff
    NO_BYTE = 255

cdef struct EventRow:           # one event; 24 bytes
    int64_t t_us
    uint32_t pid
    uint32_t pfn                # NO_PFN: none
    uint16_t gfp_id             # row of the table of flags; NO_GFP: none
    uint16_t cpu
    uint8_t event
    uint8_t order               # NO_BYTE: none
    uint8_t migratetype         # NO_BYTE: none
    uint8_t context

cdef struct ExtraRow:           # what few events carry beside; sorted by row
    uint32_t row
    uint32_t start              # in `pages` (bulkret) or in `text` (all others)
    uint32_t length
    uint32_t a                  # extfrag: fallback order; bulk: GFP bits; bulkret: pages got; kswapd: node
    uint32_t b                  # extfrag: fallback migratetype; bulk: pages asked for
    uint32_t c                  # extfrag: 1 if the block changed its type

cdef struct Column:             # memory that grows by doubling
    char* data
    size_t used                 # in items
    size_t size
    size_t item

cdef void* column_push(Column* c) noexcept nogil    # room for one item more; NULL: no memory
cdef bint column_extend(Column* c, const char* data, size_t n) noexcept nogil

cdef object column_array(Column* c, object dtype)          # takes the memory over; the column is empty then

cdef class EventColumns:
    cdef object rows_array
    cdef EventRow* rows
    cdef size_t used
    cdef size_t room
    cdef int begin(self, size_t expected) except -1
    cdef int grow(self) except -1
    cdef Column extras
    cdef Column pages
    cdef Column text
