"""`mmpy boot`: build a machine, print its zones and reserves, or one of its /proc files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.console import Console

from mmpy.cli.output import console, print_json, put, table, usage_errors
from mmpy.machine import Machine

PROC_FILES = ("zoneinfo", "buddyinfo", "pagetypeinfo", "vmstat", "meminfo")
DUMP_FILES = ("zoneinfo", "buddyinfo", "pagetypeinfo")
SIZE = "4G"
MAX_TEXT = 64 << 20


@click.command()
@click.argument("size", metavar="[SIZE]", required=False)
@click.option("--nodes", metavar="N|SIZES", help="NUMA nodes: how many of equal size, or their sizes (512M,3G).")
@click.option("--cpus", metavar="N|LIST", help="CPUs: how many in all, or how many on each node (1,0).")
@click.option("--distances", metavar="ROWS", help="Node distances, a row a node: 10,20;20,10.")
@click.option("--kernelcore", metavar="SIZE|N%", help="Boot parameter: memory for the kernel, the rest movable.")
@click.option("--movablecore", metavar="SIZE|N%", help="Boot parameter: movable memory.")
@click.option("--highmem", metavar="SIZE", help="Boot parameter: high memory (i386).")
@click.option("--arch", type=click.Choice(["x86_64", "i386"]), help="Architecture (default x86_64).")
@click.option("--kernel", type=click.Choice(["6.12", "6.1"]), help="Kernel whose rules are followed (default 6.12).")
@click.option("--chipset", type=click.Choice(["pc", "q35"]), help="Where memory lies below 4 GiB (default pc).")
@click.option("--thp", type=click.Choice(["always", "madvise", "never"]), help="Transparent huge pages (default always).")
@click.option("--from-proc", "dump", metavar="FILE|DIR", type=click.Path(exists=True, path_type=Path),
              help="Start from a real machine's dump: its zoneinfo, or a directory with zoneinfo, buddyinfo, pagetypeinfo.")  # fmt: skip
@click.option("--sysctl", "sysctls", multiple=True, metavar="NAME=VALUE", help="Write a sysctl after boot (may be repeated).")
@click.option("--proc", "proc", type=click.Choice(PROC_FILES), help="Print this /proc file of the machine and nothing else.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def boot(
    size: str | None,
    dump: Path | None,
    sysctls: tuple[str, ...],
    proc: str | None,
    as_json: bool,
    **shape: str | None,
) -> None:
    """Boot a machine of SIZE (default 4G) and print its zones, watermarks and reserves."""
    given: dict[str, Any] = {name: value for name, value in shape.items() if value is not None}
    if dump is not None and (size is not None or given):
        named = ["SIZE"] * (size is not None) + [f"--{name}" for name in given]
        raise click.UsageError(f"--from-proc takes the machine's shape from the dump: {', '.join(named)} cannot be given too")
    with usage_errors(KeyError):
        for name, read in (("nodes", counts_or_sizes), ("cpus", counts_or_sizes), ("distances", matrix)):
            if name in given:
                given[name] = read(given[name])
        machine = from_dump(dump) if dump is not None else Machine(size or SIZE, **given)
        for name, value in map(assignment, sysctls):
            machine.sysctl[name] = value
    if proc is not None:
        text = getattr(machine.proc, proc)()
        if as_json:
            print_json({"file": f"/proc/{proc}", "text": text})
        else:
            click.echo(text, nl=False)
    elif as_json:
        print_json(describe(machine))
    else:
        print_machine(console(), machine)


def counts_or_sizes(text: str) -> int | list[int | str]:
    """"2" -> 2; "512M,3G" -> ["512M", "3G"]; "1,0" -> [1, 0]."""
    if text.strip().isdecimal():
        return int(text)
    return [int(part) if part.strip().isdecimal() else part.strip() for part in text.split(",")]


def matrix(text: str) -> list[list[int]]:
    """"10,20;20,10" -> [[10, 20], [20, 10]]."""
    try:
        return [[int(part) for part in row.replace(",", " ").split()] for row in text.split(";")]
    except ValueError:
        raise ValueError(f"distances {text!r} are not rows of numbers like 10,20;20,10") from None


def assignment(text: str) -> tuple[str, str]:
    """"vm.swappiness=10" -> its two sides; "vm." may be left out."""
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise ValueError(f"sysctl {text!r} is not NAME=VALUE")
    name = name.strip()
    return name if "." in name else f"vm.{name}", value.strip()


def from_dump(place: Path) -> Machine:
    """The machine of a dump: a zoneinfo file, or a directory that holds one (and perhaps buddyinfo, pagetypeinfo)."""
    if place.is_dir():
        texts = {name: read(path) for name in DUMP_FILES if (path := place / name).is_file()}
        if "zoneinfo" not in texts:
            raise ValueError(f"{place} holds no zoneinfo")
        return Machine.from_proc(**texts)
    return Machine.from_proc(zoneinfo=read(place))


def read(path: Path) -> str:
    """Text of a file of the user's. ValueError if it cannot be read, or has no end in sight (/dev/zero)."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_TEXT + 1)
    except OSError as e:
        raise ValueError(f"{path}: {e.strerror or e}") from None
    if len(data) > MAX_TEXT:
        raise ValueError(f"{path}: more than {MAX_TEXT} bytes; no file of /proc is so long")
    return data.decode("utf-8", errors="replace")


