"""The Engine port over DuckDB."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pik.engine import sandbox
from pik.engine.check import check_definition
from pik.engine.combine import combination_of, is_count
from pik.engine.corrected_sql import UNCORRECTED, CorrectedLines
from pik.engine.figures import open_figures
from pik.engine.grouped import (
    GroupedComputation,
    NothingComputed,
    compute_groups,
    damaged,
    expect_known_times,
    failure_of,
    group,
    grouped_rows,
)
from pik.engine.partial import merge_partials, write_nothing, write_partial
from pik.engine.rules import read_rules
from pik.engine.sandbox import FETCH, OutOfMemory, bounded, file_list, literal, session, threads_for
from pik.engine.scan_sql import MICROSECOND, Measure, Scan, load, load_spans
from pik.engine.statement import columns_read
from pik.engine.tables import DuckTables, open_tables, open_written
from pik.model.aggregate import Computed
from pik.model.calendar import Buckets
from pik.model.metric import Combination, Definition, Per
from pik.model.window import Window
from pik.ports.engine import (
    Computation,
    CountedDeliveries,
    CountedDelivery,
    DeliveryFiles,
    Figures,
    Inputs,
    Tables,
    TouchedBucket,
)

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_Result = TypeVar("_Result")

_KEPT = 256
"""How many definitions it remembers the answers about."""


@dataclass(frozen=True, slots=True)
class DuckEngine:
    """The Engine port over DuckDB. `threads` None: one per processor, within what memory allows; `parts` is how many
    processes share that."""

    threads: int | None = None
    parts: int = 1

    @property
    def version(self) -> str:
        """See Engine.version."""
        import duckdb

        return f"DuckDB {duckdb.__version__}"

    def shared(self, parts: int) -> DuckEngine:
        """See Engine.shared."""
        return replace(self, parts=self.parts * parts)

    def check(self, definition: Definition) -> int:
        """See Engine.check."""
        return _scale(definition)

    def combination(self, definition: Definition) -> Combination:
        """See Engine.combination."""
        return _combination(definition)

    def counts(self, definition: Definition) -> bool:
        """See Engine.counts."""
        return _is_count(definition)

    def reads_delivery(self, definition: Definition) -> bool:
        """See Engine.reads_delivery."""
        return _reads_delivery(definition)

    @contextmanager
    def computation(
        self, inputs: Inputs, metrics: Sequence[Definition], window: Window, entities: Sequence[str] = ()
    ) -> Iterator[Computation]:
        """See Engine.computation."""
        if not metrics or _is_empty(inputs):
            yield NothingComputed()
            return
        ordered = _by_name(metrics)

        def compute(db: DuckDBPyConnection) -> GroupedComputation:
            return compute_groups(db, inputs, ordered, window, load(db, inputs, entities), chosen=bool(entities))

        with self._computed(inputs.readable, compute) as grouped:
            yield grouped

    def partial(
        self,
        inputs: Inputs,
        metrics: Sequence[Definition],
        window: Window,
        target: Path,
        entities: Sequence[str] = (),
    ) -> None:
        """See Engine.partial."""
        ordered, is_empty = _by_name(metrics), _is_empty(inputs)

        def compute(db: DuckDBPyConnection) -> None:
            if is_empty:
                write_nothing(db, ordered, target)
            else:
                corrections = load(db, inputs, entities)
                write_partial(db, inputs, ordered, window, corrections, target, chosen=bool(entities))

        with self._computed([*inputs.readable, target], compute):
            pass

    @contextmanager
    def merge(self, files: Sequence[Path], metrics: Sequence[Definition]) -> Iterator[Computation]:
        """See Engine.merge."""
        with self._computed(files, lambda db: merge_partials(db, files, _by_name(metrics))) as grouped:
            yield grouped

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
        """See Engine.touched."""
        import duckdb

        if _is_empty(inputs):
            return
        wanted = {name: text for name, text in (("source", source), ("event_type", event_type)) if text is not None}
        conditions = [f"{name} = {literal(text)}" for name, text in wanted.items()]
        columns = frozenset(wanted)
        if among is not None:
            columns |= {"batch_id", "seq"}
            conditions.append("(batch_id IN (FROM among_batch) OR (batch_id, seq) IN (FROM among))")
        where = " AND ".join(conditions)

        def compute(db: DuckDBPyConnection) -> DuckDBPyConnection:
            if among is not None:
                _load_among(db, among)
            scan = Scan(
                *(inputs.files, load_spans(db, buckets, window), window, columns),
                chosen=bool(entities),
                skipping=inputs.skip is not None,
                per=per,
                corrections=load(db, inputs, entities),
                entity_range=inputs.entity_range,
            )
            try:
                group(db, scan.grouped([Measure("", 0, 0, where or None, {}, hashed=False)]), scan, inputs.deliveries)
            except duckdb.Error as error:
                raise failure_of(db, scan, error) from None
            return db

        with self._computed([*inputs.readable, *([among] if among is not None else [])], compute) as db:
            for bucket, entity_id, events in grouped_rows(db, "_n0", "_n0 > 0"):
                yield TouchedBucket(bucket * MICROSECOND, entity_id, events)

    def counted(
        self, inputs: Inputs, definition: Definition, window: Window, entities: Sequence[str] = ()
    ) -> Iterator[CountedDelivery]:
        """See Engine.counted."""
        if _is_empty(inputs):
            return

        def compute(db: DuckDBPyConnection) -> DuckDBPyConnection:
            _counted(db, "", inputs, definition, window, load(db, inputs, entities), chosen=bool(entities))
            return db

        with self._computed(inputs.readable, compute) as db:
            while rows := db.fetchmany(FETCH):
                yield from map(CountedDelivery._make, rows)

    @contextmanager
    def compared(
        self, states: Sequence[tuple[Inputs, Definition]], bucket: int, entities: Sequence[str] = ()
    ) -> Iterator[CountedDeliveries]:
        """See Engine.compared."""

        def compute(db: DuckDBPyConnection) -> CountedDeliveries:
            values = [_state(db, number, *state, bucket, entities) for number, state in enumerate(states)]
            return CountedDeliveries(values, DuckTables(db))

        with self._computed([file for inputs, _ in states for file in inputs.readable], compute) as counted:
            yield counted

    def figures(self, path: Path) -> AbstractContextManager[Figures]:
        """See Engine.figures."""
        return open_figures(path, threads_for(self.threads, self.parts), self.parts)

    def tables(
        self,
        files: DeliveryFiles,
        columns: Collection[str],
        window: Window,
        entities: Sequence[str] = (),
        *,
        output: Path | None = None,
    ) -> AbstractContextManager[Tables]:
        """See Engine.tables."""
        return open_tables(files, columns, window, entities, self.threads, self.parts, output)

    def written(self, files: Sequence[Path]) -> AbstractContextManager[Tables]:
        """See Engine.written."""
        return open_written(files, threads_for(self.threads, self.parts), self.parts)

    def columns_read(self, statement: str, tables: Mapping[str, Mapping[str, str]]) -> dict[str, list[str]]:
        """See Engine.columns_read."""
        return columns_read(statement, tables)

    @contextmanager
    def _computed(self, files: Iterable[Path], compute: Callable[[DuckDBPyConnection], _Result]) -> Iterator[_Result]:
        """Open a connection to the files and yield what `compute` makes of it. Where memory runs out it is tried again
        with a single thread, which needs the least."""
        files = list(dict.fromkeys(files))
        for threads in sorted({threads_for(self.threads, self.parts), 1}, reverse=True):
            with session(files, threads, self.parts) as db:
                try:
                    computed = compute(db)
                except OutOfMemory:
                    if threads == 1:
                        raise
                    continue
                yield computed
                return


@contextmanager
def _checking(definition: Definition) -> Iterator[DuckDBPyConnection]:
    with session() as db, bounded(db, sandbox.CHECK_SECONDS, f"checking the metric {definition.name}"):
        yield db


# What DuckDB says of a definition depends on nothing else, and a new connection for each question takes 10 ms.
@lru_cache(_KEPT)
def _scale(definition: Definition) -> int:
    with _checking(definition) as db:
        return check_definition(db, definition).scale


@lru_cache(_KEPT)
def _combination(definition: Definition) -> Combination:
    with _checking(definition) as db:
        return combination_of(db, definition)


@lru_cache(_KEPT)
def _is_count(definition: Definition) -> bool:
    with _checking(definition) as db:
        return is_count(db, definition)


@lru_cache(_KEPT)
def _reads_delivery(definition: Definition) -> bool:
    with _checking(definition) as db:
        checked = check_definition(db, definition)
        return checked.reads_delivery or checked.reads_spelling


def _by_name(metrics: Sequence[Definition]) -> list[Definition]:
    return sorted(metrics, key=lambda metric: metric.name)


def _is_empty(inputs: Inputs) -> bool:
    if not inputs.files and inputs.deliveries:
        raise damaged(f"there are no raw files for {inputs.deliveries} deliveries")
    return not inputs.files


def _load_among(db: DuckDBPyConnection, among: Path) -> None:
    read = (
        f"FROM read_csv({file_list([among])}, header = false, auto_detect = false,"
        " columns = {batch_id: 'VARCHAR', seq: 'BIGINT'}, nullstr = '')"
    )
    db.execute(f"CREATE TEMP TABLE among_batch AS SELECT DISTINCT batch_id {read} WHERE seq IS NULL")
    db.execute(f"CREATE TEMP TABLE among AS SELECT DISTINCT batch_id, seq {read} WHERE seq IS NOT NULL")


def _counted(
    db: DuckDBPyConnection,
    create: str,
    inputs: Inputs,
    definition: Definition,
    window: Window,
    corrections: CorrectedLines,
    *,
    chosen: bool,
) -> None:
    """Select the deliveries that the metric counts, with this before the SELECT."""
    import duckdb

    checked = check_definition(db, definition)
    scan = Scan(
        inputs.files,
        load_spans(db, definition.buckets, window),
        window,
        checked.columns | set(CountedDelivery._fields),
        chosen=chosen,
        skipping=inputs.skip is not None,
        rules=read_rules(db, inputs.rules),
        corrections=corrections,
        entity_range=inputs.entity_range,
    )
    expect_known_times(db, scan)
    columns = "event_id, batch_id, seq, epoch_us(event_time) AS event_time"
    counts = f"_bucket IS NOT NULL AND ({checked.where or 'true'})"
    try:
        db.execute(f"{create} SELECT {columns} FROM ({scan.lines()}) WHERE {counts}")
    except duckdb.Error as error:
        raise failure_of(db, scan, error) from None


def _state(
    db: DuckDBPyConnection,
    number: int,
    inputs: Inputs,
    definition: Definition,
    bucket: int,
    entities: Sequence[str],
) -> Computed | None:
    """Create the table of the deliveries that a state counts, and return its value."""
    window = definition.buckets.around(bucket)
    create = f"CREATE TEMP TABLE counted_{number}"
    value, corrections = None, UNCORRECTED
    if not _is_empty(inputs):
        corrections = load(db, inputs, entities)
        value = next(compute_groups(db, inputs, [definition], window, corrections, chosen=bool(entities)).rows(), None)
    if value is None or value.failure is not None:
        db.execute(f"{create} (event_id VARCHAR, batch_id VARCHAR, seq BIGINT, event_time BIGINT)")
    else:
        _counted(db, f"{create} AS", inputs, definition, window, corrections, chosen=bool(entities))
    return value
