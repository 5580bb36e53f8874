"""Numbers from outside: tables of a warehouse, a ledger or a dashboard, whatever the format of their files."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

from pik.errors import InputError, Invalid, UsageError
from pik.inputs.advice import Advice, Read
from pik.inputs.bucket_texts import bucket_named, order_of_day
from pik.inputs.epochs import UNITS, evident_count, evident_unit
from pik.inputs.number_spelling import plain_number, rewriting
from pik.model.aggregate import decimal_text
from pik.model.calendar import Buckets
from pik.model.identity import name_of_number
from pik.model.instant import format_instant
from pik.model.metric import ALL_ENTITIES

READS = "what can be read: CSV, TSV, each with a header, Parquet, JSON objects in lines or an array, also compressed"

BUCKETS = (
    *("bucket", "day", "date", "hour", "week", "month", "time", "timestamp", "period", "bucket_start", "event_date"),
    *("ds", "dt"),
)
ENTITIES = (
    *("entity_id", "entity", "customer_id", "customer", "user_id", "user", "account_id", "account", "client_id"),
    *("client", "merchant_id", "merchant", "id"),
)
VALUES = ("value", "amount", "total", "sum", "count", "number")
"""Usual names of columns, the first that a file has is taken."""

_METRIC = "metric"
_DIGITS = 100  # of a number, at most; a DECIMAL holds 38
_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,2})?", re.ASCII)
_DAY = re.compile(r"\d{4}-\d\d(?:-\d\d)?", re.ASCII)
_MISSING = frozenset(("null", "\\n", "na", "n/a", "#n/a", "nan", "none", "nil", "-"))
_DATES = (
    "a bucket is a date such as 2026-01-31, or the time when it begins; leave out rows of anything else, such as totals"
)
_TOTALS = 'totals over all entities are compared with a metric that has per = "all"'
_NUMBERS = "numbers have a point before their fraction, no thousands separators and no currency"
_UNPRINTABLE = re.compile("[\0-\x1f\x7f\ud800-\udfff]")


class Figure(NamedTuple):
    """A number of a file: `bucket` in nanoseconds, `value` as the shortest plain text of it; `line` is where it
    stands."""

    line: int
    metric: str
    bucket: int
    entity_id: str
    value: str


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns of a file hold what. `values` maps metrics to their columns; or `metric` is the column that names
    the metric of each row, and `values` has one column, under an empty name. No `entity`: all metrics are over all."""

    bucket: str
    entity: str | None
    values: Mapping[str, str]
    metric: str | None = None

    def __str__(self) -> str:
        values = [f"{name or 'value'}={column}" for name, column in self.values.items()]
        named = [f"metric={self.metric}"] if self.metric else []
        entity = [f"entity={self.entity}"] if self.entity else []
        return ", ".join([f"bucket={self.bucket}", *entity, *named, *values])


