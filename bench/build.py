"""Compiles bench/client.pyx against the mmcore that `import mmcore` finds, as a user who embeds the core would.

The result is kept in build/bench/ (or the system's temporary directory where that cannot be written) under a hash of everything that
it was made from, so that it is rebuilt when the core's declarations change. Needs Cython and a C compiler.
"""

from __future__ import annotations

import hashlib
import importlib.machinery
import importlib.util
import os
import platform
import subprocess
import sys
import sysconfig
import tempfile
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np

import mmcore

HERE = Path(__file__).resolve().parent
SOURCE = HERE / "client.pyx"
# The product's: see setup.py. Nothing for the processor that happens to run this.
C_FLAGS = ["-O3", "-g0", "-DNDEBUG", "-DNPY_NO_DEPRECATED_API=NPY_1_7_API_VERSION"]
DIRECTIVES = {
    "language_level": 3,
    "boundscheck": False,
    "wraparound": False,
    "initializedcheck": False,
    "cdivision": True,
    "freethreading_compatible": True,
}


def installed() -> Path:
    """The directory that holds the package mmcore."""
    return Path(mmcore.__file__).resolve().parents[1]


def compiler() -> list[str]:
    return (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()


def compiler_version() -> str:
    try:
        done = subprocess.run([*compiler(), "--version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "no C compiler"
    return done.stdout.splitlines()[0]


def fingerprint() -> str:
    """Hash of what the client is made from: its source, the core's declarations, flags, versions."""
    from Cython import __version__ as cython

    digest = hashlib.sha256(repr((sys.version, np.__version__, cython, platform.machine(), C_FLAGS, DIRECTIVES, compiler())).encode())
    root = installed()
    for path in [SOURCE, *sorted((root / "mmcore").rglob("*.pxd"))]:
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def home(key: str) -> Path:
    """Where a build is kept."""
    kept = HERE.parent / "build" / "bench" / key
    try:
        kept.mkdir(parents=True, exist_ok=True)
    except OSError:
        kept = Path(tempfile.gettempdir()) / f"linux-mm-sim-bench-{os.getuid()}" / key
        kept.mkdir(parents=True, exist_ok=True, mode=0o700)
    return kept


def compile_client(target: Path) -> None:
    """Translate and compile into `target`. RuntimeError with the compiler's words if that fails."""
    from Cython.Compiler.Main import CompilationOptions, compile_single
    from Cython.Compiler.Options import default_options

    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        c_file = Path(scratch) / "client.c"
        options = CompilationOptions(
            {**default_options, "include_path": [str(installed())], "output_file": str(c_file), "compiler_directives": DIRECTIVES}
        )
        result = compile_single(str(SOURCE), options, full_module_name="client")
        if result.num_errors:
            raise RuntimeError(f"{SOURCE} does not translate against {installed()}")
        made = Path(scratch) / target.name
        include = [f"-I{sysconfig.get_path('include')}", f"-I{np.get_include()}"]
        command = [*compiler(), "-shared", "-fPIC", "-fwrapv", *C_FLAGS, *include, str(c_file), "-o", str(made)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}\n{done.stderr}")
        made.replace(target)  # in one step: two runs may build at once


@cache
def client() -> ModuleType:
    """The compiled client, built if need be."""
    try:
        key = fingerprint()
    except ImportError as error:
        raise RuntimeError("the benchmarks need Cython and a C compiler: pip install cython") from error
    target = home(key) / ("client" + importlib.machinery.EXTENSION_SUFFIXES[0])
    if not target.is_file():
        compile_client(target)
    spec = importlib.util.spec_from_file_location("client", target)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (ValueError, TypeError, ImportError) as error:
        where = installed() / "mmcore"
        raise RuntimeError(f"{error}: the .pxd files and the compiled modules of {where} differ; build it again") from error
    return module
