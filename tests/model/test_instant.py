"""Instants: text to nanoseconds and back."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pik.errors import Invalid
from pik.model.duration import format_duration, parse_duration
from pik.model.instant import (
    DAY,
    HOUR,
    MAX_INSTANT,
    MIN_INSTANT,
    MINUTE,
    SECOND,
    day_of,
    day_text,
    display_instant,
    displayed_in,
    format_instant,
    full_instant,
    parse_event_time,
    parse_instant,
    read_instant,
)
from pik.model.window import Window
from pik.model.zone import Zone, load_zone
from pik.rawlog.segment_writer import reason_kind
from tests.support.model.texts import from_datetime

INSTANTS = st.integers(MIN_INSTANT, MAX_INSTANT)


@given(INSTANTS)
@example(MIN_INSTANT)
@example(MAX_INSTANT)
@example(0)
@example(-1)
def test_every_instant_survives_its_texts(instant: int) -> None:
    full = full_instant(instant)
    assert len(full) == 30
    assert parse_instant(full) == parse_instant(format_instant(instant)) == instant
    assert parse_instant(full[:-1]) == instant  # without an offset it is UTC, in a window
    assert full.startswith(day_text(day_of(instant)))
    assert len(format_instant(instant)) in (20, 24, 27, 30)


@given(INSTANTS, st.sampled_from(["Europe/Berlin", "America/St_Johns", "Asia/Kathmandu", "Africa/Monrovia", "UTC"]))
@example(MIN_INSTANT, "America/St_Johns")
@example(MAX_INSTANT, "Asia/Kathmandu")
def test_a_time_shown_in_a_zone_is_the_same_instant_by_the_clock_there(instant: int, zone: str) -> None:
    with displayed_in(load_zone(zone)):
        shown = display_instant(instant)
        assert str(Window(instant)) == f"[{shown}, …)" or instant == MIN_INSTANT
    assert display_instant(instant) == format_instant(instant)
    assert parse_instant(shown) == instant
    there = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=instant // SECOND)).astimezone(ZoneInfo(zone))
    offset = there.utcoffset()
    assert offset is not None
    if not offset % timedelta(minutes=1):  # RFC 3339 has no seconds in offsets
        assert (shown[:19], shown[-6:]) == (there.isoformat()[:19], there.isoformat()[19:])


@given(INSTANTS, st.integers(-23, 23), st.integers(0, 59))
def test_an_offset_is_taken_off(instant: int, hours: int, minutes: int) -> None:
    offset = f"{'-' if hours < 0 else '+'}{abs(hours):02d}:{minutes:02d}"
    shift = (-1 if hours < 0 else 1) * (abs(hours) * HOUR + minutes * MINUTE)
    text = full_instant(instant)[:-1] + offset
    if MIN_INSTANT <= instant - shift <= MAX_INSTANT:
        assert parse_instant(text) == instant - shift
    else:
        with pytest.raises(Invalid, match="outside of 1677-09-22 to 2262-04-10"):
            parse_instant(text)


@given(st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1)))  # noqa: DTZ001 - hypothesis takes naive ends
def test_it_agrees_with_datetime(moment: datetime) -> None:
    instant = parse_instant(moment.isoformat() + "Z")
    assert datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=instant // 1000) == moment.replace(tzinfo=UTC)
    assert from_datetime(moment) == from_datetime(moment.replace(tzinfo=UTC)) == instant


PIECES = [
    "2026-01-31 2026-02-29 2024-02-29 1677-09-21 1677-09-22 2262-04-10 2262-04-11 0000-01-01 20260101".split(),
    ["T", "t", " ", "_", ""],
    "00:00 23:59 24:00 12:60 7:00 12:3x ١٢:٣٤".split(),
    ["", *":00 :59 :60 .59 :5".split()],
    ["", *".000 .999 .5 .123456789 .1234567890 .1234567891 . ,5 .٣٣٣".split()],
    ["", " +0300", *"Z z +00:00 +03:00 -00:00 +24:00 +03:60 +0300 +03 ZZ".split()],
]


@given(
    st.tuples(*(st.sampled_from(pieces) for pieces in PIECES)).map("".join),
    st.sampled_from([None, load_zone("Europe/Berlin"), load_zone("America/New_York")]),
)
def test_the_fast_path_and_the_definition_agree(text: str, zone: Zone | None) -> None:
    def outcome(read: object, *arguments: object) -> object:
        assert callable(read)
        try:
            return read(*arguments)
        except Invalid as error:
            return error.message

    def defined(text: str) -> tuple[int, bytes, str | None]:
        instant = parse_event_time(text, zone)
        canonical = re.fullmatch(r"[0-9-]{10}T[0-9:]{8}(\.[0-9]+)?Z", text)
        return instant, json.dumps(full_instant(instant)).encode(), None if canonical else text

    expected = outcome(defined, text)
    for _ in range(2):  # what was read once may be remembered
        assert outcome(read_instant, text, zone) == expected


@pytest.mark.parametrize(
    "text",
    [
        "2026-03-02T10:15:00Z", "2026-03-02T11:15:00+0100", "2026-03-02T11:15:00+01", "2026-03-02T10:15Z",
        "2026-03-02T11:15+01", "20260302T101500Z", "20260302T101500.000Z", "20260302T1115+0100", "2026-03-02t10:15:00z",
        "2026-03-02 10:15:00Z", "2026-03-02 11:15:00 +0100", "2026-03-02T10:15:00,000Z", "2026-03-01T23:45:00-10:30",
        "2026-03-02 10:15:00.000 UTC", "2026-03-02 10:15 UTC", "2026-03-02 10:15:00.000000000 +0000 UTC",
    ],
)  # fmt: skip
def test_the_forms_of_iso_8601_that_producers_write_are_read(text: str) -> None:
    assert parse_event_time(text, None) == parse_instant("2026-03-02T10:15:00Z")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("2026-02-30T00:00:00Z", "'2026-02-30' is not a date of the calendar"),
        ("2026-13-01T00:00:00Z", "'2026-13-01' is not a date of the calendar"),
        ("0000-01-01T00:00:00Z", "'0000-01-01' is not a date of the calendar"),
        ("2026-01-01T24:00:00Z", "impossible time of day"),
        ("2026-01-01T23:59:60.000Z", "leap seconds"),
        ("2026-01-01T00:00:00.0000000001Z", "finer than a nanosecond"),
        ("2026-01-01T00:00:00+24:00", "impossible offset"),
        ("1677-09-21T23:59:59Z", "outside of"),
        ("2262-04-11T00:00:00Z", "outside of"),
        ("2262-04-10T23:59:59.999999999-00:01", "outside of"),
        ("2026-01-01", "not an RFC 3339 time"),
        ("1767225600", "not an RFC 3339 time"),
        (" 2026-01-01T00:00:00Z", "not an RFC 3339 time"),
        ("2026-01-01T00:00:00Z\n", "not an RFC 3339 time"),
        ("２０26-01-01T00:00:00.000Z", "not an RFC 3339 time"),
    ],
)
def test_an_invalid_instant_is_refused(text: str, problem: str) -> None:
    with pytest.raises(Invalid, match=problem):
        parse_instant(text)


def test_a_bare_date_is_its_midnight_where_it_may_stand() -> None:
    assert parse_instant("1970-01-02", date_only=True) == DAY


@pytest.mark.parametrize(
    ("text", "nanos"), [("90s", 90 * SECOND), ("15m", 900 * SECOND), ("2h", 2 * HOUR), ("7d", 7 * DAY), ("1w", 7 * DAY)]
)
def test_durations(text: str, nanos: int) -> None:
    assert parse_duration(text) == nanos


@pytest.mark.parametrize("text", ["", "0s", "5", "h", "1.5h", "-2h", "2 h", "٣h", "1h30m", "9999999999s"])
def test_an_invalid_duration_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match="is not a duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("nanos", "text"),
    [
        (0, "0s"),
        (1, "1ns"),
        (-1_500, "-1.5µs"),
        (12_000_000, "12ms"),
        (1_250_000_000, "1.25s"),
        (200 * SECOND, "3m 20s"),
        (HOUR, "1h"),
        (-(26 * HOUR + 5 * SECOND), "-1d 2h"),
    ],
)
def test_durations_for_people(nanos: int, text: str) -> None:
    assert format_duration(nanos) == text


def test_impossible_dates_are_one_kind_of_reason() -> None:
    reasons = set()
    for day in ("2026-02-29", "2026-02-30", "2026-04-31"):
        with pytest.raises(Invalid) as error:
            parse_event_time(f"{day}T00:00:00Z", None)
        reasons.add(reason_kind(error.value.message))
    assert reasons == {"… is not a date of the calendar"}
    assert (
        reason_kind("event_time 'Sun' has a day that is not the date's")
        == "event_time … has a day that is not the date's"
    )
