"""Watermarks, protections and sizes measured on real machines (tests 1 to 6 of the specification)."""

import pytest

from tests.model.shapes import FOUR_GIB, LOW, RESERVED, Shape, filled, one_gib
from tests.reference import make_plan

DMA, DMA32, NORMAL, MOVABLE, DEVICE = range(5)
MIN_FREE, SCALE = "vm.min_free_kbytes", "vm.watermark_scale_factor"
RATIO, FRACTION = "vm.lowmem_reserve_ratio", "vm.percpu_pagelist_high_fraction"
THP = "kernel.mm.transparent_hugepage.enabled"


def zones(machine) -> list[dict]:
    return [zone for _, zone in sorted(machine.allocator_state()["zones"].items())]


def wmarks(machine) -> list[tuple]:
    return [tuple(zone["wmark"]) for zone in zones(machine)]


def test_1_four_gib(backend):
    machine = backend.boot(filled(754348, 239230, cpus=(0, 0)))
    assert machine.sysctl[MIN_FREE] == 67584
    assert wmarks(machine) == [
        (65, 81, 97, 113),
        (12778, 15972, 19166, 22360),
        (4052, 5065, 6078, 7091),
        (32, 32, 32, 32),
        (0, 0, 0, 0),
    ]
    reserves = [tuple(zone["lowmem_reserve"]) for zone in zones(machine)]
    assert reserves[:3] == [(0, 2946, 3881, 3881, 3881), (0, 0, 934, 934, 934), (0, 0, 0, 0, 0)]
    assert machine.totalreserve_pages == 30018
    assert [zone["pcp"][0]["batch"] for zone in zones(machine)[:3]] == [1, 63, 63]
    assert [machine.stat_threshold(0, zid) for zid in (DMA, DMA32, NORMAL)] == [4, 24, 16]


def test_2_below_512_mib_huge_pages_change_nothing(backend):
    machine = backend.boot(filled(108399))
    assert machine.sysctl[MIN_FREE] == 2680
    assert wmarks(machine)[:2] == [(22, 27, 32, 37), (647, 808, 969, 1130)]
    assert zones(machine)[DMA32]["pcp"][0]["batch"] == 31


def test_3_without_huge_pages_the_default_is_taken_twice(backend):
    assert backend.boot(filled(754348, 239230, thp="never")).sysctl[MIN_FREE] == 7973


def test_4_late_frees_change_no_watermark_until_someone_writes(backend):
    machine = backend.boot(filled(754348, 753790, late=2017))
    assert zones(machine)[DMA32]["managed"] == 756365
    assert [wmarks(machine)[zid][0] for zid in (DMA32, NORMAL)] == [8429, 8423]
    assert machine.sysctl_write(SCALE, 10) == 0
    assert wmarks(machine)[DMA32] == (8440, 10550, 12660, 14770)
    assert wmarks(machine)[NORMAL] == (8412, 10515, 12618, 14721)


def test_5_sysctls(backend):
    machine = backend.boot(filled(754348, 753790, late=2017))
    before = wmarks(machine)
    assert machine.sysctl_write(RATIO, (0, 1, 2, 3, 4)) == 0
    reserves = [tuple(zone["lowmem_reserve"]) for zone in zones(machine)]
    assert reserves[DMA] == (0,) * 5
    assert reserves[DMA32] == (0, 0, 753790, 753790, 753790)
    assert wmarks(machine) == before
    assert machine.sysctl_write(MIN_FREE, 0) == 0
    assert wmarks(machine)[NORMAL][0] == 0
    assert machine.sysctl_write(THP, "madvise") == 0
    assert machine.sysctl[MIN_FREE] == 67584
    assert machine.sysctl_write(THP, "never") == 0
    assert machine.sysctl[MIN_FREE] == 9760


def test_6_movable_zone(backend):
    ram = [*LOW, (4096, 4096 + 754348, 0), (FOUR_GIB, FOUR_GIB + 239229, 0)]
    plan = make_plan(ram, reserved=RESERVED, movable_start={0: FOUR_GIB})
    machine = backend.boot(Shape(plan))
    assert machine.sysctl[MIN_FREE] == 45056
    assert zones(machine)[MOVABLE]["managed"] == 239229
    assert wmarks(machine)[MOVABLE] == (128, 1016, 1904, 2792)


def test_pcp_sizes_of_one_gib(backend):
    machine = backend.boot(one_gib())
    assert wmarks(machine)[DMA32][:3] == (11084, 13855, 16626)
    pcp = zones(machine)[DMA32]["pcp"][0]
    assert [pcp[field] for field in ("batch", "high_min", "high_max", "high")] == [63, 13855, 29653, 0]


def test_pcp_high_fraction_fixes_high(backend):
    machine = backend.boot(one_gib())
    assert machine.sysctl_write(FRACTION, 8) == 0
    managed = zones(machine)[DMA32]["managed"]
    pcp = zones(machine)[DMA32]["pcp"][0]
    assert (pcp["high_min"], pcp["high_max"]) == (managed // 8,) * 2
    assert machine.sysctl_write(FRACTION, 0) == 0
    assert zones(machine)[DMA32]["pcp"][0]["high_min"] == 13855


@pytest.mark.parametrize(
    ("name", "value"),
    [(FRACTION, 1), (FRACTION, 7), (FRACTION, -1), (SCALE, 0), (SCALE, 3001), (MIN_FREE, -1), (RATIO, (1,) * 6)],
)
def test_values_that_are_refused_change_nothing(backend, name, value):
    machine = backend.boot(filled(108399))
    before = machine.allocator_state()
    assert machine.sysctl_write(name, value) == -22
    assert machine.allocator_state() == before
