"""Runs, their tasks and the queue of tasks in state.db."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import msgspec
from msgspec import structs

from pik.errors import CANDIDATES, ambiguous_id
from pik.model.ids import new_id
from pik.model.run import (
    ACTIVE,
    ENDED,
    KEPT_FAILURES,
    NO_FAILURES,
    DeadLetter,
    Failures,
    Run,
    RunRequest,
    RunState,
    Task,
    TaskState,
)
from pik.ports.state import UNSETTLED, Message
from pik.stores.local.lock import holding
from pik.stores.local.sqlite import Database
from pik.stores.local.state.tables import LETTER_DIGEST, RUN_DIGEST, TASK_DIGEST, WRITER_DIGEST, expect_sound
from pik.stores.state_rows import damaged_row, read_failed, read_letter, read_request, read_task, row_digest

_COLUMNS = (
    *("run_id", "request", "actor", "state", "created_at", "finished_at", "effective_start", "effective_end"),
    *("events_matched", "buckets", "tasks", "corrections_until", "planning_failure"),
)
_TASKS_IN = "(SELECT count(*) FROM task WHERE task.run_id = run.run_id AND task.state = '{}')"
_COUNTED = {
    "done": _TASKS_IN.format(TaskState.DONE),
    "failed": _TASKS_IN.format(TaskState.FAILED),
    "new": "coalesce(w.new, 0)",
    "changed": "coalesce(w.changed, 0)",
    "unchanged": "coalesce(w.unchanged, 0)",
    "removed": "coalesce(w.removed, 0)",
    "promoted": "(SELECT coalesce(sum(iif(kind = 'promote', moved, -moved)), 0) FROM promotion p"
    " WHERE p.run_id = run.run_id)",
    "rolled_back": "(SELECT coalesce(sum(moved), 0) FROM promotion p"
    " WHERE p.run_id = run.run_id AND kind = 'rollback')",
    "computed_by": "coalesce(computed_by, '[]')",
    "failed_aggregates": "(SELECT coalesce(sum(failing), 0) FROM task WHERE task.run_id = run.run_id)",
}
"""Fields of a run that are counted, in SQL; the others are columns."""

_RUN = (
    f"SELECT run.{', '.join(_COLUMNS)}, {', '.join(_COUNTED.values())},"
    f" run.digest IS {RUN_DIGEST.replace('run_id', 'run.run_id')} AND coalesce(w.sound, 1)"
    f" FROM run LEFT JOIN (SELECT *, digest IS {WRITER_DIGEST} AS sound FROM writer) w ON w.run_id = run.run_id"
)


@dataclass(slots=True)
class LocalRuns:
    """`locks` is the store's lock file."""

    database: Database
    locks: Path

    def create(self, run: Run, tasks: Iterable[Task]) -> bool:
        with self.database.write() as connection:
            connection.execute("DELETE FROM run WHERE run_id = ? AND state = ?", (run.run_id, RunState.PLANNING))
            if connection.execute("SELECT 1 FROM run WHERE run_id = ?", (run.run_id,)).fetchone():
                return False
            insert_run(connection, run)
            insert_tasks(connection, map(task_columns, tasks))
        return True

    def get(self, run_id: str) -> Run:
        low = run_id.upper()  # ULIDs
        query = f"{_RUN} WHERE run.run_id >= ?1 AND run.run_id < ?1 || '~' ORDER BY run.run_id DESC LIMIT ?2"
        found = self.database.read().execute(query, (low, CANDIDATES + 1)).fetchall()
        if not low or len(found) != 1:
            raise ambiguous_id("run", run_id, [row[0] for row in found], hint="pik runs list", others=self._ids)
        run = _run(found[0])
        rows = self.database.read().execute(
            "SELECT failures FROM task WHERE run_id = ? AND failing > 0 ORDER BY number", (run.run_id,)
        )
        failures = chain.from_iterable(read_failed(kept) for (kept,) in rows)
        return structs.replace(run, failures=tuple(islice(failures, KEPT_FAILURES)))

    def _ids(self) -> Iterator[str]:
        return (row[0] for row in self.database.read().execute("SELECT run_id FROM run ORDER BY run_id DESC"))

    def newest_first(self) -> Iterator[Run]:
        return map(_run, self.database.read().execute(f"{_RUN} ORDER BY run.run_id DESC"))

    def unfinished(self, request: RunRequest) -> Run | None:
        rows = self.database.read().execute(
            f"{_RUN} WHERE request = ? AND state IN ({', '.join('?' * len(ACTIVE))}) ORDER BY run.run_id DESC LIMIT 1",
            (_text(request), *ACTIVE),
        )
        return next(map(_run, rows.fetchall()), None)

    def set_state(
        self, run_id: str, state: RunState, finished_at: int | None = None, planning_failure: str = ""
    ) -> None:
        with self.database.write() as connection:
            expect_sound(connection, f"run {run_id}", RUN_DIGEST, "run WHERE run_id = ?", (run_id,))
            connection.execute(
                "UPDATE run SET state = ?1, finished_at = ?2, planning_failure = ?5"
                " WHERE run_id = ?3 AND (state <> 'CANCELLED' OR NOT ?4)",
                (state, finished_at, run_id, state in ENDED, planning_failure),
            )
            connection.execute(f"UPDATE run SET digest = {RUN_DIGEST} WHERE run_id = ?", (run_id,))

    def open_tasks(self, run_id: str) -> Iterator[Task]:
        rows = self.database.read().execute(
            "SELECT body FROM task WHERE run_id = ? AND state = ? ORDER BY number", (run_id, TaskState.OPEN)
        )
        return (read_task(body) for (body,) in rows)

    def mark(self, task: Task, state: TaskState, failures: Failures = NO_FAILURES) -> None:
        kept = msgspec.json.encode(failures.kept) if failures.count else None
        key = task.run_id, task.number
        with self.database.write() as connection:
            what = f"task {task.number} of run {task.run_id}"
            expect_sound(connection, what, TASK_DIGEST, "task WHERE run_id = ? AND number = ?", key)
            connection.execute(
                "UPDATE task SET state = ?, failing = ?, failures = ? WHERE run_id = ? AND number = ? AND state <> ?",
                (state, failures.count, kept, *key, TaskState.DONE),
            )
            connection.execute(f"UPDATE task SET digest = {TASK_DIGEST} WHERE run_id = ? AND number = ?", key)

    def driving(self, run_id: str) -> AbstractContextManager[None]:
        return holding(self.locks, f"run {run_id}")


