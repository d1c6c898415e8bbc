"""Outcomes of faults and accesses.

Models: vm_fault_t as far as a task sees it (include/linux/mm_types.h). Simplifies: one value instead of bits. Omits: retries.
"""
from enum import IntEnum

Fault = IntEnum("Fault", {"MINOR": MINOR, "MAJOR": MAJOR, "HIT": HIT, "SEGV_MAPERR": SEGV_MAPERR, "SEGV_ACCERR": SEGV_ACCERR,
                          "SIGBUS": SIGBUS, "OOM": OOM}, module=__name__)
