"""Recordings on disk: plain and compressed, whole and damaged, and the one that ships with the package."""

import contextlib
import gzip
import random
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from mmpy.traces import Recording, TraceFormatError, files, sample_path
from mmpy.traces.recording import find_oom_kills, read_gfp

SMALL = Path(__file__).parents[1] / "golden" / "trace_small"


@pytest.fixture
def copy(tmp_path):
    target = tmp_path / "case"
    shutil.copytree(SMALL, target)
    return target


def same_events(a, b):
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in ("rows", "extras", "pages")) and a.text == b.text


def test_small_recording():
    recording = Recording.open(SMALL)
    assert recording.name == "trace_small"
    assert recording.gfp_bits.tolist() == [0x140CCA, 0xCC0]
    assert recording.gfp_names[1] == "GFP_KERNEL"
    assert [(s.number, s.label, s.row, s.t_us, s.end_us) for s in recording.snapshots] == [
        (0, "start", 0, 1000000, 1000500), (1, "end", 28, 4100000, 4100500),
    ]  # fmt: skip
    assert recording.oom_kills == ((2200000, 10),)
    assert recording.snapshot(1).state["zones"][0, 1]["boost"] == 0
    assert recording.snapshots[0].text("zoneinfo") == "Node 0, zone      DMA\n"
    assert recording.snapshots[0].text("buddyinfo") is None
    assert (recording.kernel, recording.cmdline, recording.entry) == ("", "", {})
    assert recording.events.counts()["free"] == 5
    assert recording.events.extra_text(27) == "zone_start=0x1000"
    assert recording.events.extra_text(3) == ""
    assert recording.events.name(recording.events.code("mm_compaction_begin")) == "mm_compaction_begin"
    assert recording.events.code("no_such_event") is None
    with pytest.raises(KeyError, match=r"snapshot 7: trace_small has \[0, 1\]"):
        recording.snapshot(7)


