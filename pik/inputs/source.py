"""Inputs: files, streams and S3 objects, opened, examined by their first bytes, and decompressed."""

from __future__ import annotations

import io
import json
import os
import shutil
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from hashlib import file_digest
from itertools import islice
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, BinaryIO, cast

from pik.errors import InputError, UsageError
from pik.inputs import blocks as json_lines
from pik.inputs import csv_rows, json_values, kcat_lines, parquet_rows, text_lines
from pik.inputs.blocks import BLOCK, Block, NulRuns
from pik.inputs.compression import beginning, codec_of, decompressed, uncompressed
from pik.inputs.csv_rows import delimiter_of, table
from pik.inputs.encoding import as_utf8
from pik.inputs.mapping import MIXED, RecordMapping
from pik.inputs.shapes import Shape, recognize, refuse_binary
from pik.model.layout import PARQUET, TABLES, WRITTEN_AS_JSON, InputFormat, Layout
from pik.ports.remote import Foreign, ForeignFile

HEAD = 1 << 16
"""Bytes that are examined, at most, of the input as stored and uncompressed."""

BEGINNING = 1 << 20
"""Bytes of a stream that can be looked at before it is read: enough for a block of bzip2."""

STANDARD_INPUT = "standard input"
"""What standard input is called."""

Reader = Callable[..., Iterator[Block]]


def _apart_from_nul_runs(read: Reader) -> Reader:
    """Return the reader of a text in which every run of NUL bytes stands on its own line."""

    def reading(stream: BinaryIO, *given: Any, **options: Any) -> Iterator[Block]:
        return read(cast(BinaryIO, NulRuns(stream)), *given, **options)

    return reading


READERS: Mapping[InputFormat, Reader] = {
    InputFormat.JSONL: _apart_from_nul_runs(json_lines.blocks),
    InputFormat.JSON: _apart_from_nul_runs(json_values.blocks),
    InputFormat.CSV: csv_rows.blocks,
    InputFormat.TSV: csv_rows.blocks,
    InputFormat.PARQUET: parquet_rows.blocks,
    InputFormat.TEXT: _apart_from_nul_runs(text_lines.blocks),
    InputFormat.KCAT: _apart_from_nul_runs(kcat_lines.blocks),
}
"""What yields the records of each format as lines of JSON."""

_BETWEEN = " \t\r\n,\x1e"
"""What stands between values of JSON."""

_RECORDS = 100
"""Records whose fields are compared with a mapping."""


@dataclass(frozen=True, slots=True)
class Source:
    """An input: its name for people, its size in bytes where known, and a way to open it.

    A file has a `path`; an object in S3, or a file in an archive, is opened by `opener`, and `unchanged` raises
    InputError where its archive was written to; several files as one input are `opened` together. All of these can be
    read again. Anything else is a stream, which can be read once: a `pipe`, an open `stream`, or standard input.
    """

    name: str
    size: int | None
    path: Path | None
    pipe: Path | None = None
    opener: Callable[[], BinaryIO] | None = None
    unchanged: Callable[[str], None] | None = None
    stream: BinaryIO | None = None
    opened: Callable[[Source], AbstractContextManager[OpenedInput]] | None = None

    @property
    def is_stream(self) -> bool:
        """Whether it can be read only once."""
        return self.path is None and self.opener is None and self.opened is None

    @contextmanager
    def open(self) -> Iterator[OpenedInput]:
        """Open the input. Raises InputError if it cannot be opened."""
        if self.opened is not None:
            with self.opened(self) as opened:
                yield opened
        elif self.stream is not None:
            yield OpenedInput(self, self.stream)
        elif self.opener is not None:
            with self.opener() as stored:
                yield OpenedInput(self, stored)
        elif self.path is not None:
            with io.BufferedReader(_File(self.path, self.name)) as stored:
                yield OpenedInput(self, stored)
        elif self.pipe is not None:
            with _File(self.pipe, self.name) as pipe:
                yield OpenedInput(self, io.BufferedReader(_Filling(pipe), BEGINNING))
        else:
            yield OpenedInput(self, io.BufferedReader(_Filling(sys.stdin.buffer), BEGINNING))

    @contextmanager
    def held(self) -> Iterator[Source]:
        """Provide an input that can be opened several times: a stream stays open meanwhile, and goes on where it is."""
        if not self.is_stream:
            yield self
            return
        with self.open() as opened:
            yield Source(self.name, None, None, stream=opened.stored)


