"""mmpy: Linux memory management in your hand. A simulator of Linux 6.12's memory manager (x86-64; i386 for HIGHMEM), driven from Python.

>>> from mmpy import GFP_KERNEL, Machine
>>> machine = Machine("4G")
>>> pfn = machine.alloc_pages(order=2, gfp=GFP_KERNEL)
"""

from mmcore import __version__
from mmpy.accesses import AccessResult
from mmpy.errors import (
    BadPageError,
    BusError,
    CgroupError,
    GfpError,
    MmapError,
    OutOfMemory,
    PageAllocFailure,
    ProcessError,
    SegmentationFault,
    ValidationError,
)
from mmpy.files import FileObject
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
from mmpy.memcg import Memcg
from mmpy.process import Process
from mmpy.vmflags import Fault, Madv, Map, Mcl, Mremap, Prot, Vm

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
    "AccessResult",
    "BadPageError",
    "BusError",
    "CgroupError",
    "Fault",
    "FileObject",
    "Gfp",
    "GfpError",
    "Machine",
    "Madv",
    "Map",
    "Mcl",
    "Memcg",
    "Migratetype",
    "MmapError",
    "Mremap",
    "OutOfMemory",
    "PageAllocFailure",
    "Pg",
    "Process",
    "ProcessError",
    "Prot",
    "SegmentationFault",
    "Task",
    "ValidationError",
    "Vm",
    "__version__",
    "gfp_text",
    "parse_gfp",
]
