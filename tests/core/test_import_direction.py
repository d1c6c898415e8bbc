"""Imports run one way only: the rooms of mmcore, the layers of mmpy, and nothing but numpy below them."""

import ast
import graphlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]

# Lowest first; a module imports from its own layer or from one before it.
ROOMS = ["base", "phys", "vm", "reclaim", "alloc", "sys", "run"]
LAYERS = [
    {"flags", "config", "errors", "vmflags"},
    {
        "accesses", "allocstate", "comparing", "devices", "kernel_mappings", "page_requests", "plans", "running", "snapshot", "swap",
        "sysctl",
        "syscalls", "thp", "tlb", "views", "vmviews",
    },
    {"machine", "process", "files", "memcg", "slab"},
    {"proc", "validate"},
    {"traces", "workloads"},
    {"experiment", "results", "plot", "report", "sweep", "fidelity"},
    {"cli", "__main__"},
]
# Packages that come with Cython, beside the standard library and numpy.
CYTHON_PACKAGES = {"cpython", "cython", "libc", "libcpp"}
# What only an extra brings: imported inside the function that needs it, never when a module loads.
EXTRAS = {"click", "hypothesis", "matplotlib", "pandas", "polars", "rich", "zstandard"}


class Import(NamedTuple):
    """One imported module, as a dotted name; `late` if it happens in a function or for types only."""

    target: str
    late: bool


def modules_below(package: str) -> dict[str, list[Path]]:
    """Dotted module name -> its files (.py, or .pyx and .pxd); a package goes by its own name."""
    found: dict[str, list[Path]] = {}
    for path in sorted((ROOT / package).rglob("*")):
        if path.suffix in (".py", ".pyx", ".pxd"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found.setdefault(".".join(parts).removesuffix(".__init__"), []).append(path)
    return found


MODULES = modules_below("mmcore") | modules_below("mmpy")


def resolve(base: str, names: list[str]) -> Iterator[str]:
    """Modules that `from base import names` loads: submodules where there are such, else `base`."""
    for name in names:
        yield f"{base}.{name}" if f"{base}.{name}" in MODULES else base


def absolute(module: str, path: Path, level: int, target: str) -> str:
    """The dotted name that a relative import (level > 0) in `module` means."""
    if not level:
        return target
    package = module.split(".") if path.stem == "__init__" else module.split(".")[:-1]
    return ".".join(package[: len(package) - level + 1] + ([target] if target else []))


def python_imports(module: str, path: Path) -> Iterator[Import]:
    def visit(node: ast.AST, late: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, late) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = absolute(module, path, node.level, node.module or "")
            yield from (Import(name, late) for name in resolve(base, [alias.name for alias in node.names]))
        for_types = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        inside = late or for_types or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for child in ast.iter_child_nodes(node):
            yield from visit(child, inside)

    yield from visit(ast.parse(path.read_text()), False)


CYTHON_FROM = re.compile(r"^([ \t]*)from\s+(\.*)([\w.]*)\s+c?import\s+(\([^)]*\)|[^\n]+)", re.MULTILINE)
CYTHON_IMPORT = re.compile(r"^([ \t]*)c?import\s+([^\n]+)", re.MULTILINE)


def cython_imports(module: str, path: Path) -> Iterator[Import]:
    """Imports and cimports of a .pyx or .pxd, which Python's parser cannot read."""
    text = re.sub(r'"""(?s:.*?)"""|#[^\n]*', "", path.read_text())
    for indent, dots, target, names in CYTHON_FROM.findall(text):
        listed = [part.split()[0] for part in names.strip("() \t\n").split(",") if part.strip()]
        for name in resolve(absolute(module, path, len(dots), target), listed):
            yield Import(name, bool(indent))
    for indent, names in CYTHON_IMPORT.findall(text):
        for part in names.split(","):
            yield Import(part.split()[0], bool(indent))


def imports_of(module: str) -> Iterator[Import]:
    for path in MODULES[module]:
        yield from (python_imports if path.suffix == ".py" else cython_imports)(module, path)


def ours(module: str) -> Iterator[Import]:
    """Imports of this project's own modules, without a .pyx that names its own .pxd."""
    for found in imports_of(module):
        if found.target.split(".")[0] in ("mmcore", "mmpy") and found.target != module:
            yield found


def layer(module: str) -> int | None:
    """Height of a module of mmpy; None for `mmpy` itself, which shows them all and which none imports."""
    _, *rest = module.split(".")
    if not rest:
        return None
    heights = [height for height, names in enumerate(LAYERS) if rest[0] in names]
    assert heights, f"{module} stands in no layer: give {rest[0]!r} its place in LAYERS"
    return heights[0]


CORE = sorted(name for name in MODULES if name.split(".")[0] == "mmcore")
SHELL = sorted(name for name in MODULES if name.split(".")[0] == "mmpy")


def test_there_is_something_to_check():
    assert "mmcore.base.records" in CORE
    assert "mmpy" in SHELL


def test_core_imports_point_down():
    wrong = []
    for module in CORE:
        _, *inner = module.split(".")
        for found in ours(module):
            package, *target = found.target.split(".")
            if package != "mmcore":
                wrong.append(f"{module} imports {found.target}: the core knows nothing of mmpy")
            elif not target or not inner:
                wrong.append(f"{module} imports {found.target}: name the module, not a package")
            elif ROOMS.index(target[0]) > ROOMS.index(inner[0]):
                wrong.append(f"{module} imports {found.target}, a room above it")
    assert not wrong, "\n".join(wrong)


def test_shell_imports_point_down():
    """Late imports may point up: `machine.proc` finds its text writer only when someone asks for it."""
    wrong = [
        f"{module} imports {found.target}, a layer above it"
        for module in SHELL
        for found in ours(module)
        if found.target.startswith("mmpy") and not found.late and (here := layer(module)) is not None
        if (there := layer(found.target)) is None or there > here
    ]
    assert not wrong, "\n".join(wrong)


def test_no_cycles():
    graph = {name: {found.target for found in ours(name) if not found.late} for name in MODULES}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail("cycle of imports: " + " <- ".join(error.args[1]))


def test_core_needs_numpy_and_libc_only():
    allowed = {"mmcore", "numpy", *CYTHON_PACKAGES, *sys.stdlib_module_names}
    foreign = {
        f"{module} imports {found.target}"
        for module in CORE
        for found in imports_of(module)
        if found.target.split(".")[0] not in allowed
    }
    assert not foreign, "\n".join(sorted(foreign))


def test_extras_are_imported_late():
    early = {
        f"{module} imports {found.target} as it loads"
        for module in SHELL
        if not module.startswith("mmpy.cli")
        for found in imports_of(module)
        if found.target.split(".")[0] in EXTRAS and not found.late
    }
    assert not early, "\n".join(sorted(early))


def test_import_mmpy_loads_numpy_alone():
    code = (
        "import sys, numpy; before = set(sys.modules); import mmpy; "
        "print(*sorted({name.split('.')[0] for name in set(sys.modules) - before}))"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    # Cython's own runtime modules are made in memory, not installed.
    loaded = {name for name in run.stdout.split() if not name.startswith(("_cython_", "cython_runtime"))}
    assert loaded <= {"mmpy", "mmcore", "numpy", "_cyutility", *sys.stdlib_module_names}
