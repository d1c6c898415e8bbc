"""The /proc files of a machine: `machine.proc.zoneinfo()` and its siblings.

Models: which file shows what. Simplifies: a read takes no time and no memory, so two texts always agree.
Omits: the files of parts that do not exist yet (slabinfo, per-process files).
"""

from collections.abc import Mapping

from mmpy.proc.buddyinfo import write_buddyinfo
from mmpy.proc.meminfo import write_meminfo
from mmpy.proc.pagetypeinfo import write_pagetypeinfo
from mmpy.proc.protocol import MachineLike
from mmpy.proc.swaps import write_swaps
from mmpy.proc.vmstat import write_vmstat
from mmpy.proc.zoneinfo import write_zoneinfo


class Proc:
    """Texts of a machine's /proc files, as its kernel would print them now."""

    def __init__(self, machine: MachineLike) -> None:
        self._machine = machine

    def zoneinfo(self) -> str:
        """/proc/zoneinfo: every zone with its watermarks, counters and per-CPU lists."""
        return write_zoneinfo(self._machine)

    def buddyinfo(self) -> str:
        """/proc/buddyinfo: free blocks by zone and order."""
        return write_buddyinfo(self._machine.zones)

    def pagetypeinfo(self) -> str:
        """/proc/pagetypeinfo: free blocks by zone, type and order, and pageblocks by zone and type."""
        return write_pagetypeinfo(self._machine.zones)

    def vmstat(self) -> str:
        """/proc/vmstat: all counters."""
        return write_vmstat(self._machine.vmstat, self._machine.arch, self._machine.kernel)

    def meminfo(self, rest: Mapping[str, int] | None = None) -> str:
        """/proc/meminfo. `rest`: kB by label for what the machine does not model, e.g. {"Committed_AS": 5976}."""
        return write_meminfo(self._machine, rest)

    def swaps(self) -> str:
        """/proc/swaps: the swap areas, their sizes and priorities."""
        return write_swaps(getattr(self._machine, "swaps", ()))

    def __repr__(self) -> str:
        return "Proc(zoneinfo, buddyinfo, pagetypeinfo, vmstat, meminfo, swaps)"
