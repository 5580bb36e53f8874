"""Runs and their tasks in state.db."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from pik.model.run import DONE, OPEN, PLANNED, RUNNING, Run, RunRequest, Task
from pik.stores.local.lock import holding
from pik.stores.local.sqlite import Database
from pik.stores.local.state import found

_RUN = (
    "SELECT run.*,"
    " (SELECT count(*) FROM task WHERE task.run_id = run.run_id AND task.state = 'DONE'),"
    " (SELECT count(*) FROM task WHERE task.run_id = run.run_id AND task.state = 'FAILED'),"
    " coalesce(writer.new, 0), coalesce(writer.changed, 0), coalesce(writer.unchanged, 0),"
    " coalesce(writer.removed, 0),"
    " (SELECT coalesce(sum(iif(kind = 'promote', moved, -moved)), 0) FROM promotion p WHERE p.run_id = run.run_id)"
    " FROM run LEFT JOIN writer ON writer.run_id = run.run_id"
)

_read_task = msgspec.json.Decoder(Task).decode
_read_request = msgspec.json.Decoder(RunRequest).decode


@dataclass(slots=True)
class LocalRuns:
    """`locks` is the store's lock file."""

    database: Database
    locks: Path

    def create(self, run: Run, tasks: Iterable[Task]) -> None:
        row = (run.run_id, _text(run.request), PLANNED, run.created_at, None, run.effective_start, run.effective_end)
        with self.database.write() as connection:
            connection.execute(
                "INSERT INTO run VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (*row, run.events_matched, run.buckets, run.tasks),
            )
            connection.executemany(
                "INSERT INTO task (run_id, number, body) VALUES (?, ?, ?)",
                ((run.run_id, task.number, msgspec.json.encode(task)) for task in tasks),
            )

    def get(self, run_id: str) -> Run:
        full_id = found(self.database, "run", "run_id", run_id, kind="run", hint="pik runs list")[0]
        return _run(self.database.read().execute(f"{_RUN} WHERE run.run_id = ?", (full_id,)).fetchone())

    def newest_first(self) -> Iterator[Run]:
        return map(_run, self.database.read().execute(f"{_RUN} ORDER BY run.run_id DESC"))

    def unfinished(self, request: RunRequest) -> Run | None:
        row = (
            self.database.read()
            .execute(
                f"{_RUN} WHERE request = ? AND state IN (?, ?) ORDER BY run.run_id DESC LIMIT 1",
                (_text(request), PLANNED, RUNNING),
            )
            .fetchone()
        )
        return _run(row) if row else None

    def set_state(self, run_id: str, state: str, finished_at: int | None = None) -> None:
        with self.database.write() as connection:
            connection.execute(
                "UPDATE run SET state = ?1, finished_at = ?2 WHERE run_id = ?3"
                " AND (state <> 'CANCELLED' OR ?1 NOT IN ('COMPLETED', 'FAILED'))",
                (state, finished_at, run_id),
            )

    def open_tasks(self, run_id: str) -> Iterator[Task]:
        rows = self.database.read().execute(
            "SELECT body FROM task WHERE run_id = ? AND state = ? ORDER BY number", (run_id, OPEN)
        )
        return (_read_task(body) for (body,) in rows)

    def mark(self, task: Task, state: str) -> None:
        with self.database.write() as connection:
            connection.execute(
                "UPDATE task SET state = ? WHERE run_id = ? AND number = ? AND state <> ?",
                (state, task.run_id, task.number, DONE),
            )

    def driving(self, run_id: str) -> AbstractContextManager[None]:
        return holding(self.locks, f"run {run_id}")


def _text(request: RunRequest) -> str:
    return msgspec.json.encode(request).decode()


def _run(row: tuple[Any, ...]) -> Run:
    run_id, request, state, created_at, finished_at, start, end, events, buckets, tasks, *counts = row
    done, failed, new, changed, unchanged, removed, promoted = counts
    return Run(
        run_id=run_id,
        request=_read_request(request),
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
    )
