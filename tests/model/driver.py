"""Random operations: drawn once, done on any backend, every result comparable.

An operation is a tuple of its name and numbers. It names a block in use by a number that is taken modulo how many there are, so that
the same list of operations means the same on every machine that gives the same results.
"""

from dataclasses import dataclass
from random import Random

from tests.model.shapes import Shape
from tests.reference import gfp
from tests.reference.constants import (
    TASK_INTERRUPT,
    TASK_MEMALLOC,
    TASK_NOFS,
    TASK_OOM_VICTIM,
    TASK_PIN,
    TASK_RT,
)

MASKS = [
    gfp.GFP_KERNEL,
    gfp.GFP_KERNEL,
    gfp.GFP_HIGHUSER_MOVABLE,
    gfp.GFP_HIGHUSER_MOVABLE,
    gfp.GFP_HIGHUSER_MOVABLE | gfp.COMP,
    gfp.GFP_ATOMIC,
    gfp.GFP_NOWAIT,
    gfp.GFP_NOWAIT | gfp.MOVABLE,
    gfp.GFP_KERNEL | gfp.RECLAIMABLE,
    gfp.GFP_KERNEL | gfp.COMP | gfp.ZERO,
    gfp.GFP_KERNEL | gfp.NOFAIL,
    gfp.GFP_KERNEL | gfp.DMA,
    gfp.GFP_KERNEL | gfp.DMA32,
    gfp.GFP_KERNEL | gfp.NOMEMALLOC,
    gfp.GFP_KERNEL | gfp.THISNODE,
    gfp.GFP_ATOMIC | gfp.MEMALLOC | gfp.RECLAIMABLE,
    gfp.GFP_NOFS | gfp.HIGH,
    gfp.HIGH | gfp.NOMEMALLOC,
    gfp.GFP_TRANSHUGE,
    gfp.GFP_HIGHUSER,
    gfp.GFP_KERNEL | gfp.ACCOUNT,
    0,
]
BAD_MASKS = [0x3, 0x5, 0x7, 0xB, 0xF, 0x18, 0x200, 1 << 25]
ORDERS = [0] * 12 + [1, 1, 1, 2, 2, 3, 3, 3, 4, 5, 6, 7, 8, 9, 9, 10]
TASKS = [0] * 12 + [
    TASK_MEMALLOC,
    TASK_MEMALLOC | TASK_INTERRUPT,
    TASK_OOM_VICTIM,
    TASK_NOFS,
    TASK_PIN,
    TASK_RT,
]
OP_TASKS = [0, 0, 0, TASK_MEMALLOC, TASK_OOM_VICTIM]
ALWAYS_LEGAL = ("vm.min_free_kbytes", "vm.watermark_scale_factor", "vm.watermark_boost_factor")


@dataclass(slots=True, eq=False)
class Block:
    """A block in use."""

    pfn: int
    order: int
    compound: bool
    extra_refs: int = 0
    lru: bool = False


