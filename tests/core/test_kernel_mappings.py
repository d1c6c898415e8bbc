"""The kernel's mappings as a person holds them: linear map, vmalloc, vmap, vmallocinfo, meminfo."""

import re

import numpy as np
import pytest

from mmcore.sys import vmalloc as core
from mmcore.sys import vmalloc_check
from mmpy import Gfp, GfpError, Machine, PageAllocFailure
from mmpy.kernel_mappings import LinearMap, vfree, vmalloc, vmallocinfo, vmap, vrealloc
from mmpy.proc.meminfo import meminfo_values

BASE = 0xFFFFC90000000000


def test_linear_map():
    machine = Machine("1G")
    linear = LinearMap(machine)
    assert linear.start == 0xFFFF888000000000
    assert linear.page_address(0x12345) == 0xFFFF888012345000
    assert linear.virt_to_page(0xFFFF888012345678) == linear.pfn_to_page(0x12345) == 0xFFFFEA000048D140
    assert linear.page_to_pfn(0xFFFFEA000048D140) == 0x12345
    pfns = machine.alloc_pages_many(100)
    assert (linear.pfn(linear.page_address(pfns)) == pfns).all()
    assert (linear.va(linear.pa(linear.page_address(pfns))) == linear.page_address(pfns)).all()
    assert "4level" in repr(linear)
    area = vmalloc(machine, 4096)
    with pytest.raises(ValueError, match=f"{area.address:#x} lies outside"):
        linear.pa(area.address)
    with pytest.raises(ValueError, match="lies outside"):
        linear.page_address(len(machine.state.pages))


def test_linear_map_of_i386_ends_with_lowmem():
    linear = LinearMap(Machine("2G", arch="i386"))
    assert (linear.start, linear.end) == (0xC0000000, 0xF6FFE000)
    with pytest.raises(ValueError, match="0x36ffe lies outside"):
        linear.page_address(0x36FFE)


def test_areas():
    machine = Machine("256M", cpus=2)
    area = vmalloc(machine, 10000, caller="module_alloc")
    assert (area.address, area.size, area.nr_pages) == (BASE, 12288, 3)
    assert len(area.pfns()) == 3
    assert vmalloc(machine, "2M", huge=True).address % (2 << 20) == 0
    assert meminfo_values(machine)["VmallocUsed"] == (3 + 512) * 4
    area.free()
    with pytest.raises(ValueError, match="was freed already"):
        area.free()
    with pytest.raises(ValueError, match="no area of vmalloc starts at 0x1000"):
        vfree(machine, 0x1000)
    other = vmalloc(machine, 3 * 4096, gfp=Gfp.KERNEL | Gfp.ZERO)
    with pytest.raises(ValueError, match=f"lies inside.*{other.address:#x}"):
        vfree(machine, other.address + 4096)
    vfree(machine, 0)
    vfree(machine, other)
    long = vmalloc(machine, "4M")
    with pytest.raises(ValueError, match="descriptor array"):
        vfree(machine, int(core.find(machine.state, long.address)["array"]))
    vmalloc_check.validate(machine.state)


def test_vmap():
    machine = Machine("64M")
    pfns = machine.alloc_pages_many(5)
    area = vmap(machine, pfns.astype(np.int64), caller="test")
    assert (area.nr_pages, area.size) == (5, 5 * 4096)
    assert area.pfns().tolist() == pfns.tolist()
    for bad in ([1, -5], [1 << 40]):
        with pytest.raises(ValueError, match="none of the machine's"):
            vmap(machine, bad)
    with pytest.raises(ValueError, match="at least one"):
        vmap(machine, [])
    with pytest.raises(TypeError):
        vmap(machine, [0.5])
    area.free()
    machine.free_pages_many(pfns)


def test_vrealloc():
    machine = Machine("64M")
    area = vmalloc(machine, 4096)
    assert vrealloc(machine, area, 100).address == area.address
    grown = vrealloc(machine, area, 8192)
    assert grown.nr_pages == 2
    with pytest.raises(ValueError, match="freed already"):
        vrealloc(machine, area, 1)
    with pytest.raises(PageAllocFailure):
        vrealloc(machine, grown, "1G")
    assert grown.pfns().shape == (2,)
    assert vrealloc(machine, grown, 0) is None
    assert vmalloc_check.validate(machine.state)["busy"] == 0


def test_refusals_name_what_is_wrong():
    machine = Machine("64M")
    before = machine.fork()
    with pytest.raises(ValueError, match="size is 0"):
        vmalloc(machine, 0)
    with pytest.raises(ValueError, match="size is -1"):
        vmalloc(machine, -1)
    with pytest.raises(TypeError, match="size"):
        vmalloc(machine, 1.5)
    with pytest.raises(ValueError, match="4X"):
        vmalloc(machine, "4X")
    with pytest.raises(GfpError, match="GFP_ATOMIC"):
        vmalloc(machine, 1, gfp=Gfp.ATOMIC)
    assert machine == before
    with pytest.raises(PageAllocFailure, match="68719476736 bytes are not to be had"):
        vmalloc(machine, "64G")
    vmalloc_check.validate(machine.state)


def test_vmallocinfo():
    machine = Machine("256M", nodes=2, cpus=2)
    vmalloc(machine, 16384, caller="dup_task_struct+0x5e/0x5b0")
    vmalloc(machine, "4M", node=1, cpu=1, caller="big")
    address = core.ioremap(machine.state, 0xFED00000, 4096, 0, "hpet_enable")
    area = vmap(machine, machine.alloc_pages_many(2))
    freed = vmalloc(machine, 1)
    freed.free()
    lines = vmallocinfo(machine).splitlines()
    assert lines[0] == "0xffffc90000000000-0xffffc90000005000   20480 dup_task_struct+0x5e/0x5b0 pages=4 vmalloc N0=4"
    big = next(line for line in lines if " big pages=1024" in line)
    assert re.fullmatch(r"0xffffc90000005000-0xffffc90000406000 4198400 big pages=1024 vmalloc vpages N1=1024", big)
    assert f"0x{address:016x}-0x{address + 8192:016x}    8192 hpet_enable phys=0x00000000fed00000 ioremap" in lines
    assert f"0x{area.address:016x}-0x{area.address + 12288:016x}   12288 vmap" in lines
    assert lines[-1] == f"0x{freed.address:016x}-0x{freed.address + 8192:016x}    8192 unpurged vm_area"
    assert len(lines) == 6
    # by vmap node: 64 KiB by 64 KiB in turn
    starts = [int(line.split("-")[0], 16) for line in lines[:-1]]
    assert starts == sorted(starts, key=lambda at: (at // 65536 % 2, at))
    assert vmallocinfo(Machine("64M")) == ""


@pytest.mark.parametrize(
    ("memory", "arch", "total"), [("1G", "x86_64", 34359738367), ("2G", "i386", 122880), ("1G", "i386", 122880), ("512M", "i386", 499856)]
)
def test_vmalloc_total(memory, arch, total):
    assert meminfo_values(Machine(memory, arch=arch))["VmallocTotal"] == total
