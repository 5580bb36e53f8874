"""TAB offers what there is in the store and in pik.toml, quickly, quietly and without the network."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from pik.cli.app import run
from tests.cli.conftest import Result
from tests.support.regular import START, made

Pik = Callable[..., Result]

TOML = '[stores]\nprod = "aws://prod"\nlocal = ".pik"\n[mapping.till.map]\nsource = "\'till\'"\n'


@pytest.fixture
def offered(
    pik: Pik,
    once: Callable[[Callable[[], object]], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Callable[[str], list[str]]:
    """What bash is offered after a line; the store has two entities, of which one is not a plain word."""

    def build() -> None:
        Path("pik.toml").write_text(TOML)
        events = [made("web", START, START, number, entity) for number, entity in enumerate(["e-17", "two words"])]
        Path("some events.jsonl").write_text("\n".join(map(json.dumps, events)))
        for line in (("init",), ("ingest", "some events.jsonl"), ("replay", "--all")):
            assert pik(*line).code == 0

    once(build)

    def offer(line: str) -> list[str]:
        monkeypatch.setenv("_PIK_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", str(line.count(" ")))
        capsys.readouterr()
        with suppress(SystemExit):
            run([])
        said = capsys.readouterr()
        assert said.err == ""
        monkeypatch.delenv("_PIK_COMPLETE")
        return said.out.split()

    return offer


def test_names_and_ids_are_those_of_the_store(pik: Pik, offered: Callable[[str], list[str]]) -> None:
    [run_id] = [row["run_id"] for row in pik("runs", "list", "--format", "json").json()["runs"]]
    [batch_id] = [row["batch_id"] for row in pik("batches", "--format", "json").json()["batches"]]
    assert offered("pik runs show ") == offered("pik promote ") == ["latest", run_id]
    assert offered("pik diff aggregates --run 0") == offered("pik --store local dlq list --run 0") == [run_id]
    assert offered("pik events --batch ") == offered("pik batches ") == ["latest", batch_id]
    assert (
        offered("pik lag --metric event") == offered("pik metrics show ") == offered("pik explain ") == ["event_count"]
    )
    assert offered("pik events --entity ") == ["e-17"]  # a name that a shell takes as one word
    assert offered("pik events --source w") == ["web"]
    assert offered("pik --store ") == offered("pik events --store ") == ["prod", "local"]
    assert offered("pik ingest --mapping t") == offered("pik mappings show t") == ["till"]


@pytest.mark.parametrize("form", ["zsh", "fish"])
def test_other_shells_are_told_what_an_id_is(
    offered: Callable[[str], list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    assert offered("pik batches 0")
    monkeypatch.setenv("_PIK_COMPLETE", f"complete_{form}")
    monkeypatch.setenv("_TYPER_COMPLETE_ARGS", "pik batches 0")
    monkeypatch.setenv("_TYPER_COMPLETE_FISH_ACTION", "get-args")
    with pytest.raises(SystemExit):
        run([])
    assert "some_events.jsonl" in capsys.readouterr().out


def test_whatever_goes_wrong_nothing_is_offered_and_nothing_said(
    offered: Callable[[str], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        os._exit(9)  # an error would be silenced like all others

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert offered("pik --store prod runs show ") == []
    assert offered("pik --store nowhere events --batch ") == []
    assert offered("pik events --limit x --batch 99") == []
    Path(".pik/index.db").write_bytes(b"damaged")
    assert offered("pik events --batch 0") == []
    Path("pik.toml").write_text("stores = ")
    assert offered("pik --store ") == []
    assert offered("pik eve") == ["events"]
