"""Zones, zonelists and what boot frees: recorded machines, the sharp tests, a twin, and arithmetic that must always hold."""

import json
import os
import re
import time
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mmcore.phys.memblock import boot_reservations, default_reservations, hash_pages, nr_sections
from mmcore.phys.memmap import I386_LOWMEM_END, MemoryMap, clip, merge, parse_size
from mmcore.phys.zonelists import check_distances, fallback_node_orders
from mmcore.phys.zones import BootPlan, core_pages, find_zone_movable_pfns, lowmem_range, plan_zones, zone_limits
from mmpy.config import MachineConfig
from tests.reference import make_plan

GOLDEN = Path(__file__).parents[1] / "golden" / "geometry"
REFERENCE = Path(os.environ.get("MMPY_REFERENCE", Path(__file__).parents[3] / "shared" / "reference"))
SHAPES = sorted(path.stem for path in GOLDEN.glob("*.json") if path.stem != "calibration")
GIB = 1 << 18
FOUR_GIB = 1 << 20


def cpu_list(text: str) -> list[int]:
    parts = [part.partition("-") for part in text.split(",") if part]
    return [cpu for low, _, high in parts for cpu in range(int(low), int(high or low) + 1)]


def golden_config(shape: dict) -> MachineConfig:
    """The machine of a shape, from how it was started alone."""
    return MachineConfig(
        sum(4096 * parse_size(size) for size in shape["nodes"]),
        nodes=shape["nodes"],
        cpus=[cpu_list(text) for text in shape["cpulists"]],
        distances=shape["distances"],
        arch=shape["arch"],
        kernel=shape["kernel"],
        chipset=shape["chipset"],
        **dict(word.split("=") for word in shape["cmdline"]),
    )


def load(name: str) -> dict:
    return json.loads((GOLDEN / f"{name}.json").read_text())


def geometry(plan: BootPlan) -> list[list]:
    return [[z.node, z.name, z.start_pfn, z.spanned, z.present] for z in plan.zones]


def populated(plan: BootPlan) -> dict:
    return {(z.node, z.name): (z.start_pfn, z.present) for z in plan.zones if z.present}


# ---------------------------------------------------------------- recorded machines


@pytest.mark.parametrize("name", SHAPES)
def test_zones_of_recorded_machines(name):
    shape = load(name)
    plan = golden_config(shape).plan()
    assert geometry(plan) == [row[:5] for row in shape["zones"]]
    assert plan.mobility_disabled is not shape["mobility_grouping"]
    if shape["fallback"]:
        assert [list(order) for order in plan.node_orders] == shape["fallback"]
    check_plan(plan)


