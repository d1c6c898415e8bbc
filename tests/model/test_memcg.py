"""Memory control groups: the core against its slow twin, in random sequences, and the specification's worked cases."""

import random

import pytest

from mmcore.sys import memcg_calls as calls
from mmcore.sys.recount import validate
from mmpy.machine import Machine
from tests.reference.memcg import Memcgs

NORETRY, NOFAIL, GFP = 0x10000, 0x8000, 0xCC0
SIZES = (592, 592, 200, 4096, 5000, 9000)
PGPGIN, PGPGOUT = 0, 1


class Both:
    """A machine and the twin of its groups, driven together."""

    def __init__(self, seed, cpus=2):
        self.random = random.Random(seed)
        self.machine = Machine("64M", cpus=cpus, max_cgroups=12)
        self.state = self.machine.state
        self.twin = Memcgs(cpus)
        self.ids = {self.twin.root: 0}
        self.pages = []  # (pfn, order, group)
        self.made = 0

    def cpu(self):
        n = self.random.randrange(self.machine.nr_cpus)
        return n, self.twin.cpus[n]

    def online(self):
        return [g for g in self.twin.root.below()[1:] if not g.dying]

    # ---------------------------------------------------------------- steps

    def create(self):
        parent = self.random.choice([self.twin.root, *self.online()])
        self.made += 1
        found = calls.create(self.state, self.ids[parent], f"/{self.made}")
        if found == 0:
            assert len(self.twin.root.below()) - 1 == 12
            return
        assert found > 0
        self.ids[self.twin.create(parent, f"/{self.made}")] = found

    def remove(self):
        group = self.random.choice(self.online())
        assert (calls.remove(self.state, self.ids[group]) == 0) == self.twin.remove(group)

    def charge(self):
        group, (n, cpu) = self.random.choice(self.online()), self.cpu()
        order = self.random.choice((0, 0, 0, 0, 1, 3, 5, 9))
        gfp, how = self.random.choice(
            ((GFP, {}), (GFP, {}), (0, {"block": False}), (GFP | NORETRY, {"give_up": True}), (GFP | NOFAIL, {"force": True}))
        )
        try:
            pfn = self.machine.alloc_pages(order)
        except MemoryError:
            return
        done = calls.charge_page(self.state, pfn, self.ids[group], gfp, n) == 0
        assert done == self.twin.charge_page(group, order, cpu, **how)
        if done:
            self.pages.append((pfn, order, group))
        else:
            self.machine.free_pages(pfn, order)

    def uncharge(self):
        for _ in range(self.random.randrange(1, 40)):
            if not self.pages:
                return
            pfn, order, group = self.pages.pop(self.random.randrange(len(self.pages)))
            calls.uncharge(self.state, pfn)
            self.twin.uncharge_page(group, order)
            self.machine.free_pages(pfn, order)

    def charge_object(self):
        group, (n, cpu), size = self.random.choice(self.online()), self.cpu(), self.random.choice(SIZES)
        assert (calls.charge_bytes(self.state, self.ids[group], size, GFP, n) == 0) == self.twin.charge_object(group, size, cpu)

    def uncharge_object(self):
        group, (n, cpu), size = self.random.choice(self.twin.root.below()[1:]), self.cpu(), self.random.choice(SIZES)
        if group.objects < size:
            with pytest.raises(ValueError, match="bytes of objects"):
                calls.uncharge_bytes(self.state, self.ids[group], size, n)
            return
        calls.uncharge_bytes(self.state, self.ids[group], size, n)
        self.twin.uncharge_object(group, size, cpu)

    def kernel(self):
        group, (n, cpu), pages = self.random.choice(self.online()), self.cpu(), self.random.randrange(1, 9)
        found = calls.charge_kernel(self.state, self.ids[group], pages, GFP, n)
        assert max(found, 0) == self.twin.charge_kernel(group, pages, cpu)

    def kernel_back(self):
        group = self.random.choice(self.twin.root.below()[1:])
        if group.outside:
            n = self.random.randrange(1, group.outside + 1)
            assert calls.charge_kernel(self.state, self.ids[group], -n) == -n
            self.twin.uncharge_kernel(group, n)

    def limit(self):
        group = self.random.choice(self.online())
        which = self.random.choice(("max", "max", "low", "min"))
        pages = self.random.choice((0, 1, 40, 100, 300, 1000, (1 << 51) - 1))
        calls.write(self.state, self.ids[group], which, pages)
        if which == "max":
            self.twin.set_max(group, pages)
        else:
            group.limits[which] = pages

    def read(self):
        group = self.random.choice(self.online())
        calls.flush(self.state, self.ids[group])
        self.twin.read_stat(group)

    def drain(self):
        calls.drain(self.state)
        self.twin.drain_all(self.twin.root)

    def protect(self):
        target = self.random.choice([self.twin.root, *self.online()])
        calls.protection(self.state, self.ids[target], self.ids[target])
        self.twin.protect(target)
        rows = self.state.get("memcgs")
        for g in target.below()[1:]:
            if g.usage:  # an empty group keeps what it was told last, and reclaim tells too
                row = rows[self.ids[g]]
                assert (int(row["emin"]), int(row["elow"])) == (g.emin, g.elow), g.name

    # ---------------------------------------------------------------- the judge

    def compare(self):
        validate(self.state)
        rows, nodes = self.state.get("memcgs"), self.machine.nr_nodes
        everyone = self.twin.root.below()
        assert calls.walk(self.state) == [self.ids[g] for g in everyone]
        for g in everyone:
            row = rows[self.ids[g]]
            assert (int(row["usage"]), int(row["peak"])) == (g.usage, g.peak), g.name
            if g.parent is None:
                continue
            lruvec = self.state.get("lruvecs")[self.ids[g] * nodes]
            assert (int(row["kmem"]), int(row["obj_left"]), int(row["nr_outside"])) == (g.kmem, g.left, g.outside), g.name
            assert int(row["slab_pending"]) + int(lruvec["stat"][5]) == g.objects
            assert (int(row["nr_updates"]), int(row["stats_updates"])) == (g.recent, g.pending), g.name
            assert [int(row["events"][i]) for i in (2, 3)] == [g.events[n] for n in ("max", "oom")]
            assert [int(row["events_local"][i]) for i in (2, 3)] == [g.local[n] for n in ("max", "oom")]
            assert (int(row["kmem_folded"]), *(int(row["vm_folded"][k]) for k in (PGPGIN, PGPGOUT))) == g.folded, g.name
        for n, cpu in enumerate(self.twin.cpus):
            row = self.state.cpus[n]
            assert int(row["stock_nr"]) == cpu.pages
            assert int(row["obj_bytes"]) == cpu.bytes

    STEPS = (
        ["charge"] * 12 + ["charge_object"] * 8 + ["uncharge_object"] * 6 + ["uncharge", "uncharge", "kernel", "kernel_back"]
        + ["limit", "limit"] + ["read", "read", "drain", "protect", "create", "remove"]
    )  # fmt: skip

    def run(self, steps):
        self.create()
        for i in range(steps):
            name = self.random.choice(self.STEPS)
            if name != "create" and not self.online():
                name = "create"
            getattr(self, name)()
            if i % 20 == 0:
                self.compare()
        self.compare()


