"""Lines of text with a time near their beginning, as loggers write them: what to type to read them.

Where the time is, and how it is written, decides; what is before and after it is text, but for the word that says how
severe an entry is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

TEXT = "(?P<text>.*)"
"""How each pattern ends."""

_LOOKED_AT = 50
"""Lines that are looked at, at most."""

_LIKE = 2
"""Lines with a time, at least; before the first there may be a title, and after each lines that go on with it."""

_BEFORE = 100
"""Characters before a time, at most."""


class _Written(NamedTuple):
    """How a time is written: `time` is its expression, the others what a command needs beside it."""

    time: str
    maps: Mapping[str, str] = {}
    options: Sequence[str] = ()
    after: str = r"(?<![\w.:/-])"
    """What is before it, in an expression of Python's."""
    is_alone: bool = False
    """Whether no digit is before it, such as of a day that is written in another way."""


class LogLines(NamedTuple):
    """What reads lines of a log: a pattern, the expressions of fields of events that are known, other options."""

    pattern: str
    maps: Mapping[str, str]
    options: Sequence[str]
    has_day: bool


_CLOCK = r"\d\d?:\d\d(?::\d\d)?(?:[.,]\d+)?"
_ZONE = r"(?: ?[AaPp][Mm]\b)?(?:Z| ?[-+]\d\d:?\d\d\b|[-+]\d\d\b| UTC\b)?"
"""What may follow a clock. It is a part of the time even where no line that was looked at has it: a later one may, and
would be hours off if it were text."""

_NAME = "[A-Z][a-z]{2}"
_TIMES = (
    _Written(rf"\d{{4}}[-/.]\d\d[-/.]\d\d(?:T| +){_CLOCK}{_ZONE}"),
    _Written(rf"\d\d?/{_NAME}/\d{{4}}[: ]\d\d:\d\d:\d\d(?:\.\d+)?(?: [-+]\d{{4}})?"),
    _Written(rf"\d\d?[- ]{_NAME}[- ]\d{{4}} {_CLOCK}(?: GMT\b|{_ZONE})"),
    _Written(
        rf"{_NAME} {_NAME} +\d\d? \d\d:\d\d:\d\d\.\d+ \d{{4}}",
        options=("--time-format", "%a %b %d %H:%M:%S.%f %Y", "--timezone", "ZONE"),
    ),
    _Written(
        rf"{_NAME} {_NAME} +\d\d? \d\d:\d\d:\d\d \d{{4}}",
        options=("--time-format", "%a %b %d %H:%M:%S %Y", "--timezone", "ZONE"),
    ),
    _Written(rf"{_NAME} \d\d?, \d{{4}},? {_CLOCK}{_ZONE}"),
    _Written(rf"\d\d?[-/.]\d\d?[-/.]\d{{2,4}},? {_CLOCK}{_ZONE}"),
    _Written(r"\d{6} \d{6}\b", options=("--time-format", "%y%m%d %H%M%S", "--timezone", "ZONE"), after="^"),
    _Written(r"\d{10}(?:\.\d+)?\b", options=("--time-format", "epoch"), after="^"),
    _Written(r"\d{13}\b", options=("--time-format", "epoch_ms"), after="^"),
    _Written(
        r"\d{4} \d\d:\d\d:\d\d\.\d+",
        {"event_time": "join(' ', ['YEAR', time])"},
        ("--time-format", "%Y %m%d %H:%M:%S.%f", "--timezone", "ZONE"),
        after=r"(?<=^[IWEF])",
    ),
    _Written(
        rf"{_NAME} +\d\d? \d\d:\d\d:\d\d\.\d+",
        {"event_time": "join(' ', ['YEAR', time])"},
        ("--time-format", "%Y %b %d %H:%M:%S.%f", "--timezone", "ZONE"),
    ),
    _Written(
        rf"{_NAME} +\d\d? \d\d:\d\d:\d\d(?:[.,]\d+)?\b",
        {"event_time": "join(' ', ['YEAR', time])"},
        ("--time-format", "%Y %b %d %H:%M:%S", "--timezone", "ZONE"),
    ),
    _Written(rf"{_CLOCK}{_ZONE}\b", {"event_time": "join(' ', ['DAY', time])"}, ("--timezone", "ZONE"), is_alone=True),
)
"""How times are written; of those that more lines have, the first."""

