"""The plan of a comparison of ten billion deliveries: what the index lists of them, without any raw."""

from __future__ import annotations

import json
import pickle
import resource
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, cast

from pik.engine import DuckEngine
from pik.model.batch import Frame, Segment
from pik.model.instant import DAY
from pik.model.window import Window
from pik.ports.fleet import Fleet
from pik.stores import open_store
from pik.usecases.metrics.comparison import Counted
from pik.usecases.metrics.diff import diff_aggregates

FIRST, DAYS = 20_454, 30
SEGMENTS, DELIVERIES, FRAMES = 13_400, 25_000, 40
"""Of a day; of a segment."""


class Listed:
    """An index that lists what no store here has."""

    def __init__(self, index: Any) -> None:
        self._index = index

    def __getattr__(self, name: str) -> Any:
        return getattr(self._index, name)

    def segments(self, window: Window, **_: object) -> Iterator[Segment]:
        frames = tuple(
            Frame(offset=50_000 * n, length=50_000, lines=DELIVERIES // FRAMES, first=f"e{n}", last=f"e{n + 1}")
            for n in range(FRAMES)
        )
        for day in range(max(FIRST, window.start // DAY), min(FIRST + DAYS, -(-window.end // DAY))):
            for number in range(SEGMENTS):
                yield Segment(
                    key=f"raw/event_date={day}/01M8PAWX4750AQS5D43PBJT1VB-{number}.ndjson.zst",
                    batch_id="01M8PAWX4750AQS5D43PBJT1VB",
                    day=day,
                    size=2_000_000,
                    digest="0" * 64,
                    deliveries=DELIVERIES,
                    ingest_time=1,
                    first_event=day * DAY,
                    last_event=(day + 1) * DAY - 1,
                    frames=frames,
                    recorded_at=number + 1,
                )

    def totals(self) -> Any:
        return replace(self._index.totals(), segments=SEGMENTS * DAYS)


EQUAL = Counted(Counter(compared=1, equal=1), {}, 0, set(), {}, {}, set())


class Planned:
    """A fleet that runs nothing, and counts what it would."""

    slots = 128
    tasks = 0
    sent = 0

    def map(self, _body: object, items: Iterable[object]) -> Iterator[Any]:
        for item in items:
            self.tasks += 1
            self.sent += len(pickle.dumps(item))
        yield EQUAL

    def map_reduce(self, body: object, items: Iterable[object], _merge: object, keys: int) -> Iterator[Any]:
        assert keys
        return self.map(body, items)


def main() -> None:
    """Plan, and print how many deliveries and tasks there are, and the most memory, in MiB."""
    store = open_store(sys.argv[1], create=True)
    store = replace(store, index=Listed(store.index))
    planned, window = Planned(), Window(FIRST * DAY, (FIRST + DAYS) * DAY)
    engine = DuckEngine(threads=1)
    list(diff_aggregates(store, engine, window, fleet=cast(Fleet, planned)).rows)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps([SEGMENTS * DELIVERIES * DAYS, planned.tasks, planned.sent, most]))


if __name__ == "__main__":
    main()
