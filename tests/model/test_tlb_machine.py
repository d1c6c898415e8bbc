"""Machines with TLBs: when the kernel flushes, that no stale translation is ever used, and that they are part of a machine's state."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcore.run.ops import OP_DTYPE, Op
from mmcore.vm import pgtable
from mmpy import Machine
from mmpy.snapshot import SnapshotFormatError
from mmpy.vmflags import Fault, Madv, Prot

PAGE = 4096
HUGE = 1 << 21
KINDS = ("zen", "skylake", "unbounded")


def machine(tlb="zen", thp="never", cpus=2, memory="64M"):
    return Machine(memory, tlb=tlb, thp=thp, cpus=cpus)


def process_with(m, pages):
    p = m.spawn()
    at = p.mmap(pages * PAGE)
    p.touch(range(at, at + pages * PAGE, PAGE), write=True)
    return p, at


def flushes(m, call):
    """What a call adds to (flush_one, flush_all)."""
    before = m.tlb.stats()
    call()
    after = m.tlb.stats()
    return tuple(after[n] - before[n] for n in ("nr_tlb_local_flush_one", "nr_tlb_local_flush_all"))


def bits(m, p, address, pages=1):
    """Accessed and dirty bits of small pages: lists of 0 and 1."""
    raw = pgtable.ptes(m.state, p.mm, address >> 12, pages)
    return [int(e) >> 5 & 1 for e in raw], [int(e) >> 6 & 1 for e in raw]


def stale(m):
    """Cached translations that the page tables do not have: none, ever. Small and huge pages of processes that a slot belongs to."""
    model, wrong = m.tlb.model, []
    names = m.state.get("mms")
    for cpu in range(m.nr_cpus):
        record = model.cpus[cpu]
        for part in model.entries(cpu):
            for entries in part.values():
                for slot, size, page, flags in entries:
                    if slot == 7:
                        continue
                    mm = int(record["slot_mm"][slot])
                    if int(record["slot_gen"][slot]) != int(model.mm_gen[mm]):
                        continue  # flushed before it is used
                    vpn = page << 9 * size
                    if mm == 0 or not names[mm - 1]["pid"]:
                        wrong.append((cpu, mm, hex(vpn)))
                        continue
                    _, levels, entry = pgtable.walk(m.state, mm, np.array([vpn << 12], np.uint64))
                    e = int(entry[0])
                    if not e & 1 or int(levels[0]) != size or not e & 32 or (flags & 3 == 3 and e & 0x42 != 0x42):
                        wrong.append((cpu, mm, hex(vpn), size, flags, hex(e)))
    return wrong


class TestSharp:
    """The recorded cases, and the rules of the specification's section 16."""

    @pytest.mark.parametrize("kind", KINDS)
    def test_33_pages_singly_34_all(self, kind):
        m = machine(kind)
        p, at = process_with(m, 100)
        assert flushes(m, lambda: p.madvise(at, 33 * PAGE, Madv.DONTNEED)) == (33, 0)
        assert flushes(m, lambda: p.madvise(at + 40 * PAGE, 34 * PAGE, Madv.DONTNEED)) == (0, 1)

    def test_munmap_is_one_flush_of_what_was_mapped(self):
        m = machine()
        p, at = process_with(m, 100)
        p.madvise(at + 10 * PAGE, 90 * PAGE, Madv.DONTNEED)
        assert flushes(m, lambda: p.munmap(at, 50 * PAGE)) == (10, 0)
        assert flushes(m, lambda: p.munmap(at + 60 * PAGE, 10 * PAGE)) == (0, 0)

    def test_becoming_present_and_wider_rights_flush_nothing(self):
        m = machine()
        p, at = process_with(m, 8)
        p.mprotect(at, 8 * PAGE, Prot.READ)
        assert flushes(m, lambda: p.mprotect(at, 8 * PAGE, Prot.READ | Prot.WRITE)) == (0, 0)
        assert flushes(m, lambda: p.mprotect(at, 8 * PAGE, Prot.READ)) == (8, 0)
        assert p.touch(at, write=True).codes.tolist() == [Fault.SEGV_ACCERR]
        fresh = p.mmap(8 * PAGE)
        assert flushes(m, lambda: p.touch(range(fresh, fresh + 8 * PAGE, PAGE), write=True)) == (0, 0)

    def test_copy_on_write_flushes_one_page(self):
        m = machine()
        p, at = process_with(m, 4)
        assert flushes(m, p.fork) == (0, 1)
        assert flushes(m, lambda: p.touch(at, write=True)) == (1, 0)
        assert flushes(m, lambda: p.touch(at, write=True)) == (0, 0)

    def test_reuse_flushes_nothing(self):
        m = machine()
        p, at = process_with(m, 4)
        child = p.fork()
        child.exit()
        p.touch(at)
        assert flushes(m, lambda: p.touch(at, write=True)) == (0, 0)

    def test_huge_split(self):
        m = machine(thp="always", memory="1G")
        p = m.spawn()
        at = (p.mmap(4 * HUGE) + HUGE - 1) & ~(HUGE - 1)
        p.touch(at, write=True)
        assert m.tlb["misses_2m"] == 1
        assert p.touch(range(at, at + HUGE, PAGE), write=True).hits == 512
        assert m.tlb["misses_2m"] == 1
        assert flushes(m, lambda: p.munmap(at + PAGE, PAGE)) == (1, 1)  # the split flushes all, then the page goes
        p.touch(at)
        assert m.tlb["misses_4k"] == 1
        assert not stale(m)

    def test_whole_huge_page_is_one_invalidation(self):
        m = machine(thp="always", memory="1G")
        p = m.spawn()
        at = (p.mmap(4 * HUGE) + HUGE - 1) & ~(HUGE - 1)
        p.touch(at, write=True)
        assert flushes(m, lambda: p.madvise(at, HUGE, Madv.DONTNEED)) == (1, 0)

    def test_remote(self):
        m = machine()
        p, at = process_with(m, 4)
        p.cpu = 1
        p.touch(at)
        before = m.tlb.stats()
        p.madvise(at, PAGE, Madv.DONTNEED)
        assert m.tlb["nr_tlb_remote_flush"] == before["nr_tlb_remote_flush"] + 1
        assert m.tlb["nr_tlb_remote_flush_received"] == before["nr_tlb_remote_flush_received"] + 1

    def test_vmalloc_purge(self):
        from mmcore.sys import vmalloc

        m = machine(memory="256M")
        area = m.vmalloc(8 * PAGE)
        m.vfree(area.address)
        before = m.tlb.stats()
        vmalloc.purge(m.state)
        # with the guard page, on every CPU
        assert m.tlb["nr_tlb_local_flush_one"] - before["nr_tlb_local_flush_one"] == 9 * m.nr_cpus


