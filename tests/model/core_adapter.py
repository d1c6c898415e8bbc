"""The core with the twin's methods and results: page frame numbers, 0, or negative codes."""

import numpy as np

from tests.reference.constants import EINVAL, NUMA_EVENTS, TASK_MEMALLOC, TASK_OOM_VICTIM

TRACE_EVENTS = {1: "rmqueue", 2: "pcp_drain", 3: "extfrag"}
OPF_OOM_VICTIM, OPF_MEMALLOC, OPF_PFN = 2, 4, 128
PG_LRU, PG_ORDER_SHIFT = 1 << 5, 28
PG_ALLOCATED = 1 << 27
CORE_ONLY_CODES = {1006, 1007, 1008, 1009}  # what the core tells apart and the twin calls -EINVAL


class CoreAdapter:
    """mmpy.Machine as the tests want it. `tracing` sends what it can through the engine, which reports tracepoints."""

    def __init__(self, machine):
        from mmcore.alloc import page_alloc, page_free
        from mmcore.base import errors
        from mmcore.base.trace import Tracer

        self.machine = machine
        self.state = machine.state
        self.taking, self.giving = page_alloc, page_free
        self.codes = errors.codes()
        self.tracer = Tracer()
        self.tracing = False

    @classmethod
    def boot(cls, shape) -> "CoreAdapter":
        """The core booted from a Shape."""
        from mmpy.machine import Machine

        return cls(Machine.from_plan(shape.plan, kernel=shape.kernel, thp=shape.thp))

    @classmethod
    def load(cls, state: dict) -> "CoreAdapter":
        """The core in the state that an AllocState of one node says, its spans taken for memory."""
        from mmpy.machine import Machine
        from tests.reference import make_plan

        zones = [z for z in state["zones"].values() if z["present"]]
        ram = [(z["start_pfn"], z["start_pfn"] + z["spanned"], 0) for z in zones]
        adapter = cls(Machine.from_plan(make_plan(ram, reserved=[(start, end) for start, end, _ in ram])))
        adapter.machine.load_allocator_state(state)
        return adapter

    # results

    def _code(self, error: Exception) -> int:
        for number, (kind, text) in self.codes.items():
            if isinstance(error, kind) and text in str(error):
                return EINVAL if number in CORE_ONLY_CODES else -number
        if isinstance(error, ValueError):
            return EINVAL
        raise error

    def _call(self, function, *args):
        try:
            result = function(self.state, *args)
        except (ValueError, MemoryError) as error:
            return self._code(error)
        return 0 if result is None else int(result)

    def _op(self, name: str, *, flags: int = 0, cpu: int = 0, pages=None, **fields: int) -> tuple[int, int]:
        """One op of the engine, traced: (rc, value). pages receives those of a bulk allocation."""
        from mmcore.run import engine
        from mmcore.run.ops import OP_DTYPE, Op

        ops = np.zeros(1, OP_DTYPE)
        ops["op"], ops["flags"], ops["cpu"] = int(Op[name]), flags, cpu
        for field, value in fields.items():
            ops[field] = value
        rc, value = np.zeros(1, np.int64), np.zeros(1, np.uint64)
        engine.run(self.state, ops, rc, value, pages_out=pages, tracer=self.tracer if self.tracing else None)
        code = int(rc[0])
        return EINVAL if -code in CORE_ONLY_CODES else code, int(value[0])

    # operations

    def alloc_pages(self, gfp, order=0, cpu=0, nid=-1, task=0) -> int:
        if self.tracing and not task & ~(TASK_MEMALLOC | TASK_OOM_VICTIM):
            flags = OPF_MEMALLOC * bool(task & TASK_MEMALLOC) | OPF_OOM_VICTIM * bool(task & TASK_OOM_VICTIM)
            rc, pfn = self._op("ALLOC", flags=flags, cpu=cpu, a=order, b=gfp, c=nid + 1)
            return rc if rc < 0 else pfn
        return self._call(self.taking.alloc_pages, gfp, order, cpu, nid, task)

    def free_pages(self, pfn, order=0, cpu=0) -> int:
        if self.tracing:
            return self._op("FREE", flags=OPF_PFN, cpu=cpu, a=pfn, b=order)[0]
        if pfn < 0:
            return -34  # the core's argument check has no code for it
        return self._call(self.giving.free_pages, pfn, order, cpu)

    def alloc_pages_many(self, n, gfp, order=0, cpu=0, nid=-1, task=0) -> list[int]:
        if self.tracing:
            pages = []
            while len(pages) < n and (pfn := self.alloc_pages(gfp, order, cpu, nid, task)) >= 0:
                pages.append(pfn)
            return pages
        out = np.zeros(n, np.uint32)
        return out[: max(0, self._call(self.taking.alloc_pages_many, out, gfp, order, cpu, nid, task))].tolist()

    def free_pages_many(self, pfns, order=0, cpu=0) -> int:
        if self.tracing:
            return next((code for pfn in pfns if (code := self.free_pages(pfn, order, cpu))), 0)
        return self._call(self.giving.free_pages_many, np.array(pfns, np.uint32), order, cpu)

    def alloc_pages_bulk(self, n, gfp, cpu=0, nid=-1, task=0):
        if n < 0:
            return EINVAL
        out = np.zeros(n, np.uint32)
        if self.tracing and not task:
            got = self._op("ALLOC_BULK", cpu=cpu, pages=out, a=n, b=gfp, c=nid + 1)[0]
            return out[: max(got, 0)].tolist() if got in (-12, *range(n + 1)) else got
        got = self._call(self.taking.alloc_pages_bulk, out, gfp, cpu, nid, task)
        return got if got < 0 else out[:got].tolist()

    def alloc_pages_exact(self, nr, gfp, cpu=0, nid=-1, task=0) -> int:
        return self._call(self.taking.alloc_pages_exact, nr, gfp, cpu, nid, task)

    def split_page(self, pfn, order) -> int:
        return self._call(self.giving.split_page, pfn, order)

    def get_page(self, pfn) -> int:
        return self._call(self.giving.get_page, pfn)

    def tick(self, cpu=0) -> None:
        self._op("VMSTAT_TICK", cpu=cpu)

    def drain_all_pages(self, cpu=0) -> None:
        self._op("DRAIN_ALL", cpu=cpu)

    def kswapd_begin(self, nid=0) -> None:
        self._op("KSWAPD_BEGIN", a=nid)

    def kswapd_end(self, nid=0) -> None:
        self._op("KSWAPD_END", a=nid)

    def sysctl_write(self, name, value) -> int:
        try:
            self.machine.sysctl[name] = value
        except (ValueError, KeyError):
            return EINVAL
        return 0

    def mark_lru(self, pfn, nr, on) -> None:
        """Mark blocks in use by their heads; a page that was in use before our time becomes a block of its own."""
        flags = self.state.pages["flags"]
        end = pfn + nr
        while pfn < end:
            flags[pfn] |= np.uint32(PG_ALLOCATED)
            flags[pfn] = flags[pfn] | PG_LRU if on else flags[pfn] & ~np.uint32(PG_LRU)
            pfn += 1 << (int(flags[pfn]) >> PG_ORDER_SHIFT)

    # looking

    @property
    def sysctl(self):
        return self.machine.sysctl

    @property
    def totalreserve_pages(self) -> int:
        return self.machine.totalreserve_pages

    def stat_threshold(self, nid: int, zid: int) -> int:
        return int(self.state.zones["stat_threshold"][nid * len(self.machine.zone_names) + zid])

    def pcp_count(self, nid: int, zid: int, cpu: int = 0) -> int:
        index = (nid * len(self.machine.zone_names) + zid) * self.machine.nr_cpus + cpu
        return int(self.state.pcps[index]["count"])

    def validate(self) -> None:
        self.machine.validate()

    def allocator_state(self) -> dict:
        return self.machine.allocator_state()

    def take_trace(self) -> list[tuple]:
        rows = []
        for row in self.tracer.take():
            fields = [int(row[name]) for name in ("pfn", "order", "mt")]
            if row["event"] == 3:
                fields += [int(row[name]) for name in ("fb_order", "fb_mt", "claimed")]
            rows.append((TRACE_EVENTS[int(row["event"])], *fields))
        return rows

    def counters(self) -> dict:
        zones, nodes = self.state.zones, self.state.nodes
        keys = [(int(z["node"]), int(z["zid"])) for z in zones]
        names = [name for name in self.machine.vmstat if name.startswith("pgalloc_") or name == "pgfree"]
        rows = {key: tuple(int(x) for x in z["numa_event"]) for key, z in zip(keys, zones, strict=True)}
        assert all(len(row) == len(NUMA_EVENTS) for row in rows.values())
        fallbacks = {key: (int(z["nr_claims"]), int(z["nr_steals"])) for key, z in zip(keys, zones, strict=True)}
        return {
            "events": {name: value for name in sorted(names) if (value := self.machine.vmstat[name])},
            "numa": {key: row for key, row in sorted(rows.items()) if any(row)},
            "kswapd": [
                (
                    bool(n["kswapd_wanted"]),
                    bool(n["kswapd_running"]),
                    int(n["kswapd_order"]),
                    int(n["kswapd_highest_zoneidx"]),
                    int(n["nr_kswapd_wakeups"]),
                )
                for n in nodes
            ],
            "fallbacks": {key: row for key, row in fallbacks.items() if any(row)},
        }
