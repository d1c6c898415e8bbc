"""TLBs, slowly: what each CPU has cached is a set of lists, and a flush takes entries out of them.

Models: two levels of sets and ways, page-walk caches, dynamic address-space ids, and the kernel's flushes and shootdowns
(arch/x86/mm/tlb.c, v6.12). Simplifies: as mmcore.vm.tlb does. Omits: the same, and any limit to an unbounded TLB.
"""

from dataclasses import dataclass, field

GLOBAL = 7
MISS, L1, L2, CLEAN = range(4)
WRITABLE, DIRTY, PIECE = 1, 2, 4
EVERYTHING = (1 << 64) - 1
PAGES = ("4K", "2M", "1G")
STATS = (
    "l1_hits", "l2_hits", "misses_4k", "misses_2m", "misses_1g", "rewalks", "walk_steps", "walk_cache_hits", "nr_tlb_local_flush_one",
    "nr_tlb_local_flush_all", "nr_tlb_remote_flush", "nr_tlb_remote_flush_received", "switches", "switch_flushes",
)  # fmt: skip


@dataclass
class Entry:
    """A translation in a TLB."""

    slot: int
    size: int  # 0, 1, 2
    page: int  # number of the page of that size
    flags: int


@dataclass
class Part:
    """One structure of one CPU: its sets are lists of entries, least recently used first."""

    level: int
    sizes: set[int]
    sets: list[list[Entry]]
    ways: int
    pieces: bool

    def find(self, slot: int, size: int, page: int) -> Entry | None:
        for entry in self.sets[page % len(self.sets)]:
            if (entry.slot, entry.size, entry.page) == (slot, size, page):
                return entry
        return None

    def touch(self, entry: Entry) -> None:
        row = self.sets[entry.page % len(self.sets)]
        row.remove(entry)
        row.append(entry)

    def insert(self, entry: Entry) -> None:
        row = self.sets[entry.page % len(self.sets)]
        if len(row) == self.ways:
            row.pop(0)
        row.append(entry)

    def drop(self, unwanted) -> bool:
        """Take out every entry for which unwanted(entry) is true; whether there was one."""
        found = False
        for row in self.sets:
            found |= any(unwanted(entry) for entry in row)
            row[:] = [entry for entry in row if not unwanted(entry)]
        return found


@dataclass
class Cpu:
    """One CPU: parts, walk caches, ids."""

    parts: list[Part]
    walks: list[list[tuple[int, int]]]  # by level - 1: (slot, index bits), least recently used first
    loaded: int = 0
    slot: int = 0
    lazy: bool = False
    next_asid: int = 0
    owner: dict[int, int] = field(default_factory=dict)  # slot -> address space
    seen: dict[int, int] = field(default_factory=dict)  # slot -> flush generation of its address space
    stats: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STATS, 0))


