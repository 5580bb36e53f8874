"""What a file is that was given as a backup or as an evidence bundle, and is not one: the other one, a compressed one,
one that is cut, one with something after its end, or nothing of ours."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from enum import StrEnum
from hashlib import sha256
from pathlib import Path
from typing import IO

import zstandard

from pik.errors import InputError, command
from pik.inputs.compression import codec_of
from pik.rawlog.objects import SEAL

BUNDLE_END = bytes.fromhex("522a4d18 28000000")
"""Begins the last frame of a bundle: the SHA-256 of the frame with its list, and its size in 8 bytes, the lowest first.
"""

_CHUNK = 1 << 20
_DIGEST = 32


class OwnFile(StrEnum):
    """A kind of file that pik writes for people to keep or to send."""

    BACKUP = "a backup of pik's state"
    BUNDLE = "an evidence bundle"


class NothingOfOurs(InputError):
    """The file is neither a backup nor a bundle, as far as its beginning tells."""


_TO_MAKE = {
    OwnFile.BACKUP: command("backup", "FILE"),
    OwnFile.BUNDLE: command("bundle", "--incident", "NAME", "--from", "TIME", "--to", "TIME", "--out", "FILE"),
}
_TO_CHECK = {OwnFile.BACKUP: ("restore", "--dry-run"), OwnFile.BUNDLE: ("verify",)}


def kind_of(path: Path) -> OwnFile | None:
    """Return what the file begins like, whole or not. Raises OSError."""
    with open(path, "rb") as file:
        return _begun(_decompressed(file.read(_CHUNK)))


def unlike(path: Path, wanted: OwnFile) -> InputError:
    """Return the error for a file that does not end as such a file does: what it is, and what to do. Raises OSError."""
    name, place = repr(str(path)), shlex.quote(str(path))
    with open(path, "rb") as file:
        begin = file.read(_CHUNK)
        text = _decompressed(begin)
        found = _begun(text)
        end = None if found is None else end_of(file, found)
        size = file.seek(0, 2)
    if found is None:
        codec = codec_of(begin)
        if codec is not None and (codec.name != "zstd" or codec_of(text) is not None):
            hint = f"decompress it first: {codec.program} {place} > FILE"
            return InputError(f"{name} is compressed with {codec.name}, so it is not {wanted} itself", hint=hint)
        hint = f"to make one: {_TO_MAKE[wanted]}"
        if not begin:
            return NothingOfOurs(f"{name} is empty", hint=hint)
        if begin.startswith(zstandard.FRAME_HEADER) and not text:
            return NothingOfOurs(f"{name} is not {wanted}, or it is cut near its beginning", hint=hint)
        return NothingOfOurs(f"{name} is not {wanted}", hint=hint)
    if end is None:
        what = f"{found} that is cut or damaged: it does not end as it was written"
        return InputError(f"{name} is {what}", hint="use another copy of it")
    if end < size:
        after = f"{size - end:,} byte{'s' * (size - end != 1)} after its end"
        return InputError(f"{name} is {found} with {after}", hint=f"without them: head -c {end} {place} > FILE")
    first, *options = _TO_CHECK[found]
    return InputError(f"{name} is {found}, not {wanted}", hint=f"to check it: {command(first, str(path), *options)}")


def end_of(file: IO[bytes], kind: OwnFile) -> int | None:
    """Return where a file ends as such a file does, which may be before its last byte; None: nowhere."""
    digest, hashed = sha256(), 0
    for place in _marks(file, SEAL if kind is OwnFile.BACKUP else BUNDLE_END):
        if kind is OwnFile.BACKUP:
            file.seek(hashed)
            while hashed < place:
                data = file.read(min(_CHUNK, place - hashed))
                digest.update(data)
                hashed += len(data)
            file.seek(place + len(SEAL))
            if file.read(_DIGEST) == digest.digest():
                return place + len(SEAL) + _DIGEST
        else:
            file.seek(place + len(BUNDLE_END))
            recorded, length = file.read(_DIGEST), int.from_bytes(file.read(8), "little")
            if length <= place and file.seek(place - length) >= 0 and sha256(file.read(length)).digest() == recorded:
                return place + len(BUNDLE_END) + _DIGEST + 8
    return None


def _marks(file: IO[bytes], mark: bytes) -> Iterator[int]:
    """Yield where these bytes are; the file may be moved in between."""
    start = 0
    while True:
        file.seek(start)
        data = file.read(_CHUNK)
        found = data.find(mark)
        while found >= 0:
            yield start + found
            found = data.find(mark, found + 1)
        if len(data) < _CHUNK:
            return
        start += _CHUNK - len(mark) + 1


def _decompressed(begin: bytes) -> bytes:
    """Return the beginning of what is in a file that begins so; nothing where it is not zstd."""
    try:
        with zstandard.ZstdDecompressor(max_window_size=1 << 23).stream_reader(begin) as reader:
            return reader.read(512)
    except zstandard.ZstdError:
        return b""


def _begun(text: bytes) -> OwnFile | None:
    if text.startswith(b'{"type":"backup"'):
        return OwnFile.BACKUP
    is_bundle = text[257:262] == b"ustar" and text[:100].rstrip(b"\0").endswith(b"/MANIFEST.json")
    return OwnFile.BUNDLE if is_bundle else None
