"""Text in any encoding, read as UTF-8."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterable
from typing import Any, BinaryIO

from pik.errors import InputError, UsageError
from pik.inputs.advice import Advice, Option
from pik.inputs.text_encodings import readings

_READ = 1 << 18
NOT_TEXT = "it is compressed, encrypted or damaged"
_REJECT = Option("on-invalid", "reject")


def as_utf8(stream: BinaryIO, encoding: str, name: str) -> io.BufferedReader:
    """Return the text of a stream as UTF-8. Reading raises InputError where it is not of that encoding."""
    return io.BufferedReader(_Recoded(stream, encoding, name))


def expect_utf8(lines: Iterable[bytes], name: str) -> None:
    """Raise UsageError where the first lines are in another encoding."""
    if found := not_utf8(lines):
        number, read = found
        if not read:
            hint = Advice(NOT_TEXT, ("if only lines of it are damaged, add ", _REJECT))
            raise UsageError(f"{name} is not text: line {number:,} is of no known encoding", hint=hint)
        reads = [part for encoding, text in read for part in (Option("encoding", encoding), _reads(text), ", or ")]
        damaged = "if it is damaged instead, add ", _REJECT
        raise UsageError(f"{name} is not UTF-8: line {number:,}", hint=Advice(tuple(reads[:-1]), damaged))


def _reads(text: str) -> str:
    return f" reads it as {text[:60]!r}"


def not_utf8(lines: Iterable[bytes]) -> tuple[int, list[tuple[str, str]]] | None:
    """Return the number of a line that is in another encoding, and those that may be meant, with its text in each. Of
    lines that are not ASCII, none is UTF-8."""
    wrong = dict[int, bytes]()
    for number, line in enumerate(lines, 1):
        try:
            if not line.decode().isascii():
                return None
        except UnicodeDecodeError:
            wrong[number] = line.strip()
    return (next(iter(wrong)), readings(list(wrong.values()))) if wrong else None


def shown_encoding(head: bytes) -> str | None:
    """Return the encoding of a text that its first bytes show, if they do: UTF-16, by its mark or by its zeros."""
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    for first, encoding in ((1, "utf-16-le"), (0, "utf-16-be")):
        high, low = head[first:1024:2], head[1 - first : 1024 : 2]
        if len(low) > 1 and high.count(0) > 0.8 * len(high) and low.count(0) < 0.2 * len(low):
            return encoding
    return None


class _Recoded(io.RawIOBase):
    def __init__(self, stream: BinaryIO, encoding: str, name: str) -> None:
        self._stream, self._encoding, self._name = stream, encoding, name
        self._decoder = codecs.getincrementaldecoder(encoding)()
        self._ready = b""
        self._read = 0
        self._ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready and not self._ended:
            data = self._stream.read(_READ)
            self._ended = not data
            try:
                self._ready = self._decoder.decode(data, final=self._ended).encode()
            except UnicodeError as error:
                at = self._read + getattr(error, "start", 0)
                raise InputError(
                    f"{self._name} is not {self._encoding}: it cannot be decoded near byte {at:,}",
                    hint=Advice(
                        (Option("encoding"), " names the encoding of the text: utf-8, utf-16, latin-1, cp1252, …")
                    ),
                ) from None
            self._read += len(data)
        size = min(len(buffer), len(self._ready))
        buffer[:size], self._ready = self._ready[:size], self._ready[size:]
        return size
