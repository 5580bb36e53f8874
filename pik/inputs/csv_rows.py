"""Rows of CSV and TSV as records: each an object from the header's names to the texts that stand in the cells.

The grammar is RFC 4180's, with any delimiter and any line end: a quoted cell may hold delimiters, line breaks and
doubled quotes, and after a closing quote the cell ends. A blank line is not a row, and neither is one of delimiters
alone, as spreadsheets leave them at the end. Nothing is interpreted: `007`,
`NULL` and ` x` are the texts that they are.

Where the layout says that backslashes escape, or that quotes are characters like all others, the rows are those of
`divided_rows`; where it says nothing, a row that may be a part of one, or several, is a problem.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache
from itertools import count, islice
from typing import BinaryIO

import msgspec

from pik.errors import InputError, number_of
from pik.inputs.advice import Advice, Clause, Option, Read, piped
from pik.inputs.blocks import BLOCK, LINES, Block, Problem, UntilError
from pik.inputs.divided_rows import AFTER_QUOTES, NOT_ENDED, NULL, DividedRows, is_divided
from pik.model.event import one_line
from pik.model.layout import AUTO, InputFormat, Layout

DELIMITERS = ("\t", ",", ";", "|")
"""What is tried, in this order."""

_ROWS = 20
"""Rows that are compared to recognize a table."""

_CR_ALONE = re.compile(rb"\r(?!\n|\Z)")

WITH_LINE_FEEDS = "tr '\\r' '\\n' < {file}"
"""What to type where lines end in a carriage return alone."""

_encode = msgspec.json.Encoder().encode


def blocks(
    stream: BinaryIO, name: str, layout: Layout, *, max_line: int, first_seq: int = 1, offset: int = 0
) -> Iterator[Block]:
    """Yield the rows from `first_seq` on, which starts `offset` bytes into the text as UTF-8.

    A row with other than the header's number of cells, with misplaced quotes, or of more than `max_line` bytes is a
    problem: it is kept as it stands. Raises InputError for a header with a name that comes twice, and for text in
    another encoding.
    """
    rows = _Rows(stream, layout, max_line)
    following = iter(rows)
    header = layout.columns or _header(following, name, layout)
    rows.expect(header)
    rows.continue_at(offset)
    lines: list[bytes] = []
    problems: dict[int, Problem] = {}
    size, seq = 0, first_seq
    found = UntilError(following)
    for row, problem in found:
        cells, problem = rows.checked(row, problem)
        if problem is not None:
            problems[seq] = problem
            lines.append(one_line(problem.record))
        else:
            lines.append(_record(header, cells, rows.missing) if cells else b"")
        size += len(lines[-1])
        seq += 1
        if size >= BLOCK or len(lines) == LINES:
            yield _block(lines, first_seq, rows.offset, problems)
            first_seq, lines, problems, size = seq, [], {}, 0
    if lines:
        yield _block(lines, first_seq, rows.offset, problems)
    found.raise_error()


_Cells = Sequence[str | None]


def rows(stream: BinaryIO, layout: Layout, *, max_line: int) -> Iterator[tuple[int, _Cells, str]]:
    """Yield the rows that are not blank, the header first: the line on which each begins, its cells, None where one is
    missing, and why it cannot be read, nothing if it can."""
    found = _Rows(stream, layout, max_line)
    has_header = False
    for row, problem in found:
        if has_header:
            row, problem = found.checked(row, problem)
        elif any(row):
            found.expect([cell or "" for cell in row])
            has_header = True
        elif problem is None:
            continue  # of delimiters alone
        if problem is not None and not problem.record.strip():
            continue  # white space alone, which an ingest skips as well
        if row or problem is not None:
            yield found.line, row, "" if problem is None else problem.reason


def _record(header: Sequence[str], cells: _Cells, missing: frozenset[str | None]) -> bytes:
    pairs = zip(header, cells, strict=True)
    return _encode({name: cell for name, cell in pairs if cell not in missing} if missing else dict(pairs))


def _block(lines: list[bytes], first_seq: int, offset: int, problems: dict[int, Problem]) -> Block:
    data = b"\n".join(lines) + b"\n"
    return Block(first_seq, first_seq + len(lines) - 1, data, offset, problems=problems)


def names_of(stream: BinaryIO, name: str, layout: Layout) -> Sequence[str]:
    """Return the names of the columns; none for an empty text. Raises InputError for a header that cannot be read."""
    return layout.columns or _header(iter(_Rows(stream, layout, BLOCK)), name, layout)


def _header(rows: Iterator[tuple[_Cells, Problem | None]], name: str, layout: Layout) -> Sequence[str]:
    """Return the names that the first row gives that is not blank. Raises InputError."""
    for found, problem in rows:
        nameless = count(1)
        cells = [NULL if cell is None else cell or _nameless(next(nameless)) for cell in found]
        if problem is None and not any(found):
            continue
        if problem is not None:
            hint = (
                piped(WITH_LINE_FEEDS)
                if _CR_ALONE.search(problem.record)
                else Advice((Option("columns"), " names them"))
            )
            what = f"{name}: the header is not a row of CSV: {problem.reason}"
            raise InputError(what, hint=hint.of(name))
        if repeated := [cell for cell in cells if cells.count(cell) > 1]:
            what = f"{name}: two columns have the same name, {repeated[0]!r}"
            raise InputError(what, hint=Advice(_other_names(cells, layout), name=name))
        if cells:
            return cells
    return ()


def _nameless(number: int) -> str:
    """Return the name of a column without one; there may be several, as a spreadsheet writes columns that are empty."""
    return "" if number == 1 else f"_{number}"


def _other_names(cells: Sequence[str], layout: Layout) -> Clause:
    """Return how a table is read of whose columns several have one name: without its header, by names that differ."""
    names = [f"{cell}_{cells[:at].count(cell) + 1}" if cell in cells[:at] else cell for at, cell in enumerate(cells)]
    if any("," in one or "\n" in one for one in names) or len(set(names)) < len(names):
        names = [f"c{number}" for number in range(1, len(cells) + 1)]
    named = replace(layout, columns=tuple(names), encoding=None)
    options = tuple(Option(option, text) for option, text in named.given.items())
    return ("with other names, without the header: ", Read(options, "tail -n +2 {file}", guess=True))


class _Rows:
    """The rows of a text in UTF-8, each with the problem that it has, if any."""

    def __init__(self, stream: BinaryIO, layout: Layout, max_line: int) -> None:
        self._stream, self._max_line = stream, max_line
        self._delimiter = layout.delimiter or ("\t" if layout.format == InputFormat.TSV else ",")
        self._read = self._lines_read = 0  # bytes and lines of the stream
        self._again: list[bytes] = []  # lines to read again, the next one last: they do not belong to the row before
        self._row: list[bytes] = []  # lines of the current row
        self._row_size = 0
        self._ended = False
        self._layout = layout
        self._divided = DividedRows(self._delimiter, layout) if is_divided(layout) else None
        self._width = 0
        csv.field_size_limit(max(max_line, csv.field_size_limit()))

    @property
    def offset(self) -> int:
        """Return the number of bytes up to the end of the current row."""
        return self._read - sum(map(len, self._again))

    @property
    def missing(self) -> frozenset[str | None]:
        """What stands in a row in the place of a cell that is missing."""
        if self._divided is not None:
            return frozenset([None])
        return frozenset() if self._layout.null is None else frozenset([self._layout.null])

    def expect(self, header: Sequence[str]) -> None:
        """Expect rows under a header: with as many cells, some of which may be missing."""
        self._width = len(header)
        if self._divided is not None:
            self._divided.null = self._layout.null

    def continue_at(self, offset: int) -> None:
        """Skip to that offset, if it is further on."""
        while self._read < offset:
            first = self._divided is not None and self._divided.line_end is None
            read = self._stream.readline if first else self._stream.read
            data = read(min(BLOCK, offset - self._read))
            if not data:
                return
            if first:
                self._know_line_end(data)
            self._read += len(data)
            self._lines_read += data.count(b"\n")

    def _know_line_end(self, line: bytes) -> None:
        if self._divided is not None and self._divided.line_end is None and line.endswith(b"\n"):
            self._divided.line_end = "\r\n" if line.endswith(b"\r\n") else "\n"

    def _cells(self) -> Iterator[_Cells]:
        if self._divided is not None:
            return self._divided.rows(self._lines())
        return csv.reader(self._lines(), delimiter=self._delimiter, strict=True)

    def __iter__(self) -> Iterator[tuple[_Cells, Problem | None]]:
        while True:
            try:
                for cells in self._cells():
                    yield cells, None
                    self._row, self._row_size = [], 0
            except UnicodeDecodeError:
                yield (), self.problem("the row is not valid UTF-8")
            except _TooLong:
                yield (), self._first_line()
            except csv.Error as error:
                if self._ended and len(self._row) > 1:
                    yield (), self._first_line()
                elif self._breaks_at_return():
                    yield (), self.problem("the row has a carriage return without a line feed, outside of quotes")
                else:
                    own = NOT_ENDED if self._ended else AFTER_QUOTES
                    what = own if self._divided is None else str(error)
                    yield (), self.problem(f"the row is not {self._name}: {what}{self._other_reading()}")
            else:
                return
            self._row, self._row_size = [], 0

    @property
    def line(self) -> int:
        """The line on which the current row begins."""
        return self._lines_read - len(self._again) - len(self._row) + 1

    def problem(self, reason: str) -> Problem:
        """Return the problem of the current row."""
        return Problem(f"{reason} (line {self.line})", b"".join(self._row).rstrip(b"\r\n"))

    def checked(self, row: _Cells, problem: Problem | None) -> tuple[_Cells, Problem | None]:
        """Return the cells of the current row, none of a blank one, and its problem: also one that it has under the
        header."""
        cells = () if self.is_blank(row) else row
        if problem is None and len(cells) not in (0, self._width):
            problem = self.problem(self._other_number(cells))
        elif problem is None and (reason := self._doubt()):
            problem = self.problem(reason)
        return cells, problem

    @property
    def _name(self) -> str:
        return str(self._layout.format or InputFormat.CSV).upper()

    def _other_reading(self) -> str:
        """Return which option reads what may be in the current row, which is not of this table as it is read."""
        row = b"".join(self._row)
        if self._layout.escape is None and (b'\\"' in row or escaped_border(self._delimiter).search(row)):
            return f"; {_ESCAPES}"
        is_quoted = self._layout.quote is None and self._delimiter == "\t" and b'"' in row
        return "; --quote none reads quotes as characters" if is_quoted else ""

    def _other_number(self, cells: _Cells) -> str:
        """Return the problem of a row with other than the header's number of cells."""
        reason = f"the row has {number_of(len(cells), 'cell')}, the header {self._width}"
        return reason + self._other_reading()

    def _doubt(self) -> str:
        """Return why the current row, which has the right number of cells, may be cut, or several: then an option must
        say how it is read."""
        if self._layout.escape is None and any(map(_ends_in_escape, self._row)):
            return f"a line ends in a backslash: {_ESCAPES}, --escape none as a character"
        if len(self._row) > 1 and self._layout.quote is None and self._layout.format == InputFormat.TSV:
            first, last = self._row[0], self._row[-1]
            if first.count(b"\t") == last.count(b"\t") == self._width - 1:
                each = f"a quoted cell goes over {len(self._row)} lines, the first and last of which are rows"
                return f"{each}: --quote none reads them so, --quote '\"' as one row"
        return ""

    def is_blank(self, cells: _Cells) -> bool:
        """Return whether the current row, which has these cells, is of delimiters alone."""
        if len(cells) < 2 or any(cells):
            return False
        return b"".join(self._row).rstrip(b"\r\n") == self._delimiter.encode() * (len(cells) - 1)

    def _breaks_at_return(self) -> bool:
        """Return whether the current row is not CSV because of carriage returns alone."""
        if self._divided is not None:
            return False
        row = b"".join(self._row)
        lines = io.StringIO(_CR_ALONE.sub(b" ", row).decode(errors="replace"), newline="\n")
        with suppress(csv.Error):
            return bool(_CR_ALONE.search(row) and list(csv.reader(lines, delimiter=self._delimiter, strict=True)))
        return False

    def _lines(self) -> Iterator[str]:
        """Yield the lines, which become those of the current row. Raises _TooLong where it has too many bytes."""
        while True:
            line = self._again.pop() if self._again else b""
            if not line.endswith(b"\n"):
                more = self._stream.readline(self._max_line + 2 - len(line))
                self._know_line_end(more)
                self._lines_read += not line and bool(more)
                line, self._read = line + more, self._read + len(more)
            if not line:
                self._ended = True
                return
            self._row.append(line)
            self._row_size += len(line)
            if self._row_size > self._max_line and len(b"".join(self._row).rstrip(b"\r\n")) > self._max_line:
                raise _TooLong
            yield (line if self._read > len(line) else line.removeprefix(codecs.BOM_UTF8)).decode()

    def _first_line(self) -> Problem:
        """Return the problem of a row that is too long, or that the input's end cuts: it ends with its first line."""
        first, *others = self._row
        if others and self._divided is not None and not self._divided.in_quotes and not self._ended:
            return self._without_end()
        self._row, self._again = [first], others[::-1]
        if others:
            where = "before the input does" if self._ended else f"within {self._max_line} bytes"
            return self.problem(f"a quoted cell does not end {where}")
        while not first.endswith(b"\n") and (first := self._stream.readline(BLOCK)):
            self._read += len(first)
        self._row = [self._row[0][: self._max_line + 1]]
        return self.problem(f"the line is longer than {self._max_line} bytes")

    def _without_end(self) -> Problem:
        """Return the problem of a row that is too long, with its escaped line breaks; all of it is read."""
        found = self.problem(f"the row is longer than {self._max_line} bytes")
        line = self._row[-1]
        while _ends_in_escape(line) or not line.endswith(b"\n"):
            begins = line.endswith(b"\n")
            line = self._stream.readline(BLOCK)
            if not line:
                break
            self._read += len(line)
            self._lines_read += begins
        return Problem(found.reason, found.record[: self._max_line + 1])


