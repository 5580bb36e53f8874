"""Time zones: local times to instants, where there is exactly one."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pik.errors import Invalid, UsageError
from pik.model.event import read_event
from pik.model.instant import format_instant, parse_event_time
from pik.model.times import Times
from pik.model.typed_times import typed_instant
from pik.model.zone import Zones, load_zone
from tests.model.test_identity import line
from tests.support.model.texts import from_datetime

NAMES = ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "Africa/Casablanca", "UTC"]


@pytest.mark.parametrize(
    ("zone", "text", "instant"),
    [
        ("Europe/Berlin", "2026-03-02T10:00:00", "2026-03-02T09:00:00Z"),
        ("Europe/Berlin", "2026-07-02 10:00", "2026-07-02T08:00:00Z"),
        ("Europe/Berlin", "20260702T100000,5", "2026-07-02T08:00:00.500Z"),
        ("Europe/Berlin", "2026-03-29T01:59:59.999999999", "2026-03-29T00:59:59.999999999Z"),
        ("Europe/Berlin", "2026-03-29T03:00:00", "2026-03-29T01:00:00Z"),
        ("Europe/Berlin", "2026-10-25T01:59:59", "2026-10-24T23:59:59Z"),
        ("Europe/Berlin", "2026-10-25T03:00:00", "2026-10-25T02:00:00Z"),
        ("Europe/Berlin", "2026-03-29T02:30:00+02:00", "2026-03-29T00:30:00Z"),  # an offset is stronger than the zone
        ("UTC", "2026-03-02T10:00:00", "2026-03-02T10:00:00Z"),
        ("Asia/Kolkata", "2026-03-02T00:00:00", "2026-03-01T18:30:00Z"),
    ],
)
def test_a_time_without_an_offset_is_a_local_time_of_the_zone(zone: str, text: str, instant: str) -> None:
    assert format_instant(parse_event_time(text, load_zone(zone))) == instant
    assert format_instant(read_event(line(event_time=text), Zones(load_zone(zone))).event_time) == instant


@pytest.mark.parametrize(
    ("zone", "text", "reason"),
    [
        ("Europe/Berlin", "2026-03-29T02:00:00", "does not exist in Europe/Berlin"),
        ("Europe/Berlin", "2026-03-29T02:59:59.999", "does not exist in Europe/Berlin"),
        ("Europe/Berlin", "2026-10-25T02:00:00", "exists twice in Europe/Berlin"),
        ("Europe/Berlin", "2026-10-25T02:59:59", "exists twice in Europe/Berlin"),
        ("Australia/Lord_Howe", "2026-10-04T02:15:00", "does not exist in Australia/Lord_Howe"),
        ("Europe/Berlin", "2262-04-12T00:00:00", "outside of"),
        ("Europe/Berlin", "0001-01-01T00:00:00", "outside of"),
        ("Europe/Berlin", "9999-12-31T23:59:59", "outside of"),
    ],
)
def test_a_local_time_that_clocks_skipped_or_showed_twice_is_rejected(zone: str, text: str, reason: str) -> None:
    for field in ("event_time", "received_time"):
        with pytest.raises(Invalid, match=reason) as refusal:
            read_event(line(**{field: text}), Zones(load_zone(zone), load_zone(zone)))
        assert refusal.value.field == field
        assert refusal.value.message.startswith(f"{field} '{text}' ")


@pytest.mark.parametrize(
    ("zone", "text", "reason", "instead"),
    [
        ("Europe/Berlin", "2026-03-29T02:30", "does not exist in", "2026-03-29T03:00:00+02:00 is when they were"),
        (
            *("Europe/Berlin", "2026-10-25T02:30:00.5", "exists twice in"),
            "2026-10-25T02:30:00.500+02:00 or 2026-10-25T02:30:00.500+01:00",
        ),
        ("Pacific/Apia", "2011-12-30", "does not exist in", "2011-12-31T00:00:00+14:00 is when they were"),
        ("America/Sao_Paulo", "2018-11-04T00:00", "does not exist in", "2018-11-04T01:00:00-02:00 is when they were"),
    ],
)
def test_a_typed_time_that_clocks_skipped_or_showed_twice_is_refused_with_what_to_type(
    zone: str, text: str, reason: str, instead: str
) -> None:
    with pytest.raises(Invalid, match=f"^'{text}' {reason} {zone}: clocks were set") as refusal:
        typed_instant(text, load_zone(zone), now=0)
    assert refusal.value.hint == instead


@given(st.dates(date(1960, 1, 1), date(2100, 1, 1)), st.sampled_from(NAMES))
@example(date(2018, 11, 4), "America/Sao_Paulo")  # clocks skipped its midnight
@example(date(2026, 11, 1), "America/Havana")  # and showed this one twice
@example(date(1987, 10, 25), "America/St_Johns")  # set back from 00:01 to the day before
@example(date(2011, 12, 31), "Pacific/Apia")  # the day before does not exist
def test_a_typed_date_begins_with_its_first_minute(day: date, name: str) -> None:
    zone, noon = load_zone(name), datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
    minutes = (noon + timedelta(minutes=minute) for minute in range(-28 * 60, 28 * 60))
    first = next((one for one in minutes if one.astimezone(zone.info).date() == day), None)
    try:
        found = typed_instant(day.isoformat(), zone, now=0)
    except Invalid:
        assert first is None
        return
    start = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=found // 1_000_000_000)
    assert first is not None
    assert abs(first - start) < timedelta(minutes=1)  # offsets had seconds once
    assert start.astimezone(zone.info).date() == day


@given(st.datetimes(datetime(1972, 1, 1), datetime(2037, 1, 1)), st.sampled_from(NAMES), st.integers(-40, 40))  # noqa: DTZ001
@example(datetime(2026, 3, 29, 22, 30), "Europe/Berlin", 0)  # noqa: DTZ001 - it is the 30th there
@example(datetime(2026, 10, 25, 0, 30), "Europe/Berlin", 1)  # noqa: DTZ001 - a day of 25 hours
@example(datetime(2026, 3, 9, 3), "America/New_York", -1)  # noqa: DTZ001 - it is the 8th there, whose day had 23
def test_words_for_days_count_the_dates_of_the_zone_and_words_for_now_elapsed_time(
    moment: datetime, name: str, count: int
) -> None:
    zone, now = load_zone(name), from_datetime(moment.replace(tzinfo=UTC))
    local = moment.replace(tzinfo=UTC).astimezone(zone.info).date()
    sign = "-" if count < 0 else "+"
    for word, day in (("yesterday", -1), ("today", 0), ("tomorrow", 1)):
        date_of_word = (local + timedelta(days=day)).isoformat()
        assert typed_instant(word, zone, now=now) == typed_instant(date_of_word, zone, now=0)
    if count:
        there = (local + timedelta(days=count)).isoformat()
        assert typed_instant(f"today{sign}{abs(count)}d", zone, now=now) == typed_instant(there, zone, now=0)
        assert typed_instant(f"now{sign}{abs(count)}d", zone, now=now) == now + count * 24 * 3600 * 1_000_000_000
    assert typed_instant("now", zone, now=now) == now


def test_a_day_that_a_calendar_skipped_is_not_yesterday() -> None:
    new_year = from_datetime(datetime(2011, 12, 30, 12, tzinfo=UTC))  # the 31st in Apia, whose 30th does not exist
    with pytest.raises(Invalid, match=r"^'2011-12-30' does not exist in Pacific/Apia"):
        typed_instant("yesterday", load_zone("Pacific/Apia"), now=new_year)


@given(st.datetimes(datetime(1800, 1, 1), datetime(2200, 1, 1)), st.sampled_from(NAMES))  # noqa: DTZ001
@example(datetime(2026, 3, 29, 1, 30), "Europe/Berlin")  # noqa: DTZ001
@example(datetime(2026, 10, 25, 0, 30), "Europe/Berlin")  # noqa: DTZ001
def test_every_instant_has_a_local_time_that_leads_back_to_it_or_is_rejected(moment: datetime, name: str) -> None:
    """Compared with the zone's own conversions: rejected only where another instant has the same local time."""
    zone, instant = load_zone(name), moment.replace(tzinfo=UTC)
    local = instant.astimezone(zone.info).replace(tzinfo=None)
    around = [instant + timedelta(seconds=sign * hours * 1800) for hours in range(1, 5) for sign in (-1, 1)]
    twice = any(other.astimezone(zone.info).replace(tzinfo=None) == local for other in around)
    try:
        found = parse_event_time(local.isoformat(), zone)
    except Invalid as error:
        found, twice = from_datetime(instant), not twice and "exists twice" in error.message and local.year >= 1950
    assert found == from_datetime(instant)
    assert not twice


