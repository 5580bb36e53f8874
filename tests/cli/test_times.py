"""Times as people type them, on the command line: what they are is shown in the window and in what is suggested."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pik.model.instant import HOUR, parse_instant
from tests.cli.conftest import Result
from tests.support.regular import made

Pik = Callable[..., Result]

NOW = parse_instant("2026-03-29T22:30:00Z")
"""In Berlin half past midnight of the 30th; its 29th had 23 hours."""


@pytest.fixture(autouse=True)
def _store(pik: Pik, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert pik("init").code == 0
    monkeypatch.setattr(time, "time_ns", lambda: NOW)


def _window(result: Result) -> tuple[str | None, str | None]:
    assert result.code == 0, result.err
    window = result.json()["window"]
    return window["from"], window["to"]


def test_words_are_days_of_utc_or_of_the_zone_that_the_command_line_names(pik: Pik) -> None:
    asked = ("events", "--from", "yesterday", "--until", "today", "--format", "json")
    assert _window(pik(*asked)) == ("2026-03-28T00:00:00Z", "2026-03-29T00:00:00Z")
    assert _window(pik(*asked, "--timezone", "Europe/Berlin")) == ("2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z")
    Path("pik.toml").write_text('display_timezone = "Europe/Berlin"\n[ingest]\ntimezone = "Europe/Berlin"\n')
    assert _window(pik(*asked)) == ("2026-03-28T00:00:00Z", "2026-03-29T00:00:00Z")


def test_since_takes_a_time_as_well_as_how_long_ago(pik: Pik) -> None:
    for text, start in (
        ("2h", "2026-03-29T20:30:00Z"),
        ("now-2h", "2026-03-29T20:30:00Z"),
        ("today", "2026-03-29T00:00:00Z"),
    ):
        assert _window(pik("lag", "--since", text, "--format", "json")) == (start, None)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("events --from 2h", "\nhint: that long ago is now-2h"),
        ("events --until noon", "error: --to: 'noon' is not an RFC 3339 time"),
        ("events --from today --until today", "error: the window [2026-03-29T00:00:00Z, 2026-03-29T00:00:00Z) is"),
        ("explain event_count e Yesterday", "error: BUCKET: 'Yesterday' is not an RFC 3339 time"),
        ("diff aggregates --left current@noon", "error: --left: 'noon' is not an RFC 3339 time"),
        ("correct --yes --reason x --assume shift=1h,source=a,from=today", "written out, in UTC: from=2026-01-31T"),
    ],
)  # fmt: skip
def test_what_is_not_a_time_is_refused_with_what_is(pik: Pik, line: str, said: str) -> None:
    result = pik(*line.split())
    assert (result.code, result.out) == (2, "")
    assert said in result.err


def test_a_bucket_is_a_date_of_its_metric_and_follow_up_commands_have_the_time_resolved(pik: Pik) -> None:
    Path("metric.toml").write_text('name = "there"\nvalue = "count(*)"\nbucket = "1d"\ntimezone = "Europe/Berlin"\n')
    assert pik("metrics", "apply", "metric.toml").code == 0
    Path("events.jsonl").write_text(json.dumps(made("web", NOW - 12 * HOUR, NOW, 1, "e")))
    assert pik("ingest", "events.jsonl").code == 0
    found = pik("explain", "there", "e", "yesterday", "--format", "json")
    assert found.json()["bucket"] == "2026-03-28T23:00:00Z"
    assert "--from 2026-03-28T23:00:00Z --to 2026-03-29T22:00:00Z" in found.json()["next"]
