"""TLBs: the worked cases of the specification (16), and random sequences on the core and its twin."""

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reference.tlb import CLEAN, EVERYTHING, GLOBAL, L1, L2, MISS, TwinTlb

tlb = pytest.importorskip("mmcore.vm.tlb_config", reason="the core is not built")
TlbModel = pytest.importorskip("mmcore.vm.tlb_model", reason="the core is not built").TlbModel

HUGE, GIANT = 21, 30
TINY = {
    "kind": "sets",
    "walk_entries": 2,
    "max_mms": 16,
    "parts": [
        {"level": 1, "pages": ["4K"], "entries": 4, "ways": 2},
        {"level": 1, "pages": ["2M", "1G"], "entries": 2, "ways": 2},
        {"level": 2, "pages": ["4K", "2M"], "entries": 9, "ways": 3, "pieces": True},
    ],
}
TINY_UNIFIED = TINY | {
    "parts": [
        {"level": 2, "pages": ["4K", "2M"], "entries": 8, "ways": 4, "pieces": True},
        {"level": 2, "pages": ["1G"], "entries": 1, "ways": 1},
        {"level": 1, "pages": ["4K", "2M", "1G"], "entries": 3, "ways": 3},
    ]
}
CONFIGS = {
    "tiny": TINY,
    "unified": TINY_UNIFIED,
    "one id": TINY | {"asids": 1, "walk_entries": 0},
    "two ids, five levels": TINY_UNIFIED | {"asids": 2, "pt_levels": 5},
    "i386": TINY | {"pt_levels": 2, "pt_bits": 10, "parts": [TINY["parts"][0], {"level": 1, "pages": ["2M"], "entries": 2, "ways": 2}]},
    "zen": tlb.PRESETS["zen"] | {"max_mms": 16},
    "skylake": tlb.PRESETS["skylake"] | {"max_mms": 16},
    "unbounded": tlb.PRESETS["unbounded"] | {"max_mms": 16},
    "unbounded with walk caches": {"kind": "unbounded", "walk_entries": 3, "max_mms": 16, "capacity": 2000},
    "off": {"kind": "off", "max_mms": 16},
}


def filled(model, *vpns: int, mm: int = 1, cpu: int = 0, **options) -> None:
    """Misses, and fills."""
    for vpn in vpns:
        assert model.lookup(cpu, mm, vpn) == MISS
        model.fill(cpu, mm, vpn, **options)


def flushes(model, cpu: int | None = None) -> tuple[int, int, int, int]:
    """Local single, local full, remote sent, remote received."""
    stats = model.stats(cpu)
    return tuple(stats[f"nr_tlb_{name}"] for name in ("local_flush_one", "local_flush_all", "remote_flush", "remote_flush_received"))


# hits, sets, sizes


def test_records_are_as_wide_as_the_structs():
    for name, size in tlb.struct_sizes().items():
        assert getattr(tlb, name).itemsize == size


@pytest.mark.parametrize("name", ["zen", "skylake", "unbounded"])
@pytest.mark.parametrize("shift", [12, HUGE, GIANT])
def test_a_page_hits_once_it_was_walked(name, shift):
    model, pages = TlbModel(name), 1 << shift - 12
    filled(model, 5 * pages, page_shift=shift)
    assert model.lookup(0, 1, 5 * pages) == L1
    inside = model.lookup(0, 1, 6 * pages - 1)
    assert inside == L1
    assert model.lookup(0, 1, 6 * pages) == MISS == model.lookup(0, 2, 5 * pages)
    stats = model.stats()
    assert (stats["l1_hits"], stats["misses_4k"] + stats["misses_2m"] + stats["misses_1g"]) == (2, 1)
    assert stats["misses_" + {12: "4k", HUGE: "2m", GIANT: "1g"}[shift]] == 1


def test_off_knows_nothing():
    model = TlbModel("off")
    filled(model, 7)
    assert model.lookup(0, 1, 7) == MISS
    assert not any(model.stats().values())
    assert model.access_many(0, 1, np.arange(9, dtype=np.uint64)).tolist() == [MISS] * 9


