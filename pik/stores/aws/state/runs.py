"""Runs in the state table: one partition a run, of which one Query tells how far it is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from hashlib import sha256
from itertools import chain, islice
from typing import Any
from uuid import uuid4

import msgspec
from msgspec import structs

from pik.errors import CANDIDATES, not_one
from pik.model.run import (
    ENDED,
    KEPT_FAILURES,
    NO_FAILURES,
    FailedAggregate,
    Failures,
    Run,
    RunRequest,
    RunState,
    Task,
    TaskState,
)
from pik.stores.aws.clients import Flow
from pik.stores.aws.lease import holding
from pik.stores.aws.state.aggregates import tally_digest
from pik.stores.aws.state.items import RUN, run_pk, task_sk
from pik.stores.aws.table import Item, Key, Table
from pik.stores.state_rows import damaged_row, read_failed, read_run, read_task, row_digest

LISTING = "runs"

_ULID_LENGTH = 26
_COUNTS = ("new", "changed", "unchanged", "removed")

# What there is in a run's partition, in the order of the sort keys. The tasks themselves are large, so that they come
# last, where the Query for progress does not reach.
_PROGRESS = ("promotion/", "state/~")
_TASKS = ("state/", "task/~")


@dataclass(frozen=True, slots=True)
class _Found:
    """A run, and the sort keys of what failed in its tasks, in their order."""

    run: Run
    failing: list[str]


@dataclass(frozen=True, slots=True)
class AwsRuns:
    """Counts are made from the items of a run's tasks and promotions whenever somebody asks."""

    table: Table

    def create(self, run: Run, tasks: Iterable[Task]) -> None:
        """What is written first is found by nobody: the run's own item is the last."""
        self.table.write_many(chain(listing_items(run), map(task_item, tasks)))
        self.table.put(run_item(structs.replace(run, state=RunState.PLANNED, finished_at=None)))

    def get(self, run_id: str) -> Run:
        full_id = run_id.upper()  # ULIDs
        if len(full_id) != _ULID_LENGTH:
            full_id = self._completed(run_id)
        found = self._load(full_id)
        if found is None:
            raise not_one("run", run_id, [], hint="pik runs list")
        return structs.replace(found.run, failures=self._failures(found)) if found.failing else found.run

    def _failures(self, found: _Found) -> tuple[FailedAggregate, ...]:
        keys = [(run_pk(found.run.run_id), sk) for sk in found.failing[:KEPT_FAILURES]]
        items = self.table.get_many(keys)
        kept = (read_failed(items[key]["body"]) for key in keys if key in items)
        return tuple(islice(chain.from_iterable(kept), KEPT_FAILURES))

    def _completed(self, prefix: str) -> str:
        listed = self.table.query(LISTING, prefix=prefix.upper(), descending=True) if prefix else iter(())
        found = [str(item["sk"]) for item in islice(listed, CANDIDATES + 1)]
        if len(found) != 1:
            raise not_one("run", prefix, found, hint="pik runs list")
        return found[0]

    def newest_first(self) -> Iterator[Run]:
        ids = (item["sk"] for item in self.table.query(LISTING, descending=True))
        return (found.run for found in Flow().map(self._load, ids) if found is not None)

    def unfinished(self, request: RunRequest) -> Run | None:
        ids = [item["sk"] for item in self.table.query(_request_pk(request), descending=True)]
        found = self.table.get_many(_run_key(run_id) for run_id in ids)
        for run_id in ids:
            if found.get(_run_key(run_id), {}).get("state") in (RunState.PLANNED, RunState.RUNNING):
                loaded = self._load(run_id)
                return None if loaded is None else loaded.run
        return None

    def set_state(self, run_id: str, state: RunState, finished_at: int | None = None) -> None:
        values: dict[str, Any] = {"state": state, "digest": run_state_digest(run_id, state, finished_at)}
        change = "SET #state = :state, #state_digest = :digest REMOVE #finished_at"
        if finished_at is not None:
            values["at"] = finished_at
            change = "SET #state = :state, #state_digest = :digest, #finished_at = :at"
        condition = "attribute_exists(pk)"
        if state in ENDED:
            condition += " AND #state <> :cancelled"
            values["cancelled"] = RunState.CANCELLED
        self.table.update(_run_key(run_id), change, values, condition=condition)

    def open_tasks(self, run_id: str) -> Iterator[Task]:
        settled: set[str] = set()  # states come before tasks
        for item in self.table.query(run_pk(run_id), between=_TASKS):
            kind, _, number = item["sk"].partition("/")
            if kind == "task" and number not in settled:
                if not task_is_sound(item):
                    raise damaged_row(f"task {int(number)} of run {run_id}")
                yield read_task(item["body"])
            elif item.get("state", TaskState.OPEN) != TaskState.OPEN:
                settled.add(number)

    def mark(self, task: Task, state: TaskState, failures: Failures = NO_FAILURES) -> None:
        """The failures are an item for each time the task was done; the state, written last, tells which one counts."""
        kept = ""
        if failures.count:
            kept = f"{task_sk('failures', task)}/{uuid4().hex}"
            self.table.put(failures_item(task.run_id, kept, failures))
        self.table.update(
            (run_pk(task.run_id), task_sk("state", task)),
            "SET #state = :state, #failing = :failing, #failures = :failures, #state_digest = :digest",
            {
                "state": state,
                "failing": failures.count,
                "failures": kept,
                "done": TaskState.DONE,
                "digest": task_state_digest(task.run_id, task.number, state, failures.count, kept),
            },
            condition="attribute_not_exists(#state) OR #state <> :done",
        )

    def driving(self, run_id: str) -> AbstractContextManager[None]:
        return holding(self.table, f"run {run_id}")

    def _load(self, run_id: str) -> _Found | None:
        """The run of this full id, in one Query and page by page."""
        found: Item | None = None
        done = failed = promoted = failed_aggregates = 0
        failing: list[str] = []
        tally = dict.fromkeys(_COUNTS, 0)
        programs = set()
        for item in self.table.query(run_pk(run_id), between=_PROGRESS):
            if item["sk"] == RUN:
                found = item
            elif item["sk"].startswith("promotion/"):
                promoted += item["moved"] if item["kind"] == "promote" else -item["moved"]
            else:
                if not task_state_is_sound(item):
                    raise damaged_row(f"the state of task {int(item['sk'].partition('/')[2])} of run {run_id}")
                programs |= {item["computed_by"]} if item.get("computed_by") else set()
                done += item.get("state") == TaskState.DONE
                failed += item.get("state") == TaskState.FAILED
                if item.get("failing"):
                    failed_aggregates += item["failing"]
                    failing.append(item["failures"])
                for name in _COUNTS:
                    tally[name] += item.get(name, 0)
        if found is None:
            return None
        if not run_is_sound(found):
            raise damaged_row(f"run {run_id}")
        run = structs.replace(
            read_run(found["body"]),
            state=found["state"],
            finished_at=found.get("finished_at"),
            done=done,
            failed=failed,
            promoted=promoted,
            computed_by=tuple(sorted(programs)),
            failed_aggregates=failed_aggregates,
            **tally,
        )
        return _Found(run, failing)


