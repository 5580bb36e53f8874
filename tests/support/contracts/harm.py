"""A store with one of everything, and all the ways to harm it: each row, item or object deleted, each of its values
changed. PARTS enumerates them; a part of a store that is added gets a line there."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock, patch

import msgspec

from pik.inputs.source import file_source
from pik.model.batch import Verdict
from pik.model.correction import Correction, CorrectionKind, ListedDelivery
from pik.model.delivery import Filter
from pik.model.ids import new_id
from pik.model.window import ALL_TIME
from pik.ports.raw import RawKind
from pik.ports.store import Store
from pik.rawlog.corrections import WinnerLine, record, write_winners
from pik.rawlog.deliveries import deliveries
from pik.rawlog.reading import Reading
from pik.rawlog.replacements import ReplacingRaw
from pik.runtime import SILENT
from pik.stores.aws.catalog.index import AwsIndex
from pik.stores.aws.s3 import AwsRaw
from pik.stores.aws.table import Table
from pik.usecases.ingest.api_request import record_request
from pik.usecases.ingest.batch_ingest import IngestOptions, ingest
from tests.support.corrections import written_lists


@dataclass(frozen=True)
class Harm:
    """`kind` is that of the thing, with `value` the name of the value in it that is changed (empty: it is deleted)."""

    kind: str
    value: str
    thing: object
    do: Callable[[], object]
    undo: Callable[[], object]

    def __str__(self) -> str:
        return f"{self.kind}.{self.value or 'deleted'} of {self.thing}"


def event(entity: str, number: int, day: int = 1, **fields: object) -> dict[str, object]:
    return {
        "source": "s",
        "event_type": "t",
        "entity_id": entity,
        "event_time": f"2026-01-0{day}T00:00:{number:02}Z",
        "payload": {"n": number},
        **fields,
    }


def fill(store: Store, directory: Path) -> None:
    """Files with duplicates, conflicts and rejects, one of several blocks that replaces one that was cut; requests with
    one event, new or not, and with several; a correction."""
    first = [event("a", 1), event("b", 2, 2), event("a", 1), event("k", 3, idempotency_key="x"), "no event"]
    second = [event("a", 1), event("k", 4, 2, idempotency_key="x"), event("c", 5), "{"]
    for name, lines in (("first", first), ("second", second)):
        _ingest(store, directory / f"{name}.jsonl", lines)
    for body in (event("r", 6), event("r", 6), event("q", 7, 3, idempotency_key="y"), event("a", 1)):
        record_request(store, json.dumps(body).encode())
    record_request(store, json.dumps([event("r", 8, 4), event("r", 6), event("p", 9, idempotency_key="z"), 7]).encode())
    blocks = [event("d", number, 5) for number in (1, 2, 3)]
    with patch("pik.inputs.blocks.BLOCK", 100), patch("pik.inputs.blocks.FIRST_READ", 100):
        with patch("pik.usecases.ingest.batch_ingest.write_record", Mock(side_effect=InterruptedError)):
            _ingest(store, directory / "cut.jsonl", blocks[:2])
        _ingest(store, directory / "whole.jsonl", blocks)
    (event_id,) = store.index.locate("", limit=1)
    (place,) = store.index.deliveries(event_id, limit=1)
    winner = WinnerLine(
        event_id=place.event_id, key=place.segment_key, new=(place.batch_id, place.seq), was=Verdict.EXACT
    )
    store.corrections.follow([write_winners(store, [winner], 1)])
    record(store, [correction_of(store)])


def correction_of(store: Store) -> Correction:
    """A correction, not recorded yet, that moves two deliveries, of two days, whose list is durable."""
    lines = [msgspec.json.decode(found.line) for found in deliveries(store, Filter(ALL_TIME))]
    two = {line["event_time"][:10]: line for line in lines}
    listed = [
        ListedDelivery(
            **{name: line[name] for name in ("event_id", "entity_id", "batch_id", "seq", "event_time")},
            time=line["event_time"][:18] + "9" + line["event_time"][19:],
        )
        for line in list(two.values())[:2]
    ]
    made = new_id()
    return Correction(
        format=0,
        correction_id=made,
        kind=CorrectionKind.SHIFT,
        recorded_at=0,
        actor="ana",
        reason="INC-1",
        statement="shift=+1s",
        events=2,
        lists=written_lists(store.raw, made, listed),
    )


def _ingest(store: Store, path: Path, lines: Sequence[object]) -> None:
    path.write_text("".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in lines))
    with suppress(InterruptedError):
        ingest(store, file_source(str(path)), IngestOptions(Reading(1 << 20), workers=0), SILENT)


IMMATERIAL = {
    "batch.number": "an order, which stays",
    "reject_file.number": "an order, which stays",
    "batch.complete": "as where a writer died before it said so: the same command finishes it",
    "batch.attempt": "a writer that died behind a file's record leaves the next one nothing but to finish the batch",
    "batch.origin": "by which no request is looked for",
    "batch.counts": "of a request with one event they are those of its claim",
    "openings of a finished batch.deleted": "its batch record says all that this does",
    "blocks of a finished batch.deleted": "its batch record says all that this does",
    "segment.guessed": "of requests it stands nowhere else",
    "lease": "expires by itself",
    "generation": "is made by the first rebuild",
}
"""What `verify` does not find, by kind or kind and value, and why that is no harm or cannot be seen."""


def index_harms(store: Store) -> Iterator[Harm]:
    """Rows or items of the index."""
    if isinstance(store.index, AwsIndex):
        return _of_table(store.index.table)
    return _of_database(Path(store.url) / "index.db")


def object_harms(store: Store) -> Iterator[Harm]:
    """Objects: raw, and in a deployed store the id files."""
    assert isinstance(store.raw, ReplacingRaw)
    objects = store.raw.raw
    if not isinstance(objects, AwsRaw):
        yield from _of_files(store, Path(store.url))
        return
    bucket = objects.bucket
    s3: Any = objects.clients.client("s3")
    for prefix in ("raw/", "index/", "corrections/"):
        for found in list(store.raw.objects(prefix)):
            data, at = store.raw.read(found.key), {"Bucket": bucket, "Key": found.key}
            kind, undo = _kind_of(store, found.key), partial(s3.put_object, **at, Body=data)
            yield Harm(kind, "", found.key, partial(s3.delete_object, **at), undo)
            for place in {len(data) // 3, len(data) - 1}:
                yield Harm(
                    kind, f"byte {place}", found.key, partial(s3.put_object, **at, Body=_flipped(data, place)), undo
                )


PARTS: dict[str, Callable[[Store], Iterator[Harm]]] = {"index": index_harms, "objects": object_harms}


def _of_files(store: Store, root: Path) -> Iterator[Harm]:
    for path in sorted(path for name in ("raw", "corrections") for path in (root / name).rglob("*") if path.is_file()):
        data, key = path.read_bytes(), str(path.relative_to(root))
        path.chmod(0o644)
        undo = partial(path.write_bytes, data)
        yield Harm(_kind_of(store, key), "", key, path.unlink, undo)
        for place in {len(data) // 3, len(data) - 1}:
            yield Harm(
                _kind_of(store, key), f"byte {place}", key, partial(path.write_bytes, _flipped(data, place)), undo
            )


def _kind_of(store: Store, key: str) -> str:
    if not key.startswith("raw/"):
        kind = "lists" if key.count("/") == 2 else "corrections"
        return {"index": "ids"}.get(key.partition("/")[0], kind)
    kind = key.split("/")[1].partition("=")[0]
    if kind in ("openings", "blocks") and store.raw.size(RawKind.BATCH.key(key.split("/")[2][:26])) is not None:
        return f"{kind} of a finished batch"
    return kind


def _flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :]


def _of_database(path: Path) -> Iterator[Harm]:
    def change(table: str, gone: dict[str, Any] | None, new: dict[str, Any] | None) -> None:
        with closing(sqlite3.connect(path)) as connection, connection:
            if gone is not None:
                where = " AND ".join(f"{name} IS ?" for name in gone)
                done = connection.execute(f"DELETE FROM {table} WHERE {where}", [*gone.values()])
                assert done.rowcount == 1
            if new is not None:
                marks = ", ".join("?" * len(new))
                connection.execute(f"INSERT INTO {table} ({', '.join(new)}) VALUES ({marks})", [*new.values()])

    with closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        rows = {table: [dict(row) for row in connection.execute(f"SELECT * FROM {table}")] for table in tables}
    for table, of_table in rows.items():
        for row in of_table:
            yield Harm(table, "", row, partial(change, table, row, None), partial(change, table, None, row))
        shapes = {frozenset(name for name in row if row[name] is not None): row for row in reversed(of_table)}
        for row in (*shapes.values(), *of_table[-1:]):
            for name in (name for name in row if row[name] is not None):
                other = {**row, name: _changed(row[name])}
                do, undo = partial(change, table, row, other), partial(change, table, other, row)
                yield Harm(table, name, row, do, undo)


def _of_table(table: Table) -> Iterator[Harm]:
    """An item of each kind and shape deleted, and each of its values changed."""
    dynamodb: Any = table.clients.client("dynamodb")
    seen: set[tuple[str, ...]] = set()
    for item in dynamodb.scan(TableName=table.name)["Items"]:
        pk = item["pk"]["S"]
        kind = pk.split("/")[1] if pk[0].isdigit() else pk.split("/")[0]
        shape = (kind, *sorted(item))
        if shape in seen:
            continue
        seen.add(shape)
        undo = partial(dynamodb.put_item, TableName=table.name, Item=item)
        key = {name: item[name] for name in ("pk", "sk")}
        yield Harm(kind, "", item, partial(dynamodb.delete_item, TableName=table.name, Key=key), undo)
        for name, value in item.items():
            ((form, content),) = value.items()
            if name not in key:
                changed = str(_changed(int(content))) if form == "N" else _changed(content)
                other = {**item, name: {form: changed}}
                yield Harm(kind, name, item, partial(dynamodb.put_item, TableName=table.name, Item=other), undo)


def _changed(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return 1 - value if value in (0, 1) else value + 1000
    if isinstance(value, bytes):
        return bytes([*value[:-1], value[-1] ^ 1]) if value else b"1"
    return value[:-1] + ("x" if value[-1:] != "x" else "y")
