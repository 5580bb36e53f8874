"""What the text of an input looks like: how its records lie, or in one sentence what it is, with the command that
converts it. json_shapes.py, table_shapes.py, log_shapes.py and notations.py recognize the kinds of text, binary.py what
is not text.

Only what is certain is refused, before anything is kept. Invalid lines are read, and rejected one by one.
"""

from __future__ import annotations

import re

from pik.inputs.advice import Advice, Shape, piped
from pik.inputs.csv_rows import table
from pik.inputs.encoding import expect_utf8
from pik.inputs.json_shapes import BULK_DOCUMENTS, is_action, recognize_values, recognize_wrapped
from pik.inputs.line_times import are_log_lines
from pik.inputs.list_records import rows
from pik.inputs.log_shapes import (
    event_format,
    fields_line,
    has_comma_in_time,
    in_colour,
    is_in_brackets,
    is_spaced_table,
    line_protocol,
    log_shape,
    named_values,
    plain_lines,
    quoted_words,
    usual_log,
)
from pik.inputs.long_delimiters import unit_separated
from pik.inputs.notations import SQL_ROWS, as_ruby, assigned, commented, drawn_table, written_otherwise
from pik.inputs.prefixed_json import are_prefixed, cells_before, consumed, object_of, prefixed
from pik.inputs.several_lines import headed_json, several_lines, sql_values
from pik.inputs.table_shapes import recognize_table, table_without_header
from pik.model.layout import JSON_LINES, JSON_VALUES, InputFormat, Layout
from pik.model.log_lines import PATTERNS

_LINES = 100
"""Lines that are looked at for their encoding, at most."""


def recognize(head: bytes, name: str, *, whole: bool, mapped: bool) -> Layout | Shape:
    """Return how records lie in a text, by its head and its name, or what it looks like where it cannot be read. Raises
    UsageError for a log or a table in another encoding.

    `whole`: the head is all of it; `mapped`: any JSON object is a record.
    """
    head = head.removeprefix(b"\xef\xbb\xbf")
    text = head.decode(errors="replace")
    lines = text.split("\n") if whole else text.split("\n")[:-1]
    filled = [line for line in lines if line.strip()]
    start = text.lstrip()
    if not start:
        return JSON_LINES
    apart = (
        in_colour(filled)
        or as_ruby(filled)
        or headed_json(filled)
        or (rows(start, filled) if start[0] == "[" else None)
    )
    if apart is not None:
        return Shape(*apart)
    in_brackets = is_in_brackets(filled)
    if (start[0] == "[" and not in_brackets) or text.lstrip(" \t\r\n")[0] == "\x1e":
        return JSON_VALUES  # an array is read, or complained about, element by element
    if start.startswith("<") and not _names_in_brackets(filled):
        syslog = usual_log(filled)
        log = log_shape(filled)
        found = Shape(*syslog) if syslog else _markup(start) or _prefixed(filled, text, whole)
        return found or (Shape(*log) if log else JSON_LINES)
    if start.startswith("{"):
        values = recognize_values(text.strip(), filled, whole=whole, mapped=mapped)
        if values is not None:
            return values
    if (around_json := commented(filled) or assigned(filled)) is not None:
        return Shape(*around_json)
    if len(filled) > 1 and all(map(_before_comma, filled[:-1])):
        return Shape("JSON lines with a comma after each", piped("sed 's/,[[:space:]]*$//' {file}"))
    objects = (record for line in filled if (record := object_of(line)) is not None)
    first = next(objects, None)
    if first is not None and is_action(first) and (first := next(objects, None)) is not None and not is_action(first):
        return Shape("the body of a bulk request of Elasticsearch", BULK_DOCUMENTS)
    if first is not None:
        return (None if mapped else recognize_wrapped(first, objects, filled, whole)) or JSON_LINES
    around = SQL_ROWS if sql_values(start) else written_otherwise(filled)
    if around is None and start.startswith("{"):
        return JSON_LINES
    around = around or drawn_table(filled) or fields_line(filled) or line_protocol(filled) or event_format(filled)
    around = around or unit_separated(text)
    if around is not None:
        return Shape(*around)
    is_log = in_brackets or has_comma_in_time(filled) or are_log_lines(filled)
    found = _prefixed(filled, text, whole) or _usual(filled) or (None if is_log else recognize_table(text, name, whole))
    found = found or _log(text, filled)
    if isinstance(found, Shape) and not text.isascii():
        expect_utf8((head if whole else head[: head.rfind(b"\n") + 1]).splitlines()[:_LINES], name)
    return found or JSON_LINES


def _names_in_brackets(filled: list[str]) -> bool:
    """Return whether a table begins, whose names are in angle brackets, as MetaTrader writes them: it is not XML."""
    first = filled[0].strip(" ") if filled else ""  # none is known to its end
    is_table = re.fullmatch(r"<[\w ./%-]+>(?:([\t,;|])<[\w ./%-]+>(?:\1<[\w ./%-]+>)*)\r?", first)
    return is_table is not None and not any(line.lstrip().startswith("<") for line in filled[1:])


def _before_comma(line: str) -> bool:
    """Return whether a line is an object and a comma, as inside of an array."""
    return line.rstrip().endswith("},") and object_of(line.rstrip()[:-1]) is not None


def _markup(start: str) -> Shape | None:
    if re.match(r"<(!doctype html|html)\b", start, re.IGNORECASE):
        return Shape("an HTML page", Advice("perhaps an error page in place of the data: head {file}"))
    if re.match(r"<(\?xml|!DOCTYPE|!--|[A-Za-z_][\w:.-]*[\s/>])", start):
        elements = piped("xq -c '.ROOT.ELEMENT[]' {file}", "turn its elements into JSON lines: ", guess=True)
        return Shape("XML", elements)
    return None


def _prefixed(filled: list[str], text: str, whole: bool) -> Layout | Shape | None:
    """Recognize an object on each line after something else, such as the key and the tab that kcat -K prints."""
    if not are_prefixed(filled):
        return None
    if (printed := consumed(filled)) is not None:
        return Shape(*printed)
    if (several := cells_before(filled)) is not None:
        delimiter, cells = several
        return table_without_header(delimiter, cells, text, whole) if cells else None
    found = prefixed(filled)
    return found if isinstance(found, Layout) else Shape(*found)


def _usual(filled: list[str]) -> Layout | None:
    """Recognize lines of web servers and other usual logs."""
    for name, pattern in PATTERNS.items():
        if filled and all(re.fullmatch(pattern, line.rstrip("\r"), re.ASCII) for line in filled[:20]):
            return Layout(InputFormat.TEXT, pattern=name)
    return None


def _log(text: str, filled: list[str]) -> Layout | Shape | None:
    """Recognize lines of text: of logs, of words in columns, and plain ones."""
    if is_spaced_table(filled):
        return table(" ")
    found = (
        quoted_words(filled)
        or named_values(filled)
        or several_lines(text, filled)
        or usual_log(filled)
        or log_shape(filled)
        or plain_lines(filled)
    )
    return found and Shape(*found)
