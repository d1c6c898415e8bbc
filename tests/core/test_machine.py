"""Machine as a person holds it: refusals that change nothing, determinism, saved machines, threads."""

import copy
import gc
import io
import itertools
import json
import threading

import numpy as np
import pytest

from mmcore.alloc import page_alloc
from mmcore.base.state import State
from mmcore.base.trace import Tracer
from mmcore.phys import boot
from mmcore.phys.memmap import MemoryMap
from mmcore.run import engine
from mmcore.run.engine import Stop
from mmcore.run.ops import OP_DTYPE, Op
from mmpy import GFP_ATOMIC, GFP_KERNEL, BadPageError, Gfp, GfpError, Machine, PageAllocFailure, Task
from mmpy.flags import gfp_text, parse_gfp
from mmpy.snapshot import SnapshotFormatError

SHAPES = {
    "small": {"memory": "64M"},
    "three zones": {"memory": "5G", "cpus": 2},
    "nodes": {"memory": "2G", "nodes": 2, "cpus": 4},
    "movable": {"memory": "1G", "movablecore": "256M"},
    "i386": {"memory": "2G", "arch": "i386", "kernel": "6.1"},
}


@pytest.fixture(params=SHAPES.values(), ids=SHAPES.keys())
def machine(request):
    return Machine(**request.param)


def random_ops(machine, n, seed):
    """A stream of allocations, frees, ticks and kswapd runs; some of it nonsense."""
    rng = np.random.default_rng(seed)
    ops = np.zeros(n, OP_DTYPE)
    ops["op"] = rng.choice([1, 2, 3, 4, 5, 6, 8, 10, 99], n, p=[0.44, 0.43, 0.03, 0.05, 0.01, 0.01, 0.01, 0.01, 0.01])
    ops["cpu"] = rng.integers(0, machine.nr_cpus + 1, n) * (rng.random(n) < 0.9)
    ops["ref"] = rng.integers(0, np.maximum(np.arange(n), 1))
    alloc, free, bulk = ops["op"] == 1, ops["op"] == 2, ops["op"] == 3
    ops["a"][alloc] = rng.choice([0, 0, 0, 1, 2, 3, 4, 9, 10, 11], alloc.sum())
    masks = [int(GFP_KERNEL), int(GFP_ATOMIC), 0x100CCA, 0x140DCA, 0xCD0, 0x1, 0x4, 0x3, 0x20CC0]
    ops["b"][alloc | bulk] = rng.choice(masks, (alloc | bulk).sum())
    ops["b"][free] = ops["a"][ops["ref"][free]]
    ops["a"][bulk] = rng.integers(0, 40, bulk.sum())
    ops["flags"] = rng.choice([0, 0, 0, 1, 2, 4], n)
    return ops


def run_in_chunks(machine, ops, chunks):
    rc, value = np.zeros(len(ops), np.int64), np.zeros(len(ops), np.uint64)
    pages, at, used = np.zeros(int(ops["a"][ops["op"] == 3].sum()) + 1, np.uint32), 0, 0
    for chunk in chunks:
        stop, at, used = engine.run(machine.state, ops, rc, value, at, chunk, pages, used)
        if stop is Stop.DONE:
            break
    return rc, value, pages[:used]


