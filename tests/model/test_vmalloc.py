"""vmalloc: the specification's sharp cases, and the core against its twin."""

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcore.base.errors import ValidationError
from mmcore.sys import vmalloc as core
from mmcore.sys import vmalloc_check
from mmpy import Gfp, Machine
from tests.reference.vmalloc import PAGE, PMD, Vmalloc

BASE = 0xFFFFC90000000000
FACTOR = int(os.environ.get("MM_EXAMPLES", "1"))
NAMES = {number: name for name, number in core.STATES.items()}


def ranges(state):
    return [(int(r["start"]), int(r["end"]), NAMES[int(r["state"])]) for r in core.areas(state, True)]


def tables(machine):
    """Page tables of the kernel's range: pages that stay."""
    figures = core.figures(machine.state)
    found = figures["pte_tables"] + figures["pmd_tables"]
    assert int(machine.state.nodes["vm_stat"][:, 38].sum()) == found
    return found


class Pair:
    """The same calls to the core and to the twin."""

    def __init__(self, cpus=1, memory="128M", arch="x86_64", nodes=1):
        self.machine = Machine(memory, cpus=cpus, arch=arch, nodes=nodes)
        self.state = self.machine.state
        start, end = core.bounds(self.state)
        self.twin = Vmalloc(cpus, start, end, nodes, one_node=arch == "i386")
        self.live = []

    def vmalloc(self, size, cpu=0, huge=False):
        address = core.vmalloc(self.state, size, cpu=cpu, huge=huge)
        assert address == self.twin.vmalloc(size, cpu, huge and self.machine.arch == "x86_64")
        self.live.append(address)
        return address

    def vfree(self, address, cpu=0):
        assert core.vfree(self.state, address, cpu) == 0
        self.twin.vfree(address)
        self.live.remove(address)

    def check(self):
        vmalloc_check.validate(self.state)
        assert core.lazy_pages(self.state) == self.twin.lazy_pages
        assert core.figures(self.state)["purges"] == self.twin.purges
        if core.figures(self.state)["nodes"]:
            assert ranges(self.state) == self.twin.ranges()


# ---------------------------------------------------------------- section 3.2 and case 15


def test_case_15_addresses_rise_and_are_not_reused():
    pair = Pair(cpus=2)
    found = [pair.vmalloc(size) for size in (4096, 4096, 8192, 1)]
    assert found == [BASE, BASE + 0x2000, BASE + 0x4000, BASE + 0x7000]
    pair.vfree(found[0])
    assert pair.vmalloc(4096) == BASE + 0x9000
    pair.check()


