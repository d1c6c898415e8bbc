"""mmap, munmap and brk.

Models: do_mmap, mmap_region, do_munmap with vms_gather_munmap_vmas, do_brk_flags (mm/mmap.c, mm/vma.c, v6.12). Simplifies: files allow
everything but what `writable` denies. Omits: file mapping limits, noexec mounts, seals, protection keys.
"""

from . import anon_vma, hugetlb, merge, populate, zap
from .constants import (
    EACCES,
    EAGAIN,
    EEXIST,
    EINVAL,
    ENOMEM,
    EPERM,
    HPAGE,
    MAP_ANONYMOUS,
    MAP_FIXED,
    MAP_FIXED_NOREPLACE,
    MAP_GROWSDOWN,
    MAP_HUGETLB,
    MAP_LOCKED,
    MAP_NONBLOCK,
    MAP_NORESERVE,
    MAP_POPULATE,
    MAP_PRIVATE,
    MAP_SHARED,
    MAP_SHARED_VALIDATE,
    MAP_STACK,
    MAP_TYPE,
    PAGE,
    PROT_WRITE,
    VM_ACCESS,
    VM_ACCOUNT,
    VM_DONTEXPAND,
    VM_GROWSDOWN,
    VM_HUGETLB,
    VM_LOCKED,
    VM_LOCKED_MASK,
    VM_MAY,
    VM_MAYSHARE,
    VM_MAYWRITE,
    VM_NOHUGEPAGE,
    VM_NORESERVE,
    VM_READ,
    VM_SHARED,
    VM_SPECIAL,
    VM_WRITE,
    Failed,
    align_down,
    align_up,
    page_align,
)
from .page import File
from .vma import Vma, get_unmapped_area

EBADF = 9


def mmap(mm, address: int, length: int, prot: int, flags: int, file: File | None, offset: int) -> int:
    machine = mm.machine
    if offset % PAGE:
        raise Failed(EINVAL)
    if file is None and not flags & MAP_ANONYMOUS:
        raise Failed(EBADF)
    if file is None and flags & MAP_HUGETLB:
        length = align_up(length, HPAGE * PAGE)
        file = File("/anon_hugepage", length, kind="hugetlb", unlinked=True)
    elif file and file.kind == "hugetlb":
        length = align_up(length, HPAGE * PAGE)
    if length <= 0:
        raise Failed(EINVAL)
    if flags & MAP_FIXED_NOREPLACE:
        flags |= MAP_FIXED
    if not flags & MAP_FIXED:
        address = align_down(address, PAGE)
        if 0 < address < machine.mmap_min_addr:
            address = page_align(machine.mmap_min_addr)
    length = page_align(length)
    if mm.map_count > machine.max_map_count:
        raise Failed(ENOMEM)
    vm_flags = flags_of(mm, prot, flags)
    address = get_unmapped_area(mm, address, length, flags, file)
    if flags & MAP_FIXED_NOREPLACE and mm.vmas.intersecting(address, address + length):
        raise Failed(EEXIST)
    if flags & MAP_LOCKED and not mm.can_lock:
        raise Failed(EPERM)
    if not mm.may_lock(vm_flags, length):
        raise Failed(EAGAIN)
    vm_flags |= sharing(flags, prot, vm_flags, file)
    if file and not file.writable and vm_flags & VM_SHARED:
        vm_flags &= ~(VM_SHARED | VM_MAYWRITE)
    if flags & MAP_NORESERVE and (machine.commit.mode != 2 or (file and file.kind == "hugetlb")):
        vm_flags |= VM_NORESERVE
    if file:
        pgoff = offset // PAGE
    else:
        pgoff = 0 if vm_flags & VM_SHARED else address // PAGE
    map_region(mm, address, address + length, vm_flags, pgoff, file)
    if vm_flags & VM_LOCKED or flags & (MAP_POPULATE | MAP_NONBLOCK) == MAP_POPULATE:
        populate.populate(mm, address, address + length, ignore_errors=True)
    return address


def flags_of(mm, prot: int, flags: int) -> int:
    vm_flags = prot & VM_ACCESS | VM_MAY | mm.def_flags
    for bit, flag in ((MAP_GROWSDOWN, VM_GROWSDOWN), (MAP_LOCKED, VM_LOCKED), (MAP_STACK, VM_NOHUGEPAGE)):
        if flags & bit:
            vm_flags |= flag
    return vm_flags


def sharing(flags: int, prot: int, vm_flags: int, file) -> int:
    kind = flags & MAP_TYPE
    if kind == MAP_PRIVATE:
        return 0
    if kind not in (MAP_SHARED, MAP_SHARED_VALIDATE) or (file is None and kind != MAP_SHARED):
        raise Failed(EINVAL)
    if file is None and vm_flags & VM_GROWSDOWN:
        raise Failed(EINVAL)
    if file and prot & PROT_WRITE and not file.writable:
        raise Failed(EACCES)
    return VM_SHARED | VM_MAYSHARE


def accountable(vm_flags: int, file) -> bool:
    if file and file.kind == "hugetlb":
        return False
    return vm_flags & (VM_NORESERVE | VM_SHARED | VM_WRITE) == VM_WRITE


