"""Traces of memory accesses: every format read as it is written, and refused by line where it is not."""

import gzip
import random

import numpy as np
import pytest

from mmpy import Machine
from mmpy.traces import access
from mmpy.traces.access import AccessTrace, access_sample_path, collapse_runs, read_access_trace, regions, thin
from mmpy.traces.access_replay import Outcome, make_accesses, map_pages
from mmpy.traces.errors import TraceFormatError

LACKEY = """==42== Lackey, an example Valgrind tool
==42==
I  04001000,3
 S 1ffefffff8,8
 L 04222caf,8
 M 0421f000,1
I  04001ffe,4
 L 04222ffc,8
 S 04222ffd,4
--42-- a warning

==42== Exit code: 0
"""


def plain(trace: AccessTrace) -> list[tuple[int, int]]:
    return list(zip(trace.vpns.tolist(), trace.writes.tolist(), strict=True))


def read(tmp_path, text: str | bytes, name: str = "trace.txt", **options) -> AccessTrace:
    path = tmp_path / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_access_trace(path, **options)


# ---- lackey


def test_lackey(tmp_path):
    data = [(0x1FFEFFF, 1), (0x4222, 0), (0x421F, 1), (0x4222, 0), (0x4223, 0), (0x4222, 1), (0x4223, 1)]
    # the last store, at ...ffd with 4 bytes, touches one byte of the next page
    found = read(tmp_path, LACKEY)
    assert plain(found) == data
    assert found.skipped == {"blank": 1, "comments": 4, "instructions": 2}
    assert found.source == str(tmp_path / "trace.txt")
    everything = read(tmp_path, LACKEY, instructions=True)
    assert plain(everything) == [(0x4001, 0), *data[:3], (0x4001, 0), (0x4002, 0), *data[3:]]
    assert plain(read(tmp_path, LACKEY.replace("\n", "\r\n"))) == data
    assert plain(read(tmp_path, LACKEY.rstrip("\n"))) == data


@pytest.mark.parametrize(("size", "pages"), [(1, 1), (4096, 1), (4097, 2), (65536, 16)])
def test_lackey_sizes(tmp_path, size, pages):
    assert plain(read(tmp_path, f" S 04001000,{size}\n")) == [(0x4001 + i, 1) for i in range(pages)]


@pytest.mark.parametrize(
    "line",
    [
        " L 04222caf", " L ,8", " L 04222cag,8", " L 04222caf,", " L 04222caf,x", " L 04222caf,0", " L 04222caf,65537", " X 04222caf,8",
        "L  04222caf,8", " L 10000000000000000,1", " L ffffffffffffffff,2", " L 4,8,8", " L 04222caf,123456789", "hello", " S 0x1000,8",
    ],
)  # fmt: skip
def test_lackey_refuses(tmp_path, line):
    with pytest.raises(TraceFormatError, match=r"trace\.txt: line 4: ") as e:
        read(tmp_path, f"==1== x\n L 1000,1\n\n{line}\n S 2000,1\n")
    assert line.strip() in str(e.value)


def test_lines_are_counted_across_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(access, "BLOCK", 50)
    monkeypatch.setattr(access.files, "PIECE", 17)
    lines = [f" {'LS'[i % 2]} {0x1000 * (i + 1):08x},4" for i in range(300)]
    found = read(tmp_path, "\n".join(lines))
    assert plain(found) == [(i + 1, i % 2) for i in range(300)]
    assert plain(read(tmp_path, "\n".join(lines), limit=101)) == plain(found)[:101]
    lines[250] = " L oops,1"
    with pytest.raises(TraceFormatError, match=r"line 251: .*oops"):
        read(tmp_path, "\n".join(lines))
    monkeypatch.setattr(access, "MAX_LINE", 100)
    with pytest.raises(TraceFormatError, match="line 2: longer than 100"):
        read(tmp_path, " L 1000,1\n" + "x" * 1000)


