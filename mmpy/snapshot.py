"""Saved machines: a file that holds the arrays, without the parts that are all zero.

Format (.npz, no pickle): "header" (JSON as bytes: format, version, config, stored sysctls, and for each array its dtype, shape and a
CRC-32), and for each array NAME "NAME.chunks" (indices of 64 KiB pieces) and "NAME.data" (their bytes). Loading tests everything:
the checksums, the dtypes against those of this version, and the whole state by recounting it.
"""

from __future__ import annotations

import os
import zlib
from typing import Any

import numpy as np

from mmcore.base.state import ARRAYS, POOLS, State, aligned_zeros, pool_dtype

FORMAT = "mmpy-machine"
VERSION = 2
CHUNK = 1 << 16
MAX_BYTES = 1 << 40


def _unreadable() -> tuple[type[Exception], ...]:
    """What numpy and zipfile raise on bytes that are no archive of plain arrays."""
    import tokenize  # when a file is read: importing mmpy needs neither
    import zipfile

    return (
        OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error, NotImplementedError, MemoryError, AttributeError,
        SyntaxError, tokenize.TokenError, TypeError, OverflowError, RuntimeError, RecursionError,
    )  # fmt: skip


class SnapshotFormatError(ValueError):
    """A file that is no saved machine, or a damaged one."""


def write(path: str | os.PathLike[str], state: State, config: dict[str, Any], extra: dict[str, Any]) -> None:
    """Save a state with the configuration of its machine; an existing file is replaced as a whole or not at all."""
    import json

    members: dict[str, np.ndarray] = {}
    arrays: dict[str, Any] = {}
    for name, array in state.arrays().items():
        raw = array.reshape(-1).view(np.uint8)
        chunks = state.nonzero_chunks(name)
        data = np.concatenate([raw[i * CHUNK : (i + 1) * CHUNK] for i in chunks.tolist()]) if len(chunks) else np.empty(0, np.uint8)
        members[f"{name}.chunks"], members[f"{name}.data"] = chunks, data
        arrays[name] = {"shape": list(array.shape), "dtype": _dtype_text(array.dtype), "crc": _checksum(chunks, data)}
    header = {"format": FORMAT, "version": VERSION, "config": config, "extra": extra, "names": state.names, "arrays": arrays}
    members["header"] = np.frombuffer(json.dumps(header, sort_keys=True).encode(), np.uint8)
    temporary = f"{os.fspath(path)}.part"
    try:
        with open(temporary, "wb") as file:
            np.savez_compressed(file, allow_pickle=False, **members)
        os.replace(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)


def read(path: str | os.PathLike[str]) -> tuple[State, dict[str, Any], dict[str, Any]]:
    """State, configuration and extras of a saved machine. SnapshotFormatError says what is wrong with the file."""
    import json

    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            members = {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        raise
    except _unreadable() as error:
        raise SnapshotFormatError(f"{path}: not a saved machine ({error})") from None
    try:
        header = json.loads(bytes(members["header"]).decode())
        if header["format"] != FORMAT or header["version"] != VERSION:
            found = f"{header['format']!r} version {header['version']}"
            raise SnapshotFormatError(f"{path}: format {found}; this version reads {FORMAT!r} {VERSION}")
        template = State(nr_pages=1, nr_nodes=1, nr_zone_types=1, nr_cpus=1, nr_lazy=1, nr_present=1)
        arrays = {name: _rebuild(path, name, header["arrays"][name], members, getattr(template, name).dtype) for name in ARRAYS}
        bits = int(arrays["vm_globals"]["pt_bits"][0])
        if bits not in (9, 10):
            raise SnapshotFormatError(f"{path}: page tables with {bits} index bits")
        for name in POOLS:
            arrays[name] = _rebuild(path, name, header["arrays"][name], members, pool_dtype(name, bits))
        state = State.from_arrays(arrays)
        if not isinstance(header["names"], list) or not all(isinstance(n, str) for n in header["names"]):
            raise SnapshotFormatError(f"{path}: its names are no list of texts")
        state.names[:] = header["names"]
        _read_tlb(path, state, header["arrays"], members)
        from mmcore.sys import recount  # when a file is read: it loads every room

        recount.validate(state)
        config, extra = header["config"], header["extra"]
        if not isinstance(config, dict) or not isinstance(extra, dict):
            raise SnapshotFormatError(f"{path}: its configuration is not a table")
        return state, config, extra
    except SnapshotFormatError:
        raise
    except (KeyError, TypeError, ValueError, AssertionError, OverflowError, MemoryError, AttributeError, RecursionError) as error:
        raise SnapshotFormatError(f"{path}: damaged ({type(error).__name__}: {error})") from None


def _read_tlb(path: object, state: State, metas: dict[str, Any], members: dict[str, np.ndarray]) -> None:
    """The TLBs of a machine that had some."""
    if not any(name.startswith("tlb.") for name in metas):
        return
    from mmcore.vm.tlb_model import TlbModel

    template = TlbModel("off").arrays()
    state.attach("tlb", TlbModel.from_arrays({
        name: _rebuild(path, f"tlb.{name}", metas[f"tlb.{name}"], members, array.dtype) for name, array in template.items()
    }))  # fmt: skip


def _checksum(chunks: np.ndarray, data: np.ndarray) -> int:
    return zlib.crc32(data.tobytes(), zlib.crc32(chunks.tobytes()))


def _dtype_text(dtype: np.dtype) -> str:
    return str(dtype.descr if dtype.names else dtype.str)


def _rebuild(path: object, name: str, meta: dict[str, Any], members: dict[str, np.ndarray], dtype: np.dtype) -> np.ndarray:
    if meta["dtype"] != _dtype_text(dtype.base if dtype.subdtype is not None else dtype):
        raise SnapshotFormatError(f"{path}: records {name!r} have another layout than in this version")
    shape = tuple(meta["shape"])
    if not all(isinstance(n, int) and 0 <= n < 2**33 for n in shape) or np.prod([float(n) for n in shape]) * dtype.itemsize > MAX_BYTES:
        raise SnapshotFormatError(f"{path}: array {name!r} has the impossible shape {shape}")
    chunks, data = members[f"{name}.chunks"], members[f"{name}.data"]
    if chunks.dtype != np.int64 or data.dtype != np.uint8 or chunks.ndim != 1 or data.ndim != 1:
        raise SnapshotFormatError(f"{path}: array {name!r} is stored in another form")
    if _checksum(chunks, data) != meta["crc"]:
        raise SnapshotFormatError(f"{path}: checksum of array {name!r} is wrong")
    if dtype.subdtype is not None:
        dtype = dtype.base  # a table's entries are the array's last dimension
    array = aligned_zeros(shape, dtype)
    raw = array.reshape(-1).view(np.uint8)
    at = 0
    for i in chunks.tolist():
        n = min(CHUNK, len(raw) - i * CHUNK)
        if i < 0 or n <= 0 or at + n > len(data):
            raise SnapshotFormatError(f"{path}: array {name!r} has a piece {i} that lies outside it")
        raw[i * CHUNK : i * CHUNK + n] = data[at : at + n]
        at += n
    if at != len(data):
        raise SnapshotFormatError(f"{path}: array {name!r} has {len(data) - at} bytes too many")
    return array
