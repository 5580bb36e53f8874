"""Writing what a task computed: each version once, however often the task comes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from tempfile import SpooledTemporaryFile
from typing import NamedTuple

import msgspec

from pik.model.metric import Computed
from pik.model.run import CANCELLED, Task
from pik.stores.aws.adaptive_map import Flow
from pik.stores.aws.state.keys import RUN, run_pk, task_sk
from pik.stores.aws.state.versions import Row, bucket_item, current_key, value_text, version_item
from pik.stores.aws.table import READS, Item, Key, Table, Value, batched
from pik.stores.state_rows import NO_ROWS, row_digest, xor_of

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
    computed_by: str = ""

    def write(self, rows: Iterable[Computed]) -> None:
        """Write the rows; those that are there already stay. Then the task's state tells how all of them compare."""
        tally: Counter[str] = Counter()
        digests = NO_ROWS
        with _staged(rows) as staged:
            for written in Flow().map(self._write, batched(staged, _CHUNK)):
                if written is None:  # the run was cancelled
                    return
                tally.update(written.kinds)
                digests = xor_of([written.digests], digests)
        self._tell(tally, digests)

    def _write(self, rows: Sequence[Computed]) -> _Written | None:
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
        kept = [before.get((item["pk"], item["sk"]), item) for item in items]
        return _Written(Counter(item["kind"] for item in kept), xor_of(item["digest"] for item in kept))

    @property
    def _run(self) -> Key:
        return run_pk(self.task.run_id), RUN

    def _item(self, row: Computed, place: Row, current: Item | None) -> Item:
        value = value_text(row.value)
        return version_item(
            place,
            run_id=self.task.run_id,
            value=value,
            inputs=(row.inputs, bytes.fromhex(row.input_ids), bytes.fromhex(row.input_contents)),
            known=(self.versions[row.metric], self.known_until, self.reason),
            base=current["run"] if current else "",
            kind=_kind(value, current["value"] if current else ""),
        )

    def _tell(self, tally: Counter[str], digests: bytes) -> None:
        """Two writers of one task may have computed different rows: the count of more of them stays."""
        counts = {name: tally[name] for name in TALLY}
        values: dict[str, Value] = {
            **counts,
            "written": tally.total(),
            "versions_xor": digests,
            "computed_by": self.computed_by,
        }
        values["tally_digest"] = tally_digest(self.task.run_id, self.task.number, values)
        self.table.update(
            (run_pk(self.task.run_id), task_sk("state", self.task)),
            "SET " + ", ".join(f"#{name} = :{name}" for name in values),
            values,
            condition="attribute_not_exists(#written) OR #written <= :written",
        )


class _Written(NamedTuple):
    """How the versions of some rows compare with what was current, and the XOR of their digests."""

    kinds: Counter[str]
    digests: bytes


def tally_digest(run_id: str, number: int, state: Mapping[str, Value]) -> bytes:
    """The digest of what a task's state says of its versions."""
    counted = (*TALLY, "written", "versions_xor", "computed_by")
    return row_digest("tally", run_id, number, *(state[name] for name in counted))


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
