"""Settings of transparent huge pages, under their names below /sys/kernel/mm/transparent_hugepage.

Models: mm/huge_memory.c and mm/khugepaged.c: enabled, defrag, use_zero_page, hugepages-NkB/enabled, khugepaged/*, with their ranges.
Simplifies: a setting's value is its word; text() gives the file's. Omits: shmem_enabled, shrink_underused, most statistics by size.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, MutableMapping
from typing import TYPE_CHECKING

from mmcore.phys.vm_defaults import THP_DEFRAG
from mmcore.sys import hugepages
from mmpy.config import as_int
from mmpy.sysctl import THP

if TYPE_CHECKING:
    from mmpy.machine import Machine

# The words of a file in the order in which it prints them, and by the number that the state keeps.
ENABLED = ("always", "madvise", "never")
DEFRAG = ("always", "defer", "defer+madvise", "madvise", "never")
SIZES = ("always", "inherit", "madvise", "never")
_SIZE_BY_NUMBER = ("never", "inherit", "madvise", "always")
_UINT_MAX = 2**32 - 1
# name: (field of vm_globals, lowest, highest, or None for a figure that can only be read)
_KHUGEPAGED = {
    "khugepaged/alloc_sleep_millisecs": ("khugepaged_alloc_sleep_ms", (0, _UINT_MAX)),
    "khugepaged/full_scans": ("khugepaged_full_scans", None),
    "khugepaged/max_ptes_none": ("khugepaged_max_ptes_none", (0, 511)),
    "khugepaged/max_ptes_shared": ("khugepaged_max_ptes_shared", (0, 511)),
    "khugepaged/max_ptes_swap": ("khugepaged_max_ptes_swap", (0, 511)),
    "khugepaged/pages_collapsed": ("khugepaged_pages_collapsed", None),
    "khugepaged/pages_to_scan": ("khugepaged_pages_to_scan", (1, _UINT_MAX)),
    "khugepaged/scan_sleep_millisecs": ("khugepaged_scan_sleep_ms", (0, _UINT_MAX)),
}
_SIZE = re.compile(r"hugepages-([1-9][0-9]{0,6})kB/(.+)")
# Counters by size, in the order in which the state keeps them.
_STATS = ("stats/anon_fault_alloc", "stats/anon_fault_fallback", "stats/split_deferred", "stats/nr_anon")


class ThpView(MutableMapping[str, object]):
    """machine.thp["enabled"] = "madvise"; machine.thp["hugepages-64kB/enabled"] = "always"; machine.thp["khugepaged/pages_to_scan"].

    Words and numbers, as one writes them to the files; text(name) is what a file holds.
    """

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    @property
    def _orders(self) -> range:
        """Orders with a setting of their own: from 4 pages to a page of the PMD level (6.1: none)."""
        pmd = int(self._machine.state.vm_globals["pt_bits"][0])
        return range(2, pmd + 1) if self._machine.kernel != "6.1" else range(0)

    def _size(self, name: str) -> tuple[int, str]:
        """Order and file of a name below hugepages-NkB; (0, "") for any other name."""
        match = _SIZE.fullmatch(name) if isinstance(name, str) else None
        if match is None:
            return 0, ""
        order = (int(match[1]) // 4).bit_length() - 1
        known = order in self._orders and int(match[1]) == 4 << order and match[2] in ("enabled", *_STATS)
        return (order, match[2]) if known else (0, "")

    def __iter__(self) -> Iterator[str]:
        yield from ("enabled", "defrag", "use_zero_page", "hpage_pmd_size")
        yield from (f"hugepages-{4 << order}kB/{file}" for order in self._orders for file in ("enabled", *_STATS))
        yield from sorted(_KHUGEPAGED)

    def __len__(self) -> int:
        return 4 + len(self._orders) * (1 + len(_STATS)) + len(_KHUGEPAGED)

    def __getitem__(self, name: str) -> object:
        g = self._machine.state.vm_globals[0]
        if name == "enabled":
            return self._machine.sysctl[THP]
        if name == "defrag":
            return THP_DEFRAG[int(g["thp_defrag"])]
        if name == "use_zero_page":
            return int(g["thp_use_zero_page"])
        if name == "hpage_pmd_size":
            return 4096 << int(g["pt_bits"])
        if name in _KHUGEPAGED:
            return int(g[_KHUGEPAGED[name][0]])
        order, file = self._size(name)
        if file == "enabled":
            return _SIZE_BY_NUMBER[int(g["thp_size"][order])]
        if file:
            return int(g["mthp"][order * len(_STATS) + _STATS.index(file)])
        raise KeyError(f"no setting {name!r} of transparent huge pages; there are {', '.join(self)}")

    def __setitem__(self, name: str, value: object) -> None:
        self[name]  # KeyError for what does not exist
        g = self._machine.state.vm_globals
        if name == "enabled":
            self._machine.sysctl[THP] = _word(name, value, ENABLED)
        elif name == "defrag":
            g["thp_defrag"] = THP_DEFRAG.index(_word(name, value, DEFRAG))
        elif name == "use_zero_page":
            g["thp_use_zero_page"] = _number(name, value, (0, 1))
        elif name.endswith("/enabled"):
            g["thp_size"][0, self._size(name)[0]] = _SIZE_BY_NUMBER.index(_word(name, value, SIZES))
            # what a fault looks at first: whether any size below the PMD's may be used at all
            g["mthp_on"] = g["thp_size"][0, : int(g["pt_bits"][0])].any()
        else:
            # a counter, a constant, or one of khugepaged's
            field, limits = _KHUGEPAGED.get(name, ("", None))
            if limits is None:
                raise ValueError(f"{name} can only be read")
            g[field] = _number(name, value, limits)

    def __delitem__(self, name: str) -> None:
        raise TypeError("a setting cannot be removed")

    def scan(self, *, cpu: int = 0) -> int:
        """Wake khugepaged up once, whatever its sleep: how many huge pages it made."""
        return hugepages.khugepaged_scan(self._machine.state, cpu)

    def shrink_deferred(self, nr: int, *, cpu: int = 0) -> int:
        """Let the shrinker look at up to nr folios that wait to be split, as under memory pressure: how many it split."""
        return hugepages.deferred_split_scan(self._machine.state, nr, cpu)

    @property
    def nr_deferred(self) -> int:
        """Folios that wait to be split, or were never looked at."""
        return int(self._machine.state.vm_globals["deferred_nr"][0])

    def text(self, name: str) -> str:
        """What the file of this name holds: "always [madvise] never\\n", or a number."""
        value = self[name]
        words = {"enabled": ENABLED, "defrag": DEFRAG}.get(name, SIZES if name.endswith("/enabled") else None)
        if words is None:
            return f"{value}\n"
        return " ".join(f"[{word}]" if word == value else word for word in words) + "\n"

    def __repr__(self) -> str:
        return f"ThpView({dict(self)})"


def _word(name: str, value: object, words: tuple[str, ...]) -> str:
    word = value.strip() if isinstance(value, str) else value
    if word not in words:
        raise ValueError(f"{name} cannot be {value!r}; it must be one of {', '.join(words)}")
    return str(word)


def _number(name: str, value: object, limits: tuple[int, int]) -> int:
    if isinstance(value, str):
        if not value.strip().isdecimal():
            raise ValueError(f"{name} takes a whole number, not {value!r}")
        number = int(value)
    else:
        number = int(value) if isinstance(value, bool) and limits == (0, 1) else as_int(value, name)
    if not limits[0] <= number <= limits[1]:
        raise ValueError(f"{name} cannot be {value!r}; it must lie in {limits[0]}..{limits[1]}")
    return number
