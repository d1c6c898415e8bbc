"""Recorded reclaim runs: what is read, what counts as equal, which bar holds, and what the search finds. No machine is run here."""

import gzip
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mmcore.base.records import TRACE_DTYPE
from mmcore.base.trace import Tracer
from mmcore.base.vmscan_trace import EVENTS, watched
from mmpy import Machine
from mmpy.fidelity import compare, open_set
from mmpy.fidelity import reclaim_bars as bars
from mmpy.fidelity.case import Case, RecordingError
from mmpy.fidelity.reclaim import compare_reclaim, compare_runs, overview, verdicts
from mmpy.fidelity.reclaim_case import ACC_READ, BATCHES, MISS, Evictions, Parameters, Run, RunResult, check_sequence, open_run
from mmpy.fidelity.reclaim_search import MAX_FILL, MAX_K0, Unknowns, mismatch, search
from mmpy.fidelity.reclaim_trace import evictions
from mmpy.fidelity.rows import differs, is_error
from mmpy.workloads import fingerprint, sequence

GOLDEN = Path(__file__).parents[1] / "golden" / "reclaim"
PREAD, FITS = "pread_phase_1.6__classic", "file_seq_0.9__classic"


def case(name: str, root: Path = GOLDEN) -> Case:
    (found,) = open_set(root).select(names=[name])
    return found


@pytest.fixture(scope="module")
def pread() -> Run:
    return open_run(case(PREAD))


def same(run: Run, **changes: object) -> RunResult:
    """A run of ours that is the recorded one, but for what is changed."""
    points = tuple(dict(ck) for ck in run.checkpoints)
    return replace(RunResult(run.acc, dict(run.counters), run.pages, points, run.evictions, {"k0": 0}), **changes)


def by_figure(rows) -> dict:
    return {row["figure"]: row for row in rows}


# ---- reading


def test_a_recorded_run(pread):
    p = pread.parameters
    assert (p.mode, p.pattern, p.limit_pages, p.pages, p.n, p.flush, p.ram) == ("pread", "phase", 8192, 13107, 100_000, 0, 768 << 20)
    assert (p.prefill, p.anon_pages, p.swap_device) == (False, 0, "virtio")
    assert pread.counters["misses"] == np.count_nonzero(pread.acc & MISS) == 15766
    assert pread.counters["resident_end"] == np.count_nonzero(pread.pages & 1)
    assert "seed" not in pread.counters
    assert "pages" not in pread.counters
    assert len(pread.checkpoints) == 20
    last = pread.checkpoints[-1]
    assert last["t"] == p.n
    for name in ("ms_pgscan", "ms_pgrefill", "ms_workingset_refault_file", "majflt", "minflt"):
        assert last[name] == pread.counters[name], name
    assert pread.spread == {}
    assert fingerprint(p.accesses()) == case(PREAD).entry["seq_hash"]


def test_families(pread):
    def changed(counters: dict | None = None, **parameters: object) -> Run:
        p = replace(pread.parameters, **parameters)
        return replace(pread, parameters=p, counters={**pread.counters, **(counters or {})})

    assert bars.family(pread) == bars.READ
    assert bars.family(open_run(case(FITS))) == bars.NOTHING
    assert bars.family(changed(mode="file")) == bars.MAPPED
    assert bars.family(changed(mode="file", mlock=10)) == bars.SLOW
    assert bars.family(changed(mode="file", wfrac=64)) == bars.SLOW
    assert bars.family(changed(wfrac=128)) == bars.SLOW
    assert bars.family(changed(mode="shmem", swap_device="ram")) == bars.SLOW
    assert bars.family(changed(mode="anon", wfrac=256)) == bars.SLOW
    assert bars.family(changed(mode="anon", wfrac=256, swap_device="ram")) == bars.MAPPED
    assert bars.family(changed(mode="mixed", swappiness=0)) == bars.MAPPED
    assert bars.family(changed(limit_pages=0)) == bars.GLOBAL


