"""Page tables of mapped runs: the recorded group's page-table pages beside those of a simulated process that maps and touches the same.

The recorded programs ran with randomised addresses, so where a mapping began inside a 2 MiB block is not known: for a length of whole
blocks of anonymous memory the kernel aligns it, and the number is exact but for a PMD table at a border of 1 GiB; for the rest some
place must give the recorded number.
"""

import csv
import os
from pathlib import Path

import numpy as np
import pytest

from mmpy import Machine
from mmpy.vmflags import Map, Prot

REFERENCE = Path(os.environ.get("MMPY_REFERENCE", Path(__file__).parents[3] / "shared" / "reference"))
BLOCK = 512
RUNS = REFERENCE / "reclaim" / "runs.csv"


def mapped_runs():
    """(case, mode, pages, recorded tables) of the runs that map memory, once each."""
    if not RUNS.exists():
        return []
    with RUNS.open() as lines:
        rows = [r for r in csv.DictReader(lines) if r["end_pagetables"] not in ("", "0") and int(r["pages"])]
    found = {(r["case"], r["mode"], int(r["pages"]), int(r["end_pagetables"])) for r in rows}
    return sorted(found)


def tables_of(pages: int, taken: int, file: bool) -> int:
    """Tables that a mapping of so many pages adds when the program holds `taken` pages of the block above it."""
    machine = Machine("512M", thp="never")
    p = machine.spawn(exec=True)
    above = p.mmap((BLOCK * 2 + taken) * 4096, addr=(1 << 46) - (BLOCK * 2 + taken) * 4096, flags=Map.PRIVATE | Map.ANONYMOUS | Map.FIXED)
    p.touch(np.arange(above, above + BLOCK * 2 * 4096, 4096, dtype=np.uint64), write=True)
    before = p.page_table_bytes
    start = above - pages * 4096
    if file:
        kind = machine.open("data", pages * 4096)
        at = p.mmap(pages * 4096, addr=start, prot=Prot.READ, flags=Map.SHARED | Map.FIXED, file=kind)
    else:
        at = p.mmap(pages * 4096, addr=start, flags=Map.PRIVATE | Map.ANONYMOUS | Map.FIXED)
    p.touch(np.arange(at, at + pages * 4096, 4096, dtype=np.uint64), write=not file)
    return (p.page_table_bytes - before) // 4096


def expected(pages: int) -> set[int]:
    """What a mapping below an existing table can add: a table a block, the topmost perhaps there already; a PMD table at a 1 GiB border."""
    low, high = -(-(pages - BLOCK + 1) // BLOCK), -(-pages // BLOCK)
    return set(range(low, high + 2))


@pytest.mark.parametrize(("case", "mode", "pages", "tables"), mapped_runs())
def test_recorded_tables(case, mode, pages, tables):
    assert tables in expected(pages), case
    if mode == "anon" and pages % BLOCK == 0:
        machine = Machine("512M", thp="never")
        p = machine.spawn(exec=True)
        at = p.mmap(pages * 4096)
        before = p.page_table_bytes
        p.touch(np.arange(at, at + pages * 4096, 4096, dtype=np.uint64), write=True)
        assert at % (BLOCK * 4096) == 0
        # one more where the program's random place lay across a border of 1 GiB, which takes a PMD table (ours does not)
        assert tables - (p.page_table_bytes - before) // 4096 in (0, 1)


@pytest.mark.parametrize("pages", [7372, 9011, 13107])
@pytest.mark.parametrize("file", [False, True])
def test_every_number_of_the_recordings_has_a_place(pages, file):
    recorded = {tables for _, mode, n, tables in mapped_runs() if n == pages and (mode == "file") == file}
    found = {tables_of(pages, taken, file) for taken in (1, 200, 250, 400, 511)}
    assert recorded <= found
    assert found <= expected(pages)
