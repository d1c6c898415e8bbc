"""/proc/swaps.

Models: swap_show() (mm/swapfile.c, v6.12). Simplifies: nothing. Omits: the kernel's escapes for odd characters in names other than blanks.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

PAGE_KIB = 4
WIDTH = 40


class SwapLike(Protocol):
    """What a row shows of an area; sizes in bytes."""

    @property
    def name(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def used(self) -> int: ...
    @property
    def priority(self) -> int: ...
    @property
    def partition(self) -> bool: ...


def write_swaps(areas: Iterable[SwapLike]) -> str:
    """The text of /proc/swaps; without areas its header alone."""
    rows = ["Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"]
    for area in areas:
        name = area.name.replace("\\", "\\134").replace(" ", "\\040").replace("\t", "\\011").replace("\n", "\\012")
        size, used = area.size >> 10, area.used >> 10
        kind = "partition" if area.partition else "file\t"
        wide = [str(n) + ("\t" if n < 10_000_000 else "") for n in (size, used)]
        rows.append(f"{name}{' ' * max(1, WIDTH - len(name))}{kind}\t{wide[0]}\t{wide[1]}\t{area.priority}\n")
    return "".join(rows)
