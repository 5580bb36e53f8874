"""Computes metrics with DuckDB: one scan of raw, grouped by bucket and entity, for all metrics at once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from pik.engine import sandbox
from pik.engine.check import Checked, check_definition
from pik.engine.combine import combination_of
from pik.engine.corrected_sql import UNCORRECTED, CorrectedLines
from pik.engine.figures import digest_lines, open_figures
from pik.engine.rules import NO_RULES, read_rules
from pik.engine.sandbox import OutOfMemory, bounded, file_list, first_line, literal, session, threads_for
from pik.engine.scan_sql import (
    MICROSECOND,
    REASONS,
    Measure,
    Scan,
    data_errors,
    explanations,
    isolated,
    load,
    refuse_unknown_times,
)
from pik.engine.statement import columns_read
from pik.engine.tables import DuckTables, open_tables
from pik.errors import Damaged, EngineError, PikError, UsageError, command
from pik.model.instant import Window
from pik.model.metric import (
    DELIVERY_FACTS,
    NO_INPUTS,
    BucketDigest,
    Combination,
    Computed,
    Definition,
    DigestLines,
    Failure,
    Per,
    bucket_digests,
)
from pik.ports.engine import (
    NOTHING,
    Bucket,
    Computation,
    Counted,
    CountedDelivery,
    DeliveryFiles,
    Figures,
    Inputs,
    Tables,
    Touched,
)

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_FETCH = 8192

_Result = TypeVar("_Result")

Reasons = Mapping[tuple[int, int, str], str]
"""DuckDB's messages, by (number of the metric, bucket in microseconds, entity), for some of the failures."""


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
        with session() as db, bounded(db, sandbox.CHECK_SECONDS, f"checking the metric {definition.name}"):
            return check_definition(db, definition).scale

    def combination(self, definition: Definition) -> Combination:
        """See Engine.combination."""
        with session() as db, bounded(db, sandbox.CHECK_SECONDS, f"checking the metric {definition.name}"):
            return combination_of(db, definition)

    @contextmanager
    def computation(
        self, inputs: Inputs, metrics: Sequence[Definition], window: Window, entities: Sequence[str] = ()
    ) -> Iterator[Computation]:
        """See Engine.computation."""
        if not metrics or _is_empty(inputs):
            yield _Nothing()
            return
        ordered = sorted(metrics, key=lambda metric: metric.name)

        def compute(db: DuckDBPyConnection) -> _Grouped:
            return _grouped(db, inputs, ordered, window, load(db, inputs, entities), chosen=bool(entities))

        with self._computed([inputs], compute) as grouped:
            yield grouped

    def touched(
        self,
        inputs: Inputs,
        bucket_size: int,
        window: Window,
        *,
        entities: Sequence[str] = (),
        source: str | None = None,
        event_type: str | None = None,
        among: Path | None = None,
        per: Per = Per.ENTITY,
    ) -> Iterator[Touched]:
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
                *(inputs.files, bucket_size, window, columns),
                chosen=bool(entities),
                skipping=inputs.skip is not None,
                per=per,
                corrections=load(db, inputs, entities),
            )
            try:
                _group(db, scan.grouped([Measure("", 0, 0, where or None, {}, hashed=False)]), scan, inputs.deliveries)
            except duckdb.Error as error:
                raise _cause(db, scan, error) from None
            return db

        with self._computed([inputs], compute, [among] if among is not None else []) as db:
            for bucket, entity_id, events in _rows(db, "_n0", "_n0 > 0"):
                yield Touched(bucket * MICROSECOND, entity_id, events)

    def counted(
        self, inputs: Inputs, definition: Definition, window: Window, entities: Sequence[str] = ()
    ) -> Iterator[CountedDelivery]:
        """See Engine.counted."""
        if _is_empty(inputs):
            return

        def compute(db: DuckDBPyConnection) -> DuckDBPyConnection:
            _counted(db, "", inputs, definition, window, load(db, inputs, entities), chosen=bool(entities))
            return db

        with self._computed([inputs], compute) as db:
            while rows := db.fetchmany(_FETCH):
                yield from map(CountedDelivery._make, rows)

    @contextmanager
    def compared(
        self, states: Sequence[tuple[Inputs, Definition]], bucket: int, entities: Sequence[str] = ()
    ) -> Iterator[Counted]:
        """See Engine.compared."""

        def compute(db: DuckDBPyConnection) -> Counted:
            values = [_state(db, number, *state, bucket, entities) for number, state in enumerate(states)]
            return Counted(values, DuckTables(db))

        with self._computed([inputs for inputs, _ in states], compute) as counted:
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

    def columns_read(self, statement: str, tables: Mapping[str, Mapping[str, str]]) -> dict[str, list[str]]:
        """See Engine.columns_read."""
        return columns_read(statement, tables)

    @contextmanager
    def _computed(
        self, all_inputs: Sequence[Inputs], compute: Callable[[DuckDBPyConnection], _Result], more: Sequence[Path] = ()
    ) -> Iterator[_Result]:
        """Open a connection to the inputs (and to `more` files) and yield what `compute` makes of it. Where memory runs
        out it is tried again with a single thread, which needs the least."""
        files = [*{file: None for inputs in all_inputs for file in inputs.readable}, *more]
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


