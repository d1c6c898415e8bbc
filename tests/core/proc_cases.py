"""Recorded /proc texts for the tests of mmpy.proc, and an independent judge of inferred allocator states."""

import os
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

GOLDEN = Path(__file__).parents[1] / "golden" / "proc"
REFERENCE = Path(os.environ.get("MMPY_REFERENCE", Path(__file__).parents[3] / "shared" / "reference")) / "machines"
DUMPS = Path(os.environ.get("MMPY_REAL_DUMPS", Path(__file__).parents[3] / "shared" / "real_dumps"))

BLOCK = 512
SECTION = 32768
ISOLATE = 4


@dataclass(frozen=True)
class Case:
    directory: Path

    def __str__(self) -> str:
        return f"{self.directory.parent.name}/{self.directory.name}"

    def has(self, name: str) -> bool:
        return (self.directory / name).is_file()

    def text(self, name: str) -> str:
        return (self.directory / name).read_text()

    @property
    def arch(self) -> str:
        return "i386" if self.directory.parent.name.startswith("i386") else "x86_64"

    @property
    def kernel(self) -> str:
        return "6.12" if "_612_" in self.directory.parent.name else "6.1"

    @property
    def sysctl(self) -> dict[str, tuple[int, ...]]:
        """vm.* of the recording; an empty dict where none were kept."""
        name = next((name for name in ("sysctls", "sysctl_vm") if self.has(name)), None)
        out = {}
        for line in self.text(name).splitlines() if name else ():
            key, _, value = line.partition(":")
            if value and all(word.isdigit() for word in value.split()):
                out[key.rsplit("/", 1)[-1]] = tuple(int(word) for word in value.split())
        return out


def cases_below(root: Path) -> list[Case]:
    return [Case(path.parent) for path in sorted(root.glob("*/*/zoneinfo"))]


GOLDEN_CASES = cases_below(GOLDEN)
# Recordings, when they are at hand; the golden cuts always.
CASES = [*GOLDEN_CASES, *cases_below(REFERENCE)]


def dump_texts(name: str) -> dict[str, str]:
    """Texts of one machine of the real dumps by file."""
    kinds = ("zoneinfo", "buddyinfo", "pagetypeinfo")
    return {kind: (DUMPS / kind / name).read_text() for kind in kinds if (DUMPS / kind / name).is_file()}


DUMP_NAMES = sorted(path.name for path in (DUMPS / "zoneinfo").glob("*")) if DUMPS.is_dir() else []


def check_lists(found) -> None:
    """Every free block and per-CPU page of an inferred state is where one can be, by the buddy allocator's rules."""
    types = found.state["blocks"]
    memory: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for r in found.memory:
        memory.setdefault((r.node, r.zid), []).append((r.start_pfn, r.end_pfn))
    for key, zone in found.state["zones"].items():
        spans = memory.get(key, [])
        assert sum(end - start for start, end in spans) == zone["present"]
        assert all(a[1] <= b[0] for a, b in pairwise(spans))
        assert zone["nr_free"] == tuple(
            sum(len(pfns) for (o, _), pfns in zone["free"].items() if o == order) for order in range(11)
        )
        heads: dict[int, int] = {}
        taken = []
        for (order, mt), pfns in zone["free"].items():
            assert pfns
            assert pfns == sorted(set(pfns))
            for pfn in pfns:
                end = pfn + (1 << order)
                assert pfn % (1 << order) == 0
                assert any(a <= pfn and end <= b for a, b in spans)
                assert {types[block] for block in range(pfn // BLOCK, (end - 1) // BLOCK + 1)} == {mt}
                heads[pfn] = order
                taken.append((pfn, end))
        for pfn, order in heads.items():
            assert order == 10 or heads.get(pfn ^ (1 << order)) != order, "two free buddies"
        counted = sum(len(pfns) << order for (order, mt), pfns in zone["free"].items() if mt != ISOLATE)
        assert counted == zone["nr_free_pages"]
        for row in zone["pcp"].values():
            assert sum(len(pfns) for pfns in row["lists"].values()) == row["count"]
            for index, pfns in row["lists"].items():
                assert {types[pfn // BLOCK] for pfn in pfns} == {index}
                assert all(any(a <= pfn < b for a, b in spans) for pfn in pfns)
                taken += [(pfn, pfn + 1) for pfn in pfns]
        taken.sort()
        assert all(a[1] <= b[0] for a, b in pairwise(taken)), "a page on two lists"
        assert sum(end - start for start, end in taken) <= zone["managed"] <= zone["present"] <= zone["spanned"]


class StateZone:
    """A zone of an inferred state, as the writers of buddyinfo and pagetypeinfo want it."""

    def __init__(self, found, key):
        row = found.state["zones"][key]
        self.node, self.name, self.present, self.nr_free = key[0], row["name"], row["present"], row["nr_free"]
        self._found, self._key, self._row = found, key, row

    def free_counts(self, order, migratetype):
        return len(self._row["free"].get((order, migratetype), ()))

    def pageblock_counts(self):
        # In steps of 512 pages from the zone's start; sections without memory do not exist on x86-64.
        memory = [(r.start_pfn, r.end_pfn, (r.node, r.zid)) for r in self._found.memory]
        online = {pfn // SECTION for start, end, _ in memory for pfn in (*range(start, end, SECTION), end - 1)}
        counts = [0] * 5
        start = self._row["start_pfn"]
        for pfn in range(start, start + self._row["spanned"], BLOCK):
            if self._found.arch == "x86_64" and pfn // SECTION not in online:
                continue
            if all(key == self._key for a, b, key in memory if a <= pfn < b):
                counts[self._found.state["blocks"][pfn // BLOCK]] += 1
        return counts


def state_zones(found) -> list[StateZone]:
    return [StateZone(found, key) for key in sorted(found.state["zones"])]
