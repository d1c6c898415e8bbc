"""/proc/PID: maps, smaps, smaps_rollup, status, statm of a simulated process, and how to read pagemap.

Models: fs/proc/task_mmu.c (show_map_vma, smap_gather_stats, smaps_account, task_mem, task_statm) and the memory lines of
fs/proc/array.c, v6.12, and 6.1 where its lines differ. Simplifies: what is not memory in status (signals, capabilities, seccomp) is that
of an ordinary root process. Omits: KSM, migration entries, protection keys, NUMA policies (numa_maps).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np

from mmpy.flags import Pg
from mmpy.vmflags import Rss, Vm
from mmpy.vmviews import PAGE_SIZE, VmaView

if TYPE_CHECKING:
    from mmpy.machine import Machine
    from mmpy.process import Process

# Bits of a pagemap entry; below them the page frame, or for swap type (5 bits) and offset.
PM_PRESENT = 1 << 63
PM_SWAP = 1 << 62
PM_FILE = 1 << 61
PM_MMAP_EXCLUSIVE = 1 << 56
PM_SOFT_DIRTY = 1 << 55
PM_PFN_MASK = (1 << 55) - 1

PG_ANON, PG_FILE = 1 << 17, 1 << 23
_ORDER_SHIFT = 28
_PRESENT, _ACCESSED, _DIRTY, _PSE, _PROTNONE, _SPECIAL, _SAVED_DIRTY = (1 << bit for bit in (0, 5, 6, 7, 8, 9, 58))
_FRAME_MASK = (1 << 52) - PAGE_SIZE
PSS_SHIFT = 12
CHUNK = 1 << 20
"""pages looked at in one go"""
HPAGE_KIB = 2048
MAX_NUMNODES = {"x86_64": 1024, "i386": 1}

# Two letters for each flag, in the order of the bits.
_MNEMONICS = {
    Vm.READ: "rd", Vm.WRITE: "wr", Vm.EXEC: "ex", Vm.SHARED: "sh", Vm.MAYREAD: "mr", Vm.MAYWRITE: "mw", Vm.MAYEXEC: "me",
    Vm.MAYSHARE: "ms", Vm.GROWSDOWN: "gd", Vm.UFFD_MISSING: "um", Vm.PFNMAP: "pf", Vm.UFFD_WP: "uw", Vm.LOCKED: "lo", Vm.IO: "io",
    Vm.SEQ_READ: "sr", Vm.RAND_READ: "rr", Vm.DONTCOPY: "dc", Vm.DONTEXPAND: "de", Vm.LOCKONFAULT: "lf", Vm.ACCOUNT: "ac",
    Vm.NORESERVE: "nr", Vm.HUGETLB: "ht", Vm.SYNC: "sf", Vm.ARCH_1: "ar", Vm.WIPEONFORK: "wf", Vm.DONTDUMP: "dd", Vm.SOFTDIRTY: "sd",
    Vm.MIXEDMAP: "mm", Vm.HUGEPAGE: "hg", Vm.NOHUGEPAGE: "nh", Vm.MERGEABLE: "mg", Vm.UFFD_MINOR: "ui", Vm.DROPPABLE: "dp",
    Vm.SEALED: "sl",
}  # fmt: skip
_BY_BIT = {int(flag).bit_length() - 1: text for flag, text in _MNEMONICS.items()}

# The vsyscall page of x86-64: in no address space's VMAs, but listed behind them (execute-only, as Debian builds it).
GATE = VmaView(0xFFFFFFFFFF600000, 0xFFFFFFFFFF601000, Vm.EXEC, 0, 0, "[vsyscall]", -1, 0)


def vma_flags_text(flags: int) -> str:
    """The VmFlags line's words: two letters a flag, "??" for one without a name."""
    return "".join(f"{_BY_BIT.get(bit, '??')} " for bit in range(64) if flags >> bit & 1)


def _listed(process: Process) -> list[VmaView]:
    """What maps lists: the VMAs, and the gate page where the machine has one."""
    vmas = list(process.vmas)
    machine = process.machine
    if machine.arch == "x86_64" and int(machine.state.vm_globals["paging"][0]) <= 1:
        vmas.append(GATE)
    return vmas


