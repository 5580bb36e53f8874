"""The contract of Repeats: events with several deliveries, and every delivery has the time of its segment."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from pik.model.batch import Batch, BatchState, Location, Verdict, request_origin
from pik.model.window import ALL_TIME
from pik.ports.store import Store
from tests.support.contracts.chunks import BATCH, OTHER, THIRD, Sent, chunk, origin

Delivery = tuple[str, int, Verdict]


def request(store: Store, batch_id: str, sent: Sequence[Sent]) -> None:
    """An API request with these events."""
    batch = Batch(batch_id=batch_id, origin=request_origin(batch_id), state=BatchState.COMPLETE, started_at=1)
    store.requests.record_request(batch, chunk(sent, batch_id=batch_id, number=0), {})


def told(events: Sequence[Location]) -> list[Delivery]:
    return [(one.batch_id, one.seq, one.kind) for one in events]


@dataclass
class Model:
    """What was recorded, in order, and what that makes of each event."""

    deliveries: dict[bytes, list[tuple[str, int, str | None]]] = field(default_factory=dict)
    sent: list[Sent] = field(default_factory=list)

    def add(self, batch_id: str, seq: int, sent: Sent) -> None:
        self.sent.append(sent)
        self.deliveries.setdefault(sent.event_id, []).append((batch_id, seq, sent.says))

    def verdicts(self, first_seq: int, sent: Sequence[Sent]) -> dict[int, Verdict]:
        """Those of deliveries to come, as far as their events were recorded."""
        return {
            seq: Verdict.EXACT if one.says == self.deliveries[one.event_id][0][2] else Verdict.CONFLICT
            for seq, one in enumerate(sent, first_seq)
            if one.event_id in self.deliveries
        }

    def events(self) -> list[list[Delivery]]:
        found = []
        for first, *rest in self.deliveries.values():
            if rest:
                later = [(one[0], one[1], Verdict.EXACT if one[2] == first[2] else Verdict.CONFLICT) for one in rest]
                found.append([(first[0], first[1], Verdict.ACCEPTED), *later])
        return found


def assert_right(store: Store, model: Model) -> None:
    """Both questions, and the time of each delivery; the index gives the same deliveries."""
    expected = model.events()
    times = {segment.key: segment.recorded_at for segment in store.index.segments(ALL_TIME)}
    batches = {one[0] for deliveries in model.deliveries.values() for one in deliveries}
    for batch_id in batches:
        found = list(store.repeats.repeated_from(batch_id))
        assert sorted(map(told, found)) == sorted(one for one in expected if one[0][0] == batch_id), batch_id
        for day in {one.day for deliveries in found for one in deliveries}:
            some = list(store.repeats.repeated_from(batch_id, (day, day)))
            needed = [deliveries for deliveries in found if any(one.day == day for one in deliveries)]
            assert all(deliveries in some for deliveries in needed)
            assert all(deliveries in found for deliveries in some)
        for deliveries in found:
            assert [one.recorded_at for one in deliveries] == [times[one.segment_key] for one in deliveries]
            accepted, *others = store.index.deliveries(deliveries[0].event_id)
            assert [accepted, *sorted(others, key=lambda one: one.order)] == deliveries
            assert [one.recorded_at for one in others] == [times[one.segment_key] for one in others]
            assert accepted.recorded_at == deliveries[0].recorded_at
    events = [(None if one.says else one.day, one.event_id.hex()) for one in model.sent]
    assert store.repeats.counts(events) == [len(model.deliveries[bytes.fromhex(each)]) - 1 for _, each in events]
    conflicts = list(store.repeats.conflicting())
    assert store.repeats.conflicted({each for _, each in events}) == {one[0].event_id for one in conflicts}
    wanted = [one for one in expected if any(kind == Verdict.CONFLICT for *_, kind in one)]
    assert sorted(map(told, conflicts)) == sorted(wanted)
    assert all(one.recorded_at == times[one.segment_key] for deliveries in conflicts for one in deliveries)


def test_an_empty_store_has_none(store: Store) -> None:
    assert [*store.repeats.conflicting(), *store.repeats.repeated_from(BATCH)] == []
    assert (store.repeats.counts([]), store.repeats.conflicted([])) == ([], set())
    absent = Sent("a").event_id.hex()
    assert (store.repeats.counts([(0, absent), (None, absent)]), store.repeats.conflicted([absent])) == ([0, 0], set())


def test_an_event_that_came_in_a_file_twice_and_in_requests(store: Store) -> None:
    plain, once = Sent("a"), Sent("once")
    store.batches.open(origin(), BATCH, 1)
    store.batches.record(chunk([plain, once, plain]))
    request(store, OTHER, [plain])
    request(store, THIRD, [Sent("b", 3), plain, Sent("b", 3)])
    [found] = store.repeats.repeated_from(BATCH)
    accepted, exact = Verdict.ACCEPTED, Verdict.EXACT
    assert told(found) == [(BATCH, 1, accepted), (BATCH, 3, exact), (OTHER, 1, exact), (THIRD, 2, exact)]
    [found] = store.repeats.repeated_from(THIRD)
    assert told(found) == [(THIRD, 1, accepted), (THIRD, 3, exact)]
    assert list(store.repeats.repeated_from(OTHER)) == []
    assert list(store.repeats.conflicting()) == []


def test_conflicts_on_other_days_and_in_requests(store: Store) -> None:
    request(store, BATCH, [Sent("k", 0, "x")])
    request(store, OTHER, [Sent("k", 5, "y")])
    store.batches.open(origin(), THIRD, 1)
    store.batches.record(chunk([Sent("k", 9, "x"), Sent("l", 2, "x"), Sent("l", 1, "x")], batch_id=THIRD))
    whole = [(BATCH, 1, Verdict.ACCEPTED), (OTHER, 1, Verdict.CONFLICT), (THIRD, 1, Verdict.EXACT)]
    assert [told(one) for one in store.repeats.conflicting()] == [whole]
    assert [told(one) for one in store.repeats.repeated_from(BATCH)] == [whole]
    assert [told(one)[1:] for one in store.repeats.repeated_from(THIRD)] == [[(THIRD, 3, Verdict.EXACT)]]
    store.batches.record(chunk([Sent("k", 0, "y")], batch_id=THIRD, first_seq=4, number=2))
    assert [told(one) for one in store.repeats.conflicting()] == [[*whole, (THIRD, 4, Verdict.CONFLICT)]]


@pytest.mark.parametrize("seed", range(3))
def test_files_and_requests_that_repeat_each_other(store: Store, seed: int) -> None:
    """Batches of several chunks that are never finished, requests with one event and with several, events with and
    without a key, on several days."""
    chance, model = random.Random(seed), Model()
    names = [f"01J0000000000000000000000{digit}" for digit in "0123456789"]
    chance.shuffle(names)  # ids do not say in which order batches came
    files = dict.fromkeys(names[:3], 1)
    for name in files:
        store.batches.open(origin(name), name, 1)
    turns = chance.choices(names[:3], k=6) + names[3:]
    chance.shuffle(turns)

    def some() -> Sent:
        event, day = chance.choice("abc"), chance.randrange(3)
        return Sent(f"k{event}", day, chance.choice("xxy")) if chance.random() < 0.5 else Sent(event, day)

    for turn in turns:
        sent = [some() for _ in range(chance.choice([1, 1, 4]))]
        first = files.get(turn, 1)
        coming = chunk(sent, batch_id=turn, first_seq=first, number=first)
        assert store.repeats.verdicts(coming.arrivals) == model.verdicts(first, sent)
        if turn in files:
            store.batches.record(coming)
            files[turn] += len(sent)
        else:
            request(store, turn, sent)
        for seq, one in enumerate(sent, first):
            model.add(turn, seq, one)
    assert_right(store, model)


def test_answers_are_read_as_they_are_needed(store: Store) -> None:
    """Another write meanwhile disturbs nothing."""
    store.batches.open(origin(), BATCH, 1)
    store.batches.record(chunk([Sent("a"), Sent("a"), Sent("b"), Sent("b")]))
    found = store.repeats.repeated_from(BATCH)
    next(found)
    store.batches.record(chunk([Sent("c")], first_seq=5, number=2))
    assert len(list(found)) == 1
