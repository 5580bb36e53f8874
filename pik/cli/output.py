"""The formats of results, and the way to standard output."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import TYPE_CHECKING

from pik.errors import StoreError

if TYPE_CHECKING:
    from pik.cli.render import Document


class Format(StrEnum):
    """How results are written; FORMATS has what writes each."""

    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"
    CSV = "csv"
    MD = "md"


class Output:
    """Shows results in one format. `make_way` is called before anything is written to a terminal."""

    def __init__(self, form: Format, make_way: Callable[[], object] = lambda: None) -> None:
        self._format = form
        self._make_way = make_way

    def show(self, document: Document) -> None:
        """Write the document; its rows are read as they are written. Raises StoreError where stdout takes nothing.

        The first rows are read before anything is written: work that takes long shows its progress first, and a
        failure leaves no half of an answer.
        """
        if sys.stdout is None:
            raise StoreError("standard output is closed, so the result cannot be written")
        document = document.begun()
        if sys.stdout.isatty():
            self._make_way()
        stream = Stream()
        try:
            FORMATS[self._format](document, stream)
        finally:
            stream.flush()


class Stream:
    """Standard output in large pieces, even where PYTHONUNBUFFERED makes each write a system call."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._size = 0
        self._terminal = sys.stdout.isatty()

    def write(self, text: str) -> None:
        """Write the text, sooner or later; on a terminal now."""
        self._pieces.append(text)
        self._size += len(text)
        if self._terminal or self._size > _PIECE:
            self.flush()

    def flush(self) -> None:
        """Write what is waiting. Raises BrokenPipeError if the reader left, StoreError for other failures."""
        text, self._pieces, self._size = "".join(self._pieces), [], 0
        try:
            sys.stdout.write(text)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise StoreError(f"standard output: {error.strerror}") from error

    def safely(self, safe: Callable[[str], str]) -> Callable[[str], None]:
        """`write`, on a terminal after `safe`. Through a pipe, programs get the text as it is."""
        return (lambda text: self.write(safe(text))) if self._terminal else self.write


_PIECE = 1 << 16
"""Characters."""


def _table(document: Document, stream: Stream) -> None:
    from pik.cli.render import table

    table.write(document, stream.write, markdown=False)


def _markdown(document: Document, stream: Stream) -> None:
    from pik.cli.render import table

    table.write(document, stream.write, markdown=True)


def _json(document: Document, stream: Stream) -> None:
    from pik.cli.render import machine, text

    machine.write_json(document, stream.safely(text.visible_json))


def _json_lines(document: Document, stream: Stream) -> None:
    from pik.cli.render import machine, text

    machine.write_lines(document, stream.safely(text.visible_json))


def _csv(document: Document, stream: Stream) -> None:
    from pik.cli.render import machine, text

    machine.write_csv(document, stream.safely(text.visible_lines))


FORMATS: Mapping[Format, Callable[[Document, Stream], None]] = {
    Format.TABLE: _table,
    Format.JSON: _json,
    Format.JSONL: _json_lines,
    Format.CSV: _csv,
    Format.MD: _markdown,
}
"""What writes each format. It imports its renderer when it is used."""
