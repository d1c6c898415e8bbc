"""The twin's state as plain data, and its own check.

Models: nothing of the kernel: what two models of one machine can be compared by. Simplifies, omits: nothing.
"""

import itertools

from .anon_vma import find_ptes
from .constants import HPAGE, VM_ACCOUNT, VM_LOCKED
from .tables import span


def group_of(page):
    """A name of the page that needs no frame number: the first (pid, vpn) that shows it."""
    return min((mm.pid, vpn) for mm, vpn in page.mappers()) if page else None


def dump_process(process) -> dict:
    mm = process.mm
    return {
        "pid": mm.pid,
        "vmas": [
            {
                "start": vma.start,
                "end": vma.end,
                "flags": vma.flags,
                "pgoff": vma.pgoff,
                "file": vma.file.name if vma.file else None,
                "anon_vma": vma.anon_vma is not None,
                "chain": len(vma.chain),
            }
            for vma in mm.vmas
        ],
        "ptes": {vpn: (pte.kind, pte.writable, pte.dirty, pte.young, group_of(pte.page)) for vpn, pte in sorted(mm.ptes.items())},
        "pmds": {
            base: (pmd.kind, pmd.writable, pmd.dirty, pmd.young, group_of(pmd.folio.pages[0]) if pmd.folio else None)
            for base, pmd in sorted(mm.pmds.items())
        },
        "protnone": sorted(vpn for leaves in (mm.ptes, mm.pmds) for vpn, leaf in leaves.items() if leaf.protnone),
        "rss": dict(mm.rss),
        "tables": sorted(mm.tables.set),
        "deposited": sorted(mm.tables.deposited),
        "page_table_bytes": mm.tables.bytes,
        "total_vm": mm.total_vm,
        "data_vm": mm.data_vm,
        "exec_vm": mm.exec_vm,
        "stack_vm": mm.stack_vm,
        "locked_vm": mm.locked_vm,
        "map_count": mm.map_count,
        "brk": mm.brk,
        "minflt": mm.minflt,
        "majflt": mm.majflt,
        "committed": mm.machine.committed,
        "counters": dict(mm.machine.events),
        "mthp": dict(mm.machine.mthp_events),
        "nr_mlock": mm.machine.nr_mlock,
    }


def check_machine(machine) -> None:
    """Everything that must hold between two calls."""
    pages = set()
    for process in machine.processes:
        check_mm(process.mm)
        for vpn in process.mm.ptes:
            pages.add(process.mm.ptes[vpn].page)
        for pmd in process.mm.pmds.values():
            pages.update(pmd.folio.pages if pmd.folio else ())
    pages.discard(None)
    for page in pages:
        for mm, vpn in page.mappers():
            assert mm.page_at(vpn) is page, (page, mm, vpn)
        if page.kind == "anon":
            assert not page.exclusive or page.mapcount == 1, page
            assert set(find_ptes(page)) == page.mappers(), "rmap does not find exactly the PTEs"

    vmas = [vma for process in machine.processes for vma in process.mm.vmas]
    files = {vma.file for vma in vmas if vma.file}
    promised = sum(vma.pages for vma in vmas if vma.flags & VM_ACCOUNT) + sum(file.charged for file in files)
    named = sum(file.charged for file in machine.opened if file not in files)
    assert machine.committed == promised + named
    anon_vmas = {anon_vma for vma in vmas for anon_vma in vma.chain}
    for anon_vma in anon_vmas:
        assert anon_vma.num_active_vmas == sum(vma.anon_vma is anon_vma for vma in vmas), anon_vma
        children = sum(other.parent is anon_vma for other in anon_vmas)
        assert anon_vma.num_children == children, anon_vma


def check_mm(mm) -> None:
    vmas = list(mm.vmas)
    assert len(vmas) == mm.map_count
    assert mm.total_vm == sum(vma.pages for vma in vmas)
    assert mm.locked_vm == sum(vma.pages for vma in vmas if vma.flags & VM_LOCKED)
    for left, right in itertools.pairwise(vmas):
        assert left.end <= right.start
    for vma in vmas:
        assert vma.start < vma.end
        assert not vma.anon_vma or vma.anon_vma in vma.chain
        assert all(vma in anon_vma.vmas for anon_vma in vma.chain)
    rss = {"file": 0, "anon": 0, "swap": 0, "shmem": 0}
    for vpn, pte in mm.ptes.items():
        vma = mm.vmas.lookup(vpn * 4096)
        assert vma, hex(vpn)
        assert mm.tables.has(0, vpn)
        assert vpn // HPAGE * HPAGE not in mm.pmds
        assert not pte.writable or vma.flags & 2
        if pte.page:
            rss[pte.page.kind] += 1
            assert (mm, vpn) in pte.page.ptes
    for base, pmd in mm.pmds.items():
        vma = mm.vmas.lookup(base * 4096)
        assert vma
        assert vma.end >= (base + HPAGE) * 4096
        assert mm.tables.has(1, base)
        assert not mm.tables.has(0, base)
        if pmd.kind == "hugetlb":
            continue
        assert base in mm.tables.deposited
        if pmd.folio:
            rss["anon"] += HPAGE
    assert rss == mm.rss
    for level, base in mm.tables.set:
        assert mm.vmas.intersecting(base * 4096, (base + span(level)) * 4096), "a table without a VMA in its range"
    assert mm.tables.deposited <= set(mm.pmds)
