"""Formats of times as strptime has them, but read by our own code.

Python's strptime ignores what it cannot use (%p beside %H, the value of %a, a zone's name), assumes 1900 without a
year, and depends on the locale and time zone of the machine. Here a format that loses or ignores anything is refused
before anything is read, and names of months and days are English; AM and PM may be of some other languages.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import date, timedelta

from pik.errors import Invalid, UsageError
from pik.inputs.advice import Advice, Option
from pik.model.instant import DAY, OFFSET, fraction_nanos, offset_nanos, resolved, time_of_day
from pik.model.zone import Zone

_EXAMPLE = "rfc3339, epoch_ms, auto, or a strptime format with a date, such as '%d/%b/%Y:%H:%M:%S %z'"

_MONTHS = "january february march april may june july august september october november december".split()
_DAYS = "monday tuesday wednesday thursday friday saturday sunday".split()

BLANK = r"[\s\u00a0\u202f]"
"""White space, also such as does not break a line: programs write it before `PM` and in `p. m.`."""

_AFTERNOON = "오후", "下午", "午後"
_HALF = rf"[AP]\.?{BLANK}?M\.?|오전|上午|午前|{'|'.join(_AFTERNOON)}"
"""AM and PM as English and Spanish programs write them, and Korean, Chinese and Japanese ones."""

_WIDTHS = {"Y": 4, "j": 3} | dict.fromkeys("ymdHIMS", 2)
DIRECTIVES = {letter: rf"\d{{1,{width}}}" for letter, width in _WIDTHS.items()} | {
    "Y": r"\d{4}",
    "y": r"\d{2}",
    "f": r"\d+",
    "p": _HALF,
    "z": OFFSET,
    "b": "|".join(month[:3] for month in _MONTHS),
    "B": "|".join(_MONTHS),
    "a": "|".join(day[:3] for day in _DAYS),
    "A": "|".join(_DAYS),
}

_FIRST_SHORT = 69
"""The first year of two digits that is of the 20th century, as POSIX has it; 68 is 2068."""

_REFUSED = {
    "Z": (
        "%Z, the name of a zone, is not an offset",
        "write the name as it is, such as EST, in the place of %Z, and add --timezone ZONE",
    ),
    **dict.fromkeys(
        "UWVGuw", ("weeks and their days are not read", "a date is %Y with %m and %d, or with %j, the day of the year")
    ),
    "c": ("%c depends on the locale", "write it out: '%a %b %d %H:%M:%S %Y'"),
    "x": ("%x depends on the locale", "write it out: %m/%d/%y, say"),
    "X": ("%X depends on the locale", "write it out: %H:%M:%S"),
    "D": ("unknown directive %D", "write it out: %m/%d/%y, the year of two digits"),
    "F": ("unknown directive %F", "write it out: %Y-%m-%d"),
    "T": ("unknown directive %T", "write it out: %H:%M:%S"),
    "R": ("unknown directive %R", "write it out: %H:%M"),
    "s": ("unknown directive %s", "--time-format epoch reads seconds since 1970"),
    "N": ("unknown directive %N", "%f reads up to nine digits"),
    "L": ("unknown directive %L", "%f reads up to nine digits"),
    "h": ("unknown directive %h", "%b reads Jan to Dec"),
    "e": ("unknown directive %e", "%d reads days with and without a leading zero"),
}


class Strptime:
    """A strptime format as a regular expression. Raises UsageError for one that loses or ignores something."""

    def __init__(self, name: str, zone: Zone | None) -> None:
        self._name, self._zone = name, zone
        parts = list(_parts(name))
        used = [part[1] for part in parts if part[0] == "%" and part != "%%"]
        _expect_unambiguous(name, used)
        if "z" not in used and zone is None:
            raise without_zone(name)
        pattern = "".join(_pattern(part, parts, number) for number, part in enumerate(parts))
        self._match = re.compile(pattern, re.ASCII | re.IGNORECASE).fullmatch

    def __call__(self, text: str) -> int:
        match = self._match(text)
        if match is None:
            raise Invalid(f"{text[:60]!r} does not match {self._name}")
        found = match.groupdict()
        return resolved(local_nanos(found, text), offset_nanos(found.get("z"), text), self._zone, text)


def without_zone(name: str) -> UsageError:
    """Return the error for a format whose times need a time zone, and none is given."""
    zone = "name their zone: ", Option("timezone", "ZONE"), ", such as Europe/Berlin or UTC"
    return UsageError(f"--time-format {name}: its times have no offset from UTC", hint=Advice(zone))


def local_nanos(found: Mapping[str, str | None], text: str) -> int:
    """Return nanoseconds since 1970-01-01T00:00:00 of the values of directives, by their letters. Raises Invalid naming
    `text`."""
    hour = int(found.get("H") or 0)
    if twelfth := found.get("I"):
        if not 1 <= int(twelfth) <= 12:
            raise Invalid(f"{text[:60]!r} has an impossible hour for AM or PM")
        half = found["p"] or ""
        hour = int(twelfth) % 12 + (12 if half[:1] in "pP" or half in _AFTERNOON else 0)
    clock = time_of_day(hour, int(found.get("M") or 0), int(found.get("S") or 0), text)
    return _day(found, text) * DAY + clock + fraction_nanos(found.get("f"), text)


def _parts(name: str) -> Iterator[str]:
    """Yield directives, runs of white space, and other characters. Raises UsageError for an unknown directive."""
    for part in re.findall(r"%.?|\s+|.", name, re.DOTALL):
        letter = part[1:]
        if part[0] == "%" and letter != "%" and letter not in DIRECTIVES:
            problem, hint = _REFUSED.get(letter, (f"unknown directive {part}" if letter else "stray %", _EXAMPLE))
            raise UsageError(f"--time-format {name}: {problem}", hint=hint)
        yield part


def _expect_unambiguous(name: str, used: list[str]) -> None:
    given = set(used)
    month = given & set("mbB")
    rules = [
        (len(used) > len(given), "a directive comes twice", "each value once"),
        (not given & set("Yy"), "it has no year", "a date has %Y, or %y of two digits"),
        (given >= set("Yy"), "it has the year twice", "%Y, or %y of two digits"),
        (bool(given & set("j")) and bool(month | given & {"d"}), "%j beside a month or a day", "one of them"),
        (len(month) > 1, "it has the month twice", "one of %m, %b and %B"),
        (len(given & set("aA")) > 1, "it has the day of the week twice", "one of %a and %A"),
        ("j" not in given and not month, "it has no month", "a date has %m, or %b or %B, and %d; or %j alone"),
        ("j" not in given and "d" not in given, "it has no day", "a date has %d, or %j alone"),
        ({"H", "I"} <= given, "%H and %I are both the hour", "%H alone, or %I with %p"),
        ("p" in given and "I" not in given, "%p has no effect beside %H" if "H" in given else "%p without an hour",
         "%I is the hour of a 12-hour clock"),
        ("I" in given and "p" not in given, "%I needs %p", "%H is the hour of a 24-hour clock"),
        ("M" in given and not given & set("HI"), "it has minutes without an hour", "%H, or %I with %p"),
        ("S" in given and "M" not in given, "it has seconds without minutes", "%M"),
        ("f" in given and "S" not in given, "it has a fraction without seconds", "%S"),
    ]  # fmt: skip
    for wrong, problem, hint in rules:
        if wrong:
            raise UsageError(f"--time-format {name}: {problem}", hint=hint)


def _pattern(part: str, parts: list[str], number: int) -> str:
    if part.isspace():
        return f"{BLANK}+"
    if part[0] != "%" or part == "%%":
        return re.escape(part[-1])
    letter = part[1]
    width = _WIDTHS.get(letter)
    if width and (_is_digits(parts, number - 1) or _is_digits(parts, number + 1)):
        return rf"(?P<{letter}>\d{{{width}}})"  # beside other digits it needs a fixed width
    return f"(?P<{letter}>{DIRECTIVES[letter]})"


def _is_digits(parts: list[str], number: int) -> bool:
    """Return whether that part matches digits."""
    part = parts[number] if 0 <= number < len(parts) else ""
    return part.isdigit() or (part[:1] == "%" and part[1:] in (*_WIDTHS, "f"))


def _day(found: Mapping[str, str | None], text: str) -> int:
    """Return the number of the day since 1970. Raises Invalid."""
    year = int(found.get("Y") or 0)
    if short := found.get("y"):
        year = int(short) + (1900 if int(short) >= _FIRST_SHORT else 2000)
    try:
        if ordinal := found.get("j"):
            day = date(year, 1, 1) + timedelta(days=int(ordinal) - 1)
        else:
            name = (found.get("b") or found.get("B") or "").lower()
            months = [number for number, month in enumerate(_MONTHS, 1) if name and month.startswith(name)]
            day = date(year, months[0] if months else int(found["m"] or 0), int(found["d"] or 0))
        if day.year != year:
            raise ValueError
    except (ValueError, OverflowError):
        raise Invalid(f"{text[:60]!r} has an impossible date") from None
    weekday = found.get("a") or found.get("A")
    if weekday and not _DAYS[day.weekday()].startswith(weekday.lower()):
        raise Invalid(f"{text[:60]!r} has a day of the week that is not the date's")
    return (day - date(1970, 1, 1)).days
