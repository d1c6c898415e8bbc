"""Requests to the page allocator, as a machine's callers make them.

Models: the page allocator's interface (include/linux/gfp.h). Simplifies: requests name their CPU and node instead of running on
one. Omits: memory policies.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from mmcore.alloc import page_alloc, page_free
from mmpy.flags import GFP_KERNEL, Task
from mmpy.running import Running


class PageRequests(Running):
    """What of Machine allocates and frees pages."""

    _task: int

    def alloc_pages(self, order: int = 0, gfp: int = GFP_KERNEL, *, node: int | None = None, cpu: int = 0) -> int:
        """Allocate 2**order contiguous pages (order 0..10) on behalf of `cpu`, from `node` on (default: the CPU's); first page frame.

        PageAllocFailure (a MemoryError) if no zone has them, GfpError for an illegal mask, ValueError for values out of range.
        """
        return page_alloc.alloc_pages(self.state, gfp, order, cpu, -1 if node is None else node, self._task)

    def free_pages(self, pfn: int, order: int = 0, *, cpu: int = 0) -> None:
        """Give back a block of 2**order pages. BadPageError names a page that cannot be freed so; nothing changes then."""
        page_free.free_pages(self.state, pfn, order, cpu)

    def alloc_pages_many(self, n: int, order: int = 0, gfp: int = GFP_KERNEL, *, node: int | None = None, cpu: int = 0) -> np.ndarray:
        """`n` allocations in a row, as `n` single calls would go; stops at the first failure.

        Returns the page frames it got: array of uint32, shorter than `n` when memory ran out.
        """
        out = np.empty(self._count(n), np.uint32)
        got = page_alloc.alloc_pages_many(self.state, out, gfp, order, cpu, -1 if node is None else node, self._task)
        return out[:got]

    def free_pages_many(self, pfns: np.ndarray, order: int = 0, *, cpu: int = 0) -> None:
        """Free every block of `pfns` (uint32) in order. All are checked first: BadPageError leaves the machine unchanged."""
        page_free.free_pages_many(self.state, pfns, order, cpu)

    def alloc_pages_bulk(self, n: int, gfp: int = GFP_KERNEL, *, node: int | None = None, cpu: int = 0) -> np.ndarray:
        """The kernel's alloc_pages_bulk: up to `n` single pages with one watermark test; array of uint32, perhaps shorter."""
        out = np.empty(self._count(n), np.uint32)
        return out[: page_alloc.alloc_pages_bulk(self.state, out, gfp, cpu, -1 if node is None else node, self._task)]

    def alloc_pages_exact(self, nr_pages: int, gfp: int = GFP_KERNEL, *, node: int | None = None, cpu: int = 0) -> np.ndarray:
        """Exactly nr_pages contiguous pages (1..1024), each to be freed by itself; array of uint32."""
        pfn = page_alloc.alloc_pages_exact(self.state, nr_pages, gfp, cpu, -1 if node is None else node, self._task)
        return np.arange(pfn, pfn + nr_pages, dtype=np.uint32)

    def get_free_pages(self, order: int = 0, gfp: int = GFP_KERNEL, *, cpu: int = 0) -> int:
        """__get_free_pages: pages with a kernel mapping (no __GFP_HIGHMEM); first page frame."""
        return self.alloc_pages(order, int(gfp) & ~0x2, cpu=cpu)

    def get_zeroed_page(self, gfp: int = GFP_KERNEL, *, cpu: int = 0) -> int:
        """get_zeroed_page: one page, marked to be zeroed."""
        return self.get_free_pages(0, int(gfp) | 0x100, cpu=cpu)

    def split_page(self, pfn: int, order: int) -> None:
        """Turn an allocated block that is not compound into single pages."""
        page_free.split_page(self.state, pfn, order)

    def get_page(self, pfn: int) -> None:
        """Take a further reference to an allocated block."""
        page_free.get_page(self.state, pfn)

    def put_page(self, pfn: int, *, cpu: int = 0) -> None:
        """Drop a reference to a block; the last one frees it."""
        page_free.put_page(self.state, pfn, cpu)

    @contextmanager
    def task(self, flags: int | Task) -> Iterator[None]:
        """Requests inside are made by a task with these flags: `with machine.task(Task.NOFS): ...`. Scopes nest."""
        if int(flags) & ~127:
            raise ValueError(f"task flags {int(flags):#x}: only bits of mmpy.Task are known")
        before = self._task
        self._task |= int(flags)
        try:
            yield
        finally:
            self._task = before

    def _count(self, n: int) -> int:
        limit = int(self.state.globals["nr_pages"][0])
        if isinstance(n, bool) or not hasattr(n, "__index__"):
            raise TypeError(f"n must be an integer, not {type(n).__name__}")
        n = n.__index__()
        if not 0 <= n <= limit:
            raise ValueError(f"n is {n}; it must lie in 0..{limit}, the machine's page frames")
        return n
