"""Time formats: what is read, what is refused before anything is read, and that no machine's settings matter."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pik.errors import Invalid, UsageError
from pik.inputs.epochs import PLAUSIBLE
from pik.inputs.time_formats import TimeFormat
from pik.model.instant import DAY, SECOND, parse_instant
from pik.model.zone import load_zone
from tests.support.model.texts import from_datetime

UTC_ZONE = load_zone("UTC")
NEW_YEAR = parse_instant("2026-01-01T00:00:00Z")


@pytest.mark.parametrize(
    ("time_format", "value", "instant"),
    [
        ("epoch", 1767225600, NEW_YEAR),
        ("epoch", "1767225600", NEW_YEAR),
        ("epoch", "1767225600.123456789", NEW_YEAR + 123456789),
        ("epoch", -2, -2 * SECOND),
        ("epoch", "-0.5", -SECOND // 2),
        ("epoch_ms", 1767225600000, NEW_YEAR),
        ("epoch_ms", 1767225600000.5, NEW_YEAR + 500_000),
        ("epoch_us", 1767225600000000, NEW_YEAR),
        ("epoch_ns", 1767225600000000000, NEW_YEAR),
        ("auto", 1767225600, NEW_YEAR),
        ("auto", 1767225600000, NEW_YEAR),
        ("auto", 1767225600000000, NEW_YEAR),
        ("auto", 1767225600000000000, NEW_YEAR),
        ("auto", "1767225600000", NEW_YEAR),
        ("auto", " 1767225600.5 ", NEW_YEAR + SECOND // 2),
        ("auto", "2026-01-01T01:00:00+01:00", NEW_YEAR),
        ("auto", "20260101T000000Z", NEW_YEAR),
        ("rfc3339", "2026-01-01T00:00:00Z", NEW_YEAR),
        ("%d/%b/%Y:%H:%M:%S %z", "01/Jan/2026:03:00:00 +0300", NEW_YEAR),
        ("%Y%m%d%H%M%S%f%z", "20260101000000123456789Z", NEW_YEAR + 123456789),
        ("%a, %d %B %Y %H:%M %z", "thu,  1 JANUARY 2026 00:00 +00:00", NEW_YEAR),
        ("%Y-%j %I:%M %p %z", "2026-001 12:00 am +00", NEW_YEAR),
        ("%d-%b-%y %I.%M.%S.%f %p%z", "01-JAN-26 12.00.00.123456 AMZ", NEW_YEAR + 123_456_000),
        ("%d/%m/%Y %I:%M:%S %p%z", "1/1/2026 12:00:00 a. m.Z", NEW_YEAR),
        ("%m/%d/%Y, %I:%M %p%z", "1/1/2026, 12:00\u202fP.M.Z", NEW_YEAR + DAY // 2),
        ("%Y-%m-%d %p %I:%M%z", "2026-1-1 오전 12:00Z", NEW_YEAR),
        ("%Y/%m/%d %p%I:%M%z", "2026/1/1 下午12:00Z", NEW_YEAR + DAY // 2),
        ("%m/%d/%y%z", "1/1/69Z", -365 * DAY),
        ("%y%m%d%z", "680101Z", parse_instant("2068-01-01T00:00:00Z")),
        ("100%% %Y%m%dT%z", "100% 20260101T+0000", NEW_YEAR),
    ],
)
def test_what_a_format_reads(time_format: str, value: Any, instant: int) -> None:
    assert TimeFormat(time_format)(value) == instant


@pytest.mark.parametrize(
    ("time_format", "value", "reason"),
    [
        ("epoch", True, "is not a number"),
        ("epoch", -1, "stands for an unknown time"),
        ("epoch_ms", "-1", "stands for an unknown time"),
        ("epoch_us", -1.0, "stands for an unknown time"),
        ("epoch_ns", "-1e0", "stands for an unknown time"),
        ("epoch", "ten", "is not a number"),
        ("epoch", "nan", "is not a number"),
        ("epoch", "Infinity", "is not a number"),
        ("epoch", [1], "is not a number"),
        ("epoch", "1767225600.1234567891", "finer than a nanosecond"),
        ("epoch", "1767225600.1234567890000000000000000001", "finer than a nanosecond"),
        ("epoch", "1e999999", "outside of"),
        ("epoch", "-1e999999", "outside of"),
        ("epoch", "1e-999999", "finer than a nanosecond"),
        ("epoch", 10**12, "outside of"),
        ("epoch_ms", "9" * 400, "outside of"),
        ("auto", "²", "is not an ISO 8601 time"),
        ("auto", False, "is not a number"),
        ("auto", {}, "is not a number"),
        ("auto", "2026-01-01T00:00:00", "has no offset from UTC; --timezone ZONE"),
        ("rfc3339", 1767225600, "is not a text"),
        ("rfc3339", "2026-01-01", "is not an RFC 3339 time"),
        ("%Y%m%d %z", "12026", "does not match %Y%m%d %z"),
        ("%Y%m%d %z", 20260101, "is not a text"),
        ("%Y%m%d%z", "2026011+0000", "does not match"),  # 1 January, or 11 January without its last digit
        ("%m/%d/%y%z", "1/1/2026Z", "does not match"),
        ("%Y-%m-%d%z", "2026-02-30Z", "impossible date"),
        ("%Y-%j%z", "2026-366Z", "impossible date"),
        ("%Y-%j%z", "9999-366Z", "impossible date"),
        ("%Y-%m-%d %I %p%z", "2026-02-03 13 PMZ", "impossible hour"),
        ("%a %Y-%m-%d%z", "Mon 2026-03-03Z", "day of the week that is not the date's"),
        ("%Y-%m-%d %H:%M:%S%z", "2026-02-03 10:00:60Z", "leap seconds"),
        ("%Y-%m-%d%z", "2026-02-03", "does not match"),
    ],
)
def test_what_a_format_rejects(time_format: str, value: Any, reason: str) -> None:
    with pytest.raises(Invalid) as refusal:
        TimeFormat(time_format)(value)
    assert reason in refusal.value.message


@pytest.mark.parametrize(
    ("value", "alternative"),
    [
        (20260302, "%Y%m%d tells"),
        ("20260302", "%Y%m%d tells"),
        (2026030210, "%Y%m%d%H tells"),  # as seconds it is March 2034
        (202603021015, "%Y%m%d%H%M tells"),
        ("20260302101500", "%Y%m%d%H%M%S tells"),
        (46083.4, "excel tells"),  # a day of a spreadsheet
        (794134800, "a strptime format tells"),  # seconds since 2001
        (3981571200, "a strptime format tells"),  # seconds since 1900
        (2088460800, "a strptime format tells"),  # seconds since 1960
        (2088460800000, "a strptime format tells"),  # and milliseconds
        (3855345600, "a strptime format tells"),  # seconds since 1904
        (639080000000000000, "dotnet_ticks tells"),  # ticks
        (134171520000000000, "filetime tells"),  # of Windows
        (0, "a strptime format tells"),
        ("-1.5", "a strptime format tells"),
        ("1e5", "a strptime format tells"),
        ("9" * 400, "a strptime format tells"),
    ],
)
def test_auto_rejects_a_number_that_could_be_something_else(value: Any, alternative: str) -> None:
    with pytest.raises(Invalid) as refusal:
        TimeFormat("auto", UTC_ZONE)(value)
    assert "is ambiguous" in refusal.value.message
    assert alternative in refusal.value.message


@given(st.integers(*PLAUSIBLE).filter(lambda at: at < PLAUSIBLE[1]), st.sampled_from([10**9, 10**6, 10**3, 1]))
def test_auto_recognises_the_unit_of_any_time_from_2000_to_2032(instant: int, unit: int) -> None:
    whole = -(-instant // unit) * unit
    assume(whole < PLAUSIBLE[1])
    assert TimeFormat("auto")(whole // unit) == whole


@pytest.mark.parametrize(
    ("first", "last", "unit", "name"),
    [
        (946684800, 1988150399, 10**9, "epoch"),
        (946684800000, 1988150399999, 10**6, "epoch_ms"),
        (946684800000000, 1988150399999999, 10**3, "epoch_us"),
        (946684800000000000, 1988150399999999999, 1, "epoch_ns"),
    ],
)
def test_auto_ends_where_its_documented_years_end_and_names_what_reads_on(
    first: int, last: int, unit: int, name: str
) -> None:
    auto = TimeFormat("auto")
    assert auto(first) == parse_instant("2000-01-01T00:00:00Z")
    assert auto(last) == parse_instant("2033-01-01T00:00:00Z") - unit
    for beyond in (first - 1, last + 1):
        with pytest.raises(Invalid, match=f"not in the years 2000 to 2032; --time-format .*{name}"):
            auto(beyond)
        assert TimeFormat(name)(beyond) == beyond * unit


def test_a_time_format_that_there_is_not() -> None:
    with pytest.raises(UsageError, match="unknown time format 'iso'") as refusal:
        TimeFormat("iso")
    assert "iso8601, auto, epoch" in refusal.value.hint
    with pytest.raises(UsageError, match="its times have no year"):
        TimeFormat("syslog")


@pytest.mark.parametrize(
    ("pattern", "strptime"),
    [
        ("yyyy-MM-dd HH:mm:ss,SSS", "%Y-%m-%d %H:%M:%S,%f"),
        ("yyyy-MM-dd'T'HH:mm:ssXXX", "%Y-%m-%dT%H:%M:%S%z"),
        ("dd/MMM/yyyy:HH:mm:ss Z", "%d/%b/%Y:%H:%M:%S %z"),
        ("EEE, d MMM uuuu hh:mm a", "%a, %d %b %Y %I:%M %p"),
        ("d.M.yyyy H:mm", "%d.%m.%Y %H:%M"),
    ],
)
def test_a_pattern_of_java_is_refused_with_the_strptime_format_that_it_is(pattern: str, strptime: str) -> None:
    with pytest.raises(UsageError) as refusal:
        TimeFormat(pattern, UTC_ZONE)
    assert f"'{strptime}'" in refusal.value.hint
    TimeFormat(strptime, UTC_ZONE)


@pytest.mark.parametrize(
    ("name", "said", "hint"),
    [
        ("%q", "unknown directive %q", "rfc3339"),
        ("%Y-%", "stray %", "rfc3339"),
        ("%Y/%Y", "a directive comes twice", "each value once"),
        ("%d/%b %H:%M", "it has no year", "%Y"),
        ("%%Y %H", "it has no year", "%Y"),
        ("%H:%M %Y", "it has no month", "%m"),
        ("%H:%M %m %Y", "it has no day", "%d"),
        ("%d %H:%M %Y", "it has no month", "%m"),
        ("%m/%d/%Y %H:%M:%S %p", "%p has no effect beside %H", "%I"),
        ("%m/%d/%Y %p", "%p without an hour", "%I"),
        ("%m/%d/%Y %I:%M:%S", "%I needs %p", "%H"),
        ("%m/%d/%Y %I %H %p", "%H and %I are both the hour", "%H alone"),
        ("%m/%d/%Y %M", "minutes without an hour", "%H"),
        ("%m/%d/%Y %H %S", "seconds without minutes", "%M"),
        ("%m/%d/%Y %H:%M.%f", "a fraction without seconds", "%S"),
        ("%Y-%m-%d %H:%M:%S %Z", "%Z, the name of a zone, is not an offset", "--timezone ZONE"),
        ("%Y-%j %m", "%j beside a month or a day", "one of them"),
        ("%Y-%m %b-%d", "it has the month twice", "one of"),
        ("%a %A %Y-%m-%d", "the day of the week twice", "one of"),
        ("%y%m%d %Y", "it has the year twice", "%y of two digits"),
        ("%Y-W%W-%w", "weeks and their days are not read", "%j"),
        ("%G-W%V-%u", "weeks and their days are not read", "%j"),
        ("%c", "%c depends on the locale", "%a %b %d %H:%M:%S %Y"),
        ("%x %X", "%x depends on the locale", "%m/%d/%y"),
        ("%Y-%m-%dT%T", "unknown directive %T", "%H:%M:%S"),
        ("%Y-%m-%d %H:%M:%S", "its times have no offset from UTC", "--timezone ZONE"),
    ],
)  # fmt: skip
def test_a_format_that_loses_or_ignores_something_is_refused_at_once(name: str, said: str, hint: str) -> None:
    with pytest.raises(UsageError) as refusal:
        TimeFormat(name)
    assert said in refusal.value.message
    assert hint in refusal.value.hint


DATES = ["%Y-%m-%d", "%d %b %Y", "%B %d, %Y", "%a %d %b %Y", "%A, %d.%m.%Y", "%Y %j", "%Y%m%d"]
CLOCKS = ["", "T%H", " %H:%M", " %H:%M:%S", " %H%M%S.%f", " %I:%M:%S %p", " %I%p"]


@given(
    st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1)),  # noqa: DTZ001 - hypothesis takes naive ends
    st.tuples(st.sampled_from(DATES), st.sampled_from(CLOCKS), st.sampled_from(["", " %z"])).map("".join),
)
def test_formats_read_as_strptime_does_where_it_loses_nothing(moment: datetime, name: str) -> None:
    text = moment.replace(tzinfo=UTC).strftime(name)
    expected = datetime.strptime(text, name)  # noqa: DTZ007 - without %z it is UTC
    assert TimeFormat(name, UTC_ZONE)(text) == from_datetime(expected)


PROGRAM = """
import locale, sys, time
for name in ("de_DE.UTF-8", "C.UTF-8", ""):
    try:
        locale.setlocale(locale.LC_ALL, name)
        break
    except locale.Error:
        pass
time.tzset()
from pik.inputs.time_formats import TimeFormat
from pik.model.zone import load_zone
print(TimeFormat("%a %d %b %Y %H:%M:%S", load_zone("Europe/Berlin"))("Mon 02 Mar 2026 10:00:00"))
print(TimeFormat("%A %d %B %Y %I:%M %p %z")("Monday 02 March 2026 10:00 PM +0100"))
print(TimeFormat("rfc3339", load_zone("America/New_York"))("2026-03-02T10:00:00"))
try:
    TimeFormat("%Y-%m-%d %Z")
except Exception as error:
    print(error)
"""


def test_neither_time_zone_nor_locale_of_the_machine_matter() -> None:
    outputs = set()
    for zone in ("UTC", "America/New_York", "Asia/Kolkata"):
        for language in ("C", "de_DE.UTF-8", "tr_TR.UTF-8"):
            environment = {**os.environ, "TZ": zone, "LC_ALL": language, "LANG": language}
            done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, check=True)
            outputs.add(done.stdout)
    instants = b"1772442000000000000\n1772485200000000000\n1772463600000000000\n"
    assert outputs == {instants + b"--time-format %Y-%m-%d %Z: %Z, the name of a zone, is not an offset\n"}