# ---- text and CSV


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0x1000\n0x2fff\n8192\n", [(1, 0), (2, 0), (2, 0)]),
        ("0X1000,r\n0x2000,W\n12288,s\n", [(1, 0), (2, 1), (3, 1)]),
        ("R 0x1000\nW 0x2000\n", [(1, 0), (2, 1)]),
        ("0x1000\tread\n\n# a comment, with commas\n0x2000 WRITE\n", [(1, 0), (2, 1)]),
        ("address,write\n4096,0\n8192,1\n", [(1, 0), (2, 1)]),
        ("time;op;addr\n1;load;4096\n2;store;8192\n", [(1, 0), (2, 1)]),
        ("addr\n4096\n", [(1, 0)]),
        ("18446744073709551615\n000000000000000000000004096\n", [((1 << 52) - 1, 0), (1, 0)]),
        ("0 1\n1 1\n", [(0, 1), (0, 1)]),
        ("", []),
        ("# nothing\n", []),
    ],
)
def test_text(tmp_path, text, expected):
    assert plain(read(tmp_path, text)) == expected
    assert plain(read(tmp_path, text.replace("\n", "\r\n"))) == expected


def test_bare_hexadecimal_has_to_be_named(tmp_path):
    text = "7ffe1000,w\n0x2000,r\n00003000,r\n"
    assert plain(read(tmp_path, text, format="hex")) == [(0x7FFE1, 1), (2, 0), (3, 0)]
    with pytest.raises(TraceFormatError, match=r"line 1: '7ffe1000' .*format hex"):
        read(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "line", "told"),
    [
        ("0x1000\nxyz\n", 2, "xyz"),
        ("0x1000\n0x\n", 2, "0x"),
        ("1\n-4096\n", 2, "-4096"),
        ("1\n4096.5\n", 2, "4096.5"),
        ("18446744073709551616\n", 1, "18446744073709551616"),
        ("0x10000000000000000\n", 1, "0x10000000000000000"),
        ("1,r\n2\n", 2, "1 columns"),
        ("1,r\n2,q\n", 2, "neither a read"),
        ("1,r\n2,writes\n", 2, "neither a read"),
        ("1 2 3\n", 1, "no header"),
        ("what,is,this\n1,2,3\n", 1, "no header"),
        ("1" * 200 + "\n", 1, "111"),
    ],
)
def test_text_refuses(tmp_path, text, line, told):
    with pytest.raises(TraceFormatError, match=f"line {line}: ") as e:
        read(tmp_path, text)
    assert told in str(e.value)
    assert len(str(e.value)) < 500


# ---- npy and npz


def test_npy(tmp_path, monkeypatch):
    monkeypatch.setattr(access, "BLOCK", 64)
    expected = [(i, i % 2) for i in range(100)]
    for dtype in (np.uint64, ">u8", np.int32):
        np.save(tmp_path / "a.npy", (np.arange(100) * 4096).astype(dtype))
        assert plain(read_access_trace(tmp_path / "a.npy")) == [(i, 0) for i in range(100)]
    for name, kind in (("write", "?"), ("rw", "u1")):
        records = np.zeros(100, [("t", "f8"), ("addr", "u8"), (name, kind)])
        records["addr"], records[name] = np.arange(100) * 4096 + 5, np.arange(100) % 2
        np.save(tmp_path / "a.npy", records)
        assert plain(read_access_trace(tmp_path / "a.npy")) == expected
    whole = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy.gz").write_bytes(gzip.compress(whole))
    assert plain(read_access_trace(tmp_path / "a.npy.gz")) == expected
    with pytest.raises(TraceFormatError, match="truncated: 99 of 100"):
        read(tmp_path, whole[:-1])


@pytest.mark.parametrize(
    "array", [np.zeros(3), np.zeros((2, 2), np.uint64), np.array([-1]), np.array([{}], object), np.zeros(2, [("a", "u8")]),
              np.zeros(2, "S9"), np.zeros(2, [("addr", "f8")]), np.zeros(2, [("addr", "u8"), ("write", "f8")])],
)  # fmt: skip
def test_npy_refuses(tmp_path, array):
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    with pytest.raises(TraceFormatError, match=r"a\.npy"):
        read_access_trace(tmp_path / "a.npy")


