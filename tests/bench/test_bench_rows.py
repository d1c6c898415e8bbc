"""The benchmarks run and report in the agreed form. Nothing here looks at a time: figures of so small runs mean nothing."""

import json
import math

import pytest

from bench import harness, run

KEYS = {"name", "ours", "yardstick", "yardstick_value", "ratio", "bar", "direction", "holds", "unit", "machine"}
TINY = harness.Settings(repeat=2, tiny=True)

harness.load_all()
NAMES = [name for names, _ in harness.MEASUREMENTS for name in names]


@pytest.fixture(scope="module")
def client():
    pytest.importorskip("Cython")
    from bench.build import client

    try:
        return client()
    except RuntimeError as error:
        if "no C compiler" in harness.machine_text():
            pytest.skip(str(error))
        raise


def test_row_names_are_unique():
    assert len(NAMES) == len(set(NAMES))


@pytest.mark.usefixtures("client")
@pytest.mark.parametrize("names", [names for names, _ in harness.MEASUREMENTS], ids=lambda names: names[0])
def test_rows_have_the_agreed_form(names):
    function = next(function for found, function in harness.MEASUREMENTS if found == names)
    done = [row.as_dict() for row in function(TINY)]
    assert done
    assert {row["name"] for row in done} <= set(names)
    for row in done:
        assert row.keys() >= KEYS
        assert row["direction"] in ("max", "min")
        assert math.isclose(row["ratio"], row["ours"] / row["yardstick_value"])
        assert row["holds"] is None if row["bar"] is None else isinstance(row["holds"], bool)
        assert row["yardstick"]
        assert row["machine"]
    json.dumps(done)


def test_bars_are_those_that_were_promised():
    promised = {"memory.bytes_per_page": 32, "memory.hot_record": 16}
    done = {row.name: row.as_dict() for row in harness.run(TINY, "memory.*")}
    assert {name: row["bar"] for name, row in done.items()} == promised
    assert all(row["holds"] for row in done.values())


@pytest.mark.parametrize(
    ("direction", "ours", "holds"), [("max", 3.0, True), ("max", 3.1, False), ("min", 3.0, True), ("min", 2.9, False)]
)
def test_a_bar_is_met_from_its_side(direction, ours, holds):
    row = harness.fixed("x", "s", ours, "one", bar=3, direction=direction)
    assert row.as_dict()["holds"] is holds


def test_a_row_that_fails_is_reported(monkeypatch, capsys):
    def breaks(settings):
        raise ValueError("no such luck")

    monkeypatch.setattr(harness, "MEASUREMENTS", [(("broken.row",), breaks)])
    assert run.main(["--json", "-q"]) == 1
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["name"], row["ours"], row["holds"]) == ("broken.row", None, False)
    assert "no such luck" in row["error"]
    assert run.main(["-q"]) == 1
    assert "no such luck" in capsys.readouterr().out


@pytest.mark.parametrize(("args", "word"), [(["--repeat", "3"], "--repeat"), (["--only", "nothing.*"], "nothing.*")])
def test_bad_arguments(args, word, capsys):
    with pytest.raises(SystemExit) as stop:
        run.main(args)
    assert stop.value.code == 2
    assert word in capsys.readouterr().err


def test_list_and_table(capsys):
    assert run.main(["--list"]) == 0
    assert capsys.readouterr().out.split() == NAMES
    assert run.main(["--only", "memory.hot_record", "-q"]) == 0
    assert "memory.hot_record" in capsys.readouterr().out


@pytest.mark.usefixtures("client")
def test_the_bare_probe_splits_and_merges(client):
    probe = client.BareBuddy(1 << 12)
    assert probe.free_blocks() == [0] * 10 + [4]
    probe.pairs(3)
    assert probe.free_blocks() == [0] * 10 + [4]
    with pytest.raises(ValueError, match="nr_pages is 1000"):
        client.BareBuddy(1000)
