"""The kernel's virtual layout and its conversions, against the specification's figures (virtual_memory.md 2)."""

import numpy as np
import pytest

from mmcore.sys import vmalloc
from mmcore.vm.layout import I386_PAGE_OFFSETS, KernelLayout, lowmem_limit, pkmap_base
from mmpy import Machine

FOUR = KernelLayout("4level", 1 << 20)
FIVE = KernelLayout("5level", 1 << 20)
PAE = KernelLayout("pae", 1 << 18)


@pytest.mark.parametrize(
    ("layout", "name", "start", "size"),
    [
        (FOUR, "guard hole", 0xFFFF800000000000, 8 << 40),
        (FOUR, "direct map", 0xFFFF888000000000, 64 << 40),
        (FOUR, "vmalloc", 0xFFFFC90000000000, 32 << 40),
        (FOUR, "vmemmap", 0xFFFFEA0000000000, 1 << 40),
        (FOUR, "kernel text", 0xFFFFFFFF80000000, 512 << 20),
        (FOUR, "modules", 0xFFFFFFFFA0000000, 0x5F000000),
        (FIVE, "guard hole", 0xFF00000000000000, 4 << 50),
        (FIVE, "direct map", 0xFF11000000000000, 32 << 50),
        (FIVE, "vmalloc", 0xFFA0000000000000, 12800 << 40),
        (FIVE, "vmemmap", 0xFFD4000000000000, 1 << 49),
    ],
)
def test_areas_of_x86_64(layout, name, start, size):
    area = next(a for a in layout.areas if a.name == name)
    assert (area.start, area.size) == (start, size)
    assert layout.area_of(start) is area
    assert start - 1 not in area
    assert area.end not in area


@pytest.mark.parametrize("paging", ["4level", "5level", "pae", "2level", "arm64-48", "arm64-39"])
def test_areas_do_not_overlap(paging):
    layout = KernelLayout(paging, 1 << 20)
    for before, after in zip(layout.areas, layout.areas[1:], strict=False):
        assert before.end <= after.start
    assert layout.area_of(0x1000) is None


def test_worked_conversions():
    """Section 2.1 and case 14: frame 0x12345."""
    for layout, address, descriptor in ((FOUR, 0xFFFF888012345000, 0xFFFFEA000048D140), (FIVE, 0xFF11000012345000, 0xFFD400000048D140)):
        assert layout.page_address(0x12345) == address
        assert layout.pfn_to_page(0x12345) == descriptor
        assert layout.page_to_pfn(descriptor) == 0x12345
        assert layout.virt_to_page(address + 0xFFF) == descriptor
        assert layout.va(0x12345678) == address + 0x678
        assert layout.pa(address + 0x678) == 0x12345678
    assert FOUR.pa(0xFFFFFFFF81000000) == 0x1000000


def test_arrays_convert_as_single_values_do():
    rng = np.random.default_rng(1)
    pfns = rng.integers(0, 1 << 20, 1000)
    for layout in (FOUR, FIVE):
        va = layout.page_address(pfns)
        assert va.dtype == np.uint64
        assert va.tolist() == [layout.page_address(int(p)) for p in pfns]
        assert (layout.pfn_of(va) == pfns.astype(np.uint64)).all()
        assert (layout.page_to_pfn(layout.virt_to_page(va)) == pfns.astype(np.uint64)).all()
        mixed = np.concatenate([va, np.array([0xFFFFFFFF80000000], np.uint64)])
        assert layout.pa(mixed).tolist() == [layout.pa(int(a)) for a in mixed]
    assert FOUR.va([0, 4096]).tolist() == [0xFFFF888000000000, 0xFFFF888000001000]
    assert FOUR.va(np.empty(0, np.uint64)).tolist() == []


