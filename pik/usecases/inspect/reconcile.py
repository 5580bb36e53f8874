"""A producer's own log against the store: which events only one of the two has. Writes nothing to the store.

DuckDB compares both sides by event_id, on disk where memory does not suffice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

import msgspec
import zstandard

from pik.errors import Invalid, NothingSelected, UsageError
from pik.inputs.source import Input
from pik.model.delivery import Delivery, event_id_text, read_delivery
from pik.model.event import ENVELOPE
from pik.model.instant import HOUR
from pik.model.metric import Definition
from pik.model.window import ALL_TIME, Window
from pik.ports.engine import DeliveryFiles, Engine, Tables
from pik.ports.store import Store
from pik.rawlog.gathering import gather_deliveries
from pik.rawlog.objects import raw_lines
from pik.rawlog.reading import Reading
from pik.rawlog.selection import AS_RECEIVED, Overrides, Selection
from pik.runtime import SILENT, Progress
from pik.runtime.new_file import created_whole
from pik.runtime.storage import Spool, scratch
from pik.usecases.availability import expect_held
from pik.usecases.inspect.log_changes import ChangedPlace, changed_places
from pik.usecases.inspect.producer_log import ProducerLog, read_log
from pik.usecases.metrics.computation import widest
from pik.usecases.metrics.definitions import chosen, of_entities
from pik.usecases.metrics.impact import Impact, impact

HELD = 200_000
"""Missing events whose ids are in memory at a time."""

_COLUMNS = (
    *("event_id", "content_hash", "source", "event_type", "entity_id", "event_ns"),
    *("batch_id", "seq", "idempotency_key"),
)
_IS_LOG = "starts_with(batch_id, '0000000000')"  # a ULID of today begins with its time
_SCOPED = ("source", "event_type", "entity_id")


@dataclass(frozen=True, slots=True)
class Scope:
    """What is compared: window, sources, types and entities. Empty: those of the log, as its window is where that is
    all of time. `where` is a condition in SQL as in a metric's `where`."""

    window: Window = ALL_TIME
    sources: tuple[str, ...] = ()
    event_types: tuple[str, ...] = ()
    entities: tuple[str, ...] = ()
    where: str | None = None


class HourCount(msgspec.Struct, frozen=True):
    """Events of a source in an hour (its start, nanoseconds): in both, in the log alone, in the store alone, and in
    both under one key with different content."""

    hour: int
    source: str
    both: int
    missing: int
    unexpected: int
    different: int


class Mismatch(msgspec.Struct, frozen=True):
    """An event that is missing, unexpected or different: `log` and `record` say where in the log it is, `batch_id` and
    `seq` where in the store."""

    finding: str
    event_id: str
    event_time: int
    source: str
    event_type: str
    entity_id: str
    log: str | None
    record: int | None
    batch_id: str | None
    seq: int | None


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """What the comparison found. `scope` has its sources and types by name; `entities` is how many it has.

    Of the log's `read` records, `rejected` are not events, and `repeated` are deliveries of an event that it has
    already; `times` counts how its times were read, as in Chunk, and `mappings` has the named ones that read records.
    `changes` says in what different events differ, as far as both of their sides are in the scope. `impact` is what the
    missing events would add to the metrics; None: none is missing.
    """

    scope: Scope
    entities: int
    read: int
    rejected: int
    repeated: int
    both: int
    missing: int
    unexpected: int
    different: int
    hours: Spool[HourCount]
    mismatches: Spool[Mismatch]
    changes: list[ChangedPlace]
    impact: Impact | None
    times: Mapping[str, int]
    mappings: tuple[str, ...]

    @property
    def differs(self) -> bool:
        """Whether the two sides differ."""
        return bool(self.missing or self.unexpected or self.different)


def reconcile(
    store: Store,
    engine: Engine,
    sources: Iterable[Input],
    reading: Reading,
    scope: Scope,
    *,
    workers: int = 0,
    metrics: Sequence[str] = (),
    write: Path | None = None,
    progress: Progress = SILENT,
) -> Reconciliation:
    """Compare the log with the store within the scope; `write` is a new file for the missing events, as JSON lines.

    Raises InputError (the log cannot be read to its end), NothingSelected (it has no event in the scope), UsageError,
    NotHeld, Damaged and EngineError.
    """
    if scope.where is not None:
        _check_where(engine, scope.where)
    wanted, _ = of_entities(chosen(store.metrics, metrics), scope.entities)
    with scratch() as directory, ExitStack() as outputs, ExitStack() as stack:
        log = read_log(sources, reading, directory, workers, progress)
        if log.first is None or log.last is None:
            hint = f"{log.rejected:,} of its records are not events" if log.rejected else "it has no record"
            raise NothingSelected(f"{_named(log)} has no event", hint=hint)
        if scope.window == ALL_TIME:
            scope = replace(scope, window=Window(log.first, log.last + 1))
        window, entities = scope.window, scope.entities
        expect_held(store, window, entities)
        # A log has what was sent, so it is compared with what came, whatever corrections made of that.
        stored = stack.enter_context(gather_deliveries(Selection(store, window, entities, AS_RECEIVED)))
        both = DeliveryFiles(
            [*stored.files, *log.files], stored.deliveries + log.deliveries, stored.verdicts, stored.blocks
        )
        columns = {*_COLUMNS, *(field.name for field in ENVELOPE if scope.where is not None)}
        tables = stack.enter_context(engine.tables(both, columns, window, entities))
        comparison = _Comparison(store, tables, log, scope)
        comparison.run()
        if different := comparison.counts["different"]:
            comparison.changes = changed_places(tables, different, stored.files, log.files)
        changed = None
        if comparison.counts["missing"]:
            expect_held(store, widest(window, wanted), entities)  # before anything is written
            missing = directory / "missing.zst"
            lines = None if write is None else outputs.enter_context(created_whole(write, "--write"))
            comparison.write_missing(missing, lines)
            stack.close()  # the engine's memory is needed again
            overrides = Overrides(added=[(missing, comparison.counts["missing"])])
            changed = impact(store, engine, window, overrides, entities=entities, metrics=metrics)
        return comparison.result(changed)


