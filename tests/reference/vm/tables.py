"""Which page-table pages an address space has.

Models: allocation top-down, free_pgtables and its rule of neighbours (mm/memory.c, v6.12), deposited PTE pages. Simplifies: a table is
(level, first vpn): level 0 holds PTEs and translates 512 pages, level 1 PMDs, 2 PUDs, 3 (with five levels) P4Ds. The top table is
not in the set, since VmPTE has not it either. Omits: nothing known.
"""

from .constants import PAGE


def span(level: int) -> int:
    """Pages that one table of this level translates."""
    return 512 << 9 * level


class Tables:
    """The tables below the top one."""

    def __init__(self, levels: int):
        self.top = levels - 2  # highest level in the set
        self.set: set[tuple[int, int]] = set()
        self.deposited: set[int] = set()  # first vpn of huge mappings that keep a PTE page in reserve

    @staticmethod
    def key(level: int, vpn: int) -> tuple[int, int]:
        return level, vpn // span(level) * span(level)

    def has(self, level: int, vpn: int) -> bool:
        return self.key(level, vpn) in self.set

    def alloc(self, vpn: int, lowest: int) -> None:
        """The tables from the top down to level `lowest` that translate `vpn`."""
        for level in range(lowest, self.top + 1):
            self.set.add(self.key(level, vpn))

    @property
    def bytes(self) -> int:
        return PAGE * (len(self.set) + len(self.deposited))

    def free_range(self, start: int, end: int, floor: int, ceiling: int | None) -> None:
        """Free what translates something of [start, end) and lies wholly between `floor` and `ceiling` (vpns).

        These are the end of the VMA before and the start of the VMA behind (None: there is none).
        """
        for level, base in list(self.set):
            last = base + span(level)
            if base < end and start < last and floor <= base and (ceiling is None or last <= ceiling):
                self.set.discard((level, base))

    def copy_range(self, source: "Tables", start: int, end: int) -> None:
        """fork: a table for each one that the parent has over [start, end), full or empty."""
        for level, base in source.set:
            if base < end and start < base + span(level):
                self.set.add((level, base))

    def move(self, level: int, old_vpn: int, new_vpn: int) -> None:
        """A whole table goes to another place (mremap)."""
        self.set.discard(self.key(level, old_vpn))
        self.set.add(self.key(level, new_vpn))
