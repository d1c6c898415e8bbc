"""What of the access sequences goes one step after the other: the shuffle, the search of a rank, the fingerprint.

Models: the recorded runs' generator. Simplifies: arguments are checked by mmpy.workloads.patterns. Omits: nothing.
"""
cimport numpy as cnp
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

cnp.import_array()


def shuffle(uint32_t[::1] places, const uint64_t[::1] chosen, int64_t top):
    """Swap places[top] with places[chosen[0]], places[top - 1] with places[chosen[1]], and so on."""
    cdef int64_t i, n = chosen.shape[0]
    cdef uint32_t held
    if n and not 0 <= top - n + 1 <= top < places.shape[0]:
        raise ValueError(f"{n} swaps from place {top} down do not fit into {places.shape[0]} places")
    for i in range(n):
        if chosen[i] > <uint64_t>(top - i):
            raise ValueError(f"swap {i} names place {chosen[i]}, above {top - i}")
    with nogil:
        for i in range(n):
            held = places[top - i]
            places[top - i] = places[chosen[i]]
            places[chosen[i]] = held


def ranks(const uint64_t[::1] cumulative, const uint32_t[::1] guide, unsigned shift, const uint64_t[::1] drawn, uint32_t[::1] out):
    """For each number drawn, how many cumulative weights do not exceed it.

    guide[b]: the same for the number b << shift; it has an entry more than there are such numbers up to the largest that is drawn.
    """
    cdef int64_t i, n = drawn.shape[0]
    cdef uint64_t size = cumulative.shape[0], low, high, middle, value, bucket, buckets = guide.shape[0]
    if out.shape[0] < n or shift > 63 or buckets < 2:
        raise ValueError(f"{n} numbers do not fit: out has {out.shape[0]} places, guide {buckets} entries, shift is {shift}")
    with nogil:
        for i in range(n):
            value = drawn[i]
            bucket = value >> shift
            if bucket > buckets - 2:
                bucket = buckets - 2
            low = guide[bucket]
            high = guide[bucket + 1]
            if high > size:
                high = size
            while low < high:
                middle = (low + high) >> 1
                if cumulative[middle] <= value:
                    low = middle + 1
                else:
                    high = middle
            out[i] = <uint32_t>low


def fnv(const uint64_t[::1] pages, const uint8_t[::1] writes):
    """The 64-bit FNV-1a hash over the words page | write << 31."""
    cdef uint64_t h = 0xCBF29CE484222325ULL
    cdef int64_t i, n = pages.shape[0]
    if writes.shape[0] != n:
        raise ValueError(f"there are {n} pages and {writes.shape[0]} writes")
    with nogil:
        for i in range(n):
            h = (h ^ (pages[i] | <uint64_t>(writes[i] != 0) << 31)) * 0x100000001B3ULL
    return h
