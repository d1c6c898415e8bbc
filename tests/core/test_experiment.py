"""Experiment files: what they may say, what is refused by name, and that a result is the same every time."""

import json
import random
import tomllib
from pathlib import Path

import numpy as np
import pytest

import mmpy
from mmpy.errors import MmapError
from mmpy.experiment import COUNTERS, FIGURES, Experiment, Workload, run_experiment
from mmpy.traces.errors import TraceFormatError

EXAMPLE = Path(mmpy.__file__).parent / "data" / "example.toml"
BASE = {"machine": {"memory": "128M"}, "workload": {"kind": "random", "pages": 1000, "accesses": 5000, "seed": 3}}


def changed(**tables) -> dict:
    return {name: table for name, table in {**BASE, **tables}.items() if table is not None}


def run(**tables):
    return run_experiment(Experiment.from_dict(changed(**tables)))


# ---- what is run


def test_the_example_runs_as_its_file_says():
    exp = Experiment.load(EXAMPLE)
    seen = []
    result = run_experiment(exp, lambda done, total: seen.append((done, total)))
    assert list(result.samples) == ["access", "minor", "rss_pages", "page_table_bytes", "nr_free_pages", "pgfault"]
    assert result.samples["access"].tolist() == list(range(0, 1_000_001, 100_000))
    assert result.samples["minor"].tolist() == result.samples["pgfault"].tolist()
    assert result.samples["rss_pages"][-1] == result.totals["rss_pages"] == result.vmstat["nr_anon_pages"]
    assert seen[-1] == (1_000_000, 1_000_000)
    assert result.complete


def test_a_result_is_the_same_every_time_and_however_it_is_sampled():
    first, second, often = run(), run(), run(sample={"every": 7})
    assert json.dumps(first.as_dict()) == json.dumps(second.as_dict())
    assert first.totals == often.totals
    assert first.vmstat == often.vmstat
    other = run(workload={**BASE["workload"], "seed": 4})
    assert other.samples["minor"].tolist() != first.samples["minor"].tolist()
    assert other.provenance["experiment_sha256"] != first.provenance["experiment_sha256"] != often.provenance["experiment_sha256"]
    assert len(first.samples["access"]) == 101
    assert list(first.samples) == ["access", *COUNTERS]
    # without a seed of its own, a workload has the machine's
    no_seed = {k: v for k, v in BASE["workload"].items() if k != "seed"}
    seeded = run(workload=no_seed, machine={"memory": "128M", "seed": 3})
    assert seeded.samples["minor"].tolist() == first.samples["minor"].tolist()


@pytest.mark.parametrize("every", [1, 3, 10, 100])
def test_samples_begin_at_nothing_and_end_at_the_end(every):
    result = run(workload={"kind": "sequential", "pages": 4, "accesses": 10}, sample={"every": every, "counters": ["minor", "hits"]})
    assert result.samples["access"].tolist() == sorted({*range(0, 11, every), 10})
    assert result.samples["minor"].tolist() == [min(int(n), 4) for n in result.samples["access"]]
    assert result.totals["hits"] == 6


@pytest.mark.parametrize("kind", ["sequential", "random", "zipf"])
def test_workloads(kind):
    load = Workload(kind, pages=100, accesses=600_000, write_fraction=0.25, theta=1.0)
    blocks = list(load.blocks(9))
    pages, writes = np.concatenate([p for p, _ in blocks]), np.concatenate([w for _, w in blocks])
    assert (len(pages), pages.dtype, writes.dtype) == (600_000, np.uint64, np.uint8)
    assert int(pages.max()) < 100
    assert abs(writes.mean() - 0.25) < 0.01
    counts = np.sort(np.bincount(pages.astype(int), minlength=100))[::-1]
    if kind == "zipf":
        law = 1 / np.arange(1, 101)
        assert np.allclose(counts / 600_000, law / law.sum(), rtol=0.1)
    elif kind == "sequential":
        assert pages[:102].tolist() == [*range(100), 0, 1]
    else:
        assert counts[-1] > 0.9 * 6000
    again = list(load.blocks(9))
    assert all((a[0] == b[0]).all() and (a[1] == b[1]).all() for a, b in zip(blocks, again, strict=True))


def test_write_fractions_at_their_limits():
    for fraction in (0, 1):
        assert all((w == fraction).all() for _, w in Workload("random", 5, 1000, write_fraction=fraction).blocks(0))
    assert run(workload={**BASE["workload"], "write_fraction": 0}).totals["rss_pages"] == 0
    assert run(workload={**BASE["workload"], "accesses": 0}).samples["access"].tolist() == [0]


