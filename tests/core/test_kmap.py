"""kmap and kmap_local (virtual_memory.md 2.2): slots, counts, the wrap, the stack of each CPU."""

import pytest

from mmcore.base.errors import ValidationError
from mmcore.sys import vmalloc_check
from mmpy import Machine
from mmpy.kernel_mappings import (
    kernel_layout,
    kmap,
    kmap_flushes,
    kmap_local,
    kmap_slots,
    kunmap,
    kunmap_local,
    lowmem_end,
)

BASE = 0xFF000000
SLOTS = 512


@pytest.fixture
def machine():
    return Machine("2G", arch="i386", cpus=2)


def high(machine, i=0):
    return lowmem_end(machine) + i


def test_lowmem_has_its_direct_address(machine):
    assert kmap(machine, 0x1234) == 0xC0000000 + 0x1234000
    assert kmap(machine, lowmem_end(machine) - 1) == 0xF6FFD000
    kunmap(machine, 0x1234)
    assert kmap_local(machine, 0x1234) == 0xC1234000
    kunmap_local(machine, 0xC1234000)
    assert kmap_slots(machine) == []
    assert len(machine.state.get("kmaps")) == 0
    for other in (Machine("512M", arch="i386"), Machine("64M")):
        assert kmap(other, 0x1234) == kernel_layout(other).page_address(0x1234)
        assert kmap_slots(other) == []


def test_slots_are_taken_in_turn_and_shared(machine):
    assert kmap(machine, high(machine)) == BASE + 1 * 4096
    assert kmap(machine, high(machine, 1)) == BASE + 2 * 4096
    assert kmap(machine, high(machine)) == BASE + 1 * 4096
    assert [(slot, count) for slot, _, _, count in kmap_slots(machine)] == [(1, 3), (2, 2)]
    kunmap(machine, high(machine))
    kunmap(machine, high(machine))
    # mapped, but unused: the mapping stays, and is found again
    assert kmap_slots(machine)[0] == (1, BASE + 4096, high(machine), 1)
    assert kmap(machine, high(machine)) == BASE + 1 * 4096
    with pytest.raises(ValueError, match=f"kunmap of page frame {high(machine, 5):#x}"):
        kunmap(machine, high(machine, 5))
    kunmap(machine, high(machine))
    with pytest.raises(ValueError, match="nobody has mapped"):
        kunmap(machine, high(machine))
    vmalloc_check.validate(machine.state)


def test_the_wrap_unmaps_what_nobody_uses(machine):
    kept = kmap(machine, high(machine, 1000))
    for i in range(SLOTS - 2):
        kmap(machine, high(machine, i))
        kunmap(machine, high(machine, i))
    assert kmap_flushes(machine) == 0
    assert len(kmap_slots(machine)) == SLOTS - 1  # all but slot 0
    assert kmap(machine, high(machine, 2000)) == BASE  # the cursor wraps to 0
    assert kmap_flushes(machine) == 1
    assert [slot for slot, *_ in kmap_slots(machine)] == [0, 1]
    assert kmap(machine, high(machine, 1000)) == kept
    assert kmap(machine, high(machine, 3000)) == BASE + 2 * 4096  # slot 1 is in use
    vmalloc_check.validate(machine.state)


def test_all_slots_in_use_would_sleep(machine):
    for i in range(SLOTS):
        kmap(machine, high(machine, i))
    before = machine.fork()
    with pytest.raises(RuntimeError, match="all 512 slots"):
        kmap(machine, high(machine, SLOTS))
    assert machine == before
    # a page that is mapped needs no slot
    assert kmap(machine, high(machine, 7)) == BASE + 8 * 4096
    kunmap(machine, high(machine, 0))
    assert kmap(machine, high(machine, SLOTS)) == BASE + 1 * 4096
    assert kmap_flushes(machine) == 1


def test_kmap_local_is_a_stack_of_each_cpu(machine):
    layout = kernel_layout(machine)
    first = [kmap_local(machine, high(machine, i)) for i in range(16)]
    assert first == [layout.kmap_local_address(0, i) for i in range(16)]
    assert len(set(first)) == 16
    with pytest.raises(RuntimeError, match="all 16 slots of CPU 0"):
        kmap_local(machine, high(machine, 16))
    other = kmap_local(machine, high(machine), cpu=1)
    assert other == first[0] - 16 * 4096
    with pytest.raises(ValueError, match="not the latest"):
        kunmap_local(machine, first[3])
    with pytest.raises(ValueError, match="not the latest kmap_local of CPU 1"):
        kunmap_local(machine, first[15], cpu=1)
    vmalloc_check.validate(machine.state)
    for address in reversed(first):
        kunmap_local(machine, address + 0x123)
    kunmap_local(machine, other, cpu=1)
    with pytest.raises(ValueError, match="there is none"):
        kunmap_local(machine, first[0])
    assert not machine.state.get("kmap_locals")["pfn"].any()


def test_slots_are_part_of_the_machine(machine, tmp_path):
    kmap(machine, high(machine, 3))
    kmap_local(machine, high(machine, 4), cpu=1)
    copy = machine.fork()
    assert copy == machine
    machine.save(tmp_path / "m.npz")
    assert Machine.load(tmp_path / "m.npz") == machine
    kunmap(machine, high(machine, 3))
    assert copy != machine
    machine.restore(copy)
    assert kmap_slots(machine) == kmap_slots(copy)


def test_bad_input_changes_nothing(machine):
    before = machine.fork()
    for pfn in (-1, 1 << 40, len(machine.state.pages)):
        for call in (kmap, kunmap, kmap_local):
            with pytest.raises(ValueError, match="pfn is"):
                call(machine, pfn)
    for wrong in (1.5, None, "1", True):
        for call in (kmap, kunmap, kmap_local):
            with pytest.raises(TypeError):
                call(machine, wrong)
        with pytest.raises(TypeError):
            kunmap_local(machine, wrong)
    for cpu in (2, -1):
        with pytest.raises(ValueError, match="cpu is"):
            kmap_local(machine, high(machine), cpu=cpu)
    with pytest.raises(ValueError, match="not the latest"):
        kunmap_local(machine, 0xFF001000)
    assert machine == before


def test_damage_is_found(machine):
    kmap(machine, high(machine))
    machine.state.get("kmaps")["pfn"][0][9] = 5
    with pytest.raises(ValidationError, match="kmap"):
        vmalloc_check.validate(machine.state)
