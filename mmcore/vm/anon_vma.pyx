"""anon_vmas: from an anonymous page to the VMAs that may map it.

Models: anon_vma_prepare, anon_vma_clone, anon_vma_fork, unlink_anon_vmas, find_mergeable_anon_vma (mm/rmap.c, mm/vma.c, v6.12).
Simplifies: the VMAs of an anon_vma form a list in the order of joining, not an interval tree. Omits: locks; the references that compaction
and KSM take.

An anon_vma lives while a VMA is linked to it; the root of a family lives as long as any member. Each VMA holds one chain link to every
anon_vma whose pages it may map, newest first; pages that it faults in itself belong to `vma.anon_vma`.
"""
from libc.stdint cimport uint64_t
from libc.string cimport memset

from mmcore.base.errors cimport E_NOMEM
from mmcore.base.pool cimport pool_give, pool_room, pool_take
from mmcore.base.vm_records cimport POOL_ANON_VMAS, POOL_AVCS, POOL_VMAS
from mmcore.vm.vma cimport VM_ACCESS_FLAGS, VM_SOFTDIRTY, pool_of, vma_at, vma_pages


cdef uint32_t anon_vma_alloc(Mm* mm) noexcept nogil:
    cdef uint32_t x = pool_take(pool_of(mm, POOL_ANON_VMAS), mm.vm.anon_vmas, sizeof(AnonVma))
    if x:
        anon_vma_at(mm, x).refcount = 1
        anon_vma_at(mm, x).parent = x
        anon_vma_at(mm, x).root = x
    return x


cdef inline void anon_vma_free(Mm* mm, uint32_t x) noexcept nogil:
    memset(anon_vma_at(mm, x), 0, sizeof(AnonVma))
    pool_give(pool_of(mm, POOL_ANON_VMAS), mm.vm.anon_vmas, sizeof(AnonVma), x)


cdef void put_anon_vma(Mm* mm, uint32_t x) noexcept nogil:
    cdef AnonVma* a = anon_vma_at(mm, x)
    cdef uint32_t root = a.root
    a.refcount -= 1
    if a.refcount:
        return
    anon_vma_free(mm, x)
    if root != x:
        anon_vma_at(mm, root).refcount -= 1
        if anon_vma_at(mm, root).refcount == 0:
            anon_vma_free(mm, root)


cdef inline uint32_t chain_length(Mm* mm, uint32_t vma) noexcept nogil:
    cdef uint32_t x = vma_at(mm, vma).avc_first, n = 0
    while x:
        n += 1
        x = avc_at(mm, x).same_vma_next
    return n


cdef void chain_link(Mm* mm, uint32_t vma, uint32_t anon_vma) noexcept nogil:
    # The caller knows that the pool has a record.
    cdef uint32_t x = pool_take(pool_of(mm, POOL_AVCS), mm.vm.avcs, sizeof(Avc))
    cdef Avc* c = avc_at(mm, x)
    cdef AnonVma* a = anon_vma_at(mm, anon_vma)
    cdef Vma* v = vma_at(mm, vma)
    c.vma = vma
    c.anon_vma = anon_vma
    c.same_vma_next = v.avc_first
    if v.avc_first:
        avc_at(mm, v.avc_first).same_vma_prev = x
    v.avc_first = x
    c.same_anon_prev = a.avc_last
    if a.avc_last:
        avc_at(mm, a.avc_last).same_anon_next = x
    else:
        a.avc_first = x
    a.avc_last = x


cdef void leave_anon_vma(Mm* mm, uint32_t x) noexcept nogil:
    # Takes link x off its anon_vma's list; it stays on the VMA's chain.
    cdef Avc* c = avc_at(mm, x)
    cdef AnonVma* a = anon_vma_at(mm, c.anon_vma)
    if c.same_anon_prev:
        avc_at(mm, c.same_anon_prev).same_anon_next = c.same_anon_next
    else:
        a.avc_first = c.same_anon_next
    if c.same_anon_next:
        avc_at(mm, c.same_anon_next).same_anon_prev = c.same_anon_prev
    else:
        a.avc_last = c.same_anon_prev


