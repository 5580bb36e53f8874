"""Numbers of a file as a sorted table, and the digests of buckets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

from pik.engine.sandbox import FETCH, file_list, literal, session
from pik.model.aggregate import NO_INPUTS, BucketDigest, Computed, DigestLines, bucket_digests, joinable
from pik.model.metric import ALL_ENTITIES
from pik.model.window import Window
from pik.ports.engine import NumbersExtent
from pik.runtime.storage import CarriedFile

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_MICROSECOND = 1000


def digest_lines(db: DuckDBPyConnection, values: str, line: str) -> Iterator[DigestLines]:
    """Yield the lines of BucketDigest, of the rows of `values`: SQL with the columns _bucket (microseconds) and
    _entity; `line` is that of a row."""
    start = f"_bucket * {_MICROSECOND}"
    counts = db.execute(f"SELECT _bucket, count(*) FROM {values} GROUP BY _bucket ORDER BY _bucket")
    for first, last, few in joinable(counts.fetchall()):
        between = f"FROM {values} WHERE _bucket BETWEEN {first} AND {last}"
        if few:
            joined = f"string_agg({line}, '' ORDER BY _entity)"
            db.execute(f"SELECT {start}, {joined}, 0, 0, 0 {between} GROUP BY _bucket ORDER BY _bucket")
        else:
            db.execute(f"SELECT {start}, {line}, 0, 0, 0 {between} ORDER BY _bucket, _entity")
        while rows := db.fetchmany(FETCH):
            yield from rows


@dataclass(frozen=True, slots=True)
class DuckFigures:
    """The Figures port over the table `figures`, made of a file, which is carried with it when it is pickled."""

    db: DuckDBPyConnection
    path: Path
    opened: AbstractContextManager[DuckFigures] | None = None
    """What keeps the table, where no context does."""

    def __reduce__(self) -> tuple[Callable[[CarriedFile], DuckFigures], tuple[CarriedFile]]:
        return _reopened, (CarriedFile(self.path),)

    def extent(self) -> NumbersExtent | None:
        """See Figures.extent."""
        found = self.db.execute(
            f"SELECT count(*), min(_bucket) * {_MICROSECOND}, max(_bucket) * {_MICROSECOND},"
            f" count(DISTINCT nullif(_entity, {literal(ALL_ENTITIES)})) FROM figures"
        ).fetchone()
        return NumbersExtent(*found) if found and found[0] else None

    def repeated(self) -> tuple[Computed, int, int] | None:
        """See Figures.repeated."""
        found = self.db.execute(
            "SELECT metric, _bucket, _entity, min(value), min(line, 2) FROM figures GROUP BY metric, _bucket, _entity"
            " HAVING count(*) > 1 ORDER BY min(line, 2)[2] LIMIT 1"
        ).fetchone()
        if found is None:
            return None
        metric, bucket, entity, value, (first, second) = found
        return _computed(metric, bucket, entity, value), first, second

    def digests(self, metric: str, window: Window) -> Iterator[BucketDigest]:
        """See Figures.digests."""
        values = f"(SELECT _bucket, _entity, value FROM figures WHERE {_within(metric, window)})"
        return bucket_digests(metric, digest_lines(self.db, values, "concat_ws(chr(31), _entity, value) || chr(10)"))

    def rows(self, metric: str, window: Window) -> Iterator[Computed]:
        """See Figures.rows."""
        self.db.execute(
            f"SELECT _bucket, _entity, value FROM figures WHERE {_within(metric, window)} ORDER BY _bucket, _entity"
        )
        while rows := self.db.fetchmany(FETCH):
            for bucket, entity, value in rows:
                yield _computed(metric, bucket, entity, value)


def _within(metric: str, window: Window) -> str:
    first, last = window.start // _MICROSECOND, (window.end - 1) // _MICROSECOND
    return f"metric = {literal(metric)} AND _bucket BETWEEN {first} AND {last}"


def _computed(metric: str, bucket: int, entity: str, value: str) -> Computed:
    return Computed(metric, bucket * _MICROSECOND, entity, Decimal(value), None, NO_INPUTS, NO_INPUTS)


@contextmanager
def open_figures(path: Path, threads: int, parts: int) -> Iterator[DuckFigures]:
    """Provide the table of Engine.figures."""
    with session([path], threads, parts) as db:
        db.execute(
            f"CREATE TEMP TABLE figures AS SELECT metric, bucket // {_MICROSECOND} AS _bucket,"
            f" coalesce(entity, {literal(ALL_ENTITIES)}) AS _entity, value, line FROM read_csv({file_list([path])},"
            " delim = '\t', quote = '', escape = '', header = false,"
            " auto_detect = false, columns = {metric: 'VARCHAR', bucket: 'BIGINT', entity: 'VARCHAR',"
            " value: 'VARCHAR', line: 'BIGINT'})"
        )
        yield DuckFigures(db, path)


def _reopened(path: CarriedFile) -> DuckFigures:
    opened = open_figures(path, 1, 1)
    return replace(opened.__enter__(), opened=opened)
