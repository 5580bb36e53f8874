"""Runs in the state table: one partition for each run, of which one Query returns its progress."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from hashlib import sha256
from itertools import chain, islice
from uuid import uuid4

import msgspec
from msgspec import structs

from pik.errors import CANDIDATES, ambiguous_id
from pik.model.run import (
    ACTIVE,
    ENDED,
    KEPT_FAILURES,
    NO_FAILURES,
    Failures,
    PromotionKind,
    Run,
    RunRequest,
    RunState,
    Task,
    TaskState,
)
from pik.stores.aws.clients import Flow
from pik.stores.aws.lease import holding
from pik.stores.aws.state import layout
from pik.stores.aws.state.layout import BodyItem, RunItem, TaskStateItem
from pik.stores.aws.table import Item, Key, KeyItem, Partition, Table
from pik.stores.state_rows import damaged_row, read_failed, read_run, read_task, row_digest

_ULID_LENGTH = 26

# Ranges of sort keys in a run's partition. Tasks are large and sort last, so the Query for progress does not read them.
_PROGRESS = ("promotion/", "state/~")
_TASKS = (layout.RUN, "task/~")

_COUNTED = ("done", "failed", "promoted", "rolled_back", "failed_aggregates", *layout.TALLY)
"""The fields of a run that are computed from the items of its tasks and promotions at each read."""


@dataclass(frozen=True, slots=True)
class AwsRuns:
    """Implements the port."""

    table: Table

    def create(self, run: Run, tasks: Iterable[Task]) -> bool:
        """Write the run's own item last: no reader finds a run without it, nor tasks beyond its number of them, which a
        planner that was killed may have left."""
        self.table.write_many(chain(listing_items(run), map(task_item, tasks)))
        condition = "attribute_not_exists(pk) OR #state = :planning"
        return self.table.put_if(run_item(run), condition, {"planning": RunState.PLANNING})

    def get(self, run_id: str) -> Run:
        full_id = run_id.upper()  # ULIDs
        if len(full_id) != _ULID_LENGTH:
            full_id = self._completed(run_id)
        loaded = self._load(full_id)
        if loaded is None:
            raise ambiguous_id("run", run_id, [], hint="pik runs list", others=self._ids)
        run, failing = loaded
        if not failing:
            return run
        keys: list[Key[BodyItem]] = [Key((layout.run_pk(full_id), sk)) for sk in failing[:KEPT_FAILURES]]
        items = self.table.get_many(keys)
        kept = chain.from_iterable(read_failed(items[key]["body"]) for key in keys if key in items)
        return structs.replace(run, failures=tuple(islice(kept, KEPT_FAILURES)))

    def _completed(self, prefix: str) -> str:
        listed = self.table.query(layout.RUNS, prefix=prefix.upper(), descending=True) if prefix else iter(())
        found = [item["sk"] for item in islice(listed, CANDIDATES + 1)]
        if len(found) != 1:
            raise ambiguous_id("run", prefix, found, hint="pik runs list", others=self._ids)
        return found[0]

    def newest_first(self) -> Iterator[Run]:
        return (loaded[0] for loaded in Flow().map(self._load, self._ids()) if loaded is not None)

    def _ids(self) -> Iterator[str]:
        return (item["sk"] for item in self.table.query(layout.RUNS, descending=True))

    def unfinished(self, request: RunRequest) -> Run | None:
        ids = [item["sk"] for item in self.table.query(_request_pk(request), descending=True)]
        found = self.table.get_many(map(layout.run_key, ids))
        for run_id in ids:
            item = found.get(layout.run_key(run_id))
            if item is not None and item.get("state") in ACTIVE:
                loaded = self._load(run_id)
                return None if loaded is None else loaded[0]
        return None

    def set_state(
        self, run_id: str, state: RunState, finished_at: int | None = None, planning_failure: str = ""
    ) -> None:
        may_be_absent = {"finished_at": finished_at, "planning_failure": planning_failure or None}
        present = {name: value for name, value in may_be_absent.items() if value is not None}
        digest = row_digest("run-state", run_id, state, *may_be_absent.values())
        values: Item = {"state": state, "digest": digest, **present}
        change = "SET #state = :state, #state_digest = :digest" + "".join(f", #{name} = :{name}" for name in present)
        if absent := [f"#{name}" for name in may_be_absent if name not in present]:
            change += f" REMOVE {', '.join(absent)}"
        condition = "attribute_exists(pk)"
        if state in ENDED:
            condition += " AND #state <> :cancelled"
            values["cancelled"] = RunState.CANCELLED
        self.table.update(layout.run_key(run_id), change, values, condition=condition)

    def open_tasks(self, run_id: str) -> Iterator[Task]:
        planned, settled = 0, set[str]()  # the run comes before the states, these before the tasks
        for item in self.table.query(layout.run_pk(run_id), between=_TASKS):
            kind, _, number = item["sk"].partition("/")
            if kind == layout.RUN:
                planned = read_run(item["body"]).tasks
            elif kind == "task" and int(number) < planned and number not in settled:
                if not task_is_sound(item):
                    raise damaged_row(f"task {int(number)} of run {run_id}")
                yield read_task(item["body"])
            elif item.get("state", TaskState.OPEN) != TaskState.OPEN:
                settled.add(number)

    def mark(self, task: Task, state: TaskState, failures: Failures = NO_FAILURES) -> None:
        """Write the failures as an item for each time the task was done; the state, written last, names the one that
        counts."""
        kept = ""
        if failures.count:
            kept = f"{layout.task_sk('failures', task.number)}/{uuid4().hex}"
            self.table.put(failures_item(task.run_id, kept, failures))
        self.table.update(
            layout.state_key(task),
            "SET #state = :state, #failing = :failing, #failures = :failures, #state_digest = :digest",
            {
                "state": state,
                "failing": failures.count,
                "failures": kept,
                "done": TaskState.DONE,
                "digest": row_digest("task-state", task.run_id, task.number, state, failures.count, kept),
            },
            condition="attribute_not_exists(#state) OR #state <> :done",
        )

    def driving(self, run_id: str) -> AbstractContextManager[None]:
        return holding(self.table, f"run {run_id}")

    def _load(self, run_id: str) -> tuple[Run, list[str]] | None:
        """Return the run of this full id, and the sort keys of what failed in its tasks, in their order. One Query."""
        found: RunItem | None = None
        counts = Counter(dict.fromkeys(_COUNTED, 0))
        failing: list[str] = []
        programs: set[str] = set()
        for item in self.table.query(layout.run_pk(run_id), between=_PROGRESS):
            if item["sk"] == layout.RUN:
                found = item
            elif item["sk"].startswith("promotion/"):
                is_rollback = item["kind"] == PromotionKind.ROLLBACK
                counts["promoted"] += -item["moved"] if is_rollback else item["moved"]
                counts["rolled_back"] += item["moved"] if is_rollback else 0
            else:
                if not task_state_is_sound(item):
                    raise damaged_row(f"the state of task {int(item['sk'].partition('/')[2])} of run {run_id}")
                counts["done"] += item.get("state") == TaskState.DONE
                counts["failed"] += item.get("state") == TaskState.FAILED
                written = layout.written_of(item)
                programs.update(written.computed_by if written else ())
                if item.get("failing"):
                    counts["failed_aggregates"] += item["failing"]
                    failing.append(item["failures"])
                counts.update({name: item.get(name, 0) for name in layout.TALLY})
        if found is None:
            return None
        if not run_is_sound(found):
            raise damaged_row(f"run {run_id}")
        run = structs.replace(
            read_run(found["body"]),
            state=RunState(found["state"]),
            finished_at=found.get("finished_at"),
            planning_failure=found.get("planning_failure", ""),
            computed_by=tuple(sorted(programs)),
            **counts,
        )
        return run, failing


def listing_items(run: Run) -> list[KeyItem]:
    """Return the items by which a run is found."""
    return [{"pk": layout.RUNS, "sk": run.run_id}, {"pk": _request_pk(run.request), "sk": run.run_id}]


def run_item(run: Run) -> RunItem:
    """Return the item of a run, without what is counted while it goes on."""
    counts = dict.fromkeys(_COUNTED, 0)
    plain = structs.replace(run, finished_at=None, planning_failure="", computed_by=(), failures=(), **counts)
    body = msgspec.json.encode(plain).decode()
    item: RunItem = {
        "pk": layout.run_pk(run.run_id),
        "sk": layout.RUN,
        "body": body,
        "digest": row_digest("run", run.run_id, body),
        "state": run.state,
        "state_digest": row_digest("run-state", run.run_id, run.state, run.finished_at, run.planning_failure or None),
    }
    if run.planning_failure:
        item["planning_failure"] = run.planning_failure
    if run.finished_at is not None:
        item["finished_at"] = run.finished_at
    return item


def failures_item(run_id: str, sk: str, failures: Failures) -> BodyItem:
    """Return the item of aggregates that failed."""
    body = msgspec.json.encode(failures.kept).decode()
    return {"pk": layout.run_pk(run_id), "sk": sk, "body": body, "digest": row_digest("failures", run_id, sk, body)}


def failures_are_sound(item: BodyItem) -> bool:
    """Return whether the item of aggregates that failed is as it was written."""
    return item.get("digest") == row_digest("failures", item["pk"].partition("/")[2], item["sk"], item["body"])


def run_is_sound(item: RunItem) -> bool:
    """Return whether a run's item is as it was written."""
    run_id = item["pk"].partition("/")[2]
    state = row_digest("run-state", run_id, item["state"], item.get("finished_at"), item.get("planning_failure"))
    return item.get("digest") == row_digest("run", run_id, item["body"]) and item.get("state_digest") == state


def task_state_is_sound(item: TaskStateItem) -> bool:
    """Return whether the item of a task's state is as it was written."""
    run_id, number = item["pk"].partition("/")[2], int(item["sk"].partition("/")[2])
    state = item.get("state", ""), item.get("failing", 0), item.get("failures", "")
    sound = "state" not in item or item.get("state_digest") == row_digest("task-state", run_id, number, *state)
    return sound and ("written" not in item or item.get("tally_digest") == layout.tally_digest(run_id, number, item))


def task_is_sound(item: BodyItem) -> bool:
    """Return whether a task's item is as it was written."""
    key = item["pk"].partition("/")[2], int(item["sk"].partition("/")[2])
    return item.get("digest") == row_digest("task", *key, item["body"])


def _request_pk(request: RunRequest) -> Partition[KeyItem]:
    return Partition(f"request/{sha256(msgspec.json.encode(request)).hexdigest()}")


def task_item(task: Task) -> BodyItem:
    """Return the item of a task."""
    body = msgspec.json.encode(task).decode()
    digest = row_digest("task", task.run_id, task.number, body)
    return {"pk": layout.run_pk(task.run_id), "sk": layout.task_sk("task", task.number), "body": body, "digest": digest}
