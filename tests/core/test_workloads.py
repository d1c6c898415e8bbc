"""Access sequences: number for number those of the recorded runs, whatever the size."""

import csv
import importlib.util
import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmpy import workloads
from mmpy.workloads import Accesses, fingerprint, sequence
from mmpy.workloads.patterns import shuffled, zipf_weights
from mmpy.workloads.random import Stream, below

ROOT = Path(__file__).parents[2]
GOLDEN = json.loads((ROOT / "tests" / "golden" / "workloads" / "hashes.json").read_text())
REFERENCE = Path(os.environ.get("MMPY_REFERENCE", ROOT.parent / "shared" / "reference"))
MASK = (1 << 64) - 1


@pytest.mark.parametrize("row", GOLDEN, ids=lambda row: f"{row['pattern']}-{row['pages']}")
def test_golden_hashes(row):
    """Made with the reference's own generator, which draws one number at a time."""
    row = dict(row)
    expected = row.pop("hash")
    assert fingerprint(sequence(**row)) == expected


@pytest.mark.skipif(not (REFERENCE / "patterns.py").exists(), reason="no reference data here")
@pytest.mark.parametrize("pattern", workloads.PATTERNS)
@pytest.mark.parametrize(
    ("pages", "n", "theta", "hot", "write"),
    [(1, 10, 990, None, 0), (2, 7, 500, None, 100), (1000, 5000, 1200, 17, 13), (70001, 20003, 800, 500, 255), (131073, 3, 2000, 1, 1)],
)
def test_same_numbers_as_the_reference(pattern, pages, n, theta, hot, write):
    spec = importlib.util.spec_from_file_location("patterns", REFERENCE / "patterns.py")
    reference = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reference)
    for seed in (0, 12345, MASK):
        ours = sequence(pattern, pages, n, seed=seed, theta=theta / 1000, hot=hot, write=write)
        expected = list(reference.sequence(pattern, seed, pages, n, theta, hot, write))
        assert list(zip(ours.pages.tolist(), ours.writes.tolist(), strict=True)) == [(page, bool(w)) for page, w in expected]


@pytest.mark.skipif(not (REFERENCE / "reclaim" / "runs.csv").exists(), reason="no reference data here")
def test_recorded_runs():
    with (REFERENCE / "reclaim" / "runs.csv").open() as f:
        rows = list({row["seq_hash"]: row for row in csv.DictReader(f)}.values())
    assert rows
    for row in rows[::7]:
        work = sequence(
            row["pattern"], int(row["pages"]), int(row["n"]), seed=int(row["seed"]), theta=int(row["theta_milli"]) / 1000,
            hot=int(row["hot"]), write=int(row["wfrac"]),
        )  # fmt: skip
        assert fingerprint(work) == row["seq_hash"], row["run"]


@given(st.integers(0, MASK), st.lists(st.integers(1, 40), max_size=5))
def test_stream_is_splitmix64(seed, counts):
    stream, state = Stream(seed), seed
    for count in counts:
        for number in stream.take(count).tolist():
            state = (state + 0x9E3779B97F4A7C15) & MASK
            z = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & MASK
            z = (z ^ z >> 27) * 0x94D049BB133111EB & MASK
            assert number == z ^ z >> 31


@given(st.lists(st.integers(0, MASK), min_size=1), st.one_of(st.integers(0, 1 << 33), st.integers(0, MASK)))
def test_below(numbers, limit):
    r = np.array(numbers, np.uint64)
    expected = [x * limit >> 64 for x in numbers]
    assert below(r, limit).tolist() == expected
    assert below(r, np.full(len(r), limit, np.uint64)).tolist() == expected
    if limit < 1 << 32:
        assert below(r, np.full(len(r), limit, np.uint32)).tolist() == expected


@pytest.mark.parametrize("theta", [0.0, 0.5, 0.8, 0.99, 1.0, 1.2, 2.0, 16.0])
def test_zipf_weights_are_those_of_the_c_library(theta):
    assert zipf_weights(70000, theta).tolist() == [int(4294967296.0 * float(k) ** -theta) for k in range(1, 70001)]


@given(st.integers(1, 300), st.integers(0, MASK))
def test_shuffle_is_a_permutation(pages, seed):
    assert sorted(shuffled(pages, seed).tolist()) == list(range(pages))


def test_named_patterns():
    for name in workloads.PATTERNS:
        one = getattr(workloads, name)(100, 500, seed=3)
        other = sequence(name, 100, 500, seed=3)
        assert one.pages.tolist() == other.pages.tolist()
        assert one.pages.dtype == np.uint64
        assert one.writes.dtype == np.bool_
        assert not one.writes.any()
    assert workloads.uniform(10, 20, write=True).writes.all()
    assert 0 < workloads.uniform(10, 1000, write=64).writes.sum() < 500


def test_longer_sequences_begin_alike():
    """Longer than the pieces that the numbers are made in."""
    for name in ("uniform", "zipf", "hotcold", "seq"):
        long, short = sequence(name, 1000, 200_000, write=20), sequence(name, 1000, 70_000, write=20)
        assert np.array_equal(long.pages[:70_000], short.pages)
        assert np.array_equal(long.writes[:70_000], short.writes)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"pattern": "lru"}, "'lru' is no pattern"),
        ({"pages": 0}, "pages is 0; it must be in 1..2147483648"),
        ({"pages": (1 << 31) + 1}, "pages is 2147483649"),
        ({"n": -1}, "n is -1"),
        ({"seed": -1}, "seed is -1"),
        ({"pattern": "zipf", "theta": -0.1}, "theta is -0.1"),
        ({"pattern": "zipf", "theta": float("nan")}, "theta is nan"),
        ({"hot": 100, "pattern": "hotcold"}, "hot is 100; it must be less than the number of pages, 100"),
        ({"write": 257}, "write is 257"),
    ],
)
def test_what_is_refused(arguments, told):
    with pytest.raises(ValueError, match=told):
        sequence(**{"pattern": "uniform", "pages": 100, "n": 10, **arguments})


def test_wrong_types():
    with pytest.raises(TypeError):
        sequence("uniform", "many", 10)
    with pytest.raises(TypeError):
        sequence("zipf", 10, 10, theta="0.99")
    with pytest.raises(ValueError, match="3 pages and 2 writes"):
        fingerprint(Accesses(np.zeros(3, np.uint64), np.zeros(2, bool)))
