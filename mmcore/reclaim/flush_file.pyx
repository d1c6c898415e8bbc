"""Writing a file's dirty pages: what the flusher and fsync do with each.

Models: write_cache_pages, folio_mkclean, filemap_write_and_wait_range (mm/page-writeback.c, mm/rmap.c, mm/filemap.c, v6.12) with a
filesystem that writes each page where it is. Simplifies: page N of a file stands at block N of a stretch of the device that is the
file's own, so neighbours in a file are neighbours on the device; dirty pages are found by their flag (the kernel's index has a tag for
them). Omits: delayed allocation, journals, metadata.
"""
from mmcore.base.flags cimport PG_dirty, PG_writeback
from mmcore.base.vm_records cimport File
from mmcore.reclaim.device cimport device_busy_ns, device_complete, device_congested, device_submit, device_submit_page
from mmcore.reclaim.rmap_walk cimport Mapping, folio_mapped, mappings_of, next_mapping
from mmcore.reclaim.writeback cimport (
    file_is_clean, folio_clear_dirty_for_io, folio_end_writeback, folio_start_writeback,
)
from mmcore.base.records cimport page_at
from mmcore.vm.pgtable cimport PTE_DIRTY, PTE_RW
from mmcore.vm.radix cimport radix_next, slot_is_page, slot_pfn
from mmcore.vm.tlb cimport Tlb, tlb_batch_add, tlb_batch_flush

cdef enum:
    FILE_STRETCH = 32               # bits of a page's position on the device below the file's number


cdef uint32_t next_dirty_page(Mm* mm, uint32_t file, uint64_t* at, uint64_t last) noexcept nogil:
    cdef File* f = &mm.vm.files[file - 1]
    cdef uint64_t* slot
    while at[0] <= last:
        slot = radix_next(mm, f, at, last)
        if slot == NULL:
            return 0
        if slot_is_page(slot[0]) and page_at(mm, slot_pfn(slot[0])).flags & PG_dirty:
            return slot_pfn(slot[0]) + 1
        at[0] += 1
    return 0


cdef bint folio_mkclean(Mm* mm, uint32_t pfn) noexcept nogil:
    cdef Mapping w
    cdef bint any_ = False
    if not folio_mapped(mm, pfn):
        return False
    mappings_of(mm, pfn, &w)
    while next_mapping(mm, &w):
        if not w.pte[0] & (PTE_DIRTY | PTE_RW):
            continue
        w.pte[0] &= ~<uint64_t>(PTE_DIRTY | PTE_RW)
        any_ = True
        if mm.vm.tlb != NULL:
            tlb_batch_add(<Tlb*>mm.vm.tlb, mm.vm.vmas[w.vma - 1].mm)
    return any_


cdef int write_page(Mm* mm, uint32_t file, uint64_t index, uint32_t pfn, unsigned cpu) noexcept nogil:
    cdef uint64_t place = (<uint64_t>file << FILE_STRETCH) + index
    if page_at(mm, pfn).flags & PG_writeback:
        return 0
    if folio_mkclean(mm, pfn) and mm.vm.tlb != NULL:
        tlb_batch_flush(<Tlb*>mm.vm.tlb, cpu, NULL)
    if not folio_clear_dirty_for_io(mm, pfn):
        return 0
    folio_start_writeback(mm, pfn)
    if device_submit_page(mm, mm.vm.g.file_device, True, place, pfn, cpu) != 1:
        folio_end_writeback(mm, pfn, cpu)
    return 1


cdef int64_t write_some_pages(Mm* mm, uint32_t file, int64_t nr, unsigned cpu, bint* done) noexcept nogil:
    cdef File* f = &mm.vm.files[file - 1]
    cdef uint64_t at = f.writeback_index
    cdef uint32_t x
    cdef int64_t written = 0
    done[0] = False
    while written < nr:
        if f.nr_dirty == 0:
            done[0] = True
            break
        if device_congested(mm, mm.vm.g.file_device):
            break
        x = next_dirty_page(mm, file, &at, <uint64_t>-1)
        if x == 0:
            done[0] = True
            break
        written += write_page(mm, file, at, x - 1, cpu)
        at += 1
    f.writeback_index = 0 if done[0] else at
    return written


cdef int64_t write_and_wait(Mm* mm, uint32_t file, unsigned cpu, int64_t* wait_ns) noexcept nogil:
    cdef File* f = &mm.vm.files[file - 1]
    cdef uint64_t at = 0
    cdef uint32_t x
    cdef int64_t n = 0
    cdef int error
    while f.nr_dirty:
        x = next_dirty_page(mm, file, &at, <uint64_t>-1)
        if x == 0:
            break
        if page_at(mm, x - 1).flags & PG_writeback:
            # dirty again while it is being written: once more, behind the first
            folio_mkclean(mm, x - 1)
            folio_clear_dirty_for_io(mm, x - 1)
            device_submit(mm, mm.vm.g.file_device, True, (<uint64_t>file << FILE_STRETCH) + at, 1, &error)
            device_complete(mm, mm.vm.g.file_device, 1)
            n += 1
        else:
            n += write_page(mm, file, at, x - 1, cpu)
        at += 1
    if f.nr_dirty == 0 and mm.vm.g.wb_file != file:
        file_is_clean(mm, file)
    wait_ns[0] = device_busy_ns(mm, mm.vm.g.file_device) if n or f.nr_writeback else 0
    return n
