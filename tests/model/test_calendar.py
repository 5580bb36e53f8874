"""Buckets: of one size, and of the calendar of a zone, against its clock looked at minute by minute."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pik.errors import Invalid, UsageError
from pik.inputs.bucket_texts import bucket_named
from pik.model.calendar import buckets_of
from pik.model.instant import DAY, HOUR, MAX_INSTANT, MIN_INSTANT, format_instant, parse_instant
from pik.model.window import ALL_TIME, Window
from pik.model.zone import zone_data
from pik.model.zone_changes import offset_changes
from tests.support import calendar_model as model

SECOND = 10**9


def bounds(unit: str, zone: str | None, first: str, end: str) -> list[str]:
    """The starts of buckets from the one in which `first` is on, before `end`."""
    buckets, instant, found = buckets_of(unit, zone), parse_instant(first), []
    while instant < parse_instant(end):
        found.append(format_instant(buckets.start_of(instant)))
        instant = buckets.end_of(instant)
    return found


def hours(unit: str, zone: str, instant: str) -> float:
    bucket = buckets_of(unit, zone).around(parse_instant(instant))
    return (bucket.end - bucket.start) / HOUR


def test_buckets_of_one_size_begin_in_1970_and_weeks_on_monday() -> None:
    assert bounds("7d", None, "2026-03-02T12:00:00Z", "2026-03-06T00:00:00Z") == [
        "2026-02-26T00:00:00Z",
        "2026-03-05T00:00:00Z",
    ]
    assert bounds("1w", None, "2026-03-08T23:59:59Z", "2026-03-10T00:00:00Z") == [
        "2026-03-02T00:00:00Z",
        "2026-03-09T00:00:00Z",
    ]
    assert bounds("1mo", None, "2026-01-31T00:00:00Z", "2026-03-02T00:00:00Z") == [
        "2026-01-01T00:00:00Z",
        "2026-02-01T00:00:00Z",
        "2026-03-01T00:00:00Z",
    ]
    assert bounds("1w", None, "1969-12-30T00:00:00Z", "1969-12-31T00:00:00Z") == ["1969-12-29T00:00:00Z"]
    assert bounds("15m", None, "2026-01-01T00:20:00Z", "2026-01-01T00:30:00Z") == ["2026-01-01T00:15:00Z"]


def test_days_have_23_and_25_hours_where_clocks_change() -> None:
    assert bounds("1d", "Europe/Berlin", "2026-03-28T12:00:00Z", "2026-03-30T12:00:00Z") == [
        "2026-03-27T23:00:00Z",
        "2026-03-28T23:00:00Z",
        "2026-03-29T22:00:00Z",
    ]
    assert hours("1d", "Europe/Berlin", "2026-03-29T12:00:00Z") == 23
    assert hours("1d", "Europe/Berlin", "2026-10-25T12:00:00Z") == 25
    assert hours("1w", "Europe/Berlin", "2026-10-25T12:00:00Z") == 169
    assert hours("1mo", "Europe/Berlin", "2026-10-25T12:00:00Z") == 31 * 24 + 1
    # Half an hour.
    assert hours("1d", "Australia/Lord_Howe", "2026-04-05T00:00:00Z") == 24.5


def test_a_repeated_hour_is_two_buckets_and_a_skipped_one_is_none() -> None:
    assert bounds("1h", "Europe/Berlin", "2026-10-25T00:00:00Z", "2026-10-25T03:00:00Z") == [
        "2026-10-25T00:00:00Z",
        "2026-10-25T01:00:00Z",
        "2026-10-25T02:00:00Z",
    ]
    # From 02:00 the clock of Lord Howe goes back to 01:30, which begins no hour; from 02:00 it goes on to 02:30.
    assert [hours("1h", "Australia/Lord_Howe", f"2026-04-04T{time}:00Z") for time in ("14:10", "15:15", "15:31")] == [
        1.5,
        1.5,
        1,
    ]
    assert hours("1h", "Australia/Lord_Howe", "2026-10-03T15:40:00Z") == 0.5
    assert bounds("1h", "Asia/Kolkata", "2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z") == [
        "2025-12-31T23:30:00Z",
        "2026-01-01T00:30:00Z",
    ]


def test_a_day_begins_with_the_first_instant_of_its_date() -> None:
    # Cairo skips midnight, Havana shows it twice, St John's turned the clock back one minute after it.
    assert bounds("1d", "Africa/Cairo", "2026-04-24T12:00:00Z", "2026-04-24T13:00:00Z") == ["2026-04-23T22:00:00Z"]
    assert buckets_of("1d", "Africa/Cairo").local_text(parse_instant("2026-04-23T22:00:00Z")) == "2026-04-24+03:00"
    assert bounds("1d", "America/Havana", "2026-11-01T12:00:00Z", "2026-11-01T13:00:00Z") == ["2026-11-01T04:00:00Z"]
    assert bounds("1d", "America/St_Johns", "1990-10-28T03:00:00Z", "1990-10-28T13:00:00Z") == ["1990-10-28T02:30:00Z"]
    # Samoa had no 30 December 2011.
    assert bounds("1d", "Pacific/Apia", "2011-12-29T12:00:00Z", "2011-12-31T12:00:00Z") == [
        "2011-12-29T10:00:00Z",
        "2011-12-30T10:00:00Z",
        "2011-12-31T10:00:00Z",
    ]
    assert buckets_of("1d", "Pacific/Apia").local_text(parse_instant("2011-12-30T10:00:00Z")) == "2011-12-31+14:00"


def test_the_first_and_the_last_bucket_end_where_time_does() -> None:
    for unit, zone in [("7d", None), ("1w", None), *((unit, "America/New_York") for unit in model.UNITS)]:
        buckets = buckets_of(unit, zone)
        assert buckets.widened(ALL_TIME) == ALL_TIME
        assert buckets.start_of(MIN_INSTANT) == MIN_INSTANT
        assert buckets.end_of(MAX_INSTANT) == MAX_INSTANT + 1
        assert buckets.spans(ALL_TIME)[0].start <= MIN_INSTANT


@pytest.mark.parametrize(
    ("unit", "zone", "reason"),
    [
        ("15m", "Europe/Berlin", "invalid bucket '15m': with a timezone it is one of 1h, 1d, 1w, 1mo"),
        ("7d", "UTC", "invalid bucket '7d': with a timezone"),
        ("2mo", None, "invalid bucket '2mo': weeks and months are buckets one by one"),
        ("2w", None, "invalid bucket '2w'"),
        ("7m", None, "invalid bucket '7m': it must divide a day or be whole days"),
        ("1 d", None, "not a duration"),
        ("1month", None, "not a duration such as 15m or 1d, nor 1w or 1mo"),
    ],
)
def test_buckets_that_do_not_exist_are_refused(unit: str, zone: str | None, reason: str) -> None:
    with pytest.raises(Invalid, match=reason):
        buckets_of(unit, zone)
    with pytest.raises(UsageError, match="unknown time zone 'Berlin'"):
        buckets_of("1d", "Berlin")


def around_change(zone: str, number: int) -> int:
    """A second at which clocks of the zone change, since 1975."""
    changes = offset_changes(zone, 157_766_400, 2_500_000_000)[1:]
    return changes[number % len(changes)][0] if changes else 1_000_000_000


@settings(max_examples=25)
@given(
    st.sampled_from(model.zone_names()),
    st.sampled_from(model.UNITS),
    st.integers(0, 200),
    st.integers(-3 * 1440, 3 * 1440),
)
def test_bounds_are_those_that_the_clock_shows(zone: str, unit: str, number: int, minutes: int) -> None:
    first = around_change(zone, number) // 60 * 60 + minutes * 60
    compare(unit, zone, first - 2 * 86400, first, first + 3 * 86400)


def compare(unit: str, zone: str, early: int, first: int, end: int, step: int = 60) -> None:
    buckets = buckets_of(unit, zone)
    found, instant = [], buckets.end_of(first * SECOND)
    while instant < end * SECOND:
        found.append(instant // SECOND)
        assert buckets.around(instant - 1).end == buckets.start_of(instant) == instant
        instant = buckets.end_of(instant)
    assert found == [second for second in model.starts(unit, zone, early, end, step) if second > first]
    window = Window(first * SECOND, end * SECOND)
    spans = buckets.spans(window)
    assert spans[0].start <= window.start
    for span, after in pairwise([*spans, None]):
        assert span is not None
        last = window.end - 1 if after is None else after.start - 1
        for instant in (span.start, last):
            if instant in window:
                assert max(span.start_of(instant), MIN_INSTANT) == buckets.start_of(instant)


@pytest.mark.slow
@pytest.mark.parametrize("zone", {zone_data(zone): zone for zone in model.zone_names()}.values())
def test_bounds_of_every_zone_and_year_are_those_that_its_clock_shows(zone: str) -> None:
    """Looked at second by second where an offset has seconds, and nearby only."""
    for second, _ in offset_changes(zone, MIN_INSTANT // SECOND + 10**8, 2_500_000_000)[1:]:
        offsets = {model.clock(zone, one).utcoffset() for one in (second - 1, second)}
        seconds = any(offset is not None and offset.seconds % 60 for offset in offsets)
        for unit in ("1h", "1d"):
            if seconds or unit == "1h":
                compare(unit, zone, second - 9000, second - 3600, second + 3600, step=1 if seconds else 60)
            else:
                compare(unit, zone, second - 2 * 86400, second - 90000, second + 90000)
    days = [(day, model.clock(zone, day // SECOND)) for day in all_starts("1d", zone)]
    assert all_starts("1w", zone) == [
        day for (_, before), (day, date) in pairwise(days) if before.isocalendar()[:2] != date.isocalendar()[:2]
    ]
    assert all_starts("1mo", zone) == [day for (_, before), (day, date) in pairwise(days) if before.month != date.month]


def all_starts(unit: str, zone: str) -> list[int]:
    """The starts of buckets between 1975-12-30 and 2076."""
    buckets, instant, found = buckets_of(unit, zone), parse_instant("1975-12-29T12:00:00Z"), []
    while (instant := buckets.end_of(instant)) < parse_instant("2076-06-07T12:00:00Z"):
        found.append(instant)
    return found


def test_a_window_is_widened_to_whole_buckets() -> None:
    buckets = buckets_of("1d", "Europe/Berlin")
    start, end = parse_instant("2026-03-28T23:00:00Z"), parse_instant("2026-03-29T22:00:00Z")
    assert buckets.widened(Window(start + 1, end - 1)) == buckets.widened(Window(start, end)) == Window(start, end)
    assert buckets.widened(Window(start, end + 1)) == Window(start, end + DAY)


@pytest.mark.parametrize(
    ("text", "unit", "zone", "day"),
    [
        ("2026/3/2", "1d", None, "2026-03-02"),
        ("20260302", "1d", None, "2026-03-02"),
        ("2026-3-2", "1d", "Asia/Tokyo", "2026-03-01T15:00:00Z"),
        ("2023-11-05 02:00:00", "1h", "America/Los_Angeles", "2023-11-05T10:00:00Z"),
        ("2023-11-05 01:00:00", "1h", "America/Los_Angeles", None),  # clocks showed it twice
        ("2023-11-05T01:00:00-07:00", "1h", "America/Los_Angeles", "2023-11-05T08:00:00Z"),
        ("2024-03-10T02:00:00", "1h", "America/Los_Angeles", None),  # they skipped it
        ("2023-11-05T01:00:00", "1h", None, "2023-11-05T01:00:00Z"),
        ("2026-03-29 00:00:00", "1d", "Asia/Beirut", "2026-03-28T22:00:00Z"),  # a day without its midnight
        ("2025-10-26T00:00:00", "1d", "Atlantic/Azores", "2025-10-26T00:00:00Z"),  # a day that has it twice
        ("26.10.2025 00:00", "1h", "Atlantic/Azores", None),
        ("2026-03-29T00:00:00Z", "1d", "Europe/Berlin", "2026-03-29T00:00:00Z"),
        ("2026-12", "1mo", None, "2026-12-01"),
        ("2026/03", "1mo", "Europe/Berlin", "2026-02-28T23:00:00Z"),
        ("2026-W01", "1w", None, "2025-12-29"),
        ("2026w53", "7d", None, None),
        ("2026-03", "1d", None, None),
        ("2026-W10", "1mo", None, None),
        ("2026-13", "1mo", None, None),
        ("03/02/2026", "1d", None, None),
        ("46083", "1d", None, None),
    ],
)
def test_tables_name_buckets_by_dates_months_and_weeks_that_are_one_bucket(
    text: str, unit: str, zone: str | None, day: str | None
) -> None:
    buckets = buckets_of(unit, zone)
    if day is None:
        with pytest.raises(Invalid):
            bucket_named(text, "m", buckets)
    else:
        assert bucket_named(text, "m", buckets) == parse_instant(day, date_only=True)