class _Nothing:
    """A Computation over no raw at all."""

    def digests(self) -> Iterator[BucketDigest]:
        return iter(())

    def lines(self, metric: str, window: Window) -> Iterator[DigestLines]:  # noqa: ARG002 - the port's arguments
        return iter(())

    def value_digests(self) -> Iterator[BucketDigest]:
        return iter(())

    def rows(
        self,
        *,
        skipping: Collection[Bucket] = (),  # noqa: ARG002 - the port's arguments
        among: Mapping[Bucket, Sequence[str]] = NOTHING,  # noqa: ARG002
    ) -> Iterator[Computed]:
        return iter(())

    def values(self, metric: str) -> Iterator[Decimal]:  # noqa: ARG002
        return iter(())


@dataclass(frozen=True, slots=True)
class _Grouped:
    """A Computation over the table `grouped`."""

    db: DuckDBPyConnection
    measures: Sequence[Measure]
    reasons: Reasons | None
    """Why some values failed; None where none did."""

    def digests(self) -> Iterator[BucketDigest]:
        for measure in self.measures:
            yield from bucket_digests(measure.name, self._lines(measure, _inputs(measure)))

    def lines(self, metric: str, window: Window) -> Iterator[DigestLines]:
        [measure] = [each for each in self.measures if each.name == metric]
        first, last = window.start // MICROSECOND, (window.end - 1) // MICROSECOND
        return self._lines(measure, _inputs(measure), f"_bucket BETWEEN {first} AND {last}")

    def value_digests(self) -> Iterator[BucketDigest]:
        for measure in self.measures:
            yield from bucket_digests(measure.name, self._lines(measure, ""))

    def _lines(self, measure: Measure, inputs: str, where: str = "true") -> Iterator[DigestLines]:
        """Yield lines that end with these columns. concat_ws leaves out what is NULL."""
        n = measure.number
        some = f"(_v{n} IS NOT NULL{f' OR _x{n} IS NOT NULL' if self.reasons is not None else ''})"
        values = f"(SELECT *, CAST(_v{n} AS VARCHAR) AS value FROM grouped WHERE {some} AND {where})"
        plain = "CASE WHEN contains(value, '.') THEN rtrim(rtrim(value, '0'), '.') ELSE value END"
        line = f"concat_ws(chr(31), _entity, {plain}{f', {inputs}' if inputs else ''}) || chr(10)"
        return digest_lines(self.db, values, line)

    def rows(
        self, *, skipping: Collection[Bucket] = (), among: Mapping[Bucket, Sequence[str]] = NOTHING
    ) -> Iterator[Computed]:
        for measure in self.measures:
            starts = [start for metric, start in skipping if metric == measure.name]
            named = {start: names for (metric, start), names in among.items() if metric == measure.name}
            yield from _values(self.db, measure, self.reasons, starts, named)

    def values(self, metric: str) -> Iterator[Decimal]:
        [n] = [each.number for each in self.measures if each.name == metric]
        where = f"_bucket IS NOT NULL AND _v{n} IS NOT NULL"
        self.db.execute(f"SELECT CAST(_v{n} AS VARCHAR) FROM grouped WHERE {where}")
        while rows := self.db.fetchmany(_FETCH):
            yield from (Decimal(value) for (value,) in rows)


