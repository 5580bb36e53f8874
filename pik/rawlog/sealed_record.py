"""Records among raw: JSON lines in one zstd frame, sealed by a second one, so that a changed or lost bit shows."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256
from typing import TypeVar

import msgspec
import zstandard

from pik.errors import Damaged
from pik.ports.raw import Raw

Line = TypeVar("Line", bound=msgspec.Struct)

_SEAL = bytes.fromhex("502a4d18 20000000")
"""Begins a skippable zstd frame of 32 bytes: who reads the lines does not see it."""
_SEAL_SIZE = len(_SEAL) + 32


def packed(lines: Iterable[msgspec.Struct]) -> bytes:
    """The bytes of a record with these lines."""
    compressor = zstandard.ZstdCompressor(level=3, write_checksum=True)
    buffer = io.BytesIO()
    with compressor.stream_writer(buffer, closefd=False) as writer:
        for line in lines:
            writer.write(msgspec.json.encode(line) + b"\n")
    buffer.write(_seal(buffer.getbuffer()))
    return buffer.getvalue()


def record_lines(raw: Raw, key: str, decode: Callable[[bytes], Line]) -> Iterator[Line]:
    """The lines of a record. Raises Damaged, before the first one, if any bit is not as it was written."""
    data = memoryview(raw.read(key))
    frame = data[:-_SEAL_SIZE]
    if data[-_SEAL_SIZE:] != _seal(frame):
        raise Damaged(f"record {key} is cut or changed", hint="pik verify --full")
    try:
        with zstandard.ZstdDecompressor().stream_reader(frame) as reader:
            yield from map(decode, io.BufferedReader(reader))
    except (zstandard.ZstdError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Damaged(f"record {key} is damaged: {error}", hint="pik verify --full") from None


def _seal(frame: bytes | memoryview) -> bytes:
    return _SEAL + sha256(frame).digest()