@pytest.mark.parametrize("seed", range(12))
def test_random_sequences(seed):
    Both(seed, cpus=1 + seed % 3).run(500)


def machine_with(*names, **kw):
    m = Machine("64M", **kw)
    return (m, *(m.memcg(name) for name in names))


def charge(group, n, cpu=0):
    """Charges n single pages; how many the group let in."""
    m = group.machine
    for i in range(n):
        pfn = m.alloc_pages()
        if calls.charge_page(m.state, pfn, group.id, GFP, cpu) < 0:
            m.free_pages(pfn)
            return i
    return n


# ---------------------------------------------------------------- worked cases of the specification


def test_usage_grows_by_batches():
    _, g = machine_with("g")
    charge(g, 1)
    assert g.current == 64 * 4096
    charge(g, 63)
    assert g.current == 64 * 4096
    charge(g, 1)
    assert g.current == 128 * 4096


def test_near_its_limit_a_group_is_charged_page_by_page():
    _, g = machine_with("g")
    g.max = 100 * 4096
    assert charge(g, 200) == 100
    assert g.current == g.peak == 100 * 4096
    assert g.events["max"] == 18  # once before the stocks are drained, once behind it, sixteen retries
    assert g.events["oom"] == 1


def test_stocks_of_other_cpus_are_drained_at_the_first_failure():
    _, g = machine_with("g", cpus=2)
    g.max = 128 * 4096
    charge(g, 1, cpu=0)
    assert charge(g, 127, cpu=1) == 127  # 64 in batches, then what CPU 0 held
    assert (g.events["max"], g.events["oom"]) == (1, 0)
    validate(g.machine.state)


def test_a_stock_holds_one_group():
    m, a, b = machine_with("a", "b")
    charge(a, 1)
    charge(b, 1)
    assert (a.current, b.current) == (4096, 64 * 4096)
    charge(a, 2)
    assert (a.current, b.current) == (65 * 4096, 4096)
    validate(m.state)


