"""A store that must not be written to: a snapshot, a read-only mount, another user's. Reading commands work on it."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pik.errors import Busy
from pik.stores.local import sqlite
from pik.stores.local.private_copy import has_log, private_copy
from pik.stores.local.sqlite import Database

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("PIK_")}
ENVIRONMENT["PYTHONPATH"] = str(ROOT)

READING = (
    ("status",),
    ("batches",),
    ("events", "--entity", "e"),
    ("duplicates",),
    ("show", "EVENT"),
    ("metrics", "list"),
    ("aggregates",),
    ("aggregates", "--history"),
    ("diff", "aggregates"),
    ("runs", "list"),
    ("dlq", "list"),
    ("verify",),
    ("verify", "--full"),
    ("export", "--out", "OUT"),
    ("pull", "--into", "OUT"),
)
WRITING = (("ingest", "events.jsonl", "--again"), ("replay", "--all", "--reason", "x"), ("verify", "--rebuild-index"))


def pik(directory: Path, *words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pik", *map(str, words)]
    return subprocess.run(command, cwd=directory, env=ENVIRONMENT, capture_output=True, text=True, check=False)


def read_only(directory: Path, store: Path, words: tuple[object, ...]) -> subprocess.CompletedProcess[str]:
    """The command, where the store must not be written to: by its mount for root, else by its permissions."""
    command = [sys.executable, "-m", "pik", "--store", str(store), *map(str, words)]
    if os.geteuid() == 0:
        place = shlex.quote(str(store))
        mount = f"mount --bind {place} {place} && mount -o remount,ro,bind {place} && exec {shlex.join(command)}"
        command = ["unshare", "--mount", "sh", "-c", mount]
    return subprocess.run(command, cwd=directory, env=ENVIRONMENT, capture_output=True, text=True, check=False)


def _can_mount() -> bool:
    if os.geteuid():
        return True
    if shutil.which("unshare") is None:
        return False
    return subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode == 0


needs_mount = pytest.mark.skipif(not _can_mount(), reason="root may write everywhere and must not mount here")


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory with a store whose last promotion is in the log only, as a backup of a running machine has it."""
    directory = tmp_path_factory.mktemp("live")
    event = '{"source":"s","event_type":"t","entity_id":"e","event_time":"2026-01-01T00:00:00Z","payload":%s}\n'
    (directory / "events.jsonl").write_text(event % "{}")
    (directory / "more.jsonl").write_text(event % '{"n":1}')
    assert pik(directory, "ingest", "events.jsonl").returncode == 0
    assert pik(directory, "replay", "--all", "--reason", "first", "--promote", "--yes").returncode == 0
    holding = [sqlite3.connect(directory / ".pik" / name) for name in ("index.db", "state.db")]
    for connection in holding:  # the last one to close a database moves its log into it
        connection.execute("BEGIN")
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    copy(directory / ".pik", directory / "before")
    assert pik(directory, "ingest", "more.jsonl").returncode == 0
    assert pik(directory, "replay", "--all", "--reason", "second", "--promote", "--yes").returncode == 0
    yield directory
    for connection in holding:
        connection.close()


def copy(source: Path, target: Path) -> None:
    """By another process: to close a file here would end the locks that SQLite has on it."""
    subprocess.run(["cp", "-R", str(source), str(target)], check=True)


def current(done: subprocess.CompletedProcess[str]) -> list[int]:
    assert done.returncode == 0, done.stderr
    return [row["value"] for row in json.loads(done.stdout)["aggregates"]]