_ESCAPES = "--escape '\\' reads it as an escape"
_AFTER_BACKSLASH = (b"\\\n", b"\\\r\n")


def _ends_in_escape(line: bytes) -> bool:
    """Return whether a line ends in an odd number of backslashes, each two of which may stand for one."""
    if not line.endswith(_AFTER_BACKSLASH):
        return False
    text = line.rstrip(b"\r\n")
    return (len(text) - len(text.rstrip(b"\\"))) % 2 == 1


@cache
def escaped_border(delimiter: str) -> re.Pattern[bytes]:
    """Return what finds a backslash before a delimiter or a line end."""
    return re.compile(rb"(?<!\\)(?:\\\\)*\\(?:" + re.escape(delimiter.encode()) + rb"|\r?\n)")


class _TooLong(Exception):
    """A row has more bytes than a record may have."""


def delimiter_of(text: str, layout: Layout = AUTO, *, whole: bool) -> str | None:
    """Return the delimiter of a text: the one that divides most of its first rows into as many cells as the first row,
    and that into more than one; None if no delimiter does."""
    best: tuple[float, int, str] | None = None
    for delimiter in DELIMITERS:
        first, *others = [len(row) for row in head_rows(text, delimiter, layout, whole=whole)] or [0]
        alike = others.count(first) / max(1, len(others))
        if first > 1 and alike > 0.5 and (best is None or (alike, first) > best[:2]):
            best = alike, first, delimiter
    return best and best[2]


def head_rows(text: str, delimiter: str, layout: Layout = AUTO, *, whole: bool) -> list[list[str]]:
    """Return the first rows of a text, as far as they are CSV; without the last one where it may be cut."""
    rows: list[list[str]] = []
    with suppress(csv.Error):
        if is_divided(layout):
            divided = DividedRows(delimiter, layout).rows(io.StringIO(text, newline="\n"))
            rows += ([cell or "" for cell in row] for row in islice(filter(any, divided), _ROWS + 1))
        else:
            reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
            rows += islice(filter(any, reader), _ROWS + 1)
    return rows if whole or text.endswith("\n") or len(rows) > _ROWS else rows[:-1]


def table(delimiter: str) -> Layout:
    """Return the layout of a table with that delimiter."""
    if delimiter == "\t":
        return Layout(InputFormat.TSV)
    return Layout(InputFormat.CSV, delimiter=None if delimiter == "," else delimiter)