def map_line(vma: VmaView, arch: str = "x86_64") -> str:
    """The line of maps for one VMA, without its end of line."""
    head = f"{vma.start:08x}-{vma.end:08x} {vma.prot_text} {vma.offset:08x} {vma.device} {vma.inode} "
    if not vma.name:
        return head
    # the name's column: 25 characters and six for each byte of a pointer, less one
    return f"{head:<{25 + 6 * (8 if arch == 'x86_64' else 4) - 1}} {vma.name}"


def write_maps(process: Process) -> str:
    """The text of /proc/PID/maps."""
    return "".join(map_line(vma, process.machine.arch) + "\n" for vma in _listed(process))


# ---------------------------------------------------------------- smaps


@dataclass(slots=True)
class MemSize:
    """What smaps counts for a mapping (struct mem_size_stats): bytes, and bytes << 12 in the pss_ figures."""

    resident: int = 0
    shared_clean: int = 0
    shared_dirty: int = 0
    private_clean: int = 0
    private_dirty: int = 0
    referenced: int = 0
    anonymous: int = 0
    lazyfree: int = 0
    anonymous_thp: int = 0
    shmem_thp: int = 0
    file_thp: int = 0
    shared_hugetlb: int = 0
    private_hugetlb: int = 0
    swap: int = 0
    pss: int = 0
    pss_anon: int = 0
    pss_file: int = 0
    pss_shmem: int = 0
    pss_dirty: int = 0
    pss_locked: int = 0
    swap_pss: int = 0


_FIELDS = tuple(field.name for field in fields(MemSize))
_COLUMN = {name: column for column, name in enumerate(_FIELDS)}


def folio_heads(flags: np.ndarray, pfns: np.ndarray) -> np.ndarray:
    """First page frame of the allocated block that each page lies in (itself where there is none)."""
    heads = pfns.copy()
    todo = np.flatnonzero((flags[pfns] & int(Pg.ALLOCATED)) == 0)
    for order in range(1, 11):
        if not len(todo):
            break
        above = pfns[todo] & ~((1 << order) - 1)
        f = flags[above]
        found = ((f & int(Pg.ALLOCATED)) != 0) & (f >> _ORDER_SHIFT >= order)
        heads[todo[found]] = above[found]
        todo = todo[~found]
    return heads


def mapcounts(meta: np.ndarray, flags: np.ndarray, heads: np.ndarray, pfns: np.ndarray) -> np.ndarray:
    """How many page-table entries map each of `pfns`, mapped pages all (folio_precise_page_mapcount).

    A page with a single mapping keeps no count; a large folio keeps counts of small mappings by page, and one of PMDs that map it whole
    (mmcore.sys.thp says where). flags: those of the heads.
    """
    counts = meta["mapcount"][pfns].astype(np.int64)
    large = np.flatnonzero((flags >> _ORDER_SHIFT > 0) & (meta["mapcount"][heads] > 0))
    if len(large):
        head, pfn = heads[large], pfns[large]
        small = np.where(pfn == head, meta["index_lo"][head + 1], meta["mapcount"][pfn]).astype(np.int64)
        counts[large] = small + np.where(flags[large] >> _ORDER_SHIFT > 1, meta["index_lo"][head + 2], 0)
    return np.maximum(counts, 1)


def account(machine: Machine, entries: np.ndarray, *, locked: bool = False, hugetlb: bool = False) -> MemSize:
    """Count leaf page-table entries (uint64, x86-64 form; one for each page) as smaps does."""
    counts = np.zeros((1, len(_FIELDS)), np.int64)
    owner = np.zeros(len(entries), np.int64)
    _account(machine, entries, owner, counts, np.array([locked]), np.array([hugetlb]))
    return MemSize(*counts[0].tolist())


