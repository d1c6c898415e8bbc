"""Merging, splitting and changing VMAs.

Models: vma_merge_new_range, vma_merge_existing_range, vma_expand, vma_modify, split_vma, __split_vma (mm/vma.c, v6.12).
Simplifies: policies, userfaultfd contexts and names are the same everywhere. Omits: VMAs with close hooks (none is modelled).
"""

from . import anon_vma, huge
from .constants import EINVAL, ENOMEM, PAGE, VM_SOFTDIRTY, VM_SPECIAL, Failed
from .vma import Vma


def anon_vmas_compatible(one, two, neighbour: Vma | None) -> bool:
    """Equal, or one is missing and the neighbour was never linked to a parent's (its chain has exactly one element)."""
    if (not one or not two) and (neighbour is None or len(neighbour.chain) == 1):
        return True
    return one is two


def alike(vma: Vma, flags: int, file) -> bool:
    return not (vma.flags ^ flags) & ~VM_SOFTDIRTY and vma.file is file


def merge_sides(prev, following, start, end, pgoff, flags, file, own_anon_vma) -> tuple[bool, bool]:
    """Whether the range can join the VMA on its left and the one on its right."""
    if flags & VM_SPECIAL:
        return False, False
    left = bool(
        prev
        and prev.end == start
        and alike(prev, flags, file)
        and prev.pgoff + prev.pages == pgoff
        and anon_vmas_compatible(own_anon_vma, prev.anon_vma, prev)
    )
    right = bool(
        following
        and following.start == end
        and alike(following, flags, file)
        and following.pgoff == pgoff + (end - start) // PAGE
        and anon_vmas_compatible(own_anon_vma, following.anon_vma, following)
    )
    if left and right:
        right = anon_vmas_compatible(prev.anon_vma, following.anon_vma, None)
    return left, right


def drop(vma: Vma) -> None:
    """The VMA has been swallowed by a neighbour, pages and all."""
    anon_vma.unlink(vma)
    vma.mm.vmas.remove(vma)
    vma.mm.map_count -= 1
    if vma.file:
        vma.file.vmas.remove(vma)


def merge_new_range(mm, start, end, pgoff, flags, file=None, own_anon_vma=None, *, just_expand=False) -> Vma | None:
    """A range without a VMA joins its neighbours: the VMA that then holds it, or None."""
    prev = mm.vmas.before(start)
    following = None if just_expand else mm.vmas.find(start)
    left, right = merge_sides(prev, following, start, end, pgoff, flags, file, own_anon_vma)
    if left:
        if right:
            anon_vma.duplicate(prev, following)
            end = following.end
            drop(following)
        prev.end = end
        return prev
    if right:
        following.start, following.pgoff = start, pgoff
        return following
    return None


def merge_existing_range(vma: Vma, start: int, end: int, flags: int) -> Vma | None:
    """[start, end) of `vma` gets `flags` and joins a neighbour that has them: the VMA that then holds it, or None."""
    mm = vma.mm
    prev, following = mm.vmas.neighbours(vma)
    at_left, at_right = start == vma.start, end == vma.end
    if not (at_left or at_right):
        return None
    left, right = merge_sides(
        prev if at_left else None, following if at_right else None, start, end, vma.index_of(start // PAGE), flags, vma.file, vma.anon_vma
    )
    whole = at_left and at_right
    if left and right:
        anon_vma.duplicate(prev, following if following.anon_vma else vma)
        prev_end = following.end
        drop(vma)
        drop(following)
        prev.end = prev_end
        return prev
    if left:
        anon_vma.duplicate(prev, vma)
        if whole:
            drop(vma)
        else:
            huge.split_pmd_at(vma, end)
            vma.pgoff += (end - vma.start) // PAGE
            vma.start = end
        prev.end = end
        return prev
    if right:
        anon_vma.duplicate(following, vma)
        if whole:
            drop(vma)
        else:
            huge.split_pmd_at(vma, start)
            vma.end = start
        following.pgoff -= (following.start - start) // PAGE
        following.start = start
        return following
    return None


def split(vma: Vma, address: int, *, limited: bool = True) -> Vma:
    """Cut `vma` at `address`; returns the upper part. The lower one stays the same object."""
    mm = vma.mm
    if limited and mm.map_count >= mm.machine.max_map_count:
        raise Failed(ENOMEM)
    if vma.file and vma.file.kind == "hugetlb" and address % (512 * PAGE):
        raise Failed(EINVAL)
    huge.split_pmd_at(vma, address)
    upper = Vma(mm, address, vma.end, vma.flags, vma.index_of(address // PAGE), vma.file, vma.anon_vma, resv=vma.resv)
    anon_vma.clone(upper, vma)
    vma.end = address
    mm.insert(upper)
    return upper


def modify_flags(vma: Vma, start: int, end: int, flags: int) -> Vma:
    """[start, end) of `vma` gets `flags`, by a merge or by splits; returns the VMA that holds the range."""
    merged = merge_existing_range(vma, start, end, flags)
    if merged:
        return merged
    if vma.start < start:
        vma = split(vma, start)
    if vma.end > end:
        split(vma, end)
    vma.flags = flags
    return vma