# ---- comparing


def test_the_recorded_run_itself_is_equal(pread):
    rows = list(compare_runs(pread, same(pread)))
    assert not [row for row in rows if row["exact"] and differs(row)]
    found = by_figure(rows)
    assert found["verdict.equal"]["ours"] is True
    assert found["verdict.bar"]["ours"] is True
    assert found["acc.miss"]["ours"] == found["acc.miss"]["kernel"] == 100_000
    assert found["state.resident"]["first_divergence"] is None
    assert found["misses"]["exact"]
    assert not found["vm_pgfree"]["exact"]
    assert found["checkpoint.ms_pgscan"]["ours"] == 20
    assert found["chosen.k0"]["ours"] == 0
    assert json.loads(json.dumps(rows)) == rows


def test_what_makes_two_runs_unequal(pread):
    acc = pread.acc.copy()
    acc[77] ^= ACC_READ
    row = by_figure(compare_runs(pread, same(pread, acc=acc)))
    assert row["acc.miss"]["first_divergence"] == 77
    assert row["acc.miss"]["ours"] == 99_999
    assert row["verdict.equal"]["ours"] is False
    assert row["verdict.equal"]["note"] == "1 accesses"
    assert row["verdict.bar"]["ours"] is True

    def with_counter(name: str, change: int) -> dict:
        return by_figure(compare_runs(pread, same(pread, counters={**pread.counters, name: pread.counters[name] + change})))

    assert with_counter("ms_pgactivate", 8)["verdict.equal"]["ours"] is True
    assert with_counter("ms_pgactivate", -9)["verdict.equal"]["note"] == "ms_pgactivate -9"
    for name in ("misses", "ms_pgscan", "ms_pgsteal", "ms_pgrefill", "ms_workingset_restore_file", "events_max", "events_oom"):
        assert with_counter(name, 1)["verdict.equal"]["note"] == f"{name} +1"
    assert with_counter("vm_pgfree", 100)["verdict.equal"]["ours"] is True
    assert with_counter("misses", 15)["verdict.bar"]["ours"] is True
    assert with_counter("misses", 16)["verdict.bar"]["ours"] is False


def test_accesses_of_read_have_a_bar(pread):
    acc = pread.acc.copy()
    acc[:100] ^= ACC_READ
    assert by_figure(compare_runs(pread, same(pread, acc=acc)))["verdict.bar"]["ours"] is True
    acc[100] ^= ACC_READ
    row = by_figure(compare_runs(pread, same(pread, acc=acc)))["verdict.bar"]
    assert row["ours"] is False
    assert row["note"] == "read: accesses 0.101 % of 0.1 %"
    assert differs(row)


def test_bars_widen_with_the_spread(pread):
    run = replace(pread, parameters=replace(pread.parameters, mode="file", pattern="uniform"))
    ours = {**run.counters, "ms_pgscan": round(run.counters["ms_pgscan"] * 1.03)}
    assert failed(run, ours) == ["ms_pgscan"]
    assert not failed(replace(run, spread={"ms_pgscan": 0.02}), ours)
    missing = [str(c) for c in bars.checks(run, RunResult(run.acc, {})) if not c.holds]
    assert "misses missing of 0.5 %" in missing


def failed(run: Run, counters: dict, **changes: object) -> list[str]:
    return [c.figure for c in bars.checks(run, replace(RunResult(run.acc, counters), **changes)) if not c.holds]


