"""Deliveries as tables that SQL can ask anything of."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pik.engine.corrected_sql import CorrectedLines, load_corrections, load_listed
from pik.engine.sandbox import (
    OTHER_VALUES,
    OutOfMemory,
    column_sql,
    damaged_file,
    file_list,
    first_line,
    is_of_value,
    literal,
    lock,
    raw_fields,
    session,
    threads_for,
)
from pik.errors import Damaged, EngineError, Invalid
from pik.model.event import ENVELOPE
from pik.model.instant import MAX_INSTANT, MIN_INSTANT, full_instant
from pik.model.window import Window
from pik.ports.engine import DELIVERY_COLUMNS, DeliveryFiles

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_FETCH = 8192

_AGAIN = 0.05  # seconds; an interrupt between two statements stops neither

_OTHER, _DELIVERY, _EVENT, _AWAY = range(4)
"""Kinds of lines: deliveries that are not asked for, those that do not count, those that do, and those that would, had
they not been moved out of the window."""

_Result = TypeVar("_Result")

_DERIVED = {
    "verdict": "coalesce(verdicts.verdict, 'accepted')",
    "recorded_at": "make_timestamp(blocks.recorded_at // 1000)",
    "event_ns": "{event_time}",
    "lag_ns": "coalesce({received_time}, {ingest_time})::HUGEINT - {event_time}",
    "received_event_time": "CAST({_received} AS TIMESTAMP)",
    "received_ns": "epoch_ns(CAST({_received} AS TIMESTAMP_NS))",
}
"""The SQL of the columns that raw lines do not have; {names} are times of the line in nanoseconds."""

_RECEIVED = frozenset({"received_event_time", "received_ns"})
_TIMES = ("event_time", "received_time", "ingest_time")
_KEYS = ("event_time", "batch_id", "seq")
"""What a line must have to be a delivery. Each field that is read costs a twentieth of parsing the line."""


@dataclass(frozen=True, slots=True)
class DuckTables:
    """The Tables port over a DuckDB connection that holds them."""

    db: DuckDBPyConnection

    def rows(self, sql: str, parameters: Sequence[object] = ()) -> Iterator[tuple[Any, ...]]:
        """See Tables.rows."""
        self._execute(sql, parameters)
        while rows := self._fetch():
            yield from rows

    def columns(self, sql: str) -> list[tuple[str, str]]:
        """See Tables.columns."""
        self._execute(f"DESCRIBE {sql}")
        return [(name, sql_type) for name, sql_type, *_ in self.db.fetchall()]

    def keep(self, name: str, sql: str, parameters: Sequence[object] = ()) -> None:
        """See Tables.keep."""
        self._execute(f"CREATE OR REPLACE TEMP TABLE {name} AS {sql}", parameters)

    def define(self, name: str, sql: str) -> None:
        """See Tables.define."""
        self._execute(f"CREATE TEMP VIEW {name} AS {sql}")

    def add(self, name: str, columns: Mapping[str, str], rows: Iterable[Sequence[object]]) -> None:
        """See Tables.add."""
        typed = ", ".join(f"{column} {sql_type}" for column, sql_type in columns.items())
        self.db.execute(f"CREATE TEMP TABLE {name} ({typed})")
        casts = ", ".join(
            f"make_timestamp(CAST({column} AS BIGINT))" if sql_type == "TIMESTAMP" else f"CAST({column} AS {sql_type})"
            for column, sql_type in columns.items()
        )
        lists = ", ".join(f"unnest(CAST(? AS VARCHAR[])) AS {column}" for column in columns)
        each = iter(rows)
        while page := list(islice(each, _FETCH)):
            texts = [[None if value is None else str(value) for value in column] for column in zip(*page, strict=True)]
            self.db.execute(f"INSERT INTO {name} SELECT {casts} FROM (SELECT {lists})", texts)

    def write(self, sql: str, path: Path) -> None:
        """See Tables.write."""
        types = self.columns(sql)
        names = ", ".join(f"c{number}" for number in range(len(types)))
        columns = ", ".join(
            f"{f'CAST(c{number} AS DECIMAL(38, 0))' if sql_type in _WIDE else f'c{number}'} AS {_quoted(name)}"
            for number, (name, sql_type) in enumerate(types)
        )
        self._execute(
            f"COPY (SELECT {columns} FROM (\n{sql}\n) AS result({names})) TO {literal(str(path.absolute()))} "
            "(FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 65536, USE_TMP_FILE false)"
        )

    def _execute(self, sql: str, parameters: Sequence[object] = ()) -> None:
        with _invalid():
            self._interruptible(lambda: self.db.execute(sql, list(parameters) or None))

    def _fetch(self) -> list[tuple[Any, ...]]:
        with _invalid():
            return self._interruptible(lambda: self.db.fetchmany(_FETCH))

    def _interruptible(self, call: Callable[[], _Result]) -> _Result:
        """Call it in a thread, so that Ctrl-C is noticed in this one: a join may take hours between two moments at
        which DuckDB lets Python look for signals."""
        with ThreadPoolExecutor(1) as thread:
            result = thread.submit(call)
            try:
                return result.result()
            except BaseException:
                while not result.done():
                    self.db.interrupt()
                    wait([result], _AGAIN)
                raise


_WIDE = ("HUGEINT", "UHUGEINT")
"""Types that DuckDB writes to Parquet as DOUBLE."""


def _quoted(name: str) -> str:
    """Return the SQL of a name."""
    return '"' + name.replace('"', '""') + '"'


@contextmanager
def _invalid() -> Iterator[None]:
    """Raise Invalid for errors that the statement is to blame for."""
    import duckdb

    try:
        yield
    except (duckdb.OutOfMemoryException, duckdb.InterruptException, duckdb.IOException):
        raise
    except duckdb.Error as error:
        raise Invalid(first_line(error), hint=OTHER_VALUES if is_of_value(error) else "") from None


@contextmanager
def open_tables(
    files: DeliveryFiles,
    columns: Collection[str],
    window: Window,
    entities: Sequence[str],
    threads: int | None,
    parts: int,
    output: Path | None,
) -> Iterator[DuckTables]:
    """Provide the tables of Engine.tables. Where memory runs out while raw is read, it is read again with a single
    thread, which needs the least."""
    readable = [*files.readable, *([output] if output is not None else [])]
    for count in sorted({threads_for(threads, parts), 1}, reverse=True):
        with session(readable, count, parts, is_loading=True) as db:
            try:
                _load(db, files, columns, window, entities)
                lock(db, parts)
            except OutOfMemory:
                if count == 1:
                    raise
                continue
            yield DuckTables(db)
            return


@contextmanager
def open_written(files: Sequence[Path], threads: int, parts: int) -> Iterator[DuckTables]:
    """Provide the rows of Engine.written."""
    with session(files, threads, parts) as db:
        db.execute(f"CREATE TEMP VIEW written AS SELECT * FROM read_parquet({file_list(files)})")
        yield DuckTables(db)


def _load(
    db: DuckDBPyConnection, files: DeliveryFiles, columns: Collection[str], window: Window, entities: Sequence[str]
) -> None:
    import duckdb

    names = [name for name in DELIVERY_COLUMNS if name in columns]
    if entities:
        db.execute("CREATE TEMP TABLE wanted AS SELECT DISTINCT unnest(CAST(? AS VARCHAR[])) AS entity_id", [entities])
    for name, types in (
        ("verdicts", "batch_id: 'VARCHAR', seq: 'BIGINT', verdict: 'VARCHAR'"),
        ("blocks", "batch_id: 'VARCHAR', ingest_time: 'VARCHAR', recorded_at: 'BIGINT'"),
    ):
        path = file_list([getattr(files, name)])
        db.execute(
            f"CREATE TEMP TABLE {name} AS SELECT DISTINCT * FROM read_csv({path}, header = false, auto_detect = false, "
            f"columns = {{{types}}})"
        )
    corrected = load_corrections(db, files.corrections, named="correction" in names)
    load_listed(db, files.listed)
    if files.choices is not None:
        db.execute(
            "CREATE TEMP TABLE choices AS SELECT batch_id, seq, arg_max(counts, number) AS counts,"
            f" arg_max(correction_id, number) AS ids FROM read_csv({file_list([files.choices])}, header = false,"
            " auto_detect = false, columns = {number: 'BIGINT', batch_id: 'VARCHAR', seq: 'BIGINT', counts: 'BOOLEAN',"
            " correction_id: 'VARCHAR'}) GROUP BY batch_id, seq"
        )
    if files.withdrawn:
        batches, by = (list(column) for column in zip(*files.withdrawn, strict=True))
        db.execute(
            "CREATE TEMP TABLE withdrawn AS SELECT unnest(CAST(? AS VARCHAR[])) AS batch_id,"
            " unnest(CAST(? AS VARCHAR[])) AS ids",
            [batches, by],
        )
    try:
        db.execute(f"CREATE TEMP TABLE line AS {_lines(files, names, window, corrected, chosen=bool(entities))}")
        row = db.execute("SELECT count(_kind) FROM line").fetchone()
    except duckdb.OutOfMemoryException as error:
        raise OutOfMemory(error) from None
    except duckdb.InterruptException:
        raise
    except duckdb.Error as error:
        raise _unreadable(db, files, error) from None
    if row is None or row[0] != files.deliveries:
        raise _damaged(f"raw has {row and row[0]} whole deliveries of {files.deliveries}")
    shown = ", ".join(names) or "_kind"
    db.execute(f"CREATE TEMP VIEW deliveries AS SELECT {shown} FROM line WHERE _kind IN ({_DELIVERY}, {_EVENT})")
    db.execute(f"CREATE TEMP VIEW moved_away AS SELECT {shown} FROM line WHERE _kind = {_AWAY}")
    db.execute(f"CREATE TEMP VIEW events AS SELECT {shown} FROM line WHERE _kind = {_EVENT}")


def _lines(
    files: DeliveryFiles, names: Sequence[str], window: Window, corrected: CorrectedLines, *, chosen: bool
) -> str:
    """Return the SQL of one row per line of the files: the columns, and `_kind`: a delivery that counts, one that does
    not, or another one (outside of the window, of another entity, or not recorded); NULL where the line is not a
    delivery."""
    own = [field.name for field in ENVELOPE if field.name in names]
    fields: dict[str, str] = {}
    needed = [*_KEYS, *own, *(_TIMES if "lag_ns" in names else ()), *corrected.fields]
    needed += ["entity_id"] * chosen + ["ingest_time"] * ("recorded_at" in names)
    for name in needed:
        fields |= raw_fields(name)
    is_received = not _RECEIVED.isdisjoint(names)
    texts = {name: f"epoch_ns(CAST(line.{name} AS TIMESTAMP_NS))" for name in _TIMES}
    texts["_received"] = f"line.{'_received' if corrected.moved else 'event_time'}"
    sql = {name: column_sql(name) for name in own}
    sql |= {name: text.format_map(texts) for name, text in _DERIVED.items() if name in names}
    others = ["verdicts.verdict IS NOT DISTINCT FROM 'unrecorded'"]
    bounds = []
    if window.start > MIN_INSTANT:
        bounds.append(f"< {literal(full_instant(window.start))}")
    if window.end <= MAX_INSTANT:
        bounds.append(f"> {literal(full_instant(window.end - 1))}")
    joins = " LEFT JOIN verdicts ON verdicts.batch_id = line.batch_id AND verdicts.seq = line.seq"
    if "recorded_at" in names:
        joins += " LEFT JOIN blocks ON blocks.batch_id = line.batch_id AND blocks.ingest_time = line.ingest_time"
    if chosen:
        joins += " LEFT JOIN wanted ON wanted.entity_id = line.entity_id"
        others.append("wanted.entity_id IS NULL")
    is_outside = " OR ".join(f"line.event_time {bound}" for bound in bounds) or "false"
    # Of a delivery that counts, in this order: its batch is not withdrawn, its event not out, and it is the chosen one.
    counts, by = "verdicts.seq IS NULL", []
    if files.choices is not None:
        joins += " LEFT JOIN choices ON choices.batch_id = line.batch_id AND choices.seq = line.seq"
        counts = f"coalesce(choices.counts, {counts})"
        by.append("choices.ids")
    if files.withdrawn:
        joins += " LEFT JOIN withdrawn ON withdrawn.batch_id = line.batch_id"
        counts = f"withdrawn.batch_id IS NULL AND {counts}"
        by.append("withdrawn.ids")
    counts = " AND ".join([*corrected.filters, counts])
    by += [f"line.{name}" for name in corrected.columns if name.endswith("_by")]
    sql["correction"] = "CAST(NULL AS VARCHAR)"
    if by:
        every = f"flatten([string_split(ids, ',') FOR ids IN [{', '.join(by)}] IF ids IS NOT NULL])"
        sql["correction"] = f"nullif(array_to_string(list_sort(list_distinct({every})), ','), '')"
    selected = [f"{sql[name]} AS {name}" for name in names]
    whole = " AND ".join(f"line.{key} IS NOT NULL" for key in _KEYS)
    away = ""
    if is_received and corrected.moved and bounds:
        is_away = " AND ".join([f"NOT line._received {bound}" for bound in bounds] + [counts])
        away = f"WHEN ({is_outside}) AND {is_away} THEN {_AWAY} "
    kind = (
        f"CASE WHEN {' OR '.join(others)} THEN {_OTHER} {away}WHEN {is_outside} THEN {_OTHER}"
        f" WHEN {counts} THEN {_EVENT} ELSE {_DELIVERY} END"
    )
    selected.append(f"CASE WHEN {whole} THEN CAST({kind} AS UTINYINT) END AS _kind")
    types = ", ".join(f"{name}: '{sql_type}'" for name, sql_type in sorted(fields.items()))
    # Without `records`, read_json looks at each line for what kind of JSON it is: 10 × slower.
    raw = (
        f"read_json({file_list(files.files)}, format = 'newline_delimited', compression = 'zstd', records = true, "
        f"columns = {{{types}}})"
    )
    if not files.files:
        nothing = ", ".join(f"CAST(NULL AS {sql_type}) AS {name}" for name, sql_type in sorted(fields.items()))
        raw = f"(SELECT {nothing} WHERE false)"
    raw = corrected.applied(raw, fields, received=is_received and corrected.moved)
    return f"SELECT {', '.join(selected)} FROM {raw} AS line{joins}"


def _unreadable(db: DuckDBPyConnection, files: DeliveryFiles, error: Exception) -> EngineError | Damaged:
    """Return the error that names the file that cannot be read."""
    import duckdb

    for file in files.files:
        try:
            db.execute(
                f"SELECT count(*) FROM read_json({file_list([file])}, format = 'newline_delimited', "
                "compression = 'zstd', records = true, columns = {event_id: 'VARCHAR'})"
            )
        except duckdb.Error as damage:
            return damaged_file(file, damage)
    return EngineError(f"raw cannot be read: {first_line(error)}")


def _damaged(message: str) -> Damaged:
    return Damaged(message, hint="what is affected: pik verify --full")