@pytest.mark.parametrize(("cpus", "threshold"), [(1, 8192), (2, 16384), (3, 16384), (4, 24576), (7, 24576), (8, 32768)])
def test_purge_when_more_lazy_pages_than_allowed(cpus, threshold):
    state = Machine("64M", cpus=cpus).state
    last = 0
    for pair in range(threshold // 2 + 1):
        assert core.figures(state)["purges"] == 0
        address = core.vmalloc(state, 4096)
        assert address == BASE + pair * 0x2000
        assert core.vfree(state, address) == 0
        last = address
    assert core.figures(state)["purges"] == 1
    assert core.lazy_pages(state) == 0
    assert core.lazy_max(state) == threshold
    figures = core.figures(state)
    assert (figures["flush_start"], figures["flush_end"]) == (BASE, last + 0x2000)
    # from the highest address down
    assert [core.vmalloc(state, 4096) for _ in range(5)] == [last - i * 0x2000 for i in range(5)]
    if cpus > 1:
        # a CPU with an empty pool gets fresh space
        assert core.vmalloc(state, 4096, cpu=1) == last + 0x2000
    vmalloc_check.validate(state)


def test_a_purge_takes_a_quarter_out_of_the_pools():
    pair = Pair(cpus=2)
    for count, left in ((12, 9), (4, 3), (3, 0), (1, 0)):
        pair = Pair(cpus=2)
        for address in [pair.vmalloc(4096) for _ in range(count)]:
            pair.vfree(address)
        for force in (False, False):
            core.purge(pair.state, force)
            pair.twin.purge(force)
            pair.check()
        assert [what for *_, what in ranges(pair.state)].count("pooled") == left
    core.shrink(pair.state)
    pair.twin.shrink()
    assert ranges(pair.state) == [(BASE, pair.twin.end, "free")]


def test_a_forced_purge_merges_everything():
    pair = Pair(cpus=4)
    for i, size in enumerate([5000, 300 * 4096, 4096, 1 << 20]):
        pair.vmalloc(size, cpu=i)
    for address in list(pair.live):
        pair.vfree(address)
    core.purge(pair.state, True)
    pair.twin.purge(True)
    pair.check()
    assert len(ranges(pair.state)) == 1


def test_huge_mappings():
    """2 MiB huge: aligned, 2101248 bytes with the guard; 2097151 bytes: small pages, not aligned."""
    machine = Machine("256M")
    state = machine.state
    core.vmalloc(state, 1)
    before = core.figures(state)["nr_pages"]
    address = core.vmalloc(state, PMD, huge=True)
    area = core.find(state, address)
    assert address % PMD == 0
    assert (int(area["end"]) - address, int(area["nr_pages"]), int(area["page_order"])) == (2101248, 512, 9)
    pfns = core.pfns(state, address)
    assert pfns[0] % 512 == 0
    assert (np.diff(pfns.astype(np.int64)) == 1).all()
    small = core.vmalloc(state, PMD - 1, huge=True)
    assert small % PMD
    assert int(core.find(state, small)["page_order"]) == 0
    assert core.figures(state)["nr_pages"] == before + 1024
    # split into pages: each is freed by itself
    assert core.vfree(state, address) == 0
    assert core.vfree(state, small) == 0
    machine.validate()
    vmalloc_check.validate(state)
    assert core.figures(state)["nr_pages"] == 1
    assert core.vmalloc(state, PMD) % PMD  # not without asking for it


def test_huge_falls_back_when_there_is_no_large_block():
    machine = Machine("64M")
    state = machine.state
    held = machine.alloc_pages_many(16000)
    machine.free_pages_many(held[::2].copy())
    machine.drain_all_pages()
    failed = machine.state.globals["nr_failed"][0]
    address = core.vmalloc(state, PMD, huge=True)
    area = core.find(state, address)
    assert int(area["page_order"]) == 0
    assert machine.state.globals["nr_failed"][0] > failed
    # what the attempt took of the address space waits for a purge
    assert core.lazy_pages(state) == 513
    vmalloc_check.validate(state)
    machine.validate()


def test_the_share_of_a_node_decides():
    state = Machine("256M", nodes=2, cpus=2).state
    assert core.find(state, core.vmalloc(state, PMD, huge=True))["page_order"] == 0
    assert core.find(state, core.vmalloc(state, PMD, huge=True, node=1))["page_order"] == 9
    assert core.find(state, core.vmalloc(state, 2 * PMD, huge=True))["page_order"] == 9


def test_a_long_descriptor_array_is_an_area_of_its_own():
    pair = Pair()
    pair.vmalloc(512 * 4096)
    assert core.figures(pair.state)["kmalloc_bytes"] == 4096
    address = pair.vmalloc(513 * 4096)
    area = core.find(pair.state, address)
    assert int(area["array"]) == address + 514 * 4096
    nested = core.find(pair.state, int(area["array"]))
    assert int(nested["nr_pages"]) == 2
    assert core.vfree(pair.state, int(area["array"])) == -16
    assert core.figures(pair.state)["nr_pages"] == 512 + 513 + 2
    pair.check()
    pair.vfree(address)
    pair.check()
    assert core.figures(pair.state)["nr_pages"] == 512


# ---------------------------------------------------------------- pages


def test_pages_belong_to_vmalloc():
    machine = Machine("64M")
    state = machine.state
    address = core.vmalloc(state, 70 * 4096)
    pfns = core.pfns(state, address)
    assert len(set(pfns.tolist())) == 70
    with pytest.raises(ValueError, match="forbid"):
        machine.free_pages(int(pfns[3]))
    at = np.uint64(address) + np.arange(71, dtype=np.uint64) * np.uint64(4096)
    assert core.walk(state, at).tolist() == [*pfns.tolist(), -1]
    assert core.vfree(state, address) == 0
    assert core.walk(state, at).tolist() == [-1] * 71
    assert machine.validate()["allocated"] == tables(machine)
    with pytest.raises(ValueError, match="not allocated"):
        machine.free_pages(int(pfns[3]))


def test_bulk_requests_of_a_hundred():
    """The pages are those that bulk allocations of up to 100 pages would give."""
    first, second = Machine("64M"), Machine("64M")
    pfns = core.pfns(first.state, core.vmalloc(first.state, 250 * 4096))
    gfp = int(Gfp.KERNEL | Gfp.HIGHMEM | Gfp.NOWARN)
    expected = np.concatenate([second.alloc_pages_bulk(n, gfp) for n in (100, 100, 50)])
    assert pfns.tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("size", "huge", "pte", "pmd"), [(4096, False, 1, 1), (4 << 20, False, 3, 1), (4 << 20, True, 1, 1), (2000 << 20, True, 2, 2)]
)
def test_page_tables_of_the_range_are_made_once_and_stay(size, huge, pte, pmd):
    machine = Machine("4G")
    state = machine.state
    address = core.vmalloc(state, size, huge=huge)
    figures = core.figures(state)
    # leaves of 2 MiB need no PTE table, their descriptor array does
    assert (figures["pte_tables"], figures["pmd_tables"]) == (pte, pmd)
    assert tables(machine) == pte + pmd
    core.vfree(state, address)
    core.purge(state, True)
    assert tables(machine) == pte + pmd == machine.validate()["allocated"]
    core.vmalloc(state, size, huge=huge)
    assert tables(machine) == pte + pmd
    vmalloc_check.validate(state)


