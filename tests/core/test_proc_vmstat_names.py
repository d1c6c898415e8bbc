"""Names of the counters against the recorded /proc/vmstat and /proc/zoneinfo."""

import pytest

from mmcore.base import vmstat_names as names
from mmpy.proc import parse_vmstat, parse_zoneinfo
from tests.core.proc_cases import CASES

WITH_VMSTAT = [case for case in CASES if case.has("vmstat")]


@pytest.mark.parametrize("case", WITH_VMSTAT, ids=str)
def test_names_are_those_of_the_kernel_in_its_order(case):
    printed = list(parse_vmstat(case.text("vmstat")))
    assert printed == [*names.vmstat_names(case.arch, case.kernel), names.CONSTANT_LINE]


@pytest.mark.parametrize("case", WITH_VMSTAT, ids=str)
def test_zoneinfo_names(case):
    text = parse_zoneinfo(case.text("zoneinfo"))
    node = next(node for node in text.nodes if node.vm_stat)
    zone = next(zone for zone in text.zones if zone.vm_stat)
    assert tuple(node.vm_stat) == names.node_stat_names(case.arch, case.kernel)
    assert tuple(zone.vm_stat) == names.zone_stat_names(case.arch, case.kernel)
    assert tuple(zone.numa) == names.numa_stat_names(case.arch, case.kernel)


def test_reference_tuples_have_the_sizes_of_the_records():
    sizes = len(names.ZONE_STAT_ITEMS), len(names.NUMA_STAT_ITEMS), len(names.NODE_STAT_ITEMS)
    assert sizes == (12, 6, 47)
    assert len(names.vmstat_names()) == 184


@pytest.mark.parametrize("arch", names.ARCHES)
@pytest.mark.parametrize("kernel", names.KERNELS)
def test_each_machine_prints_a_subsequence_without_repeats(arch, kernel):
    printed = names.vmstat_names(arch, kernel)
    assert len(set(printed)) == len(printed)
    for some, full in (
        (names.zone_stat_names(arch, kernel), names.ZONE_STAT_ITEMS),
        (names.node_stat_names(arch, kernel), names.NODE_STAT_ITEMS),
    ):
        assert [name for name in full if name in some] == list(some)


def test_events_by_zone_follow_the_zone_types():
    events = names.vm_event_names("i386", "6.1")
    assert [e for e in events if e.startswith("pgskip_")] == [f"pgskip_{z}" for z in ("dma", "normal", "high", "movable")]
    assert "pgskip_device" in names.vm_event_names()


@pytest.mark.parametrize("args", [("arm64", "6.12"), ("x86_64", "5.10"), ("", "6.1")])
def test_unknown_machines_are_refused(args):
    with pytest.raises(ValueError, match="known are"):
        names.vmstat_names(*args)
