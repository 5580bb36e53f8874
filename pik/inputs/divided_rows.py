r"""Rows of delimited text that RFC 4180 does not describe: with backslashes that escape, without quotes, or both.

What a backslash and the next character stand for:

| written | stands for | written by |
| --- | --- | --- |
| `\N`, as a whole cell | no value | all of those below, unless told otherwise |
| `\` and anything but a letter or a digit | that character: a delimiter, a quote, a line break, `\` | all |
| `\0` | the character NUL | MySQL, `mysql --batch`, ClickHouse |
| `\b \f \n \r \t \v`, without quotes | the characters 8, 12, 10, 13, 9, 11 | PostgreSQL, `mysql --batch`, ClickHouse |
| `\Z`, without quotes | the character 26 | what `LOAD DATA` of MySQL reads |
| `\.`, as a whole line | the end of the rows, here a blank line | PostgreSQL |

Where there are quotes too (MySQL `ENCLOSED BY '"'`, Redshift `ESCAPE ADDQUOTES`, Snowflake `ESCAPE`), none of them
writes a letter after a backslash, while others (Spark) leave backslashes as they are: such a row is a problem, and so
is one with another letter or digit (`\x41` and `\101` are read by PostgreSQL, and written by nothing).

Sources: "COPY", section "Text Format", of PostgreSQL; "LOAD DATA" and `Query_result_export::send_data` of MySQL;
"UNLOAD" of Amazon Redshift; "CREATE FILE FORMAT" of Snowflake; "TabSeparated" of ClickHouse.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Collection, Iterator
from functools import cached_property

from pik.model.layout import NONE, Layout

ESCAPE = "\\"
"""The character that escapes."""

NULL = r"\N"
"""The cell that is missing."""

_END = r"\."
_NUL = {"0": "\0"}
_LETTERS = _NUL | {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "Z": "\x1a"}


NOT_ENDED, AFTER_QUOTES = "a quoted cell does not end", "text follows a quoted cell"
"""What is wrong with quotes."""


def is_divided(layout: Layout) -> bool:
    """Return whether `DividedRows` reads such a table, and not the csv module."""
    return layout.quote == NONE or layout.escape == ESCAPE


class DividedRows:
    """Divides lines into rows: each a list of the texts in its cells, None for a cell that is missing.

    All lines end as the first one does, in `line_end`: so a carriage return may belong to the data. `null` is the text
    of a cell that is missing, as it is written.
    """

    def __init__(self, delimiter: str, layout: Layout) -> None:
        self.delimiter = delimiter
        self._quotes, self._escapes = layout.quote != NONE, layout.escape == ESCAPE
        self._letters = _NUL if self._quotes else _LETTERS
        self.null: str | None = None
        self.line_end: str | None = None
        self.in_quotes = False
        """Whether the row that is being read goes on inside of quotes."""

    def rows(self, lines: Iterator[str]) -> Iterator[list[str | None]]:
        """Yield the rows. Raises csv.Error for one that is not like that, after its last line."""
        self.in_quotes = False
        for line in lines:
            self.line_end = self.line_end or ("\r\n" if line.endswith("\r\n") else "\n")
            text = line.removesuffix(self.line_end)
            if (self._escapes and ESCAPE in text) or (self._quotes and '"' in text) or text.endswith(("\r", "\n")):
                yield [] if text == _END else self._read(line, lines)
            else:
                yield [None if one == self.null else one for one in text.split(self.delimiter)] if text else []

    @cached_property
    def _special(self) -> re.Pattern[str]:
        """What divides a line into text and all else."""
        escaped = [r"\\\r\n\Z"] * (self.line_end == "\r\n") + [r"\\.?"]
        kinds = [*escaped * self._escapes, *['"'] * self._quotes, re.escape(self.delimiter), r"\r?\n\Z"]
        return re.compile(f"({'|'.join(kinds)})", re.DOTALL)

    def _read(self, line: str, lines: Iterator[str]) -> list[str | None]:
        """Return the cells of the row that a line begins. Raises csv.Error."""
        row = _Row({NULL, self.null} if self._escapes else {self.null}, self.null)
        while not self._add(row, line):
            self.in_quotes = row.state == _QUOTED
            line = next(lines, "")
            if not line:
                self._expect_end(row)
                break
        self.in_quotes = False
        row.end_cell()
        if row.problem:
            raise csv.Error(row.problem)
        return row.cells

    def _add(self, row: _Row, line: str) -> bool:
        """Add a line to a row; return whether it ends the row."""
        text = True
        for token in self._special.split(line):
            if text:
                row.add_text(token)
            elif self._escapes and token.startswith(ESCAPE):
                row.add_escaped(token, self._meaning(token[1:]))
            elif token == '"':
                row.add_quote()
            elif row.state == _QUOTED:
                row.add_text(token)
            elif token == self.delimiter:
                row.end_cell()
            else:
                if token != self.line_end:
                    row.problem = row.problem or f"the line ends in {token!r}, the first one in {self.line_end!r}"
                return True
            text = not text
        return False

    def _expect_end(self, row: _Row) -> None:
        """Raise csv.Error where the input may not end in a row, which it does."""
        if row.state == _QUOTED:
            raise csv.Error(NOT_ENDED)
        if self._escapes and "".join(row.written[-1:]) in (ESCAPE, "\\\n", "\\\r\n"):
            row.problem = row.problem or "the input ends after an escape"

    def _meaning(self, escaped: str) -> str | None:
        """Return what stands after a backslash, None if nothing writes it."""
        return self._letters.get(escaped) if escaped.isalnum() or not escaped else escaped


_PLAIN, _QUOTED, _CLOSED = range(3)


class _Row:
    """A row that is being read: its cells, the current one, and the first problem."""

    def __init__(self, missing: Collection[str | None], null: str | None) -> None:
        self.cells: list[str | None] = []
        self.problem = ""
        self.state = _PLAIN
        self.written: list[str] = []  # of the current cell, without its quotes
        self._means: list[str] = []
        self._holds_null = False
        self._missing, self._null = missing, null

    def add_text(self, text: str) -> None:
        if text and self.state == _CLOSED:
            self.problem = self.problem or AFTER_QUOTES
        if text:
            self.written.append(text)
            self._means.append(text)

    def add_escaped(self, token: str, means: str | None) -> None:
        self.written.append(token)
        self._means.append(means or "")
        self._holds_null |= token == NULL
        if means is None and token not in (ESCAPE, NULL):
            self.problem = self.problem or f"{token} is not an escape that is known"
        elif self.state == _CLOSED:
            self.problem = self.problem or f"{token} after '\"'"

    def add_quote(self) -> None:
        """Open, close or double quotes; or add one inside of a cell that does not begin with one."""
        if self.state == _QUOTED:
            self.state = _CLOSED
        elif self.state == _CLOSED or not self.written:
            self._means += ['"'] * (self.state == _CLOSED)
            self.written += ['"'] * (self.state == _CLOSED)
            self.state = _QUOTED
        else:
            self.add_text('"')

    def end_cell(self) -> None:
        written, means = "".join(self.written), "".join(self._means)
        missing = written in self._missing if self.state == _PLAIN else means == self._null
        if self._holds_null and not missing:
            self.problem = self.problem or f"{NULL} is only a part of a cell"
        self.cells.append(None if missing else means)
        self.state, self.written, self._means, self._holds_null = _PLAIN, [], [], False
