"""The judge finds damage: inner counts of large folios, and what the TLBs have cached."""

import numpy as np
import pytest

from mmcore.base.errors import ValidationError
from mmpy import Machine
from mmpy.vmflags import Madv

PAGE, HUGE = 4096, 2 << 20


def huge_machine(**kw):
    m = Machine("128M", **kw)
    m.thp["enabled"] = "always"
    p = m.spawn()
    at = p.mmap(2 * HUGE)
    at = (at + HUGE - 1) & -HUGE
    p.touch([at], write=True)
    return m, p, at, int(p.walk(np.array([at], np.uint64))[0][0])


def shared(m, p, at):
    """The folio is mapped by a PMD of the child, and by all but four small entries of the parent."""
    child = p.fork()
    p.munmap(at, 4 * PAGE)
    m.validate()
    return child


def mthp_machine():
    m = Machine("128M")
    m.thp["hugepages-64kB/enabled"] = "always"
    p = m.spawn()
    at = p.mmap(HUGE)
    p.touch([at], write=True)
    return m, p, at, int(p.walk(np.array([at], np.uint64))[0][0])


@pytest.mark.parametrize(
    ("page", "field", "text"),
    [
        (0, "mapcount", "a large folio's mapcount"),
        (1, "index_lo", "count of this page's small mappings"),
        (7, "mapcount", "count of this page's small mappings"),
        (2, "index_lo", "count of PMDs"),
        (3, "index_lo", "count of pages mapped"),
    ],
)
def test_counts_of_a_shared_huge_page(page, field, text):
    m, p, at, head = huge_machine()
    shared(m, p, at)
    m.state.meta[field][head + page] += 1
    with pytest.raises(ValidationError, match=text) as caught:
        m.validate()
    assert hex(head + (page if page in (7,) else 0)) in str(caught.value)
    m.state.meta[field][head + page] -= 1
    m.validate()


def test_a_huge_page_of_one_pmd_has_no_counts():
    m, _, _, head = huge_machine()
    m.validate()
    for page, field in ((1, "index_lo"), (2, "index_lo"), (3, "index_lo"), (9, "mapcount")):
        m.state.meta[field][head + page] = 1
        with pytest.raises(ValidationError, match="large folio"):
            m.validate()
        m.state.meta[field][head + page] = 0
    m.validate()


@pytest.mark.parametrize("make", [huge_machine, mthp_machine])
def test_partly_mapped_is_marked(make):
    m, p, at, head = make()
    second = m.state.pages["private_"]
    assert not second[head + 1] & 2
    p.madvise(at + 2 * PAGE, PAGE, Madv.DONTNEED)
    m.validate()
    assert second[head + 1] & 3 == 3
    second[head + 1] &= 1
    with pytest.raises(ValidationError, match="mapped in part"):
        m.validate()
    second[head + 1] |= 2
    m.validate()


def test_a_whole_folio_is_not_marked_partly_mapped():
    m, _, _, head = huge_machine()
    m.state.pages["private_"][head + 1] |= 2
    with pytest.raises(ValidationError, match="mapped in part"):
        m.validate()


def test_counters_of_huge_pages():
    m, _, _, _ = huge_machine()
    m.state.vm_globals["mthp"][0][9 * 4 + 3] += 1
    with pytest.raises(ValidationError, match=r"2 large folios of order 9 .* found 1"):
        m.validate()
    m.state.vm_globals["mthp"][0][9 * 4 + 3] -= 1
    m.state.nodes["vm_stat"][0, 28] -= 512
    with pytest.raises(ValidationError, match="nr_anon_transparent_hugepages is 0, counted 512"):
        m.validate()


def tlb_machine(kind, pages=8):
    m = Machine("64M", tlb=kind, thp="never", cpus=2)
    p = m.spawn()
    at = p.mmap(pages * PAGE)
    p.touch(range(at, at + pages * PAGE, PAGE), write=True)
    assert m.validate()["tlb_entries"] >= pages
    return m, p, at


def entry_of(m, p, address):
    """The page-table entry of a small page, to be changed without a flush."""
    tables = m.state.get("tables").reshape(-1)
    value = p.walk(np.array([address], np.uint64))[2][0]
    (spot,) = np.flatnonzero(tables == value)
    return tables, spot


@pytest.mark.parametrize("kind", ["zen", "skylake", "unbounded"])
@pytest.mark.parametrize(("bit", "text"), [(2, "may be written through the TLB"), (64, "is dirty in the TLB")])
def test_rights_that_went_without_a_flush(kind, bit, text):
    m, p, at = tlb_machine(kind)
    tables, spot = entry_of(m, p, at + 3 * PAGE)
    tables[spot] &= ~np.uint64(bit)
    with pytest.raises(ValidationError, match=text) as caught:
        m.validate()
    assert hex((at >> 12) + 3) in str(caught.value)
    # a flush that is pending makes it legal
    m.tlb.model.mm_gen[p.mm] += 1
    m.validate()


@pytest.mark.parametrize("kind", ["zen", "skylake", "unbounded"])
def test_a_translation_that_no_table_has(kind):
    m, p, at = tlb_machine(kind)
    m.tlb.model.fill(0, p.mm, (at >> 12) + 5000)
    with pytest.raises(ValidationError, match=r"TLB of CPU 0, id \d.*not mapped so"):
        m.validate()


def test_a_walk_cache_of_no_table():
    m, p, at = tlb_machine("zen")
    m.tlb.model.walk(0, p.mm, (at >> 12) ^ 1 << 30)
    with pytest.raises(ValidationError, match=r"walk cache of level \d.*no such table"):
        m.validate()


def test_ids_of_address_spaces_that_are_gone():
    m, p, _ = tlb_machine("zen")
    record = m.tlb.model.cpus
    record["slot_mm"][0, 3] = p.mm + 1
    with pytest.raises(ValidationError, match="id 3 belongs to address space"):
        m.validate()
    record["slot_mm"][0, 3] = 0
    record["slot_gen"][0, record["slot"][0]] += 1
    with pytest.raises(ValidationError, match="has seen flush"):
        m.validate()


def test_a_walk_that_ends_at_the_top_leaves_nothing():
    """A fault below an empty top-level entry reads one entry, and caches no table that does not exist."""
    m, p, _ = tlb_machine("zen")
    m.tlb.flush()
    before = m.tlb["walk_steps"]
    p.touch([0x10000000000])
    assert m.tlb["walk_steps"] - before == 1
    m.validate()
