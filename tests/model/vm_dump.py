"""The core's address spaces as the plain data that the twin's dump() gives: what the two are compared by."""

import numpy as np

from mmcore.base import vmstat_names
from mmcore.vm import pgtable
from tests.model.vm_core import SOFTDIRTY, CoreMachine, CoreProcess
from tests.reference.vm import constants as c

PRESENT, RW, ACCESSED, DIRTY, PSE, PROTNONE, SPECIAL = 1, 2, 32, 64, 128, 256, 512
PG_ANON, PG_FILE, PG_SWAPBACKED, PG_ALLOCATED, ORDER_SHIFT = 1 << 17, 1 << 23, 1 << 13, 1 << 27, 28
EVENTS = ("pgfault", "pgreuse", "pgmajfault", "thp_fault_alloc", "thp_fault_fallback", "thp_split_pmd", "thp_zero_page_alloc",
          "thp_deferred_split_page", "thp_split_page", "unevictable_pgs_mlocked", "unevictable_pgs_munlocked")  # fmt: skip
MTHP = ("anon_fault_alloc", "anon_fault_fallback", "split_deferred")
PG_OWNED, OWNER_HUGETLB, OWNER_MASK = 1 << 17 | 1 << 23, 3, 15


def entries(process: CoreProcess) -> list[tuple[int, int]]:
    """(vpn, entry) of every leaf in use; a huge one appears once, by its first page."""
    out = []
    for vma in process.vmas():
        first, n = int(vma["start"]) >> 12, int(vma["end"] - vma["start"]) >> 12
        found = pgtable.ptes(process.state, process.handle, first, n)
        for i in np.flatnonzero(found).tolist():
            vpn, entry = first + i, int(found[i])
            if not entry & PSE or vpn % 512 == 0:
                out.append((vpn, entry))
    return out


def frame(entry: int) -> int:
    return entry >> 12 & ((1 << 40) - 1)


def head_flags(state, pfn: int) -> int:
    for order in range(11):
        head = pfn & ~((1 << order) - 1)
        flags = int(state.pages["flags"][head])
        if flags & PG_ALLOCATED and pfn - head < 1 << (flags >> ORDER_SHIFT):
            return flags
    raise AssertionError(f"page frame {pfn:#x} is mapped and not allocated")


def kind_of(state, entry: int) -> str:
    if entry & SPECIAL:
        return "zero"
    flags = head_flags(state, frame(entry))
    if flags & (PG_ANON | PG_FILE) == PG_ANON:
        return "anon"
    return "shmem" if flags & PG_SWAPBACKED else "file"


def sharing(processes: list[CoreProcess]) -> dict[int, tuple[int, int]]:
    """Page frame -> the first (pid, vpn) that shows it."""
    first: dict[int, tuple[int, int]] = {}
    for process in processes:
        for vpn, entry in entries(process):
            if entry & (PRESENT | PROTNONE) and not entry & SPECIAL:
                for i in range(512 if entry & PSE else 1):
                    key = (process.pid, vpn + i)
                    first[frame(entry) + i] = min(first.get(frame(entry) + i, key), key)
    return first


def shape(start: int, end: int, flags: int, pgoff: int, anon: bool, chain: int) -> tuple:
    """A VMA as it is compared. Huge pages of the pool are not found through anon_vmas in the core (sys/hugetlb)."""
    hugetlb = flags & c.VM_HUGETLB
    return (start, end, flags & ~SOFTDIRTY, pgoff, False if hugetlb else bool(anon), 0 if hugetlb else chain)


def dump(process: CoreProcess, groups: dict[int, tuple[int, int]]) -> dict:
    state = process.state
    mm = state.get("mms")[process.handle - 1]
    ptes, pmds, protnone = {}, {}, []
    for vpn, entry in entries(process):
        if entry & PROTNONE:
            protnone.append(vpn)
        group = None if entry & SPECIAL else groups[frame(entry)]
        leaf = (bool(entry & RW), bool(entry & DIRTY), bool(entry & ACCESSED), group)
        if entry & PSE:
            flags = 0 if entry & SPECIAL else int(state.pages["flags"][frame(entry)])
            pool = flags & (PG_OWNED | OWNER_MASK) == PG_OWNED | OWNER_HUGETLB
            pmds[vpn] = ("huge_zero" if entry & SPECIAL else "hugetlb" if pool else "huge_anon", *leaf)
        else:
            ptes[vpn] = (kind_of(state, entry), *leaf)
    tables = pgtable.tables_of(state, process.handle)
    top = int(state.vm_globals[0]["pt_levels"]) - 1
    hanging = sorted((int(t["level"]), int(t["base"])) for t in tables if int(t["level"]) < top)
    return {
        "vmas": [shape(start, end, flags, pgoff, anon, chain) for start, end, flags, pgoff, _, anon, chain in process.maps()],
        "ptes": ptes,
        "pmds": pmds,
        "protnone": protnone,
        "rss": dict(zip(("file", "anon", "swap", "shmem"), (int(x) for x in mm["rss"]), strict=True)),
        "nr_tables": len(hanging),
        "page_table_bytes": int(mm["pgtables_bytes"]),
        "minflt": int(mm["minflt"]),
        "majflt": int(mm["majflt"]),
        "locked_vm": int(mm["locked_vm"]),
    }


def twin_dump(process) -> dict:
    """The same figures of a twin's process."""
    d = process.dump()
    return {
        "vmas": [shape(v["start"], v["end"], v["flags"], v["pgoff"], v["anon_vma"], v["chain"]) for v in d["vmas"]],
        "ptes": d["ptes"],
        "pmds": d["pmds"],
        "protnone": d["protnone"],
        "rss": {name: d["rss"].get(name, 0) for name in ("file", "anon", "swap", "shmem")},
        "nr_tables": len(d["tables"]) + len(d["deposited"]),
        "page_table_bytes": d["page_table_bytes"],
        "minflt": d["minflt"],
        "majflt": d["majflt"],
        "locked_vm": d["locked_vm"],
    }


def events(machine: CoreMachine) -> dict[str, int]:
    found = machine.state.vm_globals[0]["events"]
    return {name: int(found[vmstat_names.EVENT_ITEMS.index(name)]) for name in EVENTS}


def mthp_events(machine: CoreMachine) -> dict[tuple[int, str], int]:
    """Counts of the sizes below and at the PMD's, by order and name."""
    found = machine.state.vm_globals[0]["mthp"].tolist()
    return {(order, name): found[order * 4 + i] for order in range(2, 10) for i, name in enumerate(MTHP)}
