"""Inputs: files and streams of records, plain or compressed, cut into blocks of whole lines.

A record is a line, or an element of a JSON array; either way a block holds one record a line.
"""

from __future__ import annotations

import fnmatch
import glob
import io
import os
import re
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO, cast

from pik.errors import InputError, command
from pik.inputs.nul_runs import NulRuns
from pik.inputs.shapes import READS

BLOCK = 6 << 20
"""Bytes of input a block, about: what a worker holds at a time."""

LINES = 1 << 16
"""Records a block, at most: tiny ones take more room as objects than as bytes."""

_MAGIC = 4096  # bytes read at first
_STEP = 1 << 16  # bytes of an array read at a time
_LEADING = 1 << 20  # bytes of white space that may stand before a JSON array
_UTF8_BOM = b"\xef\xbb\xbf"
_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|["{}\[\],]', re.DOTALL)

# A bracket, and then what begins no JSON value: [table], [[table]], ['it'], [2026-01-31 10:00]. A word may be cut.
_NO_ARRAY = re.compile(rb"\[[\s\[]*(?:\d+[-/:]|(?!(?:true|false|null)\b|[a-z]{0,4}$)[^\s\[\]{},\"\d-])")


@dataclass(frozen=True, slots=True)
class Block:
    """Records `first_seq` to `last_seq`, one a line; `offset` counts the uncompressed input bytes up to its end.

    An over-long record comes cut to one byte more than is allowed. `prefix_digest` is set for streams.
    """

    first_seq: int
    last_seq: int
    data: bytes
    offset: int
    prefix_digest: str = ""


@dataclass(frozen=True, slots=True)
class Source:
    """An input: its name for people, its size in bytes where known, and a way to open it.

    `path` is that of a file, which can be read again, as what `remote` opens can: that reads as many bytes at a time
    as it is told. Without either the input is a stream,
    and read once: `pipe`, or standard input.
    """

    name: str
    size: int | None
    path: Path | None
    pipe: Path | None = None
    looked_at: list[BinaryIO] = field(default_factory=list, compare=False, repr=False)
    remote: Callable[[int], BinaryIO] | None = None

    @property
    def is_stream(self) -> bool:
        """Whether it can be read only once."""
        return self.path is None and self.remote is None

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """The input's bytes as stored. Raises InputError, and StoreError where it is elsewhere."""
        if self.remote is not None:
            with self.remote(BLOCK) as remote:
                yield remote
            return
        path = self.path or self.pipe
        if path is None:
            yield sys.stdin.buffer
            return
        with self.looked_at.pop() if self.looked_at else io.BufferedReader(_File(path, self.name)) as file:
            yield file

    def head(self, size: int) -> bytes:
        """As many bytes of its beginning as stored, at most. Of a stream, which still has them afterwards, what came
        first."""
        if self.remote is not None:
            with self.remote(size) as remote:
                return remote.read(size)
        if self.pipe is not None:
            # What was looked at of a pipe is only there: the next to open it gets this.
            if not self.looked_at:
                self.looked_at.append(io.BufferedReader(_File(self.pipe, self.name)))
            return _peeked(self.looked_at[0], size)
        with self.open() as file:
            return _peeked(file, size) if self.is_stream else file.read(size)

    def digest(self) -> str:
        """SHA-256 of the bytes as stored, in hex: what names this content."""
        with self.open() as file:
            digest = sha256()
            while data := file.read(1 << 20):
                digest.update(data)
            return digest.hexdigest()


def _peeked(file: BinaryIO, size: int) -> bytes:
    return file.peek(size)[:size] if isinstance(file, io.BufferedReader) else b""


class _File(io.FileIO):
    """A file whose every failure to be read is an InputError that names it."""

    def __init__(self, path: Path, name: str) -> None:
        self._name = name
        try:
            super().__init__(path)
        except OSError as error:
            raise self._unreadable(error) from None

    def readinto(self, buffer: Any, /) -> int:
        try:
            return super().readinto(buffer)
        except OSError as error:
            raise self._unreadable(error) from None

    def _unreadable(self, error: OSError) -> InputError:
        return InputError(f"cannot read {self._name}: {error.strerror}")


def file_source(path: str) -> Source:
    """The Source of a file path, or of `-`, standard input. Raises InputError for what is not a readable file."""
    if path == "-":
        return _standard_input()
    name = shown_name(path)
    if not path:
        raise InputError("the name of a file is empty", hint="a variable that is not set, perhaps; - is standard input")
    if os.path.isdir(path):
        raise InputError(f"{name} is a directory", hint=_inside(path, name))
    try:
        size = os.stat(path).st_size
    except FileNotFoundError:
        raise InputError(f"there is no file {name}") from None
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {name[:60]!r}: {getattr(error, 'strerror', None) or error}") from None
    file = Path(path)
    return Source(name, size, file) if file.is_file() else Source(name, None, None, file)


def _inside(path: str, name: str) -> str:
    """What takes the files of the directory instead: by the first pattern that any of them has."""
    files = [] if not os.access(path, os.R_OK | os.X_OK) else [one.name for one in os.scandir(path) if one.is_file()]
    for pattern in ("*.jsonl", "*.ndjson", "*.json", "*.jsonl.*", "*.ndjson.*", "*.json.*", "*"):
        if fnmatch.filter((one for one in files if not one.startswith(".")), pattern):
            return command("ingest", f"{glob.escape(name.rstrip('/'))}/{pattern}")
    return "give files; there are none in it"


def _standard_input() -> Source:
    hint = "give a file, or send it through a pipe: … | pik ingest -"
    if sys.stdin is None:
        raise InputError("standard input is closed", hint=hint)
    with suppress(OSError, ValueError):  # of a standard input that is not a file at all
        if stat.S_ISDIR(os.fstat(sys.stdin.fileno()).st_mode):
            raise InputError("standard input is a directory", hint=hint)
    return Source("standard input", None, None)


def shown_name(path: str) -> str:
    """The name of a file as text: bytes that are not UTF-8 are escaped, \\xe9."""
    return os.fsencode(path).decode(errors="backslashreplace")


def blocks(stream: BinaryIO, name: str, *, max_line: int, first_seq: int = 1, offset: int = 0) -> Iterator[Block]:
    """The input's records from `first_seq` on, which starts `offset` uncompressed bytes into it.

    A run of NUL bytes is a record of its own. Memory: a few blocks. Raises InputError where the input ends inside of a
    JSON array, or goes on behind it, and where what looks like an array is something else.
    """
    return unaltered_blocks(
        cast(BinaryIO, NulRuns(stream)), name, max_line=max_line, first_seq=first_seq, offset=offset
    )


def unaltered_blocks(
    stream: BinaryIO, name: str, *, max_line: int, first_seq: int = 1, offset: int = 0
) -> Iterator[Block]:
    """As `blocks`, but a record with NUL bytes in it is one invalid record: no loss of power left them there."""
    start = _skip_to_content(stream)
    if start.lstrip()[:1] == b"[":
        _expect_array(start.lstrip(), name)
        elements = _Elements(stream, start, name, max_line)
        yield from elements.blocks(first_seq, offset)
    else:
        yield from _line_blocks(stream, start, max_line, first_seq, offset)


def _expect_array(start: bytes, name: str) -> None:
    if _NO_ARRAY.match(start):
        line = start.partition(b"\n")[0].strip().decode(errors="replace")
        shown = line if len(line) <= 40 else line[:39] + "…"
        raise InputError(
            f"{name} is not JSON: it begins with {shown}",
            hint=READS,
        )


def _skip_to_content(stream: BinaryIO) -> bytes:
    """The first bytes, up to and including some that are no white space, without a byte order mark."""
    start = stream.read(_MAGIC).removeprefix(_UTF8_BOM)
    while len(start) < _LEADING and not start.strip() and (more := stream.read(_MAGIC)):
        start += more
    return start


def _line_blocks(stream: BinaryIO, start: bytes, max_line: int, first_seq: int, offset: int) -> Iterator[Block]:
    rest = _skip(stream, start, offset)
    while data := stream.read(BLOCK):
        end = data.rfind(b"\n") + 1
        if end:
            lines, rest = b"".join((rest, memoryview(data)[:end])), data[end:]
        else:
            rest += data
            end = rest.rfind(b"\n") + 1
            lines, rest = rest[:end], rest[end:]
        del data  # a block is large: nothing holds it twice
        if lines:
            for block in _cut(lines, first_seq, offset):
                first_seq, offset = block.last_seq + 1, block.offset
                yield block
        elif len(rest) > max_line:
            line, consumed, rest = _overlong(stream, rest, max_line)
            offset += consumed
            yield Block(first_seq, first_seq, line, offset)
            first_seq += 1
    if rest:
        yield from _cut(rest, first_seq, offset)


def _cut(lines: bytes, first_seq: int, offset: int) -> Iterator[Block]:
    """Whole lines as blocks; `offset` is that of the first."""
    last_seq = first_seq + lines.count(b"\n") - lines.endswith(b"\n")
    if last_seq - first_seq < LINES:
        yield Block(first_seq, last_seq, lines, offset + len(lines))
        return
    middle = (lines.rfind(b"\n", 0, len(lines) // 2) + 1) or (lines.find(b"\n") + 1)
    for half in (lines[:middle], lines[middle:]):
        for block in _cut(half, first_seq, offset):
            yield block
        first_seq, offset = block.last_seq + 1, block.offset


def _overlong(stream: BinaryIO, line: bytes, max_line: int) -> tuple[bytes, int, bytes]:
    """Read to the end of a line that is too long: its beginning, its length, and what follows."""
    consumed, kept = len(line), line[: max_line + 1]
    while data := stream.read(BLOCK):
        end = data.find(b"\n") + 1
        if end:
            return kept, consumed + end, data[end:]
        consumed += len(data)
    return kept, consumed, b""


def _skip(stream: BinaryIO, start: bytes, offset: int) -> bytes:
    """Read past `offset` bytes; `start` has been read already. Returns what was read beyond."""
    if offset <= len(start):
        return start[offset:]
    left = offset - len(start)
    while left and (data := stream.read(min(left, BLOCK))):
        left -= len(data)
    return b""


class _Elements:
    """The elements of a JSON array, found by brackets and strings alone, so that a malformed one can be rejected."""

    def __init__(self, stream: BinaryIO, start: bytes, name: str, max_line: int) -> None:
        self.stream, self.name, self.max_line = stream, name, max_line
        opening = start.index(b"[") + 1
        self.buffer = start[opening:]
        self.base = opening  # input bytes before the buffer
        self.closed = False

    def blocks(self, first_seq: int, offset: int) -> Iterator[Block]:
        if offset > self.base:
            self.buffer = _skip(self.stream, self.buffer, offset - self.base)
            self.base = offset
        lines: list[bytes] = []
        size = 0
        end = self.base
        for element, end in self._elements():
            lines.append(element)
            size += len(element)
            if size >= BLOCK or len(lines) == LINES:
                yield self._block(lines, first_seq, end)
                first_seq += len(lines)
                lines, size = [], 0
        if lines:
            yield self._block(lines, first_seq, end)
        if not self.closed:
            raise InputError(f"{self.name} ends inside of its JSON array, which ] should close")
        if self._goes_on():
            raise InputError(f"{self.name} goes on behind its JSON array", hint="one array a file, or one event a line")

    def _block(self, lines: list[bytes], first_seq: int, offset: int) -> Block:
        return Block(first_seq, first_seq + len(lines) - 1, b"\n".join(lines) + b"\n", offset)

    def _elements(self) -> Iterator[tuple[bytes, int]]:
        """Each element on one line, and the number of input bytes up to behind it."""
        depth = scanned = 0
        while True:
            begin = 0
            for token in _TOKEN.finditer(self.buffer, scanned):
                mark = token[0]
                if mark == b'"':  # a string that goes on behind the buffer
                    break
                scanned = token.end()
                if mark in (b"{", b"["):
                    depth += 1
                elif depth and mark in (b"}", b"]"):
                    depth -= 1
                elif not depth and mark in (b",", b"]"):
                    element = self.buffer[begin : token.start()].strip()[: self.max_line + 1]
                    self.closed = mark == b"]"
                    # Whoever goes on behind the last element must find the bracket that closes.
                    begin = token.start() if self.closed else scanned
                    if element or not self.closed:
                        one_line = element.replace(b"\n", b" ").replace(b"\r", b" ")
                        yield one_line or b",", self.base + begin  # no element is a malformed one
                    if self.closed:
                        self.buffer = self.buffer[scanned:]
                        return
            self.buffer, scanned, self.base = self.buffer[begin:], scanned - begin, self.base + begin
            if not self._more():
                return

    def _goes_on(self) -> bool:
        """Whether anything but white space follows the array."""
        while not self.buffer.strip():
            self.buffer = self.stream.read(_STEP)
            if not self.buffer:
                return False
        return True

    def _more(self) -> bool:
        if len(self.buffer) > self.max_line + BLOCK:
            raise InputError(f"{self.name} has an array element of more than {len(self.buffer):,} bytes")
        data = self.stream.read(_STEP)
        self.buffer += data
        return bool(data)
