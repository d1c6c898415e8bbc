"""Allocation: the fast and slow path of alloc_pages and the ways to free (mm/page_alloc.c)."""
