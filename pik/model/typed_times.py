"""Times as people type them: with an offset, by the clocks of a time zone, or in words such as `yesterday`."""

from __future__ import annotations

import re

from pik.errors import Invalid
from pik.model.duration import parse_duration
from pik.model.instant import (
    DAY,
    SECOND,
    checked_instant,
    day_of,
    display_instant,
    displayed_in,
    format_instant,
    parse_instant,
    parse_local,
)
from pik.model.zone import Zone
from pik.model.zone_changes import offset_changes

_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_DAYS = {"yesterday": -1, "today": 0, "tomorrow": 1}
_WORDS = re.compile(rf"(now|{'|'.join(_DAYS)})(?:([+-])(.*))?", re.DOTALL)

WORDS = "2026-01-31T10:00, 2026-01-31, today, yesterday, now-2h"
"""What can be typed as a time, for messages."""


def typed_instant(text: str, zone: Zone | None = None, *, now: int) -> int:
    """Return the instant of an RFC 3339 text, the first one of a date, or what words mean `now`, as in `written_out`;
    without an offset it is of `zone`, else UTC.

    Raises Invalid, with what to type instead, for a local time that clocks skipped or showed twice.
    """
    return local_instant(written_out(text, 0 if zone is None else zone.offset_at(now), now), zone)


def written_out(text: str, offset: int, now: int) -> str:
    """Return the date of `today`, `yesterday`, `tomorrow` or `today-7d`, or the RFC 3339 text of `now` or `now-2h`; any
    other text as it is. `now` in nanoseconds; clocks are ahead of UTC by `offset` then. Raises Invalid."""
    words = _WORDS.fullmatch(text)
    if words is None:
        return text
    word, sign, typed = words.groups()
    span = 0 if sign is None else parse_duration(typed) * (-1 if sign == "-" else 1)
    if word == "now":
        return format_instant(checked_instant(now + span, text))
    if sign is not None and typed[-1] not in "dw":
        raise Invalid(
            f"{text!r}: days and weeks are counted from {word} (7d, 1w), since not every day has 24 hours",
            hint="write the time out (2026-01-31T10:00), or count from now: now-2h",
        )
    return format_instant(checked_instant((day_of(now + offset) + _DAYS[word]) * DAY + span, text))[:10]


def local_instant(text: str, zone: Zone | None) -> int:
    """Return the instant of an RFC 3339 text, or the first one of a date, without an offset of `zone`, else UTC."""
    local, offset = parse_local(text, date_only=True)
    if zone is None or offset is not None:
        return parse_instant(text, date_only=True)
    before, after = zone.offsets_of(local)
    early = checked_instant(local - before, text)
    is_date = _DATE.fullmatch(text) is not None
    if before < after:
        _, (second, _) = offset_changes(zone.name, (local - after) // SECOND, early // SECOND + 1)
        change = second * SECOND
        if is_date and _shown(zone, change).startswith(text):
            return change  # the date begins where clocks skipped its midnight
        raise Invalid(
            f"{text!r} does not exist in {zone.name}: clocks were set forward past it",
            hint=f"{_shown(zone, change)} is when they were",
        )
    if before > after and not is_date:
        raise Invalid(
            f"{text!r} exists twice in {zone.name}: clocks were set back over it",
            hint=f"{_shown(zone, early)} or {_shown(zone, local - after)}",
        )
    return early


def _shown(zone: Zone, instant: int) -> str:
    with displayed_in(zone):
        return display_instant(instant)
