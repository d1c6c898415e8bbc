"""What is shipped: declarations and stubs, no generated C; and a client compiles against the core."""

import ast
import importlib
import inspect
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from types import ModuleType

import pytest

import mmcore
from mmcore.base import records

ROOT = Path(__file__).parents[2]
PACKAGES = ("mmcore", "mmpy")
INSTALLED = Path(mmcore.__file__).parent.parent

CLIENT = """
from libc.string cimport memset
from mmcore.base.errors cimport check
from mmcore.base.lists cimport list_add, list_del, list_empty, list_init
from mmcore.base.records cimport MAX_PAGE_ORDER, Node, Page, Zone


def sizes():
    return {"PAGE_DTYPE": sizeof(Page), "ZONE_DTYPE": sizeof(Zone), "NODE_DTYPE": sizeof(Node)}


def max_page_order():
    return MAX_PAGE_ORDER


def list_round_trip():
    cdef Page link[3]
    memset(link, 0, sizeof(link))
    list_init(link, 1)
    list_add(link, 1, 2)
    assert not list_empty(link, 1)
    list_del(link, 2)
    return bool(list_empty(link, 1))


def refuse(long long rc):
    return check(rc)
"""

CLIENT_SETUP = """
from Cython.Build import cythonize
from setuptools import Extension, setup

setup(name="client", ext_modules=cythonize([Extension("client", ["client.pyx"])], include_path=[{include!r}]))
"""

CLIENT_RUN = """
import client
from mmcore.base import records

assert client.max_page_order() == 10
assert client.list_round_trip()
for name, size in client.sizes().items():
    assert getattr(records, name).itemsize == size, name
assert client.refuse(7) == 7
try:
    client.refuse(-12)
except MemoryError:
    print("client ran")
"""


def run(*args: str, cwd: Path, **env: str) -> str:
    done = subprocess.run(
        [sys.executable, *args], cwd=cwd, env=os.environ | env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def files(*suffixes: str) -> list[Path]:
    """Files of both packages in the source tree, relative to its root."""
    found = (path for package in PACKAGES for path in (ROOT / package).rglob("*"))
    return sorted(path.relative_to(ROOT) for path in found if path.suffix in suffixes)


def test_client_compiles_and_runs(tmp_path):
    (tmp_path / "client.pyx").write_text(CLIENT)
    (tmp_path / "setup.py").write_text(CLIENT_SETUP.format(include=str(INSTALLED)))
    run("setup.py", "-q", "build_ext", "--inplace", cwd=tmp_path, CFLAGS="-O0")
    assert "client ran" in run("-c", CLIENT_RUN, cwd=tmp_path, PYTHONPATH=str(INSTALLED))


def test_declarations_lie_beside_the_installed_modules():
    for package in PACKAGES:
        assert (INSTALLED / package / "py.typed").is_file()
    for path in files(".pxd", ".pyi"):
        assert (INSTALLED / path).is_file(), path


def test_wheel_holds_declarations_and_no_sources(tmp_path):
    run("setup.py", "-q", "build_py", "--build-lib", str(tmp_path), cwd=ROOT)
    shipped = {path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()}
    assert not {Path(package, "py.typed") for package in PACKAGES} - shipped
    assert not set(files(".py", ".pxd", ".pyi")) - shipped
    assert not {path for path in shipped if path.suffix in (".c", ".pyx", ".so")}


def test_sdist_holds_sources_and_nothing_generated(tmp_path):
    run("setup.py", "-q", "egg_info", "--egg-base", str(tmp_path), "sdist", "-d", str(tmp_path), cwd=ROOT)
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as archive:
        shipped = {Path(*Path(name).parts[1:]) for name in archive.getnames()}
    assert not set(files(".py", ".pyx", ".pxd", ".pyi")) - shipped
    assert not {path for path in shipped if path.suffix in (".c", ".so", ".pyc")}


def test_no_generated_c_in_the_tree():
    assert not files(".c", ".cpp", ".html")


def test_every_directory_of_modules_is_a_package():
    homes = {path.parent for path in files(".py", ".pyx", ".pxd")}
    assert not [str(home) for home in homes if not (ROOT / home / "__init__.py").is_file()]


def stub_names(path: Path) -> dict[str, ast.AST]:
    """Top-level public names that a .pyi declares, with what declares them."""
    names: dict[str, ast.AST] = {}
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names[node.name] = node
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names[node.target.id] = node
        elif isinstance(node, ast.Assign):
            names |= {target.id: node for target in node.targets if isinstance(target, ast.Name)}
    return {name: node for name, node in names.items() if not name.startswith("_")}


def exports(module: ModuleType) -> set[str]:
    """Public functions and classes that a compiled module defines itself."""
    return {
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and callable(value)
        and getattr(value, "__module__", "") == module.__name__
    }


@pytest.mark.parametrize("path", files(".pyx"), ids=str)
def test_stub_says_what_the_module_has(path):
    module = importlib.import_module(".".join(path.with_suffix("").parts))
    stub = ROOT / path.with_suffix(".pyi")
    if not stub.is_file():
        assert not exports(module), f"{path} exports these and has no .pyi"
        return
    declared = stub_names(stub)
    assert exports(module) <= declared.keys(), "exported, not in the .pyi"
    assert {name for name in declared if not hasattr(module, name)} == set(), "in the .pyi, not in the module"
    for name, node in declared.items():
        if isinstance(node, ast.FunctionDef):
            arguments = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
            signature = inspect.signature(getattr(module, name))
            assert [a.arg for a in arguments] == list(signature.parameters), f"parameters of {name}"


def test_dtypes_have_the_size_of_their_structs():
    for name, size in records.struct_sizes().items():
        assert getattr(records, name).itemsize == size, name
