"""Republishing: what counts is sent, in order for each entity, at least once however often it is interrupted."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from msgspec import structs

from pik.engine import DuckEngine
from pik.errors import NothingSelected, PikError, StoreError, TargetUnavailable, UsageError
from pik.inputs.source import file_source
from pik.model.correction import CorrectionKind
from pik.model.instant import DAY, format_instant, parse_instant
from pik.model.republish import Form, Republish, RepublishRequest, RepublishState
from pik.model.window import ALL_TIME
from pik.ports.store import Store
from pik.ports.target import Message
from pik.rawlog.reading import Reading
from pik.runtime import SILENT
from pik.usecases.ingest.batch_ingest import IngestOptions
from pik.usecases.ingest.batch_ingest import ingest as ingest_source
from pik.usecases.republish import send as use_case
from pik.usecases.republish.messages import uri_reference
from pik.usecases.republish.order import OrderedDeliveries, order_deliveries
from pik.usecases.republish.send import Pace, begin, plan_republish, resume, unfinished
from tests.support.stores import event, ingest
from tests.support.targets import FakeTarget
from tests.usecases.test_corrected_replay import moved, places, recorded

ENGINE = DuckEngine()
FAST = Pace()


class Killed(BaseException):
    """The end of the process, as far as the code under test can tell."""


def shuffled(seed: int, count: int = 60) -> list[dict[str, Any]]:
    """Events of some entities, in no order; every third one has a key, and some of these come again, changed."""
    choose = random.Random(seed)
    events = []
    for number in range(count):
        day, minute = choose.randrange(1, 5), choose.randrange(3)
        one = event(number, choose.choice("aäbc"), f"0{day}T00:0{minute}", kind=choose.choice(["paid", "seen"]))
        events.append(one | ({"idempotency_key": f"k{number}"} if number % 3 == 0 else {}))
    again = [one | {"payload": {"v": -1}} for one in choose.sample(events[::3], 5)]
    return events + choose.sample(events, 10) + again


@pytest.fixture
def sold(store: Store, tmp_path: Path) -> Store:
    """With shuffled events in two batches."""
    ingest(store, tmp_path, shuffled(1)[:50])
    ingest(store, tmp_path, shuffled(1)[50:])
    return store


def request(**fields: Any) -> RepublishRequest:
    return RepublishRequest(start=ALL_TIME.start, end=ALL_TIME.end, target="fake://target", **fields)


@contextmanager
def planned(store: Store, wanted: RepublishRequest) -> Iterator[use_case.Plan]:
    with plan_republish(store, ENGINE, wanted, SILENT, now=1, actor="ana") as plan:
        yield plan


def sent(store: Store, target: FakeTarget, wanted: RepublishRequest, pace: Pace = FAST) -> Republish:
    with planned(store, wanted) as plan:
        return begin(store, plan, target, pace, SILENT)


def goes_on(store: Store, republish: Republish, target: FakeTarget, pace: Pace = FAST) -> Republish:
    return resume(store, ENGINE, republish.republish_id, target, pace, SILENT)


def ids(messages: Sequence[Message]) -> list[str]:
    return [message.event_id for message in messages]


def expect_order(messages: Sequence[Message]) -> None:
    """Each entity's messages follow one another, by time."""
    entities = [entity for entity, _ in groupby(messages, key=lambda one: one.entity_id)]
    assert len(entities) == len(set(entities))
    for _, group in groupby(messages, key=lambda one: one.entity_id):
        for first, second in pairwise(group):
            assert (first.event_time, first.event_id) <= (second.event_time, second.event_id)


