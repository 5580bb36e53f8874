"""Opens files of numbers: CSV, TSV, Parquet or JSON.

A number counts as it is written: its digits never pass through floating point. A Parquet column of DOUBLEs has no
digits as written; each is the shortest decimal that reads back as the same double.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from itertools import chain, islice
from operator import itemgetter
from typing import Any, BinaryIO, cast

from pik.errors import InputError, Invalid
from pik.inputs.blocks import blocks as line_blocks
from pik.inputs.copies import seekable
from pik.inputs.figures import HEAD, READS, Table
from pik.inputs.json_values import blocks as json_blocks
from pik.inputs.parquet_rows import MAGIC, open_parquet
from pik.inputs.shapes import Shape, recognize
from pik.inputs.source import Source
from pik.model.identity import check_json
from pik.model.layout import JSON_VALUES

_PEEKED = 100  # records of JSON lines whose fields are the columns
_BATCH = 8192  # rows of Parquet
_MAX_RECORD = 1 << 20  # bytes of one JSON value
_UTF_16 = b"\xff\xfe", b"\xfe\xff"


@contextmanager
def open_table(source: Source) -> Iterator[Table]:
    """Open a file of numbers, whatever its format. Raises InputError where it is none, or empty, and at the end where
    it changed while it was read."""
    with source.open() as first, first.repeatable() as opened:
        digest = opened.digest()
        with _table(opened.decompressed(), source) as table:
            table.digest = digest
            yield table
        opened.expect_unchanged("run this again when nothing writes to it")


@contextmanager
def _table(stream: io.BufferedReader, source: Source) -> Iterator[Table]:
    """Provide the table of an uncompressed stream."""
    head = stream.peek(HEAD)[:HEAD]
    if not head:
        raise InputError(f"{source.name} is empty", hint=READS)
    if head.startswith(MAGIC):
        with seekable(stream) as file:
            yield _parquet(file, source.name)
        return
    if head.startswith(_UTF_16):
        raise InputError(f"{source.name} is UTF-16", hint="iconv -f UTF-16 -t UTF-8 makes UTF-8 of it")
    if b"\0" in head or head.startswith((b"PK\x03\x04", b"Obj\x01", b"ORC")):
        raise InputError(f"{source.name} is a binary file, not a table of numbers", hint=READS)
    text = io.TextIOWrapper(cast(BinaryIO, stream), encoding="utf-8-sig", errors="surrogateescape", newline="")
    try:
        begin = head.removeprefix(b"\xef\xbb\xbf").lstrip()
        if begin.startswith((b"{", b"[")):
            yield _json(stream, source.name, head)
        else:
            yield _csv(text, source.name, head)
    finally:
        text.detach()


def _csv(text: io.TextIOWrapper, name: str, head: bytes) -> Table:
    line = next((line for line in text if line.strip()), "")
    outside = re.sub(r'"[^"]*"', "", line)
    delimiter = max("\t,;|", key=outside.count)
    lines = csv.reader(chain([line], text), delimiter=delimiter, strict=True)
    skipped = 0

    def rows() -> Iterator[tuple[int, list[str]]]:
        try:
            for row in lines:
                yield lines.line_num + skipped, row
        except csv.Error as error:
            raise InputError(f"{name}, line {lines.line_num:,}: it is not CSV: {error}") from None

    found = rows()
    header = [column.strip() for column in next(found, (0, []))[1]]
    if not header:
        raise InputError(f"{name} is empty", hint=READS)

    def read(columns: Sequence[str]) -> Iterator[tuple[int, Sequence[str]]]:
        cells = itemgetter(*map(header.index, columns))
        width = len(header)
        for number, row in found:
            if len(row) == width:
                yield number, cells(row)
            elif row:
                table.expect_table()
                raise InputError(f"{name}, line {number:,}: it has {len(row)} cells, the header has {width}")

    table = Table(name, header, read, head=head)
    return table


def _json(stream: io.BufferedReader, name: str, head: bytes) -> Table:
    """Return the table of JSON lines, of an array, or of values that follow each other."""
    decoder = json.JSONDecoder(parse_float=Decimal, parse_int=Decimal, parse_constant=Decimal)
    form = recognize(head, name, whole=len(head) < HEAD, mapped=True)
    if isinstance(form, Shape):
        raise form.error(name, READS)
    unit, blocks = ("record", json_blocks) if form == JSON_VALUES else ("line", line_blocks)

    def records() -> Iterator[tuple[int, dict[str, Any]]]:
        for block in blocks(stream, name, max_line=_MAX_RECORD):
            for number, record in enumerate(block.data.splitlines(), start=block.first_seq):
                if problem := block.problems.get(number):
                    raise InputError(f"{name}, {unit} {number:,}: {problem.reason}")
                if record.strip():
                    yield number, decoded(number, record)

    def decoded(number: int, record: bytes) -> dict[str, Any]:
        try:
            check_json(record, f"the {unit}")
            found = decoder.decode(record.decode())
        except (Invalid, ValueError, ArithmeticError) as error:
            why = error.message if isinstance(error, Invalid) else f"the {unit} has a number out of range"
            raise InputError(f"{name}, {unit} {number:,}: {why}") from None
        if not isinstance(found, dict):
            raise InputError(f"{name}, {unit} {number:,}: it is not a JSON object", hint=READS)
        return found

    rows = records()
    first = list(islice(rows, _PEEKED))
    header = list(dict.fromkeys(key for _, record in first for key in record))

    def read(columns: Sequence[str]) -> Iterator[tuple[int, Sequence[Any]]]:
        for number, record in chain(first, rows):
            yield number, [record.get(column) for column in columns]

    return Table(name, header, read, unit)


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
