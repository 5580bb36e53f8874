"""What an input looks like that is not JSON lines, in one sentence, with the command that converts it.

Only what is certain is refused, before anything is kept. Invalid lines are read, and rejected one by one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain

from pik.errors import InputError, number_of
from pik.inputs.advice import STANDARD_INPUT, Advice, Option, Read, piped, read_with
from pik.inputs.csv_rows import DELIMITERS, WITH_LINE_FEEDS, delimiter_of, head_rows, table
from pik.inputs.dialect import with_dialect
from pik.inputs.divided_rows import ESCAPE
from pik.inputs.document_lists import lists_in
from pik.inputs.encoding import expect_utf8, shown_encoding
from pik.inputs.header import is_header
from pik.inputs.keyed_records import keyed_records
from pik.inputs.list_records import rows, rows_in
from pik.inputs.log_shapes import (
    SQL_ROWS,
    assigned,
    commented,
    drawn_table,
    event_format,
    fields_line,
    has_comma_in_time,
    is_in_brackets,
    is_spaced_table,
    line_protocol,
    log_shape,
    named_values,
    plain_lines,
    quoted_words,
    written_otherwise,
)
from pik.inputs.long_delimiters import long_delimiter, unit_separated
from pik.inputs.prefixed_json import are_prefixed, cells_before, consumed, object_of, prefixed
from pik.inputs.several_lines import headed_json, several_lines, sql_values
from pik.model.event import FIELDS, REQUIRED
from pik.model.layout import AUTO, JSON_LINES, JSON_VALUES, NONE, READS, InputFormat, Layout
from pik.model.log_lines import PATTERNS
from pik.model.record_path import path_text

_AS_CSV, _UTF_16 = Advice("save its table as CSV"), Advice((Read((Option("encoding", "utf-16"),)),))

_OF_R = "Rscript -e 'write.csv(readRDS(commandArgs(TRUE)), row.names=FALSE)' {stored}"
_OF_PANDAS = Advice("to_json(FILE, orient='records', lines=True) of pandas writes what is in it as JSON lines")

_MAGIC = {
    b"Obj\x01": ("an Avro file", piped("avro-tools tojson {file}")),
    b"ORC": ("an ORC file", piped("orc-contents {file}")),
    b"PK\x03\x04": ("a zip archive or a spreadsheet", piped("unzip -p {file}")),
    b"\x04\x22\x4d\x18": ("compressed with lz4", piped("lz4 -dc {file}")),
    b"\x1f\x9d": ("compressed with compress", piped("gzip -dc {file}")),
    b"\x5d\0\0": ("compressed with lzma", piped("xz -dc {file}")),
    b"\xff\x06\0\0sNaPpY": ("compressed with Snappy", piped("snzip -dc {file}")),
    b"7z\xbc\xaf\x27\x1c": ("a 7z archive", piped("7z x -so {file}")),
    b"SQLite format 3\0": ("a SQLite database", piped("sqlite3 -csv -header {file} 'SELECT * FROM TABLE'", guess=True)),
    b"Rar!\x1a\x07": ("a RAR archive", piped("unrar p -inul {file}")),
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": ("an old Excel workbook or another office document", _AS_CSV),
    b"ARROW1": ("an Arrow file", Advice("duckdb, or Python with pyarrow, writes it as JSON lines")),
    b"FEA1": ("a Feather file", _OF_PANDAS),
    b"\x89HDF\r\n\x1a\n": ("an HDF5 file", _OF_PANDAS),
    b"\x80\x03": ("a pickle of Python", _OF_PANDAS),
    b"\x80\x04\x95": ("a pickle of Python", _OF_PANDAS),
    b"\x80\x05\x95": ("a pickle of Python", _OF_PANDAS),
    b"X\n\0\0\0": ("data that R saved", piped(_OF_R, guess=True)),
    b"%PDF-": ("a PDF document", Advice("export what it shows as CSV or JSON where it comes from")),
    b"\xff\xfe": ("UTF-16", _UTF_16),
    b"\xfe\xff": ("UTF-16", _UTF_16),
}  # fmt: skip
_MAGICS = tuple(_MAGIC)

_ZLIB = b"x\x01", b"x\x9c", b"x\xda"  # where there are zeros, too

_PREAMBLE = 30
"""Lines before a table that are looked past, at most."""

_FEWEST = 2
"""Names, and rows, of a table whose header does not fit, at least."""

_LINES = 100
"""Lines that are looked at for their encoding, at most."""

_SEP = "sep="
"""How Excel's line about the delimiter begins."""

_BEFORE = _SEP, "#", '"'
"""How such lines begin, whatever the file's name."""

_raw_decode = json.JSONDecoder().raw_decode


