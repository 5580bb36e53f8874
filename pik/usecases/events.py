"""The events of a window, oldest first."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from pik.model.batch import ACCEPTED
from pik.model.event import Delivery
from pik.model.filter import Filter
from pik.model.instant import day_of
from pik.model.window import Window
from pik.ports.store import Store
from pik.usecases.held import expect_held
from pik.usecases.ordering import sort_bounded
from pik.usecases.progress import SILENT, Progress
from pik.usecases.reading import deliveries

_PAGE = 200  # events whose numbers of deliveries are asked for at once


@dataclass(frozen=True, slots=True)
class EventRow:
    """An event as its accepted delivery told it. `lag` in nanoseconds, negative for clock skew; `deliveries` counts
    all."""

    event_id: str
    event_time: int
    source: str
    event_type: str
    entity_id: str
    lag: int
    deliveries: int
    batch_id: str
    seq: int
    payload: bytes


@dataclass(slots=True)
class EventList:
    """The answer; `matched` and `cut` are final once the rows are read. `cut`: a limit left later events out."""

    window: Window
    rows: Iterator[EventRow]
    matched: int = 0
    cut: bool = False


_Key = tuple[int, str]
_Accepted = tuple[int, str, Delivery]


def list_events(store: Store, wanted: Filter, limit: int | None = None, *, progress: Progress = SILENT) -> EventList:
    """The accepted events asked for, by event_time and then event_id; with a limit, the oldest so many. Raises NotHeld,
    and Damaged while iterating."""
    expect_held(store, wanted.window, wanted.entities)
    answer = EventList(wanted.window, iter(()))
    answer.rows = _rows(store, wanted, limit, answer, progress)
    return answer


def _rows(store: Store, wanted: Filter, limit: int | None, answer: EventList, progress: Progress) -> Iterator[EventRow]:
    accepted = _accepted(store, wanted, answer, progress)
    with store.raw.scratch() as scratch:
        if limit is None:
            ordered: Iterable[_Accepted] = sort_bounded(accepted, _key, scratch)
        else:
            ordered = heapq.nsmallest(limit, accepted, key=_key)
            answer.cut = answer.matched > limit
        remaining = iter(ordered)
        while page := list(islice(remaining, _PAGE)):
            repeats = store.index.repeats([(day_of(instant), event_id) for instant, event_id, _ in page])
            for (instant, event_id, delivery), repeated in zip(page, repeats, strict=True):
                yield EventRow(
                    event_id,
                    instant,
                    delivery.source,
                    delivery.event_type,
                    delivery.entity_id,
                    delivery.lag,
                    1 + repeated,
                    delivery.batch_id,
                    delivery.seq,
                    bytes(delivery.payload),
                )


def _accepted(store: Store, wanted: Filter, answer: EventList, progress: Progress) -> Iterator[_Accepted]:
    for found in deliveries(store, wanted, only=ACCEPTED, progress=progress):
        answer.matched += 1
        yield found.delivery.event_instant, found.delivery.event_id, found.delivery


def _key(item: _Accepted) -> _Key:
    return item[0], item[1]
