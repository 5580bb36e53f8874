"""Metric definitions in state.db."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Any

from pik.model.metric import Metric
from pik.stores.local.sqlite import Database
from pik.stores.local.state.tables import METRIC, copy_rows
from pik.stores.state_rows import all_versions, damaged_row, latest_versions, metric_columns, metric_of, row_digest

_SELECT = f"SELECT {', '.join(METRIC.columns)}, digest IS {METRIC.digest} FROM metric"


@dataclass(slots=True)
class LocalMetrics:
    """Keeps the definitions that were applied; the built-in one is added to each answer."""

    database: Database

    def append(self, metric: Metric) -> bool:
        with self.database.write() as connection:
            is_new = insert_metric(connection, metric)
        copy_rows(self.database)
        return is_new

    def latest(self) -> list[Metric]:
        rows = self.database.read().execute(f"{_SELECT} ORDER BY name, version")
        return latest_versions(map(_metric, rows))

    def versions(self, name: str) -> list[Metric]:
        rows = self.database.read().execute(f"{_SELECT} WHERE name = ? ORDER BY version", (name,))
        return all_versions(name, map(_metric, rows))


def insert_metric(connection: sqlite3.Connection, metric: Metric) -> bool:
    """Insert a version of a metric, unless it is there already. Return whether it is new."""
    row = metric_columns(metric)
    inserted = connection.execute(
        f"INSERT OR IGNORE INTO metric ({', '.join(METRIC.columns)}, digest) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (*row, row_digest("metric", *row)),
    )
    return inserted.rowcount > 0


def _metric(row: tuple[Any, ...]) -> Metric:
    name, version, *columns, sound = row
    if not sound:
        raise damaged_row(f"the definition of {name} version {version}")
    return metric_of(version, *columns)