@dataclass(frozen=True, slots=True)
class Shape:
    """What an input looks like, and what reads it."""

    what: str
    hint: Advice

    def error(self, name: str) -> InputError:
        """Return the error for the input of that name."""
        return InputError(f"{name} cannot be read: it looks like {self.what}", hint=self.hint.of(name))


def refuse_binary(head: bytes, name: str) -> None:
    """Raise InputError for binary data, by its first bytes. Runs of NUL bytes are text: a disk may have left them in a
    log."""
    if head.startswith(_MAGICS):
        what, hint = next(shape for magic, shape in _MAGIC.items() if head.startswith(magic))
        raise Shape(what, hint).error(name)
    if b"\0" not in head and head[257:262] != b"ustar":
        return
    if (encoding := shown_encoding(head)) is not None:
        what = f"{encoding.upper()} without a byte order mark"
        raise Shape(what, Advice((Read((Option("encoding", encoding),)),))).error(name)
    if head[257:262] == b"ustar":
        raise Shape("a tar archive", piped("tar -xOf {file}")).error(name)
    text = head.replace(b"\0", b"")
    if head.startswith(_ZLIB):
        raise Shape("compressed with zlib", piped("pigz -dc < {file}")).error(name)
    if len(text) < len(head) and (re.search(rb"[\x01-\x08\x0e-\x1a\x1c-\x1f\x7f]", text) or not _is_utf8(text)):
        raise InputError(f"{name} is a binary file, not JSON lines", hint=READS)


def _is_utf8(text: bytes) -> bool:
    try:
        text[:-3].decode()
    except UnicodeDecodeError as error:
        return error.start >= len(text) - 6  # the head may end inside of a character
    return True


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
    apart = headed_json(filled) or (rows(start, filled) if start[0] == "[" else None)
    if apart is not None:
        return Shape(*apart)
    in_brackets = is_in_brackets(filled)
    if (start[0] == "[" and not in_brackets) or text.lstrip(" \t\r\n")[0] == "\x1e":
        return JSON_VALUES  # an array is read, or complained about, element by element
    if start.startswith("<") and not _names_in_brackets(filled):
        syslog = log_shape(filled)
        return Shape(*syslog) if syslog else _markup(start) or _prefixed(filled, text, whole) or JSON_LINES
    if start.startswith("{") and (found := _values(text.strip(), filled, whole=whole, mapped=mapped)) is not None:
        return found
    if (around_json := commented(filled) or assigned(filled)) is not None:
        return Shape(*around_json)
    if len(filled) > 1 and all(map(_before_comma, filled[:-1])):
        return Shape("JSON lines with a comma after each", piped("sed 's/,[[:space:]]*$//' {file}"))
    objects = (record for line in filled if (record := object_of(line)) is not None)
    first = next(objects, None)
    if first is not None and _is_action(first) and (first := next(objects, None)) is not None and not _is_action(first):
        return Shape("the body of a bulk request of Elasticsearch", _DOCUMENTS)
    if first is not None:
        return (None if mapped else _wrapped(first, objects, filled, whole)) or JSON_LINES
    around = SQL_ROWS if sql_values(start) else written_otherwise(filled)
    if around is None and start.startswith("{"):
        return JSON_LINES
    around = around or drawn_table(filled) or fields_line(filled) or line_protocol(filled) or event_format(filled)
    around = around or unit_separated(text)
    if around is not None:
        return Shape(*around)
    is_log = in_brackets or has_comma_in_time(filled)
    found = _prefixed(filled, text, whole) or _usual(filled) or (None if is_log else _table(text, name, whole))
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


_ACTIONS = ["index", "create", "update", "delete"]
_DOCUMENTS = piped(
    f"jq -c 'select(keys - {json.dumps(_ACTIONS)} != [])' {{file}}", "its documents without the actions: ", guess=True
)


def _is_action(found: dict[str, object]) -> bool:
    """Return whether an object says what to do with the document on the next line."""
    [of] = found.values() if len(found) == 1 else [None]
    return found.keys() <= set(_ACTIONS) and isinstance(of, dict) and any(name.startswith("_") for name in of)


def _markup(start: str) -> Shape | None:
    if re.match(r"<(!doctype html|html)\b", start, re.IGNORECASE):
        return Shape("an HTML page", Advice("perhaps an error page in place of the data: head {file}"))
    if re.match(r"<(\?xml|!DOCTYPE|!--|[A-Za-z_][\w:.-]*[\s/>])", start):
        elements = piped("xq -c '.ROOT.ELEMENT[]' {file}", "turn its elements into JSON lines: ", guess=True)
        return Shape("XML", elements)
    return None


