"""Core and twin of virtual memory, call by call: results, VMAs, entries, which of them share a page, RSS, tables, counters."""

import random

import numpy as np
import pytest

from mmcore.run.access import access
from mmcore.sys import filemap, recount
from tests.model.vm_core import PAGE, CoreMachine
from tests.model.vm_dump import dump, events, sharing, twin_dump
from tests.reference.vm import TwinMachine
from tests.reference.vm import constants as c

BASE = 0x10000000
FIXED = c.MAP_PRIVATE | c.MAP_ANONYMOUS | c.MAP_FIXED
RW, RO = c.PROT_READ | c.PROT_WRITE, c.PROT_READ
OUTCOME = ("minor", "major", "hit", "segv", "segv", "sigbus", "oom")
FILE_PAGES = 300


class Pair:
    """The same machine twice."""

    def __init__(self, thp: str):
        self.core = CoreMachine(memory="1G", ram_pages=262144)
        self.core.state.globals[0]["thp_enabled"] = {"never": 0, "always": 2}[thp]
        self.twin = TwinMachine(262144, thp=thp)
        self.files = []
        for name, kind in (("f", "file"), ("r", "ram"), ("t", "shmem")):
            ours = self.core.open(name, FILE_PAGES * PAGE, kind)
            if kind != "shmem":
                for at in range(FILE_PAGES):
                    filemap.read(self.core.state, ours, at * PAGE, PAGE, 0)
                filemap.read(self.core.state, ours, 0, FILE_PAGES * PAGE, 0)
            self.files.append((ours, self.twin.open(name, FILE_PAGES * PAGE, kind=kind)))
        self.processes = [self._start()]
        self.base = events(self.core)

    def _start(self):
        pair = self.core.spawn(), self.twin.spawn()
        pair[1].mm.start_brk = pair[1].mm.brk = pair[0].brk
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


def step(rng: random.Random, pair: Pair):
    """One random call on both; what it was and both results."""
    ours, theirs = both = rng.choice(pair.processes)
    address = BASE + rng.choice((0, 0, 512, rng.randrange(1100))) * PAGE
    length = rng.choice((1, 2, 5, 17, 100, 512, 512, 1024)) * PAGE
    call = rng.randrange(13)
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
                             c.MADV_POPULATE_READ, c.MADV_POPULATE_WRITE))  # fmt: skip
        return ("madvise", address, length, advice), ours.madvise(address, length, advice), theirs.madvise(address, length, advice)
    if call == 7 and len(pair.processes) < 4:
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
    write = rng.random() < 0.7
    return ("touch", address, length, write), *pair.touch(both, address, length // PAGE, write)


def run(seed: int, steps: int) -> None:
    rng = random.Random(seed)
    pair = Pair(rng.choice(("always", "never")))
    done = []
    for _ in range(steps):
        what, ours, theirs = step(rng, pair)
        done.append(what)
        assert ours == theirs, (seed, len(done), what)
        pair.compare((seed, len(done), what))
    for ours, theirs in pair.processes:
        ours.exit()
        theirs.exit()
    live = pair.core.live()
    assert {name: n for name, n in live.items() if name != "files"} == dict.fromkeys(("tables", "vmas", "anon_vmas", "avcs", "mms"), 0)


@pytest.mark.parametrize("seed", range(20))
def test_random_calls_agree(seed):
    run(seed, 40)
