"""Windows from options, and the question before what is current changes."""

from __future__ import annotations

import io
from typing import Any

import pytest

from pik.cli.app import COMMANDS, root_command
from pik.cli.options import at_one_time, confirm, window_of
from pik.errors import PikError, UsageError
from pik.model.instant import DAY, HOUR
from pik.model.window import ALL_TIME, Window

OF_TIMES = ("--from", "--as-of", "--timezone")


def test_windows() -> None:
    assert window_of(None, None, None) == ALL_TIME
    assert window_of("1970-01-02", "1970-01-03T01:00:00+01:00", None) == Window(DAY, 2 * DAY)
    assert window_of(None, None, "1970-01-02") == Window(DAY, ALL_TIME.end)
    assert window_of("1970-01-02", "1970-01-03T00:00:00Z", None, "Asia/Tokyo") == Window(15 * HOUR, 2 * DAY)
    assert window_of("1970-01-02T12:00:00.5", None, None, "Asia/Tokyo").start == DAY + 3 * HOUR + HOUR // 7200


def test_words_are_relative_to_one_moment_and_days_to_the_zone_of_the_command_line() -> None:
    with at_one_time(10 * DAY + 20 * HOUR):
        assert window_of(None, None, "2h") == Window(10 * DAY + 18 * HOUR, ALL_TIME.end)
        assert window_of("yesterday", "today", None) == Window(9 * DAY, 10 * DAY)
        assert window_of("today-1w", "tomorrow", None) == Window(3 * DAY, 11 * DAY)
        assert window_of(None, "now", "now-1d") == Window(9 * DAY + 20 * HOUR, 10 * DAY + 20 * HOUR)
        tokyo = window_of("yesterday", "today", None, "Asia/Tokyo")  # it is 5 o'clock of the next day there
        assert tokyo == Window(10 * DAY - 9 * HOUR, 11 * DAY - 9 * HOUR)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("last week", None, None), "--from: 'last week' is not an RFC 3339 time"),
        (("now-", None, None), "--from: '' is not a duration such as 90s, 15m, 2h, 7d"),
        (("today-9h", None, None), "--from: 'today-9h': days and weeks are counted from today"),
        (("now-999999w", None, None), "--from: 'now-999999w' is outside of 1677-09-22 to 2262-04-10"),
        ((None, "2026-02-30", None), "--to: '2026-02-30' is not a date of the calendar"),
        ((None, None, "2 hours"), "--since: '2 hours' is not an RFC 3339 time"),
        (("2026-01-01", None, "2h"), "--since and --from exclude each other: both begin the window"),
        (("2026-01-31", None, None, "berlin"), "--timezone: unknown time zone 'berlin'"),
        ((None, None, "2h", "berlin"), "--timezone: unknown time zone 'berlin'"),
        ((None, "2026-03-29T02:30", None, "Europe/Berlin"), "--to: '2026-03-29T02:30' does not exist in Europe/Berlin"),
        (("2026-01-02", "2026-01-02", None), "the window [2026-01-02T00:00:00Z, 2026-01-02T00:00:00Z) is empty"),
    ],
)
def test_a_wrong_window_names_the_option(given: tuple[str | None, ...], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        window_of(*given)
    assert caught.value.message.startswith(said)


@pytest.mark.parametrize(
    ("line", "said", "hint"),
    [
        (
            ["events", "--from", "2026-01-01", "10:00"],
            "pik events: unexpected argument '10:00'; it takes none",
            "a value with a space has quotes: --from '2026-01-01 10:00'",
        ),
        (
            ["metrics", "apply", "a.toml", "b.toml"],
            "pik metrics apply: unexpected argument 'b.toml'; it takes FILE",
            "`pik metrics apply --help` shows how it is used",
        ),
        (["init", "a b"], "pik init: unexpected argument 'a b'; it takes none", "pik init --store 'a b'"),
        (["events", "e"], "pik events: unexpected argument 'e'; it takes none", "pik events --entity e"),
        (
            ["explain", "m", "--", "--x7", "2026-01-01", "--expect", "5"],
            "unexpected argument '--expect'",
            "options stand before --: whatever comes after it is an argument",
        ),
        (
            ["show", "--", "-x7", "--limit"],
            "pik show: unexpected argument '--limit'; it takes EVENT_ID",
            "options stand before --: whatever comes after it is an argument",
        ),
        (
            ["diff", "--metric", "m"],
            "pik diff has no option --metric",
            "after a command that has it, such as `pik diff aggregates`",
        ),
    ],
)
def test_a_word_too_much_or_too_early_leads_on(pik: Any, line: list[str], said: str, hint: str) -> None:
    assert pik(*line).err == f"error: {said}\nhint: {hint}\n"


def test_every_command_with_a_window_takes_the_zone_of_its_times() -> None:
    root = root_command()
    ctx = root.make_context("pik", [], resilient_parsing=True)
    commands = [root.get_command(ctx, name) for name in COMMANDS]
    commands += [inner for one in commands for inner in getattr(one, "commands", {}).values()]
    found = {opt: {id(one) for one in commands for param in one.params if opt in param.opts} for opt in OF_TIMES}
    assert len(found["--from"]) > 15
    assert found["--from"] | found["--as-of"] <= found["--timezone"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("answer", "goes_on"), [("y\n", True), ("YES\n", True), ("\n", False), ("n\n", False), ("", False)]
)
def test_on_a_terminal_the_plan_is_shown_and_asked_about(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], answer: str, goes_on: bool
) -> None:
    monkeypatch.setattr("sys.stdin", Terminal(answer))
    if goes_on:
        confirm("3 buckets change", False)
    else:
        with pytest.raises(PikError, match="not confirmed; nothing was changed"):
            confirm("3 buckets change", False)
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "3 buckets change\nGo ahead? [y/N] ")


def test_without_a_terminal_it_needs_yes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    with pytest.raises(UsageError) as caught:
        confirm("plan", False)
    assert caught.value.hint == "add --yes"
    confirm("plan", True)
