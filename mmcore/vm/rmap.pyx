"""Reverse mapping of single pages: all of it is inline, in rmap.pxd.

Models: folio_add_new_anon_rmap, folio_try_dup_anon_rmap_pte, folio_remove_rmap_pte, folio_move_anon_rmap, folio_add_file_rmap_pte
(mm/rmap.c, v6.12). Simplifies: a page with one mapping that was never shared names its page-table entry instead of an anon_vma, so that
neither faults nor reclaim touch its cold record; its mapcount and index follow from the entry. Omits: folios of more than one page
(sys/thp), KSM, device memory.
"""