def test_npz_round_trip(tmp_path):
    rng = np.random.default_rng(1)
    for n, pages in ((0, 1), (1, 1), (1001, 7), (100_000, 1 << 17)):
        trace = AccessTrace(rng.integers(0, pages, n, dtype=np.uint64) << np.uint64(3), rng.integers(0, 2, n).astype(np.uint8))
        trace.save(tmp_path / "t.npz")
        assert plain(read_access_trace(tmp_path / "t.npz")) == plain(trace)
    np.savez(tmp_path / "t.npz", pages=np.zeros(1, np.uint64))
    with pytest.raises(TraceFormatError, match="index"):
        read_access_trace(tmp_path / "t.npz")
    np.savez(tmp_path / "t.npz", pages=np.zeros(1, np.uint64), index=np.ones(1, np.uint8), write=np.zeros(1, np.uint8))
    with pytest.raises(TraceFormatError, match="do not fit together"):
        read_access_trace(tmp_path / "t.npz")


# ---- compressed, misnamed, absent


def test_compressed(tmp_path):
    expected = plain(read(tmp_path, LACKEY))
    packed = gzip.compress(LACKEY.encode())
    assert plain(read(tmp_path, packed, "t.gz")) == expected
    with pytest.raises(TraceFormatError, match="truncated"):
        read(tmp_path, packed[:-9], "t.gz")
    zstandard = pytest.importorskip("zstandard")
    assert plain(read(tmp_path, zstandard.compress(LACKEY.encode()), "t.zst")) == expected


