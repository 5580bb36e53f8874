"""The objects of raw: frames of lines, sealed JSON lines (records among raw, and backup files), and files of rejects.

Damage raises; it never shortens an answer. Sealed lines are one zstd frame; a second, skippable frame is the seal: the
digest of the first, so that a changed or lost bit shows. Readers of the lines do not see it. docs/format.md specifies
it.
"""

from __future__ import annotations

import io
import os
from bisect import bisect_left
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import file_digest, sha256
from pathlib import Path
from typing import IO, TypeVar

import msgspec
import zstandard

from pik.errors import Damaged, InputError, Invalid
from pik.model.batch import Frame, Reject, Segment
from pik.model.correction import CorrectionList
from pik.model.delivery import Delivery, lines_of, read_delivery
from pik.ports.raw import ObjectReader, Raw
from pik.runtime.new_file import created_whole

SEAL = bytes.fromhex("502a4d18 20000000")
"""Begins a skippable zstd frame of 32 bytes."""

_SEAL_SIZE = len(SEAL) + 32
_CHUNK = 1 << 20

Line = TypeVar("Line", bound=msgspec.Struct)


def packed(lines: Iterable[msgspec.Struct]) -> bytes:
    """Return the bytes of a record with these lines."""
    buffer = io.BytesIO()
    _compress(buffer, (msgspec.json.encode(line) + b"\n" for line in lines))
    buffer.write(SEAL + sha256(buffer.getbuffer()).digest())
    return buffer.getvalue()


def record_lines(raw: ObjectReader, key: str, decode: Callable[[bytes], Line]) -> Iterator[Line]:
    """Yield the lines of a record. Raises Damaged, before the first one, if any bit is not as it was written."""
    return unsealed(key, memoryview(raw.read(key)), decode)