def test_no_memory_gives_everything_back():
    machine = Machine("64M")
    before = machine.validate()["free"]
    state = machine.state
    assert core.vmalloc(state, (machine.totalram_pages - 10) * 4096) == -12
    counted = machine.validate()
    assert (counted["allocated"], counted["free"] + counted["pcp"]) == (tables(machine), before - tables(machine))
    found = vmalloc_check.validate(state)
    assert (found["busy"], found["pages"]) == (0, 0)
    assert core.figures(state)["kmalloc_bytes"] == 0


def test_vmap_leaves_the_pages_to_their_owner():
    machine = Machine("64M")
    pfns = machine.alloc_pages_many(100)
    address = core.vmap(machine.state, pfns, caller="module_init")
    assert core.pfns(machine.state, address).tolist() == pfns.tolist()
    assert core.figures(machine.state)["nr_pages"] == 0
    vmalloc_check.validate(machine.state)
    assert core.vfree(machine.state, address) == 0
    machine.free_pages_many(pfns)
    assert machine.validate()["allocated"] == tables(machine)


@pytest.mark.parametrize(("size", "align"), [(1, 12), (4096, 12), (4097, 13), (1 << 20, 20), ((1 << 20) + 1, 21), (1 << 31, 30)])
def test_ioremap_alignment(size, align):
    state = Machine("64M").state
    core.vmalloc(state, 1)
    twin = Vmalloc()
    twin.vmalloc(1)
    address = core.ioremap(state, 0xFEE00000, size)
    assert address == twin.ioremap(size)
    assert address % (1 << align) == 0
    assert core.walk(state, np.array([address], np.uint64)).tolist() == [0xFEE00]
    assert core.vfree(state, address) == 0
    assert core.ioremap(state, 0xFEE00123, 16) % 4096 == 0x123
    vmalloc_check.validate(state)


def test_vrealloc():
    state = Machine("64M").state
    address = core.vrealloc(state, 0, 5000)
    assert core.vrealloc(state, address, 8192) == address
    assert core.vrealloc(state, address, 1) == address
    larger = core.vrealloc(state, address, 8193)
    assert larger == BASE + 0x3000
    assert core.find(state, address) is None
    assert core.vrealloc(state, larger, 1 << 40) == -12
    assert core.find(state, larger) is not None
    assert core.vrealloc(state, larger + 4096, 1) == -22
    assert core.vrealloc(state, larger, 0) == 0
    assert vmalloc_check.validate(state)["busy"] == 0


# ---------------------------------------------------------------- bad input


