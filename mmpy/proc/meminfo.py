"""/proc/meminfo: reading, writing, and the figures that it derives from a machine's counters.

Models: meminfo_proc_show() (fs/proc/meminfo.c) and si_mem_available() (mm/show_mem.c), v6.12 and v6.1; without CMA.
Simplifies: buffers are part of Cached, as no block devices are modelled. Omits: what no room models yet
(per-CPU areas, the direct map): 0 unless the caller gives it.
"""

import re
from collections.abc import Iterable, Mapping

from mmpy.kernel_mappings import vmalloc_total_kib, vmalloc_used_kib
from mmpy.proc.lines import Lines
from mmpy.proc.protocol import MachineLike, ZoneLike

PAGE_KIB = 4
HPAGE_KIB = 2048
# Size of the vmalloc area where no machine of ours tells: a constant of 64-bit builds.
VMALLOC_TOTAL_KIB = {"x86_64": 34359738367, "i386": 122880}

_COUNTS = frozenset({"HugePages_Total", "HugePages_Free", "HugePages_Rsvd", "HugePages_Surp"})
_NARROW = _COUNTS | {"HardwareCorrupted"}
_ROW = re.compile(r"([A-Za-z][A-Za-z0-9_()]*):\s+(\S+)(?:\s+kB)?")


def parse_meminfo(text: str) -> dict[str, int]:
    """Read a /proc/meminfo: kB (huge pages: numbers) by label, in the order of the text.

    Raises ProcFormatError for malformed lines and for labels that appear twice.
    """
    lines = Lines("meminfo", text)
    values: dict[str, int] = {}
    while lines.line is not None or not values:
        match = _ROW.fullmatch(lines.line or "")
        if match is None:
            lines.fail("'Label: N kB'")
        if match[1] in values:
            lines.fail(f"{match[1]} once, not twice")
        values[match[1]] = lines.number_of(match[2], match[1])
        lines.advance()
    return values


def format_meminfo(values: Mapping[str, int]) -> str:
    """Labels and numbers, in the order of `values`, as lines of /proc/meminfo."""
    return "".join(
        (f"{label + ':':<19}{value:>5}" if label in _NARROW else f"{label + ':':<16}{value:>8}")
        + ("\n" if label in _COUNTS else " kB\n")
        for label, value in values.items()
    )