def describe(machine: Machine) -> dict[str, Any]:
    """A machine as plain data; pages unless the name says otherwise."""
    return {
        "arch": machine.arch,
        "kernel": machine.kernel,
        "cpus": machine.nr_cpus,
        "totalram_pages": machine.totalram_pages,
        "totalreserve_pages": machine.totalreserve_pages,
        "mobility_grouping": machine.mobility_grouping,
        "inferred": list(machine.inferred),
        "sysctl": dict(machine.sysctl),
        "nodes": [
            {
                "node": n.nid, "start_pfn": n.start_pfn, "spanned": n.spanned, "present": n.present,
                "cpus": list(n.cpus), "distances": list(n.distances), "fallback": list(n.fallback),
            }
            for n in machine.nodes
        ],
        "zones": [
            {
                "node": z.node, "name": z.name, "start_pfn": z.start_pfn, "spanned": z.spanned, "present": z.present,
                "managed": z.managed, "free": z.nr_free_pages, "min": z.min, "low": z.low, "high": z.high, "promo": z.promo,
                "boost": z.boost, "protection": list(z.lowmem_reserve), "stat_threshold": z.stat_threshold,
                "nr_free": list(z.nr_free),
                "pcp": [
                    {"cpu": p.cpu, "count": p.count, "high": p.high, "high_min": p.high_min, "high_max": p.high_max, "batch": p.batch}
                    for p in z.pcp
                ] if z.populated else [],
            }
            for z in machine.zones
        ],
    }  # fmt: skip


def print_machine(out: Console, machine: Machine) -> None:
    """A machine's zones and reserves as tables."""
    def mib(pages: int) -> str:
        return f"{pages * 4 / 1024:.1f} MiB"

    nodes, zones, sysctl = machine.nodes, [z for z in machine.zones if z.populated], machine.sysctl
    out.print(
        f"{machine.arch}, Linux {machine.kernel}: {mib(machine.totalram_pages)} managed by the allocator, "
        f"{len(nodes)} node{'s' * (len(nodes) > 1)}, {machine.nr_cpus} CPU{'s' * (machine.nr_cpus > 1)}\n"
    )
    promo = machine.kernel != "6.1"
    columns = ["node", "zone", "start pfn", "spanned", "present", "managed", "free", "min", "low", "high", *["promo"] * promo, "protection"]
    lines = (
        [z.node, z.name, z.start_pfn, z.spanned, z.present, z.managed, z.nr_free_pages, z.min, z.low, z.high,
         *[z.promo] * promo, z.lowmem_reserve]
        for z in zones
    )  # fmt: skip
    out.print("Zones (pages of 4 KiB)")
    put(out, table(columns, lines, left=2))
    columns = ["node", "zone", "batch", "high min", "high max", "stat threshold"]
    pcp = ([z.node, z.name, p.batch, p.high_min, p.high_max, z.stat_threshold] for z in zones for p in z.pcp[:1])
    out.print()
    out.print("Per-CPU page lists (of each CPU)")
    put(out, table(columns, pcp, left=2))
    out.print(
        f"\nmin_free_kbytes {sysctl['vm.min_free_kbytes']}, watermark_scale_factor {sysctl['vm.watermark_scale_factor']}, "
        f"reserved in all {machine.totalreserve_pages} pages ({mib(machine.totalreserve_pages)}), "
        f"transparent huge pages {sysctl['kernel.mm.transparent_hugepage.enabled']}"
    )
    if len(nodes) > 1:
        lines = ([n.nid, n.cpus, n.distances, n.fallback] for n in nodes)
        out.print()
        out.print("Nodes")
        put(out, table(["node", "CPUs", "distances", "fallback order"], lines, left=4))
    for line in machine.inferred:
        out.print(f"inferred: {line}", markup=False)
