"""The file of a bundle: a tar archive, each member compressed as a zstd frame of its own, and a list of the frames.

`tar --zstd` and `zstd` read it: to them the list is a frame that is skipped. With the list, every byte of the file has
a digest, and damage is found in the member that it hit; the others can still be read. docs/bundle.md specifies it.

An archive may come from anywhere, so reading trusts nothing in it: names are those that pik writes, in order and once
each, members are plain files, and their sizes have a limit.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import file_digest, sha256
from pathlib import Path
from typing import IO

import msgspec
import zstandard

from pik.errors import Damaged, InputError, StoreError, command
from pik.runtime import Progress
from pik.runtime.new_file import created_whole
from pik.usecases.own_files import BUNDLE_END, OwnFile, end_of, kind_of, unlike

LEVEL = 6
_WINDOW = 1 << 23
"""The most memory, in bytes, that a frame may ask a reader for."""

_LIST = bytes.fromhex("512a4d18")
"""Begins the skippable frame that lists the others."""

_END_SIZE = len(BUNDLE_END) + 40
_CHUNK = 1 << 20
_BLOCK = tarfile.BLOCKSIZE
_LARGEST_LIST = 1 << 28

EXPANSION = 1000
"""How many times the size of the file its members may have together, at most."""

_SMALL = 64 << 20
"""Bytes that the members of the smallest file may have."""


class Frame(msgspec.Struct, frozen=True, array_like=True):
    """A frame: the member in it, its bytes in the file, and their SHA-256 in hex."""

    name: str
    size: int
    digest: str


@dataclass(frozen=True, slots=True)
class Written:
    """An archive that was written: its size in bytes, and its SHA-256 in hex."""

    size: int
    digest: str


def write_archive(path: Path, root: Path, names: Sequence[str], prefix: str, progress: Progress) -> Written:
    """Create the archive of these files below `root`, whole and durable or not at all; in the archive each stands below
    `prefix`. The same files give the same bytes.

    Raises UsageError if there is such a file, StoreError.
    """
    with created_whole(path) as file:
        frames = []
        for name in sorted(names):
            size = (root / name).stat().st_size
            with open(root / name, "rb") as member:
                frames.append(_write_frame(file, f"{prefix}/{name}", member, size, progress))
        frames.append(_write_frame(file, "", io.BytesIO(bytes(2 * _BLOCK)), 2 * _BLOCK, progress))
        listed = zstandard.ZstdCompressor(level=LEVEL).compress(msgspec.json.encode(frames))
        frame = _LIST + len(listed).to_bytes(4, "little") + listed
        file.write(frame + BUNDLE_END + sha256(frame).digest() + len(frame).to_bytes(8, "little"))
        file.seek(0)
        digest = file_digest(file, "sha256").hexdigest()
        size = file.tell()
    return Written(size, digest)


def _write_frame(file: IO[bytes], name: str, member: IO[bytes], size: int, progress: Progress) -> Frame:
    """Write a member; the end of the archive, which has no name, as it is."""
    begin = file.tell()
    hashing = _Hashing(file)
    compressor = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True, write_content_size=False)
    with compressor.stream_writer(hashing, closefd=False) as writer:  # type: ignore[arg-type]
        if name:
            writer.write(_header(name, size))
        left = size
        while left:
            data = member.read(min(_CHUNK, left))
            if not data:
                raise StoreError(f"{name} became shorter while it was being read")
            writer.write(data)
            left -= len(data)
            progress.advance(len(data))
        writer.write(bytes(-size % _BLOCK))
    return Frame(name, file.tell() - begin, hashing.digest.hexdigest())


class _Hashing:
    """A file that only grows, with the digest of what was written."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.digest = file, sha256()

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return self.file.write(data)

    def flush(self) -> None:
        self.file.flush()


def _header(name: str, size: int) -> bytes:
    """Return the header of a member: of a plain file that anyone may read, with nothing of whoever made it."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    try:
        return info.tobuf(tarfile.USTAR_FORMAT)
    except ValueError as error:
        raise StoreError(f"{name} does not fit into a tar archive: {error}") from None


class Archive:
    """An archive to read from. Raises InputError for a file that is not one, Damaged for one whose list of frames is
    not as it was written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.size = path.stat().st_size
            with open(path, "rb") as file:
                self.frames = _read_list(file, self.size, path)
        except OSError as error:
            is_directory = isinstance(error, IsADirectoryError)
            hint = "to check a store: " + command("--store", str(path), "verify") if is_directory else ""
            raise InputError(f"cannot read {str(path)!r}: {error.strerror}", hint=hint) from None
        self.limit = max(self.size * EXPANSION, _SMALL)

    def damaged(self, progress: Progress) -> Iterator[str]:
        """Yield the members whose bytes are not as they were written."""
        with open(self.path, "rb") as file:
            for frame in self.frames:
                digest, left = sha256(), frame.size
                while left and (data := file.read(min(_CHUNK, left))):
                    digest.update(data)
                    left -= len(data)
                    progress.advance(len(data))
                if digest.hexdigest() != frame.digest:
                    yield frame.name

    def members(self) -> Iterator[tuple[str, Iterator[bytes]]]:
        """Yield each member's name and content, which must be read before the next one. Raises Damaged, naming the
        member, for bytes that are not as they were written, and InputError for what pik does not write."""
        left, place = self.limit, 0
        with open(self.path, "rb") as file:
            for frame in self.frames[:-1]:
                file.seek(place)
                content = _content(frame, file)
                size = int.from_bytes(next(content), "big")
                left -= size
                if left < 0:
                    raise InputError(
                        f"{str(self.path)!r} expands to more than {EXPANSION:,} times its size, which is refused",
                        hint="use another copy of the bundle",
                    )
                yield frame.name, content
                for _ in content:  # its end is checked as well
                    pass
                place += frame.size


