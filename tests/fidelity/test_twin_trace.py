"""The twin replays the recorded traces, free-running from snapshot 0: page frames, blocks and lists.

Short by default; MMPY_FULL_TRACES=1 replays all three traces to their ends. MMPY_REFERENCE names the
directory of the recordings (default: ../shared/reference beside the repository); skipped without it.
"""

import os
from pathlib import Path

import pytest

from tests.reference import TwinMachine, format_state, parse_state

REFERENCE = Path(os.environ.get("MMPY_REFERENCE", Path(__file__).parents[3] / "shared" / "reference"))
TRACES = ("fork_touch_256M", "frag_256M", "boot_512M")
SHORT_EVENTS = {"frag_256M": 129_000}

pytestmark = pytest.mark.skipif(not (REFERENCE / "traces").is_dir(), reason="no recordings here (MMPY_REFERENCE)")


def replay(name: str, limit: int | None, *, resync: bool = False):
    pytest.importorskip("zstandard")
    from tests.reference.replay import Replay, Trace

    return Replay(Trace(REFERENCE / "traces" / name), TwinMachine.from_state, resync=resync).run(limit)


def assert_perfect(run) -> None:
    assert not run.complaints, "\n".join(run.complaints[:5])
    assert run.equal == run.total
    wrong = [f"snapshot {n}: {row}" for n, rows in run.snapshots.items() for row in rows]
    assert not wrong, "\n".join(wrong[:10])


def test_twin_replays_the_start_of_a_trace():
    # long enough for a snapshot, claims, steals and both zones
    run = replay("frag_256M", SHORT_EVENTS["frag_256M"])
    assert_perfect(run)
    assert run.total["alloc"] > 20_000
    assert run.total["extfrag"] >= 7
    assert len(run.snapshots) >= 1


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("MMPY_FULL_TRACES"), reason="MMPY_FULL_TRACES is not set")
@pytest.mark.parametrize("resync", [False, True], ids=["free", "resync"])
@pytest.mark.parametrize("name", TRACES)
def test_twin_replays_whole_traces(name, resync):
    run = replay(name, None, resync=resync)
    assert_perfect(run)
    assert len(run.snapshots) >= 2


@pytest.mark.parametrize("name", TRACES)
def test_state_files_survive_parsing_and_writing(name):
    for path in sorted((REFERENCE / "traces" / name).glob("state*.txt")):
        state = parse_state(path.read_text())
        assert parse_state(format_state(state)) == state
        assert TwinMachine.from_state(state).allocator_state()["blocks"] == state["blocks"]
