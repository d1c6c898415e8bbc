"""Machine cases against recordings: a cut of them that comes with the tests, and all of them where they are.

MMPY_REFERENCE names the directory of the recordings (default: ../shared/reference beside the repository).
"""

import json
import os
import re
import shutil
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from mmpy.fidelity import Case, RecordingError, Summary, compare, open_set
from mmpy.fidelity import rows as rows_of
from mmpy.fidelity.inputs import table
from mmpy.fidelity.machine_inputs import LateFree, read_inputs

GOLDEN = Path(__file__).parents[1] / "golden" / "machines"
REFERENCE = Path(os.environ.get("MMPY_REFERENCE", Path(__file__).parents[3] / "shared" / "reference"))
# What is claimed of every machine; each glob must match something.
FIGURES = (
    "zones", "node?.*.spanned", "node?.*.present", "node?.*.start_pfn", "node?.*.min", "node?.*.low", "node?.*.high",
    "node?.*.protection.?", "node?.*.cpu?.batch", "node?.*.cpu?.stat_threshold", "node?.*.pageblocks",
    "min_free_kbytes", "MemAvailable", "mobility_grouping",
)  # fmt: skip


def golden_cases() -> list[Case]:
    return list(open_set(GOLDEN))


def wrong(found: list[rows_of.Row]) -> list[rows_of.Row]:
    return [row for row in found if rows_of.differs(row)]


@pytest.mark.parametrize("case", golden_cases(), ids=lambda case: case.name)
def test_every_exact_figure_of_the_cut_is_equal(case):
    found = compare(case)
    assert wrong(found) == []
    for glob in FIGURES:
        assert any(fnmatchcase(row["figure"], glob) for row in found), glob
    total = Summary.of(found)
    assert total.exact >= 50
    assert total.informative < total.exact / 10
    assert all(list(row)[: len(rows_of.KEYS)] == list(rows_of.KEYS) for row in found)
    assert json.loads(json.dumps(found)) == found


def test_variations_are_compared():
    case = next(c for c in golden_cases() if c.name == "x64_612_128M")
    figures = {row["figure"]: row for row in compare(case)}
    assert figures["min_free_65536.node0.DMA32.min"]["kernel"] == figures["min_free_65536.node0.DMA32.min"]["ours"]
    assert figures["min_free_65536.min_free_kbytes"]["kernel"] == 65536
    # Four times as much: the ratio is a quarter.
    boot, div4 = (figures[f"{v}node0.DMA.protection.1"]["ours"] for v in ("", "lowmem_div4."))
    assert 4 * boot <= div4 <= 4 * boot + 40


@pytest.mark.skipif(not (REFERENCE / "index.json").is_file(), reason="no recordings here (MMPY_REFERENCE)")
def test_every_exact_figure_of_the_recordings_is_equal():
    cases = open_set(REFERENCE).select(kinds=["machine"])
    assert cases
    for case in cases:
        assert wrong(compare(case)) == [], case.name


@pytest.fixture
def machine(tmp_path) -> Path:
    """A copy of one recorded machine, to spoil."""
    return Path(shutil.copytree(GOLDEN / "x64_612_128M", tmp_path / "machine"))


def edit(path: Path, pattern: str, new: str) -> None:
    text, n = re.subn(pattern, new, path.read_text(), count=1, flags=re.MULTILINE)
    assert n == 1, f"{pattern!r} is not in {path}"
    path.write_text(text)


def test_a_kernels_figure_is_read_when_it_is_compared(machine):
    before = {row["figure"]: row for row in compare(Case("machine", "m", machine))}
    edit(machine / "lowmem_div4" / "zoneinfo", r"^( +min +)\d+$", r"\g<1>31")
    found = wrong(compare(Case("machine", "m", machine)))
    assert [row["figure"] for row in found] == ["lowmem_div4.node0.DMA.min"]
    assert found[0]["kernel"] == 31
    assert found[0]["ours"] == before["lowmem_div4.node0.DMA.min"]["kernel"]
    assert found[0]["distance"] == pytest.approx(abs(31 - found[0]["ours"]) / 31)


@pytest.mark.parametrize("what", ["initrd", "unused decrypted", r"unused kernel image \(initmem\)"])
def test_late_freed_pages_decide_the_watermarks(machine, what):
    edit(machine / "boot" / "dmesg", rf"Freeing {what} memory: (\d+)K", "Freeing another memory: 4K")
    assert any(row["figure"].endswith(("min", "min_free_kbytes")) for row in wrong(compare(Case("machine", "m", machine))))


