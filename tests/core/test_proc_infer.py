"""From /proc texts to a machine: recorded ones give their own sysctls, lists and texts back; foreign dumps are taken as far as they go."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmcore.base.vmstat_names import ZONE_TYPES
from mmpy.proc import ProcFormatError, ProcInferenceError, parse_meminfo, parse_zoneinfo, write_buddyinfo, write_pagetypeinfo
from mmpy.proc.infer import infer_machine
from mmpy.proc.infer_build import make_plan
from mmpy.proc.infer_watermarks import boost_without_line
from mmpy.proc.infer_zones import InferredZone, memory_ranges
from tests.core.proc_cases import CASES, DUMP_NAMES, GOLDEN_CASES, REFERENCE, Case, check_lists, dump_texts, state_zones

BOOTS = [case for case in CASES if case.directory.name == "boot"]


def infer(case, *kinds):
    return infer_machine(case.text("zoneinfo"), **{kind: case.text(kind) for kind in kinds})


# ------------------------------------------------------------ recorded machines


@pytest.mark.parametrize("case", CASES, ids=str)
def test_lists_have_the_recorded_numbers_and_are_legal(case):
    found = infer(case, "buddyinfo", "pagetypeinfo")
    check_lists(found)
    assert write_pagetypeinfo(state_zones(found)) == case.text("pagetypeinfo")
    if not any("differ" in line for line in found.inferred):
        assert write_buddyinfo(state_zones(found)) == case.text("buddyinfo")


@pytest.mark.parametrize("case", CASES, ids=str)
def test_with_buddyinfo_alone_all_is_movable(case):
    found = infer(case, "buddyinfo")
    check_lists(found)
    assert write_buddyinfo(state_zones(found)) == case.text("buddyinfo")
    assert {mt for zone in found.state["zones"].values() for _, mt in zone["free"]} <= {1}
    assert any("Movable" in line for line in found.inferred)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_zoneinfo_alone_gives_its_numbers_of_free_pages(case):
    found = infer(case)
    check_lists(found)
    printed = {(zone.node, zone.name): zone.nr_free_pages for zone in parse_zoneinfo(case.text("zoneinfo")).zones}
    for (node, _), zone in found.state["zones"].items():
        assert zone["nr_free_pages"] == printed[node, zone["name"]]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_zones_are_taken_over(case):
    found = infer(case, "buddyinfo")
    assert (found.arch, found.kernel) == (case.arch, case.kernel)
    printed = parse_zoneinfo(case.text("zoneinfo")).zones
    assert len(found.zones) == len(printed)
    for ours, theirs in zip(found.zones, printed, strict=True):
        names = ["name", "start_pfn", "spanned", "present", "managed", "boost"] if theirs.present else ["name"]
        for name in names:
            assert getattr(ours, name) == getattr(theirs, name)
        marks = (ours.min, ours.low, ours.high)
        assert marks == tuple(mark - theirs.boost for mark in (theirs.min, theirs.low, theirs.high))
        if theirs.present:
            assert ours.lowmem_reserve == theirs.lowmem_reserve
            assert [(p.count, p.high, p.batch) for p in ours.pcp] == [(p.count, p.high, p.batch) for p in theirs.pcp]


def watermarks(zones, min_free_kbytes, scale_factor):
    """(min, low, high) of zones (name, managed), by the rules of 6.12."""
    pages = min_free_kbytes // 4
    lowmem = sum(managed for name, managed in zones if name not in ("HighMem", "Movable"))
    for name, managed in zones:
        share = pages * managed // lowmem
        low = share if name not in ("HighMem", "Movable") else min(max(managed // 1024, 32), 128)
        distance = max(share // 4, managed * scale_factor // 10000)
        yield low, low + distance, low + 2 * distance


@pytest.mark.parametrize("case", [case for case in CASES if case.sysctl], ids=str)
def test_sysctls_behind_the_watermarks(case):
    found, sysctl = infer(case), case.sysctl
    kib, (true,) = found.sysctl["vm.min_free_kbytes"], sysctl["min_free_kbytes"]
    text = " ".join(found.inferred)
    written = case.directory.name.startswith(("min_free", "combo"))
    if "the size that huge pages ask for." in text or written:
        assert kib == true
    else:
        # Pages tell kB up to 3, and the limit of a twentieth follows from pages that are known as a range only.
        assert abs(kib - true) <= (8 if "twentieth" in text else 3)
    # Once the protections were written, nothing tells any more how much memory the default was computed from.
    if written or case.directory.name == "boot":
        assert found.min_free_written == written
    # Where a quarter of the share decides everywhere, other scale factors give the same; then these are the numbers to check.
    managed = [(zone.name, sum(zone.managed_at_setup) // 2 if "came after" in text else zone.managed) for zone in found.zones]
    true_marks = list(watermarks(managed, true, *sysctl["watermark_scale_factor"]))
    ours = list(watermarks(managed, true, found.sysctl["vm.watermark_scale_factor"]))
    if found.sysctl["vm.watermark_scale_factor"] != sysctl["watermark_scale_factor"][0]:
        assert ours == true_marks


@pytest.mark.parametrize("case", [case for case in CASES if case.sysctl], ids=str)
def test_ratios_behind_the_protections(case):
    found, true = infer(case), case.sysctl["lowmem_reserve_ratio"]
    populated = {zone.zid for zone in found.zones if zone.managed}
    for zid, ratio in enumerate(found.sysctl["vm.lowmem_reserve_ratio"]):
        # The protections of a zone tell its ratio if there is memory both in it and above it.
        if zid in populated and any(other > zid for other in populated):
            assert ratio == true[zid]


@pytest.mark.parametrize("case", [case for case in CASES if case.sysctl and case.kernel == "6.1"], ids=str)
def test_fixed_high_tells_its_fraction(case):
    assert (infer(case).sysctl["vm.percpu_pagelist_high_fraction"],) == case.sysctl["percpu_pagelist_high_fraction"]


def late_pages(case: Case) -> int:
    """Pages that the boot log says were freed after the count of reserved pages."""
    memory = re.search(r"Memory: (\d+)K/(\d+)K available \(.*?(\d+)K reserved", case.text("dmesg"))
    assert memory
    return (parse_meminfo(case.text("meminfo"))["MemTotal"] - int(memory[2]) + int(memory[3])) // 4


@pytest.mark.parametrize("case", [case for case in BOOTS if case.has("dmesg") and "numa" not in str(case)], ids=str)
def test_managed_at_setup_has_the_late_pages_of_the_boot_log(case):
    found = infer(case)
    fewest = sum(zone.managed - zone.managed_at_setup[1] for zone in found.zones if zone.managed_at_setup[0])
    most = sum(zone.managed - zone.managed_at_setup[0] for zone in found.zones if zone.managed_at_setup[0])
    assert fewest <= late_pages(case) <= most


@pytest.mark.parametrize("case", GOLDEN_CASES, ids=str)
def test_inference_is_repeatable(case):
    assert infer(case, "buddyinfo", "pagetypeinfo") == infer(case, "buddyinfo", "pagetypeinfo")


# ------------------------------------------------------------ the machine itself


@pytest.mark.parametrize("case", [case for case in CASES if case not in GOLDEN_CASES or "4G" not in str(case)], ids=str)
def test_the_machine_prints_the_dump_again(case):
    from mmpy import Machine

    texts = {kind: case.text(kind) for kind in ("zoneinfo", "buddyinfo", "pagetypeinfo")}
    machine = Machine.from_proc(**texts)
    machine.validate()
    assert machine.proc.pagetypeinfo() == texts["pagetypeinfo"]
    agree = not any("differ" in line or "blocks are followed" in line for line in machine.inferred)
    if agree:
        assert machine.proc.buddyinfo() == texts["buddyinfo"]
        assert machine.proc.zoneinfo() == texts["zoneinfo"]
    pfn = machine.alloc_pages(0)
    machine.free_pages(pfn)
    machine.validate()


def test_the_machine_goes_on_by_the_kernels_rules():
    from mmpy import Machine

    before = next(case for case in GOLDEN_CASES if str(case) == "x64_612_512M_smp2/boot")
    after = next(case for case in GOLDEN_CASES if str(case) == "x64_612_512M_smp2/wsf_100")
    machine = Machine.from_proc(zoneinfo=before.text("zoneinfo"), buddyinfo=before.text("buddyinfo"))
    machine.sysctl["vm.watermark_scale_factor"] = 100
    theirs = parse_zoneinfo(after.text("zoneinfo")).zones
    assert [(z.min, z.low, z.high, z.promo) for z in machine.zones] == [(z.min, z.low, z.high, z.promo) for z in theirs]


def test_plan_of_two_nodes():
    found = infer(next(case for case in GOLDEN_CASES if "numa2" in str(case)))
    plan = make_plan(found)
    assert plan.zonelists == (((1, 0, 6), (1, 0)), ((6, 1, 0), (6,)))
    assert plan.cpu_node == (0, 1)
    assert [node.distances for node in plan.nodes] == [(10, 20), (20, 10)]
    assert any("assumed 0 | 1" in line for line in found.inferred)


# ------------------------------------------------------------ foreign dumps

ZONE = """\
Node {node}, zone {name:>8}
  pages free     {free}
        min      {min}
        low      {low}
        high     {high}
        spanned  {spanned}
        present  {present}
        managed  {managed}
        protection: ({protection})
  pagesets
    cpu: {cpu}
              count: {count}
              high:  186
              batch: 31
  start_pfn:         {start}
