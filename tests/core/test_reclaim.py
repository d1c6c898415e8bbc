"""Reclaim from Python: kswapd between its marks, groups at their limit, pages of zones that do not help, what stays."""

import numpy as np
import pytest

from mmpy import Machine, PageAllocFailure, workloads

PAGE = 4096


def touch_all(process, address, nbytes, write=True):
    return process.touch(np.arange(address, address + nbytes, PAGE, dtype=np.uint64), write=write)


def test_kswapd_wakes_below_low_and_stops_at_high():
    machine = Machine("128M", thp="never")
    machine.swapon("256M")
    p = machine.spawn("p")
    at = p.mmap("192M")
    result = touch_all(p, at, 192 << 20)
    assert (result.minor, result.oom) == (192 << 8, 0)
    zone = next(z for z in machine.zones if z.name == "DMA32")
    assert zone.min < zone.nr_free_pages <= zone.high + 64
    assert machine.vmstat["pgscan_kswapd"] > 0
    assert machine.vmstat["pswpout"] > 60 << 8
    assert p.rss["anon"] + p.rss["swap"] == 192 << 8
    machine.validate()
    again = touch_all(p, at, 1 << 20, write=False)
    assert again.major > 0
    p.exit()
    machine.validate()
    assert machine.swaps[0].used <= 128 * PAGE      # slots that a CPU keeps in stock


def test_pages_of_higher_zones_are_passed_over():
    """Memory for DMA is wanted, all that could be reclaimed lies above: the walk comes round the list and ends."""
    machine = Machine("64M", thp="never")
    machine.swapon("64K")
    p = machine.spawn("p")
    at = p.mmap("30M")
    touch_all(p, at, 30 << 20)
    taken = machine.alloc_pages_many(8000, 0, 0xCC1)
    assert 1000 < len(taken) < 8000
    with pytest.raises(PageAllocFailure):
        machine.alloc_pages(0, 0xCC1)
    touch_all(p, at, 30 << 20)
    machine.validate()


@pytest.mark.parametrize("kind", ["anon", "file", "shmem"])
def test_a_group_stays_below_its_limit(kind):
    machine = Machine("256M", thp="never")
    machine.swapon("64M")
    group = machine.memcg("g", max="8M")
    p = machine.spawn("p", memcg=group)
    file = machine.open("/f", "16M", kind="shmem" if kind == "shmem" else "disk") if kind != "anon" else None
    at = p.mmap("16M", file=file) // PAGE if kind == "anon" else p.mmap("16M", file=file, flags=1) // PAGE
    pages, writes = workloads.zipf(4096, 20_000, seed=3, write=kind != "file")
    result = p.touch((pages + at) * PAGE, write=writes)
    assert result.oom == 0
    assert group.current <= 8 << 20
    assert group.events["max"] > 0
    stat = group.stat()
    assert 0 < stat["pgsteal"] <= stat["pgscan"]
    machine.validate()
    p.exit()
    machine.validate()


def test_without_swap_anonymous_memory_stays_and_the_cache_goes():
    machine = Machine("64M", thp="never")
    file = machine.open("/f", "32M")
    file.read()
    p = machine.spawn("p")
    at = p.mmap("40M")
    result = touch_all(p, at, 40 << 20)
    assert result.oom == 0
    assert p.rss["anon"] == 40 << 8
    assert file.nr_cached < 8192
    machine.validate()


def test_reclaim_can_be_off():
    machine = Machine("64M", thp="never")
    machine.reclaim = False
    machine.open("/f", "128M").read()
    with pytest.raises(TypeError, match="True or False"):
        machine.reclaim = 1
    assert machine.vmstat["pgscan_kswapd"] == machine.vmstat["pgscan_direct"] == 0


def test_a_split_folio_stays_with_its_group():
    machine = Machine("256M", thp="always")
    group = machine.memcg("g")
    p = machine.spawn("p", memcg=group)
    at = p.mmap("4M")
    touch_all(p, at, 4 << 20)
    p.munmap(at + (2 << 20), PAGE)
    machine.thp.shrink_deferred(1)
    machine.validate()
    p.exit()
    machine.validate()
    assert group.current <= 64 * PAGE               # what a CPU keeps in stock
