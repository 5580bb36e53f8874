"""The formats of results, and the way to standard output."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from pik.cli.document import Advice, Column, Document, Table
from pik.cli.text import note, write_out
from pik.cli.values import data
from pik.config import Format
from pik.errors import StoreError
from pik.model.visible import visible_json, visible_lines

if TYPE_CHECKING:
    from pik.cli.pager import PagedOutput


class Output:
    """Shows results in one format. `make_way` is called before anything is written to a terminal: it ends a progress
    bar. `pager` is the command line of a pager for results longer than the terminal."""

    def __init__(
        self,
        form: Format,
        make_way: Callable[[], object] = lambda: None,
        advice: Advice = str,
        pager: str | None = None,
    ) -> None:
        self._format, self._make_way, self._advice, self._pager = form, make_way, advice, pager

    def show(self, document: Document) -> None:
        """Write the document; its rows are read as they are written. Raises StoreError where stdout takes nothing.

        The first rows are read before anything is written: work that takes long shows its progress first, and a
        failure leaves no half of an answer.
        """
        if sys.stdout is None:
            raise StoreError("standard output is closed, so the result cannot be written")
        document = document.ready(self._advice)
        if sys.stdout.isatty():
            self._make_way()
        stream = self._stream()
        write, safe = FORMATS[self._format]
        try:
            # Through a pipe, programs get the text as it is.
            write(document, (lambda text: stream.write(safe(text))) if sys.stdout.isatty() else stream.write)
        finally:
            stream.close()

    def _stream(self) -> _Stream | PagedOutput:
        if self._pager is None:
            return _Stream()
        from pik.cli.pager import PagedOutput  # late: a pipe needs none

        return PagedOutput(self._pager)


class _Stream:
    """Standard output in large pieces, even where PYTHONUNBUFFERED makes each write a system call."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._size = 0
        self._terminal = sys.stdout.isatty()

    def write(self, text: str) -> None:
        """Add text; it is written when there is enough, or on a terminal at once."""
        self._pieces.append(text)
        self._size += len(text)
        if self._terminal or self._size > _PIECE:
            self._flush()

    def close(self) -> None:
        """Write what is waiting. Raises BrokenPipeError if the reader left, StoreError for other failures."""
        self._flush()

    def _flush(self) -> None:
        text, self._pieces, self._size = "".join(self._pieces), [], 0
        write_out(text)


_SPECIAL = re.compile('[",\r\n]')
_PIECE = 1 << 16
"""Characters."""

Write = Callable[[str], object]

_encode = msgspec.json.Encoder(decimal_format="number").encode


def _json_text(plain: object) -> str:
    """Return what `data` made of a value, as JSON."""
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


def json_text(document: Document) -> str:
    """Return the document as `_write_json` writes it."""
    pieces: list[str] = []
    _write_json(document, pieces.append)
    return "".join(pieces)


def _write_json(document: Document, write: Write) -> None:
    """One object: the fields, each table as a list with one row per line, the fields that come last."""
    before = "{"

    def write_fields(fields: Mapping[str, object]) -> None:
        nonlocal before
        for name, value in data(fields).items():
            write(f"{before}{_json_text(name)}:{_json_text(value)}")
            before = ",\n"

    write_fields(document.head)
    for table in document.tables:
        write(f"{before}{_json_text(table.name)}:[")
        before = "\n"
        for row in table.rows:
            write(before + _json_text(_row(table.columns, row)))
            before = ",\n"
        write("]" if before == "\n" else "\n]")
        before = ",\n"
    write_fields(document.end())
    write("}\n" if before != "{" else "{}\n")


def _write_lines(document: Document, write: Write) -> None:
    """The first table's rows, one object per line; without a table, the fields as one line."""
    if not document.tables:
        write(_json_text(data({**document.head, **document.end()})) + "\n")
        return
    table = _only(document, "jsonl")
    for row in table.rows:
        write(_json_text(_row(table.columns, row)) + "\n")


def _write_csv(document: Document, write: Write) -> None:
    """The first table's rows under a header (RFC 4180), text as it is; without a table, the fields as one row."""
    if not document.tables:
        fields = data({**document.head, **document.end()})
        write(_csv_line(fields))
        write(_csv_line(fields.values()))
        return
    table = _only(document, "csv")
    write(_csv_line(column.key for column in table.columns))
    for row in table.rows:
        write(_csv_line(data(column.value(row)) for column in table.columns))


def _only(document: Document, form: str) -> Table:
    first, *others = document.tables
    if others:
        left_out = ", ".join(one.name for one in others)
        note(f"{form} has room for {first.name} only, not for {left_out}; --format json has all")
    return first


def _csv_line(values: Iterable[Any]) -> str:
    # A line without anything would not be a row to those who read it.
    return (",".join(map(_csv_cell, values)) or '""') + "\r\n"


def _csv_cell(value: Any) -> str:
    """Return a cell, as exports have it: nothing where there is no value, and two quotes where it is an empty text."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else _json_text(value)
    return text if text and not _SPECIAL.search(text) else '"{}"'.format(text.replace('"', '""'))


def _write_table(document: Document, write: Write, *, markdown: bool = False) -> None:
    from pik.cli import table

    table.write(document, write, markdown=markdown)


FORMATS: Mapping[Format, tuple[Callable[[Document, Write], None], Callable[[str], str]]] = {
    Format.TABLE: (_write_table, str),
    Format.JSON: (_write_json, visible_json),
    Format.JSONL: (_write_lines, visible_json),
    Format.CSV: (_write_csv, visible_lines),
    Format.MD: (partial(_write_table, markdown=True), str),
}
"""What writes each format, and what escapes control characters in its text for a terminal (`str`: the writer did)."""