def test_bad_input_changes_nothing():
    machine = Machine("64M")
    state = machine.state
    address = core.vmalloc(state, 3 * 4096)
    before = machine.fork()
    assert core.vmalloc(state, 0) == -22
    assert core.vfree(state, address + 4096) == -22
    assert core.vfree(state, address + 1) == -22
    assert core.vfree(state, address + 3 * 4096) == -22  # the guard page
    assert core.vfree(state, address - 4096) == -2
    assert core.vfree(state, 4096) == -2
    assert core.vfree(state, 0) == 0
    for gfp in (Gfp.ATOMIC, Gfp.NOWAIT, Gfp.KERNEL | Gfp.NORETRY, Gfp.KERNEL | Gfp.RETRY_MAYFAIL, Gfp.KERNEL | Gfp.COMP):
        assert core.vmalloc(state, 4096, int(gfp)) == -1006
    for size in (-1, 1 << 63, 1 << 70):
        with pytest.raises(ValueError, match="size is"):
            core.vmalloc(state, size)
    for kind in (1.5, "4K", None, True):
        with pytest.raises(TypeError):
            core.vmalloc(state, kind)
        with pytest.raises(TypeError):
            core.vfree(state, kind)
    with pytest.raises(ValueError, match="cpu is 1"):
        core.vmalloc(state, 1, cpu=1)
    with pytest.raises(ValueError, match="node is 7"):
        core.vmalloc(state, 1, node=7)
    with pytest.raises(TypeError, match="caller"):
        core.vmalloc(state, 1, caller=5)
    with pytest.raises(ValueError, match="address is"):
        core.vfree(state, 1 << 64)
    with pytest.raises(ValueError, match="page frame 1"):
        core.vmap(state, np.array([1, 1 << 30], np.uint32))
    with pytest.raises(ValueError, match="at least one"):
        core.vmap(state, np.array([], np.uint32))
    with pytest.raises(TypeError):
        core.vmap(state, [1, 2])
    assert machine == before
    assert core.vmalloc(state, (machine.totalram_pages + 1) * 4096) == -12
    assert core.vfree(state, address) == 0
    assert core.vfree(state, address) == -2
    vmalloc_check.validate(state)


def test_calls_before_any_area():
    state = Machine("64M").state
    assert core.vfree(state, BASE) == -2
    assert core.walk(state, np.array([BASE], np.uint64)).tolist() == [-1]
    assert core.find(state, BASE) is None
    assert len(core.areas(state)) == 0
    core.purge(state)
    core.shrink(state)
    assert vmalloc_check.validate(state)["busy"] == 0
    with pytest.raises(ValueError, match="no area starts"):
        core.pfns(state, BASE)


def test_address_space_runs_out_on_i386():
    pair = Pair(cpus=2, memory="1G", arch="i386")
    size = 50 << 20
    assert core.ioremap(pair.state, 0, size) == pair.twin.ioremap(size, limit=21)
    first = core.ioremap(pair.state, 0, size)
    assert first == pair.twin.ioremap(size, limit=21)
    assert core.ioremap(pair.state, 0, size) == -12
    assert pair.twin.ioremap(size, limit=21) == 0
    assert core.vfree(pair.state, first) == 0
    pair.twin.vfree(first)
    # the forced purge makes the range usable at once
    assert core.ioremap(pair.state, 0, size) == pair.twin.ioremap(size, limit=21) == first
    pair.check()


# ---------------------------------------------------------------- the judge

