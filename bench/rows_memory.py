"""Rows about size and about what costs once: bytes a page, a machine of 1 TiB, the import."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from bench.build import installed
from bench.harness import Row, Settings, alternate, available_bytes, fixed, row_of, rows
from bench.machines import machine
from mmcore.base.records import PAGE_DTYPE

TIB_PAGES = 1 << 28


@cache
def _bytecode() -> tempfile.TemporaryDirectory[str]:
    """One place for the bytecode of all subprocesses, so that both sides of an import find theirs compiled."""
    return tempfile.TemporaryDirectory(prefix="linux-mm-sim-bench-")


def python(code: str, *args: str) -> list[float]:
    """Run a snippet in a new interpreter with the same packages; the numbers it prints."""
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    path = os.pathsep.join(p for p in (env.get("PYTHONPATH"), str(installed())) if p)
    env |= {"PYTHONPYCACHEPREFIX": _bytecode().name, "PYTHONPATH": path}
    command = [sys.executable, "-c", code, *args]
    done = subprocess.run(command, env=env, cwd=Path(_bytecode().name), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit status {done.returncode}")
    return [float(x) for x in done.stdout.split()]


@rows("memory.bytes_per_page", "memory.hot_record")
def bytes_per_page(settings: Settings) -> Iterator[Row]:
    """All arrays of a machine by its page frames; the worst of a small and a large machine."""
    sizes = {n: machine(n).state for n in (1 << 16, 1 << 20, settings.size(1 << 26, tiny=1 << 20))}
    worst = max(state.nbytes / len(state.pages) for state in sizes.values())
    yield fixed(
        "memory.bytes_per_page", "bytes", worst, "1 byte", bar=32, stretch=24,
        note="all arrays / page frames, worst of machines of " + ", ".join(f"2^{n.bit_length() - 1}" for n in sizes) + " pages",
    )  # fmt: skip
    yield fixed("memory.hot_record", "bytes", PAGE_DTYPE.itemsize, "1 byte", bar=16, note="record that allocation, freeing and lists touch")


BUILD = """
import sys, time
from mmpy import Machine
def resident():
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmRSS:"))
before = resident()
began = time.perf_counter()
machine = Machine(int(sys.argv[1]) * 4096)
print(time.perf_counter() - began, resident() - before, machine.state.nbytes)
"""
FILL = """
import sys, time
import numpy as np
total, piece = int(sys.argv[1]), int(sys.argv[2])
spent = 0.0
while total:
    n = min(total, piece)
    began = time.perf_counter()
    a = np.zeros(n, np.uint8)
    a.fill(1)
    spent += time.perf_counter() - began
    del a
    total -= n
print(spent)
"""


@rows("boot.1tib_time", "boot.1tib_resident")
def one_tib(settings: Settings) -> Iterator[Row]:
    """Machine("1T") in a new process, beside numpy's zeros and fill of as many bytes in another; wall time."""
    pages = settings.size(TIB_PAGES, tiny=1 << 22)
    _, _, nbytes = python(BUILD, str(pages))
    free = available_bytes()
    piece = int(nbytes) if free > nbytes * 1.25 else 1 << 30
    resident: list[float] = []

    def build() -> float:
        seconds, grown, _ = python(BUILD, str(pages))
        resident.append(grown)
        return seconds

    runs = alternate(build, lambda: python(FILL, str(int(nbytes)), str(piece))[0], settings)
    how = "" if piece == int(nbytes) else f", in pieces of 1 GiB given back in between, as only {free >> 30} GiB were available"
    yield row_of(
        "boot.1tib_time", "s", runs, f"numpy zeros + fill of {nbytes / 2**30:.2f} GiB{how}", bar=0.05,
        note=f"Machine() of {pages} pages, the first one of its process; wall time",
    )  # fmt: skip
    yield fixed(
        "boot.1tib_resident", "MiB", max(resident) / 2**20, "1 MiB", bar=64,
        note=f"growth of VmRSS by building it, the most of {len(resident)} processes",
    )  # fmt: skip


IMPORT = """
import sys, time
began = time.perf_counter()
__import__(sys.argv[1])
print(time.perf_counter() - began)
"""


@rows("import.mmpy")
def import_mmpy(settings: Settings) -> Iterator[Row]:
    """The import statement alone in a new interpreter, bytecode and file cache warm on both sides; numpy's share is part of ours."""
    few = 1 if settings.tiny else 3

    def side(name: str) -> float:
        return sorted(python(IMPORT, name)[0] for _ in range(few))[few // 2]

    runs = alternate(lambda: side("mmpy"), lambda: side("numpy"), settings)
    note = "each run the median of three interpreters; wall time"
    yield row_of("import.mmpy", "ms", runs.scaled(1e3), "import numpy", bar=1.5, note=note)
