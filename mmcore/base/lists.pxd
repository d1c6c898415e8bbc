# Circular doubly linked lists of page records with their heads in the same array (include/linux/list.h, by index instead of pointer).
# `link` is Mm.link; all names are link values (index + 1). A record that is on no list has both links 0.

from libc.stdint cimport uint32_t
from mmcore.base.records cimport Page

cdef inline void list_init(Page* link, uint32_t head) noexcept nogil:
    link[head].next = head
    link[head].prev = head

cdef inline bint list_empty(Page* link, uint32_t head) noexcept nogil:
    return link[head].next == head

cdef inline void list_add(Page* link, uint32_t head, uint32_t x) noexcept nogil:
    cdef uint32_t n = link[head].next
    link[x].next = n
    link[x].prev = head
    link[n].prev = x
    link[head].next = x

cdef inline void list_add_tail(Page* link, uint32_t head, uint32_t x) noexcept nogil:
    cdef uint32_t p = link[head].prev
    link[x].next = head
    link[x].prev = p
    link[p].next = x
    link[head].prev = x

cdef inline void list_del(Page* link, uint32_t x) noexcept nogil:
    cdef uint32_t n = link[x].next, p = link[x].prev
    link[n].prev = p
    link[p].next = n
    link[x].next = 0
    link[x].prev = 0
