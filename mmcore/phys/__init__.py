"""Physical memory: maps, zones, watermarks, the buddy lists, migratetypes, per-CPU lists (mm/page_alloc.c, mm/mm_init.c)."""