_LEVEL = (
    "TRACE|DEBUG|VERBOSE|INFO|INFORMATION|NOTICE|WARN|WARNING|ERROR|SEVERE|CRITICAL|FATAL|PANIC"
    "|TRC|DBG|VRB|INF|WRN|ERR|CRT|FTL"
)
_SEVERITY = re.compile(rf"[\s|:\[]*(?:{_LEVEL})\b", re.IGNORECASE)
_SEVERITY_FIRST = re.compile(rf"\[?(?:{_LEVEL}|[DIWEFA](?=,))\b[\s\]:,\[]*|[IWEF]")

_GOES_ON = re.compile(r"\]|\s+[^\s,;|]")
"""What follows a time that has a comma, where that is not between cells."""


def log_lines(filled: Sequence[str]) -> LogLines | None:
    """Return what reads lines of a log, by the time that most of them have near their beginning."""
    lines = [line.rstrip("\r") for line in filled[:_LOOKED_AT]]
    best: tuple[int, _Written, Mapping[int, re.Match[str]]] | None = None
    for written in _TIMES:
        found = _places(lines, written)
        if len(found) >= _LIKE and 2 * len(found) >= len(lines) - min(found) and (not best or len(found) > best[0]):
            best = len(found), written, found
    return None if best is None else _read_by(best[1], [(one, lines[number]) for number, one in best[2].items()])


def are_log_lines(filled: Sequence[str]) -> bool:
    """Return whether lines say beside their time how severe an entry is, as loggers do, or begin with a time that has a
    comma: so bars and commas in them are not between cells."""
    lines = [line.rstrip("\r") for line in filled[:_LOOKED_AT]]
    for written in _TIMES:
        places = _places(lines, written)
        found = [(lines[number], *one.span()) for number, one in places.items()]
        if 0 in places and len(found) >= _LIKE and 2 * len(found) >= len(lines):  # the first may be a header
            is_torn = all("," in line[begin:end] and _GOES_ON.match(line, end) for line, begin, end in found)
            return is_torn or all(_is_severe(line, begin, end) for line, begin, end in found)
    return False


def _is_severe(line: str, begin: int, end: int) -> bool:
    """Return whether the severity of an entry stands before its time, or after it in a line whose time is no cell."""
    return bool(
        _SEVERITY_FIRST.fullmatch(line[:begin])
        or ((not begin or line[begin - 1] in " [") and _SEVERITY.match(line, end) and line[end : end + 1] not in "\t;,")
    )


def _places(lines: Sequence[str], written: _Written) -> dict[int, re.Match[str]]:
    """Return where the lines have a time that is written so, by their numbers."""
    time = re.compile(written.after + written.time, re.ASCII)
    found = {number: time.search(line[: 2 * _BEFORE]) for number, line in enumerate(lines)}
    return {
        number: one
        for number, one in found.items()
        if one is not None
        and one.start() <= _BEFORE
        and not (written.is_alone and re.search(r"\d", lines[number][: one.start()]))
    }


def _read_by(written: _Written, found: Sequence[tuple[re.Match[str], str]]) -> LogLines:
    before = {line[: one.start()] for one, line in found}
    is_severe_first = all(map(_SEVERITY_FIRST.fullmatch, before))
    has_level = is_severe_first or all(_SEVERITY.match(line, one.end()) for one, line in found)
    if is_severe_first:
        head, level = rf"\W*{_LEVEL_GROUP}\W*", ""
    else:
        same = before.pop() if len(before) == 1 else None
        head = "(?P<before>.*?)" if same is None or re.search(r"\w", same) else re.sub(r"[^\s\w]", r"\\\g<0>", same)
        level = rf"[\s|:\[]*{_LEVEL_GROUP}" if has_level else ""
    maps = {**({"event_type": "level"} if has_level else {}), "event_time": "time", **written.maps}
    pattern = f"{head}(?P<time>{written.time}){level}{TEXT}"
    return LogLines(pattern, maps, written.options, "DAY" not in maps["event_time"])


_LEVEL_GROUP = "(?P<level>[A-Za-z]+)"
