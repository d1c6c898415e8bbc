"""Page-table pages.

Models: pte_alloc_one and its likes, __pud_alloc/__pmd_alloc/__pte_alloc, free_pgd_range, pgtable_trans_huge_deposit (mm/memory.c,
mm/pgtable-generic.c, v6.12): each table is one zeroed page of GFP_PGTABLE_USER. Simplifies: tables are freed at once, not behind the
TLB flush; the PGD of two-level i386 and of PAE is counted as a page as well. Omits: the kernel's half, page-table isolation.
"""
from mmcore.alloc.page_alloc cimport alloc_pages_node
from mmcore.alloc.page_free cimport free_pages_order
from mmcore.base.errors cimport E_NOMEM
from mmcore.base.flags cimport OWNER_MASK, OWNER_TABLE, PG_owned
from mmcore.base.pool cimport pool_give, pool_take
from mmcore.base.records cimport page_at
from mmcore.base.stat_items cimport NS_NR_PAGE_TABLE_PAGES
from mmcore.base.vm_records cimport AddressSpace, POOL_TABLES, TableInfo
from mmcore.phys.lruvec_stat cimport lruvec_stat_mod
from mmcore.reclaim.memcg cimport uncharge_kernel_page
from mmcore.sys.charge cimport charge_kernel_page
from mmcore.vm.pgtable cimport link_table, mm_at, pte_frame, pte_is_table, set_entry, table_at

cdef enum:
    GFP_PGTABLE_USER = 0x400dc0     # GFP_KERNEL | __GFP_ZERO | __GFP_ACCOUNT
    GFP_PGTABLE_KERNEL = 0xdc0


cdef inline void count_table(Mm* mm, uint32_t pfn, int nr) noexcept nogil:
    lruvec_stat_mod(mm, pfn, NS_NR_PAGE_TABLE_PAGES, nr)


cdef uint32_t table_new(Mm* mm, uint32_t as_, unsigned cpu) noexcept nogil:
    cdef int64_t pfn
    cdef uint32_t slot
    if mm.vm.pools[POOL_TABLES].live == mm.vm.pools[POOL_TABLES].capacity:
        return 0
    pfn = alloc_pages_node(mm, GFP_PGTABLE_USER if as_ else GFP_PGTABLE_KERNEL, 0, cpu, -1, 0)
    if pfn < 0:
        return 0
    if as_ and mm_at(mm, as_).memcg and charge_kernel_page(mm, <uint32_t>pfn, mm_at(mm, as_).memcg, GFP_PGTABLE_USER, cpu):
        free_pages_order(mm, <uint32_t>pfn, 0, cpu)
        return 0
    slot = pool_take(&mm.vm.pools[POOL_TABLES], mm.vm.table_info, sizeof(TableInfo))
    mm.vm.table_info[slot - 1].pfn = <uint32_t>pfn
    mm.vm.table_info[slot - 1].mm = as_
    page_at(mm, <uint32_t>pfn).flags |= PG_owned | OWNER_TABLE
    page_at(mm, <uint32_t>pfn).private_ = slot
    count_table(mm, <uint32_t>pfn, 1)
    if as_:
        mm_at(mm, as_).pgtables_bytes += 4096
    return slot


cdef void table_free(Mm* mm, uint32_t slot, unsigned cpu) noexcept nogil:
    cdef TableInfo* t = &mm.vm.table_info[slot]
    cdef uint32_t pfn = t.pfn
    if t.mm:
        mm_at(mm, t.mm).pgtables_bytes -= 4096
    count_table(mm, pfn, -1)
    if mm.vm.g.nr_memcgs:
        uncharge_kernel_page(mm, pfn)
    t.pfn = t.mm = t.parent = 0
    t.base = 0
    t.level = t.nr_used = 0
    pool_give(&mm.vm.pools[POOL_TABLES], mm.vm.table_info, sizeof(TableInfo), slot + 1)
    page_at(mm, pfn).flags &= ~<uint32_t>(PG_owned | OWNER_MASK)
    free_pages_order(mm, pfn, 0, cpu)


