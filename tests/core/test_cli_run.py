"""`mmpy run`: traces and experiment files from the command line, as text and as JSON, and how it ends."""

import gzip
import json
import sys

import pytest

pytest.importorskip("click")
pytest.importorskip("rich")

from click.testing import CliRunner

from mmpy import Machine
from mmpy.cli.app import cli

LACKEY = "==1== x\nI  00400000,4\n S 00600000,8\n L 00600ffc,8\n M 00601000,4\n"


def run(*args: object, status: int = 0):
    result = CliRunner().invoke(cli, ["run", *map(str, args)])
    assert result.exit_code == status, result.output
    return result


def document(*args: object, status: int = 0):
    return json.loads(run(*args, "--json", status=status).stdout)


@pytest.fixture
def trace(tmp_path):
    path = tmp_path / "t.lackey"
    path.write_text(LACKEY)
    return path


def test_the_sample_runs_without_an_argument():
    result = run()
    lines = result.stdout.splitlines()
    assert lines[0] == "sort_pages.npz: 63412 accesses to 385 pages, 28766 of them writes"
    assert [line.split()[-1] for line in lines if line.startswith("minor faults")] == ["539"]
    assert any(line.startswith("pgfault ") and line.endswith("+539") for line in lines)
    assert "accesses a second" in result.stderr
    assert "second" not in result.stdout
    assert run().stdout == result.stdout


def test_json():
    found = document()
    assert list(found) == [
        "trace", "accesses", "writes", "pages", "skipped", "machine", "mapped", "interrupted", "complete", "result", "process",
        "pages_allocated", "vmstat",
    ]  # fmt: skip
    assert list(found["result"]) == ["accesses", "hits", "minor", "major", "segv", "sigbus", "oom", "faults_per_million"]
    assert found["result"]["hits"] + found["result"]["minor"] == found["accesses"] == 63412
    assert found["process"]["rss_pages"] == found["vmstat"]["nr_anon_pages"]
    assert found["pages_allocated"] == found["vmstat"]["numa_hit"]
    assert (found["mapped"]["refused"], found["complete"]) == (0, True)


def test_a_trace_of_ones_own(trace):
    found = document(trace)
    # the load crosses into the next page and reads it before it is written: two faults there
    assert (found["accesses"], found["result"]["minor"], found["skipped"]) == (4, 3, {"comments": 1, "instructions": 1})
    assert document(trace, "--instructions")["accesses"] == 5
    assert document(trace, "--limit", 1)["result"]["accesses"] == 1
    assert document(trace, "--format", "lackey") == found
    packed = trace.with_suffix(".gz")
    packed.write_bytes(gzip.compress(LACKEY.encode()))
    assert document(packed) == {**found, "trace": "t.gz"}


def test_the_machine_is_as_asked(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("".join(f"{0x40000000 + i * 4096:#x},w\n" for i in range(1024)))
    huge = document(path, "--thp", "always", "--memory", "1G", "--cpus", "2")
    small = document(path, "--thp", "never", "--memory", "256M")
    assert (huge["machine"]["cpus"], huge["machine"]["memory_pages"]) == (2, Machine("1G", cpus=2).totalram_pages)
    assert (huge["result"]["minor"], small["result"]["minor"]) == (2, 1024)
    assert huge["process"]["rss_pages"] == small["process"]["rss_pages"] == 1024
    assert huge["vmstat"]["thp_fault_alloc"] == 2


def test_faults_that_fail_are_counted(tmp_path):
    path = tmp_path / "t.txt"
    path.write_text("0x0,w\n0xffffffffff600000,r\n0x400000,w\n")
    found = document(path)
    assert (found["result"]["segv"], found["result"]["minor"], found["mapped"]["refused"]) == (2, 1, 2)
    assert "2 ranges refused" in run(path).stdout


def test_out_of_memory(tmp_path):
    path = tmp_path / "t.txt"
    path.write_text("".join(f"{0x40000000 + i * 4096:#x},w\n" for i in range(20_000)))
    result = run(path, "--memory", "64M", "--thp", "never", "--json", status=1)
    found = json.loads(result.stdout)
    assert (found["complete"], found["result"]["oom"]) == (False, 1)
    assert f"out of memory at access {found['result']['accesses']} of 20000" in result.stderr


@pytest.mark.parametrize(
    ("text", "args", "told"),
    [
        (LACKEY + "oops\n", [], "line 6"),
        ("", [], "no accesses"),
        ("==1== x\nI  1000,4\n", [], "1 instructions"),
        (LACKEY, ["--memory", "much"], "much"),
        (LACKEY, ["--memory", "0"], "0"),
        (LACKEY, ["--cpus", "0"], "0"),
        (LACKEY, ["--cpus", "x"], "x"),
        (LACKEY, ["--thp", "maybe"], "maybe"),
        (LACKEY, ["--limit", "0"], "0"),
        (LACKEY, ["--format", "npy"], "npy"),
        (LACKEY, ["--format", "elf"], "elf"),
    ],
)
def test_refuses(tmp_path, text, args, told):
    path = tmp_path / "t"
    path.write_text(text)
    result = run(path, *args, status=2)
    assert told in result.stderr
    assert result.stdout == ""


def test_what_is_not_there(tmp_path):
    for name in ("none", "none.toml"):
        assert name in run(tmp_path / name, status=2).stderr
    assert "directory" in run(tmp_path, status=2).stderr


def test_ctrl_c_leaves_a_valid_machine(monkeypatch):
    module = sys.modules["mmpy.cli.run"]

    class Shown:
        def __init__(self, label: str, *_):
            self.label = label

        def __enter__(self):
            def show(*_):
                if self.label.startswith("running"):
                    raise KeyboardInterrupt

            return show

        def __exit__(self, *_):
            return False

    monkeypatch.setattr(module, "progress", Shown)
    assert "the machine is valid" in run(status=130).stderr
    found = document(status=130)
    assert (found["interrupted"], found["valid"], found["accesses"]) == (True, True, 63412)
    assert 0 < found["done"] <= 63412


# ---- experiment files


def test_an_experiment(tmp_path):
    path = tmp_path / "e.toml"
    path.write_text(
        '[machine]\nmemory = "128M"\n[workload]\nkind = "zipf"\npages = 500\naccesses = 2000\n'
        '[sample]\nevery = 100\ncounters = ["minor"]\n[output]\npath = "r.csv"\n'
    )
    found = document(path)
    assert found["samples"]["access"] == list(range(0, 2001, 100))
    assert found["samples"]["minor"][-1] == found["totals"]["minor"]
    rows = (tmp_path / "r.csv").read_text().splitlines()
    assert (rows[0], len(rows)) == ("access,minor", 22)
    text = run(path).stdout
    assert "Samples (10 of 21)" in text
    assert found["provenance"]["experiment_sha256"][:16] in text
    assert "r.csv" in text
    assert "--memory, --format" in run(path, "--memory", "1G", "--format", "hex", status=2).stderr
    path.write_text('[workload]\nknd = "zipf"\n')
    assert "did you mean 'kind'" in run(path, status=2).stderr
    path.write_text("[[cgroup]]\n")
    assert "later stage" in run(path, status=2).stderr
    path.write_text('[machine]\nmemory = "64M"\nthp = "never"\n[workload]\nkind = "sequential"\npages = 50000\naccesses = 50000\n')
    assert "out of memory" in run(path, status=1).stderr