cdef void unlink_anon_vmas(Mm* mm, uint32_t vma) noexcept nogil:
    cdef Vma* v = vma_at(mm, vma)
    cdef uint32_t x = v.avc_first, next_, anon
    while x:                                # first all lists and child counts, then the anon_vmas that became empty
        leave_anon_vma(mm, x)
        anon = avc_at(mm, x).anon_vma
        if anon_vma_at(mm, anon).avc_first == 0:
            anon_vma_at(mm, anon_vma_at(mm, anon).parent).num_children -= 1
        else:
            avc_at(mm, x).anon_vma = 0
        x = avc_at(mm, x).same_vma_next
    if v.anon_vma:
        anon_vma_at(mm, v.anon_vma).num_active_vmas -= 1
        v.anon_vma = 0
    x = v.avc_first
    v.avc_first = 0
    while x:
        next_ = avc_at(mm, x).same_vma_next
        anon = avc_at(mm, x).anon_vma
        memset(avc_at(mm, x), 0, sizeof(Avc))
        pool_give(pool_of(mm, POOL_AVCS), mm.vm.avcs, sizeof(Avc), x)
        if anon:
            put_anon_vma(mm, anon)
        x = next_


# ---------------------------------------------------------------- sharing with a neighbour

cdef bint compatible(const Vma* a, const Vma* b) noexcept nogil:
    # b follows a, and they would merge but for their rights.
    return (a.end == b.start and a.file == b.file and (a.flags ^ b.flags) & ~<uint64_t>(VM_ACCESS_FLAGS | VM_SOFTDIRTY) == 0
            and b.pgoff == a.pgoff + vma_pages(a))


cdef uint32_t find_mergeable_anon_vma(Mm* mm, uint32_t vma) noexcept nogil:
    cdef const Vma* v = vma_at(mm, vma)
    cdef const Vma* w
    if v.next:
        w = vma_at(mm, v.next)
        if w.anon_vma and compatible(v, w) and chain_is_singular(mm, w):
            return w.anon_vma
    if v.prev:
        w = vma_at(mm, v.prev)
        if w.anon_vma and compatible(w, v) and chain_is_singular(mm, w):
            return w.anon_vma
    return 0


cdef int anon_vma_prepare(Mm* mm, uint32_t vma) noexcept nogil:
    cdef Vma* v = vma_at(mm, vma)
    cdef uint32_t anon
    if v.anon_vma:
        return 0
    if not pool_room(pool_of(mm, POOL_AVCS)):
        return -E_NOMEM
    anon = find_mergeable_anon_vma(mm, vma)
    if not anon:
        anon = anon_vma_alloc(mm)
        if not anon:
            return -E_NOMEM
        anon_vma_at(mm, anon).num_children += 1     # a root is its own parent
    v.anon_vma = anon
    chain_link(mm, vma, anon)
    anon_vma_at(mm, anon).num_active_vmas += 1
    return 0


# ---------------------------------------------------------------- split, merge, fork

cdef int anon_vma_clone(Mm* mm, uint32_t dst, uint32_t src) noexcept nogil:
    cdef Vma* d = vma_at(mm, dst)
    cdef const Vma* s = vma_at(mm, src)
    cdef AnonVma* a
    cdef uint32_t x = s.avc_first
    if not x:
        return 0
    if pool_room(pool_of(mm, POOL_AVCS)) < chain_length(mm, src):
        return -E_NOMEM
    while avc_at(mm, x).same_vma_next:
        x = avc_at(mm, x).same_vma_next
    while x:                                # from the oldest, so that the chains have the same order
        a = anon_vma_at(mm, avc_at(mm, x).anon_vma)
        chain_link(mm, dst, avc_at(mm, x).anon_vma)
        # an ancestor's anon_vma that no VMA uses any more and that has but one child serves again
        if not d.anon_vma and s.anon_vma and a.num_children < 2 and a.num_active_vmas == 0:
            d.anon_vma = avc_at(mm, x).anon_vma
        x = avc_at(mm, x).same_vma_prev
    if d.anon_vma:
        anon_vma_at(mm, d.anon_vma).num_active_vmas += 1
    return 0


