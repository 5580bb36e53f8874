"""The SQL of a scenario's rules: which deliveries they select, and when those count instead."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pik.engine.check import check_definition
from pik.engine.sandbox import column_sql, literal
from pik.errors import Invalid, UsageError
from pik.model.criteria import Criteria
from pik.model.instant import MAX_INSTANT, MIN_INSTANT, full_instant
from pik.model.metric import Definition
from pik.ports.engine import Offset, Rule

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_TIME = "line.event_time"
_SECONDS = f"CAST({_TIME}[1:19] AS TIMESTAMP)"


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules of a scan: the conditions of those that take deliveries out, and of those that move them, each with
    its offsets. The conditions read `columns`."""

    removed: Sequence[str] = ()
    moved: Sequence[tuple[str, tuple[Offset, ...]]] = ()
    columns: frozenset[str] = frozenset()

    @property
    def filters(self) -> list[str]:
        """The conditions on a line of `applied` that they add."""
        return ["NOT line._removed"] if self.removed else []

    def applied(self, read: str, fields: Iterable[str]) -> str:
        """Return the SQL of a relation like `read`, whose lines have these fields, with the times that count."""
        if not self.removed and not self.moved:
            return read
        columns = "".join(f", {column_sql(name)} AS {name}" for name in sorted(self.columns))
        kept = [f"line.{field} AS {field}" for field in fields if field != "event_time"]
        time = _TIME
        for number, (_, offsets) in enumerate(self.moved):  # the last one that holds is asked first
            time = f"CASE WHEN _m{number} THEN {_moved(offsets)} ELSE {time} END"
        conditions = [f"coalesce({sql}, false) AS _m{number}" for number, (sql, _) in enumerate(self.moved)]
        conditions.append(f"{' OR '.join(f'coalesce({sql}, false)' for sql in self.removed) or 'false'} AS _removed")
        return (
            f"(SELECT {', '.join(kept)}, {time} AS event_time, _removed FROM (SELECT line, {', '.join(conditions)} "
            f"FROM (SELECT line{columns} FROM {read} AS line)))"
        )

    @property
    def unknown(self) -> list[tuple[str, str]]:
        """Conditions on a line under which its time cannot be known, each with the reason."""
        return [
            (f"({condition}) AND {_within(offset)}", offset.reason)
            for condition, offsets in self.moved
            for offset in offsets
            if offset.seconds is None
        ]


NO_RULES = Rules()


def read_rules(db: DuckDBPyConnection, rules: Sequence[Rule]) -> Rules:
    """Return the rules as SQL. Raises UsageError for a condition that cannot be evaluated."""
    removed: list[str] = []
    moved: list[tuple[str, tuple[Offset, ...]]] = []
    columns: frozenset[str] = frozenset()
    for rule in rules:
        condition, read = criteria_sql(db, rule.criteria)
        columns |= read
        if rule.offsets:
            moved.append((condition, rule.offsets))
        else:
            removed.append(condition)
    return Rules(removed, moved, columns)


def criteria_sql(db: DuckDBPyConnection, criteria: Criteria) -> tuple[str, frozenset[str]]:
    """Return the SQL of a condition on a `line` and its columns, and which columns it reads. Raises UsageError for a
    `where` that a metric could not have either."""
    texts: Mapping[str, str | None] = {
        "source": criteria.source,
        "event_type": criteria.event_type,
        "entity_id": criteria.entity,
        "batch_id": criteria.batch,
    }
    conditions = [f"{name} = {literal(text)}" for name, text in texts.items() if text is not None]
    columns = {name for name, text in texts.items() if text is not None}
    if criteria.window.start > MIN_INSTANT:
        conditions.append(f"{_TIME} >= {literal(full_instant(criteria.window.start))}")
    if criteria.window.end <= MAX_INSTANT:
        conditions.append(f"{_TIME} < {literal(full_instant(criteria.window.end))}")
    if criteria.condition is not None:
        try:
            checked = check_definition(db, Definition(name="selection", value="count(*)", where=criteria.condition))
        except Invalid as error:
            raise UsageError(f"where={criteria.where}: {error.message.partition(': ')[2]}", hint=error.hint) from None
        others = " AND ".join(conditions)  # the condition may fail for deliveries of which these do not hold
        conditions = [f"CASE WHEN {others} THEN {checked.where} END" if others else f"({checked.where})"]
        columns |= checked.columns
    return " AND ".join(conditions) or "true", frozenset(columns)


def _moved(offsets: Sequence[Offset]) -> str:
    """Return the SQL of the moved time, written as raw's times are."""
    cases = "".join(
        f" WHEN {_within(offset)} THEN {offset.seconds}" for offset in offsets if offset.seconds is not None
    )
    moved = f"{_SECONDS} + to_seconds(CASE{cases} ELSE 0 END)"
    return f"strftime({moved}, '%Y-%m-%dT%H:%M:%S') || {_TIME}[20:]"


def _within(offset: Offset) -> str:
    bounds = [
        f"{_TIME}[1:19] {operator} {literal(text)}"
        for operator, text in ((">=", offset.start), ("<", offset.end))
        if text is not None
    ]
    return " AND ".join(bounds) or "true"
