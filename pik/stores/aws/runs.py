"""Runs in the state table: one partition a run, of which one Query tells how far it is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from hashlib import sha256
from itertools import chain, islice
from typing import Any

import msgspec

from pik.errors import CANDIDATES, not_one
from pik.model.run import CANCELLED, COMPLETED, DONE, FAILED, OPEN, PLANNED, RUNNING, Run, RunRequest, Task
from pik.stores.aws.flow import Flow
from pik.stores.aws.keys import RUN, run_pk, task_sk
from pik.stores.aws.lease import holding
from pik.stores.aws.table import Item, Key, Table

LISTING = "runs"

_ULID_LENGTH = 26
_COUNTS = ("new", "changed", "unchanged", "removed")

# What there is in a run's partition, in the order of the sort keys. The tasks themselves are large, so that they come
# last, where the Query for progress does not reach.
_PROGRESS = ("promotion/", "state/~")
_TASKS = ("state/", "task/~")

_read_task = msgspec.json.Decoder(Task).decode
_read_run = msgspec.json.Decoder(Run).decode


@dataclass(frozen=True, slots=True)
class AwsRuns:
    """Counts are made from the items of a run's tasks and promotions whenever somebody asks."""

    table: Table

    def create(self, run: Run, tasks: Iterable[Task]) -> None:
        """What is written first is found by nobody: the run's own item is the last."""
        beside: list[Item] = [
            {"pk": LISTING, "sk": run.run_id},
            {"pk": _request_pk(run.request), "sk": run.run_id},
        ]
        self.table.write_many(chain(beside, map(_task_item, tasks)))
        self.table.put(
            {"pk": run_pk(run.run_id), "sk": RUN, "body": msgspec.json.encode(run).decode(), "state": PLANNED}
        )

    def get(self, run_id: str) -> Run:
        full_id = run_id.upper()  # ULIDs
        if len(full_id) != _ULID_LENGTH:
            full_id = self._completed(run_id)
        run = self._load(full_id)
        if run is None:
            raise not_one("run", run_id, [], hint="pik runs list")
        return run

    def _completed(self, prefix: str) -> str:
        listed = self.table.query(LISTING, prefix=prefix.upper(), descending=True) if prefix else iter(())
        found = [str(item["sk"]) for item in islice(listed, CANDIDATES + 1)]
        if len(found) != 1:
            raise not_one("run", prefix, found, hint="pik runs list")
        return found[0]

    def newest_first(self) -> Iterator[Run]:
        ids = (item["sk"] for item in self.table.query(LISTING, descending=True))
        return (run for run in Flow().map(self._load, ids) if run is not None)

    def unfinished(self, request: RunRequest) -> Run | None:
        ids = [item["sk"] for item in self.table.query(_request_pk(request), descending=True)]
        found = self.table.get_many(_run_key(run_id) for run_id in ids)
        for run_id in ids:
            if found.get(_run_key(run_id), {}).get("state") in (PLANNED, RUNNING):
                return self._load(run_id)
        return None

    def set_state(self, run_id: str, state: str, finished_at: int | None = None) -> None:
        values: dict[str, Any] = {"state": state}
        change = "SET #state = :state REMOVE #finished_at"
        if finished_at is not None:
            values["at"] = finished_at
            change = "SET #state = :state, #finished_at = :at"
        condition = "attribute_exists(pk)"
        if state in (COMPLETED, FAILED):
            condition += " AND #state <> :cancelled"
            values["cancelled"] = CANCELLED
        self.table.update(_run_key(run_id), change, values, condition=condition)

    def open_tasks(self, run_id: str) -> Iterator[Task]:
        settled: set[str] = set()  # states come before tasks
        for item in self.table.query(run_pk(run_id), between=_TASKS):
            kind, _, number = item["sk"].partition("/")
            if kind == "task" and number not in settled:
                yield _read_task(item["body"])
            elif item.get("state", OPEN) != OPEN:
                settled.add(number)

    def mark(self, task: Task, state: str) -> None:
        self.table.update(
            (run_pk(task.run_id), task_sk("state", task)),
            "SET #state = :state",
            {"state": state, "done": DONE},
            condition="attribute_not_exists(#state) OR #state <> :done",
        )

    def driving(self, run_id: str) -> AbstractContextManager[None]:
        return holding(self.table, f"run {run_id}")

    def _load(self, run_id: str) -> Run | None:
        """The run of this full id, in one Query and page by page."""
        found: Item | None = None
        done = failed = promoted = 0
        tally = dict.fromkeys(_COUNTS, 0)
        for item in self.table.query(run_pk(run_id), between=_PROGRESS):
            if item["sk"] == RUN:
                found = item
            elif item["sk"].startswith("promotion/"):
                promoted += item["moved"] if item["kind"] == "promote" else -item["moved"]
            else:
                done += item.get("state") == DONE
                failed += item.get("state") == FAILED
                for name in _COUNTS:
                    tally[name] += item.get(name, 0)
        if found is None:
            return None
        return msgspec.structs.replace(
            _read_run(found["body"]),
            state=found["state"],
            finished_at=found.get("finished_at"),
            done=done,
            failed=failed,
            promoted=promoted,
            **tally,
        )


def _run_key(run_id: str) -> Key:
    return run_pk(run_id), RUN


def _request_pk(request: RunRequest) -> str:
    return f"request/{sha256(msgspec.json.encode(request)).hexdigest()}"


def _task_item(task: Task) -> Item:
    return {"pk": run_pk(task.run_id), "sk": task_sk("task", task), "body": msgspec.json.encode(task).decode()}