def test_bars_of_the_other_families(pread):
    points = tuple({"t": t, "vm_nr_free_pages": free} for t, free in ((1, 9000), (2, 5000), (3, 1000), (4, 1100)))
    counters = {"misses": 1000, "vm_pgscan_direct": 500}
    no_group = replace(pread, parameters=replace(pread.parameters, limit_pages=0), counters=counters, checkpoints=points)
    assert not failed(no_group, {"misses": 1050, "vm_pgscan_direct": 51}, checkpoints=points)
    assert failed(no_group, {"misses": 1051, "vm_pgscan_direct": 49}, checkpoints=points) == ["misses", "vm_pgscan_direct (ratio)"]
    for free, wrong in ((1210, []), (1211, ["free pages"]), (890, []), (889, ["free pages"])):
        mine = (*points[:2], {"t": 3, "vm_nr_free_pages": free}, points[3])
        assert failed(no_group, counters, checkpoints=mine) == wrong, free
    assert failed(no_group, counters) == ["free pages"]
    fits, zero = open_run(case(FITS)), dict.fromkeys(bars.ZERO, 0)
    assert not failed(fits, zero)
    assert failed(fits, {**zero, "ms_pgscan": 1}) == ["ms_pgscan"]
    slow = replace(pread, parameters=replace(pread.parameters, mode="shmem"))
    figures = {c.figure for c in bars.checks(slow, same(slow))}
    assert figures >= {"misses", "ms_pgscan", "ms_pgactivate"}
    assert "minflt" not in figures


def test_missing_figures_are_rows(pread):
    ours = RunResult(pread.acc, {"misses": pread.counters["misses"]})
    rows = by_figure(compare_runs(pread, ours))
    assert is_error(rows["ms_pgscan"])
    assert rows["ms_pgscan"]["kernel"] == pread.counters["ms_pgscan"]
    assert is_error(rows["state.resident"])
    assert rows["verdict.equal"]["ours"] is False


def test_overview(pread):
    apart = {**pread.counters, "misses": pread.counters["misses"] * 2}
    rows = [*compare_runs(pread, same(pread)), *compare_runs(replace(pread, name="other"), same(pread, counters=apart))]
    misses = next(o for o in overview(rows) if o.figure == "misses")
    assert (misses.cases, misses.median, misses.worst, misses.case, misses.errors) == (2, 0.5, 1.0, "other", 0)
    assert verdicts(rows) == {"verdict.equal": (1, 2), "verdict.bar": (1, 2)}
    assert not overview([{"kind": "machine", "figure": "misses", "case": "m", "distance": 0.0, "ours": 1}])


# ---- the search


@pytest.mark.parametrize("truth", [Unknowns(), Unknowns(3), Unknowns(MAX_K0, 17), Unknowns(1, MAX_FILL), Unknowns(2, 5, 2500)])
def test_the_search_finds_what_was_so(pread, truth):
    """A run that is off by as much as its choices are; the first access that differs lies behind the fold."""
    asked = []

    def attempt(u: Unknowns) -> RunResult:
        asked.append(u)
        acc = pread.acc.copy()
        wrong = 10 * abs(u.k0 - truth.k0) + abs(u.fill - truth.fill) + 5 * (u.fold != truth.fold)
        if wrong:
            acc[30_000 : 30_000 + wrong] ^= ACC_READ
        return same(pread, acc=acc)

    found = search(pread, attempt)
    assert Unknowns(*(found.chosen[name] for name in ("k0", "fill", "fold"))) == truth
    assert found.chosen["tried"] == len(asked) == len(set(asked))
    assert mismatch(pread, found) == 0
    if truth == Unknowns():
        assert len(asked) == 1


def test_the_search_stops_within_the_bar_where_the_kernel_varies(pread):
    run = replace(pread, parameters=replace(pread.parameters, mode="file"))
    found = search(run, lambda u: same(run, counters={**run.counters, "misses": run.counters["misses"] + 20}))
    assert found.chosen["tried"] == 1


def test_nothing_is_searched_without_a_group(pread):
    run = replace(pread, parameters=replace(pread.parameters, limit_pages=0))
    told = []
    found = search(run, lambda u: same(run, counters={}), lambda done, total: told.append((done, total)))
    assert found.chosen["tried"] == 1
    assert all(done < total for done, total in told)


def test_a_simulator_by_hand():
    def simulator(run, accesses, on_chunk):
        assert len(accesses.pages) == run.parameters.n
        return same(run)

    rows = by_figure(compare_reclaim(case(PREAD), simulator=simulator))
    assert rows["verdict.equal"]["ours"] is True


