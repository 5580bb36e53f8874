"""Compression of inputs: gzip, zstd, bzip2 and xz, recognized by the first bytes, also one within another.

What could be decompressed before damaged or missing data is read first; then comes the error.
"""

from __future__ import annotations

import bz2
import io
import lzma
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol

import zstandard

from pik.errors import InputError
from pik.inputs.advice import WHOLE, Advice, Option, Read
from pik.inputs.binary import refuse_binary

LAYERS = 3
"""Most compressions of one input, one within another."""

WINDOW = 1 << 27
"""Bytes that decompressing may look back: 128 MiB, as zstd itself allows unless --long or --memory says more."""

_XZ_NEEDS = 1 << 20  # besides its dictionary
_MAGIC = 4096  # bytes looked at to tell what an input is
_READ = 1 << 16  # bytes read, and about as many made, at a time


class _Decompressor(Protocol):
    """Decompresses one member, as the decompressors of bz2 and lzma do."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _Gzip:
    """Decompresses one member of gzip."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(zlib.MAX_WBITS | 16)
        self._filled = False

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def needs_input(self) -> bool:
        return not self._filled and not self._inner.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        made = self._inner.decompress(self._inner.unconsumed_tail + data, max_length)
        self._filled = len(made) == max_length  # there may be more, even without input
        return made


class _Zstd:
    """Decompresses one frame of zstd. The library cannot limit what it makes, 128 KiB out of four bytes perhaps, so it
    is given less at a time the more it makes."""

    def __init__(self, window: int) -> None:
        self._inner = zstandard.ZstdDecompressor(max_window_size=min(max(window, 1 << 10), 1 << 31)).decompressobj()
        self._input = b""
        self._step = 64

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def needs_input(self) -> bool:
        return not self._input

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data + self._input

    def decompress(self, data: bytes, max_length: int) -> bytes:
        self._input += data
        begin, self._input = self._input[: self._step], self._input[self._step :]
        made = self._inner.decompress(begin)
        self._step = min(2 * self._step, 2048) if len(made) < max_length else max(self._step // 2, 16)
        return made


@dataclass(frozen=True, slots=True)
class Codec:
    """A compression: its name, whether it has data that begins so, the decompressor for a member that begins so, its
    errors, how much it is given at a time, and the program that decompresses it."""

    name: str
    has: Callable[[bytes], bool]
    begin: Callable[[bytes, str, int], _Decompressor]
    error: type[Exception]
    program: str
    step: int = _READ
    hint: str = ""
    """What to do about an error at the very beginning."""


def _is_zstd(data: bytes) -> bool:
    """Return whether it begins with a frame, or with a skippable one, as parallel compressors write."""
    skippable = data[1:4] == b"\x2a\x4d\x18" and 0x50 <= data[0] < 0x60
    return skippable or data.startswith(b"\x28\xb5\x2f\xfd")


def _is_bzip2(data: bytes) -> bool:
    first, last = b"1AY&SY", b"\x17rE8P\x90"  # the beginning of a block, and of the end
    begins = data[:3] == b"BZh" and b"1" <= data[3:4] <= b"9"
    return begins and (first.startswith(data[4:10]) or last.startswith(data[4:10]))


def _is_xz(data: bytes) -> bool:
    return len(data) > 1 and b"\xfd7zXZ\0".startswith(data[:6])


def _begin_zstd(data: bytes, name: str, most: int) -> _Decompressor:
    """Return a decompressor for a frame that begins so. Raises InputError where it looks back further than `most`."""
    with suppress(zstandard.ZstdError):  # the decompressor reports what is wrong with the header
        window = zstandard.get_frame_parameters(data).window_size
        if window > most:
            bits = (window - 1).bit_length()
            raise InputError(
                f"{name} was compressed with zstd --long={bits}, and takes {window >> 20} MiB to decompress",
                hint=Advice((Option("max-window", str(window)), " allows that much memory")),
            )
    return _Zstd(most)


def _begin_xz(_data: bytes, _name: str, most: int) -> _Decompressor:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=most + _XZ_NEEDS)


_XZ_HINT = Advice(
    (f"if it is whole (xz -t), it takes more memory than {WINDOW >> 20} MiB, or ", Option("max-window"), ", allows"),
    otherwise=f"if it is whole (xz -t), it takes more memory than {WINDOW >> 20} MiB: decompress it first",
)
_HEADER = 18
"""Bytes by which the beginning of a member is recognized, at most: the header of a frame of zstd."""

CODECS = (
    Codec("gzip", lambda data: data.startswith(b"\x1f\x8b"), lambda *_: _Gzip(), zlib.error, "gzip -dc"),
    Codec("zstd", _is_zstd, _begin_zstd, zstandard.ZstdError, "zstd -dc", step=8192),
    Codec("bzip2", _is_bzip2, lambda *_: bz2.BZ2Decompressor(), OSError, "bzip2 -dc"),
    Codec("xz", _is_xz, _begin_xz, lzma.LZMAError, "xz -dc", hint=_XZ_HINT),
)


def codec_of(data: bytes) -> Codec | None:
    """Return the compression of data that begins so, if any."""
    if data:
        for codec in CODECS:
            if codec.has(data):
                return codec
    return None