def test_sample_opens_without_any_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "zstandard", None)
    recording = Recording.open(sample_path())
    assert len(recording.events) == 42_000
    assert [s.number for s in recording.snapshots] == [0, 1]
    assert recording.kernel.startswith("6.12.")
    assert sum(f.stat().st_size for f in sample_path().iterdir()) < 400 << 10
    assert "Node 0, zone    DMA32" in recording.snapshots[1].text("buddyinfo")
    assert recording.read_seconds > 0


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_compressed_files_mean_the_same(copy, suffix):
    if suffix == ".zst":
        compress = pytest.importorskip("zstandard").ZstdCompressor().compress
    else:
        compress = gzip.compress
    for name in ("events.csv", "gfp.csv", "state0.start.txt", "state1.end.txt", "dmesg.txt", "zoneinfo.0.txt"):
        (copy / (name + suffix)).write_bytes(compress((copy / name).read_bytes()))
        (copy / name).unlink()
    a, b = Recording.open(SMALL), Recording.open(copy)
    assert same_events(a.events, b.events)
    assert a.oom_kills == b.oom_kills
    assert a.snapshots[0].state == b.snapshots[0].state
    assert a.snapshots[0].text("zoneinfo") == b.snapshots[0].text("zoneinfo")


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_truncated_and_corrupt_compression_is_named(copy, suffix):
    if suffix == ".zst":
        compress = pytest.importorskip("zstandard").ZstdCompressor().compress
    else:
        compress = gzip.compress
    data = compress((copy / "events.csv").read_bytes() * 1)
    (copy / "events.csv").unlink()
    path = copy / ("events.csv" + suffix)
    for cut in (0, 1, 5, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:cut])
        with pytest.raises(TraceFormatError, match=r"events\.csv\.(gz|zst): (truncated|corrupt)"):
            Recording.open(copy)
    for at in (0, 1):
        path.write_bytes(data[:at] + bytes([data[at] ^ 255]) + data[at + 1 :])
        with pytest.raises(TraceFormatError, match="corrupt"):
            Recording.open(copy)
    rng = random.Random(3)
    for _ in range(100):
        damaged = bytearray(data)
        damaged[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        with contextlib.suppress(TraceFormatError):
            Recording.open(copy)
    # several frames or members, one behind the other, are one file
    rows = SMALL.joinpath("events.csv").read_bytes()
    path.write_bytes(compress(rows[:500]) + compress(rows[500:]))
    assert same_events(Recording.open(copy).events, Recording.open(SMALL).events)


def test_size_hints(tmp_path):
    for suffix, data in ((".gz", gzip.compress(b"x" * 5000)), ("", b"x" * 5000)):
        path = tmp_path / ("a" + suffix)
        path.write_bytes(data)
        assert files.size_hint(path) == 5000
    zstandard = pytest.importorskip("zstandard")
    for size in (100, 300, 70_000):
        path = tmp_path / "a.zst"
        path.write_bytes(zstandard.ZstdCompressor().compress(random.Random(4).randbytes(size)))
        assert files.size_hint(path) == size
    path.write_bytes(b"\x28\xb5\x2f\xfd" + b"\xff" * 20)
    assert files.size_hint(path) <= 24 * 100
    path.write_bytes(b"short")
    assert files.size_hint(path) == 0


def test_missing_zstandard_is_said(copy, monkeypatch):
    monkeypatch.setitem(sys.modules, "zstandard", None)
    (copy / "events.csv").rename(copy / "events.csv.zst")
    with pytest.raises(ImportError, match=r"linux-mm-sim\[traces\]"):
        Recording.open(copy)


def test_missing_files(copy, tmp_path):
    (copy / "gfp.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"gfp\.csv"):
        Recording.open(copy)
    with pytest.raises(FileNotFoundError, match=r"events\.csv"):
        Recording.open(tmp_path / "nothing")


def test_optional_files(copy):
    (copy / "dmesg.txt").unlink()
    (copy / "state1.end.txt").unlink()
    recording = Recording.open(copy)
    assert recording.oom_kills == ()
    # a mark without a state is no snapshot
    assert [s.number for s in recording.snapshots] == [0]


def test_index_above_names_the_case(tmp_path, copy):
    (tmp_path / "index.json").write_text('[{"kind": "trace", "name": "my", "dir": "case", "kernel": "6.12.1", "cmdline": "quiet"}]')
    recording = Recording.open(copy)
    assert (recording.name, recording.kernel, recording.cmdline) == ("my", "6.12.1", "quiet")
    (tmp_path / "index.json").write_text("[")
    with pytest.raises(TraceFormatError, match=r"index\.json: not JSON"):
        _ = Recording.open(copy).name


def test_row_limit(copy):
    with pytest.raises(TraceFormatError, match="more than 5 rows"):
        Recording.open(copy, max_rows=5)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no flags"),
        ("gfp_id,bits,count,names\n", "no flags"),
        ("a,b\n0,1\n", "line 1: the header"),
        ("gfp_id,bits,count,names\n1,0x1,1,x\n", "line 2: gfp_id '1' where 0 was due"),
        ("gfp_id,bits,count,names\n0,0x1,1,x\n0,0x1,1,x\n", "line 3"),
        ("gfp_id,bits,count,names\n0,zz,1,x\n", "bits 'zz'"),
        ("gfp_id,bits,count,names\n0,0x100000000,1,x\n", "below 2^32"),
        ("gfp_id,bits,count,names\n0,-1,1,x\n", "below 2^32"),
        ("gfp_id,bits,count,names\n0\n", "at least"),
    ],
)
def test_bad_flag_tables(tmp_path, text, problem):
    path = tmp_path / "gfp.csv"
    path.write_text(text)
    with pytest.raises(TraceFormatError) as raised:
        read_gfp(path)
    assert problem in str(raised.value)


def test_text_limit(tmp_path):
    path = tmp_path / "big.txt.gz"
    path.write_bytes(gzip.compress(b"x" * 10_000))
    assert len(files.read_text(path)) == 10_000
    with pytest.raises(TraceFormatError, match="more than 9999 bytes"):
        files.read_text(path, 9999)


def test_oom_kills():
    log = (
        "[   10.746012] Out of memory: Killed process 161 (wl) total-vm:99356kB\n"
        "[   12.000001] Memory cgroup out of memory: Killed process 7 (a b)\n"
        "[   13.000001] nothing: Killed process 8\n"
        "noise [   14.000001] Out of memory: Killed process 9\n"
    )
    assert find_oom_kills(log) == [(10746012, 161), (12000001, 7)]