class OpenedInput:
    """An input that stays open while it is examined, identified and read: each of these sees the same file.

    Every method reads from the beginning; a stream can be examined and then read once. All raise InputError where the
    input cannot be read, and StoreError where it is in S3 and access fails.
    """

    def __init__(self, source: Source, stored: BinaryIO) -> None:
        self.name, self.is_stream = source.name, source.is_stream
        self.position = 0
        """Bytes of the input that have been read for the blocks so far, as stored."""
        self.stored = cast(io.BufferedReader, stored)
        """The bytes as they are stored."""
        self._unchanged = source.unchanged
        self._file = stored if source.path is not None else None  # S3 itself notices a change
        self._state = _state(stored) if self._file else None

    def recognize(self, layout: Layout, *, mapped: bool) -> Layout:
        """Return the layout with its format, by the content and the name where it has none. Raises InputError where the
        input is certainly not of that format, or of none that can be read. `mapped`: any JSON object is a record."""
        head, whole = self._head(layout)
        if layout.format is None and layout.encoding is None and head.startswith(parquet_rows.MAGIC):
            return PARQUET
        if layout.format is None and not layout.is_table:
            found = recognize(head.replace(b"\0", b"\n"), self.name, whole=whole, mapped=mapped)
            if isinstance(found, Shape):
                raise found.error(self.name)
            return replace(found, encoding=layout.encoding)
        if layout.is_table and layout.format != InputFormat.TSV:
            delimiter = layout.delimiter or delimiter_of(head.decode(errors="replace"), whole=whole) or ","
            return replace(layout, format=table(delimiter).format, delimiter=table(delimiter).delimiter)
        if layout.format == InputFormat.TEXT:
            text_lines.compiled(layout)  # complains before anything is recorded
        return layout

    def expect_fields(self, layout: Layout, mapping: RecordMapping) -> None:
        """Raise UsageError where the mapping fits none of the input's first records."""
        if layout.format == InputFormat.PARQUET:
            if not self.is_stream and self.stored_beginning(4) == parquet_rows.MAGIC:
                columns = parquet_rows.columns_of(self.stored, self.name)
                mapping.expect_fields([dict.fromkeys(columns)], self.name)
            return
        head, whole = self._head(layout)
        if layout.format in WRITTEN_AS_JSON:
            records = _records(head.replace(b"\0", b"\n").decode(errors="replace").lstrip("\ufeff" + _BETWEEN))
        else:
            if layout.format in (InputFormat.TEXT, InputFormat.KCAT) and not whole:
                head = head[: head.rfind(b"\n") + 1]
            read = READERS[layout.format or InputFormat.JSONL]
            first = next(read(io.BytesIO(head), self.name, layout, max_line=HEAD), Block(1, 0, b"", 0))
            records = _json_lines(first)
            _expect_some(first, layout, self.name)
        mapping.expect_fields(list(islice(records, _RECORDS)), self.name)

    def _head(self, layout: Layout) -> tuple[bytes, bool]:
        """Return at most HEAD bytes of the text, in UTF-8, and whether they are certainly all. Raises InputError for a
        binary file."""
        head = self.stored_beginning(HEAD)
        is_plain = codec_of(head) is None
        whole = is_plain and len(head) < HEAD
        if not is_plain:
            head = self.beginning(HEAD)
        if layout.encoding is not None:
            return head.decode(layout.encoding, errors="ignore").encode(), whole
        if layout.format not in (None, InputFormat.PARQUET) or not head.startswith(parquet_rows.MAGIC):
            refuse_binary(head, self.name)
        return head, whole

    def digest(self) -> str:
        """Return the SHA-256 of the bytes as stored, in hex: the identity of a file's content."""
        self.stored.seek(0)
        return file_digest(self.stored, "sha256").hexdigest()

    def decompressed(self, hint: str = "") -> AbstractContextManager[io.BufferedReader]:
        """Open the bytes, without their compression; `hint` is that of an error where they are damaged or cut."""
        if not self.is_stream:
            self.stored.seek(0)
        return decompressed(self.stored, self.name, hint)

    def stored_beginning(self, size: int) -> bytes:
        """Return the first bytes as they are stored; they can be read again."""
        if self.is_stream:
            return self.stored.peek(size)[:size]
        self.stored.seek(0)
        return self.stored.read(size)

    def beginning(self, size: int) -> bytes:
        """Return the first bytes without their compression, fewer where it is damaged; they can be read again."""
        if self.is_stream:
            return beginning(self.stored.peek(BEGINNING), size)
        with suppress(InputError), self.decompressed() as stream:
            return stream.read(size)
        return b""

    @contextmanager
    def repeatable(self) -> Iterator[OpenedInput]:
        """Provide the input so that it can be read more than once: a stream is copied to a temporary file first."""
        if not self.is_stream:
            yield self
            return
        with TemporaryFile() as file:
            shutil.copyfileobj(self.stored, file)
            file.flush()
            with open(file.fileno(), "rb", closefd=False) as copied:
                yield OpenedInput(Source(self.name, None, None, opener=lambda: copied), copied)

    def blocks(self, layout: Layout, max_line: int, *, first_seq: int = 1, offset: int = 0) -> Iterator[Block]:
        """Yield the blocks from record `first_seq` on, which starts `offset` uncompressed bytes into the input.

        A run of NUL bytes is one record. Raises InputError as `blocks` does. The caller checks afterwards that the
        input is unchanged.
        """
        if not self.is_stream:
            self.stored.seek(0)
        self.position = 0
        is_text = layout.encoding is None and layout.format != InputFormat.PARQUET
        opening = uncompressed if is_text else decompressed
        with opening(self.stored, self.name) as stream:
            text = stream if layout.encoding is None else as_utf8(stream, layout.encoding, self.name)
            read = READERS[layout.format or InputFormat.JSONL]
            for block in read(text, self.name, layout, max_line=max_line, first_seq=first_seq, offset=offset):
                seekable = self.stored.seekable()
                at = self.stored.tell() if seekable else self.position + len(block.data)
                self.position = max(self.position, at)  # what is not read in order does not go back
                yield block

    def expect_unchanged(self, hint: str = "") -> None:
        """Raise InputError if the file was written to since it was opened. A replaced file was not: its old content is
        what has been read."""
        if self._unchanged is not None:
            self._unchanged(hint)
        if self._file is not None and _state(self._file) != self._state:
            raise InputError(
                f"{self.name} changed while it was being read",
                hint=hint or "what was read is kept; ingest the file again when nothing writes to it",
            )


