"""The contract of Rebuild, and promise 3 after a fault, on every store: what the replaced index says is kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from pik.errors import Damaged
from pik.inputs import blocks as blocks_module
from pik.inputs.source import file_source
from pik.model.batch import BatchState, RejectFile, Verdict
from pik.model.delivery import Filter
from pik.model.window import ALL_TIME
from pik.ports.raw import RawKind
from pik.ports.store import Store
from pik.rawlog.deliveries import deliveries
from pik.rawlog.reading import Reading
from pik.rawlog.segment_reader import ids_of
from pik.runtime import SILENT
from pik.stores import open_store
from pik.usecases.care.rebuild import rebuild_index
from pik.usecases.ingest.api_request import record_request
from pik.usecases.ingest.batch_ingest import IngestOptions, Outcome, ingest
from pik.usecases.inspect.batches import status, with_closing
from tests.support.contracts.chunks import BATCH, OTHER, THIRD, Sent, arrivals, chunk, counts, origin
from tests.support.snapshot import assert_sound, damage, snapshot
from tests.support.survival.pools import KilledAhead

OPTIONS = IngestOptions(Reading(1 << 20), workers=0)


class Crash(Exception):
    """At will."""


def lose_index(store: Store) -> Store:
    """The store as another process finds it, its index gone."""
    if store.deployed:
        table = store.index.table  # type: ignore[attr-defined]
        table.write_many(deletes=[(item["pk"], item["sk"]) for item in table.scan("pk", "sk")])
    else:
        for name in ("index.db", "index.db-wal", "index.db-shm"):
            (Path(store.url) / name).unlink(missing_ok=True)
    return open_store(store.url)


def event(key: str, amount: int, entity: str = "e") -> dict[str, Any]:
    fields = {"source": "s", "event_type": "t", "entity_id": entity, "event_time": "2026-01-01T00:00:00Z"}
    return {**fields, "idempotency_key": key, "payload": {"amount": amount}}


def refused(store: Store, body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request whose object is written, and nothing else."""

    def crash(*_: Any) -> None:
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(type(store.requests), "record_request", crash)
        with pytest.raises(Crash):
            record_request(store, body)


def amounts(store: Store) -> dict[int, str]:
    found = deliveries(store, Filter(ALL_TIME))
    return {json.loads(bytes(one.delivery.payload))["amount"]: one.kind for one in found}


def times(store: Store) -> dict[str, int]:
    return {segment.key: segment.recorded_at for segment in store.index.segments(ALL_TIME)}


