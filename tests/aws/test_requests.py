"""API requests in a deployed store are what they are in a local one, and after a rebuild again."""

from __future__ import annotations

import json
from collections.abc import Iterable
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from pik.model.batch import Location
from pik.model.delivery import Filter
from pik.model.window import ALL_TIME
from pik.ports.store import Store
from pik.runtime import SILENT
from pik.stores import open_store
from pik.stores.aws.catalog import generation
from pik.stores.aws.clients import Clients
from pik.usecases.care.rebuild import rebuild_index
from pik.usecases.ingest.api_request import record_request
from pik.usecases.inspect.events import list_events
from tests.support.aws.emulator import make_stack, publish
from tests.support.snapshot import assert_sound


def event(number: int, day: int = 1, **fields: object) -> dict[str, object]:
    time = f"2026-01-{day:02}T00:00:0{number}Z"
    return {
        "source": "s",
        "event_type": "t",
        "entity_id": f"e/{number % 2}",
        "event_time": time,
        "payload": {"number": number},
        **fields,
    }


BODIES: list[object] = [
    event(1),
    event(2),
    event(1),
    event(3, idempotency_key="k"),
    event(4, day=2, entity_id="e/1", idempotency_key="k"),
    event(3, idempotency_key="k"),
    [event(5), event(1), event(5), event(6, day=3)],
    [event(7), {"source": ""}],
    [{"source": ""}],
    event(6, day=3),
    event(8, payload={"large": "".join(sha256(b"%d" % n).hexdigest() for n in range(200))}),
]


def told(store: Store) -> dict[str, Any]:
    """What the store says of everything in it, without ids of batches and times."""
    events = list(list_events(store, Filter(ALL_TIME)))
    batches = sorted(store.index.batches(), key=lambda batch: batch.batch_id)
    order = {batch.batch_id: number for number, batch in enumerate(batches)}

    def placed(deliveries: Iterable[Location]) -> list[tuple[str, str, int, int]]:
        return [(one.event_id, one.kind, order[one.batch_id], one.seq) for one in deliveries]

    return {
        "batches": [
            (batch.state, batch.counts, batch.sources, batch.reasons, batch.first_event, batch.last_event)
            for batch in batches
        ],
        "totals": store.index.totals().events,
        "deliveries": store.index.totals().deliveries,
        "events": [(row.event_id, row.deliveries, order[row.batch_id], row.seq) for row in events],
        "where": {
            row.event_id: [(one.kind, order[one.batch_id], one.seq) for one in store.index.deliveries(row.event_id)]
            for row in events
        },
        "repeated": sorted(map(placed, chain(*(store.repeats.repeated_from(one.batch_id) for one in batches)))),
        "conflicts": sorted(map(placed, store.repeats.conflicting())),
        "prefixes": {row.event_id: store.index.locate(row.event_id[:7]) for row in events},
        "segments": sorted(
            (segment.day, order[segment.batch_id], segment.deliveries, tuple(store.index.skipped(segment).items()))
            for segment in store.index.segments(ALL_TIME)
        ),
    }


def test_promise_10_requests_are_the_same_in_both_stores(
    aws: Clients, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generation, "NOTICED", 0.01)
    home, away = open_store(str(tmp_path / "store"), create=True), open_store(publish(aws, make_stack(aws)))
    for body in BODIES:
        here, there = (record_request(store, json.dumps(body).encode()) for store in (home, away))
        assert [(one.status, one.event_id, one.conflict, one.error) for one in here.results] == [
            (one.status, one.event_id, one.conflict, one.error) for one in there.results
        ]
    assert told(away) == told(home)
    assert_sound(away)
    assert [segment.inline != b"" for segment in away.index.segments(ALL_TIME)].count(True) == 7
    before = told(away)
    assert rebuild_index(away, SILENT).revised == 0
    assert told(away) == before
    assert_sound(away)
    assert told(open_store(away.url)) == before
