"""The page cache of files: the specification's sharp cases, the core beside its twin, the index tree by itself, misuse."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcore.sys import file_calls
from mmcore.vm.radix import Index
from mmpy import Machine
from tests.reference.pagecache import RAND_READ, SEQ_READ, TwinFile, fault_around

PAGE = 4096


@pytest.fixture
def state():
    return Machine("64M").state


def cached(state, file):
    return set(file_calls.cached(state, file)[0].tolist())


def span(*ranges):
    return {i for first, last in ranges for i in range(first, last + 1)}


def ra_state(state, file):
    f = state.get("files")[file - 1]
    return tuple(int(f[k]) for k in ("ra_start", "ra_size", "ra_async", "ra_prev", "ra_mmap_miss"))


def major_faults(state):
    return int(state.vm_globals["events"][0][9])


class TestSharp:
    def test_faults_in_a_row_move_the_window(self, state):
        f = file_calls.create_file(state, "f", 512 * PAGE)
        assert file_calls.fault(state, f, 100)[0] == 1
        assert cached(state, f) == span((84, 115))
        lo, hi = file_calls.around(100, 100, 512, 16)
        mapped = set(file_calls.map_pages(state, f, lo, hi + 1)[0].tolist())
        assert mapped == span((96, 107), (109, 111))
        assert file_calls.fault(state, f, 108)[0] == 0
        assert cached(state, f) == span((84, 147))
        assert file_calls.fault(state, f, 116)[0] == 0
        assert cached(state, f) == span((84, 179))
        assert major_faults(state) == 1
        assert file_calls.validate_files(state) == []

    def test_scattered_faults_read_around(self, state):
        f = file_calls.create_file(state, "f", 512 * PAGE)
        for index in (5, 69, 133):
            assert file_calls.fault(state, f, index)[0] == 1
        assert cached(state, f) == span((0, 31), (53, 84), (117, 148))

    def test_sequential_reads(self, state):
        f = file_calls.create_file(state, "f", 512 * PAGE)
        for index in range(12):
            file_calls.read(state, f, index * PAGE, PAGE)
            assert cached(state, f) == span((0, 3 if index == 0 else 11 if index < 4 else 27))

    def test_reads_with_gaps(self, state):
        f = file_calls.create_file(state, "f", 512 * PAGE)
        for index, last in ((0, 3), (1, 11), (4, 27)):
            file_calls.read(state, f, index * PAGE, PAGE)
            assert cached(state, f) == span((0, last))
        assert file_calls.read(state, f, 200 * PAGE, PAGE) == (1, 1)
        assert cached(state, f) == span((0, 27), (200, 200))
        assert file_calls.read(state, f, 300 * PAGE, 65536) == (16, 1)
        assert cached(state, f) == span((0, 27), (200, 200), (300, 315))

    def test_advised_mappings(self, state):
        f = file_calls.create_file(state, "f", 512 * PAGE)
        file_calls.fault(state, f, 0, SEQ_READ)
        assert cached(state, f) == span((0, 31))
        assert set(file_calls.map_pages(state, f, 0, 16)[0].tolist()) == span((0, 15))
        file_calls.fault(state, f, 100, RAND_READ)
        assert cached(state, f) == span((0, 31), (100, 100))

    def test_fault_around_follows_the_table(self):
        assert file_calls.around(191, 6, 20, 16) == (185, 200)  # case 5: pages 0..15
        assert file_calls.around(0, 0, 1, 16) == (0, 0)
        assert file_calls.around(511, 400, 1000, 16) == (496, 511)

    @given(st.integers(0, 511), st.integers(0, 1000), st.integers(1, 1000), st.sampled_from([2, 4, 16, 64, 512]))
    def test_fault_around_is_the_twins(self, i, v, more, n):
        assert file_calls.around(i, v, v + more, n) == fault_around(i, v, v + more, n)

    def test_beyond_the_end(self, state):
        f = file_calls.create_file(state, "f", 2 * PAGE + 1)
        assert file_calls.fault(state, f, 2)[0] == 1
        assert file_calls.fault(state, f, 3) == (-5, -1)
        assert file_calls.read(state, f, 2 * PAGE + 1, PAGE) == (0, 0)
        assert cached(state, f) == {0, 1, 2}

    def test_tmpfs(self, state):
        f = file_calls.create_file(state, "shm", 10 * PAGE, 1)
        assert file_calls.read(state, f, 0, 10 * PAGE) == (10, 10)
        assert cached(state, f) == set()
        assert file_calls.fault(state, f, 3)[0] == 0
        assert cached(state, f) == {3}
        assert (state.nodes[0]["vm_stat"][[19, 23]] == 1).all()
        assert file_calls.drop_cache(state, f) == 0
        assert file_calls.validate_files(state) == []

    def test_everything_comes_back(self, state):
        free = filemap_free(state)
        f = file_calls.create_file(state, "f", 3000 * PAGE)
        assert file_calls.read(state, f, 0, 3000 * PAGE)[0] == 3000
        assert filemap_free(state) <= free - 3000
        file_calls.unlink(state, f)
        assert filemap_free(state) == free
        assert state.pools["live"][5] == state.pools["live"][6] == 0
        assert not state.get("lruvecs")["nr"].any()
        assert file_calls.validate_files(state) == []

    def test_memory_runs_out(self, state):
        f = file_calls.create_file(state, "f", 1 << 40)
        got = file_calls.write(state, f, 0, 1 << 39)
        assert 0 < got < 16384
        assert file_calls.write(state, f, 1 << 39, PAGE) == -12
        assert file_calls.read(state, f, 1 << 38, PAGE)[0] == -12
        assert file_calls.fault(state, f, 1 << 26)[0] == -12
        assert file_calls.validate_files(state) == []
        assert len(cached(state, f)) == got


def filemap_free(state):
    return int(state.zones["vm_stat"][:, 0].sum() + state.pcps["count"].sum() + state.pcps["vm_diff"][:, 0].sum())


BAD = {
    "dead handle": lambda s, f: file_calls.read(s, f + 1, 0, 1),
    "handle 0": lambda s, f: file_calls.write(s, 0, 0, 1),
    "negative offset": lambda s, f: file_calls.read(s, f, -1, 1),
    "absurd offset": lambda s, f: file_calls.read(s, f, 2**64, 1),
    "absurd length": lambda s, f: file_calls.write(s, f, 0, 2**63),
    "absurd size": lambda s, f: file_calls.create_file(s, "g", 2**61),
    "negative size": lambda s, f: file_calls.truncate(s, f, -1),
    "unknown CPU": lambda s, f: file_calls.read(s, f, 0, 1, 99),
    "unknown flags": lambda s, f: file_calls.create_file(s, "g", 1, 4),
}


class TestMisuse:
    @pytest.mark.parametrize("call", BAD.values(), ids=BAD.keys())
    def test_refused(self, state, call):
        f = file_calls.create_file(state, "f", 10 * PAGE)
        before = {k: v.copy() for k, v in state.arrays().items() if k in ("files", "xnodes", "zones", "nodes")}
        with pytest.raises(ValueError):
            call(state, f)
        assert all(np.array_equal(v, state.get(k)) for k, v in before.items())

    def test_unlinked(self, state):
        f = file_calls.create_file(state, "f", 10 * PAGE)
        file_calls.unlink(state, f)
        with pytest.raises(ValueError, match="no such file"):
            file_calls.read(state, f, 0, 1)

    def test_types(self, state):
        with pytest.raises(TypeError):
            file_calls.create_file(state, 3, 1)
        with pytest.raises(TypeError):
            file_calls.create_file(state, "f", 1.5)

    def test_far_writes(self, state):
        f = file_calls.create_file(state, "f", 0)
        assert file_calls.write(state, f, 1 << 60, 1) == -27
        assert file_calls.write(state, f, (1 << 60) - 1, 1) == 1
        assert cached(state, f) == {(1 << 48) - 1}
        assert file_calls.validate_files(state) == []


INDEX = st.integers(0, 400)
SIZES = st.integers(0, 420 * PAGE)
LENGTH = st.sampled_from([1, PAGE, PAGE, 2 * PAGE, 5 * PAGE, 16 * PAGE, 70 * PAGE])
CALLS = st.one_of(
    st.tuples(st.just("read"), INDEX, LENGTH),
    st.tuples(st.just("run"), INDEX, st.integers(2, 40)),
    st.tuples(st.just("write"), INDEX, LENGTH),
    st.tuples(st.just("fault"), INDEX, st.sampled_from([0, 0, 0, SEQ_READ, RAND_READ, 0x20000000])),
    st.tuples(st.just("map"), INDEX, st.just(16)),
    st.tuples(st.just("truncate"), SIZES, st.none()),
    st.tuples(st.just("drop"), st.none(), st.none()),
    st.tuples(st.just("fadvise"), INDEX, st.integers(0, 5)),
    st.tuples(st.just("fsync"), st.none(), st.none()),
)


def apply(state, f, twin, call):
    """The same call on both; what each returned."""
    what, a, b = call
    if what == "read":
        return file_calls.read(state, f, a * PAGE, b), twin.read(a * PAGE, b)
    if what == "run":
        return (
            [file_calls.read(state, f, i * PAGE, PAGE) for i in range(a, a + b)],
            [twin.read(i * PAGE, PAGE) for i in range(a, a + b)],
        )
    if what == "write":
        return file_calls.write(state, f, a * PAGE + 7, b), twin.write(a * PAGE + 7, b)
    if what == "fault":
        return file_calls.fault(state, f, a, b)[0], twin.fault(a, b)
    if what == "map":
        return file_calls.map_pages(state, f, a, a + b)[0].tolist(), twin.map_pages(a, a + b)
    if what == "truncate":
        return file_calls.truncate(state, f, a), twin.truncate(a) or 0
    if what == "drop":
        return file_calls.drop_cache(state, f), twin.drop()
    if what == "fadvise":
        return file_calls.fadvise(state, f, a * PAGE + 5, 20 * PAGE, b), twin.fadvise(a * PAGE + 5, 20 * PAGE, b) or 0
    return file_calls.fsync(state, f), twin.fsync()


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 400 * PAGE), st.sampled_from([0, 0, 0, 1, 2]), st.sampled_from([32, 32, 8, 64, 1, 0]), st.lists(CALLS, max_size=40))
def test_core_is_its_twin(size, flags, ra, calls):
    state = Machine("64M").state
    file_calls.set_ra_pages(state, ra)
    f, twin = file_calls.create_file(state, "f", size, flags), TwinFile(size, flags, ra)
    for call in calls:
        ours, theirs = apply(state, f, twin, call)
        assert ours == theirs, call
        indices, marked = file_calls.cached(state, f)
        assert indices.tolist() == sorted(twin.cached), call
        assert marked.tolist() == sorted(twin.marks), call
        assert ra_state(state, f) == twin.state(), call
        assert file_calls.file_size(state, f) == twin.size
    assert major_faults(state) == twin.majors
    assert file_calls.validate_files(state) == []
    file_calls.unlink(state, f)
    assert state.pools["live"][6] == 0
    assert file_calls.validate_files(state) == []


KEYS = st.one_of(st.integers(0, 200), st.integers(0, 2**44), st.integers(0, 2**64 - 1), st.sampled_from([63, 64, 4095, 4096, 2**44 - 1]))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.booleans(), KEYS), max_size=60), KEYS, KEYS)
def test_index_is_a_dict(ops, a, b):
    state = Machine("64M").state
    tree, plain = Index(state), {}
    for n, (store, key) in enumerate(ops):
        if store:
            assert tree.store(key, (n + 1) << 2) == 0
            plain[key] = (n + 1) << 2     # as a page is written: another kind would count as absent
        else:
            assert tree.erase(key) == plain.pop(key, 0)
        fault, entries, _, height = tree.check()
        assert fault == 0
        assert entries == len(plain)
        top = max(plain, default=None)
        assert height == (0 if top is None else max(1, -(-top.bit_length() // 6)))
    assert tree.entries() == sorted(plain.items())
    assert tree.lookup(a) == plain.get(a, 0)
    assert tree.next(min(a, b), max(a, b)) == min((k for k in plain if min(a, b) <= k <= max(a, b)), default=None)
    start = min(a, 2**64 - 40)
    assert tree.next_absent(start, 33) == next((i for i in range(start, start + 33) if i not in plain), start + 33)
    run = 0
    while run < min(33, a) and a - run - 1 in plain:
        run += 1
    assert tree.run_before(a, 33) == run
    tree.clear()
    assert state.pools["live"][6] == 0
    assert not state.get("xnodes")["slots"].any()


def test_nodes_as_the_kernel_charges_them():
    tree = Index(Machine("64M").state)
    for key, nodes in ((0, 0), (1, 1), (64, 3), (4096, 6)):
        tree.store(key, 1)
        assert tree.nr_nodes == nodes


class TestMapped:
    """Pages that a mapping holds, as the fault path leaves them: meta.mapcount counts, PG_meta is set."""

    @pytest.fixture
    def mapped(self, state):
        f = file_calls.create_file(state, "f", 10 * PAGE)
        file_calls.read(state, f, 0, 10 * PAGE)
        _, pfn = file_calls.fault(state, f, 5)
        state.meta["mapcount"][pfn] = 1
        state.pages["flags"][pfn] |= 1 << 21
        return state, f

    def test_stay(self, mapped):
        state, f = mapped
        assert file_calls.drop_cache(state, f) == 9
        assert cached(state, f) == {5}
        assert file_calls.validate_files(state) == []

    def test_a_pinned_page_outlives_its_file(self, state):
        f = file_calls.create_file(state, "f", 10 * PAGE)
        _, pfn = file_calls.fault(state, f, 5)
        state.meta["extra_refs"][pfn] = 1
        free = filemap_free(state)
        file_calls.unlink(state, f)
        assert filemap_free(state) == free + 9
        assert state.pages["flags"][pfn] >> 27 & 1
        assert state.pages["private_"][pfn] == 0


@pytest.mark.parametrize("damage", ["size", "nr_pages", "private_", "index_lo", "counter"])
def test_recount_sees(state, damage):
    f = file_calls.create_file(state, "f", 10 * PAGE)
    file_calls.read(state, f, 0, 10 * PAGE)
    _, pfn = file_calls.fault(state, f, 3)
    if damage in ("size", "nr_pages"):
        state.get("files")[damage][f - 1] -= 2 * PAGE if damage == "size" else 2
    elif damage == "private_":
        state.pages["private_"][pfn] += 1
    elif damage == "index_lo":
        state.meta["index_lo"][pfn] += 1
    else:
        state.nodes["vm_stat"][0, 19] += 1
    assert file_calls.validate_files(state)