@given(st.datetimes(datetime(1950, 1, 1), datetime(2037, 1, 1)), st.sampled_from(NAMES))  # noqa: DTZ001
@example(datetime(2026, 10, 25, 0, 30), "Europe/Berlin")  # noqa: DTZ001
@example(datetime(2026, 10, 25, 1, 30), "Europe/Berlin")  # noqa: DTZ001
def test_of_a_local_time_that_clocks_showed_twice_the_earlier_or_the_later_instant_is_read(
    moment: datetime, name: str
) -> None:
    """Compared with all instants around it that have this local time; each such time is noted, and no other."""
    info, instant = load_zone(name).info, moment.replace(tzinfo=UTC)
    local = instant.astimezone(info).replace(tzinfo=None)
    around = (instant + timedelta(minutes=15 * quarter) for quarter in range(-13, 14))
    same = [one for one in around if one.astimezone(info).replace(tzinfo=None) == local]
    for which, expected in (("earlier", min(same)), ("later", max(same))):
        noted: list[str] = []
        zones = Times(timezone=name, ambiguous=which).zones(noted)
        found = read_event(line(event_time=local.isoformat()), zones).event_time
        assert found == from_datetime(expected)
        assert noted == ([f"event_time {which} {name}"] if len(same) > 1 else [])


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("berlin", "perhaps Europe/Berlin"),
        ("new york", "perhaps America/New_York"),
        ("Europe/Berln", "Europe/Berlin"),
        ("GMT+1", "Etc/GMT-1 is 1 hour ahead of UTC all year (its sign is turned round)"),
        ("utc-05:00", "Etc/GMT+5 is 5 hours behind UTC"),
        ("+05:30", "an IANA name"),
        ("UTC+0", "UTC"),
        ("CEST", "abbreviations are not zones; perhaps Europe/Berlin"),
        ("IST", "perhaps Asia/Kolkata, Europe/Dublin, Asia/Jerusalem"),
        ("XST", "abbreviations are not zones; a place is, such as Europe/Berlin"),
        ("", "an IANA name"),
        ("../etc/passwd", "an IANA name"),
        ("Mars/Olympus", "an IANA name"),
    ],
)
def test_a_zone_that_there_is_not_is_a_usage_error(name: str, hint: str) -> None:
    with pytest.raises(UsageError, match="unknown time zone") as refusal:
        load_zone(name)
    assert hint in refusal.value.hint


def test_the_places_proposed_for_abbreviations_are_zones() -> None:
    from pik.model.zone_names import _PLACES

    assert {load_zone(one).name for places in _PLACES.values() for one in places.split(", ")}