# ---- evictions


def evict_case(tmp_path: Path, n: int = 4) -> Case:
    work = sequence("seq", 3, n, seed=1)
    directory = tmp_path / "evict"
    directory.mkdir()
    stat = "## memory.stat\nanon 0\nfile {file}\npgscan {scan}\npgsteal 1\n## vmstat\nnr_free_pages 5\npgfree {scan}\n"
    (directory / "ev.txt").write_text(
        f"mode=pread pattern=seq seed=1 pages=3 n={n} theta=990 hot=0 wfrac=0 prefill=0 mlock=0 adv=0 flush=0\n"
        + "@@ start t=0 majflt=0 minflt=10\n" + stat.format(file=0, scan=5)
        + "@@ ck t=2 majflt=0 minflt=11\n" + stat.format(file=8192, scan=6)
        + f"@@ end t={n} majflt=0 minflt=12\n" + stat.format(file=4096, scan=8) + "## memory.events\nmax 3\n"
    )  # fmt: skip
    (directory / "ev.acc.gz").write_bytes(gzip.compress(bytes([2, 2, 0, 2][:n])))
    (directory / "ev.state").write_bytes(bytes([1, 0, 0]))
    (directory / "ev.pages.csv").write_text(
        "seq,event,page,pfn,order\n1,add,0,100,0\n2,add,1,101,0\n3,activate,,100,0\n4,del,1,101,0\n5,add,2,101,0\n6,activate,,101,0\n"
        "7,activate,,999,0\n"
    )
    (directory / "ev.batches.csv").write_text(
        'seq,event,fields\n3,mm_vmscan_memcg_reclaim_begin,"order=0 gfp_flags=GFP_NOFS"\n'
        '4,mm_vmscan_lru_isolate,"classzone=4 order=0 nr_requested=1 nr_scanned=1 nr_skipped=0 nr_taken=1 lru=inactive_file"\n'
        '4,mm_vmscan_other,"x=1"\n5,mm_vmscan_memcg_reclaim_end,"nr_reclaimed=1"\n'
    )
    entry = {
        "kind": "evict", "name": "ev", "ram": "768M", "lru": "classic", "limit_pages": 2, "swappiness": 60, "mode": "pread",
        "pattern": "seq", "seq_hash": fingerprint(work),
    }  # fmt: skip
    return Case("evict", "ev", tmp_path, entry)


def test_evictions(tmp_path):
    run = open_run(evict_case(tmp_path))
    assert run.evictions is not None
    assert run.evictions.pages == (("add", 0), ("add", 1), ("activate", 0), ("del", 1), ("add", 2), ("activate", 2))
    assert run.evictions.batches == (
        ("memcg_reclaim_begin",), ("lru_isolate", "inactive_file", 1, 1, 0, 1), ("memcg_reclaim_end", 1),
    )  # fmt: skip
    assert run.counters["ms_pgscan"] == 3
    assert run.counters["vm_pgfree"] == 3
    assert run.counters["end_file"] == 1
    assert run.counters["events_max"] == 3
    assert run.counters["misses"] == 3
    assert run.counters["minflt"] == 2
    assert [(ck["t"], ck["ms_pgscan"]) for ck in run.checkpoints] == [(2, 1)]
    rows = by_figure(compare_runs(run, same(run)))
    assert rows["evict.add"]["ours"] == rows["evict.add"]["kernel"] == 3
    assert rows["evict.batches"]["exact"]
    other = Evictions((("add", 0), ("add", 2), ("add", 1), ("del", 0)), run.evictions.batches[:2])
    rows = by_figure(compare_runs(run, same(run, evictions=other)))
    assert rows["evict.add"]["first_divergence"] == 1
    assert rows["evict.add"]["ours"] == 1
    assert rows["evict.batches"]["first_divergence"] == 2
    assert rows["evict.batches"]["note"] == "kernel ('memcg_reclaim_end', 1), ours ends"
    rows = by_figure(compare_runs(run, same(run, evictions=None)))
    assert is_error(rows["evict.del"])
    assert mismatch(run, same(run, evictions=other)) > mismatch(run, same(run)) == 0