def map_region(mm, start: int, end: int, vm_flags: int, pgoff: int, file) -> Vma:
    """Put a mapping there, in place of what there is. Splits of the old mappings stay even if it fails."""
    machine, pages = mm.machine, (end - start) // PAGE
    old = gather(mm, start, end)
    if not mm.may_expand(vm_flags, pages - sum(vma.pages for vma in old)):
        raise Failed(ENOMEM)
    uncharge = sum(vma.pages for vma in old if vma.flags & VM_ACCOUNT)
    if accountable(vm_flags, file):
        if pages > uncharge:
            machine.commit.charge(mm, pages - uncharge)
        uncharge = 0
        vm_flags |= VM_ACCOUNT
    new_file = None
    if file is None and vm_flags & VM_SHARED:
        new_file = File("/dev/zero", pages * PAGE, kind="shmem", unlinked=True, noreserve=bool(vm_flags & VM_NORESERVE))
        if not new_file.noreserve:
            machine.commit.charge(mm, pages)
            new_file.charged = pages
    remove(mm, old, uncharge=uncharge)
    vma = merge.merge_new_range(mm, start, end, pgoff, vm_flags, file) if new_file is None else None
    if vma is None:
        vma = Vma(mm, start, end, vm_flags, pgoff, file or new_file)
        if file and file.kind == "hugetlb":
            vma.flags |= VM_HUGETLB | VM_DONTEXPAND
            hugetlb.reserve_mapping(vma)
        mm.insert(vma)
    mm.account(vm_flags, pages)
    if vm_flags & VM_LOCKED:
        if vma.flags & VM_SPECIAL or vma.flags & VM_HUGETLB:
            vma.flags &= ~VM_LOCKED_MASK
        else:
            mm.locked_vm += pages
    return vma


def gather(mm, start: int, end: int) -> list[Vma]:
    """The VMAs of [start, end), split off at both ends."""
    vmas = mm.vmas.intersecting(start, end)
    if not vmas:
        return []
    first, last = vmas[0], vmas[-1]
    if first.start < start:
        if end < first.end and mm.map_count >= mm.machine.max_map_count:
            raise Failed(ENOMEM)
        upper = merge.split(first, start, limited=False)
        last = upper if last is first else last
    if end < last.end:
        merge.split(last, end, limited=False)
    return mm.vmas.intersecting(start, end)


def remove(mm, vmas: list[Vma], *, uncharge: int) -> None:
    """Unmap whole VMAs that stand side by side: pages, tables, figures."""
    if not vmas:
        return
    prev, _ = mm.vmas.neighbours(vmas[0])
    _, following = mm.vmas.neighbours(vmas[-1])
    for vma in vmas:
        zap.zap_range(vma, vma.start, vma.end)
    floor = prev.end // PAGE if prev else 0
    ceiling = following.start // PAGE if following else None
    mm.tables.free_range(vmas[0].start // PAGE, vmas[-1].end // PAGE, floor, ceiling)
    for vma in vmas:
        anon_vma.unlink(vma)
        mm.vmas.remove(vma)
        mm.map_count -= 1
        mm.account(vma.flags, -vma.pages)
        if vma.flags & VM_LOCKED:
            mm.locked_vm -= vma.pages
        if vma.file:
            hugetlb.close(vma)
            vma.file.vmas.remove(vma)
            zap.put_file(mm.machine, vma.file)
    mm.machine.commit.uncharge(uncharge)


def unmap(mm, start: int, end: int) -> None:
    vmas = gather(mm, start, end)
    remove(mm, vmas, uncharge=sum(vma.pages for vma in vmas if vma.flags & VM_ACCOUNT))


def munmap(mm, start: int, length: int) -> int:
    if start % PAGE or start > mm.task_size or length > mm.task_size - start or length <= 0:
        raise Failed(EINVAL)
    unmap(mm, start, start + page_align(length))
    return 0


def brk(mm, address: int) -> int:
    """The new end of the heap; the old one if that cannot be."""
    old, new = page_align(mm.brk), page_align(address)
    if address < mm.start_brk or address - mm.start_brk > mm.rlimits["data"]:
        return mm.brk
    if old == new:
        mm.brk = address
    elif address <= mm.brk:
        found = mm.vmas.find(new)
        if found and found.start < old:
            try:
                unmap(mm, new, old)
                mm.brk = address
            except Failed:
                pass
    elif grow_brk(mm, old, new):
        mm.brk = address
        if mm.def_flags & VM_LOCKED:
            populate.populate(mm, old, new, ignore_errors=True)
    return mm.brk


def grow_brk(mm, old: int, new: int) -> bool:
    flags = VM_READ | VM_WRITE | VM_MAY | VM_ACCOUNT | mm.def_flags
    pages = (new - old) // PAGE
    if new > mm.task_size or not mm.may_lock(mm.def_flags, new - old):
        return False
    following = mm.vmas.find(old)
    if following and new + PAGE > following.gap_start:
        return False
    if not mm.may_expand(flags, pages) or mm.map_count > mm.machine.max_map_count or not mm.machine.commit.enough(mm, pages):
        return False
    if not merge.merge_new_range(mm, old, new, old // PAGE, flags, just_expand=True):
        mm.insert(Vma(mm, old, new, flags, old // PAGE))
    mm.account(flags, pages)
    if flags & VM_LOCKED:
        mm.locked_vm += pages
    return True
