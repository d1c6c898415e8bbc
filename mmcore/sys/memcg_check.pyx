"""Recount of memory control groups from scratch.

Models: nothing; it is the judge of what charging keeps incrementally: the tree is one, every group's usage is its pages, kernel objects,
stocks and children, every list of a group's lruvec holds its own pages and as many as it says. Links are tested before they are followed.
"""
from libc.stdint cimport int64_t, uint32_t

import numpy as np

cimport numpy as cnp
from mmcore.base.errors import ValidationError
from mmcore.base.flags cimport OWNER_MASK, OWNER_TABLE, PG_ORDER_MASK, PG_ORDER_SHIFT, PG_allocated, PG_lru, PG_owned, PG_unevictable
from mmcore.base.records cimport Mm, page_at
from mmcore.base.stat_items cimport NS_NR_INACTIVE_ANON, NS_NR_SLAB_RECLAIMABLE
from mmcore.base.state cimport State
from mmcore.base.vm_records cimport (
    Cpu, LRU_HEADS_PER_NODE, Lruvec, MEMCG_DYING, MEMCG_ONLINE, Memcg, POOL_LRUVECS, POOL_MEMCGS, POOL_MMS,
)
from mmcore.phys.buddy cimport zone_of
from mmcore.reclaim.lru cimport LRU_UNEVICTABLE, folio_lru_list
from mmcore.reclaim.memcg cimport MEMCG_CHARGE_BATCH, memcg_at, memcg_lruvec

cnp.import_array()

cdef enum:
    PAGE_BYTES = 4096
    MAX_OBJ_BYTES = 1 << 21     # a stock may hold what the largest object left over and a page


cdef class _Tally:
    """What was counted of each group."""
    cdef int64_t[::1] pages         # charged page frames
    cdef int64_t[::1] kernel        # those of them that are kernel memory
    cdef int64_t[::1] unevictable


def _fail(str text):
    raise ValidationError(text)


cdef int check_tree(State s, uint32_t used) except -1:
    # Every link lies in the pool before it is followed; a walk that visits more groups than there are goes in circles.
    cdef Mm* mm = &s.c
    cdef Memcg* c
    cdef uint32_t id_, x, last, seen = 1, free_ = 0, children
    for id_ in range(used):
        c = memcg_at(mm, id_)
        if c.flags == 0:
            free_ += 1
            continue
        if c.flags != MEMCG_ONLINE and (c.flags != MEMCG_DYING or id_ == 0):
            _fail(f"group {id_}: its flags are {c.flags:#x}")
        if c.name > len(s.names):
            _fail(f"group {id_}: name {c.name} of {len(s.names)}")
        if id_ == 0 and (c.parent or c.next_sibling or c.prev_sibling):
            _fail("the root group stands below or beside another one")
        if id_ and (c.parent == 0 or c.parent > used or memcg_at(mm, c.parent - 1).flags == 0):
            _fail(f"group {id_}: its parent {<int64_t>c.parent - 1} does not exist")
        x = c.first_child
        last = 0
        children = 0
        while x:
            children += 1
            if x > used or x == 1 or children > used or memcg_at(mm, x - 1).parent != id_ + 1 or memcg_at(mm, x - 1).prev_sibling != last:
                _fail(f"group {id_}: its list of children is damaged at {<int64_t>x - 1}")
            last = x
            x = memcg_at(mm, x - 1).next_sibling
        if last != c.last_child:
            _fail(f"group {id_}: its last child is {<int64_t>c.last_child - 1}, found {<int64_t>last - 1}")
        seen += children
    if memcg_at(mm, 0).flags != MEMCG_ONLINE:
        _fail("there is no root group")
    if seen + free_ != used or used - free_ != mm.vm.pools[POOL_MEMCGS].live:
        _fail(f"{mm.vm.pools[POOL_MEMCGS].live} groups are in use; {used - free_} exist and {seen} hang in the tree")
    # as many as hang somewhere: then all hang below the root, unless some form a ring
    for id_ in range(used):
        if memcg_at(mm, id_).flags:
            x = id_
            children = 0
            while x:
                x = memcg_at(mm, x).parent - 1
                children += 1
                if children > used:
                    _fail(f"group {id_} is its own ancestor")
    if mm.vm.g.nr_memcgs != used - free_ - 1:
        _fail(f"{mm.vm.g.nr_memcgs} groups beside the root, counted {used - free_ - 1}")
    return 0


