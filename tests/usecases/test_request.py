"""API requests: every form of a body, and what is kept of it."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from msgspec import structs

from pik.errors import InputError, Invalid
from pik.model.window import ALL_TIME
from pik.rawlog.objects import read_rejects, unpacked
from pik.runtime import SILENT
from pik.stores import open_store
from pik.usecases.care.rebuild import rebuild_index
from pik.usecases.care.verify import verify
from pik.usecases.ingest.api_request import MAX_BODY, MAX_EVENTS, RequestReport, TooLarge, record_request
from tests.support.docs import reader
from tests.support.snapshot import assert_sound, snapshot
from tests.support.stores import PlainEngine


def event(number: int = 1, **changes):
    fields = {
        "source": "s",
        "event_type": "t",
        "entity_id": f"e{number}",
        "event_time": "2026-01-31T00:00:00Z",
        "payload": {"n": number},
    }
    return {**fields, **changes}


def body(value) -> bytes:
    return json.dumps(value).encode()


@pytest.fixture
def store(tmp_path: Path):
    return open_store(str(tmp_path / "store"), create=True)


def statuses(taken: RequestReport) -> list[str]:
    return [result.status for result in taken.results]


def test_one_event_is_accepted_and_then_a_duplicate(store) -> None:
    first = record_request(store, json.dumps(event(), indent=2).encode())
    assert first.single
    assert statuses(first) == ["ACCEPTED"]
    assert first.results[0].key == f"raw/event_date=2026-01-31/{first.batch_id}-0.ndjson.zst"
    assert store.raw.size(first.results[0].key)
    again = record_request(store, body(event()))
    assert statuses(again) == ["DUPLICATE"]
    assert again.results[0].event_id == first.results[0].event_id
    assert store.index.totals().deliveries == 2


@pytest.mark.parametrize(
    "written",
    [
        lambda events: body(events),
        lambda events: body({"events": events}),
        lambda events: b"\n".join(map(body, events)),
        lambda events: b"\r\n\r\n".join(map(body, events)) + b"\r\n",
        lambda events: json.dumps(events, indent=1).encode(),
    ],
)
def test_promise_4_every_form_of_a_list_is_recorded_event_by_event(store, written) -> None:
    taken = record_request(store, written([event(1), event(2), event(1), {"source": "s"}, event(3)]))
    assert not taken.single
    assert statuses(taken) == ["ACCEPTED", "ACCEPTED", "DUPLICATE", "REJECTED", "ACCEPTED"]
    assert taken.results[3].field == "event_type"
    (batch,) = store.index.batches()
    assert structs.astuple(batch.counts) == (5, 3, 1, 0, 1)
    assert [file.records for file in store.index.rejects(batch.batch_id)] == [1]


def test_a_conflict_is_a_duplicate_that_is_reported_as_one(store) -> None:
    taken = record_request(store, body([event(idempotency_key="k"), event(idempotency_key="k", payload={"other": 1})]))
    assert [(result.status, result.conflict) for result in taken.results] == [("ACCEPTED", False), ("DUPLICATE", True)]


def test_lag_is_never_clamped(store) -> None:
    early = event(received_time="2026-01-30T23:59:59Z")
    assert record_request(store, body(early)).results[0].lag == -1_000_000_000


@pytest.mark.parametrize("empty", [b"", b"  \n ", b"[]", b'{"events": []}', b"\n\n"])
def test_a_body_without_events_is_refused(store, empty: bytes) -> None:
    with pytest.raises(Invalid):
        record_request(store, empty)
    assert store.index.totals().batches == 0


@pytest.mark.parametrize("cut", [b"[", b'[{"source": "s"}', b"[1, 2"])
def test_an_array_that_is_cut_is_refused(store, cut: bytes) -> None:
    with pytest.raises(InputError):
        record_request(store, cut)
    assert store.index.totals().batches == 0


def test_too_much_is_refused(store) -> None:
    with pytest.raises(TooLarge):
        record_request(store, b" " * (MAX_BODY + 1))
    with pytest.raises(TooLarge):
        record_request(store, b"{}\n" * (MAX_EVENTS + 1))


def test_a_record_that_is_not_an_event_is_kept_and_reported(store) -> None:
    taken = record_request(store, b"\x00\xff garbage")
    assert statuses(taken) == ["REJECTED"]
    (batch,) = store.index.batches()
    assert batch.counts.rejected == 1


def test_an_event_that_is_too_long_is_rejected(store) -> None:
    taken = record_request(store, b"\n".join([body(event(payload={"x": "y" * (1 << 20)})), body(event(2))]))
    assert statuses(taken) == ["REJECTED", "ACCEPTED"]


def test_a_dry_run_checks_and_keeps_nothing(store) -> None:
    assert statuses(record_request(store, body([event(), {}]), dry_run=True)) == ["VALID", "REJECTED"]
    assert store.index.totals().deliveries == 0
    assert list(store.raw.objects("raw/")) == []


def test_promise_3_requests_are_rebuilt_from_their_segments_alone(store) -> None:
    record_request(store, body([event(1), event(2), {"no": "event"}]))
    record_request(store, body(event(1)))
    record_request(store, body([event(3, event_time="2026-01-30T00:00:00Z"), event(4, source="other")]))
    record_request(store, b"{}")
    before = snapshot(store)
    assert rebuild_index(store, SILENT).revised == 0
    assert snapshot(store) == before
    assert_sound(store)


def test_every_line_and_reject_of_a_request_names_who_sent_it(store) -> None:
    sent = [event(1, event_time="2026-01-31T03:00:00+03:00", idempotency_key="k", note=1), {"source": 1}, event(2)]
    taken = record_request(store, body(sent), actor='ana "the third"')
    keys = {one.key for one in taken.results if one.key}
    lines = [line for key in keys for line in unpacked(key, store.raw.read(key))]
    assert len(lines) == 2
    for line in lines:
        fields = json.loads(line)
        assert fields["actor"] == 'ana "the third"'
        assert list(fields) == [name for name in reader.ORDER if name in fields]
    [rejects] = store.index.rejects(taken.batch_id)
    assert [reject.actor for reject in read_rejects(store.raw, rejects.key)] == ['ana "the third"']
    assert next(store.index.batches(taken.batch_id)).actor == 'ana "the third"'
    assert_sound(store)


def test_an_actor_that_the_index_has_changed_is_found_and_mended_from_raw(store) -> None:
    taken = record_request(store, body(event()), actor="ana")
    with closing(sqlite3.connect(f"{store.url}/index.db")) as index, index:
        index.execute("UPDATE batch SET actor = 'bob'")
    assert [problem.what for problem in verify(store, PlainEngine(), ALL_TIME, SILENT)] == [f"batch {taken.batch_id}"]
    rebuild_index(store, SILENT)
    assert next(store.index.batches(taken.batch_id)).actor == "ana"
    assert_sound(store)
