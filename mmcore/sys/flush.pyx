"""When the TLB is flushed.

Models: tlb_flush_mmu and the ranges it gathers (mm/mmu_gather.c, include/asm-generic/tlb.h), flush_tlb_mm, flush_tlb_range,
flush_tlb_page, flush_tlb_kernel_range (arch/x86/mm/tlb.c, v6.12): unmapping flushes the span of what was mapped once for every 9698
pages; rights that only widen, and entries that become present, need no flush. Simplifies: what will be unmapped is looked up before, in
a pass of its own that a machine without TLBs does not make; batches of one call after the first flush the whole span. Omits: the
earlier flush for dirty pages of files.
"""
from mmcore.base.vm_records cimport POOL_TABLES
from mmcore.vm.pgtable cimport (
    PTE_NX, PTE_PRESENT, PTE_PSE, PTE_RW, PTE_SPECIAL, PTE_USER, mm_at, pte_frame, pte_is_table, pte_mapped, table_at, walk_level,
)
from mmcore.vm.tlb cimport (
    Tlb, tlb_drop_mm, tlb_flush_kernel_range, tlb_flush_mm, tlb_flush_range, tlb_switch_mm,
)

cdef enum:
    BATCH = 9698        # GATHER_PAGES


cdef void flush_range(Mm* mm, uint32_t as_, uint64_t start, uint64_t end, unsigned stride, bint freed_tables, unsigned cpu) noexcept nogil:
    if mm.vm.tlb != NULL and as_:
        tlb_flush_range(<Tlb*>mm.vm.tlb, cpu, as_, start, end, stride, freed_tables)


cdef void flush_mm(Mm* mm, uint32_t as_, unsigned cpu) noexcept nogil:
    if mm.vm.tlb != NULL:
        tlb_switch_mm(<Tlb*>mm.vm.tlb, cpu, as_)
        tlb_flush_mm(<Tlb*>mm.vm.tlb, cpu, as_)


cdef void flush_page(Mm* mm, uint32_t as_, uint64_t vpn, unsigned cpu) noexcept nogil:
    if mm.vm.tlb != NULL:
        tlb_switch_mm(<Tlb*>mm.vm.tlb, cpu, as_)
        tlb_flush_range(<Tlb*>mm.vm.tlb, cpu, as_, vpn << 12, (vpn + 1) << 12, 12, False)


cdef void flush_kernel_range(Mm* mm, uint64_t start, uint64_t end, unsigned cpu) noexcept nogil:
    if mm.vm.tlb != NULL:
        tlb_flush_kernel_range(<Tlb*>mm.vm.tlb, cpu, start, end)


cdef void flush_exit(Mm* mm, uint32_t as_, unsigned cpu) noexcept nogil:
    if mm.vm.tlb != NULL:
        flush_mm(mm, as_, cpu)
        tlb_drop_mm(<Tlb*>mm.vm.tlb, as_)


cdef inline void note(FlushRange* f, uint64_t start, uint64_t end, unsigned shift) noexcept nogil:
    if start < f.start:
        f.start = start
    if end > f.end:
        f.end = end
    if shift < f.stride:
        f.stride = shift


cdef void note_table(Mm* mm, const uint64_t* e, uint64_t vpn, uint64_t stop, FlushRange* f) noexcept nogil:
    cdef uint64_t at, first = stop, last = vpn
    for at in range(vpn, stop):
        if pte_mapped(e[at - vpn]):
            if first == stop:
                first = at
            last = at + 1
            f.pages += e[at - vpn] & PTE_SPECIAL == 0
    if first < last:
        note(f, first << 12, last << 12, 12)


cdef void flush_note(Mm* mm, uint32_t as_, uint64_t start, uint64_t end, FlushRange* f) noexcept nogil:
    cdef uint64_t vpn = start >> 12, stop = (end + 4095) >> 12, next_, block
    cdef uint64_t* e
    flush_begin(f)
    f.first = start
    if mm.vm.tlb == NULL:
        return
    f.tables = mm.vm.pools[<int>POOL_TABLES].live
    while vpn < stop:
        next_ = (vpn | mm.vm.mask) + 1
        e = walk_level(mm, mm_at(mm, as_).root - 1, vpn, 1)
        if e == NULL and mm.vm.levels > 2:
            # no table of this level: on to the next one
            block = (<uint64_t>1 << (2 * mm.vm.bits)) - 1
            vpn = (vpn | block) + 1
            continue
        if next_ > stop:
            next_ = stop
        if e != NULL and e[0]:
            if e[0] & PTE_PSE:
                note(f, vpn << 12, next_ << 12, 12 + mm.vm.bits if next_ - vpn == mm.vm.mask + 1 else 12)
                f.pages += 1
            elif pte_is_table(e[0]):
                note_table(mm, table_at(mm, <uint32_t>pte_frame(e[0])) + (vpn & mm.vm.mask), vpn, next_, f)
        vpn = next_


cdef void flush_found(Mm* mm, uint32_t as_, FlushRange* f, bint local, unsigned cpu) noexcept nogil:
    cdef bint freed
    cdef uint32_t batches = 1 + (f.pages - 1) // BATCH if f.pages else 1
    if mm.vm.tlb == NULL:
        return
    freed = mm.vm.pools[<int>POOL_TABLES].live < f.tables
    if f.start >= f.end:
        if not freed:
            return
        note(f, f.first, f.first + 4096, 12)
    if local:
        tlb_switch_mm(<Tlb*>mm.vm.tlb, cpu, as_)
    while batches:
        batches -= 1
        tlb_flush_range(<Tlb*>mm.vm.tlb, cpu, as_, f.start, f.end, f.stride, freed and batches == 0)


cdef void flush_noted(Mm* mm, uint32_t as_, FlushRange* f, unsigned cpu) noexcept nogil:
    flush_found(mm, as_, f, True, cpu)


cdef void flush_noted_remote(Mm* mm, uint32_t as_, FlushRange* f, unsigned cpu) noexcept nogil:
    flush_found(mm, as_, f, False, cpu)


cdef void note_change(FlushRange* f, uint64_t vpn, unsigned shift, uint64_t old, uint64_t value) noexcept nogil:
    if not old & PTE_PRESENT:
        return
    if (old & ~value & (PTE_PRESENT | PTE_RW | PTE_USER)) | (value & ~old & PTE_NX):
        note(f, vpn << 12, (vpn << 12) + (<uint64_t>1 << shift), shift)