def _account(
    machine: Machine, entries: np.ndarray, owner: np.ndarray, counts: np.ndarray, locked: np.ndarray, hugetlb: np.ndarray
) -> None:
    """Add entries to the rows of `counts` (int64, columns _FIELDS) that `owner` names: a mapping each; locked, hugetlb: what it is."""
    nr = len(counts)

    def put(field: str, whose: np.ndarray, weight: np.ndarray | int = PAGE_SIZE) -> None:
        column = counts[:, _COLUMN[field]]
        if not len(whose):
            return
        if whose[0] == whose[-1]:  # owners ascend: all of one mapping
            column[whose[0]] += len(whose) * weight if isinstance(weight, int) else weight.sum()
        elif isinstance(weight, int):
            column += np.bincount(whose, minlength=nr) * weight
        else:  # sums of at most 2**20 numbers below 2**25: exact
            column += np.bincount(whose, weight, nr).astype(np.int64)

    mapped = (entries & np.uint64(_PRESENT | _PROTNONE)) != 0
    slots = machine.state.get("swap_slots")["count"]
    out = (entries != 0) & ~mapped & (entries >> np.uint64(12) <= len(slots)) & (entries >> np.uint64(12) > 0)
    swapped = owner[out]
    if len(swapped):
        users = slots[(entries[out] >> np.uint64(12)).astype(np.int64) - 1]
        put("swap", swapped)
        put("swap_pss", swapped, (PAGE_SIZE << PSS_SHIFT) // np.maximum(users, 1).astype(np.int64))
    # special entries (the zero pages) have no page
    pages = machine.pages
    pfns = ((entries & np.uint64(_FRAME_MASK)) >> np.uint64(12)).astype(np.int64)
    counted = mapped & ((entries & np.uint64(_SPECIAL)) == 0) & (pfns < len(pages))
    e, pfns, owner = entries[counted], pfns[counted], owner[counted]
    if not len(e):
        return
    all_flags = pages["flags"]
    heads = folio_heads(all_flags, pfns)
    flags = all_flags[heads]
    mapcount = mapcounts(machine.page_meta, flags, heads, pfns)
    shared = mapcount >= 2
    if hugetlb.any():
        large = hugetlb[owner]
        put("shared_hugetlb", owner[large & shared])
        put("private_hugetlb", owner[large & ~shared])
        e, flags, mapcount, shared, owner = e[~large], flags[~large], mapcount[~large], shared[~large], owner[~large]
    anon = (flags & (PG_ANON | PG_FILE)) == PG_ANON
    swapbacked = (flags & int(Pg.SWAPBACKED)) != 0
    dirty = ((e & np.uint64(_DIRTY | _SAVED_DIRTY)) != 0) | ((flags & int(Pg.DIRTY)) != 0)
    young = ((e & np.uint64(_ACCESSED)) != 0) | ((flags & int(Pg.REFERENCED)) != 0)
    huge = (e & np.uint64(_PSE)) != 0
    shmem = ~anon & swapbacked
    file = ~anon & ~swapbacked
    pss = (PAGE_SIZE << PSS_SHIFT) // mapcount
    put("resident", owner)
    put("pss", owner, pss)
    for field, which in {
        "shared_clean": shared & ~dirty, "shared_dirty": shared & dirty, "private_clean": ~shared & ~dirty,
        "private_dirty": ~shared & dirty, "referenced": young, "anonymous": anon, "lazyfree": anon & ~swapbacked & ~dirty,
        "anonymous_thp": huge & anon, "shmem_thp": huge & shmem, "file_thp": huge & file,
    }.items():  # fmt: skip
        put(field, owner[which])
    for field, which in {"anon": anon, "shmem": shmem, "file": file, "dirty": dirty, "locked": locked[owner]}.items():
        put(f"pss_{field}", owner[which], pss[which])


def populated(machine: Machine, mm: int) -> np.ndarray:
    """Ranges of page numbers below which page tables have anything: int64 array of rows (start, end), ascending, disjoint.

    So that a mapping of terabytes costs what is in it.
    """
    state = machine.state
    bits = int(state.vm_globals["pt_bits"][0])
    info = state.get("table_info")
    own = np.flatnonzero((info["mm"] == mm) & (info["level"] > 0))
    root = int(state.get("mms")[mm - 1]["root"])
    tables, starts, spans = state.get("tables"), [], []
    for slot in own.tolist():
        level = int(info[slot]["level"])
        if not info[slot]["parent"] and slot != root - 1:
            continue
        row = tables[slot]
        used = row != 0 if level == 1 else (row & np.uint64(_PRESENT | _PSE)) == np.uint64(_PRESENT | _PSE)
        at = np.flatnonzero(used)
        starts.append(int(info[slot]["base"]) + (at << (level * bits)))
        spans.append(np.full(len(at), 1 << (level * bits)))
    if not starts:
        return np.empty((0, 2), np.int64)
    start, span = np.concatenate(starts).astype(np.int64), np.concatenate(spans).astype(np.int64)
    order = np.argsort(start)
    start, end = start[order], start[order] + span[order]
    first = np.flatnonzero(np.concatenate(([True], start[1:] != end[:-1])))
    last = np.append(first[1:] - 1, len(start) - 1)
    return np.stack((start[first], end[last]), axis=1) if len(start) else np.empty((0, 2), np.int64)


def _pieces(vma: VmaView, ranges: np.ndarray) -> Iterator[tuple[int, int]]:
    """The parts of a VMA that page tables reach, as (first page number, pages)."""
    start, end = vma.start // PAGE_SIZE, vma.end // PAGE_SIZE
    at = int(np.searchsorted(ranges[:, 1], start, side="right"))
    while at < len(ranges) and ranges[at, 0] < end:
        low, high = max(int(ranges[at, 0]), start), min(int(ranges[at, 1]), end)
        for piece in range(low, high, CHUNK):
            yield piece, min(CHUNK, high - piece)
        at += 1


def gather(process: Process, vmas: Sequence[VmaView]) -> list[MemSize]:
    """What smaps counts for each of these VMAs."""
    from mmcore.vm import pgtable

    machine, ranges = process.machine, populated(process.machine, process.mm)
    counts = np.zeros((len(vmas), len(_FIELDS)), np.int64)
    locked = np.array([Vm.LOCKED in vma.flags for vma in vmas], bool)
    hugetlb = np.array([Vm.HUGETLB in vma.flags for vma in vmas], bool)
    found: list[np.ndarray] = []
    owners: list[int] = []
    held = 0

    def flush() -> None:
        if found:
            _account(machine, np.concatenate(found), np.repeat(owners, [len(part) for part in found]), counts, locked, hugetlb)
            found.clear()
            owners.clear()

    for i, vma in enumerate(vmas):
        for first, n in _pieces(vma, ranges) if vma.index >= 0 else ():
            if held + n > CHUNK:
                flush()
                held = 0
            found.append(np.asarray(pgtable.ptes(machine.state, process.mm, first, n)))
            owners.append(i)
            held += n
    flush()
    return [MemSize(*row) for row in counts.tolist()]


def thp_orders(machine: Machine) -> tuple[list[int], list[int]]:
    """Orders of huge pages that the settings allow: for a mapping without advice, and for one with MADV_HUGEPAGE."""
    g = machine.state.vm_globals[0]
    enabled = int(machine.state.globals["thp_enabled"][0])
    sizes = list(enumerate(g["thp_size"].tolist()))[2 : int(g["pt_bits"]) + 1]  # 0 never, 1 inherit, 2 madvise, 3 always
    plain = [order for order, size in sizes if size == 3 or (size == 1 and enabled == 2)]
    advised = [order for order, size in sizes if size >= 2 or (size == 1 and enabled in (1, 2))]
    return plain, advised


_NO_THP = int(Vm.NOHUGEPAGE | Vm.HUGETLB | Vm.PFNMAP | Vm.IO)
_HUGEPAGE = int(Vm.HUGEPAGE)


def thp_eligible(machine: Machine, vma: VmaView, orders: tuple[list[int], list[int]] | None = None) -> bool:
    """Whether huge pages of any size may come into an anonymous mapping (thp_vma_allowable_orders; files and shmem: never here)."""
    flags = int(vma.flags)
    if vma.file or vma.index < 0 or vma.name.startswith("[v") or flags & _NO_THP:
        return False
    allowed = (thp_orders(machine) if orders is None else orders)[bool(flags & _HUGEPAGE)]
    return any(vma.end // size * size - size >= vma.start for size in (PAGE_SIZE << order for order in allowed))


def _kb(label: str, kib: int) -> str:
    return f"{label + ':':<16}{kib:>8} kB\n"


def _lines(m: MemSize, kernel: str, rollup: bool) -> str:
    """The lines from Rss to Locked."""
    pss = {name: getattr(m, name) >> PSS_SHIFT + 10 for name in ("pss", "pss_dirty", "pss_anon", "pss_file", "pss_shmem")}
    rows = [("Rss", m.resident >> 10), ("Pss", pss["pss"]), ("Pss_Dirty", pss["pss_dirty"])]
    if rollup:
        rows += [("Pss_Anon", pss["pss_anon"]), ("Pss_File", pss["pss_file"]), ("Pss_Shmem", pss["pss_shmem"])]
    rows += [
        ("Shared_Clean", m.shared_clean >> 10), ("Shared_Dirty", m.shared_dirty >> 10), ("Private_Clean", m.private_clean >> 10),
        ("Private_Dirty", m.private_dirty >> 10), ("Referenced", m.referenced >> 10), ("Anonymous", m.anonymous >> 10),
    ]  # fmt: skip
    if kernel != "6.1":
        rows.append(("KSM", 0))
    rows += [
        ("LazyFree", m.lazyfree >> 10), ("AnonHugePages", m.anonymous_thp >> 10), ("ShmemPmdMapped", m.shmem_thp >> 10),
        ("FilePmdMapped", m.file_thp >> 10), ("Shared_Hugetlb", m.shared_hugetlb >> 10), ("Private_Hugetlb", m.private_hugetlb >> 10),
        ("Swap", m.swap >> 10), ("SwapPss", m.swap_pss >> PSS_SHIFT + 10), ("Locked", m.pss_locked >> PSS_SHIFT + 10),
    ]  # fmt: skip
    return "".join(_kb(label, kib) for label, kib in rows)


def write_smaps(process: Process) -> str:
    """The text of /proc/PID/smaps."""
    machine, vmas, out = process.machine, _listed(process), []
    orders = thp_orders(machine)
    for vma, size in zip(vmas, gather(process, vmas), strict=True):
        page_kib = HPAGE_KIB if Vm.HUGETLB in vma.flags else PAGE_SIZE // 1024
        eligible = int(thp_eligible(machine, vma, orders))
        out += [
            map_line(vma, machine.arch), "\n",
            _kb("Size", vma.size >> 10), _kb("KernelPageSize", page_kib), _kb("MMUPageSize", page_kib),
            _lines(size, machine.kernel, rollup=False),
            f"THPeligible:    {eligible:{'8' if machine.kernel != '6.1' else ''}d}\n",
            f"VmFlags: {vma_flags_text(int(vma.flags))}\n",
        ]  # fmt: skip
    return "".join(out)


def write_smaps_rollup(process: Process) -> str:
    """The text of /proc/PID/smaps_rollup: the sums over all VMAs."""
    vmas = process.vmas
    sizes = gather(process, vmas)
    total = MemSize(**{name: sum(getattr(size, name) for size in sizes) for name in _FIELDS})
    start, end = (vmas[0].start, vmas[-1].end) if vmas else (0, 0)
    head = map_line(VmaView(start, end, Vm(0), 0, 0, "[rollup]", -1, 0), process.machine.arch)
    return f"{head}\n{_lines(total, process.machine.kernel, rollup=True)}"


# ---------------------------------------------------------------- status, statm


def _rss(row: np.void) -> list[int]:
    return [max(int(n), 0) for n in row["rss"]]


def text_pages(process: Process, vmas: Sequence[VmaView]) -> int:
    """Pages of the program's own text: the first executable mapping of a file below the heap."""
    heap = int(process._row()["start_brk"])
    return next((v.nr_pages for v in vmas if Vm.EXEC in v.flags and v.file and v.end <= heap), 0)


def write_statm(process: Process) -> str:
    """The text of /proc/PID/statm, in pages: size, resident, shared, text, 0, data and stack, 0."""
    row = process._row()
    rss = _rss(row)
    shared = rss[Rss.FILE] + rss[Rss.SHMEM]
    data = int(row["data_vm"]) + int(row["stack_vm"])
    return f"{int(row['total_vm'])} {shared + rss[Rss.ANON]} {shared} {text_pages(process, process.vmas)} 0 {data} 0\n"


def _bitmap(n: int, width: int) -> str:
    """The lowest n of `width` bits set, as the kernel prints masks: groups of 32 bits, the first as short as it may be."""
    groups, rest = divmod(width, 32)
    digits = f"{(1 << n) - 1:0{groups * 8 + (rest + 3) // 4}x}"
    first = len(digits) % 8
    parts = ([digits[:first]] if first else []) + [digits[i : i + 8] for i in range(first, len(digits), 8)]
    return ",".join(parts)


def _list(n: int) -> str:
    return "0" if n == 1 else f"0-{n - 1}"


def write_status(process: Process) -> str:
    """The text of /proc/PID/status."""
    row, machine = process._row(), process.machine
    modern = machine.kernel != "6.1"
    rss, page_kib = _rss(row), PAGE_SIZE // 1024
    resident = rss[Rss.FILE] + rss[Rss.ANON] + rss[Rss.SHMEM]
    total, pid, ppid = int(row["total_vm"]), process.pid, process.ppid
    vmas = process.vmas
    text = min(text_pages(process, vmas), int(row["exec_vm"]))
    pools = gather(process, [vma for vma in vmas if Vm.HUGETLB in vma.flags])
    hugetlb = sum(size.shared_hugetlb + size.private_hugetlb for size in pools) >> 10
    memory = {
        "VmPeak": max(int(row["hiwater_vm"]), total) * page_kib,
        "VmSize": total * page_kib,
        "VmLck": int(row["locked_vm"]) * page_kib,
        "VmPin": 0,
        "VmHWM": max(int(row["hiwater_rss"]), resident) * page_kib,
        "VmRSS": resident * page_kib,
        "RssAnon": rss[Rss.ANON] * page_kib,
        "RssFile": rss[Rss.FILE] * page_kib,
        "RssShmem": rss[Rss.SHMEM] * page_kib,
        "VmData": int(row["data_vm"]) * page_kib,
        "VmStk": int(row["stack_vm"]) * page_kib,
        "VmExe": text * page_kib,
        "VmLib": (int(row["exec_vm"]) - text) * page_kib,
        "VmPTE": int(row["pgtables_bytes"]) >> 10,
        "VmSwap": rss[Rss.SWAP] * page_kib,
        "HugetlbPages": hugetlb,
    }
    zeros, caps = "0" * 16, f"{(1 << 41) - 1:016x}"
    limit = machine.totalram_pages * page_kib // 64
    before: dict[str, object] = {
        "Name": process.name, "Umask": "0022", "State": "S (sleeping)", "Tgid": pid, "Ngid": 0, "Pid": pid, "PPid": ppid, "TracerPid": 0,
        "Uid": "0\t0\t0\t0", "Gid": "0\t0\t0\t0", "FDSize": 64, "Groups": " ", "NStgid": pid, "NSpid": pid, "NSpgid": pid, "NSsid": pid,
    }  # fmt: skip
    if modern:
        before["Kthread"] = 0
    after: dict[str, object] = {"CoreDumping": 0, "THP_enabled": 1}
    if modern and machine.arch == "x86_64":
        after["untag_mask"] = f"{(1 << 64) - 1:#x}"
    after |= {
        "Threads": 1, "SigQ": f"0/{limit}", "SigPnd": zeros, "ShdPnd": zeros, "SigBlk": zeros, "SigIgn": zeros, "SigCgt": zeros,
        "CapInh": zeros, "CapPrm": caps, "CapEff": caps, "CapBnd": caps, "CapAmb": zeros, "NoNewPrivs": 0, "Seccomp": 0,
        "Seccomp_filters": 0, "Speculation_Store_Bypass": "vulnerable", "SpeculationIndirectBranch": "always enabled",
        "Cpus_allowed": _bitmap(machine.nr_cpus, machine.nr_cpus), "Cpus_allowed_list": _list(machine.nr_cpus),
        "Mems_allowed": _bitmap(machine.nr_nodes, MAX_NUMNODES[machine.arch]), "Mems_allowed_list": _list(machine.nr_nodes),
        "voluntary_ctxt_switches": 0, "nonvoluntary_ctxt_switches": 0,
    }  # fmt: skip
    return (
        "".join(f"{label}:\t{value}\n" for label, value in before.items())
        + "".join(f"{label}:\t{kib:>8} kB\n" for label, kib in memory.items())
        + "".join(f"{label}:\t{value}\n" for label, value in after.items())
    )
