"""hugetlb: a pool of huge pages that mappings reserve from.

Models: set_max_huge_pages, gather_surplus_pages, hugetlb_acct_memory, return_unused_surplus_pages, free_huge_folio, hugetlb_fault for
private anonymous mappings, hugetlb_vm_op_close (mm/hugetlb.c, v6.12), 2 MiB pages. Simplifies: one pool for all nodes; a mapping that
replaces another one reserves before that one's pages are back. Omits: 1 GiB pages, hugetlbfs files and shared mappings, memory policies,
cgroups, copy on write of huge pages (fork gives the child no huge pages: it faults its own, without a reservation).

The mapping that reserved owns one page of the pool for each block of its that has no PMD entry. A fault takes the page and the reservation;
unmapping gives both back, unless there are surplus pages: then the page returns to the buddy lists, and the entry becomes HTLB_SPENT.
"""
from mmcore.alloc.page_alloc cimport alloc_pages_node
from mmcore.alloc.page_free cimport free_pages_order
from mmcore.base.errors cimport E_INVAL, E_NOMEM
from mmcore.base.flags cimport OWNER_HUGETLB, OWNER_MASK, PG_owned
from mmcore.base.records cimport page_at
from mmcore.base.stat_items cimport VE_HTLB_BUDDY_ALLOC_FAIL, VE_HTLB_BUDDY_ALLOC_SUCCESS
from mmcore.sys.tables cimport entry_alloc
from mmcore.vm.pgtable cimport PTE_ACCESSED, PTE_DIRTY, PTE_PSE, PTE_RW, mm_at, pte_frame, set_entry, walk_level
from mmcore.vm.prot cimport mkdirty, page_prot
from mmcore.vm.vma cimport VM_WRITE

cdef enum:
    HTLB_ORDER = 9
    GFP_HTLB = 0x1460ca | 0xc00         # HIGHUSER_MOVABLE | COMP | NOWARN | RETRY_MAYFAIL


cdef inline int64_t get(Mm* mm, int which) noexcept nogil:
    return <int64_t>mm.vm.g.hugetlb[which]


cdef inline void add(Mm* mm, int which, int64_t by) noexcept nogil:
    mm.vm.g.hugetlb[which] = <uint64_t>(<int64_t>mm.vm.g.hugetlb[which] + by)


cdef void count_pages(Mm* mm, int64_t by) noexcept nogil:
    # A huge page joins or leaves the pool; memory in it does not back ordinary commitments.
    add(mm, HTLB_TOTAL, by)
    mm.vm.g.hugetlb_pages += by * HPAGE_PAGES


cdef void push_free(Mm* mm, uint32_t pfn) noexcept nogil:
    page_at(mm, pfn).next = <uint32_t>mm.vm.g.hugetlb[HTLB_FIRST]
    mm.vm.g.hugetlb[HTLB_FIRST] = pfn + 1
    add(mm, HTLB_FREE, 1)


cdef uint32_t pop_free(Mm* mm) noexcept nogil:
    cdef uint32_t x = <uint32_t>mm.vm.g.hugetlb[HTLB_FIRST]
    mm.vm.g.hugetlb[HTLB_FIRST] = mm.link[x].next
    mm.link[x].next = 0
    add(mm, HTLB_FREE, -1)
    return x - 1


cdef int64_t fresh_page(Mm* mm, unsigned cpu) noexcept nogil:
    cdef int64_t pfn = alloc_pages_node(mm, GFP_HTLB, HTLB_ORDER, cpu, -1, 0)
    mm.vm.g.events[VE_HTLB_BUDDY_ALLOC_FAIL if pfn < 0 else VE_HTLB_BUDDY_ALLOC_SUCCESS] += 1
    if pfn >= 0:
        page_at(mm, <uint32_t>pfn).flags |= PG_owned | OWNER_HUGETLB
        count_pages(mm, 1)
    return pfn


cdef void to_buddy(Mm* mm, uint32_t pfn, unsigned cpu) noexcept nogil:
    count_pages(mm, -1)
    page_at(mm, pfn).flags &= ~<uint32_t>(PG_owned | OWNER_MASK)
    free_pages_order(mm, pfn, HTLB_ORDER, cpu)


cdef void hugetlb_set_nr(Mm* mm, uint64_t n, unsigned cpu) noexcept nogil:
    cdef int64_t want = <int64_t>n, least, pfn
    while get(mm, HTLB_SURPLUS) and want > get(mm, HTLB_TOTAL) - get(mm, HTLB_SURPLUS):
        add(mm, HTLB_SURPLUS, -1)
    while want > get(mm, HTLB_TOTAL) - get(mm, HTLB_SURPLUS):
        pfn = fresh_page(mm, cpu)
        if pfn < 0:
            return
        push_free(mm, <uint32_t>pfn)
    least = get(mm, HTLB_RESERVED) + get(mm, HTLB_TOTAL) - get(mm, HTLB_FREE)
    if least < want:
        least = want
    while least < get(mm, HTLB_TOTAL) - get(mm, HTLB_SURPLUS) and get(mm, HTLB_FREE):
        to_buddy(mm, pop_free(mm), cpu)
    while want < get(mm, HTLB_TOTAL) - get(mm, HTLB_SURPLUS):
        add(mm, HTLB_SURPLUS, 1)


