"""What the tests of use cases share: events, the truth about them, and engines."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import groupby
from pathlib import Path
from typing import Any

import msgspec
import zstandard

from pik.engine import DuckEngine
from pik.errors import EngineError
from pik.inputs.source import Input, file_source
from pik.model.aggregate import BucketDigest, Computed, DigestLines, bucket_digests, decimal_text, digest_line
from pik.model.calendar import Buckets
from pik.model.instant import DAY, HOUR, parse_instant
from pik.model.metric import ALL_ENTITIES, Combination, Definition, Per
from pik.model.run import RunRequest
from pik.model.window import ALL_TIME, Window
from pik.ports.engine import (
    NOTHING,
    Bucket,
    Computation,
    CountedDeliveries,
    CountedDelivery,
    DeliveryFiles,
    Figures,
    Inputs,
    Tables,
    TouchedBucket,
)
from pik.ports.store import Store
from pik.rawlog.reading import Reading
from pik.runtime import SILENT
from pik.usecases.ingest.batch_ingest import IngestOptions
from pik.usecases.ingest.batch_ingest import ingest as ingest_source
from pik.usecases.replay.execute import Pace, run_locally
from pik.usecases.replay.plan import plan_replay, start
from pik.usecases.replay.promote import promote

SUM = Definition(name="total", value="sum(v)", bucket="12h", where="event_type = 'paid'")
FIRST = parse_instant("2026-01-01T00:00:00Z")
HERE = Pace(workers=0)


def event(
    number: float | str | None, entity: str, at: str, *, kind: str = "paid", source: str = "web"
) -> dict[str, Any]:
    return {
        "source": source,
        "event_type": kind,
        "entity_id": entity,
        "event_time": f"2026-01-{at}:00Z",
        "payload": {"v": number},
    }


EVENTS = [
    event(1, "a", "01T00:00"),
    event(2, "a", "01T11:59"),
    event(4, "a", "01T12:00"),
    event(8, "a", "02T00:00", source="app"),
    event(16, "a", "02T01:00", kind="seen"),
    event(32, "b", "02T01:00"),
    event(64, "b", "05T13:00", source="app"),
    event(128, "é", "05T14:00", kind="seen", source="app"),
    event(256, "z", "20T00:00"),
    event(512, "z", "20T00:01"),
]


def ingest(store: Store, directory: Path, events: Iterable[dict[str, Any]] = EVENTS, *, again: bool = False) -> None:
    path = directory / "events.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in events), encoding="utf-8")
    ingest_source(store, file_source(str(path)), IngestOptions(Reading(1 << 20), again=again, workers=0), SILENT)


def window(start: str = "", end: str = "") -> Window:
    """From and to days (or instants) of January 2026."""
    return Window(
        parse_instant(f"2026-01-{start}", date_only=True) if start else ALL_TIME.start,
        parse_instant(f"2026-01-{end}", date_only=True) if end else ALL_TIME.end,
    )


def request(within: Window = ALL_TIME, **fields: Any) -> RunRequest:
    return RunRequest(start=within.start, end=within.end, **fields)


def replay(store: Store, engine: Any, within: Window = ALL_TIME, pace: Pace = HERE, **fields: Any) -> Any:
    plan = plan_replay(store, engine, request(within, **fields), 1)
    return run_locally(store, engine, start(store, plan).run_id, pace, SILENT)


def replayed(store: Store, engine: Any, within: Window = ALL_TIME, **fields: Any) -> str:
    """A run, promoted."""
    run = replay(store, engine, within, **fields)
    promote(store, run.run_id, 2, "")
    return str(run.run_id)


Values = dict[tuple[str, int, str], Decimal | None]


def current(store: Store) -> Values:
    """What is current: (metric, bucket, entity) → value."""
    return {
        (found.computed.metric, found.computed.bucket, found.computed.entity_id): found.computed.value
        for metric in store.metrics.latest()
        for found in store.aggregates.current(metric.name, ALL_TIME)
    }


def truth(events: Iterable[dict[str, Any]] = EVENTS) -> Values:
    """What event_count and total are, from the events themselves."""
    values: dict[tuple[str, int, str], Decimal] = defaultdict(Decimal)
    for each in events:
        at = parse_instant(each["event_time"])
        values["event_count", at - at % DAY, each["entity_id"]] += 1
        if each["event_type"] == "paid":
            values["total", at - at % (12 * HOUR), each["entity_id"]] += each["payload"]["v"]
    return dict(values)


@dataclass
class PlainComputation:
    """A Computation over a list of rows."""

    found: list[Computed]

    def digests(self) -> Iterator[BucketDigest]:
        for metric, group in groupby(self.found, key=lambda row: row.metric):
            yield from bucket_digests(metric, map(line_of, (row for row in group if row.value is not None)))

    def value_digests(self) -> Iterator[BucketDigest]:
        for metric, group in groupby(self.found, key=lambda row: row.metric):
            valued = [row for row in group if row.value is not None]
            lines = [f"{row.entity_id}\x1f{decimal_text(row.value or Decimal(0))}\n" for row in valued]
            yield from bucket_digests(
                metric, ((row.bucket, line, 0, 0, 0) for row, line in zip(valued, lines, strict=True))
            )

    def lines(self, metric: str, window: Window) -> Iterator[DigestLines]:
        return (
            line_of(row)
            for row in self.found
            if row.metric == metric and row.bucket in window and row.value is not None
        )

    def rows(
        self, *, skipping: Collection[Bucket] = (), among: Mapping[Bucket, Sequence[str]] = NOTHING
    ) -> Iterator[Computed]:
        for row in self.found:
            bucket = row.metric, row.bucket
            if bucket not in skipping and (bucket not in among or row.entity_id in among[bucket]):
                yield row

    def values(self, metric: str) -> Iterator[Decimal]:
        return (row.value for row in self.found if row.metric == metric and row.value is not None)


def line_of(row: Computed) -> DigestLines:
    assert row.value is not None
    hashes = row.input_ids.upper(), row.input_contents.upper()
    return row.bucket, digest_line(row.entity_id, decimal_text(row.value), row.inputs, *hashes), 0, 0, 0


class PlainEngine:
    """Counts, and sums v of what is paid."""

    version = "plain 1"

    def shared(self, parts: int) -> PlainEngine:
        return self

    def check(self, definition: Definition) -> int:
        return 0

    def combination(self, definition: Definition) -> Combination:
        return Combination.SUM

    def counts(self, definition: Definition) -> bool:
        return False

    def reads_delivery(self, definition: Definition) -> bool:
        return False

    def counted(
        self, inputs: Inputs, definition: Definition, window: Window, entities: Sequence[str] = ()
    ) -> Iterator[CountedDelivery]:
        return DuckEngine().counted(inputs, definition, window, entities)

    def compared(
        self, states: Sequence[tuple[Inputs, Definition]], bucket: int, entities: Sequence[str] = ()
    ) -> AbstractContextManager[CountedDeliveries]:
        return DuckEngine().compared(states, bucket, entities)

    def figures(self, path: Path) -> AbstractContextManager[Figures]:
        return DuckEngine().figures(path)

    def tables(
        self,
        files: DeliveryFiles,
        columns: Collection[str],
        window: Window,
        entities: Sequence[str] = (),
        *,
        output: Path | None = None,
    ) -> AbstractContextManager[Tables]:
        return DuckEngine().tables(files, columns, window, entities, output=output)

    def written(self, files: Sequence[Path]) -> AbstractContextManager[Tables]:
        return DuckEngine().written(files)

    def columns_read(self, statement: str, tables: Mapping[str, Mapping[str, str]]) -> dict[str, list[str]]:
        return DuckEngine().columns_read(statement, tables)

    def compute(
        self,
        inputs: Inputs,
        metrics: Sequence[Definition],
        window: Window,
        entities: Sequence[str] = (),
    ) -> Iterator[Computed]:
        for metric in sorted(metrics, key=lambda metric: metric.name):
            groups: dict[tuple[int, str], list[tuple[dict[str, Any], int]]] = defaultdict(list)
            for line, at in lines(inputs, window, entities):
                if metric.where is None or line["event_type"] == "paid":
                    groups[metric.buckets.start_of(at), line["entity_id"]].append((line, at))
            for (bucket, entity), found in sorted(groups.items()):
                value = len(found) if metric.where is None else sum(line["payload"]["v"] for line, _ in found)
                ids = contents = 0
                for line, _ in found:
                    ids ^= int(line["event_id"], 16)
                    contents ^= int(line["content_hash"], 16)
                hashes = f"{ids:032x}", f"{contents:032x}"
                yield Computed(metric.name, bucket, entity, Decimal(value), len(found), *hashes)

    @contextmanager
    def computation(
        self, inputs: Inputs, metrics: Sequence[Definition], window: Window, entities: Sequence[str] = ()
    ) -> Iterator[Computation]:
        yield PlainComputation(list(self.compute(inputs, metrics, window, entities)))

    def partial(
        self,
        inputs: Inputs,
        metrics: Sequence[Definition],
        window: Window,
        target: Path,
        entities: Sequence[str] = (),
    ) -> None:
        target.write_bytes(msgspec.json.encode(list(self.compute(inputs, metrics, window, entities))))

    @contextmanager
    def merge(self, files: Sequence[Path], metrics: Sequence[Definition]) -> Iterator[Computation]:
        found: dict[tuple[str, int, str], Computed] = {}
        for file in files:
            for row in msgspec.json.decode(file.read_bytes(), type=list[Computed]):
                key = row.metric, row.bucket, row.entity_id
                if (other := found.get(key)) is not None:
                    value = (row.value or Decimal(0)) + (other.value or Decimal(0))
                    pairs = (row.input_ids, other.input_ids), (row.input_contents, other.input_contents)
                    ids, contents = (f"{int(one, 16) ^ int(two, 16):032x}" for one, two in pairs)
                    row = Computed(*key, value, (row.inputs or 0) + (other.inputs or 0), ids, contents)
                found[key] = row
        yield PlainComputation([found[key] for key in sorted(found)])

    def touched(
        self,
        inputs: Inputs,
        buckets: Buckets,
        window: Window,
        *,
        entities: Sequence[str] = (),
        source: str | None = None,
        event_type: str | None = None,
        among: Path | None = None,
        per: Per = Per.ENTITY,
    ) -> Iterator[TouchedBucket]:
        counts: dict[tuple[int, str], int] = defaultdict(int)
        some = None if among is None else {tuple(line.split(",")) for line in among.read_text().split()}
        for line, at in lines(inputs, window, entities):
            if some is not None and not {(line["batch_id"], str(line["seq"])), (line["batch_id"], "")} & some:
                continue
            if source in (None, line["source"]) and event_type in (None, line["event_type"]):
                counts[buckets.start_of(at), line["entity_id"] if per == Per.ENTITY else ALL_ENTITIES] += 1
        for (bucket, entity), events in sorted(counts.items()):
            yield TouchedBucket(bucket, entity, events)


def lines(inputs: Inputs, window: Window, entities: Sequence[str]) -> Iterator[tuple[dict[str, Any], int]]:
    skipped: set[tuple[str, str]] = set()
    if inputs.skip is not None:
        with open(inputs.skip, encoding="ascii", newline="") as file:
            skipped = {(batch, seq) for batch, seq in csv.reader(file)}
    out: set[str] = set()
    moved: dict[tuple[str, int], str] = {}
    for one in inputs.corrections:
        for path in one.files:
            with zstandard.open(path, "rt", encoding="utf-8") as file:
                for listed in map(json.loads, file):
                    if one.moves:
                        moved[listed["batch_id"], listed["seq"]] = listed["time"]
                    else:
                        out.add(listed["event_id"])
    for path in inputs.files:
        with zstandard.open(path, "rt", encoding="utf-8") as file:
            for text in file:
                line = json.loads(text)
                if line["event_id"] in out or line["entity_id"] not in inputs.entity_range:
                    continue
                line["event_time"] = moved.get((line["batch_id"], line["seq"]), line["event_time"])
                at = parse_instant(line["event_time"])
                wanted = at in window and (not entities or line["entity_id"] in entities)
                if wanted and (line["batch_id"], str(line["seq"])) not in skipped:
                    yield line, at


@dataclass
class Faulty(PlainEngine):
    """Asks `fault` before and after each computation's rows; it may raise. Notes what it computed."""

    fault: Callable[[Window], None] = lambda _window: None
    computed: list[Window] = field(default_factory=list)

    def compute(
        self,
        inputs: Inputs,
        metrics: Sequence[Definition],
        window: Window,
        entities: Sequence[str] = (),
    ) -> Iterator[Computed]:
        self.computed.append(window)
        self.fault(window)
        yield from super().compute(inputs, metrics, window, entities)
        self.fault(window)


def broken(_window: Window) -> None:
    raise EngineError("the metric total cannot be computed")


def digest(source: Input) -> str:
    """The identity of a file's content."""
    with source.open() as opened:
        return opened.digest()
