"""Writing what a task computed: each version once, however often the task comes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from tempfile import SpooledTemporaryFile

import msgspec

from pik.model.metric import Computed
from pik.model.run import CANCELLED, Task
from pik.stores.aws.flow import Flow
from pik.stores.aws.keys import RUN, US, run_pk, task_sk, time_key
from pik.stores.aws.table import READS, Item, Key, Table, Value, batched
from pik.stores.aws.versions import Row, bucket_item, current_key, value_text, version_key

TALLY = ("new", "changed", "unchanged", "removed")

_CHUNK = READS - 1  # their pointers and the run are one read
_IN_MEMORY = 1 << 20

_read_row = msgspec.json.Decoder(Computed).decode


@dataclass(frozen=True, slots=True)
class Writing:
    """One write of one task."""

    table: Table
    task: Task
    versions: Mapping[str, int]
    known_until: int
    reason: str

    def write(self, rows: Iterable[Computed]) -> None:
        """Write the rows; those that are there already stay. Then the task's state tells how all of them compare."""
        tally: Counter[str] = Counter()
        with _staged(rows) as staged:
            for written in Flow().map(self._write, batched(staged, _CHUNK)):
                if written is None:  # the run was cancelled
                    return
                tally.update(written)
        self._tell(tally)

    def _write(self, rows: Sequence[Computed]) -> Counter[str] | None:
        """Write some rows, and count how they compare with what was current when they were first written."""
        places = [Row(row.metric, row.bucket, row.entity_id) for row in rows]
        found = self.table.get_many([self._run, *map(current_key, places)])
        if found.get(self._run, {}).get("state") == CANCELLED:
            return None
        items = [self._item(row, place, found.get(current_key(place))) for row, place in zip(rows, places, strict=True)]
        buckets = {(place.metric, place.bucket): bucket_item(place) for place in places}
        inserted = list(self.table.insert_many([*buckets.values(), *items]))[len(buckets) :]
        there = [(item["pk"], item["sk"]) for item, new in zip(items, inserted, strict=True) if not new]
        before = self.table.get_many(there)
        return Counter(before.get((item["pk"], item["sk"]), item)["kind"] for item in items)

    @property
    def _run(self) -> Key:
        return run_pk(self.task.run_id), RUN

    def _item(self, row: Computed, place: Row, current: Item | None) -> Item:
        pk, sk = version_key(self.task.run_id, place)
        value = value_text(row.value)
        return {
            "pk": pk,
            "sk": sk,
            "bucket_key": f"{row.metric}{US}{time_key(row.bucket)}",
            "version_key": f"{row.entity_id}{US}{self.task.run_id}",
            "run": self.task.run_id,
            "value": value,
            "inputs": row.inputs,
            "input_ids": bytes.fromhex(row.input_ids),
            "input_contents": bytes.fromhex(row.input_contents),
            "metric_version": self.versions[row.metric],
            "known_until": self.known_until,
            "reason": self.reason,
            "base": current["run"] if current else "",
            "kind": _kind(value, current["value"] if current else ""),
        }

    def _tell(self, tally: Counter[str]) -> None:
        """Two writers of one task may have computed different rows: the count of more of them stays."""
        values: dict[str, Value] = {**{name: tally[name] for name in TALLY}, "written": tally.total()}
        self.table.update(
            (run_pk(self.task.run_id), task_sk("state", self.task)),
            "SET " + ", ".join(f"#{name} = :{name}" for name in values),
            values,
            condition="attribute_not_exists(#written) OR #written <= :written",
        )


def _kind(value: str, before: str) -> str:
    if not before:
        return "new" if value else ""
    if not value:
        return "removed"
    return "unchanged" if value == before else "changed"


@contextmanager
def _staged(rows: Iterable[Computed]) -> Iterator[Iterator[Computed]]:
    """The rows once all of them are made: should that fail, nothing is written. In bounded memory."""
    with SpooledTemporaryFile(_IN_MEMORY) as file:
        file.writelines(msgspec.json.encode(row) + b"\n" for row in rows)
        file.seek(0)
        yield map(_read_row, file)
