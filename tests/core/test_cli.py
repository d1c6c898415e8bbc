"""The command line: what it prints, as text and as JSON, and how it ends."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("click")
pytest.importorskip("rich")

from click.testing import CliRunner

from mmpy import Machine
from mmpy.cli.app import cli

GOLDEN = Path(__file__).parents[1] / "golden" / "machines"
ZONE_KEYS = [
    "node", "name", "start_pfn", "spanned", "present", "managed", "free", "min", "low", "high", "promo", "boost", "protection",
    "stat_threshold", "nr_free", "pcp",
]  # fmt: skip


def run(*args: object, status: int = 0):
    result = CliRunner().invoke(cli, [str(a) for a in args])
    assert result.exit_code == status, result.output
    return result


def document(*args: object, status: int = 0):
    return json.loads(run(*args, "--json", status=status).stdout)


# ---- boot


def test_boot_prints_zones_and_reserves():
    text = run("boot", "4G").stdout
    machine = Machine("4G")
    for zone in machine.zones:
        if zone.populated:
            line = next(line for line in text.splitlines() if line.split()[:2] == [str(zone.node), zone.name])
            assert str(zone.managed) in line.split()
            assert str(zone.high) in line.split()
    assert f"min_free_kbytes {machine.sysctl['vm.min_free_kbytes']}" in text
    assert f"{machine.totalreserve_pages} pages" in text


def test_boot_json():
    found = document("boot", "2G", "--nodes", "2", "--cpus", "2", "--distances", "10,30;30,10", "--sysctl", "min_free_kbytes=4096")
    assert list(found) == [
        "arch", "kernel", "cpus", "totalram_pages", "totalreserve_pages", "mobility_grouping", "inferred", "sysctl", "nodes", "zones",
    ]  # fmt: skip
    assert [n["distances"] for n in found["nodes"]] == [[10, 30], [30, 10]]
    assert all(list(zone) == ZONE_KEYS for zone in found["zones"])
    assert found["sysctl"]["vm.min_free_kbytes"] == 4096
    assert sum(zone["min"] for zone in found["zones"] if zone["name"] == "DMA32") <= 1024


def test_boot_takes_shapes():
    sizes = document("boot", "1G", "--nodes", "256M,768M")["nodes"]
    assert sizes[1]["present"] > 2 * sizes[0]["present"]
    assert any(z["name"] == "Movable" and z["present"] for z in document("boot", "2G", "--movablecore", "512M")["zones"])
    assert any(z["name"] == "Movable" and z["present"] for z in document("boot", "2G", "--kernelcore", "25%")["zones"])
    i386 = document("boot", "4G", "--arch", "i386", "--kernel", "6.1")
    assert [z["name"] for z in i386["zones"]] == ["DMA", "Normal", "HighMem", "Movable"]
    assert document("boot", "4G", "--thp", "never")["sysctl"]["vm.min_free_kbytes"] < 10000


@pytest.mark.parametrize("name", ["zoneinfo", "buddyinfo", "pagetypeinfo", "vmstat", "meminfo"])
def test_boot_prints_proc_files_as_they_are(name):
    text = getattr(Machine("1G").proc, name)()
    assert run("boot", "1G", "--proc", name).stdout == text
    assert document("boot", "1G", "--proc", name) == {"file": f"/proc/{name}", "text": text}


def test_boot_from_a_dump(tmp_path):
    machine = Machine("1G")
    (tmp_path / "zoneinfo").write_text(machine.proc.zoneinfo())
    (tmp_path / "buddyinfo").write_text(machine.proc.buddyinfo())
    for place in (tmp_path / "zoneinfo", tmp_path):
        found = document("boot", "--from-proc", place)
        assert [z["managed"] for z in found["zones"] if z["present"]] == [z.managed for z in machine.zones if z.populated]
    assert "inferred:" in run("boot", "--from-proc", tmp_path / "zoneinfo").stdout


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["much"], "much"),
        (["0"], "0"),
        (["4G", "--nodes", "0"], "0"),
        (["4G", "--distances", "10,x"], "10,x"),
        (["4G", "--sysctl", "swappiness"], "NAME=VALUE"),
        (["4G", "--sysctl", "vm.no_such=1"], "vm.no_such"),
        (["4G", "--sysctl", "watermark_scale_factor=0"], "0"),
        (["4G", "--kernelcore", "-1"], "-1"),
        (["4G", "--arch", "arm"], "arm"),
        (["--from-proc", "/no/such/file"], "/no/such/file"),
        (["--from-proc", "/dev/zero"], "bytes"),
    ],
)
def test_boot_refuses_what_cannot_be(args, told):
    result = run("boot", *args, status=2)
    assert told in result.stderr
    assert result.stdout == ""


def test_a_dump_excludes_a_shape(tmp_path):
    (tmp_path / "zoneinfo").write_text(Machine("1G").proc.zoneinfo())
    assert "SIZE" in run("boot", "1G", "--from-proc", tmp_path, status=2).stderr
    assert "--nodes" in run("boot", "--nodes", "2", "--from-proc", tmp_path, status=2).stderr
    (tmp_path / "zoneinfo").write_text("Node 0, zone DMA\n")
    assert "zoneinfo: line" in run("boot", "--from-proc", tmp_path, status=2).stderr
    (tmp_path / "zoneinfo").unlink()
    assert "no zoneinfo" in run("boot", "--from-proc", tmp_path, status=2).stderr


# ---- compare


def test_compare_prints_every_figure():
    text = run("compare", GOLDEN, "--case", "x64_612_128M").stdout
    line = next(line for line in text.splitlines() if line.startswith("node0.DMA32.min "))
    kernel, ours, distance = line.split()[1:4]
    assert (kernel, distance) == (ours, "0")
    assert "exact figures equal" in text


def test_compare_json_is_a_list_of_rows():
    found = document("compare", GOLDEN, "--kind", "machine", "--figure", "*.min", "--figure", "min_free_kbytes")
    assert {row["case"] for row in found} == {p.name for p in GOLDEN.iterdir() if p.is_dir()}
    assert all(row["figure"].endswith(("min", "min_free_kbytes")) for row in found)
    assert all({"case", "kind", "figure", "kernel", "ours", "distance", "spread", "exact"} <= set(row) for row in found)


def test_compare_fails_where_an_exact_figure_differs(tmp_path):
    case = Path(shutil.copytree(GOLDEN / "i386_61_1G", tmp_path / "case"))
    zoneinfo = case / "boot" / "zoneinfo"
    zoneinfo.write_text(zoneinfo.read_text().replace("        min      190", "        min      191", 1))
    text = run("compare", case, status=1).stdout
    assert "DIFFERS" in text
    brief = run("compare", case, "--brief", status=1).stdout
    assert len(brief.splitlines()) < 8
    run("compare", case, "--figure", "*.low")
    (case / "boot" / "dmesg").unlink()
    (row,) = document("compare", case, status=1)
    assert row["ours"] is None


@pytest.mark.parametrize(
    ("args", "told"),
    [
        ([], "SET"),
        (["/no/such/set"], "no such file"),
        ([GOLDEN, "--kind", "cars"], "cars"),
        ([GOLDEN, "--case", "nobody*"], "none of the"),
        ([GOLDEN, "--lru", "mglru"], "none of the"),
        ([GOLDEN, "--figure", "nothing"], "no figure"),
    ],
)
def test_compare_refuses_bad_usage(args, told):
    assert told in run("compare", *args, status=2).stderr


def test_compare_tells_what_is_not_there_yet(tmp_path):
    (tmp_path / "index.json").write_text(json.dumps([{"kind": "reclaim", "name": "run__mglru", "lru": "mglru"}]))
    (row,) = document("compare", tmp_path, "--lru", "mglru", status=1)
    assert row["ours"] is None
    assert row["error"]
    assert "ERROR" in run("compare", tmp_path, status=1).stdout


def test_compare_prints_its_inputs():
    assert "late" in run("compare", "--inputs").stdout or "freed after" in run("compare", "--inputs").stdout
    found = document("compare", "--inputs", "--kind", "machine")
    assert found
    assert all("machine" in row["kinds"].split() for row in found)


# ---- replay


def test_replay_of_the_packaged_trace():
    found = document("replay")
    assert found["interrupted"] is False
    assert found["operations"] > 0
    figures = {row["figure"]: row for row in found["rows"]}
    assert figures["free_running.errors"]["ours"] == 0
    alloc = figures["free_running.alloc"]
    assert alloc["kernel"] > 0
    text = run("replay").stdout
    assert "page frames handed out" in text
    assert str(alloc["kernel"]) in text


def test_replay_resync():
    found = document("replay", "--resync")
    assert found["resync"] is True
    assert all(row["figure"].startswith("resync.") for row in found["rows"])


def test_replay_refuses_what_is_no_trace(tmp_path):
    assert "events.csv" in run("replay", tmp_path, status=2).stderr
    (tmp_path / "events.csv").write_text("nonsense\n")
    (tmp_path / "gfp.csv").write_text("gfp_id,bits,count,names\n0,0x0,1,0\n")
    assert run("replay", tmp_path, status=2).stderr


def test_ctrl_c_leaves_a_valid_machine(monkeypatch):
    from mmpy.traces import replay as replay_module

    def interrupt(*_args):
        raise KeyboardInterrupt

    monkeypatch.setattr(replay_module, "CHUNK", 100)
    module = sys.modules["mmpy.cli.replay"]

    class Shown:
        def __enter__(self):
            return interrupt

        def __exit__(self, *_):
            return False

    monkeypatch.setattr(module, "progress", lambda *_args: Shown())
    result = run("replay", status=130)
    assert "the machine is valid" in result.stderr
    found = document("replay", status=130)
    assert (found["interrupted"], found["valid"]) == (True, True)
    assert 0 < found["done"] < found["operations"]


def test_replay_of_a_text_trace(tmp_path):
    text = """# tracer: nop
    cc-42      [000] ..... 100.000001: mm_page_alloc: page=0x1 pfn=0x1234 order=0 migratetype=1 gfp_flags=GFP_HIGHUSER_MOVABLE
    cc-42      [000] ..... 100.000002: mm_page_alloc: page=0x2 pfn=0x1240 order=3 migratetype=0 gfp_flags=GFP_KERNEL|__GFP_COMP
    cc-42      [000] ..... 100.000003: mm_page_free: page=0x1 pfn=0x1234 order=0
    cc-42      [000] ..... 100.000004: mm_page_free: page=0x3 pfn=0x9999 order=0
