"""ISO 8601: what producers write is read as an independent computation says, or refused with its value."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pik.errors import Invalid
from pik.inputs.iso8601 import read_iso8601
from pik.inputs.time_formats import TimeFormat
from pik.model.instant import format_instant, parse_event_time, parse_instant
from pik.model.zone import load_zone
from tests.model.test_instant import PIECES
from tests.support.model.texts import from_datetime

BERLIN = load_zone("Europe/Berlin")


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2026-01-31T24:00Z", "2026-02-01T00:00:00Z"),
        ("2026-12-31T24:00:00,000+01:00", "2026-12-31T23:00:00Z"),
        ("2026-W05-6T23:59:59Z", "2026-01-31T23:59:59Z"),
        ("2026-w05-6t23:59:59z", "2026-01-31T23:59:59Z"),
        ("2026W056T235959,25Z", "2026-01-31T23:59:59.250Z"),
        ("2020-W53-5T00:00Z", "2021-01-01T00:00:00Z"),
        ("2026-031T12:30Z", "2026-01-31T12:30:00Z"),
        ("2026031T1230Z", "2026-01-31T12:30:00Z"),
        ("20260131T23+01", "2026-01-31T22:00:00Z"),
        ("2026-01-31T23:59.5Z", "2026-01-31T23:59:30Z"),
        ("2026-01-31T23,25-00:00", "2026-01-31T23:15:00Z"),
        ("2026-01-31 23:59:59\u221201:00", "2026-02-01T00:59:59Z"),
        ("2026-01-31T23:59:59+01:00[Europe/Berlin]", "2026-01-31T22:59:59Z"),
        ("2026-10-25T02:30+01:00[Europe/Berlin]", "2026-10-25T01:30:00Z"),  # shown twice: the offset tells which
        ("2026-07-31T23:59:59[!Europe/Berlin][u-ca=gregory]", "2026-07-31T21:59:59Z"),
        ("2026-01-31T23:59:59Z[Europe/Berlin]", "2026-01-31T23:59:59Z"),
        ("2026-07-31 23:59:59.123 Europe/Berlin", "2026-07-31T21:59:59.123Z"),
        ("2026-01-31 23:59:59 America/Argentina/Buenos_Aires", "2026-02-01T02:59:59Z"),
        ("2026-01-31T23:59:59Z[UTC]", "2026-01-31T23:59:59Z"),
        ("2026-01-31T23:59:59", "2026-01-31T22:59:59Z"),
    ],
)
def test_what_producers_write_is_read(text: str, instant: str) -> None:
    for name in ("iso8601", "auto"):
        assert format_instant(TimeFormat(name, BERLIN)(text)) == instant


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("2026-01-31", "is a date without a time of day; --time-format %Y-%m-%d reads its midnight"),
        ("2026-W05-6", "is a date without a time of day"),
        ("2026-01-31T24:00:01Z", "impossible time of day"),
        ("2026-01-31T24:00:00.1Z", "impossible time of day"),
        ("2026-01-31T23:59:60Z", "leap seconds"),
        ("2026-01-31T23:59:59.1234567891Z", "finer than a nanosecond"),
        ("2026-01-31T23.12345678901234567Z", "finer than a nanosecond"),
        ("2026-02-29T00:00Z", "impossible date"),
        ("2026-366T00:00Z", "impossible date"),
        ("2026-W54-1T00:00Z", "impossible date"),
        ("2026-W05-8T00:00Z", "impossible date"),
        ("+002026-01-31T00:00:00Z", "expanded year"),
        ("-0044-03-15T12:00:00Z", "is not an ISO 8601 time"),
        ("2026-01-31T12:00+02:00[Europe/Berlin]", "an offset that is not its zone's"),
        ("2026-10-25T02:30[Europe/Berlin]", "exists twice in Europe/Berlin"),
        ("2026-01-31 12:00 Europe/Nowhere", "names a zone that is not known"),
        ("2026-01-31T12:00Z[Europe/Mars]", "names a zone that is not known"),
        ("2026-01-31T12:00Z[UTC][UTC]", "names a zone that is not known"),
        ("2026-01-31T1200Z", "is not an ISO 8601 time"),
        ("2026-01-31T12:00:00+01:00:30", "is not an ISO 8601 time"),
        ("2026-01-31T\u0661\u0662:00Z", "is not an ISO 8601 time"),
        ("2026-01-31T12:00", "has no offset from UTC; --timezone"),
    ],
)
def test_what_has_no_single_instant_is_refused_with_its_value(text: str, reason: str) -> None:
    with pytest.raises(Invalid) as refusal:
        read_iso8601(text, None)
    assert reason in refusal.value.message
    assert refusal.value.message.startswith(f"{text!r} ")


def test_a_date_written_without_separators_is_a_date_or_a_number() -> None:
    with pytest.raises(Invalid, match="%Y%m%d reads its midnight"):
        read_iso8601("20260131", BERLIN)
    with pytest.raises(Invalid, match="is ambiguous"):
        TimeFormat("auto", BERLIN)("20260131")


DATES = ["%Y-%m-%d", "%Y%m%d", "%G-W%V-%u", "%GW%V%u", "%Y-%j", "%Y%j"]


@given(
    st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1)),  # noqa: DTZ001 - hypothesis takes naive ends
    st.sampled_from(DATES),
    st.sampled_from([1, 60, 3600]),
    st.sampled_from(["", "Z", "+01:30", "-11"]),
)
def test_every_form_of_a_date_and_a_fraction_of_any_unit_is_exact(
    moment: datetime, date: str, unit: int, offset: str
) -> None:
    """A decimal fraction of an hour or a minute is compared as a fraction."""
    written = moment.strftime(date)
    clock = {1: "%H:%M:%S", 60: "%H:%M", 3600: "%H"}[unit]
    text = f"{written}T{moment.strftime(clock if '-' in date else clock.replace(':', ''))},{moment.microsecond:06d}"
    begin = moment.replace(
        microsecond=0, second=0 if unit > 1 else moment.second, minute=moment.minute % (3600 // unit)
    )
    begin = begin if unit < 3600 else begin.replace(minute=0)
    exact = from_datetime(begin) + Fraction(moment.microsecond, 10**6) * unit * 10**9
    shift = {"": 0, "Z": 0, "+01:30": 90, "-11": -660}[offset] * 60 * 10**9
    assert read_iso8601(text + offset, load_zone("UTC")) == exact - shift


@given(
    st.tuples(*(st.sampled_from(pieces) for pieces in PIECES)).map("".join),
    st.sampled_from([None, BERLIN, load_zone("America/New_York")]),
)
def test_what_rfc_3339_reads_is_the_same_time_in_iso_8601(text: str, zone: object) -> None:
    try:
        expected = parse_event_time(text, zone)  # type: ignore[arg-type]
    except Invalid:
        return
    assert read_iso8601(text, zone) == expected  # type: ignore[arg-type]


@given(st.datetimes(datetime(1950, 1, 1), datetime(2060, 1, 1)))  # noqa: DTZ001 - hypothesis takes naive ends
def test_a_zone_in_brackets_agrees_with_its_own_offset_and_with_no_other(moment: datetime) -> None:
    there = moment.replace(tzinfo=UTC).astimezone(BERLIN.info)
    text = f"{there.isoformat()}[Europe/Berlin]"
    assert read_iso8601(text, None) == from_datetime(moment)
    other = there.astimezone(UTC).isoformat().replace("+00:00", "+05:00")
    with pytest.raises(Invalid, match="not its zone's"):
        read_iso8601(f"{other}[Europe/Berlin]", None)
    assert timedelta(0) <= there.utcoffset() <= timedelta(hours=2)  # type: ignore[operator]
    assert parse_instant(there.isoformat()) == from_datetime(moment)