def mem_available(free: int, totalreserve: int, file_lru: int, reclaimable: int, low_sum: int) -> int:
    """Pages that programs could still use without swapping (MemAvailable).

    free: NR_FREE_PAGES; file_lru: active and inactive file pages; reclaimable: slab and other kernel memory that
    shrinkers free; low_sum: low watermarks of all zones, also empty ones. Half of each cache, or as much as the
    low watermarks, counts as not to be had.
    """
    available = free - totalreserve
    for cache in (file_lru, reclaimable):
        available += cache - min(cache // 2, low_sum)
    return max(0, available)


def commit_limit(totalram: int, swap: int = 0, *, ratio: int = 50, kbytes: int = 0, hugetlb_pages: int = 0) -> int:
    """Pages that vm.overcommit_memory = 2 lets programs commit (vm_commit_limit()): by vm.overcommit_kbytes, if set, or by ratio."""
    part = kbytes // PAGE_KIB if kbytes else (totalram - hugetlb_pages) * ratio // 100
    return part + swap


def _highmem(zones: Iterable[ZoneLike], arch: str) -> list[ZoneLike]:
    # ZONE_MOVABLE is taken from the highest zone, so on a machine with HighMem it is high memory too.
    populated = [zone for zone in zones if zone.present]
    if arch != "i386":
        return []
    if not any(zone.name == "HighMem" for zone in populated):
        return []
    return [zone for zone in populated if zone.name in ("HighMem", "Movable")]


def meminfo_values(machine: MachineLike, rest: Mapping[str, int] | None = None) -> dict[str, int]:
    """The numbers of /proc/meminfo by label, in order. `rest` (kB by label) sets or overrides single lines."""
    stat, zones = machine.vmstat, list(machine.zones)
    kib = {name: value * PAGE_KIB for name, value in stat.items()}
    given = dict(rest or {})
    state = getattr(machine, "state", None)

    file_lru = stat["nr_active_file"] + stat["nr_inactive_file"]
    reclaimable = stat["nr_slab_reclaimable"] + stat["nr_kernel_misc_reclaimable"]
    available = mem_available(
        stat["nr_free_pages"],
        machine.totalreserve_pages,
        file_lru,
        reclaimable,
        sum(zone.low for zone in zones),
    )
    total = sum(zone.managed for zone in zones)
    swap_total, buffers = given.get("SwapTotal", getattr(machine, "total_swap_pages", 0) * PAGE_KIB), given.get("Buffers", 0)
    commit: Mapping[str, int] = getattr(machine, "commit", {})
    hugetlb, pool = commit.get("hugetlb_pages", 0), getattr(machine, "hugetlb_pool", (0, 0, 0, 0))
    values = {
        "MemTotal": total * PAGE_KIB,
        "MemFree": kib["nr_free_pages"],
        "MemAvailable": available * PAGE_KIB,
        "Buffers": buffers,
        "Cached": max(0, kib["nr_file_pages"] - kib["nr_swapcached"] - buffers),
        "SwapCached": kib["nr_swapcached"],
        "Active": kib["nr_active_anon"] + kib["nr_active_file"],
        "Inactive": kib["nr_inactive_anon"] + kib["nr_inactive_file"],
        "Active(anon)": kib["nr_active_anon"],
        "Inactive(anon)": kib["nr_inactive_anon"],
        "Active(file)": kib["nr_active_file"],
        "Inactive(file)": kib["nr_inactive_file"],
        "Unevictable": kib["nr_unevictable"],
        "Mlocked": kib["nr_mlock"],
    }
    if machine.arch == "i386":
        high = _highmem(zones, machine.arch)
        high_total = sum(zone.managed for zone in high) * PAGE_KIB
        high_free = sum(zone.nr_free_pages for zone in high) * PAGE_KIB
        values |= {
            "HighTotal": high_total,
            "HighFree": high_free,
            "LowTotal": values["MemTotal"] - high_total,
            "LowFree": values["MemFree"] - high_free,
        }
    values |= {
        "SwapTotal": swap_total,
        "SwapFree": getattr(machine, "free_swap_pages", 0) * PAGE_KIB if "SwapTotal" not in given else swap_total,
        "Zswap": 0,
        "Zswapped": 0,
        "Dirty": kib["nr_dirty"],
        "Writeback": kib["nr_writeback"],
        "AnonPages": kib["nr_anon_pages"],
        "Mapped": kib["nr_mapped"],
        "Shmem": kib["nr_shmem"],
        "KReclaimable": reclaimable * PAGE_KIB,
        "Slab": kib["nr_slab_reclaimable"] + kib["nr_slab_unreclaimable"],
        "SReclaimable": kib["nr_slab_reclaimable"],
        "SUnreclaim": kib["nr_slab_unreclaimable"],
        "KernelStack": stat["nr_kernel_stack"],
        "PageTables": kib["nr_page_table_pages"],
        "SecPageTables": kib["nr_sec_page_table_pages"],
        "NFS_Unstable": 0,
        "Bounce": kib["nr_bounce"],
        "WritebackTmp": kib["nr_writeback_temp"],
        "CommitLimit": commit_limit(total, swap_total // PAGE_KIB, **commit) * PAGE_KIB,
        "Committed_AS": max(0, getattr(machine, "committed_as", 0)) * PAGE_KIB,
        "VmallocTotal": VMALLOC_TOTAL_KIB[machine.arch] if state is None else vmalloc_total_kib(state),
        "VmallocUsed": 0 if state is None else vmalloc_used_kib(state),
        "VmallocChunk": 0,
        "Percpu": 0,
        "HardwareCorrupted": 0,
        "AnonHugePages": stat["nr_anon_transparent_hugepages"] * HPAGE_KIB,
        "ShmemHugePages": stat["nr_shmem_hugepages"] * HPAGE_KIB,
        "ShmemPmdMapped": stat["nr_shmem_pmdmapped"] * HPAGE_KIB,
        "FileHugePages": stat["nr_file_hugepages"] * HPAGE_KIB,
        "FilePmdMapped": stat["nr_file_pmdmapped"] * HPAGE_KIB,
    }
    if machine.kernel == "6.12" and machine.arch == "x86_64":
        values["Unaccepted"] = kib["nr_unaccepted"]
    values |= {
        "HugePages_Total": pool[0],
        "HugePages_Free": pool[1],
        "HugePages_Rsvd": pool[2],
        "HugePages_Surp": pool[3],
        "Hugepagesize": HPAGE_KIB,
        "Hugetlb": hugetlb * PAGE_KIB,
        "DirectMap4k": 0,
        "DirectMap2M": 0,
    }
    if unknown := given.keys() - values.keys():
        raise ValueError(f"/proc/meminfo of this machine has no line {', '.join(sorted(unknown))}")
    return values | given


def write_meminfo(machine: MachineLike, rest: Mapping[str, int] | None = None) -> str:
    """The text of /proc/meminfo. `rest`: kB by label for what the machine does not model."""
    return format_meminfo(meminfo_values(machine, rest))