def _wrapped(
    first: dict[str, object], others: Iterator[dict[str, object]], filled: list[str], whole: bool
) -> Shape | None:
    """Recognize a single object around the records, or what kcat -J puts around each."""
    if all({"topic", "partition", "offset", "payload"} <= one.keys() for one in chain([first], others)):
        sent = object_of(first["payload"]) if isinstance(first["payload"], str) else None
        return None if sent is None else Shape("the output of kcat -J", _of_kcat(sent))
    return None if not whole or len(filled) > 1 else _around(first, "one object around the records")


def _of_kcat(sent: dict[str, object]) -> Advice:
    """Return the command that maps what kcat -J prints: the fields of an event in its payload, and in the place of
    those that are not there what Kafka knows."""
    known = {"source": "topic", "event_type": "topic", "entity_id": "key", "event_time": "ts"}
    words = []
    for field in FIELDS:
        value = f"parse_json(payload).{field}" if field in sent else known.get(field)
        value = "parse_json(payload)" if field == "payload" and field not in sent else value
        words += ["--map", f"{field}={value}"] if value else []
    words += [] if "event_time" in sent else ["--time-format", "event_time=epoch_ms"]
    return Advice((read_with(*words),))


def _around(found: dict[str, object], what: str) -> Shape | None:
    if any(name in found for name in REQUIRED):
        return None
    if (listed := rows_in(found) or keyed_records(found)) is not None:
        return Shape(*listed)
    lists = list(lists_in(found))
    if len(lists) > 1:
        paths = ", ".join(map(path_text, lists[:_LISTS]))
        known = f"it has {number_of(len(lists), 'list')}, {paths}: `"
        return Shape(what, Advice((known, Read(guess=True), "` proposes one")))
    if not lists:
        return None
    return Shape(what, Advice((Read((Option("records", path_text(lists[0])),)),)))


_LISTS = 5
"""Lists that are named, at most."""


def cut_object(text: str) -> dict[str, object] | None:
    """Return what is whole of an object that a text begins with, and that goes on after the text."""
    opened: list[str] = []
    end, closing = 0, ""
    for found in re.finditer(r'"(?:[^"\\]|\\.)*"|[{}\[\]]', text):
        if found[0] in ("{", "["):
            opened.append("}" if found[0] == "{" else "]")
        elif found[0] in ("}", "]"):
            if not opened or opened.pop() != found[0] or not opened:
                return None
            end, closing = found.end(), "".join(reversed(opened))
    return object_of(text[:end] + closing) if end else None


def first_object(text: str) -> dict[str, object] | None:
    """Return the object that a text begins with, or what is whole of one that is cut; None if it begins otherwise."""
    start = text.lstrip("\ufeff \t\r\n\x1e[")
    if not start.startswith("{"):
        return None
    try:
        found, _ = _raw_decode(start)
    except (ValueError, RecursionError):
        return cut_object(start)
    return found if isinstance(found, dict) else None


def _values(text: str, filled: list[str], *, whole: bool, mapped: bool) -> Layout | Shape | None:
    """Recognize objects that are not one per line: several on one, or one over several. `text` may be cut."""
    try:
        found, end = _raw_decode(text)
    except ValueError:
        # A brace, a line break and a key, and then too much to see the end. If another line begins an object, the first
        # is merely broken.
        opened = re.match(r"\{\s*\n\s*(\"|\})", text)
        broken = any(line.startswith("{") and object_of(line) is not None for line in filled[1:])
        if not (whole or mapped or broken) and (found := cut_object(text)) is not None:
            around = _around(found, "one object around the records")
            if around is not None:
                return around
        return JSON_VALUES if opened and not broken else None
    except RecursionError:
        return None
    first, rest = text[:end], text[end:].lstrip(" \t\r")
    if "\n" in first:
        around = None if mapped or rest.strip() else _around(found, "one pretty-printed object around the records")
        return around or JSON_VALUES
    return JSON_VALUES if rest[:1] in ("{", "\x1e") else None


def _prefixed(filled: list[str], text: str, whole: bool) -> Layout | Shape | None:
    """Recognize an object on each line after something else, such as the key and the tab that kcat -K prints."""
    if not are_prefixed(filled):
        return None
    if (printed := consumed(filled)) is not None:
        return Shape(*printed)
    if (several := cells_before(filled)) is not None:
        delimiter, cells = several
        return _without_header(delimiter, cells, text, whole) if cells else None
    found = prefixed(filled)
    return found if isinstance(found, Layout) else Shape(*found)