DAMAGE = {
    "end": lambda s: s.get("vm_areas")["end"].__setitem__(1, int(s.get("vm_areas")["end"][1]) + 4096),
    "tree": lambda s: s.get("vm_areas")["left"].__setitem__(0, 1),
    "far link": lambda s: s.vm_globals["vmalloc"][0].__setitem__(4, 1 << 30),
    "pages": lambda s: s.vm_globals["vmalloc"][0].__setitem__(7, 1),
    "lazy": lambda s: s.vm_globals["vmalloc"][0].__setitem__(6, 1),
    "owner": lambda s: s.pages["private_"].__setitem__(int(core.pfns(s, BASE)[0]), 0),
    "slot": lambda s: s.get("vm_pages")["slots"].__setitem__((0, 0), 0),
    "double": lambda s: s.get("vm_pages")["slots"].__setitem__((0, 0), s.get("vm_pages")["slots"][0, 1]),
    "range": lambda s: s.vm_globals["vmalloc"][0].__setitem__(1, 4096),
    "pool": lambda s: s.get("vmap_nodes")["len"].__setitem__((0, 1), 9),
    "state": lambda s: s.get("vm_areas")["state"].__setitem__(1, 0),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_found(damage):
    state = Machine("64M", cpus=2).state
    for size in (3 * 4096, 4096, 8192, 4096, 5 * 4096):
        core.vmalloc(state, size)
    for address in (BASE + 0x4000, BASE + 0x9000):
        assert core.vfree(state, address) == 0
    core.purge(state)
    vmalloc_check.validate(state)
    DAMAGE[damage](state)
    with pytest.raises(ValidationError, match="vmalloc"):
        vmalloc_check.validate(state)


# ---------------------------------------------------------------- core and twin

SIZES = st.one_of(
    st.integers(1, 3 * PAGE),
    st.sampled_from([PAGE, 2 * PAGE, 4 * PAGE, 255 * PAGE, 256 * PAGE, 512 * PAGE, 513 * PAGE, PMD, PMD - 1, PMD + 1, 3 * PMD]),
    st.integers(1, 600 * PAGE),
)
OPS = st.lists(
    st.one_of(
        st.tuples(st.just("vmalloc"), SIZES, st.integers(0, 3), st.booleans()),
        st.tuples(st.just("many"), st.sampled_from([1, 5000, 3 * PAGE]), st.integers(0, 3), st.integers(1, 30)),
        st.tuples(st.just("vfree"), st.integers(0, 1 << 16), st.integers(0, 3)),
        st.tuples(st.just("free_many"), st.integers(0, 1 << 16), st.integers(1, 40)),
        st.tuples(st.just("ioremap"), st.integers(1, 1 << 23), st.integers(0, 3)),
        st.tuples(st.just("purge"), st.booleans()),
        st.tuples(st.just("shrink")),
    ),
    max_size=40,
)


def run(pair, ops):
    cpus = pair.machine.nr_cpus
    pair.vmalloc(1)
    limit = 21 if pair.machine.arch == "i386" else 30
    for name, *args in ops:
        room = pair.machine.totalram_pages // 2 > core.figures(pair.state)["nr_pages"]
        if name == "vmalloc" and room:
            pair.vmalloc(args[0], args[1] % cpus, args[2])
        elif name == "many" and room:
            for _ in range(args[2]):
                pair.vmalloc(args[0], args[1] % cpus)
        elif name == "vfree" and pair.live:
            pair.vfree(pair.live[args[0] % len(pair.live)], args[1] % cpus)
        elif name == "free_many":
            for _ in range(min(args[1], len(pair.live))):
                pair.vfree(pair.live[args[0] % len(pair.live)])
        elif name == "ioremap":
            address = core.ioremap(pair.state, 0xFEC00000, args[0], args[1] % cpus)
            assert (0 if address == -12 else address) == pair.twin.ioremap(args[0], args[1] % cpus, limit)
            if address > 0:
                pair.live.append(address)
        elif name == "purge":
            core.purge(pair.state, args[0])
            pair.twin.purge(args[0])
        elif name == "shrink":
            core.shrink(pair.state)
            pair.twin.shrink()
    pair.check()


@settings(max_examples=60 * FACTOR)
@given(ops=OPS, cpus=st.integers(1, 4))
def test_sequences(ops, cpus):
    run(Pair(cpus, "2G"), ops)


@settings(max_examples=20 * FACTOR)
@given(ops=OPS)
def test_sequences_on_i386(ops):
    run(Pair(2, "1G", "i386"), ops)


@pytest.mark.parametrize("cpus", [1, 2, 4])
def test_long_random_sequences(cpus):
    """Long enough for purges by the threshold."""
    rng = np.random.default_rng(cpus)
    pair = Pair(cpus, "2G")
    sizes = [1, 4096, 4096, 4096, 8192, 20000, 65536, 300000, 2 << 20]
    for i in range(6000):
        if len(pair.live) > 60 or (pair.live and rng.random() < 0.45):
            pair.vfree(pair.live[int(rng.integers(len(pair.live)))], int(rng.integers(cpus)))
        else:
            pair.vmalloc(sizes[int(rng.integers(len(sizes)))], int(rng.integers(cpus)), bool(rng.random() < 0.5))
        if i % 1000 == 999:
            pair.check()
            pair.machine.validate()
    assert pair.twin.purges > 2
    for address in list(pair.live):
        pair.vfree(address)
    core.purge(pair.state, True)
    pair.twin.purge(True)
    pair.check()
    assert pair.machine.validate()["allocated"] == tables(pair.machine)
    assert len(ranges(pair.state)) == 1


def test_a_copy_goes_on_alike(tmp_path):
    machine = Machine("128M", cpus=2)
    live = [core.vmalloc(machine.state, n * 1000 + 1, cpu=n % 2, caller=f"driver_{n % 3}") for n in range(50)]
    for address in live[::3]:
        core.vfree(machine.state, address)
    core.purge(machine.state)
    machine.save(tmp_path / "m.npz")
    others = [machine.fork(), Machine.load(tmp_path / "m.npz")]
    for other in others:
        assert other == machine
        vmalloc_check.validate(other.state)
    found = [[core.vmalloc(m.state, n * 4096, cpu=n % 2) for n in range(1, 40)] for m in (machine, *others)]
    assert found[0] == found[1] == found[2]