cdef int hugetlb_reserve(Mm* mm, int64_t nr, unsigned cpu) noexcept nogil:
    # gather_surplus_pages(): what the pool lacks comes from the buddy lists, as far as overcommit goes; all or nothing.
    cdef int64_t needed = get(mm, HTLB_RESERVED) + nr - get(mm, HTLB_FREE), got = 0, pfn
    while got < needed:
        pfn = -1
        if get(mm, HTLB_SURPLUS) < get(mm, HTLB_OVERCOMMIT):
            pfn = fresh_page(mm, cpu)
        if pfn < 0:
            while got:
                add(mm, HTLB_SURPLUS, -1)
                to_buddy(mm, pop_free(mm), cpu)
                got -= 1
            return -E_NOMEM
        add(mm, HTLB_SURPLUS, 1)
        push_free(mm, <uint32_t>pfn)
        got += 1
    add(mm, HTLB_RESERVED, nr)
    return 0


cdef void hugetlb_unreserve(Mm* mm, int64_t nr, unsigned cpu) noexcept nogil:
    cdef int64_t surplus = nr if nr < get(mm, HTLB_SURPLUS) else get(mm, HTLB_SURPLUS)
    add(mm, HTLB_RESERVED, -nr)
    while surplus > 0 and get(mm, HTLB_FREE):
        add(mm, HTLB_SURPLUS, -1)
        to_buddy(mm, pop_free(mm), cpu)
        surplus -= 1


cdef void hugetlb_close(Mm* mm, Vma* v, unsigned cpu) noexcept nogil:
    cdef uint64_t vpn = v.start >> 12
    cdef uint64_t* e
    cdef int64_t nr = 0
    if not hugetlb_owner(v):
        return
    while vpn < v.end >> 12:
        e = walk_level(mm, mm_at(mm, v.mm).root - 1, vpn, 1)
        if e != NULL and e[0]:
            set_entry(mm, e, 0)
        else:
            nr += 1
        vpn += HPAGE_PAGES
    hugetlb_unreserve(mm, nr, cpu)


cdef int hugetlb_fault(Mm* mm, uint32_t as_, uint32_t vma, uint64_t vpn, bint write, unsigned cpu) noexcept nogil:
    cdef Vma* v = &mm.vm.vmas[vma - 1]
    cdef int rc = 0
    cdef uint64_t* e = entry_alloc(mm, as_, vpn, 1, cpu, &rc)
    cdef uint32_t pfn
    cdef int64_t fresh
    cdef uint64_t value
    if e == NULL:
        return -E_NOMEM
    if e[0] & PTE_PSE:
        e[0] |= PTE_ACCESSED | (PTE_DIRTY if write else 0)
        if write and v.flags & VM_WRITE:
            e[0] |= PTE_RW
        return 0
    if e[0] or not hugetlb_owner(v):
        if get(mm, HTLB_FREE) > get(mm, HTLB_RESERVED):
            pfn = pop_free(mm)
        else:
            fresh = -1
            if get(mm, HTLB_SURPLUS) < get(mm, HTLB_OVERCOMMIT):
                fresh = fresh_page(mm, cpu)
            if fresh < 0:
                return -E_INVAL
            add(mm, HTLB_SURPLUS, 1)
            pfn = <uint32_t>fresh
    else:
        if get(mm, HTLB_FREE) == 0:
            return -E_INVAL
        pfn = pop_free(mm)
        add(mm, HTLB_RESERVED, -1)
    value = page_prot(v.flags, False) | PTE_PSE | (<uint64_t>pfn << 12)
    if write and v.flags & VM_WRITE:
        value = mkdirty(value) | PTE_RW
    set_entry(mm, e, value)
    page_at(mm, pfn).private_ = as_
    return 0


cdef void hugetlb_zap(Mm* mm, Vma* v, uint64_t* e, unsigned cpu) noexcept nogil:
    cdef uint32_t pfn = <uint32_t>pte_frame(e[0])
    set_entry(mm, e, 0)
    page_at(mm, pfn).private_ = 0
    if get(mm, HTLB_SURPLUS):
        add(mm, HTLB_SURPLUS, -1)
        to_buddy(mm, pfn, cpu)
        if hugetlb_owner(v):
            set_entry(mm, e, HTLB_SPENT)
        return
    push_free(mm, pfn)
    if hugetlb_owner(v):
        add(mm, HTLB_RESERVED, 1)
