"""Named time formats: spreadsheets, Java, .NET, mails, web servers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pik.errors import Invalid, UsageError
from pik.inputs.named_formats import NAMED
from pik.inputs.time_formats import TimeFormat, advice
from pik.model.instant import format_instant, parse_instant
from pik.model.zone import load_zone
from tests.support.model.texts import from_datetime

BERLIN = load_zone("Europe/Berlin")
MOMENTS = st.datetimes(datetime(1910, 1, 1), datetime(2200, 1, 1))  # noqa: DTZ001 - hypothesis takes naive ends


@pytest.mark.parametrize("name", NAMED)
def test_each_example_is_the_same_moment(name: str) -> None:
    assert TimeFormat(name, BERLIN)(NAMED[name].example) == parse_instant("2026-01-31T22:59:59Z")
    if NAMED[name].is_local:
        with pytest.raises(UsageError, match="its times have no offset from UTC"):
            TimeFormat(name)


@pytest.mark.parametrize(
    ("name", "value", "instant"),
    [
        ("excel", 1, "1900-01-01T00:00:00Z"),
        ("excel", "59.5", "1900-02-28T12:00:00Z"),
        ("excel", 61, "1900-03-01T00:00:00Z"),
        ("excel", 25569, "1970-01-01T00:00:00Z"),
        ("excel", 46053.123456789, "2026-01-31T02:57:46.667Z"),
        ("excel1904", 0, "1904-01-01T00:00:00Z"),
        ("excel1904", 24107, "1970-01-01T00:00:00Z"),
        ("java_date", "Sat Jan 31 22:59:59 GMT+01:00 2026", "2026-01-31T21:59:59Z"),
        ("java_date", "Sat Jan 31 22:59:59 UTC 2026", "2026-01-31T22:59:59Z"),
        ("java_date", "Sat Jan 31 22:59:59 2026", "2026-01-31T22:59:59Z"),
        ("javascript", "Sat Jan 31 2026 23:59:59 GMT+0100", "2026-01-31T22:59:59Z"),
        ("rfc2822", "31 Jan 2026 23:59 +0100 (CET)", "2026-01-31T22:59:00Z"),
        ("rfc2822", "Sat, 31 Jan 2026 23:59:59 EST", "2026-02-01T04:59:59Z"),
        ("rfc2822", "Fri, 31 Jul 2026 23:59:59 pdt", "2026-08-01T06:59:59Z"),
        ("apache", "31/Jan/2026:23:59:59 +0100", "2026-01-31T22:59:59Z"),
        ("dotnet_json", r"\/Date(-1)\/", "1969-12-31T23:59:59.999Z"),
        ("filetime", 116444736000000001, "1970-01-01T00:00:00.000000100Z"),
        ("dotnet_ticks", "621355968000000000", "1970-01-01T00:00:00Z"),
    ],
)
def test_what_named_formats_read(name: str, value: Any, instant: str) -> None:
    assert format_instant(TimeFormat(name, load_zone("UTC"))(value)) == instant


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("excel", 60, "29 February 1900"),
        ("excel", 60.99, "29 February 1900"),
        ("excel", 0.5, "without a date"),
        ("excel", "46053,5", "is not a number"),
        ("excel", True, "is not a number"),
        ("excel", "1e400", "outside of"),
        ("excel", 46110.1, "does not exist in Europe/Berlin"),
        ("excel1904", -1, "before 1904"),
        ("java_date", "Sat Jan 31 23:59:59 CEST 2026", "clocks in Europe/Berlin did not show"),
        ("java_date", "Sun Mar 29 02:30:00 CET 2026", "clocks in Europe/Berlin did not show"),
        ("java_date", "Sun Jan 31 23:59:59 CET 2026", "day of the week"),
        ("javascript", "Sat Jan 31 2026 23:59:59", "is not written as in"),
        ("rfc2822", "Sat, 31 Jan 26 23:59:59 GMT", "is not written as in"),
        ("rfc2822", "Sat, 31 Jan 2026 23:59:59 CET", "not an offset from UTC"),
        ("rfc2822", "Sat, 31 Jan 2026 23:59:60 GMT", "leap seconds"),
        ("apache", 1, "is not a text"),
        ("dotnet_json", "/Date(x)/", "is not written as in"),
        ("filetime", 0, "outside of"),
        ("filetime", 116444736000000000.001, "is not"),
        ("dotnet_ticks", "621355968000000000.001", "finer than a nanosecond"),
    ],
)
def test_what_named_formats_reject(name: str, value: Any, reason: str) -> None:
    if isinstance(value, float) and name == "filetime":
        value = "116444736000000000.001"
        reason = "finer than a nanosecond"
    with pytest.raises(Invalid) as refusal:
        TimeFormat(name, BERLIN)(value)
    assert reason in refusal.value.message


@given(MOMENTS)
def test_the_serial_day_of_a_spreadsheet_is_read_to_the_millisecond(moment: datetime) -> None:
    """Both as the double has it, and with the ten digits after the point that a CSV may have."""
    moment = moment.replace(microsecond=moment.microsecond // 1000 * 1000)
    days = (moment - datetime(1899, 12, 30)) / timedelta(days=1)  # noqa: DTZ001 - of local time
    for written in (days, f"{days:.10f}"):
        assert TimeFormat("excel", load_zone("UTC"))(written) == from_datetime(moment)


@given(MOMENTS, st.integers(-14 * 60, 14 * 60))
def test_mails_and_java_are_read_as_their_libraries_write(moment: datetime, minutes: int) -> None:
    whole = moment.replace(microsecond=0, tzinfo=UTC)
    there = whole.astimezone((whole + timedelta(minutes=minutes)).tzinfo)
    assert TimeFormat("rfc2822")(format_datetime(there)) == from_datetime(whole)
    local = whole.astimezone(BERLIN.info)
    text = local.strftime("%a %b %d %H:%M:%S %Z %Y")
    assert TimeFormat("java_date", BERLIN)(text) == from_datetime(whole)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (1769900399, "; --time-format epoch reads it"),
        ("1769900399000", "; --time-format epoch_ms reads it"),
        (46053.9, "; --time-format excel --timezone ZONE reads it"),
        (134143739990000000, "; --time-format filetime reads it"),
        (639055007990000000, "; --time-format dotnet_ticks --timezone ZONE reads it"),
        ("2026-01-31", "; --time-format %Y-%m-%d --timezone ZONE reads it"),
        ("2026-W05-6T22:59:59Z", "; --time-format iso8601 reads it"),
        ("Sat Jan 31 23:59:59 CET 2026", "; --time-format java_date --timezone ZONE reads it"),
        ("Sat, 31 Jan 2026 22:59:59 GMT", "; --time-format rfc2822 reads it"),
        ("31/01/2026", ""), ("soon", ""), (20260131, ""), (None, ""), ([], ""), (True, ""),
    ],
)  # fmt: skip
def test_a_value_that_is_not_read_names_the_format_that_would_read_it(value: Any, said: str) -> None:
    assert advice(value) == said


@pytest.mark.parametrize(
    ("format_", "value", "said"),
    [
        ("rfc3339", 1769900399, "epoch reads it, auto reads both forms"),
        ("epoch_ms", "2026-01-31T22:59:59Z", "iso8601 reads it, auto reads both forms"),
        ("epoch", 1769900399000.5, "epoch_ms reads it"),
        ("%d.%m.%Y", 1769900399, "epoch reads it"),
    ],
)
def test_a_format_that_would_read_only_this_value_is_named_with_the_one_that_reads_all(
    format_: str, value: Any, said: str
) -> None:
    with pytest.raises(Invalid) as named:
        TimeFormat(format_, BERLIN)(value)
    assert named.value.message.endswith(f"; --time-format {said}")
    if "auto" in said:
        assert TimeFormat("auto")(value) == from_datetime(datetime(2026, 1, 31, 22, 59, 59, tzinfo=UTC))


def test_a_value_with_dashes_is_not_taken_for_an_error_that_names_an_option() -> None:
    with pytest.raises(Invalid, match="; --time-format javascript reads it"):
        TimeFormat("rfc3339")("Sat Jan 31 2026 23:59:59 GMT+0100 (--x)")
    with pytest.raises(Invalid) as named:
        TimeFormat("rfc3339")("2026-01-31T23:59:59")
    assert "--timezone" in named.value.message
    assert "reads it" not in named.value.message
