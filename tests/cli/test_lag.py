"""`pik lag`: limits and exit codes, what fits a terminal, and what is wrong with a command line."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pik.model.instant import DAY, HOUR, format_instant, parse_instant
from tests.support.regular import START, at, healthy, lines, received, shifted


def line(source: str, minute: int, lag: int) -> str:
    at, seconds = f"2026-01-01T10:{minute:02}", 10 * 3600 + minute * 60 + lag
    received = f"2026-01-01T{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}Z"
    event = {"source": source, "event_type": "t", "entity_id": "e", "event_time": f"{at}:00Z"}
    return json.dumps({**event, "received_time": received, "payload": {"n": minute}}) + "\n"


@pytest.fixture
def shop(pik: Callable[..., Any], tmp_path: Path) -> Callable[..., Any]:
    """Lags of 1 s and 400 s from the web, of -30 s, 2 s and 5000 s from the app."""
    lines = [line("web", 0, 1), line("web", 1, 400), line("app", 2, -30), line("app", 3, 2), line("app", 4, 5000)]
    (tmp_path / "e.jsonl").write_text("".join(lines))
    assert pik("ingest", "e.jsonl").code == 0
    return pik


@pytest.mark.parametrize(
    ("options", "code", "states"),
    [
        ((), 0, None),
        (("--warn-after", "5m", "--error-after", "1h"), 1, {"web": "warn", "app": "error"}),
        (("--warn-after", "5m", "--error-after", "2h"), 0, {"web": "warn", "app": "warn"}),
        (("--error-after", "2h"), 0, {"web": "pass", "app": "pass"}),
        (("--warn-after", "5m", "--error-after", "5m"), 1, {"web": "error", "app": "error"}),
        (("--error-after", "1h", "--source", "web"), 0, {"web": "pass"}),
        (
            ("--error-after", "1s", "--from", "2026-01-01T10:02:00Z", "--to", "2026-01-01T10:04:00Z"),
            1,
            {"app": "error"},
        ),
    ],
)
def test_only_an_error_is_exit_1(
    shop: Callable[..., Any], options: tuple[str, ...], code: int, states: dict[str, str] | None
) -> None:
    result = shop("lag", *options, "--format", "json")
    assert result.code == code
    groups = json.loads(result.out)["groups"]
    assert ({one["group"]: one["state"] for one in groups} if states else None) == states
    assert states or "state" not in groups[0]


@pytest.mark.parametrize("command", ["lag", "gaps"])
def test_a_path_that_no_event_has_is_named(shop: Callable[..., Any], command: str) -> None:
    said = json.loads(shop(command, "--by", "payload.App", "--format", "json").out)["note"]
    assert said.startswith("there is nothing at payload.App in any of these events")
    assert "nothing at" not in (json.loads(shop(command, "--format", "json").out)["note"] or "")


def test_the_figures_are_exact_and_negative_lags_are_kept(shop: Callable[..., Any]) -> None:
    found = json.loads(shop("lag", "--format", "json").out)
    assert [
        (one["group"], one["min_ms"], one["p50_ms"], one["max_ms"], one["negative"]) for one in found["groups"]
    ] == [
        ("app", -30000, 2000, 5000000, 1),
        ("web", 1000, 1000, 400000, 0),
    ]
    assert found["all"]["events"] == 5
    assert sum(one["events"] for one in found["histogram"]) == 5


def test_no_events_are_exit_0_and_said(shop: Callable[..., Any]) -> None:
    result = shop("lag", "--source", "nobody", "--error-after", "1s")
    assert result.code == 0
    assert "no such events" in result.out
    assert "0 events match" in result.err
    assert json.loads(shop("lag", "--source", "nobody", "--format", "json").out)["all"] is None


@pytest.mark.parametrize("width", [80, 140])
def test_it_fits_the_terminal(shop: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setattr("pik.cli.table.terminal_width", lambda: width)
    out = shop("lag", "--warn-after", "5m", "--error-after", "1h").out
    assert max(map(len, out.splitlines())) <= width
    assert "█" in out
    assert "state" in out


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--by", "colour"), 2, "--by colour: expected source, type, hour, batch or payload.PATH"),
        (("--by", "payload.a[0]"), 2, "--by payload.a[0]"),
        (("--warn-after", "soon"), 2, "--warn-after: 'soon'"),
        (("--warn-after", "2h", "--error-after", "1h"), 2, "--warn-after 2h is longer than --error-after 1h"),
        (("--from", "2026-01-02", "--to", "2026-01-01"), 2, "is empty"),
        (("--skew", "--error-after", "1h"), 2, "--skew does not go with"),
        (("--skew", "--by", "hour"), 2, "--skew does not go with"),
        (("--late", "--source", "web"), 2, "--late goes with a window"),
        (("--late", "--skew"), 2, "--late goes with a window"),
        (("--late", "--metric", "profit"), 2, "profit"),
        (("--metric", "event_count"), 2, "--metric is for the values"),
        (("--store", "absent"), 4, "absent"),
    ],
)
def test_a_wrong_command_line_names_what_is_wrong(
    shop: Callable[..., Any], options: tuple[str, ...], code: int, message: str
) -> None:
    result = shop("lag", *options)
    assert (result.code, message in result.err) == (code, True), result.err


@pytest.fixture
def skewed(pik: Callable[..., Any], tmp_path: Path) -> Callable[..., Any]:
    """Three days of two sources; the web's times are two hours too late for most of a day."""
    events = healthy(1, 3, sources=["web", "app"])
    for one in events:
        one["payload"]["till"] = f"{one['source']}'s"
    changed = [
        shifted(one, 2 * HOUR)
        if one["source"] == "web" and START + 30 * HOUR <= received(one) < START + 50 * HOUR
        else one
        for one in events
    ]
    (tmp_path / "e.jsonl").write_text(lines(changed))
    assert pik("ingest", "e.jsonl").code == 0
    return pik