def _table(text: str, name: str, whole: bool) -> Layout | Shape | None:
    """Recognize rows of as many cells: a header and a row, or three rows; and any text that is named .csv or .tsv."""
    delimiter, rows = (None, []) if text.startswith(_SEP) else _rows(text, whole)
    if delimiter is not None and any(any(row[1:]) for row in rows):  # others are statements, of SQL or of C
        first, *others = rows
        if "\n" not in text and "\r" in text.rstrip():
            what = f"{_format(delimiter)} whose lines end in a carriage return alone"
            return Shape(what, piped(WITH_LINE_FEEDS, guess=True))
        if is_header(first, others):
            return table(delimiter)
        if text.startswith("#") and (later := _after_lines(text, whole)) is not None:
            return later
        if len(others) > 1:
            apart = long_delimiter(text.split("\n")[:-1])
            return Shape(*apart) if apart else _without_header(delimiter, len(first), text, whole)
    named = re.search(r"\.(csv|tsv)(\.\w+)?$", name.lower())
    looked_past = named or name == STANDARD_INPUT or text.startswith(_BEFORE)
    if delimiter is None and looked_past and (later := _after_lines(text, whole)) is not None:
        return later
    if delimiter is None and (odd := _odd_header(text, whole)) is not None:
        return odd
    usual = "\t" if named and named[1] == "tsv" else ","
    divided = (head_rows(text, mark, whole=whole) for mark in DELIMITERS if mark != usual)
    if delimiter is None and any(len(rows) > 1 and min(map(len, rows)) > _FEWEST for rows in divided):
        return None  # of several cells, by another delimiter, and never as many: a pattern reads them
    return table(usual) if named else None


def _after_lines(text: str, whole: bool) -> Shape | None:
    """Recognize a table after some lines of another kind: what Excel's `sep=;` or a report's title are."""
    for number in range(1, _PREAMBLE + 1):
        text = text.partition("\n")[2]
        delimiter = delimiter_of(text, whole=whole)
        first, *others = head_rows(text, delimiter, whole=whole) if delimiter is not None else [[]]
        if delimiter is not None and is_header(first, others):
            what = f"{_format(delimiter)} after {number_of(number, 'other line')}"
            rest = Read(_options(table(delimiter)), f"tail -n +{number + 1} {{file}}", guess=True)
            return Shape(what, Advice(("cut off what is not of the table: ", rest)))
    return None


def _odd_header(text: str, whole: bool) -> Shape | None:
    """Recognize a table whose header has one name less, or more, than each row has cells: of rows that end in a
    delimiter, or a header that does, or rows whose numbers have no name, as R writes them."""
    for delimiter in DELIMITERS:
        first, *others = head_rows(text, delimiter, whole=whole) or [[]]
        cells = {*map(len, others)}
        if len(others) < _FEWEST or len(first) < _FEWEST or len(cells) > 1 or not is_header(first):
            continue
        more = min(cells) - len(first)
        mark = delimiter.replace("\t", r"\t")
        if more == 1:
            edit = f"^/{mark}" if any(row[-1] for row in others) else rf"(\r?)$/{mark}\1"
        elif more == -1 and not first[-1].strip():
            edit = rf"[{mark}](\r?)$/\1"
        else:
            continue
        what = f"{_format(delimiter)} whose header has {len(first)} names, and whose rows have {min(cells)} cells"
        rest = Read(convert=f"sed -E '1s/{edit}/' {{file}}", guess=True)
        return Shape(what, Advice(("with a header of as many: ", rest)))
    return None


def _format(delimiter: str) -> str:
    return str(table(delimiter).format).upper()


def _rows(text: str, whole: bool) -> tuple[str | None, list[list[str]]]:
    """Return the delimiter of a table and its first rows, which may have escapes; None where it is not one."""
    for layout in (AUTO, _UNQUOTED, _ENCLOSED):
        delimiter = delimiter_of(text, layout, whole=whole)
        if delimiter is None or (layout == _UNQUOTED and delimiter != "\t"):
            continue
        rows = head_rows(text, delimiter, layout, whole=whole)
        if layout != _ENCLOSED or ('\\"' in text and is_header(rows[0], rows[1:])):
            return delimiter, rows
    return None, []


_UNQUOTED, _ENCLOSED = Layout(quote=NONE, escape=ESCAPE), Layout(escape=ESCAPE)


def _without_header(delimiter: str, cells: int, text: str, whole: bool) -> Shape:
    layout = replace(table(delimiter), columns=tuple(f"c{number}" for number in range(1, cells + 1)))
    named = Read(_options(with_dialect(layout, text.encode(), whole)), guess=True)
    names = "if its first row has the names, add ", Option("input", str(layout.format))
    return Shape(f"{_format(delimiter)} without a header", Advice(names, ("else name its columns: ", named)))


def _options(layout: Layout) -> tuple[Option, ...]:
    return tuple(Option(name, text) for name, text in layout.given.items())


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
        or log_shape(filled)
        or plain_lines(filled)
    )
    return found and Shape(*found)