def test_a_full_set_loses_what_was_not_used_for_longest():
    # Skylake: 16 sets of 4 in L1, 128 sets of 12 in L2
    model = TlbModel("skylake")
    filled(model, *(16 * i for i in range(4)))
    assert model.lookup(0, 1, 0) == L1  # now the second is the oldest
    filled(model, 64)
    assert [model.lookup(0, 1, 16 * i) for i in (0, 2, 3, 4)] == [L1] * 4
    assert model.lookup(0, 1, 16) == L2  # which brings it back, at the cost of the one used before all others
    assert model.lookup(0, 1, 16) == L1
    assert model.lookup(0, 1, 0) == L2
    model = TlbModel("skylake")
    filled(model, *(128 * i for i in range(13)))
    assert model.lookup(0, 1, 0) == MISS
    assert model.lookup(0, 1, 128) == L2


def test_zen_reaches_2040_small_pages():
    model = TlbModel("zen")
    vpns = np.arange(2040, dtype=np.uint64)
    assert not model.access_many(0, 1, vpns).any()
    codes = model.access_many(0, 1, vpns)
    assert (codes == L2).all()
    assert (model.access_many(0, 1, vpns[-64:]) == L1).all()
    assert [entry[2] for entry in model.entries(0)[0][0]] == list(range(2040 - 64, 2040))
    # one more in each set makes a cyclic sweep miss for ever
    vpns = np.arange(170 * 13, dtype=np.uint64)
    model = TlbModel("zen")
    for _ in range(3):
        assert not model.access_many(0, 1, vpns).any()


def test_zen_holds_a_giant_page_in_l2_as_2m_pieces():
    model, giant = TlbModel("zen"), 1 << 18
    filled(model, 3 * giant + 512 * 5, page_shift=GIANT)
    first, second = model.entries(0)
    assert first[0] == [(0, 2, 3, 3)]
    assert list(second.values()) == [[(0, 1, 3 * 512 + 5, 7)]]
    assert model.lookup(0, 1, 3 * giant + 512 * 400) == L1  # the whole page is in L1
    filled(model, *range(64))
    assert model.lookup(0, 1, 3 * giant + 512 * 400) == MISS  # the piece that L2 has is another one
    assert model.lookup(0, 1, 3 * giant + 512 * 5 + 511) == L2
    assert model.lookup(0, 1, 3 * giant + 512 * 5) == L1
    # to invalidate any of its addresses is to invalidate all of it
    filled(model, 3 * giant + 512 * 6, page_shift=GIANT)
    model.flush_range(0, 1, 3 << GIANT, 4 << GIANT, GIANT)
    assert flushes(model) == (1, 0, 0, 0)
    assert model.lookup(0, 1, 3 * giant + 512 * 5) == model.lookup(0, 1, 3 * giant + 512 * 6) == MISS
    assert model.lookup(0, 1, 63) == L1


@pytest.mark.parametrize("name", ["zen", "skylake", "unbounded"])
def test_a_write_walks_again_until_the_entry_is_dirty(name):
    model = TlbModel(name)
    filled(model, 1, dirty=False)
    assert model.lookup(0, 1, 1) == L1
    assert model.lookup(0, 1, 1, True) == CLEAN
    model.fill(0, 1, 1, dirty=True)
    assert model.lookup(0, 1, 1, True) == L1
    filled(model, 2, writable=False, dirty=True)
    assert model.lookup(0, 1, 2, True) == CLEAN
    stats = model.stats()
    assert (stats["rewalks"], stats["misses_4k"], stats["l1_hits"]) == (2, 2, 2)


# walks


@pytest.mark.parametrize("levels", [4, 5])
def test_walks_without_and_with_caches(levels):
    bare = TlbModel("zen", walk_entries=0, pt_levels=levels)
    cached = TlbModel("zen", pt_levels=levels)
    top = int(levels == 5)  # the entry above is known from the first walk on
    for model in (bare, cached):
        assert model.fill(0, 1, 0) == levels
        assert model.fill(0, 1, 1 << 27, HUGE) == levels - 1 - top * (model is cached)
        assert model.fill(0, 1, 2 << 27, GIANT) == levels - 2 - top * (model is cached)
    assert [bare.fill(0, 1, vpn) for vpn in (1, 512, 1 << 18, 5 << 27)] == [levels] * 4
    # the same table, its neighbour, the next of the next level, and so on up
    assert [cached.fill(0, 1, vpn) for vpn in (1, 512, 1 << 18)] == [1, 2, 3]
    assert cached.fill(0, 1, 5 << 27) == 4
    assert cached.fill(0, 1, (1 << 27) + 512, HUGE) == 1
    assert cached.fill(0, 1, (2 << 27) + (1 << 18), GIANT) == 1
    assert cached.stats()["walk_steps"] > 0 == bare.stats()["walk_cache_hits"]


