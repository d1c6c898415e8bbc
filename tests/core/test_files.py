"""Files from Python: reading, writing, truncation, advice, and who is charged."""

import numpy as np
import pytest

from mmpy import Machine
from mmpy.errors import MmapError


@pytest.fixture
def machine():
    return Machine("128M", thp="never")


def test_reads_and_writes_fill_the_cache(machine):
    file = machine.open("/data", "1M")
    assert file.read(0, 4096) == (1, 1)
    assert file.nr_cached == 4                      # the first read-ahead window
    assert file.read() == (256, 0)                  # windows are read ahead of it all the way
    assert file.nr_cached == 256
    assert file.write(1 << 20, "8K") == 2
    assert (file.size, file.nr_cached) == ((1 << 20) + 8192, 258)
    assert machine.vmstat["nr_dirty"] == 2
    assert file.fsync() == 2
    assert machine.vmstat["nr_dirty"] == 0
    file.fadvise("dontneed")
    assert file.nr_cached == 0
    machine.validate()


def test_truncation_and_holes_take_mapped_pages(machine):
    file = machine.open("/data", "64K")
    p = machine.spawn("p")
    at = p.mmap("64K", file=file)
    p.touch(np.arange(at, at + (64 << 10), 4096, dtype=np.uint64))
    file.punch_hole(0, "8K")
    assert file.nr_cached == 14
    file.truncate("16K")
    assert (file.size, file.nr_cached) == (16 << 10, 2)
    assert p.touch([at + (32 << 10)]).sigbus == 1
    machine.validate()


def test_pages_are_charged_to_the_group_of_the_reader(machine):
    group = machine.memcg("g", max="1M")
    p = machine.spawn("p", memcg=group)
    file = machine.open("/data", "4M")
    pages, missed = file.read(process=p)
    assert (pages, group.events["max"] > 0, group.current <= 1 << 20) == (1024, True, True)
    assert missed
    assert group.stat()["pgsteal"] > 0
    machine.validate()


def test_bad_input_is_named(machine):
    file = machine.open("/data", "4K")
    with pytest.raises(ValueError, match="sometimes"):
        file.fadvise("sometimes")
    with pytest.raises((ValueError, TypeError)):
        file.read(-1, 10)
    with pytest.raises((ValueError, MmapError)):
        file.write(0, 1 << 63)
    gone = machine.spawn("p")
    gone.exit()
    with pytest.raises(ValueError, match="no live process"):
        file.read(process=gone)
    file.unlink()
    for call in (file.read, file.fsync, lambda: file.truncate(0)):
        with pytest.raises(Exception, match=r"gone|file"):
            call()