@dataclass(slots=True)
class Table:
    """An open file with a header. `read` yields the number of each row and its cells in these columns; what one row is
    called is `unit`; `delimiter` stands between the cells of a text. `flat`, where rows have objects, is a command that
    makes columns of their fields. `digest` is the SHA-256 of the file, in hex. `approximate` are columns of floating
    point that have been read, `other_metrics` counts the rows of metrics that were not asked for."""

    name: str
    header: Sequence[str]
    read: Callable[[Sequence[str]], Iterator[tuple[int, Sequence[Any]]]]
    unit: str = "line"
    flat: str = ""
    delimiter: str = ""
    digest: str = ""
    approximate: list[str] = field(default_factory=list)
    other_metrics: int = 0

    def columns(
        self,
        metrics: Sequence[str],
        key: Mapping[str, str],
        values: Mapping[str, str],
        over_all: Collection[str] = (),
    ) -> Columns:
        """Return what the columns hold: as `key` (bucket, entity) and `values` (by metric) name them, the others by
        their usual names. Metrics `over_all` entities need no column of those. Raises UsageError where that does not
        tell."""
        bucket = self._column("bucket", key.get("bucket"), BUCKETS)
        entity = self._find((key["entity"],) if "entity" in key else ENTITIES)
        found = self._values(metrics, values, bucket, entity)
        # Where a column names the metrics, only its rows tell which there are.
        is_needed = not over_all if found.metric else not set(found.values) <= set(over_all)
        if entity is None and (is_needed or "entity" in key):
            self._column("entity", key.get("entity"), ENTITIES)  # raises
        return found

    def _values(self, metrics: Sequence[str], values: Mapping[str, str], bucket: str, entity: str | None) -> Columns:
        if values:
            named = {metric: self._column(f"--value {metric}", column, ()) for metric, column in values.items()}
            return Columns(bucket, entity, named)
        metric, value = self._find((_METRIC,)), self._find(VALUES[:1])
        if metric and value:
            return Columns(bucket, entity, {"": value}, metric)
        found = {name: column for name in metrics if (column := self._find((name,))) and column not in (bucket, entity)}
        rest = [column for column in self.header if column not in (bucket, entity)]
        if not found and len(metrics) == 1:
            column = self._find(VALUES) or (rest[0] if len(rest) == 1 else None)
            found = {metrics[0]: column} if column else {}
        if not found:
            metric = metrics[0] if len(metrics) == 1 else "METRIC"
            example = f"--value {metric}={rest[0] if len(rest) == 1 else 'COLUMN'}"
            raise UsageError(
                f"{self.name} has no column named as a metric ({', '.join(metrics[:5])}); it has {self._shown}",
                hint=(self.flat and flattened(self.flat, self.name))
                or f"{example}, or --metric NAME where one column has values",
            )
        return Columns(bucket, entity, found)

    def figures(
        self, columns: Columns, buckets_of: Mapping[str, Buckets], over_all: Collection[str] = ()
    ) -> Iterator[Figure]:
        """Yield the numbers of these metrics, in the order of the file; an empty cell has none.

        `buckets_of` has the buckets of each metric. Those of metrics `over_all` entities stand in rows without an
        entity. Raises InputError naming the line that cannot be read.
        """
        names = list(columns.values)
        wanted = [
            columns.bucket,
            columns.entity or columns.bucket,
            *([columns.metric] if columns.metric else []),
            *columns.values.values(),
        ]
        buckets: dict[tuple[str, Any], int] = {}
        first = 3 if columns.metric else 2
        rows = 0
        for line, cells in self.read(wanted):
            rows += 1
            entity = cells[1] if columns.entity else ALL_ENTITIES
            is_named = entity not in (None, ALL_ENTITIES)
            if is_named and (not isinstance(entity, str) or _UNPRINTABLE.search(entity)):
                entity = self._entity(line, columns.entity, entity)
            for name, cell in zip(names, cells[first:], strict=True):
                metric = name or cells[2]
                if metric not in buckets_of:
                    self.other_metrics += 1
                    continue
                try:
                    value = number_text(cell)
                    if value is None:
                        continue
                    bucket = buckets.get((metric, cells[0]))
                    if bucket is None:
                        bucket = buckets[metric, cells[0]] = _bucket(cells[0], metric, buckets_of[metric])
                except Invalid as error:
                    is_of_bucket = error.field == "bucket"
                    column = columns.bucket if is_of_bucket else columns.values[name]
                    hint = (error.hint or self._as_date(cells[0])) if is_of_bucket else self._as_number(cell)
                    raise self._refused(line, f"{column}: {error.message}", hint) from None
                if metric in over_all:
                    if is_named:
                        why = f"{metric} is over all entities, and this row is of {entity!r}"
                        raise self._refused(line, f"{columns.entity}: {why}")
                    entity = ALL_ENTITIES
                elif not is_named:
                    entity = self._entity(line, columns.entity, entity)
                yield Figure(line, metric, bucket, entity, value)
        if not rows:
            raise InputError(f"{self.name} has a header and no rows")

    def _as_date(self, cell: Any) -> str:
        """Return the hint for a bucket that cannot be read; for `31/01/2026`, what to type."""
        if not isinstance(cell, str):
            return _DATES
        text = cell.strip()
        first = order_of_day(text)
        if first is None or self.unit != "line":
            return _as_date(text)
        century, between, digits = ("", "-/", 4) if re.search(r"\d{4}$", text) else ("20", "/.", 2)
        month_first = rf"{century}\3-\1-\2"
        swapped = month_first if first == "month" else rf"{century}\3-\2-\1"
        known = f"the {first} comes first: " if first else f"where the day comes first (else {month_first}): "
        convert = f"sed -E 's#([0-9]+)[{between}]([0-9]+)[{between}]([0-9]{{{digits}}})#{swapped}#' {{file}}"
        return Advice((known, Read(convert=convert)), name=self.name)

    def _as_number(self, cell: Any) -> str:
        """Return the hint for a number that cannot be read, with the one that it certainly is."""
        text = str(cell).strip().replace("\u2212", "-")
        if (plain := plain_number(text)) is None:
            return _NUMBERS
        if not self.delimiter:
            return f"write {plain} in the place of {text}: {_NUMBERS}"
        return Advice(
            (f"{text} as {plain}, and others alike: ", Read(convert=rewriting(text, self.delimiter))), name=self.name
        )

    def _entity(self, line: int, column: str | None, cell: Any) -> str:
        if isinstance(cell, int | Decimal | float) and not isinstance(cell, bool) and Decimal(cell).is_finite():
            return name_of_number(repr(cell) if isinstance(cell, float) else str(cell))  # as events have it
        is_empty = cell in (None, "")
        why = "the entity is empty" if is_empty else f"{_shown(cell)} cannot be an entity"
        if isinstance(cell, str) and (shown := cell.encode(errors="surrogateescape")) != cell.encode(errors="replace"):
            why = f"'{shown.decode(errors='backslashreplace')[:40]}' is not UTF-8"
        hint = "leave out rows of no entity, such as totals" if is_empty and column else ""
        raise self._refused(line, f"{column}: {why}" if column else "no entity: the file has no column of them", hint)

    def _refused(self, line: int, why: str, hint: str = "") -> InputError:
        return InputError(f"{self.name}, {self.unit} {line:,}: {why}", hint=hint)

    @property
    def _shown(self) -> str:
        return ", ".join(map(repr, self.header[:20])) + (" …" if len(self.header) > 20 else "")

    def _column(self, what: str, named: str | None, usual: Sequence[str]) -> str:
        if not self.header:
            raise InputError(f"{self.name} has no rows", hint=READS)
        column = self._find((named,) if named else usual)
        if column is None:
            lacks = f"column {named!r} ({what})" if named else f"column with a usual name of the {what}"
            hint = "" if not usual else f"--key {what}=COLUMN names it"
            if what == "entity" and not named:
                hint = f"{hint if len(self.header) > 2 else 'it has two columns'}; {_TOTALS}"
            hint = READS if len(self.header) < 2 else hint
            if sum(map(bool, map(_DAY.fullmatch, self.header))) > 1:
                hint = "a row has the number of one bucket: UNPIVOT of SQL makes rows of columns that are days"
            if self.flat:
                hint = flattened(self.flat, self.name)
            raise UsageError(f"{self.name} has no {lacks}; it has {self._shown}", hint=hint)
        return column

    def _find(self, names: Sequence[str]) -> str | None:
        """Return the column with the first of these names that there is, whatever its case. Raises UsageError where
        several have it."""
        for name in names:
            alike = [column for column in self.header if column == name] or [
                column for column in self.header if column.strip().casefold() == name.casefold()
            ]
            if len(alike) > 1:
                raise UsageError(f"{self.name} has {len(alike)} columns named {name!r}")
            if alike:
                return alike[0]
        return None


