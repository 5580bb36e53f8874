"""The events of a window, oldest first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from pik.model.batch import ACCEPTED
from pik.model.event import Delivery
from pik.model.filter import Filter
from pik.model.instant import day_of
from pik.model.window import Window
from pik.ports.index import Index
from pik.ports.store import Store
from pik.rawlog.frames import Bound, Found, deliveries
from pik.runtime.progress import SILENT, Progress
from pik.usecases.availability import expect_held
from pik.usecases.inspect.by_day import ordered_by_day

_PAGE = 200  # events whose numbers of deliveries are asked for at once
_REPEATED = 100_000  # events that came again and are remembered until they are listed


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
    """The answer; `matched` and `truncated` are final once the rows are read.

    `truncated`: a limit left later events out. How many is not known then, since they are not read; `matched` is None.
    """

    window: Window
    rows: Iterator[EventRow]
    matched: int | None = 0
    truncated: bool = False


_Accepted = tuple[int, str, Delivery]


def list_events(store: Store, wanted: Filter, limit: int | None = None, *, progress: Progress = SILENT) -> EventList:
    """The accepted events asked for, by event_time and then event_id; with a limit, the oldest so many. Raises NotHeld,
    and Damaged while iterating."""
    expect_held(store, wanted.window, wanted.entities)
    answer = EventList(wanted.window, iter(()))
    answer.rows = _rows(store, wanted, limit, answer, progress)
    return answer


def _rows(store: Store, wanted: Filter, limit: int | None, answer: EventList, progress: Progress) -> Iterator[EventRow]:
    bound, repeats = Bound(), _Repeats(store.index)
    found = deliveries(store, wanted, progress=progress, bound=bound)
    one_more = None if limit is None else limit + 1  # tells whether the limit leaves any out
    ordered = ordered_by_day(store.raw, found, repeats.accepted, _key, one_more, bound)
    count = 0
    for page in _pages(islice(ordered, limit)):
        for (instant, event_id, delivery), repeated in zip(page, repeats.of(page), strict=True):
            count += 1
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
    answer.truncated = next(ordered, None) is not None
    answer.matched = None if answer.truncated else count


class _Repeats:
    """How often events came again. All deliveries of an event without an idempotency key are of one time and entity, so
    they are read together with it and need not be asked for; of the others the index knows."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._read: Counter[str] = Counter()
        self._forgot = False

    def accepted(self, found: Iterable[Found]) -> Iterator[_Accepted]:
        """The accepted ones of these deliveries. The others are counted, as long as they are not too many."""
        for one in found:
            event_id = one.delivery.event_id
            if one.kind == ACCEPTED:
                yield one.delivery.event_instant, event_id, one.delivery
            elif event_id in self._read or len(self._read) < _REPEATED:
                self._read[event_id] += 1
            else:
                self._forgot = True

    def of(self, page: Sequence[_Accepted]) -> list[int]:
        """The number of duplicates of each."""
        asked = {
            event_id: (day_of(instant), event_id)
            for instant, event_id, delivery in page
            if self._forgot or delivery.idempotency_key is not None
        }
        told = dict(zip(asked, self._index.repeats(list(asked.values())), strict=True)) if asked else {}
        read = [self._read.pop(event_id, 0) for _, event_id, _ in page]
        return [told.get(event_id, count) for (_, event_id, _), count in zip(page, read, strict=True)]


def _pages(rows: Iterator[_Accepted]) -> Iterator[list[_Accepted]]:
    while page := list(islice(rows, _PAGE)):
        yield page


def _key(item: _Accepted) -> tuple[int, str]:
    return item[0], item[1]
