"""How far a scenario moves times: by a duration, or from the wall clock of a zone to UTC; and where none is known."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from pik.model.instant import MAX_INSTANT, MIN_INSTANT, SECOND
from pik.model.scenario import Which
from pik.model.window import Window
from pik.model.zone import Zone
from pik.ports.engine import Offset

_HALF_DAY = timedelta(hours=12)


def shift_offsets(by: int, first_event: int, last_event: int) -> tuple[Offset, ...]:
    """Return by how much times move that are shifted by so many nanoseconds, and from where on they cannot: there are
    no later, or earlier, times. All events lie between the first and the last one."""
    reason = "would move out of the times that events can have: 1677-09-22 to 2262-04-10"
    seconds = by // SECOND
    if by > 0 and last_event > MAX_INSTANT - by:
        limit = _text(_utc(MAX_INSTANT + 1 - by))
        return Offset(None, limit, seconds), Offset(limit, None, None, reason)
    if by < 0 and first_event < MIN_INSTANT - by:
        limit = _text(_utc(MIN_INSTANT - by))
        return Offset(None, limit, None, reason), Offset(limit, None, seconds)
    return (Offset(None, None, seconds),)


def zone_offsets(zone: Zone, fold: Which | None, times: Window) -> tuple[Offset, ...]:
    """Return by how much wall clock times of the zone, taken for UTC, are off, for all of these times. Where clocks
    were set forward, and without `fold` where they were set back, times cannot be known."""
    moment, end = _utc(times.start) - 2 * _HALF_DAY, _utc(times.end) + 2 * _HALF_DAY
    offsets: list[Offset] = []
    begin: str | None = None
    while moment < end:
        before, after = _offset(zone, moment), _offset(zone, moment + _HALF_DAY)
        if before != after:
            change = _first_with(zone, after, moment, moment + _HALF_DAY)
            low, high = sorted((change + before, change + after))
            offsets.append(Offset(begin, _text(low), -_seconds(before)))
            if after > before:
                reason = f"do not exist in {zone.name}: clocks were set forward past them on {change:%Y-%m-%d}"
                seconds = None
            else:
                reason = f"exist twice in {zone.name}: clocks were set back over them on {change:%Y-%m-%d}; "
                reason += f"zone={zone.name}:earlier or :later chooses"
                seconds = None if fold is None else -_seconds(before if fold == Which.EARLIER else after)
            offsets.append(Offset(_text(low), _text(high), seconds, reason))
            begin = _text(high)
        moment += _HALF_DAY
    return (*offsets, Offset(begin, None, -_seconds(_offset(zone, moment))))


def _first_with(zone: Zone, offset: timedelta, low: datetime, high: datetime) -> datetime:
    """Return the first second after `low` with the offset that `high` has."""
    while (high - low) > timedelta(seconds=1):
        middle = low + timedelta(seconds=(high - low) // timedelta(seconds=2))
        low, high = (low, middle) if _offset(zone, middle) == offset else (middle, high)
    return high


def _offset(zone: Zone, moment: datetime) -> timedelta:
    offset = moment.replace(tzinfo=UTC).astimezone(zone.info).utcoffset()
    assert offset is not None
    return offset


def _seconds(offset: timedelta) -> int:
    return int(offset.total_seconds())


def _utc(instant: int) -> datetime:
    return datetime(1970, 1, 1) + timedelta(seconds=instant // SECOND)  # noqa: DTZ001 - wall clock and UTC alike


def _text(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S")
