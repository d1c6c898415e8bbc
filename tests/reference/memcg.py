"""Memory control groups the slow way: written from the specification (spec/reclaim.md, section 12), not from the core.

Models: page counters with a stock a CPU, the byte stock of objects, effective protection, counts of updates and folding. Reclaim frees
nothing here. Everything is pages but object sizes.
"""

from __future__ import annotations

BATCH = 64
PAGE = 4096
NO_LIMIT = ((1 << 63) - 1) // PAGE


class Group:
    def __init__(self, name: str, parent: Group | None) -> None:
        self.name, self.parent = name, parent
        self.children: list[Group] = []
        self.usage = self.peak = self.kmem = self.left = self.objects = self.outside = self.waiting = 0
        self.limits = {"max": NO_LIMIT, "high": NO_LIMIT, "low": 0, "min": 0}
        self.events = dict.fromkeys(("low", "high", "max", "oom"), 0)
        self.local = dict(self.events)
        self.dying = False
        self.pgpgin = self.pgpgout = 0
        self.folded = (0, 0, 0)
        self.recent = self.pending = 0
        self.emin = self.elow = 0

    def up(self) -> list[Group]:
        """The group and those above it, the root too."""
        out: list[Group] = []
        g: Group | None = self
        while g is not None:
            out.append(g)
            g = g.parent
        return out

    def below(self) -> list[Group]:
        return [self, *(g for child in self.children for g in child.below())]


class Cpu:
    def __init__(self) -> None:
        self.group: Group | None = None
        self.pages = 0
        self.object_group: Group | None = None
        self.bytes = 0