def test_memory_freed_before_the_watermarks_is_no_late_memory(machine):
    edit(machine / "boot" / "dmesg", r"SMP alternatives memory: 40K", "SMP alternatives memory: 4000K")
    assert wrong(compare(Case("machine", "m", machine))) == []


@pytest.mark.parametrize(
    ("file", "pattern", "new", "told"),
    [
        ("boot/dmesg", r"Linux version.*", "", "no Linux version"),
        ("boot/dmesg", r"RAMDISK: .*", "", "RAMDISK"),
        ("boot/dmesg", r"\[mem 0x0000000000100000-0x0000000007fd9fff\]$", "[mem 0x0000000000010000-0x0000000007fd9fff]", "overlap"),
        ("boot/dmesg", r"RAMDISK: \[mem 0x07e2d000", "RAMDISK: [mem 0xf7e2d000", "no zone"),
        ("boot/zoneinfo", r"^ +spanned.*$", "  nonsense", "zoneinfo: line"),
        ("boot/zoneinfo", r"managed +\d+$", "managed 4000", "4000"),
        ("boot/meminfo", r"^MemFree:.*$", "MemFree: many kB", "meminfo: line"),
        ("boot/node0.cpulist", r"0", "1", "CPUs"),
        ("boot/node0.cpulist", r"0", "zero", "list of CPUs"),
        ("boot/node0.distance", r"10", "10 20", "square"),
        ("boot/node0.distance", r"10", "ten", "list of distances"),
        ("lowmem_div4/sysctls", r"^.*lowmem_reserve_ratio.*$", "", "lowmem_reserve_ratio"),
    ],
)
def test_malformed_recordings_are_told_as_rows(machine, file, pattern, new, told):
    edit(machine / file, pattern, new)
    found = compare(Case("machine", "m", machine))
    failed = [row for row in found if rows_of.is_error(row)]
    assert len(failed) == 1
    assert failed[0]["ours"] is None
    assert told in failed[0]["error"]
    assert not Summary.of(found).ok


def test_of_an_unknown_kernel_nothing_is_exact(machine):
    edit(machine / "boot" / "dmesg", r"Linux version 6\.12", "Linux version 6.8")
    found = compare(Case("machine", "m", machine))
    assert found[0]["figure"] == "kernel"
    assert (found[0]["kernel"], found[0]["ours"]) == ("6.8", "6.12")
    assert not any(row["exact"] for row in found)
    assert len(found) > 50


@pytest.mark.parametrize("missing", ["zoneinfo", "dmesg"])
def test_a_missing_file_is_told(machine, missing):
    (machine / "boot" / missing).unlink()
    (row,) = compare(Case("machine", "m", machine))
    assert missing in row["error"]


def test_without_the_node_ranges_of_the_log_iomem_tells_where_memory_is(machine):
    edit(machine / "boot" / "dmesg", "Early memory node ranges", "")
    assert wrong(compare(Case("machine", "m", machine))) == []
    (machine / "boot" / "iomem").write_text("00000000-00000000 : System RAM\n")
    (row,) = compare(Case("machine", "m", machine))
    assert "where memory is" in row["error"]


def test_a_dump_may_lie_in_one_directory(machine, tmp_path):
    flat = Path(shutil.copytree(machine / "boot", tmp_path / "server"))
    (case,) = open_set(flat)
    assert (case.kind, case.name) == ("machine", "server")
    assert wrong(compare(case)) == []


@pytest.mark.parametrize(("kind", "told"), [("reclaim", "generational"), ("evict", "generational"), ("extra", "slab allocator")])
def test_a_case_without_its_machinery_is_one_row(kind, told):
    (row,) = compare(Case(kind, "some_run", Path("/nowhere"), {"lru": "mglru"}))
    assert row["ours"] is None
    assert row["case"] == "some_run"
    assert told in row["error"]


def write_index(place: Path, index: object) -> Path:
    place.mkdir(exist_ok=True)
    (place / "index.json").write_text(index if isinstance(index, str) else json.dumps(index))
    return place


