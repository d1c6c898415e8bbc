"""Running operations on a machine: streams of them, and the single ones that have no call of their own.

Models: nothing by itself; mmcore.run does. Simplifies: operations name their CPU. Omits: nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mmcore.base.state import State
from mmcore.base.trace import Tracer
from mmcore.phys.memmap import as_int

CHUNK_OPS = 1 << 18


class Running:
    """What of Machine runs operations."""

    state: State
    nr_cpus: int
    nr_nodes: int

    def run(
        self,
        ops: np.ndarray,
        *,
        on_chunk: Callable[[int, int], object] | None = None,
        chunk: int = CHUNK_OPS,
        tracer: Tracer | None = None,
        on_checkpoint: Callable[[int, np.ndarray, np.ndarray], object] | None = None,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Run a stream of operations (array of mmcore.run.ops.OP_DTYPE) to its end.

        Returns rc (int64: 0 or a count, negative for a failed op), value (uint64: page frame, or offset into pages) and pages (uint32:
        those of bulk allocations). on_chunk(done, total) is called between chunks of `chunk` ops, on_checkpoint(id, rc, value) behind each
        CHECKPOINT; Ctrl-C and exceptions take effect there and leave a valid machine.
        """
        from mmcore.run import engine
        from mmcore.run.engine import Stop
        from mmcore.run.ops import OP_DTYPE, Op

        if not isinstance(ops, np.ndarray) or ops.dtype != OP_DTYPE or ops.ndim != 1:
            raise TypeError(f"ops must be a one-dimensional array of OP_DTYPE, not {getattr(ops, 'dtype', type(ops).__name__)}")
        if as_int(chunk, "chunk") < 1:
            raise ValueError(f"chunk is {chunk}; it must be at least 1")
        ops = np.ascontiguousarray(ops)
        rc, value = np.zeros(len(ops), np.int64), np.zeros(len(ops), np.uint64)
        bulk = ops["a"][ops["op"] == int(Op.ALLOC_BULK)] if len(ops) else ops
        room = int(bulk.sum(dtype=np.float64)) if len(bulk) else 0
        limit = int(self.state.globals["nr_pages"][0]) * 64
        if room > limit:
            raise ValueError(f"bulk allocations of the stream ask for {room} pages; the limit is {limit}")
        pages = np.zeros(room, np.uint32)
        at, used, stop = 0, 0, Stop.BUDGET
        while stop is not Stop.DONE:
            stop, at, used = engine.run(self.state, ops, rc, value, at, chunk, pages, used, tracer)
            if stop == Stop.AT_CHECKPOINT:
                if on_checkpoint is not None:
                    on_checkpoint(int(ops["a"][at - 1]), rc, value)
                if at == len(ops):
                    stop = Stop.DONE
            if on_chunk is not None:
                on_chunk(at, len(ops))
        return rc, value, pages[:used]

    def _one_op(self, *, engine_op: str, **fields: int) -> int:
        from mmcore.run.ops import OP_DTYPE, Op

        ops = np.zeros(1, OP_DTYPE)
        ops["op"] = int(Op[engine_op])
        for name, value in fields.items():
            ops[name] = value
        return int(self.run(ops)[0][0])

    def kswapd_begin(self, node: int = 0) -> None:
        """kswapd starts to balance a node: boosts are noted, the zones' lists are held short."""
        self._node(node)
        self._one_op(engine_op="KSWAPD_BEGIN", a=node)

    def kswapd_end(self, node: int = 0) -> None:
        """kswapd's run is over: the boosts noted at its start are taken back."""
        self._node(node)
        self._one_op(engine_op="KSWAPD_END", a=node)

    def _node(self, node: int) -> None:
        if not 0 <= as_int(node, "node") < self.nr_nodes:
            raise ValueError(f"node is {node}; the machine has {self.nr_nodes}")

    def drain_all_pages(self) -> None:
        """Give every page on per-CPU lists back to the buddy lists (drain_all_pages)."""
        self._one_op(engine_op="DRAIN_ALL")

    def vmstat_tick(self, cpu: int = 0) -> None:
        """One run of the vmstat worker on a CPU: folds differentials, lets `high` decay, drains what is above it."""
        if not 0 <= as_int(cpu, "cpu") < self.nr_cpus:
            raise ValueError(f"cpu is {cpu}; the machine has {self.nr_cpus}")
        self._one_op(engine_op="VMSTAT_TICK", cpu=cpu)
