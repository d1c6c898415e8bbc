"""The whole judge: physical memory, VMAs, page tables and mappings, TLBs, files, the kernel's own mappings.

Models: nothing. It calls every room's recount and joins what they counted.
"""

from __future__ import annotations

from typing import Any

from mmcore.base.errors import ValidationError
from mmcore.base.state import State
from mmcore.phys import check as phys_check
from mmcore.sys import check as vm_check
from mmcore.sys import file_calls, vmalloc_check
from mmcore.vm.tlb_check import validate_tlb
from mmcore.vm.vma_check import validate_vmas


def validate(state: State) -> dict[str, Any]:
    """Recount everything from scratch; ValidationError names the first thing that is wrong. Returns what was counted, in pages."""
    counted = dict(phys_check.validate(state))
    validate_vmas(state)
    counted.update(vm_check.validate_vm(state))
    counted.update(validate_tlb(state, state.extras.get("tlb")))
    wrong = file_calls.validate_files(state)
    if wrong:
        raise ValidationError(f"files: {wrong[0]}" + (f" ({len(wrong)} findings)" if len(wrong) > 1 else ""))
    vmalloc_check.validate(state)
    return counted
