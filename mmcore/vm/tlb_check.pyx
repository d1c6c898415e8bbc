"""Judge of the TLBs: every cached translation agrees with the page tables.

Models: what the flushes of arch/x86/mm/tlb.c promise: a CPU may keep a translation that the page tables no longer have only while its
id's generation lies behind the address space's, for then it flushes before it uses it. A cached entry may know less than the tables
(clean, read-only), never more; a walk cache names tables that exist. Omits: the accessed bit, which may be taken away without a
flush, and global entries, which nothing fills yet.
"""
from libc.stdint cimport uint32_t, uint64_t

from mmcore.base.errors import ValidationError
from mmcore.base.state cimport State, state_lock, state_unlock
from mmcore.vm.pgtable cimport PTE_DIRTY, PTE_PRESENT, PTE_RW, mm_alive, mm_at, pte_is_table, walk_entry, walk_level
from mmcore.vm.tlb_model cimport TlbModel
from mmcore.vm.tlb_records cimport TLB_GLOBAL, TLB_SLOTS


cdef object entry_fault(State s, uint32_t as_, unsigned size, uint64_t page, unsigned flags):
    # What is wrong with a cached translation of a live address space; None: nothing.
    cdef unsigned level
    cdef uint64_t vpn = page << (size * s.c.vm.bits)
    cdef uint64_t e
    if size >= s.c.vm.levels:
        return "is of a size that these page tables do not have"
    e = walk_entry(&s.c, mm_at(&s.c, as_).root - 1, vpn, &level)[0]
    if not e & PTE_PRESENT or level != size:
        return "is not mapped so in the page tables"
    if flags & 1 and not e & PTE_RW:
        return "may be written through the TLB, not through the page tables"
    if flags & 3 == 3 and not e & PTE_DIRTY:
        return "is dirty in the TLB, not in the page tables"
    return None


def validate_tlb(State s not None, object model):
    """Hold what the TLBs of a machine have cached against its page tables. ValidationError names the first entry that is wrong."""
    cdef TlbModel t
    cdef uint32_t as_
    cdef unsigned cpu, slot, level, bits
    cdef uint64_t* e
    if model is None:
        return {}
    t = model
    state_lock(s)
    try:
        bits = s.c.vm.bits
        counted = 0
        for cpu in range(t.c.g.nr_cpus):
            title = f"the TLB of CPU {cpu}"
            as_ = t.c.cpus[cpu].loaded_mm
            if as_ and (not mm_alive(&s.c, as_) or t.c.cpus[cpu].slot_mm[t.c.cpus[cpu].slot] != as_):
                raise ValidationError(f"{title}: address space {as_} is loaded, which is gone or has no id there")
            owners = {}
            for slot in range(<unsigned>TLB_SLOTS):
                as_ = t.c.cpus[cpu].slot_mm[slot]
                if as_ == 0:
                    continue
                if not mm_alive(&s.c, as_):
                    raise ValidationError(f"{title}: id {slot} belongs to address space {as_}, which is gone")
                if t.c.cpus[cpu].slot_gen[slot] > t.c.mm_gen[as_]:
                    raise ValidationError(f"{title}: id {slot} has seen flush {t.c.cpus[cpu].slot_gen[slot]} of address space {as_}, "
                                          f"which was flushed {t.c.mm_gen[as_]} times")
                # a flush that is pending comes before the next use
                owners[slot] = (as_, t.c.cpus[cpu].slot_gen[slot] == t.c.mm_gen[as_])
            for part in t.entries(cpu):
                for row in part.values():
                    for number, size, page, flags in row:
                        counted += 1
                        if number == TLB_GLOBAL:
                            continue
                        where = f"{title}, id {number}, page {page << size * bits:#x} (size {size})"
                        if number not in owners:
                            raise ValidationError(f"{where}: cached for an id that belongs to no address space")
                        as_, current = owners[number]
                        if not current:
                            continue
                        wrong = entry_fault(s, as_, size, page, flags)
                        if wrong is not None:
                            raise ValidationError(f"{where}, address space {as_}: {wrong}")
            for level, found in enumerate(t.walk_entries(cpu), 1):
                for number, prefix in found:
                    if number == TLB_GLOBAL:
                        continue
                    where = f"{title}, id {number}, walk cache of level {level}, page {prefix << level * bits:#x}"
                    if number not in owners:
                        raise ValidationError(f"{where}: cached for an id that belongs to no address space")
                    as_, current = owners[number]
                    if not current:
                        continue
                    e = walk_level(&s.c, mm_at(&s.c, as_).root - 1, <uint64_t>prefix << (level * bits), level)
                    if e == NULL or not pte_is_table(e[0]):
                        raise ValidationError(f"{where}, address space {as_}: there is no such table")
        return {"tlb_entries": counted}
    finally:
        state_unlock(s)