def listing_items(run: Run) -> list[Item]:
    """The items by which a run is found."""
    return [{"pk": LISTING, "sk": run.run_id}, {"pk": _request_pk(run.request), "sk": run.run_id}]


def run_item(run: Run) -> Item:
    """The item of a run. What is counted while it goes on is not in it."""
    nothing = dict.fromkeys(("done", "failed", "promoted", "failed_aggregates", *_COUNTS), 0)
    plain = structs.replace(run, finished_at=None, computed_by=(), failures=(), **nothing)
    body = msgspec.json.encode(plain).decode()
    finished = {} if run.finished_at is None else {"finished_at": run.finished_at}
    return {
        "pk": run_pk(run.run_id),
        "sk": RUN,
        "body": body,
        "digest": row_digest("run", run.run_id, body),
        "state": run.state,
        **finished,
        "state_digest": run_state_digest(run.run_id, run.state, run.finished_at),
    }


def run_state_digest(run_id: str, state: str, finished_at: int | None) -> bytes:
    """The digest of where a run stands."""
    return row_digest("run-state", run_id, state, finished_at)


def task_state_digest(run_id: str, number: int, state: str, failing: int = 0, failures: str = "") -> bytes:
    """The digest of where a task stands, how many aggregates failed in it, and under which sort key they are kept."""
    return row_digest("task-state", run_id, number, state, failing, failures)


def failures_item(run_id: str, sk: str, failures: Failures) -> Item:
    """The item of aggregates that failed."""
    body = msgspec.json.encode(failures.kept).decode()
    return {"pk": run_pk(run_id), "sk": sk, "body": body, "digest": row_digest("failures", run_id, sk, body)}


def failures_are_sound(item: Item) -> bool:
    """Whether the item of aggregates that failed is as it was written."""
    return bool(item.get("digest") == row_digest("failures", item["pk"].partition("/")[2], item["sk"], item["body"]))


def planned_tasks(item: Item) -> int | None:
    """The number of a run's tasks; None where its item cannot be read."""
    try:
        return read_run(item["body"]).tasks
    except msgspec.MsgspecError:
        return None


def run_is_sound(item: Item) -> bool:
    """Whether a run's item is as it was written."""
    run_id = item["pk"].partition("/")[2]
    state = run_state_digest(run_id, item["state"], item.get("finished_at"))
    return bool(item.get("digest") == row_digest("run", run_id, item["body"]) and item.get("state_digest") == state)


def task_state_is_sound(item: Item) -> bool:
    """Whether the item of a task's state is as it was written."""
    run_id, number = item["pk"].partition("/")[2], int(item["sk"].partition("/")[2])
    failing = item.get("failing", 0), item.get("failures", "")
    wanted = task_state_digest(run_id, number, item.get("state", ""), *failing)
    sound = "state" not in item or item.get("state_digest") == wanted
    return sound and ("written" not in item or item.get("tally_digest") == tally_digest(run_id, number, item))


def task_is_sound(item: Item) -> bool:
    """Whether a task's item is as it was written."""
    key = item["pk"].partition("/")[2], int(item["sk"].partition("/")[2])
    return bool(item.get("digest") == row_digest("task", *key, item["body"]))


def _run_key(run_id: str) -> Key:
    return run_pk(run_id), RUN


def _request_pk(request: RunRequest) -> str:
    return f"request/{sha256(msgspec.json.encode(request)).hexdigest()}"


def task_item(task: Task) -> Item:
    """The item of a task."""
    body = msgspec.json.encode(task).decode()
    digest = row_digest("task", task.run_id, task.number, body)
    return {"pk": run_pk(task.run_id), "sk": task_sk("task", task), "body": body, "digest": digest}
