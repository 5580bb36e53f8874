"""The database helper: snapshots, transactions, patience, and errors that name the thing."""

from __future__ import annotations

import multiprocessing
import pickle
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from pik.errors import Busy, StoreError
from pik.runtime.storage import scratch
from pik.stores.local.private_copy import has_log
from pik.stores.local.sqlite import Database

SCHEMA = "CREATE TABLE item (number INTEGER);\nCREATE TABLE other (a TEXT);\n"


@pytest.fixture
def database(tmp_path):
    made = Database(tmp_path / "test.db", SCHEMA, repair="make it again")
    made.create()
    return made


def fill(database, count):
    with database.write() as connection:
        connection.executemany("INSERT INTO item VALUES (?)", ((number,) for number in range(count)))


def count(database):
    return database.read().execute("SELECT count(*) FROM item").fetchone()[0]


def test_rows_keep_their_snapshot_and_later_reads_see_what_was_written_meanwhile(database):
    fill(database, 5000)
    rows = iter(database.read().execute("SELECT number FROM item ORDER BY number"))
    assert next(rows) == (0,)
    with database.write() as connection:
        connection.execute("DELETE FROM item")
    assert count(database) == 0
    assert sum(1 for _ in rows) == 4999
    assert count(database) == 0


def test_connections_are_used_again(database):
    first = database.read()
    assert [database.read() for _ in range(3)] == [first] * 3
    rows = first.execute("SELECT 1")
    assert database.read() is not first
    assert rows.fetchall() == [(1,)]
    del rows
    assert database.read() is first


def test_a_transaction_is_all_or_nothing(database):
    def interrupted():
        yield (1,)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), database.write() as connection:
        connection.executemany("INSERT INTO item VALUES (?)", interrupted())
    assert count(database) == 0


def test_commits_are_durable_and_go_through_the_log(database):
    assert database.read().execute("PRAGMA journal_mode").fetchone() == ("wal",)
    for connection in (database.read(), database.writer()):
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)


def test_it_travels_to_other_processes_as_its_path(database):
    fill(database, 2)
    again = pickle.loads(pickle.dumps(database))
    assert count(again) == 2
    assert again.path == database.path


def test_closed_it_opens_again(database):
    fill(database, 2)
    database.close()
    assert not database.path.with_name("test.db-wal").exists()
    assert count(database) == 2


