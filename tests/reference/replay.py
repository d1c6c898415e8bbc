"""Replay of a recorded allocator trace on a machine, held against the recording event by event.

Models: the order of events in reference/traces. Simplifies: reclaim, compaction and kswapd are inputs (their
frees, wake and sleep rows). Omits: nothing.

Taken from the recording: snapshot 0; requests in their order (order, mask; of a bulk what it got); the ticks
that drained something, and the pattern of the silent ones between; kswapd's wake and sleep rows; the OOM
victim and the time of its kill.
"""

import csv
import io
import re
from collections import Counter, defaultdict
from pathlib import Path

from .alloc_state import differences
from .constants import MOVABLE, TASK_OOM_VICTIM
from .state_text import parse_state

TIME, PID, CONTEXT, EVENT, PFN, ORDER, TYPE, GFP, EXTRA = range(9)
JIFFY_US = 4000
KSWAPD_NAP_US = 25 * JIFFY_US


class Trace:
    """A recorded trace, read from its directory."""

    def __init__(self, directory: Path):
        import zstandard

        packed = (directory / "events.csv.zst").read_bytes()
        text = zstandard.ZstdDecompressor().stream_reader(packed).read().decode()
        self.events = list(csv.reader(io.StringIO(text)))[1:]
        self.states = {}
        for path in directory.glob("state*.txt"):
            self.states[int(re.match(r"state(\d+)\.", path.name)[1])] = parse_state(path.read_text())
        with (directory / "gfp.csv").open() as file:
            self.masks = {row["gfp_id"]: int(row["bits"], 16) for row in csv.DictReader(file)}
        log = (directory / "dmesg.txt").read_text(errors="replace")
        kills = re.findall(r"\[ *([\d.]+)\] Out of memory: Killed process (\d+)", log)
        self.victims = {pid: float(seconds) * 1e6 for seconds, pid in kills}
        # kswapd naps for 25 jiffies after its run before it says that it sleeps
        slept = [int(row[TIME]) for row in self.events if row[EVENT] == "mm_vmscan_kswapd_sleep"]
        self.kswapd_ends = [t - KSWAPD_NAP_US for t in slept]
        self.silent_ticks = silent_ticks(self.events)
        self.batched = batched_frees(self.events)


def in_tick(row) -> bool:
    """Whether a drain row is the vmstat worker's: it holds one lock less than a free does."""
    return row[CONTEXT][3] == "2"


def batched_frees(events) -> set[int]:
    """Indices of `free` rows whose page enters its list at a later `free_batched` row."""
    batched, last = set(), {}
    for i, row in enumerate(events):
        if row[EVENT] == "free":
            last[row[PFN]] = i
        elif row[EVENT] == "free_batched":
            batched.add(last.get(row[PFN]))
    return batched


