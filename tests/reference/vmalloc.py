"""Addresses of vmalloc, as section 3 of virtual_memory.md has them: lists that are searched from one end to the other.

Pages are not modelled: requests succeed if there is address space.
"""

from dataclasses import dataclass

PAGE = 4096
PMD = 2 << 20
VMALLOC = (0xFFFFC90000000000, 0xFFFFE90000000000 - PAGE)
POOLS = 256


@dataclass
class Range:
    start: int
    end: int
    node: int = -1
    array: int = 0  # address of its descriptor array's area

    @property
    def pages(self):
        return (self.end - self.start) // PAGE


def up(value, align):
    return (value + align - 1) // align * align


class Vmalloc:
    """A machine's vmalloc space."""

    def __init__(self, cpus=1, start=VMALLOC[0], end=VMALLOC[1], nr_nodes=1, one_node=False):
        self.start, self.end, self.cpus, self.numa_nodes = start, end, cpus, nr_nodes
        self.nodes = 1 if one_node else min(cpus, 128)
        self.free = [Range(start, end)]
        self.busy = {}
        self.lazy = [[] for _ in range(self.nodes)]
        self.pools = [[[] for _ in range(POOLS)] for _ in range(self.nodes)]
        self.purges = 0

    # ------------------------------------------------------------ address space

    def from_free(self, length, align):
        fits = [r for r in self.free if up(r.start, align) + length <= r.end]
        if align > PAGE and self.end - self.start != length:
            sure = [r for r in fits if r.end - r.start >= length + align - 1]
            fits = sure or fits
        if not fits:
            return None
        block = min(fits, key=lambda r: r.start)
        at = up(block.start, align)
        self.free.remove(block)
        for rest in (Range(block.start, at), Range(at + length, block.end)):
            if rest.start < rest.end:
                self.free.append(rest)
        return Range(at, at + length)

    def give_back(self, r):
        start, end = r.start, r.end
        for other in [f for f in self.free if f.end == start or f.start == end]:
            self.free.remove(other)
            start, end = min(start, other.start), max(end, other.end)
        self.free.append(Range(start, end))

    def alloc_area(self, length, align, cpu):
        node, area = cpu % self.nodes, None
        k = length // PAGE - 1
        if k < POOLS and self.pools[node][k]:
            pool = self.pools[node][k]
            if pool[0].start % align == 0:
                area = pool.pop(0)
            else:
                pool.append(pool.pop(0))
        if area is None:
            area = self.from_free(length, align)
        if area is None:
            self.purge(forced=True)
            area = self.from_free(length, align)
        if area is None:
            return None
        area = Range(area.start, area.end, node)
        self.busy[area.start] = area
        return area

    def free_area(self, area):
        del self.busy[area.start]
        node = area.node if area.node >= 0 else area.start // 65536 % self.nodes
        self.lazy[node].append(area)

    @property
    def lazy_pages(self):
        return sum(r.pages for lazy in self.lazy for r in lazy)

    @property
    def lazy_max(self):
        return self.cpus.bit_length() * 8192

    def purge(self, forced=False):
        self.purges += 1
        for node in range(self.nodes):
            self.decay(node, forced)
        for node in range(self.nodes):
            for r in sorted(self.lazy[node], key=lambda r: r.start):
                if r.pages <= POOLS and r.node >= 0 and not forced:
                    self.pools[node][r.pages - 1].insert(0, r)
                else:
                    self.give_back(r)
            self.lazy[node] = []

    def decay(self, node, full):
        for pool in self.pools[node]:
            count = len(pool) if full or len(pool) <= 3 else len(pool) // 4
            for _ in range(count):
                self.give_back(pool.pop(0))

    def shrink(self):
        for node in range(self.nodes):
            self.decay(node, True)

    def drain(self):
        while self.lazy_pages > self.lazy_max:
            self.purge()

    # ------------------------------------------------------------ the calls

    def area_for(self, size, align, cpu):
        area = self.alloc_area(up(size, PAGE) + PAGE, align, cpu)
        if area is None:
            return None
        array = (area.pages - 1) * 8
        if array > PAGE:
            nested = self.area_for(array, PAGE, cpu)
            if nested is None:
                self.free_area(area)
                return None
            area.array = nested.start
        return area

    def vmalloc(self, size, cpu=0, huge=False, node=-1):
        area = None
        if huge and (size if node >= 0 else size // self.numa_nodes) >= PMD:
            area = self.area_for(up(size, PMD), PMD, cpu)
        if area is None:
            area = self.area_for(size, PAGE, cpu)
        self.drain()
        return area.start if area else 0

    def ioremap(self, size, cpu=0, limit=30):
        size = up(size, PAGE)
        shift = min(max((size - 1).bit_length(), 12), limit)
        area = self.alloc_area(size + PAGE, 1 << shift, cpu)
        self.drain()
        return area.start if area else 0

    def vmap(self, nr_pages, cpu=0):
        area = self.alloc_area((nr_pages + 1) * PAGE, PAGE, cpu)
        self.drain()
        return area.start if area else 0

    def remove(self, address):
        area = self.busy[address]
        self.free_area(area)
        if area.array:
            self.remove(area.array)

    def vfree(self, address):
        self.remove(address)
        self.drain()

    def ranges(self):
        """Everything, by address: (start, end, what)."""
        out = [(r.start, r.end, "free") for r in self.free] + [(r.start, r.end, "busy") for r in self.busy.values()]
        out += [(r.start, r.end, "lazy") for lazy in self.lazy for r in lazy]
        out += [(r.start, r.end, "pooled") for pools in self.pools for pool in pools for r in pool]
        return sorted(out)
