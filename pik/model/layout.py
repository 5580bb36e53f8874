"""How records lie in an input: the format, and what it leaves open."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from pik.errors import Invalid
from pik.model.log_lines import PATTERNS
from pik.model.record_path import path_text, read_path


class InputFormat(StrEnum):
    """How the records of an input are written."""

    JSONL = "jsonl"
    JSON = "json"
    CSV = "csv"
    TSV = "tsv"
    PARQUET = "parquet"
    TEXT = "text"
    KCAT = "kcat"


TABLES = frozenset({InputFormat.CSV, InputFormat.TSV})
"""Formats of rows under a header."""

WRITTEN_AS_JSON = frozenset({InputFormat.JSONL, InputFormat.JSON})
"""Formats whose records are JSON as they stand, so that they may be events without a mapping."""

READS = "what can be read: JSON lines, other JSON, CSV, TSV, Parquet, text by a --pattern, plain or compressed"

OPTIONS = ("input", "records", "pattern", "delimiter", "columns", "null", "quote", "escape", "encoding")
"""The options that describe a layout."""


NONE = "none"
"""Says that quotes, or backslashes, are characters like all others."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How records lie in an input; a `format` of None is recognized by the input's content and name.

    Of a table: `delimiter` stands between cells (None: the first rows tell), `columns` are the names of all where no
    header gives them, and a cell with just the text `null` is missing. `quote` is what cells may be enclosed in, a
    double quote or NONE (None: a double quote), `escape` what gives the next character another meaning, a backslash or
    NONE (None: nothing, but a line that ends in a backslash is not read). `pattern` is the regular expression of a line
    of text, or the name of one. `encoding` is that of the text. `records` is the path to the records in documents of
    JSON; `parents` are the fields of the objects around them that the mapping uses.
    """

    format: InputFormat | None = None
    records: str | None = None
    pattern: str | None = None
    delimiter: str | None = None
    columns: tuple[str, ...] = ()
    null: str | None = None
    quote: str | None = None
    escape: str | None = None
    encoding: str | None = None
    parents: frozenset[str] = frozenset()

    @property
    def is_table(self) -> bool:
        """Whether its format or one of its options says that it is a table."""
        said = (self.delimiter, self.null, self.quote, self.escape)
        return self.format in TABLES or any(self.columns) or any(one is not None for one in said)

    @property
    def given(self) -> dict[str, str]:
        """The options that say the same, by their names."""
        columns = ",".join(self.columns) or None
        texts = (self.format, self.records, self.pattern, self.delimiter, columns, self.null, self.quote, self.escape)
        pairs = zip(OPTIONS, (*texts, self.encoding), strict=True)
        return {name: str(text) for name, text in pairs if text is not None}

    @property
    def recorded(self) -> dict[str, str]:
        """What a batch records of it: nothing of JSON lines in UTF-8, as raw itself is."""
        return {name: text for name, text in self.given.items() if (name, text) != ("input", InputFormat.JSONL)}

    def __str__(self) -> str:
        """Return the options as they are typed."""
        return " ".join(f"--{name} {shlex.quote(text)}" for name, text in self.given.items())


AUTO = Layout()
PARQUET = Layout(InputFormat.PARQUET)
JSON_LINES = Layout(InputFormat.JSONL)
JSON_VALUES = Layout(InputFormat.JSON)

_OF_A_TABLE = ("delimiter", "columns", "null", "quote", "escape")


def read_layout(given: Mapping[str, str]) -> Layout:
    """Return the layout that options describe. Raises Invalid, which begins with the option's name."""
    name = given.get("input", "auto")
    if name not in ("auto", *InputFormat):
        raise Invalid(f"input {name}: unknown format", hint=f"auto, {', '.join(InputFormat)}")
    layout = Layout(
        _format(name, given),
        path_text(read_path(given["records"])) if "records" in given else None,
        given.get("pattern"),
        given.get("delimiter"),
        tuple(given["columns"].split(",")) if "columns" in given else (),
        given.get("null"),
        given.get("quote"),
        given.get("escape"),
        given.get("encoding"),
    )
    if layout.records is not None and layout.format != InputFormat.JSON:
        raise Invalid(f"records is for JSON, not for {layout.format}", hint="leave one of them out")
    if layout.pattern is not None and (layout.format != InputFormat.TEXT or any(one in given for one in _OF_A_TABLE)):
        raise Invalid("pattern is for text, not for tables or JSON", hint="leave one of them out")
    if layout.format == InputFormat.TEXT and layout.pattern is None:
        hint = f"pattern REGEX with groups (?P<NAME>…), or one of {', '.join(PATTERNS)}"
        raise Invalid("input text: no pattern tells what is on a line", hint=hint)
    if layout.format not in (None, *TABLES) and (wrong := [one for one in _OF_A_TABLE if one in given]):
        raise Invalid(f"{wrong[0]} is for tables, not for {layout.format}", hint="leave one of them out")
    _expect_quote_and_escape(layout)
    if layout.delimiter is not None and (len(layout.delimiter) != 1 or layout.delimiter in '"\r\n'):
        hint = "a semicolon: ';'; tabs: input tsv"
        raise Invalid(f"delimiter {layout.delimiter!r}: expected a character that is not a quote", hint=hint)
    if layout.format == InputFormat.TSV and layout.delimiter not in (None, "\t"):
        raise Invalid(f"delimiter {layout.delimiter!r} is not that of tsv", hint="input csv takes any")
    if twice := [one for one in layout.columns if layout.columns.count(one) > 1]:
        raise Invalid(f"columns: {twice[0]!r} comes twice", hint="each column has its own name")
    if layout.encoding is not None:
        if layout.format == InputFormat.PARQUET:
            raise Invalid("encoding is for text, not for parquet", hint="leave it out")
        _expect_encoding(layout.encoding)
    return layout


def _expect_quote_and_escape(layout: Layout) -> None:
    for name, text, character in (("quote", layout.quote, '"'), ("escape", layout.escape, "\\")):
        if text not in (None, NONE, character):
            raise Invalid(f"{name} {text!r}: unknown", hint=f"{name} {shlex.quote(character)}, or {name} {NONE}")
    if layout.escape == "\\" and layout.delimiter and (layout.delimiter == "\\" or layout.delimiter.isalnum()):
        raise Invalid(f"delimiter {layout.delimiter!r} does not go with an escape", hint="leave one of them out")


def _format(name: str, given: Mapping[str, str]) -> InputFormat | None:
    """Return the format of that name; a pattern says that it is text, and a path to records that it is JSON."""
    if "records" in given and name in ("auto", InputFormat.JSONL):
        return InputFormat.JSON  # documents one per line are documents one after the other
    if name == "auto":
        return InputFormat.TEXT if "pattern" in given else None
    return InputFormat(name)


def _expect_encoding(name: str) -> None:
    try:
        "a".encode(name)
    except LookupError:
        hint = "utf-8, utf-16, latin-1, cp1252, …: https://docs.python.org/3/library/codecs.html#standard-encodings"
        raise Invalid(f"encoding {name}: unknown encoding", hint=hint) from None
