"""Where a store is created: by `pik init` anywhere, by `pik ingest` only at the default place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pik.cli.app import COMMANDS, root_command
from pik.stores import FORMAT

EVENT = '{"source":"s","event_type":"t","entity_id":"e","event_time":"2026-01-01T00:00:00Z","payload":{}}\n'


def lines() -> list[tuple[str, ...]]:
    """Each command that opens a store, with what it must be given."""
    return [
        ("ingest", "events.jsonl"),
        ("ingest", "events.jsonl", "--dry-run"),
        ("ingest", "events.jsonl", "--max-window", "1000000"),
        ("batches",),
        ("batches", "01M846YB26N4C30W9ABZEXB4WG", "--rejects"),
        ("status",),
        ("events",),
        ("show", "ba221f70"),
        ("duplicates",),
        ("pull", "--into", "copy", "--since", "1d"),
        ("metrics", "apply", "metric.toml"),
        ("metrics", "apply", "metric.toml", "--dry-run"),
        ("metrics", "list"),
        ("metrics", "show", "event_count"),
        ("metrics", "retire", "event_count", "--reason", "x", "--yes"),
        ("metrics", "retire", "event_count", "--reason", "x", "--dry-run"),
        ("metrics", "reinstate", "event_count", "--yes"),
        ("aggregates",),
        ("aggregates", "import", "events.jsonl", "--metric", "event_count", "--yes"),
        ("diff", "aggregates"),
        ("diff", "events", "events.jsonl"),
        ("triage",),
        ("report", "--incident", "x", "--out", "x.md"),
        ("explain", "event_count", "e", "2026-01-01"),
        ("history",),
        ("lag",),
        ("gaps",),
        ("sql", "SELECT 1"),
        ("correct", "--assume", "shift=1h,source=web", "--reason", "late", "--yes"),
        ("corrections", "list"),
        ("corrections", "show", "01M846YB26N4C30W9ABZEXB4WG"),
        ("corrections", "revoke", "01M846YB26N4C30W9ABZEXB4WG", "--reason", "right", "--yes"),
        ("replay", "--all"),
        ("runs", "list"),
        ("runs", "show", "01M846YB26N4C30W9ABZEXB4WG"),
        ("runs", "resume", "01M846YB26N4C30W9ABZEXB4WG"),
        ("runs", "cancel", "01M846YB26N4C30W9ABZEXB4WG"),
        ("runs", "wait", "01M846YB26N4C30W9ABZEXB4WG"),
        ("dlq", "list"),
        ("dlq", "show", "01M846YB26N4C30W9ABZEXB4WG"),
        ("dlq", "redrive", "--all"),
        ("dlq", "purge", "--all", "--reason", "x", "--yes"),
        ("promote", "01M846YB26N4C30W9ABZEXB4WG", "--yes"),
        ("rollback", "01M846YB26N4C30W9ABZEXB4WG", "--yes"),
        ("republish", "--all", "--target", "out.ndjson", "--yes"),
        ("republish", "--all", "--target", "out.ndjson", "--dry-run"),
        ("republish", "list"),
        ("republish", "show", "01M846YB26N4C30W9ABZEXB4WG"),
        ("republish", "resume", "01M846YB26N4C30W9ABZEXB4WG"),
        ("republish", "cancel", "01M846YB26N4C30W9ABZEXB4WG", "--reason", "x"),
        ("export", "--out", "out.jsonl"),
        ("bundle", "--incident", "x", "--from", "2026-01-01", "--to", "2026-01-02", "--out", "new.tar.zst"),
        ("verify",),
        ("verify", "--continue"),
        ("verify", "--rebuild-index"),
        ("verify", "--restore", "events.jsonl"),
        ("compact",),
        ("compact", "--dry-run"),
        ("backup", "new.backup"),
        ("restore", "events.jsonl"),
    ]


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    (tmp_path / "events.jsonl").write_text(EVENT)
    (tmp_path / "metric.toml").write_text('name = "n"\nvalue = "count(*)"\n')
    return tmp_path


@pytest.mark.parametrize("named", ["option", "variable", "file"])
@pytest.mark.parametrize("line", lines(), ids=" ".join)
def test_no_command_creates_a_store_that_is_named(
    pik: Any, inputs: Path, monkeypatch: pytest.MonkeyPatch, line: tuple[str, ...], named: str
) -> None:
    if named == "variable":
        monkeypatch.setenv("PIK_STORE", "tpyo")
    if named == "file":
        (inputs / "pik.toml").write_text('store = "tpyo"\n')
    before = sorted(inputs.iterdir())
    result = pik(*line, *(("--store", "tpyo") if named == "option" else ()))
    assert result.code == 4
    place = inputs / "tpyo"
    hint = f"another directory, or --store DIR? To create an empty one: pik init --store {place}"
    assert result.err == f"error: no store at {place}\nhint: {hint}\n"
    assert sorted(inputs.iterdir()) == before


def test_every_command_is_tried() -> None:
    tried = {line[0] for line in lines()} | {"init", "demo", "help", "stack", "mappings", "cluster"}
    assert tried == set(COMMANDS)
    root = root_command()
    ctx = root.make_context("pik", [], resilient_parsing=True)
    for name in set(COMMANDS) - {"stack", "mappings", "cluster"}:
        inner = getattr(root.get_command(ctx, name), "commands", {})
        assert {line[1] for line in lines() if line[0] == name and len(line) > 1} >= set(inner)


@pytest.mark.parametrize("line", [line for line in lines() if line[0] != "ingest"], ids=" ".join)
def test_nor_at_the_default_place(pik: Any, inputs: Path, line: tuple[str, ...]) -> None:
    before = sorted(inputs.iterdir())
    result = pik(*line)
    assert (result.code, f"no store at {inputs}/.pik" in result.err) == (4, True)
    assert sorted(inputs.iterdir()) == before


def test_ingest_creates_the_default_store_and_reports_it_once(pik: Any, inputs: Path) -> None:
    assert pik("ingest", "events.jsonl").err == f"created a store at {inputs}/.pik\n"
    assert pik("ingest", "events.jsonl").err == ""


@pytest.mark.parametrize("named", ["option", "variable", "file"])
def test_init_creates_what_is_named_and_leaves_what_is_there(
    pik: Any, inputs: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    if named == "variable":
        monkeypatch.setenv("PIK_STORE", "mine")
    if named == "file":
        (inputs / "pik.toml").write_text('store = "mine"\n')
    option = ("--store", "mine") if named == "option" else ()
    first = pik("init", *option, "--format", "json").json()
    assert (first["store"], first["created"], first["store_format"]) == (f"{inputs}/mine", True, FORMAT)
    assert pik("ingest", "events.jsonl", *option).code == 0
    again = pik("init", *option, "--format", "json").json()
    assert again["created"] is False
    assert pik("status", *option, "--format", "json").json()["events"] == 1
    assert not (inputs / ".pik").exists()


def test_init_refuses_a_directory_with_other_things_and_a_stack(pik: Any, inputs: Path) -> None:
    taken = pik("init", "--store", ".")
    assert (taken.code, "with other things in it" in taken.err) == (4, True)
    stack = pik("init", "--store", "aws://pik")
    assert (stack.code, "is a deployed stack" in stack.err) == (2, True)


def test_the_default_store_is_looked_up_in_parent_directories(
    pik: Any, inputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pik("ingest", "events.jsonl")
    (inputs / "a/b").mkdir(parents=True)
    monkeypatch.chdir(inputs / "a/b")
    assert pik("status", "--format", "json").json()["store"] == f"{inputs}/.pik"
    assert pik("ingest", "../../events.jsonl", "--again").err == ""
    assert pik("init", "--format", "json").json()["store"] == f"{inputs}/a/b/.pik"
    assert pik("status", "--format", "json").json()["events"] == 0