class TestBits:
    """A hit sets no accessed bit; a write through a clean entry walks."""

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_hit_sets_nothing(self, kind):
        m = machine(kind)
        p, at = process_with(m, 4)
        slot = np.flatnonzero(m.state.get("table_info")["level"] == 0)
        m.state.get("tables")[slot] &= ~np.uint64(32)  # as reclaim ages pages: without a flush
        p.touch(range(at, at + 4 * PAGE, PAGE))
        assert bits(m, p, at, 4)[0] == [0] * 4
        m.tlb.flush()
        p.touch(at)
        assert bits(m, p, at, 4)[0] == [1, 0, 0, 0]

    def test_write_through_a_clean_entry(self):
        m = machine()
        p, at = process_with(m, 1)
        p.madvise(at, PAGE, Madv.FREE)
        assert bits(m, p, at) == ([0], [0])
        p.touch(at)
        assert bits(m, p, at) == ([1], [0])
        before = m.tlb["rewalks"]
        assert p.touch(at, write=True).hits == 1
        assert bits(m, p, at) == ([1], [1])
        assert m.tlb["rewalks"] == before + 1
        p.touch(at, write=True)
        assert m.tlb["rewalks"] == before + 1

    def test_flush_drains_the_lru_batches_of_its_cpu(self):
        m = machine()
        process_with(m, 5)
        assert m.state.cpus["lru_add_nr"][0] == 5
        m.tlb.flush(1)
        assert m.state.cpus["lru_add_nr"][0] == 5
        m.tlb.flush(0)
        assert m.state.cpus["lru_add_nr"][0] == 0