def test_an_index_lists_cases_and_they_can_be_chosen(tmp_path):
    index = [
        {"kind": "machine", "name": "a_1G", "dir": "machines/a"},
        {"kind": "reclaim", "name": "run__classic", "lru": "classic"},
        {"kind": "reclaim", "name": "run__mglru", "lru": "mglru"},
    ]
    recorded = open_set(write_index(tmp_path / "set", index))
    assert [c.name for c in recorded.select()] == ["a_1G", "run__classic", "run__mglru"]
    assert [c.name for c in recorded.select(kinds=["reclaim"], names=["*classic"])] == ["run__classic"]
    assert [c.name for c in recorded.select(lrus=["mglru"])] == ["run__mglru"]
    assert recorded.select()[0].directory == tmp_path / "set" / "machines" / "a"
    assert [c.name for c in open_set(tmp_path / "set" / "index.json")] == [c.name for c in recorded]
    with pytest.raises(ValueError, match="'cases' is no kind"):
        recorded.select(kinds=["cases"])
    with pytest.raises(ValueError, match="'fifo' is no LRU"):
        recorded.select(lrus=["fifo"])


@pytest.mark.parametrize(
    ("index", "told"),
    [
        ("{", "not JSON"),
        ("[" * 100000, "not JSON"),
        ({"cases": []}, "not a list"),
        ([], "lists no case"),
        ([1], "case 0 is a int"),
        ([{"kind": "machine"}], "name is None"),
        ([{"kind": "car", "name": "a"}], "kind is 'car'"),
        ([{"kind": "machine", "name": "a", "dir": "../.."}], "not a path below"),
        ([{"kind": "machine", "name": "a", "dir": "/etc"}], "not a path below"),
        ([{"kind": "machine", "name": "a"}] * 2, "listed twice"),
    ],
)
def test_a_malformed_index_is_refused(tmp_path, index, told):
    with pytest.raises(RecordingError, match=re.escape(told)):
        open_set(write_index(tmp_path / "set", index))


def test_a_place_without_recordings_is_refused(tmp_path):
    with pytest.raises(RecordingError, match="no such file"):
        open_set(tmp_path / "nothing")
    with pytest.raises(RecordingError, match="no recorded case"):
        open_set(tmp_path)


def test_distance_and_sequences():
    assert rows_of.distance(200, 150) == 0.25
    assert rows_of.distance(0, 3) == 3
    assert rows_of.distance("on", "off") == 1
    row = rows_of.sequence("c", "trace", "f", [1, 2, 3, 4], [1, 2, 9, 4], exact=True)
    assert (row["kernel"], row["ours"], row["distance"], row["first_divergence"]) == (4, 3, 0.25, 2)
    row = rows_of.sequence("c", "trace", "f", [1, 2], [1, 2], exact=True)
    assert (row["distance"], row["first_divergence"]) == (0, None)
    # A prefix is not enough, and neither is the whole with more behind it.
    assert rows_of.sequence("c", "trace", "f", [1, 2], [1], exact=True)["first_divergence"] == 1
    longer = rows_of.sequence("c", "trace", "f", [1, 2], [1, 2, 3], exact=True)
    assert (longer["ours"], longer["distance"], longer["first_divergence"]) == (2, 0.5, 2)


def test_summary_counts_errors_apart():
    found = [
        rows_of.figure("c", "machine", "a", 1, 1, exact=True),
        rows_of.figure("c", "machine", "b", 1, 2, exact=True),
        rows_of.figure("c", "machine", "c", 1, 2, exact=False),
        rows_of.error("c", "machine", "broken"),
    ]
    total = Summary.of(found)
    assert (total.rows, total.exact, total.equal, total.informative, total.errors) == (4, 2, 1, 1, 1)
    assert not total.ok
    assert Summary.of(found[:1]).ok


def test_late_pages_are_split_over_the_zones_that_hold_them():
    log = """Linux version 6.12.0
Early memory node ranges
  node   0: [mem 0x1000-0xffffff]
  node   1: [mem 0x1000000-0x1ffffff]
RAMDISK: [mem 0x00000000-0x00000fff]
Allocated new RAMDISK: [mem 0xfff000-0x1001fff]
Freeing initrd memory: 12K
Freeing unused kernel image (initmem) memory: 8K
"""
    inputs = read_inputs(((0, "DMA", 1000), (1, "DMA32", 1000)), log, iomem="1800000-18fffff : Kernel data\n")
    assert inputs.late == (LateFree("initrd", 0xFFF, 3), LateFree("unused kernel image (initmem)", 0x1800, 2))
    spans = {(0, "DMA"): (1, 0x1000), (1, "DMA32"): (0x1000, 0x2000)}
    assert inputs.late_by_zone(spans) == {(0, "DMA"): 1, (1, "DMA32"): 4}


def test_inputs_are_told_in_one_table():
    assert {"machine", "trace", "reclaim", "evict"} == {kind for row in table() for kind in row["kinds"].split()}
    assert all(all(row.values()) for row in table())
    assert len(table("machine")) < len(table())
