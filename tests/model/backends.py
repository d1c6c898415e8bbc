"""The two allocators under test, by name."""

from tests.model.core_adapter import CoreAdapter
from tests.reference import TwinMachine


class Twin(TwinMachine):
    """The twin, booted like the core."""

    @classmethod
    def boot(cls, shape) -> "Twin":
        return cls.from_plan(shape.plan, kernel=shape.kernel, thp=shape.thp)

    @classmethod
    def load(cls, state: dict) -> "Twin":
        return cls.from_state(state)

    def stat_threshold(self, nid: int, zid: int) -> int:
        return self.zone(nid, zid).stat_threshold

    def pcp_count(self, nid: int, zid: int, cpu: int = 0) -> int:
        return self.zone(nid, zid).pcp[cpu].count

    def validate(self) -> None:
        """The twin is its own judge only as far as its counters go."""
        for zone in self.zones:
            free = sum(len(blocks) << order for order, lists in enumerate(zone.free) for blocks in lists)
            assert free == zone.nr_free_pages + sum(zone.diff), zone


BACKENDS = {"core": CoreAdapter, "twin": Twin}
