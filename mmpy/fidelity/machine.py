"""Machine cases: a recorded machine is built, its sysctls are written as recorded, and every derived figure is compared.

Figures, each `nodeN.ZONE.` unless it says machine: spanned, present, start_pfn, min, low, high, promo (6.12), protection.J, pageblocks,
cpuC.batch, cpuC.high, cpuC.stat_threshold; of the machine: zones, min_free_kbytes, MemAvailable, policy_zone, mobility_grouping,
total_pages, nodeN.fallback. After a variation of the sysctls they have its name in front (min_free_1024.node0.Normal.high). Trace cases
get the same for the machine that they were recorded on (boot.node0.DMA32.cpu0.high_max), whose snapshots show high_min and high_max too.

Models: nothing itself; the rules are the simulator's. The per-CPU `high` of 6.12 is tuned while a machine runs, and clamped to its
limits only when its list is used: it is exact where a list was never used (0), and informative elsewhere. 6.1 fixes it: exact.
Simplifies: variations come in the order of the format's description. Omits: managed, which is an input.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from mmpy.fidelity import rows
from mmpy.fidelity.case import Case, RecordingError
from mmpy.fidelity.machine_inputs import KIB_PER_PAGE, MachineInputs, build, node_files, read_inputs
from mmpy.fidelity.rows import Row
from mmpy.proc import parse_meminfo, parse_pagetypeinfo, parse_zoneinfo
from mmpy.proc.meminfo import mem_available

if TYPE_CHECKING:
    from mmpy.machine import Machine
    from mmpy.proc import ZoneInfo, ZoneinfoText
    from mmpy.traces import AllocState, Recording
    from mmpy.views import ZoneView

# Variations by the start of their name: the sysctls they are about, in the order in which they were written.
FAMILIES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("min_free_", ("min_free_kbytes",)),
    ("wsf_", ("watermark_scale_factor",)),
    ("lowmem_", ("lowmem_reserve_ratio",)),
    ("pcphf_", ("percpu_pagelist_high_fraction",)),
    ("combo_", ("min_free_kbytes", "watermark_scale_factor")),
)
# What whoever ran the machine may have written before the first dump; min_free_kbytes is derived and compared.
PRESET = ("watermark_scale_factor", "lowmem_reserve_ratio", "percpu_pagelist_high_fraction")
THP = "kernel.mm.transparent_hugepage.enabled"

Progress = Callable[[int, int], object]


def compare_machine(case: Case, *, on_chunk: Progress | None = None) -> Iterator[Row]:
    """Rows of a machine case: after boot, then after each variation of the sysctls.

    RecordingError if the recording does not tell what machine it was; ValueError if it is one that we cannot build.
    """
    boot = "boot" if (case.directory / "boot").is_dir() else ""
    printed = parse_zoneinfo(case.text(boot, "zoneinfo"))
    inputs = _inputs(case, boot, printed)
    machine = build(inputs)
    known = inputs.release == inputs.kernel
    here = _Figures(case, machine, "", known)
    if not known:
        note = f"the rules of {inputs.kernel} stand in for those of {inputs.release}: nothing is exact"
        yield here.row("kernel", inputs.release, inputs.kernel, note=note)
    listed = _sysctls(case.optional_text(boot, "sysctl_vm") or "")
    for name in PRESET:
        if name in listed and listed[name] != machine.sysctl[f"vm.{name}"]:
            machine.sysctl[f"vm.{name}"] = listed[name]
    yield from here.zones(printed)
    yield from here.pageblocks(case.optional_text(boot, "pagetypeinfo"))
    yield from here.boot_log(case.text(boot, "dmesg"))
    if "min_free_kbytes" in listed:
        yield here.row("min_free_kbytes", listed["min_free_kbytes"], machine.sysctl["vm.min_free_kbytes"])
    yield from here.mem_available(case.optional_text(boot, "meminfo"))
    if "lowmem_reserve_ratio" in listed:
        # That dump read the file after zoneinfo, and reading it sets the protections anew.
        machine.sysctl["vm.lowmem_reserve_ratio"] = listed["lowmem_reserve_ratio"]
    variations = _variations(case)
    for i, name in enumerate(variations):
        yield from _compare_variation(case, machine, name, known)
        if on_chunk is not None:
            on_chunk(i + 1, len(variations))


def compare_trace_machine(case: Case, recording: Recording) -> Iterator[Row]:
    """Rows of the machine that a trace was recorded on, as its first snapshot shows it; none where the boot log was not kept.

    Huge pages were switched off before tracing (see mmpy.fidelity.inputs).
    """
    dmesg = case.optional_text("dmesg.txt")
    if dmesg is None or not recording.snapshots:
        return
    first = recording.snapshots[0]
    state = first.state
    text = first.text("zoneinfo")
    found = parse_zoneinfo(text).zones if text else []
    zones = [(z.node, z.name, z.managed) for z in found] or [(node, z["name"], z["managed"]) for (node, _), z in state["zones"].items()]
    cpus = 1 + max((cpu for z in state["zones"].values() for cpu in z["pcp"]), default=0)
    inputs = read_inputs(tuple(zones), dmesg, nr_cpus=cpus)
    machine = build(inputs)
    machine.sysctl[THP] = "never"
    yield from _Figures(case, machine, "boot.", inputs.release == inputs.kernel).snapshot(state)


def _inputs(case: Case, boot: str, printed: ZoneinfoText) -> MachineInputs:
    nproc = (case.optional_text(boot, "nproc") or "").strip()
    cpus = {pcp.cpu for zone in printed.zones for pcp in zone.pcp}
    return read_inputs(
        tuple((z.node, z.name, z.managed) for z in printed.zones),
        case.text(boot, "dmesg"),
        iomem=case.optional_text(boot, "iomem") or "",
        cmdline=case.optional_text(boot, "cmdline"),
        cpulists=node_files(case, boot, "cpulist"),
        distances=node_files(case, boot, "distance"),
        nr_cpus=int(nproc) if nproc.isdecimal() else max(len(cpus), 1),
    )


def _sysctls(text: str) -> dict[str, int | tuple[int, ...]]:
    """name:value lines of /proc/sys/vm, with or without a path before the name; what is no number is left out."""
    out: dict[str, int | tuple[int, ...]] = {}
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        words = value.split()
        if colon and words and all(re.fullmatch(r"-?\d{1,19}", word) for word in words):
            numbers = tuple(int(word) for word in words)
            out[name.rsplit("/", 1)[-1]] = numbers if len(numbers) > 1 else numbers[0]
    return out


def _variations(case: Case) -> list[str]:
    """Names of the variations, in the order in which they were recorded: by family, within it by number."""
    names = [p.name for p in case.directory.iterdir() if (p / "sysctls").is_file() and (p / "zoneinfo").is_file()]

    def order(name: str) -> tuple[int, int, str]:
        family = next((i for i, (start, _) in enumerate(FAMILIES) if name.startswith(start)), len(FAMILIES))
        number = re.search(r"\d+$", name)
        return family, int(number[0]) if number else 0, name

    return sorted(names, key=order)


def _compare_variation(case: Case, machine: Machine, name: str, known: bool) -> Iterator[Row]:
    wanted = _sysctls(case.text(name, "sysctls"))
    own = next((sysctls for start, sysctls in FAMILIES if name.startswith(start)), ())
    missing = [sysctl for sysctl in own if sysctl not in wanted]
    if missing:
        raise RecordingError(f"case {case.name}: {name}/sysctls does not tell {', '.join(missing)}")
    # What the variation before had written is set back; its own is written even if that changes nothing.
    for sysctl, value in wanted.items():
        if sysctl not in own and machine.sysctl[f"vm.{sysctl}"] != value:
            machine.sysctl[f"vm.{sysctl}"] = value
    for sysctl in own:
        machine.sysctl[f"vm.{sysctl}"] = wanted[sysctl]
    here = _Figures(case, machine, f"{name}.", known)
    yield from here.zones(parse_zoneinfo(case.text(name, "zoneinfo")))
    if "min_free_kbytes" in wanted:
        yield here.row("min_free_kbytes", wanted["min_free_kbytes"], machine.sysctl["vm.min_free_kbytes"])
    yield from here.mem_available(case.optional_text(name, "meminfo"))


class _Figures:
    """Rows of one machine under one prefix. `known`: the rules are those of the recorded kernel, so that exact figures are."""

    def __init__(self, case: Case, machine: Machine, prefix: str, known: bool) -> None:
        self.case, self.machine, self.prefix, self.known = case, machine, prefix, known
        self.ours = {(z.node, z.name): z for z in machine.zones}

    def row(self, name: str, kernel: Any, ours: Any, *, exact: bool = True, note: str = "") -> Row:
        return rows.figure(self.case.name, self.case.kind, self.prefix + name, kernel, ours, exact=exact and self.known, note=note)

    def zones(self, printed: ZoneinfoText) -> Iterator[Row]:
        """Everything that zoneinfo prints of each zone and that is no counter."""
        names = [[z.node, z.name] for z in printed.zones]
        mine = [[z.node, z.name] for z in self.machine.zones]
        yield rows.sequence(self.case.name, self.case.kind, f"{self.prefix}zones", names, mine, exact=self.known)
        for kernel in printed.zones:
            path = f"node{kernel.node}.{kernel.name}"
            ours = self.ours.get((kernel.node, kernel.name))
            if ours is None:
                yield rows.error(self.case.name, self.case.kind, "our machine has no such zone", name=self.prefix + path)
                continue
            for name in ("spanned", "present", "start_pfn"):
                if name != "start_pfn" or "start_pfn" in kernel.trailer:
                    yield self.row(f"{path}.{name}", getattr(kernel, name), getattr(ours, name))
            for name in ("min", "low", "high", "promo"):
                if name in kernel.fields:
                    # The boost comes from what ran.
                    yield self.row(f"{path}.{name}", kernel.fields[name] - kernel.boost, getattr(ours, name) - ours.boost)
            yield from self._protection(path, kernel.lowmem_reserve, ours.lowmem_reserve)
            yield from self._pcp(path, kernel, ours)

    def _protection(self, path: str, kernel: Sequence[int], ours: Sequence[int]) -> Iterator[Row]:
        for j, pages in enumerate(kernel):
            name = f"{path}.protection.{j}"
            if j < len(ours):
                yield self.row(name, pages, ours[j])
            else:
                yield rows.error(self.case.name, self.case.kind, "our zone has fewer", name=self.prefix + name, kernel=pages)

    def _pcp(self, path: str, kernel: ZoneInfo, ours: ZoneView) -> Iterator[Row]:
        mine = {p.cpu: p for p in ours.pcp}
        for pcp in kernel.pcp:
            at = f"{path}.cpu{pcp.cpu}"
            if pcp.cpu not in mine:
                yield rows.error(self.case.name, self.case.kind, "our machine has no such CPU", name=self.prefix + at)
                continue
            view = mine[pcp.cpu]
            yield self.row(f"{at}.batch", pcp.batch, view.batch)
            fixed = self.machine.kernel == "6.1"
            note = "" if fixed or not pcp.high else f"tuned as the machine runs, when used within {view.high_min}..{view.high_max}"
            yield self.row(f"{at}.high", pcp.high, view.high, exact=fixed or not pcp.high, note=note)
            for name in ("high_min", "high_max"):
                if (value := getattr(pcp, name)) is not None:
                    yield self.row(f"{at}.{name}", value, getattr(view, name))
            if pcp.stat_threshold is not None:
                yield self.row(f"{at}.stat_threshold", pcp.stat_threshold, ours.stat_threshold)

    def snapshot(self, state: AllocState) -> Iterator[Row]:
        """The same from the text of a snapshot, which also shows the limits of the per-CPU lists."""
        for (node, _), kernel in state["zones"].items():
            path = f"node{node}.{kernel['name']}"
            ours = self.ours.get((node, kernel["name"]))
            if ours is None:
                yield rows.error(self.case.name, self.case.kind, "our machine has no such zone", name=self.prefix + path)
                continue
            for name in ("start_pfn", "spanned", "present"):
                yield self.row(f"{path}.{name}", kernel[name], getattr(ours, name))
            for name, pages in zip(("min", "low", "high", "promo"), kernel["wmark"], strict=False):
                yield self.row(f"{path}.{name}", pages, getattr(ours, name) - ours.boost)
            yield from self._protection(path, kernel["lowmem_reserve"], ours.lowmem_reserve)
            mine = {p.cpu: p for p in ours.pcp}
            for cpu, pcp in kernel["pcp"].items():
                for name in ("batch", "high_min", "high_max"):
                    yield self.row(f"{path}.cpu{cpu}.{name}", pcp[name], getattr(mine[cpu], name))

    def pageblocks(self, text: str | None) -> Iterator[Row]:
        """How many pageblocks each zone has, of whatever type."""
        for (node, name), types in (parse_pagetypeinfo(text).blocks if text else {}).items():
            if (ours := self.ours.get((node, name))) is not None:
                yield self.row(f"node{node}.{name}.pageblocks", sum(types.values()), sum(ours.pageblock_counts()))

    def boot_log(self, dmesg: str) -> Iterator[Row]:
        """What the kernel says of its zonelists as it boots."""
        for node, order in re.findall(r"Fallback order for Node (\d+): ([\d ]*\d)", dmesg):
            nodes = [int(n) for n in order.split()]
            mine = self.machine.nodes[int(node)].fallback if int(node) < self.machine.nr_nodes else []
            yield rows.sequence(self.case.name, self.case.kind, f"{self.prefix}node{node}.fallback", nodes, mine, exact=self.known)
        if m := re.search(r"Policy zone: (\w+)", dmesg):
            yield self.row("policy_zone", m[1], self.machine.policy_zone)
        if m := re.search(r"mobility grouping (on|off)\.\s+Total pages: (\d+)", dmesg):
            yield self.row("mobility_grouping", m[1], "on" if self.machine.mobility_grouping else "off")
            if self.machine.kernel != "6.1":
                # 6.1 had taken an estimate of the memory map away by then.
                yield self.row("total_pages", int(m[2]), sum(z.present for z in self.machine.zones))

    def mem_available(self, text: str | None) -> Iterator[Row]:
        """MemAvailable in kB: totalreserve and low watermarks ours, what is free and reclaimable as recorded."""
        info = parse_meminfo(text) if text else {}
        if "MemAvailable" not in info or "MemFree" not in info:
            return
        pages = {name: kib // KIB_PER_PAGE for name, kib in info.items()}
        ours = mem_available(
            pages["MemFree"],
            self.machine.totalreserve_pages,
            pages.get("Active(file)", 0) + pages.get("Inactive(file)", 0),
            pages.get("KReclaimable", pages.get("SReclaimable", 0)),
            sum(z.low for z in self.machine.zones),
        )
        yield self.row("MemAvailable", info["MemAvailable"], ours * KIB_PER_PAGE)
