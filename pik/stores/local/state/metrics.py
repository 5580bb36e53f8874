"""Metric definitions in state.db."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pik.model.metric import EVENT_COUNT, Definition, Metric
from pik.stores.bodies import metric_columns, metric_of
from pik.stores.common import damaged_row
from pik.stores.local.sqlite import Database
from pik.stores.local.state.database import METRIC_DIGEST
from pik.stores.local.state.sealed_copies import seal
from pik.stores.state_digest import row_digest

_SELECT = f"SELECT name, version, definition, applied_at, scale, digest IS {METRIC_DIGEST} FROM metric"


@dataclass(slots=True)
class LocalMetrics:
    """Keeps the definitions that were applied; the built-in one is added to each answer."""

    database: Database

    def apply(self, definition: Definition, applied_at: int, scale: int = 0) -> Metric:
        with self.database.write() as connection:
            newest = connection.execute(f"{_SELECT} WHERE name = ? ORDER BY version DESC LIMIT 1", (definition.name,))
            versions = _with_built_in(definition.name, newest)
            if versions and versions[-1].definition == definition:
                return versions[-1]
            version = versions[-1].version + 1 if versions else 1
            metric = Metric(definition=definition, version=version, applied_at=applied_at, scale=scale)
            insert(connection, metric)
        seal(self.database)
        return metric

    def latest(self) -> list[Metric]:
        newest = {EVENT_COUNT.name: EVENT_COUNT}
        for row in self.database.read().execute(f"{_SELECT} ORDER BY name, version"):
            newest[row[0]] = _metric(row)
        return [newest[name] for name in sorted(newest)]

    def versions(self, name: str) -> list[Metric]:
        return _with_built_in(name, self.database.read().execute(f"{_SELECT} WHERE name = ? ORDER BY version", (name,)))


def _with_built_in(name: str, rows: Iterable[tuple[Any, ...]]) -> list[Metric]:
    built_in = [EVENT_COUNT] if name == EVENT_COUNT.name else []
    return built_in + [_metric(row) for row in rows]


def insert(connection: sqlite3.Connection, metric: Metric, *, keep: bool = False) -> bool:
    """Insert a version of a metric; whether it is new, where with `keep` one that is there stays."""
    row = metric_columns(metric)
    return (
        connection.execute(
            f"INSERT {'OR IGNORE ' if keep else ''}INTO metric (name, version, definition, applied_at, scale, digest)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (*row, row_digest("metric", *row)),
        ).rowcount
        > 0
    )


def _metric(row: tuple[Any, ...]) -> Metric:
    name, version, text, applied_at, scale, sound = row
    if not sound:
        raise damaged_row(f"the definition of {name} version {version}")
    return metric_of(version, text, applied_at, scale)
