"""Files of a recording, plain or compressed, read in bounded pieces.

`.gz` needs nothing, `.zst` the extra `traces` (zstandard). A file that ends too early or is corrupt raises TraceFormatError; a piece
never holds more than about a hundred MiB, however hard the file tries.

Models: nothing of the kernel. Omits: writing.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path

from mmpy.traces.errors import TraceFormatError

SUFFIXES = ("", ".zst", ".gz")
# zstd can make 32 KiB of one byte: what is handed to it at once bounds what comes back.
ZSTD_PIECE = 4096
PIECE = 1 << 18
MAX_TEXT = 64 << 20


def find(directory: Path, name: str) -> Path | None:
    """The file `name`, or its compressed form, in `directory`; None if there is neither."""
    for suffix in SUFFIXES:
        if (path := directory / (name + suffix)).is_file():
            return path
    return None


def pieces(path: Path) -> Iterator[bytes]:
    """The uncompressed content of a file, piece by piece.

    TraceFormatError: the compressed data is corrupt or ends too early. ImportError: zstandard is not installed. OSError: unreadable.
    """
    if path.suffix == ".zst":
        yield from _zstd(path)
    elif path.suffix == ".gz":
        yield from _gzip(path)
    else:
        with path.open("rb") as f:
            while piece := f.read(PIECE):
                yield piece


def size_hint(path: Path) -> int:
    """Bytes that a file probably holds when uncompressed: what its header or trailer says, unless that is absurd; 0 if unknown."""
    size = path.stat().st_size
    if path.suffix == ".gz" and size >= 18:
        with path.open("rb") as f:
            f.seek(-4, 2)
            said = int.from_bytes(f.read(4), "little")
        return said if said <= size * 1100 else 0
    if path.suffix == ".zst":
        # Frame header: magic, descriptor, window descriptor unless single segment, dictionary id, content size (RFC 8878, 3.1.1.1).
        with path.open("rb") as f:
            head = f.read(18)
        if len(head) < 18 or head[:4] != b"\x28\xb5\x2f\xfd":
            return 0
        flag, single, dictionary = head[4] >> 6, head[4] >> 5 & 1, (0, 1, 2, 4)[head[4] & 3]
        start, length = 5 + (not single) + dictionary, (single, 2, 4, 8)[flag]
        said = int.from_bytes(head[start : start + length], "little") + (256 if flag == 1 else 0)
        return said if length and said <= size * 100 else size * 12
    return size


def read_text(path: Path, limit: int = MAX_TEXT) -> str:
    """All of a small text file. TraceFormatError if it is larger than `limit` bytes; odd bytes are replaced."""
    parts, size = [], 0
    for piece in pieces(path):
        size += len(piece)
        if size > limit:
            raise TraceFormatError(f"{path}: more than {limit} bytes")
        parts.append(piece)
    return b"".join(parts).decode("utf-8", "replace")


def _zstd(path: Path) -> Iterator[bytes]:
    try:
        import zstandard
    except ImportError:
        raise ImportError(
            f"{path}: reading .zst needs the zstandard package: pip install 'linux-mm-sim[traces]'", name="zstandard"
        ) from None
    context = zstandard.ZstdDecompressor(max_window_size=1 << 27)
    with path.open("rb") as f:
        frame, started = context.decompressobj(), False
        try:
            while piece := f.read(ZSTD_PIECE):
                started = True
                while piece:
                    if out := frame.decompress(piece):
                        yield out
                    piece = b""
                    if frame.eof:
                        piece, frame, started = frame.unused_data, context.decompressobj(), False
                        started = bool(piece)
        except zstandard.ZstdError as e:
            raise TraceFormatError(f"{path}: corrupt zstd data near byte {f.tell()}: {e}") from None
        if started or f.tell() == 0:
            raise TraceFormatError(f"{path}: truncated: the zstd data ends after {f.tell()} bytes within a frame")


def _gzip(path: Path) -> Iterator[bytes]:
    with path.open("rb") as f:
        member, started = zlib.decompressobj(31), False
        try:
            while piece := f.read(PIECE):
                while piece:
                    started = True
                    if out := member.decompress(piece, 1 << 20):
                        yield out
                    piece = member.unconsumed_tail
                    if member.eof:
                        piece, member, started = member.unused_data, zlib.decompressobj(31), False
        except zlib.error as e:
            raise TraceFormatError(f"{path}: corrupt gzip data near byte {f.tell()}: {e}") from None
        if started or f.tell() == 0:
            raise TraceFormatError(f"{path}: truncated: the gzip data ends after {f.tell()} bytes within a member")
