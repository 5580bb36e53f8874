"""The promises on a bad day: what AWS refuses, does in part, or does without saying so, changes nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from botocore.exceptions import ConnectionClosedError

from pik.errors import StoreError
from pik.inputs import blocks as blocks_module
from pik.model.batch import Verdict
from pik.model.delivery import Filter
from pik.model.window import ALL_TIME
from pik.ports.remote import RecordStatus
from pik.ports.store import Store
from pik.stores import open_store
from pik.stores.aws.clients import Clients
from pik.usecases.ingest.api_request import EventResult, record_request
from pik.usecases.inspect.events import list_events
from tests.aws.test_crash import PLAIN
from tests.support.aws.calls import hooked
from tests.support.aws.clock import later
from tests.support.aws.emulator import make_stack, publish
from tests.support.aws.unreliable import unreliable
from tests.support.snapshot import assert_sound, snapshot
from tests.survival.conftest import EXTRA, ingest, whole


@pytest.fixture
def store(aws: Clients, no_delays: None) -> Store:
    return open_store(publish(aws, make_stack(aws)))


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
def test_promises_1_and_4_a_file_on_a_bad_day(
    store: Store, tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was refused too often ends the ingest, which another goes on with."""
    monkeypatch.setattr(blocks_module, "BLOCK", 4000)
    monkeypatch.setattr(blocks_module, "FIRST_READ", 100)
    path = tmp_path / "few.jsonl"
    path.write_text("\n".join(EXTRA[:60] + PLAIN) + "\n")
    days = []
    for attempt in range(1, 20):
        with unreliable(store, 100 * seed + attempt) as day:
            days.append(day)
            try:
                ingest(store, path)
                break
            except StoreError:
                later(monkeypatch, attempt)  # its lease may not have been given back
    assert {what.split()[0] for day in days for what in day.happened} >= {"cut", "error", "throttled"}
    assert snapshot(store) == snapshot(whole(tmp_path, path))
    assert_sound(store)


def test_promise_1_requests_on_a_bad_day(store: Store) -> None:
    """Each event is acknowledged as accepted once at most, and counts exactly once if it was."""
    bodies = [line.encode() for line in PLAIN[:4]] * 3 + [json.dumps([json.loads(one) for one in PLAIN]).encode()]
    acknowledged: list[EventResult] = []
    with unreliable(store, 7) as day:
        for body in bodies:
            for _ in range(20):
                try:
                    acknowledged += record_request(store, body).results
                    break
                except StoreError:
                    continue
    assert day.happened
    assert len(acknowledged) == 12 + 8
    events = {result.event_id for result in acknowledged}
    for event_id in events:
        statuses = [result.status for result in acknowledged if result.event_id == event_id]
        assert set(statuses) <= {RecordStatus.ACCEPTED, RecordStatus.DUPLICATE}
        assert statuses.count(RecordStatus.ACCEPTED) <= 1
        assert [place.kind for place in store.index.deliveries(event_id)].count(Verdict.ACCEPTED) == 1
    assert store.index.totals().events == len(events)
    assert {row.event_id for row in list_events(store, Filter(ALL_TIME))} == events


def test_promise_1_the_day_of_a_request_is_listed_though_the_first_one_failed(store: Store) -> None:
    def refuse(event_name: str, **_: object) -> None:
        if event_name.endswith("TransactWriteItems"):
            raise ConnectionClosedError(endpoint_url="")

    with hooked(store, "before-send", refuse), pytest.raises(StoreError):
        record_request(store, PLAIN[0].encode())
    (result,) = record_request(store, PLAIN[1].encode().replace(b"2026-01-02", b"2026-01-01")).results
    assert [row.event_id for row in list_events(store, Filter(ALL_TIME))] == [result.event_id]