cdef int anon_vma_fork(Mm* mm, uint32_t vma, uint32_t parent) noexcept nogil:
    cdef Vma* v = vma_at(mm, vma)
    cdef const Vma* p = vma_at(mm, parent)
    cdef uint32_t anon
    cdef AnonVma* a
    v.anon_vma = 0
    v.avc_first = 0
    if not p.anon_vma:
        return 0
    if pool_room(pool_of(mm, POOL_AVCS)) <= chain_length(mm, parent) or not pool_room(pool_of(mm, POOL_ANON_VMAS)):
        return -E_NOMEM
    anon_vma_clone(mm, vma, parent)
    if v.anon_vma:
        return 0
    anon = anon_vma_alloc(mm)
    a = anon_vma_at(mm, anon)
    a.num_active_vmas = 1
    a.root = anon_vma_at(mm, p.anon_vma).root
    a.parent = p.anon_vma
    anon_vma_at(mm, a.root).refcount += 1
    v.anon_vma = anon
    chain_link(mm, vma, anon)
    anon_vma_at(mm, a.parent).num_children += 1
    return 0


# ---------------------------------------------------------------- the judge

cdef bint check_chain(Mm* mm, uint32_t vma) noexcept nogil:
    cdef const Vma* v = vma_at(mm, vma)
    cdef uint32_t x = v.avc_first, prev = 0, n = 0, root = 0, nr_avcs = pool_of(mm, POOL_AVCS).used
    cdef uint32_t nr_anons = pool_of(mm, POOL_ANON_VMAS).used
    cdef bint own = v.anon_vma == 0
    while x:
        n += 1
        if x > nr_avcs or n > nr_avcs or avc_at(mm, x).vma != vma or avc_at(mm, x).same_vma_prev != prev:
            return False
        if avc_at(mm, x).anon_vma == 0 or avc_at(mm, x).anon_vma > nr_anons:
            return False
        if avc_at(mm, x).anon_vma == v.anon_vma:
            own = True
        if root and anon_vma_at(mm, avc_at(mm, x).anon_vma).root != root:
            return False                    # all of a chain belong to one family
        root = anon_vma_at(mm, avc_at(mm, x).anon_vma).root
        prev = x
        x = avc_at(mm, x).same_vma_next
    return own


cdef bint check_anon_vmas(Mm* mm, uint32_t* scratch) noexcept nogil:
    # scratch: three zero counters for each anon_vma record used: children, references, VMAs it is the anon_vma of
    cdef uint32_t used = pool_of(mm, POOL_ANON_VMAS).used, nr_avcs = pool_of(mm, POOL_AVCS).used, x, c, prev, n, links = 0, live = 0
    cdef const AnonVma* a
    for x in range(1, used + 1):
        a = anon_vma_at(mm, x)
        if not a.refcount:
            continue
        live += 1
        # a root may be left without VMAs while its family lives: then nobody counts as a child of its parent any more
        if not 0 < a.root <= used or not 0 < a.parent <= used or a.avc_first > nr_avcs or a.avc_last > nr_avcs:
            return False
        scratch[3 * (x - 1) + 1] += 1
        if a.root != x:
            scratch[3 * (a.root - 1) + 1] += 1
        if a.avc_first:
            scratch[3 * (a.parent - 1)] += 1
        elif a.root != x:
            return False
        elif a.refcount < 2:
            return False
        if a.root != x and a.root != anon_vma_at(mm, a.parent).root:
            return False
        c = a.avc_first
        prev = n = 0
        while c:
            n += 1
            if c > nr_avcs or n > nr_avcs or avc_at(mm, c).anon_vma != x or avc_at(mm, c).same_anon_prev != prev:
                return False
            if not 0 < avc_at(mm, c).vma <= pool_of(mm, POOL_VMAS).used:
                return False
            if vma_at(mm, avc_at(mm, c).vma).anon_vma == x:
                scratch[3 * (x - 1) + 2] += 1
            prev = c
            c = avc_at(mm, c).same_anon_next
        if prev != a.avc_last:
            return False
        links += n
    for x in range(1, used + 1):
        a = anon_vma_at(mm, x)
        if a.refcount and (a.num_children != scratch[3 * (x - 1)] or a.refcount != scratch[3 * (x - 1) + 1]
                           or a.num_active_vmas != scratch[3 * (x - 1) + 2]):
            return False
    return live == pool_of(mm, POOL_ANON_VMAS).live and links == pool_of(mm, POOL_AVCS).live
