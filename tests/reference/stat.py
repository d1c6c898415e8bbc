"""Counters: events, NUMA statistics, and NR_FREE_PAGES as one global value with a difference per CPU.

Models: __mod_zone_page_state, account_freepages, zone_statistics, the thresholds of the differences, the fold
of a tick (mm/vmstat.c). Simplifies: event counters are one sum. Omits: every zone and node counter but the
free pages.
"""

from collections import Counter

from .constants import HIGH, HIGHATOMIC, ISOLATE, LOW, MIN, NUMA_EVENTS


def normal_threshold(managed: int, nr_cpus: int) -> int:
    """How far a CPU's difference may run before it is folded."""
    return min(125, 2 * nr_cpus.bit_length() * (1 + (managed >> 15).bit_length()))


def pressure_threshold(zone, nr_cpus: int) -> int:
    """The same while kswapd works, for zones where the drift could hide a watermark."""
    return min(125, max(1, (zone.wmark[LOW] - zone.wmark[MIN]) // nr_cpus))


def refresh_thresholds(zone, nr_cpus: int) -> None:
    """Set the threshold and the drift mark from the zone's present size and watermarks."""
    zone.stat_threshold = normal_threshold(zone.managed, nr_cpus)
    drift = nr_cpus * zone.stat_threshold
    tolerated = zone.wmark[LOW] - zone.wmark[MIN]
    zone.drift_mark = zone.wmark[HIGH] + zone.boost + drift if drift > tolerated else 0


def mod_free_pages(zone, cpu: int, delta: int) -> None:
    """One change of NR_FREE_PAGES made on `cpu`."""
    zone.diff[cpu] += delta
    if abs(zone.diff[cpu]) > zone.stat_threshold:
        fold(zone, cpu)


def fold(zone, cpu: int) -> bool:
    """Add the CPU's difference to the global value; whether there was one."""
    delta, zone.diff[cpu] = zone.diff[cpu], 0
    zone.nr_free_pages += delta
    return delta != 0


def account_freepages(zone, cpu: int, delta: int, mt: int) -> None:
    """Count `delta` pages that entered or left a free list of type `mt`."""
    if mt == ISOLATE:
        return
    mod_free_pages(zone, cpu, delta)
    if mt == HIGHATOMIC:
        zone.nr_free_highatomic += delta


def free_pages_seen(zone) -> int:
    """What a watermark test sees: the global value, never below zero."""
    return max(0, zone.nr_free_pages)


def free_pages_exact(zone) -> int:
    """The global value with all differences."""
    return max(0, zone.nr_free_pages + sum(zone.diff))


class Events:
    """Event counters by their /proc/vmstat names, and NUMA counters by zone."""

    def __init__(self):
        self.counts = Counter()
        self.numa = {}

    def count(self, name: str, n: int = 1) -> None:
        """Add n to an event."""
        self.counts[name] += n

    def zone_statistics(self, preferred, zone, cpu_node: int, n: int) -> None:
        """NUMA counters of an allocation of n units from `zone` where `preferred` was the first choice."""
        if not zone.machine.numa:
            return
        if zone.node == preferred.node:
            self._numa(zone, "numa_hit", n)
        else:
            self._numa(zone, "numa_miss", n)
            self._numa(preferred, "numa_foreign", n)
        self._numa(zone, "numa_local" if zone.node == cpu_node else "numa_other", n)

    def _numa(self, zone, name: str, n: int) -> None:
        row = self.numa.setdefault(zone.key, [0] * len(NUMA_EVENTS))
        row[NUMA_EVENTS.index(name)] += n