def unsealed(key: str, data: memoryview, decode: Callable[[bytes], Line]) -> Iterator[Line]:
    """Yield the lines of what was `packed`. Raises Damaged, naming it `key`, before the first one."""
    frame = data[:-_SEAL_SIZE]
    if data[-_SEAL_SIZE:] != SEAL + sha256(frame).digest():
        raise Damaged(f"record {key} is cut or changed", hint="pik verify --full")
    try:
        with zstandard.ZstdDecompressor().stream_reader(frame) as reader:
            yield from map(decode, io.BufferedReader(reader))
    except (zstandard.ZstdError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Damaged(f"record {key} is damaged: {error}", hint="pik verify --full") from None


@dataclass(frozen=True, slots=True)
class HeldObject:
    """The bytes of an object, read by any key."""

    data: bytes

    def read(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        del key
        end = None if length is None else offset + length
        return self.data[offset:end]


def read_rejects(raw: ObjectReader, key: str) -> list[Reject]:
    """Return the records of a file of rejects, by seq. Raises Damaged."""
    try:
        rejects = list(map(_decode_reject, unpacked(key, raw.read(key))))
    except msgspec.MsgspecError as error:
        raise damaged(key, str(error)) from None
    if not rejects:
        raise damaged(key, "it holds no record")
    return rejects


_decode_reject = msgspec.json.Decoder(Reject).decode


def write_sealed(path: Path, lines: Iterable[bytes]) -> str:
    """Create a sealed file outside of a store, in bounded memory; return its digest. Raises as `created_whole`."""
    with created_whole(path) as file:
        _compress(file, lines)
        file.seek(0)
        digest = file_digest(file, "sha256").digest()
        file.write(SEAL + digest)
    return digest.hex()


def _compress(file: IO[bytes], lines: Iterable[bytes]) -> None:
    compressor = zstandard.ZstdCompressor(level=3, write_checksum=True)
    with compressor.stream_writer(file, closefd=False) as writer:
        for line in lines:
            writer.write(line)


def read_sealed(path: Path, what: str, unlike: Callable[[], InputError]) -> Iterator[bytes]:
    """Yield the lines of a sealed file, once its seal has been checked. Raises InputError; `what` is what the file
    should be, and `unlike` returns the error for one without a seal."""
    try:
        with open(path, "rb") as file:
            _expect_sealed(file, path, what, unlike)
            with zstandard.ZstdDecompressor().stream_reader(file) as reader:
                yield from io.BufferedReader(reader, _CHUNK)
    except OSError as error:
        raise InputError(f"cannot read {str(path)!r}: {error.strerror}") from None
    except zstandard.ZstdError as error:
        raise InputError(f"{str(path)!r} is not {what}: {error}") from None


def _expect_sealed(file: IO[bytes], path: Path, what: str, unlike: Callable[[], InputError]) -> None:
    """Check the seal, and leave the file at its beginning."""
    left = file.seek(0, os.SEEK_END) - _SEAL_SIZE
    if left > 0:
        file.seek(left)
        seal = file.read()
        file.seek(0)
        if seal.startswith(SEAL):
            found = sha256()
            while left and (data := file.read(min(_CHUNK, left))):
                found.update(data)
                left -= len(data)
            if seal != SEAL + found.digest():
                raise InputError(
                    f"{str(path)!r} is cut or changed: its digest does not match", hint=f"use another copy of {what}"
                )
            file.seek(0)
            return
    raise unlike()


def digest_of(path: Path) -> str:
    """Return the digest in the seal of a file."""
    with open(path, "rb") as file:
        file.seek(-32, os.SEEK_END)
        return file.read().hex()


def damaged(key: str, what: str) -> Damaged:
    """Return the error for raw that is not what was written."""
    return Damaged(f"raw object {key} is damaged: {what}", hint="what is affected: pik verify --full")


def frames_of(segment: Segment, entities: Sequence[str]) -> list[Frame]:
    """Return the frames that may hold deliveries of these entities (none given: of any)."""
    if not entities:
        return list(segment.frames)
    # Text compares by code point, which is the order of UTF-8 bytes, and so that of the segment.
    return [frame for frame in segment.frames if any(frame.first <= entity <= frame.last for entity in entities)]


def frame_lines(raw: Raw, segment: Segment, frame: Frame) -> list[bytes]:
    """Return the lines of one frame. Raises Damaged."""
    return unpack_frame(segment, frame, frame_bytes(raw, segment, frame, frame))


def frame_bytes(raw: Raw, segment: Segment, first: Frame, last: Frame) -> bytes:
    """Return the frames from `first` to `last` as they are stored. Raises Damaged."""
    begin, end = first.offset, last.offset + last.length
    if segment.inline:
        return segment.inline[begin:end]
    if segment.packed is not None:
        with suppress(Damaged):
            return raw.read(segment.packed.key, segment.packed.offset + begin, end - begin)
    return raw.read(segment.key, begin, end - begin)


def copied(raw: ObjectReader, segment: Segment) -> bytes:
    """Return the copy of a segment's object, if there is one that is as recorded; else nothing."""
    copy = segment.inline
    if segment.packed is not None:
        with suppress(Damaged):
            copy = raw.read(segment.packed.key, segment.packed.offset, segment.size)
    return copy if sha256(copy).hexdigest() == segment.digest else b""


def unpack_frame(segment: Segment, frame: Frame, data: bytes) -> list[bytes]:
    """Return the lines in a frame's bytes. Raises Damaged."""
    return frame_text(segment, frame, data)[:-1].split(b"\n")


def frame_text(segment: Segment | CorrectionList, frame: Frame, data: bytes | memoryview) -> bytes:
    """Return the lines in a frame's bytes, each with its line break. Raises Damaged."""
    if not frame.lines:
        raise Damaged(
            f"the index was rebuilt while the frame at byte {frame.offset} of raw object {segment.key} was lost: which"
            " of its deliveries count is not known",
            hint="once the object is whole: pik verify --rebuild-index",
        )
    try:
        text = zstandard.ZstdDecompressor().decompress(data)
    except zstandard.ZstdError as error:
        raise damaged(segment.key, f"the frame at byte {frame.offset} does not decompress ({error})") from None
    except MemoryError:  # as much as its header asks for
        raise damaged(segment.key, f"the frame at byte {frame.offset} does not have the size in its header") from None
    if text[-1:] != b"\n" or text.count(b"\n") != frame.lines:
        raise damaged(segment.key, f"the frame at byte {frame.offset} does not hold {frame.lines} lines")
    return text


def unpacked(key: str, data: bytes) -> list[bytes]:
    """Return the lines of a whole small object. Raises Damaged."""
    text = b""
    while data:
        decompressor = zstandard.ZstdDecompressor().decompressobj()
        try:
            text += decompressor.decompress(data)
        except zstandard.ZstdError as error:
            raise damaged(key, str(error)) from None
        if not decompressor.eof:  # its checksum may be all that is missing
            raise damaged(key, "its last frame is cut")
        data = decompressor.unused_data
    return text.splitlines()


def parse(key: str, line: bytes) -> Delivery:
    """Return a line of the segment under `key` as a Delivery. Raises Damaged, naming it."""
    try:
        return read_delivery(line)
    except Invalid as error:
        raise damaged(key, error.message) from None


def segment_lines(path: Path, segment: Segment, entities: Sequence[str], wanted: Container[bytes]) -> Iterator[bytes]:
    """Yield the lines whose event_id is wanted from a file of the whole segment; only the frames are read that may hold
    these entities, which are in order. Raises Damaged."""
    with open(path, "rb") as file:
        for frame in segment.frames:
            place = bisect_left(entities, frame.first)
            if place < len(entities) and entities[place] <= frame.last:
                file.seek(frame.offset)
                yield from lines_of(unpack_frame(segment, frame, file.read(frame.length)), wanted)


def raw_lines(files: Iterable[Path], wanted: Container[bytes]) -> Iterator[bytes]:
    """Yield the lines of raw files whose event_id is wanted."""
    for path in files:
        rest = b""
        with open(path, "rb") as file:
            reader = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
            while data := reader.read(_CHUNK):
                *lines, rest = (rest + data).split(b"\n")
                yield from lines_of(lines, wanted)


_READ_TOGETHER = 4 << 20
"""Bytes of adjacent frames that one read gets, about."""


def stored_frames(raw: Raw, segment: Segment, frames: Sequence[Frame]) -> Iterator[tuple[Frame, memoryview]]:
    """Yield frames of a segment as they are stored; adjacent ones are read together. Raises Damaged."""
    for together in _adjacent(frames):
        first, last = together[0], together[-1]
        data = memoryview(frame_bytes(raw, segment, first, last))
        for frame in together:
            yield frame, data[frame.offset - first.offset :][: frame.length]


def _adjacent(frames: Sequence[Frame]) -> Iterator[list[Frame]]:
    """Yield runs of frames without a gap between them, each of at most about _READ_TOGETHER bytes."""
    together: list[Frame] = []
    for frame in frames:
        if together and (
            frame.offset != together[-1].offset + together[-1].length
            or frame.offset - together[0].offset > _READ_TOGETHER
        ):
            yield together
            together = []
        together.append(frame)
    if together:
        yield together
