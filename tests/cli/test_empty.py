"""An empty value on the command line is a usage error; an empty result is an answer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pik.cli.app import COMMANDS, root_command

EVENT = '{"source":"s","event_type":"t","entity_id":"e","event_time":"2026-01-01T00:00:00Z","payload":{}}\n'


def values() -> Iterator[tuple[str, ...]]:
    """Each option of each command that takes a value, and each argument, given an empty one; of --null it is one."""
    root = root_command()
    ctx = root.make_context("pik", [], resilient_parsing=True)
    for name in COMMANDS:
        command = root.get_command(ctx, name)
        inner = getattr(command, "commands", None)
        for path, one in {(name, each): inner[each] for each in inner}.items() if inner else [((name,), command)]:
            for param in one.params:
                if param.param_type_name == "argument":
                    yield (*path, "")
                elif not getattr(param, "is_flag", False) and param.name not in ("help", "null"):
                    yield (*path, next(name for name in param.opts if name.startswith("--")), "")


@pytest.mark.parametrize("line", list(values()), ids=" ".join)
def test_an_empty_value_is_a_usage_error(pik: Any, line: tuple[str, ...]) -> None:
    result = pik(*line)
    assert (result.code, result.out) == (2, "")
    assert " is empty\nhint: give it a value or leave it out" in result.err
    if line[-2].startswith("--"):
        assert result.err.startswith(f"error: {line[-2]} is empty")
        unset = pik(*line[:-1], "--quiet")  # as a shell has it if the value is a variable without quotes
        assert (unset.code, unset.out) == (2, "")
        assert unset.err.startswith(f"error: {line[-2]} has no value: --quiet, which follows, is an option\nhint: ")


def test_an_unset_variable_before_the_end_of_options_is_a_missing_value(pik: Any) -> None:
    result = pik("events", "--entity", "--", "--newest")
    assert (result.code, "--entity has no value: --, which follows" in result.err) == (2, True)


def test_so_it_is_among_others_and_in_the_configuration(pik: Any, tmp_path: Path) -> None:
    assert pik("events", "--entity=").code == 2
    assert pik("replay", "--entity", "a", "--entity", "", "--reason", "x").code == 2
    (tmp_path / "pik.toml").write_text('store = ""\n')
    assert (pik("events").code, "pik.toml: store" in pik("events").err) == (2, True)


@pytest.fixture
def one_event(pik: Any, tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_text(EVENT)
    assert pik("ingest", "events.jsonl").code == 0


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (("events", "--entity", "typo"), "0 events match"),
        (
            ("events", "--from", "2027-01-01"),
            "0 events match: the store has events from 2026-01-01T00:00:00Z to 2026-01-01T00:00:00Z",
        ),
        (("duplicates",), "0 duplicates match"),
        (("duplicates", "--by", "source"), "0 duplicates match"),
        (("export", "--out", "x.jsonl", "--entity", "typo"), "0 events match"),
        (("export", "--out", "y.jsonl", "--entity", "typo", "--dry-run"), "0 events match"),
    ],
)
@pytest.mark.usefixtures("one_event")
def test_nothing_found_is_an_answer_and_reported(pik: Any, line: tuple[str, ...], said: str) -> None:
    for form in ("table", "json"):
        ended = pik(*line, "--format", form, *(("--dry-run",) if line[0] == "export" else ()))
        assert (ended.code, ended.err) == (0, f"{said}\n")
    assert pik(*line, "--fail-if-none").code == 1


@pytest.mark.parametrize("line", [("events",), ("duplicates",), ("export", "--out", "x.jsonl", "--dry-run")])
def test_an_entity_that_is_written_almost_alike_is_named(pik: Any, tmp_path: Path, line: tuple[str, ...]) -> None:
    (tmp_path / "some.jsonl").write_text(EVENT.replace('"e"', '"Customer-17"') + EVENT.replace('"e"', '"a b"'))
    pik("ingest", "some.jsonl")
    thing = "duplicates" if line == ("duplicates",) else "events"
    for entity in ("customer-17", "CUSTOMER-17 "):
        ended = pik(*line, "--entity", entity)
        assert (ended.code, ended.err) == (0, f"0 {thing} match; did you mean 'Customer-17'?\n")
    assert pik(*line, "--entity", "customer-18").err == f"0 {thing} match\n"
    elsewhere = pik(*line, "--entity", "customer-17", "--from", "2027-01-01")
    assert elsewhere.err.startswith(f"0 {thing} match: the store has events from")


def test_the_status_of_an_empty_store(pik: Any) -> None:
    pik("init")
    assert pik("events").err == "0 events match: the store has no events\n"


@pytest.mark.usefixtures("one_event")
def test_something_found_does_not_fail_if_none(pik: Any) -> None:
    pik("ingest", "events.jsonl", "--again")
    for line in (("events",), ("duplicates",), ("duplicates", "--by", "hour"), ("export", "--out", "x.jsonl")):
        ended = pik(*line, "--fail-if-none")
        assert (ended.code, ended.err) == (0, "")
    assert pik("duplicates", "--fail-if-none", "--fail-if-any").code == 1


@pytest.mark.parametrize("out", ["x.jsonl", "x/"])
@pytest.mark.usefixtures("one_event")
def test_an_export_that_fails_if_none_leaves_nothing(pik: Any, tmp_path: Path, out: str) -> None:
    """So that the same name can be given again."""
    line = ("export", "--out", out, "--as", "jsonl", "--fail-if-none", "--format", "json")
    none = pik(*line, "--entity", "typo")
    said = none.json()
    assert none.code == 1
    assert (said["rows"], said["files"], said["manifest"], said["dry_run"]) == (0, [], None, None)
    assert said["entities"] == ["typo"]
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith((out.strip("/"), ".x"))]
    assert (pik(*line).code, pik("duplicates", "--entity", "e", "--format", "json").json()["entity"]) == (0, "e")


@pytest.mark.usefixtures("one_event")
def test_a_terminal_shows_the_first_fifty_groups(pik: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [EVENT.replace('"e"', f'"e{number}"') for number in range(60)]
    (tmp_path / "more.jsonl").write_text("".join(lines) * 2)
    pik("ingest", "more.jsonl")
    assert "note" not in pik("duplicates", "--by", "entity").out
    monkeypatch.setattr("pik.cli.context.Context.default_limit", 50)
    shown = pik("duplicates", "--by", "entity").out
    assert "note        --limit N shows more than the 50 largest\n" in shown
    assert sum("e" in line.split()[0] and line.split()[0][1:].isdigit() for line in shown.splitlines() if line) == 50


@pytest.mark.usefixtures("one_event")
def test_a_terminal_shows_the_first_fifty(pik: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [EVENT.replace('"e"', f'"e{number}"') for number in range(60)]
    (tmp_path / "more.jsonl").write_text("".join(lines) * 2)
    pik("ingest", "more.jsonl")
    assert "matched    61\n" in pik("events").out
    monkeypatch.setattr("pik.cli.context.Context.default_limit", 50)
    for line in (("events",), ("duplicates",)):
        shown = pik(*line).out
        assert shown.count("\n") < 60
        assert "matched    more than 50\n" in shown
        assert "--limit N shows more" in shown
        assert "matched    6" in pik(*line, "--limit", "100").out
