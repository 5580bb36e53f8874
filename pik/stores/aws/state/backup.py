"""The state table as rows, and rows as the state table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import TypeVar

from pik.errors import Busy, StoreError
from pik.model.run import NO_FAILURES, Run
from pik.ports.state import (
    LetterRow,
    Message,
    MetricRow,
    Omitted,
    PointerRow,
    PromotionRow,
    Queue,
    Row,
    RunRow,
    TaskRow,
    VersionRow,
    Written,
)
from pik.stores.aws.queue import PURGED, purged_item
from pik.stores.aws.state.aggregates import TALLY, tally_digest
from pik.stores.aws.state.items import (
    CONTENT,
    RUN,
    bucket_item,
    current_key,
    is_sound,
    key_time,
    row_of,
    run_pk,
    sealed,
    task_sk,
    version_item,
    version_key,
)
from pik.stores.aws.state.items import Row as Place
from pik.stores.aws.state.metrics import METRICS, metric_item, metric_of
from pik.stores.aws.state.move_pointers import PROMOTIONS, UNDER_WAY, promotion_digest, promotion_of
from pik.stores.aws.state.runs import (
    LISTING,
    AwsRuns,
    failures_are_sound,
    failures_item,
    listing_items,
    run_item,
    task_item,
    task_state_digest,
)
from pik.stores.aws.table import READS, Item, Key, Table, batched
from pik.stores.state_rows import damaged_row, failures_of, lost_version, read_task

RESTORE: Key = ("restore", "restore")
"""The item that says which restore is under way, or was interrupted."""

_Kind = TypeVar("_Kind", bound=Row)


@dataclass(frozen=True, slots=True)
class AwsBackup:
    """Implements the port."""

    table: Table
    queue: Queue

    @contextmanager
    def rows(self) -> Iterator[Iterator[Row | Omitted]]:
        yield self._rows()

    def has_state(self, resuming: str = "") -> bool:
        under_way = self.table.get(RESTORE)
        if under_way is not None:
            return bool(under_way["name"] != resuming)
        kinds = (METRICS, LISTING, PROMOTIONS, PURGED)
        return any(next(self.table.query(kind), None) is not None for kind in kinds)

    def restore(self, rows: Iterable[Row], name: str) -> tuple[str, ...]:
        if self.has_state(name):
            raise StoreError("the stack holds state already, or another restore of it was interrupted")
        self.table.put({"pk": RESTORE[0], "sk": RESTORE[1], "name": name})
        runs: list[Run] = []
        for kind, some in groupby(rows, key=type):
            if kind is RunRow:
                runs += [row.run for row in _all(RunRow, some)]
            else:
                self._take(some)
        for run in runs:  # what is found first is written last
            self.table.write_many(listing_items(run))
            self.table.put(run_item(run))
        self.table.delete(RESTORE)
        return ()

    def _rows(self) -> Iterator[Row]:
        before = self._promotions()
        for item in self.table.query(METRICS):
            yield MetricRow(metric_of(item))
        ids = [item["sk"] for item in self.table.query(LISTING)]
        runs = AwsRuns(self.table)
        there = [run_id for run_id in ids if self.table.get((run_pk(run_id), RUN)) is not None]
        yield from (RunRow(runs.get(run_id)) for run_id in there)
        for run_id in there:
            yield from self._tasks(run_id)
        for run_id in there:
            yield from self._versions(run_id)
        yield from map(_promotion_row, before)
        yield from self._pointers()
        yield from (LetterRow(letter) for letter in self.queue.letters(purged=True))
        yield from (LetterRow(letter) for letter in self.queue.letters())
        moving = self.table.get_many((run_pk(run_id), UNDER_WAY) for run_id in there)
        if moving or self._promotions() != before:
            raise Busy("runs are being promoted or rolled back", hint="run this again when that has ended")

    def _promotions(self) -> list[Item]:
        return list(self.table.query(PROMOTIONS))

    def _tasks(self, run_id: str) -> Iterator[Row]:
        states = {item["sk"].partition("/")[2]: item for item in self.table.query(run_pk(run_id), prefix="state/")}
        for item in self.table.query(run_pk(run_id), prefix="task/"):
            state = states.get(item["sk"].partition("/")[2], {})
            written = None
            if "written" in state:
                new, changed, unchanged, removed, versions = (state[name] for name in (*TALLY, "written"))
                programs = (state["computed_by"],) if state["computed_by"] else ()
                written = Written(new, changed, unchanged, removed, versions, state["versions_xor"].hex(), programs)
            failures = NO_FAILURES
            if state.get("failing"):
                kept = self.table.get((run_pk(run_id), state["failures"]))
                if kept is None or not failures_are_sound(kept):
                    raise damaged_row(f"what failed in task {item['sk'].partition('/')[2]} of run {run_id}")
                failures = failures_of(state["failing"], kept["body"])
            reason = state.get("reason", "")
            yield TaskRow(read_task(item["body"]), state.get("state", "OPEN"), reason, written, failures)

    def _versions(self, run_id: str) -> Iterator[Row]:
        for item in self.table.query(f"version/{run_id}"):
            place = row_of(item)
            if not is_sound(place, item):
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
        names = {item["sk"].rpartition("/")[0] for item in self.table.query(METRICS)} | {"event_count"}
        for name in sorted(names):
            for bucket in self.table.query(f"buckets/{name}"):
                for item in self.table.query(f"current/{name}/{bucket['sk']}"):
                    place = row_of(item)
                    if not is_sound(place, item):
                        raise damaged_row(f"the pointer to the current {name} of {place.entity}")
                    yield PointerRow(name, key_time(bucket["sk"]), place.entity, item["run"])

    def _take(self, rows: Iterable[Row]) -> None:
        """Write rows of one kind."""
        for some in batched(rows, READS):
            first = some[0]
            if isinstance(first, MetricRow):
                items = [metric_item(row.metric) for row in _all(MetricRow, some)]
                self.table.write_many([*items, *map(sealed, items)])
            elif isinstance(first, TaskRow):
                self.table.write_many(item for row in _all(TaskRow, some) for item in _task_items(row))
            elif isinstance(first, VersionRow):
                self._take_versions(list(_all(VersionRow, some)))
            elif isinstance(first, PromotionRow):
                self.table.write_many(item for row in _all(PromotionRow, some) for item in _promotion_items(row))
            elif isinstance(first, PointerRow):
                self._take_pointers(list(_all(PointerRow, some)))
            else:
                self._take_letters(list(_all(LetterRow, some)))

    def _take_versions(self, rows: list[VersionRow]) -> None:
        items = []
        for row in rows:
            place = Place(row.metric, row.bucket, row.entity)
            item = version_item(
                place,
                run_id=row.run_id,
                value=row.value or "",
                inputs=(row.inputs, bytes.fromhex(row.input_ids), bytes.fromhex(row.input_contents)),
                known=(row.metric_version, row.known_until, row.reason),
                base=row.base or "",
                kind=row.kind,
            )
            if item["digest"].hex() != row.digest:
                raise damaged_row(f"the version of {row.metric} of {row.entity} in the backup")
            items.append(item)
        buckets = {(row.metric, row.bucket): bucket_item(Place(row.metric, row.bucket, "")) for row in rows}
        self.table.write_many([*buckets.values(), *items])

    def _take_pointers(self, rows: list[PointerRow]) -> None:
        places = [(row.run_id, Place(row.metric, row.bucket, row.entity)) for row in rows]
        versions = self.table.get_many(version_key(run_id, place) for run_id, place in places)
        items = []
        for run_id, place in places:
            version, (pk, sk) = versions.get(version_key(run_id, place)), current_key(place)
            if version is None:
                raise lost_version(place.metric, place.entity)
            items.append({"pk": pk, "sk": sk, **{name: version[name] for name in CONTENT}})
        self.table.write_many(items)

    def _take_letters(self, rows: list[LetterRow]) -> None:
        """Those that are given up are items; the others go to the dead-letter queue, under names that SQS gives."""
        self.table.write_many(purged_item(row.letter) for row in rows if row.letter.purged_at is not None)
        there = {(letter.task.run_id, letter.task.number) for letter in self.queue.letters()}
        for row in rows:
            letter = row.letter
            if letter.purged_at is None and (letter.task.run_id, letter.task.number) not in there:
                self.queue.bury(Message(letter.task, "", letter.attempts), letter.reason, letter.failed_at, letter.hint)


def _all(kind: type[_Kind], rows: Iterable[Row]) -> Iterator[_Kind]:
    for row in rows:
        assert isinstance(row, kind)
        yield row


def _promotion_row(item: Item) -> PromotionRow:
    told = promotion_of(item)
    return PromotionRow(
        promotion_id=item["sk"],
        **{name: getattr(told, name) for name in ("run_id", "kind", "at", "reason", "moved", "conflicts")},
        pointers=item["pointers"],
        pointers_xor=item["pointers_xor"].hex(),
    )


def _promotion_items(row: PromotionRow) -> list[Item]:
    record: Item = {
        "run": row.run_id,
        **{name: getattr(row, name) for name in ("kind", "at", "reason", "moved", "conflicts", "pointers")},
        "pointers_xor": bytes.fromhex(row.pointers_xor),
    }
    record["digest"] = promotion_digest(row.promotion_id, record)
    item = {"pk": PROMOTIONS, "sk": row.promotion_id, **record}
    return [item, sealed(item), {"pk": run_pk(row.run_id), "sk": f"promotion/{row.promotion_id}", **record}]


def _task_items(row: TaskRow) -> Iterator[Item]:
    run_id, number = row.task.run_id, row.task.number
    yield task_item(row.task)
    state: Item = {"pk": run_pk(run_id), "sk": task_sk("state", row.task)}
    if row.state != "OPEN":
        kept = f"{task_sk('failures', row.task)}/restored" if row.failures.count else ""
        if kept:
            yield failures_item(run_id, kept, row.failures)
        failing = row.failures.count, kept
        state |= {"state": row.state, "state_digest": task_state_digest(run_id, number, row.state, *failing)}
        state |= {"failing": row.failures.count, "failures": kept}
    if row.reason:
        state["reason"] = row.reason
    if row.written is not None:
        state |= {name: getattr(row.written, name) for name in TALLY}
        state |= {"written": row.written.versions, "versions_xor": bytes.fromhex(row.written.versions_xor)}
        state["computed_by"] = ", ".join(row.written.computed_by)
        state["tally_digest"] = tally_digest(run_id, number, state)
    if len(state) > 2:
        yield state