def test_values_outside_are_named():
    with pytest.raises(ValueError, match=r"0x100000000 lies outside 0x0..0xffffffff"):
        FOUR.va(1 << 32)
    with pytest.raises(ValueError, match="0xffffc90000000000 lies outside"):
        FOUR.pa(0xFFFFC90000000000)
    with pytest.raises(ValueError, match="0x100000 lies outside"):
        FOUR.page_address(np.array([5, 1 << 20], np.uint64))
    with pytest.raises(ValueError, match="lies outside"):
        FOUR.va(-1)
    with pytest.raises(ValueError, match="-1 is negative"):
        FOUR.va(np.array([0, -1]))
    with pytest.raises(ValueError, match="within a descriptor"):
        FOUR.page_to_pfn(0xFFFFEA0000000001)
    with pytest.raises(ValueError, match=r"0xffffea0000000041 lies within"):
        FOUR.page_to_pfn(np.array([0xFFFFEA0000000040, 0xFFFFEA0000000041], np.uint64))
    for wrong in (1.5, True, "0", None):
        with pytest.raises(TypeError):
            FOUR.va(wrong)
    with pytest.raises(TypeError):
        FOUR.va(np.array([0.5]))
    with pytest.raises(ValueError, match="stand in no area"):
        PAE.pfn_to_page(1)
    with pytest.raises(ValueError, match="6level"):
        KernelLayout("6level", 1)
    with pytest.raises(ValueError, match="nr_pages is 0"):
        KernelLayout("4level", 0)
    with pytest.raises(ValueError, match="0xc0000001"):
        KernelLayout("pae", 1, page_offset=0xC0000001)


@pytest.mark.parametrize(
    ("frames", "lowmem", "start", "total"),
    [(1 << 18, 225278, 0xF77FE000, 122880), (1 << 19, 225278, 0xF77FE000, 122880), (0x1FFDA, 0x1FFDA, 0xE07DA000, 499856)],
)
def test_worked_figures_of_pae(frames, lowmem, start, total):
    layout = KernelLayout("pae", frames)
    assert layout.lowmem_pages == lowmem
    assert (layout.vmalloc.start, layout.vmalloc.end, layout.vmalloc_total_kib) == (start, 0xFEFFE000, total)
    assert layout.kmap is not None
    assert (layout.kmap.start, layout.kmap.size) == (0xFF000000, 2 << 20)
    assert layout.page_address(lowmem - 1) == 0xC0000000 + (lowmem - 1) * 4096
    if frames > lowmem:
        with pytest.raises(ValueError, match="lies outside"):
            layout.page_address(lowmem)


def test_other_32_bit_kernels():
    assert lowmem_limit() == 225278
    assert pkmap_base("2level") % (4 << 20) == 0
    two = KernelLayout("2level", 1 << 18)
    assert two.kmap is not None
    assert two.kmap.size == 4 << 20
    for offset in I386_PAGE_OFFSETS:
        layout = KernelLayout("pae", 1 << 20, page_offset=offset)
        assert layout.direct.start == offset
        assert layout.vmalloc.size == 120 << 20
        assert layout.va(0) == offset


def test_vmalloc_total_of_x86_64():
    assert FOUR.vmalloc_total_kib == 34359738367
    assert FIVE.vmalloc_total_kib == 13743895347199


def test_arm64():
    layout = KernelLayout("arm64-48", 1 << 20)
    assert layout.page_offset == 0xFFFF000000000000
    assert layout.direct.end == 0xFFFF800000000000
    assert layout.vmalloc.start == 0xFFFF800080000000
    assert layout.vmemmap is not None
    assert layout.vmemmap.end == 0xFFFFFFFFC0000000
    assert layout.page_to_pfn(layout.pfn_to_page(77)) == 77
    assert KernelLayout("arm64-39", 1 << 20).page_offset == 0xFFFFFF8000000000


@pytest.mark.parametrize(("memory", "arch"), [("1G", "x86_64"), ("512M", "i386"), ("1G", "i386"), ("2G", "i386"), ("16G", "i386")])
def test_the_core_uses_the_same_range(memory, arch):
    machine = Machine(memory, arch=arch)
    low = [z for z in machine.zones if z.spanned and z.name in ("DMA", "Normal")]
    lowmem = max(z.start_pfn + z.spanned for z in low) if arch == "i386" else None
    layout = KernelLayout("pae" if arch == "i386" else "4level", len(machine.state.pages), lowmem_pages=lowmem)
    assert vmalloc.bounds(machine.state) == (layout.vmalloc.start, layout.vmalloc_limit)


def test_the_core_knows_the_other_pagings():
    machine = Machine("64M")
    for number, paging in enumerate(("4level", "5level", "2level", "pae", "arm64-48", "arm64-39")):
        if paging not in ("2level", "pae"):
            machine.state.vm_globals["paging"] = number
            layout = KernelLayout(paging, len(machine.state.pages))
            assert vmalloc.bounds(machine.state) == (layout.vmalloc.start, layout.vmalloc_limit)
    machine = Machine("1G", arch="i386")
    machine.state.vm_globals["paging"] = 2
    layout = KernelLayout("2level", 1 << 18, lowmem_pages=225278)
    assert vmalloc.bounds(machine.state) == (layout.vmalloc.start, layout.vmalloc_limit)