BAD_CALLS = {
    "order 11": (ValueError, lambda m: m.alloc_pages(11)),
    "order -1": (ValueError, lambda m: m.alloc_pages(-1)),
    "order 2**70": (ValueError, lambda m: m.alloc_pages(2**70)),
    "order 1.0": (TypeError, lambda m: m.alloc_pages(1.0)),
    "order True": (TypeError, lambda m: m.alloc_pages(True)),
    "order None": (TypeError, lambda m: m.alloc_pages(None)),
    "dma and dma32": (GfpError, lambda m: m.alloc_pages(0, 0x5)),
    "movable and reclaimable": (GfpError, lambda m: m.alloc_pages(0, Gfp.KERNEL | Gfp.MOVABLE | Gfp.RECLAIMABLE)),
    "unknown bit": (GfpError, lambda m: m.alloc_pages(0, 0x200)),
    "mask too wide": (ValueError, lambda m: m.alloc_pages(0, 1 << 40)),
    "nofail without reclaim": (GfpError, lambda m: m.alloc_pages(0, Gfp.NOFAIL)),
    "no such cpu": (ValueError, lambda m: m.alloc_pages(cpu=99)),
    "no such node": (ValueError, lambda m: m.alloc_pages(node=99)),
    "free of a hole": (BadPageError, lambda m: m.free_pages(0xA0)),
    "free of page 0": (BadPageError, lambda m: m.free_pages(0)),
    "free outside": (BadPageError, lambda m: m.free_pages(2**31)),
    "free of nothing like a pfn": (ValueError, lambda m: m.free_pages(-5)),
    "free of a free page": (BadPageError, lambda m: m.free_pages(int(m.zones[1].free_blocks(10, 1)[0]), 10)),
    "free inside a free block": (BadPageError, lambda m: m.free_pages(int(m.zones[1].free_blocks(10, 1)[1]) + 7)),
    "many, wrong dtype": (TypeError, lambda m: m.free_pages_many(np.zeros(3, np.int64))),
    "many, two dimensions": (TypeError, lambda m: m.free_pages_many(np.zeros((3, 3), np.uint32))),
    "many, a list": (TypeError, lambda m: m.free_pages_many([1, 2])),
    "many, own array": (ValueError, lambda m: m.free_pages_many(m.state.pages["flags"].base.view(np.uint32)[:64])),
    "many, strided": (TypeError, lambda m: m.free_pages_many(np.zeros(8, np.uint32)[::2])),
    "n negative": (ValueError, lambda m: m.alloc_pages_many(-1)),
    "n absurd": (ValueError, lambda m: m.alloc_pages_many(10**18)),
    "exact 0": (ValueError, lambda m: m.alloc_pages_exact(0)),
    "exact too many": (ValueError, lambda m: m.alloc_pages_exact(1025)),
    "exact compound": (GfpError, lambda m: m.alloc_pages_exact(3, Gfp.KERNEL | Gfp.COMP)),
    "split of a free page": (BadPageError, lambda m: m.split_page(int(m.zones[1].free_blocks(10, 1)[0]), 10)),
    "get of a free page": (BadPageError, lambda m: m.get_page(int(m.zones[1].free_blocks(10, 1)[0]))),
    "scale factor 0": (ValueError, lambda m: m.sysctl.__setitem__("vm.watermark_scale_factor", 0)),
    "scale factor 3001": (ValueError, lambda m: m.sysctl.__setitem__("vm.watermark_scale_factor", 3001)),
    "high fraction 7": (ValueError, lambda m: m.sysctl.__setitem__("vm.percpu_pagelist_high_fraction", 7)),
    "sysctl text": (ValueError, lambda m: m.sysctl.__setitem__("vm.min_free_kbytes", "many")),
    "sysctl unknown": (KeyError, lambda m: m.sysctl.__setitem__("vm.nonsense", 1)),
    "thp": (ValueError, lambda m: m.sysctl.__setitem__("kernel.mm.transparent_hugepage.enabled", "sometimes")),
    "ops of another dtype": (TypeError, lambda m: m.run(np.zeros(3, np.int64))),
    "task flags": (ValueError, lambda m: m.task(1 << 20).__enter__()),
    "tick of no cpu": (ValueError, lambda m: m.vmstat_tick(99)),
    "kswapd of no node": (ValueError, lambda m: m.kswapd_begin(99)),
}


@pytest.mark.parametrize("name", BAD_CALLS)
def test_bad_input_is_refused_and_changes_nothing(name):
    machine = Machine("256M", cpus=2)
    machine.alloc_pages_many(500)
    before = machine.fork()
    kind, call = BAD_CALLS[name]
    with pytest.raises(kind) as refusal:
        call(machine)
    assert str(refusal.value)
    assert machine.state.same_bytes(before.state), machine.diff(before)
    machine.validate()


def test_free_refuses_wrong_order_double_free_and_tails():
    machine = Machine("256M")
    pfn = machine.alloc_pages(3)
    compound = machine.alloc_pages(2, Gfp.KERNEL | Gfp.COMP)
    before = machine.fork()
    for call in (
        lambda: machine.free_pages(pfn, 2),
        lambda: machine.free_pages(pfn + 1, 0),
        lambda: machine.free_pages(compound + 3, 0),
        lambda: machine.split_page(compound, 2),
        lambda: machine.free_pages_many(np.array([pfn, pfn], np.uint32), 3),
        lambda: machine.free_pages_many(np.array([pfn, 5], np.uint32), 3),
    ):
        with pytest.raises(BadPageError):
            call()
        assert machine == before
    machine.free_pages(pfn, 3)
    with pytest.raises(BadPageError, match="double free"):
        machine.free_pages(pfn, 3)
    machine.validate()


