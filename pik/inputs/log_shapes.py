"""What lines of text look like, and what to type to read them: logs, words in columns, plain lines.

Each answer is a sentence and a hint.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping, Sequence

from pik.inputs.advice import Advice, Option, Read, piped, read_with
from pik.inputs.line_times import log_lines
from pik.model.jmes import quoted

Shape = tuple[str, Advice]

_PLACES = {"source": "COLUMN", "event_type": "COLUMN", "entity_id": "COLUMN", "event_time": "COLUMN", "payload": "@"}

_REQUEST = r'"(?P<request>(?:[^"\\]|\\.)*)" (?P<status>\d+) (?P<bytes>\S+)'

_OF_SYSLOG = r"(?P<time>[A-Z][a-z]{2} +\d+ \d\d:\d\d:\d\d) (?P<host>\S+)"
_TIMES_OF_SYSLOG = "--time-format", "%Y %b %d %H:%M:%S", "--timezone", "ZONE"
_WITH_YEAR = {"event_time": "join(' ', ['YEAR', time])"}

_LINES: Sequence[tuple[str, dict[str, str], Sequence[str]]] = (
    (
        (
            r"(?:\d+ )?<(?P<priority>\d+)>1 (?P<time>\S+) (?P<host>\S+) (?P<app>\S+) (?P<process>\S+) (?P<id>\S+)"
            r" (?P<text>.*)"
        ),
        {"source": "host", "event_type": "app", "entity_id": "host"},
        (),
    ),
    (
        r"(?P<time>\d{4}-\d\d-\d\dT\S+) (?P<stream>stdout|stderr) (?P<tag>[FP]) (?P<text>.*)",
        {"event_type": "stream"},
        (),
    ),
    (
        rf"{_OF_SYSLOG} (?P<app>[^\s:\[\]]+)(?:\[(?P<process>\d+)\])?: (?P<text>.*)",
        {"source": "host", "event_type": "app", "entity_id": "host", **_WITH_YEAR},
        _TIMES_OF_SYSLOG,
    ),
    (rf"{_OF_SYSLOG} (?P<text>.*)", {"source": "host", "entity_id": "host", **_WITH_YEAR}, _TIMES_OF_SYSLOG),
    (
        rf"(?P<host>\S+) (?P<ident>\S+) (?P<user>\S+) \[(?P<time>[^\]]+)\] {_REQUEST}(?P<more>.*)",
        {"event_type": "status", "entity_id": "host"},
        ("--time-format", "apache"),
    ),
    (
        r"(?P<host>\S+) (?P<ident>\S+) (?P<user>\S+) \[(?P<time>\d\d/[A-Z][a-z]{2}/\d{4}:[^\]]+)\] (?P<text>.*)",
        {"entity_id": "host"},
        ("--time-format", "apache"),
    ),
    (
        (
            r"\[?(?P<time>\d\d?[/.]\d\d?[/.]\d{2,4}, \d\d?:\d\d(?::\d\d)?(?: [AP]M)?)(?:\]| -) "
            r"(?:(?P<from>[^:]+): )?(?P<text>.*)"
        ),
        {"entity_id": "from"},
        (),
    ),
)
"""Patterns of logs, the first that fits is taken, with fields that are known and options that they need."""

_BRACKETS = r"\[(?P<before>[^\]]*)\]\s*(?P<text>.*)"

_CELLS = 4
_ROWS = 20


def usual_log(filled: Sequence[str]) -> Shape | None:
    """Recognize lines of text as syslog, container engines and web servers write them."""
    lines = [line.rstrip("\r") for line in filled[:2]]
    if len(lines) < 2:
        return None
    for pattern, known, options in _LINES:
        if all(re.fullmatch(pattern, line, re.ASCII) for line in lines):
            maps = {**_PLACES, "event_time": "time", **known}
            return "a text log", _parts_of_a_line("--pattern", pattern, *_words(maps), *options)
    return None


def log_shape(filled: Sequence[str]) -> Shape | None:
    """Recognize lines of text of which most have a time near their beginning, or else something in brackets."""
    if (timed := log_lines(filled)) is not None:
        command = read_with("--pattern", timed.pattern, *_words({**_PLACES, **timed.maps}), *timed.options)
        if timed.has_day:
            return "a text log", Advice(("name the parts of a line: ", command))
        day = "if all of it is of one day, put that, such as 2026-03-02, in the place of DAY: "
        return "a text log whose times have no day", Advice((day, command))
    if len(filled) > 1 and all(re.fullmatch(_BRACKETS, line.rstrip("\r")) for line in filled[:2]):
        maps = {**_PLACES, "event_time": "COLUMN"}
        return "a text log", _parts_of_a_line("--pattern", _BRACKETS, *_words(maps))
    return None


def in_colour(filled: Sequence[str]) -> Shape | None:
    """Recognize text that has what makes a terminal show colours."""
    if not any(map(_COLOUR.search, filled[:_ROWS])):
        return None
    without = piped(r"perl -pe 's/\e\[[\d;]*m//g' {file}", "without them: ", guess=True)
    return "text with the colours of a terminal", without


_COLOUR = re.compile(r"\x1b\[[\d;]*m")


def is_in_brackets(filled: Sequence[str]) -> bool:
    """Return whether each line is a text that begins with something in brackets, not an array of JSON."""
    return len(filled) > 1 and all(map(_IN_BRACKETS.match, filled[:_ROWS])) and not _are_values(filled[0])


_IN_BRACKETS = re.compile(r"""\[(?!\s*["{\[\]])[^\]]*\]\s*[^\s,\]]""")


def _are_values(line: str) -> bool:
    """Return whether a line is one value of JSON after the other."""
    try:
        while line:
            _, end = _raw_decode(line)
            line = line[end:].lstrip()
    except (ValueError, RecursionError):
        return False
    return True


_raw_decode = json.JSONDecoder().raw_decode


def has_comma_in_time(filled: Sequence[str]) -> bool:
    """Return whether lines begin with a time that has a comma before its fraction, as Python and log4j write it, or
    after its day, as chats do; not all of them, as some may go on with the one above."""
    return len(filled) > 1 and all(map(_COMMA_IN_TIME.match, filled[:2]))


_COMMA_IN_TIME = re.compile(
    r"\[?(?:\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d,\d{3}[Z\s\]]|\d\d?[/.]\d\d?[/.]\d{2,4}, \d\d?:\d\d[^-,\]]*(?:\] | - ))"
)


def event_format(filled: Sequence[str]) -> Shape | None:
    """Recognize the Common Event Format, and what is like it, of devices for security."""
    for name, parts in _EVENT_FORMATS.items():
        cells = "".join(rf"\|(?P<{part}>(?:[^|\\]|\\.)*)" for part in parts)
        pattern = rf"(?P<before>.*?){name}:(?P<{name.lower()}>[\d.]+){cells}\|"
        timed = pattern + r"(?P<fields>(?:.*\s)?rt=(?P<rt>\d+)(?:\s.*)?)"
        lines = [line.rstrip("\r") for line in filled[:_ROWS]]
        maps = {**_PLACES, "source": "product", "event_type": "name" if "name" in parts else "id"}
        if lines and all(re.fullmatch(timed, line) for line in lines):
            words = ("--pattern", timed, *_words({**maps, "event_time": "rt"}), "--time-format", "epoch_ms")
            return f"{name} of devices for security", _parts_of_a_line(*words)
        if lines and all(re.match(pattern, line) for line in lines):
            words = ("--pattern", f"{pattern}(?P<fields>.*)", *_words(maps))
            return f"{name} of devices for security", _parts_of_a_line(*words)
    return None


_EVENT_FORMATS = {
    "CEF": ("vendor", "product", "release", "class", "name", "severity"),
    "LEEF": ("vendor", "product", "release", "id"),
}


def named_values(filled: Sequence[str]) -> Shape | None:
    """Recognize logfmt, and the assignments that gron prints."""
    if len(filled) > 1 and all(_LOGFMT.fullmatch(line.strip()) for line in filled[:_ROWS]):
        return "logfmt", piped(f"jq -Rc '{_PAIRS}' {{file}}", guess=True)
    if len(filled) > 1 and all(_GRON.fullmatch(line.strip()) for line in filled[:_ROWS]):
        return "what gron prints", piped("gron --ungron {file}")
    return None


_GRON = re.compile(r"json[.\[\w\]\"-]* = .*;")

_LOGFMT = re.compile(r'[^\s="{]+=(?:"(?:[^"\\]|\\.)*"|[^\s"]*)(?:\s+[^\s="{]+=(?:"(?:[^"\\]|\\.)*"|[^\s"]*))+')

_PAIRS = (
    r"""[scan("([^\\s=]+)(?:=(\"(?:[^\"\\\\]|\\\\.)*\"|\\S*))?")"""
    r""" | {(.[0]): (.[1] | if . == null then true elif startswith("\"") then (fromjson? // .) else . end)}]"""
    " | add // empty"
)
"""What makes an object of a line in jq. A name without a value is true; a text that is not JSON stays as it is."""


def fields_line(filled: Sequence[str]) -> Shape | None:
    """Recognize logs whose fields are named in a comment: the extended format of the W3C, of CloudFront and of IIS, and
    that of Zeek."""
    if not filled or not filled[0].startswith("#"):
        return None
    comments = dict(line.rstrip("\r").partition("\t")[::2] for line in filled[:_ROWS] if line.startswith("#"))
    if "#fields" in comments:
        return "a log that names its fields in a comment, as Zeek writes it", _of_zeek(comments)
    named = next((line.rstrip("\r") for line in filled[:_ROWS] if line.startswith("#Fields:")), None)
    if named is None:
        return None
    fields = named.removeprefix("#Fields:").split()
    rows = [line.rstrip("\r") for line in filled[:_ROWS] if not line.startswith("#")]
    is_tsv = "\t" in "".join(rows[:1])
    layout = ("--input", "tsv") if is_tsv else ("--input", "csv", "--delimiter", " ")
    cells = [row.split("\t" if is_tsv else " ") for row in rows]
    at = {"event_time": "join(' ', [date, time])"} if {"date", "time"} <= set(fields) else {}
    words = (
        *layout,
        "--columns",
        ",".join(fields),
        *_words({**_PLACES, **at, **_known_of_w3c(fields, cells)}),
        "--timezone",
        "UTC",
    )
    return "an extended log of the W3C", Advice(("its lines of comments will be rejected: ", read_with(*words)))


_OF_W3C = {
    "source": ("s-computername", "s-sitename", "cs-host", "cs(Host)", "x-host-header", "s-ip"),
    "event_type": ("sc-status", "cs-method", "x-event"),
    "entity_id": ("c-ip", "cs-username"),
}
"""Names of the W3C that fit a field of events; of several only a person knows which, except of types, the first."""


def _known_of_w3c(fields: Sequence[str], rows: Sequence[Sequence[str]]) -> dict[str, str]:
    """Return the expressions of fields of events for which the names and the first rows leave one choice."""
    unsaid = {name for name, *values in zip(fields, *rows, strict=False) if set(values) == {"-"}}
    fit = {field: [one for one in usual if one in fields and one not in unsaid] for field, usual in _OF_W3C.items()}
    return {
        field: quoted(found[0]) for field, found in fit.items() if found and (len(found) == 1 or field == "event_type")
    }


def _of_zeek(comments: Mapping[str, str]) -> Advice:
    columns = ",".join(comments["#fields"].split("\t"))
    layout = {"input": "tsv", "columns": columns, "null": comments.get("#unset_field", "-"), "quote": "none"}
    options = tuple(Option(name, value) for name, value in layout.items())
    return Advice(("its rows alone: ", Read(options, "grep -v '^#' {file}", guess=True)))


def is_spaced_table(filled: Sequence[str]) -> bool:
    """Return whether each line has as many words as the first one, which has names where others have numbers, as VPC
    flow logs."""
    header, *rows = [line.split() for line in filled[: _ROWS + 1]] or [[]]
    return (
        len(header) >= _CELLS
        and bool(rows)
        and " ".join(header) == filled[0].rstrip("\r")
        and all(re.fullmatch(r"[a-z][\w-]*", name) for name in header)
        and all(len(row) == len(header) for row in rows)
        and any(all(row[number].isdigit() for row in rows) for number in range(len(header)))
    )


def quoted_words(filled: Sequence[str]) -> Shape | None:
    """Recognize words with a blank between, in quotes where they are texts: what write.table of R writes."""
    header, *lines = [line.rstrip("\r") for line in filled[: _ROWS + 1]] or [""]
    names = re.findall('"([^"]*)"', header)
    if len(names) < 2 or not lines or header != " ".join(f'"{name}"' for name in names):
        return None
    widths = {len(row) for row in csv.reader(lines, delimiter=" ")}
    what, in_r = (
        "words with a blank between, in quotes, as R writes them",
        "write.csv in R writes what is read as it is",
    )
    words = ("--input", "csv", "--delimiter", " ")
    if widths == {len(names)}:
        return what, Advice((read_with(*words, guess=True),), in_r)
    if widths != {len(names) + 1}:
        return None
    named = read_with(*words, "--columns", ",".join(["row", *names]), guess=True)
    return what, Advice(("its header, which does not name the rows, will be rejected: ", named), in_r)


def line_protocol(filled: Sequence[str]) -> Shape | None:
    """Recognize the line protocol of InfluxDB, whose lines end in a time."""
    points = [line.rstrip("\r") for line in filled[:_ROWS] if not line.startswith("#")]
    if len(points) < 2 or not all(re.fullmatch(_POINT, line, re.ASCII) for line in points):
        return None
    maps = {**_PLACES, "event_type": "measurement", "entity_id": "tags", "event_time": "time"}
    unit = "epoch_ns" if all(re.search(r" \d{19}$", line) for line in points) else "auto"
    words = ("--pattern", _POINT, *_words(maps), "--time-format", unit)
    return "the line protocol of InfluxDB", _parts_of_a_line(*words)


_POINT = r"(?P<measurement>[^\s,]+),(?P<tags>\S+=\S+) (?P<fields>[^\s=]+=.*) (?P<time>\d{10,19})"


def plain_lines(filled: Sequence[str]) -> Shape | None:
    """Recognize lines none of which is a value of JSON or looks like an object or a list."""
    if len(filled) < 2 or any(map(_SOME_JSON.search, filled)):
        return None
    named = read_with("--pattern", "(?P<NAME>REGEX) (?P<text>.*)", guess=True)
    follow = ("if JSON lines follow, ", Option("input", "jsonl"))
    return "lines of text, not JSON", Advice(follow, ("else name the parts of a line: ", named))


_SOME_JSON = re.compile(r'^\s*[{\["}\]]|^\s*(-?\d[\d.eE+-]*|true|false|null)\s*$')


def _words(maps: dict[str, str]) -> Sequence[str]:
    return [word for field, expression in maps.items() for word in ("--map", f"{field}={expression}")]


def _parts_of_a_line(*words: str) -> Advice:
    return Advice(("name the parts of a line: ", read_with(*words)))