def all_runs(connection: sqlite3.Connection) -> Iterator[Run]:
    """Every run, the oldest first. Raises Damaged."""
    return map(_run, connection.execute(f"{_RUN} ORDER BY run.run_id"))


def insert_run(connection: sqlite3.Connection, run: Run) -> None:
    """Insert the row of a run."""
    values = structs.asdict(run) | {"request": _text(run.request)}
    names = ", ".join(f":{name}" for name in _COLUMNS)
    connection.execute(f"INSERT INTO run VALUES ({names}, NULL)", {name: values[name] for name in _COLUMNS})
    connection.execute(f"UPDATE run SET digest = {RUN_DIGEST} WHERE run_id = ?", (run.run_id,))


def insert_tasks(connection: sqlite3.Connection, rows: Iterable[tuple[object, ...]]) -> None:
    """Insert the rows of tasks."""
    columns = "run_id, number, body, state, failing, failures, digest"
    connection.executemany(f"INSERT INTO task ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?)", rows)


def task_columns(task: Task, state: TaskState = TaskState.OPEN, failures: Failures = NO_FAILURES) -> tuple[object, ...]:
    """Return the columns of a task, its digest last."""
    kept = msgspec.json.encode(failures.kept) if failures.count else None
    columns = task.run_id, task.number, msgspec.json.encode(task), state, failures.count, kept
    return *columns, row_digest("task", *columns)


def _text(request: RunRequest) -> str:
    return msgspec.json.encode(request).decode()


def _run(row: tuple[Any, ...]) -> Run:
    *values, sound = row
    fields = dict(zip((*_COLUMNS, *_COUNTED), values, strict=True))
    if not sound:
        raise damaged_row(f"run {fields['run_id']}")
    fields["request"], fields["state"] = read_request(fields["request"]), RunState(fields["state"])
    fields["computed_by"] = tuple(msgspec.json.decode(fields["computed_by"]))
    return Run(**fields)