def test_references_keep_a_block_alive():
    machine = Machine("256M")
    pfn = machine.alloc_pages(3)
    machine.get_page(pfn)
    machine.free_pages(pfn, 3)  # the rest goes, the page that someone holds stays
    assert (machine.page(pfn).kind, machine.page(pfn).order) == ("allocated", 0)
    assert machine.page(pfn + 4).kind == "free"
    machine.put_page(pfn)
    assert machine.page(pfn).kind == "free"
    machine.validate()


def test_memory_runs_out_as_data_and_as_an_exception(machine):
    got = machine.alloc_pages_many(int(machine.state.globals["nr_pages"][0]))
    with pytest.raises(PageAllocFailure, match="order 0"):
        machine.alloc_pages()
    assert machine.nodes[0].kswapd_wanted
    with machine.task(Task.MEMALLOC):
        machine.alloc_pages()  # the reserves are left for those who may
    machine.free_pages_many(got)
    machine.validate()


@pytest.mark.parametrize("seed", range(3))
def test_what_runs_does_not_depend_on_chunks_or_snapshots(machine, seed, tmp_path):
    ops = random_ops(machine, 4000, seed)
    start, whole = machine.fork(), machine
    results = run_in_chunks(whole, ops, [None])
    whole.validate()
    assert (results[0] < 0).any()
    assert (results[0][ops["op"] == Op.ALLOC] == 0).any()
    for chunks in ([1] * 4000, itertools.repeat(7), itertools.repeat(997)):
        other = start.fork()
        again = run_in_chunks(other, ops, chunks)
        assert all(np.array_equal(a, b) for a, b in zip(results, again, strict=True))
        assert other == whole, other.diff(whole)
    # saved in the middle, loaded, carried on
    rc, value = np.zeros(len(ops), np.int64), np.zeros(len(ops), np.uint64)
    pages = np.zeros(len(results[2]) + 100000, np.uint32)
    half = start.fork()
    _, at, used = engine.run(half.state, ops, rc, value, 0, 1500 + seed, pages, 0)
    half.save(tmp_path / "half.npz")
    resumed = Machine.load(tmp_path / "half.npz")
    assert resumed == half
    engine.run(resumed.state, ops, rc, value, at, None, pages, used)
    assert resumed == whole
    assert np.array_equal(value, results[1])
    half.restore(start)
    assert half == start
    assert half != whole


def test_many_calls_are_single_calls(machine):
    one, many = machine.fork(), machine.fork()
    for order, n in ((0, 700), (1, 50), (3, 20), (0, 3000), (9, 3)):
        singles = [one.alloc_pages(order, GFP_KERNEL, cpu=one.nr_cpus - 1) for _ in range(n)]
        bulk = many.alloc_pages_many(n, order, GFP_KERNEL, cpu=one.nr_cpus - 1)
        assert singles == bulk.tolist()
        assert one == many, one.diff(many)
        keep = len(singles) // 3
        for pfn in singles[keep:]:
            one.free_pages(pfn, order)
        many.free_pages_many(bulk[keep:], order)
        assert one == many, one.diff(many)


def test_untouched_blocks_are_only_a_short_form():
    lazy, plain = Machine("3G"), Machine("3G")
    boot.materialize(plain.state)
    assert lazy == plain
    assert lazy.allocator_state() == plain.allocator_state()
    ops = random_ops(lazy, 5000, 5)
    assert all(np.array_equal(a, b) for a, b in zip(run_in_chunks(lazy, ops, [None]), run_in_chunks(plain, ops, [None]), strict=True))
    assert lazy == plain


@pytest.mark.parametrize("seed", range(4))
def test_random_bytes_as_ops_do_no_harm(machine, seed):
    rng = np.random.default_rng(seed)
    ops = np.frombuffer(rng.bytes(OP_DTYPE.itemsize * 3000), OP_DTYPE).copy()
    ops["op"] %= 13
    ops["a"][ops["op"] == Op.ALLOC_BULK] %= 50
    ops["a"][rng.random(3000) < 0.5] %= 16
    ops["b"][rng.random(3000) < 0.7] &= 0x1FFFFFF
    ops["b"][(ops["op"] == Op.FREE) & (rng.random(3000) < 0.8)] %= 11
    ops["a"][(ops["flags"] & 128) != 0] %= 1 << 19
    run_in_chunks(machine, ops, itertools.repeat(500))
    machine.validate()


