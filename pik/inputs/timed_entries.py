"""Logs of which an entry is several lines: one with a time, at the same place in each, and others below it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from pik.inputs.advice import Advice, Option, Read

_LOOKED_AT = 200
"""Lines that are looked at, at most."""

_ENTRIES = 3
"""Entries, at least."""

_BEFORE = 40
"""Characters before the time of a line, at most."""

_CLOCK = r"\d\d?:\d\d(?::\d\d)?(?:[.,]\d+)?(?:Z| ?[-+]\d\d:?\d\d)?"
_NAME = "[A-Z][a-z]{2}"
_TIMES = {
    rf"\d{{4}}[-/.]\d\d?[-/.]\d\d?[T ]+{_CLOCK}": r"[0-9]+[-\/.][0-9]+[-\/.][0-9]+",
    rf"\d\d?[-/.](?:\d\d?|{_NAME})[-/.]\d{{2,4}},? +{_CLOCK}": r"[0-9]+[-\/.][0-9A-Za-z]+[-\/.][0-9]+",
    rf"\d{{6}} +{_CLOCK}": "[0-9]+ +[0-9]+:",
    rf"(?:{_NAME} )?{_NAME} +\d\d? (?:\d{{4}} )?{_CLOCK}(?: \d{{4}})?": "([A-Z][a-z]+ )?[A-Z][a-z]+ +[0-9]+ [0-9]",
}
"""How times are written, and how their beginning is as awk has it."""

_JOIN = r"""{if (e) print e; e = $0; next} e {e = e "\t" $0; next} {print} END {if (e) print e}"""
"""What prints each entry on a line, and as they are the lines before the first."""

_BY_HAND = Advice(
    "a record is one line: let the program that wrote it export JSON or CSV, or join the lines of an entry"
)

Shape = tuple[str, Advice]


def timed_entries(filled: Sequence[str]) -> Shape | None:
    """Recognize a log of which most entries are several lines."""
    lines = [line.rstrip("\r") for line in filled[:_LOOKED_AT]]
    for time, begin in _TIMES.items():
        places = [re.search(time, line[: 3 * _BEFORE], re.ASCII) for line in lines]
        timed = [number for number, place in enumerate(places) if place is not None]
        before = {lines[number][: place.start()] for number, place in enumerate(places) if place is not None}
        if len(timed) < _ENTRIES or len(before) > 1 or len(prefix := before.pop()) > _BEFORE:
            continue
        longer = sum(other - one > 1 for one, other in pairwise(timed))
        if 2 * longer <= len(timed) - 1:
            return None
        return "a log whose entries are several lines", _joined(lines, timed, prefix, time, begin) or _BY_HAND
    return None


def _joined(lines: Sequence[str], timed: Sequence[int], prefix: str, time: str, begin: str) -> Advice | None:
    """Return what makes one line of each entry, where it is certain that an entry begins with its time."""
    escaped = re.sub(r"[][().*+?{}|^$]", r"\\\g<0>", prefix)
    head = escaped.replace("/", r"\/") + begin
    heads = [number for number, line in enumerate(lines) if re.match(head, line)]
    if heads != timed or re.search(r"['\\]", prefix) or _begins_above(lines, timed) or _has_more(lines, timed):
        return None
    pattern = rf"{escaped}(?P<time>{_words([lines[number][len(prefix) :] for number in timed], time)})\s*(?P<text>.*)"
    joined = Read((Option("pattern", pattern),), f"awk '/^{head}/ {_JOIN}' {{file}}", guess=True)
    return Advice(("with the lines of an entry on one: ", joined))


def _words(lines: Sequence[str], time: str) -> str:
    """Return the expression of the time that each line begins with: its words, where white space ends it."""
    found = [re.match(rf"({time})(?:\s|$)", line, re.ASCII) for line in lines]
    counts = {len(one[1].split()) if one is not None else 0 for one in found}
    return time if len(counts) > 1 or 0 in counts else " +".join([r"\S+"] * counts.pop())


def _begins_above(lines: Sequence[str], timed: Sequence[int]) -> bool:
    """Return whether the line before the first time is like those before others: so entries may begin with it."""
    above = [_form(lines[number - 1]) for number in timed if number]
    return timed[0] > 0 and above.count(above[0]) > 1


def _has_more(lines: Sequence[str], timed: Sequence[int]) -> bool:
    """Return whether the line that is below a time is there without one, too, as of an entry that has the time of the
    one above. Those that are set in say nothing."""
    below = {number + 1 for number in timed}
    forms = {_form(lines[number]) for number in below if number < len(lines) and not lines[number][:1].isspace()}
    return any(_form(line) in forms for number, line in enumerate(lines) if number not in below and number >= timed[0])


def _form(line: str) -> str:
    """Return how a line begins: two words without their digits."""
    return re.sub(r"\d+", "9", " ".join(line.split()[:2]))
