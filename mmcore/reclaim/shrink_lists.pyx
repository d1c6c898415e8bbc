"""Passes over the lists of one lruvec, and how much of each is to be looked at.

Models: isolate_lru_folios, shrink_active_list, shrink_inactive_list, move_folios_to_lru, inactive_is_low, get_scan_count, shrink_lruvec
(mm/vmscan.c, v6.12), with the statistics that each test reads: the exact sizes for the counts, the folded copies for the tests.
Simplifies: a pass is one step, no one takes pages in between; too_many_isolated() never holds. Omits: demotion.
"""
from libc.math cimport sqrt

from mmcore.base.flags cimport PG_active, PG_lru, PG_unevictable, PG_workingset
from mmcore.base.lists cimport list_add, list_del
from mmcore.base.records cimport Page, Zone, page_at
from mmcore.base.stat_items cimport (
    NS_NR_INACTIVE_ANON, VE_PGDEACTIVATE, VE_PGREFILL, VE_PGSCAN_ANON, VE_PGSCAN_DIRECT, VE_PGSCAN_KSWAPD, VE_PGSTEAL_ANON, VE_PGSTEAL_DIRECT,
    VE_PGSTEAL_KSWAPD,
)
from mmcore.base.vm_records cimport Memcg
from mmcore.base.vmscan_trace cimport trace_isolate, trace_shrink_active, trace_shrink_inactive
from mmcore.phys.buddy cimport prefetch, zone_of
from mmcore.reclaim.lru cimport (
    LRU_ACTIVE_ANON, LRU_ACTIVE_FILE, LRU_INACTIVE_ANON, LRU_INACTIVE_FILE, folio_nr_pages, lru_add_drain,
    lru_count, lru_note_cost, lru_putback, lruvec_lru_size,
)
from mmcore.reclaim.memcg cimport count_memcg_events, lruvec_page_state, memcg_at
from mmcore.reclaim.rmap_walk cimport Referenced, folio_mapped, folio_referenced
from mmcore.reclaim.scan_control cimport DEACTIVATE_ANON, DEACTIVATE_FILE, DEF_PRIORITY, SWAP_CLUSTER_MAX, ReclaimStat
from mmcore.reclaim.shrink_folios cimport shrink_folio_list
from mmcore.reclaim.swap cimport memcg_nr_swap_pages, nr_swap_pages
from mmcore.reclaim.writeback cimport wakeup_flusher_threads
from mmcore.vm.vma cimport VM_EXEC

# How scanning is balanced between the types.
cdef enum:
    SCAN_EQUAL = 0
    SCAN_FRACT = 1
    SCAN_ANON = 2
    SCAN_FILE = 3


cdef bint low_of(int64_t inactive, int64_t active) noexcept nogil:
    cdef int64_t gb = (inactive + active) >> 18, ratio = 1
    if gb:
        ratio = <int64_t>sqrt(<double>(10 * gb))
        if ratio * ratio > 10 * gb:
            ratio -= 1
        elif (ratio + 1) * (ratio + 1) <= 10 * gb:
            ratio += 1
    return inactive * ratio < active


cdef bint inactive_is_low(Mm* mm, Lruvec* lv, bint file) noexcept nogil:
    return low_of(lruvec_page_state(mm, lv, NS_NR_INACTIVE_ANON + 2 * file), lruvec_page_state(mm, lv, NS_NR_INACTIVE_ANON + 2 * file + 1))


cdef bint can_reclaim_anon(Mm* mm, uint32_t target) noexcept nogil:
    return (memcg_nr_swap_pages(mm, target - 1) if target else nr_swap_pages(mm)) > 0


# ---------------------------------------------------------------- taking pages off a list

cdef int64_t isolate(Mm* mm, Lruvec* lv, unsigned lru, int64_t want, ScanControl* sc, uint32_t* out, int64_t* taken, int64_t* scanned) noexcept nogil:
    # isolate_lru_folios(): folios into `out`, tail first; pages taken and looked at.
    cdef uint32_t head = lv.head + lru, x = mm.link[head].prev, before, zi, last_zi = 0, stop = head
    cdef int64_t n = 0, looked = 0, total = 0, run = 0, pages, folios = 0
    cdef Page* p
    cdef Zone* z
    while looked < want and x != stop and x != head:
        p = &mm.link[x]
        before = p.prev
        prefetch(&mm.link[before])
        pages = folio_nr_pages(p.flags)
        total += pages
        zi = zone_of(mm, x - 1)
        z = &mm.zones[zi - 1]
        if z.zid > sc.reclaim_idx:
            # put aside: behind all others, where the walk ends when it comes round
            z.pgskip += <unsigned long>pages
            list_del(mm.link, x)
            list_add(mm.link, head, x)
            if stop == head:
                stop = x
            x = before
            continue
        looked += pages
        list_del(mm.link, x)
        if not sc.may_unmap and folio_mapped(mm, x - 1):
            list_add(mm.link, head, x)
            if stop == head:
                stop = x
            x = before
            continue
        p.flags &= ~<uint32_t>PG_lru
        if zi != last_zi:
            if run:
                lru_count(mm, lv, last_zi, lru, -run)
            run = 0
            last_zi = zi
        run += pages
        n += pages
        out[folios] = x - 1
        folios += 1
        x = before
    if run:
        lru_count(mm, lv, last_zi, lru, -run)
    trace_isolate(mm, lru, want, total, total - looked, n)
    taken[0] = n
    scanned[0] = total
    return folios


