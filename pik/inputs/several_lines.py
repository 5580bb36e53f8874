"""Texts of which a record is several lines: fields below each other, lines set in, headings before JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise

from pik.inputs.advice import Advice, piped
from pik.inputs.line_times import are_log_lines
from pik.inputs.timed_entries import timed_entries

_LOOKED_AT = 200
"""Lines that are looked at, at most."""

_RECORDS = 2
"""Records that must look alike, at least."""

_HEADED = 3
"""Lines of JSON with a heading, at least: in a file of records some may be wrong, and two could be so by chance."""

_SET_IN = 4
"""Blanks before a line that goes on with the one above."""

_FIELD = re.compile(r"\s*(?:(:\w{2,4}:)|([\w. -]{1,40}?)\s*[:|](?:\s|$))")
_TIME_IN_FIELD = re.compile(rf"{_FIELD.pattern}.*?\d\d?:\d\d")
_OTHER = "…"
"""Stands for a line that is not a field, such as a rule."""

_JOINED = Advice("a record is one line, or one object of JSON: let the program that wrote it export JSON or CSV")

_FIELDS = (
    r"""jq -Rsc 'split("\n\n")[] | [split("\n")[] | capture("^\\s*(?<key>[^:]+?)\\s*:\\s+(?<value>.*)")]"""
    r""" | select(. != []) | from_entries'"""
)


def several_lines(text: str, filled: Sequence[str]) -> tuple[str, Advice] | None:
    """Recognize a text of which each record is several lines: in a sentence, and with what to do. It has nothing else
    by which it would be recognized."""
    begin = filled[:_LOOKED_AT]
    if begin and begin[0].startswith("__CURSOR="):
        assigned = _FIELDS.replace(r"\\s*:\\s+", "=")
        return "what journalctl -o export writes", piped(f"{assigned} {{file}}", "an object of each: ", guess=True)
    fields, entries = _fields_below(begin), timed_entries(begin)
    if entries is not None and not (fields and any(map(_TIME_IN_FIELD.match, begin))):
        return entries
    if fields and not are_log_lines(begin):
        is_apart = "\n\n" in text and not any(name.startswith(":") for name in fields)
        hint = piped(f"{_FIELDS} {{file}}", "an object of each: ", guess=True) if is_apart else _JOINED
        return "records of several lines, with a field on each", hint
    if _are_set_in(begin):
        return "records of several lines, of which all but the first are set in", _JOINED
    return None


def headed_json(filled: Sequence[str]) -> tuple[str, Advice] | None:
    """Recognize lines of JSON, each of which has a line of text before it."""
    headings, objects = filled[:_LOOKED_AT:2], filled[1:_LOOKED_AT:2]
    if len(objects) < _HEADED or not all(map(_is_object, objects)):
        return None
    if any("{" in line or _is_json(line) for line in headings):
        return None
    return "lines of JSON, with a line of text before each", piped("grep '^ *{' {file}", "the JSON alone: ", guess=True)


def sql_values(start: str) -> bool:
    """Return whether a text begins with a row of values in parentheses, as SQL writes them."""
    return re.match(r"\((?:[^()']|'(?:[^'\\]|''|\\.)*')*\)\s*,\s*\(", start) is not None


def _fields_below(lines: Sequence[str]) -> Sequence[str]:
    """Return the names of fields, each on its own line, which come again and again in one order."""
    names = [_name(line) for line in lines]
    begin = next((name for name in names if name != _OTHER and names.count(name) > _RECORDS - 1), None)
    if begin is None:
        return []
    starts = [number for number, name in enumerate(names) if name == begin]
    groups = [names[one:other] for one, other in pairwise(starts)]
    alike = all(group == groups[0] for group in groups[1:])
    fields = sum(name != _OTHER for name in groups[0]) if groups else 0
    return groups[0] if alike and len(groups) >= _RECORDS and fields > 1 else []


def _name(line: str) -> str:
    found = _FIELD.match(line)
    return _OTHER if found is None else found[1] or re.sub(r"\d+", "9", found[2])


def _are_set_in(lines: Sequence[str]) -> bool:
    """Return whether each line that is not set in has some below it that are."""
    goes_on = [line.startswith("\t") or len(line) - len(line.lstrip(" ")) >= _SET_IN for line in lines]
    starts = [number for number, one in enumerate(goes_on) if not one]
    return len(starts) > _RECORDS and all(goes_on[number + 1] for number in starts[:-1])


def _is_object(line: str) -> bool:
    return line.lstrip().startswith("{") and _is_json(line)


def _is_json(line: str) -> bool:
    """Return whether a line is JSON, of any kind."""
    with suppress(ValueError, RecursionError):
        json.loads(line)
        return True
    return False