def _inputs(measure: Measure) -> str:
    """Return the SQL of what ends a line after its value."""
    contents = f"CASE WHEN {measure.contents} IS DISTINCT FROM {measure.ids} THEN {_hex(measure.contents)} END"
    return f"{measure.inputs}, {_hex(measure.ids)}, {contents}"


def _is_empty(inputs: Inputs) -> bool:
    if not inputs.files and inputs.deliveries:
        raise _damaged(f"there are no raw files for {inputs.deliveries} deliveries")
    return not inputs.files


def _load_among(db: DuckDBPyConnection, among: Path) -> None:
    read = (
        f"FROM read_csv({file_list([among])}, header = false, auto_detect = false,"
        " columns = {batch_id: 'VARCHAR', seq: 'BIGINT'}, nullstr = '')"
    )
    db.execute(f"CREATE TEMP TABLE among_batch AS SELECT DISTINCT batch_id {read} WHERE seq IS NULL")
    db.execute(f"CREATE TEMP TABLE among AS SELECT DISTINCT batch_id, seq {read} WHERE seq IS NOT NULL")


def _grouped(
    db: DuckDBPyConnection,
    inputs: Inputs,
    metrics: Sequence[Definition],
    window: Window,
    corrections: CorrectedLines,
    *,
    chosen: bool,
) -> _Grouped:
    """Create the table `grouped` of the metrics, which are ordered by name."""
    checked = [check_definition(db, metric, f"_{number}_") for number, metric in enumerate(metrics)]
    measures = _measures([metric.name for metric in metrics], checked, inputs)
    scan = Scan(
        inputs.files,
        metrics[0].bucket_size,
        window,
        frozenset[str]().union(*(metric.columns for metric in checked)),
        chosen=chosen,
        skipping=inputs.skip is not None,
        delivered=any(measure.delivered for measure in measures),
        rules=read_rules(db, inputs.rules),
        per=metrics[0].per,
        corrections=corrections,
    )
    seconds = len(metrics) * (sandbox.SCAN_SECONDS + sandbox.DELIVERY_SECONDS * inputs.deliveries)
    names = ", ".join(measure.name for measure in measures)
    with bounded(db, seconds, f"computing {names} from {inputs.deliveries:,} deliveries"):
        _refuse_unknown_times(db, scan)
        reasons = _compute(db, scan, measures, inputs.deliveries)
    return _Grouped(db, measures, reasons)


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
        definition.bucket_size,
        window,
        checked.columns | set(CountedDelivery._fields),
        chosen=chosen,
        skipping=inputs.skip is not None,
        rules=read_rules(db, inputs.rules),
        corrections=corrections,
    )
    _refuse_unknown_times(db, scan)
    columns = "event_id, batch_id, seq, epoch_us(event_time) AS event_time"
    counts = f"_bucket IS NOT NULL AND ({checked.where or 'true'})"
    try:
        db.execute(f"{create} SELECT {columns} FROM ({scan.lines()}) WHERE {counts}")
    except duckdb.Error as error:
        raise _cause(db, scan, error) from None


