"""Metric definitions in state.db."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from pik.model.metric import EVENT_COUNT, Definition, Metric
from pik.stores.local.sqlite import Database


@dataclass(slots=True)
class LocalMetrics:
    """Keeps the definitions that were applied; the built-in one is added to each answer."""

    database: Database

    def apply(self, definition: Definition, applied_at: int, scale: int = 0) -> Metric:
        with self.database.write() as connection:
            newest = connection.execute(
                "SELECT * FROM metric WHERE name = ? ORDER BY version DESC LIMIT 1", (definition.name,)
            )
            versions = _with_built_in(definition.name, newest)
            if versions and versions[-1].definition == definition:
                return versions[-1]
            version = versions[-1].version + 1 if versions else 1
            connection.execute(
                "INSERT INTO metric VALUES (?, ?, ?, ?, ?)",
                (definition.name, version, msgspec.json.encode(definition).decode(), applied_at, scale),
            )
        return Metric(definition=definition, version=version, applied_at=applied_at, scale=scale)

    def latest(self) -> list[Metric]:
        newest = {EVENT_COUNT.name: EVENT_COUNT}
        for row in self.database.read().execute("SELECT * FROM metric ORDER BY name, version"):
            newest[row[0]] = _metric(row)
        return [newest[name] for name in sorted(newest)]

    def versions(self, name: str) -> list[Metric]:
        return _with_built_in(
            name, self.database.read().execute("SELECT * FROM metric WHERE name = ? ORDER BY version", (name,))
        )


def _with_built_in(name: str, rows: Iterable[tuple[Any, ...]]) -> list[Metric]:
    built_in = [EVENT_COUNT] if name == EVENT_COUNT.name else []
    return built_in + [_metric(row) for row in rows]


def _metric(row: tuple[Any, ...]) -> Metric:
    _, version, text, applied_at, scale = row
    definition = msgspec.json.decode(text, type=Definition)
    return Metric(definition=definition, version=version, applied_at=applied_at, scale=scale)
