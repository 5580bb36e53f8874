"""The files that commands write where their user said: each is whole under its name, or it is not there."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pik.__main__ import main
from tests.support.stores import event

WINDOW = ("--from", "2026-01-01", "--to", "2026-01-06")
WRITING = {
    "backup": ("backup", "out"),
    "bundle": ("bundle", "--incident", "INC", *WINDOW, "--out", "out"),
    "report": ("report", "--incident", "INC", *WINDOW, "--out", "out", "--as", "md"),
    "export": ("export", "--out", "out.csv"),
    "sql --output": ("sql", "SELECT * FROM events", "--output", "out.parquet"),
    "diff events --write": ("diff", "events", "more.jsonl", "--write", "out"),
    "ingest --rejects": ("ingest", "events.jsonl", "--rejects", "out"),
    "ingest --dry-run --rejects": ("ingest", "events.jsonl", "--dry-run", "--rejects", "out"),
}

SLOW = pytest.mark.slow


def run(*arguments: str) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["pik", *arguments])
        return main()


@pytest.fixture(scope="module", autouse=True)
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory with a store, which commands find."""
    directory = tmp_path_factory.mktemp("outputs")
    lines = [json.dumps(event(n, "abc"[n % 3], f"0{n % 4 + 1}T0{n % 9}:00")) for n in range(20)]
    (directory / "events.jsonl").write_text("\n".join([*lines, "no event"]) + "\n")
    (directory / "more.jsonl").write_text(json.dumps(event(99, "a", "02T10:00")) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        for name in [name for name in os.environ if name.startswith("PIK_")]:
            patch.delenv(name)
        assert run("ingest", "events.jsonl") == 3
        assert run("replay", "--all", "--reason", "x", "--promote", "--yes") == 0
        yield directory


def written(directory: Path) -> dict[str, bytes]:
    there = {"events.jsonl", "more.jsonl"}
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file() and path.name not in there}


@pytest.mark.parametrize("name", [pytest.param(name, marks=SLOW if name == "bundle" else ()) for name in WRITING])
def test_on_a_full_disk_it_is_not_there_and_then_it_is(
    name: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert run(*WRITING[name]) == 4
    said = capsys.readouterr().err
    assert "No space left on device" in said
    assert "hint: make room" in said or "hint: to list them: pik batches BATCH --rejects" in said
    assert written(place) == {}
    assert run(*WRITING[name]) in (0, 1, 3)
    [out] = [word for word in WRITING[name] if word.startswith("out")]
    assert written(place).keys() - {f"{out}.manifest.json"} == {out}
    for one in written(place):
        (place / one).unlink()
