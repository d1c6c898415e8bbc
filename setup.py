"""Compiles every .pyx below mmcore/ and mmpy/; all metadata is in pyproject.toml.

One table of compiler directives, one debug switch, read from the environment:

    MMCORE_DEBUG unset   release: -O3, no checks, C assertions compiled out
    MMCORE_DEBUG=1       bounds and initialisation checks on, C assertions live, -O1 -g
    MMCORE_DEBUG=asan    the same, with the address and undefined-behaviour sanitizers

Nothing may depend on the building machine's processor (no -march=native): wheels travel. Generated C
stays in build/, so that neither the source tree nor a wheel or sdist ever holds any.
"""

import os
import shutil
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent
GENERATED = ROOT / "build" / "cython"
# Cython puts the memoryview machinery that all modules need into this one, instead of into each.
SHARED_UTILITY = "mmcore._cyutility"

MODE = os.environ.get("MMCORE_DEBUG", "") or "0"
if MODE not in ("0", "1", "asan"):
    raise SystemExit(f"MMCORE_DEBUG is {MODE!r}: use 0, 1 or asan")
DEBUG = MODE != "0"

DIRECTIVES = {
    "language_level": 3,
    "boundscheck": DEBUG,
    "wraparound": False,
    "initializedcheck": DEBUG,
    "nonecheck": DEBUG,
    "cdivision": True,
    "embedsignature": True,
    "freethreading_compatible": True,
}
SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"] if MODE == "asan" else []
C_FLAGS = (["-O1", "-g"] if DEBUG else ["-O3", "-g0"]) + SANITIZE


def extensions() -> list[Extension]:
    """One extension per .pyx, plus Cython's shared one; none at all in a tree without .pyx."""
    sources = sorted(path for room in ("mmcore", "mmpy") for path in (ROOT / room).rglob("*.pyx"))
    modules = {".".join(p.relative_to(ROOT).with_suffix("").parts): p.relative_to(ROOT) for p in sources}
    if modules:
        modules[SHARED_UTILITY] = Path(*SHARED_UTILITY.split(".")).with_suffix(".c")
    return [
        Extension(
            name,
            [str(path)],
            extra_compile_args=C_FLAGS,
            extra_link_args=SANITIZE,
            define_macros=[("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION")]
            + ([] if DEBUG else [("NDEBUG", "1")]),
            undef_macros=["NDEBUG"] if DEBUG else [],
        )
        for name, path in modules.items()
    ]


class BuildExt(build_ext):
    """build_ext that translates all modules in one go, in parallel, and only when something is built."""

    def run(self) -> None:
        if self.extensions:
            self.translate()
        super().run()

    def translate(self) -> None:
        """Replace the extensions' .pyx sources by C files below build/cython."""
        import numpy
        from Cython.Build import cythonize
        from Cython.Compiler.Errors import CompileError

        # File times cannot show that directives or flags changed: a stamp of them does, and then all C goes.
        stamp, recipe = GENERATED / "recipe.txt", repr((MODE, DIRECTIVES, C_FLAGS))
        if self.force or not stamp.exists() or stamp.read_text() != recipe:
            shutil.rmtree(GENERATED, ignore_errors=True)
            GENERATED.mkdir(parents=True)
            stamp.write_text(recipe)
        self.parallel = self.parallel or os.cpu_count()
        self.include_dirs.append(numpy.get_include())
        try:
            translated = cythonize(
                self.extensions,
                nthreads=int(self.parallel),
                build_dir=str(GENERATED.relative_to(ROOT)),
                compiler_directives=DIRECTIVES,
                shared_utility_qualified_name=SHARED_UTILITY,
            )
        except CompileError as error:
            raise SystemExit(f"not translated: {error}") from None
        sources = {extension.name: extension.sources for extension in translated}
        for extension in self.extensions:
            extension.sources = sources[extension.name]


setup(ext_modules=extensions(), cmdclass={"build_ext": BuildExt})