def _state(file: BinaryIO) -> tuple[int, int]:
    """What changes when a file is written to."""
    state = os.fstat(file.fileno())
    return state.st_size, state.st_mtime_ns


def file_state(path: Path) -> tuple[int, int, int] | None:
    """What changes when a file is written to or replaced; None where it cannot be found."""
    try:
        state = os.stat(path)
    except OSError:
        return None
    return state.st_size, state.st_mtime_ns, state.st_ino


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


class _Filling(io.RawIOBase):
    """A stream that fills what it is to read into, so that a look at its beginning shows all of it."""

    def __init__(self, stored: BinaryIO) -> None:
        self._stored = stored

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        filled = 0
        while filled < len(buffer) and (data := self._stored.read(len(buffer) - filled)):
            buffer[filled : filled + len(data)] = data
            filled += len(data)
        return filled


def file_source(path: str) -> Source:
    """Return the source of a file path, or of `-`, standard input. Raises InputError for an unreadable file."""
    if path == "-":
        return _standard_input()
    name = shown_name(path)
    if not path:
        raise InputError("the name of a file is empty", hint="a variable that is not set, perhaps; - is standard input")
    if os.path.isdir(path):
        raise InputError(f"{name} is a directory", hint="give a file in it")
    try:
        size = os.stat(path).st_size
    except FileNotFoundError:
        raise InputError(f"there is no file {name}") from None
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {name[:60]!r}: {getattr(error, 'strerror', None) or error}") from None
    file = Path(path)
    return Source(name, size, file) if file.is_file() else Source(name, None, None, file)