class Session:
    """A machine and the blocks taken from it."""

    def __init__(self, machine, zone_types: int):
        self.machine = machine
        self.zone_types = zone_types
        self.live: list[Block] = []

    def do(self, op: tuple):
        """Do one operation; what it returns is equal on equal machines."""
        return getattr(self, "do_" + op[0])(*op[1:])

    def do_alloc(self, mask, order, cpu, nid, task):
        pfn = self.machine.alloc_pages(mask, order, cpu, nid, task)
        if pfn >= 0:
            self.live.append(Block(pfn, order, bool(order and mask & gfp.COMP)))
        return pfn

    def do_run(self, n, mask, order, cpu, nid, task):
        pages = self.machine.alloc_pages_many(n, mask, order, cpu, nid, task)
        self.live += [Block(pfn, order, bool(order and mask & gfp.COMP)) for pfn in pages]
        return pages

    def do_bulk(self, n, mask, cpu, nid):
        pages = self.machine.alloc_pages_bulk(n, mask, cpu, nid)
        if isinstance(pages, list):
            self.live += [Block(pfn, 0, False) for pfn in pages]
        return pages

    def do_exact(self, nr, mask, cpu, nid):
        pfn = self.machine.alloc_pages_exact(nr, mask, cpu, nid)
        if pfn >= 0:
            self.live += [Block(pfn + i, 0, False) for i in range(nr)]
        return pfn

    def do_free(self, k, cpu):
        if not self.live:
            return None
        k %= len(self.live)
        block = self.live[k]
        if block.lru and self.machine.tracing:
            # the engine takes the mark off, a call refuses the page
            self.unmark(block)
        code = self.machine.free_pages(block.pfn, block.order, cpu)
        if code:
            return code
        if block.extra_refs:
            block.extra_refs -= 1
            if not block.compound:
                block.order = 0
        else:
            del self.live[k]
        return code

    def unmark(self, block: Block) -> None:
        """Take a block off the LRU."""
        if block.lru:
            self.machine.mark_lru(block.pfn, 1 << block.order, False)
            block.lru = False

    def do_free_run(self, how, n, cpu):
        """Free up to n blocks: the newest or oldest first, or every third one."""
        codes = []
        for i in range(min(n, len(self.live))):
            k = {"newest": -1, "oldest": 0, "third": 2 * i}[how]
            block = self.live[k % len(self.live)]
            self.unmark(block)
            codes.append(self.do_free(k, cpu))
        return codes

    def do_free_many(self, order, n, cpu):
        """Free in one call up to n blocks of an order that no one else holds."""
        plain = [b for b in self.live if b.order == order and not b.extra_refs and not b.lru][:n]
        if not plain:
            return None
        gone = {b.pfn for b in plain}
        self.live = [b for b in self.live if b.pfn not in gone]
        return self.machine.free_pages_many([b.pfn for b in plain], order, cpu)

    def do_bad_free(self, pfn, order, cpu):
        """Free something that is not in use so; whatever is in use so by chance is left alone."""
        if any(b.pfn == pfn and b.order == order for b in self.live):
            return None
        return self.machine.free_pages(pfn, order, cpu)

    def do_wrong_order(self, k, order, cpu):
        if not self.live:
            return None
        block = self.live[k % len(self.live)]
        if block.order == order:
            order = (order + 1) % 11
        return self.machine.free_pages(block.pfn, order, cpu)

    def do_tail_free(self, k, cpu):
        if not self.live:
            return None
        block = self.live[k % len(self.live)]
        return self.machine.free_pages(block.pfn + 1, 0, cpu) if block.order else None

    def do_split(self, k):
        if not self.live:
            return None
        k %= len(self.live)
        block = self.live[k]
        if block.extra_refs or block.lru or not block.order:
            return None
        code = self.machine.split_page(block.pfn, block.order)
        if code == 0:
            del self.live[k]
            self.live += [Block(block.pfn + i, 0, False) for i in range(1 << block.order)]
        return code

    def do_get(self, k):
        if not self.live:
            return None
        block = self.live[k % len(self.live)]
        code = self.machine.get_page(block.pfn)
        block.extra_refs += code == 0
        return code

    def do_lru(self, k, n):
        """Mark n blocks as on the LRU (movable)."""
        for i in range(min(n, len(self.live))):
            block = self.live[(k + i) % len(self.live)]
            # a tail that a speculative reference splits off must not carry the mark
            if not block.extra_refs and not block.lru:
                self.machine.mark_lru(block.pfn, 1 << block.order, True)
                block.lru = True

    def do_tick(self, cpu):
        self.machine.tick(cpu)

    def do_drain(self, cpu):
        self.machine.drain_all_pages(cpu)

    def do_kswapd_begin(self, nid):
        self.machine.kswapd_begin(nid)

    def do_kswapd_end(self, nid):
        self.machine.kswapd_end(nid)

    def do_sysctl(self, name, value):
        if name == "vm.lowmem_reserve_ratio":
            value = value[: self.zone_types]
        return self.machine.sysctl_write(name, value)


