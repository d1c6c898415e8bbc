"""What a machine case takes from its recording: the shape of the machine, and no figure that is compared.

Reads the boot log, /proc/iomem, the node files of sysfs and the command line; of /proc/zoneinfo only the zones' names and `managed`.
The table of all such inputs is in mmpy.fidelity.inputs.

Models: which pages a boot gives back only after the watermarks were set (mm/page_alloc.c: free_reserved_area, called for the initrd,
init sections and unused decrypted memory), and where they lie. Simplifies: a part of the kernel image lies where its data section
does. Omits: memory hotplug, command lines that move the kernel (crashkernel, memmap=).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from mmpy.fidelity.case import Case, RecordingError
from mmpy.machine import Machine, MemoryMap

PAGE_SHIFT = 12
KIB_PER_PAGE = 4
DEFAULT_KERNEL_ADDRESS = 16 << 20
# Kernels whose rules are known, and from which version on the rules of the later one are the nearer ones (per-CPU lists tune themselves).
RULES = ("6.1", "6.12")
FIRST_LIKE_LATER = (6, 7)

_RANGE = re.compile(r"node\s+(\d+): \[mem 0x([0-9a-f]+)-0x([0-9a-f]+)\]")
_RAMDISK = re.compile(r"RAMDISK: \[mem 0x([0-9a-f]+)-0x([0-9a-f]+)\]")
_FREEING = re.compile(r"\bFreeing (initrd|unused [^:]*?) memory: (\d+)K")
_HIGHMEM = re.compile(r"^(?:\[[^\]]*\])?\s+HighMem\s+\[mem 0x([0-9a-f]+)-0x([0-9a-f]+)\]", re.MULTILINE)
_VERSION = re.compile(r"Linux version (\d+)\.(\d+)\S*")
_IOMEM = re.compile(r"^\s*([0-9a-f]+)-([0-9a-f]+) : (.*)$")

ZoneKey = tuple[int, str]


@dataclass(frozen=True)
class LateFree:
    """Pages given back after the watermarks were set: `what` the log calls them, their first pfn, how many."""

    what: str
    start_pfn: int
    pages: int


@dataclass(frozen=True)
class MachineInputs:
    """The machine of a recording. pfns count 4 KiB pages; ranges end exclusively; zones are (node, name)."""

    arch: str
    release: str
    """major.minor of the recorded kernel"""
    ranges: tuple[tuple[int, int, int], ...]
    """(first pfn, end pfn, node), ascending"""
    zones: tuple[tuple[int, str, int], ...]
    """(node, name, managed pages as finally printed), in the kernel's order"""
    late: tuple[LateFree, ...]
    cpu_nodes: tuple[int, ...]
    """node of each CPU"""
    distances: tuple[tuple[int, ...], ...] | None
    lowmem_end_pfn: int | None
    """where HighMem begins, None without HighMem"""
    kernelcore: str | None
    movablecore: str | None
    thp: str | None

    @property
    def kernel(self) -> str:
        """The kernel whose rules are followed: the recorded one, or the nearer of those that are known."""
        major, minor = (int(part) for part in self.release.split("."))
        return RULES[(major, minor) >= FIRST_LIKE_LATER]

    def managed(self) -> dict[ZoneKey, int]:
        """Managed pages of each zone after the boot."""
        return {(node, name): managed for node, name, managed in self.zones}

    def late_by_zone(self, spans: Mapping[ZoneKey, tuple[int, int]]) -> dict[ZoneKey, int]:
        """Late-freed pages of each zone, given the zones' spans (start pfn, end pfn).

        A part that begins in no zone is an error of the recording; what of it runs past the memory of its zone counts there too.
        """
        out: dict[ZoneKey, int] = {}
        for part in self.late:
            first: ZoneKey | None = None
            left = part.pages
            for start, end, nid in self.ranges:
                for (node, name), (lo, hi) in spans.items():
                    if node != nid:
                        continue
                    a, b = max(start, lo, part.start_pfn), min(end, hi, part.start_pfn + part.pages)
                    if a < b:
                        first = first or (node, name)
                        out[node, name] = out.get((node, name), 0) + b - a
                        left -= b - a
            if first is None:
                raise RecordingError(f"{part.what} at pfn {part.start_pfn:#x} lies in no zone")
            out[first] += left
        return out


def read_inputs(
    zones: tuple[tuple[int, str, int], ...],
    dmesg: str,
    *,
    iomem: str = "",
    cmdline: str | None = None,
    cpulists: Mapping[int, str] | None = None,
    distances: Mapping[int, str] | None = None,
    nr_cpus: int = 1,
) -> MachineInputs:
    """Put a machine's shape together from the texts of its recording. RecordingError says what they lack or contradict."""
    version = _VERSION.search(dmesg)
    if version is None:
        raise RecordingError("the boot log names no Linux version")
    names = {name for _, name, _ in zones}
    resources = _resources(iomem)
    highmem = _HIGHMEM.search(dmesg)
    if cmdline is None:
        found = re.search(r"Command line: (.*)", dmesg)
        cmdline = found[1] if found else ""
    parameters = dict(word.partition("=")[::2] for word in cmdline.split())
    return MachineInputs(
        arch="x86_64" if "DMA32" in names else "i386",
        release=f"{version[1]}.{version[2]}",
        ranges=_ranges(dmesg, resources),
        zones=zones,
        late=_late(dmesg, resources),
        cpu_nodes=_cpu_nodes(cpulists or {}, nr_cpus),
        distances=_distances(distances or {}),
        lowmem_end_pfn=int(highmem[1], 16) >> PAGE_SHIFT if highmem else None,
        kernelcore=parameters.get("kernelcore"),
        movablecore=parameters.get("movablecore"),
        thp=parameters.get("transparent_hugepage"),
    )