@needs_mount
@pytest.mark.parametrize("files", ["log and index of it", "log alone", "log and an old index of it", "no log"])
def test_promise_9_a_read_only_store_has_all_that_was_committed(live: Path, tmp_path: Path, files: str) -> None:
    store = tmp_path / "store"
    copy(live / ".pik", store)
    for name in ("index.db", "state.db"):
        assert (store / f"{name}-wal").stat().st_size > 0
        if files == "log alone":
            (store / f"{name}-shm").unlink()
        if files == "log and an old index of it":
            shutil.copyfile(live / "before" / f"{name}-shm", store / f"{name}-shm")
        if files == "no log":
            with sqlite3.connect(store / name) as connection:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            connection.close()
            assert not (store / f"{name}-wal").exists()
    before = {path: path.stat().st_mtime_ns for path in store.rglob("*")}
    question = ("aggregates", "--format", "json")
    if os.geteuid():
        subprocess.run(["chmod", "-R", "a-w", str(store)], check=True)
    try:
        assert current(read_only(tmp_path, store, question)) == [2]
        if files != "log alone":
            return
        assert current(pik(live, *question)) == [2]
        event = json.loads(read_only(tmp_path, store, ("events", "--format", "json")).stdout)["events"][0]["event_id"]
        for number, words in enumerate(READING):
            names = {"OUT": str(tmp_path / f"out{number}"), "EVENT": event}
            done = read_only(tmp_path, store, tuple(names.get(word, word) for word in words))
            assert (done.returncode, "error" in done.stderr) == (0, False), (words, done.stderr)
        shutil.copyfile(live / "events.jsonl", tmp_path / "events.jsonl")
        for words in WRITING:
            done = read_only(tmp_path, store, words)
            assert done.returncode == 4, words
            assert done.stderr.startswith(f"error: the store at {store} is read-only\nhint: commands that only read")
    finally:
        subprocess.run(["chmod", "-R", "u+w", str(store)], check=True)
        assert {path: path.stat().st_mtime_ns for path in store.rglob("*")} == before


SCHEMA = "CREATE TABLE thing (name TEXT);\nINSERT INTO thing VALUES ('one');\n"


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Database:
    made = Database(tmp_path / "test.db", SCHEMA.strip().removesuffix(";"))
    made.create()
    monkeypatch.setattr(sqlite, "is_read_only", lambda _: True)
    with sqlite3.connect(made.path) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
    connection.close()
    return made


def test_a_reader_without_locks_notices_a_writer(database: Database) -> None:
    rows = database.read()
    assert rows.execute("SELECT name FROM thing").fetchall() == [("one",)]
    with sqlite3.connect(database.path) as other:
        other.execute("INSERT INTO thing VALUES ('two')")
    other.close()
    with pytest.raises(Busy, match="was written to while it was being read"):
        rows.execute("SELECT name FROM thing")
    database.close()
    assert len(database.read().execute("SELECT name FROM thing").fetchall()) == 2


def test_a_private_copy_has_what_is_in_the_log_only(database: Database) -> None:
    other = sqlite3.connect(database.path)
    other.execute("INSERT INTO thing VALUES ('two')")
    other.commit()
    assert has_log(database.path)
    copy = private_copy(database.path)
    assert copy.parent != database.path.parent
    assert copy == private_copy(database.path)  # one for all connections of a process
    with sqlite3.connect(copy) as connection:
        assert connection.execute("SELECT count(*) FROM thing").fetchone() == (2,)
    connection.close()
    other.close()


@pytest.mark.skipif(os.geteuid() != 0 or not _can_mount(), reason="needs a small disk, which only root can make")
def test_a_full_disk_is_called_that_and_can_still_be_read(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    event = '{"source":"s","event_type":"t","entity_id":"e","event_time":"2026-01-01T00:00:00Z","payload":{}}\n'
    (tmp_path / "events.jsonl").write_text(event)
    pik_ = shlex.join([sys.executable, "-m", "pik", "--store", "disk/store"])
    script = f"""
mount -t tmpfs -o size=2m tmpfs disk
{pik_} -q init && {pik_} -q ingest events.jsonl || exit 9
dd if=/dev/zero of=disk/full bs=1k 2>/dev/null
{pik_} events --format jsonl || exit 8
{pik_} replay --all --reason x
"""
    command = ["unshare", "--mount", "sh", "-c", script]
    done = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 4, done.stderr
    assert '"entity_id":"e"' in done.stdout
    place = f"{tmp_path}/disk/store"
    assert (
        f"error: no space left on the disk for {place}/state.db\nhint: make room on the disk of {place}" in done.stderr
    )