def _named(log: ProducerLog) -> str:
    return log.names[0] if len(log.names) == 1 else f"the log ({len(log.names)} inputs)"


def _check_where(engine: Engine, where: str) -> None:
    try:
        engine.check(Definition(name="selection", value="count(*)", where=where))
    except Invalid as error:
        raise UsageError(f"--where {where}: {error.message.partition(': ')[2]}", hint=error.hint) from None


class _Comparison:
    """Compares the two sides in one session of the engine."""

    def __init__(self, store: Store, tables: Tables, log: ProducerLog, scope: Scope) -> None:
        self._store, self._tables, self._log, self._scope = store, tables, log, scope
        self.counts = dict.fromkeys(("both", "missing", "unexpected", "different"), 0)
        self.changes = list[ChangedPlace]()
        self._entities = self._repeated = 0
        self._hours = Spool(HourCount)
        self._mismatches = Spool(Mismatch)

    def run(self) -> None:
        """Compare, and collect what was found."""
        tables = self._tables
        self._keep_log()
        self._keep_stored()
        columns = ", ".join(
            f"coalesce(log.{name}, stored.{name}) AS {name}" for name in ("event_id", *_SCOPED, "event_ns")
        )
        tables.keep(
            "compared",
            f"SELECT {columns}, log.batch_id AS log_batch, log.seq AS log_seq, stored.batch_id AS stored_batch, "
            "stored.seq AS stored_seq, CASE WHEN stored.event_id IS NULL THEN 'missing' WHEN log.event_id IS NULL THEN "
            "'unexpected' WHEN log.content_hash <> stored.content_hash THEN 'different' ELSE 'both' END AS finding, "
            "coalesce(log.idempotency_key, stored.idempotency_key) IS NOT NULL AS keyed "
            "FROM log FULL OUTER JOIN stored ON log.event_id = stored.event_id",
        )
        if elsewhere := [*self._stored_elsewhere(), *self._logged_elsewhere()]:
            tables.keep("elsewhere", "SELECT unnest(CAST(? AS VARCHAR[])) AS event_id", [elsewhere])
            tables.keep(
                "compared",
                "SELECT * REPLACE (CASE WHEN event_id IN (SELECT event_id FROM elsewhere) THEN 'different' "
                "ELSE finding END AS finding) FROM compared",
            )
        self._collect()

    def _stored_elsewhere(self) -> Iterator[str]:
        """Yield the missing events that the store has at a time outside the window, or with content that is not
        selected."""
        for [event_id] in self._tables.rows("SELECT event_id FROM compared WHERE finding = 'missing' AND keyed"):
            if self._store.index.locate(event_id, limit=1):
                yield event_id

    def _logged_elsewhere(self) -> Iterator[str]:
        """Yield the unexpected events that the log has so."""
        where = "finding = 'unexpected' AND keyed"
        [[count]] = self._tables.rows(f"SELECT count(*) FROM compared WHERE {where}")
        parts = -(-count // HELD)
        for part in range(parts):
            sql = f"SELECT event_id FROM compared WHERE {where} AND hash(event_id) % ? = ?"
            ids = {event_id.encode() for [event_id] in self._tables.rows(sql, [parts, part])}
            yield from {event_id_text(line).decode() for line in raw_lines(self._log.files, ids)}

    def _keep_log(self) -> None:
        """Keep the log's events in the scope, each by its first delivery. Raises NothingSelected."""
        scope, tables = self._scope, self._tables
        conditions, parameters = [_IS_LOG], list[object]()
        for name, names in zip(_SCOPED, (scope.sources, scope.event_types, scope.entities), strict=True):
            if names:
                conditions.append(f"{name} IN (SELECT unnest(CAST(? AS VARCHAR[])))")
                parameters.append(list(names))
        if scope.where is not None:
            conditions.append(f"({scope.where})")
        try:
            tables.keep(
                "log",
                f"SELECT {', '.join(_COLUMNS)}, count(*) OVER (PARTITION BY event_id) AS times FROM deliveries "
                f"WHERE {' AND '.join(conditions)} "
                "QUALIFY row_number() OVER (PARTITION BY event_id ORDER BY batch_id, seq) = 1",
                parameters,
            )
        except Invalid as error:
            raise UsageError(f"--where {scope.where}: {error.message}") from None
        [[events, deliveries]] = tables.rows("SELECT count(*), coalesce(sum(times), 0) FROM log")
        if not events:
            raise NothingSelected(
                f"{_named(self._log)} has no event in the scope: none of its {self._log.deliveries:,} events is"
                f" selected {scope.window.within}",
                hint="fewer of --from, --to, --source, --type, --entity, --where",
            )
        self._repeated = int(deliveries) - events

    def _keep_stored(self) -> None:
        """Keep the store's accepted events in the scope, which the log determines where it was not given."""
        scope, tables = self._scope, self._tables
        for name in _SCOPED:
            tables.keep(f"of_{name}", f"SELECT DISTINCT {name} FROM log")
        sources, event_types = (
            given or tuple(name for [name] in tables.rows(f"SELECT {column} FROM of_{column} ORDER BY 1"))
            for column, given in (("source", scope.sources), ("event_type", scope.event_types))
        )
        self._scope = replace(scope, sources=sources, event_types=event_types)
        [[self._entities]] = tables.rows("SELECT count(*) FROM of_entity_id")
        self._entities = len(scope.entities) or self._entities
        conditions, parameters = [f"NOT {_IS_LOG}"], list[object]()
        for name, names in zip(_SCOPED, (sources, event_types, scope.entities), strict=True):
            if names:
                conditions.append(f"{name} IN (SELECT unnest(CAST(? AS VARCHAR[])))")
                parameters.append(list(names))
            else:
                conditions.append(f"{name} IN (SELECT {name} FROM of_{name})")
        if scope.where is not None:
            conditions.append(f"({scope.where})")
        tables.keep("stored", f"SELECT {', '.join(_COLUMNS)} FROM events WHERE {' AND '.join(conditions)}", parameters)

    def _collect(self) -> None:
        counted = ", ".join(f"count_if(finding = '{name}')" for name in self.counts)
        hour = f"event_ns - ((event_ns % {HOUR}) + {HOUR}) % {HOUR}"
        for row in self._tables.rows(
            f"SELECT {hour} AS hour, source, {counted} FROM compared GROUP BY ALL ORDER BY 1, 2"
        ):
            self._hours.add(HourCount(*row))
            for name, count in zip(self.counts, row[2:], strict=True):
                self.counts[name] += count
        names = "finding, event_id, event_ns, source, event_type, entity_id"
        places = "log_batch, log_seq, stored_batch, stored_seq"
        sql = f"SELECT {names}, {places} FROM compared WHERE finding <> 'both' ORDER BY event_ns, event_id"
        for finding, event_id, time, source, event_type, entity_id, log_batch, *rest in self._tables.rows(sql):
            log = None if log_batch is None else self._log.names[int(log_batch)]
            record, batch_id, seq = rest
            self._mismatches.add(
                Mismatch(finding, event_id, time, source, event_type, entity_id, log, record, batch_id, seq)
            )

    def write_missing(self, raw: Path, lines: IO[bytes] | None) -> None:
        """Write the missing events, as raw lines and, if wanted, as JSON lines to ingest."""
        compressor = zstandard.ZstdCompressor(level=1, write_checksum=True)
        with open(raw, "wb") as file, compressor.stream_writer(file) as writer:
            for delivery, line in self._missing():
                writer.write(line + b"\n")
                if lines is not None:
                    lines.write(sent_line(delivery) + b"\n")

    def _missing(self) -> Iterator[tuple[Delivery, bytes]]:
        parts = self.counts["missing"] // HELD + 1
        for part in range(parts):
            rows = self._tables.rows(
                "SELECT event_id, log_batch, log_seq FROM compared "
                "WHERE finding = 'missing' AND hash(event_id) % ? = ?",
                [parts, part],
            )
            places = {event_id.encode(): (batch_id, seq) for event_id, batch_id, seq in rows}
            for line in raw_lines(self._log.files, places):
                delivery = read_delivery(line)
                if places[delivery.event_id.encode()] == (delivery.batch_id, delivery.seq):
                    yield delivery, line

    def result(self, changed: Impact | None) -> Reconciliation:
        """Return what was found."""
        return Reconciliation(
            scope=self._scope,
            entities=self._entities,
            read=self._log.read,
            rejected=self._log.rejected,
            repeated=self._repeated,
            **self.counts,
            hours=self._hours,
            mismatches=self._mismatches,
            changes=self.changes,
            impact=changed,
            times=self._log.times,
            mappings=tuple(sorted(self._log.mappings)),
        )


def sent_line(delivery: Delivery) -> bytes:
    """Return the event of a delivery as a line that a producer would send, its unknown fields included."""
    names = [field.name for field in ENVELOPE if field.sent]
    fields = {name: getattr(delivery, name) for name in names if getattr(delivery, name) is not None}
    unknown = _decode_object(delivery.extra) if delivery.extra else {}
    return msgspec.json.encode({**unknown, **fields})


_decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
