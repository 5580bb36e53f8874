"""Compression of inputs: gzip and zstd, recognized by the first bytes."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO

import zstandard

from pik.errors import InputError
from pik.inputs.shapes import refuse_binary

_MAGIC = 4096  # bytes looked at to tell what an input is
_ZSTD_HEADER = 18  # bytes of the header of a frame, at most
_ZSTD_WINDOW = 1 << 27  # what a frame may look back, as zstd itself allows unless --long says more
_ZSTD_STEP = 1024  # compressed bytes at a time, for zstd can make 128 KiB out of four


@contextmanager
def uncompressed(stored: BinaryIO, name: str) -> Iterator[BinaryIO]:
    """Open the input without its gzip or zstd compression, recognized by the first bytes. Raises InputError for binary
    files, and while reading where the compressed data is damaged or cut."""
    hint = "what was recorded before that is kept; ingest a whole copy of the file"
    with decompressed(stored, name, hint) as stream:
        if stream is stored:
            refuse_binary(stream.peek(_MAGIC)[:_MAGIC], name)
        yield stream


@contextmanager
def decompressed(stored: BinaryIO, name: str, hint: str = "") -> Iterator[io.BufferedReader]:
    """As `uncompressed`, but for binary files too; `hint` is that of the error where the data is damaged or cut."""
    assert isinstance(stored, io.BufferedReader)
    magic = stored.peek(_MAGIC)[:_MAGIC]
    stream = stored
    if magic.startswith(b"\x1f\x8b"):
        stream = io.BufferedReader(gzip.GzipFile(fileobj=stored))
    elif _is_zstd(magic):
        stream = io.BufferedReader(_Zstd(stored, name))
    try:
        yield stream
    except (EOFError, zlib.error, gzip.BadGzipFile, zstandard.ZstdError) as error:
        raise InputError(f"{name} cannot be decompressed to its end: {error}", hint=hint) from None


def beginning(stored: bytes, size: int) -> bytes:
    """Return at most `size` uncompressed bytes of an input that begins so; fewer where it is cut or damaged."""
    with suppress(zlib.error, zstandard.ZstdError):
        if stored.startswith(b"\x1f\x8b"):
            return zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(stored, size)
        if _is_zstd(stored[:4]):
            with suppress(EOFError, InputError):
                return io.BufferedReader(_Zstd(io.BytesIO(stored), "")).read(size)
            return b""
    return stored


def _is_zstd(magic: bytes) -> bool:
    """Whether it begins with a frame, or with a skippable one, as parallel compressors write."""
    skippable = magic[1:4] == b"\x2a\x4d\x18" and 0x50 <= magic[0] < 0x60
    return skippable or magic.startswith(b"\x28\xb5\x2f\xfd")


class _Zstd(io.RawIOBase):
    """Decompressed frames of zstd. Raises EOFError where the last one is cut, which zstandard's own reader ignores."""

    def __init__(self, stored: BinaryIO, name: str) -> None:
        self._stored, self._name = stored, name
        self._frame: zstandard.ZstdDecompressionObj | None = None
        self._rest = self._ready = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready and (data := self._rest or self._stored.read(_ZSTD_STEP)):
            if self._frame is None and len(data) < _ZSTD_HEADER:
                data += self._stored.read(_ZSTD_HEADER)
            frame = self._frame or self._begin(data)
            self._ready = frame.decompress(data)
            self._frame, self._rest = (None, frame.unused_data) if frame.eof else (frame, b"")
        if not self._ready and self._frame:
            raise EOFError("its last zstd frame is cut")
        size = min(len(buffer), len(self._ready))
        buffer[:size], self._ready = self._ready[:size], self._ready[size:]
        return size

    def _begin(self, data: bytes) -> zstandard.ZstdDecompressionObj:
        """Return a decompressor for a frame that begins so. Raises InputError where that would take too much memory."""
        with suppress(zstandard.ZstdError):  # the decompressor reports what is wrong with the header
            window = zstandard.get_frame_parameters(data).window_size
            if window > _ZSTD_WINDOW:
                bits = (window - 1).bit_length()
                raise InputError(
                    f"{self._name} was compressed with zstd --long={bits}, and takes {window >> 20} MiB to decompress",
                    hint=f"zstd -dc --long={bits} {self._name if self._name != 'standard input' else ''}".rstrip()
                    + " | pik ingest -",
                )
        return zstandard.ZstdDecompressor().decompressobj()
