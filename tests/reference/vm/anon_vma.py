"""anon_vmas: which VMAs may map an anonymous page.

Models: anon_vma_prepare, anon_vma_clone, anon_vma_fork, unlink_anon_vmas, find_mergeable_anon_vma (mm/rmap.c, mm/vma.c,
v6.12). Simplifies: a chain is a plain list of anon_vmas, newest first. Omits: locks, the root's lock sharing.
"""

from .constants import VM_ACCESS, VM_SOFTDIRTY


class AnonVma:
    """One anon_vma; `vmas` are those that have it in their chain."""

    def __init__(self, parent: "AnonVma | None" = None):
        self.parent = parent or self
        self.root = parent.root if parent else self
        self.num_children = 0
        self.num_active_vmas = 0
        self.vmas: list = []
        if parent is None:
            self.num_children = 1  # a root is its own parent
        else:
            parent.num_children += 1

    def __repr__(self):
        return f"<AnonVma {id(self) & 0xFFFFF:x} children={self.num_children} active={self.num_active_vmas} vmas={len(self.vmas)}>"


def link(vma, anon_vma: AnonVma) -> None:
    vma.chain.insert(0, anon_vma)
    anon_vma.vmas.append(vma)


def adopt(vma, anon_vma: AnonVma) -> None:
    """New pages of `vma` go to `anon_vma`, which joins its chain."""
    vma.anon_vma = anon_vma
    link(vma, anon_vma)
    anon_vma.num_active_vmas += 1


def same_but_for_access(left, right) -> bool:
    """Whether two neighbours could share an anon_vma: they might become one VMA by mprotect."""
    return (
        left.end == right.start
        and left.file is right.file
        and not (left.flags ^ right.flags) & ~(VM_ACCESS | VM_SOFTDIRTY)
        and right.pgoff == left.pgoff + left.pages
    )


def prepare(vma) -> None:
    """Give `vma` an anon_vma before its first anonymous page: that of the next VMA, of the previous one, or a new one."""
    if vma.anon_vma:
        return
    before, after = vma.mm.vmas.neighbours(vma)
    for old, left, right in ((after, vma, after), (before, before, vma)):
        if old and same_but_for_access(left, right) and old.anon_vma and len(old.chain) == 1:
            adopt(vma, old.anon_vma)
            return
    adopt(vma, AnonVma())


def clone(dst, src) -> None:
    """Link `dst` to everything in the chain of `src`; oldest first, so that the order stays.

    A `dst` that has no anon_vma of its own yet (a fork) takes an idle ancestor's: one with no VMA and less than two children.
    """
    for anon_vma in reversed(src.chain):
        link(dst, anon_vma)
        if not dst.anon_vma and src.anon_vma and anon_vma.num_children < 2 and anon_vma.num_active_vmas == 0:
            dst.anon_vma = anon_vma
    if dst.anon_vma:
        dst.anon_vma.num_active_vmas += 1


def fork(child, parent) -> None:
    """The child's VMA: linked to all of the parent's anon_vmas, and to one of its own for its copies."""
    if not parent.anon_vma:
        return
    child.anon_vma = None
    clone(child, parent)
    if not child.anon_vma:
        adopt(child, AnonVma(parent.anon_vma))


def duplicate(dst, src) -> None:
    """`dst` swallows `src`'s pages in a merge: without an anon_vma of its own it takes over src's chain."""
    if src.anon_vma and not dst.anon_vma:
        dst.anon_vma = src.anon_vma
        clone(dst, src)


def unlink(vma) -> None:
    """Take `vma` out of all its anon_vmas. One that no VMA has any more is gone: its parent has a child less."""
    for anon_vma in vma.chain:
        anon_vma.vmas.remove(vma)
        if not anon_vma.vmas:
            anon_vma.parent.num_children -= 1
    if vma.anon_vma:
        vma.anon_vma.num_active_vmas -= 1
    vma.anon_vma = None
    vma.chain.clear()


def find_ptes(page):
    """(mm, vpn) where rmap looks for `page`: every VMA of its anon_vma that covers its index. Yields what is really mapped there."""
    for vma in page.anon_vma.vmas:
        if vma.pgoff <= page.index < vma.pgoff + vma.pages:
            vpn = vma.start // 4096 + page.index - vma.pgoff
            if vma.mm.page_at(vpn) is page:
                yield vma.mm, vpn