class TwinTlb:
    """mmcore.vm.tlb.TlbModel, of a configuration with all keys set. kind "unbounded" is one part of one endless set."""

    def __init__(self, config: dict, nr_cpus: int):
        self.config = config
        self.bits = config["pt_bits"]
        self.generation: dict[int, int] = {}
        self.cpus = [Cpu(self.make_parts(), [[] for _ in range(config["pt_levels"] - 1)]) for _ in range(nr_cpus)]

    def make_parts(self) -> list[Part]:
        if self.config["kind"] == "off":
            return []
        if self.config["kind"] == "unbounded":
            return [Part(1, {0, 1, 2}, [[]], 1 << 62, False)]
        return [
            Part(
                part["level"],
                {PAGES.index(name) for name in part["pages"]},
                [[] for _ in range(part["entries"] // part["ways"])],
                part["ways"],
                part.get("pieces", False),
            )
            for part in sorted(self.config["parts"], key=lambda part: part["level"])
        ]

    # one access

    def slot_for(self, cpu: int, mm: int) -> int:
        if mm == 0:
            return GLOBAL
        if mm != self.cpus[cpu].loaded or self.cpus[cpu].lazy:
            self.switch_mm(cpu, mm)
        return self.cpus[cpu].slot

    def lookup(self, cpu: int, mm: int, vpn: int, write: bool = False) -> int:
        c = self.cpus[cpu]
        if self.config["kind"] == "off":
            return MISS
        slot = self.slot_for(cpu, mm)
        vpn %= 1 << 45
        for part in c.parts:
            for size in sorted(part.sizes):
                entry = part.find(slot, size, vpn >> self.bits * size)
                if entry is None:
                    continue
                if write and (not entry.flags & WRITABLE or not entry.flags & DIRTY):
                    c.stats["rewalks"] += 1
                    return CLEAN
                part.touch(entry)
                if part.level == 2:
                    for upper in c.parts:
                        if upper.level == 1 and size in upper.sizes:
                            upper.insert(Entry(slot, size, entry.page, entry.flags))
                c.stats["l1_hits" if part.level == 1 else "l2_hits"] += 1
                return L1 if part.level == 1 else L2
        return MISS

    def walk(self, cpu: int, mm: int, vpn: int, page_shift: int = 12) -> int:
        if self.config["kind"] == "off":
            return 0
        c, slot, size = self.cpus[cpu], self.slot_for(cpu, mm), (page_shift - 12) // self.bits
        vpn %= 1 << 45
        start = self.config["pt_levels"]
        for level in range(size + 1, start):
            known = (slot, vpn >> self.bits * level)
            if known in c.walks[level - 1]:
                c.walks[level - 1].remove(known)
                c.walks[level - 1].append(known)
                c.stats["walk_cache_hits"] += 1
                start = level
                break
        if self.config["walk_entries"]:
            for level in range(size + 1, start):
                cache = c.walks[level - 1]
                if len(cache) == self.config["walk_entries"]:
                    cache.pop(0)
                cache.append((slot, vpn >> self.bits * level))
        c.stats["walk_steps"] += start - size
        return start - size

    def covers(self, entry: Entry, slot: int, vpn: int) -> bool:
        return entry.slot == slot and entry.page == vpn >> self.bits * entry.size

    def fill(self, cpu: int, mm: int, vpn: int, page_shift: int = 12, writable: bool = True, dirty: bool = True) -> int:
        if self.config["kind"] == "off":
            return 0
        steps = self.walk(cpu, mm, vpn, page_shift)
        c, slot, size = self.cpus[cpu], self.slot_for(cpu, mm), (page_shift - 12) // self.bits
        vpn %= 1 << 45
        known = False
        for part in c.parts:
            known |= part.drop(lambda entry: self.covers(entry, slot, vpn))
        if self.config["kind"] == "unbounded":
            writable = dirty = writable and dirty
        flags = WRITABLE * writable + DIRTY * dirty
        for part in c.parts:
            if size in part.sizes:
                part.insert(Entry(slot, size, vpn >> self.bits * size, flags))
            elif size == 2 and part.pieces:
                part.insert(Entry(slot, 1, vpn >> self.bits, flags | PIECE))
        if not known:
            c.stats["misses_" + PAGES[size].lower()] += 1
        return steps

    # flushes

    def forget(self, cpu: int, slot: int) -> None:
        """All that a CPU knows under a slot."""
        for part in self.cpus[cpu].parts:
            part.drop(lambda entry: entry.slot == slot)
        self.forget_walks(cpu, slot)

    def forget_walks(self, cpu: int, slot: int) -> None:
        for cache in self.cpus[cpu].walks:
            cache[:] = [known for known in cache if known[0] != slot]

    def forget_pages(self, cpu: int, slot: int, start: int, end: int, stride: int) -> None:
        def gone(entry: Entry) -> bool:
            if entry.slot != slot:
                return False
            size = 2 if entry.flags & PIECE else entry.size
            page = entry.page >> self.bits if entry.flags & PIECE else entry.page
            return any((address >> 12) % (1 << 45) >> self.bits * size == page for address in range(start, end, stride))

        for part in self.cpus[cpu].parts:
            part.drop(gone)
        if start < end:
            self.forget_walks(cpu, slot)

    def forget_everything(self, cpu: int) -> None:
        for slot in range(8):
            self.forget(cpu, slot)
        self.cpus[cpu].stats["nr_tlb_local_flush_all"] += 1

    def flush_here(self, cpu: int, mm: int, start: int, end: int, shift: int, new_gen: int, local: bool) -> None:
        c = self.cpus[cpu]
        if not local:
            c.stats["nr_tlb_remote_flush_received"] += 1
        if not c.loaded or (mm and mm != c.loaded):
            return
        if c.lazy:
            self.switch_mm(cpu, 0)
            return
        now = self.generation.get(c.loaded, 0)
        if c.seen[c.slot] == now:
            return
        if end != EVERYTHING and new_gen == now == c.seen[c.slot] + 1:
            self.forget_pages(cpu, c.slot, start, end, 1 << shift)
            c.stats["nr_tlb_local_flush_one"] += local * (end - start >> shift)
        else:
            self.forget(cpu, c.slot)
            c.stats["nr_tlb_local_flush_all"] += local
        c.seen[c.slot] = now

    def flush_there(self, cpu: int, cpus: list[int], mm: int, start: int, end: int, shift: int, new_gen: int, freed: bool) -> int:
        others = [other for other in cpus if other != cpu]
        asked = [other for other in others if freed or not self.cpus[other].lazy]
        for other in asked:
            self.flush_here(other, mm, start, end, shift, new_gen, False)
        self.cpus[cpu].stats["nr_tlb_remote_flush"] += bool(others)
        self.flush_here(cpu, mm, start, end, shift, new_gen, True)
        return len(asked)

    def flush_range(self, cpu, mm, start, end, stride_shift=12, freed_tables=False, cpus=None) -> int:
        if end == EVERYTHING or end - start >> stride_shift > self.config["flush_ceiling"]:
            start, end = 0, EVERYTHING
        self.batch_add(mm)
        if cpus is None:
            cpus = [i for i, c in enumerate(self.cpus) if c.loaded == mm]
        return self.flush_there(cpu, sorted(set(cpus)), mm, start, end, stride_shift, self.generation[mm], freed_tables)

    def flush_mm(self, cpu: int, mm: int) -> int:
        return self.flush_range(cpu, mm, 0, EVERYTHING, 12, True)

    def batch_add(self, mm: int) -> None:
        self.generation[mm] = self.generation.get(mm, 0) + 1

    def batch_flush(self, cpu: int, cpus=None) -> int:
        if cpus is None:
            cpus = [i for i, c in enumerate(self.cpus) if c.loaded and c.seen[c.slot] != self.generation.get(c.loaded, 0)]
        return self.flush_there(cpu, sorted(set(cpus)), 0, 0, EVERYTHING, 0, 0, False)

    def flush_all(self, cpu: int) -> None:
        self.cpus[cpu].stats["nr_tlb_remote_flush"] += 1
        for other in range(len(self.cpus)):
            self.forget_everything(other)

    def flush_kernel_range(self, cpu: int, start: int, end: int) -> None:
        for other in range(len(self.cpus)):
            if end == EVERYTHING or end - start > self.config["flush_ceiling"] * 4096:
                self.forget_everything(other)
            else:
                self.forget_pages(other, GLOBAL, start, end, 4096)
                self.cpus[other].stats["nr_tlb_local_flush_one"] += len(range(start, end, 4096))

    # address spaces

    def switch_mm(self, cpu: int, mm: int) -> bool:
        c = self.cpus[cpu]
        was_lazy, c.lazy = c.lazy, False
        if mm == 0:
            c.loaded = 0
            return False
        if mm == c.loaded:
            flush = was_lazy and c.seen[c.slot] != self.generation.get(mm, 0)
        else:
            c.loaded = mm
            c.stats["switches"] += 1
            known = [slot for slot, owner in c.owner.items() if owner == mm]
            if known:
                c.slot = known[0]
                flush = self.config["asids"] == 1 or c.seen[c.slot] != self.generation.get(mm, 0)
            else:
                c.slot = c.next_asid % self.config["asids"]
                c.next_asid = c.slot + 1
                c.owner[c.slot] = mm
                flush = True
        if flush:
            self.forget(cpu, c.slot)
            c.seen[c.slot] = self.generation.get(mm, 0)
            c.stats["switch_flushes"] += 1
        return flush

    def enter_lazy(self, cpu: int) -> None:
        self.cpus[cpu].lazy = self.cpus[cpu].loaded != 0

    def drop_mm(self, mm: int) -> None:
        for cpu, c in enumerate(self.cpus):
            if c.loaded == mm:
                c.loaded, c.lazy = 0, False
            for slot in [slot for slot, owner in c.owner.items() if owner == mm]:
                del c.owner[slot]
                self.forget(cpu, slot)
        self.batch_add(mm)

    # what it holds

    def stats(self, cpu: int | None = None) -> dict[str, int]:
        some = self.cpus if cpu is None else [self.cpus[cpu]]
        return {name: sum(c.stats[name] for c in some) for name in STATS}

    def entries(self, cpu: int) -> list[dict]:
        parts = [
            {i: [(e.slot, e.size, e.page, e.flags) for e in row] for i, row in enumerate(part.sets) if row} for part in self.cpus[cpu].parts
        ]
        return [{0: sorted(parts[0].get(0, []))}] if self.config["kind"] == "unbounded" else parts

    def walk_entries(self, cpu: int) -> list[list[tuple[int, int]]]:
        return self.cpus[cpu].walks
