"""Counts events by hour, day, type, entity, source, batch, or what a path finds in them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter, itemgetter

import msgspec

from pik.errors import Invalid, UsageError, command
from pik.model.delivery import Delivery, Filter
from pik.model.instant import HOUR, day_of, day_text, format_instant
from pik.model.path import EventPath
from pik.ports.store import Store
from pik.rawlog.deliveries import deliveries
from pik.runtime import SILENT, Progress
from pik.runtime.storage import SORTED_IN_MEMORY, sort_bounded
from pik.usecases import Listing
from pik.usecases.availability import expect_held
from pik.usecases.inspect.conditions import ACCEPTED, Conditions
from pik.usecases.inspect.events import pages

FIELDS = {"type": "event_type", "entity": "entity_id", "source": "source", "batch": "batch_id"}
"""What events are counted by, and the field of a delivery that has it."""

_TIMES: dict[str, Callable[[int], str]] = {
    "hour": lambda instant: format_instant(instant - instant % HOUR),
    "day": lambda instant: day_text(day_of(instant)),
}
"""The text of the UTC hour or day in which an instant is."""

_encode = msgspec.json.Encoder(decimal_format="number", order="sorted").encode


@dataclass(frozen=True, slots=True)
class EventGroup:
    """How many events have a value in common: a name, the start of an hour, a day, or the JSON of what a path finds."""

    group: str
    events: int


@dataclass(frozen=True, slots=True)
class EventTotals:
    """How many events there are in all groups, how many groups, and whether a limit left some of them out."""

    events: int
    groups: int
    truncated: bool


def value_at(path: EventPath, delivery: Delivery) -> bytes:
    """Return the JSON of what the path finds in the event, `null` where that is nothing. Raises UsageError naming the
    event for which it fails."""
    try:
        return _encode(path.find(delivery))
    except Invalid as error:
        raise UsageError(
            f"{path.text}: event {delivery.event_id}: {error.message}",
            hint=f"for its payload: {command('show', delivery.event_id)}",
        ) from None


def count_events(
    store: Store,
    wanted: Filter,
    by: str | EventPath,
    limit: int | None = None,
    *,
    conditions: Conditions = ACCEPTED,
    progress: Progress = SILENT,
) -> Listing[EventGroup, EventTotals]:
    """List the groups that the events fall into, the largest first, hours and days in order; with a limit the first.

    `by` is one of FIELDS, `hour`, `day`, or a path. Raises NotHeld; Damaged and UsageError while iterating.
    """
    expect_held(store, wanted.window, wanted.entities)
    return Listing(_groups(store, wanted, by, limit, conditions, progress))


def _groups(
    store: Store, wanted: Filter, by: str | EventPath, limit: int | None, conditions: Conditions, progress: Progress
) -> Generator[EventGroup, None, EventTotals]:
    group_of = group_by(by)
    holds = conditions.holds if conditions.chooses_segments else None
    only = conditions.only or "accepted"
    found = deliveries(store, wanted, only=only, progress=progress, holds=holds, as_received=conditions.as_received)
    groups = _counted(group_of(one.delivery) for one in found if conditions.meets(one))
    if isinstance(by, EventPath) or by not in _TIMES:
        groups = sort_bounded(groups, lambda one: (-one.events, one.group))
    number = events = 0
    for one in groups:
        number, events = number + 1, events + one.events
        if limit is None or number <= limit:
            yield one
    return EventTotals(events, number, limit is not None and number > limit)


def _counted(names: Iterable[str]) -> Iterator[EventGroup]:
    """Yield the groups, by name. Names are counted first as far as memory should hold them, so that few are sorted."""
    counts = (one for page in pages(iter(names), SORTED_IN_MEMORY) for one in Counter(page).items())
    for name, of_name in groupby(sort_bounded(counts, itemgetter(0)), key=itemgetter(0)):
        yield EventGroup(name, sum(count for _, count in of_name))


def group_by(by: str | EventPath) -> Callable[[Delivery], str]:
    """Return what tells the group of a delivery: `by` as in count_events."""
    if isinstance(by, EventPath):
        return lambda delivery: value_at(by, delivery).decode()
    return attrgetter(FIELDS[by]) if by in FIELDS else lambda delivery: time_group(by, delivery.event_instant)


def time_group(by: str, instant: int) -> str:
    """Return the group of an instant: the start of its `hour`, or its `day`, in UTC."""
    return _TIMES[by](instant)
