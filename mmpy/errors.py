"""The exceptions of this package, in one place (the core raises most of them; mmcore.base.errors)."""

import errno as _errno

from mmcore.base.errors import (
    BadPageError,
    GfpError,
    OutOfMemory,
    PageAllocFailure,
    SegmentationFault,
    ValidationError,
)


class MmapError(OSError):
    """A system call of memory that the kernel refuses: .errno, .call (the call with its values), and both in the text."""

    def __init__(self, number: int, call: str, why: str = "") -> None:
        super().__init__(number, f"{call}: {_errno.errorcode.get(number, number)}{f', {why}' if why else ''}")
        self.call, self.why = call, why

    def __str__(self) -> str:
        return str(self.strerror)

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.errno, self.call, self.why)


class CgroupError(MmapError):
    """What a control group's files refuse: .errno (EBUSY, EEXIST, ENOSPC, EAGAIN, ENOENT: removed), and the values in the text."""


class BusError(RuntimeError):
    """An access behind the end of a mapped file (SIGBUS)."""


class ProcessError(RuntimeError):
    """A process that is no more: it has exited, or the machine is in a state in which it does not exist."""


__all__ = [
    "BadPageError",
    "BusError",
    "CgroupError",
    "GfpError",
    "MmapError",
    "OutOfMemory",
    "PageAllocFailure",
    "ProcessError",
    "SegmentationFault",
    "ValidationError",
]
