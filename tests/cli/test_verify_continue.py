"""`pik verify --continue`: what is taken over from an interrupted verification, and what is not."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from pik.errors import StoreError
from pik.model.instant import HOUR
from pik.rawlog.segment_reader import scan_segment
from pik.runtime import checkpoint

DAYS = ("2026-01-01", "2026-01-02", "2026-01-03")
BEGINS_AGAIN = "nothing of it is kept: the same command begins again"
GOES_ON = "the same command with --continue takes over what was checked"


def event(day: str, entity: str) -> str:
    return json.dumps(
        {"source": "s", "event_type": "t", "entity_id": entity, "event_time": f"{day}T00:00:00Z", "payload": {}}
    )


@pytest.fixture
def store(pik, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store with duplicates and aggregates, of three days; its checks are kept at once."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(checkpoint, "WAIT", 0.0)
    lines = [event(day, entity) for day in DAYS for entity in "aab"]
    (tmp_path / "events.jsonl").write_text("\n".join(lines))
    pik("ingest", "events.jsonl")
    pik("replay", "--all", "--promote", "--yes")
    return tmp_path / ".pik"


@pytest.fixture
def reading(monkeypatch: pytest.MonkeyPatch):
    """Returns the days whose segments are read from now on; reading those of `failing` raises `error`."""

    def start(failing: str = "", error: BaseException | None = None) -> list[str]:
        read: list[str] = []

        def scanned(source, key, *rest):
            day = key.removeprefix("raw/event_date=")[:10]
            if day == failing and error is not None:
                raise error
            read.append(day)
            return scan_segment(source, key, *rest)

        monkeypatch.setattr("pik.usecases.care.verify_segments.scan_segment", scanned)
        return read

    return start


def kept(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "cache").rglob("*-full-*"))


def interrupted(pik, reading, *options: str) -> None:
    reading(DAYS[2], KeyboardInterrupt())
    result = pik("verify", *options)
    assert (result.code, result.err) == (130, f"interrupted; {GOES_ON}\n")


def document(pik, *options: str) -> dict[str, Any]:
    return pik("verify", *options, "--format", "json").json()


def test_an_interrupted_verification_goes_on(pik, store, tmp_path, reading):
    whole = document(pik)
    assert (whole["checked_earlier"], kept(tmp_path)) == (None, [])
    before = time.time_ns()
    interrupted(pik, reading)
    assert len(kept(tmp_path)) == 1
    read = reading(DAYS[2], StoreError("no network", hint="plug it in"))
    failed = pik("verify", "--continue")
    assert (failed.code, failed.err) == (4, f"error: no network\nhint: plug it in\n{GOES_ON}\n")
    assert read == []
    read = reading()
    shown = document(pik, "--continue")
    assert read == [DAYS[2]]
    earlier = shown.pop("checked_earlier")
    assert shown == {name: value for name, value in whole.items() if name != "checked_earlier"}
    assert [earlier[name] for name in ("segments", "days", "first_day", "last_day")] == [2, 2, *DAYS[:2]]
    assert earlier["checked_from"] <= earlier["checked_until"]
    assert earlier["checked_from"][:4] == time.strftime("%Y", time.gmtime(before // 10**9))
    assert kept(tmp_path) == []


def test_people_read_what_was_not_looked_at_again(pik, store, reading):
    interrupted(pik, reading)
    reading()
    out = pik("verify", "--continue").out
    assert "\nno problem found in 3 segments and 6 aggregates; 2 segments checked earlier\n" in out
    said = " ".join(out.split())
    assert re.search(r"checked earlier 2 segments of 2 days from 2026-01-01 to 2026-01-02, checked (at|from) 2", said)


@pytest.mark.parametrize(
    "options", [(), ("--continue", "--from", DAYS[0], "--to", "2026-01-04")], ids=["plain", "another window"]
)
def test_nothing_is_taken_over_unasked_or_by_another_command(pik, store, reading, options):
    interrupted(pik, reading)
    read = reading()
    found = pik("verify", *options)
    assert read == list(DAYS)
    assert ("nothing to continue" in found.err) == bool(options)


def test_a_day_that_has_changed_is_checked_again(pik, store, tmp_path, reading):
    interrupted(pik, reading)
    (tmp_path / "more.jsonl").write_text(event(DAYS[1], "c"))
    pik("ingest", "more.jsonl")
    read = reading()
    assert document(pik, "--continue")["checked_earlier"]["segments"] == 1
    assert read == [DAYS[1], DAYS[1], DAYS[2]]


@pytest.mark.parametrize("size", [0, 1])
def test_an_object_that_is_gone_or_has_another_size_is_found(pik, store, reading, size):
    interrupted(pik, reading)
    (segment,) = (store / "raw" / f"event_date={DAYS[0]}").iterdir()
    segment.chmod(0o644)
    segment.write_bytes(segment.read_bytes()[:-1]) if size else segment.unlink()
    reading()
    found = document(pik, "--continue")
    assert (found["missing"], found["modified"]) == (1 - size, size)
    assert found["checked_earlier"]["segments"] == 1


def test_a_day_with_a_problem_is_never_taken_over(pik, store, reading):
    (segment,) = (store / "raw" / f"event_date={DAYS[0]}").iterdir()
    segment.chmod(0o644)
    data = bytearray(segment.read_bytes())
    data[-1] ^= 1
    segment.write_bytes(data)
    interrupted(pik, reading)
    reading()
    found = document(pik, "--continue")
    assert (found["modified"], found["checked_earlier"]["first_day"]) == (1, DAYS[1])


def test_rows_that_the_index_has_lost_since_are_found(pik, store, reading):
    interrupted(pik, reading)
    with sqlite3.connect(store / "index.db") as connection:
        connection.execute("DELETE FROM event WHERE day = (SELECT min(day) FROM event)")
    connection.close()
    reading()
    found = pik("verify", "--continue", "--format", "json")
    assert (found.code, found.json()["problems"][0]["kind"]) == (1, "index differs")


def test_damaged_entries_are_not_used(pik, store, tmp_path, reading):
    interrupted(pik, reading)
    (path,) = kept(tmp_path)
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data[:-1])  # killed while it wrote the last one
    read = reading()
    found = pik("verify", "--continue")
    assert (found.code, read) == (0, list(DAYS))
    assert "2 of its lines are damaged; nothing is taken over from these" in found.err
    assert "checked earlier" not in found.out


def test_what_was_checked_long_ago_is_checked_again(pik, store, reading, monkeypatch):
    interrupted(pik, reading)
    read, now = reading(), time.time_ns()
    monkeypatch.setattr("pik.usecases.care.verify_continue.time.time_ns", lambda: now + 25 * HOUR)
    assert document(pik, "--continue")["checked_earlier"] is None
    assert read == list(DAYS)


def test_a_rebuild_of_the_index_forgets_what_was_checked(pik, store, tmp_path, reading):
    interrupted(pik, reading)
    pik("verify", "--rebuild-index")
    assert kept(tmp_path) == []
    said = pik("verify", "--continue").err
    assert said.startswith("nothing to continue: everything will be checked from the start")
    assert "the index was rebuilt" in said


def test_where_nothing_can_be_kept_the_check_goes_on(pik, store, tmp_path, reading):
    shutil.rmtree(tmp_path / "cache", ignore_errors=True)
    (tmp_path / "cache").write_text("a file")
    found = pik("verify")
    assert (found.code, found.err.count("it cannot be continued")) == (0, 1)
    reading(DAYS[2], KeyboardInterrupt())
    assert pik("verify").err.endswith(f"interrupted; {BEGINS_AGAIN}\n")


def test_a_short_verification_leaves_nothing(pik, store, tmp_path, reading, monkeypatch):
    monkeypatch.setattr(checkpoint, "WAIT", 60.0)
    reading(DAYS[2], KeyboardInterrupt())
    assert pik("verify").err == f"interrupted; {BEGINS_AGAIN}\n"
    assert kept(tmp_path) == []


@pytest.mark.parametrize("other", ["--quick", "--rebuild-index", "--restore=raw"])
def test_only_a_check_that_reads_is_continued(pik, store, other):
    found = pik("verify", "--continue", other)
    assert (found.code, found.err.startswith("error: --continue is for a check that reads")) == (2, True)
