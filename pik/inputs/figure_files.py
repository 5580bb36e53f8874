"""Opens files of numbers: whatever an ingest would open and recognize as a table, JSON or Parquet.

A number counts as it is written: its digits never pass through floating point. A Parquet column of DOUBLEs has no
digits as written; each is the shortest decimal that reads back as the same double.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal
from itertools import chain, islice
from operator import itemgetter
from typing import Any, BinaryIO

from pik.errors import InputError, Invalid
from pik.inputs import csv_rows
from pik.inputs.advice import Advice, Read, Shape
from pik.inputs.copies import seekable
from pik.inputs.document_lists import lists_in, record_count
from pik.inputs.encoding import NOT_TEXT, as_utf8, not_utf8, shown_encoding
from pik.inputs.figures import BUCKETS, ENTITIES, READS, Table, flattened
from pik.inputs.json_shapes import first_object
from pik.inputs.keyed_records import keyed_records
from pik.inputs.list_records import rows_in, rows_in_records, rows_of, with_around
from pik.inputs.opened_file import HEAD, OpenedFile
from pik.inputs.parquet_rows import open_parquet, unreadable
from pik.inputs.source import Source
from pik.inputs.whole_text import single_file
from pik.model.identity import check_json
from pik.model.layout import PARQUET, TABLES, WRITTEN_AS_JSON, InputFormat, Layout
from pik.model.record_path import EACH, RecordPath, path_text, read_path

_PEEKED = 100  # records of JSON whose fields are the columns
_BATCH = 8192  # rows of Parquet
_MAX_RECORD = 1 << 20  # bytes of one JSON value, or row


@contextmanager
def open_table(source: Source) -> Iterator[Table]:
    """Open a file of numbers, whatever its format, plain, compressed or in an archive. Raises InputError where it is
    none, or empty, and at the end where it changed while it was read."""
    with single_file(source, READS) as (stored, opened):
        digest = stored.digest()
        with _table(opened) as table:
            table.name, table.digest = source.name, digest
            yield table
        stored.expect_unchanged("run this again when nothing writes to it")


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
        path = _around(opened, layout, text)
        return replace(layout, format=InputFormat.JSON, records=path) if path else layout
    if layout.format in WRITTEN_AS_JSON:  # a header alone, perhaps
        first = text.partition("\n")[0]
        layout = replace(csv_rows.table(max("\t,;|", key=first.count)), encoding=encoding)
    if layout.format not in TABLES:
        what = f"the lines of a log, {layout.pattern}" if layout.pattern else "a key and JSON on each line"
        raise InputError(f"{opened.name} cannot be read: it looks like {what}", hint=READS)
    return opened.with_dialect(layout)


def _around(opened: OpenedFile, layout: Layout, text: str) -> str:
    """Return the path to the list of rows in the object that is around all of them, if a text begins with one. Raises
    InputError where it has several lists."""
    found = first_object(text) if text.startswith("{") else None
    first, _, rest = text.partition("\n")
    is_one_of_several = first.rstrip().endswith("}") and rest.lstrip().startswith("{")
    if found is None or is_one_of_several or _has_bucket(found):
        return ""
    every = opened.lists(layout)
    lists = [one for one in every if one.has_objects]
    listed = rows_of(every, as_dates=True) or keyed_records(found) or (None if lists else rows_in(found))
    if listed is not None:
        raise Shape(*listed).error(opened.name)
    lists = [one for one in lists if _has_bucket(one.first)] or lists
    if len(lists) > 1:
        has_values = any(not isinstance(value, dict | list) for value in lists[0].first.values())
        to_them = with_around(lists[0].path) + ("" if has_values else f" | {_FLAT}")
        rows = Read(convert=f"jq -c '{to_them}' {{file}}")
        what = f"{opened.name} is an object with several lists: {', '.join(map(str, lists[:5]))}"
        raise InputError(what, hint=Advice(("the rows alone: ", rows), name=opened.name))
    return path_text(lists[0].path) if lists else ""


def _has_bucket(row: Collection[str]) -> bool:
    return any(name.strip().casefold() in BUCKETS for name in row)


def _has_entity(row: object = None) -> bool:
    return isinstance(row, dict) and any(name.strip().casefold() in ENTITIES for name in row)


def _csv(opened: OpenedFile, layout: Layout) -> Table:
    stream: BinaryIO = opened.decompressed()
    if layout.encoding is not None:
        stream = as_utf8(stream, layout.encoding, opened.name)
    elif wrong := not_utf8(islice(io.BytesIO(opened.beginning(HEAD)), _PEEKED)):
        line, readings = wrong
        if not readings:
            raise InputError(f"{opened.name} is not text: line {line:,} is of no known encoding", hint=NOT_TEXT)
        shown = ", ".join(f"as {encoding} it is {text[:60]!r}" for encoding, text in readings)
        encoding = readings[0][0] if len(readings) == 1 else "ENCODING"
        hint = f"{shown}: ", Read(convert=f"iconv -f {encoding} -t UTF-8 {{file}}")
        raise InputError(f"{opened.name} is not UTF-8: line {line:,}", hint=Advice(hint, name=opened.name))

    def rows() -> Iterator[tuple[int, Sequence[str | None]]]:
        for number, cells, problem in csv_rows.rows(stream, layout, max_line=_MAX_RECORD):
            if problem:
                above = Read(convert=f"head -n {number - 1} {{file}}")
                hint = Advice(("correct the row; or, if the table ends above it: ", above), name=opened.name)
                raise InputError(f"{opened.name}: {problem}", hint=hint if number > _FIRST_ROW else "")
            yield number, cells

    found = rows()
    header = [(column or "").strip() for column in next(found)[1]]

    def read(columns: Sequence[str]) -> Iterator[tuple[int, Sequence[Any]]]:
        cells = itemgetter(*map(header.index, columns))
        for number, row in found:
            yield number, cells(row)

    delimiter = layout.delimiter or ("\t" if layout.format == InputFormat.TSV else ",")
    return Table(opened.name, header, read, delimiter=delimiter)


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
            cells = [record.get(column) for column in columns]
            for column, cell in zip(columns, cells, strict=True):
                if isinstance(cell, dict | list):
                    kind = "an object" if isinstance(cell, dict) else "a list"
                    hint = flattened(_flat(opened, layout), opened.name)
                    raise InputError(f"{opened.name}, {unit} {number:,}: {column} is {kind}", hint=hint)
            yield number, cells

    looked_at = [record for _, record in first]
    if not any(map(_has_bucket, looked_at)):
        listed = rows_in_records(looked_at, _path_of(opened, layout), as_dates=True)
        if listed is not None:
            raise Shape(*listed).error(opened.name)
    inside = _inside(looked_at)
    is_nested = inside or any(isinstance(value, dict) for _, record in first for value in record.values())
    is_in_lists = layout.records is not None and layout.records.count("[]") > 1
    flat = _flat(opened, layout, inside) if is_nested or is_in_lists else ""
    return Table(opened.name, header, read, unit, flat=flat)


def _flat(opened: OpenedFile, layout: Layout, inside: RecordPath = ()) -> str:
    """Return the command that prints the rows with the fields of their objects as columns: `key.day`; of rows in lists,
    those of what is around them, too."""
    to_it = _path_of(opened, layout)
    return f"jq -c '{with_around((*to_it, *inside), is_inside=bool(to_it))} | {_FLAT}' {{file}}"


_FIRST_ROW = 2
"""The line of the first row below a header."""

_FLAT = '[paths(scalars) as $p | {($p | map(tostring) | join(".")): getpath($p)}] | add'
"""What makes one object of an object and those in it, in jq."""


def _path_of(opened: OpenedFile, layout: Layout) -> RecordPath:
    """Return the path to the records of JSON, none where each is a document."""
    is_array = opened.beginning(HEAD).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[")
    return read_path(layout.records) if layout.records else (EACH,) if is_array else ()


def _inside(records: Sequence[dict[str, Any]]) -> RecordPath:
    """Return the path to the list that has most rows, if none of the records has a bucket itself, or that of the
    entities, if they have a bucket and no entity: days with rows."""
    lists = Counter[RecordPath]()
    for record in records:
        if any(map(_has_bucket, (record, *(one for one in record.values() if isinstance(one, dict))))):
            named = [name for name, value in record.items() if isinstance(value, list) and _has_entity(*value[:1])]
            return () if _has_entity(record) or not named else (named[0], EACH)
        lists.update({path: record_count(record, path) for path in lists_in(record)})
    return max(lists, key=lists.__getitem__, default=())


def _parquet(file: BinaryIO, name: str) -> Table:
    import pyarrow as pa

    opened = open_parquet(file, name, coerce_int96_timestamp_unit="us")  # as nanoseconds the year 9999 is 1816
    schema = opened.schema_arrow
    table = Table(name, schema.names, lambda _: iter(()), unit="row")

    def cells(column: str, values: Any, bucket: str, place: int) -> list[Any]:
        is_bucket, kind = column == bucket, values.type  # the bucket's stands in for the entity's, if there is none
        if pa.types.is_dictionary(kind):
            values, kind = values.cast(kind.value_type), kind.value_type
        text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
        if is_bucket and pa.types.is_date(kind):
            values = values.cast(pa.date32()).cast(pa.string())
        elif is_bucket and pa.types.is_timestamp(kind) and kind.tz is None:
            values = values.cast(pa.string())  # what it is depends on the metric's timezone
        elif is_bucket and pa.types.is_timestamp(kind):
            try:
                values = values.cast(pa.timestamp("ns", kind.tz)).cast(pa.int64())
            except pa.ArrowInvalid:  # one does not fit: the error about its text names the row
                values = values.cast(pa.string())
        elif is_bucket and not text:
            raise InputError(f"{name}: column {column} is {kind}, not a date, a timestamp or a text")
        elif pa.types.is_float64(kind):
            if column not in table.approximate:
                table.approximate.append(column)
        elif not (text or pa.types.is_integer(kind) or pa.types.is_decimal(kind) or pa.types.is_null(kind)):
            lacks = "not a text or an exact number" if place == 1 else "whose digits are not exact numbers"
            types = "text" if place == 1 else "DECIMAL, BIGINT or text"
            what = f"{name}: column {column} is {kind}, {lacks}"
            raise InputError(what, hint=f"cast it to {types} where the file is written")
        found: list[Any] = values.to_pylist()
        return found

    def read(columns: Sequence[str]) -> Iterator[tuple[int, Sequence[Any]]]:
        number = 0
        try:
            for batch in opened.iter_batches(_BATCH, columns=list(dict.fromkeys(columns))):
                named = enumerate(columns)
                parts = [cells(column, batch.column(column), columns[0], place) for place, column in named]
                for row in zip(*parts, strict=True):
                    number += 1
                    yield number, row
        except (pa.ArrowException, OSError) as error:
            raise unreadable(name, number, error) from None

    table.read = read
    return table