def test_threads_have_their_own_connections(database):
    fill(database, 1)
    threads = [threading.Thread(target=fill, args=(database, 10)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert count(database) == 31


def _increase(database, times):
    for _ in range(times):
        with database.write() as connection:
            (number,) = connection.execute("SELECT coalesce(max(number), 0) FROM item").fetchone()
            connection.execute("INSERT INTO item VALUES (?)", (number + 1,))
        count(database)
        database.close()  # the last to close takes the log away, the next sets it up: both lock for a moment


def test_processes_that_create_open_write_and_close_at_once_all_succeed(database):
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_increase, args=(database, 40)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert database.read().execute("SELECT count(*), max(number) FROM item").fetchone() == (120, 120)


def test_a_lock_that_never_ends_is_busy_and_waited_for_aloud(database, monkeypatch):
    heard: list[str] = []
    other = Database(database.path, SCHEMA, busy=0.01, patience=0.05, waiting=heard.append)
    monkeypatch.setattr("pik.stores.local.sqlite._UNTOLD", 0.01)
    with database.write() as connection:
        connection.execute("INSERT INTO item VALUES (1)")
        with pytest.raises(Busy, match=r"test\.db locked"), other.write():
            pass
    assert heard == [f"waiting for another process, which keeps {database.path} locked"]
    assert count(other) == 1


def test_a_full_disk_is_named_and_nothing_is_half_written(database):
    fill(database, 1)
    database.writer().execute("PRAGMA max_page_count = 10")
    with pytest.raises(StoreError, match=r"no space left on the disk for .*/test\.db") as caught:
        fill(database, 100_000)
    assert "make room" in caught.value.hint
    assert count(database) == 1
    database.writer().execute("PRAGMA max_page_count = 100000")
    fill(database, 100_000)


def test_a_full_disk_of_temporary_files_is_told_as_theirs():
    """Of a bundle that is opened: its directory was not named by the user, and is gone by now."""
    with scratch() as directory:
        made = Database(directory / "test.db", SCHEMA)
        made.create()
        made.writer().execute("PRAGMA max_page_count = 10")
        with pytest.raises(StoreError, match="no space left") as caught:
            fill(made, 100_000)
        made.close()
    assert "set TMPDIR to another directory" in caught.value.hint


def test_a_file_that_is_not_a_database_is_named_with_its_repair(database):
    database.path.write_bytes(b"not a database, but long enough to be looked at" * 100)
    with pytest.raises(StoreError, match=r"test\.db is damaged") as caught:
        count(database)
    assert caught.value.hint == "make it again"


def test_a_directory_in_the_place_of_a_file_is_named(database):
    database.close()
    for name in ("test.db-wal", "test.db"):
        path = database.path.with_name(name)
        path.unlink(missing_ok=True)
        path.mkdir()
        with pytest.raises(StoreError, match=rf"/{name} is a directory, not a file") as caught:
            count(database)
        assert caught.value.hint == f"move it aside: mv {path} {path}.aside"
        path.rmdir()


def test_damage_found_while_iterating_is_named(database):
    fill(database, 20000)
    database.close()
    data = bytearray(database.path.read_bytes())
    middle = len(data) // 4096 // 2 * 4096
    data[middle : middle + 4096] = b"\xff" * 4096
    database.path.write_bytes(data)
    with pytest.raises(StoreError, match="is damaged"):
        list(database.read().execute("SELECT number FROM item"))


def test_no_access_is_named(tmp_path):
    with pytest.raises(StoreError, match=r"no access to .*missing/test\.db"):
        Database(tmp_path / "missing" / "test.db", SCHEMA).create()


@pytest.mark.parametrize("leave", [None, b""], ids=["missing", "empty"])
def test_a_lost_file_is_an_error_and_never_an_empty_answer(database, leave):
    database.path.unlink()
    if leave is not None:
        database.path.write_bytes(leave)
    with pytest.raises(StoreError, match=r"test\.db is (missing|empty)") as caught:
        count(database)
    assert caught.value.hint == "make it again"
    assert database.path.exists() == (leave is not None)


def test_a_log_that_cannot_be_looked_at_is_not_taken_for_absent(database):
    assert not has_log(database.path)
    log = database.path.with_name("test.db-wal")
    log.symlink_to(log.name)  # a loop
    with pytest.raises(OSError, match="symbolic links"):
        has_log(database.path)


def test_a_snapshot_may_be_closed_by_another_thread(database):
    """The garbage collector closes an abandoned generator in whatever thread it happens to run."""

    def numbers():
        with database.snapshot() as connection:
            yield from connection.execute("SELECT number FROM item ORDER BY number")

    fill(database, 5000)
    rows = numbers()
    assert next(rows) == (0,)
    with ThreadPoolExecutor(1) as other:
        other.submit(rows.close).result()


@pytest.mark.parametrize("name", ["PROTOCOL", "IOERR_SHMMAP", "IOERR_LOCK"])
def test_a_file_system_without_locks_is_called_that(database, name):
    failed = sqlite3.OperationalError("locking protocol")
    failed.sqlite_errorname = f"SQLITE_{name}"
    failed.sqlite_errorcode = getattr(sqlite3, failed.sqlite_errorname)
    with pytest.raises(StoreError, match=r"^cannot lock .*test\.db: locking protocol$") as error, database.translated():
        raise failed
    assert error.value.hint == "--store DIR, on a disk with locks"