def uncompressed(stored: BinaryIO, name: str, window: int = WINDOW) -> io.BufferedReader:
    """Return the input without its compression, which may look back `window` bytes. Raises InputError for binary files,
    and while reading where the compressed data is damaged or cut."""
    stream = decompressed(stored, name, Advice(*WHOLE), window)
    refuse_binary(stream.peek(_MAGIC)[:_MAGIC], name)
    return stream


def decompressed(stored: BinaryIO, name: str, hint: str = "", window: int = WINDOW) -> io.BufferedReader:
    """As `uncompressed`, but for binary files too; `hint` is that of the error where the data is damaged or cut."""
    assert isinstance(stored, io.BufferedReader)
    stream = stored
    for _ in range(LAYERS):
        codec = codec_of(stream.peek(_MAGIC)[:_MAGIC])
        if codec is None:
            break
        stream = PatientReader(_Members(codec, stream, name, hint, window))
    else:
        if codec_of(stream.peek(_MAGIC)[:_MAGIC]) is not None:
            raise InputError(
                f"{name} is compressed more than {LAYERS} times, one compression within another",
                hint="decompress it first",
            )
    return stream


def zstd_reader(stored: BinaryIO, name: str) -> io.BufferedReader:
    """Open what is known to be compressed by zstd, whatever it is inside."""
    return PatientReader(_Members(CODECS[1], stored, name, "", WINDOW))


def beginning(stored: bytes, size: int, window: int = WINDOW) -> bytes:
    """Return at most `size` uncompressed bytes of an input that begins so; fewer where it is cut or damaged."""
    with suppress(InputError):
        return decompressed(io.BufferedReader(io.BytesIO(stored)), "", "", window).read(size)
    return b""


class PatientReader(io.BufferedReader):
    """A reader that returns what comes before an error, and raises the error with the next call."""

    _failure: InputError | None = None

    def read(self, size: int | None = -1, /) -> bytes:
        if self._failure is not None:
            raise self._failure
        parts: list[bytes] = []
        left = -1 if size is None or size < 0 else size
        try:
            while left and (data := self.read1(left if left > 0 else _READ)):
                parts.append(data)
                left -= len(data) if left > 0 else 0
        except InputError as error:
            if not parts:
                raise
            self._failure = error
        return b"".join(parts)


class _Members(io.RawIOBase):
    """The decompressed members of a stream, one after the other. Bytes of zero around them are padding."""

    def __init__(self, codec: Codec, stored: BinaryIO, name: str, hint: str, window: int) -> None:
        self._codec, self._stored, self._name, self._hint = codec, stored, name, hint
        self._window = window
        self._member: _Decompressor | None = None
        self._ended = 0  # members
        self._made = False  # anything, of any member
        self._rest = b""  # of the input, read and not decompressed yet
        self._ready = memoryview(b"")
        self._failure: InputError | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Fill the buffer, so that a look at the beginning shows all of it. An error comes after what precedes it."""
        filled = 0
        try:
            while filled < len(buffer) and (self._ready or self._advance()):
                size = min(len(buffer) - filled, len(self._ready))
                buffer[filled : filled + size], self._ready = self._ready[:size], self._ready[size:]
                filled += size
        except InputError as error:
            if not filled:
                raise
            self._failure = error
        return filled

    def _advance(self) -> bool:
        """Decompress a little more. Return whether there is any."""
        if self._failure is not None:
            raise self._failure
        made = b""
        while not made:
            if self._member is None and not self._begin():
                return False
            made = self._decompress()
        self._ready = memoryview(made)
        return True

    def _begin(self) -> bool:
        """Begin the next member. Return whether there is one."""
        self._rest = self._rest.lstrip(b"\0")
        while len(self._rest) < _HEADER and (data := self._stored.read(self._codec.step)):
            self._rest = (self._rest + data).lstrip(b"\0")
        if not self._rest:
            return False
        if not self._codec.has(self._rest):
            members = "member" if self._ended == 1 else f"{self._ended:,} members"
            raise self._error(f"after its {members} comes what is not {self._codec.name}", self._without_the_rest())
        self._member = self._codec.begin(self._rest, self._name, self._window)
        return True

    def _decompress(self) -> bytes:
        """Return what the member makes of the next bytes."""
        member = self._member
        assert member is not None
        data = b""
        if member.needs_input:
            data, self._rest = self._rest or self._stored.read(self._codec.step), b""
            if not data:
                raise self._error("it is cut")
        try:
            made = member.decompress(data, _READ)
        except self._codec.error as error:
            raise self._error(str(error), "" if self._made else self._codec.hint) from None
        self._made = self._made or bool(made)
        if member.eof:
            self._rest, self._member, self._ended = member.unused_data, None, self._ended + 1
        return made

    def _error(self, why: str, hint: str = "") -> InputError:
        return InputError(f"{self._name} cannot be decompressed to its end: {why}", hint=hint or self._hint)

    def _without_the_rest(self) -> str:
        rest = Read(convert=f"{self._codec.program} {{stored}} 2>/dev/null")
        return Advice((f"what is {self._codec.name} comes from: ", rest), name=self._name)