def test_i386_walks_have_two_levels():
    model = TlbModel("skylake", pt_levels=2, pt_bits=10)
    assert [model.fill(0, 1, 0), model.fill(0, 1, 1023), model.fill(0, 1, 1024), model.fill(0, 1, 5000, 22)] == [2, 1, 2, 1]


def test_walk_caches_forget_the_oldest():
    model = TlbModel("zen", walk_entries=16)
    for i in range(16):
        model.fill(0, 1, 512 * i)
    assert model.fill(0, 1, 1) == 1
    assert model.fill(0, 1, 512 * 16) == 2  # takes the place of the second
    assert [model.fill(0, 1, 2), model.fill(0, 1, 512 * 2 + 1), model.fill(0, 1, 513)] == [1, 1, 2]


def test_a_single_invalidation_empties_the_walk_caches_of_its_id():
    model = TlbModel("zen")
    for mm in (1, 2):
        model.fill(0, mm, 0)
    model.switch_mm(0, 1)
    model.flush_range(0, 1, 0, 4096)
    assert model.fill(0, 1, 1) == 4
    assert model.fill(0, 2, 1) == 1


# flush rules


@pytest.mark.parametrize("name", ["zen", "skylake", "unbounded"])
@pytest.mark.parametrize("shift", [12, HUGE])
def test_33_pages_are_flushed_singly_and_34_at_once(name, shift):
    model, pages = TlbModel(name), 1 << shift - 12
    filled(model, *range(0, 40 * pages, pages), page_shift=shift)
    model.flush_range(0, 1, 2 << shift, 35 << shift, shift)
    assert flushes(model) == (33, 0, 0, 0)
    assert [i for i in range(40) if model.lookup(0, 1, i * pages)] == [0, 1, 35, 36, 37, 38, 39]
    model.flush_range(0, 1, 0, 34 << shift, shift)
    assert flushes(model) == (33, 1, 0, 0)
    assert not any(model.lookup(0, 1, i * pages) for i in range(40))


def test_the_rules_of_flushes_hold_with_the_model_off():
    model = TlbModel("off", 2)
    for cpu in (0, 1):
        model.switch_mm(cpu, 1)
    assert model.flush_range(0, 1, 0, 33 << 12) == 1
    assert model.flush_range(0, 1, 0, 34 << 12) == 1
    assert (flushes(model, 0), flushes(model, 1)) == ((33, 1, 2, 0), (0, 0, 0, 2))


def test_an_address_space_that_is_not_loaded_is_flushed_when_it_comes_back():
    model = TlbModel("zen", 2)
    filled(model, 1, 2)
    filled(model, 1, mm=2)
    assert model.flush_range(1, 1, 4096, 8192) == 0
    assert flushes(model) == (0, 0, 0, 0)
    assert model.switch_mm(0, 1)
    assert model.lookup(0, 1, 1) == model.lookup(0, 1, 2) == MISS
    assert model.lookup(0, 2, 1) == L1


def test_shootdowns_skip_lazy_cpus_unless_tables_were_freed():
    model = TlbModel("zen", 4)
    for cpu in (0, 1, 2):
        filled(model, 1, 2, cpu=cpu)
    model.switch_mm(3, 9)
    model.enter_lazy(2)
    assert model.flush_range(0, 1, 4096, 8192) == 1
    assert [flushes(model, cpu) for cpu in range(4)] == [(1, 0, 1, 0), (0, 0, 0, 1), (0, 0, 0, 0), (0, 0, 0, 0)]
    assert model.lookup(1, 1, 1) == MISS
    assert model.lookup(1, 1, 2) == L1
    assert model.switch_mm(2, 1)  # missed a flush: now it flushes all
    assert model.lookup(2, 1, 2) == MISS
    model.enter_lazy(2)
    assert not model.switch_mm(2, 1)  # missed none
    model.enter_lazy(2)
    assert model.flush_mm(0, 1) == 2
    assert model.flush_range(0, 1, 0, 4096, 12, True) == 1  # the lazy one has left the address space


