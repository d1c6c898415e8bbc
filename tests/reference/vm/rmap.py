"""Leaves come and go: mapcounts, RSS, mlocked pages, partially mapped folios.

Models: folio_add_*_rmap, folio_remove_rmap_ptes/_pmd, deferred_split_folio, mlock_folio, munlock_folio (mm/rmap.c, mm/mlock.c,
mm/huge_memory.c, v6.12). Simplifies: no batches of mlocked pages; a page without mapping and without file is gone. Omits: LRU lists.
"""

from .constants import HPAGE, VM_LOCKED, VM_SPECIAL
from .page import Folio, Page, Pmd, Pte


def mlock(machine, page: Page) -> None:
    """One more locked VMA shows the folio of `page`; the count stands in its first page."""
    first, pages = (page.folio.pages[0], len(page.folio.pages)) if page.large else (page, 1)
    if first.mlock_count == 0:
        machine.count("unevictable_pgs_mlocked", pages)
        machine.nr_mlock += pages
    first.mlock_count += 1


def munlock(machine, page: Page) -> None:
    first, pages = (page.folio.pages[0], len(page.folio.pages)) if page.large else (page, 1)
    if first.mlock_count == 0:
        return
    first.mlock_count -= 1
    if first.mlock_count == 0:
        machine.count("unevictable_pgs_munlocked", pages)
        machine.nr_mlock -= pages


def locks(vma) -> bool:
    return vma.flags & (VM_LOCKED | VM_SPECIAL) == VM_LOCKED


def add_pte(mm, vma, vpn: int, pte: Pte) -> None:
    """Install a leaf at PTE level; its table exists."""
    mm.ptes[vpn] = pte
    page = pte.page
    if page is None:
        return
    page.ptes.add((mm, vpn))
    mm.rss[page.kind] += 1
    if locks(vma) and not page.large:
        mlock(mm.machine, page)


def add_pmd(mm, vma, base: int, pmd: Pmd) -> None:
    """Install a huge leaf, with a PTE page deposited for a later split."""
    mm.pmds[base] = pmd
    mm.tables.deposited.add(base)
    if pmd.folio is None:
        return
    pmd.folio.pmds.add((mm, base))
    mm.rss["anon"] += HPAGE
    if locks(vma):
        mlock(mm.machine, pmd.folio.pages[0])


def defer_split(machine, folio: Folio) -> None:
    """The folio waits for the shrinker to give back its unmapped pages. Counted once in its life."""
    if folio.order <= 1 or folio.partially_mapped:
        return
    folio.partially_mapped = True
    if folio.order == 9:
        machine.count("thp_deferred_split_page")
    machine.count_mthp(folio.order, "split_deferred")


def runs(mm, vpns):
    """The mapped ones of `vpns` in lists: consecutive leaves of consecutive pages of one large folio go together."""
    run: list[int] = []
    for vpn in vpns:
        pte = mm.ptes.get(vpn)
        if pte is None:
            continue
        if run:
            last = mm.ptes[run[-1]]
            together = (
                vpn == run[-1] + 1
                and vpn % HPAGE
                and pte.page
                and last.page
                and pte.page.large
                and pte.page.folio is last.page.folio
                and pte.page.position == last.page.position + 1
                and pte.protnone == last.protnone
            )
            if not together:
                yield run
                run = []
        run.append(vpn)
    if run:
        yield run


def remove_ptes(mm, vma, vpns: list[int]) -> None:
    """Take away leaves that belong together (see runs)."""
    folio = None
    for vpn in vpns:
        pte = mm.ptes.pop(vpn)
        page = pte.page
        if page is None:
            continue
        if not page.is_anon and pte.dirty:
            page.dirty = True
        mm.rss[page.kind] -= 1
        page.ptes.discard((mm, vpn))
        if page.large:
            folio = page.folio
        elif vma.flags & VM_LOCKED:
            munlock(mm.machine, page)
    if folio:
        if vma.flags & VM_LOCKED:
            munlock(mm.machine, folio.pages[0])
        newly = 0 if folio.pmds else sum(not folio.pages[i].ptes for i in positions(folio, vma, vpns))
        if newly and folio.mapcount:
            defer_split(mm.machine, folio)


def positions(folio: Folio, vma, vpns: list[int]) -> list[int]:
    first = folio.pages[0].index
    return [vma.index_of(vpn) - first for vpn in vpns]


def remove_pmd(mm, vma, base: int) -> Pmd:
    """Take away a huge leaf. Its deposited table stays: to be freed or used by the caller."""
    pmd = mm.pmds.pop(base)
    folio = pmd.folio
    if folio:
        folio.pmds.discard((mm, base))
        mm.rss["anon"] -= HPAGE
        if vma.flags & VM_LOCKED:
            munlock(mm.machine, folio.pages[0])
        if 0 < folio.unmapped_pages() < HPAGE:
            defer_split(mm.machine, folio)
    return pmd