def flattened(command: str, name: str) -> Advice:
    """Return the hint that this command makes columns of the fields of objects."""
    return Advice(("with the fields of its objects as columns: ", Read(convert=command)), name=name)


def _shown(cell: Any) -> str:
    return str(cell).lower() if isinstance(cell, bool) else repr(str(cell)[:40])


def number_text(cell: Any) -> str | None:
    """Return the shortest plain text of a number, None of an empty cell. Raises Invalid."""
    if cell is None:
        return None
    if isinstance(cell, str):
        cell = cell.strip().replace("\u2212", "-")  # the minus of typographers, of spreadsheets in some languages
        if not cell:
            return None
        if not _NUMBER.fullmatch(cell):
            missing = "; the cell is empty where there is none" if cell.casefold() in _MISSING else ""
            raise Invalid(f"'{cell[:40]}' is not a number such as -1234.50{missing}")
    elif isinstance(cell, bool) or not isinstance(cell, int | Decimal | float):
        raise Invalid(f"{_shown(cell)} is not a number")
    value = Decimal(repr(cell) if isinstance(cell, float) else cell)
    if not value.is_finite():
        raise Invalid(f"{cell} is not a number")
    if abs(value.adjusted()) + len(value.as_tuple().digits) > _DIGITS:
        raise Invalid(f"{str(cell)[:40]!r} has more digits than a value can have")
    return decimal_text(value)


def _as_date(text: str) -> str:
    """Return the hint for a bucket that cannot be read, with what it is if it is a number that counts time."""
    if not (re.fullmatch(r"\d{5,19}", text, re.ASCII) and (kind := evident_unit(Decimal(text)))):
        is_serial = re.fullmatch(r"\d{5}", text, re.ASCII) and evident_count(Decimal(text))
        day = date(1899, 12, 30) + timedelta(days=int(text)) if is_serial else None
        return f"{text} is {day} as a day of a spreadsheet; {_DATES}" if day else _DATES
    return f"{text} is {format_instant(int(text) * UNITS[kind])} as a time since 1970; {_DATES}"


def _bucket(cell: Any, metric: str, buckets: Buckets) -> int:
    """Return the bucket whose start a cell names, a date or a time. Raises Invalid."""
    try:
        if isinstance(cell, int) and not isinstance(cell, bool):
            instant = cell  # of Parquet, where a column of plain integers is refused
        else:
            instant = bucket_named(str(cell or "").strip(), metric, buckets)
    except Invalid as error:
        raise Invalid(error.message if cell else "the bucket is empty", field="bucket", hint=error.hint) from None
    if (begin := buckets.start_of(instant)) != instant:
        local = buckets.local_text(begin)
        that = f"{local} ({format_instant(begin)})" if local else format_instant(begin)
        why = f"{format_instant(instant)} is not the start of a bucket of {metric}; that is {that}"
        raise Invalid(why, field="bucket")
    return instant