def silent_ticks(events) -> list[int]:
    """Times of the ticks that drained nothing.

    The worker arms its timer for the next whole second of jiffies, and the timer wheel lets it fire at the
    next multiple of 8 jiffies behind that: 8, 6, 4, 2 jiffies late in turn. Which of the four comes first is
    fitted to the ticks that did drain.
    """
    seen = [int(row[TIME]) for row in events if row[EVENT] == "pcp_drain" and in_tick(row)]
    seen = [t for i, t in enumerate(seen) if i == 0 or t - seen[i - 1] > 100_000]
    if not seen:
        return []

    def second(t: int) -> int:
        return round(t / 1e6)

    def expected(n: int, phase: int) -> int:
        return JIFFY_US * (n * 250 + 8 - 2 * ((n + phase) % 4))

    fits = []
    for phase in range(4):
        late = [t - expected(second(t), phase) for t in seen]
        fits.append((max(late) - min(late), phase, sum(late) // len(late)))
    _, phase, offset = min(fits)
    first = next(int(row[TIME]) for row in events if row[EXTRA] == "SNAP0 END")
    last = int(events[-1][TIME])
    known = {second(t) for t in seen}
    ticks = [expected(n, phase) + offset for n in range(second(first) - 1, second(last) + 2) if n not in known]
    return [t for t in ticks if first < t < last]


class Replay:
    """One run of a trace over a machine made by `make(state)`."""

    def __init__(self, trace: Trace, make, *, resync: bool = False):
        self.trace, self.make, self.resync = trace, make, resync
        self.machine = None
        self.total, self.equal = Counter(), Counter()
        self.complaints: list[str] = []
        self.snapshots: dict[int, list[str]] = {}
        self.recorded = defaultdict(list)  # kind -> rows not yet settled
        self.predicted = defaultdict(list)
        self.ours: dict[int, int] = {}  # the kernel's page frame -> ours
        self.bulk = None  # (mask, an alloc row came meanwhile)
        self.row = 0

    def run(self, limit: int | None = None) -> "Replay":
        """Replay the first `limit` rows or everything; returns self."""
        ticks, ends = list(self.trace.silent_ticks), list(self.trace.kswapd_ends)
        for index, row in enumerate(self.trace.events[:limit]):
            self.row = index
            if row[EVENT] == "mark":
                self.mark(row)
            elif self.machine is None or self.belongs_to_request(row):
                continue
            else:
                self.settle("pcp_drain")
                now = int(row[TIME])
                while ticks and now > ticks[0]:
                    self.machine.tick(0)
                    self.settle("pcp_drain")
                    ticks.pop(0)
                while ends and now >= ends[0]:
                    self.machine.kswapd_end(0)
                    ends.pop(0)
                handler = getattr(self, "on_" + row[EVENT], None)
                if handler is not None:
                    handler(row)
        self.settle("pcp_drain")
        return self

    def mark(self, row) -> None:
        """At a snapshot: build the machine, or compare it."""
        found = re.match(r"SNAP(\d+) BEGIN", row[EXTRA])
        if not found:
            return
        number = int(found[1])
        if self.machine is not None:
            self.settle("pcp_drain")
            ours = self.machine.allocator_state()
            unequal = differences(ours, self.trace.states[number])
            self.snapshots[number] = unequal
        if self.machine is None or self.resync:
            marks = self.machine.lru if self.machine else set()
            self.machine = self.make(self.trace.states[number])
            self.machine.lru |= marks
            self.machine.tracing = True
            self.ours = {}

    def belongs_to_request(self, row) -> bool:
        """Rows that tell what a request did are kept until the row of the request itself."""
        if row[EVENT] == "rmqueue":
            self.recorded["rmqueue"].append((int(row[PFN], 16), int(row[ORDER])))
        elif row[EVENT] == "extfrag":
            block = int(row[PFN], 16), int(row[ORDER])
            if self.recorded["rmqueue"][-1:] != [block]:
                self.recorded["rmqueue"].append(block)
            extra = dict(word.split("=") for word in row[EXTRA].split())
            names = ("fallback_order", "fallback_migratetype", "change_ownership")
            self.recorded["extfrag"].append((*block, int(row[TYPE]), *(int(extra[name]) for name in names)))
        elif row[EVENT] == "pcp_drain":
            self.take_trace()
            if in_tick(row) and len(self.recorded["pcp_drain"]) >= len(self.predicted["pcp_drain"]):
                self.settle("pcp_drain")
                self.machine.tick(0)
            self.recorded["pcp_drain"].append((int(row[PFN], 16), int(row[ORDER]), int(row[TYPE])))
        else:
            return False
        return True

    def on_mm_vmscan_kswapd_wake(self, _row) -> None:
        self.machine.kswapd_begin(0)

    def on_alloc(self, row) -> None:
        order, mask = int(row[ORDER]), self.trace.masks[row[GFP]]
        theirs = int(row[PFN] or "0", 16) or None
        victim = int(row[TIME]) > self.trace.victims.get(row[PID], float("inf"))
        pfn = self.machine.alloc_pages(mask, order, task=TASK_OOM_VICTIM if victim else 0)
        ours = pfn if pfn >= 0 else None
        self.settle("rmqueue")
        self.settle("extfrag")
        self.compare("alloc", [theirs], [ours])
        if ours is not None and theirs is not None:
            self.ours.update({theirs + k: ours + k for k in range(1 << order)})
            self.machine.mark_lru(ours, 1 << order, int(row[TYPE]) == MOVABLE)
        if self.bulk:
            self.bulk = self.bulk[0], True

    def on_free(self, row) -> None:
        if self.row not in self.trace.batched:
            self.on_free_batched(row)

    def on_free_batched(self, row) -> None:
        pfn, order = int(row[PFN], 16), int(row[ORDER] or 0)
        pfn = self.ours.get(pfn, pfn)
        self.machine.mark_lru(pfn, 1 << order, False)
        code = self.machine.free_pages(pfn, order)
        if code:
            self.complaints.append(f"row {self.row + 2}: free of {pfn:#x} order {order} refused with {code}")

    def on_bulk(self, row) -> None:
        self.bulk = int(re.search(r"gfp=(\w+)", row[EXTRA])[1], 16), False

    def on_bulkret(self, row) -> None:
        if self.bulk and not self.bulk[1]:
            got = int(re.search(r"ret=(\d+)", row[EXTRA])[1])
            theirs = [int(x, 16) for x in row[EXTRA].partition("pages=")[2].split("+") if x]
            ours = self.machine.alloc_pages_bulk(got, self.bulk[0])
            self.settle("rmqueue")
            self.settle("extfrag")
            self.compare("bulk", theirs, ours[: len(theirs)])
            self.ours.update(zip(theirs, ours, strict=False))
        self.bulk = None

    def take_trace(self) -> None:
        """Sort the machine's tracepoints by kind; the type of rmqueue rows is not compared."""
        for event, *fields in self.machine.take_trace():
            self.predicted[event].append(tuple(fields[:2] if event == "rmqueue" else fields))

    def settle(self, kind: str) -> None:
        """Compare what one request did with what was recorded for it."""
        self.take_trace()
        self.compare(kind, self.recorded.pop(kind, []), self.predicted.pop(kind, []))

    def compare(self, kind: str, theirs: list, ours: list) -> None:
        """Count equal items; complain about the first unequal one."""
        length = max(len(theirs), len(ours))
        self.total[kind] += length
        equal = sum(a == b for a, b in zip(theirs, ours, strict=False))
        self.equal[kind] += equal
        if equal < length:
            at = next((i for i, (a, b) in enumerate(zip(theirs, ours, strict=False)) if a != b), None)
            at = min(len(theirs), len(ours)) if at is None else at
            event = ",".join(self.trace.events[self.row][:8])
            sides = f"kernel {theirs[at : at + 3]}, ours {ours[at : at + 3]}"
            self.complaints.append(f"row {self.row + 2} ({event}): {kind} {at} of {len(theirs)}: {sides}")
