"""A disk that is full or cannot be written to: exit code 4, nothing half-written, and the next run goes on."""

from __future__ import annotations

import resource
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from pik.stores import open_store
from tests.snapshot import assert_sound, snapshot
from tests.survival.conftest import pik, whole

COULD_NOT = 4
PARTLY = 3


def limited(size: int) -> Callable[[], None]:
    """No file may become larger than so many bytes: what a full disk is like, on any system and for any user."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return limit


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    errors = process.communicate(timeout=60)[1]
    return process.returncode, errors


def is_one_sentence_and_a_hint(errors: str) -> bool:
    lines = errors.splitlines()
    return len(lines) == 2 and lines[0].startswith("error: ") and lines[1].startswith("hint: ")


def test_promise_1_a_disk_that_is_full_sooner_or_later(tmp_path: Path, events: Path) -> None:
    finished = whole(tmp_path, events)
    expected = snapshot(finished)
    largest = max(path.stat().st_size for path in Path(finished.url).rglob("*") if path.is_file())
    for percent in (1, 20, 40, 60, 80, 1000):
        url = tmp_path / f"store{percent}"
        command = ("ingest", str(events), "--store", str(url))
        code, errors = ended(pik(*command, preexec_fn=limited(largest * percent // 100)))
        assert code == (COULD_NOT if percent < 100 else PARTLY)
        if code == COULD_NOT:
            assert is_one_sentence_and_a_hint(errors), errors
        code, errors = ended(pik(*command))
        assert code == PARTLY, errors  # a few lines are no events
        store = open_store(str(url))
        assert snapshot(store) == expected
        assert_sound(store)


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
        code, errors = ended(pik("ingest", str(events), "--store", str(url)))
        assert code == COULD_NOT
        assert is_one_sentence_and_a_hint(errors), errors
    assert file.read_text() == ""
