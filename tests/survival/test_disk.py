"""A disk that is full or cannot be written to: exit code 4, nothing half-written, and the next run goes on."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from pik.model.window import ALL_TIME
from pik.stores import open_store
from tests.support.snapshot import assert_sound, snapshot
from tests.survival.conftest import PATIENCE, pik, whole

COULD_NOT = 4
PARTLY = 3


def limited(size: int) -> Callable[[], None]:
    """No file may become larger than so many bytes: what a full disk is like, on any system and for any user."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return limit


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    errors = process.communicate(timeout=PATIENCE)[1]
    return process.returncode, errors


def is_one_sentence_and_a_hint(errors: str) -> bool:
    lines = errors.splitlines()
    if len(lines) == 1 and errors.startswith("{"):  # of a command with --format json
        found = json.loads(errors)
        return bool(found["error"] and found["hint"])
    return len(lines) == 2 and lines[0].startswith("error: ") and lines[1].startswith("hint: ")


@pytest.mark.parametrize(
    "percents", [(40,), pytest.param((1, 10, 20, 30, 50, 60, 70, 80, 1000), marks=pytest.mark.slow)], ids=str
)
def test_promise_1_a_disk_that_is_full_sooner_or_later(tmp_path: Path, events: Path, percents: tuple[int, ...]) -> None:
    finished = whole(tmp_path, events)
    expected = snapshot(finished)
    largest = max(path.stat().st_size for path in Path(finished.url).rglob("*") if path.is_file())
    for percent in percents:
        url = tmp_path / f"store{percent}"
        assert ended(pik("init", "--store", str(url)))[0] == 0
        command = ("ingest", str(events), "--store", str(url))
        code, errors = ended(pik(*command, preexec_fn=limited(largest * percent // 100)))
        assert code == (COULD_NOT if percent < 100 else PARTLY)
        if code == COULD_NOT:
            assert is_one_sentence_and_a_hint(errors), errors
        code, errors = ended(pik(*command))
        assert code == (PARTLY if percent < 100 else 0), errors  # a few lines are no events
        store = open_store(str(url))
        assert snapshot(store) == expected
        assert_sound(store)


@pytest.mark.parametrize("percent", [50, *(pytest.param(each, marks=pytest.mark.slow) for each in (10, 90))])
def test_promise_1_a_disk_that_is_full_during_a_replay(tmp_path: Path, events: Path, percent: int) -> None:
    reference, url = Path(whole(tmp_path, events).url), tmp_path / "store"
    shutil.copytree(reference, url)
    command = ("replay", "--all", "--reason", "x", "--promote", "--yes", "--store")
    before = (url / "state.db").stat().st_size
    assert ended(pik(*command, str(reference)))[0] == 0
    needed = max(path.stat().st_size for path in (reference / "state.db", reference / "index.db"))
    limit = before + (needed - before) * percent // 100
    code, errors = ended(pik(*command, str(url), "--quiet", preexec_fn=limited(limit)))
    assert code == COULD_NOT
    assert is_one_sentence_and_a_hint(errors), errors
    assert list(open_store(str(url)).aggregates.current("event_count", ALL_TIME)) == []
    assert ended(pik(*command, str(url)))[0] == 0
    assert values(url) == values(reference)


def values(url: Path) -> list[tuple[object, ...]]:
    """What is current."""
    found = [one.computed for one in open_store(str(url)).aggregates.current("event_count", ALL_TIME)]
    assert found
    return [(one.bucket, one.entity_id, one.value, one.counted) for one in found]


@pytest.mark.parametrize(
    "name",
    ["events.parquet", *(pytest.param(f"events{end}", marks=pytest.mark.slow) for end in (".jsonl", ".csv", "/"))],
)
def test_a_disk_that_is_full_during_an_export(tmp_path: Path, events: Path, name: str) -> None:
    store = whole(tmp_path, events)
    (tmp_path / "out").mkdir()
    command = ("export", "--out", f"{tmp_path}/out/{name}", "--store", store.url, "--quiet")
    code, errors = ended(pik(*command, preexec_fn=limited(20_000)))
    assert code == COULD_NOT
    assert is_one_sentence_and_a_hint(errors), errors
    assert list((tmp_path / "out").iterdir()) == []
    assert ended(pik(*command))[0] == 0


def instead(path: Path) -> None:
    """Something that nothing can be written into, not even by root."""
    if path.is_dir():
        shutil.rmtree(path)
        path.write_text("")
    else:
        path.unlink(missing_ok=True)
        path.mkdir()


@pytest.mark.parametrize("part", ["raw", "tmp", "index.db", "locks", "format.json"])
def test_a_store_that_cannot_be_written_to(tmp_path: Path, events: Path, part: str) -> None:
    url = tmp_path / "store"
    open_store(str(url), create=True)
    instead(url / part)
    code, errors = ended(pik("ingest", str(events), "--store", str(url)))
    assert code == COULD_NOT
    assert is_one_sentence_and_a_hint(errors), errors
    assert part in errors or str(url) in errors


def test_a_store_that_cannot_be_created(tmp_path: Path, events: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    for url in (file, file / "store"):
        code, errors = ended(pik("init", "--store", str(url)))
        assert code == COULD_NOT
        assert is_one_sentence_and_a_hint(errors), errors
    assert file.read_text() == ""