cdef int count_pages(State s, _Tally t, uint32_t used) except -1:
    cdef Mm* mm = &s.c
    cdef uint32_t pfn, flags
    cdef cnp.ndarray charged
    cdef int64_t n
    cdef uint32_t id_
    charged = np.flatnonzero(s.memcg_of)
    for value in charged:
        pfn = value
        id_ = mm.vm.memcg_of[pfn]
        if id_ >= used or memcg_at(mm, id_).flags == 0:
            _fail(f"page frame {pfn:#x} is charged to group {id_}, which does not exist")
        flags = page_at(mm, pfn).flags
        if not flags & PG_allocated:
            _fail(f"page frame {pfn:#x} is charged to group {id_}, but not allocated")
        n = <int64_t>1 << (flags >> PG_ORDER_SHIFT & PG_ORDER_MASK)
        t.pages[id_] += n
        if flags & PG_owned == PG_owned:
            if flags & OWNER_MASK != OWNER_TABLE:
                _fail(f"page frame {pfn:#x} is charged to group {id_}, but no page table and no program's page")
            t.kernel[id_] += n
        elif flags & PG_lru and flags & PG_unevictable:
            t.unevictable[id_] += n
    return 0


cdef int check_lists(State s, uint32_t id_) except -1:
    cdef Mm* mm = &s.c
    cdef Lruvec* lv
    cdef uint32_t node, k, x, prev, head, flags, zi
    cdef int64_t n, folios
    cdef int64_t zone_nr[25]
    for node in range(mm.g.nr_nodes):
        lv = memcg_lruvec(mm, id_, node)
        if lv.node != node or lv.memcg != id_ or lv.head != mm.vm.g.memcg_heads + ((id_ - 1) * mm.g.nr_nodes + node) * LRU_HEADS_PER_NODE:
            _fail(f"group {id_}, node {node}: its lruvec says group {lv.memcg}, node {lv.node}, list head {lv.head}")
        for k in range(25):
            zone_nr[k] = 0
        for k in range(LRU_UNEVICTABLE):
            head = lv.head + k
            prev, x, n, folios = head, mm.link[head].next, 0, 0
            while x != head:
                folios += 1
                if x == 0 or x > mm.g.nr_pages or folios > mm.g.nr_pages or mm.link[x].prev != prev:
                    _fail(f"group {id_}, node {node}, LRU list {k}: damaged behind {<int64_t>prev - 1:#x}")
                flags = mm.link[x].flags
                zi = zone_of(mm, x - 1)
                if (not flags & PG_lru or not flags & PG_allocated or folio_lru_list(flags) != k or zi == 0
                        or mm.zones[zi - 1].node != node or mm.vm.memcg_of[x - 1] != id_):
                    _fail(f"group {id_}, node {node}, LRU list {k}: page frame {x - 1:#x} does not belong on it")
                zone_nr[mm.zones[zi - 1].zid * 5 + k] += <int64_t>1 << (flags >> PG_ORDER_SHIFT & PG_ORDER_MASK)
                n += <int64_t>1 << (flags >> PG_ORDER_SHIFT & PG_ORDER_MASK)
                prev, x = x, mm.link[x].next
            if mm.link[head].prev != prev:
                _fail(f"group {id_}, node {node}, LRU list {k}: damaged at its end")
            if lv.nr[k] != n:
                _fail(f"group {id_}, node {node}, LRU list {k}: {lv.nr[k]} pages, counted {n}")
        for k in range(25):
            if k % 5 != LRU_UNEVICTABLE and lv.zone_nr[k] != zone_nr[k]:
                _fail(f"group {id_}, node {node}, zone type {k // 5}, LRU list {k % 5}: {lv.zone_nr[k]} pages, counted {zone_nr[k]}")
        for k in range(5):
            if lv.stat[NS_NR_INACTIVE_ANON + k] != lv.nr[k]:
                _fail(f"group {id_}, node {node}, LRU list {k}: {lv.nr[k]} pages, statistics {lv.stat[NS_NR_INACTIVE_ANON + k]}")
    return 0