def test_a_lazy_cpu_alone_counts_as_a_remote_flush_without_ipi():
    model = TlbModel("zen", 2)
    for cpu in (0, 1):
        model.switch_mm(cpu, 1)
    model.enter_lazy(1)
    assert model.flush_range(0, 1, 0, 4096) == 0
    assert flushes(model) == (1, 0, 1, 0)


def test_a_mask_names_the_cpus():
    model = TlbModel("zen", 70)
    for cpu in (0, 1, 69):
        filled(model, 1, cpu=cpu)
    assert model.flush_range(0, 1, 4096, 8192, cpus=[0, 5, 69]) == 2
    assert flushes(model, 5) == flushes(model, 69) == (0, 0, 0, 1)
    assert [model.lookup(cpu, 1, 1) for cpu in (0, 1, 69)] == [MISS, L1, MISS]


def test_reclaim_flushes_once_for_many_pages():
    model = TlbModel("unbounded", 2)
    filled(model, *range(50))
    filled(model, *range(50), cpu=1)
    for _ in range(40):
        model.batch_add(1)
    assert model.batch_flush(0) == 1
    assert flushes(model) == (0, 1, 1, 1)
    assert not any(model.lookup(cpu, 1, vpn) for cpu in (0, 1) for vpn in range(50))
    assert model.batch_flush(0) == 0
    assert flushes(model) == (0, 1, 1, 1)


@pytest.mark.parametrize("name", ["zen", "unbounded"])
def test_kernel_translations_are_global(name):
    model, text = TlbModel(name, 2), 0xFFFFFFFF81000
    for cpu in (0, 1):
        filled(model, text, text + 1, mm=0, cpu=cpu)
        filled(model, 1, cpu=cpu)
    model.switch_mm(0, 2)
    assert model.lookup(0, 0, text) == L1
    model.flush_mm(0, 2)
    assert model.lookup(0, 0, text) == L1
    model.flush_kernel_range(1, text << 12, (text << 12) + 4096)
    for cpu in (0, 1):
        assert (model.lookup(cpu, 0, text), model.lookup(cpu, 0, text + 1), model.lookup(cpu, 1, 1)) == (MISS, L1, L1)
    assert flushes(model, 1) == (1, 0, 0, 0)
    model.flush_kernel_range(1, text << 12, (text + 33) << 12)
    assert flushes(model, 1) == (34, 0, 0, 0)
    model.flush_kernel_range(1, text << 12, (text + 34) << 12)
    for cpu in (0, 1):
        assert (model.lookup(cpu, 0, text + 1), model.lookup(cpu, 1, 1)) == (MISS, MISS)
    assert flushes(model, 1) == (34, 1, 0, 0)
    model.flush_all(0)
    assert (flushes(model, 0), flushes(model, 1)) == ((34, 3, 1, 0), (34, 2, 0, 0))


# address-space ids


@pytest.mark.parametrize("name", ["zen", "unbounded"])
def test_the_seventh_address_space_takes_the_first_id(name):
    model = TlbModel(name)
    for mm in range(1, 7):
        assert model.switch_mm(0, mm)
        filled(model, 1, mm=mm)
    assert [model.switch_mm(0, mm) for mm in range(1, 7)] == [False] * 6
    assert all(model.lookup(0, mm, 1) == L1 for mm in range(1, 7))
    assert model.switch_mm(0, 7)
    filled(model, 1, mm=7)
    assert model.cpus[0]["slot_mm"][:6].tolist() == [7, 2, 3, 4, 5, 6]
    assert not model.switch_mm(0, 2)
    assert model.switch_mm(0, 1)  # takes the id of the second
    assert model.lookup(0, 1, 1) == MISS
    assert model.lookup(0, 3, 1) == L1
    assert model.switch_mm(0, 2)


def test_without_ids_every_switch_flushes():
    model = TlbModel("zen", asids=1)
    filled(model, 1)
    filled(model, 1, mm=2)
    assert model.lookup(0, 1, 1) == MISS
    model.fill(0, 1, 1)
    assert not model.switch_mm(0, 0)
    assert model.switch_mm(0, 1)
    assert model.stats()["switch_flushes"] == 4


def test_a_dead_address_space_leaves_nothing_to_the_next_of_its_number():
    model = TlbModel("zen", 2)
    for cpu in (0, 1):
        filled(model, 1, cpu=cpu)
    model.switch_mm(1, 2)
    model.drop_mm(1)
    assert [model.lookup(cpu, 1, 1) for cpu in (0, 1)] == [MISS, MISS]
    assert model.entries(0) == [{}, {}]


