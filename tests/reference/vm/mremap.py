"""mremap: shrink, grow in place, move.

Models: SYSCALL mremap, mremap_to, vma_to_resize, move_vma, copy_vma, move_page_tables, move_ptes (mm/mremap.c, mm/vma.c, v6.12).
Simplifies: hugetlb mappings cannot be moved or resized. Omits: the failure paths of moving tables.
"""

from . import anon_vma, huge, merge, mmap, populate
from .constants import (
    EAGAIN,
    EFAULT,
    EINVAL,
    ENOMEM,
    HPAGE,
    MAP_FIXED,
    MAP_SHARED,
    MREMAP_DONTUNMAP,
    MREMAP_FIXED,
    MREMAP_MAYMOVE,
    PAGE,
    PMD_SIZE,
    VM_ACCOUNT,
    VM_DONTEXPAND,
    VM_LOCKED,
    VM_LOCKED_MASK,
    VM_MAYSHARE,
    VM_PFNMAP,
    VM_SHARED,
    Failed,
    align_down,
    page_align,
)
from .tables import span
from .vma import Vma, get_unmapped_area

KNOWN = MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP


def mremap(mm, address: int, old: int, new: int, flags: int, new_address: int) -> int:
    if flags & ~KNOWN or address % PAGE:
        raise Failed(EINVAL)
    if flags & MREMAP_FIXED and not flags & MREMAP_MAYMOVE:
        raise Failed(EINVAL)
    if flags & MREMAP_DONTUNMAP and (not flags & MREMAP_MAYMOVE or old != new):
        raise Failed(EINVAL)
    old, new = page_align(old), page_align(new)
    if not new:
        raise Failed(EINVAL)
    vma = mm.vmas.lookup(address)
    if vma is None:
        raise Failed(EFAULT)
    if vma.file and vma.file.kind == "hugetlb":
        raise Failed(EINVAL)
    if flags & (MREMAP_FIXED | MREMAP_DONTUNMAP):
        return mremap_to(mm, address, old, new, flags, new_address)
    if old == new:
        return address
    if old > new:
        mmap.munmap(mm, address + new, old - new)
        return address
    vma = vma_to_resize(mm, address, old, new, flags)
    if old == vma.end - address and expandable(vma, new - old):
        grow_in_place(vma, new - old)
        if vma.flags & VM_LOCKED:
            populate.populate(mm, address + old, address + new, ignore_errors=True)
        return address
    if not flags & MREMAP_MAYMOVE:
        raise Failed(ENOMEM)
    shared = MAP_SHARED if vma.flags & VM_MAYSHARE else 0
    target = get_unmapped_area(mm, 0, new, shared, vma.file)
    return move_vma(vma, address, old, new, target, flags)