# ---- what is wrong is told


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    shutil.copytree(GOLDEN, tmp_path / "set")
    return tmp_path / "set"


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (lambda d: (d / "reclaim/acc" / f"{PREAD}.acc.gz").unlink(), "acc.*is missing"),
        (lambda d: (d / "reclaim/acc" / f"{PREAD}.acc.gz").write_bytes(gzip.compress(b"\0" * 9)), "9 accesses are recorded, n is 100000"),
        (lambda d: (d / "reclaim/state" / f"{PREAD}.state.gz").write_bytes(b"\x1f\x8bno"), "corrupt|truncated"),
        (lambda d: (d / "reclaim/state" / f"{PREAD}.state.gz").write_bytes(gzip.compress(b"")), "0 pages are recorded at the end"),
        (lambda d: (d / "reclaim/runs.csv.gz").unlink(), "runs.csv is missing"),
        (lambda d: (d / "reclaim/runs.csv.gz").write_bytes(gzip.compress(b"run,case\na,b\n")), "has no such run"),
        (lambda d: (d / "reclaim/runs.csv.gz").write_bytes(gzip.compress(b"name,case\na,b\n")), "no column 'run'"),
        (lambda d: (d / "reclaim/runs.csv.gz").write_bytes(gzip.compress(b"run,case\na\n")), "line 2 has not 2 columns"),
        (
            lambda d: (d / "reclaim/runs.csv.gz").write_bytes(gzip.compress(f"run,mode,pattern,ram\n{PREAD},mmap,seq,1G\n".encode())),
            "mode is 'mmap'; there are file, anon",
        ),
        (
            lambda d: (d / "reclaim/runs.csv.gz").write_bytes(gzip.compress(f"run,mode,pattern,ram\n{PREAD},file,lru,1G\n".encode())),
            "pattern is 'lru'",
        ),
        (
            lambda d: (d / "reclaim/runs.csv.gz").write_bytes(gzip.compress(f"run,mode,pattern,ram\n{PREAD},file,seq,big\n".encode())),
            "ram is 'big', not a size",
        ),
        (
            lambda d: (d / "reclaim/runs.csv.gz").write_bytes(gzip.compress(f"run,mode,pattern,ram,n\n{PREAD},file,seq,1G,x\n".encode())),
            "n is 'x', not a number",
        ),
    ],
)
def test_broken_recordings(copied, harm, told):
    harm(copied)
    broken = case(PREAD, copied)
    with pytest.raises(RecordingError, match=told):
        open_run(broken)
    (row,) = compare(broken)
    assert is_error(row)
    assert differs(row)


def test_another_sequence_is_refused(pread):
    with pytest.raises(RecordingError, match="fingerprint"):
        check_sequence(replace(pread.parameters, seed=1), case(PREAD).entry["seq_hash"], "x")
    with pytest.raises(RecordingError, match="5 accesses were simulated, 100000 are recorded"):
        list(compare_runs(pread, same(pread, acc=pread.acc[:5])))


def test_runs_under_the_other_lru_are_rows():
    (row,) = compare_reclaim(replace(case(PREAD), entry={"lru": "mglru"}))
    assert is_error(row)


def test_parameters_say_what_is_anonymous(pread):
    p: Parameters = pread.parameters
    assert [replace(p, mode=mode, pages=11).anon_pages for mode in ("file", "pread", "anon", "shmem", "mixed")] == [0, 0, 11, 11, 5]


