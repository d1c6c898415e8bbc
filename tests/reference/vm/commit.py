"""Commit accounting: what is promised, and what may be.

Models: __vm_enough_memory, vm_commit_limit (mm/util.c), the boot values of the two reserves (mm/mmap.c, v6.12). Simplifies: the counter
is exact in every mode. Omits: nothing known.
"""

from .constants import ENOMEM, Failed

GUESS, ALWAYS, NEVER = 0, 1, 2


class Commit:
    """The machine's promises, in pages."""

    def __init__(self, ram_pages: int, swap_pages: int, sysctl: dict):
        self.ram_pages, self.swap_pages, self.sysctl = ram_pages, swap_pages, sysctl
        self.committed = 0
        self.hugetlb_pages = 0
        kilobytes = ram_pages * 4
        self.user_reserve = sysctl.get("user_reserve_kbytes", min(kilobytes // 32, 131072)) // 4
        self.admin_reserve = sysctl.get("admin_reserve_kbytes", min(kilobytes // 32, 8192)) // 4

    @property
    def mode(self) -> int:
        return self.sysctl.get("overcommit_memory", GUESS)

    @property
    def limit(self) -> int:
        if kilobytes := self.sysctl.get("overcommit_kbytes", 0):
            return kilobytes // 4 + self.swap_pages
        return (self.ram_pages - self.hugetlb_pages) * self.sysctl.get("overcommit_ratio", 50) // 100 + self.swap_pages

    def enough(self, mm, pages: int) -> bool:
        """Charge `pages`, or leave everything as it was and say no."""
        if self.mode == GUESS and pages > self.ram_pages + self.swap_pages:
            return False
        if self.mode == NEVER:
            allowed = self.limit - (0 if mm.privileged else self.admin_reserve) - min(mm.total_vm // 32, self.user_reserve)
            if not max(self.committed + pages, 0) < allowed:
                return False
        self.committed += pages
        return True

    def charge(self, mm, pages: int) -> None:
        if not self.enough(mm, pages):
            raise Failed(ENOMEM)

    def uncharge(self, pages: int) -> None:
        self.committed -= pages
