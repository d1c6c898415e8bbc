"""A slow twin of mmcore.reclaim.device: requests one after the other, in plain integers."""

from dataclasses import dataclass, field


@dataclass
class Request:
    """The request that was submitted last."""

    write: bool
    start: int
    end: int | None
    pages: int
    slot: int
    failed: bool


@dataclass
class Device:
    """Slots that wait for their latency side by side, one channel behind them."""

    read_latency: int
    write_latency: int
    read_page: int
    write_page: int
    depth: int
    max_pages: int
    seeks: bool = False
    synchronous: bool = False
    fail: dict[bool, int] = field(default_factory=lambda: {False: 0, True: 0})
    slots: list[int] = field(default_factory=list)
    channel: int = 0
    last: Request | None = None
    requests: dict[bool, int] = field(default_factory=lambda: {False: 0, True: 0})
    merges: dict[bool, int] = field(default_factory=lambda: {False: 0, True: 0})
    failed: int = 0

    def __post_init__(self):
        self.slots = [0] * self.depth

    def _fails(self, write):
        if not self.fail[write]:
            return False
        self.fail[write] -= 1
        self.failed += self.fail[write] == 0
        return self.fail[write] == 0

    def piece(self, now, write, at, pages):
        last = self.last
        cost = pages * (self.write_page if write else self.read_page)
        if self.synchronous:
            self.requests[write] += 1
            return now, self._fails(write)
        if (
            last is not None
            and at is not None
            and last.end == at
            and last.write == write
            and last.start >= now
            and last.pages + pages <= self.max_pages
        ):
            last.end += pages
            last.pages += pages
            self.channel += cost
            self.slots[last.slot] = self.channel
            self.merges[write] += 1
            return self.channel, last.failed
        slot = self.slots.index(min(self.slots))
        start = max(now, self.slots[slot])
        latency = self.write_latency if write else self.read_latency
        if self.seeks and last is not None and at is not None and last.end == at:
            latency = 0
        self.channel = max(start + latency, self.channel) + cost
        self.slots[slot] = self.channel
        self.requests[write] += 1
        failed = self._fails(write)
        self.last = None if at is None else Request(write, start, at + pages, pages, slot, failed)
        return self.channel, failed

    def submit(self, now, write, at, pages):
        failed, done = False, now
        while pages:
            n = min(pages, self.max_pages)
            done, bad = self.piece(now, write, at, n)
            failed |= bad
            at = None if at is None else at + n
            pages -= n
        return done, failed
