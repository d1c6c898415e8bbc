"""Pages without frame numbers, folios, files, and the entries that map them.

Models: mapcounts of small and large folios, the partially-mapped rule (mm/rmap.c: __folio_remove_rmap, v6.12), the page cache as a
set of indexes. Simplifies: references are mappings and the page cache, nothing else; unlimited memory. Omits: LRU, swap, frames.
"""

from dataclasses import dataclass, field
from itertools import count

serial = count(1)


@dataclass(eq=False)
class Page:
    """A small page, or one page of a large folio."""

    kind: str  # anon, file, shmem, hugetlb
    index: int
    folio: "Folio | None" = None
    anon_vma: object = None
    file: object = None
    exclusive: bool = False
    lazyfree: bool = False
    dirty: bool = False
    mlock_count: int = 0
    ptes: set = field(default_factory=set)  # (mm, vpn)
    id: int = field(default_factory=lambda: next(serial))

    @property
    def is_anon(self) -> bool:
        return self.kind == "anon"

    @property
    def large(self) -> bool:
        return self.folio is not None and self.folio.order > 0

    @property
    def position(self) -> int:
        return self.index - self.folio.pages[0].index if self.folio else 0

    @property
    def mapcount(self) -> int:
        return len(self.ptes) + (len(self.folio.pmds) if self.folio else 0)

    def mappers(self) -> set:
        """Every (mm, vpn) that shows this page, by a PTE or through a PMD."""
        if not self.folio:
            return set(self.ptes)
        return self.ptes | {(mm, vpn + self.position) for mm, vpn in self.folio.pmds}


class Folio:
    """A large folio: its pages, and the PMDs that map it whole: (mm, first vpn)."""

    def __init__(self, kind: str, order: int, index: int):
        self.order = order
        self.pages = [Page(kind, index + i, self) for i in range(1 << order)]
        self.pmds: set = set()
        self.partially_mapped = False
        self.id = next(serial)

    @property
    def mapcount(self) -> int:
        return len(self.pmds) + sum(len(page.ptes) for page in self.pages)

    def unmapped_pages(self) -> int:
        return 0 if self.pmds else sum(not page.ptes for page in self.pages)


@dataclass(eq=False)
class Pte:
    """A leaf at PTE level. page None: the shared zero page."""

    page: Page | None
    writable: bool = False
    dirty: bool = False
    young: bool = True
    protnone: bool = False

    @property
    def kind(self) -> str:
        return self.page.kind if self.page else "zero"


@dataclass(eq=False)
class Pmd:
    """A leaf at PMD level. folio None: the huge zero page."""

    folio: Folio | None
    writable: bool = False
    dirty: bool = False
    young: bool = True
    protnone: bool = False

    @property
    def kind(self) -> str:
        if not self.folio:
            return "huge_zero"
        return "hugetlb" if self.folio.pages[0].kind == "hugetlb" else "huge_anon"


@dataclass(eq=False)
class File:
    """Something to map. `cached`: index -> Page; `present` are indexes that the page cache holds without a Page made for it yet.

    kind "file" tracks dirty pages (a write fault per page), "ram" does not (ramfs), "shmem" neither (tmpfs, shared anonymous),
    "hugetlb" stands for a hugetlbfs file. `charged`: pages of commit charge that go with the file.
    """

    name: str
    size: int
    kind: str = "file"
    cached: dict = field(default_factory=dict)
    present: set = field(default_factory=set)
    writable: bool = True
    unlinked: bool = False
    charged: int = 0
    noreserve: bool = False
    reserved: set = field(default_factory=set)  # hugetlb: reserved file ranges, by page
    vmas: list = field(default_factory=list)

    @property
    def nr_pages(self) -> int:
        return -(-self.size // 4096)

    @property
    def tracks_dirty(self) -> bool:
        return self.kind == "file"

    def page(self, index: int) -> Page | None:
        """The cached page, or None."""
        if index in self.present:
            self.present.remove(index)
            self.add(index)
        return self.cached.get(index)

    def add(self, index: int) -> Page:
        kind = "shmem" if self.kind == "shmem" else "file"
        self.cached[index] = Page(kind, index, file=self)
        return self.cached[index]

    def cached_indexes(self) -> list[int]:
        return sorted(self.present | set(self.cached))