class TestOps:
    def run(self, m, *ops):
        stream = np.zeros(len(ops), OP_DTYPE)
        for i, fields in enumerate(ops):
            for name, value in fields.items():
                stream[i][name] = value
        return m.run(stream)

    def test_switch_and_flush(self):
        m = machine()
        p, at = process_with(m, 2)
        q = m.spawn()
        rc, _, _ = self.run(
            m, {"op": Op.CONTEXT_SWITCH, "mm": q.mm}, {"op": Op.CONTEXT_SWITCH, "mm": p.mm}, {"op": Op.ACCESS, "mm": p.mm, "a": at},
            {"op": Op.CONTEXT_SWITCH, "mm": 0}, {"op": Op.TLB_FLUSH, "cpu": 0}, {"op": Op.CONTEXT_SWITCH, "mm": 99},
            {"op": Op.TLB_FLUSH, "cpu": 7},
        )  # fmt: skip
        assert rc[:5].tolist() == [0] * 5
        assert rc[5] < 0
        assert rc[6] < 0
        assert m.tlb["switches"] == 3
        assert m.tlb["l1_hits"] == 1
        assert int(m.tlb.model.cpus["lazy"][0]) == 1

    def test_without_tlbs(self):
        m = machine("off")
        p, _ = process_with(m, 2)
        assert self.run(m, {"op": Op.CONTEXT_SWITCH, "mm": p.mm}, {"op": Op.CONTEXT_SWITCH}, {"op": Op.TLB_FLUSH})[0].tolist() == [0, 0, 0]
        assert not m.tlb
        assert dict(m.tlb) == {}
        assert m.tlb.hits == m.tlb.misses == 0
        assert "off" in repr(m.tlb)
        assert m.state.extras == {}


class TestState:
    @pytest.mark.parametrize("kind", KINDS)
    def test_fork_restore_save_load(self, kind, tmp_path):
        m = machine(kind)
        p, at = process_with(m, 40)
        saved = m.fork()
        assert saved == m
        assert saved.tlb.stats() == m.tlb.stats()
        p.touch(range(at, at + 20 * PAGE, PAGE))
        assert saved != m
        assert m.tlb.hits == saved.tlb.hits + 20
        assert any("tlb" in line for line in m.diff(saved))
        m.restore(saved)
        assert saved == m
        for one in (m, saved):
            one.process(p.pid).touch(range(at, at + 40 * PAGE, PAGE))
        assert saved == m
        assert saved.tlb.hits == 40
        m.save(tmp_path / "m.npz")
        loaded = Machine.load(tmp_path / "m.npz")
        assert loaded == m
        assert loaded.tlb.kind == m.tlb.kind
        loaded.process(p.pid).munmap(at, 40 * PAGE)
        assert not stale(loaded)
        loaded.validate()

    def test_off_and_on_do_not_mix(self):
        with pytest.raises(ValueError, match="tlb"):
            machine("zen").restore(machine("off"))
        with pytest.raises(ValueError, match="alike"):
            machine("zen").restore(machine("skylake"))

    def test_a_damaged_file_is_refused(self, tmp_path):
        m = machine("zen")
        m.save(tmp_path / "m.npz")
        with np.load(tmp_path / "m.npz") as archive:
            members = dict(archive)
        members["tlb.keys.data"] = np.ones(5, np.uint8)
        np.savez(tmp_path / "bad.npz", **members)
        with pytest.raises(SnapshotFormatError):
            Machine.load(tmp_path / "bad.npz")

    def test_unknown_name(self):
        with pytest.raises(ValueError, match="tlb"):
            Machine("64M", tlb="alpha")

    def test_views(self):
        m = machine()
        process_with(m, 3)
        assert "3 misses" in repr(m.tlb)
        assert "CPU 1" in repr(m.tlb.cpu(1))
        assert "misses_4k" in m.tlb._repr_html_()
        assert m.tlb.cpu(0).misses == 3
        assert m.tlb.cpu(1).misses == 0
        with pytest.raises(ValueError, match="cpu"):
            m.tlb.cpu(2)
        with pytest.raises(ValueError, match="cpu"):
            m.tlb.flush(2)

    def test_i386(self):
        m = Machine("128M", arch="i386", tlb="unbounded", thp="never")
        p, at = process_with(m, 5)
        assert p.touch(range(at, at + 5 * PAGE, PAGE)).hits == 5
        assert m.tlb.hits == 5


class TestRows:
    """Rows of faults are what single ones would be."""

    @pytest.mark.parametrize("kind", KINDS)
    def test_rows(self, kind):
        one, many = machine(kind), machine(kind)
        p, q = one.spawn(), many.spawn()
        at = p.mmap(1200 * PAGE)
        assert q.mmap(1200 * PAGE) == at
        for page in range(1200):
            p.touch(at + page * PAGE, write=True)
        q.touch(range(at, at + 1200 * PAGE, PAGE), write=True)
        assert one.tlb.stats() == many.tlb.stats()
        assert one == many


