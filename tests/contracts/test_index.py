"""The contract of Index: what it answers about recorded deliveries."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pik.errors import NotFound, StoreError
from pik.model.batch import Location, Segment, Verdict
from pik.model.instant import DAY
from pik.model.window import ALL_TIME, Window
from pik.ports.index import Index, Totals, batch_of
from pik.ports.store import Store
from pik.stores.aws.catalog.index import AwsIndex
from tests.support.contracts.chunks import BATCH, OTHER, THIRD, Sent, arrivals, chunk, origin

A, A_LATER, B = Sent("a"), Sent("a", 2), Sent("b")
K, K_AGAIN, K_OTHER = Sent("k", 0, "x"), Sent("k", 2, "x"), Sent("k", -1, "y")


@pytest.fixture
def index(store: Store) -> Index:
    """BATCH: A, a reject, K, A again, and A_LATER. OTHER: K_AGAIN, K_OTHER, B, and a reject."""
    store.batches.open(origin(), BATCH, 1)
    store.batches.open(origin("d"), OTHER, 2)
    store.batches.record(chunk([A, None, K, A]))
    store.batches.record(chunk([A_LATER], first_seq=5, number=2))
    store.batches.record(chunk([K_AGAIN, K_OTHER, B, None], batch_id=OTHER))
    return store.index


def key(segment: Segment) -> tuple[int, str, str]:
    return segment.day, segment.batch_id, segment.key.rpartition("-")[2]


def test_what_it_holds_in_numbers(index: Index) -> None:
    assert index.totals() == Totals(
        events=4, deliveries=7, segments=5, batches=2, raw_bytes=70, first_event=-DAY + 2, last_event=2 * DAY + 5
    )


def test_what_an_empty_one_holds(store: Store) -> None:
    assert store.index.totals() == Totals(0, 0, 0, 0, 0, None, None)
    found = [*store.index.segments(ALL_TIME), *store.index.batches(), *store.index.rejects(BATCH)]
    assert [*found, *store.index.locate(""), *store.index.deliveries(A.event_id.hex())] == []


def test_segments_by_day_and_then_as_they_were_recorded(index: Index) -> None:
    segments = list(index.segments(ALL_TIME))
    assert [key(segment) for segment in segments] == [
        (-1, OTHER, "1.ndjson.zst"),
        (0, BATCH, "1.ndjson.zst"),
        (0, OTHER, "1.ndjson.zst"),
        (2, BATCH, "2.ndjson.zst"),
        (2, OTHER, "1.ndjson.zst"),
    ]
    assert [key(segment) for segment in index.segments(ALL_TIME, batch_id=OTHER)] == [
        key(segment) for segment in segments if segment.batch_id == OTHER
    ]


def test_a_segment_comes_back_as_it_was_recorded(index: Index) -> None:
    recorded = arrivals(BATCH, 1, {1: A, 3: K, 4: A})[0].segment
    found = next(index.segments(Window(0, DAY)))
    assert found.recorded_at > 0
    assert {name: getattr(found, name) for name in found.__struct_fields__ if name != "recorded_at"} == {
        name: getattr(recorded, name) for name in recorded.__struct_fields__ if name != "recorded_at"
    }


@pytest.mark.parametrize(
    ("start", "end", "days"),
    [
        (0, 1, {0}),
        (0, DAY, {0}),
        (0, DAY + 1, {0}),
        (DAY - 1, 2 * DAY + 1, {0, 2}),
        (-1, 1, {-1, 0}),
        (DAY, 2 * DAY, set()),
        (-DAY, 0, {-1}),
    ],
)
def test_segments_of_the_days_that_a_window_touches(index: Index, start: int, end: int, days: set[int]) -> None:
    assert {segment.day for segment in index.segments(Window(start, end))} == days


def test_the_duplicates_of_a_segment(index: Index) -> None:
    assert {key(segment)[:2]: index.skipped(segment) for segment in index.segments(ALL_TIME)} == {
        (-1, OTHER): {2: Verdict.CONFLICT},
        (0, BATCH): {4: Verdict.EXACT},
        (0, OTHER): {},
        (2, BATCH): {},
        (2, OTHER): {1: Verdict.EXACT},
    }


def test_where_an_event_is(index: Index) -> None:
    assert index.deliveries(A.event_id.hex()) == [
        Location(A.event_id.hex(), 0, f"raw/event_date=1970-01-01/{BATCH}-1.ndjson.zst", BATCH, 0, 1, Verdict.ACCEPTED),
        Location(A.event_id.hex(), 0, f"raw/event_date=1970-01-01/{BATCH}-1.ndjson.zst", BATCH, 2, 4, Verdict.EXACT),
    ]
    assert index.deliveries(K.event_id.hex()) == [
        Location(K.event_id.hex(), 0, f"raw/event_date=1970-01-01/{BATCH}-1.ndjson.zst", BATCH, 1, 3, Verdict.ACCEPTED),
        Location(K.event_id.hex(), 2, f"raw/event_date=1970-01-03/{OTHER}-1.ndjson.zst", OTHER, 0, 1, Verdict.EXACT),
        Location(
            K.event_id.hex(), -1, f"raw/event_date=1969-12-31/{OTHER}-1.ndjson.zst", OTHER, 0, 2, Verdict.CONFLICT
        ),
    ]
    assert index.deliveries(Sent("none").event_id.hex()) == []
    for limit in (1, 2, 3, 4):
        assert index.deliveries(K.event_id.hex(), limit) == index.deliveries(K.event_id.hex())[:limit]


@pytest.mark.parametrize("kind", ["aws"])
def test_a_damaged_duplicate_is_named(index: Index) -> None:
    assert isinstance(index, AwsIndex)
    item = next(each for each in index.table.scan() if "/duplicate/" in each["pk"] and A.event_id.hex() in each["sk"])
    index.table.put({**item, "kind": "strange"})
    with pytest.raises(StoreError, match="the index is damaged"):
        index.deliveries(A.event_id.hex())


def test_events_by_the_beginning_of_their_ids(index: Index) -> None:
    ids = sorted(sent.event_id.hex() for sent in (A, A_LATER, B, K))
    assert index.locate("") == ids
    assert index.locate("", limit=2) == ids[:2]
    for event_id in ids:
        for length in (1, 2, 3, 31, 32):
            assert index.locate(event_id[:length]) == [each for each in ids if each.startswith(event_id[:length])]


def test_the_segments_that_deliveries_are_in(index: Index) -> None:
    found = [*index.deliveries(A.event_id.hex()), *index.deliveries(K.event_id.hex())]
    listed = {segment.key: segment for segment in index.segments(ALL_TIME)}
    assert index.segments_of(found) == {one.segment_key: listed[one.segment_key] for one in found}
    elsewhere = replace(found[0], segment_key=found[0].segment_key.replace(BATCH, THIRD), batch_id=THIRD)
    assert index.segments_of([elsewhere]) == index.segments_of([]) == {}


def test_batches_newest_first_by_the_beginning_of_their_ids(index: Index) -> None:
    assert [batch.batch_id for batch in index.batches()] == [OTHER, BATCH]
    assert [batch.batch_id for batch in index.batches(BATCH)] == [BATCH]
    assert [batch.batch_id for batch in index.batches(BATCH[:10])] == [OTHER, BATCH]
    assert list(index.batches("%")) == []


def test_a_batch_by_an_unambiguous_prefix(index: Index) -> None:
    assert batch_of(index, BATCH.lower()).batch_id == BATCH
    with pytest.raises(NotFound, match=f"several batch ids start with 01j: {OTHER}, {BATCH}$"):
        batch_of(index, "01j")
    with pytest.raises(NotFound, match="is not in this store") as error:
        batch_of(index, "02")
    assert error.value.hint == "pik batches"


def test_the_rejects_of_a_batch_in_order(store: Store, index: Index) -> None:
    store.batches.record(chunk([None], first_seq=6, number=10))
    assert [(file.key, file.records) for file in index.rejects(BATCH)] == [
        (f"raw/rejects/{BATCH}-1.ndjson.zst", 1),
        (f"raw/rejects/{BATCH}-10.ndjson.zst", 1),
    ]
    assert index.rejects("none") == []


def test_answers_that_are_still_read_stop_nobody(store: Store, index: Index) -> None:
    """And keep to what was there when they began."""
    segments = index.segments(ALL_TIME)
    first = next(segments)
    store.batches.record(chunk([Sent("z", 1)], first_seq=6, number=11))
    assert 1 + sum(1 for _ in segments) == 5
    assert index.totals().segments == 6
    assert first.day == -1


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(-3, 5), st.integers(1, 4 * 24))
def test_a_window_misses_no_segment(index: Index, day: int, hours: int) -> None:
    window = Window(day * DAY, day * DAY + hours * DAY // 24)
    found = {key(segment) for segment in index.segments(window)}
    for segment in index.segments(ALL_TIME):
        touches = segment.first_event < window.end and segment.last_event >= window.start
        assert not touches or key(segment) in found
