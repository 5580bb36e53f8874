"""What events, duplicates and suspects are counted by: --by, and the columns that have it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from pik.cli.document import Column, Schema
from pik.cli.values import Instant, Json
from pik.model.instant import parse_instant

if TYPE_CHECKING:
    from pik.model.path import EventPath

NAMES = ("source", "type", "entity", "batch", "hour")
"""What --by names beside paths."""

GROUPED = (
    *(Column(name, str, get="group", only=f"with `--by {name}`") for name in NAMES[:-1]),
    Column("hour", Instant, "of `event_time`", get=lambda row: parse_instant(row.group), only="with `--by hour`"),
    Column(
        "value",
        Json,
        "what the path finds; null: nothing",
        get=lambda row: row.group.encode(),
        text=lambda row: msgspec.json.decode(row.group) if row.group.startswith('"') else row.group,
        only="with `--by PATH`",
    ),
)
"""The columns of all of them."""


def read_by(text: str) -> str | EventPath:
    """Return what --by names: one of NAMES, or a path. Raises UsageError."""
    from pik.model.path import EventPath

    return text if text in NAMES else EventPath(text, "--by")


def shown_group(schema: Schema, by: str | EventPath) -> Schema:
    """Return the schema with the column of this group alone."""
    shown = by if isinstance(by, str) else "value"
    return schema.without(*(f"groups.{column.name}" for column in GROUPED if column.name != shown))
