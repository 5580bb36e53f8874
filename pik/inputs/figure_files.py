"""Opens files of numbers: whatever an ingest would open and recognize as a table, JSON or Parquet.

A number counts as it is written: its digits never pass through floating point. A Parquet column of DOUBLEs has no
digits as written; each is the shortest decimal that reads back as the same double.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from decimal import Decimal
from itertools import chain, islice
from operator import itemgetter
from typing import Any, BinaryIO

from pik.errors import InputError, Invalid
from pik.inputs import csv_rows
from pik.inputs.advice import Advice, typed_name
from pik.inputs.archives import is_archive, with_members
from pik.inputs.copies import seekable
from pik.inputs.document_lists import lists_in
from pik.inputs.encoding import as_utf8, not_utf8, shown_encoding
from pik.inputs.figures import BUCKETS, READS, Table
from pik.inputs.opened_file import HEAD, OpenedFile
from pik.inputs.parquet_rows import open_parquet
from pik.inputs.shapes import first_object
from pik.inputs.source import Source
from pik.model import layout as inputs
from pik.model.identity import check_json
from pik.model.layout import PARQUET, TABLES, WRITTEN_AS_JSON, InputFormat, Layout
from pik.model.record_path import path_text

_PEEKED = 100  # records of JSON whose fields are the columns
_BATCH = 8192  # rows of Parquet
_MAX_RECORD = 1 << 20  # bytes of one JSON value, or row


@contextmanager
def open_table(source: Source) -> Iterator[Table]:
    """Open a file of numbers, whatever its format, plain, compressed or in an archive. Raises InputError where it is
    none, or empty, and at the end where it changed while it was read."""
    with source.open() as first, first.repeatable() as stored:
        digest = stored.digest()
        try:
            with _only_file(source, stored).open() as opened, _table(opened) as table:
                table.name, table.digest = source.name, digest
                yield table
        except InputError as error:
            error.hint = _for_numbers(error.hint)
            raise
        stored.expect_unchanged("run this again when nothing writes to it")


def _only_file(source: Source, stored: OpenedFile) -> Source:
    """Return the input, or the file in it where it is an archive of one. Raises InputError."""

    def opener() -> nullcontext[BinaryIO]:
        stored.stored.seek(0)
        return nullcontext(stored.stored)

    again = replace(source, opener=opener, path=None, is_stream=False)
    if not is_archive(stored):
        return again
    one, *others = islice(with_members([again], lambda _skipped: None), 2)
    if others:
        what = f"{source.name} has several files, such as {one.name} and {others[0].name}"
        raise InputError(what, hint="unpack it, and name the one that has the numbers")
    assert isinstance(one, Source)
    return one


def _for_numbers(hint: str) -> str:
    """Return the hint of a reader for a command that has no options of how records are read."""
    if isinstance(hint, Advice):
        return hint.of(hint.name, READS)
    return READS if hint == inputs.READS else hint


@contextmanager
def _table(opened: OpenedFile) -> Iterator[Table]:
    """Provide the table of an open file."""
    layout = _layout(opened)
    if layout == PARQUET:
        with seekable(opened.decompressed()) as file:
            yield _parquet(file, opened.name)
    elif layout.format in WRITTEN_AS_JSON:
        yield _json(opened, layout)
    else:
        yield _csv(opened, layout)


def _layout(opened: OpenedFile) -> Layout:
    """Return how the rows lie in a file. Raises InputError where it is not a table of numbers, or empty."""
    head = opened.beginning(HEAD)
    encoding = shown_encoding(head)
    layout = opened.recognize(Layout(encoding=encoding), mapped=True)
    if layout == PARQUET:
        return layout
    text = head.decode(encoding or "utf-8", errors="replace").strip("\ufeff \t\r\n")
    if not text:
        raise InputError(f"{opened.name} is empty", hint=READS)
    if layout.format in WRITTEN_AS_JSON and text.startswith(("{", "[", "\x1e")):
        path = _around(text, opened.name)
        return replace(layout, format=InputFormat.JSON, records=path) if path else layout
    if layout.format in WRITTEN_AS_JSON:  # a header alone, perhaps
        first = text.partition("\n")[0]
        layout = replace(csv_rows.table(max("\t,;|", key=first.count)), encoding=encoding)
    if layout.format not in TABLES:
        what = f"the lines of a log, {layout.pattern}" if layout.pattern else "a key and JSON on each line"
        raise InputError(f"{opened.name} cannot be read: it looks like {what}", hint=READS)
    return opened.with_dialect(layout)


def _around(text: str, name: str) -> str:
    """Return the path to the list of rows in the object that is around all of them, if a text is one. Raises InputError
    where it has several lists."""
    found = first_object(text) if text.startswith("{") else None
    if found is None or any(key.strip().casefold() in BUCKETS for key in found):
        return ""
    first, _, rest = text.partition("\n")
    if first.rstrip().endswith("}") and rest.lstrip().startswith("{"):
        return ""  # the first of several
    paths = list(map(path_text, lists_in(found)))
    if len(paths) > 1:
        hint = f"the rows alone: jq -c '.{paths[0]}' {typed_name(name)}"
        raise InputError(f"{name} is an object with several lists: {', '.join(paths[:5])}", hint=hint)
    return paths[0] if paths else ""


def _csv(opened: OpenedFile, layout: Layout) -> Table:
    stream: BinaryIO = opened.decompressed()
    if layout.encoding is not None:
        stream = as_utf8(stream, layout.encoding, opened.name)
    elif wrong := not_utf8(islice(io.BytesIO(opened.beginning(HEAD)), _PEEKED)):
        line, encoding, text = wrong
        hint = f"iconv -f {encoding} -t UTF-8 {typed_name(opened.name)} makes UTF-8 of it, where this is {text[:60]!r}"
        raise InputError(f"{opened.name} is not UTF-8: line {line:,}", hint=hint)

    def rows() -> Iterator[tuple[int, Sequence[str | None]]]:
        for number, cells, problem in csv_rows.rows(stream, layout, max_line=_MAX_RECORD):
            if problem:
                raise InputError(f"{opened.name}: {problem}")
            yield number, cells

    found = rows()
    header = [(column or "").strip() for column in next(found)[1]]

    def read(columns: Sequence[str]) -> Iterator[tuple[int, Sequence[Any]]]:
        cells = itemgetter(*map(header.index, columns))
        for number, row in found:
            yield number, cells(row)

    return Table(opened.name, header, read)


def _json(opened: OpenedFile, layout: Layout) -> Table:
    """Return the table of JSON lines, of an array, of values that follow each other, or of a list in an object."""
    unit = "line" if layout.format == InputFormat.JSONL else "record"
    decoder = json.JSONDecoder(parse_float=Decimal, parse_int=Decimal, parse_constant=Decimal)

    def records() -> Iterator[tuple[int, dict[str, Any]]]:
        for block in opened.blocks(layout, _MAX_RECORD):
            for number, record in enumerate(block.data.split(b"\n"), start=block.first_seq):
                if problem := block.problems.get(number):
                    raise InputError(f"{opened.name}, {unit} {number:,}: {problem.reason}")
                if record.strip():
                    yield number, decoded(number, record)

    def decoded(number: int, record: bytes) -> dict[str, Any]:
        try:
            check_json(record, f"the {unit}")
            found = decoder.decode(record.decode())
        except (Invalid, ValueError, ArithmeticError) as error:
            why = error.message if isinstance(error, Invalid) else f"the {unit} has a number out of range"
            raise InputError(f"{opened.name}, {unit} {number:,}: {why}") from None
        if not isinstance(found, dict):
            raise InputError(f"{opened.name}, {unit} {number:,}: it is not a JSON object", hint=READS)
        return found

    rows = records()
    first = list(islice(rows, _PEEKED))
    header = list(dict.fromkeys(key for _, record in first for key in record))

    def read(columns: Sequence[str]) -> Iterator[tuple[int, Sequence[Any]]]:
        for number, record in chain(first, rows):
            yield number, [record.get(column) for column in columns]

    return Table(opened.name, header, read, unit)


def _parquet(file: BinaryIO, name: str) -> Table:
    import pyarrow as pa

    opened = open_parquet(file, name, coerce_int96_timestamp_unit="us")  # as nanoseconds the year 9999 is 1816
    schema = opened.schema_arrow
    table = Table(name, schema.names, lambda _: iter(()), unit="row")

    def cells(column: str, values: Any, is_bucket: bool) -> list[Any]:
        kind = values.type
        if pa.types.is_dictionary(kind):
            values, kind = values.cast(kind.value_type), kind.value_type
        text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
        if is_bucket and pa.types.is_date(kind):
            values = values.cast(pa.date32()).cast(pa.string())
        elif is_bucket and pa.types.is_timestamp(kind):
            try:
                values = values.cast(pa.timestamp("ns", getattr(kind, "tz", None))).cast(pa.int64())
            except pa.ArrowInvalid:  # one does not fit: the error about its text names the row
                values = values.cast(pa.string())
        elif is_bucket and not text:
            raise InputError(f"{name}: column {column} is {kind}, not a date, a timestamp or a text")
        elif pa.types.is_float64(kind):
            if column not in table.approximate:
                table.approximate.append(column)
        elif not (text or pa.types.is_integer(kind) or pa.types.is_decimal(kind) or pa.types.is_null(kind)):
            raise InputError(
                f"{name}: column {column} is {kind}, whose digits are not exact numbers",
                hint="cast it to DECIMAL, BIGINT or text where the file is written",
            )
        found: list[Any] = values.to_pylist()
        return found

    def read(columns: Sequence[str]) -> Iterator[tuple[int, Sequence[Any]]]:
        number = 0
        try:
            for batch in opened.iter_batches(_BATCH, columns=list(dict.fromkeys(columns))):
                parts = [cells(column, batch.column(column), place == 0) for place, column in enumerate(columns)]
                for row in zip(*parts, strict=True):
                    number += 1
                    yield number, row
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{name}, after row {number:,}: it cannot be read as Parquet: {error}") from None

    table.read = read
    return table