def mremap_to(mm, address: int, old: int, new: int, flags: int, new_address: int) -> int:
    if new_address % PAGE or new > mm.task_size or new_address > mm.task_size - new:
        raise Failed(EINVAL)
    if address + old > new_address and new_address + new > address:
        raise Failed(EINVAL)
    if mm.map_count + 2 >= mm.machine.max_map_count - 3:
        raise Failed(ENOMEM)
    if flags & MREMAP_FIXED:
        mmap.munmap(mm, new_address, new)
    if old > new:
        mmap.munmap(mm, address + new, old - new)
        old = new
    vma = vma_to_resize(mm, address, old, new, flags)
    if flags & MREMAP_DONTUNMAP and not mm.may_expand(vma.flags, old // PAGE):
        raise Failed(ENOMEM)
    fixed = MAP_FIXED if flags & MREMAP_FIXED else 0
    shared = MAP_SHARED if vma.flags & VM_MAYSHARE else 0
    target = get_unmapped_area(mm, new_address, new, fixed | shared, vma.file)
    return move_vma(vma, address, old, new, target, flags)


def vma_to_resize(mm, address: int, old: int, new: int, flags: int) -> Vma:
    vma = mm.vmas.lookup(address)
    if vma is None:
        raise Failed(EFAULT)
    if not old and not vma.flags & (VM_SHARED | VM_MAYSHARE):
        raise Failed(EINVAL)
    if flags & MREMAP_DONTUNMAP and vma.flags & (VM_DONTEXPAND | VM_PFNMAP):
        raise Failed(EINVAL)
    if old > vma.end - address:
        raise Failed(EFAULT)
    if new == old:
        return vma
    if vma.flags & (VM_DONTEXPAND | VM_PFNMAP):
        raise Failed(EFAULT)
    if not mm.may_lock(vma.flags, new - old):
        raise Failed(EAGAIN)
    if not mm.may_expand(vma.flags, (new - old) // PAGE):
        raise Failed(ENOMEM)
    return vma


def expandable(vma: Vma, delta: int) -> bool:
    end = vma.end + delta
    return end <= vma.mm.task_size and not vma.mm.vmas.intersecting(vma.end, end)


def grow_in_place(vma: Vma, delta: int) -> None:
    mm, pages = vma.mm, delta // PAGE
    if vma.flags & VM_ACCOUNT:
        mm.machine.commit.charge(mm, pages)
    merged = merge.merge_new_range(mm, vma.end, vma.end + delta, vma.pgoff + vma.pages, vma.flags, vma.file, vma.anon_vma)
    if merged is None:
        mm.machine.commit.uncharge(pages if vma.flags & VM_ACCOUNT else 0)
        raise Failed(ENOMEM)
    mm.account(vma.flags, pages)
    if vma.flags & VM_LOCKED:
        mm.locked_vm += pages


def move_vma(vma: Vma, old_address: int, old: int, new: int, target: int, flags: int) -> int:
    mm, vm_flags = vma.mm, vma.flags
    dont_unmap = bool(flags & MREMAP_DONTUNMAP)
    if mm.map_count >= mm.machine.max_map_count - 3:
        raise Failed(ENOMEM)
    if vm_flags & VM_ACCOUNT:
        mm.machine.commit.charge(mm, (new if dont_unmap else new - old) // PAGE)
    pgoff = vma.index_of(old_address // PAGE)
    if vma.is_anonymous and not vma.anon_vma:
        pgoff = target // PAGE
    moved = merge.merge_new_range(mm, target, target + new, pgoff, vm_flags, vma.file, vma.anon_vma)
    if moved is None:
        moved = Vma(mm, target, target + new, vm_flags, pgoff, vma.file, vma.anon_vma)
        anon_vma.clone(moved, vma)
        mm.insert(moved)
    # the source may have become part of the VMA it merged with
    vma = mm.vmas.lookup(old_address)
    move_leaves(vma, old_address, target, old)
    mm.account(vm_flags, new // PAGE)
    if dont_unmap:
        vma.flags &= ~VM_LOCKED_MASK
        if moved is not vma and (vma.start, vma.end) == (old_address, old_address + old):
            anon_vma.unlink(vma)
    elif old:
        unmap_source(mm, old_address, old)
    if vm_flags & VM_LOCKED and not dont_unmap:
        mm.locked_vm += new // PAGE
        populate.populate(mm, target + old, target + new, ignore_errors=True)
    return target


def unmap_source(mm, start: int, length: int) -> None:
    """The old range goes; its commit charge went with the pages."""
    vmas = mmap.gather(mm, start, start + length)
    mmap.remove(mm, vmas, uncharge=0)


def move_leaves(vma: Vma, old_address: int, target: int, length: int) -> None:
    """Entries move; whole tables where both places are aligned."""
    mm = vma.mm
    old, new, end = old_address // PAGE, target // PAGE, (old_address + length) // PAGE
    while old < end:
        # the size of the step: up to the next border of a block in either place
        block = span(1)
        if not any(level == 1 and base == align_down(old, block) for level, base in mm.tables.set):
            step = min(block - old % block, block - new % block, end - old)
            old, new = old + step, new + step
            continue
        mm.tables.alloc(new, 2)
        if old % block == new % block == 0 and end - old >= block:
            move_pmd_table(mm, old, new)
            old, new = old + block, new + block
            continue
        step = min(HPAGE - old % HPAGE, HPAGE - new % HPAGE, end - old)
        base = align_down(old, HPAGE)
        if base in mm.pmds or mm.tables.has(0, old):
            mm.tables.alloc(new, 1)
            move_extent(vma, old, new, step)
        old, new = old + step, new + step


def move_pmd_table(mm, old: int, new: int) -> None:
    """1 GiB at once: a PMD table with all below it."""
    for vpn in range(0, span(1), HPAGE):
        if old + vpn in mm.pmds:
            move_huge(mm, old + vpn, new + vpn)
        elif mm.tables.has(0, old + vpn):
            mm.tables.move(0, old + vpn, new + vpn)
    mm.tables.move(1, old, new)
    for vpn in [vpn for vpn in mm.ptes if old <= vpn < old + span(1)]:
        move_pte(mm, vpn, vpn - old + new)


def move_extent(vma: Vma, old: int, new: int, step: int) -> None:
    """Something within one 2 MiB block in either place."""
    mm = vma.mm
    base = align_down(old, HPAGE)
    if base in mm.pmds:
        if step == HPAGE:
            move_huge(mm, old, new)
            return
        huge.split_pmd(vma, base)
    if step * PAGE == PMD_SIZE:
        mm.tables.move(0, old, new)
    else:
        mm.tables.alloc(new, 0)
    for i in range(step):
        if old + i in mm.ptes:
            move_pte(mm, old + i, new + i)


def move_pte(mm, old: int, new: int) -> None:
    pte = mm.ptes.pop(old)
    mm.ptes[new] = pte
    if pte.page:
        pte.page.ptes.discard((mm, old))
        pte.page.ptes.add((mm, new))


def move_huge(mm, old: int, new: int) -> None:
    pmd = mm.pmds.pop(old)
    mm.pmds[new] = pmd
    mm.tables.deposited.discard(old)
    mm.tables.deposited.add(new)
    if pmd.folio:
        pmd.folio.pmds.discard((mm, old))
        pmd.folio.pmds.add((mm, new))
