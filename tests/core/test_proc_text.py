"""The /proc texts, byte for byte: what is read from a recording is written again as it was."""

from types import SimpleNamespace

import pytest

from mmpy.proc import (
    Proc,
    format_meminfo,
    format_vmstat,
    parse_buddyinfo,
    parse_meminfo,
    parse_pagetypeinfo,
    parse_vmstat,
    parse_zoneinfo,
    write_buddyinfo,
    write_pagetypeinfo,
    write_vmstat,
    write_zoneinfo,
)
from mmpy.proc.meminfo import mem_available, meminfo_values
from mmpy.proc.pagetypeinfo import MIGRATETYPE_NAMES
from mmpy.proc.vmstat import dirty_thresholds, dirtyable_pages
from tests.core.proc_cases import CASES, GOLDEN_CASES


class ListZone:
    """Zone of a parsed buddyinfo and pagetypeinfo."""

    def __init__(self, node, name, nr_free=(0,) * 11, info=None):
        self.node, self.name, self.nr_free, self.present, self._info = node, name, nr_free, 1, info

    def free_counts(self, order, migratetype):
        return self._info.free[self.node, self.name][MIGRATETYPE_NAMES[migratetype]][order]

    def pageblock_counts(self):
        return tuple(self._info.blocks[self.node, self.name].values())


@pytest.mark.parametrize("case", CASES, ids=str)
def test_round_trip(case):
    text = case.text("zoneinfo")
    parsed = parse_zoneinfo(text)
    assert (parsed.arch, parsed.kernel) == (case.arch, case.kernel)
    assert write_zoneinfo(parsed) == text
    rows = [ListZone(row.node, row.name, row.nr_free) for row in parse_buddyinfo(case.text("buddyinfo"))]
    assert write_buddyinfo(rows) == case.text("buddyinfo")
    info = parse_pagetypeinfo(case.text("pagetypeinfo"))
    assert info.types == MIGRATETYPE_NAMES
    assert write_pagetypeinfo([ListZone(*key, info=info) for key in info.free]) == case.text("pagetypeinfo")
    assert format_meminfo(parse_meminfo(case.text("meminfo"))) == case.text("meminfo")


@pytest.mark.parametrize("case", [case for case in CASES if case.has("vmstat")], ids=str)
def test_round_trip_vmstat(case):
    values = parse_vmstat(case.text("vmstat"))
    assert format_vmstat(values) == case.text("vmstat")
    assert write_vmstat(values, case.arch, case.kernel) == case.text("vmstat")


