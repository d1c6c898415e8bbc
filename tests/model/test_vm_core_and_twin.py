"""Core and twin of virtual memory, call by call: results, VMAs, entries, which of them share a page, RSS, tables, counters."""

import random

import numpy as np
import pytest

from mmcore.run.access import access
from mmcore.sys import recount
from tests.model.vm_core import PAGE
from tests.model.vm_dump import dump, events, mthp_events, sharing, twin_dump
from tests.model.vm_sharp import SharpMachine
from tests.reference.vm import TwinMachine
from tests.reference.vm import constants as c

BASE = 0x10000000
HUGE = 2 << 20
FIXED = c.MAP_PRIVATE | c.MAP_ANONYMOUS | c.MAP_FIXED
RW, RO = c.PROT_READ | c.PROT_WRITE, c.PROT_READ
OUTCOME = ("minor", "major", "hit", "segv", "segv", "sigbus", "oom")
FILE_PAGES = 300


class Pair:
    """The same machine twice."""

    def __init__(self, thp: str, mthp: dict[int, str] | None = None, nr_hugepages: int = 0):
        sysctl = {"mthp": mthp or {}, "nr_hugepages": nr_hugepages}
        self.core = SharpMachine(262144, thp=thp, sysctl=sysctl)
        self.twin = TwinMachine(262144, thp=thp, sysctl=sysctl)
        self.files = []
        for name, kind in (("f", "file"), ("r", "ram"), ("t", "shmem")):
            self.files.append(tuple(machine.open(name, FILE_PAGES * PAGE, kind=kind) for machine in (self.core, self.twin)))
        self.processes = [self._start()]
        self.base = events(self.core)

    def _start(self):
        pair = self.core.spawn(privileged=True), self.twin.spawn(privileged=True)
        pair[1].mm.start_brk = pair[1].mm.brk = pair[0].start_brk
        return pair

    def touch(self, pair, address: int, pages: int, write: bool):
        ours, theirs = pair
        vpns = np.arange(address // PAGE, address // PAGE + pages, dtype=np.uint64)
        codes = np.zeros(pages, np.uint8)
        access(self.core.state, ours.handle, vpns, write, 0, codes)
        found = [OUTCOME[code] for code in codes.tolist()]
        return found, [theirs.access(address // PAGE + i, write) for i in range(pages)]

    def compare(self, what) -> None:
        recount.validate(self.core.state)
        groups = sharing([p for p, _ in self.processes])
        for ours, theirs in self.processes:
            a, b = dump(ours, groups), twin_dump(theirs)
            for name in a:
                if isinstance(a[name], dict):
                    both = a[name].keys() | b[name].keys()
                    diff = {k: (a[name].get(k), b[name].get(k)) for k in both if a[name].get(k) != b[name].get(k)}
                    assert not diff, (what, name, dict(sorted(diff.items())[:4]), len(diff))
                assert a[name] == b[name], (what, name)
        now = {name: n - self.base[name] for name, n in events(self.core).items()}
        assert now == {name: self.twin.events.get(name, 0) for name in now}, what
        assert self.core.nr_mlock == self.twin.nr_mlock, what
        assert mthp_events(self.core) == {key: self.twin.mthp_events.get(key, 0) for key in mthp_events(self.core)}, what
        # the core charges no tmpfs pages (sys/filemap: omits); other shared memory is charged when it is mapped
        assert self.core.committed == self.twin.committed - self.twin.charged(self.files[2][1]), what
        for name in ("total", "free", "reserved", "surplus"):
            assert getattr(self.core.hugetlb, name) == getattr(self.twin.hugetlb, name), (what, name)


ALL = tuple(range(17))
ON_LARGE = (2, 3, 4, 5, 6, 6, 6, 6, 7, 8, 10, 10, 10, 11, 14, 14, 14, 14)  # calls that meet folios in parts, in whole, shared, locked
ON_POOL = (0, 3, 6, 13, 13, 13, 13, 13, 13, 14)


def step(rng: random.Random, pair: Pair, calls: tuple[int, ...] = ALL):
    """One random call on both; what it was and both results."""
    ours, theirs = both = rng.choice(pair.processes)
    address = BASE + rng.choice((0, 0, 512, rng.randrange(1100))) * PAGE
    length = rng.choice((1, 2, 5, 17, 100, 512, 512, 1024)) * PAGE
    call = rng.choice(calls)
    if call <= 2:
        flags = rng.choice((FIXED, FIXED, c.MAP_SHARED | c.MAP_ANONYMOUS | c.MAP_FIXED))
        kw = {"addr": address, "prot": rng.choice((RW, RW, RO, 0)), "flags": flags}
        return ("mmap", length, kw), ours.mmap(length, **kw), theirs.mmap(length, **kw)
    if call == 3:
        return ("munmap", address, length), ours.munmap(address, length), theirs.munmap(address, length)
    if call == 4:
        prot = rng.choice((RW, RO, 0))
        return ("mprotect", address, length, prot), ours.mprotect(address, length, prot), theirs.mprotect(address, length, prot)
    if call == 5:
        to = BASE + rng.choice((1 << 20, 1 << 30)) + rng.choice((0, rng.randrange(1100))) * PAGE
        args = (address, length, rng.choice((1, 30, 512)) * PAGE, 3, to)
        return ("mremap", *args), ours.mremap(*args), theirs.mremap(*args)
    if call == 6:
        advice = rng.choice((c.MADV_DONTNEED, c.MADV_NOHUGEPAGE, c.MADV_HUGEPAGE, c.MADV_WIPEONFORK, c.MADV_DONTFORK,
                             c.MADV_POPULATE_READ, c.MADV_POPULATE_WRITE, c.MADV_FREE, c.MADV_FREE, c.MADV_DONTNEED_LOCKED,
                             c.MADV_RANDOM, c.MADV_SEQUENTIAL, c.MADV_NORMAL))  # fmt: skip
        return ("madvise", address, length, advice), ours.madvise(address, length, advice), theirs.madvise(address, length, advice)
    if call == 7 and len(pair.processes) < 4 and not pair.twin.hugetlb.total:
        child = ours.fork(), theirs.fork()
        pair.processes.append(child)
        return ("fork",), 0, 0
    if call == 8 and len(pair.processes) > 1:
        pair.processes.remove(both)
        ours.exit()
        theirs.exit()
        return ("exit",), 0, 0
    if call == 9:
        file = rng.choice(pair.files)
        kw = {"addr": address, "flags": rng.choice((c.MAP_SHARED, c.MAP_PRIVATE)) | c.MAP_FIXED, "offset": rng.randrange(4) * PAGE}
        return ("mmap file", length, kw), ours.mmap(length, file=file[0], **kw), theirs.mmap(length, file=file[1], **kw)
    if call == 10:
        name = rng.choice(("mlock", "mlock", "munlock"))
        args = (address, length) + ((rng.random() < 0.3,) if name == "mlock" else ())
        return (name, *args), getattr(ours, name)(*args), getattr(theirs, name)(*args)
    if call == 11 and rng.random() < 0.3:
        flags = rng.choice((0, 1, 2, 3, 5, 6, 7))
        if flags:
            return ("mlockall", flags), ours.mlockall(flags), theirs.mlockall(flags)
        return ("munlockall",), ours.munlockall(), theirs.munlockall()
    if call == 12:
        to = theirs.mm.start_brk + rng.choice((0, 1, 17, 512, 1100, 1600)) * PAGE
        found = ours.brk(to), theirs.brk(to)
        pages = (to - theirs.mm.start_brk) // PAGE
        if pages and rng.random() < 0.7:
            found = pair.touch(both, theirs.mm.start_brk, pages, True)
        return ("brk", to), *found
    if call == 13 and pair.twin.hugetlb.total:
        # on both sides of a 2 MiB boundary: calls on parts of it are refused
        at, n = BASE + (1 << 31) + rng.randrange(4) * HUGE, rng.choice((1, 2, 3)) * HUGE
        kind = rng.randrange(4)
        if kind == 0:
            flags = FIXED | c.MAP_HUGETLB | rng.choice((0, 0, c.MAP_NORESERVE))
            ours.munmap(at, n), theirs.munmap(at, n)
            return ("hugetlb", at, n, flags), ours.mmap(n, addr=at, flags=flags), theirs.mmap(n, addr=at, flags=flags)
        if kind == 1:
            at += rng.choice((0, 0, PAGE))
            return ("munmap", at, n), ours.munmap(at, n), theirs.munmap(at, n)
        if kind == 2:
            return ("dontneed", at, n), *(p.madvise(at, n, c.MADV_DONTNEED) for p in both)
        return ("touch", at, n), *pair.touch(both, at, n // PAGE, rng.random() < 0.5)
    write = rng.random() < 0.7
    return ("touch", address, length, write), *pair.touch(both, address, length // PAGE, write)


def run(seed: int, steps: int, calls: tuple[int, ...] = ALL) -> None:
    rng = random.Random(seed)
    mthp = rng.choice(({}, {64: "always"}, {16: "always", 256: "always"}, {32: "inherit", 1024: "always"}))
    # the core's fork leaves the pool's pages to the parent, the twin's shares them: either forks or hugetlb
    pools = {ALL: (0, 0, 4), ON_LARGE: (0,), ON_POOL: (3, 4)}[calls]
    pair = Pair(rng.choice(("always", "never") if calls is ALL else ("always",)), mthp, rng.choice(pools))
    if calls is ON_LARGE:
        for machine in pair.processes[0]:
            machine.mmap(2200 * PAGE, addr=BASE, flags=FIXED)
        pair.touch(pair.processes[0], BASE, 2200, True)
    elif calls is ON_POOL:
        pair.core.hugetlb.overcommit = pair.twin.hugetlb.overcommit = rng.randrange(3)
    done = []
    for _ in range(steps):
        what, ours, theirs = step(rng, pair, calls)
        done.append(what)
        assert ours == theirs, (seed, len(done), what)
        pair.compare((seed, len(done), what))
    for ours, theirs in pair.processes:
        ours.exit()
        theirs.exit()
    live = pair.core.live()
    assert {name: n for name, n in live.items() if name != "files"} == dict.fromkeys(("tables", "vmas", "anon_vmas", "avcs", "mms"), 0)
    assert pair.core.nr_mlock == pair.twin.nr_mlock == 0


@pytest.mark.parametrize("seed", range(12))
def test_random_calls_agree(seed):
    run(seed, 40)


@pytest.mark.parametrize("seed", range(6))
def test_calls_on_large_folios_agree(seed):
    run(seed, 25, ON_LARGE)


@pytest.mark.parametrize("seed", range(5))
def test_calls_on_hugetlb_agree(seed):
    run(seed, 40, ON_POOL)