def _standard_input() -> Source:
    hint = "give a file, or send it through a pipe: … | pik ingest -"
    if sys.stdin is None:
        raise InputError("standard input is closed", hint=hint)
    with suppress(OSError, ValueError):  # standard input may not be a file at all
        if stat.S_ISDIR(os.fstat(sys.stdin.fileno()).st_mode):
            raise InputError("standard input is a directory", hint=hint)
    return Source(STANDARD_INPUT, None, None)


def shown_name(path: str) -> str:
    """Return the name of a file as text: bytes that are not UTF-8 are escaped, \\xe9."""
    return os.fsencode(path).decode(errors="backslashreplace")


def foreign_sources(foreign: Foreign, url: str) -> list[Source]:
    """Return the sources that a URL names. Raises as `Foreign.find` does."""

    def source(file: ForeignFile) -> Source:
        return Source(file.name, file.size, None, opener=lambda: io.BufferedReader(_Pieces(foreign, file)))

    return [source(file) for file in foreign.find(url)]


class _Pieces(io.RawIOBase):
    """The bytes of a file in S3. Holds one piece of it, as large as a block."""

    def __init__(self, foreign: Foreign, file: ForeignFile) -> None:
        self._foreign, self._file = foreign, file
        self._piece = b""
        self._begin = self._position = 0  # of the piece, and of the next byte to read

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._file.size}[whence]
        self._position = start + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        if self._position >= self._file.size:
            return 0
        if not self._begin <= self._position < self._begin + len(self._piece):
            self._piece = b""  # before the next one comes, so that there are never two
            self._piece = self._foreign.read(self._file, self._position, BLOCK)
            self._begin = self._position
        inside = self._position - self._begin
        size = min(len(buffer), len(self._piece) - inside)
        buffer[:size] = self._piece[inside : inside + size]
        self._position += size
        return size


def _expect_some(first: Block, layout: Layout, name: str) -> None:
    """Raise UsageError where none of the first lines of a text is a record: all would be rejected."""
    lines = first.data.split(b"\n")
    if layout.format not in TABLES and first.problems and len(first.problems) == len(list(filter(bytes.strip, lines))):
        seq, problem = next(iter(first.problems.items()))
        shown = problem.record[:60].decode(errors="replace")
        what = f"{layout}: the first {len(first.problems):,} lines of {name} are not read by it"
        raise UsageError(f"{what}; line {seq:,}: {problem.reason}: {shown!r}", hint=MIXED)


def _json_lines(block: Block) -> Iterator[dict[str, Any]]:
    for seq, line in enumerate(block.data.split(b"\n"), block.first_seq):
        if line and seq not in block.problems:
            yield json.loads(line)


def _records(text: str) -> Iterator[dict[str, Any]]:
    """Yield the objects that a text begins with, one per line or in an array, up to one that is cut."""
    read, text = json.JSONDecoder().raw_decode, text.removeprefix("[")
    with suppress(ValueError, RecursionError):
        while True:
            text = text.lstrip(_BETWEEN)
            found, end = read(text)
            text = text[end:]
            if isinstance(found, dict):
                yield found