def totalreserve(zones):
    return sum(min(zone.managed, max(zone.lowmem_reserve) + zone.high) for zone in zones)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_mem_available_follows_from_the_zones(case):
    zones, kib = parse_zoneinfo(case.text("zoneinfo")).zones, parse_meminfo(case.text("meminfo"))
    pages = {name: value // 4 for name, value in kib.items()}
    file_lru = pages["Active(file)"] + pages["Inactive(file)"]
    low = sum(zone.low for zone in zones)
    available = mem_available(pages["MemFree"], totalreserve(zones), file_lru, pages["KReclaimable"], low)
    assert available == pages["MemAvailable"]


# Where both texts saw the same number of free pages.
@pytest.mark.parametrize("case", [case for case in CASES if case.has("vmstat")], ids=str)
def test_dirty_thresholds_follow_from_the_zones(case):
    zones, values = parse_zoneinfo(case.text("zoneinfo")).zones, parse_vmstat(case.text("vmstat"))
    zones = [zone for zone in zones if zone.present]
    if sum(zone.vm_stat["nr_free_pages"] for zone in zones) != values["nr_free_pages"]:
        pytest.skip("pages were allocated between the two texts")
    printed = values["nr_dirty_threshold"], values["nr_dirty_background_threshold"]
    assert dirty_thresholds(dirtyable_pages(zones, totalreserve(zones))) == printed


class FakeMachine:
    """A machine whose counters are those of a recorded meminfo."""

    def __init__(self, case):
        text = parse_zoneinfo(case.text("zoneinfo"))
        self.arch, self.kernel, self.nodes, self.zones = case.arch, case.kernel, text.nodes, text.zones
        self.kib = parse_meminfo(case.text("meminfo"))
        self.totalreserve_pages = totalreserve(self.zones)
        pages = {
            "nr_free_pages": "MemFree", "nr_active_anon": "Active(anon)", "nr_inactive_anon": "Inactive(anon)",
            "nr_active_file": "Active(file)", "nr_inactive_file": "Inactive(file)", "nr_unevictable": "Unevictable",
            "nr_mlock": "Mlocked", "nr_file_pages": "Cached", "nr_dirty": "Dirty", "nr_writeback": "Writeback",
            "nr_anon_pages": "AnonPages", "nr_mapped": "Mapped", "nr_shmem": "Shmem", "nr_bounce": "Bounce",
            "nr_slab_reclaimable": "SReclaimable", "nr_slab_unreclaimable": "SUnreclaim",
            "nr_page_table_pages": "PageTables", "nr_sec_page_table_pages": "SecPageTables",
            "nr_writeback_temp": "WritebackTmp",
        }  # fmt: skip
        self.vmstat = dict.fromkeys(parse_vmstat(case.text("vmstat")), 0)
        self.vmstat |= {name: self.kib[label] // 4 for name, label in pages.items()}
        self.vmstat["nr_kernel_stack"] = self.kib["KernelStack"]


@pytest.mark.parametrize("case", [case for case in CASES if case.has("vmstat")], ids=str)
def test_meminfo_from_counters(case):
    machine = FakeMachine(case)
    unmodelled = ("Committed_AS", "VmallocUsed", "Percpu", "DirectMap4k", "DirectMap2M")
    rest = {label: machine.kib[label] for label in unmodelled}
    if case.arch == "i386":
        rest |= {label: machine.kib[label] for label in ("HighFree", "LowFree")}  # zoneinfo was read earlier
    assert Proc(machine).meminfo(rest) == case.text("meminfo")
    assert Proc(machine).zoneinfo() == case.text("zoneinfo")


def test_meminfo_refuses_lines_that_the_kernel_does_not_print():
    machine = FakeMachine(next(case for case in GOLDEN_CASES if case.arch == "x86_64" and case.has("vmstat")))
    with pytest.raises(ValueError, match="HighTotal"):
        meminfo_values(machine, {"HighTotal": 0})


def test_huge_page_items_are_counted_in_pages_and_printed_as_huge_pages():
    case = next(case for case in GOLDEN_CASES if case.kernel == "6.12")
    text = case.text("zoneinfo").replace("nr_shmem_hugepages 0", "nr_shmem_hugepages 7", 1)
    parsed = parse_zoneinfo(text)
    assert parsed.nodes[0].vm_stat["nr_shmem_hugepages"] == 7 * 512
    assert write_zoneinfo(parsed) == text


def test_hopeless_kswapd_shows_in_every_zone_of_the_node():
    case = next(case for case in GOLDEN_CASES if "numa2" in str(case))
    parsed = parse_zoneinfo(case.text("zoneinfo"))
    stuck = [SimpleNamespace(nid=n.nid, zones=n.zones, vm_stat=n.vm_stat, kswapd_failures=16 - n.nid) for n in parsed.nodes]
    lines = write_zoneinfo(SimpleNamespace(arch="x86_64", kernel="6.12", nodes=stuck)).splitlines()
    assert [line.split()[-1] for line in lines if "node_unreclaimable" in line] == ["1", "1", "0"]


def test_pagetypeinfo_stops_counting_at_100000():
    zone = SimpleNamespace(
        node=0,
        name="Normal",
        present=1,
        nr_free=(0,) * 11,
        free_counts=lambda order, migratetype: (99999, 100000, 123456)[order] if order < 3 and migratetype == 1 else 0,
        pageblock_counts=lambda: (0, 1, 0, 0, 0),
    )
    text = write_pagetypeinfo([zone])
    assert "Movable  99999 >100000 >100000      0 " in text
    info = parse_pagetypeinfo(text)
    assert info.free[0, "Normal"]["Movable"][:3] == (99999, 100000, 100000)
    assert info.clipped == {((0, "Normal"), "Movable", 1), ((0, "Normal"), "Movable", 2)}


def test_large_numbers_push_columns_and_nothing_else():
    zone = ListZone(3, "Normal", (1234567,) * 11)
    assert write_buddyinfo([zone]) == "Node 3, zone   Normal " + "1234567 " * 11 + "\n"
    assert format_meminfo({"HugePages_Total": 1234567, "MemTotal": 1234567890}) == (
        "HugePages_Total:   1234567\nMemTotal:       1234567890 kB\n"
    )


def test_empty_zones_stand_in_zoneinfo_only():
    zone = ListZone(0, "Normal")
    zone.present = 0
    assert write_buddyinfo([zone]) == write_pagetypeinfo([zone]) == ""
