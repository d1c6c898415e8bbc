"""Rows of an address space: its VMAs, as a person reads them.

Models: struct vm_area_struct as /proc/PID/maps shows it, with the kernel's rule for names (get_vma_name(), fs/proc/task_mmu.c).
Simplifies: a row is a copy, taken when it was made. Omits: VMA policies and operations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mmcore.base.state import State
from mmpy.vmflags import Prot, Vm

if TYPE_CHECKING:
    from mmpy.machine import Machine

PAGE_SIZE = 4096
FILE_SHMEM, FILE_RAM, FILE_UNLINKED = 1, 2, 4


def text_of(state: State, name: int) -> str:
    """The text that a record's `name` stands for (index + 1 into the names of the State; 0: none)."""
    return state.names[name - 1] if 0 < name <= len(state.names) else ""


def file_text(state: State, handle: int) -> str:
    """The path of a file as maps prints it: that of shared anonymous memory is /dev/zero's."""
    row = state.get("files")[handle - 1]
    name, flags = text_of(state, int(row["name"])), int(row["flags"])
    if not name:
        name = "/dev/zero" if flags & FILE_SHMEM else f"/file{int(row['id'])}"
        return f"{name} (deleted)" if flags & (FILE_SHMEM | FILE_UNLINKED) else name
    return f"{name} (deleted)" if flags & FILE_UNLINKED and not name.endswith(" (deleted)") else name


@dataclass(frozen=True, slots=True)
class VmaView:
    """One VMA: [start, end) in bytes, flags (Vm), pgoff in pages, file (handle, 0: none) and the name that /proc/PID/maps prints."""

    start: int
    end: int
    flags: Vm
    pgoff: int
    file: int
    name: str
    index: int
    """its record in state.get("vmas")"""
    anon_vma: int
    """its anon_vma (index + 1), 0 before the first anonymous fault"""
    inode: int = 0
    device: str = "00:00"

    @property
    def size(self) -> int:
        """Bytes."""
        return self.end - self.start

    @property
    def nr_pages(self) -> int:
        return self.size // PAGE_SIZE

    @property
    def prot(self) -> Prot:
        """Rights as mmap() and mprotect() take them."""
        return Prot(int(self.flags) & 7)

    @property
    def prot_text(self) -> str:
        """Rights as maps prints them: "rw-p"."""
        f = int(self.flags)
        return f"{'r' if f & 1 else '-'}{'w' if f & 2 else '-'}{'x' if f & 4 else '-'}{'s' if f & int(Vm.MAYSHARE) else 'p'}"

    @property
    def offset(self) -> int:
        """Bytes into its file; 0 without one (what maps prints)."""
        return self.pgoff * PAGE_SIZE if self.file else 0

    @property
    def anonymous(self) -> bool:
        return not self.file

    def __contains__(self, address: int) -> bool:
        return self.start <= address < self.end

    def __repr__(self) -> str:
        name = f" {self.name}" if self.name else ""
        return f"VmaView({self.start:#x}-{self.end:#x} {self.prot_text} {self.nr_pages} pages{name})"

    def _cells(self) -> tuple[str, ...]:
        where = f"{self.offset:#x}" if self.file else ""
        return f"{self.start:#x}", f"{self.end:#x}", f"{self.size // 1024} kB", self.prot_text, where, self.name

    def _repr_html_(self) -> str:
        return VmaList([self])._repr_html_()


class VmaList(list[VmaView]):
    """The VMAs of an address space in ascending order; a list with a table's looks."""

    def find(self, address: int) -> VmaView | None:
        """The VMA that holds an address, or None."""
        return next((vma for vma in self if address in vma), None)

    def __repr__(self) -> str:
        return "VmaList([\n" + "".join(f"  {vma!r},\n" for vma in self) + "])" if self else "VmaList([])"

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{title}</th>" for title in ("start", "end", "size", "rights", "offset", "name"))
        import html

        rows = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in vma._cells()) + "</tr>" for vma in self)
        return f"<table><tr>{head}</tr>{rows}</table>"


def _paths(state: State) -> dict[int, tuple[str, str, int, str]]:
    """By file handle: path, what stands before a name given to its mappings ("" if none is shown), inode, device."""
    files = state.get("files")
    out = {}
    for index in np.flatnonzero(files["id"]).tolist():
        shmem = bool(int(files["flags"][index]) & FILE_SHMEM)
        prefix, device = ("anon_shmem", "00:01") if shmem else ("", "08:01")
        out[index + 1] = (file_text(state, index + 1), prefix, int(files["id"][index]), device)
    return out


def vma_views(machine: Machine, mm: int) -> VmaList:
    """All VMAs of an address space (handle), in ascending order."""
    state = machine.state
    rows, space = state.get("vmas"), state.get("mms")[mm - 1]
    own = np.flatnonzero(rows["mm"] == mm)
    own = own[np.argsort(rows["start"][own])]
    brk, start_brk, start_stack = (int(space[field]) for field in ("brk", "start_brk", "start_stack"))
    columns = (rows[field][own].tolist() for field in ("start", "end", "flags", "pgoff", "file", "name", "anon_vma"))
    paths = _paths(state)
    out = VmaList()
    for index, start, end, flags, pgoff, file, named, anon_vma in zip(own.tolist(), *columns, strict=True):
        name, inode, device = text_of(state, named), 0, "00:00"
        if file:
            path, prefix, inode, device = paths[file]
            name = f"[{prefix}:{name}]" if name and prefix else path
        elif name.startswith("["):
            pass  # a special mapping: [vdso], [vvar]
        elif start < brk and end > start_brk:
            # whatever overlaps the heap's range, be it several VMAs (vma_is_initial_heap)
            name = "[heap]"
        elif start <= start_stack <= end and start_stack:
            name = "[stack]"
        elif name:
            name = f"[anon:{name}]"
        out.append(VmaView(start, end, Vm(flags), pgoff, file, name, index, anon_vma, inode, device))
    return out
