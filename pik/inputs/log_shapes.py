"""What lines of text look like, and what to type to read them: logs, tables that were drawn for people, plain lines.

Each answer is a sentence and a hint, with {file} for the name of the input.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from pik.errors import command

_PLACES = {"source": "COLUMN", "event_type": "COLUMN", "entity_id": "COLUMN", "event_time": "COLUMN", "payload": "@"}

_REQUEST = r'"(?P<request>(?:[^"\\]|\\.)*)" (?P<status>\d+) (?P<bytes>\S+)'

_LINES: Sequence[tuple[str, dict[str, str], Sequence[str]]] = (
    (
        r"<(?P<priority>\d+)>1 (?P<time>\S+) (?P<host>\S+) (?P<app>\S+) (?P<process>\S+) (?P<id>\S+) (?P<text>.*)",
        {"event_type": "app", "entity_id": "host"},
        (),
    ),
    (
        r"(?P<time>\d{4}-\d\d-\d\dT\S+) (?P<stream>stdout|stderr) (?P<tag>[FP]) (?P<text>.*)",
        {"event_type": "stream"},
        (),
    ),
    (r"(?P<time>\d{4}[-/]\d\d[-/]\d\dT\d\d:\d\d\S*) (?P<text>.*)", {}, ()),
    (r"(?P<time>\d{4}[-/]\d\d[-/]\d\d \d\d:\d\d\S*) (?P<text>.*)", {}, ()),
    (
        r"(?P<time>[A-Z][a-z]{2} +\d+ \d\d:\d\d:\d\d) (?P<host>\S+) (?P<text>.*)",
        {"entity_id": "host", "event_time": "join(' ', ['YEAR', time])"},
        ("--time-format", "%Y %b %d %H:%M:%S", "--timezone", "ZONE"),
    ),
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
)
"""Patterns of logs, the first that fits is taken, with fields that are known and options that they need."""

_RULED = re.compile(r"[ |+:]*-{3,}[-+|: ]*")
_BOX = ("┌", "╭", "│", "╔")

_CELLS = 4
_ROWS = 20


def log_shape(filled: Sequence[str]) -> tuple[str, str] | None:
    """Recognize lines of text that begin with a time, as logs, syslog and web servers write them."""
    lines = [line.rstrip("\r") for line in filled[:2]]
    if len(lines) < 2:
        return None
    for pattern, known, options in _LINES:
        if all(re.fullmatch(pattern, line, re.ASCII) for line in lines):
            maps = {**_PLACES, "event_time": "time", **known}
            return "a text log", f"name the parts of a line: {_ingest('--pattern', pattern, *_words(maps), *options)}"
    return None


def drawn_table(filled: Sequence[str]) -> tuple[str, str] | None:
    """Recognize a table as the shells of databases draw it."""
    if filled and (filled[0].startswith(_BOX) or any(_RULED.fullmatch(line.rstrip()) for line in filled[:2])):
        return "a table drawn for people", "its rows as CSV: psql --csv, mysql --batch, sqlite3 -csv or duckdb -csv"
    return None


def fields_line(filled: Sequence[str]) -> tuple[str, str] | None:
    """Recognize the extended log format of the W3C, whose fields are named in a comment: of CloudFront and of IIS."""
    named = next((line.rstrip("\r") for line in filled[:_ROWS] if line.startswith("#Fields:")), None)
    if named is None or not filled[0].startswith("#"):
        return None
    fields = named.removeprefix("#Fields:").split()
    rows = (line for line in filled if not line.startswith("#"))
    layout = ("--input", "tsv") if "\t" in next(rows, "") else ("--input", "csv", "--delimiter", " ")
    at = {"event_time": "join(' ', [date, time])"} if {"date", "time"} <= set(fields) else {}
    words = (*layout, "--columns", ",".join(fields), *_words({**_PLACES, **at}), "--timezone", "UTC")
    return "an extended log of the W3C", f"its lines of comments will be rejected: {_ingest(*words)}"


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


def plain_lines(filled: Sequence[str]) -> tuple[str, str] | None:
    """Recognize lines of words, none of which has anything of JSON."""
    if len(filled) < 2 or any(re.search(r'[{}\[\]"]', line) or " " not in line.strip() for line in filled):
        return None
    named = _ingest("--pattern", "(?P<NAME>REGEX) (?P<text>.*)", *_words(_PLACES))
    return "lines of text, not JSON", f"name the parts of a line: {named}"


def _words(maps: dict[str, str]) -> Sequence[str]:
    return [word for field, expression in maps.items() for word in ("--map", f"{field}={expression}")]


def _ingest(*words: str) -> str:
    return command("ingest", "FILE", *words).replace("FILE", "{file}", 1)
