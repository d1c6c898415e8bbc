"""VMAs of the core: sharp cases of the specification, bad input, limits, and random calls against the twin."""

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("mmcore.sys.calls", reason="the core is not built")
from mmcore.sys import calls
from tests.model.vm_core import PAGE, SOFTDIRTY, TOTALS, CoreMachine, CoreProcess
from tests.reference.vm import TwinMachine
from tests.reference.vm import constants as c

BASE = 0x10000000
MIB = 1 << 20
TOP = 0x7FFFF7FFF000
RW, RO, NONE = 3, 1, 0
ANON = c.MAP_PRIVATE | c.MAP_ANONYMOUS
FIXED = ANON | c.MAP_FIXED
SHARED = c.MAP_SHARED | c.MAP_ANONYMOUS


@pytest.fixture
def machine():
    machine = CoreMachine()
    yield machine
    machine.check()


@pytest.fixture
def p(machine) -> CoreProcess:
    return machine.spawn()


def put(p, first, pages, prot=RW, flags=FIXED, **kw):
    """Map `pages` pages from page `first` of the test range on."""
    assert p.mmap(pages * PAGE, addr=BASE + first * PAGE, prot=prot, flags=flags, **kw) == BASE + first * PAGE


def pages_of(p) -> list[tuple[int, int]]:
    return [((start - BASE) // PAGE, (end - BASE) // PAGE) for start, end in p.spans()]


# ---------------------------------------------------------------- placement


def test_placement_goes_down_from_mmap_base(p):
    assert p.mmap_base == TOP
    assert p.mmap(PAGE) == TOP - PAGE
    assert p.mmap(3 * PAGE, prot=RO) == TOP - 4 * PAGE
    assert p.munmap(TOP - PAGE, PAGE) == 0
    assert p.mmap(2 * PAGE) == TOP - 6 * PAGE
    assert p.mmap(PAGE) == TOP - PAGE


def test_multiples_of_two_mib_are_aligned(p):
    assert p.mmap(2 * MIB) == 0x7FFFF7C00000
    assert p.mmap(2 * MIB + PAGE) == 0x7FFFF79FF000
    assert p.mmap(2 * MIB, flags=SHARED) == 0x7FFFF77FF000
    assert p.mmap(4 * MIB, addr=BASE) == BASE


@pytest.mark.parametrize("top, at", [(TOP, 0x7FFFF7C00000), (0x7FFFF7E00000, 0x7FFFF7C00000)])
def test_aligned_room_that_begins_aligned_moves_up(p, top, at):
    if top < TOP:
        assert p.mmap(TOP - top, addr=top, flags=FIXED) == top
    assert p.mmap(2 * MIB) == at


def test_hints(p):
    put(p, 0, 1)
    assert p.mmap(PAGE, addr=BASE + 5 * PAGE + 17) == BASE + 5 * PAGE
    assert p.mmap(PAGE, addr=BASE, prot=RO) == TOP - PAGE
    assert p.mmap(PAGE, addr=0x1010, prot=RO) == 65536
    assert p.mmap(PAGE, addr=100) == TOP - 2 * PAGE
    assert p.mmap(PAGE, addr=0x1000, flags=FIXED) == -c.EPERM
    assert p.mmap(PAGE, addr=1 << 62) == TOP - 3 * PAGE


def test_privileged_may_map_page_zero(machine):
    assert machine.spawn(privileged=True).mmap(PAGE, addr=0, flags=FIXED) == 0


def test_stack_keeps_its_guard_gap_free(p):
    stack = TOP - 1000 * PAGE
    assert p.mmap(1000 * PAGE, addr=stack, flags=FIXED | c.MAP_GROWSDOWN) == stack
    assert p.mmap(PAGE) == stack - 257 * PAGE
    assert p.mmap(PAGE, addr=stack - 256 * PAGE) == stack - 258 * PAGE


def test_bottom_up_when_nothing_is_left_below_the_base(p):
    assert p.mmap(TOP - 65536, addr=65536, prot=NONE, flags=FIXED | c.MAP_NORESERVE) == 65536
    assert p.mmap(PAGE) == TOP
    assert p.mmap(c.MAP_WINDOW - TOP) == -c.ENOMEM
    assert p.mmap(c.MAP_WINDOW - TOP - PAGE) == TOP + PAGE


def test_highest_gap_that_fits(p):
    # holes of 1..20 pages between read-only and writable pages, from the top downwards
    at, holes = TOP, []
    for size in (3, 1, 7, 2, 20, 5, 7):
        at -= PAGE
        assert p.mmap(PAGE, addr=at, flags=FIXED) == at
        at -= size * PAGE
        holes.append((at, size))
    assert p.mmap(100 * PAGE, addr=at - 100 * PAGE, flags=FIXED) == at - 100 * PAGE
    for size in (7, 7, 6, 4):
        start, room = next((start, room) for start, room in holes if room >= size)
        assert p.mmap(size * PAGE) == start + (room - size) * PAGE
        holes = [(s, r - size if s == start else r) for s, r in holes]


# ---------------------------------------------------------------- merging (section 20, case 9)


def test_merge_a_fresh_hole_joins_the_left_one_only(p):
    put(p, 0, 4)
    put(p, 8, 4)
    p.write(BASE)
    p.write(BASE + 8 * PAGE)
    put(p, 4, 4)
    assert pages_of(p) == [(0, 8), (8, 12)]


def test_merge_b_pieces_of_one_vma_join_again(p):
    put(p, 0, 12)
    p.write(BASE)
    p.munmap(BASE + 4 * PAGE, 4 * PAGE)
    put(p, 4, 4)
    assert pages_of(p) == [(0, 12)]


def test_merge_c_faulted_range_and_unfaulted_neighbour(p):
    put(p, 0, 2)
    put(p, 2, 2, RO)
    p.write(BASE)
    p.mprotect(BASE, 2 * PAGE, RO)
    assert pages_of(p) == [(0, 2), (2, 4)]


def test_merge_c_the_reverse_joins(p):
    put(p, 0, 2)
    put(p, 2, 2, RO)
    p.write(BASE)
    p.mprotect(BASE + 2 * PAGE, 2 * PAGE, RW)
    assert pages_of(p) == [(0, 4)]


def test_merge_d_a_child_does_not_grow_what_it_inherited(p):
    put(p, 0, 4)
    put(p, 8, 4)
    p.write(BASE)
    p.write(BASE + 8 * PAGE)
    child = p.fork()
    put(child, 4, 4)
    assert pages_of(child) == [(0, 4), (4, 8), (8, 12)]
    put(p, 4, 4)
    assert pages_of(p) == [(0, 8), (8, 12)]


def test_neighbours_share_an_anon_vma(p):
    put(p, 0, 4)
    put(p, 8, 4)
    p.write(BASE)
    put(p, 4, 4, RO)
    p.mprotect(BASE + 4 * PAGE, 4 * PAGE, RW)
    assert pages_of(p) == [(0, 12)]


# ---------------------------------------------------------------- splitting and the rest of 4.5


def test_mprotect_charges(machine):
    p = machine.spawn()
    a = p.mmap(100 * MIB)
    assert machine.committed == 25600
    assert p.mprotect(a, 50 * MIB, RO) == 0
    assert machine.committed == 12800
    p.write(a + 50 * MIB)
    assert p.mprotect(a + 50 * MIB, 50 * MIB, RO) == 0
    assert machine.committed == 12800
    p.mmap(MIB, flags=ANON | c.MAP_NORESERVE)
    assert machine.committed == 12800
    p.exit()
    assert machine.committed == 0


def test_mprotect_stops_at_a_hole(p):
    put(p, 0, 2)
    put(p, 3, 2)
    assert p.mprotect(BASE, 5 * PAGE, RO) == -c.ENOMEM
    assert [flags & 7 for _, _, flags, *_ in p.maps()] == [RO, RW]
    assert p.mprotect(BASE + 2 * PAGE, PAGE, RO) == -c.ENOMEM


def test_stack_grows_as_long_as_the_gap_is_left(machine):
    for distance, works in ((43, True), (44, False)):
        p = machine.spawn()
        stack = BASE + 4096 * PAGE
        assert p.mmap(PAGE, addr=stack, flags=FIXED | c.MAP_GROWSDOWN) == stack
        assert p.mmap(PAGE, addr=stack - 300 * PAGE, flags=FIXED) == stack - 300 * PAGE
        assert (grow(p, stack - distance * PAGE) == 0) == works
        assert p.stack_vm == (1 + distance if works else 1)


def grow(p, addr) -> int:
    """Touch below a stack: the core's own way there is a fault; MADV_POPULATE does not grow stacks."""
    access = pytest.importorskip("mmcore.run.access")
    import numpy as np

    codes = np.zeros(1, np.uint8)
    access.access(p.state, p.handle, np.array([addr // PAGE], np.uint64), np.ones(1, np.uint8), 0, codes)
    return 0 if codes[0] < 3 else -1


def test_brk(machine):
    p = machine.spawn(exec=True)
    start = p.brk_to()
    assert p.brk_to(start + 10) == start + 10
    assert p.brk_to(start + 5 * PAGE) == start + 5 * PAGE
    before = p.maps()
    assert p.brk_to(1 << 46) == start + 5 * PAGE
    assert p.brk_to(1) == start + 5 * PAGE
    assert p.maps() == before
    assert p.mmap(PAGE, addr=start + 20 * PAGE, flags=FIXED) == start + 20 * PAGE
    assert p.brk_to(start + 20 * PAGE) == start + 5 * PAGE
    assert p.brk_to(start + 19 * PAGE) == start + 19 * PAGE
    assert p.brk_to(p.start_brk) == p.start_brk
    assert p.data_vm == 8 + 1


def test_mremap_in_place_moved_and_shrunk(machine):
    p = machine.spawn()
    put(p, 0, 4)
    assert p.mremap(BASE, 4 * PAGE, 6 * PAGE) == BASE
    assert pages_of(p) == [(0, 6)]
    put(p, 6, 1, RO)
    p.write(BASE)
    assert p.mremap(BASE, 6 * PAGE, 8 * PAGE) == -c.ENOMEM
    moved = p.mremap(BASE, 6 * PAGE, 8 * PAGE, c.MREMAP_MAYMOVE)
    assert moved == TOP - 8 * PAGE
    assert p.maps()[1][3] == BASE // PAGE
    assert machine.committed == 8
    assert p.mremap(moved, 8 * PAGE, PAGE) == moved
    assert machine.committed == 1
    assert p.mremap(moved, 2 * PAGE, 9 * PAGE) == -c.EFAULT
    assert p.mremap(BASE, PAGE, 2 * PAGE) == -c.EFAULT
    assert p.mremap(moved, PAGE, 0) == p.mremap(moved + 1, PAGE, PAGE) == p.mremap(moved, PAGE, PAGE, 8) == -c.EINVAL
    assert p.mremap(moved, PAGE, PAGE, c.MREMAP_FIXED) == p.mremap(moved, 0, PAGE) == -c.EINVAL


def test_shared_anonymous_memory_is_charged_once(machine):
    p = machine.spawn()
    a = p.mmap(10 * PAGE, flags=SHARED)
    child = p.fork()
    assert (machine.committed, machine.live()["files"]) == (10, 1)
    p.munmap(a, 5 * PAGE)
    assert machine.committed == 10
    p.exit()
    child.munmap(a, 9 * PAGE)
    assert machine.committed == 10
    child.exit()
    assert (machine.committed, machine.live()["files"]) == (0, 0)


# ---------------------------------------------------------------- commit and limits


def test_mode_0_refuses_one_request_beyond_ram_and_swap():
    machine = CoreMachine(1000, swap_pages=24)
    p = machine.spawn()
    assert p.mmap(1025 * PAGE) == -c.ENOMEM
    assert p.mmap(1024 * PAGE) > 0
    assert p.mmap(1024 * PAGE) > 0
    assert p.mmap(1025 * PAGE, flags=ANON | c.MAP_NORESERVE) > 0
    assert p.mmap(1025 * PAGE, prot=RO) > 0
    machine.check()


@pytest.mark.parametrize("privileged", [True, False])
def test_mode_2_largest_mapping(privileged):
    machine = CoreMachine(100000, swap_pages=1000, sysctl={"overcommit_memory": 2, "user_reserve_kbytes": 400, "admin_reserve_kbytes": 80})
    p = machine.spawn(privileged=privileged)
    assert calls.commit_limit_pages(machine.state) == 51000
    assert p.mmap(10000 * PAGE, prot=RO) > 0
    allowed = 51000 - min(10000 // 32, 100) - (0 if privileged else 20)
    assert p.mmap(allowed * PAGE) == -c.ENOMEM
    assert p.mmap((allowed - 1) * PAGE, flags=ANON | c.MAP_NORESERVE) > 0
    assert machine.committed == allowed - 1


def test_rlimits(machine):
    p = machine.spawn(rlimits={"as": 100 * PAGE, "data": 10 * PAGE})
    assert p.mmap(101 * PAGE, prot=RO) == -c.ENOMEM
    assert p.mmap(11 * PAGE) == -c.ENOMEM
    a = p.mmap(20 * PAGE, prot=RO)
    assert p.mprotect(a, 11 * PAGE, RW) == -c.ENOMEM
    assert p.mprotect(a, 10 * PAGE, RW) == 0
    assert p.mmap(81 * PAGE, prot=RO) == -c.ENOMEM
    assert p.mmap(100 * PAGE, addr=a, prot=RO, flags=FIXED) == a


def test_max_map_count():
    machine = CoreMachine(sysctl={"max_map_count": 200})
    p = machine.spawn()
    for i in range(201):
        put(p, 2 * i, 1)
    assert p.map_count == 201
    assert p.mmap(PAGE) == -c.ENOMEM
    assert p.munmap(BASE, PAGE) == 0
    put(p, 1000, 3)
    assert p.map_count == 201
    before = p.maps()
    assert p.munmap(BASE + 1001 * PAGE, PAGE) == -c.ENOMEM
    assert p.mprotect(BASE + 1001 * PAGE, PAGE, RO) == -c.ENOMEM
    assert p.mremap(BASE + 1000 * PAGE, 3 * PAGE, 4 * PAGE, 1, 0) == BASE + 1000 * PAGE
    assert p.munmap(BASE + 1003 * PAGE, PAGE) == 0
    assert p.maps() == before
    assert p.munmap(BASE + 1002 * PAGE, PAGE) == 0
    machine.check()


def test_65531_mappings():
    machine = CoreMachine()
    p = machine.spawn()
    order = list(range(65531))
    random.Random(1).shuffle(order)
    for i in order:
        put(p, 2 * i, 1)
    assert p.map_count == 65531
    assert p.mmap(PAGE) == -c.ENOMEM
    machine.check()
    for i in order[:30000]:
        assert p.munmap(BASE + 2 * i * PAGE, PAGE) == 0
    machine.check()
    rest = sorted(order[30000:])
    assert pages_of(p) == [(2 * i, 2 * i + 1) for i in rest]
    p.exit()
    machine.check()
    assert not any(machine.live().values())


# ---------------------------------------------------------------- locked memory, advice, fork


def test_mlock_limits(machine):
    p = machine.spawn(rlimits={"memlock": 10 * PAGE})
    put(p, 0, 20)
    assert p.mlock(BASE, 11 * PAGE) == -c.ENOMEM
    assert p.mlock(BASE, 6 * PAGE) == 0
    assert p.mlock(BASE, 10 * PAGE) == 0
    assert p.locked_vm == 10
    assert p.mlock(BASE + 10 * PAGE, 1) == -c.ENOMEM
    assert p.mmap(PAGE, flags=ANON | c.MAP_LOCKED) == -c.EAGAIN
    assert p.mremap(BASE + 9 * PAGE, PAGE, 2 * PAGE, 1) == -c.EAGAIN
    assert p.madvise(BASE, PAGE, c.MADV_DONTNEED) == -c.EINVAL
    assert p.munlock(BASE, 20 * PAGE) == 0
    # the locked part was faulted in, the rest was not: case (c)
    assert (p.locked_vm, pages_of(p)) == (0, [(0, 10), (10, 20)])
    calls.prlimit(p.state, p.handle, "memlock", 0)
    assert p.mlock(BASE, PAGE) == -c.EPERM
    assert p.mlockall(1) == -c.EPERM


def test_mlockall_of_what_comes(machine):
    p = machine.spawn()
    put(p, 0, 4)
    assert p.mlockall(4) == p.mlockall(0) == p.mlockall(8) == -c.EINVAL
    assert p.mlockall(c.MCL_FUTURE) == 0
    assert p.locked_vm == 0
    put(p, 10, 2)
    assert p.locked_vm == 2
    assert p.mlockall(c.MCL_CURRENT) == 0
    assert p.locked_vm == 6
    child = p.fork()
    assert child.locked_vm == 0
    assert p.munlockall() == 0
    assert p.locked_vm == 0


def test_madvise_flags_and_holes(p):
    put(p, 0, 10)
    assert p.madvise(BASE + 2 * PAGE, 2 * PAGE, c.MADV_SEQUENTIAL) == 0
    assert pages_of(p) == [(0, 2), (2, 4), (4, 10)]
    assert p.madvise(BASE, 10 * PAGE, c.MADV_SEQUENTIAL) == 0
    assert pages_of(p) == [(0, 10)]
    put(p, 12, 2)
    assert p.madvise(BASE, 14 * PAGE, c.MADV_DONTFORK) == -c.ENOMEM
    assert [flags & c.VM_DONTCOPY for _, _, flags, *_ in p.maps()] == [c.VM_DONTCOPY] * 2
    assert p.madvise(BASE + 1, PAGE, c.MADV_NORMAL) == p.madvise(BASE, PAGE, 7) == -c.EINVAL
    assert p.madvise(BASE, 1 << 63, c.MADV_NORMAL) == -c.ENOMEM
    assert p.madvise(BASE, (1 << 64) - 1, c.MADV_NORMAL) == -c.EINVAL
    assert p.madvise(BASE, 0, c.MADV_NORMAL) == 0


def test_fork_leaves_out_and_wipes(machine):
    p = machine.spawn()
    for i in range(3):
        put(p, 4 * i, 2)
        p.write(BASE + 4 * i * PAGE)
    p.madvise(BASE, 2 * PAGE, c.MADV_DONTFORK)
    p.madvise(BASE + 4 * PAGE, 2 * PAGE, c.MADV_WIPEONFORK)
    child = p.fork()
    assert [(start, anon, chain) for start, _, _, _, _, anon, chain in child.maps()] == [
        (BASE + 4 * PAGE, False, 0),
        (BASE + 8 * PAGE, True, 2),
    ]
    assert (child.total_vm, machine.committed) == (4, 10)
    p.exit()
    child.exit()
    assert not any(machine.live().values())


def test_idle_ancestors_anon_vma_serves_again(machine):
    p = machine.spawn()
    put(p, 0, 2)
    p.write(BASE)
    child = p.fork()
    p.exit()
    grandchild = child.fork()
    # the root has the child's as its one child besides itself: it is not idle enough; the grandchild has its own
    assert grandchild.maps()[0][6] == 3
    child.exit()
    last = grandchild.fork()
    assert last.maps()[0][6] == 3
    machine.check()
    for q in (grandchild, last):
        q.exit()
    assert not any(machine.live().values())


def test_exec_image(machine):
    p = machine.spawn(exec=True)
    maps = p.maps()
    assert maps[-1][:2] == (0x7FFFFFFFF000 - 33 * PAGE, 0x7FFFFFFFF000)
    assert maps[-1][2] & c.VM_GROWSDOWN
    assert maps[0][0] == 0x555555554000
    assert p.stack_vm == 33
    assert calls.exec_(p.state, p.handle) == 0
    assert p.maps() == maps
    p.exit()
    assert machine.live()["vmas"] == 0
    assert machine.committed == 0


# ---------------------------------------------------------------- bad input

HUGE = [0, 1, PAGE - 1, PAGE, (1 << 47) - PAGE, 1 << 47, 1 << 63, (1 << 64) - PAGE, (1 << 64) - 1]


@pytest.mark.parametrize("addr", HUGE)
@pytest.mark.parametrize("length", HUGE)
def test_absurd_ranges_change_nothing(machine, addr, length):
    p = machine.spawn()
    put(p, 0, 4)
    attempts = [
        lambda: p.munmap(addr, length),
        lambda: p.mprotect(addr, length, RO),
        lambda: p.mlock(addr, length),
        lambda: p.munlock(addr, length),
        lambda: p.mmap(length, addr=addr, flags=FIXED | c.MAP_FIXED_NOREPLACE),
        lambda: p.mmap(length, addr=addr, flags=FIXED),
        lambda: p.mmap(PAGE, offset=length or 1),
        lambda: p.mmap(PAGE, addr=BASE, flags=c.MAP_PRIVATE | c.MAP_FIXED, file=machine.open("f", PAGE), offset=length or 1),
        lambda: p.mremap(addr, length, length, 1),
        lambda: p.mremap(BASE, PAGE, length, 3, addr),
        lambda: p.mremap(BASE, length, PAGE),
        lambda: p.mremap(BASE, length, length, 5, addr),
    ]
    for attempt in attempts:
        before = p.maps(), p.totals(), machine.committed
        if attempt() < 0:
            assert (p.maps(), p.totals(), machine.committed) == before
        machine.check()
    before = p.maps()
    if not p.start_brk <= addr < 1 << 47:
        assert p.brk_to(addr) == p.start_brk
        assert p.maps() == before
    p.madvise(addr, length, c.MADV_DONTFORK)
    machine.check()


@pytest.mark.parametrize(
    "call, code",
    [
        (lambda p: p.mmap(0), -c.EINVAL),
        (lambda p: p.mmap((1 << 64) - 1), -c.ENOMEM),
        (lambda p: p.mmap(PAGE, addr=BASE + 1, flags=FIXED), -c.EINVAL),
        (lambda p: p.mmap(PAGE, addr=BASE, flags=FIXED | c.MAP_FIXED_NOREPLACE), -c.EEXIST),
        (lambda p: p.mmap(PAGE, flags=c.MAP_ANONYMOUS), -c.EINVAL),
        (lambda p: p.mmap(PAGE, flags=c.MAP_ANONYMOUS | 3), -c.EINVAL),
        (lambda p: p.mmap(PAGE, flags=SHARED | c.MAP_GROWSDOWN), -c.EINVAL),
        (lambda p: p.mmap(PAGE, flags=c.MAP_PRIVATE), -9),
        (lambda p: p.mmap(PAGE, offset=1), -c.EINVAL),
        (lambda p: p.mmap(1 << 47), -c.ENOMEM),
        (lambda p: p.munmap(BASE + 1, PAGE), -c.EINVAL),
        (lambda p: p.munmap(BASE, 0), -c.EINVAL),
        (lambda p: p.munmap(BASE, 1 << 63), -c.EINVAL),
        (lambda p: p.munmap(BASE + MIB, PAGE), 0),
        (lambda p: p.mprotect(BASE + 1, PAGE, RO), -c.EINVAL),
        (lambda p: p.mprotect(BASE, 0, RO), 0),
        (lambda p: p.mprotect(BASE, PAGE, 64), -c.EINVAL),
        (lambda p: p.mprotect(BASE, 1 << 63, RO | 1 << 24 | 1 << 25), -c.EINVAL),
        (lambda p: p.mprotect(BASE, (1 << 64) - PAGE, RO), -c.ENOMEM),
        (lambda p: p.mlock(BASE, 5 * PAGE), -c.ENOMEM),
    ],
)
def test_errno(machine, call, code):
    p = machine.spawn()
    put(p, 0, 4)
    before = p.maps()
    assert call(p) == code
    if code != -c.ENOMEM:
        assert p.maps() == before


def test_misuse_raises(machine):
    p = machine.spawn()
    with pytest.raises(ValueError, match="no such address space"):
        calls.mmap(p.state, 99, 0, PAGE, 3, ANON)
    with pytest.raises(ValueError, match="no such file"):
        calls.mmap(p.state, p.handle, 0, PAGE, 3, c.MAP_PRIVATE, 5)
    with pytest.raises(ValueError, match="cpu is 77"):
        calls.munmap(p.state, p.handle, 0, PAGE, 77)
    with pytest.raises(ValueError, match="addr is -1"):
        calls.munmap(p.state, p.handle, -1, PAGE)
    with pytest.raises(TypeError, match="length must be an integer"):
        calls.munmap(p.state, p.handle, 0, 1.5)
    p.exit()
    with pytest.raises(ValueError, match="no such address space"):
        calls.fork(p.state, p.handle)


# ---------------------------------------------------------------- random calls, core and twin

ADVICE = (
    c.MADV_NORMAL, c.MADV_RANDOM, c.MADV_SEQUENTIAL, c.MADV_DONTNEED, c.MADV_DONTFORK, c.MADV_DOFORK, c.MADV_NOHUGEPAGE, c.MADV_HUGEPAGE,
    c.MADV_DONTDUMP, c.MADV_DODUMP, c.MADV_WIPEONFORK, c.MADV_KEEPONFORK,
)  # fmt: skip


class Pair:
    """The same calls on the core and on the twin; after each, both must have the same VMAs and sums."""

    def __init__(self, **sysctl):
        self.core = CoreMachine(sysctl=sysctl)
        self.twin = TwinMachine(262144, thp="never", sysctl=sysctl)
        self.files = [(self.core.open(n, 300 * PAGE, k), self.twin.open(n, 300 * PAGE, kind=k)) for n, k in (("f", "file"), ("r", "ram"))]
        self.pairs = [(self.core.spawn(), self.twin.spawn())]
        self.pairs[0][1].mm.start_brk = self.pairs[0][1].mm.brk = self.pairs[0][0].brk

    def call(self, which: int, name: str, *args, file: int | None = None, **kw):
        core, twin = self.pairs[which % len(self.pairs)]
        if name == "fork":
            if len(self.pairs) < 4:
                self.pairs.append((core.fork(), twin.fork()))
                child = self.pairs[-1][1].mm
                child.start_brk, child.brk = twin.mm.start_brk, twin.mm.brk
        elif name == "exit":
            if len(self.pairs) > 1:
                core.exit()
                twin.exit()
                self.pairs.remove((core, twin))
        elif name == "brk":
            assert core.brk_to(*args) == twin.brk(*args)
        else:
            extra = ({}, {}) if file is None else ({"file": self.files[file][0]}, {"file": self.files[file][1]})
            got, want = getattr(core, name)(*args, **kw, **extra[0]), getattr(twin, name)(*args, **kw, **extra[1])
            assert got == want, (name, args, kw)
        self.compare()

    def compare(self):
        self.core.check()
        assert self.core.committed == self.twin.committed
        for core, twin in self.pairs:
            want = [
                (v["start"], v["end"], v["flags"] & ~SOFTDIRTY, v["pgoff"], v["file"] is not None, v["anon_vma"], v["chain"])
                for v in twin.dump()["vmas"]
            ]
            assert core.maps() == want
            assert core.totals() == {name: getattr(twin, name) for name in TOTALS}

    def close(self):
        for core, twin in self.pairs:
            core.exit()
            twin.exit()
        self.core.check()
        live = self.core.live()
        assert [live[k] for k in ("vmas", "anon_vmas", "avcs", "mms")] == [0] * 4
        assert self.core.committed == self.twin.committed


def random_call(rng: random.Random):
    """(name, args, keywords) of a call over a small range."""
    at = BASE + rng.choice((0, 0, 8, rng.randrange(64))) * PAGE
    length = rng.choice((1, 2, 3, 8, 17, 64)) * PAGE
    kind = rng.randrange(14)
    if kind <= 2:
        flags = rng.choice((FIXED, FIXED, FIXED, SHARED | c.MAP_FIXED, FIXED | c.MAP_NORESERVE, ANON, SHARED, FIXED | c.MAP_GROWSDOWN))
        flags |= rng.choice((0, 0, 0, 0, c.MAP_LOCKED, c.MAP_STACK, c.MAP_FIXED_NOREPLACE))
        return "mmap", (length,), {"addr": rng.choice((at, at, at, 0)), "prot": rng.choice((RW, RW, RO, NONE, 5)), "flags": flags}
    if kind == 3:
        flags = rng.choice((c.MAP_SHARED, c.MAP_PRIVATE)) | c.MAP_FIXED
        return "mmap", (length,), {"addr": at, "flags": flags, "file": rng.randrange(2), "offset": (at - BASE) * rng.choice((0, 1))}
    if kind == 4:
        return "munmap", (at, length), {}
    if kind <= 6:
        return "mprotect", (at, length, rng.choice((RW, RO, NONE))), {}
    if kind == 7:
        to = BASE + rng.choice((0, 1 << 20)) + rng.randrange(100) * PAGE
        return "mremap", (at, rng.choice((PAGE, length)), rng.choice((1, 2, 30, 64)) * PAGE, rng.choice((0, 1, 1, 3, 3)), to), {}
    if kind == 8:
        return "madvise", (at, length, rng.choice(ADVICE)), {}
    if kind == 9:
        return rng.choice(("mlock", "munlock")), (at, length), {}
    if kind == 10:
        return rng.choice(("fork", "fork", "exit")), (), {}
    if kind == 11:
        return "brk", (0x555555554000 + rng.choice((-1, 0, 1, rng.randrange(20 * PAGE))),), {}
    return "madvise", (at, PAGE, c.MADV_POPULATE_WRITE), {}


@pytest.mark.parametrize("seed", range(20))
def test_random_calls(seed):
    rng = random.Random(seed)
    pair = Pair(**rng.choice(({}, {"overcommit_memory": 1}, {"overcommit_memory": 2}, {"max_map_count": 20})))
    for _ in range(250):
        name, args, kw = random_call(rng)
        pair.call(rng.randrange(4), name, *args, **kw)
    pair.close()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.integers(0, 1 << 30), st.integers(0, 3)), max_size=40))
def test_hypothesis_calls(steps):
    pair = Pair()
    for seed, which in steps:
        name, args, kw = random_call(random.Random(seed))
        pair.call(which, name, *args, **kw)
    pair.close()