def test_sysctls_and_machine():
    result = run(machine={"memory": "256M", "thp": "never", "cpus": 2}, sysctl={"min_free_kbytes": 4000, "vm": {"overcommit_memory": 1}})
    assert result.provenance["experiment"]["sysctl"] == {"vm.min_free_kbytes": 4000, "vm.overcommit_memory": 1}
    assert result.provenance["experiment"]["machine"]["memory"] == "256M"
    assert tomllib.loads("[sysctl]\nvm.swappiness = 3\n")["sysctl"] == {"vm": {"swappiness": 3}}


def test_out_of_memory_is_a_result():
    result = run(machine={"memory": "64M", "thp": "never"}, workload={"kind": "sequential", "pages": 1 << 16, "accesses": 1 << 16})
    assert not result.complete
    assert result.totals["oom"] == 1
    assert result.samples["access"][-1] == result.totals["accesses"] < 1 << 16


# ---- traces and output


def test_traces(tmp_path):
    sample = run(workload=None, trace={})
    assert (sample.totals["accesses"], sample.totals["minor"]) == (63412, 539)
    assert len(sample.provenance["trace_sha256"]) == 64
    (tmp_path / "t.csv").write_text("4194304,w\n4198400,r\n4194304,w\n")
    (tmp_path / "e.toml").write_text('[machine]\nmemory = "128M"\n[trace]\npath = "t.csv"\nlimit = 2\n')
    result = run_experiment(Experiment.load(tmp_path / "e.toml"))
    assert (result.totals["accesses"], result.totals["minor"], result.totals["rss_pages"]) == (2, 2, 1)
    (tmp_path / "t.csv").write_text("4194304,w\n4198400,r\n4194304,r\n")
    other = run_experiment(Experiment.load(tmp_path / "e.toml"))
    assert other.totals == result.totals
    assert other.provenance["experiment_sha256"] != result.provenance["experiment_sha256"]
    (tmp_path / "t.csv").write_text("# none\n")
    with pytest.raises(ValueError, match="no accesses"):
        run_experiment(Experiment.load(tmp_path / "e.toml"))
    (tmp_path / "t.csv").write_text("0x1000\nwhat\n")
    with pytest.raises(TraceFormatError, match="line 2"):
        run_experiment(Experiment.load(tmp_path / "e.toml"))
    (tmp_path / "t.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"t\.csv"):
        run_experiment(Experiment.load(tmp_path / "e.toml"))


def test_outputs(tmp_path):
    for name in ("r.csv", "r.json", "r.npz"):
        exp = Experiment.from_dict(changed(output={"path": name}, sample={"every": 1000, "counters": ["minor"]}), directory=tmp_path)
        result = run_experiment(exp)
    rows = [[int(x) for x in line.split(",")] for line in (tmp_path / "r.csv").read_text().splitlines()[1:]]
    assert (tmp_path / "r.csv").read_text().startswith("access,minor\n0,0\n1000,")
    assert [row[1] for row in rows] == result.samples["minor"].tolist()
    assert json.loads((tmp_path / "r.json").read_text()) == result.as_dict()
    with np.load(tmp_path / "r.npz", allow_pickle=False) as arrays:
        assert arrays["minor"].tolist() == result.samples["minor"].tolist()
        assert json.loads(arrays["about_json"].tobytes())["totals"] == result.totals
    assert sorted(p.name for p in tmp_path.iterdir()) == ["r.csv", "r.json", "r.npz"]
    with pytest.raises(FileNotFoundError, match="no directory"):
        run_experiment(Experiment.from_dict(changed(output={"path": "none/r.csv"}), directory=tmp_path))
    with pytest.raises(ValueError, match=r"\.csv"):
        result.save(tmp_path / "r.xls")


# ---- what is refused


@pytest.mark.parametrize(
    ("tables", "told"),
    [
        ({"workloads": {}}, "did you mean 'workload'"),
        ({"machine": {"memroy": "1G"}}, r"\[machine\] has no key 'memroy'; did you mean 'memory'"),
        ({"machine": {"sysctl": {}}}, "sysctl"),
        ({"machine": {"memory": "x"}}, "'x'"),
        ({"machine": {"thp": "sometimes"}}, "sometimes"),
        ({"machine": 5}, "it must be a table"),
        ({"workload": {**BASE["workload"], "page": 5}}, r"\[workload\] has no key 'page'; did you mean 'pages'"),
        ({"workload": {**BASE["workload"], "kind": "gauss"}}, "gauss"),
        ({"workload": {**BASE["workload"], "kind": []}}, "kind"),
        ({"workload": {**BASE["workload"], "pages": 0}}, r"pages is 0; it must lie in 1\.\."),
        ({"workload": {**BASE["workload"], "pages": "64M"}}, "'64M'; it must be a whole number"),
        ({"workload": {**BASE["workload"], "pages": True}}, "True"),
        ({"workload": {**BASE["workload"], "accesses": -1}}, "-1"),
        ({"workload": {**BASE["workload"], "accesses": 1 << 50}}, str(1 << 50)),
        ({"workload": {**BASE["workload"], "write_fraction": 1.5}}, "1.5"),
        ({"workload": {**BASE["workload"], "write_fraction": float("nan")}}, "nan"),
        ({"workload": {**BASE["workload"], "theta": float("inf")}}, "inf"),
        ({"workload": {**BASE["workload"], "seed": -1}}, "-1"),
        ({"workload": {"kind": "zipf", "pages": 1 << 29, "accesses": 1}}, str(1 << 29)),
        ({"workload": {"kind": "zipf"}}, "has no pages"),
        ({"workload": None}, "neither"),
        ({"trace": {}}, "both"),
        ({"workload": None, "trace": {"paht": ""}}, "did you mean 'path'"),
        ({"workload": None, "trace": {"path": ""}}, "path is ''"),
        ({"workload": None, "trace": {"format": "elf"}}, "elf"),
        ({"workload": None, "trace": {"limit": -3}}, "-3"),
        ({"workload": None, "trace": {"gap": "x"}}, "'x'"),
        ({"workload": None, "trace": {"instructions": 1}}, "true or false"),
        ({"sample": {"evry": 1}}, "did you mean 'every'"),
        ({"sample": {"every": 0}}, "every is 0"),
        ({"sample": {"counters": "pgfault"}}, "list of names"),
        ({"sample": {"counters": ["pgfalt"]}}, "did you mean 'pgfault'"),
        ({"sample": {"every": 1}, "workload": {"kind": "random", "pages": 1, "accesses": 1 << 30}}, "samples"),
        ({"sysctl": {"swapiness": 3}}, "did you mean 'vm.swappiness'"),
        ({"sysctl": {"swappiness": 1000}}, "1000"),
        ({"sysctl": {"swappiness": 1.5}}, "1.5"),
        ({"output": {}}, "has no path"),
        ({"output": {"path": "x.xls"}}, "x.xls"),
        ({"output": {"path": 3}}, "3"),
        ({"cgroup": [{"name": "a"}]}, "comes with a later stage"),
    ],
)
def test_refused_by_name(tables, told):
    with pytest.raises(ValueError, match=told):
        run(**tables)


def test_what_the_machine_refuses():
    with pytest.raises(ValueError, match="memory"):
        run(machine={"memory": "0"})
    with pytest.raises(MmapError, match="ENOMEM"):
        run(workload={"kind": "random", "pages": 1 << 30, "accesses": 1}, sysctl={"overcommit_memory": 2})


def test_files_that_are_no_experiment(tmp_path):
    path = tmp_path / "e.toml"
    for data in (b"[machine", b"\xff\xfe", b"a = " + b"[" * 5000, b"x = 1\nx = 2\n", b"#" * (2 << 20), b""):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"e\.toml"):
            Experiment.load(path)
    with pytest.raises(FileNotFoundError):
        Experiment.load(tmp_path / "none.toml")


def test_mutated_files_are_run_or_refused(tmp_path):
    rng = random.Random(11)
    text = EXAMPLE.read_text().replace("1000000", "1000").replace("32768", "100").replace("100000", "100").replace("1G", "64M")
    path, ran = tmp_path / "e.toml", 0
    words = ["0", "-1", "1e9", '"x"', "[]", "{}", "true", "nan", "=", "[", "\n", "#", "vm.", "99999999999999999999"]
    for _ in range(150):
        pieces = text.split(" ")
        pieces[rng.randrange(len(pieces))] = rng.choice(words)
        path.write_text(" ".join(pieces))
        told = "ran"
        try:
            exp = Experiment.load(path)
            if exp.workload is not None and exp.workload.accesses <= 1000 and str(exp.machine.get("memory")) == "64M":
                run_experiment(exp)
                ran += 1
        except (ValueError, MmapError) as e:
            told = str(e)
        assert told
    assert ran > 20


def test_figures_are_no_counters_of_proc():
    assert not set(FIGURES) & set(mmpy.Machine("64M").vmstat)
