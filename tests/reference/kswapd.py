"""What the allocator and kswapd tell each other: the wake-up, and what a run of kswapd changes in the zones.

Models: wakeup_kswapd, pgdat_balanced, the begin and end of balance_pgdat, set_pgdat_percpu_threshold
(mm/vmscan.c, mm/vmstat.c, v6.12). Simplifies: a run covers all zones of its node. Omits: reclaim itself,
kcompactd.
"""

from . import stat
from .constants import RECLAIM_ACTIVE
from .watermark import zone_balanced

MAX_RECLAIM_RETRIES = 16


class Kswapd:
    """kswapd of one node: asleep, wanted (woken, not yet running) or running."""

    def __init__(self):
        self.wanted = self.running = False
        self.order = 0
        self.highest_zoneidx = None
        self.wakeups = 0
        self.failures = 0


def wakeup_kswapd(machine, zone, order: int, hidx: int) -> None:
    """Ask the kswapd of the zone's node for pages of this order in zones up to hidx."""
    if not zone.managed:
        return
    kswapd = machine.kswapd[zone.node]
    if kswapd.highest_zoneidx is None or kswapd.highest_zoneidx < hidx:
        kswapd.highest_zoneidx = hidx
    kswapd.order = max(kswapd.order, order)
    if kswapd.wanted or kswapd.running:
        return
    zones = [z for z in machine.managed_zones(zone.node) if z.zid <= hidx]
    balanced = not zones or any(zone_balanced(z, order, hidx) for z in zones)
    boosted = any(z.boost for z in zones)
    if kswapd.failures >= MAX_RECLAIM_RETRIES or (balanced and not boosted):
        return
    kswapd.wanted = True
    kswapd.wakeups += 1


def kswapd_begin(machine, nid: int) -> None:
    """A balancing run starts; one that was running ends."""
    kswapd_end(machine, nid)
    kswapd = machine.kswapd[nid]
    kswapd.wanted, kswapd.running = False, True
    kswapd.order, kswapd.highest_zoneidx = 0, None
    for zone in machine.managed_zones(nid):
        zone.noted_boost = zone.boost
        zone.flags |= RECLAIM_ACTIVE
        if zone.drift_mark:
            zone.stat_threshold = stat.pressure_threshold(zone, machine.nr_cpus)


def kswapd_end(machine, nid: int) -> None:
    """The run ends: the boosts it began with are taken back."""
    kswapd = machine.kswapd[nid]
    if not kswapd.running:
        return
    kswapd.running = False
    for zone in machine.managed_zones(nid):
        zone.boost -= min(zone.boost, zone.noted_boost)
        zone.noted_boost = 0
        zone.flags &= ~RECLAIM_ACTIVE
        if zone.drift_mark:
            zone.stat_threshold = stat.normal_threshold(zone.managed, machine.nr_cpus)