def test_what_counts_is_sent_once_and_in_order(sold: Store) -> None:
    target = FakeTarget()
    republish = sent(sold, target, request())
    first: dict[tuple[str, ...], dict[str, Any]] = {}
    for one in shuffled(1):
        first.setdefault((one.get("idempotency_key", json.dumps(one)), one["entity_id"]), one)
    expected = sorted(
        (one["entity_id"], parse_instant(one["event_time"]), one["payload"]["v"]) for one in first.values()
    )
    found = [(one.entity_id, one.event_time, json.loads(one.body)["data"]["v"]) for one in target.taken]
    assert sorted(found) == expected
    expect_order(target.taken)
    assert (republish.state, republish.taken, republish.refused) == (RepublishState.COMPLETED, 60, 0)
    assert sold.republishes.get(republish.republish_id) == republish
    assert (republish.entities, republish.actor) == (4, "ana")


def test_as_received_every_delivery_is_sent(sold: Store) -> None:
    target = FakeTarget()
    sent(sold, target, request(as_received=True))
    assert len(target.taken) == len({one.message_id for one in target.taken}) == 75
    kinds = [json.loads(one.body)["pikverdict"] for one in target.taken]
    assert {kind: kinds.count(kind) for kind in kinds} == {"accepted": 60, "exact": 10, "conflict": 5}
    places = {one.attributes["pik-delivery"] for one in target.taken}
    assert places == {json.loads(one.body)["pikdelivery"] for one in target.taken}
    expect_order(target.taken)


def test_filters_choose_what_is_sent(sold: Store) -> None:
    target = FakeTarget()
    where = "(payload->>'$.v')::INT >= 30"
    sent(sold, target, request(entities=("a", "ä"), event_type="paid", source="web", where=where))
    wanted = [
        one["payload"]["v"]
        for one in shuffled(1)[:60]
        if one["entity_id"] in "aä" and one["event_type"] == "paid" and one["payload"]["v"] >= 30
    ]
    assert sorted(json.loads(one.body)["data"]["v"] for one in target.taken) == sorted(wanted)
    assert wanted
    for nothing in (request(entities=("nobody",)), request(where="false"), request(source="other")):
        with pytest.raises(NothingSelected, match="nothing to send"):
            sent(sold, target, nothing)
    with pytest.raises(UsageError, match="--where nonsense"):
        sent(sold, target, request(where="nonsense"))
    assert len(list(sold.republishes.newest_first())) == 1