def build(inputs: MachineInputs) -> Machine:
    """The machine, booted. ValueError names what no machine of ours can be."""
    memory = MemoryMap(inputs.ranges, inputs.arch)

    def boot(managed: Mapping[ZoneKey, int], late: Mapping[ZoneKey, int]) -> Machine:
        return Machine.from_memory_map(
            memory,
            cpus=inputs.cpu_nodes,
            distances=inputs.distances,
            kernel=inputs.kernel,
            thp=inputs.thp or "always",
            kernelcore=inputs.kernelcore,
            movablecore=inputs.movablecore,
            lowmem_end=inputs.lowmem_end_pfn,
            managed=managed,
            late=late,
        )

    # Which zone late-freed pages lie in follows from where zones lie: so a first machine, with all of its memory.
    spans = {(z.node, z.name): (z.start_pfn, z.start_pfn + z.spanned) for z in boot({}, {}).zones if z.spanned}
    return boot(inputs.managed(), inputs.late_by_zone(spans))


def node_files(case: Case, directory: str, suffix: str) -> dict[int, str]:
    """Texts of node0.SUFFIX, node1.SUFFIX ... of a case, by node."""
    out = {}
    for path in sorted((case.directory / directory).glob(f"node*.{suffix}")):
        if (m := re.fullmatch(r"node(\d+)\..*", path.name)) is not None:
            out[int(m[1])] = case.text(directory, path.name)
    return out


def _resources(iomem: str) -> dict[str, list[tuple[int, int]]]:
    # Ranges of /proc/iomem by name, end exclusive; read without privilege they are all zero, which says nothing.
    out: dict[str, list[tuple[int, int]]] = {}
    for line in iomem.splitlines():
        m = _IOMEM.match(line)
        if m and int(m[2], 16):
            out.setdefault(m[3], []).append((int(m[1], 16), int(m[2], 16) + 1))
    return out


def _ranges(dmesg: str, resources: Mapping[str, list[tuple[int, int]]]) -> tuple[tuple[int, int, int], ...]:
    _, found, rest = dmesg.partition("Early memory node ranges")
    out = []
    if found:
        for line in rest.splitlines()[1:]:
            m = _RANGE.search(line)
            if m is None:
                break
            out.append((int(m[2], 16) >> PAGE_SHIFT, (int(m[3], 16) + 1) >> PAGE_SHIFT, int(m[1])))
    else:
        # Page 0 is never given to the allocator; partial pages are not memory.
        for start, end in resources.get("System RAM", ()):
            first, last = max(1, -(-start >> PAGE_SHIFT)), end >> PAGE_SHIFT
            if first < last:
                out.append((first, last, 0))
    if not out:
        raise RecordingError("neither the boot log (Early memory node ranges) nor iomem (System RAM) tells where memory is")
    out.sort()
    for (_, end, _), (start, _, _) in pairwise(out):
        if start < end:
            raise RecordingError(f"memory ranges overlap at pfn {start:#x}")
    return tuple(out)


def _late(dmesg: str, resources: Mapping[str, list[tuple[int, int]]]) -> tuple[LateFree, ...]:
    data = resources.get("Kernel data") or [(DEFAULT_KERNEL_ADDRESS, 0)]
    ramdisk = _RAMDISK.findall(dmesg)
    out = []
    for what, kib in _FREEING.findall(dmesg):
        if what != "initrd":
            address = data[0][0]
        elif ramdisk:
            # Where it was moved to, if it was.
            address = int(ramdisk[-1][0], 16)
        else:
            raise RecordingError("the boot log frees an initrd, but no RAMDISK line tells where it lay")
        out.append(LateFree(what, address >> PAGE_SHIFT, int(kib) // KIB_PER_PAGE))
    return tuple(out)


def _cpu_nodes(cpulists: Mapping[int, str], nr_cpus: int) -> tuple[int, ...]:
    if not cpulists:
        return (0,) * nr_cpus
    nodes: dict[int, int] = {}
    for node, text in cpulists.items():
        for part in filter(None, text.strip().split(",")):
            m = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
            if m is None or int(m[2] or m[1]) - int(m[1]) > 8192:
                raise RecordingError(f"node {node}: {part!r} is no list of CPUs")
            nodes.update(dict.fromkeys(range(int(m[1]), int(m[2] or m[1]) + 1), node))
    if sorted(nodes) != list(range(len(nodes))):
        raise RecordingError(f"CPUs {sorted(nodes)} are not numbered 0, 1, ... (some are offline?)")
    return tuple(nodes[cpu] for cpu in range(len(nodes)))


def _distances(texts: Mapping[int, str]) -> tuple[tuple[int, ...], ...] | None:
    if not texts:
        return None
    rows = []
    for node in sorted(texts):
        try:
            rows.append(tuple(int(word) for word in texts[node].split()))
        except ValueError:
            raise RecordingError(f"node {node}: {texts[node].strip()!r} is no list of distances") from None
    if sorted(texts) != list(range(len(rows))) or any(len(row) != len(rows) for row in rows):
        raise RecordingError(f"the distances of nodes {sorted(texts)} make no square table")
    return tuple(rows)
