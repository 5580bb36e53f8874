"""What events, duplicates and suspects are counted by: --by, and the columns that have it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import msgspec

from pik.cli.document import Column, Schema
from pik.cli.values import Instant, Json
from pik.model.instant import HOUR, format_instant, parse_instant
from pik.model.visible import visible_value

if TYPE_CHECKING:
    from pik.model.path import EventPath
    from pik.usecases.inspect.count_events import EventGroup

NAMES = ("source", "type", "entity", "batch", "day", "hour")
"""What --by names beside paths."""


class HoursWithout(msgspec.Struct, frozen=True):
    """Successive hours without an event, from the hour `group` on: one row of a table."""

    group: str
    hours: int
    events: int = 0

    @property
    def text(self) -> str | None:
        """What stands for more than one hour."""
        return f"({self.hours:,} hours without)" if self.hours > 1 else None


def with_hours_without(groups: Iterable[EventGroup]) -> Iterator[EventGroup | HoursWithout]:
    """Yield groups by hour, in order, and between them what tells people of hours without events."""
    next_hour: int | None = None
    for one in groups:
        hour = parse_instant(one.group)
        if next_hour is not None and hour > next_hour:
            yield HoursWithout(format_instant(next_hour), (hour - next_hour) // HOUR)
        yield one
        next_hour = hour + HOUR


GROUPED = (
    *(Column(name, str, get="group", only=f"with `--by {name}`") for name in NAMES[:-2]),
    Column("day", str, "UTC, of `event_time`", get="group", only="with `--by day`"),
    Column(
        "hour",
        Instant,
        "of `event_time`",
        get=lambda row: parse_instant(row.group),
        text=lambda row: row.text if isinstance(row, HoursWithout) else None,
        only="with `--by hour`",
    ),
    Column(
        "value",
        Json,
        "what the path finds; null: nothing",
        get=lambda row: row.group.encode(),
        text=lambda row: visible_value(msgspec.json.decode(row.group) if row.group.startswith('"') else row.group),
        only="with `--by PATH`",
    ),
)
"""The columns of all of them."""


def read_by(text: str) -> str | EventPath:
    """Return what --by names: one of NAMES, or a path. Raises UsageError."""
    from pik.model.path import EventPath

    return text if text in NAMES else EventPath(text, "--by", NAMES)


class _Group(Protocol):
    @property
    def group(self) -> str | None: ...


G = TypeVar("G", bound=_Group)


class Watched(Generic[G]):
    """Groups of one listing, as they are shown; knows whether a path found nothing in any of them."""

    def __init__(self, groups: Iterable[G], by: str | EventPath) -> None:
        self._groups, self._by = groups, by
        self._first: list[str | None] = []

    def __iter__(self) -> Iterator[G]:
        for one in self._groups:
            if len(self._first) < 2:
                self._first.append(one.group)
            yield one

    @property
    def note(self) -> str | None:
        """What to tell once they are shown: a path of which nothing was found is perhaps mistyped."""
        is_path = not isinstance(self._by, str) or self._by.startswith("payload.")
        nothing = is_path and self._first in (["null"], [None])
        return (
            f"there is nothing at {self._by} in any of these events; names are as sent, capitals too"
            if nothing
            else None
        )


def shown_group(schema: Schema, by: str | EventPath) -> Schema:
    """Return the schema with the column of this group alone."""
    shown = by if isinstance(by, str) else "value"
    return schema.without(*(f"groups.{column.name}" for column in GROUPED if column.name != shown))
