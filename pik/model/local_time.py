"""Times as people type them: with an offset, or by the clocks of a time zone."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from pik.errors import Invalid
from pik.model.instant import SECOND, Zone, checked_instant, display_instant, displayed_in, parse_instant, parse_local

_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def typed_instant(text: str, zone: Zone | None = None) -> int:
    """Return the instant of an RFC 3339 text, or the first one of a date; without an offset it is of `zone`, else UTC.

    Raises Invalid, with what to type instead, for a local time that clocks skipped or showed twice.
    """
    local, offset = parse_local(text, date_only=True)
    if zone is None or offset is not None:
        return parse_instant(text, date_only=True)
    before, after = (_offset_of_local(zone, local, fold) for fold in (0, 1))
    early = checked_instant(local - before, text)
    is_date = _DATE.fullmatch(text) is not None
    if before < after:
        change = _change(zone, local - after, early)
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


def _offset_of_local(zone: Zone, local: int, fold: int) -> int:
    """Return nanoseconds to subtract from a local time; where clocks change, those before (`fold` 0) or after it."""
    moment = (_EPOCH + timedelta(seconds=local // SECOND)).replace(tzinfo=zone.info, fold=fold)
    return _nanos(moment.utcoffset())


def _offset_at(zone: Zone, instant: int) -> int:
    return _nanos((_EPOCH + timedelta(seconds=instant // SECOND)).astimezone(zone.info).utcoffset())


def _nanos(offset: timedelta | None) -> int:
    assert offset is not None
    return (offset.days * 86400 + offset.seconds) * SECOND


def _change(zone: Zone, low: int, high: int) -> int:
    """Return the first instant after `low` with the offset that the zone has at `high`; it changes once in between."""
    offset = _offset_at(zone, high)
    first, last = low // SECOND, high // SECOND
    while last - first > 1:
        middle = (first + last) // 2
        first, last = (first, middle) if _offset_at(zone, middle * SECOND) == offset else (middle, last)
    return last * SECOND


def _shown(zone: Zone, instant: int) -> str:
    with displayed_in(zone):
        return display_instant(instant)
