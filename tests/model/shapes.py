"""Small machines of every kind that the allocator tells apart, and the [K] machines of the specification's examples."""

from dataclasses import dataclass
from functools import cache

from tests.reference import Plan, make_plan

LOW = [(1, 0x9F, 0), (0x100, 0x1000, 0)]  # DMA on a PC: all below 1 MiB stays reserved
RESERVED = [(0, 0x100)]
FOUR_GIB = 1 << 20


@dataclass(frozen=True)
class Shape:
    """How to boot a machine: the same for the core and the twin."""

    plan: Plan
    kernel: str = "6.12"
    thp: str = "always"


def small(ram, **options) -> Plan:
    """A machine with a DMA zone and the given RAM above it, a few reserved pages among it."""
    reserved = [*RESERVED, (0x1000, 0x1023), (0x17F0, 0x1801)]
    return make_plan([*LOW, *ram], reserved=reserved, **options)


@cache
def small_shapes() -> dict[str, Shape]:
    """Machines of 7 to 230 MiB, on which pressure is soon made."""
    return {
        "dma_only": Shape(make_plan(LOW, reserved=RESERVED)),
        "no_mobility": Shape(make_plan([LOW[0], (0x100, 0x800, 0)], reserved=RESERVED)),
        "one_zone": Shape(small([(0x1000, 0x3400, 0)], late=[(0x2F01, 0x2FC3)])),
        "two_cpus": Shape(small([(0x1000, 0x2C00, 0)], cpus=(0, 0))),
        "three_zones": Shape(small([(0x1000, 0x2800, 0), (FOUR_GIB, FOUR_GIB + 0x2400, 0)])),
        "two_nodes": Shape(
            small(
                [(0x1000, 0x2A00, 0), (0x2A00, 0x4000, 1), (FOUR_GIB, FOUR_GIB + 0x1400, 1)],
                cpus=(0, 0, 1, 1),
            )
        ),
        # the border between the nodes lies within a pageblock, and no CPU is near node 1
        "uneven_nodes": Shape(small([(0x1000, 0x26D4, 0), (0x26D4, 0x3C00, 1)], cpus=(0, 0))),
        # large enough that lists of CPUs hold more than single pages
        "medium": Shape(small([(0x1000, 0x7800, 0)], cpus=(0, 0), late=[(0x7000, 0x7101)])),
        "medium_nodes": Shape(
            small(
                [(0x1000, 0x5000, 0), (0x5000, 0x9000, 1), (FOUR_GIB, FOUR_GIB + 0x6400, 1)],
                cpus=(0, 1),
                distances=[[10, 15], [15, 10]],
            )
        ),
        "movable": Shape(small([(0x1000, 0x3800, 0)], movable_start={0: 0x2400})),
        "i386": Shape(small([(0x1000, 0x4000, 0)], arch="i386", lowmem_end=0x2FFE)),
        "i386_61": Shape(small([(0x1000, 0x3800, 0)], arch="i386", lowmem_end=0x2800), kernel="6.1"),
        "x86_61": Shape(small([(0x1000, 0x3000, 0)], cpus=(0, 0)), kernel="6.1"),
    }


def filled(dma32: int, normal: int = 0, *, late: int = 0, **options) -> Shape:
    """A PC whose zones have exactly so many managed pages when the watermarks are set; DMA has 3840.

    late: pages that DMA32 gets after them. Options: thp, cpus.
    """
    ram, reserved = list(LOW), list(RESERVED)
    top = 4096 + dma32
    ram.append((4096, top + late, 0))
    if normal:
        ram.append((FOUR_GIB, FOUR_GIB + normal, 0))
    plan = make_plan(ram, reserved=reserved, late=[(top, top + late)] if late else [], cpus=options.get("cpus", (0,)))
    return Shape(plan, thp=options.get("thp", "always"))


@cache
def one_gib() -> Shape:
    """The machine of the [K] measurements of 12.1: DMA32 min 11084, low 13855, high 16626."""
    return filled(237228, late=2020)