_PUT = (
    "INSERT INTO message (run_id, task, body, visible_at) VALUES (?, ?, ?, 0)"
    # A run that is resumed sends its tasks again: one that a dead process had received is visible at once, and its
    # attempts start over, because the task did not kill the process.
    " ON CONFLICT DO UPDATE SET visible_at = 0, receives = 0, receipt = NULL"
)


@dataclass(slots=True)
class LocalQueue:
    """Holds a task at most once; a task that is sent again becomes visible."""

    database: Database

    def send(self, tasks: Iterable[Task]) -> int:
        with self.database.write() as connection:
            before = connection.total_changes
            rows = ((task.run_id, task.number, msgspec.json.encode(task)) for task in tasks)
            connection.executemany(_PUT, rows)
            return connection.total_changes - before

    def receive(self, run_id: str, visibility: float) -> Message | None:
        now = time.time()
        with self.database.write() as connection:
            row = connection.execute(
                "UPDATE message SET visible_at = ?, receives = receives + 1, receipt = ? WHERE run_id = ? AND task ="
                " (SELECT task FROM message WHERE run_id = ? AND visible_at <= ? ORDER BY visible_at, task LIMIT 1)"
                " RETURNING body, receipt, receives",
                (now + visibility, os.urandom(16).hex(), run_id, run_id, now),
            ).fetchone()
        return Message(read_task(row[0]), row[1], row[2]) if row else None

    def acknowledge(self, receipt: str) -> None:
        with self.database.write() as connection:
            connection.execute("DELETE FROM message WHERE receipt = ?", (receipt,))

    def release(self, message: Message, delay: float, reason: str = "") -> None:  # noqa: ARG002 - the process that executes the run knows why
        with self.database.write() as connection:
            connection.execute(
                "UPDATE message SET visible_at = ?, receipt = NULL WHERE receipt = ?",
                (time.time() + delay, message.receipt),
            )

    def bury(self, message: Message, reason: str, failed_at: int, hint: str = "") -> None:
        letter = DeadLetter(
            letter_id=new_id(),
            task=message.task,
            reason=reason or UNSETTLED,
            hint=hint,
            attempts=message.receives,
            failed_at=failed_at,
        )
        with self.database.write() as connection:
            removed = connection.execute("DELETE FROM message WHERE receipt = ?", (message.receipt,)).rowcount
            if removed:
                connection.execute("INSERT INTO letter VALUES (?, ?, ?)", letter_row(letter))

    def letters(self) -> list[DeadLetter]:
        return [letter for letter in all_letters(self.database.read()) if letter.purged_at is None]

    def purged(self) -> list[DeadLetter]:
        return [letter for letter in all_letters(self.database.read()) if letter.purged_at is not None]

    def delete(self, letters: Iterable[DeadLetter]) -> None:
        with self.database.write() as connection:
            ids = ((letter.letter_id,) for letter in letters)
            connection.executemany("DELETE FROM letter WHERE letter_id = ?", ids)

    def purge(self, letters: Iterable[DeadLetter]) -> None:
        with self.database.write() as connection:
            rows = ((*columns, letter_id) for letter_id, *columns in map(letter_row, letters))
            connection.executemany("UPDATE letter SET body = ?, digest = ? WHERE letter_id = ?", rows)

    def drop(self, run_id: str) -> int:
        with self.database.write() as connection:
            # A released message has no receipt: no worker has it, whatever its delay.
            connection.execute(
                "DELETE FROM message WHERE run_id = ? AND (receipt IS NULL OR visible_at <= ?)", (run_id, time.time())
            )
            left: int = connection.execute("SELECT count(*) FROM message WHERE run_id = ?", (run_id,)).fetchone()[0]
        return left


def all_letters(connection: sqlite3.Connection) -> Iterator[DeadLetter]:
    """Yield every dead letter, the oldest first. Raises Damaged."""
    rows = connection.execute(f"SELECT letter_id, body, digest IS {LETTER_DIGEST} FROM letter ORDER BY letter_id")
    for letter_id, body, sound in rows:
        if not sound:
            raise damaged_row(f"dead letter {letter_id}")
        yield read_letter(body)


def letter_row(letter: DeadLetter) -> tuple[str, bytes, bytes]:
    """Return the row of a dead letter."""
    body = msgspec.json.encode(letter)
    return letter.letter_id, body, row_digest("letter", letter.letter_id, body)