@pytest.mark.parametrize(("pages", "kernel", "slab"), [(16384, 155648, 153328), (13107, 126976, 124320)])
def test_index_nodes_by_bytes(pages, kernel, slab):
    # recorded: memory.stat of 6.12.117 after pread of a whole file (runs pread_hotcold_2, pread_phase_1.6). Nodes are 592 bytes each;
    # slab bytes reach the statistics seven nodes at a time.
    m, g = machine_with("g")
    leaves = -(-pages // 64)
    for _ in range(leaves + -(-leaves // 64) + 1):
        assert calls.charge_bytes(m.state, g.id, 592) == 0
    calls.flush(m.state, 0, True)
    assert (g.stat()["kernel"], g.stat()["slab_reclaimable"]) == (kernel, slab)


def test_protection_of_the_specification():
    pages = 1 << 18  # a GiB
    for recursive, want in ((True, pages * 3 // 2), (False, pages)):
        m = Machine("64M", max_cgroups=4)
        a = m.memcg("A", low="2G")
        b, c = a.memcg("B", low="1G"), a.memcg("C", low="1G")
        m.state.vm_globals["memcg_recursiveprot_off"] = not recursive
        rows = m.state.get("memcgs")
        for group, usage in ((a, 3 * pages), (b, pages // 2), (c, pages * 5 // 2)):
            rows[group.id]["usage"] = usage
        assert calls.protection(m.state, a.id)[1] == 2 * pages
        assert calls.protection(m.state, b.id) == (0, pages // 2, False, True)
        assert calls.protection(m.state, c.id) == (0, want, False, False)


def test_overcommitted_protection_is_shared():
    m = Machine("64M", max_cgroups=4)
    a = m.memcg("A", min="4M")
    b, c = a.memcg("B", min="4M"), a.memcg("C", min="12M")
    rows = m.state.get("memcgs")
    for group, usage in ((a, 4096), (b, 1024), (c, 3072)):
        rows[group.id]["usage"] = usage
    assert calls.protection(m.state, b.id)[0] == 256
    assert calls.protection(m.state, c.id)[0] == 768
    assert calls.protection(m.state, c.id, a.id)[0] == 3072


@pytest.mark.parametrize(
    ("usage", "high", "ticks"),
    [(25856, 25600, 1), (25600 + 1280, 25600, 39), (28160, 25600, 159), (25600, 25600, 0), (1000, 0, 500), (1 << 40, 1, 500)],
)
def test_the_pause_of_memory_high(usage, high, ticks):
    m, g = machine_with("g")
    g.high = high * 4096
    m.state.get("memcgs")[g.id]["usage"] = usage
    assert calls.high_ticks(m.state, g.id, 64) == ticks


def test_memory_high_counts_an_event_for_each_batch():
    m, g = machine_with("g")
    g.high = 64 * 4096
    m.state.cpus[0]["memcg"] = g.id
    charge(g, 128)
    # one batch above: the debt is 64, not more than a batch, and waits for the return to user mode
    assert g.events["high"] == 0
    calls.over_high(m.state)
    assert g.events["high"] == 17  # nothing can be freed: sixteen more tries, then the pause
    assert m.state.globals["now_ns"][0] == 2_000_000_000
    calls.over_high(m.state)
    assert g.events["high"] == 17


# ---------------------------------------------------------------- statistics that lag


def folded(group):
    row = group.machine.state.get("memcgs")[group.id]
    return int(row["vm_folded"][PGPGIN])


def test_readers_see_what_was_folded():
    m, g = machine_with("g")
    charge(g, 64)
    g.stat()
    assert folded(g) == 0  # 64 changes: not more than 64 a CPU
    charge(g, 64)
    assert folded(g) == 0
    g.stat()
    assert folded(g) == 128
    charge(g, 1)
    calls.flush(m.state, 0, True)
    assert folded(g) == 129


def test_the_periodic_fold():
    m, g = machine_with("g")
    charge(g, 3)
    calls.fold_due(m.state)
    assert folded(g) == 0
    m.state.globals["now_ns"] = 1_999_999_999
    calls.fold_due(m.state)
    assert folded(g) == 0
    m.state.globals["now_ns"] = 7_000_000_000
    calls.fold_due(m.state)
    assert folded(g) == 3
    assert m.state.vm_globals["memcg_fold_due_ns"][0] == 8_000_000_000


def test_a_group_counts_what_its_children_count_even_when_they_are_gone():
    m, g = machine_with("g")
    child = g.memcg("child")
    pfn = m.alloc_pages()
    calls.charge_page(m.state, pfn, child.id)
    child.remove()
    assert not child.alive
    assert len(calls.walk(m.state)) == 3  # it waits for its page
    assert [x.path for x in m.memcgs] == ["/g"]
    calls.uncharge(m.state, pfn)
    assert len(calls.walk(m.state)) == 2
    calls.flush(m.state, 0, True)
    assert (folded(g), int(m.state.get("memcgs")[g.id]["vm_folded"][PGPGOUT])) == (1, 1)
    validate(m.state)


def test_without_lag_reclaim_reads_live_numbers():
    m, g = machine_with("g")
    child = g.memcg("child")
    rows = m.state.get("lruvecs")
    rows[child.id]["stat"][17] = 5
    assert calls.page_state(m.state, g.id, 17) == 0
    m.state.vm_globals["memcg_no_lag"] = 1
    assert calls.page_state(m.state, g.id, 17) == 5