def draw_sysctl(rng: Random, managed: int) -> tuple:
    """A sysctl write, mostly legal."""
    name = rng.choice([*ALWAYS_LEGAL, "vm.lowmem_reserve_ratio", "vm.percpu_pagelist_high_fraction", "thp"])
    if name == "thp":
        return "sysctl", "kernel.mm.transparent_hugepage.enabled", rng.choice(["always", "madvise", "never"])
    if name == "vm.min_free_kbytes":
        # at most an eighth of the machine: more makes every later allocation fail
        return "sysctl", name, rng.choice([0, 128, 1024, managed // 16, managed // 4, managed // 2])
    values = {
        "vm.watermark_scale_factor": [1, 10, 10, 100, 300, 0, 3001],
        "vm.watermark_boost_factor": [0, 15000, 15000, 40000],
        "vm.lowmem_reserve_ratio": [(256, 256, 32, 0, 0), (64, 32, 16, 8, 0), (0, 0, 0, 0, 0), (16, -3)],
        "vm.percpu_pagelist_high_fraction": [0, 0, 8, 50, 7],
    }
    return "sysctl", name, rng.choice(values[name])


def draw_ops(shape: Shape, seed: int, n: int, *, traced: bool = False) -> list[tuple]:
    """n operations for a machine of this shape. Stretches of filling, emptying and churning follow each other.

    traced: only such as the engine knows as ops, so that tracepoints can be had of them.
    """
    rng = Random(seed)
    plan = shape.plan
    cpus, nodes = len(plan.cpu_node), len(plan.nodes)
    managed = sum(end - start for _, start, end in plan.free_ranges)
    most = max(4, min(600, managed // 12))
    ops, fill = [], 0.6
    while len(ops) < n:
        if rng.random() < 0.02:
            fill = rng.choice([0.2, 0.45, 0.55, 0.8, 0.9])
        cpu, k = rng.randrange(cpus), rng.randrange(1 << 30)
        nid = rng.choice([-1, -1, *range(nodes)])
        mask, order, task = rng.choice(MASKS), rng.choice(ORDERS), rng.choice(OP_TASKS if traced else TASKS)
        x = rng.random()
        if x < 0.13:
            ops.append(rare_op(rng, managed, cpus, nodes))
        elif x < 0.17 and not traced:
            ops.append(misused_op(rng, plan.max_pfn, cpu, k))
        elif rng.random() < fill:
            kind = rng.choice(["alloc", "alloc", "run", "bulk"] + ["exact"] * (not traced))
            if kind == "alloc":
                ops.append(("alloc", mask, order, cpu, nid, task))
            elif kind == "run":
                length = rng.randrange(1, max(2, most >> order))
                ops.append(("run", length, mask, order, cpu, nid, task))
            elif kind == "bulk":
                ops.append(("bulk", rng.choice([0, 1, 2, 16, 48, most]), mask, cpu, nid))
            else:
                plain = mask & ~(gfp.COMP | gfp.HIGHMEM)
                ops.append(("exact", rng.randrange(1, rng.choice([4, 32, 513])), plain, cpu, nid))
        else:
            kind = rng.choice(["free", "free", "free_run", "free_many"])
            if kind == "free":
                ops.append(("free", k, cpu))
            elif kind == "free_run":
                how = rng.choice(["newest", "oldest", "third"])
                ops.append(("free_run", how, rng.randrange(1, most), cpu))
            else:
                ops.append(("free_many", order, rng.randrange(1, most), cpu))
    return ops


def rare_op(rng: Random, managed: int, cpus: int, nodes: int) -> tuple:
    """What happens now and then."""
    cpu, nid, k = rng.randrange(cpus), rng.randrange(nodes), rng.randrange(1 << 30)
    choices = [
        ("tick", cpu),
        ("tick", cpu),
        ("tick", cpu),
        ("drain", cpu),
        ("kswapd_begin", nid),
        ("kswapd_end", nid),
        ("split", k),
        ("get", k),
        ("lru", k, rng.randrange(1, 40)),
        draw_sysctl(rng, managed),
    ]
    return rng.choice(choices)


def misused_op(rng: Random, max_pfn: int, cpu: int, k: int) -> tuple:
    """What must be refused, or rather must be refused alike."""
    choices = [
        ("alloc", rng.choice(BAD_MASKS), 0, cpu, -1, 0),
        ("alloc", gfp.GFP_KERNEL, rng.choice([11, 64]), cpu, -1, 0),
        ("alloc", gfp.GFP_KERNEL, 0, cpu, 99, 0),
        ("alloc", gfp.GFP_KERNEL, 0, 99, -1, 0),
        ("bulk", 5, rng.choice(BAD_MASKS), cpu, -1),
        ("bad_free", rng.randrange(max_pfn), rng.randrange(11), cpu),
        ("bad_free", rng.randrange(0x1000), 0, cpu),
        ("bad_free", max_pfn, 0, cpu),
        ("bad_free", rng.randrange(max_pfn), 11, cpu),
        ("wrong_order", k, rng.randrange(11), cpu),
        ("tail_free", k, cpu),
        ("free", k, 99),
    ]
    return rng.choice(choices)