class Memcgs:
    """All groups of a machine of `nr_cpus` CPUs."""

    def __init__(self, nr_cpus: int) -> None:
        self.root = Group("", None)
        self.cpus = [Cpu() for _ in range(nr_cpus)]
        self.threshold = BATCH * nr_cpus

    # ---------------------------------------------------------------- counters

    def uncharge(self, group: Group, n: int) -> None:
        for g in group.up():
            g.usage -= n
        self.release(group)

    def release(self, group: Group) -> None:
        g: Group | None = group
        while g is not None and g.dying and not g.usage and not g.children:
            above = g.parent
            assert above is not None
            above.children.remove(g)
            above.pgpgin += g.pgpgin
            above.pgpgout += g.pgpgout
            g = above

    def fits(self, group: Group, n: int) -> Group | None:
        """Charges n pages; or the group whose limit is in the way, after raising the peaks of those below it."""
        for g in group.up():
            if g.parent is not None and g.usage + n > g.limits["max"]:
                return g
            g.peak = max(g.peak, g.usage + n)
        for g in group.up():
            g.usage += n
        return None

    def drain_pages(self, cpu: Cpu) -> None:
        group, n, cpu.group, cpu.pages = cpu.group, cpu.pages, None, 0
        if group is not None and n:
            self.uncharge(group, n)

    def stock(self, cpu: Cpu, group: Group, n: int) -> None:
        if group.dying:
            self.uncharge(group, n)
            return
        if cpu.group is not group:
            self.drain_pages(cpu)
            cpu.group = group
        cpu.pages += n
        if cpu.pages > BATCH:
            self.drain_pages(cpu)

    def drain_bytes(self, cpu: Cpu) -> None:
        group, n, cpu.object_group, cpu.bytes = cpu.object_group, cpu.bytes, None, 0
        if group is None:
            return
        if group.waiting:
            self.slab(group, group.waiting)
            group.waiting = 0
        pages, rest = divmod(n, PAGE)
        group.left += rest
        if group.dying:
            pages += group.left // PAGE
            group.left %= PAGE
        if pages:
            self.kernel(group, -pages)
            self.stock(cpu, group, pages)

    def drain_all(self, top: Group) -> None:
        for cpu in self.cpus:
            pages = cpu.group is not None and cpu.pages and top in cpu.group.up()
            objects = cpu.object_group is not None and top in cpu.object_group.up()
            if pages or objects:
                self.drain_bytes(cpu)
                self.drain_pages(cpu)

    def event(self, group: Group, name: str) -> None:
        group.local[name] += 1
        for g in group.up():
            if g.parent is not None:
                g.events[name] += 1

    def charge(self, group: Group, n: int, cpu: Cpu, *, block: bool = True, force: bool = False, give_up: bool = False) -> bool:
        """try_charge: whether n pages are charged now. Reclaim never finds anything."""
        want, drained, tries, told = max(n, BATCH), False, 16, False
        while True:
            if n <= BATCH and cpu.group is group and cpu.pages >= n:
                cpu.pages -= n
                return True
            full = self.fits(group, want)
            if full is None:
                if want > n:
                    self.stock(cpu, group, want - n)
                return True
            if want > n:
                want = n
                continue
            if not block:
                break
            self.event(full, "max")
            told = True
            if max(full.limits["max"] - full.usage, 0) >= n:
                continue
            if not drained:
                self.drain_all(full)
                drained = True
                continue
            if give_up:
                break
            if tries:
                tries -= 1
                continue
            if n <= 8:
                self.event(full, "oom")
            break
        if not force:
            return False
        if not told:
            self.event(full, "max")
        for g in group.up():
            g.usage += n
            g.peak = max(g.peak, g.usage)
        return True

    # ---------------------------------------------------------------- statistics

    def updated(self, group: Group, n: int) -> None:
        for g in group.up() if n else ():
            g.recent += abs(n)
            if g.recent >= BATCH:
                if g.pending <= self.threshold:
                    g.pending += g.recent
                g.recent = 0

    def kernel(self, group: Group, n: int) -> None:
        group.kmem += n
        self.updated(group, n)

    def slab(self, group: Group, n: int) -> None:
        self.updated(group, max(n // PAGE, 1) if n > 0 else (-n + PAGE - 1) // PAGE)

    def fold(self, top: Group) -> None:
        for g in top.below():
            members = g.below()
            g.folded = (sum(m.kmem for m in members), sum(m.pgpgin for m in members), sum(m.pgpgout for m in members))
            g.recent = g.pending = 0

    def read_stat(self, group: Group) -> None:
        if group.pending > self.threshold:
            self.fold(group)

    # ---------------------------------------------------------------- pages and objects

    def charge_page(self, group: Group, order: int, cpu: Cpu, **how: bool) -> bool:
        if not self.charge(group, 1 << order, cpu, **how):
            return False
        group.pgpgin += 1
        self.updated(group, 1)
        return True

    def uncharge_page(self, group: Group, order: int) -> None:
        group.pgpgout += 1
        self.updated(group, 1)
        self.uncharge(group, 1 << order)

    def objects_of(self, cpu: Cpu, group: Group) -> bool:
        """The CPU's byte stock becomes the group's; whether it was another's."""
        if cpu.object_group is group:
            return False
        self.drain_bytes(cpu)
        cpu.object_group, cpu.bytes, group.left = group, group.left, 0
        return True

    def give_bytes(self, group: Group, n: int, cpu: Cpu, *, back: bool) -> None:
        back |= self.objects_of(cpu, group)
        cpu.bytes += n
        if group.dying:
            self.drain_bytes(cpu)
        elif back and cpu.bytes > PAGE:
            pages, cpu.bytes = divmod(cpu.bytes, PAGE)
            self.kernel(group, -pages)
            self.stock(cpu, group, pages)

    def count_bytes(self, group: Group, n: int, cpu: Cpu) -> None:
        group.objects += n
        self.objects_of(cpu, group)
        if not group.waiting:
            group.waiting = n
            return
        group.waiting += n
        if abs(group.waiting) > PAGE:
            self.slab(group, group.waiting)
            group.waiting = 0

    def charge_object(self, group: Group, size: int, cpu: Cpu) -> bool:
        if cpu.object_group is group and cpu.bytes >= size:
            cpu.bytes -= size
        else:
            pages = -(-size // PAGE)
            if not self.charge(group, pages, cpu):
                return False
            self.kernel(group, pages)
            if pages * PAGE > size:
                self.give_bytes(group, pages * PAGE - size, cpu, back=False)
        self.count_bytes(group, size, cpu)
        return True

    def uncharge_object(self, group: Group, size: int, cpu: Cpu) -> None:
        if group.dying:
            self.count_bytes(group, -size, cpu)
            self.give_bytes(group, size, cpu, back=True)
        else:
            self.give_bytes(group, size, cpu, back=True)
            self.count_bytes(group, -size, cpu)

    def charge_kernel(self, group: Group, n: int, cpu: Cpu) -> int:
        for done in range(n):
            if not self.charge(group, 1, cpu):
                return done
            self.kernel(group, 1)
            group.outside += 1
        return n

    def uncharge_kernel(self, group: Group, n: int) -> None:
        group.outside -= n
        self.kernel(group, -n)
        self.uncharge(group, n)

    # ---------------------------------------------------------------- life, protection

    def create(self, parent: Group, name: str) -> Group:
        group = Group(name, parent)
        parent.children.append(group)
        return group

    def remove(self, group: Group) -> bool:
        if any(not child.dying for child in group.children):
            return False
        group.limits["low"] = group.limits["min"] = 0
        group.dying = True
        self.drain_all(group)
        if group.parent is not None and group in group.parent.children:
            self.release(group)
        return True

    def set_max(self, group: Group, pages: int) -> None:
        group.limits["max"] = pages
        if group.usage > pages:
            self.drain_all(group)
        if group.usage > pages:
            self.event(group, "oom")

    def protect(self, target: Group) -> None:
        """Effective protection of every group below `target`, parents first."""
        for g in target.below():
            if g is target or not g.usage:
                continue
            p = g.parent
            assert p is not None
            for kind in ("min", "low"):
                if p is target:
                    found = g.limits[kind]
                else:
                    above = p.emin if kind == "min" else p.elow
                    claimed = sum(min(s.usage, s.limits[kind]) for s in p.children)
                    own = min(g.usage, g.limits[kind])
                    if claimed > above:
                        found = own * above // claimed
                    else:
                        found = own
                        if above > claimed and p.usage > claimed and g.usage > own:
                            found += (above - claimed) * (g.usage - own) // (p.usage - claimed)
                setattr(g, "emin" if kind == "min" else "elow", found)
