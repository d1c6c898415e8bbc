"""Taking away the leaves of a range; files that lose their last mapping.

Models: zap_page_range_single, unmap_page_range, zap_huge_pmd (mm/memory.c, mm/huge_memory.c, v6.12). Simplifies: no gather: nothing is
delayed. Omits: TLB flushes.
"""

from . import huge, hugetlb, rmap
from .constants import HPAGE, PAGE


def mapped_vpns(mm, start: int, end: int) -> list[int]:
    """Where PTEs are within the byte range, ascending; through whichever is smaller."""
    first, last = start // PAGE, end // PAGE
    if last - first < len(mm.ptes):
        return [vpn for vpn in range(first, last) if vpn in mm.ptes]
    return sorted(vpn for vpn in mm.ptes if first <= vpn < last)


def huge_bases(mm, start: int, end: int) -> list[int]:
    """First vpns of the PMD leaves that touch the byte range."""
    return sorted(base for base in mm.pmds if base * PAGE < end and start < (base + HPAGE) * PAGE)


def zap_range(vma, start: int, end: int) -> None:
    """No leaf of `vma` within [start, end) stays. A huge one that is partly covered is split."""
    mm = vma.mm
    start, end = max(start, vma.start), min(end, vma.end)
    if vma.file and vma.file.kind == "hugetlb":
        hugetlb.unmap(vma, start, end)
        return
    for base in huge_bases(mm, start, end):
        if start <= base * PAGE and (base + HPAGE) * PAGE <= end:
            rmap.remove_pmd(mm, vma, base)
            mm.tables.deposited.discard(base)
        else:
            huge.split_pmd(vma, base)
    for run in list(rmap.runs(mm, mapped_vpns(mm, start, end))):
        rmap.remove_ptes(mm, vma, run)


def put_file(machine, file) -> None:
    """A file without a name goes with its last mapping, and its commit charge with it."""
    if not file.unlinked or file.vmas:
        return
    machine.commit.uncharge(file.charged)
    file.charged = 0
    if file.kind == "hugetlb":
        hugetlb.release_file(machine.hugetlb, file)
    file.cached.clear()
