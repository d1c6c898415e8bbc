"""The Python entries of huge pages: what they take, what they answer, and that misuse changes nothing."""

import pytest

from mmcore.sys import calls, hugepages
from mmcore.sys.recount import validate
from mmpy.machine import Machine

PRIVATE_ANON, HUGETLB = 0x22, 0x40000
HUGE = 2 << 20


@pytest.fixture
def machine():
    m = Machine("64M")
    m.thp["enabled"] = "always"
    yield m
    validate(m.state)


def test_the_pool(machine):
    state = machine.state
    assert hugepages.set_nr_hugepages(state, 3) == 3
    assert hugepages.set_overcommit(state, 2) is None
    mm = calls.spawn(state)
    assert calls.mmap(state, mm, 0, 4 * HUGE, 3, PRIVATE_ANON | HUGETLB) % HUGE == 0
    assert hugepages.hugetlb(state) == {"total": 4, "free": 4, "reserved": 4, "surplus": 1, "overcommit": 2, "small_pages": 2048}
    assert hugepages.set_nr_hugepages(state, 2) == 4
    assert hugepages.hugetlb(state)["surplus"] == 2
    saved = machine.snapshot()
    calls.exit_(state, mm)
    assert hugepages.hugetlb(state)["total"] == 2
    assert hugepages.hugetlb(saved.state)["total"] == 4
    reached = hugepages.set_nr_hugepages(state, 2**63 - 1)
    assert 2 < reached < 32
    assert machine.sysctl["vm.nr_hugepages"] == reached
    assert hugepages.set_nr_hugepages(state, 0) == 0


def test_collapse_scan_and_split(machine):
    state = machine.state
    p = machine.spawn()
    at = p.mmap(HUGE)
    p.write(at)
    pfn = int(p.walk([at])[0][0])
    assert hugepages.collapse(state, p.mm, at) == "pmd_mapped"
    assert hugepages.split_huge_page(state, pfn + 511) == 0
    with pytest.raises(ValueError, match="large anonymous folio"):
        hugepages.split_huge_page(state, pfn)
    assert hugepages.khugepaged_scan(state) == 1
    assert hugepages.collapse(state, p.mm, at + 12345, advised=False) == "pmd_mapped"
    assert hugepages.collapse(state, p.mm, 0) == "vma_check"
    assert hugepages.deferred_split_scan(state, 10) == 0
    assert p.rss["anon"] == 512


def test_misuse_changes_nothing(machine):
    state = machine.state
    p = machine.spawn()
    at = p.mmap(HUGE)
    p.write(at)
    before = machine.snapshot()
    for call, args, kind in [
        (hugepages.set_nr_hugepages, (-1,), ValueError), (hugepages.set_nr_hugepages, (2**63,), ValueError),
        (hugepages.set_nr_hugepages, (1.5,), TypeError), (hugepages.set_nr_hugepages, (1, 1), ValueError),
        (hugepages.set_nr_hugepages, ("4",), TypeError), (hugepages.set_overcommit, (-1,), ValueError),
        (hugepages.set_overcommit, (2**64,), ValueError), (hugepages.set_overcommit, (None,), TypeError),
        (hugepages.collapse, (0, at), ValueError), (hugepages.collapse, (p.mm + 1, at), ValueError),
        (hugepages.collapse, (p.mm, -1), ValueError), (hugepages.collapse, (p.mm, 1 << 62), ValueError),
        (hugepages.collapse, (p.mm, at, 9), ValueError), (hugepages.khugepaged_scan, (1,), ValueError),
        (hugepages.khugepaged_scan, ("",), TypeError), (hugepages.deferred_split_scan, (-1,), ValueError),
        (hugepages.deferred_split_scan, (1, -1), ValueError), (hugepages.split_huge_page, (-1,), ValueError),
        (hugepages.split_huge_page, (1 << 40,), ValueError), (hugepages.split_huge_page, (0,), ValueError),
    ]:  # fmt: skip
        with pytest.raises(kind):
            call(state, *args)
    for name, value in [
        ("vm.nr_hugepages", -1),
        ("vm.nr_hugepages", "many"),
        ("vm.nr_overcommit_hugepages", 2**63),
        ("vm.nr_hugepages", "1 2"),
    ]:
        with pytest.raises(ValueError, match=r"vm\.nr"):
            machine.sysctl[name] = value
    for call in (hugepages.hugetlb, hugepages.khugepaged_scan):
        with pytest.raises(TypeError):
            call(None)
    assert machine == before