def memcg_check(State s not None):
    """Recount groups; the caller holds the machine. ValidationError names the first thing that is wrong."""
    cdef Mm* mm = &s.c
    cdef uint32_t used = mm.vm.pools[POOL_MEMCGS].used, id_, x, cpu, node, live = 0
    cdef Memcg* c
    cdef Cpu* p
    cdef _Tally t = _Tally()
    cdef int64_t own, objects, bytes_, children, swap, unevictable
    if used < 1 or used > mm.vm.g.max_memcgs + 1 or mm.vm.g.nr_memcgs > mm.vm.g.max_memcgs:
        _fail(f"{used} records of groups are in use; the machine has room for {mm.vm.g.max_memcgs} besides the root")
    if mm.vm.pools[POOL_LRUVECS].used < used * mm.g.nr_nodes:
        _fail(f"{used} groups on {mm.g.nr_nodes} nodes have {mm.vm.pools[POOL_LRUVECS].used} lruvecs")
    check_tree(s, used)
    t.pages, t.kernel, t.unevictable = np.zeros(used, np.int64), np.zeros(used, np.int64), np.zeros(used, np.int64)
    count_pages(s, t, used)
    stocks, obj_bytes, tasks = np.zeros(used, np.int64), np.zeros(used, np.int64), np.zeros(used, np.int64)
    for cpu in range(mm.g.nr_cpus):
        p = &mm.vm.cpus[cpu]
        for what, x in (("page stock", p.stock_memcg), ("byte stock", p.obj_memcg), ("task", p.memcg)):
            if x >= used or memcg_at(mm, x).flags == 0:
                _fail(f"CPU {cpu}: its {what} is of group {x}, which does not exist")
        if p.stock_nr > MEMCG_CHARGE_BATCH or (p.stock_nr and not p.stock_memcg) or p.obj_bytes > MAX_OBJ_BYTES or (p.obj_bytes and not p.obj_memcg):
            _fail(f"CPU {cpu}: stocks of {p.stock_nr} pages of group {p.stock_memcg} and {p.obj_bytes} bytes of group {p.obj_memcg}")
        stocks[p.stock_memcg] += p.stock_nr
        obj_bytes[p.obj_memcg] += p.obj_bytes
    for x in range(mm.vm.pools[POOL_MMS].used):
        if mm.vm.mms[x].pid:
            if mm.vm.mms[x].memcg >= used or memcg_at(mm, mm.vm.mms[x].memcg).flags != MEMCG_ONLINE:
                _fail(f"address space {x + 1} (pid {mm.vm.mms[x].pid}) belongs to group {mm.vm.mms[x].memcg}, which does not exist")
            tasks[mm.vm.mms[x].memcg] += 1
    for id_ in range(used):
        c = memcg_at(mm, id_)
        if c.flags == 0:
            continue
        live += 1
        children = swap = 0
        x = c.first_child
        while x:
            children += memcg_at(mm, x - 1).usage
            swap += memcg_at(mm, x - 1).swap_usage
            x = memcg_at(mm, x - 1).next_sibling
        if c.swap_usage < swap:
            _fail(f"group {id_}: {c.swap_usage} pages of swap, its children have {swap}")
        if id_ == 0:
            if c.usage != children:
                _fail(f"the root group has a usage of {c.usage} pages, its children {children}")
            continue
        if c.nr_tasks != tasks[id_]:
            _fail(f"group {id_}: {c.nr_tasks} tasks, counted {tasks[id_]}")
        bytes_ = c.slab_pending
        for node in range(mm.g.nr_nodes):
            bytes_ += memcg_lruvec(mm, id_, node).stat[NS_NR_SLAB_RECLAIMABLE]
        objects = c.kmem - t.kernel[id_] - c.nr_outside
        if bytes_ < 0 or objects * PAGE_BYTES != bytes_ + int(obj_bytes[id_]) + c.obj_left:
            _fail(f"group {id_}: {objects} pages hold kernel objects; these have {bytes_} bytes, stocks {obj_bytes[id_]}, {c.obj_left} are left over")
        own = t.pages[id_] + c.nr_outside + objects + int(stocks[id_])
        if c.usage != own + children:
            _fail(f"group {id_}: a usage of {c.usage} pages, counted {own} of its own (stocks {stocks[id_]}) and {children} of its children")
        if c.flags == MEMCG_DYING and c.usage == 0 and c.swap_usage == 0 and c.first_child == 0:
            _fail(f"group {id_} was removed and holds nothing, but is still there")
        check_lists(s, id_)
        unevictable = 0
        for node in range(mm.g.nr_nodes):
            unevictable += memcg_lruvec(mm, id_, node).nr[LRU_UNEVICTABLE]
        if unevictable != t.unevictable[id_]:
            _fail(f"group {id_}: {unevictable} unevictable pages, counted {t.unevictable[id_]}")
    if mm.vm.pools[POOL_LRUVECS].live != live * mm.g.nr_nodes:
        _fail(f"{mm.vm.pools[POOL_LRUVECS].live} lruvecs are in use; {live} groups on {mm.g.nr_nodes} nodes need {live * mm.g.nr_nodes}")