PAGES = 1100  # beyond two tables
page = st.integers(0, PAGES - 1)
span = st.tuples(page, st.integers(1, 80) | st.just(520))
step = st.one_of(
    st.tuples(st.just("touch"), st.integers(0, 2), span, st.booleans(), st.integers(0, 1)),
    st.tuples(st.just("touch"), st.integers(0, 2), span, st.booleans(), st.integers(0, 1)),
    st.tuples(st.just("munmap"), st.integers(0, 2), span),
    st.tuples(st.just("mprotect"), st.integers(0, 2), span, st.sampled_from([Prot.NONE, Prot.READ, Prot.READ | Prot.WRITE])),
    st.tuples(st.just("mremap"), st.integers(0, 2), span, page),
    st.tuples(st.just("madvise"), st.integers(0, 2), span, st.sampled_from([Madv.DONTNEED, Madv.FREE, Madv.COLD, Madv.COLLAPSE])),
    st.tuples(st.just("fork"), st.integers(0, 2)),
    st.tuples(st.just("exit"), st.integers(1, 2)),
    st.tuples(st.just("flush"), st.integers(0, 1)),
)


class Side:
    """One machine that goes through a sequence; what each step gives is compared."""

    def __init__(self, tlb, thp):
        self.m = Machine("96M" if thp == "never" else "1G", tlb=tlb, thp=thp, cpus=2)
        p = self.m.spawn()
        self.at = (p.mmap((PAGES + 1024) * PAGE) + HUGE - 1) & ~(HUGE - 1)
        self.processes = [p]

    def do(self, what, *args):
        if what == "flush":
            return self.m.tlb.flush(args[0])
        p = self.processes[args[0] % len(self.processes)]
        if what == "fork":
            if len(self.processes) < 3:
                self.processes.append(p.fork())
            return len(self.processes)
        if what == "exit":
            if p is not self.processes[0]:
                p.exit()
                self.processes.remove(p)
            return len(self.processes)
        first, pages = args[1]
        start = self.at + first * PAGE
        if what == "touch":
            p.cpu = args[3]
            return p.touch(range(start, start + pages * PAGE, PAGE), write=args[2]).codes.tolist()
        try:
            if what == "munmap":
                return p.munmap(start, pages * PAGE)
            if what == "mprotect":
                return p.mprotect(start, pages * PAGE, args[2])
            if what == "madvise":
                return p.madvise(start, pages * PAGE, args[2])
            return p.mremap(start, pages * PAGE, pages * PAGE, flags=3, new_addr=self.at + (4096 + args[2]) * PAGE)
        except OSError as error:
            return error.errno

    def picture(self):
        """Frames, levels, rights and RSS of every process."""
        out = []
        for p in self.processes:
            vaddrs = np.arange(self.at, self.at + (4096 + 2 * PAGES) * PAGE, PAGE, dtype=np.uint64)
            pfns, levels, entries = pgtable.walk(self.m.state, p.mm, vaddrs)
            out.append((pfns.tobytes(), levels.tobytes(), (entries & np.uint64(0x83)).tobytes(), p.rss, p.minflt))
        return out

    def accessed(self):
        vaddrs = np.arange(self.at, self.at + (4096 + 2 * PAGES) * PAGE, PAGE, dtype=np.uint64)
        found = [pgtable.walk(self.m.state, p.mm, vaddrs)[2] for p in self.processes]
        return [e & np.uint64(32) != 0 for e in found], [e & np.uint64(64) != 0 for e in found]


@pytest.mark.parametrize("thp", ["never", "always"])
@pytest.mark.parametrize("kind", ["zen", "unbounded"])
@given(steps=st.lists(step, min_size=1, max_size=14))
@settings(max_examples=25, deadline=None)
def test_no_stale_translation(kind, thp, steps):
    with_tlb, without = Side(kind, thp), Side("off", thp)
    for one in steps:
        assert with_tlb.do(*one) == without.do(*one), one
        assert not stale(with_tlb.m), one
    assert with_tlb.picture() == without.picture()
    # a hit sets no accessed bit: what is accessed there is accessed here; what is dirty is the same
    (young, dirty), (all_young, all_dirty) = with_tlb.accessed(), without.accessed()
    for mine, theirs in zip(young, all_young, strict=True):
        assert not (mine & ~theirs).any()
    for mine, theirs in zip(dirty, all_dirty, strict=True):
        assert (mine == theirs).all()
    with_tlb.m.validate()
