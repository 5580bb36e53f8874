"""Compressed inputs: gzip and zstd, told by their first bytes and read to their real end."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, cast

import zstandard

from pik.errors import InputError

_MAGIC = 4096  # bytes looked at to tell what an input is
_ZSTD_STEP = 1024  # compressed bytes at a time, for zstd can make 128 KiB out of four


@contextmanager
def uncompressed(stored: BinaryIO, name: str) -> Iterator[BinaryIO]:
    """The input without gzip or zstd compression, which its first bytes tell. Raises InputError for binary files, and
    while reading where the compressed data is damaged or cut."""
    assert isinstance(stored, io.BufferedReader)
    magic = stored.peek(_MAGIC)[:_MAGIC]
    stream: BinaryIO = stored
    if magic.startswith(b"\x1f\x8b"):
        stream = cast(BinaryIO, gzip.GzipFile(fileobj=stored))
    elif _is_zstd(magic):
        stream = io.BufferedReader(_Zstd(stored))
    elif magic.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InputError(f"{name} looks like UTF-16", hint=f"iconv -f UTF-16 -t UTF-8 {name} | pik ingest -")
    elif b"\0" in magic:
        raise InputError(f"{name} is a binary file, not JSON lines")
    try:
        yield stream
    except (EOFError, zlib.error, gzip.BadGzipFile, zstandard.ZstdError) as error:
        raise InputError(
            f"{name} cannot be decompressed to its end: {error}",
            hint="what was recorded before that is kept; ingest a whole copy of the file",
        ) from None


def _is_zstd(magic: bytes) -> bool:
    """Whether it begins with a frame, or with one to skip, as parallel compressors write."""
    skippable = magic[1:4] == b"\x2a\x4d\x18" and 0x50 <= magic[0] < 0x60
    return skippable or magic.startswith(b"\x28\xb5\x2f\xfd")


class _Zstd(io.RawIOBase):
    """Frames of zstd, decompressed. Raises EOFError where the last one is cut: zstandard's own reader does not tell."""

    def __init__(self, stored: BinaryIO) -> None:
        self._stored = stored
        self._frame: zstandard.ZstdDecompressionObj | None = None
        self._rest = self._ready = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready and (data := self._rest or self._stored.read(_ZSTD_STEP)):
            frame = self._frame or zstandard.ZstdDecompressor().decompressobj()
            self._ready = frame.decompress(data)
            self._frame, self._rest = (None, frame.unused_data) if frame.eof else (frame, b"")
        if not self._ready and self._frame:
            raise EOFError("its last zstd frame is cut")
        size = min(len(buffer), len(self._ready))
        buffer[:size], self._ready = self._ready[:size], self._ready[size:]
        return size
