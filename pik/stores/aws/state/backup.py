"""The state table as rows, and rows as the state table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import singledispatchmethod
from itertools import groupby
from typing import Any

from pik.errors import Busy, StoreError
from pik.model.metric import EVENT_COUNT, NO_FAILURES, Run, TaskState
from pik.ports.state import (
    DeadLetters,
    LetterRow,
    Message,
    MetricRow,
    Omitted,
    PointerRow,
    PromotionRow,
    Row,
    RunRow,
    TaskRow,
    VersionRow,
    Written,
)
from pik.stores.aws.queue import PURGED, purged_item
from pik.stores.aws.state import layout
from pik.stores.aws.state.aggregates import metric_item, metric_of
from pik.stores.aws.state.layout import BodyItem, PromotionItem, TaskProgress, VersionItem
from pik.stores.aws.state.move_pointers import content_of, promotion_items, promotion_of
from pik.stores.aws.state.runs import (
    AwsRuns,
    failures_are_sound,
    failures_item,
    listing_items,
    run_item,
    task_item,
    task_state_digest,
)
from pik.stores.aws.table import READS, Item, Key, Partition, Table, batched
from pik.stores.state_rows import Place, damaged_row, failures_of, lost_version, read_task

RESTORE: Key[Item] = Key(("restore", "restore"))
"""The item that names the restore that is under way, or was interrupted."""


@dataclass(frozen=True, slots=True)
class AwsBackup:
    """Implements the port."""

    table: Table
    letters: DeadLetters

    @contextmanager
    def rows(self) -> Iterator[Iterator[Row | Omitted]]:
        yield self._rows()

    def has_state(self, resuming: str = "") -> bool:
        under_way = self.table.get(RESTORE)
        if under_way is not None:
            return bool(under_way["name"] != resuming)
        kinds: tuple[Partition[Any], ...] = (layout.METRICS, layout.RUNS, layout.PROMOTIONS, PURGED)
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
                    self._restore(some[0], some)
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
        yield from (RunRow(runs.get(run_id)) for run_id in there)
        for run_id in there:
            yield from self._tasks(run_id)
        for run_id in there:
            yield from self._versions(run_id)
        yield from map(_promotion_row, before)
        yield from self._pointers()
        yield from (LetterRow(letter) for letter in self.letters.purged())
        yield from (LetterRow(letter) for letter in self.letters.letters())
        moving = self.table.get_many(map(layout.moving_key, there))
        if moving or self._promotions() != before:
            raise Busy("runs are being promoted or rolled back", hint="run this again when that has ended")

    def _promotions(self) -> list[PromotionItem]:
        return list(self.table.query(layout.PROMOTIONS))

    def _tasks(self, run_id: str) -> Iterator[Row]:
        states = {
            item["sk"].partition("/")[2]: item for item in self.table.query(layout.run_pk(run_id), prefix="state/")
        }
        for item in self.table.query(layout.run_pk(run_id), prefix="task/"):
            number = item["sk"].partition("/")[2]
            state: TaskProgress = states.get(number, {})
            written = None
            if "written" in state:
                programs = (state["computed_by"],) if state["computed_by"] else ()
                counts = state["new"], state["changed"], state["unchanged"], state["removed"], state["written"]
                written = Written(*counts, state["versions_xor"].hex(), programs)
            failures = NO_FAILURES
            if state.get("failing"):
                key: Key[BodyItem] = Key((layout.run_pk(run_id), state["failures"]))
                kept = self.table.get(key)
                if kept is None or not failures_are_sound(kept):
                    raise damaged_row(f"what failed in task {number} of run {run_id}")
                failures = failures_of(state["failing"], kept["body"])
            reason = state.get("reason", "")
            yield TaskRow(
                read_task(item["body"]), TaskState(state.get("state", TaskState.OPEN)), reason, written, failures
            )

    def _versions(self, run_id: str) -> Iterator[Row]:
        for item in self.table.query(layout.versions_pk(run_id)):
            place = layout.place_of(item)
            if not layout.is_sound(place, item):
                raise damaged_row(f"the version of {place.metric} of {place.entity} by run {run_id}")
            yield VersionRow(
                metric=place.metric,
                bucket=place.bucket,
                entity=place.entity,
                run_id=run_id,
                value=item["value"] or None,
                inputs=item["inputs"],
                input_ids=item["input_ids"].hex(),
                input_contents=item["input_contents"].hex(),
                base=item["base"] or None,
                metric_version=item["metric_version"],
                known_until=item["known_until"],
                reason=item["reason"],
                kind=item["kind"],
                digest=item["digest"].hex(),
            )

    def _pointers(self) -> Iterator[Row]:
        names = {item["sk"].rpartition("/")[0] for item in self.table.query(layout.METRICS)} | {EVENT_COUNT.name}
        for name in sorted(names):
            for bucket in self.table.query(layout.buckets_pk(name)):
                for item in self.table.query(layout.current_pk(name, layout.key_time(bucket["sk"]))):
                    place = layout.place_of(item)
                    if not layout.is_sound(place, item):
                        raise damaged_row(f"the pointer to the current {name} of {place.entity}")
                    yield PointerRow(name, place.bucket, place.entity, item["run"])

    @singledispatchmethod
    def _restore(self, _first: Row, rows: Any) -> None:
        """Write rows of the same kind as the first of them."""
        raise TypeError(rows)

    @_restore.register
    def _(self, _first: MetricRow, rows: list[MetricRow]) -> None:
        items = [metric_item(row.metric) for row in rows]
        self.table.write_many([*items, *map(layout.sealed, items)])

    @_restore.register
    def _(self, _first: TaskRow, rows: list[TaskRow]) -> None:
        self.table.write_many(item for row in rows for item in _task_items(row))

    @_restore.register
    def _(self, _first: VersionRow, rows: list[VersionRow]) -> None:
        items = [_version_item(row) for row in rows]
        buckets = {(row.metric, row.bucket): layout.bucket_item(Place(row.metric, row.bucket, "")) for row in rows}
        self.table.write_many([*buckets.values(), *items])

    @_restore.register
    def _(self, _first: PromotionRow, rows: list[PromotionRow]) -> None:
        self.table.write_many(item for row in rows for item in promotion_items(row))

    @_restore.register
    def _(self, _first: PointerRow, rows: list[PointerRow]) -> None:
        places = [(row.run_id, Place(row.metric, row.bucket, row.entity)) for row in rows]
        versions = self.table.get_many(layout.version_key(run_id, place) for run_id, place in places)
        items = []
        for run_id, place in places:
            version, (pk, sk) = versions.get(layout.version_key(run_id, place)), layout.current_key(place)
            if version is None:
                raise lost_version(place.metric, place.entity)
            items.append({"pk": pk, "sk": sk, **content_of(version)})
        self.table.write_many(items)

    @_restore.register
    def _(self, _first: LetterRow, rows: list[LetterRow]) -> None:
        """Write letters that are given up as items; the others go to the dead-letter queue, where SQS names them."""
        self.table.write_many(purged_item(row.letter) for row in rows if row.letter.purged_at is not None)
        there = {(letter.task.run_id, letter.task.number) for letter in self.letters.letters()}
        for row in rows:
            letter = row.letter
            if letter.purged_at is None and (letter.task.run_id, letter.task.number) not in there:
                self.letters.bury(
                    Message(letter.task, "", letter.attempts), letter.reason, letter.failed_at, letter.hint
                )


def _version_item(row: VersionRow) -> VersionItem:
    item = layout.version_item(
        Place(row.metric, row.bucket, row.entity),
        {
            "run": row.run_id,
            "value": row.value or "",
            "inputs": row.inputs,
            "input_ids": bytes.fromhex(row.input_ids),
            "input_contents": bytes.fromhex(row.input_contents),
            "metric_version": row.metric_version,
            "known_until": row.known_until,
            "reason": row.reason,
            "base": row.base or "",
        },
        row.kind,
    )
    if item["digest"].hex() != row.digest:
        raise damaged_row(f"the version of {row.metric} of {row.entity} in the backup")
    return item


def _promotion_row(item: PromotionItem) -> PromotionRow:
    promotion = promotion_of(item)
    return PromotionRow(
        promotion_id=item["sk"],
        run_id=promotion.run_id,
        kind=promotion.kind,
        at=promotion.at,
        reason=promotion.reason,
        moved=promotion.moved,
        conflicts=promotion.conflicts,
        pointers=item["pointers"],
        pointers_xor=item["pointers_xor"].hex(),
    )


def _task_items(row: TaskRow) -> Iterator[Mapping[str, Any]]:
    yield task_item(row.task)
    run_id, number = row.task.run_id, row.task.number
    state: TaskProgress = {"reason": row.reason} if row.reason else {}
    if row.state != TaskState.OPEN:
        failing = row.failures.count
        kept = f"{layout.task_sk('failures', number)}/restored" if failing else ""
        if kept:
            yield failures_item(run_id, kept, row.failures)
        digest = task_state_digest(run_id, number, row.state, failing, kept)
        state |= {"state": row.state, "state_digest": digest, "failing": failing, "failures": kept}
    if row.written is not None:
        state |= layout.task_tally(row.task, row.written)
    if state:
        pk, sk = layout.state_key(row.task)
        yield {"pk": pk, "sk": sk, **state}
