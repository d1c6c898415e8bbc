"""Virtual memory: sequences of random calls keep every rule of the state, and leave nothing behind."""

import random

import pytest

from tests.model.vm_backends import SYSTEMS
from tests.reference.vm import constants as c

BASE = 0x10000000
PAGE = 4096
MIB = 1 << 20
FIXED = c.MAP_PRIVATE | c.MAP_ANONYMOUS | c.MAP_FIXED
RW, RO = c.PROT_READ | c.PROT_WRITE, c.PROT_READ


@pytest.fixture(params=sorted(SYSTEMS))
def system(request):
    return SYSTEMS[request.param]


# sequences of anything


def step(rng, machine, files):
    """One random call on one random process over a small range."""
    p = rng.choice(machine.processes)
    address = BASE + rng.choice((0, 0, 512, rng.randrange(1100))) * PAGE
    length = rng.choice((1, 2, 5, 17, 100, 512, 512, 1024)) * PAGE
    call = rng.randrange(12)
    if call <= 2:
        flags = rng.choice((FIXED, FIXED, c.MAP_SHARED | c.MAP_ANONYMOUS | c.MAP_FIXED))
        p.mmap(length, addr=address, prot=rng.choice((RW, RW, RO, 0)), flags=flags | rng.choice((0, 0, c.MAP_LOCKED)))
    elif call == 3:
        p.munmap(address, length)
    elif call == 4:
        p.mprotect(address, length, rng.choice((RW, RO, 0)))
    elif call == 5:
        p.mremap(
            address,
            length,
            rng.choice((1, 30, 512)) * PAGE,
            3,
            BASE + rng.choice((1 << 20, 1 << 30)) + rng.choice((0, rng.randrange(1100))) * PAGE,
        )
    elif call == 6:
        advice = (c.MADV_DONTNEED, c.MADV_FREE, c.MADV_NOHUGEPAGE, c.MADV_HUGEPAGE, c.MADV_WIPEONFORK, c.MADV_DONTFORK)
        p.madvise(address, length, rng.choice((*advice, c.MADV_POPULATE_READ, c.MADV_POPULATE_WRITE)))
    elif call == 7:
        rng.choice((p.mlock, p.munlock))(address, length)
    elif call == 8 and len(machine.processes) < 4:
        p.fork()
    elif call == 9 and len(machine.processes) > 1:
        p.exit()
    elif call == 10:
        file = rng.choice(files)
        flags = rng.choice((c.MAP_SHARED, c.MAP_PRIVATE)) | c.MAP_FIXED
        p.mmap(length, addr=address, flags=flags, file=file, offset=rng.randrange(4) * PAGE)
    else:
        p.touch(address, length // PAGE, rng.random() < 0.7)


@pytest.mark.parametrize("seed", range(30))
def test_random_calls_keep_everything_consistent(system, seed):
    rng = random.Random(seed)
    mthp = rng.choice(({}, {64: "always", 256: "always"}))
    machine = system.machine(thp=rng.choice(("always", "never")), sysctl={"mthp": mthp})
    files = [machine.open("f", 300 * PAGE), machine.open("r", 300 * PAGE, kind="ram"), machine.open("t", 300 * PAGE, kind="shmem")]
    machine.spawn()
    for _ in range(60):
        step(rng, machine, files)
        machine.check()
    for p in list(machine.processes):
        p.exit()
        assert (p.page_table_bytes, p.map_count, p.total_vm, p.locked_vm) == (0, 0, 0, 0)
        assert not any(p.rss.values())
    # what tmpfs holds stays charged
    assert (machine.committed, machine.nr_mlock) == (machine.charged(files[2]), 0)
