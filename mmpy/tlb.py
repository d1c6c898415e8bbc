"""The TLBs of a machine: what they caught, and flushes.

Models: mmcore.vm.tlb's counters; nr_tlb_* have the kernel's names and stand here only (Debian's kernel shows them in no file).
Simplifies: data accesses only. Omits: instruction TLBs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from mmcore.base.state import State

if TYPE_CHECKING:
    from mmcore.vm.tlb_model import TlbModel
    from mmpy.machine import Machine


def attach_tlb(state: State, name: str, arch: str) -> None:
    """Give a machine that has just booted its TLBs; "off": none."""
    if name == "off":
        return
    from mmcore.vm.tlb_model import TlbModel

    g = state.vm_globals[0]
    overrides = {"asids": 1} if arch == "i386" else {}
    model = TlbModel(name, int(state.globals["nr_cpus"][0]), pt_levels=int(g["pt_levels"]), pt_bits=int(g["pt_bits"]), **overrides)
    state.attach("tlb", model)


class TlbView(Mapping[str, int]):
    """machine.tlb["misses_4k"]: counters of all CPUs together; machine.tlb.cpu(0)["l1_hits"]: of one.

    Hits of both levels (l1_hits, l2_hits), fills of what was not cached by page size (misses_4k, misses_2m, misses_1g), writes through
    entries that were clean (rewalks), memory accesses of walks (walk_steps), and the kernel's flush counters (nr_tlb_*).
    A machine without TLBs has no counters and is false.
    """

    def __init__(self, machine: Machine, cpu: int | None = None) -> None:
        self._machine = machine
        self._cpu = cpu

    @property
    def model(self) -> TlbModel | None:
        """The model itself, with what each CPU has cached; None: this machine has no TLBs."""
        model: TlbModel | None = self._machine.state.extras.get("tlb")
        return model

    @property
    def kind(self) -> str:
        """ "off", "sets" or "unbounded"."""
        if self.model is None:
            return "off"
        from mmcore.vm.tlb_config import KINDS

        return list(KINDS)[int(self.model.config["kind"][0])]

    def cpu(self, cpu: int) -> TlbView:
        """The counters of one CPU."""
        if not 0 <= cpu < self._machine.nr_cpus:
            raise ValueError(f"cpu is {cpu}; the machine has {self._machine.nr_cpus}")
        return TlbView(self._machine, cpu)

    def stats(self) -> dict[str, int]:
        """All counters by name."""
        return {} if self.model is None else self.model.stats(self._cpu)

    @property
    def hits(self) -> int:
        """Hits of both levels."""
        stats = self.stats()
        return stats.get("l1_hits", 0) + stats.get("l2_hits", 0)

    @property
    def misses(self) -> int:
        """Fills of all page sizes."""
        return sum(value for name, value in self.stats().items() if name.startswith("misses_"))

    def flush(self, cpu: int | None = None) -> None:
        """A CPU (None: every one, or the view's own) forgets all translations; pages that it has batched go onto the LRU lists."""
        if cpu is None:
            cpu = self._cpu
        elif not 0 <= cpu < self._machine.nr_cpus:
            raise ValueError(f"cpu is {cpu}; the machine has {self._machine.nr_cpus}")
        for one in range(self._machine.nr_cpus) if cpu is None else (cpu,):
            self._machine._one_op(engine_op="TLB_FLUSH", cpu=one)

    def __getitem__(self, name: str) -> int:
        return self.stats()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.stats())

    def __len__(self) -> int:
        return len(self.stats())

    def __repr__(self) -> str:
        where = "" if self._cpu is None else f" of CPU {self._cpu}"
        if self.model is None:
            return f"<TLB{where}: off>"
        return f"<TLB{where}: {self.kind}, {self.hits} hits, {self.misses} misses, {self['walk_steps']} walk steps>"

    def _repr_html_(self) -> str:
        rows = "".join(f"<tr><th>{name}</th><td>{value}</td></tr>" for name, value in self.items())
        where = "" if self._cpu is None else f" of CPU {self._cpu}"
        return f"<table><caption>TLB{where}: {self.kind}</caption>{rows}</table>"
