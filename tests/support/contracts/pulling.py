"""A store with everything that a pull has to bring along, and every question that its copy must answer alike."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from random import Random
from typing import Any

from msgspec import structs

from pik.errors import PikError
from pik.inputs.source import file_source
from pik.model.delivery import Filter
from pik.model.metric import Definition
from pik.model.window import ALL_TIME, Window
from pik.ports.store import Store
from pik.rawlog.deliveries import deliveries
from pik.rawlog.reading import Reading
from pik.runtime import SILENT
from pik.stores import open_copy
from pik.usecases.care.verify import verify
from pik.usecases.ingest.api_request import record_request
from pik.usecases.ingest.batch_ingest import IngestOptions, ingest
from pik.usecases.inspect.batches import list_rejects
from pik.usecases.inspect.deliveries import show_event
from pik.usecases.inspect.duplicates import DuplicateFilter, count_duplicates, list_duplicates
from pik.usecases.inspect.events import EventRow, list_events
from pik.usecases.metrics.definitions import add_version, list_aggregates
from pik.usecases.metrics.diff import diff_aggregates
from pik.usecases.pull.pull import PullReport, PullRequest, pull
from pik.usecases.replay.promote import promote
from tests.support.stores import SUM, PlainEngine, replay, replayed, window

WEEKLY = Definition(name="weekly", value="sum(v)", bucket="7d", where="event_type = 'paid'")
DAYS = (1, 3, 4, 6, 9, 14)
ENTITIES = ("a", "b", "c")


def some_event(draw: Random) -> dict[str, Any]:
    """Of January 2026; of three, one has an idempotency key that may come again on another day."""
    event: dict[str, Any] = {
        "source": draw.choice(["web", "app"]),
        "event_type": draw.choice(["paid", "seen"]),
        "entity_id": draw.choice(ENTITIES),
        "event_time": f"2026-01-{draw.choice(DAYS):02}T{draw.randint(0, 3) * 7:02}:00:00Z",
        "payload": {"v": draw.randint(1, 3)},
    }
    if draw.random() < 0.4:
        event |= {"source": "web", "event_type": "paid", "idempotency_key": f"k{draw.randint(1, 25)}"}
    return event


def record(store: Store, directory: Path, name: str, records: Iterable[Any]) -> None:
    path = directory / f"{name}.jsonl"
    path.write_text("".join(each if isinstance(each, str) else json.dumps(each) + "\n" for each in records))
    ingest(store, file_source(str(path)), IngestOptions(Reading(1 << 20), workers=0), SILENT)


def fill(store: Store, directory: Path, seed: int) -> None:
    """Files, API requests and rejects; numbers that were promoted, others that were not, and events that came later."""
    draw = Random(seed)
    add_version(store.metrics, Definition(name="total", value="count(*)", bucket="1d", where="event_type = 'paid'"), 1)
    add_version(store.metrics, SUM, 2)
    add_version(store.metrics, WEEKLY, 3)
    engine = PlainEngine()
    events = [some_event(draw) for _ in range(80)]
    record(store, directory, "first", [*events[:50], "not JSON\n", *draw.sample(events, 10)])
    replayed(store, engine, window("01", "09"), reason="first numbers")
    record(store, directory, "second", [*events[50:], '{"source":""}\n', *draw.sample(events, 10)])
    for _ in range(5):
        record_request(store, json.dumps(draw.choice([some_event(draw), draw.choice(events)])).encode())
    record_request(store, json.dumps([some_event(draw) for _ in range(4)]).encode())
    replayed(store, engine, window("03", "05"), reason="corrected")
    replay(store, engine, window("01", "12"), reason="looked at, and left")
    record(store, directory, "late", [some_event(draw) for _ in range(10)])


def pulled(
    source: Store, target: Path, within: Window = ALL_TIME, entities: Sequence[str] = ()
) -> tuple[Store, PullReport]:
    """The copy in that directory, and what this pull brought."""
    copy = open_copy(str(target), source)
    return copy, pull(source, copy, PullRequest(within, tuple(entities)), SILENT)


def answers(store: Store, within: Window, entities: Sequence[str] = ()) -> dict[str, Any]:
    """What a store says of a window."""
    wanted = Filter(within, tuple(entities))
    engine = PlainEngine()
    events = list(list_events(store, wanted))
    diff = diff_aggregates(store, engine, within, entities=entities)
    return {
        "events": events,
        "shown": [show_event(store, engine, each.event_id) for n, each in enumerate(events) if _shown(n, each)],
        "duplicates": list(list_duplicates(store, DuplicateFilter(wanted), payload_diff=True)),
        "by entity": list(count_duplicates(store, DuplicateFilter(wanted), "entity")),
        "aggregates": list(list_aggregates(store, within, entities=entities).rows),
        "history": [  # on what a version was based is not taken over
            structs.replace(row, base=None)
            for row in list_aggregates(store, within, entities=entities, history=True).rows
        ],
        "differences": list(diff.rows),
        "stats": diff.stats,
        "metrics": [store.metrics.versions(metric.name) for metric in store.metrics.latest()],
    }


def _shown(number: int, event: EventRow) -> bool:
    return event.deliveries > 1 or number % 4 == 0


def verdicts(store: Store) -> dict[tuple[str, int], str]:
    """What every delivery that is there is, asked for or not."""
    return {(found.delivery.batch_id, found.delivery.seq): found.kind for found in deliveries(store, Filter(ALL_TIME))}


def recomputed(store: Store, within: Window, entities: Sequence[str] = ()) -> list[Any]:
    """What a replay of the window writes, and what it makes current."""
    run = replay(store, PlainEngine(), within, entities=tuple(entities))
    written = [change.written.computed for change in store.aggregates.changes(run.run_id)]
    promote(store, run.run_id, 9, "")
    current = list_aggregates(store, within, entities=entities).rows
    return [(run.new, run.changed, run.unchanged, run.removed), written, [each.computed for each in current]]


def sound(store: Store) -> None:
    """Verify finds nothing, and what batches count is what is there."""
    found = verify(store, PlainEngine(), ALL_TIME, SILENT)
    assert list(found) == []
    answer = found.summary
    assert answer.valid == answer.segments
    totals = store.index.totals()
    counts = [batch.counts for batch in store.index.batches()]
    assert totals.events == sum(one.accepted for one in counts)
    assert totals.deliveries == sum(one.accepted + one.duplicates for one in counts)
    for batch in store.index.batches():
        assert batch.counts.read == batch.counts.accepted + batch.counts.duplicates + batch.counts.rejected
        assert sum(batch.sources.values()) == sum(batch.lags.values()) == batch.counts.read - batch.counts.rejected
        assert len(list(list_rejects(store, batch))) == batch.counts.rejected


def refusal(store: Store, within: Window, entities: Sequence[str] = ()) -> str:
    """How the store refuses all questions about this: in the same words each."""
    wanted = Filter(within, tuple(entities))
    said = set()
    for question in (
        lambda: list_events(store, wanted),
        lambda: list_duplicates(store, DuplicateFilter(wanted)),
        lambda: count_duplicates(store, DuplicateFilter(wanted), "batch"),
        lambda: list_aggregates(store, within, entities=entities),
        lambda: diff_aggregates(store, PlainEngine(), within, entities=entities),
        lambda: replay(store, PlainEngine(), within, entities=tuple(entities)),
    ):
        try:
            question()
            said.add("answered")
        except PikError as error:
            said.add(f"{type(error).__name__}: {error.message}")
    return " | ".join(sorted(said))
