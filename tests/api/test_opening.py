"""`import pik` costs nothing, a store is opened as the command line opens it, and reads only unless asked otherwise."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pandas
import pytest

import pik as api
from pik.api.times import nanos_of, window_of, zone_of
from pik.model.instant import parse_instant

HEAVY = ("duckdb", "pyarrow", "boto3", "msgspec", "pydantic", "typer", "rich", "pandas", "pik.api", "pik.stores")


def loaded_by(code):
    script = f"import sys; {code}; print(*sorted(sys.modules))"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(found.stdout.split())


def test_import_pik_loads_nothing_until_it_is_used():
    assert loaded_by("import pik; dir(pik)").isdisjoint(HEAVY)
    assert loaded_by("import pik; pik.open, pik.Instant, pik.NotFound").isdisjoint(
        {"duckdb", "pyarrow", "boto3", "pydantic", "typer", "rich", "pandas"}
    )


def test_what_is_offered_is_what_there_is():
    from pik import api as home
    from pik import errors

    assert {name for name, of in api._HOMES.items() if of == "pik.api"} == set(home.__all__)
    for name in api._HOMES:
        assert getattr(api, name) is getattr(home, name, None) or getattr(api, name) is getattr(errors, name)
    kinds = {name for name, one in vars(errors).items() if isinstance(one, type) and issubclass(one, api.PikError)}
    assert {name for name, of in api._HOMES.items() if of == "pik.errors"} == kinds - {"TargetUnavailable"}
    with pytest.raises(AttributeError, match="has no attribute 'opne'"):
        _ = api.opne


def test_a_store_is_found_as_the_command_line_finds_it(shop, tmp_path, monkeypatch):
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    (tmp_path / "pik.toml").write_text('[stores]\nprod = ".pik"\n')
    here = str(tmp_path / ".pik")
    for given in (None, "../.pik", Path("../.pik"), "prod", here):
        with api.open(given) as store:
            assert Path(store.url).resolve() == Path(here), given
    monkeypatch.setenv("PIK_STORE", "prod")
    assert api.open().url == here


def test_no_store_and_no_such_scheme(pik, tmp_path):
    with pytest.raises(api.NotFound, match="no store at") as raised:
        api.open(tmp_path / "absent")
    assert "pik init" in raised.value.hint
    (tmp_path / "incident.tar.zst").touch()
    with pytest.raises(api.UsageError, match="is a file, and a store is a directory") as file:
        api.open("incident.tar.zst")
    assert "pik events --store incident.tar.zst" in file.value.hint
    with pytest.raises(api.UsageError, match="unsupported store URL"):
        api.open("gs://bucket")
    assert api.open(tmp_path / "made", create=True).url == str(tmp_path / "made")


def test_a_closed_store_says_so(shop):
    with api.open() as store:
        events = store.events()
        assert "writable" not in repr(store)
    assert repr(store) == "<pik.Store: closed>"
    with pytest.raises(api.UsageError, match="the store is closed"):
        list(events)


INSTANT = parse_instant("2026-01-31T08:00:00Z")


@pytest.mark.parametrize(
    ("given", "timezone", "text"),
    [
        ("2026-01-31T08:00:00Z", None, "2026-01-31T08:00:00Z"),
        ("2026-01-31", None, "2026-01-31T00:00:00Z"),
        ("2026-01-31", "Europe/Berlin", "2026-01-30T23:00:00Z"),
        (date(2026, 1, 31), "Europe/Berlin", "2026-01-30T23:00:00Z"),
        (date(2026, 1, 31), None, "2026-01-31T00:00:00Z"),
        (datetime(2026, 1, 31, 8, 0, 0, 123456, tzinfo=UTC), None, "2026-01-31T08:00:00.123456Z"),
        (datetime(2026, 1, 31, 9, tzinfo=ZoneInfo("Europe/Berlin")), None, "2026-01-31T08:00:00Z"),
        (datetime(2026, 1, 31, 9), "Europe/Berlin", "2026-01-31T08:00:00Z"),  # noqa: DTZ001
        (pandas.Timestamp("2026-01-31T08:00:00.123456789Z"), None, "2026-01-31T08:00:00.123456789Z"),
        (api.Instant(INSTANT + 1), None, "2026-01-31T08:00:00.000000001Z"),
        (datetime(1960, 1, 1, 0, 0, 0, 1, tzinfo=UTC), None, "1960-01-01T00:00:00.000001Z"),
    ],
)
def test_accepted_times(given, timezone, text):
    assert nanos_of("from_", given, zone_of(timezone)) == parse_instant(text)


@pytest.mark.parametrize(
    ("given", "message", "hint"),
    [
        (datetime(2026, 1, 31, 8), "has no time zone", "timezone='Europe/Berlin'"),  # noqa: DTZ001
        ("the day before", "is not an RFC 3339 time", "2026-01-31"),
        (1769846400, "expected a datetime, a date, or text, not 1769846400", "such as"),
        (datetime(2999, 1, 1, tzinfo=UTC), "is outside of 1677", ""),
        (None, "expected a datetime", "such as"),
    ],
)
def test_times_that_are_refused_with_what_to_give_instead(given, message, hint):
    with pytest.raises(api.UsageError, match=message) as raised:
        nanos_of("from_", given)
    assert raised.value.message.startswith("from_: ")
    assert hint in raised.value.hint


def test_windows_that_are_refused():
    for arguments, message in (
        (("2026-01-02", "2026-01-01", None, None), "is empty"),
        (("2026-01-02", None, "2h", None), "since and from_ exclude each other"),
        ((None, None, "2 hours", None), "since: '2 hours' is not a duration"),
        ((None, None, timedelta(0), None), "since: 0:00:00 is not a positive duration"),
        ((None, None, 7200, None), "since: expected a timedelta or text, not 7200"),
        ((None, None, None, "Mars/Base"), "timezone: "),
    ):
        with pytest.raises(api.UsageError, match=message):
            window_of(*arguments)
    span = window_of(None, None, timedelta(hours=2), None)
    assert window_of(None, None, "2h", None).start - span.start < 60 * 10**9


def test_an_instant_keeps_its_nanoseconds_and_cuts_only_for_datetime():
    moment = api.Instant(-1)
    assert str(moment) == "1969-12-31T23:59:59.999999999Z"
    assert moment.to_datetime() == datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)
    assert repr(api.Instant(0)) == "Instant('1970-01-01T00:00:00Z')"
    assert sorted([api.Instant(2), api.Instant(1)])[0].nanos == 1


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_is_positive(shop, limit):
    with api.open() as store, pytest.raises(api.UsageError, match="limit: expected a positive"):
        store.events(limit=limit)
