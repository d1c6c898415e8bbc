"""What the writers of /proc texts need of a machine: attributes only, so that a view and a parsed dump both do.

Models: the fields of struct zone, pg_data_t, per_cpu_pages that mm/vmstat.c and mm/show_mem.c print.
Sizes are in pages; counters in the units in which the kernel counts them (see mmcore.base.vmstat_names).
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol


class PcpLike(Protocol):
    """One zone's page lists on one CPU."""

    @property
    def cpu(self) -> int: ...
    @property
    def count(self) -> int: ...
    @property
    def high(self) -> int: ...
    @property
    def batch(self) -> int: ...


class ZoneLike(Protocol):
    """One zone of one node; the four watermarks include `boost`, as /proc prints them."""

    @property
    def name(self) -> str: ...
    @property
    def node(self) -> int: ...
    @property
    def start_pfn(self) -> int: ...
    @property
    def spanned(self) -> int: ...
    @property
    def present(self) -> int: ...
    @property
    def managed(self) -> int: ...
    @property
    def cma(self) -> int: ...
    @property
    def boost(self) -> int: ...
    @property
    def min(self) -> int: ...
    @property
    def low(self) -> int: ...
    @property
    def high(self) -> int: ...
    @property
    def promo(self) -> int: ...
    @property
    def lowmem_reserve(self) -> Sequence[int]:
        """One number per zone type."""
    @property
    def nr_free_pages(self) -> int: ...
    @property
    def stat_threshold(self) -> int: ...
    @property
    def vm_stat(self) -> Mapping[str, int]:
        """Zone counters by name."""
    @property
    def numa(self) -> Mapping[str, int]:
        """NUMA counters by name; empty where NUMA is not built."""
    @property
    def pcp(self) -> Sequence[PcpLike]:
        """One per online CPU, ascending."""


class ZoneListsLike(Protocol):
    """What buddyinfo and pagetypeinfo need of a zone."""

    @property
    def name(self) -> str: ...
    @property
    def node(self) -> int: ...
    @property
    def present(self) -> int: ...
    @property
    def nr_free(self) -> Sequence[int]:
        """Free blocks of all types, by order."""
    def free_counts(self, order: int, migratetype: int) -> int:
        """Free blocks of one order and type."""
    def pageblock_counts(self) -> Sequence[int]:
        """Pageblocks by migratetype."""


class NodeLike(Protocol):
    """One NUMA node. `zones` are all zone types in order, also empty ones."""

    @property
    def nid(self) -> int: ...
    @property
    def zones(self) -> Sequence[ZoneLike]: ...
    @property
    def vm_stat(self) -> Mapping[str, int]: ...
    @property
    def kswapd_failures(self) -> int:
        """Runs of kswapd in a row that freed nothing."""


class ZoneinfoLike(Protocol):
    """What /proc/zoneinfo needs. arch and kernel are those of mmcore.base.vmstat_names."""

    @property
    def arch(self) -> str: ...
    @property
    def kernel(self) -> str: ...
    @property
    def nodes(self) -> Sequence[NodeLike]: ...


class MachineLike(Protocol):
    """What class Proc needs; mmpy.Machine is one."""

    @property
    def arch(self) -> str: ...
    @property
    def kernel(self) -> str: ...
    @property
    def nodes(self) -> Sequence[NodeLike]: ...
    @property
    def zones(self) -> Sequence[Any]:
        """Objects that are both ZoneLike and ZoneListsLike, node by node."""
    @property
    def vmstat(self) -> Mapping[str, int]:
        """Counters by name with the values that /proc/vmstat prints."""
    @property
    def totalreserve_pages(self) -> int: ...