# memory of all flushes


def test_generations_come_round_without_old_entries():
    model = TlbModel(TINY)
    filled(model, 1, mm=2)
    filled(model, 1, mm=0)
    for i in range(40000):
        if i % 16383 in (0, 1, 16382):
            filled(model, 1)
            assert model.lookup(0, 1, 1) == L1
        model.flush_mm(0, 1)
        if i % 1000 == 0:
            assert model.lookup(0, 1, 1) == MISS
    assert model.lookup(0, 2, 1) == L2
    assert model.lookup(0, 0, 1) == L1
    assert model.fill(0, 0, 2) == 1


def test_an_unbounded_tlb_remembers_everything():
    model = TlbModel("unbounded", 2)
    rng = np.random.default_rng(1)
    vpns = rng.choice(1 << 34, 200_000, replace=False).astype(np.uint64)
    assert not model.access_many(0, 1, vpns).any()
    assert (model.access_many(0, 1, vpns[::-1].copy()) == L1).all()
    assert not model.access_many(1, 1, vpns[:100]).any()
    assert (int(model.table["rebuilds"][0]), int(model.table["overflows"][0])) == (11, 0)
    model.flush_mm(0, 1)
    assert not model.access_many(0, 1, vpns[:100]).any()
    assert not model.arrays()["blocks"]["space"][: 1 << int(model.table["log"][0])].any()


def test_flushed_blocks_do_not_fill_the_table():
    model = TlbModel("unbounded")
    vpns = np.arange(0, 64 * 300, 16, dtype=np.uint64)
    for _ in range(50):
        assert not model.access_many(0, 1, vpns).any()
        assert (model.access_many(0, 1, vpns) == L1).all()
        model.flush_mm(0, 1)
    assert int(model.table["log"][0]) <= 11


def test_an_unbounded_tlb_that_is_full_forgets():
    model = TlbModel("unbounded", capacity=96)
    vpns = np.arange(0, 64 * 96, 64, dtype=np.uint64)
    for _ in range(2):
        model.access_many(0, 1, vpns)
    assert int(model.table["overflows"][0]) == 0
    model.access_many(0, 1, np.arange(0, 64 * 1000, 64, dtype=np.uint64))
    assert int(model.table["overflows"][0]) > 0
    assert len(model.entries(0)[0][0]) <= 128


# bad arguments, copies


@pytest.mark.parametrize(
    "call, error, text",
    [
        (lambda m: m.lookup(2, 1, 1), ValueError, "cpu is 2"),
        (lambda m: m.lookup(0, -1, 1), ValueError, "mm is -1"),
        (lambda m: m.lookup(0, 1 << 30, 1), ValueError, "must lie in 0..65536"),
        (lambda m: m.lookup(0, 1, 1 << 52), ValueError, "vpn is"),
        (lambda m: m.lookup(0, 1, 1.0), TypeError, "vpn"),
        (lambda m: m.fill(0, 1, 1, 13), ValueError, "page_shift is 13; it must be one of 12, 21, 30"),
        (lambda m: m.flush_range(0, 1, 8192, 4096), ValueError, "start is 0x2000"),
        (lambda m: m.flush_range(0, 1, 0, 1 << 64), ValueError, "end is"),
        (lambda m: m.flush_range(0, 0, 0, 4096), ValueError, "mm is 0"),
        (lambda m: m.flush_range(0, 1, 0, 4096, 11), ValueError, "stride_shift is 11"),
        (lambda m: m.flush_range(0, 1, 0, 4096, cpus=[2]), ValueError, "cpu is 2"),
        (lambda m: m.flush_kernel_range(0, 1, 0), ValueError, "start"),
        (lambda m: m.drop_mm(0), ValueError, "mm is 0"),
        (lambda m: m.access_many(0, 1, np.arange(3)), TypeError, "vpns must be"),
        (lambda m: m.access_many(0, 1, np.array([1 << 52], np.uint64)), ValueError, "vpns holds"),
        (lambda m: m.access_many(0, 1, np.zeros(3, np.uint64), np.zeros(2, bool)), ValueError, "2 elements for 3"),
        (lambda m: m.stats(7), ValueError, "cpu is 7"),
    ],
)
def test_bad_arguments_change_nothing(call, error, text):
    model = TlbModel("zen", 2)
    filled(model, 1)
    before = model.copy()
    with pytest.raises(error, match=text):
        call(model)
    assert model.same_bytes(before)


