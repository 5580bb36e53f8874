"""`pik gaps`: exit codes, what fits a terminal, what cannot be known, and what is wrong with a command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from time import time_ns
from typing import Any

import pytest

from pik.model.instant import HOUR, MINUTE
from tests.support.regular import healthy, irregular, lines, made


@pytest.fixture
def shop(pik: Callable[..., Any], tmp_path: Path, once: Callable[..., None]) -> Callable[..., Any]:
    """Ten days of a source, with gaps in the last two."""

    def make() -> None:
        (tmp_path / "e.jsonl").write_text(lines(irregular()))
        assert pik("ingest", "e.jsonl").code == 0

    once(make)
    return pik


def test_what_is_found_is_exit_1_and_has_its_rule(shop: Callable[..., Any]) -> None:
    result = shop("gaps", "--since", "52w", "--sequence-field", "payload.n", "--format", "json")
    found = json.loads(result.out)
    assert result.code == 1
    assert [one["ended"] for one in found["silences"]] == [True, False]
    assert found["silences"][0]["length_ms"] // HOUR_MS == 4
    assert [one["kind"] for one in found["changes"]] == ["drop", "spike"]
    [sequence] = found["sequences"]
    assert sum(one["count"] for one in found["missing_ranges"]) == sequence["missing_numbers"] > 100
    assert "28 earlier days" in found["rule"]
    assert "5 (drop) or 6 (spike" in found["rule"]


HOUR_MS = 3_600_000


def test_since_ends_now(pik: Callable[..., Any], tmp_path: Path) -> None:
    moment = time_ns() - 20 * MINUTE
    (tmp_path / "e.jsonl").write_text(lines([made("till", moment - HOUR, moment, 1), made("till", moment, moment, 2)]))
    pik("ingest", "e.jsonl")
    result = pik("gaps", "--since", "30m", "--source", "till", "--every", "15m", "--format", "json")
    assert result.code == 1
    [silence] = json.loads(result.out)["silences"]
    assert (silence["ended"], silence["length_ms"] // 60_000) == (False, 20)


def test_a_quiet_window_is_exit_0(shop: Callable[..., Any]) -> None:
    result = shop("gaps", "--from", "2026-01-08T08:00:00Z", "--to", "2026-01-08T20:00:00Z", "--format", "json")
    assert (result.code, json.loads(result.out)["silences"], json.loads(result.out)["changes"]) == (0, [], [])
    assert shop("gaps", "--from", "2026-01-08", "--to", "2026-01-09", "--every", "6h").code == 0


def test_too_little_history_is_a_note_and_exit_0(pik: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "e.jsonl").write_text(lines(healthy(1, 2)))
    pik("ingest", "e.jsonl")
    result = pik("gaps")
    assert result.code == 0
    assert "cannot know what is usual for 3 groups" in result.out


@pytest.mark.parametrize("width", [80, 140])
def test_it_fits_the_terminal(shop: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setattr("pik.cli.table.terminal_width", lambda: width)
    out = shop("gaps", "--sequence-field", "payload.n").out
    assert max(len(one) for one in out.splitlines() if not one.startswith("note")) <= width


def test_the_volume_of_a_group_is_all_of_its_events_over_what_was_looked_at(shop: Callable[..., Any]) -> None:
    window = ("--from", "2026-01-08T08:30:00Z", "--to", "2026-01-10T20:00:00Z")
    [group] = json.loads(shop("gaps", *window, "--format", "json").out)["groups"]
    volume = group["volume"]
    assert sum(one["events"] for one in volume) == group["events"] > 0
    assert (volume[0]["start"], volume[1]["start"]) == ("2026-01-08T08:00:00Z", "2026-01-08T11:00:00Z")
    assert len(volume) == 20
    of_first = shop("events", "--from", "2026-01-08T08:00:00Z", "--to", "2026-01-08T11:00:00Z", "--format", "jsonl")
    assert volume[0]["events"] == len(of_first.out.splitlines())


def test_a_limit_says_that_it_left_rows_out(shop: Callable[..., Any]) -> None:
    found = json.loads(shop("gaps", "--sequence-field", "payload.n", "--limit", "2", "--format", "json").out)
    assert (len(found["missing_ranges"]), found["truncated"]) == (2, True)


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--source", "nobody"), 2, "nothing to look at: no event of source 'nobody'"),
        (("--entity", "nobody"), 2, "nothing to look at: there is neither an event"),
        (("--from", "2030-01-01"), 2, "nothing to look at"),
        (("--every", "often"), 2, "--every: 'often'"),
        (("--history", "x"), 2, "--history: 'x'"),
        (("--by", "hour"), 2, "--by hour: expected source, type, entity or payload.PATH"),
        (("--sequence-field", "n"), 2, "--sequence-field n"),
        (
            ("--sequence-field", "payload.N"),
            2,
            "no event in the window has an integer in the field of --sequence-field",
        ),
        (("--sequence-field", "payload.n", "--type", "paid"), 2, "--sequence-field with --type"),
        (("--sequence-field", "payload.n", "--entity", "e0"), 2, "--sequence-field with --entity"),
        (("--store", "absent"), 4, "absent"),
    ],
)
def test_a_question_that_cannot_be_answered_names_what_is_wrong(
    shop: Callable[..., Any], options: tuple[str, ...], code: int, message: str
) -> None:
    result = shop("gaps", *options)
    assert (result.code, message in result.err) == (code, True), result.err
