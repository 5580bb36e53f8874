"""`pik lag`: limits and exit codes, what fits a terminal, and what is wrong with a command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


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
        (("--store", "absent"), 4, "absent"),
    ],
)
def test_a_wrong_command_line_names_what_is_wrong(
    shop: Callable[..., Any], options: tuple[str, ...], code: int, message: str
) -> None:
    result = shop("lag", *options)
    assert (result.code, message in result.err) == (code, True), result.err