def test_an_event_is_a_cloud_event_with_its_payload_as_it_came(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    payload = '{"a": 1.10, "big": 123456789012345678901234567890.5, "a": "ü"}'
    path.write_text(
        '{"source":"till 3/€:1","event_type":"paid","entity_id":"kunde 17 ß","idempotency_key":"k\\"1",'
        f'"event_time":"2026-01-01T02:00:00.5+02:00","payload":{payload},"app":{{"v":1.0}}}}\n'
    )
    ingest_file(store, path)
    target = FakeTarget()
    republish = sent(store, target, request())
    (message,) = target.taken
    body = json.loads(message.body)
    assert message.body.endswith(b',"data":' + payload.encode() + b"}")
    del body["data"]
    assert body == {
        "specversion": "1.0",
        "id": message.event_id,
        "source": "till%203/%E2%82%AC%3A1",
        "type": "paid",
        "subject": "kunde 17 ß",
        "time": "2026-01-01T00:00:00.500Z",
        "datacontenttype": "application/json",
        "partitionkey": "kunde 17 ß",
        "pikrepublishid": republish.republish_id,
        "idempotencykey": 'k"1',
    }
    assert message.attributes == {"pik-republish-id": republish.republish_id, "pik-event-id": message.event_id}
    assert message.message_id == f"{republish.republish_id}-{message.event_id}"
    original = FakeTarget()
    sent(store, original, request(form=Form.ORIGINAL))
    assert original.taken[0].body.endswith(b',"payload":' + payload.encode() + b"}")
    assert json.loads(original.taken[0].body) == json.loads(path.read_text())


def ingest_file(store: Store, path: Path) -> None:
    ingest_source(store, file_source(str(path)), IngestOptions(Reading(1 << 20), workers=0), SILENT)


@pytest.mark.parametrize(
    "source", ["app", "till 3", "https://a.example/x?y=1", "1:2", "50%", "a#b#c", "[x]", "ü/é", "a:b", "urn:x:y"]
)
def test_a_source_becomes_a_uri_reference_and_back(source: str) -> None:
    reference = uri_reference(source)
    assert unquote(reference) == source
    assert reference.isascii()
    assert not set(reference) & set(' "<>[]^`{|}#')


def test_what_is_refused_is_kept_and_sent_again_in_its_place(sold: Store) -> None:
    target = FakeTarget(refuses=lambda one: "HTTP 422 no" if one.event_id[0] < "3" or one.entity_id == "b" else "")
    republish = sent(sold, target, request())
    refused = list(sold.republishes.refusals(republish.republish_id))
    assert republish.state == RepublishState.PARTIAL
    assert (republish.taken, republish.refused) == (60 - len(refused), len(refused))
    assert {one.reason for one in refused} == {"HTTP 422 no"}
    assert {one.place.event_id for one in refused} == set(ids(target.attempt)) - set(ids(target.taken))
    target.refuses, target.attempt = (
        lambda one: "still no" if one.entity_id == "b" and one.event_id[0] < "8" else "",
        [],
    )
    again = goes_on(sold, republish, target)
    assert sorted(ids(target.attempt)) == sorted(one.place.event_id for one in refused)
    expect_order(target.attempt)
    left = list(sold.republishes.refusals(republish.republish_id))
    assert (again.taken, again.refused) == (60 - len(left), len(left))
    target.refuses = lambda _: ""
    ended = goes_on(sold, republish, target)
    assert (ended.state, ended.taken, ended.refused, ended.attempts) == (RepublishState.COMPLETED, 60, 0, 3)
    assert len(target.taken) == len(set(ids(target.taken))) == 60
    with pytest.raises(UsageError, match="nothing left to send"):
        goes_on(sold, republish, target)
    assert list(sold.state_audit.problems()) == []


def test_after_too_many_refusals_it_stops(sold: Store) -> None:
    target = FakeTarget(refuses=lambda _: "no")
    republish = sent(sold, target, request(), Pace(stop_after=10))
    assert (republish.state, republish.refused) == (RepublishState.STOPPED, 14)
    assert republish.stopped_because == "14 refused in this attempt"
    assert unfinished(sold, request()) == republish
    assert unfinished(sold, request(reason="another")) is None
    target.refuses, target.attempt = lambda _: "", []
    ended = goes_on(sold, republish, target)
    assert (ended.state, ended.taken) == (RepublishState.COMPLETED, 60)
    expect_order(target.attempt)
    assert unfinished(sold, request()) is None


def test_what_is_given_up_is_not_sent_any_more(sold: Store) -> None:
    target = FakeTarget(refuses=lambda _: "no")
    stopped = sent(sold, target, request(), Pace(stop_after=10))
    with sold.republishes.sending(stopped.republish_id), pytest.raises(PikError, match="another pik process"):
        use_case.cancel(sold, stopped.republish_id, "no", now=8, actor="eve")
    ended = use_case.cancel(sold, stopped.republish_id, "they have a backup", now=9, actor="eve")
    assert (ended.state, ended.finished_at, ended.refused) == (RepublishState.CANCELLED, 9, 14)
    assert ended.stopped_because == "cancelled by eve: they have a backup"
    assert use_case.cancel(sold, stopped.republish_id, "again", now=10, actor="bob") == ended
    assert sold.republishes.get(stopped.republish_id) == ended
    assert unfinished(sold, request()) is None
    with pytest.raises(UsageError, match="is CANCELLED: it is not sent any more"):
        goes_on(sold, stopped, target)
    done = sent(sold, FakeTarget(), request())
    with pytest.raises(UsageError, match="is COMPLETED: there is nothing left to send"):
        use_case.cancel(sold, done.republish_id, "no", now=9, actor="eve")
    assert list(sold.state_audit.problems()) == []


@pytest.mark.parametrize("error", [TargetUnavailable("it is down"), KeyboardInterrupt()])
def test_what_was_answered_is_not_sent_again_after_an_orderly_end(
    sold: Store, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    choose = random.Random(5)
    moment = {"left": 0}

    def fault() -> None:
        moment["left"] -= 1
        if moment["left"] == 0:
            raise error

    with order_deliveries(sold, ENGINE, request(), SILENT) as ordered:
        same_list(monkeypatch, ordered)
        for number in range(12):
            refuses = picky(3) if number % 2 else lambda _: ""
            target = FakeTarget(refuses, fault, at_most=20, order=lambda some: in_parallel(some, choose))
            with planned(sold, request(reason=str(number))) as plan:
                republish = plan.republish
                sold.republishes.create(republish)
            attempts = 0
            while republish.state != RepublishState.COMPLETED:
                target.attempt, moment["left"], attempts = [], choose.randrange(2, 60), attempts + 1
                with suppress(type(error)):
                    if goes_on(with_faults(sold, fault), republish, target).state == RepublishState.PARTIAL:
                        target.refuses = lambda _: ""
                republish = sold.republishes.get(republish.republish_id)
                assert republish.taken == len(target.taken)
                assert {"interrupted", "it is down", ""} >= {republish.stopped_because}
                assert len(republish.unanswered) < 20
                expect_order(sorted(target.attempt, key=lambda one: one.entity_id))
            assert len(target.taken) == len(set(ids(target.taken))) == 60
            assert (republish.unanswered, refusals(sold, republish)) == ((), set())
            assert attempts > 1
            if not number % 2:  # nothing was refused, so the order is that of the whole
                expect_order(sorted(target.taken, key=lambda one: one.entity_id))
    assert list(sold.state_audit.problems()) == []


def in_parallel(messages: Sequence[Message], choose: random.Random) -> list[int]:
    """Return the positions in the order in which several connections might send them: one entity's are in order."""
    waiting: dict[str, list[int]] = {}
    for at, message in enumerate(messages):
        waiting.setdefault(message.entity_id, []).append(at)
    order = []
    while waiting:
        entity = choose.choice(sorted(waiting))
        order.append(waiting[entity].pop(0))
        if not waiting[entity]:
            del waiting[entity]
    return order


class Interrupted:
    """Republishes that end the process at a moment of recording."""

    def __init__(self, inner: Any, fault: Callable[[], None]) -> None:
        self.inner, self.fault = inner, fault

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def record(self, *arguments: Any) -> None:
        self.fault()
        self.inner.record(*arguments)
        self.fault()


def test_promise_1_killed_at_any_moment_nothing_is_missing(sold: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    choose = random.Random(7)
    moment = {"left": -1}

    def fault() -> None:
        moment["left"] -= 1
        if moment["left"] == 0:
            raise Killed

    with order_deliveries(sold, ENGINE, request(), SILENT) as ordered:
        same_list(monkeypatch, ordered)
        everything = {one.place.event_id for one in ordered}
        for first in range(1, 90, 3):
            target = FakeTarget(picky(choose.randrange(2, 6)), fault, at_most=choose.randrange(1, 12))
            moment["left"] = first
            done = sent_though_killed(with_faults(sold, fault), target, moment, choose)
            assert set(ids(target.taken)) == everything
            assert (done.taken, done.refused, done.events) == (60, 0, 60)
            assert refusals(sold, done) == set()
            assert sold.republishes.get(done.republish_id) == done


def picky(divisor: int) -> Callable[[Message], str]:
    return lambda message: "no" if int(message.event_id, 16) % divisor == 0 else ""


def sent_though_killed(store: Store, target: FakeTarget, moment: dict[str, int], choose: random.Random) -> Republish:
    """Send and resume, killed again and again, until everything was taken. Checks what each attempt sends."""
    republish: Republish | None = None
    for _ in range(200):
        target.attempt = []
        before = None if republish is None else store.republishes.get(republish.republish_id)
        refused_before = refusals(store, republish)
        try:
            if republish is None:
                with planned(store, request()) as plan:
                    republish = plan.republish
                    ended = begin(store, plan, target, FAST, SILENT)
            else:
                ended = goes_on(store, republish, target)
        except Killed:
            moment["left"] = choose.randrange(1, 200)
        else:
            if ended.state == RepublishState.COMPLETED:
                return ended
            moment["left"] = choose.randrange(1, 200)
            target.refuses = lambda _: ""
        expect_order(target.attempt)
        if before is not None and before.cursor is not None:
            for one in target.attempt:
                place = one.entity_id, one.event_time, one.event_id
                is_after = place > (before.cursor.entity_id, before.cursor.event_time, before.cursor.event_id)
                assert is_after or one.event_id in refused_before
    raise AssertionError("it does not end")


def same_list(monkeypatch: pytest.MonkeyPatch, ordered: OrderedDeliveries) -> None:
    """Make the list once: that it is made the same again is tested elsewhere."""

    @contextmanager
    def as_it_is(*_: Any) -> Iterator[OrderedDeliveries]:
        yield ordered

    monkeypatch.setattr(use_case, "order_deliveries", as_it_is)


def with_faults(store: Store, fault: Callable[[], None]) -> Store:
    from dataclasses import replace

    return replace(store, republishes=Interrupted(store.republishes, fault))


def refusals(store: Store, republish: Republish | None) -> set[str]:
    if republish is None:
        return set()
    return {one.place.event_id for one in store.republishes.refusals(republish.republish_id)}


def test_what_arrives_after_the_plan_is_not_sent(sold: Store, tmp_path: Path) -> None:
    target = FakeTarget(fault=killed_at(20))
    with pytest.raises(Killed):
        sent(sold, target, request())
    (republish,) = sold.republishes.newest_first()
    assert republish.state == RepublishState.RUNNING
    later = [event(number, "a", f"01T00:{number}") for number in range(10, 30)]
    ingest(sold, tmp_path, later)
    ended = goes_on(sold, republish, target)
    assert (ended.state, ended.taken) == (RepublishState.COMPLETED, 60)
    assert len(set(ids(target.taken))) == 60
    everything = FakeTarget()
    assert sent(sold, everything, request()).taken == 80


def test_what_corrections_say_is_sent_as_they_were_when_it_was_planned(sold: Store, tmp_path: Path) -> None:
    every = [one for batch in (0, 1) for one in places(sold, batch)]
    counted = {one.event_id: one for one in sorted(every, key=lambda one: (one.batch_id, one.seq), reverse=True)}
    out, late, early, *_ = sorted(one for one in counted if counted[one].entity_id == "b")
    again = next(one for one in every if one.content_hash != counted[one.event_id].content_hash)
    recorded(sold, CorrectionKind.WITHOUT, [moved(one) for one in every if one.event_id == out])
    recorded(sold, CorrectionKind.SHIFT, [moved(counted[late], 9 * DAY), moved(counted[early], -9 * DAY)])
    chosen = [structs.replace(moved(one), counts=one is again) for one in every if one.event_id == again.event_id]
    recorded(sold, CorrectionKind.DELIVERY, chosen)
    expected = {event_id: one.event_instant for event_id, one in counted.items() if event_id != out}
    expected |= {late: expected[late] + 9 * DAY, early: expected[early] - 9 * DAY}
    target = FakeTarget(fault=killed_at(20))
    with pytest.raises(Killed):
        sent(sold, target, request())
    (republish,) = sold.republishes.newest_first()
    recorded(sold, CorrectionKind.SHIFT, [moved(one, DAY) for one in counted.values()])
    recorded(sold, CorrectionKind.WITHOUT, [moved(one) for one in every if one.event_id == early])
    ended = goes_on(sold, republish, target)
    assert (ended.state, ended.taken, ended.moved, ended.taken_out) == (RepublishState.COMPLETED, 59, 2, 1)
    assert {one.event_id: one.event_time for one in target.taken} == expected
    bodies = {one.event_id: json.loads(one.body) for one in target.taken}
    assert bodies[late]["time"] == format_instant(expected[late])
    assert bodies[late]["pikreceivedeventtime"] == format_instant(counted[late].event_instant)
    assert sum("pikreceivedeventtime" in one for one in bodies.values()) == 2
    assert bodies[again.event_id]["data"] == {"v": -1}
    assert target.taken.index(next(one for one in target.taken if one.entity_id == "b")) == ids(target.taken).index(
        early
    )
    gone = json.loads(bodies_of(sold, out))["payload"]["v"]
    with pytest.raises(NothingSelected, match="corrections took 1 out"):
        sent(sold, FakeTarget(), request(where=f"payload->>'$.v' = '{gone}'"))
    for where, taken_out in ((f"payload->>'$.v' <> '{gone}'", 1), (None, 2)):
        with planned(sold, request(entities=("b",), where=where)) as plan:
            assert plan.republish.taken_out == taken_out
    received = FakeTarget()
    assert sent(sold, received, request(as_received=True)).taken_out == 0
    assert sorted(one.event_time for one in received.taken) == sorted(one.event_instant for one in every)


def bodies_of(store: Store, event_id: str) -> bytes:
    target = FakeTarget()
    sent(store, target, request(as_received=True, form=Form.ORIGINAL, reason="to look at"))
    return next(one.body for one in target.taken if one.event_id == event_id)


def test_a_window_has_what_corrections_moved_into_it(sold: Store) -> None:
    one = places(sold)[0]
    recorded(sold, CorrectionKind.SHIFT, [moved(one, 40 * DAY)])
    day = (one.event_instant + 40 * DAY) // DAY * DAY
    target = FakeTarget()
    where = f"event_time >= '{format_instant(day)}'"
    sent(sold, target, structs.replace(request(where=where), start=day, end=day + DAY))
    assert [(each.event_id, each.event_time) for each in target.taken] == [(one.event_id, one.event_instant + 40 * DAY)]


def killed_at(number: int) -> Callable[[], None]:
    calls = iter(range(10**6))

    def fault() -> None:
        if next(calls) == number:
            raise Killed

    return fault


def test_another_list_is_not_taken_for_the_one_that_was_planned(sold: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    republish = sent(sold, FakeTarget(refuses=lambda _: "no"), request())
    sold.republishes.record(structs.replace(republish, list_digest="00" * 16))
    target = FakeTarget()
    with pytest.raises(StoreError, match="is not what counts today"):
        goes_on(sold, republish, target)
    assert target.attempt == []


def test_the_rate_is_kept(sold: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = {"now": 0.0}
    monkeypatch.setattr(use_case, "monotonic", lambda: clock["now"])
    monkeypatch.setattr(use_case, "sleep", lambda seconds: clock.update(now=clock["now"] + seconds))
    times: list[float] = []

    class Timed(FakeTarget):
        def send(self, messages: Sequence[Message], answers: dict[int, str]) -> None:
            times.extend([clock["now"]] * len(messages))
            super().send(messages, answers)

    sent(sold, Timed(at_most=50), request(), Pace(rate=4))
    assert [round(later - first, 6) for first, later in zip(times, times[4:], strict=False)] == [1.0] * 56
    times.clear()
    sent(sold, Timed(at_most=50), request(reason="faster"), Pace(rate=30))
    assert [round(later - first, 6) for first, later in zip(times, times[30:], strict=False)] == [1.0] * 30


def test_two_processes_do_not_send_the_same_republish(sold: Store) -> None:
    republish = sent(sold, FakeTarget(refuses=lambda _: "no"), request())
    with sold.republishes.sending(republish.republish_id), pytest.raises(PikError, match="another pik process"):
        goes_on(sold, republish, FakeTarget())


def test_a_list_that_does_not_fit_into_memory_is_sorted_on_disk(sold: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pik.runtime.storage.SORTED_IN_MEMORY", 7)
    target = FakeTarget()
    sent(sold, target, request())
    assert len(set(ids(target.taken))) == 60
    expect_order(target.taken)
