"""Memory maps: sizes, QEMU's layouts, the texts of real machines, and everything that is no map."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmcore.phys.memmap import (
    ARCH_MAX_PFN,
    MAX_PFN,
    MemoryMap,
    MemoryRange,
    clip,
    format_size,
    merge,
    parse_size,
    subtract,
)

GOLDEN = Path(__file__).parents[1] / "golden" / "geometry"
SHAPES = sorted(path.stem for path in GOLDEN.glob("*.json") if path.stem != "calibration")
TEXTS = sorted(path.name.removesuffix(".dmesg.txt") for path in GOLDEN.glob("*.dmesg.txt"))
GIB = 1 << 18


def shape(name: str) -> dict:
    return json.loads((GOLDEN / f"{name}.json").read_text())


def recorded_ranges(name: str) -> list[tuple[int, int, int]]:
    return [(int(a, 16) >> 12, (int(b, 16) + 1) >> 12, nid) for nid, a, b in shape(name)["early_ranges"]]


def rows(memmap: MemoryMap) -> list[tuple[int, int, int]]:
    return [(r.start_pfn, r.end_pfn, r.nid) for r in memmap]


# ---------------------------------------------------------------- sizes


@pytest.mark.parametrize(
    "text, pages",
    [
        ("4G", 4 * GIB), ("4g", 4 * GIB), ("512M", 131072), (" 4 GiB ", 4 * GIB), ("1.5G", 393216), ("4096", 1), ("0x1000", 1),
        ("8T", MAX_PFN), (4096, 1), (0, 0), ("0", 0), ("4K", 1), ("0.5M", 128), ("128kb", 32),
    ],
)  # fmt: skip
def test_sizes(text, pages):
    assert parse_size(text) == pages


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "G",
        "4X",
        "four",
        "4G4",
        "-4G",
        "4095",
        "1e9",
        "1.0001K",
        "8.5T",
        "99999999999999999999G",
        "9" * 5000,
        -4096,
        1,
        MAX_PFN * 4096 + 4096,
    ],
)
def test_sizes_that_are_none(bad):
    with pytest.raises(ValueError, match="memory is"):
        parse_size(bad)


@pytest.mark.parametrize("bad", [None, 4096.0, True, [4096], b"4G"])
def test_sizes_of_the_wrong_kind(bad):
    with pytest.raises(TypeError, match="memory must be an integer"):
        parse_size(bad)


@given(st.integers(0, MAX_PFN))
def test_a_size_survives_its_text(pages):
    assert parse_size(format_size(pages)) == pages


def test_the_shortest_text():
    assert [format_size(n) for n in (0, 1, 256, 393216, 4 * GIB, 4 << 28, 1048446)] == ["0", "4K", "1M", "1536M", "4G", "4T", "4193784K"]


# ---------------------------------------------------------------- QEMU's machines


@pytest.mark.parametrize("name", SHAPES)
def test_a_sized_machine_has_the_recorded_map(name):
    recorded = shape(name)
    memmap = MemoryMap.qemu([parse_size(size) for size in recorded["nodes"]], chipset=recorded["chipset"], arch=recorded["arch"])
    assert rows(memmap) == recorded_ranges(name)


@pytest.mark.parametrize(
    "chipset, pages, low, high",
    [
        ("pc", 0xE0000 - 1, 0xE0000 - 1, 0), ("pc", 0xE0000, 0xC0000, 0x20000),
        ("q35", 0xB0000 - 1, 0xB0000 - 1, 0), ("q35", 0xB0000, 0x80000, 0x30000),
    ],
)  # fmt: skip
def test_where_low_memory_is_cut(chipset, pages, low, high):
    expected = [(1, 0x9F, 0), (0x100, low - 38, 0)] + ([(1 << 20, (1 << 20) + high, 0)] if high else [])
    assert rows(MemoryMap.qemu([pages], chipset=chipset)) == expected


@pytest.mark.parametrize("chipset, tail", [("pc", 32), ("q35", 33), ("pc", 0)])
def test_the_firmware_s_pages_are_a_parameter(chipset, tail):
    assert rows(MemoryMap.qemu([2 * GIB], chipset=chipset, acpi_tail=tail))[1] == (0x100, 2 * GIB - tail, 0)


def test_a_node_on_both_sides_of_the_hole():
    memmap = MemoryMap.qemu([2 * GIB, 2 * GIB, 0, GIB])
    assert rows(memmap) == [
        (1, 0x9F, 0), (0x100, 0x80000, 0), (0x80000, 0xC0000 - 38, 1), (0x100000, 0x140000, 1), (0x140000, 0x180000, 3),
    ]  # fmt: skip
    assert memmap.nr_nodes == 4
    assert memmap.by_node() == {nid: memmap.node_ranges(nid) for nid in (0, 1, 3)}
    assert memmap.node_ranges(2) == []


@pytest.mark.parametrize("pages", [0, 256, 256 + 38])
def test_too_small_for_firmware(pages):
    with pytest.raises(ValueError, match=f"memory is {pages} pages"):
        MemoryMap.qemu([pages])
    MemoryMap.qemu([256 + 39])


def test_qemu_machines_that_are_none():
    with pytest.raises(ValueError, match="chipset is 'isa'"):
        MemoryMap.qemu([GIB], chipset="isa")
    with pytest.raises(ValueError, match="node 1 has -1"):
        MemoryMap.qemu([GIB, -1])
    with pytest.raises(ValueError, match="1025 nodes; the limit is 1024"):
        MemoryMap.qemu([1024] * 1025)
    with pytest.raises(TypeError, match="node 0"):
        MemoryMap.qemu([1.5])
    with pytest.raises(ValueError, match="limit of x86_64"):
        MemoryMap.qemu([MAX_PFN])
    with pytest.raises(ValueError, match="limit of i386"):
        MemoryMap.qemu([ARCH_MAX_PFN["i386"]], arch="i386")


# ---------------------------------------------------------------- maps by hand


def test_ranges_are_sorted_merged_and_without_page_frame_0():
    memmap = MemoryMap([(512, 1024), (0, 256), MemoryRange(256, 512), (1024, 2048, 1)])
    assert memmap.ranges == (MemoryRange(1, 1024, 0), MemoryRange(1024, 2048, 1))
    assert (memmap.nr_pages, memmap.min_pfn, memmap.max_pfn, memmap.nr_nodes, len(memmap)) == (2047, 1, 2048, 2, 2)
    assert [pfn in memmap for pfn in (0, 1, 2047, 2048)] == [False, True, True, False]
    assert memmap.truncate(1500).spans() == [(1, 1024), (1024, 1500)]
    assert memmap.truncate(2048) is memmap


@pytest.mark.parametrize(
    "ranges, arch, message",
    [
        ([], "x86_64", "at least one range"),
        ([(5, 5)], "x86_64", "0x5-0x5"),
        ([(9, 5)], "x86_64", "0x9-0x5"),
        ([(-1, 5)], "x86_64", "begin at 0"),
        ([(0, 1)], "x86_64", "page frame 0"),
        ([(1, 9), (8, 10)], "x86_64", "overlap: 0x1-0x9 .* and 0x8-0xa"),
        ([(1, 9, 0), (1, 9, 1)], "x86_64", "overlap"),
        ([(1, MAX_PFN + 1)], "x86_64", f"{MAX_PFN:#x}"),
        ([(1, 1 << 70)], "x86_64", f"{MAX_PFN:#x}"),
        ([(1, (1 << 24) + 1)], "i386", "0x1000000, the limit of i386"),
        ([(1, 9, 1024)], "x86_64", "node 1024"),
        ([(1, 9, -1)], "x86_64", "node -1"),
        ([(1, 9, 1)], "i386", "node 1"),
        ([(1, 9)], "arm64", "arch is 'arm64'"),
        ([(2 * i + 1, 2 * i + 2) for i in range(4097)], "x86_64", "4097 separate ranges"),
    ],
)
def test_maps_that_cannot_be(ranges, arch, message):
    with pytest.raises(ValueError, match=message):
        MemoryMap(ranges, arch)


@pytest.mark.parametrize("ranges", [None, 7, "12", {1: 2}, [7], ["12"], [(1, 2, 3, 4)], [(1,)], [(1.0, 2)], [(1, True)], [(1, 9, None)]])
def test_maps_of_the_wrong_kind(ranges):
    with pytest.raises(TypeError):
        MemoryMap(ranges)


def test_the_highest_page_frames_can_be_named():
    assert MemoryMap([(MAX_PFN - 1, MAX_PFN)]).max_pfn == MAX_PFN
    assert MemoryMap([((1 << 24) - 1, 1 << 24)], "i386").nr_pages == 1


def test_a_map_survives_plain_data():
    memmap = MemoryMap.qemu([GIB, 4 * GIB])
    assert MemoryMap.from_dict(json.loads(json.dumps(memmap.to_dict()))) == memmap
    for bad in ({}, {"arch": "x86_64"}, {"arch": "x86_64", "ranges": [[1, 2]], "x": 1}, []):
        with pytest.raises(ValueError):
            MemoryMap.from_dict(bad)


# ---------------------------------------------------------------- texts


@pytest.mark.parametrize("name", TEXTS)
def test_boot_logs_and_iomem_of_real_machines(name):
    dmesg = (GOLDEN / f"{name}.dmesg.txt").read_text()
    memmap = MemoryMap.from_dmesg(dmesg)
    assert rows(memmap) == recorded_ranges(name)
    assert memmap.arch == shape(name)["arch"]
    # Neither the e820 table nor iomem knows nodes.
    flat = merge(memmap.spans())
    assert MemoryMap.from_dmesg(dmesg.replace("Early memory", "")).spans() == flat
    assert MemoryMap.from_iomem((GOLDEN / f"{name}.iomem.txt").read_text(), memmap.arch).spans() == flat


def test_only_whole_pages_are_memory():
    e820 = "<6>BIOS-e820: [mem 0x0000000000000100-0x0000000000005fff] usable\nBIOS-e820: [mem 0x8800-0x9ffe] usable\n"
    assert MemoryMap.from_dmesg(e820).spans() == [(1, 6)]
    assert MemoryMap.from_iomem("00001000-00001fff : System RAM\n00002800-00002fff : System RAM").spans() == [(1, 2)]


def test_what_the_kernel_takes_off_the_e820_table():
    table = "BIOS-e820: [mem 0x0-0x3fffff] usable\nBIOS-e820: [mem 0x400000-0x4fffff] ACPI data\n"
    assert MemoryMap.from_dmesg(table).spans() == [(1, 0xA0), (0x100, 0x400)]
    table += "e820: update [mem 0x00000000-0x00000fff] usable ==> reserved\ne820: remove [mem 0x200800-0x2017ff] usable\n"
    assert MemoryMap.from_dmesg(table).spans() == [(1, 0xA0), (0x100, 0x200), (0x202, 0x400)]


@pytest.mark.parametrize(
    "parse, text, message",
    [
        (MemoryMap.from_dmesg, "", "tells of no RAM"),
        (MemoryMap.from_dmesg, "Early memory node ranges\n", "tells of no RAM"),
        (MemoryMap.from_dmesg, "Early memory node ranges\n  node   0: [mem 0x2000-0x1000]\n", "ends before it begins"),
        (MemoryMap.from_dmesg, "BIOS-e820: [mem 0x2000-0x1000] usable", "ends before it begins"),
        (MemoryMap.from_dmesg, "Early memory node ranges\n node 0: [mem 0x0-0xffffffffffffffffffff]\n", "limit of x86_64"),
        (MemoryMap.from_dmesg, "Early memory node ranges\n node 4000: [mem 0x1000-0x1fff]\n", "node 4000"),
        (MemoryMap.from_iomem, "", "no line of 'System RAM'"),
        (MemoryMap.from_iomem, "00000000-00000000 : System RAM\n00000000-00000000 : System RAM\n", "privilege"),
        (MemoryMap.from_iomem, "00002000-00001000 : System RAM\n", "ends before it begins"),
    ],
)
def test_texts_that_tell_no_map(parse, text, message):
    with pytest.raises(ValueError, match=message):
        parse(text)


# ---------------------------------------------------------------- sets of page frames

spans = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 9)).map(lambda t: (t[0], t[0] + t[1])), max_size=6)


def pages(ranges):
    return {pfn for start, end in ranges for pfn in range(start, end)}


@given(spans, spans, st.integers(0, 70), st.integers(0, 70))
def test_range_arithmetic_is_that_of_sets(a, b, low, high):
    a, b = merge(a), merge(b)
    assert pages(subtract(a, b)) == pages(a) - pages(b)
    assert pages(clip(a, low, high)) == pages(a) & set(range(low, high))
    for result in (a, subtract(a, b)):
        assert result == merge(result)