def _content(frame: Frame, file: IO[bytes]) -> Iterator[bytes]:
    """Yield the member's size as bytes, then its content."""
    stored = _Slice(file, frame.size)
    decompressor = zstandard.ZstdDecompressor(max_window_size=_WINDOW)
    try:
        with decompressor.stream_reader(stored, read_size=_CHUNK) as reader:  # type: ignore[arg-type]
            size = _size_in(frame.name, _exactly(reader, _BLOCK))
            yield size.to_bytes(8, "big")
            left = size
            while left:
                data = reader.read(min(_CHUNK, left))
                if not data:
                    raise EOFError
                left -= len(data)
                yield data
            is_padded = _exactly(reader, -size % _BLOCK) == bytes(-size % _BLOCK)
            if not is_padded or reader.read(1) or stored.rest():
                raise _damaged(frame.name)
    except (zstandard.ZstdError, EOFError, MemoryError):
        raise _damaged(frame.name) from None
    if stored.digest.hexdigest() != frame.digest:
        raise _damaged(frame.name)


class _Slice:
    """The next bytes of a file, with the digest of those that were read."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self.file, self.left, self.digest = file, size, sha256()

    def read(self, size: int = -1) -> bytes:
        data = self.file.read(self.left if size < 0 else min(size, self.left))
        self.left -= len(data)
        self.digest.update(data)
        return data

    def rest(self) -> bool:
        """Return whether anything is left."""
        return self.left > 0


def _exactly(reader: IO[bytes], size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = reader.read(size - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def _size_in(name: str, header: bytes) -> int:
    """Return the size in the header of a member, which must be the one that pik writes."""
    try:
        size = tarfile.TarInfo.frombuf(header, "utf-8", "strict").size
    except (tarfile.TarError, UnicodeDecodeError):
        raise _damaged(name) from None
    if size < 0 or _header(name, size) != header:
        raise InputError(f"the member {name!r} of the bundle is not a plain file", hint="pik wrote no such bundle")
    return size


def _damaged(name: str) -> Damaged:
    return Damaged(f"the member {name!r} of the bundle is not as it was written", hint="use another copy of the bundle")


def _read_list(file: IO[bytes], size: int, path: Path) -> list[Frame]:
    changed = Damaged(
        f"{str(path)!r} is changed: its list of members is not as it was written", hint="use another copy of it"
    )
    not_one = InputError(f"{str(path)!r} is not an evidence bundle: it lists no members", hint="use another copy of it")
    if size < _END_SIZE:
        raise unlike(path, OwnFile.BUNDLE)
    file.seek(size - _END_SIZE)
    end = file.read(_END_SIZE)
    length = int.from_bytes(end[-8:], "little")
    is_there = len(_LIST) < length <= min(size - _END_SIZE, _LARGEST_LIST)
    if not end.startswith(BUNDLE_END):
        is_torn = kind_of(path) is OwnFile.BUNDLE and end_of(file, OwnFile.BUNDLE) is None and b"*M\x18" in end
        raise changed if is_torn else unlike(path, OwnFile.BUNDLE)
    if not is_there:
        raise changed
    file.seek(size - _END_SIZE - length)
    data = file.read(length)
    if sha256(data).digest() != end[len(BUNDLE_END) : -8] or not data.startswith(_LIST):
        raise changed
    try:
        text = _bounded(data[8:])
        frames = msgspec.json.decode(text, type=list[Frame])
    except (zstandard.ZstdError, msgspec.MsgspecError, UnicodeDecodeError, MemoryError):
        raise not_one from None
    names = [frame.name for frame in frames]
    if (
        not frames
        or sum(frame.size for frame in frames) != size - _END_SIZE - length
        or any(frame.size <= 0 for frame in frames)
        or names.pop() != ""
        or names != sorted(set(names))
    ):
        raise not_one if kind_of(path) is OwnFile.BUNDLE else unlike(path, OwnFile.BUNDLE)
    return frames


def _bounded(data: bytes) -> bytes:
    """Return the list in its frame, of which a hostile file may claim any size."""
    with zstandard.ZstdDecompressor(max_window_size=_WINDOW).stream_reader(data) as reader:
        text = reader.read(_LARGEST_LIST)
        if reader.read(1):
            raise MemoryError
    return text