def _state(
    db: DuckDBPyConnection,
    number: int,
    inputs: Inputs,
    definition: Definition,
    bucket: int,
    entities: Sequence[str],
) -> Computed | None:
    """Create the table of the deliveries that a state counts, and return its value."""
    window = Window(bucket, bucket + 1).widened(definition.bucket_size)
    create = f"CREATE TEMP TABLE counted_{number}"
    value, corrections = None, UNCORRECTED
    if not _is_empty(inputs):
        corrections = load(db, inputs, entities)
        value = next(_grouped(db, inputs, [definition], window, corrections, chosen=bool(entities)).rows(), None)
    if value is None or value.failure is not None:
        db.execute(f"{create} (event_id VARCHAR, batch_id VARCHAR, seq BIGINT, event_time BIGINT)")
    else:
        _counted(db, f"{create} AS", inputs, definition, window, corrections, chosen=bool(entities))
    return value


def _measures(names: Sequence[str], metrics: Sequence[Checked], inputs: Inputs) -> list[Measure]:
    """Return what to compute. Metrics with one condition count the same lines, which is done for the first of them."""
    measures: list[Measure] = []
    first: dict[tuple[str | None, bool], int] = {}
    for number, (name, metric) in enumerate(zip(names, metrics, strict=True)):
        delivered = inputs.duplicates or not DELIVERY_FACTS.isdisjoint(metric.columns)
        counted, where = first.setdefault((metric.where, delivered), number), metric.where
        value, zero = metric.value, metric.denominator
        measures.append(Measure(name, number, counted, where, metric.aggregates, value, zero, delivered=delivered))
    return measures


def _refuse_unknown_times(db: DuckDBPyConnection, scan: Scan) -> None:
    import duckdb

    try:
        refuse_unknown_times(db, scan)
    except duckdb.Error as error:
        raise _cause(db, scan, error) from None


def _compute(db: DuckDBPyConnection, scan: Scan, measures: Sequence[Measure], deliveries: int) -> Reasons | None:
    """Create the table `grouped`. Return the reasons of what failed on the data, None where nothing did."""
    import duckdb

    try:
        try:
            _group(db, scan.grouped(measures), scan, deliveries)
            return None
        except data_errors():
            _group(db, isolated(scan, measures), scan, deliveries)
            return explanations(db, scan, measures)
    except duckdb.Error as error:
        raise _cause(db, scan, error, measures) from None


def _group(db: DuckDBPyConnection, grouped: str, scan: Scan, deliveries: int) -> None:
    """Create the table `grouped`. Raises Damaged unless the scan read as many whole lines as there are deliveries."""
    db.execute(f"CREATE OR REPLACE TEMP TABLE grouped AS {grouped}")
    row = db.execute("SELECT coalesce(sum(_lines), 0) FROM grouped").fetchone()
    if row is None or row[0] != deliveries:
        first = scan.files[0].name
        files = first if len(scan.files) == 1 else f"{len(scan.files)} files, {first} the first"
        raise _damaged(f"raw has {row and row[0]} whole deliveries of {deliveries} ({files})")


def _cause(db: DuckDBPyConnection, scan: Scan, error: Exception, measures: Sequence[Measure] = ()) -> PikError:
    """Return the error that names the file, the rule or the metric that made the scan fail: the first that fails
    alone."""
    import duckdb

    if isinstance(error, duckdb.InterruptException):
        raise error
    if isinstance(error, duckdb.OutOfMemoryException):
        return OutOfMemory(error)
    read = "SELECT count(_whole), max(_id), max(_bucket) FROM ({})"
    for file in scan.files:
        try:
            db.execute(read.format(replace(scan, files=[file], rules=NO_RULES).lines()))
        except duckdb.Error as damage:
            if "maximum_object_size" in str(damage):
                return EngineError(f"raw file {file.name} has a line of more than 16 MiB, too long for DuckDB")
            return _damaged(f"raw file {file.name} cannot be read: {first_line(damage)}")
    try:
        db.execute(read.format(scan.lines()))
    except duckdb.Error as failure:
        hint = "TRY_CAST in place of a cast, or a condition that fails for no event"
        return UsageError(f"an assumption cannot be evaluated for every event: {first_line(failure)}", hint=hint)
    for measure in measures:
        try:
            db.execute(f"CREATE OR REPLACE TEMP TABLE alone AS {isolated(scan, [measure])}")
        except duckdb.Error as failure:
            message = f"the metric {measure.name} cannot be computed: {first_line(failure)}"
            return EngineError(message, hint=command("metrics", "show", measure.name))
    return EngineError(f"the metrics cannot be computed together: {first_line(error)}")


