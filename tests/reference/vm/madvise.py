"""madvise.

Models: do_madvise, madvise_walk_vmas, madvise_vma_behavior, madvise_dontneed_free, madvise_free_pte_range, madvise_free_huge_pmd
(mm/madvise.c), hugepage_madvise (mm/khugepaged.c, v6.12). Simplifies: COLD, PAGEOUT, WILLNEED and COLLAPSE only check. Omits: MERGEABLE,
hardware poison, REMOVE.
"""

from . import huge, merge, populate, zap
from .constants import (
    EAGAIN,
    EINVAL,
    ENOMEM,
    HPAGE,
    MADV_COLD,
    MADV_COLLAPSE,
    MADV_DODUMP,
    MADV_DOFORK,
    MADV_DONTDUMP,
    MADV_DONTFORK,
    MADV_DONTNEED,
    MADV_DONTNEED_LOCKED,
    MADV_FREE,
    MADV_HUGEPAGE,
    MADV_KEEPONFORK,
    MADV_NOHUGEPAGE,
    MADV_NORMAL,
    MADV_PAGEOUT,
    MADV_POPULATE_READ,
    MADV_POPULATE_WRITE,
    MADV_RANDOM,
    MADV_SEQUENTIAL,
    MADV_WILLNEED,
    MADV_WIPEONFORK,
    PAGE,
    PMD_SIZE,
    VM_DONTCOPY,
    VM_DONTDUMP,
    VM_HUGEPAGE,
    VM_HUGETLB,
    VM_LOCKED,
    VM_NOHUGEPAGE,
    VM_PFNMAP,
    VM_RAND_READ,
    VM_SEQ_READ,
    VM_SHARED,
    VM_WIPEONFORK,
    Failed,
    page_align,
)

# advice: (flags taken away, flags given)
FLAGS = {
    MADV_NORMAL: (VM_RAND_READ | VM_SEQ_READ, 0),
    MADV_RANDOM: (VM_SEQ_READ, VM_RAND_READ),
    MADV_SEQUENTIAL: (VM_RAND_READ, VM_SEQ_READ),
    MADV_DONTFORK: (0, VM_DONTCOPY),
    MADV_DOFORK: (VM_DONTCOPY, 0),
    MADV_WIPEONFORK: (0, VM_WIPEONFORK),
    MADV_KEEPONFORK: (VM_WIPEONFORK, 0),
    MADV_DONTDUMP: (0, VM_DONTDUMP),
    MADV_DODUMP: (VM_DONTDUMP, 0),
    MADV_HUGEPAGE: (VM_NOHUGEPAGE, VM_HUGEPAGE),
    MADV_NOHUGEPAGE: (VM_HUGEPAGE, VM_NOHUGEPAGE),
}
ON_PAGES = (MADV_DONTNEED, MADV_DONTNEED_LOCKED, MADV_FREE, MADV_COLD, MADV_PAGEOUT, MADV_WILLNEED, MADV_COLLAPSE)
POPULATE = (MADV_POPULATE_READ, MADV_POPULATE_WRITE)


def madvise(mm, start: int, length: int, advice: int) -> int:
    if (advice not in FLAGS and advice not in ON_PAGES + POPULATE) or start % PAGE or length < 0:
        raise Failed(EINVAL)
    end = start + page_align(length)
    if end == start:
        return 0
    if advice in POPULATE:
        populate.madvise_populate(mm, start, end, advice == MADV_POPULATE_WRITE)
        return 0
    holes = False
    while start < end:
        vma = mm.vmas.find(start)
        if vma is None or vma.start >= end:
            holes = True
            break
        if start < vma.start:
            holes, start = True, vma.start
        stop = min(end, vma.end)
        if advice in FLAGS:
            start = max(stop, set_flags(vma, start, stop, advice))
        else:
            on_pages(vma, start, stop, advice)
            start = stop
    if holes:
        raise Failed(ENOMEM)
    return 0


def set_flags(vma, start: int, end: int, advice: int) -> int:
    if advice == MADV_WIPEONFORK and (vma.file or vma.flags & VM_SHARED):
        raise Failed(EINVAL)
    away, given = FLAGS[advice]
    flags = vma.flags & ~away | given
    if flags == vma.flags:
        return vma.end
    try:
        return merge.modify_flags(vma, start, end, flags).end
    except Failed as failure:
        raise Failed(EAGAIN if failure.errno == ENOMEM else failure.errno) from None


def on_pages(vma, start: int, end: int, advice: int) -> None:
    if advice in (MADV_DONTNEED, MADV_DONTNEED_LOCKED, MADV_FREE):
        dontneed_free(vma, start, end, advice)
    elif advice in (MADV_COLD, MADV_PAGEOUT) and vma.flags & (VM_LOCKED | VM_PFNMAP | VM_HUGETLB):
        raise Failed(EINVAL)


def dontneed_free(vma, start: int, end: int, advice: int) -> None:
    if vma.flags & VM_HUGETLB:
        if advice == MADV_FREE or start % PMD_SIZE:
            raise Failed(EINVAL)
        end -= end % PMD_SIZE
    elif vma.flags & VM_PFNMAP or (vma.flags & VM_LOCKED and advice != MADV_DONTNEED_LOCKED):
        raise Failed(EINVAL)
    if advice == MADV_FREE:
        if not vma.is_anonymous:
            raise Failed(EINVAL)
        free(vma, start, end)
    elif start < end:
        zap.zap_range(vma, start, end)


def free(vma, start: int, end: int) -> None:
    """Pages of this process alone become clean and old, to be dropped by reclaim if they stay so."""
    mm = vma.mm
    for base in zap.huge_bases(mm, start, end):
        pmd = mm.pmds[base]
        if pmd.folio is None or huge.shared_folio(pmd.folio.pages[0]):
            continue
        elif start <= base * PAGE and (base + HPAGE) * PAGE <= end:
            pmd.dirty = pmd.young = False
            for page in pmd.folio.pages:
                page.lazyfree = True
        else:
            huge.split_folio(pmd.folio)
    for vpn in zap.mapped_vpns(mm, start, end):
        pte = mm.ptes[vpn]
        page = pte.page
        if page is None or not page.is_anon:
            continue
        if page.large and not covered(mm, vpn, start, end):
            if huge.shared_folio(page):
                continue
            huge.split_folio(page.folio)
        if page.folio.mapcount != len(page.folio.pages) if page.large else page.mapcount > 1:
            continue
        pte.dirty = pte.young = False
        page.lazyfree = True


def covered(mm, vpn: int, start: int, end: int) -> bool:
    """Whether the whole folio of the page at `vpn` is mapped within the range and one table, in order."""
    page = mm.ptes[vpn].page
    first, pages = vpn - page.position, page.folio.pages
    inside = start <= first * PAGE and (first + len(pages)) * PAGE <= end and first // HPAGE == (first + len(pages) - 1) // HPAGE
    return inside and all(mm.page_at(first + i) is other for i, other in enumerate(pages))