"""
    file = tmp_path / "trace.txt"
    file.write_text(text)
    found = document("replay", file, "--memory", "256M")
    assert found["requests"]["alloc"] == {"done": 2, "failed": 0}
    assert found["requests"]["free"] == {"done": 1, "failed": 0}
    assert (found["unknown_frees"], found["valid"], found["interrupted"]) == (1, True, False)
    machine = Machine("256M")
    assert found["machine"]["totalram_pages"] == machine.totalram_pages
    assert "what the machine did" in run("replay", file).stdout
    assert "--resync" in run("replay", file, "--resync", status=2).stderr
    assert "--memory" in run("replay", "--memory", "1G", status=2).stderr
    file.write_text("nothing of the kind\n")
    assert "no kmem event" in run("replay", file, status=2).stderr


# ---- the program


def python(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *args], capture_output=True, text=True, check=False, env={**os.environ, **env})


def test_python_dash_m():
    assert "replay" in python("-m", "mmpy", "--help").stdout
    assert python("-m", "mmpy", "--version").stdout.startswith("mmpy, version ")
    found = python("-m", "mmpy", "boot", "64", "--json")
    assert found.returncode == 2
    assert "Traceback" not in found.stderr


@pytest.mark.parametrize("package", ["click", "rich"])
def test_without_the_extra_it_says_what_to_install(package):
    code = f"import sys; sys.modules[{package!r}] = None; from mmpy.cli import main; sys.exit(main(['boot']))"
    found = python("-c", code)
    assert found.returncode == 2
    assert "pip install 'linux-mm-sim[cli]'" in found.stderr
    assert "Traceback" not in found.stderr


def test_import_mmpy_needs_none_of_it():
    code = "import sys; import mmpy; print([m for m in ('click', 'rich', 'mmpy.cli') if m in sys.modules])"
    assert python("-c", code).stdout.strip() == "[]"
