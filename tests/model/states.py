"""Hand-made allocator states: one DMA32 zone of a one-CPU machine, with exactly the free blocks a test wants."""

from tests.reference.alloc_state import blank_state
from tests.reference.buddy import boot_chunks
from tests.reference.constants import UNMOVABLE

FIRST = 0x4000  # where pages_free() puts its pages: a pageblock border inside DMA32


def zone(state: dict) -> dict:
    """The only zone that is not empty."""
    return state["zones"][0, 1]


def pages_free(nr: int, mt: int = UNMOVABLE, *, highatomic: int = 0, **options) -> dict:
    """nr free pages of one type in as few blocks as can be, and so many order-9 blocks of the highatomic reserve."""
    free = {}
    for pfn, order in boot_chunks(FIRST, FIRST + nr):
        free.setdefault((order, mt), []).append(pfn)
    first_reserved = (FIRST + nr + 1023) // 1024 * 1024
    reserved = [first_reserved + 1024 * i for i in range(highatomic)]
    if reserved:
        free[9, 3] = reserved
    last = (reserved or [FIRST + nr])[-1] + 512
    blocks = dict.fromkeys(range(FIRST >> 9, (last >> 9) + 1), mt)
    blocks.update((pfn >> 9, 3) for pfn in reserved)
    state = blank_state(options.pop("managed", nr + 4096), free, blocks, **options)
    zone(state)["nr_free_highatomic"] = zone(state)["nr_reserved_highatomic"] = 512 * highatomic
    return state


def blocks_free(free: dict, types: dict[int, int], **options) -> dict:
    """Free lists {(order, type): pfns}; pageblocks of the given types, the others MOVABLE."""
    last = max(pfn + (1 << order) for (order, _), pfns in free.items() for pfn in pfns)
    return blank_state(options.pop("managed", 40000), free, {(last - 1) >> 9: 1} | types, **options)


def free_lists(backend) -> dict:
    """{(order, type): pfns} of the DMA32 zone now."""
    return backend.allocator_state()["zones"][0, 1]["free"]
