"""A slow twin of slot allocation: swap areas, slots, CPUs' stocks, and the pages of the swap cache as far as slots see them.

Written from the specification (section 14) and mm/swapfile.c's rules as plain Python: lists for lists, one object for each slot. Pages
are only names; a page is mapped or not. Nothing here is shared with the core.
"""

from __future__ import annotations

from dataclasses import dataclass, field

CLUSTER, COLUMNS, BATCH, RATION = 512, 32, 64, 256


@dataclass
class Slot:
    taken: bool = False
    hold: bool = False  # SWAP_HAS_CACHE
    users: int = 0
    page: object = None


@dataclass
class Cluster:
    index: int
    used: int = 0
    where: list | None = None


@dataclass
class Area:
    number: int
    pages: int
    prio: int
    rotational: bool
    slots: list[Slot] = field(default_factory=list)
    inuse: int = 0
    lowest: int = 1
    highest: int = 0
    next: int = 1
    left: int = 0
    writable: bool = True
    cpu_next: dict[int, int] = field(default_factory=dict)
    work: bool = False

    def __post_init__(self) -> None:
        self.size = self.pages
        self.pages -= 1
        self.highest = self.pages
        self.slots = [Slot() for _ in range(self.size)]
        self.free: list[Cluster] = []
        self.nonfull: list[Cluster] = []
        self.frag: list[Cluster] = []
        self.full: list[Cluster] = []
        self.clusters = [Cluster(i) for i in range(-(-self.size // CLUSTER))]
        if self.rotational:
            return
        self.clusters[0].used += 1
        self.clusters[-1].used += len(self.clusters) * CLUSTER - self.size
        for column in range(COLUMNS):
            for c in self.clusters[column::COLUMNS]:
                self.move(c, self.nonfull if c.used else self.free)

    def move(self, c: Cluster, to: list[Cluster]) -> None:
        if c.where is not None:
            c.where.remove(c)
        to.append(c)
        c.where = to

    def busy(self, offset: int) -> bool:
        return offset == 0 or self.slots[offset].taken


class Swap:
    """All areas of a machine with `cpus` CPUs."""

    def __init__(self, cpus: int) -> None:
        self.cpus = cpus
        self.areas: dict[int, Area] = {}
        self.avail: list[Area] = []  # in the order of requests among equals
        self.free = self.total = 0
        self.active = False
        self.give: list[list[tuple[Area, int]]] = [[] for _ in range(cpus)]
        self.back: list[list[tuple[Area, int]]] = [[] for _ in range(cpus)]

    # -------------------------------------------------------- areas

    def swapon(self, pages: int, prio: int | None, rotational: bool) -> int:
        number = next(n for n in range(1, 100) if n not in self.areas)
        if prio is None:
            prio = min([-1, *(a.prio for a in self.areas.values())]) - 1
        area = Area(number, pages, prio, rotational)
        self.areas[number] = area
        self.free += area.pages
        self.total += area.pages
        self.avail.append(area)
        return number

    def swapoff(self, number: int) -> bool:
        """Only an area without users can go here."""
        area = self.areas[number]
        if any(s.users for s in area.slots):
            return False
        area.writable = False
        if area in self.avail:
            self.avail.remove(area)
        self.free -= area.pages
        self.total -= area.pages
        self.drain()
        for offset, slot in enumerate(area.slots):
            if slot.page is not None:
                slot.page = None
                self.put(number, offset, 0)
        assert area.inuse == 0
        del self.areas[number]
        for other in self.areas.values():
            if area.prio < 0 and other.prio < area.prio:
                other.prio += 1
        return True

    # -------------------------------------------------------- state

    def full(self) -> bool:
        return self.free * 2 < self.total

    def only_cache(self, slot: Slot) -> bool:
        return slot.hold and slot.users == 0

    def take(self, area: Area, offset: int) -> None:
        slot = area.slots[offset]
        assert not slot.taken
        assert offset
        slot.taken = slot.hold = True
        area.lowest += offset == area.lowest
        area.highest -= offset == area.highest
        area.inuse += 1
        if area.inuse == area.pages:
            area.lowest, area.highest = area.size, 0
            self.avail.remove(area)
            area.work = not area.rotational and self.full()

    def release(self, area: Area, offset: int) -> None:
        slot = area.slots[offset]
        assert slot.taken
        assert slot.users == 0
        area.slots[offset] = Slot()
        if not area.rotational:
            c = area.clusters[offset // CLUSTER]
            c.used -= 1
            if c.used == 0:
                area.move(c, area.free)
            elif c.where is not area.nonfull:
                area.move(c, area.nonfull)
        area.lowest = min(area.lowest, offset)
        if offset > area.highest:
            if area.highest == 0 and area.writable:
                self.avail.append(area)
            area.highest = offset
        area.inuse -= 1
        self.free += 1

    def reclaim(self, area: Area, offset: int) -> bool:
        slot = area.slots[offset]
        if slot.page is None or slot.users:
            return False
        slot.page = None
        self.release(area, offset)
        return True

    # -------------------------------------------------------- stocks

    def stocked(self) -> bool:
        return self.active and any(a.writable for a in self.areas.values())

    def drain(self) -> None:
        for cpu in range(self.cpus):
            self.release_all(self.give[cpu])
        for cpu in range(self.cpus):
            self.release_all(self.back[cpu])

    def release_all(self, which: list[tuple[Area, int]]) -> None:
        for number in sorted(self.areas):
            for area, offset in which:
                if area.number == number:
                    self.release(area, offset)
        which.clear()

    def free_slot(self, area: Area, offset: int, cpu: int) -> None:
        area.slots[offset].hold = True
        if not self.stocked():
            self.release(area, offset)
            return
        if len(self.back[cpu]) == BATCH:
            self.release_all(self.back[cpu])
        self.back[cpu].append((area, offset))

    def alloc(self, cpu: int) -> tuple[int, int] | None:
        if not self.active:
            self.active = self.free > self.cpus * 320
        elif self.free < self.cpus * 128:
            self.active = False
            self.drain()
        got = None
        if self.stocked():
            if not self.give[cpu]:
                self.give[cpu] = self.get(BATCH, cpu)
            if self.give[cpu]:
                got = self.give[cpu].pop(0)
        if got is None:
            got = next(iter(self.get(1, cpu)), None)
        return got and (got[0].number, got[1])

    def get(self, n: int, cpu: int) -> list[tuple[Area, int]]:
        if self.free <= 0:
            return []
        n = min(n, BATCH, self.free)
        self.free -= n
        got: list[int] = []
        area = None
        for area in sorted(self.avail, key=lambda a: -a.prio):  # stable
            self.avail.remove(area)
            self.avail.append(area)
            got = self.scan(area, n) if area.rotational else self.from_clusters(area, n, cpu)
            if got:
                break
        self.free += n - len(got)
        for other in self.areas.values():
            if other.work:
                other.work = False
                self.reclaim_full(other, other.inuse // CLUSTER)
        return [(area, offset) for offset in got] if area else []

    # -------------------------------------------------------- clusters

    def from_clusters(self, area: Area, n: int, cpu: int) -> list[int]:
        got: list[int] = []
        while len(got) < n:
            offset = self.one(area, cpu)
            if not offset:
                break
            got.append(offset)
        return got

    def one(self, area: Area, cpu: int) -> int:
        found = 0
        if area.cpu_next.get(cpu):
            found = self.in_cluster(area, area.cpu_next[cpu], cpu)
        if found:
            return found
        if area.free:
            return self.in_cluster(area, area.free[0].index * CLUSTER, cpu)
        if self.full():
            self.reclaim_full(area, 1)
        tried = 0
        while area.nonfull and not found:
            c = area.nonfull[0]
            area.move(c, area.frag)
            found = self.in_cluster(area, c.index * CLUSTER, cpu)
            tried += 1
        while tried < len(area.frag) and not found:
            c = area.frag[0]
            area.move(c, area.frag)
            found = self.in_cluster(area, c.index * CLUSTER, cpu)
            tried += 1
        return found

    def in_cluster(self, area: Area, offset: int, cpu: int) -> int:
        c = area.clusters[offset // CLUSTER]
        area.cpu_next[cpu] = 0
        if c.used >= CLUSTER:
            return 0
        end = min((c.index + 1) * CLUSTER, area.size)
        for at in range(offset, end):
            if area.busy(at):
                usable = at and self.full() and self.only_cache(area.slots[at])
                if not (usable and self.reclaim(area, at)):
                    continue
            if c.where is area.free:
                area.move(c, area.nonfull)
            self.take(area, at)
            c.used += 1
            if c.used == CLUSTER:
                area.move(c, area.full)
            elif at + 1 < end:
                area.cpu_next[cpu] = at + 1
            return at
        return 0

    def reclaim_full(self, area: Area, scan: int) -> None:
        while area.full:
            c = area.full[0]
            area.move(c, area.full)
            for offset in range(c.index * CLUSTER, min((c.index + 1) * CLUSTER, area.size)):
                if offset and self.only_cache(area.slots[offset]):
                    self.reclaim(area, offset)
            scan -= 1
            if scan <= 0:
                break

    # -------------------------------------------------------- a disk

    def scan(self, area: Area, n: int) -> list[int]:
        ration, many, got = RATION, False, []
        base = offset = area.next
        if area.left:
            area.left -= 1
        else:
            if area.pages - area.inuse >= CLUSTER:
                base = offset = area.lowest
                at, run = base, 0
                # a row is looked for as long as it could still end at or below the highest free slot
                while at - run + CLUSTER - 1 <= area.highest:
                    run = 0 if area.busy(at) else run + 1
                    if run == CLUSTER:
                        offset = area.next = at - CLUSTER + 1
                        break
                    ration -= 1
                    if ration < 0:
                        ration = RATION
                    at += 1
            area.left = CLUSTER - 1

        def onwards() -> int | None:
            nonlocal ration, many
            for way in (range(offset + 1, area.highest + 1), range(area.lowest, base)):
                for at in way:
                    ration -= 1
                    if ration < 0:
                        ration, many = RATION, True
                    if not area.busy(at) or (self.full() and self.only_cache(area.slots[at])):
                        return at
            return None

        while True:
            if area.highest == 0:
                return got
            if offset > area.highest:
                base = offset = area.lowest
            slot = area.slots[offset]
            if self.full() and self.only_cache(slot):
                if self.reclaim(area, offset):
                    continue
                found = onwards()
                if found is None:
                    return got
                offset = found
                continue
            if area.busy(offset):
                if got:
                    break
                found = onwards()
                if found is None:
                    return got
                offset = found
                continue
            self.take(area, offset)
            got.append(offset)
            if len(got) == n or offset >= area.highest:
                break
            ration -= 1
            if ration < 0:
                break
            if area.left:
                offset += 1
                if not area.busy(offset):
                    area.left -= 1
                    continue
            if many:
                break
            limit = base if offset < base else area.highest
            near = None
            while offset <= limit:
                ration -= 1
                if ration <= 0:
                    break
                if not area.busy(offset):
                    near = offset
                    break
                offset += 1
            if near is None:
                break
        area.next = offset + 1
        return got

    # -------------------------------------------------------- what users do

    def dup(self, number: int, offset: int) -> None:
        self.areas[number].slots[offset].users += 1

    def put(self, number: int, offset: int, cpu: int) -> None:
        area = self.areas[number]
        area.slots[offset].hold = False
        if area.slots[offset].users == 0:
            self.free_slot(area, offset, cpu)

    def unuse(self, number: int, offset: int, cpu: int) -> None:
        area = self.areas[number]
        slot = area.slots[offset]
        slot.users -= 1
        if slot.users == 0 and not slot.hold:
            self.free_slot(area, offset, cpu)

    def zap(self, number: int, offset: int, n: int, cpu: int) -> None:
        """Entries that name n neighbouring slots go; a page that only the swap cache has goes with its slot."""
        area = self.areas[number]
        slots = area.slots[offset : offset + n]
        alike = all(s.users == 1 and s.hold == slots[0].hold for s in slots)
        if n > 1 and offset % CLUSTER + n <= CLUSTER and alike:
            for s in slots:
                s.users = 0
            if not slots[0].hold:
                for k in range(n):
                    self.release(area, offset + k)
        else:
            for k in range(n):
                self.unuse(number, offset + k, cpu)
        for k in range(n):
            slot = area.slots[offset + k]
            if slot.page is not None and slot.users == 0:
                slot.page = None
                self.put(number, offset + k, cpu)
