"""System calls at Python's border: their arguments, and their refusals as exceptions.

Models: errno values of mmap(2) and its siblings. Simplifies: nothing. Omits: signals.
"""

from __future__ import annotations

from enum import IntFlag
from typing import SupportsIndex

from mmcore.base import errors as core_errors
from mmpy.config import as_int, parse_size
from mmpy.errors import MmapError

PAGE_SIZE = 4096
MAX_LENGTH = 1 << 64
MAX_ERRNO = 999

# What an errno most likely means, by call.
_WHY = {
    ("mmap", 12): "no room in the address space, too many VMAs, or more memory than overcommit allows",
    ("mmap", 17): "something is mapped there",
    ("mmap", 22): "an empty or misaligned range, or flags that exclude each other",
    ("mmap", 1): "an address below vm.mmap_min_addr, or locked memory without the right to it",
    ("mmap", 9): "a mapping that is not anonymous needs a file",
    ("mmap", 11): "more locked memory than RLIMIT_MEMLOCK",
    ("mmap", 75): "the offset does not fit",
    ("mmap", 95): "flags that this mapping does not support",
    ("mmap", 13): "the file or its rights do not allow it",
    ("munmap", 22): "the range must be whole pages of the user's half",
    ("munmap", 12): "splitting a VMA would make too many",
    ("mprotect", 12): "part of the range is not mapped",
    ("mprotect", 13): "the mapping may never have these rights",
    ("madvise", 12): "part of the range is not mapped",
    ("madvise", 22): "advice that is unknown, or not possible on this mapping",
    ("mremap", 14): "the old range is not one mapping",
    ("mremap", 12): "no room there and MAYMOVE is not given, too many VMAs, or more memory than overcommit allows",
    ("mlock", 12): "part of the range is not mapped, or more than RLIMIT_MEMLOCK",
    ("mlock", 1): "RLIMIT_MEMLOCK is 0",
    ("fork", 12): "no memory for the tables, or more than overcommit allows",
    ("exec", 12): "no memory for the image or its tables",
    ("spawn", 12): "no memory for the top page table",
    ("mlock", 11): "a page could not be faulted in",
}


def flag_text(flags: IntFlag) -> str:
    """Flags by name: "READ|WRITE"."""
    return flags.name or f"{int(flags):#x}"


def outcome(rc: int, call: str) -> int:
    """The result of a system call; a negative errno as MmapError, a code that stands for misuse as the core's exception for it."""
    if rc >= 0:
        return int(rc)
    if -rc > MAX_ERRNO:
        return core_errors.check(rc, call)
    raise MmapError(-rc, call, _WHY.get((call.partition("(")[0], -rc), ""))


def parse_bytes(size: str | SupportsIndex, name: str = "length") -> int:
    """Bytes of a length: a text such as "64M" (whole pages), or an int. TypeError or ValueError names what it cannot be."""
    if isinstance(size, str):
        return parse_size(size, name) * PAGE_SIZE
    value = as_int(size, name)
    if not 0 <= value < MAX_LENGTH:
        raise ValueError(f"{name} is {value}; it must lie in 0..2**64 - 1")
    return value


def address_of(value: SupportsIndex, name: str = "address") -> int:
    """An address of 64 bits; TypeError or ValueError for what is none."""
    number = as_int(value, name)
    if not 0 <= number < MAX_LENGTH:
        raise ValueError(f"{name} is {number:#x}; it must lie in 0..2**64 - 1")
    return number


def flag_bits(value: SupportsIndex, name: str) -> int:
    """Flags of 32 bits; TypeError or ValueError for what cannot be that."""
    number = as_int(value, name)
    if not 0 <= number < 1 << 32:
        raise ValueError(f"{name} is {number:#x}; it must fit into 32 bits")
    return number