"""


def zone(name="Normal", **fields):
    values = {
        "node": 0, "free": 5000, "min": 100, "low": 125, "high": 150, "spanned": 65536, "present": 65536, "managed": 60000,
        "protection": "0, 0", "cpu": 0, "count": 5, "start": 262144,
    }  # fmt: skip
    return ZONE.format(name=name, **(values | fields))


def test_a_sole_zone_is_ordinary_memory():
    for name in ("Normal", "DMA", "Strange"):
        found = infer_machine(zone(name))
        assert (found.arch, found.kernel) == ("i386", "6.1")
        (only,) = [z for z in found.zones if z.present]
        assert only.name == "Normal"
        assert any("not those of a PC" in line for line in found.inferred)
        assert (name == "Normal") != any(f"Zone {name} is simulated as Normal" in line for line in found.inferred)
        check_lists(found)


def test_a_large_dma_zone_below_normal_is_dma32():
    text = zone("DMA", start=0, spanned=524288, present=524288, managed=500000, protection="0, 1953, 1953") + zone(
        start=524288, spanned=524288, present=524288, managed=500000, protection="0, 0, 0"
    )
    found = infer_machine(text.replace("Node 0, zone   Normal", "Node 1, zone   Normal"))
    assert found.arch == "x86_64"
    assert {(z.node, z.name) for z in found.zones if z.present} == {(0, "DMA32"), (1, "Normal")}
    dma32 = next(z for z in found.zones if z.present)
    assert dma32.lowmem_reserve == (0, 0, 1953, 1953, 1953)


def test_missing_zone_types_are_as_protected_as_the_ones_below():
    text = zone("Normal", protection="0, 4038, 4038") + zone("HighMem", start=327680, protection="0, 0, 0")
    found = infer_machine(text)
    assert [z.lowmem_reserve for z in found.zones if z.present] == [(0, 0, 4038, 4038), (0, 0, 0, 0)]


def test_nodes_and_cpus_are_numbered_anew():
    text = zone(node=2, cpu=4) + zone(node=8, start=655360, cpu=4)
    found = infer_machine(text)
    assert (found.nodes, found.cpus) == (2, 1)
    assert any("Nodes 2, 8" in line for line in found.inferred)
    assert any("CPUs 4" in line for line in found.inferred)


def test_a_boost_that_is_not_printed_shows():
    # A quarter of the share lies between the marks; what is above four of them, in whole pageblocks, is boost.
    assert boost_without_line(1032, 255) == 0
    assert boost_without_line(1022 + 512, 255) == 512
    assert boost_without_line(1022 + 26 * 512, 255) == 26 * 512
    assert boost_without_line(1022 + 300, 255) == 0
    found = infer_machine(zone(min=1022 + 512, low=1277 + 512, high=1532 + 512))
    (only,) = [z for z in found.zones if z.present]
    assert (only.boost, only.min, only.low, only.high) == (512, 1022, 1277, 1532)
    assert any("boost of 512" in line for line in found.inferred)


def test_holes_lie_where_they_mostly_are():
    def ranges(arch="x86_64", **fields):
        types = ZONE_TYPES[arch]
        name = fields.pop("name", "Normal")
        one = InferredZone(0, types.index(name), name, 0, name, **fields)
        notes: list[str] = []
        out = [(r.start_pfn, r.end_pfn) for r in memory_ranges([one], arch, notes)]
        assert len(notes) == (fields["spanned"] != fields["present"])
        return out

    assert ranges(name="DMA", start_pfn=1, spanned=4095, present=3998) == [(1, 0x9F), (0x100, 4096)]
    assert ranges(name="DMA32", start_pfn=4096, spanned=1044480, present=782304) == [(4096, 786400)]
    assert ranges(start_pfn=1048576, spanned=4096, present=4096) == [(1048576, 1052672)]
    # The last page of a span is memory, unless the zone's limit is what ends it.
    assert ranges(start_pfn=1048576, spanned=4096, present=3000) == [(1048576, 1050552), (1051648, 1052672)]
    assert ranges(start_pfn=1048576, spanned=4096, present=2) == [(1048576, 1048577), (1052671, 1052672)]
    assert ranges("i386", name="HighMem", start_pfn=225278, spanned=1085442, present=823260) == [
        (225278, 786394),
        (1048576, 1310720),
    ]


@pytest.mark.parametrize(
    "text, message",
    [
        (zone(present=0, spanned=0, managed=0), "no zone has any memory"),
        (zone(present=65537), "65537 present pages in a span of 65536"),
        (zone(managed=65537), "65537 managed pages of 65536"),
        (zone(free=65536), "65541 free pages in a span of 65536"),
        (zone(low=99), "do not ascend"),
        (zone(start=1 << 31), "the limit is"),
        (zone(min=1 << 31, low=1 << 31, high=1 << 31), "at most 2147483647"),
        (zone(count=1 << 40), "in a span of"),
        (zone() + zone("HighMem", start=262144, protection="0, 0"), "do not fit beside the zones"),
        (zone("A") + zone("B", start=1 << 20) + zone("C", start=1 << 21) + zone("D", start=1 << 22), "no counterpart"),
    ],
)
def test_contradictions_are_refused(text, message):
    with pytest.raises(ProcInferenceError, match=message):
        infer_machine(text)


def test_other_page_sizes_are_refused():
    with pytest.raises(ProcInferenceError, match="about 64 KiB; only 4 KiB"):
        infer_machine(zone(), meminfo="MemTotal: 3900000 kB\n")
    blocks = "Node 0, zone   Normal            1\n"
    text = (
        "Page block order: 13\nPages per block:  8192\n\nFree pages count per migrate type at order 0 1\n"
        f"Node    0, zone   Normal, type      Movable 1 0\n\nNumber of blocks type Movable\n{blocks}"
    )
    with pytest.raises(ProcInferenceError, match="order 13"):
        infer_machine(zone(), pagetypeinfo=text)


def test_types_and_orders_that_we_do_not_have():
    orders = " ".join(str(order) for order in range(13))
    rows = {"Unmovable": [0] * 13, "Movable": [2] + [0] * 11 + [1], "Reserve": [0, 1] + [0] * 11, "CMA": [0, 0, 3] + [0] * 10}
    text = (
        f"Page block order: 10\nPages per block:  1024\n\nFree pages count per migrate type at order {orders}\n"
        + "".join(f"Node    0, zone   Normal, type {name} {' '.join(map(str, row))}\n" for name, row in rows.items())
        + f"\nNumber of blocks type {' '.join(rows)}\nNode 0, zone   Normal 4 50 2 8\n"
    )
    found = infer_machine(zone(), pagetypeinfo=text)
    check_lists(found)
    (only,) = [z for z in found.state["zones"].values() if z["present"]]
    assert {key: len(pfns) for key, pfns in only["free"].items()} == {(10, 1): 4, (2, 1): 3, (1, 1): 1, (0, 1): 2}
    text = " ".join(found.inferred)
    assert "type CMA are simulated as Movable" in text
    assert "type Reserve are simulated as Movable" in text
    assert "blocks of order 10 are counted in our pageblocks of order 9" in text


def test_clipped_counts_are_completed_from_buddyinfo():
    text = (
        "Page block order: 9\nPages per block:  512\n\nFree pages count per migrate type at order 0 1\n"
        "Node    0, zone   Normal, type    Unmovable 3 0\nNode    0, zone   Normal, type      Movable >100000 0\n\n"
        "Number of blocks type Unmovable Movable\nNode 0, zone   Normal 1 1023\n"
    )
    dump = zone(free=120003, spanned=524288, present=524288, managed=500000)
    found = infer_machine(dump, "Node 0, zone   Normal 120003 0\n", text)
    (only,) = [z for z in found.state["zones"].values() if z["present"]]
    assert len(only["free"][0, 1]) == 120000
    found = infer_machine(dump, None, text)
    (only,) = [z for z in found.state["zones"].values() if z["present"]]
    assert len(only["free"][0, 1]) == 100000
    assert any("stops counting" in line for line in found.inferred)


def test_text_of_a_zone_that_zoneinfo_lacks_is_left_out():
    found = infer_machine(zone(), "Node 0, zone   Normal 5 0\nNode 1, zone   Normal 7 0\n")
    assert any("Zone Normal of node 1" in line and "left out" in line for line in found.inferred)


NUMBER = re.compile(r"(?<=[ (])\d+(?=[ ,)\n])")


@given(data=st.data())
def test_changed_numbers_give_a_legal_machine_or_a_clear_refusal(data):
    case = data.draw(st.sampled_from(GOLDEN_CASES))
    texts = {kind: case.text(kind) for kind in ("zoneinfo", "buddyinfo", "pagetypeinfo")}
    for _ in range(data.draw(st.integers(1, 3))):
        kind = data.draw(st.sampled_from(sorted(texts)))
        spots = list(NUMBER.finditer(texts[kind]))
        at = data.draw(st.sampled_from(spots))
        value = data.draw(st.integers(0, 3000) | st.integers(0, 300000) | st.sampled_from([2**31, 2**63, 2**64 - 1]))
        texts[kind] = texts[kind][: at.start()] + str(value) + texts[kind][at.end() :]
    try:
        found = infer_machine(**texts)
    except (ProcFormatError, ProcInferenceError):
        return
    check_lists(found)


@pytest.mark.parametrize("start", [256, 512])
@pytest.mark.parametrize("case", [c for c in GOLDEN_CASES if str(c) == "x64_612_4G/min_free_4096"], ids=str)
def test_a_zone_that_begins_inside_another_has_its_pages_beside_it(case, start):
    """Found by the test above: the hole of DMA32 was placed from the start of its span, on pages of DMA."""
    text = case.text("zoneinfo").replace("start_pfn:           4096\n", f"start_pfn:           {start}\n")
    assert text != case.text("zoneinfo")
    check_lists(infer_machine(text, case.text("buddyinfo"), case.text("pagetypeinfo")))


@pytest.mark.skipif(not DUMP_NAMES, reason="no dumps here (MMPY_REAL_DUMPS)")
@pytest.mark.parametrize("name", DUMP_NAMES or [None])
def test_dumps_of_real_machines(name):
    texts = dump_texts(name)
    if name == "procfs-01.txt":
        with pytest.raises(ProcFormatError, match="line 2: expected 12 counts"):
            infer_machine(**texts)
        del texts["buddyinfo"]
    found = infer_machine(**texts)
    check_lists(found)
    assert found.inferred
    assert all(line.endswith(".") for line in found.inferred)
    if "buddyinfo" in texts and "pagetypeinfo" not in texts:
        ours = [(row.split()[1], row.split()[4:]) for row in write_buddyinfo(state_zones(found)).splitlines()]
        theirs = [(row.split()[1], row.split()[4:]) for row in texts["buddyinfo"].splitlines()]
        assert ours == theirs


def test_reference_is_used_when_present():
    assert len(CASES) > len(GOLDEN_CASES) or not REFERENCE.is_dir()


def test_more_free_blocks_than_the_zone_can_hold_are_refused():
    case = BOOTS[0]
    text = re.sub(r"(zone +\w+ +)\d+", r"\g<1>4294967296", case.text("buddyinfo"))
    with pytest.raises(ProcInferenceError, match="4294967296"):
        infer_machine(case.text("zoneinfo"), buddyinfo=text)
