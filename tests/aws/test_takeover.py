"""Who was taken for dead and lives: it cannot harm what another has gone on with, nor be told that all went well."""

from __future__ import annotations

import json
import time

import pytest

from pik.errors import Busy, StoreError
from pik.model.batch import Verdict
from pik.model.window import ALL_TIME
from pik.ports.remote import RecordStatus
from pik.ports.store import Store
from pik.runtime import SILENT
from pik.stores import open_store
from pik.stores.aws.catalog import generation
from pik.stores.aws.clients import Clients
from pik.usecases.care.rebuild import rebuild_index
from pik.usecases.ingest.api_request import record_request
from tests.support.aws.calls import hooked
from tests.support.aws.clock import later
from tests.support.aws.emulator import make_stack, publish
from tests.support.contracts.chunks import BATCH, Sent, chunk, counts, origin

EVENT = {"source": "s", "event_type": "t", "entity_id": "e", "event_time": "2026-01-01", "payload": {}}
BODY = json.dumps({**EVENT, "event_time": "2026-01-01T00:00:00Z"}).encode()


@pytest.fixture
def url(aws: Clients, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(generation, "NOTICED", 0.01)
    return publish(aws, make_stack(aws))


def test_promise_4_the_later_of_two_writers_of_a_batch_resumes_it(url: str) -> None:
    asleep, other = open_store(url), open_store(url)
    asleep.batches.open(origin(), BATCH, 1)
    asleep.batches.record(chunk([Sent("a"), Sent("b")]))
    assert other.batches.open(origin(), BATCH, 1).attempt == 2
    with pytest.raises(Busy, match=f"has taken over batch {BATCH}"):
        asleep.batches.record(chunk([Sent("c"), Sent("a")], first_seq=3, number=2))
    assert other.batches.record(chunk([Sent("c"), Sent("a")], first_seq=3, number=3)) == counts(2, 1, exact=1)
    with pytest.raises(Busy):
        asleep.batches.record(chunk([Sent("d")], first_seq=5, number=2))
    assert other.index.totals().deliveries == 4
    assert [place.kind for place in other.index.deliveries(Sent("a").event_id.hex())] == ["accepted", Verdict.EXACT]


@pytest.mark.parametrize("number", range(1, 10))
def test_promise_4_two_that_finish_one_chunk_at_the_same_time(url: str, number: int) -> None:
    """One records it, and before its n-th call another takes the batch over, and finishes what is pending."""
    slow, other = open_store(url), open_store(url)
    slow.batches.open(origin(), BATCH, 1)
    sent, expected = [Sent("a"), Sent("k", 1, "x"), Sent("a"), Sent("k", 2, "y")], counts(4, 2, 1, 1)
    calls = 0

    def interrupt(**_: object) -> None:
        nonlocal calls
        calls += 1
        if calls == number:
            other.batches.open(origin(), BATCH, 1)

    with hooked(slow, "before-send", interrupt):
        try:
            assert slow.batches.record(chunk(sent)) == expected
        except Busy:  # nothing was pending yet
            assert other.batches.record(chunk(sent, number=2)) == expected
    assert calls >= number
    (batch,) = other.index.batches(BATCH)
    assert batch.counts == expected
    segments = list(other.index.segments(ALL_TIME, batch_id=BATCH))
    assert {segment.recorded_at for segment in segments} == {batch.recorded_at}
    skipped = [other.index.skipped(segment) for segment in segments]
    assert skipped == [{3: Verdict.EXACT}, {}, {4: Verdict.CONFLICT}]


def test_a_writer_that_slept_over_a_rebuild_is_reported(url: str) -> None:
    asleep, other = open_store(url), open_store(url)
    asleep.batches.open(origin(), BATCH, 1)
    asleep.batches.record(chunk([Sent("a")]))
    with other.batches.rebuild():
        pass
    with pytest.raises(Busy, match="rebuilt"):
        asleep.batches.finish(BATCH, 2)
    with other.batches.rebuild() as rebuild:
        rebuild.add_batch(next(iter([other.batches.open(origin(), BATCH, 1)])))
    with pytest.raises(Busy, match="rebuilt"):
        asleep.batches.finish(BATCH, 2)


def test_promise_1_a_request_over_which_the_index_was_rebuilt_is_not_acknowledged(url: str) -> None:
    """Its raw may have come too late for the rebuild."""
    store, other = open_store(url), open_store(url)

    def rebuild(event_name: str, **_: object) -> None:
        if event_name.endswith("TransactWriteItems"):
            time.sleep(generation.NOTICED)
            rebuild_index(other, SILENT)

    with hooked(store, "before-send", rebuild), pytest.raises(Busy, match="rebuilt"):
        record_request(store, BODY)
    assert [result.status for result in record_request(store, BODY).results] == ["DUPLICATE"]  # of its own raw
    assert store.index.totals().events == 1


def test_a_request_goes_on_beside_a_rebuild_which_cannot_come_back_to_life_after_it_died(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, other = open_store(url), open_store(url)

    def statuses() -> list[str]:
        return [result.status for result in record_request(store, BODY).results]

    def come_back() -> None:
        with other.batches.rebuild():
            assert statuses() == [RecordStatus.ACCEPTED]
            later(monkeypatch)
            assert statuses() == [RecordStatus.DUPLICATE]

    with pytest.raises(StoreError, match="lost its lease"):
        come_back()
    assert open_store(url).index.totals().events == 1
    assert statuses() == [RecordStatus.DUPLICATE]


def test_a_rebuild_leaves_the_old_index_to_its_readers_and_the_next_one_removes_it(url: str) -> None:
    store = open_store(url)
    record_request(store, BODY)

    def generations(store: Store) -> set[str]:
        return {item["pk"].split("/")[0] for item in store.index.table.scan("pk")} - {"generation", "lease"}  # type: ignore[attr-defined]

    (first,) = generations(store)
    rebuild_index(store, SILENT)
    assert first in generations(store)
    rebuild_index(store, SILENT)
    assert first not in generations(store)
    assert len(generations(store)) == 2
    assert {found.key.split("/")[1] for found in store.raw.objects("index/")} <= generations(store)