def test_rows_of_a_tracer():
    rows = np.zeros(10, TRACE_DTYPE)
    kinds = ("PAGE_ADD", "ACTIVATE", "ACTIVATE", "MEMCG_BEGIN", "ISOLATE", "PAGE_DEL", "SHRINK_INACTIVE", "SHRINK_ACTIVE", "MEMCG_END")
    rows["event"] = [1, *(EVENTS[kind] for kind in kinds)]
    rows["pfn"] = [9, 100, 100, 7, 0, 31, 100, 31 | 30 << 8 | 1 << 16 | 2 << 24, 22, 53]
    rows["op"] = [9, 5, 0, 0, 0, 0, 5, 0, 0, 0]
    for i, five in ((5, (2, 31, 1, 30, 0)), (7, (3, 4, 5, 6, 7)), (8, (1, 20, 2, 0, 6))):
        for name, value in zip(("order", "mt", "fb_order", "fb_mt", "claimed"), five, strict=True):
            rows[name][i] = value
    found = evictions(rows)
    assert found.pages == (("add", 5), ("activate", 5), ("del", 5))
    assert found.batches == (
        ("memcg_reclaim_begin",),
        ("lru_isolate", "inactive_file", 31, 31, 1, 30),
        ("lru_shrink_inactive", 31, 30, 1, 2, 3, 4, 5, 6, 7),
        ("lru_shrink_active", 22, 1, 20, 2, 6),
        ("memcg_reclaim_end", 53),
    )
    fields = {name: len(batch) - 1 for name, *batch in [(b[0], *b) for b in found.batches]}
    assert fields == {name: len(columns) for name, columns in BATCHES.items()}


def test_a_machine_is_watched_by_one_tracer():
    machine, tracer = Machine("128M", thp="never"), Tracer()
    assert watched(machine.state, tracer, lambda: machine.alloc_pages(3)) > 0
    assert len(tracer.take()) > 0
    machine.alloc_pages(3)
    assert len(tracer) == 0
    with pytest.raises(RuntimeError, match="in use for another trace"):
        watched(machine.state, tracer, lambda: watched(machine.state, Tracer(), machine.alloc_pages))
    with pytest.raises(ZeroDivisionError):
        watched(machine.state, tracer, lambda: 1 // 0)
    assert watched(machine.state, tracer, lambda: 5) == 5


@pytest.mark.parametrize("name", [PREAD, FITS])
def test_the_simulator_runs_as_the_kernel_did(name):
    found = compare(case(name))
    rows = by_figure(found)
    assert rows["verdict.equal"]["ours"] is True, rows["verdict.equal"]["note"]
    assert rows["verdict.bar"]["ours"] is True
    assert [row["figure"] for row in found if differs(row) or is_error(row)] == []
    for figure in ("acc.miss", "state.resident", "resident_end", "inblock", "oublock", "mem_current_end", "swap_current_end"):
        assert rows[figure]["kernel"] == rows[figure]["ours"], figure
    assert {"chosen.k0", "chosen.fill", "chosen.fold", "chosen.period", "chosen.tried"} <= rows.keys()


def test_read_ahead_that_an_access_starts_is_told():
    from mmcore.run.access import READ_BIT, access
    from mmpy.vmflags import Fault

    machine = Machine(64 << 20, cpus=1, thp="never")
    machine.state.vm_globals["fault_around_bytes"] = 4096
    process, file = machine.spawn("reader"), machine.open("/data", 256 * 4096)
    start = process.mmap(256 * 4096, file=file) >> 12
    vpns, codes = np.arange(start, start + 256, dtype=np.uint64), np.zeros(256, np.uint8)
    before = int(machine.vmstat["pgpgin"])
    access(machine.state, process.mm, vpns, None, 0, codes, reads=True)
    assert int(machine.vmstat["pgpgin"]) - before == 256 * 4
    told = codes & READ_BIT != 0
    assert np.array_equal(np.unique(codes[~told]), [Fault.MINOR])
    # The first access has to wait; later ones meet a mark, and read what comes behind.
    assert codes[0] == Fault.MAJOR | READ_BIT
    assert np.count_nonzero(codes == Fault.MINOR | READ_BIT) >= 1
    assert np.count_nonzero(told) < 256 // 4