@pytest.mark.parametrize(
    "config, options, text",
    [
        ("pentium", {}, "no TLB 'pentium'"),
        ("zen", {"asids": 7}, "asids is 7; it must lie in 1..6"),
        ("zen", {"wais": 7}, "no wais"),
        ("zen", {"nr_cpus": 0}, "nr_cpus is 0"),
        ("zen", {"pt_levels": 6}, "pt_levels is 6"),
        ({"kind": "sets"}, {}, "needs parts"),
        ({"kind": "other"}, {}, "kind is 'other'"),
        ({"parts": [{"level": 1, "pages": ["4K"], "entries": 8, "ways": 9}]}, {}, "ways is 9"),
        ({"parts": [{"level": 1, "pages": ["8K"], "entries": 8, "ways": 8}]}, {}, "8K"),
        ({"parts": [{"level": 1, "pages": ["4K"], "entries": 8}]}, {}, "must be a dict of"),
        ({"parts": [{"level": 1, "pages": ["4K"], "entries": 8, "ways": 8, "pieces": True}]}, {}, "pieces"),
        ({"parts": [{"level": 1, "pages": ["4K"], "entries": 8, "ways": 8}] * 9}, {}, "9 parts"),
        ("unbounded", {"capacity": 0}, "capacity is 0"),
        ("zen", {"nr_cpus": 8192, "parts": [{"level": 1, "pages": ["4K"], "entries": 1 << 20, "ways": 8}]}, "too many"),
    ],
)
def test_bad_configurations_are_refused(config, options, text):
    with pytest.raises(ValueError, match=text):
        TlbModel(config, **options)


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_a_copy_goes_its_own_way(name):
    model = TlbModel(CONFIGS[name], 2)
    vpns = np.random.default_rng(3).integers(0, 100_000, 5000).astype(np.uint64)
    model.access_many(0, 1, vpns)
    saved = {key: a.copy() for key, a in model.arrays().items()}
    other, third = model.copy(), TlbModel.from_arrays(saved)
    assert model.same_bytes(other)
    assert model.same_bytes(third)
    results = [m.access_many(1, 2, vpns[::-1].copy(), dirty=False).tolist() for m in (model, other)]
    assert results[0] == results[1]
    assert model.same_bytes(other)
    assert not model.same_bytes(third) or name == "off"


def broken(**changes):
    """Arrays of a small model with one value changed."""
    model = TlbModel("unbounded" if changes.get("unbounded") else TINY, 2)
    model.access_many(0, 1, np.arange(1000, dtype=np.uint64) * np.uint64(64))
    arrays = {name: a.copy() for name, a in model.arrays().items()}
    array, field, value = changes["at"]
    arrays[array][field].flat[0] = value
    return arrays


@pytest.mark.parametrize(
    "at",
    [("config", "nr_cpus", 3), ("config", "entries", 5), ("config", "nr_asids", 9), ("config", "walk_entries", 5000),
     ("parts", "ways", 100), ("parts", "first", 1), ("cpus", "slot", 8), ("cpus", "loaded_mm", 17),
     ("cpus", "slot_mm", 17), ("cpus", "next_asid", 7),
     ("table", "log", 9)],
)  # fmt: skip
def test_impossible_arrays_are_refused(at):
    with pytest.raises(ValueError):
        TlbModel.from_arrays(broken(at=at))


@pytest.mark.parametrize("at", [("table", "log", 7), ("table", "log", 40), ("table", "used", 3), ("config", "max_log", 60)])
def test_impossible_tables_are_refused(at):
    with pytest.raises(ValueError):
        TlbModel.from_arrays(broken(at=at, unbounded=True))
    arrays = broken(at=("table", "log", int(broken(at=("table", "pad", 0), unbounded=True)["table"]["log"][0])), unbounded=True)
    arrays["blocks"]["space"][-1] = 5 << 3
    with pytest.raises(ValueError):
        TlbModel.from_arrays(arrays)