cdef void shrink_active_list(Mm* mm, int64_t n, Lruvec* lv, ScanControl* sc, unsigned lru) noexcept nogil:
    cdef uint32_t pfns[32]
    cdef int64_t folios, taken, scanned, k, rotated = 0, moved = 0, kept = 0
    cdef bint file = lru >= LRU_INACTIVE_FILE
    cdef Referenced r
    cdef Page* p
    lru_add_drain(mm, sc.cpu)
    folios = isolate(mm, lv, lru, n, sc, pfns, &taken, &scanned)
    if sc.target == 0:
        mm.vm.g.events[VE_PGREFILL] += <unsigned long>scanned
    count_memcg_events(mm, lv.memcg, VE_PGREFILL, <unsigned long>scanned)
    for k in range(folios):
        p = page_at(mm, pfns[k])
        if p.flags & PG_unevictable:
            lru_putback(mm, pfns[k])
            continue
        if folio_mapped(mm, pfns[k]):
            folio_referenced(mm, pfns[k], sc.target, &r)
            if r.nr and r.vm_flags & VM_EXEC and file:
                # the code of a running program
                rotated += folio_nr_pages(p.flags)
                lru_putback(mm, pfns[k])
                continue
        p.flags = (p.flags & ~<uint32_t>PG_active) | PG_workingset
        pfns[kept] = pfns[k]
        kept += 1
        moved += folio_nr_pages(p.flags)
    for k in range(kept):
        lru_putback(mm, pfns[k])
    trace_shrink_active(mm, taken, rotated, moved, rotated, sc.priority)
    mm.vm.g.events[VE_PGDEACTIVATE] += <unsigned long>moved
    count_memcg_events(mm, lv.memcg, VE_PGDEACTIVATE, <unsigned long>moved)
    if rotated:
        lru_note_cost(mm, lv, file, 0, <unsigned long>rotated)


cdef int64_t shrink_inactive_list(Mm* mm, int64_t n, Lruvec* lv, ScanControl* sc, unsigned lru) noexcept nogil:
    cdef uint32_t pfns[32]
    cdef int64_t folios, taken, scanned, freed, k, kept
    cdef bint file = lru >= LRU_INACTIVE_FILE
    cdef ReclaimStat stat
    lru_add_drain(mm, sc.cpu)
    folios = isolate(mm, lv, lru, n, sc, pfns, &taken, &scanned)
    if sc.target == 0:
        mm.vm.g.events[VE_PGSCAN_KSWAPD if sc.kswapd else VE_PGSCAN_DIRECT] += <unsigned long>scanned
    count_memcg_events(mm, lv.memcg, VE_PGSCAN_KSWAPD if sc.kswapd else VE_PGSCAN_DIRECT, <unsigned long>scanned)
    mm.vm.g.events[VE_PGSCAN_ANON + file] += <unsigned long>scanned
    if taken == 0:
        return 0
    freed = shrink_folio_list(mm, pfns, folios, lv.node, sc, &stat, False, &kept)
    for k in range(kept):
        lru_putback(mm, pfns[k])
    if sc.target == 0:
        mm.vm.g.events[VE_PGSTEAL_KSWAPD if sc.kswapd else VE_PGSTEAL_DIRECT] += <unsigned long>freed
    count_memcg_events(mm, lv.memcg, VE_PGSTEAL_KSWAPD if sc.kswapd else VE_PGSTEAL_DIRECT, <unsigned long>freed)
    mm.vm.g.events[VE_PGSTEAL_ANON + file] += <unsigned long>freed
    lru_note_cost(mm, lv, file, <unsigned long>stat.nr_pageout, <unsigned long>(scanned - freed))
    trace_shrink_inactive(mm, scanned, freed, stat.nr_dirty, stat.nr_writeback, 0 if file else stat.nr_activate,
                          stat.nr_activate if file else 0, stat.nr_ref_keep, stat.nr_unmap_fail, sc.priority)
    if stat.nr_unqueued_dirty == taken:
        wakeup_flusher_threads(mm)
    sc.nr_dirty += stat.nr_dirty
    sc.nr_congested += stat.nr_congested
    sc.nr_unqueued_dirty += stat.nr_unqueued_dirty
    sc.nr_writeback += stat.nr_writeback
    sc.nr_immediate += stat.nr_immediate
    sc.nr_taken += taken
    if file:
        sc.nr_file_taken += taken
    return freed


# ---------------------------------------------------------------- how much

