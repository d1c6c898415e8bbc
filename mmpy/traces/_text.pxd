# Numbers and key=value pairs in lines of text. A line ends with a line break, which no digit is: so every loop stops inside.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memchr, memcmp


cdef inline unsigned hex_digit(char c) noexcept nogil:
    # 16 or more: none
    cdef unsigned d = <unsigned>(<uint8_t>c) - 48
    if d < 10:
        return d
    d = (<unsigned>(<uint8_t>c) | 32) - 97
    return d + 10 if d < 6 else 255


cdef inline const char* decimal(const char* p, uint64_t* out) noexcept nogil:
    # Up to 18 digits; returns where it stopped, or NULL if there was none or too many.
    cdef uint64_t v = 0
    cdef const char* start = p
    cdef unsigned d = <unsigned>(<uint8_t>p[0]) - 48
    while d < 10:
        v = v * 10 + d
        p += 1
        d = <unsigned>(<uint8_t>p[0]) - 48
    if p == start or p - start > 18:
        return NULL
    out[0] = v
    return p


cdef inline const char* hexadecimal(const char* p, uint64_t* out) noexcept nogil:
    # Up to 15 digits.
    cdef uint64_t v = 0
    cdef const char* start = p
    cdef unsigned d = hex_digit(p[0])
    while d < 16:
        v = v << 4 | d
        p += 1
        d = hex_digit(p[0])
    if p == start or p - start > 15:
        return NULL
    out[0] = v
    return p


cdef inline const char* number(const char* p, uint64_t* out) noexcept nogil:
    if p[0] == 48 and p[1] | 32 == 120:     # 0x
        return hexadecimal(p + 2, out)
    return decimal(p, out)


cdef inline const char* value_of(const char* p, const char* end, const char* key, size_t n) noexcept nogil:
    # Start of the value in "key=value key=value ...", or NULL. `key` includes the "=".
    while p + n < end:
        if memcmp(p, key, n) == 0:
            return p + n
        p = <const char*>memchr(p, 32, <size_t>(end - p))
        if p == NULL:
            return NULL
        p += 1
    return NULL


cdef inline bint small_value(const char* p, const char* end, const char* key, size_t n, uint32_t* out) noexcept nogil:
    # A number below 2^32 - 1 that ends with its word.
    cdef uint64_t v = 0
    cdef const char* q = value_of(p, end, key, n)
    if q == NULL:
        return False
    q = number(q, &v)
    if q == NULL or (q < end and q[0] != 32) or v >> 32 or v == <uint32_t>-1:
        return False
    out[0] = <uint32_t>v
    return True


cdef inline unsigned context_of(const char* p, size_t n) noexcept nogil:
    # ftrace's latency columns: irqs off, reschedule, hard or soft interrupt, preemption depth (hexadecimal), migration. Bits: CTX_*.
    cdef unsigned context = 0, d
    if n >= 1 and (p[0] == 100 or p[0] == 68):                  # d D
        context |= 128
    if n >= 3:
        if p[2] == 115:                                         # s
            context |= 16
        elif p[2] | 32 == 104 or p[2] | 32 == 122:              # h H z Z
            context |= 32
    if n >= 4:
        d = hex_digit(p[3])
        if d < 16:
            context |= d
    return context
