"""The state table as rows, and rows as the state table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, groupby
from typing import Any

from msgspec import structs

from pik.errors import Busy, StoreError
from pik.model.metric import EVENT_COUNT
from pik.model.run import NO_FAILURES, DeadLetter, Run, TaskState
from pik.model.window import ALL_TIME
from pik.ports.backup import (
    LetterRow,
    MetricRow,
    OmittedVersion,
    PointerRow,
    RefusalRow,
    RepublishRow,
    Row,
    RunRow,
    TaskRow,
    VersionRow,
)
from pik.ports.state import DeadLetters, Message, Promotion
from pik.runtime.storage import Spool
from pik.stores.aws.queue import PURGED, purged_item
from pik.stores.aws.state import layout
from pik.stores.aws.state.aggregates import listed_buckets, metric_item, metric_of
from pik.stores.aws.state.layout import BodyItem, PromotionItem
from pik.stores.aws.state.move_pointers import content_of, promotion_items, promotion_row
from pik.stores.aws.state.republishes import refusal_item, refusal_of, republish_item, republish_of
from pik.stores.aws.state.runs import (
    AwsRuns,
    failures_are_sound,
    failures_item,
    listing_items,
    run_item,
    task_item,
)
from pik.stores.aws.table import READS, Item, Key, Partition, Table, batched, key_of
from pik.stores.state_rows import AggregatePlace, damaged_row, failures_of, lost_version, read_task, row_digest

RESTORE: Key[Item] = Key(("restore", "restore"))
"""The item that names the restore that is under way, or was interrupted."""


@dataclass(frozen=True, slots=True)
class AwsBackup:
    """Implements the port. Without a queue of dead letters there are none."""

    table: Table
    letters: DeadLetters
    has_queue: bool = True

    @contextmanager
    def rows(self) -> Iterator[Iterator[Row | OmittedVersion]]:
        yield self._rows()

    def has_state(self, resuming: str = "") -> bool:
        under_way = self.table.get(RESTORE)
        if under_way is not None:
            return bool(under_way["name"] != resuming)
        kinds: tuple[Partition[Any], ...] = (layout.METRICS, layout.RUNS, layout.PROMOTIONS, PURGED, layout.REPUBLISHES)
        return any(next(self.table.query(kind), None) is not None for kind in kinds)

    def restore(self, rows: Iterable[Row], name: str) -> tuple[str, ...]:
        if self.has_state(name):
            raise StoreError("the stack holds state already, or another restore of it was interrupted")
        pk, sk = RESTORE
        self.table.put({"pk": pk, "sk": sk, "name": name})
        runs: list[Run] = []
        for kind, of_kind in groupby(rows, key=type):
            for some in batched(of_kind, READS):
                if kind is RunRow:
                    runs += [row.run for row in some if isinstance(row, RunRow)]
                else:
                    self._restore(some)
        for run in runs:  # a run is found by these items, so they are written last
            self.table.write_many(listing_items(run))
            self.table.put(run_item(run))
        self.table.delete(RESTORE)
        return ()

    def _rows(self) -> Iterator[Row]:
        before = self._promotions()
        for item in self.table.query(layout.METRICS):
            yield MetricRow(metric_of(item))
        ids = [item["sk"] for item in self.table.query(layout.RUNS)]
        runs = AwsRuns(self.table)
        there = [run_id for run_id in ids if self.table.get(layout.run_key(run_id)) is not None]
        planned: dict[str, int] = {}
        for run_id in there:
            run = runs.get(run_id)
            planned[run_id] = run.tasks
            yield RunRow(run)
        for run_id in there:
            yield from self._tasks(run_id, planned[run_id])
        for run_id in there:
            yield from map(layout.version_row, self.table.query_merged(layout.versions_pks(run_id)))
        yield from map(promotion_row, before)
        yield from self._pointers()
        yield from (LetterRow(letter) for letter in self.letters.purged())
        if self.has_queue:
            yield from (LetterRow(letter) for letter in self.letters.letters())
        yield from self._republishes()
        moving = self.table.get_many(map(layout.moving_key, there))
        if moving or self._promotions() != before:
            raise Busy("runs are being promoted or rolled back", hint="run this again when that has ended")

    def _republishes(self) -> Iterator[Row]:
        republishes = list(map(republish_of, self.table.query(layout.REPUBLISHES)))
        counts: dict[str, int] = {}
        refusals: Spool[RefusalRow] = Spool(RefusalRow)
        for one in republishes:
            for item in self.table.query(layout.refusals_pk(one.republish_id)):
                refusals.add(RefusalRow(one.republish_id, refusal_of(item)))
                counts[one.republish_id] = counts.get(one.republish_id, 0) + 1
        # An interruption, or a process that is sending, may have left more refusals than are counted.
        yield from (
            RepublishRow(structs.replace(one, refused=max(one.refused, counts.get(one.republish_id, 0))))
            for one in republishes
        )
        yield from refusals

    def _promotions(self) -> list[PromotionItem]:
        return list(self.table.query(layout.PROMOTIONS))

    def _tasks(self, run_id: str, planned: int) -> Iterator[Row]:
        """Yield the tasks of a run that was planned with so many; while it is PLANNING there may be others."""
        states = {
            item["sk"].partition("/")[2]: item for item in self.table.query(layout.run_pk(run_id), prefix="state/")
        }
        for item in self.table.query(layout.run_pk(run_id), prefix="task/"):
            number = item["sk"].partition("/")[2]
            if int(number) >= planned:
                break
            state: Mapping[str, Any] = states.get(number, {})
            failures = NO_FAILURES
            if state.get("failing"):
                key: Key[BodyItem] = Key((layout.run_pk(run_id), state["failures"]))
                kept = self.table.get(key)
                if kept is None or not failures_are_sound(kept):
                    raise damaged_row(f"what failed in task {number} of run {run_id}")
                failures = failures_of(state["failing"], kept["body"])
            now, written = TaskState(state.get("state", TaskState.OPEN)), layout.written_of(state)
            yield TaskRow(read_task(item["body"]), now, state.get("reason", ""), written, failures)

    def _pointers(self) -> Iterator[Row]:
        names = {item["sk"].rpartition("/")[0] for item in self.table.query(layout.METRICS)} | {EVENT_COUNT.name}
        for name in sorted(names):
            for bucket in listed_buckets(self.table, name, ALL_TIME):
                for item in self.table.query_merged(bucket.pointers):
                    place = layout.place_of(item)
                    if not layout.is_sound(place, item):
                        raise damaged_row(f"the pointer to the current {name} of {place.entity}")
                    yield PointerRow(name, place.bucket, place.entity, item["run"])

    def _restore(self, rows: Sequence[Any]) -> None:
        """Write rows of one kind."""
        items: Iterable[Mapping[str, Any]] = ()
        match rows[0]:
            case MetricRow():
                metrics = [metric_item(row.metric) for row in rows]
                items = [*metrics, *map(layout.sealed, metrics)]
            case TaskRow():
                items = chain.from_iterable(map(_task_items, rows))
            case VersionRow():
                places = [AggregatePlace(row.metric, row.bucket, row.entity) for row in rows]
                buckets = {key_of(item): item for item in map(layout.bucket_item, places)}
                items = [*buckets.values(), *map(_version_item, rows)]
            case Promotion():
                items = chain.from_iterable(map(promotion_items, rows))
            case PointerRow():
                items = list(self._pointer_items(rows))
            case LetterRow():
                items = [purged_item(row.letter) for row in rows if row.letter.purged_at is not None]
                self._bury(row.letter for row in rows if row.letter.purged_at is None)
            case RepublishRow():
                items = [republish_item(row.republish) for row in rows]
            case RefusalRow():
                items = [refusal_item(row.republish_id, row.refusal) for row in rows]
        self.table.write_many(items)

    def _pointer_items(self, rows: Sequence[PointerRow]) -> Iterator[Item]:
        places = [(row.run_id, AggregatePlace(row.metric, row.bucket, row.entity)) for row in rows]
        versions = self.table.get_many(layout.version_key(run_id, place) for run_id, place in places)
        for run_id, place in places:
            version, (pk, sk) = versions.get(layout.version_key(run_id, place)), layout.current_key(place)
            if version is None:
                raise lost_version(place.metric, place.entity)
            yield {"pk": pk, "sk": sk, **content_of(version)}

    def _bury(self, letters: Iterable[DeadLetter]) -> None:
        """Put letters on the dead-letter queue, where SQS names them."""
        there = {(letter.task.run_id, letter.task.number) for letter in self.letters.letters()}
        for letter in letters:
            if (letter.task.run_id, letter.task.number) not in there:
                message = Message(letter.task, "", letter.attempts)
                self.letters.bury(message, letter.reason, letter.failed_at, letter.hint)


def _version_item(row: VersionRow) -> Item:
    item: Item = {**layout.version_item(row)}
    if item["digest"].hex() != row.digest:
        raise damaged_row(f"the version of {row.metric} of {row.entity} in the backup")
    return item


def _task_items(row: TaskRow) -> Iterator[Mapping[str, Any]]:
    yield task_item(row.task)
    run_id, number = row.task.run_id, row.task.number
    state: Item = {"reason": row.reason} if row.reason else {}
    if row.state != TaskState.OPEN:
        failing = row.failures.count
        kept = f"{layout.task_sk('failures', number)}/restored" if failing else ""
        if kept:
            yield failures_item(run_id, kept, row.failures)
        digest = row_digest("task-state", run_id, number, row.state, failing, kept)
        state |= {"state": row.state, "state_digest": digest, "failing": failing, "failures": kept}
    if row.written is not None:
        state |= layout.task_tally(row.task, row.written)
    if state:
        pk, sk = layout.state_key(row.task)
        yield {"pk": pk, "sk": sk, **state}
