"""One file, stream or object that is open: recognized by its first bytes, identified, and read by the reader of its
format."""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from hashlib import sha256
from itertools import islice
from types import NoneType
from typing import Any, BinaryIO, cast

from pik.errors import InputError, UsageError
from pik.inputs import blocks as json_lines
from pik.inputs import csv_rows, dialect, json_values, kcat_lines, nested_records, parquet_rows, text_lines
from pik.inputs.advice import MIXED, Advice, Option, Recorded, Shape
from pik.inputs.binary import refuse_binary
from pik.inputs.blocks import BLOCK, Block, NulRuns
from pik.inputs.compression import WINDOW, beginning, codec_of, decompressed, uncompressed
from pik.inputs.copies import kept
from pik.inputs.csv_rows import delimiter_of, names_of, table
from pik.inputs.document_lists import DocumentList, lists_in, lists_of
from pik.inputs.encoding import as_utf8, expect_utf8
from pik.inputs.json_shapes import cut_object
from pik.inputs.list_records import naming
from pik.inputs.mapping import RecordMapping, no_events
from pik.inputs.named_mappings import recognized
from pik.inputs.opened import SAMPLE_BLOCKS, OpenedInput, SampledRecord, sample_block
from pik.inputs.shapes import recognize
from pik.model.event import REQUIRED
from pik.model.layout import JSON_LINES, PARQUET, READS, TABLES, WRITTEN_AS_JSON, InputFormat, Layout
from pik.model.record_path import EACH, path_text

HEAD = 1 << 16
"""Bytes that are examined, at most, of the input as stored and uncompressed."""

BEGINNING = 1 << 20
"""Bytes of a stream that can be looked at before it is read: enough for a block of bzip2."""

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

_NESTED = _apart_from_nul_runs(nested_records.blocks)


def _reader(layout: Layout) -> Reader:
    return READERS[layout.format or InputFormat.JSONL] if layout.records is None else _NESTED


_BETWEEN = " \t\r\n,\x1e"
"""What stands between values of JSON."""

_RECORDS = 100
"""Records whose fields are compared with a mapping."""


