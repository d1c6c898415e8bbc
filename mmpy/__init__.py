"""mmpy: Linux memory management in your hand. A simulator of Linux 6.12's memory manager (x86-64; i386 for HIGHMEM), driven from Python.

>>> from mmpy import GFP_KERNEL, Machine
>>> machine = Machine("4G")
>>> pfn = machine.alloc_pages(order=2, gfp=GFP_KERNEL)
"""

from mmcore import __version__
from mmpy.errors import BadPageError, GfpError, OutOfMemory, PageAllocFailure, SegmentationFault, ValidationError
from mmpy.flags import (
    GFP_ATOMIC,
    GFP_DMA,
    GFP_DMA32,
    GFP_HIGHUSER,
    GFP_HIGHUSER_MOVABLE,
    GFP_KERNEL,
    GFP_KERNEL_ACCOUNT,
    GFP_NOFS,
    GFP_NOIO,
    GFP_NOWAIT,
    GFP_TRANSHUGE,
    GFP_TRANSHUGE_LIGHT,
    GFP_USER,
    Gfp,
    Migratetype,
    Pg,
    Task,
    gfp_text,
    parse_gfp,
)
from mmpy.machine import Machine

__all__ = [
    "GFP_ATOMIC",
    "GFP_DMA",
    "GFP_DMA32",
    "GFP_HIGHUSER",
    "GFP_HIGHUSER_MOVABLE",
    "GFP_KERNEL",
    "GFP_KERNEL_ACCOUNT",
    "GFP_NOFS",
    "GFP_NOIO",
    "GFP_NOWAIT",
    "GFP_TRANSHUGE",
    "GFP_TRANSHUGE_LIGHT",
    "GFP_USER",
    "BadPageError",
    "Gfp",
    "GfpError",
    "Machine",
    "Migratetype",
    "OutOfMemory",
    "PageAllocFailure",
    "Pg",
    "SegmentationFault",
    "Task",
    "ValidationError",
    "__version__",
    "gfp_text",
    "parse_gfp",
]
