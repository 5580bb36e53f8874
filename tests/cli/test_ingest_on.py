"""`pik ingest --on`: what a Spark cluster ingests is what this process would have, and is said in the same words."""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pik.fleets.session import Session
from pik.runtime import SILENT
from pik.stores import open_store
from pik.usecases.care.rebuild import rebuild_index
from tests.support.fleet import ShuffledFleet
from tests.support.snapshot import snapshot
from tests.support.spark import LOCATION
from tests.usecases.test_bulk import event

BLANKED = re.compile(r'--store \w+|"(?:started_at|finished_at|seconds)": ?("[^"]*"|[\d.]+)|\b01[0-9A-Z]{24}\b')


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return archive(tmp_path / "archive")


def archive(made: Path) -> Path:
    """A folder of files with duplicates and conflicts within them and across them, rejects, other formats, and one that
    cannot be read to its end."""
    (made / "more").mkdir(parents=True)
    lines = [event(number % 50, number % 3 + 1, f"k{number % 9}" if number % 4 == 0 else None) for number in range(400)]
    (made / "a.jsonl").write_bytes(b"\n".join([*lines, b"{", b'{"source":"s"}', b""]))
    (made / "b.jsonl.gz").write_bytes(gzip.compress(b"\n".join(lines[100:200])))
    (made / "c.jsonl.gz").write_bytes(gzip.compress(b"\n".join([*lines[:60], event(99, 1)]))[:-20])
    (made / "d.pdf").write_bytes(b"%PDF-1.7 \0\1")
    (made / "more" / "e.jsonl").write_bytes(event(70, 2) + b"\n" + lines[0])
    (made / "more" / "e again.jsonl").write_bytes(event(70, 2) + b"\n" + lines[0])
    return made


def blanked(result: Any) -> list[str]:
    return [f"exit {result.code}", *BLANKED.sub("", result.out).splitlines(), *BLANKED.sub("", result.err).splitlines()]


def the_same(pik: Callable[..., Any], on: str, *options: str, times: int = 2) -> None:
    """Ingest the folder here and there, so many times each."""
    ran = []
    for name, where in (("here", ()), ("there", ("--on", on))):
        pik("init", "--store", name)
        ran.append([blanked(pik("--store", name, "ingest", "archive", *options, *where)) for _ in range(times)])
    for here, there in zip(*ran, strict=True):
        assert there == here
    assert ran[0][0][0] == "exit 3"
    first, second = (open_store(name) for name in ("here", "there"))
    assert snapshot(second) == snapshot(first)
    rebuild_index(second, SILENT)
    assert snapshot(second) == snapshot(first)


@pytest.mark.parametrize("form", ["json", "table"])
def test_what_it_says_is_the_same(
    pik: Callable[..., Any], folder: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a fleet that calls functions again, in any order."""
    monkeypatch.setattr("pik.cli.context.Context.expect_fleet", lambda *_: None)
    monkeypatch.setattr("pik.cli.context.Context.fleet", lambda _cli, _on, store: ShuffledFleet(store))
    monkeypatch.setattr("pik.usecases.ingest.bulk_plan.PART", 9000)
    monkeypatch.setattr("pik.usecases.ingest.bulk_plan.SMALL", 300)
    the_same(pik, LOCATION, "--format", form)


@pytest.fixture
def driver(spark: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def made(*_: object) -> Iterator[Session]:
        yield spark

    monkeypatch.setattr("pik.fleets.session.driver", made)


@pytest.mark.xdist_group("spark")
@pytest.mark.usefixtures("driver")
def test_a_cluster_does_it(pik: Callable[..., Any], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pik.usecases.ingest.bulk_plan.PART", 9000)
    monkeypatch.setattr("pik.usecases.ingest.bulk_plan.SMALL", 300)
    the_same(pik, LOCATION, "--format", "json", "--quiet", times=1)


def test_what_a_cluster_cannot_do_is_refused(pik: Callable[..., Any], folder: Path) -> None:
    on = "--on", LOCATION
    for options in (("--one-batch",), ("--dry-run",), ("--guess",), ("--workers", "2"), ("--via", "api")):
        refused = pik("ingest", "archive", *options, *on)
        assert (refused.code, refused.out) == (2, "")
        assert f"{' '.join(options) if options[0] == '--via' else options[0]} does not go with --on" in refused.err
    assert "standard input can be read only once" in pik("ingest", "-", *on).err
    refused = pik("ingest", "archive", "--on", "nowhere")
    assert refused.code == 2
    assert "--on: invalid location 'nowhere'" in refused.err