cdef inline int64_t protected_size(Mm* mm, Lruvec* lv, ScanControl* sc, int64_t size) noexcept nogil:
    # What is left of a list when the group's protection is taken off in proportion.
    cdef Memcg* g = memcg_at(mm, lv.memcg)
    cdef int64_t usage = g.usage, protection = g.emin
    if not sc.memcg_low_reclaim and g.elow > g.emin:
        protection = g.elow
        sc.memcg_low_skipped = True
    if usage < protection:
        usage = protection
    size -= size * protection // (usage + 1)
    return size if size > SWAP_CLUSTER_MAX else SWAP_CLUSTER_MAX


cdef void get_scan_count(Mm* mm, Lruvec* lv, ScanControl* sc, int64_t* nr) noexcept nogil:
    cdef int balance, file
    cdef unsigned lru
    cdef int64_t swappiness = sc.swappiness if sc.swappiness >= 0 else mm.vm.g.swappiness
    cdef int64_t total, anon_cost, file_cost, ap = 0, fp = 0, size, scan
    cdef bint offline
    if not sc.may_swap or not can_reclaim_anon(mm, lv.memcg + 1 if lv.memcg else 0):
        balance = SCAN_FILE
    elif sc.target and swappiness == 0:
        balance = SCAN_FILE
    elif sc.priority == 0 and swappiness:
        balance = SCAN_EQUAL
    elif sc.file_is_tiny:
        balance = SCAN_ANON
    elif sc.cache_trim_mode:
        balance = SCAN_FILE
    else:
        balance = SCAN_FRACT
        total = sc.anon_cost + sc.file_cost
        anon_cost = total + sc.anon_cost
        file_cost = total + sc.file_cost
        total = anon_cost + file_cost
        ap = swappiness * (total + 1) // (anon_cost + 1)
        fp = (200 - swappiness) * (total + 1) // (file_cost + 1)
    for lru in range(4):
        file = lru >= LRU_INACTIVE_FILE
        size = lruvec_lru_size(lv, lru, sc.reclaim_idx)
        if lv.memcg and lv.memcg + 1 != sc.target and (memcg_at(mm, lv.memcg).emin or memcg_at(mm, lv.memcg).elow):
            size = protected_size(mm, lv, sc, size)
        offline = lv.memcg and not memcg_at(mm, lv.memcg).flags & 1
        scan = size >> sc.priority
        if scan == 0 and offline:
            scan = size if size < SWAP_CLUSTER_MAX else SWAP_CLUSTER_MAX
        if balance == SCAN_FRACT:
            if offline:
                scan = (scan * (fp if file else ap) + ap + fp - 1) // (ap + fp)
            else:
                scan = scan * (fp if file else ap) // (ap + fp)
        elif (balance == SCAN_FILE) != file and balance != SCAN_EQUAL:
            scan = 0
        nr[lru] = scan


cdef void stop_smaller(int64_t* nr, const int64_t* targets) noexcept nogil:
    # Enough was freed: the type with less left stops, the other goes on in proportion.
    cdef int64_t anon = nr[0] + nr[1], file = nr[2] + nr[3], percent, done
    cdef unsigned base, other, lru
    if file > anon:
        percent = anon * 100 // (targets[0] + targets[1] + 1)
        base = 0
        other = 2
    else:
        percent = file * 100 // (targets[2] + targets[3] + 1)
        base = 2
        other = 0
    nr[base] = nr[base + 1] = 0
    for lru in range(other, other + 2):
        done = targets[lru] - nr[lru]
        nr[lru] = targets[lru] * (100 - percent) // 100
        nr[lru] -= done if done < nr[lru] else nr[lru]


cdef void shrink_lruvec(Mm* mm, Lruvec* lv, ScanControl* sc) noexcept nogil:
    cdef int64_t nr[4]
    cdef int64_t targets[4]
    cdef int64_t freed = 0, n
    cdef unsigned lru
    cdef bint proportional = sc.target == 0 and not sc.kswapd and sc.priority == DEF_PRIORITY
    get_scan_count(mm, lv, sc, nr)
    for lru in range(4):
        targets[lru] = nr[lru]
    while nr[LRU_INACTIVE_ANON] or nr[LRU_ACTIVE_FILE] or nr[LRU_INACTIVE_FILE]:
        for lru in range(4):
            if nr[lru] == 0:
                continue
            n = nr[lru] if nr[lru] < SWAP_CLUSTER_MAX else SWAP_CLUSTER_MAX
            nr[lru] -= n
            if not lru & 1:
                freed += shrink_inactive_list(mm, n, lv, sc, lru)
            elif sc.may_deactivate & (DEACTIVATE_FILE if lru == LRU_ACTIVE_FILE else DEACTIVATE_ANON):
                shrink_active_list(mm, n, lv, sc, lru)
            else:
                sc.skipped_deactivate = True
        if freed < sc.nr_to_reclaim or proportional:
            continue
        if nr[0] + nr[1] == 0 or nr[2] + nr[3] == 0:
            break
        stop_smaller(nr, targets)
    sc.nr_reclaimed += freed
    if mm.g.total_swap_pages > 0 and inactive_is_low(mm, lv, False):
        shrink_active_list(mm, SWAP_CLUSTER_MAX, lv, sc, LRU_ACTIVE_ANON)
