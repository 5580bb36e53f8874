"""What `pik duplicates` shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pik.cli.render import Column, Count, Document, EventId, Instant, Json, Shown, Table
from pik.cli.render.text import shortened, visible

if TYPE_CHECKING:
    from pik.model.window import Window
    from pik.usecases.inspect.duplicates import Change, DuplicateList, GroupList


def listed(found: DuplicateList, entity: str | None, limit: int | None, *, payload_diff: bool) -> Document:
    """Each duplicate, with `payload_diff` and what a conflict says otherwise."""
    window = found.window
    changes = Column("changes", get=lambda row: _changes(row.changes), cut=60)
    return Document(
        head={"window": window, "entity": entity},
        tables=[Table("duplicates", [*_COLUMNS, changes] if payload_diff else _COLUMNS, found.rows, _none(window))],
        tail=lambda: {
            "matched": Shown(None, f"more than {limit:,}") if found.matched is None else Count(found.matched),
            "truncated": found.truncated,
            "note": f"--limit N shows more than the first {limit:,}, --by counts them" if found.truncated else None,
        },
    )


def counted(groups: GroupList, by: str, entity: str | None, limit: int | None) -> Document:
    """The groups, or the first of them, and how many duplicates there are in all."""
    window = groups.window
    columns = [
        Column(by, get=lambda row: row.group),
        Column("duplicates", Count),
        Column("exact", Count),
        Column("conflict", Count),
    ]
    return Document(
        head={"window": window, "entity": entity, "by": by},
        tables=[Table("groups", columns, groups.rows, _none(window))],
        tail=lambda: {
            "duplicates": Count(groups.duplicates),
            "truncated": groups.truncated,
            "note": f"--limit N shows more than the {limit:,} largest" if groups.truncated else None,
        },
    )


def _none(window: Window) -> str:
    return f"no such duplicates in {window}"


_COLUMNS = [
    Column("event_id", EventId),
    Column("kind"),
    Column("event_time", Instant),
    Column("ingest_time", Instant, detail=True),
    Column("source", cut=16, drop=5),
    Column("event_type", cut=20, drop=3),
    Column("entity_id", cut=24),
    Column("deliveries", drop=1),
    Column("batch_id", drop=4),
    Column("seq", drop=2),
]

_LONGEST = 24
"""Columns that people see of each value."""


def _changes(changes: Sequence[Change]) -> Shown:
    lines = [f"{one.path}: {_short(one.accepted)} → {_short(one.came)}" for one in changes]
    return Shown([_change(one) for one in changes], "\n".join(map(visible, lines)) or "-")


def _short(value: bytes | None) -> str:
    return "nothing" if value is None else shortened(value.decode(), _LONGEST)


def _change(change: Change) -> dict[str, object]:
    return {
        "path": change.path,
        "accepted": None if change.accepted is None else Json(change.accepted),
        "came": None if change.came is None else Json(change.came),
    }