class OpenedFile(OpenedInput):
    """One file, stream or object, of that size where it is known. `is_file`: it is on a disk, where it may be written
    to meanwhile; S3 itself notices that. `unchanged` raises InputError where what it is a part of was written to."""

    def __init__(
        self,
        name: str,
        stored: BinaryIO,
        *,
        file: str = "",
        is_stream: bool = False,
        is_file: bool = False,
        size: int | None = None,
        unchanged: Callable[[str], None] | None = None,
        window: int = WINDOW,
    ) -> None:
        super().__init__(name, file=file, is_stream=is_stream)
        self.stored = cast(io.BufferedReader, stored)
        """The bytes as they are stored."""
        self._unchanged, self._window, self._size = unchanged, window, size
        self._file = stored if is_file else None
        self._state = _state(stored) if self._file else None
        self._start: bytes | None = None

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
            return found if layout.encoding is None else replace(found, encoding=layout.encoding)
        if layout.is_table and layout.format != InputFormat.TSV:
            by_name = "\t" if re.search(r"\.tsv(\.\w+)?$", self.name.lower()) else ","
            delimiter = layout.delimiter or delimiter_of(head.decode(errors="replace"), layout, whole=whole) or by_name
            return replace(layout, format=table(delimiter).format, delimiter=table(delimiter).delimiter)
        if layout.format == InputFormat.TEXT:
            text_lines.compiled(layout)  # complains before anything is recorded
        return layout

    def with_dialect(self, layout: Layout) -> Layout:
        """Return the layout of a table with the quotes and the escape that its first rows show, where it has none."""
        head, whole = self._head(layout)
        return dialect.with_dialect(layout, head, whole) if layout.is_table else layout

    def known_mapping(self, layout: Layout) -> str | None:
        """Return the name of the shipped mapping that is certainly for the input, if there is one."""
        with suppress(InputError):
            return recognized(self._head(layout)[0].decode(errors="replace"), layout.pattern)
        return None

    def lists(self, layout: Layout) -> Sequence[DocumentList]:
        """As in OpenedInput."""
        with suppress(InputError):  # damaged: what is read of it says so
            return lists_of(self._text(layout, self._at_beginning(in_place=False)))
        return ()

    def expect_fields(self, layout: Layout, mapping: RecordMapping) -> None:
        """Raise UsageError where the mapping fits none of the input's first records."""
        mapping.expect_place(self.file, self.name)
        if layout.format == InputFormat.PARQUET:
            if not self.is_stream and self.stored_beginning(4) == parquet_rows.MAGIC:
                mapping.expect_fields(parquet_rows.first_records(self.stored, self.name), self.name, self.file)
            return
        records = [one for one in islice(self._first_records(layout), _RECORDS) if isinstance(one, dict)]
        if layout.is_table:
            dialect.expect_dialect(layout, *self._head(layout), self.name)
        try:
            mapping.expect_fields(records, self.name, self.file)
        except UsageError:
            if layout.records is None:
                _expect_records_themselves(records[0], mapping, self.name)
            raise
        if (
            not records
            and layout.is_table
            and (names := names_of(io.BytesIO(self._head(layout)[0]), self.name, layout))
        ):
            mapping.expect_names([dict.fromkeys(names, "")], self.name)
        if not records and layout == JSON_LINES:
            head = self._head(layout)[0].decode(errors="replace").lstrip("\ufeff" + _BETWEEN)
            _expect_records_themselves(cut_object(head), mapping, self.name)

    def expect_events(self, layout: Layout) -> None:
        """Raise UsageError where none of the input's first records is an object, or has a field that each event has."""
        names: dict[str, None] = {}
        found = list(islice(self._first_records(layout), _RECORDS))
        records = [one for one in found if isinstance(one, dict)]
        if found and not records:
            what = f"the first records of {self.name} are {_KINDS[type(found[0])]}, not objects with names"
            hint = naming(layout.records, found[0]).of(self.name) if isinstance(found[0], list) else READS
            raise UsageError(what, hint=hint)
        for record in records:
            if not record.keys().isdisjoint(REQUIRED):
                return
            names |= dict.fromkeys(record)
        if names:
            raise no_events(list(names), self.name)

    def _first_records(self, layout: Layout) -> Iterator[Any]:
        """Yield the records in the input's head. Raises UsageError for a text of which no line is one."""
        head, whole = self._head(layout)
        none = Block(1, 0, b"", 0)
        if layout.records is not None:
            with suppress(InputError):  # the head may end anywhere
                return _json_lines(next(_NESTED(io.BytesIO(head), self.name, layout, max_line=HEAD), none))
            return iter(())
        if layout.format in WRITTEN_AS_JSON:
            return _records(head.replace(b"\0", b"\n").decode(errors="replace").lstrip("\ufeff" + _BETWEEN))
        lines = head if whole else head[: head.rfind(b"\n") + 1]
        self._expect_utf8(layout, lines)
        read = READERS[layout.format or InputFormat.JSONL]
        start = head if layout.format in TABLES else lines
        first = next(read(io.BytesIO(start), self.name, layout, max_line=HEAD), none)
        _expect_some(first, layout, self.name)
        return _json_lines(first)

    def _expect_utf8(self, layout: Layout, lines: bytes) -> None:
        """Raise UsageError where the first lines of text are in another encoding, and none is named."""
        if layout.encoding is None:
            expect_utf8(islice(io.BytesIO(lines), _RECORDS), self.name)

    def expect_records(self, layout: Layout, max_line: int) -> None:
        """Raise UsageError where the path to records finds no list in the first block of a file, or in the head of a
        stream."""
        if self.is_stream:
            with suppress(InputError):  # the head may end anywhere
                head = io.BytesIO(self.beginning(HEAD))
                nested_records.expect_lists(_NESTED(head, self.name, layout, max_line=HEAD), layout, self.name)
        else:
            nested_records.expect_lists(self.blocks(layout, max_line), layout, self.name)

    def _head(self, layout: Layout) -> tuple[bytes, bool]:
        """Return at most HEAD bytes of the text, in UTF-8, and whether they are certainly all. Raises InputError for a
        binary file."""
        head = self.stored_beginning(HEAD)
        is_plain = codec_of(head) is None
        whole = is_plain and len(head) < HEAD
        if not is_plain:
            head = self.beginning(HEAD)
            whole = not self.is_stream and 0 < len(head) < HEAD
        if layout.encoding is not None:
            return head.decode(layout.encoding, errors="ignore").encode(), whole
        if layout.format not in (None, InputFormat.PARQUET) or not head.startswith(parquet_rows.MAGIC):
            refuse_binary(head, self.name)
        return head, whole

    def digest(self) -> str:
        """Return the SHA-256 of the bytes as stored, in hex: the identity of a file's content."""
        if (content := self._content()) is not None:
            return sha256(content).hexdigest()
        self.stored.seek(0)
        digest = sha256()
        while data := self.stored.read(HEAD):  # hashlib.file_digest clears 256 KiB for each file
            digest.update(data)
        return digest.hexdigest()

    def decompressed(self, hint: str = "") -> io.BufferedReader:
        """Return the bytes, without their compression; `hint` is that of an error where they are damaged or cut."""
        if not self.is_stream:
            self.stored.seek(0)
        return decompressed(self.stored, self.name, hint, self._window)

    def stored_beginning(self, size: int) -> bytes:
        """Return the first bytes as they are stored, HEAD at most; they can be read again."""
        if self.is_stream:
            return self.stored.peek(size)[:size]
        if self._start is None:
            self.stored.seek(0)
            self._start = self.stored.read(HEAD)
        return self._start[:size]

    def _at_beginning(self, *, in_place: bool) -> io.BufferedReader:
        """Return the bytes as they are stored, from the beginning; `in_place`: as the file itself."""
        content = None if in_place else self._content()
        if content is not None:
            return io.BufferedReader(io.BytesIO(content))
        if not self.is_stream:
            self.stored.seek(0)
        return self.stored

    def _content(self) -> bytes | None:
        """Return all bytes of a short file on a disk, which is read only once; None of anything else."""
        start = b"" if self._file is None else self.stored_beginning(HEAD)
        return start if 0 < len(start) < HEAD else None

    def _short_lines(self, layout: Layout) -> bytes | None:
        """Return a short file of JSON lines, one block, if it is plain text in UTF-8. Raises InputError for a binary
        file."""
        content = self._content() if layout == JSON_LINES else None
        if content is None or len(content) > json_lines.BLOCK or b"\0" in content or codec_of(content) is not None:
            return None
        refuse_binary(content, self.name)
        return content

    def beginning(self, size: int) -> bytes:
        """Return the first bytes without their compression, HEAD at most and fewer where it is damaged; they can be
        read again."""
        if self.is_stream:
            return beginning(self.stored.peek(BEGINNING), size, self._window)
        with suppress(InputError):
            start = self.stored_beginning(HEAD)
            return start[:size] if codec_of(start) is None else self.decompressed().read(size)
        return b""

    @contextmanager
    def repeatable(self) -> Iterator[OpenedFile]:
        """As in OpenedInput."""
        if not self.is_stream:
            yield self
            return
        with kept(self.stored) as stored:
            yield OpenedFile(self.name, stored, window=self._window)

    def blocks(self, layout: Layout, max_line: int, *, first_seq: int = 1, offset: int = 0) -> Iterator[Block]:
        """Yield the blocks from record `first_seq` on, which starts `offset` uncompressed bytes into the input.

        A run of NUL bytes is one record. Raises InputError as `blocks` does. The caller checks afterwards that the
        input is unchanged.
        """
        if max_line >= HEAD and (lines := self._short_lines(layout)) is not None:
            self.position = len(lines)
            yield from json_lines.short_blocks(lines, self.name, first_seq=first_seq, offset=offset)
            return
        is_parquet = layout.format == InputFormat.PARQUET
        stored = self._at_beginning(in_place=is_parquet)
        self.position = 0
        text = self._text(layout, stored)
        for block in _reader(layout)(text, self.name, layout, max_line=max_line, first_seq=first_seq, offset=offset):
            at = stored.tell() if stored.seekable() else self.position + len(block.data)
            self.position = max(self.position, at)  # what is not read in order does not go back
            yield block

    def _text(self, layout: Layout, stored: BinaryIO) -> BinaryIO:
        """Return the text in UTF-8, or Parquet, without the compression."""
        as_text = layout.encoding is None and layout.format != InputFormat.PARQUET
        stream = (uncompressed if as_text else decompressed)(stored, self.name, window=self._window)
        return stream if layout.encoding is None else as_utf8(stream, layout.encoding, self.name)

    def sample(self, layout: Layout, max_line: int) -> list[SampledRecord]:
        """Return records as any input does, and of a large file of lines some in its middle, too. Raises UsageError for
        a table or a log in another encoding."""
        if layout.is_table or layout.format == InputFormat.TEXT:
            head, whole = self._head(layout)
            self._expect_utf8(layout, head if whole else head[: head.rfind(b"\n") + 1])
        found = super().sample(layout, max_line)
        in_lines = layout.format in (InputFormat.JSONL, InputFormat.TEXT, InputFormat.KCAT) and layout.encoding is None
        size = self._size or 0
        if size > 2 * SAMPLE_BLOCKS * BLOCK and in_lines and codec_of(self.stored_beginning(HEAD)) is None:
            self.stored.seek(size // 2)
            _, _, lines = self.stored.read(BEGINNING).partition(b"\n")
            middle = io.BytesIO(lines[: lines.rfind(b"\n") + 1])
            for block in islice(_reader(layout)(middle, self.name, layout, max_line=max_line), 1):
                found += sample_block(block, self.file, first=0)
        return found

    def expect_unchanged(self, hint: str = "") -> None:
        """Raise InputError if the file was written to since it was opened. A replaced file was not: its old content is
        what has been read."""
        if self._unchanged is not None:
            self._unchanged(hint)
        if self._file is not None and _state(self._file) != self._state:
            raise InputError(
                f"{self.name} changed while it was being read",
                hint=hint or Advice((Recorded("what was read is kept"),), "run this again when nothing writes to it"),
            )


def _state(file: BinaryIO) -> tuple[int, int]:
    """Return what changes when a file is written to."""
    state = os.fstat(file.fileno())
    return state.st_size, state.st_mtime_ns


def _expect_some(first: Block, layout: Layout, name: str) -> None:
    """Raise UsageError where none of the first lines of a text is a record: all would be rejected."""
    lines = first.data.split(b"\n")
    if layout.format not in TABLES and first.problems and len(first.problems) == len(list(filter(bytes.strip, lines))):
        seq, problem = next(iter(first.problems.items()))
        shown = problem.record[:60].decode(errors="replace")
        what = f"{layout}: the first {len(first.problems):,} lines of {name} are not read by it"
        raise UsageError(f"{what}; line {seq:,}: {problem.reason}: {shown!r}", hint=Advice(MIXED))


def _expect_records_themselves(first: Mapping[str, Any] | None, mapping: RecordMapping, name: str) -> None:
    """Raise InputError where the mapping fits objects in a list of the first record, which it does not fit itself."""
    for path in lists_in(first):
        found: Any = first
        for step in path:
            found = found[0] if step is EACH else found[step]
        with suppress(UsageError):
            mapping.expect_fields([found], name)
            what = f"the mapping fits objects in the first record of {name}, and not the record"
            raise InputError(what, hint=Advice((Option("records", path_text(path)), " reads them"), MIXED))


_KINDS = {list: "lists", str: "texts", int: "numbers", float: "numbers", bool: "true or false", NoneType: "null"}


def _json_lines(block: Block) -> Iterator[Any]:
    for seq, line in enumerate(block.data.split(b"\n"), block.first_seq):
        if line and seq not in block.problems:
            yield json.loads(line)


def _records(text: str) -> Iterator[Any]:
    """Yield the objects and lists that a text begins with, one per line or in an array, up to one that is cut."""
    read, text = json.JSONDecoder().raw_decode, text.removeprefix("[")
    with suppress(ValueError, RecursionError):
        while True:
            text = text.lstrip(_BETWEEN)
            found, end = read(text)
            text = text[end:]
            if isinstance(found, (dict, list)):
                yield found
