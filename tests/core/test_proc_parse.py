"""The parsers on text of many kernels, and on text that is none: they read it or say which line is wrong."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmpy.proc import (
    ProcFormatError,
    parse_buddyinfo,
    parse_meminfo,
    parse_pagetypeinfo,
    parse_vmstat,
    parse_zoneinfo,
)
from tests.core.proc_cases import DUMPS, GOLDEN_CASES

PARSERS = {
    "zoneinfo": parse_zoneinfo,
    "buddyinfo": parse_buddyinfo,
    "pagetypeinfo": parse_pagetypeinfo,
    "vmstat": parse_vmstat,
    "meminfo": parse_meminfo,
}

OLD_KERNEL = """\
Node 0, zone   Normal
  pages free     5410
        min      181
        low      226
        high     271
        active   367
        inactive 720
        scanned  0 (a: 0 i: 0)
        spanned  8192
        present  8190
        protection: (0, 0, 0, 0)
  pagesets
    cpu: 0 pcp: 0
              count: 2
              high:  6
              batch: 1
    cpu: 0 pcp: 1
              count: 3
              high:  2
              batch: 1
  all_unreclaimable: 0
  prev_priority:     12
  start_pfn:         196608
"""


def test_hot_and_cold_lists_of_one_cpu_are_one():
    (zone,) = parse_zoneinfo(OLD_KERNEL).zones
    assert [(p.cpu, p.count, p.high, p.batch) for p in zone.pcp] == [(0, 5, 6, 1)]
    assert (zone.managed, zone.present, zone.start_pfn) == (8190, 8190, 196608)
    assert zone.fields["inactive"] == 720
    assert zone.trailer["prev_priority"] == 12


def test_counters_may_stand_before_the_protections():
    text = OLD_KERNEL.replace("        protection", "    nr_free_pages 5410\n    nr_shmem     18\n        protection")
    (zone,) = parse_zoneinfo(text).zones
    assert zone.vm_stat == {"nr_free_pages": 5410, "nr_shmem": 18}


def test_newer_kernels_print_the_limits_of_high():
    text = OLD_KERNEL.replace("    cpu: 0 pcp: 1\n", "    cpu: 1\n").replace(
        "              high:  2\n", "              high:  2\n              high_min: 1\n              high_max: 9\n"
    )
    text = text.replace(" pcp: 0", "")
    assert [(p.high_min, p.high_max) for p in parse_zoneinfo(text).zones[0].pcp] == [(None, None), (1, 9)]


@pytest.mark.parametrize(
    "change, line, expected",
    [
        (lambda s: s[: s.index("        present")], 10, "present"),
        (lambda s: s[: s.index("        protection")], 11, "protection"),
        (lambda s: s[: s.index("  pagesets")], 12, "pagesets"),
        (lambda s: s[: s.index("    cpu: 0 pcp: 0")], 13, "cpu: N"),
        (lambda s: s[: s.index("              batch")], 16, "batch"),
        (lambda s: s[: s.index("  start_pfn")], 23, "start_pfn"),
        (lambda s: s.replace("spanned  8192", "spanned  -1"), 9, "spanned"),
        (lambda s: s.replace("min      181", "min      181\n        min      3"), 4, "min once"),
        (lambda s: s.replace("count: 3", "count: three"), 18, "count as a decimal number"),
        (lambda s: s.replace("5410", "5" * 21), 2, "decimal number"),
        (lambda s: s.replace("5410", "9" * 20), 2, "at most"),
        (lambda s: s.replace("pcp: 1", "pcp: 0"), 17, "a cpu above 0"),
        (lambda s: s + s, 24, "one zone Normal of node 0"),
        (lambda s: "", 1, "'Node N, zone NAME'"),
        (lambda s: "\n\n", 3, "'Node N, zone NAME'"),
        (lambda s: s.replace("Node 0", "Node 1024"), 1, "at most 1023"),
        (lambda s: s + "rubbish\n", 24, "'Node N, zone NAME'"),
    ],
)
def test_errors_of_zoneinfo_name_the_line_and_what_was_expected(change, line, expected):
    with pytest.raises(ProcFormatError) as caught:
        parse_zoneinfo(change(OLD_KERNEL))
    assert caught.value.line == line
    assert expected in caught.value.expected
    assert str(caught.value).startswith(f"zoneinfo: line {caught.value.line}: expected ")


@pytest.mark.parametrize(
    "parse, text, line",
    [
        (parse_buddyinfo, "Node 0, zone      DMA      1      2 \nNode 0, zone   Normal      1 \n", 2),
        (parse_buddyinfo, "Node 0, zone      DMA      1 \nNode 0, zone      DMA      1 \n", 2),
        (parse_buddyinfo, "Node 0, zone      DMA      x \n", 1),
        (parse_buddyinfo, "", 1),
        (parse_vmstat, "nr_free_pages 1\nnr_free_pages 2\n", 2),
        (parse_vmstat, "nr_free_pages\n", 1),
        (parse_vmstat, "nr_free_pages 1.5\n", 1),
        (parse_meminfo, "MemTotal:  1 kB\nMemTotal:  1 kB\n", 2),
        (parse_meminfo, "MemTotal:  1 MB\n", 1),
        (parse_pagetypeinfo, "Page block order: 9\n", 2),
        (parse_pagetypeinfo, "Page block order: nine\n", 1),
    ],
)
def test_errors_of_the_other_texts(parse, text, line):
    with pytest.raises(ProcFormatError) as caught:
        parse(text)
    assert caught.value.line == line


@pytest.mark.parametrize("drop", ["Page block", "Free pages", "type  Reclaimable", "Number of blocks", "Node 0, zone    DMA32  "])
def test_pagetypeinfo_without_a_part_is_refused(drop):
    text = GOLDEN_CASES[-1].text("pagetypeinfo")
    lines = [line for line in text.splitlines() if not line.startswith(drop) and drop not in line]
    assert len(lines) < len(text.splitlines())
    with pytest.raises(ProcFormatError):
        parse_pagetypeinfo("\n".join(lines))


@pytest.mark.parametrize("parse", PARSERS.values(), ids=PARSERS)
@pytest.mark.parametrize("value", [None, b"Node 0", 7, ["Node 0"]])
def test_only_text_is_read(parse, value):
    with pytest.raises(TypeError, match="must be a str"):
        parse(value)


@pytest.mark.parametrize("kind", PARSERS)
@pytest.mark.parametrize("case", GOLDEN_CASES, ids=str)
def test_white_space_and_blank_lines_do_not_matter(kind, case):
    if case.has(kind):
        text = case.text(kind)
        loose = "\n" + "\r\n".join(line.strip() for line in text.splitlines()) + "\n\n"
        assert PARSERS[kind](loose) == PARSERS[kind](text)


def refusal(kind, text) -> ProcFormatError | None:
    """The error that the text is refused with, None if it is read; any other exception is a failure of the test."""
    try:
        PARSERS[kind](text)
    except ProcFormatError as error:
        return error
    return None


@pytest.mark.parametrize("kind", PARSERS)
@pytest.mark.parametrize("case", GOLDEN_CASES[:1], ids=str)
def test_every_truncation_is_read_or_refused(kind, case):
    text = case.text(kind)
    errors = [refusal(kind, text[:end]) for end in range(0, len(text), 7)]
    assert all(1 <= error.line <= text.count("\n") + 2 for error in errors if error)
    assert any(errors)


def mutate(data, text):
    """Some lines or characters removed, repeated, swapped or replaced."""
    lines = text.splitlines(keepends=True)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(lines) - 1)) if lines else 0
        what = data.draw(st.sampled_from(["drop", "repeat", "swap", "cut", "char", "number"]))
        if not lines:
            break
        if what == "drop":
            del lines[at]
        elif what == "repeat":
            lines.insert(at, lines[at])
        elif what == "swap":
            other = data.draw(st.integers(0, len(lines) - 1))
            lines[at], lines[other] = lines[other], lines[at]
        elif what == "cut":
            lines[at] = lines[at][: data.draw(st.integers(0, len(lines[at])))]
        elif what == "char":
            column = data.draw(st.integers(0, max(0, len(lines[at]) - 1)))
            char = data.draw(st.characters(codec="utf-8"))
            lines[at] = lines[at][:column] + char + lines[at][column + 1 :]
        else:
            digits = data.draw(st.from_regex(r"-?[0-9]{0,25}", fullmatch=True))
            words = lines[at].split(" ")
            words[data.draw(st.integers(0, len(words) - 1))] = digits
            lines[at] = " ".join(words)
    return "".join(lines)


@pytest.mark.parametrize("kind", PARSERS)
@given(data=st.data())
def test_mutated_text_is_read_or_refused(kind, data):
    cases = [case for case in GOLDEN_CASES if case.has(kind)]
    text = mutate(data, data.draw(st.sampled_from(cases)).text(kind))
    error = refusal(kind, text)
    assert error is None or (error.file == kind and 1 <= error.line <= text.count("\n") + 2)


@pytest.mark.parametrize("kind", PARSERS)
@given(text=st.text())
def test_any_text_is_read_or_refused(kind, text):
    assert refusal(kind, text) or text.strip()


# Written so on purpose by its owners, to test their parser: rows of unequal length.
MALFORMED = {"buddyinfo/procfs-01.txt"}
REAL = sorted(path for kind in ("zoneinfo", "buddyinfo", "pagetypeinfo") for path in (DUMPS / kind).glob("*"))


@pytest.mark.skipif(not REAL, reason="no dumps here (MMPY_REAL_DUMPS)")
def test_dumps_of_real_machines():
    errors = {f"{path.parent.name}/{path.name}": refusal(path.parent.name, path.read_text()) for path in REAL}
    refused = {name: str(error) for name, error in errors.items() if error}
    assert set(refused) == MALFORMED
    assert refused["buddyinfo/procfs-01.txt"].startswith("buddyinfo: line 2: expected 12 counts")
