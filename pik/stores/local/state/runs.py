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

from pik.model.run import (
    ENDED,
    KEPT_FAILURES,
    NO_FAILURES,
    DeadLetter,
    FailedAggregate,
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
from pik.stores.local.state.database import LETTER_DIGEST, RUN_DIGEST, TASK_DIGEST, WRITER_DIGEST, expect_sound, found
from pik.stores.state_rows import damaged_row, read_failed, read_letter, read_request, read_task, row_digest

_RUN = (
    "SELECT run.run_id, request, state, created_at, finished_at, effective_start, effective_end, events_matched,"
    f" buckets, tasks, run.digest IS {RUN_DIGEST.replace('run_id', 'run.run_id')} AND coalesce(w.sound, 1),"
    " coalesce(computed_by, '[]'),"
    " (SELECT count(*) FROM task WHERE task.run_id = run.run_id AND task.state = 'DONE'),"
    " (SELECT count(*) FROM task WHERE task.run_id = run.run_id AND task.state = 'FAILED'),"
    " coalesce(w.new, 0), coalesce(w.changed, 0), coalesce(w.unchanged, 0), coalesce(w.removed, 0),"
    " (SELECT coalesce(sum(iif(kind = 'promote', moved, -moved)), 0) FROM promotion p WHERE p.run_id = run.run_id),"
    " (SELECT coalesce(sum(failing), 0) FROM task WHERE task.run_id = run.run_id)"
    f" FROM run LEFT JOIN (SELECT *, digest IS {WRITER_DIGEST} AS sound FROM writer) w ON w.run_id = run.run_id"
)


@dataclass(slots=True)
class LocalRuns:
    """`locks` is the store's lock file."""

    database: Database
    locks: Path

    def create(self, run: Run, tasks: Iterable[Task]) -> None:
        row = run_row(structs.replace(run, state=RunState.PLANNED, finished_at=None))
        with self.database.write() as connection:
            connection.execute(
                "INSERT INTO run VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL)",
                row,
            )
            connection.execute(f"UPDATE run SET digest = {RUN_DIGEST} WHERE run_id = ?", (run.run_id,))
            connection.executemany(
                "INSERT INTO task (run_id, number, body, digest) VALUES (?, ?, ?, ?)", map(_task_row, tasks)
            )

    def get(self, run_id: str) -> Run:
        full_id = found(self.database, "run", "run_id", run_id, kind="run", hint="pik runs list")[0]
        run = _run(self.database.read().execute(f"{_RUN} WHERE run.run_id = ?", (full_id,)).fetchone())
        return structs.replace(run, failures=self._failures(full_id)) if run.failed_aggregates else run

    def _failures(self, run_id: str) -> tuple[FailedAggregate, ...]:
        rows = self.database.read().execute(
            "SELECT failures FROM task WHERE run_id = ? AND failing > 0 ORDER BY number", (run_id,)
        )
        return tuple(islice(chain.from_iterable(read_failed(kept) for (kept,) in rows), KEPT_FAILURES))

    def newest_first(self) -> Iterator[Run]:
        return map(_run, self.database.read().execute(f"{_RUN} ORDER BY run.run_id DESC"))

    def unfinished(self, request: RunRequest) -> Run | None:
        row = (
            self.database.read()
            .execute(
                f"{_RUN} WHERE request = ? AND state IN (?, ?) ORDER BY run.run_id DESC LIMIT 1",
                (_text(request), RunState.PLANNED, RunState.RUNNING),
            )
            .fetchone()
        )
        return _run(row) if row else None

    def set_state(self, run_id: str, state: RunState, finished_at: int | None = None) -> None:
        with self.database.write() as connection:
            expect_sound(connection, f"run {run_id}", RUN_DIGEST, "run WHERE run_id = ?", (run_id,))
            connection.execute(
                "UPDATE run SET state = ?1, finished_at = ?2 WHERE run_id = ?3 AND (state <> 'CANCELLED' OR NOT ?4)",
                (state, finished_at, run_id, state in ENDED),
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


def run_row(run: Run) -> tuple[object, ...]:
    """The row of a run, without its digest."""
    return (
        *(run.run_id, _text(run.request), run.state, run.created_at, run.finished_at),
        *(run.effective_start, run.effective_end, run.events_matched, run.buckets, run.tasks),
    )


def _task_row(task: Task) -> tuple[str, int, bytes, bytes]:
    body = msgspec.json.encode(task)
    return task.run_id, task.number, body, row_digest("task", task.run_id, task.number, body, TaskState.OPEN, 0, None)


def _text(request: RunRequest) -> str:
    return msgspec.json.encode(request).decode()


def _run(row: tuple[Any, ...]) -> Run:
    run_id, request, state, created_at, finished_at, start, end, events, buckets, tasks, sound, *rest = row
    if not sound:
        raise damaged_row(f"run {run_id}")
    computed_by, *counts = rest
    done, failed, new, changed, unchanged, removed, promoted, failing = counts
    return Run(
        run_id=run_id,
        request=read_request(request),
        state=state,
        created_at=created_at,
        finished_at=finished_at,
        effective_start=start,
        effective_end=end,
        events_matched=events,
        buckets=buckets,
        tasks=tasks,
        done=done,
        failed=failed,
        new=new,
        changed=changed,
        unchanged=unchanged,
        removed=removed,
        promoted=promoted,
        computed_by=tuple(msgspec.json.decode(computed_by)),
        failed_aggregates=failing,
    )


_PUT = (
    "INSERT INTO message (run_id, task, body, visible_at) VALUES (?, ?, ?, 0)"
    # Sent again, by whoever resumes the run: what a dead process received is to be received again at once, and that the
    # process was killed is not the task's fault.
    " ON CONFLICT DO UPDATE SET visible_at = 0, receives = 0, receipt = NULL"
)


@dataclass(slots=True)
class LocalQueue:
    """Holds a task at most once; a task that is sent again becomes visible."""

    database: Database

    def send(self, tasks: Iterable[Task]) -> int:
        with self.database.write() as connection:
            before = connection.total_changes
            connection.executemany(_PUT, map(_row, tasks))
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

    def release(self, message: Message, delay: float, reason: str = "") -> None:  # noqa: ARG002 - who drives knows why
        with self.database.write() as connection:
            connection.execute(
                "UPDATE message SET visible_at = ?, receipt = NULL WHERE receipt = ?",
                (time.time() + delay, message.receipt),
            )

    def bury(self, message: Message, reason: str, failed_at: int, hint: str = "") -> None:
        from ulid import ULID  # here, because it takes 20 ms that no other command should pay

        letter = DeadLetter(
            letter_id=str(ULID()),
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

    def letters(self, *, purged: bool = False) -> list[DeadLetter]:
        rows = self.database.read().execute(
            f"SELECT letter_id, body, digest IS {LETTER_DIGEST} FROM letter ORDER BY letter_id"
        )
        found = (_read(*row) for row in rows)
        return [letter for letter in found if (letter.purged_at is not None) == purged]

    def remove(self, letters: Iterable[DeadLetter]) -> None:
        with self.database.write() as connection:
            for letter in letters:
                if letter.purged_at is None:
                    connection.execute("DELETE FROM letter WHERE letter_id = ?", (letter.letter_id,))
                else:
                    letter_id, *columns = letter_row(letter)
                    connection.execute(
                        "UPDATE letter SET body = ?, digest = ? WHERE letter_id = ?", (*columns, letter_id)
                    )

    def drop(self, run_id: str) -> int:
        with self.database.write() as connection:
            # A message that was released has no receipt: nobody works on it, whatever its delay.
            connection.execute(
                "DELETE FROM message WHERE run_id = ? AND (receipt IS NULL OR visible_at <= ?)", (run_id, time.time())
            )
            left: int = connection.execute("SELECT count(*) FROM message WHERE run_id = ?", (run_id,)).fetchone()[0]
        return left


def _read(letter_id: str, body: bytes, sound: int) -> DeadLetter:
    if not sound:
        raise damaged_row(f"dead letter {letter_id}")
    return read_letter(body)


def letter_row(letter: DeadLetter) -> tuple[str, bytes, bytes]:
    """The row of a dead letter."""
    body = msgspec.json.encode(letter)
    return letter.letter_id, body, row_digest("letter", letter.letter_id, body)


def _row(task: Task) -> tuple[str, int, bytes]:
    return task.run_id, task.number, msgspec.json.encode(task)