def _hex(column: str) -> str:
    """Return the SQL of a column as 32 upper-case hex digits. lpad is slow, and needed for one value in 16."""
    return f"CASE WHEN {column} >= {16**31} THEN hex({column}) ELSE lpad(hex({column}), 32, '0') END"


def _values(
    db: DuckDBPyConnection,
    measure: Measure,
    reasons: Reasons | None,
    skipping: Sequence[int],
    among: Mapping[int, Sequence[str]],
) -> Iterator[Computed]:
    """Yield a metric's rows, those that failed too."""
    n, condition = measure.number, f"{measure.inputs} > 0"
    # Text is how a DECIMAL or a HUGEINT reaches Python fastest, and exactly.
    columns = f"CAST(_v{n} AS VARCHAR), {measure.inputs}, lower({_hex(measure.ids)}), lower({_hex(measure.contents)})"
    if reasons is not None:
        columns, condition = f"{columns}, _x{n}, _f{n}, _b{n}", f"({condition} OR _x{n} IS NOT NULL)"
    for row in _rows(db, columns, condition, skipping, among):
        bucket, entity_id, value, inputs, ids, contents = row[:6]
        exact = None if value is None else Decimal(value)
        failure = None
        if reasons is not None and row[6] is not None:
            what, events, blamed = row[6:]
            to_blame = tuple(f"{event:032x}" for event in blamed or ())
            failure = Failure(reasons.get((n, bucket, entity_id)) or REASONS[what], events, to_blame)
        start, ids, contents = bucket * MICROSECOND, ids or NO_INPUTS, contents or NO_INPUTS
        yield Computed(measure.name, start, entity_id, exact, inputs, ids, contents, failure)


def _rows(
    db: DuckDBPyConnection,
    columns: str,
    condition: str,
    skipping: Sequence[int] = (),
    among: Mapping[int, Sequence[str]] = MappingProxyType({}),
) -> Iterator[tuple[Any, ...]]:
    """Yield (bucket in microseconds, entity, columns…) of the groups that meet the condition, by bucket and entity,
    without the buckets (nanoseconds) to skip, and of those in `among` only these entities."""
    parameters: list[object] = []
    if others := [*skipping, *among]:
        condition += " AND (_bucket NOT IN (SELECT unnest(CAST(? AS BIGINT[])))"
        parameters.append([bucket // MICROSECOND for bucket in others])
        if named := [(bucket // MICROSECOND, entity) for bucket, names in among.items() for entity in names]:
            condition += " OR (_bucket, _entity) IN (SELECT unnest(CAST(? AS BIGINT[])), unnest(CAST(? AS VARCHAR[])))"
            parameters += [bucket for bucket, _ in named], [entity for _, entity in named]
        condition += ")"
    db.execute(
        f"SELECT _bucket, _entity, {columns} FROM grouped WHERE _bucket IS NOT NULL AND {condition} "
        "ORDER BY _bucket, _entity",
        parameters or None,
    )
    while rows := db.fetchmany(_FETCH):
        yield from rows


def _damaged(message: str) -> Damaged:
    return Damaged(message, hint="what is affected: pik verify --full")