def test_threads_take_turns():
    model = TlbModel("unbounded", 4)
    vpns = np.arange(60_000, dtype=np.uint64)
    threads = [threading.Thread(target=model.access_many, args=(cpu, cpu + 1, vpns)) for cpu in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert model.stats()["misses_4k"] == 240_000
    assert all((model.access_many(cpu, cpu + 1, vpns) == L1).all() for cpu in range(4))


# random sequences


def operations(bits: int, levels: int):
    """One operation: its name and arguments; pages lie close together, so that they meet in sets and under tables."""
    cpus, mms, users = st.integers(0, 2), st.integers(0, 8), st.integers(1, 8)
    sizes = st.sampled_from(range(min(3, levels)))
    vpns = st.builds(
        lambda high, mid, low: high << 2 * bits | mid << bits | low,
        st.sampled_from([0, 1, 5, 1 << bits, 3 << bits]),
        st.sampled_from([0, 1, 2, 3, 511]),
        st.integers(0, 9),
    )
    yes = st.booleans()
    spans = st.sampled_from([0, 1, 2, 5, 33, 34, 1000])
    access = st.tuples(st.just("access"), cpus, mms, vpns, yes, sizes, yes, yes)
    return st.one_of(
        access,
        access,
        access,
        st.tuples(st.just("fill"), cpus, mms, vpns, sizes, yes, yes),
        st.tuples(st.just("walk"), cpus, mms, vpns, sizes),
        st.tuples(st.just("switch_mm"), cpus, mms),
        st.tuples(st.just("enter_lazy"), cpus),
        st.tuples(st.just("flush_range"), cpus, users, vpns, spans, sizes, yes, st.none() | st.lists(cpus)),
        st.tuples(st.just("flush_mm"), cpus, users),
        st.tuples(st.just("batch_add"), users),
        st.tuples(st.just("batch_flush"), cpus, st.none() | st.lists(cpus)),
        st.tuples(st.just("flush_kernel_range"), cpus, vpns, spans),
        st.tuples(st.just("flush_all"), cpus),
        st.tuples(st.just("drop_mm"), users),
    )


def do(model, op: tuple, bits: int):
    """An operation on either side."""
    name, *args = op
    if name == "access":
        cpu, mm, vpn, write, size, writable, dirty = args
        found = model.lookup(cpu, mm, vpn, write)
        return found, model.fill(cpu, mm, vpn, 12 + bits * size, writable, dirty or write) if found in (MISS, CLEAN) else 0
    if name in ("fill", "walk"):
        cpu, mm, vpn, size, *rest = args
        return getattr(model, name)(cpu, mm, vpn, 12 + bits * size, *rest)
    if name == "flush_range":
        cpu, mm, vpn, span, size, freed, cpus = args
        shift = 12 + bits * size
        start = vpn << 12 >> shift << shift
        return model.flush_range(cpu, mm, start, start + (span << shift), shift, freed, cpus)
    if name == "flush_kernel_range":
        cpu, vpn, span = args
        return model.flush_kernel_range(cpu, vpn << 12, EVERYTHING if span == 1000 else vpn + span << 12)
    return getattr(model, name)(*args)


@pytest.mark.parametrize("name", sorted(CONFIGS))
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_core_and_twin_agree(name, data):
    config = tlb.DEFAULTS | CONFIGS[name]
    bits = config["pt_bits"]
    core, twin = TlbModel(config, 3), TwinTlb(config, 3)
    for op in data.draw(st.lists(operations(bits, config["pt_levels"]), max_size=60)):
        assert do(core, op, bits) == do(twin, op, bits), op
        for cpu in range(3):
            assert core.stats(cpu) == twin.stats(cpu), op
    for cpu in range(3):
        assert core.entries(cpu) == twin.entries(cpu)
        assert core.walk_entries(cpu) == twin.walk_entries(cpu)


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_core_and_twin_agree_over_many_accesses(name):
    config = tlb.DEFAULTS | CONFIGS[name]
    core, twin = TlbModel(config, 2), TwinTlb(config, 2)
    rng = np.random.default_rng(7)
    for mm in (1, 2, 0, 1, 3, 1):
        vpns = (rng.zipf(1.2, 500) % 3000).astype(np.uint64)
        writes = rng.random(500) < 0.3
        codes = core.access_many(0, mm, vpns, writes, dirty=False)
        for vpn, write, code in zip(vpns.tolist(), writes.tolist(), codes.tolist(), strict=True):
            assert twin.lookup(0, mm, vpn, write) == code
            if code in (MISS, CLEAN):
                twin.fill(0, mm, vpn, 12, True, write)
    assert core.stats() == twin.stats()
    assert core.entries(0) == twin.entries(0)
    assert GLOBAL == 7
