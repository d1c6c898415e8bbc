"""/proc/vmstat: reading and writing, and the dirty thresholds that it prints.

Models: vmstat_show() (mm/vmstat.c); global_dirtyable_memory() and domain_dirty_limits() for the whole machine
(mm/page-writeback.c). Simplifies: dirty limits by ratio, not by bytes. Omits: per-group writeback.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Protocol

from mmcore.base.vmstat_names import CONSTANT_LINE, vmstat_names
from mmpy.proc.lines import Lines

_PAGE_SIZE = 4096
_ROW = re.compile(r"([A-Za-z_][A-Za-z0-9_.-]*)\s+(\S+)")


def parse_vmstat(text: str) -> dict[str, int]:
    """Read a /proc/vmstat (or a nodeN/vmstat of sysfs): counters by name, in the order of the text.

    Raises ProcFormatError for malformed lines and for names that appear twice.
    """
    lines = Lines("vmstat", text)
    values: dict[str, int] = {}
    while lines.line is not None or not values:
        match = _ROW.fullmatch(lines.line or "")
        if match is None:
            lines.fail("'NAME N'")
        if match[1] in values:
            lines.fail(f"{match[1]} once, not twice")
        values[match[1]] = lines.number_of(match[2], match[1])
        lines.advance()
    return values


def format_vmstat(values: Mapping[str, int]) -> str:
    """Counters, in the order of `values`, as lines of /proc/vmstat."""
    return "".join(f"{name} {value}\n" for name, value in values.items())


def write_vmstat(values: Mapping[str, int], arch: str, kernel: str) -> str:
    """The text of /proc/vmstat: all counters of the kernel in its order. `values` are as printed (see Machine.vmstat)."""
    names = vmstat_names(arch, kernel)
    return format_vmstat({**{name: values[name] for name in names}, CONSTANT_LINE: 0})


class DirtyableZone(Protocol):
    """What the dirty thresholds need of a zone."""

    @property
    def name(self) -> str: ...
    @property
    def present(self) -> int: ...
    @property
    def high(self) -> int: ...
    @property
    def vm_stat(self) -> Mapping[str, int]: ...


def dirtyable_pages(zones: Iterable[DirtyableZone], totalreserve_pages: int) -> int:
    """Pages that may hold dirty file data: free ones above the reserves, and those of the file LRU lists.

    Of highmem zones nothing counts (vm.highmem_is_dirtyable is 0), but the reserves are taken off first.
    """
    free = lru = highmem = 0
    for zone in zones:
        counters = zone.vm_stat
        file_lru = counters["nr_zone_inactive_file"] + counters["nr_zone_active_file"]
        free += counters["nr_free_pages"]
        lru += file_lru
        if zone.name == "HighMem" and zone.present:
            highmem += max(0, counters["nr_free_pages"] - zone.high) + file_lru
    pages = max(0, free - totalreserve_pages) + lru
    return pages - min(highmem, pages) + 1


def dirty_thresholds(dirtyable: int, ratio: int = 20, background_ratio: int = 10) -> tuple[int, int]:
    """(nr_dirty_threshold, nr_dirty_background_threshold) in pages, from vm.dirty_ratio and its background part."""
    threshold, background = (
        ratio_percent * _PAGE_SIZE // 100 * dirtyable // _PAGE_SIZE for ratio_percent in (ratio, background_ratio)
    )
    return threshold, threshold // 2 if background >= threshold else background
