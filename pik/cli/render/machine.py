"""JSON, JSON lines and CSV: the same values for programs, row by row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from pik.cli.render.document import Column, Document, Table
from pik.cli.render.text import note
from pik.cli.render.values import data

Write = Callable[[str], object]

_encode = msgspec.json.Encoder(decimal_format="number").encode


def json_text(value: object) -> str:
    """The value as JSON."""
    plain = data(value)
    try:
        return _encode(plain).decode()
    except UnicodeEncodeError:  # a file's name that is not UTF-8
        return _encode(_escaped(plain)).decode()


def _escaped(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, dict):
        return {_escaped(name): _escaped(one) for name, one in value.items()}
    return [_escaped(one) for one in value] if isinstance(value, list) else value


def _row(columns: Sequence[Column], row: Any) -> dict[str, object]:
    return {column.key: data(column.value(row)) for column in columns}


def write_json(document: Document, write: Write) -> None:
    """One object: the fields, each table as a list with one row per line, the fields that come last."""
    before = "{"
    for name, value in data(document.head).items():
        write(f"{before}{json_text(name)}:{json_text(value)}")
        before = ",\n"
    for table in document.tables:
        write(f"{before}{json_text(table.name)}:[")
        _write_rows(table, write)
        before = ",\n"
    for name, value in data(document.end()).items():
        write(f"{before}{json_text(name)}:{json_text(value)}")
        before = ",\n"
    write("}\n" if before != "{" else "{}\n")


def _write_rows(table: Table, write: Write) -> None:
    before = "\n"
    for row in table.rows:
        write(before + json_text(_row(table.columns, row)))
        before = ",\n"
    write("]" if before == "\n" else "\n]")


def write_lines(document: Document, write: Write) -> None:
    """The first table's rows, one object per line; without a table, the fields as one line."""
    if not document.tables:
        write(json_text({**document.head, **document.end()}) + "\n")
        return
    table = _only(document, "jsonl")
    for row in table.rows:
        write(json_text(_row(table.columns, row)) + "\n")


def write_csv(document: Document, write: Write) -> None:
    """The first table's rows under a header (RFC 4180), text as it is; without a table, the fields as one row."""
    import csv

    class Stream:
        def write(self, text: str) -> None:
            write(text)

    writer = csv.writer(Stream())
    if not document.tables:
        fields = data({**document.head, **document.end()})
        writer.writerows([list(fields), map(_csv_text, fields.values())])
        return
    table = _only(document, "csv")
    writer.writerow(column.key for column in table.columns)
    for row in table.rows:
        writer.writerow(_csv_text(data(column.value(row))) for column in table.columns)


def _only(document: Document, form: str) -> Table:
    first, *others = document.tables
    if others:
        left_out = ", ".join(one.name for one in others)
        note(f"{form} has room for {first.name} only, not for {left_out}; --format json has all")
    return first


def _csv_text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json_text(value)