@pytest.mark.parametrize("name", SHAPES)
def test_the_default_model_against_recorded_machines(name):
    """These boots had no enlarged log buffer and an initrd of their own; the rest of the model is as it is, and off by 4 pages at most."""
    shape = load(name)
    config = golden_config(shape)
    late = {what: kib // 4 for what, kib in shape["freeing_kib"].items()}
    keep, freed = default_reservations(
        config.plan().memmap, kernel=shape["kernel"], cpu_node=config.cpu_node, log_buf=0, initrd=late["initrd"]
    )
    plan = plan_zones(
        config.plan().memmap, cpu_node=config.cpu_node, distances=config.distances, kernelcore=config.kernelcore,
        movablecore=config.movablecore, reserved=keep, late_reserved=freed,
    )  # fmt: skip
    assert sum(plan.freed_late) == sum(late.values())
    for zone, ours, (_, _, _, _, present, managed) in zip(plan.zones, plan.managed, shape["zones"], strict=True):
        assert abs(ours - managed) <= 4, zone
        assert (ours == managed) or zone.name in ("Normal", "DMA32")
        assert abs((present - ours) - (present - managed)) <= 0.02 * (present - managed)


@pytest.mark.parametrize("name", SHAPES)
def test_managed_counts_are_met_exactly(name):
    shape = load(name)
    config = golden_config(shape)
    managed = {(node, zone): pages for node, zone, *_, pages in shape["zones"]}
    late = {key: min(2000, pages // 3) for key, pages in managed.items()}
    plan = plan_zones(
        config.plan().memmap,
        cpu_node=config.cpu_node,
        kernelcore=config.kernelcore,
        movablecore=config.movablecore,
        managed=managed,
        late=late,
    )
    assert plan.managed == tuple(managed.values())
    assert plan.freed_late == tuple(late.values())
    assert plan.totalram == sum(managed.values())
    assert not any(start < 256 for _, start, _ in plan.free_ranges + plan.late_ranges)
    check_plan(plan)


@pytest.mark.skipif(not (REFERENCE / "machines").is_dir(), reason=f"no recordings in {REFERENCE} (set MMPY_REFERENCE)")
def test_zones_of_every_machine_of_the_reference_set():
    machines = sorted((REFERENCE / "machines").iterdir())
    assert machines
    for machine in machines:
        boot = machine / "boot"
        dmesg = (boot / "dmesg").read_text()
        parameters = dict(word.partition("=")[::2] for word in (boot / "cmdline").read_text().split())
        cpus = {cpu: int(f.name[4:].split(".")[0]) for f in boot.glob("node*.cpulist") for cpu in cpu_list(f.read_text().strip())}
        memmap = MemoryMap.from_dmesg(dmesg)
        plan = plan_zones(
            memmap,
            kernel="6.12" if "Linux version 6.12." in dmesg else "6.1",
            cpu_node=[cpus[cpu] for cpu in sorted(cpus)] or [0] * int((boot / "nproc").read_text()),
            distances=[[int(d) for d in f.read_text().split()] for f in sorted(boot.glob("node*.distance"))] or None,
            kernelcore=parameters.get("kernelcore"),
            movablecore=parameters.get("movablecore"),
        )
        recorded = []
        for block in re.split(r"(?m)^Node ", (boot / "zoneinfo").read_text())[1:]:
            node, name = re.match(r"(\d+), zone +(\w+)", block).groups()
            figures = dict(re.findall(r"(?m)^\s+(spanned|present|start_pfn):?\s+(\d+)$", block))
            recorded.append([int(node), name, *(int(figures.get(key, 0)) for key in ("start_pfn", "spanned", "present"))])
        assert geometry(plan) == recorded, machine.name
        fallback = re.findall(r"Fallback order for Node \d+: ([\d ]+)", dmesg)
        assert [[int(n) for n in order.split()] for order in fallback] == [list(order) for order in plan.node_orders][: len(fallback)]
        assert plan.mobility_disabled is ("mobility grouping on" not in dmesg)
        assert MemoryMap.from_iomem((boot / "iomem").read_text(), plan.arch).spans() == merge(memmap.spans())


# ---------------------------------------------------------------- sharp tests


def test_7_zonelists_of_four_nodes_on_a_ring():
    """d01 = d02 = d13 = d23 = 20, d03 = d12 = 40; without the load of earlier nodes the last row would be 3 1 2 0."""
    ring = [[10, 20, 20, 40], [20, 10, 40, 20], [20, 40, 10, 20], [40, 20, 20, 10]]
    expected = ((0, 1, 2, 3), (1, 3, 0, 2), (2, 3, 0, 1), (3, 2, 1, 0))
    assert fallback_node_orders(ring, [True] * 4) == expected
    plan = MachineConfig("4G", nodes=4, distances=ring, cpus=[1, 1, 0, 0]).plan()
    assert plan.node_orders == expected
    # Zones from the highest down, only those with memory: node 0 has DMA and DMA32, 1 and 2 DMA32, 3 DMA32 (of the 3 GiB) or Normal.
    names = [[(plan.zones[zi].node, plan.zones[zi].name) for zi in fallback] for fallback, _ in plan.zonelists]
    assert names[0] == [(0, "DMA32"), (0, "DMA"), (1, "DMA32"), (2, "DMA32"), (3, "Normal")]
    assert names[3] == [(3, "Normal"), (2, "DMA32"), (1, "DMA32"), (0, "DMA32"), (0, "DMA")]
    assert [own for _, own in plan.zonelists] == [(1, 0), (6,), (11,), (17,)]


def test_8_movablecore_on_two_nodes():
    memmap = MemoryMap.qemu([2 * GIB, 2 * GIB], acpi_tail=32)
    plan = plan_zones(memmap, cpu_node=(0, 1), movablecore="1G")
    assert populated(plan) == {
        (0, "DMA"): (1, 3998), (0, "DMA32"): (4096, 520192), (1, "DMA32"): (524288, 262112), (1, "Movable"): (FOUR_GIB, 262144),
    }  # fmt: skip
    assert plan.zones[7].spanned == 0


def test_movablecore_takes_the_whole_highest_zone():
    memmap = MemoryMap.qemu([4 * GIB], acpi_tail=32)
    assert memmap.nr_pages == 1048446
    plan = plan_zones(memmap, movablecore="1G")
    assert populated(plan) == {(0, "DMA"): (1, 3998), (0, "DMA32"): (4096, 782304), (0, "Movable"): (FOUR_GIB, 262144)}


# ---------------------------------------------------------------- Movable


def movable(memmap: MemoryMap, **kw) -> dict:
    return find_zone_movable_pfns(memmap, zone_limits(memmap), **kw)


def test_movable_requests_that_change_nothing():
    memmap = MemoryMap.qemu([GIB])
    for amount in (None, 0, "0", "0%"):
        assert movable(memmap, kernelcore=amount, movablecore=amount) == {}
    for amount in ("1G", "100%", "8T"):
        assert movable(memmap, kernelcore=amount) == {}
    # A request beyond memory leaves the kernel what no zone but the highest could give: nothing of it is Movable.
    assert movable(memmap, movablecore="8T") == {}
    assert movable(memmap, kernelcore="16M") == {0: 5120}


def test_kernelcore_wins_over_movablecore():
    memmap = MemoryMap.qemu([GIB])
    assert movable(memmap, kernelcore="512M", movablecore="768M") == movable(memmap, kernelcore="512M")
    assert movable(memmap, kernelcore="128M", movablecore="256M") == movable(memmap, movablecore="256M") == {0: 196608}


def test_kernelcore_is_spread_evenly_and_what_a_small_node_lacks_over_the_rest():
    even = MemoryMap([(1, 4096, 0), (4096, 1 << 18, 0), (1 << 18, 2 << 18, 1)])
    assert movable(even, kernelcore="512M") == {0: 65536 + 1024, 1: (1 << 18) + 65536}
    # Node 0 (4095 pages, all below the usable start) cannot take its half.
    small = MemoryMap([(1, 4096, 0), (4096, 1 << 18, 1)])
    assert movable(small, kernelcore="64M") == {1: 4096 + 16384 - 4096 + 1024}


def test_percentages_of_memory():
    assert core_pages("25%", 524152, "kernelcore") == 131038
    assert core_pages(None, 100, "kernelcore") == 0
    with pytest.raises(ValueError, match="movablecore=mirror"):
        core_pages("mirror", 100, "movablecore")


def test_movable_pfn_may_be_given():
    memmap = MemoryMap.qemu([GIB])
    assert geometry(plan_zones(memmap, movable_pfn={0: 196608})) == geometry(plan_zones(memmap, movablecore="256M"))


# ---------------------------------------------------------------- zone boundaries


def test_a_zone_may_span_a_hole_and_have_no_memory():
    plan = plan_zones(MemoryMap([(1, 0x9F), (0x100, 4096), (FOUR_GIB, FOUR_GIB + 4096)]), reserved=[])
    assert [row[2:] for row in geometry(plan)] == [
        [1, 4095, 3998], [4096, FOUR_GIB - 4096, 0], [FOUR_GIB, 4096, 4096], [0, 0, 0], [0, 0, 0],
    ]  # fmt: skip
    assert plan.zonelists == (((2, 0), (2, 0)),)
    assert plan.populated == (True, False, True, False, False)


def test_all_memory_above_4_gib():
    plan = plan_zones(MemoryMap([(FOUR_GIB, FOUR_GIB + 65536)]), reserved=[])
    assert populated(plan) == {(0, "Normal"): (FOUR_GIB, 65536)}
    assert plan_zones(MemoryMap([(FOUR_GIB, FOUR_GIB + GIB)])).totalram > GIB * 0.8


@pytest.mark.parametrize(
    "end, names", [(4096, ["DMA"]), (4097, ["DMA", "DMA32"]), (FOUR_GIB, ["DMA", "DMA32"]), (FOUR_GIB + 1, ["DMA", "DMA32", "Normal"])]
)
def test_where_zones_end(end, names):
    plan = plan_zones(MemoryMap([(1, end)]), reserved=[])
    assert [z.name for z in plan.zones if z.present] == names
    assert sum(z.spanned for z in plan.zones) == end - 1


@pytest.mark.parametrize(
    "max_pfn, highmem, expected",
    [
        (225278, None, (225278, 225278)), (225279, None, (225278, 225279)), (1 << 20, None, (225278, 1 << 20)),
        (200000, 65536, (134464, 200000)),
        (81920, 65536, (16384, 81920)), (81920, 65537, (81920, 81920)),
        (81920, 81920, (81920, 81920)), (200000, 0, (200000, 200000)),
        (1 << 20, 65536, (225278, 290814)), (1 << 20, 0, (225278, 225278)), (300000, 1 << 20, (225278, 300000)),
    ],
)  # fmt: skip
def test_lowmem_of_a_32_bit_kernel(max_pfn, highmem, expected):
    assert lowmem_range(max_pfn, highmem, I386_LOWMEM_END) == expected


def test_highmem_cuts_zones():
    plan = MachineConfig("512M", arch="i386", highmem="256M").plan()
    assert populated(plan)[0, "HighMem"] == (0x20000 - 38 - 65536, 65536)
    # A machine with more memory than the kernel can map loses what highmem does not cover.
    cut = MachineConfig("4G", arch="i386", highmem="256M").plan()
    assert (cut.max_pfn, populated(cut)[0, "HighMem"]) == (I386_LOWMEM_END + 65536, (I386_LOWMEM_END, 65536))
    assert plan_zones(MemoryMap([(1, 1 << 18)], "i386"), lowmem_end=1 << 16, reserved=[]).zones[2].start_pfn == 1 << 16
    for kw in ({"highmem_pages": 4096}, {"lowmem_end": 4096}):
        with pytest.raises(ValueError, match="highmem is for arch 'i386'"):
            plan_zones(MemoryMap.qemu([GIB]), **kw)


def test_highmem_keeps_nothing_at_boot():
    plan = MachineConfig("4G", arch="i386", kernel="6.1").plan()
    zone = {z.name: i for i, z in enumerate(plan.zones)}
    assert plan.managed[zone["HighMem"]] == plan.zones[zone["HighMem"]].present == 823260
    assert plan.managed[zone["DMA"]] == 3840


@pytest.mark.parametrize("pages, off", [(2560 - 1, True), (2560, False)])
def test_mobility_grouping_needs_a_block_for_each_type(pages, off):
    assert plan_zones(MemoryMap([(4096, 4096 + pages)]), reserved=[]).mobility_disabled is off


# ---------------------------------------------------------------- nodes


def test_nodes_know_extents_cpus_and_distances():
    plan = MachineConfig("3G", nodes=["1G", "0", "2G"], cpus=[1, 2, 0], distances=[[10, 15, 20], [15, 10, 15], [20, 15, 10]]).plan()
    assert [(n.nid, n.start_pfn, n.spanned, n.present, n.cpus, n.distances) for n in plan.nodes] == [
        (0, 1, GIB - 1, GIB - 1 - 97, (0,), (10, 15, 20)),
        (1, 0, 0, 0, (1, 2), (15, 10, 15)),
        (2, GIB, 2 * GIB - 38, 2 * GIB - 38, (), (20, 15, 10)),
    ]
    # A node without memory has an empty list of its own, and tries the others by distance; the first of equals is that above it.
    assert plan.node_orders == ((0, 2), (2, 0), (2, 0))
    assert plan.zonelists[1] == ((11, 1, 0), ())
    assert plan.cpu_node == (0, 1, 1)


def naive_orders(distances, has_memory):
    """find_next_best_node as it is told: again and again the best of all unused nodes, over a shared load."""
    load, orders = [0] * len(has_memory), []
    for local in range(len(has_memory)):
        order, previous = [], local
        while len(order) < sum(has_memory):
            left = [n for n, memory in enumerate(has_memory) if memory and n not in order]
            best = local if local in left else min(left, key=lambda n: ((distances[local][n] + (n < local)) * 1024 + load[n], n))
            load[best] += distances[local][best] != distances[local][previous]
            previous = best
            order.append(best)
        orders.append(tuple(order))
    return tuple(orders)


@given(
    st.integers(1, 7).flatmap(
        lambda n: st.tuples(
            st.lists(st.sampled_from([11, 20, 21, 30]), min_size=n * n, max_size=n * n), st.lists(st.booleans(), min_size=n, max_size=n)
        )
    )
)
def test_one_sort_finds_the_best_node_each_time(drawn):
    flat, has_memory = drawn
    n = len(has_memory)
    distances = [[10 if i == j else flat[i * n + j] for j in range(n)] for i in range(n)]
    assert fallback_node_orders(distances, has_memory) == naive_orders(distances, has_memory)


def test_default_distances():
    assert check_distances(None, 3) == ((10, 20, 20), (20, 10, 20), (20, 20, 10))


# ---------------------------------------------------------------- what boot keeps


@pytest.mark.parametrize("ram, cpus, dma32, dma32_managed, normal, normal_managed", json.loads((GOLDEN / "calibration.json").read_text()))
def test_the_default_model_against_measured_boots(ram, cpus, dma32, dma32_managed, normal, normal_managed):
    plan = plan_zones(MemoryMap.qemu([parse_size(ram)], acpi_tail=32), cpu_node=[0] * cpus)
    assert [z.present for z in plan.zones] == [3998, dma32, normal, 0, 0]
    assert plan.managed[0] == 3840
    assert plan.freed_late == (0, 2017, 0, 0, 0)
    for ours, measured, present in ((plan.managed[1], dma32_managed, dma32), (plan.managed[2], normal_managed, normal)):
        assert ours == pytest.approx(measured, rel=0.001)
        assert present - ours == pytest.approx(present - measured, rel=0.001)
    check_plan(plan)


def test_the_default_model_on_two_nodes():
    """Measured when the watermarks were set: 500551, 245427 and 248961 pages; two CPUs on each node account for them."""
    plan = plan_zones(MemoryMap.qemu([2 * GIB, 2 * GIB], acpi_tail=32), cpu_node=(0, 0, 1, 1))
    found = [pages for pages in plan.managed_boot if pages]
    assert found == pytest.approx([3840, 500551, 245427, 248961], abs=5)


@pytest.mark.parametrize("size", ["32M", "33M", "48M", "64M", "96M", "128M", "200M", "1G", "3583M", "3584M", "5G", "32G", "1T", "7T"])
@pytest.mark.parametrize("arch, nodes, cpus", [("x86_64", 1, 1), ("x86_64", 1, 4), ("x86_64", 4, 4), ("i386", 1, 2)])
def test_the_default_model_scales(size, arch, nodes, cpus):
    if arch == "i386":
        size = {"1T": "48G", "7T": "60G"}.get(size, size)
    plan = MachineConfig(size, arch=arch, nodes=nodes, cpus=cpus).plan()
    check_plan(plan)
    lowmem = sum(zone.present for zone in plan.zones if zone.name != "HighMem")
    free = sum(pages for pages, zone in zip(plan.managed, plan.zones, strict=True) if zone.name != "HighMem")
    assert free > lowmem // 8
    assert sum(plan.freed_late) > 0
    assert sum(pages for _, pages in plan.parts) == plan.present_pages - sum(plan.managed_boot)


def test_more_memory_is_more_free_memory():
    sizes = [32, 40, 48, 64, 80, 96, 112, 128, 160, 192, 256, 384, 512, 1024, 2048, 3072, 4096]
    free = [MachineConfig(f"{size}M").plan().totalram for size in sizes]
    # Where the real kernel begins to fit, and where bounce buffers come in, a little is lost again.
    assert all(b > 0.6 * a for a, b in pairwise(free))
    assert sorted(free[7:]) == free[7:]


@pytest.mark.parametrize("size", ["31M", "16M", "4M"])
def test_machines_that_the_model_does_not_fit(size):
    with pytest.raises(ValueError, match=r"memory is .*; the model of what boot keeps needs 32M: give `reserved`"):
        MachineConfig(size).plan()
    assert MachineConfig(size, reserved=[]).plan().totalram == parse_size(size) - 256 - 38


def test_more_than_a_small_machine_can_keep():
    with pytest.raises(ValueError, match=r"memory is too small|would leave"):
        MachineConfig("32M", cpus=200).plan()


def test_large_hash_tables():
    """Entries as boot logs print them: dentry and inode caches of 128 MiB to 4 GiB, and of 64 GiB."""
    assert [hash_pages(n, 13) for n in (32632, 130936, 262008, 524152, 1048440)] == [32, 128, 256, 512, 1024]
    assert [hash_pages(n, 14) for n in (32632, 130936, 262008, 524152, 1048440)] == [16, 64, 128, 256, 512]
    assert (hash_pages(1 << 24, 13), hash_pages((1 << 24) + 1, 13)) == (16384, 16384)
    assert hash_pages(225180, 13, arch="i386") == 128


def test_sections_are_counted_once():
    assert nr_sections([(1, 0x9F), (0x100, 32768), (32768, 32769), (40000, 65536), (1 << 20, (1 << 20) + 1)]) == 3


def test_where_a_boot_puts_things():
    model = boot_reservations(MemoryMap.qemu([4 * GIB]), initrd=419, log_buf=0)
    # As a recorded boot log prints it: RAMDISK at 0xbfe2d000, bounce buffers at 0xbbe2d000, 64 MiB.
    assert model.late[0] == (0xBFE2D, 0xBFFD0)
    assert clip(model.reserved, 0x80000, FOUR_GIB) == [(0xBBE2D, 0xBFE2D)]
    assert dict(model.parts)["kernel image"] == 0x2C00
    assert clip(model.reserved, 0, 4096) == [(0, 256)] or clip(model.reserved, 0, 4096) == [(1, 0x9F)]


def test_given_ranges_replace_the_model():
    memmap = MemoryMap.qemu([GIB])
    plan = plan_zones(
        memmap, reserved=[(8192, 9000), (5000, 6000), (5500, 7000), (0x3FFFF, 0x40000)], late_reserved=[(6000, 6100), (100, 300)]
    )
    assert plan.free_ranges == ((0, 300, 4096), (1, 4096, 5000), (1, 7000, 8192), (1, 9000, GIB - 38))
    assert plan.late_ranges == ((1, 6000, 6100), (0, 256, 300))
    assert plan.reserved_ranges == ((0, 1, 0x9F), (1, 5000, 6000), (1, 6100, 7000), (1, 8192, 9000))
    check_plan(plan)
    assert plan_zones(memmap, reserved=()).totalram == memmap.nr_pages - 158


def test_a_range_freed_late_may_lie_in_several_zones():
    plan = plan_zones(MemoryMap.qemu([GIB]), reserved=[], late_reserved=[(4000, 4200)])
    assert plan.late_ranges == ((0, 4000, 4096), (1, 4096, 4200))


def test_given_counts_replace_the_model():
    plan = MachineConfig("4G", reserved={"Normal": 1000, "DMA": 10}).plan()
    assert plan.managed == (3840, 782298, 261144, 0, 0)
    assert plan.free_ranges == ((0, 256, 4096), (1, 4096, 0xBFFDA), (2, FOUR_GIB, FOUR_GIB + 261144))
    # Low memory counts as reserved; a zone that keeps more than that keeps its top.
    assert MachineConfig("4G", reserved={"DMA": 1158}).plan().free_ranges[0] == (0, 256, 3096)


def test_managed_pages_may_lie_below_1_mib_only_if_they_must():
    memmap = MemoryMap.qemu([GIB])
    assert plan_zones(memmap, managed={(0, "DMA"): 3840}).free_ranges[0] == (0, 256, 4096)
    assert plan_zones(memmap, managed={(0, 0): 3841}).free_ranges[:2] == ((0, 0x9E, 0x9F), (0, 256, 4096))
    assert plan_zones(memmap, managed={(0, 0): 100}, late={(0, 0): 40}).late_ranges == ((0, 316, 356),)
    assert plan_zones(memmap, managed={(0, 0): 0, (0, 1): 0}).totalram == 0


@pytest.mark.parametrize(
    "kw, message",
    [
        ({"managed": {(0, "DMA"): 3999}}, "managed of node 0, zone DMA is 3999 pages; it must lie in 0..3998"),
        ({"managed": {(0, "DMA"): -1}}, "0..3998"),
        ({"managed": {(1, "DMA"): 1}}, r"names zone \(1, 'DMA'\); the machine has \(0, 'DMA'\)"),
        ({"managed": {(0, "Normal"): 1}}, "0..0"),
        ({"managed": {(0, "DMA"): 10}, "late": {(0, "DMA"): 11}}, "late of node 0, zone DMA is 11 pages; the zone has 10"),
        ({"managed": {}, "reserved": [(1, 2)]}, "must be empty"),
        ({"managed": {}, "late_reserved": [(1, 2)]}, "must be empty"),
        ({"reserved": {"Normal": 1}}, "reserved of node 0, zone Normal is 1"),
        ({"reserved": [(0, 1 << 20)]}, "would keep all 262008 pages"),
        ({"late_reserved": [(5000, 6000), (5999, 7000)]}, "overlap: 0x1388-0x1770, 0x176f-0x1b58"),
        ({"reserved": [(5, 5)]}, "0x5-0x5"),
        ({"kernel": "4.19"}, "kernel is '4.19'"),
        ({"cpu_node": ()}, "needs a CPU"),
        ({"cpu_node": (-1,)}, "needs a CPU"),
        ({"cpu_node": (1024,)}, "1025 nodes"),
        ({"distances": []}, "0 rows; the machine has 1"),
        ({"kernelcore": "mirror"}, "mirror"),
    ],
)  # fmt: skip
def test_plans_that_cannot_be(kw, message):
    with pytest.raises(ValueError, match=message):
        plan_zones(MemoryMap.qemu([GIB]), **kw)


# ---------------------------------------------------------------- always


def pages_of(ranges) -> int:
    return sum(end - start for _, start, end in ranges)


def check_plan(plan: BootPlan) -> None:
    """What holds for every plan: the ranges of a zone lie in it, and kept, free and late pages make up its RAM."""
    for ranges in (plan.present_ranges, plan.free_ranges, plan.reserved_ranges):
        assert list(ranges) == sorted(ranges, key=lambda r: r[1])
        assert all(a[2] <= b[1] for a, b in pairwise(ranges))
    together = sorted(plan.free_ranges + plan.late_ranges + plan.reserved_ranges, key=lambda r: r[1])
    assert all(a[2] <= b[1] for a, b in pairwise(together))
    assert merge(r[1:] for r in together) == merge(r[1:] for r in plan.present_ranges) == merge(plan.memmap.spans())
    for zi, start, end in together:
        zone = plan.zones[zi]
        assert zone.start_pfn <= start < end <= zone.end_pfn
    for zi, zone in enumerate(plan.zones):
        assert zone.present == pages_of(r for r in plan.present_ranges if r[0] == zi) <= zone.spanned
        assert 0 <= plan.managed_boot[zi] <= plan.managed[zi] <= zone.present
        assert zone.spanned or not zone.start_pfn
    assert [(zone.node, zone.zid) for zone in plan.zones] == [(n, z) for n in range(len(plan.nodes)) for z in range(plan.nr_zone_types)]
    assert plan.totalram == pages_of(plan.free_ranges) + pages_of(plan.late_ranges)
    assert sorted(zi for _, own in plan.zonelists for zi in own) == [zi for zi, zone in enumerate(plan.zones) if zone.present]
    assert all(sorted(fallback) == sorted(plan.zonelists[0][0]) for fallback, _ in plan.zonelists)
    assert all(sum(z.present for z in plan.zones if z.node == n.nid) == n.present for n in plan.nodes)


@st.composite
def memory_maps(draw, arch="x86_64"):
    """A few ranges around the boundaries of zones and page blocks, on up to three nodes."""
    edges = [
        1,
        0x9F,
        0x100,
        2048,
        4095,
        4096,
        4097,
        6000,
        32768,
        65536,
        131072,
        225278,
        FOUR_GIB - 1,
        FOUR_GIB,
        FOUR_GIB + 1,
        FOUR_GIB + 50000,
    ]
    picked = sorted(draw(st.sets(st.sampled_from(edges), min_size=2, max_size=8)))
    nodes = draw(st.lists(st.integers(0, 0 if arch == "i386" else 2), min_size=len(picked), max_size=len(picked)))
    keep = draw(st.lists(st.booleans(), min_size=len(picked), max_size=len(picked)))
    ranges = [(a, b, n) for a, b, n, k in zip(picked, picked[1:], nodes, keep, strict=False) if k]
    assume(ranges)
    return MemoryMap(ranges, arch)


some_ranges = st.lists(st.tuples(st.integers(0, 70000), st.integers(1, 5000)).map(lambda t: (t[0], t[0] + t[1])), max_size=4)


@given(st.sampled_from(["x86_64", "i386"]).flatmap(memory_maps), some_ranges, st.integers(0, 3))
def test_plans_agree_with_the_twin_s(memmap, reserved, cpu):
    cpus = [0, 0 if memmap.arch == "i386" else cpu]
    twin = make_plan([(r.start_pfn, r.end_pfn, r.nid) for r in memmap], reserved=[*merge(reserved), (0, 256)], cpus=cpus, arch=memmap.arch)
    assume(any(end > start for _, start, end in twin.free_ranges))
    plan = plan_zones(memmap, reserved=reserved, cpu_node=cpus)
    spans_only = [z.spanned for z in plan.zones if z.spanned and not z.present]
    for ours, theirs in zip(plan.zones, twin.zones, strict=True):
        # The twin's zones without memory span nothing; the kernel's may span a hole.
        if ours.present or not ours.spanned:
            assert (ours.start_pfn, ours.spanned, ours.present) == (theirs.start_pfn, theirs.spanned, theirs.present)
    assert spans_only or geometry(plan) == [[z.node, z.name, z.start_pfn, z.spanned, z.present] for z in twin.zones]
    assert [tuple(r) for r in twin.present_ranges] == list(plan.present_ranges)
    assert merge(r[1:] for r in twin.free_ranges) == merge(r[1:] for r in plan.free_ranges)
    assert [(tuple(a), tuple(b)) for a, b in twin.zonelists] == list(plan.zonelists)
    assert (twin.max_pfn, twin.mobility_disabled) == (plan.max_pfn, plan.mobility_disabled)
    check_plan(plan)


@given(memory_maps(), st.sampled_from(["0%", "10%", "50%", "99%", "4M", "64M", "2G"]), st.booleans())
def test_movable_zones_keep_what_they_promise(memmap, amount, kernel):
    assume(memmap.max_pfn > 256)
    plan = plan_zones(memmap, **{"kernelcore" if kernel else "movablecore": amount}, reserved={}, managed=None)
    check_plan(plan)
    cut = {zone.node: zone.start_pfn for zone in plan.zones if zone.name == "Movable" and zone.spanned}
    wanted = core_pages(amount, memmap.nr_pages, "kernelcore")
    if kernel and cut:
        # At least so much for the kernel in all, however it is spread.
        assert sum(zone.present for zone in plan.zones if zone.name != "Movable") >= wanted
    for zone in plan.zones:
        if zone.node in cut and zone.name != "Movable" and zone.spanned:
            assert zone.end_pfn <= cut[zone.node]
    assert all(pfn % 1024 == 0 for pfn in cut.values())


def test_a_plan_costs_the_same_for_1_tib():
    def cost(size):
        times = []
        for _ in range(9):
            began = time.perf_counter()
            MachineConfig(size).plan()
            times.append(time.perf_counter() - began)
        return min(times)

    # Ranges only: nothing is done per page or section. Generous, as it must hold on any computer.
    assert cost("1T") < 20 * cost("1G")
    assert len(MachineConfig("1T").plan().free_ranges) < 16