@pytest.mark.parametrize(
    ("options", "group"),
    [
        ((), "web"),
        (("--by", "type", "--source", "web", "--from", "2026-01-01", "--to", "2026-01-09"), "paid"),
        (("--by", "payload.till"), "web's"),
    ],
)
def test_a_shift_is_exit_1_and_what_it_suggests_computes_with_the_right_times(
    skewed: Callable[..., Any], options: tuple[str, ...], group: str
) -> None:
    result = skewed("lag", "--skew", *options, "--format", "json")
    found = json.loads(result.out)
    assert result.code == 1
    [shift] = found["shifts"]
    assert (shift["group"], shift["zone_ms"]) == (group, -7200000)
    assert shift["looks_like"].startswith("zone -2h, ")
    [suggested] = found["next"].splitlines()
    words = shlex.split(suggested)[1:]
    assert words[:2] == ["diff", "aggregates"]
    days = Counter[str]()
    for one in json.loads(skewed(*words, "--format", "json").out)["differences"]:
        days[one["bucket"]] += one["recomputed"]
    right = [at(one) // DAY for one in healthy(1, 3, sources=["web", "app"])]
    assert list(days.values()) == [right.count(day) for day in sorted(set(right))]


def test_a_correction_that_reaches_beyond_a_shift_says_how_many_right_times_it_would_spoil(
    skewed: Callable[..., Any],
) -> None:
    right = [received(one) for one in healthy(1, 3, sources=["web"])]
    [shift] = json.loads(skewed("lag", "--skew", "--format", "json").out)["shifts"]
    since = parse_instant(shift["since"])
    hit, after = (sum(since <= one < end for one in right) for end in (START + 50 * HOUR, START + 99 * HOUR))
    begun = f"shift=-2h,source=web,received-from={shift['since']}"
    for assumption, number in ((begun, after), (f"{begun},received-to={format_instant(START + 50 * HOUR)}", hit)):
        line = ("correct", "--assume", assumption, "--reason", "INC-1", "--dry-run", "--format", "json")
        [planned] = json.loads(skewed(*line).out)["corrections"]
        farther = None if number == hit else number - hit
        assert (planned["deliveries"], planned["farther"]) == (number, farther)
        assert ("reach too far?" in str(planned["remarks"])) == (farther is not None)
    findings = json.loads(skewed("triage", "--format", "json").out)["findings"]
    [found] = [one for one in findings if one["check"] == "skew"]
    assert found["what"].endswith(f"; the last such event arrived at {shift['until']}")


def test_what_a_shift_as_received_suggests_leaves_the_recorded_correction_out_and_revokes_it_first(
    skewed: Callable[..., Any],
) -> None:
    """So that no time is moved twice."""
    [shift] = json.loads(skewed("lag", "--skew", "--format", "json").out)["shifts"]
    wide = ("--assume", f"shift=-2h,source=web,received-from={shift['since']}", "--reason", "INC-1", "--yes")
    [made] = json.loads(skewed("correct", *wide, "--format", "json").out)["corrections"]
    found = json.loads(skewed("lag", "--skew", "--as-received", "--source", "web", "--format", "json").out)
    [suggested] = found["next"].splitlines()
    words = shlex.split(suggested)[1:]
    assert words[:4] == ["diff", "aggregates", "--assume", f"without-correction={made['correction_id']}"]
    for assumed in (words, ["diff", "aggregates", "--assume", "corrections=none", *words[4:]]):
        document = json.loads(skewed(*assumed, "--format", "json").out)
        right = Counter(at(one) // DAY for one in healthy(1, 3, sources=["web", "app"]))
        days = Counter[int]()
        for one in document["differences"]:
            days[parse_instant(one["bucket"]) // DAY] += one["recomputed"]
        assert days == right
        revoke, correct = document["next"].splitlines()
        assert revoke == f"pik corrections revoke {made['correction_id']} --reason REASON"
        assert correct.startswith(f"pik correct --assume {words[-1]} ")


def test_the_rule_has_its_figures_and_negative_lags_alone_are_exit_0(shop: Callable[..., Any]) -> None:
    result = shop("lag", "--skew")
    assert result.code == 0
    assert "6 times the spread, and at least 30s" in " ".join(result.out.split())
    assert "cannot know of 2 groups" in " ".join(result.out.split())
    [negative] = json.loads(shop("lag", "--skew", "--format", "json").out)["negative_lags"]
    assert (negative["group"], negative["events"], negative["lag_ms"]) == ("app", 1, -30000)
    assert shop("lag", "--skew", "--source", "nobody").code == 0


@pytest.mark.parametrize("width", [80, 140])
def test_shifts_fit_the_terminal(skewed: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setattr("pik.cli.table.terminal_width", lambda: width)
    out = skewed("lag", "--skew").out
    assert "zone -2h" in out
    assert max(len(one) for one in out.splitlines() if not one.startswith(("next", "note"))) <= width


def test_late_events_are_shown_with_what_they_move_and_are_exit_0(shop: Callable[..., Any], tmp_path: Path) -> None:
    assert "no current values" in shop("lag", "--late").out
    shop("replay", "--all", "--promote", "--yes", "--reason", "nightly")
    assert "no late events" in shop("lag", "--late").out
    (tmp_path / "late.jsonl").write_text(line("web", 50, 1) + line("web", 51, 1))
    shop("ingest", "late.jsonl")
    result = shop("lag", "--late", "--format", "json")
    found = json.loads(result.out)
    assert (result.code, found["values_checked"], found["values_with_late_events"]) == (0, 1, 1)
    [late] = found["late_values"]
    assert (late["metric"], late["late_events"], late["before"], late["after"], late["delta"], late["proven"]) == (
        "event_count",
        2,
        5,
        7,
        2,
        True,
    )
    assert shop(*shlex.split(found["next"])[1:]).code == 1
    (tmp_path / "exact.toml").write_text("name = 'exact'\nvalue = 'sum(1.50::DECIMAL(9,2)) + count(*) * 0'\n")
    shop("metrics", "apply", "exact.toml")
    shop("replay", "--metric", "exact", "--all", "--promote", "--yes")
    (tmp_path / "later.jsonl").write_text(line("web", 52, 1))
    shop("ingest", "later.jsonl")
    [exact] = json.loads(shop("lag", "--late", "--metric", "exact", "--format", "json").out, parse_float=str)[
        "late_values"
    ]
    assert (exact["current"], exact["before"], exact["after"]) == ("10.50", "10.50", "12.00")
    assert (
        json.loads(shop("lag", "--late", "--metric", "event_count", "--entity", "x", "--format", "json").out)[
            "late_values"
        ]
        == []
    )