def test_refuses_what_is_no_trace(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_access_trace(tmp_path / "none")
    with pytest.raises(TraceFormatError, match="directory"):
        read_access_trace(tmp_path)
    with pytest.raises(TraceFormatError, match="binary"):
        read(tmp_path, b"\x7fELF\0\0\0")
    for options in ({"format": "elf"}, {"limit": -1}, {"limit": True}):
        with pytest.raises(ValueError, match=str(next(iter(options.values())))):
            read(tmp_path, LACKEY, **options)


# ---- collapse, thin, regions


def collapsed_slowly(rows: list[tuple[int, int]]) -> list[tuple[int, int]]:
    out: list[tuple[int, int]] = []
    page, written = None, False
    for vpn, write in rows:
        if vpn != page:
            page, written = vpn, False
        elif written or not write:
            continue
        written = written or bool(write)
        out.append((vpn, write))
    return out


def test_collapse_drops_only_what_cannot_fault(tmp_path, monkeypatch):
    rng = random.Random(5)
    for block in (30, 200, 1 << 20):
        monkeypatch.setattr(access, "BLOCK", block)
        for _ in range(40):
            rows = [(rng.randrange(3), int(rng.random() < 0.3)) for _ in range(rng.randrange(1, 200))]
            text = "".join(f" {'LS'[w]} {v << 12:x},1\n" for v, w in rows)
            found = read(tmp_path, text, format="lackey", collapse=True)
            assert plain(found) == collapsed_slowly(rows)
            assert found.skipped.get("collapsed", 0) == len(rows) - len(found)
            whole = read(tmp_path, text, format="lackey")
            vpns, writes = collapse_runs(whole.vpns, whole.writes)
            assert (vpns.tolist(), writes.tolist()) == (found.vpns.tolist(), found.writes.tolist())
    assert len(collapse_runs(np.empty(0, np.uint64), np.empty(0, np.uint8))[0]) == 0


def test_thin_keeps_the_faults():
    rng = np.random.default_rng(2)
    whole = AccessTrace(rng.zipf(1.3, 20_000).clip(16, 3000).astype(np.uint64), (rng.random(20_000) < 0.3).astype(np.uint8))
    results = []
    for trace in (whole, thin(whole, 100), thin(whole, 20_000)):
        machine = Machine("256M", thp="never")
        process, outcome = machine.spawn("x"), Outcome()
        map_pages(process, trace.vpns)
        assert make_accesses(process, trace.vpns, trace.writes, outcome)
        results.append((outcome.as_dict()["minor"], process.rss_pages, machine.vmstat["nr_anon_pages"]))
    assert results[0] == results[1] == results[2]
    assert len(thin(whole, 1)) == len(whole)
    with pytest.raises(ValueError, match="0"):
        thin(whole, 0)


def test_regions():
    vpns = np.array([9, 1, 2, 2, 12, 100], np.uint64)
    assert regions(vpns, 0) == [(1, 3), (9, 10), (12, 13), (100, 101)]
    assert regions(vpns, 1) == regions(vpns, 0)
    assert regions(vpns, 2) == [(1, 3), (9, 13), (100, 101)]
    assert regions(vpns, 5) == regions(vpns, 2)
    assert regions(vpns, 6) == [(1, 13), (100, 101)]
    assert regions(vpns, 1 << 70) == [(1, 101)]
    assert regions(vpns[:0]) == []
    assert regions(np.array([(1 << 52) - 1], np.uint64), 3) == [((1 << 52) - 1, 1 << 52)]
    for gap in (-1, True, 1.5):
        with pytest.raises(ValueError, match=str(gap)):
            regions(vpns, gap)


def test_what_cannot_be_mapped_fails_as_data():
    machine = Machine("128M")
    process, outcome = machine.spawn("x"), Outcome()
    vpns = np.array([0, 1 << 40, (1 << 52) - 1, 0x400, 0x400], np.uint64)
    mapped, refused = map_pages(process, vpns)
    assert mapped == [(0x400, 0x401)]
    assert len(refused) == 3
    assert make_accesses(process, vpns, np.ones(5, np.uint8), outcome)
    assert outcome.as_dict() == {"accesses": 5, "hits": 1, "minor": 1, "major": 0, "segv": 3, "sigbus": 0, "oom": 0}
    machine.validate()


def test_too_many_regions_are_mapped_together(monkeypatch):
    from mmpy.traces import access_replay

    monkeypatch.setattr(access_replay, "MAX_REGIONS", 10)
    process = Machine("128M").spawn("x")
    mapped, refused = map_pages(process, np.arange(1000, 1200, 2, dtype=np.uint64), 0)
    assert (mapped, refused) == ([(1000, 1199)], [])


# ---- the sample, fuzz


def test_the_sample():
    trace = read_access_trace(access_sample_path())
    assert (len(trace), trace.nr_pages, int(trace.writes.sum())) == (63412, 385, 28766)
    assert access_sample_path().stat().st_size < 60_000
    machine = Machine("1G")
    process, outcome = machine.spawn("sort"), Outcome()
    mapped, refused = map_pages(process, trace.vpns)
    assert (len(mapped), refused) == (6, [])
    assert make_accesses(process, trace.vpns, trace.writes, outcome)
    assert (outcome.as_dict()["minor"], process.rss_pages) == (539, 321)
    machine.validate()


def test_mutated_traces_are_read_or_refused(tmp_path):
    rng = random.Random(7)
    np.save(tmp_path / "seed.npy", np.array([(4096, 1)], [("addr", "u8"), ("write", "?")]))
    AccessTrace(np.array([1, 2], np.uint64), np.array([0, 1], np.uint8)).save(tmp_path / "seed.npz")
    csv = "address,write\n" + "".join(f"{hex(i * 999)},{'rw'[i % 2]}\n" for i in range(9))
    seeds = [LACKEY.encode(), csv.encode(), *((tmp_path / f"seed.{s}").read_bytes() for s in ("npy", "npz")), gzip.compress(csv.encode())]
    alphabet = b"0123456789abcdefxLSMI ,;\r\n\0=-#\xff"
    outcomes = {True: 0, False: 0}
    path = tmp_path / "fuzz"
    for i in range(1500):
        data = bytearray(rng.choice(seeds))
        for _ in range(rng.choice((1, 1, 2, 5))):
            at = rng.randrange(len(data) + 1)
            match rng.randrange(4):
                case 0:
                    data[at : at + 1] = bytes([rng.choice(alphabet)])
                case 1:
                    del data[at : at + rng.randrange(1, 9)]
                case 2:
                    data[at:at] = bytes(rng.choice(alphabet) for _ in range(rng.randrange(1, 25)))
                case _:
                    data[at : at + 1] = bytes([rng.randrange(256)])
        where = path.with_suffix(".gz") if data[:2] == b"\x1f\x8b" else path
        where.write_bytes(bytes(data))
        told = where.name
        try:
            trace = read_access_trace(where, format=rng.choice(access.FORMATS) if i % 3 == 0 else "auto", collapse=bool(i & 1))
        except TraceFormatError as e:
            told = str(e)
            outcomes[False] += 1
        else:
            assert trace.vpns.dtype == np.uint64
            assert len(trace.vpns) == len(trace.writes)
            assert set(trace.writes.tolist()) <= {0, 1}
            outcomes[True] += 1
        assert where.name in told
    assert min(outcomes.values()) > 100
