"""The exceptions of this package, in one place (the core raises them; mmcore.base.errors)."""

from mmcore.base.errors import (
    BadPageError,
    GfpError,
    OutOfMemory,
    PageAllocFailure,
    SegmentationFault,
    ValidationError,
)

__all__ = ["BadPageError", "GfpError", "OutOfMemory", "PageAllocFailure", "SegmentationFault", "ValidationError"]