@pytest.mark.parametrize("several", [False, True])
def test_a_refused_request_never_beats_one_that_was_acknowledged(
    store: Store, several: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was answered with an error after its object was written; whoever sent it sends another one."""

    def body(amount: int) -> bytes:
        return json.dumps([event("k", amount), event("l", amount + 10)] if several else event("k", amount)).encode()

    refused(store, body(1), monkeypatch)
    record_request(store, body(2))
    record_request(store, body(3))
    before = times(store)
    expected = {2: Verdict.ACCEPTED, 3: Verdict.CONFLICT} | (
        {12: Verdict.ACCEPTED, 13: Verdict.CONFLICT} if several else {}
    )
    for _ in range(2):
        done = rebuild_index(store, SILENT)
        assert (done.unacknowledged, done.uncertain, done.revised, done.superseded) == (1, 0, 0, 0)
        assert (amounts(store), times(store), done.guessed) == (expected, before, 0)
    done = rebuild_index(lose_index(store), SILENT)
    assert (done.unacknowledged, done.uncertain, done.undecided) == (0, 3, 1 + several)
    assert amounts(open_store(store.url))[1] == Verdict.ACCEPTED  # only the order of arrival is left


def line(number: int) -> str:
    if number % 17 == 0:
        return "{broken\n" if number % 2 else "\n"
    key = {"idempotency_key": f"k{number % 11}"} if number % 5 == 0 else {}
    fields = {"source": "s", "event_type": "t", "entity_id": f"e{number % 5}"}
    made = {**fields, "event_time": f"2026-01-0{1 + number % 3}T00:00:00Z", "payload": {"n": number // 4 * 4}, **key}
    return json.dumps(made) + "\n"


@pytest.fixture
def events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """240 records over three days, some invalid, some twice, in about five blocks."""
    monkeypatch.setattr(blocks_module, "BLOCK", 4096)
    path = tmp_path / "events.jsonl"
    path.write_text("".join(line(number) for number in range(240)))
    return path


SLOW_AWS = pytest.param("aws", marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("kind", "gone"),
    [
        ("local", False),
        ("aws", True),
        *(pytest.param(*one, marks=pytest.mark.slow) for one in (("local", True), ("aws", False))),
    ],
)
def test_promise_1_a_cut_batch_is_resumed_after_a_rebuild(
    new_store: Callable[[], Store], events: Path, gone: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference, store = new_store(), new_store()
    ingest(reference, file_source(str(events)), OPTIONS, SILENT)
    whole = snapshot(reference)
    for count in (2, 1):
        interrupt_at(store, events, count, monkeypatch)
        before = times(store)
        store = lose_index(store) if gone else store
        done = rebuild_index(store, SILENT)
        assert (done.unfinished, done.revised, done.damaged) == (1, 0, ())
        assert damage(store) == []
        if not gone:
            assert times(store) == before
    assert ingest(store, file_source(str(events)), OPTIONS, SILENT).outcome == Outcome.RESUMED
    assert snapshot(store) == whole
    assert_sound(store)


@pytest.mark.parametrize("kind", ["local", SLOW_AWS])
def test_promise_1_a_block_that_was_ahead_of_the_others_counts_when_its_turn_has_come(
    new_store: Callable[[], Store], events: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ingest is killed when the third block is durable and the second is not, and the index is lost. The rebuild
    counts the first block only, so a later delivery of an event never takes the place of an earlier one."""
    reference, store = new_store(), new_store()
    ingest(reference, file_source(str(events)), OPTIONS, SILENT)
    with monkeypatch.context() as patch:
        patch.setattr(
            "pik.usecases.ingest.batch_ingest.block_builders",
            lambda raw, _, options: KilledAhead(raw, options.reading),
        )
        with pytest.raises(InterruptedError):
            ingest(store, file_source(str(events)), OPTIONS, SILENT)
    (before,) = store.index.batches()
    recorded = snapshot(store)
    store = lose_index(store)
    done = rebuild_index(store, SILENT)
    assert (done.unfinished, done.damaged, done.superseded > 0) == (1, (), True)
    (after,) = store.index.batches()
    assert (after.next_seq, after.offset, after.counts) == (before.next_seq, before.offset, before.counts)
    assert snapshot(store) == recorded
    assert damage(store) == []
    assert ingest(store, file_source(str(events)), OPTIONS, SILENT).outcome == Outcome.RESUMED
    assert snapshot(store) == snapshot(reference)
    assert_sound(store)


@pytest.mark.parametrize("kind", ["local", SLOW_AWS])
def test_promise_3_a_lost_block_record_is_found_and_what_follows_it_comes_again(
    new_store: Callable[[], Store], events: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference, store = new_store(), new_store()
    ingest(reference, file_source(str(events)), OPTIONS, SILENT)
    interrupt_at(store, events, 3, monkeypatch)
    (batch,) = store.index.batches()
    remove(store, RawKind.BLOCK.key(batch.batch_id, 2))
    assert [(problem.kind, problem.what) for problem in damage(store)] == [
        ("missing", RawKind.BLOCK.key(batch.batch_id, 2))
    ]
    store = lose_index(store)
    (said,) = rebuild_index(store, SILENT).damaged
    assert "a block record of the interrupted batch" in said
    ingest(store, file_source(str(events)), OPTIONS, SILENT)
    assert snapshot(store) == snapshot(reference)
    assert_sound(store)


def remove(store: Store, key: str) -> None:
    if store.deployed:
        raw: Any = store.raw.raw  # type: ignore[attr-defined]
        raw.clients.client("s3").delete_object(Bucket=raw.bucket, Key=key)
    else:
        (Path(store.url) / key).unlink()


def test_a_delivery_can_be_preferred_and_the_others_are_judged_by_it(store: Store) -> None:
    k, other, plain = Sent("k", 1, "x"), Sent("k", 2, "y"), Sent("a")
    for batch_id, content in ((BATCH, "c"), (OTHER, "d"), (THIRD, "e")):
        store.batches.open(origin(content), batch_id, 1)
    known = {batch.batch_id: batch for batch in store.index.batches()}
    first = arrivals(BATCH, 1, {1: k, 2: plain})
    second = arrivals(OTHER, 1, {1: other, 2: plain})
    third = arrivals(THIRD, 1, {1: other, 2: k})
    with store.batches.rebuild() as rebuild:
        for batch in known.values():
            rebuild.add_batch(replace(batch, state=BatchState.COMPLETE, counts=counts(2, 2)))
        rebuild.add_segments(stamped(first), {})
        rebuild.add_segments(stamped(second), {1: Verdict.CONFLICT, 2: Verdict.EXACT})
        rebuild.add_segments(stamped(third), {1: Verdict.CONFLICT, 2: Verdict.EXACT})
        of_other, of_plain = (next(one for one in second if seq in dict(ids_of(one))) for seq in (1, 2))
        assert rebuild.winners(of_other, [1])[1].place == (BATCH, 1)
        for _ in range(2):
            rebuild.prefer(of_other, 1)
            rebuild.prefer(of_plain, 2)
        assert rebuild.winners(of_other, [1])[1].place == (OTHER, 1)
        assert rebuild.skipped([of_other.segment]) == [{}]
        assert list(rebuild.settle()) == []
    kinds = {
        each: [(place.kind, place.batch_id, place.seq) for place in store.index.deliveries(each.event_id.hex())]
        for each in (k, plain)
    }
    assert kinds == {
        k: [
            (Verdict.ACCEPTED, OTHER, 1),
            (Verdict.CONFLICT, BATCH, 1),
            (Verdict.EXACT, THIRD, 1),
            (Verdict.CONFLICT, THIRD, 2),
        ],
        plain: [(Verdict.ACCEPTED, OTHER, 2), (Verdict.EXACT, BATCH, 2)],
    }
    assert {batch.batch_id: batch.counts for batch in store.index.batches()} == {
        BATCH: counts(2, 0, exact=1, conflict=1),
        OTHER: counts(2, 2),
        THIRD: counts(2, 0, exact=1, conflict=1),
    }


def stamped(block: Any) -> list[Any]:
    """A block that says when it was recorded."""
    from msgspec import structs

    return [replace(one, segment=structs.replace(one.segment, recorded_at=7)) for one in block]


def test_the_rows_that_the_replaced_index_has_of_a_segment(store: Store) -> None:
    store.batches.open(origin("c"), BATCH, 1)
    store.batches.record(chunk([Sent("a"), Sent("k", 0, "x"), Sent("a"), Sent("k", 0, "y")]))
    record_request(store, json.dumps(event("r", 1)).encode())
    segments = list(store.index.segments(ALL_TIME))
    with store.batches.rebuild() as rebuild:
        rows = {segment.batch_id: rebuild.rows(segment, range(len(segment.frames))) for segment in segments}
        assert sorted(seq for seq, _ in ids_of(rows.pop(BATCH))) == [1, 2, 3, 4]
        (of_request,) = rows.values()
        assert [seq for seq, _ in ids_of(of_request)] == [1]
        assert list(ids_of(rebuild.rows(segments[0], ()))) == []


@pytest.mark.parametrize("was", [Verdict.EXACT, Verdict.CONFLICT])
def test_a_request_that_counts_since_another_one_is_lost_is_told_with_what_it_was(store: Store, was: Verdict) -> None:
    record_request(store, json.dumps(event("r", 1)).encode())
    [batch] = store.index.batches()
    [segment] = store.index.segments(ALL_TIME)
    with store.batches.rebuild() as rebuild:
        rebuild.add_batch(batch)
        rebuild.add_segments([rebuild.rows(segment, range(len(segment.frames)))], {1: was})
        [place] = rebuild.settle()
    assert (place.batch_id, place.seq, place.kind) == (batch.batch_id, 1, was)
    assert amounts(store) == {1: Verdict.ACCEPTED}


def test_a_cut_batch_is_replaced_when_the_whole_file_came(
    store: Store, events: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not by a file that only begins alike; and a rebuild, even without the old index, does not forget it."""
    lines = events.read_text().splitlines(keepends=True)
    cut, other = tmp_path / "cut.jsonl", tmp_path / "other.jsonl"
    cut.write_text("".join(lines[:-5]))
    interrupt_at(store, cut, 2, monkeypatch)
    (before,) = store.index.batches()
    other.write_text("".join([*lines[:20], *(line(number + 300) for number in range(220))]))
    ingest(store, file_source(str(other)), OPTIONS, SILENT)
    assert with_closing(store, before).state == BatchState.INTERRUPTED
    done = ingest(store, file_source(str(events)), OPTIONS, SILENT).batch
    (found,) = store.index.batches(before.batch_id)
    closed = with_closing(store, found)
    assert (closed.state, closed.replaced_by) == (BatchState.REPLACED, done.batch_id)
    assert (status(store).interrupted, status(store).replaced) == (0, 1)
    assert damage(store) == []
    store = lose_index(store)
    rebuild_index(store, SILENT)
    (found,) = store.index.batches(before.batch_id)
    assert with_closing(store, found).state == BatchState.REPLACED


def test_damage_to_an_interrupted_batch_does_not_stop_the_whole_file(
    store: Store, events: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether its records came again is not known then, so it stays interrupted."""
    lines = events.read_text().splitlines(keepends=True)
    cut = tmp_path / "cut.jsonl"
    cut.write_text("".join(lines[:-5]))
    interrupt_at(store, cut, 2, monkeypatch)
    (before,) = store.index.batches()
    rejects = type(store.index).rejects

    def damaged(self: Any, batch_id: str) -> list[RejectFile]:
        if batch_id == before.batch_id:
            raise Damaged("a file of its rejects is missing")
        return rejects(self, batch_id)

    monkeypatch.setattr(type(store.index), "rejects", damaged)
    done = ingest(store, file_source(str(events)), OPTIONS, SILENT).batch
    assert done.state == BatchState.COMPLETE
    assert with_closing(store, before).state == BatchState.INTERRUPTED


def test_promise_8_few_deliveries_are_asked_for_of_an_event_that_came_often(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[int] = []
    deliveries_of = type(store.index).deliveries

    def counted(self: Any, event_id: str, limit: int | None = None) -> Any:
        places = deliveries_of(self, event_id, limit)
        found.append(len(places))
        return places

    monkeypatch.setattr(type(store.index), "deliveries", counted)
    path = tmp_path / "events.jsonl"
    path.write_text(line(3) * 400)
    assert ingest(store, file_source(str(path)), OPTIONS, SILENT).batch.counts.exact == 399
    assert 0 < sum(found) <= 16


def test_wrong_counts_of_an_interrupted_batch_are_found(
    store: Store, events: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its writer died between two chunks, so its counts are those of its segments."""
    interrupt_at(store, events, 2, monkeypatch)
    assert damage(store) == []
    batches, totals = type(store.index).batches, type(store.index).totals

    def counting_more(self: Any, *arguments: Any) -> Any:
        for batch in batches(self, *arguments):
            yield replace(batch, counts=structs.replace(batch.counts, accepted=batch.counts.accepted + 1))

    def with_more(self: Any) -> Any:
        found = totals(self)
        return replace(found, events=found.events + 1)

    with monkeypatch.context() as patch:
        patch.setattr(type(store.index), "batches", counting_more)
        assert any("its segments hold" in problem.detail for problem in damage(store))
    with monkeypatch.context() as patch:
        patch.setattr(type(store.index), "totals", with_more)
        assert [problem.what for problem in damage(store)] == ["the index's totals"]


def interrupt_at(store: Store, path: Path, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ingest until the count-th block is in raw, and the index has not taken it."""
    record, calls = type(store.batches).record, iter(range(1000))

    def crashing(self: Any, chunk: Any, **_: Any) -> Any:
        if next(calls) == count:
            raise Crash
        return record(self, chunk)

    with monkeypatch.context() as patch:
        patch.setattr(type(store.batches), "record", crashing)
        with pytest.raises(Crash):
            ingest(store, file_source(str(path)), OPTIONS, SILENT)
