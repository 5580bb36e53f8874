"""The queue of tasks in state.db."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from pik.model.run import DeadLetter, Task
from pik.ports.state import UNSETTLED, Message
from pik.stores.bodies import read_letter, read_task
from pik.stores.common import damaged_row
from pik.stores.local.sqlite import Database
from pik.stores.local.state.database import LETTER_DIGEST
from pik.stores.state_digest import row_digest

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