def test_damaged_files_are_refused(tmp_path):
    machine = Machine("64M")
    machine.alloc_pages_many(100)
    path, bad = tmp_path / "m.npz", tmp_path / "bad.npz"
    machine.save(path)
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    for cut in (0, 1, 100, len(data) // 2, len(data) - 1):
        bad.write_bytes(data[:cut])
        with pytest.raises(SnapshotFormatError):
            Machine.load(bad)
    for _ in range(300):
        changed = bytearray(data)
        for at in rng.integers(0, len(data), rng.integers(1, 4)):
            changed[at] ^= 1 << rng.integers(8)
        bad.write_bytes(changed)
        try:
            loaded = Machine.load(bad)
        except SnapshotFormatError:
            continue
        loaded.validate()  # a bit that no one reads
        assert loaded == machine


def test_a_callback_that_raises_leaves_a_valid_machine():
    machine = Machine("512M")
    ops = random_ops(machine, 20000, 1)

    def stop(done, total):
        if done > 5000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        machine.run(ops, on_chunk=stop, chunk=1000)
    machine.validate()


def test_threads_share_a_machine_and_have_their_own():
    shared = Machine("1G", cpus=4)
    own = [Machine("512M") for _ in range(2)]
    reference = Machine("512M")
    ops = random_ops(reference, 60000, 3)
    run_in_chunks(reference, ops, [None])
    failures = []

    def work(i):
        try:
            run_in_chunks(own[i % 2], ops, [None]) if i < 2 else None
            for _ in range(200):
                pages = shared.alloc_pages_many(64, cpu=i)
                single = shared.alloc_pages(cpu=i)
                shared.free_pages_many(pages, cpu=i)
                shared.free_pages(single, cpu=i)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failures
    assert shared.validate()["allocated"] == 0
    assert own[0] == own[1] == reference


def test_gfp_text_is_the_kernels():
    assert gfp_text(0x140DCA) == "GFP_HIGHUSER_MOVABLE|__GFP_COMP|__GFP_ZERO"
    for mask in (0, 0x820, 0x52CC0, 0x1C24CA, 0x2800, 0x400DC0):
        assert parse_gfp(gfp_text(mask)) == mask


def test_diff_names_what_differs():
    a = Machine("256M")
    b = a.fork()
    assert a == b
    assert not a.diff(b)
    b.sysctl["vm.min_free_kbytes"] = 9999
    b.alloc_pages(4)
    text = "\n".join(a.diff(b))
    for name in ("sysctl vm.min_free_kbytes", "nr_free", "wmark"):
        assert name in text


# ------------------------------------------------------------ what once crashed, hung or left a half changed machine


def one_op(op, **fields):
    ops = np.zeros(1, OP_DTYPE)
    ops["op"] = int(op)
    for name, value in fields.items():
        ops[name] = value
    return ops


@pytest.mark.parametrize("rc, value", [(5, 10**15), (5, 2**64 - 1), (2**62, 3), (1, 8)])
def test_results_that_the_caller_changed_lead_nowhere(rc, value):
    machine = Machine("64M")
    for made in (Op.ALLOC, Op.ALLOC_BULK):
        for then in (Op.FREE, Op.SPLIT):
            ops = np.concatenate([one_op(made, a=200), one_op(then, ref=0, a=1)])
            rcs, values = np.array([rc, 0], np.int64), np.array([value, 0], np.uint64)
            engine.run(machine.state, ops, rcs, values, 1, None, np.zeros(8, np.uint32), 8)
            assert rcs[1] < 0
    machine.validate()


def test_time_does_not_overflow():
    machine = Machine("64M")
    ops = np.repeat(one_op(Op.ADVANCE, a=2**53 - 1), 1100)
    rc = machine.run(ops)[0]
    assert rc[0] == 0 > rc[-1]
    machine.validate()


def test_what_boot_kept_is_not_freed_by_name():
    machine = Machine("64M")
    reserved = next(p for p in range(1, 0x9F) if machine.page(p).kind == "reserved" and machine.page(p).zone)
    before = machine.fork()
    assert machine.run(one_op(Op.FREE, flags=128, a=reserved))[0][0] < 0
    assert machine == before
    # a loaded state does not list what is in use: that much can come back, and no more
    used = machine.alloc_pages_many(100)
    old = Machine.from_state(machine.allocator_state())
    for pfn in used.tolist():
        assert old.run(one_op(Op.FREE, flags=128, a=pfn))[0][0] == 0
    assert old.run(one_op(Op.FREE, flags=128, a=reserved))[0][0] < 0
    assert old.validate()["other"] == 0


@pytest.mark.parametrize(
    "state",
    [None, {}, [], {"blocks": {}, "zones": []}, {"blocks": 5, "zones": {}}, {"blocks": {}, "zones": {(0, 0): {"present": 1}}},
     {"blocks": {}, "zones": {(0, 0): np.uint64(7)}}],
)  # fmt: skip
def test_states_of_another_form_change_nothing(state):
    machine = Machine("64M")
    before = machine.fork()
    with pytest.raises(ValueError, match="state"):
        machine.load_allocator_state(state)
    assert machine.state.same_bytes(before.state)
    with pytest.raises(ValueError, match="state"):
        Machine.from_state(state)


def test_states_with_absurd_figures_are_refused():
    for field, value in (("pcp", 5), ("pcp", {10**9: {}}), ("pcp", {2**64: {}}), ("free", None), ("start_pfn", "x"), ("present", [])):
        state = Machine("64M").allocator_state()
        state["zones"][0, 1][field] = value
        with pytest.raises(ValueError, match="state"):
            Machine.from_state(state)


def test_a_state_without_arrays_cannot_be_made():
    for sizes in ({}, {"nr_nodes": 0}, {"nr_cpus": 0}, {"nr_zone_types": 200}, {"nr_lazy": -1}):
        kw = {"nr_pages": 1024, "nr_nodes": 1, "nr_zone_types": 4, "nr_cpus": 1, "nr_lazy": 1, "nr_present": 1, **sizes} if sizes else {}
        with pytest.raises(ValueError, match="shape"):
            State.__new__(State, **kw)
    bare = State(nr_pages=1024, nr_nodes=1, nr_zone_types=4, nr_cpus=1, nr_lazy=1, nr_present=1)
    with pytest.raises(PageAllocFailure):
        page_alloc.alloc_pages(bare, int(GFP_KERNEL))


@pytest.mark.parametrize("where", [(99, 0, 5), (0, 10, 5), (0, 0, 2**31), (0, 0x900, 0xA00), (1, 0x3000, 0x3400)])
def test_late_pages_are_pages_that_boot_kept(where):
    machine = Machine("64M")
    machine.alloc_pages_many(5000)
    before = machine.fork()
    with pytest.raises(ValueError, match="late page"):
        boot.late_free(machine.state, *where)
    assert machine == before


def test_a_finalizer_inside_the_machine_does_not_wait_for_itself():
    machine = Machine("64M")
    seen = []

    class Owner:
        def __init__(self):
            self.me, self.pfn = self, machine.alloc_pages()

        def __del__(self):
            try:
                machine.free_pages(self.pfn)
            except RuntimeError as error:
                seen.append(error)

    before = gc.get_threshold()
    gc.set_threshold(1)
    try:
        for _ in range(50):
            Owner()
            machine.validate()
            machine.fork()
    finally:
        gc.set_threshold(*before)
    assert all("inside" in str(error) for error in seen)
    machine.validate()


def test_a_tracer_serves_one_run_at_a_time():
    tracer, machines, failures = Tracer(), [Machine("64M") for _ in range(3)], []
    ops = random_ops(machines[0], 20000, 1)

    def work(machine):
        for _ in range(20):
            try:
                machine.run(ops, tracer=tracer)
                tracer.take()
            except RuntimeError as error:
                failures.append(str(error))

    threads = [threading.Thread(target=work, args=(m,)) for m in machines]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert all("in use" in text for text in failures)
    for machine in machines:
        machine.validate()


def test_whole_states_change_hands_while_threads_run():
    a, b = Machine("64M"), Machine("64M")
    ops, state, failures = random_ops(a, 5000, 2), a.allocator_state(), []
    calls = [
        lambda: a.run(ops), lambda: b.run(ops), lambda: a.restore(b), lambda: b.restore(a), lambda: b.load_allocator_state(state),
        lambda: a.fork().validate(), a.allocator_state, a.proc.buddyinfo,
    ]  # fmt: skip

    def work(i):
        try:
            for j in range(60):
                calls[(i + j * 3) % len(calls)]()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failures
    a.validate()
    b.validate()


def test_restore_takes_the_same_kind_of_machine_only():
    machine, other = Machine("64M"), Machine("64M", kernel="6.1")
    before = machine.fork()
    with pytest.raises(ValueError, match=r"6\.1"):
        machine.restore(other)
    assert machine == before


def test_copies_are_forks():
    machine = Machine("64M")
    for twin in (copy.copy(machine), copy.deepcopy(machine)):
        assert twin == machine
        twin.alloc_pages()
        assert twin != machine


@pytest.mark.parametrize("call", [lambda m: m.kswapd_begin(0.5), lambda m: m.kswapd_end(False), lambda m: m.vmstat_tick("0"),
                                  lambda m: Machine.from_memory_map(MemoryMap([(1, 9000, 0)]), cpus=[0.5])])  # fmt: skip
def test_fractions_are_no_numbers_of_things(call):
    with pytest.raises(TypeError, match="integer"):
        call(Machine("64M"))


def test_a_map_with_absurdly_many_cpus_is_refused():
    with pytest.raises(ValueError, match="cpus"):
        Machine.from_memory_map(MemoryMap([(1, 9000, 0)]), cpus=10**13)


def resave(path, change):
    """A saved machine with another header, its checksums being right."""
    with np.load(path) as archive:
        members = dict(archive)
    header = json.loads(bytes(members["header"]))
    change(header)
    members["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    out = io.BytesIO()
    np.savez(out, **members)
    path.write_bytes(out.getvalue())


@pytest.mark.parametrize(
    "change",
    [lambda h: h["extra"].update(stored_sysctl={"vm.dirty_ratio": float("inf")}),
     lambda h: h["extra"].update(stored_sysctl={"vm.dirty_ratio": 10**30}),
     lambda h: h["extra"].update(stored_sysctl={"vm.unknown": 1}),
     lambda h: h["extra"].update(stored_sysctl=[]),
     lambda h: h["config"].update(kernel="6.1"),
     lambda h: h.update(arrays=[])],
)  # fmt: skip
def test_a_header_that_lies_is_refused(tmp_path, change):
    path = tmp_path / "m.npz"
    Machine("64M").save(path)
    resave(path, change)
    with pytest.raises(SnapshotFormatError):
        Machine.load(path)


def test_an_archive_whose_inner_headers_are_cut_is_refused(tmp_path):
    path = tmp_path / "m.npz"
    Machine("64M").save(path)
    with np.load(path) as archive:
        members = dict(archive)
    out = io.BytesIO()
    np.savez(out, **members)
    path.write_bytes(out.getvalue().replace(b"'shape': (", b"'shape':(((", 1))
    with pytest.raises(SnapshotFormatError):
        Machine.load(path)


class TestTlbAndPagingOfOtherWays:
    """from_plan, from_memory_map, from_state and from_proc take tlb= and paging= as Machine() does."""

    def ways(self, **options):
        source = Machine("64M")
        memory = MemoryMap([(1, 100, 0), (256, 16384, 0)])
        yield Machine.from_memory_map(memory, **options)
        yield Machine.from_state(source.allocator_state(), **options)
        yield Machine.from_proc(zoneinfo=source.proc.zoneinfo(), buddyinfo=source.proc.buddyinfo(), **options)

    def test_are_taken(self):
        for m in self.ways(tlb="zen", paging="5level"):
            assert m.tlb.kind == "sets"
            assert int(m.state.vm_globals["pt_levels"][0]) == 5
            p = m.spawn()
            p.touch([p.mmap(4096)], write=True)
            assert m.tlb.misses == 1
            m.validate()

    @pytest.mark.parametrize("options", [{"tlb": "none"}, {"tlb": 3}, {"paging": "pae"}])
    def test_are_refused_by_name(self, options):
        with pytest.raises(ValueError, match=f"{next(iter(options))} is {next(iter(options.values()))!r}"):
            next(iter(self.ways(**options)))