cdef uint64_t* entry_alloc(Mm* mm, uint32_t as_, uint64_t vpn, unsigned want, unsigned cpu, int* rc) noexcept nogil:
    cdef unsigned k = mm.vm.levels - 1, bits = mm.vm.bits
    cdef uint64_t* e = table_at(mm, mm_at(mm, as_).root - 1) + ((vpn >> (k * bits)) & mm.vm.mask)
    cdef uint32_t slot
    rc[0] = 0
    while k > want:
        if e[0] == 0:
            slot = table_new(mm, as_, cpu)
            if slot == 0:
                rc[0] = -E_NOMEM
                return NULL
            link_table(mm, e, slot - 1, vpn, as_, k - 1)
        elif not pte_is_table(e[0]):
            rc[0] = <int>k
            return NULL
        k -= 1
        e = table_at(mm, <uint32_t>pte_frame(e[0])) + ((vpn >> (k * bits)) & mm.vm.mask)
    return e


cdef int mm_root_init(Mm* mm, uint32_t as_, unsigned cpu) noexcept nogil:
    cdef uint32_t slot = table_new(mm, as_, cpu)
    if slot == 0:
        return -E_NOMEM
    mm_at(mm, as_).root = slot
    mm_at(mm, as_).pgtables_bytes -= 4096
    mm.vm.table_info[slot - 1].level = <unsigned short>(mm.vm.levels - 1)
    return 0


cdef void mm_root_free(Mm* mm, uint32_t as_, unsigned cpu) noexcept nogil:
    mm_at(mm, as_).pgtables_bytes += 4096
    table_free(mm, mm_at(mm, as_).root - 1, cpu)
    mm_at(mm, as_).root = 0


cdef void free_range(Mm* mm, uint64_t* e, unsigned level, uint64_t at, uint64_t end, uint64_t floor, uint64_t ceiling, unsigned cpu) noexcept nogil:
    # Tables below the entries of one table (`e`: the entry for vpn `at`, at `level`), for vpns [at, end). floor and ceiling are vpns,
    # ceiling 0 the end of all. Afterwards a lower table goes if its block lies between them.
    cdef unsigned shift = level * mm.vm.bits
    cdef uint64_t size = <uint64_t>1 << shift, next_, block
    cdef uint32_t slot
    while at < end:
        next_ = (at & ~(size - 1)) + size
        if next_ > end:
            next_ = end
        if pte_is_table(e[0]):
            slot = <uint32_t>pte_frame(e[0])
            if level > 1:
                free_range(mm, table_at(mm, slot) + ((at >> (shift - mm.vm.bits)) & mm.vm.mask), level - 1, at, next_, floor, ceiling, cpu)
            block = at & ~(size - 1)
            if block >= floor and (ceiling == 0 or block + size <= ceiling) and mm.vm.table_info[slot].nr_used == 0:
                set_entry(mm, e, 0)
                table_free(mm, slot, cpu)
        at = next_
        e += 1


cdef void free_tables(Mm* mm, uint32_t as_, uint64_t start, uint64_t end, uint64_t floor, uint64_t ceiling, unsigned cpu) noexcept nogil:
    cdef unsigned top = mm.vm.levels - 1
    cdef uint64_t at = start >> 12, stop = (end + 4095) >> 12
    free_range(mm, table_at(mm, mm_at(mm, as_).root - 1) + ((at >> (top * mm.vm.bits)) & mm.vm.mask), top, at, stop,
               (floor + 4095) >> 12, ceiling >> 12, cpu)


cdef void deposit_table(Mm* mm, uint32_t as_, uint32_t slot) noexcept nogil:
    cdef AddressSpace* m = mm_at(mm, as_)
    mm.vm.table_info[slot].link = m.deposit
    m.deposit = slot + 1
    m.nr_deposited += 1


cdef uint32_t withdraw_table(Mm* mm, uint32_t as_) noexcept nogil:
    # slot + 1 of the table deposited last; the caller has counted: there is one for each huge mapping.
    cdef AddressSpace* m = mm_at(mm, as_)
    cdef uint32_t slot = m.deposit
    m.deposit = mm.vm.table_info[slot - 1].link
    mm.vm.table_info[slot - 1].link = 0
    m.nr_deposited -= 1
    return slot
