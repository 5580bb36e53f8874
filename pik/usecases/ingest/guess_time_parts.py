"""Times whose parts are in several fields: a day and a time of day, or a year, a month, a day, an hour, a minute."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal

from pik.inputs.strptime import BLANK, DIRECTIVES
from pik.model.identity import name_of_number
from pik.usecases.ingest.guess_fields import Column, Path
from pik.usecases.ingest.guess_names import score_of, words

_HALF = DIRECTIVES["p"]
_CLOCK = re.compile(
    rf"(({_HALF})\s?)?\d{{1,2}}:\d\d(:\d\d([.,]\d+)?)?({BLANK}({_HALF}))?( ?(Z|[-+]\d\d:?\d\d)| [A-Z]{{3,5}})?",
    re.ASCII | re.IGNORECASE,
)
"""A time of day, with its offset or the abbreviation of its zone."""

_DAY: Mapping[str, str] = {
    "year": "year|yr|yyyy|yy",
    "month": "month|mon|mo|mm",
    "day": "day|dd|dy|day of month|dom|mday",
}
_TIME: Mapping[str, str] = {
    "hour": "hour|hr|hh",
    "minute": "minute|min|mi|mn",
    "second": "second|sec|ss",
}
"""The names of parts, with what belongs to all of them before or after: `start_year`, `Hour (UTC)`. Hours, minutes and
seconds are how long something took."""

_TIMES = [dict(list(_TIME.items())[:end]) for end in (3, 2, 1)]
"""Parts of a time of day, as many as possible first."""


def in_parts(day: Column | None, columns: Sequence[Column], size: int) -> Iterator[list[Column]]:
    """Yield fields that together may be the time of each of so many records, of the day in one field if there is one:
    that with the time of day, as a whole or in parts, or else the parts of the day alone."""
    whole = [one for one in columns if len(one.values) == size and _is_plain(one)]
    for days in [[day]] if day else sorted(_same(whole, _DAY), key=_rank, reverse=True):
        every = [found for names in _TIMES for found in _same(whole, names) if day or _fit(days, found)]
        hours = {one[0].expression for one in every}
        clock = _clock(days, whole)
        times = every[0] if len(hours) == 1 else [clock] if clock else []
        if times or not day:
            yield [*days, *times]


def _rank(parts: Sequence[Column]) -> int:
    """Return how much the name of parts speaks for the time of an event: a start comes before an end."""
    _, before, after = _rest(parts[0], _DAY["year"]) or ((), "", "")
    return score_of("event_time", [f"{before or ''}time{after or ''}"])


def joined(parts: Sequence[Column]) -> tuple[str, list[str]]:
    """Return the expression that puts parts together, and the values that it has."""
    texts = [
        one.expression
        if all(isinstance(value, str) for value in one.values.values())
        else f"to_string({one.expression})"
        for one in parts
    ]
    values = [" ".join(map(_text, (one.values[number] for one in parts))) for number in parts[0].values]
    return f"join(' ', [{', '.join(texts)}])", values


def _text(value: object) -> str:
    return value if isinstance(value, str) else name_of_number(str(value))


def _is_plain(one: Column) -> bool:
    return all(isinstance(value, str | int | Decimal) and not isinstance(value, bool) for value in one.values.values())


def _clock(days: Sequence[Column], columns: Sequence[Column]) -> Column | None:
    """Return the field of the time of day, if there is just one."""
    clocks = [one for one in columns if one.texts and all(map(_CLOCK.fullmatch, one.texts))]
    if len(clocks) > 1:  # of a start and an end
        name = words(days[0].path[-1]).replace("date", "time").replace("year", "time")
        clocks = [one for one in clocks if words(one.path[-1]) == name]
    return clocks[0] if len(clocks) == 1 else None


def _same(columns: Sequence[Column], parts: Mapping[str, str]) -> Iterator[list[Column]]:
    """Yield fields, one for each of the parts, whose names differ only in that."""
    first, *others = parts.values()
    for one in columns:
        if (rest := _rest(one, first)) is not None:
            found = [[other for other in columns if _rest(other, names) == rest] for names in others]
            if all(len(alike) == 1 for alike in found):
                yield [one, *(alike[0] for alike in found)]


def _rest(one: Column, names: str) -> tuple[Path, str | None, str | None] | None:
    """Return what the name of a field is apart from that of the part, and where the field is; None if it is not one."""
    found = re.fullmatch(rf"(.+ )?({names})( .+)?", words(one.path[-1]))
    return (one.path[:-1], found[1], found[3]) if found else None


def _fit(days: Sequence[Column], times: Sequence[Column]) -> bool:
    """Return whether the parts of a day and those of a time of day have the same name but for that."""
    return _rest(days[0], _DAY["year"]) == _rest(times[0], _TIME["hour"])
