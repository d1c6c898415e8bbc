"""Files that processes map and read: their size, and how much of them is cached.

Models: struct inode with its address_space, as far as mapping needs it. Simplifies: a file has one name and no contents. Omits:
directories, rights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, SupportsIndex

import numpy as np

from mmpy.errors import ProcessError
from mmpy.syscalls import outcome, parse_bytes
from mmpy.vmviews import FILE_RAM, FILE_SHMEM, FILE_UNLINKED, file_text, text_of

if TYPE_CHECKING:
    from mmpy.machine import Machine
    from mmpy.process import Process

ADVICE = ("normal", "random", "sequential", "willneed", "dontneed", "noreuse")
FILE_KINDS = {"disk": 0, "ram": FILE_RAM, "shmem": FILE_SHMEM}


class FileObject:
    """A file that can be mapped: machine.open("/data", "64M"). Its pages come into the page cache as they are needed."""

    __slots__ = ("handle", "inode", "machine")

    def __init__(self, machine: Machine, handle: int) -> None:
        self.machine, self.handle = machine, handle
        self.inode = int(machine.state.get("files")[handle - 1]["id"])

    def _row(self) -> np.void:
        files = self.machine.state.get("files")
        if self.handle > len(files) or not self.inode or int(files[self.handle - 1]["id"]) != self.inode:
            raise ProcessError(f"file {self.handle} (inode {self.inode}) does not exist in this state of the machine")
        row: np.void = files[self.handle - 1]
        return row

    @property
    def alive(self) -> bool:
        """Whether it still exists: a file that is unlinked goes with its last mapping."""
        files = self.machine.state.get("files")
        return bool(self.inode) and self.handle <= len(files) and int(files[self.handle - 1]["id"]) == self.inode

    @property
    def name(self) -> str:
        """As given; maps prints `path`."""
        return text_of(self.machine.state, int(self._row()["name"]))

    @property
    def path(self) -> str:
        self._row()
        return file_text(self.machine.state, self.handle)

    @property
    def size(self) -> int:
        """Bytes."""
        return int(self._row()["size"])

    @property
    def nr_cached(self) -> int:
        """Pages of it in the page cache."""
        return int(self._row()["nr_pages"])

    @property
    def shmem(self) -> bool:
        """Whether it lives in memory and swap only (tmpfs, shared anonymous memory)."""
        return bool(int(self._row()["flags"]) & FILE_SHMEM)

    def unlink(self) -> None:
        """Take its name away; it goes with its last mapping."""
        from mmcore.sys import file_calls

        self._row()
        file_calls.unlink(self.machine.state, self.handle)

    def read(self, offset: int = 0, length: str | SupportsIndex | None = None, *, process: Process | None = None) -> tuple[int, int]:
        """read() of `length` bytes from `offset` on (None: to the end): pages copied from, and how many had to be read first.

        process: the task that reads; pages that come in are charged to its group. MmapError (ENOMEM) if there was no page for the first.
        """
        from mmcore.sys import file_calls

        nbytes = max(self.size - offset, 0) if length is None else parse_bytes(length, "length")
        pages, missed = file_calls.read(self.machine.state, self.handle, offset, nbytes, self._task(process))
        return outcome(pages, f"read of {nbytes} bytes at {offset} of {self.path!r}"), missed

    def write(self, offset: int, length: str | SupportsIndex, *, process: Process | None = None) -> int:
        """write() of `length` bytes at `offset`: pages written. The file grows. MmapError: ENOMEM if none was, EFBIG if it is too large."""
        from mmcore.sys import file_calls

        nbytes = parse_bytes(length, "length")
        done = file_calls.write(self.machine.state, self.handle, offset, nbytes, self._task(process))
        return outcome(done, f"write of {nbytes} bytes at {offset} of {self.path!r}")

    def truncate(self, size: str | SupportsIndex) -> None:
        """A new size; mappings of what lies beyond it go (accesses give SIGBUS), private copies as well."""
        from mmcore.sys import file_calls

        nbytes = parse_bytes(size, "size")
        self._row()
        outcome(file_calls.truncate(self.machine.state, self.handle, nbytes), f"truncate of {self.path!r} to {nbytes} bytes")

    def punch_hole(self, offset: int, length: str | SupportsIndex) -> None:
        """fallocate(PUNCH_HOLE): whole pages of the range go, and their mappings; private copies stay."""
        from mmcore.sys import file_calls

        nbytes = parse_bytes(length, "length")
        self._row()
        rc = file_calls.punch_hole(self.machine.state, self.handle, offset, nbytes)
        outcome(rc, f"hole of {nbytes} bytes at {offset} in {self.path!r}")

    def fsync(self) -> int:
        """All pages are clean then: how many were dirty."""
        from mmcore.sys import file_calls

        self._row()
        return file_calls.fsync(self.machine.state, self.handle)

    def fadvise(self, advice: str, offset: int = 0, length: int = 0) -> None:
        """posix_fadvise(): "normal", "random", "sequential", "willneed", "dontneed", "noreuse"; length 0: to the end."""
        from mmcore.sys import file_calls

        if advice not in ADVICE:
            raise ValueError(f"advice is {advice!r}; it must be one of {', '.join(map(repr, ADVICE))}")
        self._row()
        outcome(file_calls.fadvise(self.machine.state, self.handle, offset, length, ADVICE.index(advice)), f"fadvise of {self.path!r}")

    def _task(self, process: Process | None) -> int:
        # The CPU of the task, which runs there from now on: who is charged.
        self._row()
        if process is None:
            return 0
        if process.machine is not self.machine or not process.alive:
            raise ValueError(f"{process!r} is no live process of this machine")
        state, cpu = self.machine.state, process.cpu
        state.cpus["memcg"][cpu] = state.get("mms")["memcg"][process.mm - 1]
        return cpu

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, FileObject):
            return NotImplemented
        return self.machine is other.machine and (self.handle, self.inode) == (other.handle, other.inode)

    def __hash__(self) -> int:
        return hash((id(self.machine), self.handle, self.inode))

    def __repr__(self) -> str:
        if not self.alive:
            return f"FileObject(inode {self.inode}, gone)"
        return f"FileObject({self.path!r}, {self.size} bytes, {self.nr_cached} pages cached)"


def open_file(machine: Machine, name: str, size: str | SupportsIndex | None, kind: str) -> FileObject:
    """The file of this name; a new one where there is none and a size is given."""
    from mmcore.sys import file_calls

    if not isinstance(name, str):
        raise TypeError(f"a file's name must be a str, not {type(name).__name__}")
    if not name or "\n" in name or "\0" in name:
        raise ValueError(f"a file cannot be called {name!r}")
    if kind not in FILE_KINDS:
        raise ValueError(f"kind is {kind!r}; it must be one of {', '.join(map(repr, FILE_KINDS))}")
    nbytes = None if size is None else parse_bytes(size, "size")
    state = machine.state
    files = state.get("files")
    for handle in (np.flatnonzero((files["id"] != 0) & (files["flags"] & FILE_UNLINKED == 0)) + 1).tolist():
        if text_of(state, int(files[handle - 1]["name"])) == name:
            found = FileObject(machine, handle)
            if nbytes is not None and nbytes != found.size:
                raise ValueError(f"file {name!r} exists with {found.size} bytes; size is {nbytes}")
            return found
    if nbytes is None:
        raise FileNotFoundError(2, "no such file on this machine; give a size to make one", name)
    handle = outcome(file_calls.create_file(state, name, nbytes, FILE_KINDS[kind]), f"open({name!r}, size={nbytes})")
    return FileObject(machine, handle)
