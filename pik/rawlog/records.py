"""Sealed files of JSON lines: the records among raw, backups, and files of rejects.

The lines are one zstd frame; a second, skippable frame is the seal: the digest of the first, so that a changed or lost
bit shows. docs/format.md specifies it.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import IO, TypeVar, cast

import msgspec
import zstandard

from pik.errors import Damaged, InputError, StoreError, UsageError
from pik.model.batch import Reject
from pik.ports.raw import Raw
from pik.rawlog.frames import damaged, unpacked
from pik.runtime.spool import sync, sync_directory

SEAL = bytes.fromhex("502a4d18 20000000")
"""Begins a skippable zstd frame of 32 bytes: what reads the lines does not see it."""

_SEAL_SIZE = len(SEAL) + 32
_CHUNK = 1 << 20


def write_sealed(path: Path, lines: Iterable[bytes]) -> str:
    """Create the file, whole and durable or not at all, and return its digest. Raises UsageError where it exists,
    StoreError."""
    if path.exists():
        raise _there(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        try:
            with open(beside, "xb") as file:
                digest = _write(file, lines)
                file.flush()
                sync(file.fileno())
            os.link(beside, path)  # unlike rename, link never replaces
        finally:
            with suppress(FileNotFoundError):
                os.unlink(beside)
        sync_directory(path.parent)
    except FileExistsError:
        raise _there(path) from None
    except OSError as error:
        raise StoreError(
            f"cannot write {str(path)!r}: {error.strerror}",
            hint="name a file in a directory that can be written to",
        ) from None
    return digest


def read_sealed(path: Path, what: str) -> Iterator[bytes]:
    """The lines of the file, once its seal has been found to hold. Raises InputError; `what` says what it should be."""
    try:
        with open(path, "rb") as file:
            size = _expect_sealed(file, path, what)
            file.seek(0)
            part = cast(IO[bytes], _Part(file, size))
            with zstandard.ZstdDecompressor().stream_reader(part) as reader:
                yield from io.BufferedReader(reader, _CHUNK)
    except OSError as error:
        raise InputError(f"cannot read {str(path)!r}: {error.strerror}") from None
    except zstandard.ZstdError as error:
        raise InputError(f"{str(path)!r} is not {what}: {error}") from None


def digest_of(path: Path) -> str:
    """The digest in the seal of a file."""
    with open(path, "rb") as file:
        file.seek(-32, os.SEEK_END)
        return file.read().hex()


def _write(file: IO[bytes], lines: Iterable[bytes]) -> str:
    hashing = _Hashing(file)
    compressor = zstandard.ZstdCompressor(level=3, write_checksum=True)
    with compressor.stream_writer(cast(IO[bytes], hashing), closefd=False) as writer:
        for line in lines:
            writer.write(line)
    digest = hashing.hash.digest()
    file.write(SEAL + digest)
    return digest.hex()


def _expect_sealed(file: IO[bytes], path: Path, what: str) -> int:
    """The number of bytes before the seal."""
    size = file.seek(0, os.SEEK_END) - _SEAL_SIZE
    if size > 0:
        file.seek(size)
        seal = file.read()
        file.seek(0)
        if seal.startswith(SEAL):
            found, left = sha256(), size
            while left and (data := file.read(min(_CHUNK, left))):
                found.update(data)
                left -= len(data)
            if seal == SEAL + found.digest():
                return size
            raise InputError(
                f"{str(path)!r} is cut or changed: its digest does not match", hint=f"use another copy of {what}"
            )
    raise InputError(f"{str(path)!r} is not {what}, or it is cut", hint="to make one: pik backup FILE")


class _Hashing(io.RawIOBase):
    """Writes to a file, and hashes what it writes."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.hash = sha256()

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        self.hash.update(data)  # type: ignore[arg-type]
        return self.file.write(data)  # type: ignore[call-overload, no-any-return]


class _Part(io.RawIOBase):
    """The first bytes of a file."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self.file = file
        self.left = size

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self.file.read(self.left if size < 0 else min(size, self.left))
        self.left -= len(data)
        return data


def _there(path: Path) -> UsageError:
    return UsageError(f"{str(path)!r} exists already", hint="give another name; an existing file is never overwritten")


Line = TypeVar("Line", bound=msgspec.Struct)


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
    return SEAL + sha256(frame).digest()


def read_rejects(raw: Raw, key: str) -> list[Reject]:
    """Return the records of a file of rejects, by seq. Raises Damaged."""
    try:
        rejects = list(map(_decode_reject, unpacked(key, raw.read(key))))
    except msgspec.MsgspecError as error:
        raise damaged(key, str(error)) from None
    if not rejects:
        raise damaged(key, "it holds no record")
    return rejects


_decode_reject = msgspec.json.Decoder(Reject).decode
